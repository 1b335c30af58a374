"""OCPP 1.6J: what a station sends -> domain events, and its answers.

A table of handlers by action. Payloads are read softly: a breach of the schema is
recorded, what can be used is used. Transaction messages are never answered with an
error (ocpp-depot.md C2): what does not fit is filed, not refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import UNSET
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus

from agent.domain import events
from agent.domain.events import ConnectorStatus
from agent.domain.ids import ConnectorId, EvseId, TransactionId
from agent.domain.station import EVSES_MAX
from agent.stations.adapter import Adapter, as_register, as_text
from agent.stations.framing import Call, Payload
from agent.stations.link import Reply
from agent.stations.quick16 import MeterValues, MeterValuesCall
from agent.stations.samples import Readings, read_meter_values, read_typed
from agent.stations.times import believable, parse_int, parse_number, utc_text

NOTHING = Reply({})
ACCEPTED: Payload = {"status": str(AuthorizationStatus.accepted.value)}
_STATUS = {item.value.lower(): item for item in ConnectorStatus}


@dataclass(slots=True, kw_only=True)
class Adapter16(Adapter):
    """Translates the messages of one 1.6 station; one per link."""

    async def handle(self, call: Call, _: str | bytes) -> Reply:
        """Answer one CALL; raises StoreFault when its facts are not on disk."""
        now = self.clock.now()
        if type(call) is MeterValuesCall:
            await self._metered(call.typed, now)
            return NOTHING
        handler = HANDLERS.get(call.action)
        if handler is None:
            return Reply(None, *self.unknown(call.action))
        self.check(call.action, call.payload)
        return Reply(await handler(self, call.payload, now))

    # --- Core -------------------------------------------------------------------

    async def boot(self, payload: Payload, now: datetime) -> Payload:
        """BootNotification: Accepted, then configured (C1); Rejected for another device."""
        serial = as_text(
            payload.get("chargePointSerialNumber") or payload.get("chargeBoxSerialNumber")
        )
        if self.is_foreign(serial):
            return {
                "status": str(RegistrationStatus.rejected.value),
                "currentTime": utc_text(now),
                "interval": self.options.heartbeat_s,
            }
        await self.emit(
            events.StationBooted(
                vendor=as_text(payload.get("chargePointVendor")),
                model=as_text(payload.get("chargePointModel")),
                serial=serial,
                firmware=as_text(payload.get("firmwareVersion")),
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
            await self.note(f"status for connector {_shown(connector)}", None)
            return {}
        word = as_text(payload.get("status")).lower()
        status = _STATUS.get(word, ConnectorStatus.UNKNOWN)
        error = as_text(payload.get("errorCode"))
        at, _ = believable(payload.get("timestamp") or utc_text(now), now)
        await self.emit(
            events.ConnectorChanged(
                evse_id=EvseId(connector),
                connector_id=ConnectorId(connector),
                status=status,
                at=at,
                error="" if error == "NoError" else error[:64],
                note=as_text(payload.get("info"))[:64],
            )
        )
        return {}

    async def authorize(self, payload: Payload, now: datetime) -> Payload:
        """Authorize: accepted by policy; the token may name the vehicle (A1)."""
        token = as_text(payload.get("idTag"))
        connector = parse_int(payload.get("connectorId"))
        evidence = self.read_token(token, "Authorize", now)
        if token:
            await self.emit(
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
        token = as_text(payload.get("idTag"))
        at, oddity = believable(payload.get("timestamp"), now)
        meter_start = parse_number(payload.get("meterStart"))
        transaction_id = self.sink.next_transaction_id()
        if connector is None or not 1 <= connector <= EVSES_MAX:
            await self.note(f"start at connector {_shown(connector)}", None)
            if connector != 0 and connector is not None:
                return {"transactionId": int(transaction_id), "idTagInfo": ACCEPTED}
            connector = 1
        given = str(payload.get("timestamp"))[:64]
        key = f"{connector}|{token.upper()}|{given}|{meter_start}"
        answer = await self.emit(
            events.TransactionStarted(
                evse_id=EvseId(connector),
                connector_id=ConnectorId(connector),
                new_transaction_id=transaction_id,
                key=key,
                at=at,
                id_token=token,
                meter_start_wh=as_register(meter_start),
                evidence=self.read_token(token, "StartTransaction", now),
            )
        )
        if oddity is not None:
            await self.note(oddity, EvseId(connector))
        return {"transactionId": int(answer or transaction_id), "idTagInfo": ACCEPTED}

    async def meter_values(self, payload: Payload, now: datetime) -> Payload:
        """MeterValues: readings are stored before the answer leaves."""
        read = read_meter_values(payload.get("meterValue"), now)
        connector = parse_int(payload.get("connectorId"))
        await self._sampled(*read, connector, payload.get("transactionId"))
        return {}

    def _metered(self, values: MeterValues, now: datetime) -> Coroutine[Any, Any, None]:
        """MeterValues that keep the schema, which need no second look."""
        read = read_typed(values.meter_value, now)
        transaction = values.transaction_id
        return self._sampled(
            *read, values.connector_id, None if transaction is UNSET else transaction
        )

    async def _sampled(
        self,
        readings: Readings,
        problem: str | None,
        connector: int | None,
        transaction: object,
    ) -> None:
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
            await self.note(problem, EvseId(connector) if connector else None)

    async def stop(self, payload: Payload, now: datetime) -> Payload:
        """StopTransaction: cannot be prevented and is always accepted."""
        at, oddity = believable(payload.get("timestamp"), now)
        readings, _ = read_meter_values(payload.get("transactionData") or [], now)
        await self.emit(
            events.TransactionEnded(
                transaction_id=TransactionId(as_text(payload.get("transactionId"))[:40]),
                at=at,
                meter_stop_wh=as_register(parse_number(payload.get("meterStop"))),
                reason=as_text(payload.get("reason"))[:40] or "Local",
                id_token=as_text(payload.get("idTag")),
                readings=readings,
            )
        )
        if oddity is not None:
            await self.note(oddity, None)
        return {"idTagInfo": ACCEPTED} if payload.get("idTag") else {}


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


def _shown(connector: int | None) -> str:
    return "(missing)" if connector is None else str(connector)[:20]
