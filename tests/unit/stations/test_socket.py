"""The wire of a real WebSocket: how its endings look to a link, and how frames pass it."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from agent.stations.link import WireClosed
from agent.stations.wire import QUEUE_FRAMES, SocketWire, StationSocket
from tests.support.properties import examples


def _serve(talk: Any, compression: str | None = None) -> Any:
    return serve(
        talk,
        "127.0.0.1",
        0,
        ping_interval=None,
        create_connection=StationSocket,
        compression=compression,
    )


async def test_a_pong_that_is_awaited_when_the_connection_breaks_ends_as_wire_closed() -> (
    None
):
    """Else every dead link would be logged as a bug with a traceback."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        pong = await wire.ping()  # cut right after the ping left
        socket.transport.abort()
        try:
            await pong
        except WireClosed:
            outcome.set_result("closed")
        except Exception as error:  # noqa: BLE001 - what a link would call a bug
            outcome.set_result(repr(error))

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5), connect(f"ws://127.0.0.1:{port}/CP-01"):
            assert await outcome == "closed"


async def test_a_closed_connection_is_wire_closed_for_every_verb() -> None:
    """Receive, send and ping alike."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        with pytest.raises(WireClosed):
            await wire.recv()
        with pytest.raises(WireClosed):
            await wire.send("[]")
        with pytest.raises(WireClosed):
            await (await wire.ping())
        await wire.close()
        ended.set_result(1)

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            async with connect(f"ws://127.0.0.1:{port}/CP-01"):
                pass
            assert await ended == 1


async def test_n10_messages_arrive_whole_and_in_order_however_they_are_cut() -> None:
    """Fragments are joined, and a flood waits in TCP, not in memory."""
    sent = [f"[{number}]" for number in range(500)]
    got: list[str] = []
    ended = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        for _ in range(len(sent) + 1):
            got.append((await wire.recv()).decode())
            await asyncio.sleep(0)
        ended.set_result(None)

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10), connect(f"ws://127.0.0.1:{port}/CP-01") as client:
            for text in sent[:250]:
                await client.send(text)
            await client.send(["[2,", '"a",', '"Heartbeat",{}]'])
            for text in sent[250:]:
                await client.send(text)
            await ended

    assert got == [*sent[:250], '[2,"a","Heartbeat",{}]', *sent[250:]]


# --- whole frames are taken past the library's parser -------------------------------

MASK = b"\x11\x22\x33\x44"
LIMIT = 300
"""Bytes of a message that the sockets here take."""
TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def frame(
    body: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv1: bool = False,
    form: int = 0,
    masked: bool = True,
) -> bytes:
    """One frame of a station; ``form`` 126 or 127 forces a longer size field."""
    head = bytes([fin << 7 | rsv1 << 6 | opcode])
    size, bit = len(body), masked << 7
    if form == 127 or size > 0xFFFF:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    elif form == 126 or size > 125:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | size])
    return head + (MASK + apply_mask(body, MASK) if masked else body)


class Compressor:
    """The sending end of permessage-deflate, with its memory."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=-12)

    def frame(self, body: bytes) -> bytes:
        data = self._deflate.compress(body) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return frame(data.removesuffix(b"\x00\x00\xff\xff"), rsv1=True)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_eof = False

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.is_eof = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None):
        pass

    def pause_reading(self) -> None:
        pass


class Library(StationSocket):
    """The same socket, with every byte going through the library."""

    def data_received(self, data: bytes) -> None:
        ServerConnection.data_received(self, data)


def opened(
    kind: type[StationSocket] = StationSocket, *, compressed: bool = False
) -> StationSocket:
    """A connection whose handshake is done, without a network."""
    protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    if compressed:
        protocol.extensions = [
            PerMessageDeflate(
                remote_no_context_takeover=False,
                local_no_context_takeover=False,
                remote_max_window_bits=12,
                local_max_window_bits=12,
            )
        ]
    socket = kind(protocol, cast("Any", None), ping_interval=None)
    socket.request = Request("/ocpp/CP-01", Headers())
    socket.server = cast("Any", _NoServer())
    socket.connection_made(Transport())
    return socket


class _NoServer:
    def __init__(self) -> None:
        self.handler_tasks: set[Any] = set()

    async def handler(self, _: Any) -> None:
        pass


