"""The 2.0.1 and 2.1 adapter: whole, damaged and hostile messages, the boot gate."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import events
from agent.domain.curve import constant, curve
from agent.domain.events import ChargingState, ConnectorStatus, TransactionStep
from agent.domain.identity import EvidenceKind
from agent.stations.schemas import SEND_ONLY, V21, V201
from tests.support.properties import examples

from .bench2 import (
    BOTH,
    TIME,
    WALKED,
    Bench2,
    breach_of_answer,
    holder_of,
    message,
    places,
)
from .conftest import JSON_VALUES, NOW
from .test_v16 import check_bounded

MAC = "04E77E00F0FA"
AT = datetime(2026, 1, 15, 17, 30, tzinfo=UTC)
CHAIN = "GetCertificateChainStatus"
"""Its answer must name a certificate, so a question that names none is an error."""
REPLACEMENTS: list[Any] = [
    None, True, -1, 2**63, 1e308, "", "NaN", "A" * 5000, "2026-99-99T00:00:00Z",
    [], [None], {}, {"value": 1},
]  # fmt: skip
"""Tried one by one in every field of every message."""
HASHES = [
    {
        "hashAlgorithm": "SHA256",
        "issuerNameHash": "a",
        "issuerKeyHash": "b",
        "serialNumber": "c",
        "responderURL": "http://x",
    }
]
both = pytest.mark.parametrize("version", BOTH)


def started(**changes: Any) -> dict[str, Any]:
    """A whole TransactionEvent."""
    payload: dict[str, Any] = {
        "eventType": "Started",
        "timestamp": TIME,
        "triggerReason": "CablePluggedIn",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "T-1", "chargingState": "EVConnected"},
        "evse": {"id": 2, "connectorId": 1},
        "idToken": {"idToken": MAC, "type": "MacAddress"},
        "meterValue": [
            {
                "timestamp": TIME,
                "sampledValue": [
                    {
                        "value": 1.5,
                        "measurand": "Energy.Active.Import.Register",
                        "unitOfMeasure": {"unit": "kWh"},
                    },
                    {"value": 42, "measurand": "SoC"},
                ],
            }
        ],
    }
    return payload | changes


def updated(state: str | None = None, **changes: Any) -> dict[str, Any]:
    """A step of the same transaction that names its EVSE no more."""
    info: dict[str, Any] = {"transactionId": "T-1"}
    if state is not None:
        info["chargingState"] = state
    return {
        "eventType": "Updated",
        "timestamp": TIME,
        "triggerReason": "ChargingStateChanged",
        "seqNo": 1,
        "transactionInfo": info,
    } | changes


# --- soft reading -------------------------------------------------------------------


@pytest.mark.parametrize(("version", "action"), WALKED)
async def test_no_value_in_any_field_of_any_message_raises_or_does_harm(
    version: str, action: str
) -> None:
    """I8: each field of the schema, one at a time; what is let in is bounded."""
    base = message(version, action, is_full=True)
    bench = Bench2(version, allowed=constant(1000.0), running=(1,), fast={1: {"limit": 1}})
    for path in list(places(base)):
        for value in REPLACEMENTS:
            payload = copy.deepcopy(base)
            holder_of(payload, path)[path[-1]] = value
            await check_answer(bench, action, payload)
        payload = copy.deepcopy(base)
        del holder_of(payload, path)[path[-1]]
        await check_answer(bench, action, payload)
        for event in bench.sink.events:
            check_bounded(event)
        bench.sink.events.clear()


async def check_answer(bench: Bench2, action: str, payload: dict[str, Any]) -> None:
    """A valid answer, or an error where no valid answer could be made."""
    reply = await bench.send(action, payload)
    if reply.payload is None:
        assert (action, reply.code) == (CHAIN, "FormationViolation"), (payload, reply)
        return
    broken = breach_of_answer(bench.version, action, reply.payload)
    assert broken is None, (payload, broken)


@pytest.mark.parametrize(("version", "action"), WALKED)
async def test_i13_an_empty_or_larger_payload_gets_a_valid_answer(
    version: str, action: str
) -> None:
    """RPC-05, RPC-06, I13: nothing in it, or vendor fields."""
    await check_answer(Bench2(version), action, {})
    payload = message(version, action) | {"customData": {"vendorId": "x"}, "x" * 500: [1]}
    await Bench2(version).answer(action, payload)


@both
@examples(100)
@given(data=st.data())
async def test_rubbish_in_a_transaction_event_is_never_refused(
    version: str, data: st.DataObject
) -> None:
    """C3: an error would block the station's queue and lose the event (E13)."""
    payload = data.draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(started(), JSON_VALUES))
    )
    bench = Bench2(version)

    await bench.answer("TransactionEvent", payload)
    for event in bench.sink.events:
        check_bounded(event)


