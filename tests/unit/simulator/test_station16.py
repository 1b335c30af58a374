"""Virtual 1.6 stations against a tiny central system on loopback."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.simulator.clock import ScaledClock, parse_stamp, stamp
from agent.simulator.hardware import Outlet
from agent.simulator.station16 import VirtualStation16
from agent.simulator.station_config import LateMac, StationConfig, id_token
from agent.simulator.vehicle import VirtualVehicle
from tests.unit.simulator.tiny_central import TinyCentral, a_central

START = datetime(2026, 11, 21, 18, tzinfo=UTC)
MAC = "92D50A693F80"
SPEED = 600.0


def a_bus(**changes: Any) -> VirtualVehicle:
    facts: dict[str, Any] = {
        "name": "Bus 1",
        "mac": MAC,
        "capacity_wh": 400_000,
        "soc_percent": 30.0,
        "max_w": 120_000,
        "min_w": 3_000,
    }
    return VirtualVehicle(**{**facts, **changes})


@asynccontextmanager
async def a_station(
    central: TinyCentral, *faults: str, speed: float = SPEED, **changes: Any
) -> AsyncIterator[VirtualStation16]:
    config = StationConfig(
        station_id="CP-1",
        url=central.url,
        **{
            "faults": frozenset(faults),
            "backoff_first_real_s": 0.02,
            "slow_answer_real_s": 0.05,
            **changes,
        },
    )
    station = VirtualStation16(config, ScaledClock(START, speed))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(station.run())
        try:
            await station.wait_until(lambda each: each.is_online, 5)
            yield station
        finally:
            station.stop()


async def charging(station: VirtualStation16, **changes: Any) -> Outlet:
    await station.plug(1, a_bus(**changes))
    outlet = station.outlets[1]
    await station.wait_until(
        lambda _: outlet.transaction_id is not None and outlet.power_w > 1000, 5
    )
    return outlet


def a_profile(watts: float, purpose: str = "TxProfile", **changes: Any) -> Any:
    body: dict[str, Any] = {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "chargingRateUnit": "W",
            "startSchedule": stamp(START - timedelta(hours=1)),
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": watts}],
        },
    }
    if purpose == "TxProfile":
        body["transactionId"] = 1
    return {**body, **changes}


async def set_profile(central: TinyCentral, body: Any, connector: int = 1) -> str:
    frame = await central.call(
        "SetChargingProfile", {"connectorId": connector, "csChargingProfiles": body}
    )
    return str(frame[2]["status"])


async def test_a_night_at_one_plug_goes_from_boot_to_a_closed_transaction():
    """Boot, status, authorize, start, meter values, a lower limit, unplug, stop."""
    async with a_central() as central, a_station(central, password="secret") as station:
        outlet = await charging(station)
        await station.wait_until(lambda _: outlet.power_w > 119_000, 5)
        await central.until(lambda: len(central.of("MeterValues")) >= 2)

        assert await set_profile(central, a_profile(40_000)) == "Accepted"
        await station.wait_until(lambda _: 1_000 < outlet.power_w <= 40_000, 5)
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1:] == ["Available"])

    first = next(action for action, _ in central.calls)
    start = central.of("StartTransaction")[0]
    stop = central.of("StopTransaction")[0]
    assert first == "BootNotification"
    assert central.headers == ["Basic " + base64.b64encode(b"CP-1:secret").decode()]
    assert central.of("Authorize") == [{"idTag": f"VID:{MAC}"}]
    assert (start["connectorId"], start["meterStart"]) == (1, 0)
    assert (stop["transactionId"], stop["reason"]) == (1, "EVDisconnected")
    assert stop["meterStop"] == int(outlet.energy_wh) > 0
    assert [each["sampledValue"][0]["context"] for each in stop["transactionData"]] == [
        "Transaction.Begin",
        "Transaction.End",
    ]
    assert central.statuses() == [
        "Available",
        "Preparing",
        "Charging",
        "Finishing",
        "Available",
    ]


async def test_a_zero_limit_suspends_and_a_sleeper_never_comes_back():
    """SuspendedEVSE at 0 W; afterwards the vehicle that cannot resume stays off."""
    async with a_central() as central, a_station(central) as station:
        outlet = await charging(station, can_resume=False, sleep_after_s=60)
        await set_profile(central, a_profile(0))
        await station.wait_until(lambda _: outlet.status == "SuspendedEVSE", 5)
        await station.wait_until(lambda _: outlet.vehicle.is_asleep, 5)  # type: ignore[union-attr]
        await set_profile(central, a_profile(50_000))
        await station.wait_until(lambda _: outlet.status == "SuspendedEV", 5)

        assert outlet.power_w == 0


async def test_cut_off_it_charges_on_and_delivers_its_messages_later_without_boot():
    """A lost link is not a restart: one boot, all messages, in order."""
    async with a_central() as central, a_station(central) as station:
        outlet = await charging(station)
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        await station.unplug(1)
        await station.wait_until(lambda each: each.owed == 0, 5)

        assert outlet.transaction is None
        assert central.links == 2
        assert len(central.of("BootNotification")) == 1
        assert [each["transactionId"] for each in central.of("StopTransaction")] == [1]


async def test_transaction_messages_are_repeated_after_an_error():
    """A CALLERROR to StartTransaction brings it again, with the same content."""
    async with a_central() as central, a_station(central) as station:
        refusals = iter([["InternalError", "", {}]])
        answer = {"transactionId": 5, "idTagInfo": {"status": "Accepted"}}
        central.replies["StartTransaction"] = lambda _: next(refusals, answer)
        outlet = await charging(station)

        first, second = central.of("StartTransaction")
        assert first == second
        assert outlet.transaction_id == 5


async def test_a_refused_token_leaves_the_plug_waiting_for_a_remote_start():
    """Authorize refused: Preparing; RemoteStart with a profile then charges by it."""
    async with a_central() as central, a_station(central) as station:
        central.replies["Authorize"] = lambda _: {"idTagInfo": {"status": "Invalid"}}
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("Authorize")) == 1)
        profile = a_profile(30_000)
        del profile["transactionId"]
        frame = await central.call(
            "RemoteStartTransaction",
            {"idTag": "APP", "connectorId": 1, "chargingProfile": profile},
        )
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.power_w > 1_000, 5)
        stopped = await central.call("RemoteStopTransaction", {"transactionId": 1})
        await central.until(lambda: len(central.of("StopTransaction")) == 1)

        assert frame[2] == stopped[2] == {"status": "Accepted"}
        assert outlet.limit_w is None
        assert outlet.peak_w <= 30_000
        assert central.of("StopTransaction")[0]["reason"] == "Remote"


async def test_a_transaction_refused_at_the_start_ends_deauthorized():
    """StopTransactionOnInvalidId holds."""
    async with a_central() as central, a_station(central) as station:
        central.replies["StartTransaction"] = lambda _: {
            "transactionId": 9,
            "idTagInfo": {"status": "Blocked"},
        }
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("StopTransaction")) == 1)

        assert central.of("StopTransaction")[0]["reason"] == "DeAuthorized"


async def test_a_restart_ends_the_transaction_and_starts_a_new_one_after_boot():
    """Reset: stop, boot again, the same vehicle is recognised again."""
    async with a_central() as central, a_station(central) as station:
        await charging(station)
        await set_profile(central, a_profile(70_000, "TxDefaultProfile"), 0)
        await central.call("Reset", {"type": "Soft"})
        await central.until(lambda: len(central.of("StartTransaction")) == 2)
        await station.wait_until(lambda each: each.outlets[1].power_w > 1_000, 5)

        assert len(central.of("BootNotification")) == 2
        assert central.of("StopTransaction")[0]["reason"] == "SoftReset"
        assert station.outlets[1].limit_w == 70_000


async def test_one_unknown_measurand_rejects_the_whole_list():
    """Keys are found without case; an unknown key is NotSupported."""
    async with a_central() as central, a_station(central) as station:
        wanted = [
            ("metervaluessampleddata", "Energy.Active.Import.Register,Frequency"),
            ("MeterValuesSampledData", "Power.Active.Import,SoC,Current.Offered"),
            ("NumberOfConnectors", "3"),
            ("Colour", "red"),
        ]
        statuses = [
            (await central.call("ChangeConfiguration", {"key": key, "value": value}))[2]
            for key, value in wanted
        ]
        await charging(station)
        await central.until(lambda: len(central.of("MeterValues")) >= 1)

        samples = central.of("MeterValues")[0]["meterValue"][0]["sampledValue"]
        assert [each["status"] for each in statuses] == [
            "Rejected",
            "Accepted",
            "Rejected",
            "NotSupported",
        ]
        assert [each["measurand"] for each in samples] == [
            "Power.Active.Import",
            "SoC",
            "Current.Offered",
        ]


@pytest.mark.parametrize(
    ("action", "payload", "expected"),
    [
        ("Nonsense", {}, "NotImplemented"),
        ("Reset", [], "FormationViolation"),
        ("Reset", {}, "OccurenceConstraintViolation"),
        ("UnlockConnector", {"connectorId": "x"}, "TypeConstraintViolation"),
        ("GetLocalListVersion", {}, {"listVersion": 0}),
        ("ClearCache", {}, {"status": "Accepted"}),
        (
            "GetConfiguration",
            {"key": ["Colour"]},
            {"configurationKey": [], "unknownKey": ["Colour"]},
        ),
        ("TriggerMessage", {"requestedMessage": "Song"}, {"status": "NotImplemented"}),
        ("TriggerMessage", {"requestedMessage": "Heartbeat"}, {"status": "Accepted"}),
        ("GetDiagnostics", {"location": "ftp://x"}, {"fileName": "diagnostics.zip"}),
        (
            "ChangeAvailability",
            {"connectorId": 9, "type": "Operative"},
            {"status": "Rejected"},
        ),
        ("RemoteStopTransaction", {"transactionId": 9}, {"status": "Rejected"}),
        ("ClearChargingProfile", {}, {"status": "Unknown"}),
    ],
)
async def test_calls_are_answered_as_the_standard_says(
    action: str, payload: Any, expected: Any
):
    """Known actions by their answer, broken ones by their error code."""
    async with a_central() as central, a_station(central):
        frame = await central.call(action, payload)

        assert frame[2] == expected


async def test_a_late_mac_comes_by_data_transfer():
    """Identified by card, the vehicle's MAC follows."""
    late = LateMac(vendor_id="acme", message_id="mac", after_s=5)
    async with (
        a_central() as central,
        a_station(central, id_form="rfid:CARD", late_mac=late) as station,
    ):
        await charging(station)
        await central.until(lambda: len(central.of("DataTransfer")) == 1)

        assert central.of("Authorize") == [{"idTag": "CARD"}]
        assert central.of("DataTransfer")[0]["data"] == f'{{"mac":"{MAC}","connectorId":1}}'


