"""The 1.6 adapter: every message a station may send, whole, damaged and hostile."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, is_dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocpp.v16.enums import Action

from agent.domain import events
from agent.domain.events import ConnectorStatus
from agent.domain.identity import EvidenceKind
from agent.domain.ids import TransactionId
from agent.stations import framing, quick16, schemas
from agent.stations.adapter import AdapterOptions
from agent.stations.extractors import ExtractorRule
from agent.stations.link import Reply
from agent.stations.schemas import V16 as VERSION
from agent.stations.v16 import HANDLERS, Adapter16
from tests.support.properties import examples

from .conftest import HOSTILE, JSON_VALUES, NOW, STATION, RecordingSink, StillClock

TIME = "2026-01-15T17:30:00Z"
PLAIN: dict[str, dict[str, Any]] = {
    "Authorize": {"idTag": "VID:04E77E00F0FA"},
    "BootNotification": {
        "chargePointVendor": "Kempower",
        "chargePointModel": "S-Series",
        "chargePointSerialNumber": "SN-1",
        "firmwareVersion": "3.2",
    },
    "DataTransfer": {"vendorId": "V", "messageId": "M", "data": "x"},
    "DiagnosticsStatusNotification": {"status": "Idle"},
    "FirmwareStatusNotification": {"status": "Installed"},
    "Heartbeat": {},
    "LogStatusNotification": {"status": "Idle", "requestId": 1},
    "MeterValues": {
        "connectorId": 1,
        "transactionId": 7,
        "meterValue": [
            {
                "timestamp": TIME,
                "sampledValue": [
                    {
                        "value": "1000",
                        "context": "Sample.Periodic",
                        "format": "Raw",
                        "measurand": "Energy.Active.Import.Register",
                        "location": "Outlet",
                        "unit": "Wh",
                    },
                    {"value": "42", "measurand": "SoC", "unit": "Percent"},
                ],
            }
        ],
    },
    "SecurityEventNotification": {"type": "FirmwareUpdated", "timestamp": TIME},
    "SignCertificate": {"csr": "x"},
    "SignedFirmwareStatusNotification": {"status": "Installed", "requestId": 1},
    "StartTransaction": {
        "connectorId": 1,
        "idTag": "VID:04E77E00F0FA",
        "meterStart": 1000,
        "timestamp": TIME,
    },
    "StatusNotification": {
        "connectorId": 1,
        "errorCode": "NoError",
        "status": "Preparing",
        "timestamp": TIME,
    },
    "StopTransaction": {
        "transactionId": 7,
        "idTag": "VID:04E77E00F0FA",
        "meterStop": 2000,
        "timestamp": TIME,
        "reason": "EVDisconnected",
        "transactionData": [{"timestamp": TIME, "sampledValue": [{"value": "1500"}]}],
    },
}
"""One valid message for each action that a station may send of its own accord."""
TRANSACTION_MESSAGES = ("StartTransaction", "StopTransaction", "MeterValues")
TORTURED = (
    *TRANSACTION_MESSAGES, "StatusNotification", "BootNotification", "Authorize", "DataTransfer",
)  # fmt: skip
RULES = (
    ExtractorRule(vendor_id="V", message_id="M", field="mac", path="mac"),
    ExtractorRule(vendor_id="V", message_id="M", field="soc", path="soc"),
    ExtractorRule(vendor_id="V", message_id="M", field="connector", path="connector"),
)


class Bench:
    """An adapter with its sink."""

    def __init__(self, **options: Any) -> None:
        self.sink = RecordingSink()
        self.boots = 0
        self.adapter = Adapter16(
            station_id=STATION,
            sink=self.sink,
            clock=StillClock(),
            options=AdapterOptions(**({"extractors": RULES} | options)),
            on_boot=self._booted,
        )

    def _booted(self) -> None:
        self.boots += 1

    async def send(self, action: str, payload: Any) -> Reply:
        text = orjson.dumps([2, "1", action, payload])
        frame = quick16.parse(text)
        assert isinstance(frame, framing.Call)
        return await self.adapter.handle(frame, text)

    async def answer(self, action: str, payload: Any) -> dict[str, Any]:
        """The payload of a CALLRESULT that keeps to its schema."""
        reply = await self.send(action, payload)
        assert reply.payload is not None, reply
        assert schemas.breach(VERSION, f"{action}Response", reply.payload) is None
        return reply.payload


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all fields of a payload."""
    found: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((*path, key))
        if isinstance(inner, (dict, list)):
            found += places(inner, (*path, key))
    return found


