"""The deviation account: what was planned, what came, what will come in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.domain.account import (
    Account,
    Battery,
    Goal,
    account,
    after_clock_step,
    by_quarter_hour,
    catch_up,
    sentence,
)
from agent.domain.curve import EVER_S, constant, curve, energy_wh, value_at
from agent.domain.meter import MeterReading, MeterState, add_reading, baseline
from agent.domain.plan import Plan, wanted
from agent.domain.wake import HeldWindow
from agent.simulator.vehicle import VirtualVehicle
from tests.support.properties import examples
from tests.unit.domain.build import (
    NOW,
    NOW_S,
    a_plan,
    a_segment,
    a_window,
    after,
    curves,
    moments,
)

quick = examples(60)
HOUR = 3600.0
BUS = Battery(max_w=60_000.0, capacity_wh=300_000.0, efficiency=1.0)


def _meter(energy_wh: float, at_s: float, soc: float | None = None, **more) -> MeterState:
    return MeterState(
        **{
            "energy_wh": energy_wh,
            "register_wh": energy_wh,
            "register_at": after(at_s),
            "soc_percent": soc,
            "soc_at": None if soc is None else after(at_s),
            **more,
        }
    )


def _goal(power_w: float | None = 30_000.0, departs_s: float | None = 8 * HOUR, **more):
    return Goal(
        **{
            "started_at": NOW,
            "line": None if power_w is None else constant(power_w),
            "departs_at": None if departs_s is None else after(departs_s),
            "target_soc": 80.0,
            **more,
        }
    )


def _at(
    hours: float,
    energy_wh: float,
    soc: float | None,
    goal: Goal,
    *,
    battery: Battery = BUS,
    before: Account | None = None,
) -> Account:
    meter = _meter(energy_wh, hours * HOUR, soc)
    return account(before, meter, goal, battery, now=after(hours * HOUR))


# --- planned against delivered ----------------------------------------------------


def test_behind_is_what_was_planned_less_what_came():
    item = _at(2, 47_600.0, 35.0, _goal())

    assert item.planned_wh == pytest.approx(60_000)
    assert item.behind_wh == pytest.approx(12_400)


@quick
@given(
    line=curves(past_s=0),
    minutes=st.lists(st.integers(1, 60), min_size=1, max_size=10),
)
def test_the_account_is_the_same_however_often_it_is_kept(line, minutes):
    goal = _goal(None, line=line)
    kept: Account | None = None
    at_s = 0.0
    for step in minutes:
        at_s += step * 60
        kept = account(kept, _meter(0.0, at_s), goal, BUS, now=after(at_s))
    once = account(None, _meter(0.0, at_s), goal, BUS, now=after(at_s))

    assert kept is not None
    assert kept.planned_wh == pytest.approx(once.planned_wh)
    assert once.planned_wh == pytest.approx(energy_wh(line, NOW_S, NOW_S + int(at_s)))


def test_a_new_plan_without_a_past_does_not_erase_what_was_planned():
    """A new plan often begins at the planner's now (chargeye.md 6.9)."""
    first = _at(2, 50_000.0, 40.0, _goal(30_000.0))
    second = _at(3, 60_000.0, 43.0, _goal(10_000.0), before=first)

    assert second.planned_wh == pytest.approx(70_000)
    assert second.behind_wh == pytest.approx(10_000)


def test_nothing_is_planned_before_the_session_began():
    late = replace(_goal(), started_at=after(HOUR))

    assert _at(2, 0.0, 40.0, late).planned_wh == pytest.approx(30_000)


def test_a_session_that_begins_before_the_slot_is_planned_by_the_curve():
    line = curve([(0, 5000.0), (NOW_S + 3600, 30_000.0)])

    assert _at(2, 0.0, 40.0, _goal(None, line=line)).planned_wh == pytest.approx(35_000)


def test_planned_and_delivered_are_compared_at_the_same_moment():
    """A register that is ten minutes old is held against the plan of ten minutes ago."""
    meter = _meter(30_000.0, HOUR, 40.0)
    item = account(None, meter, _goal(), BUS, now=after(HOUR + 600))

    assert item.behind_wh == pytest.approx(0)
    assert item.at == after(HOUR)


