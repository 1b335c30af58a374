"""The last rung: a vehicle is started by its own cloud, when nothing else helped."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.control.depot import Depot, Policy
from agent.control.minder import Minder
from agent.control.wishes import Wish
from agent.domain.capability import StationTraits
from agent.domain.curve import constant
from agent.domain.identity import MatchOutcome
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    Outlet,
    SessionId,
    StationId,
    TransactionId,
)
from agent.domain.meter import MeterState
from agent.domain.plan import AfterPlan, PowerWindow
from agent.domain.session import Session, Transaction
from agent.domain.wake import WakeAction
from tests.unit.domain.build import NOW, after

CP = StationId("CP-1")
OUTLET: Outlet = (CP, EvseId(1))
ASKED = Wish(
    line=constant(40_000.0),
    window=PowerWindow(min_w=3000.0, max_w=40_000.0, can_pause=True),
    source="plan",
    rules=(),
)


def a_minder() -> Minder:
    policy = Policy(
        cap_w=1e6,
        efficiency=1.0,
        unmatched_w=1.0,
        unplanned_w=1.0,
        after_plan=AfterPlan.HOLD_MINIMUM,
        plan_max_age=timedelta(days=1),
    )
    traits = StationTraits(rated_w=150_000.0, fallback_w=4_000.0)
    return Minder(Depot(policy=policy, traits={CP: traits}))


def a_session(at_s: float, power_w: float = 0.0) -> Session:
    return Session(
        session_id=SessionId("S1"),
        station_id=CP,
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        ocpp_version="ocpp1.6",
        plugged_at=NOW,
        started_at=NOW,
        match=MatchOutcome.UNIQUE,
        transactions=(
            Transaction(key="7", transaction_id=TransactionId("7"), started_at=NOW),
        ),
        meter=MeterState(power_w=power_w, power_at=after(at_s), soc_percent=40.0),
    )


def watch(minder: Minder, from_s: int, to_s: int, power_w: float = 0.0) -> list[WakeAction]:
    """Look every 10 s at a vehicle that was paused until now; the rungs taken."""
    taken = []
    for at_s in range(from_s, to_s, 10):
        now = after(at_s)
        session = a_session(at_s, power_w)
        minder.adjust(OUTLET, session, ASKED, now)  # ends a step whose time is over
        step = minder.observe(OUTLET, session, ASKED, 40_000.0, now)
        taken += [step] if step is not None else []
    return taken


def paused(minder: Minder) -> None:
    minder.observe(OUTLET, a_session(0), ASKED, 0.0, NOW)


def test_without_a_cloud_of_the_vehicles_nobody_asks_one() -> None:
    minder = a_minder()
    paused(minder)

    taken = watch(minder, 10, 900)

    assert WakeAction.TOGGLE in taken
    assert WakeAction.CLOUD not in taken
    assert minder.take_car_starts() == []


def test_after_the_stations_rungs_the_vehicles_cloud_is_asked_once() -> None:
    minder = a_minder()
    minder.wake_by_car = lambda session_id: session_id == "S1"
    paused(minder)

    taken = watch(minder, 10, 900)
    is_told = minder.car_asked.is_set()
    wanted = minder.take_car_starts()

    assert taken[-1] is WakeAction.CLOUD
    assert taken.count(WakeAction.CLOUD) == 1
    assert is_told
    assert wanted == [OUTLET]
    assert minder.take_car_starts() == []
    assert not minder.car_asked.is_set()


def test_a_vehicle_that_resumed_or_left_meanwhile_is_not_started() -> None:
    for ends in ("resumed", "left"):
        minder = a_minder()
        minder.wake_by_car = lambda _: True
        paused(minder)
        watch(minder, 10, 900)
        if ends == "resumed":
            watch(minder, 900, 1000, power_w=30_000.0)
        else:
            minder.gone(OUTLET)

        assert minder.take_car_starts() == []


def test_a_car_without_a_session_is_nobodys_business() -> None:
    minder = a_minder()
    minder.wake_by_car = lambda session_id: session_id == "another"
    minder.depot.policy = replace(minder.depot.policy, wake_restart=True)
    paused(minder)

    taken = watch(minder, 10, 900)

    assert WakeAction.RESTART in taken
    assert WakeAction.CLOUD not in taken
