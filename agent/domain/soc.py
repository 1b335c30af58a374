"""State of charge of one vehicle: what was measured, and what energy has added since.

Measurements are rare and rounded, metered energy is dense and exact, and how many points
a watt-hour makes differs from car to car (size and age of the battery, its charger). So
two things are estimated together, SoC and the ratio between the expected and the true
points per watt-hour, by a Kalman filter over the few measurements of a session
(ocpp-depot.md A5 and D5, smartcar.md section 9). Pure, and worked out only when somebody
asks: nothing here runs for a meter value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt

from agent.domain.meter import HISTORY_SLOT_S, MeterState
from agent.domain.values import changed, value

FULL_SOC = 100.0
DC_EFFICIENCY = 0.96
"""Share of the energy at a DC outlet that stays in the battery, until learned."""
AC_EFFICIENCY = 0.90
"""The same at an AC outlet, where the vehicle's own charger takes its part (inferred)."""
GROSS_USABLE = 0.95
"""Share of a nominal (gross) capacity that a vehicle shows as 0 to 100 % (inferred)."""
SPREAD_REGISTRY = 0.07
SPREAD_NEEDS = 0.07
SPREAD_GROSS = 0.09
"""One standard deviation of the points per watt-hour before anything was learned."""
SPREAD_LEARNED_MIN = 0.012
"""Temperature and power move the efficiency this much from night to night."""
SPREAD_DRIFT = 0.006
"""What is added to the learned spread for every session: batteries age."""
RATIO_MIN, RATIO_MAX = 0.7, 1.4
"""A worn battery gains up to 1.4 times as fast as its nameplate says; beyond these the
registry names the wrong battery."""
RATIO_STEP_MAX = 0.06
"""The learned ratio moves at most this much per session."""
LEARN_POINTS = 15.0
"""A session teaches when its measurements are this many points of gain apart."""
SIGMA_STATION = 0.5
SIGMA_CLOUD = 0.8
"""Of a whole percent, points: rounding, and the seconds between sample and message."""
SIGMA_STALE = 4.0
"""Of a value from before the plug-in: the vehicle drove since."""
SIGMA_SCHEDULE = 5.0
"""Of the SoC that a schedule expects at arrival."""
SIGMA_WAY = 0.006
"""Points per point gained: what the ratio does not explain."""
SIGMA_UNKNOWN_SIZE = 10.0
"""When energy flowed into a battery of unknown size."""
UNKNOWN_SIZE_WH = 1000.0
OUTLIER_POINTS = 5.0
OUTLIER_SIGMAS = 3.5
"""A measurement further from what was expected needs a second one that agrees."""
ANCHORS_MAX = 12
"""Kept per session: the first one and the newest; a vehicle's cloud is asked 5 times."""
AHEAD_MAX_S = 900.0
"""The last measured power is carried on this long at most when the meter is silent."""
LIVE_POINTS, LIVE_S = 1.0, 900.0
"""A value that moved less than this since it was measured is still the measured one
(ocpp-depot.md A5: age below 15 min)."""


class SocSource(StrEnum):
    """Where a SoC comes from, as the contract names it."""

    STATION = "station"
    NEEDS = "charging-needs"
    CLOUD = "smartcar"
    SCHEDULE = "schedule"
    ESTIMATE = "estimate"


class BatteryOrigin(StrEnum):
    """Where the size of a battery comes from; ``GROSS`` overstates what a need is."""

    REGISTRY = "registry"
    GROSS = "smartcar-gross"
    NEEDS = "charging-needs"


@value(kw_only=True)
class SocAnchor:
    """One measurement: percent, and the session's energy (Wh) when it was taken."""

    percent: float
    energy_wh: float
    at: datetime
    source: SocSource
    sigma: float


@value(kw_only=True)
class SocBook:
    """The measurements of a session that did not come with meter values.

    ``doubtful`` waits for a second witness. ``ceiling`` is the vehicle's own charge
    limit in percent, above which no energy raises its SoC.
    """

    anchors: tuple[SocAnchor, ...] = ()
    doubtful: SocAnchor | None = None
    ceiling: float | None = None


@value(kw_only=True)
class SocBattery:
    """How a vehicle's SoC follows energy at this outlet.

    ``points_per_wh`` is the best guess with what was learned, ``spread`` its relative
    standard deviation. ``may_ask_car``: its own cloud may give a measurement.
    """

    points_per_wh: float
    spread: float
    origin: BatteryOrigin
    may_ask_car: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Soc:
    """What is believed of a SoC: percent, where from, when measured, and ± points.

    ``measured_at`` is None when nothing was measured in this session.
    """

    percent: float
    source: SocSource
    measured_at: datetime | None
    confidence: float

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the newest measurement."""
        if self.measured_at is None:
            return None
        return max((now - self.measured_at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What earlier sessions taught of a vehicle's points per watt-hour, as a ratio."""

    ratio: float = 1.0
    spread: float = SPREAD_REGISTRY
    sessions: int = 0


