"""faults.md R3: one station must not fill the disk that keeps the record of all."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from agent.control import diskshare
from agent.control.depot import Depot, Policy
from agent.control.diskshare import DAY_BYTES_MAX
from agent.control.intake import Intake
from agent.control.recovery import recover
from agent.domain import events
from agent.domain.capability import StationTraits
from agent.domain.ids import ConnectorId, EvseId, StationId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.plan import AfterPlan
from agent.domain.station import StationState
from agent.host.clock import RandomIds
from agent.store.sqlite import SqliteStore

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
FLOOD, SOUND = StationId("FLOOD"), StationId("SOUND")
TRANSACTION = {FLOOD: TransactionId("1"), SOUND: TransactionId("2")}
READINGS = 1000
"""The most that one message may bring (faults.md I5)."""
BEYOND = 200
"""Messages after the share is spent."""


class _HandClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def _depot() -> Depot:
    stations = (FLOOD, SOUND)
    depot = Depot(
        policy=Policy(
            cap_w=1e6,
            efficiency=1.0,
            unmatched_w=1.0,
            unplanned_w=1.0,
            after_plan=AfterPlan.PAUSE,
            plan_max_age=timedelta(days=1),
        ),
        traits={s: StationTraits(rated_w=150_000.0, fallback_w=5000.0) for s in stations},
    )
    for each in stations:
        depot.states[each] = StationState(station_id=each, rated_w=150_000)
    return depot


def _start(station_id: StationId) -> events.Event:
    return events.TransactionStarted(
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        new_transaction_id=TRANSACTION[station_id],
        key=f"1|{station_id}",
        at=NOW,
        id_token=station_id,
        meter_start_wh=1000.0,
    )


def _samples(station_id: StationId, at: datetime, number: int, count: int) -> events.Event:
    """`count` samples of one instant, whose register rises with `number`."""
    reading = MeterReading(at=at, register_wh=1000.0 + number, power_w=40_000.0)
    return events.MeterSampled(
        readings=(reading,) * count,
        evse_id=EvseId(1),
        transaction_id=TRANSACTION[station_id],
    )


@pytest.mark.slow
async def test_r3_a_station_that_fills_the_disk_is_kept_as_a_summary_for_the_day(
    tmp_path: Path,
) -> None:
    """50 MiB a day; then its state only, whole after every message; its sisters whole."""
    path, clock, depot = tmp_path / "agent.db", _HandClock(), _depot()
    store = SqliteStore(path)
    store.start()
    intake = Intake(depot, store, clock, RandomIds(3), last_seq=0, last_transaction_id=1)
    with structlog.testing.capture_logs() as logs:
        for each in (FLOOD, SOUND):
            await intake.handle(each, _start(each))
        needed = DAY_BYTES_MAX // (130 * READINGS) + 1
        for number in range(needed + BEYOND):
            clock.at += timedelta(seconds=1)
            await intake.handle(FLOOD, _samples(FLOOD, clock.at, number, READINGS))
            await intake.handle(SOUND, _samples(SOUND, clock.at, number, 1))
        flooded = path.stat().st_size
        tomorrow = clock.at = NOW + timedelta(days=1)
        await intake.handle(FLOOD, _samples(FLOOD, tomorrow, needed + BEYOND, 1))
        memory = depot.states[FLOOD]
        await intake.handle(
            FLOOD,
            events.TransactionEnded(
                transaction_id=TRANSACTION[FLOOD], at=tomorrow, meter_stop_wh=9000.0
            ),
        )
    journal = await store.journal()
    await asyncio.to_thread(store.close)
    rows = Counter((row.station_id, type(row.event).__name__) for row in journal)
    print(f"R3: {flooded / 2**20:.0f} MiB on disk")  # noqa: T201 - the table's figure

    told = [row for row in logs if row["event"] == "station_writes_much"]
    assert [row["station_id"] for row in told] == ["FLOOD"]
    assert needed <= rows[FLOOD, "MeterSampled"] <= needed + 2  # and one of the next day
    assert rows[SOUND, "MeterSampled"] == needed + BEYOND
    assert rows[FLOOD, "TransactionEnded"] == 1
    assert flooded < 1.5 * DAY_BYTES_MAX
    (session,) = memory.sessions.values()
    assert session.meter.register_wh == 1000.0 + needed + BEYOND


async def test_r3_what_is_kept_as_a_summary_survives_a_kill_after_every_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row in the journal, and still on disk before it is acknowledged."""
    monkeypatch.setattr(diskshare, "DAY_BYTES_MAX", 200_000)
    path, clock, depot = tmp_path / "agent.db", _HandClock(), _depot()
    store = SqliteStore(path, threaded=False)
    intake = Intake(depot, store, clock, RandomIds(3), last_seq=0, last_transaction_id=1)
    for each in (FLOOD, SOUND):
        await intake.handle(each, _start(each))
    for number in range(2):
        clock.at += timedelta(seconds=1)
        await intake.handle(FLOOD, _samples(FLOOD, clock.at, number, READINGS))
    for number in range(2, 12):
        clock.at += timedelta(seconds=1)
        await intake.handle(FLOOD, _samples(FLOOD, clock.at, number, 1))
        await intake.handle(SOUND, _samples(SOUND, clock.at, number, 1))
        left = tmp_path / str(number)
        left.mkdir()
        for file in tmp_path.glob("agent.db*"):  # as a kill would leave them
            shutil.copy(file, left)
        again, other = _depot(), SqliteStore(left / path.name, threaded=False)
        loaded = other.load({FLOOD: 150_000, SOUND: 150_000})
        recover(again, loaded)
        other.close()

        for each in (FLOOD, SOUND):
            assert dict(again.states[each].sessions) == dict(depot.states[each].sessions)
        (session,) = again.states[FLOOD].sessions.values()
        assert session.meter.register_wh == 1000.0 + number
    journal = await store.journal()
    store.close()

    rows = Counter((row.station_id, type(row.event).__name__) for row in journal)
    assert (rows[FLOOD, "MeterSampled"], rows[SOUND, "MeterSampled"]) == (2, 10)
