"""A clock that runs slowly and can be moved ahead: a day of waiting takes no time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta


class JumpClock:
    """Runs ``speed`` times real time; ``jump`` wakes whoever has waited long enough."""

    def __init__(self, start: datetime, speed: float) -> None:
        self._start = start
        self._speed = speed
        self._zero = time.monotonic()
        self._jumped = asyncio.Event()

    def now(self) -> datetime:
        """Tell the time, aware UTC."""
        passed_s = (time.monotonic() - self._zero) * self._speed
        return self._start + timedelta(seconds=passed_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of this clock."""
        end = self.now() + timedelta(seconds=seconds)
        while (left_s := (end - self.now()).total_seconds()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s / self._speed):
                    await self._jumped.wait()

    async def jump(self, seconds: float) -> None:
        """Move ahead, and let those who waited do a little."""
        self._start += timedelta(seconds=seconds)
        self._jumped.set()
        self._jumped = asyncio.Event()
        await asyncio.sleep(0.005)
