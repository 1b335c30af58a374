"""The deviation account of one session: planned against delivered, and what comes of it.

Planned energy is summed up as time passes, with the plan in force at each moment,
because a new plan often holds no past (chargeye.md 6.9). From the newest measurement on
the account looks ahead: what the rest of the plan gives, as far as the battery takes it
(taper above 80 % SoC), and whether that reaches the target before departure
(ocpp-depot.md D3). Pure: no clock; catching up stays inside the plan's own segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from math import expm1, log

from agent.domain.curve import EVER_S, Curve, curve, edges, energy_wh, since, value_at
from agent.domain.meter import HISTORY_SLOT_S, HistorySlot, MeterState
from agent.domain.plan import Plan
from agent.domain.values import changed, value
from agent.domain.wake import HeldWindow

TAPER_SOC = 80.0
"""Percent from which most batteries take less and less (ocpp-depot.md D3)."""
TAPER_END_SHARE = 0.1
"""Share of full power that is left just below 100 %."""
FULL_SOC = 100.0
BATTERY_EFFICIENCY = 0.96
"""Share of the energy at a DC outlet that stays in the battery, until measured."""
ALARM_POINTS = 3.0
"""Points of SoC below the target at which departure is at risk: SoC is a whole percent
and the estimate is good for about as much (faults.md C8)."""
CLEAR_POINTS = 1.0
"""Points below the target at which the alarm ends; between the two nothing changes."""
LAXITY_MIN_S = 900.0
"""Slack at full power below which there is no time left for a person to act."""
SHORT_SHARE, SHORT_WH = 0.05, 2000.0
"""Without SoC: missing energy that is an alarm, the larger of 5 % and 2 kWh; it ends at
a third of that."""
STALE_S = 900.0
"""A register that is silent for longer proves nothing of what was delivered since."""
CATCH_UP_MIN_WH = 500.0
"""Less than this is the noise of registers and samples."""
CATCH_UP_GRID_S = 60
"""Catching up ends at whole minutes, so that it does not make a new profile each pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """What a vehicle can take: W at the outlet, Wh in the battery if known.

    ``max_w`` is the least of vehicle, plan and outlet.
    """

    max_w: float
    capacity_wh: float | None = None
    efficiency: float = BATTERY_EFFICIENCY


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a session should come to.

    ``line`` is the plan as a curve (W at the outlet, without ``held_open``), None
    without one; ``given`` what is allocated from now on, where that differs.
    ``start_soc`` is a SoC at ``started_at`` from elsewhere (percent), used when the
    station reports none. ``soc`` is the best that is known now from all sources
    (``session_soc``), before either. ``is_full``: the vehicle itself ended charging; for
    vehicles without SoC.
    """

    started_at: datetime
    line: Curve | None = None
    given: Curve | None = None
    departs_at: datetime | None = None
    target_soc: float | None = None
    start_soc: float | None = None
    soc: float | None = None
    window: HeldWindow | None = None
    is_full: bool = False


@value(kw_only=True)
class Account:
    """Energies in Wh at the outlet since the session's start, SoC in percent.

    ``behind_wh`` is positive when the vehicle is behind. ``preconditioning_wh`` was
    drawn beyond the plan in the window before departure and is no drift.
    ``expected_*`` are at departure; None where it or the battery is unknown.
    ``latest_full_power_at``: from then on even full power does not reach the target;
    None when nothing is missing.
    """

    at: datetime
    planned_wh: float = 0.0
    delivered_wh: float = 0.0
    preconditioning_wh: float = 0.0
    behind_wh: float = 0.0
    soc: float | None = None
    target_soc: float | None = None
    needed_wh: float = 0.0
    expected_wh: float | None = None
    expected_soc: float | None = None
    departs_at: datetime | None = None
    latest_full_power_at: datetime | None = None
    at_risk: bool = False
    reason: str = ""

    def laxity_s(self, now: datetime) -> float:
        """How long the vehicle could wait and still make it at full power, seconds."""
        if self.latest_full_power_at is None:
            return float(EVER_S)
        return (self.latest_full_power_at - now).total_seconds()

    def need_w(self, now: datetime) -> float:
        """The mean power that it needs until departure, W at the outlet."""
        if self.departs_at is None or self.needed_wh <= 0:
            return 0.0
        left_s = max((self.departs_at - now).total_seconds(), 1.0)
        return self.needed_wh * 3600 / left_s


@value(kw_only=True)
class QuarterHour:
    """Planned and delivered energy of one slot of the history, Wh at the outlet."""

    start_s: int
    planned_wh: float
    delivered_wh: float


def account(
    before: Account | None,
    meter: MeterState,
    goal: Goal,
    battery: Battery,
    *,
    now: datetime,
) -> Account:
    """Bring the account of a session up to now; call it about once a minute.

    Without ``before`` (a restart) the past is taken from the plan as it is.
    """
    at = max(_as_of(meter, now), min(before.at, now)) if before else _as_of(meter, now)
    old = before or Account(at=min(goal.started_at, at))
    planned_wh = _energy(goal.line, old.at, at)
    gained_wh = max(meter.energy_wh - old.delivered_wh, 0.0)
    extra_wh = 0.0
    if before is not None and goal.window is not None and goal.window.is_open(at):
        extra_wh = max(gained_wh - planned_wh, 0.0)
    new = changed(
        old,
        at=at,
        planned_wh=old.planned_wh + planned_wh,
        delivered_wh=meter.energy_wh,
        preconditioning_wh=old.preconditioning_wh + extra_wh,
        target_soc=None if goal.target_soc is None else min(goal.target_soc, FULL_SOC),
        departs_at=goal.departs_at,
    )
    new = _with_battery(new, meter, goal, battery)
    return _with_outlook(new, goal, battery, now)


def after_clock_step(before: Account, now: datetime) -> Account:
    """Go on from the new time without counting the step as planned time (T2)."""
    return changed(before, at=now)


def by_quarter_hour(
    line: Curve | None, history: Sequence[HistorySlot], started_at: datetime, now: datetime
) -> tuple[QuarterHour, ...]:
    """Planned against delivered energy, slot by slot, as far as the session lasted."""
    found = []
    for start_s, delivered_wh, _, _ in history:
        begin = max(float(start_s), started_at.timestamp())
        end = min(float(start_s + HISTORY_SLOT_S), now.timestamp())
        planned_wh = _between(line, begin, end)
        found.append(
            QuarterHour(start_s=start_s, planned_wh=planned_wh, delivered_wh=delivered_wh)
        )
    return tuple(found)


def sentence(item: Account, *, zone: tzinfo = UTC) -> str:
    """Say how a vehicle stands, for a technician; times in ``zone``."""
    kilowatt_hours = abs(item.behind_wh) / 1000
    text = "on the plan"
    if kilowatt_hours >= CATCH_UP_MIN_WH / 1000:
        side = "behind" if item.behind_wh > 0 else "ahead of"
        text = f"{kilowatt_hours:.1f} kWh {side} the plan"
    if item.departs_at is None:
        return f"{text}; no departure known"
    clock = item.departs_at.astimezone(zone).strftime("%H:%M")
    if item.expected_soc is not None:
        text += f"; {item.expected_soc:.0f} % expected at {clock}"
        if item.target_soc is not None and item.expected_soc < item.target_soc - 0.5:
            text += f" instead of {item.target_soc:.0f} %"
    elif item.expected_wh is not None:
        text += f"; {item.expected_wh / 1000:.1f} kWh expected until {clock}"
    return text


def catch_up(
    line: Curve,
    item: Account,
    plan: Plan,
    *,
    max_w: float,
    now: datetime,
    allowed: bool = False,
) -> Curve:
    """Lift the plan's own charging segments, the earliest first, until it is caught up.

    Never unless ``allowed``, never above ``max_w``, never in a pause, a gap or after the
    plan or the departure, and never more energy than is missing. The caller allocates
    the result under the cap like any other wish.
    """
    missing_wh = min(item.behind_wh, item.needed_wh)
    if not allowed or missing_wh < CATCH_UP_MIN_WH:
        return line
    now_s = int(now.timestamp())
    lifted = list(since(line, now_s))
    for from_s, to_s in _charging(plan, now_s, item.departs_at):
        for at_s, end_s in _pieces(line, from_s, to_s):
            room_w = max_w - value_at(line, at_s)
            if room_w <= 0 or missing_wh <= 0:
                continue
            until_s = min(end_s, at_s + int(missing_wh * 3600 / room_w + 1e-6))
            if until_s < end_s:
                until_s = until_s // CATCH_UP_GRID_S * CATCH_UP_GRID_S
                missing_wh = 0.0
            if until_s > at_s:
                missing_wh -= room_w * (until_s - at_s) / 3600
                lifted += [(at_s, max_w), (until_s, value_at(line, until_s))]
    return curve(lifted)


def _as_of(meter: MeterState, now: datetime) -> datetime:
    """The moment up to which delivered energy is known, or now when it is long silent."""
    if meter.register_at is None or meter.register_at > now:
        return now
    silent_s = (now - meter.register_at).total_seconds()
    return meter.register_at if silent_s <= STALE_S else now


def _with_battery(
    item: Account, meter: MeterState, goal: Goal, battery: Battery
) -> Account:
    """What is in the battery, what is missing, and how far the plan is behind."""
    soc = _soc(item, meter, goal, battery)
    behind_wh = 0.0
    if goal.line is not None:
        behind_wh = item.planned_wh - (item.delivered_wh - item.preconditioning_wh)
    if soc is not None and goal.target_soc is not None and battery.capacity_wh:
        missing = max(goal.target_soc - soc, 0.0) / FULL_SOC
        needed_wh = missing * battery.capacity_wh / battery.efficiency
    else:
        # The plan's own energy is the only target that is known.
        needed_wh = max(behind_wh + _energy(goal.line, item.at, goal.departs_at), 0.0)
    if needed_wh <= 0 or goal.is_full:
        return changed(item, soc=soc, needed_wh=0.0, behind_wh=min(behind_wh, 0.0))
    return changed(item, soc=soc, needed_wh=needed_wh, behind_wh=behind_wh)


def _soc(item: Account, meter: MeterState, goal: Goal, battery: Battery) -> float | None:
    """The newest SoC, carried on by the energy delivered since (EV-14)."""
    if goal.soc is not None:
        return goal.soc
    soc = meter.soc_percent if meter.soc_percent is not None else goal.start_soc
    if soc is None or not battery.capacity_wh:
        return soc
    if meter.soc_percent is None or meter.soc_at is None:
        since_wh = item.delivered_wh - item.preconditioning_wh
    else:
        since_wh = _delivered_since(meter.history, meter.soc_at, meter.register_at)
    return min(soc + since_wh * battery.efficiency / battery.capacity_wh * 100, FULL_SOC)


def _delivered_since(
    history: Sequence[HistorySlot], from_at: datetime, register_at: datetime | None
) -> float:
    """Energy after a moment, Wh; of the slot that holds the moment in proportion."""
    from_s = from_at.timestamp()
    known_s = register_at.timestamp() if register_at is not None else from_s
    since_wh = 0.0
    for start_s, held_wh, _, _ in history:
        end_s = min(float(start_s + HISTORY_SLOT_S), max(known_s, start_s + 1.0))
        share = (end_s - max(from_s, float(start_s))) / (end_s - start_s)
        since_wh += held_wh * max(share, 0.0)
    return since_wh


def _with_outlook(item: Account, goal: Goal, battery: Battery, now: datetime) -> Account:
    """Look from the last measurement to the departure."""
    if goal.departs_at is None:
        return changed(
            item,
            expected_wh=None,
            expected_soc=None,
            latest_full_power_at=None,
            at_risk=False,
            reason="",
        )
    ahead = goal.given or goal.line
    more_wh = 0.0
    if ahead is not None and not goal.is_full:
        more_wh = _deliverable_wh(ahead, item.at, goal.departs_at, item.soc, battery)
    expected_soc = item.soc
    if item.soc is not None and battery.capacity_wh:
        gained = more_wh * battery.efficiency / battery.capacity_wh * FULL_SOC
        expected_soc = min(item.soc + gained, FULL_SOC)
    latest_at = None
    if item.needed_wh > 0:
        latest_at = goal.departs_at - _full_power_time(item, battery)
    new = changed(
        item,
        expected_wh=item.delivered_wh + more_wh,
        expected_soc=expected_soc if battery.capacity_wh else None,
        latest_full_power_at=latest_at,
    )
    missing = _missing(new, more_wh)
    at_risk = missing is not None and _is_at_risk(new, missing, now, was=item.at_risk)
    return changed(new, at_risk=at_risk, reason=_reason(new, now) if at_risk else "")


def _missing(item: Account, more_wh: float) -> float | None:
    """What will be missing, in units of the alarm's threshold; None when nothing is."""
    if item.needed_wh <= 0:
        return None
    if item.expected_soc is not None and item.target_soc is not None:
        return (item.target_soc - item.expected_soc) / ALARM_POINTS
    total_wh = item.delivered_wh + item.needed_wh
    return (item.needed_wh - more_wh) / max(SHORT_SHARE * total_wh, SHORT_WH)


