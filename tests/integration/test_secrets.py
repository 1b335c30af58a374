"""Nobody's secret in any log, database, metric, answer or error, at debug level."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import websockets
from pydantic import BaseModel, SecretStr

from agent.app import Daemon
from agent.cloud.http import CloudHttp
from agent.demo import EVENING
from agent.domain.errors import CloudFault
from agent.host import logs
from agent.host.clock import RandomIds, ScaledClock
from agent.settings import Settings
from tests.support.foreign_station import ForeignStation
from tests.support.mean_cloud import MeanCloud, mean_cloud

SPEED = 120.0
KEY = "504c414e544544" + "ab" * 13
"""The password of a station that is configured: 40 hex digits."""
WRONG_KEY = "PLANTED-wrong-password-of-a-station"
READ_KEY = "504c414e544544" + "cd" * 13
"""What a station gives away when it is asked for its configuration."""
SET_KEY = "504c414e544544" + "ef" * 13
"""What an operator writes into a station."""
PLANTED = {
    "chargeye.refresh_token": "PLANTED-refresh-token-of-chargeye",
    "smartcar.client_secret": "PLANTED-client-secret",
    "smartcar.management_token": "PLANTED-management-token",
    "smartcar.vehicles.refresh_token": "PLANTED-refresh-token-of-a-driver",
    "billing.webhook_token": "PLANTED-webhook-token",
    "stations.password": KEY,
}
TOKENS = {
    "chargeye": "PLANTED-access-token-of-chargeye",
    "smartcar": "PLANTED-access-token-of-smartcar",
    "rotated": "PLANTED-rotated-refresh-token",
}
IN_ADDRESS = "PLANTED-in-the-address-of-the-webhook"
MAC, VIN = "04E77E00F0FA", "YK900000000000101"
PAGES = (
    "/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/stations",
    "/api/v1/sessions", "/api/v1/vehicles", "/api/v1/plans", "/api/v1/outbox",
    "/api/v1/candidates", "/api/v1/explain/CP-01/1",
)  # fmt: skip


def every_form() -> list[str]:
    """The secrets as they are, and as HTTP's Basic scheme writes them."""
    plain = [*PLANTED.values(), *TOKENS.values(), READ_KEY, SET_KEY, WRONG_KEY, IN_ADDRESS]
    users = ("CP-01", "client-1", "")
    basic = [
        base64.b64encode(f"{user}:{secret}".encode()).decode().rstrip("=")
        for secret in plain
        for user in users
    ]
    return [*plain, *basic, bytes.fromhex(KEY).hex()]


def leaks(text: str) -> list[str]:
    """Secrets in a text, each with what stands around it."""
    found = []
    for secret in {*every_form(), "PLANTED-"}:
        at = text.find(secret)
        if at >= 0:
            found.append(text[max(0, at - 120) : at + len(secret) + 40])
    return found


