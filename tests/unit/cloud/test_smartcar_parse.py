"""Smartcar's JSON: tolerant of shapes, strict with units, honest about age."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloud.smartcar_errors import ApiError
from agent.cloud.smartcar_parse import (
    next_of,
    read_command,
    read_connection,
    read_signals,
    rows_of,
    time_of,
)
from tests.support.smartcar_cloud import NOW, SIGNALS, VIN, signal

AT = datetime(2026, 11, 10, 17, 58, tzinfo=UTC)
SOC = "tractionbattery-stateofcharge"
RANGE = "tractionbattery-range"
CAPACITY = "tractionbattery-nominalcapacity"
LIMITS = "charge-chargelimits"


def one(row: dict[str, Any]) -> Any:
    """The only value of a state, or None; problems must be named when it is refused."""
    found = read_signals([row], NOW)
    values = [
        found.state.soc_percent, found.state.range_km, found.state.capacity_wh,
        found.state.limit_percent, found.state.is_plugged, found.state.is_charging,
    ]  # fmt: skip
    given_ = [item for item in values if item is not None]
    assert len(given_) <= 1
    return given_[0].value if given_ else None


@pytest.mark.parametrize(
    "raw",
    [
        "2026-11-10T17:58:00.000Z", "2026-11-10T18:58:00+01:00", "2026-11-10T17:58:00",
        1_794_333_480_000, 1_794_333_480, 1_794_333_480_000.0,
    ],
)  # fmt: skip
def test_all_encodings_of_a_time(raw: Any) -> None:
    """ISO-8601, milliseconds, seconds (section 4)."""
    assert time_of(raw, NOW) == AT


@pytest.mark.parametrize(
    "raw",
    [
        0, None, "", "yesterday", True, -5, 12, [], {}, "0001-01-01T00:00:00+14:00",
        10**30, "9999-12-31T23:59:59-12:00", "2026-11-10T18:11:00Z",
    ],
)  # fmt: skip
def test_what_says_no_time(raw: Any) -> None:
    """0 and null are unknown; so is a time to come: it would look fresh for ever."""
    assert time_of(raw, NOW) is None


def test_a_whole_car() -> None:
    """Every signal that the agent uses, each with the vehicle's own time."""
    found = read_signals(SIGNALS, NOW)
    state = found.state

    assert state.soc_percent is not None
    assert (state.soc_percent.value, state.soc_percent.recorded_at) == (54, AT)
    assert state.range_km is not None
    assert state.range_km.value == 210.5
    assert state.capacity_wh is not None
    assert state.capacity_wh.value == 77_000
    assert state.limit_percent is not None
    assert state.limit_percent.value == 80
    assert state.is_plugged is not None
    assert state.is_plugged.value == 1.0
    assert state.is_charging is not None
    assert state.is_charging.value == 0.0
    assert (state.charging, state.vin) == ("NOT_CHARGING", VIN)
    assert (found.count, found.problems, found.errors) == (8, (), ())


@pytest.mark.parametrize(
    ("row", "value"),
    [
        (signal(SOC, value=54, unit="percent"), 54),
        (signal(SOC, value=54.5, unit="%"), 54.5),
        (signal(SOC, value=54), 54),
        (signal(RANGE, value=100, unit="kilometers"), 100),
        (signal(RANGE, value=100, unit=" Miles "), pytest.approx(160.9344)),
        (signal(CAPACITY, capacity=50, unit="kWhr"), 50_000),
        (signal(CAPACITY, capacity=50), 50_000),
        (signal(CAPACITY, capacity=50_000, unit="Wh"), 50_000),
        (signal(LIMITS, values=[], activeLimit=90, unit="percent"), 90),
        (signal(LIMITS, values=[{"type": "global", "limit": 70}], activeLimit=None), 70),
        (
            signal(
                LIMITS, values=[{"type": "LOCATION", "limit": 60}, {"type": "GLOBAL", "limit": 75}]
            ),
            75,
        ),
    ],
)  # fmt: skip
def test_units_by_their_synonyms(row: dict[str, Any], value: float) -> None:
    """One unit inside; a missing one is the documented one."""
    assert one(row) == value