@dataclass(slots=True)
class _Filter:
    """SoC and ratio with their variances; ``x`` are points expected by the prior."""

    x: float
    soc: float
    ratio: float
    var_soc: float
    var_ratio: float
    cov: float = 0.0

    def move(self, x: float) -> None:
        step = x - self.x
        self.soc += self.ratio * step
        self.var_soc += 2 * step * self.cov + step * step * self.var_ratio
        self.var_soc += (SIGMA_WAY * step) ** 2
        self.cov += step * self.var_ratio
        self.x = x

    def see(self, percent: float, sigma: float) -> None:
        gain_soc = self.var_soc / (self.var_soc + sigma * sigma)
        gain_ratio = self.cov / (self.var_soc + sigma * sigma)
        error = percent - self.soc
        self.soc += gain_soc * error
        self.ratio = min(max(self.ratio + gain_ratio * error, RATIO_MIN), RATIO_MAX)
        self.var_ratio -= gain_ratio * self.cov
        self.cov *= 1 - gain_soc
        self.var_soc *= 1 - gain_soc


def battery(
    *,
    registry_wh: float | None,
    gross_wh: float | None,
    needs_wh: float | None,
    is_dc: bool,
    learned: Learned | None = None,
    may_ask_car: bool = False,
) -> SocBattery | None:
    """Tell how SoC follows energy: registry first, then the cloud's gross, then needs."""
    sizes = (
        (registry_wh, BatteryOrigin.REGISTRY, SPREAD_REGISTRY),
        (gross_wh and gross_wh * GROSS_USABLE, BatteryOrigin.GROSS, SPREAD_GROSS),
        (needs_wh, BatteryOrigin.NEEDS, SPREAD_NEEDS),
    )
    known = next((item for item in sizes if item[0]), None)
    if known is None or not known[0]:
        return None
    efficiency = DC_EFFICIENCY if is_dc else AC_EFFICIENCY
    points_per_wh = FULL_SOC * efficiency / known[0]
    if learned is None:
        return SocBattery(
            points_per_wh=points_per_wh,
            spread=known[2],
            origin=known[1],
            may_ask_car=may_ask_car,
        )
    return SocBattery(
        points_per_wh=points_per_wh * learned.ratio,
        spread=max(learned.spread, SPREAD_LEARNED_MIN),
        origin=known[1],
        may_ask_car=may_ask_car,
    )


def energy_at(meter: MeterState, at: datetime) -> float:
    """Energy of the session up to a moment, Wh; ahead of the meter by its last power."""
    register_at = meter.register_at
    if register_at is None:
        return meter.energy_wh
    ahead_s = (at - register_at).total_seconds()
    if ahead_s >= 0:
        return meter.energy_wh + (meter.power_w or 0.0) * min(ahead_s, AHEAD_MAX_S) / 3600
    from_s, known_s = at.timestamp(), register_at.timestamp()
    after_wh = 0.0
    for start_s, held_wh, _, _ in meter.history:
        end_s = min(float(start_s + HISTORY_SLOT_S), max(known_s, start_s + 1.0))
        share = (end_s - max(from_s, float(start_s))) / (end_s - start_s)
        after_wh += held_wh * max(share, 0.0)
    return max(meter.energy_wh - after_wh, 0.0)


def take(book: SocBook, new: SocAnchor, known: SocBattery | None) -> SocBook:
    """Take a measurement in.

    A zero, or a value far from what was expected, waits for a second one that agrees;
    then the older ones are forgotten. What is older than the newest is passed over.
    """
    anchors, doubtful = book.anchors, book.doubtful
    if not anchors:
        if new.percent == 0 and (doubtful is None or new.at <= doubtful.at):
            return changed(book, doubtful=doubtful or new)
        return changed(book, anchors=(new,), doubtful=None)
    newest = anchors[-1]
    if newest.sigma >= SIGMA_STALE > new.sigma:
        return changed(book, anchors=(new,), doubtful=None)
    if new.at <= newest.at or (doubtful is not None and new.at <= doubtful.at):
        return book
    new = changed(new, energy_wh=max(new.energy_wh, newest.energy_wh))  # it never falls
    if _is_outlier(book, newest, new, known):
        if doubtful is not None and _agree(doubtful, new, known):
            return changed(book, anchors=(doubtful, new), doubtful=None)
        return changed(book, doubtful=new)
    kept = (*anchors, new)
    if len(kept) > ANCHORS_MAX:
        kept = (kept[0], *kept[2:])
    return changed(book, anchors=kept, doubtful=None)


