"""Meter values: the hot path."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from agent.domain import events, meter
from agent.domain.effects import (
    Decision,
    PowerChanged,
    SessionSaved,
)
from agent.domain.identity import MatchOutcome
from agent.domain.rules.owed import report_start_soc
from agent.domain.rules.settling import is_nameless
from agent.domain.rules.work import Work
from agent.domain.session import Session, SessionPhase
from agent.domain.station import StationState
from agent.domain.values import changed

LATE_READING = timedelta(seconds=60)
"""A reading this long before a start or after a stop changes no total (C7)."""


def meter_sampled(
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
        after = count(state, after, reading)
    is_news = is_power_news(session, after)
    if is_arrival_news(after):
        work = Work(state.with_session(after), now, after.session_id)
        work.save(report_start_soc(work, after))
        if is_news:
            work.power()
        return work.done(state)
    state = changed(state, sessions={**state.sessions, after.session_id: after})
    if after.anomalies is session.anomalies and not is_news:
        return Decision(state=state, only_meter=True)
    return Decision(
        state=state,
        only_meter=after.anomalies is session.anomalies,
        records=(SessionSaved(session=after),)
        if after.anomalies is not session.anomalies
        else (),
        effects=(PowerChanged(),) if is_news else (),
    )


def _metered(state: StationState, event: events.MeterSampled) -> Session | None:
    """Find the session that readings belong to: by transaction, else by outlet."""
    transaction_id, evse_id = event.transaction_id, event.evse_id
    here = state.session_at(evse_id) if evse_id is not None else None
    if transaction_id is not None:
        if here is not None and here.find(transaction_id) is not None:
            return here
        named = not is_nameless(transaction_id)
        found = state.find_transaction(transaction_id) if named else None
        if found is not None:
            return found[0]
    if evse_id is None or evse_id == 0:
        opened = state.open_sessions()
        return opened[0] if len(opened) == 1 else None
    return here


def count(state: StationState, session: Session, reading: meter.MeterReading) -> Session:
    """Take one reading into a session's account."""
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


def is_arrival_news(session: Session) -> bool:
    """Whether the arrival SoC is known now and ChargEye was not told."""
    return (
        not session.start_soc_reported
        and session.meter.soc_first is not None
        and session.match is MatchOutcome.UNIQUE
        and session.schedule_id is not None
    )


def is_power_news(before: Session, after: Session) -> bool:
    """Whether the drawn power moved enough for the power loop to look."""
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
            work = Work(state, now, session.session_id)
            work.save(session.with_anomaly("meter values long after the stop"))
            return work.done(state)
        return Decision(state=state, is_new=False)
    account = session.meter
    for reading in event.readings:
        account, _ = meter.add_reading(
            account, replace(reading, register_wh=None), rated_w=state.rated_w
        )
    work = Work(state, now, session.session_id)
    work.save(report_start_soc(work, replace(session, meter=account)))
    return work.done(state)
