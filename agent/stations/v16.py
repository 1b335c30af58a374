"""OCPP 1.6J: what a station sends -> domain events, and its answers.

A table of handlers by action. Payloads are read softly: a breach of the schema is
recorded, what can be used is used. Transaction messages are never answered with an
error (ocpp-depot.md C2): what does not fit is filed, not refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import structlog
from ocpp.v16.enums import (
    Action,
    AuthorizationStatus,
    DataTransferStatus,
    GenericStatus,
    RegistrationStatus,
)

from agent.domain import events
from agent.domain.events import ConnectorStatus
from agent.domain.identity import Evidence, mac_evidence, read_token
from agent.domain.ids import ConnectorId, EvseId, StationId, TransactionId
from agent.domain.station import EVSES_MAX
from agent.ports import Clock, EventSink
from agent.stations import schemas
from agent.stations.extractors import ExtractorRule, extract
from agent.stations.framing import Call, Payload
from agent.stations.link import Reply
from agent.stations.samples import NUMBER_MAX, read_meter_values
from agent.stations.times import believable, parse_int, parse_number, utc_text

log = structlog.get_logger()

VERSION = "ocpp1.6"
TEXT_MAX = 255
"""Vendor, model, firmware: longer than the standard allows, shorter than harm."""
BREACHES_MAX = 64
"""Different schema breaches remembered per link, so that each is logged once."""
DATA_MAX = 8192
"""DataTransfer data beyond this is dropped (faults.md I12)."""

ACCEPTED: Payload = {"status": str(AuthorizationStatus.accepted.value)}
_STATUS = {item.value.lower(): item for item in ConnectorStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options16:
    """What the site's configuration says about talking to one 1.6 station."""

    heartbeat_s: int = 300
    bare_mac: bool = True
    base32_tags: bool = False
    extractors: tuple[ExtractorRule, ...] = ()
    accepted_vendors: frozenset[str] = frozenset()


