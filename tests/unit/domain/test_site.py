"""The load that nobody steers: never too low while it matters, never made up for long."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import site
from agent.domain.site import SiteLoad, SiteRules, SiteSeen, SiteState

CAP_W = 150_000.0
RULES = SiteRules(unmanaged_max_w=100_000.0, confirm_s=60.0)
watts = st.floats(min_value=0, max_value=200_000)


def seen(
    at_s: float, total_w: float, *, said_w: float = 0.0, may_w: float = 0.0
) -> SiteSeen:
    return SiteSeen(
        at_s=at_s,
        total_w=total_w,
        cap_w=CAP_W,
        reported_w=said_w,
        least_w=said_w,
        possible_w=max(may_w, said_w),
    )


def fed(*readings: SiteSeen, rules: SiteRules = RULES) -> SiteState:
    state = SiteState()
    for item in readings:
        state = site.take(state, item, rules)
    return state


def counted(state: SiteState, now_s: float, rules: SiteRules = RULES) -> float:
    return site.unmanaged_w(state, rules, now_s)[0]


def test_what_charging_does_not_explain_counts_with_a_margin() -> None:
    state = fed(seen(0, 90_000, said_w=60_000))

    assert site.unmanaged_w(state, RULES, 5) == (31_500.0, True)


def test_the_worst_of_a_quarter_of_an_hour_counts_then_it_falls() -> None:
    high, low = seen(0, 40_000), [seen(at, 10_000) for at in range(5, 1800, 5)]
    state = fed(high, *low[:170])
    assert counted(state, 855) == 42_000
    assert counted(fed(high, *low), 1795) == 10_500


def test_a_bus_that_starts_is_no_load_until_its_station_had_time_to_report() -> None:
    """60 kW more are explained by an outlet that may draw 80; the report comes later."""
    quiet = [seen(at, 20_000, may_w=80_000) for at in range(0, 60, 5)]
    ramp = [seen(at, 80_000, may_w=80_000) for at in range(60, 105, 5)]
    after = [seen(at, 80_000, said_w=60_000, may_w=80_000) for at in range(105, 300, 5)]

    assert counted(fed(*quiet, *ramp), 105) == 21_000
    assert counted(fed(*quiet, *ramp, *after), 300) == 21_000


def test_a_load_beyond_what_outlets_may_draw_counts_at_once() -> None:
    before = seen(0, 20_000, may_w=60_000)

    assert counted(fed(before, seen(5, 130_000, may_w=60_000)), 5) == 73_500


def test_over_the_cap_the_excess_is_taken_from_what_outlets_may_draw_at_once() -> None:
    """Stations that have reported nothing yet are not cut to nothing for it."""
    calm = [seen(at, 60_000, may_w=90_000) for at in range(0, 60, 5)]
    state = fed(*calm, seen(60, CAP_W + 20_000, may_w=90_000))

    assert counted(state, 60) == pytest.approx(80_000 * 1.05)


def test_over_the_cap_for_long_all_that_stations_do_not_account_for_counts() -> None:
    """D3.8: not what may be explained, but what is."""
    calm = [seen(at, 60_000, said_w=50_000, may_w=90_000) for at in range(0, 60, 5)]
    high = [seen(at, CAP_W + 1000, said_w=50_000, may_w=90_000) for at in (60, 65, 70)]
    last = seen(75, CAP_W + 1000, said_w=50_000, may_w=90_000)

    assert counted(fed(*calm, *high), 70) == pytest.approx(61_000 * 1.05)
    assert counted(fed(*calm, *high, last), 75) == pytest.approx(101_000 * 1.05)


def test_a_load_that_lasts_counts_although_it_could_be_charging() -> None:
    rise = [seen(at, 70_000, said_w=20_000, may_w=60_000) for at in range(0, 65, 5)]

    assert counted(fed(*rise), 60) == 52_500


def test_feeding_in_gives_charging_no_room() -> None:
    state = fed(seen(0, -30_000), rules=replace(RULES, pv_max_w=50_000))

    assert counted(state, 0) == 0


def test_a_meter_of_the_other_load_alone_needs_no_word_of_stations() -> None:
    rules = replace(RULES, includes_charging=False)

    assert counted(fed(seen(0, 40_000, said_w=60_000), rules=rules), 1, rules) == 42_000


@pytest.mark.parametrize("now_s", [61.0, -5.0, 1e6])
def test_a_stale_meter_or_one_of_tomorrow_means_the_static_assumption(now_s: float) -> None:
    assert site.unmanaged_w(fed(seen(0, 10_000)), RULES, now_s) == (100_000.0, False)


def test_a_load_above_the_assumption_is_not_forgotten_when_the_meter_is_lost() -> None:
    assert site.unmanaged_w(fed(seen(0, 120_000)), RULES, 500) == (126_000.0, False)


def test_no_reading_at_all_means_the_static_assumption() -> None:
    assert site.unmanaged_w(SiteState(), RULES, 0) == (100_000.0, False)


def test_a_clock_set_back_neither_loses_a_peak_nor_keeps_it_for_ever() -> None:
    state = fed(seen(10_000, 80_000), seen(5, 10_000))
    assert counted(state, 5) == 84_000
    state = fed(seen(10_000, 80_000), *(seen(at, 10_000) for at in range(5, 1000, 5)))
    assert counted(state, 995) == 10_500


@pytest.mark.parametrize(
    ("total_w", "rules", "word"),
    [
        (math.nan, RULES, "number"),
        (math.inf, RULES, "number"),
        (-20_000.0, RULES, "feed-in"),
        (-60_000.0, replace(RULES, pv_max_w=50_000.0), "feed-in"),
        (-1000.0, replace(RULES, includes_charging=False), "sign"),
        (CAP_W * 11, RULES, "unit"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    total_w: float, rules: SiteRules, word: str
) -> None:
    assert word in (site.problem_of(total_w, rules, CAP_W) or "")


def test_values_of_a_depot_with_solar_power_are_plausible() -> None:
    rules = replace(RULES, pv_max_w=50_000.0)

    for total_w in (-45_000.0, 0.0, CAP_W * 2):
        assert site.problem_of(total_w, rules, CAP_W) is None


def test_more_counts_at_once_and_less_when_it_is_worth_it_or_a_minute_old() -> None:
    def after(total_w: float, now_s: float, old: SiteLoad) -> SiteLoad:
        state = fed(seen(now_s, total_w))
        return site.decide(old, state, RULES, now_s=now_s, cap_w=CAP_W)

    old = site.decide(None, fed(seen(0, 40_000)), RULES, now_s=0, cap_w=CAP_W)

    assert after(41_000, 5, old).unmanaged_w == 43_050
    assert after(39_000, 5, old).unmanaged_w == 42_000
    assert after(39_000, 61, old).unmanaged_w == 40_950
    assert after(30_000, 5, old).unmanaged_w == 31_500


def test_words_name_the_meter_or_why_it_does_not_count() -> None:
    fresh = site.decide(None, fed(seen(0, 40_000)), RULES, now_s=0, cap_w=CAP_W)
    stale = site.decide(
        fresh, fed(seen(0, 40_000)), RULES, now_s=90, cap_w=CAP_W, trouble="it is empty"
    )

    assert "40.0 kW" in fresh.words
    assert "42.0 kW" in fresh.words
    assert "it is empty" in stale.words
    assert "100.0 kW" in stale.words
    assert (stale.is_measured, stale.total_w) == (False, None)


def test_w6_a_station_that_reports_too_little_is_told_after_five_minutes() -> None:
    """W6: 140 kW at the meter, at most 100 of them the building, 20 reported."""
    rows = [seen(at, 140_000, said_w=20_000) for at in range(0, 305, 5)]

    assert not site.has_disagreed_long(fed(*rows[:60]), 295)
    assert site.has_disagreed_long(fed(*rows), 300)
    assert "too little" in (site.disagreement(rows[0], RULES) or "")


def test_stations_that_report_more_than_the_meter_are_told_unless_the_sun_explains_it() -> (
    None
):
    row = seen(0, 40_000, said_w=60_000)

    assert "does not measure them all" in (site.disagreement(row, RULES) or "")
    assert site.disagreement(row, replace(RULES, pv_max_w=20_000)) is None


def test_one_reading_that_agrees_begins_the_five_minutes_anew() -> None:
    odd = [seen(at, 140_000, said_w=20_000) for at in range(0, 600, 5)]
    odd[50] = seen(250, 100_000, said_w=20_000)

    assert not site.has_disagreed_long(fed(*odd[:100]), 495)


@given(st.lists(st.tuples(watts, watts, watts), min_size=1, max_size=60))
def test_it_is_never_negative_and_covers_what_is_certain(
    rows: list[tuple[float, float, float]],
) -> None:
    """The cap less the count, filled by all that may draw, is under the cap as metered."""
    state = SiteState()
    for number, (total_w, said_w, more_w) in enumerate(rows):
        item = seen(number * 5.0, total_w, said_w=said_w, may_w=said_w + more_w)
        state = site.take(state, item, RULES)
        load_w = counted(state, item.at_s)
        assert load_w >= 0
        assert load_w >= total_w - item.possible_w
        if state.over_since_s is not None and item.at_s - state.over_since_s >= 15:
            assert load_w >= total_w - said_w
    assert len(state.peaks) <= len(rows) * 2
    assert len(state.rests) <= 60 / 5


@given(st.lists(watts, min_size=20, max_size=60), st.floats(0, 900))
def test_a_longer_memory_never_counts_less(rows: list[float], later_s: float) -> None:
    """What was certain within the window still counts, whatever came after it."""
    readings = [seen(number * 5.0, total_w) for number, total_w in enumerate(rows)]
    end_s = readings[-1].at_s

    assert counted(fed(*readings), end_s) >= max(rows)
    assert site.unmanaged_w(fed(*readings), RULES, end_s + 61 + later_s)[0] >= max(rows)
