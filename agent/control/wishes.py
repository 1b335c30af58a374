"""What each session should draw, and by which rules: plan, policy, limits of all parts.

Reads the depot, changes nothing. Every rule that took part is kept in words, for the log
and for ``explain``; watts at the outlet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from agent.control.depot import Depot
from agent.domain import plan
from agent.domain.capability import ProfileForm
from agent.domain.curve import Curve, constant, value_at
from agent.domain.identity import MatchOutcome, Vehicle
from agent.domain.ids import EvseId, Outlet
from agent.domain.plan import PowerWindow, Schedule
from agent.domain.session import Session

STATION = EvseId(0)
"""Where the default, and limits of another master, of a whole station are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a session should draw from now on, and why; ``source`` in one word.

    ``plan_line`` is the plan's own curve where ``line`` was lifted to catch up.
    """

    line: Curve
    window: PowerWindow
    source: str
    rules: tuple[str, ...]
    plan_line: Curve | None = None


@dataclass(frozen=True, slots=True)
class _Bound:
    """One upper or lower bound with its owner in words."""

    watts: float
    whose: str


def wish(
    depot: Depot,
    session: Session,
    outlet: Outlet,
    form: ProfileForm,
    now: datetime,
    *,
    may_pause: bool = True,
) -> Wish:
    """Tell what a session should draw, by plan or by policy.

    ``may_pause`` is false when the vehicle failed to resume earlier in this session.
    """
    vehicle = depot.registry.get(session.vehicle_id) if session.vehicle_id else None
    schedule = depot.schedules.get(session.schedule_id) if session.schedule_id else None
    window, rules = _window(depot, outlet, form, vehicle, schedule)
    if not may_pause:
        window = replace(window, can_pause=False)
        rules = (*rules, "no further pause: it resumed too late in this session")
    policy = depot.policy
    if session.match is not MatchOutcome.UNIQUE or vehicle is None:
        line = constant(min(policy.unmatched_w, window.max_w))
        why = f"no vehicle was recognised ({session.match_reason or 'no evidence yet'})"
        return Wish(
            line=line,
            window=window,
            source="unmatched",
            rules=(*rules, f"{why}: policy gives it {_kw(policy.unmatched_w)}"),
        )
    plan_now = schedule.plan if schedule is not None else None
    why_not = _why_no_plan(depot, vehicle, schedule, now)
    if why_not is not None or plan_now is None:
        line = constant(min(policy.unplanned_w, window.max_w))
        return Wish(
            line=line,
            window=window,
            source="unplanned",
            rules=(*rules, f"{why_not}: policy gives it {_kw(policy.unplanned_w)}"),
        )
    line = plan.wanted(plan_now, window)
    return Wish(
        line=line,
        window=window,
        source="plan",
        rules=(*rules, _plan_words(schedule, line, now)),
    )


def _window(
    depot: Depot,
    outlet: Outlet,
    form: ProfileForm,
    vehicle: Vehicle | None,
    schedule: Schedule | None,
) -> tuple[PowerWindow, tuple[str, ...]]:
    """The bounds of outlet, vehicle, plan and other masters; the tightest in words."""
    highs = [_Bound(depot.traits_of(outlet[0]).rated_w, "the station's rating")]
    lows = [_Bound(form.minimum_w, "the station's minimum")]
    external_w = depot.state(outlet[0]).external_w
    highs += [
        _Bound(external_w[key], "a limit that another master set at the station")
        for key in (STATION, outlet[1])
        if key in external_w
    ]
    can_pause = form.zero_allowed
    if vehicle is not None:
        highs += [_Bound(vehicle.max_w, "the vehicle's maximum")] if vehicle.max_w else []
        lows += [_Bound(vehicle.min_w, "the vehicle's minimum")] if vehicle.min_w else []
        can_pause = can_pause and vehicle.can_pause
    plan_now = schedule.plan if schedule is not None else None
    if plan_now is not None:
        highs += [_Bound(plan_now.max_w, "the plan's maximum")] if plan_now.max_w else []
        lows += [_Bound(plan_now.min_w, "the plan's minimum")] if plan_now.min_w else []
        can_pause = can_pause and plan_now.can_pause is not False
    high = min(highs, key=lambda item: item.watts)
    low = max(lows, key=lambda item: item.watts)
    window = PowerWindow(
        min_w=min(low.watts, high.watts),
        max_w=high.watts,
        can_pause=can_pause and vehicle is not None,
        after_plan=depot.policy.after_plan,
    )
    rules = [f"at most {_kw(high.watts)}: {high.whose}"]
    if not window.can_pause:
        why = "it is not known to wake up after a pause"
        why = why if form.zero_allowed else "its station takes no limit of 0"
        rules.append(f"never below {_kw(window.hold_w)} ({low.whose}): {why}")
    return window, tuple(rules)


def _why_no_plan(
    depot: Depot, vehicle: Vehicle, schedule: Schedule | None, now: datetime
) -> str | None:
    if not vehicle.follows_schedule:
        return f"{vehicle.name or vehicle.vehicle_id} is set not to follow schedules"
    if schedule is None:
        return f"there is no schedule for {vehicle.name or vehicle.vehicle_id} now"
    if schedule.plan is None:
        return f"schedule {schedule.schedule_id} has no usable plan"
    if not depot.is_plan_trusted(now):
        return "the plans were not read from the cloud for too long"
    return None


def _plan_words(schedule: Schedule | None, line: Curve, now: datetime) -> str:
    now_s = int(now.timestamp())
    name = schedule.schedule_id if schedule is not None else "?"
    following = next(((at_s, watts) for at_s, watts in line if at_s > now_s), None)
    words = f"plan {name} wants {_kw(value_at(line, now_s))} now"
    if following is None:
        return words
    at = datetime.fromtimestamp(following[0], now.tzinfo)
    return f"{words}, {_kw(following[1])} from {at:%H:%M}"


def _kw(watts: float) -> str:
    return f"{watts / 1000:.1f} kW"
