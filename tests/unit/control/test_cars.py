"""Care for vehicles with a cloud of their own: when they are asked, told, left alone."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from agent.control import goals, views
from agent.control.car_operations import CarOperations, GoalOperations
from agent.control.operations import OperationRefused
from agent.control.wishes import Wish
from agent.domain.budget import BudgetSpent
from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.car_care import LimitRules
from agent.domain.curve import constant, value_at
from agent.domain.effects import OutboxAdded, StartSocReport
from agent.domain.errors import CloudFault
from agent.domain.events import ConnectorStatus
from agent.domain.goal import ChargeGoal
from agent.domain.plan import PowerWindow
from agent.ports import CommandOutcome, Outcome
from tests.support.car_bench import Bench, FakeCloud, HandClock, MemoryStore, bench
from tests.unit.domain.build import NOW, NOW_S

UNKNOWN = CommandOutcome(outcome=Outcome.UNKNOWN, code="TIMEOUT")
ASLEEP = CommandOutcome(
    outcome=Outcome.REFUSED, code="VEHICLE_STATE:ASLEEP", retry_after_s=1800
)


def seen(place: Bench) -> dict[str, object]:
    """The session as people see it."""
    return views.session(place.session, place.clock.now())


def start_socs(place: Bench) -> list[float]:
    """What ChargEye was told of the SoC at arrival."""
    rows = [row for row in place.store.rows if isinstance(row, OutboxAdded)]
    reports = [row.report for row in rows]
    return [item.soc_percent for item in reports if isinstance(item, StartSocReport)]


# --- asking -----------------------------------------------------------------------------


async def test_a_car_is_asked_once_between_60_and_120_s_after_it_was_plugged_in() -> None:
    """The car needs time to report; its answer is the session's SoC and ChargEye's."""
    async with bench() as place:
        await place.plug()
        await place.charge(1)
        early = len(place.cloud.reads)
        await place.charge(3)

    assert early == 0
    assert len(place.cloud.reads) == 1
    assert 60 <= (place.cloud.reads[0] - NOW).total_seconds() <= 120
    assert abs(float(str(seen(place)["soc_start"])) - 50) < 1
    assert len(start_socs(place)) == 1
    assert abs(start_socs(place)[0] - 50) < 1


async def test_the_schedules_guess_is_told_when_the_car_does_not_answer() -> None:
    """ChargEye hears that the vehicle came, after five minutes of waiting."""
    async with bench() as place:
        place.cloud.fault = CloudFault("gone", retryable=False)
        await place.plug()
        await place.charge(4)
        before = start_socs(place)
        await place.charge(8)

    assert before == []
    assert start_socs(place) == [40.0]
    assert seen(place)["soc_source"] == "estimate"
    assert seen(place)["soc_at"] is None


async def test_a_car_whose_station_gives_soc_is_never_asked() -> None:
    """The station is the real-time truth (A5)."""
    async with bench() as place:
        await place.plug()
        for percent in range(40, 70, 3):
            await place.charge(6, soc=float(percent))
        await place.status(ConnectorStatus.SUSPENDED_EV)
        await place.charge(5, 0.0, soc=80.0)

    assert place.cloud.reads == []
    assert seen(place)["soc_source"] == "station"
    assert seen(place)["soc_now"] == 80


async def test_a_car_that_is_not_plugged_in_is_never_asked() -> None:
    """An idle car is left to sleep."""
    async with bench() as place:
        await place.plug()
        await place.charge(1)
        await place.unplug()
        for _ in range(60):
            place.clock.move(600)
            await place.settle()

    assert place.cloud.reads == []


async def test_data_from_before_the_plug_in_is_asked_for_again_twice() -> None:
    """After 10 and 30 min, then it is given up; the value itself starts no plan."""
    async with bench() as place:
        place.cloud.lag_s = 86_400
        await place.plug()
        await place.charge(120)
        minutes = [(at - place.cloud.reads[0]).seconds / 60 for at in place.cloud.reads]

    assert minutes == [0, 10, 30]
    assert start_socs(place) == [40.0]


async def test_a_charging_session_costs_three_answers() -> None:
    """After the plug-in, half way, and when the vehicle stopped; nothing in between."""
    async with bench() as place:
        await place.plug()
        await place.charge(60)
        place.cloud.soc = 66.0
        await place.charge(70)
        place.cloud.soc = 80.0
        await place.status(ConnectorStatus.SUSPENDED_EV)
        await place.charge(60, 0.0)
        found = seen(place)

    assert len(place.cloud.reads) == 3
    assert abs(float(str(found["soc_now"])) - 80) < 1


async def test_a_restart_asks_nothing_again() -> None:
    """What was asked is on disk."""
    store, clock = MemoryStore(), HandClock()
    cloud = FakeCloud(clock)
    async with bench(store, clock, cloud) as first:
        await first.plug()
        await first.charge(5)
    async with bench(store, clock, cloud) as second:
        second.depot.states = first.depot.states
        second.depot.views = first.depot.views
        second.register_wh = first.register_wh
        await second.charge(10)

    assert len(cloud.reads) == 1


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        (CloudFault("no connection", retryable=True, retry_after_s=60), 2),
        (CloudFault("no permission", retryable=False), 1),
    ],
)
async def test_a_fault_is_tried_once_more_where_that_can_help(
    fault: CloudFault, reads: int
) -> None:
    """Failed calls may be billed."""
    async with bench() as place:
        place.cloud.fault = fault
        await place.plug()
        await place.charge(9)

    assert len(place.cloud.reads) == reads


async def test_a_spent_budget_is_waited_for_and_is_nobodys_fault() -> None:
    """No request was made: the cloud counts as reachable, and nothing is lost."""
    async with bench() as place:
        place.cloud.fault = BudgetSpent("floor", 120)
        await place.plug()
        await place.charge(3)
        place.cloud.fault = None
        await place.charge(4)

    assert place.desk.health.failures == 0
    assert abs(float(str(seen(place)["soc_start"])) - 50) < 1.5


async def test_a_car_that_says_it_is_not_plugged_in_is_not_the_one_here() -> None:
    """Its SoC is not believed, it is not asked or told anything more."""
    with capture_logs() as logs:
        async with bench(target=100.0) as place:
            place.cloud.plugged = False
            place.cloud.lag_s = 0
            await place.plug()
            await place.charge(90)

    assert place.state("car_not_at_outlet", logs) == 1
    assert len(place.cloud.reads) == 1
    assert place.cloud.commands == []
    assert place.session.soc_book.anchors == ()


# --- the charge limit ------------------------------------------------------------------


async def test_a_limit_below_the_plans_target_is_raised_confirmed_and_put_back() -> None:
    """Read before written; one read at least 5 min later; restored at the unplug."""
    with capture_logs() as logs:
        async with bench(target=95.0) as place:
            await place.plug()
            await place.charge(15)
            told = list(place.cloud.commands)
            await place.unplug()

    assert told == [("set-limit", 95.0)]
    assert (place.cloud.reads[1] - place.cloud.reads[0]).total_seconds() >= 300
    assert place.state("car_limit_confirmed", logs) == 1
    assert place.cloud.commands[-1] == ("set-limit", 80.0)
    assert place.store.kept == {}


async def test_a_limit_that_suits_the_plan_is_left_as_it_is() -> None:
    """And nothing is to be put back."""
    async with bench(target=80.0) as place:
        await place.plug()
        await place.charge(15)
        await place.unplug()

    assert place.cloud.commands == []


async def test_a_limit_is_lowered_for_the_battery_where_the_operator_wants_it() -> None:
    """80 % unless the plan says more."""
    async with bench(target=60.0, limits=LimitRules(care_percent=80.0)) as place:
        place.cloud.limit = 100.0
        await place.plug()
        await place.charge(15)

    assert place.cloud.commands == [("set-limit", 80.0)]


async def test_somebody_else_who_changes_the_limit_is_overruled_once_and_never_again() -> (
    None
):
    """Then it is said, left, and not put back either."""
    with capture_logs() as logs:
        async with bench(target=95.0) as place:
            await place.plug()
            await place.charge(4)
            place.cloud.limit = 60.0
            await place.charge(8)
            place.cloud.limit = 60.0
            await place.charge(100)
            await place.status(ConnectorStatus.SUSPENDED_EV)
            await place.charge(10, 0.0)
            await place.unplug()

    assert place.cloud.commands == [("set-limit", 95.0), ("set-limit", 95.0)]
    assert place.state("car_limit_left", logs) == 1
    assert place.cloud.limit == 60


async def test_a_limit_is_put_back_after_a_restart_and_an_outage() -> None:
    """It is on disk before the command leaves; a refusal is tried again later."""
    store, clock = MemoryStore(), HandClock()
    cloud = FakeCloud(clock)
    async with bench(store, clock, cloud, target=95.0) as first:
        await first.plug()
        await first.charge(5)
        await first.unplug_without_look()
    with capture_logs() as logs:
        async with bench(store, clock, cloud, target=95.0) as second:
            second.depot.states = first.depot.states
            cloud.outcomes = [ASLEEP, UNKNOWN]
            for _ in range(40):
                clock.move(600)
                await second.settle()

    assert second.state("car_limit_restored", logs) == 1
    assert cloud.limit == 80
    assert [item for item in cloud.commands if item[1] == 80] == [("set-limit", 80.0)] * 3


async def test_a_lost_answer_still_ends_with_the_drivers_own_limit() -> None:
    """Unknown is treated as changed."""
    async with bench(target=95.0) as place:
        place.cloud.outcomes = [UNKNOWN]
        await place.plug()
        await place.charge(4)
        await place.unplug()

    assert place.cloud.commands == [("set-limit", 95.0), ("set-limit", 80.0)]


async def test_a_refused_limit_is_not_put_back() -> None:
    """Nothing was changed."""
    refused = CommandOutcome(outcome=Outcome.REFUSED, code="PERMISSION")
    async with bench(target=95.0) as place:
        place.cloud.outcomes = [refused]
        await place.plug()
        await place.charge(10)
        await place.unplug()

    assert place.cloud.commands == [("set-limit", 95.0)]
    assert place.store.kept == {}


async def test_a_car_that_comes_back_before_its_limit_is_restored_keeps_the_drivers() -> (
    None
):
    """What was the driver's own is not forgotten over a second session."""
    async with bench(target=95.0) as place:
        await place.plug()
        await place.charge(5)
        place.cloud.outcomes = [ASLEEP] * 2
        await place.unplug()
        place.clock.move(60)
        await place.plug()
        await place.charge(20)
        place.cloud.outcomes = []
        await place.unplug()
        place.clock.move(3600)
        await place.settle()

    assert place.cloud.limit == 80


