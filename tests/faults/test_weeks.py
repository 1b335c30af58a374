"""faults.md D9, D11, H5, N6: what only time would show, compressed."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from agent.domain import events
from agent.domain.ids import EvseId, SessionId, StationId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.retry import LONGEST_WAIT_S, wait_s
from agent.domain.station import RECENT_SESSIONS_MAX, StationState
from agent.host import garbage
from agent.ports import JournalRow, Record, StationSaved
from agent.store import sqlite
from agent.store.sqlite import SqliteStore
from tests.faults.means import chance_of, long_only, rounds
from tests.support.daemon_process import DaemonProcess

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
MIB = 1024 * 1024
WAL_MIB_MAX = 16
HOURS_A_DAY, MINUTES_A_DAY = 24, 1440
KEEP_DAYS = 2


def _sample(seq: int, station: StationId, at: datetime) -> JournalRow:
    reading = MeterReading(
        at=at, register_wh=1000.0 * seq, power_w=50_000.0, soc_percent=50
    )
    event = events.MeterSampled(
        readings=(reading,), evse_id=EvseId(1), transaction_id=TransactionId("7")
    )
    return JournalRow(
        seq=seq, at=at, station_id=station, new_session_id=SessionId(""), event=event
    )


# --- D9 ------------------------------------------------------------------------------------


@long_only
async def test_d9_a_week_of_load_keeps_log_and_file_within_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 stations, a sample a minute each; the journal is kept for days, not weeks."""
    monkeypatch.setattr(sqlite, "KEEP_JOURNAL", timedelta(days=KEEP_DAYS))
    stations = [StationId(f"ST-{n:03}") for n in range(100)]
    path = tmp_path / "agent.db"
    store = SqliteStore(path)
    store.start()
    wal, sizes, seq = 0, [], itertools.count(1)
    for minute in range(7 * MINUTES_A_DAY):
        at = NOW + timedelta(minutes=minute)
        records: list[Record] = [_sample(next(seq), name, at) for name in stations]
        if minute % 60 == 0:
            last = records[-1]
            assert isinstance(last, JournalRow)
            records += [
                StationSaved(
                    state=StationState(station_id=name, rated_w=150_000), seq=last.seq
                )
                for name in stations
            ]
        await store.commit(records, at)
        if minute % 20 == 0:
            wal = max(wal, Path(f"{path}-wal").stat().st_size)
        if minute % MINUTES_A_DAY == MINUTES_A_DAY - 1:
            await store.prune(at)
            sizes.append(path.stat().st_size)
    await store.stop()
    with closing(sqlite3.connect(path)) as db:
        (rows,) = db.execute("SELECT count(*) FROM journal").fetchone()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    shown = [round(size / MIB) for size in sizes]
    print(f"D9: log at most {wal / MIB:.1f} MiB, file by day {shown} MiB")  # noqa: T201

    assert wal <= WAL_MIB_MAX * MIB
    assert rows == pytest.approx(KEEP_DAYS * MINUTES_A_DAY * len(stations), rel=0.05)
    model = sizes[0] * (KEEP_DAYS + 1)  # a day more than is kept, until it is pruned
    assert sizes[-1] == pytest.approx(model, rel=0.1)


# --- D11 -----------------------------------------------------------------------------------


async def test_d11_a_backup_under_load_is_a_prefix_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    """Commits go on while a file of many pages is copied."""
    path = tmp_path / "agent.db"
    store = SqliteStore(path)
    store.start()
    name = StationId("ST-1")
    filled = rounds(20_000, 400_000)
    for first in range(1, filled, 1000):
        rows = [_sample(seq, name, NOW) for seq in range(first, first + 1000)]
        await store.commit(rows, NOW)
    took: list[float] = []
    seq = itertools.count(filled + 1)
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            began = time.perf_counter()
            await store.commit([_sample(next(seq), name, NOW)], NOW)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)

    copy = tmp_path / "copy.db"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
        await asyncio.sleep(0.05)
        before = len(took)
        began = time.perf_counter()
        await store.backup(copy)
        copied_s = time.perf_counter() - began
        done.set()
    await store.stop()
    with closing(sqlite3.connect(copy)) as db:
        held = [found for (found,) in db.execute("SELECT seq FROM journal ORDER BY seq")]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    during = sorted(took[before:])
    p99_s = during[int((len(during) - 1) * 0.99)]
    print(  # noqa: T201 - the figure of the table
        f"D11: copied in {copied_s:.2f} s, {len(during)} commits meanwhile, "
        f"p99 {p99_s * 1000:.0f} ms, worst {max(during, default=0) * 1000:.0f} ms"
    )

    assert held == list(range(1, len(held) + 1))
    assert len(held) >= filled + before
    assert p99_s < 0.05


# --- H5 ------------------------------------------------------------------------------------

LINKS = 100
FILLED_H = RECENT_SESSIONS_MAX + 4
CONFIG = """
[site]
cap_kw = 9000.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
station_messages_per_s = 0
""" + "".join(
    f'\n[[stations]]\nid = "ST-{n:03}"\nmax_kw = 50.0\nfallback_kw = 5.0\n'
    for n in range(LINKS)
)


