"""What is owed is delivered: in order, once in effect, with patience, and never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.cloud.webhook import Webhook
from agent.control import outbox
from agent.control.health import CloudHealth
from agent.control.letters import Letters
from agent.control.operations import Operations
from agent.control.outbox import Drainer
from agent.domain.effects import BillingReport, OutboxAdded
from agent.domain.errors import CloudFault
from agent.domain.ids import (
    AccountId,
    ConnectorId,
    EvseId,
    SessionId,
    StationId,
    VehicleId,
)
from agent.host.clock import RandomIds
from agent.ports import OutboxRow
from agent.store.sqlite import SqliteStore
from tests.support.webhook_server import DROP, LOSE, OK, billing_server
from tests.unit.cloud.conftest import NOW, HandClock

TOKEN = "webhook-secret-QWX7"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "agent.db")
    store.start()
    yield store
    await store.stop()


def a_bill(session: str, *, corrects: str | None = None) -> BillingReport:
    return BillingReport(
        session_id=SessionId(session),
        corrects=SessionId(corrects) if corrects else None,
        station_id=StationId("CP-01"),
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        ocpp_version="ocpp1.6",
        vehicle_id=VehicleId("bus-1"),
        vin="WEB62800000000001",
        mac=None,
        id_token="",
        account_id=AccountId("acme"),
        account_at=NOW,
        energy_wh=10_000.0,
        meter_begin_wh=0.0,
        meter_end_wh=10_000.0,
        is_estimated=False,
        soc_start=20.0,
        soc_end=30.0,
        soc_source="station",
        plugged_at=NOW,
        started_at=NOW,
        charging_ended_at=NOW,
        ended_at=NOW,
        stop_reason="Local",
    )


async def owe(store: SqliteStore, *keys: str) -> None:
    """Owe bills; the key ``S1-2`` is the correction of ``S1``."""
    rows = []
    for key in keys:
        session, _, number = key.partition("-")
        report = a_bill(session, corrects=session if number else None)
        rows.append(
            OutboxAdded(
                destination="billing",
                key=key,
                session_id=SessionId(session),
                report=report,
            )
        )
    await store.commit(rows, NOW)


class Desk:
    """A drainer that is driven by hand, with the clock that it lives by."""

    def __init__(self, store: SqliteStore, deliverer: Any) -> None:
        self.clock = HandClock()
        self.health = CloudHealth("billing", self.clock)
        self.drainer = Drainer(
            "billing", store, deliverer, self.clock, RandomIds(7), self.health
        )
        self.store = store

    async def drain(self, rounds: int = 60, *, step_s: float = 30.0) -> None:
        """Let rounds pass until nothing is due any more."""
        for _ in range(rounds):
            await self.drainer.round()
            if not await self.store.due_outbox("billing", 1):
                return
            self.clock.at += timedelta(seconds=step_s)


class Scripted:
    """A deliverer that fails as told, by key."""

    def __init__(self, fail: Callable[[str, int], CloudFault | None]) -> None:
        self.fail = fail
        self.tried: list[str] = []

    async def deliver(self, row: OutboxRow) -> str:
        self.tried.append(row.key)
        fault = self.fail(row.key, self.tried.count(row.key))
        if fault is not None:
            raise fault
        return "taken"


def away(_key: str, _n: int) -> CloudFault:
    return CloudFault("away", retryable=True)


# --- the webhook ------------------------------------------------------------------------


async def test_a_bill_is_booked_once_whatever_happens_to_the_answers(
    store: SqliteStore,
) -> None:
    """Lost answers, cut connections, 5xx, 429: repeated with the same key until 2xx."""
    with billing_server() as server:
        server.next = [LOSE, 503, DROP, LOSE, (429, {"Retry-After": "20"}), OK, LOSE]
        hook = Webhook(server.url, TOKEN)
        desk = Desk(store, hook)
        await owe(store, "S1", "S2", "S3", "S1-2")
        with structlog.testing.capture_logs() as logs:
            await desk.drain()
        await hook.close()

    assert await store.outbox_rows() == []
    assert sorted(server.booked) == ["S1", "S1-2", "S2", "S3"]
    assert len(server.requests) > len(server.booked)
    keys = server.keys()
    assert max(n for n, key in enumerate(keys) if key == "S1") < keys.index("S1-2")
    assert [row["key"] for row in logs if row["event"] == "report_delivered"][-1] == "S1-2"
    assert TOKEN not in str(logs)


async def test_the_post_says_who_charged_what_on_which_account(store: SqliteStore) -> None:
    with billing_server() as server:
        hook = Webhook(server.url, TOKEN)
        await owe(store, "S1", "S1-2")
        await Desk(store, hook).drain()
        await hook.close()

    path, headers, body = server.requests[0]
    assert path == "/hook/sessions?tenant=7"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    assert (body["type"], body["session_id"], body["corrects"]) == (
        "session_finished",
        "S1",
        None,
    )
    assert (body["account_id"], body["vin"], body["energy_wh"]) == (
        "acme",
        "WEB62800000000001",
        10_000.0,
    )
    assert body["started_at"] == "2026-01-15T18:00:00Z"
    correction = server.booked["S1-2"]
    assert (correction["type"], correction["session_id"], correction["corrects"]) == (
        "session_corrected",
        "S1",
        "S1",
    )


async def test_without_a_token_no_authorization_is_sent(store: SqliteStore) -> None:
    with billing_server() as server:
        hook = Webhook(server.url, "")
        await owe(store, "S1")
        await Desk(store, hook).drain()
        await hook.close()

    assert "authorization" not in server.requests[0][1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
async def test_a_bill_that_is_refused_for_good_is_a_dead_letter_and_the_rest_goes_on(
    store: SqliteStore, status: int
) -> None:
    with billing_server() as server:
        server.next = [status]
        hook = Webhook(server.url, TOKEN)
        desk = Desk(store, hook)
        await owe(store, "S1", "S2")
        with structlog.testing.capture_logs() as logs:
            await desk.drain()
        await hook.close()

    (dead,) = await store.outbox_rows()
    assert (dead.key, dead.is_dead) == ("S1", True)
    assert str(status) in dead.error
    assert "tenant" not in dead.error
    assert list(server.booked) == ["S2"]
    (said,) = [row for row in logs if row["event"] == "outbox_dead_letter"]
    assert (said["log_level"], said["session_id"], said["vehicle_id"]) == (
        "error",
        "S1",
        "bus-1",
    )


@pytest.mark.parametrize("status", [301, 408, 425, 429, 500, 502, 503])
async def test_what_may_pass_is_tried_again(store: SqliteStore, status: int) -> None:
    with billing_server() as server:
        server.next = [status, status]
        hook = Webhook(server.url, TOKEN)
        await owe(store, "S1")
        await Desk(store, hook).drain()
        await hook.close()

    assert server.keys() == ["S1"] * 3
    assert list(server.booked) == ["S1"]


@pytest.mark.parametrize(
    "asked",
    [
        {"Retry-After": "600"},
        {
            "Date": "Thu, 15 Jan 2026 18:00:00 GMT",
            "Retry-After": "Thu, 15 Jan 2026 18:10:00 GMT",
        },
    ],
    ids=["seconds", "date"],
)
async def test_nothing_is_sent_before_the_time_that_the_server_asked_for(
    store: SqliteStore, asked: dict[str, str]
) -> None:
    """Not even another session's bill."""
    with billing_server() as server:
        server.next = [(503, asked)]
        hook = Webhook(server.url, TOKEN)
        desk = Desk(store, hook)
        await owe(store, "S1", "S2")
        await desk.drainer.round()
        for _ in range(59):
            desk.clock.at += timedelta(seconds=10)
            await desk.drainer.round()
        before = server.keys()
        desk.clock.at += timedelta(seconds=11)
        await desk.drain()
        await hook.close()

    assert before == ["S1"]
    assert sorted(server.booked) == ["S1", "S2"]


