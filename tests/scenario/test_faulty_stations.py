"""A depot full of stations and networks that misbehave, and one that does not.

Every fault that `simulate` knows is among them, each at one station, in turns of the
versions that have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.simulator.catalogue import (
    FRAMES,
    LINKS,
    SETTINGS,
    TIMES,
    TRANSPORT,
    V2,
    V16,
    Fault,
)
from agent.simulator.catalogue_power import (
    LIMITS,
    METERS,
    PROFILES,
    STATUSES,
    TRANSACTIONS,
    VEHICLES,
)
from agent.standin.fixtures import LOCATION_UID
from tests.support.yard import yard

SPEED = 60.0
"""Half the usual: a hundred stations talk at once."""
HALVES = {
    "network, links and messages": (*TRANSPORT, *LINKS, *SETTINGS, *TIMES, *FRAMES),
    "power, sessions and meters": (
        *(*PROFILES, *LIMITS, *TRANSACTIONS),
        *(*METERS, *STATUSES, *VEHICLES),
    ),
}
CAP_KW = 50_000.0
"""So much that power reserved for those that obey nothing leaves enough for all."""
PLAN_W = 40_000.0
EARLY = ("black-hole@30+30", "reset@60+1", "half-open@60+1", "cut-after:6000")
"""Instead of the times that the network's faults have by themselves, to see them soon."""


def in_turn(fault: Fault, at: int) -> str:
    turns = {V16: ("1.6",), V2: ("2.0.1", "2.1")}.get(
        fault.versions, ("1.6", "2.0.1", "2.1")
    )
    return turns[at % len(turns)]


def as_asked(name: str) -> str:
    return next((each for each in EARLY if each.startswith(name)), name)


def _connected(log: list[Any]) -> set[str]:
    return {
        str(each.get("station_id")) for each in log if each["event"] == "station_connected"
    }


@pytest.mark.parametrize("half", HALVES)
async def test_no_station_harms_the_daemon_or_its_neighbour(tmp_path: Path, half: str):
    """No link fails by a fault of ours; the sound station draws what was planned for it."""
    faults = HALVES[half]
    ids = [f"F-{at:03}" for at in range(len(faults))]
    content: dict[str, Any] = {
        "site": {"location_uid": LOCATION_UID, "cap_kw": CAP_KW},
        "policy": {"unmatched_kw": 30.0},
    }
    rows = [{"id": each, "max_kw": 150.0, "fallback_kw": 10.0} for each in (*ids, "SOUND")]
    with capture_logs() as log:
        async with yard(tmp_path, stations=rows, speed=SPEED, **content) as place:
            sound = place.station("SOUND", model="Sound")  # what is learnt is of a model
            for at, fault in enumerate(faults):
                place.station(
                    ids[at],
                    ocpp_version=in_turn(fault, at),
                    faults=frozenset({as_asked(fault.name)}),
                    call_timeout_real_s=1.0,
                    slow_answer_real_s=0.2,
                )
            await place.until(lambda: sound.is_online)
            await place.passes(0.01)
            for at, station in enumerate(ids):
                bus = place.add_bus(at, [], known=False)
                await place.stations[station].plug(1, bus)
            await sound.plug(1, place.add_bus(255, [(-1, 8, PLAN_W / 1000)]))
            await place.until(lambda: sound.outlets[1].power_w == pytest.approx(PLAN_W))
            await place.passes(0.02)
            assert sound.outlets[1].power_w == pytest.approx(PLAN_W)
            let_in = {"SOUND", *ids}
            await place.until(lambda: let_in <= _connected(log))
            for station in (*ids, "SOUND"):
                await place.stations[station].unplug(1)
            await place.until(lambda: sound.owed == 0)
            await place.passes(0.01)

    connected = _connected(log)
    events = {each["event"] for each in log}
    assert "link_failed" not in events
    assert {each["event"] for each in log if each["log_level"] == "critical"} == set()
    assert {"SOUND", *ids} <= connected
    sound_links = [
        each
        for each in log
        if each["event"] == "station_disconnected" and each.get("station_id") == "SOUND"
    ]
    assert len(sound_links) <= 1
