"""Levels of proof, and what a composite schedule says beyond the limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.domain import proof, reconcile
from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import constant, curve
from agent.domain.ids import TransactionId
from agent.domain.ladder import Rung, Way
from agent.domain.meter import MeterState
from agent.domain.proof import Level, Witness
from agent.domain.reconcile import OutletPower, Sent
from tests.unit.domain.build import NOW, NOW_S, after

TX = TransactionId("T-1")
FORM = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=24, stack_level=0)
WAY = Way(rung=Rung.PLAIN, form=FORM)
LIMIT = curve([(NOW_S - 60, 50_000.0), (NOW_S + 900, 20_000.0)])


def a_book(allows=LIMIT, exact_until_s=2**40, tx=TX):
    sent = Sent(transaction_id=tx, allows=allows, exact_until_s=exact_until_s, sent_at=NOW)
    return reconcile.accepted(OutletPower(), sent, NOW)


def witness(agrees):
    return Witness(since=NOW, way=WAY, agrees=agrees)


def level(book, meter=None, seen=None):
    return proof.level_of(book, meter or MeterState(), seen, TX)


def test_nothing_is_proved_while_an_answer_is_waited_for():
    sent = Sent(transaction_id=TX, allows=LIMIT, exact_until_s=2**40, sent_at=after(5))
    on_the_way = reconcile.ordered(a_book(), sent)

    assert level(OutletPower()) is Level.NONE
    assert level(on_the_way, seen=witness(agrees=True)) is Level.NONE
    assert level(a_book(tx=TransactionId("T-0"))) is Level.NONE


def test_each_level_needs_its_own_witness():
    book = a_book()
    offers = MeterState(offered_w=50_000.0, power_w=0.0, power_at=after(30))

    assert level(book) is Level.ANSWER
    assert level(book, seen=witness(agrees=None)) is Level.ANSWER
    assert level(book, seen=witness(agrees=False)) is Level.ANSWER
    assert level(book, seen=witness(agrees=True)) is Level.COMPOSITE
    assert level(book, offers) is Level.OFFERED
    assert level(replace(book, verified=True), offers) is Level.MEASURED


def test_a_witness_of_an_older_limit_proves_nothing():
    old = Witness(since=after(-600), way=WAY, agrees=True)

    assert level(a_book(), seen=old) is Level.ANSWER


def test_a_reduction_that_no_value_has_shown_is_not_measured():
    book = replace(a_book(), verified=True, unproved=constant(80_000.0))

    assert level(book) is Level.ANSWER


@pytest.mark.parametrize(
    ("offered_w", "at_s", "is_within"),
    [(50_000.0, 30, True), (54_000.0, 30, False), (20_000.0, -30, False)],
)
def test_an_offer_counts_after_the_change_and_up_to_the_limit(offered_w, at_s, is_within):
    meter = MeterState(offered_w=offered_w, power_at=after(at_s))

    assert proof.is_offer_within(a_book(), meter) is is_within


@pytest.mark.parametrize(
    ("power_w", "at_s", "is_telling"),
    [
        (49_000.0, 120, True),
        (30_000.0, 120, False),
        (49_000.0, 60, False),
        (60_000.0, 120, False),
    ],
)
def test_power_tells_near_the_limit_and_after_the_settle_time(power_w, at_s, is_telling):
    meter = MeterState(power_w=power_w, power_at=after(at_s))

    assert proof.is_telling(a_book(), meter) is is_telling


def beyond(said, book=None, *, factor=1.0, phases=None):
    return proof.beyond(
        said, book or a_book(), factor=factor, phases=phases, now_s=NOW_S + 100
    )


@pytest.mark.parametrize(
    "said",
    [
        LIMIT,
        constant(10_000.0),
        curve([(NOW_S, 50_900.0), (NOW_S + 900, 20_300.0)]),
        curve([(NOW_S, 50_000.0), (NOW_S + 940, 20_000.0)]),
        curve([(NOW_S, 50_000.0), (NOW_S + 900, 20_000.0), (NOW_S + 5000, 150_000.0)]),
    ],
    ids=["same", "lower", "noise", "skew", "after the hour"],
)
def test_what_is_within_the_limit_is_no_contradiction(said):
    assert not beyond(said)


@pytest.mark.parametrize(
    "said",
    [constant(50_000.0), constant(150_000.0), curve([(0, 9000.0), (NOW_S + 600, 1e5)])],
    ids=["forgets the step", "no limit", "rises later"],
)
def test_what_is_above_it_at_any_time_of_the_hour_is_one(said):
    assert "at a limit of" in beyond(said)


def test_the_tail_of_a_schedule_that_did_not_fit_is_not_compared():
    """From there on the sent profile only holds the minimum of the rest."""
    book = a_book(exact_until_s=NOW_S + 850)

    assert not beyond(constant(50_000.0), book)


def test_a_dc_station_may_speak_of_the_grid_side_and_an_ac_one_of_whole_amperes():
    assert not beyond(curve([(NOW_S, 53_100.0), (NOW_S + 900, 21_200.0)]), factor=1 / 0.94)
    assert beyond(curve([(NOW_S, 53_100.0), (NOW_S + 900, 21_200.0)]))
    ac = a_book(constant(10_800.0))
    assert not beyond(constant(11_040.0), ac, phases=3)
    assert beyond(constant(13_000.0), ac, phases=3)
