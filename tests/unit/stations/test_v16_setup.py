"""Setting a 1.6 station up: read first, write only differences, ask what is not known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from agent.domain.station import EVSES_MAX
from agent.ports import Priority
from agent.stations import schemas, v16_setup
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome, Link
from agent.stations.v16_setup import (
    KEYS_AT_ONCE,
    MEASURANDS_AC,
    MEASURANDS_DC,
    SAMPLED,
    Setup16,
    Wishes,
    default_settings,
)

from .conftest import HOSTILE, STATION, RecordingSink, soon

WISHED = default_settings(meter_interval_s=30, heartbeat_s=300)
TIMEOUT = CallOutcome(None, "Timeout")
Script = Callable[[str, Payload], CallOutcome | None]


class ScriptedStation:
    """A station by its configuration; a script may answer otherwise."""

    def __init__(
        self, keys: dict[str, Any] | None = None, script: Script | None = None
    ) -> None:
        self.keys = dict(keys or {})
        self.script = script
        self.calls: list[tuple[str, Payload]] = []
        self.priorities: list[Priority] = []

    async def call(self, action: str, payload: Payload, priority: Priority) -> CallOutcome:
        assert schemas.breach("ocpp1.6", action, payload) is None
        self.calls.append((action, payload))
        self.priorities.append(priority)
        await asyncio.sleep(0)
        said = self.script(action, payload) if self.script else None
        if said is not None:
            return said
        if action == "GetConfiguration":
            wanted = payload.get("key") or list(self.keys)
            known = [k for k in wanted if k in self.keys]
            return CallOutcome(
                {
                    "configurationKey": [
                        {"key": k, "readonly": False, "value": self.keys[k]} for k in known
                    ],
                    "unknownKey": [k for k in wanted if k not in self.keys],
                }
            )
        if action == "ChangeConfiguration":
            self.keys[payload["key"]] = payload["value"]
        return CallOutcome({"status": "Accepted"})

    def written(self) -> list[tuple[str, str]]:
        return [(p["key"], p["value"]) for a, p in self.calls if a == "ChangeConfiguration"]

    def asked_keys(self) -> list[list[str]]:
        return [p.get("key", []) for a, p in self.calls if a == "GetConfiguration"]

    def triggers(self) -> list[tuple[str, int]]:
        return [
            (p["requestedMessage"], p["connectorId"])
            for a, p in self.calls
            if a == "TriggerMessage"
        ]


class Bench:
    def __init__(
        self,
        station: ScriptedStation,
        *,
        wishes: Wishes | None = None,
        known: list[int] | None = None,
        busy: list[int] | None = None,
    ) -> None:
        self.station = station
        self.sink = RecordingSink()
        self.setup = Setup16(
            station_id=STATION,
            link=cast("Link", station),
            sink=self.sink,
            wishes=wishes or Wishes(settings=WISHED),
            known_connectors=lambda: known or [],
            open_transactions=lambda: busy or [],
            slots=asyncio.Semaphore(8),
            pace=0.0,
        )
        self.rounds = 0


@asynccontextmanager
async def at_work(bench: Bench, *, booted: bool = True) -> AsyncIterator[Bench]:
    if booted:
        bench.setup.booted()
    task = asyncio.get_running_loop().create_task(bench.setup.run())
    try:
        await idle(bench.station)
        yield bench
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def idle(station: ScriptedStation) -> None:
    """Wait until the station was called, and then was left alone for a while."""
    await soon(lambda: bool(station.calls))
    quiet, seen = 0, 0
    async with asyncio.timeout(5):
        while quiet < 50:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(station.calls) == seen else 0
            seen = len(station.calls)


def settled_keys(**changes: str) -> dict[str, str]:
    """A configuration with nothing left to wish for."""
    return {
        **WISHED,
        "NumberOfConnectors": "2",
        SAMPLED: ",".join(MEASURANDS_DC),
        **changes,
    }


async def test_configuration_is_read_before_anything_is_written() -> None:
    """Read first; fewer flash writes and fewer reboots."""
    async with at_work(Bench(ScriptedStation({"NumberOfConnectors": "1"}))) as bench:
        actions = [action for action, _ in bench.station.calls]

    assert actions[0] == "GetConfiguration"
    assert actions.count("GetConfiguration") == 1
    assert "ChangeConfiguration" in actions


async def test_nothing_is_written_where_nothing_differs() -> None:
    """CFG-09; letter case, blanks and quotes are no difference (CFG-04)."""
    keys = settled_keys(
        LocalPreAuthorize="True",
        HeartbeatInterval=" 300 ",
        **{SAMPLED: "[" + ", ".join(f'"{m}"' for m in MEASURANDS_DC) + "]"},
    )
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        assert bench.station.written() == []


async def test_only_differences_are_written_each_once() -> None:
    """One change at a time, in the order in which they matter."""
    keys = settled_keys(HeartbeatInterval="3600", StopTransactionOnInvalidId="true")
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        assert bench.station.written() == [
            ("HeartbeatInterval", "300"),
            ("StopTransactionOnInvalidId", "false"),
        ]


async def test_keys_are_found_and_written_in_the_stations_own_spelling() -> None:
    """CFG-04: compared without case."""
    keys = settled_keys()
    keys["heartbeatinterval"] = "60"
    del keys["HeartbeatInterval"]
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        assert bench.station.written() == [("heartbeatinterval", "300")]


async def test_a_vendor_key_is_written_only_where_the_station_lists_it() -> None:
    """AutoChargeEnabled is not everybody's."""
    without = settled_keys()
    del without["AutoChargeEnabled"]
    for keys, written in (
        (without, []),
        (settled_keys(AutoChargeEnabled="false"), [("AutoChargeEnabled", "true")]),
    ):
        async with at_work(Bench(ScriptedStation(keys))) as bench:
            assert bench.station.written() == written