@pytest.mark.parametrize(
    ("values", "has_timers"),
    [
        ([], 0),
        ([{"type": "GLOBAL", "schedules": [], "departureTimers": []}], 0),
        ([{"type": "GLOBAL", "schedules": [{"start": "22:00"}]}], 1),
        ([{"type": "LOCATION", "isOEMOptimizationEnabled": True}], 1),
        (None, None),
        ("none", None),
    ],
)
def test_timers_of_the_car_itself_are_noticed(values: Any, has_timers: int | None) -> None:
    """Some makes ignore their limit when they are started beside their own timers."""
    row = signal("charge-chargetimers", values=values)
    found = read_signals([row], NOW).state.has_timers

    assert (None if found is None else found.value) == has_timers


@pytest.mark.parametrize(
    "row",
    [
        signal(SOC, value=0.54, unit="fraction"),
        signal(SOC, value=54, unit=7),
        signal(SOC, value=101, unit="percent"),
        signal(SOC, value=-1, unit="percent"),
        signal(SOC, value=True, unit="percent"),
        signal(SOC, value="54", unit="percent"),
        signal(SOC, value=10**400, unit="percent"),
        signal(RANGE, value=5, unit="parsec"),
        signal(CAPACITY, capacity=77, unit="Ah"),
        signal(CAPACITY, capacity=0, unit="kWh"),
        signal("charge-ischarging", value="yes"),
        signal("charge-ischargingcableconnected", value=1),
        signal("vehicleidentification-vin", value="SHORT"),
        signal("vehicleidentification-vin", value=7),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(row: dict[str, Any]) -> None:
    """Loudly, rather than guessed."""
    found = read_signals([row], NOW)

    assert one(row) is None
    assert found.state.vin == ""
    assert len(found.problems) == 1
    assert found.problems[0].startswith(row["id"])


@pytest.mark.parametrize(
    "row",
    [
        signal(SOC),
        signal(SOC, value=None, unit="percent"),
        signal(CAPACITY, capacity=None, availableCapacities=[{"capacity": 77}]),
        signal(LIMITS, values=[], activeLimit=None),
        signal(LIMITS),
        signal("charge-ischarging", value=None),
        signal("charge-wattage", value=7, unit="horsepower"),
        signal(SOC, at=0, status="ERROR", value=54, unit="percent"),
        signal(SOC, at=None, status="UNAVAILABLE", value=54, unit="percent"),
        {}, {"id": SOC}, {"attributes": None}, {"id": 7, "attributes": {"code": []}},
    ],
)  # fmt: skip
def test_what_says_nothing_is_no_problem(row: dict[str, Any]) -> None:
    """Null, absent, not ours, or cached without a time under an error."""
    found = read_signals([row], NOW)

    assert one(row) is None
    assert found.problems == ()


def test_a_cached_value_under_an_error_keeps_its_own_time() -> None:
    """Freshness is judged by it alone (section 5.3)."""
    error = {"type": "CONNECTED_SERVICES_ACCOUNT", "code": "ACCOUNT_ISSUE"}
    row = signal(
        SOC, "2026-11-10T09:00:00Z", "ERROR", value=31, unit="percent", error=error
    )
    found = read_signals([row], NOW)

    assert found.state.soc_percent is not None
    assert found.state.soc_percent.value == 31
    assert found.state.soc_percent.recorded_at == datetime(2026, 11, 10, 9, tzinfo=UTC)
    assert [item.name for item in found.errors] == [
        "CONNECTED_SERVICES_ACCOUNT:ACCOUNT_ISSUE"
    ]


def test_an_idle_cars_error_is_a_reading() -> None:
    """NOT_CHARGING on rates is normal."""
    error = {"type": "VEHICLE_STATE", "code": "NOT_CHARGING"}
    row = signal("charge-ischarging", status="ERROR", value=False, error=error)
    found = read_signals([row], NOW)

    assert found.errors == ()
    assert found.state.is_charging is not None


def test_a_value_without_a_time_is_of_unknown_age() -> None:
    """Not fresh."""
    found = read_signals([signal(SOC, at=0, value=54, unit="percent")], NOW)

    assert found.state.soc_percent is not None
    assert found.state.soc_percent.recorded_at is None


def test_of_a_doubled_signal_the_newest_counts() -> None:
    """Whatever their order."""
    old = signal(SOC, "2026-11-10T10:00:00Z", value=20, unit="percent")
    new = signal(SOC, "2026-11-10T17:00:00Z", value=40, unit="percent")
    for rows in ([old, new], [new, old]):
        state = read_signals(rows, NOW).state
        assert state.soc_percent is not None
        assert state.soc_percent.value == 40


URL = "https://vehicle.smartcar.test/v3/connections?page%5Bnumber%5D=1"


@pytest.mark.parametrize(
    ("link", "address"),
    [
        (None, None), ("", None), ("  ", None), (7, None),
        ("/v3/connections?page=2", "https://vehicle.smartcar.test/v3/connections?page=2"),
        ("?page=2", "https://vehicle.smartcar.test/v3/connections?page=2"),
        ("https://vehicle.smartcar.test/v3/x", "https://vehicle.smartcar.test/v3/x"),
    ],
)  # fmt: skip
def test_the_next_page(link: Any, address: str | None) -> None:
    """Absolute or relative, null or absent."""
    assert next_of({"data": [], "links": {"next": link}}, URL) == address
    assert next_of({"data": []}, URL) is None


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.test/v3", "//elsewhere.test/v3", "http://vehicle.smartcar.test/v3",
        "https://vehicle.smartcar.test:444/v3", "ftp://vehicle.smartcar.test/",
        "https://vehicle.smartcar.test@elsewhere.test/",
    ],
)  # fmt: skip
def test_a_foreign_next_page_is_not_followed(link: str) -> None:
    """The token goes nowhere else."""
    with pytest.raises(ValueError, match="another host"):
        next_of({"links": {"next": link}}, URL)


