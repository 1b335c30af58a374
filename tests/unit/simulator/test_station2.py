"""Virtual 2.x stations against a tiny central system on loopback; frames are checked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agent.simulator.clock import parse_stamp, stamp
from agent.simulator.station_config import LateMac
from agent.simulator.tokens2 import id_token2
from tests.unit.simulator.station2_support import (
    MAC,
    START,
    VERSIONS,
    a_bus,
    a_pair,
    a_profile2,
    a_station2,
    charging,
    read,
    set_profile,
    write,
)
from tests.unit.simulator.tiny_central2 import TinyCentral2, a_central2


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_night_at_one_plug_goes_from_boot_to_a_closed_transaction(version: str):
    """Boot, status, authorize, start, meter values, a lower limit, unplug, end."""
    async with a_pair(version=version) as (central, station):
        outlet = await charging(station)
        await station.wait_until(lambda _: outlet.power_w > 119_000, 5)
        await central.until(
            lambda: sum("meterValue" in each for each in central.events) >= 3
        )
        assert await set_profile(central, a_profile2(40_000), outlet) == ("Accepted", "")
        await station.wait_until(lambda _: 1_000 < outlet.power_w <= 40_000, 5)
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1:] == ["Available"])
        await station.wait_until(lambda each: each.owed == 0, 5)

    assert central.calls[0][0] == "BootNotification"
    assert central.calls[0][1]["reason"] == "PowerUp"
    token = {"idToken": MAC, "type": "MacAddress"}
    assert central.of("Authorize") == [{"idToken": token}]
    events = central.events
    assert central.told() == [
        ("Started", "Authorized"),
        ("Updated", "ChargingStateChanged"),
        ("Ended", "EVCommunicationLost"),
    ]
    assert [each["seqNo"] for each in events] == list(range(len(events)))
    assert [each.get("evse") for each in events[:2]] == [{"id": 1, "connectorId": 1}, None]
    assert len({each["transactionInfo"]["transactionId"] for each in events}) == 1
    assert [at for at, each in enumerate(events) if "idToken" in each] == [
        0,
        len(events) - 1,
    ]
    assert not any("offline" in each for each in events)
    assert central.states() == ["EVConnected", "Charging", "Idle"]
    assert events[-1]["transactionInfo"]["stoppedReason"] == "EVDisconnected"
    first, last = (each["sampledValue"][0] for each in events[-1]["meterValue"])
    assert (first["context"], first["value"]) == ("Transaction.Begin", 0.0)
    assert (last["context"], last["value"]) == (
        "Transaction.End",
        float(int(outlet.energy_wh)),
    )
    assert central.statuses() == ["Available", "Occupied", "Available"]
    assert station.profiles.installed == []


STARTS = {
    "EVConnected": ("CablePluggedIn", "EVConnected", False),
    "Authorized": ("Authorized", "EVConnected", True),
    "PowerPathClosed": ("Authorized", "Charging", True),
    "EnergyTransfer": ("Authorized", "Charging", True),
    "ParkingBayOccupancy": ("EVDetected", "Idle", False),
}


@pytest.mark.parametrize("point", STARTS)
async def test_a_transaction_starts_where_tx_start_point_says(point: str):
    """Its first event tells why, how far it is, and who it is if that is known."""
    trigger, state, has_token = STARTS[point]
    settings = {"TxCtrlr.TxStartPoint": point}
    async with a_pair(variables=settings) as (central, station):
        await charging(station)
        await central.until(lambda: "Charging" in central.states())
        started = central.events[0]

        assert (started["eventType"], started["triggerReason"]) == ("Started", trigger)
        assert started["transactionInfo"]["chargingState"] == state
        assert ("idToken" in started) == has_token
        assert sum("idToken" in each for each in central.events) == 1
        assert sum("evse" in each for each in central.events) == 1


async def test_an_energy_transfer_transaction_waits_for_energy():
    """At a limit of 0 nothing begins; with power it does."""
    settings = {"TxCtrlr.TxStartPoint": "EnergyTransfer"}
    async with a_pair(variables=settings) as (central, station):
        stop = a_profile2(0, purpose="TxDefaultProfile")
        await set_profile(central, stop, 1)
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("Authorize")) == 1)
        await asyncio.sleep(0.1)
        before = list(central.events)
        await set_profile(central, a_profile2(20_000, purpose="TxDefaultProfile"), 1)
        await central.until(lambda: len(central.events) > 0)

        assert before == []
        assert central.told()[0] == ("Started", "ChargingStateChanged")


STOPS = {
    "EVConnected": [("Updated", "RemoteStop"), ("Ended", "EVCommunicationLost")],
    "Authorized": [("Ended", "RemoteStop")],
    "PowerPathClosed": [("Ended", "RemoteStop")],
    "ParkingBayOccupancy": [("Updated", "RemoteStop"), ("Ended", "EVDeparted")],
}


@pytest.mark.parametrize("point", STOPS)
async def test_a_transaction_stops_where_tx_stop_point_says(point: str):
    """Power ends at once; the transaction at its point, with the reason of the stop."""
    async with a_pair(variables={"TxCtrlr.TxStopPoint": point}) as (central, station):
        outlet = await charging(station)
        answer = await central.ask(
            "RequestStopTransaction", {"transactionId": outlet.transaction_id}
        )
        await central.until(lambda: STOPS[point][0] in central.told())
        assert outlet.power_w == 0
        await station.unplug(1)
        await central.until(lambda: central.has("Ended"))

        assert answer == {"status": "Accepted"}
        assert central.told()[-len(STOPS[point]) :] == STOPS[point]
        assert central.events[-1]["transactionInfo"]["stoppedReason"] == "Remote"


async def test_a_transaction_may_outlive_the_plug_for_a_while():
    """Stopping only on authorisation, without StopTxOnEVSideDisconnect, it waits."""
    settings = {
        "TxCtrlr.TxStopPoint": "Authorized",
        "TxCtrlr.StopTxOnEVSideDisconnect": "false",
    }
    async with a_pair(variables=settings) as (central, station):
        await charging(station)
        await station.unplug(1)
        await central.until(lambda: ("Updated", "EVCommunicationLost") in central.told())
        await central.until(lambda: central.has("Ended"))

        assert central.told()[-1] == ("Ended", "EVConnectTimeout")
        assert station.outlets[1].transaction is None


async def test_cut_off_it_charges_on_and_delivers_its_events_later_in_order():
    """Marked offline, numbered on, without a boot."""
    async with a_pair(backoff_first_real_s=0.6) as (central, station):
        outlet = await charging(station)
        await station.wait_until(lambda each: each.owed == 0, 5)
        known = len(central.events)
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        energy_wh = outlet.energy_wh
        await station.wait_until(lambda _: outlet.energy_wh > energy_wh + 4_000, 5)
        await station.unplug(1)
        await station.wait_until(lambda each: each.is_online and each.owed == 0, 5)
        await central.until(lambda: central.statuses()[-1] == "Available")

        late = central.events[known:]
        assert len(late) >= 3
        assert all(each["offline"] for each in late)
        assert [each["seqNo"] for each in central.events] == list(
            range(len(central.events))
        )
        assert late[-1]["eventType"] == "Ended"
        assert len(central.of("BootNotification")) == 1


async def test_begun_offline_the_whole_transaction_comes_later():
    """The station makes its own id, so nothing waits for an answer."""
    async with a_pair(backoff_first_real_s=0.2) as (central, station):
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        await charging(station)
        await station.unplug(1)
        await station.wait_until(lambda each: each.is_online and each.owed == 0, 5)

        assert central.told()[0] == ("Started", "Authorized")
        assert central.told()[-1] == ("Ended", "EVCommunicationLost")
        assert all(each["offline"] for each in central.events)
        assert central.of("Authorize") == []


async def test_events_are_repeated_after_an_error_and_given_up_in_the_end():
    """MessageAttempts times; the event after it goes through."""
    async with a_pair() as (central, station):
        await write(central, "OCPPCommCtrlr.MessageAttempts[TransactionEvent]", "3")
        await write(central, "OCPPCommCtrlr.MessageAttemptInterval[TransactionEvent]", "5")
        refused = iter([["InternalError", "", {}]] * 3)
        central.replies["TransactionEvent"] = lambda _: next(refused, {})
        await charging(station)
        await station.wait_until(lambda each: each.owed == 0, 5)

        numbers = [each["seqNo"] for each in central.events]
        assert numbers[:4] == [0, 0, 0, 1]


async def test_over_its_bound_the_queue_drops_every_second_update_only():
    """Started and Ended stay."""
    async with a_pair(events_max=6, backoff_first_real_s=0.4) as (central, station):
        await write(central, "SampledDataCtrlr.TxUpdatedInterval", "10")
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        outlet = await charging(station)
        await station.wait_until(lambda _: outlet.transaction.seq_no > 12, 5)  # type: ignore[union-attr]
        await station.unplug(1)
        await station.wait_until(lambda each: each.is_online and each.owed == 0, 5)

        kinds = [each["eventType"] for each in central.events]
        assert (kinds[0], kinds[-1]) == ("Started", "Ended")
        assert len(kinds) <= 7
        assert central.events[-1]["seqNo"] > 12


async def test_a_refused_token_leaves_the_plug_waiting_for_a_request_to_start():
    """Then the request's token and number go into the next event, once."""
    async with a_pair() as (central, station):
        central.replies["Authorize"] = lambda _: {"idTokenInfo": {"status": "Invalid"}}
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.of("Authorize")) == 1)
        token = {"idToken": "desk", "type": "Central"}
        answer = await central.ask(
            "RequestStartTransaction", {"idToken": token, "remoteStartId": 41, "evseId": 1}
        )
        await station.wait_until(lambda each: each.outlets[1].power_w > 1000, 5)
        await central.until(lambda: len(central.events) >= 2)

        assert answer == {"status": "Accepted"}
        started = central.events[0]
        assert (started["eventType"], started["triggerReason"]) == (
            "Started",
            "RemoteStart",
        )
        assert started["idToken"] == token
        assert [
            each["transactionInfo"].get("remoteStartId") for each in central.events[:2]
        ] == [41, None]


