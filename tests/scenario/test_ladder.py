"""Stations that take a limit in one form only, or none: what they draw in the end.

Ids are of charger-quirks.md. The first order of each is wrong for its station; the agent
finds the form, or fences the outlet off in the budget, and says so in time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.domain.curve import value_at
from agent.domain.ids import EvseId, StationId
from agent.ports import Priority
from agent.stations import rpc
from tests.support.yard import EFFICIENCY, Yard, yard

SPEED = 360.0
"""Six simulated minutes in a real second: meter values come each minute."""
PLAN_KW = 43.7
"""In amperes it is no whole number, and far below what the bus would take."""
ALARM_S = 90.0
"""From the third sample over the limit to the alarm (faults.md C9)."""
DC = {"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}
AC = {**DC, "current": "ac"}
SITE = {"location_uid": "depot-1", "cap_kw": 400.0, "efficiency": EFFICIENCY}
QUICK_S = 0.15
"""A time-out that three silences fit into a test."""


def drawn_kw(place: Yard, name: str = "CP-01") -> float:
    return place.stations[name].outlets[1].power_w / 1000


def rung(place: Yard, name: str = "CP-01") -> str:
    rows = {row["station_id"]: row for row in place.daemon.stations()}
    shown: Any = rows[name]["ladder"]
    return str(shown["rung"])


def fences(place: Yard) -> list[str]:
    ladders = place.daemon.executor.ladders
    return [f"{outlet[0]}/{outlet[1]}" for outlet in ladders.fenced()]


async def charge(place: Yard, name: str = "CP-01", number: int = 1, **options: Any) -> None:
    """Plug a bus in that would take 140 kW and should have less."""
    pieces = options.pop("pieces", [(-1, 10, PLAN_KW)])
    bus = place.add_bus(number, pieces)
    station = place.station(name, **options)
    await place.until(lambda: station.is_online)
    await station.plug(1, bus)
    await place.until(lambda: drawn_kw(place, name) > 0)


def refused_at(logs: list[Any], name: str) -> list[Any]:
    """What a station said to limits that it did not take."""
    return [
        item
        for item in logs
        if item["event"] == "limit_refused" and item["station_id"] == name
    ]


def is_followed(place: Yard, name: str = "CP-01") -> bool:
    return PLAN_KW * 0.9 < drawn_kw(place, name) <= PLAN_KW * 1.001


@dataclass
class Quirk:
    """A station, and the rung at which it follows."""

    faults: tuple[str, ...]
    rung: str
    row: dict[str, Any] = field(default_factory=lambda: DC)
    options: dict[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


KEY_RULE = {"vendor": "EVBox", "model": "VS-150", "limit_key": "StationMaxCurrent"}
QUIRKS = {
    "PRF-01": Quirk(("only-default-profiles",), "tx-default"),
    "PRF-01-reversed": Quirk(("only-station-maximum",), "station-max"),
    "PRF-02": Quirk(("refuse-connector-zero",), "plain"),
    "PRF-03": Quirk(("refuse-high-stack-level",), "stack-level"),
    "PRF-03-and-08-Wallbox": Quirk(
        ("refuse-high-stack-level", "refuse-absolute"), "relative-stack-level"
    ),
    "PRF-08": Quirk(("refuse-absolute",), "relative"),
    "PRF-11-of-2.0.1": Quirk(
        ("refuse-replacement",), "plain", options={"ocpp_version": "2.0.1"}
    ),
    "PRF-13": Quirk(("refuse-decimals",), "plain", AC, {"dc": False}),
    "LIM-01": Quirk(("refuse-amperes",), "unit", AC, {"dc": False}),
    "LIM-01-of-2.0.1": Quirk(
        ("refuse-amperes",), "unit", AC, {"dc": False, "ocpp_version": "2.0.1"}
    ),
    "LIM-02": Quirk(("ignore-watts",), "unit"),
    "LIM-04": Quirk(("refuse-without-phases",), "phases"),
    "CFG-12": Quirk(
        ("limit-by-key",),
        "vendor-key",
        AC,
        {"dc": False, "vendor": "EVBox", "overrides": {"StationMaxCurrent": "2000"}},
        {"ladders": [KEY_RULE]},
    ),
}


@pytest.mark.parametrize("quirk", QUIRKS.values(), ids=QUIRKS.keys())
async def test_the_plan_is_followed_in_the_end(quirk: Quirk, tmp_path: Path) -> None:
    async with yard(
        tmp_path, stations=[quirk.row], speed=SPEED, site=SITE, **quirk.content
    ) as place:
        await charge(place, faults=frozenset(quirk.faults), **quirk.options)
        await place.until(lambda: is_followed(place))
        await place.passes(0.15)
        found, is_still = rung(place), is_followed(place)
        told = place.daemon.explain("CP-01", 1)
        is_fenced = fences(place)

    assert is_still
    assert found == quirk.rung
    assert not is_fenced
    assert told is not None
    assert told["ladder"]["rung"] == found  # type: ignore[index]


async def test_lim_02_is_found_by_the_composite_schedule_where_power_tells_nothing(
    tmp_path: Path,
) -> None:
    """The vehicle wants little, so that nobody would notice until it wants more."""
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=[DC], speed=SPEED, site=SITE) as place:
            bus = place.add_bus(1, [(-1, 10, PLAN_KW)])
            bus.max_w = 12_000.0
            station = place.station("CP-01", faults=frozenset({"ignore-watts"}))
            await place.until(lambda: station.is_online)
            await station.plug(1, bus)
            await place.until(lambda: rung(place) == "unit")
            await place.passes(0.1)
            told = place.daemon.explain("CP-01", 1)
            row: Any = place.daemon.stations()[0]["evses"]
            is_fenced = fences(place)

    words = [item["reason"] for item in logs if item["event"] == "limit_contradicted"]
    assert all("150.0 kW at a limit of" in item for item in words)
    assert len(words) == 2  # absolute and relative watts; then amperes
    assert not [item for item in logs if item["event"] == "limit_not_followed"]
    assert told is not None
    assert told["proof"] == "verified"
    assert row[0]["limit_w"]["state"] == "verified"
    assert row[0]["limit_w"]["proof"] == "measured"
    assert not is_fenced


async def test_prf_10_one_period_at_a_time_with_the_agent_as_the_clock(
    tmp_path: Path,
) -> None:
    pieces = [(-1, 0.5, 30.0), (0.5, 1.0, 60.0), (1.0, 10, 20.0)]
    faults = frozenset({"single-period-only"})
    async with yard(tmp_path, stations=[DC], speed=SPEED, site=SITE) as place:
        await charge(place, faults=faults, pieces=pieces)
        await place.until(lambda: place.clock.now() > place.at(0.4))
        first_kw = drawn_kw(place)
        await place.until(lambda: place.clock.now() > place.at(0.8))
        second_kw = drawn_kw(place)
        await place.until(lambda: place.clock.now() > place.at(1.05))
        third_kw, found = drawn_kw(place), rung(place)

    assert [round(kw) for kw in (first_kw, second_kw, third_kw)] == [30, 60, 20]
    assert found == "one-period"


async def test_lim_09_a_quirk_set_by_hand_wins_and_no_zero_is_sent(
    tmp_path: Path,
) -> None:
    row = {**DC, "quirks": ["no-zero"]}
    pieces = [(-1, 0.5, 30.0), (0.5, 0.8, 0.0), (0.8, 10, 40.0)]
    async with yard(tmp_path, stations=[row], speed=SPEED, site=SITE) as place:
        await charge(place, faults=frozenset({"zero-ends-transaction"}), pieces=pieces)
        await place.until(lambda: place.clock.now() > place.at(0.7))
        in_pause_kw = drawn_kw(place)
        await place.until(lambda: drawn_kw(place) > 39)
        transactions = len(place.sessions()[0].transactions)

    assert 1 <= in_pause_kw <= 6
    assert transactions == 1


async def test_timxon_silence_on_absolute_is_no_refusal_but_leads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B9: Absolute is not answered at all; Relative works (PRF-08)."""
    for priority in Priority:
        monkeypatch.setitem(rpc.PATIENCE_S, priority, QUICK_S)
    faults = frozenset({"silent-absolute"})
    async with yard(tmp_path, stations=[DC], speed=60.0, site=SITE) as place:
        await charge(place, faults=faults)
        await place.until(lambda: is_followed(place))
        found = rung(place)

    assert found == "relative"


