"""ChargEye's documented operations for operators and cross-checks, typed.

Reads filter time ranges again locally, for the names of the query parameters are
inferred (chargeye.md 4). A write that creates is sent once: who wants to repeat it reads
first (6.6). All methods raise CloudFault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from agent.cloud.chargeye_api import ChargEyeApi, odd
from agent.cloud.chargeye_parse import read_text
from agent.cloud.chargeye_rows import (
    ActiveRead,
    CloudSession,
    CloudStation,
    Patched,
    Place,
    Posted,
    SlotsRead,
    newest,
    read_active,
    read_patched,
    read_place,
    read_places,
    read_posted,
    read_session,
    read_sessions,
    read_slots,
    read_stations,
)
from agent.cloud.http import Json
from agent.domain.errors import CloudFault

PAGES_MAX = 40
"""Pages of transactions followed in one go: each is one request of the account."""

T = TypeVar("T")


class ChargEyeOps:
    """What a person may ask of ChargEye; see the module."""

    def __init__(self, api: ChargEyeApi) -> None:
        """Use the token and path table of ``api``."""
        self._api = api

    # --- registry -----------------------------------------------------------------------

    async def vehicles(self, location_uid: str = "") -> Any:
        """Read the vehicle list as it came: wrapped twice, ``v2icp`` beside (1.1)."""
        query = [("locationUid", location_uid)] if location_uid else []
        return await self._api.send("GET", "vehicles", query=query)

    async def vehicle(self, vehicle_id: str) -> Json:
        """Read one vehicle: bare as documented, wrapped as its list is."""
        body = await self._api.send("GET", "vehicle", vehicleId=vehicle_id)
        inner = body.get("vehicle") if isinstance(body, dict) else None
        row: Any = inner if isinstance(inner, dict) else body
        if not isinstance(row, dict) or not read_text(row.get("id")):
            raise odd(f"GET vehicle {vehicle_id}", ValueError("it is no vehicle"))
        return row

    async def put_vehicle(self, vehicle_id: str, fields: Json) -> str:
        """Create a vehicle, or replace all its fields; its id as the cloud tells it."""
        body = await self._api.send("PUT", "vehicle", body=fields, vehicleId=vehicle_id)
        found = body if isinstance(body, dict) else {}
        return read_text(found.get("id")) or vehicle_id

    async def patch_vehicle(self, vehicle_id: str, fields: Json) -> None:
        """Change some fields of a vehicle."""
        body = await self._api.send("PATCH", "vehicle", body=fields, vehicleId=vehicle_id)
        _demand_success(body, f"PATCH vehicle {vehicle_id}")

    # --- schedules ----------------------------------------------------------------------

    async def location_schedules(
        self,
        location_uid: str,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> SlotsRead:
        """Read a location's schedules; the only place where recurring ones are listed."""
        body = await self._api.send(
            "GET",
            "location_schedules",
            query=_range(since, until),
            locationUid=location_uid,
        )
        return _within(_read(read_slots, body, "GET schedules"), since, until)

    async def vehicle_schedules(
        self,
        vehicle_id: str,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> SlotsRead:
        """Read a vehicle's schedules."""
        body = await self._api.send(
            "GET", "vehicle_schedules", query=_range(since, until), vehicleId=vehicle_id
        )
        return _within(_read(read_slots, body, "GET schedules"), since, until)

    async def active_schedule(self, vehicle_id: str) -> ActiveRead:
        """Read the running or next schedule, and the last that ended."""
        body = await self._api.send("GET", "active_schedule", vehicleId=vehicle_id)
        return read_active(body)

    async def post_schedules(
        self, vehicle_id: str, rows: Sequence[Json], *, replace: bool
    ) -> Posted:
        """Add schedules; ``replace`` makes them all that is not departed yet (6.6).

        A fault that is retryable leaves open whether they were taken: read, then decide.
        """
        sent: Json = {"schedules": list(rows)}
        if replace:
            sent["replaceFutureSchedules"] = True
        body = await self._api.send(
            "POST", "vehicle_schedules", body=sent, vehicleId=vehicle_id
        )
        return read_posted(body)

    async def patch_schedules(self, vehicle_id: str, rows: Sequence[Json]) -> Patched:
        """Change schedules by id; refused ones are named in the answer (6.7)."""
        body = await self._api.send(
            "PATCH",
            "vehicle_schedules",
            body={"schedules": list(rows)},
            vehicleId=vehicle_id,
        )
        return read_patched(body)

    # --- places, stations, sessions -------------------------------------------------------

    async def locations(self) -> list[Place]:
        """Read all locations of the account."""
        return _read(read_places, await self._api.send("GET", "locations"), "GET locations")

    async def location(self, location_uid: str) -> Place:
        """Read one location by its uid."""
        body = await self._api.send("GET", "location", locationUid=location_uid)
        return _read(read_place, body, "GET location")

    async def create_location(self, fields: Json, station_id: str = "") -> str:
        """Create a location, with a station where one is named; its uid."""
        sent: Json = {"location": fields}
        if station_id:
            sent["stationId"] = station_id
        body = await self._api.send("POST", "locations", body=sent)
        _demand_success(body, "POST locations")
        return read_text(body.get("id")) if isinstance(body, dict) else ""

    async def location_stations(self, location_uid: str) -> list[CloudStation]:
        """Read the administrative rows of a location's stations."""
        body = await self._api.send("GET", "location_stations", locationUid=location_uid)
        return _read(read_stations, body, "GET stations of the location")

    async def stations(
        self, location_uid: str = "", station_ids: Sequence[str] = ()
    ) -> list[CloudStation]:
        """Read stations with connectors; ids are sent as a repeated key (inferred)."""
        query = [("locationUid", location_uid)] if location_uid else []
        query += [("stationIds", item) for item in station_ids]
        body = await self._api.send("GET", "stations", query=query)
        found = _read(read_stations, body, "GET stations")
        return [
            item
            for item in found
            if (not station_ids or item.station_id in station_ids)
            and (not location_uid or item.location_uid in ("", location_uid))
        ]

    async def sessions(
        self,
        station_id: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        rows_max: int = 500,
    ) -> tuple[list[CloudSession], bool]:
        """Read transactions of one station, or of all; whether those are all of them.

        Pages are followed by ``exclusiveStartKey``, JSON text of the last page's key
        (inferred). A key that comes twice ends the list: it would never end.
        """
        query = _range(since, until)
        found: list[CloudSession] = []
        seen: set[str] = set()
        key: str | None = None
        for _ in range(PAGES_MAX):
            asked = [*query, *([("exclusiveStartKey", key)] if key is not None else [])]
            body = await self._page(station_id, asked)
            rows, following = _read(read_sessions, body, "GET transactions")
            found += rows
            if following is None:
                return _started(found, since, until)[:rows_max], len(found) <= rows_max
            key = orjson.dumps(following).decode()
            if key in seen or len(found) >= rows_max:
                break
            seen.add(key)
        return _started(found, since, until)[:rows_max], False

    async def _page(self, station_id: str, query: list[tuple[str, str]]) -> Any:
        if not station_id:
            return await self._api.send("GET", "transactions", query=query)
        return await self._api.send(
            "GET", "station_transactions", query=query, stationId=station_id
        )

    async def session(self, tx_id: str) -> CloudSession:
        """Read one transaction."""
        body = await self._api.send("GET", "transaction", txId=tx_id)
        inner = body.get("transaction") if isinstance(body, dict) else None
        found = read_session(inner if isinstance(inner, dict) else body)
        if found is None:
            raise odd("GET transaction", ValueError("the answer is no transaction"))
        return found

    # --- power groups ---------------------------------------------------------------------

    async def patch_power_group(self, group_id: str, group: Json) -> None:
        """Change some fields of a power group: ChargEye's own load balancing."""
        body = await self._api.send(
            "PATCH", "power_group", body={"group": group}, powerGroupId=group_id
        )
        _demand_success(body, f"PATCH power group {group_id}")


def _read(read: Callable[[Any], T], body: Any, what: str) -> T:
    try:
        return read(body)
    except ValueError as error:
        raise odd(what, error) from error


def _demand_success(body: Any, what: str) -> None:
    found = body if isinstance(body, dict) else {}
    if found.get("success") is False:
        message = read_text(found.get("message"))[:120] or "no reason was given"
        raise CloudFault(f"chargeye: {what} was refused: {message}", retryable=False)


def _range(since: datetime | None, until: datetime | None) -> list[tuple[str, str]]:
    named = (("startDate", since), ("endDate", until))
    return [(name, time_text(at)) for name, at in named if at is not None]


def time_text(at: datetime) -> str:
    """ISO 8601 UTC with milliseconds and Z, as ChargEye writes it."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _within(read: SlotsRead, since: datetime | None, until: datetime | None) -> SlotsRead:
    """Keep the slots that touch the range; one without times is kept, to be seen."""
    if since is None and until is None:
        return read
    kept = tuple(
        slot
        for slot in read.slots
        if (since is None or slot.departs_at is None or slot.departs_at > since)
        and (until is None or slot.arrives_at is None or slot.arrives_at < until)
    )
    return SlotsRead(slots=kept, recurring=read.recurring, oddities=read.oddities)


def _started(
    rows: list[CloudSession], since: datetime | None, until: datetime | None
) -> list[CloudSession]:
    return [
        item
        for item in newest(rows)
        if (since is None or item.started_at is None or item.started_at >= since)
        and (until is None or item.started_at is None or item.started_at < until)
    ]
