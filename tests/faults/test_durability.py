"""faults.md section 2: what was acknowledged is on disk, whatever happens then."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import sqlite3
import statistics
import time
from collections.abc import Coroutine, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import ports
from agent.control.depot import Depot, Policy
from agent.control.intake import Intake
from agent.control.recovery import recover
from agent.domain import events
from agent.domain.capability import StationTraits
from agent.domain.errors import StoreFault
from agent.domain.events import ConnectorStatus
from agent.domain.ids import ConnectorId, EvseId, StationId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.plan import AfterPlan
from agent.domain.station import RECENT_SESSIONS_MAX, StationState
from agent.host.clock import RandomIds
from agent.store.sql import APPLICATION_ID, load_migrations, migrate
from agent.store.sqlite import SqliteStore
from tests.faults.ledger import Audited
from tests.faults.means import IS_LONG, chance_of, rounds
from tests.support.daemon_process import DaemonProcess

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
CP = StationId("CP-01")
STATIONS = 20
READY_S = 5.0

CONFIG = """
[site]
cap_kw = 4000.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
""" + "".join(
    f'\n[[stations]]\nid = "ST-{n:02}"\nmax_kw = 9000.0\nfallback_kw = 5.0\n'
    for n in range(STATIONS)
)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are killed could not write their coverage anyway: start quicker."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("half", ["first", "second"])
@pytest.mark.slow
async def test_d1_kills_lose_nothing_that_was_acknowledged(
    tmp_path: Path, unmeasured: None, half: str
) -> None:
    """20 stations in session; kill -9 at a random instant, again and again."""
    del unmeasured
    chance = chance_of(f"D1-{half}")
    daemon = DaemonProcess(tmp_path, CONFIG)
    stations = [Audited(f"ST-{n:02}") for n in range(STATIONS)]
    url = f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp"
    took_s: list[float] = []
    for _ in range(rounds(5, 500)):
        began = time.monotonic()
        await asyncio.to_thread(daemon.start)
        # Beside other tests a start waits for the processor: what it took of it counts.
        took_s.append(time.monotonic() - began if IS_LONG else daemon.cpu_s())
        async with asyncio.TaskGroup() as tasks:
            for station in stations:
                tasks.create_task(station.serve(url))
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            daemon.kill()
    await asyncio.to_thread(daemon.start)
    for station in stations:
        if not station.transaction_ids:
            continue
        await station.repeat_start(url)
    found = {row["station_id"]: row for row in daemon.ask("sessions")}
    assert daemon.stop() == 0

    started = [station for station in stations if station.transaction_ids]
    print(  # noqa: T201 - the figure of the table
        f"D1: {sum(s.acknowledged for s in stations)} acknowledged, "
        f"ready after {statistics.median(took_s):.1f} s, at worst {max(took_s):.1f} s"
    )
    assert len(started) == STATIONS
    held = _registers(tmp_path / "agent.db")
    for station in started:
        row = found[station.name]
        assert len(station.transaction_ids) == 1
        assert row["transaction_ids"] == list(station.transaction_ids)
        assert row["energy_wh"] >= station.acknowledged_wh - 1000
        missing = set(range(1001, station.acknowledged_wh + 1)) - held[station.name]
        assert not missing
    assert max(took_s) < READY_S


def _registers(path: Path) -> dict[str, set[int]]:
    """Every register value in the journal, per station; the file must be whole."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found: dict[str, set[int]] = {}
    for name, body in db.execute(
        "SELECT station_id, body FROM journal WHERE kind = 'MeterSampled'"
    ):
        for reading in json.loads(body)["readings"]:
            if reading["register_wh"] is not None:
                found.setdefault(name, set()).add(round(reading["register_wh"]))
    db.close()
    return found


# --- D5: a store that fails at the k-th commit --------------------------------------------