@pytest.mark.parametrize("asks", [True, False])
async def test_where_the_station_gives_soc_a_limit_is_found_when_the_car_stops_early(
    *, asks: bool
) -> None:
    """Only where the operator allows that one read; then the limit is raised."""
    async with bench(target=95.0) as place:
        place.cars.sights.asks_why_stopped = asks
        await place.plug()
        await place.charge(5, soc=79.0)
        await place.status(ConnectorStatus.SUSPENDED_EV)
        await place.charge(6, 0.0, soc=80.0)

    assert len(place.cloud.reads) == int(asks)
    assert place.cloud.commands == [("set-limit", 95.0)] * asks


# --- start and stop --------------------------------------------------------------------


async def test_a_start_is_confirmed_on_the_stations_meter() -> None:
    """The last rung of the wake ladder; ``explain`` hears of the answer."""
    with capture_logs() as logs:
        async with bench() as place:
            await place.plug()
            await place.charge(3, 0.0)
            place.ask_start()
            await place.settle()
            await place.charge(2)

    assert place.cloud.commands == [("start", None)]
    assert place.answers == ["accepted"]
    assert place.state("car_command_confirmed", logs) == 1
    assert place.state("car_command_not_confirmed", logs) == 0


async def test_a_start_that_the_meter_does_not_show_is_told_and_not_repeated() -> None:
    """A success status is an acknowledgement, not an outcome."""
    with capture_logs() as logs:
        async with bench() as place:
            place.cloud.outcomes = [UNKNOWN]
            await place.plug()
            await place.charge(3, 0.0)
            place.ask_start()
            await place.settle()
            await place.charge(10, 0.0)

    assert place.cloud.commands == [("start", None)]
    assert place.state("car_command_not_confirmed", logs) == 1


