"""How much of the disk one station may fill in a day (faults.md R3).

A station that is asked for two samples a minute writes 1 to 5 MiB a day. One that sends
fifty long messages a second would fill any gateway's disk before the morning, and with it
take the record of all others. Beyond its share only its state is written, in place; that
is whole after every message, so that nothing that counts is lost by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import structlog

from agent.domain import events
from agent.domain.ids import StationId
from agent.ports import JournalRow

log = structlog.get_logger()

DAY_BYTES_MAX = 50 * 2**20
"""A day of a station with 20 outlets that is asked for samples every 10 s fits (R3)."""
ROW_BYTES = 150
READING_BYTES = 130
"""What a row and each of its readings take in the journal, measured."""
LASTING = (
    events.TransactionStarted,
    events.TransactionEnded,
    events.TransactionReported,
)
"""Begins and ends of transactions are evidence: written whatever was written before."""


@dataclass(slots=True)
class DiskShare:
    """What one station wrote into the journal today (UTC)."""

    station_id: StationId
    day: date = date.min
    spent: int = 0

    def is_spent(self, now: datetime) -> bool:
        """Tell whether the station has written its share of today."""
        return self.spent > DAY_BYTES_MAX and self.day == now.date()

    def take(self, rows: Sequence[JournalRow], now: datetime) -> Sequence[JournalRow]:
        """Count rows; returns those that may be written, the last one too many told."""
        if self.day != now.date():
            self.day, self.spent = now.date(), 0
        if self.spent > DAY_BYTES_MAX:
            return [row for row in rows if isinstance(row.event, LASTING)]
        for row in rows:
            self._add(_bytes(row.event))
        return rows

    def count_readings(self, number: int) -> None:
        """Count one row of meter values: the hot path, so ``take`` looks at the day."""
        self._add(ROW_BYTES + READING_BYTES * number)

    def _add(self, size: int) -> None:
        self.spent += size
        if self.spent > DAY_BYTES_MAX >= self.spent - size:
            log.warning(
                "station_writes_much",
                station_id=self.station_id,
                reason=f"its messages took more than {DAY_BYTES_MAX >> 20} MiB today: "
                "until midnight (UTC) its state is kept, not each message",
            )


def _bytes(event: events.Event) -> int:
    if type(event) is events.MeterSampled:
        return ROW_BYTES + READING_BYTES * len(event.readings)
    if type(event) is events.TransactionReported:
        return 2 * ROW_BYTES + READING_BYTES * len(event.readings)
    return ROW_BYTES + len(repr(event))