def replaced(payload: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(payload)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def removed(payload: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(payload)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return changed


def check_bounded(value: Any) -> None:
    """What an adapter lets in is finite, short and storable."""
    if isinstance(value, str):
        assert len(value) <= 1000
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63
    elif isinstance(value, tuple):
        assert len(value) <= 1000
        for item in value:
            check_bounded(item)
    elif is_dataclass(value):
        for item in fields(value):
            check_bounded(getattr(value, item.name))


# --- which messages are answered ----------------------------------------------------


def test_the_bench_knows_every_action_that_is_handled() -> None:
    """Otherwise the walks below would skip one."""
    assert set(PLAIN) == set(HANDLERS)
    for action, payload in PLAIN.items():
        assert schemas.breach(VERSION, action, payload) is None, action


@pytest.mark.parametrize("action", [str(item.value) for item in Action])
async def test_every_action_of_the_standard_gets_the_answer_it_deserves(
    action: str,
) -> None:
    """Station-initiated: a valid CALLRESULT. Ours alone: NotSupported (SEC-05, LIB-10)."""
    bench = Bench()

    if action in PLAIN:
        await bench.answer(action, PLAIN[action])
    else:
        reply = await bench.send(action, {})
        assert (reply.payload, reply.code) == (None, "NotSupported")
        assert bench.sink.events == []


@pytest.mark.parametrize(
    "action", ["Nonsense", "../../x", "heartbeat", "NotifyReport", "\x00"]
)
async def test_i3_an_unknown_action_gets_not_implemented(action: str) -> None:
    """I3: and no file is opened for it."""
    reply = await Bench().send(action, {})

    assert (reply.payload, reply.code) == (None, "NotImplemented")
    assert len(reply.description) <= 255


@pytest.mark.parametrize("action", sorted(PLAIN))
async def test_an_empty_payload_still_gets_a_valid_answer(action: str) -> None:
    """RPC-05, RPC-06: missing mandatory members."""
    await Bench().answer(action, {})


@pytest.mark.parametrize("action", sorted(PLAIN))
async def test_i13_extra_fields_are_tolerated(action: str) -> None:
    """RPC-06, I13: vendor fields and customData."""
    payload = PLAIN[action] | {"customData": {"vendorId": "x"}, "x" * 500: [1]}

    await Bench().answer(action, payload)


# --- hostile fields -----------------------------------------------------------------


@pytest.mark.parametrize("action", TORTURED)
async def test_no_hostile_value_in_any_field_gets_an_error_or_does_harm(
    action: str,
) -> None:
    """I8: field by field; transaction messages never get a CALLERROR (C2)."""
    base = PLAIN[action]
    if action == "DataTransfer":
        base = base | {"data": {"mac": "04E77E00F0FA", "soc": 5, "connector": 1}}
    for path in places(base):
        for value in HOSTILE:
            bench = Bench()
            await bench.answer(action, replaced(base, path, value))
            for event in bench.sink.events:
                check_bounded(event)
        await Bench().answer(action, removed(base, path))


@pytest.mark.parametrize("action", sorted(PLAIN))
@examples(60)
@given(data=st.data())
async def test_rubbish_in_all_fields_at_once_gets_a_valid_answer(
    action: str, data: st.DataObject
) -> None:
    """Property: any object under the real field names."""
    names = sorted({path[0] for path in places(PLAIN[action])} | {"x"})
    payload = data.draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON_VALUES))
    )
    bench = Bench()

    await bench.answer(action, payload)
    for event in bench.sink.events:
        check_bounded(event)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE sessions; --", "\u202eevil", "a\nb", "\x1b[31m"]
)
async def test_i6_nasty_text_is_kept_as_inert_text(text: str) -> None:
    """I6, I7: recorded as it came, at most cut."""
    bench = Bench()
    await bench.answer("StartTransaction", PLAIN["StartTransaction"] | {"idTag": text})

    assert bench.sink.only(events.TransactionStarted).id_token == text


