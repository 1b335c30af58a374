"""Closing a transaction and settling its energy."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from agent.domain import meter
from agent.domain.ids import (
    TransactionId,
)
from agent.domain.session import (
    ANOMALIES_MAX,
    Session,
    SessionPhase,
    Transaction,
    missing_seqs,
)

_GAP = re.compile(r"events? \d+ (to \d+ )?of transaction .* never came$")
CLOCK_SLACK_S = 3600.0
"""An outlet's total is judged as of at least an hour: station clocks jump (TX-10)."""


def is_nameless(transaction_id: TransactionId) -> bool:
    """Whether a station sent no real transaction id (TX-01)."""
    return transaction_id.startswith("-") or transaction_id in ("", "0")


def close_transaction(
    session: Session,
    transaction: Transaction,
    *,
    at: datetime,
    rated_w: int,
    estimated: bool = False,
    register_wh: float | None = None,
    reason: str = "",
) -> Session:
    """Close one transaction and settle its energy."""
    session = settle_energy(session, transaction, at, register_wh, rated_w)
    at = max(at, transaction.started_at)
    closed = replace(
        transaction,
        ended_at=at,
        meter_stop_wh=register_wh,
        reason=reason,
        estimated=estimated,
    )
    session = session.with_transaction(closed)
    if session.transactions[-1].transaction_id != closed.transaction_id:
        return session
    is_live = session.phase is not SessionPhase.ENDED
    return replace(
        session,
        meter=meter.idle(session.meter, at),
        phase=SessionPhase.FINISHED if is_live else session.phase,
        finished_at=at,
    )


def settle_energy(
    session: Session,
    transaction: Transaction,
    at: datetime,
    register_wh: float | None,
    rated_w: int,
) -> Session:
    """Let the station's own difference of registers count, where it can be true.

    It cannot when it is negative, when the register was doubted in between, or when it
    is more than the outlet can give. Then what the samples added up to stays.
    """
    start_wh = transaction.meter_start_wh
    if register_wh is None or start_wh is None or register_wh < start_wh:
        return session
    taken_wh = register_wh - start_wh
    span_s = (at - transaction.started_at).total_seconds()
    if span_s >= 0 and taken_wh > meter.most_wh(rated_w, max(span_s, CLOCK_SLACK_S)):
        return session.with_anomaly(
            f"{taken_wh:.0f} Wh at a register of {register_wh:.0f} Wh is not plausible"
        )
    ids = [item.transaction_id for item in session.transactions]
    index = ids.index(transaction.transaction_id)
    later = session.transactions[index + 1 :]
    counted_wh = later[0].energy_before_wh if later else session.meter.energy_wh
    owed_wh = taken_wh - (counted_wh - transaction.energy_before_wh)
    if transaction.register_doubted or owed_wh == 0:
        return session
    settled = meter.settle(session.meter, owed_wh, register_wh, at)
    if later:
        account = session.meter
        settled = replace(account, energy_wh=settled.energy_wh, history=settled.history)
    shifted = tuple(
        replace(item, energy_before_wh=item.energy_before_wh + owed_wh) for item in later
    )
    known = session.transactions[: index + 1]
    return replace(session, meter=settled, transactions=(*known, *shifted))


def with_gaps(session: Session) -> Session:
    """Name the steps of 2.x transactions that never arrived (faults.md C5).

    What was named before and has arrived since is taken back.
    """
    gaps = tuple(
        f"{_shown(low, high)} of transaction {item.transaction_id} never came"
        for item in session.transactions
        for low, high in missing_seqs(item.seen)
    )
    others = tuple(text for text in session.anomalies if not _GAP.match(text))
    if (*others, *gaps) == session.anomalies:
        return session
    return replace(session, anomalies=(*others, *gaps)[:ANOMALIES_MAX])


def _shown(low: int, high: int) -> str:
    return f"event {low}" if low == high else f"events {low} to {high}"
