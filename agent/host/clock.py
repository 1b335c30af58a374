"""The one place that reads clocks and draws chance."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime, timedelta

from agent.domain.ids import SessionId

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
    """A clock that starts anywhere and runs ``speed`` times as fast: for demos."""

    def __init__(self, start: datetime, speed: float) -> None:
        """Start now."""
        self._start = start
        self._speed = speed
        self._zero = time.monotonic()

    def now(self) -> datetime:
        """Tell the scaled time, aware UTC."""
        passed_s = (time.monotonic() - self._zero) * self._speed
        return self._start + timedelta(seconds=passed_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of this clock."""
        await asyncio.sleep(seconds / self._speed)


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
