"""The main job on real input: real process, real sockets, foreign peers on both sides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.fleet_server import ForeignFleet, foreign_fleet, plan_json
from tests.support.foreign_station import ForeignStation, limit_at, stamp

MAC = "04:E7:7E:00:F0:FA"
TAG = "VID:04E77E00F0FA"
CAP_KW = 400.0
STATION_KW = 150.0

CONFIG = """
[site]
name = "Test depot"
location_uid = "loc-1"
cap_kw = {cap_kw}
efficiency = 0.94

[policy]
unmatched_kw = 20.0
unplanned_kw = 40.0
after_plan = "hold-minimum"

[ocpp]
host = "127.0.0.1"
port = OCPP_PORT

[[stations]]
id = "CP-01"
max_kw = 150.0
fallback_kw = 10.0

[[stations]]
id = "CP 02"
security_profile = 1
password = "0123456789abcdef0123456789abcdef01234567"
max_kw = 150.0
fallback_kw = 10.0

[chargeye]
base_url = "{base_url}"
refresh_token = "refresh-me"
vehicles_poll_s = 1
schedules_poll_s = 1
"""


@pytest.fixture
def fleet() -> Iterator[ForeignFleet]:
    with foreign_fleet() as found:
        found.vehicles = [
            {
                "id": "bus-7",
                "name": "Bus 7",
                "locationUid": ["loc-1"],
                "chargingPorts": [{"macAddress": MAC, "type": "CCS2", "inactive": False}],
                "fullChargeEnergykWh": 300,
                "maxChargePowerkW": 120,
                "minChargePowerkW": 5,
                "supportsPauseResume": True,
                "enableChargeScheduling": True,
            }
        ]
        yield found


@pytest.fixture
def daemon(tmp_path: Path, fleet: ForeignFleet) -> Iterator[DaemonProcess]:
    config = CONFIG.format(base_url=fleet.base_url, cap_kw=CAP_KW)
    process = DaemonProcess(tmp_path, config)
    yield process
    if process.process is not None:
        process.stop()


def slot(now: datetime, pieces: list[tuple[datetime, datetime, float]]) -> dict[str, Any]:
    return {
        "id": "slot-1",
        "evId": "bus-7",
        "locationUid": "loc-1",
        "plannedArrivalTime": stamp(now - timedelta(minutes=30)),
        "plannedDepartureTime": stamp(now + timedelta(hours=8)),
        "startSoC": 40,
        "targetSoC": 90,
        "plan": plan_json(pieces),
        "planMeta": {"timestamp": stamp(now), "strategy": "peak-supression"},
    }


def plan_at(pieces: list[tuple[datetime, datetime, float]], at: datetime) -> float | None:
    return next((kw * 1000 for start, end, kw in pieces if start <= at < end), None)


async def until(condition: Any, timeout_s: float = 10) -> None:
    """Wait for a condition, looked at often."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def plugged_in(station: ForeignStation) -> int:
    """Boot, plug, authorise by MAC, start; returns the transaction id."""
    await station.boot()
    await station.status("Available")
    await station.status("Preparing")
    answer = await station.send("Authorize", {"idTag": TAG})
    assert answer == {"idTagInfo": {"status": "Accepted"}}
    return await station.start(TAG)


