"""faults.md sections 7, 8 and 10 in a whole depot: foreign ids, spoofed cars, borders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import websockets
from websockets.asyncio.client import connect

from agent.stations.schemas import ACTIONS, V16, V201
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation
from tests.support.yard import Yard, yard
from tests.unit.stations.bench2 import message

STATIONS = [{"id": f"CP-0{n}", "max_kw": 150.0, "fallback_kw": 4.0} for n in (1, 2)]
CONFIG = """
[site]
cap_kw = 900.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
""" + "".join(f'\n[[stations]]\nid = "{name}"\nmax_kw = 50.0\n' for name in ("A", "B", "C"))
SQL = (
    "'; DROP TABLE sessions; --",
    "1); DELETE FROM journal; --",
    '" OR 1=1 --',
    "x' UNION SELECT body FROM stations --",
    "\\'; UPDATE sequences SET value = 0; --",
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, CONFIG)
    process.start()
    yield process
    assert process.stop() == 0


def _with_id(payload: Any, transaction_id: int | str) -> Any:
    """A payload with every transaction id in it replaced by another station's."""
    if isinstance(payload, dict):
        return {
            key: (
                (int(transaction_id) if isinstance(value, int) else str(transaction_id))
                if key == "transactionId"
                else _with_id(value, transaction_id)
            )
            for key, value in payload.items()
        }
    if isinstance(payload, list):
        return [_with_id(item, transaction_id) for item in payload]
    return payload


@pytest.mark.parametrize("version", [V16, V201])
async def test_a4_no_message_of_one_station_touches_anothers_transaction(
    daemon: DaemonProcess, version: str
) -> None:
    """Every message with a transaction id, sent by B with A's id: answered, not applied."""
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/A") as a:
        await a.boot()
        await a.status("Preparing")
        transaction_id = await a.start("TAG-A")
        await a.meter(transaction_id, 1500)
        before = [row for row in daemon.ask("sessions") if row["station_id"] == "A"]
        sent = 0
        async with connect(
            f"ws://127.0.0.1:{daemon.ocpp_port}/B",
            subprotocols=[websockets.Subprotocol(version)],
            compression=None,
            proxy=None,
        ) as b:
            for action in sorted(ACTIONS[version]):
                plain = message(version, action, is_full=True)
                if "transactionId" not in json.dumps(plain):
                    continue
                payload = _with_id(plain, transaction_id)
                await b.send(json.dumps([2, f"x{sent}", action, payload]))
                sent += 1
                async with asyncio.timeout(10):
                    while json.loads(await b.recv())[1] != f"x{sent - 1}":
                        pass
        after = [row for row in daemon.ask("sessions") if row["station_id"] == "A"]
        stopped = await a.stop(transaction_id, 2000)

    assert sent >= 2
    assert before == after
    assert stopped is not None


async def test_i7_sql_in_every_text_is_text(daemon: DaemonProcess) -> None:
    """All texts of all messages of 1.6; the schema and what was stored are as before."""
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/C") as station:
        await station.boot(chargePointSerialNumber="'; DROP TABLE stations; --")
        await station.status("Preparing")
        for number, text in enumerate(SQL):
            for action in ("Authorize", "StartTransaction", "DataTransfer", "MeterValues"):
                payload = _texts(message(V16, action, is_full=True), text)
                frame = json.dumps([2, f"q{number}-{action}", action, payload])
                await station.raw(frame)
        transaction_id = await station.start(SQL[0][:20])
        await station.stop(transaction_id, 2000)
        rows = daemon.ask("sessions")
        stations = daemon.ask("stations")

    assert SQL[0][:20] in [row["id_token"] for row in rows]
    assert {row["station_id"] for row in stations} == {"A", "B", "C"}


def _texts(payload: Any, text: str) -> Any:
    if isinstance(payload, dict):
        return {key: _texts(value, text) for key, value in payload.items()}
    if isinstance(payload, list):
        return [_texts(item, text) for item in payload]
    return text if isinstance(payload, str) else payload


async def test_a9_a_spoofed_address_gets_no_power_beyond_policy_and_is_told(
    tmp_path: Path,
) -> None:
    """The same MAC at two stations: the second plays somebody who is already here."""
    policy = {"unmatched_kw": 15.0, "unplanned_kw": 30.0}
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=STATIONS, policy=policy) as place:
            bus = place.add_bus(1, [(-1, 9, 90)])
            spoofer = place.add_bus(1, [(-1, 9, 90)], known=False)
            first, second = place.station("CP-01"), place.station("CP-02")
            await place.installed()
            await first.plug(1, bus)
            await place.until(lambda: first.outlets[1].power_w > 80_000)
            await second.plug(1, spoofer)
            await place.until(lambda: second.outlets[1].power_w > 5_000)
            await place.passes(0.1)
            drawn_w = second.outlets[1].power_w

    assert drawn_w <= 15_000 * 1.01
    assert [row for row in logs if row["event"] == "vehicle_ambiguous"]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "agent-stopped"])
async def test_w5_a_segments_limit_is_in_force_within_10_seconds_of_its_border(
    tmp_path: Path, *, is_stopped: bool
) -> None:
    """Up, down and up again; also by what is installed when the agent is gone."""
    pieces: list[tuple[float, float, float]] = [
        (-1, 0.5, 30),
        (0.5, 0.75, 80),
        (0.75, 1.0, 20),
        (1.0, 9, 60),
    ]
    async with yard(tmp_path, stations=STATIONS, speed=240.0) as place:
        bus = place.add_bus(1, pieces)
        station = place.station("CP-01")
        await place.installed()
        await station.plug(1, bus)
        await place.until(lambda: 25_000 < station.outlets[1].power_w < 31_000)
        await place.until(lambda: _installed_ahead(place))
        if is_stopped:
            place.daemon.stop_wanted.set()
            await place.until(lambda: not station.is_online)
        found = []
        for hour, _, kw in pieces[1:]:
            await _until_hour(place, hour + 10 / 3600)
            at = place.at(hour) + timedelta(seconds=10)
            limit_w = station._station.outlet_limit_w(station.outlets[1], at)
            assert limit_w is not None
            found.append((round(limit_w / 1000), kw))
        await place.passes(0.02)
        drawn_w = station.outlets[1].power_w

    assert all(got == kw for got, kw in found), found
    assert abs(drawn_w - 60_000) < 1000


def _installed_ahead(place: Yard) -> bool:
    """The whole plan has been taken by the station."""
    session = place.sessions()[0]
    power = place.daemon.depot.power_of((session.station_id, session.evse_id))
    if power.confirmed is None:
        return False
    return len(power.confirmed.allows) >= 4


async def _until_hour(place: Yard, hour: float) -> None:
    await place.until(lambda: place.clock.now() >= place.at(hour), 120.0)
