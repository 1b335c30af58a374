"""Division of the depot's power among outlets: never above any cap, at any instant.

Max-min fair ("water-filling", ocpp-depot.md D3): the lowest shares rise together, each
stops at what its plan asks for, and what is left is shared by the rest. Every node of the
tree (station, circuit, site) holds for the whole horizon, not only now, because the
curves that are installed go on when the gateway is gone (B10.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.domain.curve import EVER_S, Curve, curve, edges, floor_tenth, value_at
from agent.domain.ids import Outlet, StationId

EPSILON_W = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an outlet wants, W at the outlet; ``grid_factor`` is W in per W out.

    ``reserve_w`` is what it may draw whatever share it gets: the default of the next
    vehicle. ``need_w`` is the mean power that it needs until it leaves, ``laxity_s`` how
    long it could wait and still get it at full power; ``rank`` orders classes, 0 first.
    """

    wants: Curve
    floor_w: float
    grid_factor: float = 1.0
    reserve_w: float = 0.0
    need_w: float = 0.0
    laxity_s: float = EVER_S
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What an outlet may draw whatever we decide, W at the outlet."""

    holds: Curve
    grid_factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A feeder: the grid-side power of its members together stays under ``cap_w``.

    A physical one (a station's own power electronics) cannot pass its cap at all. Of one
    phase of a feeder (``domain/phases``) ``weights`` are the shares of members' power on
    it and ``most_w`` what members can put on it at most; else each counts whole.
    """

    name: str
    cap_w: float
    members: frozenset[Outlet]
    is_physical: bool = False
    weights: Mapping[Outlet, float] = field(default_factory=dict)
    most_w: Mapping[Outlet, float] = field(default_factory=dict)

    def weight(self, outlet: Outlet) -> float:
        """The share of a member's power that counts here."""
        return self.weights.get(outlet, 1.0)


def allocate(
    demands: Mapping[Outlet, Demand],
    reserves: Mapping[Outlet, Reserve],
    nodes: Sequence[Node],
    *,
    from_s: int,
) -> dict[Outlet, Curve]:
    """Give every demand a curve; the sum stays under every cap from ``from_s`` on.

    Where even the floors do not fit, those that could wait longest get nothing: half of
    a minimum wakes nobody, and the cap comes first. Then what each needs until it
    leaves is served, least laxity first, and the rest is shared evenly (D3).
    """
    lines = [item.wants for item in demands.values()]
    lines += [item.holds for item in reserves.values()]
    shares: dict[Outlet, list[tuple[int, float]]] = {outlet: [] for outlet in demands}
    for at_s in edges(lines, from_s):
        for outlet, share_w in _divide(demands, reserves, nodes, at_s).items():
            shares[outlet].append((at_s, share_w))
    return {outlet: curve(steps) for outlet, steps in shares.items()}


def fits(draws: Mapping[Outlet, Reserve], nodes: Sequence[Node], *, from_s: int) -> bool:
    """Whether a set of possible draws stays under every cap from ``from_s`` on."""
    return worst_excess_w(draws, nodes, from_s=from_s) <= 1.0


def worst_excess_w(
    draws: Mapping[Outlet, Reserve], nodes: Sequence[Node], *, from_s: int
) -> float:
    """By how much the draws pass the tightest cap at the worst instant, W (or below)."""
    worst = float("-inf")
    times = edges([item.holds for item in draws.values()], from_s)
    ratings = _ratings(nodes)
    for at_s in times:
        powers = _powers_at(draws, at_s)
        for node in nodes:
            worst = max(worst, _possible_w(powers, node, ratings) - node.cap_w)
    return worst


def _powers_at(draws: Mapping[Outlet, Reserve], at_s: int) -> dict[Outlet, float]:
    """What may be drawn at an instant, grid side."""
    return {
        outlet: value_at(item.holds, at_s) * item.grid_factor
        for outlet, item in draws.items()
    }


def _ratings(nodes: Sequence[Node]) -> dict[StationId, float]:
    """What each station can draw at most, grid side: its physical node's cap."""
    return {
        station_id: node.cap_w
        for node in nodes
        if node.is_physical
        for station_id in {outlet[0] for outlet in node.members}
    }


def _possible_w(
    powers: Mapping[Outlet, float], node: Node, ratings: Mapping[StationId, float]
) -> float:
    """The sum of a node's members; no station counts for more than it can draw."""
    if node.is_physical:
        return _sum(powers, node)
    if node.weights:
        return _on_phase_w(powers, node, ratings)
    sums: dict[StationId, float] = {}
    for outlet, power_w in powers.items():
        if outlet in node.members:
            sums[outlet[0]] = sums.get(outlet[0], 0.0) + power_w
    return sum(min(sum_w, ratings.get(name, sum_w)) for name, sum_w in sums.items())


