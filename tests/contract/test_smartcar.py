"""Smartcar both ways: the stand-in obeys the description, our clients take all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import orjson
import pytest

from agent.cloud.smartcar import Smartcar
from agent.cloud.smartcar_options import SmartcarOptions, SmartcarVehicle
from agent.cloud.smartcar_v2 import SmartcarV2
from agent.domain.budget import BudgetRules
from agent.domain.errors import CloudFault
from agent.ports import Car, CarCommand, CommandOutcome, Outcome
from agent.standin.clock import ManualClock
from agent.standin.smartcar import make_smartcar_app
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_state import (
    CLIENT_ID,
    CLIENT_SECRET,
    V2_CLIENT_ID,
    SmartcarStandin,
    Webhook,
)
from tests.contract.conformity import (
    Answers,
    Audit,
    Description,
    Hint,
    Maker,
    Operation,
    Requests,
)
from tests.support.smartcar_cloud import Dice, HandClock, MemoryStore, as_ids, as_store
from tests.unit.standin.smartcar_support import START, a_car, basic, plain

SMARTCAR = Description("smartcar-openapi.json")
SEED = 20261110
REQUESTS = 12
"""Requests per operation."""
ROUNDS = 30
"""Calls per method of a client."""
SECRET = "client-secret-QWX7"
FREE = LimitSet(app_tokens=None, vehicle_tokens=None, month_calls=None)
CAR = Car(vehicle_id="v-1", user_id="u-1", vin="")


def some(*values: Any) -> Hint:
    return lambda random: random.choice(values)


# --- our clients --------------------------------------------------------------------

ANSWERS: dict[str, Hint] = {
    "access_token": some("token"),
    "refresh_token": some("refresh"),
    "expires_in": some(3600, 7200, 0, -1),
    "next": some(None, "/v3/connections?page%5Bnumber%5D=2", "https://evil.test/x"),
    "percentRemaining": some(0.5, 0.0, 1.0),
    "code": some("tractionbattery-stateofcharge", "charge-chargelimits", 200, 200),
    "path": some("/battery", "/charge", "/charge/limit", "/vin", "/new"),
    "body": some({"percentRemaining": 0.5, "range": 100}, {"value": 54}, {"limit": 0.8}),
}
Call = Callable[[Any], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "connections": lambda cloud: cloud.connections(),
    "read": lambda cloud: cloud.read(CAR),
    "start": lambda cloud: cloud.command(CAR, CarCommand.START),
    "stop": lambda cloud: cloud.command(CAR, CarCommand.STOP),
    "set-limit": lambda cloud: cloud.command(CAR, CarCommand.SET_LIMIT, 80.0),
}


def client_of(api: str, folder: Path, answer: Any) -> Any:
    car = SmartcarVehicle(vin="", vehicle_id="v-1", user_id="u-1", refresh_token="first")
    options = SmartcarOptions(
        client_id="client-1",
        client_secret=SECRET,
        management_token="management",
        vehicles=(car,),
        rules=BudgetRules(floor_s=0.0),
    )
    parts = (options, as_store(MemoryStore()), HandClock(), as_ids(Dice()))
    transport = httpx.MockTransport(answer)
    if api == "v3":
        return Smartcar(*parts, transport=transport)
    return SmartcarV2(*parts, tokens=folder / "tokens.json", transport=transport)


async def endure(api: str, call: Call, folder: Path) -> set[str]:
    """Call many times a cloud that does all that is allowed; what it was asked."""
    asked: set[str] = set()
    good = 0
    for round_ in range(ROUNDS):
        seed = SEED + round_
        maker = Maker(SMARTCAR, Random(seed), rude=True, hints=ANSWERS)
        answers = Answers(SMARTCAR, maker)

        def answer(request: httpx.Request, answers: Answers = answers) -> httpx.Response:
            url, method = str(request.url), request.method
            assert urlsplit(url).netloc.endswith("smartcar.com"), f"a foreign host: {url}"
            operation = SMARTCAR.operation_of(method, urlsplit(url).path.rstrip("/"))
            if operation is None:  # where a link of the cloud's own led to
                return httpx.Response(404)
            asked.add(operation.name)
            status, headers, body = answers.to(method, url.replace("/?", "?"))
            return httpx.Response(status, headers=headers, content=body)

        cloud = client_of(api, folder / str(round_), answer)
        (folder / str(round_)).mkdir()
        try:
            found = await call(cloud)
        except CloudFault as fault:
            found = None
            words = str(fault)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        else:
            words = found.detail if isinstance(found, CommandOutcome) else "smartcar"
        finally:
            await cloud.close()
        assert found is not None or words.startswith("smartcar"), f"seed {seed}: {words}"
        assert SECRET not in words
        good += not isinstance(found, CommandOutcome) and found is not None
        good += isinstance(found, CommandOutcome) and found.outcome is Outcome.DONE
    assert good > 0, "no answer was of use: this shows little"
    return asked


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("api", ["v3", "v2"])
async def test_the_client_takes_every_answer_that_the_description_allows(
    api: str, name: str, tmp_path: Path
) -> None:
    asked = await endure(api, CALLS[name], tmp_path)

    assert asked - {"issueApplicationToken", "issueUserToken"}


async def test_a_client_that_relies_on_more_than_the_description_is_found(
    tmp_path: Path,
) -> None:
    async def careless(cloud: Smartcar) -> None:
        state = await cloud.read(CAR)
        assert state.soc_percent is not None
        state.soc_percent.value.as_integer_ratio()

    with pytest.raises(AssertionError, match="seed"):
        await endure("v3", careless, tmp_path)


# --- the stand-in ---------------------------------------------------------------------

REQUEST_HINTS: dict[str, Hint] = {
    "sc-user-id": some("u-1", "u-2"),
    "User-Agent": some("conformity/1"),
    "flags": some(None),
    "grant_type": some("client_credentials", "refresh_token"),
    "client_id": some(CLIENT_ID),
    "client_secret": some(CLIENT_SECRET),
    "filter[userId]": some("u-1", None),
    "filter[vehicleId]": some("v-1", None),
    "filter[vehicle.mode]": some("live", "simulated"),
    "filter[user.externalId]": some(None),
    "filter[webhookId]": some("w-1", None),
    "page[number]": some(1, 2, 9),
    "page[size]": some(1, 10, 100),
    "limit": some(1, 10),
    "offset": some(0, 1),
    "cursor": some(None),
    "user_id": some("u-1", None),
    "vehicle_id": some("v-1", None),
    "mode": some("live", None),
    "webhookId": some("w-1"),
    "userId": some("u-1"),
    "vehicleId": some("v-1"),
    "path": some("/battery", "/charge", "/charge/limit", "/vin", "/nothing"),
}
IDS = {
    "vehicleId": ["v-1"],
    "signalCode": ["tractionbattery-stateofcharge", "charge-chargelimits", "odometer"],
    "userId": ["u-3"],
    "webhookId": ["w-1"],
    "connectionId": ["c-1"],
    "subscriptionId": ["s-1"],
}
LINKS = ".links is not described"
"""JSON:API puts links wherever it likes."""
LAST = ("removeConnection", "removeUser", "v2Disconnect", "removeSubscription")
"""These take away what others need."""


def standin() -> SmartcarStandin:
    cloud = SmartcarStandin(ManualClock(START), limits=FREE)
    cloud.add(*(a_car(number) for number in range(1, 13)))
    cloud.webhooks["w-1"] = Webhook(id="w-1", callback_uri="https://example.test/hook")
    names = {"webhookId": "w-1", "userId": "u-2", "vehicleId": "v-2"}
    cloud.subscriptions["s-1"] = {"id": "s-1", "type": "subscription", "attributes": names}
    return cloud


def hints_of(cloud: SmartcarStandin) -> dict[str, Hint]:
    """With what only this cloud gives."""
    users = cloud.user_tokens
    return REQUEST_HINTS | {
        "refresh_token": lambda _: users.grant("u-2")["refresh_token"],
        "code": lambda _: users.code("u-2", "https://example.test/x"),
    }


def authorised(cloud: SmartcarStandin, operation: Operation, app: str) -> dict[str, str]:
    if operation.name == "issueUserToken":
        return basic(V2_CLIENT_ID, CLIENT_SECRET)
    if operation.name == "v2ListConnections":
        return basic("default", cloud.management_token)
    if operation.path.startswith("/v2.0/"):
        pair = cloud.user_tokens.grant("u-1")
        return {"authorization": f"Bearer {pair['access_token']}"}
    return {"authorization": f"Bearer {app}"}


async def findings(
    app: Any, cloud: SmartcarStandin, audit: Audit, *, only: str = ""
) -> list[str]:
    """Everything in the answers of a stand-in that the description does not allow."""
    car = cloud.cars["v-1"]
    maker = Maker(SMARTCAR, Random(SEED), rude=False, hints=hints_of(cloud))
    made = Requests(maker, ids(cloud))
    found: list[str] = []
    issued = cloud.tokens.issue(CLIENT_ID, CLIENT_SECRET)
    assert issued is not None
    token = str(issued["access_token"])
    ordered = sorted(
        SMARTCAR.operations.values(),
        key=lambda one: one.name in LAST,
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        for operation in ordered:
            if only not in operation.path:
                continue
            for number in range(REQUESTS):
                body = plain(car)  # as it was, so that every command can be taken
                body.is_stopped, body.limit_percent = number % 2 == 0, 80.0
                request = made.of(operation)
                headers = request.headers | authorised(cloud, operation, token)
                if number == 0 and {"401", "default"} & operation.responses.keys():
                    headers["authorization"] = "Bearer nobody"
                content = None
                if request.body is not None and "form" in operation.body_type:
                    content = urlencode(request.body).encode()
                elif request.body is not None:
                    content = orjson.dumps(request.body)
                if content is not None:
                    headers["content-type"] = operation.body_type
                answer = await http.request(
                    operation.method, request.target, content=content, headers=headers
                )
                kind = answer.headers.get("content-type", "")
                status = answer.status_code
                found += audit.problems(operation, status, kind, answer.content)
    return [text for text in found if not text.endswith(LINKS)]


def ids(cloud: SmartcarStandin) -> dict[str, list[str]]:
    """Ids of what there is, as far as the cloud made them itself."""
    return IDS | {"connectionId": [cloud.cars["v-9"].connection_id]}


async def test_the_stand_in_answers_only_what_the_description_allows() -> None:
    cloud, audit = standin(), Audit(SMARTCAR)
    found = await findings(make_smartcar_app(cloud), cloud, audit)

    assert not found, "\n".join(sorted(set(found))[:30])
    assert audit.seen.keys() == SMARTCAR.operations.keys()
    silent = [name for name, seen in audit.seen.items() if not {200, 202, 204} & seen]
    assert silent == []


@pytest.mark.parametrize(
    "change",
    [
        {"encoding": "ms"},
        {"encoding": "s"},
        {"encoding": "null"},
        {"lists_all_permissions": True, "tells_message": False, "connection_rows": 2},
    ],
)
async def test_every_variant_of_the_stand_in_keeps_to_the_description(
    change: dict[str, Any],
) -> None:
    cloud = standin()
    for name, value in change.items():
        setattr(cloud, name, value)
    found = await findings(make_smartcar_app(cloud), cloud, Audit(SMARTCAR))

    assert not found, "\n".join(sorted(set(found))[:30])


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("/oauth2/token", b'"expires_in":3600', b'"expires_in":"3600"'),
        ("/oauth2/token", b'"Bearer"', b'"bearer"'),
        ("/connections", b'"type":"connection"', b'"type":"Connection"'),
        ("/signals", b'"attributes":', b'"attribute":'),
        ("/charge/start", b'"data":', b'"datum":'),
        ("/battery", b'"percentRemaining":0.5', b'"percentRemaining":5'),
        ("/v3/", b'"errors":[', b'"error":['),
    ],
)
async def test_a_planted_deviation_is_found(part: str, old: bytes, new: bytes) -> None:
    cloud = standin()
    inner = make_smartcar_app(cloud)

    async def bent(scope: Any, receive: Any, send: Any) -> None:
        async def forward(message: Any) -> None:
            if part in scope["path"] and message["type"] == "http.response.body":
                message = {**message, "body": message["body"].replace(old, new)}
            if message["type"] == "http.response.start":
                headers = [h for h in message["headers"] if h[0] != b"content-length"]
                message = {**message, "headers": headers}
            await send(message)

        await inner(scope, receive, forward)

    good = standin()
    app = make_smartcar_app(good)
    assert not await findings(app, good, Audit(SMARTCAR), only=part)
    assert await findings(bent, cloud, Audit(SMARTCAR), only=part)
