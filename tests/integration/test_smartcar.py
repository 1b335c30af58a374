"""The Smartcar client, its store and the stand-in cloud over real sockets.

What counts is what the stand-in saw: its ledger and its own limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

from agent.cloud.smartcar_base import SmartcarClient
from agent.domain.budget import BudgetSpent
from agent.domain.errors import CloudFault
from agent.ports import Car, CarCommand, CarState, Outcome
from agent.settings import Settings
from agent.standin.smartcar import SmartcarServer
from agent.standin.smartcar_car import PlainBody, StandinCar
from agent.standin.smartcar_faults import CarFault
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_signals import spoil
from agent.standin.smartcar_state import V2_CLIENT_ID, SmartcarStandin
from agent.store.sqlite import SqliteStore
from agent.wiring import vehicle_cloud
from tests.support.smartcar_cloud import NOW, Dice, HandClock, as_ids

START, STOP, LIMIT = CarCommand.START, CarCommand.STOP, CarCommand.SET_LIMIT
T = TypeVar("T")


def car_of(number: int = 1) -> Car:
    return Car(vehicle_id=f"v-{number}", user_id=f"u-{number}", vin="")


class Depot:
    """A stand-in Smartcar with cars, and an agent that can be started again."""

    def __init__(self, folder: Path, cars: int = 1, **limits: object) -> None:
        self.clock = HandClock()
        self.cloud = SmartcarStandin(self.clock, limits=LimitSet(**limits))  # type: ignore[arg-type]
        self.folder = folder
        self.dice = Dice()
        self.refresh = {}
        self.api = "v3"
        self.more: dict[str, object] = {}
        self.month_began = NOW
        for number in range(1, cars + 1):
            body = PlainBody(soc_percent=54, is_plugged=True, offered_w=11_000)
            self.cloud.add(
                StandinCar(
                    vehicle_id=f"v-{number}", user_id=f"u-{number}", make="VOLVO",
                    vin=f"WVWZZZAAZJD{number:06}", body=body,
                )
            )  # fmt: skip
            pair = self.cloud.user_tokens.grant(f"u-{number}")
            self.refresh[number] = str(pair["refresh_token"])

    @property
    def car(self) -> StandinCar:
        return self.cloud.cars["v-1"]

    def settings(self, server: SmartcarServer) -> Settings:
        is_v2 = self.api == "v2"
        smartcar: dict[str, object] = {
            "client_id": V2_CLIENT_ID if is_v2 else "client_standin",
            "client_secret": "standin-client-secret",
            "api": self.api,
            "token_url": server.token_url,
            "api_url": server.api_url,
            "auth_url": server.v2_token_url,
            "v2_url": server.v2_url,
            "vehicles": [
                {
                    "vin": f"WVWZZZAAZJD{number:06}", "vehicle_id": f"v-{number}",
                    "user_id": f"u-{number}", "refresh_token": token if is_v2 else "",
                }
                for number, token in self.refresh.items()
            ],
        }  # fmt: skip
        smartcar |= self.more
        return Settings(
            site={"cap_kw": 100},  # type: ignore[arg-type]
            store={"path": str(self.folder / "agent.db")},  # type: ignore[arg-type]
            smartcar=smartcar,  # type: ignore[arg-type]
        )

    @asynccontextmanager
    async def agent(self, server: SmartcarServer) -> AsyncIterator[SmartcarClient]:
        """One life of the agent, on the disk that is there."""
        settings = self.settings(server)
        store = SqliteStore(settings.store.path)
        store.start()
        cloud = vehicle_cloud(settings, store, self.clock, as_ids(self.dice))
        assert cloud is not None
        try:
            yield cloud
        finally:
            await cloud.close()
            await store.stop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SmartcarClient]:
        """A server and one life of the agent."""
        async with SmartcarServer(self.cloud) as server, self.agent(server) as agent:
            yield agent

    async def while_time_passes(self, work: Awaitable[T], step_s: float = 10.0) -> T:
        """Move the clock while something waits for it."""

        async def pass_time() -> None:
            while True:
                await asyncio.sleep(0.004)
                self.clock.pass_s(step_s)

        failed: CloudFault | None = None
        async with asyncio.TaskGroup() as group:
            passing = group.create_task(pass_time())
            try:
                return await work
            except CloudFault as error:
                failed = error
            finally:
                passing.cancel()
        raise failed


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path)


# --- token ----------------------------------------------------------------------------


async def test_an_expired_token_is_renewed_before_it_is_refused(depot: Depot) -> None:
    """Over a day of reads not one 401."""
    async with depot.running() as agent:
        for _ in range(24):
            await agent.read(car_of())
            depot.clock.pass_s(3600)

    assert depot.cloud.tokens.issued == 24
    assert [call.status for call in depot.cloud.calls.matching(kind="read")] == [200] * 24


async def test_a_revoked_token_costs_one_more_request(depot: Depot) -> None:
    """Renewed and repeated once."""
    async with depot.running() as agent:
        await agent.read(car_of())
        depot.clock.pass_s(300)
        depot.cloud.tokens.revoke_all()
        state = await agent.read(car_of())

    assert state.soc_percent is not None
    assert depot.cloud.tokens.issued == 2


async def test_a_wrong_secret_is_told_and_not_hammered(depot: Depot) -> None:
    """No request of a car is made or counted."""
    depot.cloud.tokens.secrets = {"another-secret"}
    async with depot.running() as agent:
        for _ in range(10):
            with pytest.raises(CloudFault, match="no application token"):
                await agent.read(car_of())
            depot.clock.pass_s(10)
        assert (await agent.budget("v-1")).used == 0
    assert len(depot.cloud.calls.matching(kind="token")) == 2
    assert depot.cloud.calls.matching(kind="read") == []


async def test_a_401_for_lack_of_permission_is_asked_twice_an_hour(depot: Depot) -> None:
    """However often the agent is asked, and through restarts."""
    depot.cloud.faults.add(CarFault(kind="error", name="AUTHENTICATION", count=None))
    async with SmartcarServer(depot.cloud) as server:
        for _ in range(12):
            async with depot.agent(server) as agent:
                for _ in range(5):
                    with pytest.raises(CloudFault):
                        await agent.read(car_of())
                    depot.clock.pass_s(60)
    calls = depot.cloud.calls.matching(vehicle="v-1")
    assert len(depot.cloud.calls.matching(path_contains="/signals")) == 2, calls


# --- budgets --------------------------------------------------------------------------


async def test_n7_a_restart_loop_stays_within_a_sessions_budget(depot: Depot) -> None:
    """25 restarts in as many minutes, each reading and commanding at once."""
    async with SmartcarServer(depot.cloud) as server:
        for _ in range(25):
            async with depot.agent(server) as agent:
                with suppress(CloudFault):
                    await agent.read(car_of(), session_id="S1")
                await agent.command(car_of(), STOP, session_id="S1")
            depot.clock.pass_s(60)

    limits = depot.cloud.limits
    assert 0 < depot.cloud.calls.reads("v-1") <= 5
    assert 0 < len(depot.cloud.calls.commands("v-1")) <= 2
    assert (limits.refused_vehicle, limits.refused_app, limits.refused_month) == (0, 0, 0)


async def test_a_month_of_greed_never_meets_the_clouds_own_limits(tmp_path: Path) -> None:
    """The agent stops by itself, keeps its reserve for commands, and begins anew."""
    depot = Depot(tmp_path, month_calls=60)
    depot.more = {"monthly_requests": 60, "command_reserve": 10}
    done = []
    async with SmartcarServer(depot.cloud) as server, depot.agent(server) as agent:
        for month in ("2026-11", "2026-12"):
            for hour in range(3 * 24):
                with suppress(BudgetSpent):
                    await agent.read(car_of(), session_id=f"S{month}{hour // 6}")
                depot.clock.pass_s(3600)
            assert depot.cloud.calls.reads("v-1", since=depot.month_began) == 50
            for percent in range(60, 72):
                outcome = await agent.command(car_of(), LIMIT, percent)
                done.append(outcome.code)
                depot.clock.pass_s(200)
            assert depot.cloud.limits.used("v-1", depot.clock.now()) == 60
            depot.clock.at = depot.month_began = datetime(2026, 12, 1, tzinfo=UTC)

    limits = depot.cloud.limits
    assert (limits.refused_vehicle, limits.refused_app, limits.refused_month) == (0, 0, 0)
    assert done == 2 * (10 * ["SUCCESS"] + 2 * ["BUDGET:MONTH"])


async def test_a_430_is_believed_over_our_own_counter(depot: Depot) -> None:
    """Another application used it up: one request a month more, not one a try."""
    depot.cloud.limits.use("v-1", NOW, 500)
    async with SmartcarServer(depot.cloud) as server:
        for _ in range(10):
            async with depot.agent(server) as agent:
                with pytest.raises(BudgetSpent):
                    await agent.read(car_of())
                outcome = await agent.command(car_of(), STOP)
                assert outcome.code in ("BUDGET:FLOOR", "BUDGET:MONTH")
            depot.clock.pass_s(3600)
    assert depot.cloud.limits.refused_month == 1


async def test_one_limiter_pauses_the_whole_fleet(tmp_path: Path) -> None:
    """The cloud's bucket is smaller than ours: after its 429 all cars wait."""
    depot = Depot(tmp_path, cars=20, app_tokens=8)
    async with depot.running() as agent:
        for _ in range(3):
            for number in range(1, 21):
                with suppress(CloudFault):
                    await agent.read(car_of(number))
        assert depot.cloud.limits.refused_app == 1
        read: set[int] = set()
        for _ in range(120):
            for number in range(1, 21):
                if number not in read:
                    with suppress(CloudFault):
                        await agent.read(car_of(number))
                        read.add(number)
            depot.clock.pass_s(30)
    assert len(read) == 20
    assert depot.cloud.limits.refused_app <= 3


