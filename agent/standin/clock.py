"""The stand-in's clocks: it never reads the machine's own wall clock.

`ManualClock` moves only when told; `RunningClock` runs at a chosen speed.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Protocol


class StandinClock(Protocol):
    """Where the stand-in takes the present moment from."""

    def now(self) -> datetime:
        """Present moment, aware UTC."""
        ...


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        """Start at `start`, which must be aware."""
        self._now = _aware(start)

    def now(self) -> datetime:
        """Present moment, aware UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`; a negative number moves back."""
        self._now += timedelta(seconds=seconds)

    def set(self, moment: datetime) -> None:
        """Jump to `moment`, which must be aware."""
        self._now = _aware(moment)


class RunningClock:
    """A clock that starts at a given moment and runs `speed` times real time."""

    def __init__(self, start: datetime, *, speed: float = 1.0) -> None:
        """Start at `start` (aware). Needs a running event loop."""
        if speed <= 0:
            raise ValueError(f"clock speed {speed} is not above 0")
        self._start = _aware(start)
        self._speed = speed
        self._loop = asyncio.get_running_loop()
        self._origin_s = self._loop.time()

    def now(self) -> datetime:
        """Present moment, aware UTC."""
        elapsed_s = (self._loop.time() - self._origin_s) * self._speed
        return self._start + timedelta(seconds=elapsed_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock's own time."""
        await asyncio.sleep(seconds / self._speed)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"moment {moment.isoformat()} has no time zone")
    return moment
