"""Smartcar's webhooks: what a dashboard would set up, and the sender of deliveries.

A delivery is tried at 0, +25, +50 and +100 s of the clock; a 2xx within 15 real seconds
ends it (smartcar.md section 10). Ordered misbehaviour: duplicates, a wrong signature,
and events that are held and let go in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import orjson

from agent.standin.smartcar_errors import RETRY_LATER, SmartcarError
from agent.standin.smartcar_signals import webhook_signal

if TYPE_CHECKING:
    from datetime import datetime

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import StandinCar
    from agent.standin.smartcar_state import SmartcarStandin, Webhook

GAPS_S = (25.0, 50.0, 100.0)
"""Between the four attempts: 2 min 55 s in all, then the payload is lost."""
ANSWER_REAL_S = 15.0
EVENTS_MAX = 1000
DELIVERIES_MAX = 5000
"""Bounds of what is waiting and of what is remembered; the oldest goes first."""
USER_AGENT = "Smartcar/1.0"
VERSION = "4.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt; `status` is 0 when there was no answer."""

    at: datetime
    webhook_id: str
    event_id: str
    delivery_id: str
    attempt: int
    status: int

    def json(self) -> JsonObject:
        """Return it for the control face."""
        return {
            "at": self.at.isoformat(),
            "webhookId": self.webhook_id,
            "eventId": self.event_id,
            "deliveryId": self.delivery_id,
            "attempt": self.attempt,
            "status": self.status,
        }


def signature(key: str, text: bytes) -> str:
    """Return the hex HMAC-SHA256 that a receiver must check."""
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


