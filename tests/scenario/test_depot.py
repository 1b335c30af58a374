"""Whole-agent scenarios: what stations draw, judged from outside."""

from __future__ import annotations

from pathlib import Path

from agent.domain.identity import MatchOutcome
from agent.domain.session import SessionPhase
from tests.support.yard import EFFICIENCY, Yard, yard

ONE = [{"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}]
TWO = [*ONE, {"id": "CP-02", "max_kw": 150.0, "fallback_kw": 4.0}]


def drawn_kw(place: Yard, name: str) -> float:
    return place.stations[name].outlets[1].power_w / 1000


async def test_plans_that_pass_the_cap_are_shared_and_the_cap_is_never_passed(
    tmp_path: Path,
) -> None:
    site = {"location_uid": "depot-1", "cap_kw": 150.0, "efficiency": EFFICIENCY}
    async with yard(tmp_path, stations=TWO, site=site) as place:
        first = place.add_bus(1, [(-1, 10, 120)])
        second = place.add_bus(2, [(-1, 10, 120)])
        for name in ("CP-01", "CP-02"):
            place.station(name)
        await place.installed()
        await place.stations["CP-01"].plug(1, first)
        await place.until(lambda: drawn_kw(place, "CP-01") > 100)
        alone_kw = drawn_kw(place, "CP-01")
        await place.stations["CP-02"].plug(1, second)
        await place.until(
            lambda: (
                abs(drawn_kw(place, "CP-01") - drawn_kw(place, "CP-02")) < 1
                and drawn_kw(place, "CP-02") > 60
            )
        )
        await place.passes(0.1)
        shared_kw = drawn_kw(place, "CP-01") + drawn_kw(place, "CP-02")

    assert 115 < alone_kw <= 120
    assert 138 < shared_kw <= 150 * EFFICIENCY + 0.1
    assert place.worst_grid_w <= 150_000 * 1.001


async def test_link_loss_and_reboot_keep_one_session_and_the_limit_comes_back(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path, stations=ONE) as place:
        bus = place.add_bus(1, [(-1, 10, 60)])
        station = place.station("CP-01")
        await place.until(lambda: station.is_online)
        await station.plug(1, bus)
        await place.until(lambda: drawn_kw(place, "CP-01") > 55)
        orders = place.daemon.executor.orders
        station.cut()
        await place.until(lambda: not place.daemon.server.links)
        await place.until(lambda: bool(place.daemon.server.links))
        await place.until(lambda: place.daemon.executor.orders > orders)
        await place.passes(0.1)
        after_cut_kw = drawn_kw(place, "CP-01")
        await station.unplug(1)
        await place.until(lambda: not place.daemon.depot.open_sessions())
        sessions = place.sessions()

    assert 55 < after_cut_kw <= 60.5
    assert len(sessions) == 1
    assert sessions[0].phase is SessionPhase.ENDED
    assert len(sessions[0].transactions) == 1


async def test_session_lived_offline_is_placed_by_time_with_its_energy(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path, stations=ONE) as place:
        bus = place.add_bus(1, [(-1, 10, 60)])
        station = place.station("CP-01")
        await place.until(lambda: station.is_online)
        doors = place.daemon.server.doors
        place.daemon.server.doors = type(doors)(stations={})
        station.cut()
        await place.until(lambda: not place.daemon.server.links)
        plugged_at = place.clock.now()
        await station.plug(1, bus)
        await place.passes(0.3)
        await station.unplug(1)
        unplugged_at = place.clock.now()
        place.daemon.server.doors = doors
        await place.until(
            lambda: any(s.phase is SessionPhase.ENDED for s in place.sessions())
        )
        session = place.sessions()[0]
        true_wh = station.outlets[1].energy_wh

    assert len(place.sessions()) == 1
    assert session.match is MatchOutcome.UNIQUE
    assert session.started_at is not None
    assert plugged_at <= session.started_at <= unplugged_at
    assert session.ended_at is not None
    assert session.ended_at <= unplugged_at
    assert true_wh > 500
    assert abs(session.meter.energy_wh - true_wh) < 50


async def test_unknown_vehicle_charges_by_policy_and_becomes_a_candidate(
    tmp_path: Path,
) -> None:
    policy = {"unmatched_kw": 22.0}
    async with yard(tmp_path, stations=ONE, policy=policy) as place:
        bus = place.add_bus(9, [], known=False)
        station = place.station("CP-01")
        await place.until(lambda: station.is_online)
        await station.plug(1, bus)
        await place.until(lambda: drawn_kw(place, "CP-01") > 20)
        await place.passes(0.1)
        before_kw = drawn_kw(place, "CP-01")
        candidates = await place.daemon.candidates()
        place.add_bus(9, [(-1, 10, 90)])
        await place.until(lambda: drawn_kw(place, "CP-01") > 85)
        session = place.sessions()[0]

    assert 20 < before_kw <= 22
    assert [row["mac"] for row in candidates] == [bus.mac]
    assert session.match is MatchOutcome.UNIQUE
    assert session.vehicle_id == "bus-9"


async def test_vehicle_that_cannot_resume_is_never_paused(tmp_path: Path) -> None:
    async with yard(tmp_path, stations=ONE) as place:
        pieces = [(-1, 0.1, 60.0), (0.1, 0.25, 0.0), (0.25, 10, 80.0)]
        bus = place.add_bus(1, pieces, can_pause=False)
        station = place.station("CP-01")
        await place.until(lambda: station.is_online)
        await station.plug(1, bus)
        await place.until(lambda: place.clock.now() > place.at(0.2))
        in_pause_kw = drawn_kw(place, "CP-01")
        await place.until(lambda: drawn_kw(place, "CP-01") > 75, 30)

    assert 4.5 < in_pause_kw <= 5.0
    assert not bus.is_asleep


async def test_same_vehicle_at_two_outlets_is_ambiguous_at_both(tmp_path: Path) -> None:
    async with yard(tmp_path, stations=TWO) as place:
        bus = place.add_bus(1, [(-1, 10, 60)])
        twin = place.add_bus(1, [], known=False)
        for name in ("CP-01", "CP-02"):
            place.station(name)
        await place.installed()
        await place.stations["CP-01"].plug(1, bus)
        await place.until(lambda: drawn_kw(place, "CP-01") > 55)
        await place.stations["CP-02"].plug(1, twin)
        await place.until(
            lambda: [s.match for s in place.sessions()] == [MatchOutcome.AMBIGUOUS] * 2
        )
        await place.stations["CP-02"].unplug(1)
        await place.until(lambda: place.sessions()[0].match is MatchOutcome.UNIQUE, 30)
        vehicles = place.daemon.vehicles()

    assert vehicles[0]["station_id"] == "CP-01"


async def test_station_that_ignores_its_profile_is_named_and_budgeted_at_what_it_draws(
    tmp_path: Path,
) -> None:
    site = {"location_uid": "depot-1", "cap_kw": 200.0, "efficiency": EFFICIENCY}
    async with yard(tmp_path, stations=TWO, site=site) as place:
        deaf = place.add_bus(1, [(-1, 10, 40)])
        good = place.add_bus(2, [(-1, 10, 120)])
        place.station("CP-01", faults=frozenset({"ignore-profiles"}))
        place.station("CP-02")
        await place.installed()
        await place.stations["CP-01"].plug(1, deaf)
        await place.until(lambda: place.daemon.status()["not_following"] == ["CP-01/1"])
        await place.stations["CP-02"].plug(1, good)
        await place.until(lambda: drawn_kw(place, "CP-02") > 35)
        await place.passes(0.1)
        total_kw = place.grid_w() / 1000

    assert drawn_kw(place, "CP-01") > 100
    assert total_kw <= 200.2
