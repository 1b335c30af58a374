"""One link over a pipe in memory: who answers when, and what survives what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.domain.errors import StoreFault
from agent.ports import Priority
from agent.stations import link, rpc
from agent.stations.framing import BadFrame, Call
from agent.stations.link import CallOutcome, Link, Reply, WireClosed

from .conftest import STATION, MemoryWire, soon


async def nothing() -> None:
    """A set-up with nothing to do."""


async def accepts(_: Call, __: str | bytes) -> Reply:
    return Reply({"status": "Accepted"})


class Running:
    """A link that runs, with its wire and what it refused."""

    def __init__(self, wire: MemoryWire, made: Link, bad: list[BadFrame]) -> None:
        self.wire = wire
        self.link = made
        self.bad = bad

    def call(
        self,
        action: str = "GetConfiguration",
        priority: Priority = Priority.READ,
        on_late: Callable[[CallOutcome], None] | None = None,
    ) -> asyncio.Task[CallOutcome]:
        return asyncio.get_running_loop().create_task(
            self.link.call(action, {}, priority, on_late)
        )


@asynccontextmanager
async def running(
    handler: link.Handler = accepts, setup: Callable[[], Awaitable[None]] = nothing
) -> AsyncIterator[Running]:
    wire = MemoryWire()
    bad: list[BadFrame] = []

    async def on_bad_frame(frame: BadFrame) -> None:
        bad.append(frame)

    made = Link(wire, STATION, handler=handler, on_bad_frame=on_bad_frame, pings=False)
    task = asyncio.get_running_loop().create_task(made.run(setup))
    try:
        yield Running(wire, made, bad)
    finally:
        wire.hang_up()
        async with asyncio.timeout(5):
            await task


async def test_a_call_is_answered_only_after_the_handler_returned() -> None:
    """The answer says: it is on disk."""
    is_stored = asyncio.Event()
    has_begun = asyncio.Event()

    async def slow(_: Call, __: str | bytes) -> Reply:
        has_begun.set()
        await is_stored.wait()
        return Reply({})

    async with running(slow) as bench:
        bench.wire.feed([2, "1", "StatusNotification", {}])
        await has_begun.wait()
        assert bench.wire.sent == []
        is_stored.set()

        assert await bench.wire.until(1) == [[3, "1", {}]]


async def test_d4_what_the_disk_refused_stays_unanswered_and_the_link_lives() -> None:
    """charger-quirks.md rule 2: the station keeps it and repeats it; no error."""
    is_full = True

    async def stores(_: Call, __: str | bytes) -> Reply:
        if is_full:
            raise StoreFault("disk full")
        return Reply({})

    async with running(stores) as bench:
        bench.wire.feed([2, "1", "StartTransaction", {}])
        bench.wire.feed([2, "2", "StartTransaction", {}])
        await soon(lambda: bench.link.frames_in == 2)
        assert bench.wire.sent == []
        is_full = False
        bench.wire.feed([2, "1", "StartTransaction", {}])

        assert await bench.wire.until(1) == [[3, "1", {}]]


async def test_a_refusal_of_the_handler_becomes_a_call_error() -> None:
    """With the code and words that it chose."""

    async def refuses(_: Call, __: str | bytes) -> Reply:
        return Reply(None, "NotSupported", "x" * 500)

    async with running(refuses) as bench:
        bench.wire.feed([2, "1", "Reset", {}])

        assert await bench.wire.until(1) == [[4, "1", "NotSupported", "x" * 255, {}]]


@pytest.mark.parametrize(
    "frame",
    [
        "", "no json", b"\xff\xfe", "[" * 200_000, '{"a":1}', "[2]", '[2,"x"]', "[9,9,9]",
        '[3,"nobody",{}]', '[4,"nobody","GenericError","",{}]', '[2,"1",["list"],{}]',
        '[2,"1","Heartbeat",{"a":1e999}]', "[5,5,5,5]", "\x00",
    ],
)  # fmt: skip
async def test_c10_the_link_survives_bad_frames_and_the_next_call_works(
    frame: str | bytes,
) -> None:
    """I1 to I6, C10: no effect but a record, in both directions."""
    async with running() as bench:
        for _ in range(3):
            bench.wire.feed(frame)
        bench.wire.feed([2, "ok", "Heartbeat", {}])
        await soon(lambda: [3, "ok", {"status": "Accepted"}] in bench.wire.sent)
        task = bench.call()
        await soon(lambda: bench.wire.sent[-1][0] == 2)
        bench.wire.feed([3, bench.wire.sent[-1][1], {"a": 1}])

        assert (await task).payload == {"a": 1}


async def test_only_a_call_with_an_id_gets_an_error_for_its_form() -> None:
    """1.6: what has no readable id is dropped."""
    async with running() as bench:
        bench.wire.feed('[2,"7",["Heartbeat"],{}]')
        bench.wire.feed('[2,null,"Heartbeat",{}]')
        bench.wire.feed("[3,null,{}]")
        await soon(lambda: len(bench.bad) == 3)

        assert [frame[:3] for frame in bench.wire.sent] == [[4, "7", "NotImplemented"]]


async def test_a_repeated_call_gets_the_stored_answer_without_being_handled_again() -> None:
    """C4: an id that repeats with identical content."""
    handled = 0

    async def counts(_: Call, __: str | bytes) -> Reply:
        nonlocal handled
        handled += 1
        return Reply({"count": handled})

    async with running(counts) as bench:
        for _ in range(2):
            bench.wire.feed('[2,"1","StartTransaction",{"connectorId":1}]')
        bench.wire.feed('[2,"1","StartTransaction",{"connectorId":2}]')
        answers = await bench.wire.until(3)

    assert answers == [
        [3, "1", {"count": 1}],
        [3, "1", {"count": 1}],
        [3, "1", {"count": 2}],
    ]


async def test_a_heartbeat_is_answered_anew_even_under_a_constant_id() -> None:
    """RPC-07: a stored answer would set the station's clock back for ever."""
    handled = 0

    async def tells(_: Call, __: str | bytes) -> Reply:
        nonlocal handled
        handled += 1
        return Reply({"currentTime": str(handled)})

    async with running(tells) as bench:
        for _ in range(2):
            bench.wire.feed('[2,"1","Heartbeat",{}]')
        answers = await bench.wire.until(2)

    assert [answer[2]["currentTime"] for answer in answers] == ["1", "2"]


