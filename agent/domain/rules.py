"""The session machine: (state of a station, event) -> decision. Pure.

Theory of operation. An outlet is empty or has one open session. A session opens when
a status or a transaction shows a vehicle, and ends when the cable is seen to be out:
by ``Available``, by a stop for ``EVDisconnected``, or by another vehicle. Stations send
these in any order, twice, late, or not at all, so every event is legal in every phase;
what does not fit becomes an anomaly, never an error. Nothing is re-opened by late data.

The table ``STEPS`` maps each event type to its step; a type that is missing is a bug
that the type checker and a test find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from agent.domain import events, meter
from agent.domain.effects import (
    CandidateSeen,
    Decision,
    DecisionRecord,
    Effect,
    LogField,
    MatchWanted,
    OrphanKept,
    OutboxAdded,
    PowerChanged,
    SessionReport,
    SessionSaved,
    StartSocReport,
    Told,
)
from agent.domain.events import ConnectorStatus
from agent.domain.identity import Evidence, EvidenceKind, MatchOutcome, add_evidence
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    MacAddress,
    SessionId,
    TransactionId,
)
from agent.domain.session import Session, SessionPhase, Transaction
from agent.domain.station import EvseState, PendingToken, StationState
from agent.domain.values import changed

AVAILABLE_GRACE = timedelta(seconds=60)
"""A stop may follow an Available; within this time it wins (TX-06)."""
UNPLUG_UNSEEN = timedelta(seconds=15)
"""A stop that no status follows: after this the vehicle counts as gone."""
TOKEN_WAIT = timedelta(seconds=120)
"""A token presented before the plug waits this long for its vehicle."""
TOKENS_MAX = 8
"""Tokens waiting per station."""
START_SOC_WAIT = timedelta(seconds=120)
"""Time for the station to report SoC before the schedule's estimate is confirmed."""
LATE_READING = timedelta(seconds=60)
"""A reading this long before a start or after a stop changes no total (C7)."""
CLOCK_SLACK_S = 3600.0
"""An outlet's total is judged as of at least an hour: station clocks jump (TX-10)."""
CHARGEYE = "chargeye"


class _Work:
    """A decision in the making; lives for one call of ``advance``."""

    __slots__ = ("effects", "now", "records", "session_id", "state", "touched")

    def __init__(self, state: StationState, now: datetime, session_id: SessionId) -> None:
        self.state = state
        self.now = now
        self.session_id = session_id
        self.touched: dict[SessionId, None] = {}
        self.records: list[DecisionRecord] = []
        self.effects: list[Effect] = []

    def save(self, session: Session) -> Session:
        self.state = self.state.with_session(session)
        self.touched[session.session_id] = None
        return session

    def tell(self, name: str, session: Session | None, **fields: LogField) -> None:
        known: dict[str, LogField] = {"station_id": self.state.station_id}
        if session is not None:
            known["session_id"] = session.session_id
            known["evse_id"] = session.evse_id
            if session.vehicle_id is not None:
                known["vehicle_id"] = session.vehicle_id
        self.effects.append(Told(event=name, fields=known | fields))

    def power(self) -> None:
        if PowerChanged() not in self.effects:
            self.effects.append(PowerChanged())

    def done(
        self, before: StationState, transaction_id: TransactionId | None = None
    ) -> Decision:
        saved = [
            SessionSaved(session=self.state.sessions[session_id])
            for session_id in self.touched
            if session_id in self.state.sessions
        ]
        return Decision(
            state=self.state,
            records=(*saved, *self.records),
            effects=tuple(self.effects),
            transaction_id=transaction_id,
            is_new=self.state is not before or bool(self.records),
        )


def advance(
    state: StationState,
    event: events.Event,
    *,
    now: datetime,
    new_session_id: SessionId,
) -> Decision:
    """Decide what an event means; see the module for the theory.

    ``now`` is when the agent received it. ``new_session_id`` is used only if the event
    opens a session. Never raises for anything that a station may send.
    """
    if type(event) is events.MeterSampled:
        return _meter_sampled(state, event, now)
    work = _Work(state, now, new_session_id)
    transaction_id = STEPS[type(event)](work, event)
    return work.done(state, transaction_id)


