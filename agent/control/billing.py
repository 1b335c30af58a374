"""Billing in the running depot: a session's account, and what it takes from its limit.

Reads the depot; the only memory is whose goal was reached, kept in ``depot.grants``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog

from agent.control import goals
from agent.control.depot import Depot
from agent.control.wishes import Wish
from agent.domain import billing, session_soc
from agent.domain.billing import Ceiling, Grant, Standing
from agent.domain.capability import ProfileForm
from agent.domain.curve import constant, lower_of
from agent.domain.events import AccountChecked
from agent.domain.ids import SessionId
from agent.domain.session import Session

log = structlog.get_logger()

SOURCE = "billing"
"""What ``explain`` names as the source of the limit of a vehicle without account."""
GRANTS_MAX = 2000
"""Sessions whose last grant is remembered; the oldest go first."""


def standing(depot: Depot, session: Session, now: datetime) -> Standing | None:
    """Tell how a session stands with its account; None where no accounts are kept."""
    rules = depot.billing
    if rules is None:
        return None
    vehicle = depot.registry.get(session.vehicle_id) if session.vehicle_id else None
    return billing.verify(rules.book, session, vehicle, now)


def checked(depot: Depot, session: Session, now: datetime) -> AccountChecked | None:
    """Tell what is new about a session's account; None when nothing is.

    A session of which nothing is known yet is left in peace until it wants power.
    """
    if not session.evidence and session.open_transaction is None:
        return None
    found = standing(depot, session, now)
    if found is None:
        return None
    account_id = found.account.account_id if found.account is not None else None
    is_linked = account_id is None or account_id == session.account_id
    is_same = (session.account_ok, session.account_reason) == (found.is_good, found.reason)
    has_vin = session.vin is not None or found.vin is None
    if is_linked and is_same and has_vin:
        return None
    return AccountChecked(
        session_id=session.session_id,
        account_id=account_id,
        is_good=found.is_good,
        reason=found.reason,
        vin=found.vin,
    )


def granted(
    depot: Depot, session: Session, asked: Wish, form: ProfileForm, now: datetime
) -> Wish:
    """Put what billing leaves of a limit into a wish, as its last rule."""
    rules, found = depot.billing, standing(depot, session, now)
    if rules is None or found is None:
        return asked
    before = depot.grants.get(session.session_id)
    given = billing.grant(
        rules,
        session,
        found,
        now,
        soc_percent=_soc(session, now),
        was_reached=before is not None and before.is_goal,
    )
    _remember(depot, session, before, given)
    if given is None:
        return asked
    window = asked.window
    hold_w = window.hold_w
    if given.ceiling is Ceiling.NOTHING and form.zero_allowed:
        # Whether it wakes up again does not count: nobody pays for more.
        line, words = constant(0.0), f"{given.words}: it gets nothing"
        window = replace(window, can_pause=True)
    else:
        line = lower_of([asked.line, constant(hold_w)], int(now.timestamp()))
        words = f"{given.words}: it gets {hold_w / 1000:.1f} kW, the least it can have"
    source = goals.SOURCE if given.is_goal else SOURCE
    return replace(
        asked, line=line, window=window, source=source, rules=(*asked.rules, words)
    )


def _soc(session: Session, now: datetime) -> float | None:
    """The best that is known of the battery, percent; a plan's guess ends nothing."""
    known = session_soc.soc_now(session, now)
    return known.percent if known is not None and known.measured_at is not None else None


def _remember(
    depot: Depot, session: Session, before: Grant | None, given: Grant | None
) -> None:
    if given == before:
        return
    session_id: SessionId = session.session_id
    if given is None:
        depot.grants.pop(session_id, None)
        return
    if session_id not in depot.grants and len(depot.grants) >= GRANTS_MAX:
        depot.grants.pop(next(iter(depot.grants)))
    depot.grants[session_id] = given
    was_goal = before is not None and before.is_goal
    if given.is_goal and not was_goal:
        log.info(
            "charge_goal_reached",
            station_id=session.station_id,
            evse_id=session.evse_id,
            session_id=session_id,
            vehicle_id=session.vehicle_id,
            account=session.account_id,
            reason=given.words,
        )
