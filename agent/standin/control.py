"""The tool's own HTTP face under `/_control/`: ledger, faults, clock, fixtures.

Not part of ChargEye; open without a token, as the server is loopback only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.routing import Route

from agent.standin.api import answer
from agent.standin.clock import ManualClock
from agent.standin.faults import Fault
from agent.standin.schedules import BadRequestError, parse_time

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.standin.state import ChargEyeStandin


def control_routes(cloud: ChargEyeStandin) -> list[Route]:
    """Return the routes that work on `cloud`."""
    control = _Control(cloud)
    return [
        Route("/_control/ledger", control.ledger, methods=["GET", "DELETE"]),
        Route("/_control/fault", control.fault, methods=["POST", "DELETE"]),
        Route("/_control/replan", control.replan, methods=["POST"]),
        Route("/_control/clock", control.clock, methods=["GET", "POST"]),
        Route("/_control/fixture", control.fixture, methods=["POST"]),
        Route("/_control/v2icp", control.v2icp, methods=["POST"]),
    ]


class _Control:
    def __init__(self, cloud: ChargEyeStandin) -> None:
        self._cloud = cloud

    async def ledger(self, request: Request) -> Response:
        """GET lists; DELETE forgets. Query `method`, `path` and `key` narrow."""
        if request.method == "DELETE":
            self._cloud.requests.clear()
            return answer({"success": True})
        query = request.query_params
        found = self._cloud.requests.matching(
            query.get("method"), query.get("path", ""), query.get("key")
        )
        return answer({"requests": [record.json() for record in found]})

    async def fault(self, request: Request) -> Response:
        """POST the fields of `Fault`, or `{"unreachable": bool}`; DELETE lifts all."""
        if request.method == "DELETE":
            self._cloud.faults.clear()
            self._cloud.unreachable = False
            return answer({"success": True})
        body = await _object(request)
        if "unreachable" in body:
            self._cloud.unreachable = bool(body["unreachable"])
            return answer({"success": True})
        try:
            self._cloud.faults.add(Fault(**body))
        except (TypeError, ValueError) as error:
            raise BadRequestError(str(error)) from error
        return answer({"success": True})

    async def replan(self, request: Request) -> Response:
        """POST `vehicleId` (absent: all), `reason`, `siteCapkW`."""
        body = await _object(request)
        if "siteCapkW" in body:
            self._cloud.site_cap_kw = _number(body["siteCapkW"], "siteCapkW")
        ids = self._cloud.replan(body.get("vehicleId"), body.get("reason", "requested"))
        return answer({"replannedScheduleIds": ids})

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
        return answer({"now": clock.now().isoformat()})

    async def v2icp(self, request: Request) -> Response:
        """POST `vehicleId`, `vin`, `mac` and the bus's own `message`."""
        body = await _object(request)
        message, vehicle_id = body.get("message", {}), body.get("vehicleId")
        if vehicle_id not in self._cloud.vehicles or not isinstance(message, dict):
            raise BadRequestError("vehicleId is unknown or message is no object")
        said = {key: str(body.get(key, "")) for key in ("mac", "vin")}
        self._cloud.v2icp_said(str(vehicle_id), message, **said)
        return answer({"success": True})

    async def fixture(self, request: Request) -> Response:
        """POST lists of rows by name; `clear` true forgets the old ones first."""
        body = await _object(request)
        if body.get("clear") is True:
            self._cloud.clear()
        self._cloud.load_fixture(body)
        return answer({"success": True})


async def _object(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequestError("body is not JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError("body must be an object")
    return body


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"{name} must be a number")
    return value
