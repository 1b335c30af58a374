"""The tool's own face of the stand-in Smartcar, under `/_control/smartcar/`.

Not part of Smartcar; open without a token, as the server is loopback only.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

import orjson
from starlette.routing import Route

from agent.standin.clock import ManualClock
from agent.standin.schedules import BadRequestError, parse_time
from agent.standin.smartcar_api import json_answer
from agent.standin.smartcar_faults import CarFault
from agent.standin.smartcar_fixtures import car_from, parts_of
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_signals import spoil
from agent.standin.smartcar_state import Encoding, Webhook

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.standin.smartcar_state import SmartcarStandin
    from agent.standin.smartcar_webhooks import WebhookSender

PREFIX = "/_control/smartcar"
SWITCHES = frozenset({
    "encoding", "wraps_vehicle", "wraps_signal", "tells_message",
    "lists_all_permissions", "units", "connection_rows", "signal_rows",
    "links_origin", "late_after_s", "unreachable",
})  # fmt: skip
LIMIT_FIELDS = frozenset(each.name for each in fields(LimitSet))


def smartcar_control_routes(
    cloud: SmartcarStandin, sender: WebhookSender | None = None
) -> list[Route]:
    """Return the routes that work on `cloud`, and on its `sender` if it has one."""
    control = _Control(cloud)
    hooks = [] if sender is None else _webhook_routes(cloud, sender)
    return [
        *hooks,
        Route(f"{PREFIX}/ledger", control.ledger, methods=["GET", "DELETE"]),
        Route(f"{PREFIX}/fault", control.fault, methods=["POST", "DELETE"]),
        Route(f"{PREFIX}/clock", control.clock, methods=["GET", "POST"]),
        Route(f"{PREFIX}/vehicles", control.vehicles, methods=["GET", "POST"]),
        Route(f"{PREFIX}/vehicles/{{id}}", control.vehicle, methods=["PATCH", "DELETE"]),
        Route(f"{PREFIX}/signals", control.signals, methods=["POST"]),
        Route(f"{PREFIX}/settings", control.settings, methods=["GET", "POST"]),
        Route(f"{PREFIX}/limits", control.limits, methods=["GET", "POST", "DELETE"]),
        Route(f"{PREFIX}/tokens", control.tokens, methods=["POST"]),
    ]


def _webhook_routes(cloud: SmartcarStandin, sender: WebhookSender) -> list[Route]:
    """Return the routes of the dashboard's webhook page, and of its sender's faults."""
    dashboard = _Dashboard(cloud, sender)
    return [
        Route(f"{PREFIX}/webhooks", dashboard.webhooks, methods=["POST"]),
        Route(f"{PREFIX}/events", dashboard.events, methods=["POST"]),
        Route(f"{PREFIX}/deliveries", dashboard.deliveries, methods=["GET", "POST"]),
    ]


class _Dashboard:
    def __init__(self, cloud: SmartcarStandin, sender: WebhookSender) -> None:
        self._cloud = cloud
        self._sender = sender

    async def webhooks(self, request: Request) -> Response:
        """POST the fields of `Webhook`; it is verified at once, and the result told."""
        body = await _object(request)
        for name in ("triggers", "data"):
            if name in body:
                body[name] = tuple(body[name])
        try:
            webhook = Webhook(**body)
        except TypeError as error:
            raise BadRequestError(str(error)) from error
        self._cloud.webhooks[webhook.id] = webhook
        is_verified = await self._sender.verify(webhook)
        return json_answer({"isVerified": is_verified})

    async def events(self, request: Request) -> Response:
        """POST `webhook`, `vehicle`; `changed` codes, or `error` and `isResolved`."""
        body = await _object(request)
        webhook = self._cloud.webhooks.get(str(body.get("webhook")))
        car = self._cloud.cars.get(str(body.get("vehicle")))
        if webhook is None or car is None:
            raise BadRequestError("webhook or vehicle is unknown")
        if "error" not in body:
            return json_answer(self._sender.tell(webhook, car, body.get("changed", [])))
        try:
            event = self._sender.tell_error(
                webhook, car, str(body["error"]), is_resolved=body.get("isResolved", False)
            )
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        return json_answer(event)

    async def deliveries(self, request: Request) -> Response:
        """GET attempts; POST `duplicates`, `badSignatures`, `hold`, `release`."""
        sender = self._sender
        if request.method == "POST":
            body = await _object(request)
            sender.duplicates = int(body.get("duplicates", sender.duplicates))
            sender.bad_signatures = int(body.get("badSignatures", sender.bad_signatures))
            sender.is_holding = bool(body.get("hold", sender.is_holding))
            if "release" in body:
                sender.release(reverse=body["release"] == "reverse")
        return json_answer({"deliveries": [each.json() for each in sender.deliveries]})


class _Control:
    def __init__(self, cloud: SmartcarStandin) -> None:
        self._cloud = cloud

    async def ledger(self, request: Request) -> Response:
        """GET lists; DELETE forgets. Query `kind`, `vehicle`, `method`, `path`, `since`."""
        if request.method == "DELETE":
            self._cloud.calls.clear()
            return _done()
        query = request.query_params
        found = self._cloud.calls.matching(
            kind=query.get("kind"),
            vehicle=query.get("vehicle"),
            method=query.get("method"),
            path_contains=query.get("path", ""),
            since=parse_time(query["since"]) if "since" in query else None,
        )
        return json_answer({"requests": [record.json() for record in found]})

    async def fault(self, request: Request) -> Response:
        """POST the fields of `CarFault`; DELETE lifts all."""
        if request.method == "DELETE":
            self._cloud.faults.clear()
            self._cloud.unreachable = False
            return _done()
        body = await _object(request)
        try:
            self._cloud.faults.add(CarFault(**body))
        except (TypeError, ValueError) as error:
            raise BadRequestError(str(error)) from error
        return _done()

    async def clock(self, request: Request) -> Response:
        """GET tells; POST `advanceS` (seconds) or `set` (ISO 8601) moves."""
        clock = self._cloud.clock
        if request.method == "POST":
            body = await _object(request)
            if not isinstance(clock, ManualClock):
                raise BadRequestError("this clock runs by itself")
            if "set" in body:
                clock.set(parse_time(body["set"]))
            clock.advance(_number(body.get("advanceS", 0), "advanceS"))
            self._cloud.settle()
        return json_answer({"now": clock.now().isoformat()})

    async def vehicles(self, request: Request) -> Response:
        """GET the truth about all cars; POST one more: fields of car and of its body."""
        if request.method == "GET":
            return json_answer({"vehicles": self._cloud.truth()})
        self._cloud.add(car_from(await _object(request)))
        return _done()

    async def vehicle(self, request: Request) -> Response:
        """PATCH fields of a car and of its `body`; `sayNow`: it reports; DELETE ends it."""
        car = self._cloud.cars.get(request.path_params["id"])
        if car is None:
            raise BadRequestError(f"car {request.path_params['id']} is unknown")
        if request.method == "DELETE":
            self._cloud.remove_connection(car)
            return _done()
        body = await _object(request)
        self._cloud.settle()
        says_now = body.pop("sayNow", False)
        of_car, of_body = parts_of(body)
        for name, value in of_car.items():
            setattr(car, name, value)
        for name, value in of_body.items():
            setattr(car.body, name, value)
        self._cloud.settle()
        if says_now:
            self._cloud.say_now(car)
        return _done()

    async def signals(self, request: Request) -> Response:
        """POST `vehicle`, `code`, `mode` (see `smartcar_signals`; empty heals)."""
        body = await _object(request)
        car = self._cloud.cars.get(str(body.get("vehicle")))
        if car is None:
            raise BadRequestError(f"car {body.get('vehicle')} is unknown")
        try:
            spoil(car, str(body.get("code")), str(body.get("mode", "")))
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        return _done()

    async def settings(self, request: Request) -> Response:
        """GET or POST the switches by their names in `SmartcarStandin`."""
        if request.method == "POST":
            body = await _object(request)
            unknown = set(body) - SWITCHES
            if unknown:
                raise BadRequestError(f"there is no switch {', '.join(sorted(unknown))}")
            if body.get("encoding", "iso") not in get_args(Encoding):
                raise BadRequestError(f"encoding is one of {get_args(Encoding)}")
            for name, value in body.items():
                setattr(self._cloud, name, value)
        return json_answer({name: getattr(self._cloud, name) for name in sorted(SWITCHES)})

    async def limits(self, request: Request) -> Response:
        """GET use; POST numbers of `LimitSet`, or `vehicle` and `used`; DELETE resets."""
        limits, now = self._cloud.limits, self._cloud.clock.now()
        if request.method == "DELETE":
            limits.reset()
        if request.method == "POST":
            body = await _object(request)
            if "used" in body:
                used = int(_number(body.pop("used"), "used"))
                limits.use(str(body.pop("vehicle", "")), now, used)
            unknown = set(body) - LIMIT_FIELDS
            if unknown:
                raise BadRequestError(f"there is no limit {', '.join(sorted(unknown))}")
            for name, value in body.items():
                setattr(limits.numbers, name, value)
        return json_answer(
            {
                "used": {key: limits.used(key, now) for key in self._cloud.cars},
                "appLeft": limits.app_left(),
                "refusedApp": limits.refused_app,
                "refusedVehicle": limits.refused_vehicle,
                "refusedMonth": limits.refused_month,
            }
        )

    async def tokens(self, request: Request) -> Response:
        """POST `revoke`, `lifeS`, `graceS`, `grantUser`, `codeUser` and `redirectUri`."""
        body = await _object(request)
        told: dict[str, Any] = {"success": True}
        if body.get("revoke"):
            self._cloud.tokens.revoke_all()
            self._cloud.user_tokens.revoke_access()
        if "lifeS" in body:
            self._cloud.tokens.life_s = int(_number(body["lifeS"], "lifeS"))
        if "graceS" in body:
            self._cloud.user_tokens.grace_s = _number(body["graceS"], "graceS")
        if "grantUser" in body:
            told["pair"] = self._cloud.user_tokens.grant(str(body["grantUser"]))
        if "codeUser" in body:
            uri = str(body.get("redirectUri", ""))
            told["code"] = self._cloud.user_tokens.code(str(body["codeUser"]), uri)
        return json_answer(told)


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body() or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequestError("body is not JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError("body must be an object")
    return body


def _done() -> Response:
    return json_answer({"success": True})


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"{name} must be a number")
    return value
