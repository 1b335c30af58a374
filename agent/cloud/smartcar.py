"""The Smartcar client, v3: reads from its store, commands that end later.

Facts of smartcar.md section 5. ``Smartcar`` implements ports.VehicleCloud.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import httpx
import structlog

from agent.cloud.smartcar_base import (
    RefusedError,
    Request,
    SmartcarClient,
    part_of,
)
from agent.cloud.smartcar_cars import READ
from agent.cloud.smartcar_errors import ApiError, error_in
from agent.cloud.smartcar_http import LONG_S, Answer
from agent.cloud.smartcar_options import SmartcarOptions
from agent.cloud.smartcar_parse import (
    WANTED,
    ConnectionRead,
    SignalsRead,
    codes_of,
    included_make,
    next_of,
    read_command,
    read_connection,
    read_signals,
    rows_of,
)
from agent.cloud.smartcar_token import ApplicationToken
from agent.domain.budget import BudgetSpent, Kind
from agent.domain.errors import CloudFault
from agent.ports import (
    Car,
    CarCommand,
    Clock,
    CommandOutcome,
    Connection,
    Ids,
    Outcome,
    Store,
)

log = structlog.get_logger()

PAGE_SIZE = 100
"""The most that a page may hold; the default is small and differs by source."""
PAGES_MAX = 50
"""5 000 cars; a list that never ends is not read for ever."""
SIGNAL_PAGES_MAX = 4
"""Some 95 signals are known; 400 is more than any car has."""
PATHS = {
    CarCommand.START: "commands/charge/start",
    CarCommand.STOP: "commands/charge/stop",
    CarCommand.SET_LIMIT: "commands/charge/set-limit",
}


class Smartcar(SmartcarClient):
    """The v3 API with an application token."""

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
        super().__init__(options, store, clock, ids, transport=transport)
        self._api_url = options.api_url.rstrip("/")
        self._application = ApplicationToken(
            self._http,
            options.token_url,
            (options.client_id, options.client_secret),
            clock=clock,
            ids=ids,
        )

    async def connections(self) -> list[Connection]:
        """Read all connected cars, every page. Raises CloudFault."""
        url = (
            f"{self._api_url}/connections?page%5Bnumber%5D=1&page%5Bsize%5D={PAGE_SIZE}"
            f"&filter%5Bvehicle.mode%5D={self._options.mode}"
        )
        found: list[ConnectionRead] = []
        seen: set[str] = set()
        while url not in seen and len(seen) < PAGES_MAX:
            seen.add(url)
            try:
                answer = await self._ask(Request(kind=Kind.LIST, method="GET", url=url))
                body = answer.json()
                rows = rows_of(body)
                following = next_of(body, url)
            except RefusedError as refused:
                raise await self._lessons.list_fault(refused.error) from refused
            except ValueError as error:
                raise _odd("the list of connections", error) from error
            read = [read_connection(row, self._clock.now()) for row in rows]
            found.extend(item for item in read if item is not None)
            if following is None:
                break
            url = following
        for item in found:
            await self._lessons.consented(item.connection.car.vehicle_id, item.changed_at)
        return [await self._completed(item.connection) for item in found]

    async def _completed(self, connection: Connection) -> Connection:
        """With the VIN that is known from the settings or from an earlier read."""
        vehicle_id = connection.car.vehicle_id
        facts = await self._cars.of(vehicle_id)
        vin = self._vins.get(vehicle_id) or facts.vin
        if connection.make and connection.make != facts.make:
            await self._cars.change(vehicle_id, make=connection.make)
        return replace(connection, car=replace(connection.car, vin=vin))

    async def _fetch(self, car: Car, session_id: str) -> SignalsRead:
        first = (
            f"{self._api_url}/vehicles/{part_of(car.vehicle_id)}/signals"
            f"?page%5Bnumber%5D=1&page%5Bsize%5D={PAGE_SIZE}"
        )
        url: str | None = first
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        make = ""
        kind = Kind.READ
        while url is not None and url not in seen and len(seen) < SIGNAL_PAGES_MAX:
            seen.add(url)
            request = Request(
                kind=kind, method="GET", url=url, car=car, session_id=session_id
            )
            try:
                body = (await self._ask(request)).json()
                rows.extend(rows_of(body))
                url = next_of(body, url)
            except (RefusedError, BudgetSpent) as error:
                if kind is Kind.READ:
                    raise
                # A later page: what came so far is worth more than nothing.
                if isinstance(error, RefusedError):
                    await self._lessons.learn(car, error.error, READ)
                log.info("smartcar_read_cut_short", car=car.vehicle_id, reason=str(error))
                break
            except ValueError as error:
                raise _odd("the list of signals", error) from error
            make = make or included_make(body)
            kind = Kind.PAGE
            if codes_of(rows) >= WANTED:
                break
        return replace(read_signals(rows, self._clock.now()), make=make)

    async def _order(
        self, car: Car, command: CarCommand, percent: float | None, session_id: str
    ) -> CommandOutcome:
        body = None
        if command is CarCommand.SET_LIMIT and percent is not None:
            # Upwards, so that the limit is never below what was asked for.
            body = {"data": {"attributes": {"percent": math.ceil(percent - 1e-9)}}}
        answer = await self._ask(
            Request(
                kind=Kind.COMMAND,
                method="POST",
                url=f"{self._api_url}/vehicles/{part_of(car.vehicle_id)}/{PATHS[command]}",
                car=car,
                session_id=session_id,
                body=body,
                silence_s=LONG_S,
            )
        )
        return _ended(answer)

    async def _token(self, car: Car | None, stale: str = "") -> str:
        del car
        try:
            return await self._application.get(stale)
        finally:
            self.requests["token"] = self._application.requests

    def _headers(self, car: Car | None) -> dict[str, str]:
        headers = super()._headers(car)
        return headers if car is None else headers | {"sc-user-id": car.user_id}


def _ended(answer: Answer) -> CommandOutcome:
    """Decide from the body, which came whole; the HTTP status may say otherwise (5.5)."""
    base = ApiError(http_status=answer.status, request_id=answer.request_id)
    try:
        body = answer.json()
    except ValueError as error:
        return CommandOutcome(
            outcome=Outcome.UNKNOWN, code="LOCAL:UNREADABLE", detail=str(error)
        )
    failed = error_in(body, base)
    if failed is not None:
        raise RefusedError(failed)
    end = read_command(body, base)
    if end.status == "SUCCESS":
        return CommandOutcome(outcome=Outcome.DONE, code=end.status)
    if end.status in ("FAILURE", "ERROR", "FAILED"):
        if end.error is not None:
            raise RefusedError(end.error)
        return CommandOutcome(outcome=Outcome.REFUSED, code=end.status)
    return CommandOutcome(
        outcome=Outcome.UNKNOWN,
        code=end.status or "LOCAL:NO_STATUS",
        detail="the answer does not say how the command ended",
    )


def _odd(what: str, error: ValueError) -> CloudFault:
    return CloudFault(f"smartcar: {what}: {error}", retryable=True, retry_after_s=300.0)
