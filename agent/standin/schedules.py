"""The book of schedules: add, synchronise, patch, active (chargeye.md 6.6 to 6.8).

Rows are kept as ChargEye's own JSON, so that unknown properties survive. Knows
nothing of planning: it says which entries changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonObject = dict[str, Any]
RECENT = timedelta(minutes=15)
"""What 6.6 calls "ended very recently"; the length is our guess."""
WRITABLE = (
    "locationUid", "plannedArrivalTime", "plannedDepartureTime", "recurrenceRule",
    "startSoC", "targetSoC", "plan", "planMeta",
)  # fmt: skip
SLOT_FIELDS = ("plannedArrivalTime", "plannedDepartureTime", "startSoC", "targetSoC")
SOC_MAX = 100


class BadRequestError(Exception):
    """The body is not what the API takes; answered with 400."""


@dataclass(slots=True)
class Entry:
    """One schedule; `is_foreign` when its plan was written by a client."""

    row: JsonObject
    arrival: datetime
    departure: datetime
    is_foreign: bool = False

    @property
    def id(self) -> str:
        """The schedule's key."""
        return str(self.row["id"])

    @property
    def is_recurring(self) -> bool:
        """Tell whether this is a template."""
        return bool(self.row.get("recurrenceRule"))

    @property
    def is_frozen(self) -> bool:
        """Tell whether it must not be planned anew."""
        return bool((self.row.get("planMeta") or {}).get("frozen")) or self.is_foreign

    def runs_at(self, now: datetime) -> bool:
        """Tell whether `now` lies in the slot."""
        return self.arrival <= now < self.departure


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that was written: the fields sent, and those that became different."""

    entry: Entry
    sent: frozenset[str]
    different: frozenset[str]


@dataclass(slots=True)
class Written:
    """Result of a POST or PATCH."""

    ids: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


class ScheduleBook:
    """All schedules of all vehicles, in the order in which they came."""

    def __init__(self) -> None:
        """Begin empty."""
        self.entries: dict[str, Entry] = {}
        self._made = 0

    def clear(self) -> None:
        """Forget all schedules."""
        self.entries.clear()

    def load(self, row: Mapping[str, Any]) -> Entry:
        """Take a fixture as it is; it needs `evId` and both times."""
        copy = dict(row)
        copy.setdefault("id", self._new_id())
        entry = _entry(copy)
        self.entries[entry.id] = entry
        return entry

    def of_vehicle(self, vehicle_id: str) -> list[Entry]:
        """Return dated schedules of one vehicle by arrival."""
        found = [
            entry
            for entry in self.entries.values()
            if entry.row["evId"] == vehicle_id and not entry.is_recurring
        ]
        return sorted(found, key=lambda entry: entry.arrival)

    def of_location(self, location_uid: str) -> list[Entry]:
        """Return dated and recurring schedules of one location."""
        found = [
            entry
            for entry in self.entries.values()
            if entry.row.get("locationUid") == location_uid
        ]
        return sorted(found, key=lambda entry: entry.arrival)

    def active(self, vehicle_id: str, now: datetime) -> tuple[Entry | None, Entry | None]:
        """Return the running (else next) schedule, and the last that ended."""
        entries = self.of_vehicle(vehicle_id)
        ahead = [entry for entry in entries if entry.departure > now]
        ended = [entry for entry in entries if entry.departure <= now]
        current = min(
            ahead,
            key=lambda e: (not e.runs_at(now), e.departure, e.arrival),
            default=None,
        )
        if current is not None and not current.runs_at(now):
            current = min(ahead, key=lambda e: (e.arrival, e.departure))
        return current, max(ended, key=lambda e: e.departure, default=None)

    def post(
        self, vehicle_id: str, posted: list[Any], now: datetime, *, replaces: bool
    ) -> Written:
        """Add `posted`, or make them all that is known ahead (6.6)."""
        rows = [_posted(item) for item in posted]
        written = Written()
        upcoming = [e for e in self.of_vehicle(vehicle_id) if e.departure > now]
        matched = self._match(vehicle_id, rows, now) if replaces else {}
        for number, row in enumerate(rows):
            entry = matched.get(number)
            if entry is None:
                entry = self._create(vehicle_id, row)
                written.changes.append(Change(entry, frozenset(row), frozenset(row)))
            else:
                written.changes.append(_update(entry, row))
            written.ids.append(entry.id)
        if replaces:
            for entry in upcoming:
                if entry.id not in written.ids:
                    del self.entries[entry.id]
                    written.removed.append(entry.id)
        return written

    def patch(
        self, vehicle_id: str, patches: list[Any], now: datetime, grace: timedelta
    ) -> Written:
        """Change entries by id; what cannot be is skipped with a reason (6.7)."""
        written = Written()
        for item in patches:
            if not isinstance(item, dict) or not isinstance(item.get("id"), str):
                raise BadRequestError("each schedule needs an id")
        for item in patches:
            entry = self.entries.get(item["id"])
            fields = {key: item[key] for key in WRITABLE if key in item}
            reason = _skip_reason(entry, vehicle_id, fields, now - grace)
            if entry is None or reason is not None:
                written.skipped[item["id"]] = reason or "unknown id"
                continue
            written.ids.append(entry.id)
            written.changes.append(_update(entry, fields))
        return written

    def _match(
        self, vehicle_id: str, rows: list[JsonObject], now: datetime
    ) -> dict[int, Entry]:
        """Find for each posted row the entry that it means, exact matches first."""
        known = [e for e in self.entries.values() if e.row["evId"] == vehicle_id]
        matched: dict[int, Entry] = {}
        for number, row in enumerate(rows):
            departure = parse_time(row["plannedDepartureTime"])
            is_recurring = bool(row.get("recurrenceRule"))
            for entry in known:
                if entry.departure == departure and entry.is_recurring == is_recurring:
                    matched[number] = entry
                    known.remove(entry)
                    break
        dated = [entry for entry in known if not entry.is_recurring]
        for number, row in enumerate(rows):
            arrival = parse_time(row["plannedArrivalTime"])
            departure = parse_time(row["plannedDepartureTime"])
            if number in matched or not arrival <= now < departure:
                continue
            running = [e for e in dated if e.runs_at(now)]
            recent = [e for e in dated if now - RECENT < e.departure <= now]
            for entry in [*running, *recent][:1]:
                matched[number] = entry
                dated.remove(entry)
        return matched

    def _create(self, vehicle_id: str, row: JsonObject) -> Entry:
        entry = _entry({"id": self._new_id(), "evId": vehicle_id, **row})
        entry.is_foreign = "plan" in row
        self.entries[entry.id] = entry
        return entry

    def _new_id(self) -> str:
        self._made += 1
        while f"schedule-{self._made:06d}" in self.entries:
            self._made += 1
        return f"schedule-{self._made:06d}"


def parse_time(text: Any) -> datetime:
    """Read ISO 8601 with a zone; anything else is a bad request."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{text!r:.60} is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        raise BadRequestError(f"{text!r:.60} has no time zone")
    return moment.astimezone(UTC)


