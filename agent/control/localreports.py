"""Settles reports that no cloud is owed: those of schedules that a local file gave.

Sessions are reported by one rule, whoever made the schedule. Without a cloud nothing
would ever take those rows; the session's record and the export hold what was charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from agent.domain.effects import SessionReport, StartSocReport
from agent.domain.errors import StoreFault
from agent.domain.ids import ScheduleId
from agent.ports import Clock, OutboxRow, OutboxSent, Store

log = structlog.get_logger()

BATCH = 1000
"""Rows looked at in one round; those of a cloud that is no longer configured stay."""


class LocalReports:
    """Takes local rows out of the outbox of a destination that nobody drains."""

    def __init__(
        self,
        destination: str,
        store: Store,
        clock: Clock,
        is_local: Callable[[str | None], bool],
        *,
        texts: Callable[[], Mapping[ScheduleId, str]],
        every_s: float,
    ) -> None:
        """Prepare; ``is_local`` tells by a schedule's stored text, ``every_s`` is real."""
        self._destination = destination
        self._store = store
        self._clock = clock
        self._is_local = is_local
        self._texts = texts
        self._every_s = every_s

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            try:
                await self._round()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
            await asyncio.sleep(self._every_s)

    async def _round(self) -> None:
        rows = await self._store.due_outbox(self._destination, BATCH)
        done = [OutboxSent(row_id=row.row_id) for row in rows if await self._is_ours(row)]
        if done:
            await self._store.commit(done, self._clock.now())

    async def _is_ours(self, row: OutboxRow) -> bool:
        report = row.report
        if not isinstance(report, (StartSocReport, SessionReport)):
            return False
        schedule_id = report.schedule_id
        text = self._texts().get(schedule_id)
        if text is None:
            text = await self._store.schedule_text(schedule_id)
        return self._is_local(text)