async def test_measurands_are_added_one_at_a_time_and_what_was_taken_is_kept() -> None:
    """One unsupported measurand refuses the whole list (1.6 section 3.16.4)."""

    def refuses_soc(action: str, payload: Payload) -> CallOutcome | None:
        is_it = action == "ChangeConfiguration" and "SoC" in payload["value"]
        return CallOutcome({"status": "Rejected"}) if is_it else None

    keys = settled_keys(**{SAMPLED: "Energy.Active.Import.Register"})
    async with at_work(Bench(ScriptedStation(keys, refuses_soc))) as bench:
        assert bench.station.written() == [
            (SAMPLED, "Energy.Active.Import.Register,Power.Active.Import"),
            (SAMPLED, "Energy.Active.Import.Register,Power.Active.Import,SoC"),
            (SAMPLED, "Energy.Active.Import.Register,Power.Active.Import,Power.Offered"),
        ]


async def test_measurands_that_the_station_has_on_its_own_are_kept() -> None:
    """Nothing is taken away."""
    keys = settled_keys(**{SAMPLED: "Temperature," + ",".join(MEASURANDS_AC[:4])})
    wishes = Wishes(settings=WISHED, measurands=MEASURANDS_AC)
    async with at_work(Bench(ScriptedStation(keys), wishes=wishes)) as bench:
        assert bench.station.written() == [
            (SAMPLED, f"Temperature,{','.join(MEASURANDS_AC[:4])},Voltage")
        ]


async def test_no_more_measurands_are_sent_than_fit() -> None:
    """CFG-08: the needed ones first."""
    keys = settled_keys(**{SAMPLED: "Voltage", f"{SAMPLED}MaxLength": "2"})
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        values = [value for key, value in bench.station.written() if key == SAMPLED]

    assert values[-1].split(",") == list(MEASURANDS_DC[:2])
    assert all(len(value.split(",")) <= 2 for value in values)


async def test_groups_of_four_are_read_where_reading_everything_fails() -> None:
    """CFG-01: not answered, or answered with an error."""
    for failure in (TIMEOUT, CallOutcome(None, "InternalError", "")):

        def fails(
            action: str, payload: Payload, failure: CallOutcome = failure
        ) -> CallOutcome | None:
            return failure if action == "GetConfiguration" and not payload else None

        async with at_work(Bench(ScriptedStation(settled_keys(), fails))) as bench:
            everything, *groups = bench.station.asked_keys()

        assert everything == []
        assert all(0 < len(group) <= KEYS_AT_ONCE for group in groups)
        asked = [key for group in groups for key in group]
        assert len(asked) == len(set(asked))
        assert set(asked) >= {"NumberOfConnectors", SAMPLED, *WISHED}
        assert bench.sink.capabilities[0].connectors == 2
        assert bench.station.written() == []


async def test_groups_stop_at_the_first_silence_and_nothing_is_written_blindly() -> None:
    """Silence only costs knowledge, not minutes for every group."""

    def silent(action: str, _: Payload) -> CallOutcome | None:
        return TIMEOUT if action == "GetConfiguration" else None

    async with at_work(Bench(ScriptedStation({}, silent))) as bench:
        assert len(bench.station.asked_keys()) == 2
        assert bench.station.written() == []
        assert [said.is_known for said in bench.sink.capabilities] == [False]


