"""The v3 client: token, pages, commands that end later, budgets, and what errors teach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
import structlog

from agent.cloud import smartcar_http
from agent.cloud.http import BODY_BYTES_MAX
from agent.domain.budget import BudgetRules, BudgetSpent
from agent.domain.errors import CloudFault
from agent.ports import Car, CarCommand, CommandOutcome, Outcome
from tests.support.smartcar_cloud import (
    ACCESS,
    API_URL,
    CAR,
    NOW,
    OTHER,
    SECRET,
    SIGNALS,
    VIN,
    Bench,
    executed,
    page,
    refusal,
    signal,
)

START, STOP, LIMIT = CarCommand.START, CarCommand.STOP, CarCommand.SET_LIMIT
FREE = BudgetRules(floor_s=0.0)


async def command(
    answer: Any, what: CarCommand = START, percent: float | None = None
) -> tuple[CommandOutcome, Bench]:
    bench = Bench(answer if callable(answer) else lambda _: answer)
    async with bench.client() as cloud:
        return await cloud.command(CAR, what, percent), bench


async def read_fault(answer: Any, bench: Bench | None = None) -> CloudFault:
    bench = bench or Bench()
    bench.cloud.answer = answer if callable(answer) else lambda _: answer
    async with bench.client() as cloud:
        with pytest.raises(CloudFault) as caught:
            await cloud.read(CAR)
    assert SECRET not in str(caught.value)
    assert ACCESS not in str(caught.value)
    return caught.value


# --- token ----------------------------------------------------------------------------


async def test_one_token_serves_until_most_of_its_life_is_over() -> None:
    """Renewed between 80 and 90 % of an hour: here at 85 %."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.connections()
        bench.clock.pass_s(3600 * 0.85 - 1)
        await cloud.connections()
        assert bench.cloud.tokens == 1
        bench.clock.pass_s(2)
        await cloud.connections()

    assert bench.cloud.tokens == 2
    sent = [item.headers["authorization"] for item in bench.cloud.requests]
    assert sent == [f"Bearer {ACCESS}-1", f"Bearer {ACCESS}-1", f"Bearer {ACCESS}-2"]


async def test_the_token_is_asked_for_with_credentials_in_a_form() -> None:
    """Section 3.2; nothing else sees the secret."""
    bench = Bench()
    seen: list[httpx.Request] = []
    plain = bench.cloud.__call__

    async def watch(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return await plain(request)

    bench.cloud = watch  # type: ignore[assignment]
    async with bench.client() as cloud:
        await cloud.read(CAR)

    form = httpx.QueryParams(seen[0].content.decode())
    assert dict(form) == {
        "grant_type": "client_credentials",
        "client_id": "client_bench",
        "client_secret": SECRET,
    }
    assert SECRET not in str(seen[1].headers)
    assert seen[1].headers["sc-user-id"] == "u-1"
    assert seen[1].headers["sc-unit-system"] == "metric"
    assert "depot-agent" in seen[1].headers["user-agent"]


async def test_callers_at_once_share_one_renewal() -> None:
    """Under one lock."""
    bench = Bench()
    async with bench.client() as cloud, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(cloud.connections())
    assert bench.cloud.tokens == 1


async def test_a_401_renews_the_token_and_repeats_once() -> None:
    """Expired early, or revoked."""
    answers = iter([refusal(401, "AUTHENTICATION:UNAUTHORIZED"), page(SIGNALS)])
    bench = Bench(lambda _: next(answers))
    async with bench.client() as cloud:
        state = await cloud.read(CAR, session_id="S1")

    assert state.soc_percent is not None
    assert (bench.cloud.tokens, len(bench.cloud.requests)) == (2, 2)
    stored = bench.store.rows["smartcar-budget", "car:v-1"]
    assert stored["used"] == {"2026-11": 2}
    assert stored["sessions"] == {"S1": [2, 0]}


async def test_a_401_that_stays_is_told_and_the_car_left_alone_for_an_hour() -> None:
    """A lack of permission is not cured by tokens."""
    bench = Bench(lambda _: refusal(401, "AUTHENTICATION"))
    with structlog.testing.capture_logs() as logs:
        fault = await read_fault(bench.cloud.answer, bench)

    assert (fault.retryable, fault.retry_after_s) == (True, 3600)
    assert len(bench.cloud.requests) == 2
    assert [row["event"] for row in logs if row["log_level"] == "error"] == [
        "smartcar_request_refused"
    ]
    async with bench.client() as cloud:
        bench.clock.pass_s(3500)
        with pytest.raises(BudgetSpent):
            await cloud.read(CAR)
    assert len(bench.cloud.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": "invalid_client"}, "check smartcar.client_id"),
        (500, {}, "500"),
        (200, {"token_type": "Bearer"}, "no usable access_token"),
        (200, {"access_token": "with blank"}, "no usable access_token"),
        (200, [1], "no usable access_token"),
    ],
)
async def test_without_a_token_no_request_is_made_or_counted(
    status: int, body: Any, words: str
) -> None:
    """And the token host is asked at most once a minute."""
    bench = Bench()
    bench.cloud.token_status, bench.cloud.token = status, body
    async with bench.client() as cloud:
        for shown in (words, "last try failed", "last try failed"):
            with pytest.raises(CloudFault, match=shown) as caught:
                await cloud.read(CAR)
            assert caught.value.retryable
            bench.clock.pass_s(1)
        outcome = await cloud.command(CAR, START)
        assert (outcome.outcome, outcome.code) == (Outcome.REFUSED, "LOCAL:NOT_SENT")
    assert (bench.cloud.tokens, bench.cloud.requests) == (1, [])
    assert ("smartcar-budget", "car:v-1") not in bench.store.rows


