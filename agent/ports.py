"""What control needs of the world, as Protocols, and the words that cross them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Protocol

from agent.domain.capability import Capabilities, RateUnit
from agent.domain.curve import Curve
from agent.domain.effects import DecisionRecord, FleetReport, Report
from agent.domain.events import Event
from agent.domain.identity import Vehicle
from agent.domain.ids import (
    EvseId,
    MacAddress,
    Outlet,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.ladder import Learned
from agent.domain.plan import Schedule
from agent.domain.profile import ChargingProfile
from agent.domain.reconcile import OutletPower
from agent.domain.session import Session
from agent.domain.station import StationState
from agent.domain.values import value


class Clock(Protocol):
    """Time as the agent lives it; a demo night runs faster than the network does."""

    def now(self) -> datetime:
        """Tell the time, aware UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of the same clock."""
        ...


class Ids(Protocol):
    """Chance, in one place, so that a seed can replay it."""

    def session_id(self, now: datetime) -> SessionId:
        """Make a new id that sorts by time."""
        ...

    def chance(self) -> float:
        """Draw a number in [0, 1)."""
        ...


# --- store ------------------------------------------------------------------------


@value(kw_only=True)
class JournalRow:
    """An accepted event of a station, with the id of the session it might open."""

    seq: int
    at: datetime
    station_id: StationId
    new_session_id: SessionId
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSaved:
    """The state of a station after journal row ``seq`` (sessions are rows apart)."""

    state: StationState
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionIdTaken:
    """The last transaction id that was handed out."""

    transaction_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSaved:
    """Installed limits of an outlet, needed after a restart."""

    outlet: Outlet
    power: OutletPower


@dataclass(frozen=True, slots=True, kw_only=True)
class VehiclesSaved:
    """The whole registry as last read, with the cloud's own text per vehicle."""

    vehicles: Sequence[tuple[Vehicle, str]]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesSaved:
    """Schedules as last read; those that vanished from the cloud are named apart."""

    schedules: Sequence[tuple[Schedule, str]]
    gone: Sequence[ScheduleId]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSent:
    """A cloud took a row."""

    row_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFailed:
    """A cloud did not take a row; ``is_dead`` when a repeat cannot help."""

    row_id: int
    error: str
    next_at: datetime
    is_dead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRevived:
    """A technician wants a row tried again, at once."""

    row_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxDropped:
    """A technician gave a row up; its key stays known, so that it is not owed again."""

    row_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitiesSaved:
    """What a station said it can do."""

    station_id: StationId
    capabilities: Capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderSaved:
    """What was learned of the limits of one vendor, model and firmware."""

    learned: Learned


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSaved:
    """A small fact of one scope, as JSON; a body of None takes it away.

    Scopes in use stand beside their users; a body has no secret in clear unless its
    scope says so and the database is the only place for it.
    """

    scope: str
    name: str
    body: Mapping[str, object] | None


