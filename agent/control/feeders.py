"""The tree of limits: site, circuits and their phases, stations; grid side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.control.depot import Depot
from agent.control.ladders import base_form, facts_of, learned_of
from agent.domain import ladder
from agent.domain.allocator import Node
from agent.domain.capability import RateUnit
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.phases import Wiring, phase_nodes


def nodes(depot: Depot) -> list[Node]:
    """Every limit that the sum of some outlets must keep."""
    outlets = list(depot.all_outlets())
    found = [Node(name="site", cap_w=depot.room_w(), members=frozenset(outlets))]
    if depot.policy.cap_a is not None:
        room_a = max(depot.policy.cap_a - _unmanaged_a(depot), 0.0)
        found += _phases(depot, "site", room_a, outlets, depot.policy.voltage_v)
    for circuit in depot.circuits:
        members = [item for item in outlets if item[0] in circuit.stations]
        if circuit.cap_w is not None:
            found.append(
                Node(name=circuit.name, cap_w=circuit.cap_w, members=frozenset(members))
            )
        if circuit.cap_a is not None:
            found += _phases(depot, circuit.name, circuit.cap_a, members, circuit.voltage_v)
    for station_id in {item[0] for item in outlets}:
        found += _of_station(depot, station_id, outlets)
    return found


def whole(tree: Sequence[Node]) -> list[Node]:
    """The limits without phases, for plans made here; the division keeps all of them."""
    return [node for node in tree if not node.weights]


def _of_station(
    depot: Depot, station_id: StationId, outlets: Sequence[Outlet]
) -> list[Node]:
    factor = depot.grid_factor(station_id)
    rated_w = depot.traits_of(station_id).rated_w
    members = frozenset(item for item in outlets if item[0] == station_id)
    own = Node(name=station_id, cap_w=rated_w * factor, members=members, is_physical=True)
    external_w = depot.state(station_id).external_w.get(EvseId(0))
    if external_w is None or external_w >= rated_w:
        return [own]
    name = f"{station_id}, limited by another master"
    return [own, Node(name=name, cap_w=external_w * factor, members=members)]


def _phases(
    depot: Depot, name: str, cap_a: float, members: Iterable[Outlet], voltage_v: float
) -> list[Node]:
    known = {station_id: _wiring(depot, station_id) for station_id, _ in members}
    wirings = {outlet: known[outlet[0]] for outlet in members}
    return phase_nodes(name, cap_a, wirings, voltage_v=voltage_v)


def _wiring(depot: Depot, station_id: StationId) -> Wiring:
    traits = depot.traits_of(station_id)
    form = ladder.way_of(
        base_form(depot, station_id),
        learned_of(depot, station_id),
        facts_of(depot, station_id),
    ).form
    return Wiring(
        rated_w=traits.rated_w * depot.grid_factor(station_id),
        is_dc=traits.is_dc,
        phases=traits.phases,
        phase=traits.phase,
        # Behind the fence, too, nothing holds each phase.
        is_in_watts=form is None or form.unit is RateUnit.WATT,
    )


def _unmanaged_a(depot: Depot) -> float:
    """Load beside charging: its meter knows no phases, so that all may be on one."""
    load = depot.site_load
    return load.unmanaged_w / depot.policy.voltage_v if load is not None else 0.0
