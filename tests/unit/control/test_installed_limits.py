"""What 2.x stations say about limits, in the depot: doubts, other masters, waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import pytest

from agent.control.depot import Depot, Policy
from agent.control.executor import Executor
from agent.control.intake import Intake
from agent.domain import events, reconcile
from agent.domain.capability import Capabilities, RateUnit, StationTraits
from agent.domain.curve import Curve, constant, curve
from agent.domain.events import ConnectorStatus, EvNeeds, TransactionStep
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.plan import AfterPlan, Schedule
from agent.domain.profile import ChargingProfile, InstalledProfile, Purpose
from agent.domain.reconcile import OrderState, OutletPower, Sent
from agent.ports import (
    Answer,
    CompositeAnswer,
    FactSaved,
    OrderAnswer,
    Priority,
    Record,
    Store,
)
from tests.unit.domain.build import (
    MAC_A,
    NOW,
    NOW_S,
    a_plan,
    a_segment,
    a_vehicle,
    evidence_of,
)

CP = StationId("CP-01")
OTHER = StationId("CP-02")
ONE, TWO = EvseId(1), EvseId(2)
TX = TransactionId("T-1")
BUS, SLOT = VehicleId("BUS-1"), ScheduleId("SLOT-1")
KNOWN = Capabilities(is_known=True, stack_level_max=4)
TAKEN = OrderAnswer(answer=Answer.ACCEPTED)
NO_COMPOSITE = CompositeAnswer(answer=Answer.ERROR, detail="NotSupported")


class HandClock:
    """A clock that a test moves; whoever sleeps, sleeps until the test is over."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        await asyncio.Event().wait()


