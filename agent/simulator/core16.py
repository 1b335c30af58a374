"""The shared middle of a virtual 1.6 station: state, time, ledger and the link.

Its parts (outbox, sessions, calls) meet here and do not import each other's state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.simulator.hardware import Hardware, Outlet
from agent.simulator.keys16 import MEASURANDS, Keys16
from agent.simulator.profiles import STATION, ProfileOptions, ProfileStore, Running
from agent.simulator.rpc import LinkDown, Rpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.simulator.clock import SimClock
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


class Core16:
    """State of one virtual station; also tells the hardware its limits."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station cold and unconnected."""
        self.config = config
        self.clock = clock
        self.faults = config.faults
        self.skew = SKEW if "clock-two-hours-ahead" in self.faults else timedelta()
        self.keys = Keys16(
            {"NumberOfConnectors": str(config.connectors), **config.overrides},
            [each for each in MEASURANDS if config.dc or each != "SoC"],
        )
        self.profiles = ProfileStore(self._profile_options())
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

    def running(self, outlet: Outlet) -> Running | None:
        """Describe the outlet's transaction to the profile store."""
        transaction = outlet.transaction
        if transaction is None:
            return None
        return Running(start=transaction.start, transaction_id=transaction.transaction_id)

    def outlet_limit_w(self, outlet: Outlet, now: datetime) -> float | None:
        """Tell the limit in W that the outlet obeys at a (true) time."""
        if "ignore-profiles" in self.faults:
            return None
        limit_w = self.profiles.limit_w(
            outlet.connector, now + self.skew, self.running(outlet), outlet.phases
        )
        if "forget-limit-after-zero" in self.faults:
            return self._forgotten(outlet, limit_w)
        return limit_w

    def station_limit_w(self, now: datetime) -> float | None:
        """Tell the limit in W of all outlets together at a (true) time."""
        if "ignore-profiles" in self.faults:
            return None
        return self.profiles.limit_w(STATION, now + self.skew, None, self.config.phases)

    def changes(self, after: datetime, to: datetime) -> list[datetime]:
        """List the (true) times at which a limit may change."""
        found: set[datetime] = set()
        for outlet in self.outlets.values():
            edges = self.profiles.changes(
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

    def _profile_options(self) -> ProfileOptions:
        units = {
            {"a": "Current", "w": "Power"}.get(each.lower(), each)
            for each in self.keys.listed("ChargingScheduleAllowedChargingRateUnit")
        }
        is_flat = "refuse-high-stack-level" in self.faults
        return ProfileOptions(
            max_stack_level=(
                0 if is_flat else self.keys.whole("ChargeProfileMaxStackLevel")
            ),
            max_periods=self.keys.whole("ChargingScheduleMaxPeriods"),
            max_profiles=self.keys.whole("MaxChargingProfilesInstalled"),
            allowed_units=frozenset(units),
            is_supported=("SmartCharging" in self.keys.listed("SupportedFeatureProfiles")),
            reads_amperes_as_watts="amperes-read-as-watts" in self.faults,
        )