def _is_outlier(
    book: SocBook, newest: SocAnchor, new: SocAnchor, known: SocBattery | None
) -> bool:
    """Whether a measurement is further from what was expected than can be chance."""
    if known is None and new.energy_wh - newest.energy_wh > UNKNOWN_SIZE_WH:
        return False  # of a battery of unknown size nothing is expected
    expected = estimate(book, new.energy_wh, known)
    if expected is None:
        return False
    sigma = sqrt((expected.confidence / 2) ** 2 + new.sigma**2)
    gate = max(OUTLIER_POINTS, OUTLIER_SIGMAS * sigma)
    return abs(new.percent - expected.percent) > gate


def estimate(
    book: SocBook, energy_wh: float, known: SocBattery | None, *, at: datetime | None = None
) -> Soc | None:
    """What the SoC is when the session has come to an energy; None without a measurement.

    ``at`` is now: without it the value counts as an estimate however young it is.
    """
    if not book.anchors:
        return None
    newest = book.anchors[-1]
    gained_wh = energy_wh - newest.energy_wh
    if known is None:
        is_moved = abs(gained_wh) > UNKNOWN_SIZE_WH
        return Soc(
            percent=newest.percent,
            source=newest.source,
            measured_at=newest.at,
            confidence=2 * (SIGMA_UNKNOWN_SIZE if is_moved else newest.sigma),
        )
    state = _run(book.anchors, known)
    state.move(energy_wh * known.points_per_wh)
    percent = min(max(state.soc, 0.0), FULL_SOC)
    if book.ceiling is not None:
        percent = min(percent, max(book.ceiling, newest.percent))
    is_live = at is not None and (at - newest.at).total_seconds() <= LIVE_S
    is_live = is_live and abs(gained_wh * known.points_per_wh) < LIVE_POINTS
    return Soc(
        percent=percent,
        source=newest.source if is_live else SocSource.ESTIMATE,
        measured_at=newest.at,
        confidence=2 * sqrt(max(state.var_soc, 0.0)),
    )


def at_start(book: SocBook, known: SocBattery | None) -> float | None:
    """What the SoC was when the session had no energy yet; None when nobody knows.

    A value from before the plug-in is none: it never starts a plan.
    """
    if not book.anchors:
        return None
    first = book.anchors[0]
    if first.sigma >= SIGMA_STALE:
        return None
    if known is None:
        return first.percent if first.energy_wh <= UNKNOWN_SIZE_WH else None
    ratio = _run(book.anchors, known).ratio
    return max(first.percent - ratio * first.energy_wh * known.points_per_wh, 0.0)


def ratio_of(anchors: tuple[SocAnchor, ...], known: SocBattery) -> tuple[float, float]:
    """The ratio to the expected points per watt-hour, and its standard deviation."""
    state = _run(anchors, known)
    return state.ratio, sqrt(max(state.var_ratio, 0.0))


def learn(
    before: Learned | None, anchors: tuple[SocAnchor, ...], known: SocBattery
) -> Learned | None:
    """What a finished session teaches; None when its measurements are too near.

    ``known`` must be what the session was estimated with, so ``before`` is in it.
    """
    if len(anchors) < 2:  # noqa: PLR2004 - a slope needs two points
        return None
    gained = (anchors[-1].energy_wh - anchors[0].energy_wh) * known.points_per_wh
    if gained < LEARN_POINTS:
        return None
    step, spread = ratio_of(anchors, known)
    step = min(max(step, 1 - RATIO_STEP_MAX), 1 + RATIO_STEP_MAX)
    old = before or Learned()
    ratio = min(max(old.ratio * step, RATIO_MIN), RATIO_MAX)
    spread = sqrt(spread**2 + SPREAD_DRIFT**2)
    return Learned(
        ratio=ratio, spread=max(spread, SPREAD_LEARNED_MIN), sessions=old.sessions + 1
    )


def stale_after(plugged_at: datetime) -> datetime:
    """What a vehicle recorded before this is older than its plug-in (smartcar.md 11)."""
    return plugged_at - timedelta(minutes=5)


def _run(anchors: tuple[SocAnchor, ...], known: SocBattery) -> _Filter:
    first = anchors[0]
    state = _Filter(
        x=first.energy_wh * known.points_per_wh,
        soc=first.percent,
        ratio=1.0,
        var_soc=first.sigma**2,
        var_ratio=known.spread**2,
    )
    for item in anchors[1:]:
        state.move(item.energy_wh * known.points_per_wh)
        state.see(item.percent, item.sigma)
    return state


def _agree(one: SocAnchor, two: SocAnchor, known: SocBattery | None) -> bool:
    points_per_wh = known.points_per_wh if known is not None else 0.0
    gained = (two.energy_wh - one.energy_wh) * points_per_wh
    return abs(two.percent - one.percent - gained) <= OUTLIER_POINTS
