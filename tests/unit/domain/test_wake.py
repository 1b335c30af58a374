"""Pauses that end or do not: when a resume is due, what is tried, what is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.domain.curve import constant, value_at
from agent.domain.events import ConnectorStatus
from agent.domain.ids import ScheduleId, SessionId, VehicleId
from agent.domain.plan import Schedule
from agent.domain.wake import (
    BOOST_W,
    ROUND_S,
    TAKES_MAX,
    HeldWindow,
    Sight,
    WakeAction,
    WakeNews,
    WakePhase,
    WakePolicy,
    WakeState,
    held_open,
    may_pause,
    preconditioning,
    watch,
)
from tests.support.properties import examples
from tests.unit.domain.build import NOW_S, after, curves, moments

quick = examples(100)
EVERYTHING = WakePolicy(zero_allowed=True, may_restart=True, may_use_cloud=True)
NOTHING = WakePolicy(zero_allowed=False)
ALL = list(WakeAction)
STATUS = ConnectorStatus


def _sight(limit_w: float = 40_000.0, **more) -> Sight:
    return Sight(
        **{
            "session_id": SessionId("s1"),
            "limit_w": limit_w,
            "min_w": 5000.0,
            "max_w": 100_000.0,
            "status": STATUS.CHARGING,
            "soc_percent": 40.0,
            "target_soc_percent": 80.0,
            **more,
        }
    )


class _Bay:
    """One outlet over time: looks every 10 s and keeps what was said."""

    def __init__(self, policy: WakePolicy = EVERYTHING, **facts) -> None:
        self.policy = policy
        self.facts = facts
        self.at_s = 0.0
        self.state = WakeState()
        self.learned: WakeAction | None = None
        self.steps: list[tuple[float, WakeAction]] = []
        self.offers: list[tuple[float, float]] = []
        self.news: list[tuple[float, WakeNews, str]] = []
        self.worked: list[WakeAction] = []
        self.resumes = 0

    def look(self, limit_w: float = 40_000.0, *, measured_w: float | None = 0.0, **more):
        sight = _sight(
            limit_w,
            **{
                "measured_w": measured_w,
                "measured_at": None if measured_w is None else after(self.at_s),
                **self.facts,
                **more,
            },
        )
        watched = watch(
            self.state, sight, self.policy, now=after(self.at_s), learned=self.learned
        )
        self.state = watched.state
        if watched.step is not None:
            self.steps.append((self.at_s, watched.step.action))
            self.offers.append((watched.step.power_w, watched.step.hold_s))
        self.news += [(self.at_s, item.news, item.text) for item in watched.news]
        self.worked += [watched.worked] if watched.worked else []
        self.resumes += watched.resumed
        return watched

    def live(self, seconds: float, limit_w: float = 40_000.0, **more) -> None:
        end_s = self.at_s + seconds
        while self.at_s < end_s:
            self.at_s += 10
            self.look(limit_w, **more)

    def asleep(self, seconds: float = 330.0) -> _Bay:
        """Pause, raise the limit, and see nothing happen."""
        self.live(60, 0.0)
        self.at_s = 0.0
        self.look()
        self.live(seconds)
        return self

    @property
    def actions(self) -> list[WakeAction]:
        return [action for _, action in self.steps]

    @property
    def told(self) -> list[WakeNews]:
        return [news for _, news, _ in self.news]


# --- the ladder -------------------------------------------------------------------


def test_a_vehicle_that_sleeps_on_is_woken_rung_by_rung():
    """EV-01: re-send, minimum power, toggle, stop and start, cloud; each after a minute."""
    bay = _Bay().asleep()

    assert bay.steps == list(zip([60.0, 120.0, 180.0, 240.0, 300.0], ALL, strict=True))


@pytest.mark.parametrize("index", range(5))
def test_power_after_any_rung_ends_the_ladder_and_names_the_rung(index):
    bay = _Bay().asleep(60.0 * (index + 1))
    bay.live(20, measured_w=30_000.0)

    assert bay.worked == [ALL[index]]
    assert bay.told[-1] is WakeNews.RESUMED
    assert bay.news[-1][2].endswith(f"after {ALL[index]} and draws 30.0 kW")
    assert not bay.state.is_alarmed
    assert bay.actions == ALL[: index + 1]


@pytest.mark.parametrize("action", ALL)
def test_the_rung_that_helped_is_tried_first_next_time(action):
    bay = _Bay()
    bay.learned = action
    bay.asleep(60.0)

    assert bay.actions == [action]


def test_a_rung_that_helped_in_this_session_is_tried_first_in_its_next_pause():
    bay = _Bay().asleep(180.0)
    bay.live(20, measured_w=30_000.0)
    bay.live(600, 0.0)
    bay.live(70)

    assert bay.actions[-1] is WakeAction.TOGGLE
    assert len(bay.actions) == 4


def test_a_learned_rung_that_is_forbidden_now_is_not_taken():
    bay = _Bay(NOTHING)
    bay.learned = WakeAction.RESTART
    bay.asleep(60.0)

    assert bay.actions == [WakeAction.RESEND]


def test_a_station_that_ends_at_zero_is_never_toggled():
    """LIM-08, LIM-09: zero is not for every station."""
    bay = _Bay(replace(EVERYTHING, zero_allowed=False)).asleep(4000.0)

    assert WakeAction.TOGGLE not in bay.actions
    assert WakeAction.RESTART in bay.actions


def test_stop_and_start_and_the_cloud_need_leave():
    """REM-05: after a remote stop some stations want the cable pulled."""
    bay = _Bay(WakePolicy()).asleep(4000.0)

    assert set(bay.actions) == {WakeAction.RESEND, WakeAction.BOOST, WakeAction.TOGGLE}


def test_restarts_and_cloud_starts_are_few_in_a_session():
    bay = _Bay().asleep(6000.0)

    assert bay.actions.count(WakeAction.RESTART) == TAKES_MAX
    assert bay.actions.count(WakeAction.CLOUD) == TAKES_MAX
    assert bay.actions.count(WakeAction.RESEND) == 4


def test_the_ladder_ends():
    bay = _Bay().asleep(6 * 3600.0)
    before = len(bay.steps)
    bay.live(6 * 3600.0)

    assert len(bay.steps) == before
    assert bay.state.is_alarmed


def test_another_round_waits_a_quarter_of_an_hour():
    bay = _Bay().asleep(2 * ROUND_S)

    assert bay.steps[5] == (300.0 + ROUND_S, WakeAction.RESEND)


def test_a_boost_offers_at_least_the_minimum_and_never_more_than_the_outlet():
    weak = _Bay().asleep(120.0)
    assert weak.offers[-1][0] == 40_000.0

    for limit_w, min_w, max_w, expected in [
        (5000.0, 5000.0, 100_000.0, BOOST_W),
        (20_000.0, 20_000.0, 100_000.0, 20_000.0),
        (5000.0, 5000.0, 7000.0, 7000.0),
    ]:
        bay = _Bay(min_w=min_w, max_w=max_w)
        bay.live(60, 0.0)
        bay.live(130, limit_w)

        assert bay.offers[-1][0] == expected
        assert bay.offers[-1][1] > 0


def test_a_toggle_is_short_and_offers_nothing():
    bay = _Bay().asleep(180.0)

    power_w, hold_s = bay.offers[-1]
    assert power_w == 0
    assert 0 < hold_s < 30


@quick
@given(
    may=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    statuses=st.lists(st.sampled_from(list(STATUS)), min_size=60, max_size=60),
    powers=st.lists(
        st.sampled_from([None, 0.0, 400.0, 600.0, 20_000.0]), min_size=60, max_size=60
    ),
    limits=st.lists(
        st.sampled_from([0.0, 1000.0, 40_000.0, 40_000.0]), min_size=60, max_size=60
    ),
    steps_s=st.lists(st.sampled_from([10, 10, 10, 300, -600]), min_size=60, max_size=60),
)
def test_whatever_happens_only_allowed_rungs_are_taken_a_minute_apart(
    may, statuses, powers, limits, steps_s
):
    zero, restart, cloud = may
    policy = WakePolicy(zero_allowed=zero, may_restart=restart, may_use_cloud=cloud)
    bay = _Bay(policy)
    elapsed_s, taken_at = 0.0, []
    for status, power, limit_w, step_s in zip(
        statuses, powers, limits, steps_s, strict=True
    ):
        bay.at_s += step_s
        elapsed_s += abs(step_s)
        count = len(bay.steps)
        is_due = bay.state.phase is WakePhase.DUE
        bay.look(limit_w, status=status, measured_w=power)
        if len(bay.steps) > count:
            taken_at.append(elapsed_s)
            assert is_due
            assert limit_w >= 5000 or bay.actions[-2:-1] == [WakeAction.RESTART]

    allowed = {WakeAction.RESEND, WakeAction.BOOST}
    allowed |= {WakeAction.TOGGLE} if zero else set()
    allowed |= {WakeAction.RESTART} if restart else set()
    allowed |= {WakeAction.CLOUD} if cloud else set()
    assert set(bay.actions) <= allowed
    assert all(b - a >= 60 for a, b in pairwise(taken_at))


# --- the alarm --------------------------------------------------------------------


@quick
@given(
    every_s=st.sampled_from([1, 5, 10, 20]),
    may=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    status=st.sampled_from(list(STATUS)),
    power=st.sampled_from([None, 0.0, 499.0]),
    soc=st.sampled_from([None, 0.0, 50.0, 78.0]),
)
@example(
    every_s=10, may=(True, True, True), status=STATUS.SUSPENDED_EV, power=0.0, soc=None
)
def test_c15_a_resume_that_fails_is_an_alarm_within_five_minutes(
    every_s, may, status, power, soc
):
    """C15 and B12, whatever the station says and the policy allows."""
    zero, restart, cloud = may
    policy = WakePolicy(zero_allowed=zero, may_restart=restart, may_use_cloud=cloud)
    bay = _Bay(policy, status=status, soc_percent=soc)
    bay.live(60, 0.0)
    bay.at_s = 0.0
    while bay.at_s <= 300:
        bay.look(measured_w=power)
        bay.at_s += every_s

    assert bay.told == [WakeNews.NOT_RESUMED]
    assert bay.news[0][0] <= 300
    assert bay.state.is_alarmed
    assert bay.state.has_failed


def test_a_vehicle_that_resumes_in_time_is_no_news():
    bay = _Bay()
    bay.live(3600, 0.0)
    bay.live(40)
    bay.live(3600, measured_w=39_000.0)

    assert bay.news == []
    assert bay.steps == []
    assert bay.resumes == 1


def test_a_sample_from_before_the_raise_proves_nothing():
    bay = _Bay()
    bay.live(60, 0.0)
    bay.at_s = 0.0
    for _ in range(40):
        bay.look(measured_w=30_000.0, measured_at=after(-30))
        bay.at_s += 10

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_a_silent_meter_is_an_alarm_but_no_reason_to_stop_a_transaction():
    bay = _Bay()
    bay.live(60, 0.0)
    bay.at_s = 0.0
    bay.look()
    bay.live(600, measured_w=None)

    assert bay.actions == [WakeAction.RESEND]
    assert "no meter value" in bay.news[0][2]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (STATUS.SUSPENDED_EV, "wake it"),
        (STATUS.SUSPENDED_EVSE, "the station holds back"),
        (STATUS.FINISHING, "cable pulled"),
        (STATUS.FAULTED, "reports a fault"),
        (STATUS.CHARGING, "start the vehicle by hand"),
    ],
)
def test_the_alarm_says_where_to_look(status, words):
    bay = _Bay(status=status).asleep()

    assert words in bay.news[0][2]
    assert "40.0 kW are allowed" in bay.news[0][2]


def test_a_station_that_holds_back_is_no_reason_to_call_the_vehicles_cloud():
    bay = _Bay(status=STATUS.SUSPENDED_EVSE).asleep(4000.0)

    assert WakeAction.CLOUD not in bay.actions
    assert WakeAction.RESTART in bay.actions


@pytest.mark.parametrize("status", [STATUS.FINISHING, STATUS.FAULTED, STATUS.UNAVAILABLE])
def test_nothing_is_tried_where_only_a_person_can_help(status):
    """STS-05: stuck in Finishing until the cable is pulled."""
    bay = _Bay(status=status).asleep(4000.0)

    assert bay.steps == []
    assert bay.told == [WakeNews.NOT_RESUMED]


# --- when nothing is due ----------------------------------------------------------


def test_a_full_vehicle_need_not_resume():
    """SuspendedEV with a full battery is no failure."""
    bay = _Bay(status=STATUS.SUSPENDED_EV, soc_percent=80.0).asleep(4000.0)

    assert bay.news == []
    assert bay.steps == []


def test_without_target_full_is_full():
    bay = _Bay(soc_percent=99.5, target_soc_percent=None).asleep(4000.0)
    assert bay.news == []

    low = _Bay(soc_percent=90.0, target_soc_percent=None).asleep(4000.0)
    assert low.told == [WakeNews.NOT_RESUMED]


def test_a_vehicle_that_became_full_before_the_pause_need_not_resume():
    bay = _Bay(soc_percent=None)
    bay.live(60, measured_w=20_000.0)
    bay.live(60, status=STATUS.SUSPENDED_EV)
    bay.asleep(4000.0)

    assert bay.news == []


def test_a_vehicle_that_was_charging_when_it_was_paused_must_resume():
    bay = _Bay(soc_percent=None)
    bay.live(600, measured_w=20_000.0)
    bay.asleep()

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_a_vehicle_that_stops_at_a_limit_of_its_own_near_the_target_is_full():
    bay = _Bay(soc_percent=77.0)
    bay.live(60, measured_w=20_000.0)
    bay.live(60)
    bay.asleep(4000.0)

    assert bay.news == []


def test_one_that_stopped_by_itself_far_below_the_target_is_not_full():
    bay = _Bay(soc_percent=50.0)
    bay.live(60, measured_w=20_000.0)
    bay.live(60)
    bay.asleep()

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_becoming_full_ends_an_alarm():
    bay = _Bay().asleep()
    bay.live(10, soc_percent=80.0)

    assert bay.told == [WakeNews.NOT_RESUMED, WakeNews.NO_LONGER_DUE]
    assert not bay.state.is_alarmed


def test_another_pause_ends_an_alarm_and_the_failure_is_remembered():
    bay = _Bay().asleep()
    bay.live(10, 0.0)

    assert bay.told[-1] is WakeNews.NO_LONGER_DUE
    assert bay.state.phase is WakePhase.PAUSED
    assert bay.state.has_failed


def test_a_limit_below_the_minimum_is_a_pause_still():
    bay = _Bay()
    bay.live(60, 0.0)
    bay.live(4000, 4999.0)

    assert bay.news == []
    assert bay.steps == []


def test_without_a_minimum_zero_is_a_pause():
    bay = _Bay(min_w=0.0).asleep()

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_the_end_of_the_transaction_ends_the_watch():
    bay = _Bay().asleep()
    bay.facts["has_transaction"] = True
    bay.live(200)
    bay.at_s += 200
    bay.look(has_transaction=False)
    bay.live(2000, has_transaction=False)

    assert bay.told[0] is WakeNews.NOT_RESUMED
    assert bay.told[1:] == [WakeNews.NO_LONGER_DUE]
    assert len(bay.steps) == 5


def test_another_session_starts_from_nothing():
    bay = _Bay().asleep()
    bay.facts["session_id"] = SessionId("s2")
    bay.look(0.0)

    assert bay.state == WakeState(session_id=SessionId("s2"), phase=WakePhase.PAUSED)


def test_the_transaction_that_our_own_restart_ends_is_no_end():
    bay = _Bay().asleep(240.0)
    bay.live(30, 0.0, has_transaction=False)
    bay.live(20)
    bay.live(10, measured_w=30_000.0)

    assert bay.worked == [WakeAction.RESTART]


def test_a_restart_that_starts_nothing_leaves_the_alarm_standing():
    bay = _Bay(replace(EVERYTHING, may_use_cloud=False)).asleep(240.0)
    bay.live(3600, 0.0, has_transaction=False)

    assert bay.told == [WakeNews.NOT_RESUMED]
    assert bay.state.is_alarmed
    assert len(bay.steps) == 4


# --- restarts of the agent and of the clock ---------------------------------------


def test_after_a_restart_of_the_agent_a_vehicle_that_draws_is_left_alone():
    bay = _Bay()
    bay.look(measured_w=20_000.0)
    bay.live(3600, status=STATUS.SUSPENDED_EV)

    assert bay.news == []


def test_after_a_restart_of_the_agent_a_sleeping_vehicle_is_found():
    bay = _Bay()
    bay.look()
    bay.live(300)

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_a_vehicle_of_unknown_soc_that_holds_itself_back_at_first_sight_is_left_alone():
    bay = _Bay(soc_percent=None, status=STATUS.SUSPENDED_EV)
    bay.look()
    bay.live(3600)

    assert bay.news == []


def test_the_state_survives_being_stored():
    bay = _Bay().asleep()
    adapter = TypeAdapter(WakeState)

    assert adapter.validate_json(adapter.dump_json(bay.state)) == bay.state


def test_a_clock_that_steps_back_an_hour_delays_no_alarm_by_an_hour():
    """T2."""
    bay = _Bay().asleep(200.0)
    bay.at_s = -3600.0
    bay.live(300)

    assert bay.told == [WakeNews.NOT_RESUMED]


def test_a_clock_that_steps_ahead_takes_one_rung_at_a_time():
    bay = _Bay().asleep(50.0)
    bay.at_s += 3600
    bay.live(50)

    assert bay.actions == [WakeAction.RESEND]


# --- may it pause, and the window before departure --------------------------------


@quick
@given(
    vehicle=st.booleans(),
    station=st.booleans(),
    plan=st.sampled_from([None, True, False]),
    failed=st.booleans(),
)
def test_only_a_vehicle_that_resumes_at_a_station_that_takes_zero_may_pause(
    vehicle, station, plan, failed
):
    """EV-01 and LIM-09: never 0 for a vehicle that cannot resume."""
    allowed = may_pause(
        vehicle_can_pause=vehicle,
        station_zero_allowed=station,
        plan_can_pause=plan,
        has_failed=failed,
    )

    assert allowed is (vehicle and station and plan is not False and not failed)


def _schedule(arrives_s: float = -3600, departs_s: float = 7200) -> Schedule:
    return Schedule(
        schedule_id=ScheduleId("slot"),
        vehicle_id=VehicleId("bus"),
        location_uid="depot",
        arrives_at=after(arrives_s),
        departs_at=after(departs_s),
    )


def test_the_window_lies_before_departure():
    """EV-15."""
    window = preconditioning(_schedule(), 8000.0, max_w=60_000.0)

    assert window == HeldWindow(
        opens_at=after(7200 - 1800), closes_at=after(7200), floor_w=8000.0
    )
    assert not window.is_open(after(7200 - 1801))
    assert window.is_open(after(7200 - 1800))
    assert not window.is_open(after(7200))


def test_the_window_is_no_longer_than_the_stay_and_no_stronger_than_the_outlet():
    window = preconditioning(_schedule(arrives_s=6600), 8000.0, max_w=5000.0)

    assert window is not None
    assert window.opens_at == after(6600)
    assert window.floor_w == 5000


@pytest.mark.parametrize(
    ("schedule", "power_w"),
    [
        (None, 8000.0),
        (_schedule(), None),
        (_schedule(), 0.0),
        (_schedule(), -1.0),
        (_schedule(arrives_s=7200), 8000.0),
    ],
)
def test_without_departure_or_power_there_is_no_window(schedule, power_w):
    assert preconditioning(schedule, power_w, max_w=60_000.0) is None


@quick
@given(
    line=curves(),
    opens=st.floats(-500, 30_000),
    length=st.floats(0.5, 5000),
    floor_w=st.sampled_from([1000.0, 8000.0]),
)
def test_a_held_window_lifts_the_curve_inside_and_nowhere_else(
    line, opens, length, floor_w
):
    window = HeldWindow(
        opens_at=after(opens),
        closes_at=after(opens) + timedelta(seconds=length),
        floor_w=floor_w,
    )
    held = held_open(line, window)
    first_s, last_s = window.opens_at.timestamp(), window.closes_at.timestamp()

    for at_s in moments(line, held):
        before = value_at(line, at_s)
        # A raise comes at the whole second after its time, a fall at the one before.
        if first_s + 1 <= at_s < last_s - 1:
            assert value_at(held, at_s) == max(before, floor_w)
        elif not first_s <= at_s < last_s:
            assert value_at(held, at_s) == before
    assert held_open(line, None) is line


def test_a_window_in_the_past_of_a_constant_curve_changes_nothing_now():
    window = HeldWindow(opens_at=after(-3600), closes_at=after(-1800), floor_w=9000.0)
    held = held_open(constant(0.0), window)

    assert value_at(held, NOW_S) == 0
    assert value_at(held, NOW_S - 2000) == 9000


def test_a_clock_that_steps_back_a_little_keeps_the_rungs_a_minute_apart():
    bay = _Bay().asleep(190.0)
    bay.at_s = 100.0
    bay.live(50)
    assert len(bay.actions) == 3

    bay.live(20)
    assert bay.actions[-1] is WakeAction.RESTART
