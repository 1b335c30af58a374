"""Start-up and recovery are the same: load, replay the journal's tail, go on."""

from __future__ import annotations

import structlog

from agent.control.depot import Depot
from agent.domain.rules import advance
from agent.ports import Loaded

log = structlog.get_logger()


def recover(depot: Depot, loaded: Loaded) -> int:
    """Bring the depot to where the journal ends; returns the number of open sessions.

    Pure but for the log: the tail was committed, so replaying it cannot fail.
    """
    depot.take(loaded)
    for row in loaded.tail:
        decision = advance(
            depot.state(row.station_id),
            row.event,
            now=row.at,
            new_session_id=row.new_session_id,
        )
        depot.states[row.station_id] = decision.state
    opened = len(depot.open_sessions())
    log.info(
        "state_recovered",
        stations=len(depot.states),
        sessions_open=opened,
        events_replayed=len(loaded.tail),
    )
    return opened