def _is_at_risk(item: Account, missing: float, now: datetime, *, was: bool) -> bool:
    """Raised at the threshold, or when slack ends; kept until a third of it is left.

    Without slack a shortfall of any size that would not end an alarm is one: it cannot
    be made up any more. A tight plan that reaches the target is none.
    """
    if missing <= CLEAR_POINTS / ALARM_POINTS + 1e-9:
        return False
    return was or missing > 1 or item.laxity_s(now) < LAXITY_MIN_S


def _reason(item: Account, now: datetime) -> str:
    laxity_s = item.laxity_s(now)
    if item.expected_soc is not None and item.target_soc is not None:
        text = f"{item.expected_soc:.0f} % expected at departure"
        text += f" instead of {item.target_soc:.0f} %"
    else:
        expected_kwh = (item.expected_wh or 0.0) / 1000
        planned_kwh = (item.delivered_wh + item.needed_wh) / 1000
        text = f"{expected_kwh:.1f} kWh expected until departure"
        text += f" instead of {planned_kwh:.1f} kWh"
    if laxity_s < 0:
        return f"{text}; not even full power reaches it any more"
    return f"{text}; full power must begin within {laxity_s / 60:.0f} min"


def _full_power_time(item: Account, battery: Battery) -> timedelta:
    """How long full power needs for what is missing, taper included."""
    if item.soc is None or item.target_soc is None or not battery.capacity_wh:
        return _hours(item.needed_wh / max(battery.max_w, 1.0))
    per_hour = max(_points_per_hour(battery), 1e-3)
    below = max(min(item.target_soc, TAPER_SOC) - item.soc, 0.0)
    hours = below / per_hour
    if item.target_soc > TAPER_SOC:
        from_share = _share(max(item.soc, TAPER_SOC))
        to_share = _share(item.target_soc)
        hours += log(from_share / to_share) / (per_hour * _SLOPE)
    return _hours(hours)


