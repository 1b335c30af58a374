"""Plug and unplug, as statuses, stops and silence show them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from agent.domain import events, meter, session_soc
from agent.domain.events import ConnectorStatus
from agent.domain.rules.naming import add_token, take_pending
from agent.domain.rules.owed import report_bill, report_session, report_start_soc
from agent.domain.rules.settling import close_transaction, with_gaps
from agent.domain.rules.work import Work, evse_of, near
from agent.domain.session import Session, SessionPhase
from agent.domain.station import EvseState

AVAILABLE_GRACE = timedelta(seconds=60)
"""A stop may follow an Available; within this time it wins (TX-06)."""
UNPLUG_UNSEEN = timedelta(seconds=15)
"""A stop that no status follows: after this the vehicle counts as gone."""


def connector_changed(work: Work, event: events.ConnectorChanged) -> None:
    """Take in a StatusNotification: an outlet fills, empties, or says nothing new."""
    if event.evse_id == 0:
        work.state = replace(work.state, station_status=event.status)
        return
    before = evse_of(work, event.evse_id, event.connector_id)
    session = work.state.session_at(event.evse_id)
    if (
        event.status is ConnectorStatus.OCCUPIED
        and session is not None
        and before.status.is_plugged
    ):
        return  # 2.x knows no more than that; its transaction events said it better
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
        open_session(work, evse, at=near(event.at, work.now))
    if not is_repeat:
        work.power()


def _is_ghost(evse: EvseState, session: Session | None) -> bool:
    """Whether a repeated Available is the first since the session began (TX-04)."""
    is_free = evse.status is ConnectorStatus.AVAILABLE
    return is_free and session is not None and evse.available_since is None


def _available(work: Work, evse: EvseState, session: Session | None) -> None:
    if session is None:
        return
    if session.open_transaction is None:
        end_session(work, session, at=work.now)
    elif evse.available_since is None:
        work.state = work.state.with_evse(replace(evse, available_since=work.now))


def open_session(work: Work, evse: EvseState, *, at: datetime) -> Session:
    """Open the record of a vehicle at an empty outlet, with the tokens that wait."""
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
    for waiting in take_pending(work, evse.evse_id):
        session = add_token(work, session, waiting.id_token, waiting.evidence)
    return session


def end_session(work: Work, session: Session, *, at: datetime) -> Session:
    """Close the record; the cable is out, or somebody else is in."""
    running = session.open_transaction
    if running is not None:
        session = close_transaction(
            session, running, at=at, rated_w=work.state.rated_w, estimated=True
        )
        session = session.with_anomaly(
            f"transaction {running.transaction_id} was never stopped by the station"
        )
    session = with_gaps(session)
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
    session = report_start_soc(work, session, is_last_call=True)
    report_session(work, session)
    session = report_bill(work, session)
    work.save(session)
    last = session_soc.soc_now(session, at)
    work.tell(
        "session_ended",
        session,
        energy_wh=round(session.meter.energy_wh),
        soc_end=round(last.percent, 1) if last is not None else None,
        stop_reason=session.stop_reason,
    )
    work.power()
    return session


def ticked(work: Work, _: events.Ticked) -> None:
    """End what grace periods and silence have ended."""
    for evse in list(work.state.evses.values()):
        session = work.state.session_at(evse.evse_id)
        if session is None:
            continue
        since = evse.available_since
        if since is not None and work.now - since >= AVAILABLE_GRACE:
            end_session(work, session, at=since)
        elif _is_unplug_unseen(work, evse, session):
            end_session(work, session, at=session.finished_at or work.now)
        else:
            reported = report_start_soc(work, session)
            if reported is not session:
                work.save(reported)


def _is_unplug_unseen(work: Work, evse: EvseState, session: Session) -> bool:
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
