"""Scenario files: who stands where, when, and what goes wrong, written by hand in TOML.

Times are minutes after the start. Keys with a value here are optional::

    minutes = 120               # how long it lasts
    cap_kw = 300                # what a planner may use; else the sum of all vehicles
    [[stations]]
    id = "CP-01"
    outlet_kw = 150             # of each outlet
    outlets = 1
    max_kw = 200                # of all outlets together; else their sum
    version = "1.6"             # 1.6, 2.0.1 or 2.1
    id_form = "vid"             # how a vehicle is told: vid, bare, no-auth, rfid:CARD, ...
    iso15118 = false            # 2.x: the vehicles tell their needs
    faults = []                 # by name
    [[vehicles]]
    id = "bus-1"
    mac = "92D50A693F80"
    station = "CP-01"
    outlet = 1
    arrival = 5
    departure = 110
    battery_kwh = 300
    max_kw = 120
    soc_start = 40
    name = "bus-1"
    min_kw = 3
    soc_target = 90
    can_resume = true           # false: it sleeps for good after a long pause
    tells_soc = true            # false: the station never learns its state of charge
    limit = 100                 # percent where the vehicle stops by itself
    [[cuts]]                    # the link of a station is gone for a while
    station = "CP-01"
    at = 30
    minutes = 5
    [[restarts]]                # a station restarts
    station = "CP-01"
    at = 60

Wrong keys, words and times are refused with a ScenarioError that names the place.
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.simulator.depot import (
    DepotScenario,
    Mishap,
    NightStation,
    NightVehicle,
    with_versions,
)
from agent.simulator.faults import check_faults
from agent.simulator.station_config import VERSIONS, StationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

W_PER_KW = 1000.0
MAC_DIGITS = 12


class ScenarioError(ValueError):
    """A scenario file says something that cannot be."""


class _Key(NamedTuple):
    """The type of a key and its value where it is not given; ... if it must be."""

    kind: type
    default: Any = ...


_TOP = {
    "minutes": _Key(float),
    "cap_kw": _Key(float, None),
    "stations": _Key(list),
    "vehicles": _Key(list),
    "cuts": _Key(list, []),
    "restarts": _Key(list, []),
}
_STATION = {
    "id": _Key(str),
    "outlet_kw": _Key(float),
    "outlets": _Key(int, 1),
    "max_kw": _Key(float, None),
    "version": _Key(str, "1.6"),
    "id_form": _Key(str, "vid"),
    "iso15118": _Key(bool, default=False),
    "faults": _Key(list, []),
}
_VEHICLE = {
    "id": _Key(str),
    "mac": _Key(str),
    "station": _Key(str),
    "outlet": _Key(int, 1),
    "arrival": _Key(float),
    "departure": _Key(float),
    "battery_kwh": _Key(float),
    "max_kw": _Key(float),
    "soc_start": _Key(float),
    "name": _Key(str, ""),
    "min_kw": _Key(float, 3.0),
    "soc_target": _Key(float, 90.0),
    "can_resume": _Key(bool, default=True),
    "tells_soc": _Key(bool, default=True),
    "limit": _Key(float, 100.0),
}
_CUT = {"station": _Key(str), "at": _Key(float), "minutes": _Key(float)}
_RESTART = {"station": _Key(str), "at": _Key(float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    """The length of a scenario, against which its times are held."""

    start: datetime
    minutes: float

    def at(self, minute: float, place: str) -> datetime:
        """Tell the time of a minute."""
        if not 0 <= minute <= self.minutes:
            raise ScenarioError(f"{place}: minute {minute:g} is not 0 to {self.minutes:g}")
        return self.start + timedelta(minutes=minute)


def load_scenario(path: Path, start: datetime) -> DepotScenario:
    """Read a scenario file that begins at `start`; raise ScenarioError or OSError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path.name}: {error}") from error
    return read_scenario(content, start)


def read_scenario(content: Mapping[str, Any], start: datetime) -> DepotScenario:
    """Make a scenario of what a file holds; raise ScenarioError with place and reason."""
    top = _read(content, _TOP, "scenario")
    time = _Time(start=start, minutes=top["minutes"])
    if time.minutes <= 0:
        raise ScenarioError("scenario: minutes must be more than 0")
    stations = [_station(row, place) for place, row in _rows(top, "stations", _STATION)]
    by_id = {each.station_id: each for each in stations}
    if len(by_id) != len(stations) or not stations:
        raise ScenarioError("stations: there must be some, each with an id of its own")
    vehicles = [
        _vehicle(row, place, by_id, time) for place, row in _rows(top, "vehicles", _VEHICLE)
    ]
    _check_visits(vehicles)
    mishaps = [
        _mishap(row, place, by_id, time)
        for name, keys in (("cuts", _CUT), ("restarts", _RESTART))
        for place, row in _rows(top, name, keys)
    ]
    cap_w = sum(each.max_w for each in vehicles)
    return DepotScenario(
        seed=0,
        start=start,
        end=time.at(time.minutes, "scenario"),
        cap_w=cap_w if top["cap_kw"] is None else top["cap_kw"] * W_PER_KW,
        stations=tuple(stations),
        vehicles=tuple(sorted(vehicles, key=lambda each: each.arrival)),
        mishaps=tuple(mishaps),
    )


def forced_to(scenario: DepotScenario, *versions: str) -> DepotScenario:
    """Let all stations of a scenario speak these versions in turn."""
    return replace(scenario, stations=with_versions(scenario.stations, versions))


