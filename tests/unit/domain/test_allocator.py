"""Division of power: under every cap at every instant, fair, and nothing left unused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.allocator import Demand, Node, Reserve, allocate, fits, worst_excess_w
from agent.domain.curve import Curve, constant, curve, value_at
from agent.domain.ids import EvseId, Outlet, StationId
from tests.support.properties import examples
from tests.unit.domain.build import NOW_S, moments

quick = examples(150)
OUTLETS: list[Outlet] = [(StationId(f"CP-{n // 2}"), EvseId(n % 2 + 1)) for n in range(6)]
SLACK_W = 2.0
"""Rounding to tenths at each outlet, times six, times a grid factor."""

powers = st.integers(0, 1500).map(lambda tenths: tenths * 100.0)
lines = st.lists(
    st.tuples(st.integers(NOW_S, NOW_S + 5000), powers), min_size=1, max_size=4
).map(curve)


factors = st.sampled_from([1.0, 1.08])


@st.composite
def depots(draw):
    """Draw demands, reserves, and a tree of feeders: stations, circuits, site."""
    count = draw(st.integers(1, 6))
    demands: dict[Outlet, Demand] = {}
    reserves: dict[Outlet, Reserve] = {}
    for outlet in OUTLETS[:count]:
        if draw(st.integers(0, 4)) == 0:
            holds = curve([(NOW_S, draw(powers) / 10)])
            reserves[outlet] = Reserve(holds=holds, grid_factor=draw(factors))
        else:
            floor_w = draw(st.sampled_from([0.0, 1000.0, 4140.0]))
            demands[outlet] = Demand(
                wants=draw(lines), floor_w=floor_w, grid_factor=draw(factors)
            )
    nodes = [Node(name="site", cap_w=draw(powers) * 3, members=frozenset(OUTLETS))]
    for n in range(3):
        if draw(st.booleans()):
            members = frozenset(o for o in OUTLETS if o[0] == f"CP-{n}")
            nodes.append(Node(name=f"CP-{n}", cap_w=draw(powers), members=members))
    if draw(st.booleans()):
        members = frozenset(OUTLETS[:4])
        nodes.append(Node(name="circuit", cap_w=draw(powers) * 2, members=members))
    return demands, reserves, nodes


def _load_w(shares, demands, reserves, node: Node, at_s: float):
    given_w = sum(
        value_at(shares[o], at_s) * demands[o].grid_factor
        for o in node.members & set(shares)
    )
    return given_w + _reserved_w(reserves, node, at_s)


def _reserved_w(reserves, node: Node, at_s: float):
    return sum(
        value_at(reserves[o].holds, at_s) * reserves[o].grid_factor
        for o in node.members & set(reserves)
    )


def _instants(demands, reserves) -> list[float]:
    wants: list[Curve] = [item.wants for item in demands.values()]
    return moments(*wants, *(item.holds for item in reserves.values()))


def _grid(shares: dict[Outlet, Curve], demands, outlet: Outlet, at_s: float):
    return value_at(shares[outlet], at_s) * demands[outlet].grid_factor


@quick
@given(depots())
def test_no_feeder_is_above_its_cap_at_any_instant(depot):
    """Where reserves alone pass a cap, nothing is added to them."""
    demands, reserves, nodes = depot
    shares = allocate(demands, reserves, nodes, from_s=NOW_S)

    assert set(shares) == set(demands)
    for at_s in _instants(demands, reserves):
        for node in nodes:
            ceiling_w = max(node.cap_w, _reserved_w(reserves, node, at_s))
            assert _load_w(shares, demands, reserves, node, at_s) <= ceiling_w + 0.001


@quick
@given(depots())
def test_nobody_gets_more_than_he_wants_or_less_than_nothing(depot):
    demands, reserves, nodes = depot
    shares = allocate(demands, reserves, nodes, from_s=NOW_S)

    for at_s in _instants(demands, reserves):
        for outlet, share in shares.items():
            assert 0 <= value_at(share, at_s) <= value_at(demands[outlet].wants, at_s)


@quick
@given(depots())
def test_floors_are_kept_wherever_they_fit(depot):
    demands, reserves, nodes = depot
    shares = allocate(demands, reserves, nodes, from_s=NOW_S)

    for at_s in _instants(demands, reserves):
        floors = {o: min(d.floor_w, value_at(d.wants, at_s)) for o, d in demands.items()}
        constants = {o: constant(w) for o, w in floors.items()}
        if all(
            _load_w(constants, demands, reserves, node, at_s) <= node.cap_w
            for node in nodes
        ):
            for outlet, floor_w in floors.items():
                assert value_at(shares[outlet], at_s) >= floor_w - 0.1


@quick
@given(depots())
def test_nobody_is_below_his_want_while_another_with_more_could_give(depot):
    """Max-min fair: who has more is on no full feeder of mine, or has but his floor."""
    demands, reserves, nodes = depot
    shares = allocate(demands, reserves, nodes, from_s=NOW_S)

    for at_s in _instants(demands, reserves):
        full = [
            node
            for node in nodes
            if _load_w(shares, demands, reserves, node, at_s) >= node.cap_w - SLACK_W
        ]
        for poor, demand in demands.items():
            mine_w = _grid(shares, demands, poor, at_s)
            if value_at(shares[poor], at_s) >= value_at(demand.wants, at_s) - SLACK_W:
                continue
            held_back_by = [node for node in full if poor in node.members]
            assert held_back_by, "a want is open, and no feeder is full"
            assert any(
                all(
                    _grid(shares, demands, rich, at_s)
                    <= max(mine_w, demands[rich].floor_w * demands[rich].grid_factor)
                    + SLACK_W
                    for rich in demands
                    if rich in node.members
                )
                for node in held_back_by
            )


def test_a_high_floor_is_filled_up_last():
    """One share starts at its floor; the others catch up before it rises."""
    one, other = OUTLETS[:2]
    demands = {
        one: Demand(wants=constant(50_000.0), floor_w=10_000.0),
        other: Demand(wants=constant(50_000.0), floor_w=0.0),
    }
    nodes = [Node(name="site", cap_w=30_000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in (one, other)] == [15_000.0, 15_000.0]


def test_what_one_does_not_want_goes_to_the_others():
    demands = {
        outlet: Demand(wants=constant(want_w), floor_w=0.0)
        for outlet, want_w in zip(OUTLETS, [5000.0, 90_000.0, 90_000.0], strict=False)
    }
    nodes = [Node(name="site", cap_w=65_000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in OUTLETS[:3]] == [5000.0, 30_000.0, 30_000.0]


def test_floors_that_do_not_fit_are_given_whole_to_those_that_cannot_wait():
    """Half of a minimum wakes nobody: who could wait longest gets what is left."""
    demands = {
        outlet: Demand(wants=constant(3000.0), floor_w=3000.0, laxity_s=laxity_s)
        for outlet, laxity_s in zip(OUTLETS, [9000.0, 60.0, 600.0], strict=False)
    }
    nodes = [Node(name="site", cap_w=7000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in OUTLETS[:3]] == [1000.0, 3000.0, 3000.0]


def test_a_higher_class_is_served_before_a_lower_one():
    demands = {
        outlet: Demand(wants=constant(50_000.0), floor_w=1000.0, rank=rank)
        for outlet, rank in zip(OUTLETS, [1, 0], strict=False)
    }
    nodes = [Node(name="site", cap_w=60_000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in OUTLETS[:2]] == [10_000.0, 50_000.0]


def test_what_is_needed_until_departure_comes_before_an_even_share():
    demands = {
        OUTLETS[0]: Demand(wants=constant(90_000.0), floor_w=0.0, need_w=70_000.0),
        OUTLETS[1]: Demand(wants=constant(90_000.0), floor_w=0.0, need_w=10_000.0),
    }
    nodes = [Node(name="site", cap_w=100_000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in OUTLETS[:2]] == [70_000.0, 30_000.0]


def test_a_default_that_may_be_drawn_anyway_is_kept_free():
    one, other = OUTLETS[:2]
    demands = {
        one: Demand(wants=constant(0.0), floor_w=0.0, reserve_w=5000.0),
        other: Demand(wants=constant(50_000.0), floor_w=0.0, reserve_w=5000.0),
    }
    nodes = [Node(name="site", cap_w=50_000.0, members=frozenset(demands))]

    shares = allocate(demands, {}, nodes, from_s=NOW_S)

    assert [shares[o][0][1] for o in (one, other)] == [0.0, 45_000.0]


def test_what_a_reserve_may_draw_is_nobodys():
    one, other = OUTLETS[:2]
    demands = {one: Demand(wants=constant(50_000.0), floor_w=0.0)}
    reserves = {other: Reserve(holds=curve([(NOW_S, 20_000.0), (NOW_S + 60, 45_000.0)]))}
    nodes = [Node(name="site", cap_w=50_000.0, members=frozenset(OUTLETS))]

    (share,) = allocate(demands, reserves, nodes, from_s=NOW_S).values()

    assert share == ((NOW_S, 30_000.0), (NOW_S + 60, 5000.0))


def test_caps_count_what_the_grid_gives_not_what_the_vehicle_gets():
    demands = {OUTLETS[0]: Demand(wants=constant(90_000.0), floor_w=0.0, grid_factor=1.25)}
    nodes = [Node(name="site", cap_w=50_000.0, members=frozenset(OUTLETS))]

    (share,) = allocate(demands, {}, nodes, from_s=NOW_S).values()

    assert share == ((NOW_S, 40_000.0),)


@quick
@given(depots())
def test_wants_that_fit_are_given_whole(depot):
    demands, reserves, nodes = depot
    wide = [Node(name=n.name, cap_w=10.0**9, members=n.members) for n in nodes]
    shares = allocate(demands, reserves, wide, from_s=NOW_S)

    for at_s in _instants(demands, reserves):
        for outlet, share in shares.items():
            assert value_at(share, at_s) == value_at(demands[outlet].wants, at_s)


@quick
@given(depots())
def test_the_excess_is_that_of_the_worst_feeder_at_the_worst_instant(depot):
    _, reserves, nodes = depot
    instants = _instants({}, reserves)
    expected = max(
        _reserved_w(reserves, node, at_s) - node.cap_w
        for node in nodes
        for at_s in instants
    )

    assert worst_excess_w(reserves, nodes, from_s=NOW_S) == pytest.approx(expected)
    assert fits(reserves, nodes, from_s=NOW_S) is (expected <= 1.0)