def test_a_register_that_is_long_silent_proves_nothing():
    meter = _meter(30_000.0, HOUR, 40.0)
    item = account(None, meter, _goal(), BUS, now=after(2 * HOUR))

    assert item.behind_wh == pytest.approx(30_000)
    later = account(item, _meter(60_000.0, 2 * HOUR, 50.0), _goal(), BUS, now=item.at)
    assert later.behind_wh == pytest.approx(0)


def test_without_a_plan_nothing_is_behind():
    item = _at(2, 0.0, 40.0, _goal(None, given=constant(30_000.0)))

    assert item.planned_wh == 0
    assert item.behind_wh == 0
    assert item.expected_soc == pytest.approx(80, abs=21)


def test_a_clock_that_steps_counts_no_planned_time():
    """T2."""
    before = _at(1, 30_000.0, 40.0, _goal())
    ahead = after_clock_step(before, after(5 * HOUR))
    item = _at(5 + 1 / 60, 30_500.0, 40.0, _goal(), before=ahead)

    assert item.planned_wh == pytest.approx(30_500)


@quick
@given(back_s=st.integers(1, 100_000))
def test_a_clock_that_steps_back_makes_no_energy_negative(back_s):
    before = _at(1, 30_000.0, 40.0, _goal())
    item = account(
        before, _meter(30_000.0, HOUR, 40.0), _goal(), BUS, now=after(HOUR - back_s)
    )

    assert item.planned_wh == before.planned_wh
    assert item.at <= after(HOUR - back_s)


def test_the_history_shows_planned_beside_delivered():
    meter = baseline(MeterState(), 0.0, NOW)
    for minute in range(1, 61):
        reading = MeterReading(at=after(minute * 60), register_wh=minute * 400.0)
        meter, _ = add_reading(meter, reading, rated_w=150_000)
    shown = by_quarter_hour(constant(30_000.0), meter.history, NOW, after(HOUR))

    assert [round(slot.planned_wh) for slot in shown[:4]] == [7500] * 4
    assert sum(slot.delivered_wh for slot in shown) == pytest.approx(24_000)
    assert sum(slot.planned_wh for slot in shown) == pytest.approx(30_000)


def test_a_slot_counts_only_as_far_as_the_session_lasted():
    shown = by_quarter_hour(
        constant(36_000.0), [(NOW_S, 0.0, None, None)], after(300), after(600)
    )

    assert shown[0].planned_wh == pytest.approx(3000)


# --- preconditioning --------------------------------------------------------------


def _window(from_hours: float, to_hours: float) -> HeldWindow:
    return HeldWindow(
        opens_at=after(from_hours * HOUR), closes_at=after(to_hours * HOUR), floor_w=8000.0
    )


def test_heating_before_departure_is_not_drift():
    """EV-15: what a full vehicle draws in the window is not ahead of the plan."""
    goal = _goal(0.0, window=_window(7.5, 8), target_soc=80.0)
    before = _at(7.5, 60_000.0, 80.0, goal)
    item = _at(7.75, 62_000.0, 80.0, goal, before=before)

    assert item.preconditioning_wh == pytest.approx(2000)
    assert item.behind_wh == pytest.approx(before.behind_wh)
    assert not item.at_risk


def test_the_same_draw_outside_the_window_is_ahead_of_the_plan():
    goal = _goal(0.0, window=_window(7.5, 8))
    before = _at(6.5, 60_000.0, 70.0, goal)
    item = _at(6.75, 62_000.0, 70.0, goal, before=before)

    assert item.preconditioning_wh == 0
    assert item.behind_wh == pytest.approx(before.behind_wh - 2000)


def test_charging_by_the_plan_in_the_window_is_charging():
    goal = _goal(20_000.0, window=_window(7.5, 8))
    before = _at(7.5, 150_000.0, 70.0, goal)
    item = _at(7.75, 155_000.0, 71.0, goal, before=before)

    assert item.preconditioning_wh == 0
    assert item.behind_wh == pytest.approx(0)


# --- the outlook ------------------------------------------------------------------


