"""Drives one RPC machine over one WebSocket; the only loop that reads it.

Answers leave only after the handler returned, that is after the commit. A handler never
waits for a call of ours, so the reader can always reach the next answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from agent.domain.errors import StoreFault
from agent.domain.ids import StationId
from agent.domain.values import value
from agent.ports import Priority
from agent.stations import framing
from agent.stations.rpc import Answered, Outgoing, RpcMachine

log = structlog.get_logger()

PING_EVERY_S = 15.0
"""Three beats fit into the 45 s in which a dead link must be noticed (N8)."""
SILENCE_MAX_S = 45.0
"""Where pings are answered: no frame and no pong for this long is a dead link."""
SILENCE_MAX_MUTE_S = 900.0
"""Where pings are not answered (NET-03): three heartbeats of 300 s."""
MUTE_AFTER_PINGS = 2
MESSAGES_BURST = 1000.0
"""Messages at once that are read at full speed: a queue from a night without a network."""
BRAKED_EVERY = 16
"""Messages between two looks at the rate: cheap, and exact enough."""
BRAKE_MAX_S = 2.0
"""Answers to our own calls come over the same link: never wait longer for them."""
TIMEOUTS_MAX = 6
"""Calls in a row without an answer on a living link: the receiver hangs (NET-06)."""
CLOCK_ACTION = "Heartbeat"
"""Answered anew each time: its answer is the time, and ids may be constant (RPC-07)."""


class Wire(Protocol):
    """A connection as websockets gives it, or a test's pipe."""

    async def recv(self) -> str | bytes:
        """Receive one message. Raises ``WireClosed`` when the peer is gone."""
        ...

    async def send(self, text: str) -> None:
        """Send one text message. Raises ``WireClosed``."""
        ...

    async def ping(self) -> Awaitable[float]:
        """Send a ping; the awaitable ends with its pong."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close politely."""
        ...


class WireClosed(Exception):  # noqa: N818 - an event of life, not an error
    """The peer is gone."""


@value()
class Reply:
    """How an incoming CALL is answered: a payload, or an error code with words."""

    payload: framing.Payload | None = None
    code: str = ""
    description: str = ""


