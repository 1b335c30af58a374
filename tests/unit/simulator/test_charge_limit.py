"""A vehicle's own limit, stop and start, and stations that learn no state of charge."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.simulator.clock import ScaledClock
from agent.simulator.hardware import Outlet
from agent.simulator.metering import MEASURANDS, samples
from agent.simulator.night import Night
from agent.simulator.scenario_file import ScenarioError, read_scenario
from agent.simulator.telematics import Telematics
from agent.simulator.vehicle import VirtualVehicle

EVENING = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
NOTHING: frozenset[str] = frozenset()


def a_van(**changes: Any) -> VirtualVehicle:
    facts: dict[str, Any] = {
        "name": "Van",
        "mac": "92D50A693F80",
        "capacity_wh": 60_000,
        "soc_percent": 50.0,
        "max_w": 60_000,
    }
    return VirtualVehicle(**{**facts, **changes})


@given(
    soc=st.floats(0, 100),
    limit=st.floats(0, 100),
    steps=st.lists(st.floats(1, 3000), min_size=1, max_size=30),
)
def test_it_charges_to_its_limit_and_never_beyond(
    soc: float, limit: float, steps: list[float]
) -> None:
    van = a_van(soc_percent=soc, limit_percent=limit)
    for dt_s in steps:
        van.step(dt_s, 60_000)
        assert soc <= van.soc_percent <= max(soc, limit)
    assert van.is_full == (van.soc_percent >= limit)
    assert van.accepts(60_000) == (van.soc_percent < limit)


def test_a_raised_limit_lets_it_go_on_and_a_wrong_one_is_refused() -> None:
    van = a_van(limit_percent=55.0)
    van.step(3600, 60_000)
    assert van.soc_percent == pytest.approx(55.0)
    van.set_limit(60)
    van.step(3600, 60_000)
    assert van.soc_percent == pytest.approx(60.0)
    with pytest.raises(ValueError, match="not 0 to 100"):
        van.set_limit(101)


def test_stopped_by_its_cloud_it_draws_nothing_until_started_or_plugged_in_again() -> None:
    van = a_van()
    for begin_again in (van.start, van.replug):
        van.stop()
        assert van.step(600, 60_000) == 0
        assert van.wanted_w == 0
        begin_again()
        assert van.step(600, 60_000) > 0


def test_a_start_wakes_what_slept_after_a_long_pause() -> None:
    van = a_van(can_resume=False, min_w=1400.0)
    van.step(600, 0)
    assert van.step(60, 60_000) == 0
    van.start()
    assert van.step(60, 60_000) > 0


def test_a_silent_vehicle_or_station_tells_no_state_of_charge() -> None:
    outlet = Outlet(connector=1, rated_w=60_000, vehicle=a_van())
    told = [
        each.measurand for name in MEASURANDS for each in samples(outlet, name, NOTHING)
    ]
    assert "SoC" in told
    assert samples(outlet, "SoC", frozenset({"no-soc"})) == []
    outlet.vehicle = a_van(tells_soc=False)
    assert samples(outlet, "SoC", NOTHING) == []
    assert outlet.soc_percent == 50.0


def test_its_maker_sees_it_only_plugged_into_its_own_outlet() -> None:
    outlet = Outlet(connector=1, rated_w=60_000, power_w=30_000, offered_w=40_000)
    van = a_van()
    link = Telematics(van, outlet)
    outlet.vehicle = a_van()
    assert (link.is_plugged, link.power_w, link.offered_w) == (False, 0.0, 0.0)
    outlet.vehicle = van
    assert (link.is_plugged, link.power_w, link.offered_w) == (True, 30_000, 40_000)
    link.set_limit(70)
    link.stop()
    assert (van.limit_percent, van.is_stopped, link.soc_percent) == (70, True, 50.0)


def a_scenario(**changes: Any) -> dict[str, Any]:
    van = {
        "id": "van", "mac": "92D50A693F80", "station": "CP-1", "arrival": 5, "departure": 50,
        "battery_kwh": 60, "max_kw": 60, "soc_start": 40,
    }  # fmt: skip
    return {
        "minutes": 60,
        "stations": [{"id": "CP-1", "outlet_kw": 60}],
        "vehicles": [van | changes],
    }


def test_a_scenario_file_may_limit_a_vehicle_and_keep_its_state_of_charge_secret() -> None:
    scenario = read_scenario(a_scenario(limit=70, tells_soc=False), EVENING)
    night = Night(scenario, ScaledClock(EVENING), "ws://127.0.0.1:1")
    (plan,) = scenario.vehicles
    van = night.vehicles[plan]
    assert (van.limit_percent, van.tells_soc) == (70.0, False)
    (usual,) = read_scenario(a_scenario(), EVENING).vehicles
    assert (usual.limit_percent, usual.tells_soc) == (100.0, True)
    with pytest.raises(ScenarioError, match="limit must be above 0"):
        read_scenario(a_scenario(limit=0), EVENING)
