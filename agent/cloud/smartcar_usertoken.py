"""Renews the drivers' tokens of v2.0 so that no lost answer strands one (section 3.3).

Each renewal gives a new refresh token, and the old one dies minutes after its use. So
the start is on disk before the request, the new token beside the old before it counts,
and the old stays until the new has worked. One refresher per driver, behind a lock.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from agent.cloud.smartcar_errors import ApiError
from agent.cloud.smartcar_http import Answer, SmartcarHttp, UnheardError
from agent.cloud.smartcar_options import SmartcarOptions
from agent.cloud.smartcar_token import is_token, life_of
from agent.cloud.smartcar_tokenfile import Generations, TokenFile
from agent.domain.errors import CloudFault
from agent.ports import Clock, Ids

log = structlog.get_logger()

LIFE_USUAL_S = 7200.0
RENEW_BEFORE_S = 720.0
"""Renewed when a tenth of its two hours is left."""
GRACE = timedelta(minutes=10)
"""How long a used token answers again (1 min in older documents: so at once, too)."""
RENEW_AFTER = timedelta(days=50)
"""An unused refresh token dies after 60 days."""
RETRY_FIRST_S = 10.0
RETRY_SPREAD_S = 10.0
"""Within the grace: every 10 to 20 s, for minutes are all there is."""
RETRY_LATER_S = 900.0
"""After the grace, when only a request that never arrived leaves the token alive."""
REFUSED_RETRY = timedelta(days=1)


class UserTokens:
    """Gives access tokens of drivers, and keeps their refresh tokens alive."""

    def __init__(
        self,
        http: SmartcarHttp,
        options: SmartcarOptions,
        file: TokenFile,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """Prepare; nothing is read or sent before the first use."""
        self._http = http
        self._url = options.auth_url
        self._basic = (options.client_id, options.client_secret)
        self._seeds = {
            item.user_id: item.refresh_token for item in options.vehicles if item.user_id
        }
        self._file = file
        self._clock = clock
        self._ids = ids
        self._locks: dict[str, asyncio.Lock] = {}
        self._retry_at: dict[str, datetime] = {}
        self.requests = 0

    async def users(self) -> Iterable[str]:
        """All drivers that are configured or on file."""
        return sorted({*self._seeds, *(await self._file.users())})

    async def get(self, user_id: str, stale: str = "") -> str:
        """Give an access token other than ``stale``. Raises CloudFault."""
        async with self._lock(user_id):
            tokens = await self._of(user_id)
            now = self._clock.now()
            left_s = _left_s(tokens, now)
            is_usable = bool(tokens.access) and tokens.access != stale and left_s > 0
            if is_usable and left_s > RENEW_BEFORE_S:
                return tokens.access
            try:
                return (await self._renewed(user_id, tokens)).access
            except CloudFault:
                if is_usable:
                    return tokens.access  # it still lives; ``keep`` goes on renewing
                raise

    async def keep(self) -> None:
        """Finish what a restart or a lost answer left, and renew old ones. Never ends."""
        while True:
            try:
                for user_id in await self.users():
                    async with self._lock(user_id):
                        await self._keep_one(user_id)
            except CloudFault as error:
                log.warning("smartcar_token_renewal_failed", reason=str(error))
            await self._clock.sleep(
                RETRY_FIRST_S + RETRY_SPREAD_S * self._ids.chance(),
            )

    async def _keep_one(self, user_id: str) -> None:
        tokens = await self._of(user_id)
        now = self._clock.now()
        is_old = tokens.renewed_at is None or now - tokens.renewed_at > RENEW_AFTER
        is_due = (tokens.started_at is not None or is_old) and bool(tokens.current)
        if not is_due or _is_refused(tokens, now) or now < self._retry_at.get(user_id, now):
            return
        try:
            await self._renewed(user_id, tokens)
        except CloudFault as error:
            started = tokens.started_at or now
            later = now - started > GRACE
            wait_s = RETRY_LATER_S if later or not error.retryable else 0.0
            self._retry_at[user_id] = now + timedelta(seconds=wait_s)
            log.warning("smartcar_token_renewal_failed", user=user_id, reason=str(error))

    # --- one renewal ----------------------------------------------------------------

    async def _renewed(self, user_id: str, tokens: Generations) -> Generations:
        now = self._clock.now()
        if _is_refused(tokens, now) or not tokens.current:
            raise _needs_connect(user_id)
        if tokens.started_at is None:
            tokens = replace(tokens, started_at=now)
            await self._file.save(user_id, tokens)
        # One written beside came in an answer, so it is the youngest of all.
        for token in (tokens.beside, tokens.current, tokens.previous):
            answer = await self._answer(token) if token else None
            if answer is not None:
                return await self._taken(user_id, tokens, token, answer)
        await self._file.save(user_id, replace(tokens, refused_at=now, started_at=None))
        log.warning(
            "smartcar_driver_needed",
            user=user_id,
            reason="every refresh token of the driver was refused",
        )
        raise _needs_connect(user_id)

    async def _answer(self, token: str) -> Answer | None:
        """The answer to a renewal; None when this token is refused.

        Raises CloudFault when the outcome is not known, after one more try at once.
        """
        failure = ""
        for _ in range(2):
            self.requests += 1
            form = {"grant_type": "refresh_token", "refresh_token": token}
            try:
                answer = await self._http.send(
                    "POST", self._url, form=form, basic=self._basic
                )
            except UnheardError as error:
                failure = str(error)
                continue
            if answer.is_success and _pair_of(answer) is not None:
                return answer
            if answer.is_success:
                failure = "the answer has no usable tokens"
                continue
            refusal = answer.error()
            if _is_refusal(refusal):
                return None
            failure = f"{refusal.http_status} {refusal.name}"
            if refusal.http_status < 500:  # noqa: PLR2004 - the same again would not help
                break
        raise CloudFault(
            f"smartcar: a driver's token could not be renewed: {failure}",
            retryable=True,
            retry_after_s=RETRY_FIRST_S + RETRY_SPREAD_S,
        )

    async def _taken(
        self, user_id: str, tokens: Generations, used: str, answer: Answer
    ) -> Generations:
        """Put what came on disk: first beside the old, then as the current one."""
        pair = _pair_of(answer)
        if pair is None:
            raise AssertionError("checked before")
        access, refresh, life_s = pair
        now = self._clock.now()
        beside = replace(tokens, beside=refresh)
        await self._file.save(user_id, beside)
        current = replace(
            beside,
            current=refresh,
            beside="",
            previous=used,
            started_at=None,
            renewed_at=now,
            refused_at=None,
            access=access,
            access_until=now + timedelta(seconds=life_s),
        )
        await self._file.save(user_id, current)
        self._retry_at.pop(user_id, None)
        log.info("smartcar_token_renewed", user=user_id)
        return current

    async def _of(self, user_id: str) -> Generations:
        """A driver's tokens; a newly configured one begins a new row."""
        tokens = (await self._file.users()).get(user_id, Generations())
        seed = self._seeds.get(user_id, "")
        digest = hashlib.sha256(seed.encode()).hexdigest() if seed else ""
        if digest and digest != tokens.seed:
            tokens = Generations(current=seed, seed=digest)
            await self._file.save(user_id, tokens)
        return tokens

    def _lock(self, user_id: str) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())


def _left_s(tokens: Generations, now: datetime) -> float:
    until = tokens.access_until
    return 0.0 if until is None else (until - now).total_seconds()


def _is_refused(tokens: Generations, now: datetime) -> bool:
    at = tokens.refused_at
    return at is not None and timedelta(0) <= now - at < REFUSED_RETRY


def _pair_of(answer: Answer) -> tuple[str, str, float] | None:
    """Access token, refresh token, life in seconds; None when they are not there."""
    try:
        body = answer.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    access, refresh = body.get("access_token"), body.get("refresh_token")
    if not is_token(access) or not is_token(refresh):
        return None
    return str(access), str(refresh), life_of(body.get("expires_in"), LIFE_USUAL_S)


def _is_refusal(error: ApiError) -> bool:
    """Whether it is this token that is refused, not our credentials or the moment."""
    return error.code in ("invalid_grant", "invalid_token")


def _needs_connect(user_id: str) -> CloudFault:
    return CloudFault(
        f"smartcar: the driver {user_id} must connect the car again; then put the new "
        "refresh_token under [[smartcar.vehicles]]",
        retryable=False,
    )
