"""Stand-in Smartcar: webhooks, subscriptions, and a sender that misbehaves to order."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest

from agent.standin.clock import RunningClock
from agent.standin.smartcar import SmartcarServer, make_smartcar_app
from agent.standin.smartcar_state import MANAGEMENT_TOKEN, SmartcarStandin, Webhook
from agent.standin.smartcar_webhooks import WebhookSender, signature

from .smartcar_support import SOC, START, a_car, a_cloud, code_of, driver, plain

URL = "https://relay.invalid/smartcar"


class Relay:
    """A receiver that checks what it gets, and answers with the next status in line."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.events: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.is_signed: list[bool] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        event = json.loads(request.content)
        self.events.append(event)
        self.headers.append(request.headers)
        signed = signature(MANAGEMENT_TOKEN, request.content)
        self.is_signed.append(request.headers.get("sc-signature") == signed)
        if event["eventType"] == "VERIFY":
            challenge = event["data"]["challenge"].encode()
            return httpx.Response(
                200, json={"challenge": signature(MANAGEMENT_TOKEN, challenge)}
            )
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0:
            raise httpx.ReadTimeout("no answer in time")
        return httpx.Response(status)

    @property
    def ids(self) -> list[str]:
        return [event["eventId"] for event in self.events]


def a_sender(cloud, relay):
    client = httpx.AsyncClient(transport=httpx.MockTransport(relay))
    sender = WebhookSender(cloud, client)
    webhook = Webhook(id="hook-1", callback_uri=URL, is_verified=True, auto_subscribe=True)
    cloud.webhooks[webhook.id] = webhook
    return sender, webhook


def fast_cloud(*cars):
    cloud = SmartcarStandin(RunningClock(START, speed=5000))
    cloud.add(*cars)
    return cloud


def test_signatures_are_those_of_the_known_vectors():
    key = "test-management-token"
    body = (
        b'{"eventId":"e-1","eventType":"VEHICLE_STATE","data":{"vehicle":{"id":"v-1"},'
        b'"signals":[]},"triggers":[],"meta":{"version":"4.0"}}'
    )
    assert signature(key, b"b31c0f6e-challenge") == (
        "59ecfb82a24571e67194a573f17ebc5bd2d7653171030a61545cdadee1e8ed0d"
    )
    assert signature(key, body) == (
        "3d0d0238db03613ce54f94836800e5afcf4eef9205685b2dab3fe3c265f7c787"
    )


async def test_verify_is_unsigned_and_proves_the_owner():
    cloud, _ = a_cloud(a_car())
    relay = Relay()
    sender, webhook = a_sender(cloud, relay)
    webhook.is_verified = False
    assert await sender.verify(webhook)
    assert "sc-signature" not in relay.headers[0]
    assert webhook.is_heard


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(204),
        httpx.Response(200, json={"challenge": "wrong"}),
        httpx.Response(200, text="hello", headers={"content-type": "application/json"}),
        httpx.Response(200, text="hello"),
    ],
)
async def test_a_receiver_that_cannot_prove_itself_is_not_verified(answer):
    cloud, _ = a_cloud(a_car())
    sender, webhook = a_sender(cloud, lambda _request: answer)
    assert not await sender.verify(webhook)
    assert not webhook.is_heard


async def test_a_report_is_told_first_and_then_when_a_trigger_changed():
    cloud, clock = a_cloud(a_car(body={"soc_percent": 54.9}))
    relay = Relay()
    sender, _ = a_sender(cloud, relay)
    car = cloud.cars["v-1"]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(sender.run())
        for count in (1, 2):
            clock.advance(600)
            cloud.settle()
            await _until(lambda count=count: len(relay.events) == count)
        plain(car).offered_w = 0.0
        clock.advance(1)
        cloud.settle()
        clock.advance(60)
        cloud.settle()
        await _until(lambda: len(relay.events) == 3)
        running.cancel()
    first, second, third = relay.events
    assert all(relay.is_signed)
    assert relay.headers[0]["user-agent"].startswith("Smartcar/")
    assert first["triggers"] == [{"type": "FIRST_DELIVERY"}]
    assert [row["signal"]["code"] for row in second["triggers"]] == [SOC]
    assert [row["signal"]["code"] for row in third["triggers"]] == ["charge-ischarging"]
    assert first["data"]["vehicle"]["id"] == "v-1"
    assert first["data"]["user"] == {"id": "u-1"}
    assert len(first["data"]["signals"]) == first["meta"]["signalCount"] == 4
    soc = next(row for row in second["data"]["signals"] if row["code"] == SOC)
    assert soc["body"]["value"] == 59.0
    assert isinstance(soc["meta"]["oemUpdatedAt"], int)


