"""Smartcar's three limits: the application's bucket, the vehicle's, the month.

smartcar.md section 9. All by the stand-in's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.standin.smartcar_errors import SmartcarError

if TYPE_CHECKING:
    from datetime import datetime

APP_TOKENS = 120
APP_PER_MINUTE = 2.0
"""120 requests, 2 more a minute, for all vehicles together."""
VEHICLE_TOKENS = 2
VEHICLE_EVERY_S = 120.0
"""Two quick requests pass, then one in 120 s: what a field report saw."""
MONTH_CALLS = 500
"""The documented example of an allowance, reads and commands together."""


@dataclass(slots=True, kw_only=True)
class LimitSet:
    """The numbers; None lifts a limit. `bills_failures`: refused calls count too."""

    app_tokens: int | None = APP_TOKENS
    app_per_minute: float = APP_PER_MINUTE
    vehicle_tokens: int | None = VEHICLE_TOKENS
    vehicle_every_s: float = VEHICLE_EVERY_S
    month_calls: int | None = MONTH_CALLS
    throttles_commands: bool = True
    bills_failures: bool = True


@dataclass(slots=True)
class _Bucket:
    """Tokens that come back with time."""

    level: float
    at: datetime

    def take(self, now: datetime, size: int, per_s: float) -> float:
        """Take one and return 0, or return the seconds until there is one."""
        passed_s = max(0.0, (now - self.at).total_seconds())
        self.level = min(float(size), self.level + passed_s * per_s)
        self.at = now
        if self.level >= 1 - 1e-9:
            self.level -= 1
            return 0.0
        return (1 - self.level) / per_s if per_s > 0 else float("inf")


@dataclass(slots=True)
class Limits:
    """What has been used of them."""

    numbers: LimitSet = field(default_factory=LimitSet)
    refused_app: int = 0
    refused_vehicle: int = 0
    refused_month: int = 0
    _app: _Bucket | None = None
    _vehicles: dict[str, _Bucket] = field(default_factory=dict)
    _months: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def take_app(self, now: datetime) -> None:
        """Let one request of the application pass; SmartcarError 429 when too many."""
        size = self.numbers.app_tokens
        if size is None:
            return
        self._app = self._app or _Bucket(float(size), now)
        if self._app.take(now, size, self.numbers.app_per_minute / 60) > 0:
            self.refused_app += 1
            raise SmartcarError("RATE_LIMIT:SMARTCAR_API")

    def take_vehicle(
        self, vehicle_id: str, now: datetime, *, calls: int = 1, is_command: bool = False
    ) -> None:
        """Let a call for a vehicle pass; SmartcarError 430 or 429 otherwise.

        `calls`: how many it counts as (each path of a batch is one).
        """
        used = self.used(vehicle_id, now)
        most = self.numbers.month_calls
        if most is not None and used + calls > most:
            self.refused_month += 1
            raise SmartcarError("BILLING:VEHICLE_REQUEST_LIMIT")
        if not is_command or self.numbers.throttles_commands:
            self._throttle(vehicle_id, now)
        self._months[_month(vehicle_id, now)] = used + calls

    def give_back(self, vehicle_id: str, now: datetime, calls: int = 1) -> None:
        """Do not bill a call that failed, where only successes are billed."""
        if not self.numbers.bills_failures:
            used = self.used(vehicle_id, now)
            self._months[_month(vehicle_id, now)] = max(0, used - calls)

    def used(self, vehicle_id: str, now: datetime) -> int:
        """Calls that were counted for a vehicle in this calendar month."""
        return self._months.get(_month(vehicle_id, now), 0)

    def use(self, vehicle_id: str, now: datetime, calls: int) -> None:
        """Set what a vehicle has used this month."""
        self._months[_month(vehicle_id, now)] = calls

    def app_left(self) -> float | None:
        """Tokens of the application at its last request; None before the first."""
        return None if self._app is None else self._app.level

    def reset(self) -> None:
        """Forget all that was used."""
        self._app = None
        self._vehicles.clear()
        self._months.clear()
        self.refused_app = self.refused_vehicle = self.refused_month = 0

    def _throttle(self, vehicle_id: str, now: datetime) -> None:
        size = self.numbers.vehicle_tokens
        if size is None:
            return
        bucket = self._vehicles.setdefault(vehicle_id, _Bucket(float(size), now))
        wait_s = bucket.take(now, size, 1 / self.numbers.vehicle_every_s)
        if wait_s > 0:
            self.refused_vehicle += 1
            raise SmartcarError("RATE_LIMIT:VEHICLE", retry_after_s=int(wait_s) + 1)


def _month(vehicle_id: str, now: datetime) -> tuple[str, int, int]:
    return vehicle_id, now.year, now.month