def test_a_mac_takes_every_shape_seen_in_the_field():
    """The forms of identification that stations use."""
    forms = (
        "vid",
        "vid-lower",
        "vid-colons",
        "bare",
        "evccid-front",
        "evccid-rear",
        "none",
    )

    assert [id_token(each, MAC) for each in forms] == [
        "VID:92D50A693F80",
        "vid:92d50a693f80",
        "VID:92:D5:0A:69:3F:80",
        "92D50A693F80",
        "000092D50A693F80",
        "92D50A693F800000",
        None,
    ]


def test_an_unknown_fault_is_named_with_its_nearest():
    """A slip of the pen is answered with a suggestion."""
    with pytest.raises(ValueError, match="the nearest is 'start-twice'"):
        StationConfig(station_id="CP", url="", faults=frozenset({"start-twise"}))


async def test_fault_ignore_profiles_accepts_and_draws_on():
    """Accepted is not obeyed."""
    async with a_central() as central, a_station(central, "ignore-profiles") as station:
        outlet = await charging(station)
        status = await set_profile(central, a_profile(10_000))
        energy_wh = outlet.energy_wh
        await station.wait_until(lambda _: outlet.energy_wh > energy_wh + 500, 5)

        assert status == "Accepted"
        assert outlet.power_w > 100_000


