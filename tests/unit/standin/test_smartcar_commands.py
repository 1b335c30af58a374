"""Stand-in Smartcar: commands, their refusals, their late outcomes, their effect."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from agent.simulator.hardware import Outlet
from agent.simulator.telematics import Telematics
from agent.simulator.vehicle import VirtualVehicle
from agent.standin.clock import RunningClock
from agent.standin.gate import CutError
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_car import PERMISSIONS
from agent.standin.smartcar_faults import CarFault
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_state import SmartcarStandin

from .smartcar_support import COMMANDS, START, a_car, a_cloud, code_of, driver, plain

FREE = LimitSet(app_tokens=None, vehicle_tokens=None, month_calls=None)


def percent(value):
    return {"data": {"attributes": {"percent": value}}}


async def test_a_command_answers_with_its_execution_and_takes_effect_later():
    cloud, clock = a_cloud(a_car(effect_s=40.0), limits=FREE)
    car = cloud.cars["v-1"]
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/set-limit", json=percent(90))
        assert answer.status_code == 200
        data = answer.json()["data"]
        assert data["type"] == "command-execution"
        assert data["attributes"] == {
            "commandType": "charge-set-limit",
            "status": {"value": "SUCCESS"},
            "executionMode": "sync",
            "parameters": {"percent": 90},
        }
        assert (await http.post(f"{COMMANDS}/stop")).json()["data"]["attributes"][
            "commandType"
        ] == "charge-stop"
    clock.advance(39)
    cloud.settle()
    assert (car.body.limit_percent, car.is_charging) == (80.0, True)
    clock.advance(1)
    cloud.settle()
    assert (car.body.limit_percent, car.is_charging) == (90, False)


@pytest.mark.parametrize("value", [49, 101, 80.5, "80", True, None])
async def test_a_limit_below_50_above_100_or_not_whole_is_refused(value):
    cloud, _ = a_cloud(a_car())
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/set-limit", json=percent(value))
    assert (answer.status_code, code_of(answer)) == (400, "VALIDATION:PARAMETER")
    assert cloud.cars["v-1"].body.limit_percent == 80.0


@pytest.mark.parametrize("body", [b"", b"[]", b'{"percent": 80}', b'{"data": []}', b"{"])
async def test_a_limit_without_the_right_body_is_refused(body):
    cloud, _ = a_cloud(a_car())
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/set-limit", content=body)
    assert answer.status_code == 400
    assert code_of(answer).startswith("VALIDATION:")


@pytest.mark.parametrize(
    ("command", "body", "code"),
    [
        ("start", {}, "CHARGING_IN_PROGRESS"),
        ("start", {"is_plugged": False}, "CHARGING_PLUG_NOT_CONNECTED"),
        ("start", {"soc_percent": 80.0}, "FULLY_CHARGED"),
        ("start", {"offered_w": 0.0}, "CHARGE_FAULT"),
        ("stop", {"is_stopped": True}, "NOT_CHARGING"),
        ("stop", {"is_plugged": False}, "NOT_CHARGING"),
    ],
)
async def test_the_car_refuses_what_its_state_forbids(command, body, code):
    cloud, _ = a_cloud(a_car(body=body))
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/{command}")
    assert (answer.status_code, code_of(answer)) == (409, f"VEHICLE_STATE:{code}")


@pytest.mark.parametrize(
    ("changes", "command", "status", "code"),
    [
        (
            {"incapable": frozenset({"charge-stop"})},
            "stop",
            501,
            "COMPATIBILITY:VEHICLE_NOT_CAPABLE",
        ),
        ({"needs_soc": 60.0}, "stop", 409, "VEHICLE_STATE:LOW_BATTERY"),
        ({"permissions": PERMISSIONS - {"control_charge"}}, "stop", 403, "PERMISSION:None"),
        (
            {"limit_needs_plug": True, "body": {"is_plugged": False}},
            "set-limit",
            409,
            "VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED",
        ),
    ],
)
async def test_a_car_may_lack_a_capability_a_charge_or_a_permission(
    changes, command, status, code
):
    cloud, _ = a_cloud(a_car(**changes))
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/{command}", json=percent(70))
    assert (answer.status_code, code_of(answer)) == (status, code)


@pytest.mark.parametrize("wakes", [True, False])
async def test_a_command_wakes_a_sleeping_car_that_lets_itself_be_woken(wakes):
    cloud, clock = a_cloud(a_car(wakes_by_command=wakes, body={"is_stopped": True}))
    car = cloud.cars["v-1"]
    clock.advance(3000)
    async with driver(cloud) as http:
        cloud.settle()
        assert car.is_asleep
        answer = await http.post(f"{COMMANDS}/start")
    assert answer.status_code == (200 if wakes else 409)
    assert (car.is_asleep, car.is_charging) == (not wakes, wakes)


async def test_a_success_status_may_hide_a_failure():
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="failure", name="UPSTREAM:UNKNOWN_ISSUE"))
    async with driver(cloud) as http:
        answer = await http.post(f"{COMMANDS}/stop")
    status = answer.json()["data"]["attributes"]["status"]
    assert answer.status_code == 200
    assert (status["value"], status["error"]["type"]) == ("FAILURE", "UPSTREAM")
    assert cloud.cars["v-1"].is_charging


async def test_a_late_answer_may_be_a_failure_a_refusal_or_still_pending():
    cloud, _ = a_cloud(a_car(), limits=FREE)
    async with driver(cloud) as http:
        cloud.faults.add(
            CarFault(kind="late-failure", name="UPSTREAM:NO_RESPONSE", delay_s=0)
        )
        failed = await http.post(f"{COMMANDS}/stop")
        assert failed.status_code == 202
        assert "content-length" not in failed.headers
        assert failed.json()["errors"][0]["status"] == "502"
        assert cloud.cars["v-1"].is_charging
        cloud.faults.add(CarFault(kind="late-pending", delay_s=0))
        pending = (await http.post(f"{COMMANDS}/stop")).json()["data"]["attributes"]
        assert pending["status"]["value"] == "PENDING"
        cloud.faults.add(CarFault(kind="late", delay_s=0))
        refused = await http.post(f"{COMMANDS}/stop")
        assert refused.status_code == 202
        assert refused.json()["errors"][0]["code"] == "NOT_CHARGING"


async def test_a_late_answer_that_is_cut_was_carried_out():
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="late-cut", delay_s=0))
    async with driver(cloud) as http:
        with pytest.raises(CutError):
            await http.post(f"{COMMANDS}/stop")
    assert not cloud.cars["v-1"].is_charging


async def test_a_gateway_timeout_was_carried_out_too():
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="504", delay_s=0))
    async with driver(cloud) as http:
        assert (await http.post(f"{COMMANDS}/stop")).status_code == 504
    assert not cloud.cars["v-1"].is_charging


async def test_a_slow_car_answers_202_at_once_and_streams_its_outcome_when_known():
    clock = RunningClock(START, speed=2000)
    cloud = SmartcarStandin(clock, limits=FREE)
    cloud.add(a_car(command_s=300.0, body={"capacity_wh": 1e9}))
    async with SmartcarServer(cloud) as server, httpx.AsyncClient() as http:
        headers = {"authorization": f"Bearer {_token(cloud)}", "sc-user-id": "u-1"}
        began = clock.now()
        url = server.root_url + f"{COMMANDS}/stop"
        async with http.stream("POST", url, headers=headers) as answer:
            first_s = (clock.now() - began).total_seconds()
            assert answer.status_code == 202
            assert "content-length" not in answer.headers
            text = await answer.aread()
        whole_s = (clock.now() - began).total_seconds()
        assert b'"SUCCESS"' in text
        assert 175 <= first_s < 300 <= whole_s
        assert not cloud.cars["v-1"].is_charging


async def test_a_late_command_is_carried_out_though_the_client_left():
    clock = RunningClock(START, speed=1000)
    cloud = SmartcarStandin(clock, limits=FREE)
    cloud.add(a_car(body={"capacity_wh": 1e9}))
    cloud.faults.add(CarFault(kind="late", delay_s=200))
    async with SmartcarServer(cloud) as server, httpx.AsyncClient() as http:
        headers = {"authorization": f"Bearer {_token(cloud)}", "sc-user-id": "u-1"}
        url = server.root_url + f"{COMMANDS}/stop"
        async with http.stream("POST", url, headers=headers) as answer:
            assert answer.status_code == 202
        body = plain(cloud.cars["v-1"])
        was_stopped = body.is_stopped
        async with asyncio.timeout(5):
            while not body.is_stopped:
                await asyncio.sleep(0.01)
        assert not was_stopped


async def test_commands_work_on_a_virtual_vehicle_at_its_outlet():
    """The virtual vehicle of the charger simulator obeys limit, stop and start."""
    bus = VirtualVehicle(
        name="van", mac="92D50A693F80", capacity_wh=10_000, soc_percent=50.0,
        max_w=10_000, ramp_w_per_s=1e9, efficiency=1.0, can_resume=False, min_w=1000,
    )  # fmt: skip
    outlet = Outlet(connector=1, rated_w=10_000)
    cloud, _ = a_cloud(a_car(), limits=FREE)
    car = cloud.cars["v-1"]
    car.body = Telematics(bus, outlet)

    def charge(hours: float, offered_w: float = 10_000) -> float:
        outlet.offered_w = offered_w
        outlet.power_w = bus.step(hours * 3600, offered_w)
        return outlet.power_w

    async with driver(cloud) as http:
        refused = await http.post(f"{COMMANDS}/start")
        assert code_of(refused) == "VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED"
        outlet.vehicle = bus
        assert charge(0.1) == pytest.approx(10_000, rel=1e-3)
        assert bus.soc_percent == pytest.approx(60.0, abs=0.1)
        await http.post(f"{COMMANDS}/set-limit", json=percent(65))
        charge(1.0)
        assert bus.soc_percent == pytest.approx(65.0)
        assert charge(0.1) == 0
        await http.post(f"{COMMANDS}/set-limit", json=percent(100))
        assert charge(0.1) == pytest.approx(10_000, rel=1e-3)
        assert (await http.post(f"{COMMANDS}/stop")).status_code == 200
        assert charge(0.1) == 0
        charge(1.0, offered_w=0)
        was_asleep = bus.is_asleep
        assert charge(0.1) == 0
        assert (await http.post(f"{COMMANDS}/start")).status_code == 200
        assert (was_asleep, bus.is_asleep) == (True, False)
        assert charge(0.01) > 0


def _token(cloud):
    issued = cloud.tokens.issue(cloud.tokens.client_id, *cloud.tokens.secrets)
    return issued["access_token"]
