"""Id tokens of 2.0.1 and 2.1: what each type says of the vehicle (ocpp-depot.md A6)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.identity import EvidenceKind
from agent.stations.adapter import AdapterOptions
from agent.stations.v2_tokens import (
    ADDITIONAL_MAX,
    token_evidence,
    token_text,
    token_type,
    vehicle_id_evidence,
)

from .conftest import HOSTILE, JSON_VALUES, NOW

MAC = "04E77E00F0FA"
K = EvidenceKind
Found = list[tuple[EvidenceKind, str]]


def read(token: Any, **options: Any) -> Found:
    found = token_evidence(token, source="test", at=NOW, options=AdapterOptions(**options))
    return [(item.kind, item.value) for item in found]


def typed(text: Any, kind: Any, *more: tuple[str, str]) -> dict[str, Any]:
    token = {"idToken": text, "type": kind}
    if more:
        token["additionalInfo"] = [
            {"additionalIdToken": also, "type": word} for also, word in more
        ]
    return token


ADDRESS: Found = [(K.MAC, MAC)]


@pytest.mark.parametrize("kind", ["MacAddress", "EVCCID", "macaddress", "EVCCId"])
@pytest.mark.parametrize(
    "text",
    [
        MAC, MAC.lower(), "04:E7:7E:00:F0:FA", "04-e7-7e-00-f0-fa", "04E7.7E00.F0FA",
        f" {MAC} ", f"VID:{MAC}", f"vid:{MAC.lower()}", f"0000{MAC}", f"{MAC}0000",
    ],
)  # fmt: skip
def test_an_address_type_is_an_address_in_any_notation(kind: str, text: str) -> None:
    """A2: case, separators, prefix, and eight bytes padded in front or behind."""
    assert read(typed(text, kind)) == ADDRESS
    assert read(typed(text, kind), bare_mac=False) == ADDRESS


def test_a_cut_address_is_a_suggestion_only() -> None:
    """A2: it may name the maker, never the vehicle."""
    assert read(typed("04E77E00F0", "MacAddress")) == [(K.MAC_PREFIX, "04E77E00F0")]
    assert read(typed("04:E7:7E:00:F", "EVCCID")) == [(K.MAC_PREFIX, "04E77E00F")]


@pytest.mark.parametrize(
    "text",
    ["000000000000", "FFFFFFFFFFFF", "60FAB1000001", "0104E77E00F0", "hello", "04E7"],
)
def test_what_is_no_vehicles_address_stays_a_token(text: str) -> None:
    """Zero, broadcast, a charger maker's own, multicast, and no address at all."""
    assert read(typed(text, "MacAddress")) == [(K.ID_TOKEN, text)]


def test_a_long_evccid_of_iso_15118_20_is_a_token() -> None:
    """Up to 255 characters: not six bytes, yet the same each time."""
    text = "WMIV1234567890ABCDEX" * 10

    assert read(typed(text, "EVCCID")) == [(K.ID_TOKEN, text)]


@pytest.mark.parametrize("kind", ["ISO14443", "ISO15693", "iso14443", "Iso15693"])
def test_a_card_number_of_twelve_digits_is_no_address(kind: str) -> None:
    """A6: the type says what it is."""
    assert read(typed(MAC, kind)) == [(K.ID_TOKEN, MAC)]
    assert read(typed(f"VID:{MAC}", kind)) == ADDRESS


@pytest.mark.parametrize(
    "kind", ["Central", "KeyCode", "Local", "DirectPayment", "SomethingNew", "", None, 7]
)
def test_a_type_that_says_nothing_is_read_as_in_1_6(kind: Any) -> None:
    """Where the site reads bare addresses, a bare one counts."""
    assert read(typed(MAC, kind)) == [*ADDRESS, (K.ID_TOKEN, MAC)]
    assert read(typed(MAC, kind), bare_mac=False) == [(K.ID_TOKEN, MAC)]
    assert read(typed(f"VID:{MAC}", kind), bare_mac=False) == ADDRESS
    assert read(typed("card-7", kind)) == [(K.ID_TOKEN, "card-7")]


@pytest.mark.parametrize("kind", ["VIN", "vin"])
def test_a_vin_is_compared_in_upper_case(kind: str) -> None:
    """2.1: strong evidence of its own."""
    assert read(typed("wf0xxxttgxdj12345", kind)) == [(K.VIN, "WF0XXXTTGXDJ12345")]


@pytest.mark.parametrize("kind", ["eMAID", "emaid", "EMAID"])
def test_a_contract_is_a_hint(kind: str) -> None:
    """A7: and twelve digits in it are no address."""
    assert read(typed("DE-8AA-C1234567-8", kind)) == [(K.EMAID, "DE-8AA-C1234567-8")]
    assert read(typed(MAC, kind)) == [(K.EMAID, MAC)]


@pytest.mark.parametrize("kind", ["NoAuthorization", "noauthorization"])
@pytest.mark.parametrize("text", ["", MAC, f"VID:{MAC}"])
def test_no_authorization_says_nothing(kind: str, text: str) -> None:
    """Whatever stands in the text; what is added still counts."""
    assert read(typed(text, kind)) == []
    assert read(typed(text, kind, (MAC, "EVCCID"))) == ADDRESS


