"""The deprecated v2.0 API behind the same port; off unless ``[smartcar] api = "v2"``.

Facts of smartcar.md section 6. Fractions become percent, kWh become Wh here and nowhere
else. A batch costs one request per path of the car's month, so only what is needed is in
it, and what never changes is asked once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from agent.cloud.smartcar_base import (
    RefusedError,
    Request,
    SmartcarClient,
    part_of,
    unheard,
)
from agent.cloud.smartcar_errors import Action, ApiError, error_in, rule_of, seconds_of
from agent.cloud.smartcar_http import LONG_S, Answer, UnheardError
from agent.cloud.smartcar_options import SmartcarOptions
from agent.cloud.smartcar_parse import SignalsRead, measured, time_of, vin_of
from agent.cloud.smartcar_tokenfile import TokenFile
from agent.cloud.smartcar_usertoken import UserTokens
from agent.domain.budget import Kind
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
    Sourced,
    Store,
)

BATTERY = "/battery"
CHARGE = "/charge"
LIMIT = "/charge/limit"
CAPACITY = "/battery/nominal_capacity"
VIN = "/vin"
FRACTION: Mapping[str, float] = {"": 100.0}
KWH: Mapping[str, float] = {"": 1000.0}
PAGE_SIZE = 50
MANAGEMENT_PAGE_SIZE = 100
PAGES_MAX = 50
WORD_MAX = 60


class SmartcarV2(SmartcarClient):
    """The v2.0 API with a token per driver."""

    def __init__(
        self,
        options: SmartcarOptions,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        tokens: Path,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``tokens`` is the file of the drivers' tokens."""
        super().__init__(options, store, clock, ids, transport=transport)
        self._url = options.v2_url.rstrip("/")
        self._users = UserTokens(
            self._http, options, TokenFile(tokens), clock=clock, ids=ids
        )

    async def run(self) -> None:
        """Keep the drivers' tokens alive, for ever."""
        await self._users.keep()

    # --- connections ----------------------------------------------------------------

    async def connections(self) -> list[Connection]:
        """Read all connected cars: by the management token, else driver by driver."""
        pairs = (
            await self._managed()
            if self._options.management_token
            else await self._of_users()
        )
        found: list[Connection] = []
        for vehicle_id, user_id, changed_at in pairs:
            await self._lessons.consented(vehicle_id, changed_at)
            facts = await self._cars.of(vehicle_id)
            vin = self._vins.get(vehicle_id) or facts.vin
            car = Car(vehicle_id=vehicle_id, user_id=user_id, vin=vin)
            found.append(Connection(car=car, make=facts.make))
        return found

    async def _managed(self) -> list[tuple[str, str, datetime | None]]:
        base = f"{self._options.management_url.rstrip('/')}/management/connections"
        cursor = ""
        found: list[tuple[str, str, datetime | None]] = []
        for _ in range(PAGES_MAX):
            url = f"{base}?limit={MANAGEMENT_PAGE_SIZE}&mode={self._options.mode}"
            url += f"&cursor={quote(cursor, safe='')}" if cursor else ""
            await self._budget.take(Kind.LIST)
            self.requests["list"] += 1
            basic = ("default", self._options.management_token)
            try:
                answer = await self._http.send("GET", url, basic=basic)
            except UnheardError as error:
                raise await self._lessons.list_fault(unheard(str(error))) from error
            if not answer.is_success:
                raise await self._lessons.list_fault(answer.error())
            body = _body(answer)
            for row in _list(body.get("connections")):
                if isinstance(row, dict) and _is_id(row.get("vehicleId")):
                    at = time_of(row.get("connectedAt"), self._clock.now())
                    found.append((row["vehicleId"], str(row.get("userId") or ""), at))
            paging = body.get("paging")
            following = paging.get("cursor") if isinstance(paging, dict) else None
            if not isinstance(following, str) or following in ("", cursor):
                break
            cursor = following
        return found

    async def _of_users(self) -> list[tuple[str, str, datetime | None]]:
        found: list[tuple[str, str, datetime | None]] = []
        for user_id in await self._users.users():
            nobody = Car(vehicle_id="", user_id=user_id, vin="")
            offset = 0
            while offset < PAGE_SIZE * PAGES_MAX:
                url = f"{self._url}/vehicles?limit={PAGE_SIZE}&offset={offset}"
                request = Request(kind=Kind.LIST, method="GET", url=url, car=nobody)
                try:
                    body = _body(await self._ask(request))
                except RefusedError as refused:
                    raise await self._lessons.list_fault(refused.error) from refused
                ids = [item for item in _list(body.get("vehicles")) if _is_id(item)]
                found.extend((item, user_id, None) for item in ids)
                offset += PAGE_SIZE
                if len(ids) < PAGE_SIZE:
                    break
        return found

    # --- one car --------------------------------------------------------------------

    async def _fetch(self, car: Car, session_id: str) -> SignalsRead:
        facts = await self._cars.of(car.vehicle_id)
        now = self._clock.now()
        paths = [BATTERY, CHARGE, LIMIT]
        if facts.state.capacity_wh is None:
            paths.append(CAPACITY)
        if not (facts.vin or self._lessons.vin(car)):
            paths.append(VIN)
        paths = [path for path in paths if facts.lack(path, now) is None]
        if not paths:
            raise CloudFault(
                "smartcar: nothing of this car can be read; looked at again in a month",
                retryable=False,
            )
        answer = await self._ask(
            Request(
                kind=Kind.READ,
                method="POST",
                url=self._vehicle_url(car, "/batch"),
                car=car,
                session_id=session_id,
                body={"requests": [{"path": path} for path in paths]},
                cost=len(paths),
                silence_s=LONG_S,
            )
        )
        return await self._batch(car, _body(answer))

    async def _batch(self, car: Car, body: Mapping[str, Any]) -> SignalsRead:
        fields: dict[str, Any] = {}
        problems: list[str] = []
        errors: list[ApiError] = []
        count = 0
        for row in _list(body.get("responses")):
            if not isinstance(row, dict) or row.get("path") not in _READERS:
                continue
            path = str(row["path"])
            error = _sub_error(row)
            if error is not None:
                errors.append(error)
                if rule_of(error).action in (Action.NOT_CAPABLE, Action.NO_PERMISSION):
                    await self._lessons.drop(car, error, (path,))
                continue
            count += 1
            try:
                fields |= _READERS[path](_dict(row.get("body")), _Headers(row, self._clock))
            except ValueError as odd:
                problems.append(f"{path}: {odd}")
        if count == 0:
            raise RefusedError(
                errors[0] if errors else unheard("the batch answered none of its paths")
            )
        return SignalsRead(
            state=CarState(**fields),
            count=count,
            problems=tuple(problems),
            errors=tuple(errors),
        )

    async def _order(
        self, car: Car, command: CarCommand, percent: float | None, session_id: str
    ) -> CommandOutcome:
        path, body = CHARGE, {"action": command.upper()}
        if command is CarCommand.SET_LIMIT and percent is not None:
            limit: Any = math.ceil(percent - 1e-9) / 100
            path, body = LIMIT, {"limit": limit}
        answer = await self._ask(
            Request(
                kind=Kind.COMMAND,
                method="POST",
                url=self._vehicle_url(car, path),
                car=car,
                session_id=session_id,
                body=body,
                silence_s=LONG_S,
            )
        )
        return _ended(answer)

    async def _token(self, car: Car | None, stale: str = "") -> str:
        try:
            return await self._users.get("" if car is None else car.user_id, stale)
        finally:
            self.requests["token"] = self._users.requests

    def _vehicle_url(self, car: Car, path: str) -> str:
        return f"{self._url}/vehicles/{part_of(car.vehicle_id)}{path}"


