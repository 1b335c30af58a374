"""What a synchronisation of one vehicle's schedules would do, before it is done.

Pure. The rules are those of chargeye.md 6.6: matched by departure time, what is upcoming
and not posted is deleted. How near two departures must be, and what "ended very recently"
means, is not public (*inferred*: the same millisecond; a quarter of an hour). A view that
may not be the whole truth allows no synchronisation, for the rest would be deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from agent.cloud.chargeye_parse import read_text, read_time
from agent.cloud.chargeye_rows import ActiveRead, SlotRow, SlotsRead
from agent.cloud.http import Json

RECENT = timedelta(minutes=15)
"""How long after its departure a slot may still be taken for the running one."""
SLOTS_MAX = 2000
"""Schedules of one vehicle; more is no view that a person can check."""
COMPARED = (
    "locationUid", "plannedArrivalTime", "plannedDepartureTime", "recurrenceRule",
    "startSoC", "targetSoC",
)  # fmt: skip
"""What makes two schedules different; plans age by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A known schedule that a posted one would change, with the fields that differ."""

    slot: SlotRow
    fields: dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What would be done. ``mark`` names this view and this wish together.

    ``templates`` are known recurring schedules that the wish does not name.
    """

    created: tuple[Json, ...]
    updated: tuple[Update, ...]
    unchanged: tuple[SlotRow, ...]
    deleted: tuple[SlotRow, ...]
    mark: str
    templates: tuple[SlotRow, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.created and not self.updated and not self.deleted


def why_partial(
    vehicle_id: str, own: SlotsRead, of_location: SlotsRead, active: ActiveRead | None
) -> str | None:
    """Say why a vehicle's list may lack something, or None when it is the whole list.

    Three reads must agree: whatever the location's list and the active schedule show of
    this vehicle must be in the vehicle's own list.
    """
    if own.oddities:
        return "; ".join(own.oddities[:3])
    if len(own.slots) > SLOTS_MAX:
        return f"it has {len(own.slots)} schedules, more than {SLOTS_MAX}"
    known = {slot.schedule_id for slot in own.slots}
    if len(known) != len(own.slots):
        return "an id stands in it twice"
    strangers = {slot.vehicle_id for slot in own.slots} - {"", vehicle_id}
    if strangers:
        return f"it also lists {', '.join(sorted(strangers)[:3])}"
    elsewhere = [slot for slot in of_location.slots if slot.vehicle_id == vehicle_id]
    if active is not None and active.current_or_next is not None:
        elsewhere.append(active.current_or_next)
    lacking = [slot.schedule_id for slot in elsewhere if slot.schedule_id not in known]
    if lacking:
        return f"another list shows {', '.join(sorted(set(lacking))[:3])} beside it"
    return None


def plan_sync(
    known: Sequence[SlotRow], posted: Sequence[Json], now: datetime, *, vehicle_id: str
) -> SyncPlan:
    """Work out what ``replaceFutureSchedules`` would do with ``posted`` at ``now``.

    ``known`` may hold templates: they are matched by a template's departure, and what
    becomes of one that is not posted is not documented, so that none is foretold gone.
    Raises ValueError where that is anybody's guess: two slots run at once and neither
    has the departure of the posted one that runs.
    """
    dated = sorted(known, key=_order)
    left = list(dated)
    found: dict[int, SlotRow] = {}
    for number, row in enumerate(posted):
        departs_at = read_time(row.get("plannedDepartureTime"))
        recurs = bool(row.get("recurrenceRule"))
        match = next(
            (
                s
                for s in left
                if s.departs_at == departs_at and bool(s.recurrence) == recurs
            ),
            None,
        )
        if match is not None:
            found[number] = match
            left.remove(match)
    for number, row in enumerate(posted):
        if number not in found and _spans(row, now):
            match = _running(left, now)
            if match is not None:
                found[number] = match
                left.remove(match)
    updated, unchanged = [], []
    for number, slot in found.items():
        fields = differences(slot.row, posted[number])
        if fields:
            updated.append(Update(slot=slot, fields=fields))
        else:
            unchanged.append(slot)
    return SyncPlan(
        created=tuple(row for number, row in enumerate(posted) if number not in found),
        updated=tuple(updated),
        unchanged=tuple(unchanged),
        deleted=tuple(
            slot
            for slot in left
            if not slot.recurrence and slot.departs_at is not None and slot.departs_at > now
        ),
        mark=_mark(vehicle_id, dated, posted),
        templates=tuple(slot for slot in left if slot.recurrence),
    )


def differences(row: Json, wish: Json) -> dict[str, tuple[Any, Any]]:
    """Fields of a wish that a schedule does not have yet: name -> (is, shall be).

    Times that are the same instant are equal, however they are written.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in wish.items():
        is_value = row.get(name)
        if value == is_value:
            continue
        at, is_at = read_time(value), read_time(is_value)
        if name.startswith("planned") and at is not None and at == is_at:
            continue
        found[name] = (is_value, value)
    return found


def missing(known: Iterable[SlotRow], posted: Sequence[Json]) -> list[Json]:
    """Those of ``posted`` that no known schedule equals, each known one used once."""
    left = list(known)
    lacking: list[Json] = []
    for row in posted:
        match = next((slot for slot in left if not differences(slot.row, row)), None)
        if match is None:
            lacking.append(row)
        else:
            left.remove(match)
    return lacking


def same_slot(slot: SlotRow, row: Json) -> bool:
    """Whether a posted schedule has the arrival and departure of a known one."""
    return (slot.arrives_at, slot.departs_at) == (
        read_time(row.get("plannedArrivalTime")),
        read_time(row.get("plannedDepartureTime")),
    ) and slot.recurrence == read_text(row.get("recurrenceRule"))


def _spans(row: Json, now: datetime) -> bool:
    arrives_at = read_time(row.get("plannedArrivalTime"))
    departs_at = read_time(row.get("plannedDepartureTime"))
    return (
        arrives_at is not None
        and departs_at is not None
        and not row.get("recurrenceRule")
        and arrives_at <= now < departs_at
    )


def _running(slots: Sequence[SlotRow], now: datetime) -> SlotRow | None:
    """The running slot, else the one that ended a moment ago."""
    timed = [(s.arrives_at, s.departs_at, s) for s in slots if not s.recurrence]
    known = [(a, d, s) for a, d, s in timed if a is not None and d is not None]
    running = [slot for arrives, departs, slot in known if arrives <= now < departs]
    recent = [slot for _, departs, slot in known if now - RECENT < departs <= now]
    found = running or recent
    if len(found) > 1:
        names = ", ".join(slot.schedule_id for slot in found)
        raise ValueError(f"which of {names} a posted running schedule means is not known")
    return found[0] if found else None


def _order(slot: SlotRow) -> tuple[str, str]:
    at = slot.arrives_at
    return (at.isoformat() if at is not None else "", slot.schedule_id)


def _mark(vehicle_id: str, known: Sequence[SlotRow], posted: Sequence[Json]) -> str:
    """A name for what was seen and what is wished; another one after any change."""
    seen = [
        [slot.schedule_id, *(slot.row.get(name) for name in COMPARED)] for slot in known
    ]
    text = orjson.dumps([vehicle_id, seen, list(posted)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:12]
