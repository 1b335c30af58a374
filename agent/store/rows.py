"""Rows <-> domain values: JSON bodies written by orjson, read back by pydantic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

import orjson
from pydantic import TypeAdapter

from agent import ports
from agent.domain import effects, events
from agent.domain.effects import Report
from agent.domain.ids import SessionId, StationId

T = TypeVar("T")
Parameters = tuple[str | int | bytes | None, ...]
Statement = tuple[str, Parameters]
"""Name of a statement in ``queries.sql`` and its parameters."""

OUTBOX_COLUMNS = 11
"""Of a row that is owed; one that is read by its key tells also when it was taken."""

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z


def ms(at: datetime) -> int:
    """Epoch milliseconds of a time."""
    return int(at.timestamp() * 1000)


def at_ms(value: int) -> datetime:
    """The time of epoch milliseconds, UTC."""
    return datetime.fromtimestamp(value / 1000, UTC)


def encode(value: object) -> bytes:
    """Write a domain value as JSON."""
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def text(value: object) -> str:
    """Write a domain value as JSON text."""
    return encode(value).decode()


_adapters: dict[type, TypeAdapter[Any]] = {}


def decode(kind: type[T], body: str | bytes) -> T:
    """Read a domain value back from JSON."""
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters.setdefault(kind, TypeAdapter(kind))
    value: T = adapter.validate_json(body)
    return value


EVENT_KINDS: dict[str, type] = {item.__name__: item for item in get_args(events.Event)}
REPORT_KINDS: dict[str, type] = {item.__name__: item for item in get_args(Report)}


def journal_row(row: tuple[Any, ...]) -> ports.JournalRow:
    """Read a row of the journal."""
    seq, at, station_id, new_session_id, kind, body = row
    return ports.JournalRow(
        seq=seq,
        at=at_ms(at),
        station_id=StationId(station_id),
        new_session_id=SessionId(new_session_id),
        event=decode(EVENT_KINDS[kind], body),
    )


def outbox_row(row: tuple[Any, ...]) -> ports.OutboxRow:
    """Read a row of the outbox."""
    (row_id, destination, key, session_id, kind, body) = row[:6]
    (created, attempts, next_at, error, is_dead) = row[6:11]
    sent_at = row[11] if len(row) > OUTBOX_COLUMNS else None
    return ports.OutboxRow(
        row_id=row_id,
        destination=destination,
        key=key,
        session_id=SessionId(session_id),
        report=decode(REPORT_KINDS[kind], body),
        created_at=at_ms(created),
        attempts=attempts,
        next_at=at_ms(next_at),
        error=error,
        is_dead=bool(is_dead),
        sent_at=at_ms(sent_at) if sent_at is not None else None,
    )


def statements(record: ports.Record, now: datetime) -> Iterator[Statement]:
    """Translate a record into statements."""
    yield from WRITERS[type(record)](record, now)


def journal_parameters(part: Sequence[ports.JournalRow]) -> list[str | int | bytes]:
    """Flatten journal rows into the parameters of one ``add_journal``."""
    found: list[str | int | bytes] = []
    for row in part:
        event = row.event
        found += (
            row.seq,
            ms(row.at),
            row.station_id,
            row.new_session_id,
            type(event).__name__,
            encode(event),
        )
    return found


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in the database")


def _station(row: ports.StationSaved, _: datetime) -> Iterator[Statement]:
    state = row.state
    body = {
        name: getattr(state, name)
        for name in state.__dataclass_fields__
        if name != "sessions"
    }
    yield "save_station", (state.station_id, row.seq, text(body))


def _session(row: effects.SessionSaved, _: datetime) -> Iterator[Statement]:
    session = row.session
    yield (
        "save_session",
        (
            session.session_id,
            session.station_id,
            session.evse_id,
            session.phase,
            session.vehicle_id,
            ms(session.plugged_at),
            ms(session.ended_at) if session.ended_at else None,
            text(session),
        ),
    )


def _outbox(row: effects.OutboxAdded, now: datetime) -> Iterator[Statement]:
    kind = type(row.report).__name__
    yield (
        "add_outbox",
        (
            row.destination,
            row.key,
            row.session_id,
            kind,
            text(row.report),
            ms(now),
        ),
    )


def _candidate(row: effects.CandidateSeen, _: datetime) -> Iterator[Statement]:
    at = ms(row.at)
    yield "seen_candidate", (row.mac, row.station_id, at, at, row.session_id)


def _orphan(row: effects.OrphanKept, _: datetime) -> Iterator[Statement]:
    yield "add_orphan", (ms(row.at), row.station_id, row.text)


def _transaction_id(row: ports.TransactionIdTaken, _: datetime) -> Iterator[Statement]:
    yield "save_sequence", ("transaction_id", row.transaction_id)


def _limit(row: ports.LimitSaved, _: datetime) -> Iterator[Statement]:
    yield "save_limit", (row.outlet[0], row.outlet[1], text(row.power))


def _capabilities(row: ports.CapabilitiesSaved, _: datetime) -> Iterator[Statement]:
    yield "save_capabilities", (row.station_id, text(row.capabilities))


def _ladder(row: ports.LadderSaved, now: datetime) -> Iterator[Statement]:
    key = row.learned.key
    names = (key.vendor, key.model, key.firmware)
    yield "save_ladder", (*names, ms(now), text(row.learned))


def _fact(row: ports.FactSaved, now: datetime) -> Iterator[Statement]:
    if row.body is None:
        yield "drop_fact", (row.scope, row.name)
    else:
        yield "save_fact", (row.scope, row.name, ms(now), text(row.body))


def _vehicles(row: ports.VehiclesSaved, _: datetime) -> Iterator[Statement]:
    yield "clear_vehicles", ()
    for vehicle, raw in row.vehicles:
        yield "save_vehicle", (vehicle.vehicle_id, text(vehicle), raw)
    yield "save_sequence", ("vehicles_at_ms", ms(row.at))


def _schedules(row: ports.SchedulesSaved, _: datetime) -> Iterator[Statement]:
    for schedule, raw in row.schedules:
        yield (
            "save_schedule",
            (
                schedule.schedule_id,
                schedule.vehicle_id,
                ms(schedule.departs_at),
                text(schedule),
                raw,
            ),
        )
    for schedule_id in row.gone:
        yield "mark_schedule_gone", (ms(row.at), schedule_id)
    yield "save_sequence", ("schedules_at_ms", ms(row.at))


def _sent(row: ports.OutboxSent, now: datetime) -> Iterator[Statement]:
    yield "outbox_sent", (ms(now), row.row_id)


def _failed(row: ports.OutboxFailed, _: datetime) -> Iterator[Statement]:
    yield (
        "outbox_failed",
        (row.error[:500], ms(row.next_at), int(row.is_dead), row.row_id),
    )


def _revived(row: ports.OutboxRevived, _: datetime) -> Iterator[Statement]:
    yield "outbox_revived", (row.row_id,)


def _dropped(row: ports.OutboxDropped, now: datetime) -> Iterator[Statement]:
    yield "outbox_dropped", (ms(now), row.row_id)


Writer = Callable[[Any, datetime], Iterator[Statement]]
WRITERS: dict[type, Writer] = {
    ports.StationSaved: _station,
    ports.TransactionIdTaken: _transaction_id,
    ports.LimitSaved: _limit,
    ports.CapabilitiesSaved: _capabilities,
    ports.LadderSaved: _ladder,
    ports.FactSaved: _fact,
    ports.VehiclesSaved: _vehicles,
    ports.SchedulesSaved: _schedules,
    ports.OutboxSent: _sent,
    ports.OutboxFailed: _failed,
    ports.OutboxRevived: _revived,
    ports.OutboxDropped: _dropped,
    effects.SessionSaved: _session,
    effects.OutboxAdded: _outbox,
    effects.CandidateSeen: _candidate,
    effects.OrphanKept: _orphan,
}
