"""What the adapters of all versions share: answering one CALL, notes, DataTransfer.

Payloads are read softly: a breach of the schema is recorded, what can be used is used.
Transaction messages are never answered with an error (ocpp-depot.md C2): what does not
fit is filed, not refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import orjson
import structlog
from ocpp.v16.enums import DataTransferStatus, GenericStatus

from agent.domain import events
from agent.domain.identity import Evidence, mac_evidence, read_token
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.ports import Clock, EventSink
from agent.stations import schemas
from agent.stations.extractors import ExtractorRule, extract
from agent.stations.framing import Payload
from agent.stations.samples import NUMBER_MAX

log = structlog.get_logger()

TEXT_MAX = 255
"""Vendor, model, firmware: longer than the standard allows, shorter than harm."""
BREACHES_MAX = 64
"""Different schema breaches remembered per link, so that each is logged once."""
OWN_CERTIFICATE = "ChargingStationCertificate"
"""The kind of certificate that profile 3 needs; the only one that is signed here."""
LOG_STATUSES = frozenset({"BadMessage", "NotSupportedOperation", "PermissionDenied"})
"""Of a log upload; the others are those of firmware, or of nothing (Idle)."""
DATA_MAX = 8192
"""DataTransfer data beyond this is dropped (faults.md I12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOptions:
    """What the site's configuration says about talking to one station.

    ``boot``: how BootNotification is answered in 2.x: ``accept``, ``pending`` (first
    configured, then accepted) or ``reject``. ``contracts``: whether Plug & Charge
    contracts count as usable although nobody here can verify them.
    """

    heartbeat_s: int = 300
    bare_mac: bool = True
    base32_tags: bool = False
    extractors: tuple[ExtractorRule, ...] = ()
    accepted_vendors: frozenset[str] = frozenset()
    boot: str = "accept"
    contracts: bool = False
    serials: tuple[str, ...] = ()


class SecurityDesk(Protocol):
    """Who takes what stations ask and report about their own security."""

    async def admitted(
        self, station_id: StationId, profile: int, password_hash: str
    ) -> None:
        """Take note of what a new connection proved. Raises StoreFault."""
        ...

    async def event_reported(
        self, station_id: StationId, kind: str, station_time: str, detail: str
    ) -> None:
        """Keep and grade a security event. Raises StoreFault."""
        ...

    async def certificate_wanted(
        self, station_id: StationId, csr: str, request_id: int | None
    ) -> bool:
        """Take a request for the station's own certificate; whether it will be signed."""
        ...

    def progressed(
        self, station_id: StationId, what: str, status: str, request_id: int | None
    ) -> None:
        """Hear how a log upload or a firmware update goes on."""
        ...


class NoDesk:
    """Nobody: events are logged, certificates are not to be had."""

    async def admitted(
        self, station_id: StationId, profile: int, password_hash: str
    ) -> None:
        """Forget it."""

    async def event_reported(
        self, station_id: StationId, kind: str, station_time: str, detail: str
    ) -> None:
        """Log it."""
        del station_time
        log.warning(
            "security_event_reported", station_id=station_id, kind=kind, reason=detail
        )

    async def certificate_wanted(
        self, station_id: StationId, csr: str, request_id: int | None
    ) -> bool:
        """Refuse: there is no signer."""
        del csr, request_id
        log.warning(
            "certificate_request_refused",
            station_id=station_id,
            reason="nobody here signs: see [ocpp.pki]",
        )
        return False

    def progressed(
        self, station_id: StationId, what: str, status: str, request_id: int | None
    ) -> None:
        """Log it."""
        del what, request_id
        log.info("station_notified", station_id=station_id, status=status)


NO_DESK = NoDesk()


@dataclass(slots=True, kw_only=True)
class Adapter:
    """Translates the messages of one station; one per link."""

    station_id: StationId
    sink: EventSink
    clock: Clock
    options: AdapterOptions
    on_boot: Callable[[], None]
    version: str = schemas.V16
    desk: SecurityDesk = NO_DESK
    hang_up: Callable[[str], None] = lambda _: None
    _breaches: set[str] = field(default_factory=set)

    def unknown(self, action: str) -> tuple[str, str]:
        """Code and words for an action that no handler takes."""
        is_known = schemas.is_action(self.version, action)
        log.info("action_unknown", station_id=self.station_id, action=action[:64])
        code = "NotSupported" if is_known else "NotImplemented"
        return code, f"{action[:64]} is not for a central system"

    def check(self, action: str, payload: Payload) -> None:
        """Record a breach of the schema, once per kind."""
        found = schemas.breach(self.version, action, payload)
        if found is None:
            return
        key = f"{action} {found.text[:60]}"
        if key not in self._breaches and len(self._breaches) < BREACHES_MAX:
            self._breaches.add(key)
            log.warning(
                "schema_breached",
                station_id=self.station_id,
                action=action,
                reason=found.text,
            )

    async def emit(self, event: events.Event) -> TransactionId | None:
        """Hand a fact over; returns after the commit. Raises StoreFault."""
        answer = await self.sink.handle(self.station_id, event)
        return answer.transaction_id

    def read_token(self, token: str, source: str, now: datetime) -> tuple[Evidence, ...]:
        """What a token of no special type says of the vehicle."""
        return read_token(
            token,
            source=source,
            at=now,
            bare_mac=self.options.bare_mac,
            is_base32=self.options.base32_tags,
        )

    async def note(self, text: str, evse_id: EvseId | None) -> None:
        """Record something odd about a message."""
        log.info(
            "anomaly_recorded",
            station_id=self.station_id,
            evse_id=evse_id,
            reason=text,
        )
        await self.emit(events.AnomalyNoted(text=text, evse_id=evse_id))

    # --- messages that are the same in all versions -------------------------------------

    async def data_transfer(self, payload: Payload, now: datetime) -> Payload:
        """DataTransfer: read by the configured extractors, else recorded (A4)."""
        vendor = as_text(payload.get("vendorId"))
        message = as_text(payload.get("messageId"))
        data = payload.get("data")
        size = len(data if isinstance(data, str) else orjson.dumps(data))
        if size > DATA_MAX:
            await self.note(f"DataTransfer of {size} characters dropped", None)
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
            await self.emit(
                events.EvidenceReported(
                    evidence=evidence,
                    evse_id=None if connector is None else EvseId(connector),
                    soc_percent=found.soc_percent,
                )
            )
        return {"status": str(DataTransferStatus.accepted.value)}

    async def notified(self, payload: Payload, _: datetime) -> Payload:
        """Firmware, log and other progress: recorded, answered, never refused."""
        status = as_text(payload.get("status"))[:40]
        request_id = payload.get("requestId")
        self.desk.progressed(
            self.station_id,
            "log" if "Upload" in status or status in LOG_STATUSES else "firmware",
            status,
            request_id if type(request_id) is int else None,
        )
        return {}

    async def security_event(self, payload: Payload, _: datetime) -> Payload:
        """SecurityEventNotification: refusing it would block the station (SEC-05)."""
        await self.desk.event_reported(
            self.station_id,
            as_text(payload.get("type"))[:50],
            as_text(payload.get("timestamp"))[:40],
            as_text(payload.get("techInfo"))[:255],
        )
        return {}

    async def sign_certificate(self, payload: Payload, _: datetime) -> Payload:
        """SignCertificate: answered at once, signed afterwards (whitepaper A02, A03)."""
        csr = payload.get("csr")
        kind = payload.get("certificateType") or OWN_CERTIFICATE
        request_id = payload.get("requestId")
        is_taken = False
        if isinstance(csr, str) and kind == OWN_CERTIFICATE:
            is_taken = await self.desk.certificate_wanted(
                self.station_id, csr, request_id if type(request_id) is int else None
            )
        else:
            log.warning(
                "certificate_request_refused",
                station_id=self.station_id,
                reason=f"certificates of the kind {as_text(kind)[:40]} are not signed here",
            )
        status = GenericStatus.accepted if is_taken else GenericStatus.rejected
        return {"status": str(status.value)}

    def is_foreign(self, serial: str) -> bool:
        """Whether a boot names another device than the one that may have this id.

        The link then ends (OCPP 2.1 B01.FR.12); a boot without a serial proves nothing.
        """
        expected = {item.casefold() for item in self.options.serials}
        if not serial or not expected - {serial.casefold()}:
            return False
        log.error(
            "station_serial_refused",
            station_id=self.station_id,
            reason=f"it booted as {serial[:64]!r}; expected is "
            f"{' and '.join(sorted(self.options.serials))[:128]}",
        )
        self.hang_up("another serial number is expected under this id")
        return True


def as_text(value: Any) -> str:
    """Peer text, cut; numbers are tolerated, everything else is nothing."""
    if type(value) is str:
        return value[:TEXT_MAX]
    if type(value) in (int, float):
        return str(value)[:TEXT_MAX]
    return ""


def as_register(value: float | None) -> float | None:
    """A register below zero means that the meter could not be read (C2)."""
    return None if value is None or not 0 <= value < NUMBER_MAX else value
