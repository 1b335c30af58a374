"""Vehicles with a cloud of their own, in a whole depot: SoC, charge limit, a wake-up.

The stations report no SoC; a stand-in Smartcar knows the very vehicles that charge.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from typer.testing import CliRunner, Result

from agent.app import Daemon
from agent.cli import app
from agent.control import views
from agent.demo import EVENING
from agent.host.clock import RandomIds, ScaledClock
from agent.settings import Settings
from agent.simulator.station import VirtualStation
from agent.simulator.vehicle import VirtualVehicle
from agent.standin.fixtures import schedule_json, vehicle_json
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_car import StandinCar
from agent.standin.smartcar_state import SmartcarStandin
from tests.support.yard import Yard, yard

SPEED = 400.0
VIN = "WVWZZZE1ZMP012345"
MAC = "04E77E00F0AA"
ONE = [{"id": "CP-01", "max_kw": 50.0, "fallback_kw": 4.0}]
NO_SOC = frozenset({"no-soc"})


@dataclass(slots=True, kw_only=True)
class LimitedVehicle(VirtualVehicle):
    """A vehicle with a charge limit of its own."""

    limit_percent: float = 100.0

    @property
    def wanted_w(self) -> float:
        """Nothing any more at its own limit."""
        if self.soc_percent >= self.limit_percent:
            return 0.0
        return VirtualVehicle.wanted_w.fget(self)  # type: ignore[attr-defined, no-any-return]


@dataclass
class Body:
    """The same vehicle as Smartcar sees it."""

    vehicle: LimitedVehicle
    station: VirtualStation | None = None
    started: list[str] = field(default_factory=list)

    @property
    def soc_percent(self) -> float:
        return self.vehicle.soc_percent

    @property
    def is_plugged(self) -> bool:
        return self.station is not None and self.station.outlets[1].vehicle is not None

    @property
    def power_w(self) -> float:
        return self.station.outlets[1].power_w if self.station is not None else 0.0

    @property
    def offered_w(self) -> float:
        return 30_000.0

    @property
    def limit_percent(self) -> float:
        return self.vehicle.limit_percent

    def advance(self, seconds: float) -> None:
        """Lives at its station."""

    def start(self) -> None:
        self.started.append("start")
        self.vehicle.replug()

    def stop(self) -> None:
        self.started.append("stop")

    def set_limit(self, percent: float) -> None:
        self.vehicle.limit_percent = percent


class BorrowedClock:
    """The depot's clock, as soon as there is one."""

    real: ScaledClock | None = None

    def now(self) -> datetime:
        return self.real.now() if self.real is not None else EVENING

    async def sleep(self, seconds: float) -> None:
        assert self.real is not None
        await self.real.sleep(seconds)


@dataclass
class Place:
    """The yard with its car, and the car's cloud."""

    yard: Yard
    smartcar: SmartcarStandin
    car: StandinCar
    body: Body

    async def plug(self) -> None:
        station = self.yard.station(
            "CP-01", rated_w=50_000.0, max_w=50_000.0, faults=NO_SOC
        )
        self.body.station = station
        await self.yard.until(lambda: station.is_online)
        await station.plug(1, self.body.vehicle)

    async def run(self, *command: str) -> Result:
        """Type a command at the depot's terminal."""
        config = self.yard.daemon.settings.store.path.with_name("agent.toml")
        config.write_text(
            f'[site]\ncap_kw = 400.0\n[store]\npath = "{config.with_name("agent.db")}"\n'
            "[web]\nport = 0\n",
            encoding="utf-8",
        )
        arguments = [*command, "--config", str(config)]
        return await asyncio.to_thread(
            lambda: CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        )

    @property
    def session(self) -> dict[str, Any]:
        (found,) = self.yard.sessions()
        return views.session(found, self.yard.clock.now())


@asynccontextmanager
async def place(
    folder: Path, vehicle: LimitedVehicle, pieces: list[tuple[float, float, float]]
) -> AsyncIterator[Place]:
    """A depot where one car is expected from 25 to 90 %, and has a cloud."""
    clock = BorrowedClock()
    smartcar = SmartcarStandin(clock)
    body = Body(vehicle)
    car = StandinCar(
        vehicle_id="v-1", user_id="u-1", vin=VIN, body=body, report_s=120, capacity_kwh=80
    )
    async with SmartcarServer(smartcar) as server:
        section = {
            "client_id": "client_standin",
            "client_secret": "standin-client-secret",
            "token_url": server.token_url,
            "api_url": server.api_url,
            "vehicles": [{"vin": VIN, "vehicle_id": "v-1", "user_id": "u-1"}],
        }
        async with yard(folder, stations=ONE, speed=SPEED, smartcar=section) as depot:
            clock.real = depot.clock
            smartcar.add(car)
            plan = depot.slot(1, pieces)["plan"]
            row = {
                "id": "slot-a",
                "plan": plan,
                "planMeta": {"frozen": True, "timestamp": EVENING.isoformat()},
            }
            departure = EVENING + timedelta(hours=8)
            depot.cloud.load(
                vehicles=[
                    vehicle_json(
                        "car-a",
                        {"vin": VIN, "fullChargeEnergykWh": 80.0},
                        macs=[MAC],
                        power_kw=(4, 45),
                    )
                ],
                schedules=[
                    schedule_json("car-a", EVENING, departure, row, socs=(25.0, 90.0))
                ],
            )
            yield Place(depot, smartcar, car, body)


