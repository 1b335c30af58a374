"""What is read from and written to a 2.x station after it connected (B6, B7, B14, C7).

The same work after a boot and after a reconnect without one: what it can do first,
because charging profiles wait for it; then its transactions, its settings and device
model, states that are not known, and the profiles that are installed. A new boot starts
the work again; silence only costs knowledge.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from ocpp.v201 import enums
from ocpp.v201.enums import Action

from agent.domain import events
from agent.domain.capability import Capabilities
from agent.domain.ids import StationId, TransactionId
from agent.domain.station import EVSES_MAX
from agent.ports import EventSink, Priority
from agent.stations.framing import Payload
from agent.stations.link import Link
from agent.stations.v2_calls import Caller, status_of
from agent.stations.v2_inventory import ProfileParts, ReportParts
from agent.stations.v2_variables import IsCurrent, Variables
from agent.stations.v16_setup import (
    BOOT_WAIT_S,
    MEASURANDS_DC,
    SETTLE_S,
    STATUS_WAIT_S,
)

log = structlog.get_logger()

PART_WAIT_S = 20.0
"""A part of a report that takes longer does not come any more (V2-04)."""
REPORT_WAIT_S = 120.0
"""A report that takes longer never ends (V2-04)."""
STRAGGLER_WAIT_S = 1.0
"""After the last part: messages keep their order, so what is missing hardly comes."""

_request_ids = itertools.count(1)
"""Never used twice by this process, so that no late part is taken for a new one."""

GET_BASE_REPORT = str(Action.get_base_report.value)
GET_CHARGING_PROFILES = str(Action.get_charging_profiles.value)
GET_TRANSACTION_STATUS = str(Action.get_transaction_status.value)
TRIGGER_MESSAGE = str(Action.trigger_message.value)

REPORT_ACCEPTED = str(enums.GenericDeviceModelStatusEnumType.accepted.value)
REPORT_EMPTY = str(enums.GenericDeviceModelStatusEnumType.empty_result_set.value)
PROFILES_ACCEPTED = str(enums.GetChargingProfileStatusEnumType.accepted.value)
NO_PROFILES = str(enums.GetChargingProfileStatusEnumType.no_profiles.value)
TRIGGER_UNKNOWN = str(enums.TriggerMessageStatusEnumType.not_implemented.value)
STATUS_TRIGGER = str(enums.MessageTriggerEnumType.status_notification.value)
TRANSACTION_TRIGGER = str(enums.MessageTriggerEnumType.transaction_event.value)

REPORT_BASES = (
    str(enums.ReportBaseEnumType.full_inventory.value),
    str(enums.ReportBaseEnumType.configuration_inventory.value),
)
"""The second holds only what can be set; stations that lack the first may know it."""
PURPOSES = tuple(
    str(item.value)
    for item in (
        enums.ChargingProfilePurposeEnumType.tx_profile,
        enums.ChargingProfilePurposeEnumType.tx_default_profile,
        enums.ChargingProfilePurposeEnumType.charging_station_max_profile,
    )
)
"""The purposes that a central system installs."""

Outlets = set[tuple[int, int]]
"""EVSE and connector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes2:
    """Settings that a site wants at its 2.x stations.

    ``settings`` by ``Component.Variable`` or ``Component.Variable[Instance]``.
    """

    settings: Mapping[str, str]
    measurands: tuple[str, ...] = MEASURANDS_DC
    reads_configuration: bool = True


def default_settings_2x(*, meter_interval_s: int, heartbeat_s: int) -> dict[str, str]:
    """The settings of ocpp-depot.md C7, in the order in which they matter."""
    return {
        "SampledDataCtrlr.TxUpdatedInterval": str(meter_interval_s),
        "SampledDataCtrlr.TxEndedInterval": "0",
        "AlignedDataCtrlr.Interval": "900",
        "OCPPCommCtrlr.HeartbeatInterval": str(heartbeat_s),
        "OCPPCommCtrlr.WebSocketPingInterval": "60",
        "AuthCtrlr.AuthorizeRemoteStart": "false",
        "AuthCtrlr.LocalPreAuthorize": "true",
        "AuthCtrlr.LocalAuthorizeOffline": "true",
        "AuthCtrlr.OfflineTxForUnknownIdEnabled": "true",
        "TxCtrlr.StopTxOnInvalidId": "false",
        "TxCtrlr.StopTxOnEVSideDisconnect": "true",
        "OCPPCommCtrlr.MessageAttempts[TransactionEvent]": "5",
        "OCPPCommCtrlr.MessageAttemptInterval[TransactionEvent]": "30",
        "SmartChargingCtrlr.LimitChangeSignificance": "1",
    }


