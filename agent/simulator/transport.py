"""A faulty network: a TCP proxy on loopback between one station and its central system.

It knows nothing of WebSocket, TLS or OCPP and never changes a byte; it delays, holds,
slices and breaks off. Latency, jitter, rates and delays are in real seconds, because
network time-outs are; when a fault holds is in simulated seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from agent.simulator.clock import SimClock
    from agent.simulator.faults import Timing

CHUNK_BYTES = 16 * 1024
CHUNKS_MAX = 64  # waiting in one direction; then the sender feels back-pressure
CONNECTIONS_MAX = 50  # of one station; a half-open one stays for a while
CONNECT_TIMEOUT_S = 10.0  # real
LOOK_EVERY_S = 0.05  # real, while something is held
ZOMBIE_S = 600.0  # simulated; how long a half-open link is kept


class Habit(NamedTuple):
    """What a fault does when nobody says otherwise: its value, and its time in s."""

    value: float = 0.0
    start_s: float = 0.0
    lasts_s: float = math.inf
    every_s: float = math.inf


HABITS: dict[str, Habit] = {
    "latency": Habit(0.5),
    "jitter": Habit(0.5),
    "bandwidth": Habit(2000.0),
    "slow-close": Habit(5.0),
    "black-hole": Habit(0.0, 120.0, 60.0, 600.0),
    "reset": Habit(0.0, 60.0, 1.0, 300.0),
    "slice-bytes": Habit(),
    "glue-frames": Habit(0.5),
    "cut-after": Habit(8192.0),
    "half-open": Habit(0.0, 60.0, 1.0, 300.0),
}


@dataclass(frozen=True, slots=True)
class Toxic:
    """One fault with everything settled; `value` in its own unit, times in s."""

    name: str
    value: float
    start_s: float
    lasts_s: float
    every_s: float

    def is_on(self, at_s: float) -> bool:
        """Whether it holds at a time since the beginning."""
        since_s = at_s - self.start_s
        if since_s < 0:
            return False
        if math.isfinite(self.every_s) and self.every_s > 0:
            since_s %= self.every_s
        return since_s < self.lasts_s

    def was_on(self, from_s: float, to_s: float) -> bool:
        """Whether it held at any time between; a short one would be missed by a look."""
        if self.is_on(to_s) or from_s < self.start_s <= to_s:
            return True
        if not (math.isfinite(self.every_s) and self.every_s > 0) or to_s < self.start_s:
            return False
        turns = (to_s - self.start_s) // self.every_s
        return from_s < self.start_s + turns * self.every_s


def toxics_of(asked: Iterable[Timing], chance: random.Random) -> list[Toxic]:
    """Settle what was left open; where no start was asked for, chance moves it a little.

    So stations with the same fault do not all suffer it in the same second.
    """
    found = []
    for each in asked:
        habit = HABITS[each.name]
        is_timed = each.start_s is not None
        start_s = habit.start_s * chance.uniform(0.5, 1.5)
        lasts_s = math.inf if is_timed and each.lasts_s is None else habit.lasts_s
        every_s = math.inf if is_timed else habit.every_s
        found.append(
            Toxic(
                name=each.name,
                value=habit.value if each.value is None else each.value,
                start_s=start_s if each.start_s is None else each.start_s,
                lasts_s=lasts_s if each.lasts_s is None else each.lasts_s,
                every_s=every_s if each.every_s is None else each.every_s,
            )
        )
    return found


class _Broken(Exception):  # noqa: N818 (an order, not an error)
    """Ends a connection; carries the fault that did it."""


class Transport:
    """The proxy. While it is `listening`, connect to `port` on 127.0.0.1."""

    def __init__(
        self,
        host: str,
        port: int,
        toxics: Iterable[Toxic],
        clock: SimClock,
        chance: random.Random,
        note: Callable[[str], None],
    ) -> None:
        """Lead to `host` and `port`; `note` hears what was broken off."""
        self.port = 0
        self._target = (host, port)
        self._toxics = {each.name: each for each in toxics}
        self._clock = clock
        self._chance = chance
        self._note = note
        self._began = clock.now()
        self._serving: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen meanwhile; at the end all connections end."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield
            finally:
                server.close()
                self._tasks = None
                for each in self._serving:
                    each.cancel()

    def value(self, name: str) -> float | None:
        """Tell the value of a fault that holds now; None if it does not."""
        toxic = self._toxics.get(name)
        if toxic is None or not toxic.is_on(self._elapsed_s()):
            return None
        return toxic.value

    def _elapsed_s(self) -> float:
        return (self._clock.now() - self._began).total_seconds()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tasks is None or len(self._serving) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = self._tasks.create_task(self._serve(reader, writer))
        self._serving.add(task)

        def end(_: object) -> None:
            self._serving.discard(task)
            writer.close()

        task.add_done_callback(end)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection of the station; never raises."""
        try:
            await self._held()
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far = await asyncio.open_connection(*self._target)
            await self._join((reader, writer), far)
        except (OSError, TimeoutError) as problem:
            self._note(f"no way through: {problem}")

    async def _join(self, near: _Ends, far: _Ends) -> None:
        """Carry both ways until both are at their end, or a fault breaks it off."""
        budget = _Budget(self)
        why = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                ways = [
                    tasks.create_task(self._carry(near[0], far[1], budget)),
                    tasks.create_task(self._carry(far[0], near[1], budget)),
                ]
                await asyncio.wait(ways)
                watch.cancel()
        except* _Broken as breaks:
            why = _first(breaks)
        except* OSError:
            pass  # one side is gone; the other learns it below
        finally:
            if not why:
                far[1].close()
        if not why:
            return
        self._note(why)
        if why == "reset":
            _will_reset(near[1])
            _will_reset(far[1])
        near[1].transport.abort()
        try:
            if why == "half-open":
                await self._clock.sleep(ZOMBIE_S)
        finally:
            far[1].transport.abort()

    async def _watch(self) -> None:
        """Raise when a fault breaks the connection off."""
        looked_s = self._elapsed_s()
        while True:
            now_s = self._elapsed_s()
            for name in ("reset", "half-open"):
                toxic = self._toxics.get(name)
                if toxic is not None and toxic.was_on(looked_s, now_s):
                    raise _Broken(name)
            looked_s = now_s
            await asyncio.sleep(LOOK_EVERY_S)

    async def _held(self) -> None:
        """Wait while nothing passes."""
        while self.value("black-hole") is not None:  # noqa: ASYNC110 (it ends by time)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: _Budget
    ) -> None:
        """Carry one direction to its end."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(source, queue))
            tasks.create_task(self._give(queue, sink, budget))

    async def _take(
        self, source: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Read, and say of each piece when it is due; an empty piece is the end."""
        due_s = 0.0
        data = b"-"
        while data:
            try:
                data = await source.read(CHUNK_BYTES)
            except OSError:
                data = b""
            due_s = max(due_s, time.monotonic() + self._delay_s(data))
            rate = self.value("bandwidth")
            if rate:
                due_s += len(data) / rate
            glue_s = self.value("glue-frames")
            if glue_s:
                due_s = math.ceil(due_s / glue_s) * glue_s
            await queue.put((due_s, data))

    def _delay_s(self, data: bytes) -> float:
        delay_s = self.value("latency") or 0.0
        delay_s += self._chance.uniform(0.0, self.value("jitter") or 0.0)
        return delay_s + (0.0 if data else self.value("slow-close") or 0.0)

    async def _give(
        self,
        queue: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
        budget: _Budget,
    ) -> None:
        """Write each piece when it is due; what is due by then goes with it."""
        next_one: tuple[float, bytes] | None = None
        data = b"-"
        while data:
            due_s, data = next_one or await queue.get()
            next_one = None
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._held()
            pieces = [data]
            while data and next_one is None and not queue.empty():
                next_one = queue.get_nowait()
                if next_one[0] <= time.monotonic():
                    data, next_one = next_one[1], None
                    pieces.append(data)
            await self._write(sink, b"".join(pieces), budget)
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()

    async def _write(
        self, sink: asyncio.StreamWriter, data: bytes, budget: _Budget
    ) -> None:
        data, is_spent = budget.spend(data)
        if self.value("slice-bytes") is None:
            sink.write(data)
            await sink.drain()
        else:
            for each in data:
                sink.write(bytes((each,)))
                await sink.drain()
                await asyncio.sleep(0)
        if is_spent:
            raise _Broken("cut-after")


def _first(breaks: BaseExceptionGroup[_Broken]) -> str:
    """Tell which fault broke a connection off."""
    found = breaks.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else str(found)


def _will_reset(writer: asyncio.StreamWriter) -> None:
    """Have the end of a connection be a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)


class _Budget:
    """How many bytes a connection may still carry, both ways together."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._spent = 0

    def spend(self, data: bytes) -> tuple[bytes, bool]:
        """Give what may pass of the data, and whether that was the last."""
        most = self._transport.value("cut-after")
        self._spent += len(data)
        if most is None or self._spent < most:
            return data, False
        return data[: len(data) - int(self._spent - most)], True


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
