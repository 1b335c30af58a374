"""The ChargEye client: paths, token, and the reports that the depot owes.

Paths 11 to 14, 17 and 18 of chargeye.md section 4 are *inferred*; every path can be
overridden by ``[chargeye] paths``. Nothing is ever deleted: no POST with
``replaceFutureSchedules`` leaves this client unless an operator asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import orjson

from agent.cloud.chargeye_parse import read_schedules, read_vehicles
from agent.cloud.http import RETRY_AFTER_AUTH_S, CloudHttp, Json
from agent.domain.effects import Report, SessionReport, StartSocReport
from agent.domain.errors import CloudFault
from agent.domain.ids import VehicleId
from agent.domain.meter import HISTORY_SLOT_S, HistorySlot
from agent.ports import Clock, RegistryRead, SchedulesRead

PATHS: dict[str, str] = {
    "token": "/auth/refreshAccessToken",
    "locations": "/locations",
    "location": "/locations/{locationUid}",
    "location_stations": "/locations/{locationUid}/stations",
    "location_schedules": "/locations/{locationUid}/schedules",
    "vehicles": "/vehicles",
    "vehicle": "/vehicles/{vehicleId}",
    "vehicle_schedules": "/vehicles/{vehicleId}/schedules",
    "active_schedule": "/vehicles/{vehicleId}/schedules/active",
    "stations": "/stations",
    "station_transactions": "/chargingStations/{stationId}/transactions",
    "transactions": "/transactions",
    "transaction": "/transactions/{txId}",
}
"""Path table of chargeye.md section 4; keys of ``[chargeye] paths``."""

RENEW_BEFORE = timedelta(minutes=8)
"""Renew when less than 5 to 10 minutes of the token's life are left (section 2)."""
TOKEN_LIFE = timedelta(hours=8)
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
        self._http = http
        self._refresh_token = refresh_token
        self._location_uid = location_uid
        self._clock = clock
        self._paths = {**PATHS, **(paths or {})}
        self._token = ""
        self._token_until = datetime.min.replace(tzinfo=UTC)
        self._renewing = asyncio.Lock()

    # --- the Fleet port -------------------------------------------------------------

    async def vehicles(self) -> RegistryRead:
        """Read all registered vehicles."""
        body = await self._send("GET", self._path("vehicles"))
        try:
            return read_vehicles(body)
        except ValueError as error:
            raise self._odd("GET vehicles", error) from error

    async def schedules(self) -> SchedulesRead:
        """Read the dated schedules of the depot's location."""
        path = self._path("location_schedules", locationUid=self._location_uid)
        body = await self._send("GET", path)
        rows = body.get("schedules") if isinstance(body, dict) else None
        try:
            return read_schedules(rows, self._location_uid)
        except ValueError as error:
            raise self._odd("GET schedules", error) from error

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        """Read the running or next schedule of a vehicle, if there is one (6.8)."""
        path = self._path("active_schedule", vehicleId=vehicle_id)
        body = await self._send("GET", path)
        row = body.get("currentOrNext") if isinstance(body, dict) else None
        rows = [{"evId": vehicle_id, **row}] if isinstance(row, dict) else []
        return read_schedules(rows, self._location_uid)

    async def deliver(self, report: Report, schedule_text: str | None) -> str:
        """Deliver what is owed by PATCH of the vehicle's schedules (6.7)."""
        change = (
            _start_soc(report)
            if isinstance(report, StartSocReport)
            else _charged(report, schedule_text)
        )
        path = self._path("vehicle_schedules", vehicleId=report.vehicle_id)
        body = await self._send("PATCH", path, {"schedules": [change]})
        answer = body if isinstance(body, dict) else {}
        skipped = answer.get("skippedScheduleIds")
        if isinstance(skipped, list) and report.schedule_id in skipped:
            return "skipped by ChargEye"
        if answer.get("success") is False:
            message = str(answer.get("message", ""))[:120]
            raise CloudFault(f"chargeye: PATCH was refused: {message}", retryable=False)
        return "taken"

    # --- requests -------------------------------------------------------------------

    def _path(self, name: str, **parts: str) -> str:
        path = self._paths[name]
        for key, value in parts.items():
            path = path.replace("{" + key + "}", quote(value, safe=""))
        return path if path.startswith("/") else f"/{path}"

    async def _send(self, method: str, path: str, body: Json | None = None) -> Any:
        token = await self._fresh_token()
        status, answer = await self._http.send(method, path, bearer=token, body=body)
        if status != 401:  # noqa: PLR2004
            return answer
        token = await self._fresh_token(stale=token)
        status, answer = await self._http.send(method, path, bearer=token, body=body)
        if status == 401:  # noqa: PLR2004
            raise CloudFault(
                f"chargeye: {method} {path} is not permitted (401 with a new token): check "
                "the account's rights for Vehicles and Locations",
                retryable=True,
                retry_after_s=RETRY_AFTER_AUTH_S,
            )
        return answer

    async def _fresh_token(self, stale: str | None = None) -> str:
        """The access token; renewed when it ends soon or was refused, once at a time."""
        async with self._renewing:
            now = self._clock.now()
            is_good = self._token and self._token != stale
            if is_good and now + RENEW_BEFORE < self._token_until:
                return self._token
            status, body = await self._http.send(
                "GET", self._path("token"), bearer=self._refresh_token
            )
            found = body if isinstance(body, dict) else {}
            token = found.get("token") or found.get("accessToken")
            if status == 401 or not isinstance(token, str) or not token:  # noqa: PLR2004
                self._token = ""
                raise CloudFault(
                    "chargeye: the refresh token is not accepted: make a new one in the "
                    "Account Administration view and set chargeye.refresh_token",
                    retryable=True,
                    retry_after_s=RETRY_AFTER_AUTH_S,
                )
            self._token = token
            self._token_until = _until(found.get("validUntil"), now)
            return token

    def _odd(self, what: str, error: ValueError) -> CloudFault:
        return CloudFault(f"chargeye: {what}: {error}", retryable=True)


def _until(text: Any, now: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return now + TOKEN_LIFE
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


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
