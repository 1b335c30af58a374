"""OCPP 2.0.1 and 2.1: what a station sends -> domain events, and its answers.

The same events as 1.6, so that nothing behind this module knows the version. The
station numbers its transactions; what it says of them is one event type, placed and
ordered by the domain. ocpp-depot.md A6 to A8, C3, C4; charger-quirks.md section 17.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from ocpp.v21 import enums as v21
from ocpp.v21.enums import Action as Action21
from ocpp.v201 import enums as v201
from ocpp.v201.enums import Action as Action201

from agent.domain import events
from agent.domain.curve import Curve, edges, value_at
from agent.domain.errors import StationFault
from agent.domain.events import ChargingState, ConnectorStatus, TransactionStep
from agent.domain.identity import Evidence
from agent.domain.ids import ConnectorId, EvseId, TransactionId
from agent.domain.station import EVSES_MAX
from agent.stations import schemas
from agent.stations.adapter import Adapter, as_text
from agent.stations.framing import Call, Payload
from agent.stations.link import Reply
from agent.stations.samples import read_meter_values_2x
from agent.stations.times import (
    WHOLE_MAX,
    believable,
    parse_int,
    parse_number,
    utc_text,
)
from agent.stations.v2_needs import (
    lowest_w,
    read_needs,
    read_schedule,
    schedule_end_s,
)
from agent.stations.v2_tokens import token_evidence, token_text, vehicle_id_evidence

log = structlog.get_logger()

PENDING_S, REJECTED_S = 30, 300
"""When a station that was not accepted shall boot again, seconds."""
TRANSACTION_ID_MAX = 40
"""The standard says 36; a little more is kept, so that ids stay different."""
EVENTS_MAX = 100
"""Entries of one NotifyEvent that are read."""
SCHEDULE_FACTOR, SCHEDULE_MARGIN_W = 1.02, 100.0
"""A vehicle's schedule may round: this much above our limit is not above it (B12)."""

ACCEPTED: Payload = {"status": str(v201.AuthorizationStatusEnumType.accepted.value)}
INVALID: Payload = {"status": str(v201.AuthorizationStatusEnumType.invalid.value)}
EARLY_ALLOWED = frozenset(
    {"BootNotification", "NotifyReport", "NotifyMonitoringReport", "ReportChargingProfiles"}
)
"""What a station in Pending may send: answers to what it was asked (B02.FR.09)."""
_STATUS = {item.value.lower(): item for item in ConnectorStatus}
_STATES = {item.value: item for item in ChargingState}
_STEPS = {item.value: item for item in TransactionStep}


@dataclass(slots=True, kw_only=True)
class Hooks2:
    """What a 2.x adapter needs of the rest of its link; all of them return at once.

    ``plugged``, ``charging`` and ``unplugged`` let the vehicle's id be asked for.
    ``allowed`` is what an EVSE's profile allows, W. ``fast_limit`` is the limit of one
    of our Dynamic profiles now, by profile id.
    """

    report: Callable[[Payload], None]
    profiles: Callable[[Payload], None]
    plugged: Callable[[EvseId], None]
    charging: Callable[[EvseId], None]
    unplugged: Callable[[EvseId], None]
    allowed: Callable[[EvseId], Curve | None]
    has_transaction: Callable[[EvseId], bool]
    fast_limit: Callable[[int], Payload | None]


