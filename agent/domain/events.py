"""Version-free facts from stations, clouds and the clock (architecture.md section 3).

Every event can be written to the journal and read back; replaying the journal gives
the same state. ``at`` is the station's own time where it gave a usable one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.domain.goal import ChargeGoal
from agent.domain.identity import Evidence, Match
from agent.domain.ids import (
    AccountId,
    ConnectorId,
    EvseId,
    ScheduleId,
    SessionId,
    TransactionId,
)
from agent.domain.meter import MeterReading
from agent.domain.soc import SocBattery, SocSource
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


class TransactionStep(StrEnum):
    """What a TransactionEvent of 2.x says of its transaction."""

    STARTED = "Started"
    UPDATED = "Updated"
    ENDED = "Ended"


class ChargingState(StrEnum):
    """Charging states of 2.x (ocpp-depot.md C3)."""

    EV_CONNECTED = "EVConnected"
    CHARGING = "Charging"
    SUSPENDED_EV = "SuspendedEV"
    SUSPENDED_EVSE = "SuspendedEVSE"
    IDLE = "Idle"

    @property
    def as_status(self) -> ConnectorStatus:
        """The state in the words of 1.6, so that no version shows a difference."""
        return _AS_STATUS[self]


_AS_STATUS = {
    ChargingState.EV_CONNECTED: ConnectorStatus.PREPARING,
    ChargingState.CHARGING: ConnectorStatus.CHARGING,
    ChargingState.SUSPENDED_EV: ConnectorStatus.SUSPENDED_EV,
    ChargingState.SUSPENDED_EVSE: ConnectorStatus.SUSPENDED_EVSE,
    ChargingState.IDLE: ConnectorStatus.FINISHING,
}


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


@value(kw_only=True)
class TransactionReported:
    """TransactionEvent of 2.x: one step of a transaction that the station numbered.

    ``evse_id`` and ``id_token`` come once per transaction at most; ``seq_no`` may have
    gaps, repeats and disorder; ``offline`` when it happened without a connection.
    """

    transaction_id: TransactionId
    step: TransactionStep
    at: datetime
    seq_no: int | None = None
    trigger: str = ""
    offline: bool = False
    evse_id: EvseId | None = None
    connector_id: ConnectorId | None = None
    charging_state: ChargingState | None = None
    reason: str = ""
    id_token: str = ""
    evidence: tuple[Evidence, ...] = ()
    readings: tuple[MeterReading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionChecked:
    """GetTransactionStatus answered; ``is_ongoing`` None when it did not say."""

    transaction_id: TransactionId
    is_ongoing: bool | None
    has_queue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvNeeds:
    """What a vehicle asked for by ISO 15118: hints for people and plan checks.

    ``tuples_max`` bounds the periods of the next schedule; W, Wh and percent.
    """

    at: datetime
    tuples_max: int | None = None
    departs_at: datetime | None = None
    energy_wh: float | None = None
    capacity_wh: float | None = None
    soc_percent: float | None = None
    target_soc_percent: float | None = None
    max_w: float | None = None
    transfer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargingNeedsReported:
    """NotifyEVChargingNeeds: the vehicle waits for a schedule."""

    evse_id: EvseId
    needs: EvNeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalLimitChanged:
    """NotifyChargingLimit or ClearedChargingLimit: another master limits the station.

    ``limit_w`` is the lowest it announced, W at the outlets; None: it let go. EVSE 0 is
    the whole station.
    """

    evse_id: EvseId
    source: str
    limit_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDoubted:
    """Something says that an outlet's limit may not hold: it is to be sent again."""

    evse_id: EvseId
    reason: str


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
class AccountChecked:
    """The finding of ``billing.verify`` for a session: its account, and if it is good.

    ``vin`` is the number that the account was looked up by.
    """

    session_id: SessionId
    account_id: AccountId | None
    is_good: bool
    reason: str
    vin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SocReported:
    """A SoC from elsewhere than the station, percent, as it was at ``at``.

    ``sigma`` is one standard deviation in points.
    """

    session_id: SessionId
    percent: float
    source: SocSource
    at: datetime
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryKnown:
    """How the SoC of a session's vehicle follows energy, as far as it is known now."""

    session_id: SessionId
    battery: SocBattery


@dataclass(frozen=True, slots=True, kw_only=True)
class CarLimitSeen:
    """The vehicle's own charge limit, percent, as read or as set."""

    session_id: SessionId
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalSet:
    """Somebody said how far a session is to charge; None takes the goal away."""

    session_id: SessionId
    goal: ChargeGoal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalReached:
    """A session came to its goal: it stays there, whatever is measured later."""

    session_id: SessionId
    how: str


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
    | TransactionReported
    | TransactionChecked
    | ChargingNeedsReported
    | ExternalLimitChanged
    | LimitDoubted
    | VehicleMatched
    | ScheduleBound
    | AccountChecked
    | SocReported
    | BatteryKnown
    | CarLimitSeen
    | GoalSet
    | GoalReached
    | Ticked
    | AnomalyNoted
)
