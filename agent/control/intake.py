"""Every fact of a station goes through here: decide, commit, then answer and act.

One lock per station orders all that touches its sessions. Memory changes only after the
commit; when the disk refuses, the station gets no answer and repeats its message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from agent.control import billing
from agent.control.depot import Depot
from agent.control.diskshare import DiskShare
from agent.domain import events, plan
from agent.domain.capability import Capabilities, profile_form
from agent.domain.curve import is_within
from agent.domain.effects import (
    Decision,
    DecisionRecord,
    Effect,
    MatchWanted,
    OutboxAdded,
    PowerChanged,
    SessionSaved,
    Told,
)
from agent.domain.identity import Match, MatchOutcome, match_vehicle
from agent.domain.ids import EvseId, SessionId, StationId, TransactionId
from agent.domain.profile import InstalledProfile, Purpose
from agent.domain.reconcile import checked, doubted
from agent.domain.rules import advance, meter_sampled, reported_quietly
from agent.domain.rules.owed import BILLING
from agent.domain.session import Session, SessionPhase
from agent.domain.station import StationState
from agent.ports import (
    CapabilitiesSaved,
    Clock,
    EventAnswer,
    Ids,
    JournalRow,
    Record,
    StationSaved,
    Store,
    TransactionIdTaken,
)

log = structlog.get_logger()

METER_ROWS_MAX = 200
"""Meter events between two saves of a session: what a restart replays at most."""
BELOW_MS = tuple(timedelta(microseconds=number) for number in range(1000))
"""What a time is above its millisecond; to subtract it is quicker than to replace."""
Metered = events.MeterSampled | events.TransactionReported
METERED = (events.MeterSampled, events.TransactionReported)
NO_SESSION = SessionId("")
NO_ANSWER = EventAnswer()
WARNINGS = frozenset(
    {
        "account_missing",
        "vehicle_ambiguous",
        "transaction_superseded",
        "transaction_orphaned",
    }
)


@dataclass(slots=True)
class _Inbox:
    """What orders one station's events, and what of it is not saved whole yet."""

    share: DiskShare
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    dirty: set[SessionId] = field(default_factory=set)
    meter_rows: int = 0


@dataclass(slots=True)
class _Unit:
    """One unit of work: an event with the matches and slots that follow from it."""

    state: StationState
    rows: list[JournalRow] = field(default_factory=list)
    records: list[DecisionRecord] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    touched: set[SessionId] = field(default_factory=set)
    only_meter: bool = True

    def add(self, decision: Decision, row: JournalRow) -> None:
        self.state = decision.state
        self.rows.append(row)
        self.effects.extend(decision.effects)
        self.only_meter = self.only_meter and decision.only_meter
        for record in decision.records:
            if isinstance(record, SessionSaved):
                self.touched.add(record.session.session_id)
            else:
                self.records.append(record)


