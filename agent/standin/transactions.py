"""Transactions in pages, as ChargEye hands them out (chargeye.md 9). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from agent.standin.planning import schedule_extract
from agent.standin.schedules import BadRequestError, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from agent.standin.schedules import Entry, JsonObject


def page(
    rows: Iterable[JsonObject], query: Mapping[str, str], page_rows: int
) -> JsonObject:
    """Return one page, newest first; `lastEvaluatedKey` only when more follow."""
    found = sorted(
        (row for row in rows if _is_in_range(row, query)),
        key=lambda row: str(row.get("startTime")),
        reverse=True,
    )
    start = _start(found, query.get("exclusiveStartKey"))
    shown = found[start : start + page_rows]
    body: JsonObject = {"transactions": shown, "summary": _summary(found)}
    if start + page_rows < len(found):
        last = shown[-1]
        body["lastEvaluatedKey"] = {
            key: last.get(key) for key in ("txId", "stationId", "startTime")
        }
    return body


def with_extract(
    row: JsonObject, entries: Mapping[str, Entry], now: datetime
) -> JsonObject:
    """Return the transaction with its `schedulePlan` brought up to `now`."""
    extract = row.get("schedulePlan")
    if not isinstance(extract, dict):
        return row
    entry = entries.get(str(extract.get("scheduleId")))
    current = schedule_extract(entry, now) if entry is not None else None
    return row if current is None else {**row, "schedulePlan": current}


def station_row(station: JsonObject) -> JsonObject:
    """Return the administrative row of a location's station list."""
    keys = ("stationId", "name", "model", "vendorName", "maxPowerKw")
    row = {key: station[key] for key in keys if key in station}
    return {"operationalStatus": "IN_OPERATION", **row}


def _is_in_range(row: JsonObject, query: Mapping[str, str]) -> bool:
    started = parse_time(row.get("startTime"))
    since, until = query.get("startDate"), query.get("endDate")
    if since is not None and started < _date(since):
        return False
    return until is None or started < _date(until)


def _date(text: str) -> datetime:
    """Read a date alone (midnight UTC) or a date-time."""
    return parse_time(text if "T" in text else f"{text}T00:00:00Z")


def _start(rows: list[JsonObject], key_text: str | None) -> int:
    if key_text is None:
        return 0
    try:
        key: Any = orjson.loads(key_text)
    except orjson.JSONDecodeError as error:
        raise BadRequestError("exclusiveStartKey is not JSON text") from error
    for i, row in enumerate(rows):
        if isinstance(key, dict) and row.get("txId") == key.get("txId"):
            return i + 1
    raise BadRequestError("exclusiveStartKey is unknown")


def _summary(rows: list[JsonObject]) -> JsonObject:
    def total(key: str) -> float:
        return sum(row.get(key) or 0 for row in rows)

    return {
        "count": len(rows),
        "chargedEnergyKwh": total("chargedEnergyKwh"),
        "chargingTimeMs": total("chargingDurationMs"),
        "occupiedTimeMs": total("sessionDurationMs"),
    }
