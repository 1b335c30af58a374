"""A scripted Smartcar behind an httpx transport, and a store that forgets nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx

from agent.cloud.smartcar import Smartcar
from agent.cloud.smartcar_options import SmartcarOptions, SmartcarVehicle
from agent.domain.errors import StoreFault
from agent.ports import Car, FactSaved, Ids, Record, Store

NOW = datetime(2026, 11, 10, 18, 0, tzinfo=UTC)
TOKEN_URL = "https://iam.smartcar.test/oauth2/token"
API_URL = "https://vehicle.smartcar.test/v3"
SECRET = "client-secret-HQK9"
ACCESS = "access-token-MZX4"
CAR = Car(vehicle_id="v-1", user_id="u-1", vin="")
OTHER = Car(vehicle_id="v-2", user_id="u-2", vin="")
VIN = "WVWZZZAAZJD000001"
Answer = Callable[[httpx.Request], httpx.Response]


class HandClock:
    """Time that moves by hand."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at
        self.slept_s = 0.0

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.pass_s(seconds)
        self.slept_s += seconds

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Dice:
    """Chance that always says the same."""

    def __init__(self, chance: float = 0.5) -> None:
        self.value = chance

    def chance(self) -> float:
        return self.value


class MemoryStore:
    """Facts that outlive clients; ``fails`` makes the disk refuse."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Mapping[str, object]] = {}
        self.fails = False
        self.commits = 0

    async def commit(self, records: Sequence[Record], now: datetime) -> None:
        del now
        if self.fails:
            raise StoreFault("the disk is full")
        self.commits += 1
        for row in records:
            assert isinstance(row, FactSaved)
            if row.body is None:
                self.rows.pop((row.scope, row.name), None)
            else:
                self.rows[row.scope, row.name] = httpx.Response(200, json=row.body).json()

    async def facts(self, scope: str) -> dict[str, Mapping[str, object]]:
        if self.fails:
            raise StoreFault("the disk cannot be read")
        return {name: body for (of, name), body in self.rows.items() if of == scope}


def as_store(store: MemoryStore) -> Store:
    return cast("Store", store)


def as_ids(dice: Dice) -> Ids:
    return cast("Ids", dice)


def signal(
    code: str, at: Any = "2026-11-10T17:58:00.000Z", status: Any = "SUCCESS", **body: Any
) -> dict[str, Any]:
    """One signal as v3 writes it; ``error=`` goes into the status."""
    error = body.pop("error", None)
    shown: dict[str, Any] = {"value": status}
    if error is not None:
        shown["error"] = error
    attributes = {"code": code, "status": shown}
    if body:
        attributes["body"] = body
    return {
        "id": code, "type": "signal", "attributes": attributes,
        "meta": {"oemUpdatedAt": at},
    }  # fmt: skip


SIGNALS = [
    signal("tractionbattery-stateofcharge", value=54, unit="percent"),
    signal("tractionbattery-range", value=210.5, unit="km"),
    signal("tractionbattery-nominalcapacity", capacity=77.0, source="SMARTCAR", unit="kWh"),
    signal("charge-ischargingcableconnected", value=True),
    signal("charge-ischarging", value=False),
    signal("charge-detailedchargingstatus", value="NOT_CHARGING"),
    signal("charge-chargelimits", values=[], activeLimit=80, unit="percent"),
    signal("vehicleidentification-vin", at=0, value=VIN),
]


def page(rows: Sequence[Any], following: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"data": list(rows), "links": {"next": following}})


def executed(value: str = "SUCCESS", status: int = 200, **error: Any) -> httpx.Response:
    shown: dict[str, Any] = {"value": value}
    if error:
        shown["error"] = error
    attributes = {"commandType": "charge-start", "status": shown}
    data = {"id": "x-1", "type": "command-execution", "attributes": attributes}
    return httpx.Response(status, json={"data": data})


def refusal(status: int, name: str, inner: str = "", **headers: str) -> httpx.Response:
    """An error as v3 writes it."""
    kind, _, code = name.partition(":")
    item = {
        "status": inner or str(status), "type": kind, "code": code or None,
        "title": "Refused", "detail": "because of a test",
        "meta": {"debug": {"requestId": "r-7"}},
    }  # fmt: skip
    shown = {key.replace("_", "-"): text for key, text in headers.items()}
    return httpx.Response(status, json={"errors": [item]}, headers=shown)


class ScriptedSmartcar:
    """Hands out tokens, answers the rest as told, and keeps what was asked."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or (lambda _: page(SIGNALS))
        self.token: Any = {
            "access_token": ACCESS,
            "token_type": "Bearer",
            "expires_in": 3600,
        }
        self.token_status = 200
        self.requests: list[httpx.Request] = []
        self.tokens = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if str(request.url) == TOKEN_URL:
            self.tokens += 1
            body = self.token
            if isinstance(body, dict) and body.get("access_token") == ACCESS:
                body = body | {"access_token": f"{ACCESS}-{self.tokens}"}
            return httpx.Response(self.token_status, json=body)
        self.requests.append(request)
        return self.answer(request)

    def asked(self) -> list[str]:
        return [f"{item.method} {item.url.path}" for item in self.requests]


class Bench:
    """A scripted cloud with a store; ``client()`` is the agent after a start."""

    def __init__(self, answer: Answer | None = None, **options: Any) -> None:
        self.cloud = ScriptedSmartcar(answer)
        self.store = MemoryStore()
        self.clock = HandClock()
        self.dice = Dice()
        self.options = SmartcarOptions(
            client_id="client_bench", client_secret=SECRET, token_url=TOKEN_URL,
            api_url=API_URL, vehicles=(
                SmartcarVehicle(vin=VIN, vehicle_id="v-9", user_id="u-9"),
            ),
            **options,
        )  # fmt: skip

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Smartcar]:
        found = Smartcar(
            self.options,
            as_store(self.store),
            self.clock,
            as_ids(self.dice),
            transport=httpx.MockTransport(self.cloud),
        )
        try:
            yield found
        finally:
            await found.close()
