"""Flash is spared: how many profiles a day of restless wishes costs one station."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from agent.control.depot import WRITES_MAX, Writes
from agent.domain import reconcile
from agent.domain.allocator import Node
from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import constant
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.power import OutletFacts, decide
from agent.domain.reconcile import Ordered, OutletPower
from tests.unit.domain.build import NOW, after

CP = (StationId("CP-1"), EvseId(1))
TX = TransactionId("T-1")
FORM = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=24, stack_level=1)


def a_day(cap_w, every_s=20):
    """Decide every 20 s for a day under a cap that moves; the writes, and the books."""
    book, writes = OutletPower(default_w=0.0), Writes(NOW.date())
    for at_s in range(0, 86_400, every_s):
        now = NOW + timedelta(seconds=at_s)
        fact = OutletFacts(
            rated_w=150_000.0,
            fallback_w=0.0,
            is_connected=True,
            transaction_id=TX,
            started_at=NOW,
            wants=constant(100_000.0),
            form=FORM,
            is_worn=writes.today > WRITES_MAX,
        )
        cap = cap_w(at_s)
        node = Node(name="site", cap_w=cap, members=frozenset({CP}))
        for order in decide({CP: fact}, {CP: book}, [node], now=now).orders:
            writes.count(NOW.date())
            book = reconcile.accepted(order.power, order.sent, now)
            book = replace(book, verified=True, unproved=None)
        assert book.confirmed is not None
        assert book.confirmed.allows[-1][1] <= cap
    return writes


def test_a_cap_that_trembles_all_day_costs_few_writes():
    """Less than 3 % up and down: each raise waits a minute, so do the reductions."""
    chance = random.Random(1)
    writes = a_day(lambda _: 60_000.0 + chance.uniform(0, 900))

    assert 1 <= writes.total <= WRITES_MAX + 2 * 144 + 1


def test_a_cap_that_jumps_all_day_is_obeyed_and_its_raises_become_few():
    """Reductions always leave at once; after 500 writes raises wait ten minutes."""
    chance = random.Random(2)
    writes = a_day(lambda _: chance.choice([40_000.0, 60_000.0, 90_000.0]))
    half_hours = 86_400 / 600

    assert WRITES_MAX < writes.total <= WRITES_MAX + 3 * half_hours


def test_a_quiet_day_costs_one():
    assert a_day(lambda _: 60_000.0).total == 1


def test_the_count_is_of_the_day_and_tells_once():
    writes = Writes(NOW.date())

    told = [writes.count(NOW.date()) for _ in range(WRITES_MAX + 3)]
    next_day = writes.count(after(86_400).date())

    assert told.count(True) == 1
    assert told.index(True) == WRITES_MAX
    assert (writes.today, writes.total) == (1, WRITES_MAX + 4)
    assert not next_day


def an_order(*, is_reduction=False):
    return Ordered(line=constant(1.0), is_reduction=is_reduction, reason="")


def test_what_makes_up_for_something_is_never_spared():
    sent = reconcile.Sent(
        transaction_id=TX, allows=constant(9.0), exact_until_s=2**40, sent_at=NOW
    )
    book = reconcile.accepted(reconcile.ordered(OutletPower(), sent), sent, NOW)
    soon = after(60)

    assert reconcile.is_spared(book, an_order(), soon)
    assert not reconcile.is_spared(book, an_order(), after(601))
    assert not reconcile.is_spared(book, an_order(is_reduction=True), soon)
    assert not reconcile.is_spared(replace(book, needs_confirmation=True), an_order(), soon)
    assert not reconcile.is_spared(replace(book, verified=False), an_order(), soon)
    assert not reconcile.is_spared(replace(book, failures=1), an_order(), soon)
    assert not reconcile.is_spared(OutletPower(), an_order(), soon)