async def test_retry_after_of_a_car_is_never_undercut(depot: Depot) -> None:
    """The stand-in measures it."""
    depot.cloud.faults.add(
        CarFault(kind="error", name="RATE_LIMIT:VEHICLE", retry_after_s=400)
    )
    async with SmartcarServer(depot.cloud) as server:
        for _ in range(23):
            async with depot.agent(server) as agent:
                with suppress(CloudFault):
                    await agent.read(car_of(), session_id="S1")
            depot.clock.pass_s(20)
    times = [call.time for call in depot.cloud.calls.matching(path_contains="/signals")]
    assert len(times) == 2
    assert times[1] - times[0] >= timedelta(seconds=400)


# --- reads ----------------------------------------------------------------------------


async def test_a_car_is_read_in_every_encoding_of_time(tmp_path: Path) -> None:
    """Percent, Wh and km, each with the vehicle's own time."""
    depot = Depot(tmp_path, cars=3)
    async with depot.running() as agent:
        for number, encoding in enumerate(("iso", "ms", "s"), start=1):
            depot.cloud.encoding = encoding  # type: ignore[assignment]
            state = await agent.read(car_of(number))
            assert state.soc_percent is not None
            assert state.soc_percent.value == pytest.approx(54)
            assert state.soc_percent.recorded_at == NOW
            assert state.capacity_wh is not None
            assert state.capacity_wh.value == 75_000
            assert state.limit_percent is not None
            assert state.limit_percent.value == 80
            assert state.is_plugged is not None
            assert state.is_plugged.value == 1.0
            assert (state.charging, state.vin) == (
                "CHARGING", f"WVWZZZAAZJD{number:06}",
            )  # fmt: skip
        known = await agent.known("v-1")
        assert known is not None
        assert known.vin == "WVWZZZAAZJD000001"