async def test_calls_of_ours_go_one_at_a_time_and_by_priority() -> None:
    """RPC-04, with a limit that overtakes a setting."""
    async with running() as bench:
        first = bench.call("GetConfiguration", Priority.READ)
        await bench.wire.until(1)
        setting = bench.call("ChangeConfiguration", Priority.SETUP)
        limit = bench.call("SetChargingProfile", Priority.REDUCTION)
        bench.wire.feed([2, "in", "Heartbeat", {}])
        sent = await bench.wire.until(2)
        assert [frame[0] for frame in sent] == [2, 3]

        bench.wire.feed([3, sent[0][1], {}])
        sent = await bench.wire.until(3)
        assert sent[2][2] == "SetChargingProfile"
        bench.wire.feed([3, sent[2][1], {}])
        sent = await bench.wire.until(4)
        bench.wire.feed([4, sent[3][1], "NotSupported", "no", {}])

        assert (await first).is_answered
        assert (await limit).payload == {}
        refused = await setting
        assert (refused.code, refused.description, refused.is_answered) == (
            "NotSupported", "no", True,
        )  # fmt: skip


async def test_ids_of_our_calls_are_short_and_differ() -> None:
    """OCPP-J allows 36 characters."""
    async with running() as bench:
        for number in range(1, 4):
            task = bench.call()
            sent = await bench.wire.until(number)
            bench.wire.feed([3, sent[-1][1], {}])
            await task
    ids = [frame[1] for frame in bench.wire.sent]

    assert len(set(ids)) == 3
    assert all(len(item) <= 36 for item in ids)


async def test_c10_a_time_out_is_an_outcome_and_its_late_answer_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RPC-03: silence never raises, and the truth may come late."""
    monkeypatch.setitem(rpc.PATIENCE_S, Priority.READ, 0.02)
    late: list[CallOutcome] = []
    async with running() as bench:
        outcome = await bench.call(on_late=late.append)
        assert (outcome.payload, outcome.code, outcome.is_answered) == (
            None,
            "Timeout",
            False,
        )
        bench.wire.feed([3, bench.wire.sent[0][1], {"status": "Accepted"}])
        await soon(lambda: bool(late))

    assert late == [CallOutcome({"status": "Accepted"})]


async def test_a_station_that_never_answers_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NET-06: it may recover by connecting again."""
    monkeypatch.setitem(rpc.PATIENCE_S, Priority.READ, 0.01)
    async with running() as bench:
        for _ in range(link.TIMEOUTS_MAX):
            await bench.call()
        await soon(lambda: bench.wire.closed is not None)

    assert bench.wire.closed is not None
    assert bench.wire.closed[0] == 1011


