"""A day without clouds, then a quarter of an hour with: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from agent.app import Daemon
from agent.control import outbox
from agent.domain import events
from agent.domain.events import ConnectorStatus
from agent.domain.ids import ConnectorId, EvseId, StationId, TransactionId
from agent.domain.meter import MeterReading
from agent.host.clock import RandomIds
from agent.settings import Settings
from agent.standin.faults import Fault, RequestRecord
from agent.standin.fixtures import LOCATION_UID, schedule_json, vehicle_json
from agent.standin.server import StandinServer
from agent.standin.state import ChargEyeStandin
from tests.support.jump_clock import JumpClock
from tests.support.webhook_server import DROP, LOSE, OK, BillingServer, billing_server
from tests.unit.domain.build import evidence_of

START = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
STATIONS, TURNS = 10, 10
SESSIONS = STATIONS * TURNS
TURN_S = 24 * 3600 / TURNS
SPEED = 10.0
"""Slow beside the other scenarios: what the machine is slow at counts as waiting."""
EVSE, CONNECTOR = EvseId(1), ConnectorId(1)
WITHIN_S = 15 * 60
LOOKS, REST_S = 15, 20.0
"""After so many looks without news all clouds are at rest, and time may pass quickly."""


@dataclass
class Depot:
    """A daemon that can be restarted, its clouds, and the vehicles that came."""

    clock: JumpClock
    cloud: ChargEyeStandin
    bills: BillingServer
    settings: Settings
    daemon: Daemon
    energy_wh: dict[str, float] = field(default_factory=dict)

    async def say(self, station: str, event: events.Event) -> str | None:
        """Let a station say something; returns when it is on disk."""
        answer = await self.daemon.intake.handle(StationId(station), event)
        return answer.transaction_id

    async def state(self, station: str, status: ConnectorStatus) -> None:
        await self.say(
            station,
            events.ConnectorChanged(
                evse_id=EVSE, connector_id=CONNECTOR, status=status, at=self.clock.now()
            ),
        )

    async def arrive(self, station: str, number: int) -> str:
        """A bus plugs in, is recognised, and starts; its transaction."""
        mac = mac_of(number)
        await self.state(station, ConnectorStatus.PREPARING)
        told = await self.say(
            station,
            events.TransactionStarted(
                evse_id=EVSE,
                connector_id=CONNECTOR,
                new_transaction_id=self.daemon.intake.next_transaction_id(),
                key=f"start-{number}",
                at=self.clock.now(),
                id_token=f"VID:{mac}",
                meter_start_wh=0.0,
                evidence=(evidence_of(mac),),
            ),
        )
        assert told is not None
        return told

    async def meter(self, station: str, transaction: str, wh: float, soc: float) -> None:
        reading = MeterReading(self.clock.now(), register_wh=wh, soc_percent=soc)
        event = events.MeterSampled(
            readings=(reading,), evse_id=EVSE, transaction_id=TransactionId(transaction)
        )
        await self.say(station, event)

    async def leave(self, station: str, transaction: str, wh: float) -> None:
        """It stops and is unplugged."""
        await self.say(
            station,
            events.TransactionEnded(
                transaction_id=TransactionId(transaction),
                at=self.clock.now(),
                meter_stop_wh=wh,
                reason="EVDisconnected",
            ),
        )
        await self.state(station, ConnectorStatus.FINISHING)
        await self.state(station, ConnectorStatus.AVAILABLE)

    async def turn(self, number: int) -> None:
        """One vehicle after another at every station."""
        names = [f"CP-{index:02d}" for index in range(STATIONS)]
        buses = [number * STATIONS + index for index in range(STATIONS)]
        running = [
            await self.arrive(name, bus) for name, bus in zip(names, buses, strict=True)
        ]
        for step in range(4):
            await self.clock.jump(TURN_S / 5 if step else 1)
            for name, bus, transaction in zip(names, buses, running, strict=True):
                await self.meter(name, transaction, step * wh_of(bus), soc_of(bus) + step)
        for name, bus, transaction in zip(names, buses, running, strict=True):
            await self.leave(name, transaction, 4 * wh_of(bus))
            self.energy_wh[slot_of(bus)] = 4 * wh_of(bus)
        await self.clock.jump(2 * TURN_S / 5)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        """A daemon on the same database; stopped in order at the end."""
        self.daemon = Daemon(
            self.settings, clock=self.clock, ids=RandomIds(len(self.energy_wh)), pace=0.1
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.daemon.run())
            await self.daemon.is_ready.wait()
            try:
                yield self.daemon
            finally:
                self.daemon.stop_wanted.set()

    async def owed(self) -> int:
        return len(await self.daemon.store.outbox_rows())

    async def drained(self) -> None:
        """Wait until nothing is owed; rests between tries pass at once, and count."""
        before, looks = 0, 0
        async with asyncio.timeout(60):
            while (left := await self.owed()) > 0:
                looks = looks + 1 if left == before else 0
                before = left
                if looks >= LOOKS:
                    await self.clock.jump(REST_S)
                    looks = 0
                await asyncio.sleep(0.02)


def mac_of(number: int) -> str:
    return f"04E77E0000{number:02X}"


def slot_of(number: int) -> str:
    return f"slot-{number}"


def wh_of(number: int) -> float:
    return 5_000.0 + 10 * number


def soc_of(number: int) -> float:
    return 20.0 + number / 4


def rows() -> dict[str, list[dict[str, Any]]]:
    """All vehicles, and the slot of each: they come one after another."""
    vehicles, schedules = [], []
    for number in range(SESSIONS):
        arrival = START + timedelta(seconds=TURN_S * (number // STATIONS) - 600)
        name = f"bus-{number}"
        begin = int(arrival.timestamp() * 1000)
        segment = {"from": begin, "to": begin + 9_000_000, "powerkW": 30, "paused": False}
        plan = {"segments": [segment], "pastSegments": []}
        extra = {"id": slot_of(number), "plan": plan, "planMeta": {"frozen": True}}
        departure = arrival + timedelta(seconds=TURN_S)
        vehicles.append(vehicle_json(name, macs=[mac_of(number)]))
        schedules.append(schedule_json(name, arrival, departure, extra))
    return {"vehicles": vehicles, "schedules": schedules}


@asynccontextmanager
async def depot(folder: Path) -> AsyncIterator[Depot]:
    clock = JumpClock(START, SPEED)
    cloud = ChargEyeStandin(clock)
    cloud.patch_grace_s = 2 * 86400.0  # departed slots may still be told about
    cloud.load(**rows())
    with billing_server() as bills:
        async with StandinServer(cloud) as server:
            content: dict[str, Any] = {
                "site": {"location_uid": LOCATION_UID, "cap_kw": 400.0},
                "ocpp": {"host": "127.0.0.1", "port": 0},
                "stations": [{"id": f"CP-{index:02d}"} for index in range(STATIONS)],
                "chargeye": {
                    "base_url": server.base_url,
                    "refresh_token": cloud.tokens.refresh_token,
                },
                "billing": {"webhook_url": bills.url},
                "store": {"path": folder / "agent.db"},
                "web": {"port": 0},
            }
            settings = Settings(**content)
            yield Depot(clock, cloud, bills, settings, None)  # type: ignore[arg-type]


def told(cloud: ChargEyeStandin) -> dict[str, list[tuple[str, RequestRecord]]]:
    """Per slot what ChargEye was told and took, in order, repeats included."""
    found: dict[str, list[tuple[str, RequestRecord]]] = {}
    for record in cloud.requests:
        if record.method == "PATCH" and record.status in (0, 200):
            for row in record.body["schedules"]:
                kind = "end" if "plan" in row else "start"
                found.setdefault(row["id"], []).append((kind, record))
    return found


async def until(condition: Any, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_n1_a_day_without_clouds_costs_nothing_and_is_told_in_a_quarter_of_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one pause in real seconds, as long beside this clock as it is in the field.
    monkeypatch.setattr(outbox, "SPACING_S", outbox.SPACING_S / SPEED)
    async with depot(tmp_path) as place:
        cloud, bills = place.cloud, place.bills
        async with place.running() as daemon:
            await until(lambda: len(daemon.depot.schedules) == SESSIONS)
            cloud.unreachable, bills.always = True, DROP
            begun_at = place.clock.now()
            for number in range(TURNS // 2):
                await place.turn(number)
        async with place.running() as daemon:
            for number in range(TURNS // 2, TURNS):
                await place.turn(number)
            away_s = (place.clock.now() - begun_at).total_seconds()
            owed_before = await place.owed()
            reached = [item.is_reachable for item in daemon.clouds]
            cloud.requests.clear()
            for number in (3, 47, 90):
                path = f"bus-{number}/"
                cloud.faults.add(Fault(kind="lost-answer", path_contains=path))
                cloud.faults.add(Fault(kind="503", path_contains=path))
            cloud.faults.add(Fault(kind="429", path_contains="bus-11/", retry_after_s=15))
            bills.next = [LOSE, LOSE]
            cloud.unreachable, bills.always = False, OK
            back_at = place.clock.now()
            await place.drained()
            took_s = (place.clock.now() - back_at).total_seconds()
            stored = await daemon.store.sessions(limit=1000)

    assert away_s >= 86_000
    assert owed_before == 3 * SESSIONS
    assert not any(reached)
    assert took_s <= WITHIN_S
    assert len(stored) == SESSIONS
    asked = told(cloud)
    assert len(asked) == SESSIONS
    for slot, reports in asked.items():
        assert [kind for kind, _ in groupby(reports, lambda item: item[0])] == [
            "start",
            "end",
        ], slot
        for _, repeats in groupby(reports, lambda item: item[0]):
            *lost, last = [record for _, record in repeats]
            assert last.status == 200
            assert all(record.status == 0 and record.body == last.body for record in lost)
    applied = [record for reports in asked.values() for _, record in reports]
    assert len(applied) == 2 * SESSIONS + sum(record.status == 0 for record in applied)
    for number in range(SESSIONS):
        row = cloud.book.entries[slot_of(number)].row
        charged_kwh = sum(item["energykWh"] for item in row["plan"]["pastSegments"])
        assert row["startSoC"] == pytest.approx(soc_of(number), abs=0.1)
        assert charged_kwh * 1000 == pytest.approx(place.energy_wh[slot_of(number)], abs=5)
    assert len(cloud.book.entries) == SESSIONS
    assert {record.method for record in cloud.requests} == {"GET", "PATCH"}
    assert sorted(bills.booked) == sorted(item.session_id for item in stored)
    assert len(bills.keys()) == SESSIONS + 2
    paid_wh = sum(body["energy_wh"] for body in bills.booked.values())
    assert paid_wh == pytest.approx(sum(place.energy_wh.values()))


async def test_n3_what_was_applied_and_not_answered_is_repeated_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SPACING_S", 0.0)
    more = {
        "plannedArrivalTime": (START + timedelta(days=2)).isoformat(),
        "plannedDepartureTime": (START + timedelta(days=2, hours=9)).isoformat(),
        "targetSoC": 80,
    }
    async with depot(tmp_path) as place, place.running() as daemon:
        cloud = place.cloud
        await until(lambda: len(daemon.depot.schedules) == SESSIONS)
        cloud.requests.clear()
        before = {key: dict(item.row) for key, item in cloud.book.entries.items()}
        cloud.faults.add(Fault(kind="lost-answer", method="PATCH", count=3))
        transaction = await place.arrive("CP-00", 0)
        await place.meter("CP-00", transaction, 0, 41)
        await until(lambda: len(cloud.requests.matching("PATCH")) >= 1)
        await place.clock.jump(60)
        await place.meter("CP-00", transaction, 900, 42)
        await place.leave("CP-00", transaction, 1000)
        await place.drained()
        cloud.faults.add(Fault(kind="lost-answer", method="POST"))
        status, added = await daemon.operations.run(
            "schedules.add", {"vehicle": "bus-1", "schedules": [more]}
        )
        _, again = await daemon.operations.run(
            "schedules.add", {"vehicle": "bus-1", "schedules": [more]}
        )

    reports = told(cloud)[slot_of(0)]
    assert [record.status for _, record in reports].count(0) == 3
    assert [kind for kind, _ in groupby(reports, lambda item: item[0])] == ["start", "end"]
    assert cloud.book.entries[slot_of(0)].row["startSoC"] == 41
    after = {key: item.row for key, item in cloud.book.entries.items()}
    assert before.keys() <= after.keys()
    assert all(after[key] == row for key, row in before.items() if key != slot_of(0))
    assert status == 200, added
    assert len(after) == SESSIONS + 1, again
    assert len(cloud.requests.matching("POST")) == 1
    assert not cloud.requests.matching(key="replaceFutureSchedules")
