"""A depot in one process: the real daemon on real sockets, virtual stations, stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.app import Daemon
from agent.control.wishes import STATION
from agent.demo import EVENING
from agent.domain.ids import StationId
from agent.domain.session import Session
from agent.host.clock import RandomIds, ScaledClock
from agent.ports import Clock
from agent.settings import Settings
from agent.simulator.build import build_station
from agent.simulator.depot import DepotScenario
from agent.simulator.night import Night, NightOptions, VisitOutcome
from agent.simulator.station import VirtualStation
from agent.simulator.station_config import StationConfig
from agent.simulator.vehicle import VirtualVehicle
from agent.standin.fixtures import LOCATION_UID, schedule_json, vehicle_json
from agent.standin.server import StandinServer
from agent.standin.state import ChargEyeStandin

SPEED = 120.0
EFFICIENCY = 0.94
LASTS = timedelta(seconds=20)
"""No fuse opens at a few per cent too much within 20 s."""


@dataclass
class Yard:
    """What a scenario can touch and look at."""

    daemon: Daemon
    cloud: ChargEyeStandin
    clock: ScaledClock
    tasks: asyncio.TaskGroup
    stations: dict[str, VirtualStation] = field(default_factory=dict)
    worst_grid_w: float = 0.0
    _seen: list[tuple[datetime, float]] = field(default_factory=list)

    def station(self, name: str, **options: Any) -> VirtualStation:
        """Power a station up; `ocpp_version` says what it speaks, else 1.6."""
        config = StationConfig(
            station_id=name,
            url=f"ws://127.0.0.1:{self.daemon.ocpp_port}/ocpp",
            backoff_first_real_s=0.2,
            backoff_max_real_s=0.5,
            **({"connectors": 1, "rated_w": 150_000.0, "max_w": 150_000.0} | options),
        )
        made = build_station(config, self.clock)
        self.stations[name] = made
        self.tasks.create_task(made.run())
        return made

    def add_bus(
        self,
        number: int,
        pieces: list[tuple[float, float, float]],
        *,
        can_pause: bool = True,
        known: bool = True,
    ) -> VirtualVehicle:
        """A bus with a plan of (from hour, to hour, kW) after the evening's begin."""
        name, mac = f"bus-{number}", f"04E77E00F0{number:02X}"
        if known:
            self.cloud.load(
                vehicles=[
                    vehicle_json(name, macs=[mac], power_kw=(5, 140), can_pause=can_pause)
                ],
                schedules=[self.slot(number, pieces)],
            )
        return VirtualVehicle(
            name=name,
            mac=mac,
            capacity_wh=300_000.0,
            soc_percent=20.0,
            max_w=140_000.0,
            min_w=3_000.0,
            can_resume=can_pause,
        )

    def expect(self, scenario: DepotScenario, power_kw: float) -> None:
        """Let the cloud know a scenario's vehicles, each with the same frozen plan."""
        for number, item in enumerate(scenario.vehicles, start=1):
            row = self.slot(number, [(-1, 11, power_kw)])
            vehicle = vehicle_json(
                f"bus-{number}",
                {"name": item.name},
                macs=[item.mac],
                power_kw=(item.min_w / 1000, item.max_w / 1000),
                can_pause=item.can_resume,
            )
            self.cloud.load(vehicles=[vehicle], schedules=[row])

    async def play(self, scenario: DepotScenario) -> list[VisitOutcome]:
        """Live a scenario to its end, with stations of its own."""
        url = f"ws://127.0.0.1:{self.daemon.ocpp_port}/ocpp"
        options = NightOptions(backoff_first_real_s=0.1)
        return await Night(scenario, self.clock, url, options).run()

    def slot(self, number: int, pieces: list[tuple[float, float, float]]) -> dict[str, Any]:
        def ms(hour: float) -> int:
            return int((EVENING + timedelta(hours=hour)).timestamp() * 1000)

        plan = {
            "segments": [
                {
                    "from": ms(start),
                    "to": ms(end),
                    "powerkW": power,
                    "paused": power == 0,
                    "powerUnlimited": False,
                }
                for start, end, power in pieces
            ],
            "pastSegments": [],
            "schedule": {"ev": {"supportsPausing": True}},
        }
        return schedule_json(
            f"bus-{number}",
            EVENING - timedelta(hours=1),
            EVENING + timedelta(hours=11),
            {
                "id": f"slot-{number}",
                "plan": plan,
                "planMeta": {"frozen": True, "timestamp": EVENING.isoformat()},
            },
            socs=(20.0, 90.0),
        )

    def grid_w(self) -> float:
        """What all stations draw now, grid side."""
        outlets = [o for s in self.stations.values() for o in s.outlets.values()]
        return sum(outlet.power_w for outlet in outlets) / EFFICIENCY

    async def installed(self) -> None:
        """Wait until every station is online and has taken its safe default.

        A vehicle that plugs in before may draw what it likes: no gateway can prevent
        that, so a scenario about the cap begins after it.
        """
        power_of = self.daemon.depot.power_of
        await self.until(
            lambda: all(
                station.is_online and power_of((StationId(name), STATION)).default_w
                for name, station in self.stations.items()
            )
        )

    def sessions(self) -> list[Session]:
        """All sessions that the daemon holds in memory."""
        states = self.daemon.depot.states.values()
        return [item for state in states for item in state.sessions.values()]

    async def until(self, condition: Any, timeout_s: float = 45.0) -> None:
        """Wait for a condition, watching the cap meanwhile; real seconds."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._look()
                await asyncio.sleep(0.01)

    def _look(self) -> None:
        """Take what all draw together, where it lasts.

        Stations look at their limits in turn, some simulated seconds apart: one's step up
        may be seen before another's step down of the same instant.
        """
        now = self.clock.now()
        self._seen.append((now, self.grid_w()))
        while len(self._seen) > 1 and now - self._seen[1][0] >= LASTS:
            self._seen.pop(0)
        if now - self._seen[0][0] >= LASTS:
            self.worst_grid_w = max(self.worst_grid_w, min(w for _, w in self._seen))

    async def passes(self, hours: float) -> None:
        """Let simulated time pass."""
        end = self.clock.now() + timedelta(hours=hours)
        await self.until(lambda: self.clock.now() >= end, 120.0)

    def at(self, hour: float) -> datetime:
        return EVENING + timedelta(hours=hour)


@asynccontextmanager
async def yard(
    folder: Path,
    *,
    stations: list[dict[str, Any]],
    speed: float = SPEED,
    gateway_clock: Callable[[ScaledClock], Clock] | None = None,
    **content: Any,
) -> AsyncIterator[Yard]:
    """Open a depot; sections of the configuration come as keyword arguments.

    ``gateway_clock`` makes the daemon's clock from the depot's, where it goes wrong.
    """
    clock = ScaledClock(EVENING, speed)
    cloud = ChargEyeStandin(clock, site_cap_kw=300)
    async with StandinServer(cloud) as server:
        settings = Settings(
            **(
                {
                    "site": {"location_uid": LOCATION_UID, "cap_kw": 400.0},
                    "ocpp": {"host": "127.0.0.1", "port": 0, "meter_interval_s": 60},
                    "stations": stations,
                    "chargeye": {
                        "base_url": server.base_url,
                        "refresh_token": cloud.tokens.refresh_token,
                        "schedules_poll_s": 30,
                        "vehicles_poll_s": 30,
                    },
                    "store": {"path": folder / "agent.db"},
                    "web": {"port": 0},
                }
                | content
            )
        )
        gateway = gateway_clock(clock) if gateway_clock is not None else clock
        daemon = Daemon(settings, clock=gateway, ids=RandomIds(1), pace=1 / speed)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run())
            await daemon.is_ready.wait()
            found = Yard(daemon, cloud, clock, tasks)
            try:
                yield found
            finally:
                for station in found.stations.values():
                    station.stop()
                daemon.stop_wanted.set()
