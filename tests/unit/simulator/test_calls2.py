"""What a virtual 2.x station answers, its device model, and its triggered messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.simulator.station2_support import (
    VERSIONS,
    a_bus,
    a_pair,
    charging,
    read,
    variable,
    write,
)

TOKEN = {"idToken": "x", "type": "Local"}
FIRMWARE = {
    "requestId": 2,
    "firmware": {"location": "https://x/f", "retrieveDateTime": "2026-11-21T00:00:00Z"},
}
RESERVATION = {
    "id": 9,
    "expiryDateTime": "2026-11-22T00:00:00Z",
    "idToken": TOKEN,
    "evseId": 1,
}
NETWORK = {
    "configurationSlot": 1,
    "connectionData": {
        "ocppVersion": "OCPP20",
        "ocppTransport": "JSON",
        "ocppCsmsUrl": "wss://x",
        "messageTimeout": 30,
        "securityProfile": 2,
        "ocppInterface": "Wired0",
    },
}
ANSWERS: list[tuple[str, Any, Any]] = [
    ("Nonsense", {}, "NotImplemented"),
    ("SetDisplayMessage", {}, "OccurrenceConstraintViolation"),
    ("GetDisplayMessages", {"requestId": 1}, "NotSupported"),
    ("Reset", [], "TypeConstraintViolation"),
    ("Reset", {}, "OccurrenceConstraintViolation"),
    ("Reset", {"type": 5}, "TypeConstraintViolation"),
    ("Reset", {"type": "Hard"}, "PropertyConstraintViolation"),
    ("Reset", {"type": "OnIdle", "mood": "low"}, "FormatViolation"),
    ("Reset", {"type": "OnIdle", "evseId": 9}, {"status": "Rejected"}),
    ("ClearCache", {}, {"status": "Accepted"}),
    ("ClearChargingProfile", {"chargingProfileId": 4}, {"status": "Unknown"}),
    ("UpdateDynamicSchedule", {"chargingProfileId": 4, "scheduleUpdate": {}}, "NotImplemented"),
    ("DataTransfer", {"vendorId": "acme"}, {"status": "UnknownVendorId"}),
    ("GetLocalListVersion", {}, {"versionNumber": 0}),
    ("SendLocalList", {"versionNumber": 3, "updateType": "Full"}, {"status": "Accepted"}),
    ("SendLocalList", {"versionNumber": 0, "updateType": "Differential"}, {"status": "VersionMismatch"}),
    ("UnlockConnector", {"evseId": 1, "connectorId": 1}, {"status": "Unlocked"}),
    ("UnlockConnector", {"evseId": 1, "connectorId": 2}, {"status": "UnknownConnector"}),
    ("ReserveNow", RESERVATION, {"status": "Accepted"}),
    ("ReserveNow", {**RESERVATION, "evseId": 7}, {"status": "Rejected"}),
    ("CancelReservation", {"reservationId": 4}, {"status": "Rejected"}),
    ("SetNetworkProfile", NETWORK, {"status": "Accepted"}),
    ("SetNetworkProfile", {**NETWORK, "configurationSlot": 0}, {"status": "Rejected"}),
    ("CertificateSigned", {"certificateChain": "x"}, {"status": "Rejected"}),
    ("InstallCertificate", {"certificateType": "CSMSRootCertificate", "certificate": "x"}, {"status": "Rejected"}),
    ("GetInstalledCertificateIds", {}, {"status": "NotFound"}),
    ("GetTransactionStatus", {"transactionId": "x"}, {"messagesInQueue": False, "ongoingIndicator": False}),
    ("GetTransactionStatus", {}, {"messagesInQueue": False}),
    ("ChangeAvailability", {"operationalStatus": "Inoperative", "evse": {"id": 4}}, {"status": "Rejected"}),
    ("TriggerMessage", {"requestedMessage": "StatusNotification"}, {"status": "Rejected"}),
    ("TriggerMessage", {"requestedMessage": "TransactionEvent"}, {"status": "Rejected"}),
    ("TriggerMessage", {"requestedMessage": "BootNotification"}, {"status": "Rejected"}),
    ("TriggerMessage", {"requestedMessage": "SignV2GCertificate"}, {"status": "NotImplemented"}),
    ("TriggerMessage", {"requestedMessage": "Heartbeat", "evse": {"id": 8}}, {"status": "Rejected"}),
]  # fmt: skip


async def test_calls_are_answered_as_the_standard_says():
    """Known actions by their answer, broken ones by the error code of 2.x."""
    async with a_pair() as (central, _):
        for action, payload, expected in ANSWERS:
            answer = await central.ask(action, payload)

            assert (answer[0] if isinstance(answer, tuple) else answer) == expected, action


async def test_long_works_report_their_steps():
    """GetLog and UpdateFirmware go on after their answer."""
    async with a_pair() as (central, _):
        log = {
            "log": {"remoteLocation": "https://x"},
            "logType": "SecurityLog",
            "requestId": 1,
        }
        taken = await central.ask("GetLog", log)
        await central.ask("UpdateFirmware", FIRMWARE)
        await central.until(
            lambda: (
                len(central.of("LogStatusNotification")) == 2
                and len(central.of("FirmwareStatusNotification")) == 4
            )
        )

        assert taken["status"] == "Accepted"
        last = central.of("FirmwareStatusNotification")[-1]
        assert last == {"status": "Installed", "requestId": 2}


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_come_when_they_are_asked_for(version: str):
    """Each with the context or trigger of being asked for."""
    async with a_pair(version=version, connectors=2) as (central, station):
        await charging(station)

        async def trigger(wanted: str, **more: Any) -> str:
            question = {"requestedMessage": wanted, **more}
            return str((await central.ask("TriggerMessage", question))["status"])

        assert await trigger("TransactionEvent", evse={"id": 1}) == "Accepted"
        assert await trigger("TransactionEvent", evse={"id": 2}) == "Rejected"
        assert await trigger("MeterValues") == "Accepted"
        assert await trigger("Heartbeat") == "Accepted"
        assert await trigger("LogStatusNotification") == "Accepted"
        known = len(central.statuses())
        where = {"id": 1, "connectorId": 1}
        assert await trigger("StatusNotification", evse=where) == "Accepted"
        await central.until(
            lambda: (
                len(central.statuses()) == known + 1
                and ("Updated", "Trigger") in central.told()
                and len(central.of("MeterValues")) == 2
                and central.of("LogStatusNotification") == [{"status": "Idle"}]
            )
        )
        event = next(each for each in central.events if each["triggerReason"] == "Trigger")

        assert event["transactionInfo"]["chargingState"] == "Charging"
        names = [each["measurand"] for each in event["meterValue"][0]["sampledValue"]]
        assert names == ["Energy.Active.Import.Register", "Power.Active.Import"]


async def test_availability_waits_for_the_end_of_a_transaction():
    """Scheduled while it runs; Unavailable after it; Operative brings it back."""
    async with a_pair() as (central, station):
        await charging(station)
        change = {"operationalStatus": "Inoperative", "evse": {"id": 1}}
        scheduled = await central.ask("ChangeAvailability", change)
        locked = await central.ask("UnlockConnector", {"evseId": 1, "connectorId": 1})
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1] == "Unavailable")
        refused = await central.ask(
            "RequestStartTransaction", {"idToken": TOKEN, "remoteStartId": 1}
        )
        await central.ask("ChangeAvailability", {"operationalStatus": "Operative"})
        await central.until(lambda: central.statuses()[-1] == "Available")

        assert scheduled == {"status": "Scheduled"}
        assert locked == {"status": "OngoingAuthorizedTransaction"}
        assert refused == {"status": "Rejected"}


async def test_a_reserved_outlet_shows_it_until_a_vehicle_comes():
    """And the state of a transaction can be asked for."""
    async with a_pair() as (central, station):
        await central.ask("ReserveNow", RESERVATION)
        await central.until(lambda: central.statuses()[-1] == "Reserved")
        outlet = await charging(station)
        question = {"transactionId": outlet.transaction_id}
        status = await central.ask("GetTransactionStatus", question)
        await station.unplug(1)
        await central.until(lambda: central.statuses()[-1] == "Available")

        assert status["ongoingIndicator"] is True


async def test_variables_are_read_and_set_by_their_rules():
    """Unknown parts are told apart; read-only and senseless values are refused."""
    async with a_pair() as (central, station):
        interval = "SampledDataCtrlr.TxUpdatedInterval"
        measurands = "SampledDataCtrlr.TxUpdatedMeasurands"

        assert await write(central, interval, "30") == "Accepted"
        assert await read(central, "sampleddatactrlr.TXUPDATEDINTERVAL") == "30"
        assert station.configuration(interval) == "30"
        assert await write(central, interval, "soon") == "Rejected"
        assert await write(central, measurands, "SoC,Voltage") == "Accepted"
        assert await write(central, measurands, "SoC,Charm") == "Rejected"
        assert await write(central, "TxCtrlr.TxStartPoint", "Sunrise") == "Rejected"
        assert await write(central, "SmartChargingCtrlr.RateUnit", "A") == "Rejected"
        assert (
            await write(central, "SecurityCtrlr.BasicAuthPassword", "s3cret") == "Accepted"
        )
        assert await read(central, "SecurityCtrlr.BasicAuthPassword") == "Rejected"
        assert await read(central, "TxCtrlr.Nonsense") == "UnknownVariable"
        assert await read(central, "NonsenseCtrlr.X") == "UnknownComponent"
        assert await read(central, "EVSE#7.Power") == "UnknownComponent"
        assert await read(central, "EVSE#1.AvailabilityState") == "Available"
        row = variable(interval, attributeType="Target")
        answer = await central.ask("GetVariables", {"getVariableData": [row]})
        status = answer["getVariableResult"][0]["attributeStatus"]
        assert status == "NotSupportedAttributeType"


async def test_too_much_in_one_message_is_an_error():
    """By ItemsPerMessage and by BytesPerMessage."""
    async with a_pair() as (central, _):
        rows = [variable("ClockCtrlr.DateTime")] * 51
        many = await central.ask("GetVariables", {"getVariableData": rows})
        long = [variable("SecurityCtrlr.OrganizationName", attributeValue="x" * 900)] * 10
        large = await central.ask("SetVariables", {"setVariableData": long})

        assert many[0] == "OccurrenceConstraintViolation"
        assert "TooManyElements" in str(many[1])
        assert large[0] == "FormatViolation"


async def test_some_variables_hold_after_a_restart_only():
    """RebootRequired, and the old value until then."""
    label = "OCPPCommCtrlr.NetworkConfigurationPriority"
    async with a_pair() as (central, station):
        assert await write(central, label, "1,0") == "RebootRequired"
        assert await read(central, label) == "0"
        await station.reboot()
        assert station.configuration(label) == "1,0"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_device_model_is_reported_in_parts(version: str):
    """All of it, with limits and instances, numbered, tbc until the last."""
    async with a_pair(version=version, connectors=2) as (central, _):
        question = {"requestId": 3, "reportBase": "FullInventory"}
        await central.ask("GetBaseReport", question)
        await central.until(
            lambda: any(not each["tbc"] for each in central.of("NotifyReport"))
        )
        parts = central.of("NotifyReport")
        rows = [row for part in parts for row in part["reportData"]]

        def find(label: str) -> Any:
            wanted = variable(label)
            return next(
                row
                for row in rows
                if (row["component"], row["variable"])
                == (wanted["component"], wanted["variable"])
            )

        assert [part["seqNo"] for part in parts] == list(range(len(parts)))
        assert [part["tbc"] for part in parts] == [True] * (len(parts) - 1) + [False]
        assert len(parts) >= 4
        entries = find("SmartChargingCtrlr.Entries[ChargingProfiles]")
        assert entries["variableCharacteristics"]["maxLimit"] == 50
        assert entries["variableAttribute"][0]["value"] == "0"
        assert find("EVSE#2.Power")["variableCharacteristics"]["maxLimit"] == 150_000
        assert find("Connector#1#1.Available")["variableAttribute"][0]["value"] == "true"
        features = [row for row in rows if row["variable"]["name"] == "SupportsFeature"]
        assert bool(features) == (version == "2.1")


async def test_parts_of_the_device_model_are_reported_by_component_and_criterion():
    """Nothing found is an EmptyResultSet."""
    async with a_pair(connectors=2) as (central, _):

        async def report(**question: Any) -> list[str]:
            known = len(central.of("NotifyReport"))
            answer = await central.ask("GetReport", {"requestId": 1, **question})
            if answer["status"] != "Accepted":
                return [answer["status"]]
            await central.until(
                lambda: (
                    len(central.of("NotifyReport")) > known
                    and not central.of("NotifyReport")[-1]["tbc"]
                )
            )
            parts = central.of("NotifyReport")[known:]
            return [row["variable"]["name"] for part in parts for row in part["reportData"]]

        tx = [{"component": {"name": "TxCtrlr"}}]
        one = [
            {
                "component": {"name": "EVSE", "evse": {"id": 2}},
                "variable": {"name": "Power"},
            }
        ]
        assert "TxStartPoint" in await report(componentVariable=tx)
        assert await report(componentVariable=one) == ["Power"]
        assert await report(componentCriteria=["Problem"]) == ["EmptyResultSet"]
        nobody = [{"component": {"name": "ConnectedEV"}}]
        found = await report(componentVariable=nobody, componentCriteria=["Available"])
        assert found == ["EmptyResultSet"]


async def test_a_station_with_an_empty_report_or_without_vehicle_ids():
    """A fault and a lack that are seen in the field."""
    async with a_pair("empty-report", tells_vehicle_id=False) as (central, station):
        await central.ask("GetBaseReport", {"requestId": 3, "reportBase": "FullInventory"})
        await central.until(lambda: len(central.of("NotifyReport")) == 1)
        await station.plug(1, a_bus())

        assert "reportData" not in central.of("NotifyReport")[0]
        assert await read(central, "ConnectedEV#1.VehicleId") == "UnknownVariable"


async def test_a_rejected_station_answers_with_a_security_error():
    """Until it is accepted."""
    async with a_pair("boot-on-reconnect") as (central, station):
        central.replies["BootNotification"] = lambda _: {
            "status": "Rejected",
            "interval": 600,
            "currentTime": "2026-11-21T00:00:00Z",
        }
        station.cut()
        await central.until(lambda: len(central.of("BootNotification")) == 2)
        await asyncio.sleep(0.02)

        assert (await central.ask("ClearCache", {}))[0] == "SecurityError"