async def test_a_request_to_start_carries_a_profile_for_the_transaction_to_come():
    """Installed with the id that the station makes; a bad one refuses the start."""
    question = {"idToken": {"idToken": "desk", "type": "Central"}, "remoteStartId": 1}
    async with a_pair(id_form="none") as (central, station):
        await station.plug(1, a_bus())
        bad = a_profile2(9_000, transactionId="x")
        refused = await central.ask(
            "RequestStartTransaction", {**question, "chargingProfile": bad}
        )
        good = a_profile2(9_000)
        taken = await central.ask(
            "RequestStartTransaction", {**question, "chargingProfile": good}
        )
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.power_w > 1000, 5)

        assert refused["statusInfo"]["reasonCode"] == "InvalidProfile"
        assert taken["status"] == "Accepted"
        assert outlet.limit_w == 9_000
        (installed,) = station.profiles.installed
        assert installed.profile.transaction_id == outlet.transaction_id


async def test_a_request_to_start_without_a_plug_times_out():
    """It ends with EVConnectTimeout, and the outlet is free again."""
    question = {"idToken": {"idToken": "desk", "type": "Central"}, "remoteStartId": 1}
    async with a_pair() as (central, station):
        await write(central, "TxCtrlr.EVConnectionTimeOut", "20")
        await central.ask("RequestStartTransaction", question)
        await central.until(lambda: len(central.events) == 2)

        assert central.told() == [("Started", "RemoteStart"), ("Ended", "EVConnectTimeout")]
        assert central.events[1]["transactionInfo"]["stoppedReason"] == "Timeout"
        assert station.outlets[1].transaction is None
        assert not any("evse" in each for each in central.events)