async def test_a_token_that_lives_is_used_while_the_renewal_fails() -> None:
    """Losing a token's answer costs nothing."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.connections()
        bench.cloud.token_status = 503
        bench.clock.pass_s(3500)
        await cloud.connections()
        bench.clock.pass_s(200)
        with pytest.raises(CloudFault, match="no application token"):
            await cloud.connections()


async def test_a_client_id_of_the_old_generation_is_hinted_at() -> None:
    """The opaque 401 of mixed-up credentials."""
    bench = Bench()
    bench.options = type(bench.options)(
        client_id="11111111-2222", client_secret=SECRET, token_url=bench.options.token_url
    )
    bench.cloud.token_status = 401
    async with bench.client() as cloud:
        with pytest.raises(CloudFault, match="begins with client_, this one does not"):
            await cloud.connections()


# --- connections ----------------------------------------------------------------------


def row(vehicle_id: str, updated: str = "2026-11-01T00:00:00Z") -> dict[str, Any]:
    return {
        "id": f"c-{vehicle_id}", "type": "connection",
        "attributes": {"permissions": ["read_battery"], "vehicle": {"make": "VOLVO"}},
        "relationships": {
            "vehicle": {"data": {"id": vehicle_id, "type": "vehicle"}},
            "user": {"data": {"id": "u-1", "type": "user"}},
        },
        "meta": {"updatedAt": updated},
    }  # fmt: skip


async def test_every_page_of_connections_is_read() -> None:
    """A fleet silently loses vehicles otherwise; VINs come from the settings."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page[number]"])
        following = (
            f"{API_URL}/connections?page[number]={number + 1}" if number < 3 else None
        )
        return page([row(f"v-{number}"), row(f"w-{number}")], following)

    bench = Bench(answer)
    bench.options = type(bench.options)(
        client_id="client_bench", client_secret=SECRET, api_url=API_URL,
        token_url=bench.options.token_url,
        vehicles=(type(bench.options.vehicles[0])(vin=VIN, vehicle_id="v-2", user_id="u-1"),),
    )  # fmt: skip
    async with bench.client() as cloud:
        found = await cloud.connections()

    assert [item.car.vehicle_id for item in found] == [
        "v-1", "w-1", "v-2", "w-2", "v-3", "w-3",
    ]  # fmt: skip
    assert [item.car.vin for item in found if item.car.vin] == [VIN]
    assert found[0].make == "VOLVO"
    first = bench.cloud.requests[0].url.params
    assert (first["page[size]"], first["filter[vehicle.mode]"]) == ("100", "live")


async def test_pages_that_go_round_in_circles_end() -> None:
    """Bounded."""
    bench = Bench(lambda _: page([row("v-1")], f"{API_URL}/connections?page[number]=2"))
    async with bench.client() as cloud:
        assert len(await cloud.connections()) == 2

    numbers = iter(range(2, 1000))
    bench = Bench(lambda _: page([], f"{API_URL}/connections?page[number]={next(numbers)}"))
    async with bench.client() as cloud:
        await cloud.connections()
    assert len(bench.cloud.requests) == 50


