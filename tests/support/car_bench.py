"""One outlet with one car, its station's facts by hand, and a car's cloud that is told.

Everything between the station's events and the cloud's port is the agent's own; time
moves by hand, and a look settles when no task has anything left to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from agent.control.car_desk import CarDesk, CarFacts, CarRow
from agent.control.car_limits import CarLimits
from agent.control.cars import Cars
from agent.control.depot import Depot, OutletView, Policy
from agent.control.health import CloudHealth
from agent.control.intake import Intake
from agent.control.socs import SocKeeper
from agent.domain import events
from agent.domain.capability import StationTraits
from agent.domain.car_care import LimitRules
from agent.domain.errors import CloudFault
from agent.domain.events import ConnectorStatus
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    Outlet,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.meter import MeterReading
from agent.domain.plan import AfterPlan, Schedule
from agent.domain.session import Session
from agent.ports import (
    Answer,
    Car,
    CarCommand,
    CarState,
    CommandOutcome,
    Connection,
    FactSaved,
    Ids,
    OrderAnswer,
    Outcome,
    Record,
    Sourced,
    Store,
)
from tests.unit.domain.build import MAC_A, NOW, a_vehicle, evidence_of

CP, ONE = StationId("CP-01"), EvseId(1)
VIN = "WVWZZZE1ZMP012345"
CAR = Car(vehicle_id="v-1", user_id="u-1", vin=VIN)
BUS, SLOT = VehicleId("car-1"), ScheduleId("slot-1")
SETTLE_TURNS = 60
"""Turns of the event loop after which nothing is left to do without time."""


class HandClock:
    """Time that moves by hand; who sleeps wakes when it has come."""

    def __init__(self) -> None:
        self.at = NOW
        self.sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.Event()
        self.sleepers.append((self.at + timedelta(seconds=seconds), wake))
        await wake.wait()

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        for until, wake in self.sleepers:
            if until <= self.at:
                wake.set()


class MemoryStore:
    """Facts and rows in memory; facts outlive an agent."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.kept: dict[tuple[str, str], Mapping[str, object]] = {}

    async def commit(self, records: Sequence[Record], now: datetime) -> None:
        del now
        self.rows += records
        for record in records:
            if isinstance(record, FactSaved):
                self.kept.pop((record.scope, record.name), None)
                if record.body is not None:
                    self.kept[record.scope, record.name] = record.body

    async def facts(self, scope: str) -> dict[str, Mapping[str, object]]:
        return {name: body for (kept, name), body in self.kept.items() if kept == scope}


class Numbers:
    """Ids that count."""

    def __init__(self) -> None:
        self.number = 0

    def session_id(self, now: datetime) -> SessionId:
        del now
        self.number += 1
        return SessionId(f"S{self.number}")

    def chance(self) -> float:
        return 0.5


@dataclass
class FakeCloud:
    """A car's cloud: what it is told to say, and what it was asked."""

    clock: HandClock
    soc: float | None = 50.0
    limit: float | None = 80.0
    lag_s: float = 30.0
    plugged: bool = True
    fault: CloudFault | None = None
    outcomes: list[CommandOutcome] = field(default_factory=list)
    reads: list[datetime] = field(default_factory=list)
    commands: list[tuple[str, float | None]] = field(default_factory=list)

    async def connections(self) -> list[Connection]:
        return [Connection(car=CAR, make="VOLVO")]

    async def read(self, car: Car, *, session_id: str = "") -> CarState:
        del car, session_id
        self.reads.append(self.clock.now())
        if self.fault is not None:
            raise self.fault
        at = self.clock.now() - timedelta(seconds=self.lag_s)
        return CarState(
            soc_percent=None
            if self.soc is None
            else Sourced(value=self.soc, recorded_at=at),
            limit_percent=None
            if self.limit is None
            else Sourced(value=self.limit, recorded_at=at),
            is_plugged=Sourced(value=float(self.plugged), recorded_at=at),
        )

    async def command(
        self,
        car: Car,
        command: CarCommand,
        percent: float | None = None,
        *,
        session_id: str = "",
    ) -> CommandOutcome:
        del car, session_id
        self.commands.append((str(command), percent))
        outcome = CommandOutcome(outcome=Outcome.DONE)
        if self.outcomes:
            outcome = self.outcomes.pop(0)
        if command is CarCommand.SET_LIMIT and outcome.outcome is Outcome.DONE:
            self.limit = percent
        return outcome


