"""The shared middle of any virtual station: state, time, ledger, limits and the link.

Knows no protocol version; the parts of a station meet here and do not import each other.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.simulator.extras import Extras
from agent.simulator.hardware import Hardware, Outlet
from agent.simulator.limit_faults import LimitFaults
from agent.simulator.profile_rules import STATION
from agent.simulator.rpc import CallError, LinkDown, NoAnswer, Rpc
from agent.simulator.spoil import Spoiler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.simulator.clock import SimClock
    from agent.simulator.profile_rules import ProfileBook, Running
    from agent.simulator.station_config import StationConfig
    from agent.simulator.vehicle import VirtualVehicle

    Job = Callable[[], Awaitable[None]]
    Listener = Callable[["LedgerEntry"], None]
    Restart = Callable[[str], Awaitable[None]]

LEDGER_ENTRIES_MAX = 5_000
JOBS_MAX = 1_000  # more jobs waiting than this is a bug
AHEAD = timedelta(hours=2)  # of the fault clock-two-hours-ahead
FAR_AHEAD = timedelta(days=3_652)  # of the fault clock-far-ahead
UNSET = datetime(1970, 1, 1, tzinfo=UTC)  # where a clock begins with clock-1970


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
        self.skew = skew_of(self.faults, clock.now())
        chance = random.Random(f"{config.seed} {config.station_id}")
        self.spoiler = Spoiler(self.faults, chance)
        self.limit_faults = LimitFaults(self.faults)
        self.extras = Extras(self)
        self.restart: Restart = _no_restart
        self.spent: dict[int, VirtualVehicle] = {}
        self.up_s = 0.0
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

    @abstractmethod
    def put(self, name: str, value: str) -> None:
        """Change a setting, by the version's own name."""

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
        answer = await self.rpc.call(action, payload)
        self.extras.after(action, payload, answer)
        return answer

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
        return self.limit_faults.obeyed_w(outlet, limit_w, now, is_online=self.is_online)

    def station_limit_w(self, now: datetime) -> float | None:
        """Tell the limit in W of all outlets together at a (true) time."""
        if "ignore-profiles" in self.faults:
            return None
        return self.book.limit_w(STATION, now + self.skew, None, self.config.phases)

    def changes(self, after: datetime, to: datetime) -> list[datetime]:
        """List the (true) times at which a limit may change."""
        found = {each for each in self.limit_faults.edges() if after < each <= to}
        for outlet in self.outlets.values():
            edges = self.book.changes(
                outlet.connector,
                after + self.skew,
                to + self.skew,
                self.running(outlet),
            )
            found.update(edge - self.skew for edge in edges)
        return sorted(found)


def skew_of(faults: frozenset[str], now: datetime) -> timedelta:
    """Tell how far ahead of the true time a station's clock is."""
    if "clock-1970" in faults:
        return UNSET - now
    if "clock-far-ahead" in faults:
        return FAR_AHEAD
    return AHEAD if "clock-two-hours-ahead" in faults else timedelta()


async def _no_restart(_reason: str) -> None:
    """Stand in until the station says how it restarts."""