async def test_a_cached_value_under_an_error_comes_with_its_age(depot: Depot) -> None:
    """Hours old is seen as hours old."""
    depot.car.feed = "never"
    depot.clock.pass_s(6 * 3600)
    spoil(depot.car, "tractionbattery-stateofcharge", "cached-error")
    async with depot.running() as agent:
        state = await agent.read(car_of())
    soc = state.soc_percent
    assert soc is None or (soc.recorded_at is not None and soc.recorded_at <= NOW)


async def test_an_empty_store_is_told(tmp_path: Path) -> None:
    """200 with nothing in it: the webhook is missing."""
    depot = Depot(tmp_path, cars=0)
    depot.cloud.add(StandinCar(vehicle_id="v-1", user_id="u-1", vin="W" * 17, feed="never"))
    with structlog.testing.capture_logs() as logs:
        async with depot.running() as agent:
            assert await agent.read(car_of()) == CarState()
    assert "smartcar_store_found_empty" in [item["event"] for item in logs]


async def test_a_fleet_is_listed_whole(tmp_path: Path) -> None:
    """Pages of at most 100; no car's allowance is touched."""
    depot = Depot(tmp_path, cars=230)
    async with depot.running() as agent:
        found = await agent.connections()
    assert len({item.car.vehicle_id for item in found}) == 230
    assert all(item.car.vin for item in found)
    assert len(depot.cloud.calls.matching(kind="connection")) == 3
    assert depot.cloud.limits.used("v-1", NOW) == 0


