"""Setting a 2.x station up: capabilities early, read first, write only differences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog.testing

from agent.domain import events
from agent.domain.capability import Capabilities, RateUnit
from agent.domain.ids import StationId, TransactionId
from agent.domain.station import EVSES_MAX
from agent.ports import Priority
from agent.stations import schemas, v2_setup
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome, Link
from agent.stations.v2_setup import Setup2, Wishes2, default_settings_2x
from agent.stations.v2_variables import ITEMS_AT_ONCE, MEASURAND_KEYS, read_setting
from agent.stations.v16_setup import MEASURANDS_AC, MEASURANDS_DC

from .conftest import HOSTILE, STATION, RecordingSink, soon

WISHED = default_settings_2x(meter_interval_s=30, heartbeat_s=300)
FULL = "FullInventory"
LAST_PURPOSE = "ChargingStationMaxProfile"
TIMEOUT = CallOutcome(None, "Timeout")
ENERGY, POWER, SOC, OFFERED = MEASURANDS_DC
UPDATED, STARTED, ENDED, ALIGNED = (key.text for key in MEASURAND_KEYS)
MEASURANDS = {
    UPDATED: ",".join(MEASURANDS_DC),
    STARTED: f"{ENERGY},{SOC}",
    ENDED: f"{ENERGY},{SOC}",
    ALIGNED: ENERGY,
}
SMART = {
    "SmartChargingCtrlr.Available": "true",
    "SmartChargingCtrlr.Enabled": "true",
    "SmartChargingCtrlr.ProfileStackLevel": "3",
    "SmartChargingCtrlr.RateUnit": "A,W",
    "SmartChargingCtrlr.PeriodsPerSchedule": "24",
}
SETTLED = {**WISHED, **MEASURANDS, **SMART}
"""A station with nothing left to wish for."""
Script = Callable[[str, Payload], CallOutcome | None]


def name_of(item: Payload) -> str:
    """The variable in an item of a message, as settings spell it."""
    instance = item["variable"].get("instance")
    name = f"{item['component']['name']}.{item['variable']['name']}"
    return f"{name}[{instance}]" if instance else name


def place(name: str) -> Payload:
    key = read_setting(name)
    assert key is not None
    return key.payload


def evse_entry(evse: int, connector: int | None = None) -> Payload:
    where = {"id": evse} if connector is None else {"id": evse, "connectorId": connector}
    return {
        "component": {"name": "EVSE" if connector is None else "Connector", "evse": where},
        "variable": {"name": "AvailabilityState"},
        "variableAttribute": [{"value": "Available"}],
    }


def listed(name: str, **characteristics: Any) -> Payload:
    mutability = characteristics.pop("mutability", "ReadWrite")
    return {
        **place(name),
        "variableAttribute": [{"mutability": mutability}],
        "variableCharacteristics": {
            "dataType": "MemberList",
            "supportsMonitoring": False,
            **characteristics,
        },
    }


@dataclass
class Station2:
    """A 2.x station by its variables and its report; a script may answer otherwise."""

    variables: dict[str, Any] = field(default_factory=lambda: dict(SETTLED))
    report: list[list[Payload]] = field(default_factory=list)
    profiles: dict[str, list[Payload]] = field(default_factory=dict)
    script: Script | None = None
    version: str = "ocpp2.0.1"
    setup: Setup2 | None = None
    calls: list[tuple[str, Payload, Priority]] = field(default_factory=list)

    async def call(self, action: str, payload: Payload, priority: Priority) -> CallOutcome:
        assert schemas.breach(self.version, action, payload) is None
        self.calls.append((action, payload, priority))
        await asyncio.sleep(0)
        said = self.script(action, payload) if self.script else None
        if said is not None:
            return said
        answer = getattr(self, f"on_{action}", None)
        return CallOutcome({"status": "Accepted"} if answer is None else answer(payload))

    def on_GetVariables(self, payload: Payload) -> Payload:  # noqa: N802 - the action's name
        return {"getVariableResult": [self.result(i) for i in payload["getVariableData"]]}

    def result(self, item: Payload) -> Payload:
        known = {name.lower(): value for name, value in self.variables.items()}
        name = name_of(item).lower()
        if name not in known:
            return {**item, "attributeStatus": "UnknownVariable"}
        return {**item, "attributeStatus": "Accepted", "attributeValue": known[name]}

    def on_SetVariables(self, payload: Payload) -> Payload:  # noqa: N802
        for item in payload["setVariableData"]:
            self.variables[name_of(item)] = item["attributeValue"]
        return {"setVariableResult": [done(item) for item in payload["setVariableData"]]}

    def on_GetBaseReport(self, payload: Payload) -> Payload:  # noqa: N802
        assert self.setup is not None
        if not self.report:
            return {"status": "EmptyResultSet"}
        for number, entries in enumerate(self.report):
            self.setup.report_received(
                {
                    "requestId": payload["requestId"],
                    "seqNo": number,
                    "tbc": number < len(self.report) - 1,
                    "reportData": entries,
                }
            )
        return {"status": "Accepted"}

    def on_GetChargingProfiles(self, payload: Payload) -> Payload:  # noqa: N802
        assert self.setup is not None
        reports = self.profiles.get(payload["chargingProfile"]["chargingProfilePurpose"])
        for item in reports or []:
            self.setup.profiles_received({"requestId": payload["requestId"], **item})
        return {"status": "NoProfiles" if reports is None else "Accepted"}

    def on_GetTransactionStatus(self, _: Payload) -> Payload:  # noqa: N802
        return {"ongoingIndicator": True, "messagesInQueue": False}

    def sent(self, action: str) -> list[Payload]:
        return [payload for name, payload, _ in self.calls if name == action]

    def read(self) -> list[list[str]]:
        return [
            [name_of(item) for item in payload["getVariableData"]]
            for payload in self.sent("GetVariables")
        ]

    def written(self) -> list[tuple[str, str]]:
        return [
            (name_of(item), item["attributeValue"])
            for payload in self.sent("SetVariables")
            for item in payload["setVariableData"]
        ]

    def triggers(self) -> list[tuple[str, dict[str, int]]]:
        return [(p["requestedMessage"], p["evse"]) for p in self.sent("TriggerMessage")]

    def statuses(self) -> list[tuple[int, int]]:
        return [
            (evse["id"], evse["connectorId"])
            for what, evse in self.triggers()
            if what == "StatusNotification"
        ]


def done(item: Payload, status: Any = "Accepted") -> Payload:
    return {
        "component": item["component"],
        "variable": item["variable"],
        "attributeStatus": status,
    }


@dataclass
class Bench:
    station: Station2
    wishes: Wishes2 = field(default_factory=lambda: Wishes2(settings=WISHED))
    known: list[tuple[int, int]] = field(default_factory=list)
    running: list[tuple[str, int]] = field(default_factory=list)
    sink: RecordingSink = field(default_factory=RecordingSink)
    installed: list[tuple[Payload, ...]] = field(default_factory=list)
    is_accepted: bool = True
    configured: int = 0
    logs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.setup = self.station.setup = Setup2(
            station_id=STATION,
            version=self.station.version,
            link=cast("Link", self.station),
            sink=self.sink,
            wishes=self.wishes,
            known_outlets=lambda: self.known,
            open_transactions=lambda: self.running,
            on_profiles=self.on_profiles,
            on_configured=self.on_configured,
            is_accepted=lambda: self.is_accepted,
            slots=asyncio.Semaphore(8),
            pace=0.001,
        )

    async def on_profiles(self, items: tuple[Payload, ...]) -> None:
        self.installed.append(items)

    async def on_configured(self) -> None:
        self.configured += 1

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.logs if entry["event"] == event]

    def refused(self) -> list[str]:
        return [entry["key"] for entry in self.logged("setting_refused")]

    async def passes(self, count: int) -> None:
        await soon(lambda: len(self.logged("station_configured")) >= count)


@asynccontextmanager
async def at_work(bench: Bench, *, booted: bool = True) -> AsyncIterator[Bench]:
    """Let the set-up run, and wait until it did its work once."""
    if booted:
        bench.setup.booted()
    with structlog.testing.capture_logs() as logs:
        bench.logs = logs
        task = asyncio.get_running_loop().create_task(bench.setup.run())
        try:
            await soon(lambda: task.done() or bool(bench.logged("station_configured")))
            yield bench
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


async def worked(station: Station2, *, booted: bool = True, **more: Any) -> Bench:
    async with at_work(Bench(station, **more), booted=booted) as bench:
        return bench


def failing(action: str, outcome: CallOutcome) -> Script:
    return lambda name, _: outcome if name == action else None


def endless_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that has to wait for a time-out of a part fail."""
    monkeypatch.setattr(v2_setup, "PART_WAIT_S", 1e9)
    monkeypatch.setattr(v2_setup, "REPORT_WAIT_S", 1e9)


