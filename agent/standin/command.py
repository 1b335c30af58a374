"""`depot-agent standin`: serve the stand-in clouds until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from agent.standin.clock import RunningClock
from agent.standin.fixtures import load_sample
from agent.standin.server import StandinServer
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_control import PREFIX
from agent.standin.smartcar_fixtures import load_cars, load_sample_cars
from agent.standin.smartcar_state import CLIENT_ID, CLIENT_SECRET, SmartcarStandin
from agent.standin.state import ChargEyeStandin

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

PORT = 8099
"""The loopback port of chargeye-openapi.yaml."""
SMARTCAR_PORT = 8098
"""One below it, for the stand-in Smartcar."""


async def standin(
    *,
    now: datetime,
    announce: Callable[[str], None],
    port: int = PORT,
    smartcar_port: int = 0,
    site_cap_kw: float = 300.0,
    refresh_token: str = "standin-refresh-token",  # noqa: S107 a stand-in's
    fixtures: Path | None = None,
    speed: float = 1.0,
) -> None:
    """Serve until cancelled; `announce` gets each line for the operator.

    `now`: aware start of the stand-in's clock, which runs `speed` times real time.
    Port 0 is any free one. `fixtures`: JSON object with `vehicles` and `schedules` lists
    for ChargEye and `cars` for Smartcar; without it the sample depot and a few cars.
    OSError: port taken or file unreadable; `BadRequestError` or
    `orjson.JSONDecodeError`: bad file.
    """
    clock = RunningClock(now, speed=speed)
    smartcar = SmartcarStandin(clock)
    cloud = ChargEyeStandin(
        clock,
        site_cap_kw=site_cap_kw,
        refresh_token=refresh_token,
    )
    if fixtures is None:
        load_sample(cloud)
        load_sample_cars(smartcar)
    else:
        content = orjson.loads(await asyncio.to_thread(fixtures.read_bytes))
        cloud.load_fixture(content)
        load_cars(smartcar, content)
    async with (
        StandinServer(cloud, port=port) as server,
        SmartcarServer(smartcar, port=smartcar_port) as cars,
    ):
        announce(f"stand-in ChargEye listens on {server.base_url}")
        announce(f"refresh token: {refresh_token}")
        announce(f"vehicles: {len(cloud.vehicles)}, site cap: {site_cap_kw:g} kW")
        announce(f"ledger, faults, replan: {server.root_url}/_control/")
        announce(f"stand-in Smartcar listens on {cars.api_url}")
        announce(f"v3 token: {cars.token_url}; v2.0: {cars.v2_url}, {cars.v2_token_url}")
        announce(f"client id: {CLIENT_ID} (v2.0: {smartcar.v2_client_id})")
        announce(f"client secret: {CLIENT_SECRET}")
        announce(f"cars: {', '.join(smartcar.cars) or 'none'}")
        announce(f"ledger, faults, cars, limits: {cars.root_url}{PREFIX}/")
        await asyncio.Event().wait()