@pytest.mark.parametrize(
    "change",
    [{"is_enabled": False}, {"is_verified": False}, {"data": ()}, {"triggers": ()}],
)
async def test_a_webhook_that_lacks_something_is_silent(change):
    cloud, _ = a_cloud(a_car())
    sender, webhook = a_sender(cloud, Relay())
    for name, value in change.items():
        setattr(webhook, name, value)
    cloud.say_now(cloud.cars["v-1"])
    assert not sender._waiting


async def test_a_refused_delivery_is_repeated_with_the_same_event_for_three_minutes():
    cloud = fast_cloud(a_car())
    relay = Relay(500, 0, 302, 204)
    sender, webhook = a_sender(cloud, relay)
    event = sender.tell(webhook, cloud.cars["v-1"], [])
    assert await sender.deliver(webhook, event)
    assert len(set(relay.ids)) == 1
    assert len({each["meta"]["deliveryId"] for each in relay.events}) == 4
    assert [each.status for each in sender.deliveries] == [500, 0, 302, 204]
    times = [each.at for each in sender.deliveries]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert [gap >= wanted for gap, wanted in zip(gaps, (25, 50, 100), strict=True)] == [
        True
    ] * 3


async def test_after_four_attempts_a_payload_is_lost_for_good():
    cloud = fast_cloud(a_car())
    relay = Relay(500, 500, 500, 500, 204)
    sender, webhook = a_sender(cloud, relay)
    assert not await sender.deliver(webhook, sender.tell(webhook, cloud.cars["v-1"], []))
    assert len(relay.events) == 4


async def test_duplicates_and_bad_signatures_come_to_order():
    cloud, _ = a_cloud(a_car())
    relay = Relay()
    sender, webhook = a_sender(cloud, relay)
    sender.duplicates, sender.bad_signatures = 2, 1
    await sender.deliver(webhook, sender.tell(webhook, cloud.cars["v-1"], [SOC]))
    assert len(set(relay.ids)) == 1
    assert relay.is_signed == [False, True, True]


async def test_held_events_are_let_go_in_reverse():
    cloud, _ = a_cloud(a_car())
    relay = Relay()
    sender, webhook = a_sender(cloud, relay)
    sender.is_holding = True
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(sender.run())
        told = [
            sender.tell(webhook, cloud.cars["v-1"], [])["eventId"],
            sender.tell_error(webhook, cloud.cars["v-1"], "UPSTREAM:NO_RESPONSE")[
                "eventId"
            ],
        ]
        await asyncio.sleep(0)
        assert not relay.events
        sender.release(reverse=True)
        await _until(lambda: len(relay.events) == 2)
        running.cancel()
    assert relay.ids == told[::-1]
    (error,) = relay.events[0]["data"]["errors"]
    assert (error["type"], error["code"], error["state"]) == (
        "UPSTREAM",
        "NO_RESPONSE",
        "ERROR",
    )


