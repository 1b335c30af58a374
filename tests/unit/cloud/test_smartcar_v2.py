"""The v2.0 adapter: tokens that no crash and no lost answer strands, fractions, batches."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest
import structlog

from agent.cloud import smartcar_tokenfile
from agent.cloud.smartcar_options import SmartcarOptions, SmartcarVehicle
from agent.cloud.smartcar_tokenfile import TOKENS_FILE, Generations, TokenFile
from agent.cloud.smartcar_v2 import SmartcarV2
from agent.domain.budget import BudgetRules
from agent.domain.errors import CloudFault
from agent.ports import Car, CarCommand, Outcome
from agent.standin.smartcar_tokens import UserTokens
from tests.support.smartcar_cloud import (
    CAR,
    NOW,
    SECRET,
    VIN,
    Dice,
    HandClock,
    MemoryStore,
    as_ids,
    as_store,
)

AUTH = "https://auth.smartcar.test/oauth/token"
API = "https://api.smartcar.test/v2.0"
MANAGEMENT = "https://management.smartcar.test/v2.0"
AGE = "2026-11-10T17:58:00.000Z"
Answer = Callable[[httpx.Request], httpx.Response]


OTHER_CAR = Car(vehicle_id="v-2", user_id="u-1", vin="")


class CrashError(BaseException):
    """The power went."""


def sub(
    path: str, status: int = 200, /, age: str | None = AGE, **body: Any
) -> dict[str, Any]:
    headers = {"SC-Unit-System": "metric"} | ({"SC-Data-Age": age} if age else {})
    return {"path": path, "code": status, "headers": headers, "body": body}


WHOLE = [
    sub("/battery", percentRemaining=0.55, range=180.5),
    sub("/charge", isPluggedIn=True, state="CHARGING"),
    sub("/charge/limit", limit=0.8),
    sub(
        "/battery/nominal_capacity",
        availableCapacities=[],
        capacity={"nominal": 77, "source": "SMARTCAR"},
        url=None,
    ),
    sub("/vin", vin=VIN),
]


def batch(*rows: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"responses": list(rows or WHOLE)})


def flat(status: int, name: str) -> httpx.Response:
    kind, _, code = name.partition(":")
    body = {"type": kind, "code": code or None, "statusCode": status, "description": "no"}
    return httpx.Response(status, json=body)


class World:
    """A cloud that rotates as the real one does, and the agent's disk."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.clock = HandClock()
        self.tokens = UserTokens(self.clock)
        self.seed = str(self.tokens.grant("u-1")["refresh_token"])
        self.path = folder / TOKENS_FILE
        self.store = MemoryStore()
        self.answer: Answer = lambda _: batch()
        self.before: list[Any] = []
        """What happens to the next renewals: "lost", "cut", a response, or None."""
        self.renewals = 0
        self.requests: list[httpx.Request] = []
        self.more = options

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if not str(request.url).startswith(AUTH):
            self.requests.append(request)
            bearer = request.headers["authorization"].removeprefix("Bearer ")
            if request.headers["authorization"].startswith("Basic "):
                return self.answer(request)
            if self.tokens.user_of(bearer) is None:
                return flat(401, "AUTHENTICATION")
            return self.answer(request)
        self.renewals += 1
        assert request.headers["user-agent"]
        assert request.headers["authorization"].startswith("Basic ")
        form = parse_qs(request.content.decode())
        fate = self.before.pop(0) if self.before else None
        if fate == "cut":
            raise httpx.ConnectError("no network")
        if isinstance(fate, httpx.Response):
            return fate
        pair = self.tokens.renew(form["refresh_token"][0])
        if fate == "lost":
            raise httpx.ReadError("cut")
        if pair is None:
            return httpx.Response(400, json={"error": "invalid_grant"})
        return httpx.Response(200, json=pair)

    @asynccontextmanager
    async def client(self, seed: str | None = None) -> AsyncIterator[SmartcarV2]:
        vehicle = SmartcarVehicle(
            vin="", vehicle_id="v-1", user_id="u-1",
            refresh_token=self.seed if seed is None else seed,
        )  # fmt: skip
        found = SmartcarV2(
            SmartcarOptions(
                client_id="app-1", client_secret=SECRET, auth_url=AUTH, v2_url=API,
                management_url=MANAGEMENT, vehicles=(vehicle,),
                rules=BudgetRules(floor_s=0.0), **self.more,
            ),
            as_store(self.store), self.clock, as_ids(Dice()),
            tokens=self.path, transport=httpx.MockTransport(self.handle),
        )  # fmt: skip
        try:
            yield found
        finally:
            await found.close()

    async def on_disk(self) -> Generations:
        return (await TokenFile(self.path).users())["u-1"]

    async def kept(self, cloud: SmartcarV2, seconds: float) -> None:
        """Let the keeper of tokens live for some seconds of the clock."""
        end = self.clock.now() + timedelta(seconds=seconds)
        plain = self.clock.sleep

        async def sleep(seconds: float) -> None:
            await plain(seconds)
            if self.clock.now() >= end:
                raise CrashError

        self.clock.sleep = sleep  # type: ignore[method-assign]
        with suppress(CrashError):
            await cloud.run()
        self.clock.sleep = plain  # type: ignore[method-assign]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- tokens ---------------------------------------------------------------------------


