"""The device model in parts: any order, again, with gaps, hostile, or without an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.station import EVSES_MAX
from agent.stations.framing import Payload
from agent.stations.v2_inventory import (
    PARTS_MAX,
    PROFILES_MAX,
    VALUE_MAX,
    Inventory,
    ProfileParts,
    ReportParts,
    Variable,
    VariableKey,
    read_report,
    read_results,
    read_statuses,
)

from .conftest import HOSTILE, JSON_VALUES

RATE_UNIT = VariableKey("SmartChargingCtrlr", "RateUnit")


def entry(name: str, value: Any = None, **more: Any) -> Payload:
    """An entry of reportData as a station writes it; ``more`` goes into the component."""
    component, variable = name.split(".")
    return {
        "component": {"name": component, **more},
        "variable": {"name": variable},
        "variableAttribute": [{} if value is None else {"value": value}],
        "variableCharacteristics": {"dataType": "string", "supportsMonitoring": False},
    }


def part(number: Any, *entries: Payload, tbc: bool = True, request: Any = 7) -> Payload:
    return {
        "requestId": request,
        "generatedAt": "2026-01-15T18:00:00Z",
        "seqNo": number,
        "tbc": tbc,
        "reportData": list(entries),
    }


def collected(*parts: Payload) -> tuple[ReportParts, Inventory]:
    inventory = Inventory()
    report = ReportParts(7, inventory)
    for item in parts:
        report.take(item)
    return report, inventory


# --- names --------------------------------------------------------------------------------


def test_names_are_compared_without_case_and_places_are_not_mixed() -> None:
    """CFG-04; the same variable of two connectors is two variables."""
    assert VariableKey("smartchargingCTRLR", "rateunit") == RATE_UNIT
    assert hash(VariableKey("SMARTCHARGINGCTRLR", "RATEUNIT")) == hash(RATE_UNIT)
    assert VariableKey("SmartChargingCtrlr", "RateUnit", "x") != RATE_UNIT
    assert VariableKey("SmartChargingCtrlr", "RateUnit", "", "x") != RATE_UNIT
    one = VariableKey("Connector", "Available", evse_id=1, connector_id=1)
    assert one != VariableKey("Connector", "Available", evse_id=1, connector_id=2)
    assert one != VariableKey("Connector", "Available", evse_id=2, connector_id=1)


# --- reading ------------------------------------------------------------------------------


def test_an_entry_gives_the_actual_value_and_what_limits_it() -> None:
    """The other attributes are not the value in force."""
    item = entry("SmartChargingCtrlr.Entries")
    item["variable"]["instance"] = "ChargingProfiles"
    item["variableAttribute"] = [
        {"type": "Target", "value": "9"},
        {"type": "Actual", "value": "3", "mutability": "ReadOnly"},
    ]
    item["variableCharacteristics"] |= {"maxLimit": 20.0, "valuesList": "1,2"}

    (found,) = read_report({"reportData": [item]})

    assert found.key == VariableKey("SmartChargingCtrlr", "Entries", "ChargingProfiles")
    assert (found.value, found.max_limit, found.values_list) == ("3", 20.0, "1,2")
    assert not found.is_writable


@pytest.mark.parametrize(
    ("sent", "read"),
    [("A,W", "A,W"), (30, "30"), (True, "true"), (None, None), ([], None), ({}, None)],
)
def test_values_of_other_types_are_read_as_text(sent: Any, read: str | None) -> None:
    item = entry("SmartChargingCtrlr.RateUnit")
    item["variableAttribute"] = [{"value": sent}]

    assert [found.value for found in read_report({"reportData": [item]})] == [read]


def test_long_values_are_cut() -> None:
    (found,) = read_report({"reportData": [entry("A.B", "x" * 100_000)]})

    assert found.value == "x" * VALUE_MAX


def test_results_tell_values_absence_and_nothing_apart() -> None:
    """Rejected, as for a value that can only be written, is no absence."""

    def result(variable: str, status: Any, **more: Any) -> Payload:
        return {
            "attributeStatus": status,
            "component": {"name": "TxCtrlr"},
            "variable": {"name": variable},
            **more,
        }

    inventory = Inventory()
    inventory.add(
        read_results(
            {
                "getVariableResult": [
                    result("A", "Accepted", attributeValue="1"),
                    result("B", "Accepted"),
                    result("C", "UnknownComponent"),
                    result("D", "UnknownVariable"),
                    result("E", "NotSupportedAttributeType"),
                    result("F", "Rejected"),
                    result("G", 5),
                ]
            }
        )
    )
    known = {name: inventory.get(VariableKey("TxCtrlr", name)) for name in "ABCDEFG"}

    assert [name for name, item in known.items() if item and item.is_absent] == list("CDE")
    assert {name: item.value for name, item in known.items() if item} == {
        "A": "1", "B": "", "C": None, "D": None, "E": None, "F": None, "G": None,
    }  # fmt: skip
    assert len(inventory) == 4


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_no_hostile_value_in_any_place_makes_reading_fail(value: Any) -> None:
    """Faults.md I: skipped, and its good neighbour is read."""
    good = entry("Good.One", "1")
    for name in ("component", "variable", "variableAttribute", "variableCharacteristics"):
        bad = {**entry("A.B", "2", evse={"id": 1, "connectorId": 1}), name: value}
        found = [item.key.component for item in read_report({"reportData": [bad, good]})]
        assert found[-1] == "Good"
    for evse in (value, {"id": value, "connectorId": value}):
        report, inventory = collected(part(0, entry("EVSE.Power", "1", evse=evse), good))
        assert len(inventory) == 2
        assert len(inventory.outlets()) <= 1
    for payload in ({"reportData": value}, {"reportData": [value]}, {}):
        assert not list(read_report(payload))
    for name in ("getVariableResult", "setVariableResult"):
        for payload in ({name: value}, {name: [value]}, {name: [{"component": value}]}):
            assert not list(read_results(payload))
            assert not read_statuses(payload)
    for name in ("requestId", "seqNo", "tbc", "reportData"):
        report, _ = collected({**part(0, good), name: value})
        assert report.taken <= 1
    parts = ProfileParts()
    parts.ask(7)
    for name in ("requestId", "tbc", "evseId", "chargingLimitSource", "chargingProfile"):
        parts.take({**reported(1, 1), name: value})
        parts.take({**reported(1, 1), "chargingProfile": [value, {"id": value}]})
    assert len(parts.items) <= 6


@given(st.dictionaries(st.sampled_from(["reportData", "getVariableResult"]), JSON_VALUES))
def test_no_json_makes_reading_fail(payload: Payload) -> None:
    list(read_report(payload))
    list(read_results(payload))


# --- the inventory ------------------------------------------------------------------------


def test_silence_about_a_fact_keeps_the_fact() -> None:
    """A report without values does not take away what GetVariables told."""
    inventory = Inventory()
    inventory.add([Variable(key=RATE_UNIT, value="A,W")])
    inventory.add([Variable(key=RATE_UNIT, mutability="ReadOnly", max_limit=3.0)])
    found = inventory.get(VariableKey("smartchargingctrlr", "RATEUNIT"))

    assert found is not None
    assert (found.value, found.max_limit, found.is_writable) == ("A,W", 3.0, False)


def test_a_huge_report_is_kept_in_part_and_what_is_known_stays_current() -> None:
    """V2-04: bounded, and counted."""
    inventory = Inventory(limit=3)
    inventory.add([Variable(key=RATE_UNIT, value="A")])
    inventory.add([Variable(key=VariableKey("X", str(n)), value="1") for n in range(10)])
    inventory.add([Variable(key=RATE_UNIT, value="W")])

    assert (len(inventory), inventory.dropped) == (3, 8)
    assert inventory.value(RATE_UNIT) == "W"


def test_outlets_come_from_the_components_of_evses() -> None:
    """B6; an EVSE without connectors has one; EVSE 0 is the station (V2-03)."""
    _, inventory = collected(
        part(
            0,
            entry("ChargingStation.Model", "x"),
            entry("EVSE.Power", "1", evse={"id": 2}),
            entry("Connector.Available", "true", evse={"id": 1, "connectorId": 2}),
            entry("Connector.Available", "true", evse={"id": 1, "connectorId": 1}),
            entry("EVSE.Power", "1", evse={"id": 0}),
            entry("EVSE.Power", "1", evse={"id": EVSES_MAX + 1}),
            entry("EVSE.Power", "1", evse={"id": -1}),
            tbc=False,
        )
    )

    assert inventory.outlets() == [(1, 1), (1, 2), (2, 1)]


def test_texts_are_those_of_the_whole_station_first() -> None:
    """Whichever came first."""
    of_evse = VariableKey("SmartChargingCtrlr", "RateUnit", evse_id=1)
    only_evse = VariableKey("SmartChargingCtrlr", "ProfileStackLevel", evse_id=1)
    absent = VariableKey("SmartChargingCtrlr", "Available")
    inventory = Inventory()
    inventory.add(
        [
            Variable(key=of_evse, value="A"),
            Variable(key=RATE_UNIT, value="W"),
            Variable(key=only_evse, value="3"),
            Variable(key=absent, value="true", is_absent=True),
        ]
    )

    assert inventory.texts() == {
        ("smartchargingctrlr", "rateunit", ""): "W",
        ("smartchargingctrlr", "profilestacklevel", ""): "3",
    }


# --- parts of a report ----------------------------------------------------------------------


@given(st.data(), st.integers(1, 12))
def test_parts_make_the_same_inventory_in_any_order_with_any_repeats(
    data: st.DataObject, count: int
) -> None:
    """Complete exactly when every part came once."""
    parts = [
        part(number, entry(f"C{number}.V", str(number)), tbc=number < count - 1)
        for number in range(count)
    ]
    repeats = data.draw(st.lists(st.integers(0, count - 1), max_size=8))
    order = data.draw(st.permutations([*range(count), *repeats]))
    inventory = Inventory()
    report = ReportParts(7, inventory)
    came: set[int] = set()
    for number in order:
        assert report.take(parts[number])
        came.add(number)
        assert report.is_complete == (len(came) == count)
        assert report.has_end == (count - 1 in came)

    assert {key[0]: text for key, text in inventory.texts().items()} == {
        f"c{number}": str(number) for number in range(count)
    }


def test_a_gap_is_no_complete_report_and_what_came_is_kept() -> None:
    report, inventory = collected(
        part(0, entry("A.V", "0")), part(2, entry("C.V", "2"), tbc=False)
    )

    assert (report.has_end, report.is_complete, len(inventory)) == (True, False, 2)


def test_a_number_beyond_the_end_fills_no_gap() -> None:
    report, _ = collected(part(0), part(9), part(2, tbc=False))

    assert not report.is_complete


def test_parts_without_numbers_count_as_they_come() -> None:
    """V2-01: seqNo is missing in the field."""
    report, inventory = collected(
        part(None, entry("A.V", "0")), part(None, entry("B.V", "1"), tbc=False)
    )

    assert report.is_complete
    assert len(inventory) == 2


def test_a_report_of_one_part_needs_no_flag() -> None:
    payload = part(0, entry("A.V", "1"))
    del payload["tbc"]

    assert collected(payload)[0].is_complete


def test_parts_of_other_requests_are_not_taken() -> None:
    report = ReportParts(7, Inventory())

    assert not report.take(part(0, entry("A.V", "1"), request=8, tbc=False))
    assert not report.take({"reportData": [entry("A.V", "1")]})
    assert (report.taken, report.has_end) == (0, False)


def test_a_report_without_an_end_is_not_taken_for_ever() -> None:
    """V2-04: hundreds of parts are read, more than a thousand are not."""
    inventory = Inventory()
    report = ReportParts(7, inventory)
    taken = [report.take(part(n, entry(f"C{n}.V", "1"))) for n in range(PARTS_MAX + 5)]

    assert taken.count(True) == PARTS_MAX
    assert (report.is_full, report.is_complete) == (True, False)
    assert len(inventory) == PARTS_MAX


# --- installed profiles ----------------------------------------------------------------------


def reported(evse: int, *numbers: int, tbc: bool = False, request: int = 7) -> Payload:
    return {
        "requestId": request,
        "chargingLimitSource": "CSO",
        "evseId": evse,
        "tbc": tbc,
        "chargingProfile": [{"id": number, "stackLevel": 0} for number in numbers],
    }


def test_profiles_of_several_messages_are_put_together() -> None:
    """B7: one message per EVSE and source, each with one or more profiles."""
    parts = ProfileParts()
    parts.ask(7)
    assert parts.take(reported(1, 1, 2, tbc=True))
    assert not parts.is_complete(7)
    assert parts.take(reported(2, 1))
    assert parts.is_complete(7)
    assert parts.take(reported(2, 1))

    assert [(item["evseId"], item["chargingProfile"]["id"]) for item in parts.items] == [
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    assert {item["chargingLimitSource"] for item in parts.items} == {"CSO"}


def test_profiles_that_nobody_asked_for_are_not_taken() -> None:
    parts = ProfileParts()
    parts.ask(7)

    assert not parts.take(reported(1, 1, request=8))
    assert (parts.items, parts.is_complete(7)) == ((), False)
    parts.close(7)
    assert parts.is_complete(7)


def test_endless_profiles_are_read_in_part() -> None:
    parts = ProfileParts()
    parts.ask(7)
    for number in range(3):
        parts.take(reported(number, *range(PROFILES_MAX)))

    assert len(parts.items) == PROFILES_MAX
