"""Virtual stations with faults against a central system on loopback that bears all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.simulator import catalogue, catalogue_power
from agent.simulator.build import build_station
from agent.simulator.catalogue import Fault
from agent.simulator.clock import ScaledClock, stamp
from agent.simulator.station import VirtualStation
from agent.simulator.station_config import StationConfig
from agent.simulator.vehicle import VirtualVehicle
from tests.unit.simulator.patient_central import PatientCentral, a_patient_central

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
SPEED = 600.0
REST_S = 0.15
"""Real; 90 simulated seconds, in which a vehicle is known and charges."""
GROUPS: dict[str, Sequence[Fault]] = {
    "links": catalogue.LINKS,
    "settings": catalogue.SETTINGS,
    "times": catalogue.TIMES,
    "frames": catalogue.FRAMES,
    "profiles": catalogue_power.PROFILES,
    "limits": catalogue_power.LIMITS,
    "transactions": catalogue_power.TRANSACTIONS,
    "meters": catalogue_power.METERS,
    "statuses": catalogue_power.STATUSES,
    "vehicles": catalogue_power.VEHICLES,
}


def a_bus(mac: str = "92D50A693F80") -> VirtualVehicle:
    return VirtualVehicle(
        name="Bus",
        mac=mac,
        capacity_wh=400_000,
        soc_percent=30.0,
        max_w=120_000,
        min_w=3_000,
    )


def a_config(
    central: PatientCentral, name: str, *faults: str, **changes: Any
) -> StationConfig:
    options: dict[str, Any] = {
        "backoff_first_real_s": 0.02,
        "slow_answer_real_s": 0.01,
        "call_timeout_real_s": 0.3,
    }
    return StationConfig(
        station_id=name, url=central.url, faults=frozenset(faults), **(options | changes)
    )


@asynccontextmanager
async def a_station(
    *faults: str, speed: float = SPEED, **changes: Any
) -> AsyncIterator[tuple[PatientCentral, VirtualStation]]:
    """A central system and a station CP with faults, running."""
    async with a_patient_central() as central, asyncio.TaskGroup() as tasks:
        config = a_config(central, "CP", *faults, **changes)
        station = build_station(config, ScaledClock(START, speed))
        tasks.create_task(station.run())
        try:
            yield central, station
        finally:
            station.stop()


def profile(version: str, limit: float, **changes: Any) -> dict[str, Any]:
    """A SetChargingProfile of a default limit in W for outlet 1."""
    schedule = {
        "chargingRateUnit": "W",
        "startSchedule": stamp(START - timedelta(hours=1)),
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
    } | changes
    body: dict[str, Any] = {
        "stackLevel": 0,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute",
    }
    if version == "1.6":
        whole = {**body, "chargingProfileId": 1, "chargingSchedule": schedule}
        return {"connectorId": 1, "csChargingProfiles": whole}
    whole = {**body, "id": 1, "chargingSchedule": [{"id": 1, **schedule}]}
    return {"evseId": 1, "chargingProfile": whole}


def orders(version: str) -> list[tuple[str, dict[str, Any]]]:
    """What a central system asks in the course of a session."""
    if version == "1.6":
        return [
            ("GetConfiguration", {}),
            ("ChangeConfiguration", {"key": "WebSocketPingInterval", "value": "60"}),
            ("ChangeConfiguration", {"key": "MeterValueSampleInterval", "value": "30"}),
            (
                "ChangeConfiguration",
                {
                    "key": "MeterValuesSampledData",
                    "value": "Energy.Active.Import.Register,Power.Active.Import,SoC",
                },
            ),
            ("ChangeAvailability", {"connectorId": 0, "type": "Operative"}),
            ("SetChargingProfile", profile(version, 30_000.0)),
            ("SetChargingProfile", profile(version, 0.0)),
            ("GetCompositeSchedule", {"connectorId": 1, "duration": 600}),
            ("TriggerMessage", {"requestedMessage": "MeterValues"}),
            ("ClearChargingProfile", {}),
            ("RemoteStopTransaction", {"transactionId": 1}),
            ("RemoteStartTransaction", {"connectorId": 1, "idTag": "NOTHEX"}),
        ]
    interval = {
        "component": {"name": "SampledDataCtrlr"},
        "variable": {"name": "TxUpdatedInterval"},
    }
    wanted = {**interval, "attributeValue": "30"}
    token = {"idToken": "NOTHEX", "type": "Central"}
    return [
        ("GetVariables", {"getVariableData": [interval]}),
        ("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"}),
        ("SetVariables", {"setVariableData": [wanted]}),
        ("ChangeAvailability", {"operationalStatus": "Operative"}),
        ("SetChargingProfile", profile(version, 30_000.0)),
        ("SetChargingProfile", profile(version, 0.0)),
        ("GetCompositeSchedule", {"evseId": 1, "duration": 600}),
        ("TriggerMessage", {"requestedMessage": "MeterValues"}),
        ("ClearChargingProfile", {}),
        ("RequestStopTransaction", {"transactionId": "none"}),
        ("RequestStartTransaction", {"evseId": 1, "idToken": token, "remoteStartId": 1}),
    ]


@pytest.mark.parametrize("group", GROUPS)
async def test_stations_live_with_every_fault(group: str):
    """A session, a cut and all orders: no station's task dies, each says something.

    Also with the faults that its version does not have; a station of a mixed depot is
    given them too.
    """
    names = [each.name for each in GROUPS[group]]
    clock = ScaledClock(START, SPEED)
    async with a_patient_central() as central, asyncio.TaskGroup() as tasks:
        stations: dict[str, VirtualStation] = {}
        for at, name in enumerate(names):
            for version in ("1.6", ("2.0.1", "2.1")[at % 2]):
                station_id = f"{name} {version}"
                config = a_config(central, station_id, name, ocpp_version=version)
                station = stations[station_id] = build_station(config, clock)
                tasks.create_task(station.run())
        await central.until(lambda: len(central.sockets) >= len(stations) - 1, 10)
        await asyncio.sleep(REST_S)
        for each in stations.values():
            await each.plug(1, a_bus())
        await asyncio.sleep(REST_S)
        for station_id, station in stations.items():
            for action, payload in orders(station.config.ocpp_version):
                await central.tell(station_id, action, payload)
        await asyncio.sleep(REST_S)
        for each in stations.values():
            each.cut()
            await each.unplug(1)
        await asyncio.sleep(REST_S)
        for each in stations.values():
            each.stop()

    assert {each for each in stations if not central.texts[each]} == set()


async def test_a_strange_path_leads_to_the_same_station():
    """Slashes, and percent signs for every letter."""
    async with a_station("odd-path", "encoded-id") as (central, _):
        await central.until(lambda: central.of("CP", "BootNotification"))

        assert central.requests["CP"][0].path == "/ocpp///%43%50/"


async def test_subprotocols_and_origin_are_as_the_faults_want():
    """None at all, or every one; and an Origin that no station needs."""
    async with a_station("no-subprotocol", "origin-header") as (central, _):
        await central.until(lambda: central.requests["CP"])
    headers = central.requests["CP"][0].headers
    async with a_station("offers-many", ocpp_version="2.1") as (central, _):
        await central.until(lambda: central.requests["CP"])
    offered = central.requests["CP"][0].headers["Sec-WebSocket-Protocol"]

    assert "Sec-WebSocket-Protocol" not in headers
    assert headers["Origin"] == "file://"
    assert offered == "ocpp2.1, ocpp1.6, ocpp2.0.1"


async def test_a_password_of_hex_digits_goes_out_as_bytes():
    """The raw bytes behind the colon."""
    async with a_station("password-as-bytes", password="00ff41") as (central, _):
        await central.until(lambda: central.requests["CP"])
    header = central.requests["CP"][0].headers["Authorization"]

    assert base64.b64decode(header.removeprefix("Basic ")) == b"CP:\x00\xff\x41"


async def test_a_probe_and_a_broken_handshake_come_before_the_link():
    """First another version, which says nothing; then the link proper."""
    async with a_station("probe-connection", "bad-handshake-first") as (central, _):
        await central.until(lambda: central.of("CP", "BootNotification"))
    offers = [each.headers["Sec-WebSocket-Protocol"] for each in central.requests["CP"]]

    assert offers == ["ocpp2.0.1", "ocpp1.6"]


async def test_pings_are_not_answered_but_calls_are():
    """The reason why liveness cannot rest on pongs alone."""
    async with a_station("no-pongs") as (central, _):
        await central.until(lambda: central.of("CP", "BootNotification"))
        waiter = asyncio.ensure_future(await central.sockets["CP"].ping())

        assert (await central.ask("CP", "GetLocalListVersion", {}))["listVersion"] == 0
        assert not waiter.done()


async def test_a_deaf_station_goes_on_talking():
    """It reports the plug and answers nothing."""
    async with a_station("deaf") as (central, station):
        await central.until(lambda: central.of("CP", "BootNotification"))
        await central.tell("CP", "GetConfiguration", {})
        await station.plug(1, a_bus())
        await central.until(lambda: central.of("CP", "StartTransaction"))

        assert central.frames("CP", 3) == central.frames("CP", 4) == []


async def test_a_link_that_is_dropped_all_the_time_comes_back():
    """Every 30 simulated seconds, without another boot."""
    async with a_station("connection-loop") as (central, _):
        await central.until(lambda: len(central.requests["CP"]) >= 3)

        assert len(central.of("CP", "BootNotification")) == 1


async def test_a_link_lost_restarts_a_station_that_reboots_on_it():
    """It boots again."""
    async with a_station("reboot-on-disconnect", restart_s=5.0) as (central, station):
        await station.wait_until(lambda each: each.is_online, 5)
        station.cut()

        await central.until(lambda: len(central.of("CP", "BootNotification")) == 2)


async def test_old_sessions_come_before_the_new_ones():
    """Three, two months old."""
    async with a_station("old-backlog") as (central, _):
        await central.until(lambda: len(central.of("CP", "StopTransaction")) == 3)
    starts = central.of("CP", "StartTransaction")

    assert {each["timestamp"][:7] for each in starts} == {"2026-09"}


@pytest.mark.parametrize("version", ["1.6", "2.1"])
async def test_a_clock_that_was_never_set(version: str):
    """All its times are in the first days of 1970."""
    async with a_station("clock-1970", ocpp_version=version) as (central, _):
        await central.until(lambda: central.of("CP", "StatusNotification"))

    assert central.of("CP", "StatusNotification")[0]["timestamp"][:7] == "1970-01"


@pytest.mark.parametrize(
    ("fault", "limit", "changes", "status"),
    [
        ("refuse-watts", 5_000.0, {}, "Rejected"),
        ("refuse-future-start", 5_000.0, {"startSchedule": stamp(START)}, "Rejected"),
        ("refuse-unplugged", 5_000.0, {}, "Rejected"),
        ("refuse-zero", 0.0, {}, "Rejected"),
        ("refuse-zero", 5_000.0, {}, "Accepted"),
    ],
)
async def test_profiles_are_refused_as_the_fault_says(
    fault: str, limit: float, changes: dict[str, Any], status: str
):
    """By unit, by start, without a vehicle, by a zero."""
    async with a_station(fault, speed=1.0) as (central, station):
        await station.wait_until(lambda each: each.is_online, 5)
        wanted = profile("1.6", limit, **changes)

        assert (await central.ask("CP", "SetChargingProfile", wanted))["status"] == status


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@pytest.mark.parametrize(
    ("fault", "drawn_w"),
    [
        ("ignore-defaults", 120_000.0),
        ("watts-read-as-kilowatts", 120_000.0),
        ("ignore-profiles", 120_000.0),
        ("stale-profile", 20_000.0),
        ("reboot-required", 50_000.0),
    ],
)
async def test_profiles_that_are_accepted_do_what_the_fault_says(
    version: str, fault: str, drawn_w: float
):
    """A default limit of 50 kW: ignored, misread, undercut, or obeyed."""
    async with a_station(fault, ocpp_version=version) as (central, station):
        await station.wait_until(lambda each: each.is_online, 5)
        wanted = profile(version, 50_000.0)
        answer = await central.ask("CP", "SetChargingProfile", wanted)
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w == drawn_w, 5)

        assert answer["status"] == "Accepted"


@pytest.mark.parametrize("version", ["1.6", "2.1"])
async def test_a_slow_profile_takes_effect_later(version: str):
    """Accepted at once, installed half a minute after."""
    async with a_station("slow-profiles", ocpp_version=version) as (central, station):
        await station.wait_until(lambda each: each.is_online, 5)
        wanted = profile(version, 50_000.0)
        answer = await central.ask("CP", "SetChargingProfile", wanted)
        was_installed = bool(station.profiles.installed)
        await station.wait_until(lambda each: bool(each.profiles.installed), 5)

        assert (answer, was_installed) == ({"status": "Accepted"}, False)


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        ("composite-empty", []),
        ("composite-wrong", [25_000.0]),
        ("composite-refused", None),
        ("clear-keeps", [50_000.0]),
    ],
)
async def test_composite_schedules_mislead(fault: str, answers: list[float] | None):
    """Of a limit of 50 kW, after it was cleared where the fault is about that."""
    async with a_station(fault) as (central, station):
        await station.wait_until(lambda each: each.is_online, 5)
        await central.ask("CP", "SetChargingProfile", profile("1.6", 50_000.0))
        if fault == "clear-keeps":
            await central.ask("CP", "ClearChargingProfile", {"id": 1})
        asked = {"connectorId": 1, "duration": 60, "chargingRateUnit": "W"}
        found = await central.ask("CP", "GetCompositeSchedule", asked)
    periods = found.get("chargingSchedule", {}).get("chargingSchedulePeriod")

    assert (periods and [each["limit"] for each in periods]) == answers


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [
        ("needs-unplug", "Accepted", "Rejected"),
        ("refuse-remote-stop", "Rejected", "Rejected"),
        ("extra-fields", "Accepted", "Accepted"),
    ],
)
async def test_remote_stop_and_start(fault: str, first: str, second: str):
    """A stop, then a start of the vehicle that is still plugged."""
    async with a_station(fault) as (central, station):
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)
        stop = await central.ask("CP", "RemoteStopTransaction", {"transactionId": 1})
        if first == "Accepted":
            await central.until(lambda: central.of("CP", "StopTransaction"))
        start = {"connectorId": 1, "idTag": "AB12"}
        begun = await central.ask("CP", "RemoteStartTransaction", start)

        assert (stop["status"], begun["status"]) == (first, second)


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_stray_messages_follow_an_end(version: str):
    """A closing reading, a false status and a stop of somebody else's transaction."""
    faults = ("reading-after-stop", "available-after-stop", "foreign-stop", "power-sticks")
    async with a_station(*faults, ocpp_version=version) as (central, station):
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)
        await station.unplug(1)

        def sticky() -> list[Any]:
            readings = [each["meterValue"] for each in central.of("CP", "MeterValues")]
            return [each for each in readings if "Power" in str(each)]

        await central.until(lambda: len(sticky()) >= 2)
    stops = central.of("CP", "StopTransaction") or [
        each
        for each in central.of("CP", "TransactionEvent")
        if each["eventType"] == "Ended"
    ]

    assert len(stops) == 2