async def test_the_first_use_turns_the_configured_token_into_a_pair(world: World) -> None:
    """The new one is on disk, beside the one that gave it, for its owner only."""
    async with world.client() as cloud:
        await cloud.read(CAR)
        await cloud.read(CAR)

    assert world.renewals == 1
    stored = await world.on_disk()
    assert stored.previous == world.seed
    assert stored.current not in ("", world.seed)
    assert (stored.beside, stored.started_at, stored.renewed_at) == ("", None, NOW)
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600
    assert [item.name for item in world.path.parent.iterdir()] == [TOKENS_FILE]


async def test_a_restart_uses_the_access_token_that_still_lives(world: World) -> None:
    """A restart loop rotates nothing."""
    for _ in range(5):
        async with world.client() as cloud:
            await cloud.read(Car(vehicle_id="v-9", user_id="u-1", vin=""))
            world.clock.pass_s(60)
    assert world.renewals == 1


async def test_the_older_generation_goes_when_the_newer_has_worked(world: World) -> None:
    """Only then (rule 3)."""
    async with world.client() as cloud:
        await cloud.read(CAR)
        first = await world.on_disk()
        world.clock.pass_s(7000)
        await cloud.read(CAR)
        second = await world.on_disk()
    assert second.previous == first.current
    assert world.seed not in world.path.read_text(encoding="utf-8")


async def test_two_cars_of_one_driver_share_one_refresher(world: World) -> None:
    """Two renewals with one token can strand one of them."""
    async with world.client() as cloud, asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(cloud.read(Car(vehicle_id=name, user_id="u-1", vin="")))
    assert world.renewals == 1


async def test_a_lost_answer_is_asked_for_again_with_the_same_token(world: World) -> None:
    """At once; the grace window makes it good."""
    world.before = ["lost"]
    async with world.client() as cloud:
        await cloud.read(CAR)
        assert world.renewals == 2
        world.clock.pass_s(7000)
        await cloud.read(CAR)
    assert world.renewals == 3


async def test_the_start_of_a_renewal_is_on_disk_before_it_is_sent(world: World) -> None:
    """Rule 2; when the disk does not take it, nothing is sent."""
    seen: list[Any] = []
    plain = world.handle

    async def handle(request: httpx.Request) -> httpx.Response:
        if str(request.url).startswith(AUTH):
            seen.append((await world.on_disk()).started_at)
        return await plain(request)

    world.handle = handle  # type: ignore[method-assign]
    async with world.client() as cloud:
        await cloud.read(CAR)
    assert seen == [NOW]


async def test_a_disk_that_takes_nothing_stops_the_renewal(tmp_path: Path) -> None:
    """A token that was used and not kept is lost."""
    world = World(tmp_path / "nowhere")
    async with world.client() as cloud:
        with pytest.raises(CloudFault, match="cannot be written"):
            await cloud.read(CAR)
    assert world.renewals == 0


