"""How far a limit is proved: an answer, a composite schedule, an offer, a measurement.

The four levels of ocpp-depot.md B12, weakest first. What is measured outranks what a
station says of itself: a composite schedule is one witness, and some lie
(charger-quirks.md VER-05, VER-06, LIM-14). Pure: powers in W at the outlet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.domain.capability import NOMINAL_VOLTAGE_V
from agent.domain.curve import Curve, edges, value_at
from agent.domain.ids import TransactionId
from agent.domain.ladder import Way
from agent.domain.meter import MeterState
from agent.domain.reconcile import (
    OVER_FACTOR,
    OVER_MARGIN_W,
    SETTLE_S,
    OutletPower,
)

HORIZON_S = 3600
"""The next hour is asked for and compared (B12 level 1)."""
OVER_SHARE = 1.02
"""A composite schedule may pass the limit by 2 % (B12 level 1)."""
STEP_DC_W = 100.0
"""One step of a DC station's own reckoning; of AC it is an ampere on each phase."""
SKEW_S = 60.0
"""A station's clock may be this far off: near a step either side of it is right."""
TELLING_DRAW = 0.7
"""Power at or above this share of the limit shows that the limit is what holds it."""
TELLING_LIMIT = 0.95
"""A limit above this share of the rating proves nothing: nobody would notice."""


class Level(StrEnum):
    """The strongest proof of the newest accepted limit."""

    NONE = "none"
    ANSWER = "answer"
    COMPOSITE = "composite"
    OFFERED = "offered"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What a composite schedule said of the limit since ``since``, sent in ``way``.

    ``agrees`` is None when it said nothing; ``words`` say what it allows beyond.
    """

    since: datetime
    way: Way
    agrees: bool | None
    words: str = ""

    def is_of(self, since: datetime | None, way: Way) -> bool:
        """Whether it speaks of this limit in this form."""
        mine, other = (self.way.rung, self.way.fixes), (way.rung, way.fixes)
        return self.since == since and mine == other


def level_of(
    power: OutletPower,
    meter: MeterState,
    witness: Witness | None,
    transaction_id: TransactionId,
) -> Level:
    """Tell the strongest proof of a transaction's limit."""
    own = power.confirmed
    is_mine = own is not None and own.transaction_id == transaction_id
    if own is None or not is_mine or power.doubtful is not None:
        return Level.NONE
    if power.verified is True and power.unproved is None:
        return Level.MEASURED
    if is_offer_within(power, meter):
        return Level.OFFERED
    is_new = witness is not None and witness.since == power.changed_at
    if witness is not None and is_new and witness.agrees:
        return Level.COMPOSITE
    return Level.ANSWER


def is_offer_within(power: OutletPower, meter: MeterState) -> bool:
    """Whether the station offers the vehicle no more than the limit (B12 level 2)."""
    own, at = power.confirmed, meter.power_at
    if own is None or meter.offered_w is None or at is None or power.changed_at is None:
        return False
    if at <= power.changed_at:
        return False
    limit_w = value_at(own.allows, at.timestamp())
    return meter.offered_w <= limit_w * OVER_FACTOR + OVER_MARGIN_W


def is_telling(power: OutletPower, meter: MeterState) -> bool:
    """Whether the newest sample shows by itself that the limit is what holds power."""
    own, at, measured_w = power.confirmed, meter.power_at, meter.power_w
    if own is None or at is None or measured_w is None or power.changed_at is None:
        return False
    if (at - power.changed_at).total_seconds() < SETTLE_S:
        return False
    limit_w = value_at(own.allows, at.timestamp())
    most_w = limit_w * OVER_FACTOR + OVER_MARGIN_W
    return limit_w * TELLING_DRAW <= measured_w <= most_w


def is_worth_asking(
    power: OutletPower, meter: MeterState, *, rated_w: float, now: datetime
) -> bool:
    """Whether a composite schedule would tell what nothing measured tells."""
    own, since = power.confirmed, power.changed_at
    if own is None or since is None or power.doubtful is not None:
        return False
    if (now - since).total_seconds() < SETTLE_S:
        return False
    if value_at(own.allows, now.timestamp()) >= rated_w * TELLING_LIMIT:
        return False
    return not is_telling(power, meter) and not is_offer_within(power, meter)


def beyond(
    said: Curve, power: OutletPower, *, factor: float, phases: int | None, now_s: int
) -> str:
    """Say where a composite schedule allows more than the limit; "" when nowhere.

    ``factor``: of DC it may speak of the grid side (K08). Compared for the next hour,
    as far as the sent limit is exact. ``phases`` is None for DC.
    """
    own = power.confirmed
    if own is None:
        return ""
    step_w = STEP_DC_W if phases is None else NOMINAL_VOLTAGE_V * phases
    until_s = min(now_s + HORIZON_S, own.exact_until_s)
    steps = edges((said, own.allows), now_s)
    for at_s in sorted({*steps, *(step + int(SKEW_S) for step in steps)}):
        if at_s >= max(until_s, now_s + 1):
            break
        near = (at_s - SKEW_S, float(at_s), at_s + SKEW_S)
        limit_w = max(value_at(own.allows, moment) for moment in near)
        said_w = min(value_at(said, moment) for moment in near)
        if said_w > limit_w * factor * OVER_SHARE + step_w:
            return f"{said_w / 1000:.1f} kW at a limit of {limit_w / 1000:.1f} kW"
    return ""
