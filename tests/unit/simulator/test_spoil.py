"""What faults make of messages before they go out, without any connection."""

from __future__ import annotations

import copy
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from agent.simulator.catalogue import FRAMES
from agent.simulator.clock import parse_stamp
from agent.simulator.hardware import Outlet, Transaction
from agent.simulator.limit_faults import LimitFaults
from agent.simulator.reply_settings import SETTING_CHANGES
from agent.simulator.spoil import Spoiler
from agent.simulator.spoil_calls import CALL_CHANGES
from agent.simulator.spoil_meters import METER_CHANGES

NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
TIME = "2026-11-21T18:00:00.000Z"


def a_reading(*, is_2x: bool) -> dict[str, Any]:
    rows: list[tuple[str, float, str]] = [
        ("Energy.Active.Import.Register", 1234.0, "Wh"),
        ("Power.Active.Import", 60_000.0, "W"),
        ("Power.Offered", 50_000.0, "W"),
        ("Current.Offered", 76.0, "A"),
    ]
    samples = []
    for number, (name, value, unit) in enumerate(rows):
        sample: dict[str, Any] = {"measurand": name, "context": "Sample.Periodic"}
        if is_2x:
            sample |= {"value": value + number, "unitOfMeasure": {"unit": unit}}
        else:
            sample |= {"value": f"{value + number:.0f}", "unit": unit}
        samples.append(sample)
    return {"timestamp": TIME, "sampledValue": samples}


def messages16() -> list[tuple[str, dict[str, Any]]]:
    """One of each message of a 1.6 station, the readings a minute apart."""
    boot = {"chargePointVendor": "V", "chargePointModel": "M"}
    status = {"connectorId": 1, "errorCode": "NoError", "timestamp": TIME}
    reading: dict[str, Any] = {"connectorId": 1, "transactionId": 7}
    reading["meterValue"] = [a_reading(is_2x=False)]
    later = copy.deepcopy(reading)
    later["meterValue"][0]["timestamp"] = "2026-11-21T18:01:00.000Z"
    later["meterValue"][0]["sampledValue"][0]["value"] = "2000"
    start = {"connectorId": 1, "idTag": "VID:1", "meterStart": 5, "timestamp": TIME}
    stop = {"transactionId": 7, "idTag": "VID:1", "meterStop": 9, "timestamp": TIME}
    return [
        ("BootNotification", boot),
        *(
            ("StatusNotification", {**status, "status": each})
            for each in ("Available", "SuspendedEV", "Finishing")
        ),
        ("StatusNotification", {**status, "connectorId": 0, "status": "Available"}),
        ("StartTransaction", start),
        ("MeterValues", reading),
        ("MeterValues", later),
        ("StopTransaction", {**stop, "transactionData": [a_reading(is_2x=False)]}),
    ]


def messages2() -> list[tuple[str, dict[str, Any]]]:
    """The same of a 2.x station."""
    event = {
        "eventType": "Updated",
        "timestamp": TIME,
        "triggerReason": "MeterValuePeriodic",
        "seqNo": 3,
        "evse": {"id": 1},
        "idToken": {"idToken": "VID:1", "type": "Central"},
        "transactionInfo": {"transactionId": "t", "chargingState": "SuspendedEV"},
        "meterValue": [a_reading(is_2x=True)],
    }
    report = {"component": {"name": "SmartChargingCtrlr"}, "variable": {"name": "RateUnit"}}
    status = {"evseId": 1, "connectorId": 1, "timestamp": TIME}
    boot = {"reason": "PowerUp", "chargingStation": {"vendorName": "V", "model": "M"}}
    return [
        ("BootNotification", boot),
        ("StatusNotification", {**status, "connectorStatus": "Available"}),
        ("NotifyReport", {"tbc": False, "seqNo": 0, "reportData": [report]}),
        *(
            ("TransactionEvent", {**event, "eventType": each})
            for each in ("Started", "Updated", "Ended")
        ),
    ]


