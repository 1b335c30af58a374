"""How full a vehicle is and how far it is to charge, as told by others than its station."""

from __future__ import annotations

from agent.domain import events, session_soc, soc
from agent.domain.ids import SessionId
from agent.domain.rules.owed import report_start_soc
from agent.domain.rules.work import Work
from agent.domain.session import Session, SessionPhase
from agent.domain.soc import SocAnchor
from agent.domain.values import changed

CORRECTED_POINTS = 3.0
"""A measurement that moves the SoC by more is told: plans were made with the old one."""


def _live(work: Work, session_id: SessionId) -> Session | None:
    session = work.state.sessions.get(session_id)
    if session is None or session.phase is SessionPhase.ENDED:
        return None
    return session


def soc_reported(work: Work, event: events.SocReported) -> None:
    """Take a measurement from elsewhere into a session's book."""
    session = _live(work, event.session_id)
    if session is None or not 0 <= event.percent <= soc.FULL_SOC:
        return
    anchor = SocAnchor(
        percent=event.percent,
        energy_wh=soc.energy_at(session.meter, event.at),
        at=event.at,
        source=event.source,
        sigma=event.sigma,
    )
    before = session_soc.soc_now(session, work.now)
    book = soc.take(session.soc_book, anchor, session.battery)
    if book is session.soc_book:
        return
    session = work.save(changed(session, soc_book=book))
    after = session_soc.soc_now(session, work.now)
    if before is not None and after is not None:
        moved = after.percent - before.percent
        if abs(moved) > CORRECTED_POINTS:
            work.tell(
                "soc_corrected",
                session,
                soc=round(after.percent, 1),
                moved=round(moved, 1),
                source=event.source,
            )
    reported = report_start_soc(work, session)
    if reported is not session:
        work.save(reported)
    work.power()


def battery_known(work: Work, event: events.BatteryKnown) -> None:
    """Write down how the SoC of this vehicle follows energy."""
    session = _live(work, event.session_id)
    if session is not None and session.battery != event.battery:
        work.save(changed(session, battery=event.battery))


def car_limit_seen(work: Work, event: events.CarLimitSeen) -> None:
    """Write down the vehicle's own charge limit: no energy brings its SoC above it."""
    session = _live(work, event.session_id)
    if session is None or session.soc_book.ceiling == event.percent:
        return
    book = changed(session.soc_book, ceiling=event.percent)
    work.save(changed(session, soc_book=book))


def goal_set(work: Work, event: events.GoalSet) -> None:
    """Write down how far a session is to charge."""
    session = _live(work, event.session_id)
    if session is None or session.goal == event.goal:
        return
    session = work.save(changed(session, goal=event.goal, goal_reached_at=None))
    goal = event.goal
    work.tell(
        "charge_goal_set",
        session,
        goal=goal.words if goal is not None else None,
        source=goal.source if goal is not None else None,
    )
    work.power()


def goal_reached(work: Work, event: events.GoalReached) -> None:
    """Write down that a session came to its goal."""
    session = _live(work, event.session_id)
    if session is None or session.goal is None or session.goal_reached_at is not None:
        return
    session = work.save(changed(session, goal_reached_at=work.now))
    work.tell("charge_goal_reached", session, reason=event.how)
    work.power()
