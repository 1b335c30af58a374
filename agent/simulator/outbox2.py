"""What a virtual 2.x station owes the central system: transaction events and statuses.

Events are kept while offline, sent in order and repeated on failure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.profile_rules import STATION
from agent.simulator.rpc import CallError, LinkDown, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from agent.simulator.core2 import Core2
    from agent.simulator.hardware import Outlet

STATUSES_MAX = 1_000
STORM = 25  # how often the fault status-storm says each status
ATTEMPTS = "OCPPCommCtrlr.MessageAttempts[TransactionEvent]"
ATTEMPT_INTERVAL = "OCPPCommCtrlr.MessageAttemptInterval[TransactionEvent]"


@dataclass(slots=True, kw_only=True)
class Owed2:
    """One transaction event that waits for its answer."""

    payload: dict[str, Any]
    on_answer: Callable[[dict[str, Any]], None] | None = None
    attempts: int = 0

    @property
    def kind(self) -> str:
        """Started, Updated or Ended."""
        return str(self.payload["eventType"])

    @property
    def transaction_id(self) -> str:
        """The transaction that it belongs to."""
        return str(self.payload["transactionInfo"]["transactionId"])


class Outbox2:
    """The queue of transaction events."""

    def __init__(self, core: Core2) -> None:
        """Begin empty."""
        self._core = core
        self._owed: deque[Owed2] = deque()

    def __len__(self) -> int:
        """Count the events that are not answered yet."""
        return len(self._owed)

    def owes(self, transaction_id: str | None) -> bool:
        """Tell whether an event waits, of one transaction or of any."""
        return any(transaction_id in (None, each.transaction_id) for each in self._owed)

    def add(self, owed: Owed2) -> None:
        """Owe an event; the faults that repeat, lose or reorder events act here."""
        faults = self._core.faults
        if owed.kind == "Ended" and "stop-never" in faults:
            return
        is_reading = owed.kind == "Updated" and not self._core.is_online
        if is_reading and "lose-offline-readings" in faults:
            return
        at = len(self._owed)
        if owed.kind == "Ended" and "ended-first" in faults and not self._core.is_online:
            at = self._first_update(owed)
        twice = {"Started": "start-twice", "Ended": "stop-twice"}
        count = 2 if twice.get(owed.kind, "") in faults else 1
        for number in range(count):
            again = Owed2(payload=owed.payload)
            self._owed.insert(at + number, again if number else owed)
        if len(self._owed) > self._core.config.events_max:
            self._thin_out()
        self._core.pulse()

    async def run(self) -> None:
        """Send what is owed, for ever."""
        core = self._core
        while True:
            await core.wait_for(lambda: bool(self._owed) and core.is_online)
            owed = self._owed[0]
            try:
                answer = await core.call("TransactionEvent", owed.payload)
            except LinkDown:
                await core.wait_for(lambda: not core.is_online)
            except (CallError, NoAnswer):
                await self._after_failure(owed)
            else:
                self._done(owed)
                if owed.on_answer is not None:
                    owed.on_answer(answer)
                core.pulse()

    def _first_update(self, owed: Owed2) -> int:
        for at, each in enumerate(self._owed):
            is_same = each.transaction_id == owed.transaction_id
            if is_same and each.kind == "Updated" and at > 0:
                return at
        return len(self._owed)

    def _thin_out(self) -> None:
        """Drop every second Updated event but for the one that may be under way."""
        kept: deque[Owed2] = deque()
        updates = 0
        for at, each in enumerate(self._owed):
            updates += each.kind == "Updated"
            if at == 0 or each.kind != "Updated" or updates % 2:
                kept.append(each)
        self._core.note("own", "THINNED", "TransactionEvent", len(self._owed) - len(kept))
        self._owed = kept

    async def _after_failure(self, owed: Owed2) -> None:
        core = self._core
        owed.attempts += 1
        is_stubborn = "never-gives-up" in core.faults
        if not is_stubborn and owed.attempts >= max(1, core.whole(ATTEMPTS)):
            core.note("out", "GAVE UP", "TransactionEvent", owed.payload)
            self._done(owed)
            return
        await core.clock.sleep(core.whole(ATTEMPT_INTERVAL) * owed.attempts)

    def _done(self, owed: Owed2) -> None:
        if owed in self._owed:
            self._owed.remove(owed)


class Statuses2:
    """StatusNotification for each change; while offline only the last one counts."""

    def __init__(self, core: Core2) -> None:
        """Begin with nothing reported."""
        self._core = core
        self._waiting: deque[dict[str, Any]] = deque(maxlen=STATUSES_MAX)
        self._reported: dict[int, str] = {}

    def __len__(self) -> int:
        """Count the statuses that wait."""
        return len(self._waiting)

    def refresh(self, outlet: Outlet) -> None:
        """Find what an outlet's status is now, and report it if it is new."""
        status = self._status(outlet)
        if outlet.status == status:
            return
        outlet.status = status
        if self._core.is_online:
            self.report(outlet.connector)
        self._core.pulse()

    def report(self, evse: int) -> None:
        """Report the status of an EVSE's connector as it is."""
        count = STORM if "status-storm" in self._core.faults else 1
        for _ in range(count):
            self._waiting.append(self._payload(evse, self._core.outlets[evse].status))
        self._core.pulse()

    def report_all(self) -> None:
        """Report all outlets, as after a boot."""
        self._waiting.clear()
        if "status-evse-zero" in self._core.faults:
            self._waiting.append(self._payload(STATION, "Available"))
        for evse in self._core.outlets:
            self.report(evse)

    def report_back(self, offline_since: datetime | None) -> None:
        """Report what changed without a link; after a long spell, report all."""
        threshold_s = self._core.whole("OCPPCommCtrlr.OfflineThreshold")
        now = self._core.clock.now()
        if offline_since and (now - offline_since).total_seconds() > threshold_s:
            self.report_all()
            return
        self._waiting.clear()
        for evse, outlet in self._core.outlets.items():
            if self._reported.get(evse) != outlet.status:
                self.report(evse)

    async def run(self) -> None:
        """Send what waits, for ever."""
        core = self._core
        while True:
            await core.wait_for(lambda: bool(self._waiting) and core.is_online)
            payload = self._waiting.popleft()
            try:
                await core.call("StatusNotification", payload)
            except (CallError, NoAnswer):
                continue  # the next change is news enough
            except LinkDown:
                await core.wait_for(lambda: not core.is_online)
            else:
                self._reported[payload["evseId"]] = payload["connectorStatus"]

    @staticmethod
    def _status(outlet: Outlet) -> str:
        is_running = outlet.transaction_id is not None
        if not outlet.is_operative and not is_running:
            return "Unavailable"
        if outlet.vehicle is not None:
            return "Occupied"
        return "Available" if outlet.reservation_id is None else "Reserved"

    def _payload(self, evse: int, status: str) -> dict[str, Any]:
        return {
            "timestamp": stamp(self._core.now()),
            "connectorStatus": status,
            "evseId": evse,
            "connectorId": 0 if evse == STATION else 1,
        }
