"""Plug and charge: MAC -> vehicle -> VIN -> account -> charge -> goal -> bill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from agent.cli import app as commands
from agent.domain.errors import CloudFault
from agent.domain.ids import EvseId, StationId
from agent.ports import OutboxRow
from agent.standin.fixtures import vehicle_json
from tests.support.webhook_server import LOSE, OK, BillingServer, billing_server
from tests.support.yard import EFFICIENCY, Yard, yard

ONE = [{"id": "CP-01", "max_kw": 150.0, "fallback_kw": 4.0}]
VIN = "WEB62800000000001"
OUTLET = (StationId("CP-01"), EvseId(1))
OTHER = '[[accounts]]\nid = "other"\nvins = ["WMA06XZZ000000012"]\n'
ACME = OTHER + f'[[accounts]]\nid = "acme-7"\nvins = ["{VIN}"]\n'


@pytest.fixture
def server() -> Iterator[BillingServer]:
    with billing_server() as found:
        yield found


def billing(folder: Path, server: BillingServer, **more: Any) -> dict[str, Any]:
    """A configuration with accounts and a webhook."""
    file = folder / "accounts.toml"
    if not file.exists():
        file.write_text(OTHER, encoding="utf-8")
    return {
        "accounts_file": str(file),
        "webhook_url": server.url,
        "webhook_token": "hook-secret-1",
        "required": True,
    } | more


def a_bus(place: Yard, number: int = 1, vin: str | None = VIN) -> Any:
    """A bus with 50 kW planned, whose VIN the registry knows."""
    bus = place.add_bus(number, [(-1, 11, 50.0)])
    macs = [f"04E77E00F0{number:02X}"]
    more = {} if vin is None else {"vin": vin}
    row = vehicle_json(f"bus-{number}", more, macs=macs, power_kw=(5, 140), can_pause=True)
    place.cloud.load(vehicles=[row])
    return bus


async def ready(place: Yard, *, has_bus: bool = True) -> None:
    """Wait for the station's default, and for what the cloud knows of the bus."""
    await place.installed()
    depot = place.daemon.depot
    if has_bus:
        await place.until(
            lambda: depot.schedules and any(row.vin for row in depot.registry.values())
        )


def limit_w(place: Yard) -> float | None:
    """What the station has installed for the outlet and confirmed."""
    explained = place.daemon.explain("CP-01", 1)
    assert explained is not None
    limit = explained["limit_w"]
    assert limit is None or isinstance(limit, (int, float))
    return limit


def why(place: Yard) -> str:
    explained = place.daemon.explain("CP-01", 1)
    return str(explained and explained["because"])


def told(logs: list[Any], name: str) -> list[Any]:
    return [row for row in logs if row["event"] == name]


async def test_a_bus_without_account_waits_until_the_account_is_there_and_is_billed_once(
    tmp_path: Path, server: BillingServer
) -> None:
    """Also when the answer to the bill was lost."""
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE, billing=billing(tmp_path, server)) as place:
            station = place.station("CP-01")
            bus = a_bus(place)
            await ready(place)
            await station.plug(1, bus)
            await place.until(lambda: limit_w(place) == 0 and place.grid_w() == 0)
            held = why(place)
            (waiting,) = place.sessions()
            await place.passes(0.02)
            energy_held_wh = place.sessions()[0].meter.energy_wh

            (tmp_path / "accounts.toml").write_text(ACME, encoding="utf-8")
            await place.until(lambda: place.grid_w() > 49_000)
            row: Any = await place.daemon.session(waiting.session_id)
            await place.passes(0.02)
            server.next = [LOSE, 503]
            await station.unplug(1)
            await place.until(lambda: len(server.booked) == 1)
            await place.until(lambda: len(server.requests) >= 3)
            stored: Any = (await place.daemon.sessions(5))[0]

    assert "no account for VIN WEB62800000000001: it gets nothing" in held
    assert energy_held_wh < 200
    assert waiting.account_id is None
    assert (row["account"], row["vin"], row["account_verified"]) == ("acme-7", VIN, True)
    missing, verified = told(logs, "account_missing")[-1], told(logs, "account_verified")
    assert (missing["vin"], missing["vehicle_id"]) == (VIN, "bus-1")
    assert [line["account"] for line in verified] == ["acme-7"]
    assert [line["accounts"] for line in told(logs, "accounts_received")] == [1, 2]
    assert set(server.keys()) == {waiting.session_id}
    bill = server.booked[waiting.session_id]
    assert (bill["account_id"], bill["vin"], bill["vehicle_id"]) == ("acme-7", VIN, "bus-1")
    assert bill["energy_wh"] == stored["energy_wh"] > 1_000
    assert (bill["ended_at"], bill["transactions"][0]["transaction_id"]) == (
        stored["ended_at"],
        stored["transaction_ids"][0],
    )
    assert server.requests[0][1]["authorization"] == "Bearer hook-secret-1"
    assert "hook-secret-1" not in str(logs)