class Memory:
    """A store that only counts."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept: list[FactSaved] = []

    async def commit(self, records: Sequence[Record], now: datetime) -> None:
        assert now >= NOW
        self.rows += len(records)
        self.kept += [item for item in records if isinstance(item, FactSaved)]

    async def facts(self, scope: str) -> dict[str, Mapping[str, object]]:
        return {
            item.name: item.body
            for item in self.kept
            if item.scope == scope and item.body is not None
        }


class Ids:
    def __init__(self) -> None:
        self.count = 0

    def session_id(self, now: datetime) -> SessionId:
        self.count += 1
        return SessionId(f"{now:%H%M%S}-{self.count}")

    def chance(self) -> float:
        return 0.5


@dataclass
class Orders:
    """The Stations port: keeps orders for transactions, answers by a script."""

    answers: list[OrderAnswer] = field(default_factory=list)
    sent: list[tuple[EvseId, ChargingProfile, Priority]] = field(default_factory=list)
    says: CompositeAnswer = NO_COMPOSITE
    asked: list[EvseId] = field(default_factory=list)

    async def set_limit(
        self,
        station_id: StationId,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Callable[[OrderAnswer], None] | None = None,  # noqa: ARG002
    ) -> OrderAnswer:
        assert station_id == CP
        await asyncio.sleep(0)
        if profile.purpose is not Purpose.TX:
            return TAKEN
        self.sent.append((evse_id, profile, priority))
        return self.answers.pop(0) if self.answers else TAKEN

    async def restart(
        self,
        station_id: StationId,
        evse_id: EvseId,
        transaction_id: TransactionId,
        id_token: str,
    ) -> OrderAnswer:
        raise AssertionError(
            f"nobody should be woken: {station_id} {evse_id} {transaction_id} {id_token}"
        )

    async def clear_limit(self, station_id: StationId, profile_id: int) -> OrderAnswer:
        raise AssertionError(f"nothing should be cleared: {station_id} {profile_id}")

    async def write_key(self, station_id: StationId, name: str, value: str) -> OrderAnswer:
        raise AssertionError(f"no key should be written: {station_id} {name} {value}")

    async def is_answering(self, station_id: StationId, evse_id: EvseId) -> bool:
        assert (station_id, evse_id) == (CP, EvseId(1))
        return False

    async def composite(
        self,
        station_id: StationId,
        evse_id: EvseId,
        *,
        duration_s: int,
        unit: RateUnit,
        phases: int,
    ) -> CompositeAnswer:
        assert station_id == CP
        assert (duration_s, unit, phases) == (3600, RateUnit.WATT, 3)
        self.asked.append(evse_id)
        return self.says

    @property
    def limits(self) -> list[float]:
        """The first limit of each order, W."""
        return [profile.periods[0][1] for _, profile, _ in self.sent]


class Site:
    """One station of two outlets, its intake and its power loop."""

    def __init__(self, *answers: OrderAnswer) -> None:
        traits = StationTraits(rated_w=150_000.0, fallback_w=5000.0, outlets=2)
        policy = Policy(
            cap_w=400_000.0,
            efficiency=1.0,
            unmatched_w=20_000.0,
            unplanned_w=20_000.0,
            after_plan=AfterPlan.HOLD_MINIMUM,
            plan_max_age=timedelta(hours=1),
        )
        self.count = 0
        self.clock = HandClock()
        self.store = Memory()
        self.depot = Depot(policy=policy, traits={CP: traits})
        self.depot.capabilities[CP] = KNOWN
        self.intake = Intake(
            self.depot,
            cast("Store", self.store),
            self.clock,
            Ids(),
            last_seq=0,
            last_transaction_id=0,
        )
        self.orders = Orders(list(answers))

    async def connect(self) -> None:
        if not self.depot.state(CP).is_connected:
            await self.say(events.LinkOpened(ocpp_version="ocpp2.1"))

    async def plug(self, evse_id: EvseId = ONE, transaction_id: TransactionId = TX) -> None:
        """A vehicle charges at an outlet."""
        await self.connect()
        await self.say(
            events.ConnectorChanged(
                evse_id=evse_id,
                connector_id=ConnectorId(1),
                status=ConnectorStatus.OCCUPIED,
                at=self.clock.at,
            )
        )
        await self.step(TransactionStep.STARTED, transaction_id, evse_id=evse_id)

    async def step(
        self,
        step: TransactionStep,
        transaction_id: TransactionId = TX,
        *,
        evse_id: EvseId | None = None,
        trigger: str = "",
    ) -> None:
        self.count += 1
        await self.say(
            events.TransactionReported(
                transaction_id=transaction_id,
                step=step,
                at=self.clock.at,
                trigger=trigger,
                evse_id=evse_id,
                seq_no=self.count,
            )
        )

    async def say(self, event: events.Event) -> None:
        await self.intake.handle(CP, event)

    def confirm(
        self, allows: Curve, evse_id: EvseId = ONE, transaction_id: TransactionId = TX
    ) -> None:
        """The station accepted a limit."""
        sent = Sent(
            transaction_id=transaction_id,
            allows=allows,
            exact_until_s=2**40,
            sent_at=self.clock.at,
        )
        self.depot.power[CP, evse_id] = reconcile.accepted(
            OutletPower(), sent, self.clock.at
        )
        self.depot.changed.clear()

    def is_doubted(self, evse_id: EvseId = ONE) -> bool:
        return self.depot.power_of((CP, evse_id)).needs_confirmation

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The power loop runs, and the station has its default."""
        await self.connect()
        executor = Executor(
            self.depot,
            cast("Store", self.store),
            self.orders,
            self.clock,
            note=self._note,
            min_pass_s=0,
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(executor.run())
            await self.passes()
            yield
            task.cancel()

    async def _note(self, station_id: StationId, evse_id: EvseId, text: str) -> None:
        event = events.AnomalyNoted(text=text, evse_id=evse_id)
        await self.intake.handle(station_id, event)

    async def passes(self, after_s: float = 0) -> None:
        """Let time pass and the loop look again."""
        self.clock.at += timedelta(seconds=after_s)
        for _ in range(4):
            self.depot.changed.set()
            await asyncio.sleep(0.002)


def installed(allows: Curve, **changes: object) -> InstalledProfile:
    """A TxProfile of EVSE 1 in a station's report."""
    fields: dict[str, object] = {
        "evse_id": ONE,
        "profile_id": 101,
        "purpose": "TxProfile",
        "source": "CSO",
        "allows": allows,
        "transaction_id": TX,
    }
    return InstalledProfile(**(fields | changes))  # type: ignore[arg-type]


LIMIT = curve([(NOW_S - 60, 50_000.0), (NOW_S + 900, 10_000.0)])


# --- what is really installed -------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "is_doubted"),
    [
        ((installed(LIMIT),), False),
        ((installed(LIMIT, transaction_id=None),), False),
        ((installed(LIMIT, profile_id=7),), False),
        ((installed(constant(9000.0)),), False),
        ((installed(constant(9_999_999.0)), installed(LIMIT)), False),
        ((), True),
        ((installed(LIMIT, evse_id=TWO),), True),
        ((installed(LIMIT, transaction_id=TransactionId("T-0")),), True),
        ((installed(LIMIT, purpose="TxDefaultProfile"),), True),
        ((installed(constant(50_000.0)),), True),
        ((installed(curve([(NOW_S - 60, 10_000.0), (NOW_S + 900, 10_001.0)])),), True),
    ],
)
async def test_a_profile_that_is_not_there_is_doubted(
    report: tuple[InstalledProfile, ...], *, is_doubted: bool
) -> None:
    """VER-02: it must be for this transaction, and allow no more than the books say."""
    site = Site()
    await site.plug()
    site.confirm(LIMIT)
    await site.intake.profiles_read(CP, report)

    assert site.is_doubted() is is_doubted
    assert site.depot.changed.is_set() is is_doubted