# --- boot, heartbeat, status ---------------------------------------------------------


async def test_a_boot_is_accepted_with_our_time_and_starts_the_set_up() -> None:
    """C1, BOOT-06: UTC with Z, whole seconds, an interval above 0."""
    bench = Bench(heartbeat_s=300)
    answer = await bench.answer("BootNotification", PLAIN["BootNotification"])

    assert answer == {
        "status": "Accepted",
        "currentTime": "2026-01-15T18:00:00Z",
        "interval": 300,
    }
    assert bench.boots == 1
    booted = bench.sink.only(events.StationBooted)
    assert (booted.vendor, booted.model, booted.serial) == ("Kempower", "S-Series", "SN-1")


async def test_a_boot_with_decorative_faults_is_accepted_all_the_same() -> None:
    """BOOT-07: an empty vendor and a serial over the limit."""
    bench = Bench()
    answer = await bench.answer(
        "BootNotification",
        {
            "chargePointVendor": "",
            "chargePointModel": 7,
            "chargeBoxSerialNumber": "S" * 400,
        },
    )

    assert answer["status"] == "Accepted"
    booted = bench.sink.only(events.StationBooted)
    assert (booted.vendor, booted.model, len(booted.serial)) == ("", "7", 255)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Charging", ConnectorStatus.CHARGING),
        ("charging", ConnectorStatus.CHARGING),
        ("SUSPENDEDEV", ConnectorStatus.SUSPENDED_EV),
        ("Discombobulated", ConnectorStatus.UNKNOWN),
        (None, ConnectorStatus.UNKNOWN),
    ],
)
async def test_a_status_is_read_without_case_and_new_ones_are_unknown(
    word: Any, status: ConnectorStatus
) -> None:
    """RPC-09."""
    bench = Bench()
    await bench.answer("StatusNotification", PLAIN["StatusNotification"] | {"status": word})

    assert bench.sink.only(events.ConnectorChanged).status is status


@pytest.mark.parametrize("connector", [-1, 65, 10**12, None, "x", 1.5, [], True])
async def test_c12_a_status_of_an_impossible_connector_is_only_noted(
    connector: Any,
) -> None:
    """C12: refused without harm to the link."""
    bench = Bench()
    payload = PLAIN["StatusNotification"] | {"connectorId": connector}
    await bench.answer("StatusNotification", payload)

    assert [type(event) for event in bench.sink.events] == [events.AnomalyNoted]


async def test_a_status_of_connector_0_is_the_whole_station() -> None:
    """Connector 0 is no outlet, and no oddity either."""
    bench = Bench()
    await bench.answer(
        "StatusNotification", PLAIN["StatusNotification"] | {"connectorId": 0}
    )

    assert bench.sink.only(events.ConnectorChanged).evse_id == 0


# --- tokens and transactions ----------------------------------------------------------


async def test_authorize_accepts_and_reads_the_mac_out_of_the_token() -> None:
    """A1, A2: VID: and twelve hex digits."""
    bench = Bench()
    answer = await bench.answer("Authorize", PLAIN["Authorize"])

    assert answer["idTagInfo"]["status"] == "Accepted"
    token = bench.sink.only(events.IdTokenPresented)
    assert [(item.kind, item.value) for item in token.evidence] == [
        (EvidenceKind.MAC, "04E77E00F0FA")
    ]