@pytest.mark.parametrize(
    "answer",
    [
        page([], "https://elsewhere.test/v3/connections?page=2"),
        httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
        httpx.Response(200, text="<html>login</html>"),
        httpx.Response(200, json={"data": "none"}),
        httpx.Response(200, content=b"[" * (BODY_BYTES_MAX + 1)),
        refusal(500, "SERVER:INTERNAL"),
        refusal(403, "PERMISSION"),
        refusal(429, "RATE_LIMIT:SMARTCAR_API", retry_after="40"),
    ],
)
async def test_a_list_that_is_not_whole_is_a_fault(answer: httpx.Response) -> None:
    """Never an empty list; no other host is ever asked."""
    bench = Bench(lambda _: answer)
    async with bench.client() as cloud:
        with pytest.raises(CloudFault) as caught:
            await cloud.connections()

    assert caught.value.retryable
    assert (caught.value.retry_after_s or 0) >= 30
    assert {item.url.host for item in bench.cloud.requests} == {"vehicle.smartcar.test"}


# --- reads ----------------------------------------------------------------------------


async def test_a_read_is_one_request_for_all_signals() -> None:
    """And a second page only when something is missing."""
    bench = Bench()
    async with bench.client() as cloud:
        state = await cloud.read(CAR, session_id="S1")

    assert state.soc_percent is not None
    assert bench.cloud.asked() == ["GET /v3/vehicles/v-1/signals"]
    assert bench.cloud.requests[0].url.params["page[size]"] == "100"


async def test_further_pages_of_signals_are_read_and_counted() -> None:
    """Each is a request of the car's month and of the session."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = request.url.params["page[number]"]
        url = f"{API_URL}/vehicles/v-1/signals?page[number]=2"
        return page(SIGNALS[:3], url) if number == "1" else page(SIGNALS[3:], f"{url}9")

    bench = Bench(answer)
    async with bench.client() as cloud:
        state = await cloud.read(CAR, session_id="S1")
        left = await cloud.budget("v-1")

    assert (state.vin, left.used) == (VIN, 2)
    assert len(bench.cloud.requests) == 2
    assert bench.store.rows["smartcar-budget", "car:v-1"]["sessions"] == {"S1": [2, 0]}


async def test_what_came_before_a_page_that_fails_is_used() -> None:
    """SoC is worth more than completeness."""
    following = f"{API_URL}/vehicles/v-1/signals?page[number]=2"
    answers = iter([page(SIGNALS[:2], following), refusal(500, "SERVER:INTERNAL")])
    bench = Bench(lambda _: next(answers))
    async with bench.client() as cloud:
        state = await cloud.read(CAR)

        assert (await cloud.budget("v-1")).next_at == NOW + timedelta(seconds=120)
        bench.clock.pass_s(30)
        assert (await cloud.command(CAR, START)).code == "BUDGET:WAITING"

    assert state.soc_percent is not None
    assert state.vin == ""


async def test_an_empty_store_is_told_once_and_is_no_error() -> None:
    """It names where to look; a value that comes ends it."""
    bench = Bench(lambda _: page([]))
    with structlog.testing.capture_logs() as logs:
        async with bench.client() as cloud:
            for _ in range(2):
                assert (await cloud.read(CAR)).soc_percent is None
                bench.clock.pass_s(200)
            known = await cloud.known("v-1")
            assert known is not None
            assert known.is_store_empty
            bench.cloud.answer = lambda _: page(SIGNALS)
            await cloud.read(CAR)
            known = await cloud.known("v-1")
            assert known is not None
            assert not known.is_store_empty
    events = [item["event"] for item in logs]
    assert events.count("smartcar_store_found_empty") == 1


async def test_a_value_of_an_unknown_unit_is_told() -> None:
    """Loudly; the others are used."""
    rows = [signal("tractionbattery-range", value=9, unit="leagues"), SIGNALS[0]]
    bench = Bench(lambda _: page(rows))
    with structlog.testing.capture_logs() as logs:
        async with bench.client() as cloud:
            state = await cloud.read(CAR)

    assert state.soc_percent is not None
    told = [item for item in logs if item["event"] == "smartcar_value_refused"]
    assert "leagues" in told[0]["reason"]


async def test_after_a_restart_young_values_are_used_again() -> None:
    """0 calls for 30 min in the same session; another session asks."""
    bench = Bench()
    async with bench.client() as cloud:
        first = await cloud.read(CAR, session_id="S1")
    for _ in range(3):
        bench.clock.pass_s(500)
        async with bench.client() as cloud:
            assert await cloud.read(CAR, session_id="S1") == first
            assert await cloud.read(CAR) == first
    assert (len(bench.cloud.requests), bench.cloud.tokens) == (1, 1)

    async with bench.client() as cloud:
        await cloud.read(CAR, session_id="S2")
        bench.clock.pass_s(130)
        await cloud.read(CAR, session_id="S2")
    assert len(bench.cloud.requests) == 3
    bench.clock.pass_s(1801)
    async with bench.client() as cloud:
        await cloud.read(CAR, session_id="S2")
    assert len(bench.cloud.requests) == 4


async def test_the_last_good_value_of_each_signal_is_kept() -> None:
    """With the vehicle's time, across restarts."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.read(CAR)
        bench.clock.pass_s(3600)
        fresh = signal("tractionbattery-stateofcharge", "2026-11-10T18:59:00Z", value=61)
        bench.cloud.answer = lambda _: page([fresh])
        state = await cloud.read(CAR)
        assert state.limit_percent is None
    async with bench.client() as cloud:
        known = await cloud.known("v-1")
        assert await cloud.known("v-77") is None

    assert known is not None
    assert known.state.soc_percent is not None
    assert known.state.soc_percent.value == 61
    assert known.state.limit_percent is not None
    assert known.state.limit_percent.recorded_at == NOW - timedelta(minutes=2)
    assert known.vin == VIN


