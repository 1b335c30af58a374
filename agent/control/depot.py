"""The depot in memory: what was committed, what clouds said, what is installed.

Changed only after the commit that holds the change, on the event loop's one thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from agent.domain.account import Account
from agent.domain.billing import BillingRules, Grant
from agent.domain.capability import NOMINAL_VOLTAGE_V, Capabilities, StationTraits
from agent.domain.curve import Curve
from agent.domain.efficiency import Efficiency, used
from agent.domain.identity import Vehicle
from agent.domain.ids import (
    EvseId,
    Outlet,
    ScheduleId,
    SessionId,
    StationId,
    VehicleId,
)
from agent.domain.ladder import Learned
from agent.domain.plan import AfterPlan, Schedule
from agent.domain.proof import Witness
from agent.domain.reconcile import OutletPower
from agent.domain.session import Session
from agent.domain.site import SiteLoad
from agent.domain.station import EVSES_MAX, StationState
from agent.ports import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The site's rules; watts, grid side for ``cap_w``."""

    cap_w: float
    efficiency: float
    unmatched_w: float
    unplanned_w: float
    after_plan: AfterPlan
    plan_max_age: timedelta
    location_uid: str = ""
    registry_max_age: timedelta = timedelta(days=7)
    offline_max_s: int = 43_200
    cap_a: float | None = None
    voltage_v: float = NOMINAL_VOLTAGE_V
    wake_restart: bool = False
    catch_up: bool = False
    goal_remote_stop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """A feeder of the configuration; ``cap_a`` is the fuse in each phase."""

    name: str
    cap_w: float | None
    stations: frozenset[StationId]
    cap_a: float | None = None
    voltage_v: float = NOMINAL_VOLTAGE_V


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderRule:
    """A person's word on a model: its rung, the key that limits it; "" is no word."""

    vendor: str
    model: str
    firmware: str = ""
    rung: str = ""
    limit_key: str = ""

    def fits(self, vendor: str, model: str, firmware: str) -> bool:
        """Whether it speaks of this firmware; names are compared without case."""
        is_model = (self.vendor.casefold(), self.model.casefold()) == (
            vendor.casefold(),
            model.casefold(),
        )
        return is_model and self.firmware in ("", firmware)


WRITES_MAX = 500
"""Profiles a day to one station that are many: most stations store each one in flash,
and good for 10,000 to 100,000 writes it wears out within the station's life (VER-12)."""


@dataclass(slots=True)
class Writes:
    """Profiles and keys written to one station, on its newest day (UTC) and in all."""

    day: date
    today: int = 0
    total: int = 0

    def count(self, day: date) -> bool:
        """Count one; whether it is the first one too many of its day."""
        if day != self.day:
            self.day, self.today = day, 0
        self.today += 1
        self.total += 1
        return self.today == WRITES_MAX + 1


@dataclass(slots=True, kw_only=True)
class OutletView:
    """What the executor last decided for an outlet; shown to people."""

    planned_w: float | None = None
    allocated_w: float | None = None
    wants: Curve | None = None
    source: str = ""
    rules: tuple[str, ...] = ()
    share: Curve | None = None


