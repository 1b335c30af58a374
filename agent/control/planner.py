"""Polls the fleet's cloud: registry and schedules become the depot's plans.

A different text is a change; a plan that fails its checks is refused whole and the last
good one stays. When the cloud is away, what was read last goes on being executed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from agent.control.depot import Depot
from agent.control.health import CloudHealth
from agent.control.intake import Intake
from agent.domain import plan
from agent.domain.errors import CloudFault, StoreFault
from agent.domain.ids import ScheduleId
from agent.domain.plan import Schedule
from agent.domain.retry import wait_s
from agent.ports import (
    Clock,
    Fleet,
    Ids,
    SchedulesRead,
    SchedulesSaved,
    Store,
    VehiclesSaved,
)

log = structlog.get_logger()

AFTER_MATCH_S = 2.0
"""ChargEye plans when a vehicle connects: look soon after a match (clock seconds)."""
ACTIVE_MAX = 10
"""Single vehicles asked for per poll."""
POLL_FLOOR_S = 0.2
"""Real seconds between two polls, however fast the clock runs."""
CONFIRM_S = 600.0
"""A successful poll without news is written down this often, so that the age of plans
survives a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollEvery:
    """How often the cloud is asked, seconds of the depot's clock."""

    vehicles_s: float = 300.0
    schedules_s: float = 60.0


