"""A night at a depot: who stands where, when, and how much it needs. Pure, by seed.

The planner under test and the virtual stations are fed from the same scenario.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CAP_SHARE = 0.6  # of the sum of all vehicle powers, so that a planner has work
CAP_USE_MAX = 0.8  # of the cap, on average; the rest is slack for steps and tapers
STAY_USE_MAX = 0.7  # of what a vehicle could take alone during its stay
CHECK_STEP = timedelta(minutes=2)
EFFICIENCY = 0.96  # of the vehicles' batteries, as in vehicle.py
TURN_SHARE = 0.03  # of the night, between two vehicles at one outlet
STATION_KINDS = (  # outlets, rated W per outlet, W for all together
    (1, 150_000.0, 150_000.0),
    (2, 150_000.0, 200_000.0),
    (3, 120_000.0, 240_000.0),
    (1, 90_000.0, 90_000.0),
    (2, 120_000.0, 240_000.0),
)
VEHICLE_KINDS = (  # name, capacity in Wh from and to, W from and to, minimum W
    ("Bus", 180_000.0, 450_000.0, 90_000.0, 150_000.0, 3_000.0),
    ("Bus", 180_000.0, 450_000.0, 90_000.0, 150_000.0, 3_000.0),
    ("Truck", 250_000.0, 420_000.0, 100_000.0, 150_000.0, 3_000.0),
    ("Van", 60_000.0, 110_000.0, 40_000.0, 80_000.0, 1_400.0),
)
CANNOT_RESUME_EACH = 4  # every fourth vehicle sleeps after a long pause
MIX = ("1.6", "2.0.1", "2.1")
"""The versions of a mixed depot, in turn."""
HABITS = (  # of the 2.x stations of a mixed depot, in turn: ISO 15118, form of the token
    (True, "vid"),
    (False, "no-auth"),
    (False, "vid"),
    (False, "rfid+mac:04A2B7C9"),
)
MAC_MAKERS = ("92D50A", "0001C0", "7CBC84", "A453EE")


@dataclass(frozen=True, slots=True, kw_only=True)
class NightStation:
    """A station of the depot. Power in W: per outlet, and for all together."""

    station_id: str
    connectors: int
    rated_w: float
    max_w: float
    vendor: str = "Virtual"
    model: str = "VS"
    ocpp_version: str = "1.6"
    iso15118: bool = False
    id_form: str = "vid"
    faults: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NightVehicle:
    """One visit of one vehicle. Wh, W and percent; times are aware UTC.

    With `tells_soc` false the station never learns its state of charge;
    `limit_percent` is where it stops by itself.
    """

    vehicle_id: str
    name: str
    mac: str
    capacity_wh: float
    max_w: float
    min_w: float
    can_resume: bool
    arrival: datetime
    departure: datetime
    soc_start: float
    soc_target: float
    station_id: str
    connector: int
    tells_soc: bool = True
    limit_percent: float = 100.0

    @property
    def need_wh(self) -> float:
        """The energy in Wh at the outlet that brings it to its target."""
        stored_wh = (self.soc_target - self.soc_start) / 100 * self.capacity_wh
        return stored_wh / EFFICIENCY


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """A station loses its link for `lasts_s` simulated seconds, or restarts."""

    station_id: str
    at: datetime
    lasts_s: float = 0.0
    is_restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DepotScenario:
    """A whole night. `cap_w` is what the depot may draw for charging, in W."""

    seed: int
    start: datetime
    end: datetime
    cap_w: float
    stations: tuple[NightStation, ...]
    vehicles: tuple[NightVehicle, ...]
    mishaps: tuple[Mishap, ...] = ()

    def station(self, station_id: str) -> NightStation:
        """Find a station by its id."""
        return next(each for each in self.stations if each.station_id == station_id)


def make_night(
    seed: int,
    start: datetime,
    *,
    hours: float = 10.0,
    stations: int = 8,
    vehicles: int = 14,
    station_prefix: str = "CP",
    versions: Sequence[str] = ("1.6",),
) -> DepotScenario:
    """Invent a night that can be served under its cap; the same seed, the same night.

    A short night has small needs: vehicles arrive nearly full. The stations speak
    `versions` in turn; where there are several, those of 2.x also differ in habits.
    """
    if stations < 1 or vehicles < 1 or hours <= 0:
        raise ValueError("a night needs hours, stations and vehicles")
    chance = random.Random(seed)
    night = timedelta(hours=hours)
    yard = with_versions(
        [_station(number, station_prefix) for number in range(stations)], versions
    )
    visits = _visits(chance, yard, vehicles, start, night)
    cap_w = CAP_SHARE * sum(each.max_w for each in visits)
    scenario = DepotScenario(
        seed=seed,
        start=start,
        end=start + night,
        cap_w=cap_w,
        stations=yard,
        vehicles=tuple(visits),
    )
    return _made_feasible(scenario)


def with_versions(
    stations: Sequence[NightStation], versions: Sequence[str]
) -> tuple[NightStation, ...]:
    """Let stations speak these versions in turn, and give a mix its habits."""
    made: list[NightStation] = []
    count_2x = 0
    for number, station in enumerate(stations):
        version = versions[number % len(versions)]
        iso15118, id_form = station.iso15118, station.id_form
        if len(versions) > 1 and version != "1.6":
            iso15118, id_form = HABITS[count_2x % len(HABITS)]
            count_2x += 1
        made.append(
            replace(station, ocpp_version=version, iso15118=iso15118, id_form=id_form)
        )
    return tuple(made)


def unserved_wh(scenario: DepotScenario) -> dict[str, float]:
    """Serve by earliest departure under cap and station limits; list Wh left over."""
    left = {each.vehicle_id: each.need_wh for each in scenario.vehicles}
    hours = CHECK_STEP.total_seconds() / 3600
    queue = sorted(scenario.vehicles, key=lambda each: each.departure)
    moment = scenario.start
    while moment < scenario.end:
        free_w = scenario.cap_w * CAP_USE_MAX
        free_at = {each.station_id: each.max_w for each in scenario.stations}
        for vehicle in queue:
            if not vehicle.arrival <= moment < vehicle.departure - CHECK_STEP:
                continue
            most_w = min(
                _outlet_w(scenario, vehicle) * STAY_USE_MAX,
                free_w,
                free_at[vehicle.station_id],
                left[vehicle.vehicle_id] / hours,
            )
            left[vehicle.vehicle_id] -= most_w * hours
            free_w -= most_w
            free_at[vehicle.station_id] -= most_w
        moment += CHECK_STEP
    return {key: wh for key, wh in left.items() if wh > 1.0}


def _outlet_w(scenario: DepotScenario, vehicle: NightVehicle) -> float:
    return min(vehicle.max_w, scenario.station(vehicle.station_id).rated_w)


def _station(number: int, prefix: str) -> NightStation:
    connectors, rated_w, max_w = STATION_KINDS[number % len(STATION_KINDS)]
    return NightStation(
        station_id=f"{prefix}-{number + 1:02}",
        connectors=connectors,
        rated_w=rated_w,
        max_w=max_w,
        model=f"VS-{connectors}x{rated_w / 1000:.0f}",
    )


def _visits(
    chance: random.Random,
    yard: tuple[NightStation, ...],
    count: int,
    start: datetime,
    night: timedelta,
) -> list[NightVehicle]:
    """Spread the vehicles over the outlets, one round after the other."""
    outlets = [
        (each, connector) for each in yard for connector in range(1, each.connectors + 1)
    ]
    outlets.sort(key=lambda place: place[1])  # first every station's first outlet
    outlets = outlets[: max(1, (count * 3 + 3) // 4)]  # so some outlets serve two
    rounds = -(-count // len(outlets))
    visits = []
    for number in range(count):
        station, connector = outlets[number % len(outlets)]
        turn = number // len(outlets)
        is_shared = number + len(outlets) < count or turn > 0
        window = night / rounds if is_shared else night
        begin = start + window * turn if is_shared else start
        visits.append(_visit(chance, number, station, connector, (begin, window)))
    return visits


def _visit(
    chance: random.Random,
    number: int,
    station: NightStation,
    connector: int,
    window: tuple[datetime, timedelta],
) -> NightVehicle:
    begin, length = window
    kind, low_wh, high_wh, low_w, high_w, min_w = VEHICLE_KINDS[number % len(VEHICLE_KINDS)]
    capacity_wh = round(chance.uniform(low_wh, high_wh), -3)
    max_w = min(round(chance.uniform(low_w, high_w), -3), station.rated_w)
    arrival = begin + length * chance.uniform(TURN_SHARE / 2, 0.15)
    departure = begin + length * chance.uniform(0.85, 1 - TURN_SHARE / 2)
    stay_hours = (departure - arrival).total_seconds() / 3600
    soc_target = round(chance.uniform(85, 100), 0)
    gain_max = max_w * STAY_USE_MAX * stay_hours * EFFICIENCY / capacity_wh * 100
    gain = min(soc_target - chance.uniform(15, 45), gain_max * chance.uniform(0.5, 0.9))
    return NightVehicle(
        vehicle_id=f"V{number + 1:02}",
        name=f"{kind} {number + 1}",
        mac=_mac(chance, number),
        capacity_wh=capacity_wh,
        max_w=max_w,
        min_w=min_w,
        can_resume=number % CANNOT_RESUME_EACH != CANNOT_RESUME_EACH - 1,
        arrival=_whole_second(arrival),
        departure=_whole_second(departure),
        soc_start=round(soc_target - gain, 1),
        soc_target=soc_target,
        station_id=station.station_id,
        connector=connector,
    )


def _mac(chance: random.Random, number: int) -> str:
    return f"{MAC_MAKERS[number % len(MAC_MAKERS)]}{chance.randrange(1 << 24):06X}"


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _made_feasible(scenario: DepotScenario) -> DepotScenario:
    """Raise the arrival SoC of those that could not be served, until all can be."""
    while missing := unserved_wh(scenario):
        scenario = replace(
            scenario,
            vehicles=tuple(
                _eased(each, missing.get(each.vehicle_id, 0.0))
                for each in scenario.vehicles
            ),
        )
    return scenario


def _eased(vehicle: NightVehicle, missing_wh: float) -> NightVehicle:
    if missing_wh <= 0:
        return vehicle
    percent = missing_wh * EFFICIENCY / vehicle.capacity_wh * 100 + 0.1
    soc_start = min(vehicle.soc_target, vehicle.soc_start + percent)
    return replace(vehicle, soc_start=round(soc_start, 1))
