"""A cloud with a clock that stands still, and a client that is let in."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from agent.standin.clock import ManualClock
from agent.standin.fixtures import vehicle_json
from agent.standin.server import make_app
from agent.standin.state import ChargEyeStandin

START = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def cloud(clock):
    cloud = ChargEyeStandin(clock, site_cap_kw=300.0, refresh_token="refresh")
    cloud.load(vehicles=[vehicle_json(f"bus-{n}") for n in (1, 2, 3)])
    return cloud


@pytest.fixture
async def stranger(cloud):
    transport = httpx.ASGITransport(app=make_app(cloud))
    async with httpx.AsyncClient(transport=transport, base_url="http://t/api") as http:
        yield http


@pytest.fixture
async def client(cloud, stranger):
    token = cloud.tokens.exchange("refresh")["token"]
    stranger.headers["authorization"] = f"Bearer {token}"
    return stranger