def _rows(
    top: Mapping[str, Any], name: str, keys: Mapping[str, _Key]
) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for number, row in enumerate(top[name], start=1):
        place = f"{name} {number}"
        if not isinstance(row, dict):
            raise ScenarioError(f"{place}: write it as [[{name}]]")
        found.append((place, _read(row, keys, place)))
    return found


def _read(row: Mapping[str, Any], keys: Mapping[str, _Key], place: str) -> dict[str, Any]:
    for name in row:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1, cutoff=0.0)
            raise ScenarioError(f"{place}: no key {name!r}; the nearest is {near[0]!r}")
    read = {}
    for name, key in keys.items():
        if name not in row and key.default is ...:
            raise ScenarioError(f"{place}: {name} is missing")
        read[name] = (
            _value(row[name], key, f"{place}: {name}") if name in row else key.default
        )
    return read


def _value(value: Any, key: _Key, place: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key.kind is float and is_number:
        return float(value)
    if type(value) is not key.kind:
        raise ScenarioError(f"{place}: {value!r} is not of type {key.kind.__name__}")
    return value


def _station(row: Mapping[str, Any], place: str) -> NightStation:
    if row["version"] not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise ScenarioError(f"{place}: version {row['version']!r} is not one of {known}")
    rated_w = row["outlet_kw"] * W_PER_KW
    most_w = row["outlets"] * rated_w
    station = NightStation(
        station_id=row["id"],
        connectors=row["outlets"],
        rated_w=rated_w,
        max_w=most_w if row["max_kw"] is None else row["max_kw"] * W_PER_KW,
        ocpp_version=row["version"],
        iso15118=row["iso15118"],
        id_form=row["id_form"],
        faults=frozenset(str(each) for each in row["faults"]),
    )
    try:
        check_faults(station.faults)
        StationConfig(
            station_id=station.station_id,
            url="",
            connectors=station.connectors,
            rated_w=station.rated_w,
            id_form=station.id_form,
        )
    except ValueError as error:
        raise ScenarioError(f"{place}: {error}") from error
    return station


def _vehicle(
    row: Mapping[str, Any],
    place: str,
    stations: Mapping[str, NightStation],
    time: _Time,
) -> NightVehicle:
    station = _known(row["station"], place, stations)
    if not 1 <= row["outlet"] <= station.connectors:
        raise ScenarioError(f"{place}: {station.station_id} has no outlet {row['outlet']}")
    mac = row["mac"].upper().replace(":", "")
    if len(mac) != MAC_DIGITS or not all(each in "0123456789ABCDEF" for each in mac):
        raise ScenarioError(f"{place}: mac {row['mac']!r} is not 12 hex digits")
    if row["departure"] <= row["arrival"]:
        raise ScenarioError(f"{place}: it departs before it arrives")
    if not 0 <= row["soc_start"] <= row["soc_target"] <= 100:  # noqa: PLR2004 (percent)
        raise ScenarioError(f"{place}: soc_start and soc_target must ascend in 0 to 100")
    if row["battery_kwh"] <= 0 or row["max_kw"] <= 0 or row["min_kw"] < 0:
        raise ScenarioError(f"{place}: battery_kwh and max_kw must be more than 0")
    if not 0 < row["limit"] <= 100:  # noqa: PLR2004 (percent)
        raise ScenarioError(f"{place}: limit must be above 0 and at most 100")
    return NightVehicle(
        vehicle_id=row["id"],
        name=row["name"] or row["id"],
        mac=mac,
        capacity_wh=row["battery_kwh"] * W_PER_KW,
        max_w=row["max_kw"] * W_PER_KW,
        min_w=row["min_kw"] * W_PER_KW,
        can_resume=row["can_resume"],
        arrival=time.at(row["arrival"], place),
        departure=time.at(row["departure"], place),
        soc_start=row["soc_start"],
        soc_target=row["soc_target"],
        station_id=station.station_id,
        connector=row["outlet"],
        tells_soc=row["tells_soc"],
        limit_percent=row["limit"],
    )


def _check_visits(vehicles: list[NightVehicle]) -> None:
    """Refuse a depot with nobody in it, and two vehicles at one outlet."""
    if not vehicles:
        raise ScenarioError("vehicles: there must be some")
    at_outlet: dict[tuple[str, int], list[NightVehicle]] = defaultdict(list)
    for each in vehicles:
        at_outlet[each.station_id, each.connector].append(each)
    for visits in at_outlet.values():
        visits.sort(key=lambda each: each.arrival)
        for one, other in itertools.pairwise(visits):
            if other.arrival <= one.departure:
                raise ScenarioError(
                    f"vehicles: {other.vehicle_id} comes to {one.station_id}/"
                    f"{one.connector} before {one.vehicle_id} has left"
                )


def _mishap(
    row: Mapping[str, Any],
    place: str,
    stations: Mapping[str, NightStation],
    time: _Time,
) -> Mishap:
    station = _known(row["station"], place, stations)
    minutes = row.get("minutes")
    return Mishap(
        station_id=station.station_id,
        at=time.at(row["at"], place),
        lasts_s=0.0 if minutes is None else max(0.0, minutes) * 60,
        is_restart=minutes is None,
    )


def _known(
    station_id: str, place: str, stations: Mapping[str, NightStation]
) -> NightStation:
    if station_id not in stations:
        known = ", ".join(stations)
        raise ScenarioError(f"{place}: no station {station_id!r}; there are {known}")
    return stations[station_id]
