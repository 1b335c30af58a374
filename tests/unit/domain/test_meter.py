"""Meter readings: what is believed, what is counted, what becomes history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.meter import (
    HISTORY_MAX,
    HISTORY_SLOT_S,
    MeterReading,
    MeterState,
    add_reading,
    baseline,
    idle,
    settle,
)
from tests.support.properties import examples
from tests.unit.domain.build import NOW, NOW_S, after

RATED_W = 150_000
quick = examples(150)


def _read(state: MeterState, *samples, start_s: float = 0, every_s: float = 60):
    """Take samples of the register (Wh) a minute apart; the state and anomalies."""
    told = []
    for n, wh in enumerate(samples, 1):
        reading = MeterReading(after(start_s + n * every_s), register_wh=wh)
        state, anomaly = add_reading(state, reading, rated_w=RATED_W)
        told += [anomaly] if anomaly else []
    return state, told


def _begun(register_wh: float | None = 100_000.0) -> MeterState:
    return baseline(MeterState(), register_wh, NOW)


def _soc(state: MeterState, *values: float) -> MeterState:
    for n, value in enumerate(values, 1):
        reading = MeterReading(after(n * 60), soc_percent=value)
        state, _ = add_reading(state, reading, rated_w=RATED_W)
    return state


# --- energy -----------------------------------------------------------------------


def test_steps_of_the_register_add_up():
    state, told = _read(_begun(), 100_500.0, 101_000.0, 102_500.0)

    assert state.energy_wh == 2500
    assert told == []


def test_without_a_start_the_first_sample_is_the_baseline():
    state, _ = _read(_begun(None), 100_000.0, 100_400.0)

    assert state.energy_wh == 400


def test_c6_a_dip_for_one_sample_is_named_and_costs_nothing():
    """MTR-07."""
    state, told = _read(_begun(), 100_500.0, 0.0, 101_000.0)

    assert state.energy_wh == 1000
    assert len(told) == 1
    assert "fell" in told[0]


def test_c6_a_register_that_starts_again_is_counted_from_there():
    """MTR-08."""
    state, told = _read(_begun(), 100_500.0, 100.0, 600.0, 1100.0)

    assert state.energy_wh == 500 + 500 + 500
    assert len(told) == 2


def test_c6_a_jump_for_one_sample_is_named_and_not_counted():
    """C6: faster than 1.2 times the rated power."""
    state, told = _read(_begun(), 100_500.0, 900_000.0, 101_000.0)

    assert state.energy_wh == 1000
    assert "too fast" in told[0]


def test_a_jump_that_stays_is_not_counted_but_what_follows_is():
    state, _ = _read(_begun(), 100_500.0, 900_000.0, 900_500.0, 901_000.0)

    assert state.energy_wh == 500 + 500 + 500


def test_the_fastest_believable_rise_is_counted_and_one_more_is_not():
    limit_wh = RATED_W * 1.2 / 60 + 500

    assert _read(_begun(), 100_000 + limit_wh)[0].energy_wh == pytest.approx(limit_wh)
    assert _read(_begun(), 100_001 + limit_wh)[0].energy_wh == 0


def test_a_register_of_zero_is_not_taken_for_a_new_counting():
    """A station that sends zeros for a while and then goes on."""
    state, _ = _read(_begun(), 100_500.0, 0.0, 0.0, 0.0, 101_000.0)

    assert state.energy_wh == 1000


registers = st.one_of(
    st.none(),
    st.just(0.0),
    st.floats(-10.0, 10.0**7),
    st.integers(0, 400).map(lambda n: 100_000.0 + 100 * n),
)
spans = st.one_of(st.integers(-100, 100), st.integers(0, 4000), st.integers(0, 500_000))


@quick
@given(
    steps=st.lists(st.tuples(spans, registers, st.floats(-10, 300)), max_size=30),
    owed_wh=st.none() | st.floats(-50_000, 50_000),
)
def test_c6_energy_never_falls_and_history_is_the_same_energy_in_quarter_hours(
    steps, owed_wh
):
    """Whatever registers do, and whatever the end of the transaction corrects."""
    state, at_s = _begun(), 0
    for span_s, wh, soc in steps:
        at_s += span_s
        before_wh = state.energy_wh
        reading = MeterReading(after(at_s), register_wh=wh, soc_percent=soc)
        state, _ = add_reading(state, reading, rated_w=RATED_W)
        assert state.energy_wh >= before_wh
    if owed_wh is not None:
        state = settle(state, owed_wh, 200_000.0, after(at_s + 10))

    starts = [slot[0] for slot in state.history]
    assert starts == sorted(set(starts))
    assert all(start % HISTORY_SLOT_S == 0 for start in starts)
    assert len(starts) <= HISTORY_MAX
    assert all(slot[1] >= -1e-6 for slot in state.history)
    assert sum(slot[1] for slot in state.history) == pytest.approx(
        state.energy_wh, abs=1e-3
    )
    for slot in state.history:
        assert all(soc is None or 0 < soc <= 100 for soc in slot[2:])


def test_energy_lies_in_the_quarter_hours_in_which_it_flowed():
    """One sample after 45 minutes: three equal parts, none where none belongs."""
    start = NOW_S // HISTORY_SLOT_S * HISTORY_SLOT_S
    state, _ = _read(_begun(), 103_000.0, every_s=2700)

    assert [(slot[0] - start, round(slot[1])) for slot in state.history if slot[1]] == [
        (0, 1000),
        (900, 1000),
        (1800, 1000),
    ]


def test_a_session_of_weeks_keeps_its_whole_energy_in_bounded_history():
    """Four days in quarter hours; what is older is in the first of them."""
    state = _begun()
    state, _ = _read(state, *(100_000.0 + 100 * n for n in range(1, 600)), every_s=900)

    assert len(state.history) == HISTORY_MAX
    assert sum(slot[1] for slot in state.history) == pytest.approx(599 * 100)
    assert state.history[0][1] > 10_000


# --- power ------------------------------------------------------------------------


def test_power_is_derived_from_the_register_where_none_is_said():
    state, _ = _read(_begun(), 100_500.0)

    assert state.power_w == 30_000
    assert state.power_at == after(60)


def test_said_power_wins_over_derived_power():
    reading = MeterReading(after(60), register_wh=100_500.0, power_w=29_000.0)

    assert add_reading(_begun(), reading, rated_w=RATED_W)[0].power_w == 29_000


@pytest.mark.parametrize("power_w", [-1.0, 240_000.0, 1e9])
def test_a_power_that_cannot_be_is_named_and_not_believed(power_w):
    known, _ = add_reading(_begun(), MeterReading(after(1), power_w=5.0), rated_w=RATED_W)

    state, told = add_reading(
        known, MeterReading(after(2), power_w=power_w), rated_w=RATED_W
    )

    assert (state.power_w, state.power_at) == (5.0, after(1))
    assert "not plausible" in str(told)


def test_a_doubtful_register_says_nothing_about_power():
    state, _ = _read(_begun(), 100_500.0, 900_000.0)

    assert state.power_w == 30_000


def test_after_a_transaction_nothing_is_drawn():
    """MTR-12."""
    state = idle(_read(_begun(), 100_500.0)[0], after(90))

    assert (state.power_w, state.power_at, state.energy_wh) == (0.0, after(90), 500)


# --- state of charge --------------------------------------------------------------


def test_c8_zero_in_the_handshake_is_not_the_state_of_charge():
    state = _soc(_begun(), 0.0, 0.0, 42.0)

    assert (state.soc_percent, state.soc_first) == (42.0, 42.0)
    assert _soc(_begun(), 0.0).soc_percent is None


@pytest.mark.parametrize("value", [255.0, -1.0, 100.1])
def test_c8_a_state_of_charge_that_cannot_be_is_ignored(value):
    state = _soc(_begun(), 42.0, value)

    assert state.soc_percent == 42.0
    assert _soc(_begun(), value).soc_first is None


def test_zero_in_the_middle_is_ignored_and_an_empty_battery_is_not():
    assert _soc(_begun(), 42.0, 0.0, 0.0).soc_percent == 42.0
    assert _soc(_begun(), 3.0, 0.0).soc_percent == 0.0


def test_c8_a_drop_is_believed_when_it_is_said_twice():
    assert _soc(_begun(), 80.0, 30.0).soc_percent == 80.0
    assert _soc(_begun(), 80.0, 30.0, 31.0).soc_percent == 31.0
    assert _soc(_begun(), 80.0, 30.0, 81.0).soc_percent == 81.0
    assert _soc(_begun(), 80.0, 30.0, 81.0, 31.0).soc_percent == 81.0


def test_small_drops_are_normal():
    assert _soc(_begun(), 80.0, 76.0).soc_percent == 76.0


@quick
@given(st.lists(st.floats(-50, 300), max_size=20))
def test_the_first_state_of_charge_stays_and_the_last_is_in_range(values):
    state = _soc(_begun(), *values)
    good = [value for value in values if 0 < value <= 100]

    assert state.soc_percent is None or 0 <= state.soc_percent <= 100
    assert state.soc_first == (good[0] if good else None)


def test_only_a_believed_state_of_charge_becomes_history():
    """C8: ChargEye shall not read 255 %, nor a drop that never was."""
    state = _begun()
    for n, soc in enumerate([255.0, 50.0, 52.0, 20.0], 1):
        reading = MeterReading(after(n * 60), register_wh=100_000.0 + n, soc_percent=soc)
        state, _ = add_reading(state, reading, rated_w=RATED_W)

    assert [slot[2:] for slot in state.history] == [(50.0, 52.0)]


# --- settling ---------------------------------------------------------------------


def test_what_the_samples_missed_is_added_at_the_end():
    state, _ = _read(_begun(), 100_500.0)
    state = settle(state, 300.0, 100_800.0, after(90))

    assert state.energy_wh == 800
    assert state.register_wh == 100_800.0
    assert sum(slot[1] for slot in state.history) == pytest.approx(800)


def test_what_was_counted_too_much_is_taken_back_newest_first_and_never_below_zero():
    state, _ = _read(_begun(), 101_000.0, 102_000.0, every_s=900)
    state = settle(state, -1500.0, 100_500.0, after(1801))

    assert state.energy_wh == 500
    assert [round(slot[1]) for slot in state.history] == [500, 0, 0]


def test_more_than_everything_cannot_be_taken_back():
    state, _ = _read(_begun(), 100_500.0)
    state = settle(state, -9000.0, 91_500.0, after(90))

    assert state.energy_wh == 0
    assert sum(slot[1] for slot in state.history) == pytest.approx(0)