@pytest.mark.parametrize(("stops", "last"), [("true", "Ended"), ("false", "Updated")])
async def test_a_token_refused_in_the_answer_to_the_start_stops_the_power(
    stops: str, last: str
):
    """StopTxOnInvalidId decides whether the transaction goes with it."""
    async with a_pair(variables={"TxCtrlr.StopTxOnInvalidId": stops}) as (central, station):
        central.replies["TransactionEvent"] = lambda payload: (
            {"idTokenInfo": {"status": "Blocked"}} if "idToken" in payload else {}
        )
        await station.plug(1, a_bus())
        await central.until(lambda: len(central.events) >= 3)
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.power_w == 0, 5)

        assert central.events[-1]["eventType"] == last
        assert (outlet.transaction_id is None) == (stops == "true")


async def test_a_zero_limit_suspends_and_a_sleeper_never_comes_back():
    """SuspendedEVSE at 0 W; afterwards the vehicle that cannot resume stays off."""
    async with a_pair() as (central, station):
        outlet = await charging(station, can_resume=False, sleep_after_s=60)
        await set_profile(central, a_profile2(0), outlet)
        await central.until(lambda: central.states()[-1:] == ["SuspendedEVSE"])
        await station.wait_until(lambda _: outlet.vehicle.is_asleep, 5)  # type: ignore[union-attr]
        await set_profile(central, a_profile2(50_000), outlet)
        await central.until(lambda: central.states()[-1:] == ["SuspendedEV"])

        assert outlet.power_w == 0


