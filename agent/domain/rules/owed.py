"""What clouds are owed: ChargEye the SoC at arrival and what was charged, billing a bill.

A bill is owed in the same commit as the end of its session. What arrives later and
changes a fact of it (a stop that was lost) makes another that corrects it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.domain import session_soc
from agent.domain.effects import (
    BilledTransaction,
    BillingReport,
    OutboxAdded,
    SessionReport,
    StartSocReport,
)
from agent.domain.identity import MatchOutcome
from agent.domain.ids import SessionId
from agent.domain.rules.work import Work
from agent.domain.session import Session, SessionPhase
from agent.domain.station import StationState
from agent.domain.values import changed

START_SOC_WAIT = timedelta(seconds=120)
"""Time for the station to report SoC before the schedule's estimate is confirmed."""
CAR_SOC_WAIT = timedelta(seconds=300)
"""The same where the vehicle's own cloud is asked, 75 s after plug-in or recognition."""
CHARGEYE = "chargeye"
BILLING = "billing"


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
    soc = session_soc.soc_start(session)
    if soc is None:
        waited = work.now - (session.started_at or work.now)
        may_ask_car = session.battery is not None and session.battery.may_ask_car
        patience = CAR_SOC_WAIT if may_ask_car else START_SOC_WAIT
        if not is_last_call and waited < patience:
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


def report_bill(work: Work, session: Session) -> Session:
    """Owe billing a session that has ended; the first report's key is its id."""
    if session.ended_at is None:
        return session
    number = session.bills + 1
    name = session.session_id
    corrects = name if number > 1 else None
    work.records.append(
        OutboxAdded(
            destination=BILLING,
            key=name if number == 1 else f"{name}-{number}",
            session_id=name,
            report=bill_of(session, corrects=corrects),
        )
    )
    return changed(session, bills=number)


def correct_bills(work: Work, before: StationState) -> None:
    """Owe a correction for every session whose bill is out and no longer true."""
    for session_id in list(work.touched):
        after = work.state.sessions.get(session_id)
        if after is None or after.phase is not SessionPhase.ENDED or not after.bills:
            continue
        known = before.sessions.get(session_id)
        if known is None or known.bills != after.bills:
            continue  # billed in this very step
        if bill_of(known, corrects=None) != bill_of(after, corrects=None):
            work.save(report_bill(work, after))


def bill_of(session: Session, *, corrects: SessionId | None) -> BillingReport:
    """Write the bill of a session that has ended."""
    parts = tuple(
        BilledTransaction(
            transaction_id=item.transaction_id,
            started_at=item.started_at,
            ended_at=item.ended_at,
            meter_begin_wh=item.meter_start_wh,
            meter_end_wh=item.meter_stop_wh,
            reason=item.reason,
            is_estimated=item.estimated,
        )
        for item in session.transactions
    )
    ends = [item.ended_at for item in parts if item.ended_at is not None]
    meter = session.meter
    last = session_soc.soc_now(session, session.ended_at or session.plugged_at)
    return BillingReport(
        session_id=session.session_id,
        corrects=corrects,
        station_id=session.station_id,
        evse_id=session.evse_id,
        connector_id=session.connector_id,
        ocpp_version=session.ocpp_version,
        vehicle_id=session.vehicle_id,
        vin=session.vin,
        mac=session.mac,
        id_token=session.id_token,
        account_id=session.account_id,
        account_at=session.account_at,
        energy_wh=round(meter.energy_wh, 1),
        meter_begin_wh=parts[0].meter_begin_wh if parts else None,
        meter_end_wh=parts[-1].meter_end_wh if parts else None,
        is_estimated=any(item.is_estimated for item in parts),
        soc_start=session_soc.soc_start(session),
        soc_end=round(last.percent, 1) if last is not None else None,
        soc_source=last.source if last is not None else None,
        plugged_at=session.plugged_at,
        started_at=session.started_at,
        charging_ended_at=max(ends, default=None),
        ended_at=session.ended_at or session.plugged_at,
        stop_reason=session.stop_reason,
        transactions=parts,
    )
