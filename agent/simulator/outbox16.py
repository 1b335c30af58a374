"""What a virtual 1.6 station owes the central system: transaction messages, statuses.

Transaction messages are kept while offline, sent in order and repeated on failure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.hardware import UNANSWERED
from agent.simulator.profile_rules import STATION
from agent.simulator.rpc import CallError, LinkDown, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulator.core16 import Core16
    from agent.simulator.hardware import Outlet, Transaction

OWED_MAX = 20_000  # a weekend offline with a reading a minute on several outlets
STATUSES_MAX = 1_000
STORM = 25  # how often the fault status-storm says each status


@dataclass(slots=True, kw_only=True)
class Owed:
    """One transaction message that waits for its answer."""

    action: str
    payload: dict[str, Any]
    transaction: Transaction
    on_answer: Callable[[dict[str, Any]], None] | None = None
    attempts: int = 0


class Outbox16:
    """The queue of transaction messages."""

    def __init__(self, core: Core16) -> None:
        """Begin empty."""
        self._core = core
        self._owed: deque[Owed] = deque(maxlen=OWED_MAX)

    def __len__(self) -> int:
        """Count the messages that are not answered yet."""
        return len(self._owed)

    def add(self, owed: Owed) -> None:
        """Owe a message; the faults start-twice, stop-twice, stop-never act here."""
        faults = self._core.faults
        if owed.action == "StopTransaction" and "stop-never" in faults:
            return
        is_reading = owed.action == "MeterValues" and not self._core.is_online
        if is_reading and "lose-offline-readings" in faults:
            return
        self._owed.append(owed)
        twice = {"StartTransaction": "start-twice", "StopTransaction": "stop-twice"}
        if twice.get(owed.action, "") in faults:
            self._owed.append(
                Owed(
                    action=owed.action,
                    payload=owed.payload,
                    transaction=owed.transaction,
                )
            )
        self._core.pulse()

    async def run(self) -> None:
        """Send what is owed, for ever."""
        core = self._core
        while True:
            await core.wait_for(lambda: bool(self._owed) and core.is_online)
            owed = self._owed[0]
            try:
                answer = await core.call(owed.action, self._filled(owed))
            except LinkDown:
                await core.wait_for(lambda: not core.is_online)
            except (CallError, NoAnswer):
                await self._after_failure(owed)
            else:
                self._done(owed)
                if owed.on_answer is not None:
                    owed.on_answer(answer)
                core.pulse()

    def _filled(self, owed: Owed) -> dict[str, Any]:
        """Add the transaction id, which may have come after the message was made."""
        if owed.action == "StartTransaction":
            return owed.payload
        transaction = owed.transaction
        transaction_id = transaction.transaction_id
        if transaction.began_offline and (
            "tx-id-minus-one-after-offline" in self._core.faults
        ):
            transaction_id = UNANSWERED
        return {**owed.payload, "transactionId": transaction_id}

    async def _after_failure(self, owed: Owed) -> None:
        core = self._core
        owed.attempts += 1
        is_stubborn = "never-gives-up" in core.faults
        if not is_stubborn and owed.attempts >= max(
            1, core.whole("TransactionMessageAttempts")
        ):
            core.note("out", "GAVE UP", owed.action, owed.payload)
            self._done(owed)
            return
        wait_s = core.whole("TransactionMessageRetryInterval") * owed.attempts
        await core.clock.sleep(wait_s)

    def _done(self, owed: Owed) -> None:
        if self._owed and self._owed[0] is owed:
            self._owed.popleft()


class Statuses16:
    """StatusNotification for each change; while offline only the last one counts."""

    def __init__(self, core: Core16) -> None:
        """Begin with nothing reported."""
        self._core = core
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque(maxlen=STATUSES_MAX)
        self._reported: dict[int, str] = {}

    def __len__(self) -> int:
        """Count the statuses that wait."""
        return len(self._waiting)

    def set(self, outlet: Outlet, status: str) -> None:
        """Change an outlet's status and report it, if it is new."""
        if outlet.status == status:
            return
        outlet.status = status
        if self._core.is_online:
            self.report(outlet.connector)
        self._core.pulse()

    def report(self, connector: int) -> None:
        """Report the status as it is; connector 0 is the station."""
        count = STORM if "status-storm" in self._core.faults else 1
        for _ in range(count):
            self._waiting.append((connector, self._payload(connector)))
        self._core.pulse()

    def report_all(self) -> None:
        """Report the station and all outlets, as after a boot."""
        self._waiting.clear()
        for connector in (STATION, *self._core.outlets):
            self.report(connector)

    def report_changed(self) -> None:
        """Report what changed while there was no link."""
        self._waiting.clear()
        for connector, outlet in self._core.outlets.items():
            if self._reported.get(connector) != outlet.status:
                self.report(connector)

    async def run(self) -> None:
        """Send what waits, for ever."""
        core = self._core
        while True:
            await core.wait_for(lambda: bool(self._waiting) and core.is_online)
            connector, payload = self._waiting.popleft()
            try:
                await core.call("StatusNotification", payload)
            except (CallError, NoAnswer):
                continue  # the next change is news enough
            except LinkDown:
                await core.wait_for(lambda: not core.is_online)
            else:
                self._reported[connector] = payload["status"]

    def _payload(self, connector: int) -> dict[str, Any]:
        status = "Available"
        if connector != STATION:
            status = self._core.outlets[connector].status
        odd = "unknown-error-code" in self._core.faults
        return {
            "connectorId": connector,
            "errorCode": "PlcModemShy" if odd else "NoError",
            "status": status,
            "timestamp": stamp(self._core.now()),
        }