async def test_a_breach_is_logged_once_per_kind(log_names: list[str]) -> None:
    """A station that breaks its schema for ever fills no disk."""
    bench = Bench2()
    for seconds in range(5):
        await bench.answer("Heartbeat", {"odd": seconds})

    assert log_names.count("schema_breached") == 1


@pytest.fixture
def log_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what the adapter logs as warnings."""
    names: list[str] = []

    class Log:
        def warning(self, name: str, **_: Any) -> None:
            names.append(name)

    monkeypatch.setattr("agent.stations.adapter.log", Log())
    return names


# --- boot ---------------------------------------------------------------------------


BOOT = {
    "reason": "PowerUp",
    "chargingStation": {
        "vendorName": "Kempower",
        "model": "S-Series",
        "serialNumber": "SN-1",
        "firmwareVersion": "3.2",
    },
}


@both
async def test_a_boot_is_accepted_and_starts_the_set_up(version: str) -> None:
    """C1: our time in UTC with Z, an interval above 0."""
    bench = Bench2(version, heartbeat_s=240)

    assert await bench.answer("BootNotification", BOOT) == {
        "status": "Accepted",
        "currentTime": "2026-01-15T18:00:00Z",
        "interval": 240,
    }
    booted = bench.sink.only(events.StationBooted)
    assert (booted.vendor, booted.model) == ("Kempower", "S-Series")
    assert (booted.serial, booted.firmware) == ("SN-1", "3.2")
    assert bench.boots == 1
    assert bench.adapter.is_open


@both
async def test_a_pending_station_is_configured_first_and_then_accepted(
    version: str,
) -> None:
    """B02: only answers to what it was asked pass until it boots again."""
    bench = Bench2(version, boot="pending")
    answer = await bench.answer("BootNotification", BOOT)

    assert (answer["status"], bench.boots) == ("Pending", 1)
    assert bench.adapter.is_open is False
    for action in ("TransactionEvent", "StatusNotification", "Heartbeat"):
        reply = await bench.send(action, message(version, action))
        assert (reply.payload, reply.code) == (None, "SecurityError")
    for action in ("NotifyReport", "ReportChargingProfiles", "NotifyMonitoringReport"):
        await bench.answer(action, message(version, action))
    assert len(bench.reports) == len(bench.profiles) == 1
    assert [type(item) for item in bench.sink.events] == [events.StationBooted]

    bench.adapter.is_configured = True
    assert (await bench.answer("BootNotification", BOOT))["status"] == "Accepted"
    await bench.answer("TransactionEvent", started())


async def test_a_station_that_does_not_boot_again_is_not_held_up_by_pending() -> None:
    """B1.18: a reconnect without a boot is normal; it was accepted before."""
    bench = Bench2(boot="pending")

    await bench.answer("TransactionEvent", started())
    bench.sink.only(events.TransactionReported)


@both
async def test_a_rejected_station_may_only_boot(version: str) -> None:
    """B03: nothing else is taken, before and after its boot."""
    bench = Bench2(version, boot="reject")
    for _ in range(2):
        for action in ("NotifyReport", "TransactionEvent", "NoSuchAction"):
            reply = await bench.send(action, {})
            assert (reply.payload, reply.code) == (None, "SecurityError")
        answer = await bench.answer("BootNotification", BOOT)
        assert answer["status"] == "Rejected"
        assert answer["interval"] > 0
    assert (bench.boots, bench.adapter.is_open) == (0, False)


# --- states -------------------------------------------------------------------------


STATUS = {"timestamp": TIME, "connectorStatus": "Occupied", "evseId": 2, "connectorId": 1}


@both
@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Available", ConnectorStatus.AVAILABLE),
        ("occupied", ConnectorStatus.OCCUPIED),
        ("Reserved", ConnectorStatus.RESERVED),
        ("Unavailable", ConnectorStatus.UNAVAILABLE),
        ("Faulted", ConnectorStatus.FAULTED),
        ("Discombobulated", ConnectorStatus.UNKNOWN),
        (None, ConnectorStatus.UNKNOWN),
    ],
)
async def test_the_five_states_and_any_other_word(
    version: str, word: Any, status: ConnectorStatus
) -> None:
    """Also by NotifyEvent, which 2.1 prefers (B01.FR.05)."""
    plain, evented = Bench2(version), Bench2(version)
    await plain.answer("StatusNotification", STATUS | {"connectorStatus": word})
    await evented.answer("NotifyEvent", {"eventData": [availability(word)]})

    changed = plain.sink.only(events.ConnectorChanged)
    assert (changed.evse_id, changed.connector_id, changed.status) == (2, 1, status)
    assert evented.sink.only(events.ConnectorChanged) == changed
    assert plain.rung == evented.rung


def availability(word: Any, component: str = "Connector") -> dict[str, Any]:
    return {
        "timestamp": TIME,
        "actualValue": word,
        "component": {"name": component, "evse": {"id": 2, "connectorId": 1}},
        "variable": {"name": "AvailabilityState"},
    }


async def test_a_state_lets_the_vehicle_be_asked_for_or_forgotten() -> None:
    """A6: Occupied rings, Available forgets, a fault says nothing."""
    bench = Bench2()
    for word in ("Occupied", "Faulted", "Available"):
        await bench.answer("StatusNotification", STATUS | {"connectorStatus": word})

    assert bench.rung == [("plugged", 2), ("unplugged", 2)]


async def test_evse_0_is_the_station() -> None:
    """V2-03: no outlet, and no oddity either."""
    bench = Bench2()
    payload = STATUS | {"evseId": 0, "connectorId": 0, "connectorStatus": "Available"}
    await bench.answer("StatusNotification", payload)

    assert bench.sink.only(events.ConnectorChanged).evse_id == 0
    assert bench.rung == []


@pytest.mark.parametrize("evse", [-1, 65, 10**12, None, "x", 1.5, [], True])
async def test_c12_a_status_of_an_impossible_evse_is_only_noted(evse: Any) -> None:
    """C12: refused without harm to the link."""
    bench = Bench2()
    await bench.answer("StatusNotification", STATUS | {"evseId": evse})

    assert [type(event) for event in bench.sink.events] == [events.AnomalyNoted]
    assert bench.rung == []


async def test_the_vehicles_own_data_come_by_event() -> None:
    """A6: VehicleId and StateOfCharge of ConnectedEV; other components say nothing."""
    bench = Bench2(V21)

    def data(name: str, value: str, component: str = "ConnectedEV") -> dict[str, Any]:
        return availability(value, component) | {"variable": {"name": name}}

    await bench.answer(
        "NotifyEvent",
        {
            "eventData": [
                data("VehicleId", MAC),
                data("stateofcharge", "31.5"),
                data("BatteryCapacity", "60000"),
                data("VehicleId", MAC, "Controller"),
                data("AvailabilityState", "Occupied", "ChargingStation"),
            ]
        },
    )

    by_id, by_soc = bench.sink.events
    assert (by_id.evse_id, by_id.evidence[0].value, by_id.soc_percent) == (2, MAC, None)
    assert (by_soc.evse_id, by_soc.evidence, by_soc.soc_percent) == (2, (), 31.5)


# --- transactions -------------------------------------------------------------------


@both
async def test_a_transaction_event_becomes_one_fact_with_all_that_it_says(
    version: str,
) -> None:
    """C3: number, order, place, state, token and readings."""
    bench = Bench2(version)
    answer = await bench.answer("TransactionEvent", started())
    found = bench.sink.only(events.TransactionReported)

    assert answer == {"idTokenInfo": {"status": "Accepted"}}
    assert (found.transaction_id, found.step) == ("T-1", TransactionStep.STARTED)
    assert (found.at, found.seq_no, found.trigger) == (AT, 0, "CablePluggedIn")
    assert (found.evse_id, found.connector_id) == (2, 1)
    assert (found.charging_state, found.offline) == (ChargingState.EV_CONNECTED, False)
    assert found.id_token == MAC
    assert [(item.kind, item.value) for item in found.evidence] == [(EvidenceKind.MAC, MAC)]
    assert [(item.register_wh, item.soc_percent) for item in found.readings] == [
        (1500.0, 42.0)
    ]


@both
async def test_without_a_token_the_answer_is_empty(version: str) -> None:
    """The token comes once; an idTokenInfo nobody asked for confuses stations."""
    bench = Bench2(version)

    assert await bench.answer("TransactionEvent", updated("Charging")) == {}
    found = bench.sink.only(events.TransactionReported)
    assert (found.evse_id, found.id_token, found.evidence) == (None, "", ())


async def test_an_end_carries_its_reason() -> None:
    """And a missing one is left to the domain (Local)."""
    bench = Bench2()
    info = {"transactionId": "T-1", "stoppedReason": "EVDisconnected"}
    await bench.answer(
        "TransactionEvent", updated(eventType="Ended", transactionInfo=info, offline=True)
    )
    found = bench.sink.only(events.TransactionReported)

    assert (found.step, found.reason) == (TransactionStep.ENDED, "EVDisconnected")
    assert found.offline


@pytest.mark.parametrize(
    "changes",
    [
        {"transactionInfo": {}},
        {"transactionInfo": None},
        {"transactionInfo": {"transactionId": ""}},
        {"eventType": "Paused"},
        {"eventType": None},
    ],
)
async def test_an_event_that_belongs_nowhere_is_filed_and_answered(
    changes: dict[str, Any],
) -> None:
    """Never refused: the station would repeat it before all that follows."""
    bench = Bench2()
    answer = await bench.answer("TransactionEvent", started() | changes)

    assert answer == {"idTokenInfo": {"status": "Accepted"}}
    assert [type(event) for event in bench.sink.events] == [events.AnomalyNoted]


@pytest.mark.parametrize("seq_no", [None, "3", -1, 1.5, True])
async def test_a_sequence_number_that_is_none_is_missing(seq_no: Any) -> None:
    """V2-01."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started(seqNo=seq_no))

    assert bench.sink.only(events.TransactionReported).seq_no is None


