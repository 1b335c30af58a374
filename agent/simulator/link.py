"""The connection of a virtual station: connect, boot, heartbeat, connect again."""

from __future__ import annotations

import asyncio
import base64
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol

from agent.simulator.rpc import CallError, LinkDown, NoAnswer, Rpc

if TYPE_CHECKING:
    from agent.simulator.answers import Answers
    from agent.simulator.core import Core

OPEN_TIMEOUT_S = 10.0  # real; a depot's network answers in milliseconds
CLOSE_TIMEOUT_S = 2.0  # real; a close frame that is not answered is not worth more
FRAME_BYTES_MAX = 4 * 1024 * 1024  # above any SetChargingProfile or local list
BOOT_RETRY_S = 10.0  # simulated, when the answer to a boot gave no interval
HEARTBEAT_S = 300.0  # simulated, when the answer to a boot gave no interval
BACKOFF_FACTOR = 2.0
BACKOFF_SPREAD = 0.2  # so that stations do not knock all at once


class Link(ABC):
    """Keeps one station connected."""

    def __init__(self, core: Core, calls: Answers) -> None:
        """Connect `core`; `calls` answers."""
        self._station = core
        self._calls = calls
        self._random = random.Random(core.config.station_id)
        self.is_powered = True

    async def run(self) -> None:
        """Connect and serve, for ever, with a growing wait in real seconds."""
        core = self._station
        wait_s = core.config.backoff_first_real_s
        while True:
            await core.wait_for(lambda: self.is_powered)
            try:
                async with self._connection() as socket:
                    await self._serve(socket)
                wait_s = core.config.backoff_first_real_s
            except (OSError, TimeoutError, InvalidHandshake) as problem:
                core.note("own", "NO LINK", type(problem).__name__, str(problem))
            spread = self._random.uniform(1 - BACKOFF_SPREAD, 1 + BACKOFF_SPREAD)
            await asyncio.sleep(wait_s * spread)
            wait_s = min(wait_s * BACKOFF_FACTOR, core.config.backoff_max_real_s)

    async def boot_once(self, reason: str) -> float:
        """Send one BootNotification; return the interval of its answer, 0 for none."""
        core = self._station
        answer: dict[str, Any] = {}
        try:
            answer = await core.call("BootNotification", self.boot_payload(reason))
        except (CallError, NoAnswer) as problem:
            core.note("own", "NOT BOOTED", "BootNotification", str(problem))
        interval = answer.get("interval")
        interval_s = float(interval) if isinstance(interval, int | float) else 0.0
        self.on_registration(str(answer.get("status", "")))
        if answer.get("status") == "Accepted" and not core.is_accepted:
            if interval_s > 0:
                self.keep_interval(int(interval_s))
            core.is_accepted = True
            core.pulse()
            self.report_all()
        return interval_s

    @abstractmethod
    def boot_payload(self, reason: str) -> dict[str, Any]:
        """Write the station's BootNotification."""

    @abstractmethod
    def keep_interval(self, interval_s: int) -> None:
        """Keep the heartbeat interval that the central system gave."""

    @abstractmethod
    def interval_s(self) -> int:
        """Tell the heartbeat interval that holds."""

    @abstractmethod
    def report_all(self) -> None:
        """Report every status, as after a boot."""

    @abstractmethod
    def report_back(self) -> None:
        """Report statuses as after a spell without a link."""

    def on_registration(self, status: str) -> None:  # noqa: B027 (a hook)
        """Take note of the answer to a boot."""

    def on_up(self) -> None:  # noqa: B027 (a hook)
        """Take note that there is a link."""

    def on_down(self) -> None:  # noqa: B027 (a hook)
        """Take note that the link is gone."""

    def message_ids(self) -> str | None:
        """Give the start of the ids of this link's messages; None for the usual."""
        return None

    def _connection(self) -> connect:
        config = self._station.config
        headers = {}
        password = self._password()
        if password is not None:
            pair = base64.b64encode(f"{config.station_id}:{password}".encode())
            headers["Authorization"] = f"Basic {pair.decode()}"
        return connect(
            f"{config.url.rstrip('/')}/{quote(config.station_id, safe='')}",
            subprotocols=[Subprotocol(config.subprotocol)],
            additional_headers=headers,
            compression="deflate" if config.is_2x else None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=FRAME_BYTES_MAX,
            ssl=config.ssl_context,
            proxy=None,
        )

    @abstractmethod
    def _password(self) -> str | None: ...

    async def _serve(self, socket: ClientConnection) -> None:
        core = self._station
        rpc = Rpc(
            socket,
            self._calls.answer,
            core.note,
            core.config.call_timeout_real_s,
            self.message_ids(),
        )
        if "boot-on-reconnect" in core.faults:
            core.is_accepted = False
        core.rpc = rpc
        core.note("own", "LINK UP", "", socket.subprotocol)
        self.on_up()
        try:
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(self._talk(rpc))
                await rpc.serve()
                talking.cancel()
        finally:
            core.rpc = None
            self.on_down()
            core.note("own", "LINK DOWN", "", socket.close_code)

    async def _talk(self, rpc: Rpc) -> None:
        """Boot if need be, tell the news, then beat."""
        core = self._station
        try:
            if "invalid-json" in core.faults:
                await rpc.send_text('[2,"broken","Heartbeat",{')
            if core.is_accepted:
                await self._beat(rpc)
                self.report_back()
            reason = "PowerUp"
            while not core.is_accepted:
                interval_s = await self.boot_once(reason)
                if not core.is_accepted:
                    await core.clock.sleep(interval_s or BOOT_RETRY_S)
            while True:
                await core.clock.sleep(self.interval_s() or HEARTBEAT_S)
                await self._beat(rpc)
        except LinkDown:
            return

    async def _beat(self, rpc: Rpc) -> None:
        try:
            await rpc.call("Heartbeat", {})
        except (CallError, NoAnswer) as problem:
            self._station.note("own", "NO BEAT", "Heartbeat", str(problem))
