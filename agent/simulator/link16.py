"""The connection of a virtual 1.6 station: connect, boot, heartbeat, connect again."""

from __future__ import annotations

import asyncio
import base64
import random
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol

from agent.simulator.calls16 import boot_payload
from agent.simulator.rpc import CallError, LinkDown, NoAnswer, Rpc

if TYPE_CHECKING:
    from agent.simulator.calls16 import Calls16
    from agent.simulator.core16 import Core16
    from agent.simulator.outbox16 import Statuses16

SUBPROTOCOL = Subprotocol("ocpp1.6")
OPEN_TIMEOUT_S = 10.0  # real; a depot's network answers in milliseconds
CLOSE_TIMEOUT_S = 2.0  # real; a close frame that is not answered is not worth more
FRAME_BYTES_MAX = 4 * 1024 * 1024  # above any SetChargingProfile or local list
BOOT_RETRY_S = 10.0  # simulated, when the answer to a boot gave no interval
HEARTBEAT_S = 300.0  # simulated, when the answer to a boot gave no interval
BACKOFF_FACTOR = 2.0
BACKOFF_SPREAD = 0.2  # so that stations do not knock all at once


class Link16:
    """Keeps one station connected."""

    def __init__(self, core: Core16, calls: Calls16, statuses: Statuses16) -> None:
        """Connect `core`; `calls` answers, `statuses` are reported when accepted."""
        self._core = core
        self._calls = calls
        self._statuses = statuses
        self._random = random.Random(core.config.station_id)
        self.is_powered = True

    async def run(self) -> None:
        """Connect and serve, for ever, with a growing wait in real seconds."""
        config = self._core.config
        wait_s = config.backoff_first_real_s
        while True:
            await self._core.wait_for(lambda: self.is_powered)
            try:
                async with self._connection() as socket:
                    await self._serve(socket)
                wait_s = config.backoff_first_real_s
            except (OSError, TimeoutError, InvalidHandshake) as problem:
                self._core.note("own", "NO LINK", type(problem).__name__, str(problem))
            spread = self._random.uniform(1 - BACKOFF_SPREAD, 1 + BACKOFF_SPREAD)
            await asyncio.sleep(wait_s * spread)
            wait_s = min(wait_s * BACKOFF_FACTOR, config.backoff_max_real_s)

    def _connection(self) -> connect:
        config = self._core.config
        password = self._core.keys.secret or config.password
        headers = {}
        if password is not None:
            pair = base64.b64encode(f"{config.station_id}:{password}".encode())
            headers["Authorization"] = f"Basic {pair.decode()}"
        return connect(
            f"{config.url.rstrip('/')}/{config.station_id}",
            subprotocols=[SUBPROTOCOL],
            additional_headers=headers,
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=FRAME_BYTES_MAX,
            ssl=config.ssl_context,
            proxy=None,
        )

    async def _serve(self, socket: ClientConnection) -> None:
        core = self._core
        rpc = Rpc(socket, self._calls.answer, core.note, core.config.call_timeout_real_s)
        if "boot-on-reconnect" in core.faults:
            core.is_accepted = False
        core.rpc = rpc
        core.note("own", "LINK UP", "", socket.subprotocol)
        try:
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(self._talk(rpc))
                await rpc.serve()
                talking.cancel()
        finally:
            core.rpc = None
            core.note("own", "LINK DOWN", "", socket.close_code)

    async def _talk(self, rpc: Rpc) -> None:
        """Boot if need be, tell the news, then beat."""
        core = self._core
        try:
            if "invalid-json" in core.faults:
                await rpc.send_text('[2,"broken","Heartbeat",{')
            if core.is_accepted:
                await self._beat(rpc)
                self._statuses.report_changed()
            else:
                await self._boot(rpc)
                self._statuses.report_all()
            while True:
                interval_s = core.keys.whole("HeartbeatInterval")
                await core.clock.sleep(interval_s or HEARTBEAT_S)
                await self._beat(rpc)
        except LinkDown:
            return

    async def _boot(self, rpc: Rpc) -> None:
        core = self._core
        while not core.is_accepted:
            answer: dict[str, Any] = {}
            try:
                answer = await rpc.call("BootNotification", boot_payload(core))
            except (CallError, NoAnswer) as problem:
                core.note("own", "NOT BOOTED", "BootNotification", str(problem))
            interval = answer.get("interval")
            interval_s = interval if isinstance(interval, int | float) else 0
            if answer.get("status") == "Accepted":
                if interval_s > 0:
                    core.keys.change("HeartbeatInterval", str(int(interval_s)))
                core.is_accepted = True
                core.pulse()
                return
            await core.clock.sleep(interval_s or BOOT_RETRY_S)

    async def _beat(self, rpc: Rpc) -> None:
        try:
            await rpc.call("Heartbeat", {})
        except (CallError, NoAnswer) as problem:
            self._core.note("own", "NO BEAT", "Heartbeat", str(problem))