@pytest.mark.parametrize("lost", [1, 2, 5, 20])
async def test_renewals_go_on_every_10_to_20_s_within_the_grace(
    world: World, lost: int
) -> None:
    """After a restart too (rules 4 and 6): the driver need not connect again."""
    world.before = ["lost"] * lost
    async with world.client() as cloud:
        with suppress(CloudFault):
            await cloud.read(CAR)
    assert lost == 1 or (await world.on_disk()).started_at == NOW
    started = world.clock.now()
    async with world.client() as cloud:
        await world.kept(cloud, 400)
        assert (await world.on_disk()).started_at is None
        took_s = ((await world.on_disk()).renewed_at or started) - started
        assert took_s.total_seconds() <= 20 * lost
        await cloud.read(CAR)


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("lost", [False, True])
async def test_a_crash_at_any_write_loses_no_driver(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    moment: str,
    lost: bool,  # noqa: FBT001
) -> None:
    """Before or after each write of the second renewal; found again within minutes."""
    async with world.client() as cloud:
        await cloud.read(CAR)
        world.clock.pass_s(7100)
    plain, writes = smartcar_tokenfile.write_private, 0

    def write(path: Path, content: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes == at and moment == "before":
            raise CrashError
        plain(path, content)
        if writes == at:
            raise CrashError

    monkeypatch.setattr(smartcar_tokenfile, "write_private", write)
    world.before = ["lost"] if lost else []
    async with world.client() as cloud:
        with pytest.raises(CrashError):
            await cloud.read(CAR)
    monkeypatch.undo()

    world.clock.pass_s(300)
    for _ in range(3):
        async with world.client() as cloud:
            await world.kept(cloud, 30)
            world.clock.pass_s(7200)
            state = await cloud.read(CAR)
            assert state.soc_percent is not None


async def test_after_the_grace_only_the_driver_can_help(world: World) -> None:
    """Told once, and asked no more for a day; a new consent begins anew."""
    world.before = ["lost", "lost"]
    async with world.client() as cloud:
        with pytest.raises(CloudFault):
            await cloud.read(CAR)
        world.clock.pass_s(700)
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(
                    CloudFault, match="must connect the car again"
                ) as caught:
                    await cloud.read(CAR)
                assert not caught.value.retryable
        assert [item["event"] for item in logs] == ["smartcar_driver_needed"]
        assert world.renewals == 3
        await world.kept(cloud, 3600)
        assert world.renewals == 3

    consent = str(world.tokens.grant("u-1")["refresh_token"])
    async with world.client(consent) as cloud:
        assert (await cloud.read(CAR)).soc_percent is not None


async def test_an_access_token_that_lives_is_used_while_its_renewal_fails(
    world: World,
) -> None:
    """Up to two hours (section 3.3)."""
    async with world.client() as cloud:
        await cloud.read(CAR)
        world.clock.pass_s(6600)
        world.before = ["cut"] * 4
        await cloud.read(CAR)
        assert world.renewals == 3
        world.clock.pass_s(700)
        with pytest.raises(CloudFault, match="could not be renewed"):
            await cloud.read(CAR)


async def test_tokens_are_renewed_before_they_die_unused(world: World) -> None:
    """At the start when their age is not known, and after 50 days."""
    async with world.client() as cloud:
        await world.kept(cloud, 60)
        assert world.renewals == 1
        world.clock.pass_s(49 * 86_400)
        await world.kept(cloud, 60)
        assert world.renewals == 1
        world.clock.pass_s(2 * 86_400)
        await world.kept(cloud, 60)
        assert world.renewals == 2


async def test_wrong_credentials_of_ours_condemn_no_token(world: World) -> None:
    """invalid_client is not invalid_grant."""
    world.before = [httpx.Response(401, json={"error": "invalid_client"})]
    async with world.client() as cloud:
        with pytest.raises(CloudFault, match="invalid_client"):
            await cloud.read(CAR)
        assert (await world.on_disk()).refused_at is None
        await cloud.read(CAR)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"access_token": "a"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(503, text="away"),
    ],
)
async def test_an_answer_without_tokens_is_asked_for_again(
    world: World, answer: httpx.Response
) -> None:
    """Nothing is taken for a refusal but a refusal."""
    world.before = [answer]
    async with world.client() as cloud:
        await cloud.read(CAR)
    assert world.renewals == 2


async def test_a_revoked_access_token_is_renewed_once(world: World) -> None:
    """As in v3."""
    async with world.client() as cloud:
        await cloud.read(CAR)
        world.tokens.revoke_access()
        await cloud.read(CAR)
    assert (world.renewals, len(world.requests)) == (2, 3)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"users": {"u-1": 7}}', b"\xff"])
