"""Requests never pass their budgets, whatever the clock does; waits are never shortened."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.domain import budget
from agent.domain.budget import Account, BudgetRules, BudgetSpent, CarBudget, Kind

NOW = datetime(2026, 11, 10, 18, 0, tzinfo=UTC)
RULES = BudgetRules()


def account(tokens: float = 120.0, **fields: object) -> Account:
    return replace(Account(tokens=tokens, at=NOW), **fields)  # type: ignore[arg-type]


def refused(car: CarBudget, kind: Kind = Kind.READ, **more: object) -> BudgetSpent:
    given: dict[str, object] = {"now": NOW, "rules": RULES, "account": account()} | more
    with pytest.raises(BudgetSpent) as caught:
        budget.take(given.pop("rules"), given.pop("account"), car, kind, **given)  # type: ignore[arg-type]
    assert caught.value.retryable
    return caught.value


def test_a_request_is_counted_for_the_account_the_month_and_the_session() -> None:
    """One unit each."""
    granted = budget.take(
        RULES, account(), CarBudget(), Kind.READ, now=NOW, session_id="S1"
    )

    assert granted.account.tokens == 119
    assert granted.car.used == {"2026-11": 1}
    assert granted.car.sessions == {"S1": (1, 0)}
    assert granted.car.last_at == NOW


def test_a_list_of_connections_costs_no_car_anything() -> None:
    """The cheapest health check (section 5.1)."""
    granted = budget.take(RULES, account(), CarBudget(), Kind.LIST, now=NOW)

    assert (granted.account.tokens, granted.car) == (119, CarBudget())


def test_every_path_of_a_batch_counts() -> None:
    """Section 6."""
    granted = budget.take(RULES, account(), CarBudget(), Kind.READ, now=NOW, cost=5)

    assert (granted.account.tokens, granted.car.used) == (115, {"2026-11": 5})


@pytest.mark.parametrize("kind", [Kind.READ, Kind.COMMAND])
def test_between_two_requests_to_one_car_lies_the_floor(kind: Kind) -> None:
    """120 s, and the refusal says how much of it is left."""
    car = CarBudget(last_at=NOW - timedelta(seconds=119))
    error = refused(car, kind)

    assert (error.reason, error.retry_after_s) == ("floor", 1)
    budget.take(RULES, account(), car, kind, now=NOW + timedelta(seconds=1))


@pytest.mark.parametrize("kind", [Kind.PAGE, Kind.REPEAT])
def test_a_further_page_and_a_repeat_after_401_need_no_floor(kind: Kind) -> None:
    """They belong to the request before."""
    budget.take(RULES, account(), CarBudget(last_at=NOW), kind, now=NOW)


def test_retry_after_raises_the_floor_of_that_car() -> None:
    """Never earlier than asked, and not as quick any more."""
    car = budget.slowed(CarBudget(), now=NOW, asked_s=300)

    assert refused(car).reason == "waiting"
    later = replace(car, last_at=NOW + timedelta(seconds=300))
    error = refused(later, now=NOW + timedelta(seconds=301))
    assert (error.reason, error.retry_after_s) == ("floor", 299)


def test_five_reads_and_two_commands_make_a_session() -> None:
    """The sixth and the third are refused; without a session only month and floor count."""
    full = CarBudget(sessions={"S1": (5, 2)})

    assert refused(full, Kind.READ, session_id="S1").reason == "session"
    assert refused(full, Kind.PAGE, session_id="S1").reason == "session"
    assert refused(full, Kind.COMMAND, session_id="S1").reason == "session"
    assert refused(full, Kind.REPEAT, session_id="S1").reason == "session"
    budget.take(RULES, account(), full, Kind.READ, now=NOW, session_id="S2")
    budget.take(RULES, account(), full, Kind.READ, now=NOW)


def test_reads_stop_at_the_reserve_and_commands_at_the_ceiling() -> None:
    """Below the reserve reads stop, commands still go (section 9)."""
    at_reserve = CarBudget(used={"2026-11": 450})

    error = refused(at_reserve)
    assert error.reason == "month"
    assert error.retry_after_s == 20 * 86_400 + 6 * 3600
    budget.take(RULES, account(), at_reserve, Kind.COMMAND, now=NOW)
    assert refused(CarBudget(used={"2026-11": 500}), Kind.COMMAND).reason == "month"
    assert refused(CarBudget(used={"2026-11": 448}), cost=3).reason == "month"


def test_a_new_month_begins_anew_and_an_old_one_is_remembered() -> None:
    """A clock that steps back finds the counter that it left."""
    spent = CarBudget(used={"2026-11": 500})
    december = NOW + timedelta(days=30)

    granted = budget.take(RULES, account(), spent, Kind.READ, now=december)
    assert granted.car.used == {"2026-11": 500, "2026-12": 1}
    assert refused(replace(granted.car, last_at=None)).reason == "month"


def test_430_is_the_truth_for_commands_too() -> None:
    """Whatever our own counter says."""
    car = budget.spent(RULES, CarBudget(used={"2026-11": 7}), NOW)

    assert refused(car, Kind.COMMAND).reason == "month"


def test_only_so_many_months_and_sessions_are_kept() -> None:
    """Everything is bounded; the newest stay."""
    car = CarBudget(
        used={f"{year}-01": 1 for year in range(1990, 1990 + budget.MONTHS_KEPT)},
        sessions={f"S{n}": (1, 0) for n in range(budget.SESSIONS_KEPT)},
    )
    granted = budget.take(RULES, account(), car, Kind.READ, now=NOW, session_id="new")

    assert len(granted.car.used) == budget.MONTHS_KEPT
    assert "1990-01" not in granted.car.used
    assert len(granted.car.sessions) == budget.SESSIONS_KEPT
    assert "S0" not in granted.car.sessions
    assert "new" in granted.car.sessions


def test_the_bucket_refills_two_a_minute_and_no_further_than_full() -> None:
    """120 requests, then one every 30 s (section 9)."""
    empty = account(0.0)

    error = refused(CarBudget(), account=empty)
    assert (error.reason, error.retry_after_s) == ("account", 30)
    assert budget.filled(RULES, empty, NOW + timedelta(minutes=7)) == 14
    assert budget.filled(RULES, empty, NOW + timedelta(days=7)) == 120


def test_all_cars_pause_longer_with_each_refusal_in_a_row() -> None:
    """30 s doubling to 15 min; an answer in between begins anew."""
    waits = []
    state = account()
    for _ in range(8):
        state = budget.paused(state, now=NOW, chance=0.0, asked_s=0)
        waits.append(refused(CarBudget(), Kind.LIST, account=state).retry_after_s)
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]

    calm = budget.answered(state)
    again = budget.paused(calm, now=NOW, chance=0.99, asked_s=0)
    assert again.paused_until is not None
    assert 30 < (again.paused_until - NOW).total_seconds() < 45
    asked = budget.paused(calm, now=NOW, chance=0.0, asked_s=77)
    assert asked.paused_until == NOW + timedelta(seconds=77)


def test_a_wait_is_never_shortened_by_a_shorter_one() -> None:
    """The longest that anyone asked for holds."""
    car = budget.held(CarBudget(), now=NOW, wait_s=3600)
    car = budget.held(car, now=NOW, wait_s=60)
    assert refused(car).retry_after_s == 3600

    car = budget.held(CarBudget(), now=NOW, wait_s=900, only_commands=True)
    assert refused(car, Kind.COMMAND).retry_after_s == 900
    budget.take(RULES, account(), car, Kind.READ, now=NOW)
    assert budget.released(car).command_wait_until is None


def test_failures_of_one_code_are_counted_in_a_row() -> None:
    """Another code, or a success, begins anew."""
    car = budget.failed(budget.failed(CarBudget(), "A:B"), "A:B")
    assert car.failures == 2
    assert budget.failed(car, "A:C").failures == 1
    assert budget.succeeded(car) == CarBudget()


def test_a_clock_that_was_a_year_ahead_does_not_block_for_a_year() -> None:
    """The floor counts once more from now, waits end within the hour."""
    ahead = NOW + timedelta(days=365)
    car = CarBudget(last_at=ahead, wait_until=ahead, command_wait_until=ahead)
    state = account(at=ahead, paused_until=ahead)

    settled = budget.settled(car, NOW)
    assert settled.last_at == NOW
    assert settled.wait_until == NOW + timedelta(hours=1)
    assert budget.settled(settled, NOW + timedelta(seconds=60)) is not None
    error = refused(CarBudget(), account=state)
    assert error.reason == "account"
    assert error.retry_after_s is not None
    assert error.retry_after_s <= 900
    slightly = CarBudget(last_at=NOW + timedelta(minutes=5))
    assert budget.settled(slightly, NOW) is slightly


@pytest.mark.parametrize(
    ("make", "minutes"),
    [
        ("VOLVO", 3), ("Tesla", 5), ("Škoda", 5), ("Mercedes-Benz", 10), ("Land Rover", 30),
        ("Chevrolet", 45), ("Renault", 60), ("", 60), ("Nobody's", 60),
    ],
)  # fmt: skip
def test_freshness_by_make(make: str, minutes: int) -> None:
    """The table of section 9; unknown makes count as the slowest; polls at most half-hourly."""
    assert budget.freshness_s(make) == minutes * 60
    assert budget.poll_s(make) == max(minutes, 30) * 60