def sent(name: str, messages: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What goes out instead, told seven times so that every nth comes."""
    spoiler = Spoiler(frozenset({name}), random.Random(1))
    return [
        spoiler.payload(action, payload) for _ in range(7) for action, payload in messages
    ]


@pytest.mark.parametrize("name", [*METER_CHANGES, *CALL_CHANGES])
def test_each_change_of_messages_shows_and_leaves_the_original_alone(name: str):
    """Something goes out otherwise than without the fault; the same seed, the same."""
    messages = messages16() + messages2()
    before = copy.deepcopy(messages)
    found = sent(name, messages)

    assert found != [payload for _ in range(7) for _, payload in messages]
    assert found == sent(name, messages)
    assert messages == before


def test_a_station_without_faults_sends_what_it_wants():
    """Nothing is changed on the way."""
    spoiler = Spoiler(frozenset(), random.Random(1))

    assert [spoiler.payload(*each) for each in messages16()] == [
        payload for _, payload in messages16()
    ]
    assert spoiler.messages([2, "a", "Heartbeat", {}]) == ['[2,"a","Heartbeat",{}]']


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("kwh-as-wh", ["1.2"]),
        ("register-negative", ["-998766.0"]),
        ("comma-values", ["1234,00"]),
        ("padded-values", ["  1234 "]),
    ],
)
def test_energy_is_told_wrongly(name: str, wanted: list[str]):
    """The first value of a 1.6 reading of 1,234 Wh."""
    payload = sent(name, [messages16()[6]])[0]

    assert [each["value"] for each in payload["meterValue"][0]["sampledValue"]][
        :1
    ] == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("no-zone", "2026-11-21T18:00:00.000"),
        ("short-zone", "2026-11-21T18:00:00.000+00"),
        ("nine-fractions", "2026-11-21T18:00:00.000000123Z"),
        ("end-before-reading", "2026-11-21T17:59:58.000Z"),
    ],
)
def test_times_are_written_oddly(name: str, wanted: str):
    """The time of a StopTransaction."""
    assert sent(name, [messages16()[-1]])[0]["timestamp"] == wanted


def test_what_is_kept_back_is_not_sent():
    """Readings that come by themselves are held back, those asked for are not."""
    asked = copy.deepcopy(messages16()[6])
    for sample in asked[1]["meterValue"][0]["sampledValue"]:
        sample["context"] = "Trigger"

    assert sent("on-trigger-only", [messages16()[6], messages2()[4]]) == [None] * 14
    assert sent("on-trigger-only", [asked])[0] == asked[1]


FRAME_FAULTS = [
    each.name
    for each in FRAMES
    if each.name
    not in {
        *("invalid-json", "deep-nesting", "data-transfer-flood", "slow-answers"),
        *("late-answers", "swallow-nth-call", "busy-ignores", *CALL_CHANGES),
    }
]


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_each_fault_of_frames_shows_within_seven(name: str):
    """Calls and answers go out otherwise, or more of them."""
    spoiler = Spoiler(frozenset({name}), random.Random(1))
    sound: list[Any] = []
    found: list[Any] = []
    for number in range(7):
        unique_id = spoiler.unique_id(f"a-{number}")
        for frame in ([2, unique_id, "Heartbeat", {}], [3, f"b-{number}", {"k": 1}]):
            found += spoiler.messages(frame)
        sound += [[2, f"a-{number}", "Heartbeat", {}], [3, f"b-{number}", {"k": 1}]]

    assert found != [orjson.dumps(each).decode() for each in sound]


@pytest.mark.parametrize("name", SETTING_CHANGES)
def test_each_change_of_settings_shows(name: str):
    """A reply to reading or to writing settings is another; the original stays."""
    keys = {
        "SupportedFeatureProfiles": "Core,SmartCharging,RemoteTrigger",
        "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
        "NumberOfConnectors": "1",
        "MeterValuesSampledDataMaxLength": "10",
    }
    row = {"variable": {"name": "RateUnit"}, "attributeValue": "W"}
    replies: dict[str, dict[str, Any]] = {
        "GetConfiguration": {
            "configurationKey": [{"key": key, "value": keys[key]} for key in keys]
        },
        "ChangeConfiguration": {"status": "Accepted"},
        "GetVariables": {"getVariableResult": [row]},
        "SetVariables": {"setVariableResult": [{"attributeStatus": "Accepted"}]},
    }
    before = copy.deepcopy(replies)
    change = SETTING_CHANGES[name]

    assert {action: change(action, reply) for action, reply in replies.items()} != before
    assert replies == before


def an_outlet() -> Outlet:
    begun = Transaction(id_token="VID:1", start=NOW, meter_offset_wh=0)
    return Outlet(connector=1, rated_w=150_000, transaction=begun)


@pytest.mark.parametrize(
    ("name", "limits", "obeyed"),
    [
        ("floor-1-kw", [900.0, 1_100.0], [0.0, 1_100.0]),
        ("floor-6-a", [0.0, 1_000.0, 5_000.0], [0.0, 4_140.0, 5_000.0]),
        ("coarse-steps", [5_000.0, 11_000.0, 40_000.0], [4_140.0, 8_970.0, 35_880.0]),
        ("forget-limit-after-zero", [5_000.0, 0.0, 5_000.0], [5_000.0, 0.0, None]),
        ("stays-suspended", [5_000.0, 0.0, 5_000.0], [5_000.0, 0.0, 0.0]),
    ],
)
def test_limits_are_obeyed_in_the_stations_own_way(
    name: str, limits: list[float], obeyed: list[float | None]
):
    """A sequence of limits in one transaction of a three-phase outlet, in W."""
    faults = LimitFaults(frozenset({name}))
    outlet = an_outlet()

    assert [faults.obeyed_w(outlet, each, NOW, is_online=True) for each in limits] == obeyed


def test_a_new_profile_lets_power_through_for_ten_seconds():
    """No limit for 10 s after it, and the end is an instant at which power changes."""
    faults = LimitFaults(frozenset({"spike-on-replace"}))
    faults.spike(NOW)
    soon, later = NOW + timedelta(seconds=9), NOW + timedelta(seconds=10)

    assert faults.obeyed_w(an_outlet(), 5_000, soon, is_online=True) is None
    assert faults.obeyed_w(an_outlet(), 5_000, later, is_online=True) == 5_000
    assert faults.edges() == {later}


def test_without_a_link_the_limit_is_forgotten():
    """Only while it lasts."""
    faults = LimitFaults(frozenset({"full-power-offline"}))

    assert faults.obeyed_w(an_outlet(), 5_000, NOW, is_online=False) is None
    assert faults.obeyed_w(an_outlet(), 5_000, NOW, is_online=True) == 5_000


def test_stale_statuses_are_hours_old():
    """The time of the change, not of the message."""
    payload = sent("stale-status-time", [messages16()[1]])[0]

    assert NOW - parse_stamp(payload["timestamp"]) == timedelta(hours=3)
