"""The middle of a virtual 2.x station: its device model and its charging profiles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.core import Core
from agent.simulator.device2 import DeviceModel, Variable
from agent.simulator.hardware import Transaction
from agent.simulator.profile_rules import STATION, Running
from agent.simulator.profiles2 import Outside, ProfileOptions2, ProfileStore2
from agent.simulator.quirks import STALE_ID, stale_profile
from agent.simulator.variables2 import FEATURES_21, PROFILES_MAX, variables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from agent.simulator.clock import SimClock
    from agent.simulator.hardware import Outlet
    from agent.simulator.station_config import StationConfig

UUID_BITS = 128
PROTOCOL = "urn:iso:15118:2:2013:MsgDef,2,0"


@dataclass(slots=True, kw_only=True)
class Visit(Transaction):
    """One visit of a vehicle or of its driver; a transaction once it `is_answered`.

    `start` is when it began, `closed_at` when power could flow. What is `_due` goes into
    the next event. `needs` goes from "" over "told" to "settled", with ISO 15118 only.
    """

    transaction_id: int | str = ""
    is_parked: bool = False
    is_plugged: bool = False
    is_authorized: bool = False
    is_over: bool = False
    token: dict[str, Any] | None = None
    is_token_due: bool = False
    is_evse_told: bool = False
    remote_start_id: int | None = None
    is_remote_due: bool = False
    profile_due: dict[str, Any] | None = None
    closed_at: datetime | None = None
    seq_no: int = 0
    state: str = ""
    stop_reason: str = ""
    needs: str = ""

    @property
    def is_begun(self) -> bool:
        """Whether it is a transaction."""
        return self.is_answered


class Core2(Core):
    """State of one virtual 2.x station."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station cold and unconnected."""
        super().__init__(config, clock)
        self.version = config.ocpp_version
        self.registration = ""
        self.vehicle_ids: dict[int, str] = {}
        self._chance = random.Random(f"{config.station_id} {stamp(clock.now())}")
        self.device = DeviceModel([*variables_of(config), *self._living()])
        for label, value in config.variables.items():
            self.device.put(label, value)
        self.store = ProfileStore2(self._profile_options())
        self.store.heed(self.faults)
        if "stale-profile" in self.faults:
            self._leave_behind()

    @property
    def book(self) -> ProfileStore2:
        """The charging profiles that are installed."""
        return self.store

    def setting(self, name: str) -> str:
        """Tell the value of a variable by `Component.Variable[Instance]`."""
        return self.device.text(name)

    def put(self, name: str, value: str) -> None:
        """Change a variable."""
        self.device.put(name, value)

    def new_id(self) -> str:
        """Make an id that looks like a UUID; the same seed makes the same ids."""
        text = f"{self._chance.getrandbits(UUID_BITS):032x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def visit(self, outlet: Outlet) -> Visit | None:
        """Tell the visit at an outlet, begun as a transaction or not."""
        transaction = outlet.transaction
        return transaction if isinstance(transaction, Visit) else None

    def running(self, outlet: Outlet) -> Running | None:
        """Describe the outlet's transaction to the profiles; Relative counts from power."""
        visit = self.visit(outlet)
        if visit is None or not (visit.is_begun or visit.is_energised):
            return None
        return Running(
            start=visit.closed_at or self.now(), transaction_id=visit.transaction_id
        )

    def outside(self, evse: int) -> Outside:
        """Describe an EVSE to the profile store."""
        outlet = self.outlets.get(evse)
        visit = None if outlet is None else self.visit(outlet)
        if visit is None or not visit.is_begun:
            return Outside(evse=evse)
        return Outside(
            evse=evse,
            transaction_id=str(visit.transaction_id),
            awaits_needs=self.config.iso15118 and not visit.needs,
            knows_needs=bool(visit.needs),
        )

    def _leave_behind(self) -> None:
        """Install somebody's station maximum at the top level."""
        shared = stale_profile(stamp(self.now()))
        body = {
            **shared,
            "id": STALE_ID,
            "chargingProfilePurpose": "ChargingStationMaxProfile",
            "stackLevel": self.store.options.max_stack_level,
            "chargingSchedule": [{"id": 1, **shared["chargingSchedule"]}],
        }
        self.store.set_profile(Outside(evse=STATION), body, self.now())

    def _profile_options(self) -> ProfileOptions2:
        is_flat = "refuse-high-stack-level" in self.faults
        features = (
            each
            for each in FEATURES_21
            if self.version == "2.1"
            and self.is_on(f"SmartChargingCtrlr.SupportsFeature[{each}]")
        )
        return ProfileOptions2(
            version=self.version,
            max_stack_level=(
                0 if is_flat else self.whole("SmartChargingCtrlr.ProfileStackLevel")
            ),
            max_periods=self.whole("SmartChargingCtrlr.PeriodsPerSchedule"),
            max_profiles=PROFILES_MAX,
            units=frozenset(self.listed("SmartChargingCtrlr.RateUnit")),
            features=frozenset(features),
            dc=self.config.dc,
            reads_amperes_as_watts="amperes-read-as-watts" in self.faults,
            is_rate_limited="profile-rate-limit" in self.faults,
        )

    def _living(self) -> Iterator[Variable]:
        """List the variables whose values change by themselves."""
        yield Variable(
            component="SmartChargingCtrlr",
            name="Entries",
            instance="ChargingProfiles",
            data_type="integer",
            max_limit=PROFILES_MAX,
            live=lambda: str(len(self.store.installed)),
        )
        yield Variable(
            component="ClockCtrlr",
            name="DateTime",
            data_type="dateTime",
            live=lambda: stamp(self.now()),
        )
        yield Variable(
            component="ChargingStation",
            name="Power",
            data_type="decimal",
            unit="W",
            max_limit=self.config.supply_w,
            live=lambda: f"{sum(each.power_w for each in self.outlets.values()):.0f}",
        )
        yield Variable(
            component="ChargingStation",
            name="AvailabilityState",
            data_type="OptionList",
            live=lambda: "Available",
        )
        for outlet in self.outlets.values():
            yield from self._living_of(outlet)

    def _living_of(self, outlet: Outlet) -> Iterator[Variable]:
        evse = outlet.connector

        def of(component: str, name: str, kind: str, live: Callable[[], str]) -> Variable:
            return Variable(
                component=component,
                name=name,
                data_type=kind,
                evse=evse,
                connector=1 if component == "Connector" else 0,
                live=live,
            )

        power = of("EVSE", "Power", "decimal", lambda: f"{outlet.power_w:.0f}")
        power.unit, power.max_limit = "W", outlet.rated_w
        yield power
        for component in ("EVSE", "Connector"):
            yield of(component, "AvailabilityState", "OptionList", lambda: outlet.status)
        yield of(
            "ConnectedEV",
            "Available",
            "boolean",
            lambda: "true" if evse in self.vehicle_ids else "false",
        )
        if self.config.tells_vehicle_id:
            yield of(
                "ConnectedEV",
                "VehicleId",
                "string",
                lambda: self.vehicle_ids.get(evse, ""),
            )
        if self.version == "2.1":
            yield of("ConnectedEV", "StateOfCharge", "decimal", lambda: _soc(self, evse))
            yield of(
                "ConnectedEV",
                "ProtocolAgreed",
                "string",
                lambda: PROTOCOL if evse in self.vehicle_ids else "",
            )


def _soc(core: Core2, evse: int) -> str:
    soc = core.outlets[evse].told_soc if evse in core.vehicle_ids else None
    return "" if soc is None or "no-soc" in core.faults else f"{soc:.1f}"


def evse_of(outlet: Outlet) -> dict[str, int]:
    """Write an outlet as an EVSEType; each EVSE has one connector."""
    return {"id": outlet.connector, "connectorId": 1}
