"""ChargEye's JSON: lenient in form, strict in range, refused whole where it matters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloud.chargeye_parse import ROWS_MAX, read_schedules, read_vehicles
from agent.domain.identity import Vehicle
from agent.domain.plan import SEGMENTS_MAX, Schedule, check

from .conftest import NOW

MAC = "04E77E00F0FA"
HOUR_MS = 3_600_000
NOW_MS = int(NOW.timestamp()) * 1000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["NaN", "0001-01-01T00:00:00+10:00", "2026-01-15T18:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def vehicle_of(row: Any) -> Vehicle:
    read = read_vehicles({"vehicles": [row]})
    assert not read.problems
    return read.vehicles[0][0]


def a_segment(start_h: float = 0, end_h: float = 1, **changes: Any) -> dict[str, Any]:
    row = {
        "from": NOW_MS + int(start_h * HOUR_MS),
        "to": NOW_MS + int(end_h * HOUR_MS),
        "powerkW": 50.0,
        "startSoc": 30,
        "endSoc": 40,
        "paused": False,
        "powerUnlimited": False,
    }
    return row | changes


def a_row(segments: Any = None, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": "sch-1",
        "evId": "bus-1",
        "locationUid": "loc-1",
        "plannedArrivalTime": "2026-01-15T17:00:00.000Z",
        "plannedDepartureTime": "2026-01-16T05:00:00.000Z",
        "startSoC": 30,
        "targetSoC": 80,
        "planMeta": {"timestamp": "2026-01-15T17:30:00.000Z"},
    }
    if segments is not None:
        row["plan"] = {"segments": segments}
    return row | changes


def schedule_of(row: dict[str, Any]) -> Schedule:
    read = read_schedules([row], "loc-1")
    assert not read.refused, read.refused
    assert not read.problems
    return read.schedules[0][0]


def refusal_of(row: dict[str, Any]) -> str:
    """Why a plan is refused, by the parser or by the domain's own check."""
    read = read_schedules([row], "loc-1")
    schedule = read.schedules[0][0]
    if read.refused:
        assert schedule.plan is None
        return read.refused[0][1]
    assert schedule.plan is not None
    return check(schedule.plan, now=NOW) or ""


# --- vehicles ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"vehicle": {"id": "bus-1", "chargingPorts": [{"macAddress": MAC}]}},
        {"id": "bus-1", "chargingPorts": [{"macAddress": MAC}]},
        {"vehicle": {"id": "bus-1", "chargingPorts": [{"macAddress": MAC}]}, "v2icp": None},
    ],
)
def test_a_vehicle_is_read_wrapped_and_bare(row: dict[str, Any]) -> None:
    """1.1: the list wraps twice, the single read not at all."""
    vehicle = vehicle_of(row)

    assert vehicle.vehicle_id == "bus-1"
    assert set(vehicle.macs) == {MAC}


def test_what_a_bus_says_by_v2icp_is_read_beside_and_inside_the_vehicle() -> None:
    """13.3: the outer object wins; an older description had the odometer as text."""
    word = {
        "evMacAddress": "04:E7:7E:00:F0:FA:00:00",
        "vin": "V1",
        "odometer": "123456",
        "timestamp": "2026-01-15T18:00:00Z",
    }
    inner = word | {"vin": "V0", "odometer": 5}
    outside = vehicle_of({"vehicle": {"id": "b", "v2icp": inner}, "v2icp": word})
    inside = vehicle_of({"vehicle": {"id": "b", "v2icp": inner}})

    assert outside.v2icp is not None
    assert (outside.v2icp.vin, outside.v2icp.mac, outside.vin) == ("V1", MAC, "V1")
    assert (outside.v2icp.at, outside.v2icp.odometer_km) == (NOW, 123_456)
    assert inside.v2icp is not None
    assert (inside.v2icp.vin, inside.v2icp.odometer_km) == ("V0", 5)


@pytest.mark.parametrize("word", [None, [], {}, {"vin": 5}, {"odometer": 7}, "x"])
def test_a_word_that_names_nobody_is_none(word: Any) -> None:
    assert vehicle_of({"vehicle": {"id": "b"}, "v2icp": word}).v2icp is None


