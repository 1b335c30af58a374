"""Smartcar v2.0 on HTTP: rotating user tokens, single endpoints, batch, connections.

A read reaches out to the car: it wakes it and gives what is true now. Fractions, km, kWh.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response

from agent.standin.smartcar_api import (
    FAULT,
    bearer,
    call_of,
    form_body,
    json_answer,
    json_body,
    oauth_error,
    struck_token,
    unit_system,
)
from agent.standin.smartcar_car import LIMIT_HIGHEST, LIMIT_LOWEST
from agent.standin.smartcar_commands import Command, judge, order
from agent.standin.smartcar_errors import SmartcarError
from agent.standin.smartcar_signals import MILES_PER_KM, View
from agent.standin.smartcar_state import iso_z

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import StandinCar
    from agent.standin.smartcar_faults import CallKind, CarFault
    from agent.standin.smartcar_state import SmartcarStandin

PERCENT = 100
VEHICLES_MAX, VEHICLES_ROWS = 50, 10
PERMISSION_ROWS = 25
CONNECTIONS_MAX, CONNECTION_ROWS = 100, 10
BATCH_MAX = 50
"""No list of paths is longer than all that there are, several times over."""
CAPACITY_URL = "https://connect.smartcar.com/battery-capacity?token=standin"


LIMIT_TEXT = re.compile(r"0\.[5-9][0-9]*|1(\.0+)?")
"""One official SDK sends the limit as text."""


class _Read(NamedTuple):
    permission: str
    body: Callable[[View], JsonObject]


def _battery(view: View) -> JsonObject:
    km = view.report.soc_percent / PERCENT * view.car.range_full_km
    distance = km * MILES_PER_KM if view.is_imperial else km
    return {
        "percentRemaining": round(view.report.soc_percent / PERCENT, 4),
        "range": round(distance, 1),
    }


def _capacity(view: View) -> JsonObject:
    if view.car.capacity_kwh is None:
        raise SmartcarError("SERVER:RECORD_NOT_FOUND")
    return {"capacity": view.car.capacity_kwh}


def _nominal(view: View) -> JsonObject:
    known = view.car.capacity_kwh
    if known is not None:
        return {
            "availableCapacities": [{"capacity": known, "description": None}],
            "capacity": {"nominal": known, "source": "SMARTCAR"},
            "url": None,
        }
    return {
        "availableCapacities": [
            {"capacity": 60.0, "description": "BEV:Standard Range"},
            {"capacity": 75.0, "description": "BEV:Extended Range"},
        ],
        "capacity": None,
        "url": CAPACITY_URL,
    }


def _attributes(view: View) -> JsonObject:
    return {
        "id": view.car.vehicle_id,
        "make": view.car.make,
        "model": view.car.model,
        "year": int(view.car.year),
    }


def _permissions(view: View) -> JsonObject:
    return {"permissions": sorted(view.car.permissions)}


READS: dict[str, _Read] = {
    "/": _Read("read_vehicle_info", _attributes),
    "/vin": _Read("read_vin", lambda view: {"vin": view.car.vin}),
    "/permissions": _Read("", _permissions),
    "/battery": _Read("read_battery", _battery),
    "/battery/capacity": _Read("read_battery", _capacity),
    "/battery/nominal_capacity": _Read("read_battery", _nominal),
    "/charge": _Read(
        "read_charge",
        lambda view: {
            "isPluggedIn": view.report.is_plugged,
            "state": view.report.state,
        },
    ),
    "/charge/limit": _Read(
        "read_charge",
        lambda view: {"limit": view.report.limit_percent / PERCENT},
    ),
}
"""By path below `/vehicles/{id}`."""
STORED = frozenset({"/", "/vin", "/permissions"})
"""Paths that are answered without asking the car."""


class SmartcarV2:
    """The v2.0 endpoints of one application."""

    def __init__(self, cloud: SmartcarStandin) -> None:
        """Serve `cloud`."""
        self._cloud = cloud

    async def token(self, request: Request) -> Response:
        """POST /oauth/token: exchange a code, or renew with rotation."""
        call_of(request).kind = "token"
        struck = struck_token(request)
        if struck is not None:
            return struck
        if not request.headers.get("user-agent", "").strip():
            return oauth_error(400, "invalid_request", "User-Agent is required")
        name, secret = _basic(request)
        if name != self._cloud.v2_client_id or secret not in self._cloud.tokens.secrets:
            return oauth_error(401, "invalid_client", "unknown client or secret")
        body = await form_body(request)
        if body is None:
            return oauth_error(400, "invalid_request", "the body must be a form")
        match body.get("grant_type"):
            case "authorization_code":
                code, uri = body.get("code", ""), body.get("redirect_uri", "")
                pair = self._cloud.user_tokens.exchange(code, uri)
            case "refresh_token":
                pair = self._cloud.user_tokens.renew(body.get("refresh_token", ""))
            case _:
                return oauth_error(400, "unsupported_grant_type", "unknown grant_type")
        if pair is None:
            return oauth_error(400, "invalid_grant", "the grant is not valid any more")
        return json_answer(pair, headers={"cache-control": "no-store"})

    async def vehicles(self, request: Request) -> Response:
        """GET the ids of the user's vehicles."""
        user_id = self._enter(request, "connection")
        ids = [c.vehicle_id for c in self._cloud.cars.values() if c.user_id == user_id]
        limit = _whole(request, "limit", VEHICLES_ROWS, VEHICLES_MAX, least=1)
        offset = _whole(request, "offset", 0, None)
        paging = {"count": len(ids), "offset": offset}
        return self._answer({"vehicles": ids[offset : offset + limit], "paging": paging})

    async def user(self, request: Request) -> Response:
        """GET the id of the user."""
        return self._answer({"id": self._enter(request, "connection")})

    async def read(self, request: Request) -> Response:
        """GET one path of a vehicle."""
        path = _path_of(request)
        car = self._open(request, "read")
        await self._cloud.pause(car.read_s)
        body = self._read(car, path, is_imperial=unit_system(request) == "imperial")
        if "permissions" in body:
            limit = _whole(request, "limit", PERMISSION_ROWS, None, least=1)
            offset = _whole(request, "offset", 0, None)
            shown = body["permissions"][offset : offset + limit]
            count = len(body["permissions"])
            body = {"permissions": shown, "paging": {"count": count, "offset": offset}}
        answer = self._answer(body)
        answer.headers.update(self._data_headers(unit_system(request)))
        return answer

    async def control(self, request: Request) -> Response:
        """POST .../charge with START or STOP."""
        car = self._open(request, "command")
        body = await json_body(request)
        action = body.get("action") if isinstance(body, dict) else None
        if action not in ("START", "STOP"):
            raise SmartcarError("VALIDATION", "action must be START or STOP")
        is_start = action == "START"
        command = Command(name="charge-start" if is_start else "charge-stop")
        return await self._command(car, command)

    async def set_limit(self, request: Request) -> Response:
        """POST .../charge/limit with a fraction, as number or text."""
        car = self._open(request, "command")
        body = await json_body(request)
        percent = _fraction(body.get("limit") if isinstance(body, dict) else None)
        return await self._command(car, Command(name="charge-set-limit", percent=percent))

    async def batch(self, request: Request) -> Response:
        """POST .../batch: each path counts, and one that fails does not fail the rest."""
        paths = _batch_paths(await json_body(request))
        car = self._open(request, "read", calls=len(paths))
        await self._cloud.pause(car.read_s)
        units = unit_system(request)
        responses = []
        for path in paths:
            code, body = 200, {}
            try:
                body = self._read(car, path, is_imperial=units == "imperial")
            except SmartcarError as error:
                code, body = error.status, error.v2(self._cloud.request_id())
            headers = self._data_headers(units)
            responses.append({"path": path, "code": code, "headers": headers, "body": body})
        return self._answer({"responses": responses})

    async def disconnect(self, request: Request) -> Response:
        """DELETE .../application: end the consent for this vehicle."""
        user_id = self._enter(request, "connection")
        self._cloud.remove_connection(self._car(request, user_id))
        return self._answer({"status": "success"})

    async def connections(self, request: Request) -> Response:
        """GET management/connections with the management token."""
        call_of(request).kind = "management"
        if _basic(request) != ("default", self._cloud.management_token):
            raise SmartcarError("AUTHENTICATION")
        query = request.query_params
        mode = query.get("mode")
        if mode not in (None, "live", "simulated", "test"):
            raise SmartcarError("VALIDATION", "mode is unknown")
        rows = [
            {
                "vehicleId": car.vehicle_id,
                "userId": car.user_id,
                "connectedAt": iso_z(car.connected_at or self._cloud.clock.now()),
                "mode": car.mode,
            }
            for car in self._cloud.cars.values()
            if query.get("user_id") in (None, car.user_id)
            and query.get("vehicle_id") in (None, car.vehicle_id)
            and mode in (None, car.mode)
        ]
        limit = _whole(request, "limit", CONNECTION_ROWS, CONNECTIONS_MAX, least=1)
        first = _cursor(query.get("cursor"))
        shown = rows[first : first + limit]
        is_more = first + limit < len(rows)
        paging = {"cursor": f"c{first + limit}" if is_more else None, "count": len(shown)}
        return self._answer({"connections": shown, "paging": paging})

    async def _command(self, car: StandinCar, command: Command) -> Response:
        judge(car, command)
        await self._cloud.pause(car.command_s)
        order(self._cloud, car, command)
        body = {"status": "success"}
        if self._cloud.tells_message:
            body["message"] = "Successfully sent request to vehicle"
        return self._answer(body)

    def _read(self, car: StandinCar, path: str, *, is_imperial: bool) -> JsonObject:
        found = READS.get(path.rstrip("/") or "/")
        if found is None:
            raise SmartcarError("RESOURCE_NOT_FOUND:PATH", path)
        if found.permission and found.permission not in car.permissions:
            raise SmartcarError("PERMISSION", f"{found.permission} was not granted")
        if path.rstrip("/") not in STORED | {""}:
            if car.is_asleep and not car.wakes_by_command:
                raise SmartcarError("VEHICLE_STATE:ASLEEP")
            car.wake()
        report = car.measured(self._cloud.clock.now())
        return found.body(View(car=car, report=report, is_imperial=is_imperial))

    def _data_headers(self, units: str) -> dict[str, str]:
        now = iso_z(self._cloud.clock.now())
        return {"sc-data-age": now, "sc-fetched-at": now, "sc-unit-system": units}

    def _enter(self, request: Request, kind: CallKind) -> str:
        """Authorise a user and take from the application's bucket; return the user."""
        call = call_of(request)
        call.kind = kind
        user_id = self._cloud.user_tokens.user_of(bearer(request))
        if user_id is None:
            raise SmartcarError("AUTHENTICATION", headers={"www-authenticate": "Bearer"})
        call.user_id = user_id
        self._cloud.settle()
        self._cloud.limits.take_app(self._cloud.clock.now())
        if kind not in ("read", "command"):
            self._strike(request)
        return user_id

    def _open(self, request: Request, kind: CallKind, *, calls: int = 1) -> StandinCar:
        """Do all the checks of a vehicle's path, and count the call."""
        call = call_of(request)
        call.vehicle_id = request.path_params["vehicleId"]
        user_id = self._enter(request, kind)
        unit_system(request)
        car = self._car(request, user_id)
        is_command = kind == "command"
        self._cloud.limits.take_vehicle(
            car.vehicle_id, self._cloud.clock.now(), calls=calls, is_command=is_command
        )
        call.calls = calls
        if is_command and "control_charge" not in car.permissions:
            raise SmartcarError("PERMISSION", "control_charge was not granted")
        self._strike(request)
        return car

    def _strike(self, request: Request) -> None:
        fault: CarFault | None = request.scope.get(FAULT)
        if fault is not None and fault.kind == "error":
            raise SmartcarError(fault.name, retry_after_s=fault.retry_after_s)

    def _car(self, request: Request, user_id: str) -> StandinCar:
        car = self._cloud.cars.get(request.path_params["vehicleId"])
        if car is None or car.user_id != user_id:
            raise SmartcarError("RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND")
        return car

    def _answer(self, body: Any) -> Response:
        return json_answer(body, headers={"SC-Request-Id": self._cloud.request_id()})


