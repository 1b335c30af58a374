"""What ChargEye is owed: the SoC at arrival, and what was charged at the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.domain.effects import (
    OutboxAdded,
    SessionReport,
    StartSocReport,
)
from agent.domain.identity import MatchOutcome
from agent.domain.rules.work import Work
from agent.domain.session import Session

START_SOC_WAIT = timedelta(seconds=120)
"""Time for the station to report SoC before the schedule's estimate is confirmed."""
CHARGEYE = "chargeye"


def report_start_soc(
    work: Work, session: Session, *, is_last_call: bool = False
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


def report_session(work: Work, session: Session) -> None:
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
