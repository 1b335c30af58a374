"""Which misbehaviours there are, how they are asked for, and the table of them all.

A fault is asked for by its name or by an id that it shows, in any case. Faults of the
network may carry a value and a time::

    latency:0.3                 # VALUE
    black-hole@600+120          # from second 600 of the simulation on, for 120 s
    reset@600+5/900             # the same every 900 s
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, NamedTuple

from agent.simulator.catalogue import (
    FRAMES,
    LINKS,
    SETTINGS,
    TIMES,
    TRANSPORT,
)
from agent.simulator.catalogue_power import (
    LIMITS,
    METERS,
    NOT_FAULTS,
    PROFILES,
    STATUSES,
    TRANSACTIONS,
    VEHICLES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STATION_FAULTS = (
    *LINKS,
    *SETTINGS,
    *TIMES,
    *FRAMES,
    *PROFILES,
    *LIMITS,
    *TRANSACTIONS,
    *METERS,
    *STATUSES,
    *VEHICLES,
)
CATALOGUE = (*TRANSPORT, *STATION_FAULTS)
FAULTS: dict[str, str] = {each.name: each.what for each in CATALOGUE}
"""What each fault does, by name."""
TRANSPORT_NAMES = frozenset(each.name for each in TRANSPORT)
LIST_HEAD = ("id", "name", "what it does, or why it cannot be had", "OCPP")
_BY_ID = {number: each.name for each in reversed(CATALOGUE) for number in each.ids}
_WRITTEN = re.compile(
    r"(?P<name>[^:@]+)(?::(?P<value>[^@]+))?"
    r"(?:@(?P<start>[^+/]+)(?:\+(?P<lasts>[^/]+))?(?:/(?P<every>.+))?)?"
)
_ID = re.compile(r"[A-Z]+[0-9]?-[0-9]{2}")


class Timing(NamedTuple):
    """A transport fault as asked for; None is what the fault has by itself.

    `value` is in its own unit; `start_s`, `lasts_s` and `every_s` are simulated seconds.
    """

    name: str
    value: float | None = None
    start_s: float | None = None
    lasts_s: float | None = None
    every_s: float | None = None


def check_faults(names: Iterable[str]) -> frozenset[str]:
    """Return the faults by their names; raise ValueError naming the nearest to a wrong one.

    Ids become names; a value and a time stay where they are.
    """
    return frozenset(_checked(each) for each in sorted(names))


def timings(faults: Iterable[str]) -> list[Timing]:
    """Read the faults of the network among these, in order of their names."""
    read = (_read(each) for each in sorted(faults))
    return [each for each in read if each.name in TRANSPORT_NAMES]


def fault_rows() -> Iterator[tuple[str, str, str, str]]:
    """Give the rows under LIST_HEAD: every fault, then every id that is none."""
    for each in CATALOGUE:
        yield " ".join(each.ids) or "-", each.name, each.what, each.versions
    for number, reason in NOT_FAULTS.items():
        yield number, "-", reason, "-"


def _checked(text: str) -> str:
    asked = _read(text)
    if asked.name not in FAULTS:
        raise ValueError(_unknown(asked.name))
    if asked.name in TRANSPORT_NAMES:
        return text.strip().lower()
    if asked != Timing(asked.name):
        raise ValueError(f"{text!r}: only faults of the network take a value or a time")
    return asked.name


def _unknown(name: str) -> str:
    number = name.upper()
    if number in NOT_FAULTS:
        return f"{number} cannot be simulated: {NOT_FAULTS[number]}"
    known = [*_BY_ID, *NOT_FAULTS] if _ID.fullmatch(number) else [*FAULTS]
    asked = number if _ID.fullmatch(number) else name
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.0)
    return f"no fault is called {name!r}; the nearest is {near[0]!r}"


def _read(text: str) -> Timing:
    found = _WRITTEN.fullmatch(text.strip().lower())
    if found is None:
        return Timing(text)
    name = found["name"]
    numbers = [_number(text, found[key]) for key in ("value", "start", "lasts", "every")]
    return Timing(_BY_ID.get(name.upper(), name), *numbers)


def _number(text: str, number: str | None) -> float | None:
    if number is None:
        return None
    try:
        read = float(number)
    except ValueError:
        read = math.nan
    if not (math.isfinite(read) and read >= 0):
        raise ValueError(f"{text!r}: {number!r} is not a number, 0 or more")
    return read
