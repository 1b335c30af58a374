"""What outlets put on each phase, and the division under a fuse per phase."""

from __future__ import annotations

from typing import Any

import pytest

from agent.domain.allocator import Demand, Reserve, allocate, worst_excess_w
from agent.domain.curve import constant, value_at
from agent.domain.ids import EvseId, StationId
from agent.domain.phases import Wiring, phase_nodes
from tests.unit.domain.build import NOW_S

DC, THREE, ON_1, ON_2, ANY = (
    (StationId(name), EvseId(1)) for name in ("DC", "THREE", "ON-1", "ON-2", "ANY")
)
SINGLE: dict[str, Any] = {"is_dc": False, "phases": 1}
WIRINGS = {
    DC: Wiring(rated_w=150_000.0),
    THREE: Wiring(rated_w=22_080.0, is_dc=False),
    ON_1: Wiring(rated_w=7360.0, phase=1, **SINGLE),
    ON_2: Wiring(rated_w=7360.0, phase=2, **SINGLE),
    ANY: Wiring(rated_w=7360.0, **SINGLE),
}


def on_phases(draws_w, wirings=None, **more):
    """The A on each phase that make the sums pass a fuse of nothing."""
    wirings = wirings or {outlet: WIRINGS[outlet] for outlet in draws_w}
    draws = {o: Reserve(holds=constant(power_w)) for o, power_w in draws_w.items()}
    return [
        round(worst_excess_w(draws, [node], from_s=NOW_S) / 230, 1)
        for node in phase_nodes("feeder", 1e-9, wirings, **more)
        if node.members
    ]


def test_each_kind_of_outlet_loads_its_phases():
    assert on_phases({DC: 69_000.0}) == [100, 100, 100]
    assert on_phases({THREE: 11_040.0}) == [16, 16, 16]
    assert on_phases({ON_1: 7360.0}) == [32]
    assert on_phases({ANY: 7360.0}) == [32, 32, 32]


def test_they_add_up_by_phase():
    draws = {THREE: 11_040.0, ON_1: 7360.0, ON_2: 3680.0}

    assert on_phases(draws) == [48, 32, 16]


def test_a_limit_in_watts_may_all_be_taken_on_one_phase():
    """Up to what one conductor of the outlet carries."""
    in_watts = {THREE: Wiring(rated_w=22_080.0, is_dc=False, is_in_watts=True)}

    assert on_phases({THREE: 3680.0}, in_watts) == [16, 16, 16]
    assert on_phases({THREE: 22_080.0}, in_watts) == [32, 32, 32]


def test_dc_takes_more_current_at_a_lower_voltage_and_ac_limits_do_not():
    assert on_phases({DC: 69_000.0}, voltage_v=200.0) == [115, 115, 115]
    assert on_phases({THREE: 11_040.0}, voltage_v=200.0) == [16, 16, 16]


def shares(wants, cap_a, wirings=WIRINGS, **more):
    demands = {o: Demand(wants=constant(w), floor_w=0.0, **more) for o, w in wants.items()}
    used = {outlet: wirings[outlet] for outlet in wants}
    nodes = phase_nodes("feeder", cap_a, used)
    found = allocate(demands, {}, nodes, from_s=NOW_S)
    held = {outlet: Reserve(holds=line) for outlet, line in found.items()}
    assert worst_excess_w(held, nodes, from_s=NOW_S) <= 1.0
    return {outlet: value_at(line, NOW_S) for outlet, line in found.items()}


def test_neighbours_on_other_phases_do_not_share_a_fuse():
    found = shares({ON_1: 7360.0, ON_2: 7360.0}, 32.0)

    assert found == {ON_1: 7360.0, ON_2: 7360.0}


def test_neighbours_on_unknown_phases_share_one_as_if_it_were_the_same():
    other = (StationId("ANY-2"), EvseId(1))
    wirings = {ANY: WIRINGS[ANY], other: WIRINGS[ANY]}
    found = shares({ANY: 7360.0, other: 7360.0}, 32.0, wirings)

    assert found == {ANY: pytest.approx(3680.0), other: pytest.approx(3680.0)}


def test_a_single_phase_neighbour_takes_only_from_its_own_phase():
    """Equal shares in W: 32 A on L1 are a third of one and the whole of the other."""
    found = shares({THREE: 22_080.0, ON_1: 7360.0}, 32.0)

    assert found[ON_1] + found[THREE] / 3 == pytest.approx(7360.0, abs=1)
    assert found[ON_1] == pytest.approx(5520.0, abs=1)
    assert found[THREE] == pytest.approx(5520.0, abs=1)


def test_floors_and_needs_keep_the_fuse_too():
    found = shares({THREE: 22_080.0, ON_1: 7360.0}, 20.0, need_w=20_000.0)

    assert found[ON_1] + found[THREE] / 3 <= 20 * 230 + 1