# --- parsing --------------------------------------------------------------------------


class _Headers:
    """Headers of one path of a batch, whatever their case."""

    def __init__(self, row: Mapping[str, Any], clock: Clock) -> None:
        raw = _dict(row.get("headers"))
        found = {str(name).lower(): text for name, text in raw.items()}
        # A time stamp, not an age; absent means unknown, not fresh (section 4).
        self.recorded_at = time_of(found.get("sc-data-age"), clock.now())
        self.length_unit = "mi" if found.get("sc-unit-system") == "imperial" else "km"

    def sourced(self, number: float | None) -> Sourced | None:
        """The number with the vehicle's time."""
        if number is None:
            return None
        return Sourced(value=round(number, 6), recorded_at=self.recorded_at)


Fields = dict[str, Any]
_LENGTHS: Mapping[str, float] = {"km": 1.0, "mi": 1.609344}


def _battery(body: Fields, headers: _Headers) -> Fields:
    soc = measured(body.get("percentRemaining"), None, FRACTION, 0.0, 100.0)
    length = measured(body.get("range"), headers.length_unit, _LENGTHS, 0.0, 3000.0)
    return {"soc_percent": headers.sourced(soc), "range_km": headers.sourced(length)}


def _charge(body: Fields, headers: _Headers) -> Fields:
    plugged, state = body.get("isPluggedIn"), body.get("state")
    fields: Fields = {}
    if isinstance(plugged, bool):
        fields["is_plugged"] = headers.sourced(1.0 if plugged else 0.0)
    if isinstance(state, str) and state:
        fields["is_charging"] = headers.sourced(1.0 if state == "CHARGING" else 0.0)
        fields["charging"] = state[:WORD_MAX]
    return fields


