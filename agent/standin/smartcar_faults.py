"""Faults to order for the stand-in Smartcar, and the log of what clients asked.

Kinds: `error` (a row of the error table, by name), `slow`, `cut` (no answer, not
applied), `lost-answer` (applied, then cut), `truncated`, `html`, `bad-json`,
`redirect`, `504` (applied, answer given up as a proxy does); for commands also `late`,
`late-failure`, `late-cut`, `late-pending` (202 at once, the outcome streamed after
`delay_s` of the clock) and `failure` (200 that says FAILURE).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from agent.standin.faults import FaultQueue
from agent.standin.smartcar_errors import ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from agent.standin.schedules import JsonObject

CarFaultKind = Literal[
    "error", "slow", "cut", "lost-answer", "truncated", "html", "bad-json", "redirect",
    "504", "late", "late-failure", "late-cut", "late-pending", "failure",
]  # fmt: skip
CAR_FAULT_KINDS: tuple[str, ...] = get_args(CarFaultKind)
COMMAND_KINDS = frozenset({"late", "late-failure", "late-cut", "late-pending", "failure"})
TOKEN_PATHS = ("/oauth2/token", "/oauth/token")
RECORDS_MAX = 20_000
"""A month within all allowances of forty vehicles."""


@dataclass(slots=True, kw_only=True)
class CarFault:
    """One fault, for the next `count` matching requests; None means for ever.

    The token endpoints are struck only by a fault whose `path_contains` names them.
    `vehicle`: a vehicle id; empty for any. `name`: `TYPE:CODE` of an `error` and of the
    error that a `late-failure` streams. `delay_s` is in the clock's seconds,
    `delay_real_s` (of `slow`) comes on top and is not.
    """

    kind: CarFaultKind
    vehicle: str = ""
    path_contains: str = ""
    method: str | None = None
    count: int | None = 1
    name: str = "SERVER:INTERNAL"
    retry_after_s: int | None = None
    delay_s: float = 1.0
    delay_real_s: float = 0.0
    location: str = "https://elsewhere.invalid/v3/vehicles"

    def matches(self, method: str, path: str) -> bool:
        """Tell whether it strikes this request."""
        if self.method is not None and self.method.upper() != method:
            return False
        if path in TOKEN_PATHS and not self.path_contains:
            return False
        if self.vehicle and f"/vehicles/{self.vehicle}/" not in f"{path}/":
            return False
        if self.kind in COMMAND_KINDS and "/commands/" not in path:
            return False
        return self.path_contains in path and self.count != 0


class CarFaults(FaultQueue[CarFault]):
    """Smartcar's faults in force."""

    def add(self, fault: CarFault) -> None:
        """Put `fault` in force behind the others; ValueError for one that is none."""
        if fault.kind not in CAR_FAULT_KINDS:
            raise ValueError(f"fault kind {fault.kind} is not one of {CAR_FAULT_KINDS}")
        if fault.name not in ERRORS:
            raise ValueError(f"error {fault.name} is not in the table")
        super().add(fault)


CallKind = Literal["token", "read", "command", "connection", "management", "other"]


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One request. `status` is 0 while it is open and when it was cut.

    `kind`: `read` and `command` are those that use a vehicle's allowance, `calls` how
    many they count as. Holds no secret: tokens and credentials are left out.
    """

    time: datetime
    method: str
    path: str
    query: str = ""
    status: int = 0
    kind: CallKind = "other"
    vehicle_id: str = ""
    user_id: str = ""
    user_agent: str = ""
    calls: int = 0
    fault: str = ""
    body: Any = None

    def json(self) -> JsonObject:
        """Return it for `/_control/smartcar/ledger`."""
        return {
            "time": self.time.isoformat(),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "status": self.status,
            "kind": self.kind,
            "vehicleId": self.vehicle_id,
            "userId": self.user_id,
            "userAgent": self.user_agent,
            "calls": self.calls,
            "fault": self.fault,
            "body": self.body,
        }


class CallLog:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        """Begin empty."""
        self._records: deque[CallRecord] = deque(maxlen=RECORDS_MAX)

    def __iter__(self) -> Iterator[CallRecord]:
        """Walk from the oldest to the newest."""
        return iter(self._records)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._records)

    def __getitem__(self, index: int) -> CallRecord:
        """Return one by its position."""
        return self._records[index]

    def append(self, record: CallRecord) -> None:
        """Keep `record`, dropping the oldest when full."""
        self._records.append(record)

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()

    def matching(
        self,
        *,
        kind: str | None = None,
        vehicle: str | None = None,
        method: str | None = None,
        path_contains: str = "",
        since: datetime | None = None,
    ) -> list[CallRecord]:
        """Requests that fit all that is given."""
        return [
            record
            for record in self._records
            if (kind is None or record.kind == kind)
            and (vehicle is None or record.vehicle_id == vehicle)
            and (method is None or record.method == method)
            and (since is None or record.time >= since)
            and path_contains in record.path
        ]

    def reads(self, vehicle: str | None = None, since: datetime | None = None) -> int:
        """How many calls the reads of a vehicle (of all) count as."""
        found = self.matching(kind="read", vehicle=vehicle, since=since)
        return sum(record.calls for record in found)

    def commands(
        self, vehicle: str | None = None, since: datetime | None = None
    ) -> list[CallRecord]:
        """Commands that a vehicle (any) was sent."""
        return self.matching(kind="command", vehicle=vehicle, since=since)
