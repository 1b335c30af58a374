"""When a car's limit is changed, and what vehicles of some makes cannot be told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import car_care
from agent.domain.car_care import (
    MAKE_RULES,
    Care,
    CarSight,
    LimitHold,
    LimitRules,
    MakeRule,
    limit_wanted,
    why_not,
)
from agent.domain.ids import SessionId
from agent.domain.soc import Soc, SocSource
from tests.unit.domain.build import NOW, after

CARE = LimitRules(care_percent=80)
percents = st.floats(0, 100)


@pytest.mark.parametrize(
    ("current", "target", "rules", "wanted"),
    [
        (80, 80, LimitRules(), None),
        (80, 95, LimitRules(), 95),
        (80, 94.2, LimitRules(), 95),
        (50, None, LimitRules(), None),
        (60, None, LimitRules(min_percent=70), 70),
        (100, 60, CARE, 80),
        (100, 90, CARE, 90),
        (70, 60, CARE, None),
        (100, 60, LimitRules(max_percent=85), 85),
        (80, 100, LimitRules(max_percent=90), 90),
        (100, None, LimitRules(), None),
        (80, 30, LimitRules(), None),
    ],
)
def test_a_limit_is_changed_only_where_plan_operator_or_battery_want_it(
    current: float, target: float | None, rules: LimitRules, wanted: float | None
) -> None:
    """At or above the plan's target, within the operator's bounds, else left alone."""
    assert limit_wanted(current, target, rules) == wanted


@given(
    percents,
    st.none() | percents,
    st.builds(
        LimitRules,
        min_percent=st.floats(50, 100),
        max_percent=st.floats(50, 100),
        care_percent=st.none() | st.floats(50, 100),
    ),
)
def test_what_is_set_once_is_good_afterwards(
    current: float, target: float | None, rules: LimitRules
) -> None:
    """No flutter, nothing outside of what a limit can be, never below the target."""
    wanted = limit_wanted(current, target, rules)
    if wanted is None:
        return

    assert 50 <= wanted <= 100
    assert wanted == int(wanted)
    assert wanted >= min(target or 0, rules.max_percent)
    again = limit_wanted(wanted, target, rules)
    assert again is None or abs(again - wanted) < 1


@pytest.mark.parametrize(
    ("make", "is_start", "soc", "timers", "may"),
    [
        ("Ford", True, 60.0, None, False),
        ("LINCOLN", True, 60.0, True, False),
        ("ford", True, 60.0, False, True),
        ("Ford", False, 60.0, True, True),
        ("Polestar", False, 39.0, None, False),
        ("Polestar", False, 41.0, None, True),
        ("Polestar", False, None, None, False),
        ("Polestar", True, 10.0, None, True),
        ("Chevrolet", True, 49.0, None, False),
        ("GMC", False, 51.0, None, True),
        ("Nissan", False, 80.0, None, False),
        ("Nissan", True, 80.0, None, True),
        ("Volvo", True, None, None, True),
        ("", False, None, None, True),
    ],
)
def test_makes_that_cannot_be_told_are_not(
    *, make: str, is_start: bool, soc: float | None, timers: bool | None, may: bool
) -> None:
    """As their documentation says."""
    found = why_not(MAKE_RULES, make, is_start=is_start, soc_percent=soc, has_timers=timers)

    assert (found is None) is may


def test_a_rule_of_the_configuration_comes_first() -> None:
    """An operator may know better."""
    mine = MakeRule(makes=frozenset({"FORD"}))

    assert why_not((mine, *MAKE_RULES), "Ford", is_start=True, soc_percent=None) is None


def test_a_limit_that_lags_behind_the_command_is_no_fight() -> None:
    """Signals of before the change say nothing about it."""
    hold = LimitHold(
        session_id=SessionId("S"), vehicle_id="v", original=80, set_to=95, set_at=NOW
    )
    step = car_care.limit_step(
        hold, seen=80, recorded_at=after(-60), target_percent=95, rules=LimitRules()
    )

    assert step.percent is None
    assert step.hold == hold


def test_a_later_plan_that_wants_more_raises_our_own_limit() -> None:
    """That is no fight either: the driver's own stays the one to put back."""
    hold = LimitHold(
        session_id=SessionId("S"), vehicle_id="v", original=80, set_to=90, set_at=NOW
    )
    step = car_care.limit_step(
        hold, seen=90, recorded_at=after(400), target_percent=97, rules=LimitRules()
    )

    assert step.percent == 97
    assert step.hold is not None
    assert step.hold.original == 80
    assert step.hold.resets == 0


def sight(**more: object) -> CarSight:
    given: dict[str, object] = {
        "plugged_at": NOW,
        "matched_at": NOW,
        "station_soc": False,
        "is_charging": True,
        "target_percent": 80.0,
    }
    return CarSight(**(given | more))  # type: ignore[arg-type]


def test_an_estimate_that_became_uncertain_is_read_before_the_middle() -> None:
    """Drift: more than a few points of doubt."""
    care = Care(
        session_id=SessionId("S"), reads=1, first_read_at=NOW, is_fresh=True, base_soc=20
    )

    def reason(percent: float, confidence: float) -> object:
        found = Soc(
            percent=percent,
            source=SocSource.ESTIMATE,
            measured_at=NOW,
            confidence=confidence,
        )
        return car_care.next_read(care, sight(soc=found), after(3600))

    assert reason(30, 2) is None
    assert reason(30, car_care.DRIFT_POINTS + 0.1) is car_care.ReadReason.MIDDLE
    assert reason(51, 2) is car_care.ReadReason.MIDDLE


def test_never_more_than_five_reads_whatever_happens() -> None:
    """The budget of a session."""
    care = Care(session_id=SessionId("S"))
    now = NOW
    for _ in range(2000):
        now += timedelta(seconds=60)
        reason = car_care.next_read(care, sight(stopped_at=after(4000)), now)
        if reason is None:
            continue
        care = car_care.after_fault(
            care, reason, retryable=True, retry_after_s=None, now=now
        )

    assert care.reads <= car_care.READS_MAX
