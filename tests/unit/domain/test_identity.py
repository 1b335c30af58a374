"""Reading addresses out of what stations send, and naming one vehicle or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.identity import (
    EVIDENCE_MAX,
    EvidenceKind,
    MatchOutcome,
    add_evidence,
    is_random_looking,
    mac_evidence,
    match_vehicle,
    normalise_mac,
    read_token,
)
from agent.domain.ids import MacAddress, SessionId, VehicleId
from tests.support.properties import examples
from tests.unit.domain.build import MAC_A, MAC_B, NOW, a_vehicle, evidence_of

quick = examples(150)
MAC = EvidenceKind.MAC
PREFIX = EvidenceKind.MAC_PREFIX
EUI64 = EvidenceKind.MAC_EUI64
TOKEN = EvidenceKind.ID_TOKEN
VIN = EvidenceKind.VIN


def _read(raw: str, **more) -> list[tuple[EvidenceKind, str]]:
    return [(i.kind, i.value) for i in read_token(raw, source="test", at=NOW, **more)]


def _registry(*vehicles):
    return {vehicle.vehicle_id: vehicle for vehicle in vehicles}


@st.composite
def spelled_macs(draw) -> tuple[str, str]:
    """Draw a good address and one of its spellings."""
    first = draw(st.integers(0, 127)) * 2
    rest = draw(st.binary(min_size=5, max_size=5)).hex().upper()
    digits = f"{first:02X}{rest}"
    if digits == "0" * 12 or digits.startswith("60FAB1"):
        digits = "A453EE033156"
    size, sep = draw(st.sampled_from([(2, ":"), (2, "-"), (4, "."), (2, " "), (12, "")]))
    text = sep.join(digits[i : i + size] for i in range(0, 12, size))
    prefix = draw(st.sampled_from(["", "VID:", "vid:", " Vid : "]))
    text = prefix + (text.lower() if draw(st.booleans()) else text)
    return digits, text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("VID:AABBCCDDEEFF", [(MAC, "AABBCCDDEEFF")]),
        ("vid:aabbccddeeff", [(MAC, "AABBCCDDEEFF")]),
        ("VID:AA:BB:CC:DD:EE:FF", [(MAC, "AABBCCDDEEFF")]),
        ("VID:AA:BB:CC:DD:EE:F", [(PREFIX, "AABBCCDDEEF")]),
        ("VID:AABBCC", [(PREFIX, "AABBCC")]),
        ("VID:AABBC", []),
        ("AABBCCDDEEFF", [(MAC, "AABBCCDDEEFF"), (TOKEN, "AABBCCDDEEFF")]),
        ("AA-BB-CC-DD-EE-FF", [(MAC, "AABBCCDDEEFF"), (TOKEN, "AA-BB-CC-DD-EE-FF")]),
        ("aabb.ccdd.eeff", [(MAC, "AABBCCDDEEFF"), (TOKEN, "aabb.ccdd.eeff")]),
        ("VID:0000A453EE033156", [(MAC, "A453EE033156")]),
        ("0000a453ee033156", [(MAC, "A453EE033156"), (TOKEN, "0000a453ee033156")]),
        ("VID:00CCDDEEFF01", [(MAC, "00CCDDEEFF01")]),
        ("VID:AABBCCDDEEFF0000", [(MAC, "AABBCCDDEEFF")]),
        ("VID:0000AABBCCDD0000", [(MAC, "AABBCCDD0000"), (MAC, "0000AABBCCDD")]),
        ("VID:AABBCCFFFEDDEEFF", [(EUI64, "AABBCCDDEEFF")]),
        ("04A1B2C3D4E5F6", [(TOKEN, "04A1B2C3D4E5F6")]),
        ("DEADBEEF", [(TOKEN, "DEADBEEF")]),
        ("VN0123456", [(TOKEN, "VN0123456")]),
        ("DE8ACC12E46L89", [(TOKEN, "DE8ACC12E46L89")]),
        ("AB" * 24, [(TOKEN, "AB" * 24)]),
        ("VID:", []),
        ("VID:HELLO", []),
        ("", []),
        ("   ", []),
    ],
)
def test_every_known_shape_of_a_token_is_read_as_documented(raw, expected):
    """Rows of ocpp-depot.md A2."""
    assert _read(raw) == expected


@pytest.mark.parametrize(
    "digits",
    [
        "000000000000",
        "FFFFFFFFFFFF",
        "01005E000001",
        "60FAB1000001",
        "AABBCCDDEEFG",
        "AABBCCDDEEF",
        "AABBCCDDEEFF0",
        "",
    ],
)
def test_c13_an_address_that_is_no_vehicles_is_refused_everywhere(digits):
    """Zero, broadcast, multicast, the charger's own, not hex, too short, too long."""
    assert normalise_mac(digits) is None
    assert MAC not in [kind for kind, _ in _read(f"VID:{digits}")]
    assert MAC not in [kind for kind, _ in _read(f"0000{digits}")]
    assert MAC not in [i.kind for i in mac_evidence(digits, source="x", at=NOW)]


