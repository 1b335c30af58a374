"""The payment account of a session, as billing found it."""

from __future__ import annotations

from agent.domain import events
from agent.domain.rules.work import Work
from agent.domain.session import SessionPhase
from agent.domain.values import changed


def account_checked(work: Work, event: events.AccountChecked) -> None:
    """Write down the account that a session charges on, and tell what is new.

    An account that was good once stays the session's when its link is gone: what was
    charged on it is still owed by it. A recognised other vehicle takes it away
    (``naming.vehicle_matched``).
    """
    session = work.state.sessions.get(event.session_id)
    if session is None or session.phase is SessionPhase.ENDED:
        return
    account_id, account_at = event.account_id, session.account_at
    if account_id is None and account_at is not None:
        account_id = session.account_id
    if account_id != session.account_id:
        account_at = None
    if event.is_good and account_at is None:
        account_at = work.now
    after = changed(
        session,
        account_id=account_id,
        account_ok=event.is_good,
        account_reason=event.reason,
        account_at=account_at,
        vin=session.vin or event.vin,
    )
    if after == session:
        return
    work.save(after)
    name = "account_verified" if event.is_good else "account_missing"
    work.tell(name, after, account=account_id, vin=event.vin, reason=event.reason)
    work.power()