def _path_of(request: Request) -> str:
    """Return what stands behind `/vehicles/{id}`."""
    stem = f"/v2.0/vehicles/{request.path_params['vehicleId']}"
    path: str = request.scope["path"]
    return path.removeprefix(stem) or "/"


def _basic(request: Request) -> tuple[str, str]:
    """Return name and password of Basic authentication, or nothing."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        decoded = base64.b64decode(text.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    name, _, password = decoded.partition(":")
    return (name, password) if scheme.lower() == "basic" else ("", "")


def _fraction(value: object) -> int:
    """Read a limit as number or text; return percent, or SmartcarError 400."""
    words = "limit must be 0.5 to 1"
    if isinstance(value, str) and LIMIT_TEXT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SmartcarError("VALIDATION", words)
    if not LIMIT_LOWEST / PERCENT <= value <= LIMIT_HIGHEST / PERCENT:
        raise SmartcarError("VALIDATION", words)
    return round(value * PERCENT)


def _batch_paths(body: object) -> list[str]:
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not 0 < len(requests) <= BATCH_MAX:
        raise SmartcarError("VALIDATION", "requests must be a list of paths")
    paths = [each.get("path") if isinstance(each, dict) else None for each in requests]
    texts = [path for path in paths if isinstance(path, str)]
    if len(texts) != len(paths):
        raise SmartcarError("VALIDATION", "each request needs a path")
    return texts


def _cursor(text: str | None) -> int:
    if text is None:
        return 0
    digits = text.removeprefix("c")
    if not digits.isascii() or not digits.isdecimal():
        raise SmartcarError("VALIDATION", "cursor is unknown")
    return int(digits)


def _whole(
    request: Request, name: str, default: int, most: int | None, *, least: int = 0
) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdecimal() and len(text) < len("1000000000")
    if not is_number or int(text) < least or (most is not None and int(text) > most):
        raise SmartcarError("VALIDATION", f"{name} is out of range")
    return int(text)