# --- link and identity of the station -------------------------------------------


def _link_opened(work: _Work, event: events.LinkOpened) -> None:
    work.state = replace(
        work.state,
        is_connected=True,
        connected_at=work.now,
        ocpp_version=event.ocpp_version,
    )
    work.power()


def _link_closed(work: _Work, _: events.LinkClosed) -> None:
    work.state = replace(work.state, is_connected=False)
    work.power()


def _booted(work: _Work, event: events.StationBooted) -> None:
    work.state = replace(
        work.state,
        vendor=event.vendor,
        model=event.model,
        serial=event.serial,
        firmware=event.firmware,
        booted_at=work.now,
    )
    work.power()


def _anomaly(work: _Work, event: events.AnomalyNoted) -> None:
    session = work.state.session_at(event.evse_id) if event.evse_id is not None else None
    if session is not None:
        work.save(session.with_anomaly(event.text))


# --- cable ----------------------------------------------------------------------


def _connector_changed(work: _Work, event: events.ConnectorChanged) -> None:
    if event.evse_id == 0:
        work.state = replace(work.state, station_status=event.status)
        return
    before = _evse(work, event.evse_id, event.connector_id)
    session = work.state.session_at(event.evse_id)
    is_repeat = before.status is event.status and before.error == event.error
    if is_repeat and not event.status.opens_session and not _is_ghost(before, session):
        return
    evse = replace(
        before,
        connector_id=event.connector_id,
        status=event.status,
        status_at=work.now,
        error=event.error,
        available_since=before.available_since,
    )
    if event.status is not ConnectorStatus.AVAILABLE:
        evse = replace(evse, available_since=None)
    work.state = work.state.with_evse(evse)
    is_kept = event.evse_id in work.state.evses
    if event.status is ConnectorStatus.AVAILABLE:
        _available(work, evse, session)
    elif event.status.opens_session and session is None and is_kept:
        _open(work, evse, at=_near(event.at, work.now))
    if not is_repeat:
        work.power()


def _is_ghost(evse: EvseState, session: Session | None) -> bool:
    """Whether a repeated Available is the first since the session began (TX-04)."""
    is_free = evse.status is ConnectorStatus.AVAILABLE
    return is_free and session is not None and evse.available_since is None


def _available(work: _Work, evse: EvseState, session: Session | None) -> None:
    if session is None:
        return
    if session.open_transaction is None:
        _end(work, session, at=work.now)
    elif evse.available_since is None:
        work.state = work.state.with_evse(replace(evse, available_since=work.now))


def _open(work: _Work, evse: EvseState, *, at: datetime) -> Session:
    session = Session(
        session_id=work.session_id,
        station_id=work.state.station_id,
        evse_id=evse.evse_id,
        connector_id=evse.connector_id,
        ocpp_version=work.state.ocpp_version,
        plugged_at=at,
    )
    work.save(session)
    work.state = work.state.with_evse(replace(evse, session_id=session.session_id))
    work.tell("vehicle_plugged", session)
    for waiting in _take_pending(work, evse.evse_id):
        session = _add_token(work, session, waiting.id_token, waiting.evidence)
    return session


