"""Efficiency is learned slowly, from plausible samples under load, and bounded."""

from __future__ import annotations

import random

import pytest

from agent.domain.efficiency import SAMPLES_MIN, Efficiency, learn, used, words
from tests.unit.domain.build import NOW, after

RATED_W = 150_000.0


def taught(ratios, *, outlet_w=100_000.0):
    known = None
    for number, ratio in enumerate(ratios):
        known = learn(
            known,
            outlet_w=outlet_w,
            inlet_w=outlet_w / ratio,
            rated_w=RATED_W,
            at=after(number * 60),
        )
    return known


def test_nothing_counts_before_enough_was_seen():
    early = taught([0.90] * (SAMPLES_MIN - 1))
    enough = taught([0.90] * SAMPLES_MIN)

    assert used(0.94, None) == used(0.94, early) == 0.94
    assert used(0.94, enough) == pytest.approx(0.90)
    assert not words(0.94, early)
    assert "0.900 was measured (0.940 configured)" in words(0.94, enough)


def test_a_station_that_is_better_than_configured_keeps_the_configured_share():
    assert used(0.94, taught([0.97] * 100)) == 0.94


def test_it_is_bounded_on_both_sides():
    assert taught([0.72] * 100).learned == 0.80
    assert taught([1.0] * 100).learned == 0.99


@pytest.mark.parametrize(
    ("outlet_w", "inlet_w"),
    [(29_000.0, 32_000.0), (100_000.0, 0.0), (100_000.0, 90_000.0), (60_000.0, 150_000.0)],
    ids=["light load", "no inlet", "more out than in", "of two outlets"],
)
def test_samples_that_tell_nothing_change_nothing(outlet_w, inlet_w):
    known = taught([0.93] * 30)
    again = learn(known, outlet_w=outlet_w, inlet_w=inlet_w, rated_w=RATED_W, at=NOW)

    assert again is known


def test_noise_of_two_meters_averages_out_and_one_sample_moves_little():
    chance = random.Random(3)
    noisy = taught([0.93 * chance.uniform(0.97, 1.03) for _ in range(400)])
    known = Efficiency(mean=0.93, samples=100, at=NOW)
    moved = learn(known, outlet_w=80_000.0, inlet_w=100_000.0, rated_w=RATED_W, at=NOW)

    assert noisy.learned == pytest.approx(0.93, abs=0.01)
    assert moved is not None
    assert moved.mean == pytest.approx(0.9235)
