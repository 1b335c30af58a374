"""What a decision asks of the shell: rows to commit first, then things to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from agent.domain.ids import (
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


Report = StartSocReport | SessionReport


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
