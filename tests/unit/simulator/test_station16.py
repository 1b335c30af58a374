"""Virtual 1.6 stations against a tiny central system on loopback."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.simulator.clock import ScaledClock, parse_stamp, stamp
from agent.simulator.hardware import Outlet
from agent.simulator.station16 import VirtualStation16
from agent.simulator.station_config import LateMac, StationConfig, id_token
from agent.simulator.vehicle import VirtualVehicle
from tests.unit.simulator.tiny_central import TinyCentral, a_central

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
MAC = "92D50A693F80"
SPEED = 600.0


def a_bus(**changes: Any) -> VirtualVehicle:
    facts: dict[str, Any] = {
        "name": "Bus 1",
        "mac": MAC,
        "capacity_wh": 400_000,
        "soc_percent": 30.0,
        "max_w": 120_000,
        "min_w": 3_000,
    }
    return VirtualVehicle(**{**facts, **changes})


@asynccontextmanager
async def a_station(
    central: TinyCentral, *faults: str, speed: float = SPEED, **changes: Any
) -> AsyncIterator[VirtualStation16]:
    config = StationConfig(
        station_id="CP-1",
        url=central.url,
        **{
            "faults": frozenset(faults),
            "backoff_first_real_s": 0.02,
            "slow_answer_real_s": 0.05,
            **changes,
        },
    )
    station = VirtualStation16(config, ScaledClock(START, speed))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(station.run())
        try:
            await station.wait_until(lambda each: each.is_online, 5)
            yield station
        finally:
            station.stop()


async def charging(station: VirtualStation16, **changes: Any) -> Outlet:
    await station.plug(1, a_bus(**changes))
    outlet = station.outlets[1]
    await station.wait_until(
        lambda _: outlet.transaction_id is not None and outlet.power_w > 1000, 5
    )
    return outlet


def a_profile(watts: float, purpose: str = "TxProfile", **changes: Any) -> Any:
    body: dict[str, Any] = {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "chargingRateUnit": "W",
            "startSchedule": stamp(START - timedelta(hours=1)),
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": watts}],
        },
    }
    if purpose == "TxProfile":
        body["transactionId"] = 1
    return {**body, **changes}


async def set_profile(central: TinyCentral, body: Any, connector: int = 1) -> str:
    frame = await central.call(
        "SetChargingProfile", {"connectorId": connector, "csChargingProfiles": body}
    )
    return str(frame[2]["status"])


async def test_a_night_at_one_plug_goes_from_boot_to_a_closed_transaction():
    """Boot, status, authorize, start, meter values, a lower limit, unplug, stop."""
    async with a_central() as central, a_station(central, password="secret") as station:
        outlet = await charging(station)
        await station.wait_until(lambda _: outlet.power_w > 119_000, 5)
        await central.until(lambda: len(central.of("MeterValues")) >= 2)

        assert await set_profile(central, a_profile(40_000)) == "Accepted"
        await station.wait_until(lambda _: 1_000 < outlet.power_w <= 40_000, 5)
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1:] == ["Available"])

    first = next(action for action, _ in central.calls)
    start = central.of("StartTransaction")[0]
    stop = central.of("StopTransaction")[0]
    assert first == "BootNotification"
    assert central.headers == ["Basic " + base64.b64encode(b"CP-1:secret").decode()]
    assert central.of("Authorize") == [{"idTag": f"VID:{MAC}"}]
    assert (start["connectorId"], start["meterStart"]) == (1, 0)
    assert (stop["transactionId"], stop["reason"]) == (1, "EVDisconnected")
    assert stop["meterStop"] == int(outlet.energy_wh) > 0
    assert [each["sampledValue"][0]["context"] for each in stop["transactionData"]] == [
        "Transaction.Begin",
        "Transaction.End",
    ]
    assert central.statuses() == [
        "Available",
        "Preparing",
        "Charging",
        "Finishing",
        "Available",
    ]