def _end(work: _Work, session: Session, *, at: datetime) -> Session:
    """Close the record; the cable is out, or somebody else is in."""
    running = session.open_transaction
    if running is not None:
        session = _close_transaction(
            session, running, at=at, rated_w=work.state.rated_w, estimated=True
        )
        session = session.with_anomaly(
            f"transaction {running.transaction_id} was never stopped by the station"
        )
    at = max([at, *(item.ended_at for item in session.transactions if item.ended_at)])
    session = replace(
        session,
        phase=SessionPhase.ENDED,
        ended_at=max(at, session.plugged_at),
        meter=meter.idle(session.meter, at),
    )
    evse = work.state.evses.get(session.evse_id)
    if evse is not None and evse.session_id == session.session_id:
        work.state = work.state.with_evse(
            replace(
                evse,
                session_id=None,
                available_since=None,
                register_wh=session.meter.register_wh,
            )
        )
    session = _report_start_soc(work, session, is_last_call=True)
    _report_session(work, session)
    work.save(session)
    work.tell(
        "session_ended",
        session,
        energy_wh=round(session.meter.energy_wh),
        soc_end=session.meter.soc_percent,
        stop_reason=session.stop_reason,
    )
    work.power()
    return session


# --- identity -------------------------------------------------------------------


def _token(work: _Work, event: events.IdTokenPresented) -> None:
    session = _session_for_token(work, event.evse_id)
    if session is not None:
        _add_token(work, session, event.id_token, event.evidence)
        return
    _keep_pending(work, event.id_token, event.evidence, event.evse_id)


def _session_for_token(work: _Work, evse_id: EvseId | None) -> Session | None:
    """Find the outlet of a token: named, or the only one that waits (A1)."""
    if evse_id:
        return work.state.session_at(evse_id)
    waiting = [
        session
        for session in work.state.open_sessions()
        if session.open_transaction is None
    ]
    return waiting[0] if len(waiting) == 1 else None


def _evidence(work: _Work, event: events.EvidenceReported) -> None:
    if event.evse_id:
        session = work.state.session_at(event.evse_id)
    else:
        opened = work.state.open_sessions()
        session = opened[0] if len(opened) == 1 else None
    if session is None:
        _keep_pending(work, "", event.evidence, event.evse_id)
        return
    if event.soc_percent is not None:
        reading = meter.MeterReading(work.now, soc_percent=event.soc_percent)
        account, _ = meter.add_reading(session.meter, reading, rated_w=work.state.rated_w)
        session = work.save(replace(session, meter=account))
        session = work.save(_report_start_soc(work, session))
    _add_token(work, session, "", event.evidence)


def _keep_pending(
    work: _Work, id_token: str, evidence: tuple[Evidence, ...], evse_id: EvseId | None
) -> None:
    waiting = PendingToken(
        id_token=id_token, evidence=evidence, at=work.now, evse_id=evse_id or None
    )
    pending = (*work.state.pending, waiting)[-TOKENS_MAX:]
    work.state = replace(work.state, pending=pending)


def _take_pending(work: _Work, evse_id: EvseId) -> list[PendingToken]:
    """Take the tokens for this outlet: those that name it, or the only nameless one."""
    fresh = [item for item in work.state.pending if work.now - item.at <= TOKEN_WAIT]
    if len(fresh) != len(work.state.pending):
        work.state = replace(work.state, pending=tuple(fresh))
    named = [item for item in fresh if item.evse_id == evse_id]
    found = named or [item for item in fresh if item.evse_id is None]
    if not named and len(found) != 1:
        return []
    rest = tuple(item for item in fresh if item not in found)
    work.state = replace(work.state, pending=rest)
    return found


def _add_token(
    work: _Work, session: Session, id_token: str, evidence: tuple[Evidence, ...]
) -> Session:
    merged = add_evidence(session.evidence, evidence)
    changed = replace(session, evidence=merged, id_token=session.id_token or id_token)
    if changed == session:
        return session
    work.save(changed)
    if merged != session.evidence:
        work.effects.append(MatchWanted(session_id=session.session_id))
    return changed