async def test_a_car_without_a_user_is_not_asked() -> None:
    """sc-user-id is required; without it every call would be a 400."""
    bench = Bench()
    nobody = Car(vehicle_id="v-1", user_id="", vin=VIN)
    async with bench.client() as cloud:
        with pytest.raises(CloudFault, match="user_id"):
            await cloud.read(nobody)
        assert (await cloud.command(nobody, START)).code == "LOCAL:NO_USER"
    assert (bench.cloud.requests, bench.cloud.tokens) == ([], 0)


async def test_an_id_cannot_leave_its_place_in_the_address() -> None:
    """Ids come from a cloud."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.read(Car(vehicle_id="../connections?x=", user_id="u-1", vin=""))
    assert bench.cloud.requests[0].url.raw_path.startswith(
        b"/v3/vehicles/%2E%2E%2Fconnections%3Fx%3D/signals"
    )


# --- budgets --------------------------------------------------------------------------


async def test_a_spent_budget_makes_no_request() -> None:
    """The floor first; the refusal says when."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.read(CAR)
        with pytest.raises(BudgetSpent) as caught:
            await cloud.read(CAR)
        outcome = await cloud.command(CAR, START)
        bench.clock.pass_s(60)
        await cloud.read(OTHER)

    assert (caught.value.reason, caught.value.retry_after_s) == ("floor", 120)
    assert (outcome.outcome, outcome.code) == (Outcome.REFUSED, "BUDGET:FLOOR")
    assert outcome.retry_after_s == 120
    assert len(bench.cloud.requests) == 2
    assert cloud.requests == {"list": 0, "read": 2, "command": 0, "token": 1}


async def test_a_request_is_on_disk_before_it_is_sent() -> None:
    """A crash in the middle of a request has counted it."""
    bench = Bench()
    counted: list[object] = []

    def answer(_: httpx.Request) -> httpx.Response:
        counted.append(bench.store.rows["smartcar-budget", "car:v-1"]["used"])
        raise httpx.ReadError("cut")

    await read_fault(answer, bench)
    assert counted == [{"2026-11": 1}]


async def test_a_disk_that_is_full_stops_requests() -> None:
    """What cannot be counted is not sent."""
    bench = Bench()
    async with bench.client() as cloud:
        await cloud.connections()
        bench.store.fails = True
        with pytest.raises(CloudFault, match="disk"):
            await cloud.connections()
    assert len(bench.cloud.requests) == 1


async def test_430_ends_the_month_for_this_car() -> None:
    """For commands too, and after a restart; told once."""
    bench = Bench()
    fault = await read_fault(refusal(430, "BILLING:VEHICLE_REQUEST_LIMIT"), bench)
    assert isinstance(fault, BudgetSpent)
    assert fault.reason == "month"
    bench.clock.pass_s(86_400)
    async with bench.client() as cloud:
        with pytest.raises(BudgetSpent):
            await cloud.read(CAR)
        assert (await cloud.command(CAR, STOP)).code == "BUDGET:MONTH"
        assert len(bench.cloud.requests) == 1
        bench.clock.pass_s(20 * 86_400)
        bench.cloud.answer = lambda _: page(SIGNALS)
        await cloud.read(CAR)