def _deliverable_wh(
    line: Curve, from_at: datetime, to_at: datetime, soc: float | None, battery: Battery
) -> float:
    """Energy that a curve gives and the battery takes, Wh at the outlet.

    Exact for the taper: above 80 % power falls in a straight line with SoC, so that
    SoC nears its end exponentially.
    """
    total_wh = 0.0
    to_s = int(to_at.timestamp())
    for at_s, end_s in _pieces(line, int(from_at.timestamp()), to_s):
        power_w = min(value_at(line, at_s), battery.max_w)
        hours = (end_s - at_s) / 3600
        if soc is None or not battery.capacity_wh:
            total_wh += power_w * hours
            continue
        gained = _gained(soc, power_w, hours, battery)
        soc += gained
        total_wh += gained / FULL_SOC * battery.capacity_wh / battery.efficiency
    return total_wh


_SLOPE = (1 - TAPER_END_SHARE) / (FULL_SOC - TAPER_SOC)
"""By how much the share of full power falls per point of SoC above 80 %."""


def _share(soc: float) -> float:
    """Share of full power that a battery takes at a SoC."""
    return 1 - _SLOPE * max(soc - TAPER_SOC, 0.0)


def _gained(soc: float, power_w: float, hours: float, battery: Battery) -> float:
    """Points of SoC gained at an offered power."""
    if power_w <= 0 or soc >= FULL_SOC:
        return 0.0
    full = _points_per_hour(battery)
    offered = power_w / battery.max_w
    bend = TAPER_SOC + (1 - offered) / _SLOPE  # where the battery takes just the offer
    straight = min(max(bend - soc, 0.0), FULL_SOC - soc)
    straight_hours = straight / (full * offered)
    if straight_hours >= hours:
        return full * offered * hours
    gained = straight
    if bend < FULL_SOC:
        share = _share(soc + straight)
        gained += share / _SLOPE * -expm1(-full * _SLOPE * (hours - straight_hours))
    return min(gained, FULL_SOC - soc)


