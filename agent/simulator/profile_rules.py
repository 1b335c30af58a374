"""What limit a set of charging profiles means at an instant. Pure.

OCPP 1.6 edition 2 section 3.13 and OCPP 2.x section K3.5 agree on what stands here; what
may be installed is in profiles.py (1.6) and profiles2.py. Limits come out in W in total;
None is no limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from agent.simulator.profile_form import PHASES_DEFAULT, Profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

W_PER_KW = 1000.0
VOLTS = 230.0  # nominal; 1.6 converts by it, never by what was measured
STATION = 0  # connector or EVSE 0: the station as a whole
UNIT_NAMES = {"W": "Power", "A": "Current"}


class Ruling(NamedTuple):
    """A limit as a profile says it: A per phase or W in total."""

    limit: float
    unit: str
    phases: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running transaction, as far as profiles care."""

    start: datetime
    transaction_id: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A profile and the connector or EVSE that it was set for; `body` as received."""

    connector: int
    profile: Profile
    body: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(slots=True, kw_only=True)
class ProfileBook:
    """All charging profiles of one station, and what they limit."""

    STATION_PURPOSE: ClassVar[str] = "ChargingStationMaxProfile"

    installed: list[Installed] = field(default_factory=list)
    last_refusal: str = ""
    reads_amperes_as_watts: bool = False
    ignores_watts: bool = False
    watts_factor: float = 1.0
    ignored: frozenset[str] = frozenset()

    def heed(self, faults: frozenset[str]) -> None:
        """Read limits as a station's faults order."""
        self.ignores_watts = "ignore-watts" in faults
        self.watts_factor = W_PER_KW if "watts-read-as-kilowatts" in faults else 1.0
        ignored = {
            "TxDefaultProfile": "ignore-defaults",
            self.STATION_PURPOSE: "ignore-station-maximum",
        }
        self.ignored = frozenset(
            purpose for purpose, fault in ignored.items() if fault in faults
        )

    def end_transaction(self, connector: int) -> None:
        """Delete the connector's TxProfiles: its transaction is over."""
        self.installed = [
            each
            for each in self.installed
            if each.connector != connector or each.profile.purpose != "TxProfile"
        ]

    def forget(self) -> None:
        """Delete everything."""
        self.installed = []

    def limit_w(
        self,
        connector: int,
        now: datetime,
        running: Running | None = None,
        phases: int = PHASES_DEFAULT,
        soc_percent: float | None = None,
    ) -> float | None:
        """Tell the limit in W at an instant; connector 0 is the whole station's."""
        station = self._of(STATION, self.STATION_PURPOSE, now)
        limits = [ruling_of(station, now, None, soc_percent)]
        if connector != STATION:
            groups = self._transaction_groups(connector, now, running)
            rulings = (ruling_of(each, now, running, soc_percent) for each in groups)
            limits.append(next((each for each in rulings if each is not None), None))
        watts = [self._watts(each, phases) for each in limits if each is not None]
        return min(watts, default=None)

    def changes(
        self, connector: int, after: datetime, to: datetime, running: Running | None
    ) -> list[datetime]:
        """List the instants in (after, to] at which the limit may change, sorted."""
        found: set[datetime] = set()
        for each in self.installed:
            if each.connector in (STATION, connector):
                found.update(self._edges(each, after, to, running))
        return sorted(moment for moment in found if after < moment <= to)

    def composite_periods(
        self,
        connector: int,
        duration_s: int,
        unit: str,
        start: datetime,
        running: Running | None = None,
        *,
        rated_w: float,
        phases: int = PHASES_DEFAULT,
    ) -> list[dict[str, Any]]:
        """Give the expected limits as periods in `unit`, from a whole second on.

        Where nothing limits, and where the limit is above it, stands `rated_w`.
        """
        assumed = running or Running(start=start, transaction_id=STATION)
        end = start + timedelta(seconds=duration_s)
        edges = self.changes(connector, start, end, assumed)
        offsets = {0, *(math.ceil((each - start).total_seconds()) for each in edges)}
        periods: list[dict[str, Any]] = []
        for offset_s in sorted(each for each in offsets if each < max(1, duration_s)):
            moment = start + timedelta(seconds=offset_s)
            limit_w = self.limit_w(connector, moment, assumed, phases)
            watts = rated_w if limit_w is None else min(limit_w, rated_w)
            limit = in_unit(watts, unit, phases)
            if not periods or periods[-1]["limit"] != limit:
                periods.append({"startPeriod": offset_s, "limit": limit})
        return periods

    def _watts(self, ruling: Ruling, phases: int) -> float:
        """Convert a limit to W; more phases than there are do not rescale it."""
        if ruling.unit == "W":
            return ruling.limit * self.watts_factor
        if self.reads_amperes_as_watts:
            return ruling.limit
        return ruling.limit * VOLTS * min(ruling.phases or PHASES_DEFAULT, phases)

    def _of(self, connector: int, purpose: str, now: datetime) -> list[Profile]:
        return [
            each.profile
            for each in self.installed
            if each.connector == connector
            and each.profile.purpose == purpose
            and purpose not in self.ignored
            and not (self.ignores_watts and each.profile.schedule.unit == "W")
            and self._is_in_force(each, now)
        ]

    def _transaction_groups(
        self, connector: int, now: datetime, running: Running | None
    ) -> Iterator[list[Profile]]:
        """Give what may rule a transaction, best first: its own, then the defaults."""
        yield [
            each
            for each in self._of(connector, "TxProfile", now)
            if running is not None and each.transaction_id == running.transaction_id
        ]
        yield self._of(connector, "TxDefaultProfile", now)
        yield self._of(STATION, "TxDefaultProfile", now)

    def _is_in_force(self, _each: Installed, _now: datetime) -> bool:
        """Whether nothing but time keeps the profile from ruling."""
        return True

    def _edges(
        self, each: Installed, after: datetime, to: datetime, running: Running | None
    ) -> Iterable[datetime]:
        return edges_of(each.profile, after, to, running)


