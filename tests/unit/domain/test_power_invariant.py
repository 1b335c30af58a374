"""The cap is never passed: 10,000 random depots against an independent judge.

The judge (``tests/support/power_world.py``) computes what its stations could draw from
what really arrived there, now and at every later edge: as if the gateway died at each
instant (faults.md W1, W2). Three planted bugs show that it can see.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.domain import phases, power, reconcile
from agent.domain.curve import constant
from tests.support.power_world import World

pytestmark = pytest.mark.many
CHUNK = 500
"""Scenarios per test; 20 chunks make 10,000."""


@pytest.mark.parametrize("chunk", range(20))
def test_w1_the_cap_is_never_passed_whatever_happens(chunk):
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        World(seed).run()


def _broken_within(scenarios: int) -> bool:
    for seed in range(scenarios):
        try:
            World(seed).run()
        except AssertionError:
            return True
    return False


def test_raising_before_lowering_is_found(monkeypatch):
    monkeypatch.setattr(power._Look, "has_room", lambda *_: True)
    assert _broken_within(200)


def test_forgetting_an_unanswered_call_is_found(monkeypatch):
    keep = reconcile.unanswered

    def forget(book, detail):
        return replace(keep(book, detail), doubtful=None, earlier=None)

    monkeypatch.setattr(reconcile, "unanswered", forget)
    assert _broken_within(500)


def test_no_reserve_for_an_offline_station_is_found(monkeypatch):
    keep = power.possible_draw

    def nothing_while_away(fact, book, now_s):
        return keep(fact, book, now_s) if fact.is_connected else constant(0.0)

    monkeypatch.setattr(power, "possible_draw", nothing_while_away)
    assert _broken_within(500)


def test_no_reserve_for_the_next_vehicle_is_found(monkeypatch):
    """A fourth one: the default of an empty outlet counts."""
    keep = power.possible_draw

    def nothing_without_a_vehicle(fact, book, now_s):
        return constant(0.0) if fact.transaction_id is None else keep(fact, book, now_s)

    monkeypatch.setattr(power, "possible_draw", nothing_without_a_vehicle)
    assert _broken_within(500)


def test_trusting_a_reduction_that_was_only_refused_once_is_found(monkeypatch):
    """A fifth: a refusal says nothing about an earlier order that was not answered."""

    def forget_both(book, detail, quiet_until=None):
        return replace(
            book, doubtful=None, earlier=None, failures=book.failures + 1, detail=detail
        )

    monkeypatch.setattr(reconcile, "refused", forget_both)
    assert _broken_within(2000)


def test_a_single_phase_outlet_that_counts_as_a_third_is_found(monkeypatch):
    """A sixth: the usual surprise of AC sites."""
    monkeypatch.setattr(phases, "_weight", lambda *_: phases.SHARE)
    assert _broken_within(500)


def test_believing_that_a_limit_in_watts_is_spread_evenly_is_found(monkeypatch):
    """A seventh: a vehicle with one phase takes all of it there."""
    keep = phases._weight

    def as_amperes(wiring, phase, voltage_v):
        return keep(replace(wiring, is_in_watts=False), phase, voltage_v)

    monkeypatch.setattr(phases, "_weight", as_amperes)
    assert _broken_within(2000)


def test_forgetting_a_default_that_outlives_its_transaction_is_found(monkeypatch):
    """An eighth: the next vehicle begins with the plan of the one before (B13.7)."""
    monkeypatch.setattr(reconcile, "leaving", lambda book, _way, _sent: book)
    monkeypatch.setattr(reconcile, "replaced", lambda book, _way, _sent: book)
    assert _broken_within(500)
