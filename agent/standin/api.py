"""Endpoints of the stand-in: authorise, read the body, ask the cloud, wrap.

Envelopes and letter case are those of chargeye-openapi.yaml; time ranges on
schedules are accepted and ignored (chargeye.md 14, point 11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agent.standin.schedules import BadRequestError, JsonObject, require_list
from agent.standin.transactions import page, station_row, with_extract

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from agent.standin.state import ChargEyeStandin

    Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints of one cloud, by path name and method."""

    def __init__(self, cloud: ChargEyeStandin) -> None:
        """Serve `cloud`."""
        self._cloud = cloud
        opened: dict[str, dict[str, Endpoint]] = {
            "locations": {"GET": self._locations, "POST": self._post_location},
            "location": {"GET": self._location},
            "location_stations": {"GET": self._location_stations},
            "location_schedules": {"GET": self._location_schedules},
            "vehicles": {"GET": self._vehicles},
            "vehicle": {
                "GET": self._vehicle,
                "PUT": self._put_vehicle,
                "PATCH": self._patch_vehicle,
            },
            "vehicle_schedules": {
                "GET": self._vehicle_schedules,
                "POST": self._post_schedules,
                "PATCH": self._patch_schedules,
            },
            "active_schedule": {"GET": self._active_schedule},
            "stations": {"GET": self._stations},
            "station_transactions": {"GET": self._transactions},
            "transactions": {"GET": self._transactions},
            "transaction": {"GET": self._transaction},
            "power_group": {"PATCH": self._patch_power_group},
        }
        self.endpoints: dict[str, dict[str, Endpoint]] = {
            "token": {"GET": self._token},
            **{
                name: {verb: self._guarded(method) for verb, method in verbs.items()}
                for name, verbs in opened.items()
            },
        }

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            refusal = self._cloud.tokens.refusal(_bearer(request))
            if refusal is not None:
                return answer({"message": f"Unauthorized: {refusal}"}, 401)
            return await endpoint(request)

        return guarded

    async def _token(self, request: Request) -> Response:
        issued = self._cloud.tokens.exchange(_bearer(request))
        if issued is None:
            return answer({"message": "Unauthorized: refresh token is unknown"}, 401)
        return answer(issued)

    async def _locations(self, _request: Request) -> Response:
        return answer({"locations": list(self._cloud.locations.values())})

    async def _post_location(self, request: Request) -> Response:
        return answer(self._cloud.post_location(await _json(request)))

    async def _patch_power_group(self, request: Request) -> Response:
        group_id = request.path_params["powerGroupId"]
        _found(self._cloud.power_groups, group_id, "power group")
        return answer(self._cloud.patch_power_group(group_id, await _json(request)))

    async def _location(self, request: Request) -> Response:
        uid = request.path_params["locationUid"]
        return answer({"location": _found(self._cloud.locations, uid, "location")})

    async def _location_stations(self, request: Request) -> Response:
        uid = request.path_params["locationUid"]
        _found(self._cloud.locations, uid, "location")
        rows = [s for s in self._cloud.stations if s.get("locationUid") == uid]
        return answer({"stations": [station_row(row) for row in rows]})

    async def _location_schedules(self, request: Request) -> Response:
        uid = request.path_params["locationUid"]
        return answer(self._cloud.location_schedules(uid))

    async def _vehicles(self, request: Request) -> Response:
        uid = request.query_params.get("locationUid")
        rows = [
            {"vehicle": vehicle} | _beside(vehicle)
            for vehicle in self._cloud.vehicles.values()
            if uid is None or uid in _locations_of(vehicle)
        ]
        return answer({"vehicles": rows})

    async def _vehicle(self, request: Request) -> Response:
        return answer(self._known_vehicle(request))

    async def _put_vehicle(self, request: Request) -> Response:
        body = await _json(request)
        return answer(self._cloud.put_vehicle(request.path_params["vehicleId"], body))

    async def _patch_vehicle(self, request: Request) -> Response:
        vehicle = self._known_vehicle(request)
        return answer(self._cloud.patch_vehicle(vehicle["id"], await _json(request)))

    async def _vehicle_schedules(self, request: Request) -> Response:
        vehicle = self._known_vehicle(request)
        return answer({"schedules": self._cloud.vehicle_schedules(vehicle["id"])})

    async def _post_schedules(self, request: Request) -> Response:
        vehicle = self._known_vehicle(request)
        body = await _json(request)
        posted = require_list(body, "schedules")
        replaces = body.get("replaceFutureSchedules", False)
        if not isinstance(replaces, bool):
            raise BadRequestError("replaceFutureSchedules must be true or false")
        written = self._cloud.post_schedules(vehicle["id"], posted, replaces=replaces)
        return answer(written)

    async def _patch_schedules(self, request: Request) -> Response:
        patches = require_list(await _json(request), "schedules")
        vehicle_id = request.path_params["vehicleId"]
        return answer(self._cloud.patch_schedules(vehicle_id, patches))

    async def _active_schedule(self, request: Request) -> Response:
        vehicle = self._known_vehicle(request)
        return answer(self._cloud.active_schedule(vehicle["id"]))

    async def _stations(self, request: Request) -> Response:
        uid = request.query_params.get("locationUid")
        wanted = request.query_params.getlist("stationIds")
        rows = [
            self._station(station)
            for station in self._cloud.stations
            if (uid is None or station.get("locationUid") == uid)
            and (not wanted or station.get("stationId") in wanted)
        ]
        return answer({"stations": rows})

    async def _transactions(self, request: Request) -> Response:
        station_id = request.path_params.get("stationId")
        rows = [
            self._fresh(row)
            for row in self._cloud.transactions
            if station_id is None or row.get("stationId") == station_id
        ]
        return answer(page(rows, request.query_params, self._cloud.page_rows))

    async def _transaction(self, request: Request) -> Response:
        rows = {str(row.get("txId")): row for row in self._cloud.transactions}
        row = _found(rows, request.path_params["txId"], "transaction")
        return answer({"transaction": self._fresh(row)})

    def _known_vehicle(self, request: Request) -> JsonObject:
        vehicle_id = request.path_params["vehicleId"]
        return _found(self._cloud.vehicles, vehicle_id, "vehicle")

    def _fresh(self, row: JsonObject) -> JsonObject:
        return with_extract(row, self._cloud.book.entries, self._cloud.clock.now())

    def _station(self, station: JsonObject) -> JsonObject:
        """Both spellings of a connector's last transaction pass through as set."""
        connectors = []
        for connector in station.get("connectors") or []:
            shown = dict(connector)
            for key in ("lastTransaction", "latestTransaction"):
                if isinstance(shown.get(key), dict):
                    shown[key] = self._fresh(shown[key])
            connectors.append(shown)
        return {**station, "connectors": connectors}


def answer(body: Any, status: int = 200) -> Response:
    """Return `body` as JSON."""
    return Response(orjson.dumps(body), status, media_type="application/json")


async def answer_error(_request: Request, error: Exception) -> Response:
    """Return a refused body as 400 with the stand-in's error shape."""
    return answer({"message": str(error)}, 400)


async def answer_http_error(_request: Request, error: Exception) -> Response:
    """Return 404 and 405 with the stand-in's error shape."""
    if not isinstance(error, HTTPException):
        raise error
    return answer({"message": error.detail}, error.status_code)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _json(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequestError("body is not JSON") from error


def _found(rows: dict[str, JsonObject], key: str, what: str) -> JsonObject:
    if key not in rows:
        raise HTTPException(404, f"{what} {key} is unknown")
    return rows[key]


def _beside(vehicle: JsonObject) -> JsonObject:
    """Return `v2icp` as the list repeats it beside the vehicle."""
    return {"v2icp": vehicle["v2icp"]} if "v2icp" in vehicle else {}


def _locations_of(vehicle: JsonObject) -> list[str]:
    uid = vehicle.get("locationUid")
    if isinstance(uid, str):
        return [uid]
    return list(uid) if isinstance(uid, list) else []