class Planner:
    """Keeps registry and schedules fresh; see the module."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        fleet: Fleet,
        intake: Intake,
        clock: Clock,
        ids: Ids,
        health: CloudHealth,
        every: PollEvery,
    ) -> None:
        """Prepare; ``run`` polls."""
        self._depot = depot
        self._store = store
        self._fleet = fleet
        self._intake = intake
        self._clock = clock
        self._ids = ids
        self._health = health
        self._every = every
        self._refused: dict[ScheduleId, str] = {}
        self._wake = asyncio.Event()
        self._wake_registry = asyncio.Event()
        self._odd: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._poll(self._vehicles, self._every.vehicles_s, self._wake_registry),
                name="poll-vehicles",
            )
            tasks.create_task(
                self._poll(self._schedules, self._every.schedules_s, self._wake),
                name="poll-schedules",
            )
            while True:
                await self._depot.matched.wait()
                self._depot.matched.clear()
                await self._clock.sleep(AFTER_MATCH_S)
                self._wake.set()

    def look_now(self) -> None:
        """Poll registry and schedules at once: somebody knows that there is news."""
        self._wake_registry.set()
        self._wake.set()

    async def _poll(
        self, read: Callable[[], Awaitable[None]], every_s: float, wake: asyncio.Event
    ) -> None:
        failures = 0
        while True:
            retry_after_s: float | None = None
            try:
                await read()
                failures = 0
                self._health.succeeded()
                pause_s = every_s * (0.95 + 0.1 * self._ids.chance())
            except CloudFault as fault:
                failures += 1
                retry_after_s = fault.retry_after_s
                self._health.failed(str(fault))
                pause_s = wait_s(
                    failures, chance=self._ids.chance(), retry_after_s=retry_after_s
                )
                pause_s = pause_s if fault.retryable else max(pause_s, every_s)
            except StoreFault as fault:
                failures += 1
                log.error("record_not_stored", reason=str(fault))
                pause_s = every_s
            await asyncio.sleep(POLL_FLOOR_S)
            await self._pause(pause_s, wake)

    async def _pause(self, pause_s: float, wake: asyncio.Event) -> None:
        wake.clear()
        async with asyncio.TaskGroup() as tasks:
            sleeper = tasks.create_task(self._clock.sleep(pause_s))
            waker = tasks.create_task(_wait(wake))
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
            sleeper.cancel()
            waker.cancel()

    # --- registry -------------------------------------------------------------------

    async def _vehicles(self) -> None:
        read = await self._fleet.vehicles()
        now = self._clock.now()
        for problem in read.problems:
            if problem not in self._odd:  # once, not at every poll
                log.warning("registry_row_odd", reason=problem)
        self._odd = frozenset(read.problems)
        new = {vehicle.vehicle_id: vehicle for vehicle, _ in read.vehicles}
        is_news = new != self._depot.registry
        if is_news or self._is_old(self._depot.registry_at, now):
            await self._store.commit([VehiclesSaved(vehicles=read.vehicles, at=now)], now)
        self._depot.registry_at = now
        self._depot.registry = new
        if is_news:
            log.info("registry_received", vehicles=len(new))
            await self._intake.rematch()
            self._depot.changed.set()

    # --- schedules --------------------------------------------------------------------

    async def _schedules(self) -> None:
        read = await self._with_active(await self._fleet.schedules())
        now = self._clock.now()
        for problem in read.problems:
            log.warning("schedule_row_odd", reason=problem)
        refused = dict(read.refused)
        known = self._depot.schedules
        seen: dict[ScheduleId, Schedule] = {}
        changed: list[tuple[Schedule, str]] = []
        for schedule, text in read.schedules:
            old = known.get(schedule.schedule_id)
            seen[schedule.schedule_id] = schedule
            if old is not None and old.fingerprint == schedule.fingerprint:
                seen[schedule.schedule_id] = old
                continue
            good = self._accept(schedule, old, refused, now)
            seen[schedule.schedule_id] = good
            changed.append((good, text))
        gone = [item for item in known if item not in seen]
        kept = {item: known[item] for item in gone if self._is_in_use(known[item], now)}
        gone = [item for item in gone if item not in kept]
        self._depot.schedule_texts = {
            schedule.schedule_id: text for schedule, text in read.schedules
        }
        if changed or gone or self._is_old(self._depot.schedules_at, now):
            rows = changed if changed or gone else _as_kept(read.schedules, seen)
            record = SchedulesSaved(schedules=rows, gone=gone, at=now)
            await self._store.commit([record], now)
        self._depot.schedules_at = now
        if changed or gone:
            self._depot.schedules = {**seen, **kept}
            await self._intake.rebind()
            self._depot.changed.set()

    async def _with_active(self, read: SchedulesRead) -> SchedulesRead:
        """Ask for the active slot of vehicles that are plugged in without one."""
        listed = {schedule.vehicle_id for schedule, _ in read.schedules}
        wanted = [
            session.vehicle_id
            for session in self._depot.open_sessions()
            if session.vehicle_id is not None and session.vehicle_id not in listed
        ]
        for vehicle_id in list(dict.fromkeys(wanted))[:ACTIVE_MAX]:
            try:
                more = await self._fleet.active_schedule(vehicle_id)
            except CloudFault as fault:
                if fault.retryable:
                    raise
                continue  # the path is inferred: a 404 is no news
            read = SchedulesRead(
                schedules=[*read.schedules, *more.schedules],
                refused=[*read.refused, *more.refused],
                problems=[*read.problems, *more.problems],
            )
        return read

    def _accept(
        self,
        schedule: Schedule,
        old: Schedule | None,
        refused: dict[ScheduleId, str],
        now: datetime,
    ) -> Schedule:
        """Take a changed schedule, with its plan or with the last good one."""
        problem = refused.get(schedule.schedule_id)
        if problem is None and schedule.plan is not None:
            problem = plan.check(schedule.plan, now=now)
        if problem is None:
            self._refused.pop(schedule.schedule_id, None)
            log.info(
                "plan_received" if schedule.plan is not None else "schedule_received",
                schedule_id=schedule.schedule_id,
                vehicle_id=schedule.vehicle_id,
                segments=len(schedule.plan.segments) if schedule.plan is not None else 0,
                departs_at=schedule.departs_at.isoformat(),
            )
            return schedule
        if self._refused.get(schedule.schedule_id) != problem:
            self._refused[schedule.schedule_id] = problem
            log.warning(
                "plan_refused",
                schedule_id=schedule.schedule_id,
                vehicle_id=schedule.vehicle_id,
                reason=problem,
                kept="the last good plan" if old is not None and old.plan else "no plan",
            )
        return replace(schedule, plan=old.plan if old is not None else None)

    def _is_in_use(self, schedule: Schedule, now: datetime) -> bool:
        """A slot that is over may vanish from the list while its vehicle is still here."""
        if schedule.departs_at > now:
            return False
        return any(
            session.schedule_id == schedule.schedule_id
            for session in self._depot.open_sessions()
        )

    @staticmethod
    def _is_old(at: datetime | None, now: datetime) -> bool:
        return at is None or (now - at).total_seconds() >= CONFIRM_S


def _as_kept(
    read: Sequence[tuple[Schedule, str]], seen: dict[ScheduleId, Schedule]
) -> list[tuple[Schedule, str]]:
    """Every schedule as it is executed, with the cloud's newest text."""
    return [(seen[schedule.schedule_id], text) for schedule, text in read]


async def _wait(wake: asyncio.Event) -> None:
    await wake.wait()