async def test_a_missing_profile_is_sent_again_and_then_trusted() -> None:
    """By the power loop, once."""
    site = Site()
    async with site.working():
        await site.plug()
        await site.passes()
        assert len(site.orders.sent) == 1
        await site.intake.profiles_read(CP, ())
        await site.passes(1)
        assert len(site.orders.sent) == 2
        await site.passes(30)

    first, again = (profile for _, profile, _ in site.orders.sent)
    assert first.periods[0][1] == again.periods[0][1] == 20_000.0
    assert again.profile_id == 101
    assert not site.is_doubted()


async def test_only_running_transactions_of_the_station_are_held_against_its_report() -> (
    None
):
    """A limit of a transaction that is over says nothing any more."""
    site = Site()
    await site.plug()
    site.confirm(LIMIT)
    site.confirm(LIMIT, TWO, TransactionId("T-9"))
    await site.intake.profiles_read(OTHER, ())
    assert not site.is_doubted()
    await site.intake.profiles_read(CP, ())
    assert (site.is_doubted(), site.is_doubted(TWO)) == (True, False)

    site.confirm(LIMIT)
    await site.step(TransactionStep.ENDED)
    await site.intake.profiles_read(CP, ())
    assert not site.is_doubted()


async def test_ids_of_foreign_profiles_are_returned() -> None:
    """To be cleared: those of a central system, outside of our own numbers."""
    site = Site()
    report = tuple(
        installed(LIMIT, profile_id=number, source=source)
        for number, source in ((1, "CSO"), (4711, "CSO"), (12_000, ""), (4712, "EMS"))
    )
    assert await site.intake.profiles_read(CP, report) == [4711, 12_000]

    site.depot.capabilities[CP] = Capabilities(is_known=True, external_ids_max=4700)
    assert await site.intake.profiles_read(CP, report) == [1, 12_000]


# --- events that doubt a limit ------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "is_doubted"),
    [
        (events.LimitDoubted(evse_id=ONE, reason="EV schedule"), True),
        (events.ChargingNeedsReported(evse_id=ONE, needs=EvNeeds(at=NOW)), True),
        (events.LimitDoubted(evse_id=TWO, reason="EV schedule"), False),
        (events.ChargingNeedsReported(evse_id=TWO, needs=EvNeeds(at=NOW)), False),
        (events.StationBooted(vendor="V", model="M"), True),
        (events.LinkOpened(ocpp_version="ocpp2.1"), True),
        (events.LinkClosed(), False),
    ],
)
async def test_what_puts_an_outlets_limit_in_doubt(
    event: events.Event, *, is_doubted: bool
) -> None:
    """K15: the vehicle waits for a schedule, whatever was sent before."""
    site = Site()
    await site.plug()
    site.confirm(LIMIT)
    await site.say(event)

    assert site.is_doubted() is is_doubted


@pytest.mark.parametrize(
    ("persist", "is_doubted"), [(None, True), (False, True), (True, False)]
)
async def test_a_transaction_that_resumes_gets_its_limit_again(
    persist: bool | None,  # noqa: FBT001 - drawn
    *,
    is_doubted: bool,
) -> None:
    """2.1 E17.FR.15: unless the station keeps its profiles over a reboot."""
    site = Site()
    await site.plug()
    site.confirm(LIMIT)
    site.depot.capabilities[CP] = Capabilities(is_known=True, transactions_persist=persist)
    await site.step(TransactionStep.UPDATED, trigger="ChargingStateChanged")
    assert not site.is_doubted()

    await site.step(TransactionStep.UPDATED, trigger="TxResumed")
    assert site.is_doubted() is is_doubted


async def test_a_vehicle_that_insists_on_more_does_not_hurry_the_orders() -> None:
    """K15.FR.11: refused, sent again, and refused again: a write to flash each time."""
    site = Site()
    async with site.working():
        await site.plug()
        await site.passes()
        for _ in range(20):
            await site.passes(1)
            await site.say(events.LimitDoubted(evse_id=ONE, reason="EV schedule"))

    assert 1 + 3 <= len(site.orders.sent) <= 1 + 5


