"""What both generations of Smartcar's API share: budgets, what errors teach, memory.

Every request goes through ``_ask``: it is counted on disk, sent once, and sent once more
only after a 401 with a new token. Nothing else is ever repeated here; the caller decides
by ``retry_after_s`` (smartcar.md section 8).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from agent.cloud.smartcar_budget import BudgetView, CallBudget
from agent.cloud.smartcar_cars import READ, CarBook, CarKnown
from agent.cloud.smartcar_errors import ApiError
from agent.cloud.smartcar_http import READ_S, Answer, SmartcarHttp, UnheardError
from agent.cloud.smartcar_lessons import Lessons
from agent.cloud.smartcar_options import SmartcarOptions
from agent.cloud.smartcar_parse import SignalsRead
from agent.domain.budget import BudgetSpent, Kind
from agent.domain.errors import CloudFault
from agent.ports import (
    Car,
    CarCommand,
    CarState,
    Clock,
    CommandOutcome,
    Connection,
    Ids,
    Outcome,
    Store,
)

log = structlog.get_logger()

REUSED_S = 1800.0
"""After a restart, values read in the last 30 min are used again (section 9)."""
PERCENT_MIN, PERCENT_MAX = 50.0, 100.0
"""Range of a charge limit that Smartcar takes."""
IDLE_S = 3600.0
UNAUTHORIZED = 401
NO_USER = "the car has no user_id: add it to its [[smartcar.vehicles]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request about a car (or about none), with what it costs."""

    kind: Kind
    method: str
    url: str
    car: Car | None = None
    session_id: str = ""
    body: Mapping[str, Any] | None = None
    cost: int = 1
    silence_s: float = READ_S


class RefusedError(Exception):
    """The cloud answered an error, or nothing whole (status 0)."""

    def __init__(self, error: ApiError) -> None:
        """Keep the error."""
        super().__init__(str(error))
        self.error = error


