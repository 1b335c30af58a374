"""Cares for the plugged vehicles that have a cloud of their own: asks, limits, starts.

When what is asked is decided in ``domain/car_care``; here is the memory of it, on disk,
and the tasks that wait for answers. One call per vehicle at a time; a vehicle that is
not plugged in, or not recognised without doubt, is left in peace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

import structlog

from agent.control.car_desk import CarDesk, CarRow, names, said
from agent.control.car_limits import CarLimits
from agent.control.car_sights import CarSights, care_of, time_of
from agent.control.depot import Depot
from agent.control.intake import Intake
from agent.domain import car_care, events, soc
from agent.domain.budget import BudgetSpent
from agent.domain.car_care import Care, ReadReason
from agent.domain.errors import CloudFault, StoreFault
from agent.domain.ids import Outlet, SessionId
from agent.domain.session import Session
from agent.domain.soc import SocSource
from agent.ports import (
    CarCommand,
    CarState,
    CommandOutcome,
    FactSaved,
    Outcome,
    Store,
)

log = structlog.get_logger()

LOOK_S = 5.0
"""Between two looks, seconds of the depot's clock."""
LOOK_FLOOR_S = 0.05
SCOPE = "car-care"
"""Facts: what was asked in each open session, so that a restart asks nothing again."""
SCOPE_LIST, LIST = "car-connections", "list"
LIST_EVERY = timedelta(days=1)
LIST_AGAIN_S = 900.0
"""A start-up check of credentials; a loop of restarts asks no more often."""
CABLE_NEWS = timedelta(seconds=60)
"""A vehicle that says so long after the plug-in that no cable is in, is not this one."""

Answered = Callable[[Outlet, str], None]
TakeStarts = Callable[[], list[Outlet]]


@dataclass(slots=True, kw_only=True)
class _Watch:
    """A start or stop that the station's meter has to confirm."""

    command: CarCommand
    sent_at: datetime


