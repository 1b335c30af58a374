"""Who is plugged in: asked at the plug and when power flows, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.domain import events
from agent.domain.ids import EvseId
from agent.ports import Priority
from agent.stations.link import CallOutcome
from agent.stations.v2_vehicle import QUESTIONS_MAX, VehicleAsker

from .bench2 import ScriptedLink
from .conftest import HOSTILE, STATION, RecordingSink, StillClock, soon

ONE, TWO = EvseId(1), EvseId(2)
MAC = "04E77E00F0FA"
ASKED = "GetVariables"


def result(
    value: Any = MAC, status: Any = "Accepted", *, evse: int | None = 1, there: str = "true"
) -> dict[str, Any]:
    """A GetVariablesResponse about ConnectedEV."""
    component: dict[str, Any] = {"name": "ConnectedEV"}
    if evse is not None:
        component["evse"] = {"id": evse}
    rows = [("Available", there, "Accepted"), ("VehicleId", value, status)]
    return {
        "getVariableResult": [
            {
                "attributeStatus": said,
                "attributeValue": text,
                "component": component,
                "variable": {"name": name},
            }
            for name, text, said in rows
        ]
    }


NOTHING = result("", "Accepted")
LACKING = result(None, "UnknownComponent")


class Asking:
    """A working asker with its sink and the station's answers."""

    def __init__(self, *answers: Any) -> None:
        self.sink = RecordingSink()
        self.station = ScriptedLink(GetVariables=list(answers))
        self.asker = VehicleAsker(
            station_id=STATION,
            sink=self.sink,
            clock=StillClock(),
            link=self.station.as_link,
        )

    @property
    def asked(self) -> list[int]:
        """The EVSEs that were asked about, in order."""
        return [
            payload["getVariableData"][0]["component"]["evse"]["id"]
            for payload in self.station.of(ASKED)
        ]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[VehicleAsker]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.asker.run())
            yield self.asker
            task.cancel()

    async def idle(self) -> None:
        """Wait until all that was rung for is done."""
        for _ in range(20):
            await asyncio.sleep(0)


async def test_the_vehicles_id_becomes_evidence_for_its_outlet() -> None:
    """A6: ConnectedEV of the EVSE, and whether it is there."""
    bench = Asking(result(evse=2))
    async with bench.working() as asker:
        asker.plugged(TWO)
        await soon(lambda: bool(bench.sink.events))

    found = bench.sink.only(events.EvidenceReported)
    assert (found.evse_id, found.evidence[0].value) == (2, MAC)
    assert bench.station.priorities == [Priority.READ]
    component = {"name": "ConnectedEV", "evse": {"id": 2}}
    assert bench.station.of(ASKED)[0]["getVariableData"] == [
        {"component": component, "variable": {"name": "Available"}},
        {"component": component, "variable": {"name": "VehicleId"}},
    ]


async def test_it_is_asked_once_at_the_plug_and_once_when_power_flows() -> None:
    """The id comes from talking to the vehicle, which may begin late."""
    bench = Asking(*[NOTHING] * 9)
    async with bench.working() as asker:
        for _ in range(3):
            asker.plugged(ONE)
            await bench.idle()
        assert bench.asked == [1]
        for _ in range(3):
            asker.charging(ONE)
            await bench.idle()

    assert bench.asked == [1, 1]
    assert bench.sink.events == []


async def test_a_vehicle_that_is_known_is_not_asked_for_again() -> None:
    """One question less per session."""
    bench = Asking(result())
    async with bench.working() as asker:
        asker.plugged(ONE)
        await bench.idle()
        asker.charging(ONE)
        await bench.idle()

    assert bench.asked == [1]


async def test_another_vehicle_is_asked_for_anew_and_other_outlets_always() -> None:
    """The plug-out forgets one outlet."""
    bench = Asking(result(), result(evse=2), result())
    async with bench.working() as asker:
        for evse_id in (ONE, TWO):
            asker.plugged(evse_id)
            await bench.idle()
        asker.unplugged(ONE)
        for evse_id in (ONE, TWO):
            asker.plugged(evse_id)
            await bench.idle()

    assert bench.asked == [1, 2, 1]
    assert len(bench.sink.events) == 3


