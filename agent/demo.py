"""A whole depot on loopback, one night compressed, judged from the outside.

The daemon is the real one on real sockets and a real database; the other side is the
stand-in ChargEye, the stand-in Smartcar and the virtual stations. The verdict uses only
what the stations drew and what the cloud had planned, never what the daemon says.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.app import Daemon
from agent.host.clock import RandomIds, ScaledClock
from agent.settings import Settings
from agent.simulator.depot import MIX, DepotScenario, NightVehicle, make_night
from agent.simulator.night import Night, NightOptions
from agent.simulator.telematics import Telematics
from agent.standin.fixtures import LOCATION_UID, schedule_json, vehicle_json
from agent.standin.server import StandinServer
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_fixtures import vin_of, visitor
from agent.standin.smartcar_state import CLIENT_ID, CLIENT_SECRET, SmartcarStandin
from agent.standin.state import ChargEyeStandin

EVENING = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
"""When the simulated night begins; any evening would do."""
EFFICIENCY = 0.94
FALLBACK_KW = 2.0
BUSY_SHARE, CAP_OVER_MEAN = 0.85, 1.15
"""Vehicles stay most of the night; the cap is a little above the mean power they need."""
PLAN_SHARE = 0.97
"""The planner leaves a little of the cap, as a careful site would set it up."""
SAMPLE_S = 0.1
"""Real seconds between two looks at the stations."""
OVER_FACTOR, OVER_W = 1.05, 500.0
"""A vehicle may draw 5 % and 0.5 kW above its plan: meters, ramps (B12)."""
OVER_SAMPLES = 3
LATENCY_REAL_S = 1.5
"""Real seconds in which a changed plan must have reached its station."""
LATENCY_S = 120.0
"""The same in simulated seconds: one poll and a ramp."""
SHORT_SHARE, SHORT_WH = 0.95, 1500.0
"""Energy below 95 % of the plan, less a little, is a plan not kept."""
START_REAL_S = 0.25
"""Real seconds from the start of a transaction to its first limit: at 300 times the
speed they are more than a minute at the safe default, which no real depot loses."""
CONNECTED_KINDS, SILENT_KINDS = ("Van", "Truck"), ("Van",)
"""By the name of a vehicle: these are known to Smartcar; of them, these tell no station
their SoC, as most cars on AC do not."""
CAR_LIMIT_PERCENT = 80.0
"""Drivers left the latter at a charge limit below what is planned; it must be raised."""
RAISED_WITHIN_S = 1200.0
"""A car is read and told a while after it was plugged in: its limit must not bind before,
or its plan could not be kept by anybody."""
CAP_TOLERANCE = 1.002
DRAIN_S = 15.0

Point = tuple[datetime, float]
Pieces = tuple[tuple[float, float, float], ...]
"""A plan as the cloud shows it: from and to in epoch ms, W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What ``depot-agent demo`` was asked for; ``minutes`` are real ones.

    The stations speak the ``versions`` of OCPP in turn.
    """

    stations: int = 8
    vehicles: int | None = None
    minutes: float = 2.0
    speed: float = 300.0
    port: int = 0
    web_port: int = 0
    seed: int = 1
    versions: tuple[str, ...] = MIX
    faults: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None


@dataclass(slots=True, kw_only=True)
class Visit:
    """One vehicle's night as seen from outside: W over time, planned and drawn."""

    vehicle: NightVehicle
    start_s: float = 0.0
    planned: list[Point] = field(default_factory=list)
    drawn: list[Point] = field(default_factory=list)
    planned_wh: float = 0.0
    drawn_wh: float = 0.0
    peak_w: float = 0.0
    planned_peak_w: float = 0.0
    worst_over_w: float = 0.0
    soc_end: float | None = None
    plugged_at: datetime | None = None
    unplugged_at: datetime | None = None
    _versions: dict[str, tuple[datetime, Pieces]] = field(default_factory=dict)
    _recent: list[Point] = field(default_factory=list)
    _over: int = 0
    _is_over: bool = False

    def look(
        self, now: datetime, version: str, pieces: Pieces, drawn_w: float, memory: timedelta
    ) -> None:
        """Take one sample of the plan and of the meter.

        A plan that was replaced, and a power that was planned, count for ``memory``
        longer: so long they may still be acting.
        """
        planned_w = planned_at(pieces, self.vehicle, now)
        last_at = self.drawn[-1][0] if self.drawn else now
        hours = (now - last_at).total_seconds() / 3600
        self.planned_wh += planned_w * hours
        self.planned.append((now, planned_w))
        self.drawn.append((now, drawn_w))
        self.peak_w = max(self.peak_w, drawn_w)
        self.planned_peak_w = max(self.planned_peak_w, planned_w)
        self._versions[version] = (now, pieces)
        acting = [item for at, item in self._versions.values() if now - at <= memory]
        highest_w = max(planned_at(item, self.vehicle, now) for item in acting)
        self._recent = [item for item in self._recent if now - item[0] <= memory]
        self._recent.append((now, highest_w))
        allowed_w = max(item[1] for item in self._recent) * OVER_FACTOR + OVER_W
        self._over = self._over + 1 if drawn_w > allowed_w else 0
        if self._over >= OVER_SAMPLES:
            self._is_over = True
            self.worst_over_w = max(self.worst_over_w, drawn_w - allowed_w)

    @property
    def note(self) -> str:
        """Why the plan was not kept; empty when it was."""
        if self._is_over:
            return f"drew up to {self.worst_over_w / 1000:.1f} kW more than planned"
        if self.plugged_at is None:
            return "was never plugged in"
        reached = self.soc_end is not None and self.soc_end >= self.vehicle.soc_target - 0.5
        slack_wh = SHORT_WH + self.planned_peak_w * self.start_s / 3600
        if self.drawn_wh < self.planned_wh * SHORT_SHARE - slack_wh and not reached:
            missing = (self.planned_wh - self.drawn_wh) / 1000
            return f"{missing:.1f} kWh of the plan were not delivered"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The verdict and what it rests on."""

    scenario: DepotScenario
    visits: tuple[Visit, ...]
    cap_w: float
    peak_w: float
    peak_at: datetime
    total: tuple[Point, ...]
    started_at: datetime
    ended_at: datetime
    outbox_left: int
    reports_taken: int
    cars: int
    car_reads: int
    car_commands: int
    log_path: Path

    @property
    def cap_kept(self) -> bool:
        """Whether the grid side stayed under the cap at every look."""
        return self.peak_w <= self.cap_w * CAP_TOLERANCE

    @property
    def not_kept(self) -> list[Visit]:
        """Vehicles whose plan was not kept."""
        return [item for item in self.visits if item.note]

    @property
    def is_good(self) -> bool:
        """Exit code 0."""
        return self.cap_kept and not self.not_kept and self.outbox_left == 0


@dataclass(slots=True)
class Stage:
    """The running demo, for the live view."""

    scenario: DepotScenario
    clock: ScaledClock
    daemon: Daemon
    cloud: ChargEyeStandin
    smartcar: SmartcarStandin
    night: Night
    visits: dict[str, Visit]
    cap_w: float
    total: list[Point] = field(default_factory=list)
    peak: Point = (EVENING, 0.0)

    def grid_w(self) -> float:
        """Grid-side power of all outlets now."""
        return self.night.drawn_w() / EFFICIENCY


async def run_demo(
    options: DemoOptions, on_look: Callable[[Stage], None], log_path: Path
) -> DemoResult:
    """Live one compressed night; ``on_look`` is called at every look."""
    hours = options.minutes * options.speed / 60
    count = options.vehicles or max(12, round(options.stations * 1.75))
    scenario = make_night(
        options.seed,
        EVENING,
        hours=hours,
        stations=options.stations,
        vehicles=count,
        versions=options.versions,
    )
    clock = ScaledClock(EVENING - timedelta(seconds=2 * options.speed), options.speed)
    scenario = replace(
        scenario,
        cap_w=_tight_cap_w(scenario),
        vehicles=tuple(_as_at_home(item) for item in scenario.vehicles),
    )
    cloud = _cloud(scenario, clock, options)
    smartcar = _smartcar(scenario, clock)
    with tempfile.TemporaryDirectory(prefix="depot-agent-demo-") as name:
        folder = options.folder or Path(name)
        async with StandinServer(cloud) as server, SmartcarServer(smartcar) as cars:
            settings = make_settings(scenario, server, cars, folder, options)
            daemon = Daemon(
                settings, clock=clock, ids=RandomIds(options.seed), pace=1 / options.speed
            )
            faults = {
                station: frozenset(
                    name for where, name in options.faults if where == station
                )
                for station, _ in options.faults
            }
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(daemon.run(), name="daemon")
                await daemon.is_ready.wait()
                url = f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp"
                night = Night(scenario, clock, url, NightOptions(faults=faults))
                _connect(smartcar, night)
                visits = {
                    item.vehicle_id: Visit(
                        vehicle=item, start_s=START_REAL_S * options.speed
                    )
                    for item in scenario.vehicles
                }
                cap_w = settings.site.cap_kw * 1000
                stage = Stage(
                    scenario, clock, daemon, cloud, smartcar, night, visits, cap_w
                )
                watcher = tasks.create_task(_watch(stage, options, on_look), name="judge")
                outcomes = await night.run()
                watcher.cancel()
                left = await _drain(daemon)
                daemon.stop_wanted.set()
            for outcome in outcomes:
                visit = visits[outcome.vehicle.vehicle_id]
                visit.drawn_wh = outcome.energy_wh
                visit.soc_end = outcome.soc_end
                visit.plugged_at = outcome.plugged
                visit.unplugged_at = outcome.unplugged
        patches = cloud.requests.matching(method="PATCH", key="pastSegments")
    return DemoResult(
        scenario=scenario,
        visits=tuple(visits.values()),
        cap_w=stage.cap_w,
        peak_w=stage.peak[1],
        peak_at=stage.peak[0],
        total=tuple(stage.total),
        started_at=EVENING,
        ended_at=clock.now(),
        outbox_left=left,
        reports_taken=len(patches),
        cars=len(smartcar.cars),
        car_reads=smartcar.calls.reads(),
        car_commands=len(smartcar.calls.commands()),
        log_path=log_path,
    )


def make_settings(
    scenario: DepotScenario,
    server: StandinServer,
    cars: SmartcarServer,
    folder: Path,
    options: DemoOptions,
) -> Settings:
    """The demo's configuration, as a file would give it."""
    content: dict[str, Any] = {
        "site": {
            "name": "Demo depot",
            "location_uid": LOCATION_UID,
            "cap_kw": scenario.cap_w / 1000,
            "efficiency": EFFICIENCY,
        },
        "policy": {"after_plan": "pause"},
        "ocpp": {"host": "127.0.0.1", "port": options.port, "meter_interval_s": 60},
        "stations": [
            {
                "id": item.station_id,
                "max_kw": item.max_w / 1000,
                "fallback_kw": FALLBACK_KW,
                "outlets": item.connectors,
            }
            for item in scenario.stations
        ],
        "chargeye": {
            "base_url": server.base_url,
            "refresh_token": server.cloud.tokens.refresh_token,
            "vehicles_poll_s": 600,
            "schedules_poll_s": 60,
        },
        "smartcar": {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "token_url": cars.token_url,
            "api_url": cars.api_url,
            "vehicles": [
                {"vin": car.vin, "vehicle_id": car.vehicle_id, "user_id": car.user_id}
                for car in cars.cloud.cars.values()
            ],
        },
        "store": {"path": folder / "agent.db"},
        "web": {"port": options.web_port},
    }
    return Settings(**content)


