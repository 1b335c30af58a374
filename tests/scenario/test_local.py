"""A depot without a cloud: files drive the same path, and nothing is owed to anybody."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.demo import EVENING
from agent.domain.identity import MatchOutcome
from agent.domain.session import SessionPhase
from tests.support.yard import Yard, yard

ONE = [{"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}]
HOURS = timedelta(hours=1)


def rows(name: str, mac: str) -> tuple[dict[str, Any], dict[str, Any]]:
    vehicle = {
        "id": name,
        "chargingPorts": [{"macAddress": mac}],
        "fullChargeEnergykWh": 300,
        "maxChargePowerkW": 100,
        "minChargePowerkW": 5,
        "supportsPauseResume": True,
    }
    slot = {
        "id": f"slot-of-{name}",
        "evId": name,
        "plannedArrivalTime": (EVENING - HOURS).isoformat(),
        "plannedDepartureTime": (EVENING + 6 * HOURS).isoformat(),
        "startSoC": 20,
        "targetSoC": 60,
    }
    return vehicle, slot


def write(folder: Path, *pairs: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, str]:
    vehicles, schedules = folder / "vehicles.json", folder / "schedules.json"
    vehicles.write_text(json.dumps({"vehicles": [pair[0] for pair in pairs]}))
    schedules.write_text(json.dumps({"schedules": [pair[1] for pair in pairs]}))
    return {"vehicles_file": str(vehicles), "schedules_file": str(schedules)}


def _slots(place: Yard) -> list[str | None]:
    return [item.schedule_id for item in place.sessions()]


def is_over(place: Yard) -> bool:
    return [item.phase for item in place.sessions()] == [SessionPhase.ENDED]


async def test_files_alone_recognise_plan_reload_and_leave_nothing_owed(
    tmp_path: Path,
) -> None:
    local = write(tmp_path, rows("bus-8", "04E77E00F008"))
    async with yard(tmp_path, stations=ONE, chargeye=None, local=local) as place:
        bus = place.add_bus(1, [], known=False)
        station = place.station("CP-01")
        await place.installed()
        await place.until(lambda: "bus-8" in place.daemon.depot.registry)
        await station.plug(1, bus)
        await place.until(lambda: station.outlets[1].power_w > 1000)
        before = place.sessions()[0].match
        write(tmp_path, rows("bus-8", "04E77E00F008"), rows("bus-1", bus.mac))
        await place.until(lambda: _slots(place) == ["slot-of-bus-1"])
        await place.until(lambda: "local" in _source(place))
        (tmp_path / "schedules.json").write_text('{"schedules": [{"id": 7}]}')
        await place.passes(0.02)
        planned = place.daemon.plans()
        metrics = place.daemon.metrics().decode()
        await station.unplug(1)
        await place.until(lambda: is_over(place))
        await place.passes(0.05)
        owed = await place.daemon.store.outbox_rows()
        session = place.sessions()[0]
        asked = len(place.cloud.requests)

    assert before is MatchOutcome.NONE
    assert session.vehicle_id == "bus-1"
    assert session.start_soc_reported
    assert session.meter.energy_wh > 100
    assert {row["schedule_id"] for row in planned} == {"slot-of-bus-1", "slot-of-bus-8"}
    assert 'schedules.json"} 0.0' in metrics
    assert 'vehicles.json"} 1.0' in metrics
    assert owed == []
    assert asked == 0


def _source(place: Yard) -> str:
    outlets = place.daemon.stations()[0]["evses"]
    assert isinstance(outlets, list)
    return str(outlets[0]["source"])


async def test_files_beside_chargeye_add_a_vehicle_and_the_cloud_hears_nothing_of_it(
    tmp_path: Path,
) -> None:
    local = write(tmp_path)
    async with yard(tmp_path, stations=ONE, local=local) as place:
        place.add_bus(2, [(-1, 10, 60)])
        bus = place.add_bus(1, [], known=False)
        station = place.station("CP-01")
        await place.installed()
        await place.until(lambda: "bus-2" in place.daemon.depot.registry)
        write(tmp_path, rows("visitor", bus.mac))
        await place.until(lambda: "visitor" in place.daemon.depot.registry)
        await station.plug(1, bus)
        await place.until(lambda: _slots(place) == ["slot-of-visitor"])
        await place.passes(0.03)
        await station.unplug(1)
        await place.until(lambda: is_over(place))
        await place.passes(0.04)
        owed = await place.daemon.store.outbox_rows()
        written = [item for item in place.cloud.requests if item.method != "GET"]

    assert owed == []
    assert written == []