async def test_a_reset_ends_the_transaction_and_a_new_one_starts_after_the_boot():
    """ResetCommand, ImmediateReset, boot with RemoteReset, then a new id."""
    async with a_pair() as (central, station):
        await charging(station)
        answer = await central.ask("Reset", {"type": "Immediate"})
        await central.until(lambda: ("Ended", "ResetCommand") in central.told())
        await central.until(
            lambda: [each["eventType"] for each in central.events].count("Started") == 2
        )

        assert answer == {"status": "Accepted"}
        assert [each["reason"] for each in central.of("BootNotification")] == [
            "PowerUp",
            "RemoteReset",
        ]
        ids = {each["transactionInfo"]["transactionId"] for each in central.events}
        assert len(ids) == 2


async def test_a_reset_on_idle_waits_for_the_vehicle_to_go():
    """Scheduled first."""
    async with a_pair() as (central, station):
        await charging(station)
        answer = await central.ask("Reset", {"type": "OnIdle"})
        await asyncio.sleep(0.05)
        boots = len(central.of("BootNotification"))
        await station.unplug(1)
        await central.until(lambda: len(central.of("BootNotification")) == 2)

        assert answer == {"status": "Scheduled"}
        assert boots == 1
        assert central.of("BootNotification")[1]["reason"] == "ScheduledReset"


async def test_a_station_of_21_may_resume_its_transaction_after_a_restart():
    """TxResumed with the same id; its TxProfile did not persist."""
    settings = {"TxCtrlr.ResumptionTimeout": "300"}
    async with a_pair(version="2.1", variables=settings) as (central, station):
        outlet = await charging(station)
        transaction_id = outlet.transaction_id
        await set_profile(central, a_profile2(40_000), outlet)
        await station.reboot()
        await central.until(lambda: ("Updated", "TxResumed") in central.told())
        await station.wait_until(lambda _: outlet.power_w > 100_000, 5)

        assert outlet.transaction_id == transaction_id
        assert station.profiles.installed == []


async def test_a_pending_station_answers_and_reports_but_says_nothing_of_its_own():
    """Variables and reports go through; only then it is accepted and speaks."""
    async with a_central2() as central:
        answers = iter(["Pending", "Pending"])
        central.replies["BootNotification"] = lambda _: {
            "status": next(answers, "Accepted"),
            "interval": 120,
            "currentTime": stamp(START),
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_commission(central))
            async with a_station2(central):
                await central.until(lambda: len(central.of("StatusNotification")) == 1)

    names = [action for action, _ in central.calls]
    spoken = [name for name in names if name not in ("BootNotification", "NotifyReport")]
    assert names[0] == "BootNotification"
    assert spoken == ["StatusNotification"]
    assert names.index("NotifyReport") < names.index("StatusNotification")
    assert [each["reason"] for each in central.of("BootNotification")][1:] == [
        "Triggered",
        "PowerUp",
    ]


async def _commission(central: TinyCentral2) -> None:
    await central.until(lambda: len(central.of("BootNotification")) == 1)
    assert await write(central, "OCPPCommCtrlr.WebSocketPingInterval", "30") == "Accepted"
    report = {"requestId": 5, "reportBase": "ConfigurationInventory"}
    assert await central.ask("GetBaseReport", report) == {"status": "Accepted"}
    await central.until(lambda: central.of("NotifyReport")[-1:] != [])
    refused = await central.ask(
        "RequestStartTransaction",
        {"idToken": {"idToken": "x", "type": "Local"}, "remoteStartId": 1},
    )
    assert refused == {"status": "Rejected"}
    trigger = {"requestedMessage": "BootNotification"}
    assert await central.ask("TriggerMessage", trigger) == {"status": "Accepted"}