async def test_a_damaged_file_is_put_aside(world: World, content: bytes) -> None:
    """Nothing in it is deleted; the configured token begins anew."""
    world.path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        async with world.client() as cloud:
            await cloud.read(CAR)
    assert logs[0]["event"] == "smartcar_tokens_unreadable"
    aside = world.path.with_name(f"{TOKENS_FILE}.damaged")
    assert aside.read_bytes() == content


async def test_a_file_that_others_could_read_is_closed(world: World) -> None:
    """A restored copy, for example."""
    async with world.client() as cloud:
        await cloud.read(CAR)
    world.path.chmod(0o644)
    async with world.client() as cloud:
        await cloud.read(OTHER_CAR)
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600


async def test_no_token_is_in_a_log_a_fact_or_an_error(world: World) -> None:
    """Only in its file."""
    world.before = ["lost", "lost"]
    with structlog.testing.capture_logs() as logs:
        async with world.client() as cloud:
            with pytest.raises(CloudFault) as caught:
                await cloud.read(CAR)
            await cloud.read(CAR)
    stored = await world.on_disk()
    told = f"{logs} {world.store.rows} {caught.value!r} {stored!r} {cloud._options!r}"
    for secret in (SECRET, world.seed, stored.current, stored.access):
        assert secret not in told


# --- cars -----------------------------------------------------------------------------


async def test_a_car_is_read_in_one_batch_with_fractions_made_percent(
    world: World,
) -> None:
    """What never changes is asked once; each path counts."""
    async with world.client() as cloud:
        state = await cloud.read(CAR, session_id="S1")
        await cloud.read(CAR, session_id="S1")
        left = await cloud.budget("v-1")

    assert state.soc_percent is not None
    assert (state.soc_percent.value, state.soc_percent.recorded_at) == (
        55, NOW - timedelta(minutes=2),
    )  # fmt: skip
    assert state.range_km is not None
    assert state.capacity_wh is not None
    assert state.limit_percent is not None
    assert state.is_plugged is not None
    assert state.is_charging is not None
    assert (state.range_km.value, state.capacity_wh.value) == (180.5, 77_000)
    assert (state.limit_percent.value, state.charging, state.vin) == (80, "CHARGING", VIN)
    assert (state.is_plugged.value, state.is_charging.value) == (1, 1)
    asked = [orjson.loads(item.content)["requests"] for item in world.requests]
    assert [item["path"] for item in asked[0]] == [row["path"] for row in WHOLE]
    assert [item["path"] for item in asked[1]] == ["/battery", "/charge", "/charge/limit"]
    assert left.used == 8
    assert world.store.rows["smartcar-budget", "car:v-1"]["sessions"] == {"S1": [2, 0]}


async def test_a_path_that_fails_does_not_fail_the_rest(world: World) -> None:
    """And one that can never work is not paid for again for a month."""
    never = sub(
        "/battery/nominal_capacity", 501, type="COMPATIBILITY", statusCode=501,
        code="SMARTCAR_NOT_CAPABLE",
    )  # fmt: skip
    passing = sub("/charge/limit", 409, type="VEHICLE_STATE", code="ASLEEP", statusCode=409)
    world.answer = lambda _: batch(*WHOLE[:2], passing, never)
    async with world.client() as cloud:
        state = await cloud.read(CAR)
        await cloud.read(CAR)
    assert state.soc_percent is not None
    assert state.limit_percent is None
    asked = orjson.loads(world.requests[1].content)["requests"]
    assert {"path": "/charge/limit"} in asked
    assert {"path": "/battery/nominal_capacity"} not in asked


async def test_a_batch_that_fails_whole_is_a_fault(world: World) -> None:
    """By the catalogue: asleep is waited for."""
    error: dict[str, Any] = {"type": "VEHICLE_STATE", "code": "ASLEEP", "statusCode": 409}
    world.answer = lambda _: batch(
        sub("/battery", 409, **error), sub("/charge", 409, **error)
    )
    async with world.client() as cloud:
        with pytest.raises(CloudFault, match="ASLEEP") as caught:
            await cloud.read(CAR)
    assert caught.value.retry_after_s == 1800


