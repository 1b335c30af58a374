"""A plan made on the gateway, for vehicles that have none while the cloud is away.

From departure, missing energy and the caps: a curve per vehicle that delivers what it
needs shortly before it leaves, keeps the depot's sum flat, and stays under every cap at
every instant together with what everything else could be drawing (ocpp-depot.md B10.3).

**Method.** Time is cut into slots that grow with distance. Vehicles are served in order
of least laxity (D3); each pours its energy into the emptiest slots before its departure
("water-filling"), and passes over all of them repeat that with what the others took. If
that leaves somebody short who could have been served alone, the power is contended: it
is then handed out again, smallest need first, which sacrifices the fewest departures,
and whoever is short may push others into slots that only they can use. At last each
curve is merged into few steps and rounded down; what that loses is put back where there
is room. No solver: the worst case is bounded and every step can be explained.

Limits. Nothing here knows who will arrive: plan again on every arrival and departure,
and whenever a vehicle took less than planned. A flat plan leaves early power unused, so
where the cap is below what the whole night needs, newcomers may find too little left
(seen from about 90 % use of the cap over the night on). Pushing others out goes one
vehicle deep; the optimum might take chains.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent.domain.allocator import Node, Reserve
from agent.domain.curve import Curve, curve, value_at
from agent.domain.ids import Outlet

SLOT_S = 300
"""Five minutes: vehicles arrive and leave by the minute, stations follow within one."""
HORIZON_S = 36 * 3600
"""A night, the day after, and a spare: who leaves later is planned again anyway."""
GROWTH = ((3600, 1), (4 * 3600, 3), (12 * 3600, 6), (2**40, 12))
"""Slots grow to 15 min after 1 h, 30 min after 4 h, 1 h after 12 h: what lies far ahead
is planned again many times, and the time that a plan takes stays small."""
MARGIN_S = 600
"""Plans end 10 min before the departure: drivers unplug early, ramps and clocks slip."""
PASSES = 2
"""Repetitions of the water-filling; more change less than the rounding does."""
STILL_SHARE = 0.002
"""A repetition that moved less than this share of the energy was the last one."""
PERIODS_MAX = 24
"""What a station takes that does not say how many it takes (B10.7)."""
SEGMENTS_MAX = PERIODS_MAX - 4
"""Periods left when the end, the hold value and a floor that gives way have theirs."""
STEP_W = 100.0
"""Limits are rounded down to this: finer steps are noise to a station."""
NEAR_W, NEAR_SHARE = 500.0, 0.03
"""Neighbouring slots nearer than 0.5 kW or 3 % of the maximum become one step."""
CUT_MIN_S = 60
"""A step shorter than a minute is not worth a period (B10.4)."""
SHORT_WH, SHORT_SHARE = 50.0, 0.002
"""Missing less than 50 Wh or 0.2 % is rounding, far below what a meter shows of SoC."""
EPSILON = 1e-6

TAPER_FROM_PERCENT = 80.0
"""Above it most batteries leave constant power (D3: taper)."""
TAPER_END_SHARE = 0.1
"""Share of the maximum power that is left just before the battery is full."""
TAPER_ROUNDS = 5
"""Refills after which a plan that meets the taper is good enough."""
FULL_PERCENT = 100.0
S_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taper:
    """A battery whose power falls linearly with SoC above 80 %, to a tenth at 100 %.

    ``capacity_wh`` is the battery's, ``efficiency`` Wh stored per Wh at the outlet.
    ``vehicle_w`` is what the vehicle alone could take (W at the outlet); without it the
    need's ``max_w`` is taken, which is on the safe side.
    """

    soc_percent: float
    capacity_wh: float
    efficiency: float = 1.0
    vehicle_w: float | None = None

    def __post_init__(self) -> None:
        """Refuse a battery that could not exist."""
        if not (0 < self.efficiency <= 1 and 0 < self.capacity_wh < math.inf):
            raise ValueError("capacity and efficiency of a battery must be above 0")
        if math.isnan(self.soc_percent):
            raise ValueError("the SoC is no number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a vehicle at an outlet needs; W and Wh at the outlet.

    ``energy_wh`` is still to be delivered; ``max_w`` the lowest of what vehicle and
    outlet can do; ``min_w`` the least at which it charges. ``grid_factor`` is W in per
    W out. A higher ``priority`` is served first (as OCPP's chargingPriority).
    """

    outlet: Outlet
    departs_at: datetime
    energy_wh: float
    max_w: float
    min_w: float = 0.0
    can_pause: bool = True
    grid_factor: float = 1.0
    taper: Taper | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be planned: a NaN would spoil the plans of all others."""
        numbers = (self.energy_wh, self.max_w, self.min_w)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"{self.outlet}: energy and powers must be 0 or more")
        if not (math.isfinite(self.grid_factor) and self.grid_factor > 0):
            raise ValueError(f"{self.outlet}: the grid factor must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    """A vehicle's curve (W at the outlet, from now on for ever) and what it achieves.

    ``missing_wh`` will not be delivered by departure, of which ``impossible_wh`` not
    even if this vehicle had the depot for itself. ``ends_at`` is when the energy is in,
    ``latest_start`` when charging at full power would have to begin at the latest.
    ``words`` tell a technician.
    """

    line: Curve
    energy_wh: float
    missing_wh: float
    impossible_wh: float
    ends_at: datetime
    latest_start: datetime
    words: str


def energy_needed(
    *, soc_percent: float, target_percent: float, capacity_wh: float, efficiency: float
) -> float:
    """Tell the energy at the outlet that brings a battery to its target, Wh.

    ``efficiency`` is Wh stored per Wh at the outlet. Raises ValueError if it is not in
    (0, 1].
    """
    if not 0 < efficiency <= 1:
        raise ValueError(f"efficiency {efficiency} is not in (0, 1]")
    target_percent = min(target_percent, FULL_PERCENT)
    missing_percent = max(target_percent - max(soc_percent, 0.0), 0.0)
    return missing_percent / FULL_PERCENT * max(capacity_wh, 0.0) / efficiency


def make_plans(
    needs: Sequence[Need],
    fixed: Mapping[Outlet, Reserve],
    nodes: Sequence[Node],
    *,
    now: datetime,
    slot_s: int = SLOT_S,
    horizon_s: int = HORIZON_S,
) -> dict[Outlet, LocalPlan]:
    """Plan every need; with ``fixed`` the sum stays under every cap, from now for ever.

    ``fixed`` is what all other outlets could be drawing. Where it alone passes a cap
    nothing is added there. The same input gives the same plans, in any order of it.
    """
    now_s = math.floor(now.timestamp())
    latest_s = max((_second(need.departs_at) for need in needs), default=now_s)
    times = _grid(now_s, min(latest_s, now_s + horizon_s), slot_s)
    board = _Board(times, fixed, nodes)
    jobs = [_Job(need, board) for need in sorted(needs, key=lambda item: item.outlet)]
    for job in jobs:
        _look_alone(board, job)
    _give_floors(board, jobs)
    _pour_all(board, jobs)
    if any(_is_short(job) for job in jobs):
        _share_out(board, jobs)
    for job in sorted(jobs, key=_by_laxity):
        _shape(board, job)
    return {job.need.outlet: _told(board, job) for job in jobs}


# --- time and room ----------------------------------------------------------------


class _Board:
    """Slots of time, the room of every feeder in each, and the depot's sum.

    ``times`` are the slots' starts; the last slot goes on for ever and takes no energy.
    ``free`` is W at the grid, per node and slot; ``level`` the sum of all draws.
    """

    __slots__ = ("count", "free", "level", "members", "site_w", "times")

    def __init__(
        self, times: list[int], fixed: Mapping[Outlet, Reserve], nodes: Sequence[Node]
    ) -> None:
        self.times = times
        self.count = len(times) - 1
        self.level = _highest(list(fixed.values()), times)
        self.members = [node.members for node in nodes]
        self.free: list[list[float]] = []
        for node in nodes:
            inside = [item for outlet, item in fixed.items() if outlet in node.members]
            taken = _highest(inside, times)
            self.free.append([max(node.cap_w - item, 0.0) for item in taken])
        self.site_w = max((node.cap_w for node in nodes), default=0.0)

    def room(self, job: _Job, slot: int) -> float:
        """Tell what a vehicle could draw in a slot, its present draw included, W."""
        least_w = min([self.free[node][slot] for node in job.nodes], default=math.inf)
        return min(least_w / job.factor + job.power[slot], job.need.max_w)

    def put(self, job: _Job, slot: int, power_w: float) -> None:
        """Change what a vehicle draws in a slot."""
        delta_w = (power_w - job.power[slot]) * job.factor
        if delta_w:
            job.power[slot] = power_w
            self.level[slot] += delta_w
            for node in job.nodes:
                self.free[node][slot] -= delta_w


class _Job:
    """A need on the board; ``power`` is its draw per slot, W at the outlet.

    ``low`` is its floor per slot, ``until_s`` when it should be done, ``hours`` the
    usable part of each slot before that, ``want_wh`` what it could get alone, in
    ``alone_s`` seconds, and ``got_wh`` what it got.
    """

    __slots__ = (
        "alone_s", "factor", "got_wh", "hard_s", "hours", "knee", "low", "need", "nodes",
        "power", "start_s", "until_s", "want_wh",
    )  # fmt: skip

    def __init__(self, need: Need, board: _Board) -> None:
        self.need = need
        self.factor = need.grid_factor
        self.knee = _knee(need)
        self.nodes = [
            index for index, members in enumerate(board.members) if need.outlet in members
        ]
        self.low = [0.0] * (board.count + 1)
        self.power = [0.0] * (board.count + 1)
        self.want_wh = need.energy_wh
        self.got_wh = 0.0
        self.alone_s = 0.0
        self.start_s = board.times[0]
        self.hard_s = max(min(_second(need.departs_at), board.times[-1]), board.times[0])
        self.until_s = self.hard_s
        self.hours: list[float] = []
        self.end_at(board, self.hard_s)

    def end_at(self, board: _Board, until_s: int) -> None:
        """Set when the energy has to be in."""
        self.until_s = until_s
        times = board.times
        self.hours = [
            max(min(times[slot + 1], until_s) - times[slot], 0) / S_PER_HOUR
            for slot in range(board.count)
        ]


def _second(at: datetime) -> int:
    return math.floor(at.timestamp())


def _grid(now_s: int, end_s: int, slot_s: int) -> list[int]:
    """Cut time from now to the end into slots on round times: they do not wander."""
    times = [now_s]
    while times[-1] < end_s:
        ahead_s = times[-1] - now_s
        step_s = next(slot_s * factor for until_s, factor in GROWTH if ahead_s < until_s)
        times.append((times[-1] // step_s + 1) * step_s)
    return times


def _highest(reserves: Sequence[Reserve], times: Sequence[int]) -> list[float]:
    """Tell the highest sum of some draws in each slot, W at the grid."""
    sum_w = sum(value_at(item.holds, times[0]) * item.grid_factor for item in reserves)
    steps: list[tuple[int, float]] = []
    for item in reserves:
        before_w = value_at(item.holds, times[0])
        for at_s, limit_w in item.holds:
            if at_s > times[0]:
                steps.append((at_s, (limit_w - before_w) * item.grid_factor))
                before_w = limit_w
    steps.sort()
    highest = [sum_w] * len(times)
    index = 0
    for slot in range(len(times)):
        end_s = times[slot + 1] if slot + 1 < len(times) else math.inf
        index, sum_w = _apply(steps, index, sum_w, times[slot])
        highest[slot] = sum_w
        while index < len(steps) and steps[index][0] < end_s:
            index, sum_w = _apply(steps, index, sum_w, steps[index][0])
            highest[slot] = max(highest[slot], sum_w)
    return highest


def _apply(
    steps: Sequence[tuple[int, float]], index: int, sum_w: float, until_s: int
) -> tuple[int, float]:
    """Add the steps up to a second, that one included."""
    while index < len(steps) and steps[index][0] <= until_s:
        sum_w += steps[index][1]
        index += 1
    return index, sum_w


# --- the battery ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Knee:
    """A taper in terms of energy at the outlet since now, Wh.

    Up to ``knee_wh`` the vehicle takes ``top_w``; then ``fall`` watts less per Wh.
    """

    knee_wh: float
    full_wh: float
    top_w: float
    fall: float


def _knee(need: Need) -> _Knee | None:
    taper = need.taper
    if taper is None:
        return None
    per_percent = taper.capacity_wh / taper.efficiency / FULL_PERCENT
    # An estimate may have run past full, or a station may say -1: no reason to fail.
    soc_percent = min(max(taper.soc_percent, 0.0), FULL_PERCENT)
    knee_wh = (TAPER_FROM_PERCENT - soc_percent) * per_percent
    full_wh = (FULL_PERCENT - soc_percent) * per_percent
    top_w = max(taper.vehicle_w or 0.0, need.max_w)
    fall = (1 - TAPER_END_SHARE) * top_w / (full_wh - knee_wh)
    return _Knee(knee_wh=knee_wh, full_wh=full_wh, top_w=top_w, fall=fall)


def _accepted(knee: _Knee | None, done_wh: float, offered_w: float, hours: float) -> float:
    """Tell what a vehicle takes of an offer after it took ``done_wh``, Wh at the outlet.

    Above the knee the power falls linearly with the energy, hence as an exponential in
    time: it is integrated exactly, so that a long slot is as right as many short ones.
    """
    plain_wh = offered_w * hours
    if knee is None or plain_wh <= 0 or done_wh + plain_wh <= knee.knee_wh:
        return plain_wh
    meet_wh = knee.knee_wh + (knee.top_w - offered_w) / knee.fall
    open_wh = knee.full_wh - done_wh
    if done_wh + plain_wh <= meet_wh:
        return max(min(plain_wh, open_wh), 0.0)
    flat_h = min(max((meet_wh - done_wh) / offered_w, 0.0), hours)
    reached_wh = done_wh + offered_w * flat_h
    falling_w = min(offered_w, knee.top_w - knee.fall * (reached_wh - knee.knee_wh))
    bent_wh = max(falling_w, 0.0) / knee.fall * -math.expm1(-knee.fall * (hours - flat_h))
    return max(min(offered_w * flat_h + bent_wh, open_wh), 0.0)


def _lived(job: _Job, power: Sequence[float]) -> list[float]:
    """Tell what a vehicle takes of its plan in each slot until ``until_s``, Wh."""
    offered = [power_w * hours for power_w, hours in zip(power, job.hours, strict=False)]
    if job.knee is None or sum(offered) <= job.knee.knee_wh:
        return offered
    done_wh = 0.0
    taken = []
    for slot, hours in enumerate(job.hours):
        slot_wh = _accepted(job.knee, done_wh, power[slot], hours) if hours else 0.0
        done_wh += slot_wh
        taken.append(slot_wh)
    return taken


def _energy_wh(job: _Job, power: Sequence[float]) -> float:
    """Tell what a vehicle takes of its plan in all, Wh."""
    return sum(_lived(job, power))


def _is_short(job: _Job) -> bool:
    return job.got_wh < job.want_wh - _trifle_wh(job)


def _trifle_wh(job: _Job) -> float:
    return max(SHORT_WH, SHORT_SHARE * job.need.energy_wh)


def _look_alone(board: _Board, job: _Job) -> None:
    """Find what the vehicle could get, and how soon, if it were alone in the depot."""
    need = job.need
    done_wh = 0.0
    job.alone_s = 0.0
    for slot, hours in enumerate(job.hours):
        slot_wh = _accepted(job.knee, done_wh, _least(need, board.room(job, slot)), hours)
        missing_wh = need.energy_wh - done_wh
        if slot_wh >= missing_wh - EPSILON:
            job.alone_s += hours * S_PER_HOUR * missing_wh / max(slot_wh, EPSILON)
            done_wh = need.energy_wh
            break
        done_wh += slot_wh
        job.alone_s += hours * S_PER_HOUR
    job.want_wh = min(done_wh, need.energy_wh)
    job.end_at(board, max(job.hard_s - MARGIN_S, board.times[0]))


def _least(need: Need, power_w: float) -> float:
    """Tell what is left of a power of which less than the minimum wakes nobody, W."""
    return power_w if power_w >= min(need.min_w, need.max_w) - EPSILON else 0.0


def _by_laxity(job: _Job) -> tuple[float, float, Outlet]:
    return (-job.need.priority, job.hard_s - job.alone_s, job.need.outlet)


def _by_size(job: _Job) -> tuple[float, bool, float, Outlet]:
    """Order in contention: who cannot make it anyway comes last in his class."""
    is_lost = job.want_wh < job.need.energy_wh - _trifle_wh(job)
    return (-job.need.priority, is_lost, job.want_wh, job.need.outlet)


def _give_floors(board: _Board, jobs: Sequence[_Job]) -> None:
    """Keep those awake that cannot pause, for ever, whole or not at all (D3 step 3)."""
    for job in sorted(jobs, key=_by_laxity):
        floor_w = min(job.need.min_w, job.need.max_w)
        if job.need.can_pause or floor_w <= 0:
            continue
        for slot in range(board.count + 1):
            if board.room(job, slot) >= floor_w - EPSILON:
                job.low[slot] = floor_w
                board.put(job, slot, floor_w)


# --- water-filling ----------------------------------------------------------------


def _pour_all(board: _Board, jobs: Sequence[_Job]) -> None:
    """Serve all in order of least laxity, then again with what the others took."""
    order = sorted(jobs, key=_by_laxity)
    still_wh = STILL_SHARE * sum(job.want_wh for job in jobs)
    for _ in range(1 + PASSES):
        if sum([_pour(board, job) for job in order]) <= still_wh:
            return


def _pour(board: _Board, job: _Job, avoid: Sequence[float] | None = None) -> float:
    """Give a vehicle's energy to its emptiest slots; never less than it had.

    If it does not fit before the margin, the margin goes. Returns the energy that moved.
    """
    after = _poured(board, job, avoid)
    after_wh = _energy_wh(job, after)
    if after_wh < job.want_wh - _trifle_wh(job) and job.until_s < job.hard_s:
        job.end_at(board, job.hard_s)
        job.got_wh = _energy_wh(job, job.power)
        after = _poured(board, job, avoid)
        after_wh = _energy_wh(job, after)
    if after_wh < min(job.got_wh, job.want_wh) - 1.0:
        return 0.0
    moved_wh = 0.0
    for slot, power_w in enumerate(after):
        moved_wh += abs(power_w - job.power[slot]) * job.hours[slot]
        board.put(job, slot, power_w)
    job.got_wh = after_wh
    return moved_wh


def _poured(board: _Board, job: _Job, avoid: Sequence[float] | None) -> list[float]:
    """Fill up to the taper: where the vehicle takes less, other slots get the rest."""
    high = [
        board.room(job, slot) if hours > 0 else job.low[slot]
        for slot, hours in enumerate(job.hours)
    ]
    base = [
        level - power_w * job.factor
        for level, power_w in zip(board.level, job.power, strict=True)
    ]
    if avoid is not None:
        base = [level + extra for level, extra in zip(base, avoid, strict=False)]
    power = _filled(job, base, high, job.want_wh)
    if job.knee is None:
        return power
    for _ in range(TAPER_ROUNDS):
        taken = _lived(job, power)
        if sum(taken) >= job.want_wh - _trifle_wh(job) / 2:
            break
        lost_wh = _bend(job, power, taken, high)
        power = _filled(job, base, high, job.want_wh + lost_wh)
    return power


def _bend(
    job: _Job, power: Sequence[float], taken: Sequence[float], high: list[float]
) -> float:
    """Lower the room to what the vehicle takes as a slot begins; tell what it left, Wh."""
    knee = job.knee
    if knee is None:
        return 0.0
    done_wh = lost_wh = 0.0
    for slot, hours in enumerate(job.hours):
        left_wh = power[slot] * hours - taken[slot]
        if left_wh > EPSILON:
            lost_wh += left_wh
            takes_w = max(knee.top_w - knee.fall * (done_wh - knee.knee_wh), 0.0)
            high[slot] = max(min(high[slot], takes_w), job.low[slot])
        done_wh += taken[slot]
    return lost_wh


def _filled(
    job: _Job, base: Sequence[float], high: Sequence[float], open_wh: float
) -> list[float]:
    """Water-fill between floor and room: all slots in use reach the same level."""
    factor = job.factor
    level = _water_level(job, base, high, open_wh)
    power = []
    for floor_w, top_w, base_w in zip(job.low, high, base, strict=False):
        wet_w = (level - base_w) / factor
        wet_w = min(wet_w, top_w)
        power.append(max(wet_w, floor_w))
    if min(job.need.min_w, job.need.max_w) > 0 and job.need.can_pause:
        _wake(job, power, high)
    return power


def _water_level(
    job: _Job, base: Sequence[float], high: Sequence[float], open_wh: float
) -> float:
    """Find the level (W at the grid) at which the slots hold the energy."""
    factor = job.factor
    bends: list[tuple[float, float]] = []
    for slot, hours in enumerate(job.hours):
        floor_w, top_w = job.low[slot], high[slot]
        open_wh -= floor_w * hours
        if hours > 0 and top_w > floor_w:
            bends.append((base[slot] + floor_w * factor, hours / factor))
            bends.append((base[slot] + top_w * factor, -hours / factor))
    if open_wh <= 0:
        return -math.inf
    bends.sort()
    slope = 0.0
    at_w = bends[0][0] if bends else 0.0
    for bend_w, change in bends:
        rise_wh = slope * (bend_w - at_w)
        if rise_wh >= open_wh:
            return at_w + open_wh / slope
        open_wh -= rise_wh
        at_w = bend_w
        slope += change
    return math.inf


def _wake(job: _Job, power: list[float], high: Sequence[float]) -> None:
    """Gather what lies below the minimum into fewer slots, the emptiest and earliest."""
    least_w = min(job.need.min_w, job.need.max_w)
    weak = [slot for slot, power_w in enumerate(power) if power_w < least_w - EPSILON]
    open_wh = sum(power[slot] * job.hours[slot] for slot in weak)
    weak.sort(key=lambda slot: (-round(power[slot], -2), slot))
    for slot in weak:
        fits = high[slot] >= least_w - EPSILON and job.hours[slot] > 0
        power[slot] = least_w if fits and open_wh > EPSILON else 0.0
        open_wh -= power[slot] * job.hours[slot]
    for slot, hours in enumerate(job.hours):
        if open_wh > EPSILON and power[slot] > 0:
            raised_w = min(high[slot], power[slot] + open_wh / hours)
            open_wh -= (raised_w - power[slot]) * hours
            power[slot] = raised_w


# --- contention -------------------------------------------------------------------


def _share_out(board: _Board, jobs: Sequence[_Job]) -> None:
    """Hand out contended power again: as many departures met as possible.

    Whoever comes early in the order keeps what he got; others only move it in time. So
    the energy in all is the same in any order, and the order decides who is short.
    """
    for job in jobs:
        job.end_at(board, max(job.hard_s - MARGIN_S, board.times[0]))
        job.got_wh = 0.0
        for slot in range(board.count + 1):
            board.put(job, slot, job.low[slot])
    served: list[_Job] = []
    for job in sorted(jobs, key=_by_size):
        _pour(board, job)
        if _is_short(job):
            _push(board, job, served)
        served.append(job)


def _push(board: _Board, job: _Job, served: Sequence[_Job]) -> None:
    """Move others out of a short vehicle's slots, as far as they lose nothing by it."""
    wall_w = 10 * board.site_w + 1.0
    mine = frozenset(job.nodes)
    for other in sorted(served, key=lambda item: (-item.hard_s, item.need.outlet)):
        if mine.isdisjoint(other.nodes):
            continue
        held_back = _held_back(job)
        if _can_yield(board, other, held_back):
            _pour(board, other, [wall_w if item else 0.0 for item in held_back])
            _pour(board, job)
        if not _is_short(job):
            return


