"""What the care of vehicles stands on: who is who, what is known, one call at a time.

Rows of ``[[smartcar.vehicles]]`` join the registry by VIN; a session belongs to a row
only when its vehicle was recognised without doubt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from agent.control.depot import Depot
from agent.control.health import CloudHealth
from agent.domain import session_soc
from agent.domain.billing import plain_vin
from agent.domain.budget import BudgetSpent
from agent.domain.car_care import MAKE_RULES, LimitRules, MakeRule, why_not
from agent.domain.errors import CloudFault
from agent.domain.identity import MatchOutcome
from agent.domain.ids import SessionId, VehicleId
from agent.domain.session import Session
from agent.ports import (
    Car,
    CarCommand,
    CarState,
    Clock,
    CommandOutcome,
    Outcome,
    Sourced,
    VehicleCloud,
)

log = structlog.get_logger()

FLOOR_WAIT_MAX_S = 200.0
"""A command that came too soon after a read waits this long at most, once."""
CLOUD_AT_FAULT_S = 300.0
"""A fault that asks for a longer wait than this is of the car, not of the cloud."""
FLOOR = "BUDGET:FLOOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarRow:
    """One configured vehicle; ``make`` as configured, "" to take the cloud's word."""

    car: Car
    limits: LimitRules = field(default_factory=LimitRules)
    make: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarFacts:
    """What the cloud's client knows of a car without asking.

    ``lacks`` are ``read``, ``start``, ``stop``, ``set-limit``; ``driver`` is what only
    its driver can mend, "" for nothing.
    """

    make: str = ""
    capacity_wh: float | None = None
    lacks: frozenset[str] = frozenset()
    driver: str = ""
    commands_left: int = 0
    state: CarState | None = None
    state_at: datetime | None = None


Facts = Callable[[str], Awaitable[CarFacts]]


@dataclass(slots=True, kw_only=True)
class CarDesk:
    """See the module; the memory of the cars that ``Cars`` and ``CarLimits`` share."""

    depot: Depot
    clock: Clock
    cloud: VehicleCloud
    health: CloudHealth
    rows: Mapping[str, CarRow]
    """By VIN as ``plain_vin`` writes it."""
    facts_of: Facts
    make_rules: tuple[MakeRule, ...] = MAKE_RULES
    asks_why_stopped: bool = False
    facts: dict[str, CarFacts] = field(default_factory=dict)
    states: dict[str, tuple[CarState, datetime]] = field(default_factory=dict)
    sizes: dict[VehicleId, float] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)

    def row_of(self, session: Session) -> CarRow | None:
        """The configured car that is plugged in a session, if it is certain."""
        if session.match is not MatchOutcome.UNIQUE or session.vehicle_id is None:
            return None
        vehicle = self.depot.registry.get(session.vehicle_id)
        vin = session.vin or (vehicle.vin if vehicle is not None else None)
        return self.rows.get(plain_vin(vin)) if vin else None

    def session_of(self, row: CarRow) -> Session | None:
        """The open session in which a configured car is plugged in, if any."""
        return next(
            (item for item in self.depot.open_sessions() if self.row_of(item) is row), None
        )

    def vehicle_of(self, row: CarRow) -> VehicleId | None:
        """The registry's id of a configured car."""
        vin = plain_vin(row.car.vin)
        return next(
            (
                item.vehicle_id
                for item in self.depot.registry.values()
                if item.vin and plain_vin(item.vin) == vin
            ),
            None,
        )

    def may_ask(self, vehicle_id: VehicleId) -> bool:
        """Whether the cloud of a vehicle may give its SoC."""
        vehicle = self.depot.registry.get(vehicle_id)
        if vehicle is None or not vehicle.vin:
            return False
        row = self.rows.get(plain_vin(vehicle.vin))
        if row is None:
            return False
        known = self.facts.get(row.car.vehicle_id)
        return known is None or ("read" not in known.lacks and not known.driver)

    async def refresh(self, row: CarRow) -> CarFacts:
        """Look up what is known of a car; asks nobody."""
        found = await self.facts_of(row.car.vehicle_id)
        self.facts[row.car.vehicle_id] = found
        if found.state is not None and found.state_at is not None:
            self.states.setdefault(row.car.vehicle_id, (found.state, found.state_at))
        vehicle_id = self.vehicle_of(row)
        if found.capacity_wh and vehicle_id is not None:
            self.sizes[vehicle_id] = found.capacity_wh
        return found

    def why_no_command(
        self, row: CarRow, session: Session, command: CarCommand
    ) -> str | None:
        """Say why a car must not be told something now, or None."""
        known = self.facts.get(row.car.vehicle_id, CarFacts())
        if known.driver:
            return f"its driver has to act first: {known.driver}"
        if str(command) in known.lacks:
            return f"its cloud does not offer {command} for it"
        if known.commands_left <= 0:
            return "its allowance of the month is used up"
        if command is CarCommand.SET_LIMIT:
            return None
        soc = session_soc.soc_now(session, self.clock.now())
        state = self.states.get(row.car.vehicle_id)
        return why_not(
            self.make_rules,
            row.make or known.make,
            is_start=command is CarCommand.START,
            soc_percent=soc.percent if soc is not None else None,
            has_timers=_flag(state[0].has_timers) if state is not None else None,
        )

    async def read(self, row: CarRow, session_id: str) -> CarState:
        """Read a car. Raises CloudFault (BudgetSpent: no request was made)."""
        try:
            state = await self.cloud.read(row.car, session_id=session_id)
        except BudgetSpent:
            raise
        except CloudFault as fault:
            if fault.retryable and (fault.retry_after_s or 0.0) <= CLOUD_AT_FAULT_S:
                self.health.failed(str(fault))
            raise
        finally:
            await self.refresh(row)
        self.health.succeeded()
        self.states[row.car.vehicle_id] = (state, self.clock.now())
        capacity, vehicle_id = state.capacity_wh, self.vehicle_of(row)
        if capacity is not None and vehicle_id is not None:
            self.sizes[vehicle_id] = capacity.value
        return state

    async def command(
        self,
        row: CarRow,
        command: CarCommand,
        percent: float | None = None,
        *,
        session_id: str,
    ) -> CommandOutcome:
        """Send a command; one that only came too soon is sent again after its wait."""
        found = await self.cloud.command(row.car, command, percent, session_id=session_id)
        wait_s = found.retry_after_s
        is_early = found.outcome is Outcome.REFUSED and found.code == FLOOR
        if is_early and wait_s is not None and wait_s <= FLOOR_WAIT_MAX_S:
            await self.clock.sleep(wait_s)
            found = await self.cloud.command(
                row.car, command, percent, session_id=session_id
            )
        await self.refresh(row)
        return found


def _flag(found: Sourced | None) -> bool | None:
    return None if found is None else bool(found.value)


def names(session: Session) -> dict[str, object]:
    """The fields that every log line about a session has."""
    return {
        "station_id": session.station_id,
        "evse_id": session.evse_id,
        "session_id": session.session_id,
        "vehicle_id": session.vehicle_id,
    }


def said(outcome: CommandOutcome) -> str:
    """An outcome in words, for people."""
    if outcome.outcome is Outcome.DONE:
        return "accepted"
    words = " ".join(part for part in (outcome.code, outcome.detail) if part)
    return f"{outcome.outcome}: {words}" if words else str(outcome.outcome)


def open_id(session: Session | None) -> SessionId:
    """The id of a session, or the empty one of none."""
    return session.session_id if session is not None else SessionId("")
