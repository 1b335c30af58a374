"""TransactionEvent of 2.x: steps that the station numbers, in any order, with repeats.

Every step names its transaction, so disorder costs little: readings are taken by their
own time, states only when they are newer than the last. What cannot be understood before
the Started is there (an Ended, or a step that names no EVSE) is held for a short while;
after that it is taken as it is (charger-quirks.md V2-01, V2-02; ocpp-depot.md C3).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.domain import meter
from agent.domain.effects import Decision, PowerChanged
from agent.domain.events import (
    ChargingNeedsReported,
    ChargingState,
    ConnectorStatus,
    ExternalLimitChanged,
    TransactionChecked,
    TransactionEnded,
    TransactionReported,
    TransactionStarted,
    TransactionStep,
)
from agent.domain.ids import ConnectorId, EvseId
from agent.domain.rules.cable import end_session
from agent.domain.rules.metering import count, is_arrival_news, is_power_news
from agent.domain.rules.naming import claim
from agent.domain.rules.owed import report_start_soc
from agent.domain.rules.settling import with_gaps
from agent.domain.rules.transactions import ended, started
from agent.domain.rules.work import Work
from agent.domain.session import Session, SessionPhase, Transaction, add_seq
from agent.domain.station import HeldReport, StationState
from agent.domain.values import changed

HOLD = timedelta(seconds=60)
"""Steps that come before their Started wait this long for it."""
HELD_MAX = 64
"""Held steps per station; the oldest are taken as they are."""
UNPLUGGED = frozenset({"EVDeparted", "EVCommunicationLost"})
"""Triggers that show the cable out, whatever the reason says (C3)."""
RESUMED = "TxResumed"
"""A 2.1 transaction that survived a reboot: its profile may not have (E17.FR.15)."""
FIRST_CONNECTOR = ConnectorId(1)


def reported_quietly(state: StationState, event: TransactionReported) -> Decision | None:
    """Take an Updated that only carries readings: the hot path; None for the rest."""
    if event.step is not TransactionStep.UPDATED or event.evidence or event.id_token:
        return None
    found = state.find_transaction(event.transaction_id)
    if found is None:
        return None
    session, transaction = found
    if not _is_quiet(state, event, session, transaction):
        return None
    after = session
    for reading in event.readings:
        after = _count_in_order(state, after, reading)
    if is_arrival_news(after) or after.anomalies is not session.anomalies:
        return None
    running = after.transactions[-1]
    seen = running.seen if event.seq_no is None else add_seq(running.seen, event.seq_no)
    newer = changed(running, seen=seen, last_event_at=event.at)
    after = changed(after, transactions=(*after.transactions[:-1], newer))
    return Decision(
        state=changed(state, sessions={**state.sessions, after.session_id: after}),
        only_meter=True,
        effects=(PowerChanged(),) if is_power_news(session, after) else (),
    )


def _is_quiet(
    state: StationState,
    event: TransactionReported,
    session: Session,
    transaction: Transaction,
) -> bool:
    """Whether nothing but readings and a number can be new."""
    if session.transactions[-1] is not transaction or not transaction.is_open:
        return False
    if transaction.is_doubted or not transaction.start_seen or event.trigger == RESUMED:
        return False
    if transaction.meter_start_wh is None:
        return False  # the first register will be its start
    last_at = transaction.last_event_at
    if last_at is not None and event.at < last_at:
        return False
    if event.charging_state is None:
        return True
    evse = state.evses.get(session.evse_id)
    return evse is not None and evse.status is event.charging_state.as_status


def reported(work: Work, event: TransactionReported) -> None:
    """Take one step of a transaction, known or not."""
    found = work.state.find_transaction(event.transaction_id)
    if found is None:
        evse_id = _place(work.state, event)
        is_early = event.step is not TransactionStep.STARTED
        if evse_id is None or (is_early and event.step is TransactionStep.ENDED):
            _hold(work, event)
            return
        _begin(work, event, evse_id)
        _release(work, event)
        return
    session, transaction = found
    is_live = session.phase is not SessionPhase.ENDED
    if event.step is TransactionStep.ENDED and is_live and not transaction.start_seen:
        _hold(work, event)
        return
    if event.step is TransactionStep.STARTED and not transaction.start_seen:
        _begin_late(work, session, transaction, event)
        _release(work, event)
        return
    _go_on(work, event)


def ticked_holds(work: Work) -> None:
    """Take what was held long enough, as it is: one transaction at a time.

    A decision opens one session at most, so other transactions wait for the next tick.
    """
    due = [item for item in work.state.held if work.now - item.at >= HOLD]
    if not due:
        return
    first = due[0].event.transaction_id
    own = [item for item in work.state.held if item.event.transaction_id == first]
    rest = tuple(item for item in work.state.held if item not in own)
    work.state = changed(work.state, held=rest)
    for item in sorted(own, key=_order):
        _take_as_is(work, item.event)


def checked(work: Work, event: TransactionChecked) -> None:
    """Take the answer to GetTransactionStatus; alone it ends nothing that is plugged."""
    found = work.state.find_transaction(event.transaction_id)
    if found is None or not found[1].is_open:
        return
    session, transaction = found
    if event.is_ongoing is not False or event.has_queue:
        if transaction.is_doubted and event.is_ongoing:
            newer = changed(transaction, is_doubted=False)
            work.save(session.with_transaction(newer))
            work.power()
        return
    session = work.save(
        session.with_anomaly(
            f"the station says that transaction {transaction.transaction_id} is over"
        )
    )
    evse = work.state.evses.get(session.evse_id)
    if evse is not None and not evse.status.is_plugged:
        end_session(work, session, at=work.now)


def needs_reported(work: Work, event: ChargingNeedsReported) -> None:
    """Keep what the vehicle asked for; its SoC counts as a reading."""
    session = work.state.session_at(event.evse_id)
    if session is None:
        return
    needs = event.needs
    session = changed(session, needs=needs)
    if needs.soc_percent is not None:
        reading = meter.MeterReading(needs.at, soc_percent=needs.soc_percent)
        session = count(work.state, session, reading)
    work.save(report_start_soc(work, session))
    work.tell(
        "charging_needs_reported",
        session,
        departs_at=needs.departs_at.isoformat() if needs.departs_at else None,
        energy_wh=needs.energy_wh,
        soc=needs.soc_percent,
    )
    work.power()


def external_limit_changed(work: Work, event: ExternalLimitChanged) -> None:
    """Another master's limit lowers our own budget; it is never overruled (B2)."""
    limits = dict(work.state.external_w)
    if event.limit_w is None:
        if event.evse_id == 0:
            limits.clear()
        limits.pop(event.evse_id, None)
    else:
        limits[event.evse_id] = event.limit_w
    if limits == dict(work.state.external_w):
        return
    work.state = changed(work.state, external_w=limits)
    work.tell(
        "external_limit_changed",
        None,
        evse_id=event.evse_id,
        limit_w=event.limit_w,
        source=event.source,
    )
    work.power()