# --- what it can do -----------------------------------------------------------------------


async def test_capabilities_are_told_before_the_report_and_the_settings() -> None:
    """The first charging profile waits for them (B6)."""
    station = Station2(report=[[evse_entry(1)]])
    told_after: list[str] = []
    bench = Bench(station)
    take = bench.sink.capabilities_read

    async def noted(station_id: StationId, capabilities: Capabilities) -> None:
        told_after.append(station.calls[-1][0])
        await take(station_id, capabilities)

    bench.sink.capabilities_read = noted  # type: ignore[method-assign]
    async with at_work(bench):
        assert told_after[0] == "GetVariables"
        assert len(station.read()) <= 3
        assert bench.sink.capabilities[0] == Capabilities(
            units=frozenset({RateUnit.AMPERE, RateUnit.WATT}),
            periods_max=24,
            stack_level_max=3,
            has_smart_charging=True,
            is_known=True,
        )


async def test_what_the_inventory_teaches_is_told_too() -> None:
    """The number of EVSEs, and how many profiles fit (maxLimit, not the value)."""
    entries = listed("SmartChargingCtrlr.Entries[ChargingProfiles]", maxLimit=20)
    entries["variableAttribute"] = [{"value": "2"}]
    bench = await worked(Station2(report=[[evse_entry(1)], [evse_entry(2)], [entries]]))

    assert [(s.connectors, s.profiles_max) for s in bench.sink.capabilities] == [
        (None, None),
        (2, 20),
    ]


