"""The accounts file: every fault is named with its key and a remedy; a good one is read."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.cloud.accounts import FILE_BYTES_MAX, AccountsFile, book_of, parse, read_text
from agent.domain.errors import ConfigFault
from agent.domain.ids import AccountId, VehicleId

EXAMPLE = Path(__file__).parents[3] / "config" / "accounts.toml"
GOOD = '[[accounts]]\nid = "a"\nvins = ["WEB62800000000001"]\n'


def faults(text: str) -> str:
    with pytest.raises(ConfigFault) as caught:
        parse(text, "f")
    return "\n".join(str(fault) for fault in caught.value.faults)


def test_the_example_is_a_good_file():
    book = parse(read_text(EXAMPLE), str(EXAMPLE))
    guest = book.accounts[AccountId("guest-12")]

    assert sorted(book.accounts) == ["acme-7", "guest-12"]
    assert (guest.goal.energy_wh, guest.goal.soc_percent) == (40_000.0, 80.0)
    assert guest.valid_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert guest.valid_until == datetime(2037, 1, 1, tzinfo=UTC)
    assert book.find("wma06xzz 000000013", None) is guest
    assert book.find(None, VehicleId("bus-12")) is guest
    assert book.accounts[AccountId("acme-7")].is_active


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('vin = ["X1234567"]', "accounts[1].vin = ...: is not a known key; did you mean"),
        ("active = 1", "accounts[1].active = 1: is neither true nor false"),
        ('vins = "WEB628"', "accounts[1].vins = WEB628: is no list of texts"),
        ('vins = ["WEB-Ö"]', "accounts[1].vins = WEB-Ö: is no VIN"),
        ('vins = ["web62800000000001"]', "the VIN stands in the account 'a' already"),
        ("prepaid_kwh = 0", "accounts[1].prepaid_kwh = 0: is no number above 0"),
        ("prepaid_kwh = nan", "accounts[1].prepaid_kwh = nan: is no number"),
        ("stop_at_soc = 101", "is no number above 0 and up to 100; give it in percent"),
        ("stop_at_soc = true", "accounts[1].stop_at_soc = True: is no number"),
        ("valid_from = 2026-01-01T06:00:00", "is neither a date nor a time with an offset"),
        ('valid_until = "2026-12-31"', "write 2026-12-31 or 2026-12-31T22:00:00Z"),
        (
            "valid_from = 2026-03-01\nvalid_until = 2026-02-01",
            "accounts[1].valid_until = 2026-02-01: is not after valid_from",
        ),
        ("name = 7", "accounts[1].name = 7: is no text of at most 200"),
        ('vehicle_ids = [""]', "an empty or overlong one"),
    ],
)
def test_a_fault_is_named_with_its_key_its_value_and_a_remedy(row: str, said: str):
    assert said in faults(f'{GOOD}[[accounts]]\nid = "b"\n{row}\n')


def test_all_faults_are_told_at_once():
    text = faults('[[accounts]]\nactive = "no"\n[[accounts]]\nid = "b"\n[x]\n')

    assert "f: x = ...: is not a known key" in text
    assert "accounts[0].active" in text
    assert "accounts[0].id = None: is needed" in text
    assert "accounts[1].vins = None: no vehicle can use this account" in text


def test_an_id_stands_once():
    assert "the id stands in the account 'a' already" in faults(GOOD + GOOD)


def test_what_is_no_toml_is_named_with_its_line():
    assert "is not TOML: Invalid statement (at line 4" in faults(f"{GOOD}!\n")


def test_an_empty_file_is_a_book_without_accounts():
    assert parse("", "f").accounts == {}


values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.lists(st.text(max_size=30) | st.integers(), max_size=3) | st.dates()
    | st.datetimes()
)  # fmt: skip


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "name", "vins", "vehicle_ids", "active", "prepaid_kwh"])
            | st.sampled_from(["stop_at_soc", "valid_from", "valid_until", "odd"]),
            values,
            max_size=5,
        ),
        max_size=4,
    )
)
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_in_a_table_is_read_or_refused_never_a_crash(rows):
    """With every fault in words."""
    try:
        book = book_of({"accounts": rows}, "f")
    except ConfigFault as fault:
        for problem in fault.faults:
            assert problem.key.startswith("f: accounts[")
            assert problem.problem
            assert problem.remedy
    else:
        assert len(book.accounts) == len(rows)


def test_a_file_that_cannot_be_read_or_is_huge_is_refused(tmp_path: Path):
    for name, raw, said in (
        ("none.toml", None, "cannot be read: No such file"),
        ("odd.toml", b"\xff", "it is not UTF-8"),
        ("huge.toml", b"#" * (FILE_BYTES_MAX + 1), "is larger than 4 MiB"),
    ):
        file = tmp_path / name
        if raw is not None:
            file.write_bytes(raw)
        with pytest.raises(ConfigFault, match=said):
            read_text(file)


async def test_a_file_is_read_when_it_changed_and_refused_once(tmp_path: Path):
    path = tmp_path / "accounts.toml"
    file = AccountsFile(path)
    with pytest.raises(ConfigFault):
        await file.changed()
    assert await file.changed() is None, "nothing new about a missing file"

    path.write_text(GOOD, encoding="utf-8")
    assert await file.changed() == GOOD
    assert await file.changed() is None
    os.utime(path, ns=(1, 1))
    assert await file.changed() == GOOD
    file.forget()
    assert await file.changed() == GOOD