@dataclass(slots=True)
class WebhookSender:
    """Makes events of reports and delivers them; `run` until cancelled."""

    cloud: SmartcarStandin
    client: httpx.AsyncClient | None = None
    duplicates: int = 0
    """How often each delivered event is sent once more."""
    bad_signatures: int = 0
    """How many of the next attempts carry a wrong signature."""
    is_holding: bool = False
    deliveries: deque[Delivery] = field(
        default_factory=lambda: deque(maxlen=DELIVERIES_MAX)
    )
    _waiting: deque[tuple[Webhook, JsonObject]] = field(
        default_factory=lambda: deque(maxlen=EVENTS_MAX)
    )
    _told: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    _is_due: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0

    def __post_init__(self) -> None:
        """Hear of reports."""
        self.cloud.on_report.append(self._reported)

    async def run(self) -> None:
        """Deliver what waits, each event on its own, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._is_due.wait()
                    self._is_due.clear()
                    while self._waiting and not self.is_holding:
                        webhook, event = self._waiting.popleft()
                        tasks.create_task(self.deliver(webhook, event))
        finally:
            if self.client is not None:
                await self.client.aclose()
                self.client = None

    def release(self, *, reverse: bool = False) -> None:
        """Let held events go, in reverse if wanted."""
        self.is_holding = False
        if reverse:
            self._waiting.reverse()
        self._is_due.set()

    async def verify(self, webhook: Webhook, challenge: str = "") -> bool:
        """Send the challenge, unsigned; tell whether the answer proves the owner."""
        challenge = challenge or f"{self._next('challenge')}"
        event: JsonObject = {
            "eventId": self._next("event"),
            "eventType": "VERIFY",
            "data": {"challenge": challenge},
            "meta": self._meta(webhook),
        }
        answer = await self._post(webhook, event, attempt=1)
        wanted = {"challenge": signature(self.cloud.management_token, challenge.encode())}
        webhook.is_verified = _proves(answer, wanted)
        return webhook.is_verified

    async def deliver(self, webhook: Webhook, event: JsonObject) -> bool:
        """Try to deliver an event; tell whether it was taken in the end."""
        for attempt, gap_s in enumerate((*GAPS_S, 0.0), start=1):
            answer = await self._post(webhook, event, attempt=attempt)
            if answer is not None and answer.is_success:
                for _ in range(self.duplicates):
                    await self._post(webhook, event, attempt=attempt)
                return True
            await self.cloud.pause(gap_s)
        return False

    def tell(self, webhook: Webhook, car: StandinCar, changed: list[str]) -> JsonObject:
        """Queue a state event that was triggered by these signals; none: the first."""
        triggers: list[JsonObject] = [
            {
                "type": "SIGNAL_UPDATED",
                "signal": _ref(webhook_signal(self.cloud, car, code)),
            }
            for code in changed
        ] or [{"type": "FIRST_DELIVERY"}]
        signals = [row for code in webhook.data if (row := self._signal(car, code))]
        event: JsonObject = {
            "eventId": self._next("event"),
            "eventType": "VEHICLE_STATE",
            "data": {
                "user": {"id": car.user_id},
                "vehicle": _vehicle(car),
                "signals": signals,
            },
            "triggers": triggers,
            "meta": {**self._meta(webhook), "signalCount": len(signals)},
        }
        return self._queue(webhook, event)

    def tell_error(
        self, webhook: Webhook, car: StandinCar, name: str, *, is_resolved: bool = False
    ) -> JsonObject:
        """Queue an error event with a row of the error table, or its resolution."""
        error = SmartcarError(name)
        event: JsonObject = {
            "eventId": self._next("event"),
            "eventType": "VEHICLE_ERROR",
            "data": {
                "user": {"id": car.user_id},
                "vehicle": _vehicle(car),
                "errors": [
                    {
                        "type": error.type,
                        "code": error.code,
                        "description": error.detail,
                        "docURL": "https://smartcar.com/docs/errors",
                        "resolution": {"type": error.resolution or RETRY_LATER},
                        "suggestedUserMessage": error.detail,
                        "state": "RESOLVED" if is_resolved else "ERROR",
                        "signals": ["TractionBattery.StateOfCharge"],
                    }
                ],
            },
            "meta": self._meta(webhook),
        }
        return self._queue(webhook, event)

    def _queue(self, webhook: Webhook, event: JsonObject) -> JsonObject:
        self._waiting.append((webhook, event))
        self._is_due.set()
        return event

    def _reported(self, car: StandinCar) -> None:
        """Make an event for each webhook that hears of this car, if something changed."""
        for webhook in self.cloud.webhooks.values():
            if not webhook.is_heard or not self._is_subscribed(webhook, car):
                continue
            now = {code: self._signal(car, code).get("body") for code in webhook.triggers}
            before = self._told.get((webhook.id, car.vehicle_id))
            self._told[webhook.id, car.vehicle_id] = now
            if before is None:
                self.tell(webhook, car, [])
                continue
            changed = [code for code in webhook.triggers if now[code] != before.get(code)]
            if changed:
                self.tell(webhook, car, changed)

    def _is_subscribed(self, webhook: Webhook, car: StandinCar) -> bool:
        if webhook.auto_subscribe and car.mode == "live":
            return True
        return any(
            row["attributes"]["webhookId"] == webhook.id
            and row["attributes"]["vehicleId"] == car.vehicle_id
            for row in self.cloud.subscriptions.values()
        )

    def _signal(self, car: StandinCar, code: str) -> JsonObject:
        try:
            return webhook_signal(self.cloud, car, code)
        except SmartcarError:
            return {}

    async def _post(
        self, webhook: Webhook, event: JsonObject, *, attempt: int
    ) -> httpx.Response | None:
        if self.client is None:
            self.client = httpx.AsyncClient(trust_env=False)
        now = self.cloud.clock.now()
        delivery_id = self._next("delivery")
        delivered = {"deliveryId": delivery_id, "deliveredAt": _ms(now)}
        body = orjson.dumps({**event, "meta": {**event["meta"], **delivered}})
        headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        if event["eventType"] != "VERIFY":
            headers["SC-Signature"] = self._signed(body)
        answer = None
        with contextlib.suppress(httpx.HTTPError):
            answer = await self.client.post(
                webhook.callback_uri, content=body, headers=headers, timeout=ANSWER_REAL_S
            )
        self.deliveries.append(
            Delivery(
                at=now,
                webhook_id=webhook.id,
                event_id=str(event["eventId"]),
                delivery_id=delivery_id,
                attempt=attempt,
                status=0 if answer is None else answer.status_code,
            )
        )
        return answer

    def _signed(self, body: bytes) -> str:
        if self.bad_signatures > 0:
            self.bad_signatures -= 1
            return signature("another-token", body)
        return signature(self.cloud.management_token, body)

    def _meta(self, webhook: Webhook) -> JsonObject:
        self._count += 1
        return {
            "version": VERSION,
            "webhookId": webhook.id,
            "webhookName": webhook.name,
            "mode": "LIVE",
            "sequence": self._count,
        }

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._count}"


def _proves(answer: httpx.Response | None, wanted: JsonObject) -> bool:
    if answer is None or answer.status_code != httpx.codes.OK:
        return False
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return False
    try:
        return bool(orjson.loads(answer.content) == wanted)
    except orjson.JSONDecodeError:
        return False


def _ref(signal: JsonObject) -> JsonObject:
    return {key: signal[key] for key in ("code", "name", "group")}


def _vehicle(car: StandinCar) -> JsonObject:
    return {
        "id": car.vehicle_id,
        "make": car.make,
        "model": car.model,
        "year": int(car.year),
        "mode": car.mode,
        "powertrainType": car.powertrain,
    }


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