async def test_nothing_new_is_told_once() -> None:
    bench = await worked(Station2(report=[[evse_entry(1)]]), known=[(1, 1)])

    assert [said.connectors for said in bench.sink.capabilities] == [1]


async def test_a_21_station_is_asked_for_what_21_has() -> None:
    """B3; and a 2.0.1 station is not."""
    features = {
        "SmartChargingCtrlr.SupportsFeature[DynamicProfiles]": "true",
        "SmartChargingCtrlr.SupportsFeature[LimitAtSoC]": "false",
        "SmartChargingCtrlr.MaxExternalConstraintsId": "99",
        "SmartChargingCtrlr.ChargingProfilePersistence[TxProfile]": "false",
    }
    for version, expected in (
        ("ocpp2.1", (frozenset({"dynamicprofiles"}), 99, False)),
        ("ocpp2.0.1", (frozenset(), None, None)),
    ):
        bench = await worked(Station2(SETTLED | features, version=version))
        said = bench.sink.capabilities[0]
        assert (
            said.features,
            said.external_ids_max,
            said.transactions_persist,
        ) == expected


async def test_silence_keeps_earlier_knowledge() -> None:
    """V2-05: told as unknown, so that nothing waits and nothing is withdrawn."""
    station = Station2(script=failing("GetVariables", TIMEOUT))
    bench = await worked(station, known=[(1, 1)])

    assert [said.is_known for said in bench.sink.capabilities] == [False]
    assert station.written() == []


