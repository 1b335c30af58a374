"""What outlets put on each phase of a feeder, as nodes of the tree of limits.

A fuse sits in one phase. A three-phase load puts a third of its power on each; a
single-phase outlet all of it on one, and on any of the three where nobody said on which
(ocpp-depot.md D3: single-phase cars are the usual surprise). Limits in A hold per phase
whatever the vehicle takes; a limit in W may all be taken on one phase, up to what the
outlet's conductors carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.domain.allocator import Node
from agent.domain.capability import NOMINAL_VOLTAGE_V
from agent.domain.ids import Outlet

PHASES = (1, 2, 3)
SHARE = 1 / len(PHASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How an outlet hangs on the feeder; ``rated_w`` grid side.

    ``phase`` is the one of a single-phase outlet, 0 where it is not known.
    ``is_in_watts``: the limit of an AC outlet is, or may be, one of total power.
    """

    rated_w: float
    is_dc: bool = True
    phases: int = 3
    phase: int = 0
    is_in_watts: bool = False


def phase_nodes(
    name: str,
    cap_a: float,
    wirings: Mapping[Outlet, Wiring],
    *,
    voltage_v: float = NOMINAL_VOLTAGE_V,
) -> list[Node]:
    """Make a feeder's three phases; ``cap_a`` is the fuse in each.

    Their ``cap_w`` is the power of one phase at the nominal voltage, at which limits in
    A are reckoned; ``voltage_v`` is the feeder's own, at which DC stations take current.
    """
    found = []
    for phase in PHASES:
        weights: dict[Outlet, float] = {}
        most_w: dict[Outlet, float] = {}
        for outlet, wiring in wirings.items():
            weight = _weight(wiring, phase, voltage_v)
            if weight <= 0:
                continue
            weights[outlet] = weight
            if not wiring.is_dc and wiring.phases > 1:
                most_w[outlet] = wiring.rated_w * SHARE
        found.append(
            Node(
                name=f"{name}, phase L{phase}",
                cap_w=cap_a * NOMINAL_VOLTAGE_V,
                members=frozenset(weights),
                weights=weights,
                most_w=most_w,
            )
        )
    return found


def _weight(wiring: Wiring, phase: int, voltage_v: float) -> float:
    """W on a phase, at nominal voltage, for each W of the outlet."""
    if wiring.is_dc:
        return NOMINAL_VOLTAGE_V / voltage_v * SHARE
    if wiring.phases == 1:
        return 1.0 if wiring.phase in (0, phase) else 0.0
    return 1.0 if wiring.is_in_watts else SHARE
