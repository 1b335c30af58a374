"""Which plans are trusted, which slot is a vehicle's, and the power that a plan asks for."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.domain.curve import floor_tenth, value_at
from agent.domain.ids import ScheduleId, VehicleId
from agent.domain.plan import (
    AfterPlan,
    Plan,
    PowerWindow,
    Schedule,
    Segment,
    check,
    choose,
    wanted,
)
from tests.support.properties import examples
from tests.unit.domain.build import NOW, NOW_S, a_plan, a_segment, a_window, after, watts

quick = examples(200)
HOUR = 3600


# --- check ------------------------------------------------------------------------


def test_a_plain_plan_is_trusted():
    assert check(a_plan(a_segment(0, 10), a_segment(10, 20)), now=NOW) is None


def test_a_plan_without_segments_is_a_plan():
    assert check(a_plan(), now=NOW) is None


def test_segments_need_not_be_sorted_and_may_touch_or_be_empty():
    plan = a_plan(a_segment(10, 20), a_segment(0, 10), a_segment(20, 20))

    assert check(plan, now=NOW) is None


def test_one_second_of_overlap_is_rounding():
    assert check(a_plan(a_segment(0, 11), a_segment(10, 20)), now=NOW) is None


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (a_segment(0, 10, math.nan), "outside 0"),
        (a_segment(0, 10, math.inf), "outside 0"),
        (a_segment(0, 10, -1.0), "outside 0"),
        (a_segment(0, 10, 60_000_000.0), "outside 0"),
        (a_segment(10, 0), "ends before it starts"),
        (a_segment(0, 10, paused=True, unlimited=True), "both a pause and"),
        (a_segment(-32 * 24 * HOUR, 0), "days from now"),
        (a_segment(0, 32 * 24 * HOUR), "days from now"),
        (a_segment(5, 10), "overlap"),
    ],
)
def test_one_bad_segment_refuses_the_whole_plan_and_says_why(segment, words):
    """Bad units, no number, wrong order, contradiction, far away, on top of another."""
    good = (a_segment(0, 7, 1.0), a_segment(100, 110))

    problem = check(a_plan(*good, segment), now=NOW)

    assert problem is not None
    assert words in problem


def test_two_seconds_of_overlap_are_not_rounding():
    assert check(a_plan(a_segment(0, 12), a_segment(10, 20)), now=NOW) is not None


def test_i11_a_plan_of_thousands_of_segments_is_refused():
    segments = tuple(a_segment(n, n + 1) for n in range(2001))

    assert check(Plan(segments=segments[:2000]), now=NOW) is None
    assert "2001 segments" in str(check(Plan(segments=segments), now=NOW))


# --- choose -----------------------------------------------------------------------


def _slot(name: str, from_s: float, to_s: float, vehicle: str = "bus-1") -> Schedule:
    return Schedule(
        schedule_id=ScheduleId(name),
        vehicle_id=VehicleId(vehicle),
        location_uid="depot",
        arrives_at=after(from_s),
        departs_at=after(to_s),
    )


RUNNING = _slot("running", -HOUR, HOUR)
COMING = _slot("coming", 2 * HOUR, 9 * HOUR)
LATE = _slot("late", -9 * HOUR, -HOUR)


def _chosen(*schedules: Schedule, now=NOW) -> str | None:
    found = choose(schedules, VehicleId("bus-1"), now=now)
    return found.schedule_id if found is not None else None


def test_the_slot_that_contains_now_is_chosen_before_the_next_and_the_last():
    assert _chosen(COMING, LATE, RUNNING) == "running"


def test_a_slot_that_begins_soon_is_chosen_before_one_that_is_over():
    assert _chosen(LATE, COMING) == "coming"


def test_a_bus_that_left_late_keeps_its_slot_for_three_hours():
    assert _chosen(LATE) == "late"
    assert _chosen(LATE, now=LATE.departs_at + timedelta(hours=3)) is None


def test_a_slot_further_than_three_hours_ahead_is_nobodys_yet():
    assert _chosen(COMING, now=COMING.arrives_at - timedelta(hours=3)) == "coming"
    assert _chosen(COMING, now=COMING.arrives_at - timedelta(hours=3, seconds=1)) is None


def test_of_two_running_slots_the_later_arrival_is_meant():
    assert _chosen(_slot("older", -2 * HOUR, HOUR), RUNNING) == "running"


def test_of_two_coming_slots_the_nearer_is_meant():
    assert _chosen(COMING, _slot("nearer", HOUR, 2 * HOUR)) == "nearer"


def test_a_slot_begins_with_its_arrival_and_is_over_at_its_departure():
    following = _slot("following", HOUR, 2 * HOUR)

    assert _chosen(RUNNING, following, now=RUNNING.departs_at) == "following"
    assert _chosen(RUNNING, now=RUNNING.arrives_at) == "running"


def test_slots_of_other_vehicles_are_never_chosen():
    assert _chosen(_slot("foreign", -HOUR, HOUR, vehicle="bus-2")) is None


@quick
@given(
    slots=st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 10)), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_choice_does_not_depend_on_the_order_of_schedules(slots, order):
    rows = [
        _slot(str(n), at * HOUR, (at + long) * HOUR) for n, (at, long) in enumerate(slots)
    ]
    shuffled = list(rows)
    order.shuffle(shuffled)

    assert _chosen(*rows) == _chosen(*shuffled)


# --- wanted -----------------------------------------------------------------------


def _at(line, seconds: float) -> float:
    return value_at(line, NOW_S + seconds)


def test_each_segment_has_its_power():
    line = wanted(a_plan(a_segment(0, 10, 5000.0), a_segment(10, 20, 7000.0)), a_window())

    assert [_at(line, s) for s in (0, 9, 10, 19)] == [5000, 5000, 7000, 7000]


def test_a_gap_is_held_at_the_minimum_not_left_open():
    line = wanted(a_plan(a_segment(0, 10), a_segment(20, 30)), a_window())

    assert [_at(line, s) for s in (9, 10, 19, 20)] == [10_000, 1000, 1000, 10_000]


def test_before_the_plan_the_minimum_is_held():
    assert _at(wanted(a_plan(a_segment(10, 20)), a_window()), 0) == 1000


@pytest.mark.parametrize(("can_pause", "expected"), [(True, 0), (False, 1000)])
def test_only_a_vehicle_that_wakes_up_again_is_paused(can_pause, expected):
    window = a_window(can_pause=can_pause)

    assert _at(wanted(a_plan(a_segment(0, 10, 0.0, paused=True)), window), 5) == expected
    assert _at(wanted(a_plan(a_segment(0, 10, 0.0)), window), 5) == expected


def test_the_power_of_a_paused_segment_is_not_believed():
    plan = a_plan(a_segment(0, 10, 50_000.0, paused=True))

    assert _at(wanted(plan, a_window()), 5) == 0


def test_an_unlimited_segment_is_bounded_by_the_window():
    """PowerkW is then a forecast and not a limit."""
    plan = a_plan(a_segment(0, 10, 5000.0, unlimited=True))

    assert _at(wanted(plan, a_window()), 5) == 100_000


def test_a_power_is_kept_inside_the_window():
    plan = a_plan(a_segment(0, 10, 200_000.0), a_segment(10, 20, 300.0))
    line = wanted(plan, a_window())

    assert [_at(line, 5), _at(line, 15)] == [100_000, 1000]


def test_a_minimum_above_the_maximum_gives_way():
    window = a_window(min_w=9000.0, max_w=4000.0, can_pause=False)

    assert _at(wanted(a_plan(a_segment(0, 10)), window), 5) == 4000


@pytest.mark.parametrize(
    ("after_plan", "can_pause", "expected"),
    [
        (AfterPlan.HOLD_MINIMUM, True, 1000),
        (AfterPlan.HOLD_MINIMUM, False, 1000),
        (AfterPlan.PAUSE, True, 0),
        (AfterPlan.PAUSE, False, 1000),
        (AfterPlan.UNLIMITED, True, 100_000),
    ],
)
def test_the_time_after_the_plan_is_filled_by_policy(after_plan, can_pause, expected):
    window = a_window(after_plan=after_plan, can_pause=can_pause)
    line = wanted(a_plan(a_segment(0, 10)), window)

    assert [_at(line, 10), _at(line, 10**8)] == [expected, expected]


def test_nothing_to_charge_means_hold():
    assert _at(wanted(a_plan(), a_window()), 0) == 1000
    assert _at(wanted(a_plan(a_segment(5, 5)), a_window()), 5) == 1000


def test_of_overlapping_segments_the_later_starting_wins():
    line = wanted(a_plan(a_segment(8, 20, 3000.0), a_segment(0, 10, 5000.0)), a_window())

    assert [_at(line, s) for s in (7, 8, 9, 10)] == [5000, 3000, 3000, 3000]


@st.composite
def plans(draw, *, finest_s: float = 0.1) -> tuple[Plan, PowerWindow]:
    """Draw plans without overlap, with gaps, pauses, and borders between seconds."""
    at = draw(st.integers(-5000, 5000)) * finest_s
    segments: list[Segment] = []
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.sampled_from([0, 0, 0, 0.4, 1, 1.3, 700])) * (finest_s * 10)
        span = draw(st.integers(1, 30) | st.integers(1, 40_000)) * finest_s
        kind = draw(st.sampled_from(["power", "power", "power", "paused", "unlimited"]))
        segments.append(
            a_segment(
                round(at, 1),
                round(at + span, 1),
                draw(watts),
                paused=kind == "paused",
                unlimited=kind == "unlimited",
            )
        )
        at += span
    draw(st.randoms(use_true_random=False)).shuffle(segments)
    window = a_window(
        min_w=draw(st.sampled_from([0.0, 1000.0, 4140.0])),
        max_w=draw(st.sampled_from([3000.0, 50_000.0, 400_000.0])),
        can_pause=draw(st.booleans()),
        after_plan=draw(st.sampled_from(AfterPlan)),
    )
    return a_plan(*segments), window


def _exact(plan: Plan, window: PowerWindow, at_s: float) -> float:
    """Say again, slowly, what a plan allows at an instant; gaps up to 1 s are none."""
    ordered = sorted(plan.segments, key=lambda item: item.starts_at)
    before = [item for item in ordered if item.starts_at.timestamp() <= at_s]
    if not before:
        return window.hold_w
    segment = before[-1]
    follows = ordered[len(before)] if len(before) < len(ordered) else None
    if at_s >= segment.ends_at.timestamp():
        if follows is None:
            return {
                AfterPlan.HOLD_MINIMUM: window.hold_w,
                AfterPlan.PAUSE: window.floor_w,
                AfterPlan.UNLIMITED: window.max_w,
            }[window.after_plan]
        if follows.starts_at - segment.ends_at > timedelta(seconds=1):
            return window.hold_w
    if segment.unlimited:
        return window.max_w
    if segment.paused or segment.power_w == 0:
        return window.floor_w
    return max(min(floor_tenth(segment.power_w), window.max_w), window.hold_w)


@quick
@given(plans())
@example(
    (
        a_plan(
            a_segment(0, 0.3, 10_000.0),
            a_segment(0.3, 0.6, 50_000.0),
            a_segment(0.6, 10, 20_000.0),
        ),
        a_window(),
    )
)
def test_rounding_to_whole_seconds_never_lifts_the_curve_at_any_instant(case):
    plan, window = case
    line = wanted(plan, window)
    borders = {i.starts_at.timestamp() for i in plan.segments}
    borders |= {i.ends_at.timestamp() for i in plan.segments} | {float(NOW_S)}

    for border in borders:
        for at_s in (border, border - 0.05, border + 0.05, border // 1, border // 1 + 1):
            assert value_at(line, at_s) <= _exact(plan, window, at_s)


@quick
@given(plans())
def test_away_from_its_borders_the_curve_is_the_plan(case):
    plan, window = case
    line = wanted(plan, window)

    for segment in plan.segments:
        middle = (segment.starts_at.timestamp() + segment.ends_at.timestamp()) / 2
        if segment.ends_at - segment.starts_at > timedelta(seconds=2.5):
            assert value_at(line, middle) == _exact(plan, window, middle)
    assert value_at(line, NOW_S + 10**7) == _exact(plan, window, NOW_S + 10.0**7)


@quick
@given(plans())
def test_a_vehicle_that_cannot_wake_up_is_never_put_to_sleep(case):
    plan, window = case
    line = wanted(plan, window)

    assert all(window.floor_w <= limit_w <= window.max_w for _, limit_w in line)