async def test_429_of_the_application_pauses_all_cars() -> None:
    """One shared limiter (section 8)."""
    bench = Bench()
    fault = await read_fault(refusal(429, "RATE_LIMIT:SMARTCAR_API"), bench)
    assert fault.retryable
    assert fault.retry_after_s == pytest.approx(37.5)

    bench.cloud.answer = lambda _: page(SIGNALS)
    async with bench.client() as cloud:
        with pytest.raises(BudgetSpent) as caught:
            await cloud.read(OTHER)
        assert caught.value.reason == "account"
        bench.clock.pass_s(40)
        await cloud.read(OTHER)


async def test_429_of_a_car_is_never_asked_again_earlier() -> None:
    """Retry-After, and a higher floor from then on."""
    bench = Bench()
    fault = await read_fault(refusal(429, "RATE_LIMIT:VEHICLE", retry_after="300"), bench)
    assert fault.retry_after_s == 300
    bench.cloud.answer = lambda _: page(SIGNALS)
    async with bench.client() as cloud:
        bench.clock.pass_s(299)
        with pytest.raises(BudgetSpent):
            await cloud.read(CAR)
        bench.clock.pass_s(1)
        await cloud.read(CAR)
        bench.clock.pass_s(200)
        with pytest.raises(BudgetSpent):
            await cloud.read(CAR)
        assert (await cloud.budget("v-1")).next_at == NOW + timedelta(seconds=600)


# --- what errors teach ----------------------------------------------------------------


async def test_the_driver_is_needed_and_the_car_probed_once_a_day() -> None:
    """Until a read works again."""
    bench = Bench()
    refused = refusal(400, "CONNECTED_SERVICES_ACCOUNT:AUTHENTICATION_FAILED")
    with structlog.testing.capture_logs() as logs:
        await read_fault(refused, bench)
        async with bench.client() as cloud:
            known = await cloud.known("v-1")
            assert known is not None
            assert known.driver == "CONNECTED_SERVICES_ACCOUNT:AUTHENTICATION_FAILED"
            assert known.driver_detail == "because of a test"
            for _ in range(7):
                bench.clock.pass_s(4 * 3600)
                with pytest.raises(CloudFault):
                    await cloud.read(CAR)
            assert len(bench.cloud.requests) == 2
            bench.cloud.answer = lambda _: page(SIGNALS)
            bench.clock.pass_s(86_400)
            await cloud.read(CAR)
            known = await cloud.known("v-1")
            assert known is not None
            assert known.driver == ""
    events = [item["event"] for item in logs if item["event"].startswith("smartcar_driver")]
    assert events == ["smartcar_driver_needed", "smartcar_driver_satisfied"]


async def test_a_new_consent_ends_the_waiting() -> None:
    """Seen in the list of connections, which costs the car nothing."""
    bench = Bench()
    await read_fault(refusal(400, "CONNECTED_SERVICES_ACCOUNT:PERMISSION"), bench)
    async with bench.client() as cloud:
        bench.cloud.answer = lambda _: page([row("v-1", "2026-11-10T17:00:00Z")])
        bench.clock.pass_s(600)
        await cloud.connections()
        with pytest.raises(BudgetSpent):
            await cloud.read(CAR)
        bench.cloud.answer = lambda _: page([row("v-1", "2026-11-10T18:05:00Z")])
        await cloud.connections()
        bench.cloud.answer = lambda _: page(SIGNALS)
        assert (await cloud.read(CAR)).soc_percent is not None


async def test_a_signals_own_error_can_ask_for_the_driver() -> None:
    """The HTTP call is 200 even when signals failed."""
    error = {"type": "CONNECTED_SERVICES_ACCOUNT", "code": "SUBSCRIPTION"}
    rows = [signal("tractionbattery-stateofcharge", status="ERROR", error=error)]
    bench = Bench(lambda _: page(rows))
    async with bench.client() as cloud:
        await cloud.read(CAR)
        known = await cloud.known("v-1")
    assert known is not None
    assert known.driver == "CONNECTED_SERVICES_ACCOUNT:SUBSCRIPTION"


