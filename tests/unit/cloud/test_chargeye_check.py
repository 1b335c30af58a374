"""The same stay told twice: joined by mapping and time, every difference named once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.cloud.chargeye_check import CrossCheck, StationLink, cross_check
from agent.cloud.chargeye_rows import CloudSession, CloudStation, read_session
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    MacAddress,
    SessionId,
    StationId,
    VehicleId,
)
from agent.domain.meter import MeterState
from agent.domain.session import Session

from .conftest import NOW

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
MAC = MacAddress("04E77E00F0FA")
LINK = StationLink(station_id="CP-01", cloud_id="CS-7")


def ours(number: int = 1, start_h: float = -8, end_h: float | None = -2, **more) -> Session:
    fields: dict[str, Any] = {
        "session_id": SessionId(f"S{number}"),
        "station_id": StationId("CP-01"),
        "evse_id": EvseId(1),
        "connector_id": ConnectorId(1),
        "ocpp_version": "ocpp1.6",
        "plugged_at": NOW + start_h * HOUR,
        "ended_at": None if end_h is None else NOW + end_h * HOUR,
        "mac": MAC,
        "vehicle_id": VehicleId("bus-1"),
        "meter": MeterState(energy_wh=40_000.0, soc_first=20.0, soc_percent=80.0),
    }
    return Session(**(fields | more))


def theirs(number: int = 1, start_h: float = -8, end_h: float | None = -2, **more) -> Any:
    def told(hours: float) -> str:
        return (NOW + hours * HOUR).isoformat()

    row = {
        "txId": f"T{number}",
        "stationId": "CS-7",
        "evseId": "1",
        "startTime": told(start_h),
        "endTime": told(end_h) if end_h is not None else None,
        "chargedEnergyKwh": 40.2,
        "socStart": 21,
        "socEnd": 79,
        "evMacAddress": MAC,
        "vehicle": {"id": "bus-1"},
    }
    found = read_session(row | more)
    assert isinstance(found, CloudSession)
    return found


def a_station(name: str = "CS-7", online: str = "Online") -> CloudStation:
    return CloudStation(
        station_id=name,
        name="",
        status="",
        online=online,
        location_uid="",
        max_w=None,
        connectors=(),
        row={},
    )


def check(one: list[Session], other: list[CloudSession], **more: Any) -> CrossCheck:
    options: dict[str, Any] = {"links": [LINK], "stations": [a_station()]}
    return cross_check(one, other, since=NOW - 24 * HOUR, **(options | more))


def what(found: CrossCheck) -> list[str]:
    return [item.what for item in found.differences]


def test_two_tellings_of_one_stay_are_one_pair_without_differences() -> None:
    found = check([ours()], [theirs()])

    assert found.pairs == (("S1", "T1"),)
    assert found.differences == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chargedEnergyKwh": 45}, "energy"),
        ({"chargedEnergyKwh": None}, None),
        ({"socStart": 30}, "SoC at start"),
        ({"socEnd": 60}, "SoC at end"),
        ({"startTime": (NOW - 8 * HOUR + 7 * MINUTE).isoformat()}, "begin"),
        ({"endTime": (NOW - HOUR).isoformat()}, "end"),
        ({"endTime": None}, "end: over on one side only"),
        ({"evMacAddress": "04E77E00F0FB"}, "MAC"),
        ({"vehicle": {"id": "bus-2"}}, "vehicle"),
        ({"vehicle": None, "evMacAddress": None, "socStart": None}, None),
    ],
)
def test_each_difference_is_named_with_both_values(
    change: dict[str, Any], expected: str | None
) -> None:
    found = check([ours()], [theirs(**change)])

    assert what(found) == ([expected] if expected else [])
    for item in found.differences:
        assert (item.session_id, item.tx_id) == ("S1", "T1")
        assert item.ours != item.theirs


def test_what_one_side_lacks_is_named() -> None:
    found = check([ours(1), ours(2, -1, None)], [theirs(1), theirs(3, -20, -15)])

    assert {(d.what, d.session_id, d.tx_id) for d in found.differences} == {
        ("session unknown to ChargEye", "S2", ""),
        ("transaction unknown here", "", "T3"),
    }


def test_stays_one_after_the_other_are_paired_in_their_order() -> None:
    sessions = [ours(n, -10 + n, -9.2 + n) for n in range(4)]
    rows = [theirs(n, -10 + n + 0.05, -9.2 + n) for n in reversed(range(4))]

    found = check(sessions, rows)

    assert sorted(found.pairs) == [(f"S{n}", f"T{n}") for n in range(4)]


def test_one_transaction_is_used_once() -> None:
    found = check([ours(1, -8, -7), ours(2, -7.95, -7)], [theirs(1, -8, -7)])

    assert found.pairs == (("S1", "T1"),)
    assert what(found) == ["session unknown to ChargEye"]


@pytest.mark.parametrize(
    ("names", "connectors", "is_joined"),
    [
        ({"evseId": "1"}, {}, True),
        ({"evseId": "CS-7_connector1"}, {}, True),
        ({"evseId": "charger1_connector2"}, {}, False),
        ({"evseId": "CS-7-01"}, {}, True),
        ({"evseId": "left", "actualEVSEId": 1}, {}, True),
        ({"evseId": "left"}, {}, False),
        ({"evseId": "left"}, {"1": "left"}, True),
        ({"evseId": "1"}, {"1": "left"}, False),
        ({"evseId": None}, {}, True),
    ],
)
def test_connectors_are_joined_by_number_or_by_the_configured_name(
    names: dict[str, Any], connectors: dict[str, str], *, is_joined: bool
) -> None:
    link = StationLink(station_id="CP-01", cloud_id="CS-7", connectors=connectors)

    found = check([ours()], [theirs(**names)], links=[link])

    assert bool(found.pairs) == is_joined


def test_stations_that_one_side_does_not_know_are_named() -> None:
    links = [LINK, StationLink(station_id="CP-02", cloud_id="CP-02")]
    stations = [a_station(online="Offline"), a_station("CS-9")]

    found = check([], [], links=links, stations=stations)

    assert {(d.what.split(":")[0], d.station_id) for d in found.differences} == {
        ("station offline in ChargEye", "CP-01"),
        ("station unknown to ChargEye", "CP-02"),
        ("station not configured here", "CS-9"),
    }


def test_what_began_before_the_time_asked_for_is_left_out() -> None:
    found = check([ours(1, -40, -30)], [theirs(1, -40, -30)])

    assert found == CrossCheck(pairs=(), differences=())


def test_running_on_both_sides_is_compared_by_its_begin_only() -> None:
    found = check([ours(1, -2, None)], [theirs(1, -2, None, chargedEnergyKwh=1, socEnd=22)])

    assert found.pairs == (("S1", "T1"),)
    assert found.differences == ()
