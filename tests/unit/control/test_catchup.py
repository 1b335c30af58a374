"""A vehicle behind its plan: what it may draw, what is said, how often it changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog

from agent.control.catchup import CatchUp
from agent.control.wishes import Wish
from agent.domain.account import Account
from agent.domain.curve import curve, value_at
from agent.domain.ids import ScheduleId, VehicleId
from agent.domain.plan import PowerWindow, Schedule
from tests.unit.control.test_minder import OUTLET, a_minder, a_session
from tests.unit.domain.build import NOW, NOW_S, a_plan, a_segment, after

PLAN = a_plan(
    a_segment(-3600, 1800, 30_000.0),
    a_segment(1800, 3600, 0.0, paused=True),
    a_segment(3600, 7200, 30_000.0),
)
HALF, HOUR, END = NOW_S + 1800, NOW_S + 3600, NOW_S + 7200
LINE = curve([(NOW_S - 3600, 30_000.0), (HALF, 0.0), (HOUR, 30_000.0), (END, 0.0)])
SCHEDULE = Schedule(
    schedule_id=ScheduleId("SLOT-1"),
    vehicle_id=VehicleId("BUS-1"),
    location_uid="depot-1",
    arrives_at=after(-7200),
    departs_at=after(9000),
    plan=PLAN,
)
ASKED = Wish(
    line=LINE,
    window=PowerWindow(min_w=3000.0, max_w=90_000.0, can_pause=True),
    source="plan",
    rules=("the plan",),
)
SESSION = a_session(0)


def catching(*, allowed: bool = True) -> CatchUp:
    depot = a_minder().depot
    depot.policy = replace(depot.policy, catch_up=allowed)
    return CatchUp(depot)


def behind(made: CatchUp, wh: float, needed_wh: float = 100_000.0) -> None:
    made.depot.accounts[SESSION.session_id] = Account(
        at=NOW, behind_wh=wh, needed_wh=needed_wh, departs_at=SCHEDULE.departs_at
    )


def adjusted(made: CatchUp, now: datetime = NOW, asked: Wish = ASKED) -> Wish:
    return made.adjust(OUTLET, SESSION, SCHEDULE, asked, now)


def test_the_next_segments_are_lifted_and_the_plan_stays_what_it_was() -> None:
    made = catching()
    behind(made, 10_000.0)

    found = adjusted(made)

    assert value_at(found.line, NOW_S) == 90_000.0
    assert value_at(found.line, NOW_S + 700) == 30_000.0  # 10 kWh are made up by then
    assert value_at(found.line, NOW_S + 2000) == 0.0
    assert found.plan_line == LINE
    assert (
        "up to 90.0 kW in the plan's own segments from now until 18:10" in found.rules[-1]
    )


def test_what_one_segment_cannot_make_up_is_left_to_the_next_one() -> None:
    made = catching()
    behind(made, 40_000.0)

    found = adjusted(made)

    assert value_at(found.line, NOW_S + 1700) == 90_000.0
    assert value_at(found.line, NOW_S + 1900) == 0.0
    assert value_at(found.line, NOW_S + 3700) == 90_000.0
    assert value_at(found.line, NOW_S + 7300) == 0.0


def test_without_the_policy_the_plan_is_not_exceeded_and_explain_says_so() -> None:
    made = catching(allowed=False)
    behind(made, 10_000.0)

    found = adjusted(made)

    assert (found.line, found.plan_line) == (LINE, None)
    assert "10 kWh behind the plan" in found.rules[-1]
    assert "policy.catch_up" in found.rules[-1]


def test_never_more_than_is_missing_and_nothing_for_noise() -> None:
    made = catching()
    behind(made, 10_000.0, needed_wh=400.0)
    assert adjusted(made) == ASKED
    behind(made, 300.0)
    assert adjusted(made) == ASKED


def test_a_lifted_plan_stays_for_ten_minutes_whatever_the_meter_says() -> None:
    """Each new curve would be a write to the station's flash."""
    made = catching()
    behind(made, 30_000.0)
    first = adjusted(made).line
    behind(made, 29_000.0)
    later = adjusted(made, after(300)).line
    renewed = adjusted(made, after(601)).line

    assert later == first
    assert renewed != first


def test_a_new_plan_is_lifted_at_once() -> None:
    made = catching()
    behind(made, 10_000.0)
    adjusted(made)
    new = replace(ASKED, line=curve([(NOW_S - 60, 20_000.0), (NOW_S + 1800, 0.0)]))

    found = adjusted(made, after(60), new)

    assert value_at(found.line, NOW_S + 60) == 90_000.0
    assert found.plan_line == new.line


def test_begin_and_end_are_told_once() -> None:
    made = catching()
    found = ASKED
    with structlog.testing.capture_logs() as logs:
        for at_s, missing_wh in ((0, 9000.0), (700, 4000.0), (900, 100.0), (930, 0.0)):
            behind(made, missing_wh)
            found = adjusted(made, after(at_s))

    assert [row["event"] for row in logs] == ["catch_up_began", "catch_up_ended"]
    assert found == ASKED


def test_what_no_cloud_planned_is_left_alone() -> None:
    made = catching()
    behind(made, 10_000.0)
    asked = replace(ASKED, source="unplanned")

    assert adjusted(made, asked=asked) == asked
