"""Smartcar v3 on HTTP: token, connections, vehicles, signals, commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.responses import Response

from agent.standin.smartcar_commands import Command, limit_of, run_command
from agent.standin.smartcar_errors import SmartcarError
from agent.standin.smartcar_faults import COMMAND_KINDS, CallRecord, CarFault
from agent.standin.smartcar_signals import one_signal, signal_list
from agent.standin.smartcar_state import iso_z

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import StandinCar
    from agent.standin.smartcar_commands import CommandName
    from agent.standin.smartcar_state import SmartcarStandin

    Endpoint = Callable[[Request], Awaitable[Response]]

CALL, FAULT = "standin.call", "standin.fault"
"""Where the gate puts the record and the ordered fault of a request."""
PAGE_ROWS_MAX = 100
DIGITS_MAX = 9
"""A longer page number is no number."""
FORM = "application/x-www-form-urlencoded"
APPLICATION_PERMISSIONS = ("control_security", "control_pin", "read_location")
"""What a permission list may show beyond what was granted (field report)."""


class SmartcarApi:
    """The v3 endpoints of one application."""

    def __init__(self, cloud: SmartcarStandin) -> None:
        """Serve `cloud`."""
        self._cloud = cloud

    async def token(self, request: Request) -> Response:
        """POST /oauth2/token: form or JSON, client credentials."""
        call_of(request).kind = "token"
        struck = struck_token(request)
        if struck is not None:
            return struck
        body = await _credentials(request)
        if body is None:
            return oauth_error(400, "invalid_request", "the body is not readable")
        wanted = ("grant_type", "client_id", "client_secret")
        missing = [key for key in wanted if not isinstance(body.get(key), str)]
        if missing:
            return oauth_error(400, "invalid_request", f"missing {', '.join(missing)}")
        if body["grant_type"] != "client_credentials":
            return oauth_error(400, "unsupported_grant_type", "use client_credentials")
        issued = self._cloud.tokens.issue(body["client_id"], body["client_secret"])
        if issued is None:
            return oauth_error(401, "invalid_client", "unknown client or secret")
        return json_answer(issued, headers={"cache-control": "no-store"})

    async def connections(self, request: Request) -> Response:
        """GET /v3/connections: a page, filtered; live cars unless asked otherwise."""
        self.enter(request, "connection")
        query = request.query_params
        mode = query.get("filter[vehicle.mode]", "live")
        if mode not in ("live", "simulated"):
            raise SmartcarError("VALIDATION:PARAMETER", "filter[vehicle.mode] is wrong")
        user = query.get("filter[userId]") or request.headers.get("sc-user-id")
        vehicle = query.get("filter[vehicleId]")
        external = query.get("filter[user.externalId]")
        rows = [
            self._connection(car)
            for car in self._cloud.cars.values()
            if car.mode == mode
            and user in (None, "", car.user_id)
            and vehicle in (None, car.vehicle_id)
            and external in (None, car.external_id)
        ]
        return self.page(request, rows, self._cloud.connection_rows)

    async def connection(self, request: Request) -> Response:
        """GET or DELETE /v3/connections/{connectionId}."""
        self.enter(request, "connection")
        wanted = request.path_params["connectionId"]
        for car in self._cloud.cars.values():
            if car.connection_id == wanted:
                if request.method != "DELETE":
                    return self.answer({"data": self._connection(car)})
                self._cloud.remove_connection(car)
                return Response(status_code=204)
        raise SmartcarError("RESOURCE_NOT_FOUND", f"connection {wanted} is unknown")

    async def user(self, request: Request) -> Response:
        """DELETE /v3/users/{userId} with all its connections."""
        self.enter(request, "connection")
        wanted = request.path_params["userId"]
        owned = [car for car in self._cloud.cars.values() if car.user_id == wanted]
        if not owned:
            raise SmartcarError("RESOURCE_NOT_FOUND", f"user {wanted} is unknown")
        for car in owned:
            self._cloud.remove_connection(car)
        return Response(status_code=204)

    async def vehicle(self, request: Request) -> Response:
        """GET /v3/vehicles/{vehicleId}; without `sc-user-id`, outside the allowance."""
        self.enter(request, "connection")
        car = self._car(request)
        row = self.vehicle_row(car)
        return self.answer({"data": row} if self._cloud.wraps_vehicle else row)

    async def signals(self, request: Request) -> Response:
        """GET all stored signals, a page at a time; every page is a call."""
        car = self.open_car(request, None)
        is_imperial = unit_system(request) == "imperial"
        rows = signal_list(self._cloud, car, is_imperial=is_imperial)
        included = {"vehicle": self.vehicle_row(car)}
        answer = self.page(request, rows, self._cloud.signal_rows, {"included": included})
        return self._dated(answer, car, request)

    async def signal(self, request: Request) -> Response:
        """GET one signal."""
        car = self.open_car(request, None)
        is_imperial = unit_system(request) == "imperial"
        code = request.path_params["signalCode"]
        row = one_signal(self._cloud, car, code, is_imperial=is_imperial)
        answer = self.answer({"data": row} if self._cloud.wraps_signal else row)
        return self._dated(answer, car, request)

    async def start(self, request: Request) -> Response:
        """POST .../commands/charge/start."""
        return await self._command(request, "charge-start")

    async def stop(self, request: Request) -> Response:
        """POST .../commands/charge/stop."""
        return await self._command(request, "charge-stop")

    async def set_limit(self, request: Request) -> Response:
        """POST .../commands/charge/set-limit."""
        return await self._command(request, "charge-set-limit")

    def enter(self, request: Request, kind: Any) -> CallRecord:
        """Authorise and take from the application's bucket; SmartcarError otherwise."""
        call = call_of(request)
        call.kind = kind
        if not self._cloud.tokens.opens(bearer(request)):
            raise SmartcarError(
                "AUTHENTICATION:UNAUTHORIZED", headers={"www-authenticate": "Bearer"}
            )
        self._cloud.settle()
        self._cloud.limits.take_app(self._cloud.clock.now())
        if call.vehicle_id == "":
            self._strike(request)
        return call

    def open_car(self, request: Request, permission: str | None) -> StandinCar:
        """Do all the checks of a vehicle's path, and count the call."""
        is_command = permission == "control_charge"
        vehicle_id = request.path_params["vehicleId"]
        call = call_of(request)
        call.vehicle_id = vehicle_id
        call.user_id = request.headers.get("sc-user-id", "")
        self.enter(request, "command" if is_command else "read")
        if not call.user_id:
            words = "header sc-user-id is missing"
            raise SmartcarError("VALIDATION:MISSING_PARAMETER", words)
        unit_system(request)
        car = self._car(request)
        if car.user_id != call.user_id:
            raise SmartcarError("RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND")
        now = self._cloud.clock.now()
        self._cloud.limits.take_vehicle(vehicle_id, now, is_command=is_command)
        call.calls = 1
        if permission is not None and permission not in car.permissions:
            raise SmartcarError("PERMISSION", f"{permission} was not granted")
        self._strike(request)
        return car

    def answer(self, body: Any, status: int = 200) -> Response:
        """Return `body` as JSON with a request id."""
        headers = {"SC-Request-Id": self._cloud.request_id()}
        return json_answer(body, status, headers)

    def page(
        self,
        request: Request,
        rows: Sequence[JsonObject],
        size: int,
        extra: Mapping[str, Any] | None = None,
    ) -> Response:
        """Return one page with `meta` and `links`; SmartcarError 400 for a wrong page."""
        number = _whole(request, "page[number]", 1, None)
        size = _whole(request, "page[size]", size, PAGE_ROWS_MAX)
        last = max(1, -(-len(rows) // size))
        links = {
            "self": self._link(request, number),
            "first": self._link(request, 1),
            "prev": self._link(request, number - 1) if number > 1 else None,
            "next": self._link(request, number + 1) if number < last else None,
            "last": self._link(request, last),
        }
        meta = {
            "pageNumber": number,
            "pageSize": size,
            "totalCount": len(rows),
            "orderBy": "createdAt",
            "orderDirection": "asc",
        }
        shown = rows[(number - 1) * size : number * size]
        return self.answer({"data": shown, "meta": meta, "links": links, **(extra or {})})

    def vehicle_row(self, car: StandinCar) -> JsonObject:
        """Write a vehicle resource."""
        return {
            "id": car.vehicle_id,
            "type": "vehicle",
            "attributes": _attributes(car),
            "links": {"self": f"/v3/vehicles/{car.vehicle_id}"},
        }

    async def _command(self, request: Request, name: CommandName) -> Response:
        car = self.open_car(request, "control_charge")
        percent = None
        if name == "charge-set-limit":
            percent = limit_of(await json_body(request))
        command = Command(name=name, percent=percent)
        fault = request.scope.get(FAULT)
        is_ours = fault is not None and fault.kind in COMMAND_KINDS
        outcome = await run_command(self._cloud, car, command, fault if is_ours else None)
        if isinstance(outcome, Response):
            return outcome
        return self.answer(outcome)

    def _strike(self, request: Request) -> None:
        """Raise the error that was ordered for this request, if one was."""
        fault: CarFault | None = request.scope.get(FAULT)
        if fault is not None and fault.kind == "error":
            raise SmartcarError(fault.name, retry_after_s=fault.retry_after_s)

    def _car(self, request: Request) -> StandinCar:
        car = self._cloud.cars.get(request.path_params["vehicleId"])
        if car is None:
            raise SmartcarError("RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND")
        return car

    def _connection(self, car: StandinCar) -> JsonObject:
        shown = sorted(car.permissions)
        if self._cloud.lists_all_permissions:
            shown = sorted({*shown, *APPLICATION_PERMISSIONS})
        moment = car.connected_at or self._cloud.clock.now()
        user: JsonObject = {"id": car.user_id}
        if car.external_id is not None:
            user["externalId"] = car.external_id
        return {
            "id": car.connection_id,
            "type": "connection",
            "attributes": {
                "permissions": shown,
                "vehicle": _attributes(car),
                "user": user,
            },
            "relationships": {
                "vehicle": {"data": {"id": car.vehicle_id, "type": "vehicle"}},
                "user": {"data": {"id": car.user_id, "type": "user"}},
            },
            "meta": {"createdAt": iso_z(moment), "updatedAt": iso_z(moment)},
            "links": {"self": f"/v3/connections/{car.connection_id}"},
        }

    def _link(self, request: Request, number: int) -> str:
        origin = self._cloud.links_origin
        if origin is None:
            origin = f"{request.url.scheme}://{request.url.netloc}"
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        kept = [(key, value) for key, value in pairs if key != "page[number]"]
        query = urlencode([*kept, ("page[number]", str(number))])
        return f"{origin}{request.url.path}?{query}"

    def _dated(self, answer: Response, car: StandinCar, request: Request) -> Response:
        if car.report is not None:
            answer.headers["SC-Data-Age"] = iso_z(car.report.at)
        answer.headers["SC-Fetched-At"] = iso_z(self._cloud.clock.now())
        answer.headers["SC-Unit-System"] = unit_system(request)
        return answer


def json_answer(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `body` as JSON."""
    return Response(orjson.dumps(body), status, headers, "application/json")


def oauth_error(status: int, error: str, words: str) -> Response:
    """Return the form of the token hosts."""
    return json_answer({"error": error, "error_description": words}, status)


def struck_token(request: Request) -> Response | None:
    """Return the error that was ordered for a token endpoint, in its form."""
    fault: CarFault | None = request.scope.get(FAULT)
    if fault is None or fault.kind != "error":
        return None
    error = SmartcarError(fault.name, retry_after_s=fault.retry_after_s)
    body = {"error": "server_error", "error_description": error.detail}
    return json_answer(body, error.status, error.headers)


def call_of(request: Request) -> CallRecord:
    """Return the record that the gate made of this request."""
    found: CallRecord = request.scope[CALL]
    return found


def bearer(request: Request) -> str:
    """Return the Bearer token, or nothing."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def unit_system(request: Request) -> str:
    """Return the wanted unit system; SmartcarError 400 for an unknown one."""
    wanted = request.headers.get("sc-unit-system", "metric")
    if wanted not in ("metric", "imperial"):
        raise SmartcarError("VALIDATION:PARAMETER", "SC-Unit-System is unknown")
    return wanted


async def json_body(request: Request) -> object:
    """Read a JSON body; SmartcarError 400 when it is none."""
    try:
        body: object = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        name = "VALIDATION:INVALID_INPUT_FORMAT"
        raise SmartcarError(name, "the body is not JSON") from error
    return body


async def form_body(request: Request) -> dict[str, str] | None:
    """Read a form body; None when it is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        return None
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True))
    except ValueError:
        return None


async def _credentials(request: Request) -> dict[str, Any] | None:
    form = await form_body(request)
    if form is not None:
        return form
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _attributes(car: StandinCar) -> JsonObject:
    return {
        "make": car.make,
        "model": car.model,
        "year": car.year,
        "mode": car.mode,
        "powertrainType": car.powertrain,
    }


def _whole(request: Request, name: str, default: int, most: int | None) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX
    if not is_number or int(text) < 1:
        raise SmartcarError("VALIDATION:PARAMETER", f"{name} must be 1 or more")
    if most is not None and int(text) > most:
        raise SmartcarError("VALIDATION:PARAMETER", f"{name} must be {most} or less")
    return int(text)