def a_car(**more: Any) -> LimitedVehicle:
    given: dict[str, Any] = {
        "name": "car-a",
        "mac": MAC,
        "capacity_wh": 76_000.0,
        "soc_percent": 34.0,
        "max_w": 45_000.0,
        "min_w": 3_000.0,
        "efficiency": 0.93,
    }
    return LimitedVehicle(**(given | more))


def told(logs: list[Any], event: str) -> list[Any]:
    return [row for row in logs if row["event"] == event]


async def test_a_car_is_asked_its_limit_is_raised_and_put_back_after_a_restart(
    tmp_path: Path,
) -> None:
    """SoC of the vehicle's cloud in the record and at ChargEye; five requests at most."""
    with structlog.testing.capture_logs() as logs:
        async with place(tmp_path, a_car(limit_percent=70.0), [(-1, 8, 30.0)]) as here:
            await here.plug()
            await here.yard.until(lambda: bool(told(logs, "car_limit_set")), 30)
            first = here.session
            asked = here.smartcar.calls.reads("v-1")
            raised = here.body.vehicle.limit_percent
            daemon = await _restarted(here, logs)
            try:
                await here.yard.until(lambda: here.body.vehicle.soc_percent > 50, 30)
                later = here.session
                truth = here.body.vehicle.soc_percent
                assert here.body.station is not None
                await here.body.station.unplug(1)
                await here.yard.until(lambda: bool(told(logs, "car_limit_restored")), 30)
                last = here.session
                (schedule,) = here.yard.cloud.vehicle_schedules("car-a")
            finally:
                daemon.stop_wanted.set()

    assert asked == 1
    assert first["soc_source"] in ("smartcar", "estimate")
    assert abs(first["soc_start"] - 34) <= 1.5
    assert raised == 90
    assert told(logs, "soc_corrected")[0]["moved"] > 3
    assert abs(later["soc_now"] - truth) <= 3
    assert later["soc_confidence"] < 6
    assert here.body.vehicle.limit_percent == 70
    assert here.smartcar.calls.reads("v-1") <= 5
    assert len(here.smartcar.calls.commands("v-1")) == 2
    assert last["soc_end"] is not None
    assert last["state"] == "ended"
    assert abs(schedule["startSoC"] - 34) <= 1.5


async def _restarted(here: Place, logs: list[Any]) -> Daemon:
    """Stop the daemon and start another on the same database and port."""
    old = here.yard.daemon
    port = old.ocpp_port
    old.stop_wanted.set()
    await here.yard.until(lambda: bool(told(logs, "agent_stopped")))
    ocpp = old.settings.ocpp.model_copy(update={"port": port})
    settings: Settings = old.settings.model_copy(update={"ocpp": ocpp})
    new = Daemon(settings, clock=here.yard.clock, ids=RandomIds(2), pace=1 / SPEED)
    here.yard.daemon = new
    here.yard.tasks.create_task(new.run())
    await new.is_ready.wait()
    return new


async def test_an_operator_asks_and_tells_a_car_and_sets_a_goal(tmp_path: Path) -> None:
    """At the terminal: the list, the limit, the goal that the power path keeps."""
    with structlog.testing.capture_logs():
        async with place(tmp_path, a_car(limit_percent=100.0), [(-1, 8, 30.0)]) as here:
            unplugged = await here.run("cars", "start", VIN)
            await here.plug()
            await here.yard.until(lambda: here.smartcar.calls.reads("v-1") > 0, 30)
            await here.yard.passes(0.05)
            listed = await here.run("cars")
            one = json.loads((await here.run("cars", "limit", VIN, "--json")).stdout)
            connected = await here.run("cars", "connections")
            session_id = here.session["session_id"]
            goal = await here.run("goal", session_id, "--energy-kwh", "15")
            station = here.body.station
            assert station is not None
            await here.yard.until(lambda: bool(here.session["goal"]["reached_at"]), 60)
            await here.yard.until(lambda: station.outlets[1].power_w == 0, 30)
            await here.yard.passes(0.05)  # until a sample shows the last of it
            energy_wh = here.session["energy_wh"]
            explained = here.yard.daemon.explain("CP-01", 1)

    assert unplugged.exit_code == 1
    assert "not plugged in here" in unplugged.output
    assert VIN in listed.stdout
    assert "VOLVO" in listed.stdout
    assert one["limit_percent"] == 100
    assert one["budget"]["used"] >= 1
    assert "control_charge" in connected.stdout
    assert "charging ends at 15.0 kWh" in goal.stdout
    assert 14_900 <= energy_wh < 15_000 + 4000  # a second here is a kWh
    assert "the goal of 15.0 kWh (operator) is reached" in str(explained)


async def test_a_car_that_sleeps_is_started_by_its_own_cloud(tmp_path: Path) -> None:
    """The last rung: nothing at the station woke it; the meter shows that this did."""
    sleeper = a_car(can_resume=False, sleep_after_s=60)
    pieces = [(-1, 0.3, 30.0), (0.3, 0.42, 0.0), (0.42, 8, 30.0)]
    with structlog.testing.capture_logs() as logs:
        async with place(tmp_path, sleeper, pieces) as here:
            await here.plug()
            await here.yard.until(lambda: bool(told(logs, "car_command_confirmed")), 60)

    steps = [row["step"] for row in told(logs, "wake_step_taken")]
    assert steps[-1] == "cloud-start"
    assert here.body.started == ["start"]
    assert told(logs, "car_command_confirmed")[0]["command"] == "start"