async def test_calls_are_settled_offline_when_the_link_closes() -> None:
    """In flight, waiting, and new ones alike."""
    async with running() as bench:
        tasks = [bench.call() for _ in range(3)]
        await bench.wire.until(1)
        bench.wire.hang_up()
        outcomes = [await task for task in tasks]
        outcomes.append(await bench.link.call("Reset", {}, Priority.OPERATOR))

    assert [outcome.code for outcome in outcomes] == ["Offline"] * 4


async def test_a_full_queue_refuses_at_once() -> None:
    """Nobody waits behind a wild caller."""
    async with running() as bench:
        tasks = [bench.call()]
        await bench.wire.until(1)
        tasks += [bench.call() for _ in range(rpc.WAITING_MAX)]
        await soon(lambda: len(bench.link.machine._waiting) == rpc.WAITING_MAX)
        outcome = await bench.link.call("Reset", {}, Priority.OPERATOR)
        assert outcome.code == "Offline"
        bench.wire.hang_up()
        for task in tasks:
            await task


async def test_a_set_up_whose_record_is_not_stored_does_not_take_the_link_down() -> None:
    """The disk is full; the station still gets answers."""

    async def fails() -> None:
        raise StoreFault("disk full")

    async with running(setup=fails) as bench:
        bench.wire.feed([2, "1", "Heartbeat", {}])

        assert await bench.wire.until(1)


async def test_h4_a_bug_in_a_handler_ends_this_link_and_settles_its_calls() -> None:
    """H4: the edge of the link reports it; nothing hangs."""

    async def buggy(_: Call, __: str | bytes) -> Reply:
        raise LookupError("bug")

    async def ignored(_: BadFrame) -> None:
        raise AssertionError

    wire = MemoryWire()
    made = Link(wire, STATION, handler=buggy, on_bad_frame=ignored, pings=False)
    task = asyncio.get_running_loop().create_task(made.run(nothing))
    waiting = asyncio.get_running_loop().create_task(made.call("Reset", {}, Priority.READ))
    await wire.until(1)
    wire.feed([2, "1", "Heartbeat", {}])

    with pytest.RaisesGroup(LookupError):
        await task
    assert (await waiting).code == "Offline"


class SilentWire(MemoryWire):
    """Pings leave, pongs never come; then the connection breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.pings = 0
        self.pong: asyncio.Future[float] | None = None

    async def ping(self) -> Awaitable[float]:
        self.pings += 1
        self.pong = asyncio.get_running_loop().create_future()
        return self.pong


@asynccontextmanager
async def watched(wire: MemoryWire) -> AsyncIterator[Link]:
    async def ignored(_: BadFrame) -> None:
        raise AssertionError

    made = Link(wire, STATION, handler=accepts, on_bad_frame=ignored)
    task = asyncio.get_running_loop().create_task(made.run(nothing))
    try:
        yield made
    finally:
        wire.hang_up()
        async with asyncio.timeout(5):
            await task


async def test_a_connection_that_breaks_while_a_pong_is_awaited_ends_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The usual end of a dead link is no bug."""
    monkeypatch.setattr(link, "PING_EVERY_S", 0.01)
    wire = SilentWire()
    async with watched(wire):
        await soon(lambda: wire.pong is not None)
        assert wire.pong is not None
        wire.pong.set_exception(WireClosed())


async def test_a_station_that_never_ponged_is_not_pinged_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NET-03: some firmware does not answer pings, and lives."""
    monkeypatch.setattr(link, "PING_EVERY_S", 0.005)
    wire = SilentWire()
    async with watched(wire) as made:
        await soon(lambda: made._is_mute)

        assert wire.pings == link.MUTE_AFTER_PINGS
        assert wire.closed is None


async def test_n8_a_station_that_ponged_once_and_fell_silent_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """N8: noticed within 45 s where pings are answered."""
    monkeypatch.setattr(link, "PING_EVERY_S", 0.005)
    monkeypatch.setattr(link, "SILENCE_MAX_S", 0.03)

    class FadingWire(SilentWire):
        async def ping(self) -> Awaitable[float]:
            pong = await super().ping()
            if self.pings == 1 and self.pong is not None:
                self.pong.set_result(0.0)
            return pong

    wire = FadingWire()
    async with watched(wire):
        await soon(lambda: wire.closed is not None)

    assert wire.closed is not None
    assert wire.closed[0] == 1001


async def test_i10_a_flood_of_unsolicited_answers_does_not_hinder_the_next_call() -> None:
    """I10 over the whole link, in its short form."""
    async with running() as bench:
        for number in range(2000):
            bench.wire.feed(f'[3,"u{number}",{{}}]')
        task = bench.call()
        sent: list[Any] = await bench.wire.until(1)
        bench.wire.feed([3, sent[0][1], {}])

        assert (await task).payload == {}
        assert bench.link.machine.unmatched == 2000
