"""From a power curve to an OCPP charging profile, and back to what it really allows.

Rules of ocpp-depot.md B10: rounding goes down, the start lies in the past, the first
period is at 0, the last one has no end, and when a station takes few periods the last
one is the minimum of the rest. Never approximated upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from agent.domain.capability import (
    AC_MINIMUM_A,
    NOMINAL_VOLTAGE_V,
    ProfileForm,
    RateUnit,
)
from agent.domain.curve import EVER_S, Curve, curve, floor_tenth, since
from agent.domain.ids import EvseId, TransactionId

START_IN_PAST_S = 60
"""A start this far back is past for a station whose clock is a little slow (PRF-07)."""
START_OLDEST_S = 12 * 3600
"""A constant limit needs no older start; old starts make large offsets."""
PERIOD_MIN_S = 5
"""A raise that lasts less is dropped: stations need longer to follow it."""
LEAD_S = 30
"""A reduction leaves this early for a station that takes one period at a time."""
TX_PROFILE_ID = 100
"""An outlet's TxProfile has this id plus the EVSE, so that updates replace (B10.6)."""
DEFAULT_PROFILE_ID = 1
"""The safe default of a whole station has this id; per outlet: plus the EVSE."""


FAST_PROFILE_ID = 300
"""The Dynamic profile of an outlet has this id plus the EVSE (2.1)."""
OWN_IDS = frozenset(
    first + number
    for first in (DEFAULT_PROFILE_ID, TX_PROFILE_ID, FAST_PROFILE_ID)
    for number in range(65)
)
"""All ids that the agent gives out, before the offset that some 2.1 stations want."""


