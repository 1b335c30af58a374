"""ChargEye's rows and bodies: any JSON is read or named, only exact bodies leave."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloud import chargeye_rows as rows
from agent.cloud.chargeye_writes import (
    HVAC_MODES,
    SCHEDULE_CHECKS,
    VEHICLE_CHECKS,
    editable_vehicle,
    patched_schedules,
    posted_schedules,
    v2icp_parameters,
    vehicle_fields,
)
from agent.standin.schedules import WRITABLE
from tests.support.properties import examples

NAMES = [
    *("id", "evId", "txId", "stationId", "connectors", "connectorId", "powerkW"),
    *("lastTransaction", "latestTransaction", "schedules", "transactions", "vehicle"),
    *("startTime", "socStart", "soc", "chargedEnergyKwh", "evMacAddress", "locations"),
    *("stations", "schedulePlan", "plannedArrivalTime", "plannedDepartureTime"),
    "recurringSchedules",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["0001-01-01T00:00:00+10:00", "2026-01-15T18:00:00Z", "Infinity"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
quick = examples(150)


@quick
@given(body=JSON)
def test_any_json_is_read_or_refused_with_a_value_error(body: Any) -> None:
    """Never another error: a cloud's answer ends no command with a traceback."""
    rows.read_active(body)
    rows.read_posted(body)
    rows.read_patched(body)
    rows.read_session(body)
    for read in (rows.read_slots, rows.read_places, rows.read_place):
        attempt(read, body)
    attempt(rows.read_stations, body)
    attempt(rows.read_sessions, body)


def attempt(read: Any, body: Any) -> None:
    with contextlib.suppress(ValueError):
        read(body)


def session(**fields: Any) -> rows.CloudSession:
    found = rows.read_session({"txId": "t", **fields})
    assert found is not None
    return found


def test_units_of_a_transaction_are_watts_and_watt_hours() -> None:
    found = session(chargedEnergyKwh=12.5, schedulePlan={"powerkW": 22, "evId": "b"})

    assert (found.energy_wh, found.planned_w, found.vehicle_id) == (12_500, 22_000, "b")


@pytest.mark.parametrize(
    ("fields", "start", "end"),
    [
        ({"socStart": 20, "socEnd": 80}, 20, 80),
        ({"socInitial": 20, "soc": 55}, 20, 55),
        ({"socStart": 0, "socInitial": 31}, 31, None),
        ({"socStart": None, "soc": 101}, None, None),
        ({"socStart": True, "socEnd": "80"}, None, None),
    ],
)
def test_soc_is_a_percentage_under_any_name_and_zero_is_a_handshake(
    fields: dict[str, Any], start: float | None, end: float | None
) -> None:
    found = session(**fields)

    assert (found.soc_start, found.soc_end) == (start, end)


@pytest.mark.parametrize(
    "fields",
    [
        {"evMacAddress": "04:E7:7E:00:F0:FA"},
        {"evRunId": "04:E7:7E:00:F0:FA:00:00"},
        {"evMacAddress": "", "evRunId": "04E77E00F0FA0000"},
    ],
)
def test_the_mac_comes_in_six_or_eight_bytes(fields: dict[str, Any]) -> None:
    assert session(**fields).mac == "04E77E00F0FA"


def test_a_transaction_read_twice_is_taken_in_its_newest_state() -> None:
    old, new = session(sequenceNumber=3), session(sequenceNumber=9, status="Ended")

    assert rows.newest([new, old]) == [new]
    assert rows.newest([old, new]) == [new]


# --- bodies that leave ------------------------------------------------------------------


SLOT = {
    "plannedArrivalTime": "2026-01-15T17:00:00Z",
    "plannedDepartureTime": "2026-01-16T05:00:00Z",
    "targetSoC": 80,
}


