"""Times and numbers as stations write them -> aware UTC times and finite numbers.

charger-quirks.md CLK and MTR-01; faults.md T1, T6. A time that cannot be, or that no
clock in the depot can have meant, is replaced by ours and named.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

FUTURE_MAX = timedelta(seconds=90)
"""A message cannot come from further ahead; the station's clock is wrong (CLK-04)."""
PAST_MAX = timedelta(days=400)
"""A queued message may be months old (OFF-01); 1970 is a clock without time."""

WHOLE_MAX = 2**53
"""Beyond, a number that came as a float is no whole number any more."""

_SHORT_OFFSET = re.compile(r"([+-]\d{2})$")
_LEAP_SECOND = re.compile(r"(T\d{2}:\d{2}):60")
_FRACTION = re.compile(r"\.(\d{1,9})\d*")


def parse_time(value: object) -> datetime | None:
    """Read an ISO 8601 time; no zone means UTC (CLK-02); None when it is no time."""
    if type(value) is not str or not 8 <= len(value) <= 40:  # noqa: PLR2004
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        text = _FRACTION.sub(lambda m: "." + m.group(1)[:6].ljust(6, "0"), value.strip())
        text = _SHORT_OFFSET.sub(r"\1:00", text.replace("z", "Z"))
        text = _LEAP_SECOND.sub(r"\1:59", text)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        if found.tzinfo is None:
            return found.replace(tzinfo=UTC)
        return found if found.tzinfo is UTC else found.astimezone(UTC)
    except OverflowError:
        return None


def believable(value: object, now: datetime) -> tuple[datetime, str | None]:
    """Take a station's time if it can be true, else ours, with the reason."""
    found = parse_time(value)
    if found is None:
        return now, f"the time {str(value)[:40]!r} cannot be read"
    if found > now:
        if found - now > FUTURE_MAX:
            return now, f"the time {str(value)[:40]!r} lies in the future"
        return now, None
    if now - found > PAST_MAX:
        return now, f"the time {str(value)[:40]!r} is too old"
    return found, None


def parse_number(value: object) -> float | None:
    """Read a finite number from text or number; None when there is none (MTR-01)."""
    kind = type(value)
    if kind is str:
        text: Any = value
        try:
            found = float(text)
        except ValueError:
            text = text.strip().replace(",", ".")
            try:
                found = float(text)
            except ValueError:
                return None
    elif kind is float or kind is int:
        found = float(value)  # type: ignore[arg-type]
    else:
        return None
    return found if math.isfinite(found) else None


def parse_int(value: object) -> int | None:
    """Read a whole number from number or text; None when there is none."""
    found = value if type(value) is int else parse_number(value)
    if found is None or abs(found) > WHOLE_MAX or found != int(found):
        return None
    return int(found)


def utc_text(at: datetime) -> str:
    """Whole seconds with ``Z``: what all stations can read (CLK-03)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
