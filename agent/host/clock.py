"""The one place that reads clocks and draws chance."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import secrets
import time
from datetime import UTC, datetime, timedelta

from agent.domain.ids import SessionId

TICK_S = 0.004
"""Real seconds between two looks of a scaled clock."""
CREDIT_S = 1.5 * TICK_S

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SystemClock:
    """The gateway's own clock."""

    def now(self) -> datetime:
        """Tell the time, aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for real seconds."""
        await asyncio.sleep(seconds)


class ScaledClock:
    """A clock that starts anywhere and runs ``speed`` times as fast: for demos.

    It never runs far ahead of the event loop. What is in a depot answers within
    milliseconds, which at 400 times are seconds. On a machine that is busy with something
    else the same answer takes longer, and a clock that ran on meanwhile would show a
    depot that is slow, where only the machine is. So a turn of the loop that comes late
    counts as ``CREDIT_S`` only.
    """

    def __init__(self, start: datetime, speed: float) -> None:
        """Stand at ``start`` (aware) until somebody waits for the first time."""
        self._now = start
        self._speed = speed
        self._seen = time.monotonic()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def now(self) -> datetime:
        """Tell the scaled time, aware UTC."""
        return self._now + self._credit()

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of this clock."""
        loop = asyncio.get_running_loop()
        if self._handle is None:
            self._tick(loop)
        woken: asyncio.Future[None] = loop.create_future()
        end = self.now() + timedelta(seconds=max(seconds, 0.0))
        heapq.heappush(self._sleepers, (end, next(self._count), woken))
        await woken

    def _credit(self) -> timedelta:
        passed_s = min(time.monotonic() - self._seen, CREDIT_S)
        return timedelta(seconds=passed_s * self._speed)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._now += self._credit()
        self._seen = time.monotonic()
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
        self._handle = loop.call_later(TICK_S, self._tick, loop)


class RandomIds:
    """Ids and chance from the system, or from a seed."""

    def __init__(self, seed: int | None = None) -> None:
        """With a seed every draw can be replayed."""
        self._random = random.Random(secrets.randbits(64) if seed is None else seed)

    def session_id(self, now: datetime) -> SessionId:
        """Make an id that sorts by time: ``S`` and 14 characters."""
        number = int(now.timestamp() * 1000)
        digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(40, -1, -5))
        tail = "".join(self._random.choices(_ALPHABET, k=5))
        return SessionId(f"S{digits}{tail}")

    def chance(self) -> float:
        """Draw a number in [0, 1)."""
        return self._random.random()

    def first_transaction_id(self) -> int:
        """Where a new database starts to count: hard to guess, far from 2^31."""
        return self._random.randrange(100_000, 1_000_000_000)