@pytest.mark.parametrize(
    ("answer", "lacks"),
    [
        (refusal(501, "COMPATIBILITY:VEHICLE_NOT_CAPABLE"), {"start"}),
        (refusal(403, "PERMISSION"), {"start", "stop", "set-limit"}),
        (
            refusal(400, "CONNECTED_SERVICES_ACCOUNT:VIRTUAL_KEY_REQUIRED"),
            {"start", "stop", "set-limit"},
        ),
        (
            refusal(409, "VEHICLE_STATE:DEVICE_PAIRING_REQUIRED"),
            {"start", "stop", "set-limit"},
        ),
    ],
)
async def test_what_never_works_is_not_tried_for_a_month(
    answer: httpx.Response, lacks: set[str]
) -> None:
    """On disk; reads go on."""
    outcome, bench = await command(answer)
    assert outcome.outcome is Outcome.REFUSED
    async with bench.client() as cloud:
        bench.clock.pass_s(29 * 86_400)
        known = await cloud.known("v-1")
        assert known is not None
        assert known.lacks == lacks
        again = await cloud.command(CAR, START)
        assert (again.outcome, again.code) == (Outcome.REFUSED, outcome.code)
        assert len(bench.cloud.requests) == 1
        bench.clock.pass_s(2 * 86_400)
        bench.cloud.answer = lambda _: executed()
        assert (await cloud.command(CAR, START)).outcome is Outcome.DONE


async def test_a_read_without_permission_is_given_up_until_consent() -> None:
    """403 tells the truth that the list of permissions does not."""
    bench = Bench()
    fault = await read_fault(refusal(403, "PERMISSION"), bench)
    assert not fault.retryable
    bench.clock.pass_s(600)
    fault = await read_fault(page(SIGNALS), bench)
    assert not fault.retryable
    assert len(bench.cloud.requests) == 1


async def test_tries_of_one_error_come_to_an_end() -> None:
    """502: after 5 and 20 min, then no more; a success begins anew."""
    bench = Bench(lambda _: refusal(502, "UPSTREAM:NO_RESPONSE"))
    waits = []
    async with bench.client() as cloud:
        for _ in range(3):
            with pytest.raises(CloudFault) as caught:
                await cloud.read(CAR)
            waits.append((caught.value.retryable, caught.value.retry_after_s))
            bench.clock.pass_s(1200)
        bench.cloud.answer = lambda _: page(SIGNALS)
        await cloud.read(CAR)
        bench.cloud.answer = lambda _: refusal(502, "UPSTREAM:NO_RESPONSE")
        bench.clock.pass_s(1200)
        with pytest.raises(CloudFault) as caught:
            await cloud.read(CAR)
    assert waits == [(True, 300), (True, 1200), (False, None)]
    assert caught.value.retry_after_s == 300


async def test_a_plan_that_refuses_is_an_operators_matter() -> None:
    """One alarm, and a try a day."""
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        fault = await read_fault(refusal(430, "BILLING:ACCOUNT_SUSPENDED"), bench)
    assert fault.retry_after_s == 86_400
    assert "smartcar_plan_refused" in [item["event"] for item in logs]


# --- commands -------------------------------------------------------------------------


async def test_what_a_command_sends() -> None:
    """One POST each; only the limit has a body, an integer, never below what was asked."""
    bench = Bench(lambda _: executed(), rules=FREE)
    async with bench.client() as cloud:
        for what, percent in ((START, None), (STOP, None), (LIMIT, 79.2), (LIMIT, 80.0)):
            outcome = await cloud.command(CAR, what, percent)
            assert outcome.outcome is Outcome.DONE
            bench.clock.pass_s(1)

    assert bench.cloud.asked() == [
        f"POST /v3/vehicles/v-1/commands/charge/{name}"
        for name in ("start", "stop", "set-limit", "set-limit")
    ]
    bodies = [item.content for item in bench.cloud.requests]
    assert bodies[:3] == [b"", b"", orjson.dumps({"data": {"attributes": {"percent": 80}}})]
    assert bodies[3] == bodies[2]


@pytest.mark.parametrize("percent", [None, 49.9, 0.8, 100.1, -1.0, float("nan")])
async def test_a_limit_beyond_what_cars_take_is_not_sent(percent: float | None) -> None:
    """50 to 100."""
    outcome, bench = await command(executed(), LIMIT, percent)
    assert (outcome.outcome, outcome.code) == (Outcome.REFUSED, "VALIDATION:PERCENT")
    assert bench.cloud.requests == []


