"""ChargEye both ways: the stand-in obeys the description, our client takes all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
import pytest

from agent.cloud.chargeye import ChargEye
from agent.cloud.chargeye_ops import ChargEyeOps
from agent.cloud.http import CloudHttp
from agent.domain.effects import SessionReport, StartSocReport
from agent.domain.errors import CloudFault
from agent.domain.ids import ScheduleId, VehicleId
from agent.standin.clock import ManualClock
from agent.standin.fixtures import LOCATION_UID, mac_of, schedule_json, vehicle_json
from agent.standin.server import make_app
from agent.standin.state import ChargEyeStandin
from tests.contract.conformity import Answers, Audit, Description, Hint, Maker, Requests
from tests.unit.cloud.conftest import HandClock

CHARGEYE = Description("chargeye-openapi.json")
NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
SEED = 20260115
REQUESTS = 16
"""Requests per operation."""
BROKEN = range(1, 4)
"""These requests carry a body that is no JSON."""
ROUNDS = 25
"""Calls per method of the client."""
BUSES = ["bus-1", "bus-2", "bus-3"]
LATER = [f"{NOW + timedelta(hours=h):%Y-%m-%dT%H:%M:%S.000Z}" for h in range(1, 40, 7)]


def some(*values: Any) -> Hint:
    return lambda random: random.choice(values)


HINTS: dict[str, Hint] = {
    "plannedArrivalTime": some("2026-01-15T17:00:00.000Z", "2026-01-15T20:00:00+02:00"),
    "plannedDepartureTime": some(*LATER),
    "locationUid": some(LOCATION_UID),
    "startDate": some("2026-01-10", "2026-01-15T00:00:00.000Z"),
    "endDate": some("2026-01-15", "2026-01-16T00:00:00.000Z"),
    "exclusiveStartKey": some(None),  # only what a page before gave: see the next test
    "stationIds": some(["CP-1"], ["CP-1", "nowhere"]),
    "macAddress": some(mac_of(9)),
    "id": some("slot-1", "slot-2"),
    "from": some(1_768_500_000_000),
    "to": some(1_768_510_000_000),
    "timestamp": some("2026-01-15T18:00:00.000Z"),
}
"""What a request would really hold; without it all would be refused at once."""


def filled() -> ChargEyeStandin:
    """A stand-in with rows that the description allows, plans and a little of all."""
    cloud = ChargEyeStandin(ManualClock(NOW), site_cap_kw=300, refresh_token="refresh")
    maker = Maker(CHARGEYE, Random(SEED), rude=False)
    schemas = CHARGEYE.document["components"]["schemas"]
    times = [f"{NOW - timedelta(hours=h):%Y-%m-%dT%H:%M:%S.000Z}" for h in range(12)]
    cloud.load(
        vehicles=[
            vehicle_json(name, {"vin": f"VIN-{name}"}, macs=[mac_of(n)])
            for n, name in enumerate(BUSES)
        ],
        schedules=[
            schedule_json(
                name,
                NOW - timedelta(hours=1),
                NOW + timedelta(hours=8 + n),
                {"id": f"slot-{n + 1}"},
            )
            for n, name in enumerate(BUSES)
        ]
        + [schedule_json("bus-1", NOW - timedelta(days=1), NOW - timedelta(hours=9))]
        + [schedule_json("bus-2", NOW, LATER_AT, {"recurrenceRule": "FREQ=DAILY"})],
        locations=[{**maker.value(schemas["Location"]), "id": LOCATION_UID}],
        stations=[
            {**maker.value(schemas["Station"]), "stationId": "CP-1", "connectors": []},
            {
                "stationId": "CP-2",
                "locationUid": LOCATION_UID,
                "connectors": [maker.value(schemas["Connector"]) for _ in range(3)],
            },
        ],
        transactions=[
            {
                **maker.value(schemas["TransactionBase"]),
                "txId": f"tx-{n}",
                "stationId": "CP-1",
                "startTime": at,
            }
            for n, at in enumerate(times)
        ],
    )
    return cloud


LATER_AT = NOW + timedelta(hours=8)
IDS = {
    "locationUid": [LOCATION_UID],
    "vehicleId": BUSES,
    "stationId": ["CP-1", "CP-2"],
    "txId": ["tx-0", "tx-11"],
}


async def findings(
    app: Any, cloud: ChargEyeStandin, audit: Audit, *, only: str = ""
) -> list[str]:
    """Everything in the answers of a stand-in that the description does not allow."""
    made = Requests(Maker(CHARGEYE, Random(SEED), rude=False, hints=HINTS), IDS)
    found: list[str] = []
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t/api") as http:
        issued = cloud.tokens.exchange("refresh")
        assert issued is not None
        reads = [one for one in CHARGEYE.operations.values() if one.method == "get"]
        writes = [one for one in CHARGEYE.operations.values() if one.method != "get"]
        for operation in [*reads, *writes, *reads]:
            if only not in operation.path:
                continue
            for number in range(REQUESTS):
                request = made.of(operation)
                is_token = operation.name == "refreshAccessToken"
                bearer = "refresh" if is_token else issued["token"]
                if number == 0:
                    bearer = "nobody"
                content = None if request.body is None else orjson.dumps(request.body)
                if content is not None and number in BROKEN:
                    content = b'{"schedules": ['  # not allowed: the answer still is
                answer = await http.request(
                    operation.method,
                    request.target,
                    content=content,
                    headers={"Authorization": f"Bearer {bearer}"},
                )
                kind = answer.headers.get("content-type", "")
                status = answer.status_code
                found += audit.problems(operation, status, kind, answer.content)
    return found


async def test_the_stand_in_answers_only_what_the_description_allows() -> None:
    cloud, audit = filled(), Audit(CHARGEYE)
    found = await findings(make_app(cloud), cloud, audit)

    assert not found, "\n".join(sorted(set(found))[:20])
    assert audit.seen.keys() == CHARGEYE.operations.keys()
    assert all({200, 401} <= seen for seen in audit.seen.values()), audit.seen
    described = {
        name: {int(status) for status in item.responses}
        for name, item in CHARGEYE.operations.items()
    }
    never = {name: described[name] - audit.seen[name] for name in described}
    assert not {name: left for name, left in never.items() if left}


async def test_pages_are_followed_to_their_end_and_each_is_as_described() -> None:
    cloud, audit = filled(), Audit(CHARGEYE)
    issued = cloud.tokens.exchange("refresh")
    assert issued is not None
    headers = {"Authorization": f"Bearer {issued['token']}"}
    operation = CHARGEYE.operations["getTransactions2"]
    rows: list[str] = []
    query: dict[str, str] = {}
    transport = httpx.ASGITransport(app=make_app(cloud))
    async with httpx.AsyncClient(transport=transport, base_url="http://t/api") as http:
        for _ in range(10):
            answer = await http.get("/transactions", params=query, headers=headers)
            kind = answer.headers["content-type"]
            assert not audit.problems(operation, 200, kind, answer.content)
            rows += [row["txId"] for row in answer.json()["transactions"]]
            key = answer.json().get("lastEvaluatedKey")
            if key is None:
                break
            query = {"exclusiveStartKey": orjson.dumps(key).decode()}

    assert sorted(rows) == sorted(f"tx-{number}" for number in range(12))


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("/vehicles", b'"vehicle":{', b'"bus":{'),
        ("/schedules", b'"recurringSchedules"', b'"recurring"'),
        ("/schedules", b'"targetSoC"', b'"targetSOC"'),
        ("/schedules", b'"startSoC":30.0', b'"startSoC":"30"'),
        ("/schedules", b'"targetSoC":80.0', b'"targetSoC":800'),
        ("/refreshAccessToken", b'"validUntil":"2026', b'"validUntil":"soon 2026'),
        ("/stations", b'"connectors":[', b'"connectors":0,"x":['),
        ("/active", b'"currentOrNext"', b'"current"'),
    ],
)
async def test_a_planted_deviation_is_found(part: str, old: bytes, new: bytes) -> None:
    cloud = filled()
    inner = make_app(cloud)

    async def bent(scope: Any, receive: Any, send: Any) -> None:
        async def forward(message: Any) -> None:
            if part in scope["path"] and message["type"] == "http.response.body":
                body = message["body"].replace(old, new)
                message = {**message, "body": body}
            if message["type"] == "http.response.start":
                headers = [h for h in message["headers"] if h[0] != b"content-length"]
                message = {**message, "headers": headers}
            await send(message)

        await inner(scope, receive, forward)

    assert await findings(bent, cloud, Audit(CHARGEYE), only=part)


async def test_an_undescribed_status_and_a_page_of_html_are_found() -> None:
    audit = Audit(CHARGEYE)
    operation = CHARGEYE.operations["listVehicles"]

    assert audit.problems(operation, 500, "application/json", b"{}")
    assert audit.problems(operation, 200, "text/html", b"<html>")
    assert audit.problems(operation, 200, "application/json", b"<html>")
    assert not audit.problems(operation, 200, "application/json", b'{"vehicles": []}')


SESSION = SessionReport(
    vehicle_id=VehicleId("bus-1"),
    schedule_id=ScheduleId("slot-1"),
    slots=((1_768_500_000, 900.0, 40.0, 41.0),),
    first_at=NOW,
    last_at=NOW + timedelta(hours=1),
    charging_started_at=NOW,
    charging_ended_at=NOW + timedelta(hours=1),
)
START_SOC = StartSocReport(
    vehicle_id=VehicleId("bus-1"), schedule_id=ScheduleId("slot-1"), soc_percent=41.0
)
ROW = {"plannedArrivalTime": "2026-01-15T17:00:00Z", "plannedDepartureTime": LATER[0]}
Call = Callable[[ChargEye, ChargEyeOps], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "fleet.vehicles": lambda fleet, _: fleet.vehicles(),
    "fleet.schedules": lambda fleet, _: fleet.schedules(),
    "fleet.active_schedule": lambda fleet, _: fleet.active_schedule(VehicleId("bus-1")),
    "fleet.start_soc": lambda fleet, _: fleet.deliver(START_SOC, None),
    "vehicles": lambda _, ops: ops.vehicles(LOCATION_UID),
    "vehicle": lambda _, ops: ops.vehicle("bus-1"),
    "put_vehicle": lambda _, ops: ops.put_vehicle("bus-1", {"name": "x"}),
    "patch_vehicle": lambda _, ops: ops.patch_vehicle("bus-1", {"name": "x"}),
    "location_schedules": lambda _, ops: ops.location_schedules(
        LOCATION_UID, NOW, LATER_AT
    ),
    "vehicle_schedules": lambda _, ops: ops.vehicle_schedules("bus-1", NOW, LATER_AT),
    "active_schedule": lambda _, ops: ops.active_schedule("bus-1"),
    "post_schedules": lambda _, ops: ops.post_schedules("bus-1", [ROW], replace=True),
    "patch_schedules": lambda _, ops: ops.patch_schedules("bus-1", [{"id": "slot-1"}]),
    "locations": lambda _, ops: ops.locations(),
    "location": lambda _, ops: ops.location(LOCATION_UID),
    "stations": lambda _, ops: ops.stations(LOCATION_UID),
    "sessions": lambda _, ops: ops.sessions("CP-1", since=NOW, until=LATER_AT),
    "all_sessions": lambda _, ops: ops.sessions(),
    "session": lambda _, ops: ops.session("tx-1"),
}


async def called(call: Call, answers: Answers) -> str:
    """Make a call; the words of the fault that it ended with."""

    def answer(request: httpx.Request) -> httpx.Response:
        status, headers, body = answers.to(request.method, str(request.url))
        return httpx.Response(status, headers=headers, content=body)

    http = CloudHttp("chargeye", "http://c.test", transport=httpx.MockTransport(answer))
    try:
        fleet = ChargEye(http, "refresh", location_uid=LOCATION_UID, clock=HandClock())
        await call(fleet, ChargEyeOps(fleet.api))
    except CloudFault as fault:
        return str(fault)
    finally:
        await http.close()
    return "chargeye: nothing was wrong"


@pytest.mark.parametrize("name", CALLS)
async def test_the_client_takes_every_answer_that_the_description_allows(
    name: str,
) -> None:
    await endure(CALLS[name])


async def endure(call: Call) -> None:
    """Make a call many times against a cloud that does all that is allowed."""
    for round_ in range(ROUNDS):
        seed = SEED + round_
        maker = Maker(CHARGEYE, Random(seed), rude=True, hints=CLOUD_HINTS)
        answers = Answers(CHARGEYE, maker)
        try:
            words = await called(call, answers)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert words.startswith("chargeye: "), f"seed {seed}: {words}"


@pytest.mark.parametrize(
    "use",
    [
        lambda body: body["vehicles"][0]["vehicle"]["name"].upper(),
        lambda body: [row["vehicle"]["chargingPorts"][0] for row in body["vehicles"]],
        lambda body: [len(row["v2icp"]["vin"]) for row in body["vehicles"]],
        lambda body: [float(r["vehicle"]["minChargePowerkW"]) for r in body["vehicles"]],
    ],
)
async def test_a_client_that_relies_on_more_than_the_description_is_found(
    use: Callable[[Any], Any],
) -> None:
    async def careless(_: ChargEye, ops: ChargEyeOps) -> None:
        use(await ops.vehicles())

    with pytest.raises(AssertionError, match="seed"):
        await endure(careless)


CLOUD_HINTS: dict[str, Hint] = {
    "plannedArrivalTime": some("2026-01-15T17:00:00.000Z", "soon"),
    "plannedDepartureTime": some(*LATER),
    "validUntil": some("2026-01-16T02:00:00.000Z"),
    "token": some("jwt"),
    "locationUid": some(LOCATION_UID, [LOCATION_UID], None),
    "from": some(1_768_500_000_000, 1_768_500_000),
    "to": some(1_768_510_000_000, 1_768_490_000_000),
    "powerkW": some(0, 43.21, -1, 1e9),
}


@pytest.mark.parametrize("report", [START_SOC, SESSION])
async def test_reports_are_requests_that_the_description_allows(report: Any) -> None:
    """What we send is held against the description too."""
    sent: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else None
        sent.append((request.method, request.url.path, body))
        token = {"token": "t", "validUntil": "2026-01-16T02:00:00.000Z", "success": True}
        return httpx.Response(200, json=token)

    http = CloudHttp("chargeye", "http://c.test", transport=httpx.MockTransport(answer))
    fleet = ChargEye(http, "refresh", location_uid=LOCATION_UID, clock=HandClock())
    await fleet.deliver(report, None)
    await http.close()
    method, path, body = sent[-1]
    operation = CHARGEYE.operation_of(method, path)

    assert operation is not None
    assert operation.name == "patchVehicleSchedules"
    assert operation.body is not None
    assert not CHARGEYE.problems(operation.body, body)
    assert not CHARGEYE.unknown(operation.body, body)


def test_the_descriptions_are_the_project_s_own_files() -> None:
    names = sorted(path.name for path in Path(__file__).parent.glob("*.json"))

    assert names == ["chargeye-openapi.json", "smartcar-openapi.json"]
