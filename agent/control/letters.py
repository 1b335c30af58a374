"""What a technician may do with messages that are owed: look, send again, give up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from agent.control.operations import (
    Arguments,
    OperationRefused,
    Operations,
    flag_of,
    text_of,
)
from agent.control.outbox import kind
from agent.control.views import Json, iso
from agent.domain.effects import Report
from agent.ports import Clock, OutboxDropped, OutboxRevived, OutboxRow, Record, Store

log = structlog.get_logger()

LISTED_MAX = 1000
Body = Callable[[OutboxRow], object]
"""What a message says, as it is shown to people."""


class Letters:
    """The operations ``outbox.*``."""

    def __init__(
        self, store: Store, clock: Clock, body: Body, hurry: Callable[[], None]
    ) -> None:
        """Prepare; ``hurry`` lets the senders look at once."""
        self._store = store
        self._clock = clock
        self._body = body
        self._hurry = hurry

    def add_to(self, operations: Operations) -> None:
        """Offer them."""
        operations.add("outbox.list", self.listed)
        operations.add("outbox.show", self.show)
        operations.add("outbox.resend", self.resend)
        operations.add("outbox.drop", self.drop)

    async def listed(self, arguments: Arguments) -> object:
        """All messages that are owed, oldest first; ``dead``: only dead letters."""
        only_dead = flag_of(arguments, "dead")
        rows = await self._store.outbox_rows()
        return [_row(row) for row in rows if row.is_dead or not only_dead][:LISTED_MAX]

    async def show(self, arguments: Arguments) -> object:
        """One message whole, by its key."""
        row = await self._find(arguments)
        return _row(row) | {"body": self._body(row)}

    async def resend(self, arguments: Arguments) -> object:
        """Try a message again now, or all dead letters with ``all_dead``."""
        if flag_of(arguments, "all_dead"):
            rows = [row for row in await self._store.outbox_rows() if row.is_dead]
        else:
            rows = [self._owed(await self._find(arguments), "sent again")]
        await self._write([OutboxRevived(row_id=row.row_id) for row in rows])
        for row in rows:
            log.info("outbox_resent", **_names(row))
        self._hurry()
        return {"resent": [row.key for row in rows]}

    async def drop(self, arguments: Arguments) -> object:
        """Give a message up for ever; needs ``yes``."""
        row = self._owed(await self._find(arguments), "given up")
        if not flag_of(arguments, "yes"):
            raise OperationRefused(
                f"{row.key} would never reach {row.destination}: confirm it with --yes"
            )
        await self._write([OutboxDropped(row_id=row.row_id)])
        log.warning("outbox_dropped", **_names(row), error=row.error)
        return {"dropped": row.key}

    async def _find(self, arguments: Arguments) -> OutboxRow:
        key = text_of(arguments, "key")
        destination = text_of(arguments, "destination", "")
        rows = await self._store.outbox_of(key)
        rows = [row for row in rows if destination in ("", row.destination)]
        if not rows:
            raise OperationRefused(
                f"there is no message {key}: see `depot-agent outbox --json`", status=404
            )
        if len(rows) > 1:
            names = " or ".join(row.destination for row in rows)
            raise OperationRefused(f"{key} is owed to {names}: name one --destination")
        return rows[0]

    @staticmethod
    def _owed(row: OutboxRow, what: str) -> OutboxRow:
        if row.sent_at is None:
            return row
        ended = "was given up" if row.is_dead else "was delivered"
        raise OperationRefused(
            f"{row.key} {ended} at {iso(row.sent_at)}: it cannot be {what}", status=409
        )

    async def _write(self, records: Sequence[Record]) -> None:
        if records:
            await self._store.commit(records, self._clock.now())


def _row(row: OutboxRow) -> Json:
    """One message in a line."""
    return {
        "key": row.key,
        "destination": row.destination,
        "kind": kind(row.report),
        "state": _state(row),
        "session_id": row.session_id,
        "vehicle_id": _vehicle(row.report),
        "created_at": iso(row.created_at),
        "attempts": row.attempts,
        "next_at": iso(row.next_at) if row.attempts and not row.is_dead else None,
        "sent_at": iso(row.sent_at),
        "error": row.error or None,
    }


def _state(row: OutboxRow) -> str:
    if row.sent_at is not None:
        return "dropped" if row.is_dead else "delivered"
    return "dead" if row.is_dead else "pending"


def _vehicle(report: Report) -> str | None:
    return report.vehicle_id


def _names(row: OutboxRow) -> dict[str, str | None]:
    return {
        "cloud": row.destination,
        "key": row.key,
        "session_id": row.session_id,
        "vehicle_id": _vehicle(row.report),
        "kind": kind(row.report),
    }