@pytest.mark.parametrize(
    ("fault", "limit", "status"),
    [
        ("refuse-profiles", 9_000, "Rejected"),
        ("refuse-zero", 0, "Rejected"),
        ("refuse-zero", 9_000, "Accepted"),
    ],
)
async def test_faults_that_refuse_profiles(fault: str, limit: float, status: str):
    """All, or only those with a zero."""
    async with a_central() as central, a_station(central, fault):
        body = a_profile(limit, "TxDefaultProfile")

        assert await set_profile(central, body) == status


async def test_fault_zero_ends_transaction():
    """A pause is taken for an end."""
    async with (
        a_central() as central,
        a_station(central, "zero-ends-transaction") as station,
    ):
        await charging(station)
        await set_profile(central, a_profile(0))
        await central.until(lambda: len(central.of("StopTransaction")) == 1)

        assert central.of("StopTransaction")[0]["reason"] == "Other"


async def test_fault_forget_limit_after_zero():
    """After a pause it goes on without limit."""
    async with (
        a_central() as central,
        a_station(central, "forget-limit-after-zero") as station,
    ):
        outlet = await charging(station)
        await set_profile(central, a_profile(0))
        await station.wait_until(lambda _: outlet.status == "SuspendedEVSE", 5)
        await set_profile(central, a_profile(10_000))
        await station.wait_until(lambda _: outlet.power_w > 100_000, 5)

        assert outlet.limit_w is None