@dataclass(slots=True, kw_only=True)
class Adapter2(Adapter):
    """Translates the messages of one 2.0.1 or 2.1 station; one per link."""

    hooks: Hooks2
    is_configured: bool = False
    _handlers: dict[str, HandlerMethod] = field(init=False)
    _is_closed: bool = field(init=False)
    _outlet_of: dict[str, EvseId] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose the handlers of the version; a rejected station starts behind the gate."""
        self._handlers = HANDLERS[self.version]
        self._is_closed = self.options.boot == "reject"

    @property
    def is_open(self) -> bool:
        """Whether the station was accepted, as far as this link knows."""
        return not self._is_closed

    async def handle(self, call: Call, _: str | bytes) -> Reply:
        """Answer one CALL; raises StoreFault when its facts are not on disk."""
        action = call.action
        handler = self._handlers.get(action)
        if self._is_closed and not self._is_early(action):
            log.info("early_call_refused", station_id=self.station_id, action=action[:64])
            return Reply(None, "SecurityError", "the station was not accepted yet")
        if handler is None:
            return Reply(None, *self.unknown(action))
        now = self.clock.now()
        self.check(action, call.payload)
        try:
            return Reply(await handler(self, call.payload, now))
        except StationFault as fault:
            return Reply(None, "FormationViolation", str(fault))

    def _is_early(self, action: str) -> bool:
        if self.options.boot == "reject":
            return action == "BootNotification"
        return action in EARLY_ALLOWED

    # --- provisioning -----------------------------------------------------------------

    async def boot(self, payload: Payload, now: datetime) -> Payload:
        """BootNotification: Accepted, or by configuration Pending first, or Rejected."""
        station = _dict(payload.get("chargingStation"))
        if self.is_foreign(as_text(station.get("serialNumber"))):
            self._is_closed = True
            return {
                "status": str(v201.RegistrationStatusEnumType.rejected.value),
                "currentTime": utc_text(now),
                "interval": REJECTED_S,
            }
        await self.emit(
            events.StationBooted(
                vendor=as_text(station.get("vendorName")),
                model=as_text(station.get("model")),
                serial=as_text(station.get("serialNumber")),
                firmware=as_text(station.get("firmwareVersion")),
            )
        )
        status, interval_s = v201.RegistrationStatusEnumType.accepted, 0
        if self.options.boot == "reject":
            status, interval_s = v201.RegistrationStatusEnumType.rejected, REJECTED_S
        elif self.options.boot == "pending" and not self.is_configured:
            status, interval_s = v201.RegistrationStatusEnumType.pending, PENDING_S
        self._is_closed = interval_s > 0
        if status is not v201.RegistrationStatusEnumType.rejected:
            self.on_boot()
        if self._is_closed:
            log.info(
                "station_not_accepted", station_id=self.station_id, status=status.value
            )
        return {
            "status": str(status.value),
            "currentTime": utc_text(now),
            "interval": interval_s or self.options.heartbeat_s,
        }

    async def heartbeat(self, _: Payload, now: datetime) -> Payload:
        """Heartbeat: the station may set its clock by the answer."""
        return {"currentTime": utc_text(now)}

    async def report(self, payload: Payload, _: datetime) -> Payload:
        """NotifyReport: a part of the device model."""
        self.hooks.report(payload)
        return {}

    async def profiles(self, payload: Payload, _: datetime) -> Payload:
        """ReportChargingProfiles: what is installed."""
        self.hooks.profiles(payload)
        return {}

    async def status(self, payload: Payload, now: datetime) -> Payload:
        """StatusNotification: five states; EVSE 0 is the station (V2-03)."""
        evse = parse_int(payload.get("evseId"))
        connector = parse_int(payload.get("connectorId"))
        word = as_text(payload.get("connectorStatus"))
        await self._status(evse, connector, word, payload.get("timestamp"), now)
        return {}

    async def _status(
        self, evse: int | None, connector: int | None, word: str, at: Any, now: datetime
    ) -> None:
        if evse is None or not 0 <= evse <= EVSES_MAX:
            await self.note(f"status for EVSE {str(evse)[:20]}", None)
            return
        status = _STATUS.get(word.lower(), ConnectorStatus.UNKNOWN)
        shown_at, _ = believable(at or utc_text(now), now)
        await self.emit(
            events.ConnectorChanged(
                evse_id=EvseId(evse),
                connector_id=ConnectorId(connector or 0),
                status=status,
                at=shown_at,
            )
        )
        if evse == 0:
            return
        if status is ConnectorStatus.AVAILABLE:
            self.hooks.unplugged(EvseId(evse))
        elif status.opens_session:
            self.hooks.plugged(EvseId(evse))

    async def notify_event(self, payload: Payload, now: datetime) -> Payload:
        """NotifyEvent: states (preferred in 2.1) and the vehicle's own data."""
        data = payload.get("eventData")
        for raw in (data if isinstance(data, list) else [])[:EVENTS_MAX]:
            item = _dict(raw)
            component = _dict(item.get("component"))
            evse = _dict(component.get("evse"))
            evse_id = parse_int(evse.get("id"))
            name = as_text(component.get("name")).lower()
            variable = as_text(_dict(item.get("variable")).get("name")).lower()
            value = as_text(item.get("actualValue"))
            if variable == "availabilitystate" and name in ("connector", "evse"):
                connector = parse_int(evse.get("connectorId"))
                await self._status(evse_id, connector, value, item.get("timestamp"), now)
            elif name == "connectedev" and evse_id is not None:
                await self._vehicle_data(EvseId(evse_id), variable, value, now)
        log.info("station_notified", station_id=self.station_id, status="event")
        return {}

    async def _vehicle_data(
        self, evse_id: EvseId, variable: str, value: str, now: datetime
    ) -> None:
        evidence: tuple[Evidence, ...] = ()
        soc: float | None = None
        if variable == "vehicleid":
            evidence = vehicle_id_evidence(value, source="ConnectedEV", at=now)
        elif variable == "stateofcharge":
            soc = parse_number(value)
        if evidence or soc is not None:
            await self.emit(
                events.EvidenceReported(evidence=evidence, evse_id=evse_id, soc_percent=soc)
            )

    # --- authorisation ----------------------------------------------------------------

    async def authorize(self, payload: Payload, now: datetime) -> Payload:
        """Authorize: accepted by policy; contracts only as far as they can be verified."""
        token = payload.get("idToken")
        text = token_text(token)
        if text:
            await self.emit(
                events.IdTokenPresented(
                    id_token=text,
                    evidence=token_evidence(
                        token, source="Authorize", at=now, options=self.options
                    ),
                )
            )
        if payload.get("iso15118CertificateHashData") or payload.get("certificate"):
            return self._contract()
        return {"idTokenInfo": ACCEPTED}

    def _contract(self) -> Payload:
        """Plug & Charge without a contract back end: not verifiable, and said so (A7)."""
        if self.options.contracts:
            accepted = v201.AuthorizeCertificateStatusEnumType.accepted
            return {"idTokenInfo": ACCEPTED, "certificateStatus": str(accepted.value)}
        log.info(
            "contract_refused",
            station_id=self.station_id,
            reason="no contract back end here can verify the certificate chain",
        )
        failed = v201.AuthorizeCertificateStatusEnumType.cert_chain_error
        return {"idTokenInfo": INVALID, "certificateStatus": str(failed.value)}

    async def ev_certificate(self, _: Payload, __: datetime) -> Payload:
        """Get15118EVCertificate: needs a contract back end (A7)."""
        failed = v201.Iso15118EVCertificateStatusEnumType.failed
        return {"status": str(failed.value), "exiResponse": ""}

    async def certificate_status(self, _: Payload, __: datetime) -> Payload:
        """GetCertificateStatus: nobody here can ask an OCSP responder."""
        failed = v201.GetCertificateStatusEnumType.failed
        return {"status": str(failed.value)}

    async def chain_status(self, payload: Payload, now: datetime) -> Payload:
        """GetCertificateChainStatus (2.1): every certificate is unknown to us.

        Raises StationFault when none is named: there is no valid answer without one.
        """
        requests = payload.get("certificateStatusRequests")
        unknown = str(v21.CertificateStatusEnumType.unknown.value)
        name = str(Action21.get_certificate_chain_status.value)
        found = [
            {
                "certificateHashData": item["certificateHashData"],
                "source": item["source"],
                "status": unknown,
                "nextUpdate": utc_text(now),
            }
            for item in (requests if isinstance(requests, list) else [])[:4]
            if schemas.breach(self.version, name, {"certificateStatusRequests": [item]})
            is None
        ]
        if not found:
            raise StationFault("no certificate is named")
        return {"certificateStatus": found}

    # --- transactions -----------------------------------------------------------------

    async def transaction(self, payload: Payload, now: datetime) -> Payload:
        """TransactionEvent: stored before it is answered, never refused."""
        get = payload.get
        info = get("transactionInfo")
        info = info if type(info) is dict else {}
        transaction_id = as_text(info.get("transactionId"))[:TRANSACTION_ID_MAX]
        step = _STEPS.get(as_text(get("eventType")))
        token = get("idToken")
        if not transaction_id or step is None:
            await self.note("a transaction event without its transaction or type", None)
            return {} if token is None else {"idTokenInfo": ACCEPTED}
        at, oddity = believable(get("timestamp"), now)
        values = get("meterValue")
        readings, problem = ((), None) if not values else read_meter_values_2x(values, now)
        state = info.get("chargingState")
        evse_id, connector_id = _outlet(get("evse"))
        evidence: tuple[Evidence, ...] = ()
        if token is not None:
            evidence = token_evidence(
                token, source="TransactionEvent", at=now, options=self.options
            )
        seq_no = get("seqNo")
        event = events.TransactionReported(
            transaction_id=TransactionId(transaction_id),
            step=step,
            at=at,
            seq_no=seq_no if type(seq_no) is int and 0 <= seq_no <= WHOLE_MAX else None,
            trigger=as_text(get("triggerReason"))[:40],
            offline=get("offline") is True,
            evse_id=evse_id,
            connector_id=connector_id,
            charging_state=_STATES.get(state) if type(state) is str else None,
            reason=as_text(info.get("stoppedReason"))[:40],
            id_token="" if token is None else token_text(token),
            evidence=evidence,
            readings=readings,
        )
        await self.sink.handle(self.station_id, event)
        evse_id = self._remembered(event)
        self._tell_asker(event, evse_id)
        problem = oddity or problem
        if problem is not None:
            await self.note(problem, evse_id)
        return {} if token is None else {"idTokenInfo": ACCEPTED}

    def _remembered(self, event: events.TransactionReported) -> EvseId | None:
        """The EVSE of a transaction, which is named once (V2-01)."""
        if event.evse_id is None:
            return self._outlet_of.get(event.transaction_id)
        if len(self._outlet_of) > 4 * EVSES_MAX:
            self._outlet_of.clear()
        self._outlet_of[event.transaction_id] = event.evse_id
        return event.evse_id

    def _tell_asker(
        self, event: events.TransactionReported, evse_id: EvseId | None
    ) -> None:
        """Let the vehicle's id be asked for at plug-in and when power flows (A6)."""
        if evse_id is None or event.offline:
            return
        is_over = event.step is TransactionStep.ENDED
        if is_over:
            self._outlet_of.pop(event.transaction_id, None)
        if event.charging_state is ChargingState.IDLE:
            self.hooks.unplugged(evse_id)
        elif is_over:
            return
        elif event.charging_state is ChargingState.CHARGING:
            self.hooks.charging(evse_id)
        elif event.charging_state is not None or event.trigger == "CablePluggedIn":
            self.hooks.plugged(evse_id)

    async def meter_values(self, payload: Payload, now: datetime) -> Payload:
        """MeterValues: clock-aligned readings outside of transactions."""
        readings, problem = read_meter_values_2x(payload.get("meterValue"), now)
        evse = parse_int(payload.get("evseId"))
        evse_id = None if evse is None else EvseId(evse)
        if readings:
            await self.sink.handle(
                self.station_id, events.MeterSampled(readings=readings, evse_id=evse_id)
            )
        if problem is not None:
            await self.note(problem, evse_id)
        return {}

    # --- smart charging ---------------------------------------------------------------

    async def needs(self, payload: Payload, now: datetime) -> Payload:
        """NotifyEVChargingNeeds: a schedule follows at once, or when the start is known."""
        evse = parse_int(payload.get("evseId"))
        status = v201.NotifyEVChargingNeedsStatusEnumType.processing
        if evse is not None and 1 <= evse <= EVSES_MAX:
            await self.emit(
                events.ChargingNeedsReported(
                    evse_id=EvseId(evse), needs=read_needs(payload, now)
                )
            )
            if self.hooks.has_transaction(EvseId(evse)):
                status = v201.NotifyEVChargingNeedsStatusEnumType.accepted
        return {"status": str(status.value)}

    async def ev_schedule(self, payload: Payload, now: datetime) -> Payload:
        """NotifyEVChargingSchedule: refused above what was allowed (K15.FR.11)."""
        evse = parse_int(payload.get("evseId"))
        starts_at, _ = believable(payload.get("timeBase"), now)
        schedule = payload.get("chargingSchedule")
        wants = read_schedule(schedule, starts_at)
        until_s = schedule_end_s(schedule, starts_at)
        allowed = self.hooks.allowed(EvseId(evse)) if evse is not None else None
        if wants is None or allowed is None or not _is_above(wants, allowed, now, until_s):
            return {"status": str(v201.GenericStatusEnumType.accepted.value)}
        log.warning(
            "ev_schedule_refused",
            station_id=self.station_id,
            evse_id=evse,
            reason="the vehicle means to draw more than its profile allows",
        )
        if evse is not None and evse > 0:
            await self.emit(events.LimitDoubted(evse_id=EvseId(evse), reason="EV schedule"))
        return {"status": str(v201.GenericStatusEnumType.rejected.value)}

    async def external_limit(self, payload: Payload, now: datetime) -> Payload:
        """NotifyChargingLimit: another master lowers our own budget."""
        limit = _dict(payload.get("chargingLimit"))
        source = as_text(limit.get("chargingLimitSource"))[:20]
        limit_w = lowest_w(payload.get("chargingSchedule"), now)
        evse = parse_int(payload.get("evseId")) or 0
        if limit_w is None:
            log.info(
                "external_limit_unknown",
                station_id=self.station_id,
                evse_id=evse,
                source=source,
            )
            return {}
        if 0 <= evse <= EVSES_MAX:
            await self.emit(
                events.ExternalLimitChanged(
                    evse_id=EvseId(evse), source=source, limit_w=limit_w
                )
            )
        return {}

    async def external_limit_gone(self, payload: Payload, _: datetime) -> Payload:
        """ClearedChargingLimit: the other master let go, at an outlet that can be read."""
        given = payload.get("evseId")
        evse = 0 if given is None else parse_int(given)
        source = as_text(payload.get("chargingLimitSource"))[:20]
        if evse is None or not 0 <= evse <= EVSES_MAX:
            await self.note(f"a limit of {source} cleared at EVSE {str(given)[:20]}", None)
            return {}
        await self.emit(
            events.ExternalLimitChanged(evse_id=EvseId(evse), source=source, limit_w=None)
        )
        return {}

    async def pull(self, payload: Payload, _: datetime) -> Payload:
        """PullDynamicScheduleUpdate (2.1): the limit of our Dynamic profile now."""
        profile_id = parse_int(payload.get("chargingProfileId"))
        update = self.hooks.fast_limit(profile_id) if profile_id is not None else None
        if update is None:
            return {"status": str(v21.ChargingProfileStatusEnumType.rejected.value)}
        return {
            "status": str(v21.ChargingProfileStatusEnumType.accepted.value),
            "scheduleUpdate": update,
        }

    # --- the rest ---------------------------------------------------------------------

    async def acknowledged(self, payload: Payload, _: datetime) -> Payload:
        """Take note of what asks for nothing."""
        log.info(
            "station_notified",
            station_id=self.station_id,
            status=as_text(payload.get("status"))[:40],
        )
        return {}

    async def open_stream(self, _: Payload, __: datetime) -> Payload:
        """OpenPeriodicEventStream: nobody here asked for one."""
        return {"status": str(v21.GenericStatusEnumType.rejected.value)}

    async def vat(self, payload: Payload, _: datetime) -> Payload:
        """VatNumberValidation: there is no shop here."""
        return {
            "status": str(v21.GenericStatusEnumType.rejected.value),
            "vatNumber": as_text(payload.get("vatNumber"))[:20],
        }


