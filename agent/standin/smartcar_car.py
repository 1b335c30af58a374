"""A car as Smartcar sees it: what it really is, and what it last reported.

The truth is a `CarBody`: `PlainBody` here, or a virtual vehicle of the OCPP simulator
behind an adapter. A car reports at its make's pace while it is awake, so what Smartcar
holds lags behind. Percent, W, Wh; aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

S_PER_HOUR = 3600.0
PERMISSIONS = frozenset({
    "read_vehicle_info", "read_vin", "read_battery", "read_charge", "control_charge",
})  # fmt: skip
"""What the agent needs (smartcar.md 2)."""
REPORT_MINUTES = {
    "BYD": 2, "POLESTAR": 2, "VOLVO": 2, "TESLA": 3, "AUDI": 4, "RIVIAN": 4,
    "HYUNDAI": 5, "KIA": 5, "SKODA": 5, "BMW": 8, "FORD": 8, "MERCEDES-BENZ": 8,
    "VOLKSWAGEN": 8, "CUPRA": 8, "PEUGEOT": 8, "CITROEN": 8, "OPEL": 8, "FIAT": 8,
    "MAZDA": 8, "NISSAN": 8, "SUBARU": 8, "JAGUAR": 20, "LAND ROVER": 20, "HONDA": 20,
    "CHEVROLET": 40, "CADILLAC": 40, "RENAULT": 45, "DACIA": 45, "MG": 45, "MINI": 45,
    "PORSCHE": 45, "TOYOTA": 45, "ACURA": 45,
}  # fmt: skip
"""Minutes between two reports, the middle of each row of smartcar.md 9."""
REPORT_MINUTES_ELSE = 60
"""The slowest rate anywhere is an hour."""
EVENT_LAG_S = 60.0
"""A plug or a charge that begins or ends is told sooner (inferred from the advice to
read 60 to 120 s after the plug)."""
ASLEEP_AFTER_S = 1800.0
"""An idle car falls silent after about half an hour (inferred)."""
DAILY_S = 86_400.0
"""A car without a subscription is refreshed once a day (field report)."""
LIMIT_LOWEST, LIMIT_HIGHEST = 50, 100
"""Percent that a charge limit may have."""

Feed = Literal["subscribed", "daily", "never"]
LimitForm = Literal["both", "active-only", "values-only", "lower-case"]
"""How the signal of the charge limit is filled; all were seen (smartcar.md 5.3)."""


class CarBody(Protocol):
    """The truth about a car."""

    @property
    def soc_percent(self) -> float:
        """What is in its battery."""
        ...

    @property
    def is_plugged(self) -> bool:
        """Whether a cable is in."""
        ...

    @property
    def power_w(self) -> float:
        """What it draws now."""
        ...

    @property
    def offered_w(self) -> float:
        """What the charger offers now."""
        ...

    @property
    def limit_percent(self) -> float:
        """Where it stops by itself."""
        ...

    def advance(self, seconds: float) -> None:
        """Live on; a body with a life of its own does nothing."""
        ...

    def start(self) -> None:
        """Begin to charge, awake if it slept."""
        ...

    def stop(self) -> None:
        """Charge no more until it is started or plugged in again."""
        ...

    def set_limit(self, percent: float) -> None:
        """Stop at this SoC from now on."""
        ...


@dataclass(slots=True, kw_only=True)
class PlainBody:
    """A car without a simulator: every field may be set from outside."""

    capacity_wh: float = 75_000.0
    soc_percent: float = 50.0
    is_plugged: bool = False
    offered_w: float = 0.0
    max_w: float = 50_000.0
    limit_percent: float = 80.0
    is_stopped: bool = False

    @property
    def power_w(self) -> float:
        """What it draws now."""
        is_done = self.soc_percent >= self.limit_percent
        if not self.is_plugged or self.is_stopped or is_done:
            return 0.0
        return min(self.offered_w, self.max_w)

    def advance(self, seconds: float) -> None:
        """Charge for so long with what is offered."""
        power_w = self.power_w
        if power_w > 0:
            gain = power_w * seconds / S_PER_HOUR / self.capacity_wh * 100
            self.soc_percent = min(self.soc_percent + gain, self.limit_percent)

    def start(self) -> None:
        """Begin to charge."""
        self.is_stopped = False

    def stop(self) -> None:
        """Charge no more."""
        self.is_stopped = True

    def set_limit(self, percent: float) -> None:
        """Stop at this SoC from now on."""
        self.limit_percent = percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a car reported, and when it had measured it."""

    at: datetime
    soc_percent: float
    is_plugged: bool
    power_w: float
    limit_percent: float
    energy_added_wh: float

    @property
    def is_charging(self) -> bool:
        """Whether it drew anything."""
        return self.power_w > 0

    @property
    def state(self) -> str:
        """The three words of smartcar.md 5.3; full means: at its limit."""
        if self.is_charging:
            return "CHARGING"
        is_full = self.is_plugged and self.soc_percent >= self.limit_percent
        return "FULLY_CHARGED" if is_full else "NOT_CHARGING"


