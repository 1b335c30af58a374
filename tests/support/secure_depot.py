"""A depot with a CA of its own: the real daemon, real TLS, stations that may cheat."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import structlog
import websockets
from websockets.typing import Subprotocol

from agent.app import Daemon
from agent.settings import Settings, load
from agent.simulator.build import build_station
from agent.simulator.clock import ScaledClock
from agent.simulator.station import VirtualStation
from agent.simulator.station_config import StationConfig
from agent.stations.certificates import (
    Authority,
    key_pem,
    make_key,
    make_request,
    pem_of,
)

VERSIONS = ("1.6", "2.0.1", "2.1")
KEY = "0123456789abcdef0123456789abcdef01234567"
NOW = datetime.now(UTC)
PACE = 0.01


class Pki:
    """A CA in a folder, with small keys: they are made in each run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.make("Depot CA", "Depot", NOW, 3650, bits=2048)
        self.ca = self._write("ca.pem", pem_of(self.authority.certificate))
        self.ca_key = self._write("ca.key", key_pem(self.authority.key))
        self.server("server")

    def _write(self, name: str, content: bytes) -> Path:
        file = self.folder / name
        file.write_bytes(content)
        file.chmod(0o600)
        return file

    def server(self, name: str, days: int = 825) -> None:
        """Write `name`-rsa and `name`-ecdsa."""
        for kind, is_rsa in (("rsa", True), ("ecdsa", False)):
            key = make_key(is_rsa=is_rsa, bits=2048)
            made = self.authority.issue_server(key, ["localhost", "127.0.0.1"], NOW, days)
            self._write(f"{name}-{kind}.key", key_pem(key))
            self._write(f"{name}-{kind}.pem", pem_of(made))

    def station(
        self, name: str, *, days: int = 30, began: datetime = NOW
    ) -> tuple[Path, Path]:
        """Make a station's certificate and key."""
        key = make_key(is_rsa=False)
        request = pem_of(make_request(key, name)).decode()
        made = self.authority.issue_station(request, [name], began, days)
        mark = f"{name}-{days}-{began:%Y%m%d}"
        return (
            self._write(f"{mark}.pem", pem_of(made)),
            self._write(f"{mark}.key", key_pem(key)),
        )

    def tls(self, name: str = "server", **more: Any) -> dict[str, Any]:
        """Write the section `[ocpp.tls]`."""
        return {
            "port": 0,
            "certificate": str(self.folder / f"{name}-rsa.pem"),
            "private_key": str(self.folder / f"{name}-rsa.key"),
            "certificate_2": str(self.folder / f"{name}-ecdsa.pem"),
            "private_key_2": str(self.folder / f"{name}-ecdsa.key"),
            "client_ca": str(self.ca),
        } | more

    def context(self, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Make a station's side."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair is not None:
            context.load_cert_chain(*pair)
        return context


def expired() -> datetime:
    """When a certificate of one day began that is over."""
    return NOW - timedelta(days=10)


def basic(user: str, password: str) -> dict[str, str]:
    """Write Basic credentials."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


@dataclass
class Depot:
    """The daemon and what can be done to it."""

    daemon: Daemon
    tasks: asyncio.TaskGroup
    logs: list[Any]
    stations: list[VirtualStation] = field(default_factory=list)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def plain(self) -> str:
        return f"ws://127.0.0.1:{self.daemon.ocpp_port}/"

    @property
    def secure(self) -> str:
        return f"wss://localhost:{self.daemon.tls_port}/"

    def events(self, name: str) -> list[Any]:
        return [row for row in self.logs if row["event"] == name]

    def station(self, name: str, url: str, **options: Any) -> VirtualStation:
        """Power a virtual station up."""
        config = StationConfig(
            station_id=name,
            url=url,
            backoff_first_real_s=0.05,
            backoff_max_real_s=0.2,
            **options,
        )
        made = build_station(config, ScaledClock(datetime.now(UTC), 100.0))
        self.stations.append(made)
        self.running.append(self.tasks.create_task(made.run()))
        return made

    async def online(self, station: VirtualStation) -> None:
        """Wait until a station was accepted and has been set up."""
        name = station.config.station_id
        await until(
            lambda: (
                station.is_online
                and name in self.daemon.server.links
                and any(
                    row["station_id"] == name for row in self.events("station_configured")
                )
            )
        )

    async def operate(self, name: str, **arguments: Any) -> tuple[int, Any]:
        """Run an operation; its status, and result or error text."""
        status, body = await self.daemon.operations.run(name, arguments)
        if "result" in body:
            return status, body["result"]
        error: Any = body["error"]
        return status, error["description"]

    async def knock(
        self, path: str, url: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> int:
        """Shake hands and leave: the status, 0 when TLS or TCP ended it."""
        version = more.pop("version", "1.6")
        try:
            async with websockets.connect(
                url + path,
                subprotocols=[Subprotocol(f"ocpp{version}")],
                additional_headers=headers or {},
                proxy=None,
                **more,
            ) as socket:
                # With TLS 1.3 a refused certificate shows when one reads.
                await (await socket.ping())
                return 101
        except websockets.InvalidStatus as refused:
            return refused.response.status_code
        except (ssl.SSLError, OSError, EOFError, websockets.WebSocketException):
            return 0


async def until(condition: Any, timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def settings_of(folder: Path, stations: list[dict[str, Any]], **ocpp: Any) -> Settings:
    """Configure a depot without clouds."""
    content: dict[str, Any] = {
        "site": {"cap_kw": 400.0},
        "ocpp": {"host": "127.0.0.1", "port": 0} | ocpp,
        "stations": stations,
        "store": {"path": folder / "agent.db"},
        "web": {"port": 0},
    }
    return Settings(**content)


@asynccontextmanager
async def depot(
    folder: Path, stations: list[dict[str, Any]], **ocpp: Any
) -> AsyncIterator[Depot]:
    """Open a depot."""
    config = ocpp.pop("config_path", None)
    settings = settings_of(folder, stations, **ocpp) if config is None else load(config)
    with (
        structlog.testing.capture_logs() as logs,
        # A reload sets the log up anew, which would end the capture.
        mock.patch("agent.host.logs.set_up"),
    ):
        daemon = Daemon(settings, config_path=config, pace=PACE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run())
            await daemon.is_ready.wait()
            found = Depot(daemon, tasks, logs)
            try:
                yield found
            finally:
                for station in found.stations:
                    station.stop()
                if found.running:
                    # asyncio's server forgets a connection that it accepts while it closes.
                    await asyncio.wait(found.running, timeout=5)
                daemon.stop_wanted.set()
