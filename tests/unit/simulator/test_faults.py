"""The catalogue of faults: what may be asked for, what it is called, what is missing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.simulator.catalogue_power import NOT_FAULTS
from agent.simulator.command import SimulateOptions, faults_of
from agent.simulator.faults import (
    CATALOGUE,
    FAULTS,
    LIST_HEAD,
    STATION_FAULTS,
    TRANSPORT_NAMES,
    Timing,
    check_faults,
    fault_rows,
    timings,
)
from agent.simulator.transport import HABITS

REPORTED = {
    "CON": 10,
    "NET": 12,
    "SEC": 7,
    "BOOT": 9,
    "CFG": 14,
    "CLK": 8,
    "PRF": 18,
    "LIM": 14,
    "VER": 12,
    "TX": 15,
    "OFF": 6,
    "REM": 9,
    "MTR": 17,
    "STS": 10,
    "RPC": 9,
    "EV": 15,
    "V2": 10,
}
"""How many habits of stations and vehicles the field reports number in each chapter."""
FOLDER = Path(__file__).parents[3] / "agent" / "simulator"


def test_every_reported_habit_is_a_fault_or_says_why_not():
    """No number is missing, none is both."""
    wanted = {
        f"{part}-{at:02}" for part, count in REPORTED.items() for at in range(1, count + 1)
    }
    had = {number for each in CATALOGUE for number in each.ids}

    assert had | NOT_FAULTS.keys() == wanted
    assert not had & NOT_FAULTS.keys()
    assert all(NOT_FAULTS.values())


def test_names_are_unique_and_each_is_acted_upon():
    """A name that no module but the catalogue knows would be a promise only."""
    sources = "".join(
        path.read_text() for path in FOLDER.glob("*.py") if "catalogue" not in path.name
    )
    names = Counter(each.name for each in CATALOGUE)
    default = {"no-boot-on-reconnect"}

    assert max(names.values()) == 1
    assert {name for name in names if f'"{name}"' not in sources} == default
    assert HABITS.keys() == TRANSPORT_NAMES


def test_an_id_stands_for_its_first_fault_and_letters_may_be_small():
    """By id, by name, in any case; both give the name."""
    assert check_faults(["PRF-14", "net-06", "Deaf"]) == {"refuse-profiles", "deaf"}
    assert check_faults(["CON-02"]) == {"probe-connection"}


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("refuse-profile", "refuse-profiles"),
        ("PRF-41", "PRF-"),
        ("TX-08", "cannot be simulated: happens inside the central system"),
        ("deaf:3", "only faults of the network"),
        ("latency:soon", "'soon' is not a number"),
        ("black-hole@-5", "'-5' is not a number"),
    ],
)
def test_what_is_no_fault_is_refused_with_help(asked: str, near: str):
    """The nearest name, the reason, or what is wrong with the number."""
    with pytest.raises(ValueError, match=re.escape(near)):
        check_faults([asked])


def test_a_fault_of_the_network_carries_value_and_time():
    """VALUE, start, length and period are kept and read."""
    asked = check_faults(["latency:0.3", "NET-01@60", "reset@600+5/900", "deaf"])

    assert timings(asked) == [
        Timing("latency", value=0.3),
        Timing("half-open", start_s=60),
        Timing("reset", start_s=600, lasts_s=5, every_s=900),
    ]


def test_a_fault_is_of_all_stations_or_of_one():
    """STATION=NAME is one station's; an unknown station is refused with the nearest."""
    options = SimulateOptions(url="", faults=("refuse-zero", "CP-02=TX-04"))
    found = faults_of(options, ["CP-01", "CP-02"])

    assert found == {
        "CP-01": frozenset({"refuse-zero"}),
        "CP-02": frozenset({"refuse-zero", "stop-never"}),
    }
    with pytest.raises(ValueError, match="is it 'CP-02'"):
        faults_of(SimulateOptions(url="", faults=("CP-2=deaf",)), ["CP-01", "CP-02"])


def test_the_list_has_a_row_for_everything():
    """Each fault once, each number without one with its reason."""
    rows = list(fault_rows())

    assert len(rows) == len(FAULTS) + len(NOT_FAULTS)
    assert all(len(row) == len(LIST_HEAD) and all(row) for row in rows)
    assert {row[1] for row in rows} - {"-"} == FAULTS.keys()
    assert {each.versions for each in STATION_FAULTS} == {"all", "1.6", "2.x"}


def test_the_commands_list_faults_and_refuse_unknown_ones():
    """`--list-faults` needs no address; an unknown fault ends with 2 and the nearest."""
    runner = CliRunner()
    listed = runner.invoke(app, ["simulate", "--list-faults"])
    wrong = runner.invoke(app, ["simulate", "ws://127.0.0.1:1/", "--fault", "refuse-zer"])
    demo = runner.invoke(app, ["demo", "--fault", "CP-03=ignore-profile"])

    assert listed.exit_code == 0
    assert len(listed.stdout.splitlines()) == 1 + len(list(fault_rows()))
    assert (wrong.exit_code, "refuse-zero" in wrong.output) == (2, True)
    assert (demo.exit_code, "ignore-profiles" in demo.output) == (2, True)
