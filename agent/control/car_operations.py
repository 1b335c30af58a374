"""What an operator may ask about vehicles with a cloud of their own, by command.

A vehicle is only asked or told while it is plugged in here and recognised without
doubt: anything else would wake it for nothing, or move a vehicle that stands elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.control.car_desk import CarDesk, CarRow, open_id, said
from agent.control.cars import Cars
from agent.control.operations import (
    Arguments,
    OperationRefused,
    Operations,
    flag_of,
    number_of,
    text_of,
)
from agent.control.socs import SocKeeper
from agent.control.views import Json, iso
from agent.domain import car_care, session_soc
from agent.domain.billing import plain_vin
from agent.domain.goal import OPERATOR, ChargeGoal
from agent.domain.ids import SessionId
from agent.domain.session import Session
from agent.ports import CarCommand, Clock, CommandOutcome, Outcome

ANSWER_WITHIN_S = 30.0
"""Real seconds a command is waited for; the vehicle's answer may take minutes."""
GOAL_WH_MAX = 2_000_000.0
FRESH_S = 1800.0
"""A limit that was read within this time need not be read again before it is written."""

Budget = Callable[[str], Awaitable[Json]]


@dataclass(slots=True, kw_only=True)
class GoalOperations:
    """``goal.set``: needs no cloud."""

    keeper: SocKeeper
    clock: Clock

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        operations.add("goal.set", self.set)

    async def set(self, arguments: Arguments) -> object:
        """Set or clear how far a session is to charge."""
        session_id = SessionId(text_of(arguments, "session"))
        goal = None
        if not flag_of(arguments, "clear"):
            goal = self._goal(arguments)
        if not await self.keeper.set_goal(session_id, goal):
            raise OperationRefused(
                f"no session {session_id} is open: see `depot-agent sessions`", status=404
            )
        return {"session_id": session_id, "goal": goal.words if goal is not None else None}

    def _goal(self, arguments: Arguments) -> ChargeGoal:
        energy_wh = soc = None
        if arguments.get("energy_kwh") is not None:
            high = GOAL_WH_MAX / 1000
            energy_wh = 1000 * number_of(arguments, "energy_kwh", low=0.1, high=high)
        if arguments.get("soc_percent") is not None:
            soc = number_of(arguments, "soc_percent", low=1, high=100)
        if energy_wh is None and soc is None:
            raise OperationRefused("name an energy, a SoC, or both")
        return ChargeGoal(
            set_at=self.clock.now(),
            source=text_of(arguments, "source", OPERATOR),
            energy_wh=energy_wh,
            soc_percent=soc,
        )


