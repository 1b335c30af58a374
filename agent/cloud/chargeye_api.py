"""The way to ChargEye that all its clients share: paths, token, one repeat after a 401.

Paths 11 to 14, 17 and 18 of chargeye.md section 4 are *inferred*; every path can be
overridden by ``[chargeye] paths``. One object serves the daemon's polls, its reports and
the operators' commands, so that there is one token and one renewal at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from agent.cloud.http import RETRY_AFTER_AUTH_S, CloudHttp, Json
from agent.domain.errors import CloudFault
from agent.ports import Clock

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
    "power_group": "/loadBalancing/powerGroup/{powerGroupId}",
}
"""Path table of chargeye.md section 4; keys of ``[chargeye] paths``."""

INFERRED = frozenset(
    {
        *("location", "location_stations", "vehicle_schedules", "active_schedule"),
        *("transactions", "transaction"),
    }
)
"""Paths that no official text shows: a 404 there may mean another path."""

RENEW_BEFORE = timedelta(minutes=8)
"""Renew when less than 5 to 10 minutes of the token's life are left (section 2)."""
TOKEN_LIFE = timedelta(hours=8)
UNAUTHORIZED = 401

Query = Iterable[tuple[str, str]]


class ChargEyeApi:
    """Requests to ChargEye by the name of their path; see the module."""

    def __init__(
        self,
        http: CloudHttp,
        refresh_token: str,
        *,
        clock: Clock,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; no request is made before the first use."""
        self._http = http
        self._refresh_token = refresh_token
        self._clock = clock
        self._paths = {**PATHS, **(paths or {})}
        self._token = ""
        self._token_until = datetime.min.replace(tzinfo=UTC)
        self._renewing = asyncio.Lock()

    async def send(
        self,
        method: str,
        name: str,
        *,
        query: Query = (),
        body: Json | None = None,
        **parts: str,
    ) -> Any:
        """Send one request; the JSON of its answer, None for an empty one.

        ``name`` is a key of the path table, ``parts`` fill its placeholders. A 401 is
        answered by one renewal and one repeat: it was not applied. Raises CloudFault.
        """
        path = self._path(name, parts)
        text = urlencode(list(query))
        if text:
            path += ("&" if "?" in path else "?") + text
        try:
            return await self._authorised(method, path, body)
        except CloudFault as fault:
            if name in INFERRED and str(fault).endswith(" answered 404"):
                raise CloudFault(
                    f"{fault}: the id is unknown, or the path, which is not public "
                    f"(chargeye.paths.{name} sets another)",
                    retryable=fault.retryable,
                ) from fault
            raise

    async def _authorised(self, method: str, path: str, body: Json | None) -> Any:
        token = await self._fresh_token()
        status, answer = await self._http.send(method, path, bearer=token, body=body)
        if status != UNAUTHORIZED:
            return answer
        token = await self._fresh_token(stale=token)
        status, answer = await self._http.send(method, path, bearer=token, body=body)
        if status == UNAUTHORIZED:
            raise CloudFault(
                f"chargeye: {method} {path} is not permitted (401 with a new token): check "
                "the account's rights for Vehicles and Locations",
                retryable=True,
                retry_after_s=RETRY_AFTER_AUTH_S,
            )
        return answer

    def _path(self, name: str, parts: Mapping[str, str]) -> str:
        path = self._paths[name]
        for key, value in parts.items():
            path = path.replace("{" + key + "}", quote(value, safe=""))
        return path if path.startswith("/") else f"/{path}"

    async def _fresh_token(self, stale: str | None = None) -> str:
        """The access token; renewed when it ends soon or was refused, once at a time."""
        async with self._renewing:
            now = self._clock.now()
            is_good = self._token and self._token != stale
            if is_good and now + RENEW_BEFORE < self._token_until:
                return self._token
            status, body = await self._http.send(
                "GET", self._path("token", {}), bearer=self._refresh_token
            )
            found = body if isinstance(body, dict) else {}
            token = found.get("token") or found.get("accessToken")
            if status == UNAUTHORIZED or not isinstance(token, str) or not token:
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


def odd(what: str, error: ValueError) -> CloudFault:
    """An answer that cannot be what it should be: it may pass."""
    return CloudFault(f"chargeye: {what}: {error}", retryable=True)


def _until(text: Any, now: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return now + TOKEN_LIFE
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