FORMS = {
    "vid": {"idToken": MAC, "type": "MacAddress"},
    "vid-lower": {"idToken": MAC.lower(), "type": "MacAddress"},
    "vid-colons": {"idToken": "92:D5:0A:69:3F:80", "type": "MacAddress"},
    "bare": {"idToken": MAC, "type": "Central"},
    "central-vid": {"idToken": f"VID:{MAC}", "type": "Central"},
    "evccid-front": {"idToken": f"0000{MAC}", "type": "MacAddress"},
    "rfid:04AABBCC": {"idToken": "04AABBCC", "type": "ISO14443"},
    "rfid+mac:04AABBCC": {
        "idToken": "04AABBCC",
        "type": "ISO14443",
        "additionalInfo": [{"additionalIdToken": MAC, "type": "MacAddress"}],
    },
    "emaid": {
        "idToken": "DEDEPC0A693F80",
        "type": "eMAID",
        "additionalInfo": [{"additionalIdToken": MAC, "type": "EVCCID"}],
    },
    "no-auth": {"idToken": "", "type": "NoAuthorization"},
    "none": None,
}


def test_a_mac_takes_every_form_of_token():
    """The forms of 1.6 and those of 2.x alone; 2.1 has a type for eight bytes."""
    assert {each: id_token2(each, MAC, "2.0.1") for each in FORMS} == FORMS
    assert id_token2("evccid-front", MAC, "2.1") == {
        "idToken": f"0000{MAC}",
        "type": "EVCCID",
    }


async def test_without_a_token_of_its_own_the_mac_is_in_the_device_model_alone():
    """NoAuthorization asks nobody; ConnectedEV tells who is there while it is."""
    async with a_pair(id_form="no-auth") as (central, station):
        before = await read(central, "ConnectedEV#1.Available")
        await charging(station)
        during = [
            await read(central, f"ConnectedEV#1.{name}")
            for name in ("Available", "VehicleId")
        ]
        await station.unplug(1)
        after = await read(central, "ConnectedEV#1.VehicleId")

        assert (before, during, after) == ("false", ["true", MAC], "")
        assert central.of("Authorize") == []
        assert central.events[0]["idToken"] == {"idToken": "", "type": "NoAuthorization"}


async def test_a_late_mac_comes_by_data_transfer():
    """Identified by card, the vehicle's MAC follows."""
    late = LateMac(vendor_id="acme", message_id="mac", after_s=5)
    async with a_pair(id_form="rfid:CARD", late_mac=late) as (central, station):
        await charging(station)
        await central.until(lambda: len(central.of("DataTransfer")) == 1)

        assert central.of("DataTransfer")[0]["data"] == f'{{"mac":"{MAC}","connectorId":1}}'


async def test_aligned_values_come_at_whole_intervals_and_a_stream_with_them():
    """MeterValues without a transaction, MeterValueClock with one, SEND in 2.1."""
    async with a_pair(version="2.1", streams=True, connectors=2) as (central, station):
        await charging(station)
        await write(central, "AlignedDataCtrlr.Interval", "60")
        await central.until(
            lambda: (
                bool(central.of("MeterValues"))
                and any(name == "MeterValueClock" for _, name in central.told())
                and bool(central.streamed)
            )
        )

        assert {each["evseId"] for each in central.of("MeterValues")} == {2}
        sample = central.of("MeterValues")[0]["meterValue"][0]["sampledValue"][0]
        assert sample["context"] == "Sample.Clock"


async def test_frames_of_21_that_need_no_answer_are_understood():
    """A CALLRESULTERROR goes into the ledger, and the station lives on."""
    async with a_pair(version="2.1") as (central, station):
        await central.send([5, "x-1", "FormatViolation", "", {}])
        await station.wait_until(
            lambda each: any(row.kind == "CALLRESULTERROR" for row in each.ledger), 5
        )
        await station.stream()
        await central.until(lambda: len(central.streamed) == 1)

        assert central.streamed[0]["data"] == [{"t": 0, "v": "0"}]


