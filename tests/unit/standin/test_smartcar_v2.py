"""Stand-in Smartcar v2.0: rotating tokens, single endpoints, batch, connections."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from agent.standin.gate import CutError
from agent.standin.smartcar_car import PERMISSIONS
from agent.standin.smartcar_faults import CarFault
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_state import CLIENT_SECRET, MANAGEMENT_TOKEN, V2_CLIENT_ID

from .smartcar_support import a_car, a_cloud, basic, plain, visitor

FREE = LimitSet(app_tokens=None, vehicle_tokens=None, month_calls=None)
CAR = "/v2.0/vehicles/v-1"
CLIENT = basic(V2_CLIENT_ID, CLIENT_SECRET)


@asynccontextmanager
async def owner(cloud):
    """A client with the tokens of the user u-1."""
    async with visitor(cloud) as http:
        pair = cloud.user_tokens.grant("u-1")
        http.headers["authorization"] = f"Bearer {pair['access_token']}"
        yield http


async def renew(http, token):
    body = {"grant_type": "refresh_token", "refresh_token": token}
    return await http.post("/oauth/token", data=body, headers=CLIENT)


def v2_code(answer):
    body = answer.json()
    assert body["statusCode"] == answer.status_code
    return f"{body['type']}:{body['code']}"


async def test_a_code_gives_one_pair_once_and_lives_ten_minutes():
    cloud, clock = a_cloud(a_car())
    body = {
        "grant_type": "authorization_code",
        "code": cloud.user_tokens.code("u-1", "https://depot.invalid/back"),
        "redirect_uri": "https://depot.invalid/back",
    }
    async with visitor(cloud) as http:
        wrong = body | {"redirect_uri": "https://depot.invalid/other"}
        assert (
            await http.post("/oauth/token", data=wrong, headers=CLIENT)
        ).status_code == 400
        pair = (await http.post("/oauth/token", data=body, headers=CLIENT)).json()
        assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 7200)
        again = await http.post("/oauth/token", data=body, headers=CLIENT)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        body["code"] = cloud.user_tokens.code("u-1", "https://depot.invalid/back")
        clock.advance(600)
        late = await http.post("/oauth/token", data=body, headers=CLIENT)
        assert late.json()["error"] == "invalid_grant"
        headers = {"authorization": f"Bearer {pair['access_token']}"}
        assert (await http.get("/v2.0/user", headers=headers)).json() == {"id": "u-1"}
        clock.advance(6600)
        assert (await http.get("/v2.0/user", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("grace_s", "inside_s", "outside_s"), [(600, 599, 601), (60, 59, 61)]
)
async def test_every_renewal_rotates_and_the_old_token_dies_after_a_grace(
    grace_s, inside_s, outside_s
):
    cloud, clock = a_cloud(a_car())
    cloud.user_tokens.grace_s = grace_s
    async with visitor(cloud) as http:
        first = cloud.user_tokens.grant("u-1")["refresh_token"]
        second = (await renew(http, first)).json()["refresh_token"]
        assert second != first
        clock.advance(inside_s)
        again = await renew(http, first)
        assert again.status_code == 200
        clock.advance(outside_s - inside_s)
        dead = await renew(http, first)
        assert (dead.status_code, dead.json()["error"]) == (400, "invalid_grant")
        assert (await renew(http, again.json()["refresh_token"])).status_code == 200


async def test_a_renewal_whose_answer_was_lost_can_be_repeated_within_the_grace():
    cloud, clock = a_cloud(a_car())
    cloud.faults.add(CarFault(kind="lost-answer", path_contains="/oauth/token"))
    async with visitor(cloud) as http:
        token = cloud.user_tokens.grant("u-1")["refresh_token"]
        with pytest.raises(CutError):
            await renew(http, token)
        assert cloud.user_tokens.renewals == 1
        clock.advance(20)
        assert (await renew(http, token)).status_code == 200


async def test_of_two_renewals_with_one_token_the_first_pair_is_stranded():
    cloud, clock = a_cloud(a_car())
    async with visitor(cloud) as http:
        token = cloud.user_tokens.grant("u-1")["refresh_token"]
        stranded = (await renew(http, token)).json()["refresh_token"]
        kept = (await renew(http, token)).json()["refresh_token"]
        clock.advance(601)
        assert (await renew(http, stranded)).status_code == 400
        assert (await renew(http, kept)).status_code == 200


async def test_an_unused_refresh_token_dies_after_sixty_days():
    cloud, clock = a_cloud(a_car())
    async with visitor(cloud) as http:
        token = cloud.user_tokens.grant("u-1")["refresh_token"]
        clock.advance(60 * 86_400)
        assert (await renew(http, token)).status_code == 400


async def test_token_host_wants_basic_a_form_and_a_user_agent():
    cloud, _ = a_cloud(a_car())
    body = {"grant_type": "refresh_token", "refresh_token": "x"}
    async with visitor(cloud) as http:
        for headers, status, error in (
            ({}, 401, "invalid_client"),
            (basic(V2_CLIENT_ID, "wrong"), 401, "invalid_client"),
            ({"authorization": "Basic ???"}, 401, "invalid_client"),
            (CLIENT | {"user-agent": " "}, 400, "invalid_request"),
        ):
            answer = await http.post("/oauth/token", data=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (status, error)
        wrong = await http.post("/oauth/token", json=body, headers=CLIENT)
        assert wrong.json()["error"] == "invalid_request"
        other = await http.post(
            "/oauth/token", data={"grant_type": "password"}, headers=CLIENT
        )
        assert other.json()["error"] == "unsupported_grant_type"


async def test_consent_that_is_gone_ends_all_tokens_of_the_user():
    cloud, _ = a_cloud(a_car())
    pair = cloud.user_tokens.grant("u-1")
    cloud.user_tokens.forget_user("u-1")
    async with visitor(cloud) as http:
        headers = {"authorization": f"Bearer {pair['access_token']}"}
        refused = await http.get("/v2.0/vehicles", headers=headers)
        assert (refused.status_code, v2_code(refused)) == (401, "AUTHENTICATION:None")
        assert (await renew(http, pair["refresh_token"])).status_code == 400


@pytest.mark.parametrize("slash", ["", "/"])
async def test_reads_give_the_shapes_of_v2_with_and_without_a_slash(slash):
    cloud, _ = a_cloud(a_car(make="FORD", capacity_kwh=75.0), limits=FREE)
    wanted = {
        "": {"id": "v-1", "make": "FORD", "model": "EX30", "year": 2025},
        "/vin": {"vin": "VSTANDN0000000001"},
        "/battery": {"percentRemaining": 0.54, "range": 243.0},
        "/battery/capacity": {"capacity": 75.0},
        "/battery/nominal_capacity": {
            "availableCapacities": [{"capacity": 75.0, "description": None}],
            "capacity": {"nominal": 75.0, "source": "SMARTCAR"},
            "url": None,
        },
        "/charge": {"isPluggedIn": True, "state": "CHARGING"},
        "/charge/limit": {"limit": 0.8},
        "/permissions": {
            "permissions": sorted(PERMISSIONS),
            "paging": {"count": 5, "offset": 0},
        },
    }
    async with owner(cloud) as http:
        for path, body in wanted.items():
            answer = await http.get(f"{CAR}{path}{slash}")
            assert (answer.status_code, answer.json()) == (200, body)
            assert answer.headers["sc-request-id"]


async def test_a_read_reaches_out_to_the_car_and_wakes_it():
    cloud, clock = a_cloud(a_car(body={"is_plugged": False}))
    car = cloud.cars["v-1"]
    clock.advance(7200)
    async with visitor(cloud) as http:
        pair = cloud.user_tokens.grant("u-1")
        http.headers["authorization"] = f"Bearer {pair['access_token']}"
        plain(car).soc_percent = 41.0
        assert (await http.get(f"{CAR}/vin")).status_code == 200
        slept_on = car.is_asleep
        answer = await http.get(f"{CAR}/battery")
    assert answer.json()["percentRemaining"] == 0.41
    assert answer.headers["sc-data-age"] == "2026-01-15T20:00:00.000Z"
    assert (slept_on, car.is_asleep) == (True, False)


async def test_a_sleeping_car_that_cannot_be_woken_refuses_a_read():
    cloud, clock = a_cloud(a_car(wakes_by_command=False, body={"is_plugged": False}))
    clock.advance(7200)
    async with owner(cloud) as http:
        answer = await http.get(f"{CAR}/battery")
    assert (answer.status_code, v2_code(answer)) == (409, "VEHICLE_STATE:ASLEEP")


async def test_an_undecided_capacity_lists_candidates_and_a_link_for_the_driver():
    cloud, _ = a_cloud(a_car(capacity_kwh=None))
    async with owner(cloud) as http:
        body = (await http.get(f"{CAR}/battery/nominal_capacity")).json()
        assert body["capacity"] is None
        assert len(body["availableCapacities"]) == 2
        assert body["url"].startswith("https://")
        missing = await http.get(f"{CAR}/battery/capacity")
    assert (missing.status_code, v2_code(missing)) == (500, "SERVER:RECORD_NOT_FOUND")


async def test_imperial_gives_miles():
    cloud, _ = a_cloud(a_car())
    async with owner(cloud) as http:
        answer = await http.get(f"{CAR}/battery", headers={"sc-unit-system": "imperial"})
    assert answer.json()["range"] == 151.0
    assert answer.headers["sc-unit-system"] == "imperial"


@pytest.mark.parametrize("tells", [True, False])
async def test_start_and_stop_answer_success_with_or_without_a_message(tells):
    cloud, _ = a_cloud(a_car(), limits=FREE)
    cloud.tells_message = tells
    body = plain(cloud.cars["v-1"])
    async with owner(cloud) as http:
        answer = await http.post(f"{CAR}/charge", json={"action": "STOP"})
        assert answer.json()["status"] == "success"
        assert ("message" in answer.json()) is tells
        assert body.is_stopped
        refused = await http.post(f"{CAR}/charge", json={"action": "STOP"})
        assert (refused.status_code, v2_code(refused)) == (
            409,
            "VEHICLE_STATE:NOT_CHARGING",
        )
        assert (await http.post(f"{CAR}/charge/", json={"action": "START"})).is_success
        wrong = await http.post(f"{CAR}/charge", json={"action": "start"})
    assert (wrong.status_code, v2_code(wrong)) == (400, "VALIDATION:None")
    assert wrong.json()["detail"][0]["message"]
    assert len(cloud.calls.commands("v-1")) == 4


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [(0.85, 85), (1, 100), ("0.8", 80), ("1.0", 100), ("0.57", 57)],
)
async def test_a_limit_is_taken_as_number_and_as_text(limit, wanted):
    cloud, _ = a_cloud(a_car())
    async with owner(cloud) as http:
        answer = await http.post(f"{CAR}/charge/limit", json={"limit": limit})
    assert answer.status_code == 200
    assert cloud.cars["v-1"].body.limit_percent == wanted


@pytest.mark.parametrize("limit", [0.49, 1.01, 80, "0.4", "80", "full", "nan", True, None])
async def test_a_limit_below_a_half_or_above_one_is_refused(limit):
    cloud, _ = a_cloud(a_car())
    async with owner(cloud) as http:
        answer = await http.post(f"{CAR}/charge/limit", json={"limit": limit})
    assert (answer.status_code, v2_code(answer)) == (400, "VALIDATION:None")


async def test_batch_counts_every_path_and_one_failure_does_not_fail_the_rest():
    granted = PERMISSIONS - {"read_charge"}
    cloud, clock = a_cloud(a_car(permissions=granted))
    paths = ["/battery", "/charge", "/vin/", "/nothing"]
    async with owner(cloud) as http:
        requests = {"requests": [{"path": path} for path in paths]}
        answer = await http.post(f"{CAR}/batch", json=requests)
    rows = answer.json()["responses"]
    assert [(row["path"], row["code"]) for row in rows] == list(
        zip(paths, (200, 403, 200, 404), strict=True)
    )
    assert rows[0]["body"]["percentRemaining"] == 0.54
    assert rows[1]["body"]["type"] == "PERMISSION"
    assert "sc-request-id" not in rows[0]["headers"]
    assert "sc-data-age" in rows[0]["headers"]
    assert answer.headers["sc-request-id"]
    assert cloud.limits.used("v-1", clock.now()) == 4 == cloud.calls.reads("v-1")


@pytest.mark.parametrize(
    "body", [{}, {"requests": []}, {"requests": [{}]}, {"requests": [1]}, []]
)
async def test_a_batch_without_paths_is_refused(body):
    cloud, clock = a_cloud(a_car())
    async with owner(cloud) as http:
        answer = await http.post(f"{CAR}/batch", json=body)
    assert (answer.status_code, v2_code(answer)) == (400, "VALIDATION:None")
    assert cloud.limits.used("v-1", clock.now()) == 0


async def test_limits_of_v3_hold_for_v2_with_its_flat_error():
    cloud, _ = a_cloud(a_car(), limits=LimitSet(month_calls=3))
    async with owner(cloud) as http:
        for _ in range(2):
            assert (await http.get(f"{CAR}/battery")).status_code == 200
        throttled = await http.get(f"{CAR}/battery")
        assert (throttled.status_code, v2_code(throttled)) == (429, "RATE_LIMIT:VEHICLE")
        assert int(throttled.headers["retry-after"]) > 100
        body = {"requests": [{"path": "/battery"}, {"path": "/charge"}]}
        spent = await http.post(f"{CAR}/batch", json=body)
    assert (spent.status_code, v2_code(spent)) == (430, "BILLING:VEHICLE_REQUEST_LIMIT")


async def test_a_user_sees_and_reaches_only_the_cars_of_the_consent():
    cloud, _ = a_cloud(a_car(1), a_car(2), a_car(3, user_id="u-1"))
    async with owner(cloud) as http:
        body = (await http.get("/v2.0/vehicles?limit=1&offset=1")).json()
        assert body == {"vehicles": ["v-3"], "paging": {"count": 2, "offset": 1}}
        other = await http.get("/v2.0/vehicles/v-2/vin")
        assert v2_code(other) == "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND"
        assert (await http.get("/v2.0/vehicles?limit=51")).status_code == 400
        ended = await http.delete(f"{CAR}/application")
        assert ended.json() == {"status": "success"}
        assert (await http.get(f"{CAR}/vin")).status_code == 404
        assert v2_code(await http.get("/v2.0/nothing")) == "RESOURCE_NOT_FOUND:PATH"
        assert (await http.put("/v2.0/vehicles")).status_code == 405


async def test_management_lists_connections_by_cursor_with_its_own_token():
    cloud, _ = a_cloud(
        *(a_car(number) for number in range(1, 6)), a_car(6, mode="simulated")
    )
    url = "/v2.0/management/connections"
    headers = basic("default", MANAGEMENT_TOKEN)
    seen: list[str] = []
    async with visitor(cloud) as http:
        assert (await http.get(url)).status_code == 401
        query: dict[str, str] = {"limit": "4"}
        while True:
            body = (await http.get(url, params=query, headers=headers)).json()
            seen += [row["vehicleId"] for row in body["connections"]]
            if body["paging"]["cursor"] is None:
                break
            query["cursor"] = body["paging"]["cursor"]
        query = {"mode": "live", "user_id": "u-2"}
        (row,) = (await http.get(url, params=query, headers=headers)).json()["connections"]
        for wrong in ({"mode": "odd"}, {"cursor": "x"}, {"limit": "101"}):
            refused = await http.get(url, params=wrong, headers=headers)
            assert refused.status_code == 400
    assert seen == [f"v-{number}" for number in range(1, 7)]
    assert row["connectedAt"] == "2026-01-15T18:00:00.000Z"
