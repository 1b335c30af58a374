"""faults.md D8: killed between the delivery of a message and the note that it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import ports
from agent.control import outbox
from agent.control.health import CloudHealth
from agent.control.outbox import Drainer
from agent.domain.effects import OutboxAdded, StartSocReport
from agent.domain.ids import ScheduleId, SessionId, VehicleId
from agent.host.clock import RandomIds
from agent.store.sqlite import SqliteStore
from tests.faults.means import chance_of, rounds

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
SESSIONS, REPORTS = 10, 4


class _Killed(BaseException):
    """The process is gone: nothing catches it, nothing is cleaned up."""


class _Clock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class _Mortal(SqliteStore):
    """The real store; the k-th note of a delivery is never written."""

    dies_at = 0
    noted = 0

    async def commit(self, records: Sequence[ports.Record], now: datetime) -> None:
        if any(isinstance(record, ports.OutboxSent) for record in records):
            self.noted += 1
            if self.noted == self.dies_at:
                raise _Killed
        await super().commit(records, now)


class _Cloud:
    """Takes all, and knows a message again by its key."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.taken: dict[str, list[str]] = {}

    async def deliver(self, row: ports.OutboxRow) -> str:
        self.seen.append(row.key)
        own = self.taken.setdefault(row.session_id, [])
        if row.key not in own:
            own.append(row.key)
        return "taken"


async def test_d8_a_kill_after_the_delivery_loses_nothing_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SPACING_S", 0.0)
    chance = chance_of("D8")
    path = tmp_path / "agent.db"
    store = _Mortal(path, threaded=False)
    for number in range(REPORTS):
        for session in range(SESSIONS):
            report = StartSocReport(
                vehicle_id=VehicleId("bus"),
                schedule_id=ScheduleId("slot"),
                soc_percent=float(number),
            )
            added = OutboxAdded(
                destination="cloud",
                key=f"{session}-{number}",
                session_id=SessionId(f"S{session}"),
                report=report,
            )
            await store.commit([added], NOW)
    store.close()
    cloud, clock, kills = _Cloud(), _Clock(), 0
    while True:
        store = _Mortal(path, threaded=False)
        deaths_left = rounds(50, 500) - kills
        store.dies_at = chance.randrange(1, 3) if deaths_left > 0 else 0
        drainer = Drainer(
            "cloud", store, cloud, clock, RandomIds(1), CloudHealth("cloud", clock)
        )
        try:
            while await store.due_outbox("cloud", 1):
                await drainer.round()
        except _Killed:
            kills += 1
            store.close()
            continue
        left = await store.outbox_rows()
        store.close()
        break

    assert left == []
    assert kills >= 20
    assert len(cloud.seen) == SESSIONS * REPORTS + kills
    for session in range(SESSIONS):
        wanted = [f"{session}-{number}" for number in range(REPORTS)]
        assert cloud.taken[f"S{session}"] == wanted