async def test_two_outlets_share_the_supply_of_their_station():
    """Together never more than the cabinet, and the station maximum is for the sum."""
    async with a_pair(connectors=2, max_w=160_000) as (central, station):
        one, two = station.outlets.values()
        await station.plug(1, a_bus())
        await station.plug(2, a_bus(mac="92D50A693F81"))
        await station.wait_until(lambda _: one.power_w > 79_000 < two.power_w, 5)
        most = a_profile2(50_000, purpose="ChargingStationMaxProfile")
        await set_profile(central, most, 0)
        await station.wait_until(lambda _: one.power_w + two.power_w < 50_001, 5)

        assert one.transaction_id != two.transaction_id


async def test_faults_start_and_stop_twice_repeat_the_same_content():
    """Each event comes two times."""
    async with a_pair("start-twice", "stop-twice") as (central, station):
        await charging(station)
        await station.unplug(1)
        await central.until(
            lambda: [each["eventType"] for each in central.events].count("Ended") == 2
        )

        for kind in ("Started", "Ended"):
            first, second = (each for each in central.events if each["eventType"] == kind)
            assert first == second


async def test_faults_of_order_and_number_show_in_the_events():
    """After a spell without a link the end comes first, and each number is 0."""
    faults = ("ended-first", "repeat-seq-no")
    async with a_pair(*faults, backoff_first_real_s=0.7) as (central, station):
        outlet = await charging(station)
        await station.wait_until(lambda each: each.owed == 0, 5)
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        energy_wh = outlet.energy_wh
        await station.wait_until(lambda _: outlet.energy_wh > energy_wh + 5_000, 5)
        await station.unplug(1)
        await station.wait_until(lambda each: each.is_online and each.owed == 0, 5)

        kinds = [each["eventType"] for each in central.events]
        assert "Updated" in kinds[kinds.index("Ended") :]
        assert {each["seqNo"] for each in central.events} == {0}


async def test_faults_of_reporting_show_in_what_the_central_system_reads():
    """A storm of statuses, EVSE 0, 0 % first, kWh, garbage, a clock ahead."""
    faults = ("status-storm", "status-evse-zero", "soc-zero-first", "energy-in-kwh")
    rest = ("invalid-json", "slow-answers", "register-restarts", "clock-two-hours-ahead")
    names = "Energy.Active.Import.Register,SoC"
    settings = {"SampledDataCtrlr.TxUpdatedMeasurands": names}
    async with a_pair(*faults, *rest, variables=settings) as (central, station):
        await charging(station)

        def periodic() -> list[Any]:
            return [
                each["meterValue"][0]["sampledValue"]
                for each in central.events
                if each["triggerReason"] == "MeterValuePeriodic"
            ]

        await central.until(lambda: len(periodic()) >= 3)

        assert central.statuses().count("Occupied") == 25
        assert central.statuses(0) == ["Available"]
        assert len(central.garbage) == 1
        assert periodic()[0][0]["unitOfMeasure"] == {"unit": "kWh"}
        assert [each[1]["value"] > 0 for each in periodic()[:3]] == [False, False, True]
        start = parse_stamp(central.events[0]["timestamp"])
        assert start - START > timedelta(hours=2)


async def test_faults_of_pausing_end_or_forget():
    """A pause is taken for an end; or after it there is no limit any more."""
    async with a_pair("zero-ends-transaction") as (central, station):
        outlet = await charging(station)
        await set_profile(central, a_profile2(0), outlet)
        await central.until(lambda: ("Ended", "AbnormalCondition") in central.told())
    async with a_pair("forget-limit-after-zero") as (central, station):
        outlet = await charging(station)
        await set_profile(central, a_profile2(0), outlet)
        await station.wait_until(lambda _: outlet.power_w == 0, 5)
        await set_profile(central, a_profile2(10_000), outlet)
        await station.wait_until(lambda _: outlet.power_w > 100_000, 5)