async def test_management_shows_webhooks_and_takes_subscriptions_once():
    cloud, _ = a_cloud(a_car(1), a_car(2, mode="simulated"))
    cloud.webhooks["hook-1"] = Webhook(id="hook-1", callback_uri=URL, is_verified=True)
    wanted = {"webhookId": "hook-1", "userId": "u-1", "vehicleId": "v-1"}
    body = {"data": {"attributes": wanted}}
    async with driver(cloud) as http:
        (row,) = (await http.get("/v3/webhooks")).json()["data"]
        assert row["attributes"]["callbackUri"] == URL
        assert "isVerified" not in row["attributes"]
        assert (await http.get("/v3/webhooks/hook-1")).json()["data"] == row
        assert (await http.get("/v3/webhooks/hook-2")).status_code == 404
        assert (await http.post("/v3/subscriptions", json=body)).status_code == 202
        again = await http.post("/v3/subscriptions", json=body)
        assert again.status_code == 409
        for change in ({"userId": "u-2"}, {"webhookId": "hook-2"}, {"vehicleId": 7}):
            wrong = {"data": {"attributes": wanted | change}}
            refused = await http.post("/v3/subscriptions", json=wrong)
            assert code_of(refused) == "VALIDATION:PARAMETER"
        missing = await http.post("/v3/subscriptions", json={"data": {}})
        assert code_of(missing) == "VALIDATION:MISSING_PARAMETER"
        url = "/v3/subscriptions?filter[vehicleId]=v-1&filter[webhookId]=hook-1"
        (found,) = (await http.get(url)).json()["data"]
        assert found["attributes"] == wanted
        simulated = await http.get("/v3/subscriptions?filter[vehicle.mode]=simulated")
        assert simulated.json()["data"] == []
        own = f"/v3/subscriptions/{found['id']}"
        assert (await http.get(own)).json()["data"] == found
        assert (await http.delete(own)).status_code == 204
        assert (await http.get(own)).status_code == 404


async def test_a_subscription_feeds_one_car_and_ends_with_its_connection():
    cloud, _ = a_cloud(a_car(1), a_car(2))
    sender, webhook = a_sender(cloud, Relay())
    webhook.auto_subscribe = False
    wanted = {"webhookId": "hook-1", "userId": "u-1", "vehicleId": "v-1"}
    async with driver(cloud) as http:
        await http.post("/v3/subscriptions", json={"data": {"attributes": wanted}})
    for number in (1, 2):
        cloud.say_now(cloud.cars[f"v-{number}"])
    assert [event["data"]["vehicle"]["id"] for _, event in sender._waiting] == ["v-1"]
    cloud.remove_connection(cloud.cars["v-1"])
    assert not cloud.subscriptions


async def test_control_face_sets_up_a_webhook_and_sends_to_a_real_receiver():
    received: list[bytes] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(size)
        received.append(body)
        event = json.loads(body)
        told = event["data"].get("challenge", "").encode()
        text = json.dumps({"challenge": signature(MANAGEMENT_TOKEN, told)}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(text), text)
        )
        await writer.drain()
        writer.close()

    receiver = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = receiver.sockets[0].getsockname()[1]
    cloud = fast_cloud(a_car())
    async with receiver, SmartcarServer(cloud) as server, httpx.AsyncClient() as http:
        control = f"{server.root_url}/_control/smartcar"
        hook = {"id": "hook-1", "callback_uri": f"http://127.0.0.1:{port}/"}
        assert (await http.post(f"{control}/webhooks", json=hook)).json() == {
            "isVerified": True
        }
        event = {"webhook": "hook-1", "vehicle": "v-1", "changed": [SOC]}
        told = (await http.post(f"{control}/events", json=event)).json()
        await _until(lambda: len(received) == 2)
        error = {"webhook": "hook-1", "vehicle": "v-1", "error": "UPSTREAM:RATE_LIMIT"}
        assert (await http.post(f"{control}/events", json=error)).status_code == 200
        await _until(lambda: len(received) == 3)
        order = {"duplicates": 1, "badSignatures": 1, "hold": True, "release": "reverse"}
        await http.post(f"{control}/deliveries", json=order)
        rows = (await http.get(f"{control}/deliveries")).json()["deliveries"]
        for wrong in ({"webhook": "x"}, event | {"error": "NAP"}):
            assert (await http.post(f"{control}/events", json=wrong)).status_code == 400
        bad = await http.post(f"{control}/webhooks", json={"id": "x", "wings": 2})
        assert bad.status_code == 400
    assert json.loads(received[1])["eventId"] == told["eventId"]
    assert [row["status"] for row in rows] == [200, 200, 200]
    assert (server.sender.duplicates, server.sender.bad_signatures) == (1, 1)


def test_without_a_sender_the_control_face_has_no_webhooks():
    cloud, _ = a_cloud()
    paths = {getattr(route, "path", "") for route in make_smartcar_app(cloud).routes}
    assert "/_control/smartcar/ledger" in paths
    assert "/_control/smartcar/webhooks" not in paths


async def _until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
