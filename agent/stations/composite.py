"""Composite schedules: asked of any version, read with care.

In the field they are refused, empty, or full of decimals, and "no limit" has five
spellings (charger-quirks.md VER-05, LIB-08); what cannot be read says nothing.
"""

from __future__ import annotations

import math
from datetime import datetime

from agent.domain.capability import NOMINAL_VOLTAGE_V, RateUnit
from agent.domain.curve import curve
from agent.domain.ids import EvseId
from agent.ports import Answer, CompositeAnswer
from agent.stations import framing, schemas
from agent.stations.link import CallOutcome

PERIODS_MAX = 1000
"""More periods in an hour are no schedule."""
DETAIL_MAX = 120


def composite_call(
    version: str, evse_id: EvseId, duration_s: int, unit: RateUnit
) -> framing.Payload:
    """The payload of GetCompositeSchedule."""
    field = "connectorId" if version == schemas.V16 else "evseId"
    return {field: evse_id, "duration": duration_s, "chargingRateUnit": str(unit)}


def read_composite(outcome: CallOutcome, *, phases: int, now: datetime) -> CompositeAnswer:
    """Read an answer of any version; ``phases`` where a period does not say."""
    payload = outcome.payload
    if payload is None:
        silent = {"Timeout": Answer.SILENT, "Offline": Answer.OFFLINE}
        answer = silent.get(outcome.code, Answer.ERROR)
        detail = f"{outcome.code} {outcome.description}".strip()[:DETAIL_MAX]
        return CompositeAnswer(answer=answer, detail=detail)
    status = str(payload.get("status", ""))[:64]
    if status.lower() != "accepted":
        return CompositeAnswer(answer=Answer.REFUSED, detail=status)
    found = payload.get("chargingSchedule") or payload.get("schedule")
    schedule = found if isinstance(found, dict) else {}
    periods = schedule.get("chargingSchedulePeriod")
    rows = periods if isinstance(periods, list) else []
    steps: list[tuple[int, float]] = []
    unit = str(schedule.get("chargingRateUnit", ""))
    for row in rows[:PERIODS_MAX]:
        step = _step(row, unit, phases) if isinstance(row, dict) else None
        if step is None:
            return CompositeAnswer(answer=Answer.ACCEPTED, detail="it names no limit")
        # "From receipt on" (1.6 5.7): offsets count from now, whatever its clock shows.
        steps.append((int(now.timestamp()) + step[0], step[1]))
    if not steps:
        return CompositeAnswer(answer=Answer.ACCEPTED, detail="it names no limit")
    return CompositeAnswer(answer=Answer.ACCEPTED, allows=curve(steps))


def _step(row: framing.Payload, unit: str, phases: int) -> tuple[int, float] | None:
    """Offset in seconds and W of a period; None for one that names no limit."""
    start, limit = _number(row.get("startPeriod")), _number(row.get("limit"))
    if start is None or limit is None or start < 0 or limit < 0:
        return None
    if unit == RateUnit.WATT:
        return int(start), limit
    if unit != RateUnit.AMPERE:
        return None
    said = _number(row.get("numberPhases"))
    count = int(said) if said is not None and said in (1, 2, 3) else phases
    return int(start), limit * NOMINAL_VOLTAGE_V * count


def _number(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    value = float(found)
    return value if math.isfinite(value) else None