def _matched(work: _Work, event: events.VehicleMatched) -> None:
    session = work.state.sessions.get(event.session_id)
    if session is None or session.phase is SessionPhase.ENDED:
        return
    found = event.match
    is_same = (session.match, session.vehicle_id, session.mac) == (
        found.outcome,
        found.vehicle_id,
        found.mac,
    )
    if is_same and session.match_reason:
        return
    unique = found.outcome is MatchOutcome.UNIQUE
    keeps_slot = session.vehicle_id == found.vehicle_id
    session = replace(
        session,
        match=found.outcome,
        match_reason=found.reason,
        vehicle_id=found.vehicle_id,
        mac=found.mac,
        vin=event.vin or session.vin,
        matched_at=work.now if unique else None,
        schedule_id=session.schedule_id if keeps_slot else None,
        start_soc_reported=session.start_soc_reported and keeps_slot,
    )
    work.save(session)
    name = {
        MatchOutcome.UNIQUE: "vehicle_matched",
        MatchOutcome.NONE: "vehicle_unmatched",
        MatchOutcome.AMBIGUOUS: "vehicle_ambiguous",
    }[found.outcome]
    work.tell(name, session, mac=found.mac, reason=found.reason)
    if found.outcome is MatchOutcome.NONE and found.mac is not None:
        work.records.append(_candidate(work, session, found.mac))
    work.power()


def _candidate(work: _Work, session: Session, mac: MacAddress) -> CandidateSeen:
    return CandidateSeen(
        mac=mac,
        station_id=work.state.station_id,
        session_id=session.session_id,
        at=work.now,
    )


def _bound(work: _Work, event: events.ScheduleBound) -> None:
    session = work.state.sessions.get(event.session_id)
    if session is None or session.phase is SessionPhase.ENDED:
        return
    if (session.schedule_id, session.schedule_soc_percent) == (
        event.schedule_id,
        event.start_soc_percent,
    ):
        return
    is_other = session.schedule_id not in (None, event.schedule_id)
    session = replace(
        session,
        schedule_id=event.schedule_id,
        schedule_soc_percent=event.start_soc_percent,
        start_soc_reported=session.start_soc_reported and not is_other,
    )
    work.save(_report_start_soc(work, session))
    work.power()


# --- transactions ---------------------------------------------------------------


def _started(work: _Work, event: events.TransactionStarted) -> TransactionId:
    repeated = work.state.find_key(event.key)
    if repeated is not None and (repeated.is_open or repeated.started_at == event.at):
        # A station whose clock stands still starts anew with an old key: only what is
        # still open, or began at this very time, is a repeat.
        return repeated.transaction_id
    evse = _evse(work, event.evse_id, event.connector_id)
    work.state = work.state.with_evse(replace(evse, available_since=None))
    session = work.state.session_at(event.evse_id)
    if session is not None and _is_history(session, event):
        return _started_in_the_past(work, event)
    if session is not None:
        session = _make_room(work, session, event)
    if session is None:
        evse = _evse(work, event.evse_id, event.connector_id)
        session = _open(work, evse, at=event.at)
    transaction = Transaction(
        transaction_id=event.new_transaction_id,
        key=event.key,
        started_at=event.at,
        meter_start_wh=event.meter_start_wh,
        energy_before_wh=session.meter.energy_wh,
    )
    is_first = session.started_at is None
    gap = _register_gap(evse, session, event)
    session = replace(
        session,
        phase=SessionPhase.CHARGING,
        plugged_at=min(session.plugged_at, event.at),
        started_at=session.started_at or event.at,
        finished_at=None,
        stop_reason="",
        transactions=(*session.transactions, transaction),
        meter=meter.baseline(session.meter, event.meter_start_wh, event.at),
    )
    if gap is not None:
        session = session.with_anomaly(gap)
    work.save(session)
    session = _add_token(work, session, event.id_token, event.evidence)
    work.tell(
        "session_started" if is_first else "transaction_started",
        session,
        transaction_id=event.new_transaction_id,
    )
    work.power()
    return event.new_transaction_id


def _is_history(session: Session, event: events.TransactionStarted) -> bool:
    """Whether a queued start is older than what runs at the outlet now (C4)."""
    running = session.open_transaction
    return running is not None and event.at < running.started_at


