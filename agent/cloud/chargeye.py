"""What the daemon itself asks of ChargEye: registry, schedules, and its reports.

Nothing is ever deleted here: POST is for operators (``chargeye_ops``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from agent.cloud.chargeye_api import ChargEyeApi, odd
from agent.cloud.chargeye_parse import read_schedules, read_vehicles
from agent.cloud.http import CloudHttp, Json
from agent.domain.effects import FleetReport, SessionReport, StartSocReport
from agent.domain.errors import CloudFault
from agent.domain.ids import VehicleId
from agent.domain.meter import HISTORY_SLOT_S, HistorySlot
from agent.ports import Clock, RegistryRead, SchedulesRead

IDLE_W = 500.0
"""A measured quarter hour below this mean power is reported as a pause (B12)."""


class ChargEye:
    """The Fleet port on ChargEye's REST API."""

    def __init__(
        self,
        http: CloudHttp,
        refresh_token: str,
        *,
        location_uid: str,
        clock: Clock,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; no request is made before the first use."""
        self.api = ChargEyeApi(http, refresh_token, clock=clock, paths=paths)
        self._location_uid = location_uid

    # --- the Fleet port -------------------------------------------------------------

    async def vehicles(self) -> RegistryRead:
        """Read all registered vehicles."""
        body = await self.api.send("GET", "vehicles")
        try:
            # In a thread: a registry at its bound takes half a second (N2).
            return await asyncio.to_thread(read_vehicles, body)
        except ValueError as error:
            raise odd("GET vehicles", error) from error

    async def schedules(self) -> SchedulesRead:
        """Read the dated schedules of the depot's location."""
        body = await self.api.send(
            "GET", "location_schedules", locationUid=self._location_uid
        )
        rows = body.get("schedules") if isinstance(body, dict) else None
        try:
            return await asyncio.to_thread(read_schedules, rows, self._location_uid)
        except ValueError as error:
            raise odd("GET schedules", error) from error

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        """Read the running or next schedule of a vehicle, if there is one (6.8)."""
        body = await self.api.send("GET", "active_schedule", vehicleId=vehicle_id)
        row = body.get("currentOrNext") if isinstance(body, dict) else None
        rows = [{"evId": vehicle_id, **row}] if isinstance(row, dict) else []
        return read_schedules(rows, self._location_uid)

    async def deliver(self, report: FleetReport, schedule_text: str | None) -> str:
        """Deliver what is owed by PATCH of the vehicle's schedules (6.7)."""
        change = (
            _start_soc(report)
            if isinstance(report, StartSocReport)
            else _charged(report, schedule_text)
        )
        body = await self.api.send(
            "PATCH",
            "vehicle_schedules",
            vehicleId=report.vehicle_id,
            body={"schedules": [change]},
        )
        answer = body if isinstance(body, dict) else {}
        skipped = answer.get("skippedScheduleIds")
        if isinstance(skipped, list) and report.schedule_id in skipped:
            return "skipped by ChargEye"
        if answer.get("success") is False:
            message = str(answer.get("message", ""))[:120]
            raise CloudFault(f"chargeye: PATCH was refused: {message}", retryable=False)
        return "taken"


def _start_soc(report: StartSocReport) -> Json:
    return {"id": report.schedule_id, "startSoC": round(report.soc_percent, 1)}


def _charged(report: SessionReport, schedule_text: str | None) -> Json:
    """The plan as last read, with what was measured (contract section 6)."""
    row = orjson.loads(schedule_text) if schedule_text else {}
    read = row.get("plan") if isinstance(row, dict) else None
    plan: Json = dict(read) if isinstance(read, dict) else {}
    inner = plan.get("schedule")
    schedule: Json = dict(inner) if isinstance(inner, dict) else {"id": report.schedule_id}
    times = {
        "chargingStartTime": _iso(report.charging_started_at),
        "chargingEndTime": _iso(report.charging_ended_at),
    }
    schedule["tx"] = {key: value for key, value in times.items() if value is not None}
    plan["schedule"] = schedule
    plan["pastSegments"] = past_segments(report)
    return {"id": report.schedule_id, "plan": plan}


def past_segments(report: SessionReport) -> list[Json]:
    """Measured quarter hours as ChargEye's segments; times epoch ms, energy kWh."""
    first_ms = int(report.first_at.timestamp() * 1000)
    last_ms = int(report.last_at.timestamp() * 1000)
    found = [_segment(slot, first_ms, last_ms) for slot in report.slots]
    return [item for item in found if item is not None]


def _segment(slot: HistorySlot, first_ms: int, last_ms: int) -> Json | None:
    start_s, energy_wh, soc_first, soc_last = slot
    from_ms = max(start_s * 1000, first_ms)
    to_ms = min((start_s + HISTORY_SLOT_S) * 1000, max(last_ms, first_ms))
    if to_ms <= from_ms:
        if energy_wh <= 0:
            return None
        to_ms = from_ms + 1000  # energy without a span: one sample at the very edge
    mean_w = energy_wh * 3_600_000 / (to_ms - from_ms)
    segment: Json = {
        "from": from_ms,
        "to": to_ms,
        "durationMs": to_ms - from_ms,
        "powerkW": round(mean_w / 1000, 3),
        "energykWh": round(energy_wh / 1000, 3),
        "paused": mean_w < IDLE_W,
        "powerUnlimited": False,
    }
    if soc_first is not None:
        segment["startSoc"] = soc_first
    if soc_last is not None:
        segment["endSoc"] = soc_last
    return segment


def _iso(at: datetime | None) -> str | None:
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
