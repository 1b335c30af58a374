"""Bodies for ChargEye, checked before they leave: exact letter case, types and ranges.

The API's letter case is not uniform (chargeye.md 1.2) and it is not known what it does
with a field that it does not know: a typing error would look like success. All problems
are ValueErrors whose text tells what to write instead.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from agent.cloud.http import Json
from agent.domain.identity import any_mac, mac_text

HVAC_MODES = (
    "NoPreconditioning", "OnlyHotWaterAndVentilation", "HotWaterAndHeating",
    "NoHotWaterCoolingOrVentilation",
)  # fmt: skip
"""``interiorHvac``, the full list (13.3)."""
VEHICLE_READ_ONLY = ("id", "vin", "v2icp")
SCHEDULES_MAX = 500
"""Schedules in one request; a vehicle's year of days fits."""
SOC_FULL = 100
AMBIENT_C_MAX = 60

Check = Callable[[Any], str | None]
"""Tells what a value must be, or None when it is that."""


def vehicle_fields(body: Any, *, force: bool = False) -> Json:
    """Check the body of PUT or PATCH of a vehicle; ``force`` lets unknown names pass."""
    fields = _object(body, "a vehicle")
    for name in VEHICLE_READ_ONLY:
        if name in fields:
            raise ValueError(f"{name} is read-only: leave it out")
    _check_all(fields, VEHICLE_CHECKS, force=force)
    return fields


def editable_vehicle(row: Json) -> Json:
    """A vehicle as read, without what no body may have: what PUT would write back."""
    return {key: value for key, value in row.items() if key not in VEHICLE_READ_ONLY}


def v2icp_parameters(
    *, preconditioning: bool, hvac: str, ambient_c: float | None, known: Any = None
) -> Json:
    """The body that sets the wishes for a bus; both members are always sent (5.1).

    ``known`` are the parameters as read: an ambient temperature that is not given anew
    stays. Raises ValueError.
    """
    before: Json = known if isinstance(known, dict) else {}
    found: Json = {**before, "interiorHvac": hvac, "preconditioning": preconditioning}
    if ambient_c is not None:
        found["ambientTemp"] = ambient_c
    return vehicle_fields({"v2icpParameters": found})


def posted_schedules(
    body: Any, vehicle_id: str, location_uid: str, *, with_plans: bool = False
) -> tuple[list[Json], list[str]]:
    """Check schedules for a POST; the rows to send, and notes on what was left out.

    Takes a list or an object with ``schedules``, so that what was read can be edited
    and sent. Ids are the cloud's own; plans are not written by default (15, Q7).
    """
    notes: dict[str, None] = {}
    rows: list[Json] = []
    for number, item in enumerate(_list(body)):
        where = f"schedule {number + 1}"
        row = _object(item, where)
        _check_owner(row, vehicle_id, where)
        if row.pop("id", None):
            notes["ids were left out: the cloud gives them"] = None
        if not with_plans and (row.pop("plan", None), row.pop("planMeta", None)) != (
            None,
            None,
        ):
            notes["plans were left out: ChargEye makes them (--with-plans sends them)"] = (
                None
            )
        row.setdefault("locationUid", location_uid)
        for name in ("plannedArrivalTime", "plannedDepartureTime", "targetSoC"):
            if name not in row:
                raise ValueError(f"{where}: {name} is missing")
        _check_slot(row, where)
        rows.append(row)
    return rows, list(notes)


def patched_schedules(body: Any, vehicle_id: str) -> list[Json]:
    """Check schedules for a PATCH: each has its id and what shall change."""
    rows: list[Json] = []
    for number, item in enumerate(_list(body)):
        where = f"schedule {number + 1}"
        row = _object(item, where)
        _check_owner(row, vehicle_id, where)
        if not isinstance(row.get("id"), str) or not row["id"]:
            raise ValueError(f"{where}: id is missing; see `depot-agent schedules list`")
        if len(row) == 1:
            raise ValueError(f"{where}: nothing shall change; name a field beside id")
        _check_slot({key: value for key, value in row.items() if key != "id"}, where)
        rows.append(row)
    return rows


def _check_slot(row: Json, where: str) -> None:
    try:
        _check_all(row, SCHEDULE_CHECKS, force=False)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    times = [row.get(name) for name in ("plannedArrivalTime", "plannedDepartureTime")]
    if all(isinstance(text, str) for text in times):
        arrives_at, departs_at = (datetime.fromisoformat(str(text)) for text in times)
        if departs_at <= arrives_at:
            raise ValueError(f"{where}: plannedDepartureTime is not after the arrival")


