"""Version-free facts from stations, clouds and the clock (architecture.md section 3).

Every event can be written to the journal and read back; replaying the journal gives
the same state. ``at`` is the station's own time where it gave a usable one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.domain.identity import Evidence, Match
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    ScheduleId,
    SessionId,
    TransactionId,
)
from agent.domain.meter import MeterReading
from agent.domain.values import value


class ConnectorStatus(StrEnum):
    """States of a connector in all versions; ``OCCUPIED`` is 2.x only."""

    AVAILABLE = "Available"
    PREPARING = "Preparing"
    CHARGING = "Charging"
    SUSPENDED_EV = "SuspendedEV"
    SUSPENDED_EVSE = "SuspendedEVSE"
    FINISHING = "Finishing"
    RESERVED = "Reserved"
    UNAVAILABLE = "Unavailable"
    FAULTED = "Faulted"
    OCCUPIED = "Occupied"
    UNKNOWN = "Unknown"

    @property
    def opens_session(self) -> bool:
        """Whether this state shows a vehicle that is plugged in to charge."""
        return self in _OPENING

    @property
    def is_plugged(self) -> bool:
        """Whether a cable is in a vehicle."""
        return self in _OPENING or self is ConnectorStatus.FINISHING


_OPENING = frozenset(
    {
        ConnectorStatus.PREPARING,
        ConnectorStatus.CHARGING,
        ConnectorStatus.SUSPENDED_EV,
        ConnectorStatus.SUSPENDED_EVSE,
        ConnectorStatus.OCCUPIED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOpened:
    """A station connected."""

    ocpp_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClosed:
    """The connection of a station ended."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationBooted:
    """BootNotification: who the station says it is."""

    vendor: str
    model: str
    serial: str = ""
    firmware: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorChanged:
    """StatusNotification; EVSE 0 is the whole station."""

    evse_id: EvseId
    connector_id: ConnectorId
    status: ConnectorStatus
    at: datetime | None = None
    error: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTokenPresented:
    """Authorize: a token, tied to an EVSE only if the station said which."""

    id_token: str
    evse_id: EvseId | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReported:
    """A hint from DataTransfer or another carrier (late MAC, EV-11)."""

    evidence: tuple[Evidence, ...]
    evse_id: EvseId | None = None
    soc_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionStarted:
    """StartTransaction, or TransactionEvent Started.

    ``new_transaction_id`` is what the transaction is called unless it is a repeat:
    ours in 1.6, the station's in 2.x. ``key`` is equal for repeats of the same start.
    """

    evse_id: EvseId
    connector_id: ConnectorId
    new_transaction_id: TransactionId
    key: str
    at: datetime
    id_token: str = ""
    meter_start_wh: float | None = None
    evidence: tuple[Evidence, ...] = ()


@value(kw_only=True)
class MeterSampled:
    """MeterValues: readings in order of time, oldest first."""

    readings: tuple[MeterReading, ...]
    evse_id: EvseId | None = None
    transaction_id: TransactionId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionEnded:
    """StopTransaction, or TransactionEvent Ended."""

    transaction_id: TransactionId
    at: datetime
    meter_stop_wh: float | None = None
    reason: str = "Local"
    id_token: str = ""
    readings: tuple[MeterReading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleMatched:
    """The finding of ``identity.match_vehicle`` for a session."""

    session_id: SessionId
    match: Match
    vin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleBound:
    """The slot that a session's vehicle is in, or None when there is none.

    ``start_soc_percent`` is the cloud's own estimate.
    """

    session_id: SessionId
    schedule_id: ScheduleId | None
    start_soc_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """Time passed; grace periods may be over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyNoted:
    """Something odd about a message, worth keeping with the session if there is one."""

    text: str
    evse_id: EvseId | None = None


Event = (
    LinkOpened
    | LinkClosed
    | StationBooted
    | ConnectorChanged
    | IdTokenPresented
    | EvidenceReported
    | TransactionStarted
    | MeterSampled
    | TransactionEnded
    | VehicleMatched
    | ScheduleBound
    | Ticked
    | AnomalyNoted
)
