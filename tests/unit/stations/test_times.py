"""Times and numbers as stations write them, and what is no time and no number."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.stations.times import (
    FUTURE_MAX,
    PAST_MAX,
    believable,
    parse_int,
    parse_number,
    parse_time,
    utc_text,
)

from .conftest import JSON_VALUES, NOW

EVENING = datetime(2026, 1, 15, 17, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-15T17:30:05Z", "2026-01-15T17:30:05z", "2026-01-15T17:30:05+00:00",
        "2026-01-15T17:30:05", "2026-01-15 17:30:05", "2026-01-15T17:30:05.000Z",
        "2026-01-15T17:30:05.000000000Z", "2026-01-15T20:30:05+03:00",
        "2026-01-15T20:30:05+03", "2026-01-15T12:30:05-0500", "20260115T173005Z",
        " 2026-01-15T17:30:05Z ",
    ],
)  # fmt: skip
def test_every_notation_of_one_instant_is_read_as_that_instant(text: str) -> None:
    """CLK-02: no zone means UTC, short offsets and any fraction are accepted."""
    assert parse_time(text) == EVENING


@given(st.integers(1, 9), st.integers(0, 999_999_999))
def test_fractions_of_one_to_nine_digits_are_read(digits: int, number: int) -> None:
    """CLK-02: 0 to 9 fractional digits; finer than a microsecond is cut."""
    fraction = f"{number:09d}"[:digits]
    found = parse_time(f"2026-01-15T17:30:05.{fraction}Z")

    assert found is not None
    assert found.microsecond == int(fraction.ljust(9, "0")[:6])


@pytest.mark.parametrize(
    "value",
    [
        "1000000", "2026-00-15T17:30:05Z", "2026-13-15T17:30:05Z", "10000-01-15T17:30:05Z",
        "NaN", "", "now", "2026-01-15T25:00:00Z", "2026-02-30T00:00:00Z", "2" * 1000,
        "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", None, 1768498205, 1.5,
        True, [], {}, ["2026-01-15T17:30:05Z"],
    ],
)  # fmt: skip
def test_t6_what_is_no_time_is_refused_and_ours_is_taken(value: Any) -> None:
    """T6: month 00, year 10000, NaN, numbers; the message is kept with our time."""
    assert parse_time(value) is None
    at, oddity = believable(value, NOW)

    assert at == NOW
    assert oddity is not None
    assert len(oddity) < 120


@given(JSON_VALUES | st.text())
def test_no_value_makes_the_readers_raise(value: Any) -> None:
    """Total for every JSON value; results are aware and finite."""
    at, _ = believable(value, NOW)
    assert at.utcoffset() == timedelta(0)
    assert NOW - PAST_MAX <= at <= NOW

    number = parse_number(value)
    assert number is None or math.isfinite(number)
    whole = parse_int(value)
    assert whole is None or type(whole) is int


@pytest.mark.parametrize(
    ("offset", "is_believed"),
    [
        (-PAST_MAX, True),
        (-PAST_MAX - timedelta(seconds=1), False),
        (timedelta(0), True),
        (-timedelta(days=200), True),
    ],
)
def test_a_queued_time_is_believed_for_four_hundred_days(
    offset: timedelta, *, is_believed: bool
) -> None:
    """OFF-01 against CLK-04: old is possible, 1970 is not."""
    at, oddity = believable((NOW + offset).isoformat(), NOW)

    assert (oddity is None) == is_believed
    assert at == (NOW + offset if is_believed else NOW)


@pytest.mark.parametrize(
    ("ahead", "is_odd"), [(FUTURE_MAX, False), (FUTURE_MAX + timedelta(seconds=1), True)]
)
def test_a_time_ahead_becomes_ours_and_is_named_when_it_is_far(
    ahead: timedelta, *, is_odd: bool
) -> None:
    """CLK-04: nothing comes from the future."""
    at, oddity = believable((NOW + ahead).isoformat(), NOW)

    assert at == NOW
    assert (oddity is not None) == is_odd


@given(st.floats(946_684_800, 4_102_444_800), st.integers(-14 * 60, 14 * 60))
def test_what_we_write_is_read_back_to_the_second(moment_s: float, minutes: int) -> None:
    """CLK-03: whole seconds with Z, whatever zone the time came in."""
    at = datetime.fromtimestamp(moment_s, timezone(timedelta(minutes=minutes)))
    text = utc_text(at)

    assert text.endswith("Z")
    assert "." not in text
    assert parse_time(text) == at.astimezone(UTC).replace(microsecond=0)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("12.5", 12.5), (" 12.5 ", 12.5), ("12,5", 12.5), (12.5, 12.5), (7, 7.0), ("-3", -3.0),
        ("1e3", 1000.0), ("007", 7.0), ("+5", 5.0),
        ("", None), (" ", None), ("NaN", None), ("inf", None), ("-Infinity", None),
        ("1.234,5", None), ("1,234.5", None), ("12 kWh", None), (None, None), (True, None),
        ([], None), ({}, None), ("1e999", None),
    ],
)  # fmt: skip
def test_a_number_is_read_leniently_and_never_guessed(
    value: Any, number: float | None
) -> None:
    """MTR-01: numbers as numbers, padded, with a comma; empty is missing, not zero."""
    assert parse_number(value) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        ("1", 1),
        (1.0, 1),
        ("1.0", 1),
        (1.5, None),
        ("x", None),
        (True, None),
        ("1e300", None),
    ],
)
def test_a_whole_number_is_whole(value: Any, number: int | None) -> None:
    """Connector ids come as numbers, text and floats."""
    assert parse_int(value) == number