class SmartcarClient(ABC):
    """A ports.VehicleCloud, with what is known without asking beside it."""

    def __init__(
        self,
        options: SmartcarOptions,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; no request is made before the first use."""
        self._options = options
        self._clock = clock
        self._ids = ids
        self._http = SmartcarHttp(transport)
        self._budget = CallBudget(options.rules, store, clock, ids)
        self._cars = CarBook(store, clock)
        self._vins = {item.vehicle_id: item.vin for item in options.vehicles}
        self._commanding: set[str] = set()
        self._lessons = Lessons(options, self._budget, self._cars, clock)
        self.requests: dict[str, int] = {"list": 0, "read": 0, "command": 0}
        """Requests sent by kind, for the metrics."""

    async def close(self) -> None:
        """Close kept connections."""
        await self._http.close()

    async def run(self) -> None:
        """Keep alive what must be kept alive, for ever; here there is nothing."""
        while True:
            await self._clock.sleep(IDLE_S)

    async def known(self, vehicle_id: str) -> CarKnown | None:
        """Show what is known of a car; makes no request."""
        return await self._cars.known(vehicle_id)

    async def budget(self, vehicle_id: str) -> BudgetView:
        """Show what is left for a car; makes no request."""
        return await self._budget.view(vehicle_id)

    # --- the port -------------------------------------------------------------------

    @abstractmethod
    async def connections(self) -> list[Connection]:
        """Read all connected cars. Raises CloudFault."""

    async def read(self, car: Car, *, session_id: str = "") -> CarState:
        """Read what is known of a car. Raises CloudFault; then nothing is known."""
        if not car.user_id:
            raise CloudFault(f"smartcar: {NO_USER}", retryable=False)
        facts = await self._cars.of(car.vehicle_id)
        now = self._clock.now()
        if self._is_reusable(car.vehicle_id, facts.at, facts.session_id, session_id):
            return facts.state
        lack = facts.lack(READ, now)
        if lack is not None:
            raise CloudFault(
                f"smartcar: this car cannot be read ({lack.code}); looked at again on "
                f"{lack.until:%Y-%m-%d}, or at once when its driver consents anew",
                retryable=False,
            )
        try:
            found = await self._fetch(car, session_id)
        except RefusedError as refused:
            raise await self._lessons.read_fault(car, refused.error) from refused
        except BudgetSpent as error:
            self._lessons.tell_spent(car, error)
            raise
        await self._lessons.note_read(car, session_id, found)
        return found.state

    async def command(
        self,
        car: Car,
        command: CarCommand,
        percent: float | None = None,
        *,
        session_id: str = "",
    ) -> CommandOutcome:
        """Send a command and follow it to its end; never raises for a refusal."""
        if command is CarCommand.SET_LIMIT and (
            percent is None or not PERCENT_MIN <= percent <= PERCENT_MAX
        ):
            return _refused("VALIDATION:PERCENT", "a limit is 50 to 100 percent")
        if not car.user_id:
            return _refused("LOCAL:NO_USER", NO_USER)
        if car.vehicle_id in self._commanding:
            return _refused("LOCAL:COMMAND_RUNNING", "another command is under way", 60.0)
        self._commanding.add(car.vehicle_id)
        try:
            facts = await self._cars.of(car.vehicle_id)
            lack = facts.lack(command, self._clock.now())
            if lack is not None:
                return _refused(lack.code, f"known since before; until {lack.until:%F}")
            return await self._order(car, command, percent, session_id)
        except RefusedError as refused:
            return await self._lessons.command_end(car, command, refused.error)
        except BudgetSpent as error:
            self._lessons.tell_spent(car, error)
            return _refused(
                f"BUDGET:{error.reason.upper()}", str(error), error.retry_after_s
            )
        except CloudFault as error:  # of the token or the disk: nothing was sent
            return _refused("LOCAL:NOT_SENT", str(error), error.retry_after_s)
        finally:
            self._commanding.discard(car.vehicle_id)

    # --- of each generation ---------------------------------------------------------

    @abstractmethod
    async def _fetch(self, car: Car, session_id: str) -> SignalsRead:
        """Read a car. Raises RefusedError and CloudFault."""

    @abstractmethod
    async def _order(
        self, car: Car, command: CarCommand, percent: float | None, session_id: str
    ) -> CommandOutcome:
        """Send a command. Raises RefusedError for errors, CloudFault if not sent."""

    @abstractmethod
    async def _token(self, car: Car | None, stale: str = "") -> str:
        """Give a token other than ``stale``. Raises CloudFault."""

    def _headers(self, car: Car | None) -> dict[str, str]:
        """Headers beside the token."""
        del car
        return {"SC-Unit-System": "metric"}

    # --- requests -------------------------------------------------------------------

    async def _ask(self, request: Request) -> Answer:
        """Count, send, and return a success. Raises RefusedError and CloudFault."""
        vehicle_id = "" if request.car is None else request.car.vehicle_id
        await self._budget.check(
            request.kind, vehicle_id, session_id=request.session_id, cost=request.cost
        )
        token = await self._token(request.car)
        answer = await self._send(request, request.kind, token)
        if answer.status == UNAUTHORIZED:
            token = await self._token(request.car, stale=token)
            try:
                answer = await self._send(request, _REPEATED[request.kind], token)
            except BudgetSpent as error:
                raise RefusedError(answer.error()) from error
        if answer.is_success:
            await self._budget.answered()
            return answer
        raise RefusedError(answer.error())

    async def _send(self, request: Request, kind: Kind, token: str) -> Answer:
        vehicle_id = "" if request.car is None else request.car.vehicle_id
        await self._budget.take(
            kind, vehicle_id, session_id=request.session_id, cost=request.cost
        )
        name = _COUNTED[request.kind]
        self.requests[name] += 1
        headers = self._headers(request.car) | {"Authorization": f"Bearer {token}"}
        try:
            answer = await self._http.send(
                request.method,
                request.url,
                headers=headers,
                body=request.body,
                silence_s=request.silence_s,
            )
        except UnheardError as error:
            log.info(
                "smartcar_called", kind=name, car=vehicle_id, status=0, reason=str(error)
            )
            raise RefusedError(unheard(str(error))) from error
        log.info(
            "smartcar_called",
            kind=name,
            car=vehicle_id,
            status=answer.status,
            request_id=answer.request_id,
        )
        return answer

    def _is_reusable(
        self, vehicle_id: str, at: datetime | None, session_of: str, session_id: str
    ) -> bool:
        if at is None or not self._cars.is_from_disk(vehicle_id):
            return False
        age_s = (self._clock.now() - at).total_seconds()
        return 0 <= age_s < REUSED_S and session_id in ("", session_of)


_REPEATED = {
    Kind.LIST: Kind.LIST,
    Kind.READ: Kind.PAGE,
    Kind.PAGE: Kind.PAGE,
    Kind.COMMAND: Kind.REPEAT,
    Kind.REPEAT: Kind.REPEAT,
}
_COUNTED = {
    Kind.LIST: "list",
    Kind.READ: "read",
    Kind.PAGE: "read",
    Kind.COMMAND: "command",
    Kind.REPEAT: "command",
}


def unheard(text: str) -> ApiError:
    """The error of a request whose answer did not come whole."""
    return ApiError(http_status=0, type="NETWORK", code="NO_ANSWER", message=text[:160])


def part_of(text: str) -> str:
    """An id as part of an address; it cannot leave its place in the path."""
    return quote(text, safe="").replace(".", "%2E")


def _refused(code: str, detail: str, retry_after_s: float | None = None) -> CommandOutcome:
    return CommandOutcome(
        outcome=Outcome.REFUSED, code=code, detail=detail, retry_after_s=retry_after_s
    )
