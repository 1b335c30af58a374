"""No sequence of restarts, clock steps and month changes passes a budget."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloud.smartcar_budget import SCOPE, CallBudget
from agent.domain import budget
from agent.domain.budget import BudgetRules, BudgetSpent, Kind
from agent.domain.errors import CloudFault
from agent.ports import FactSaved
from tests.support.properties import examples
from tests.support.smartcar_cloud import (
    Dice,
    HandClock,
    MemoryStore,
    as_ids,
    as_store,
)

TIGHT = BudgetRules(
    bucket=8, refill_per_min=2.0, monthly=9, reserve=3, session_reads=3, session_commands=2
)
OWN = (Kind.READ, Kind.COMMAND)
"""Requests before which the floor must have passed."""

MOVES = st.one_of(
    st.sampled_from([1.0, 30.0, 119.0, 120.0, 121.0, 1800.0, 86_400.0]),
    st.sampled_from([-1.0, -60.0, -3599.0, -3601.0, -86_400.0]),
    st.sampled_from([20 * 86_400.0, -20 * 86_400.0, 400 * 86_400.0, -400 * 86_400.0]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"), st.sampled_from(Kind), st.sampled_from(["a", "b"]),
            st.sampled_from(["", "S1", "S2"]), st.integers(1, 3),
        ),
        st.tuples(st.just("move"), MOVES),
        st.tuples(st.just("restart")),
        st.tuples(st.just("disk"), st.booleans()),
        st.tuples(st.just("pause")),
        st.tuples(st.just("succeed"), st.sampled_from(["a", "b"])),
    ),
    min_size=20,
    max_size=120,
)  # fmt: skip


class Witness:
    """Counts what is sent, on its own, as the cloud would."""

    def __init__(self) -> None:
        self.forward_s = 0.0
        self.sent = 0
        self.months: Counter[tuple[str, str]] = Counter()
        self.reads: Counter[tuple[str, str]] = Counter()
        self.commands: Counter[tuple[str, str]] = Counter()
        self.last: dict[str, float] = {}

    def move(self, seconds: float) -> None:
        self.forward_s += max(seconds, 0.0)

    def note(self, kind: Kind, car: str, session: str, cost: int, now: datetime) -> None:
        self.sent += cost
        assert self.sent <= TIGHT.bucket + self.forward_s * TIGHT.refill_per_min / 60 + 1e-6
        if kind is Kind.LIST:
            return
        month = (car, budget.month_of(now))
        self.months[month] += cost
        is_read = kind in (Kind.READ, Kind.PAGE)
        assert self.months[month] <= TIGHT.monthly - (TIGHT.reserve if is_read else 0)
        if session:
            counter = self.reads if is_read else self.commands
            counter[car, session] += 1
            most = TIGHT.session_reads if is_read else TIGHT.session_commands
            assert counter[car, session] <= most
        if kind in OWN and car in self.last:
            assert self.forward_s - self.last[car] >= TIGHT.floor_s - 1e-6
        self.last[car] = self.forward_s


async def lived(steps: list[Any]) -> Witness:
    store, clock, witness = MemoryStore(), HandClock(), Witness()
    dice = Dice()

    def started() -> CallBudget:
        return CallBudget(TIGHT, as_store(store), clock, as_ids(dice))

    found = started()
    for name, *given_ in steps:
        if name == "ask":
            kind, car, session, cost = given_
            with suppress(CloudFault):
                await found.take(kind, car, session_id=session, cost=cost)
                witness.note(kind, car, session, cost, clock.now())
        elif name == "move":
            clock.pass_s(given_[0])
            witness.move(given_[0])
        elif name == "restart":
            found = started()
        elif name == "disk":
            store.fails = given_[0]
        elif name == "pause":
            with suppress(CloudFault):
                await found.pause(0.0)
        else:
            with suppress(CloudFault):
                await found.learn(given_[0], budget.succeeded)
                await found.answered()
    return witness


@examples(150)
@given(STEPS)
def test_no_sequence_of_events_passes_a_budget(steps: list[Any]) -> None:
    """What was sent is counted apart from the budget, by the forward moves of the clock."""
    asyncio.run(lived(steps))


LISTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.just(Kind.LIST), st.just(""), st.just(""), st.just(1)),
        st.tuples(st.just("ask"), st.just(Kind.LIST), st.just(""), st.just(""), st.just(1)),
        st.tuples(st.just("move"), st.sampled_from([1.0, 20.0, 31.0, -20.0, -4000.0])),
        st.tuples(st.just("restart")),
    ),
    min_size=40,
    max_size=80,
)


@examples(60)
@given(LISTS)
def test_the_bucket_gives_nothing_twice(steps: list[Any]) -> None:
    """Requests of no car meet no other limit."""
    asyncio.run(lived(steps))


async def test_a_restart_loop_sends_one_request_per_floor_and_five_in_all() -> None:
    """200 restarts in an hour, each wanting to read."""
    store, clock = MemoryStore(), HandClock()
    sent = 0
    for _ in range(200):
        found = CallBudget(BudgetRules(), as_store(store), clock, as_ids(Dice()))
        with suppress(BudgetSpent):
            await found.take(Kind.READ, "v-1", session_id="S1")
            sent += 1
        clock.pass_s(18)
    assert sent == 5


async def test_the_count_is_on_disk_before_the_request_may_go() -> None:
    """And when the disk does not take it, nothing goes."""
    store, clock = MemoryStore(), HandClock()
    found = CallBudget(BudgetRules(), as_store(store), clock, as_ids(Dice()))
    await found.take(Kind.READ, "v-1")
    assert store.rows[SCOPE, "car:v-1"]["used"] == {"2026-11": 1}

    clock.pass_s(600)
    store.fails = True
    with pytest.raises(CloudFault, match="disk"):
        await found.take(Kind.READ, "v-1")
    store.fails = False
    view = await found.view("v-1")
    assert (view.used, view.reads_left, view.commands_left) == (1, 449, 499)
    assert view.next_at is None


async def test_a_disk_that_cannot_be_read_lets_nothing_go() -> None:
    """Unknown counters are not zero."""
    store = MemoryStore()
    store.fails = True
    found = CallBudget(BudgetRules(), as_store(store), HandClock(), as_ids(Dice()))

    with pytest.raises(CloudFault, match="disk"):
        await found.take(Kind.LIST)


@pytest.mark.parametrize("body", [{}, {"used": 7}, {"used": {}, "sessions": {"S": [1]}}])
async def test_unreadable_counters_count_as_used_up(body: dict[str, object]) -> None:
    """But for the commands' reserve, and the bucket fills anew."""
    store, clock = MemoryStore(), HandClock()
    for name in ("car:v-1", "account"):
        await store.commit([FactSaved(scope=SCOPE, name=name, body=body)], clock.now())
    found = CallBudget(BudgetRules(), as_store(store), clock, as_ids(Dice()))

    with pytest.raises(BudgetSpent) as caught:
        await found.take(Kind.LIST)
    assert caught.value.reason == "account"
    clock.pass_s(180)
    with pytest.raises(BudgetSpent) as caught:
        await found.take(Kind.READ, "v-1")
    assert caught.value.reason == "month"
    await found.take(Kind.COMMAND, "v-1")


async def test_what_was_learned_survives_a_restart() -> None:
    """Waits, the higher floor, and a pause of all cars."""
    store, clock = MemoryStore(), HandClock(datetime(2026, 2, 1, tzinfo=UTC))
    rules = BudgetRules()
    first = CallBudget(rules, as_store(store), clock, as_ids(Dice(0.0)))
    await first.take(Kind.READ, "v-1")
    await first.learn("v-1", lambda car: budget.slowed(car, now=clock.now(), asked_s=400))
    assert await first.pause(0.0) == 30

    second = CallBudget(rules, as_store(store), clock, as_ids(Dice(0.0)))
    with pytest.raises(BudgetSpent, match="all cars together"):
        await second.check(Kind.LIST)
    clock.pass_s(60)
    with pytest.raises(BudgetSpent) as caught:
        await second.check(Kind.READ, "v-1")
    assert (caught.value.reason, caught.value.retry_after_s) == ("waiting", 340)
    view = await second.view("v-1")
    assert view.next_at == datetime(2026, 2, 1, tzinfo=UTC) + timedelta(seconds=400)
    assert await second.pause(0.0) == 60