@dataclass(slots=True)
class Setup2:
    """The set-up of one link of a 2.x station; ``booted`` restarts it.

    ``known_outlets`` gives EVSE and connector that reported a status;
    ``open_transactions`` the transaction id and its EVSE. ``on_profiles`` gets what is
    installed, when the station told all of it. ``on_configured`` hears that settings were
    written; until ``is_accepted``, a station is only configured and asked nothing else.
    """

    station_id: StationId
    version: str
    link: Link
    sink: EventSink
    wishes: Wishes2
    known_outlets: Callable[[], list[tuple[int, int]]]
    open_transactions: Callable[[], list[tuple[str, int]]]
    on_profiles: Callable[[tuple[Payload, ...]], Awaitable[None]]
    slots: asyncio.Semaphore
    pace: float = 1.0
    on_configured: Callable[[], Awaitable[None]] | None = None
    is_accepted: Callable[[], bool] = lambda: True
    _generation: int = 0
    _boot: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _report: ReportParts | None = None
    _profiles: ProfileParts | None = None
    _caller: Caller = field(init=False)
    _variables: Variables = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing known of the station."""
        self._caller = Caller(self.station_id, self.version, self.link)
        self._variables = Variables(self._caller)

    def booted(self) -> None:
        """Note a BootNotification: what runs is started again (BOOT-04)."""
        self._generation += 1
        self._boot.set()
        self._news.set()

    def report_received(self, payload: Payload) -> None:
        """Take a NotifyReport over."""
        if self._report is not None and self._report.take(payload):
            self._news.set()

    def profiles_received(self, payload: Payload) -> None:
        """Take a ReportChargingProfiles over."""
        if self._profiles is not None and self._profiles.take(payload):
            self._news.set()

    async def run(self) -> None:
        """Work until the link ends; once after connecting and again after each boot."""
        try:
            async with asyncio.timeout(BOOT_WAIT_S * self.pace):
                await self._boot.wait()
        except TimeoutError:
            log.info("station_reconnected", station_id=self.station_id)
        while True:
            await asyncio.sleep(SETTLE_S * self.pace)
            async with self.slots:
                has_booted = self._boot.is_set()
                self._boot.clear()
                await self._once(has_booted=has_booted)
            await self._boot.wait()

    async def _once(self, *, has_booted: bool) -> None:
        generation = self._generation

        def is_current() -> bool:
            return generation == self._generation

        await self._tell_capabilities(is_current)
        asked: Outlets = set()
        if self.is_accepted():
            if not has_booted:
                asked = set(self.known_outlets())
                await self._ask_states(asked, is_current)
            await self._check_transactions(is_current)
        await self._configure(is_current)
        if self.is_accepted():
            if has_booted and is_current():
                await asyncio.sleep(STATUS_WAIT_S * self.pace)
                asked = set(self.known_outlets())
            await self._ask_states(self._outlets() - asked, is_current)
            await self._read_profiles(is_current)
        if is_current():
            keys = len(self._variables.inventory)
            log.info("station_configured", station_id=self.station_id, keys=keys)

    async def _tell_capabilities(self, is_current: IsCurrent) -> None:
        if self.wishes.reads_configuration:
            await self._variables.read_capabilities(is_current)
        if is_current():
            await self.sink.capabilities_read(self.station_id, self._said())

    async def _configure(self, is_current: IsCurrent) -> None:
        if self.wishes.reads_configuration:
            said = self._said()
            await self._variables.read_settings(self.wishes.settings, is_current)
            await self._read_inventory(is_current)
            if is_current() and self._said() != said:
                await self.sink.capabilities_read(self.station_id, self._said())
            await self._variables.write_differences(self.wishes.settings, is_current)
            await self._variables.extend_measurands(self.wishes.measurands, is_current)
        if is_current() and self.on_configured is not None:
            await self.on_configured()

    def _said(self) -> Capabilities:
        return self._variables.said(self.known_outlets())

    def _outlets(self) -> Outlets:
        """Outlets by inventory and by status; where none is known, there is one."""
        return {*self._variables.inventory.outlets(), *self.known_outlets()} or {(1, 1)}

    # --- the device model -------------------------------------------------------------

    async def _read_inventory(self, is_current: IsCurrent) -> None:
        """Read the device model, once per link; nothing rests on it (V2-04)."""
        if self._variables.inventory.is_complete:
            return
        for base in REPORT_BASES:
            if not is_current():
                return
            report = ReportParts(next(_request_ids), self._variables.inventory)
            self._report = report  # parts may come before the answer
            outcome = await self._caller.call(
                GET_BASE_REPORT,
                {"requestId": report.request_id, "reportBase": base},
                Priority.READ,
            )
            status = status_of(outcome)
            if status == REPORT_ACCEPTED:
                await self._collect(report, is_current)
                return
            if status == REPORT_EMPTY or not self._caller.answers(GET_BASE_REPORT, outcome):
                return

    async def _collect(self, report: ReportParts, is_current: IsCurrent) -> None:
        await self._until(
            lambda: report.is_complete or report.is_full,
            lambda: STRAGGLER_WAIT_S if report.has_end else PART_WAIT_S,
            is_current,
        )
        inventory = self._variables.inventory
        inventory.is_complete = report.is_complete
        log.info(
            "station_inventory_read",
            station_id=self.station_id,
            parts=report.taken,
            variables=report.variables,
            outlets=len(inventory.outlets()),
            dropped=inventory.dropped,
            is_complete=report.is_complete,
        )

    async def _until(
        self,
        is_done: Callable[[], bool],
        part_wait_s: Callable[[], float],
        is_current: IsCurrent,
    ) -> None:
        """Wait for parts until it is done, they stay away, they never end, or a boot."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + REPORT_WAIT_S * self.pace
        while not is_done() and is_current():
            left_s = min(part_wait_s() * self.pace, ends_at - loop.time())
            self._news.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                return

    # --- states and transactions ------------------------------------------------------

    async def _ask_states(self, outlets: Outlets, is_current: IsCurrent) -> None:
        places = [(evse, of) for evse, of in sorted(outlets) if evse > 0 and of > 0]
        for evse, connector in places[:EVSES_MAX]:
            where = {"id": evse, "connectorId": connector}
            if not is_current() or not await self._trigger(STATUS_TRIGGER, where):
                return

    async def _check_transactions(self, is_current: IsCurrent) -> None:
        """Ask for a fresh TransactionEvent of each transaction, and whether it lives."""
        triggers = checks = True
        for transaction_id, evse in self.open_transactions():
            if is_current() and triggers and evse > 0:
                triggers = await self._trigger(TRANSACTION_TRIGGER, {"id": evse})
            if is_current() and checks:
                checks = await self._check(transaction_id)

    async def _check(self, transaction_id: str) -> bool:
        """Ask for one transaction; False when it is of no use to ask for more."""
        outcome = await self._caller.call(
            GET_TRANSACTION_STATUS, {"transactionId": transaction_id}, Priority.READ
        )
        if outcome.payload is not None:
            ongoing = outcome.payload.get("ongoingIndicator")
            await self.sink.handle(
                self.station_id,
                events.TransactionChecked(
                    transaction_id=TransactionId(transaction_id),
                    is_ongoing=ongoing if isinstance(ongoing, bool) else None,
                    has_queue=outcome.payload.get("messagesInQueue") is True,
                ),
            )
        return self._caller.answers(GET_TRANSACTION_STATUS, outcome)

    async def _trigger(self, what: str, evse: Payload) -> bool:
        """Ask for a message; False when it is of no use to ask for more of them."""
        outcome = await self._caller.call(
            TRIGGER_MESSAGE, {"requestedMessage": what, "evse": evse}, Priority.SETUP
        )
        is_useful = self._caller.answers(TRIGGER_MESSAGE, outcome)
        return is_useful and status_of(outcome) != TRIGGER_UNKNOWN

    # --- installed profiles -----------------------------------------------------------

    async def _read_profiles(self, is_current: IsCurrent) -> None:
        """Read what is installed; half an answer is none, as it would look like a loss."""
        parts = self._profiles = ProfileParts()
        for purpose in PURPOSES:
            if not is_current() or not await self._ask_profiles(parts, purpose, is_current):
                return
        if parts.items:
            # Some stations send one message per EVSE and call each of them the last.
            await self._until(lambda: False, lambda: STRAGGLER_WAIT_S, is_current)
        if is_current():
            await self.on_profiles(parts.items)

    async def _ask_profiles(
        self, parts: ProfileParts, purpose: str, is_current: IsCurrent
    ) -> bool:
        """Ask for the profiles of one purpose; whether all of them were told."""
        request_id = next(_request_ids)
        parts.ask(request_id)
        outcome = await self._caller.call(
            GET_CHARGING_PROFILES,
            {
                "requestId": request_id,
                "chargingProfile": {"chargingProfilePurpose": purpose},
            },
            Priority.READ,
        )
        status = status_of(outcome)
        if status == NO_PROFILES:
            parts.close(request_id)
        elif status == PROFILES_ACCEPTED:
            await self._until(
                lambda: parts.is_complete(request_id), lambda: PART_WAIT_S, is_current
            )
        else:
            return False
        return parts.is_complete(request_id)