def _started_in_the_past(work: _Work, event: events.TransactionStarted) -> TransactionId:
    """File a transaction that was over before the present one began."""
    transaction = Transaction(
        transaction_id=event.new_transaction_id,
        key=event.key,
        started_at=event.at,
        meter_start_wh=event.meter_start_wh,
    )
    session = Session(
        session_id=work.session_id,
        station_id=work.state.station_id,
        evse_id=event.evse_id,
        connector_id=event.connector_id,
        ocpp_version=work.state.ocpp_version,
        plugged_at=event.at,
        started_at=event.at,
        phase=SessionPhase.CHARGING,
        id_token=event.id_token,
        evidence=event.evidence,
        transactions=(transaction,),
        meter=meter.baseline(meter.MeterState(), event.meter_start_wh, event.at),
    ).with_anomaly("reported after a later transaction had begun")
    work.save(session)
    work.effects.append(MatchWanted(session_id=session.session_id))
    return event.new_transaction_id


def _make_room(
    work: _Work, session: Session, event: events.TransactionStarted
) -> Session | None:
    """Settle what is open at the outlet; None when it was another vehicle's session."""
    running = session.open_transaction
    if running is not None:
        text = (
            f"transaction {running.transaction_id} was superseded by "
            f"{event.new_transaction_id}; its stop was lost"
        )
        session = _close_transaction(
            session,
            running,
            at=event.at,
            rated_w=work.state.rated_w,
            estimated=True,
            register_wh=event.meter_start_wh,
        ).with_anomaly(text)
        work.save(session)
        work.tell("transaction_superseded", session, reason=text)
    if session.transactions and _is_other_vehicle(session, event.evidence):
        _end(work, session, at=event.at)
        return None
    return session


def _is_other_vehicle(session: Session, evidence: tuple[Evidence, ...]) -> bool:
    known = {item.value for item in session.evidence if item.kind is EvidenceKind.MAC}
    new = {item.value for item in evidence if item.kind is EvidenceKind.MAC}
    return bool(known and new and known.isdisjoint(new))


def _register_gap(
    evse: EvseState, session: Session, event: events.TransactionStarted
) -> str | None:
    """Energy that passed between two transactions, or a meter that went back."""
    before = session.meter.register_wh or evse.register_wh
    if before is None or event.meter_start_wh is None or before == event.meter_start_wh:
        return None
    return f"meter stood at {before:.0f} Wh and starts at {event.meter_start_wh:.0f} Wh"


def _ended(work: _Work, event: events.TransactionEnded) -> None:
    found = work.state.find_transaction(event.transaction_id)
    if found is None:
        text = f"stop for unknown transaction {event.transaction_id}"
        found = _adopt_stop(work, event)
        if found is None:
            work.records.append(
                OrphanKept(station_id=work.state.station_id, text=text, at=work.now)
            )
            work.tell("transaction_orphaned", None, reason=text)
            return
    session, transaction = found
    if not transaction.is_open and not transaction.estimated:
        return  # repeated: the first one counted
    for reading in event.readings:
        if transaction.started_at <= reading.at <= event.at and transaction.is_open:
            session = _count(work.state, session, reading)
    transaction = session.find(transaction.transaction_id) or transaction
    was_lost = transaction.estimated
    session = _close_transaction(
        session,
        replace(transaction, ended_at=None),
        at=event.at,
        rated_w=work.state.rated_w,
        register_wh=event.meter_stop_wh,
        reason=event.reason,
    )
    if session.open_transaction is None:
        session = replace(session, stop_reason=event.reason)
    if was_lost:
        session = session.with_anomaly(
            f"the stop of {transaction.transaction_id} arrived late"
        )
    work.save(session)
    if session.phase is SessionPhase.ENDED:
        return
    work.tell(
        "transaction_ended",
        session,
        transaction_id=transaction.transaction_id,
        energy_wh=round(session.meter.energy_wh),
        stop_reason=event.reason,
    )
    work.power()
    if session.open_transaction is None:
        _after_stop(work, session, event)


