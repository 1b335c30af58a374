"""Who may connect: identity out of the path, credentials in every form stations send."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.ids import StationId
from agent.stations.handshake import (
    Doors,
    StationAccess,
    admit,
    choose_subprotocol,
    hash_password,
    identity_of,
)

SALT = bytes(range(16))
KEY = bytes([0, 255, 128, 58, 200]) * 4
"""Twenty raw bytes: not UTF-8, and with a colon among them."""
HEX = KEY.hex()


def doors(*accesses: StationAccess, accepts_unknown: bool = False) -> Doors:
    return Doors(
        stations={item.station_id: item for item in accesses},
        accepts_unknown=accepts_unknown,
    )


def access(
    name: str = "CP-01", password: str = "", profile: int = 0, aliases: tuple[str, ...] = ()
) -> StationAccess:
    return StationAccess(
        station_id=StationId(name),
        security_profile=profile,
        password_hash=hash_password(password, SALT) if password else "",
        aliases=aliases,
    )


def basic(user: bytes, password: bytes) -> bytes:
    return b"Basic " + base64.b64encode(user + b":" + password)


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/CP-01", "CP-01"),
        ("///CP-01", "CP-01"),
        ("/CP-01/", "CP-01"),
        ("/ocpp/1.6/depot/CP-01", "CP-01"),
        ("ws://10.0.0.1:9000/ocpp/CP-01", "CP-01"),
        ("/CP-01?token=/evil", "CP-01"),
        ("/CP-01#part", "CP-01"),
        ("/RDAM%20123", "RDAM 123"),
        ("/RDAM%7C123", "RDAM|123"),
        ("/north%2FCP-01", "north/CP-01"),
        ("/CP.01", "CP.01"),
        ("/%252e%252e", "%2e%2e"),
        ("/%2E%2E%2FCP", "../CP"),
        ("/" + "x" * 48, "x" * 48),
        ("/D%C3%A9p%C3%B4t", "Dépôt"),
    ],
)
def test_a5_the_identity_is_the_last_segment_decoded_once(path: str, identity: str) -> None:
    """CON-05, CON-06: URLs that firmware and installers make."""
    assert identity_of(path) == identity


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "///", "/..", "/.", "/%2e%2e", "/%2E", "/" + "x" * 49, "/a%00b", "/a%0Ab",
        "/a%1B%5B31m", "/%FF%FE", "/%20CP-01", "/CP-01%20", "/%E2%80%AECP-01", "?CP-01",
    ],
)  # fmt: skip
def test_a5_a_path_that_names_no_usable_identity_is_refused(path: str) -> None:
    """A5, CON-07: empty, dots, control and direction marks, bad UTF-8, over-long."""
    assert identity_of(path) is None
    assert (
        admit(path, None, doors(access(), accepts_unknown=True), is_tls=True).status == 404
    )


@given(st.text(max_size=80))
def test_no_path_makes_the_door_raise_or_open_for_a_stranger(path: str) -> None:
    """Only a configured identity gets in."""
    found = admit(path, None, doors(access()), is_tls=False)

    assert found.status in (101, 404)
    assert (found.status == 101) == ((identity_of(path) or "").encode().lower() == b"cp-01")


def test_letter_case_and_aliases_lead_to_the_same_station() -> None:
    """CON-06: compared without case, known as configured."""
    known = doors(access("CP-01", aliases=("OldName",)))

    for path in ("/cp-01", "/CP-01", "/oldname"):
        found = admit(path, None, known, is_tls=False)
        assert (found.status, found.station_id) == (101, "CP-01")


@pytest.mark.parametrize(
    "path", ["/C%D0%A0-01", "/C%EF%BC%B0-01", "/%E2%84%AA1", "/CP%C5%BF"]
)
def test_a5_a_look_alike_of_a_configured_name_is_unknown(path: str) -> None:
    """A5: Cyrillic, full-width, the Kelvin sign and the long s are other letters."""
    known = doors(access("CP-01"), access("K1"), access("CPs"))

    assert admit(path, None, known, is_tls=False).status == 404


def test_an_unknown_station_gets_404_unless_commissioning() -> None:
    """OCPP-J 3.2."""
    stranger = admit("/CP-99", None, doors(access()), is_tls=False)
    welcome = admit("/CP-99", None, doors(access(), accepts_unknown=True), is_tls=False)

    assert (stranger.status, stranger.station_id, stranger.identity) == (404, None, "CP-99")
    assert (welcome.status, welcome.station_id) == (101, "CP-99")


@pytest.mark.parametrize("profile", [2, 3])
def test_a6_a_station_configured_for_tls_is_refused_without_it(profile: int) -> None:
    """SEC-04, A6: no downgrade, not even with the right password."""
    known = doors(access(password="correct-password", profile=profile))
    header = basic(b"CP-01", b"correct-password")
    named = frozenset({"CP-01"})

    plain = admit("/CP-01", header, known, is_tls=False, certificate_names=named)
    secure = admit("/CP-01", header, known, is_tls=True, certificate_names=named)
    assert (plain.status, secure.status) == (403, 101)


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ((), 403),
        (("CP-02",), 403),
        (("CP-01x", ""), 403),
        (("\uff23P-01",), 403),
        (("x", "cp-01"), 101),
    ],
)
def test_a11_profile_3_needs_a_certificate_in_the_stations_name(
    names: tuple[str, ...], status: int
) -> None:
    """A11: a certificate of another station opens nothing."""
    found = admit(
        "/CP-01",
        None,
        doors(access(profile=3)),
        is_tls=True,
        certificate_names=frozenset(names),
    )

    assert found.status == status


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        (HEX, KEY),
        (HEX.upper(), KEY),
        (HEX, HEX.encode()),
        (HEX, HEX.upper().encode()),
        (HEX.upper(), HEX.encode()),
        ("plain-password-16", b"plain-password-16"),
        ("pass:with:colons!", b"pass:with:colons!"),
        ("pässwörd-of-16-ch", "pässwörd-of-16-ch".encode()),
        ("short", b"short"),
    ],
)
def test_a_key_is_right_as_hex_text_and_as_raw_bytes(configured: str, sent: bytes) -> None:
    """SEC-02: some send 40 hex digits, some the 20 bytes, which need not be UTF-8."""
    known = doors(access(password=configured, profile=1))

    assert admit("/CP-01", basic(b"CP-01", sent), known, is_tls=False).status == 101


@pytest.mark.parametrize(
    "header",
    [
        None, b"", b"Basic", b"Basic ", b"Basic !!!!", b"Basic " + base64.b64encode(b"CP-01"),
        b"Bearer " + HEX.encode(), b"Digest x", HEX.encode(),
        basic(b"CP-01", b""), basic(b"CP-01", b"wrong"), basic(b"CP-01", KEY[:-1]),
        basic(b"CP-01", KEY + b"\x00"), basic(b"CP-01", HEX[:-1].encode()),
        basic(b"CP-02", KEY), basic(b"", KEY), basic(b"CP-01:", KEY), b"Basic \xff\xfe\x80",
        basic(b"CP-01", hash_password(HEX, SALT).encode()),
    ],
)  # fmt: skip
def test_a2_wrong_or_missing_credentials_get_401(header: bytes | None) -> None:
    """No form but the right one opens, the stored hash included."""
    known = doors(access(password=HEX, profile=1))

    assert admit("/CP-01", header, known, is_tls=True).status == 401


def test_letter_case_of_a_password_that_is_not_hex_matters() -> None:
    """Leniency is for hex digits only."""
    password = "Correct-Horse-Battery-Staple-2026"
    known = doors(access(password=password, profile=1))

    assert (
        admit("/CP-01", basic(b"CP-01", password.encode()), known, is_tls=False).status
        == 101
    )
    lowered = basic(b"CP-01", password.lower().encode())
    assert admit("/CP-01", lowered, known, is_tls=False).status == 401


@pytest.mark.parametrize("scheme", [b"Basic", b"basic", b"BASIC"])
def test_scheme_and_user_are_read_without_case(scheme: bytes) -> None:
    """HTTP says so of the scheme, CON-06 of the user."""
    known = doors(access(password="correct-password", profile=1))
    header = scheme + b"  " + base64.b64encode(b"cp-01:correct-password")

    assert admit("/CP-01", header, known, is_tls=False).status == 101


def test_a_station_that_connects_by_an_alias_may_call_itself_by_it() -> None:
    """The user name is the identity as in the URL."""
    known = doors(access(password="correct-password", profile=1, aliases=("Old",)))
    header = basic(b"Old", b"correct-password")

    assert admit("/old", header, known, is_tls=False).status == 101


def test_a_station_without_a_password_gets_in_whatever_it_sends() -> None:
    """Profile 0: credentials that nobody asked for do no harm."""
    header = basic(b"CP-01", b"whatever")

    assert admit("/CP-01", header, doors(access()), is_tls=False).status == 101


@given(st.binary(max_size=60))
def test_no_authorization_header_makes_the_door_raise(header: bytes) -> None:
    """Header bytes are hostile too."""
    known = doors(access(password=HEX, profile=1))

    assert admit("/CP-01", b"Basic " + header, known, is_tls=True).status == 401
    assert admit("/CP-01", basic(b"CP-01", header), known, is_tls=True).status == 401


@given(st.binary(min_size=16, max_size=20))
def test_every_raw_key_and_its_hex_text_open_and_a_changed_one_does_not(key: bytes) -> None:
    """Both wire forms of the 1.6 key, whatever its bytes are."""
    known = doors(access(password=key.hex(), profile=1))
    other = bytes([key[0] ^ 1]) + key[1:]

    for sent in (key, key.hex().encode(), key.hex().upper().encode()):
        assert admit("/CP-01", basic(b"CP-01", sent), known, is_tls=False).status == 101
    for sent in (other, other.hex().encode()):
        assert admit("/CP-01", basic(b"CP-01", sent), known, is_tls=False).status == 401


@pytest.mark.parametrize(
    "stored", ["sha256$zz$00", "sha256$00", "plain", "md5$00$00", "$$"]
)
def test_a_damaged_stored_hash_opens_for_nobody(stored: str) -> None:
    """A hash that cannot be read is no password."""
    known = doors(StationAccess(station_id=StationId("CP-01"), password_hash=stored))

    assert admit("/CP-01", basic(b"CP-01", b""), known, is_tls=False).status == 401


def test_a2_a_hash_is_salted_and_does_not_show_the_password() -> None:
    """Salted at rest, in the form that settings accept."""
    one, other = (
        hash_password("secret-password!", SALT),
        hash_password("secret-password!", b"o" * 16),
    )

    assert re.fullmatch(r"sha256\$[0-9a-f]{32}\$[0-9a-f]{64}", one)
    assert one != other
    assert "secret" not in one


def test_a_refusal_never_shows_what_was_sent_as_a_password() -> None:
    """Reasons go to the log."""
    known = doors(access(password=HEX, profile=1))
    found = admit("/CP-01", basic(b"CP-01", b"hunter2hunter2"), known, is_tls=False)

    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["ocpp1.6"], "ocpp1.6"),
        (["ocpp2.1", "ocpp2.0.1", "ocpp1.6"], "ocpp2.1"),
        (["ocpp1.6", "ocpp2.1"], "ocpp1.6"),
        (["ocpp2.0", "ocpp2.0.1"], "ocpp2.0.1"),
        (["ocpp1.5", "soap"], None),
        (["OCPP1.6"], None),
        ([], None),
    ],
)
def test_the_first_offered_version_that_is_spoken_is_chosen(
    offered: list[str], chosen: str | None
) -> None:
    """The client's order is its preference; nothing in common is nothing."""
    assert choose_subprotocol(offered) == chosen
