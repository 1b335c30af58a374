"""Smartcar's JSON to the agent's words: pure, tolerant of shapes, strict with units.

A value whose unit is not known is refused and named in ``problems``, never guessed
(smartcar.md section 4). What a car does not say is None and no problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

from agent.cloud.smartcar_errors import ApiError, item_error
from agent.ports import Car, CarState, Connection, Sourced

MILLISECONDS_FROM = 100_000_000_000
"""A time stamp from here on is in milliseconds, a smaller one in seconds (section 4)."""
FUTURE_S = 600.0
"""A value recorded later than this from now is of unknown age, not fresh."""
VIN_LENGTH = 17
WORD_MAX = 60
ID_MAX = 100
PERMISSIONS_MAX = 64
NEVER = datetime.min.replace(tzinfo=UTC)
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
"""No car sent anything before; smaller stamps (static signals carry 0) say nothing."""

PERCENT: Mapping[str, float] = {"": 1.0, "percent": 1.0, "%": 1.0, "percentage": 1.0}
LENGTHS: Mapping[str, float] = {
    "": 1.0, "km": 1.0, "kilometer": 1.0, "kilometers": 1.0, "kilometre": 1.0,
    "kilometres": 1.0, "mi": 1.609344, "mile": 1.609344, "miles": 1.609344,
}  # fmt: skip
ENERGIES: Mapping[str, float] = {
    "": 1000.0, "kwh": 1000.0, "kwhr": 1000.0, "kilowatthour": 1000.0,
    "kilowatthours": 1000.0, "wh": 1.0,
}  # fmt: skip
"""Unit as written (lower case, no blanks) to its factor; a missing one is the usual."""

SOC = "tractionbattery-stateofcharge"
RANGE = "tractionbattery-range"
CAPACITY = "tractionbattery-nominalcapacity"
PLUGGED = "charge-ischargingcableconnected"
CHARGING = "charge-ischarging"
DETAIL = "charge-detailedchargingstatus"
LIMITS = "charge-chargelimits"
VIN = "vehicleidentification-vin"
WANTED = frozenset({SOC, RANGE, CAPACITY, PLUGGED, CHARGING, DETAIL, LIMITS, VIN})
"""Signals that the agent uses; when all are there, no further page is read."""
TIMERS = "charge-chargetimers"
"""Used where it comes along; no page is read for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsRead:
    """A car's signals as far as they were of use."""

    state: CarState
    count: int
    """Signals in the store, whatever they are; 0 is an empty store."""
    problems: tuple[str, ...] = ()
    errors: tuple[ApiError, ...] = ()
    """Errors of single wanted signals; those of an idle car are left out."""
    make: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnd:
    """How a command's body says it ended; ``status`` is upper case or empty."""

    status: str = ""
    error: ApiError | None = None


def time_of(raw: Any, now: datetime) -> datetime | None:
    """Read any of the three encodings; None for 0, null, nonsense and the future."""
    try:
        if isinstance(raw, str):
            found = datetime.fromisoformat(raw)
            found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
            seconds = raw / 1000 if raw >= MILLISECONDS_FROM else raw
            found = datetime.fromtimestamp(seconds, UTC)
        else:
            return None
        is_sane = EARLIEST < found <= now + timedelta(seconds=FUTURE_S)
        return found.astimezone(UTC) if is_sane else None
    except (ValueError, OverflowError, OSError):
        return None


def rows_of(body: Any) -> list[dict[str, Any]]:
    """The rows of a page. Raises ValueError when there is no list."""
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ValueError("it has no list under 'data'")  # noqa: TRY004 - of a cloud's JSON
    return [row for row in rows if isinstance(row, dict)]


def next_of(body: Any, current: str) -> str | None:
    """The address of the next page, or None. Raises ValueError for a foreign one."""
    links = body.get("links") if isinstance(body, dict) else None
    found = links.get("next") if isinstance(links, dict) else None
    if not isinstance(found, str) or not found.strip():
        return None
    there, here = urlsplit(urljoin(current, found.strip())), urlsplit(current)
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise ValueError(f"its next page is at another host, {there.netloc[:80]!r}")
    return there.geturl()


# --- signals --------------------------------------------------------------------------


class _Refused(ValueError):  # noqa: N818 - the value, not the program
    """A value that cannot be used; the text says why."""