def _points_per_hour(battery: Battery) -> float:
    capacity_wh = battery.capacity_wh or 1.0
    return battery.max_w * battery.efficiency / capacity_wh * FULL_SOC


def _charging(
    plan: Plan, from_s: int, departs_at: datetime | None
) -> list[tuple[int, int]]:
    """Times of the plan's own charging segments that are left, earliest first."""
    last_s = EVER_S if departs_at is None else int(departs_at.timestamp())
    found = []
    for segment in sorted(plan.segments, key=lambda item: item.starts_at):
        begin_s = max(-int(-segment.starts_at.timestamp() // 1), from_s)
        end_s = min(int(segment.ends_at.timestamp()), last_s)
        is_charging = segment.power_w > 0 and not segment.paused and not segment.unlimited
        if is_charging and begin_s < end_s:
            found.append((begin_s, end_s))
    return found


def _pieces(line: Curve, from_s: int, to_s: int) -> list[tuple[int, int]]:
    """Times of constant power in [from_s, to_s)."""
    times = [at_s for at_s in edges((line,), from_s) if at_s < to_s]
    return list(zip(times, [*times[1:], to_s], strict=True)) if times else []


def _energy(line: Curve | None, from_at: datetime, to_at: datetime | None) -> float:
    if to_at is None:
        return 0.0
    return _between(line, from_at.timestamp(), to_at.timestamp())


def _between(line: Curve | None, from_s: float, to_s: float) -> float:
    """Energy of a curve between two times that need not be whole seconds, Wh."""
    if line is None or to_s <= from_s:
        return 0.0
    first_s, last_s = int(from_s), int(to_s)
    whole_wh = energy_wh(line, first_s, last_s)
    before_wh = value_at(line, first_s) * (from_s - first_s) / 3600
    return whole_wh - before_wh + value_at(line, last_s) * (to_s - last_s) / 3600


def _hours(hours: float) -> timedelta:
    """A duration, bounded to what a time can hold."""
    return timedelta(hours=min(hours, 24.0 * 365))
