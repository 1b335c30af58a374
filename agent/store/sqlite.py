"""The database: one connection owned by one thread, group commit, no lingering.

A commit that returned is on disk (WAL, synchronous=FULL). The thread takes whatever
waits, 64 units at most, and makes one COMMIT of it; when that fails, each unit is tried
alone, so that one bad unit cannot take others with it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog

from agent import ports
from agent.domain.capability import Capabilities
from agent.domain.errors import StoreDamaged, StoreFault
from agent.domain.identity import Vehicle
from agent.domain.ids import (
    EvseId,
    MacAddress,
    Outlet,
    ScheduleId,
    SessionId,
    StationId,
    VehicleId,
)
from agent.domain.ladder import Learned
from agent.domain.plan import Schedule
from agent.domain.reconcile import OutletPower
from agent.domain.session import Session
from agent.domain.station import RECENT_SESSIONS_MAX, StationState
from agent.store import rows
from agent.store.lock import take_lock
from agent.store.sql import check_owner, load_queries, migrate

log = structlog.get_logger()

GROUP_MAX = 64
"""Units in one COMMIT: a reconnect storm costs a handful of syncs."""
WAITING_MAX = 1024
"""Units that may wait; beyond, intake waits (architecture.md section 6)."""
CHECKED_AT_START_BYTES = 64 * 1024 * 1024
"""A larger file is checked beside the work, ten minutes after the start and weekly."""
BALLAST_BYTES = 4 * 1024 * 1024
"""Held back for a full disk: hours of messages of a depot (faults.md D4)."""
JOURNAL_ROWS_MAX = 64
"""Journal rows in one INSERT; SQLite allows 5,461 of them."""
ROW_MORE = ", (?, ?, ?, ?, ?, ?)"
STATEMENTS_CACHED = 128 + JOURNAL_ROWS_MAX
"""One INSERT per number of rows, besides all others."""
CLOSED = "the database is closed: the agent stops"
LOG_BYTES_KEPT = 16 * 1024 * 1024
"""The write-ahead log is cut to this after a checkpoint (faults.md D9)."""
COPY_PAGES, COPY_PAUSE_S = 256, 0.002
"""A backup copies 1 MiB at a time: commits need the disk too (faults.md D11)."""
PRUNED_ROWS = 5000
"""Journal rows looked at in one go: some milliseconds of the writer's time."""
KEEP_JOURNAL = timedelta(days=30)
KEEP_SENT = timedelta(days=30)
KEEP_SCHEDULES = timedelta(days=30)

T = TypeVar("T")


@dataclass(slots=True)
class _Unit:
    """Records to commit together, or a question; ``done`` tells the event loop."""

    records: Sequence[ports.Record]
    now: datetime | None
    question: Callable[[sqlite3.Connection], Any] | None
    future: asyncio.Future[Any] | None