def ruling_of(
    candidates: Iterable[Profile],
    now: datetime,
    running: Running | None,
    soc_percent: float | None = None,
) -> Ruling | None:
    """Find the ruling of the highest stack level that holds now."""
    for profile in sorted(candidates, key=lambda each: -each.stack_level):
        origin = _origin(profile, now, running)
        if origin is None or not profile.is_valid_at(now):
            continue
        elapsed_s = (now - origin).total_seconds()
        schedule = profile.schedule
        if schedule.duration_s is not None and elapsed_s >= schedule.duration_s:
            continue
        period = [each for each in schedule.periods if each.start_s <= elapsed_s][-1]
        limit = period.limit
        if schedule.soc_cap is not None and soc_percent is not None:
            from_soc, cap = schedule.soc_cap
            limit = min(limit, cap) if soc_percent >= from_soc else limit
        return Ruling(limit, schedule.unit, period.phases)
    return None


def edges_of(
    profile: Profile, after: datetime, to: datetime, running: Running | None
) -> Iterator[datetime]:
    """List the instants around (after, to] at which a profile's limit may change."""
    yield from (each for each in (profile.valid_from, profile.valid_to) if each)
    schedule = profile.schedule
    offsets = [each.start_s for each in schedule.periods]
    if schedule.duration_s is not None:
        offsets.append(schedule.duration_s)
    for origin in _origins(profile, after, to, running):
        yield from (origin + timedelta(seconds=each) for each in offsets)


def in_unit(watts: float, unit: str, phases: int) -> float:
    """Convert W to the unit, to one decimal as the schema demands, rounding down."""
    value = watts if unit == "W" else watts / (VOLTS * phases)
    return math.floor(value * 10 + 1e-6) / 10


def _origin(profile: Profile, now: datetime, running: Running | None) -> datetime | None:
    """Find when the schedule that covers `now` began; None if it has not."""
    if profile.kind == "Relative":
        origin = now if running is None else running.start
        return origin if origin <= now else None
    start = profile.schedule.start
    if start is None or now < start:
        return None
    if profile.recurrence_s is None:
        return start
    every = timedelta(seconds=profile.recurrence_s)
    return start + (now - start) // every * every


def _origins(
    profile: Profile, after: datetime, to: datetime, running: Running | None
) -> Iterator[datetime]:
    """List the starts of the schedule that matter in [after, to]."""
    if profile.kind == "Relative":
        if running is not None:
            yield running.start
        return
    start = profile.schedule.start
    if start is None:
        return
    if profile.recurrence_s is None:
        yield start
        return
    every = timedelta(seconds=profile.recurrence_s)
    origin = max(start, start + (after - start) // every * every)
    while origin <= to:
        yield origin
        origin += every