class Intake:
    """The EventSink of all stations."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        last_seq: int,
        last_transaction_id: int,
    ) -> None:
        """Go on counting where the store left off."""
        self._depot = depot
        self._store = store
        self._clock = clock
        self._ids = ids
        self._seq = last_seq
        self._transaction_id = last_transaction_id
        self._inboxes: dict[StationId, _Inbox] = {}
        self.counts: Counter[str] = Counter()
        self.rematch_wanted = False

    def _now(self) -> datetime:
        """The time to the millisecond: what the journal can hold, so replay is exact."""
        now = self._clock.now()
        return now - BELOW_MS[now.microsecond % 1000]

    # --- EventSink ------------------------------------------------------------------

    async def handle(self, station_id: StationId, event: events.Event) -> EventAnswer:
        """Decide, commit, act; returns when it is on disk. Raises StoreFault."""
        inbox = self._inboxes.get(station_id) or self._inbox(station_id)
        await inbox.lock.acquire()  # quicker than ``async with``
        try:
            if isinstance(event, METERED):
                before = self._depot.state(station_id)
                now = self._now()
                decision = _quiet(before, event, now)
                if decision is not None:
                    await self._metered(station_id, inbox, event, before, decision, now)
                    return NO_ANSWER
            return await self._event(station_id, inbox, event)
        finally:
            inbox.lock.release()

    def _inbox(self, station_id: StationId) -> _Inbox:
        found = self._inboxes.get(station_id)
        if found is None:
            found = self._inboxes[station_id] = _Inbox(DiskShare(station_id))
        return found

    async def _reconsider(
        self, session: Session, think: Callable[[Session], events.Event | None]
    ) -> None:
        """Think about a session again while nothing else can change it."""
        inbox = self._inbox(session.station_id)
        async with inbox.lock:
            state = self._depot.state(session.station_id)
            newest = state.sessions.get(session.session_id)
            event = think(newest) if newest is not None else None
            if event is not None:
                await self._event(session.station_id, inbox, event)

    def next_transaction_id(self) -> TransactionId:
        """Take a new id: positive, below 2^31, never used twice."""
        self._transaction_id += 1
        return TransactionId(str(self._transaction_id))

    async def capabilities_read(
        self, station_id: StationId, capabilities: Capabilities
    ) -> None:
        """Take over what a station said; silence withdraws nothing (CFG-05)."""
        known = self._depot.capabilities.get(station_id)
        if not capabilities.is_known:
            capabilities = known or replace(capabilities, is_known=True)
        if capabilities != known:
            record = CapabilitiesSaved(station_id=station_id, capabilities=capabilities)
            await self._store.commit([record], self._clock.now())
            self._depot.capabilities[station_id] = capabilities
        self._depot.changed.set()

    # --- the two paths ------------------------------------------------------------------

    async def _metered(
        self,
        station_id: StationId,
        inbox: _Inbox,
        event: Metered,
        before: StationState,
        decision: Decision,
        now: datetime,
    ) -> None:
        """The hot path: one row in the journal, sessions saved now and then."""
        self.counts[type(event).__name__] += 1
        if not decision.is_new:
            return
        row = self._row(station_id, NO_SESSION, event, now)
        known = before.sessions
        changed = [
            session
            for session_id, session in decision.state.sessions.items()
            if known.get(session_id) is not session
        ]
        for session in changed:
            inbox.dirty.add(session.session_id)
        is_spent = inbox.share.is_spent(now)
        if not decision.only_meter or inbox.meter_rows >= METER_ROWS_MAX or is_spent:
            unit = _Unit(state=before)
            unit.add(decision, row)
            await self._commit(station_id, inbox, unit, has_room=not is_spent)
        else:
            inbox.share.count_readings(len(event.readings))
            await self._store.commit((row,), now)
            inbox.meter_rows += 1
            self._depot.states[station_id] = decision.state
            if decision.effects:
                self._act(decision.effects)
        for session in changed:
            self._check_power(session)

    async def _event(
        self, station_id: StationId, inbox: _Inbox, event: events.Event
    ) -> EventAnswer:
        now = self._now()
        self.counts[type(event).__name__] += 1
        before = self._depot.state(station_id)
        new_session_id = self._ids.session_id(now)
        decision = advance(before, event, now=now, new_session_id=new_session_id)
        answer = EventAnswer(transaction_id=decision.transaction_id)
        if not decision.is_new:
            if isinstance(event, events.LimitDoubted):  # nothing to keep, much to do
                self._doubt_limits(station_id, event)
                self._act(decision.effects)
            return answer
        unit = _Unit(state=before)
        unit.add(decision, self._row(station_id, new_session_id, event, now))
        self._follow_up(unit, station_id)
        self._doubt_limits(station_id, event)
        await self._commit(station_id, inbox, unit)
        return answer

    def _follow_up(self, unit: _Unit, station_id: StationId) -> None:
        """Match vehicles and find their slots in the same unit of work."""
        wanted = [e.session_id for e in unit.effects if isinstance(e, MatchWanted)]
        for session_id in dict.fromkeys(wanted):
            session = unit.state.sessions.get(session_id)
            if session is None:
                continue
            match, clash = self._match(session)
            if clash:
                self.rematch_wanted = True
            self._also(unit, station_id, self._matched(session, match))
            bound = self._slot(unit.state.sessions[session_id])
            if bound is not None:
                self._also(unit, station_id, bound)
        for session_id in list(unit.touched):
            found = self._account(unit.state.sessions.get(session_id))
            if found is not None:
                self._also(unit, station_id, found)

    def _account(self, session: Session | None) -> events.AccountChecked | None:
        """What is new about the payment account of a session that is open."""
        if session is None or session.phase is SessionPhase.ENDED:
            return None
        return billing.checked(self._depot, session, self._now())

    def _also(self, unit: _Unit, station_id: StationId, event: events.Event) -> None:
        now = self._now()
        decision = advance(unit.state, event, now=now, new_session_id=NO_SESSION)
        if decision.is_new:
            unit.add(decision, self._row(station_id, NO_SESSION, event, now))

    async def _commit(
        self,
        station_id: StationId,
        inbox: _Inbox,
        unit: _Unit,
        *,
        has_room: bool = True,
    ) -> None:
        now = self._clock.now()
        kept = inbox.share.take(unit.rows, now) if has_room else ()
        saved = unit.touched | inbox.dirty
        sessions = [
            SessionSaved(session=unit.state.sessions[session_id])
            for session_id in saved
            if session_id in unit.state.sessions
        ]
        station = StationSaved(state=unit.state, seq=unit.rows[-1].seq)
        records: list[Record] = [*kept, *sessions, station]
        records += [item for item in unit.records if self._is_kept(item)]
        if any(isinstance(row.event, events.TransactionStarted) for row in unit.rows):
            taken = TransactionIdTaken(transaction_id=self._transaction_id)
            records.append(taken)
        await self._store.commit(records, now)
        self._depot.states[station_id] = unit.state
        inbox.dirty.clear()
        inbox.meter_rows = 0
        self._act(unit.effects)

    def _is_kept(self, record: DecisionRecord) -> bool:
        """Whether a record has a taker: bills only where there is a webhook for them."""
        is_bill = isinstance(record, OutboxAdded) and record.destination == BILLING
        return not is_bill or self._depot.owes_bills

    def _act(self, effects: list[Effect] | tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, PowerChanged):
                self._depot.changed.set()
            elif isinstance(effect, Told):
                if effect.event == "vehicle_matched":
                    self._depot.matched.set()
                if effect.event == "session_ended":
                    self.rematch_wanted = True
                say = log.warning if effect.event in WARNINGS else log.info
                say(effect.event, **effect.fields)

    def _row(
        self,
        station_id: StationId,
        new_session_id: SessionId,
        event: events.Event,
        now: datetime,
    ) -> JournalRow:
        self._seq += 1
        return JournalRow(
            seq=self._seq,
            at=now,
            station_id=station_id,
            new_session_id=new_session_id,
            event=event,
        )

    # --- power --------------------------------------------------------------------------

    def _doubt_limits(self, station_id: StationId, event: events.Event) -> None:
        """Let limits be confirmed again: all after a connect or a boot, or one outlet's."""
        if isinstance(event, (events.LinkOpened, events.StationBooted)):
            if isinstance(event, events.LinkOpened):
                self._depot.linked_at_s[station_id] = asyncio.get_running_loop().time()
            for outlet, power in list(self._depot.power.items()):
                if outlet[0] == station_id:
                    self._depot.power[outlet] = doubted(power)
            return
        evse_id = self._doubted_outlet(station_id, event)
        if evse_id is not None:
            outlet = (station_id, evse_id)
            power = self._depot.power_of(outlet)
            again = doubted(power)
            if isinstance(event, events.ChargingNeedsReported):
                again = replace(again, quiet_until=None)  # the wait was for this (K15)
            if isinstance(event, events.LimitDoubted):  # a vehicle may insist: no hurry
                again = replace(
                    again, failures=power.failures, last_order_at=power.last_order_at
                )
            self._depot.power[outlet] = again

    def _doubted_outlet(self, station_id: StationId, event: events.Event) -> EvseId | None:
        """The outlet whose limit an event of 2.x puts in doubt."""
        if isinstance(event, (events.ChargingNeedsReported, events.LimitDoubted)):
            return event.evse_id  # the vehicle waits for a schedule (K15)
        if (
            not isinstance(event, events.TransactionReported)
            or event.trigger != "TxResumed"
        ):
            return None
        said = self._depot.capabilities.get(station_id, Capabilities())
        found = self._depot.state(station_id).find_transaction(event.transaction_id)
        if found is None or said.transactions_persist:
            return None
        return found[0].evse_id

    async def profiles_read(
        self, station_id: StationId, installed: tuple[InstalledProfile, ...]
    ) -> list[int]:
        """Hold what is really installed against the books; returns foreign ids (VER-02)."""
        depot = self._depot
        common = (station_id, EvseId(0))
        has_default = any(item.purpose == Purpose.TX_DEFAULT for item in installed)
        if depot.power_of(common).default_w is not None and not has_default:
            log.warning(
                "limit_not_installed",
                station_id=station_id,
                evse_id=0,
                reason="the station's report does not hold the default that it accepted",
            )
            depot.power[common] = doubted(depot.power_of(common))
            depot.changed.set()
        for outlet, power in list(depot.power.items()):
            if outlet[0] != station_id or outlet[1] == 0 or power.confirmed is None:
                continue
            if power.left:
                continue  # its limit is of another purpose (domain/ladder.py)
            session = depot.state(station_id).session_at(outlet[1])
            running = session.open_transaction if session is not None else None
            if running is None or running.transaction_id != power.confirmed.transaction_id:
                continue
            is_there = any(
                item.is_for(outlet[1], running.transaction_id)
                and is_within(item.allows, power.confirmed.allows, self._now_s())
                for item in installed
            )
            if is_there:
                continue
            log.warning(
                "limit_not_installed",
                station_id=station_id,
                evse_id=outlet[1],
                session_id=session.session_id if session is not None else None,
                reason="the station's report does not hold the profile that it accepted",
            )
            depot.power[outlet] = doubted(power)
            depot.changed.set()
        said = depot.capabilities.get(station_id, Capabilities())
        offset = profile_form(said, depot.traits_of(station_id)).id_offset
        return [item.profile_id for item in installed if item.is_foreign(offset)]

    def _now_s(self) -> int:
        return int(self._clock.now().timestamp())

    def _check_power(self, session: Session) -> None:
        """Hold the newest measurement against the limit in force."""
        outlet = (session.station_id, session.evse_id)
        before = self._depot.power.get(outlet)
        if before is None:
            return
        running = session.open_transaction
        measured_w, at = session.meter.power_w, session.meter.power_at
        if running is None or measured_w is None or at is None:
            return
        after = checked(
            before,
            measured_w=measured_w,
            measured_at=at,
            transaction_id=running.transaction_id,
        )
        if after is before:
            return
        self._depot.power[outlet] = after
        if after.verified is False and before.verified is not False:
            log.warning(
                "limit_not_followed",
                station_id=session.station_id,
                evse_id=session.evse_id,
                session_id=session.session_id,
                vehicle_id=session.vehicle_id,
                measured_w=round(measured_w),
            )
            self._depot.changed.set()
        elif after.verified is True and before.verified is False:
            log.info(
                "limit_followed_again",
                station_id=session.station_id,
                evse_id=session.evse_id,
                session_id=session.session_id,
            )
            self._depot.changed.set()

    # --- matching -----------------------------------------------------------------------

    async def rematch(self) -> None:
        """Match every open session again: the registry or the depot changed."""
        self.rematch_wanted = False
        for session in self._depot.open_sessions():
            await self._reconsider(session, self._match_again)
        await self.rebind()

    def _match_again(self, session: Session) -> events.VehicleMatched | None:
        if not session.evidence:
            return None
        match, _ = self._match(session)
        if (match.outcome, match.vehicle_id) == (session.match, session.vehicle_id):
            return None
        return self._matched(session, match)

    async def check_accounts(self) -> None:
        """Look at every open session's account again: accounts, or the time, changed."""
        for session in self._depot.open_sessions():
            await self._reconsider(session, self._account)

    async def rebind(self) -> None:
        """Find the slot of every matched session again: schedules changed."""
        for session in self._depot.open_sessions():
            await self._reconsider(session, self._slot)

    async def tick(self) -> None:
        """Let grace periods end."""
        for station_id, state in list(self._depot.states.items()):
            if state.open_sessions() or state.held:
                await self.handle(station_id, events.Ticked())
        if self.rematch_wanted:
            await self.rematch()

    def _match(self, session: Session) -> tuple[Match, bool]:
        """Match one session; also whether another live session claims the same vehicle."""
        site = self._depot.policy.location_uid
        registry = self._depot.registry
        if not self._depot.is_registry_trusted(self._clock.now()):
            registry = {}
        alone = match_vehicle(session.evidence, registry, site=site)
        if alone.outcome is not MatchOutcome.UNIQUE or alone.vehicle_id is None:
            return alone, False
        for other in self._depot.open_sessions():
            is_live = other.phase is not SessionPhase.FINISHED and other.evidence
            if other.session_id == session.session_id or not is_live:
                continue
            claim = match_vehicle(other.evidence, registry, site=site)
            if claim.vehicle_id == alone.vehicle_id:
                held = {alone.vehicle_id: other.session_id}
                both = match_vehicle(session.evidence, registry, site=site, elsewhere=held)
                return both, True
        return alone, False

    def _matched(self, session: Session, match: Match) -> events.VehicleMatched:
        vin = None
        if match.vehicle_id is not None:
            vin = self._depot.registry[match.vehicle_id].vin
        return events.VehicleMatched(session_id=session.session_id, match=match, vin=vin)

    def _slot(self, session: Session) -> events.ScheduleBound | None:
        """Find the session's slot; None when nothing changes."""
        if session.vehicle_id is None:
            return None
        now = self._clock.now()
        since = session.started_at or session.plugged_at
        schedules = self._depot.schedules.values()
        found = plan.choose(schedules, session.vehicle_id, now=min(now, since))
        held = (
            self._depot.schedules.get(session.schedule_id) if session.schedule_id else None
        )
        running = plan.choose(schedules, session.vehicle_id, now=now)
        if running is not None and running.arrives_at <= now < running.departs_at:
            found = running
        found = found or held or running
        schedule_id = found.schedule_id if found is not None else None
        soc = found.start_soc_percent if found is not None else None
        if session.schedule_id == schedule_id and (
            session.start_soc_reported or session.schedule_soc_percent == soc
        ):
            return None
        return events.ScheduleBound(
            session_id=session.session_id,
            schedule_id=schedule_id,
            start_soc_percent=soc,
        )


def _quiet(before: StationState, event: Metered, now: datetime) -> Decision | None:
    """Decide what only brings readings, in 1.6 or 2.x; None where there is more to it."""
    if isinstance(event, events.MeterSampled):
        return meter_sampled(before, event, now)
    return reported_quietly(before, event)