# --- beginning ----------------------------------------------------------------------


def _place(state: StationState, event: TransactionReported) -> EvseId | None:
    """Find the outlet: named, or the only one that it can be."""
    if event.evse_id is not None and event.evse_id > 0:
        return event.evse_id
    waiting = [
        session.evse_id
        for session in state.open_sessions()
        if session.open_transaction is None
    ]
    if len(waiting) == 1:
        return waiting[0]
    if len(state.evses) == 1 and not state.open_sessions():
        return next(iter(state.evses))
    return None


def _begin(work: Work, event: TransactionReported, evse_id: EvseId) -> None:
    """Open the transaction, by its Started or by the first step that came."""
    first = event.readings[0] if event.readings else None
    known = work.state.evses.get(evse_id)
    connector_id = event.connector_id or (known.connector_id if known else FIRST_CONNECTOR)
    start_wh = first.register_wh if first is not None else None
    started(
        work,
        TransactionStarted(
            evse_id=evse_id,
            connector_id=connector_id,
            new_transaction_id=event.transaction_id,
            key=f"2:{event.transaction_id}",
            at=event.at,
            id_token=event.id_token,
            meter_start_wh=start_wh,
            evidence=event.evidence,
        ),
    )
    found = work.state.find_transaction(event.transaction_id)
    if found is None:
        return
    session, transaction = found
    newer = changed(
        transaction,
        start_seen=event.step is TransactionStep.STARTED,
        is_doubted=event.offline,
        meter_start_at=first.at if start_wh is not None and first is not None else None,
    )
    work.save(session.with_transaction(newer))
    _go_on(work, event)