async def test_a_bad_accounts_file_leaves_the_last_good_one_in_force_even_after_a_restart(
    tmp_path: Path, server: BillingServer
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text(ACME, encoding="utf-8")
    options = billing(tmp_path, server)
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE, billing=options) as place:
            await place.until(lambda: bool(told(logs, "accounts_received")))
            file.write_text(ACME + "[[accounts]]\nid = 7\n", encoding="utf-8")
            await place.until(lambda: bool(told(logs, "config_refused")))
            rules = place.daemon.depot.billing
            kept = sorted(rules.book.accounts) if rules is not None else []
        async with yard(tmp_path, stations=ONE, billing=options) as place:
            depot = place.daemon.depot
            await place.until(lambda: depot.billing is not None)
            rules = depot.billing
            again = sorted(rules.book.accounts) if rules is not None else []
            metrics = place.daemon.metrics().decode()

    assert kept == again == ["acme-7", "other"]
    refused = str(told(logs, "config_refused")[0]["reason"])
    assert "accounts[2].id = 7: is no text" in refused
    assert "2 accounts stay in force" in refused
    assert "depot_agent_accounts 2.0" in metrics
    assert "depot_agent_accounts_file_good 0.0" in metrics


@pytest.mark.parametrize(
    ("without", "vehicle_id", "power_w"),
    [("minimum", "bus-1", 5_000.0), ("charge", None, 20_000.0)],
)
async def test_policy_decides_what_a_vehicle_without_account_may_draw(
    tmp_path: Path,
    server: BillingServer,
    without: str,
    vehicle_id: str | None,
    power_w: float,
) -> None:
    """The least that it can have, or what plan and policy give it; it is billed anyway."""
    options = billing(tmp_path, server, without_account=without)
    async with yard(tmp_path, stations=ONE, billing=options) as place:
        station = place.station("CP-01")
        bus = a_bus(place) if vehicle_id else place.add_bus(1, [], known=False)
        await ready(place, has_bus=vehicle_id is not None)
        await station.plug(1, bus)
        await place.until(lambda: abs(place.grid_w() * EFFICIENCY - power_w) < 100)
        words = why(place)
        await station.unplug(1)
        await place.until(lambda: len(server.booked) == 1)

    assert ("the least it can have" in words) is (without == "minimum")
    (bill,) = server.booked.values()
    assert (bill["account_id"], bill["account_verified_at"]) == (None, None)
    assert (bill["vehicle_id"], bill["mac"]) == (
        vehicle_id,
        "04E77E00F001",
    )


async def test_a_reload_that_no_longer_requires_an_account_lets_the_vehicle_charge(
    tmp_path: Path, server: BillingServer
) -> None:
    options = billing(tmp_path, server)
    async with yard(tmp_path, stations=ONE, billing=options) as place:
        station = place.station("CP-01")
        bus = a_bus(place)
        await ready(place)
        await station.plug(1, bus)
        await place.until(lambda: limit_w(place) == 0 and "gets nothing" in why(place))
        settings = place.daemon.settings
        relaxed = settings.billing.model_copy(update={"required": False})
        new = settings.model_copy(update={"billing": relaxed})
        for part in place.daemon.parts:
            part.reload(new)
        await place.until(lambda: place.grid_w() > 49_000)


async def test_charging_ends_at_the_prepaid_energy_by_the_meter(
    tmp_path: Path, server: BillingServer
) -> None:
    prepaid = f'[[accounts]]\nid = "pre"\nvins = ["{VIN}"]\nprepaid_kwh = 2.0\n'
    (tmp_path / "accounts.toml").write_text(prepaid, encoding="utf-8")
    options = billing(tmp_path, server, required=False)
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=ONE, billing=options) as place:
            station = place.station("CP-01")
            bus = a_bus(place)
            await ready(place)
            await station.plug(1, bus)
            await place.until(lambda: place.grid_w() > 49_000)
            await place.until(lambda: bool(told(logs, "charge_goal_reached")))
            await place.until(lambda: place.grid_w() == 0)
            words = why(place)
            await place.passes(0.02)
            await station.unplug(1)
            await place.until(lambda: len(server.booked) == 1)

    assert "the goal of account pre is reached: 2.0 kWh are charged" in words
    assert len(told(logs, "charge_goal_reached")) == 1
    (bill,) = server.booked.values()
    assert 2_000 <= bill["energy_wh"] < 3_500