def test_bare_digits_are_no_address_where_the_station_sends_cards():
    assert _read("AABBCCDDEEFE", bare_mac=False) == [(TOKEN, "AABBCCDDEEFE")]
    assert _read("VID:AABBCCDDEEFE", bare_mac=False) == [(MAC, "AABBCCDDEEFE")]


@quick
@given(spelled_macs())
def test_every_spelling_gives_the_same_address_and_reading_twice_changes_nothing(pair):
    digits, text = pair

    once = normalise_mac(text)

    assert once == digits
    assert normalise_mac(str(once)) == once
    assert (MAC, digits) in _read(text)


@quick
@given(st.text(max_size=60) | st.from_regex(r"(VID:)?[0-9a-fA-F:]{0,24}", fullmatch=True))
def test_no_text_makes_reading_fail_or_lets_a_bad_address_through(raw):
    found = read_token(raw, source="test", at=NOW)

    for item in (*found, *mac_evidence(raw, source="test", at=NOW)):
        assert len(item.raw) <= 64
        if item.kind is MAC:
            assert normalise_mac(item.value) == item.value


def test_a_field_that_holds_an_address_needs_no_prefix_and_keeps_its_raw_text():
    (found,) = mac_evidence("aa:bb:cc:dd:ee:f", source="DataTransfer", at=NOW)

    assert (found.kind, found.value, found.raw) == (
        PREFIX,
        "AABBCCDDEEF",
        "aa:bb:cc:dd:ee:f",
    )


def test_a_software_made_address_is_told_from_a_bought_one():
    assert is_random_looking(MacAddress("92D50A693F80"))
    assert not is_random_looking(MacAddress("A053EE033156"))


@quick
@given(
    st.lists(st.tuples(st.sampled_from([MAC, VIN]), st.sampled_from("abc")), max_size=40)
)
def test_evidence_is_kept_once_in_the_order_of_arrival(pairs):
    new = [evidence_of(value, kind, source=str(n)) for n, (kind, value) in enumerate(pairs)]

    kept = add_evidence((), new)

    assert [(i.kind, i.value) for i in kept] == list(dict.fromkeys(pairs))
    assert add_evidence(kept, new) == kept


def test_a_chatty_station_cannot_fill_the_session_with_evidence():
    kept = add_evidence((), [evidence_of(str(n)) for n in range(100)])

    assert len(kept) == EVIDENCE_MAX


def test_the_only_vehicle_with_the_address_is_matched():
    registry = _registry(a_vehicle("bus-1", MAC_A), a_vehicle("bus-2", MAC_B))

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert (found.outcome, found.vehicle_id, found.mac) == (
        MatchOutcome.UNIQUE,
        "bus-1",
        MAC_A,
    )


def test_an_unknown_address_matches_nothing_and_is_named():
    found = match_vehicle([evidence_of(MAC_B)], _registry(a_vehicle("bus-1", MAC_A)))

    assert (found.outcome, found.vehicle_id, found.mac) == (MatchOutcome.NONE, None, MAC_B)
    assert MAC_B in found.reason


def test_no_evidence_matches_nothing():
    found = match_vehicle([], _registry(a_vehicle("bus-1", MAC_A)))

    assert found.outcome is MatchOutcome.NONE
    assert found.reason == "the station reported nothing about the vehicle"


def test_c13_one_address_on_two_vehicles_is_ambiguous():
    registry = _registry(a_vehicle("bus-1", MAC_A), a_vehicle("bus-2", MAC_A))

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert (found.outcome, found.vehicle_id) == (MatchOutcome.AMBIGUOUS, None)
    assert "bus-1" in found.reason
    assert "bus-2" in found.reason


def test_two_addresses_of_two_vehicles_are_ambiguous():
    registry = _registry(a_vehicle("bus-1", MAC_A), a_vehicle("bus-2", MAC_B))

    found = match_vehicle([evidence_of(MAC_A), evidence_of(MAC_B)], registry)

    assert found.outcome is MatchOutcome.AMBIGUOUS


