"""What one link needs to speak its version: adapter, set-up and orders together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from agent.domain.capability import Capabilities
from agent.domain.curve import Curve
from agent.domain.errors import StationFault
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.profile import ChargingProfile, InstalledProfile
from agent.ports import Answer, Clock, EventSink, OrderAnswer, Priority
from agent.stations import framing, quick16, schemas, v2_orders, v16_orders
from agent.stations.adapter import NO_DESK, AdapterOptions, SecurityDesk
from agent.stations.link import CallOutcome, Link, Reply
from agent.stations.v2 import Adapter2, Hooks2
from agent.stations.v2_fast import FastLimit
from agent.stations.v2_installed import read_installed
from agent.stations.v2_setup import Setup2, Wishes2
from agent.stations.v2_vehicle import VehicleAsker
from agent.stations.v16 import Adapter16
from agent.stations.v16_setup import Setup16, Wishes

log = structlog.get_logger()

Late = Callable[[OrderAnswer], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StationOptions:
    """Per-station settings that the links need."""

    adapter: AdapterOptions
    wishes: Wishes
    wishes_2x: Wishes2
    pings: bool = True
    messages_per_s: float = 0.0
    """A station that sends more for long is read more slowly; 0 for no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationView:
    """What a link may know of a station's state; filled in by ``app``.

    ``outlets``: EVSE and connector that reported a state. ``running``: open transactions
    with their EVSE. ``allowed``: what the profile at an EVSE allows, W.
    ``profiles_read`` takes what the station says is installed and returns the ids of
    profiles that do not belong there.
    """

    outlets: Callable[[StationId], list[tuple[int, int]]]
    running: Callable[[StationId], list[tuple[str, int]]]
    allowed: Callable[[StationId, EvseId], Curve | None]
    capabilities: Callable[[StationId], Capabilities]
    profiles_read: Callable[[StationId, tuple[InstalledProfile, ...]], Awaitable[list[int]]]


class Dialect(Protocol):
    """One link's version."""

    def parse(self, text: str | bytes) -> framing.Frame:
        """Check a text frame; never raises."""
        ...

    async def handle(self, call: framing.Call, text: str | bytes) -> Reply:
        """Answer one CALL of the station."""
        ...

    def attach(self, link: Link) -> None:
        """Bind to the link that carries the calls."""
        ...

    async def run(self) -> None:
        """Set up and accompany the station until the link ends."""
        ...

    async def set_limit(
        self,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Late | None,
    ) -> OrderAnswer:
        """Send a charging profile and read the answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every link is made of besides its version."""

    sink: EventSink
    clock: Clock
    view: StationView
    slots: asyncio.Semaphore
    pace: float
    desk: SecurityDesk = NO_DESK


def dialect_of(
    version: str, station_id: StationId, options: StationOptions, around: Surroundings
) -> Dialect:
    """Make what speaks a version to one station."""
    if version == schemas.V16:
        return Dialect16(station_id, options, around)
    return Dialect2(version, station_id, options, around)


NamedCall = tuple[str, framing.Payload]


def restart_calls(
    version: str, evse_id: EvseId, transaction_id: TransactionId, id_token: str
) -> tuple[NamedCall, NamedCall]:
    """The calls that stop a transaction and ask for a new one at its outlet."""
    token = id_token or "depot-agent"
    if version == schemas.V16:
        return (
            ("RemoteStopTransaction", {"transactionId": int(transaction_id)}),
            ("RemoteStartTransaction", {"connectorId": evse_id, "idTag": token[:20]}),
        )
    return (
        ("RequestStopTransaction", {"transactionId": str(transaction_id)}),
        (
            "RequestStartTransaction",
            {
                "idToken": {"idToken": token[:36], "type": "Central"},
                "remoteStartId": evse_id,
                "evseId": evse_id,
            },
        ),
    )