async def test_a_vehicles_tuples_bound_the_periods_of_its_schedule() -> None:
    """A8: the needs have the plan sent again at once, folded to what it takes."""
    site = Site()
    depot = site.depot
    segments = [a_segment(at * 900, (at + 1) * 900, 5000.0 * (8 - at)) for at in range(6)]
    depot.registry = {BUS: a_vehicle(BUS, MAC_A, max_w=100_000, can_pause=True)}
    depot.registry_at = depot.schedules_at = NOW
    depot.schedules = {
        SLOT: Schedule(
            schedule_id=SLOT,
            vehicle_id=BUS,
            location_uid="",
            arrives_at=NOW - timedelta(hours=1),
            departs_at=NOW + timedelta(hours=9),
            plan=a_plan(*segments),
        )
    }
    async with site.working():
        await site.plug()
        evidence = (evidence_of(MAC_A),)
        await site.say(events.EvidenceReported(evidence=evidence, evse_id=ONE))
        await site.passes(10)
        before = site.orders.sent[-1][1]
        needs = EvNeeds(at=NOW, tuples_max=3)
        await site.say(events.ChargingNeedsReported(evse_id=ONE, needs=needs))
        await site.passes(1)
        after = site.orders.sent[-1][1]

    was = [limit for _, limit in before.periods]
    assert len(was) > 3
    assert [limit for _, limit in after.periods] == [*was[:2], min(was[2:])]


# --- other masters ------------------------------------------------------------------


@pytest.mark.parametrize("evse_id", [ONE, EvseId(0)])
async def test_another_masters_limit_lowers_the_order_and_lets_go_again(
    evse_id: EvseId,
) -> None:
    """B2: of the outlet or of the whole station."""
    site = Site()

    async def limit(watts: float | None) -> None:
        event = events.ExternalLimitChanged(evse_id=evse_id, source="EMS", limit_w=watts)
        await site.say(event)
        await site.passes(30)

    async with site.working():
        await site.plug()
        await site.passes()
        await limit(8000.0)
        await limit(9000.0)
        await limit(None)

    assert site.orders.limits[0] == site.orders.limits[-1] == 20_000.0
    assert site.orders.limits[1] <= 8000.0
    assert site.orders.sent[1][2] is Priority.REDUCTION
    assert all(limit <= 9000.0 for limit in site.orders.limits[1:-1])


async def test_another_outlets_limit_is_not_ours() -> None:
    """Each outlet has its own."""
    site = Site()
    async with site.working():
        await site.plug()
        await site.passes()
        await site.say(
            events.ExternalLimitChanged(evse_id=TWO, source="EMS", limit_w=8000.0)
        )
        await site.passes(30)

    assert site.orders.limits == [20_000.0]


# --- a station that asks to wait ----------------------------------------------------

WAIT = OrderAnswer(answer=Answer.REFUSED, reason="RateLimitExceeded", wait_s=60.0)


async def test_a_station_that_asks_to_wait_is_left_alone_and_then_asked_again() -> None:
    """2.1 K01.FR.56: no strike against it, whatever else happens meanwhile."""
    site = Site(WAIT, TAKEN)
    async with site.working():
        await site.plug()
        await site.passes()
        for _ in range(5):
            await site.passes(10)
            await site.say(events.LimitDoubted(evse_id=ONE, reason="test"))
        await site.passes(9)
        assert len(site.orders.sent) == 1
        waiting = site.depot.power_of((CP, ONE))
        assert (waiting.order, waiting.failures) == (OrderState.REFUSED, 0)
        await site.passes(1)
        assert len(site.orders.sent) == 2

    done = site.depot.power_of((CP, ONE))
    assert (done.order, done.quiet_until) == (OrderState.CONFIRMED, None)


def test_the_wait_ends_at_its_second_and_other_refusals_have_none() -> None:
    """Pure: ``reconcile`` alone."""
    sent = Sent(transaction_id=TX, allows=LIMIT, exact_until_s=2**40, sent_at=NOW)
    power = reconcile.ordered(OutletPower(), sent)
    waiting = reconcile.refused(power, "no", quiet_until=NOW + timedelta(seconds=60))

    assert (waiting.failures, reconcile.refused(power, "no").failures) == (0, 1)
    assert reconcile.refused(waiting, "no").quiet_until is None
    assert reconcile.accepted(waiting, sent, NOW).quiet_until is None
    assert reconcile.doubted(waiting).quiet_until == waiting.quiet_until
