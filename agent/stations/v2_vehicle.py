"""Asks 2.x stations who is plugged in: ``ConnectedEV.VehicleId`` (ocpp-depot.md A6).

Once after the plug and once more when power flows, because the id comes from the
communication with the vehicle. A station without the component is not asked again on
this link. The adapter only rings; the asking is done by a task of the link.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.domain import events
from agent.domain.ids import EvseId, StationId
from agent.ports import Clock, EventSink, Priority
from agent.stations.adapter import as_text
from agent.stations.framing import Payload
from agent.stations.link import Link
from agent.stations.times import parse_int
from agent.stations.v2_tokens import vehicle_id_evidence

log = structlog.get_logger()

QUESTIONS_MAX = 128
"""Questions waiting per link: two for each outlet."""
COMPONENT = "ConnectedEV"
_LACKING = frozenset({"unknowncomponent", "unknownvariable"})


@dataclass(slots=True, kw_only=True)
class VehicleAsker:
    """See the module; ``run`` works until the link ends."""

    station_id: StationId
    sink: EventSink
    clock: Clock
    link: Link | None = None
    _asked: set[tuple[EvseId, str]] = field(default_factory=set)
    _known: set[EvseId] = field(default_factory=set)
    _visits: Counter[EvseId] = field(default_factory=Counter)
    _is_lacking: bool = False
    _questions: asyncio.Queue[EvseId] = field(
        default_factory=lambda: asyncio.Queue(QUESTIONS_MAX)
    )

    def plugged(self, evse_id: EvseId) -> None:
        """Ring: a cable was put in."""
        self._ring(evse_id, "plug")

    def charging(self, evse_id: EvseId) -> None:
        """Ring: power flows, so the vehicle has talked."""
        self._ring(evse_id, "power")

    def unplugged(self, evse_id: EvseId) -> None:
        """Forget: the next vehicle is another one."""
        self._asked = {item for item in self._asked if item[0] != evse_id}
        self._known.discard(evse_id)
        self._visits[evse_id] += 1

    async def run(self) -> None:
        """Ask what was rung for, one question at a time."""
        while True:
            evse_id = await self._questions.get()
            if not self._is_lacking and evse_id not in self._known:
                await self._ask(evse_id)

    def _ring(self, evse_id: EvseId, moment: str) -> None:
        if self._is_lacking or evse_id in self._known or (evse_id, moment) in self._asked:
            return
        self._asked.add((evse_id, moment))
        if not self._questions.full():
            self._questions.put_nowait(evse_id)

    async def _ask(self, evse_id: EvseId) -> None:
        if self.link is None:
            return
        component = {"name": COMPONENT, "evse": {"id": evse_id}}
        wanted = [
            {"component": component, "variable": {"name": name}}
            for name in ("Available", "VehicleId")
        ]
        visit = self._visits[evse_id]
        outcome = await self.link.call(
            "GetVariables", {"getVariableData": wanted}, Priority.READ
        )
        if outcome.payload is None:
            if outcome.code in ("NotSupported", "NotImplemented"):
                self._is_lacking = True
            return
        found = _results(outcome.payload)
        status, vehicle_id, where = found.get("vehicleid", ("", "", None))
        if status in _LACKING:
            log.info("vehicle_id_not_offered", station_id=self.station_id)
            self._is_lacking = True
            return
        is_there = found.get("available", ("", "true", None))[1].lower() != "false"
        if not vehicle_id or not is_there or where not in (None, evse_id):
            return
        if visit != self._visits[evse_id]:
            return  # the vehicle left while the station was asked
        evidence = vehicle_id_evidence(vehicle_id, source=COMPONENT, at=self.clock.now())
        self._known.add(evse_id)
        await self.sink.handle(
            self.station_id, events.EvidenceReported(evidence=evidence, evse_id=evse_id)
        )


def _results(payload: Payload) -> dict[str, tuple[str, str, int | None]]:
    """Status, value and EVSE of each variable of a GetVariablesResponse, by its name."""
    found: dict[str, tuple[str, str, int | None]] = {}
    items = payload.get("getVariableResult")
    for item in (items if isinstance(items, list) else [])[:8]:
        if not isinstance(item, dict):
            continue
        name = _name(item.get("variable")).lower()
        evse = _part(_part(item.get("component")).get("evse")).get("id")
        status = as_text(item.get("attributeStatus")).lower()
        found[name] = (status, as_text(item.get("attributeValue")), parse_int(evse))
    return found


def _part(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(value: Any) -> str:
    return as_text(_part(value).get("name"))
