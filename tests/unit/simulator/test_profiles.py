"""Charging profiles of OCPP 1.6: who rules when, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.simulator.clock import stamp
from agent.simulator.profile_rules import Running
from agent.simulator.profiles import ProfileOptions, ProfileStore

T0 = datetime(2026, 11, 21, 18, tzinfo=UTC)
RUNNING = Running(start=T0, transaction_id=7)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def a_profile(
    *periods: tuple[int, float],
    purpose: str = "TxDefaultProfile",
    kind: str = "Absolute",
    level: int = 0,
    unit: str = "W",
    **changes: Any,
) -> dict[str, Any]:
    """Build a profile; `duration` and `startSchedule` go into its schedule."""
    schedule: dict[str, Any] = {
        "chargingRateUnit": unit,
        "chargingSchedulePeriod": [
            {"startPeriod": start, "limit": limit} for start, limit in periods
        ],
    }
    if kind != "Relative":
        schedule["startSchedule"] = stamp(T0)
    for name in ("duration", "startSchedule"):
        if name in changes:
            schedule[name] = changes.pop(name)
    body = {
        "chargingProfileId": 1 + level + 100 * len(purpose),
        "stackLevel": level,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": kind,
        "chargingSchedule": schedule,
    }
    if purpose == "TxProfile":
        body["transactionId"] = 7
    return {**body, **changes}


def a_store(*placed: tuple[int, dict[str, Any]], **options: Any) -> ProfileStore:
    store = ProfileStore(ProfileOptions(**options))
    for connector, body in placed:
        assert store.set_profile(connector, body, T0, 7) == "Accepted", store.last_refusal
    return store


def limits(store: ProfileStore, *seconds: float, connector: int = 1) -> list[float | None]:
    return [store.limit_w(connector, after(each), RUNNING) for each in seconds]


def test_without_profiles_there_is_no_limit():
    """An empty station charges as it can."""
    assert limits(a_store(), 0, 3600) == [None, None]


def test_the_highest_stack_level_rules_while_it_lasts():
    """Level 1 with a duration lets level 0 through when it is over."""
    store = a_store(
        (1, a_profile((0, 11_000.0))),
        (1, a_profile((0, 5_000.0), level=1, duration=600)),
    )

    assert limits(store, 0, 599, 600) == [5_000, 5_000, 11_000]


def test_validity_is_looked_at_at_each_instant():
    """A profile not yet valid, or no longer, leaves the lower level alone."""
    upper = a_profile(
        (0, 5_000.0), level=1, validFrom=stamp(after(100)), validTo=stamp(after(200))
    )
    store = a_store((1, a_profile((0, 11_000.0))), (1, upper))

    assert limits(store, 99, 100, 199, 200) == [11_000, 5_000, 5_000, 11_000]


def test_without_duration_the_last_period_goes_on_for_ever():
    """A day later the last limit still holds."""
    store = a_store((1, a_profile((0, 11_000.0), (60, 7_000.0))))

    assert limits(store, 59, 60, 86_400) == [11_000, 7_000, 7_000]


def test_a_transaction_profile_overrules_the_default_until_it_expires():
    """Even a higher limit overrules; when it is over the default is back."""
    store = a_store(
        (0, a_profile((0, 6_000.0))),
        (1, a_profile((0, 50_000.0), purpose="TxProfile", duration=60)),
    )

    assert limits(store, 0, 60) == [50_000, 6_000]


def test_the_station_maximum_caps_whatever_else_rules():
    """The lower of the two purposes holds."""
    store = a_store(
        (0, a_profile((0, 20_000.0), purpose="ChargePointMaxProfile")),
        (1, a_profile((0, 50_000.0), purpose="TxProfile")),
    )

    assert limits(store, 0) == [20_000]
    assert limits(store, 0, connector=0) == [20_000]


def test_a_default_for_the_connector_overrides_that_for_the_station():
    """Connector 1 has its own; connector 2 takes that of connector 0."""
    store = a_store((0, a_profile((0, 6_000.0))), (1, a_profile((0, 9_000.0), level=3)))

    assert limits(store, 0, connector=1) == [9_000]
    assert limits(store, 0, connector=2) == [6_000]


def test_amperes_are_per_phase_and_more_phases_do_not_rescale():
    """16 A on three phases is 11040 W, on one phase 3680 W."""
    store = a_store((1, a_profile((0, 16.0), unit="A")))

    assert store.limit_w(1, T0, RUNNING, phases=3) == 11_040
    assert store.limit_w(1, T0, RUNNING, phases=1) == 3_680


def test_a_relative_profile_counts_from_the_start_of_the_transaction():
    """Its second period begins an hour into the transaction."""
    store = a_store((1, a_profile((0, 9_000.0), (3600, 3_000.0), kind="Relative")))

    assert limits(store, 3599, 3600) == [9_000, 3_000]


def test_a_daily_profile_returns_every_day():
    """Two hours at 18:00, each day, nothing between."""
    body = a_profile((0, 9_000.0), kind="Recurring", recurrencyKind="Daily", duration=7_200)
    store = a_store((1, body))

    assert limits(store, 7_199, 7_200, 86_400, 93_599, 93_600) == [
        9_000,
        None,
        9_000,
        9_000,
        None,
    ]


def test_same_level_purpose_and_connector_replaces_and_so_does_the_same_id():
    """One profile remains in each case, the newer."""
    by_level = a_store(
        (1, a_profile((0, 9_000.0), chargingProfileId=1)),
        (1, a_profile((0, 4_000.0), chargingProfileId=2)),
    )
    by_id = a_store(
        (1, a_profile((0, 9_000.0), chargingProfileId=1)),
        (1, a_profile((0, 4_000.0), chargingProfileId=1, level=4)),
    )

    assert (len(by_level.installed), limits(by_level, 0)) == (1, [4_000])
    assert (len(by_id.installed), limits(by_id, 0)) == (1, [4_000])


def test_a_refused_replacement_leaves_the_old_profile_running():
    """Rejected changes nothing."""
    store = a_store((1, a_profile((0, 9_000.0))))
    status = store.set_profile(1, a_profile((5, 4_000.0)), T0, 7)

    assert status == "Rejected"
    assert limits(store, 0) == [9_000]


@pytest.mark.parametrize(
    ("connector", "body", "why"),
    [
        (1, a_profile((5, 4_000.0)), "first startPeriod"),
        (1, a_profile((0, 1.0), (9, 2.0), (9, 3.0)), "ascend"),
        (1, a_profile((0, 10.14)), "one decimal"),
        (1, a_profile((0, -1.0)), "0 or more"),
        (1, a_profile(), "periods"),
        (0, a_profile((0, 1.0), purpose="TxProfile"), "connector 0"),
        (1, a_profile((0, 1.0), purpose="TxProfile", transactionId=8), "transaction 8"),
        (1, a_profile((0, 1.0), purpose="ChargePointMaxProfile"), "connector 1"),
        (1, a_profile((0, 1.0), kind="Recurring"), "recurrencyKind"),
        (1, a_profile((0, 1.0), level=3), "stackLevel 3"),
        (1, a_profile((0, 1.0), (1, 2.0), (2, 3.0), (3, 3.0)), "4 periods"),
        (1, a_profile((0, 1.0), unit="A"), "limits in A"),
        (1, a_profile((0, 1.0), startSchedule="soon"), "startSchedule"),
        (1, a_profile((0, 1.0), kind="Relative", startSchedule=stamp(T0)), "Relative"),
        (1, {}, "chargingProfilePurpose"),
    ],
)
def test_what_breaks_a_rule_is_rejected(connector: int, body: Any, why: str):
    """Each rule of a strict station, with the reason it notes."""
    store = a_store(max_stack_level=2, max_periods=3, allowed_units=frozenset({"Power"}))

    assert store.set_profile(connector, body, T0, 7) == "Rejected"
    assert why in store.last_refusal


def test_an_absolute_profile_needs_a_start_and_a_running_transaction_its_profile():
    """No startSchedule, and no transaction, are both rejected."""
    body = a_profile((0, 1.0))
    del body["chargingSchedule"]["startSchedule"]
    store = a_store()

    assert store.set_profile(1, body, T0, 7) == "Rejected"
    assert store.set_profile(1, a_profile((0, 1.0), purpose="TxProfile"), T0) == "Rejected"


def test_no_more_profiles_than_there_is_room_for():
    """The third is rejected until one has expired."""
    store = a_store(
        (1, a_profile((0, 1.0), validTo=stamp(after(60)))),
        (1, a_profile((0, 1.0), level=1)),
        max_profiles=2,
    )

    assert store.set_profile(1, a_profile((0, 1.0), level=2), T0) == "Rejected"
    assert store.set_profile(1, a_profile((0, 1.0), level=2), after(61)) == "Accepted"


def test_clearing_goes_by_id_or_by_all_that_is_given():
    """An id outweighs the rest; nothing found is Unknown."""
    store = a_store((1, a_profile((0, 1.0), chargingProfileId=5)), (2, a_profile((0, 1.0))))

    assert store.clear(connector=2, stack_level=1) == "Unknown"
    assert store.clear(profile_id=5, connector=9) == "Accepted"
    assert store.clear(purpose="TxDefaultProfile", connector=2) == "Accepted"
    assert store.clear() == "Unknown"


def test_the_end_of_a_transaction_deletes_its_profiles_only():
    """The default stays."""
    store = a_store((1, a_profile((0, 1.0))), (1, a_profile((0, 2.0), purpose="TxProfile")))
    store.end_transaction(1)

    assert [each.profile.purpose for each in store.installed] == ["TxDefaultProfile"]


def test_a_composite_in_amperes_is_per_phase_with_one_decimal():
    """10 kW on three phases is 14.4 A, rounded down."""
    store = a_store((1, a_profile((0, 10_000.0))))
    schedule = store.composite(1, 60, "A", T0, RUNNING, rated_w=150_000)

    assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 14.4}]


PERIODS = st.lists(st.tuples(st.integers(1, 4_000), st.integers(0, 2_000)), max_size=4).map(
    lambda rows: sorted({0: 500, **dict(rows)}.items())
)
MOMENTS = st.none() | st.integers(-3_000, 6_000)


@st.composite
def placed_profiles(draw: st.DrawFn) -> tuple[int, dict[str, Any]]:
    purpose = draw(
        st.sampled_from(["ChargePointMaxProfile", "TxDefaultProfile", "TxProfile"])
    )
    kinds = ["Absolute", "Recurring", "Relative"]
    kind = draw(st.sampled_from(kinds[:2] if purpose[0] == "C" else kinds))
    extra: dict[str, Any] = {"chargingProfileId": draw(st.integers(1, 9))}
    if kind == "Recurring":
        extra["recurrencyKind"] = "Daily"
    if kind != "Relative":
        start_s = draw(st.integers(-90_000, 4_000))
        extra["startSchedule"] = stamp(after(start_s))
    if draw(st.booleans()):
        extra["duration"] = draw(st.integers(0, 5_000))
    for name in ("validFrom", "validTo"):
        moment = draw(MOMENTS)
        if moment is not None:
            extra[name] = stamp(after(moment + draw(st.sampled_from([0, 0.25]))))
    body = a_profile(
        *[(start, limit / 10) for start, limit in draw(PERIODS)],
        purpose=purpose,
        kind=kind,
        level=draw(st.integers(0, 2)),
        **extra,
    )
    connector = {"C": 0, "TxP": 1}.get(purpose[:3] if purpose[0] == "T" else "C")
    return (draw(st.integers(0, 1)) if connector is None else connector), body


@given(st.lists(placed_profiles(), max_size=6), st.integers(0, 4_000))
def test_the_composite_is_the_limit_at_every_second(
    placed: list[tuple[int, dict[str, Any]]], start_s: int
) -> None:
    """Whatever is installed, the composite says what limit_w says."""
    store = ProfileStore()
    for connector, body in placed:
        assert store.set_profile(connector, body, after(-9_000), 7) == "Accepted"
    now = after(start_s)
    schedule = store.composite(1, 3_000, "W", now, RUNNING, rated_w=150.0)
    periods = schedule["chargingSchedulePeriod"]

    assert periods[0]["startPeriod"] == 0
    near = {s + d for p in periods for s in [p["startPeriod"]] for d in (-1, 0, 1)}
    for offset_s in sorted({*range(0, 3_000, 97), *near} & set(range(3_000))):
        said = [p["limit"] for p in periods if p["startPeriod"] <= offset_s][-1]
        limit_w = store.limit_w(1, now + timedelta(seconds=offset_s), RUNNING)
        assert said == min(150.0, 150.0 if limit_w is None else limit_w)