@pytest.mark.parametrize(
    "evse", [None, 2, [], {}, {"id": 0}, {"id": 65}, {"id": -1}, {"id": "x"}]
)
async def test_an_evse_that_is_none_is_left_out(evse: Any) -> None:
    """The domain finds the place, or files the event."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started(evse=evse))

    assert bench.sink.only(events.TransactionReported).evse_id is None


async def test_t1_a_time_that_cannot_be_true_is_replaced_and_noted() -> None:
    """T1, T6: the event is kept with our time."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started(timestamp="1970-01-01T00:00:00Z"))

    assert bench.sink.only(events.TransactionReported).at == NOW
    assert bench.sink.only(events.AnomalyNoted).evse_id == 2


async def test_long_ids_stay_different() -> None:
    """A few characters more than the standard has are kept."""
    bench = Bench2()
    for tail in "ab":
        info = {"transactionId": "T" * 37 + tail}
        await bench.answer("TransactionEvent", started(transactionInfo=info))

    ids = {item.transaction_id for item in bench.sink.events}
    assert len(ids) == 2


async def test_the_evse_is_remembered_from_the_first_event() -> None:
    """A6: plug and power ring for the same outlet although it is named once."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started())
    for state in ("Charging", "SuspendedEV", "Idle"):
        await bench.answer("TransactionEvent", updated(state))
    await bench.answer("TransactionEvent", updated("EVConnected", eventType="Ended"))
    await bench.answer("TransactionEvent", updated("Charging"))

    assert bench.rung == [
        ("plugged", 2),
        ("charging", 2),
        ("plugged", 2),
        ("unplugged", 2),
    ]


async def test_a_transaction_that_ends_with_the_plug_out_forgets_the_vehicle() -> None:
    """TxStopPoint EVConnected: the end may be all that tells of the unplug."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started())
    await bench.answer("TransactionEvent", updated("Idle", eventType="Ended"))

    assert bench.rung == [("plugged", 2), ("unplugged", 2)]


