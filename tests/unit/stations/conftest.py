"""What the tests of the station ring share: a still clock, a sink that records, a pipe."""

from __future__ import annotations

import asyncio
import collections.abc
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import strategies as st

from agent.domain.capability import Capabilities
from agent.domain.events import Event
from agent.domain.ids import StationId, TransactionId
from agent.ports import EventAnswer
from agent.stations.link import WireClosed

NOW = datetime(2026, 1, 15, 18, 0, 0, 250_000, tzinfo=UTC)
STATION = StationId("CP-01")

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["NaN", "-1", "1e308", "1e999", "", " ", "kWh", "L1", "\x00", "²"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Whatever a peer can put into a place of a JSON text."""

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 2**63, 1e308, -1e308, "", " ", "NaN", "-Infinity", "1e308",
    "²", "\x00\x1b[31m\n", "A" * 100_000, "9" * 5000, [], [[]], [None], {}, {"value": 1},
]  # fmt: skip
"""Replacements that are tried one by one in every field."""


class StillClock:
    """A clock that stands."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody should sleep {seconds} s here")


class RecordingSink:
    """The EventSink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.capabilities: list[Capabilities] = []
        self.known_transaction: TransactionId | None = None
        self._taken = 1000

    async def handle(self, station_id: StationId, event: Event) -> EventAnswer:
        assert station_id == STATION
        self.events.append(event)
        return EventAnswer(transaction_id=self.known_transaction)

    def next_transaction_id(self) -> TransactionId:
        self._taken += 1
        return TransactionId(str(self._taken))

    async def capabilities_read(
        self, station_id: StationId, capabilities: Capabilities
    ) -> None:
        assert station_id == STATION
        self.capabilities.append(capabilities)

    def only(self, kind: type) -> Any:
        found = [event for event in self.events if type(event) is kind]
        assert len(found) == 1, self.events
        return found[0]


class MemoryWire:
    """A connection in memory: ``feed`` is the station's side, ``sent`` is ours."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self._frames: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._news = asyncio.Event()

    def feed(self, frame: Any) -> None:
        text = frame if isinstance(frame, (str, bytes)) else orjson.dumps(frame)
        self._frames.put_nowait(text)

    def hang_up(self) -> None:
        self._frames.put_nowait(None)

    async def recv(self) -> str | bytes:
        frame = await self._frames.get()
        if frame is None:
            raise WireClosed
        return frame

    async def send(self, text: str) -> None:
        if self.closed is not None:
            raise WireClosed
        self.sent.append(orjson.loads(text))
        self._news.set()

    async def ping(self) -> collections.abc.Awaitable[float]:
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        pong.set_result(0.0)
        return pong

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)
        self.hang_up()

    async def until(self, count: int) -> list[Any]:
        """Wait until so many frames were sent; fails after five seconds."""
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self._news.clear()
                await self._news.wait()
        return self.sent


async def soon(condition: collections.abc.Callable[[], bool]) -> None:
    """Wait for a condition; fails after five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
