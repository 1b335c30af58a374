"""ChargEye's JSON -> domain values: lenient in form, strict in range.

Letter case and nesting are copied from chargeye.md sections 1 and 3 to 6. A row that
cannot be read is named and left out; a plan that fails its checks is refused whole.
Epoch milliseconds exist in this module and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from agent.domain.identity import (
    HeatingWish,
    V2icpWord,
    Vehicle,
    any_mac,
    registry_conflicts,
)
from agent.domain.ids import MacAddress, ScheduleId, VehicleId
from agent.domain.plan import SEGMENTS_MAX, Plan, Preconditioning, Schedule, Segment
from agent.ports import RegistryRead, SchedulesRead

ROWS_MAX = 20_000
"""Vehicles or schedules read from one answer."""
MS_MIN = 1e11
"""A plan time below is not in milliseconds: the plan is not understood (3.2)."""
KW_MAX = 4000.0
TEXT_MAX = 200
SOC_FULL = 100.0
ODOMETER_KM_MAX = 1e7
AMBIENT_C_MIN, AMBIENT_C_MAX = -60.0, 60.0
KWH_MAX = 5000.0
DAY_MS = 86_400_000.0
"""No bus is preconditioned for longer."""


class PlanRefusedError(ValueError):
    """A plan that must not be executed, with the reason."""


def read_vehicles(body: Any) -> RegistryRead:
    """Read ``GET /vehicles``: wrapped twice, ``v2icp`` beside the vehicle (1.1)."""
    rows = body.get("vehicles") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ValueError("the list `vehicles` is missing")  # noqa: TRY004 - peer data
    vehicles: list[tuple[Vehicle, str]] = []
    problems: list[str] = []
    for row in rows[:ROWS_MAX]:
        inner = row.get("vehicle") if isinstance(row, dict) else None
        plain = inner if isinstance(inner, dict) else row
        if not isinstance(plain, dict) or not read_text(plain.get("id")):
            problems.append("a vehicle without an id was left out")
            continue
        outer = row.get("v2icp") if isinstance(row.get("v2icp"), dict) else None
        vehicle, oddities = read_vehicle(plain, outer)
        problems.extend(oddities)
        vehicles.append((vehicle, orjson.dumps(row).decode()))
    problems += registry_conflicts({item.vehicle_id: item for item, _ in vehicles})
    return RegistryRead(vehicles=vehicles, problems=problems)


def read_vehicle(
    row: dict[str, Any], v2icp: dict[str, Any] | None
) -> tuple[Vehicle, list[str]]:
    """Read one bare vehicle; oddities are named, the rest is kept."""
    vehicle_id = read_text(row.get("id"))
    problems: list[str] = []
    macs: set[MacAddress] = set()
    idle: set[MacAddress] = set()
    ports = row.get("chargingPorts")
    for port in ports if isinstance(ports, list) else []:
        if not isinstance(port, dict):
            continue
        if port.get("inactive") is True:
            unused = _mac(port.get("macAddress"), vehicle_id, [])
            idle.update([unused] if unused is not None else [])
            continue
        mac = _mac(port.get("macAddress"), vehicle_id, problems)
        if mac is not None:
            macs.add(mac)
    said = _v2icp(v2icp or row.get("v2icp"), vehicle_id, problems)
    vin = read_text(row.get("vin")) or (said.vin if said is not None else None)
    capacity_kwh = read_number(row.get("fullChargeEnergykWh"), 1, 5000)
    return (
        Vehicle(
            vehicle_id=VehicleId(vehicle_id),
            name=read_text(row.get("name")),
            macs=frozenset(macs),
            idle_macs=frozenset(idle - macs),
            fallback_mac=_mac(row.get("evMacAddress"), vehicle_id, problems),
            vin=vin or None,
            locations=_locations(row.get("locationUid")),
            capacity_wh=None if capacity_kwh is None else round(capacity_kwh * 1000),
            max_w=_watts(row.get("maxChargePowerkW")),
            min_w=_watts(row.get("minChargePowerkW")),
            min_preconditioning_w=_watts(row.get("minPreconditioningPowerkW")),
            can_pause=row.get("supportsPauseResume") is True,
            follows_schedule=row.get("enableChargeScheduling") is not False,
            model=read_text(row.get("evModel")),
            plate=read_text(row.get("licensePlate")),
            v2icp=said,
            heating=_heating(row.get("v2icpParameters")),
        ),
        problems,
    )


def _v2icp(word: Any, vehicle_id: str, problems: list[str]) -> V2icpWord | None:
    """The last V2ICP exchange: who spoke, from where (13.3)."""
    if not isinstance(word, dict):
        return None
    vin = read_text(word.get("vin"))
    mac = _mac(word.get("evMacAddress"), vehicle_id, problems)
    if not vin and mac is None:
        return None
    return V2icpWord(
        vin=vin or None,
        mac=mac,
        at=read_time(word.get("timestamp")),
        odometer_km=_odometer_km(word.get("odometer")),
    )


def _odometer_km(value: Any) -> float | None:
    """A number, or the text that an older description had (13.3)."""
    if isinstance(value, str):
        try:
            value = float(value[:TEXT_MAX])
        except ValueError:
            return None
    return read_number(value, 0, ODOMETER_KM_MAX)


def _heating(row: Any) -> HeatingWish | None:
    if not isinstance(row, dict):
        return None
    wanted = row.get("preconditioning")
    return HeatingWish(
        is_wanted=wanted if isinstance(wanted, bool) else None,
        interior=read_text(row.get("interiorHvac")),
        ambient_c=read_number(row.get("ambientTemp"), AMBIENT_C_MIN, AMBIENT_C_MAX),
    )


def read_schedules(rows: Any, location_uid: str) -> SchedulesRead:
    """Read dated schedules; those of other locations and recurring ones are left out."""
    if not isinstance(rows, list):
        raise ValueError("the list `schedules` is missing")  # noqa: TRY004 - peer data
    schedules: list[tuple[Schedule, str]] = []
    refused: list[tuple[ScheduleId, str]] = []
    problems: list[str] = []
    for row in rows[:ROWS_MAX]:
        if not isinstance(row, dict) or row.get("recurrenceRule"):
            continue
        place = read_text(row.get("locationUid"))
        if place and location_uid and place != location_uid:
            continue
        try:
            schedule, reason = read_schedule(row)
        except ValueError as error:
            problems.append(f"schedule {read_text(row.get('id')) or '(no id)'}: {error}")
            continue
        schedules.append((schedule, orjson.dumps(row).decode()))
        if reason is not None:
            refused.append((schedule.schedule_id, reason))
    return SchedulesRead(schedules=schedules, refused=refused, problems=problems)


def read_schedule(row: dict[str, Any]) -> tuple[Schedule, str | None]:
    """Read one schedule, and why its plan must be refused, if it must.

    Raises ValueError when the slot itself cannot be used.
    """
    schedule_id, vehicle_id = read_text(row.get("id")), read_text(row.get("evId"))
    if not schedule_id or not vehicle_id:
        raise ValueError("id or evId is missing")
    arrives_at = read_time(row.get("plannedArrivalTime"))
    departs_at = read_time(row.get("plannedDepartureTime"))
    if arrives_at is None or departs_at is None or departs_at <= arrives_at:
        raise ValueError("plannedArrivalTime and plannedDepartureTime are not a slot")
    plan: Plan | None = None
    reason: str | None = None
    try:
        plan = _plan(row.get("plan"), row.get("planMeta"))
    except PlanRefusedError as error:
        reason = str(error)
    schedule = Schedule(
        schedule_id=ScheduleId(schedule_id),
        vehicle_id=VehicleId(vehicle_id),
        location_uid=read_text(row.get("locationUid")),
        arrives_at=arrives_at,
        departs_at=departs_at,
        start_soc_percent=read_number(row.get("startSoC"), 0, SOC_FULL),
        target_soc_percent=read_number(row.get("targetSoC"), 0, SOC_FULL),
        plan=plan,
    )
    return _marked(schedule, reason, row), reason


def _marked(schedule: Schedule, reason: str | None, row: dict[str, Any]) -> Schedule:
    """Give a schedule the mark of its content: a plan that only aged is the same plan."""
    plan = schedule.plan
    content: object = (
        repr(row.get("plan"))
        if plan is None
        else [
            _joined(plan.segments),
            plan.can_pause,
            plan.max_w,
            plan.min_w,
            repr(plan.preconditioning),
        ]
    )
    parts = [
        schedule.arrives_at.isoformat(),
        schedule.departs_at.isoformat(),
        schedule.start_soc_percent,
        schedule.target_soc_percent,
        str(plan.planned_at) if plan is not None else "",
        repr(content),
        reason,
    ]
    mark = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return Schedule(
        **{name: getattr(schedule, name) for name in schedule.__dataclass_fields__}
        | {"fingerprint": mark}
    )


def _joined(segments: Sequence[Segment]) -> list[tuple[float, float, bool, bool]]:
    """Segments with equal neighbours joined, and only where they end.

    ChargEye cuts the running segment at its own "now": that is no news.
    """
    joined: list[tuple[float, float, bool, bool]] = []
    for item in segments:
        end = (item.ends_at.timestamp(), item.power_w, item.paused, item.unlimited)
        if joined and joined[-1][1:] == end[1:]:
            joined[-1] = end
        else:
            joined.append(end)
    return joined


def _plan(plan: Any, meta: Any) -> Plan | None:
    if not isinstance(plan, dict):
        return None
    if not isinstance(plan.get("segments"), list):
        if plan.get("segments") is None:
            return None
        raise PlanRefusedError("`segments` is not a list")
    coming = _segments(plan["segments"], "segments")
    past = plan.get("pastSegments")
    older = _segments(past, "pastSegments") if isinstance(past, list) else []
    settings = _inner(plan, "schedule", "settings")
    vehicle = _inner(plan, "schedule", "ev")
    planned = meta.get("timestamp") if isinstance(meta, dict) else None
    supports = vehicle.get("supportsPausing")
    return Plan(
        segments=(*_before(older, coming), *coming),
        planned_at=read_time(planned),
        can_pause=supports if isinstance(supports, bool) else None,
        max_w=_lower(
            _watts(settings.get("evMaxPowerkW")), _watts(vehicle.get("maxPowerkW"))
        ),
        min_w=_watts(settings.get("evMinPowerkW")),
        preconditioning=_preconditioning(_inner(plan, "schedule", "ev", "preconditioning")),
    )


def _preconditioning(row: dict[str, Any]) -> Preconditioning | None:
    """What the bus asked for by V2ICP; None when nothing of it can be read (6.3)."""
    battery_ms = read_number(row.get("batteryPreconditioningTimeMs"), 0, DAY_MS)
    vehicle_ms = read_number(row.get("vehiclePreconditioningTimeMs"), 0, DAY_MS)
    kwh = read_number(row.get("vehiclePreconditioningEnergykWh"), 0, KWH_MAX)
    if battery_ms is None and vehicle_ms is None and kwh is None:
        return None
    return Preconditioning(
        battery_s=(battery_ms or 0.0) / 1000,
        vehicle_s=(vehicle_ms or 0.0) / 1000,
        vehicle_wh=(kwh or 0.0) * 1000,
    )


def _segments(rows: list[Any], name: str) -> list[Segment]:
    if len(rows) > SEGMENTS_MAX:
        raise PlanRefusedError(f"{name} has {len(rows)} entries, more than {SEGMENTS_MAX}")
    found = [_segment(row, f"{name}[{index}]") for index, row in enumerate(rows)]
    return sorted(found, key=lambda item: item.starts_at)


def _segment(row: Any, where: str) -> Segment:
    if not isinstance(row, dict):
        raise PlanRefusedError(f"{where} is not an object")
    starts_at = _epoch_ms(row.get("from"), f"{where}.from")
    ends_at = _epoch_ms(row.get("to"), f"{where}.to")
    paused, unlimited = row.get("paused") is True, row.get("powerUnlimited") is True
    power = row.get("powerkW")
    if power is None and (paused or unlimited):
        power = 0
    kilowatts = _finite(power)
    if kilowatts is None or not 0 <= kilowatts <= KW_MAX:
        raise PlanRefusedError(
            f"{where}.powerkW is {str(power)[:20]}, not 0 to {KW_MAX:.0f}"
        )
    for name in ("startSoc", "endSoc"):
        soc = _finite(row.get(name))
        if soc is not None and not 0 <= soc <= SOC_FULL + 0.5:
            raise PlanRefusedError(f"{where}.{name} is {soc}, which is no percentage")
    return Segment(
        starts_at=starts_at,
        ends_at=ends_at,
        power_w=round(kilowatts * 1000, 3),
        paused=paused,
        unlimited=unlimited,
    )


def _before(older: list[Segment], coming: list[Segment]) -> list[Segment]:
    """The part of ``pastSegments`` that lies before ``segments``."""
    if not coming:
        return older
    begin = coming[0].starts_at
    return [
        Segment(
            starts_at=item.starts_at,
            ends_at=min(item.ends_at, begin),
            power_w=item.power_w,
            paused=item.paused,
            unlimited=item.unlimited,
        )
        for item in older
        if item.starts_at < begin
    ]


def _epoch_ms(value: Any, where: str) -> datetime:
    number = _finite(value)
    if number is None or not MS_MIN <= number <= 1e14:  # noqa: PLR2004 - the year 5138
        raise PlanRefusedError(f"{where} is {str(value)[:24]}, not epoch milliseconds")
    return datetime.fromtimestamp(number / 1000, UTC)


def _inner(plan: dict[str, Any], *names: str) -> dict[str, Any]:
    found: Any = plan
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _locations(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, list):
        return frozenset(item for item in value if isinstance(item, str))
    return frozenset()


def _mac(value: Any, vehicle_id: str, problems: list[str]) -> MacAddress | None:
    if not isinstance(value, str) or not value.strip():
        return None
    found = any_mac(value)
    if found is None:
        problems.append(f"vehicle {vehicle_id}: {value[:40]!r} is no usable MAC address")
    return found


def read_time(value: Any) -> datetime | None:
    """An ISO 8601 time, UTC where it names no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def read_number(value: Any, low: float, high: float) -> float | None:
    """A finite number within its range; None for anything else."""
    found = _finite(value)
    return found if found is not None and low <= found <= high else None


def _watts(value: Any) -> int | None:
    found = read_number(value, 0, KW_MAX)
    return None if found is None else round(found * 1000)


def _lower(one: int | None, other: int | None) -> int | None:
    known = [item for item in (one, other) if item]
    return min(known, default=None)


def read_text(value: Any) -> str:
    """A text without blanks around it, cut to a bound; "" for anything else."""
    return value.strip()[:TEXT_MAX] if isinstance(value, str) else ""