async def test_what_happened_offline_rings_for_nobody() -> None:
    """The vehicle of that time may be gone."""
    bench = Bench2()
    await bench.answer("TransactionEvent", started(offline=True))
    await bench.answer("TransactionEvent", updated("Charging", offline=True))
    assert bench.rung == []

    await bench.answer("TransactionEvent", updated("Charging"))
    assert bench.rung == [("charging", 2)]


@both
async def test_clock_aligned_values_become_readings(version: str) -> None:
    """J01: MeterValues has an EVSE and no transaction."""
    bench = Bench2(version)
    payload = {"evseId": 2, "meterValue": started()["meterValue"]}
    assert await bench.answer("MeterValues", payload) == {}

    sampled = bench.sink.only(events.MeterSampled)
    assert (sampled.evse_id, sampled.transaction_id) == (2, None)
    assert sampled.readings[0].register_wh == 1500.0


# --- authorisation ------------------------------------------------------------------


@both
async def test_authorize_accepts_and_reads_the_token(version: str) -> None:
    """By policy: recognition never refuses charging."""
    bench = Bench2(version)
    answer = await bench.answer(
        "Authorize", {"idToken": {"idToken": MAC, "type": "MacAddress"}}
    )
    presented = bench.sink.only(events.IdTokenPresented)

    assert answer == {"idTokenInfo": {"status": "Accepted"}}
    assert (presented.id_token, presented.evse_id) == (MAC, None)
    assert presented.evidence[0].kind is EvidenceKind.MAC