@dataclass(slots=True)
class Adapter16:
    """Translates the messages of one 1.6 station; one per link."""

    station_id: StationId
    sink: EventSink
    clock: Clock
    options: Options16
    on_boot: Callable[[], None]
    _breaches: set[str] = field(default_factory=set)

    async def handle(self, call: Call, _: str | bytes) -> Reply:
        """Answer one CALL; raises StoreFault when its facts are not on disk."""
        handler = HANDLERS.get(call.action)
        if handler is None:
            code = (
                "NotSupported"
                if schemas.is_action(VERSION, call.action)
                else "NotImplemented"
            )
            log.info("action_unknown", station_id=self.station_id, action=call.action[:64])
            return Reply(None, code, f"{call.action[:64]} is not for a central system")
        now = self.clock.now()
        found = schemas.breach(VERSION, call.action, call.payload)
        if found is not None:
            self._record_breach(call.action, found.text)
        return Reply(await handler(self, call.payload, now))

    def _record_breach(self, action: str, text: str) -> None:
        key = f"{action} {text[:60]}"
        if key not in self._breaches and len(self._breaches) < BREACHES_MAX:
            self._breaches.add(key)
            log.warning(
                "schema_breached",
                station_id=self.station_id,
                action=action,
                reason=text,
            )

    async def _emit(self, event: events.Event) -> TransactionId | None:
        answer = await self.sink.handle(self.station_id, event)
        return answer.transaction_id

    def _read_token(self, token: str, source: str, now: datetime) -> tuple[Evidence, ...]:
        return read_token(
            token,
            source=source,
            at=now,
            bare_mac=self.options.bare_mac,
            is_base32=self.options.base32_tags,
        )

    async def _note(self, text: str, evse_id: EvseId | None) -> None:
        log.info(
            "anomaly_recorded",
            station_id=self.station_id,
            evse_id=evse_id,
            reason=text,
        )
        await self._emit(events.AnomalyNoted(text=text, evse_id=evse_id))

    # --- Core -------------------------------------------------------------------

    async def boot(self, payload: Payload, now: datetime) -> Payload:
        """BootNotification: always Accepted, then configured (C1)."""
        await self._emit(
            events.StationBooted(
                vendor=_text(payload.get("chargePointVendor")),
                model=_text(payload.get("chargePointModel")),
                serial=_text(
                    payload.get("chargePointSerialNumber")
                    or payload.get("chargeBoxSerialNumber")
                ),
                firmware=_text(payload.get("firmwareVersion")),
            )
        )
        self.on_boot()
        return {
            "status": str(RegistrationStatus.accepted.value),
            "currentTime": utc_text(now),
            "interval": self.options.heartbeat_s,
        }

    async def heartbeat(self, _: Payload, now: datetime) -> Payload:
        """Heartbeat: the station may set its clock by the answer."""
        return {"currentTime": utc_text(now)}

    async def status(self, payload: Payload, now: datetime) -> Payload:
        """StatusNotification: arrival order counts, not its time (CLK-05)."""
        connector = parse_int(payload.get("connectorId"))
        if connector is None or not 0 <= connector <= EVSES_MAX:
            await self._note(f"status for connector {_shown(connector)}", None)
            return {}
        word = _text(payload.get("status")).lower()
        status = _STATUS.get(word, ConnectorStatus.UNKNOWN)
        error = _text(payload.get("errorCode"))
        at, _ = believable(payload.get("timestamp") or utc_text(now), now)
        await self._emit(
            events.ConnectorChanged(
                evse_id=EvseId(connector),
                connector_id=ConnectorId(connector),
                status=status,
                at=at,
                error="" if error == "NoError" else error[:64],
                note=_text(payload.get("info"))[:64],
            )
        )
        return {}

    async def authorize(self, payload: Payload, now: datetime) -> Payload:
        """Authorize: accepted by policy; the token may name the vehicle (A1)."""
        token = _text(payload.get("idTag"))
        connector = parse_int(payload.get("connectorId"))
        evidence = self._read_token(token, "Authorize", now)
        if token:
            await self._emit(
                events.IdTokenPresented(
                    id_token=token,
                    evse_id=EvseId(connector) if connector else None,
                    evidence=evidence,
                )
            )
        return {"idTagInfo": ACCEPTED}

    async def start(self, payload: Payload, now: datetime) -> Payload:
        """StartTransaction: the same start gets the same id, for ever (C2)."""
        connector = parse_int(payload.get("connectorId"))
        token = _text(payload.get("idTag"))
        at, oddity = believable(payload.get("timestamp"), now)
        meter_start = parse_number(payload.get("meterStart"))
        transaction_id = self.sink.next_transaction_id()
        if connector is None or not 1 <= connector <= EVSES_MAX:
            await self._note(f"start at connector {_shown(connector)}", None)
            if connector != 0 and connector is not None:
                return {"transactionId": int(transaction_id), "idTagInfo": ACCEPTED}
            connector = 1
        given = str(payload.get("timestamp"))[:64]
        key = f"{connector}|{token.upper()}|{given}|{meter_start}"
        answer = await self._emit(
            events.TransactionStarted(
                evse_id=EvseId(connector),
                connector_id=ConnectorId(connector),
                new_transaction_id=transaction_id,
                key=key,
                at=at,
                id_token=token,
                meter_start_wh=_register(meter_start),
                evidence=self._read_token(token, "StartTransaction", now),
            )
        )
        if oddity is not None:
            await self._note(oddity, EvseId(connector))
        return {"transactionId": int(answer or transaction_id), "idTagInfo": ACCEPTED}

    async def meter_values(self, payload: Payload, now: datetime) -> Payload:
        """MeterValues: readings are stored before the answer leaves."""
        get = payload.get
        readings, problem = read_meter_values(get("meterValue"), now)
        connector = parse_int(get("connectorId"))
        transaction = get("transactionId")
        if readings:
            await self.sink.handle(
                self.station_id,
                events.MeterSampled(
                    readings=readings,
                    evse_id=None if connector is None else EvseId(connector),
                    transaction_id=None
                    if transaction is None
                    else TransactionId(str(transaction)[:40]),
                ),
            )
        if problem is not None:
            await self._note(problem, None if not connector else EvseId(connector))
        return {}

    async def stop(self, payload: Payload, now: datetime) -> Payload:
        """StopTransaction: cannot be prevented and is always accepted."""
        at, oddity = believable(payload.get("timestamp"), now)
        readings, _ = read_meter_values(payload.get("transactionData") or [], now)
        await self._emit(
            events.TransactionEnded(
                transaction_id=TransactionId(_text(payload.get("transactionId"))[:40]),
                at=at,
                meter_stop_wh=_register(parse_number(payload.get("meterStop"))),
                reason=_text(payload.get("reason"))[:40] or "Local",
                id_token=_text(payload.get("idTag")),
                readings=readings,
            )
        )
        if oddity is not None:
            await self._note(oddity, None)
        return {"idTagInfo": ACCEPTED} if payload.get("idTag") else {}

    async def data_transfer(self, payload: Payload, now: datetime) -> Payload:
        """DataTransfer: read by the configured extractors, else recorded (A4)."""
        vendor = _text(payload.get("vendorId"))
        message = _text(payload.get("messageId"))
        data = payload.get("data")
        size = len(data if isinstance(data, str) else orjson.dumps(data))
        if size > DATA_MAX:
            await self._note(f"DataTransfer of {size} characters dropped", None)
            data = None
        rules = [rule for rule in self.options.extractors if rule.vendor_id == vendor]
        fitting = [rule for rule in rules if rule.message_id in ("", message)]
        log.info(
            "data_transfer_received",
            station_id=self.station_id,
            vendor=vendor[:64],
            message=message[:50],
        )
        if not fitting:
            known = bool(rules) or vendor in self.options.accepted_vendors
            status = (
                DataTransferStatus.accepted
                if vendor in self.options.accepted_vendors
                else DataTransferStatus.unknown_message_id
                if known
                else DataTransferStatus.unknown_vendor_id
            )
            return {"status": str(status.value)}
        found = extract(fitting, data)
        evidence = tuple(
            item
            for raw in found.macs
            for item in mac_evidence(raw, source=f"DataTransfer {vendor}", at=now)
        )
        if evidence or found.soc_percent is not None:
            connector = found.connector_id
            await self._emit(
                events.EvidenceReported(
                    evidence=evidence,
                    evse_id=None if connector is None else EvseId(connector),
                    soc_percent=found.soc_percent,
                )
            )
        return {"status": str(DataTransferStatus.accepted.value)}

    # --- Firmware Management and security whitepaper ----------------------------------

    async def notified(self, payload: Payload, _: datetime) -> Payload:
        """Diagnostics, firmware and log status: recorded, answered, never refused."""
        log.info(
            "station_notified",
            station_id=self.station_id,
            status=_text(payload.get("status"))[:40],
        )
        return {}

    async def security_event(self, payload: Payload, _: datetime) -> Payload:
        """SecurityEventNotification: refusing it would block the station (SEC-05)."""
        log.warning(
            "security_event_reported",
            station_id=self.station_id,
            kind=_text(payload.get("type"))[:50],
            reason=_text(payload.get("techInfo"))[:100],
        )
        return {}

    async def sign_certificate(self, _: Payload, __: datetime) -> Payload:
        """SignCertificate: there is no signer here yet, so an honest no."""
        log.warning("certificate_request_refused", station_id=self.station_id)
        return {"status": str(GenericStatus.rejected.value)}