def _tight_cap_w(scenario: DepotScenario) -> float:
    """A cap under which the night just fits, so that it has something to limit, W."""
    outlets = sum(item.connectors for item in scenario.stations)
    hours = (scenario.end - scenario.start).total_seconds() / 3600
    mean_w = sum(item.need_wh for item in scenario.vehicles) / (hours * BUSY_SHARE)
    grid_w = (mean_w * CAP_OVER_MEAN + outlets * FALLBACK_KW * 1000) / EFFICIENCY
    return min(scenario.cap_w, float(round(grid_w, -4)))


def _cloud(
    scenario: DepotScenario, clock: ScaledClock, options: DemoOptions
) -> ChargEyeStandin:
    """The stand-in cloud with the night's vehicles and slots."""
    outlets = sum(item.connectors for item in scenario.stations)
    room_kw = scenario.cap_w / 1000 - outlets * FALLBACK_KW / EFFICIENCY
    night_s = options.minutes * 60 * options.speed
    cloud = ChargEyeStandin(
        clock,
        site_cap_kw=max(room_kw * EFFICIENCY * PLAN_SHARE, 1.0),
        grid_s=min(900.0, max(night_s / 40, 60.0)),
        efficiency=0.96,
        margin_s=night_s / 100,
    )
    cloud.patch_grace_s = night_s
    vehicles = [
        vehicle_json(
            item.vehicle_id,
            # Nobody is heated here: power held open would be drawn beyond the plan.
            {"name": item.name, "vin": vin_of(number), "minPreconditioningPowerkW": 0},
            macs=[item.mac],
            battery_kwh=item.capacity_wh / 1000,
            power_kw=(item.min_w / 1000, item.max_w / 1000),
            can_pause=item.can_resume,
        )
        for number, item in enumerate(scenario.vehicles, start=1)
    ]
    schedules = [
        schedule_json(
            item.vehicle_id,
            item.arrival - timedelta(seconds=night_s / 200),
            item.departure,
            {"id": f"slot-{item.vehicle_id}"},
            socs=(item.soc_start, item.soc_target),
        )
        for item in scenario.vehicles
    ]
    cloud.load(vehicles=vehicles, schedules=schedules)
    return cloud