class Dialect16:
    """OCPP 1.6J."""

    def __init__(
        self, station_id: StationId, options: StationOptions, around: Surroundings
    ) -> None:
        """Build the adapter; ``attach`` builds the rest."""
        self._station_id = station_id
        self._options = options
        self._around = around
        self._link: Link | None = None
        self._setup: Setup16 | None = None
        self._adapter = Adapter16(
            station_id=station_id,
            sink=around.sink,
            clock=around.clock,
            options=options.adapter,
            on_boot=self._booted,
            desk=around.desk,
            hang_up=self._hang_up,
        )

    parse = staticmethod(quick16.parse)

    def handle(self, call: framing.Call, text: str | bytes) -> Coroutine[Any, Any, Reply]:
        """Answer one CALL of the station."""
        return self._adapter.handle(call, text)  # no coroutine around a coroutine

    def attach(self, link: Link) -> None:
        """Bind to the link that carries the calls."""
        self._link = link
        view, station_id = self._around.view, self._station_id
        self._setup = Setup16(
            station_id=station_id,
            link=link,
            sink=self._around.sink,
            wishes=self._options.wishes,
            known_connectors=lambda: [evse for evse, _ in view.outlets(station_id)],
            open_transactions=lambda: [evse for _, evse in view.running(station_id)],
            slots=self._around.slots,
            pace=self._around.pace,
        )

    async def run(self) -> None:
        """Set the station up, again after each boot."""
        if self._setup is not None:
            await self._setup.run()

    async def set_limit(
        self,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Late | None,
    ) -> OrderAnswer:
        """Send a charging profile and read the answer."""
        if self._link is None:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not connected")
        try:
            payload = v16_orders.set_charging_profile(evse_id, profile)
        except StationFault as fault:
            return OrderAnswer(answer=Answer.ERROR, detail=str(fault))
        outcome = await self._link.call(
            v16_orders.SET_CHARGING_PROFILE,
            payload,
            priority,
            _late(on_late, v16_orders.read_answer),
        )
        return v16_orders.read_answer(outcome)

    def _booted(self) -> None:
        if self._setup is not None:
            self._setup.booted()

    def _hang_up(self, reason: str) -> None:
        if self._link is not None:
            self._link.hang_up(1008, reason)