def outcome(socket: StationSocket) -> tuple[Any, ...]:
    """All that a peer or a reader can see."""
    transport = cast("Transport", socket.transport)
    return (
        list(socket._messages),
        transport.written,
        transport.is_eof,
        socket.protocol.state,
        socket.protocol.close_rcvd,
    )


FRAMES: list[tuple[str, bytes]] = [
    ("short", frame(b"[3,1,{}]")),
    ("one byte", frame(b"1")),
    ("empty", frame(b"")),
    ("no UTF-8", frame(b"\xff\xfe")),
    ("longest short", frame(b"s" * 125)),
    ("shortest long", frame(b"m" * 126)),
    ("largest", frame(b"l" * LIMIT)),
    ("oversize", frame(b"o" * (LIMIT + 1))),
    ("huge", frame(b"h" * 70_000)),
    ("16 bit for little", frame(b"little", form=126)),
    ("64 bit for little", frame(b"little", form=127)),
    # 127 in the second byte is a form and no size, whatever the length of the chunk.
    ("64 bit, as long as 127", frame(b"x" * (6 + 127 - 14), form=127)),
    ("binary", frame(b"\x00\x01", BINARY)),
    ("first part", frame(b"[2,", fin=False)),
    ("empty first part", frame(b"", fin=False)),
    ("middle part", frame(b'"a",', CONT, fin=False)),
    ("last part", frame(b"{}]", CONT)),
    ("ping", frame(b"beat", PING)),
    ("pong", frame(b"beat", PONG)),
    ("unmasked", frame(b"plain", masked=False)),
    ("unknown opcode", frame(b"what", 0x3)),
    ("reserved bit", frame(b"what", rsv1=True)),
    ("close", frame(b"\x03\xe8bye", CLOSE)),
    ("two bytes", frame(b"never ends")[:2]),
    ("head alone", frame(b"never ends")[:6]),
    ("some of the body", frame(b"never ends")[:9]),
]
"""Whatever may come, good and bad."""


async def test_a_whole_text_frame_never_reaches_the_parser() -> None:
    """What the detour is for; one that is nearly so does reach it."""
    socket = opened()
    socket.data_received(frame(b"first"))
    seen: list[bytes] = []
    socket.protocol.receive_data = seen.append  # type: ignore[method-assign,assignment]

    socket.data_received(frame(b"second"))
    socket.data_received(frame(b"t" * 200))
    assert seen == []
    assert list(socket._messages) == [b"first", b"second", b"t" * 200]

    for other in (frame(b"a") + frame(b"b"), frame(b"a")[:-1], frame(b"p", PING), b""):
        socket.data_received(other)
    assert len(seen) == 4


@pytest.mark.parametrize(("name", "odd"), FRAMES)
@pytest.mark.parametrize(
    "name_before", ["short", "first part", "ping", "two bytes", "head alone"]
)
async def test_frame_by_frame_is_as_the_library_has_it(
    name: str, odd: bytes, name_before: str
) -> None:
    """Each kind in a chunk of its own, behind each state that matters."""
    before = dict(FRAMES)[name_before]
    ours, theirs = opened(), opened(Library)

    for chunk in (frame(b"zero"), before, odd, frame(b"[2]"), frame(b"[3]", CONT)):
        ours.data_received(chunk)
        theirs.data_received(chunk)
        assert outcome(ours) == outcome(theirs)


@examples(300)
@given(st.data())
async def test_n10_any_cutting_of_any_stream_is_as_the_library_has_it(
    data: st.DataObject,
) -> None:
    """Chopped, glued, fragmented, compressed, interleaved, oversize, invalid."""
    is_compressed = data.draw(st.booleans())
    good = [item for item in FRAMES if item[0] in ("short", "largest", "ping", "pong")]
    kinds = data.draw(st.lists(st.sampled_from([*good, *good, *FRAMES]), max_size=8))
    compressor = Compressor()
    pieces: list[bytes] = []
    for _, piece in kinds:
        pieces.append(piece)
        if is_compressed and data.draw(st.booleans()):
            pieces.append(compressor.frame(b"[2," + b"again" * len(pieces)))
    stream = b"".join(pieces)
    ends = [sum(map(len, pieces[:index])) for index in range(1, len(pieces))]
    anywhere = st.integers(0, min(len(stream), 2000))
    cuts = data.draw(st.lists(st.sampled_from(ends) if ends else anywhere, max_size=8))
    cuts = sorted({0, len(stream), *cuts, *data.draw(st.lists(anywhere, max_size=3))})

    ours = opened(compressed=is_compressed)
    theirs = opened(Library, compressed=is_compressed)
    for start, end in pairwise(cuts):
        ours.data_received(stream[start:end])
        theirs.data_received(stream[start:end])
        assert outcome(ours) == outcome(theirs)


