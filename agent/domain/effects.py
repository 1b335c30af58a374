"""What a decision asks of the shell: rows to commit first, then things to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

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
from agent.domain.meter import HistorySlot
from agent.domain.session import Session
from agent.domain.station import StationState
from agent.domain.values import value


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSocReport:
    """Owed to ChargEye: the SoC at which a vehicle arrived, percent."""

    vehicle_id: VehicleId
    schedule_id: ScheduleId
    soc_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """Owed to ChargEye: what was charged in a slot, as measured."""

    vehicle_id: VehicleId
    schedule_id: ScheduleId
    slots: tuple[HistorySlot, ...]
    first_at: datetime
    last_at: datetime
    charging_started_at: datetime | None
    charging_ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledTransaction:
    """One OCPP transaction in a bill; registers in Wh, None where none was sent.

    ``is_estimated`` when its stop never came: its end is what the agent knows.
    """

    transaction_id: TransactionId
    started_at: datetime
    ended_at: datetime | None
    meter_begin_wh: float | None
    meter_end_wh: float | None
    reason: str
    is_estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingReport:
    """Owed to billing: a finished session, by the station's meter; Wh and percent.

    ``corrects`` names the session whose earlier report this one replaces. Without an
    account ``account_id`` is None; ``account_at`` is when it was first found good.
    """

    session_id: SessionId
    corrects: SessionId | None
    station_id: StationId
    evse_id: EvseId
    connector_id: ConnectorId
    ocpp_version: str
    vehicle_id: VehicleId | None
    vin: str | None
    mac: MacAddress | None
    id_token: str
    account_id: AccountId | None
    account_at: datetime | None
    energy_wh: float
    meter_begin_wh: float | None
    meter_end_wh: float | None
    is_estimated: bool
    soc_start: float | None
    soc_end: float | None
    soc_source: str | None
    plugged_at: datetime
    started_at: datetime | None
    charging_ended_at: datetime | None
    ended_at: datetime
    stop_reason: str
    transactions: tuple[BilledTransaction, ...] = ()


FleetReport = StartSocReport | SessionReport
"""What ChargEye is told."""
Report = FleetReport | BillingReport


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxAdded:
    """A message owed to a cloud; ``key`` makes a repeat harmless."""

    destination: str
    key: str
    session_id: SessionId
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSaved:
    """The session as it is now."""

    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSeen:
    """An address that no vehicle has: a candidate for enrolment."""

    mac: MacAddress
    station_id: StationId
    session_id: SessionId
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanKept:
    """A message about a transaction that the agent does not know."""

    station_id: StationId
    text: str
    at: datetime


DecisionRecord = OutboxAdded | SessionSaved | CandidateSeen | OrphanKept


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchWanted:
    """The evidence of a session changed: match it again."""

    session_id: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerChanged:
    """Something that a limit depends on changed: let the executor look."""


LogField = str | int | float | bool | None | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One line for the log; ``event`` is a name of agent/host/events.py."""

    event: str
    fields: dict[str, LogField] = field(default_factory=dict)


Effect = MatchWanted | PowerChanged | Told


@value(kw_only=True)
class Decision:
    """New state, rows to commit, and what to do after the commit.

    ``transaction_id`` answers a TransactionStarted; ``is_new`` is false when nothing
    changed and nothing needs to be stored.
    """

    state: StationState
    records: tuple[DecisionRecord, ...] = ()
    effects: tuple[Effect, ...] = ()
    transaction_id: TransactionId | None = None
    is_new: bool = True
    only_meter: bool = False
