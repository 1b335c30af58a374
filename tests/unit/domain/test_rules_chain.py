"""TransactionEvent of 2.x: any order, repeats, gaps, lost starts, TxStartPoint variants."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import pytest

from agent.domain import events
from agent.domain.events import (
    ChargingNeedsReported,
    ChargingState,
    ConnectorStatus,
    EvNeeds,
    ExternalLimitChanged,
    TransactionChecked,
    TransactionReported,
    TransactionStep,
)
from agent.domain.ids import ConnectorId, EvseId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.session import SeqRanges, SessionPhase, add_seq, missing_seqs
from tests.unit.domain.build import MAC_A, NOW, evidence_of
from tests.unit.domain.drive import Drive

STARTED, UPDATED, ENDED = TransactionStep
TX = TransactionId("9f1c0b7e-aa")
NAMED = evidence_of(MAC_A)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def step(kind: TransactionStep, seq_no: int | None, seconds: float, **more):
    """Build a step; ``wh`` becomes a reading of the register at its time."""
    wh = more.pop("wh", None)
    readings = (MeterReading(at(seconds), register_wh=wh),) if wh is not None else ()
    more.setdefault("transaction_id", TX)
    more.setdefault("readings", readings)
    return TransactionReported(step=kind, seq_no=seq_no, at=at(seconds), **more)


def five(*, evse_in: int = 0):
    """A transaction of five steps; only one of them names the EVSE."""
    steps: list[tuple[TransactionStep, float, float, dict[str, object]]] = [
        (STARTED, 0.0, 5000.0, {"id_token": "VID", "evidence": (NAMED,)}),
        (UPDATED, 60.0, 6000.0, {"charging_state": ChargingState.CHARGING}),
        (UPDATED, 120.0, 7500.0, {}),
        (UPDATED, 180.0, 8200.0, {}),
        (ENDED, 240.0, 9000.0, {"reason": "EVDisconnected"}),
    ]
    made = []
    for index, (kind, seconds, wh, more) in enumerate(steps):
        where: dict[str, object] = {"evse_id": EvseId(2), "connector_id": ConnectorId(1)}
        named = more | (where if index == evse_in else {})
        made.append(step(kind, index, seconds, wh=wh, **named))
    return made


def a_drive(*, plugged: bool = False, outlets: int = 2) -> Drive:
    drive = Drive()
    for number in range(1, outlets + 1):
        status(drive, number, ConnectorStatus.AVAILABLE)
    if plugged:
        status(drive, 2, ConnectorStatus.OCCUPIED)
    drive.now = at(240)
    return drive


def status(drive: Drive, evse: int, found: ConnectorStatus) -> None:
    drive.send(
        events.ConnectorChanged(
            evse_id=EvseId(evse), connector_id=ConnectorId(1), status=found, at=drive.now
        )
    )


def evidence_at(drive: Drive, evse: int):
    session = drive.state.session_at(EvseId(evse))
    assert session is not None
    return session.evidence


def only_session(drive: Drive):
    sessions = list(drive.state.sessions.values())
    assert len(sessions) == 1, [item.session_id for item in sessions]
    return sessions[0]


def settle(drive: Drive) -> None:
    drive.wait(61).send(events.Ticked())
    drive.wait(61).send(events.Ticked())


@pytest.mark.parametrize("plugged", [False, True])
@pytest.mark.parametrize("order", list(permutations(range(5))))
def test_c5_all_orders_of_five_steps_give_one_session_with_the_right_energy(order, plugged):
    drive = a_drive(plugged=plugged)
    steps = five()
    for index in order:
        drive.send(steps[index])
    settle(drive)
    session = only_session(drive)
    assert session.phase is SessionPhase.ENDED
    assert session.meter.energy_wh == pytest.approx(4000.0)
    assert session.evse_id == 2
    assert [item.transaction_id for item in session.transactions] == [TX]
    assert session.transactions[0].started_at == at(0)
    assert session.transactions[0].ended_at == at(240)
    assert NAMED in session.evidence
    assert not drive.state.held
    assert sum(slot[1] for slot in session.meter.history) == pytest.approx(4000.0)
    assert session.anomalies == ()


@pytest.mark.parametrize("seed", range(60))
def test_c5_orders_with_repeats_give_the_same_record(seed):
    chance = random.Random(seed)
    steps = five() + chance.choices(five(), k=chance.randint(1, 6))
    chance.shuffle(steps)
    drive = a_drive(plugged=chance.random() < 0.5)
    for item in steps:
        drive.send(item)
    settle(drive)
    session = only_session(drive)
    assert session.phase is SessionPhase.ENDED
    assert session.meter.energy_wh == pytest.approx(4000.0)
    assert len(session.transactions) == 1
    assert session.anomalies == ()


@pytest.mark.parametrize("evse_in", range(4))
def test_the_evse_may_be_named_in_any_step(evse_in):
    drive = a_drive()
    for item in five(evse_in=evse_in):
        drive.send(item)
    settle(drive)
    session = only_session(drive)
    assert (session.evse_id, session.meter.energy_wh) == (2, pytest.approx(4000.0))


def test_c5_a_missing_step_is_named_and_the_energy_is_right():
    drive = a_drive()
    for item in five():
        if item.seq_no not in (1, 2):
            drive.send(item)
    session = only_session(drive)
    assert session.meter.energy_wh == pytest.approx(4000.0)
    assert any("events 1 to 2" in text for text in session.anomalies)


def test_a_station_whose_numbers_never_move_loses_nothing():
    drive = a_drive()
    for item in five():
        drive.send(
            step(
                item.step,
                0,
                (item.at - NOW).total_seconds(),
                readings=item.readings,
                evse_id=EvseId(1),
                reason=item.reason,
            )
        )
    session = only_session(drive)
    assert session.meter.energy_wh == pytest.approx(4000.0)
    assert session.anomalies == ()


def test_a_stop_whose_start_never_comes_is_kept_after_a_wait():
    drive = a_drive()
    drive.send(step(ENDED, 4, 240, wh=9000.0, reason="Local"))
    assert not drive.state.sessions
    assert drive.state.held
    settle(drive)
    session = only_session(drive)
    assert not session.transactions[0].is_open
    assert any("never came" in text for text in session.anomalies)
    assert not drive.state.held


def test_an_update_without_its_start_begins_the_session_at_once():
    drive = a_drive()
    drive.send(step(UPDATED, 3, 180, wh=8000.0, evse_id=EvseId(2)))
    session = only_session(drive)
    assert session.open_transaction is not None
    assert drive.state.session_at(EvseId(2)) is session


def test_a_session_starts_at_the_cable_and_takes_its_token_later():
    """TxStartPoint EVConnected: Started names nobody, a later step does."""
    drive = a_drive()
    drive.send(
        step(
            STARTED,
            0,
            0,
            evse_id=EvseId(1),
            trigger="CablePluggedIn",
            charging_state=ChargingState.EV_CONNECTED,
        )
    )
    assert only_session(drive).evidence == ()
    drive.send(step(UPDATED, 1, 5, trigger="Authorized", id_token=MAC_A, evidence=(NAMED,)))
    session = only_session(drive)
    assert session.evidence == (NAMED,)
    assert session.id_token == MAC_A


def test_charging_states_are_shown_in_the_words_of_all_versions():
    drive = a_drive(plugged=True)
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2)))
    for state in (ChargingState.CHARGING, ChargingState.SUSPENDED_EVSE):
        drive.send(step(UPDATED, None, drive.events, charging_state=state))
        status(drive, 2, ConnectorStatus.OCCUPIED)
        assert drive.state.evses[EvseId(2)].status is state.as_status


def test_a_late_state_does_not_overwrite_a_newer_one():
    drive = a_drive()
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2)))
    drive.send(step(UPDATED, 2, 20, charging_state=ChargingState.SUSPENDED_EV))
    drive.send(step(UPDATED, 1, 10, charging_state=ChargingState.CHARGING))
    assert drive.state.evses[EvseId(2)].status is ConnectorStatus.SUSPENDED_EV


def test_a_stop_by_the_driver_keeps_the_session_until_the_cable_is_out():
    drive = a_drive(plugged=True)
    drive.send(step(STARTED, 0, 0, wh=100.0, evse_id=EvseId(2)))
    drive.send(step(ENDED, 1, 60, wh=600.0, reason="Local", trigger="StopAuthorized"))
    drive.wait(30).send(events.Ticked())
    assert only_session(drive).phase is SessionPhase.FINISHED
    status(drive, 2, ConnectorStatus.AVAILABLE)
    session = only_session(drive)
    assert (session.phase, session.meter.energy_wh) == (SessionPhase.ENDED, 500.0)


def test_a_queued_start_is_doubted_until_a_live_step():
    drive = a_drive()
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2), offline=True))
    assert only_session(drive).transactions[0].is_doubted
    drive.send(step(UPDATED, 1, 10, wh=10.0))
    assert not only_session(drive).transactions[0].is_doubted


def test_a_queued_start_is_believed_when_the_station_says_that_it_runs():
    drive = a_drive()
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2), offline=True))
    drive.send(TransactionChecked(transaction_id=TX, is_ongoing=True))
    assert not only_session(drive).transactions[0].is_doubted


def test_not_ongoing_ends_only_what_is_not_plugged():
    drive = a_drive(plugged=True)
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2)))
    gone = TransactionChecked(transaction_id=TX, is_ongoing=False)
    drive.send(gone)
    assert only_session(drive).phase is SessionPhase.CHARGING
    drive.send(step(UPDATED, 1, 10, charging_state=ChargingState.IDLE))
    status(drive, 2, ConnectorStatus.AVAILABLE)
    drive.send(gone)
    assert only_session(drive).phase is SessionPhase.ENDED


def test_needs_are_kept_and_their_soc_counts():
    drive = a_drive(plugged=True)
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(2)))
    needs = EvNeeds(at=drive.now, tuples_max=12, energy_wh=40_000.0, soc_percent=31.0)
    drive.send(ChargingNeedsReported(evse_id=EvseId(2), needs=needs))
    session = only_session(drive)
    assert session.needs is needs
    assert session.meter.soc_percent == 31.0


def test_limits_of_another_master_are_kept_and_let_go():
    drive = a_drive()
    for evse, watts in ((0, 50_000.0), (2, 11_000.0)):
        drive.send(ExternalLimitChanged(evse_id=EvseId(evse), source="EMS", limit_w=watts))
    assert drive.state.external_w == {0: 50_000.0, 2: 11_000.0}
    drive.send(ExternalLimitChanged(evse_id=EvseId(2), source="EMS", limit_w=None))
    assert drive.state.external_w == {0: 50_000.0}


def test_sequence_numbers_are_kept_as_ranges():
    seen: SeqRanges = ()
    for number in (5, 6, 9, 8, 5, 12):
        seen = add_seq(seen, number)
    assert seen == ((5, 6), (8, 9), (12, 12))
    assert missing_seqs(seen) == [(7, 7), (10, 11)]


def test_a_token_without_an_outlet_is_taken_back_when_it_is_known_where_it_belongs():
    """Two vehicles at one station: the Authorize of one is not the other's (A1)."""
    guess = replace(evidence_of(MAC_A), source="Authorize")
    drive = a_drive()
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(1), transaction_id="tx-1"))
    drive.send(events.IdTokenPresented(id_token="A", evidence=(guess,)))
    assert evidence_at(drive, 1) == (guess,)
    status(drive, 2, ConnectorStatus.OCCUPIED)
    drive.send(
        step(
            STARTED,
            0,
            5,
            evse_id=EvseId(2),
            transaction_id="tx-2",
            id_token="A",
            evidence=(NAMED,),
        )
    )
    assert evidence_at(drive, 1) == ()
    assert evidence_at(drive, 2) == (NAMED,)


def test_a_kept_token_is_not_given_to_the_next_vehicle_once_it_was_claimed():
    guess = replace(evidence_of(MAC_A), source="Authorize")
    drive = a_drive()
    for evse in (1, 2):
        status(drive, evse, ConnectorStatus.OCCUPIED)
    drive.send(events.IdTokenPresented(id_token="A", evidence=(guess,)))
    drive.send(step(STARTED, 0, 0, evse_id=EvseId(1), id_token="A", evidence=(NAMED,)))
    assert drive.state.pending == ()
    assert evidence_at(drive, 2) == ()