def test_below_the_taper_the_rest_of_the_plan_is_what_comes():
    item = _at(0, 0.0, 30.0, _goal(30_000.0, departs_s=5 * HOUR))

    assert item.expected_wh == pytest.approx(150_000)
    assert item.expected_soc == pytest.approx(80)
    assert not item.at_risk


def test_the_vehicle_takes_no_more_than_it_can():
    item = _at(0, 0.0, 30.0, _goal(600_000.0, departs_s=HOUR))

    assert item.expected_wh == pytest.approx(60_000)


def test_losses_in_the_battery_count():
    lossy = replace(BUS, efficiency=0.9)
    item = _at(0, 0.0, 30.0, _goal(30_000.0, departs_s=5 * HOUR), battery=lossy)

    assert item.expected_soc == pytest.approx(75)
    assert item.needed_wh == pytest.approx(150_000 / 0.9)


@examples(25)
@given(
    soc=st.floats(5, 99),
    steps=st.lists(
        st.sampled_from([0.0, 5000.0, 20_000.0, 60_000.0]), min_size=1, max_size=4
    ),
    efficiency=st.sampled_from([0.9, 1.0]),
)
def test_the_outlook_is_what_a_vehicle_with_a_taper_takes(soc, steps, efficiency):
    """Held against a vehicle that is lived through second by second, half a point."""
    line = curve([(NOW_S + index * 3600, power) for index, power in enumerate(steps)])
    battery = Battery(max_w=60_000.0, capacity_wh=100_000.0, efficiency=efficiency)
    goal = _goal(None, line=line, departs_s=len(steps) * HOUR, target_soc=100.0)
    item = _at(0, 0.0, soc, goal, battery=battery)
    vehicle = VirtualVehicle(
        name="bus",
        mac="00",
        capacity_wh=100_000.0,
        soc_percent=soc,
        max_w=60_000.0,
        efficiency=efficiency,
        ramp_w_per_s=1e9,
    )
    drawn_wh = 0.0
    for second in range(0, len(steps) * 3600, 10):
        drawn_wh += vehicle.step(10, value_at(line, NOW_S + second)) * 10 / 3600

    assert item.expected_soc == pytest.approx(vehicle.soc_percent, abs=0.5)
    assert item.expected_wh == pytest.approx(drawn_wh, abs=600)


@quick
@given(soc=st.floats(0, 95), target=st.floats(1, 100), slack_s=st.integers(0, 20_000))
def test_full_power_from_the_latest_moment_on_just_reaches_the_target(soc, target, slack_s):
    goal = _goal(60_000.0, departs_s=60 * HOUR, target_soc=target)
    item = _at(0, 0.0, soc, goal)
    if soc >= target:
        assert item.latest_full_power_at is None
        assert item.laxity_s(NOW) == EVER_S
        return
    assert item.latest_full_power_at is not None
    last_s = int(item.latest_full_power_at.timestamp())

    at_last = _goal(None, departs_s=60 * HOUR, target_soc=target)
    reached = replace(at_last, line=curve([(0, 0.0), (last_s, 60_000.0)]))
    missed = replace(at_last, line=curve([(0, 0.0), (last_s + 600, 60_000.0)]))
    assert _at(0, 0.0, soc, reached).expected_soc == pytest.approx(target, abs=0.1)
    assert (_at(0, 0.0, soc, missed).expected_soc or 0) < target


def test_soc_is_carried_on_by_what_was_delivered_since():
    """EV-14: a SoC that was read once at plug-in."""
    history = tuple((NOW_S + n * 900, 7500.0, None, None) for n in range(4))
    meter = _meter(30_000.0, HOUR, 40.0, soc_at=after(0), history=history)

    assert account(None, meter, _goal(), BUS, now=after(HOUR)).soc == pytest.approx(50)
    fresh = _meter(30_000.0, HOUR, 40.0, history=history)
    assert account(None, fresh, _goal(), BUS, now=after(HOUR)).soc == pytest.approx(40)
    half = _meter(30_000.0, HOUR, 40.0, soc_at=after(HOUR - 450), history=history)
    assert account(None, half, _goal(), BUS, now=after(HOUR)).soc == pytest.approx(41.25)


