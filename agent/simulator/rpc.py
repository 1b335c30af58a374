"""OCPP-J as a station speaks it: calls, answers and errors over one WebSocket.

Knows no action of any version. One call of our own is in flight at a time.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import orjson
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from agent.simulator.spoil import Spoiler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.asyncio.client import ClientConnection

    Answer = Callable[[str, Any], Awaitable[dict[str, Any] | None]]
    Note = Callable[[str, str, str, Any], None]

CALL, CALLRESULT, CALLERROR = 2, 3, 4
CALLRESULTERROR, SEND = 5, 6  # of 2.1: your answer was broken; needs no answer
RSV1 = 0x40  # the bit of a frame's first byte that claims a compression
WAITING_CALLS_MAX = 100  # a central system should have one; more is a flood


class CallError(Exception):
    """The other side answered, or is to be answered, with a CALLERROR."""

    def __init__(self, code: str, description: str = "") -> None:
        """Carry the OCPP error code and its text."""
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


class NoAnswer(Exception):  # noqa: N818 (an outcome, not an error of ours)
    """The other side did not answer in time."""


class LinkDown(Exception):  # noqa: N818 (an outcome, not an error of ours)
    """There is no connection, or it went away."""


class Rpc:
    """The calls over one connection."""

    def __init__(
        self,
        socket: ClientConnection,
        answer: Answer,
        note: Note,
        call_timeout_s: float,
        id_start: str | None = None,
        spoiler: Spoiler | None = None,
    ) -> None:
        """Speak over `socket`; `answer` gives the reply, None for silence.

        `id_start` begins the ids of all messages; each link needs another one.
        `spoiler` changes what goes out.
        """
        self._socket = socket
        self._answer = answer
        self._note = note
        self._call_timeout_s = call_timeout_s
        self._turn = asyncio.Lock()
        self._pending: tuple[str, str, asyncio.Future[dict[str, Any]]] | None = None
        self._asked: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue(WAITING_CALLS_MAX)
        self._id_start = id_start or f"{id(self):x}"
        self._spoiler = spoiler or Spoiler(frozenset(), random.Random())
        self._is_answering = False
        self._count = 0

    async def serve(self) -> None:
        """Read frames until the connection ends."""
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(self._answer_all())
            try:
                async for frame in self._socket:
                    self._take(frame)
            except ConnectionClosed:
                pass
            finally:
                answering.cancel()
                self._fail_pending(LinkDown("the connection ended"))

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Ask and return the answer; raise CallError, NoAnswer or LinkDown.

        What the spoiler keeps back counts as answered with {}.
        """
        spoilt = self._spoiler.payload(action, payload)
        if spoilt is None:
            return {}
        payload = spoilt
        async with self._turn:
            unique_id = self._next_id()
            future: asyncio.Future[dict[str, Any]] = (
                asyncio.get_running_loop().create_future()
            )
            self._pending = (unique_id, action, future)
            try:
                self._note("out", "CALL", action, payload)
                await self._send([CALL, unique_id, action, payload])
                async with asyncio.timeout(self._call_timeout_s):
                    return await future
            except TimeoutError as error:
                self._note("in", "TIMEOUT", action, None)
                raise NoAnswer(action) from error
            finally:
                self._pending = None

    async def send(self, action: str, payload: dict[str, Any]) -> None:
        """Send a message that has no answer (2.1); raise LinkDown."""
        self._note("out", "SEND", action, payload)
        await self._send([SEND, self._next_id(), action, payload])

    async def send_text(self, text: str | bytes | list[str]) -> None:
        """Send a message as it is; a list is sent as fragments."""
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise LinkDown(str(error)) from error

    def cut(self) -> None:
        """Drop the TCP connection without a word."""
        self._socket.transport.abort()

    async def send_flagged(self) -> None:
        """Send a frame that claims a compression that nobody agreed upon."""
        frame = Frame(Opcode.TEXT, b'[2,"flagged","Heartbeat",{}]')
        sound = frame.serialize(mask=True, extensions=[])
        self._socket.transport.write(bytes((sound[0] | RSV1,)) + sound[1:])

    async def close(self) -> None:
        """Close the connection as the standard wants it."""
        await self._socket.close()

    def _next_id(self) -> str:
        self._count += 1
        return self._spoiler.unique_id(f"{self._id_start}-{self._count:x}")

    async def _send(self, frame: list[Any]) -> None:
        for each in self._spoiler.messages(frame):
            await self.send_text(each)

    def _take(self, text: str | bytes) -> None:
        try:
            frame = orjson.loads(text)
            kind, unique_id, rest = frame[0], frame[1], frame[2:]
        except (ValueError, TypeError, LookupError):
            self._note("in", "GARBAGE", "", str(text)[:200])
            return
        if kind == CALL and len(rest) >= 2:  # noqa: PLR2004 (action and payload)
            self._take_call(str(unique_id), str(rest[0]), rest[1])
        elif kind in (CALLRESULT, CALLERROR):
            self._take_answer(kind, unique_id, rest)
        elif kind == CALLRESULTERROR:
            self._note("in", "CALLRESULTERROR", str(unique_id), rest)

    def _take_call(self, unique_id: str, action: str, payload: Any) -> None:
        self._note("in", "CALL", action, payload)
        is_busy = self._is_answering or not self._asked.empty()
        if is_busy and "busy-ignores" in self._spoiler.faults:
            self._note("in", "IGNORED", action, None)
            return
        try:
            self._asked.put_nowait((unique_id, action, payload))
        except asyncio.QueueFull:
            self._note("in", "DROPPED", action, None)

    def _take_answer(self, kind: int, unique_id: Any, rest: list[Any]) -> None:
        if self._pending is None or self._pending[0] != str(unique_id) or not rest:
            self._note("in", "STRAY", "", rest)
            return
        _, action, future = self._pending
        if future.done():
            return
        if kind == CALLRESULT and isinstance(rest[0], dict):
            self._note("in", "CALLRESULT", action, rest[0])
            future.set_result(rest[0])
            return
        self._note("in", "CALLERROR", action, rest)
        future.set_exception(CallError(str(rest[0]), str(rest[1:2])))

    def _fail_pending(self, reason: LinkDown) -> None:
        if self._pending is None or self._pending[2].done():
            return
        future = self._pending[2]
        future.set_exception(reason)
        future.exception()  # who waits may be cancelled first; then nobody looks at it

    async def _answer_all(self) -> None:
        while True:
            unique_id, action, payload = await self._asked.get()
            self._is_answering = True
            try:
                reply = await self._answer(action, payload)
                if reply is None:
                    continue
                self._note("out", "CALLRESULT", action, reply)
                await self._send([CALLRESULT, unique_id, reply])
            except CallError as error:
                body = [error.code, error.description[:255], {}]
                self._note("out", "CALLERROR", action, body)
                await self._send_quietly([CALLERROR, unique_id, *body])
            except LinkDown:
                continue
            finally:
                self._is_answering = False

    async def _send_quietly(self, frame: list[Any]) -> None:
        try:
            await self._send(frame)
        except LinkDown:
            self._note("out", "LOST", "", frame)
