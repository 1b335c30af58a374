"""From the configuration to the tree of limits, with the phases of AC sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent import wiring
from agent.control import feeders
from agent.control.depot import Depot
from agent.domain.allocator import Node
from agent.domain.capability import Capabilities, RateUnit
from agent.domain.ids import EvseId, StationId
from agent.domain.site import SiteLoad
from agent.settings import Settings

AC = {"current": "ac", "max_kw": 22.08, "fallback_kw": 4.2}
ONE_PHASE = {"current": "ac", "phases": 1, "max_kw": 7.36, "fallback_kw": 1.4}
ROWS: list[dict[str, Any]] = [
    {"id": "DC", "max_kw": 150.0, "fallback_kw": 4.0},
    {"id": "AC", **AC},
    {"id": "L2", **ONE_PHASE, "phase": "L2"},
    {"id": "ANY", **ONE_PHASE},
]


def configured(**content: Any) -> Settings:
    site = {"cap_kw": 400.0, "efficiency": 0.94} | content.pop("site", {})
    store = {"path": Path("unused.db")}
    return Settings(**({"site": site, "stations": ROWS, "store": store} | content))


def a_depot(settings: Settings) -> Depot:
    depot = Depot(policy=wiring.policy(settings), traits=wiring.traits(settings))
    depot.circuits = wiring.circuits(settings)
    return depot


def tree(depot: Depot) -> dict[str, Node]:
    return {node.name: node for node in feeders.nodes(depot)}


def share(node: Node, station: str) -> float:
    return round(node.weights.get((StationId(station), EvseId(1)), 0.0), 3)


CIRCUIT = {"id": "A", "cap_a": 63.0, "stations": ["DC", "AC", "L2", "ANY"]}


def test_a_circuit_has_a_fuse_in_each_phase() -> None:
    found = tree(a_depot(configured(circuits=[CIRCUIT])))
    first, second = found["A, phase L1"], found["A, phase L2"]

    assert "A" not in found
    assert first.cap_w == 63 * 230
    names = ("DC", "AC", "L2", "ANY")
    assert [share(first, name) for name in names] == [0.333, 0.333, 0.0, 1.0]
    assert [share(second, name) for name in names] == [0.333, 0.333, 1.0, 1.0]


def test_both_caps_of_a_circuit_hold_side_by_side() -> None:
    found = tree(a_depot(configured(circuits=[CIRCUIT | {"cap_kw": 40.0}])))

    assert found["A"].cap_w == 40_000
    assert "A, phase L3" in found


def test_the_sites_other_load_may_all_be_on_one_phase() -> None:
    depot = a_depot(configured(site={"cap_a": 630.0}))
    before = tree(depot)["site, phase L1"].cap_w
    depot.site_load = SiteLoad(unmanaged_w=23_000.0, is_measured=True, since_s=0, words="")
    after = tree(depot)["site, phase L1"].cap_w

    assert before == 630 * 230
    assert after == 530 * 230


def test_an_ac_station_that_takes_watts_only_counts_whole_on_each_phase() -> None:
    depot = a_depot(configured(circuits=[CIRCUIT]))
    depot.capabilities[StationId("AC")] = Capabilities(
        units=frozenset({RateUnit.WATT}), is_known=True
    )
    node = tree(depot)["A, phase L1"]

    assert share(node, "AC") == 1.0
    assert node.most_w[StationId("AC"), EvseId(1)] == pytest.approx(7360.0)


def test_plans_made_here_see_the_limits_without_phases() -> None:
    depot = a_depot(configured(circuits=[CIRCUIT | {"cap_kw": 40.0}]))
    found = feeders.whole(feeders.nodes(depot))

    assert {node.name for node in found} == {"site", "A", "DC", "AC", "L2", "ANY"}


def fallbacks(settings: Settings) -> dict[str, float]:
    return {str(k): round(v.fallback_w) for k, v in wiring.traits(settings).items()}


def test_defaults_that_together_pass_a_fuse_are_lowered() -> None:
    """1.4 kW here and 1.4 kW there, a third of 4.2 and of 4.3: 24.3 A on L2."""
    wide = fallbacks(configured(circuits=[CIRCUIT]))
    tight = fallbacks(configured(circuits=[CIRCUIT | {"cap_a": 12.0}]))

    assert wide == {"DC": 4000, "AC": 4200, "L2": 1400, "ANY": 1400}
    on_second = (tight["DC"] / 0.94 + tight["AC"]) / 3 + tight["L2"] + tight["ANY"]
    assert on_second <= 12 * 230 + 3
    assert tight["AC"] < 4200


def test_defaults_that_together_pass_a_circuits_cap_are_lowered() -> None:
    small = {"id": "A", "cap_kw": 3.0, "stations": ["L2", "ANY"]}
    fits = fallbacks(configured(circuits=[small]))
    tight = fallbacks(configured(circuits=[small | {"cap_kw": 1.4}]))

    assert (fits["L2"], fits["ANY"]) == (1400, 1400)
    assert (tight["L2"], tight["ANY"], tight["AC"]) == (700, 700, 4200)


@pytest.mark.parametrize(
    "content",
    [
        {"circuits": [{"id": "A", "stations": ["AC"]}]},
        {"stations": [{"id": "AC", **AC, "phase": "L1"}]},
        {"stations": [{"id": "DC", "phase": "L1"}]},
        {"stations": [{"id": "L4", **ONE_PHASE, "phase": "L4"}]},
        {"circuits": [CIRCUIT | {"cap_a": 0}]},
    ],
)
def test_what_makes_no_sense_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configured(**content)


def test_a_ladder_that_turned_to_watts_counts_as_watts() -> None:
    depot = a_depot(configured(circuits=[CIRCUIT]))
    amps = share(tree(depot)["A, phase L1"], "AC")
    quirk = replace(depot.traits[StationId("AC")], quirks=frozenset({"watts-only"}))
    depot.traits[StationId("AC")] = quirk

    assert amps == 0.333
    assert share(tree(depot)["A, phase L1"], "AC") == 1.0
