"""A vehicle's own charge limit: changed where it would spoil the plan, and put back.

What was changed is on disk before the command leaves, so that a restart, an outage or a
lost answer still ends with the limit that the driver had (smartcar.md section 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

import structlog

from agent.control.car_desk import CarDesk, CarRow, names, said
from agent.control.intake import Intake
from agent.domain import car_care
from agent.domain.billing import plain_vin
from agent.domain.car_care import LimitHold, LimitStep
from agent.domain.events import CarLimitSeen
from agent.domain.ids import SessionId
from agent.domain.session import Session
from agent.domain.values import changed
from agent.ports import CarCommand, CarState, CommandOutcome, FactSaved, Outcome, Store

log = structlog.get_logger()

SCOPE = "car-limit"
"""Facts: one per VIN whose limit the agent changed, until it is put back."""
SENDS_MAX = 3
"""Tries to send one limit that the cloud, not the vehicle, could not take."""
AGAIN_S = 120.0


@dataclass(slots=True)
class _Wanted:
    """A limit that is to be set as soon as the budget allows it."""

    step: LimitStep
    seen: float
    tries: int = 0
    not_before: datetime | None = None


@dataclass(slots=True)
class CarLimits:
    """See the module."""

    desk: CarDesk
    intake: Intake
    store: Store
    holds: dict[str, LimitHold] = field(default_factory=dict)
    """By VIN."""
    _wanted: dict[SessionId, _Wanted] = field(default_factory=dict)

    async def load(self) -> None:
        """Take over what was changed before a restart."""
        for vin, body in (await self.store.facts(SCOPE)).items():
            hold = _hold_of(body)
            if hold is not None:
                self.holds[vin] = hold

    def own(self, row: CarRow, session: Session) -> LimitHold | None:
        """The change in force for a session; one of an earlier session is taken over."""
        hold = self.holds.get(plain_vin(row.car.vin))
        if hold is None or hold.session_id == session.session_id:
            return hold
        return changed(hold, session_id=session.session_id, resets=0, restore_tries=0)

    def forget(self, session_id: SessionId) -> None:
        """The session is over: nothing is set any more."""
        self._wanted.pop(session_id, None)

    async def seen(
        self, row: CarRow, session: Session, state: CarState, target: float | None
    ) -> None:
        """Look at a limit that was just read, and remember what is to be done."""
        limit = state.limit_percent
        if limit is None:
            return
        await self.intake.handle(
            session.station_id,
            CarLimitSeen(session_id=session.session_id, percent=limit.value),
        )
        before = self.own(row, session)
        step = car_care.limit_step(
            before,
            seen=limit.value,
            recorded_at=limit.recorded_at,
            target_percent=target,
            rules=row.limits,
        )
        if step.hold is not None and step.hold != self.holds.get(plain_vin(row.car.vin)):
            if step.hold.is_confirmed and before is not None and not before.is_confirmed:
                log.info("car_limit_confirmed", **names(session), percent=limit.value)
            await self._save(row, step.hold)
        if step.is_given_up:
            log.warning("car_limit_left", **names(session), reason=step.words)
        self._wanted.pop(session.session_id, None)
        if step.percent is not None:
            self._wanted[session.session_id] = _Wanted(step=step, seen=limit.value)

    def is_due(self, session: Session, now: datetime) -> bool:
        """Whether a limit is to be set now."""
        wanted = self._wanted.get(session.session_id)
        if wanted is None:
            return False
        return wanted.not_before is None or now >= wanted.not_before

    async def send(self, row: CarRow, session: Session) -> datetime | None:
        """Set what is wanted; the time from which a read can confirm it, or None."""
        wanted = self._wanted.get(session.session_id)
        percent = wanted.step.percent if wanted is not None else None
        if wanted is None or percent is None:
            return None
        reason = self.desk.why_no_command(row, session, CarCommand.SET_LIMIT)
        if reason is not None:
            self._wanted.pop(session.session_id, None)
            log.info("car_limit_refused", **names(session), percent=percent, reason=reason)
            return None
        before = self.holds.get(plain_vin(row.car.vin))
        now = self.desk.clock.now()
        hold = wanted.step.hold or LimitHold(
            session_id=session.session_id,
            vehicle_id=row.car.vehicle_id,
            original=wanted.seen,
            set_to=percent,
            set_at=now,
        )
        hold = changed(hold, set_to=percent, set_at=now, is_confirmed=False)
        await self._save(row, hold)  # on disk before it leaves
        outcome = await self.desk.command(
            row, CarCommand.SET_LIMIT, percent, session_id=session.session_id
        )
        if outcome.outcome is Outcome.REFUSED:
            await self._put_off(row, session, wanted, before, outcome)
            return None
        self._wanted.pop(session.session_id, None)
        log.info(
            "car_limit_set",
            **names(session),
            percent=percent,
            before=wanted.seen,
            outcome=str(outcome.outcome),
            reason=wanted.step.words,
        )
        if outcome.outcome is Outcome.DONE:
            event = CarLimitSeen(session_id=session.session_id, percent=percent)
            await self.intake.handle(session.station_id, event)
        return self.desk.clock.now() + timedelta(seconds=car_care.CONFIRM_S)

    async def _put_off(
        self,
        row: CarRow,
        session: Session,
        wanted: _Wanted,
        before: LimitHold | None,
        outcome: CommandOutcome,
    ) -> None:
        """Nothing was changed: take the memory back, and try again where that helps."""
        await self._save(row, before)
        wanted.tries += 1
        wait_s = outcome.retry_after_s
        if wait_s is None or wanted.tries >= SENDS_MAX:
            self._wanted.pop(session.session_id, None)
        else:
            pause = timedelta(seconds=max(wait_s, AGAIN_S))
            wanted.not_before = self.desk.clock.now() + pause
        log.info(
            "car_limit_refused",
            **names(session),
            percent=wanted.step.percent,
            reason=said(outcome),
        )

    # --- back to what the driver had ------------------------------------------------------

    def to_restore(self, opened: set[SessionId], now: datetime) -> list[CarRow]:
        """The cars whose session is over and whose limit is still ours."""
        found = []
        for vin, hold in self.holds.items():
            row = self.desk.rows.get(vin)
            is_due = hold.restore_at is None or now >= hold.restore_at
            if row is not None and hold.session_id not in opened and is_due:
                found.append(row)
        return found

    async def restore(self, row: CarRow) -> None:
        """Put a limit back; a failed try is repeated for some hours."""
        vin = plain_vin(row.car.vin)
        hold = self.holds.get(vin)
        if hold is None or self.desk.session_of(row) is not None:
            return  # plugged in again: that session takes it over
        if not car_care.may_restore(hold):
            await self._save(row, None)
            return
        outcome = await self.desk.command(
            row, CarCommand.SET_LIMIT, hold.original, session_id=""
        )
        about = {"vehicle_id": self.desk.vehicle_of(row), "session_id": hold.session_id}
        now = self.desk.clock.now()
        if outcome.outcome is Outcome.DONE:
            await self._save(row, None)
            log.info("car_limit_restored", **about, percent=hold.original)
            return
        after = car_care.restore_failed(hold, now, outcome.retry_after_s)
        if after.is_left:
            log.warning(
                "car_limit_not_restored",
                **about,
                percent=hold.original,
                reason=said(outcome),
            )
            await self._save(row, None)
        else:
            await self._save(row, after)

    async def by_hand(self, row: CarRow, session: Session) -> None:
        """An operator set the limit: it is left alone in this session."""
        now = self.desk.clock.now()
        hold = LimitHold(
            session_id=session.session_id,
            vehicle_id=row.car.vehicle_id,
            original=0.0,
            set_to=0.0,
            set_at=now,
            is_left=True,
        )
        self._wanted.pop(session.session_id, None)
        await self._save(row, hold)

    async def _save(self, row: CarRow, hold: LimitHold | None) -> None:
        vin = plain_vin(row.car.vin)
        body = None
        if hold is not None:
            body = {item.name: getattr(hold, item.name) for item in fields(hold)}
        await self.store.commit(
            [FactSaved(scope=SCOPE, name=vin, body=body)], self.desk.clock.now()
        )
        if hold is None:
            self.holds.pop(vin, None)
        else:
            self.holds[vin] = hold


def _hold_of(body: Mapping[str, object]) -> LimitHold | None:
    """Read a stored change; None for one that cannot be read."""
    try:
        restore_at = body.get("restore_at")
        return LimitHold(
            session_id=SessionId(str(body["session_id"])),
            vehicle_id=str(body["vehicle_id"]),
            original=float(str(body["original"])),
            set_to=float(str(body["set_to"])),
            set_at=datetime.fromisoformat(str(body["set_at"])),
            resets=int(str(body.get("resets", 0))),
            is_confirmed=body.get("is_confirmed") is True,
            is_left=body.get("is_left") is True,
            restore_tries=int(str(body.get("restore_tries", 0))),
            restore_at=datetime.fromisoformat(str(restore_at)) if restore_at else None,
        )
    except (KeyError, ValueError):
        log.warning("car_limit_forgotten", reason="what is stored of it cannot be read")
        return None
