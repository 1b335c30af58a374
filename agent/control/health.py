"""Whether a cloud answers: one log line when it goes, one when it is back."""

from __future__ import annotations

from datetime import datetime

import structlog

from agent.ports import Clock

log = structlog.get_logger()

FAILURES_TOLD = 2
"""One failed request is a hiccup; the second in a row is told."""


class CloudHealth:
    """Counts failures in a row over all users of one cloud."""

    def __init__(self, name: str, clock: Clock) -> None:
        """Start with nothing known."""
        self.name = name
        self.failures = 0
        self.since: datetime | None = None
        self.last_error = ""
        self._clock = clock
        self._told = False

    @property
    def is_reachable(self) -> bool:
        """Whether the last request succeeded."""
        return self.failures == 0

    def succeeded(self) -> None:
        """Note a success."""
        if self._told and self.since is not None:
            away_s = (self._clock.now() - self.since).total_seconds()
            log.info("cloud_recovered", cloud=self.name, away_s=round(away_s))
        self.failures = 0
        self.since = None
        self._told = False
        self.last_error = ""

    def failed(self, error: str) -> None:
        """Note a failure."""
        self.failures += 1
        self.last_error = error[:200]
        if self.since is None:
            self.since = self._clock.now()
        if self.failures >= FAILURES_TOLD and not self._told:
            self._told = True
            log.warning("cloud_unreachable", cloud=self.name, reason=self.last_error)