@both
async def test_no_authorization_is_accepted_and_is_no_token(version: str) -> None:
    """A6: an empty token of this type is valid."""
    bench = Bench2(version)
    token = {"idToken": "", "type": "NoAuthorization"}

    answer = await bench.answer("Authorize", {"idToken": token})
    assert answer == {"idTokenInfo": {"status": "Accepted"}}
    assert bench.sink.events == []


CONTRACT = {"idToken": {"idToken": "DE-8AA-C1234567-8", "type": "eMAID"}}


@both
@pytest.mark.parametrize(
    "proof", [{"iso15118CertificateHashData": HASHES}, {"certificate": "-----BEGIN"}]
)
async def test_a_contract_that_nobody_can_verify_is_refused_in_the_words_for_it(
    version: str, proof: dict[str, Any]
) -> None:
    """A7: CertChainError goes with Invalid; the name in it is kept as a hint."""
    bench = Bench2(version)

    assert await bench.answer("Authorize", CONTRACT | proof) == {
        "idTokenInfo": {"status": "Invalid"},
        "certificateStatus": "CertChainError",
    }
    kinds = [item.kind for item in bench.sink.only(events.IdTokenPresented).evidence]
    assert kinds == [EvidenceKind.EMAID]


@both
async def test_a_site_may_take_contracts_as_they_come(version: str) -> None:
    """A7: valid chain and usable token are both Accepted."""
    bench = Bench2(version, contracts=True)
    payload = CONTRACT | {"iso15118CertificateHashData": HASHES}

    assert await bench.answer("Authorize", payload) == {
        "idTokenInfo": {"status": "Accepted"},
        "certificateStatus": "Accepted",
    }


@both
async def test_certificates_are_honestly_not_available(version: str) -> None:
    """A7: no contract back end, no OCSP, no signer: a status each, and no error."""
    bench = Bench2(version)

    async def status(action: str) -> Any:
        return (await bench.answer(action, message(version, action)))["status"]

    assert await status("Get15118EVCertificate") == "Failed"
    assert await status("GetCertificateStatus") == "Failed"
    assert await status("SignCertificate") == "Rejected"


async def test_every_certificate_of_a_chain_is_unknown_by_its_own_hash() -> None:
    """2.1: each request that can be read is answered, in order."""
    requests = [
        {
            "source": source,
            "urls": ["http://x"],
            "certificateHashData": {
                "hashAlgorithm": "SHA256",
                "issuerNameHash": "a",
                "issuerKeyHash": "b",
                "serialNumber": source,
            },
        }
        for source in ("CRL", "OCSP")
    ]
    asked = [{"source": "CRL"}, *requests, None]
    answer = await Bench2(V21).answer(CHAIN, {"certificateStatusRequests": asked})

    assert [
        (item["source"], item["certificateHashData"]["serialNumber"], item["status"])
        for item in answer["certificateStatus"]
    ] == [("CRL", "CRL", "Unknown"), ("OCSP", "OCSP", "Unknown")]