def test_a_soc_from_elsewhere_serves_where_the_station_reports_none():
    assert _at(1, 30_000.0, None, _goal(start_soc=40.0)).soc == pytest.approx(50)


def test_the_allocation_counts_where_it_differs_from_the_plan():
    goal = _goal(30_000.0, departs_s=5 * HOUR, given=constant(15_000.0))

    assert _at(0, 0.0, 30.0, goal).expected_soc == pytest.approx(55)


def test_the_allocator_is_told_need_and_laxity():
    item = _at(0, 0.0, 60.0, _goal(departs_s=10 * HOUR))

    assert item.need_w(NOW) == pytest.approx(6000)
    assert item.laxity_s(NOW) == pytest.approx(9 * HOUR)
    assert _at(0, 0.0, 60.0, _goal(departs_s=None)).need_w(NOW) == 0


# --- the alarm --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power_w", "expected"),
    [(30_000.0, False), (28_500.0, False), (28_100.0, True), (0.0, True)],
)
def test_departure_is_at_risk_when_three_points_will_be_missing(power_w, expected):
    assert _at(0, 0.0, 30.0, _goal(power_w, departs_s=5 * HOUR)).at_risk is expected


def test_the_alarm_comes_while_full_power_could_still_help():
    """A vehicle that sleeps on: the alarm comes hours before the departure."""
    item: Account | None = None
    goal = _goal(30_000.0, departs_s=5 * HOUR)
    for minute in range(300):
        item = _at(minute / 60, 0.0, 30.0, goal, before=item)
        if item.at_risk:
            break

    assert item is not None
    assert item.at_risk
    assert item.laxity_s(item.at) > HOUR
    assert "instead of 80 %" in item.reason
    assert "full power must begin within" in item.reason


def test_between_three_points_and_one_the_alarm_stays_as_it_is():
    goal = _goal(departs_s=5 * HOUR)

    def look(power_w: float, before: Account | None) -> Account:
        return _at(0, 0.0, 30.0, replace(goal, line=constant(power_w)), before=before)

    raised = look(28_000.0, None)
    kept = look(29_000.0, raised)
    cleared = look(29_500.0, kept)
    quiet = look(29_000.0, cleared)
    assert [item.at_risk for item in (raised, kept, cleared, quiet)] == [1, 1, 0, 0]
    assert cleared.reason == ""


def test_without_slack_two_missing_points_are_a_risk():
    goal = _goal(56_000.0, departs_s=2 * HOUR, target_soc=70.0)
    tight = _at(0, 0.0, 30.4, goal)
    assert tight.laxity_s(NOW) < 900
    assert tight.at_risk

    roomy = replace(goal, departs_at=after(3 * HOUR), line=constant(37_600.0))
    assert not _at(0, 0.0, 30.4, roomy).at_risk


def test_a_tight_plan_that_reaches_the_target_is_no_risk():
    goal = _goal(60_000.0, departs_s=2 * HOUR, target_soc=70.0)

    assert not _at(0, 0.0, 30.0, goal).at_risk


@quick
@given(
    socs=st.lists(st.floats(76, 79.9), min_size=2, max_size=30),
)
def test_noise_within_two_points_never_makes_the_alarm_flap(socs):
    goal = _goal(0.0, departs_s=5 * HOUR)
    item: Account | None = None
    seen = []
    for index, soc in enumerate(socs):
        item = _at(index / 60, 0.0, min(max(soc, 77.1), 78.9), goal, before=item)
        seen.append(item.at_risk)

    assert len(set(seen)) == 1


def test_a_target_that_is_reached_ends_everything():
    goal = _goal(30_000.0)
    late = _at(2, 20_000.0, 50.0, goal)
    done = _at(3, 50_000.0, 80.0, goal, before=late)

    assert late.behind_wh > 0
    assert done.behind_wh <= 0
    assert done.needed_wh == 0
    assert not done.at_risk
    assert done.latest_full_power_at is None


def test_after_the_departure_nothing_more_is_expected():
    item = _at(9, 100_000.0, 71.0, _goal())

    assert item.expected_soc == 71
    assert item.at_risk
    assert "not even full power" in item.reason


