"""faults.md section 6 at a real daemon: what stations say twice, late, or wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.standin.fixtures import vehicle_json
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation, stamp
from tests.support.yard import yard

NAMES = ("ONCE", "STOPS", "QUEUE", "REBOOT")
CONFIG = """
[site]
cap_kw = 900.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
""" + "".join(f'\n[[stations]]\nid = "{name}"\nmax_kw = 50.0\n' for name in NAMES)
VISITS, SAMPLES = 10, 48
"""500 messages: a start, the samples and a stop of each visit."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("sessions"), CONFIG)
    process.start()
    yield process
    assert process.stop() == 0


def _station(daemon: DaemonProcess, name: str) -> ForeignStation:
    return ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/{name}")


def _sessions(daemon: DaemonProcess, name: str) -> list[dict[str, Any]]:
    rows = daemon.ask_web("/api/v1/sessions?limit=1000")
    return [row for row in rows if row["station_id"] == name]


async def test_c1_one_start_sent_ten_times_across_links_and_restarts_is_one_transaction(
    daemon: DaemonProcess,
) -> None:
    """Answers are lost with the link, and with the agent that is killed twice."""
    at, ids = stamp(), []
    for number in range(10):
        async with _station(daemon, "ONCE") as station:
            if number == 0:
                await station.boot()
                await station.status("Preparing")
            ids.append(await station.start("TAG-1", at=at))
            if number in (3, 7):
                daemon.kill()
                await asyncio.to_thread(daemon.start)
    rows = _sessions(daemon, "ONCE")

    assert len(set(ids)) == 1
    assert [row["transaction_ids"] for row in rows] == [[ids[0]]]


async def test_c3_a_stop_of_no_transaction_is_answered_and_ends_nothing(
    daemon: DaemonProcess,
) -> None:
    """Ids 0 and -1 while nothing runs; unknown, and stopped already, while one does.

    A nameless stop while one transaction runs means that one (charger-quirks.md TX-01).
    """
    async with _station(daemon, "STOPS") as station:
        await station.boot()
        await station.status("Preparing")
        ended = await station.start("TAG-1", at=stamp(datetime.now(UTC)))
        await station.stop(ended, 1500)
        await station.status("Available")
        answers = [await station.stop(wrong, 9000) for wrong in (0, -1)]
        await station.status("Preparing")
        running = await station.start("TAG-2", 1500)
        answers += [await station.stop(wrong, 9000) for wrong in (987654, ended)]
        await station.meter(running, 1700)
        rows = _sessions(daemon, "STOPS")
        await station.stop(running, 1800)
    orphans = daemon.events("transaction_orphaned")

    assert all(isinstance(answer, dict) for answer in answers)
    by_id = {row["transaction_ids"][0]: row for row in rows}
    assert set(by_id) == {ended, running}
    assert by_id[running]["ended_at"] is None
    assert by_id[running]["energy_wh"] == 200
    assert by_id[ended]["energy_wh"] == 500
    assert len(orphans) >= 3


async def test_c4_a_queue_of_500_old_messages_is_placed_within_10_seconds(
    daemon: DaemonProcess,
) -> None:
    """Ten visits of a day without a network, told after it; each where it belongs."""
    begin = datetime.now(UTC) - timedelta(days=1)
    async with _station(daemon, "QUEUE") as station:
        await station.boot()
        began = time.monotonic()
        ids = []
        for visit in range(VISITS):
            at = begin + timedelta(hours=2 * visit)
            first_wh = 10_000 * visit
            running = await station.start(f"TAG-{visit}", first_wh, stamp(at))
            ids.append(running)
            for number in range(1, SAMPLES + 1):
                await station.send(
                    "MeterValues",
                    {
                        "connectorId": 1,
                        "transactionId": running,
                        "meterValue": [
                            {
                                "timestamp": stamp(at + timedelta(minutes=number)),
                                "sampledValue": [{"value": f"{first_wh + 100 * number}"}],
                            }
                        ],
                    },
                )
            await station.send(
                "StopTransaction",
                {
                    "transactionId": running,
                    "meterStop": first_wh + 5000,
                    "timestamp": stamp(at + timedelta(hours=1)),
                    "reason": "EVDisconnected",
                },
            )
        took_s = time.monotonic() - began
        await station.status("Available")
    rows = sorted(_sessions(daemon, "QUEUE"), key=lambda row: row["started_at"])

    assert took_s < 10
    assert [row["transaction_ids"] for row in rows] == [[number] for number in ids]
    assert [row["energy_wh"] for row in rows] == [5000] * VISITS
    for visit, row in enumerate(rows):
        started = datetime.fromisoformat(row["started_at"])
        assert abs(started - begin - timedelta(hours=2 * visit)) < timedelta(seconds=1)
        assert row["ended_at"] is not None


async def test_c11_after_a_reboot_in_mid_session_the_limit_is_confirmed_within_15_seconds(
    daemon: DaemonProcess,
) -> None:
    """The station boots anew and its transaction goes on; nobody trusts its memory."""
    async with _station(daemon, "REBOOT") as station:
        await station.boot()
        await station.status("Preparing")
        running = await station.start("TAG-1")
        await station.wait_for(lambda: station.profiles("TxProfile"), 15)
    async with _station(daemon, "REBOOT") as station:
        await station.boot()
        began = time.monotonic()
        await station.status("Charging")
        await station.meter(running, 1100)
        found = await station.wait_for(lambda: station.profiles("TxProfile"), 20)
        took_s = time.monotonic() - began
        rows = _sessions(daemon, "REBOOT")

    assert took_s < 15
    assert found[-1]["transactionId"] == running
    assert [row["transaction_ids"] for row in rows] == [[running]]


async def test_c13_an_address_that_names_nobody_gets_the_default_policy_and_one_alarm(
    tmp_path: Path,
) -> None:
    """One MAC on two vehicles; zero; broadcast."""
    names = [f"CP-0{number}" for number in range(1, 4)]
    stations = [{"id": name, "max_kw": 150.0, "fallback_kw": 4.0} for name in names]
    policy = {"unmatched_kw": 15.0, "unplanned_kw": 30.0}
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=stations, policy=policy) as place:
            shared = place.add_bus(1, [(-1, 9, 90)])
            twin = vehicle_json("bus-2", macs=[shared.mac], power_kw=(5, 140))
            place.cloud.load(vehicles=[twin])
            others = [place.add_bus(number, [], known=False) for number in (8, 9)]
            others[0].mac, others[1].mac = "000000000000", "FFFFFFFFFFFF"
            made = [place.station(name) for name in names]
            await place.installed()
            await place.until(lambda: len(place.daemon.depot.registry) == 2)
            for station, bus in zip(made, [shared, *others], strict=True):
                await station.plug(1, bus)
            await place.until(
                lambda: all(station.outlets[1].power_w > 5_000 for station in made)
            )
            await place.passes(0.25)
            drawn_w = [station.outlets[1].power_w for station in made]
            matched = [item.vehicle_id for item in place.sessions()]
    alarms = [row for row in logs if row["event"] == "vehicle_ambiguous"]

    assert max(drawn_w) <= 15_000 * 1.01
    assert matched == [None, None, None]
    assert len(alarms) == 1