def require_list(body: Any, key: str) -> list[Any]:
    """Return the list under `key` of a JSON object, else refuse."""
    if not isinstance(body, dict) or not isinstance(body.get(key), list):
        raise BadRequestError(f"{key} is required and must be a list")
    return list(body[key])


def _entry(row: JsonObject) -> Entry:
    arrival = parse_time(row.get("plannedArrivalTime"))
    departure = parse_time(row.get("plannedDepartureTime"))
    if departure <= arrival:
        raise BadRequestError("plannedDepartureTime is not after plannedArrivalTime")
    return Entry(row, arrival, departure)


def _posted(item: Any) -> JsonObject:
    if not isinstance(item, dict):
        raise BadRequestError("a schedule must be an object")
    row = {key: item[key] for key in WRITABLE if key in item}
    _entry(row)
    _check_values(row)
    return row


def _check_values(fields: Mapping[str, Any]) -> None:
    for key in ("startSoC", "targetSoC"):
        value = fields.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequestError(f"{key} must be a number")
        if not 0 <= value <= SOC_MAX:
            raise BadRequestError(f"{key} must lie from 0 to 100 percent")
    for key in ("plan", "planMeta"):
        if not isinstance(fields.get(key, {}), dict):
            raise BadRequestError(f"{key} must be an object")


def _skip_reason(
    entry: Entry | None, vehicle_id: str, fields: JsonObject, departed_by: datetime
) -> str | None:
    if entry is None:
        return "unknown id"
    if entry.row["evId"] != vehicle_id:
        return "belongs to another vehicle"
    if not entry.is_recurring and entry.departure <= departed_by:
        return "already departed"
    try:
        _check_values(fields)
        _entry({**entry.row, **fields})
    except BadRequestError as error:
        return str(error)
    return None


def _update(entry: Entry, fields: Mapping[str, Any]) -> Change:
    new = dict(fields)
    if "planMeta" in new:
        new["planMeta"] = {**(entry.row.get("planMeta") or {}), **new["planMeta"]}
    different = {key for key, value in new.items() if entry.row.get(key) != value}
    if "plan" in new:
        entry.is_foreign = True
    entry.row.update(new)
    entry.arrival = parse_time(entry.row["plannedArrivalTime"])
    entry.departure = parse_time(entry.row["plannedDepartureTime"])
    return Change(entry, frozenset(new), frozenset(different))
