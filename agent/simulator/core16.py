"""The middle of a virtual 1.6 station: its keys and its charging profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulator.clock import stamp
from agent.simulator.core import Core
from agent.simulator.keys16 import Keys16
from agent.simulator.metering import MEASURANDS
from agent.simulator.profile_rules import STATION, VOLTS, Running
from agent.simulator.profiles import ProfileOptions, ProfileStore
from agent.simulator.quirks import LIMIT_KEY, STALE_ID, stale_profile

if TYPE_CHECKING:
    from datetime import datetime

    from agent.simulator.clock import SimClock
    from agent.simulator.hardware import Outlet
    from agent.simulator.station_config import StationConfig

UNLIMITED = "5000"  # 500 A: more than any outlet gives


class Core16(Core):
    """State of one virtual 1.6 station."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station cold and unconnected."""
        self.keys = Keys16(
            {
                "NumberOfConnectors": str(config.connectors),
                **({LIMIT_KEY: UNLIMITED} if "limit-by-key" in config.faults else {}),
                **config.overrides,
            },
            [each for each in MEASURANDS if config.dc or each != "SoC"],
        )
        super().__init__(config, clock)
        self.profiles = ProfileStore(self._profile_options())
        self.profiles.heed(self.faults)
        if "stale-profile" in self.faults:
            body = {
                "chargingProfileId": STALE_ID,
                "chargingProfilePurpose": "ChargePointMaxProfile",
                "stackLevel": self.profiles.options.max_stack_level,
                **stale_profile(stamp(self.now())),
            }
            self.profiles.set_profile(STATION, body, self.now())

    @property
    def book(self) -> ProfileStore:
        """The charging profiles that are installed."""
        return self.profiles

    def setting(self, name: str) -> str:
        """Tell the value of a configuration key."""
        return self.keys.text(name)

    def put(self, name: str, value: str) -> None:
        """Change a configuration key."""
        self.keys.change(name, value)

    def running(self, outlet: Outlet) -> Running | None:
        """Describe the outlet's transaction to the profile store."""
        transaction = outlet.transaction
        if transaction is None:
            return None
        return Running(start=transaction.start, transaction_id=transaction.transaction_id)

    def station_limit_w(self, now: datetime) -> float | None:
        """Tell the limit of all outlets together; a key may be what limits them."""
        if "limit-by-key" not in self.faults:
            return super().station_limit_w(now)
        return self.whole(LIMIT_KEY) / 10 * VOLTS * self.config.phases

    def _profile_options(self) -> ProfileOptions:
        units = {
            {"a": "Current", "w": "Power"}.get(each.lower(), each)
            for each in self.listed("ChargingScheduleAllowedChargingRateUnit")
        }
        is_flat = "refuse-high-stack-level" in self.faults
        return ProfileOptions(
            max_stack_level=0 if is_flat else self.whole("ChargeProfileMaxStackLevel"),
            max_periods=self.whole("ChargingScheduleMaxPeriods"),
            max_profiles=self.whole("MaxChargingProfilesInstalled"),
            allowed_units=frozenset(units),
            is_supported=("SmartCharging" in self.listed("SupportedFeatureProfiles")),
            reads_amperes_as_watts="amperes-read-as-watts" in self.faults,
        )