def test_without_a_departure_there_is_no_outlook_and_no_alarm():
    item = _at(2, 0.0, 10.0, _goal(departs_s=None))

    assert item.expected_wh is None
    assert item.expected_soc is None
    assert not item.at_risk
    assert item.behind_wh == pytest.approx(60_000)


# --- vehicles without SoC or capacity ---------------------------------------------

PLAIN = Battery(max_w=60_000.0)


def test_without_capacity_the_plans_own_energy_is_the_target():
    item = _at(2, 50_000.0, None, _goal(30_000.0, departs_s=4 * HOUR), battery=PLAIN)

    assert item.needed_wh == pytest.approx(70_000)
    assert item.expected_wh == pytest.approx(110_000)
    assert item.expected_soc is None
    assert item.at_risk
    assert "110.0 kWh expected until departure instead of 120.0 kWh" in item.reason
    assert item.latest_full_power_at == after(4 * HOUR) - timedelta(hours=7 / 6)


def test_without_capacity_a_small_gap_is_none():
    item = _at(2, 59_000.0, None, _goal(30_000.0, departs_s=4 * HOUR), battery=PLAIN)

    assert not item.at_risk


def test_without_capacity_a_vehicle_that_ended_by_itself_is_not_behind():
    goal = _goal(30_000.0, departs_s=4 * HOUR, is_full=True)
    item = _at(2, 20_000.0, None, goal, battery=PLAIN)

    assert item.behind_wh == 0
    assert not item.at_risk


def test_a_soc_without_capacity_is_shown_and_not_extrapolated():
    item = _at(2, 60_000.0, 40.0, _goal(30_000.0, departs_s=4 * HOUR), battery=PLAIN)

    assert item.soc == 40
    assert item.expected_soc is None


@quick
@given(
    line=curves(),
    energy=st.floats(0, 500_000),
    soc=st.none() | st.floats(0, 100),
    target=st.none() | st.floats(0, 150),
    capacity=st.none() | st.floats(1000, 700_000),
    max_w=st.sampled_from([0.0, 3000.0, 400_000.0]),
    departs_s=st.none() | st.floats(-50_000, 50_000),
    now_s=st.floats(-5000, 50_000),
)
def test_whatever_is_known_the_account_is_sane(
    line, energy, soc, target, capacity, max_w, departs_s, now_s
):
    goal = _goal(None, line=line, departs_s=departs_s, target_soc=target)
    battery = Battery(max_w=max_w, capacity_wh=capacity)
    meter = _meter(energy, now_s, soc)
    item = account(None, meter, goal, battery, now=after(now_s))
    again = account(item, meter, goal, battery, now=after(now_s))

    assert item.planned_wh >= 0
    assert item.needed_wh >= 0
    assert item.expected_soc is None or 0 <= item.expected_soc <= 100.0001
    assert item.expected_wh is None or item.expected_wh >= item.delivered_wh
    assert bool(item.reason) is item.at_risk
    assert again == item
    assert sentence(item)


def test_the_account_survives_being_stored():
    item = _at(2, 20_000.0, 50.0, _goal())
    adapter = TypeAdapter(Account)

    assert adapter.validate_json(adapter.dump_json(item)) == item


# --- words ------------------------------------------------------------------------


def test_a_technician_reads_one_sentence():
    item = Account(
        at=NOW,
        behind_wh=12_400.0,
        expected_soc=71.2,
        target_soc=80.0,
        departs_at=after(11 * HOUR + 600),
    )
    zone = timezone(timedelta(hours=1))

    assert sentence(item) == (
        "12.4 kWh behind the plan; 71 % expected at 05:10 instead of 80 %"
    )
    assert "at 06:10" in sentence(item, zone=zone)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"behind_wh": 100.0}, "on the plan; no departure known"),
        ({"behind_wh": -3000.0}, "3.0 kWh ahead of the plan; no departure known"),
        (
            {"departs_at": after(HOUR), "expected_wh": 21_000.0},
            "on the plan; 21.0 kWh expected until 19:00",
        ),
        (
            {"departs_at": after(HOUR), "expected_soc": 80.0, "target_soc": 80.0},
            "on the plan; 80 % expected at 19:00",
        ),
    ],
)
def test_the_sentence_leaves_out_what_is_not_known(changes, expected):
    assert sentence(Account(at=NOW, **changes)) == expected


