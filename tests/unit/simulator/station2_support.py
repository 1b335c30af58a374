"""What the tests of virtual 2.x stations build from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.simulator.clock import ScaledClock, stamp
from agent.simulator.hardware import Outlet
from agent.simulator.station2 import VirtualStation2
from agent.simulator.station_config import StationConfig
from agent.simulator.vehicle import VirtualVehicle
from tests.unit.simulator.tiny_central2 import TinyCentral2, a_central2

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
MAC = "92D50A693F80"
SPEED = 600.0
VERSIONS = ("2.0.1", "2.1")


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
async def a_station2(
    central: TinyCentral2, *faults: str, speed: float = SPEED, **changes: Any
) -> AsyncIterator[VirtualStation2]:
    config = StationConfig(
        station_id="CP-1",
        url=central.url,
        **{
            "ocpp_version": central.version,
            "faults": frozenset(faults),
            "backoff_first_real_s": 0.02,
            "slow_answer_real_s": 0.05,
            **changes,
        },
    )
    station = VirtualStation2(config, ScaledClock(START, speed))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(station.run())
        try:
            await station.wait_until(lambda each: each.is_online, 5)
            yield station
        finally:
            station.stop()


@asynccontextmanager
async def a_pair(
    *faults: str, version: str = "2.0.1", **changes: Any
) -> AsyncIterator[tuple[TinyCentral2, VirtualStation2]]:
    """A central system and a station that was accepted by it."""
    async with (
        a_central2(version) as central,
        a_station2(central, *faults, **changes) as station,
    ):
        yield central, station


async def charging(station: VirtualStation2, **changes: Any) -> Outlet:
    """Plug a bus in and wait until it charges."""
    await station.plug(1, a_bus(**changes))
    outlet = station.outlets[1]
    await station.wait_until(
        lambda _: outlet.transaction_id is not None and outlet.power_w > 1000, 5
    )
    return outlet


def a_profile2(
    *limits: float, purpose: str = "TxProfile", kind: str = "Absolute", **changes: Any
) -> dict[str, Any]:
    """A profile of one hour per limit, W; `schedule` changes its schedule."""
    schedule: dict[str, Any] = {
        "id": 1,
        "chargingRateUnit": "W",
        "chargingSchedulePeriod": [
            {"startPeriod": 3600 * at, "limit": limit} for at, limit in enumerate(limits)
        ],
    }
    if kind in ("Absolute", "Recurring"):
        schedule["startSchedule"] = stamp(START - timedelta(minutes=1))
    schedule |= changes.pop("schedule", {})
    body = {
        "id": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": kind,
        "chargingSchedule": [schedule],
    }
    return body | changes


async def set_profile(
    central: TinyCentral2, body: dict[str, Any], outlet: Outlet | int
) -> tuple[str, str]:
    """Return status and reason code; a TxProfile is for the outlet's transaction."""
    evse = outlet if isinstance(outlet, int) else outlet.connector
    if isinstance(outlet, Outlet) and body["chargingProfilePurpose"] == "TxProfile":
        body = {"transactionId": outlet.transaction_id, **body}
    answer = await central.ask(
        "SetChargingProfile", {"evseId": evse, "chargingProfile": body}
    )
    if isinstance(answer, tuple):
        return answer
    return answer["status"], answer.get("statusInfo", {}).get("reasonCode", "")


def variable(label: str, **changes: Any) -> dict[str, Any]:
    """Name a variable as Get- and SetVariables do: Component[#evse].Name[Instance]."""
    component, _, rest = label.partition(".")
    name, _, instance = rest.rstrip("]").partition("[")
    component, *numbers = component.split("#")
    row: dict[str, Any] = {"component": {"name": component}, "variable": {"name": name}}
    if numbers:
        row["component"]["evse"] = {"id": int(numbers[0])}
        if len(numbers) > 1:
            row["component"]["evse"]["connectorId"] = int(numbers[1])
    if instance:
        row["variable"]["instance"] = instance
    return row | changes


async def read(central: TinyCentral2, label: str) -> str:
    """Read a variable's value, or its status when there is none."""
    answer = await central.ask("GetVariables", {"getVariableData": [variable(label)]})
    row = answer["getVariableResult"][0]
    return str(row.get("attributeValue", row["attributeStatus"]))


async def write(central: TinyCentral2, label: str, value: str) -> str:
    """Set a variable; return the status."""
    rows = [variable(label, attributeValue=value)]
    answer = await central.ask("SetVariables", {"setVariableData": rows})
    return str(answer["setVariableResult"][0]["attributeStatus"])