def streamed(*parts: bytes, status: int = 202, cut: bool = False) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if cut:
            raise httpx.ReadError("cut")

    return httpx.Response(status, content=body())


OK = executed().content
CASES: list[tuple[str, Callable[[], httpx.Response], Outcome, str]] = [
    ("202, then success", lambda: streamed(OK[:9], b"", OK[9:]), Outcome.DONE, "SUCCESS"),
    (
        "202, then a failure that names another status",
        lambda: streamed(refusal(409, "VEHICLE_STATE:UNREACHABLE").content),
        Outcome.REFUSED,
        "VEHICLE_STATE:UNREACHABLE",
    ),
    (
        "202, then a fault that leaves it open",
        lambda: streamed(refusal(502, "UPSTREAM:NO_RESPONSE").content),
        Outcome.UNKNOWN,
        "UPSTREAM:NO_RESPONSE",
    ),
    ("202, then cut", lambda: streamed(OK[:9], cut=True), Outcome.UNKNOWN, "NETWORK:NO_ANSWER"),
    ("202, half of it", lambda: streamed(OK[:9]), Outcome.UNKNOWN, "LOCAL:UNREADABLE"),
    ("202, nothing", lambda: streamed(b""), Outcome.UNKNOWN, "LOCAL:UNREADABLE"),
    ("pending", lambda: executed("PENDING", 202), Outcome.UNKNOWN, "PENDING"),
    ("failure", lambda: executed("FAILURE"), Outcome.REFUSED, "FAILURE"),
    (
        "failure with a reason",
        lambda: executed("FAILURE", type="VEHICLE_STATE", code="CHARGE_FAULT"),
        Outcome.REFUSED,
        "VEHICLE_STATE:CHARGE_FAULT",
    ),
    ("no status", lambda: httpx.Response(200, json={}), Outcome.UNKNOWN, "LOCAL:NO_STATUS"),
    ("html", lambda: httpx.Response(200, text="<html>"), Outcome.UNKNOWN, "LOCAL:UNREADABLE"),
    ("504", lambda: httpx.Response(504, text="<html>"), Outcome.UNKNOWN, "HTTP:504"),
    ("503", lambda: httpx.Response(503), Outcome.UNKNOWN, "HTTP:503"),
    ("500", lambda: refusal(500, "SERVER:INTERNAL"), Outcome.UNKNOWN, "SERVER:INTERNAL"),
    ("302", lambda: httpx.Response(302), Outcome.REFUSED, "HTTP:302"),
    ("429", lambda: refusal(429, "RATE_LIMIT:VEHICLE"), Outcome.REFUSED, "RATE_LIMIT:VEHICLE"),
    (
        "too large",
        lambda: streamed(b" " * BODY_BYTES_MAX, b" ", OK),
        Outcome.UNKNOWN,
        "NETWORK:NO_ANSWER",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "outcome", "code"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
async def test_how_commands_end(
    make: Callable[[], httpx.Response], outcome: Outcome, code: str
) -> None:
    """Decided by the body that came whole; sent once, whatever happens."""
    found, bench = await command(lambda _: make())

    assert (found.outcome, found.code) == (outcome, code)
    assert len(bench.cloud.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("slow"), httpx.ConnectTimeout("far"), httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("gone"), httpx.WriteError("cut"),
    ],
)  # fmt: skip
async def test_a_command_without_an_answer_is_unknown(error: Exception) -> None:
    """Looked up at the meter, never sent again."""

    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    found, bench = await command(answer)
    assert (found.outcome, found.code) == (Outcome.UNKNOWN, "NETWORK:NO_ANSWER")
    assert len(bench.cloud.requests) == 1


@pytest.mark.parametrize(
    ("what", "code", "outcome"),
    [
        (START, "CHARGING_IN_PROGRESS", Outcome.DONE),
        (STOP, "NOT_CHARGING", Outcome.DONE),
        (STOP, "CHARGING_IN_PROGRESS", Outcome.REFUSED),
        (START, "NOT_CHARGING", Outcome.REFUSED),
        (LIMIT, "CHARGING_IN_PROGRESS", Outcome.REFUSED),
        (START, "CHARGING_PLUG_NOT_CONNECTED", Outcome.REFUSED),
        (START, "FULLY_CHARGED", Outcome.REFUSED),
    ],
)
async def test_409_can_mean_that_it_is_done(
    what: CarCommand, code: str, outcome: Outcome
) -> None:
    """State-idempotent (section 5.5); also when it is streamed."""
    answer = refusal(409, f"VEHICLE_STATE:{code}")
    for make in (lambda: answer, lambda: streamed(answer.content)):
        found, _ = await command(lambda _, make=make: make(), what, 80.0)
        assert (found.outcome, found.code) == (outcome, f"VEHICLE_STATE:{code}")


async def test_a_command_after_401_is_sent_once_more() -> None:
    """It did not reach the car; both are counted."""
    answers = iter([refusal(401, "AUTHENTICATION"), executed()])
    bench = Bench(lambda _: next(answers))
    async with bench.client() as cloud:
        found = await cloud.command(CAR, START, session_id="S1")
        assert found.outcome is Outcome.DONE
        bench.clock.pass_s(200)
        assert (await cloud.command(CAR, START, session_id="S1")).code == "BUDGET:SESSION"
    assert len(bench.cloud.requests) == 2


async def test_one_command_at_a_time_goes_to_a_car() -> None:
    """A second one while the first is under way is refused at once."""
    bench = Bench(rules=FREE)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        under_way.set()
        await go_on.wait()
        yield OK

    bench.cloud.answer = lambda _: httpx.Response(202, content=slow())
    async with bench.client() as cloud, asyncio.TaskGroup() as group:
        first = group.create_task(cloud.command(CAR, START))
        await under_way.wait()
        second = await cloud.command(CAR, STOP)
        go_on.set()
    assert (second.outcome, second.code) == (Outcome.REFUSED, "LOCAL:COMMAND_RUNNING")
    assert first.result().outcome is Outcome.DONE
    assert len(bench.cloud.requests) == 1


async def test_waits_of_errors_hold_commands_back() -> None:
    """In motion: ten minutes; reads go on, for they come from the store."""
    found, bench = await command(refusal(409, "VEHICLE_STATE:IN_MOTION"))
    assert found.retry_after_s == 600
    async with bench.client() as cloud:
        bench.clock.pass_s(300)
        assert (await cloud.command(CAR, START)).code == "BUDGET:WAITING"
        bench.cloud.answer = lambda _: page(SIGNALS)
        await cloud.read(CAR)


# --- the wire -------------------------------------------------------------------------


async def test_timeouts_fit_reads_and_commands() -> None:
    """10 s to connect; 30 s for a read, 330 s for a command."""
    bench = Bench(lambda request: executed() if request.method == "POST" else page(SIGNALS))
    bench.options = type(bench.options)(
        client_id="c", client_secret=SECRET, rules=FREE, api_url=API_URL,
        token_url=bench.options.token_url,
    )  # fmt: skip
    async with bench.client() as cloud:
        await cloud.read(CAR)
        bench.clock.pass_s(1)
        await cloud.command(CAR, START)
    shown = [item.extensions["timeout"] for item in bench.cloud.requests]
    assert [(item["connect"], item["read"]) for item in shown] == [(10, 30), (10, 330)]


async def test_a_body_that_drips_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the longest silence all is given up."""
    monkeypatch.setattr(smartcar_http, "SLACK_S", -smartcar_http.CONNECT_S - 29.95)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    fault = await read_fault(lambda _: httpx.Response(200, content=drip()))
    assert fault.retry_after_s == 60


async def test_a_user_id_that_no_header_carries_is_not_printed() -> None:
    """The library would show the whole header."""
    bench = Bench()
    async with bench.client() as cloud:
        with pytest.raises(CloudFault) as caught:
            await cloud.read(Car(vehicle_id="v-1", user_id="u\r\nx: y", vin=""))
    assert "sc-user-id" in str(caught.value)
    assert bench.cloud.requests == []


async def test_no_secret_is_in_a_log_a_fact_or_an_error() -> None:
    """At debug level, over good and bad answers."""
    answers = iter([page(SIGNALS), refusal(401, "AUTHENTICATION"), refusal(401, "X")])
    bench = Bench(lambda _: next(answers), rules=FREE)
    with structlog.testing.capture_logs() as logs:
        async with bench.client() as cloud:
            await cloud.read(CAR)
            bench.clock.pass_s(1)
            with pytest.raises(CloudFault) as caught:
                await cloud.read(CAR)
    told = f"{logs} {bench.store.rows} {caught.value!r} {bench.options!r}"
    assert SECRET not in told
    assert ACCESS not in told
    assert [item["status"] for item in logs if item["event"] == "smartcar_called"] == [
        200, 401, 401,
    ]  # fmt: skip