class Dialect2:
    """OCPP 2.0.1 and 2.1."""

    def __init__(
        self,
        version: str,
        station_id: StationId,
        options: StationOptions,
        around: Surroundings,
    ) -> None:
        """Build the adapter; ``attach`` builds the rest."""
        self._version = version
        self._station_id = station_id
        self._options = options
        self._around = around
        self._link: Link | None = None
        self._setup: Setup2 | None = None
        self._asker = VehicleAsker(
            station_id=station_id, sink=around.sink, clock=around.clock
        )
        self._fast = FastLimit(station_id=station_id, clock=around.clock, pace=around.pace)
        view = around.view
        self._adapter = Adapter2(
            station_id=station_id,
            version=version,
            sink=around.sink,
            clock=around.clock,
            options=options.adapter,
            on_boot=self._booted,
            desk=around.desk,
            hang_up=self._hang_up,
            hooks=Hooks2(
                report=lambda payload: self._heard("report", payload),
                profiles=lambda payload: self._heard("profiles", payload),
                plugged=self._asker.plugged,
                charging=self._asker.charging,
                unplugged=self._asker.unplugged,
                allowed=lambda evse_id: view.allowed(station_id, evse_id),
                has_transaction=lambda evse_id: any(
                    running == evse_id for _, running in view.running(station_id)
                ),
                fast_limit=self._fast.pulled,
            ),
        )

    parse = staticmethod(framing.parse)

    def handle(self, call: framing.Call, text: str | bytes) -> Coroutine[Any, Any, Reply]:
        """Answer one CALL of the station."""
        return self._adapter.handle(call, text)  # no coroutine around a coroutine

    def attach(self, link: Link) -> None:
        """Bind to the link that carries the calls."""
        self._link = link
        self._asker.link = link
        self._fast.link = link
        view, station_id = self._around.view, self._station_id
        self._setup = Setup2(
            station_id=station_id,
            version=self._version,
            link=link,
            sink=self._around.sink,
            wishes=self._options.wishes_2x,
            known_outlets=lambda: view.outlets(station_id),
            open_transactions=lambda: view.running(station_id),
            on_profiles=self._profiles_read,
            on_configured=self._configured,
            is_accepted=lambda: self._adapter.is_open,
            slots=self._around.slots,
            pace=self._around.pace,
        )

    async def run(self) -> None:
        """Set the station up, ask for vehicles, refresh fast limits."""
        if self._setup is None or self._options.adapter.boot == "reject":
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._setup.run(), name="setup")
            tasks.create_task(self._asker.run(), name="vehicles")
            tasks.create_task(self._fast.run(), name="fast-limits")

    async def set_limit(
        self,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Late | None,
    ) -> OrderAnswer:
        """Send a charging profile and read the answer; clears a rival once."""
        if self._link is None or not self._adapter.is_open:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not accepted")
        try:
            payload = v2_orders.set_charging_profile(self._version, evse_id, profile)
        except StationFault as fault:
            return v2_orders.not_sent(fault)
        if priority is Priority.REDUCTION and self._version == schemas.V21:
            said = self._around.view.capabilities(self._station_id)
            await self._fast.lower(evse_id, profile, said)
        answer = await self._set(payload, priority, on_late)
        if v2_orders.is_duplicate(answer):
            rival = v2_orders.clear_rival(self._version, evse_id, profile)
            await self._link.call(v2_orders.CLEAR_CHARGING_PROFILE, rival, priority)
            answer = await self._set(payload, priority, on_late)
        if self._version == schemas.V21:
            self._fast.settled(evse_id, profile, answer)
        return answer

    async def _set(
        self, payload: framing.Payload, priority: Priority, on_late: Late | None
    ) -> OrderAnswer:
        assert self._link is not None  # noqa: S101 - the caller looked
        outcome = await self._link.call(
            v2_orders.SET_CHARGING_PROFILE,
            payload,
            priority,
            _late(on_late, v2_orders.read_answer),
        )
        return v2_orders.read_answer(outcome)

    def _booted(self) -> None:
        if self._setup is not None:
            self._setup.booted()

    def _hang_up(self, reason: str) -> None:
        if self._link is not None:
            self._link.hang_up(1008, reason)

    def _heard(self, what: str, payload: framing.Payload) -> None:
        if self._setup is None:
            return
        if what == "report":
            self._setup.report_received(payload)
        else:
            self._setup.profiles_received(payload)

    async def _profiles_read(self, items: tuple[framing.Payload, ...]) -> None:
        """Hold the books against the station, and clear what others left behind."""
        installed = read_installed(items, self._around.clock.now())
        foreign = await self._around.view.profiles_read(self._station_id, installed)
        for profile_id in foreign:
            log.info(
                "foreign_profile_cleared",
                station_id=self._station_id,
                profile_id=profile_id,
            )
            if self._link is not None:
                payload = v2_orders.clear_by_id(self._version, profile_id)
                await self._link.call(
                    v2_orders.CLEAR_CHARGING_PROFILE, payload, Priority.SETUP
                )

    async def _configured(self) -> None:
        """A station in Pending has been configured: let it boot again, now for good."""
        self._adapter.is_configured = True
        if self._link is not None and not self._adapter.is_open:
            await self._link.call(
                "TriggerMessage", {"requestedMessage": "BootNotification"}, Priority.SETUP
            )


def _late(
    on_late: Late | None, read: Callable[[CallOutcome], OrderAnswer]
) -> Callable[[CallOutcome], None]:
    def late(outcome: CallOutcome) -> None:
        if on_late is not None:
            on_late(read(outcome))

    return late
