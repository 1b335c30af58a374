"""Faults to order, and the ledger of what clients asked.

Kinds: `503`, `429`, `401`, `slow` (answers late), `cut` (no answer, not applied),
`lost-answer` (applied, then cut), `truncated`, `html`, `bad-json`, `redirect`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

FaultKind = Literal[
    "503", "429", "401", "slow", "cut", "lost-answer", "truncated", "html",
    "bad-json", "redirect",
]  # fmt: skip
FAULT_KINDS: tuple[FaultKind, ...] = (
    "503", "429", "401", "slow", "cut", "lost-answer", "truncated", "html",
    "bad-json", "redirect",
)  # fmt: skip
RECORDS_MAX = 20_000
"""A day of polls every 5 s with room; bodies are small."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault, for the next `count` matching requests; None means for ever."""

    kind: FaultKind
    path_contains: str = ""
    method: str | None = None
    count: int | None = 1
    retry_after_s: int | None = None
    delay_s: float = 1.0
    location: str = "https://elsewhere.invalid/api/vehicles"

    def matches(self, method: str, path: str) -> bool:
        """Tell whether it strikes this request."""
        if self.method is not None and self.method.upper() != method:
            return False
        return self.path_contains in path and self.count != 0


class Striking(Protocol):
    """What any fault can tell, whichever cloud it is of."""

    count: int | None

    def matches(self, method: str, path: str) -> bool:
        """Tell whether it strikes this request."""
        ...


F = TypeVar("F", bound=Striking)


class FaultQueue(Generic[F]):
    """The faults in force, oldest first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._faults: list[F] = []

    def add(self, fault: F) -> None:
        """Put `fault` in force behind the others."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Lift all faults."""
        self._faults.clear()

    def take(self, method: str, path: str) -> F | None:
        """Return the first that matches, and count it as used."""
        for fault in self._faults:
            if fault.matches(method, path):
                if fault.count is not None:
                    fault.count -= 1
                return fault
        return None


class Faults(FaultQueue[Fault]):
    """ChargEye's faults in force."""

    def add(self, fault: Fault) -> None:
        """Put `fault` in force behind the others; ValueError for one that is none."""
        if fault.kind not in FAULT_KINDS:
            raise ValueError(f"fault kind {fault.kind} is not one of {FAULT_KINDS}")
        super().add(fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request; `status` is 0 when the connection was cut. Holds no token."""

    time: datetime
    method: str
    path: str
    query: str
    status: int
    body: Any

    def json(self) -> dict[str, Any]:
        """Return it for `/_control/ledger`."""
        return {
            "time": self.time.isoformat(),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "status": self.status,
            "body": self.body,
        }

    def carries(self, key: str) -> bool:
        """Tell whether the body, or one of its schedules, has `key`."""
        if not isinstance(self.body, dict):
            return False
        rows = self.body.get("schedules")
        items = rows if isinstance(rows, list) else []
        if any(isinstance(item, dict) and _has(item, key) for item in items):
            return True
        return key in self.body


class Ledger:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        """Begin empty."""
        self._records: deque[RequestRecord] = deque(maxlen=RECORDS_MAX)

    def __iter__(self) -> Iterator[RequestRecord]:
        """Walk from the oldest to the newest."""
        return iter(self._records)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._records)

    def __getitem__(self, index: int) -> RequestRecord:
        """Return one by its position."""
        return self._records[index]

    def append(self, record: RequestRecord) -> None:
        """Keep `record`, dropping the oldest when full."""
        self._records.append(record)

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()

    def matching(
        self, method: str | None = None, path_contains: str = "", key: str | None = None
    ) -> list[RequestRecord]:
        """Requests with this method, path and key in the body (or its schedules).

        `key` also finds `plan.pastSegments` by its last part, `pastSegments`.
        """
        return [
            record
            for record in self._records
            if (method is None or record.method == method)
            and path_contains in record.path
            and (key is None or record.carries(key))
        ]


def _has(item: dict[str, Any], key: str) -> bool:
    plan = item.get("plan")
    return key in item or (isinstance(plan, dict) and key in plan)