async def test_a_bare_mac_is_evidence_only_where_the_site_says_so() -> None:
    """Twelve digits may also be a card."""
    for bare_mac, kinds in (
        (True, [EvidenceKind.MAC, EvidenceKind.ID_TOKEN]),
        (False, [EvidenceKind.ID_TOKEN]),
    ):
        bench = Bench(bare_mac=bare_mac)
        await bench.answer("Authorize", {"idTag": "04e77e00f0fa"})
        token = bench.sink.only(events.IdTokenPresented)
        assert [item.kind for item in token.evidence] == kinds


async def test_a_start_gets_the_id_that_was_decided() -> None:
    """C1: a repeat gets the id of the first start, not the new one."""
    bench = Bench()
    first = await bench.answer("StartTransaction", PLAIN["StartTransaction"])
    assert first["transactionId"] == 1001
    bench.sink.known_transaction = TransactionId("55")
    again = await bench.answer("StartTransaction", PLAIN["StartTransaction"])

    assert again["transactionId"] == 55


async def test_repeats_of_a_start_have_one_key_and_other_starts_have_another() -> None:
    """The natural key makes repeats harmless across reconnects."""
    bench = Bench()
    base = PLAIN["StartTransaction"]
    others = [
        base,
        base | {"idTag": "vid:04e77e00f0fa", "meterStart": "1000"},
        base | {"connectorId": 2},
        base | {"meterStart": 1001},
        base | {"timestamp": "2026-01-15T17:30:01Z"},
        base | {"timestamp": "x" * 500},
    ]
    for payload in others:
        await bench.answer("StartTransaction", payload)
    keys = [e.key for e in bench.sink.events if isinstance(e, events.TransactionStarted)]

    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1


@pytest.mark.parametrize("connector", [0, None, "x", []])
async def test_a_start_without_a_usable_connector_is_kept_for_connector_1(
    connector: Any,
) -> None:
    """A transaction is never lost for a decorative fault."""
    bench = Bench()
    payload = PLAIN["StartTransaction"] | {"connectorId": connector}
    answer = await bench.answer("StartTransaction", payload)

    started = next(e for e in bench.sink.events if isinstance(e, events.TransactionStarted))
    assert started.evse_id == 1
    assert answer["transactionId"] == 1001


@pytest.mark.parametrize("register", [-1, "-5", "NaN", None, True, 1e308, "1e308", 1e15])
@pytest.mark.parametrize(
    ("action", "field", "kind", "name"),
    [
        ("StartTransaction", "meterStart", events.TransactionStarted, "meter_start_wh"),
        ("StopTransaction", "meterStop", events.TransactionEnded, "meter_stop_wh"),
    ],
)
async def test_a_register_that_cannot_be_is_missing(
    action: str, field: str, kind: type, name: str, register: Any
) -> None:
    """C2: below zero, not a number, or more than any meter can show."""
    bench = Bench()
    await bench.answer(action, PLAIN[action] | {field: register})

    assert getattr(bench.sink.only(kind), name) is None


async def test_a_stop_carries_its_samples_reason_and_register() -> None:
    """C2: what the station measured on its own counts."""
    bench = Bench()
    answer = await bench.answer("StopTransaction", PLAIN["StopTransaction"])
    ended = bench.sink.only(events.TransactionEnded)

    assert answer == {"idTagInfo": {"status": "Accepted"}}
    assert (ended.transaction_id, ended.reason) == ("7", "EVDisconnected")
    assert ended.meter_stop_wh == 2000.0
    assert [reading.register_wh for reading in ended.readings] == [1500.0]


async def test_a_stop_without_a_reason_was_local() -> None:
    """1.6: absent means Local."""
    bench = Bench()
    await bench.answer(
        "StopTransaction", {"transactionId": 7, "meterStop": 1, "timestamp": TIME}
    )

    assert bench.sink.only(events.TransactionEnded).reason == "Local"


@pytest.mark.parametrize("transaction_id", [0, -1, 999_999, "abc", 2**40])
async def test_c3_a_stop_of_any_id_is_answered_positively(transaction_id: Any) -> None:
    """C3: it cannot be prevented."""
    payload = PLAIN["StopTransaction"] | {"transactionId": transaction_id}
    answer = await Bench().answer("StopTransaction", payload)

    assert answer == {"idTagInfo": {"status": "Accepted"}}