async def test_faults_start_and_stop_twice_repeat_the_same_content():
    """Each message comes two times."""
    async with (
        a_central() as central,
        a_station(central, "start-twice", "stop-twice") as station,
    ):
        await charging(station)
        await station.unplug(1)
        await central.until(lambda: len(central.of("StopTransaction")) == 2)

        for action in ("StartTransaction", "StopTransaction"):
            first, second = central.of(action)
            assert first == second


async def test_fault_minus_one_after_offline_hides_the_transaction_id():
    """Begun without a link, it never learns its id."""
    fault = "tx-id-minus-one-after-offline"
    async with (
        a_central() as central,
        a_station(central, fault, backoff_first_real_s=0.3) as station,
    ):
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        await station.plug(1, a_bus())
        await station.wait_until(lambda each: each.outlets[1].power_w > 0, 5)
        await station.wait_until(lambda each: each.is_online, 5)
        await station.unplug(1)
        await central.until(lambda: len(central.of("StopTransaction")) == 1)

        assert central.of("StopTransaction")[0]["transactionId"] == -1


async def test_fault_boot_on_reconnect_boots_each_time():
    """Two links, two boots."""
    async with a_central() as central, a_station(central, "boot-on-reconnect") as station:
        station.cut()
        await central.until(lambda: len(central.of("BootNotification")) == 2)

        assert central.links == 2


async def test_fault_lose_profiles_on_reboot_forgets_the_default():
    """Without the fault it would survive."""
    async with (
        a_central() as central,
        a_station(central, "lose-profiles-on-reboot") as station,
    ):
        await set_profile(central, a_profile(9_000, "TxDefaultProfile"))
        await central.call("Reset", {"type": "Hard"})
        await central.until(lambda: len(central.of("BootNotification")) == 2)

        assert station.profiles.installed == []


async def test_fault_clock_ahead_shows_in_every_time_stamp():
    """Its transaction begins two hours from now, and profiles shift with it."""
    async with (
        a_central() as central,
        a_station(central, "clock-two-hours-ahead") as station,
    ):
        await charging(station)

        start = parse_stamp(central.of("StartTransaction")[0]["timestamp"])
        assert start - START > timedelta(hours=2)
        assert station.outlets[1].trace[-1].time - START < timedelta(hours=2)