@pytest.mark.parametrize("text", ["", None, [], {}, True])
@pytest.mark.parametrize("kind", ["MacAddress", "VIN", "eMAID", "Central"])
def test_an_empty_token_says_nothing(text: Any, kind: str) -> None:
    """Of any type."""
    assert read(typed(text, kind)) == []


@pytest.mark.parametrize("digits", [MAC, f"0000{MAC}", f"{MAC}0000"])
def test_a_station_that_writes_base32_is_read_where_the_site_says_so(digits: str) -> None:
    """A2: six or eight bytes."""
    text = base64.b32encode(bytes.fromhex(digits)).decode().rstrip("=")

    assert read(typed(text, "Central"), base32_tags=True) == ADDRESS
    assert read(typed(text, "Central")) == [(K.ID_TOKEN, text)]


# --- additionalInfo -----------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["EVCCID", "evccId", "MAC", "MacAddress", "EVCC_MAC", "vehicle mac"]
)
def test_an_address_may_come_beside_the_token(kind: str) -> None:
    """2.1 Q01.FR.02: types of additionalInfo are free text."""
    token = typed("DE-8AA-C1234567-8", "eMAID", ("04:e7:7e:00:f0:fa", kind))

    assert read(token) == [(K.EMAID, "DE-8AA-C1234567-8"), *ADDRESS]


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("wf0xxxttgxdj12345", "VIN", [(K.VIN, "WF0XXXTTGXDJ12345")]),
        ("wf0xxxttgxdj12345", "vinCode", [(K.VIN, "WF0XXXTTGXDJ12345")]),
        ("short", "VINTAGE", []),
        ("DE-8AA-C1234567-8", "contract eMAID", [(K.EMAID, "DE-8AA-C1234567-8")]),
        (f"VID:{MAC}", "other", ADDRESS),
        (MAC, "ISO14443SubType", []),
        ("MIFARE", "ISO14443SubType", []),
        ("", "EVCCID", []),
        ("no address", "EVCCID", []),
    ],
)
def test_what_stands_beside_the_token_is_read_by_its_content(
    text: str, kind: str, found: Found
) -> None:
    """What is nothing special is no evidence: the token itself already is."""
    assert read(typed("card-7", "Local", (text, kind))) == [(K.ID_TOKEN, "card-7"), *found]


def test_additional_info_is_bounded() -> None:
    """I12: a station that adds thousands adds eight."""
    more = [(f"WF0XXXTTGXDJ{number:05}", "VIN") for number in range(5000)]

    assert len(read(typed("", "NoAuthorization", *more))) == ADDITIONAL_MAX


def test_every_piece_says_where_it_came_from() -> None:
    """People see it when a match is doubted."""
    found = token_evidence(
        typed(f"VID:{MAC}", "Central", (MAC, "EVCCID")),
        source="Authorize",
        at=NOW,
        options=AdapterOptions(),
    )

    assert [item.source for item in found] == ["Authorize", "Authorize additionalInfo"]
    assert all(item.at == NOW for item in found)


# --- ConnectedEV.VehicleId ----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (MAC, ADDRESS),
        (f" {MAC.lower()} ", ADDRESS),
        ("04:E7:7E:00:F0:FA", ADDRESS),
        ("A" * 48, [(K.ID_TOKEN, "A" * 48)]),
        ("  ", []),
        ("", []),
    ],
)
def test_a_vehicle_id_is_an_evccid_of_any_protocol(text: str, found: Found) -> None:
    """2.1 section 2.17: 12 hex digits, up to 255 characters, or 24 bytes of CHAdeMO."""
    evidence = vehicle_id_evidence(text, source="test", at=NOW)

    assert [(item.kind, item.value) for item in evidence] == found


# --- hostile ------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_no_hostile_value_in_any_place_raises(value: Any) -> None:
    """And what is kept is short."""
    for token in (
        value,
        typed(value, "Central"),
        typed(value, "MacAddress"),
        typed("x", value),
        typed("x", "Local") | {"additionalInfo": value},
        typed("x", "Local") | {"additionalInfo": [value]},
        typed("x", "Local", (value, "EVCCID")),
        typed("x", "Local", (MAC, value)),
    ):
        for kind, text in read(token, base32_tags=True):
            assert isinstance(kind, EvidenceKind)
            assert len(text) <= 255
        assert len(token_text(token)) <= 255
        assert len(token_type(token)) <= 50


@given(token=JSON_VALUES, text=st.text(max_size=60), kind=st.text(max_size=30))
def test_any_token_can_be_read(token: Any, text: str, kind: str) -> None:
    """Property: nothing raises, and a strong kind has a strong value."""
    for found in (read(token), read(typed(text, kind, (text, kind)))):
        for kind_found, value in found:
            if kind_found is EvidenceKind.MAC:
                assert len(value) == 12
                int(value, 16)