class _HandClock:
    """Time that passes when the test says so."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class _Failing(SqliteStore):
    """The real store; the k-th commit raises as a full disk would, once."""

    fails_at = 0
    commits_tried = 0

    def commit(
        self, records: Sequence[ports.Record], now: datetime
    ) -> Coroutine[Any, Any, None]:
        self.commits_tried += 1
        if self.commits_tried == self.fails_at:
            return self._refuse()
        return super().commit(records, now)

    async def _refuse(self) -> None:
        raise StoreFault("the disk did not take it")


def _visit(number: int) -> list[events.Event]:
    """A plug, a token, a transaction with samples, and the end, of one visit."""
    at = NOW + timedelta(minutes=10 * number)
    evse, connector = EvseId(1), ConnectorId(1)
    transaction_id = TransactionId(str(100 + number))
    samples = [
        MeterReading(at=at + timedelta(seconds=30 * n), register_wh=1000.0 + 100 * n)
        for n in range(1, 4)
    ]

    def status(value: ConnectorStatus) -> events.Event:
        return events.ConnectorChanged(evse_id=evse, connector_id=connector, status=value)

    return [
        status(ConnectorStatus.PREPARING),
        events.IdTokenPresented(id_token=f"T{number}", evse_id=evse),
        events.TransactionStarted(
            evse_id=evse,
            connector_id=connector,
            new_transaction_id=transaction_id,
            key=f"1|T{number}",
            at=at,
            id_token=f"T{number}",
            meter_start_wh=1000.0,
        ),
        *(
            events.MeterSampled(
                readings=(sample,), evse_id=evse, transaction_id=transaction_id
            )
            for sample in samples
        ),
        events.TransactionEnded(
            transaction_id=transaction_id,
            at=at + timedelta(minutes=5),
            meter_stop_wh=1400.0,
        ),
        status(ConnectorStatus.AVAILABLE),
    ]


async def _told(intake: Intake, event: events.Event) -> int:
    """Tell it until it is acknowledged, as a station does; returns the refusals."""
    refusals = 0
    while True:
        try:
            await intake.handle(CP, event)
        except StoreFault:
            refusals += 1
            continue
        return refusals


def _depot() -> Depot:
    depot = Depot(
        policy=Policy(
            cap_w=1e6,
            efficiency=1.0,
            unmatched_w=1.0,
            unplanned_w=1.0,
            after_plan=AfterPlan.PAUSE,
            plan_max_age=timedelta(days=1),
        ),
        traits={CP: StationTraits(rated_w=150_000.0, fallback_w=5000.0)},
    )
    depot.states[CP] = StationState(station_id=CP, rated_w=150_000)
    return depot


async def test_d5_a_store_that_fails_at_any_commit_never_leaves_memory_ahead(
    tmp_path: Path,
) -> None:
    """What is in memory is what a restart would load, whichever commit failed."""
    visits = rounds(3, 60)
    history = [event for number in range(visits) for event in _visit(number)]
    refused = 0
    for k in range(1, len(history) + 4):
        path = tmp_path / f"{k}.db"
        store = _Failing(path, threaded=False)
        store.fails_at = k
        depot, clock = _depot(), _HandClock(NOW)
        intake = Intake(
            depot, store, clock, RandomIds(k), last_seq=0, last_transaction_id=1
        )
        for event in history:
            clock.at += timedelta(seconds=20)
            refused += await _told(intake, event)
        memory = depot.states[CP]
        store.close()
        again = _depot()
        loaded = SqliteStore(path, threaded=False)
        recover(again, loaded.load({CP: 150_000}))
        loaded.close()
        path.unlink()

        # Of ended sessions the newest are read; memory holds one more until the next plug.
        beyond = len(memory.sessions) - len(again.states[CP].sessions)
        assert beyond in ((0, 1) if visits > RECENT_SESSIONS_MAX else (0,))
        newest = dict(list(memory.sessions.items())[beyond:])
        assert dict(again.states[CP].sessions) == newest, k
        assert again.states[CP].evses == memory.evses
        assert [s.meter.energy_wh for s in memory.sessions.values()] == [400.0] * min(
            visits, RECENT_SESSIONS_MAX + 1
        )

    assert refused >= len(history)


# --- D10: a migration that is killed ------------------------------------------------------


def _shape(db: sqlite3.Connection) -> list[tuple[str, str]]:
    found = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    return [(str(name), str(sql)) for name, sql in found]


def _killed_at(path: Path, statement: int) -> None:
    """Migrate in a child that kills itself before its n-th statement."""
    child = os.fork()
    if child == 0:  # nothing of the parent may run on: only the kill ends this
        db = sqlite3.connect(path, isolation_level=None)
        seen = itertools.count(1)

        def look(_: str) -> None:
            if next(seen) == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        db.set_trace_callback(look)
        migrate(db)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("version", range(len(load_migrations())))
def test_d10_a_killed_migration_leaves_the_old_schema_or_the_new_one(
    tmp_path: Path, version: int
) -> None:
    """From every released schema, killed before every statement; then it completes."""
    steps = load_migrations()
    shapes: dict[int, list[tuple[str, str]]] = {}
    start = tmp_path / "start.db"
    with closing(sqlite3.connect(start, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        for number, script in steps[:version]:
            db.executescript(script)
            db.execute(f"PRAGMA user_version = {number:d}")
        if version:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
            db.execute("INSERT INTO sequences VALUES ('transaction_id', 77)")
        shapes[version] = _shape(db)
    with closing(sqlite3.connect(":memory:")) as db:
        for number, script in steps:
            db.executescript(script)
            if number >= version:
                shapes[number] = _shape(db)
    kills = 0
    for statement in range(1, 200):
        path = tmp_path / f"{statement}.db"
        shutil.copy(start, path)
        _killed_at(path, statement)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert _shape(db) == shapes[found], statement
            was_killed = found < steps[-1][0]
            assert migrate(db) == steps[-1][0]
            assert _shape(db) == shapes[steps[-1][0]]
            if version:
                sql = "SELECT value FROM sequences WHERE name = 'transaction_id'"
                assert db.execute(sql).fetchone() == (77,)
        kills += was_killed
        if not was_killed:
            break
    assert kills >= 3
