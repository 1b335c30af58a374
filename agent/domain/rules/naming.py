"""Evidence about the vehicle: tokens, hints, matches, slots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.domain import events, meter
from agent.domain.effects import (
    CandidateSeen,
    MatchWanted,
)
from agent.domain.identity import Evidence, MatchOutcome, add_evidence
from agent.domain.ids import (
    EvseId,
    MacAddress,
)
from agent.domain.rules.owed import report_start_soc
from agent.domain.rules.work import Work
from agent.domain.session import Session, SessionPhase
from agent.domain.soc import SocBook
from agent.domain.station import PendingToken
from agent.domain.values import changed

TOKEN_WAIT = timedelta(seconds=120)
"""A token presented before the plug waits this long for its vehicle."""
GUESSED = "Authorize"
"""Source of evidence that the station did not tie to an outlet."""
TOKENS_MAX = 8
"""Tokens waiting per station."""


def token_presented(work: Work, event: events.IdTokenPresented) -> None:
    """Give a token to its outlet, or keep it until the vehicle is plugged."""
    session = _session_for_token(work, event.evse_id)
    if session is not None:
        add_token(work, session, event.id_token, event.evidence)
        return
    keep_pending(work, event.id_token, event.evidence, event.evse_id)


def _session_for_token(work: Work, evse_id: EvseId | None) -> Session | None:
    """Find the outlet of a token: named, or the only one that waits (A1)."""
    if evse_id:
        return work.state.session_at(evse_id)
    opened = work.state.open_sessions()
    waiting = [item for item in opened if item.open_transaction is None]
    # In 2.x a transaction may begin at the plug, before anybody is authorised.
    waiting = waiting or [item for item in opened if not item.evidence]
    return waiting[0] if len(waiting) == 1 else None


def evidence_reported(work: Work, event: events.EvidenceReported) -> None:
    """Give a hint about a vehicle to its session."""
    if event.evse_id:
        session = work.state.session_at(event.evse_id)
    else:
        opened = work.state.open_sessions()
        session = opened[0] if len(opened) == 1 else None
    if session is None:
        keep_pending(work, "", event.evidence, event.evse_id)
        return
    if event.soc_percent is not None:
        reading = meter.MeterReading(work.now, soc_percent=event.soc_percent)
        account, _ = meter.add_reading(session.meter, reading, rated_w=work.state.rated_w)
        session = work.save(replace(session, meter=account))
        session = work.save(report_start_soc(work, session))
    add_token(work, session, "", event.evidence)


def keep_pending(
    work: Work, id_token: str, evidence: tuple[Evidence, ...], evse_id: EvseId | None
) -> None:
    """Keep what came before its vehicle."""
    waiting = PendingToken(
        id_token=id_token, evidence=evidence, at=work.now, evse_id=evse_id or None
    )
    pending = (*work.state.pending, waiting)[-TOKENS_MAX:]
    work.state = replace(work.state, pending=pending)


def take_pending(work: Work, evse_id: EvseId) -> list[PendingToken]:
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


def add_token(
    work: Work, session: Session, id_token: str, evidence: tuple[Evidence, ...]
) -> Session:
    """Add a token and its evidence to a session."""
    merged = add_evidence(session.evidence, evidence)
    changed = replace(session, evidence=merged, id_token=session.id_token or id_token)
    if changed == session:
        return session
    work.save(changed)
    if merged != session.evidence:
        work.effects.append(MatchWanted(session_id=session.session_id))
    return changed


def claim(
    work: Work, session: Session, id_token: str, evidence: tuple[Evidence, ...]
) -> Session:
    """Add a token that the station tied to this outlet, and take back wrong guesses.

    An Authorize does not say where; its token was given to the outlet that seemed to
    wait, or kept for the next one. Now it is known where it belongs (A1).
    """
    values = {(item.kind, item.value) for item in evidence if item.kind.is_strong}
    if id_token or values:
        pending = tuple(
            item
            for item in work.state.pending
            if item.id_token != id_token
            and not any((e.kind, e.value) in values for e in item.evidence)
        )
        if pending != work.state.pending:
            work.state = changed(work.state, pending=pending)
    for other in work.state.open_sessions():
        if other.session_id == session.session_id:
            continue
        kept = tuple(
            item
            for item in other.evidence
            if item.source != GUESSED or (item.kind, item.value) not in values
        )
        if kept != other.evidence:
            text = "" if other.id_token == id_token else other.id_token
            work.save(replace(other, evidence=kept, id_token=text))
            work.effects.append(MatchWanted(session_id=other.session_id))
    return add_token(work, session, id_token, evidence)


def vehicle_matched(work: Work, event: events.VehicleMatched) -> None:
    """Write down which vehicle this is."""
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
        evidence=add_evidence(session.evidence, found.evidence),
        vehicle_id=found.vehicle_id,
        mac=found.mac,
        vin=event.vin or (session.vin if keeps_slot else None),
        account_id=session.account_id if keeps_slot else None,
        account_at=session.account_at if keeps_slot else None,
        soc_book=session.soc_book if keeps_slot else SocBook(),
        battery=session.battery if keeps_slot else None,
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


def _candidate(work: Work, session: Session, mac: MacAddress) -> CandidateSeen:
    return CandidateSeen(
        mac=mac,
        station_id=work.state.station_id,
        session_id=session.session_id,
        at=work.now,
    )


def schedule_bound(work: Work, event: events.ScheduleBound) -> None:
    """Write down the slot of the session's vehicle."""
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
    work.save(report_start_soc(work, session))
    work.power()
