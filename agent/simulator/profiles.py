"""The charging-profile store of a 1.6 station, pure: what may be installed.

By OCPP 1.6 edition 2 section 3.13; what limit follows is in profile_rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from agent.simulator.clock import stamp
from agent.simulator.profile_form import (
    PHASES_DEFAULT,
    Profile,
    ProfileRefused,
    read_profile,
)
from agent.simulator.profile_rules import (
    STATION,
    UNIT_NAMES,
    Installed,
    ProfileBook,
    Running,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What the station can hold; more is rejected."""

    max_stack_level: int = 10
    max_periods: int = 48
    max_profiles: int = 50
    allowed_units: frozenset[str] = frozenset({"Power", "Current"})
    is_supported: bool = True
    reads_amperes_as_watts: bool = False


class ProfileStore(ProfileBook):
    """All charging profiles of one 1.6 station."""

    STATION_PURPOSE: ClassVar[str] = "ChargePointMaxProfile"

    def __init__(self, options: ProfileOptions | None = None) -> None:
        """Begin empty."""
        self.options = options or ProfileOptions()
        super().__init__(reads_amperes_as_watts=self.options.reads_amperes_as_watts)

    def set_profile(
        self,
        connector: int,
        body: Mapping[str, Any],
        now: datetime,
        transaction_id: int | str | None = None,
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
        """Give the expected schedule as a 1.6 chargingSchedule from `now` on."""
        start = now.replace(microsecond=0)
        periods = self.composite_periods(
            connector, duration_s, unit, start, running, rated_w=rated_w, phases=phases
        )
        return {
            "duration": duration_s,
            "startSchedule": stamp(start),
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        }

    def _check(
        self, connector: int, profile: Profile, transaction_id: int | str | None
    ) -> None:
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