def test_wishes_for_a_bus_are_read_as_far_as_they_can_be() -> None:
    row = {"interiorHvac": "HotWaterAndHeating", "preconditioning": True}
    full = vehicle_of({"id": "b", "v2icpParameters": row | {"ambientTemp": -5.5}})
    odd = vehicle_of(
        {"id": "b", "v2icpParameters": {"preconditioning": "on", "ambientTemp": 900}}
    )

    assert full.heating is not None
    assert (full.heating.is_wanted, full.heating.interior) == (True, "HotWaterAndHeating")
    assert full.heating.ambient_c == -5.5
    assert odd.heating is not None
    assert (odd.heating.is_wanted, odd.heating.ambient_c) == (None, None)
    assert vehicle_of({"id": "b", "v2icpParameters": None}).heating is None


def test_an_inactive_port_matches_nothing_but_is_remembered() -> None:
    other = "04:E7:7E:00:F0:FB"
    ports = [{"macAddress": MAC}, {"macAddress": other, "inactive": True}]
    vehicle = vehicle_of({"id": "b", "chargingPorts": ports})

    assert (set(vehicle.macs), set(vehicle.idle_macs)) == ({MAC}, {"04E77E00F0FB"})


def test_what_the_bus_needs_before_it_leaves_is_read_from_the_plan() -> None:
    """6.3: milliseconds and kilowatt-hours; a change of it is news."""

    def plan_with(needs: Any) -> Schedule:
        plan = {"segments": [a_segment()], "schedule": {"ev": {"preconditioning": needs}}}
        return schedule_of(a_row(plan=plan))

    full = plan_with(
        {
            "batteryPreconditioningTimeMs": 600_000,
            "vehiclePreconditioningTimeMs": 1_800_000,
            "vehiclePreconditioningEnergykWh": 9.5,
        }
    )
    odd = plan_with({"batteryPreconditioningTimeMs": 1e12, "other": 1})

    assert full.plan is not None
    assert full.plan.preconditioning is not None
    asked = full.plan.preconditioning
    assert (asked.battery_s, asked.vehicle_s, asked.vehicle_wh) == (600, 1800, 9500)
    assert odd.plan is not None
    assert odd.plan.preconditioning is None
    assert full.fingerprint != odd.fingerprint


def test_letter_case_is_copied_exactly() -> None:
    """1.2: the documented spelling counts, a neighbour's does not."""
    right = vehicle_of(
        {
            "id": "b", "fullChargeEnergykWh": 300, "maxChargePowerkW": 150,
            "minChargePowerkW": 10, "minPreconditioningPowerkW": 12, "supportsPauseResume": True,
            "evModel": "M", "licensePlate": "P", "vin": "V", "name": "N",
        }
    )  # fmt: skip
    wrong = vehicle_of({"id": "b", "fullChargeEnergyKwh": 300, "maxChargePowerKw": 150})

    assert (right.capacity_wh, right.max_w, right.min_w) == (300_000, 150_000, 10_000)
    assert (right.min_preconditioning_w, right.can_pause, right.vin) == (12_000, True, "V")
    assert (wrong.capacity_wh, wrong.max_w) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "04:E7:7E:00:F0:FA", "04-e7-7e-00-f0-fa", "04e77e00f0fa", "VID:04E77E00F0FA",
        "04:E7:7E:00:F0:FA:00:00", "04E77E00F0FA0000", " 04E7.7E00.F0FA ",
    ],
)  # fmt: skip
def test_a_mac_is_read_in_every_notation(text: str) -> None:
    """3.3: colons, prefix, and the long EVCCID form."""
    row = {"id": "b", "chargingPorts": [{"macAddress": text}], "evMacAddress": text}
    vehicle = vehicle_of(row)

    assert set(vehicle.macs) == {MAC}
    assert vehicle.fallback_mac == MAC


def test_an_inactive_port_has_no_mac_and_two_ports_have_two() -> None:
    """Every active inlet counts; the deprecated field stays apart."""
    vehicle = vehicle_of(
        {
            "id": "b",
            "chargingPorts": [
                {"macAddress": MAC, "inactive": False},
                {"macAddress": "04E77E00F0FB"},
                {"macAddress": "04E77E00F0FC", "inactive": True},
                {"macAddress": ""},
                {"macAddress": None},
                {},
                "x",
            ],
        }
    )

    assert vehicle.macs == {MAC, "04E77E00F0FB"}
    assert vehicle.fallback_mac is None


