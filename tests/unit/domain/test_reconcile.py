"""Wanted against installed limits: what may be drawn, what is sent, what is proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.curve import EVER_S, Curve, constant, curve, is_within, value_at
from agent.domain.ids import TransactionId
from agent.domain.reconcile import (
    RETRY_S,
    SPACING_S,
    OrderState,
    OutletPower,
    Sent,
    accepted,
    checked,
    doubted,
    least_installed,
    may_draw,
    next_order,
    ordered,
    refused,
    unanswered,
    wake_at,
)
from tests.support.properties import examples
from tests.unit.domain.build import NOW, NOW_S, after, curves, moments

quick = examples(100)
TX = TransactionId("41")
OTHER = TransactionId("42")


def _sent(allows: Curve | float, *, at=NOW, until_s: int = EVER_S, tx=TX) -> Sent:
    line = constant(allows) if isinstance(allows, float) else allows
    return Sent(transaction_id=tx, allows=line, exact_until_s=until_s, sent_at=at)


def _confirmed(allows: Curve | float, **more) -> OutletPower:
    sent = _sent(allows, **more)
    return accepted(ordered(OutletPower(), sent), sent, sent.sent_at)


def _draws(
    power: OutletPower,
    *,
    tx: TransactionId | None = TX,
    measured_w=0.0,
    fallback_w=0.0,
    online=False,
) -> Curve:
    return may_draw(
        power,
        transaction_id=tx,
        rated_w=150_000.0,
        fallback_w=fallback_w,
        is_connected=online,
        measured_w=measured_w,
        now_s=NOW_S,
    )


def _order(power, want: Curve | float, *, at_s: float = 0, room: bool = True, tx=TX):
    line = constant(want) if isinstance(want, float) else want
    held = may_draw(
        power,
        transaction_id=tx,
        rated_w=150_000.0,
        fallback_w=0.0,
        measured_w=0.0,
        now_s=NOW_S + int(at_s),
    )
    return next_order(
        power,
        line,
        transaction_id=tx,
        held=held,
        least=least_installed(power, tx, default_w=0.0, now_s=NOW_S + int(at_s)),
        room=room,
        now=after(at_s),
    )


# --- what may be drawn ------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "tx", "expected"),
    [
        (OutletPower(), None, 5000.0),
        (OutletPower(default_w=7000.0), None, 7000.0),
        (OutletPower(default_w=0.0), None, 0.0),
        (OutletPower(default_w=900_000.0), None, 150_000.0),
        (OutletPower(), TX, 150_000.0),
        (OutletPower(default_w=7000.0), TX, 7000.0),
        (OutletPower(default_w=0.0), TX, 0.0),
        (_confirmed(60_000.0), TX, 60_000.0),
        (_confirmed(60_000.0), None, 5000.0),
        (_confirmed(60_000.0), OTHER, 150_000.0),
        (replace(_confirmed(60_000.0), default_w=7000.0), OTHER, 7000.0),
        (ordered(_confirmed(60_000.0), _sent(90_000.0)), TX, 90_000.0),
        (ordered(_confirmed(60_000.0), _sent(20_000.0)), TX, 60_000.0),
    ],
)
def test_an_outlet_may_draw_what_is_installed_or_could_be(power, tx, expected):
    """No profile of this transaction: the default; no default: what it is rated for."""
    assert _draws(power, tx=tx, fallback_w=5000.0)[0][1] == expected


def test_an_outlet_that_does_not_follow_is_taken_at_its_rating():
    """B13.10: it may draw all that it can, or what it was seen to draw."""
    deaf = replace(_confirmed(20_000.0), verified=False)

    assert _draws(deaf, measured_w=70_000.0)[0][1] == 150_000.0
    assert _draws(deaf, measured_w=160_000.0)[0][1] == 160_000.0
    assert _draws(deaf, measured_w=10.0**7)[0][1] == pytest.approx(225_000.0)
    assert _draws(_confirmed(20_000.0), measured_w=70_000.0)[0][1] == 20_000.0


def test_the_default_of_the_next_vehicle_is_held_beside_any_profile():
    """It may start before we hear of it, and with the gateway gone nobody will."""
    power = replace(_confirmed(1000.0), default_w=7000.0)

    assert _draws(power)[0][1] == 7000.0


def test_a_connected_station_without_the_default_is_free_to_give_all():
    assert _draws(OutletPower(), tx=None, online=True)[0][1] == 150_000.0
    assert _draws(OutletPower(), tx=None, fallback_w=5000.0)[0][1] == 5000.0
    tried = OutletPower(default_w=2000.0, default_tried_w=9000.0)
    assert _draws(tried, tx=None, online=True)[0][1] == 9000.0


def test_a_reduction_counts_when_a_measurement_shows_it():
    """Issue 4: reductions are proved before anything is raised."""
    sent = _sent(20_000.0)
    power = accepted(ordered(_confirmed(90_000.0), sent), sent, NOW)

    assert _draws(power, measured_w=80_000.0)[0][1] == 80_000.0
    still = _checked_at(power, 70_000.0, 10)
    assert _draws(still, measured_w=70_000.0)[0][1] == 70_000.0
    down = _checked_at(power, 19_000.0, 20)
    assert _draws(down, measured_w=80_000.0)[0][1] == 20_000.0
    early = _checked_at(power, 19_000.0, -5)
    assert _draws(early, measured_w=80_000.0)[0][1] == 80_000.0


def test_a_refusal_says_nothing_about_an_order_that_was_not_answered():
    power = unanswered(ordered(_confirmed(20_000.0), _sent(90_000.0)), "time-out")
    power = refused(ordered(power, _sent(30_000.0)), "Rejected")

    assert _draws(power)[0][1] == 90_000.0


def _checked_at(power: OutletPower, measured_w: float, at_s: float) -> OutletPower:
    return checked(power, measured_w=measured_w, measured_at=after(at_s), transaction_id=TX)


@quick
@given(old=curves(), new=curves(), answer=st.sampled_from(["none", "silent", "twice"]))
def test_until_an_answer_is_read_the_higher_of_old_and_new_is_budgeted(old, new, answer):
    power = ordered(_confirmed(old), _sent(new))
    if answer == "silent":
        power = unanswered(power, "time-out")
    if answer == "twice":
        power = ordered(unanswered(power, "time-out"), _sent(constant(0.0)))

    for at_s in moments(old, new):
        expected = max(value_at(old, at_s), value_at(new, at_s))
        assert value_at(_draws(power), at_s) == expected


@quick
@given(old=curves(), new=curves())
def test_a_refused_order_leaves_the_old_limit(old, new):
    """PRF-12."""
    power = refused(ordered(_confirmed(old), _sent(new)), "Rejected")

    assert (power.order, power.failures, power.detail) == (
        OrderState.REFUSED,
        1,
        "Rejected",
    )
    for at_s in moments(old, new):
        assert value_at(_draws(power), at_s) == value_at(old, at_s)


@quick
@given(old=curves(), new=curves())
def test_an_accepted_order_replaces_the_old_limit_and_ends_all_doubt(old, new):
    power = unanswered(ordered(_confirmed(old), _sent(constant(10.0**6))), "silent")
    sent = _sent(new)

    power = accepted(ordered(power, sent), sent, NOW)

    assert (power.order, power.failures, power.doubtful) == (OrderState.CONFIRMED, 0, None)
    for at_s in moments(old, new):
        assert value_at(_draws(power), at_s) == value_at(new, at_s)


# --- what is sent -----------------------------------------------------------------


def test_a_limit_that_is_installed_is_not_sent_again():
    assert _order(_confirmed(60_000.0), 60_000.0, at_s=3600) is None


def test_the_first_limit_of_a_transaction_is_sent_at_once():
    order = _order(OutletPower(default_w=60_000.0), 60_000.0)

    assert order is not None
    assert "first" in order.reason


def test_a_limit_of_another_transaction_is_not_taken_for_this_ones():
    assert _order(_confirmed(60_000.0), 60_000.0, at_s=60, tx=OTHER) is not None


def test_a_raise_waits_for_its_spacing_and_a_reduction_does_not():
    power = _confirmed(60_000.0)

    assert _order(power, 90_000.0, at_s=SPACING_S - 1) is None
    raised = _order(power, 90_000.0, at_s=SPACING_S)
    lowered = _order(power, 20_000.0, at_s=1)

    assert raised is not None
    assert not raised.is_reduction
    assert lowered is not None
    assert lowered.is_reduction


@quick
@given(installed=curves(), want=curves())
def test_without_room_only_the_part_that_lowers_is_sent(installed, want):
    order = _order(_confirmed(installed), want, at_s=60, room=False)

    if order is None:
        assert is_within(installed, want, NOW_S + 60)
    else:
        assert is_within(order.line, installed, NOW_S + 60)
        assert is_within(order.line, want, NOW_S + 60)


@quick
@given(installed=curves(), want=curves())
def test_with_room_the_whole_of_what_is_wanted_is_sent(installed, want):
    order = _order(_confirmed(installed), want, at_s=60)

    if order is not None:
        assert order.line == want
        assert order.is_reduction is not is_within(installed, want, NOW_S + 60)
    else:
        assert is_within(installed, want, NOW_S + 60)
        assert is_within(want, installed, NOW_S + 60)


@pytest.mark.parametrize("fail", [refused, unanswered])
@pytest.mark.parametrize("failures", [1, 2, 3, 6, 9])
def test_a_failed_order_is_tried_again_after_waits_that_grow(fail, failures):
    """Even a reduction: the station has just shown that it does not take it."""
    power = _confirmed(60_000.0)
    for _ in range(failures):
        power = fail(ordered(power, _sent(20_000.0)), "no")
    wait_s = RETRY_S[min(failures, len(RETRY_S)) - 1]

    assert power.failures == failures
    assert _order(power, 20_000.0, at_s=wait_s - 0.5) is None
    assert _order(power, 20_000.0, at_s=wait_s) is not None


def test_silence_is_followed_up_even_when_the_old_limit_is_wanted_again():
    power = unanswered(ordered(_confirmed(60_000.0), _sent(90_000.0)), "silent")

    assert _order(power, 60_000.0, at_s=600) is not None


def test_c11_after_a_reboot_the_same_limit_is_confirmed_again_at_once():
    """B14, C11."""
    power = doubted(unanswered(_confirmed(60_000.0), "silent"))
    order = _order(power, 60_000.0, at_s=0.1)

    assert order is not None
    assert "again" in order.reason
    sent = _sent(60_000.0)
    assert _order(accepted(ordered(power, sent), sent, after(1)), 60_000.0, at_s=60) is None


def test_an_outlet_that_does_not_follow_shows_it_three_times_whatever_it_is_told():
    """A new limit does not shorten it: one sample may be a vehicle that wants little."""
    deaf = replace(_confirmed(60_000.0), verified=False, strikes=3)
    sent = _sent(40_000.0)
    power = accepted(ordered(deaf, sent), sent, after(10))
    heals_after = 0
    while power.verified is not True:
        heals_after += 1
        power = checked(
            power,
            measured_w=39_000.0,
            measured_at=after(110 + 30 * heals_after),
            transaction_id=TX,
        )

    assert heals_after == 3


def test_what_is_doubted_while_an_order_is_on_its_way_is_told_again():
    """A transaction resumes, or a station boots, between an order and its answer."""
    sent = _sent(60_000.0)
    power = accepted(doubted(ordered(_confirmed(90_000.0), sent)), sent, after(1))
    order = _order(power, 60_000.0, at_s=1.1)

    assert order is not None
    again = accepted(ordered(power, sent), sent, after(2))
    assert _order(again, 60_000.0, at_s=60) is None


def test_an_outlet_that_does_not_follow_is_told_again_after_two_minutes():
    deaf = replace(_confirmed(60_000.0), verified=False)

    assert _order(deaf, 60_000.0, at_s=119) is None
    assert _order(deaf, 60_000.0, at_s=120) is not None


def test_a_horizon_is_refreshed_when_half_of_it_is_over():
    line = curve([(NOW_S, 9000.0), (NOW_S + 1000, 2000.0)])
    power = _confirmed(line, until_s=NOW_S + 1000)
    longer = curve([(NOW_S, 9000.0), (NOW_S + 1000, 5000.0), (NOW_S + 2000, 2000.0)])

    assert _order(power, longer, at_s=499) is None
    order = _order(power, longer, at_s=500)

    assert order is not None
    assert "half over" in order.reason
    assert wake_at(power, after(300)) == 200
    assert wake_at(power, after(600)) == 400
    assert wake_at(power, after(1000)) == 0.5
    assert wake_at(_confirmed(line), NOW) is None
    assert wake_at(OutletPower(), NOW) is None


# --- what is proved ---------------------------------------------------------------


def _measure(power: OutletPower, *samples: tuple[float, float], tx=TX) -> OutletPower:
    for at_s, watt in samples:
        power = checked(power, measured_w=watt, measured_at=after(at_s), transaction_id=tx)
    return power


def test_three_samples_over_the_limit_and_the_outlet_counts_as_deaf():
    power = _confirmed(20_000.0)
    over = [(90.0, 30_000.0), (100.0, 30_000.0), (110.0, 30_000.0)]

    assert _measure(power, *over[:2]).verified is not False
    assert _measure(power, *over).verified is False


def test_samples_before_the_limit_could_act_prove_nothing():
    power = _confirmed(20_000.0)
    early = [(n * 10.0, 100_000.0) for n in range(9)]

    assert _measure(power, *early) == power
    assert _measure(power, (10.0, 1000.0)).verified is None


def test_five_percent_and_half_a_kilowatt_are_the_meter():
    power = _confirmed(20_000.0)

    assert _measure(power, (100.0, 21_500.0)).verified is True
    assert _measure(power, (100.0, 21_501.0)).strikes == 1


def test_a_good_sample_clears_the_strikes():
    power = _measure(_confirmed(20_000.0), (90.0, 3e4), (100.0, 3e4), (110.0, 0.0))

    assert (power.strikes, power.verified) == (0, True)
    assert _measure(power, (120.0, 3e4), (130.0, 3e4)).verified is True


def test_a_deaf_outlet_that_follows_again_is_trusted_again():
    deaf = _measure(_confirmed(2e4), (90.0, 3e4), (100.0, 3e4), (110.0, 3e4))

    good = [(120.0, 19_000.0), (130.0, 18_000.0), (140.0, 19_000.0)]
    assert _measure(deaf, *good[:2]).verified is False
    assert _measure(deaf, *good).verified is True
    relapsed = _measure(deaf, *good[:2], (135.0, 3e4), (140.0, 1e4), (150.0, 1e4))
    assert relapsed.verified is False


def test_repeating_the_order_does_not_make_a_deaf_outlet_hear():
    deaf = _measure(_confirmed(2e4), (90.0, 3e4), (100.0, 3e4), (110.0, 3e4))

    again = accepted(deaf, _sent(2e4, at=after(120)), after(120))
    lower = accepted(deaf, _sent(1e4, at=after(120)), after(120))

    assert again.verified is False
    assert lower.verified is False


def test_a_new_limit_is_not_proved_by_the_old_one():
    power = _measure(_confirmed(2e4), (100.0, 1000.0))

    assert power.verified is True
    assert accepted(power, _sent(1e4, at=after(200)), after(200)).verified is None


def test_a_measurement_of_another_transaction_is_not_held_against_this_limit():
    power = _confirmed(2e4)

    assert _measure(power, (100.0, 9e4), tx=OTHER) == power
    assert _measure(OutletPower(), (100.0, 9e4)) == OutletPower()


def test_a_step_down_in_the_curve_has_its_settle_time_too():
    power = _confirmed(curve([(NOW_S, 5e4), (NOW_S + 600, 1e4)]))
    ramp = [(610.0 + 10 * n, 5e4) for n in range(8)]

    assert _measure(power, *ramp).verified is not False
    assert _measure(power, *[(690.0 + 10 * n, 5e4) for n in range(3)]).verified is False


def test_the_next_transaction_has_its_own_settle_time():
    """The same limit, but the vehicle was charging under the default until now."""
    power = _confirmed(2e4)
    sent = _sent(2e4, at=after(3600), tx=OTHER)

    power = accepted(ordered(power, sent), sent, after(3600))
    power = _measure(power, *[(3610.0 + 10 * n, 6e4) for n in range(4)], tx=OTHER)

    assert power.verified is None
    assert power.strikes == 0


def test_a_refresh_just_after_a_step_does_not_cut_its_settle_time_short():
    power = _confirmed(curve([(NOW_S, 5e4), (NOW_S + 600, 1e4)]))
    sent = _sent(curve([(NOW_S + 605, 1e4), (NOW_S + 7200, 2e4)]), at=after(605))

    power = accepted(ordered(power, sent), sent, after(605))
    power = _measure(power, *[(615.0 + 10 * n, 5e4) for n in range(5)])

    assert power.verified is not False


@quick
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 60_000)), min_size=1, max_size=12)
)
def test_an_outlet_is_deaf_just_when_three_samples_in_a_row_were_over(steps):
    samples, at_s = [], 90.0
    for gap, watt in steps:
        at_s += gap
        samples.append((at_s, watt))
    power, run, good, is_deaf = _confirmed(2e4), 0, 0, False

    for sample in samples:
        power = _measure(power, sample)
        is_over = sample[1] > 2e4 * 1.05 + 500
        run, good = (run + 1, 0) if is_over else (0, good + 1)
        is_deaf = run >= 3 or (is_deaf and good < 3)
        assert (power.verified is False) is is_deaf


def test_a_trifling_raise_waits_a_minute_and_a_reduction_never():
    power = _confirmed(50_000.0)

    assert _order(power, 50_900.0, at_s=30) is None
    assert _order(power, 50_900.0, at_s=61) is not None
    assert _order(power, 55_000.0, at_s=30) is not None
    assert _order(power, 49_900.0, at_s=1) is not None