def secret_settings(model: type[BaseModel], where: str = "") -> set[str]:
    """All settings that are secrets, by name."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        for kind in _kinds(field.annotation):
            if kind is SecretStr:
                found.add(where + name)
            elif issubclass(kind, BaseModel):
                found |= secret_settings(kind, f"{where}{name}.")
    return found


def _kinds(annotation: Any) -> list[type]:
    inner = [kind for part in getattr(annotation, "__args__", ()) for kind in _kinds(part)]
    return inner or ([annotation] if isinstance(annotation, type) else [])


def test_l2_every_secret_setting_is_planted() -> None:
    """A new secret needs a line in PLANTED, or nobody looks for it."""
    assert secret_settings(Settings) == PLANTED.keys()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.level, list(root.handlers), structlog.get_config())
    logs.set_up(level="debug", style="json", stream=stream)
    yield stream
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    structlog.configure(**before[2])


def settings_of(cloud: MeanCloud, folder: Path, api: str) -> Settings:
    car = {
        "vin": VIN,
        "vehicle_id": "car-1",
        "user_id": "user-1",
        "refresh_token": PLANTED["smartcar.vehicles.refresh_token"],
    }
    station = {"id": "CP-01", "security_profile": 1, "password": KEY}
    content: dict[str, Any] = {
        "site": {"location_uid": "loc-1", "cap_kw": 400.0},
        "ocpp": {"host": "127.0.0.1", "port": 0},
        "stations": [station, {"id": "CP-02"}],
        "chargeye": {
            "base_url": f"{cloud.url}/api",
            "refresh_token": PLANTED["chargeye.refresh_token"],
            "vehicles_poll_s": 5,
            "schedules_poll_s": 5,
        },
        "smartcar": {
            "api": api,
            "client_id": "client-1",
            "client_secret": PLANTED["smartcar.client_secret"],
            "management_token": PLANTED["smartcar.management_token"],
            "token_url": f"{cloud.url}/oauth2/token",
            "api_url": f"{cloud.url}/v3",
            "auth_url": f"{cloud.url}/oauth/token",
            "v2_url": f"{cloud.url}/v2.0",
            "management_url": f"{cloud.url}/management",
            "vehicles": [car],
        },
        "billing": {
            "webhook_url": f"{cloud.url}/bills?key={IN_ADDRESS}",
            "webhook_token": PLANTED["billing.webhook_token"],
        },
        "store": {"path": folder / "agent.db"},
        "web": {"port": 0, "commands": True},
    }
    return Settings(**content)


async def until(condition: Any, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def basic(key: str) -> dict[str, str]:
    text = base64.b64encode(f"CP-01:{key}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


async def play(daemon: Daemon, cloud: MeanCloud) -> list[str]:
    """A station, an operator and bad clouds; what the daemon answered."""
    url = f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01"
    with pytest.raises(websockets.InvalidStatus):
        await ForeignStation(url).open(additional_headers=basic(WRONG_KEY))
    station = ForeignStation(url, keys={"AuthorizationKey": READ_KEY})
    await station.open(additional_headers=basic(KEY))
    await station.boot()
    await station.status("Preparing")
    transaction = await station.start(f"VID:{MAC}")
    await station.meter(transaction, 1000, power_w=50_000)
    base = f"http://127.0.0.1:{daemon.web_port}"
    answers: list[str] = []
    async with httpx.AsyncClient(base_url=base, timeout=30) as web:

        async def operate(name: str, **arguments: Any) -> None:
            answer = await web.post(f"/api/v1/operations/{name}", json=arguments)
            answers.append(answer.text)

        async def call(action: str, payload: Any) -> None:
            body = {"action": action, "payload": payload, "force": True}
            answer = await web.post("/api/v1/stations/CP-01/call", json=body)
            if action != "GetConfiguration":  # an operator who asks for it is told
                answers.append(answer.text)

        await call("GetConfiguration", {"key": ["AuthorizationKey"]})
        await call("ChangeConfiguration", {"key": "AuthorizationKey", "value": SET_KEY})
        await call("ChangeConfiguration", {"key": "AuthorizationKey", "value": [SET_KEY]})
        await operate("stations.password", station="CP-01")
        await until(lambda: daemon.depot.registry)
        cloud.is_mean = True
        for _ in range(3):
            for name in ("cars.connections", "cars.list", "chargeye.locations"):
                await operate(name)
            await operate("cars.read", vehicle="bus-7")
            await operate("vehicles.show", vehicle="bus-7")
            await operate("schedules.list", vehicle="bus-7")
        await station.meter(transaction, 1500, power_w=50_000)
        await station.stop(transaction, 2000)
        await station.status("Available")
        await until(lambda: cloud.seen["POST", "/bills"] > 3)
        await until(lambda: cloud.seen["GET", "/api/vehicles"] > 5)
        await operate("outbox.list")
        await operate("sessions.export")
        answers += [(await web.get(page)).text for page in PAGES]
    given = [
        payload["value"]
        for _, action, payload in station.received
        if action == "ChangeConfiguration" and payload["key"] == "AuthorizationKey"
    ]
    await station.close()
    assert SET_KEY in given
    made = [key for key in given if key != SET_KEY]
    assert made, "the operation gave the station no password of its own"
    answers += [text for text in answers for key in made if key in text]
    assert not any(key in text for text in answers for key in made)
    return answers


@pytest.mark.parametrize("api", ["v3", "v2"])
async def test_l2_no_secret_leaves_the_daemon_whatever_the_clouds_and_stations_do(
    api: str, tmp_path: Path, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with mean_cloud(TOKENS) as cloud:
        bus = {"id": "bus-7", "vin": VIN, "chargingPorts": [{"macAddress": MAC}]}
        cloud.vehicles = [bus | {"fullChargeEnergykWh": 300}]
        slot = {
            "id": "slot-1",
            "evId": "bus-7",
            "plannedArrivalTime": EVENING.isoformat(),
            "plannedDepartureTime": EVENING.replace(hour=23).isoformat(),
            "startSoC": 40,
            "targetSoC": 90,
        }
        cloud.schedules = [slot]
        daemon = Daemon(
            settings_of(cloud, tmp_path, api),
            clock=ScaledClock(EVENING, SPEED),
            ids=RandomIds(1),
            pace=1 / SPEED,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run())
            await daemon.is_ready.wait()
            try:
                answers = await play(daemon, cloud)
            finally:
                daemon.stop_wanted.set()
        carried = "\n".join(cloud.carried)
    told = capfd.readouterr()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as db:
        dump = "\n".join(db.iterdump())
    kept = {path.name: path for path in tmp_path.iterdir() if path.is_file()}
    # The one place for tokens that a cloud gave and that cannot be asked for again.
    tokens = kept.pop("smartcar-tokens.json", None)
    files = b"".join(path.read_bytes() for path in kept.values())

    secret = PLANTED["smartcar.client_secret"]
    basic_secret = base64.b64encode(f"client-1:{secret}".encode()).decode()
    assert secret in carried or basic_secret in carried
    assert tokens is None or tokens.stat().st_mode & 0o777 == 0o600
    for name in ("chargeye.refresh_token", "billing.webhook_token"):
        assert PLANTED[name] in carried, f"{name} was never used: this test shows nothing"
    assert all(TOKENS[name] in carried for name in ("chargeye", "smartcar"))
    assert IN_ADDRESS in carried
    assert '"event":"agent_stopped"' in log.getvalue()
    assert not leaks(log.getvalue())
    assert not leaks(told.out + told.err)
    assert not leaks("\n".join(answers))
    assert not leaks(dump)
    assert not leaks(files.decode("latin-1"))


@pytest.mark.parametrize(
    "where", ["https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://["]
)
async def test_a_cloud_that_cannot_be_reached_is_named_without_the_token(
    where: str,
) -> None:
    """Broken TLS, nobody there, no address at all; with the token and a bad one."""
    with mean_cloud(TOKENS) as cloud:
        base = where.format(port=cloud.url.rpartition(":")[2])
        http = CloudHttp("chargeye", base)
        words = []
        for bearer in (TOKENS["chargeye"], f"{TOKENS['chargeye']}\r\nX: y", "PLANTED-é"):
            with pytest.raises(CloudFault) as caught:
                await http.send("GET", f"/x?key={IN_ADDRESS}", bearer=bearer)
            words.append(f"{caught.value!r} {caught.value.__cause__!r}")
        await http.close()

    assert not leaks(" ".join(words))


@pytest.mark.parametrize(
    "lines",
    [
        '[chargeye]\nrefresh_tokem = "PLANTED-1"',
        '[chargeye]\nrefresh_token = ["PLANTED-2"]',
        '[[stations]]\nid = "CP-01"\npasword = "PLANTED-3"',
        '[[stations]]\nid = "CP-01"\npassword_hash = "PLANTED-4"',
        '[smartcar]\nclient_id = "x"\nclient_secret = {a = "PLANTED-5"}',
        '[billing]\nwebhook_url = "ftp://x"\nwebhook_token = "PLANTED-6"',
        'refresh_token = "PLANTED-7',
    ],
)
def test_a_wrong_configuration_is_named_without_its_secrets(
    tmp_path: Path, lines: str
) -> None:
    from agent.domain.errors import ConfigFault
    from agent.settings import load

    path = tmp_path / "agent.toml"
    path.write_text(f"[site]\ncap_kw = 100\n{lines}\n", encoding="utf-8")
    with pytest.raises(ConfigFault) as caught:
        load(path)

    assert not leaks(str(caught.value))


def test_the_command_line_shows_no_secret_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[site]\ncap_kw = 100\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "check-config", "--config", str(path)],
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN": "PLANTED-8",
            "DEPOT_AGENT__STATIONS": "PLANTED-9",
        },
        timeout=60,
        check=False,
    )

    assert done.returncode == 78
    assert not leaks(done.stdout + done.stderr)