class Purpose(StrEnum):
    """Purposes in the words of 2.x; 1.6 spells the first one differently."""

    STATION_MAX = "ChargingStationMaxProfile"
    TX_DEFAULT = "TxDefaultProfile"
    TX = "TxProfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargingProfile:
    """A version-free charging profile with one schedule.

    ``periods`` are (seconds from ``starts_at``, limit in units with one decimal).
    ``starts_at`` is None for a Relative schedule. The last four are of 2.1 only: a
    Dynamic profile of one period with its watchdog and pull interval, and how long a
    profile may hold without a connection, all in seconds.
    """

    profile_id: int
    purpose: Purpose
    stack_level: int
    unit: RateUnit
    phases: int | None
    periods: tuple[tuple[int, float], ...]
    starts_at: datetime | None
    transaction_id: TransactionId | None = None
    is_dynamic: bool = False
    duration_s: int | None = None
    update_every_s: int | None = None
    offline_max_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledProfile:
    """A profile that a station reports as installed, and the W that it allows."""

    evse_id: EvseId
    profile_id: int
    purpose: str
    source: str
    allows: Curve
    transaction_id: TransactionId | None = None

    def is_for(self, evse_id: EvseId, transaction_id: TransactionId) -> bool:
        """Whether it limits this transaction at this outlet."""
        is_own = self.transaction_id in (None, transaction_id)
        return self.purpose == Purpose.TX and self.evse_id == evse_id and is_own

    def is_foreign(self, id_offset: int) -> bool:
        """Whether a central system before us left it behind (VER-02)."""
        is_central = self.source in ("", "CSO")
        return is_central and self.profile_id - id_offset not in OWN_IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A profile, the curve that it really allows (W), and how long it is exact.

    From ``exact_until_s`` on (seconds since the epoch) the profile only holds the
    minimum of the rest: it must be replaced before.
    """

    profile: ChargingProfile
    allows: Curve
    exact_until_s: int


def compile_tx(
    line: Curve,
    *,
    evse_id: EvseId,
    transaction_id: TransactionId,
    form: ProfileForm,
    now: datetime,
    transaction_started_at: datetime,
) -> Compiled:
    """Compile the limit of a running transaction (TxProfile).

    ``line`` is what the vehicle may draw, W at the outlet, from now on and for ever.
    """
    now_s = int(now.timestamp())
    steps = _drop_short_raises(list(since(line, now_s)))
    steps, exact_until_s = _fit(steps, form.periods_max)
    limits = [(at_s, _in_unit(limit_w, form)) for at_s, limit_w in steps]
    limits = _merge(limits)
    if form.is_relative:
        start_s = int(transaction_started_at.timestamp())
    else:
        segment_s = max((at_s for at_s, _ in line if at_s <= now_s), default=now_s)
        start_s = min(max(segment_s, now_s - START_OLDEST_S), now_s - START_IN_PAST_S)
    start_s = min(start_s, now_s)
    periods = tuple(
        (0 if index == 0 else at_s - start_s, limit)
        for index, (at_s, limit) in enumerate(limits)
    )
    profile = ChargingProfile(
        profile_id=TX_PROFILE_ID + evse_id + form.id_offset,
        purpose=Purpose.TX,
        stack_level=form.stack_level,
        unit=form.unit,
        phases=form.phases,
        periods=periods,
        starts_at=None if form.is_relative else datetime.fromtimestamp(start_s, UTC),
        transaction_id=transaction_id,
        offline_max_s=form.offline_max_s,
    )
    allows = curve((at_s, _in_watts(limit, form)) for at_s, limit in limits)
    return Compiled(profile=profile, allows=allows, exact_until_s=exact_until_s)


def compile_default(
    limit_w: float, *, evse_id: EvseId, form: ProfileForm, now: datetime
) -> Compiled:
    """Compile the safe default for when no other profile holds (B11).

    EVSE 0 stands for all outlets of the station; the limit is per outlet. A default
    below the minimum of a vehicle would let it fall asleep, so it is 0 or the minimum.
    """
    limit = _in_unit(limit_w, form)
    start_s = int(now.timestamp()) - START_IN_PAST_S
    profile = ChargingProfile(
        profile_id=DEFAULT_PROFILE_ID + evse_id + form.id_offset,
        purpose=Purpose.TX_DEFAULT,
        stack_level=0,
        unit=form.unit,
        phases=form.phases,
        periods=((0, limit),),
        starts_at=None if form.is_relative else datetime.fromtimestamp(start_s, UTC),
    )
    allows = curve([(start_s, _in_watts(limit, form))])
    return Compiled(profile=profile, allows=allows, exact_until_s=EVER_S)


def _drop_short_raises(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    kept: list[tuple[int, float]] = []
    for index, (at_s, limit_w) in enumerate(steps):
        ends_s = steps[index + 1][0] if index + 1 < len(steps) else EVER_S
        is_short_raise = kept and limit_w > kept[-1][1] and ends_s - at_s < PERIOD_MIN_S
        if not is_short_raise:
            kept.append((at_s, limit_w))
    return list(curve(kept))


def _fit(
    steps: list[tuple[int, float]], periods_max: int
) -> tuple[list[tuple[int, float]], int]:
    if len(steps) <= periods_max:
        return steps, EVER_S
    head = steps[: periods_max - 1]
    rest = steps[periods_max - 1 :]
    if not head:
        return _one_at_a_time(steps)
    return [*head, (rest[0][0], min(limit for _, limit in rest))], rest[0][0]


def _one_at_a_time(steps: list[tuple[int, float]]) -> tuple[list[tuple[int, float]], int]:
    """For a station that takes one period the agent is the clock (B13.6).

    A lower step is sent ``LEAD_S`` early, so that the plan is not passed while the order
    is on its way; if the agent dies, the value stays, and the budget counts it so.
    """
    now_s = steps[0][0]
    soon = [limit for at_s, limit in steps if at_s <= now_s + LEAD_S]
    value = min(soon)
    for at_s, limit in steps[1:]:
        if limit < value:
            return [(now_s, value)], max(at_s - LEAD_S, now_s + 1)
        if limit > value:
            return [(now_s, value)], at_s
    return [(now_s, value)], EVER_S


def _merge(limits: list[tuple[int, float]]) -> list[tuple[int, float]]:
    merged: list[tuple[int, float]] = []
    for at_s, limit in limits:
        if not merged or merged[-1][1] != limit:
            merged.append((at_s, limit))
    return merged


def _in_unit(limit_w: float, form: ProfileForm) -> float:
    if limit_w < form.minimum_w:
        return 0.0  # 1 to 999 W mean 0 to some stations and more to others (W4)
    if form.unit is RateUnit.WATT:
        return floor_tenth(limit_w)
    phases = form.phases or 3
    amperes = floor_tenth(limit_w / (NOMINAL_VOLTAGE_V * phases))
    if form.whole_amps:
        amperes = float(int(amperes))
    return amperes if form.phases is None or amperes >= AC_MINIMUM_A else 0.0


def _in_watts(limit: float, form: ProfileForm) -> float:
    if form.unit is RateUnit.WATT:
        return limit
    return limit * NOMINAL_VOLTAGE_V * (form.phases or 3)