@dataclass(slots=True)
class Depot:
    """See the module."""

    policy: Policy
    traits: dict[StationId, StationTraits]
    circuits: tuple[Circuit, ...] = ()
    states: dict[StationId, StationState] = field(default_factory=dict)
    capabilities: dict[StationId, Capabilities] = field(default_factory=dict)
    power: dict[Outlet, OutletPower] = field(default_factory=dict)
    views: dict[Outlet, OutletView] = field(default_factory=dict)
    witnesses: dict[Outlet, Witness] = field(default_factory=dict)
    writes: dict[StationId, Writes] = field(default_factory=dict)
    efficiencies: dict[StationId, Efficiency] = field(default_factory=dict)
    site_load: SiteLoad | None = None
    registry: dict[VehicleId, Vehicle] = field(default_factory=dict)
    registry_at: datetime | None = None
    schedules: dict[ScheduleId, Schedule] = field(default_factory=dict)
    schedules_at: datetime | None = None
    schedule_texts: dict[ScheduleId, str] = field(default_factory=dict)
    linked_at_s: dict[StationId, float] = field(default_factory=dict)
    accounts: dict[SessionId, Account] = field(default_factory=dict)
    billing: BillingRules | None = None
    """None where no accounts are kept."""
    grants: dict[SessionId, Grant] = field(default_factory=dict)
    owes_bills: bool = False
    """Whether finished sessions are owed to a billing webhook."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    matched: asyncio.Event = field(default_factory=asyncio.Event)
    learned: tuple[Learned, ...] = ()
    own_ladders: dict[StationId, Learned] = field(default_factory=dict)
    """Stations that climb for themselves, because a sister of theirs took nothing."""
    ladder_rules: tuple[LadderRule, ...] = ()

    def take(self, loaded: Loaded) -> None:
        """Take over what survived a restart; the journal's tail is replayed apart."""
        self.states.update(loaded.stations)
        self.capabilities.update(loaded.capabilities)
        self.power.update(loaded.limits)
        self.registry = dict(loaded.vehicles)
        self.registry_at = loaded.vehicles_at
        self.schedules = dict(loaded.schedules)
        self.schedules_at = loaded.schedules_at
        self.learned = tuple(loaded.ladders)

    def state(self, station_id: StationId) -> StationState:
        """The station's state; an empty one for a station that never spoke."""
        known = self.states.get(station_id)
        if known is not None:
            return known
        return StationState(
            station_id=station_id, rated_w=int(self.traits_of(station_id).rated_w)
        )

    def traits_of(self, station_id: StationId) -> StationTraits:
        """The station as configured; a careful guess for one that is only accepted."""
        known = self.traits.get(station_id)
        return known or StationTraits(
            rated_w=self.policy.unmatched_w, fallback_w=self.policy.unmatched_w
        )

    def outlets(self, station_id: StationId) -> list[EvseId]:
        """The station's outlets: as configured, as reported, as seen (CFG-14)."""
        said = self.capabilities.get(station_id, Capabilities()).connectors or 0
        count = max(said, self.traits_of(station_id).outlets, 1)
        seen = [evse_id for evse_id in self.state(station_id).evses if evse_id > 0]
        numbers = {*range(1, min(count, EVSES_MAX) + 1), *seen}
        return [EvseId(number) for number in sorted(numbers)]

    def all_outlets(self) -> Iterator[Outlet]:
        """Every outlet of every known station."""
        for station_id in {**self.traits, **self.states}:
            for evse_id in self.outlets(station_id):
                yield station_id, evse_id

    def power_of(self, outlet: Outlet) -> OutletPower:
        """What is installed at an outlet; EVSE 0 holds the station's default."""
        return self.power.get(outlet) or OutletPower()

    def grid_factor(self, station_id: StationId) -> float:
        """Grid-side watts per watt at the outlet."""
        if not self.traits_of(station_id).is_dc:
            return 1.0
        return 1.0 / used(self.policy.efficiency, self.efficiencies.get(station_id))

    def writes_today(self, station_id: StationId, now: datetime) -> int:
        """How many profiles and keys were written to a station on this day (UTC)."""
        known = self.writes.get(station_id)
        return known.today if known is not None and known.day == now.date() else 0

    def room_w(self) -> float:
        """What the site's connection leaves for charging, grid side."""
        cap_w, load = self.policy.cap_w, self.site_load
        return cap_w if load is None else max(cap_w - load.unmanaged_w, 0.0)

    def open_sessions(self) -> list[Session]:
        """All sessions that hold an outlet now."""
        return [item for state in self.states.values() for item in state.open_sessions()]

    def is_plan_trusted(self, now: datetime) -> bool:
        """Whether the plans were read recently enough (``policy.plan_max_age_s``)."""
        at = self.schedules_at
        return at is not None and now - at <= self.policy.plan_max_age

    def is_registry_trusted(self, now: datetime) -> bool:
        """Whether the registry's copy is young enough to match by (A10.10)."""
        at = self.registry_at
        return at is not None and now - at <= self.policy.registry_max_age
