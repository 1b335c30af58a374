"""The connection of a virtual station: connect, boot, heartbeat, connect again."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake

from agent.simulator.link_faults import LinkFaults
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
        chance = random.Random(f"{core.config.seed} {core.config.station_id} network")
        self._faults = LinkFaults(core, chance)
        self.is_powered = True

    async def run(self) -> None:
        """Connect and serve, for ever, with a growing wait in real seconds."""
        async with self._faults.network():
            await self._run()

    async def _run(self) -> None:
        core = self._station
        wait_s = core.config.backoff_first_real_s
        while True:
            await core.wait_for(lambda: self.is_powered)
            await self._faults.before()
            try:
                async with self._connection() as socket:
                    await self._serve(socket)
                wait_s = core.config.backoff_first_real_s
                await self._faults.after()
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
        if "refuses-fractions" in core.faults and "." in str(answer.get("currentTime")):
            answer = {}
        interval = answer.get("interval")
        interval_s = float(interval) if isinstance(interval, int | float) else 0.0
        self.on_registration(str(answer.get("status", "")))
        if answer.get("status") == "Accepted" and not core.is_accepted:
            if interval_s > 0:
                self.keep_interval(int(interval_s))
            core.is_accepted = True
            core.pulse()
            if "no-first-status" not in core.faults:
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
            pair = base64.b64encode(self._faults.credentials(password))
            headers["Authorization"] = f"Basic {pair.decode()}"
        return connect(
            self._faults.url(),
            origin=self._faults.origin(),
            subprotocols=self._faults.subprotocols(),
            additional_headers=headers,
            compression="deflate" if config.is_2x else None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=FRAME_BYTES_MAX,
            ssl=config.ssl_context,
            proxy=None,
            create_connection=self._faults.connection(),
            **self._faults.options,
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
            core.spoiler,
        )
        core.up_s = time.monotonic()
        if "boot-on-reconnect" in core.faults:
            core.is_accepted = False
        core.rpc = rpc
        core.note("own", "LINK UP", "", socket.subprotocol)
        self.on_up()
        try:
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(self._talk(rpc))
                besides = tasks.create_task(self._faults.during(rpc, self.boot_once))
                await rpc.serve()
                talking.cancel()
                besides.cancel()
        finally:
            core.rpc = None
            if "reboot-on-disconnect" in core.faults and self.is_powered:
                core.spawn(lambda: core.restart("Reboot"))
            if "lose-profiles-on-reconnect" in core.faults:
                core.book.forget()
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
                if "no-first-status" not in core.faults:
                    self.report_back()
            else:
                await self._faults.before_boot()
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
