"""Charging profiles: never above the curve, in a form that every station can read."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import EVER_S, Curve, constant, curve, is_within, value_at
from agent.domain.ids import EvseId, TransactionId
from agent.domain.plan import wanted
from agent.domain.profile import Compiled, Purpose, compile_default, compile_tx
from tests.support.properties import examples
from tests.unit.domain.build import (
    NOW,
    NOW_S,
    a_plan,
    a_segment,
    a_window,
    after,
    curves,
    moments,
)

quick = examples(150)
DC = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=24, stack_level=3)
AC = ProfileForm(
    unit=RateUnit.AMPERE, phases=3, periods_max=24, stack_level=0, minimum_w=4140.0
)


@st.composite
def forms(draw) -> ProfileForm:
    """Draw how profiles must look for some station."""
    is_dc = draw(st.booleans())
    phases = None if is_dc else draw(st.sampled_from([1, 3]))
    return ProfileForm(
        unit=draw(st.sampled_from(RateUnit)),
        phases=phases,
        periods_max=draw(st.integers(1, 6) | st.just(24)),
        stack_level=draw(st.integers(0, 8)),
        is_relative=draw(st.booleans()),
        whole_amps=draw(st.booleans()),
        minimum_w=1000.0 if phases is None else 6.0 * 230 * phases,
    )


def _compiled(line: Curve, form: ProfileForm = DC, *, now=NOW, started_s=-300) -> Compiled:
    return compile_tx(
        line,
        evse_id=EvseId(2),
        transaction_id=TransactionId("8811"),
        form=form,
        now=now,
        transaction_started_at=after(started_s),
    )


def _obeyed(compiled: Compiled, form: ProfileForm, *, started_s: int = -300) -> Curve:
    """Read the profile as a station does; without looking at ``allows``."""
    profile = compiled.profile
    start = profile.starts_at or after(started_s)
    per_unit = 1.0 if profile.unit is RateUnit.WATT else 230.0 * (form.phases or 3)
    start_s = int(start.timestamp())
    return curve((start_s + at_s, limit * per_unit) for at_s, limit in profile.periods)


@quick
@given(line=curves(), form=forms(), started_s=st.integers(-50_000, 0))
def test_a_profile_is_at_no_instant_above_the_curve(line, form, started_s):
    compiled = _compiled(line, form, started_s=started_s)
    obeyed = _obeyed(compiled, form, started_s=started_s)

    is_led = form.periods_max == 1
    for at_s in moments(line, obeyed):
        if not is_led or at_s < compiled.exact_until_s:
            assert value_at(obeyed, at_s) <= value_at(line, at_s) + 0.001
        assert value_at(compiled.allows, at_s) == pytest.approx(value_at(obeyed, at_s))


@quick
@given(line=curves(values=st.integers(1, 300).map(lambda kw: kw * 1000.0)), form=forms())
def test_a_profile_is_exact_until_it_says_that_it_no_longer_is(line, form):
    """Quantised exactly: whole kilowatts in W, and no raise shorter than 5 s."""
    is_steady = all(b[0] - a[0] >= 5 for a, b in pairwise(line))
    if form.unit is not RateUnit.WATT or form.periods_max == 1 or not is_steady:
        return
    line = curve((at_s, max(limit_w, form.minimum_w)) for at_s, limit_w in line)
    compiled = _compiled(line, form)

    assert compiled.exact_until_s > NOW_S
    for at_s in moments(line):
        if at_s < compiled.exact_until_s:
            assert value_at(compiled.allows, at_s) == value_at(line, at_s)


@quick
@given(line=curves(), form=forms(), started_s=st.integers(-50_000, 0))
def test_periods_start_at_zero_rise_and_are_no_more_than_the_station_takes(
    line, form, started_s
):
    periods = _compiled(line, form, started_s=started_s).profile.periods
    starts = [at_s for at_s, _ in periods]

    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert len(periods) <= form.periods_max
    assert all(a[1] != b[1] for a, b in pairwise(periods))


@quick
@given(line=curves(), form=forms(), micro=st.integers(0, 999_999))
def test_an_absolute_start_is_a_whole_second_well_in_the_past(line, form, micro):
    now = NOW + timedelta(microseconds=micro)
    starts_at = _compiled(line, form, now=now).profile.starts_at

    if form.is_relative:
        assert starts_at is None
    else:
        assert starts_at is not None
        assert starts_at.microsecond == 0
        assert timedelta(seconds=60) <= now - starts_at <= timedelta(hours=12, seconds=1)


@quick
@given(line=curves(values=st.floats(0, 5000)), form=forms())
def test_w4_limits_are_tenths_and_nothing_lies_between_zero_and_the_minimum(line, form):
    """1 to 999 W mean 0 to some stations and more to others (W4)."""
    for _, limit in _compiled(line, form).profile.periods:
        assert round(limit, 1) == limit
        if form.whole_amps and form.unit is RateUnit.AMPERE:
            assert limit == int(limit)
        if form.unit is RateUnit.WATT:
            assert limit == 0 or limit >= form.minimum_w
        elif form.phases is not None:
            assert limit == 0 or limit >= 6.0


@pytest.mark.parametrize(
    ("limit_w", "phases", "whole", "expected"),
    [
        (11_000.0, 3, False, 15.9),
        (11_000.0, 3, True, 15.0),
        (4140.0, 3, False, 6.0),
        (4139.9, 3, False, 0.0),
        (22_080.0, 3, False, 32.0),
        (3680.0, 1, False, 16.0),
        (3679.9, 1, False, 15.9),
    ],
)
def test_amperes_are_per_phase_at_nominal_voltage_and_rounded_down(
    limit_w, phases, whole, expected
):
    form = ProfileForm(
        unit=RateUnit.AMPERE,
        phases=phases,
        periods_max=24,
        stack_level=0,
        whole_amps=whole,
        minimum_w=6.0 * 230 * phases,
    )

    assert _compiled(constant(limit_w), form).profile.periods == ((0, expected),)


def test_a_profile_names_its_transaction_outlet_and_form():
    profile = _compiled(constant(40_000.0)).profile

    assert (profile.profile_id, profile.purpose) == (102, Purpose.TX)
    assert (profile.transaction_id, profile.stack_level) == ("8811", 3)
    assert (profile.unit, profile.phases) == (RateUnit.WATT, None)


def test_the_documented_night_compiles_to_the_documented_periods():
    """The example of ocpp-depot.md B10."""
    line = curve(
        [
            (NOW_S, 60_000.0),
            (NOW_S + 5400, 0.0),
            (NOW_S + 10_800, 40_000.0),
            (NOW_S + 18_000, 2000.0),
        ]
    )
    profile = _compiled(line, now=after(60)).profile

    assert profile.starts_at == NOW
    assert profile.periods == (
        (0, 60_000.0),
        (5400, 0.0),
        (10_800, 40_000.0),
        (18_000, 2000.0),
    )


def test_too_many_periods_end_in_the_minimum_of_the_rest():
    line = curve([(NOW_S + n * 900, w) for n, w in enumerate([9e3, 8e3, 7e3, 2e3, 5e3])])
    form = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=3, stack_level=0)

    compiled = _compiled(line, form, now=after(60))

    assert compiled.profile.periods == ((0, 9e3), (900, 8e3), (1800, 2e3))
    assert compiled.exact_until_s == NOW_S + 1800


@pytest.mark.parametrize(
    ("at_s", "limit_w", "until_s"),
    [(0, 9e3, 870), (869, 9e3, 870), (871, 3e3, 1800), (1800, 5e3, None)],
)
def test_a_station_that_takes_one_period_is_led_step_by_step_and_lowered_early(
    at_s, limit_w, until_s
):
    line = curve([(NOW_S, 9e3), (NOW_S + 900, 3e3), (NOW_S + 1800, 5e3)])
    form = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=1, stack_level=0)

    compiled = _compiled(line, form, now=after(at_s))

    assert compiled.profile.periods == ((0, limit_w),)
    assert compiled.exact_until_s == (EVER_S if until_s is None else NOW_S + until_s)


def test_a_raise_that_no_station_can_follow_is_dropped_and_a_cut_never():
    raised = curve([(NOW_S, 5e3), (NOW_S + 60, 9e3), (NOW_S + 64, 4e3)])
    lowered = curve([(NOW_S, 5e3), (NOW_S + 60, 2e3), (NOW_S + 64, 4e3)])

    assert _compiled(raised, now=NOW).allows == ((NOW_S, 5e3), (NOW_S + 64, 4e3))
    assert value_at(_compiled(lowered).allows, NOW_S + 61) == 2e3


@examples(25)
@given(
    powers=st.lists(st.integers(0, 150), min_size=40, max_size=40),
    spans=st.lists(st.integers(60, 3600), min_size=40, max_size=40),
    form=st.sampled_from([DC, AC]),
)
def test_refreshing_at_half_of_the_horizon_follows_a_long_plan_and_never_passes_it(
    powers, spans, form
):
    """Three periods at a time over forty segments, recompiled again and again."""
    form = ProfileForm(
        unit=form.unit,
        phases=form.phases,
        periods_max=3,
        stack_level=0,
        minimum_w=form.minimum_w,
    )
    steps, at_s = [], NOW_S
    for power, span in zip(powers, spans, strict=True):
        steps.append((at_s, power * 1000.0))
        at_s += span
    line = curve([*steps, (at_s, 1000.0)])
    now_s, compiled, refreshes = NOW_S, _compiled(line, form), 0

    while compiled.exact_until_s < at_s:
        assert is_within(compiled.allows, line, now_s)
        half_s = max((compiled.exact_until_s - now_s) // 2, 1)
        for t in range(now_s, now_s + half_s, max(half_s // 7, 1)):
            expected = value_at(line, t)
            if form is not AC and form.unit is RateUnit.WATT and expected >= 1000:
                assert value_at(compiled.allows, t) == expected
        now_s += half_s
        compiled = _compiled(line, form, now=after(now_s - NOW_S))
        refreshes += 1

    assert is_within(compiled.allows, line, now_s)
    assert refreshes < 40 * 14


@quick
@given(limit_w=st.floats(0, 200_000), form=forms(), evse=st.integers(0, 3))
def test_the_safe_default_is_one_period_for_ever_and_not_above_its_limit(
    limit_w, form, evse
):
    compiled = compile_default(limit_w, evse_id=EvseId(evse), form=form, now=NOW)
    profile = compiled.profile

    assert (profile.purpose, profile.stack_level) == (Purpose.TX_DEFAULT, 0)
    assert (profile.profile_id, profile.transaction_id) == (1 + evse, None)
    assert len(profile.periods) == 1
    assert profile.periods[0][0] == 0
    assert value_at(compiled.allows, NOW_S) <= limit_w + 0.001
    assert (profile.starts_at is None) is form.is_relative
    if profile.starts_at is not None:
        assert NOW - profile.starts_at >= timedelta(seconds=60)


def test_a_plan_of_the_cloud_survives_the_whole_way_to_the_station():
    """From segments to periods: nothing in between lifts it."""
    plan = a_plan(a_segment(0, 900, 60_000.0), a_segment(900, 1800, 0.0, paused=True))
    line = wanted(plan, a_window())

    assert _obeyed(_compiled(line), DC)[-3:] == (
        (NOW_S - 60, 60_000.0),
        (NOW_S + 900, 0.0),
        (NOW_S + 1800, 1000.0),
    )
