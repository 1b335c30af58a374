"""Stand-in Smartcar: tokens, connections, vehicles, limits, faults, control, socket."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from agent.standin.clock import RunningClock
from agent.standin.command import standin
from agent.standin.gate import CutError
from agent.standin.schedules import BadRequestError
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_car import PERMISSIONS
from agent.standin.smartcar_errors import VEHICLE_STATES, SmartcarError
from agent.standin.smartcar_faults import CarFault
from agent.standin.smartcar_fixtures import car_from
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_state import SmartcarStandin

from .smartcar_support import (
    CREDENTIALS,
    SIGNALS,
    SOC,
    START,
    a_car,
    a_cloud,
    code_of,
    driver,
    new_token,
    plain,
    visitor,
)

FREE = LimitSet(app_tokens=None, vehicle_tokens=None, month_calls=None)
CONTROL = "/_control/smartcar"


async def test_token_by_form_and_by_json_opens_the_api_for_an_hour_of_the_clock():
    cloud, clock = a_cloud(a_car())
    async with visitor(cloud) as http:
        by_form = await http.post("/oauth2/token", data=CREDENTIALS)
        by_json = await http.post("/oauth2/token", json=CREDENTIALS)
        assert by_form.json()["expires_in"] == by_json.json()["expires_in"] == 3600
        tokens = [answer.json()["access_token"] for answer in (by_form, by_json)]
        for token in tokens:
            headers = {"authorization": f"Bearer {token}"}
            assert (await http.get("/v3/connections", headers=headers)).status_code == 200
        clock.advance(3600)
        headers = {"authorization": f"Bearer {tokens[1]}"}
        late = await http.get("/v3/connections", headers=headers)
        assert (late.status_code, code_of(late)) == (401, "AUTHENTICATION:UNAUTHORIZED")


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "0b7d7a3e"}, 401, "invalid_client"),
        ({"client_secret": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
async def test_wrong_credentials_get_an_oauth_error(change, status, error):
    cloud, _ = a_cloud()
    body = {k: v for k, v in (CREDENTIALS | change).items() if v is not None}
    async with visitor(cloud) as http:
        answer = await http.post("/oauth2/token", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_a_second_secret_may_be_valid_and_revoked_tokens_are_not():
    cloud, _ = a_cloud(a_car())
    cloud.tokens.secrets.add("next-secret")
    async with driver(cloud) as http:
        body = CREDENTIALS | {"client_secret": "next-secret"}
        assert (await http.post("/oauth2/token", data=body)).status_code == 200
        cloud.tokens.revoke_all()
        assert (await http.get("/v3/connections")).status_code == 401


async def test_neither_log_nor_control_face_shows_a_secret():
    cloud, _ = a_cloud(a_car())
    async with driver(cloud) as http:
        await http.post("/oauth2/token", json=CREDENTIALS)
        shown = (await http.get(f"{CONTROL}/ledger")).text
    assert CREDENTIALS["client_secret"] not in shown
    assert "standin-app-token" not in shown


async def test_connections_come_in_pages_that_links_lead_through():
    cloud, _ = a_cloud(*(a_car(number) for number in range(1, 24)))
    seen: list[str] = []
    async with driver(cloud) as http:
        del http.headers["sc-user-id"]
        url: str | None = "/v3/connections"
        while url:
            page = (await http.get(url)).json()
            assert page["meta"]["totalCount"] == 23
            seen += [row["relationships"]["vehicle"]["data"]["id"] for row in page["data"]]
            url = page["links"]["next"]
        whole = (await http.get("/v3/connections?page[size]=100")).json()
    assert seen == [f"v-{number}" for number in range(1, 24)]
    assert len(whole["data"]) == 23
    assert whole["links"]["next"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["v-1", "v-2"]),
        ("filter[vehicle.mode]=simulated", ["v-3"]),
        ("filter[userId]=u-2", ["v-2"]),
        ("filter[vehicleId]=v-1", ["v-1"]),
        ("filter[user.externalId]=fleet-2", ["v-2"]),
        ("filter[userId]=u-2&filter[vehicleId]=v-1", []),
    ],
)
async def test_connections_are_filtered_and_live_ones_are_the_default(query, found):
    cloud, _ = a_cloud(
        a_car(1), a_car(2, external_id="fleet-2"), a_car(3, mode="simulated")
    )
    async with driver(cloud) as http:
        del http.headers["sc-user-id"]
        rows = (await http.get(f"/v3/connections?{query}")).json()["data"]
    assert [row["relationships"]["vehicle"]["data"]["id"] for row in rows] == found


@pytest.mark.parametrize(
    "query",
    ["page[size]=0", "page[size]=101", "page[number]=x", "filter[vehicle.mode]=test"],
)
async def test_wrong_paging_and_modes_are_400(query):
    cloud, _ = a_cloud()
    async with driver(cloud) as http:
        answer = await http.get(f"/v3/connections?{query}")
    assert (answer.status_code, code_of(answer)) == (400, "VALIDATION:PARAMETER")


async def test_a_new_consent_changes_the_connection_but_not_the_vehicle():
    cloud, _ = a_cloud(a_car())
    async with driver(cloud) as http:
        (before,) = (await http.get("/v3/connections")).json()["data"]
        gone = await http.delete(f"/v3/connections/{before['id']}")
        assert gone.status_code == 204
        again = await http.get(f"/v3/connections/{before['id']}")
        assert again.status_code == 404
        assert code_of(await http.get(SIGNALS)) == "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND"
        car = a_car()
        cloud.reconnect(car)
        (after,) = (await http.get("/v3/connections")).json()["data"]
    assert after["id"] != before["id"]
    assert after["relationships"] == before["relationships"]


async def test_removing_a_user_removes_all_connections():
    cloud, _ = a_cloud(a_car(1), a_car(2, user_id="u-1"), a_car(3))
    async with driver(cloud) as http:
        assert (await http.delete("/v3/users/u-1")).status_code == 204
        assert (await http.delete("/v3/users/u-1")).status_code == 404
    assert list(cloud.cars) == ["v-3"]


async def test_permission_list_may_show_more_than_was_granted():
    cloud, _ = a_cloud(a_car(permissions=PERMISSIONS - {"read_battery"}))
    cloud.lists_all_permissions = True
    async with driver(cloud) as http:
        (row,) = (await http.get("/v3/connections")).json()["data"]
        assert "control_pin" in row["attributes"]["permissions"]
        answer = await http.get(f"{SIGNALS}/{SOC}")
    assert (answer.status_code, code_of(answer)) == (403, "PERMISSION:None")


@pytest.mark.parametrize("is_wrapped", [True, False])
async def test_vehicle_is_wrapped_or_not_and_has_no_vin(is_wrapped):
    cloud, _ = a_cloud(a_car(year="2024"))
    cloud.wraps_vehicle = is_wrapped
    async with driver(cloud) as http:
        del http.headers["sc-user-id"]
        body = (await http.get("/v3/vehicles/v-1")).json()
    row = body["data"] if is_wrapped else body
    assert row["id"] == "v-1"
    assert row["attributes"]["year"] == "2024"
    assert "VSTANDN" not in str(body)


async def test_unknown_paths_versions_and_methods_have_names():
    cloud, _ = a_cloud(a_car())
    async with driver(cloud) as http:
        assert code_of(await http.get("/v3/vehicles/v-1/battery")) == (
            "RESOURCE_NOT_FOUND:INVALID_PATH"
        )
        assert code_of(await http.get("/v1.0/vehicles")) == "RESOURCE_NOT_FOUND:VERSION"
        wrong = await http.put("/v3/connections")
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]


async def test_the_application_may_make_120_requests_and_then_two_a_minute():
    cloud, clock = a_cloud(a_car())
    async with driver(cloud) as http:
        for _ in range(120):
            assert (await http.get("/v3/connections")).status_code == 200
        refused = await http.get("/v3/connections")
        assert (refused.status_code, code_of(refused)) == (429, "RATE_LIMIT:SMARTCAR_API")
        clock.advance(30)
        assert (await http.get("/v3/connections")).status_code == 200
        assert (await http.get("/v3/connections")).status_code == 429
    assert cloud.limits.refused_app == 2


async def test_a_vehicle_is_throttled_with_the_time_to_wait():
    cloud, clock = a_cloud(a_car(1), a_car(2, user_id="u-1"))
    async with driver(cloud) as http:
        for _ in range(2):
            assert (await http.get(SIGNALS)).status_code == 200
        refused = await http.get(SIGNALS)
        assert (refused.status_code, code_of(refused)) == (429, "RATE_LIMIT:VEHICLE")
        wait_s = int(refused.headers["retry-after"])
        assert 119 <= wait_s <= 121
        assert (await http.get("/v3/vehicles/v-2/signals")).status_code == 200
        clock.advance(wait_s)
        assert (await http.get(SIGNALS)).status_code == 200
    assert cloud.limits.used("v-1", clock.now()) == 3


async def test_the_month_has_an_allowance_for_reads_and_commands_together():
    cloud, clock = a_cloud(
        a_car(), limits=LimitSet(vehicle_tokens=None, app_tokens=None, month_calls=3)
    )
    async with driver(cloud) as http:
        await http.get(SIGNALS)
        await http.get(f"{SIGNALS}/{SOC}")
        await http.post("/v3/vehicles/v-1/commands/charge/stop")
        for answer in (
            await http.get(SIGNALS),
            await http.post("/v3/vehicles/v-1/commands/charge/start"),
        ):
            assert answer.status_code == 430
            assert code_of(answer) == "BILLING:VEHICLE_REQUEST_LIMIT"
        assert (await http.get("/v3/connections")).status_code == 200
        clock.advance(17 * 86_400)
        http.headers["authorization"] = f"Bearer {await new_token(http)}"
        assert (await http.get(SIGNALS)).status_code == 200
    assert cloud.limits.refused_month == 2
    assert cloud.calls.reads("v-1") == 3


async def test_failed_calls_are_billed_unless_only_successes_are():
    for bills, used in ((True, 1), (False, 0)):
        cloud, clock = a_cloud(a_car(), limits=LimitSet(bills_failures=bills))
        cloud.faults.add(CarFault(kind="error", name="UPSTREAM:NO_RESPONSE"))
        async with driver(cloud) as http:
            assert (await http.get(SIGNALS)).status_code == 502
        assert cloud.limits.used("v-1", clock.now()) == used


async def test_a_fault_strikes_its_vehicle_and_path_as_often_as_ordered():
    cloud, _ = a_cloud(a_car(1), a_car(10, user_id="u-1"), limits=FREE)
    cloud.faults.add(
        CarFault(kind="error", name="SERVER:INTERNAL", vehicle="v-1", path_contains=SOC)
    )
    async with driver(cloud) as http:
        assert (await http.get(f"/v3/vehicles/v-10/signals/{SOC}")).status_code == 200
        assert (await http.get(SIGNALS)).status_code == 200
        struck = await http.get(f"{SIGNALS}/{SOC}")
        assert (struck.status_code, code_of(struck)) == (500, "SERVER:INTERNAL")
        assert (await http.get(f"{SIGNALS}/{SOC}")).status_code == 200


@pytest.mark.parametrize("code", VEHICLE_STATES)
async def test_every_409_of_the_table_can_be_ordered(code):
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="error", name=f"VEHICLE_STATE:{code}"))
    async with driver(cloud) as http:
        answer = await http.post("/v3/vehicles/v-1/commands/charge/start")
    assert (answer.status_code, code_of(answer)) == (409, f"VEHICLE_STATE:{code}")
    assert answer.headers["sc-request-id"]


async def test_a_retry_after_of_choice_goes_with_an_ordered_error():
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="error", name="RATE_LIMIT:VEHICLE", retry_after_s=7))
    async with driver(cloud) as http:
        answer = await http.get(SIGNALS)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("kind", "status", "is_json"),
    [
        ("html", 502, False),
        ("bad-json", 200, False),
        ("redirect", 302, False),
        ("504", 504, True),
    ],
)
async def test_answers_that_are_not_smartcars(kind, status, is_json):
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind=kind, delay_s=0))
    async with driver(cloud) as http:
        answer = await http.get(SIGNALS)
    assert answer.status_code == status
    if is_json:
        assert answer.json()["errors"]
    else:
        with pytest.raises(ValueError, match=r"."):
            answer.json()


async def test_cut_is_not_applied_and_a_lost_answer_is():
    cloud, _ = a_cloud(a_car(), limits=FREE)
    async with driver(cloud) as http:
        cloud.faults.add(CarFault(kind="cut"))
        with pytest.raises(CutError):
            await http.post("/v3/vehicles/v-1/commands/charge/stop")
        assert not plain(cloud.cars["v-1"]).is_stopped
        cloud.faults.add(CarFault(kind="lost-answer"))
        with pytest.raises(CutError):
            await http.post("/v3/vehicles/v-1/commands/charge/stop")
        assert plain(cloud.cars["v-1"]).is_stopped
        cloud.unreachable = True
        with pytest.raises(CutError):
            await http.get(SIGNALS)
    assert [record.status for record in cloud.calls][-3:] == [0, 0, 0]
    assert len(cloud.calls.commands("v-1", START)) == 1


async def test_the_token_host_is_struck_only_by_name():
    cloud, _ = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="error", name="SERVER:INTERNAL", count=None))
    cloud.faults.add(
        CarFault(kind="error", name="SERVER:INTERNAL", path_contains="/oauth2/token")
    )
    async with visitor(cloud) as http:
        struck = await http.post("/oauth2/token", data=CREDENTIALS)
        assert (struck.status_code, struck.json()["error"]) == (500, "server_error")
        assert (await http.post("/oauth2/token", data=CREDENTIALS)).status_code == 200


def test_wrong_faults_errors_and_cars_are_refused():
    cloud, _ = a_cloud()
    with pytest.raises(ValueError, match="not one of"):
        cloud.faults.add(CarFault(kind="nap"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in the table"):
        cloud.faults.add(CarFault(kind="error", name="VEHICLE_STATE:TIRED"))
    with pytest.raises(ValueError, match="not in the table"):
        SmartcarError("NAP")
    with pytest.raises(BadRequestError, match="wings"):
        car_from({"vehicle_id": "v-1", "wings": 2})


async def test_control_face_changes_cars_signals_limits_settings_and_clock():
    cloud, clock = a_cloud()
    async with visitor(cloud) as http:
        car = {
            "vehicle_id": "v-1", "user_id": "u-1", "vin": "V" * 17,
            "incapable": ["charge-stop"], "body": {"soc_percent": 30, "is_plugged": True},
        }  # fmt: skip
        assert (await http.post(f"{CONTROL}/vehicles", json=car)).status_code == 200
        change = {"body": {"soc_percent": 31.5}, "soc_step": 0.5, "sayNow": True}
        assert (await http.patch(f"{CONTROL}/vehicles/v-1", json=change)).status_code == 200
        (row,) = (await http.get(f"{CONTROL}/vehicles")).json()["vehicles"]
        assert (row["socPercent"], row["reportedSocPercent"]) == (31.5, 31.5)
        assert "charge-stop" in cloud.cars["v-1"].incapable
        mode = {"vehicle": "v-1", "code": SOC, "mode": "missing"}
        assert (await http.post(f"{CONTROL}/signals", json=mode)).status_code == 200
        used = {"vehicle": "v-1", "used": 480, "month_calls": 400}
        assert (await http.post(f"{CONTROL}/limits", json=used)).json()["used"] == {
            "v-1": 480
        }
        assert (await http.delete(f"{CONTROL}/limits")).json()["used"] == {"v-1": 0}
        switch = {"encoding": "ms", "wraps_signal": False}
        assert (await http.post(f"{CONTROL}/settings", json=switch)).json()[
            "encoding"
        ] == "ms"
        fault = {"kind": "cut", "vehicle": "v-1"}
        assert (await http.post(f"{CONTROL}/fault", json=fault)).status_code == 200
        assert (await http.delete(f"{CONTROL}/fault")).status_code == 200
        moved = await http.post(f"{CONTROL}/clock", json={"advanceS": 60})
        assert moved.json()["now"] == clock.now().isoformat() == "2026-01-15T18:01:00+00:00"
        pair = await http.post(f"{CONTROL}/tokens", json={"grantUser": "u-1", "graceS": 60})
        assert pair.json()["pair"]["refresh_token"]
        assert (await http.delete(f"{CONTROL}/vehicles/v-1")).status_code == 200
    assert not cloud.cars
    assert cloud.limits.numbers.month_calls == 400
    assert cloud.user_tokens.grace_s == 60


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("vehicles", {"vehicle_id": "v-9", "wings": 2}),
        ("vehicles", {"vehicle_id": "v-9"}),
        ("signals", {"vehicle": "v-1", "code": "no-signal", "mode": "error"}),
        ("signals", {"vehicle": "v-1", "code": SOC, "mode": "odd"}),
        ("signals", {"vehicle": "v-7", "code": SOC, "mode": "error"}),
        ("settings", {"colour": "red"}),
        ("settings", {"encoding": "roman"}),
        ("limits", {"colour": 3}),
        ("fault", {"kind": "nap"}),
        ("fault", {"colour": "red"}),
    ],
)
async def test_control_face_refuses_what_it_does_not_know(path, body):
    cloud, _ = a_cloud(a_car())
    async with visitor(cloud) as http:
        answer = await http.post(f"{CONTROL}/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_ledger_tells_reads_and_commands_of_a_vehicle_since_a_time():
    cloud, clock = a_cloud(a_car(), limits=FREE)
    async with driver(cloud) as http:
        await http.get(SIGNALS, headers={"user-agent": "depot"})
        clock.advance(60)
        await http.post("/v3/vehicles/v-1/commands/charge/stop")
        query = {"kind": "command", "vehicle": "v-1", "since": "2026-01-15T18:00:30Z"}
        rows = (await http.get(f"{CONTROL}/ledger", params=query)).json()["requests"]
        assert [row["path"][-4:] for row in rows] == ["stop"]
        assert cloud.calls.matching(kind="read")[0].user_agent == "depot"
        assert cloud.calls.reads("v-1", since=clock.now()) == 0
        await http.delete(f"{CONTROL}/ledger")
    assert len(cloud.calls) == 0


async def test_real_socket_serves_cuts_and_lets_cars_live_on():
    clock = RunningClock(START, speed=600)
    cloud = SmartcarStandin(clock, limits=FREE)
    cloud.add(a_car(report_s=60.0))
    async with SmartcarServer(cloud) as server, httpx.AsyncClient() as http:
        token = await http.post(server.token_url, data=CREDENTIALS)
        headers = {
            "authorization": f"Bearer {token.json()['access_token']}",
            "sc-user-id": "u-1",
        }
        url = f"{server.api_url}/vehicles/v-1/signals/{SOC}"
        first = (await http.get(url, headers=headers)).json()["data"]
        async with asyncio.timeout(5):
            report = cloud.cars["v-1"].report
            while cloud.cars["v-1"].report is report:
                await asyncio.sleep(0.01)
        later = (await http.get(url, headers=headers)).json()["data"]
        assert later["meta"]["oemUpdatedAt"] > first["meta"]["oemUpdatedAt"]
        cloud.faults.add(CarFault(kind="cut"))
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url, headers=headers)
        cloud.faults.add(CarFault(kind="truncated"))
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url, headers=headers)
        cloud.faults.add(CarFault(kind="slow", delay_s=60))
        before = clock.now()
        await http.get(url, headers=headers)
        assert (clock.now() - before).total_seconds() >= 60


async def test_command_serves_both_clouds_and_prints_how_to_reach_them(tmp_path):
    lines: list[str] = []
    told = asyncio.Event()

    def announce(line: str) -> None:
        lines.append(line)
        if line.endswith("/_control/smartcar/"):
            told.set()

    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text('{"cars": [{"vehicle_id": "v-9", "user_id": "u", "vin": "V"}]}')
    for given, cars in ((None, "car-1, car-2, car-3"), (fixtures, "v-9")):
        told.clear()
        async with asyncio.TaskGroup() as tasks:
            serve = standin(now=START, announce=announce, port=0, fixtures=given)
            task = tasks.create_task(serve)
            await asyncio.wait_for(told.wait(), 5)
            url = next(line for line in lines if "Smartcar listens on" in line).split()[-1]
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"{url}/connections")
            assert answer.status_code == 401
            task.cancel()
        assert f"cars: {cars}" in lines
        assert any("stand-in ChargEye listens on" in line for line in lines)
        lines.clear()