@pytest.mark.parametrize(
    "text", ["00:00:00:00:00:00", "FF:FF:FF:FF:FF:FF", "60FAB1000001", "zz", "04E7"]
)
def test_c13_a_mac_that_is_nobodys_is_named_and_the_vehicle_kept(text: str) -> None:
    """C13: zero, broadcast, the charger's own maker, nonsense."""
    read = read_vehicles(
        {"vehicles": [{"id": "b", "chargingPorts": [{"macAddress": text}]}]}
    )

    assert read.vehicles[0][0].macs == frozenset()
    assert len(read.problems) == 1
    assert "vehicle b" in read.problems[0]


def test_v2icp_is_taken_from_beside_the_vehicle_before_from_inside() -> None:
    """5: prefer the outer one, fall back to the inner."""
    inner = {"id": "b", "v2icp": {"vin": "INNER"}}

    assert vehicle_of({"vehicle": inner, "v2icp": {"vin": "OUTER"}}).vin == "OUTER"
    assert vehicle_of({"vehicle": inner}).vin == "INNER"
    assert (
        vehicle_of({"vehicle": inner | {"vin": "OWN"}, "v2icp": {"vin": "OUTER"}}).vin
        == "OWN"
    )


@pytest.mark.parametrize(
    ("value", "locations"),
    [("a", {"a"}), (["a", "b", 5], {"a", "b"}), (None, set()), (5, set()), ({}, set())],
)
def test_a_location_is_a_text_a_list_or_nothing(value: Any, locations: set[str]) -> None:
    """Three shapes are known."""
    assert vehicle_of({"id": "b", "locationUid": value}).locations == locations


@pytest.mark.parametrize("value", [-1, 1e12, "50", True, None, [], {}])
def test_a_power_out_of_range_is_missing(value: Any) -> None:
    """Units are never guessed."""
    assert vehicle_of({"id": "b", "maxChargePowerkW": value}).max_w is None


def test_a_vehicle_without_an_id_is_named_and_left_out() -> None:
    """The others stay."""
    read = read_vehicles(
        {"vehicles": [{"name": "x"}, None, 5, {"vehicle": {"id": ""}}, {"id": "b"}]}
    )

    assert [vehicle.vehicle_id for vehicle, _ in read.vehicles] == ["b"]
    assert len(read.problems) == 4


@pytest.mark.parametrize(
    "body", [None, [], {}, {"vehicles": {}}, {"vehicles": None}, "x", 5]
)
def test_an_answer_without_the_list_is_not_an_empty_registry(body: Any) -> None:
    """Else one odd answer would forget all vehicles."""
    with pytest.raises(ValueError, match="vehicles"):
        read_vehicles(body)


def test_i11_a_registry_is_bounded() -> None:
    """I11."""
    read = read_vehicles({"vehicles": [{"id": str(n)} for n in range(ROWS_MAX + 5)]})

    assert len(read.vehicles) == ROWS_MAX


@given(JSON, st.lists(st.dictionaries(st.sampled_from(
    ["id", "vehicle", "v2icp", "chargingPorts", "evMacAddress", "locationUid", "vin", "name",
     "maxChargePowerkW", "fullChargeEnergykWh"]), JSON) | JSON, max_size=3))  # fmt: skip
def test_i11_no_registry_makes_the_reader_raise_anything_but_value_error(
    body: Any, rows: list[Any]
) -> None:
    """I11: nasty JSON in every place."""
    for nasty in (
        body,
        {"vehicles": rows},
        {"vehicles": [{"vehicle": row} for row in rows]},
    ):
        try:
            read_vehicles(orjson.loads(orjson.dumps(nasty)))
        except ValueError:
            assert not (isinstance(nasty, dict) and isinstance(nasty.get("vehicles"), list))


# --- schedules ---------------------------------------------------------------------------