FENCED = {
    "PRF-14-ignored": ("ignore-profiles",),
    "PRF-16-refused": ("refuse-profiles",),
}


@pytest.mark.parametrize("faults", FENCED.values(), ids=FENCED.keys())
async def test_a_station_that_takes_nothing_is_fenced_off_and_the_cap_holds(
    faults: tuple[str, ...], tmp_path: Path
) -> None:
    site = {**SITE, "cap_kw": 200.0}
    rows = [DC, {**DC, "id": "CP-02"}]
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=rows, speed=SPEED, site=site) as place:
            await charge(place, faults=frozenset(faults), model="Deaf")
            await place.until(lambda: fences(place) == ["CP-01/1"], 40.0)
            await charge(place, "CP-02", 2, pieces=[(-1, 10, 120)])
            await place.passes(0.3)
            total_kw, other_kw = place.grid_w() / 1000, drawn_kw(place, "CP-02")
            told = place.daemon.explain("CP-01", 1)

    assert told is not None
    assert any("fenced" in str(item) for item in told["history"])  # type: ignore[attr-defined]
    assert [item["station_id"] for item in logs if item["event"] == "outlet_fenced"] == [
        "CP-01"
    ]
    assert total_kw <= 200.2
    assert other_kw <= 200 * EFFICIENCY - 150 + 0.2


