"""Buses as depots know them: one that sleeps, one that is heated, one that is too late.

Each: what the log, ``explain`` and the session record say.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.demo import EVENING
from agent.simulator.vehicle import VirtualVehicle
from agent.standin.fixtures import schedule_json, vehicle_json
from tests.support.yard import Yard, yard

ONE = [{"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}]
MAC = "04E77E00F0AA"
Pieces = list[tuple[float, float, float]]


def a_bus(soc: float = 20.0, *, wakes: bool = True) -> VirtualVehicle:
    return VirtualVehicle(
        name="bus-a",
        mac=MAC,
        capacity_wh=300_000.0,
        soc_percent=soc,
        max_w=140_000.0,
        min_w=3_000.0,
        can_resume=wakes,
    )


def expect_bus(
    place: Yard, pieces: Pieces | None, *, departs_h: float, vehicle: dict[str, Any]
) -> None:
    """Let the cloud know the bus, its slot and its plan (None: no plan at all)."""
    frozen = {"frozen": True, "timestamp": EVENING.isoformat()}
    row: dict[str, Any] = {"id": "slot-a", "plan": None, "planMeta": frozen}
    if pieces is not None:
        row["plan"] = place.slot(1, pieces)["plan"]
    departure = EVENING + timedelta(hours=departs_h)
    place.cloud.load(
        vehicles=[vehicle_json("bus-a", vehicle, macs=[MAC], power_kw=(5, 140))],
        schedules=[schedule_json("bus-a", EVENING, departure, row, socs=(20.0, 90.0))],
    )


def explained(place: Yard) -> str:
    found = place.daemon.explain("CP-01", 1)
    assert found is not None
    return str(found["because"]) + str(found["history"])


def told(logs: list[Any], event: str) -> list[Any]:
    return [row for row in logs if row["event"] == event]


@pytest.mark.slow
async def test_c15_a_bus_that_does_not_wake_is_noticed_within_five_minutes(
    tmp_path: Path,
) -> None:
    """C15: it may pause by its registry entry, and does not resume."""
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE) as place:
            pieces = [(-1, 0.2, 60.0), (0.2, 0.5, 0.0), (0.5, 9, 60.0)]
            expect_bus(place, pieces, departs_h=11, vehicle={})
            station = place.station("CP-01")
            await place.until(lambda: station.is_online)
            await station.plug(1, a_bus(wakes=False))
            await place.until(lambda: bool(told(logs, "vehicle_not_resumed")), 60)
            noticed_h = (place.clock.now() - EVENING).total_seconds() / 3600
            words = explained(place)
            await place.until(lambda: bool(place.sessions()[0].anomalies))
            (session,) = place.sessions()

    assert 0.5 < noticed_h <= 0.5 + 5.2 / 60
    assert [row["step"] for row in told(logs, "wake_step_taken")][:2] == [
        "re-send",
        "minimum-power",
    ]
    assert "to wake the vehicle" in words
    assert any("did not resume" in text for text in session.anomalies)


@pytest.mark.slow
async def test_a_bus_that_preconditions_keeps_its_power_before_departure(
    tmp_path: Path,
) -> None:
    """EV-15: the plan is over, the window before departure is held open."""
    heated = {"minPreconditioningPowerkW": 12.0}
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE) as place:
            expect_bus(place, [(-1, 0.3, 60.0), (0.3, 1, 0.0)], departs_h=1, vehicle=heated)
            station = place.station("CP-01")
            await place.until(lambda: station.is_online)
            await station.plug(1, a_bus(soc=60.0))
            await place.until(lambda: station.outlets[1].power_w > 50_000)
            await place.until(lambda: place.clock.now() >= place.at(0.42))
            paused_w = station.outlets[1].power_w
            await place.until(lambda: place.clock.now() >= place.at(0.7))
            held_w = station.outlets[1].power_w
            words = explained(place)

    assert paused_w == 0
    assert 11_000 < held_w <= 12_100
    assert "held open" in words
    assert told(logs, "limit_not_followed") == []


async def test_a_bus_at_20_percent_with_two_hours_left_is_an_alarm_in_time(
    tmp_path: Path,
) -> None:
    """60 kW for two hours are 40 points of 300 kWh: 90 % is out of reach."""
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE) as place:
            expect_bus(place, [(-1, 2, 60.0)], departs_h=2, vehicle={})
            station = place.station("CP-01")
            await place.until(lambda: station.is_online)
            await station.plug(1, a_bus())
            await place.until(lambda: bool(told(logs, "departure_at_risk")), 30)
            noticed_h = (place.clock.now() - EVENING).total_seconds() / 3600
            await place.until(lambda: bool(place.sessions()[0].anomalies))
            (session,) = place.sessions()
            account = place.daemon.depot.accounts[session.session_id]

    assert noticed_h < 0.3
    assert "instead of 90 %" in told(logs, "departure_at_risk")[0]["reason"]
    assert account.expected_soc is not None
    assert 52 < account.expected_soc < 66
    assert any("departure at risk" in text for text in session.anomalies)


async def test_a_bus_without_a_plan_of_the_cloud_gets_one_made_here(
    tmp_path: Path,
) -> None:
    """From departure, target and battery; the cloud's own plan takes over when it comes."""
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE) as place:
            expect_bus(place, None, departs_h=10, vehicle={})
            station = place.station("CP-01")
            await place.until(lambda: station.is_online)
            await station.plug(1, a_bus())
            await place.until(lambda: bool(told(logs, "local_plan_made")), 30)
            await place.passes(0.3)
            local_w = station.outlets[1].power_w
            words = explained(place)
            source = place.daemon.depot.views["CP-01", 1].source  # type: ignore[index]
            expect_bus(place, [(-1, 9, 70.0)], departs_h=10, vehicle={})
            await place.until(lambda: station.outlets[1].power_w > 65_000)

    assert source == "local"
    assert 20_000 < local_w < 40_000
    assert "a plan made here" in words
    assert told(logs, "local_plan_dropped")


@pytest.mark.slow
async def test_a_bus_that_fell_behind_under_a_low_cap_catches_up_where_it_may(
    tmp_path: Path,
) -> None:
    """Only with ``policy.catch_up``, only in the plan's segments, under the cap."""
    with structlog.testing.capture_logs() as logs:
        async with yard(
            tmp_path, stations=ONE, policy={"catch_up": True}, speed=200.0
        ) as place:
            depot = place.daemon.depot
            wide = depot.policy.cap_w
            depot.policy = replace(depot.policy, cap_w=30_000.0)
            expect_bus(place, [(-1, 1.5, 60.0), (1.5, 9, 0.0)], departs_h=11, vehicle={})
            station = place.station("CP-01")
            await place.until(lambda: station.is_online)
            await station.plug(1, a_bus())
            await place.until(lambda: place.clock.now() > place.at(0.4))
            early_w = station.outlets[1].power_w
            depot.policy = replace(depot.policy, cap_w=wide)
            depot.changed.set()
            await place.until(lambda: station.outlets[1].power_w > 100_000)
            words = explained(place)
            await place.until(lambda: bool(told(logs, "catch_up_ended")))
            await place.until(lambda: station.outlets[1].power_w < 61_000)
            ended_h = (place.clock.now() - EVENING).total_seconds() / 3600
            after_w = station.outlets[1].power_w

    assert early_w <= 30_000
    assert "behind the plan: it may take up to" in words
    assert ended_h < 1.5
    assert 55_000 < after_w <= 60_100
