"""One station as the agent knows it: identity, EVSEs, open and recent sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.domain.events import ConnectorStatus, TransactionReported
from agent.domain.identity import Evidence
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    SessionId,
    StationId,
    TransactionId,
)
from agent.domain.session import Session, SessionPhase, Transaction
from agent.domain.values import changed, value

RECENT_SESSIONS_MAX = 40
"""Ended sessions kept per station for late and queued messages (C4, TX-07)."""
EVSES_MAX = 64
"""Connectors of one station; a Kempower system has tens of outlets, not hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvseState:
    """One outlet: last reported state and its open session, if any."""

    evse_id: EvseId
    connector_id: ConnectorId
    status: ConnectorStatus = ConnectorStatus.UNKNOWN
    status_at: datetime | None = None
    error: str = ""
    session_id: SessionId | None = None
    available_since: datetime | None = None
    register_wh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingToken:
    """A token that came before its vehicle; ``evse_id`` only if the station said which."""

    id_token: str
    evidence: tuple[Evidence, ...]
    at: datetime
    evse_id: EvseId | None = None


@value(kw_only=True)
class HeldReport:
    """A step of a 2.x transaction that waits for the Started that must be near."""

    event: TransactionReported
    at: datetime


@value(kw_only=True)
class StationState:
    """Everything that a decision about this station's sessions may need.

    ``external_w``: limits of another master, W, by EVSE; EVSE 0 is the station.
    """

    station_id: StationId
    rated_w: int
    ocpp_version: str = ""
    is_connected: bool = False
    connected_at: datetime | None = None
    booted_at: datetime | None = None
    vendor: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    station_status: ConnectorStatus = ConnectorStatus.UNKNOWN
    evses: Mapping[EvseId, EvseState] = field(default_factory=dict)
    sessions: Mapping[SessionId, Session] = field(default_factory=dict)
    pending: tuple[PendingToken, ...] = ()
    held: tuple[HeldReport, ...] = ()
    external_w: Mapping[EvseId, float] = field(default_factory=dict)

    def session_at(self, evse_id: EvseId) -> Session | None:
        """Find the session that is open at an EVSE."""
        evse = self.evses.get(evse_id)
        if evse is None or evse.session_id is None:
            return None
        return self.sessions.get(evse.session_id)

    def open_sessions(self) -> list[Session]:
        """List sessions that hold an EVSE now."""
        found = (self.session_at(evse_id) for evse_id in self.evses)
        return [session for session in found if session is not None]

    def find_transaction(
        self, transaction_id: TransactionId
    ) -> tuple[Session, Transaction] | None:
        """Look a transaction up among this station's own sessions, newest first."""
        for session in reversed(self.sessions.values()):  # type: ignore[call-overload]
            found = session.find(transaction_id)
            if found is not None:
                return session, found
        return None

    def find_key(self, key: str) -> Transaction | None:
        """Look a repeated start up by its natural key."""
        for session in self.sessions.values():
            for item in session.transactions:
                if item.key == key:
                    return item
        return None

    def with_evse(self, evse: EvseState) -> StationState:
        """Replace or add an EVSE; at most ``EVSES_MAX`` are kept."""
        if evse.evse_id not in self.evses and len(self.evses) >= EVSES_MAX:
            return self
        return replace(self, evses={**self.evses, evse.evse_id: evse})

    def with_session(self, session: Session) -> StationState:
        """Replace or add a session; the oldest ended ones are let go."""
        sessions = {**self.sessions, session.session_id: session}
        if session.session_id not in self.sessions:
            ended = [
                item.session_id
                for item in sessions.values()
                if item.phase is SessionPhase.ENDED
            ]
            for session_id in ended[: max(len(ended) - RECENT_SESSIONS_MAX, 0)]:
                del sessions[session_id]
        return changed(self, sessions=sessions)