async def test_c9_the_alarm_comes_within_90_s_of_the_third_sample_over_the_limit(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path, stations=[DC], speed=120.0, site=SITE) as place:
        await charge(place, faults=frozenset({"ignore-profiles"}))
        outlet = next(item for item in place.daemon.depot.all_outlets())
        await place.until(lambda: place.daemon.depot.power_of(outlet).strikes >= 2)
        second_at = place.clock.now()
        await place.until(lambda: bool(place.daemon.status()["not_following"]))
        alarm_at = place.clock.now()
        await place.until(lambda: rung(place) != "plain")
        moved_at = place.clock.now()

    # The third sample comes a minute after the second.
    assert alarm_at - second_at <= timedelta(seconds=60 + ALARM_S)
    assert moved_at - second_at <= timedelta(seconds=60 + ALARM_S)


async def test_the_next_station_of_the_model_starts_at_the_learned_rung(
    tmp_path: Path,
) -> None:
    rows = [DC, {**DC, "id": "CP-02"}, {**DC, "id": "CP-03"}]
    faults = frozenset({"refuse-high-stack-level", "refuse-absolute"})
    async with yard(tmp_path, stations=rows, speed=SPEED, site=SITE) as place:
        await charge(place, faults=faults)
        await place.until(lambda: is_followed(place))
        await place.passes(0.1)
        with structlog.testing.capture_logs() as logs:
            await charge(place, "CP-02", 2, faults=faults)
            await place.until(lambda: is_followed(place, "CP-02"))
        again = refused_at(logs, "CP-02")
        learned = rung(place, "CP-02")
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=rows, speed=SPEED, site=SITE) as place:
            await charge(place, "CP-03", 3, faults=faults)
            await place.until(lambda: is_followed(place, "CP-03"))
            after_restart = rung(place, "CP-03")
    refused = refused_at(logs, "CP-03")

    assert learned == after_restart == "relative-stack-level"
    assert not again
    assert not refused


async def test_a_rung_of_the_configuration_is_used_at_once_and_kept(
    tmp_path: Path,
) -> None:
    rule = {"vendor": "virtual", "model": "vs-150", "rung": "tx-default"}
    with structlog.testing.capture_logs() as logs:
        async with yard(
            tmp_path, stations=[DC], speed=SPEED, site=SITE, ladders=[rule]
        ) as place:
            await charge(place, faults=frozenset({"only-default-profiles"}))
            await place.until(lambda: is_followed(place))
            words = place.daemon.stations()[0]["ladder"]

    assert not [item for item in logs if item["event"] == "limit_refused"]
    assert words == {"rung": "tx-default", "words": "tx-default (set by hand)"}


async def test_after_a_default_that_was_the_plan_the_safe_default_is_back(
    tmp_path: Path,
) -> None:
    """B13.7: the next vehicle does not begin with the plan of the one before."""
    async with yard(tmp_path, stations=[DC], speed=SPEED, site=SITE) as place:
        await charge(place, faults=frozenset({"only-default-profiles"}))
        await place.until(lambda: is_followed(place))
        outlet = next(item for item in place.daemon.depot.all_outlets())
        before = place.daemon.depot.power_of(outlet).left
        station = place.stations["CP-01"]
        await station.unplug(1)
        await place.until(lambda: not place.daemon.depot.power_of(outlet).left)
        await place.passes(0.05)
        limit_w = station.outlets[1].limit_w

    assert [round(item.allows[0][1]) for item in before] == [43_700]
    assert limit_w == 4_000