async def test_a_probe_that_stops_halfway_withdraws_nothing() -> None:
    """V2-05: only an answer about smart charging replaces what is known."""

    def silent(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "GetVariables" and "SmartCharging" in str(payload)
        return TIMEOUT if is_it else None

    room = {"DeviceDataCtrlr.ItemsPerMessage[GetVariables]": "8"}
    bench = await worked(Station2(SETTLED | room, script=silent), known=[(1, 1)])

    assert [said.is_known for said in bench.sink.capabilities] == [False]


async def test_a_station_that_must_not_be_asked_is_not_asked() -> None:
    """The quirk no-configuration."""
    station = Station2({})
    wishes = Wishes2(settings=WISHED, reads_configuration=False)
    bench = await worked(station, wishes=wishes)

    assert {action for action, _, _ in station.calls} <= {
        "TriggerMessage",
        "GetChargingProfiles",
    }
    assert [said.is_known for said in bench.sink.capabilities] == [False]


# --- messages with many variables ----------------------------------------------------------


async def test_no_more_items_are_sent_than_the_station_takes() -> None:
    """ItemsPerMessage of both messages."""
    variables = {
        **SMART,
        **dict.fromkeys(WISHED, "7"),
        "DeviceDataCtrlr.ItemsPerMessage[GetVariables]": "5",
        "DeviceDataCtrlr.ItemsPerMessage[SetVariables]": "3",
    }
    station = Station2(variables)
    await worked(station)

    assert {len(names) for names in station.read()[1:]} <= {1, 2, 3, 4, 5}
    assert max(len(names) for names in station.read()[1:]) == 5
    sizes = [len(p["setVariableData"]) for p in station.sent("SetVariables")]
    assert max(sizes) == 3
    assert station.written() == list(WISHED.items())


async def test_a_huge_number_of_items_is_not_used_up() -> None:
    """One vendor's table of 1,000 is no reason for a message of 1,000."""
    room = {"DeviceDataCtrlr.ItemsPerMessage[GetVariables]": "1000"}
    wishes = Wishes2(settings={f"Vendor.Setting{number}": "1" for number in range(90)})
    station = Station2(SETTLED | room)
    await worked(station, wishes=wishes)

    assert max(len(names) for names in station.read()) == ITEMS_AT_ONCE


async def test_no_message_is_longer_than_the_station_takes() -> None:
    """BytesPerMessage counts the whole message."""
    room = {
        "DeviceDataCtrlr.ItemsPerMessage[GetVariables]": "30",
        "DeviceDataCtrlr.BytesPerMessage[GetVariables]": "700",
    }
    station = Station2(SETTLED | room)
    await worked(station)

    assert len(station.read()) > 3
    assert all(
        len(str(payload)) < 700 or len(payload["getVariableData"]) == 1
        for payload in station.sent("GetVariables")[1:]
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_smaller_messages_are_tried_where_large_ones_are_refused(limit: int) -> None:
    """A station that has no ItemsPerMessage and still has a limit."""

    def refuses(action: str, payload: Payload) -> CallOutcome | None:
        items = payload.get("getVariableData") or payload.get("setVariableData") or []
        is_long = len(items) > limit
        return CallOutcome(None, "OccurrenceConstraintViolation") if is_long else None

    station = Station2(SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"}, script=refuses)
    bench = await worked(station)

    assert bench.sink.capabilities[0].periods_max == 24
    assert station.written() == [("OCPPCommCtrlr.HeartbeatInterval", "300")]
    assert len(station.read()) <= 6 + 2 * len(SETTLED) // limit


async def test_a_variable_that_makes_the_station_fail_costs_only_itself() -> None:
    """CFG-03: an unknown variable answered with an error."""

    def refuses(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "GetVariables" and "PeriodsPerSchedule" in str(payload)
        return CallOutcome(None, "InternalError") if is_it else None

    station = Station2(script=refuses)
    bench = await worked(station)

    said = bench.sink.capabilities[0]
    assert (said.periods_max, said.stack_level_max, said.is_known) == (None, 3, True)


async def test_results_that_are_cut_off_are_asked_for_again() -> None:
    """It answers as many as it can, and says nothing of it."""

    def cuts(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetVariables":
            return None
        results = station.on_GetVariables(payload)["getVariableResult"]
        return CallOutcome({"getVariableResult": results[:2]})

    station = Station2(SETTLED | {"TxCtrlr.StopTxOnInvalidId": "true"}, script=cuts)
    bench = await worked(station)

    assert bench.sink.capabilities[0].periods_max == 24
    assert station.written() == [("TxCtrlr.StopTxOnInvalidId", "false")]


async def test_a_station_that_fails_at_everything_is_left_alone_soon() -> None:
    station = Station2(script=failing("GetVariables", CallOutcome(None, "InternalError")))
    bench = await worked(station)

    assert len(station.sent("GetVariables")) < 20
    assert station.written() == []
    assert [said.is_known for said in bench.sink.capabilities] == [False]


# --- the device model ----------------------------------------------------------------------


async def test_the_report_is_read_and_counted() -> None:
    bench = await worked(Station2(report=[[evse_entry(1)], [evse_entry(2)]]))
    (entry,) = bench.logged("station_inventory_read")

    assert (entry["parts"], entry["variables"], entry["outlets"]) == (2, 2, 2)
    assert entry["is_complete"] is True


async def test_parts_that_come_before_or_long_after_the_answer_are_taken() -> None:
    """The station need not wait for us."""
    station = Station2()
    bench = Bench(station)

    def slowly(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetBaseReport":
            return None
        loop = asyncio.get_running_loop()
        part = {"requestId": payload["requestId"], "reportData": [evse_entry(1)]}
        bench.setup.report_received({**part, "seqNo": 0, "tbc": True})
        later = {**part, "seqNo": 1, "tbc": False, "reportData": [evse_entry(2)]}
        loop.call_later(0.004, bench.setup.report_received, later)
        return CallOutcome({"status": "Accepted"})

    station.script = slowly
    async with at_work(bench):
        assert bench.sink.capabilities[-1].connectors == 2


@pytest.mark.parametrize("parts", [0, 1, 50])
async def test_a_report_that_never_ends_holds_nothing_up(parts: int) -> None:
    """V2-04: what came is used, the rest goes on without it."""
    station = Station2(SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"})
    bench = Bench(station)

    def endless(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetBaseReport":
            return None
        for number in range(parts):
            bench.setup.report_received(
                {
                    "requestId": payload["requestId"],
                    "seqNo": number,
                    "tbc": True,
                    "reportData": [evse_entry(number + 1)],
                }
            )
        return CallOutcome({"status": "Accepted"})

    station.script = endless
    async with at_work(bench):
        assert station.written() == [("OCPPCommCtrlr.HeartbeatInterval", "300")]
        assert len(station.statuses()) == max(parts, 1)
        (entry,) = bench.logged("station_inventory_read")
        assert (entry["parts"], entry["is_complete"]) == (parts, False)


async def test_parts_that_drip_for_ever_are_not_waited_for_for_ever() -> None:
    """Each of them comes in time, and there is always one more."""
    station = Station2()
    bench = Bench(station)

    def drip(request: int, number: int) -> None:
        bench.setup.report_received({"requestId": request, "seqNo": number, "tbc": True})
        asyncio.get_running_loop().call_later(0.005, drip, request, number + 1)

    def dripping(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetBaseReport":
            return None
        drip(payload["requestId"], 0)
        return CallOutcome({"status": "Accepted"})

    station.script = dripping
    async with at_work(bench):
        assert bench.logged("station_inventory_read")


async def test_after_the_last_part_a_gap_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages keep their order: what is missing was lost."""
    endless_waits(monkeypatch)
    station = Station2()
    bench = Bench(station)

    def gaps(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetBaseReport":
            return None
        part = {"requestId": payload["requestId"], "reportData": [evse_entry(1)]}
        bench.setup.report_received({**part, "seqNo": 0, "tbc": True})
        bench.setup.report_received({**part, "seqNo": 2, "tbc": False})
        return CallOutcome({"status": "Accepted"})

    station.script = gaps
    async with at_work(bench):
        (entry,) = bench.logged("station_inventory_read")
        assert (entry["parts"], entry["is_complete"]) == (2, False)


async def test_the_smaller_report_is_asked_for_where_the_full_one_is_not_known() -> None:
    def lacks_full(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "GetBaseReport" and payload["reportBase"] == FULL
        return CallOutcome({"status": "NotSupported"}) if is_it else None

    station = Station2(report=[[evse_entry(1)]], script=lacks_full)
    bench = await worked(station)

    assert [p["reportBase"] for p in station.sent("GetBaseReport")] == [
        FULL,
        "ConfigurationInventory",
    ]
    numbers = [p["requestId"] for p in station.sent("GetBaseReport")]
    assert len(set(numbers)) == 2
    assert bench.sink.capabilities[-1].connectors == 1


@pytest.mark.parametrize(
    ("outcome", "count"),
    [
        (CallOutcome(None, "NotImplemented"), 1),
        (CallOutcome(None, "InternalError"), 2),
        (CallOutcome({"status": "EmptyResultSet"}), 1),
        (CallOutcome({"status": "Rejected"}), 2),
        (TIMEOUT, 1),
    ],
)
async def test_without_a_report_the_rest_is_done(outcome: CallOutcome, count: int) -> None:
    """V2-04: assume one EVSE."""
    station = Station2(script=failing("GetBaseReport", outcome))
    bench = await worked(station)

    assert len(station.sent("GetBaseReport")) == count
    assert station.statuses() == [(1, 1)]
    assert bench.logged("station_inventory_read") == []


async def test_a_message_that_the_station_lacks_is_not_sent_again() -> None:
    """Remembered as long as the link lives, over boots."""
    lacking = CallOutcome(None, "NotSupported")
    station = Station2(script=failing("GetChargingProfiles", lacking))
    async with at_work(Bench(station)) as bench:
        bench.setup.booted()
        await bench.passes(2)
        assert len(station.sent("GetChargingProfiles")) == 1
        assert [entry["action"] for entry in bench.logged("call_not_supported")] == [
            "GetChargingProfiles"
        ]


# --- settings ------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_table() -> None:
    """ocpp-depot.md C7, with the site's own intervals; all of them are names."""
    assert WISHED["SampledDataCtrlr.TxUpdatedInterval"] == "30"
    assert WISHED["OCPPCommCtrlr.HeartbeatInterval"] == "300"
    assert WISHED["TxCtrlr.StopTxOnInvalidId"] == "false"
    assert WISHED["OCPPCommCtrlr.MessageAttempts[TransactionEvent]"] == "5"
    for name in WISHED:
        key = read_setting(name)
        assert key is not None
        assert key.text == name


@pytest.mark.parametrize(
    "name", ["", "Heartbeat", ".A", "A.", "A.B[", "A.B[]", "[A].B", f"A.{'x' * 51}", "A. "]
)
def test_what_is_no_name_of_a_variable_is_not_read_as_one(name: str) -> None:
    assert read_setting(name) is None


async def test_nothing_is_written_where_nothing_differs() -> None:
    """CFG-09; letter case, blanks and the form of a number are no difference."""
    same = {
        "AuthCtrlr.LocalPreAuthorize": "True",
        "OCPPCommCtrlr.HeartbeatInterval": " 300 ",
        "SmartChargingCtrlr.LimitChangeSignificance": "1.0",
        UPDATED: "[" + ", ".join(f'"{m}"' for m in MEASURANDS_DC) + "]",
    }
    station = Station2(SETTLED | same)
    await worked(station)

    assert station.written() == []


async def test_only_differences_are_written_one_at_a_time() -> None:
    """C7: in the order in which they matter, where the station does not say more."""
    other = {
        "OCPPCommCtrlr.HeartbeatInterval": "3600",
        "TxCtrlr.StopTxOnInvalidId": "true",
    }
    station = Station2(SETTLED | other)
    await worked(station)

    assert station.written() == [
        ("OCPPCommCtrlr.HeartbeatInterval", "300"),
        ("TxCtrlr.StopTxOnInvalidId", "false"),
    ]
    assert len(station.sent("SetVariables")) == 2


async def test_what_the_station_lacks_or_keeps_for_itself_is_not_written() -> None:
    """CFG-09, for absent and read-only variables."""
    variables = SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "3600", UPDATED: ENERGY}
    del variables["TxCtrlr.StopTxOnInvalidId"], variables[STARTED]
    fixed = [
        listed("OCPPCommCtrlr.HeartbeatInterval", mutability="ReadOnly"),
        listed(UPDATED, mutability="ReadOnly"),
    ]
    station = Station2(variables, report=[fixed])
    bench = await worked(station)

    assert station.written() == []
    assert bench.refused() == []


async def test_what_could_not_be_read_is_not_written_blindly() -> None:
    def silent(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "GetVariables" and "Interval" in str(payload)
        return TIMEOUT if is_it else None

    station = Station2(script=silent)
    await worked(station)

    assert station.written() == []


async def test_refused_settings_are_logged_and_the_others_written() -> None:
    """Every way of saying no, and saying nothing; a reboot is only noted."""
    answers = iter(["Rejected", "UnknownVariable", "RebootRequired", 5, "Accepted"])

    def answer(action: str, payload: Payload) -> CallOutcome | None:
        if action != "SetVariables":
            return None
        (item,) = payload["setVariableData"]
        return CallOutcome({"setVariableResult": [done(item, next(answers))]})

    names = list(WISHED)[:5]
    station = Station2(SETTLED | dict.fromkeys(names, "777"), script=answer)
    bench = await worked(station)

    assert [name for name, _ in station.written()] == names
    assert bench.refused() == [names[0], names[1], names[3]]
    assert [entry["key"] for entry in bench.logged("reboot_required")] == [names[2]]


async def test_a_setting_that_no_message_can_carry_is_refused_at_once() -> None:
    """Names and values from the site's file."""
    settings = {"Heartbeat": "1", "A.Long": "x" * 2600, "A.Short": "1"}
    station = Station2(SETTLED | {"A.Long": "1", "A.Short": "0"})
    bench = await worked(station, wishes=Wishes2(settings=settings))

    assert station.written() == [("A.Short", "1")]
    assert bench.refused() == ["Heartbeat", "A.Long"]


async def test_writing_stops_where_the_station_falls_silent() -> None:
    """Not a time-out for every setting."""
    station = Station2(
        SETTLED | dict.fromkeys(WISHED, "777") | {UPDATED: ""},
        script=failing("SetVariables", TIMEOUT),
    )
    await worked(station)

    assert len(station.written()) <= 2


# --- measurands ----------------------------------------------------------------------------


async def test_measurands_are_added_one_at_a_time_and_none_is_taken_away() -> None:
    """CFG-11; one that the station does not take is left out."""

    def refuses(action: str, payload: Payload) -> CallOutcome | None:
        if action != "SetVariables":
            return None
        (item,) = payload["setVariableData"]
        is_it = SOC in item["attributeValue"]
        result = done(item, "Rejected") if is_it else done(item)
        return CallOutcome({"setVariableResult": [result]})

    station = Station2(SETTLED | {UPDATED: f"Temperature,{ENERGY}"}, script=refuses)
    bench = await worked(station)

    assert station.written() == [
        (UPDATED, f"Temperature,{ENERGY},{POWER}"),
        (UPDATED, f"Temperature,{ENERGY},{POWER},{SOC}"),
        (UPDATED, f"Temperature,{ENERGY},{POWER},{OFFERED}"),
    ]
    assert bench.refused() == [f"{UPDATED} {SOC}"]


async def test_all_four_lists_are_extended() -> None:
    """C7: energy and SoC at both ends, energy outside of transactions."""
    station = Station2(SETTLED | dict.fromkeys(MEASURANDS, ""))
    await worked(station)

    assert {name: station.variables[name] for name in MEASURANDS} == MEASURANDS


async def test_an_ac_station_is_asked_for_no_state_of_charge() -> None:
    station = Station2(SETTLED | dict.fromkeys(MEASURANDS, ""))
    await worked(station, wishes=Wishes2(settings=WISHED, measurands=MEASURANDS_AC))

    assert station.variables[UPDATED] == ",".join(MEASURANDS_AC)
    assert station.variables[STARTED] == station.variables[ENDED] == ENERGY


async def test_lists_take_only_what_is_offered_and_fits() -> None:
    """The valuesList and maxLimit of the inventory."""
    room = len(f"{ENERGY},{SOC}")
    lists = [
        listed(UPDATED, valuesList=f"{ENERGY}, {POWER.lower()}"),
        listed(STARTED, maxLimit=room),
        listed(ENDED, maxLimit=room - 1),
    ]
    station = Station2(SETTLED | dict.fromkeys(MEASURANDS, ""), report=[lists])
    bench = await worked(station)

    assert {name: station.variables[name] for name in MEASURANDS} == {
        UPDATED: f"{ENERGY},{POWER}",
        STARTED: f"{ENERGY},{SOC}",
        ENDED: ENERGY,
        ALIGNED: ENERGY,
    }
    assert bench.refused() == [f"{ENDED} {SOC}"]


async def test_a_list_that_could_not_be_read_is_left_alone() -> None:
    """It may hold more than what would be written."""

    def hides(action: str, payload: Payload) -> CallOutcome | None:
        if action != "GetVariables":
            return None
        results = [station.result(item) for item in payload["getVariableData"]]
        for item in results:
            if name_of(item) in MEASURANDS:
                item["attributeStatus"] = "Rejected"
                item.pop("attributeValue")
        return CallOutcome({"getVariableResult": results})

    station = Station2(script=hides)
    await worked(station)

    assert station.written() == []


# --- states and transactions ---------------------------------------------------------------


async def test_states_that_the_station_did_not_send_are_asked_for() -> None:
    """BOOT-09: what it sent by itself after a boot is not asked for."""
    report = [[evse_entry(1, 1), evse_entry(1, 2), evse_entry(2, 1)]]
    station = Station2(report=report)
    await worked(station, known=[(1, 1)])

    assert station.statuses() == [(1, 2), (2, 1)]


async def test_after_a_reconnect_without_a_boot_every_state_is_asked_for_once() -> None:
    """BOOT-01: what is stored is stale; EVSE 0 and connector 0 are none (V2-03)."""
    station = Station2(report=[[evse_entry(1), evse_entry(2)]])
    bench = await worked(station, booted=False, known=[(0, 0), (1, 0), (1, 1), (3, 1)])

    assert sorted(station.statuses()) == [(1, 1), (2, 1), (3, 1)]
    assert len(bench.logged("station_reconnected")) == 1
    actions = [action for action, _, _ in station.calls]
    assert actions.index("TriggerMessage") < actions.index("GetBaseReport")


async def test_a_station_that_claims_endless_outlets_is_not_believed() -> None:
    """A set-up must end."""
    report = [[evse_entry(1, number) for number in range(1, EVSES_MAX + 1)]] * 2
    report[1] = [evse_entry(2, number) for number in range(1, EVSES_MAX + 1)]
    station = Station2(report=report)
    await worked(station)

    assert len(station.statuses()) == EVSES_MAX


@pytest.mark.parametrize(
    "outcome",
    [TIMEOUT, CallOutcome({"status": "NotImplemented"}), CallOutcome(None, "NotSupported")],
)
async def test_triggers_end_where_they_are_of_no_use(outcome: CallOutcome) -> None:
    station = Station2(
        report=[[evse_entry(1), evse_entry(2)]], script=failing("TriggerMessage", outcome)
    )
    await worked(station)

    assert len(station.statuses()) == 1


async def test_open_transactions_are_checked() -> None:
    """B14, C3: a fresh event of each, and whether it still runs; before the report."""
    answers = {
        "T-1": {"ongoingIndicator": True, "messagesInQueue": True},
        "T-2": {"ongoingIndicator": False, "messagesInQueue": False},
        "T-3": {"messagesInQueue": False},
    }

    def answer(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "GetTransactionStatus"
        return CallOutcome(answers[payload["transactionId"]]) if is_it else None

    station = Station2(script=answer)
    bench = await worked(station, running=[("T-1", 1), ("T-2", 2), ("T-3", 0)])

    assert bench.sink.events == [
        events.TransactionChecked(
            transaction_id=TransactionId(number), is_ongoing=ongoing, has_queue=queue
        )
        for number, ongoing, queue in (
            ("T-1", True, True),
            ("T-2", False, False),
            ("T-3", None, False),
        )
    ]
    asked = [evse for what, evse in station.triggers() if what == "TransactionEvent"]
    assert asked == [{"id": 1}, {"id": 2}]
    actions = [action for action, _, _ in station.calls]
    assert actions.index("GetTransactionStatus") < actions.index("GetBaseReport")


@pytest.mark.parametrize(
    ("outcome", "asked"),
    [
        (TIMEOUT, 1),
        (CallOutcome(None, "NotImplemented"), 1),
        (CallOutcome(None, "InternalError"), 2),
    ],
)
async def test_no_answer_about_a_transaction_is_no_news(
    outcome: CallOutcome, asked: int
) -> None:
    station = Station2(script=failing("GetTransactionStatus", outcome))
    bench = await worked(station, running=[("T-1", 1), ("T-2", 2)])

    assert bench.sink.events == []
    assert len(station.sent("GetTransactionStatus")) == asked
    assert [what for what, _ in station.triggers()].count("TransactionEvent") == 2


async def test_a_transaction_id_that_no_message_can_carry_is_not_asked_for() -> None:
    """From a station that breaks its schema."""
    station = Station2()
    bench = await worked(station, running=[("x" * 37, 1), ("T-2", 2)])

    assert [event.transaction_id for event in bench.sink.events] == ["T-2"]


# --- installed profiles --------------------------------------------------------------------


def told(evse: int, *numbers: int, **more: Any) -> Payload:
    return {
        "chargingLimitSource": "CSO",
        "evseId": evse,
        "chargingProfile": [{"id": number} for number in numbers],
        **more,
    }


async def test_installed_profiles_are_handed_over_together() -> None:
    """B7: all purposes of a central system, all messages, once."""
    station = Station2(
        profiles={
            "TxProfile": [told(1, 11, tbc=True), told(2, 12, 13)],
            "TxDefaultProfile": [told(0, 1)],
        }
    )
    bench = await worked(station)
    (items,) = bench.installed

    assert [(item["evseId"], item["chargingProfile"]["id"]) for item in items] == [
        (1, 11),
        (2, 12),
        (2, 13),
        (0, 1),
    ]
    assert [
        payload["chargingProfile"] for payload in station.sent("GetChargingProfiles")
    ] == [
        {"chargingProfilePurpose": purpose}
        for purpose in ("TxProfile", "TxDefaultProfile", LAST_PURPOSE)
    ]


async def test_messages_that_each_call_themselves_the_last_are_taken() -> None:
    """Without tbc, one per EVSE, also those that come a little later."""
    station = Station2(profiles={LAST_PURPOSE: [told(1, 11), told(2, 12)]})

    def later(_: str, payload: Payload) -> CallOutcome | None:
        if LAST_PURPOSE in str(payload):
            assert station.setup is not None
            late = {"requestId": payload["requestId"], **told(3, 13)}
            loop = asyncio.get_running_loop()
            loop.call_soon(station.setup.profiles_received, late)
        return None

    station.script = later
    bench = await worked(station)

    assert len(bench.installed[0]) == 3


async def test_no_profiles_is_an_answer() -> None:
    bench = await worked(Station2())

    assert bench.installed == [()]


@pytest.mark.parametrize(
    "outcome",
    [
        TIMEOUT,
        CallOutcome(None, "NotSupported"),
        CallOutcome(None, "InternalError"),
        CallOutcome({"status": "Accepted"}),
        CallOutcome({}),
    ],
)
@pytest.mark.parametrize("purpose", ["TxProfile", LAST_PURPOSE])
async def test_half_an_answer_is_none(outcome: CallOutcome, purpose: str) -> None:
    """It would look as if the station had lost its profiles."""

    def fails(action: str, payload: Payload) -> CallOutcome | None:
        criterion = payload.get("chargingProfile", {})
        is_it = criterion.get("chargingProfilePurpose") == purpose
        return outcome if is_it else None

    bench = await worked(
        Station2(script=fails, profiles={"TxDefaultProfile": [told(0, 1)]})
    )

    assert bench.installed == []


# --- boots ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        "GetVariables",
        "GetBaseReport",
        "SetVariables",
        "TriggerMessage",
        "GetTransactionStatus",
        "GetChargingProfiles",
    ],
)
async def test_a_new_boot_starts_the_work_again(moment: str) -> None:
    """BOOT-04: what runs is given up, wherever it is."""
    boots = iter([True])
    counted: list[int] = []

    def boots_once(action: str, _: Payload) -> CallOutcome | None:
        if action == moment and next(boots, False):
            bench.setup.booted()
            counted.append(len(station.calls))
        return None

    station = Station2(
        SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"},
        report=[[evse_entry(1), evse_entry(2)]],
        script=boots_once,
    )
    bench = Bench(station, running=[("T-1", 1)])
    async with at_work(bench):
        rest = [action for action, _, _ in station.calls[counted[0] :]]
        assert rest[0] == "GetVariables"
        assert {"TriggerMessage", "GetChargingProfiles"} <= set(rest)
        assert station.variables["OCPPCommCtrlr.HeartbeatInterval"] == "300"
        assert len(bench.logged("station_configured")) == 1
        assert len(bench.installed) == 1
        assert bench.configured == (2 if moment == "GetChargingProfiles" else 1)


async def test_a_boot_while_profiles_are_told_makes_them_stale() -> None:
    boots = iter([True])

    def boots_once(_: str, payload: Payload) -> CallOutcome | None:
        if LAST_PURPOSE in str(payload) and next(boots, False):
            bench.setup.booted()
        return None

    bench = Bench(Station2(script=boots_once))
    async with at_work(bench):
        assert len(bench.station.sent("GetChargingProfiles")) == 6
        assert len(bench.installed) == 1


async def test_a_boot_ends_the_wait_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the station owes from before the boot does not come any more."""
    endless_waits(monkeypatch)
    station = Station2()
    bench = Bench(station)

    def boots_later(action: str, _: Payload) -> CallOutcome | None:
        if action != "GetBaseReport" or len(station.sent(action)) > 1:
            return None
        asyncio.get_running_loop().call_later(0.002, bench.setup.booted)
        return CallOutcome({"status": "Accepted"})

    station.script = boots_later
    async with at_work(bench):
        assert len(station.sent("GetBaseReport")) == 2


async def test_the_work_of_every_boot_is_the_same_but_for_the_report() -> None:
    """The device model of a link is read once; it does not change by itself."""
    station = Station2(report=[[evse_entry(1)]])
    async with at_work(Bench(station)) as bench:
        before = len(station.calls)
        station.variables["OCPPCommCtrlr.HeartbeatInterval"] = "9"
        bench.setup.booted()
        await bench.passes(2)
        again = {action for action, _, _ in station.calls[before:]}

        assert again == {action for action, _, _ in station.calls[:before]} - {
            "GetBaseReport"
        } | {"SetVariables"}
        assert bench.sink.capabilities[-1].connectors == 1


async def test_a_station_that_waits_to_be_accepted_is_only_configured() -> None:
    """Pending: no states, no profiles, then it is let in."""
    station = Station2(SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"})
    bench = await worked(station, is_accepted=False, running=[("T-1", 1)])

    assert station.written() == [("OCPPCommCtrlr.HeartbeatInterval", "300")]
    assert bench.configured == 1
    assert {action for action, _, _ in station.calls} == {
        "GetVariables",
        "SetVariables",
        "GetBaseReport",
    }


async def test_reads_go_before_settings_and_both_after_limits() -> None:
    """C4: reductions, limits, then reads, configuration last."""
    station = Station2(SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"})
    await worked(station, running=[("T-1", 1)])

    assert {
        priority for action, _, priority in station.calls if action.startswith("Get")
    } == {Priority.READ}
    assert {
        priority for action, _, priority in station.calls if not action.startswith("Get")
    } == {Priority.SETUP}


# --- hostile answers -----------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
async def test_no_hostile_answer_ends_the_set_up(value: Any) -> None:
    """Any JSON in any place of any answer."""
    names = [
        "DeviceDataCtrlr.ItemsPerMessage[GetVariables]",
        "DeviceDataCtrlr.BytesPerMessage[SetVariables]",
        "SmartChargingCtrlr.RateUnit",
        "OCPPCommCtrlr.HeartbeatInterval",
        UPDATED,
    ]
    bench = await worked(Station2(SETTLED | dict.fromkeys(names, value)))
    assert bench.sink.capabilities
    for action, field_name in (
        ("GetVariables", "getVariableResult"),
        ("SetVariables", "setVariableResult"),
        ("GetBaseReport", "status"),
        ("TriggerMessage", "status"),
        ("GetTransactionStatus", "ongoingIndicator"),
        ("GetTransactionStatus", "messagesInQueue"),
        ("GetChargingProfiles", "status"),
    ):
        station = Station2(
            SETTLED | {"OCPPCommCtrlr.HeartbeatInterval": "9"},
            script=failing(action, CallOutcome({field_name: value})),
        )
        bench = await worked(station, running=[("T-1", 1)])
        assert len(bench.logged("station_configured")) == 1
    bench.setup.report_received({"requestId": value, "reportData": value})
    bench.setup.profiles_received({"requestId": value, "chargingProfile": value})
