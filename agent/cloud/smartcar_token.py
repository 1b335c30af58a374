"""The application token of v3: in memory, renewed early, once at a time (section 3.2)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from agent.cloud.http import RETRY_AFTER_AUTH_S
from agent.cloud.smartcar_http import SmartcarHttp, UnheardError
from agent.domain.errors import CloudFault
from agent.ports import Clock, Ids

RENEW_FROM = 0.8
RENEW_SPREAD = 0.1
"""Renewed at 80 to 90 % of its life, so that depots do not come all at once."""
LIFE_USUAL_S = 3600.0
LIFE_MIN_S = 60.0
LIFE_MAX_S = 86_400.0
TOKEN_MAX = 8192


class ApplicationToken:
    """Gets and keeps the token that opens every car of the application."""

    def __init__(
        self,
        http: SmartcarHttp,
        url: str,
        credentials: tuple[str, str],
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """``credentials`` are the client's id and secret."""
        self._http = http
        self._url = url
        self._client_id, self._secret = credentials
        self._clock = clock
        self._ids = ids
        self._token = ""
        self._renew_at = self._ends_at = datetime.min.replace(tzinfo=UTC)
        self._failed_at: datetime | None = None
        self._lock = asyncio.Lock()
        self.requests = 0

    async def get(self, stale: str = "") -> str:
        """Give a token other than ``stale``. Raises CloudFault when there is none."""
        async with self._lock:
            now = self._clock.now()
            is_usable = bool(self._token) and self._token != stale and now < self._ends_at
            if is_usable and now < self._renew_at:
                return self._token
            try:
                return await self._renewed(now)
            except CloudFault:
                self._failed_at = self._failed_at or now
                if is_usable:
                    return self._token  # it still lives; the next call tries again
                raise

    async def _renewed(self, now: datetime) -> str:
        if self._failed_at is not None:
            passed_s = (now - self._failed_at).total_seconds()
            if 0 <= passed_s < RETRY_AFTER_AUTH_S:
                raise self._fault("the last try failed", RETRY_AFTER_AUTH_S - passed_s)
            self._failed_at = None
        self.requests += 1
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret,
        }
        try:
            answer = await self._http.send("POST", self._url, form=form)
        except UnheardError as error:
            raise self._fault(str(error), RETRY_AFTER_AUTH_S) from error
        if not answer.is_success:
            found = answer.error()
            hint = ""
            if answer.status in (400, 401):
                hint = ": check smartcar.client_id and client_secret"
                if not self._client_id.startswith("client_"):
                    hint += "; an id of v3 begins with client_, this one does not"
            raise self._fault(f"{found.http_status} {found.name}{hint}", RETRY_AFTER_AUTH_S)
        try:
            body = answer.json()
        except ValueError as error:
            raise self._fault(str(error), RETRY_AFTER_AUTH_S) from error
        token = body.get("access_token") if isinstance(body, dict) else None
        if not is_token(token):
            raise self._fault("the answer has no usable access_token", RETRY_AFTER_AUTH_S)
        life_s = life_of(body.get("expires_in"), LIFE_USUAL_S)
        share = RENEW_FROM + RENEW_SPREAD * self._ids.chance()
        self._token = str(token)
        self._renew_at = now + timedelta(seconds=life_s * share)
        self._ends_at = now + timedelta(seconds=life_s)
        return self._token

    def _fault(self, text: str, retry_after_s: float) -> CloudFault:
        return CloudFault(
            f"smartcar: no application token: {text}",
            retryable=True,
            retry_after_s=retry_after_s,
        )


def is_token(raw: object) -> bool:
    """Whether a header can carry it."""
    return (
        isinstance(raw, str)
        and 0 < len(raw) <= TOKEN_MAX
        and raw.isascii()
        and raw.isprintable()
        and " " not in raw
    )


def life_of(raw: object, usual_s: float) -> float:
    """Seconds that a token lives; the usual where the cloud says nothing of use."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or raw <= 0:
        return usual_s
    return min(max(float(min(raw, LIFE_MAX_S)), LIFE_MIN_S), LIFE_MAX_S)