def _as_at_home(vehicle: NightVehicle) -> NightVehicle:
    """A vehicle as its driver left it: what it tells stations, and its charge limit."""
    if not vehicle.name.startswith(SILENT_KINDS):
        return vehicle
    below_wh = (CAR_LIMIT_PERCENT - vehicle.soc_start) / 100 * vehicle.capacity_wh
    has_time = below_wh / vehicle.max_w * 3600 > RAISED_WITHIN_S
    limit_percent = CAR_LIMIT_PERCENT if has_time else 100.0
    return replace(vehicle, tells_soc=False, limit_percent=limit_percent)


def _smartcar(scenario: DepotScenario, clock: ScaledClock) -> SmartcarStandin:
    """The stand-in Smartcar with the night's vans and trucks, not yet at the depot."""
    smartcar = SmartcarStandin(clock)
    for number, item in enumerate(scenario.vehicles, start=1):
        if item.name.startswith(CONNECTED_KINDS):
            car = visitor(
                number,
                item.vehicle_id,
                model=item.name.split()[0],
                soc_percent=item.soc_start,
                capacity_wh=item.capacity_wh,
            )
            smartcar.add(car)
    return smartcar


def _connect(smartcar: SmartcarStandin, night: Night) -> None:
    """Let each car at Smartcar be the virtual vehicle that comes to the depot."""
    for item, vehicle in night.vehicles.items():
        car = smartcar.cars.get(f"car-{item.vehicle_id}")
        if car is not None:
            outlet = night.stations[item.station_id].outlets[item.connector]
            car.body = Telematics(vehicle, outlet)