def _on_phase_w(
    powers: Mapping[Outlet, float], node: Node, ratings: Mapping[StationId, float]
) -> float:
    """The sum on one phase: no outlet and no station counts for more than it can take."""
    sums: dict[StationId, float] = {}
    most: dict[StationId, float] = {}
    for outlet in node.members & powers.keys():
        name, weight = outlet[0], node.weight(outlet)
        power_w = min(powers[outlet] * weight, node.most_w.get(outlet, float("inf")))
        sums[name] = sums.get(name, 0.0) + power_w
        rated_w = ratings.get(name, float("inf"))
        most[name] = max(most.get(name, 0.0), rated_w * weight)
    return sum(min(sum_w, most[name]) for name, sum_w in sums.items())


def _divide(
    demands: Mapping[Outlet, Demand],
    reserves: Mapping[Outlet, Reserve],
    nodes: Sequence[Node],
    at_s: int,
) -> dict[Outlet, float]:
    ratings = _ratings(nodes)
    taken = _powers_at(reserves, at_s)
    free = [max(node.cap_w - _possible_w(taken, node, ratings), 0.0) for node in nodes]
    wants = {
        outlet: value_at(item.wants, at_s) * item.grid_factor
        for outlet, item in demands.items()
    }
    held = {o: item.reserve_w * item.grid_factor for o, item in demands.items()}
    most = {outlet: max(wants[outlet], held[outlet]) for outlet in demands}
    if _all_fit(most, nodes, free):
        return {outlet: value_at(item.wants, at_s) for outlet, item in demands.items()}
    given = _shrink(held, nodes, free)
    urgent = sorted(demands, key=lambda o: (demands[o].rank, demands[o].laxity_s, o))
    for outlet in urgent:
        item = demands[outlet]
        floor_w = min(item.floor_w * item.grid_factor, wants[outlet])
        _lift(given, outlet, floor_w, nodes, free, is_whole=True)
    for outlet in urgent:
        item = demands[outlet]
        need_w = min(item.need_w * item.grid_factor, wants[outlet])
        _lift(given, outlet, need_w, nodes, free)
    for rank in sorted({item.rank for item in demands.values()}):
        _fill(
            given, {o: w for o, w in most.items() if demands[o].rank == rank}, nodes, free
        )
    return {
        outlet: min(
            value_at(item.wants, at_s), floor_tenth(given[outlet] / item.grid_factor)
        )
        for outlet, item in demands.items()
    }


def _lift(
    given: dict[Outlet, float],
    outlet: Outlet,
    level_w: float,
    nodes: Sequence[Node],
    free: Sequence[float],
    *,
    is_whole: bool = False,
) -> None:
    """Raise one share to a level as far as its feeders have room, or not at all."""
    step_w = level_w - given[outlet]
    for node, free_w in zip(nodes, free, strict=True):
        if outlet in node.members:
            room_w = (free_w - _sum(given, node)) / node.weight(outlet)
            if is_whole and step_w > room_w + EPSILON_W:
                return
            step_w = min(step_w, room_w)
    if step_w > 0:
        given[outlet] += step_w


def _all_fit(
    powers: Mapping[Outlet, float], nodes: Sequence[Node], free: Sequence[float]
) -> bool:
    return all(
        _sum(powers, node) <= free_w + EPSILON_W
        for node, free_w in zip(nodes, free, strict=True)
    )


def _sum(powers: Mapping[Outlet, float], node: Node) -> float:
    sum_w = 0.0  # plain loops: most of what planning costs is here
    if node.weights:
        shares = node.weights
        for outlet, power_w in powers.items():
            if outlet in shares:
                sum_w += power_w * shares[outlet]
        return sum_w
    members = node.members
    for outlet, power_w in powers.items():
        if outlet in members:
            sum_w += power_w
    return sum_w


def _shrink(
    floors: Mapping[Outlet, float], nodes: Sequence[Node], free: Sequence[float]
) -> dict[Outlet, float]:
    given = dict(floors)
    for node, free_w in zip(nodes, free, strict=True):
        sum_w = _sum(given, node)
        if sum_w > free_w + EPSILON_W:
            factor = free_w / sum_w
            for outlet in given:
                if outlet in node.members:
                    given[outlet] *= factor
    return given


def _fill(
    given: dict[Outlet, float],
    wants: Mapping[Outlet, float],
    nodes: Sequence[Node],
    free: Sequence[float],
) -> None:
    """Raise the lowest shares together until each meets its want or a full feeder."""
    rising = {outlet for outlet in wants if wants[outlet] - given[outlet] > EPSILON_W}
    while rising:
        level_w = min(given[outlet] for outlet in rising)
        lowest = {outlet for outlet in rising if given[outlet] <= level_w + EPSILON_W}
        step = min(wants[outlet] - given[outlet] for outlet in lowest)
        step = min([step, *(given[outlet] - level_w for outlet in rising - lowest)])
        for node, free_w in zip(nodes, free, strict=True):
            count = sum(node.weight(outlet) for outlet in lowest if outlet in node.members)
            if count > 0:
                step = min(step, (free_w - _sum(given, node)) / count)
        step = max(step, 0.0)
        for outlet in lowest:
            given[outlet] += step
        full = [
            node
            for node, free_w in zip(nodes, free, strict=True)
            if free_w - _sum(given, node) <= EPSILON_W
        ]
        rising = {
            outlet
            for outlet in rising
            if wants[outlet] - given[outlet] > EPSILON_W
            and not any(outlet in node.members for node in full)
        }
