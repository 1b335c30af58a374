"""Configured readers of vendor messages: what they find, and that they survive rubbish."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given

from agent.stations.extractors import Extracted, ExtractorRule, extract

from .conftest import JSON_VALUES


def rule(field: str = "mac", path: str = "", pattern: str = "") -> ExtractorRule:
    return ExtractorRule(vendor_id="V", field=field, path=path, pattern=pattern)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("ev.mac", {"ev": {"mac": "AABBCCDDEEFF"}}),
        ("ev.mac", '{"ev": {"mac": "AABBCCDDEEFF"}}'),
        ("0.mac", [{"mac": "AABBCCDDEEFF"}]),
        ("", "AABBCCDDEEFF"),
        ("", '"AABBCCDDEEFF"'),
    ],
)
def test_a_path_leads_into_objects_lists_and_json_text(path: str, data: Any) -> None:
    """Vendors send an object, a text, or a text that is JSON."""
    assert extract([rule(path=path)], data).macs == ("AABBCCDDEEFF",)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("ev.mac", {"ev": 5}),
        ("ev.mac", "no json"),
        ("9", [1]),
        ("ev", {"ev": {"mac": "x"}}),
        ("a", None),
    ],
)
def test_a_path_that_leads_nowhere_finds_nothing(path: str, data: Any) -> None:
    """What is not there is not guessed."""
    assert extract([rule(path=path)], data) == Extracted()


def test_a_pattern_finds_its_first_group_in_text_and_in_objects() -> None:
    """The fallback for vendors without JSON."""
    found = rule(pattern=r"MAC=([0-9A-F]{12})")

    assert extract([found], "x MAC=AABBCCDDEEFF;").macs == ("AABBCCDDEEFF",)
    assert extract([found], {"a": "MAC=AABBCCDDEEFF"}).macs == ("AABBCCDDEEFF",)
    assert extract([rule(pattern="[0-9A-F]{12}")], "AABBCCDDEEFF").macs == ("AABBCCDDEEFF",)
    assert extract([rule(pattern="(x)?y")], "y") == Extracted()


def test_several_rules_fill_several_fields() -> None:
    """MAC, SoC and connector out of one message."""
    rules = [rule("mac", "m"), rule("soc", "s"), rule("connector", "c")]
    found = extract(rules, {"m": "AABBCCDDEEFF", "s": "42,5", "c": "2"})

    assert found == Extracted(macs=("AABBCCDDEEFF",), soc_percent=42.5, connector_id=2)


@pytest.mark.parametrize("soc", [-1, 101, "NaN", True, None, [], {}, "", 1e308])
def test_a_soc_that_is_no_percentage_is_left_out(soc: Any) -> None:
    """Nothing but 0 to 100."""
    assert extract([rule("soc", "s")], {"s": soc}).soc_percent is None


@given(JSON_VALUES)
def test_no_data_makes_a_reader_raise(data: Any) -> None:
    """Every JSON value may be the data."""
    rules = [
        rule(field, path, pattern)
        for field in ("mac", "soc", "connector")
        for path, pattern in (("", ""), ("a.0.b", ""), ("", "(.+)"))
    ]
    found = extract(rules, data)

    assert all(len(mac) <= 64 for mac in found.macs)
    assert found.soc_percent is None or math.isfinite(found.soc_percent)