def test_a_vin_that_contradicts_the_address_is_ambiguous():
    registry = _registry(a_vehicle("bus-1", MAC_A), a_vehicle("bus-2", vin="WVWZZZ1"))
    evidence = [evidence_of(MAC_A), evidence_of("wvwzzz1", VIN)]

    assert match_vehicle(evidence, registry).outcome is MatchOutcome.AMBIGUOUS


def test_a_vin_settles_an_address_that_two_vehicles_share():
    registry = _registry(a_vehicle("bus-1", MAC_A), a_vehicle("bus-2", MAC_A, vin="V2"))
    evidence = [evidence_of(MAC_A), evidence_of("v2", VIN)]

    assert match_vehicle(evidence, registry).vehicle_id == "bus-2"


def test_an_empty_vin_names_no_vehicle():
    registry = _registry(a_vehicle("bus-1", MAC_A))

    assert match_vehicle([evidence_of("", VIN)], registry).outcome is MatchOutcome.NONE


def test_a_vehicle_that_is_plugged_elsewhere_is_ambiguous():
    registry = _registry(a_vehicle("bus-1", MAC_A))
    elsewhere = {VehicleId("bus-1"): SessionId("other")}

    found = match_vehicle([evidence_of(MAC_A)], registry, elsewhere=elsewhere)

    assert (found.outcome, found.vehicle_id) == (MatchOutcome.AMBIGUOUS, None)
    assert "other" in found.reason


def test_a_stranger_plugged_elsewhere_does_not_matter():
    registry = _registry(a_vehicle("bus-1", MAC_A))
    elsewhere = {VehicleId("bus-9"): SessionId("other")}

    found = match_vehicle([evidence_of(MAC_A)], registry, elsewhere=elsewhere)

    assert found.outcome is MatchOutcome.UNIQUE


def test_the_deprecated_address_counts_when_no_port_has_it():
    registry = _registry(a_vehicle("bus-1", fallback_mac=MAC_A))

    assert match_vehicle([evidence_of(MAC_A)], registry).vehicle_id == "bus-1"


def test_a_port_wins_over_the_deprecated_address_of_another_vehicle():
    registry = _registry(
        a_vehicle("old", fallback_mac=MAC_A),
        a_vehicle("new", MAC_A),
    )

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert (found.outcome, found.vehicle_id) == (MatchOutcome.UNIQUE, "new")


def test_the_same_deprecated_address_on_two_vehicles_is_ambiguous():
    registry = _registry(
        a_vehicle("one", fallback_mac=MAC_A), a_vehicle("two", fallback_mac=MAC_A)
    )

    assert match_vehicle([evidence_of(MAC_A)], registry).outcome is MatchOutcome.AMBIGUOUS


@pytest.mark.parametrize("kind", [PREFIX, EUI64, TOKEN])
def test_weak_evidence_never_matches(kind):
    registry = _registry(a_vehicle("bus-1", MAC_A, vin=MAC_A))

    found = match_vehicle([evidence_of(MAC_A, kind)], registry)

    assert (found.outcome, found.vehicle_id, found.mac) == (MatchOutcome.NONE, None, None)


def test_of_two_paddings_the_one_in_the_registry_counts_and_is_named():
    registry = _registry(a_vehicle("bus-1", MacAddress("0000AABBCCDD")))
    evidence = read_token("VID:0000AABBCCDD0000", source="test", at=NOW)

    found = match_vehicle(evidence, registry)

    assert (found.outcome, found.vehicle_id) == (MatchOutcome.UNIQUE, "bus-1")
    assert found.mac == "0000AABBCCDD"


def test_two_paddings_in_the_registry_are_ambiguous():
    registry = _registry(
        a_vehicle("bus-1", MacAddress("0000AABBCCDD")),
        a_vehicle("bus-2", MacAddress("AABBCCDD0000")),
    )
    evidence = read_token("VID:0000AABBCCDD0000", source="test", at=NOW)

    assert match_vehicle(evidence, registry).outcome is MatchOutcome.AMBIGUOUS


def test_a_vehicle_of_another_depot_matches_and_the_reason_says_so():
    registry = _registry(a_vehicle("bus-1", MAC_A, locations=frozenset({"north"})))

    here = match_vehicle([evidence_of(MAC_A)], registry, site="north")
    there = match_vehicle([evidence_of(MAC_A)], registry, site="south")

    assert here.outcome is there.outcome is MatchOutcome.UNIQUE
    assert "another location" in there.reason
    assert "another location" not in here.reason
