"""The ChargEye client: token, paths, envelopes, and the exact bodies of what is owed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest

from agent.cloud.chargeye import ChargEye, past_segments
from agent.cloud.chargeye_api import PATHS, RENEW_BEFORE
from agent.cloud.http import CloudHttp
from agent.domain.effects import SessionReport, StartSocReport
from agent.domain.errors import CloudFault
from agent.domain.ids import ScheduleId, VehicleId
from agent.settings import PATHS_KNOWN
from agent.standin import server as standin_server
from agent.standin.clock import ManualClock
from agent.standin.faults import Fault
from agent.standin.fixtures import load_sample, mac_of
from agent.standin.server import StandinServer, make_app
from agent.standin.state import ChargEyeStandin

from .conftest import ACCESS, NOW, REFRESH, Cloud, HandClock, client_of

TOKEN_PATH = "GET /api/auth/refreshAccessToken"
NOW_S = int(NOW.timestamp())
BUS, SLOT = VehicleId("bus-1"), ScheduleId("sch-1")


def a_session_report(**changes: Any) -> SessionReport:
    fields: dict[str, Any] = {
        "vehicle_id": BUS,
        "schedule_id": SLOT,
        "slots": ((NOW_S, 12_500.0, 30.0, 42.0), (NOW_S + 900, 0.0, 42.0, None)),
        "first_at": NOW + timedelta(minutes=5),
        "last_at": NOW + timedelta(minutes=25),
        "charging_started_at": NOW + timedelta(minutes=5),
        "charging_ended_at": NOW + timedelta(minutes=25, milliseconds=7),
    }
    return SessionReport(**(fields | changes))


def start_soc(percent: float = 41.26) -> StartSocReport:
    return StartSocReport(vehicle_id=BUS, schedule_id=SLOT, soc_percent=percent)


# --- token --------------------------------------------------------------------------------


async def test_the_token_is_fetched_by_get_with_the_refresh_token_and_then_kept() -> None:
    """1.7: a GET, the refresh token as Bearer, one for all calls."""
    cloud = Cloud()
    async with client_of(cloud) as chargeye:
        for _ in range(3):
            await chargeye.vehicles()

    assert cloud.asked() == [TOKEN_PATH] + ["GET /api/vehicles"] * 3
    assert cloud.requests[0].headers["Authorization"] == f"Bearer {REFRESH}"
    assert {r.headers["Authorization"] for r in cloud.requests[1:]} == {f"Bearer {ACCESS}"}


async def test_the_token_is_renewed_shortly_before_it_ends() -> None:
    """2: when less than some minutes of validUntil remain."""
    cloud, clock = Cloud(), HandClock()
    async with client_of(cloud, clock=clock) as chargeye:
        await chargeye.vehicles()
        clock.at = (
            datetime.fromisoformat("2026-01-16T02:00:00Z")
            - RENEW_BEFORE
            - timedelta(seconds=1)
        )
        await chargeye.vehicles()
        assert cloud.asked().count(TOKEN_PATH) == 1
        clock.at += timedelta(seconds=2)
        await chargeye.vehicles()

    assert cloud.asked().count(TOKEN_PATH) == 2


@pytest.mark.parametrize(
    "until",
    [
        None,
        5,
        "",
        "soon",
        [],
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-01-16T02:00:00",
    ],
)
async def test_any_end_of_a_token_is_survived(until: Any) -> None:
    """A zero time is what some servers send for never."""
    cloud = Cloud(validUntil=until)
    async with client_of(cloud) as chargeye:
        for _ in range(2):
            await chargeye.vehicles()

    assert cloud.asked().count("GET /api/vehicles") == 2


async def test_the_other_spelling_of_the_token_is_tolerated() -> None:
    """2: a public client also accepts accessToken."""
    cloud = Cloud(token=None, accessToken="other")
    async with client_of(cloud) as chargeye:
        await chargeye.vehicles()

    assert cloud.requests[1].headers["Authorization"] == "Bearer other"


async def test_a_401_is_answered_by_one_renewal_and_one_repeat() -> None:
    """The token was revoked: a new one helps."""
    answers = iter([401, 200])
    cloud = Cloud(lambda _: httpx.Response(next(answers), json={"vehicles": []}))
    async with client_of(cloud) as chargeye:
        await chargeye.vehicles()

    assert cloud.asked() == [TOKEN_PATH, "GET /api/vehicles"] * 2


async def test_n4_a_second_401_is_reported_and_not_looped_on() -> None:
    """1.8, N4: 401 also means no permission."""
    cloud = Cloud(lambda _: httpx.Response(401))
    async with client_of(cloud) as chargeye:
        with pytest.raises(CloudFault, match="not permitted") as caught:
            await chargeye.vehicles()

    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 60.0)
    assert cloud.asked() == [TOKEN_PATH, "GET /api/vehicles"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, json={"message": "unknown"}),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"token": 5}),
        httpx.Response(200, json=[]),
        httpx.Response(200),
    ],
)
async def test_a_refresh_token_that_is_not_accepted_is_named(
    answer: httpx.Response,
) -> None:
    """With the remedy, at most once a minute, and without the token."""
    async with client_of(lambda _: answer) as chargeye:
        with pytest.raises(CloudFault, match="refresh token is not accepted") as caught:
            await chargeye.vehicles()

    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 60.0)


async def test_only_one_renewal_is_in_flight() -> None:
    """2: five calls that wait share one token."""
    cloud = Cloud()
    async with client_of(cloud) as chargeye, asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(chargeye.vehicles())

    assert cloud.asked().count(TOKEN_PATH) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401), httpx.Response(429), httpx.Response(400), httpx.Response(503),
        httpx.Response(200, content=b"<html>"), httpx.Response(302, headers={"Location": "/x"}),
        httpx.Response(200, json={"vehicles": {}}),
    ],
)  # fmt: skip
async def test_no_secret_stands_in_any_fault(answer: httpx.Response) -> None:
    """Faults go to the log."""
    async with client_of(Cloud(lambda _: answer)) as chargeye:
        with pytest.raises(CloudFault) as caught:
            await chargeye.vehicles()

    error: BaseException | None = caught.value
    while error is not None:
        assert REFRESH not in repr(error)
        assert ACCESS not in repr(error)
        error = error.__cause__ or error.__context__


# --- paths --------------------------------------------------------------------------------


async def test_paths_are_those_of_the_table_with_ids_quoted() -> None:
    """No id can lead to another path."""
    cloud = Cloud(lambda _: httpx.Response(200, json={"schedules": []}))
    async with client_of(cloud) as chargeye:
        await chargeye.schedules()
        await chargeye.active_schedule(VehicleId("a/../b c?x#"))
        report = StartSocReport(
            vehicle_id=VehicleId("ä/b"), schedule_id=SLOT, soc_percent=5.0
        )
        await chargeye.deliver(report, None)

    assert cloud.asked()[1:] == [
        "GET /api/locations/loc-1/schedules",
        "GET /api/vehicles/a%2F..%2Fb%20c%3Fx%23/schedules/active",
        "PATCH /api/vehicles/%C3%A4%2Fb/schedules",
    ]


async def test_every_path_can_be_overridden() -> None:
    """The inferred ones may be wrong; a missing slash is forgiven."""
    cloud = Cloud(lambda _: httpx.Response(200, json={"schedules": [], "vehicles": []}))
    paths = {"location_schedules": "v2/plans?at={locationUid}", "vehicles": "/v2/cars"}
    async with client_of(cloud, paths=paths) as chargeye:
        await chargeye.schedules()
        await chargeye.vehicles()

    assert cloud.asked()[1:] == ["GET /api/v2/plans?at=loc-1", "GET /api/v2/cars"]


def test_settings_and_stand_in_know_the_same_paths() -> None:
    """One table, three places."""
    assert set(PATHS) == set(PATHS_KNOWN)
    assert PATHS == standin_server.PATHS


# --- reading ------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [[], None, "x", {"vehicles": None}, {"schedules": {}}])
async def test_an_answer_of_another_shape_is_a_fault_that_passes(body: Any) -> None:
    """Never an empty registry, never an empty list of plans."""
    cloud = Cloud(lambda _: httpx.Response(200, content=orjson.dumps(body)))
    async with client_of(cloud) as chargeye:
        for read in (chargeye.vehicles, chargeye.schedules):
            with pytest.raises(CloudFault) as caught:
                await read()
            assert caught.value.retryable


async def test_the_active_schedule_is_read_under_the_vehicle_that_was_asked_for() -> None:
    """6.8: both parts may be missing."""
    row = {
        "id": "sch-1",
        "plannedArrivalTime": "2026-01-15T17:00:00Z",
        "plannedDepartureTime": "2026-01-16T05:00:00Z",
    }
    for body, found in (
        ({"currentOrNext": row}, ["bus-1"]),
        ({"previous": row}, []),
        ([], []),
    ):
        answer = httpx.Response(200, content=orjson.dumps(body))

        def answers(_: httpx.Request, answer: httpx.Response = answer) -> httpx.Response:
            return answer

        cloud = Cloud(answers)
        async with client_of(cloud) as chargeye:
            read = await chargeye.active_schedule(BUS)
        assert [schedule.vehicle_id for schedule, _ in read.schedules] == found


# --- delivering -----------------------------------------------------------------------------


async def delivered(report: Any, text: str | None, answer: Any = None) -> tuple[str, Any]:
    cloud = Cloud(
        lambda _: httpx.Response(200, content=orjson.dumps(answer or {"success": True}))
    )
    async with client_of(cloud) as chargeye:
        remark = await chargeye.deliver(report, text)
    (request,) = cloud.requests[1:]
    assert (request.method, request.url.path) == ("PATCH", "/api/vehicles/bus-1/schedules")
    return remark, orjson.loads(request.content)


async def test_the_arrival_soc_is_one_patch_of_one_field() -> None:
    """Contract section 6: startSoC in percent, spelled so; nothing else is touched."""
    remark, body = await delivered(start_soc(), None)

    assert remark == "taken"
    assert body == {"schedules": [{"id": "sch-1", "startSoC": 41.3}]}


async def test_a_session_is_the_plan_as_last_read_with_what_was_measured() -> None:
    """Contract section 6: pastSegments measured, schedule.tx times; the rest as it was."""
    plan = {
        "segments": [{"from": 1, "to": 2, "powerkW": 5, "tag": ["bulk"]}],
        "pastSegments": [{"from": 0, "to": 1}],
        "endSoc": 80,
        "futureField": {"x": [None]},
        "schedule": {"id": "sch-1", "priority": 3, "tx": {"chargingStartTime": "old"}},
    }
    text = orjson.dumps(
        {"id": "sch-1", "evId": "bus-1", "startSoC": 30, "plan": plan}
    ).decode()
    _, body = await delivered(a_session_report(), text)

    assert body == {
        "schedules": [
            {
                "id": "sch-1",
                "plan": {
                    "segments": plan["segments"],
                    "endSoc": 80,
                    "futureField": {"x": [None]},
                    "schedule": {
                        "id": "sch-1",
                        "priority": 3,
                        "tx": {
                            "chargingStartTime": "2026-01-15T18:05:00.000Z",
                            "chargingEndTime": "2026-01-15T18:25:00.007Z",
                        },
                    },
                    "pastSegments": [
                        {
                            "from": (NOW_S + 300) * 1000,
                            "to": (NOW_S + 900) * 1000,
                            "durationMs": 600_000,
                            "powerkW": 75.0,
                            "energykWh": 12.5,
                            "paused": False,
                            "powerUnlimited": False,
                            "startSoc": 30.0,
                            "endSoc": 42.0,
                        },
                        {
                            "from": (NOW_S + 900) * 1000,
                            "to": (NOW_S + 1500) * 1000,
                            "durationMs": 600_000,
                            "powerkW": 0.0,
                            "energykWh": 0.0,
                            "paused": True,
                            "powerUnlimited": False,
                            "startSoc": 42.0,
                        },
                    ],
                },
            }
        ]
    }


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"plan": null}', '{"plan": {"schedule": 5}}']
)
async def test_a_session_whose_plan_was_never_read_is_still_reported(
    text: str | None,
) -> None:
    """What was measured does not depend on what was planned."""
    _, body = await delivered(a_session_report(charging_ended_at=None), text)
    (row,) = body["schedules"]

    assert row["plan"]["schedule"] == {
        "id": "sch-1",
        "tx": {"chargingStartTime": "2026-01-15T18:05:00.000Z"},
    }
    assert len(row["plan"]["pastSegments"]) == 2


def test_measured_segments_have_no_gap_and_no_overlap_and_keep_the_energy() -> None:
    """Whatever the quarter hours were."""
    slots = tuple((NOW_S + 900 * n, 1000.0 * n, None, None) for n in range(8))
    found = past_segments(
        a_session_report(slots=slots, last_at=NOW + timedelta(minutes=115))
    )

    assert all(one["to"] == other["from"] for one, other in pairwise(found))
    assert sum(item["energykWh"] for item in found) == pytest.approx(28.0)
    assert found[-1]["to"] == (NOW_S + 115 * 60) * 1000


def test_energy_at_the_very_edge_is_not_lost_and_empty_slots_are() -> None:
    """A sample of one instant has no span."""
    slots = ((NOW_S, 0.0, None, None), (NOW_S + 900, 500.0, None, None))
    at = NOW + timedelta(minutes=15)
    (only,) = past_segments(a_session_report(slots=slots, first_at=at, last_at=at))

    assert (only["durationMs"], only["energykWh"]) == (1000, 0.5)


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        ({"success": True, "skippedScheduleIds": []}, "taken"),
        ({"success": True, "skippedScheduleIds": ["other"]}, "taken"),
        ({"success": True, "skippedScheduleIds": ["sch-1"]}, "skipped by ChargEye"),
        ({"success": False, "skippedScheduleIds": ["sch-1"]}, "skipped by ChargEye"),
        ({"skippedScheduleIds": "sch-1"}, "taken"),
        ([], "taken"),
    ],
)
async def test_a_skipped_schedule_is_told_and_is_not_an_error(
    answer: Any, remark: str
) -> None:
    """6.7: a refused item is reported in the list, not by the status."""
    assert (await delivered(start_soc(), None, answer or {"a": 1}))[0] == remark


async def test_a_refused_patch_is_a_fault_that_no_repeat_helps() -> None:
    """success: false."""
    with pytest.raises(CloudFault, match="too bad") as caught:
        await delivered(
            start_soc(), None, {"success": False, "message": "too bad" + "x" * 500}
        )

    assert not caught.value.retryable
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (400, False), (503, True), (429, True)]
)
async def test_a_patch_fails_for_good_only_where_a_repeat_cannot_help(
    status: int, *, retryable: bool
) -> None:
    """404: the vehicle is gone."""
    async with client_of(Cloud(lambda _: httpx.Response(status))) as chargeye:
        with pytest.raises(CloudFault) as caught:
            await chargeye.deliver(start_soc(), None)

    assert caught.value.retryable == retryable


# --- against the stand-in -------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def cloud(clock: ManualClock) -> ChargEyeStandin:
    made = ChargEyeStandin(clock, site_cap_kw=300.0, refresh_token=REFRESH)
    load_sample(made)
    return made


def standin(cloud: ChargEyeStandin) -> httpx.ASGITransport:
    return httpx.ASGITransport(app=make_app(cloud))


async def test_the_sample_depot_is_read_in_all_its_shapes(
    cloud: ChargEyeStandin, clock: ManualClock
) -> None:
    """Three shapes of location, ports and the deprecated field, nulls, unknown keys."""
    async with client_of(standin(cloud), clock=HandClock(clock.now())) as chargeye:
        read = await chargeye.vehicles()
    vehicles = {vehicle.vehicle_id: vehicle for vehicle, _ in read.vehicles}

    def bare(number: int) -> str:
        return mac_of(number).replace(":", "")

    assert list(vehicles) == [f"bus-{n}" for n in range(1, 7)]
    assert not read.problems
    assert vehicles[VehicleId("bus-1")].macs == {bare(1)}
    assert vehicles[VehicleId("bus-2")].fallback_mac == bare(2)
    assert vehicles[VehicleId("bus-2")].vin == "VIN" + "BUS-2".rjust(14, "0")
    assert vehicles[VehicleId("bus-3")].macs == frozenset()
    assert vehicles[VehicleId("bus-3")].fallback_mac == bare(3)
    assert len(vehicles[VehicleId("bus-3")].locations) == 2
    assert vehicles[VehicleId("bus-4")].macs == {bare(4)}
    assert vehicles[VehicleId("bus-5")].locations == set()
    assert vehicles[VehicleId("bus-6")].max_w is None


async def test_plans_of_the_stand_in_are_read_and_keep_their_mark_while_time_passes(
    cloud: ChargEyeStandin, clock: ManualClock
) -> None:
    """A new mark after a new plan, and only then."""
    location = next(iter(cloud.locations))
    async with client_of(standin(cloud), clock=HandClock(clock.now())) as chargeye:
        chargeye._location_uid = location

        async def marks() -> dict[str, str]:
            read = await chargeye.schedules()
            assert not read.refused
            assert not read.problems
            return {s.schedule_id: s.fingerprint for s, _ in read.schedules}

        first = await marks()
        for _ in range(6):
            clock.advance(601)
            assert await marks() == first
        changed = set(cloud.replan("bus-1"))
        after = await marks()

    assert len(first) == 8
    assert changed
    assert {key for key, mark in after.items() if mark != first[key]} == changed


async def test_reports_arrive_at_the_stand_in_as_the_contract_says(
    cloud: ChargEyeStandin, clock: ManualClock
) -> None:
    """And no schedule is ever posted or deleted."""
    slot = next(e for e in cloud.book.entries.values() if e.row["evId"] == "bus-1")
    before = set(cloud.book.entries)
    text = orjson.dumps(slot.row).decode()
    async with client_of(standin(cloud), clock=HandClock(clock.now())) as chargeye:
        soc = StartSocReport(
            vehicle_id=BUS, schedule_id=ScheduleId(slot.id), soc_percent=44.0
        )
        assert await chargeye.deliver(soc, text) == "taken"
        report = a_session_report(schedule_id=ScheduleId(slot.id))
        assert await chargeye.deliver(report, text) == "taken"
        gone = a_session_report(schedule_id=ScheduleId("gone"))
        assert await chargeye.deliver(gone, None) == "skipped by ChargEye"
    row = cloud.book.entries[slot.id].row

    assert row["startSoC"] == 44.0
    assert row["plan"]["pastSegments"][0]["energykWh"] == 12.5
    assert row["plan"]["schedule"]["tx"]["chargingStartTime"] == "2026-01-15T18:05:00.000Z"
    assert set(cloud.book.entries) == before
    assert {record.method for record in cloud.requests} == {"GET", "PATCH"}


async def test_n4_a_revoked_token_is_renewed_and_a_missing_right_is_reported(
    cloud: ChargEyeStandin, clock: ManualClock
) -> None:
    """The stand-in answers 401 to both."""
    hand = HandClock(clock.now())
    async with client_of(standin(cloud), clock=hand) as chargeye:
        await chargeye.vehicles()
        cloud.tokens.revoke_all()
        await chargeye.vehicles()
    refresh = cloud.tokens.no_permission_token
    async with client_of(standin(cloud), refresh=refresh, clock=hand) as chargeye:
        with pytest.raises(CloudFault, match="not permitted"):
            await chargeye.vehicles()


@pytest.mark.parametrize(
    ("kind", "retry_after_s"),
    [
        ("503", 7.0), ("429", 7.0), ("cut", None), ("lost-answer", None), ("truncated", None),
        ("html", None), ("bad-json", None), ("redirect", None),
    ],
)  # fmt: skip
async def test_n2_every_fault_of_the_stand_in_passes_and_the_next_call_works(
    cloud: ChargEyeStandin, clock: ManualClock, kind: Any, retry_after_s: float | None
) -> None:
    """N2 over a real socket."""
    async with StandinServer(cloud) as server:
        http = CloudHttp("chargeye", server.base_url)
        chargeye = ChargEye(
            http, REFRESH, location_uid="loc-1", clock=HandClock(clock.now())
        )
        await chargeye.vehicles()
        retry = None if retry_after_s is None else int(retry_after_s)
        cloud.faults.add(Fault(kind=kind, path_contains="/vehicles", retry_after_s=retry))
        with pytest.raises(CloudFault) as caught:
            await chargeye.vehicles()
        assert (caught.value.retryable, caught.value.retry_after_s) == (True, retry_after_s)
        assert (await chargeye.vehicles()).vehicles
        await http.close()
