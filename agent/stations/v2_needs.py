"""ISO 15118 needs and schedules, and limits of other masters -> domain values.

Integers in 2.0.1, numbers in 2.1; anything that cannot be read is left out.
ocpp-depot.md A8, B2 (external limits), B5.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.domain.capability import NOMINAL_VOLTAGE_V
from agent.domain.curve import EVER_S, Curve, curve
from agent.domain.events import EvNeeds
from agent.stations.adapter import as_text
from agent.stations.framing import Payload
from agent.stations.samples import NUMBER_MAX
from agent.stations.times import parse_int, parse_number, parse_time

PERIODS_READ_MAX = 1024
"""The schema's own bound on periods of a schedule."""
PHASES_DEFAULT = 3
"""Without a usable numberPhases three are assumed (ocpp-depot.md rule 7)."""


def read_needs(payload: Payload, now: datetime) -> EvNeeds:
    """Read NotifyEVChargingNeedsRequest; never raises."""
    needs = _dict(payload.get("chargingNeeds"))
    direct = _dict(needs.get("dcChargingParameters"))
    alternating = _dict(needs.get("acChargingParameters"))
    both_ways = _dict(needs.get("v2xChargingParameters"))
    tuples = parse_int(payload.get("maxScheduleTuples"))
    return EvNeeds(
        at=now,
        tuples_max=tuples if tuples is not None and tuples > 0 else None,
        departs_at=parse_time(needs.get("departureTime")),
        energy_wh=_first(
            _positive(direct.get("energyAmount")),
            _positive(alternating.get("energyAmount")),
            _positive(both_ways.get("evTargetEnergyRequest")),
        ),
        capacity_wh=_positive(direct.get("evEnergyCapacity")),
        soc_percent=_percent(direct.get("stateOfCharge")),
        target_soc_percent=_first(
            _percent(direct.get("fullSoC")), _percent(both_ways.get("targetSoC"))
        ),
        max_w=_first(
            _positive(direct.get("evMaxPower")),
            _product(direct.get("evMaxCurrent"), direct.get("evMaxVoltage")),
            _positive(both_ways.get("maxChargePower")),
        ),
        transfer=as_text(needs.get("requestedEnergyTransfer"))[:40],
    )


def read_schedule(schedule: Any, starts_at: datetime) -> Curve | None:
    """A ChargingScheduleType as W over time from ``starts_at``; None if unreadable."""
    body = _dict(schedule)
    starts_at = parse_time(body.get("startSchedule")) or starts_at
    periods = body.get("chargingSchedulePeriod")
    is_amps = as_text(body.get("chargingRateUnit")) == "A"
    start_s = int(starts_at.timestamp())
    points: list[tuple[int, float]] = []
    for period in (periods if isinstance(periods, list) else [])[:PERIODS_READ_MAX]:
        item = _dict(period)
        offset_s = parse_int(item.get("startPeriod"))
        limit = parse_number(item.get("limit"))
        if offset_s is None or limit is None or not 0 <= limit < NUMBER_MAX:
            return None
        phases = parse_int(item.get("numberPhases"))
        if phases is None or not 1 <= phases <= PHASES_DEFAULT:
            phases = PHASES_DEFAULT
        watts = limit * NOMINAL_VOLTAGE_V * phases if is_amps else limit
        points.append((start_s + offset_s, watts))
    return curve(points) if points else None


def schedule_end_s(schedule: Any, starts_at: datetime) -> int:
    """When a schedule ends by its ``duration``, seconds since the epoch; else never."""
    body = _dict(schedule)
    starts_at = parse_time(body.get("startSchedule")) or starts_at
    duration_s = parse_int(body.get("duration"))
    if duration_s is None or duration_s <= 0:
        return EVER_S
    return int(starts_at.timestamp()) + duration_s


def lowest_w(schedules: Any, now: datetime) -> float | None:
    """The lowest limit in schedules of another master, W; None when it gave none."""
    items = schedules if isinstance(schedules, list) else [schedules]
    lines = [read_schedule(item, now) for item in items if item is not None]
    values = [limit_w for line in lines if line is not None for _, limit_w in line]
    return min(values, default=None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _positive(value: Any) -> float | None:
    number = parse_number(value)
    return number if number is not None and 0 <= number < NUMBER_MAX else None


def _percent(value: Any) -> float | None:
    number = parse_number(value)
    return number if number is not None and 0 <= number <= 100 else None  # noqa: PLR2004


def _product(one: Any, other: Any) -> float | None:
    left, right = _positive(one), _positive(other)
    return None if left is None or right is None else left * right


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
