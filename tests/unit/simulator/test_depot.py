"""The invented night, and living it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.simulator.command import TABLE_HEAD, SimulateOptions, simulate, table
from agent.simulator.depot import make_night, unserved_wh
from tests.support.properties import examples
from tests.unit.simulator.tiny_central import a_central

START = datetime(2026, 11, 21, 18, tzinfo=UTC)


def test_the_same_seed_gives_the_same_night():
    """Equal in every field; another seed differs."""
    assert make_night(3, START) == make_night(3, START)
    assert make_night(3, START) != make_night(4, START)


@examples(40)
@given(
    seed=st.integers(0, 10_000),
    hours=st.floats(0.5, 14),
    stations=st.integers(1, 10),
    vehicles=st.integers(1, 30),
)
def test_a_night_can_be_served_and_no_outlet_is_taken_twice(
    seed: int, hours: float, stations: int, vehicles: int
) -> None:
    """Feasible under the cap, visits apart, everyone inside the night."""
    night = make_night(seed, START, hours=hours, stations=stations, vehicles=vehicles)
    at_outlet: dict[Any, list[Any]] = defaultdict(list)
    for each in night.vehicles:
        at_outlet[each.station_id, each.connector].append(each)

        assert night.start <= each.arrival < each.departure <= night.end
        assert 0 <= each.soc_start <= each.soc_target <= 100
    for visits in at_outlet.values():
        visits.sort(key=lambda each: each.arrival)
        for one, other in itertools.pairwise(visits):
            assert one.departure < other.arrival
    assert unserved_wh(night) == {}
    assert len({each.mac for each in night.vehicles}) == vehicles


def test_the_usual_night_gives_a_planner_something_to_do():
    """Eight stations, twelve vehicles or more, some shared outlets, some sleepers."""
    night = make_night(1, START)
    places = [(each.station_id, each.connector) for each in night.vehicles]

    assert len(night.stations) == 8
    assert len(night.vehicles) >= 12
    assert len(set(places)) < len(places)
    assert any(not each.can_resume for each in night.vehicles)
    assert night.cap_w == 0.6 * sum(each.max_w for each in night.vehicles)


async def test_a_simulated_night_charges_every_vehicle_and_closes_every_transaction():
    """Two stations, three visits, half an hour in half a second."""
    lines: list[str] = []
    async with a_central() as central:
        options = SimulateOptions(
            url=central.url, stations=2, vehicles=3, speed=1800, minutes=45
        )
        result = await simulate(options, lines.append)

    assert result.exit_code == 0
    assert [each.met_target for each in result.visits] == [True] * 3
    assert len(central.of("StartTransaction")) == len(central.of("StopTransaction")) == 3
    assert any("StartTransaction" in line for line in lines)
    assert [len(row) for row in table(result)] == [len(TABLE_HEAD)] * 3
    for visit in result.visits:
        stay = timedelta(minutes=45)
        assert visit.unplugged - visit.plugged < stay
        assert visit.peak_w <= visit.vehicle.max_w


async def test_a_simulation_without_central_system_says_so():
    """Nobody listens on port 9 of loopback."""
    options = SimulateOptions(
        url="ws://127.0.0.1:9",
        stations=1,
        vehicles=1,
        speed=36_000,
        minutes=60,
        flush_timeout_real_s=0.1,
    )
    result = await simulate(options)

    assert result.exit_code == 1
    assert result.stations_never_online == ("CP-01",)
