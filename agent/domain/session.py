"""The record from plug-in to plug-out of one vehicle at one EVSE.

A session holds zero or more transactions. Everything here is a value; the rules by
which it changes are in ``agent/domain/rules``.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from agent.domain.events import EvNeeds
from agent.domain.goal import ChargeGoal
from agent.domain.identity import Evidence, MatchOutcome
from agent.domain.ids import (
    AccountId,
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
from agent.domain.soc import SocBattery, SocBook
from agent.domain.values import changed, value

ANOMALIES_MAX = 50
"""Anomalies kept per session; a station that makes more repeats itself."""


class SessionPhase(StrEnum):
    """Where a session is between plug and unplug."""

    PLUGGED = "plugged"
    CHARGING = "charging"
    FINISHED = "finished"
    ENDED = "ended"


SEQ_RANGES_MAX = 16
"""Ranges of sequence numbers kept per transaction; more disorder is not told apart."""

SeqRanges = tuple[tuple[int, int], ...]
"""Sequence numbers that arrived, as ranges in rising order."""


@value(kw_only=True)
class Transaction:
    """One OCPP transaction; ``estimated`` when the station never sent its end.

    Of 2.x: ``seen`` are the sequence numbers that arrived, ``start_seen`` is false
    while only later events did, ``is_doubted`` while only queued ones did, and
    ``last_event_at`` is the newest event's own time. In 2.x ``meter_start_at`` is when
    the register stood at ``meter_start_wh``.
    """

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
    seen: SeqRanges = ()
    start_seen: bool = True
    is_doubted: bool = False
    last_event_at: datetime | None = None
    meter_start_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether the station has not ended it yet."""
        return self.ended_at is None


@value(kw_only=True)
class Session:
    """See the module; times are aware UTC, energy Wh, SoC percent.

    ``account_id`` is the payment account that the vehicle is linked to,
    ``account_ok`` whether it may charge now (None before anybody looked),
    ``account_at`` when it was first found good; ``bills`` counts reports to billing.
    """

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
    needs: EvNeeds | None = None
    anomalies: tuple[str, ...] = ()
    account_id: AccountId | None = None
    account_ok: bool | None = None
    account_reason: str = ""
    account_at: datetime | None = None
    bills: int = 0
    soc_book: SocBook = field(default_factory=SocBook)
    battery: SocBattery | None = None
    goal: ChargeGoal | None = None
    goal_reached_at: datetime | None = None

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
        return changed(self, anomalies=(*self.anomalies, text))

    def with_transaction(self, newer: Transaction) -> Session:
        """Replace the transaction of the same id."""
        if self.transactions[-1].transaction_id == newer.transaction_id:
            return changed(self, transactions=(*self.transactions[:-1], newer))
        return changed(
            self,
            transactions=tuple(
                newer if item.transaction_id == newer.transaction_id else item
                for item in self.transactions
            ),
        )


def add_seq(seen: SeqRanges, seq_no: int) -> SeqRanges:
    """Add one sequence number; returns the same object when it was there."""
    if seen:
        first, last = seen[-1]
        if seq_no == last + 1:
            return (*seen[:-1], (first, seq_no))
    if any(low <= seq_no <= high for low, high in seen):
        return seen
    ranges = sorted([*seen, (seq_no, seq_no)])
    merged: list[tuple[int, int]] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged[-SEQ_RANGES_MAX:])


def missing_seqs(seen: SeqRanges) -> list[tuple[int, int]]:
    """List the ranges of numbers that never arrived, between the first and the last."""
    return [(before[1] + 1, after[0] - 1) for before, after in pairwise(seen)]
