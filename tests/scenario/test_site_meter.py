"""A load appears beside charging: the connection holds, with a meter and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.control import views
from agent.control.depot import Depot, Policy
from agent.control.explain import explain
from agent.control.site import SiteWatch
from agent.demo import EVENING
from agent.domain.errors import CloudFault
from agent.domain.ids import EvseId, StationId
from agent.domain.plan import AfterPlan
from agent.domain.site import SiteRules
from tests.support.yard import EFFICIENCY, Yard, yard

CAP_W = 150_000.0
STATIC_KW = 100.0
TWO = [{"id": f"CP-0{n}", "max_kw": 150.0, "fallback_kw": 4.0} for n in (1, 2)]


class Building:
    """Everything that is not charging, and the meter that sees both."""

    def __init__(self, place: Yard, file: Path) -> None:
        self.place = place
        self.file = file
        self.load_w = 5_000.0
        self.is_writing = True

    def total_w(self) -> float:
        return self.place.grid_w() + self.load_w

    async def run(self) -> None:
        number = 0
        while True:
            if self.is_writing:
                number += 1
                text = f'{{"grid": {{"power_kw": {self.total_w() / 1000}, "n": {number}}}}}'
                fresh = self.file.with_suffix(".new")
                fresh.write_text(text)
                fresh.replace(self.file)
            await self.place.clock.sleep(2.0)


@asynccontextmanager
async def depot(folder: Path) -> AsyncIterator[tuple[Yard, Building]]:
    file = folder / "meter.json"
    site = {
        "location_uid": "depot-1",
        "cap_kw": CAP_W / 1000,
        "efficiency": EFFICIENCY,
        "meter": {
            "file": str(file),
            "path": "grid.power_kw",
            "unit": "kW",
            "unmanaged_max_kw": STATIC_KW,
        },
    }
    ocpp = {"host": "127.0.0.1", "port": 0, "meter_interval_s": 30}
    async with yard(folder, stations=TWO, site=site, ocpp=ocpp, speed=15.0) as place:
        building = Building(place, file)
        feeder = place.tasks.create_task(building.run())
        try:
            buses = [place.add_bus(n, [(-1, 10, 60)]) for n in (1, 2)]
            for item in TWO:
                place.station(str(item["id"]))
            await place.installed()
            for bus, station in zip(buses, place.stations.values(), strict=True):
                await station.plug(1, bus)
            await place.until(lambda: place.grid_w() > 120_000, 60.0)
            yield place, building
        finally:
            feeder.cancel()


async def took_s(place: Yard, condition: Callable[[], bool], within_s: float) -> float:
    began = place.clock.now()
    await place.until(condition, within_s / 15.0 + 1.0)
    return (place.clock.now() - began).total_seconds()


async def test_charging_makes_room_for_a_load_that_appears_and_takes_it_back(
    tmp_path: Path,
) -> None:
    """80 kW beside two buses of 60 kW under 150 kW: under the cap within 30 s."""
    async with depot(tmp_path) as (place, building):
        shown = place.daemon.depot
        before = shown.site_load
        building.load_w = 80_000.0
        assert building.total_w() > CAP_W
        cut_s = await took_s(place, lambda: building.total_w() <= CAP_W, 60.0)
        worst_w = 0.0
        for _ in range(80):
            await asyncio.sleep(0.1)
            worst_w = max(worst_w, building.total_w())
        charging_w = place.grid_w()
        words = explain(
            shown,
            place.daemon.executor.diary,
            StationId("CP-01"),
            EvseId(1),
            place.clock.now(),
        )
        status = views.status(shown, place.clock.now(), [], "")

    assert before is not None
    assert before.is_measured
    assert before.unmanaged_w < 25_000
    assert cut_s < 30
    assert worst_w <= CAP_W * 1.001
    assert charging_w > 40_000
    assert words is not None
    assert "site meter shows" in str(words["because"])
    assert 80_000 <= float(str(status["unmanaged_w"])) <= 100_000


async def test_a_meter_that_stops_means_the_static_assumption_until_it_is_back(
    tmp_path: Path,
) -> None:
    """The file stays, and nobody writes it: its value is old, not true."""
    with capture_logs() as logs:
        async with depot(tmp_path) as (place, building):
            building.is_writing = False
            lost_s = await took_s(
                place, lambda: place.grid_w() <= CAP_W - STATIC_KW * 1000, 150.0
            )
            load = place.daemon.depot.site_load
            building.is_writing = True
            await took_s(place, lambda: place.grid_w() > 120_000, 300.0)

    assert 55 < lost_s < 130
    assert load is not None
    assert (load.is_measured, load.unmanaged_w) == (False, STATIC_KW * 1000)
    names = [row["event"] for row in logs if row["event"].startswith("site_meter")]
    assert names == ["site_meter_lost", "site_meter_back"]


@pytest.mark.parametrize("text", ["", "<html>", '{"grid": {"power_kw": "NaN"}}', "7"])
async def test_a_meter_that_writes_nonsense_changes_nothing_for_a_minute(
    tmp_path: Path, text: str
) -> None:
    async with depot(tmp_path) as (place, building):
        building.is_writing = False
        building.file.write_text(text)
        await place.passes(20 / 3600)
        early_w = place.grid_w()
        await took_s(place, lambda: place.grid_w() <= CAP_W - STATIC_KW * 1000, 150.0)

    assert early_w > 120_000


class Hand:
    """A meter and a clock that a test moves by hand; the depot has no station."""

    def __init__(self, **rules: Any) -> None:
        self.at = EVENING
        self.answer: tuple[float, str] | CloudFault = CloudFault("dark", retryable=True)
        policy = Policy(
            cap_w=CAP_W,
            efficiency=EFFICIENCY,
            unmatched_w=0.0,
            unplanned_w=0.0,
            after_plan=AfterPlan.HOLD_MINIMUM,
            plan_max_age=timedelta(days=1),
        )
        self.depot = Depot(policy=policy, traits={})
        kept = SiteRules(unmanaged_max_w=STATIC_KW * 1000, **rules)
        self.watch = SiteWatch(self.depot, self, self, kept, 5.0)

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def read(self) -> tuple[float, str]:
        if isinstance(self.answer, CloudFault):
            raise self.answer
        return self.answer

    async def polls(self, count: int, *answers: tuple[float, str] | CloudFault) -> None:
        for number in range(count):
            if answers:
                self.answer = answers[min(number, len(answers) - 1)]
            await self.watch.step()
            await self.sleep(5.0)

    def unmanaged_w(self) -> float:
        assert self.depot.site_load is not None
        assert self.depot.room_w() == max(CAP_W - self.depot.site_load.unmanaged_w, 0.0)
        return self.depot.site_load.unmanaged_w


async def test_w6_a_station_that_reports_too_little_is_told_once_per_spell() -> None:
    """W6: the meter shows more than building and reports explain, for 5 minutes."""
    hand = Hand()
    with capture_logs() as logs:
        await hand.polls(59, (130_000.0, ""))
        early = len(logs)
        await hand.polls(200, (130_000.0, ""))
        await hand.polls(3, (50_000.0, ""))
        await hand.polls(100, (130_000.0, ""))

    assert early == 0
    assert [row["event"] for row in logs] == ["meter_disagrees"] * 2
    assert "too little" in logs[0]["reason"]


async def test_a_file_that_is_never_written_anew_is_not_believed() -> None:
    """Its writer may have died last week."""
    hand = Hand()
    with capture_logs() as logs:
        await hand.polls(10, (5000.0, "stamp"))
        early = len(logs)
        assert hand.unmanaged_w() == STATIC_KW * 1000
        await hand.polls(10, (5000.0, "stamp"))
        await hand.polls(1, (5000.0, "another"))

    assert early == 0
    assert [row["event"] for row in logs] == ["site_meter_lost", "site_meter_back"]
    assert "not written anew" in logs[0]["reason"]
    assert hand.unmanaged_w() == 5500


async def test_one_read_that_fails_changes_nothing() -> None:
    hand = Hand()
    dark = CloudFault("dark", retryable=True)
    with capture_logs() as logs:
        await hand.polls(3, (5000.0, ""), dark, (float("nan"), ""))
        await hand.polls(9, dark)
        assert hand.unmanaged_w() == 5500
        await hand.polls(9, dark)

    assert hand.unmanaged_w() == STATIC_KW * 1000
    assert [row["reason"] for row in logs] == ["dark"]


async def test_the_power_loop_is_woken_when_the_room_changes_and_only_then() -> None:
    hand = Hand()
    await hand.polls(1, (5000.0, ""))
    hand.depot.changed.clear()
    await hand.polls(5, (5000.0, ""))
    assert not hand.depot.changed.is_set()
    await hand.polls(1, (6000.0, ""))
    assert hand.depot.changed.is_set()
