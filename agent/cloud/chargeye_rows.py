"""ChargEye's rows for operators, typed: places, stations, sessions, slots, answers.

Read leniently (chargeye.md sections 7 to 9): live data lacks what the tables call
required. Only what a row cannot do without is demanded; ``row`` keeps the cloud's own
object, with everything that this version does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.cloud.chargeye_parse import (
    KW_MAX,
    SOC_FULL,
    read_number,
    read_text,
    read_time,
)
from agent.cloud.http import Json
from agent.domain.identity import any_mac
from agent.domain.ids import MacAddress

KWH_MAX = 100_000.0
"""One charging session; more is a unit error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """A schedule as an operator handles it; ``recurrence`` marks a template."""

    schedule_id: str
    vehicle_id: str
    location_uid: str
    arrives_at: datetime | None
    departs_at: datetime | None
    recurrence: str
    row: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsRead:
    """A list of schedules; ``oddities`` tell why it may not be the whole truth."""

    slots: tuple[SlotRow, ...]
    recurring: tuple[SlotRow, ...] = ()
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRead:
    """The running or next slot and the last one that ended; either may be missing."""

    current_or_next: SlotRow | None
    previous: SlotRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The answer to a POST of schedules."""

    ids: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """The answer to a PATCH of schedules; skipped ones are no error (6.7)."""

    success: bool
    message: str
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A location: ``uid`` is the key, ``reference`` only the customer's name for it."""

    uid: str
    name: str
    reference: str
    city: str
    row: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSession:
    """What ChargEye calls a transaction: plug-in to unplug; Wh, percent, aware times.

    ``connector_ids`` are the names under which it may give the connector.
    """

    tx_id: str
    station_id: str
    connector_ids: tuple[str, ...]
    status: str
    started_at: datetime | None
    charging_started_at: datetime | None
    charging_ended_at: datetime | None
    ended_at: datetime | None
    energy_wh: float | None
    soc_start: float | None
    soc_end: float | None
    mac: MacAddress | None
    vehicle_id: str
    sequence: float
    planned_w: float | None
    row: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConnector:
    """A connector with its latest session, under whichever name that came (8)."""

    connector_id: str
    status: str
    kind: str
    last: CloudSession | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudStation:
    """A station as ChargEye sees it."""

    station_id: str
    name: str
    status: str
    online: str
    location_uid: str
    max_w: float | None
    connectors: tuple[CloudConnector, ...]
    row: Json = field(repr=False)


def read_slots(body: Any) -> SlotsRead:
    """Read a list of schedules. Raises ValueError when there is none.

    A row that cannot be read, and a list that goes on elsewhere, are oddities: what
    follows from the whole list must not be built on it.
    """
    if not isinstance(body, dict) or not isinstance(body.get("schedules"), list):
        raise ValueError("the list `schedules` is missing")  # noqa: TRY004 - peer data
    oddities: list[str] = []
    if body.get("lastEvaluatedKey"):
        oddities.append("the list goes on on another page")
    found = _slots(body["schedules"], oddities)
    templates = body.get("recurringSchedules")
    more = _slots(templates, oddities) if isinstance(templates, list) else []
    return SlotsRead(
        slots=tuple(item for item in found if not item.recurrence),
        recurring=(*more, *(item for item in found if item.recurrence)),
        oddities=tuple(oddities),
    )


def _slots(rows: list[Any], oddities: list[str]) -> list[SlotRow]:
    found: list[SlotRow] = []
    for row in rows:
        slot = read_slot(row)
        if slot is None:
            oddities.append("a schedule without an id cannot be read")
            continue
        if not slot.recurrence and (slot.arrives_at is None or slot.departs_at is None):
            oddities.append(f"the times of schedule {slot.schedule_id} cannot be read")
        found.append(slot)
    return found


def read_slot(row: Any) -> SlotRow | None:
    """Read one schedule; None when it has no id."""
    schedule_id = read_text(row.get("id")) if isinstance(row, dict) else ""
    if not schedule_id:
        return None
    return SlotRow(
        schedule_id=schedule_id,
        vehicle_id=read_text(row.get("evId")),
        location_uid=read_text(row.get("locationUid")),
        arrives_at=read_time(row.get("plannedArrivalTime")),
        departs_at=read_time(row.get("plannedDepartureTime")),
        recurrence=read_text(row.get("recurrenceRule")),
        row=row,
    )


def read_active(body: Any) -> ActiveRead:
    """Read the active schedule's answer (6.8)."""
    found = body if isinstance(body, dict) else {}
    return ActiveRead(
        current_or_next=read_slot(found.get("currentOrNext")),
        previous=read_slot(found.get("previous")),
    )


def read_posted(body: Any) -> Posted:
    """Read the answer to a POST; an empty one says nothing."""
    found = body if isinstance(body, dict) else {}
    return Posted(
        ids=_texts(found.get("ids")), removed=_texts(found.get("removedScheduleIds"))
    )


def read_patched(body: Any) -> Patched:
    """Read the answer to a PATCH; only ``success: false`` is a refusal."""
    found = body if isinstance(body, dict) else {}
    return Patched(
        success=found.get("success") is not False,
        message=read_text(found.get("message")),
        skipped=_texts(found.get("skippedScheduleIds")),
    )


def read_places(body: Any) -> list[Place]:
    """Read ``GET /locations``; the envelope's key is inferred, a bare list is taken.

    Raises ValueError when there is no list.
    """
    rows = body.get("locations") if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise ValueError("the list `locations` is missing")  # noqa: TRY004 - peer data
    found = [_place(row) for row in rows if isinstance(row, dict)]
    return [item for item in found if item.uid]