# --- catching up ------------------------------------------------------------------

segments = st.lists(
    st.tuples(
        st.integers(60, 7200),
        st.sampled_from([0.0, 5000.0, 20_000.0, 60_000.0]),
        st.sampled_from(["", "", "paused", "unlimited", "gap"]),
    ),
    min_size=1,
    max_size=6,
)


def _plan_of(parts) -> Plan:
    found, at_s = [], -1800
    for length_s, power_w, kind in parts:
        if kind != "gap":
            marks = {kind: True} if kind else {}
            found.append(a_segment(at_s, at_s + length_s, power_w, **marks))
        at_s += length_s
    return a_plan(*found)


@quick
@given(
    parts=segments,
    behind_wh=st.floats(0, 100_000),
    needed_wh=st.floats(0, 100_000),
    departs_s=st.none() | st.integers(-100, 20_000),
    allowed=st.booleans(),
)
def test_catching_up_stays_inside_the_plans_own_rules(
    parts, behind_wh, needed_wh, departs_s, allowed
):
    plan = _plan_of(parts)
    line = wanted(plan, a_window(max_w=70_000.0))
    item = Account(
        at=NOW,
        behind_wh=behind_wh,
        needed_wh=needed_wh,
        departs_at=None if departs_s is None else after(departs_s),
    )
    more = catch_up(line, item, plan, max_w=70_000.0, now=NOW, allowed=allowed)

    extra_wh = energy_wh(more, NOW_S, NOW_S + 50_000) - energy_wh(
        line, NOW_S, NOW_S + 50_000
    )
    assert extra_wh <= min(behind_wh, needed_wh) + 1
    for at_s in moments(line, more):
        before, now_w = value_at(line, at_s), value_at(more, at_s)
        assert before <= now_w <= 70_000
        if now_w > before:
            assert allowed
            assert departs_s is None or at_s < NOW_S + departs_s
            [segment] = [
                part
                for part in plan.segments
                if part.starts_at.timestamp() <= at_s < part.ends_at.timestamp()
            ]
            assert segment.power_w > 0
            assert not segment.paused


def _behind(behind_wh: float, **more) -> Account:
    return Account(at=NOW, behind_wh=behind_wh, needed_wh=90_000.0, **more)


def test_catching_up_is_off_unless_allowed():
    plan = a_plan(a_segment(0, 7200, 20_000.0))
    line = wanted(plan, a_window())

    assert catch_up(line, _behind(10_000.0), plan, max_w=60_000.0, now=NOW) is line


def test_catching_up_takes_the_first_charging_segments_for_just_as_long_as_needed():
    plan = a_plan(
        a_segment(0, 600, 20_000.0),
        a_segment(600, 1800, 0.0, paused=True),
        a_segment(1800, 7200, 20_000.0),
    )
    line = wanted(plan, a_window())
    more = catch_up(line, _behind(10_000.0), plan, max_w=60_000.0, now=NOW, allowed=True)

    # 40 kW of room: 6.67 kWh in the first ten minutes, the rest in five more.
    assert [(at - NOW_S, watts) for at, watts in more if at < NOW_S + 7200] == [
        (0, 60_000.0),
        (600, 0.0),
        (1800, 60_000.0),
        (2100, 20_000.0),
    ]


def test_the_end_of_catching_up_does_not_wander_while_it_works():
    plan = a_plan(a_segment(0, 7200, 20_000.0))
    line = wanted(plan, a_window())
    ends = set()
    for second in range(0, 600, 37):
        item = _behind(20_123.0 - 40_000.0 * second / 3600)
        more = catch_up(line, item, plan, max_w=60_000.0, now=after(second), allowed=True)
        ends.add(next(at_s for at_s, watts in more if watts == 20_000.0))

    assert ends == {NOW_S + 1800}


def test_a_trifle_is_not_caught_up():
    plan = a_plan(a_segment(0, 7200, 20_000.0))
    line = wanted(plan, a_window())

    assert (
        catch_up(line, _behind(400.0), plan, max_w=60_000.0, now=NOW, allowed=True) is line
    )