Handler = Callable[[framing.Call, str | bytes], Awaitable[Reply]]
BadFrameSink = Callable[[framing.BadFrame], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How a call of ours ended.

    Exactly one of ``payload`` and ``code`` is set when it was answered; ``code`` is
    ``Timeout`` or ``Offline`` when it was not.
    """

    payload: framing.Payload | None
    code: str = ""
    description: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether the station said anything."""
        return self.code not in ("Timeout", "Offline")


LateSink = Callable[[CallOutcome], None]


class Link:
    """One live connection of one station."""

    def __init__(
        self,
        wire: Wire,
        station_id: StationId,
        *,
        handler: Handler,
        on_bad_frame: BadFrameSink,
        parse: Callable[[str | bytes], framing.Frame] = framing.parse,
        version: str = framing.SPELLED_16,
        pings: bool = True,
        messages_per_s: float = 0.0,
    ) -> None:
        """Bind a connection to a station; ``run`` does the work.

        ``parse`` may know the usual messages of a version better than the general one.
        ``messages_per_s``: what a station may send for long; 0 for no bound.
        """
        self.station_id = station_id
        self.last_seen_s = 0.0
        self.frames_in = 0
        self._wire = wire
        self._handler = handler
        self._on_bad_frame = on_bad_frame
        self._parse = parse
        self._version = version
        self._machine = RpcMachine()
        self._wake = asyncio.Event()
        self._is_mute = not pings
        self._closing = False
        self._farewell: tuple[int, str] | None = None
        self._ids = 0
        self._messages_per_s = messages_per_s
        self._allowance = MESSAGES_BURST
        self._allowed_at_s = 0.0
        self._is_flooding = False
        # 2.x wants ids that no other link or run of the agent ever used (C4).
        self._prefix = secrets.token_hex(6)

    @property
    def machine(self) -> RpcMachine:
        """Counters of the call machine, for metrics."""
        return self._machine

    async def run(self, setup: Callable[[], Awaitable[None]]) -> None:
        """Serve the link until it closes; ``setup`` talks to the station meanwhile."""
        loop = asyncio.get_running_loop()
        self.last_seen_s = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                side = [
                    tasks.create_task(self._send_calls(), name="calls"),
                    tasks.create_task(self._watch(), name="watch"),
                    tasks.create_task(_guarded(setup, self.station_id), name="setup"),
                ]
                # A task of its own: fewer frames to walk through at each wake-up.
                await tasks.create_task(self._read(), name="read")
                for task in side:
                    task.cancel()
        finally:
            self._closing = True
            for call in self._machine.drain():
                _settle(call, CallOutcome(None, "Offline", "the link closed"))

    async def call(
        self,
        action: str,
        payload: framing.Payload,
        priority: Priority,
        on_late: LateSink | None = None,
    ) -> CallOutcome:
        """Send a call when it is its turn and wait for the outcome; never raises.

        ``on_late`` hears of an answer that comes after the call was given up (RPC-03).
        """
        if self._closing:
            return CallOutcome(None, "Offline", "the link is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[CallOutcome] = loop.create_future()
        self._ids += 1
        message_id = f"{self._prefix}-{self._ids}"
        outgoing = Outgoing(message_id, action, payload, priority, future, on_late)
        if not self._machine.submit(outgoing):
            return CallOutcome(None, "Offline", "too many calls wait for this station")
        self._wake.set()
        return await future

    def hang_up(self, code: int, reason: str) -> None:
        """Close the connection soon, after the answer that is being made."""
        self._farewell = (code, reason)
        self._wake.set()

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; ``run`` then ends."""
        self._closing = True
        await self._wire.close(code, reason)

    # --- reading ----------------------------------------------------------------

    async def _read(self) -> None:
        now_s = asyncio.get_running_loop().time
        receive, parse = self._wire.recv, self._parse
        while True:
            try:
                text = await receive()
            except WireClosed:
                return
            self.last_seen_s = now_s()
            self.frames_in += 1
            if not self.frames_in % BRAKED_EVERY:
                await self._brake()
            frame = parse(text)
            if isinstance(frame, framing.Call):
                if not await self._answer(frame, text):
                    return
            elif isinstance(frame, (framing.CallResult, framing.CallError)):
                self._match(frame)
            elif isinstance(frame, framing.BadFrame):
                await self._refuse(frame)
            elif isinstance(frame, (framing.Send, framing.CallResultError)):
                await self._take(frame, text)

    async def _brake(self) -> None:
        """Read a flood no faster than it may come: its sender's own buffers fill up."""
        rate = self._messages_per_s
        if rate <= 0:
            return
        gained = (self.last_seen_s - self._allowed_at_s) * rate
        self._allowed_at_s = self.last_seen_s
        self._allowance = min(self._allowance + gained, MESSAGES_BURST) - BRAKED_EVERY
        if self._allowance >= 0:
            return
        if not self._is_flooding:
            self._is_flooding = True
            log.warning(
                "station_slowed_down",
                station_id=self.station_id,
                reason=f"it sends more than {rate:.0f} messages a second for long",
            )
        await asyncio.sleep(min(-self._allowance / rate, BRAKE_MAX_S))

    async def _answer(self, call: framing.Call, text: str | bytes) -> bool:
        answer = self._machine.repeated(call.message_id, text)
        if answer is None:
            try:
                reply = await self._handler(call, text)
            except StoreFault as fault:
                # Not on disk: unanswered, so that the station keeps it and repeats it.
                log.error(
                    "record_not_stored", station_id=self.station_id, reason=str(fault)
                )
                return True
            if reply.payload is not None:
                answer = framing.result_frame(call.message_id, reply.payload)
            else:
                code = framing.spelled(reply.code, self._version)
                answer = framing.error_frame(call.message_id, code, reply.description)
            if call.action != CLOCK_ACTION:
                self._machine.remember(call.message_id, text, answer)
        try:
            await self._wire.send(answer)
        except WireClosed:
            return False
        return True

    async def _refuse(self, frame: framing.BadFrame) -> None:
        await self._on_bad_frame(frame)
        if frame.is_call and frame.message_id is not None:
            code = framing.spelled(frame.code, self._version)
            await self._send(framing.error_frame(frame.message_id, code, frame.reason))
        elif frame.message_id is None and self._version != framing.SPELLED_16:
            await self._send(
                framing.error_frame(framing.NO_ID, "RpcFrameworkError", frame.reason)
            )

    async def _take(
        self, frame: framing.Send | framing.CallResultError, text: str | bytes
    ) -> None:
        """Take a message of 2.1 that is never answered."""
        if self._version == framing.SPELLED_16:
            await self._on_bad_frame(framing.BadFrame("a message type of 2.1 in 1.6"))
            return
        if isinstance(frame, framing.Send):
            call = framing.Call(
                frame.message_id, frame.action, frame.payload, frame.size_bytes
            )
            try:
                await self._handler(call, text)
            except StoreFault as fault:
                log.error(
                    "record_not_stored", station_id=self.station_id, reason=str(fault)
                )
            return
        log.warning(
            "answer_refused",
            station_id=self.station_id,
            code=frame.code,
            reason=frame.description,
        )

    def _match(self, frame: framing.CallResult | framing.CallError) -> None:
        now = asyncio.get_running_loop().time()
        found = self._machine.answered(frame, now)
        if found is None:
            log.info("answer_unmatched", station_id=self.station_id)
            return
        self._wake.set()
        _settle(found.call, _outcome(found))
        if found.is_late:
            log.info("answer_late", station_id=self.station_id, action=found.call.action)
            if found.call.on_late is not None:
                found.call.on_late(_outcome(found))

    # --- sending ----------------------------------------------------------------

    async def _send(self, text: str) -> bool:
        try:
            await self._wire.send(text)
        except WireClosed:
            return False
        return True

    async def _send_calls(self) -> None:
        loop = asyncio.get_running_loop()
        machine = self._machine
        while True:
            self._wake.clear()
            if self._farewell is not None:
                await self.close(*self._farewell)
                return
            call = machine.next_call(loop.time())
            if call is not None and not await self._send(
                framing.call_frame(call.message_id, call.action, call.payload)
            ):
                return
            expires_at = machine.expires_at()
            wait_s = None if expires_at is None else max(expires_at - loop.time(), 0.01)
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                await self._expire(loop.time())

    async def _expire(self, now: float) -> None:
        gone = self._machine.expire(now)
        if gone is None:
            return
        log.warning("call_timed_out", station_id=self.station_id, action=gone.action)
        _settle(gone, CallOutcome(None, "Timeout", "no answer in time"))
        if self._machine.timeouts_in_a_row >= TIMEOUTS_MAX:
            log.warning(
                "link_closed_by_agent",
                station_id=self.station_id,
                reason="the station sends but does not answer; it may recover by "
                "connecting again (NET-06)",
            )
            await self.close(1011, "calls are not answered")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        missed = 0
        has_ponged = False
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if not self._is_mute:
                try:
                    pong = await self._wire.ping()
                    async with asyncio.timeout(PING_EVERY_S):
                        await pong
                    has_ponged, missed = True, 0
                    self.last_seen_s = loop.time()
                except TimeoutError:
                    missed += 1
                    self._is_mute = not has_ponged and missed >= MUTE_AFTER_PINGS
                except WireClosed:
                    return
            limit_s = SILENCE_MAX_S if has_ponged else SILENCE_MAX_MUTE_S
            if loop.time() - self.last_seen_s > limit_s:
                log.warning(
                    "link_closed_by_agent",
                    station_id=self.station_id,
                    reason=f"silent for {limit_s:.0f} s",
                )
                await self.close(1001, "silent for too long")
                return


async def _guarded(setup: Callable[[], Awaitable[None]], station_id: StationId) -> None:
    """Run the set-up; a store that fails must not take the link down."""
    try:
        await setup()
    except* StoreFault as faults:  # a group: the set-up of 2.x has tasks of its own
        log.error("record_not_stored", station_id=station_id, reason=str(faults.exceptions))


def _settle(call: Outgoing, outcome: CallOutcome) -> None:
    future = call.token
    if isinstance(future, asyncio.Future) and not future.done():
        future.set_result(outcome)


def _outcome(found: Answered) -> CallOutcome:
    answer = found.answer
    if isinstance(answer, framing.CallResult):
        return CallOutcome(answer.payload)
    return CallOutcome(None, answer.code or "GenericError", answer.description)