async def test_links_to_elsewhere_are_not_followed(tmp_path: Path) -> None:
    """A fault, not half a fleet."""
    depot = Depot(tmp_path, cars=230)
    depot.cloud.links_origin = "https://elsewhere.invalid"
    async with depot.running() as agent:
        with pytest.raises(CloudFault, match="another host"):
            await agent.connections()


async def test_a_read_that_fails_is_made_once(depot: Depot) -> None:
    """Whatever the network does; the caller hears when to try again."""
    kinds = ("cut", "lost-answer", "truncated", "html", "bad-json", "redirect", "504")
    async with depot.running() as agent:
        await agent.connections()
        for number, kind in enumerate(kinds, start=1):
            depot.cloud.faults.add(CarFault(kind=kind, vehicle="v-1"))  # type: ignore[arg-type]
            with pytest.raises(CloudFault) as caught:
                await depot.while_time_passes(agent.read(car_of()))
            assert caught.value.retryable
            asked = depot.cloud.calls.matching(path_contains="/signals")
            assert len(asked) == 2 * number - 1, kind
            depot.clock.pass_s(caught.value.retry_after_s or 0)
            depot.clock.pass_s(120)
            assert (await agent.read(car_of())).soc_percent is not None
            depot.clock.pass_s(120)


# --- commands -------------------------------------------------------------------------


async def test_the_limit_is_set_and_read_back(depot: Depot) -> None:
    """Then stop and start, seen at the car."""
    async with depot.running() as agent:
        assert (await agent.command(car_of(), LIMIT, 90)).outcome is Outcome.DONE
        depot.clock.pass_s(300)
        state = await agent.read(car_of())
        assert state.limit_percent is not None
        assert state.limit_percent.value == 90
        for command, power_w in ((STOP, 0.0), (START, 11_000.0)):
            depot.clock.pass_s(200)
            assert (await agent.command(car_of(), command)).outcome is Outcome.DONE
            assert depot.car.body.power_w == power_w


async def test_start_and_stop_of_what_is_so_already_are_done(depot: Depot) -> None:
    """By the 409s."""
    async with depot.running() as agent:
        started = await agent.command(car_of(), START)
        depot.clock.pass_s(200)
        await agent.command(car_of(), STOP)
        depot.clock.pass_s(200)
        stopped = await agent.command(car_of(), STOP)
    assert (started.outcome, started.code) == (
        Outcome.DONE, "VEHICLE_STATE:CHARGING_IN_PROGRESS",
    )  # fmt: skip
    assert (stopped.outcome, stopped.code) == (Outcome.DONE, "VEHICLE_STATE:NOT_CHARGING")


ENDS: list[tuple[CarFault, Outcome, str | None]] = [
    (CarFault(kind="late", delay_s=250), Outcome.DONE, "SUCCESS"),
    (
        CarFault(kind="late-failure", name="VEHICLE_STATE:UNREACHABLE", delay_s=200),
        Outcome.REFUSED,
        "VEHICLE_STATE:UNREACHABLE",
    ),
    (CarFault(kind="late-cut", delay_s=100), Outcome.UNKNOWN, "NETWORK:NO_ANSWER"),
    (CarFault(kind="late-pending", delay_s=100), Outcome.UNKNOWN, "PENDING"),
    (
        CarFault(kind="failure", name="VEHICLE_STATE:CHARGE_FAULT"),
        Outcome.REFUSED,
        "VEHICLE_STATE:CHARGE_FAULT",
    ),
    (CarFault(kind="lost-answer"), Outcome.UNKNOWN, "NETWORK:NO_ANSWER"),
    (CarFault(kind="cut"), Outcome.UNKNOWN, "NETWORK:NO_ANSWER"),
    (CarFault(kind="truncated"), Outcome.UNKNOWN, "NETWORK:NO_ANSWER"),
    (CarFault(kind="504"), Outcome.UNKNOWN, None),
    (
        CarFault(kind="error", name="UPSTREAM:NO_RESPONSE"),
        Outcome.UNKNOWN,
        "UPSTREAM:NO_RESPONSE",
    ),
]


