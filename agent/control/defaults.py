"""Keeps a safe default on every station: what an outlet gives when nobody plans for it.

Rule 4 of ocpp-depot.md: a station without any profile that loses its central system
charges without limit. So the default is there before the first session, and again after
each boot.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import structlog

from agent.control.depot import Depot
from agent.control.ladders import Ladders, base_form
from agent.control.sender import Sender, may_retry
from agent.control.wishes import STATION
from agent.domain.capability import Capabilities, ProfileForm
from agent.domain.errors import StoreFault
from agent.domain.ids import EvseId, StationId
from agent.domain.profile import compile_default
from agent.ports import Answer, Clock, OrderAnswer, Priority, Stations

log = structlog.get_logger()

CAPABILITY_WAIT_S = 1.6
"""Real seconds after connecting in which the station's own limits are waited for; what
it says decides unit and number of periods. With a settle time of 1 s it suffices."""
DEFAULT_WAIT_S = 0.7
"""Real seconds in which a first limit waits for the answer to the default."""


class Defaults:
    """See the module; also tells when a station is ready for its first limit."""

    def __init__(
        self,
        depot: Depot,
        stations: Stations,
        clock: Clock,
        *,
        ladders: Ladders,
        sender: Sender,
    ) -> None:
        """Prepare; ``keep`` works in the power loop's tasks."""
        self._depot = depot
        self._stations = stations
        self._clock = clock
        self._ladders = ladders
        self._sender = sender
        self._at: dict[StationId, float] = {}
        self._awaited: set[StationId] = set()

    def is_ready(self, station_id: StationId) -> bool:
        """Whether the station's own limits are known, or were waited for."""
        depot = self._depot
        if not depot.state(station_id).is_connected:
            return False
        asked_s = self._at.get(station_id)
        now_s = asyncio.get_running_loop().time()
        if asked_s is not None and now_s - asked_s < DEFAULT_WAIT_S:
            return False  # its answer makes room for the first limit, a moment from now
        if depot.capabilities.get(station_id, Capabilities()).is_known:
            return True
        waited_s = asyncio.get_running_loop().time() - depot.linked_at_s.get(
            station_id, 0.0
        )
        return waited_s >= CAPABILITY_WAIT_S

    def wait_for(self, station_id: StationId, tasks: asyncio.TaskGroup) -> None:
        """Look again when a silent station has had its time to tell its limits."""
        if station_id in self._awaited or not self._depot.state(station_id).is_connected:
            return
        self._awaited.add(station_id)
        tasks.create_task(self._look_later(station_id), name=f"capability-{station_id}")

    async def _look_later(self, station_id: StationId) -> None:
        await asyncio.sleep(CAPABILITY_WAIT_S)
        self._awaited.discard(station_id)
        self._depot.changed.set()

    def keep(self, station_id: StationId, now: datetime, tasks: asyncio.TaskGroup) -> None:
        """Keep a safe TxDefaultProfile on every station (rule 4 of ocpp-depot.md)."""
        depot = self._depot
        outlet = (station_id, STATION)
        traits = depot.traits_of(station_id)
        if outlet in self._sender.in_flight or not self.is_ready(station_id):
            return
        if "no-default-profile" in traits.quirks:
            return
        power = depot.power_of(outlet)
        is_wanted = power.needs_confirmation or power.detail != _mark(traits.fallback_w)
        if not is_wanted or not may_retry(power, now):
            return
        self._sender.in_flight.add(outlet)
        self._at[station_id] = asyncio.get_running_loop().time()
        depot.power[outlet] = replace(
            power,
            last_order_at=now,
            is_doubted_since=False,
            default_tried_w=max(traits.fallback_w, power.default_tried_w or 0.0),
        )
        tasks.create_task(
            self._order(station_id, traits.fallback_w, now),
            name=f"default-{station_id}",
        )

    async def _order(self, station_id: StationId, fallback_w: float, now: datetime) -> None:
        depot = self._depot
        outlet = (station_id, STATION)
        try:
            targets: list[EvseId] = [STATION]
            if "no-connector-0" in depot.traits_of(station_id).quirks:
                targets = depot.outlets(station_id)
            answer, allows_w = OrderAnswer(answer=Answer.OFFLINE), 0.0
            for form in self._forms(station_id):
                answer, allows_w = await self._send(
                    station_id, targets, fallback_w, form, now
                )
                if answer.answer is Answer.REFUSED and targets == [STATION]:
                    answer, allows_w = await self._send(
                        station_id, depot.outlets(station_id), fallback_w, form, now
                    )
                if answer.answer not in (Answer.REFUSED, Answer.ERROR):
                    break
            if answer.answer is Answer.SILENT:
                # Only this call may be what it does not answer: the link is kept then.
                await self._stations.is_answering(station_id, depot.outlets(station_id)[0])
            power = depot.power_of(outlet)
            if answer.answer is Answer.ACCEPTED:
                log.info("default_confirmed", station_id=station_id, limit_w=allows_w)
                power = replace(
                    power,
                    default_w=allows_w,
                    default_tried_w=None,
                    needs_confirmation=power.is_doubted_since,
                    failures=0,
                    detail=_mark(fallback_w),
                )
            else:
                log.warning(
                    "default_refused",
                    station_id=station_id,
                    answer=answer.answer,
                    reason=answer.detail,
                )
                is_known = answer.answer in (Answer.REFUSED, Answer.ERROR)
                power = replace(
                    power,
                    failures=power.failures + 1,
                    default_tried_w=None if is_known else power.default_tried_w,
                )
            depot.power[outlet] = power
            await self._sender.save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=station_id, reason=str(fault))
        finally:
            self._sender.in_flight.discard(outlet)
            self._at.pop(station_id, None)
            depot.changed.set()

    def _forms(self, station_id: StationId) -> list[ProfileForm]:
        """The form that the model's limits have now, then the one it should take."""
        base = base_form(self._depot, station_id)
        form = self._ladders.default_form(station_id, base)
        return [form] if form == base else [form, base]

    async def _send(
        self,
        station_id: StationId,
        targets: list[EvseId],
        limit_w: float,
        form: ProfileForm,
        now: datetime,
    ) -> tuple[OrderAnswer, float]:
        answer = OrderAnswer(answer=Answer.OFFLINE)
        allows_w = 0.0
        for evse_id in targets:
            compiled = compile_default(limit_w, evse_id=evse_id, form=form, now=now)
            allows_w = compiled.allows[-1][1]
            self._sender.count_write(station_id, now)
            answer = await self._stations.set_limit(
                station_id, evse_id, compiled.profile, Priority.LIMIT
            )
            if answer.answer is not Answer.ACCEPTED:
                break
        return answer, allows_w


def _mark(fallback_w: float) -> str:
    return f"default {fallback_w:.0f} W"
