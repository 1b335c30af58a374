"""The faulty network between a client and a server that echoes, on loopback."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from agent.simulator.clock import ScaledClock
from agent.simulator.faults import timings
from agent.simulator.transport import Toxic, Transport, toxics_of

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
SPEED = 100.0


@dataclass
class Echo:
    """A server that gives back what it gets, and how the pieces came."""

    reads: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    open_links: int = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open_links += 1
        try:
            while data := await reader.read(65_536):
                self.reads.append(data)
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            self.open_links -= 1
            writer.close()


@dataclass
class Way:
    """A client's connection through the network."""

    echo: Echo
    port: int
    notes: list[str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes, timeout_s: float = 2.0) -> float:
        """Send, await the echo, and tell how long it took in real s."""
        began = time.monotonic()
        self.writer.write(data)
        async with asyncio.timeout(timeout_s):
            assert await self.reader.readexactly(len(data)) == data
        return time.monotonic() - began


@asynccontextmanager
async def a_way(*faults: str) -> AsyncIterator[Way]:
    """Echo server, faulty network, client."""
    echo, notes = Echo(), list[str]()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chance = random.Random(1)
    toxics = toxics_of(timings(faults), chance)
    clock = ScaledClock(START, SPEED)
    network = Transport("127.0.0.1", port, toxics, clock, chance, notes.append)
    async with server, network.listening():
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        yield Way(echo, network.port, notes, reader, writer)
        writer.close()


async def until(condition: object, timeout_s: float = 3.0) -> None:
    """Wait for a condition that others bring about; real seconds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_latency_and_jitter_delay_each_way():
    """Twice the latency there and back; jitter adds at most its value each way."""
    async with a_way("latency:0.05", "jitter:0.02") as way:
        took = [await way.ask(b"hello") for _ in range(3)]

    assert all(each >= 0.1 for each in took)
    assert max(took) - min(took) > 0


async def test_bandwidth_bounds_the_rate():
    """1,000 bytes at 5,000 bytes a second each way: 0.4 s."""
    async with a_way("bandwidth:5000") as way:
        assert await way.ask(b"x" * 1_000) >= 0.4


async def test_nothing_passes_through_a_black_hole_and_all_of_it_afterwards():
    """TCP stays; what was sent meanwhile arrives when it is over."""
    async with a_way("black-hole@0+30") as way:
        with pytest.raises(TimeoutError):
            await way.ask(b"hello", 0.1)
        assert way.echo.reads == []
        await until(lambda: way.echo.reads == [b"hello"])

        assert await way.reader.readexactly(5) == b"hello"


async def test_a_black_hole_that_began_later_holds_what_is_under_way():
    """Before it all is well; in it nothing moves, not even the end."""
    async with a_way("black-hole@20+40") as way:
        await way.ask(b"before")
        await asyncio.sleep(0.25)
        way.writer.close()
        await asyncio.sleep(0.05)
        assert way.echo.ends == []
        await until(lambda: way.echo.ends == ["end"])


async def test_a_reset_reaches_both_sides():
    """The server sees a reset, the client the end, the note says why."""
    async with a_way("reset@10+1") as way:
        await way.ask(b"before")
        await until(lambda: way.echo.ends == ["reset"])
        with suppress(ConnectionResetError):
            assert await way.reader.read() == b""

        assert way.notes == ["reset"]


async def test_bytes_are_sliced_and_frames_are_glued():
    """One byte per segment; or all that came within the time in one."""
    async with a_way("slice-bytes") as way:
        await way.ask(b"x" * 50)
        assert len(way.echo.reads) > 10
    async with a_way("glue-frames:0.2") as way:
        for _ in range(5):
            way.writer.write(b"frame")
            await asyncio.sleep(0.005)
        await way.reader.readexactly(25)

        assert len(way.echo.reads) <= 2


async def test_a_connection_ends_after_n_bytes():
    """In the middle of a message, both ways counted together."""
    async with a_way("cut-after:15") as way:
        way.writer.write(b"0123456789")
        await until(lambda: way.notes == ["cut-after"])
        got = b""
        with suppress(ConnectionResetError):
            got = await way.reader.read()

        assert len(got) <= 5
        assert way.echo.reads == [b"0123456789"]


async def test_the_end_of_a_connection_comes_late():
    """The server learns of it after the delay."""
    async with a_way("slow-close:0.15") as way:
        await way.ask(b"hello")
        began = time.monotonic()
        way.writer.close()
        await until(lambda: way.echo.ends == ["end"])

        assert time.monotonic() - began >= 0.15


async def test_a_half_open_link_stays_with_the_server_only():
    """The client is thrown out; the server sees nothing, also while it dials again."""
    async with a_way("half-open@10+1") as way:
        await way.ask(b"before")
        with suppress(ConnectionResetError):
            assert await way.reader.read() == b""
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"

        assert (way.echo.open_links, way.echo.ends) == (2, [])
        writer.close()


def test_the_same_seed_gives_the_same_times():
    """Where no start was asked for, chance moves it; stations differ."""

    def times(seed: int) -> list[Toxic]:
        return toxics_of(timings(["reset", "black-hole"]), random.Random(seed))

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_a_fault_repeats_and_a_time_without_length_lasts():
    """On in each period; from a start on for ever."""
    (often,) = toxics_of(timings(["reset@600+5/900"]), random.Random(1))
    (ever,) = toxics_of(timings(["latency@60"]), random.Random(1))

    assert [often.is_on(each) for each in (599, 600, 604, 605, 1500, 1505)] == [
        *(False, True, True, False, True, False)
    ]
    assert [often.was_on(*each) for each in ((590, 599), (590, 700), (1490, 1600))] == [
        *(False, True, True)
    ]
    assert [ever.is_on(each) for each in (59, 60, 1e6)] == [False, True, True]