HandlerMethod = Callable[[Adapter16, Payload, datetime], Awaitable[Payload]]
HANDLERS: dict[str, HandlerMethod] = {
    str(Action.authorize.value): Adapter16.authorize,
    str(Action.boot_notification.value): Adapter16.boot,
    str(Action.data_transfer.value): Adapter16.data_transfer,
    str(Action.diagnostics_status_notification.value): Adapter16.notified,
    str(Action.firmware_status_notification.value): Adapter16.notified,
    str(Action.heartbeat.value): Adapter16.heartbeat,
    str(Action.log_status_notification.value): Adapter16.notified,
    str(Action.meter_values.value): Adapter16.meter_values,
    str(Action.security_event_notification.value): Adapter16.security_event,
    str(Action.sign_certificate.value): Adapter16.sign_certificate,
    str(Action.signed_firmware_status_notification.value): Adapter16.notified,
    str(Action.start_transaction.value): Adapter16.start,
    str(Action.status_notification.value): Adapter16.status,
    str(Action.stop_transaction.value): Adapter16.stop,
}
"""Every message that a 1.6 station may send of its own accord."""


def _text(value: Any) -> str:
    """Peer text, cut; numbers are tolerated, everything else is nothing."""
    if type(value) is str:
        return value[:TEXT_MAX]
    if type(value) in (int, float):
        return str(value)[:TEXT_MAX]
    return ""


def _shown(connector: int | None) -> str:
    return "(missing)" if connector is None else str(connector)[:20]


def _register(value: float | None) -> float | None:
    """A register below zero means that the meter could not be read (C2)."""
    return None if value is None or not 0 <= value < NUMBER_MAX else value