def test_what_may_be_written_is_what_the_api_takes() -> None:
    assert set(SCHEDULE_CHECKS) == set(WRITABLE)
    assert {"id", "vin", "v2icp"}.isdisjoint(VEHICLE_CHECKS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"maxChargePowerKw": 5}, "did you mean maxChargePowerkW"),
        ({"vin": "X"}, "read-only"),
        ({"fullChargeEnergykWh": 0.5}, "at least 1"),
        ({"maxChargePowerkW": "150"}, "a number"),
        ({"maxChargePowerkW": True}, "a number"),
        ({"minChargePowerkW": float("nan")}, "a number"),
        ({"supportsPauseResume": "true"}, "true or false"),
        ({"locationUid": [1]}, "uid"),
        ({"chargingPorts": [{"macAddress": "04e77e00f0fa"}]}, "04:E7:7E:00:F0:FA"),
        ({"chargingPorts": [{"macAddress": "60:FA:B1:00:00:01"}]}, "vehicle's MAC"),
        ({"chargingPorts": {}}, "a list"),
        ({"v2icpParameters": {"preconditioning": True}}, "both of them"),
        ({"v2icpParameters": {"interiorHvac": "NoPreconditioning"}}, "both of them"),
        (
            {"v2icpParameters": {"interiorHvac": "Warm", "preconditioning": True}},
            "HotWaterAndHeating",
        ),
        ([], "JSON object"),
    ],
)
def test_a_vehicles_body_is_exact_or_refused_with_the_remedy(
    fields: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        vehicle_fields(fields)


def test_force_lets_unknown_names_pass_and_no_wrong_values() -> None:
    assert vehicle_fields({"futureField": 1}, force=True) == {"futureField": 1}
    with pytest.raises(ValueError, match="at least 1"):
        vehicle_fields({"maxChargePowerkW": 0}, force=True)
    with pytest.raises(ValueError, match="read-only"):
        vehicle_fields({"id": "x"}, force=True)


@pytest.mark.parametrize("hvac", HVAC_MODES)
def test_wishes_always_carry_both_members_and_keep_the_rest(hvac: str) -> None:
    known = {"ambientTemp": -5, "futureWish": 1, "interiorHvac": "x"}

    found = v2icp_parameters(preconditioning=False, hvac=hvac, ambient_c=None, known=known)

    assert found["v2icpParameters"] == {
        "ambientTemp": -5,
        "futureWish": 1,
        "interiorHvac": hvac,
        "preconditioning": False,
    }


def test_what_was_read_can_be_edited_and_sent() -> None:
    """Ids and plans stay behind; the depot's location is filled in."""
    read = {"id": "s", "evId": "bus-1", **SLOT, "plan": {}, "planMeta": {}}

    sent, notes = posted_schedules({"schedules": [read]}, "bus-1", "loc-1")
    whole, _ = posted_schedules([read], "bus-1", "loc-1", with_plans=True)

    assert sent == [SLOT | {"locationUid": "loc-1"}]
    assert len(notes) == 2
    assert set(whole[0]) == {*SLOT, "locationUid", "plan", "planMeta"}
    assert read["id"] == "s"  # the caller's own rows are left alone
    assert editable_vehicle({"id": "b", "vin": "V", "v2icp": {}, "name": "N"}) == {
        "name": "N"
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targetSoc": 5}, "did you mean targetSoC"),
        ({"targetSoC": 101}, "0 to 100"),
        ({"plannedArrivalTime": "2026-01-15T17:00:00"}, "zone"),
        ({"plannedArrivalTime": "soon"}, "ISO 8601"),
        ({"plannedDepartureTime": "2026-01-15T16:00:00Z"}, "not after"),
        ({"evId": "bus-2"}, "belongs to bus-2"),
    ],
)
def test_a_posted_schedule_is_exact_or_refused_with_its_number(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        posted_schedules([SLOT, SLOT | change], "bus-1", "loc-1")

    assert "schedule 2" in str(caught.value)


@pytest.mark.parametrize("body", [None, 5, {"x": []}, {"schedules": 1}, [5], [{}]])
def test_no_list_of_schedules_is_no_empty_list(body: Any) -> None:
    """An empty list would delete everything."""
    with pytest.raises(ValueError, match=r".+"):
        posted_schedules(body, "bus-1", "loc-1")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"startSoC": 5}, "id is missing"),
        ({"id": "s"}, "nothing shall change"),
        ({"id": "s", "endSoc": 5}, "no field"),
        ({"id": "s", "evId": "bus-2", "startSoC": 5}, "belongs to"),
    ],
)
def test_a_patch_names_an_id_and_a_change(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        patched_schedules([row], "bus-1")