async def test_t1_a_time_that_cannot_be_true_is_replaced_and_noted() -> None:
    """T1, T6: the transaction is kept with our time."""
    bench = Bench()
    payload = PLAIN["StartTransaction"] | {"timestamp": "1970-01-01T00:00:00Z"}
    await bench.answer("StartTransaction", payload)

    started = bench.sink.only(events.TransactionStarted)
    assert started.at == NOW
    assert bench.sink.only(events.AnomalyNoted).evse_id == 1


async def test_meter_values_become_one_event_with_readings() -> None:
    """And nothing else, when nothing is odd."""
    bench = Bench()
    assert await bench.answer("MeterValues", PLAIN["MeterValues"]) == {}

    sampled = bench.sink.only(events.MeterSampled)
    assert (sampled.evse_id, sampled.transaction_id) == (1, "7")
    assert sampled.readings[0].register_wh == 1000.0
    assert sampled.readings[0].soc_percent == 42.0


async def test_meter_values_with_nothing_in_them_cost_nothing() -> None:
    """MTR-06."""
    bench = Bench()
    await bench.answer("MeterValues", {"connectorId": 1, "meterValue": []})

    assert bench.sink.events == []


# --- vendor messages ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"vendorId": "Other"}, "UnknownVendorId"),
        ({"vendorId": "Friend", "messageId": "any"}, "Accepted"),
        ({"vendorId": "V", "messageId": "Other"}, "UnknownMessageId"),
        ({"vendorId": "V", "messageId": "M", "data": "{}"}, "Accepted"),
        ({}, "UnknownVendorId"),
    ],
)
async def test_data_transfer_is_always_answered_and_never_with_an_error(
    payload: dict[str, Any], status: str
) -> None:
    """RPC-08: otherwise it is repeated."""
    bench = Bench(accepted_vendors=frozenset({"Friend"}))

    assert (await bench.answer("DataTransfer", payload))["status"] == status


async def test_an_extractor_turns_vendor_data_into_evidence() -> None:
    """A4: MAC, SoC and connector as the site configured."""
    bench = Bench()
    text = '{"mac": "04:E7:7E:00:F0:FA", "soc": 42, "connector": 2}'
    await bench.answer("DataTransfer", {"vendorId": "V", "messageId": "M", "data": text})

    found = bench.sink.only(events.EvidenceReported)
    assert (found.evse_id, found.soc_percent) == (2, 42.0)
    assert found.evidence[0].value == "04E77E00F0FA"


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"mac": text}])
async def test_i12_vendor_data_over_8_kib_is_dropped_and_answered_normally(
    wrap: Any,
) -> None:
    """I12: DataTransfer of 200 KiB."""
    bench = Bench(extractors=(ExtractorRule(vendor_id="V", pattern="(04E77E00F0FA)"),))
    data = wrap("x" * 200_000 + "04E77E00F0FA")
    answer = await bench.answer("DataTransfer", {"vendorId": "V", "data": data})

    assert answer["status"] == "Accepted"
    assert [type(event) for event in bench.sink.events] == [events.AnomalyNoted]


# --- schema breaches ------------------------------------------------------------------


async def test_i13_a_schema_breach_is_logged_once_and_the_data_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """I13: what real firmware does wrong is recorded, not refused."""
    bench = Bench()
    broken = PLAIN["StatusNotification"] | {"info": "x" * 51}
    for _ in range(3):
        await bench.answer("StatusNotification", broken)

    assert capsys.readouterr().out.count("schema_breached") == 1
    assert len(bench.sink.events) == 3


async def test_endless_different_breaches_do_not_fill_the_memory() -> None:
    """A station may break the schema in a new way each time."""
    bench = Bench()
    for number in range(500):
        await bench.answer(
            "StatusNotification", PLAIN["StatusNotification"] | {f"f{number}": 1}
        )

    assert len(bench.adapter._breaches) <= 64
