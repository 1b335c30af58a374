"""Tokens, envelopes, faults, control surface and the real socket."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from agent.standin.clock import ManualClock, RunningClock
from agent.standin.command import standin
from agent.standin.control import control_routes
from agent.standin.faults import Fault
from agent.standin.fixtures import (
    load_sample,
    sample_depot,
    schedule_json,
    vehicle_json,
)
from agent.standin.gate import CutError
from agent.standin.schedules import BadRequestError
from agent.standin.server import PATHS, StandinServer, make_app
from agent.standin.state import ChargEyeStandin

from .conftest import START

BUS = "/vehicles/bus-1/schedules"
TOKEN = "/auth/refreshAccessToken"


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def a_schedule(**extra):
    return schedule_json("bus-1", START, START + timedelta(hours=8), extra)


async def test_refresh_token_in_the_header_opens_the_api_for_eight_hours(stranger, clock):
    body = (await stranger.get(TOKEN, headers=bearer("refresh"))).json()

    assert body["validUntil"] == "2026-01-16T02:00:00.000Z"
    assert body["token"].count(".") == 2
    ok = await stranger.get("/vehicles", headers=bearer(body["token"]))
    assert ok.status_code == 200
    clock.advance(8 * 3600)
    late = await stranger.get("/vehicles", headers=bearer(body["token"]))
    assert late.status_code == 401


async def test_wrong_refresh_token_and_missing_header_are_401(stranger):
    assert (await stranger.get(TOKEN, headers=bearer("wrong"))).status_code == 401
    assert (await stranger.get(TOKEN)).status_code == 401
    assert (await stranger.get("/vehicles")).status_code == 401
    assert (await stranger.get("/vehicles", headers=bearer("x"))).status_code == 401


async def test_refresh_token_is_no_access_token(stranger):
    answer = await stranger.get("/vehicles", headers=bearer("refresh"))

    assert answer.status_code == 401


async def test_account_without_permission_gets_a_token_but_only_401(stranger, cloud):
    refresh = bearer(cloud.tokens.no_permission_token)
    token = (await stranger.get(TOKEN, headers=refresh)).json()["token"]

    answer = await stranger.get("/vehicles", headers=bearer(token))

    assert answer.status_code == 401


async def test_revoked_token_is_401_until_a_new_one_is_taken(client, cloud):
    cloud.tokens.revoke_all()

    assert (await client.get("/vehicles")).status_code == 401
    token = cloud.tokens.exchange("refresh")["token"]
    assert (await client.get("/vehicles", headers=bearer(token))).status_code == 200


async def test_vehicle_list_wraps_twice_and_the_single_read_not_at_all(client, cloud):
    cloud.vehicles["bus-1"]["v2icp"] = {"odometer": 7}

    rows = (await client.get("/vehicles")).json()["vehicles"]

    assert rows[0]["vehicle"]["id"] == "bus-1"
    assert rows[0]["v2icp"] == rows[0]["vehicle"]["v2icp"] == {"odometer": 7}
    assert "v2icp" not in rows[1]
    assert (await client.get("/vehicles/bus-1")).json()["id"] == "bus-1"


async def test_vehicle_list_can_be_restricted_to_a_location(client, cloud):
    cloud.vehicles["bus-1"]["locationUid"] = ["a", "b"]
    cloud.vehicles["bus-2"]["locationUid"] = None

    rows = (await client.get("/vehicles?locationUid=b")).json()["vehicles"]

    assert [row["vehicle"]["id"] for row in rows] == ["bus-1"]


async def test_put_replaces_and_keeps_what_is_read_only(client, cloud):
    cloud.vehicles["bus-1"]["vin"] = "V"

    answer = await client.put("/vehicles/bus-1", json={"name": "new", "vin": "X"})

    assert answer.json() == {"id": "bus-1"}
    assert (await client.get("/vehicles/bus-1")).json() == {
        "id": "bus-1", "name": "new", "vin": "V",
    }  # fmt: skip


async def test_patch_vehicle_changes_some_fields_and_replans(client, cloud):
    cloud.load(schedules=[a_schedule()])

    answer = await client.patch("/vehicles/bus-1", json={"maxChargePowerkW": 12})

    assert answer.json() == {"success": True}
    (entry,) = cloud.book.of_vehicle("bus-1")
    assert max(s["powerkW"] for s in entry.row["plan"]["segments"]) <= 12
    assert entry.row["planMeta"]["trigger"] == "vehicle-changed"


async def test_bad_vehicle_fields_are_400_and_unknown_vehicles_404(client):
    bad = await client.patch("/vehicles/bus-1", json={"fullChargeEnergykWh": 0.5})
    assert bad.status_code == 400
    assert (await client.put("/vehicles/x", json=[])).status_code == 400
    assert (await client.get("/vehicles/nobody")).status_code == 404
    assert (await client.get("/nothing")).json() == {"message": "Not Found"}
    assert (await client.delete("/vehicles/bus-1")).status_code == 405


async def test_locations_stations_and_transactions_have_their_envelopes(client, cloud):
    load_sample(cloud)

    assert (await client.get("/locations")).json()["locations"][0]["id"] == "depot-1"
    assert (await client.get("/locations/depot-1")).json()["location"]["id"] == "depot-1"
    admin = (await client.get("/locations/depot-1/stations")).json()["stations"]
    assert admin[0]["operationalStatus"] == "IN_OPERATION"
    (station,) = (await client.get("/stations?stationIds=CP-1")).json()["stations"]
    assert "lastTransaction" in station["connectors"][0]
    assert "latestTransaction" in station["connectors"][1]
    assert (await client.get("/stations?locationUid=x")).json() == {"stations": []}
    key = station["connectors"][0]["lastTransaction"]["txId"]
    one = (await client.get(f"/transactions/{key}")).json()
    assert one["transaction"]["txId"] == key


async def test_transactions_come_in_pages_until_the_key_is_absent(client, cloud):
    load_sample(cloud)
    path, seen = "/chargingStations/CP-1/transactions", []
    query: dict[str, str] = {}
    while True:
        body = (await client.get(path, params=query)).json()
        seen += [row["txId"] for row in body["transactions"]]
        if "lastEvaluatedKey" not in body:
            break
        query = {"exclusiveStartKey": orjson.dumps(body["lastEvaluatedKey"]).decode()}

    assert len(seen) == len(set(seen)) == 12
    assert body["summary"]["count"] == 12
    bad = await client.get("/transactions", params={"exclusiveStartKey": "{"})
    assert bad.status_code == 400


async def test_transactions_are_bounded_by_start_and_end(client, cloud):
    load_sample(cloud)
    query = {"startDate": "2026-01-14", "endDate": "2026-01-15T00:00:00.000Z"}

    rows = (await client.get("/transactions", params=query)).json()["transactions"]

    assert [row["startTime"][:10] for row in rows] == ["2026-01-14"] * 2


async def test_transaction_carries_the_running_segment_of_its_schedule(client, cloud):
    cloud.load(schedules=[a_schedule(id="s1")])
    tx = {"txId": "t", "startTime": "2026-01-15T18:00:00Z"}
    cloud.load(transactions=[tx | {"schedulePlan": {"scheduleId": "s1"}}])

    extract = (await client.get("/transactions/t")).json()["transaction"]["schedulePlan"]

    segment = cloud.book.entries["s1"].row["plan"]["segments"][0]
    assert extract["powerkW"] == segment["powerkW"]
    assert extract["powerkWValidUntil"] == "2026-01-15T18:15:00.000Z"
    assert extract["updatedAt"] == cloud.book.entries["s1"].row["planMeta"]["timestamp"]


async def test_path_table_can_be_overridden_by_name(clock):
    cloud = ChargEyeStandin(clock, paths={"active_schedule": "/vehicles/{vehicleId}/now"})
    cloud.load(vehicles=[vehicle_json("bus-1")])
    issued = cloud.tokens.exchange(cloud.tokens.refresh_token)
    assert issued is not None
    token = issued["token"]
    transport = httpx.ASGITransport(app=make_app(cloud))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://t/api", headers=bearer(token)
    ) as http:
        assert (await http.get("/vehicles/bus-1/now")).json() == {}
        old = await http.get("/vehicles/bus-1/schedules/active")
    assert old.status_code == 404
    assert len(PATHS) == 14


def test_unknown_name_in_the_path_table_is_refused(clock):
    with pytest.raises(ValueError, match="wrong"):
        make_app(ChargEyeStandin(clock, paths={"wrong": "/x"}))


@pytest.mark.parametrize("kind", ["503", "429", "401"])
async def test_status_fault_strikes_as_often_as_ordered(client, cloud, kind):
    cloud.faults.add(Fault(kind=kind, path_contains="/vehicles", count=2, retry_after_s=7))

    answers = [await client.get("/vehicles") for _ in range(3)]

    assert [a.status_code for a in answers] == [int(kind), int(kind), 200]
    assert answers[0].headers["retry-after"] == "7"


async def test_html_bad_json_and_redirect_faults_answer_as_named(client, cloud):
    for kind in ("html", "bad-json", "redirect"):
        cloud.faults.add(Fault(kind=kind))

    page, bad, away = [await client.get("/vehicles") for _ in range(3)]

    assert page.text.startswith("<html>")
    with pytest.raises(ValueError):  # noqa: PT011 any JSON error will do
        bad.json()
    assert away.status_code == 302
    assert away.headers["location"].startswith("https://elsewhere.invalid")


async def test_fault_for_a_method_lets_the_others_through(client, cloud):
    cloud.faults.add(Fault(kind="503", method="patch", count=None))

    assert (await client.get("/vehicles")).status_code == 200
    assert (await client.patch(BUS, json={"schedules": []})).status_code == 503
    cloud.faults.clear()
    assert (await client.patch(BUS, json={"schedules": []})).status_code == 200


async def test_lost_answer_is_applied_all_the_same(client, cloud):
    cloud.faults.add(Fault(kind="lost-answer", method="POST"))
    row = a_schedule()

    with pytest.raises(CutError):
        await client.post(BUS, json={"schedules": [row]})

    assert len(cloud.book.entries) == 1
    assert cloud.requests[-1].status == 0


async def test_cut_request_is_not_applied(client, cloud):
    cloud.faults.add(Fault(kind="cut", method="POST"))

    with pytest.raises(CutError):
        await client.post(BUS, json={"schedules": [a_schedule()]})

    assert not cloud.book.entries


def test_fault_of_an_unknown_kind_is_refused(cloud):
    kind: Any = "flood"

    with pytest.raises(ValueError, match="flood"):
        cloud.faults.add(Fault(kind=kind))


async def test_ledger_counts_by_method_path_and_body_key(client, cloud):
    plan: dict[str, list[Any]] = {"pastSegments": [], "segments": []}
    await client.patch(BUS, json={"schedules": [{"id": "x", "startSoC": 1}]})
    await client.patch(BUS, json={"schedules": [{"id": "x", "plan": plan}]})
    await client.get(TOKEN, headers=bearer("refresh"))

    ledger = cloud.requests

    assert len(ledger.matching("PATCH")) == 2
    assert len(ledger.matching("PATCH", key="startSoC")) == 1
    assert len(ledger.matching(key="pastSegments")) == 1
    assert len(ledger.matching(path_contains=TOKEN)) == 1
    assert ledger[0].time == START
    assert 'refresh"' not in str([record.json() for record in ledger])


async def test_control_surface_moves_the_clock_and_orders_faults(client, cloud):
    root = "http://t/_control"
    moved = await client.post(f"{root}/clock", json={"advanceS": 90})
    assert moved.json() == {"now": "2026-01-15T18:01:30+00:00"}
    set_to = {"set": "2026-01-15T20:00:00Z"}
    assert (await client.post(f"{root}/clock", json=set_to)).status_code == 200
    assert cloud.clock.now() == START + timedelta(hours=2)

    await client.post(f"{root}/fault", json={"kind": "503", "path_contains": "/vehicles"})
    assert (await client.get("/vehicles")).status_code == 503
    assert (await client.post(f"{root}/fault", json={"kind": "?"})).status_code == 400
    assert (await client.post(f"{root}/fault", json={"what": 1})).status_code == 400
    bad_clock = await client.post(f"{root}/clock", json={"advanceS": "soon"})
    assert bad_clock.status_code == 400
    await client.post(f"{root}/fault", json={"unreachable": True})
    with pytest.raises(CutError):
        await client.get("/vehicles")
    await client.delete(f"{root}/fault")
    assert (await client.get("/vehicles")).status_code == 200


async def test_control_surface_loads_fixtures_replans_and_shows_the_ledger(client, cloud):
    root = "http://t/_control"
    row = schedule_json("b", START, START + timedelta(hours=3), {"id": "s"})
    fixture = {"clear": True, "vehicles": [vehicle_json("b")], "schedules": [row]}
    assert (await client.post(f"{root}/fixture", json=fixture)).status_code == 200
    assert set(cloud.vehicles) == {"b"}

    body = {"vehicleId": "b", "reason": "why", "siteCapkW": 20}
    answer = await client.post(f"{root}/replan", json=body)
    assert answer.json() == {"replannedScheduleIds": ["s"]}
    plan = cloud.book.entries["s"].row["plan"]
    assert max(s["powerkW"] for s in plan["segments"]) <= 20
    assert not plan["reachedTargetSocInSchedule"]

    await client.get("/vehicles")
    seen = (await client.get(f"{root}/ledger?method=GET&path=/vehicles")).json()
    assert len(seen["requests"]) == 1
    await client.delete(f"{root}/ledger")
    assert len(cloud.requests) == 0


@pytest.mark.parametrize(
    "body",
    [[], {"vehicles": 3}, {"vehicles": [{}]}, {"schedules": [{"evId": "a"}]}],
)
def test_bad_fixture_is_refused_before_anything_is_loaded(cloud, body):
    with pytest.raises(BadRequestError):
        cloud.load_fixture(body)

    assert len(cloud.vehicles) == 3


async def test_running_clock_is_not_moved_by_hand():
    cloud = ChargEyeStandin(RunningClock(START, speed=60))
    transport = httpx.ASGITransport(app=make_app(cloud))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        answer = await http.post("/_control/clock", json={"advanceS": 1})
    assert answer.status_code == 400
    assert len(control_routes(cloud)) == 6


async def test_running_clock_runs_at_its_speed():
    clock = RunningClock(START, speed=3600)
    await clock.sleep(36)

    assert timedelta(seconds=36) <= clock.now() - START < timedelta(hours=2)


def test_sample_depot_shows_every_doubtful_shape():
    sample = sample_depot(START)
    rows = {row["id"]: row for row in sample["vehicles"]}

    shapes = {type(row["locationUid"]) for row in rows.values()}
    assert shapes == {str, list, type(None)}
    assert "chargingPorts" not in rows["bus-3"]
    assert "evMacAddress" in rows["bus-3"]
    assert {"chargingPorts", "evMacAddress"} <= set(rows["bus-2"])
    assert "evMacAddress" not in rows["bus-1"]
    assert any("recurrenceRule" in row for row in sample["schedules"])


def test_sample_depot_is_planned_and_every_bus_leaves_ready():
    cloud = ChargEyeStandin(ManualClock(START))
    load_sample(cloud)

    planned = [e.row["plan"] for e in cloud.book.entries.values() if "plan" in e.row]
    assert len(planned) == 6
    assert all(plan["reachedTargetSocInSchedule"] for plan in planned)


async def test_real_socket_serves_cuts_and_stops_cleanly(cloud):
    async with StandinServer(cloud) as server:
        assert server.port > 0
        async with httpx.AsyncClient(base_url=server.base_url) as http:
            token = (await http.get(TOKEN, headers=bearer("refresh"))).json()["token"]
            http.headers.update(bearer(token))
            assert len((await http.get("/vehicles")).json()["vehicles"]) == 3
            for kind in ("cut", "lost-answer", "truncated"):
                cloud.faults.add(Fault(kind=kind))
                with pytest.raises(httpx.TransportError):
                    await http.get("/vehicles")
            cloud.faults.add(Fault(kind="slow", delay_s=0.05))
            assert (await http.get("/vehicles")).status_code == 200
            cloud.unreachable = True
            with pytest.raises(httpx.TransportError):
                await http.get("/vehicles")
            cloud.unreachable = False
            assert (await http.get("/vehicles")).status_code == 200
            port = server.port
    with pytest.raises(OSError):  # noqa: PT011 refused
        await asyncio.open_connection("127.0.0.1", port)


async def test_error_in_the_body_leaves_the_server_context_as_it_is(cloud):
    with pytest.raises(KeyError):
        async with StandinServer(cloud):
            raise KeyError("mine")


async def test_stop_does_not_wait_for_a_slow_answer(cloud, caplog):
    fault = Fault(kind="slow", delay_s=60)
    cloud.faults.add(fault)

    async def ask(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/vehicles")

    async with (
        asyncio.timeout(5),
        asyncio.TaskGroup() as group,
        StandinServer(cloud) as server,
    ):
        group.create_task(ask(server.base_url))
        while fault.count:
            await asyncio.sleep(0.01)

    assert "Exception" not in caplog.text


async def test_taken_port_is_an_os_error(cloud):
    async with StandinServer(cloud) as server:
        with pytest.raises(OSError, match="in use"):
            async with StandinServer(cloud, port=server.port):
                pass


async def test_command_serves_a_fixtures_file_until_cancelled(tmp_path):
    file = tmp_path / "fixture.json"
    file.write_bytes(orjson.dumps({"vehicles": [vehicle_json("b")], "schedules": []}))
    lines = []
    announced = asyncio.Event()

    def announce(line):
        lines.append(line)
        announced.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            standin(now=START, announce=announce, port=0, fixtures=file, speed=2)
        )
        await announced.wait()
        url = lines[0].rsplit(" ", 1)[1]
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.get(TOKEN, headers=bearer("standin-refresh-token"))
        task.cancel()

    assert answer.status_code == 200
    assert "vehicles: 1, site cap: 300 kW" in lines