async def test_a_daemon_that_dies_between_sending_and_noting_it_sends_the_same_key_again(
    tmp_path: Path, server: BillingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server books it once."""
    (tmp_path / "accounts.toml").write_text(ACME, encoding="utf-8")
    options = billing(tmp_path, server)
    async with yard(tmp_path, stations=ONE, billing=options) as place:
        part = next(item for item in place.daemon.parts if hasattr(item, "drainer"))
        for item in place.daemon.parts:
            if type(item).__name__ == "BillingPart":
                part = item
        hook: Any = part
        deliver = hook.drainer._deliverer.deliver

        async def dies(row: OutboxRow) -> str:
            await deliver(row)
            await asyncio.sleep(3600)  # the process is gone before it can note it
            raise CloudFault("never", retryable=True)

        monkeypatch.setattr(hook.drainer._deliverer, "deliver", dies)
        station = place.station("CP-01")
        bus = a_bus(place)
        await ready(place)
        await station.plug(1, bus)
        await place.until(lambda: place.grid_w() > 49_000)
        await station.unplug(1)
        await place.until(lambda: len(server.booked) == 1)
        owed = await place.daemon.store.outbox_rows()
    async with yard(tmp_path, stations=ONE, billing=options) as place:
        await place.until(lambda: len(server.requests) == 2)
        store = place.daemon.store
        for _ in range(200):
            if not [row for row in await store.outbox_rows() if row.key in server.booked]:
                break
            await asyncio.sleep(0.01)
        left = await store.outbox_rows()

    assert [row.key for row in owed if row.destination == "billing"] == list(server.booked)
    assert server.keys() == list(server.booked) * 2
    assert [row for row in left if row.destination == "billing"] == []


async def test_a_technician_sees_a_dead_letter_and_sends_it_again_by_command(
    tmp_path: Path, server: BillingServer
) -> None:
    """The bare command keeps its shape for scripts."""
    options = billing(tmp_path, server, required=False)
    file = tmp_path / "agent.toml"
    store = tmp_path / "agent.db"
    text = f'[site]\ncap_kw = 1.0\n[store]\npath = "{store}"\n[web]\nport = 0\n'
    file.write_text(text, encoding="utf-8")

    async def ask(*words: str) -> tuple[int, str]:
        done = await asyncio.to_thread(
            CliRunner().invoke, commands, ["outbox", *words, "--config", str(file)]
        )
        return done.exit_code, done.output

    async with yard(tmp_path, stations=ONE, billing=options, chargeye=None) as place:
        station = place.station("CP-01")
        await place.installed()
        server.always = 422
        await station.plug(1, place.add_bus(1, [], known=False))
        await place.until(lambda: place.grid_w() > 1000)
        await station.unplug(1)
        await place.until(lambda: len(server.requests) == 1)
        key = server.keys()[0]
        bare: Any = None
        for _ in range(100):
            bare = json.loads((await ask("--json"))[1])
            if bare[0]["dead"]:
                break
        table = await ask()
        shown = json.loads((await ask("show", key, "--json"))[1])
        refused = await ask("drop", key)
        server.always = OK
        sent = await ask("resend", "--all-dead")
        await place.until(lambda: len(server.booked) == 1)
        unknown = await ask("show", "nobody")
        wrong = await ask("resend")

    (row,) = bare
    assert {name: row[name] for name in ("destination", "pending", "dead")} == {
        "destination": "billing",
        "pending": 0,
        "dead": 1,
    }
    letter = row["dead_letters"][0]
    assert (letter["key"], letter["session_id"]) == (key, key)
    assert "answered 422" in letter["error"]
    assert "dead letters" in table[1]
    assert (shown["state"], shown["body"]["session_id"]) == ("dead", key)
    assert (refused[0], "confirm it with --yes" in refused[1]) == (1, True)
    assert (sent[0], "1 message will be sent again now" in sent[1]) == (0, True)
    assert (unknown[0], wrong[0]) == (1, 2)