async def test_a_commands_end_is_followed_or_unknown(tmp_path: Path) -> None:
    """Streamed, cut, or never told; the stand-in saw one command of each car."""
    depot = Depot(tmp_path, cars=len(ENDS))
    async with depot.running() as agent:
        await agent.connections()
        for number, (fault, outcome, code) in enumerate(ENDS, start=1):
            fault.vehicle = f"v-{number}"
            depot.cloud.faults.add(fault)
            found = await depot.while_time_passes(agent.command(car_of(number), STOP))
            assert found.outcome is outcome, fault.kind
            assert code is None or found.code == code
            path = f"/vehicles/v-{number}/commands/charge/stop"
            assert len(depot.cloud.calls.matching(path_contains=path)) == 1


async def test_a_command_of_minutes_is_followed(depot: Depot) -> None:
    """202 after 175 s, the outcome in the body when it is known."""
    depot.car.command_s = 240
    async with depot.running() as agent:
        await agent.connections()
        found = await depot.while_time_passes(agent.command(car_of(), STOP))
    assert found.outcome is Outcome.DONE
    assert [call.status for call in depot.cloud.calls.commands("v-1")] == [202]


# --- v2.0 -----------------------------------------------------------------------------


async def test_v2_reads_and_commands_by_the_same_port(depot: Depot) -> None:
    """Fractions made percent; each path counts at the cloud as it does here."""
    depot.api = "v2"
    async with depot.running() as agent:
        state = await agent.read(car_of())
        assert state.soc_percent is not None
        assert state.soc_percent.value == pytest.approx(54)
        assert state.capacity_wh is not None
        assert state.capacity_wh.value == 75_000
        depot.clock.pass_s(200)
        assert (await agent.command(car_of(), LIMIT, 70)).outcome is Outcome.DONE
        depot.clock.pass_s(200)
        assert (await agent.command(car_of(), STOP)).outcome is Outcome.DONE
        assert [item.car.vehicle_id for item in await agent.connections()] == ["v-1"]
        used = (await agent.budget("v-1")).used
    assert depot.car.body.limit_percent == 70
    assert used == depot.cloud.limits.used("v-1", depot.clock.now()) == 6


async def test_v2_a_rotation_whose_answer_was_lost_strands_nobody(depot: Depot) -> None:
    """Lost again and again, through restarts within the grace; then a day of use."""
    depot.api = "v2"
    fault = CarFault(kind="lost-answer", path_contains="/oauth/token", count=7)
    depot.cloud.faults.add(fault)
    async with SmartcarServer(depot.cloud) as server:
        for _ in range(4):
            async with depot.agent(server) as agent:
                with suppress(CloudFault):
                    await agent.read(car_of())
            depot.clock.pass_s(120)
        async with depot.agent(server) as agent:
            for _ in range(8):
                depot.clock.pass_s(3 * 3600)
                assert (await agent.read(car_of())).soc_percent is not None
    assert depot.cloud.user_tokens.renewals >= 8
    stored = (depot.folder / "smartcar-tokens.json").stat()
    assert stored.st_mode & 0o777 == 0o600
    assert b"standin-refresh" not in (depot.folder / "agent.db").read_bytes()
    wal = depot.folder / "agent.db-wal"
    assert not wal.exists() or b"standin-refresh" not in wal.read_bytes()


# --- secrets --------------------------------------------------------------------------


async def test_no_secret_reaches_the_log_or_the_database(depot: Depot) -> None:
    """At debug level, over faults of every kind."""
    for name in ("AUTHENTICATION", "SERVER:INTERNAL"):
        depot.cloud.faults.add(CarFault(kind="error", name=name, vehicle="v-1"))
    depot.cloud.faults.add(CarFault(kind="html", vehicle="v-1"))
    errors: list[str] = []
    with structlog.testing.capture_logs() as logs:
        async with depot.running() as agent:
            for _ in range(4):
                try:
                    await agent.read(car_of())
                except CloudFault as error:
                    errors.append(f"{error!r} {error.__cause__!r}")
                depot.clock.pass_s(2000)
    told = f"{logs} {errors}".encode()
    for path in depot.folder.iterdir():
        told += path.read_bytes()
    assert errors
    assert b"standin-client-secret" not in told
    assert b"standin-app-token" not in told
