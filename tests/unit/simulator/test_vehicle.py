"""What a virtual vehicle draws, and what that does to its battery."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.simulator.vehicle import VirtualVehicle

STEPS = st.lists(
    st.tuples(st.floats(0.1, 900), st.floats(0, 300_000)), min_size=1, max_size=60
)


def a_vehicle(**changes: Any) -> VirtualVehicle:
    facts: dict[str, Any] = {
        "name": "Bus",
        "mac": "92D50A693F80",
        "capacity_wh": 300_000,
        "soc_percent": 50.0,
        "max_w": 100_000,
        "min_w": 5_000,
    }
    return VirtualVehicle(**{**facts, **changes})


@given(soc=st.floats(0, 100), capacity=st.floats(20_000, 500_000), steps=STEPS)
def test_state_of_charge_rises_only_and_never_above_full(
    soc: float, capacity: float, steps: list[tuple[float, float]]
) -> None:
    """Charging never discharges, and a full battery stays at 100 %."""
    vehicle = a_vehicle(soc_percent=soc, capacity_wh=capacity)
    seen = [soc]
    for dt_s, offered_w in steps:
        vehicle.step(dt_s, offered_w)
        seen.append(vehicle.soc_percent)

    assert seen == sorted(seen)
    assert seen[-1] <= 100


@given(soc=st.floats(0, 100), efficiency=st.floats(0.5, 1), steps=STEPS)
def test_energy_drawn_is_energy_stored_over_the_efficiency(
    soc: float, efficiency: float, steps: list[tuple[float, float]]
) -> None:
    """No energy appears or vanishes but by the battery's loss."""
    vehicle = a_vehicle(soc_percent=soc, efficiency=efficiency)
    drawn_wh = sum(vehicle.step(dt_s, w) * dt_s / 3600 for dt_s, w in steps)
    stored_wh = (vehicle.soc_percent - soc) / 100 * vehicle.capacity_wh

    assert stored_wh == pytest.approx(drawn_wh * efficiency, rel=1e-6, abs=0.01)


@given(soc=st.floats(0, 100), steps=STEPS)
def test_draws_never_more_than_offered_nor_than_its_maximum(
    soc: float, steps: list[tuple[float, float]]
) -> None:
    """The offer is a ceiling, and so is the vehicle's own power."""
    vehicle = a_vehicle(soc_percent=soc)
    for dt_s, offered_w in steps:
        drawn_w = vehicle.step(dt_s, offered_w)

        assert 0 <= drawn_w <= min(offered_w, vehicle.max_w)
        assert drawn_w == 0 or offered_w >= vehicle.min_w


def test_below_its_minimum_it_draws_nothing_and_resumes_later():
    """4.9 kW is too little for a vehicle that needs 5; 5 kW is enough."""
    vehicle = a_vehicle()

    assert vehicle.step(600, 4_900) == 0
    assert vehicle.step(600, 5_000) > 4_900


def test_one_that_cannot_resume_sleeps_after_a_long_pause_until_replugged():
    """Five minutes of nothing put it to sleep; only the plug wakes it."""
    vehicle = a_vehicle(can_resume=False)
    vehicle.step(300, 0)
    awake_w = vehicle.step(10, 50_000)
    vehicle.step(301, 0)
    asleep_w = vehicle.step(10, 50_000)
    vehicle.replug()

    assert awake_w > 0
    assert asleep_w == 0
    assert vehicle.step(10, 50_000) > 0


def test_power_falls_linearly_above_eighty_percent_to_a_tenth():
    """Constant power first, half of the fall at 90 %, a tenth just before full."""
    wants = [a_vehicle(soc_percent=soc).wanted_w for soc in (79, 80, 90, 99.999, 100)]

    assert wants == pytest.approx([100_000, 100_000, 55_000, 10_000, 0], abs=10)


def test_power_rises_by_its_ramp_and_falls_at_once():
    """10 kW a second up from nothing takes ten seconds; down takes none."""
    vehicle = a_vehicle(ramp_w_per_s=10_000)

    assert vehicle.step(10, 200_000) == pytest.approx(50_000)
    assert vehicle.step(10, 200_000) == pytest.approx(100_000)
    assert vehicle.step(1, 20_000) == pytest.approx(20_000)


@pytest.mark.parametrize(
    "wrong", [{"capacity_wh": 0}, {"soc_percent": 101}, {"efficiency": 0}]
)
def test_an_impossible_vehicle_is_refused(wrong: dict[str, float]):
    """A battery without size, more than full, or without efficiency."""
    with pytest.raises(ValueError, match="Bus"):
        a_vehicle(**wrong)