def _held_back(job: _Job) -> list[bool]:
    """Tell the slots in which it is the feeders that keep a vehicle from taking more."""
    top_w = job.need.max_w - STEP_W
    return [
        hours > 0 and power_w < top_w
        for hours, power_w in zip(job.hours, job.power, strict=False)
    ]


def _can_yield(board: _Board, other: _Job, held_back: Sequence[bool]) -> bool:
    """Whether another draws in these slots and has room elsewhere."""
    draws = spare = 0.0
    for slot, hours in enumerate(other.hours):
        if held_back[slot]:
            draws += (other.power[slot] - other.low[slot]) * hours
        elif hours > 0:
            spare += (board.room(other, slot) - other.power[slot]) * hours
    return min(draws, spare) > SHORT_WH


# --- few steps --------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """Neighbouring slots with one power; ``cap_w`` is the least room among them."""

    first: int
    last: int
    hours: float
    energy_wh: float
    floor_w: float
    cap_w: float
    powers: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mean_w(self) -> float:
        """The power that delivers the same energy, if there is room for it."""
        return min(max(self.energy_wh / self.hours, self.floor_w), self.cap_w)


def _shape(board: _Board, job: _Job) -> None:
    """Merge a vehicle's slots into few steps, round down, put back what that lost."""
    runs = _runs(board, job)
    near_w = max(NEAR_W, NEAR_SHARE * job.need.max_w)
    merged: list[_Run] = []
    for run in runs:
        joined = _joined(merged[-1], run) if merged else None
        is_near = bool(merged) and abs(merged[-1].mean_w - run.mean_w) <= near_w
        if joined is not None and is_near and _lost_wh(job, joined) <= EPSILON:
            merged[-1] = joined
        else:
            merged.append(run)
    while len(merged) > SEGMENTS_MAX:
        pairs = [_joined(one, merged[n + 1]) for n, one in enumerate(merged[:-1])]
        index = min(range(len(pairs)), key=lambda n: _cost(job, pairs[n]))
        merged[index : index + 2] = [pairs[index]]
    powers = [_rounded(job, run) for run in merged]
    _top_up(job, merged, powers)
    for run, power_w in zip(merged, powers, strict=True):
        for slot in range(run.first, run.last + 1):
            board.put(job, slot, power_w)