@dataclass(slots=True)
class Cars:
    """See the module. ``answered`` tells ``explain`` what came of a start."""

    desk: CarDesk
    limits: CarLimits
    intake: Intake
    store: Store
    asked: asyncio.Event
    take_starts: TakeStarts
    answered: Answered
    sights: CarSights = field(init=False)
    cares: dict[SessionId, Care] = field(default_factory=dict)
    _watches: dict[SessionId, _Watch] = field(default_factory=dict)
    group: asyncio.TaskGroup | None = None

    def __post_init__(self) -> None:
        """Look at the depot of the desk."""
        self.sights = CarSights(self.desk.depot, self.desk.asks_why_stopped)

    @property
    def depot(self) -> Depot:
        """The depot in memory."""
        return self.desk.depot

    async def run(self) -> None:
        """Care until cancelled."""
        await self.load()
        async with asyncio.TaskGroup() as group:
            self.group = group
            group.create_task(self._greet(), name="car-connections")
            while True:
                try:
                    await self.look()
                except StoreFault as fault:
                    log.error("record_not_stored", reason=str(fault))
                await self.desk.clock.sleep(LOOK_S)
                await asyncio.sleep(LOOK_FLOOR_S)

    async def _greet(self) -> None:
        """Read the list of connected cars: free of any car's allowance, daily at most."""
        known = (await self.store.facts(SCOPE_LIST)).get(LIST)
        read_at = time_of(known.get("at")) if known is not None else None
        while True:
            now = self.desk.clock.now()
            wait = LIST_EVERY - (now - read_at) if read_at is not None else timedelta()
            if wait > timedelta():
                await self.desk.clock.sleep(wait.total_seconds())
            try:
                await self._list()
                read_at = self.desk.clock.now()
                continue
            except CloudFault as fault:
                self.desk.health.failed(str(fault))
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
            await self.desk.clock.sleep(LIST_AGAIN_S)

    async def _list(self) -> None:
        found = await self.desk.cloud.connections()
        self.desk.health.succeeded()
        now = self.desk.clock.now()
        body = {"at": now.isoformat(), "cars": len(found)}
        await self.store.commit([FactSaved(scope=SCOPE_LIST, name=LIST, body=body)], now)
        ids = {item.car.vehicle_id for item in found}
        rows = list(self.desk.rows.values())
        missing = sorted(row.car.vin for row in rows if row.car.vehicle_id not in ids)
        log.info("cars_connected", cars=len(found), missing=missing)
        for row in rows:
            await self.desk.refresh(row)

    async def run_starts(self) -> None:
        """Start the vehicles that no station-side means woke."""
        while True:
            await self.asked.wait()
            for station_id, evse_id in self.take_starts():
                session = self.depot.state(station_id).session_at(evse_id)
                row = self.desk.row_of(session) if session is not None else None
                if session is not None and row is not None:
                    self.spawn(row, self._start(row, session))

    async def load(self) -> None:
        """Take over what was asked before a restart."""
        await self.limits.load()
        for name, body in (await self.store.facts(SCOPE)).items():
            care = care_of(body)
            if care is not None:
                self.cares[SessionId(name)] = care
        for row in self.desk.rows.values():
            await self.desk.refresh(row)

    async def look(self) -> None:
        """Look at every open session with such a vehicle, and do what is due."""
        now = self.desk.clock.now()
        opened = self.depot.open_sessions()
        ids = {item.session_id for item in opened}
        for session in opened:
            row = self.desk.row_of(session)
            if row is None:
                continue
            self._confirm(session, now)
            sight = self.sights.look(session, now)
            if row.car.vehicle_id in self.desk.busy:
                continue
            if self.limits.is_due(session, now):
                self.spawn(row, self._set_limit(row, session))
                continue
            care = self.cares.get(session.session_id) or Care(session_id=session.session_id)
            reason = car_care.next_read(care, sight, now)
            if reason is not None:
                self.spawn(row, self._read(row, session, care, reason))
        for row in self.limits.to_restore(ids, now):
            if row.car.vehicle_id not in self.desk.busy:
                self.spawn(row, self.limits.restore(row))
        await self._forget(ids)

    # --- what the meter shows ---------------------------------------------------------

    def _confirm(self, session: Session, now: datetime) -> None:
        """Hold a start or stop against the station's meter."""
        watch = self._watches.get(session.session_id)
        if watch is None:
            return
        power_w: float | None = session.meter.power_w
        if session.open_transaction is None:
            power_w = 0.0
        found = car_care.is_confirmed(
            is_start=watch.command is CarCommand.START,
            sent_at=watch.sent_at,
            power_w=power_w,
            power_at=session.meter.power_at,
            now=now,
        )
        if found is None:
            return
        del self._watches[session.session_id]
        shown = {"command": str(watch.command), "power_w": round(power_w or 0.0)}
        if found:
            log.info("car_command_confirmed", **names(session), **shown)
        else:
            log.warning("car_command_not_confirmed", **names(session), **shown)

    # --- reading ----------------------------------------------------------------------

    async def _read(
        self, row: CarRow, session: Session, care: Care, reason: ReadReason
    ) -> None:
        try:
            state = await self.desk.read(row, session.session_id)
        except CloudFault as fault:
            await self._read_failed(session, care, reason, fault)
            return
        await self.take(row, session, state, care, reason)

    async def _read_failed(
        self, session: Session, care: Care, reason: ReadReason, fault: CloudFault
    ) -> None:
        was_sent = not isinstance(fault, BudgetSpent)
        after = car_care.after_fault(
            care,
            reason,
            retryable=fault.retryable,
            retry_after_s=fault.retry_after_s,
            now=self.desk.clock.now(),
            was_sent=was_sent,
        )
        say = log.warning if was_sent else log.info
        say("car_not_read", **names(session), why=str(reason), reason=str(fault))
        await self._save(session, after)

    async def take(
        self,
        row: CarRow,
        session: Session,
        state: CarState,
        care: Care | None = None,
        reason: ReadReason = ReadReason.PLUGGED,
    ) -> None:
        """Take an answer in: into the session's SoC, its limit, and what is asked next."""
        now = self.desk.clock.now()
        found = state.soc_percent
        log.info(
            "car_read",
            **names(session),
            soc=found.value if found is not None else None,
            recorded_at=found.recorded_at.isoformat()
            if found is not None and found.recorded_at is not None
            else None,
            limit=state.limit_percent.value if state.limit_percent is not None else None,
            why=str(reason),
        )
        if _is_elsewhere(state, session):
            log.warning(
                "car_not_at_outlet",
                **names(session),
                reason="it says that no cable is plugged in, later than this plug-in: "
                "another vehicle may be at this outlet",
            )
            gone = care or Care(session_id=session.session_id)
            await self._save(session, car_care.given_up(gone))
            return
        await self._take_soc(session, state, now)
        if care is not None:
            after = car_care.after_read(
                care,
                reason,
                recorded_at=found.recorded_at if found is not None else None,
                soc_percent=found.value if found is not None else None,
                plugged_at=session.plugged_at,
                now=now,
            )
            await self._save(session, after)
        await self.limits.seen(row, session, state, self.sights.target(session))

    async def _take_soc(self, session: Session, state: CarState, now: datetime) -> None:
        found = state.soc_percent
        if found is None:
            return
        recorded_at = found.recorded_at
        is_new = recorded_at is not None and recorded_at >= soc.stale_after(
            session.plugged_at
        )
        if not is_new and session.schedule_soc_percent is not None:
            return  # what the plan expects is better than a value from the road
        at = min(recorded_at, now) if is_new and recorded_at is not None else None
        event = events.SocReported(
            session_id=session.session_id,
            percent=found.value,
            source=SocSource.CLOUD,
            at=at or session.plugged_at,
            sigma=soc.SIGMA_CLOUD if is_new else soc.SIGMA_STALE,
        )
        await self.intake.handle(session.station_id, event)

    # --- telling ----------------------------------------------------------------------

    async def _set_limit(self, row: CarRow, session: Session) -> None:
        confirm_at = await self.limits.send(row, session)
        if confirm_at is None:
            return
        care = self.cares.get(session.session_id) or Care(session_id=session.session_id)
        await self._save(session, car_care.to_confirm(care, confirm_at))

    def could_wake(self, session_id: SessionId) -> bool:
        """Whether the cloud of a session's vehicle could start it, from memory."""
        for session in self.depot.open_sessions():
            if session.session_id == session_id:
                row = self.desk.row_of(session)
                if row is None or row.car.vehicle_id in self.desk.busy:
                    return False
                return self.desk.why_no_command(row, session, CarCommand.START) is None
        return False

    async def _start(self, row: CarRow, session: Session) -> None:
        outcome = await self.tell(row, session, CarCommand.START)
        self.answered((session.station_id, session.evse_id), said(outcome))

    def try_stop(self, session_id: SessionId) -> bool:
        """Let a session's vehicle be stopped by its own cloud; whether that can be."""
        for session in self.depot.open_sessions():
            row = self.desk.row_of(session) if session.session_id == session_id else None
            if row is None or row.car.vehicle_id in self.desk.busy:
                continue
            if self.desk.why_no_command(row, session, CarCommand.STOP) is not None:
                continue
            self.spawn(row, self._stop(row, session))
            return True
        return False

    async def _stop(self, row: CarRow, session: Session) -> None:
        await self.tell(row, session, CarCommand.STOP)

    async def tell(
        self, row: CarRow, session: Session, command: CarCommand, *, by_hand: bool = False
    ) -> CommandOutcome:
        """Start or stop a plugged vehicle; the station's meter confirms it later."""
        reason = self.desk.why_no_command(row, session, command)
        if reason is not None:
            outcome = CommandOutcome(outcome=Outcome.REFUSED, code="AGENT", detail=reason)
        else:
            sent_at = self.desk.clock.now()
            counted = "" if by_hand else session.session_id
            outcome = await self.desk.command(row, command, session_id=counted)
            if outcome.outcome is not Outcome.REFUSED:
                self._watches[session.session_id] = _Watch(command=command, sent_at=sent_at)
        log.info(
            "car_command_sent", **names(session), command=str(command), answer=said(outcome)
        )
        return outcome

    # --- tasks and memory -------------------------------------------------------------

    def spawn(self, row: CarRow, body: Coroutine[None, None, None]) -> None:
        """Let something be done for a car in the background, alone."""
        if self.group is None:
            body.close()
            return
        self.desk.busy.add(row.car.vehicle_id)
        self.group.create_task(self._alone(row, body), name=f"car-{row.car.vehicle_id}")

    async def _alone(self, row: CarRow, body: Coroutine[None, None, None]) -> None:
        try:
            await body
        except StoreFault as fault:
            log.error("record_not_stored", reason=str(fault))
        except CloudFault as fault:
            log.warning("car_not_read", reason=str(fault))
        finally:
            self.desk.busy.discard(row.car.vehicle_id)

    async def _save(self, session: Session, care: Care) -> None:
        self.cares[session.session_id] = care
        body = {item.name: getattr(care, item.name) for item in fields(care)}
        fact = FactSaved(scope=SCOPE, name=session.session_id, body=body)
        await self.store.commit([fact], self.desk.clock.now())

    async def _forget(self, opened: set[SessionId]) -> None:
        """Let go of sessions that are over."""
        gone = [item for item in self.cares if item not in opened]
        for session_id in gone:
            del self.cares[session_id]
            self.limits.forget(session_id)
        self.sights.forget(opened)
        for session_id in [item for item in self._watches if item not in opened]:
            del self._watches[session_id]
        if gone:
            rows = [FactSaved(scope=SCOPE, name=item, body=None) for item in gone]
            await self.store.commit(rows, self.desk.clock.now())


def _is_elsewhere(state: CarState, session: Session) -> bool:
    """Whether the vehicle says, later than the plug-in, that it has no cable."""
    plugged = state.is_plugged
    if plugged is None or plugged.value or plugged.recorded_at is None:
        return False
    return plugged.recorded_at >= session.plugged_at + CABLE_NEWS