@pytest.mark.parametrize(
    "rows",
    [
        [sub("/battery", percentRemaining=55)],
        [sub("/battery", percentRemaining="0.5"), sub("/charge")],
        [sub("/vin", vin="?")],
        [sub("/battery", percentRemaining=0.5, range=1e9)],
    ],
)
async def test_values_beyond_what_can_be_are_refused(
    world: World, rows: list[dict[str, Any]]
) -> None:
    """A percent where a fraction belongs, for example."""
    world.answer = lambda _: batch(*rows)
    with structlog.testing.capture_logs() as logs:
        async with world.client() as cloud:
            state = await cloud.read(CAR)
    assert state.soc_percent is None
    assert "smartcar_value_refused" in [item["event"] for item in logs]


async def test_miles_and_ages_are_read_from_the_headers_of_a_path(world: World) -> None:
    """Absent means unknown age; names in any case."""
    row = sub("/battery", age=None, percentRemaining=0.5, range=100)
    row["headers"] = {"sc-unit-system": "imperial"}
    world.answer = lambda _: batch(row)
    async with world.client() as cloud:
        state = await cloud.read(CAR)
    assert state.range_km is not None
    assert state.range_km.value == pytest.approx(160.9344)
    assert state.range_km.recorded_at is None


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (httpx.Response(200, json={"status": "success"}), Outcome.DONE, "SUCCESS"),
        (httpx.Response(200, json={"status": "odd"}), Outcome.UNKNOWN, "LOCAL:NO_STATUS"),
        (httpx.Response(200, text="ok"), Outcome.UNKNOWN, "LOCAL:UNREADABLE"),
        (flat(409, "VEHICLE_STATE:CHARGING_IN_PROGRESS"), Outcome.DONE,
         "VEHICLE_STATE:CHARGING_IN_PROGRESS"),
        (flat(409, "VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED"), Outcome.REFUSED,
         "VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED"),
        (flat(502, "UPSTREAM:NO_RESPONSE"), Outcome.UNKNOWN, "UPSTREAM:NO_RESPONSE"),
    ],
)  # fmt: skip
async def test_how_commands_end(
    world: World, answer: httpx.Response, outcome: Outcome, code: str
) -> None:
    """The message may be missing."""
    world.answer = lambda _: answer
    async with world.client() as cloud:
        found = await cloud.command(CAR, CarCommand.START)
    assert (found.outcome, found.code) == (outcome, code)


async def test_what_commands_send(world: World) -> None:
    """An action, and a number as the limit."""
    world.answer = lambda _: httpx.Response(200, json={"status": "success"})
    async with world.client() as cloud:
        await cloud.command(CAR, CarCommand.START)
        await cloud.command(CAR, CarCommand.STOP)
        await cloud.command(CAR, CarCommand.SET_LIMIT, 80)
    sent = [(item.url.path, orjson.loads(item.content)) for item in world.requests]
    assert sent == [
        ("/v2.0/vehicles/v-1/charge", {"action": "START"}),
        ("/v2.0/vehicles/v-1/charge", {"action": "STOP"}),
        ("/v2.0/vehicles/v-1/charge/limit", {"limit": 0.8}),
    ]


async def test_connections_driver_by_driver(world: World) -> None:
    """Every page of the ids."""

    def answer(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        ids = [f"v-{number}" for number in range(offset, min(offset + 50, 60))]
        return httpx.Response(200, json={"vehicles": ids, "paging": {"count": 60}})

    world.answer = answer
    async with world.client() as cloud:
        found = await cloud.connections()
    assert len(found) == 60
    assert {item.car.user_id for item in found} == {"u-1"}
    assert len(world.requests) == 2


async def test_connections_by_the_management_token(tmp_path: Path) -> None:
    """By cursor; without any driver's token."""
    world = World(tmp_path, management_token="management-XPT3")
    cursors = iter(["c1", None])

    def answer(request: httpx.Request) -> httpx.Response:
        assert (
            request.headers["authorization"]
            == httpx.BasicAuth("default", "management-XPT3")._auth_header
        )
        row = {"vehicleId": f"v-{request.url.params.get('cursor')}", "userId": "u-1"}
        body = {
            "connections": [row, {"vehicleId": None}],
            "paging": {"cursor": next(cursors)},
        }
        return httpx.Response(200, json=body)

    world.answer = answer
    async with world.client() as cloud:
        found = await cloud.connections()
        assert [item.car.vehicle_id for item in found] == ["v-None", "v-c1"]
        world.answer = lambda _: flat(401, "AUTHENTICATION")
        with pytest.raises(CloudFault, match="connections"):
            await cloud.connections()
    assert world.renewals == 0
