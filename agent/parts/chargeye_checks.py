"""Operations that read ChargEye for cross-checks, and the few settings beside schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from agent.cloud.chargeye_check import StationLink, cross_check
from agent.cloud.chargeye_rows import CloudSession, CloudStation, Place, newest
from agent.cloud.http import Json
from agent.control.operations import (
    Arguments,
    OperationRefused,
    Operations,
    number_of,
    text_of,
)
from agent.control.views import iso
from agent.domain.identity import mac_text
from agent.domain.session import Session
from agent.parts.chargeye_desk import Desk, texts_of, time_of

log = structlog.get_logger()

SESSIONS_MAX = 2000
"""Our newest sessions that are compared: a week of a large depot."""
HOURS_MAX = 24.0 * 31
BEFORE = timedelta(hours=1)
"""Transactions are asked for from a little earlier: they may begin before our plug-in."""


class CheckOperations:
    """The operations ``chargeye.*``."""

    def __init__(self, desk: Desk) -> None:
        """Prepare."""
        self._desk = desk

    def add_to(self, operations: Operations) -> None:
        """Offer all of them."""
        operations.add("chargeye.locations", self.locations)
        operations.add("chargeye.add-location", self.add_location)
        operations.add("chargeye.stations", self.stations)
        operations.add("chargeye.transactions", self.transactions)
        operations.add("chargeye.cross-check", self.cross_check)
        operations.add("chargeye.power-group", self.power_group)

    async def locations(self, arguments: Arguments) -> Sequence[Json]:
        """All locations of the account, or one."""
        uid = text_of(arguments, "location", "")
        found = (
            [await self._desk.ops.location(uid)]
            if uid
            else await self._desk.ops.locations()
        )
        return [_place(item, self._desk.location_uid) for item in found]

    async def add_location(self, arguments: Arguments) -> Json:
        """Create a location, with a station where one is named."""
        fields = arguments.get("location")
        if not isinstance(fields, dict) or not fields:
            raise OperationRefused("location must be a JSON object with at least a name")
        uid = await self._desk.ops.create_location(
            fields, text_of(arguments, "station", "")
        )
        log.info("location_written", location_uid=uid)
        return {"id": uid}

    async def stations(self, arguments: Arguments) -> Sequence[Json]:
        """Stations with connectors; ``administrative`` rows of a location on demand."""
        place = text_of(arguments, "location", self._desk.location_uid)
        if arguments.get("administrative") is True:
            found = await self._desk.ops.location_stations(place)
        else:
            found = await self._desk.ops.stations(place, texts_of(arguments, "ids"))
        ours = {link.cloud_id: link.station_id for link in self._links()}
        return [_station(item, ours.get(item.station_id)) for item in found]

    async def transactions(self, arguments: Arguments) -> Json:
        """Transactions of one station, or of all; whether the list is complete."""
        tx_id = text_of(arguments, "id", "")
        if tx_id:
            one = await self._desk.ops.session(tx_id)
            return {"transactions": [_session(one)], "complete": True}
        limit = round(number_of(arguments, "limit", low=1, high=5000, default=200))
        rows, is_complete = await self._desk.ops.sessions(
            self._cloud_id(text_of(arguments, "station", "")),
            since=time_of(arguments, "from"),
            until=time_of(arguments, "to"),
            rows_max=limit,
        )
        return {"transactions": [_session(item) for item in rows], "complete": is_complete}

    async def cross_check(self, arguments: Arguments) -> Json:
        """Hold our sessions against ChargEye's transactions and stations."""
        hours = number_of(arguments, "hours", low=0.1, high=HOURS_MAX, default=48.0)
        since = self._desk.now() - timedelta(hours=hours)
        links, ops = self._links(), self._desk.ops
        stored = await self._desk.ground.store.sessions(limit=SESSIONS_MAX)
        sessions = [self._newest(item) for item in stored]
        stations = await ops.stations(self._desk.location_uid)
        known = {item.station_id for item in stations}
        theirs: list[CloudSession] = []
        partial: list[str] = []
        for link in links:
            if link.cloud_id not in known:
                continue
            rows, is_complete = await ops.sessions(
                link.cloud_id, since=since - BEFORE, rows_max=SESSIONS_MAX
            )
            theirs += rows
            if not is_complete:
                partial.append(link.station_id)
        theirs += [c.last for s in stations for c in s.connectors if c.last is not None]
        found = cross_check(sessions, newest(theirs), links, stations, since=since)
        return {
            "since": iso(since),
            "compared": [{"session_id": one, "tx_id": other} for one, other in found.pairs],
            "differences": [
                {
                    "what": item.what,
                    "station_id": item.station_id,
                    "session_id": item.session_id or None,
                    "tx_id": item.tx_id or None,
                    "ours": item.ours,
                    "theirs": item.theirs,
                }
                for item in found.differences
            ],
            "not_all_pages": partial,
        }

    async def power_group(self, arguments: Arguments) -> Json:
        """Change some fields of a power group: ChargEye's own load balancing."""
        group_id = text_of(arguments, "id")
        fields = arguments.get("group")
        if not isinstance(fields, dict) or not fields:
            raise OperationRefused("nothing shall change: name a field and its value")
        await self._desk.ops.patch_power_group(group_id, fields)
        log.warning("power_group_written", group_id=group_id, fields=sorted(fields))
        return {"id": group_id, "group": fields}

    def _newest(self, stored: Session) -> Session:
        """A session as it is in memory; a row on disk may be some meter values old."""
        state = self._desk.ground.depot.states.get(stored.station_id)
        return stored if state is None else state.sessions.get(stored.session_id, stored)

    def _links(self) -> list[StationLink]:
        """Our stations under their names in ChargEye."""
        return [
            StationLink(
                station_id=item.id,
                cloud_id=item.chargeye_station_id or item.id,
                connectors=item.chargeye_connectors,
            )
            for item in self._desk.ground.settings.stations
        ]

    def _cloud_id(self, station_id: str) -> str:
        """A station's name in ChargEye, given in either way."""
        named = {link.station_id: link.cloud_id for link in self._links()}
        return named.get(station_id, station_id)


def _place(item: Place, own: str) -> Json:
    return {
        "location_uid": item.uid,
        "name": item.name or None,
        "reference": item.reference or None,
        "city": item.city or None,
        "is_this_depot": item.uid == own,
        "row": item.row,
    }


def _station(item: CloudStation, ours: str | None) -> Json:
    return {
        "chargeye_station_id": item.station_id,
        "station_id": ours,
        "name": item.name or None,
        "status": item.status or None,
        "online": item.online or None,
        "max_w": item.max_w,
        "connectors": [
            {
                "connector_id": connector.connector_id,
                "status": connector.status or None,
                "type": connector.kind or None,
                "last": _session(connector.last) if connector.last is not None else None,
            }
            for connector in item.connectors
        ],
    }


def _session(item: CloudSession) -> Json:
    return {
        "tx_id": item.tx_id,
        "chargeye_station_id": item.station_id,
        "connector_ids": [*item.connector_ids],
        "status": item.status or None,
        "started_at": iso(item.started_at),
        "charging_started_at": iso(item.charging_started_at),
        "charging_ended_at": iso(item.charging_ended_at),
        "ended_at": iso(item.ended_at),
        "energy_wh": item.energy_wh,
        "soc_start": item.soc_start,
        "soc_end": item.soc_end,
        "mac": mac_text(item.mac) if item.mac is not None else None,
        "vehicle_id": item.vehicle_id or None,
        "planned_w": item.planned_w,
        "row": item.row,
    }
