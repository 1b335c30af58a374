"""What is read from and written to a 1.6 station after it connected (B6, B14, C7).

The same work after a boot and after a reconnect without one: configuration is read,
only differences are written, one at a time, measurands one by one; then states that are
not known are asked for. A new boot starts the work again; silence only costs knowledge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from ocpp.v16.enums import Action, ConfigurationKey, ConfigurationStatus, MessageTrigger

from agent.domain.capability import Capabilities, read_configuration
from agent.domain.ids import StationId
from agent.domain.station import EVSES_MAX
from agent.ports import EventSink, Priority
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome, Link

log = structlog.get_logger()

BOOT_WAIT_S = 5.0
"""A station that sends no boot within this time reconnected (BOOT-01)."""
SETTLE_S = 1.0
"""Some stations do not answer in the first second after their boot (BOOT-03)."""
STATUS_WAIT_S = 3.0
"""Stations send their states by themselves after a boot; ask only when they do not."""
KEYS_AT_ONCE = 4
"""Where reading everything at once fails, groups of this size are read (CFG-01)."""

VALUE_MAX = 500
"""Longest value of ChangeConfiguration (1.6 section 6.7)."""

CAPABILITY_KEYS = (
    "NumberOfConnectors",
    "SupportedFeatureProfiles",
    "ChargeProfileMaxStackLevel",
    "ChargingScheduleAllowedChargingRateUnit",
    "ChargingScheduleMaxPeriods",
    "MaxChargingProfilesInstalled",
)
MEASURANDS_DC = (
    "Energy.Active.Import.Register",
    "Power.Active.Import",
    "SoC",
    "Power.Offered",
)
MEASURANDS_AC = (
    "Energy.Active.Import.Register",
    "Power.Active.Import",
    "Current.Import",
    "Current.Offered",
    "Voltage",
)
SAMPLED = str(ConfigurationKey.meter_values_sampled_data.value)
ONLY_KNOWN = frozenset({"autochargeenabled"})
"""Vendor keys: written only where the station lists them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Settings that a site wants at its stations."""

    settings: Mapping[str, str]
    measurands: tuple[str, ...] = MEASURANDS_DC
    reads_configuration: bool = True


def default_settings(*, meter_interval_s: int, heartbeat_s: int) -> dict[str, str]:
    """The settings of ocpp-depot.md C7, in the order in which they matter."""
    return {
        "MeterValueSampleInterval": str(meter_interval_s),
        "StopTxnSampledData": "",
        "ClockAlignedDataInterval": "900",
        "HeartbeatInterval": str(heartbeat_s),
        "WebSocketPingInterval": "60",
        "AuthorizeRemoteTxRequests": "false",
        "LocalPreAuthorize": "true",
        "LocalAuthorizeOffline": "true",
        "AllowOfflineTxForUnknownId": "true",
        "StopTransactionOnInvalidId": "false",
        "StopTransactionOnEVSideDisconnect": "true",
        "TransactionMessageAttempts": "5",
        "TransactionMessageRetryInterval": "30",
        "AutoChargeEnabled": "true",
    }


@dataclass(slots=True)
class Setup16:
    """The set-up of one link; ``booted`` restarts it."""

    station_id: StationId
    link: Link
    sink: EventSink
    wishes: Wishes
    known_connectors: Callable[[], list[int]]
    open_transactions: Callable[[], list[int]]
    slots: asyncio.Semaphore
    pace: float = 1.0
    _generation: int = 0
    _boot: asyncio.Event = field(default_factory=asyncio.Event)
    _is_first: bool = True

    def booted(self) -> None:
        """Note a BootNotification: what runs is started again (BOOT-04)."""
        self._generation += 1
        self._boot.set()

    async def run(self) -> None:
        """Work until the link ends; once after connecting and again after each boot."""
        try:
            async with asyncio.timeout(BOOT_WAIT_S * self.pace):
                await self._boot.wait()
        except TimeoutError:
            log.info("station_reconnected", station_id=self.station_id)
        while True:
            has_booted = self._boot.is_set()
            self._boot.clear()
            await asyncio.sleep(SETTLE_S * self.pace)
            async with self.slots:
                await self._once(self._generation, has_booted=has_booted)
            await self._boot.wait()

    async def _once(self, generation: int, *, has_booted: bool) -> None:
        keys = await self._read_all()
        if generation != self._generation:
            return
        said = read_configuration(keys)
        await self.sink.capabilities_read(self.station_id, said)
        if keys:
            await self._write_differences(keys, generation)
        await self._ask_states(said, generation, has_booted=has_booted)
        log.info("station_configured", station_id=self.station_id, keys=len(keys))

    # --- reading ----------------------------------------------------------------

    async def _read_all(self) -> dict[str, str]:
        if not self.wishes.reads_configuration:
            return {}
        outcome = await self._get([])
        if outcome.payload is not None:
            return _keys(outcome.payload)
        if outcome.code == "Offline":
            return {}
        found: dict[str, str] = {}
        wanted = [*CAPABILITY_KEYS, SAMPLED, *self.wishes.settings]
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            outcome = await self._get(wanted[start : start + KEYS_AT_ONCE])
            if not outcome.is_answered:
                break
            found |= _keys(outcome.payload or {})
        return found

    async def _get(self, keys: list[str]) -> CallOutcome:
        payload: Payload = {"key": keys} if keys else {}
        return await self.link.call(
            str(Action.get_configuration.value), payload, Priority.READ
        )

    # --- writing ----------------------------------------------------------------

    async def _write_differences(self, keys: dict[str, str], generation: int) -> None:
        known = {key.lower(): value for key, value in keys.items()}
        spelled = {key.lower(): key for key in keys}
        for key, wanted in self.wishes.settings.items():
            if generation != self._generation:
                return
            have = known.get(key.lower())
            if have is None and key.lower() in ONLY_KNOWN:
                continue
            if have is not None and have.strip().lower() == wanted.lower():
                continue
            if not await self._set(spelled.get(key.lower(), key), wanted):
                log.info("setting_refused", station_id=self.station_id, key=key)
        await self._write_measurands(known)

    async def _write_measurands(self, known: dict[str, str]) -> None:
        have = [
            item.strip(" \"'[]")
            for item in known.get(SAMPLED.lower(), "").split(",")
            if item.strip(" \"'[]")
        ]
        room = _count(known.get(f"{SAMPLED}MaxLength".lower()))
        kept = list(have)
        for measurand in self.wishes.measurands:
            if measurand in kept:
                continue
            trial = [*kept, measurand]
            is_crowded = room is not None and len(trial) > room
            if is_crowded or len(",".join(trial)) > VALUE_MAX:
                trial = [*self.wishes.measurands][: None if room is None else max(room, 1)]
                if trial == kept:
                    return
            if await self._set(SAMPLED, ",".join(trial)):
                kept = trial
            else:
                log.info("setting_refused", station_id=self.station_id, key=measurand)

    async def _set(self, key: str, value: str) -> bool:
        outcome = await self.link.call(
            str(Action.change_configuration.value),
            {"key": key, "value": value},
            Priority.SETUP,
        )
        status = str((outcome.payload or {}).get("status", ""))
        if status == ConfigurationStatus.reboot_required.value:
            log.info("reboot_required", station_id=self.station_id, key=key)
        return status in (
            ConfigurationStatus.accepted.value,
            ConfigurationStatus.reboot_required.value,
        )

    # --- states -------------------------------------------------------------------

    async def _ask_states(
        self, said: Capabilities, generation: int, *, has_booted: bool
    ) -> None:
        if has_booted:
            await asyncio.sleep(STATUS_WAIT_S * self.pace)
        known = set(self.known_connectors())
        connectors = said.connectors or max([*known, 1])
        wanted = range(1, min(connectors, EVSES_MAX) + 1)
        for connector in wanted:
            if generation != self._generation:
                return
            if has_booted and connector in known:
                continue
            await self._trigger(MessageTrigger.status_notification, connector)
        for connector in self.open_transactions():
            await self._trigger(MessageTrigger.meter_values, connector)

    async def _trigger(self, what: MessageTrigger, connector: int) -> None:
        await self.link.call(
            str(Action.trigger_message.value),
            {"requestedMessage": str(what.value), "connectorId": connector},
            Priority.SETUP,
        )


def _keys(payload: Payload) -> dict[str, str]:
    found: dict[str, str] = {}
    items = payload.get("configurationKey")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(item.get("key"), str):
            value = item.get("value")
            found[item["key"][:100]] = "" if value is None else str(value)[:2000]
        if len(found) >= 500:  # noqa: PLR2004 - libocpp lists 122; more is not believed
            break
    return found


def _count(text: str | None) -> int | None:
    digits = "" if text is None else text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() else None