# --- smart charging -----------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("evse", "running", "status"),
    [(2, (2,), "Accepted"), (2, (1,), "Processing"), (0, (0,), "Processing"),
     (65, (65,), "Processing"), ("x", (), "Processing")],
)  # fmt: skip
async def test_needs_are_accepted_when_a_schedule_can_follow_at_once(
    version: str, evse: Any, running: tuple[int, ...], status: str
) -> None:
    """A8: never Rejected, which would end an ISO 15118-20 session."""
    bench = Bench2(version, running=running)
    payload = message(version, "NotifyEVChargingNeeds") | {"evseId": evse}

    answer = await bench.answer("NotifyEVChargingNeeds", payload)
    assert answer["status"] == status
    assert len(bench.sink.events) == (1 if evse == 2 else 0)


def ev_schedule(*limits: float, unit: str = "W") -> dict[str, Any]:
    """What the vehicle means to draw, a step each quarter of an hour."""
    periods = [
        {"startPeriod": 900 * index, "limit": limit} for index, limit in enumerate(limits)
    ]
    return {
        "evseId": 2,
        "timeBase": "2026-01-15T18:00:00Z",
        "chargingSchedule": {
            "id": 1,
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        },
    }


NOW_S = int(NOW.timestamp())
ALLOWED = curve([(NOW_S - 60, 20_000.0), (NOW_S + 900, 10_000.0)])


@both
@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (ev_schedule(20_000, 10_000), "Accepted"),
        (ev_schedule(5_000, 0), "Accepted"),
        (ev_schedule(20_400, 10_250), "Accepted"),
        (ev_schedule(21_000, 10_000), "Rejected"),
        (ev_schedule(20_000, 20_000), "Rejected"),
        (ev_schedule(29.0, 14.4, unit="A"), "Accepted"),
        (ev_schedule(32.0, 14.4, unit="A"), "Rejected"),
    ],
)
async def test_a_schedule_above_what_is_allowed_is_refused_and_the_limit_sent_again(
    version: str, payload: dict[str, Any], status: str
) -> None:
    """K15.FR.11: a step that comes later counts, rounding does not."""
    bench = Bench2(version, allowed=ALLOWED)
    answer = await bench.answer("NotifyEVChargingSchedule", payload)

    assert answer["status"] == status
    doubts = [item.evse_id for item in bench.sink.events]
    assert doubts == ([2] if status == "Rejected" else [])
    assert all(isinstance(item, events.LimitDoubted) for item in bench.sink.events)


async def test_a_schedule_is_accepted_where_nothing_is_known_against_it() -> None:
    """No profile of ours, or nothing that can be read."""
    for allowed, payload in (
        (None, ev_schedule(99_000)),
        (ALLOWED, ev_schedule()),
        (ALLOWED, ev_schedule(-1)),
    ):
        bench = Bench2(allowed=allowed)
        answer = await bench.answer("NotifyEVChargingSchedule", payload)
        assert answer["status"] == "Accepted"
        assert bench.sink.events == []


async def test_a_schedule_of_the_past_is_held_against_what_it_says_of_now() -> None:
    """Its first steps are over."""
    early = (NOW - timedelta(seconds=900)).strftime("%Y-%m-%dT%H:%M:%SZ")
    payload = ev_schedule(50_000, 20_000, 10_000) | {"timeBase": early}
    bench = Bench2(allowed=ALLOWED)

    answer = await bench.answer("NotifyEVChargingSchedule", payload)
    assert answer["status"] == "Accepted"


def external(*limits: float, unit: str = "W", **more: Any) -> dict[str, Any]:
    """A limit of another master."""
    schedule = ev_schedule(*limits, unit=unit)["chargingSchedule"]
    return {
        "chargingLimit": {"chargingLimitSource": "EMS"},
        "chargingSchedule": [schedule],
    } | more


@both
@pytest.mark.parametrize(
    ("payload", "evse", "limit_w"),
    [
        (external(30_000, 12_000, evseId=2), 2, 12_000.0),
        (external(30_000), 0, 30_000.0),
        (external(0, evseId=0), 0, 0.0),
        (external(16, unit="A", evseId=1), 1, 11_040.0),
    ],
)
async def test_another_masters_limit_lowers_our_budget(
    version: str, payload: dict[str, Any], evse: int, limit_w: float
) -> None:
    """B2: the lowest that it announces; without an EVSE it is the station's."""
    bench = Bench2(version)
    await bench.answer("NotifyChargingLimit", payload)
    found = bench.sink.only(events.ExternalLimitChanged)

    assert (found.evse_id, found.limit_w, found.source) == (evse, limit_w, "EMS")