async def _watch(
    stage: Stage, options: DemoOptions, on_look: Callable[[Stage], None]
) -> None:
    """Look at the stations and at the cloud's plans until cancelled."""
    memory = timedelta(seconds=LATENCY_S + LATENCY_REAL_S * options.speed)
    while True:
        now = stage.clock.now()
        grid_w = stage.grid_w()
        stage.total.append((now, grid_w))
        if grid_w > stage.peak[1]:
            stage.peak = (now, grid_w)
        for visit in stage.visits.values():
            vehicle = visit.vehicle
            outlet = stage.night.stations[vehicle.station_id].outlets[vehicle.connector]
            here = outlet.vehicle
            if here is None or here.name != vehicle.name or here.mac != vehicle.mac:
                continue
            if outlet.transaction_id is None:
                continue
            version, pieces = _plan_now(stage.cloud, vehicle)
            visit.look(now, version, pieces, outlet.power_w, memory)
            visit.soc_end = here.soc_percent
        on_look(stage)
        await asyncio.sleep(SAMPLE_S)


def _plan_now(cloud: ChargEyeStandin, vehicle: NightVehicle) -> tuple[str, Pieces]:
    """The plan that the cloud shows now: its time stamp and its pieces."""
    for row in cloud.vehicle_schedules(vehicle.vehicle_id):
        plan = row.get("plan", {})
        parts = (*plan.get("pastSegments", ()), *plan.get("segments", ()))
        pieces = tuple(
            (float(part["from"]), float(part["to"]), float(part["powerkW"]) * 1000)
            for part in parts
        )
        return str(row.get("planMeta", {}).get("timestamp", "")), pieces
    return "", ()


def planned_at(pieces: Pieces, vehicle: NightVehicle, now: datetime) -> float:
    """What a plan asks for at a time, W.

    Where the plan says nothing yet, the vehicle is held awake at its minimum; when the
    plan is over or pauses, only one that would not wake up again is.
    """
    floor_w = 0.0 if vehicle.can_resume else vehicle.min_w
    now_ms = now.timestamp() * 1000
    for from_ms, to_ms, power_w in pieces:
        if from_ms <= now_ms < to_ms:
            return max(power_w, floor_w)
    is_before = any(from_ms > now_ms for from_ms, _, _ in pieces)
    return vehicle.min_w if is_before else floor_w


async def _drain(daemon: Daemon) -> int:
    """Wait for the outbox to empty; returns what is left."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DRAIN_S
    while True:
        open_now = len(daemon.depot.open_sessions())
        rows = await daemon.store.outbox_rows()
        if (not rows and not open_now) or loop.time() > until:
            return len(rows)
        await asyncio.sleep(0.1)
