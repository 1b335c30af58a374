"""Faults in how a virtual station connects, and what it does while it is connected."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.typing import Origin, Subprotocol

from agent.simulator.clock import stamp
from agent.simulator.faults import timings
from agent.simulator.rpc import CallError, LinkDown, NoAnswer
from agent.simulator.transport import Transport, toxics_of

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agent.simulator.core import Core
    from agent.simulator.rpc import Rpc

PROBE_S = 0.2  # real; how long a probe or a twin lives
BABBLE_S = 1.0  # real; how long the answer to a broken handshake is awaited
OPEN_TIMEOUT_S = 10.0  # real
REDIAL_S = 300.0  # simulated, with late-redial
LOOP_S = 30.0  # simulated, between the drops of connection-loop
TWIN_EACH_S = 120.0  # simulated
FLOOD_EACH_S = 60.0  # simulated
BOOTS = 10
BOOT_EACH_S = 5.0  # simulated
ATTEMPTS = 10  # at a security event that is answered with an error
ATTEMPT_EACH_S = 10.0  # simulated
NESTED = 5_000
BACKLOG_SESSIONS = 3
BACKLOG_AGE = timedelta(days=60)
VERSIONS = ("1.6", "2.0.1", "2.1")
BROKEN_REQUEST = b"GET /ocpp HTTP/0.9\r\nUpgrade\x00: maybe\r\n\r\n"


class _MuteProtocol(ClientProtocol):
    """A WebSocket that never answers a ping."""

    def send_frame(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG:
            super().send_frame(frame)


class MuteConnection(ClientConnection):
    """A connection that never answers a ping."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        """Silence the protocol."""
        protocol.__class__ = _MuteProtocol
        super().__init__(protocol, **options)


class LinkFaults:
    """What the faults of one station do to its link."""

    def __init__(self, core: Core, chance: random.Random) -> None:
        """Act on a station's link; `chance` is that of its network."""
        self._core = core
        self._chance = chance
        self._links = 0
        self._has_told_backlog = False
        self.options: dict[str, Any] = {}

    @asynccontextmanager
    async def network(self) -> AsyncIterator[None]:
        """Put a faulty network between station and central system, if one is wanted."""
        core = self._core
        toxics = toxics_of(timings(core.faults), self._chance)
        if not toxics:
            yield
            return
        host, port = self._target()

        def note(what: str) -> None:
            core.note("own", "NETWORK", what, None)

        proxy = Transport(host, port, toxics, core.clock, self._chance, note)
        async with proxy.listening():
            self.options = {"host": "127.0.0.1", "port": proxy.port}
            yield

    def url(self) -> str:
        """Write the address that the station calls."""
        config, faults = self._core.config, self._core.faults
        base, name = config.url.rstrip("/"), quote(config.station_id, safe="")
        if "encoded-id" in faults:
            name = "".join(f"%{each:02X}" for each in config.station_id.encode())
        return f"{base}///{name}/" if "odd-path" in faults else f"{base}/{name}"

    def subprotocols(self) -> list[Subprotocol] | None:
        """List the subprotocols that the station offers."""
        own, faults = self._core.config.subprotocol, self._core.faults
        if "no-subprotocol" in faults:
            return None
        if "wrong-dialect" in faults and not self._core.config.is_2x:
            return [Subprotocol("ocpp2.0.1")]
        more = [f"ocpp{each}" for each in VERSIONS] if "offers-many" in faults else []
        return [Subprotocol(each) for each in dict.fromkeys((own, *more))]

    def origin(self) -> Origin | None:
        """Tell the Origin header, which stations should not send."""
        return Origin("file://") if "origin-header" in self._core.faults else None

    def connection(self) -> type[ClientConnection]:
        """Tell what kind of connection to make."""
        return MuteConnection if "no-pongs" in self._core.faults else ClientConnection

    def credentials(self, password: str) -> bytes:
        """Write user and password as they go into the header."""
        config, faults = self._core.config, self._core.faults
        if "keeps-old-password" in faults:
            password = config.password or password
        secret = password.encode()
        if "password-as-bytes" in faults:
            with contextlib.suppress(ValueError):
                secret = bytes.fromhex(password)
        return config.station_id.encode() + b":" + secret

    async def before(self) -> None:
        """Do what comes before a connection."""
        faults = self._core.faults
        if "bad-handshake-first" in faults:
            await self._babble(BROKEN_REQUEST)
        if "silent-handshake" in faults:
            await self._babble(b"")
        if "probe-connection" in faults:
            await self._knock("ocpp2.0.1" if not self._core.config.is_2x else "ocpp1.6")

    async def after(self) -> None:
        """Do what comes after a connection that was up."""
        if "late-redial" in self._core.faults:
            await self._core.clock.sleep(REDIAL_S)

    async def during(self, rpc: Rpc, boot: Callable[[str], Awaitable[float]]) -> None:
        """Do what the faults want while there is a link."""
        faults, core = self._core.faults, self._core
        self._links += 1
        try:
            if "deep-nesting" in faults:
                await rpc.send_text("[" * NESTED + "]" * NESTED)
            if "compressed-unasked" in faults and self._links % 2:
                await rpc.send_flagged()
            if "connection-loop" in faults:
                core.spawn(lambda: self._drop_later(rpc))
            await core.wait_for(lambda: core.is_accepted)
            if "boot-loop" in faults:
                for _ in range(BOOTS):
                    await core.clock.sleep(BOOT_EACH_S)
                    await boot("ApplicationReset")
            if "old-backlog" in faults and not self._has_told_backlog:
                self._has_told_backlog = True
                await self._tell_backlog()
            if "twin-connection" in faults:
                await self._repeat(TWIN_EACH_S, lambda: self._knock(None))
            if "data-transfer-flood" in faults:
                await self._repeat(FLOOD_EACH_S, self._transfer)
        except LinkDown:
            return

    async def before_boot(self) -> None:
        """Say what is said before the boot."""
        core = self._core
        if "security-event-first" not in core.faults:
            return
        event = {"type": "StartupOfTheDevice", "timestamp": stamp(core.now())}
        for _ in range(ATTEMPTS):
            try:
                await core.call("SecurityEventNotification", event)
            except (CallError, NoAnswer):
                await core.clock.sleep(ATTEMPT_EACH_S)
            else:
                return

    async def _repeat(self, each_s: float, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._core.clock.sleep(each_s)
            await job()

    async def _drop_later(self, rpc: Rpc) -> None:
        await self._core.clock.sleep(LOOP_S)
        if self._core.rpc is rpc:
            rpc.cut()

    async def _transfer(self) -> None:
        data = {"vendorId": "com.example.vendor", "messageId": "note", "data": "{}"}
        await self._core.say("DataTransfer", data)

    def _target(self) -> tuple[str, int]:
        parts = urlsplit(self._core.config.url)
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        return parts.hostname or "127.0.0.1", port

    async def _babble(self, text: bytes) -> None:
        """Open TCP, say something that is no handshake, and leave."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(*self._target())
            try:
                writer.write(text)
                async with asyncio.timeout(BABBLE_S):
                    await reader.read(1_000)
            finally:
                writer.close()

    async def _knock(self, subprotocol: str | None) -> None:
        """Connect besides, say nothing, and leave; None is the own version."""
        config = self._core.config
        wanted = [Subprotocol(subprotocol)] if subprotocol else self.subprotocols()
        with contextlib.suppress(OSError, TimeoutError, InvalidHandshake):
            async with connect(
                self.url(),
                subprotocols=wanted,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=PROBE_S,
                ssl=config.ssl_context,
                proxy=None,
                **self.options,
            ):
                await asyncio.sleep(PROBE_S)

    async def _tell_backlog(self) -> None:
        """Send some sessions that are long over."""
        for number in range(BACKLOG_SESSIONS):
            begin = self._core.now() - BACKLOG_AGE + timedelta(hours=3 * number)
            end = begin + timedelta(hours=2)
            is_2x = self._core.config.is_2x
            tell = self._tell_old2 if is_2x else self._tell_old16
            try:
                await tell(number, stamp(begin), stamp(end))
            except (CallError, NoAnswer) as problem:
                self._core.note("out", "UNHEARD", "old session", str(problem))

    async def _tell_old16(self, number: int, begin: str, end: str) -> None:
        start = {"connectorId": 1, "idTag": "OLDCARD1", "meterStart": 1000 * number}
        answer = await self._core.call("StartTransaction", start | {"timestamp": begin})
        stop = {
            "transactionId": answer.get("transactionId", -1),
            "meterStop": 1000 * number + 900,
            "timestamp": end,
        }
        await self._core.call("StopTransaction", stop)

    async def _tell_old2(self, number: int, begin: str, end: str) -> None:
        info = {"transactionId": f"old-{self._core.config.station_id}-{number}"}
        for seq_no, (kind, moment, trigger) in enumerate(
            (("Started", begin, "CablePluggedIn"), ("Ended", end, "EVDeparted"))
        ):
            event = {
                "eventType": kind,
                "timestamp": moment,
                "triggerReason": trigger,
                "seqNo": seq_no,
                "offline": True,
                "evse": {"id": 1, "connectorId": 1},
                "transactionInfo": info,
            }
            await self._core.call("TransactionEvent", event)
