"""Sends what is owed to a cloud: in order within a session, until it was taken.

At least once; the key of a row makes a repeat harmless. A row that can never be taken
becomes a dead letter and the rest goes on. A cloud that fails is left in peace for a
time that doubles with each failure in a row; a row that fails where others are taken
waits by its own count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from agent.control.health import CloudHealth
from agent.domain.effects import BillingReport, Report, StartSocReport
from agent.domain.errors import CloudFault, StoreFault
from agent.domain.ids import ScheduleId, SessionId
from agent.domain.retry import is_waiting, wait_s
from agent.ports import (
    Clock,
    Fleet,
    Ids,
    OutboxFailed,
    OutboxRow,
    OutboxSent,
    Record,
    Store,
)

log = structlog.get_logger()

BATCH = 100
"""Rows read at a time; one request is in flight per cloud."""
IDLE_S = 2.0
"""Real seconds between two looks when nothing is owed."""
SPACING_S = 0.05
"""Real seconds between two messages: a cloud that is back is not flooded."""


class Deliverer(Protocol):
    """Hands one row to where it belongs."""

    async def deliver(self, row: OutboxRow) -> str:
        """Deliver; returns a remark for the log. Raises CloudFault."""
        ...


class ToFleet:
    """Hands reports to the cloud of plans, with its own text of the schedule."""

    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        texts: Callable[[], Mapping[ScheduleId, str]] = dict,
    ) -> None:
        """Deliver to a fleet; ``texts`` are the schedules' texts in memory."""
        self._fleet = fleet
        self._store = store
        self._texts = texts

    async def deliver(self, row: OutboxRow) -> str:
        """Deliver a report about a slot."""
        report = row.report
        if isinstance(report, BillingReport):
            raise CloudFault("a bill is not for the cloud of plans", retryable=False)
        text = self._texts().get(report.schedule_id)
        if text is None:
            text = await self._store.schedule_text(report.schedule_id)
        return await self._fleet.deliver(report, text)


class Drainer:
    """Drains the rows of one destination."""

    def __init__(
        self,
        destination: str,
        store: Store,
        deliverer: Deliverer,
        clock: Clock,
        ids: Ids,
        health: CloudHealth,
        *,
        idle_s: float = IDLE_S,
    ) -> None:
        """Prepare; ``run`` sends."""
        self._destination = destination
        self._store = store
        self._deliverer = deliverer
        self._clock = clock
        self._ids = ids
        self._health = health
        self._idle_s = idle_s
        self._failures = 0
        self._rest_until: datetime | None = None

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                pause_s = await self.round()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
                pause_s = self._idle_s
            await asyncio.sleep(pause_s)

    def hurry(self) -> None:
        """Forget how long the cloud was to be left in peace: a technician asks."""
        self._rest_until = None

    async def round(self) -> float:
        """Send what is due; returns the pause before the next round, real seconds."""
        now = self._clock.now()
        if self._rest_until is not None and is_waiting(self._rest_until, now):
            return self._idle_s
        rows = await self._store.due_outbox(self._destination, BATCH)
        blocked: set[SessionId] = set()
        for row in rows:
            if row.session_id in blocked:
                continue
            blocked.add(row.session_id)  # the next row of this session waits for this one
            if is_waiting(row.next_at, now):
                continue
            fault = await self._send(row, self._clock.now())
            if fault is not None and fault.retryable:
                return self._idle_s
            if fault is None:
                await asyncio.sleep(SPACING_S)
        return SPACING_S if len(rows) > len(blocked) else self._idle_s

    async def _send(self, row: OutboxRow, now: datetime) -> CloudFault | None:
        report = row.report
        fields = {
            "cloud": self._destination,
            "session_id": row.session_id,
            "vehicle_id": report.vehicle_id,
            "key": row.key,
            "kind": kind(report),
        }
        if not isinstance(report, BillingReport):
            fields["schedule_id"] = report.schedule_id
        record: Record
        fault: CloudFault | None = None
        try:
            remark = await self._deliverer.deliver(row)
            record = OutboxSent(row_id=row.row_id)
            self._failures = 0
            self._rest_until = None
            self._health.succeeded()
            log.info("report_delivered", **fields, remark=remark)
        except CloudFault as caught:
            fault = caught
            record = self._failed(row, caught, now)
            if record.is_dead:
                log.error("outbox_dead_letter", **fields, reason=str(caught))
        await self._store.commit([record], self._clock.now())
        return fault

    def _failed(self, row: OutboxRow, fault: CloudFault, now: datetime) -> OutboxFailed:
        if not fault.retryable:
            return OutboxFailed(
                row_id=row.row_id, error=str(fault), next_at=now, is_dead=True
            )
        self._failures += 1
        self._health.failed(str(fault))
        rest_s = self._wait_s(self._failures, fault)
        self._rest_until = now + timedelta(seconds=rest_s)
        own_s = self._wait_s(row.attempts + 1, fault)
        return OutboxFailed(
            row_id=row.row_id, error=str(fault), next_at=now + timedelta(seconds=own_s)
        )

    def _wait_s(self, failures: int, fault: CloudFault) -> float:
        return wait_s(
            failures, chance=self._ids.chance(), retry_after_s=fault.retry_after_s
        )


def kind(report: Report) -> str:
    """What a report is, in a word."""
    if isinstance(report, BillingReport):
        return "bill" if report.corrects is None else "corrected-bill"
    return "start-soc" if isinstance(report, StartSocReport) else "session"
