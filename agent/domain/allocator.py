"""Division of the depot's power among outlets: never above any cap, at any instant.

Max-min fair ("water-filling", ocpp-depot.md D3): the lowest shares rise together, each
stops at what its plan asks for, and what is left is shared by the rest. Every node of the
tree (station, circuit, site) holds for the whole horizon, not only now, because the
curves that are installed go on when the gateway is gone (B10.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.domain.curve import Curve, curve, edges, floor_tenth, value_at
from agent.domain.ids import Outlet

EPSILON_W = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an outlet wants, W at the outlet; ``grid_factor`` is W in per W out."""

    wants: Curve
    floor_w: float
    grid_factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What an outlet may draw whatever we decide, W at the outlet."""

    holds: Curve
    grid_factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A feeder: the grid-side power of its members together stays under ``cap_w``."""

    name: str
    cap_w: float
    members: frozenset[Outlet]


def allocate(
    demands: Mapping[Outlet, Demand],
    reserves: Mapping[Outlet, Reserve],
    nodes: Sequence[Node],
    *,
    from_s: int,
) -> dict[Outlet, Curve]:
    """Give every demand a curve; the sum stays under every cap from ``from_s`` on.

    Where even the floors do not fit, they shrink in proportion: the cap comes first.
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
    for node in nodes:
        members = [item for outlet, item in draws.items() if outlet in node.members]
        for at_s in times:
            sum_w = sum(value_at(m.holds, at_s) * m.grid_factor for m in members)
            worst = max(worst, sum_w - node.cap_w)
    return worst


def _divide(
    demands: Mapping[Outlet, Demand],
    reserves: Mapping[Outlet, Reserve],
    nodes: Sequence[Node],
    at_s: int,
) -> dict[Outlet, float]:
    free = [_free_w(node, reserves, at_s) for node in nodes]
    wants = {
        outlet: value_at(item.wants, at_s) * item.grid_factor
        for outlet, item in demands.items()
    }
    if _all_fit(wants, nodes, free):
        return {outlet: value_at(item.wants, at_s) for outlet, item in demands.items()}
    floors = {
        outlet: min(item.floor_w * item.grid_factor, wants[outlet])
        for outlet, item in demands.items()
    }
    given = _shrink(floors, nodes, free)
    _fill(given, wants, nodes, free)
    return {
        outlet: min(
            value_at(item.wants, at_s), floor_tenth(given[outlet] / item.grid_factor)
        )
        for outlet, item in demands.items()
    }


def _free_w(node: Node, reserves: Mapping[Outlet, Reserve], at_s: int) -> float:
    taken = sum(
        value_at(item.holds, at_s) * item.grid_factor
        for outlet, item in reserves.items()
        if outlet in node.members
    )
    return max(node.cap_w - taken, 0.0)


def _all_fit(
    powers: Mapping[Outlet, float], nodes: Sequence[Node], free: Sequence[float]
) -> bool:
    return all(
        _sum(powers, node) <= free_w + EPSILON_W
        for node, free_w in zip(nodes, free, strict=True)
    )


def _sum(powers: Mapping[Outlet, float], node: Node) -> float:
    return sum(power for outlet, power in powers.items() if outlet in node.members)


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
    rising = {outlet for outlet in given if wants[outlet] - given[outlet] > EPSILON_W}
    while rising:
        level_w = min(given[outlet] for outlet in rising)
        lowest = {outlet for outlet in rising if given[outlet] <= level_w + EPSILON_W}
        step = min(wants[outlet] - given[outlet] for outlet in lowest)
        step = min([step, *(given[outlet] - level_w for outlet in rising - lowest)])
        for node, free_w in zip(nodes, free, strict=True):
            count = sum(1 for outlet in lowest if outlet in node.members)
            if count:
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