def test_a_page_without_a_list_is_refused() -> None:
    """Nonsense is no empty list: cars would vanish."""
    bodies: list[Any] = [{}, {"data": {}}, [], None]
    for body in bodies:
        with pytest.raises(ValueError, match="no list"):
            rows_of(body)
    assert rows_of({"data": [7, {"id": 1}]}) == [{"id": 1}]


def test_a_connection() -> None:
    """Ids by relation or attribute; permissions as a hint."""
    row = {
        "id": "c-1", "type": "connection",
        "attributes": {
            "permissions": ["read_battery", "control_charge", 7],
            "vehicle": {"make": "VOLVO"}, "user": {"id": "u-1"},
        },
        "relationships": {"vehicle": {"data": {"id": "v-1", "type": "vehicle"}}},
        "meta": {"createdAt": "2026-11-01T00:00:00Z", "updatedAt": "2026-11-09T00:00:00Z"},
    }  # fmt: skip
    found = read_connection(row, NOW)

    assert found is not None
    assert (found.connection.car.vehicle_id, found.connection.car.user_id) == ("v-1", "u-1")
    assert found.connection.permissions == {"read_battery", "control_charge"}
    assert found.connection.make == "VOLVO"
    assert found.changed_at == datetime(2026, 11, 9, tzinfo=UTC)


@pytest.mark.parametrize("vehicle_id", ["", "v\n1", "v\u00e9", "x" * 200, 7, None])
def test_a_connection_whose_id_no_request_can_carry_is_left_out(vehicle_id: Any) -> None:
    """It goes into an address and a header."""
    row = {"relationships": {"vehicle": {"data": {"id": vehicle_id}}}}
    assert read_connection(row, NOW) is None


def test_how_a_command_ended() -> None:
    """From the status in the body; an error inside comes along."""
    base = ApiError(http_status=200)
    status = {"value": "failure", "error": {"type": "VEHICLE_STATE", "code": "ASLEEP"}}
    found = read_command({"data": {"attributes": {"status": status}}}, base)

    assert found.status == "FAILURE"
    assert found.error is not None
    assert found.error.name == "VEHICLE_STATE:ASLEEP"
    bodies: list[Any] = [None, [], {}, {"data": []}]
    bodies.append({"data": {"attributes": {"status": "SUCCESS"}}})
    for body in bodies:
        assert read_command(body, base).status == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["value", "unit", "capacity", "values", "activeLimit", "limit", "type"]),
        inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([row["id"] for row in SIGNALS]), JSON, JSON, JSON),
        max_size=6,
    )
)
def test_no_body_breaks_the_reader(rows: list[tuple[str, Any, Any, Any]]) -> None:
    """Whatever stands there: values are sane or absent."""
    found = read_signals(
        [
            {"attributes": {"code": code, "body": body, "status": status}, "meta": meta}
            for code, body, status, meta in rows
        ],
        NOW,
    )

    state = found.state
    assert state.soc_percent is None or 0 <= state.soc_percent.value <= 100
    assert state.limit_percent is None or 0 <= state.limit_percent.value <= 100
    assert all(len(problem) < 300 for problem in found.problems)