@dataclass(slots=True, kw_only=True)
class CarOperations:
    """``cars.*``; ``budget_of`` shows what is left of a car's allowance."""

    cars: Cars
    budget_of: Budget

    @property
    def desk(self) -> CarDesk:
        """What the cars stand on."""
        return self.cars.desk

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        operations.add("cars.list", self.list)
        operations.add("cars.connections", self.connections)
        operations.add("cars.read", self.read)
        operations.add("cars.limit", self.limit)
        operations.add("cars.start", self.start)
        operations.add("cars.stop", self.stop)

    async def list(self, _: Arguments) -> Sequence[Json]:
        """All configured cars, from memory: nobody is asked."""
        return [await self._shown(row) for row in self.desk.rows.values()]

    async def connections(self, _: Arguments) -> object:
        """The cars whose drivers gave their consent; costs no car's allowance."""
        by_id = {row.car.vehicle_id: row for row in self.desk.rows.values()}
        found = await self.desk.cloud.connections()
        return [
            {
                "vehicle_id": item.car.vehicle_id,
                "user_id": item.car.user_id,
                "vin": item.car.vin or None,
                "make": item.make or None,
                "permissions": sorted(item.permissions),
                "configured": item.car.vehicle_id in by_id,
            }
            for item in found
        ]

    async def read(self, arguments: Arguments) -> object:
        """Ask a plugged car now; ``force`` asks one that is not plugged in here."""
        row = self._row(arguments)
        session = self.desk.session_of(row)
        if session is None and not flag_of(arguments, "force"):
            raise OperationRefused(_NOT_PLUGGED, status=409)
        with _alone(self.desk, row):
            state = await self.desk.read(row, "")
            if session is not None:
                await self.cars.take(row, session, state)
        return await self._shown(row)

    async def limit(self, arguments: Arguments) -> object:
        """Show a car's limit, or set it; it is read before it is written."""
        row = self._row(arguments)
        if arguments.get("percent") is None:
            return await self._shown(row)
        percent = number_of(
            arguments, "percent", low=car_care.LIMIT_MIN, high=car_care.LIMIT_MAX
        )
        session = self._plugged(row, CarCommand.SET_LIMIT)
        with _alone(self.desk, row):
            before = await self._limit_before(row)
            outcome = await self._sent(
                self.desk.command(row, CarCommand.SET_LIMIT, percent, session_id="")
            )
            if outcome is None or outcome.outcome is not Outcome.REFUSED:
                await self.cars.limits.by_hand(row, session)
        return _told(outcome) | {"percent": percent, "before": before}

    async def start(self, arguments: Arguments) -> object:
        """Tell a plugged car to charge."""
        return await self._tell(arguments, CarCommand.START)

    async def stop(self, arguments: Arguments) -> object:
        """Tell a plugged car to stop charging."""
        return await self._tell(arguments, CarCommand.STOP)

    async def _tell(self, arguments: Arguments, command: CarCommand) -> Json:
        row = self._row(arguments)
        session = self._plugged(row, command)
        with _alone(self.desk, row):
            outcome = await self._sent(self.cars.tell(row, session, command, by_hand=True))
        return _told(outcome)

    async def _sent(self, body: Awaitable[CommandOutcome]) -> CommandOutcome | None:
        """Wait for an outcome; None when it takes longer than an operator waits."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await body
        except TimeoutError:
            return None

    async def _limit_before(self, row: CarRow) -> float | None:
        known = self.desk.states.get(row.car.vehicle_id)
        now = self.desk.clock.now()
        if known is None or (now - known[1]).total_seconds() > FRESH_S:
            known = (await self.desk.read(row, ""), now)
        limit = known[0].limit_percent
        return limit.value if limit is not None else None

    def _row(self, arguments: Arguments) -> CarRow:
        vin = plain_vin(text_of(arguments, "vin"))
        row = self.desk.rows.get(vin)
        if row is None:
            text = f"no [[smartcar.vehicles]] has the VIN {vin}"
            raise OperationRefused(f"{text}: see `depot-agent cars`", status=404)
        return row

    def _plugged(self, row: CarRow, command: CarCommand) -> Session:
        session = self.desk.session_of(row)
        if session is None:
            raise OperationRefused(_NOT_PLUGGED, status=409)
        reason = self.desk.why_no_command(row, session, command)
        if reason is not None:
            raise OperationRefused(reason, status=409)
        return session

    async def _shown(self, row: CarRow) -> Json:
        desk, now = self.desk, self.desk.clock.now()
        facts = await desk.refresh(row)
        session = desk.session_of(row)
        soc = session_soc.soc_now(session, now) if session is not None else None
        hold = self.cars.limits.holds.get(plain_vin(row.car.vin))
        known = desk.states.get(row.car.vehicle_id)
        limit = known[0].limit_percent if known is not None else None
        age_s = soc.age_s(now) if soc is not None else None
        return {
            "vin": row.car.vin,
            "vehicle_id": desk.vehicle_of(row),
            "smartcar_id": row.car.vehicle_id,
            "make": row.make or facts.make or None,
            "session_id": open_id(session) or None,
            "station_id": session.station_id if session is not None else None,
            "soc": None if soc is None else round(soc.percent, 1),
            "soc_source": None if soc is None else soc.source,
            "soc_confidence": None if soc is None else round(soc.confidence, 1),
            "soc_age_s": None if age_s is None else round(age_s),
            "limit_percent": limit.value if limit is not None else None,
            "limit_read_at": iso(known[1]) if known is not None else None,
            "limit_of_driver": hold.original if hold and not hold.is_left else None,
            "cannot": sorted(facts.lacks),
            "needs_driver": facts.driver or None,
            "budget": await self.budget_of(row.car.vehicle_id),
        }


_NOT_PLUGGED = (
    "this car is not plugged in here, or not recognised without doubt: see "
    "`depot-agent sessions`; asking it would wake it for nothing"
)


@contextmanager
def _alone(desk: CarDesk, row: CarRow) -> Iterator[None]:
    """One call at a time for a car. Raises OperationRefused while another one runs."""
    name = row.car.vehicle_id
    if name in desk.busy:
        text = "a request to this car is under way: try again in a minute"
        raise OperationRefused(text, status=409)
    desk.busy.add(name)
    try:
        yield
    finally:
        desk.busy.discard(name)


def _told(outcome: CommandOutcome | None) -> Json:
    if outcome is None:
        return {"outcome": "pending", "text": "the car has not answered yet; see the log"}
    if outcome.outcome is Outcome.REFUSED:
        wait_s = outcome.retry_after_s
        again = "" if wait_s is None else f"; possible again in {wait_s:.0f} s"
        raise OperationRefused(f"the car was not told: {said(outcome)}{again}", status=409)
    return {"outcome": str(outcome.outcome), "text": said(outcome)}