def _after_stop(work: _Work, session: Session, event: events.TransactionEnded) -> None:
    evse = work.state.evses.get(session.evse_id)
    is_present = evse is not None and evse.session_id == session.session_id
    if (
        evse is None
        or not is_present
        or event.reason == "EVDisconnected"
        or evse.status is ConnectorStatus.AVAILABLE
    ):
        _end(work, session, at=event.at)


def _adopt_stop(
    work: _Work, event: events.TransactionEnded
) -> tuple[Session, Transaction] | None:
    """A stop for id 0 or below belongs to the only transaction that is open (TX-01)."""
    if not _is_nameless(event.transaction_id):
        return None
    running = [
        (session, session.open_transaction)
        for session in work.state.open_sessions()
        if session.open_transaction is not None
    ]
    if len(running) != 1 or running[0][1] is None:
        return None
    session, transaction = running[0]
    if event.at < transaction.started_at:
        return None
    session = work.save(
        session.with_anomaly(f"stopped under the id {event.transaction_id}")
    )
    return session, transaction


def _is_nameless(transaction_id: TransactionId) -> bool:
    return transaction_id.startswith("-") or transaction_id in ("", "0")


def _close_transaction(
    session: Session,
    transaction: Transaction,
    *,
    at: datetime,
    rated_w: int,
    estimated: bool = False,
    register_wh: float | None = None,
    reason: str = "",
) -> Session:
    """Close one transaction and settle its energy."""
    session = _settle_energy(session, transaction, at, register_wh, rated_w)
    at = max(at, transaction.started_at)
    closed = replace(
        transaction,
        ended_at=at,
        meter_stop_wh=register_wh,
        reason=reason,
        estimated=estimated,
    )
    session = session.with_transaction(closed)
    if session.transactions[-1].transaction_id != closed.transaction_id:
        return session
    is_live = session.phase is not SessionPhase.ENDED
    return replace(
        session,
        meter=meter.idle(session.meter, at),
        phase=SessionPhase.FINISHED if is_live else session.phase,
        finished_at=at,
    )


def _settle_energy(
    session: Session,
    transaction: Transaction,
    at: datetime,
    register_wh: float | None,
    rated_w: int,
) -> Session:
    """Let the station's own difference of registers count, where it can be true.

    It cannot when it is negative, when the register was doubted in between, or when it
    is more than the outlet can give. Then what the samples added up to stays.
    """
    start_wh = transaction.meter_start_wh
    if register_wh is None or start_wh is None or register_wh < start_wh:
        return session
    taken_wh = register_wh - start_wh
    span_s = (at - transaction.started_at).total_seconds()
    if span_s >= 0 and taken_wh > meter.most_wh(rated_w, max(span_s, CLOCK_SLACK_S)):
        return session.with_anomaly(
            f"{taken_wh:.0f} Wh at a register of {register_wh:.0f} Wh is not plausible"
        )
    ids = [item.transaction_id for item in session.transactions]
    index = ids.index(transaction.transaction_id)
    later = session.transactions[index + 1 :]
    counted_wh = later[0].energy_before_wh if later else session.meter.energy_wh
    owed_wh = taken_wh - (counted_wh - transaction.energy_before_wh)
    if transaction.register_doubted or owed_wh == 0:
        return session
    settled = meter.settle(session.meter, owed_wh, register_wh, at)
    if later:
        account = session.meter
        settled = replace(account, energy_wh=settled.energy_wh, history=settled.history)
    shifted = tuple(
        replace(item, energy_before_wh=item.energy_before_wh + owed_wh) for item in later
    )
    known = session.transactions[: index + 1]
    return replace(session, meter=settled, transactions=(*known, *shifted))


# --- meter ----------------------------------------------------------------------


