"""A stand-in Smartcar with a clock that stands still, and clients that are let in."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from agent.standin.clock import ManualClock
from agent.standin.smartcar import make_smartcar_app
from agent.standin.smartcar_car import PlainBody, StandinCar
from agent.standin.smartcar_state import CLIENT_ID, CLIENT_SECRET, SmartcarStandin

START = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
}
SIGNALS = "/v3/vehicles/v-1/signals"
COMMANDS = "/v3/vehicles/v-1/commands/charge"
SOC = "tractionbattery-stateofcharge"


def a_car(
    number: int = 1, body: dict[str, Any] | None = None, **changes: Any
) -> StandinCar:
    """A car that is plugged in and charging, which reports every ten minutes."""
    truth = {"soc_percent": 54.0, "is_plugged": True, "offered_w": 11_000.0} | (body or {})
    facts: dict[str, Any] = {
        "vehicle_id": f"v-{number}",
        "user_id": f"u-{number}",
        "vin": f"VSTANDN{number:010}",
        "report_s": 600.0,
    }
    return StandinCar(**(facts | changes), body=PlainBody(**truth))


def plain(car: StandinCar) -> PlainBody:
    """The truth about a car, to be set."""
    assert isinstance(car.body, PlainBody)
    return car.body


def a_cloud(*cars: StandinCar, **options: Any) -> tuple[SmartcarStandin, ManualClock]:
    """A cloud with these cars, and its clock."""
    clock = ManualClock(START)
    cloud = SmartcarStandin(clock, **options)
    cloud.add(*cars)
    return cloud, clock


@asynccontextmanager
async def visitor(cloud: SmartcarStandin) -> AsyncIterator[httpx.AsyncClient]:
    """A client in process that nobody let in."""
    transport = httpx.ASGITransport(app=make_smartcar_app(cloud))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        yield http


@asynccontextmanager
async def driver(cloud: SmartcarStandin) -> AsyncIterator[httpx.AsyncClient]:
    """A client in process with an application token, for the user u-1."""
    async with visitor(cloud) as http:
        token = await new_token(http)
        http.headers.update({"authorization": f"Bearer {token}", "sc-user-id": "u-1"})
        yield http


async def new_token(http: httpx.AsyncClient) -> str:
    """Ask for an application token."""
    answer = await http.post("/oauth2/token", data=CREDENTIALS)
    return str(answer.json()["access_token"])


def basic(name: str, password: str) -> dict[str, str]:
    """The header of Basic authentication."""
    text = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"authorization": f"Basic {text}"}


def code_of(answer: httpx.Response) -> str:
    """The TYPE:CODE of a v3 error, with its status."""
    item = answer.json()["errors"][0]
    assert item["status"] == str(answer.status_code)
    return f"{item['type']}:{item['code']}"
