"""When to try again: doubling with full jitter, bounded, and what a cloud asked for."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
"""Five minutes: a cloud that was away for hours is found again soon (architecture 7)."""
LONGEST_ASKED_S = 3600.0
"""What a cloud asks for is honoured up to an hour: more is a mistake in its header."""


def wait_s(attempt: int, *, chance: float, retry_after_s: float | None = None) -> float:
    """Seconds to wait after the n-th failure in a row (n from 1).

    ``chance`` in [0, 1) is drawn by the caller. What the cloud asked for is honoured,
    up to an hour.
    """
    ceiling = min(FIRST_WAIT_S * 2.0 ** min(attempt - 1, 12), LONGEST_WAIT_S)
    wait = FIRST_WAIT_S / 2 + chance * max(ceiling - FIRST_WAIT_S / 2, 0.0)
    if retry_after_s is not None:
        return max(wait, min(retry_after_s, LONGEST_ASKED_S))
    return wait


def is_waiting(until: datetime, now: datetime) -> bool:
    """Whether a wait goes on. One that is longer than any was made by another clock."""
    return timedelta() < until - now <= timedelta(seconds=LONGEST_ASKED_S)
