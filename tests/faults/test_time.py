"""faults.md section 5: clocks that step, that were never set, and days of odd length."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.cloud.chargeye_parse import read_schedules
from agent.host.clock import ScaledClock
from agent.stations.times import parse_time
from tests.support.yard import Yard, yard

ONE = [{"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}]
SPEED = 60.0
PLAN: list[tuple[float, float, float]] = [(-1, 2, 40), (2, 9, 90)]


class WrongClock:
    """The depot's clock, off by what the test says."""

    def __init__(self, right: ScaledClock, off: timedelta = timedelta()) -> None:
        self._right = right
        self.off = off

    def now(self) -> datetime:
        return self._right.now() + self.off

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)


async def _charging(place: Yard) -> None:
    bus = place.add_bus(1, PLAN)
    station = place.station("CP-01")
    await place.installed()
    await station.plug(1, bus)
    await place.until(lambda: station.outlets[1].power_w > 1000)


def _limit_kw(place: Yard) -> float | None:
    rows: Any = place.daemon.stations()
    limit = rows[0]["evses"][0]["limit_w"]["confirmed"]
    return None if limit is None else round(limit / 1000)


@pytest.mark.parametrize("step_h", [1.5, -1.5])
async def test_t2_a_step_of_the_gateways_clock_re_evaluates_the_plan_within_10_seconds(
    tmp_path: Path, step_h: float
) -> None:
    """Forward into the next segment, or back out of it; one session, no negative times."""
    starts_h = 1.0 if step_h > 0 else 2.5
    wanted = (40, 90) if step_h > 0 else (90, 40)
    clocks: list[WrongClock] = []

    def wrong(right: ScaledClock) -> WrongClock:
        clocks.append(WrongClock(right, timedelta(hours=starts_h)))
        return clocks[0]

    async with yard(tmp_path, stations=ONE, speed=SPEED, gateway_clock=wrong) as place:
        await _charging(place)
        await place.until(lambda: _limit_kw(place) == wanted[0])
        stepped_at = place.clock.now()
        clocks[0].off += timedelta(hours=step_h)
        await place.until(lambda: _limit_kw(place) == wanted[1])
        took_s = (place.clock.now() - stepped_at).total_seconds()
        await place.passes(0.05)
        rows: Any = await place.daemon.sessions(10)

    # A station is given a minute to prove a reduction before others may use its power.
    assert took_s < 10 + SPEED * 0.5
    assert len(rows) == 1
    assert rows[0]["energy_wh"] >= 0
    assert len(rows[0]["transaction_ids"]) == 1


async def test_t3_before_the_clock_is_set_no_plan_is_executed_and_after_it_all_is_normal(
    tmp_path: Path,
) -> None:
    """The gateway boots in 1970 without a network; then the time comes."""
    clocks: list[WrongClock] = []

    def in_1970(right: ScaledClock) -> WrongClock:
        clocks.append(WrongClock(right, datetime(1970, 1, 1, tzinfo=UTC) - right.now()))
        return clocks[0]

    with structlog.testing.capture_logs() as logs:
        async with yard(
            tmp_path, stations=ONE, speed=SPEED, gateway_clock=in_1970
        ) as place:
            await _charging(place)
            await place.passes(0.05)
            before = [row for row in logs if row.get("source") == "plan"]
            told = [row for row in logs if row["event"] == "clock_not_set"]
            set_at = place.clock.now()
            clocks[0].off = timedelta()
            await place.until(lambda: _limit_kw(place) == 40)
            took_s = (place.clock.now() - set_at).total_seconds()
            await place.passes(0.05)
            rows: Any = await place.daemon.sessions(10)

    assert before == []
    assert len(told) == 1
    assert took_s < 10 + SPEED * 0.5
    assert len(rows) == 1
    assert rows[0]["energy_wh"] >= 0
    assert any("clock" in text for text in rows[0]["anomalies"])


@pytest.fixture(params=["Europe/Helsinki", "America/St_Johns", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The gateway's own time zone, which must not matter."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "midnight", ["2026-03-28T22:00:00Z", "2026-10-24T21:00:00Z", "2016-12-31T22:00:00Z"]
)
def test_t4_on_days_of_23_and_25_hours_no_segment_shifts(zone: str, midnight: str) -> None:
    """A segment is two instants; neither the zone nor the day's length enters."""
    del zone
    start = datetime.fromisoformat(midnight)
    start_ms = int(start.timestamp() * 1000)
    pieces: list[dict[str, Any]] = [
        {
            "from": start_ms + hour * 3_600_000,
            "to": start_ms + (hour + 1) * 3_600_000,
            "powerkW": 10.0 + hour,
            "paused": False,
            "powerUnlimited": False,
        }
        for hour in range(8)
    ]
    row = {
        "id": "s",
        "evId": "bus",
        "locationUid": "loc-1",
        "plannedArrivalTime": midnight,
        "plannedDepartureTime": (start + timedelta(hours=9)).isoformat(),
        "plan": {"segments": pieces},
    }
    plan = read_schedules([row], "loc-1").schedules[0][0].plan

    assert plan is not None
    for hour, segment in enumerate(plan.segments):
        assert segment.starts_at == start + timedelta(hours=hour)
        assert (segment.ends_at - segment.starts_at) == timedelta(hours=1)
        assert segment.power_w == (10.0 + hour) * 1000


def test_t4_a_leap_second_of_a_station_is_the_second_before_it() -> None:
    assert parse_time("2016-12-31T23:59:60Z") == datetime(
        2016, 12, 31, 23, 59, 59, tzinfo=UTC
    )
    assert parse_time("2016-12-31T23:61:60Z") is None