HandlerMethod = Callable[[Adapter2, Payload, datetime], Awaitable[Payload]]

_BOTH: dict[Action201, HandlerMethod] = {
    Action201.authorize: Adapter2.authorize,
    Action201.boot_notification: Adapter2.boot,
    Action201.cleared_charging_limit: Adapter2.external_limit_gone,
    Action201.data_transfer: Adapter2.data_transfer,
    Action201.firmware_status_notification: Adapter2.notified,
    Action201.get_15118_ev_certificate: Adapter2.ev_certificate,
    Action201.get_certificate_status: Adapter2.certificate_status,
    Action201.heartbeat: Adapter2.heartbeat,
    Action201.log_status_notification: Adapter2.notified,
    Action201.meter_values: Adapter2.meter_values,
    Action201.notify_charging_limit: Adapter2.external_limit,
    Action201.notify_customer_information: Adapter2.acknowledged,
    Action201.notify_display_messages: Adapter2.acknowledged,
    Action201.notify_ev_charging_needs: Adapter2.needs,
    Action201.notify_ev_charging_schedule: Adapter2.ev_schedule,
    Action201.notify_event: Adapter2.notify_event,
    Action201.notify_monitoring_report: Adapter2.acknowledged,
    Action201.notify_report: Adapter2.report,
    Action201.publish_firmware_status_notification: Adapter2.notified,
    Action201.report_charging_profiles: Adapter2.profiles,
    Action201.reservation_status_update: Adapter2.acknowledged,
    Action201.security_event_notification: Adapter2.security_event,
    Action201.sign_certificate: Adapter2.sign_certificate,
    Action201.status_notification: Adapter2.status,
    Action201.transaction_event: Adapter2.transaction,
}
_NEW_IN_21: dict[Action21, HandlerMethod] = {
    Action21.battery_swap: Adapter2.acknowledged,
    Action21.close_periodic_event_stream: Adapter2.acknowledged,
    Action21.get_certificate_chain_status: Adapter2.chain_status,
    Action21.notify_der_alarm: Adapter2.acknowledged,
    Action21.notify_der_start_stop: Adapter2.acknowledged,
    Action21.notify_priority_charging: Adapter2.acknowledged,
    Action21.notify_settlement: Adapter2.acknowledged,
    Action21.notify_web_payment_started: Adapter2.acknowledged,
    Action21.open_periodic_event_stream: Adapter2.open_stream,
    Action21.pull_dynamic_schedule_update: Adapter2.pull,
    Action21.report_der_control: Adapter2.acknowledged,
    Action21.vat_number_validation: Adapter2.vat,
}
_COMMON = {str(action.value): method for action, method in _BOTH.items()}
HANDLERS: dict[str, dict[str, HandlerMethod]] = {
    schemas.V201: _COMMON,
    schemas.V21: {
        **_COMMON,
        **{str(action.value): method for action, method in _NEW_IN_21.items()},
        schemas.SEND_ONLY: Adapter2.acknowledged,
    },
}
"""Every message that a station may send of its own accord, per version."""


def _outlet(evse: Any) -> tuple[EvseId | None, ConnectorId | None]:
    """EVSE and connector of an EVSEType; None where there is none."""
    if type(evse) is not dict:
        return None, None
    number = parse_int(evse.get("id"))
    if number is None or not 1 <= number <= EVSES_MAX:
        return None, None
    connector = parse_int(evse.get("connectorId"))
    is_good = connector is not None and 0 < connector <= EVSES_MAX
    return EvseId(number), ConnectorId(connector) if is_good and connector else None


def _is_above(wants: Curve, allowed: Curve, now: datetime, until_s: int) -> bool:
    from_s = int(now.timestamp())
    return any(
        value_at(wants, at_s)
        > value_at(allowed, at_s) * SCHEDULE_FACTOR + SCHEDULE_MARGIN_W
        for at_s in edges([wants, allowed], from_s)
        if at_s < until_s
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
