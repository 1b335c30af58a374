"""A clock that is set by hand, and a cloud client on any transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from agent.cloud.chargeye import ChargEye
from agent.cloud.http import CloudHttp

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
REFRESH = "refresh-token-XQZ1"
ACCESS = "access-token-YPW2"
Answer = Callable[[httpx.Request], httpx.Response]


class HandClock:
    """Time that moves by hand."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Cloud:
    """A scripted cloud: hands out tokens, and answers the rest as told."""

    def __init__(self, answer: Answer | None = None, **token: Any) -> None:
        self.answer = answer or (lambda _: httpx.Response(200, json={"vehicles": []}))
        self.token = {"token": ACCESS, "validUntil": "2026-01-16T02:00:00.000Z"} | token
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/auth/refreshAccessToken"):
            return httpx.Response(200, json=self.token)
        return self.answer(request)

    def asked(self) -> list[str]:
        return [
            f"{request.method} {request.url.raw_path.decode()}" for request in self.requests
        ]


@asynccontextmanager
async def client_of(
    cloud: Any, *, refresh: str = REFRESH, clock: HandClock | None = None, **options: Any
) -> AsyncIterator[ChargEye]:
    transport = (
        cloud if isinstance(cloud, httpx.AsyncBaseTransport) else httpx.MockTransport(cloud)
    )
    http = CloudHttp("chargeye", "http://cloud.test/api/", transport=transport)
    try:
        yield ChargEye(
            http, refresh, location_uid="loc-1", clock=clock or HandClock(), **options
        )
    finally:
        await http.close()