async def test_a_station_that_must_not_be_asked_is_not_asked() -> None:
    """The quirk no-configuration."""
    wishes = Wishes(settings=WISHED, reads_configuration=False)
    async with at_work(Bench(ScriptedStation({}), wishes=wishes)) as bench:
        assert bench.station.asked_keys() == []
        assert bench.station.written() == []


async def test_states_that_the_station_did_not_send_are_asked_for() -> None:
    """BOOT-09: known connectors are left alone after a boot."""
    async with at_work(
        Bench(ScriptedStation(settled_keys(NumberOfConnectors="3")), known=[1], busy=[2])
    ) as bench:
        assert bench.station.triggers() == [
            ("StatusNotification", 2),
            ("StatusNotification", 3),
            ("MeterValues", 2),
        ]


async def test_after_a_reconnect_without_a_boot_every_state_is_asked_for() -> None:
    """BOOT-01: what is stored is stale."""
    bench = Bench(ScriptedStation(settled_keys()), known=[1, 2])
    async with at_work(bench, booted=False):
        assert bench.station.triggers() == [
            ("StatusNotification", 1),
            ("StatusNotification", 2),
        ]


@pytest.mark.parametrize("count", ["999999999", "1000000000000", "65"])
async def test_a_station_that_claims_endless_connectors_is_not_believed(count: str) -> None:
    """A set-up must end; 64 is more than any station has."""
    keys = settled_keys(NumberOfConnectors=count)
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        assert len(bench.station.triggers()) == EVSES_MAX


async def test_a_new_boot_starts_the_work_again() -> None:
    """BOOT-04: what runs is given up, and nothing of it is written."""
    bench: Bench

    def boots_once(action: str, _: Payload) -> CallOutcome | None:
        if action == "GetConfiguration" and len(bench.station.asked_keys()) == 1:
            bench.setup.booted()
        return None

    bench = Bench(ScriptedStation(settled_keys(HeartbeatInterval="9"), boots_once))
    async with at_work(bench):
        assert len(bench.station.asked_keys()) == 2
        assert len(bench.sink.capabilities) == 1
        assert bench.station.written() == [("HeartbeatInterval", "300")]
        bench.setup.booted()
        await idle(bench.station)
        assert len(bench.station.asked_keys()) == 3


async def test_reads_go_before_settings_and_both_after_limits() -> None:
    """C4: reductions, limits, then reads, configuration last."""
    async with at_work(Bench(ScriptedStation({"A": "1"}))) as bench:
        assert bench.station.priorities[0] is Priority.READ
        assert set(bench.station.priorities[1:]) == {Priority.SETUP}


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
async def test_no_hostile_configuration_ends_the_set_up(value: Any) -> None:
    """CFG-02 to CFG-04: any JSON in any place, in every key that is read."""
    for place in (
        "NumberOfConnectors",
        SAMPLED,
        f"{SAMPLED}MaxLength",
        "HeartbeatInterval",
    ):
        async with at_work(
            Bench(ScriptedStation(settled_keys() | {place: value}))
        ) as bench:
            assert len(bench.sink.capabilities) == 1
    for answer in (
        {"configurationKey": value},
        {"configurationKey": [{"key": value}, value]},
    ):

        def answers(
            action: str, _: Payload, answer: Payload = answer
        ) -> CallOutcome | None:
            return CallOutcome(answer) if action == "GetConfiguration" else None

        async with at_work(Bench(ScriptedStation({}, answers))) as bench:
            assert len(bench.sink.capabilities) == 1
    for status in ({"status": value}, {}):

        def statuses(
            action: str, _: Payload, status: Payload = status
        ) -> CallOutcome | None:
            return CallOutcome(status) if action == "ChangeConfiguration" else None

        async with at_work(Bench(ScriptedStation({"A": "1"}, statuses))) as bench:
            assert bench.station.triggers()


async def test_a_huge_configuration_is_read_in_part() -> None:
    """Libocpp lists 122 keys; more than 500 is not believed."""
    keys = {f"Key{number}": "x" * 5000 for number in range(2000)}
    async with at_work(Bench(ScriptedStation(keys))) as bench:
        assert len(bench.sink.capabilities) == 1


def test_the_settings_are_those_of_the_table() -> None:
    """ocpp-depot.md C7, with the site's own intervals."""
    assert WISHED["MeterValueSampleInterval"] == "30"
    assert WISHED["HeartbeatInterval"] == "300"
    assert WISHED["StopTransactionOnInvalidId"] == "false"
    assert {key.lower() for key in WISHED} >= v16_setup.ONLY_KNOWN
