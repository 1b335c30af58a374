"""The algebra of curves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.domain.curve import (
    EVER_S,
    constant,
    curve,
    edges,
    energy_wh,
    floor_tenth,
    higher_of,
    is_same,
    is_within,
    lower_of,
    since,
    total,
    value_at,
)
from tests.support.properties import examples
from tests.unit.domain.build import NOW_S, curves, moments

lists_of_curves = st.lists(curves(), min_size=1, max_size=4)
quick = examples(80)


@quick
@given(lines=lists_of_curves)
def test_minimum_maximum_and_sum_hold_at_every_instant(lines):
    low, high, both = (rule(lines, NOW_S) for rule in (lower_of, higher_of, total))

    for at_s in moments(*lines):
        values = [value_at(line, at_s) for line in lines]
        assert value_at(low, at_s) == min(values)
        assert value_at(high, at_s) == max(values)
        assert value_at(both, at_s) == sum(values)


@quick
@given(one=curves(), other=curves())
def test_a_curve_is_within_another_just_when_no_instant_is_above(one, other):
    instants = moments(one, other)
    expected = all(value_at(one, at) <= value_at(other, at) + 0.05 for at in instants)

    assert is_within(one, other, NOW_S) is expected
    assert is_within(lower_of([one, other], NOW_S), other, NOW_S)
    assert is_within(other, higher_of([one, other], NOW_S), NOW_S)


@quick
@given(one=curves(), other=curves())
def test_two_curves_are_the_same_when_each_is_within_the_other(one, other):
    is_both = is_within(one, other, NOW_S) and is_within(other, one, NOW_S)

    assert is_same(one, other, NOW_S) is is_both


def test_what_happens_from_the_end_of_the_range_on_is_not_compared():
    one, other = curve([(0, 5.0)]), curve([(0, 5.0), (100, 7.0)])

    assert is_same(one, other, 0, 100)
    assert not is_same(one, other, 0, 101)
    assert is_within(other, one, 0, 100)
    assert not is_within(other, one, 0, 101)


@quick
@given(line=curves(), offset_s=st.integers(-1000, 50_000))
def test_cutting_the_past_changes_nothing_that_follows(line, offset_s):
    cut = since(line, NOW_S + offset_s)

    assert cut[0][0] == NOW_S + offset_s
    for at_s in moments(line):
        if at_s >= NOW_S + offset_s:
            assert value_at(cut, at_s) == value_at(line, at_s)


@quick
@given(line=curves(), cuts=st.lists(st.integers(0, 50_000), min_size=2, max_size=5))
def test_energies_of_adjacent_times_add_up(line, cuts):
    times = sorted(NOW_S + cut for cut in cuts)
    parts = [energy_wh(line, a, b) for a, b in pairwise(times)]

    assert sum(parts) == pytest.approx(energy_wh(line, times[0], times[-1]))


@quick
@given(
    power_w=st.floats(0, 1e6), from_s=st.integers(0, 10**6), span_s=st.integers(0, 10**5)
)
@example(power_w=3600.0, from_s=7, span_s=0)
def test_the_energy_of_a_constant_is_power_times_time(power_w, from_s, span_s):
    expected = power_w * span_s / 3600

    assert energy_wh(constant(power_w), from_s, from_s + span_s) == pytest.approx(expected)


def test_a_span_that_ends_before_it_starts_holds_no_energy():
    assert energy_wh(constant(1000.0), 100, 50) == 0


@quick
@given(line=curves())
def test_neighbouring_steps_differ_and_times_rise(line):
    times = [at_s for at_s, _ in line]

    assert times == sorted(set(times))
    assert all(a[1] != b[1] for a, b in pairwise(line))


def test_of_two_steps_at_one_second_the_later_given_wins():
    assert curve([(5, 1.0), (0, 3.0), (5, 2.0)]) == ((0, 3.0), (5, 2.0))


def test_a_curve_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        curve([])


def test_the_first_value_holds_before_the_first_step_and_the_last_for_ever():
    line = curve([(100, 1.0), (200, 2.0)])

    assert [value_at(line, at) for at in (0, 100, 199.9, 200, EVER_S)] == [1, 1, 1, 2, 2]


def test_edges_begin_with_the_start_and_leave_the_past_out():
    assert edges([curve([(1, 1.0), (5, 2.0)]), curve([(7, 1.0)])], 3) == [3, 5, 7]


def test_the_sum_of_nothing_is_zero():
    assert total([], NOW_S) == constant(0)


@quick
@given(tenths=st.integers(0, 40_000_000))
def test_tenths_survive_flooring_and_anything_between_falls(tenths):
    exact = tenths / 10

    assert floor_tenth(exact) == exact
    assert floor_tenth(sum([0.1] * 3)) == 0.3
    assert floor_tenth(exact + 0.09) == exact