async def test_foreign_station_gets_the_plan_of_its_vehicle_within_two_seconds(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pieces = [
        (now - timedelta(minutes=10), now + timedelta(minutes=20), 43.2157),
        (now + timedelta(minutes=20), now + timedelta(minutes=50), 0.0),
        (now + timedelta(minutes=50), now + timedelta(minutes=95), 119.99),
        (now + timedelta(minutes=95), now + timedelta(minutes=120), 500.0),
    ]
    fleet.schedules = [slot(now, pieces)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/any/CP-01") as station:
        transaction_id = await plugged_in(station)
        started = asyncio.get_running_loop().time()
        await station.wait_for(lambda: station.profiles("TxProfile"), 2.0)
        took_s = asyncio.get_running_loop().time() - started
        profile = station.profiles("TxProfile")[0]
        defaults = station.profiles("TxDefaultProfile")

    assert took_s < 2.0
    assert profile["transactionId"] == transaction_id
    assert profile["connectorId"] == 1
    assert profile["chargingProfileKind"] == "Absolute"
    schedule = profile["chargingSchedule"]
    assert schedule["chargingRateUnit"] == "W"
    assert "numberPhases" not in schedule["chargingSchedulePeriod"][0]
    at = now
    while at < now + timedelta(minutes=119):
        planned = plan_at(pieces, at)
        assert planned is not None
        assert limit_at(profile, at) == min(int(planned * 10) / 10, 120_000.0), at
        at += timedelta(seconds=30)
    assert limit_at(profile, now + timedelta(hours=9)) == 5000.0
    assert defaults
    assert defaults[0]["connectorId"] == 0
    assert defaults[0]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"] == 10_000.0


@pytest.mark.slow
async def test_few_periods_never_allow_more_than_the_plan_and_are_refreshed_in_time(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    powers = [30.0 + (index * 37) % 80 for index in range(40)]
    edge = now - timedelta(seconds=3)
    pieces = [
        (edge + timedelta(seconds=6 * i), edge + timedelta(seconds=6 * (i + 1)), powers[i])
        for i in range(40)
    ]
    fleet.schedules = [slot(now, pieces)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    keys = {"ChargingScheduleMaxPeriods": "3"}
    url = f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01"
    async with ForeignStation(url, keys=keys) as station:
        await plugged_in(station)
        await station.wait_for(lambda: len(station.profiles("TxProfile")) >= 4, 40)
        profiles = station.profiles("TxProfile")

    sizes = [len(item["chargingSchedule"]["chargingSchedulePeriod"]) for item in profiles]
    assert max(sizes) <= 3
    assert len({item["chargingProfileId"] for item in profiles}) == 1
    for profile in profiles:
        schedule = profile["chargingSchedule"]
        start = datetime.fromisoformat(schedule["startSchedule"].replace("Z", "+00:00"))
        for second in range(60, 300):
            at = start + timedelta(seconds=second)
            planned = plan_at(pieces, at)
            if planned is not None and at >= now:
                assert limit_at(profile, at) <= planned, (profile, at)


async def test_session_survives_kill_nine_and_is_reported_once(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pieces = [(now - timedelta(minutes=5), now + timedelta(hours=2), 60.0)]
    fleet.schedules = [slot(now, pieces)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    station = ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01")
    await station.open()
    await station.boot()
    await station.status("Preparing")
    await station.send("Authorize", {"idTag": TAG})
    at = stamp()
    transaction_id = await station.start(TAG, meter_wh=5000, at=at)
    await station.wait_for(lambda: station.profiles("TxProfile"), 3)
    await station.meter(transaction_id, 5500, power_w=59_000, soc=41)
    await station.meter(transaction_id, 6000, power_w=60_000, soc=42)
    daemon.kill()
    await station.close()

    daemon.start()
    back = ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01")
    await back.open()
    repeated = await back.start(TAG, meter_wh=5000, at=at)
    await back.wait_for(lambda: back.profiles("TxProfile"), 12)
    await back.meter(transaction_id, 6500, power_w=60_000, soc=43)
    await back.stop(transaction_id, 7250, "EVDisconnected")
    await back.status("Finishing")
    await back.status("Available")
    await until(lambda: fleet.patches("pastSegments"), 15)
    sessions = daemon.ask("sessions")
    await until(lambda: daemon.ask("outbox")[0]["pending"] == 0, 15)
    await back.close()

    assert repeated == transaction_id
    assert back.profiles("TxProfile")[0]["transactionId"] == transaction_id
    assert len(sessions) == 1
    session = sessions[0]
    assert session["transaction_ids"] == [transaction_id]
    assert session["state"] == "ended"
    assert session["match"] == "unique"
    assert session["vehicle_id"] == "bus-7"
    assert session["mac"] == "04E77E00F0FA"
    assert session["energy_wh"] == 2250
    assert session["soc_start"] == 41
    assert session["soc_end"] == 43
    starts = fleet.patches("startSoC")
    ends = fleet.patches("pastSegments")
    assert [row["startSoC"] for row in starts] == [41]
    assert len(ends) == 1
    plan = ends[0]["plan"]
    assert plan["segments"] == fleet.schedules[0]["plan"]["segments"]
    assert sum(item["energykWh"] for item in plan["pastSegments"]) == pytest.approx(2.25)
    assert set(plan["schedule"]["tx"]) == {"chargingStartTime", "chargingEndTime"}
    assert not any("replaceFutureSchedules" in str(item) for item in fleet.requests)


async def test_plan_is_executed_while_the_cloud_is_away_and_the_outbox_drains_after(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pieces = [(now - timedelta(minutes=5), now + timedelta(hours=2), 77.7)]
    fleet.schedules = [slot(now, pieces)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    fleet.is_away = True
    await until(lambda: daemon.events("cloud_unreachable"), 20)
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01") as station:
        transaction_id = await plugged_in(station)
        await station.wait_for(lambda: station.profiles("TxProfile"), 2.5)
        await station.meter(transaction_id, 1500, power_w=70_000, soc=50)
        await station.stop(transaction_id, 3000)
        await station.status("Finishing")
        await station.status("Available")
        await until(lambda: daemon.ask("sessions")[0]["state"] == "ended")
    profile = station.profiles("TxProfile")[0]
    owed = daemon.ask("outbox")[0]["pending"]
    fleet.is_away = False
    await until(lambda: daemon.ask("outbox")[0]["pending"] == 0, 40)

    assert limit_at(profile, now + timedelta(minutes=30)) == 77_700.0
    assert owed == 2
    assert len(fleet.patches("startSoC")) == 1
    assert len(fleet.patches("pastSegments")) == 1
    assert daemon.events("cloud_recovered")


async def test_hostile_and_broken_frames_are_answered_and_the_link_lives(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    daemon.start()
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01") as station:
        await station.boot()
        deep = "[" * 5000 + "]" * 5000
        for text in (
            "not json",
            deep,
            '[2,"x"]',
            '[2,"d",["a"],{}]',
            "[" + "9" * 5000 + "]",
            '[9,"a",{}]',
            '[3,"nobody",{}]',
            b"\xff\xfe",
            '[2,"n","MeterValues",{"connectorId":1,"meterValue":"NaN"}]',
        ):
            await station.raw(text)
        unknown = await station.send("MakeCoffee", {})
        odd_start = await station.send("StartTransaction", {"idTag": 7})
        odd_stop = await station.send("StopTransaction", {"transactionId": "x" * 500})
        heartbeat = await station.send("Heartbeat", {})

    assert unknown[:2] == ["error", "NotImplemented"]
    assert odd_start["transactionId"] > 0
    assert isinstance(odd_stop, dict)
    assert heartbeat["currentTime"].endswith("Z")
    assert not daemon.events("link_failed")


@pytest.mark.parametrize("page", [b"<html>login</html>", b'{"schedules": [', b"[]"])
async def test_i11_plan_survives_clouds_that_answer_nonsense(
    daemon: DaemonProcess, fleet: ForeignFleet, page: bytes
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pieces = [(now - timedelta(minutes=5), now + timedelta(hours=2), 50.0)]
    fleet.schedules = [slot(now, pieces)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    fleet.page = (200, "text/html", page)
    await until(lambda: daemon.events("cloud_unreachable"), 20)

    plans = daemon.ask("plans")

    assert [item["power_w"] for item in plans[0]["segments"]] == [50_000.0]


async def test_t5_bad_plan_is_refused_whole_and_the_last_good_one_stays(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    good = [(now - timedelta(minutes=5), now + timedelta(hours=2), 50.0)]
    fleet.schedules = [slot(now, good)]
    daemon.start()
    await until(lambda: daemon.events("plan_received"))
    bad = slot(now, good)
    bad["plan"]["segments"][0]["from"] = int(now.timestamp())
    fleet.schedules = [bad]
    await until(lambda: daemon.events("plan_refused"))

    plans = daemon.ask("plans")

    assert [item["power_w"] for item in plans[0]["segments"]] == [50_000.0]
    assert "epoch milliseconds" in daemon.events("plan_refused")[0]["reason"]


async def test_handshake_follows_the_rules_of_identity_and_credentials(
    daemon: DaemonProcess, fleet: ForeignFleet
) -> None:
    import websockets

    daemon.start()
    base = f"ws://127.0.0.1:{daemon.ocpp_port}"
    key = "0123456789abcdef0123456789abcdef01234567"

    async def status_of(path: str, **headers: str) -> int:
        try:
            async with websockets.connect(
                base + path,
                subprotocols=["ocpp1.6"],  # type: ignore[list-item]
                additional_headers=headers,
                proxy=None,
            ):
                return 101
        except websockets.InvalidStatus as refused:
            return refused.response.status_code

    def basic(user: str, password: bytes) -> dict[str, str]:
        import base64

        return {
            "Authorization": "Basic "
            + base64.b64encode(user.encode() + b":" + password).decode()
        }

    assert await status_of("/x/y/CP-01") == 101
    assert await status_of("/CP-99") == 404
    assert await status_of("/CP%2002") == 401
    assert await status_of("/CP%2002", **basic("CP 02", b"wrong")) == 401
    assert await status_of("/CP%2002", **basic("CP 02", key.encode())) == 101
    assert await status_of("/CP%2002", **basic("CP 02", bytes.fromhex(key))) == 101
    async with websockets.connect(
        base + "/CP-01",
        subprotocols=["ocpp9.9"],  # type: ignore[list-item]
        proxy=None,
    ) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        assert socket.subprotocol is None
        assert socket.close_code == 1002


def test_commands_tell_when_the_daemon_is_away_and_configuration_is_wrong(
    tmp_path: Path,
) -> None:
    process = DaemonProcess(
        tmp_path, CONFIG.format(base_url="http://127.0.0.1:1", cap_kw=1)
    )
    away = process.run("status")
    process.config_path.write_text("[site]\ncap_kw = -1\nnmae = 'x'\n", encoding="utf-8")
    wrong = process.run("check-config")

    assert away.returncode == 69
    assert "does not answer" in away.stderr
    assert wrong.returncode == 78
    assert "site.nmae" in wrong.stderr
    assert "did you mean site.name" in wrong.stderr
