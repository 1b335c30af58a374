"""One decision in the making: what a step changes, owes and tells."""

from __future__ import annotations

from datetime import datetime, timedelta

from agent.domain.effects import (
    Decision,
    DecisionRecord,
    Effect,
    LogField,
    PowerChanged,
    SessionSaved,
    Told,
)
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    SessionId,
    TransactionId,
)
from agent.domain.session import Session
from agent.domain.station import EvseState, StationState


class Work:
    """A decision in the making; lives for one call of ``advance``."""

    __slots__ = ("effects", "now", "records", "session_id", "state", "touched")

    def __init__(self, state: StationState, now: datetime, session_id: SessionId) -> None:
        """Start from a state."""
        self.state = state
        self.now = now
        self.session_id = session_id
        self.touched: dict[SessionId, None] = {}
        self.records: list[DecisionRecord] = []
        self.effects: list[Effect] = []

    def save(self, session: Session) -> Session:
        """Put a session into the state; it will be stored."""
        self.state = self.state.with_session(session)
        self.touched[session.session_id] = None
        return session

    def tell(self, name: str, session: Session | None, **fields: LogField) -> None:
        """Add a line for the log, with the session's ids."""
        known: dict[str, LogField] = {"station_id": self.state.station_id}
        if session is not None:
            known["session_id"] = session.session_id
            known["evse_id"] = session.evse_id
            if session.vehicle_id is not None:
                known["vehicle_id"] = session.vehicle_id
        self.effects.append(Told(event=name, fields=known | fields))

    def power(self) -> None:
        """Let the power loop look, once."""
        if PowerChanged() not in self.effects:
            self.effects.append(PowerChanged())

    def done(
        self, before: StationState, transaction_id: TransactionId | None = None
    ) -> Decision:
        """Close the decision: what changed since ``before``."""
        saved = [
            SessionSaved(session=self.state.sessions[session_id])
            for session_id in self.touched
            if session_id in self.state.sessions
        ]
        return Decision(
            state=self.state,
            records=(*saved, *self.records),
            effects=tuple(self.effects),
            transaction_id=transaction_id,
            is_new=self.state is not before or bool(self.records),
        )


def evse_of(work: Work, evse_id: EvseId, connector_id: ConnectorId) -> EvseState:
    """An outlet as known, or a new one."""
    known = work.state.evses.get(evse_id)
    return known or EvseState(evse_id=evse_id, connector_id=connector_id)


def near(at: datetime | None, now: datetime) -> datetime:
    """Take the station's time for a plug if it is believable, else ours (CLK-05)."""
    if at is None or not now - timedelta(minutes=10) <= at <= now:
        return now
    return at
