"""The memory of the ladder: sharing, configuration, fencing, what goes to disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.control.depot import Depot, LadderRule, Policy
from agent.control.ladders import Ladders, facts_of, key_of, learned_of, shown
from agent.domain.capability import ProfileForm, RateUnit, StationTraits
from agent.domain.curve import constant, value_at
from agent.domain.identity import MatchOutcome
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    Outlet,
    SessionId,
    StationId,
    TransactionId,
)
from agent.domain.ladder import Move, Outcome, Rung, Way
from agent.domain.meter import MeterState
from agent.domain.plan import AfterPlan
from agent.domain.power import OutletFacts, is_steerable, possible_draw
from agent.domain.profile import Purpose
from agent.domain.reconcile import OutletPower, Sent, leaving, may_draw, replaced
from agent.domain.session import Session
from agent.domain.station import StationState
from agent.ports import Answer, OrderAnswer
from agent.settings import LadderSection
from agent.store.sqlite import SqliteStore
from tests.unit.domain.build import NOW, after

CP1, CP2, CP3 = StationId("CP-1"), StationId("CP-2"), StationId("CP-3")
OUTLET: Outlet = (CP1, EvseId(1))
BASE = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=24, stack_level=3)
YES = OrderAnswer(answer=Answer.ACCEPTED)
NO = OrderAnswer(answer=Answer.REFUSED, detail="Rejected")
TX = TransactionId("7")


def a_depot(*rules: LadderRule) -> Depot:
    policy = Policy(
        cap_w=1e6,
        efficiency=1.0,
        unmatched_w=1.0,
        unplanned_w=1.0,
        after_plan=AfterPlan.HOLD_MINIMUM,
        plan_max_age=timedelta(days=1),
    )
    traits = StationTraits(rated_w=150_000.0, fallback_w=4_000.0)
    depot = Depot(policy=policy, traits=dict.fromkeys((CP1, CP2, CP3), traits))
    depot.ladder_rules = rules
    for station_id, firmware in ((CP1, "1"), (CP2, "1"), (CP3, "2")):
        depot.states[station_id] = StationState(
            station_id=station_id,
            rated_w=150_000,
            vendor="Maker",
            model="Box",
            firmware=firmware,
        )
    return depot


def a_session(number: int = 1, power_w: float = 0.0, at_s: int = 0) -> Session:
    return Session(
        session_id=SessionId(f"S{number}"),
        station_id=CP1,
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        ocpp_version="ocpp1.6",
        plugged_at=NOW,
        match=MatchOutcome.UNIQUE,
        meter=MeterState(power_w=power_w, power_at=after(at_s)),
    )


class Bench:
    def __init__(self, depot: Depot) -> None:
        self.depot = depot
        self.told: list[str] = []
        self.ladders = Ladders(depot, lambda _, words: self.told.append(words))

    def answer(self, answer: OrderAnswer, session: Session, at_s: int = 0) -> Move:
        way = self.ladders.way(OUTLET, BASE, session, after(at_s))
        return self.ladders.answered(
            OUTLET, session, BASE, way, answer, now=after(at_s), answered_else=False
        )

    def measure(self, session: Session, limit_w: float, *, ok: bool) -> Move | None:
        sent = Sent(
            transaction_id=TX, allows=constant(limit_w), exact_until_s=2**40, sent_at=NOW
        )
        power = OutletPower(confirmed=sent, verified=ok)
        at = session.meter.power_at or NOW
        return self.ladders.measured(OUTLET, session, BASE, power, at)


def test_stations_of_one_firmware_share_what_was_learned_and_others_do_not() -> None:
    bench = Bench(a_depot())
    assert bench.answer(NO, a_session()) is Move.CHANGE

    assert learned_of(bench.depot, CP2).rung is Rung.KIND
    assert learned_of(bench.depot, CP3).rung is Rung.PLAIN
    assert shown(bench.depot, CP2) == {
        "rung": "relative",
        "words": "relative (not yet proven); before: plain refused (Rejected)",
    }


def test_a_station_that_told_nothing_of_itself_shares_with_nobody() -> None:
    depot = a_depot()
    for station_id in (CP1, CP2):
        depot.states[station_id] = replace(depot.states[station_id], vendor="", model="")

    assert key_of(depot, CP1) != key_of(depot, CP2)


def test_the_configuration_wins_and_no_answer_moves_it() -> None:
    rule = LadderRule(vendor="MAKER", model="box", firmware="1", rung="tx-default")
    bench = Bench(a_depot(rule))
    session = a_session()

    assert [bench.answer(NO, session) for _ in range(4)] == [Move.WAIT] * 4
    assert learned_of(bench.depot, CP1).rung is Rung.TX_DEFAULT
    assert learned_of(bench.depot, CP3).rung is Rung.PLAIN
    assert not bench.ladders.has_unsaved


def test_a_limit_key_is_only_for_stations_with_one_outlet() -> None:
    rule = LadderRule(vendor="EVBox", model="Box", limit_key="MaxCurrent")
    depot = a_depot(rule)
    for station_id in (CP1, CP2):
        depot.states[station_id] = replace(depot.states[station_id], vendor="EVBox")
    depot.traits[CP2] = replace(depot.traits[CP2], outlets=2)

    assert facts_of(depot, CP1).vendor_key is not None
    assert facts_of(depot, CP2).vendor_key is None


def test_a_station_that_refuses_all_is_fenced_for_its_session_and_the_next() -> None:
    bench = Bench(a_depot())
    session = a_session()
    moves = [bench.answer(NO, session)]
    while moves[-1] is Move.CHANGE and len(moves) < 40:
        moves.append(bench.answer(NO, session))

    assert moves[-1] is Move.FENCE
    assert bench.ladders.way(OUTLET, BASE, session, NOW).form is None
    assert bench.ladders.way(OUTLET, BASE, a_session(2), after(60)).form is None
    assert any("fenced off" in words for words in bench.told)
    a_day_later = bench.ladders.way(OUTLET, BASE, a_session(3), after(86_401))
    assert a_day_later.rung is Rung.PLAIN


def test_one_station_that_takes_nothing_does_not_fence_its_sisters() -> None:
    """They climb for themselves; what one of them proves is the model's again."""
    bench = Bench(a_depot())
    moves = [bench.answer(NO, a_session()) for _ in range(40)]
    assert Move.FENCE in moves
    assert learned_of(bench.depot, CP1).rung is Rung.FENCE

    outlet: Outlet = (CP2, EvseId(1))
    session = replace(a_session(2, 20_000.0, 300), station_id=CP2)
    way = bench.ladders.way(outlet, BASE, session, NOW)
    assert way.rung is Rung.PLAIN
    bench.ladders.answered(outlet, session, BASE, way, NO, now=NOW, answered_else=False)
    way = bench.ladders.way(outlet, BASE, session, NOW)
    assert way.rung is Rung.KIND
    assert learned_of(bench.depot, CP1).rung is Rung.FENCE
    bench.ladders.answered(outlet, session, BASE, way, YES, now=NOW, answered_else=False)
    sent = Sent(
        transaction_id=TX, allows=constant(20_000), exact_until_s=2**40, sent_at=NOW
    )
    power = OutletPower(confirmed=sent, verified=True)
    bench.ladders.measured(outlet, session, BASE, power, after(300))

    assert learned_of(bench.depot, CP2).proven is Rung.KIND
    assert learned_of(bench.depot, CP1).rung is Rung.KIND


