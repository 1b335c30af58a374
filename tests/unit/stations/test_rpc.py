"""The call machine: one at a time, the urgent first, every answer bounded and matched."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ports import Priority
from agent.stations.framing import CallError, CallResult
from agent.stations.rpc import (
    ANSWERED_MAX,
    LATE_MAX,
    LATE_S,
    PATIENCE_S,
    WAITING_MAX,
    YIELD_S,
    Outgoing,
    RpcMachine,
)


def a_call(
    name: str,
    priority: Priority = Priority.READ,
    on_late: Callable[[Any], None] | None = None,
) -> Outgoing:
    return Outgoing(name, "GetConfiguration", {}, priority, None, on_late)


def machine_with(*calls: Outgoing) -> RpcMachine:
    machine = RpcMachine()
    for call in calls:
        assert machine.submit(call)
    return machine


def test_only_one_call_is_in_flight_until_it_is_answered() -> None:
    """RPC-04: a second call before the answer breaks stations."""
    machine = machine_with(a_call("a"), a_call("b"))

    first = machine.next_call(0.0)
    assert first is not None
    assert machine.next_call(1.0) is None
    machine.answered(CallResult("a", {}), 2.0)
    second = machine.next_call(2.0)

    assert (first.message_id, second and second.message_id) == ("a", "b")


@given(st.lists(st.sampled_from(list(Priority)), min_size=1, max_size=WAITING_MAX))
def test_calls_go_by_priority_and_then_by_age(priorities: list[Priority]) -> None:
    """Reductions first; of equals the one that waits longest."""
    machine = machine_with(*(a_call(str(i), p) for i, p in enumerate(priorities)))

    order = []
    while (call := machine.next_call(0.0)) is not None:
        order.append(int(call.message_id))
        machine.answered(CallResult(call.message_id, {}), 0.0)

    assert order == sorted(range(len(priorities)), key=lambda i: (priorities[i], i))


@pytest.mark.parametrize("priority", list(Priority))
def test_a_call_times_out_after_the_patience_of_its_priority(priority: Priority) -> None:
    """The table of time-outs is what is waited, to the instant."""
    machine = machine_with(a_call("a", priority))
    machine.next_call(100.0)
    end = 100.0 + PATIENCE_S[priority]

    assert machine.expires_at() == end
    assert machine.expire(end - 0.01) is None
    gone = machine.expire(end)
    assert gone is not None
    assert gone.timed_out
    assert machine.in_flight is None


@pytest.mark.parametrize("urgent", [Priority.REDUCTION, Priority.LIMIT])
@pytest.mark.parametrize("slow", [Priority.OPERATOR, Priority.READ, Priority.SETUP])
def test_a_waiting_limit_shortens_the_patience_of_a_read(
    slow: Priority, urgent: Priority
) -> None:
    """Buses first: a read gives up its turn."""
    machine = machine_with(a_call("read", slow))
    machine.next_call(0.0)
    machine.submit(a_call("limit", urgent))

    assert machine.expires_at() == YIELD_S
    assert machine.expire(YIELD_S) is not None
    following = machine.next_call(YIELD_S)
    assert following is not None
    assert following.message_id == "limit"


def test_a_waiting_read_does_not_shorten_the_patience_of_a_limit() -> None:
    """Only limits push, and limits are never pushed."""
    machine = machine_with(a_call("limit", Priority.LIMIT))
    machine.next_call(0.0)
    machine.submit(a_call("read"))
    machine.submit(a_call("reduction", Priority.REDUCTION))

    assert machine.expires_at() == PATIENCE_S[Priority.LIMIT]


def test_a_late_answer_is_matched_to_the_call_that_was_given_up() -> None:
    """RPC-03: it may tell that the action was done."""
    machine = machine_with(a_call("a"), a_call("b"))
    machine.next_call(0.0)
    machine.expire(30.0)
    machine.next_call(30.0)

    found = machine.answered(CallResult("a", {"status": "Accepted"}), 45.0)

    assert found is not None
    assert (found.call.message_id, found.is_late) == ("a", True)
    assert machine.in_flight is not None
    assert machine.in_flight.message_id == "b"
    assert machine.answered(CallResult("a", {}), 46.0) is None
    assert machine.unmatched == 1


def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    """After ten minutes an id means nothing any more."""
    machine = machine_with(a_call("a"))
    machine.next_call(0.0)
    machine.expire(30.0)

    assert machine.answered(CallResult("a", {}), LATE_S + 1) is None
    assert machine.unmatched == 1


def test_an_error_answers_a_call_as_well() -> None:
    """A CALLERROR ends the wait."""
    machine = machine_with(a_call("a"))
    machine.next_call(0.0)

    found = machine.answered(CallError("a", "NotSupported", ""), 1.0)

    assert found is not None
    assert not found.is_late
    assert machine.in_flight is None


def test_c10_an_answer_to_nobody_never_settles_the_call_in_flight() -> None:
    """RPC-02: never matched to the next pending call."""
    machine = machine_with(a_call("a"))
    machine.next_call(0.0)

    assert machine.answered(CallResult("x", {}), 1.0) is None
    assert machine.in_flight is not None


def test_i10_200000_unsolicited_answers_leave_memory_flat_and_the_next_call_works() -> None:
    """I10: counted and dropped."""
    machine = machine_with(a_call("a"))
    machine.next_call(0.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(200_000):
        machine.answered(CallResult(f"u{number}", {}), 1.0)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert machine.unmatched == 200_000
    assert grown < 1024 * 1024
    assert machine.answered(CallResult("a", {}), 2.0) is not None


def test_the_queue_is_bounded_and_refuses_what_does_not_fit() -> None:
    """C6: more waiting calls mean that something runs wild."""
    machine = machine_with(*(a_call(str(n)) for n in range(WAITING_MAX)))

    assert not machine.submit(a_call("one too many", Priority.REDUCTION))
    machine.next_call(0.0)
    assert machine.submit(a_call("fits now"))


def test_calls_given_up_are_remembered_within_a_bound() -> None:
    """A station that never answers cannot fill the memory."""
    machine = RpcMachine()
    for number in range(LATE_MAX * 3):
        machine.submit(a_call(str(number)))
        machine.next_call(0.0)
        machine.expire(100.0)

    late = [
        n for n in range(LATE_MAX * 3) if machine.answered(CallResult(str(n), {}), 101.0)
    ]
    assert late == list(range(LATE_MAX * 2, LATE_MAX * 3))


def test_time_outs_in_a_row_are_counted_until_an_answer_comes() -> None:
    """NET-06: the link watches this count."""
    machine = machine_with(a_call("a"), a_call("b"), a_call("c"))
    for at in (0.0, 100.0):
        machine.next_call(at)
        machine.expire(at + 50.0)
    assert machine.timeouts_in_a_row == 2
    machine.next_call(200.0)
    machine.answered(CallResult("c", {}), 201.0)

    assert machine.timeouts_in_a_row == 0


def test_a_late_answer_shows_that_the_station_does_not_hang() -> None:
    """A station that answers slowly is slow, not deaf: its link must live."""
    machine = machine_with(a_call("a"))
    machine.next_call(0.0)
    machine.expire(50.0)
    machine.answered(CallResult("a", {}), 51.0)

    assert machine.timeouts_in_a_row == 0


def test_a_closed_link_hands_back_every_call_that_waits() -> None:
    """Nobody waits for ever."""
    machine = machine_with(a_call("a"), a_call("b", Priority.REDUCTION), a_call("c"))
    machine.next_call(0.0)

    assert {call.message_id for call in machine.drain()} == {"a", "b", "c"}
    assert machine.drain() == []
    assert machine.next_call(1.0) is None


def test_a_repeated_call_gets_the_stored_answer_and_another_text_does_not() -> None:
    """Same id and same content: the station missed the answer."""
    machine = RpcMachine()
    machine.remember("1", b"[text]", "[answer]")

    assert machine.repeated("1", b"[text]") == "[answer]"
    assert machine.repeated("1", b"[other]") is None
    assert machine.repeated("2", b"[text]") is None


def test_stored_answers_are_bounded() -> None:
    """The oldest is forgotten first."""
    machine = RpcMachine()
    for number in range(ANSWERED_MAX + 1):
        machine.remember(str(number), b"x", "y" * 10)

    assert machine.repeated("0", b"x") is None
    assert machine.repeated("1", b"x") is not None
    assert sys.getsizeof(machine._answered) < 10_000
