"""Checks files of vehicles and schedules that a person wrote, in ChargEye's shapes.

Stricter than the reading of ChargEye's own answers: whatever a lenient reader would
silently leave out (a misspelled key, a time without a zone, a power in watts) is named
with its place and a remedy. Unknown keys are let through, so that a copy of ChargEye's
answer is a good file, unless they look like a known one spelled wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from agent.cloud.chargeye_parse import KW_MAX, read_schedule
from agent.domain.errors import ConfigProblem
from agent.domain.identity import normalise_mac

FILE_BYTES_MAX = 4 * 1024 * 1024
"""As for an answer of the cloud: a registry of thousands of vehicles fits."""
PROBLEMS_MAX = 20
"""Problems named per file; whoever mends these sees the rest next time."""
NEAR = 0.85
"""Similarity from which an unknown key counts as a misspelled one."""
LONG_MAC_DIGITS = 16
"""An EVCCID: the MAC with two zero bytes behind."""

Json = dict[str, Any]
Check = Callable[[Any], tuple[str, str] | None]
"""Problem and remedy of a value, None when it is good."""


def parse(raw: bytes, what: str) -> list[Any]:
    """The rows of a file: ``{"vehicles": [...]}`` or ``{"schedules": [...]}``.

    Raises ValueError with the place in words.
    """
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"the file is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB")
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    rows = content.get(what) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f'it must be an object with a list: {{"{what}": [...]}}')  # noqa: TRY004
    return rows


def check_vehicles(rows: list[Any], file: str) -> list[ConfigProblem]:
    """Name everything wrong in a list of vehicles, wrapped or bare."""
    found = _Found(file)
    ids: dict[str, str] = {}
    macs: dict[str, str] = {}
    for index, row in enumerate(rows):
        place = f"vehicles[{index}]"
        wrapped = row.get("vehicle") if isinstance(row, dict) else None
        vehicle = wrapped if isinstance(wrapped, dict) else row
        if not found.check(place, vehicle, VEHICLE):
            continue
        found.once(f"{place}.id", vehicle["id"], ids)
        for port_at, port in enumerate(vehicle.get("chargingPorts") or []):
            at = f"{place}.chargingPorts[{port_at}]"
            if found.check(at, port, PORT) and port.get("inactive") is not True:
                found.once(f"{at}.macAddress", _digits(port.get("macAddress")), macs)
        least, most = vehicle.get("minChargePowerkW"), vehicle.get("maxChargePowerkW")
        if least is not None and most is not None and least > most:
            text = f"is above maxChargePowerkW = {most}"
            found.add(f"{place}.minChargePowerkW", least, text, "exchange the two")
    return found.problems


def check_schedules(rows: list[Any], file: str) -> list[ConfigProblem]:
    """Name everything wrong in a list of schedules, plans included."""
    found = _Found(file)
    ids: dict[str, str] = {}
    for index, row in enumerate(rows):
        place = f"schedules[{index}]"
        if not found.check(place, row, SCHEDULE):
            continue
        found.once(f"{place}.id", row["id"], ids)
        plan = row.get("plan")
        if isinstance(plan, dict):
            found.check(f"{place}.plan", plan, PLAN)
            for at, segment in enumerate(plan.get("segments") or []):
                found.check(f"{place}.plan.segments[{at}]", segment, SEGMENT)
        try:
            reason = read_schedule(row)[1]
        except ValueError as error:
            remedy = "the departure must lie after the arrival"
            found.add(place, row["id"], str(error), remedy)
            continue
        if reason is not None:
            found.add(f"{place}.plan", row["id"], reason, "correct it, or leave plan out")
    return found.problems


def unknown_vehicles(schedules: list[Any], vehicle_ids: set[str], file: str) -> list[str]:
    """Name schedules of vehicles that no file has, in words."""
    return [
        f"{file}: schedules[{index}].evId = {row['evId']!r}: no vehicle has this id"
        for index, row in enumerate(schedules)
        if row["evId"] not in vehicle_ids
    ][:PROBLEMS_MAX]


class _Found:
    """Collects problems of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[ConfigProblem] = []

    def add(self, place: str, value: object, problem: str, remedy: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            shown = value if isinstance(value, (int, float)) else f"{value!r:.40}"
            self.problems.append(
                ConfigProblem(
                    key=f"{self._file}: {place}",
                    value=str(shown),
                    problem=problem,
                    remedy=remedy,
                )
            )

    def once(self, place: str, value: str, seen: dict[str, str]) -> None:
        if not value:
            return
        if value in seen:
            text = f"stands at {seen[value]} too"
            self.add(place, value, text, "each may stand once: correct one of them")
        seen.setdefault(value, place)

    def check(self, place: str, row: Any, fields: Mapping[str, Check]) -> bool:
        """Check one object; whether it can be used at all."""
        if not isinstance(row, dict):
            self.add(place, row, "is not an object", "write {...} here")
            return False
        before = len(self.problems)
        for key in row:
            near = None if key in fields or key.startswith("_") else _near(key, row, fields)
            if near is not None:
                self.add(f"{place}.{key}", row[key], "is not a known key", f"write {near}")
        for key, look in fields.items():
            wrong = look(row.get(key))
            if wrong is not None:
                self.add(f"{place}.{key}", row.get(key), *wrong)
        return len(self.problems) == before


def _near(key: str, row: Json, fields: Mapping[str, Check]) -> str | None:
    same = next((name for name in fields if name.casefold() == key.casefold()), None)
    if same is not None:
        return same
    missing = [name for name in fields if name not in row]
    return next(iter(difflib.get_close_matches(key, missing, n=1, cutoff=NEAR)), None)


# --- what each key may hold ---------------------------------------------------------


def _digits(mac: Any) -> str:
    return _mac_of(mac) or ""


def _mac_of(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    found = normalise_mac(text)
    if found is None:
        digits = "".join(char for char in text if char.isalnum()).upper()
        if len(digits) == LONG_MAC_DIGITS and digits.endswith("0000"):
            found = normalise_mac(digits[:-4])
    return found


def _text(value: Any) -> tuple[str, str] | None:
    if value is None or isinstance(value, str):
        return None
    return "is not a text", "put it in quotes"


def _needed_text(value: Any) -> tuple[str, str] | None:
    if isinstance(value, str) and value.strip():
        return None
    return "is needed, a text that is not empty", "add it"


def _flag(value: Any) -> tuple[str, str] | None:
    if value is None or isinstance(value, bool):
        return None
    return "is neither true nor false", "write true or false, without quotes"


def _object(value: Any) -> tuple[str, str] | None:
    if value is None or isinstance(value, dict):
        return None
    return "is not an object", "write {...}, or leave it out"


def _list(value: Any) -> tuple[str, str] | None:
    if value is None or isinstance(value, list):
        return None
    return "is not a list", "write [...], or leave it out"


def _number(low: float, high: float, unit: str) -> Check:
    def look(value: Any) -> tuple[str, str] | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None or (is_number and low <= value <= high):
            return None
        return f"is no number from {low:g} to {high:g}", f"give it in {unit}"

    return look


def _moment(value: Any) -> tuple[str, str] | None:
    remedy = "write it like 2026-01-15T06:30:00+01:00"
    if not isinstance(value, str):
        return "is needed, a time as text", remedy
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return "is no ISO 8601 time", remedy
    if at.tzinfo is None:
        return "has no time zone", f"{remedy} (or with Z for UTC)"
    return None


def _mac(value: Any) -> tuple[str, str] | None:
    if value is None or value == "" or _mac_of(value) is not None:
        return None
    return "is no usable MAC address", "write it like 04:E7:7E:00:F0:FA"


def _places(value: Any) -> tuple[str, str] | None:
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "is not a list of texts", 'write ["depot-1"]'
    if value is None or isinstance(value, (str, list)):
        return None
    return "is neither a text nor a list of texts", 'write "depot-1"'


def _anything(_: Any) -> tuple[str, str] | None:
    return None


_KW = _number(0, KW_MAX, "kW")
_SOC = _number(0, 100, "percent, 0 to 100")

VEHICLE: dict[str, Check] = {
    "id": _needed_text, "name": _text, "evModel": _text, "licensePlate": _text,
    "notes": _text, "vin": _text, "locationUid": _places, "chargingPorts": _list,
    "evMacAddress": _mac, "fullChargeEnergykWh": _number(1, 5000, "kWh"),
    "maxChargePowerkW": _number(1, KW_MAX, "kW"), "minChargePowerkW": _KW,
    "minPreconditioningPowerkW": _KW, "supportsPauseResume": _flag,
    "enableChargeScheduling": _flag, "consumption": _number(0, 1e6, "Wh per km"),
    "v2icpParameters": _object, "v2icp": _object,
}  # fmt: skip
PORT: dict[str, Check] = {"macAddress": _mac, "type": _text, "inactive": _flag}
SCHEDULE: dict[str, Check] = {
    "id": _needed_text, "evId": _needed_text, "locationUid": _text,
    "plannedArrivalTime": _moment, "plannedDepartureTime": _moment, "startSoC": _SOC,
    "targetSoC": _SOC, "recurrenceRule": _text, "plan": _object, "planMeta": _object,
}  # fmt: skip
PLAN: dict[str, Check] = {
    "segments": _list, "pastSegments": _list, "schedule": _object, "endTime": _anything,
    "endSoc": _SOC, "energyKwh": _anything, "departureMarginMs": _anything,
    "reachedTargetSocInSchedule": _flag,
}  # fmt: skip
SEGMENT: dict[str, Check] = {
    "from": _anything, "to": _anything, "durationMs": _anything, "powerkW": _KW,
    "energykWh": _anything, "startSoc": _SOC, "endSoc": _SOC, "paused": _flag,
    "powerUnlimited": _flag, "powerIsBeingLimited": _flag, "tag": _list,
}  # fmt: skip