def test_several_stations_that_take_nothing_are_a_trait_of_their_model() -> None:
    bench = Bench(a_depot())
    sisters = [StationId(f"CP-1{n}") for n in range(4)]
    for station_id in sisters:
        bench.depot.traits[station_id] = bench.depot.traits[CP1]
        bench.depot.states[station_id] = replace(
            bench.depot.states[CP1], station_id=station_id
        )
    for number, station_id in enumerate(sisters[:3]):
        outlet: Outlet = (station_id, EvseId(1))
        session = replace(a_session(number), station_id=station_id)
        for _ in range(40):
            way = bench.ladders.way(outlet, BASE, session, NOW)
            if way.form is not None:
                bench.ladders.answered(
                    outlet, session, BASE, way, NO, now=NOW, answered_else=False
                )

    fourth = replace(a_session(9), station_id=sisters[3])
    assert bench.ladders.way((sisters[3], EvseId(1)), BASE, fourth, NOW).form is None
    assert len(learned_of(bench.depot, CP1).fenced_at) == 3


def test_ver_06_power_over_the_limit_is_judged_once_per_settle_time() -> None:
    bench = Bench(a_depot())
    bench.answer(YES, a_session())

    moves = [
        bench.measure(a_session(1, 140_000.0, at_s), 40_000.0, ok=False)
        for at_s in (30, 95, 95, 120)
    ]

    assert moves == [None, Move.CHANGE, None, None]
    assert learned_of(bench.depot, CP1).rung is Rung.KIND


