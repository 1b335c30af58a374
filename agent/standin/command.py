"""`depot-agent standin`: serve the stand-in ChargEye until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from agent.standin.clock import RunningClock
from agent.standin.fixtures import load_sample
from agent.standin.server import StandinServer
from agent.standin.state import ChargEyeStandin

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

PORT = 8099
"""The loopback port of chargeye-openapi.yaml."""


async def standin(
    *,
    now: datetime,
    announce: Callable[[str], None],
    port: int = PORT,
    site_cap_kw: float = 300.0,
    refresh_token: str = "standin-refresh-token",  # noqa: S107 a stand-in's
    fixtures: Path | None = None,
    speed: float = 1.0,
) -> None:
    """Serve until cancelled; `announce` gets each line for the operator.

    `now`: aware start of the stand-in's clock, which runs `speed` times real time.
    `fixtures`: JSON object with `vehicles` and `schedules` lists; without it the
    sample depot. OSError: port taken or file unreadable; `BadRequestError` or
    `orjson.JSONDecodeError`: bad file.
    """
    cloud = ChargEyeStandin(
        RunningClock(now, speed=speed),
        site_cap_kw=site_cap_kw,
        refresh_token=refresh_token,
    )
    if fixtures is None:
        load_sample(cloud)
    else:
        raw = await asyncio.to_thread(fixtures.read_bytes)
        cloud.load_fixture(orjson.loads(raw))
    async with StandinServer(cloud, port=port) as server:
        announce(f"stand-in ChargEye listens on {server.base_url}")
        announce(f"refresh token: {refresh_token}")
        announce(f"vehicles: {len(cloud.vehicles)}, site cap: {site_cap_kw:g} kW")
        announce(f"ledger, faults, replan: {server.root_url}/_control/")
        await asyncio.Event().wait()
