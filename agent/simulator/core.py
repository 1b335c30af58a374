"""The shared middle of any virtual station: state, time, ledger, limits and the link.

Knows no protocol version; the parts of a station meet here and do not import each other.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.simulator.hardware import Hardware, Outlet
from agent.simulator.profile_rules import STATION
from agent.simulator.rpc import CallError, LinkDown, NoAnswer, Rpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.simulator.clock import SimClock
    from agent.simulator.profile_rules import ProfileBook, Running
    from agent.simulator.station_config import StationConfig

    Job = Callable[[], Awaitable[None]]
    Listener = Callable[["LedgerEntry"], None]

LEDGER_ENTRIES_MAX = 5_000
JOBS_MAX = 1_000  # more jobs waiting than this is a bug
SKEW = timedelta(hours=2)  # of the fault clock-two-hours-ahead


class LedgerEntry(NamedTuple):
    """One frame or remark: when (simulated), in or out, kind, action, payload."""

    time: datetime
    direction: str
    kind: str
    action: str
    payload: Any


class Core(ABC):
    """State of one virtual station; also tells the hardware its limits."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station cold and unconnected."""
        self.config = config
        self.clock = clock
        self.faults = config.faults
        self.skew = SKEW if "clock-two-hours-ahead" in self.faults else timedelta()
        self.outlets = {
            connector: Outlet(
                connector=connector,
                rated_w=config.rated_w,
                dc=config.dc,
                phases=config.phases,
                min_w=config.min_w,
            )
            for connector in range(1, config.connectors + 1)
        }
        self.hardware = Hardware(self.outlets, config.supply_w, self, clock.now())
        self.ledger: deque[LedgerEntry] = deque(maxlen=LEDGER_ENTRIES_MAX)
        self.listener: Listener | None = None
        self.jobs: asyncio.Queue[Job] = asyncio.Queue(JOBS_MAX)
        self.rpc: Rpc | None = None
        self.is_accepted = False
        self._forgetful: set[int] = set()
        self._pulse = asyncio.Event()

    @property
    @abstractmethod
    def book(self) -> ProfileBook:
        """The charging profiles that are installed."""

    @abstractmethod
    def running(self, outlet: Outlet) -> Running | None:
        """Describe the outlet's transaction to the profiles."""

    @abstractmethod
    def setting(self, name: str) -> str:
        """Tell a setting's present value, by the version's own name."""

    @property
    def is_online(self) -> bool:
        """Whether there is a link over which the station may speak freely."""
        return self.rpc is not None and self.is_accepted

    def now(self) -> datetime:
        """Tell the station's own idea of the time."""
        return self.clock.now() + self.skew

    def advance(self) -> None:
        """Bring the hardware up to the present."""
        self.hardware.advance(self.clock.now())
        self.pulse()

    def note(self, direction: str, kind: str, action: str, payload: Any) -> None:
        """Write a line into the ledger."""
        entry = LedgerEntry(self.clock.now(), direction, kind, action, payload)
        self.ledger.append(entry)
        if self.listener is not None:
            self.listener(entry)
        self.pulse()

    def pulse(self) -> None:
        """Let everyone who waits look again."""
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate holds; look again whenever something happens."""
        while not predicate():
            await self._pulse.wait()

    def spawn(self, job: Job) -> None:
        """Have a job run by the station's task group."""
        self.jobs.put_nowait(job)

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Ask the central system; raise CallError, NoAnswer or LinkDown."""
        if self.rpc is None:
            raise LinkDown("not connected")
        return await self.rpc.call(action, payload)

    async def say(self, action: str, payload: dict[str, Any]) -> None:
        """Call without caring for the answer."""
        try:
            await self.call(action, payload)
        except (CallError, NoAnswer, LinkDown) as problem:
            self.note("out", "UNHEARD", action, str(problem))

    def whole(self, name: str) -> int:
        """Tell a setting as a whole number; 0 if it is none."""
        text = self.setting(name).strip()
        return int(text) if text.lstrip("-").isdigit() else 0

    def is_on(self, name: str) -> bool:
        """Tell a setting as yes or no."""
        return self.setting(name).strip().lower() == "true"

    def listed(self, name: str) -> list[str]:
        """Tell a comma-separated setting as a list."""
        return [each.strip() for each in self.setting(name).split(",") if each.strip()]

    def outlet_limit_w(self, outlet: Outlet, now: datetime) -> float | None:
        """Tell the limit in W that the outlet obeys at a (true) time."""
        if "ignore-profiles" in self.faults:
            return None
        limit_w = self.book.limit_w(
            outlet.connector,
            now + self.skew,
            self.running(outlet),
            outlet.phases,
            outlet.soc_percent,
        )
        if "forget-limit-after-zero" in self.faults:
            return self._forgotten(outlet, limit_w)
        return limit_w

    def station_limit_w(self, now: datetime) -> float | None:
        """Tell the limit in W of all outlets together at a (true) time."""
        if "ignore-profiles" in self.faults:
            return None
        return self.book.limit_w(STATION, now + self.skew, None, self.config.phases)

    def changes(self, after: datetime, to: datetime) -> list[datetime]:
        """List the (true) times at which a limit may change."""
        found: set[datetime] = set()
        for outlet in self.outlets.values():
            edges = self.book.changes(
                outlet.connector,
                after + self.skew,
                to + self.skew,
                self.running(outlet),
            )
            found.update(edge - self.skew for edge in edges)
        return sorted(found)

    def _forgotten(self, outlet: Outlet, limit_w: float | None) -> float | None:
        if outlet.transaction is None:
            self._forgetful.discard(outlet.connector)
            return limit_w
        if limit_w == 0:
            self._forgetful.add(outlet.connector)
            return limit_w
        return None if outlet.connector in self._forgetful else limit_w
