"""The Wire of a real WebSocket: websockets does the protocol, one reader gets messages.

``ServerConnection.recv`` and ``send`` serve streams and several readers at once, and pay
for it with queues, locks and futures: more than half of what a Heartbeat costs. Framing,
checks, closing and pings stay the library's; only the last hand-over is our own, and the
one shape that nearly all messages have: a text message whole in one frame, and that frame
alone in one piece of the stream. Whatever looks otherwise goes to the library.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

import structlog
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import Event, State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from agent.stations.handshake import Admission
from agent.stations.link import WireClosed

log = structlog.get_logger()

QUEUE_FRAMES = 4
"""Messages buffered per link before TCP pushes back (architecture.md section 6)."""
TEXT_FRAME = 0x81
SHORT_FRAME_MAX = 125
"""First byte of a whole text frame; the size fits into the second (RFC 6455 5.2)."""
MASKED = 0x80
MASKED_LONG = MASKED | 126
"""Second byte of a masked frame, with the size in it or in the two bytes behind it."""
SHORT_HEADS = tuple(bytes((TEXT_FRAME, size)) for size in range(SHORT_FRAME_MAX + 1))
"""Heads of short frames of ours, by size; a server does not mask."""
SHORT_HEAD, LONG_HEAD = 6, 8
"""Bytes of a station's heads; the last four are the mask."""
FRAME_MAX = 0xFFFF
STALLED_S = 15.0
"""A station that takes none of our bytes for so long does not read any more (N12). Far
longer than a mobile network stalls, and short enough for an orderly stop (H3)."""
_DATA = (Opcode.TEXT, Opcode.CONT, Opcode.BINARY)
_BETWEEN_FRAMES = StreamReader.at_eof.__code__
"""Where the library's parser waits for a frame of which it has seen nothing yet."""


class StationSocket(ServerConnection):
    """A server-side connection whose messages go to one reader, whole and in order."""

    admission: Admission

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with an empty queue."""
        self._messages: deque[bytes] = deque()
        self._parts = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._is_held = False
        self._is_gone = False
        self._stall: asyncio.TimerHandle | None = None
        self._is_between_frames = False
        limit = self.protocol.max_message_size
        self._frame_max = FRAME_MAX if limit is None else min(limit, FRAME_MAX)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take a whole text frame at once; anything else is the library's."""
        size = len(data)
        if (
            self._is_between_frames
            and size > SHORT_HEAD
            and data[0] == TEXT_FRAME
            and data[1] <= MASKED_LONG
        ):
            if data[1] == MASKED_LONG:
                start, told = LONG_HEAD, data[2] << 8 | data[3]
            else:
                start, told = SHORT_HEAD, data[1] - MASKED
            if (
                start + told == size
                and told <= self._frame_max
                and self.protocol.state is State.OPEN
            ):
                self._queue(apply_mask(data[start:], data[start - 4 : start]))
                return
        super().data_received(data)
        self._is_between_frames = _is_between_frames(self.protocol)

    def process_event(self, event: Event) -> None:
        """Queue a message when its last fragment is there; the rest is the library's."""
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        message = event.data
        if self._parts or not event.fin:
            self._parts += message  # bounded: the protocol refuses over max_size
            if not event.fin:
                return
            message = bytes(self._parts)
            self._parts.clear()
        self._queue(cast("bytes", message))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the reader know."""
        self._is_gone = True
        self._end_stall()
        super().connection_lost(exc)
        self._wake()

    def pause_writing(self) -> None:
        """Read nothing from a peer that takes nothing, and let it go if it stays so.

        Pongs are written without waiting: a flood of pings would fill the memory. And
        the library waits for ever, in pings and in the closing handshake too.
        """
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_S, self._give_up)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._end_stall()
        if not self._is_held and not self.transport.is_closing():
            self.transport.resume_reading()

    def _give_up(self) -> None:
        admission: Admission | None = getattr(self, "admission", None)
        log.warning(
            "link_closed_by_agent",
            station_id=None if admission is None else admission.station_id,
            reason=f"it read nothing for {STALLED_S:.0f} s",
        )
        self.transport.abort()

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    async def receive(self) -> bytes:
        """The next message, undecoded. Raises WireClosed after the last one."""
        while not self._messages:
            if self._is_gone:
                raise WireClosed
            self._reader = self.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        if self._is_held and not self._messages:
            self._is_held = False
            if not self._is_gone and not self.paused:
                self.transport.resume_reading()
        return message

    def _queue(self, message: bytes) -> None:
        messages = self._messages
        messages.append(message)
        if len(messages) >= QUEUE_FRAMES and not self._is_held:
            self._is_held = True
            self.transport.pause_reading()
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _is_between_frames(protocol: ServerProtocol) -> bool:
    """Whether the library has no part of a frame or of a message, and logs no frames."""
    waits: Any = protocol.parser
    while (inner := getattr(waits, "gi_yieldfrom", None)) is not None:
        waits = inner
    return (
        getattr(waits, "gi_code", None) is _BETWEEN_FRAMES
        and protocol.current_size is None
        and not protocol.debug
    )


class SocketWire:
    """What a link needs of a connection."""

    def __init__(self, socket: StationSocket) -> None:
        """Wrap a server-side connection."""
        self._socket = socket

    def recv(self) -> Coroutine[Any, Any, bytes]:
        """Receive one message, undecoded."""
        return self._socket.receive()

    async def send(self, text: str) -> None:
        """Send one text message in one frame; waits only while the peer reads slowly."""
        socket = self._socket
        if socket.protocol.state is not State.OPEN:
            raise WireClosed
        body = text.encode()
        if len(body) <= SHORT_FRAME_MAX:
            socket.transport.write(SHORT_HEADS[len(body)] + body)
        else:
            socket.protocol.send_text(body)
            socket.send_data()
        if socket.paused:
            try:
                await socket.drain()
            except OSError as gone:
                raise WireClosed from gone

    async def ping(self) -> Awaitable[float]:
        """Send a ping; the awaitable ends with its pong."""
        try:
            return _pong(await self._socket.ping())
        except websockets.ConnectionClosed as closed:
            raise WireClosed from closed

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close politely."""
        await self._socket.close(code, reason)


async def _pong(waiter: Awaitable[float]) -> float:
    """Wait for a pong; a connection that ends meanwhile is an event, not an error."""
    try:
        return await waiter
    except websockets.ConnectionClosed as closed:
        raise WireClosed from closed
