"""ISO 15118 needs and schedules, and limits of other masters, as domain values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.events import EvNeeds
from agent.stations.v2_needs import PERIODS_READ_MAX, lowest_w, read_needs, read_schedule

from .conftest import HOSTILE, JSON_VALUES, NOW
from .test_v16 import check_bounded

NOW_S = int(NOW.timestamp())


def schedule(*periods: tuple[Any, ...], unit: Any = "W", **more: Any) -> dict[str, Any]:
    """A ChargingScheduleType of (start, limit) or (start, limit, phases)."""
    names = ("startPeriod", "limit", "numberPhases")
    return {
        "id": 1,
        "chargingRateUnit": unit,
        "chargingSchedulePeriod": [
            dict(zip(names, period, strict=False)) for period in periods
        ],
    } | more


# --- needs --------------------------------------------------------------------------


def test_the_needs_of_a_dc_vehicle_are_read_whole() -> None:
    """A8: integers of 2.0.1."""
    found = read_needs(
        {
            "evseId": 1,
            "maxScheduleTuples": 12,
            "chargingNeeds": {
                "requestedEnergyTransfer": "DC",
                "departureTime": "2026-01-16T05:00:00Z",
                "dcChargingParameters": {
                    "evMaxCurrent": 200,
                    "evMaxVoltage": 400,
                    "evMaxPower": 60_000,
                    "energyAmount": 40_000,
                    "evEnergyCapacity": 300_000,
                    "stateOfCharge": 31,
                    "fullSoC": 97,
                    "bulkSoC": 80,
                },
            },
        },
        NOW,
    )

    assert found == EvNeeds(
        at=NOW,
        tuples_max=12,
        departs_at=datetime(2026, 1, 16, 5, tzinfo=UTC),
        energy_wh=40_000.0,
        capacity_wh=300_000.0,
        soc_percent=31.0,
        target_soc_percent=97.0,
        max_w=60_000.0,
        transfer="DC",
    )


def test_without_a_power_it_is_current_times_voltage() -> None:
    """The two are required, the power is not."""
    body = {"dcChargingParameters": {"evMaxCurrent": 125, "evMaxVoltage": 800}}

    assert read_needs({"chargingNeeds": body}, NOW).max_w == 100_000.0
    only = {"dcChargingParameters": {"evMaxCurrent": 125}}
    assert read_needs({"chargingNeeds": only}, NOW).max_w is None


def test_ac_and_bidirectional_needs_are_read_too() -> None:
    """2.1: numbers, and parameters of their own."""
    alternating = {"acChargingParameters": {"energyAmount": 22_000.5}}
    both_ways = {
        "v2xChargingParameters": {
            "maxChargePower": 11_000.5,
            "evTargetEnergyRequest": 33_000,
            "targetSoC": 85,
        }
    }

    assert read_needs({"chargingNeeds": alternating}, NOW).energy_wh == 22_000.5
    found = read_needs({"chargingNeeds": both_ways}, NOW)
    assert (found.max_w, found.energy_wh) == (11_000.5, 33_000.0)
    assert found.target_soc_percent == 85.0


@pytest.mark.parametrize("tuples", [0, -3, None, "x", 1.5, [], True])
def test_a_number_of_tuples_that_is_none_bounds_nothing(tuples: Any) -> None:
    """0 periods would be no schedule."""
    assert read_needs({"maxScheduleTuples": tuples}, NOW).tuples_max is None


@pytest.mark.parametrize("soc", [-1, 101, "NaN", None, {}, 1e308])
def test_a_state_of_charge_that_cannot_be_is_missing(soc: Any) -> None:
    """Percent."""
    body = {"dcChargingParameters": {"stateOfCharge": soc, "energyAmount": -1}}
    found = read_needs({"chargingNeeds": body}, NOW)

    assert (found.soc_percent, found.energy_wh) == (None, None)


# --- schedules ----------------------------------------------------------------------


def test_a_schedule_in_watts_is_a_curve_from_its_start() -> None:
    """timeBase is the start; equal neighbours are one step."""
    found = read_schedule(schedule((0, 11_000), (600, 11_000), (900, "5000.5")), NOW)

    assert found == ((NOW_S, 11_000.0), (NOW_S + 900, 5000.5))


def test_its_own_start_counts_before_any_other() -> None:
    """startSchedule of an Absolute profile."""
    body = schedule((0, 1.0), (60, 2.0), startSchedule="2026-01-15T17:00:00+01:00")
    start_s = int(datetime(2026, 1, 15, 16, tzinfo=UTC).timestamp())

    assert read_schedule(body, NOW) == ((start_s, 1.0), (start_s + 60, 2.0))


@pytest.mark.parametrize(
    ("phases", "watts"),
    [(1, 3680.0), (2, 7360.0), (3, 11_040.0), (None, 11_040.0), ("1", 3680.0),
     (0, 11_040.0), (-1, 11_040.0), (10**9, 11_040.0), ([], 11_040.0)],
)  # fmt: skip
def test_amperes_are_per_phase_and_three_are_assumed(phases: Any, watts: float) -> None:
    """Rule 7: a number of phases that cannot be says nothing."""
    assert read_schedule(schedule((0, 16, phases), unit="A"), NOW) == ((NOW_S, watts),)
    assert read_schedule(schedule((0, 16, phases)), NOW) == ((NOW_S, 16.0),)


@pytest.mark.parametrize(
    "body",
    [
        None, 7, [], {}, schedule(), schedule((0, None)), schedule((0, -1)),
        schedule((0, "NaN")), schedule((0, 1e13)), schedule((None, 5)),
        schedule((0, 5), ("x", 5)), {"chargingSchedulePeriod": [None]},
    ],
)  # fmt: skip
def test_a_schedule_with_a_hole_is_none(body: Any) -> None:
    """Half a schedule could allow too much."""
    assert read_schedule(body, NOW) is None


def test_a_schedule_is_read_up_to_what_the_standard_allows() -> None:
    """I12."""
    body = schedule(*((60 * at, at) for at in range(5000)))
    found = read_schedule(body, NOW)

    assert found is not None
    assert len(found) == PERIODS_READ_MAX


# --- other masters ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedules", "lowest"),
    [
        ([schedule((0, 9000), (60, 4000), (120, 9000))], 4000.0),
        ([schedule((0, 9000)), schedule((0, 32, 1), unit="A")], 7360.0),
        ([schedule((0, 9000)), schedule((0, None))], 9000.0),
        (schedule((0, 9000)), 9000.0),
        ([schedule((0, 0))], 0.0),
        ([], None),
        (None, None),
        ([None, "x"], None),
    ],
)
def test_the_lowest_limit_of_all_schedules_counts(
    schedules: Any, lowest: float | None
) -> None:
    """B2: lower our own budget to it, never overrule it."""
    assert lowest_w(schedules, NOW) == lowest


# --- hostile ------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_no_hostile_value_raises(value: Any) -> None:
    """What is read is finite and short."""
    groups = ("dcChargingParameters", "acChargingParameters", "v2xChargingParameters")
    fields = (
        "energyAmount", "evEnergyCapacity", "stateOfCharge", "fullSoC", "evMaxPower",
        "evMaxCurrent", "evMaxVoltage", "evTargetEnergyRequest", "targetSoC",
        "maxChargePower",
    )  # fmt: skip
    bodies: list[Any] = [value, {"departureTime": value, "requestedEnergyTransfer": value}]
    bodies += [{group: value} for group in groups]
    bodies += [{group: dict.fromkeys(fields, value)} for group in groups]
    for body in bodies:
        check_bounded(read_needs({"chargingNeeds": body, "maxScheduleTuples": value}, NOW))
    for odd in (
        schedule((value, 1.0)),
        schedule((0, value)),
        schedule((0, 1.0, value), unit="A"),
        schedule((0, 1.0), unit=value),
        schedule((0, 1.0), startSchedule=value),
    ):
        check_bounded(read_schedule(odd, NOW))
        check_bounded(lowest_w(odd, NOW))


@given(JSON_VALUES)
def test_any_value_can_be_read(value: Any) -> None:
    """Property."""
    check_bounded(read_needs({"chargingNeeds": value}, NOW))
    check_bounded(read_schedule(value, NOW))
    check_bounded(lowest_w(value, NOW))


@given(
    periods=st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(0, 1e6)), min_size=1, max_size=20
    ),
    unit=st.sampled_from(["A", "W"]),
)
def test_no_schedule_reads_below_zero(periods: list[tuple[int, float]], unit: str) -> None:
    """Property: and the lowest limit is one that it names."""
    found = read_schedule(schedule(*periods, unit=unit), NOW)

    assert found is not None
    assert all(limit_w >= 0 for _, limit_w in found)
    assert lowest_w([schedule(*periods, unit=unit)], NOW) == min(w for _, w in found)
