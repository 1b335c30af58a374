"""The record from plug-in to plug-out of one vehicle at one EVSE.

A session holds zero or more transactions. Everything here is a value; the rules by
which it changes are in ``agent/domain/rules``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from agent.domain.identity import Evidence, MatchOutcome
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    MacAddress,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.meter import MeterState
from agent.domain.values import value

ANOMALIES_MAX = 50
"""Anomalies kept per session; a station that makes more repeats itself."""


class SessionPhase(StrEnum):
    """Where a session is between plug and unplug."""

    PLUGGED = "plugged"
    CHARGING = "charging"
    FINISHED = "finished"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One OCPP transaction; ``estimated`` when the station never sent its end."""

    transaction_id: TransactionId
    key: str
    started_at: datetime
    meter_start_wh: float | None = None
    energy_before_wh: float = 0.0
    ended_at: datetime | None = None
    meter_stop_wh: float | None = None
    reason: str = ""
    estimated: bool = False
    register_doubted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the station has not ended it yet."""
        return self.ended_at is None


@value(kw_only=True)
class Session:
    """See the module; times are aware UTC, energy Wh, SoC percent."""

    session_id: SessionId
    station_id: StationId
    evse_id: EvseId
    connector_id: ConnectorId
    ocpp_version: str
    plugged_at: datetime
    phase: SessionPhase = SessionPhase.PLUGGED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ended_at: datetime | None = None
    id_token: str = ""
    evidence: tuple[Evidence, ...] = ()
    match: MatchOutcome = MatchOutcome.NONE
    match_reason: str = ""
    matched_at: datetime | None = None
    vehicle_id: VehicleId | None = None
    mac: MacAddress | None = None
    vin: str | None = None
    schedule_id: ScheduleId | None = None
    schedule_soc_percent: float | None = None
    transactions: tuple[Transaction, ...] = ()
    meter: MeterState = field(default_factory=MeterState)
    stop_reason: str = ""
    start_soc_reported: bool = False
    anomalies: tuple[str, ...] = ()

    @property
    def open_transaction(self) -> Transaction | None:
        """The transaction that runs now, if any."""
        last = self.transactions[-1] if self.transactions else None
        return last if last is not None and last.is_open else None

    def find(self, transaction_id: TransactionId) -> Transaction | None:
        """Find one of this session's transactions by id."""
        for item in self.transactions:
            if item.transaction_id == transaction_id:
                return item
        return None

    def with_anomaly(self, text: str) -> Session:
        """Remember something odd, once."""
        if text in self.anomalies or len(self.anomalies) >= ANOMALIES_MAX:
            return self
        return replace(self, anomalies=(*self.anomalies, text))

    def with_transaction(self, changed: Transaction) -> Session:
        """Replace the transaction of the same id."""
        return replace(
            self,
            transactions=tuple(
                changed if item.transaction_id == changed.transaction_id else item
                for item in self.transactions
            ),
        )