def _meter_sampled(
    state: StationState, event: events.MeterSampled, now: datetime
) -> Decision:
    """Take meter values into account: the hot path, so no helper object here."""
    session = _metered(state, event)
    if session is None:
        return Decision(state=state, is_new=False)
    running = session.open_transaction
    if session.phase is SessionPhase.ENDED or running is None:
        return _late_readings(state, session, event, now)
    after = session
    for reading in event.readings:
        after = _count(state, after, reading)
    if _is_arrival_news(after):
        work = _Work(state.with_session(after), now, after.session_id)
        work.save(_report_start_soc(work, after))
        if _is_power_news(session, after):
            work.power()
        return work.done(state)
    return Decision(
        state=changed(state, sessions={**state.sessions, after.session_id: after}),
        only_meter=after.anomalies is session.anomalies,
        records=(SessionSaved(session=after),)
        if after.anomalies is not session.anomalies
        else (),
        effects=(PowerChanged(),) if _is_power_news(session, after) else (),
    )


def _metered(state: StationState, event: events.MeterSampled) -> Session | None:
    """Find the session that readings belong to: by transaction, else by outlet."""
    if event.transaction_id is not None and not _is_nameless(event.transaction_id):
        here = state.session_at(event.evse_id) if event.evse_id is not None else None
        if here is not None and here.find(event.transaction_id) is not None:
            return here
        found = state.find_transaction(event.transaction_id)
        if found is not None:
            return found[0]
    if event.evse_id is None or event.evse_id == 0:
        opened = state.open_sessions()
        return opened[0] if len(opened) == 1 else None
    return state.session_at(event.evse_id)


def _count(state: StationState, session: Session, reading: meter.MeterReading) -> Session:
    running = session.open_transaction
    if running is not None and running.started_at - reading.at > LATE_READING:
        session = session.with_anomaly("meter values from before the start")
        reading = replace(reading, register_wh=None)
    account, anomaly = meter.add_reading(session.meter, reading, rated_w=state.rated_w)
    if anomaly is not None:
        session = session.with_anomaly(anomaly)
        if running is not None and not running.register_doubted and "fell" in anomaly:
            session = session.with_transaction(replace(running, register_doubted=True))
    return changed(session, meter=account)


def _is_arrival_news(session: Session) -> bool:
    return (
        not session.start_soc_reported
        and session.meter.soc_first is not None
        and session.match is MatchOutcome.UNIQUE
        and session.schedule_id is not None
    )


def _is_power_news(before: Session, after: Session) -> bool:
    old, new = before.meter.power_w or 0.0, after.meter.power_w or 0.0
    return abs(new - old) > max(2000.0, 0.2 * old)


def _late_readings(
    state: StationState, session: Session, event: events.MeterSampled, now: datetime
) -> Decision:
    """Readings without a running transaction: SoC and status only, no totals (C7)."""
    last = session.transactions[-1] if session.transactions else None
    if session.phase is SessionPhase.ENDED or last is not None:
        end = last.ended_at if last is not None and last.ended_at else now
        if event.readings and event.readings[-1].at - end > LATE_READING:
            work = _Work(state, now, session.session_id)
            work.save(session.with_anomaly("meter values long after the stop"))
            return work.done(state)
        return Decision(state=state, is_new=False)
    account = session.meter
    for reading in event.readings:
        account, _ = meter.add_reading(
            account, replace(reading, register_wh=None), rated_w=state.rated_w
        )
    work = _Work(state, now, session.session_id)
    work.save(_report_start_soc(work, replace(session, meter=account)))
    return work.done(state)


# --- time -----------------------------------------------------------------------


def _ticked(work: _Work, _: events.Ticked) -> None:
    for evse in list(work.state.evses.values()):
        session = work.state.session_at(evse.evse_id)
        if session is None:
            continue
        since = evse.available_since
        if since is not None and work.now - since >= AVAILABLE_GRACE:
            _end(work, session, at=since)
        elif _is_unplug_unseen(work, evse, session):
            _end(work, session, at=session.finished_at or work.now)
        else:
            reported = _report_start_soc(work, session)
            if reported is not session:
                work.save(reported)