@pytest.mark.parametrize(
    ("power_w", "limit_w", "is_proof"),
    [(39_000.0, 40_000.0, True), (2_000.0, 40_000.0, False), (149_000.0, 149_500.0, False)],
)
def test_only_power_that_the_limit_holds_back_proves_a_way(
    power_w: float, limit_w: float, *, is_proof: bool
) -> None:
    bench = Bench(a_depot())
    bench.answer(YES, a_session())
    bench.measure(a_session(1, power_w, 200), limit_w, ok=True)

    assert learned_of(bench.depot, CP1).is_proven is is_proof


def test_what_only_renews_a_time_is_not_written() -> None:
    bench = Bench(a_depot())
    bench.answer(YES, a_session())
    assert len(bench.ladders.take_unsaved()) == 1
    bench.answer(YES, a_session(), 60)
    assert not bench.ladders.has_unsaved
    bench.answer(NO, a_session(), 120)
    assert bench.ladders.has_unsaved


async def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    bench = Bench(a_depot())
    bench.answer(NO, a_session())
    learned = learned_of(bench.depot, CP1)
    store = SqliteStore(tmp_path / "agent.db", threaded=False)
    await store.commit(bench.ladders.take_unsaved(), NOW)
    store.close()
    store = SqliteStore(tmp_path / "agent.db", threaded=False)
    loaded = store.load({CP1: 150_000})
    store.close()

    assert loaded.ladders == (learned,)
    assert learned.trials[0].outcome is Outcome.REFUSED


def test_an_order_that_outlives_its_transaction_counts_for_the_next_vehicle() -> None:
    way = Way(rung=Rung.TX_DEFAULT, form=BASE, purpose=Purpose.TX_DEFAULT)

    def sent(limit_w: float) -> Sent:
        return Sent(
            transaction_id=TX, allows=constant(limit_w), exact_until_s=2**40, sent_at=NOW
        )

    def draw_w(power: OutletPower) -> float:
        line = may_draw(
            power,
            transaction_id=None,
            rated_w=150_000.0,
            fallback_w=4_000.0,
            measured_w=0.0,
            now_s=int(NOW.timestamp()),
            is_connected=True,
        )
        return value_at(line, NOW.timestamp())

    empty = OutletPower(default_w=4_000.0)
    assert draw_w(empty) == 4_000.0
    high = leaving(empty, way, sent(60_000.0))
    assert draw_w(high) == 60_000.0
    lower = leaving(high, way, sent(20_000.0))
    assert draw_w(lower) == 60_000.0, "it is not accepted yet"
    assert draw_w(replaced(lower, way, sent(20_000.0))) == 20_000.0
    plain = Way(rung=Rung.PLAIN, form=BASE)
    assert draw_w(leaving(empty, plain, sent(60_000.0))) == 4_000.0


def test_a_fenced_outlet_counts_with_its_rating_and_gets_no_share() -> None:
    fact = OutletFacts(
        rated_w=150_000.0,
        fallback_w=4_000.0,
        is_connected=True,
        transaction_id=TX,
        is_fenced=True,
    )
    power = OutletPower(default_w=4_000.0)
    now_s = int(NOW.timestamp())

    assert not is_steerable(fact, power)
    assert value_at(possible_draw(fact, power, now_s), now_s) == 150_000.0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"rung": "tx-defualt"}, "did you mean 'tx-default'"),
        ({}, "neither a rung nor a limit_key"),
    ],
)
def test_a_wrong_rung_in_the_configuration_is_named(
    row: dict[str, str], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        LadderSection(vendor="Maker", model="Box", **row)