async def test_a_make_that_would_ignore_its_limit_is_not_started() -> None:
    """Ford with timers of its own, or with timers nobody knows of."""
    async with bench(make="Ford") as place:
        await place.plug()
        could = place.cars.could_wake(place.session.session_id)
        place.ask_start()
        await place.settle()

    assert could is False
    assert place.cloud.commands == []
    assert "timers" in place.answers[0]


async def test_a_car_whose_cloud_offers_no_start_cannot_be_woken_by_it() -> None:
    """The wake ladder is told from memory."""
    async with bench() as place:
        await place.plug()
        await place.charge(2)
        can = place.cars.could_wake(place.session.session_id)
        place.lacks = frozenset({"start"})
        await place.cars.load()
        cannot = place.cars.could_wake(place.session.session_id)

    assert can is True
    assert cannot is False


# --- goals -----------------------------------------------------------------------------

FORM = ProfileForm(unit=RateUnit.WATT, phases=3, periods_max=10, stack_level=1)
ASKED = Wish(
    line=constant(11_000.0),
    window=PowerWindow(min_w=4_000.0, max_w=22_000.0, can_pause=False),
    source="plan",
    rules=("plan",),
)


async def test_a_session_ends_at_its_prepaid_energy_and_stays_there() -> None:
    """The ordinary power path gives it nothing more, and says why."""
    with capture_logs() as logs:
        async with bench() as place:
            await place.plug()
            goal = ChargeGoal(set_at=NOW, source="prepaid", energy_wh=2_000.0)
            known = await place.keeper.set_goal(place.session.session_id, goal)
            await place.charge(5)
            before = goals.with_goal(place.session, ASKED, FORM, place.clock.now())
            await place.charge(7)
            after = goals.with_goal(place.session, ASKED, FORM, place.clock.now())

    assert known is True
    assert value_at(before.line, NOW_S) == 11_000
    assert value_at(after.line, NOW_S) == 0
    assert after.window.can_pause
    assert "2.0 kWh (prepaid) is reached" in after.rules[-1]
    assert place.state("charge_goal_reached", logs) == 1
    assert seen(place)["goal"]


