"""The vehicles' own cloud: SoC, charge limit, start and stop, within its budgets.

SoC and goals of sessions are kept with or without such a cloud.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent import wiring
from agent.cloud.smartcar_base import SmartcarClient
from agent.control.car_desk import CarDesk, CarFacts, CarRow
from agent.control.car_limits import CarLimits
from agent.control.car_operations import CarOperations, GoalOperations
from agent.control.cars import Cars
from agent.control.health import CloudHealth
from agent.control.socs import SocKeeper
from agent.control.views import Json, iso
from agent.domain import session_soc
from agent.domain.billing import plain_vin
from agent.domain.car_care import MAKE_RULES, LimitRules, MakeRule
from agent.domain.errors import StationFault
from agent.domain.goal import ChargeGoal
from agent.domain.ids import SessionId, VehicleId
from agent.domain.session import Session
from agent.host.metrics import Sample
from agent.parts.base import Ground, Part, Task
from agent.ports import Answer, Car, OrderAnswer
from agent.settings import SmartcarSection, SmartcarVehicle
from agent.stations.dialects import restart_calls

NAME = "smartcar"


class CarsPart(Part):
    """Keeps SoC and goals always, and cares for cars where ``[smartcar]`` is."""

    def __init__(self, ground: Ground) -> None:
        """Build; nothing is asked before the tasks run."""
        self._ground = ground
        self.keeper = SocKeeper(
            ground.depot,
            ground.intake,
            ground.store,
            ground.clock,
            remote_stop=self._remote_stop,
        )
        GoalOperations(keeper=self.keeper, clock=ground.clock).add_to(ground.operations)
        self.cloud: SmartcarClient | None = wiring.vehicle_cloud(
            ground.settings, ground.store, ground.clock, ground.ids
        )
        self.cars: Cars | None = None
        section = ground.settings.smartcar
        if section is not None and self.cloud is not None:
            self.cars = self._with_cloud(section, self.cloud)

    def _with_cloud(self, section: SmartcarSection, cloud: SmartcarClient) -> Cars:
        ground = self._ground
        health = CloudHealth(NAME, ground.clock)
        ground.clouds.append(health)
        desk = CarDesk(
            depot=ground.depot,
            clock=ground.clock,
            cloud=cloud,
            health=health,
            rows={plain_vin(row.vin): _row(section, row) for row in section.vehicles},
            facts_of=self._facts,
            asks_why_stopped=section.asks_why_stopped,
            make_rules=(*_make_rules(section), *MAKE_RULES),
        )
        minder = ground.executor.minder
        cars = Cars(
            desk,
            CarLimits(desk, ground.intake, ground.store),
            ground.intake,
            ground.store,
            minder.car_asked,
            minder.take_car_starts,
            ground.executor.car_answered,
        )
        minder.wake_by_car = cars.could_wake
        self.keeper.sizes = desk.sizes
        self.keeper.may_ask = desk.may_ask
        if section.goal_car_stop:
            self.keeper.car_stop = cars.try_stop
        CarOperations(cars=cars, budget_of=self._budget).add_to(ground.operations)
        return cars

    async def set_goal(self, session_id: SessionId, goal: ChargeGoal | None) -> bool:
        """Set how far a session is to charge; False when no such session is open."""
        return await self.keeper.set_goal(session_id, goal)

    def tasks(self) -> Sequence[Task]:
        """SoC and goals; the cars and their cloud where there is one."""
        tasks: list[Task] = [("soc", self.keeper.run)]
        if self.cars is not None and self.cloud is not None:
            tasks += [
                ("cars", self.cars.run),
                ("car-starts", self.cars.run_starts),
                (NAME, self.cloud.run),
            ]
        return tasks

    def samples(self) -> Sequence[Sample]:
        """SoC of every recognised vehicle at a configured station, and requests."""
        depot, now = self._ground.depot, self._ground.clock.now()
        found: list[Sample] = []
        for session in depot.open_sessions():
            vehicle_id = session.vehicle_id
            if vehicle_id not in depot.registry or session.station_id not in depot.traits:
                continue
            soc = session_soc.soc_now(session, now)
            if soc is None or vehicle_id is None:
                continue
            found += _soc_samples(session, vehicle_id, soc.percent, soc.confidence)
        if self.cloud is not None:
            found += [
                Sample(
                    name="smartcar_requests",
                    help="requests to the vehicles' cloud",
                    value=count,
                    labels=(("kind", kind),),
                    is_counter=True,
                )
                for kind, count in self.cloud.requests.items()
            ]
        return found

    async def close(self) -> None:
        """Close kept connections."""
        if self.cloud is not None:
            await self.cloud.close()

    async def _facts(self, car_id: str) -> CarFacts:
        if self.cloud is None:
            return CarFacts()
        known = await self.cloud.known(car_id)
        budget = await self.cloud.budget(car_id)
        if known is None:
            return CarFacts(commands_left=budget.commands_left)
        capacity = known.state.capacity_wh
        return CarFacts(
            make=known.make,
            capacity_wh=capacity.value if capacity is not None else None,
            lacks=known.lacks,
            driver=known.driver,
            commands_left=budget.commands_left,
            state=known.state,
            state_at=known.at,
        )

    async def _budget(self, car_id: str) -> Json:
        if self.cloud is None:
            return {}
        found = await self.cloud.budget(car_id)
        return {
            "used": found.used,
            "of": found.ceiling,
            "reads_left": found.reads_left,
            "commands_left": found.commands_left,
            "next_at": iso(found.next_at),
        }

    async def _remote_stop(self, session: Session) -> OrderAnswer:
        """End a transaction through its station."""
        running = session.open_transaction
        if running is None:
            return OrderAnswer(answer=Answer.REFUSED, detail="no transaction runs")
        try:
            (action, payload), _ = restart_calls(
                session.ocpp_version, session.evse_id, running.transaction_id, ""
            )
            outcome = await self._ground.server.call(session.station_id, action, payload)
        except (StationFault, ValueError) as fault:
            return OrderAnswer(answer=Answer.ERROR, detail=str(fault)[:120])
        status = str((outcome.payload or {}).get("status", outcome.code))
        is_good = status.lower() == "accepted"
        answer = Answer.ACCEPTED if is_good else Answer.REFUSED
        return OrderAnswer(answer=answer, detail=status[:120])


def _row(section: SmartcarSection, row: SmartcarVehicle) -> CarRow:
    """One configured vehicle with its own limits, else those of all."""

    def own(mine: float | None, common: float | None) -> float | None:
        return common if mine is None else mine

    return CarRow(
        car=Car(vehicle_id=row.vehicle_id, user_id=row.user_id, vin=row.vin),
        limits=LimitRules(
            min_percent=own(row.limit_min_percent, section.limit_min_percent) or 0.0,
            max_percent=own(row.limit_max_percent, section.limit_max_percent) or 100.0,
            care_percent=own(row.care_percent, section.care_percent),
        ),
        make=row.make,
    )


def _make_rules(section: SmartcarSection) -> tuple[MakeRule, ...]:
    return tuple(
        MakeRule(
            makes=frozenset(name.strip().upper() for name in item.names),
            start=item.start,
            stop=item.stop,
            start_min_soc=item.start_min_soc,
            stop_min_soc=item.stop_min_soc,
        )
        for item in section.makes
    )


def _soc_samples(
    session: Session, vehicle_id: VehicleId, percent: float, confidence: float
) -> list[Sample]:
    label = (("station_id", session.station_id), ("vehicle_id", vehicle_id))
    return [
        Sample(
            name="vehicle_soc_percent",
            help="state of charge as believed now",
            value=round(percent, 1),
            labels=label,
        ),
        Sample(
            name="vehicle_soc_confidence_points",
            help="how far off it may be, plus or minus points",
            value=round(confidence, 1),
            labels=label,
        ),
    ]


def build(ground: Ground) -> CarsPart:
    """Build the part always: SoC and goals need no cloud."""
    return CarsPart(ground)
