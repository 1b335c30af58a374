"""The OCPP-J machine of one link, without I/O: who may speak, what answers what.

One call of ours is in flight at a time; waiting calls go by priority, then by age.
Answers are matched by id in bounded tables, late ones included; an answer to nobody is
counted and dropped. A repeated CALL with the same id and content gets the stored answer.
Time is an argument: seconds of a monotonic clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.ports import Priority
from agent.stations import framing

WAITING_MAX = 64
"""Calls waiting for one station; more means that something runs wild (C6)."""
LATE_MAX = 32
"""Timed-out calls that may still be answered late (RPC-03)."""
LATE_S = 600.0
"""How long a late answer is still understood."""
ANSWERED_MAX = 8
"""Answers kept for repeated calls of the station."""
YIELD_S = 3.0
"""A read or a setting gives up its turn after this when a limit waits: buses first."""

PATIENCE_S: dict[Priority, float] = {
    Priority.REDUCTION: 15.0,
    Priority.LIMIT: 20.0,
    Priority.OPERATOR: 30.0,
    Priority.READ: 30.0,
    Priority.SETUP: 30.0,
}
"""Time-outs in seconds: LAN stations answer within 10 to 15 s (ocpp-depot.md C4)."""


@dataclass(slots=True)
class Outgoing:
    """A call of ours on its way; ``token`` is the caller's own handle."""

    message_id: str
    action: str
    payload: framing.Payload
    priority: Priority
    token: Any
    on_late: Callable[[Any], None] | None = None
    sent_at: float | None = None
    timed_out: bool = False


@dataclass(slots=True)
class Answered:
    """An answer that was matched; ``is_late`` when the caller gave up before."""

    call: Outgoing
    answer: framing.CallResult | framing.CallError
    is_late: bool


@dataclass(slots=True)
class RpcMachine:
    """State of one link's calls; see the module."""

    in_flight: Outgoing | None = None
    unmatched: int = 0
    timeouts_in_a_row: int = 0
    _waiting: list[tuple[int, int, Outgoing]] = field(default_factory=list)
    _late: OrderedDict[str, Outgoing] = field(default_factory=OrderedDict)
    _answered: OrderedDict[str, tuple[int, str]] = field(default_factory=OrderedDict)
    _count: int = 0

    # --- our calls ------------------------------------------------------------

    def submit(self, call: Outgoing) -> bool:
        """Queue a call; False when the queue is full and the call is refused."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._count += 1
        heapq.heappush(self._waiting, (call.priority, self._count, call))
        return True

    def next_call(self, now: float) -> Outgoing | None:
        """Take the call that may be sent now, if any; it is then in flight."""
        if self.in_flight is not None or not self._waiting:
            return None
        call = heapq.heappop(self._waiting)[2]
        call.sent_at = now
        self.in_flight = call
        return call

    def expires_at(self) -> float | None:
        """Tell when the call in flight will have waited long enough."""
        call = self.in_flight
        if call is None or call.sent_at is None:
            return None
        patience = PATIENCE_S[call.priority]
        if self._limit_waits() and call.priority > Priority.LIMIT:
            patience = min(patience, YIELD_S)
        return call.sent_at + patience

    def expire(self, now: float) -> Outgoing | None:
        """Give up the call in flight when its time is over; late answers still count."""
        expires_at = self.expires_at()
        call = self.in_flight
        if call is None or expires_at is None or now < expires_at:
            return None
        self.in_flight = None
        self.timeouts_in_a_row += 1
        call.timed_out = True
        self._late[call.message_id] = call
        while len(self._late) > LATE_MAX:
            self._late.popitem(last=False)
        return call

    def answered(
        self, answer: framing.CallResult | framing.CallError, now: float
    ) -> Answered | None:
        """Match an answer by its id; None when nobody asked."""
        call = self.in_flight
        if call is not None and call.message_id == answer.message_id:
            self.in_flight = None
            self.timeouts_in_a_row = 0
            return Answered(call, answer, is_late=False)
        late = self._late.pop(answer.message_id, None)
        if late is not None and late.sent_at is not None and now - late.sent_at <= LATE_S:
            self.timeouts_in_a_row = 0  # slow, but it does not hang
            return Answered(late, answer, is_late=True)
        self.unmatched += 1
        return None

    def drain(self) -> list[Outgoing]:
        """Take out all calls that will never be answered: the link is gone."""
        left = [item[2] for item in self._waiting]
        self._waiting.clear()
        if self.in_flight is not None:
            left.insert(0, self.in_flight)
            self.in_flight = None
        return left

    # --- the peer's calls -------------------------------------------------------

    def repeated(self, message_id: str, text: str | bytes) -> str | None:
        """The stored answer when this very call was answered before on this link."""
        known = self._answered.get(message_id)
        if known is not None and known[0] == hash(text):
            return known[1]
        return None

    def remember(self, message_id: str, text: str | bytes, answer: str) -> None:
        """Keep an answer for a repeat of the same call."""
        self._answered[message_id] = (hash(text), answer)
        if len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)

    def _limit_waits(self) -> bool:
        return bool(self._waiting) and self._waiting[0][0] <= Priority.LIMIT
