"""The stand-in Smartcar itself: cars, tokens, limits, switches, and what is to come.

Holds everything in memory; `smartcar` puts it on HTTP. Time comes from the clock it is
given: `settle` brings cars, reports and delayed effects up to it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from agent.standin.smartcar_faults import CallLog, CarFaults
from agent.standin.smartcar_limits import Limits, LimitSet
from agent.standin.smartcar_tokens import AppTokens, UserTokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.standin.clock import StandinClock
    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import StandinCar

CLIENT_ID = "client_standin"
CLIENT_SECRET = "standin-client-secret"  # noqa: S105 a stand-in's
V2_CLIENT_ID = "0b7d7a3e-0000-4000-8000-000000000001"
MANAGEMENT_TOKEN = "standin-management-token"  # noqa: S105 a stand-in's
LATE_AFTER_S = 175.0
"""Commands that take longer answer 202 and stream the rest (field report)."""
LOOK_REAL_S = 0.005
"""How often a pause looks at the clock; the clock may run fast or be moved by hand."""

Encoding = Literal["iso", "ms", "s", "null"]
TRIGGERS = (
    "tractionbattery-stateofcharge", "charge-ischargingcableconnected",
    "charge-ischarging", "charge-chargelimits",
)  # fmt: skip
"""The useful triggers of smartcar.md 10, and what is told with them."""


@dataclass(slots=True, kw_only=True)
class Webhook:
    """One webhook of the dashboard; silent until it is enabled and verified."""

    id: str
    callback_uri: str
    name: str = "standin-webhook"
    is_enabled: bool = True
    is_verified: bool = False
    auto_subscribe: bool = False
    triggers: tuple[str, ...] = TRIGGERS
    data: tuple[str, ...] = TRIGGERS

    @property
    def is_heard(self) -> bool:
        """Whether anything would be sent: either list missing makes it silent."""
        return self.is_enabled and self.is_verified and bool(self.triggers and self.data)

    def json(self) -> JsonObject:
        """Return it as the management API shows it: without the verification."""
        return {
            "id": self.id,
            "type": "webhook",
            "attributes": {
                "name": self.name,
                "callbackUri": self.callback_uri,
                "errorCallbackUri": None,
                "isEnabled": self.is_enabled,
                "autoSubscribe": self.auto_subscribe,
                "triggers": [{"code": code} for code in self.triggers],
                "data": [{"code": code} for code in self.data],
            },
            "links": {"self": f"/v3/webhooks/{self.id}"},
        }


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a car will do when its time has come."""

    at: datetime
    car: StandinCar
    act: Callable[[], None]


class SmartcarStandin:
    """One application at Smartcar with its connected cars."""

    def __init__(
        self,
        clock: StandinClock,
        *,
        client_id: str = CLIENT_ID,
        client_secret: str = CLIENT_SECRET,
        management_token: str = MANAGEMENT_TOKEN,
        limits: LimitSet | None = None,
        encoding: Encoding = "iso",
    ) -> None:
        """Begin without cars. `encoding`: how timestamps in bodies are written."""
        self.clock = clock
        self.tokens = AppTokens(clock, client_id, client_secret)
        self.v2_client_id = V2_CLIENT_ID
        self.user_tokens = UserTokens(clock)
        self.management_token = management_token
        self.limits = Limits(limits or LimitSet())
        self.faults = CarFaults()
        self.calls = CallLog()
        self.unreachable = False
        self.encoding: Encoding = encoding
        self.wraps_vehicle = True
        self.wraps_signal = True
        self.tells_message = True
        self.lists_all_permissions = False
        self.units: dict[str, str] = {}
        self.connection_rows = 10
        self.signal_rows = 25
        self.subscription_rows = 25
        self.links_origin: str | None = None
        self.late_after_s = LATE_AFTER_S
        self.cars: dict[str, StandinCar] = {}
        self.on_report: list[Callable[[StandinCar], None]] = []
        self.subscriptions: dict[str, JsonObject] = {}
        self.webhooks: dict[str, Webhook] = {}
        self._effects: list[Effect] = []
        self._requests = 0

    def add(self, *cars: StandinCar) -> None:
        """Connect cars; one that reports has its first values in the store at once."""
        now = self.clock.now()
        for car in cars:
            self.cars[car.vehicle_id] = car
            car.live(now)

    def settle(self) -> None:
        """Bring everything up to the present: effects that are due, then reports."""
        now = self.clock.now()
        due = sorted((e for e in self._effects if e.at <= now), key=lambda each: each.at)
        self._effects = [each for each in self._effects if each.at > now]
        for effect in due:
            self._live(effect.car, effect.at)
            effect.act()
        for car in tuple(self.cars.values()):
            self._live(car, now)

    def say_now(self, car: StandinCar) -> None:
        """Let a car report at once, whatever its pace and sleep."""
        self.settle()
        car.say_now(self.clock.now())
        for listener in self.on_report:
            listener(car)

    def later(self, seconds: float, car: StandinCar, act: Callable[[], None]) -> None:
        """Let a car do something after so many seconds of the clock; 0 is at once."""
        at = self.clock.now() + timedelta(seconds=seconds)
        self._effects.append(Effect(at, car, act))
        self.settle()

    async def pause(self, seconds: float) -> None:
        """Wait for so many seconds of the clock, however it runs."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while seconds > 0 and self.clock.now() < until:  # noqa: ASYNC110 it may be set
            await asyncio.sleep(LOOK_REAL_S)

    def remove_connection(self, car: StandinCar) -> None:
        """End the owner's consent: the car is known no more."""
        self.cars.pop(car.vehicle_id, None)
        gone = [
            key
            for key, row in self.subscriptions.items()
            if row["attributes"]["vehicleId"] == car.vehicle_id
        ]
        for key in gone:
            del self.subscriptions[key]

    def reconnect(self, car: StandinCar) -> None:
        """Consent again: the vehicle id stays, the connection's id changes."""
        stem, _, number = car.connection_id.rpartition("-")
        car.connection_id = f"{stem}-{int(number) + 1}"
        self.cars[car.vehicle_id] = car

    def request_id(self) -> str:
        """Make the next SC-Request-Id."""
        self._requests += 1
        return f"5c000000-0000-4000-8000-{self._requests:012d}"

    def stamp(self, moment: datetime | None) -> str | int | None:
        """Write a time of a body in the present encoding; None is unknown."""
        if moment is None:
            return 0
        match self.encoding:
            case "iso":
                return iso_z(moment)
            case "ms":
                return round(moment.timestamp() * 1000)
            case "s":
                return round(moment.timestamp())
            case "null":
                return None

    def truth(self) -> list[dict[str, Any]]:
        """What each car really is; for the control face."""
        self.settle()
        now = self.clock.now()
        return [
            {
                "vehicleId": car.vehicle_id,
                "userId": car.user_id,
                "vin": car.vin,
                "make": car.make,
                "socPercent": car.body.soc_percent,
                "isPlugged": car.body.is_plugged,
                "powerW": car.body.power_w,
                "offeredW": car.body.offered_w,
                "limitPercent": car.body.limit_percent,
                "isAsleep": car.is_asleep,
                "reportedAt": car.report.at.isoformat() if car.report else None,
                "reportedSocPercent": car.report.soc_percent if car.report else None,
                "callsThisMonth": self.limits.used(car.vehicle_id, now),
            }
            for car in self.cars.values()
        ]

    def _live(self, car: StandinCar, now: datetime) -> None:
        if car.live(now):
            for listener in self.on_report:
                listener(car)


def iso_z(moment: datetime) -> str:
    """Return ISO 8601 UTC with milliseconds and Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