@pytest.mark.parametrize(
    "payload",
    [
        {"chargingLimit": {"chargingLimitSource": "EMS"}},
        external(),
        external(-5.0),
        external(10.0, evseId=65),
        external(10.0, evseId=-1),
    ],
)
async def test_a_limit_without_a_number_or_an_outlet_changes_nothing(
    payload: dict[str, Any],
) -> None:
    """NotifyChargingLimitWithSchedules may be off: then only its existence is told."""
    bench = Bench2()
    await bench.answer("NotifyChargingLimit", payload)

    assert bench.sink.events == []


@both
async def test_a_limit_that_is_gone_is_let_go(version: str) -> None:
    """K13."""
    bench = Bench2(version)
    await bench.answer("ClearedChargingLimit", {"chargingLimitSource": "EMS", "evseId": 2})
    found = bench.sink.only(events.ExternalLimitChanged)

    assert (found.evse_id, found.source, found.limit_w) == (2, "EMS", None)


@pytest.mark.parametrize("evse", ["x", 65, -1, 10**12, [], 1.5])
async def test_what_lets_go_of_no_outlet_lets_go_of_nothing(evse: Any) -> None:
    """A raise of our budget needs a message that can be read."""
    bench = Bench2()
    payload = {"chargingLimitSource": "EMS", "evseId": evse}
    await bench.answer("ClearedChargingLimit", payload)

    assert [type(event) for event in bench.sink.events] == [events.AnomalyNoted]


async def test_a_pull_is_answered_for_our_dynamic_profiles_only() -> None:
    """2.1 K28: a profile that is not ours is no business of ours."""
    bench = Bench2(V21, fast={302: {"limit": 7000.0}})

    assert await bench.answer("PullDynamicScheduleUpdate", {"chargingProfileId": 302}) == {
        "status": "Accepted",
        "scheduleUpdate": {"limit": 7000.0},
    }
    for other in (301, "x", None):
        answer = await bench.answer(
            "PullDynamicScheduleUpdate", {"chargingProfileId": other}
        )
        assert answer == {"status": "Rejected"}


# --- the rest of 2.1 ----------------------------------------------------------------


async def test_an_event_stream_that_nobody_asked_for_is_refused() -> None:
    """It would only cost the link."""
    payload = message(V21, "OpenPeriodicEventStream")

    answer = await Bench2(V21).answer("OpenPeriodicEventStream", payload)
    assert answer == {"status": "Rejected"}


async def test_there_is_no_shop_here() -> None:
    """VatNumberValidation: refused, with the number that was asked for."""
    answer = await Bench2(V21).answer(
        "VatNumberValidation", {"vatNumber": "FI12345678", "evseId": 1}
    )
    assert answer == {"status": "Rejected", "vatNumber": "FI12345678"}


@pytest.mark.parametrize(
    "action",
    [
        "BatterySwap", "ClosePeriodicEventStream", "NotifyDERAlarm", "NotifyDERStartStop",
        "NotifyPriorityCharging", "NotifySettlement", "ReportDERControl", SEND_ONLY,
    ],
)  # fmt: skip
async def test_what_asks_for_nothing_is_taken_note_of(action: str) -> None:
    """V2X, batteries and payment are out of scope: rejected is nothing, done nothing."""
    bench = Bench2(V21)

    assert await bench.answer(action, message(V21, action, is_full=True)) == {}
    assert bench.sink.events == []


@both
async def test_reports_go_to_who_asked_for_them(version: str) -> None:
    """The set-up waits for the parts of both."""
    bench = Bench2(version)
    report = message(version, "NotifyReport")
    profiles = message(version, "ReportChargingProfiles")
    await bench.answer("NotifyReport", report)
    await bench.answer("ReportChargingProfiles", profiles)

    assert (bench.reports, bench.profiles) == ([report], [profiles])


@both
async def test_vendor_messages_are_answered_as_in_1_6(version: str) -> None:
    """RPC-08."""
    bench = Bench2(version, accepted_vendors=frozenset({"Friend"}))

    for vendor, status in (("Friend", "Accepted"), ("Other", "UnknownVendorId")):
        answer = await bench.answer("DataTransfer", {"vendorId": vendor, "data": {"a": 1}})
        assert answer == {"status": status}


def test_both_versions_are_walked() -> None:
    """Otherwise the walks above would skip one."""
    assert {version for version, _ in WALKED} == {V201, V21}
