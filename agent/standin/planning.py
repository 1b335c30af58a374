"""Between the book of schedules and the planner: slots out, plans in.

Keeps what lies before now as `pastSegments`; a plan written by a client is
returned as it came. Times inside a plan are epoch milliseconds (chargeye.md 3.2).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.standin.planner import Load, Slot, plan_json, to_ms
from agent.standin.tokens import iso_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.standin.planner import Plan
    from agent.standin.schedules import Entry, JsonObject

ASSUMED_START_SOC = 30.0
"""Percent, for a schedule that says none: a bus after its day."""
ASSUMED_TARGET_SOC = 80.0
"""Percent; the usual bulk level."""


def slot_of(
    entry: Entry,
    vehicle: Mapping[str, Any],
    now: datetime,
    *,
    soc: float | None,
    efficiency: float,
    margin_s: float,
) -> Slot | None:
    """Return the planner's slot from now on; None when too little is known.

    `soc` is the SoC now when it was just measured, else the old plan tells.
    """
    battery_kwh = _number(vehicle.get("fullChargeEnergykWh"))
    max_kw = _number(vehicle.get("maxChargePowerkW"))
    if not battery_kwh or not max_kw or vehicle.get("enableChargeScheduling") is False:
        return None
    start_soc = soc if soc is not None else soc_at(entry, now)
    target_soc = _number(entry.row.get("targetSoC"))
    return Slot(
        vehicle_id=str(vehicle["id"]),
        schedule_id=entry.id,
        arrival=entry.arrival,
        departure=entry.departure,
        start_soc=start_soc,
        target_soc=ASSUMED_TARGET_SOC if target_soc is None else target_soc,
        battery_kwh=battery_kwh,
        max_power_kw=max_kw,
        min_power_kw=_number(vehicle.get("minChargePowerkW")) or 0.0,
        can_pause=vehicle.get("supportsPauseResume") is True,
        efficiency=efficiency,
        margin_s=margin_s,
        is_charging=_has_charged(entry, now),
    )


def preconditioning_of(vehicle: Mapping[str, Any]) -> JsonObject:
    """Return what a bus asked for by V2ICP, zeros when the depot wants none of it.

    That the bus counts minutes and kWh is our guess; units are not public (13.2).
    """
    wish, word = vehicle.get("v2icpParameters"), vehicle.get("v2icp")
    is_wanted = isinstance(wish, dict) and wish.get("preconditioning") is True
    message = word.get("v2icp") if isinstance(word, dict) and is_wanted else None
    said = message if isinstance(message, dict) else {}
    return {
        "batteryPreconditioningTimeMs": (_number(said.get("bat_reqtime")) or 0) * 60_000,
        "vehiclePreconditioningTimeMs": (_number(said.get("prec_reqtime")) or 0) * 60_000,
        "vehiclePreconditioningEnergykWh": _number(said.get("prec_eamount")) or 0,
    }


def plan_of(
    entry: Entry, slot: Slot, plan: Plan, now: datetime, needs: JsonObject
) -> JsonObject:
    """Return the new `plan`, with what the old one did before now.

    `needs`: the plan's `preconditioning`.
    """
    told_soc = _number(entry.row.get("startSoC"))
    outer = slot if told_soc is None else replace(slot, start_soc=told_soc)
    made = plan_json(outer, plan, {})
    vehicle = made["schedule"]["ev"]
    vehicle["preconditioning"] = needs
    vehicle["energyNeedkWh"] += needs["vehiclePreconditioningEnergykWh"]
    made["pastSegments"] = _before(segments_of(entry.row.get("plan")), to_ms(now))
    return made


def row_at(entry: Entry, now: datetime) -> JsonObject:
    """Return the schedule as the API shows it at `now`: segments split there.

    The running segment stays whole in `segments`, as `[from, to)` holds now.
    """
    plan = entry.row.get("plan")
    if entry.is_foreign or not isinstance(plan, dict):
        return entry.row
    if not isinstance(plan.get("segments"), list):
        return entry.row
    now_ms = to_ms(now)
    segments = segments_of(plan)
    shown = dict(plan)
    shown["pastSegments"] = [s for s in segments if s["to"] <= now_ms]
    shown["segments"] = [s for s in segments if s["to"] > now_ms]
    return {**entry.row, "plan": shown}


def segments_of(plan: Any) -> list[JsonObject]:
    """Return all readable segments of a plan, past ones first."""
    if not isinstance(plan, dict):
        return []
    rows = [*(plan.get("pastSegments") or []), *(plan.get("segments") or [])]
    return [row for row in rows if _is_segment(row)]


def loads_of(entries: Iterable[Entry], now: datetime) -> list[Load]:
    """Return what the plans of `entries` have promised from now on."""
    now_ms = to_ms(now)
    return [
        Load(
            from_ms=int(row["from"]),
            to_ms=int(row["to"]),
            power_kw=_number(row.get("powerkW")) or 0.0,
        )
        for entry in entries
        for row in segments_of(entry.row.get("plan"))
        if row["to"] > now_ms
    ]


def soc_at(entry: Entry, now: datetime) -> float:
    """Return the SoC that the plan foresees for `now`, in percent."""
    told = _number(entry.row.get("startSoC"))
    soc = ASSUMED_START_SOC if told is None else told
    now_ms = to_ms(now)
    for row in segments_of(entry.row.get("plan")):
        start, end = _number(row.get("startSoc")), _number(row.get("endSoc"))
        if row["from"] > now_ms or start is None or end is None:
            break
        share = min(1.0, (now_ms - row["from"]) / max(1, row["to"] - row["from"]))
        soc = start + (end - start) * share
    return soc


def schedule_extract(entry: Entry, now: datetime) -> JsonObject | None:
    """Return the short form that transactions carry (chargeye.md 6.5)."""
    now_ms = to_ms(now)
    for row in segments_of(entry.row.get("plan")):
        if row["from"] <= now_ms < row["to"]:
            return {
                "scheduleId": entry.id,
                "evId": entry.row["evId"],
                "plannedArrivalTime": entry.row["plannedArrivalTime"],
                "plannedDepartureTime": entry.row["plannedDepartureTime"],
                "targetSoC": entry.row.get("targetSoC"),
                "powerkW": row.get("powerkW"),
                "powerkWValidUntil": _iso(row["to"]),
                "updatedAt": (entry.row.get("planMeta") or {}).get("timestamp"),
            }
    return None


def _iso(epoch_ms: float) -> str:
    return iso_ms(datetime.fromtimestamp(epoch_ms / 1000, UTC))


def _before(segments: list[JsonObject], now_ms: int) -> list[JsonObject]:
    past = [row for row in segments if row["to"] <= now_ms]
    running = [row for row in segments if row["from"] < now_ms < row["to"]]
    return past + [_clipped(row, now_ms) for row in running]


def _clipped(row: JsonObject, now_ms: int) -> JsonObject:
    share = (now_ms - row["from"]) / (row["to"] - row["from"])
    start, end = _number(row.get("startSoc")) or 0.0, _number(row.get("endSoc")) or 0.0
    energy = _number(row.get("energykWh")) or 0.0
    return {
        **row,
        "to": now_ms,
        "durationMs": now_ms - row["from"],
        "energykWh": round(energy * share, 4),
        "endSoc": round(start + (end - start) * share, 2),
    }


def _has_charged(entry: Entry, now: datetime) -> bool:
    now_ms = to_ms(now)
    return any(
        row["from"] < now_ms and not row.get("paused")
        for row in segments_of(entry.row.get("plan"))
    )


def _is_segment(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    start, end = _number(row.get("from")), _number(row.get("to"))
    return start is not None and end is not None and start < end


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value