@pytest.mark.parametrize(
    "answer",
    [
        LACKING,
        result(None, "UnknownVariable"),
        result(None, "unknowncomponent"),
        CallOutcome(None, "NotSupported", "no"),
        CallOutcome(None, "NotImplemented", "no"),
    ],
)
async def test_a_station_without_the_component_is_not_asked_again(answer: Any) -> None:
    """Remembered for the whole link, for all outlets."""
    bench = Asking(answer)
    async with bench.working() as asker:
        asker.plugged(ONE)
        asker.plugged(TWO)
        await bench.idle()
        asker.charging(ONE)
        asker.unplugged(ONE)
        asker.plugged(ONE)
        await bench.idle()

    assert bench.asked == [1]


@pytest.mark.parametrize(
    "answer",
    [
        CallOutcome(None, "Timeout"),
        CallOutcome(None, "InternalError"),
        result(None, "Rejected"),
        result(there="false"),
        result(there="False"),
        result(evse=2),
        {},
    ],
)
async def test_an_answer_that_is_none_is_no_evidence_and_the_power_asks_again(
    answer: Any,
) -> None:
    """V2-05: silence costs knowledge only; the id of a vehicle that left is old."""
    bench = Asking(answer, result())
    async with bench.working() as asker:
        asker.plugged(ONE)
        await bench.idle()
        assert bench.sink.events == []
        asker.charging(ONE)
        await bench.idle()

    assert bench.asked == [1, 1]
    assert len(bench.sink.events) == 1


async def test_an_answer_without_an_evse_is_about_the_one_that_was_asked_for() -> None:
    """Some firmware leaves it out."""
    bench = Asking(result(evse=None))
    async with bench.working() as asker:
        asker.plugged(TWO)
        await bench.idle()

    assert bench.sink.only(events.EvidenceReported).evse_id == 2


async def test_an_answer_that_comes_after_the_plug_out_names_nobody() -> None:
    """It is about the vehicle before; the next one is asked for itself."""
    bench = Asking(result("A453EE033156"), result())
    asker = bench.asker

    class Leaving(ScriptedLink):
        async def call(self, *args: Any) -> CallOutcome:
            outcome = await bench.station.call(*args)
            if len(bench.asked) == 1:
                asker.unplugged(ONE)
                asker.plugged(ONE)
            return outcome

    asker.link = Leaving().as_link
    async with bench.working():
        asker.plugged(ONE)
        await bench.idle()

    assert bench.asked == [1, 1]
    assert [item.evidence[0].value for item in bench.sink.events] == [MAC]


async def test_ringing_never_waits_and_is_bounded() -> None:
    """The adapter rings while it answers; nobody may be working yet."""
    bench = Asking()
    for number in range(3 * QUESTIONS_MAX):
        bench.asker.plugged(EvseId(number))
    async with bench.working():
        await soon(lambda: len(bench.asked) == QUESTIONS_MAX)
        await bench.idle()

    assert len(bench.asked) == QUESTIONS_MAX


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
async def test_no_hostile_answer_ends_the_asking(value: Any) -> None:
    """The task is one of the link's: its end would end the link."""
    answers = [
        {"getVariableResult": value},
        {"getVariableResult": [value]},
        {"getVariableResult": [{"variable": value, "component": value}]},
        {"getVariableResult": [{"variable": {"name": value}, "attributeValue": value}]},
        result(value),
        result(MAC, value),
    ]
    bench = Asking(*answers, result())
    async with bench.working() as asker:
        for _ in range(len(answers) + 1):
            asker.unplugged(ONE)
            asker.plugged(ONE)
            await bench.idle()

    assert len(bench.asked) == len(answers) + 1
    assert bench.sink.events[-1].evidence[0].value == MAC