async def test_fault_silent_configuration_leaves_the_device_model_unknown():
    """GetVariables is not answered; other calls are."""
    async with a_pair("silent-configuration") as (central, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await read(central, "ClockCtrlr.TimeSource")

        assert await central.ask("ClearCache", {}) == {"status": "Accepted"}


async def test_an_energy_transfer_transaction_ends_when_the_vehicle_takes_no_more():
    """A full battery is StoppedByEV."""
    settings = {"TxCtrlr.TxStopPoint": "EnergyTransfer"}
    async with a_pair(variables=settings) as (central, station):
        await charging(station, soc_percent=98.0, capacity_wh=60_000)
        await central.until(lambda: central.has("Ended"))

        assert central.told()[-1] == ("Ended", "ChargingStateChanged")
        assert central.events[-1]["transactionInfo"]["stoppedReason"] == "StoppedByEV"
        assert central.statuses()[-1] == "Occupied"


async def test_fault_available_before_stop_frees_the_outlet_first():
    """The status comes before the end."""
    async with a_pair("available-before-stop") as (central, station):
        await charging(station)
        await station.unplug(1)
        await central.until(lambda: central.has("Ended"))

        await central.until(lambda: central.statuses()[-1] == "Available")
        assert central.statuses() == ["Available", "Occupied", "Available"]
        names = [
            payload.get("connectorStatus", payload.get("eventType"))
            for action, payload in central.calls
            if action in ("StatusNotification", "TransactionEvent")
        ]
        assert names.index("Available", 2) < names.index("Ended")


async def test_fault_stop_never_loses_the_end():
    """Nothing is owed, and the central system never hears of it."""
    async with a_pair("stop-never", "connector-zero-meter-values") as (central, station):
        await write(central, "AlignedDataCtrlr.Interval", "60")
        await central.until(lambda: len(central.of("MeterValues")) >= 2)
        await charging(station)
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1] == "Available")
        await station.wait_until(lambda each: each.owed == 0, 5)

        assert "Ended" not in [each["eventType"] for each in central.events]
        assert {each["evseId"] for each in central.of("MeterValues")} == {0, 1}


async def test_a_request_to_start_may_have_to_be_authorized_first():
    """AuthorizeRemoteStart asks, and a refusal leaves the outlet as it was."""
    question = {"idToken": {"idToken": "desk", "type": "Central"}, "remoteStartId": 1}
    settings = {"AuthCtrlr.AuthorizeRemoteStart": "true"}
    async with a_pair(variables=settings) as (central, station):
        central.replies["Authorize"] = lambda _: {"idTokenInfo": {"status": "Unknown"}}
        await central.ask("RequestStartTransaction", question)
        await central.until(lambda: len(central.of("Authorize")) == 1)
        await asyncio.sleep(0.02)

        assert station.outlets[1].transaction is None


async def test_a_request_to_start_takes_over_a_transaction_that_has_begun():
    """Its id is in the answer, and the profile is for it."""
    question = {"idToken": {"idToken": "desk", "type": "Central"}, "remoteStartId": 7}
    settings = {"TxCtrlr.TxStartPoint": "EVConnected"}
    async with a_pair(variables=settings, id_form="none") as (central, station):
        await station.plug(1, a_bus())
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.transaction_id is not None, 5)
        body = a_profile2(12_000)
        answer = await central.ask(
            "RequestStartTransaction", {**question, "chargingProfile": body}
        )
        await station.wait_until(lambda _: outlet.power_w > 1000, 5)

        assert answer["transactionId"] == outlet.transaction_id
        assert outlet.limit_w == 12_000
        assert central.told()[:2] == [
            ("Started", "CablePluggedIn"),
            ("Updated", "RemoteStart"),
        ]


async def test_a_reset_of_one_evse_leaves_the_others_alone():
    """Its transaction ends; there is no boot."""
    async with a_pair(connectors=2) as (central, station):
        await charging(station)
        await station.plug(2, a_bus(mac="92D50A693F81"))
        await station.wait_until(lambda each: each.outlets[2].power_w > 0, 5)
        await central.ask("Reset", {"type": "Immediate", "evseId": 1})
        await central.until(lambda: ("Ended", "ResetCommand") in central.told())

        assert station.outlets[1].transaction_id is None
        assert station.outlets[2].transaction_id is not None
        assert len(central.of("BootNotification")) == 1


async def test_needs_that_nobody_hears_do_not_keep_a_vehicle_from_charging():
    """An error, or no link at all."""
    async with a_pair(iso15118=True, backoff_first_real_s=0.3) as (central, station):
        central.replies["NotifyEVChargingNeeds"] = lambda _: ["InternalError", "", {}]
        await charging(station)
        await station.unplug(1)
        station.cut()
        await station.wait_until(lambda each: not each.is_online, 5)
        await charging(station)

        assert any(each.kind == "UNHEARD" for each in station.ledger)