def _is_unplug_unseen(work: _Work, evse: EvseState, session: Session) -> bool:
    """Whether a stop was followed by silence: the last status is older than the start.

    A station that keeps the cable says Finishing or Preparing around its stop.
    """
    if session.phase is not SessionPhase.FINISHED or session.finished_at is None:
        return False
    if not work.state.is_connected:
        return False
    last = session.transactions[-1] if session.transactions else None
    if last is None or evse.status is ConnectorStatus.FINISHING:
        return False
    stopped_at = max(session.finished_at, work.state.connected_at or work.now)
    is_stale = evse.status_at is None or evse.status_at <= session.finished_at
    return is_stale and work.now - stopped_at >= UNPLUG_UNSEEN


# --- reports --------------------------------------------------------------------


def _report_start_soc(
    work: _Work, session: Session, *, is_last_call: bool = False
) -> Session:
    """Owe ChargEye the arrival SoC, once per slot (contract section 6).

    When the station reports no SoC, the schedule's own estimate is confirmed after a
    wait: ChargEye then at least learns that the vehicle is plugged in.
    """
    if (
        session.start_soc_reported
        or session.match is not MatchOutcome.UNIQUE
        or session.vehicle_id is None
        or session.schedule_id is None
    ):
        return session
    soc = session.meter.soc_first
    if soc is None:
        waited = work.now - (session.started_at or work.now)
        if not is_last_call and waited < START_SOC_WAIT:
            return session
        soc = session.schedule_soc_percent
    if soc is None:
        return session
    work.records.append(
        OutboxAdded(
            destination=CHARGEYE,
            key=f"{session.session_id}:{session.schedule_id}:start-soc",
            session_id=session.session_id,
            report=StartSocReport(
                vehicle_id=session.vehicle_id,
                schedule_id=session.schedule_id,
                soc_percent=soc,
            ),
        )
    )
    return replace(session, start_soc_reported=True)


def _report_session(work: _Work, session: Session) -> None:
    """Owe ChargEye what was charged, once, at the end of the session."""
    if (
        session.match is not MatchOutcome.UNIQUE
        or session.vehicle_id is None
        or session.schedule_id is None
        or session.started_at is None
        or session.ended_at is None
    ):
        return
    first = session.transactions[0]
    last_end = session.transactions[-1].ended_at or session.ended_at
    work.records.append(
        OutboxAdded(
            destination=CHARGEYE,
            key=f"{session.session_id}:{session.schedule_id}:end",
            session_id=session.session_id,
            report=SessionReport(
                vehicle_id=session.vehicle_id,
                schedule_id=session.schedule_id,
                slots=session.meter.history,
                first_at=first.started_at,
                last_at=last_end,
                charging_started_at=first.started_at,
                charging_ended_at=last_end,
            ),
        )
    )


# --- helpers --------------------------------------------------------------------


def _evse(work: _Work, evse_id: EvseId, connector_id: ConnectorId) -> EvseState:
    known = work.state.evses.get(evse_id)
    return known or EvseState(evse_id=evse_id, connector_id=connector_id)


def _near(at: datetime | None, now: datetime) -> datetime:
    """Take the station's time for a plug if it is believable, else ours (CLK-05)."""
    if at is None or not now - timedelta(minutes=10) <= at <= now:
        return now
    return at


Step = Callable[[_Work, Any], TransactionId | None]  # type: ignore[explicit-any]

STEPS: dict[type, Step] = cast(
    "dict[type, Step]",
    {
        events.LinkOpened: _link_opened,
        events.LinkClosed: _link_closed,
        events.StationBooted: _booted,
        events.ConnectorChanged: _connector_changed,
        events.IdTokenPresented: _token,
        events.EvidenceReported: _evidence,
        events.TransactionStarted: _started,
        events.TransactionEnded: _ended,
        events.VehicleMatched: _matched,
        events.ScheduleBound: _bound,
        events.Ticked: _ticked,
        events.AnomalyNoted: _anomaly,
    },
)