async def test_nothing_is_taken_past_the_library_once_the_close_has_begun() -> None:
    """A message behind our close frame is the library's to judge."""
    socket = opened()
    socket.data_received(frame(b"first"))
    socket.protocol.send_close(1001)
    seen: list[bytes] = []
    socket.protocol.receive_data = seen.append  # type: ignore[method-assign,assignment]

    socket.data_received(frame(b"late"))

    assert seen == [frame(b"late")]


async def test_over_a_real_socket_all_shapes_of_frames_arrive_in_order() -> None:
    """Chopped into bytes, glued, in parts with pings between, then one by one again."""
    wanted = [b"[1]", b"[2]", b"[3]", b"[4]", b"[5,6]", b"[7]", b"x" * 5000, b"[8]"]
    stream = [
        frame(b"[1]"),
        frame(b"[2]"),
        *(bytes([byte]) for byte in frame(b"[3]")),
        frame(b"[4]") + frame(b"beat", PING) + frame(b"[5,", fin=False),
        frame(b"beat", PING) + frame(b"6]", CONT)[:3],
        frame(b"6]", CONT)[3:] + frame(b"[7]"),
        frame(b"x" * 5000)[:100],
        frame(b"x" * 5000)[100:],
        frame(b"[8]"),
    ]
    got: list[bytes] = []
    ended = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        got.extend([await wire.recv() for _ in wanted])
        await wire.send("[done]")
        ended.set_result(None)
        await socket.wait_closed()

    async with _serve(talk) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET /CP-01 HTTP/1.1\r\nHost: depot\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            for chunk in stream:
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that chunks stay chunks
            await ended
            answered = await reader.readuntil(b"[done]")
            writer.close()

    assert got == wanted
    assert answered.count(b"\x8a\x04beat") == 2


async def test_a_compressed_link_takes_plain_and_compressed_messages() -> None:
    """permessage-deflate leaves it to the sender, message by message."""
    got: list[bytes] = []
    ended = asyncio.get_running_loop().create_future()

    async def talk(socket: StationSocket) -> None:
        wire = SocketWire(socket)
        assert socket.protocol.extensions
        got.extend([await wire.recv() for _ in range(4)])
        ended.set_result(None)

    async with _serve(talk, compression="deflate") as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5), connect(f"ws://127.0.0.1:{port}/CP-01") as client:
            await client.send("[1]" * 40)
            assert client.transport is not None
            client.transport.write(frame(b"[2]"))
            client.transport.write(frame(b"[3]" * 60))
            await client.send("[1]" * 40)
            await ended

    assert got == [b"[1]" * 40, b"[2]", b"[3]" * 60, b"[1]" * 40]


async def test_i4_a_message_over_the_limit_ends_the_link_with_1009() -> None:
    """In one frame of any form, and in parts."""
    large = b"x" * (LIMIT + 1)
    for chunks in (
        [frame(large)],
        [frame(large, form=127)],
        [frame(large[:200], fin=False), frame(large[200:], CONT)],
    ):
        socket = opened()
        socket.data_received(frame(b"first"))
        for chunk in chunks:
            socket.data_received(chunk)

        assert list(socket._messages) == [b"first"]
        written = cast("Transport", socket.transport).written
        assert written[0] == 0x88
        assert int.from_bytes(written[2:4], "big") == 1009


async def test_a_flood_of_whole_frames_stops_the_reading() -> None:
    """Messages wait in TCP, not in memory."""
    socket = opened()
    paused: list[bool] = []
    socket.transport.pause_reading = lambda: paused.append(True)  # type: ignore[method-assign]
    for number in range(QUEUE_FRAMES):
        assert not paused
        socket.data_received(frame(b"[%d]" % number))

    assert paused == [True]
