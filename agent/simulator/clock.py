"""Simulated time: everything physical runs on a SimClock, network time-outs do not."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

NS_PER_S = 1_000_000_000


class SimClock(Protocol):
    """The time of the simulated world."""

    def now(self) -> datetime:
        """Tell the simulated time, aware UTC."""
        ...

    async def sleep(self, seconds_simulated: float) -> None:
        """Wait for a number of simulated seconds."""
        ...


class ScaledClock:
    """Simulated time that runs `speed` times as fast as real time."""

    def __init__(self, start: datetime, speed: float = 1.0) -> None:
        """Begin at `start` (aware) now; `speed` is simulated per real second."""
        if start.tzinfo is None:
            raise ValueError("the start of a simulated clock needs a time zone")
        if speed <= 0:
            raise ValueError(f"a clock cannot run at speed {speed}")
        self.start = start.astimezone(UTC)
        self.speed = speed
        self._began_ns = time.monotonic_ns()

    def now(self) -> datetime:
        """Tell the simulated time, aware UTC."""
        real_s = (time.monotonic_ns() - self._began_ns) / NS_PER_S
        return self.start + timedelta(seconds=real_s * self.speed)

    async def sleep(self, seconds_simulated: float) -> None:
        """Wait for a number of simulated seconds."""
        await asyncio.sleep(max(0.0, seconds_simulated) / self.speed)


def utc_start() -> datetime:
    """Read the computer's clock once, as the start of a simulated one."""
    return datetime.fromtimestamp(time.time_ns() / NS_PER_S, tz=UTC)


def stamp(moment: datetime) -> str:
    """Write a time as stations do: RFC 3339, UTC, milliseconds, Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def parse_stamp(text: object) -> datetime:
    """Read an RFC 3339 time; one without zone is taken as UTC."""
    if not isinstance(text, str):
        raise ValueError(f"not a time: {text!r}")  # noqa: TRY004 (one error to catch)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)