def codes_of(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The codes of rows, lower case."""
    return frozenset(_code(row) for row in rows)


def read_signals(rows: Iterable[Mapping[str, Any]], now: datetime) -> SignalsRead:
    """Read the signals that the agent uses; the newest of a doubled one counts."""
    by_code: dict[str, tuple[datetime, Mapping[str, Any]]] = {}
    count = 0
    for row in rows:
        count += 1
        code = _code(row)
        at = _recorded(row, now) or NEVER
        is_used = code in WANTED or code == TIMERS
        if is_used and (code not in by_code or at >= by_code[code][0]):
            by_code[code] = (at, row)
    problems: list[str] = []
    errors: list[ApiError] = []
    found: dict[str, Any] = {}
    for code, (_, row) in by_code.items():
        error = _signal_error(row)
        if error is not None:
            errors.append(error)
        try:
            value = _value(code, row, now)
        except _Refused as refused:
            problems.append(f"{code}: {refused}")
            continue
        if value is not None:
            found[_FIELDS[code]] = value
    return SignalsRead(
        state=CarState(**found),
        count=count,
        problems=tuple(problems),
        errors=tuple(errors),
    )


_FIELDS = {
    SOC: "soc_percent",
    RANGE: "range_km",
    CAPACITY: "capacity_wh",
    PLUGGED: "is_plugged",
    CHARGING: "is_charging",
    DETAIL: "charging",
    LIMITS: "limit_percent",
    VIN: "vin",
    TIMERS: "has_timers",
}


def _value(code: str, row: Mapping[str, Any], now: datetime) -> Sourced | str | None:
    attributes = _dict(row.get("attributes"))
    body = attributes.get("body")
    if not isinstance(body, dict):
        return None
    at = _recorded(row, now)
    if _status(attributes) not in ("", "SUCCESS") and at is None and code != VIN:
        return None  # a cached value of unknown age under an error is nobody's evidence
    if code == VIN:
        return vin_of(body.get("value"))
    if code == DETAIL:
        return _word(body.get("value"))
    number = _READERS[code](body)
    return None if number is None else Sourced(value=number, recorded_at=at)


def _soc(body: Mapping[str, Any]) -> float | None:
    return measured(body.get("value"), body.get("unit"), PERCENT, 0.0, 100.0)


def _range(body: Mapping[str, Any]) -> float | None:
    return measured(body.get("value"), body.get("unit"), LENGTHS, 0.0, 3000.0)


def _capacity(body: Mapping[str, Any]) -> float | None:
    return measured(body.get("capacity"), body.get("unit"), ENERGIES, 500.0, 2_000_000.0)


def _limit(body: Mapping[str, Any]) -> float | None:
    """The active limit, else the global one, else unknown (section 5.3)."""
    raw = body.get("activeLimit")
    if raw is None:
        values = body.get("values")
        for item in values if isinstance(values, list) else []:
            if isinstance(item, dict) and str(item.get("type")).upper() == "GLOBAL":
                raw = item.get("limit")
                break
    return measured(raw, body.get("unit"), PERCENT, 0.0, 100.0)


def _flag(body: Mapping[str, Any]) -> float | None:
    raw = body.get("value")
    if raw is None:
        return None
    if not isinstance(raw, bool):
        raise _Refused(f"a {type(raw).__name__} stands where true or false belongs")
    return 1.0 if raw else 0.0


def _timers(body: Mapping[str, Any]) -> float | None:
    """Whether the car follows timers of its own: schedules, departures, its maker's."""
    values = body.get("values")
    if not isinstance(values, list):
        return None
    names = ("schedules", "departureTimers", "isOEMOptimizationEnabled")
    rows = [item for item in values if isinstance(item, dict)]
    return 1.0 if any(item.get(name) for item in rows for name in names) else 0.0


_READERS: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    SOC: _soc,
    RANGE: _range,
    CAPACITY: _capacity,
    LIMITS: _limit,
    PLUGGED: _flag,
    CHARGING: _flag,
    TIMERS: _timers,
}


def measured(
    raw: Any, unit: Any, units: Mapping[str, float], low: float, high: float
) -> float | None:
    """Convert a number to the agent's unit. Raises ValueError when it cannot be used."""
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise _Refused(f"a {type(raw).__name__} stands where the number belongs")
    name = "".join(unit.lower().split()) if isinstance(unit, str) else ""
    if name not in units or not (unit is None or isinstance(unit, str)):
        raise _Refused(f"the unit {str(unit)[:20]!r} is not known")
    try:
        number = float(raw) * units[name]
    except OverflowError:
        number = math.inf
    if not low <= number <= high:
        raise _Refused(f"{str(raw)[:20]} {name} is beyond what can be")
    return number