async def test_a_vehicle_that_draws_on_after_its_goal_is_stopped_by_its_station() -> None:
    """Only where the operator allows it; first the limit has three minutes."""
    async with bench(goal_remote_stop=True) as place:
        await place.plug()
        goal = ChargeGoal(set_at=NOW, source="prepaid", energy_wh=1_000.0)
        await place.keeper.set_goal(place.session.session_id, goal)
        await place.charge(6, 15_000.0)
        early = list(place.stops)
        await place.charge(4, 4_000.0)

    assert early == []
    assert place.stops == [place.session.session_id]


async def test_a_goal_of_soc_is_not_reached_by_a_plans_guess() -> None:
    """Only what was measured in the session ends it."""
    async with bench(expected_soc=90.0) as place:
        place.cloud.soc = 50.0
        await place.plug()
        goal = ChargeGoal(set_at=NOW, source="operator", soc_percent=60.0)
        await place.keeper.set_goal(place.session.session_id, goal)
        await place.charge(1)
        guessed = goals.reached(place.session, place.clock.now())
        await place.charge(3)
        place.cloud.soc = None
        await place.charge(50)

    assert guessed is None
    assert place.session.goal_reached_at is not None
    minutes = (place.session.goal_reached_at - NOW).total_seconds() / 60
    assert 30 <= minutes <= 45