def read_place(body: Any) -> Place:
    """Read one location, wrapped or bare. Raises ValueError."""
    inner = body.get("location") if isinstance(body, dict) else None
    row = inner if isinstance(inner, dict) else body
    if not isinstance(row, dict) or not read_text(row.get("id")):
        raise ValueError("the answer is no location")
    return _place(row)


def _place(row: Json) -> Place:
    return Place(
        uid=read_text(row.get("id")),
        name=read_text(row.get("name")),
        reference=read_text(row.get("locationId")),
        city=read_text(row.get("city")),
        row=row,
    )


def read_stations(body: Any) -> list[CloudStation]:
    """Read ``GET /stations``. Raises ValueError when there is no list."""
    rows = body.get("stations") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ValueError("the list `stations` is missing")  # noqa: TRY004 - peer data
    found = [_station(row) for row in rows if isinstance(row, dict)]
    return [item for item in found if item.station_id]


def _station(row: Json) -> CloudStation:
    station_id = read_text(row.get("stationId"))
    connectors = row.get("connectors")
    rated_kw = read_number(row.get("maxPowerKw"), 0, KW_MAX)
    return CloudStation(
        station_id=station_id,
        name=read_text(row.get("name")),
        status=read_text(row.get("status")) or read_text(row.get("operationalStatus")),
        online=read_text(row.get("onlineStatus")),
        location_uid=read_text(row.get("locationUid")),
        max_w=rated_kw * 1000 if rated_kw else None,  # 0 means unknown (8)
        connectors=tuple(
            _connector(item, station_id)
            for item in (connectors if isinstance(connectors, list) else [])
            if isinstance(item, dict)
        ),
        row=row,
    )


def _connector(row: Json, station_id: str) -> CloudConnector:
    name = read_text(row.get("connectorId"))
    sessions = [
        read_session({"stationId": station_id, "evseId": name, **row[key]})
        for key in ("lastTransaction", "latestTransaction")
        if isinstance(row.get(key), dict)
    ]
    known = [item for item in sessions if item is not None]
    return CloudConnector(
        connector_id=name,
        status=read_text(row.get("status")),
        kind=read_text(row.get("type")),
        last=max(known, key=lambda item: item.sequence, default=None),
    )


def read_sessions(body: Any) -> tuple[list[CloudSession], Json | None]:
    """Read one page of transactions, and the key of the next one if there is one.

    Raises ValueError when there is no list.
    """
    rows = body.get("transactions") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ValueError("the list `transactions` is missing")  # noqa: TRY004 - peer data
    found = [read_session(row) for row in rows if isinstance(row, dict)]
    key = body.get("lastEvaluatedKey")
    return [item for item in found if item is not None], key or None


def read_session(row: Any) -> CloudSession | None:
    """Read one transaction; None without its id. Numbers that are null are missing."""
    tx_id = read_text(row.get("txId")) if isinstance(row, dict) else ""
    if not tx_id:
        return None
    kwh = read_number(row.get("chargedEnergyKwh"), 0, KWH_MAX)
    names = (row.get("evseId"), row.get("connectorId"), row.get("actualEVSEId"))
    vehicle, extract = row.get("vehicle"), row.get("schedulePlan")
    planned = extract if isinstance(extract, dict) else {}
    planned_kw = read_number(planned.get("powerkW"), 0, KW_MAX)
    return CloudSession(
        tx_id=tx_id,
        station_id=read_text(row.get("stationId")),
        connector_ids=tuple(dict.fromkeys(filter(None, map(_name, names)))),
        status=read_text(row.get("status")),
        started_at=read_time(row.get("startTime")),
        charging_started_at=read_time(row.get("chargingStartTime")),
        charging_ended_at=read_time(row.get("chargingEndTime")),
        ended_at=read_time(row.get("endTime")),
        energy_wh=None if kwh is None else round(kwh * 1000, 1),
        soc_start=_soc(row, ("socStart", "socInitial")),
        soc_end=_soc(row, ("socEnd", "soc")),
        mac=_mac(row),
        vehicle_id=read_text(vehicle.get("id") if isinstance(vehicle, dict) else None)
        or read_text(planned.get("evId")),
        sequence=read_number(row.get("sequenceNumber"), 0, 1e15) or 0.0,
        planned_w=None if planned_kw is None else planned_kw * 1000,
        row=row,
    )


def newest(sessions: Sequence[CloudSession]) -> list[CloudSession]:
    """One per id, the one with the highest sequence number, in the order given."""
    best: dict[str, CloudSession] = {}
    for item in sessions:
        known = best.get(item.tx_id)
        if known is None or item.sequence > known.sequence:
            best[item.tx_id] = item
    return list(best.values())


def _soc(row: Json, names: tuple[str, ...]) -> float | None:
    """The first that is a percentage; 0 stands for the handshake's missing value (12.3)."""
    for name in names:
        found = read_number(row.get(name), 0, SOC_FULL)
        if found:
            return found
    return None


def _mac(row: Json) -> MacAddress | None:
    for name in ("evMacAddress", "evRunId"):
        found = any_mac(read_text(row.get(name)))
        if found is not None:
            return found
    return None


def _name(value: Any) -> str:
    """A connector's name: text, or the nozzle's bare number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return read_text(value)


def _texts(value: Any) -> tuple[str, ...]:
    rows = value if isinstance(value, list) else []
    return tuple(item for item in rows if isinstance(item, str))