def test_a_schedule_is_read_with_its_plan() -> None:
    """Letter case of 1.2: SoC outside, Soc inside; kW become W; ms become times."""
    settings = {"evMinPowerkW": 10, "evMaxPowerkW": 90}
    vehicle = {"maxPowerkW": 120, "supportsPausing": False}
    row = a_row()
    row["plan"] = {
        "segments": [a_segment(), a_segment(1, 2, powerkW=0, paused=True)],
        "schedule": {"settings": settings, "ev": vehicle},
    }
    schedule = schedule_of(row)
    plan = schedule.plan

    assert plan is not None
    assert (schedule.start_soc_percent, schedule.target_soc_percent) == (30.0, 80.0)
    assert [segment.power_w for segment in plan.segments] == [50_000.0, 0.0]
    assert plan.segments[0].starts_at == NOW
    assert plan.segments[1].paused
    assert (plan.max_w, plan.min_w, plan.can_pause) == (90_000, 10_000, False)
    assert plan.planned_at == NOW - timedelta(minutes=30)
    assert check(plan, now=NOW) is None


def test_recurring_schedules_and_those_of_other_locations_are_left_out() -> None:
    """6.1: execute dated schedules of this depot only."""
    rows = [
        a_row(id="dated"),
        a_row(id="daily", recurrenceRule="FREQ=DAILY"),
        a_row(id="other", locationUid="loc-2"),
        a_row(id="nowhere", locationUid=None),
        a_row(id="plain", recurrenceRule=""),
    ]
    read = read_schedules(rows, "loc-1")

    assert [schedule.schedule_id for schedule, _ in read.schedules] == [
        "dated",
        "nowhere",
        "plain",
    ]
    assert not read.problems


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([a_segment(**{"from": NOW_MS // 1000, "to": NOW_MS // 1000 + 3600})], "milliseconds"),
        ([a_segment() | {"from": "2026-01-15T18:00:00Z"}], "milliseconds"),
        ([a_segment(to=None)], "milliseconds"),
        ([a_segment(to=1e15)], "milliseconds"),
        ([a_segment(powerkW=-1)], "powerkW"),
        ([a_segment(powerkW=1e12)], "powerkW"),
        ([a_segment(powerkW="NaN")], "powerkW"),
        ([a_segment(powerkW="50")], "powerkW"),
        ([a_segment(powerkW=None)], "powerkW"),
        ([a_segment(powerkW=True)], "powerkW"),
        ([a_segment(startSoc=140)], "percentage"),
        ([a_segment(endSoc=-1)], "percentage"),
        ([a_segment(0, 2), a_segment(1, 3)], "overlap"),
        ([a_segment(1, 0)], "ends before"),
        ([a_segment(24 * 60, 24 * 60 + 1)], "days from now"),
        ([a_segment(paused=True, powerUnlimited=True)], "both"),
        ({"0": a_segment()}, "not a list"),
        ("none", "not a list"),
        ([a_segment(), None], "not an object"),
        ([a_segment(), []], "not an object"),
        ([a_segment()] * (SEGMENTS_MAX + 1), "more than"),
    ],
)  # fmt: skip
def test_t5_a_plan_that_cannot_be_trusted_is_refused_whole(
    segments: Any, words: str
) -> None:
    """T5, I11: half of a plan is not a plan; the slot itself stays."""
    good = [a_segment(10, 11)]
    whole = segments if not isinstance(segments, list) else good + segments

    assert words in refusal_of(a_row(whole))


def test_a_bad_past_refuses_the_plan_as_well() -> None:
    """Both lists are checked by the same rules."""
    row = a_row()
    row["plan"] = {
        "segments": [a_segment()],
        "pastSegments": [a_segment(-1, 0, powerkW=-5)],
    }

    assert "pastSegments[0]" in refusal_of(row)


@pytest.mark.parametrize("plan", [None, [], "x", {}, {"segments": None}])
def test_a_schedule_without_a_plan_is_a_slot(plan: Any) -> None:
    """The vehicle then charges by policy."""
    schedule = schedule_of(a_row(plan=plan))

    assert schedule.plan is None
    assert schedule.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None}, {"id": 5}, {"evId": ""}, {"plannedArrivalTime": None},
        {"plannedArrivalTime": NOW_MS}, {"plannedDepartureTime": "2026-01-15T16:00:00Z"},
        {"plannedDepartureTime": "soon"}, {"plannedArrivalTime": "0001-01-01T00:00:00+10:00"},
    ],
)  # fmt: skip
def test_a_slot_that_cannot_be_used_is_named_and_the_others_stay(
    changes: dict[str, Any],
) -> None:
    """A row that cannot be read is left out."""
    read = read_schedules([a_row(**changes), a_row(id="good")], "loc-1")

    assert [schedule.schedule_id for schedule, _ in read.schedules] == ["good"]
    assert len(read.problems) == 1


