"""Calls to one 2.x station: only what fits the schema, and never twice what it lacks."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from agent.domain.ids import StationId
from agent.ports import Priority
from agent.stations import schemas
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome, Link

log = structlog.get_logger()

UNSUPPORTED = frozenset({"NotSupported", "NotImplemented"})
"""A station that answers so will do so again as long as the link lives."""
NOT_SENT = "NotSent"
"""Code of a call that would break its schema, because of what a peer said earlier."""


@dataclass(slots=True)
class Caller:
    """Calls over one link, and remembers which messages the station does not know."""

    station_id: StationId
    version: str
    link: Link
    _unsupported: set[str] = field(default_factory=set)

    def answers(self, action: str, outcome: CallOutcome) -> bool:
        """Whether more of these calls may be of use, after one that ended so."""
        return outcome.is_answered and action not in self._unsupported

    async def call(self, action: str, payload: Payload, priority: Priority) -> CallOutcome:
        """Call and wait for the outcome; never raises."""
        if action in self._unsupported:
            return CallOutcome(None, "NotSupported")
        found = schemas.breach(self.version, action, payload)
        if found is not None:
            return CallOutcome(None, NOT_SENT, found.text)
        outcome = await self.link.call(action, payload, priority)
        if outcome.payload is None and outcome.code in UNSUPPORTED:
            self._unsupported.add(action)
            log.info("call_not_supported", station_id=self.station_id, action=action)
        return outcome


def status_of(outcome: CallOutcome) -> str:
    """The status in an answer, or nothing."""
    status = (outcome.payload or {}).get("status")
    return status if isinstance(status, str) else ""
