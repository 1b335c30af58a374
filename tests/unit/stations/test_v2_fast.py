"""The fast limit of 2.1: low at once, never above a plan, gone by itself (K28)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.capability import RateUnit
from agent.domain.ids import EvseId, TransactionId
from agent.domain.profile import ChargingProfile, Purpose
from agent.ports import Answer, OrderAnswer, Priority
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome
from agent.stations.v2_fast import WATCHDOG_S, FastLimit, lowest_limit

from .bench2 import ScriptedLink, said
from .conftest import NOW, STATION, StillClock, soon

ONE = EvseId(1)
TAKEN = OrderAnswer(answer=Answer.ACCEPTED)
WAIT = OrderAnswer(answer=Answer.REFUSED, reason="RateLimitExceeded", wait_s=60.0)
REFUSED = OrderAnswer(answer=Answer.REFUSED)
SET, UPDATE = "SetChargingProfile", "UpdateDynamicSchedule"


def plan(*periods: tuple[int, float], ago_s: float = 0, **changes: Any) -> ChargingProfile:
    """A TxProfile of EVSE 1 that began so long ago."""
    fields: dict[str, Any] = {
        "profile_id": 101,
        "purpose": Purpose.TX,
        "stack_level": 3,
        "unit": RateUnit.WATT,
        "phases": None,
        "periods": periods,
        "starts_at": NOW - timedelta(seconds=ago_s),
        "transaction_id": TransactionId("T-1"),
    }
    return ChargingProfile(**(fields | changes))


HIGH, LOW = plan((0, 50_000.0)), plan((0, 9000.0))


class Bench:
    """A fast limit at a scripted station that took a high plan."""

    def __init__(self, *, held: ChargingProfile | None = HIGH, **answers: Any) -> None:
        self.station = ScriptedLink(**answers)
        self.fast = FastLimit(
            station_id=STATION, clock=StillClock(), link=self.station.as_link, pace=0.0001
        )
        if held is not None:
            self.fast.settled(ONE, held, TAKEN)

    async def lower(self, to: ChargingProfile = LOW, **capabilities: Any) -> None:
        await self.fast.lower(ONE, to, said(**capabilities))

    @property
    def limits(self) -> list[float]:
        """The limits that left, in order, by whichever message."""
        found: list[float] = []
        for action, payload in self.station.calls:
            if action == SET:
                (schedule,) = payload["chargingProfile"]["chargingSchedule"]
                (period,) = schedule["chargingSchedulePeriod"]
                found.append(period["limit"])
            else:
                found.append(payload["scheduleUpdate"]["limit"])
        return found

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.station.calls]

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.fast.run())
            yield
            task.cancel()

    async def rounds(self) -> None:
        """Let some refreshes pass."""
        await asyncio.sleep(0.02)


# --- setting and updating -------------------------------------------------------------


async def test_it_is_set_once_and_then_updated() -> None:
    """One level above the plan, with a watchdog, and before everything else."""
    bench = Bench()
    await bench.lower()
    await bench.lower(plan((0, 7000.0)))

    assert bench.station.calls == [
        (
            SET,
            {
                "evseId": 1,
                "chargingProfile": {
                    "id": 301,
                    "stackLevel": 4,
                    "chargingProfilePurpose": "TxProfile",
                    "chargingProfileKind": "Dynamic",
                    "transactionId": "T-1",
                    "chargingSchedule": [
                        {
                            "id": 301,
                            "duration": WATCHDOG_S,
                            "chargingRateUnit": "W",
                            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 9000.0}],
                        }
                    ],
                },
            },
        ),
        (UPDATE, {"chargingProfileId": 301, "scheduleUpdate": {"limit": 7000.0}}),
    ]
    assert set(bench.station.priorities) == {Priority.REDUCTION}


async def test_ids_that_start_above_other_masters_keep_their_distance() -> None:
    """2.1 K01.FR.80: the offset of the plan is that of the fast limit."""
    held, lower = (
        plan((0, watts), profile_id=1101, offline_max_s=3600) for watts in (2.0, 1.0)
    )
    bench = Bench(held=held)
    await bench.lower(lower)
    body = bench.station.of(SET)[0]["chargingProfile"]

    assert body["id"] == 1301
    assert "maxOfflineDuration" not in body
    assert bench.fast.pulled(1301) == {"limit": 1.0}


async def test_a_new_transaction_needs_a_new_profile() -> None:
    """The old one ended with the old transaction."""
    bench = Bench()
    await bench.lower()
    for watts in (40_000.0, 5000.0):
        newer = plan((0, watts), transaction_id=TransactionId("T-2"))
        await bench.lower(newer)
        bench.fast.settled(ONE, newer, TAKEN)

    assert bench.actions == [SET, SET]
    transactions = [
        item["chargingProfile"]["transactionId"] for item in bench.station.of(SET)
    ]
    assert transactions == ["T-1", "T-2"]


@pytest.mark.parametrize(
    "lower",
    [
        plan((0, 9000.0), purpose=Purpose.TX_DEFAULT, transaction_id=None),
        plan((0, 9000.0), starts_at=None),
        plan((0, 9000.0), unit=RateUnit.AMPERE),
        plan((0, 9000.0), transaction_id=TransactionId("T-2")),
        plan((0, 9000.0), stack_level=4),
    ],
)
async def test_only_a_plan_after_a_plan_has_a_fast_limit(lower: ChargingProfile) -> None:
    """What holds until then must be known, or it could be passed."""
    bench = Bench()
    await bench.lower(lower)

    assert bench.station.calls == []
    unknown = Bench(held=None)
    await unknown.lower()
    assert unknown.station.calls == []


@pytest.mark.parametrize(
    "capabilities",
    [{"features": frozenset()}, {"features": frozenset({"UseLocalTime"})},
     {"stack_level_max": 3}, {"stack_level_max": None}],
)  # fmt: skip
async def test_a_station_that_cannot_is_not_bothered(capabilities: Any) -> None:
    """SupportsFeature[DynamicProfiles], and a level free above the plan."""
    bench = Bench()
    await bench.lower(**capabilities)
    assert bench.station.calls == []

    await bench.lower(features=frozenset({"dynamicprofiles"}))
    assert bench.actions == [SET]


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [{"status": "Rejected"}, CallOutcome(None, "NotSupported"),
     CallOutcome(None, "Timeout"), {}],
)  # fmt: skip
async def test_a_station_that_refuses_it_is_never_asked_again_on_this_link(
    answer: Payload | CallOutcome,
) -> None:
    """Plans alone do; a reduction must not wait for what does not work."""
    bench = Bench(SetChargingProfile=[answer])
    for watts in (9000.0, 8000.0):
        await bench.lower(plan((0, watts)))
    await bench.lower(plan((0, 1.0), transaction_id=TransactionId("T-2")))

    assert bench.actions == [SET]
    assert bench.fast.pulled(301) is None


async def test_an_update_that_is_refused_lets_it_be_set_anew() -> None:
    """The watchdog may have ended it, or a reboot."""
    bench = Bench(UpdateDynamicSchedule=[{"status": "Rejected"}])
    for watts in (9000.0, 8000.0, 7000.0):
        await bench.lower(plan((0, watts)))

    assert bench.actions == [SET, UPDATE, SET]
    assert bench.limits == [9000.0, 8000.0, 7000.0]


async def test_a_profile_that_the_station_lost_has_no_limit_to_pull() -> None:
    """Until it is set anew."""
    bench = Bench(UpdateDynamicSchedule=[{"status": "Rejected"}])
    await bench.lower()
    await bench.lower(plan((0, 8000.0)))
    assert bench.fast.pulled(301) is None

    await bench.lower(plan((0, 7000.0)))
    assert bench.fast.pulled(301) == {"limit": 7000.0}


async def test_without_a_link_nothing_happens() -> None:
    """Before it is bound."""
    bench = Bench()
    bench.fast.link = None
    await bench.lower()

    assert bench.fast.pulled(301) is None


# --- what it is set to ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "lowest"),
    [
        (plan((0, 9.0)), 9.0),
        (plan((0, 9.0), (100, 5.0), ago_s=50), 9.0),
        (plan((0, 9.0), (100, 5.0), ago_s=69), 9.0),
        (plan((0, 9.0), (100, 5.0), ago_s=70), 5.0),
        (plan((0, 5.0), (100, 9.0), ago_s=90), 5.0),
        (plan((0, 5.0), (100, 9.0), ago_s=100), 9.0),
        (plan((0, 9.0), (10, 4.0), (20, 8.0)), 4.0),
        (plan((0, 9.0), (100, 5.0), ago_s=-10), 9.0),
        (plan((0, 9.0), (100, 5.0), starts_at=None), 5.0),
    ],
)
def test_it_is_the_lowest_of_what_comes_before_the_watchdog(
    line: ChargingProfile, lowest: float
) -> None:
    """So a step down needs no message at its second."""
    assert lowest_limit(line, NOW, WATCHDOG_S) == lowest


@given(
    steps=st.dictionaries(st.integers(0, 300), st.integers(0, 99), min_size=1, max_size=9),
    ago_s=st.integers(0, 300),
)
def test_it_is_never_above_its_plan_until_the_watchdog_ends_it(
    steps: dict[int, int], ago_s: int
) -> None:
    """Property."""
    periods = sorted({0: 50, **steps}.items())
    line = plan(*((at, float(limit)) for at, limit in periods), ago_s=ago_s)
    lowest = lowest_limit(line, NOW, WATCHDOG_S)

    for second in range(ago_s, ago_s + WATCHDOG_S + 1):
        in_force = [limit for at, limit in periods if at <= second][-1]
        assert lowest <= in_force


async def test_it_is_never_above_the_plan_that_the_station_holds() -> None:
    """The new plan may be refused, and then the budget counts the old one alone."""
    bench = Bench(held=plan((0, 6000.0)))
    await bench.lower(plan((0, 20_000.0), (600, 1000.0)))

    assert bench.limits == [6000.0]


# --- holding --------------------------------------------------------------------------


async def test_it_is_held_while_the_station_wants_no_new_plan() -> None:
    """RateLimitExceeded: refreshed before the watchdog ends it, until the plan is in."""
    bench = Bench()
    async with bench.refreshing():
        await bench.lower()
        await bench.rounds()
        assert bench.limits == [9000.0]  # nothing to hold yet
        bench.fast.settled(ONE, LOW, WAIT)
        await soon(lambda: len(bench.limits) >= 3)
        bench.fast.settled(ONE, LOW, TAKEN)
        await bench.rounds()
        count = len(bench.limits)
        await bench.rounds()

    assert len(bench.limits) == count
    assert set(bench.limits) == {9000.0}
    assert set(bench.actions[1:]) == {UPDATE}


async def test_a_refusal_without_a_wait_lets_go() -> None:
    """The old plan rules, as the budget says."""
    bench = Bench()
    async with bench.refreshing():
        await bench.lower()
        bench.fast.settled(ONE, LOW, WAIT)
        await soon(lambda: len(bench.limits) >= 2)
        bench.fast.settled(ONE, LOW, REFUSED)
        await bench.rounds()
        count = len(bench.limits)
        await bench.rounds()

    assert len(bench.limits) == count


async def test_a_raise_that_has_to_wait_is_not_pushed_ahead() -> None:
    """Only the accepted plan is in the budget: the fast limit may not pass it."""
    bench = Bench()
    await bench.lower()
    bench.fast.settled(ONE, LOW, TAKEN)
    bench.fast.settled(ONE, HIGH, WAIT)
    async with bench.refreshing():
        await bench.rounds()

    assert bench.limits == [9000.0]
    assert bench.fast.pulled(301) == {"limit": 9000.0}


async def test_a_raise_that_was_taken_is_what_a_pull_gets() -> None:
    """The plan below says so too."""
    bench = Bench()
    await bench.lower()
    bench.fast.settled(ONE, LOW, TAKEN)
    bench.fast.settled(ONE, HIGH, TAKEN)

    assert bench.fast.pulled(301) == {"limit": 50_000.0}


async def test_a_default_settles_nothing() -> None:
    """Another purpose, another place."""
    bench = Bench()
    await bench.lower()
    default = plan((0, 1.0), purpose=Purpose.TX_DEFAULT, transaction_id=None)
    bench.fast.settled(ONE, default, TAKEN)

    assert bench.fast.pulled(301) == {"limit": 9000.0}


async def test_a_pull_is_answered_for_our_own_ids_only() -> None:
    """Before it is set there is none, and other numbers are others'."""
    bench = Bench()
    assert bench.fast.pulled(301) is None
    await bench.lower()

    assert bench.fast.pulled(301) == {"limit": 9000.0}
    for other in (101, 300, 302, 1301, -1):
        assert bench.fast.pulled(other) is None