async def test_fault_swallow_leaves_every_fifth_call_unanswered():
    """Four answers, then silence, then answers again."""
    async with a_central() as central, a_station(central, "swallow-nth-call"):
        for _ in range(4):
            await central.call("ClearCache", {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await central.call("ClearCache", {})

        assert (await central.call("ClearCache", {}))[0] == 3


async def test_composite_tells_the_limits_or_is_refused_by_a_fault():
    """Indicative, in W, from now on."""
    question = {"connectorId": 1, "duration": 600}
    async with a_central() as central, a_station(central):
        await set_profile(central, a_profile(9_000, "TxDefaultProfile"))
        good = (await central.call("GetCompositeSchedule", question))[2]
    async with a_central() as central, a_station(central, "composite-refused"):
        bad = (await central.call("GetCompositeSchedule", question))[2]

    periods = good["chargingSchedule"]["chargingSchedulePeriod"]
    assert periods == [{"startPeriod": 0, "limit": 9_000.0}]
    assert bad == {"status": "Rejected"}


async def test_faults_of_reporting_show_in_what_the_central_system_reads():
    """A storm of statuses, unknown codes, 0 % first, kWh, JSON numbers, garbage."""
    faults = ("status-storm", "unknown-error-code", "soc-zero-first", "energy-in-kwh")
    rest = ("numbers-as-numbers", "invalid-json", "slow-answers", "register-restarts")
    overrides = {"MeterValuesSampledData": "Energy.Active.Import.Register,SoC"}
    async with (
        a_central() as central,
        a_station(central, *faults, *rest, overrides=overrides) as station,
    ):
        await charging(station)
        await central.until(lambda: len(central.of("MeterValues")) >= 3)

        assert central.statuses().count("Preparing") == 25
        assert central.of("StatusNotification")[0]["errorCode"] == "PlcModemShy"
        assert len(central.garbage) == 1
        readings = [
            each["meterValue"][0]["sampledValue"] for each in central.of("MeterValues")
        ]
        assert readings[0][0]["unit"] == "kWh"
        assert [each[1]["value"] > 0 for each in readings[:3]] == [False, False, True]


async def test_two_outlets_share_the_supply_of_their_station():
    """Together never more than the cabinet, and the station maximum is for the sum."""
    async with (
        a_central() as central,
        a_station(central, connectors=2, max_w=160_000) as station,
    ):
        one, two = station.outlets.values()
        await station.plug(1, a_bus())
        await station.plug(2, a_bus(mac="92D50A693F81"))
        await station.wait_until(lambda _: one.power_w > 79_000 < two.power_w, 5)
        full_w = one.power_w + two.power_w
        await set_profile(central, a_profile(50_000, "ChargePointMaxProfile"), 0)
        await station.wait_until(lambda _: one.power_w + two.power_w < 50_001, 5)

        assert full_w == pytest.approx(160_000)


async def test_a_pending_station_boots_again_before_it_says_anything_else():
    """Nothing but BootNotification until accepted."""
    async with a_central() as central:
        answers = iter(["Pending", "Rejected"])
        central.replies["BootNotification"] = lambda _: {
            "status": next(answers, "Accepted"),
            "interval": 5,
            "currentTime": stamp(START),
        }
        async with a_station(central):
            await central.until(lambda: len(central.of("StatusNotification")) == 2)

    assert [action for action, _ in central.calls][:4] == [
        "BootNotification",
        "BootNotification",
        "BootNotification",
        "StatusNotification",
    ]


async def test_broken_answers_of_the_central_system_do_not_stop_a_station():
    """Wrong types in answers count as failures, and the station lives on."""
    async with a_central() as central, a_station(central) as station:
        central.replies["Authorize"] = lambda _: {"idTagInfo": None}
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("Authorize")) == 1)
        await station.unplug(1)
        central.replies = {"StartTransaction": lambda _: {"transactionId": "seven"}}
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("StopTransaction")) == 1)

        assert central.of("StopTransaction")[0]["transactionId"] == -1
