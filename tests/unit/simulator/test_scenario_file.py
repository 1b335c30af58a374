"""Scenario files: read, refused with the place of the fault, and played in any version."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.simulator.command import SimulateOptions, scenario_of, simulate
from agent.simulator.depot import Mishap
from agent.simulator.scenario_file import (
    ScenarioError,
    forced_to,
    load_scenario,
    read_scenario,
)
from tests.unit.simulator.tiny_central import a_central
from tests.unit.simulator.tiny_central2 import a_central2

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
EVENING = Path(__file__).parents[2] / "scenario" / "one_evening.toml"
TEXT = EVENING.read_text(encoding="utf-8")


def changed(text: str) -> dict[str, Any]:
    """The example with more text at its end."""
    return tomllib.loads(TEXT + text)


def test_the_example_is_read_as_it_is_written():
    """Stations, visits in order of arrival, the cut, and the defaults."""
    scenario = load_scenario(EVENING, START)

    assert scenario.end - scenario.start == timedelta(minutes=40)
    assert [each.connectors for each in scenario.stations] == [2, 1]
    assert [each.max_w for each in scenario.stations] == [200_000, 120_000]
    assert [each.vehicle_id for each in scenario.vehicles] == ["bus-1", "bus-3", "bus-2"]
    assert scenario.cap_w == 310_000
    assert scenario.mishaps == (
        Mishap(station_id="CP-02", at=START + timedelta(minutes=15), lasts_s=300),
    )


REFUSED = [
    ("\nminuts = 3", "cuts 1: no key 'minuts'; the nearest is 'minutes'"),
    ("\n[[restarts]]\nstation = 'CP-02'", "restarts 1: at is missing"),
    ("\n[[restarts]]\nstation = 'CP-9'\nat = 3", "no station 'CP-9'; there are CP-01, CP-02"),
    ("\n[[restarts]]\nstation = 'CP-01'\nat = 300", "minute 300 is not 0 to 40"),
    ("\n[[stations]]\nid = 'X'\noutlet_kw = 'much'", "outlet_kw: 'much' is not of type float"),
    ("\n[[stations]]\nid = 'X'\noutlet_kw = 0", "needs an outlet"),
    ("\n[[stations]]\nid = 'X'\noutlet_kw = 9\nversion = '3'", "'3' is not one of 1.6, 2.0.1"),
    ("\n[[stations]]\nid = 'X'\noutlet_kw = 9\nid_form = 'face'", "identification is called"),
    ("\n[[stations]]\nid = 'X'\noutlet_kw = 9\nfaults = ['start-thrice']", "'start-twice'"),
    ("\n[[stations]]\nid = 'CP-01'\noutlet_kw = 9", "an id of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_cannot_be_is_refused_with_its_place(text: str, reason: str):
    """One line that names what to mend."""
    with pytest.raises(ScenarioError) as refusal:
        read_scenario(changed(text), START)

    assert reason in str(refusal.value)


VEHICLES = [
    ({"outlet": 2}, "CP-02 has no outlet 2"),
    ({"mac": "cafe"}, "mac 'cafe' is not 12 hex digits"),
    ({"departure": 3}, "departs before it arrives"),
    ({"soc_start": 95}, "must ascend"),
    ({"max_kw": 0}, "more than 0"),
    ({"station": "CP-01"}, "before bus-1 has left"),
    ({"can_resume": "no"}, "can_resume: 'no' is not of type bool"),
]


@pytest.mark.parametrize(("change", "reason"), VEHICLES)
def test_a_visit_that_cannot_be_is_refused(change: dict[str, Any], reason: str):
    """Of the third vehicle."""
    content = changed("")
    content["vehicles"][2] |= change

    with pytest.raises(ScenarioError, match=reason):
        read_scenario(content, START)


@pytest.mark.parametrize("name", ["stations", "vehicles"])
def test_a_depot_with_nothing_in_it_is_refused(name: str):
    """Both lists must have something in them, and be tables."""
    content = changed("")

    with pytest.raises(ScenarioError):
        read_scenario({**content, name: []}, START)
    with pytest.raises(ScenarioError):
        read_scenario({**content, name: [3]}, START)


def test_broken_toml_is_refused_with_the_name_of_the_file(tmp_path: Path):
    """As tomllib says it."""
    path = tmp_path / "broken.toml"
    path.write_text("minutes = = 3", encoding="utf-8")

    with pytest.raises(ScenarioError, match=r"broken\.toml"):
        load_scenario(path, START)


def test_a_version_can_be_forced_on_all_stations_or_a_mix():
    """One version leaves the rest alone; a mix gives 2.x stations their habits."""
    scenario = load_scenario(EVENING, START)
    one = forced_to(scenario, "2.1")
    mix = forced_to(scenario, "1.6", "2.0.1")

    assert [each.ocpp_version for each in one.stations] == ["2.1", "2.1"]
    assert [each.iso15118 for each in one.stations] == [False, False]
    assert [each.ocpp_version for each in mix.stations] == ["1.6", "2.0.1"]
    assert [each.iso15118 for each in mix.stations] == [False, True]
    with pytest.raises(ValueError, match=r"'2\.0' is not one of"):
        scenario_of(SimulateOptions(url="", version="2.0"), START)


def test_a_mixed_night_has_every_version_and_habit():
    """1.6, ISO 15118, a vehicle known from the device model alone; the same visits."""
    mixed = scenario_of(SimulateOptions(url="", stations=3, version="mix"), START)
    plain = scenario_of(SimulateOptions(url="", stations=3), START)

    assert [each.ocpp_version for each in mixed.stations] == ["1.6", "2.0.1", "2.1"]
    assert [each.iso15118 for each in mixed.stations] == [False, True, False]
    assert [each.id_form for each in mixed.stations] == ["vid", "vid", "no-auth"]
    assert {each.ocpp_version for each in plain.stations} == {"1.6"}
    assert mixed.vehicles == plain.vehicles


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
async def test_the_example_can_be_played_in_each_version(version: str):
    """Every vehicle charges, the cut is bridged, and every transaction is told."""
    lines: list[str] = []
    async with a_central() if version == "1.6" else a_central2(version) as central:
        options = SimulateOptions(
            url=central.url, scenario=EVENING, version=version, speed=1800
        )
        result = await simulate(options, lines.append)

    assert result.exit_code == 0
    assert [each.met_target for each in result.visits] == [True] * 3
    assert any("CUT" in line for line in lines)
    if version == "1.6":
        ends = len(central.of("StopTransaction"))
    else:
        events = central.of("TransactionEvent")
        ends = [each["eventType"] for each in events].count("Ended")
    assert ends == 3


async def test_a_restart_in_a_scenario_makes_new_transactions(tmp_path: Path):
    """On the same plugs, with the same vehicles, after a second boot."""
    path = tmp_path / "restart.toml"
    path.write_text(TEXT + "\n[[restarts]]\nstation = 'CP-01'\nat = 20", encoding="utf-8")
    async with a_central2() as central:
        options = SimulateOptions(
            url=central.url, scenario=path, version="2.0.1", speed=1800
        )
        result = await simulate(options)

    kinds = [each["eventType"] for each in central.events]
    assert result.exit_code == 0
    assert len(central.of("BootNotification")) == 3
    assert (kinds.count("Started"), kinds.count("Ended")) == (5, 5)