def _begin_late(
    work: Work, session: Session, transaction: Transaction, event: TransactionReported
) -> None:
    """Take the Started after later steps: it began earlier than we thought."""
    at = min(transaction.started_at, event.at)
    newer = changed(transaction, start_seen=True, started_at=at)
    session = session.with_transaction(newer)
    first = session.transactions[0] if session.transactions else newer
    session = changed(
        session,
        started_at=first.started_at,
        plugged_at=min(session.plugged_at, first.started_at),
    )
    work.save(session)
    _go_on(work, event)


# --- going on -----------------------------------------------------------------------


def _go_on(work: Work, event: TransactionReported) -> None:
    """Take the content of a step of a known transaction."""
    found = work.state.find_transaction(event.transaction_id)
    if found is None:
        return
    session, transaction = found
    is_newest = transaction.last_event_at is None or event.at >= transaction.last_event_at
    before = session
    if event.step is not TransactionStep.ENDED:
        session = _read(work.state, session, transaction, event)
    session = _noted(session, event, is_newest=is_newest)
    if session != before:
        session = work.save(report_start_soc(work, session))
        if is_power_news(before, session) or transaction.is_doubted:
            work.power()
    if event.id_token or event.evidence:
        session = claim(work, session, event.id_token, event.evidence)
    if event.step is TransactionStep.ENDED:
        _end(work, event)
        return
    if is_newest and event.charging_state is not None:
        _charging_state(work, session, event.charging_state)
    if event.trigger == RESUMED:
        work.tell("transaction_resumed", session, transaction_id=event.transaction_id)
        work.power()


def _read(
    state: StationState,
    session: Session,
    transaction: Transaction,
    event: TransactionReported,
) -> Session:
    """Take the readings of a step; after the end only their SoC is news."""
    for reading in event.readings:
        if transaction.is_open:
            session = _count_in_order(state, session, reading, event)
        elif transaction.ended_at is not None and reading.at <= transaction.ended_at:
            session = changed(session, meter=meter.take_soc(session.meter, reading))
    return session


def _noted(session: Session, event: TransactionReported, *, is_newest: bool) -> Session:
    """Note that a step arrived; a live step ends the doubt about a queued start."""
    transaction = session.find(event.transaction_id)
    if transaction is None:
        return session
    seen = transaction.seen
    if event.seq_no is not None:
        seen = add_seq(seen, event.seq_no)
    doubted = transaction.is_doubted and event.offline
    last_at = event.at if is_newest else transaction.last_event_at
    if (seen, doubted, last_at) == (
        transaction.seen,
        transaction.is_doubted,
        transaction.last_event_at,
    ):
        return session
    newer = changed(transaction, seen=seen, is_doubted=doubted, last_event_at=last_at)
    session = session.with_transaction(newer)
    return with_gaps(session) if session.phase is SessionPhase.ENDED else session


def _charging_state(work: Work, session: Session, said: ChargingState) -> None:
    """Show the state at the outlet; Idle means that the cable is out."""
    evse = work.state.evses.get(session.evse_id)
    if evse is None or evse.session_id != session.session_id:
        return
    if said is ChargingState.IDLE:
        if evse.available_since is None and evse.status.opens_session:
            newer = replace(
                evse,
                available_since=work.now,
                status=ConnectorStatus.FINISHING,
                status_at=work.now,
            )
            work.state = work.state.with_evse(newer)
            work.power()
        return
    if evse.status is not said.as_status:
        work.state = work.state.with_evse(
            replace(evse, status=said.as_status, status_at=work.now, available_since=None)
        )
        work.power()


