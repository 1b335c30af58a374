"""StartTransaction and StopTransaction of 1.6: repeats, queued ones, lost stops."""

from __future__ import annotations

from dataclasses import replace

from agent.domain import events, meter
from agent.domain.effects import (
    MatchWanted,
    OrphanKept,
)
from agent.domain.events import ConnectorStatus
from agent.domain.identity import Evidence, EvidenceKind
from agent.domain.ids import (
    TransactionId,
)
from agent.domain.rules.cable import end_session, open_session
from agent.domain.rules.metering import count
from agent.domain.rules.naming import claim
from agent.domain.rules.settling import close_transaction, is_nameless
from agent.domain.rules.work import Work, evse_of
from agent.domain.session import Session, SessionPhase, Transaction
from agent.domain.station import EvseState


def started(work: Work, event: events.TransactionStarted) -> TransactionId:
    """Open a transaction; the same start gets the same id, for ever."""
    repeated = work.state.find_key(event.key)
    if repeated is not None and (repeated.is_open or repeated.started_at == event.at):
        # A station whose clock stands still starts anew with an old key: only what is
        # still open, or began at this very time, is a repeat.
        return repeated.transaction_id
    evse = evse_of(work, event.evse_id, event.connector_id)
    work.state = work.state.with_evse(replace(evse, available_since=None))
    session = work.state.session_at(event.evse_id)
    if session is not None and _is_history(session, event):
        return _started_in_the_past(work, event)
    if session is not None:
        session = _make_room(work, session, event)
    if session is None:
        evse = evse_of(work, event.evse_id, event.connector_id)
        session = open_session(work, evse, at=event.at)
    transaction = Transaction(
        transaction_id=event.new_transaction_id,
        key=event.key,
        started_at=event.at,
        meter_start_wh=event.meter_start_wh,
        energy_before_wh=session.meter.energy_wh,
    )
    is_first = session.started_at is None
    gap = register_gap(evse, session, event)
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
    session = claim(work, session, event.id_token, event.evidence)
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


def _started_in_the_past(work: Work, event: events.TransactionStarted) -> TransactionId:
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
    work: Work, session: Session, event: events.TransactionStarted
) -> Session | None:
    """Settle what is open at the outlet; None when it was another vehicle's session."""
    running = session.open_transaction
    if running is not None:
        text = (
            f"transaction {running.transaction_id} was superseded by "
            f"{event.new_transaction_id}; its stop was lost"
        )
        session = close_transaction(
            session,
            running,
            at=event.at,
            rated_w=work.state.rated_w,
            estimated=True,
            register_wh=event.meter_start_wh,
        ).with_anomaly(text)
        work.save(session)
        work.tell("transaction_superseded", session, reason=text)
    if session.transactions and is_other_vehicle(session, event.evidence):
        end_session(work, session, at=event.at)
        return None
    return session


def is_other_vehicle(session: Session, evidence: tuple[Evidence, ...]) -> bool:
    """Whether the evidence names another address than the session's."""
    known = {item.value for item in session.evidence if item.kind is EvidenceKind.MAC}
    new = {item.value for item in evidence if item.kind is EvidenceKind.MAC}
    return bool(known and new and known.isdisjoint(new))


def register_gap(
    evse: EvseState, session: Session, event: events.TransactionStarted
) -> str | None:
    """Energy that passed between two transactions, or a meter that went back."""
    before = session.meter.register_wh or evse.register_wh
    if before is None or event.meter_start_wh is None or before == event.meter_start_wh:
        return None
    return f"meter stood at {before:.0f} Wh and starts at {event.meter_start_wh:.0f} Wh"


def ended(work: Work, event: events.TransactionEnded) -> None:
    """Close a transaction; a repeat changes nothing, a lost one is adopted."""
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
        known_at = session.meter.register_at
        is_news = known_at is None or reading.at > known_at
        is_inside = transaction.started_at <= reading.at <= event.at
        if is_news and is_inside and transaction.is_open:
            session = count(work.state, session, reading)
    transaction = session.find(transaction.transaction_id) or transaction
    was_lost = transaction.estimated
    session = close_transaction(
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


def _after_stop(work: Work, session: Session, event: events.TransactionEnded) -> None:
    evse = work.state.evses.get(session.evse_id)
    is_present = evse is not None and evse.session_id == session.session_id
    if (
        evse is None
        or not is_present
        or event.reason == "EVDisconnected"
        or evse.status is ConnectorStatus.AVAILABLE
    ):
        end_session(work, session, at=event.at)


def _adopt_stop(
    work: Work, event: events.TransactionEnded
) -> tuple[Session, Transaction] | None:
    """A stop for id 0 or below belongs to the only transaction that is open (TX-01)."""
    if not is_nameless(event.transaction_id):
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