def _limit(body: Fields, headers: _Headers) -> Fields:
    limit = measured(body.get("limit"), None, FRACTION, 0.0, 100.0)
    return {"limit_percent": headers.sourced(limit)}


def _capacity(body: Fields, headers: _Headers) -> Fields:
    """Null with several candidates means that the driver has to choose (section 6)."""
    raw = _dict(body.get("capacity")).get("nominal")
    capacity = measured(raw, None, KWH, 500.0, 2_000_000.0)
    return {"capacity_wh": headers.sourced(capacity)}


def _vin(body: Fields, headers: _Headers) -> Fields:
    del headers
    return {"vin": vin_of(body.get("vin")) or ""}


_READERS: Mapping[str, Callable[[Fields, _Headers], Fields]] = {
    BATTERY: _battery,
    CHARGE: _charge,
    LIMIT: _limit,
    CAPACITY: _capacity,
    VIN: _vin,
}


def _sub_error(row: Mapping[str, Any]) -> ApiError | None:
    code = row.get("code")
    if isinstance(code, int) and 200 <= code <= 299:  # noqa: PLR2004
        return None
    headers = {str(name).lower(): text for name, text in _dict(row.get("headers")).items()}
    after = headers.get("retry-after")
    base = ApiError(
        http_status=code if isinstance(code, int) else 0,
        retry_after_s=seconds_of(str(after)) if after is not None else None,
    )
    return error_in(row.get("body"), base) or base


def _ended(answer: Answer) -> CommandOutcome:
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
    status = _dict(body).get("status")
    if status == "success":
        return CommandOutcome(outcome=Outcome.DONE, code="SUCCESS")
    return CommandOutcome(
        outcome=Outcome.UNKNOWN,
        code="LOCAL:NO_STATUS",
        detail="the answer does not say how the command ended",
    )


def _body(answer: Answer) -> dict[str, Any]:
    try:
        return _dict(answer.json())
    except ValueError as error:
        raise CloudFault(
            f"smartcar: an answer: {error}", retryable=True, retry_after_s=300.0
        ) from error


def _dict(raw: Any) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _list(raw: Any) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _is_id(raw: Any) -> bool:
    is_text = isinstance(raw, str) and 0 < len(raw) <= 100  # noqa: PLR2004
    return is_text and raw.isascii() and raw.isprintable()