def _runs(board: _Board, job: _Job) -> list[_Run]:
    return [
        _Run(
            first=slot,
            last=slot,
            hours=hours,
            energy_wh=job.power[slot] * hours,
            floor_w=job.low[slot],
            cap_w=board.room(job, slot),
            powers=[(job.power[slot], hours)],
        )
        for slot, hours in enumerate(job.hours)
        if hours > 0
    ]


def _joined(one: _Run, other: _Run) -> _Run:
    return _Run(
        first=one.first,
        last=other.last,
        hours=one.hours + other.hours,
        energy_wh=one.energy_wh + other.energy_wh,
        floor_w=max(one.floor_w, other.floor_w),
        cap_w=min(one.cap_w, other.cap_w),
        powers=one.powers + other.powers,
    )


def _lost_wh(job: _Job, run: _Run) -> float:
    """Tell the energy that a run cannot hold at one power, Wh."""
    return max(run.energy_wh - _least(job.need, run.mean_w) * run.hours, 0.0)


def _cost(job: _Job, run: _Run) -> float:
    mean_w = run.mean_w
    moved_wh = sum(abs(power_w - mean_w) * hours for power_w, hours in run.powers)
    return moved_wh + 10 * _lost_wh(job, run)


def _rounded(job: _Job, run: _Run) -> float:
    """Round a run's power down, but not below the least that charges."""
    least_w = min(job.need.min_w, job.need.max_w)
    power_w = math.floor(run.mean_w / STEP_W + EPSILON) * STEP_W
    if run.mean_w >= least_w - EPSILON:
        power_w = max(power_w, least_w)
    floor_w = run.floor_w if run.floor_w <= run.cap_w + EPSILON else 0.0
    return max(_least(job.need, power_w), floor_w)