async def test_lim_08_a_station_that_refuses_0_is_held_at_the_minimum(
    tmp_path: Path,
) -> None:
    """The pause is not achieved: the minimum is what the budget holds, and it is said."""
    pieces = [(-1, 0.2, 30.0), (0.2, 0.45, 0.0), (0.45, 10, 40.0)]
    async with yard(tmp_path, stations=[DC], speed=SPEED, site=SITE) as place:
        await charge(place, faults=frozenset({"refuse-zero"}), pieces=pieces)
        await place.until(lambda: place.clock.now() > place.at(0.4))
        in_pause_kw = drawn_kw(place)
        told = str(place.daemon.explain("CP-01", 1))
        words: Any = place.daemon.stations()[0]["ladder"]
        await place.until(lambda: drawn_kw(place) > 39)
        is_fenced = fences(place)

    assert 1 <= in_pause_kw <= 5.1
    assert "its station takes no limit of 0" in told
    assert "no-zero" in words["words"]
    assert not is_fenced


async def test_lim_11_after_a_pause_the_limit_is_sent_again_and_measured(
    tmp_path: Path,
) -> None:
    """This one forgets it for good: the alarm comes, and its neighbour makes room."""
    pieces = [(-1, 0.15, 30.0), (0.15, 0.25, 0.0), (0.25, 10, 40.0)]
    site = {**SITE, "cap_kw": 200.0}
    rows = [DC, {**DC, "id": "CP-02"}]
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=rows, speed=SPEED, site=site) as place:
            faults = frozenset({"forget-limit-after-zero"})
            await charge(place, faults=faults, pieces=pieces)
            await charge(place, "CP-02", 2, pieces=[(-1, 10, 120)])
            await place.until(lambda: drawn_kw(place) > 100)
            forgot_at = place.clock.now()
            await place.until(lambda: bool(place.daemon.status()["not_following"]))
            alarm_at = place.clock.now()
            await place.until(lambda: drawn_kw(place, "CP-02") < 50)
            other_kw = drawn_kw(place, "CP-02")

    mine = [item for item in logs if item.get("station_id") == "CP-01"]
    again = [item for item in mine if item["event"] == "limit_sent"]
    assert sum("the vehicle resumed" in item["reason"] for item in again) == 1
    # A settle time, three samples a minute apart, and a pass.
    assert alarm_at - forgot_at <= timedelta(seconds=90 + 3 * 60 + ALARM_S)
    assert other_kw <= 200 * EFFICIENCY - 150 + 0.2


async def test_prf_12_a_refused_replacement_leaves_the_old_limit_in_the_budget(
    tmp_path: Path,
) -> None:
    """A second profile within a minute is refused: the first one rules until then."""
    site = {**SITE, "cap_kw": 160.0}
    rows = [DC, {**DC, "id": "CP-02"}]
    outlet = (StationId("CP-01"), EvseId(1))
    async with yard(tmp_path, stations=rows, speed=60.0, site=site) as place:
        options: dict[str, Any] = {
            "ocpp_version": "2.0.1",
            "faults": frozenset({"profile-rate-limit"}),
        }
        await charge(place, pieces=[(-1, 10, 100)], **options)
        depot = place.daemon.depot
        await place.until(lambda: drawn_kw(place) > 95)
        await charge(place, "CP-02", 2, pieces=[(-1, 10, 100)])
        await place.until(lambda: depot.power_of(outlet).order == "refused")
        book = depot.power_of(outlet)
        held_w = value_at(book.confirmed.allows, 2**39) if book.confirmed else 0.0
        other_w = drawn_kw(place, "CP-02") * 1000
        drawn_w = place.grid_w()
        await place.until(lambda: drawn_kw(place) < 80 and drawn_kw(place, "CP-02") > 70)
        worst_w = place.worst_grid_w

    assert drawn_w <= 160_000 * 1.001
    assert held_w + other_w <= 160_000 * EFFICIENCY * 1.001
    assert worst_w <= 160_000 * 1.001