@pytest.mark.parametrize("rows", [None, {}, "x", 5])
def test_an_answer_without_the_schedules_is_not_an_empty_list(rows: Any) -> None:
    """Else one odd answer would drop all plans."""
    with pytest.raises(ValueError, match="schedules"):
        read_schedules(rows, "loc-1")


@given(st.lists(st.fixed_dictionaries({"id": st.just("s"), "evId": st.just("b")}, optional=dict.fromkeys(("plannedArrivalTime", "plannedDepartureTime", "plan", "planMeta", "startSoC", "targetSoC", "locationUid", "recurrenceRule"), JSON)) | JSON, max_size=3), st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("from", "to", "powerkW", "paused", "powerUnlimited", "startSoc"), JSON)) | JSON, max_size=3), JSON)  # fmt: skip
def test_i11_no_schedules_make_the_reader_raise(
    rows: list[Any], segments: list[Any], schedule: Any
) -> None:
    """I11: nasty JSON in every place; a plan that passes is in range."""
    nasty = a_row(
        plan={"segments": segments, "pastSegments": segments, "schedule": schedule}
    )
    read = read_schedules(orjson.loads(orjson.dumps([*rows, nasty])), "loc-1")

    for found, _ in read.schedules:
        for segment in found.plan.segments if found.plan else ():
            assert 0 <= segment.power_w <= 4_000_000


# --- fingerprint --------------------------------------------------------------------------


def cut_at(segments: list[dict[str, Any]], now_ms: int) -> dict[str, Any]:
    """Show a plan as ChargEye does: what lies before its own now stands apart."""
    past, coming = [], []
    for item in segments:
        if item["from"] < now_ms:
            past.append(item | {"to": min(item["to"], now_ms)})
        if item["to"] > now_ms:
            coming.append(item | {"from": max(item["from"], now_ms)})
    return {"segments": coming, "pastSegments": past}


SEGMENTS = [
    a_segment(0, 1, powerkW=50),
    a_segment(1, 2, powerkW=50),
    a_segment(2, 3, powerkW=0, paused=True),
    a_segment(3, 4, powerkW=80, powerUnlimited=True),
]


def test_a_plan_that_only_aged_is_the_same_plan() -> None:
    """ChargEye cuts the running segment at its own now: that is no news."""
    marks = {
        schedule_of(a_row(plan=cut_at(SEGMENTS, NOW_MS + minute * 60_000))).fingerprint
        for minute in range(0, 240, 7)
    }

    assert len(marks) == 1


@pytest.mark.parametrize(
    "changed",
    [
        [*SEGMENTS[:3], a_segment(3, 4, powerkW=81, powerUnlimited=True)],
        [*SEGMENTS[:3], a_segment(3, 5, powerkW=80, powerUnlimited=True)],
        [*SEGMENTS[:2], a_segment(2, 3, powerkW=0), SEGMENTS[3]],
        SEGMENTS[:3],
    ],
)
def test_another_plan_has_another_fingerprint(changed: list[dict[str, Any]]) -> None:
    """Power, borders, pauses."""
    assert (
        schedule_of(a_row(SEGMENTS)).fingerprint != schedule_of(a_row(changed)).fingerprint
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"planMeta": {"timestamp": "2026-01-15T17:45:00.000Z"}},
        {"startSoC": 31},
        {"targetSoC": 90},
        {"plannedDepartureTime": "2026-01-16T06:00:00.000Z"},
    ],
)
def test_a_changed_slot_has_another_fingerprint(changes: dict[str, Any]) -> None:
    """What people or the planner changed is news."""
    before, after = a_row(SEGMENTS), a_row(SEGMENTS, **changes)

    assert schedule_of(before).fingerprint != schedule_of(after).fingerprint