class Bench:
    """See the module."""

    def __init__(
        self,
        store: MemoryStore,
        clock: HandClock,
        cloud: FakeCloud,
        *,
        limits: LimitRules,
        make: str = "",
        target: float | None = 80.0,
        expected_soc: float | None = 40.0,
        goal_remote_stop: bool = False,
    ) -> None:
        self.store, self.clock, self.cloud = store, clock, cloud
        policy = Policy(
            cap_w=100_000.0,
            efficiency=0.95,
            unmatched_w=10_000.0,
            unplanned_w=20_000.0,
            after_plan=AfterPlan.HOLD_MINIMUM,
            plan_max_age=timedelta(days=1),
            goal_remote_stop=goal_remote_stop,
        )
        self.depot = Depot(
            policy=policy,
            traits={CP: StationTraits(rated_w=22_000.0, fallback_w=4_000.0, is_dc=False)},
        )
        vehicle = a_vehicle(str(BUS), MAC_A, vin=VIN, capacity_wh=60_000)
        self.depot.registry = {BUS: vehicle}
        self.depot.registry_at = NOW
        slot = Schedule(
            schedule_id=SLOT,
            vehicle_id=BUS,
            location_uid="L",
            arrives_at=NOW - timedelta(hours=1),
            departs_at=NOW + timedelta(hours=10),
            start_soc_percent=expected_soc,
            target_soc_percent=target,
        )
        self.depot.schedules = {SLOT: slot}
        self.stops: list[SessionId] = []
        self.answers: list[str] = []
        self.starts: list[Outlet] = []
        self.lacks: frozenset[str] = frozenset()
        self.intake = Intake(
            self.depot,
            cast("Store", store),
            clock,
            cast("Ids", Numbers()),
            last_seq=0,
            last_transaction_id=0,
        )
        self.desk = CarDesk(
            depot=self.depot,
            clock=clock,
            cloud=cloud,
            health=CloudHealth("smartcar", clock),
            rows={VIN: CarRow(car=CAR, limits=limits, make=make)},
            facts_of=self._facts,
        )
        self.keeper = SocKeeper(
            self.depot,
            self.intake,
            cast("Store", store),
            clock,
            remote_stop=self._stop,
        )
        self.keeper.sizes, self.keeper.may_ask = self.desk.sizes, self.desk.may_ask
        self.asked = asyncio.Event()
        self.cars = Cars(
            self.desk,
            CarLimits(self.desk, self.intake, cast("Store", store)),
            self.intake,
            cast("Store", store),
            self.asked,
            self._take_starts,
            lambda _, words: self.answers.append(words),
        )
        self.register_wh = 1000.0

    async def _facts(self, _: str) -> CarFacts:
        return CarFacts(commands_left=10, lacks=self.lacks)

    async def _stop(self, session: Session) -> OrderAnswer:
        self.stops.append(session.session_id)
        return OrderAnswer(answer=Answer.ACCEPTED)

    def _take_starts(self) -> list[Outlet]:
        taken, self.starts = self.starts, []
        self.asked.clear()
        return taken

    def ask_start(self) -> None:
        """What the wake ladder does on its last rung."""
        self.starts.append((CP, ONE))
        self.asked.set()

    # --- the station --------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The newest session."""
        return list(self.depot.state(CP).sessions.values())[-1]

    async def say(self, event: events.Event) -> None:
        await self.intake.handle(CP, event)

    async def status(self, status: ConnectorStatus) -> None:
        connector = ConnectorId(1)
        await self.say(
            events.ConnectorChanged(evse_id=ONE, connector_id=connector, status=status)
        )

    async def plug(self) -> None:
        """Plug the car in and begin a transaction."""
        await self.status(ConnectorStatus.PREPARING)
        await self.say(
            events.TransactionStarted(
                evse_id=ONE,
                connector_id=ConnectorId(1),
                new_transaction_id=TransactionId("7"),
                key=str(self.clock.now()),
                at=self.clock.now(),
                id_token="x",
                meter_start_wh=self.register_wh,
                evidence=(evidence_of(MAC_A),),
            )
        )
        await self.status(ConnectorStatus.CHARGING)
        self.depot.views[CP, ONE] = OutletView(allocated_w=11_000.0)

    async def unplug(self) -> None:
        """Stop, pull the plug, and let the agent see it."""
        await self.unplug_without_look()
        await self.settle()

    async def unplug_without_look(self) -> None:
        """Stop and pull the plug; the agent is gone before it can do anything."""
        await self.say(
            events.TransactionEnded(
                transaction_id=self.session.transactions[-1].transaction_id,
                at=self.clock.now(),
                meter_stop_wh=self.register_wh,
            )
        )
        await self.status(ConnectorStatus.AVAILABLE)

    async def charge(
        self, minutes: float, power_w: float = 11_000.0, *, soc: float | None = None
    ) -> None:
        """Charge on with a sample a minute; ``soc`` is what the station says."""
        for _ in range(round(minutes)):
            self.register_wh += power_w / 60
            self.clock.move(60)
            reading = MeterReading(
                self.clock.now(),
                register_wh=self.register_wh,
                power_w=power_w,
                soc_percent=soc,
            )
            await self.say(events.MeterSampled(readings=(reading,), evse_id=ONE))
            await self.settle()

    async def settle(self) -> None:
        """Look once, and let what is under way end as far as it can without time."""
        await self.intake.tick()
        await self.keeper.look()
        await self.cars.look()
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)

    def state(self, event: str, logs: Sequence[Mapping[str, object]]) -> int:
        """How often something was told."""
        return sum(row["event"] == event for row in logs)


@asynccontextmanager
async def bench(
    store: MemoryStore | None = None,
    clock: HandClock | None = None,
    cloud: FakeCloud | None = None,
    *,
    limits: LimitRules | None = None,
    make: str = "",
    target: float | None = 80.0,
    expected_soc: float | None = 40.0,
    goal_remote_stop: bool = False,
) -> AsyncIterator[Bench]:
    """A bench whose tasks end with it; the same store and clock make it a restart."""
    clock = clock or HandClock()
    made = Bench(
        store or MemoryStore(),
        clock,
        cloud or FakeCloud(clock),
        limits=limits or LimitRules(),
        make=make,
        target=target,
        expected_soc=expected_soc,
        goal_remote_stop=goal_remote_stop,
    )
    async with asyncio.TaskGroup() as group:
        made.cars.group = group
        await made.keeper.load()
        await made.cars.load()
        starts = group.create_task(made.cars.run_starts())
        yield made
        starts.cancel()
        for sleeper in clock.sleepers:
            sleeper[1].set()
