"""Sends what is owed to a cloud: in order within a session, until it was taken.

At least once; the key of a row makes a repeat harmless. A row that can never be taken
becomes a dead letter and the rest goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from agent.control.health import CloudHealth
from agent.domain.effects import SessionReport, StartSocReport
from agent.domain.errors import CloudFault, StoreFault
from agent.domain.ids import ScheduleId, SessionId
from agent.domain.retry import wait_s
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


class Drainer:
    """Drains the rows of one destination."""

    def __init__(
        self,
        destination: str,
        store: Store,
        fleet: Fleet,
        clock: Clock,
        ids: Ids,
        health: CloudHealth,
        *,
        texts: Callable[[], Mapping[ScheduleId, str]] = dict,
        idle_s: float = IDLE_S,
    ) -> None:
        """Prepare; ``run`` sends."""
        self._destination = destination
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._ids = ids
        self._health = health
        self._idle_s = idle_s
        self._texts = texts
        self._failures = 0

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                pause_s = await self._round()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
                pause_s = self._idle_s
            await asyncio.sleep(pause_s)

    async def _round(self) -> float:
        """Send what is due; returns the pause before the next round, real seconds."""
        now = self._clock.now()
        rows = await self._store.due_outbox(self._destination, BATCH)
        blocked: set[SessionId] = set()
        for row in rows:
            if row.session_id in blocked:
                continue
            blocked.add(row.session_id)  # the next row of this session waits for this one
            if row.next_at > now:
                continue
            fault = await self._send(row, now)
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
            "schedule_id": report.schedule_id,
            "kind": _kind(report),
        }
        text = self._texts().get(report.schedule_id)
        if text is None:
            text = await self._store.schedule_text(report.schedule_id)
        record: Record
        fault: CloudFault | None = None
        try:
            remark = await self._fleet.deliver(report, text)
            record = OutboxSent(row_id=row.row_id)
            self._failures = 0
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
        if fault.retryable:
            self._failures += 1
            self._health.failed(str(fault))
        pause_s = wait_s(
            max(self._failures, row.attempts + 1 if not fault.retryable else 1),
            chance=self._ids.chance(),
            retry_after_s=fault.retry_after_s,
        )
        is_dead = not fault.retryable
        return OutboxFailed(
            row_id=row.row_id,
            error=str(fault),
            next_at=now + timedelta(seconds=pause_s),
            is_dead=is_dead,
        )


def _kind(report: StartSocReport | SessionReport) -> str:
    return "start-soc" if isinstance(report, StartSocReport) else "session"
