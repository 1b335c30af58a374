"""Accounts, what they allow, where charging ends; bills owed with the end of a session."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import events
from agent.domain.billing import (
    AccountBook,
    BillingRules,
    Ceiling,
    Goal,
    PayAccount,
    WithoutAccount,
    charged_wh,
    grant,
    reached,
    verify,
)
from agent.domain.effects import BillingReport, OutboxAdded
from agent.domain.events import TransactionStep
from agent.domain.identity import Evidence, EvidenceKind, MatchOutcome, Vehicle
from agent.domain.ids import (
    AccountId,
    ConnectorId,
    EvseId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.meter import MeterState
from agent.domain.session import Session, Transaction
from tests.unit.domain.build import MAC_A, MAC_B, NOW, after
from tests.unit.domain.drive import AVAILABLE, CHARGING, FINISHING, PREPARING, Drive

VIN = "WEB62800000000001"
BUS = VehicleId("bus-1")
ACCOUNT = PayAccount(account_id=AccountId("acme"), vins=frozenset({VIN}))


def a_vehicle(vin: str | None = VIN) -> Vehicle:
    return Vehicle(vehicle_id=BUS, vin=vin)


def a_session(**fields) -> Session:
    return Session(
        **{
            "session_id": SessionId("S1"),
            "station_id": StationId("CP-01"),
            "evse_id": EvseId(1),
            "connector_id": ConnectorId(1),
            "ocpp_version": "ocpp1.6",
            "plugged_at": NOW,
            "match": MatchOutcome.UNIQUE,
            "vehicle_id": BUS,
            **fields,
        }
    )


def vin_hint(vin: str) -> Evidence:
    return Evidence(kind=EvidenceKind.VIN, value=vin, raw=vin, source="test", at=NOW)


def stands(account: PayAccount = ACCOUNT, *, session=None, vehicle=None, now=NOW):
    book = AccountBook.of([account])
    return verify(book, session or a_session(), vehicle or a_vehicle(), now)


# --- which account --------------------------------------------------------------------


def test_the_registrys_vin_finds_the_account_however_it_is_written():
    found = stands(vehicle=a_vehicle(" web-628000 00000001"))

    assert (found.account, found.is_good) == (ACCOUNT, True)


def test_a_vehicle_whose_vin_nobody_knows_is_found_by_its_id():
    account = replace(ACCOUNT, vins=frozenset(), vehicle_ids=frozenset({BUS}))

    assert stands(account, vehicle=a_vehicle(None)).is_good
    assert not stands(account, session=a_session(vehicle_id=VehicleId("x"))).is_good


def test_a_vin_that_the_station_reported_counts_when_the_registry_has_none():
    for session in (
        a_session(evidence=(vin_hint(VIN),)),
        a_session(evidence=(vin_hint(VIN),), match=MatchOutcome.NONE, vehicle_id=None),
    ):
        found = stands(session=session, vehicle=a_vehicle(None))
        assert (found.is_good, found.vin) == (True, VIN)


def test_two_vehicles_or_two_numbers_are_no_account():
    unsure = a_session(match=MatchOutcome.AMBIGUOUS, vin=VIN, evidence=(vin_hint(VIN),))
    assert "not certain" in stands(session=unsure).reason

    both = (vin_hint(VIN), vin_hint("WMA06XZZ000000012"))
    found = stands(
        session=a_session(match=MatchOutcome.NONE, vehicle_id=None, evidence=both)
    )
    assert (found.account, found.reason) == (
        None,
        "no account: nobody knows which vehicle it is",
    )


def test_the_number_of_another_vehicle_is_not_carried_over():
    """A session that was matched anew keeps no VIN of the vehicle before."""
    found = stands(session=a_session(vin=VIN), vehicle=a_vehicle(None))

    assert found.account is None


def test_an_account_that_is_off_or_out_of_its_dates_is_found_but_not_good():
    assert stands(replace(ACCOUNT, is_active=False)).reason == "account acme is not active"
    later = replace(ACCOUNT, valid_from=after(60))
    ended = replace(ACCOUNT, valid_until=after(60))
    for account, now, good in (
        (later, after(59), False),
        (later, after(60), True),
        (ended, after(59), True),
        (ended, after(60), False),
    ):
        found = stands(account, now=now)
        assert (found.account, found.is_good) == (account, good)


# --- what it takes from the limit -------------------------------------------------------

rules_of = st.builds(
    BillingRules,
    book=st.just(AccountBook.of([ACCOUNT])),
    is_required=st.booleans(),
    without=st.sampled_from(WithoutAccount),
)
sessions = st.builds(
    lambda unique, hint, wh: a_session(
        match=MatchOutcome.UNIQUE if unique else MatchOutcome.NONE,
        vehicle_id=BUS if unique else None,
        evidence=(vin_hint(VIN),) if hint else (),
        meter=MeterState(energy_wh=wh),
    ),
    st.booleans(),
    st.booleans(),
    st.floats(0, 100_000),
)


@given(rules_of, sessions, st.booleans())
def test_only_a_required_account_that_is_missing_lowers_a_limit(rules, session, known):
    """Without a goal in the account; and whatever lowers it says why."""
    standing = verify(rules.book, session, a_vehicle(VIN if known else None), NOW)
    given_w = grant(rules, session, standing, NOW)
    is_held = rules.is_required and not standing.is_good
    is_held = is_held and rules.without is not WithoutAccount.CHARGE

    assert (given_w is not None) is is_held
    if given_w is not None:
        assert given_w.words.startswith("no account")
        assert (given_w.ceiling is Ceiling.NOTHING) is (
            rules.without is WithoutAccount.REFUSE
        )


@given(
    st.none() | st.floats(1, 1e6),
    st.none() | st.floats(1, 100),
    st.floats(0, 2e6),
    st.none() | st.floats(0, 100),
)
def test_a_goal_once_reached_stays_reached_while_energy_grows(prepaid, stop, wh, soc):
    goal = Goal(energy_wh=prepaid, soc_percent=stop)
    now = reached(goal, charged_wh=wh, soc_percent=soc, was_reached=False)
    is_over = (prepaid is not None and wh >= prepaid) or (
        stop is not None and soc is not None and soc >= stop
    )

    assert (now is not None) is is_over
    if now is not None:
        more = None if soc is None else soc - 2.9
        assert reached(goal, charged_wh=wh + 1, soc_percent=more, was_reached=True)


def test_charging_goes_on_when_the_battery_fell_well_below_its_goal():
    goal = Goal(soc_percent=80.0)

    assert reached(goal, charged_wh=0, soc_percent=77.5, was_reached=True)
    assert not reached(goal, charged_wh=0, soc_percent=76.9, was_reached=True)


def test_energy_is_carried_on_between_two_samples_but_not_for_ever():
    running = Transaction(transaction_id=TransactionId("1"), key="k", started_at=NOW)
    meter = MeterState(energy_wh=1000, register_wh=1, register_at=NOW, power_w=36_000)
    session = a_session(transactions=(running,), meter=meter)

    assert charged_wh(session, after(60)) == 1600
    assert charged_wh(session, after(6000)) == 2200
    assert charged_wh(session, after(-60)) == 1000
    over = a_session(transactions=(replace(running, ended_at=NOW),), meter=meter)
    assert charged_wh(over, after(60)) == 1000


# --- the account of a session -----------------------------------------------------------


def check(drive: Drive, account: str | None, *, good: bool = True, why: str = "w") -> Drive:
    drive.send(
        events.AccountChecked(
            session_id=drive.only.session_id,
            account_id=AccountId(account) if account else None,
            is_good=good,
            reason=why,
            vin=VIN,
        )
    )
    return drive


def test_the_account_is_written_down_and_told_once():
    drive = Drive().status(PREPARING)
    drive.start("41", mac=MAC_A)
    check(drive, None, good=False, why="no account for VIN x")
    check(drive, None, good=False, why="no account for VIN x")
    check(check(drive, "acme"), "acme")

    told = [name for name in drive.told if name.startswith("account_")]
    assert told == ["account_missing", "account_verified"]
    assert (drive.only.account_id, drive.only.account_ok) == ("acme", True)
    assert (drive.only.vin, drive.only.account_at) == (VIN, drive.now)


def test_what_was_charged_on_an_account_stays_its_own_when_the_link_goes():
    drive = Drive().status(PREPARING)
    drive.start("41", mac=MAC_A)
    check(drive, "acme")
    check(drive, None, good=False, why="no account for VIN x")
    assert (drive.only.account_id, drive.only.account_ok) == ("acme", False)

    drive.match("bus-2")

    assert (drive.only.account_id, drive.only.account_at) == (None, None)


# --- bills ------------------------------------------------------------------------------


def bills(drive: Drive) -> list[tuple[str, BillingReport]]:
    return [
        (row.key, row.report)
        for row in drive.records
        if isinstance(row, OutboxAdded) and isinstance(row.report, BillingReport)
    ]


def test_a_bill_is_owed_in_the_decision_that_ends_the_session():
    drive = Drive().status(PREPARING)
    drive.match("bus-1")
    drive.start("41", 100_000.0)
    check(drive.status(CHARGING), "acme")
    drive.wait(600).meter(105_000.0, soc=40.0).wait(600).meter(109_000.0, soc=55.0)
    drive.stop("41", 110_000.0, "Local").status(FINISHING)
    assert bills(drive) == []
    drive.wait(60).status(AVAILABLE)

    ((key, bill),) = bills(drive)
    session = drive.only
    assert key == session.session_id == bill.session_id
    assert (bill.account_id, bill.vin, bill.vehicle_id) == ("acme", VIN, "bus-1")
    assert (bill.energy_wh, bill.meter_begin_wh, bill.meter_end_wh) == (
        10_000.0,
        100_000.0,
        110_000.0,
    )
    assert (bill.soc_start, bill.soc_end, bill.soc_source) == (40.0, 55.0, "station")
    assert (bill.started_at, bill.charging_ended_at, bill.ended_at) == (
        NOW,
        NOW + timedelta(seconds=1200),
        NOW + timedelta(seconds=1260),
    )
    assert (bill.stop_reason, bill.is_estimated, bill.corrects) == ("Local", False, None)
    assert [item.transaction_id for item in bill.transactions] == ["41"]


def test_a_vehicle_that_never_charged_is_billed_with_nothing():
    """The depot may want to know how long an outlet was blocked."""
    drive = Drive().status(PREPARING).wait(600).status(AVAILABLE)

    ((_, bill),) = bills(drive)
    assert (bill.energy_wh, bill.started_at, bill.transactions) == (0.0, None, ())


def test_a_stop_that_comes_after_the_bill_makes_one_correction():
    """And a repeat of it makes none."""
    drive = Drive().status(PREPARING)
    drive.start("41", 100_000.0, mac=MAC_A)
    drive.status(CHARGING).wait(600).meter(105_000.0, tx="41")
    drive.status(AVAILABLE).tick(61)
    ((first, bill),) = bills(drive)
    assert (bill.is_estimated, bill.energy_wh, bill.meter_end_wh) == (True, 5000.0, None)

    for _ in range(3):
        drive.stop("41", 106_000.0, "PowerLoss", ago_s=61)

    (_, (key, corrected)) = bills(drive)
    assert key == f"{first}-2"
    assert (corrected.corrects, corrected.session_id) == (first, first)
    assert (corrected.is_estimated, corrected.energy_wh) == (False, 6000.0)
    drive.check()


def test_a_late_step_of_2x_that_changes_no_fact_corrects_nothing():
    drive = Drive()
    drive.step(TransactionStep.STARTED, "t1", 0, evse=1, wh=0.0, state="Charging")
    drive.wait(600).step(TransactionStep.UPDATED, "t1", 2, wh=5000.0)
    drive.wait(60).step(TransactionStep.ENDED, "t1", 3, wh=6000.0, trigger="EVDeparted")
    drive.status(AVAILABLE)
    assert len(bills(drive)) == 1

    drive.step(TransactionStep.UPDATED, "t1", 1, wh=2000.0, ago_s=300)

    assert len(bills(drive)) == 1


def test_readings_long_after_the_end_correct_nothing():
    drive = Drive().status(PREPARING)
    drive.start("41", 100_000.0)
    drive.wait(600).stop("41", 105_000.0, "EVDisconnected").status(AVAILABLE)
    drive.wait(3600).meter(200_000.0, tx="41")

    assert len(bills(drive)) == 1


@pytest.mark.parametrize("late", [True, False])
def test_the_next_vehicle_has_a_bill_of_its_own(late):
    drive = Drive().status(PREPARING)
    drive.start("41", 100_000.0, mac=MAC_A)
    drive.wait(600)
    if not late:
        drive.stop("41", 105_000.0, "EVDisconnected").status(AVAILABLE).status(PREPARING)
    drive.start("42", 105_000.0, mac=MAC_B)
    drive.wait(600).stop("42", 108_000.0, "EVDisconnected").status(AVAILABLE)

    found = [bill for _, bill in bills(drive)]
    assert [bill.energy_wh for bill in found] == [5000.0, 3000.0]
    assert [bill.is_estimated for bill in found] == [late, False]