def _top_up(job: _Job, runs: Sequence[_Run], powers: list[float]) -> None:
    """Raise steps that are in use, longest first, until the energy is in again."""
    longest = sorted(range(len(runs)), key=lambda n: (-runs[n].hours, n))
    for index in longest:
        short_wh = job.want_wh - _run_wh(job, runs, powers)
        if short_wh <= 1.0:
            return
        run = runs[index]
        if powers[index] <= 0:
            continue
        room = math.floor((run.cap_w - powers[index]) / STEP_W + EPSILON)
        steps = min(room, math.ceil(short_wh / (STEP_W * run.hours)))
        powers[index] += max(steps, 0) * STEP_W


def _run_wh(job: _Job, runs: Sequence[_Run], powers: Sequence[float]) -> float:
    done_wh = 0.0
    for run, power_w in zip(runs, powers, strict=True):
        done_wh += _accepted(job.knee, done_wh, power_w, run.hours)
    return done_wh


# --- the answer -------------------------------------------------------------------


def _told(board: _Board, job: _Job) -> LocalPlan:
    need = job.need
    steps, end_s = _steps(board, job)
    energy_wh = _energy_wh(job, job.power)
    missing_wh = max(need.energy_wh - energy_wh, 0.0)
    if missing_wh <= _trifle_wh(job):
        missing_wh = 0.0
    impossible_wh = min(max(need.energy_wh - job.want_wh, 0.0), missing_wh)
    return LocalPlan(
        line=curve(steps),
        energy_wh=min(energy_wh, need.energy_wh),
        missing_wh=missing_wh,
        impossible_wh=impossible_wh,
        ends_at=datetime.fromtimestamp(end_s, UTC),
        latest_start=need.departs_at - timedelta(seconds=math.ceil(job.alone_s - EPSILON)),
        words=_words(job, missing_wh, impossible_wh, end_s),
    )


