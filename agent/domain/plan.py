"""What ChargEye planned for a vehicle's slot, and the power that it asks for.

``check`` refuses a plan that cannot be trusted (faults.md T5, I11); ``wanted`` turns
a good one into a curve (ocpp-depot.md B10, chargeye.md 6.9). A gap and the time after
the plan are filled by policy, never by silence: silence would mean full power.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from agent.domain.curve import Curve, curve, floor_tenth
from agent.domain.ids import ScheduleId, VehicleId

SEGMENTS_MAX = 2000
"""A plan of a week in 5-minute steps; more is a mistake or an attack (I11)."""
POWER_MAX_W = 4_000_000
"""Megawatt chargers end at 3.75 MW; more is a unit error."""
SPAN_MAX = timedelta(days=31)
"""No vehicle is planned further ahead or behind."""
SEGMENT_OVERLAP_TOLERANCE = timedelta(seconds=1)
EARLY_ARRIVAL = timedelta(hours=3)
"""A vehicle that plugs in before its slot belongs to it when it is this near."""
LATE_DEPARTURE = timedelta(hours=3)
"""A vehicle still plugged after its departure keeps its slot this long."""


class AfterPlan(StrEnum):
    """What a vehicle may draw when its plan is over (``policy.after_plan``)."""

    HOLD_MINIMUM = "hold-minimum"
    PAUSE = "pause"
    UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Half-open time [starts_at, ends_at) with a power, a pause, or no limit."""

    starts_at: datetime
    ends_at: datetime
    power_w: float
    paused: bool = False
    unlimited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditioning:
    """What a bus needs before it leaves, by V2ICP: seconds, Wh (chargeye.md 6.3).

    0 is what planners write when the bus said nothing.
    """

    battery_s: float = 0.0
    vehicle_s: float = 0.0
    vehicle_wh: float = 0.0

    @property
    def lasts_s(self) -> float:
        """How long before departure it begins; 0 when the bus named no time."""
        return max(self.battery_s, self.vehicle_s)

    @property
    def mean_w(self) -> float:
        """The mean power that brings the cabin's energy in its time; 0 if not known."""
        if self.vehicle_s <= 0 or self.vehicle_wh <= 0:
            return 0.0
        return self.vehicle_wh * 3600 / self.vehicle_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The segments of a slot, oldest first, and what the planner assumed."""

    segments: tuple[Segment, ...]
    planned_at: datetime | None = None
    can_pause: bool | None = None
    max_w: float | None = None
    min_w: float | None = None
    preconditioning: Preconditioning | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """ChargEye's schedule: when a vehicle is expected, with target and plan.

    ``fingerprint`` changes whenever the cloud's text changes.
    """

    schedule_id: ScheduleId
    vehicle_id: VehicleId
    location_uid: str
    arrives_at: datetime
    departs_at: datetime
    start_soc_percent: float | None = None
    target_soc_percent: float | None = None
    plan: Plan | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerWindow:
    """What may be drawn at an outlet by this vehicle, watts.

    ``can_pause`` is false when the vehicle would not wake up again: it then never
    gets less than ``min_w``.
    """

    min_w: float
    max_w: float
    can_pause: bool
    after_plan: AfterPlan = AfterPlan.HOLD_MINIMUM

    @property
    def floor_w(self) -> float:
        """The least that the vehicle may be given."""
        return 0 if self.can_pause else self.hold_w

    @property
    def hold_w(self) -> float:
        """The power that keeps it awake."""
        return min(self.min_w, self.max_w)


def check(plan: Plan, *, now: datetime) -> str | None:
    """Say why a plan must not be executed, or None when it may be.

    A plan is refused whole: half of a plan is not a plan. One without segments is a
    plan too: there is nothing to charge, and the vehicle is held.
    """
    if len(plan.segments) > SEGMENTS_MAX:
        return f"the plan has {len(plan.segments)} segments, more than {SEGMENTS_MAX}"
    for index, segment in enumerate(plan.segments):
        problem = _check_segment(segment, now=now)
        if problem is not None:
            return f"segment {index}: {problem}"
    return _check_overlap(plan.segments)


def choose(
    schedules: Iterable[Schedule], vehicle_id: VehicleId, *, now: datetime
) -> Schedule | None:
    """Choose the slot that a vehicle plugged in at ``now`` belongs to.

    The slot that contains now; else the next one that begins soon; else the one
    that ended a short while ago (a late bus is still plugged).
    """
    own = [item for item in schedules if item.vehicle_id == vehicle_id]
    running = [item for item in own if item.arrives_at <= now < item.departs_at]
    if running:
        return max(running, key=lambda item: (item.arrives_at, item.schedule_id))
    coming = [item for item in own if now < item.arrives_at <= now + EARLY_ARRIVAL]
    if coming:
        return min(coming, key=lambda item: (item.arrives_at, item.schedule_id))
    past = [item for item in own if item.departs_at <= now < _late(item)]
    return max(past, key=lambda item: (item.departs_at, item.schedule_id), default=None)


def wanted(plan: Plan, window: PowerWindow) -> Curve:
    """Tell the power that a plan asks for at each instant, tail included, watts.

    Segments are cleaned first: sorted, empty ones dropped, of two that overlap the
    later-starting one wins. Limits are lowered at the earlier whole second and raised
    at the later one, so that rounding never lifts the curve.
    """
    segments = [item for item in plan.segments if item.ends_at > item.starts_at]
    if not segments:
        return curve([(0, window.hold_w)])
    segments.sort(key=lambda item: item.starts_at)
    exact: list[tuple[float, float]] = []
    for index, segment in enumerate(segments):
        following = segments[index + 1] if index + 1 < len(segments) else None
        exact.append((segment.starts_at.timestamp(), _power_w(segment, window)))
        if following is None:
            exact.append((segment.ends_at.timestamp(), _tail_w(window)))
        elif following.starts_at - segment.ends_at > SEGMENT_OVERLAP_TOLERANCE:
            exact.append((segment.ends_at.timestamp(), window.hold_w))
    return _on_whole_seconds([(0.0, window.hold_w), *exact])


def _late(item: Schedule) -> datetime:
    return item.departs_at + LATE_DEPARTURE


def _check_segment(segment: Segment, *, now: datetime) -> str | None:
    if segment.ends_at < segment.starts_at:
        return "it ends before it starts"
    if abs(segment.starts_at - now) > SPAN_MAX or abs(segment.ends_at - now) > SPAN_MAX:
        return f"it lies more than {SPAN_MAX.days} days from now"
    if not 0 <= segment.power_w <= POWER_MAX_W:
        return f"its power {segment.power_w} W is outside 0 to {POWER_MAX_W} W"
    if segment.paused and segment.unlimited:
        return "it is both a pause and without limit"
    return None


def _check_overlap(segments: Sequence[Segment]) -> str | None:
    ordered = sorted(segments, key=lambda item: item.starts_at)
    for one, other in pairwise(ordered):
        if one.ends_at - other.starts_at > SEGMENT_OVERLAP_TOLERANCE:
            return f"segments overlap at {other.starts_at.isoformat()}"
    return None


def _power_w(segment: Segment, window: PowerWindow) -> float:
    if segment.unlimited:
        return window.max_w
    if segment.paused or segment.power_w == 0:
        return window.floor_w
    return max(min(floor_tenth(segment.power_w), window.max_w), window.hold_w)


def _tail_w(window: PowerWindow) -> float:
    match window.after_plan:
        case AfterPlan.HOLD_MINIMUM:
            return window.hold_w
        case AfterPlan.PAUSE:
            return window.floor_w
        case AfterPlan.UNLIMITED:
            return window.max_w


def _on_whole_seconds(exact: Sequence[tuple[float, float]]) -> Curve:
    """Give each whole second the least that it touches; ``exact`` is in order of time."""
    least: dict[int, float] = {}
    before_w = 0.0
    for at, limit_w in exact:
        at_s = int(at // 1)
        if at == at_s:
            least[at_s] = limit_w
        else:
            least[at_s] = min(least.get(at_s, before_w), limit_w)
            least[at_s + 1] = limit_w
        before_w = limit_w
    return curve(least.items())