# --- patience ---------------------------------------------------------------------------


async def test_a_cloud_that_is_away_for_a_night_is_asked_ever_more_seldom(
    store: SqliteStore,
) -> None:
    """And however much is owed, it is asked no more often for that."""
    cloud = Scripted(away)
    desk = Desk(store, cloud)
    await owe(store, *(f"S{n}" for n in range(10)))
    tries: list[float] = []
    for _ in range(8 * 360):
        before = len(cloud.tried)
        await desk.drainer.round()
        if len(cloud.tried) > before:
            tries.append((desk.clock.at - NOW).total_seconds())
        desk.clock.at += timedelta(seconds=10)

    gaps = [after - before for before, after in pairwise(tries)]
    assert len(set(cloud.tried)) > 1
    assert 8 * 12 <= len(cloud.tried) <= 8 * 60
    assert max(gaps) <= 310
    assert len({round(gap, -1) for gap in gaps}) > 5, "the waits differ by chance"
    assert not desk.health.is_reachable


async def test_a_day_of_100_sessions_is_delivered_within_15_minutes_of_the_clouds_return(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lost, nothing twice, in order within each session."""
    monkeypatch.setattr(outbox, "SPACING_S", 0)
    back_at = NOW + timedelta(hours=24)
    desk: Desk
    taken: list[str] = []

    def answer(key: str, n: int) -> CloudFault | None:
        if desk.clock.at < back_at:
            return away(key, n)
        taken.append(key)
        return None

    desk = Desk(store, Scripted(answer))
    await owe(store, *(f"S{n}{part}" for n in range(100) for part in ("", "-2")))
    while desk.clock.at < back_at + timedelta(minutes=15) and len(taken) < 200:
        await desk.drainer.round()
        desk.clock.at += timedelta(seconds=300 if desk.clock.at < back_at else 2)

    assert await store.outbox_rows() == []
    assert sorted(taken) == sorted({*taken})
    assert len(taken) == 200
    for session in range(100):
        assert taken.index(f"S{session}") < taken.index(f"S{session}-2")


async def test_one_report_that_the_cloud_cannot_take_holds_up_no_other(
    store: SqliteStore,
) -> None:
    """Its own waits grow though the cloud takes everything else."""
    cloud = Scripted(lambda key, _: away(key, 0) if key == "S0" else None)
    desk = Desk(store, cloud)
    await owe(store, *(f"S{n}" for n in range(20)))
    for _ in range(360):
        await desk.drainer.round()
        desk.clock.at += timedelta(seconds=10)

    assert [row.key for row in await store.outbox_rows()] == ["S0"]
    assert sorted(set(cloud.tried)) == sorted(f"S{n}" for n in range(20))
    assert 10 <= cloud.tried.count("S0") <= 60


async def test_a_clock_that_was_set_back_does_not_stop_the_outbox(
    store: SqliteStore,
) -> None:
    cloud = Scripted(lambda key, n: away(key, n) if n == 1 else None)
    desk = Desk(store, cloud)
    await owe(store, "S1")
    await desk.drainer.round()
    desk.clock.at -= timedelta(days=2)
    await desk.drainer.round()

    assert cloud.tried == ["S1", "S1"]
    assert await store.outbox_rows() == []


# --- a technician -----------------------------------------------------------------------


def the_desk(store: SqliteStore, desk: Desk) -> Operations:
    operations = Operations()
    letters = Letters(
        store, desk.clock, lambda row: {"session_id": row.session_id}, desk.drainer.hurry
    )
    letters.add_to(operations)
    return operations


async def test_a_technician_looks_at_a_dead_letter_and_sends_it_again(
    store: SqliteStore,
) -> None:
    no = CloudFault("billing: POST answered 422", retryable=False)
    cloud = Scripted(lambda _, n: no if n == 1 else None)
    desk = Desk(store, cloud)
    operations = the_desk(store, desk)
    await owe(store, "S1", "S2")
    await desk.drain()

    _, listed = await operations.run("outbox.list", {"dead": True})
    _, shown = await operations.run("outbox.show", {"key": "S1"})
    code, sent = await operations.run("outbox.resend", {"key": "S1"})
    await desk.drain()
    again, delivered = await operations.run("outbox.resend", {"key": "S1"})
    _, rest = await operations.run("outbox.resend", {"all_dead": True})
    await desk.drain()

    rows: Any = listed["result"]
    assert [(row["key"], row["state"]) for row in rows] == [("S1", "dead"), ("S2", "dead")]
    letter: Any = shown["result"]
    assert (letter["vehicle_id"], letter["kind"], letter["error"], letter["body"]) == (
        "bus-1",
        "bill",
        "billing: POST answered 422",
        {"session_id": "S1"},
    )
    assert (code, sent["result"]) == (200, {"resent": ["S1"]})
    assert (again, "was delivered" in str(delivered)) == (409, True)
    assert rest["result"] == {"resent": ["S2"]}
    assert await store.outbox_rows() == []


async def test_a_message_is_given_up_only_with_a_yes(store: SqliteStore) -> None:
    cloud = Scripted(away)
    desk = Desk(store, cloud)
    operations = the_desk(store, desk)
    await owe(store, "S1")
    first, refusal = await operations.run("outbox.drop", {"key": "S1"})
    kept = await store.outbox_rows()
    with structlog.testing.capture_logs() as logs:
        second, _ = await operations.run("outbox.drop", {"key": "S1", "yes": True})
    third, unknown = await operations.run("outbox.show", {"key": "S9"})
    await desk.drain()

    assert (first, "--yes" in str(refusal), len(kept)) == (400, True, 1)
    assert (second, cloud.tried, await store.outbox_rows()) == (200, [], [])
    assert (third, "no message S9" in str(unknown)) == (404, True)
    assert [row["event"] for row in logs] == ["outbox_dropped"]


async def test_a_resent_message_does_not_wait_for_the_back_off(store: SqliteStore) -> None:
    cloud = Scripted(lambda key, n: away(key, n) if n <= 12 else None)
    desk = Desk(store, cloud)
    operations = the_desk(store, desk)
    await owe(store, "S1")
    while len(cloud.tried) < 12:
        await desk.drainer.round()
        desk.clock.at += timedelta(seconds=30)
    desk.clock.at -= timedelta(seconds=30)
    await operations.run("outbox.resend", {"key": "S1"})
    await desk.drainer.round()

    assert len(cloud.tried) == 13
    assert await store.outbox_rows() == []