def _steps(board: _Board, job: _Job) -> tuple[list[tuple[int, float]], int]:
    """Write a vehicle's slots as steps, and the second at which its energy is in.

    The hold value follows as soon as the energy is in, and for ever after departure.
    """
    steps: list[tuple[int, float]] = []
    done_wh = 0.0
    end_s = job.until_s
    for slot, hours in enumerate(job.hours):
        if hours <= 0:
            break
        start_s, power_w = board.times[slot], job.power[slot]
        slot_wh = _accepted(job.knee, done_wh, power_w, hours)
        open_wh = job.want_wh - done_wh
        if open_wh <= EPSILON:
            end_s = min(end_s, start_s)
        steps.append((start_s, power_w))
        if EPSILON < open_wh <= slot_wh:
            end_s = start_s + math.ceil(hours * S_PER_HOUR * open_wh / slot_wh)
        done_wh += slot_wh
    if job.until_s - end_s < CUT_MIN_S:
        end_s = job.until_s
    held = [(at_s, w) for at_s, w in zip(board.times, job.low, strict=True) if at_s > end_s]
    index = max(bisect_right(board.times, end_s) - 1, 0)
    steps = [step for step in steps if step[0] < end_s]
    return [*steps, (end_s, job.low[index]), *held], end_s


def _words(job: _Job, missing_wh: float, impossible_wh: float, end_s: int) -> str:
    need = job.need
    top_kw = max(job.power) / 1000
    leaves = f"{need.departs_at.astimezone(UTC):%H:%M} UTC"
    if need.energy_wh <= 0:
        return f"local plan: nothing to charge before the departure at {leaves}"
    asked = f"{need.energy_wh / 1000:.1f} kWh"
    if missing_wh <= 0:
        done = f"{datetime.fromtimestamp(end_s, UTC):%H:%M} UTC"
        return (
            f"local plan: {asked} by {done} for the departure at {leaves}, "
            f"with {top_kw:.1f} kW at most"
        )
    missing = f"{missing_wh / 1000:.1f} of {asked} will be missing at {leaves}"
    if job.alone_s <= 0 or job.hard_s <= job.start_s:
        return f"local plan: {missing}: the departure is past"
    if impossible_wh >= missing_wh - _trifle_wh(job):
        return (
            f"local plan: {missing}: the time is too short even with all the power that "
            f"vehicle, outlet and feeders take, {top_kw:.1f} kW at most"
        )
    return f"local plan: {missing}: the caps leave too little for all that leave by then"