async def _call(link: ClientConnection, name: str, action: str, body: object) -> object:
    await link.send(json.dumps([2, name, action, body]))
    while True:
        frame = json.loads(await link.recv())
        if frame[0] == 2:
            said: object = {"status": "Accepted"}
            if frame[2].startswith("Get"):
                said = {"configurationKey": []}
            await link.send(json.dumps([3, frame[1], said]))
        elif frame[1] == name:
            return frame[2]


async def _hours(daemon: DaemonProcess, number: int, hours: int, first: int) -> None:
    """A station's hours: a visit of 55 samples each, then the next vehicle."""
    async with connect(
        f"ws://127.0.0.1:{daemon.ocpp_port}/ST-{number:03}",
        subprotocols=[websockets.Subprotocol("ocpp1.6")],
        compression=None,
        proxy=None,
        ping_interval=None,
        open_timeout=30,
    ) as link:
        ids = itertools.count()
        boot = {"chargePointVendor": "V", "chargePointModel": "M"}
        await _call(link, f"{next(ids)}", "BootNotification", boot)
        for hour in range(first, first + hours):
            wh = 60_000 * hour
            at = datetime.now(UTC).isoformat()
            status = {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"}
            await _call(link, f"{next(ids)}", "StatusNotification", status)
            start = {"connectorId": 1, "idTag": f"T{hour}", "meterStart": wh}
            answer = await _call(
                link, f"{next(ids)}", "StartTransaction", start | {"timestamp": at}
            )
            assert isinstance(answer, dict)
            running = answer["transactionId"]
            for minute in range(1, 56):
                at = datetime.now(UTC).isoformat()
                sampled = [{"value": f"{wh + 1000 * minute}"}]
                moment = {"timestamp": at, "sampledValue": sampled}
                values = {"transactionId": running, "meterValue": [moment]}
                await _call(
                    link, f"{next(ids)}", "MeterValues", {"connectorId": 1, **values}
                )
            stop = {"transactionId": running, "meterStop": wh + 56_000, "timestamp": at}
            await _call(link, f"{next(ids)}", "StopTransaction", stop)
            status["status"] = "Available"
            await _call(link, f"{next(ids)}", "StatusNotification", status)


def _process(daemon: DaemonProcess) -> tuple[float, int, int]:
    """Memory in MiB, open descriptors, threads."""
    assert daemon.process is not None
    root = Path(f"/proc/{daemon.process.pid}")
    status = (root / "status").read_text(encoding="utf-8")
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return (
        int(line.split()[1]) / 1024,
        len(list((root / "fd").iterdir())),
        len(list((root / "task").iterdir())),
    )


@long_only
async def test_h5_a_day_of_100_stations_leaves_memory_and_descriptors_flat(
    tmp_path: Path,
) -> None:
    """As many messages as in a day, after the memories are full that are bounded.

    The largest of them holds the last sessions of each station.
    """
    daemon = DaemonProcess(tmp_path, CONFIG)
    await asyncio.to_thread(daemon.start)
    seen = []
    for first, hours in ((0, FILLED_H), (FILLED_H, 12), (FILLED_H + 12, 12)):
        async with asyncio.TaskGroup() as tasks:
            for number in range(LINKS):
                tasks.create_task(_hours(daemon, number, hours, first))
        await asyncio.sleep(garbage.LOOK_EVERY_S + 2)  # the links' garbage is collected
        seen.append(_process(daemon))
    assert daemon.stop() == 0
    print(f"H5: MiB, descriptors, threads when full, after 12 and 24 h more: {seen}")  # noqa: T201

    memory = [item[0] for item in seen]
    assert memory[-1] < 200
    assert memory[-1] - memory[0] < 1
    assert seen[-1][1] <= seen[0][1] + 4
    assert seen[-1][2] <= seen[0][2] + 2
    assert not daemon.events("link_failed")


# --- N6 ------------------------------------------------------------------------------------

AGENTS, POLLS, OUTAGE_S = 50, 2, 3600.0
EVERY_S = 30.0


def _requests(chance: random.Random, poll_s: float) -> list[float]:
    """When one agent's poll asks a cloud that comes back after an hour, s after that."""
    at_s, failures = chance.uniform(0, poll_s), 0
    found = []
    while at_s < OUTAGE_S + 600:
        if at_s < OUTAGE_S:
            failures += 1
            at_s += wait_s(failures, chance=chance.random())
        else:
            found.append(at_s - OUTAGE_S)
            at_s += poll_s * (0.95 + 0.1 * chance.random())
    return found


def test_n6_agents_that_find_their_cloud_again_do_not_come_all_at_once() -> None:
    """The busiest second of the first minute, as the poll loops draw their waits.

    On the mean: a minute holds some 40 requests, and chance makes fours of them.
    """
    chance = chance_of("N6")
    shares = []
    for _ in range(rounds(20, 500)):
        asked = [
            at_s
            for _ in range(AGENTS * POLLS)
            for at_s in _requests(chance, EVERY_S)
            if at_s < 60
        ]
        seconds = Counter(int(at_s) for at_s in asked)
        shares.append(max(seconds.values()) / len(asked))
    usual, worst = sum(shares) / len(shares), max(shares)
    print(f"N6: busiest second {usual:.1%} of the minute, at worst {worst:.1%}")  # noqa: T201

    assert usual <= 0.1
    assert worst <= 0.2
    assert wait_s(50, chance=0.999) <= LONGEST_WAIT_S