def vin_of(raw: Any) -> str | None:
    """A VIN in capitals. Raises ValueError when it is no VIN."""
    if raw is None or raw == "":
        return None
    text = raw.strip().upper() if isinstance(raw, str) else ""
    if len(text) != VIN_LENGTH or not (text.isascii() and text.isalnum()):
        raise _Refused("it is no VIN of 17 letters and digits")
    return text


def _signal_error(row: Mapping[str, Any]) -> ApiError | None:
    attributes = _dict(row.get("attributes"))
    if _status(attributes) in ("", "SUCCESS"):
        return None
    raw = _dict(attributes.get("status")).get("error")
    if not isinstance(raw, dict):
        return None
    error = item_error(raw, ApiError(http_status=200))
    # Rates and times of an idle car answer so; it is a reading like any other.
    return None if error.code == "NOT_CHARGING" else error


def _code(row: Mapping[str, Any]) -> str:
    raw = _dict(row.get("attributes")).get("code") or row.get("id")
    return raw[:WORD_MAX].lower() if isinstance(raw, str) else ""


def _status(attributes: Mapping[str, Any]) -> str:
    raw = _dict(attributes.get("status")).get("value")
    return raw.upper() if isinstance(raw, str) else ""


def _recorded(row: Mapping[str, Any], now: datetime) -> datetime | None:
    return time_of(_dict(row.get("meta")).get("oemUpdatedAt"), now)


# --- connections and commands ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRead:
    """A connection, and when the driver last consented."""

    connection: Connection
    changed_at: datetime | None


def read_connection(row: Mapping[str, Any], now: datetime) -> ConnectionRead | None:
    """Read a row of the connections; None when it names no car."""
    attributes = _dict(row.get("attributes"))
    relations = _dict(row.get("relationships"))
    vehicle_id = _related(relations, "vehicle")
    user_id = _related(relations, "user") or _id(_dict(attributes.get("user")).get("id"))
    if not vehicle_id:
        return None
    meta = _dict(row.get("meta"))
    times = [time_of(meta.get(name), now) for name in ("createdAt", "updatedAt")]
    permissions = attributes.get("permissions")
    listed = permissions if isinstance(permissions, list) else []
    return ConnectionRead(
        connection=Connection(
            car=Car(vehicle_id=vehicle_id, user_id=user_id, vin=""),
            make=_word(_dict(attributes.get("vehicle")).get("make")) or "",
            permissions=frozenset(
                item[:WORD_MAX]
                for item in listed[:PERMISSIONS_MAX]
                if isinstance(item, str)
            ),
        ),
        changed_at=max((at for at in times if at is not None), default=None),
    )


def included_make(body: Any) -> str:
    """The make that a list of signals names beside them, or nothing."""
    included = _dict(_dict(body).get("included"))
    vehicle = _dict(included.get("vehicle"))
    return _word(_dict(vehicle.get("attributes")).get("make")) or ""


def read_command(body: Any, base: ApiError) -> CommandEnd:
    """How a command ended, from the body of a 200 or 202 (section 5.5)."""
    attributes = _dict(_dict(_dict(body).get("data")).get("attributes"))
    status = _dict(attributes.get("status"))
    value = status.get("value")
    raw = status.get("error")
    error = item_error(raw, base) if isinstance(raw, dict) else None
    return CommandEnd(status=value.upper() if isinstance(value, str) else "", error=error)


def _related(relations: Mapping[str, Any], name: str) -> str:
    return _id(_dict(_dict(relations.get(name)).get("data")).get("id"))


def _id(raw: Any) -> str:
    """An id as it is; one that no address or header can carry counts as missing."""
    is_good = isinstance(raw, str) and 0 < len(raw) <= ID_MAX
    return raw if is_good and raw.isascii() and raw.isprintable() else ""


def _word(raw: Any) -> str | None:
    if not isinstance(raw, str) or not raw:
        return None
    return "".join(char if char.isprintable() else "·" for char in raw[:WORD_MAX])


def _dict(raw: Any) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}