class SqliteStore:
    """The Store port on one SQLite file.

    ``threaded=False`` commits in the caller: for tests in virtual time only.
    """

    def __init__(self, path: Path, *, threaded: bool = True) -> None:
        """Open, check and migrate. Raises StoreFault when the file cannot be used."""
        self._path = path
        self._ballast = path.with_name(f"{path.name}.ballast")
        self._queries = load_queries()
        self._lock_fd = take_lock(path)
        try:
            self._db = _connect(path)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._threaded = threaded
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0
        self._room = asyncio.Event()
        self._closed = False
        self._stopping = False
        self.commits = 0
        self.units = 0

    # --- writing ------------------------------------------------------------

    def start(self) -> None:
        """Start the writer; call inside the event loop."""
        if self._threaded:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._run, name="store-writer", daemon=True
            )
            self._thread.start()

    async def commit(self, records: Sequence[ports.Record], now: datetime) -> None:
        """Write records in one transaction; returns when they are on disk."""
        if self._thread is None or self._loop is None:
            if self._closed:
                raise StoreFault(CLOSED)
            self._write_group([_Unit(records, now, None, None)])
            return
        if self._held >= WAITING_MAX:
            await self._room_made()
        await self._submit(self._loop, _Unit(records, now, None, None))

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read on the one connection."""
        if self._thread is None or self._loop is None:
            if self._closed:
                raise StoreFault(CLOSED)
            return question(self._db)
        if self._held >= WAITING_MAX:
            await self._room_made()
        answer: T = await self._submit(self._loop, _Unit((), None, question, None))
        return answer

    async def stop(self) -> None:
        """Finish what waits, checkpoint, close."""
        if self._thread is not None:
            self._stopping = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, 20.0)
            self._thread = None
        self.close()

    def close(self) -> None:
        """Close without a writer thread."""
        if self._closed:
            return
        self._closed = True
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._db.close()
        os.close(self._lock_fd)

    async def _room_made(self) -> None:
        while self._held >= WAITING_MAX:
            self._room.clear()
            await self._room.wait()

    def _submit(self, loop: asyncio.AbstractEventLoop, unit: _Unit) -> asyncio.Future[Any]:
        """Hand a unit to the writer; what a caller awaits is the future itself."""
        if self._stopping:
            raise StoreFault(CLOSED)
        self._held += 1
        unit.future = future = loop.create_future()
        self._queue.put(unit)
        return future

    def _run(self) -> None:
        _let_the_loop_finish()
        while True:
            first = self._queue.get()
            if first is None:
                return
            group = [first]
            is_last = False
            while len(group) < GROUP_MAX:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    is_last = True
                    break
                group.append(more)
            self._serve(group)
            if is_last:
                return

    def _serve(self, group: list[_Unit]) -> None:
        writes = [unit for unit in group if unit.question is None]
        answers: list[tuple[_Unit, Any, Exception | None]] = []
        if writes:
            try:
                self._write_group(writes)
                answers.extend((unit, None, None) for unit in writes)
            except Exception:  # noqa: BLE001 - each unit is told its own below
                answers.extend(self._write_alone(unit) for unit in writes)
        for unit in group:
            if unit.question is not None:
                try:
                    answers.append((unit, unit.question(self._db), None))
                except sqlite3.Error as error:
                    answers.append((unit, None, _fault(error)))
                except Exception as error:  # noqa: BLE001 - the asker's, not the thread's
                    answers.append((unit, None, error))
        assert self._loop is not None  # noqa: S101 - started
        try:
            self._loop.call_soon_threadsafe(self._tell, answers)
        except RuntimeError:
            return  # the loop is gone: nobody waits any more

    def _tell(self, answers: list[tuple[_Unit, Any, Exception | None]]) -> None:
        """Answer a whole group in one callback of the event loop."""
        self._held -= len(answers)
        self._room.set()
        for unit, value, error in answers:
            future = unit.future
            if future is None or future.done():
                continue  # nobody waits any more
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _write_alone(self, unit: _Unit) -> tuple[_Unit, None, Exception | None]:
        try:
            self._write_group([unit])
        except Exception as error:  # noqa: BLE001 - a bug ends its caller, not the thread
            return unit, None, error
        return unit, None, None

    def _write_group(self, group: Sequence[_Unit]) -> None:
        try:
            self._try_group(group)
        except StoreFault as fault:
            if not _is_full(fault) or not self._let_go_of_ballast():
                raise
            self._try_group(group)

    def keep_ballast(self) -> None:
        """Hold some space back for a full disk, if there is room for it again."""
        ballast = self._ballast
        try:
            if ballast.exists() and ballast.stat().st_size >= BALLAST_BYTES:
                return
            fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError:
            with suppress(OSError):
                ballast.unlink(missing_ok=True)

    def _let_go_of_ballast(self) -> bool:
        """Give the space that was held back; whether there was any."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        log.error(
            "disk_full",
            reason="the space that was held back is in use now: free the disk at once, "
            "or stations' messages stay unanswered soon",
        )
        return True

    def _try_group(self, group: Sequence[_Unit]) -> None:
        db = self._db
        batch = self._batch(group)
        try:
            if len(batch) == 1:
                db.execute(*batch[0])  # one statement is a transaction of its own
            elif batch:
                db.execute("BEGIN IMMEDIATE")
                for sql, parameters in batch:
                    db.execute(sql, parameters)
                db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _fault(error) from error
            raise
        self.commits += 1
        self.units += len(group)

    def _batch(self, group: Sequence[_Unit]) -> list[tuple[str, Sequence[Any]]]:
        """Translate a group into few statements: each is a hand-over between threads."""
        journal: list[ports.JournalRow] = []
        batch: list[tuple[str, Sequence[Any]]] = []
        for unit in group:
            assert unit.now is not None  # noqa: S101 - a write has a time
            for record in unit.records:
                if type(record) is ports.JournalRow:
                    journal.append(record)
                    continue
                for name, parameters in rows.statements(record, unit.now):
                    batch.append((self._queries[name], parameters))
        for start in range(0, len(journal), JOURNAL_ROWS_MAX):
            part = journal[start : start + JOURNAL_ROWS_MAX]
            sql = self._queries["add_journal"] + ROW_MORE * (len(part) - 1)
            batch.append((sql, rows.journal_parameters(part)))
        return batch

    # --- reading --------------------------------------------------------------

    def load(self, rated_w: Mapping[StationId, int]) -> ports.Loaded:
        """Read all that survives a restart; call before ``start``.

        ``rated_w`` is the configured rating per station: configuration wins over what
        was stored. Stations that are no longer configured are left out. Raises
        StoreDamaged when what is read makes no sense.
        """
        try:
            return self._load(rated_w)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"[:160]
            raise StoreDamaged(f"the database {self._path} is damaged ({what})") from error

    def _load(self, rated_w: Mapping[StationId, int]) -> ports.Loaded:
        db, queries = self._db, self._queries
        sequences = dict(db.execute(queries["load_sequences"]).fetchall())
        stations: dict[StationId, StationState] = {}
        seqs: dict[StationId, int] = {}
        for name, seq, body in db.execute(queries["load_stations"]).fetchall():
            station_id = StationId(name)
            if station_id in rated_w:
                found = rows.decode(StationState, body)
                stations[station_id] = replace(
                    found,
                    rated_w=rated_w[station_id],
                    is_connected=False,
                    sessions=self._sessions_of(station_id),
                )
                seqs[station_id] = seq
        schedules_at = sequences.get("schedules_at_ms")
        vehicles_at = sequences.get("vehicles_at_ms")
        return ports.Loaded(
            stations=stations,
            tail=self._tail(seqs),
            capabilities={
                StationId(name): rows.decode(Capabilities, body)
                for name, body in db.execute(queries["load_capabilities"]).fetchall()
            },
            limits=self._limits(),
            ladders=tuple(
                rows.decode(Learned, body)
                for (body,) in db.execute(queries["load_ladders"]).fetchall()
            ),
            vehicles={
                VehicleId(name): rows.decode(Vehicle, body)
                for name, body, _ in db.execute(queries["load_vehicles"]).fetchall()
            },
            vehicles_at=rows.at_ms(vehicles_at) if vehicles_at else None,
            schedules={
                ScheduleId(name): rows.decode(Schedule, body)
                for name, body in db.execute(queries["load_schedules"]).fetchall()
            },
            schedules_at=rows.at_ms(schedules_at) if schedules_at else None,
            last_seq=db.execute(queries["last_seq"]).fetchone()[0],
            last_transaction_id=sequences.get("transaction_id", 0),
        )

    def _sessions_of(self, station_id: StationId) -> dict[SessionId, Session]:
        found = self._db.execute(
            self._queries["load_sessions"], (station_id, RECENT_SESSIONS_MAX)
        ).fetchall()
        sessions = [rows.decode(Session, body) for (body,) in found]
        return {item.session_id: item for item in sessions}

    def _tail(self, seqs: dict[StationId, int]) -> tuple[ports.JournalRow, ...]:
        if not seqs:
            return ()
        found = self._db.execute(self._queries["journal_tail"], (min(seqs.values()),))
        return tuple(rows.journal_row(row) for row in found if row[2] in seqs)

    def _limits(self) -> dict[Outlet, OutletPower]:
        found = self._db.execute(self._queries["load_limits"]).fetchall()
        return {
            (StationId(station), EvseId(evse)): rows.decode(OutletPower, body)
            for station, evse, body in found
        }

    async def due_outbox(self, destination: str, limit: int) -> list[ports.OutboxRow]:
        """Read the oldest rows that are owed to one destination, in order."""
        sql = self._queries["due_outbox"]
        found = await self.ask(lambda db: db.execute(sql, (destination, limit)).fetchall())
        return [rows.outbox_row(row) for row in found]

    async def outbox_rows(self) -> list[ports.OutboxRow]:
        """Read all rows that are owed or dead."""
        sql = self._queries["all_outbox"]
        found = await self.ask(lambda db: db.execute(sql).fetchall())
        return [rows.outbox_row(row) for row in found]

    async def outbox_of(self, key: str) -> list[ports.OutboxRow]:
        """Read the rows of one key, of every destination, also those that were taken."""
        sql = self._queries["outbox_of_key"]
        found = await self.ask(lambda db: db.execute(sql, (key,)).fetchall())
        return [rows.outbox_row(row) for row in found]

    async def sessions(
        self, *, limit: int, session_id: SessionId | None = None
    ) -> list[Session]:
        """Read sessions, newest first."""
        name = "newest_sessions" if session_id is None else "one_session"
        sql = self._queries[name]
        parameter = limit if session_id is None else session_id
        found = await self.ask(lambda db: db.execute(sql, (parameter,)).fetchall())
        return [rows.decode(Session, body) for (body,) in found]

    async def sessions_between(
        self, since: datetime, until: datetime, *, after: tuple[int, str], limit: int
    ) -> list[Session]:
        """Read sessions that were plugged in from ``since`` to before ``until``.

        Oldest first; ``after`` is the last one's plug-in (epoch ms) and id, or (-1, "").
        """
        sql = self._queries["sessions_between"]
        parameters = (rows.ms(since), rows.ms(until), *after, limit)
        found = await self.ask(lambda db: db.execute(sql, parameters).fetchall())
        return [rows.decode(Session, body) for (body,) in found]

    async def candidates(self) -> list[ports.Candidate]:
        """Read enrolment candidates, last seen first."""
        sql = self._queries["all_candidates"]
        found = await self.ask(lambda db: db.execute(sql).fetchall())
        return [
            ports.Candidate(
                mac=MacAddress(mac),
                station_id=StationId(station_id),
                first_at=rows.at_ms(first),
                last_at=rows.at_ms(last),
                sessions=count,
            )
            for mac, station_id, first, last, count in found
        ]

    async def facts(self, scope: str) -> dict[str, Mapping[str, object]]:
        """Read all facts of a scope, by name."""
        sql = self._queries["all_facts"]
        found = await self.ask(lambda db: db.execute(sql, (scope,)).fetchall())
        return {name: orjson.loads(body) for name, _, body in found}

    async def schedule_text(self, schedule_id: ScheduleId) -> str | None:
        """Read the cloud's own text of a schedule as last read."""
        sql = self._queries["schedule_text"]
        found = await self.ask(lambda db: db.execute(sql, (schedule_id,)).fetchone())
        return None if found is None else str(found[0])

    async def vehicle_texts(self) -> dict[VehicleId, str]:
        """Read the cloud's own text of all vehicles."""
        sql = self._queries["load_vehicles"]
        found = await self.ask(lambda db: db.execute(sql).fetchall())
        return {VehicleId(name): raw for name, _, raw in found}

    async def journal(self) -> list[ports.JournalRow]:
        """Read the whole journal, for audit and for the replay test."""
        sql = self._queries["whole_journal"]
        found = await self.ask(lambda db: db.execute(sql).fetchall())
        return [rows.journal_row(row) for row in found]

    async def backup(self, target: Path) -> None:
        """Write a consistent copy; the file appears under its name only when whole."""
        await self._beside(lambda: self._copy(target), f"the backup to {target}")

    def _copy(self, target: Path) -> None:
        if target.resolve() == self._path.resolve():
            raise StoreFault(f"{target} is the live database: name another file")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        try:
            with closing(self._reader()) as db, closing(sqlite3.connect(part)) as out:
                db.execute("BEGIN")  # one view of the file, however long it takes
                db.execute("SELECT count(*) FROM sequences").fetchone()
                db.backup(out, pages=COPY_PAGES, sleep=COPY_PAUSE_S)
                db.execute("ROLLBACK")
            fd = os.open(part, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def check(self) -> None:
        """Read the whole file for damage. Raises StoreDamaged."""
        found = await self._beside(self._checked, "the check")
        if found != "ok":
            suspect_mark(self._path).touch()  # the next start looks before it trusts
            raise StoreDamaged(f"the database {self._path} is damaged ({found})")

    def _checked(self) -> str:
        with closing(self._reader()) as db:
            return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])

    def _reader(self) -> sqlite3.Connection:
        """Open a connection of one's own: what takes long must hold up no commit."""
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    async def _beside(self, work: Callable[[], T], what: str) -> T:
        """Do something long in a thread while commits go on. Raises StoreFault."""
        if self._closed or self._stopping:
            raise StoreFault(CLOSED)
        try:
            return await asyncio.to_thread(work)
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreFault(f"{what} failed: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(f"the database {self._path} is damaged ({error})") from error

    async def prune(self, now: datetime) -> None:
        """Let go of what is neither owed nor needed (architecture.md section 5)."""
        for name, keep in (
            ("prune_outbox", KEEP_SENT),
            ("prune_schedules", KEEP_SCHEDULES),
            ("prune_orphans", KEEP_JOURNAL),
        ):
            before = (rows.ms(now - keep),)
            await self.ask(partial(_run_query, self._queries[name], before))
        await self._prune_journal(rows.ms(now - KEEP_JOURNAL))

    async def _prune_journal(self, before_ms: int) -> None:
        """Piece by piece, so that commits come between and the log stays small (D9)."""
        first = 0
        while True:
            found = await self.ask(
                partial(_run_query, self._queries["journal_piece"], (first, PRUNED_ROWS))
            )
            last = found[0][0]
            if last is None:
                return
            piece = (first, last, before_ms)
            await self.ask(partial(_run_query, self._queries["prune_journal"], piece))
            first = last


def _run_query(sql: str, values: Sequence[Any], db: sqlite3.Connection) -> list[Any]:
    return db.execute(sql, values).fetchall()


def _let_the_loop_finish() -> None:
    """Keep this thread, when a sync ends, from interrupting the one it works for.

    On one core the writer would wake, take the processor from the event loop, and wait
    at once for the interpreter's lock that the loop holds: a tenth of all time went
    there. It loses nothing: it runs as soon as the loop waits, or on another core.
    """
    with suppress(OSError, AttributeError):  # a sandbox forbids it; only Linux has it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _connect(path: Path) -> sqlite3.Connection:
    try:
        if path.exists():
            # Looked at before it is opened for writing: WAL mode alone changes a file.
            uri = f"{path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as looker:
                check_owner(looker)
        db = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_CACHED,
        )
        try:
            verdict = _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # What the disk refuses has a code of its own; SQLITE_ERROR is what the file says
        # ("unsupported file format").
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            raise StoreFault(
                f"the database {path} cannot be used ({error}): check that the folder "
                "exists, is writable for the service, and is not full"
            ) from error
        raise StoreDamaged(
            f"the database {path} cannot be used ({error}): it is damaged, or no "
            "database at all; correct store.path, or restore a backup"
        ) from error
    if verdict != "ok":
        db.close()
        raise StoreDamaged(
            f"the database {path} is damaged ({verdict}): move it aside and restore "
            "the newest backup"
        )
    return db


def suspect_mark(path: Path) -> Path:
    """The file that says that a check of this database has failed."""
    return path.with_name(f"{path.name}.suspect")


def _prepare(db: sqlite3.Connection, path: Path) -> str:
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT:d}").fetchall()
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA foreign_keys = ON")
    migrate(db)
    mark = suspect_mark(path)
    if path.stat().st_size > CHECKED_AT_START_BYTES and not mark.exists():
        return "ok"  # it would take longer than stations should wait: checked soon after
    verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict == "ok":
        mark.unlink(missing_ok=True)
    return verdict


def _is_full(fault: StoreFault) -> bool:
    cause = fault.__cause__
    return (
        isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    )


def _fault(error: Exception) -> StoreFault:
    return StoreFault(f"the database refused: {error}")
