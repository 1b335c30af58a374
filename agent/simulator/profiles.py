"""The charging-profile store of a station, pure: what limit holds when.

By OCPP 1.6 edition 2 section 3.13. Limits come out in W in total; None is no limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.profile_form import (
    PHASES_DEFAULT,
    Profile,
    ProfileRefused,
    read_profile,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

VOLTS = 230.0  # nominal; 1.6 converts by it, never by what was measured
STATION = 0  # connector 0: the station as a whole
UNIT_NAMES = {"W": "Power", "A": "Current"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What the station can hold; more is rejected."""

    max_stack_level: int = 10
    max_periods: int = 48
    max_profiles: int = 50
    allowed_units: frozenset[str] = frozenset({"Power", "Current"})
    is_supported: bool = True
    reads_amperes_as_watts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running transaction, as far as profiles care."""

    start: datetime
    transaction_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A profile and the connector that it was set for."""

    connector: int
    profile: Profile


@dataclass(slots=True)
class ProfileStore:
    """All charging profiles of one station."""

    options: ProfileOptions = field(default_factory=ProfileOptions)
    installed: list[Installed] = field(default_factory=list)
    last_refusal: str = ""

    def set_profile(
        self,
        connector: int,
        body: Mapping[str, Any],
        now: datetime,
        transaction_id: int | None = None,
    ) -> str:
        """Install a profile; say Accepted, Rejected or NotSupported.

        `transaction_id` is that of the transaction running on the connector.
        """
        if not self.options.is_supported:
            return "NotSupported"
        try:
            profile = read_profile(body)
            self._check(connector, profile, transaction_id)
            self._install(Installed(connector=connector, profile=profile), now)
        except ProfileRefused as refusal:
            self.last_refusal = str(refusal)
            return "Rejected"
        return "Accepted"

    def clear(
        self,
        profile_id: int | None = None,
        connector: int | None = None,
        purpose: str | None = None,
        stack_level: int | None = None,
    ) -> str:
        """Remove what matches; say Accepted or Unknown. With an id the rest is moot."""

        def matches(each: Installed) -> bool:
            if profile_id is not None:
                return each.profile.profile_id == profile_id
            return (
                connector in (None, each.connector)
                and purpose in (None, each.profile.purpose)
                and stack_level in (None, each.profile.stack_level)
            )

        kept = [each for each in self.installed if not matches(each)]
        found = len(kept) < len(self.installed)
        self.installed = kept
        return "Accepted" if found else "Unknown"

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
    ) -> float | None:
        """Tell the limit in W at an instant; connector 0 is the whole station's."""
        limits = [self._ruling(self._of(STATION, "ChargePointMaxProfile"), now, None)]
        if connector != STATION:
            limits.append(self._transaction_ruling(connector, now, running))
        watts = [self._watts(each, phases) for each in limits if each is not None]
        return min(watts, default=None)

    def changes(
        self, connector: int, after: datetime, to: datetime, running: Running | None
    ) -> list[datetime]:
        """List the instants in (after, to] at which the limit may change, sorted."""
        found: set[datetime] = set()
        for each in self.installed:
            if each.connector not in (STATION, connector):
                continue
            found.update(_edges(each.profile, after, to, running))
        return sorted(moment for moment in found if after < moment <= to)

    def composite(
        self,
        connector: int,
        duration_s: int,
        unit: str,
        now: datetime,
        running: Running | None = None,
        *,
        rated_w: float,
        phases: int = PHASES_DEFAULT,
    ) -> dict[str, Any]:
        """Give the expected schedule as a 1.6 chargingSchedule from `now` on.

        Where nothing limits, and where the limit is above it, stands `rated_w`.
        """
        start = now.replace(microsecond=0)
        assumed = running or Running(start=start, transaction_id=STATION)
        end = start + timedelta(seconds=duration_s)
        edges = self.changes(connector, start, end, assumed)
        offsets = {0, *(math.ceil((each - start).total_seconds()) for each in edges)}
        periods: list[dict[str, Any]] = []
        for offset_s in sorted(each for each in offsets if each < max(1, duration_s)):
            moment = start + timedelta(seconds=offset_s)
            limit_w = self.limit_w(connector, moment, assumed, phases)
            watts = rated_w if limit_w is None else min(limit_w, rated_w)
            limit = _in_unit(watts, unit, phases)
            if not periods or periods[-1]["limit"] != limit:
                periods.append({"startPeriod": offset_s, "limit": limit})
        return {
            "duration": duration_s,
            "startSchedule": stamp(start),
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        }

    def _check(self, connector: int, profile: Profile, transaction_id: int | None) -> None:
        if profile.stack_level > self.options.max_stack_level:
            raise ProfileRefused(f"stackLevel {profile.stack_level} is too high")
        if len(profile.schedule.periods) > self.options.max_periods:
            raise ProfileRefused(f"{len(profile.schedule.periods)} periods are too many")
        if UNIT_NAMES[profile.schedule.unit] not in self.options.allowed_units:
            raise ProfileRefused(f"limits in {profile.schedule.unit} are not understood")
        if profile.purpose == "ChargePointMaxProfile" and connector != STATION:
            raise ProfileRefused(f"ChargePointMaxProfile for connector {connector}")
        if profile.purpose != "TxProfile":
            return
        if connector == STATION:
            raise ProfileRefused("TxProfile for connector 0")
        if transaction_id is None or profile.transaction_id != transaction_id:
            raise ProfileRefused(
                f"TxProfile for transaction {profile.transaction_id}, "
                f"while {transaction_id} runs"
            )

    def _install(self, new: Installed, now: datetime) -> None:
        def stays(old: Installed) -> bool:
            if old.profile.valid_to is not None and old.profile.valid_to <= now:
                return False  # expired: it would only count against max_profiles
            is_same_place = (
                old.connector == new.connector
                and old.profile.purpose == new.profile.purpose
                and old.profile.stack_level == new.profile.stack_level
            )
            return not is_same_place and (old.profile.profile_id != new.profile.profile_id)

        kept = [each for each in self.installed if stays(each)]
        if len(kept) >= self.options.max_profiles:
            raise ProfileRefused(f"{len(kept)} profiles are installed, no room")
        self.installed = [*kept, new]

    def _watts(self, ruling: tuple[float, str, int | None], phases: int) -> float:
        """Convert a limit to W; more phases than there are do not rescale it."""
        limit, unit, profile_phases = ruling
        if unit == "W" or self.options.reads_amperes_as_watts:
            return limit
        return limit * VOLTS * min(profile_phases or PHASES_DEFAULT, phases)

    def _of(self, connector: int, purpose: str) -> list[Profile]:
        return [
            each.profile
            for each in self.installed
            if each.connector == connector and each.profile.purpose == purpose
        ]

    def _transaction_ruling(
        self, connector: int, now: datetime, running: Running | None
    ) -> tuple[float, str, int | None] | None:
        own = [
            each
            for each in self._of(connector, "TxProfile")
            if running is not None and each.transaction_id == running.transaction_id
        ]
        for candidates in (
            own,
            self._of(connector, "TxDefaultProfile"),
            self._of(STATION, "TxDefaultProfile"),
        ):
            ruling = self._ruling(candidates, now, running)
            if ruling is not None:
                return ruling
        return None

    @staticmethod
    def _ruling(
        candidates: Iterable[Profile], now: datetime, running: Running | None
    ) -> tuple[float, str, int | None] | None:
        """Find limit, unit and phases of the highest stack level that holds now."""
        for profile in sorted(candidates, key=lambda each: -each.stack_level):
            origin = _origin(profile, now, running)
            if origin is None or not profile.is_valid_at(now):
                continue
            elapsed_s = (now - origin).total_seconds()
            schedule = profile.schedule
            if schedule.duration_s is not None and elapsed_s >= schedule.duration_s:
                continue
            past = [each for each in schedule.periods if each.start_s <= elapsed_s]
            return past[-1].limit, schedule.unit, past[-1].phases
        return None


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


def _edges(
    profile: Profile, after: datetime, to: datetime, running: Running | None
) -> Iterator[datetime]:
    yield from (each for each in (profile.valid_from, profile.valid_to) if each)
    schedule = profile.schedule
    offsets = [each.start_s for each in schedule.periods]
    if schedule.duration_s is not None:
        offsets.append(schedule.duration_s)
    for origin in _origins(profile, after, to, running):
        yield from (origin + timedelta(seconds=each) for each in offsets)


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


def _in_unit(watts: float, unit: str, phases: int) -> float:
    """Convert W to the unit, to one decimal as the schema demands, rounding down."""
    value = watts if unit == "W" else watts / (VOLTS * phases)
    return math.floor(value * 10 + 1e-6) / 10