async def test_a_station_resumes_its_transaction_after_a_restart():
    """No stop, no second start; power comes back."""
    async with a_station("resume-after-reboot", restart_s=10.0) as (central, station):
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)
        await station.reboot()
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)

        assert len(central.of("CP", "StartTransaction")) == 1
        assert central.of("CP", "StopTransaction") == []


async def test_an_outlet_locks_when_it_is_unplugged_under_a_zero_limit():
    """Unavailable until there is a limit again."""
    async with a_station("zero-then-unplug-locks") as (central, station):
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)
        await central.ask("CP", "SetChargingProfile", profile("1.6", 0.0))
        await station.unplug(1)
        await station.wait_until(lambda each: each.outlets[1].status == "Unavailable", 5)
        await central.ask("CP", "ClearChargingProfile", {})
        await station.wait_until(lambda each: each.outlets[1].status == "Available", 5)


async def test_macs_are_told_wrongly_or_late():
    """A card first and the MAC by DataTransfer; another MAC at each visit."""
    async with a_station("late-mac") as (central, station):
        await station.plug(1, a_bus())
        await central.until(lambda: central.of("CP", "DataTransfer"))
    tags = [each["idTag"] for each in central.of("CP", "StartTransaction")]
    async with a_station("mac-rotates") as (central, station):
        for number in (1, 2):
            await station.plug(1, a_bus())
            await central.until(
                lambda: len(central.of("CP", "StartTransaction")) == number  # noqa: B023
            )
            await station.unplug(1)
    rotated = {each["idTag"] for each in central.of("CP", "StartTransaction")}

    assert tags == ["04A2B7C9"]
    assert len(rotated) == 2
    assert {each[:10] for each in rotated} == {"VID:92D50A"}


async def test_an_error_answer_does_not_end_an_endless_boot_retry():
    """With fractions in currentTime it boots for ever, without them once."""
    async with a_station("refuses-fractions") as (central, _):
        central.time = "2026-11-21T00:00:00.123Z"
        await central.until(lambda: len(central.of("CP", "BootNotification")) >= 3)
        central.time = "2026-11-21T00:00:00Z"
        with suppress(TimeoutError):
            await central.until(lambda: central.of("CP", "StatusNotification"), 5)

        assert central.of("CP", "StatusNotification")
