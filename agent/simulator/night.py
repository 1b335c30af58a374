"""Live a night of the depot: power the stations, plug and unplug as the plan says."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.simulator.build import build_station
from agent.simulator.station_config import StationConfig
from agent.simulator.vehicle import VirtualVehicle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from agent.simulator.clock import SimClock
    from agent.simulator.core import LedgerEntry
    from agent.simulator.depot import DepotScenario, Mishap, NightVehicle
    from agent.simulator.hardware import TracePoint
    from agent.simulator.station import VirtualStation

    Listener = Callable[[str, LedgerEntry], None]

FLUSH_TIMEOUT_S = 15.0  # for the last stops to be acknowledged by a slow peer


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitOutcome:
    """What became of one visit. Energy in Wh and power in W at the outlet, SoC in %."""

    vehicle: NightVehicle
    station_id: str
    connector: int
    energy_wh: float
    peak_w: float
    soc_start: float
    soc_end: float
    was_asleep: bool
    plugged: datetime
    unplugged: datetime
    trace: tuple[TracePoint, ...]

    @property
    def met_target(self) -> bool:
        """Whether it left with its target SoC, to within one percent."""
        return self.soc_end >= self.vehicle.soc_target - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOptions:
    """How the stations of a night behave; mappings are by station id.

    They add to what the scenario says, or take its place. `overrides` are keys of 1.6,
    `variables` those of 2.x, for all stations of the version. `seed` is that of the
    chance in their faults; None: the scenario's.
    """

    password: str | None = None
    passwords: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, frozenset[str]] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    id_forms: Mapping[str, str] = field(default_factory=dict)
    ssl_context: ssl.SSLContext | None = None
    ssl_contexts: Mapping[str, ssl.SSLContext] = field(default_factory=dict)
    backoff_first_real_s: float = 1.0
    flush_timeout_real_s: float = FLUSH_TIMEOUT_S
    seed: int | None = None
    listener: Listener | None = None


class Night:
    """A running night; its stations can be looked at, cut and rebooted meanwhile."""

    def __init__(
        self,
        scenario: DepotScenario,
        clock: SimClock,
        url: str,
        options: NightOptions | None = None,
    ) -> None:
        """Build the stations; `run` powers them."""
        self.scenario = scenario
        self._clock = clock
        self._options = options or NightOptions()
        self.outcomes: list[VisitOutcome] = []
        self.stations = {
            each.station_id: build_station(self._config(each.station_id, url), clock)
            for each in scenario.stations
        }
        self.vehicles = {each: _vehicle(each) for each in scenario.vehicles}
        for station_id, station in self.stations.items():
            station.listen(self._listener(station_id))

    async def run(self) -> list[VisitOutcome]:
        """Live the night to its last departure; return the visits in order of it."""
        async with asyncio.TaskGroup() as tasks:
            for station in self.stations.values():
                tasks.create_task(station.run())
            try:
                async with asyncio.TaskGroup() as visits:
                    for vehicle in self.scenario.vehicles:
                        visits.create_task(self._visit(vehicle))
                    for mishap in self.scenario.mishaps:
                        visits.create_task(self._suffer(mishap))
                await self._flush()
            finally:
                for station in self.stations.values():
                    station.stop()
        return self.outcomes

    def drawn_w(self) -> float:
        """Tell what the whole depot draws now, in W."""
        return sum(
            outlet.power_w
            for station in self.stations.values()
            for outlet in station.outlets.values()
        )

    def _config(self, station_id: str, url: str) -> StationConfig:
        station = self.scenario.station(station_id)
        options = self._options
        return StationConfig(
            station_id=station_id,
            url=url,
            ocpp_version=station.ocpp_version,
            password=options.passwords.get(station_id, options.password),
            connectors=station.connectors,
            rated_w=station.rated_w,
            max_w=station.max_w,
            vendor=station.vendor,
            model=station.model,
            overrides=options.overrides,
            variables=options.variables,
            iso15118=station.iso15118,
            faults=station.faults | options.faults.get(station_id, frozenset()),
            id_form=options.id_forms.get(station_id, station.id_form),
            seed=self.scenario.seed if options.seed is None else options.seed,
            ssl_context=options.ssl_contexts.get(station_id, options.ssl_context),
            backoff_first_real_s=options.backoff_first_real_s,
        )

    def _listener(self, station_id: str) -> Callable[[LedgerEntry], None] | None:
        listener = self._options.listener
        if listener is None:
            return None
        return lambda entry: listener(station_id, entry)

    async def _visit(self, plan: NightVehicle) -> None:
        vehicle = self.vehicles[plan]
        station = self.stations[plan.station_id]
        outlet = station.outlets[plan.connector]
        await self._sleep_until(plan.arrival)
        register_wh = outlet.energy_wh
        plugged = self._clock.now()
        await station.plug(plan.connector, vehicle)
        await self._sleep_until(plan.departure)
        await station.unplug(plan.connector)
        trace = tuple(point for point in outlet.trace if point.time > plugged)
        outcome = VisitOutcome(
            vehicle=plan,
            station_id=plan.station_id,
            connector=plan.connector,
            energy_wh=outlet.energy_wh - register_wh,
            peak_w=max((point.drawn_w for point in trace), default=0.0),
            soc_start=plan.soc_start,
            soc_end=vehicle.soc_percent,
            was_asleep=vehicle.is_asleep,
            plugged=plugged,
            unplugged=self._clock.now(),
            trace=trace,
        )
        self.outcomes.append(outcome)

    async def _suffer(self, mishap: Mishap) -> None:
        station = self.stations[mishap.station_id]
        await self._sleep_until(mishap.at)
        if mishap.is_restart:
            await station.reboot()
        else:
            await station.cut_for(mishap.lasts_s)

    async def _sleep_until(self, moment: datetime) -> None:
        await self._clock.sleep((moment - self._clock.now()).total_seconds())

    async def _flush(self) -> None:
        """Wait for the last answers; what is still owed then shows in `owed`."""
        timeout_s = self._options.flush_timeout_real_s
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        for station in self.stations.values():
            left_s = deadline_s - asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                await station.wait_until(_has_told_all, max(0.0, left_s))


def _vehicle(plan: NightVehicle) -> VirtualVehicle:
    return VirtualVehicle(
        name=plan.name,
        mac=plan.mac,
        capacity_wh=plan.capacity_wh,
        soc_percent=plan.soc_start,
        max_w=plan.max_w,
        min_w=plan.min_w,
        can_resume=plan.can_resume,
        soc_target=plan.soc_target,
        departure=plan.departure,
        limit_percent=plan.limit_percent,
        tells_soc=plan.tells_soc,
    )


def _has_told_all(station: VirtualStation) -> bool:
    return station.owed == 0 and not station.has_news


async def run_night(
    scenario: DepotScenario,
    clock: SimClock,
    url: str,
    options: NightOptions | None = None,
) -> list[VisitOutcome]:
    """Live a night against the central system at `url`; return what became of it."""
    return await Night(scenario, clock, url, options).run()