def _check_owner(row: Json, vehicle_id: str, where: str) -> None:
    owner = row.pop("evId", vehicle_id)
    if owner != vehicle_id:
        raise ValueError(f"{where} belongs to {owner}, not to {vehicle_id}")


def _list(body: Any) -> list[Any]:
    rows = body.get("schedules") if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise ValueError('give a list of schedules, or {"schedules": [...]}')  # noqa: TRY004
    if len(rows) > SCHEDULES_MAX:
        raise ValueError(f"{len(rows)} schedules are more than {SCHEDULES_MAX} in one go")
    return rows


def _object(body: Any, what: str) -> Json:
    if not isinstance(body, dict):
        raise ValueError(f"{what} must be a JSON object")  # noqa: TRY004 - an operator's file
    return dict(body)


def _check_all(fields: Json, checks: Mapping[str, Check], *, force: bool) -> None:
    for name, value in fields.items():
        check = checks.get(name)
        if check is None:
            if force:
                continue
            raise ValueError(f"{name!r} is no field of the API{_near(name, checks)}")
        problem = check(value)
        if problem is not None:
            raise ValueError(f"{name} must be {problem}")


def _near(name: str, known: Iterable[str]) -> str:
    folded = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    return f": did you mean {folded[close[0]]}?" if close else ""


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else "a text"


def _is_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _number(low: float, high: float = math.inf) -> Check:
    text = f"a number of at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"

    def check(value: Any) -> str | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if is_number and low <= value <= high else text

    return check


def _is_time(value: Any) -> str | None:
    text = "an ISO 8601 time with its zone, such as 2026-01-15T18:00:00Z"
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return text
    return None if at.tzinfo is not None else text


def _is_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "a JSON object"


def _is_place(value: Any) -> str | None:
    rows = value if isinstance(value, list) else [value]
    is_good = value is None or all(isinstance(item, str) for item in rows)
    return None if is_good else "a location's uid, a list of them, or null"


def _is_mac(value: Any) -> str | None:
    found = any_mac(value) if isinstance(value, str) else None
    if found is None:
        return "a vehicle's MAC, such as 04:E7:7E:00:F0:FA"
    return None if value == mac_text(found) else f"written {mac_text(found)}"


def _are_ports(value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return "a list of objects with macAddress, type and inactive"
    for port in value:
        problem = _is_mac(port.get("macAddress")) if "macAddress" in port else None
        if problem is not None:
            return f"a list whose macAddress is {problem}"
    return None


def _are_wishes(value: Any) -> str | None:
    shape = "an object with interiorHvac and preconditioning, both of them"
    if not isinstance(value, dict) or not isinstance(value.get("preconditioning"), bool):
        return shape
    if value.get("interiorHvac") not in HVAC_MODES:
        return f"{shape}; interiorHvac is one of {', '.join(HVAC_MODES)}"
    ambient = value.get("ambientTemp")
    if ambient is not None and _number(-AMBIENT_C_MAX, AMBIENT_C_MAX)(ambient):
        return (
            f"{shape}; ambientTemp is -{AMBIENT_C_MAX} to {AMBIENT_C_MAX} degrees Celsius"
        )
    return None


VEHICLE_CHECKS: dict[str, Check] = {
    "name": _is_text,
    "evModel": _is_text,
    "licensePlate": _is_text,
    "notes": _is_text,
    "locationUid": _is_place,
    "chargingPorts": _are_ports,
    "evMacAddress": lambda value: None if value is None else _is_mac(value),
    "fullChargeEnergykWh": _number(1),
    "maxChargePowerkW": _number(1),
    "minChargePowerkW": _number(0),
    "minPreconditioningPowerkW": _number(0),
    "consumption": _number(0),
    "supportsPauseResume": _is_flag,
    "enableChargeScheduling": _is_flag,
    "v2icpParameters": _are_wishes,
}
SCHEDULE_CHECKS: dict[str, Check] = {
    "locationUid": _is_text,
    "plannedArrivalTime": _is_time,
    "plannedDepartureTime": _is_time,
    "recurrenceRule": _is_text,
    "startSoC": _number(0, SOC_FULL),
    "targetSoC": _number(0, SOC_FULL),
    "plan": _is_object,
    "planMeta": _is_object,
}
