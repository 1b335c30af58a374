"""Sessions for spreadsheets and scripts, a page at a time: ``sessions.export``.

The columns of the CSV and their order are fixed here; new ones are added at the end.
"""

from __future__ import annotations

from datetime import UTC, datetime

from agent.control import views
from agent.control.depot import Depot
from agent.control.operations import Arguments, OperationRefused, number_of, text_of
from agent.domain.ids import SessionId
from agent.domain.session import Session
from agent.ports import Store

COLUMNS: dict[str, str] = {
    "session_id": "key of the session; grows with time",
    "state": "plugged, charging, finished or ended; only ended ones are final",
    "station_id": "the station",
    "evse_id": "its EVSE",
    "connector_id": "its connector",
    "vehicle_id": "the vehicle of the registry, empty when none was recognised",
    "vin": "its VIN",
    "mac": "its MAC address, 12 hex digits",
    "account": "the payment account that it is linked to",
    "id_token": "what was presented at the station",
    "match": "unique, none or ambiguous",
    "schedule_id": "the slot that it was bound to",
    "plugged_at": "UTC, ISO 8601",
    "started_at": "first transaction began",
    "ended_at": "unplugged",
    "energy_wh": "energy into the vehicle by the station's register, Wh",
    "soc_start": "percent",
    "soc_end": "percent; of an open session the newest value",
    "soc_source": "station, needs, vehicle cloud or estimate",
    "transactions": "number of OCPP transactions",
    "stop_reason": "why the last one ended",
    "anomalies": "number of oddities on record; their texts are in the JSON lines",
}
"""Columns of the CSV, with what they hold."""
PAGE_MAX = 500
"""Sessions in one answer: some hundred kilobytes."""
FOREVER = datetime(9000, 1, 1, tzinfo=UTC)
START = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR_PARTS = 2


class SessionExport:
    """The operation; reads open sessions as they are in memory."""

    def __init__(self, depot: Depot, store: Store) -> None:
        """Read from these two."""
        self._depot = depot
        self._store = store

    async def page(self, arguments: Arguments) -> object:
        """One page of ``from`` (included) to ``to`` (not), by the time of plug-in.

        Returns ``rows``, each with ``columns`` (CSV values by name) and ``session`` (the
        whole record), and ``next``, to be passed as ``after``; None at the end.
        """
        since = _moment(arguments, "from", START)
        until = _moment(arguments, "to", FOREVER)
        limit = int(number_of(arguments, "limit", low=1, high=PAGE_MAX, default=PAGE_MAX))
        after = _cursor(text_of(arguments, "after", ""))
        found = await self._store.sessions_between(since, until, after=after, limit=limit)
        items = [self._newest(item) for item in found]
        last = found[-1] if len(found) == limit else None
        return {
            "rows": [_row(item) for item in items],
            "next": None
            if last is None
            else f"{int(last.plugged_at.timestamp() * 1000)}:{last.session_id}",
        }

    def _newest(self, stored: Session) -> Session:
        state = self._depot.states.get(stored.station_id)
        known = state.sessions if state is not None else {}
        return known.get(SessionId(stored.session_id), stored)


def _row(item: Session) -> dict[str, object]:
    whole = views.session(item)
    told: dict[str, object] = {
        **whole,
        "account": item.account_id,
        "soc_end": whole["soc_end"] if whole["soc_end"] is not None else whole["soc_now"],
        "transactions": len(item.transactions),
        "anomalies": len(item.anomalies),
    }
    return {"columns": {name: told.get(name) for name in COLUMNS}, "session": whole}


def _moment(arguments: Arguments, name: str, default: datetime) -> datetime:
    text = text_of(arguments, name, "")
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise OperationRefused(
            f"the argument {name} is no date: write 2026-01-15 or 2026-01-15T06:00:00Z"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _cursor(text: str) -> tuple[int, str]:
    if not text:
        return -1, ""
    parts = text.split(":", 1)
    if len(parts) != CURSOR_PARTS or not parts[0].isdecimal():
        raise OperationRefused("the argument after must be `next` of the page before")
    return min(int(parts[0]), 2**62), parts[1]