# --- by command -----------------------------------------------------------------------


def operations(place: Bench) -> CarOperations:
    """What an operator may ask."""

    async def budget_of(_: str) -> dict[str, object]:
        return {"reads_left": 400, "commands_left": 450}

    return CarOperations(cars=place.cars, budget_of=budget_of)


VIN = {"vin": "wvwzzze1zmp012345"}


async def test_an_operators_limit_is_read_before_and_left_alone_after() -> None:
    """Neither overruled nor put back."""
    async with bench(target=95.0) as place:
        place.cloud.limit = 95.0
        await place.plug()
        told = await operations(place).limit({**VIN, "percent": 60})
        await place.charge(20)
        await place.unplug()

    assert isinstance(told, dict)
    assert told["before"] == 95
    assert len(place.cloud.reads) >= 1
    assert place.cloud.commands == [("set-limit", 60.0)]


async def test_a_car_that_is_not_plugged_in_is_not_told_anything() -> None:
    """It may stand anywhere."""
    async with bench() as place:
        found = operations(place)
        for call in (found.start, found.stop, found.read):
            with pytest.raises(OperationRefused, match="not plugged in"):
                await call(VIN)
        with pytest.raises(OperationRefused, match=r"no .*VIN"):
            await found.start({"vin": "OTHER"})

    assert place.cloud.commands == []
    assert place.cloud.reads == []


async def test_the_list_shows_soc_with_age_and_what_is_left_and_asks_nobody() -> None:
    """From memory."""
    async with bench() as place:
        await place.plug()
        await place.charge(5)
        place.clock.move(600)
        (row,) = await operations(place).list({})

    assert len(place.cloud.reads) == 1
    assert row["vin"] == "WVWZZZE1ZMP012345"
    assert float(str(row["soc_age_s"])) > 600
    assert row["limit_percent"] == 80
    assert row["budget"] == {"reads_left": 400, "commands_left": 450}


async def test_a_goal_by_command_is_checked_and_needs_an_open_session() -> None:
    """Wrong words never reach the session."""
    async with bench() as place:
        await place.plug()
        found = GoalOperations(keeper=place.keeper, clock=place.clock)
        session_id = place.session.session_id
        told = await found.set({"session": session_id, "energy_kwh": 20})
        with pytest.raises(OperationRefused, match="an energy, a SoC"):
            await found.set({"session": session_id})
        with pytest.raises(OperationRefused, match="no session"):
            await found.set({"session": "S99", "soc_percent": 80})
        kept = place.session.goal
        await found.set({"session": session_id, "clear": True})

    assert told == {"session_id": session_id, "goal": "20.0 kWh"}
    assert kept is not None
    assert kept.energy_wh == 20_000
    assert place.session.goal is None


# --- what a night teaches ----------------------------------------------------------------


async def test_a_finished_session_teaches_the_next_one() -> None:
    """The battery is smaller than the registry says: the second session knows it."""
    store, clock = MemoryStore(), HandClock()
    async with bench(store, clock, target=100.0) as place:
        place.cloud.limit = 100.0
        await place.plug()
        await place.charge(60)
        place.cloud.soc = 50.0 + 11.0 * 0.9 / 0.54  # 54 instead of 60 kWh
        await place.charge(2)
        while len(place.cloud.reads) < 2:
            await place.charge(10)
        await place.unplug()
    async with bench(store, clock) as again:
        clock.move(3600)
        await again.plug()
        await again.settle()

    assert place.session.battery is not None
    assert again.session.battery is not None
    ratio = again.session.battery.points_per_wh / place.session.battery.points_per_wh
    assert 0.9 < ratio < 1.1
    assert ratio != 1
    assert again.session.battery.spread < place.session.battery.spread
    assert store.kept["soc-learned", "car-1:ac"]["sessions"] == 1