Record = (
    DecisionRecord
    | JournalRow
    | StationSaved
    | TransactionIdTaken
    | LimitSaved
    | VehiclesSaved
    | SchedulesSaved
    | OutboxSent
    | OutboxFailed
    | OutboxRevived
    | OutboxDropped
    | CapabilitiesSaved
    | LadderSaved
    | FactSaved
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A message owed to a cloud, as stored; ``sent_at`` when it was taken or given up."""

    row_id: int
    destination: str
    key: str
    session_id: SessionId
    report: Report
    created_at: datetime
    attempts: int
    next_at: datetime
    error: str
    is_dead: bool
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An address that no vehicle has, seen at stations."""

    mac: MacAddress
    station_id: StationId
    first_at: datetime
    last_at: datetime
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Everything that survives a restart."""

    stations: Mapping[StationId, StationState]
    tail: Sequence[JournalRow]
    capabilities: Mapping[StationId, Capabilities]
    limits: Mapping[Outlet, OutletPower]
    vehicles: Mapping[VehicleId, Vehicle]
    vehicles_at: datetime | None
    schedules: Mapping[ScheduleId, Schedule]
    schedules_at: datetime | None
    last_seq: int
    last_transaction_id: int
    ladders: Sequence[Learned] = ()


class Store(Protocol):
    """Durable memory: a commit that returned is on disk."""

    def commit(self, records: Sequence[Record], now: datetime) -> Awaitable[None]:
        """Write rows in one transaction. Raises StoreFault; then nothing is written."""
        ...

    async def due_outbox(self, destination: str, limit: int) -> list[OutboxRow]:
        """Read the oldest rows that are not dead, one destination, in order."""
        ...

    async def outbox_rows(self) -> list[OutboxRow]:
        """Read all rows that are owed or dead."""
        ...

    async def outbox_of(self, key: str) -> list[OutboxRow]:
        """Read the rows of one key, of every destination, also those that were taken."""
        ...

    async def sessions(
        self, *, limit: int, session_id: SessionId | None = None
    ) -> list[Session]:
        """Read sessions, newest first."""
        ...

    async def sessions_between(
        self, since: datetime, until: datetime, *, after: tuple[int, str], limit: int
    ) -> list[Session]:
        """Read sessions plugged in from ``since`` to before ``until``, oldest first.

        ``after``: plug-in (epoch ms) and id of the last one read, or (-1, "").
        """
        ...

    async def candidates(self) -> list[Candidate]:
        """Read enrolment candidates, last seen first."""
        ...

    async def facts(self, scope: str) -> dict[str, Mapping[str, object]]:
        """Read all facts of a scope, by name."""
        ...

    async def schedule_text(self, schedule_id: ScheduleId) -> str | None:
        """Read the cloud's own text of a schedule as last read."""
        ...

    async def vehicle_texts(self) -> dict[VehicleId, str]:
        """Read the cloud's own text of all vehicles."""
        ...


# --- stations ---------------------------------------------------------------------


class Priority(IntEnum):
    """Order of calls to one station: smaller goes first."""

    REDUCTION = 0
    LIMIT = 1
    OPERATOR = 2
    READ = 3
    SETUP = 4


class Answer(StrEnum):
    """How a call to a station ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    ERROR = "error"
    SILENT = "silent"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAnswer:
    """Outcome of an order, with the station's words.

    ``reason`` is a 2.x reason code; ``wait_s`` how long the station wants no more.
    """

    answer: Answer
    detail: str = ""
    reason: str = ""
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeAnswer:
    """What a station says that it will allow, W at the outlet; None: it says nothing."""

    answer: Answer
    allows: Curve | None = None
    detail: str = ""


class Stations(Protocol):
    """Orders to stations, whatever version they speak."""

    async def set_limit(
        self,
        station_id: StationId,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Callable[[OrderAnswer], None] | None = None,
    ) -> OrderAnswer:
        """Send a charging profile and wait for the answer. Never raises for silence.

        ``on_late`` hears of an answer that comes after the wait was given up (RPC-03).
        """
        ...

    async def restart(
        self,
        station_id: StationId,
        evse_id: EvseId,
        transaction_id: TransactionId,
        id_token: str,
    ) -> OrderAnswer:
        """Stop a transaction and ask for a new one, to wake its vehicle. Never raises."""
        ...

    async def clear_limit(self, station_id: StationId, profile_id: int) -> OrderAnswer:
        """Take a profile off by its id; one that is not there counts as taken off."""
        ...

    async def write_key(self, station_id: StationId, name: str, value: str) -> OrderAnswer:
        """Write a configuration key (1.6), for stations that only a key limits."""
        ...

    async def is_answering(self, station_id: StationId, evse_id: EvseId) -> bool:
        """Ask something harmless; whether any answer came at all."""
        ...

    async def composite(
        self,
        station_id: StationId,
        evse_id: EvseId,
        *,
        duration_s: int,
        unit: RateUnit,
        phases: int,
    ) -> CompositeAnswer:
        """Ask what an outlet will allow from now on. Never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAnswer:
    """What a station adapter needs to know to answer a message."""

    transaction_id: TransactionId | None = None


class EventSink(Protocol):
    """Where adapters put facts; returns after the commit."""

    async def handle(self, station_id: StationId, event: Event) -> EventAnswer:
        """Decide, commit, act. Raises StoreFault when the disk did not take it."""
        ...

    def next_transaction_id(self) -> TransactionId:
        """Take a new 1.6 transaction id; stored with the event that uses it."""
        ...

    async def capabilities_read(
        self, station_id: StationId, capabilities: Capabilities
    ) -> None:
        """Take over what a station said about itself."""
        ...


# --- clouds -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRead:
    """The vehicle list of a cloud: each vehicle with the cloud's own text."""

    vehicles: Sequence[tuple[Vehicle, str]]
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesRead:
    """Schedules of the depot; ``refused`` names those whose plan is not usable."""

    schedules: Sequence[tuple[Schedule, str]]
    refused: Sequence[tuple[ScheduleId, str]] = ()
    problems: Sequence[str] = ()


class Fleet(Protocol):
    """The cloud that knows vehicles and plans."""

    async def vehicles(self) -> RegistryRead:
        """Read the registry. Raises CloudFault."""
        ...

    async def schedules(self) -> SchedulesRead:
        """Read the depot's schedules. Raises CloudFault."""
        ...

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        """Read the running or next schedule of one vehicle. Raises CloudFault."""
        ...

    async def deliver(self, report: FleetReport, schedule_text: str | None) -> str:
        """Deliver what is owed; returns a remark for the log. Raises CloudFault."""
        ...


# --- the vehicles' own cloud ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Car:
    """A vehicle as its own cloud knows it, joined to the registry by VIN."""

    vehicle_id: str
    user_id: str
    vin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A number and when the vehicle itself recorded it; None when that is not said."""

    value: float
    recorded_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CarState:
    """What one read of a car gave: percent, Wh, km; None for what it did not say."""

    soc_percent: Sourced | None = None
    range_km: Sourced | None = None
    capacity_wh: Sourced | None = None
    limit_percent: Sourced | None = None
    is_plugged: Sourced | None = None
    is_charging: Sourced | None = None
    charging: str = ""
    vin: str = ""
    has_timers: Sourced | None = None
    """1 when the car follows charge timers of its own, 0 when it has none."""


class CarCommand(StrEnum):
    """What a car can be told."""

    START = "start"
    STOP = "stop"
    SET_LIMIT = "set-limit"


class Outcome(StrEnum):
    """How a command ended. UNKNOWN is to be looked up at the meter, never repeated."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
    """The end of a command, with the cloud's code (``VEHICLE_STATE:ASLEEP``) and words."""

    outcome: Outcome
    code: str = ""
    detail: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A car that an owner connected, with the permissions as listed (a hint only)."""

    car: Car
    make: str = ""
    permissions: frozenset[str] = frozenset()


class VehicleCloud(Protocol):
    """Smartcar, or what takes its place; every call is counted before it is made."""

    async def connections(self) -> list[Connection]:
        """Read all connected cars; costs no car's allowance. Raises CloudFault."""
        ...

    async def read(self, car: Car, *, session_id: str = "") -> CarState:
        """Read what is known of a car. Raises CloudFault; then nothing is known.

        A budget that is used up is a CloudFault too (``budget.BudgetSpent``), with
        ``retry_after_s``. The budget of a plug-in session counts under ``session_id``.
        """
        ...

    async def command(
        self,
        car: Car,
        command: CarCommand,
        percent: float | None = None,
        *,
        session_id: str = "",
    ) -> CommandOutcome:
        """Send a command and follow it to its end; never raises for a car's refusal."""
        ...


# --- the security of stations --------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCertificate:
    """What a signer made for a station, or the problem why it did not.

    ``chain`` is PEM, leaf first; ``serial`` of the leaf in hex.
    """

    station_id: StationId
    chain: str = ""
    serial: str = ""
    common_name: str = ""
    not_after: datetime | None = None
    problem: str = ""


class Signer(Protocol):
    """Who signs the certificates that stations ask for."""

    def problem(self, csr: str, names: Sequence[str]) -> str | None:
        """Say why a request will not be signed, or None.

        ``names`` are what the station may call itself.
        """
        ...

    async def submit(self, station_id: StationId, csr: str) -> None:
        """Take a request that was found good. Raises OSError."""
        ...

    async def collect(
        self, names_of: Callable[[StationId], Sequence[str]], now: datetime
    ) -> list[SignedCertificate]:
        """Give what was signed since the last time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledCertificate:
    """A root that a station says it holds; ``hash_data`` as OCPP names it."""

    kind: str
    serial: str
    hash_data: Mapping[str, object]


class StationSecurity(Protocol):
    """Orders about a station's security, whatever version it speaks.

    None of them raises for a refusal or for silence; StationFault means that the order
    cannot be written for this station's version.
    """

    def version_of(self, station_id: StationId) -> str | None:
        """Tell the version of the live link, None without one."""
        ...

    def certificate_ends(self, station_id: StationId) -> datetime | None:
        """Tell when the certificate ends that the live link was opened with."""
        ...

    async def hang_up(self, station_id: StationId) -> bool:
        """Close the link, so that the station connects anew."""
        ...

    async def set_password(self, station_id: StationId, password: str) -> OrderAnswer:
        """Give the station another password; ``detail`` may be RebootRequired."""
        ...

    async def send_certificate(
        self, station_id: StationId, chain: str, request_id: int | None
    ) -> OrderAnswer:
        """Send the station its own new certificate."""
        ...

    async def ask_for_request(self, station_id: StationId) -> OrderAnswer:
        """Ask the station to renew its certificate."""
        ...

    async def installed(self, station_id: StationId) -> list[InstalledCertificate]:
        """Read which roots it holds. Raises StationFault when it does not say."""
        ...

    async def install(self, station_id: StationId, kind: str, pem: str) -> OrderAnswer:
        """Install a root: ``csms``, ``manufacturer``, ``v2g`` or ``mo``."""
        ...

    async def delete(
        self, station_id: StationId, hash_data: Mapping[str, object]
    ) -> OrderAnswer:
        """Delete a root."""
        ...

    async def get_log(
        self, station_id: StationId, url: str, *, kind: str, request_id: int
    ) -> OrderAnswer:
        """Have a log uploaded: ``diagnostics`` or ``security``."""
        ...

    async def update_firmware(
        self,
        station_id: StationId,
        url: str,
        *,
        at: datetime,
        request_id: int,
        signature: str = "",
        certificate: str = "",
    ) -> OrderAnswer:
        """Have firmware fetched and installed."""
        ...