@dataclass(slots=True, kw_only=True)
class StandinCar:
    """One connected car: its facts, its body, its habits, and what it reported.

    `report_s`: seconds between reports; None takes those of the make. `soc_step`: SoC is
    rounded down to such steps. `feed`: who fills Smartcar's store. `command_s`: how long
    a command takes to answer, `read_s` a read of v2.0; `effect_s`: after the answer,
    until the car does it. `incapable`: commands that it can never do (`charge-start`,
    ...). `needs_soc`: the SoC below which it refuses start and stop. `signals`: the codes
    that it has; None is all.
    """

    vehicle_id: str
    user_id: str
    vin: str
    body: CarBody = field(default_factory=PlainBody)
    make: str = "VOLVO"
    model: str = "EX30"
    year: int | str = 2025
    mode: Literal["live", "simulated"] = "live"
    powertrain: str = "BEV"
    external_id: str | None = None
    connection_id: str = ""
    permissions: frozenset[str] = PERMISSIONS
    capacity_kwh: float | None = 75.0
    range_full_km: float = 450.0
    report_s: float | None = None
    event_lag_s: float = EVENT_LAG_S
    asleep_after_s: float = ASLEEP_AFTER_S
    soc_step: float = 1.0
    feed: Feed = "subscribed"
    command_s: float = 0.0
    read_s: float = 0.0
    effect_s: float = 0.0
    incapable: frozenset[str] = frozenset()
    limit_needs_plug: bool = False
    limit_form: LimitForm = "both"
    wakes_by_command: bool = True
    needs_soc: float = 0.0
    signals: frozenset[str] | None = None
    signal_modes: dict[str, str] = field(default_factory=dict)
    report: Report | None = field(default=None, init=False)
    cached: dict[str, Report | None] = field(default_factory=dict, init=False)
    is_asleep: bool = field(default=False, init=False)
    energy_added_wh: float = field(default=0.0, init=False)
    connected_at: datetime | None = field(default=None, init=False)
    _now: datetime | None = field(default=None, init=False)
    _next_report: datetime | None = field(default=None, init=False)
    _active_at: datetime | None = field(default=None, init=False)
    _was: tuple[bool, bool] = field(default=(False, False), init=False)

    def __post_init__(self) -> None:
        """Give the connection an id."""
        if not self.connection_id:
            self.connection_id = f"connection-{self.vehicle_id}-1"

    @property
    def is_charging(self) -> bool:
        """Whether it really draws."""
        return self.body.power_w > 0

    @property
    def pace(self) -> timedelta:
        """Time between two reports."""
        if self.feed == "daily":
            return timedelta(seconds=DAILY_S)
        if self.report_s is not None:
            return timedelta(seconds=self.report_s)
        minutes = REPORT_MINUTES.get(self.make.upper(), REPORT_MINUTES_ELSE)
        return timedelta(minutes=minutes)

    def live(self, now: datetime) -> bool:
        """Live up to `now`; tell whether it reported on the way."""
        if self._now is None:
            return self._begin(now)
        has_reported = False
        while self._now < now:
            stop = min(now, self._now + timedelta(seconds=60))
            if self._next_report is not None and self._now < self._next_report < stop:
                stop = self._next_report
            self._pass(stop)
            has_reported |= self._report_if_due(stop)
        self._look(now)
        return self._report_if_due(now) or has_reported

    def wake(self) -> None:
        """Be awake, as a command or a plug does."""
        if self.is_asleep:
            self._next_report = None  # what was due while it slept is not made up for
        self.is_asleep = False
        self._active_at = self._now
        self._expect(self.event_lag_s)

    def say_now(self, now: datetime) -> None:
        """Report at once, whatever its pace."""
        self.live(now)
        self._say(now)

    def measured(self, now: datetime) -> Report:
        """What it would report now; the store does not hear of it."""
        step = self.soc_step
        soc = self.body.soc_percent
        return Report(
            at=now,
            soc_percent=int(soc / step + 1e-9) * step if step > 0 else soc,
            is_plugged=self.body.is_plugged,
            power_w=self.body.power_w,
            limit_percent=self.body.limit_percent,
            energy_added_wh=self.energy_added_wh,
        )

    def _begin(self, now: datetime) -> bool:
        self._now = self._active_at = now
        self._was = (self.body.is_plugged, self.is_charging)
        if self.connected_at is None:
            self.connected_at = now
        if self.feed == "never":
            return False
        self._say(now)
        return True

    def _pass(self, to: datetime) -> None:
        """Live one step; what was drawn counts as added energy."""
        if self._now is None:
            return
        seconds = (to - self._now).total_seconds()
        power_w = self.body.power_w
        self.body.advance(seconds)
        self.energy_added_wh += power_w * seconds / S_PER_HOUR
        self._now = to
        self._look(to)

    def _look(self, now: datetime) -> None:
        """Notice a plug or a charge that began or ended, and fall asleep when idle."""
        is_now = (self.body.is_plugged, self.is_charging)
        if is_now != self._was:
            if is_now[0] and not self._was[0]:
                self.energy_added_wh = 0.0
            self._was = is_now
            self.wake()
        if self.is_charging:
            self._active_at = now
        idle_for = now - (self._active_at or now)
        if idle_for >= timedelta(seconds=self.asleep_after_s):
            self.is_asleep = True

    def _expect(self, seconds: float) -> None:
        if self._now is None or self.feed != "subscribed":
            return
        soon = self._now + min(timedelta(seconds=seconds), self.pace)
        if self._next_report is None or soon < self._next_report:
            self._next_report = soon

    def _report_if_due(self, now: datetime) -> bool:
        is_due = self._next_report is not None and now >= self._next_report
        is_silent = self.is_asleep and self.feed == "subscribed"
        if not is_due or is_silent or self.feed == "never":
            return False
        self._say(now)
        return True

    def _say(self, now: datetime) -> None:
        self.report = self.measured(now)
        self._next_report = now + self.pace