def _count_in_order(
    state: StationState,
    session: Session,
    reading: meter.MeterReading,
    event: TransactionReported | None = None,
) -> Session:
    """Take a reading by its own time: a late one only moves the beginning."""
    account = session.meter
    is_late = account.register_at is not None and reading.at < account.register_at
    transaction = session.find(event.transaction_id) if event is not None else None
    if is_late and reading.register_wh is not None:
        if transaction is None:
            return session
        return _begin_earlier(state, session, transaction, reading)
    after = count(state, session, reading)
    if transaction is None or transaction.meter_start_wh is not None:
        return after
    begun = after.find(transaction.transaction_id)
    if reading.register_wh is None or begun is None:
        return after
    newer = changed(begun, meter_start_wh=reading.register_wh, meter_start_at=reading.at)
    return after.with_transaction(newer)


def _begin_earlier(
    state: StationState,
    session: Session,
    transaction: Transaction,
    reading: meter.MeterReading,
) -> Session:
    """Let an earlier register be the start, where the difference can be true."""
    start_wh, start_at = transaction.meter_start_wh, transaction.meter_start_at
    if start_wh is None or start_at is None or reading.register_wh is None:
        return session
    if reading.at >= start_at or not transaction.is_open:
        return session
    owed_wh = start_wh - reading.register_wh
    span_s = (start_at - reading.at).total_seconds()
    if not 0 <= owed_wh <= meter.most_wh(state.rated_w, span_s):
        return session
    newer = changed(
        transaction, meter_start_wh=reading.register_wh, meter_start_at=reading.at
    )
    account = meter.add_before(session.meter, owed_wh, reading.at, start_at)
    return changed(session.with_transaction(newer), meter=account)


# --- ending -------------------------------------------------------------------------


def _end(work: Work, event: TransactionReported) -> None:
    registers = [
        item.register_wh for item in event.readings if item.register_wh is not None
    ]
    is_out = event.trigger in UNPLUGGED or event.charging_state is ChargingState.IDLE
    reason = event.reason or ("EVDisconnected" if is_out else "Local")
    found = work.state.find_transaction(event.transaction_id)
    was_open = found is not None and found[1].is_open
    ended(
        work,
        TransactionEnded(
            transaction_id=event.transaction_id,
            at=event.at,
            meter_stop_wh=registers[-1] if registers else None,
            reason=reason,
            readings=event.readings,
        ),
    )
    if not was_open or found is None:
        return
    session = work.state.sessions.get(found[0].session_id)
    if session is None or session.phase is SessionPhase.ENDED:
        return
    if is_out:
        end_session(work, session, at=event.at)
        return
    evse = work.state.evses.get(session.evse_id)
    if evse is not None and evse.session_id == session.session_id:
        # The cable stays until a status says otherwise: 2.x has no Finishing of its own.
        work.state = work.state.with_evse(
            replace(evse, status=ConnectorStatus.FINISHING, status_at=work.now)
        )


# --- holding ------------------------------------------------------------------------


def _hold(work: Work, event: TransactionReported) -> None:
    if any(item.event == event for item in work.state.held):
        return
    held = (*work.state.held, HeldReport(event=event, at=work.now))
    work.state = changed(work.state, held=held[-HELD_MAX:])
    for item in held[:-HELD_MAX]:
        _take_as_is(work, item.event)


def _release(work: Work, event: TransactionReported) -> None:
    """Take the held steps of a transaction that has begun, in order of time."""
    own = [
        item
        for item in work.state.held
        if item.event.transaction_id == event.transaction_id
    ]
    if not own:
        return
    rest = tuple(item for item in work.state.held if item not in own)
    work.state = changed(work.state, held=rest)
    for item in sorted(own, key=_order):
        reported(work, item.event)


def _order(item: HeldReport) -> tuple[bool, float, int]:
    event = item.event
    is_last = event.step is TransactionStep.ENDED
    return is_last, event.at.timestamp(), event.seq_no or 0


def _take_as_is(work: Work, event: TransactionReported) -> None:
    """Take a step whose Started never came: the record begins with it."""
    found = work.state.find_transaction(event.transaction_id)
    if found is None:
        evse_id = _place(work.state, event) or EvseId(1)
        _begin(work, changed(event, step=TransactionStep.UPDATED), evse_id)
        found = work.state.find_transaction(event.transaction_id)
    if found is None:
        return
    session, transaction = found
    if not transaction.start_seen:
        text = f"the start of transaction {event.transaction_id} never came"
        newer = changed(transaction, start_seen=True)
        work.save(session.with_transaction(newer).with_anomaly(text))
    _go_on(work, event)
