"""Whose session it is: tokens, late hints, findings that change, and slots."""

from __future__ import annotations

import pytest

from agent.domain.effects import CandidateSeen
from agent.domain.events import VehicleMatched
from agent.domain.identity import EvidenceKind, Match, MatchOutcome
from tests.unit.domain.build import MAC_A, MAC_B, evidence_of
from tests.unit.domain.drive import AVAILABLE, PREPARING, Drive


def _values(session) -> list[str]:
    return [item.value for item in session.evidence]


# --- tokens and hints -----------------------------------------------------------------


def test_a_token_after_the_plug_belongs_to_the_vehicle_that_waits():
    drive = Drive().status(PREPARING).token("VID:1", evidence_of(MAC_A))

    assert drive.at(1).id_token == "VID:1"
    assert _values(drive.at(1)) == [MAC_A]
    assert drive.match_wanted == [drive.at(1).session_id]


def test_a_token_before_the_plug_waits_for_its_vehicle_two_minutes():
    early = Drive().token("VID:1", evidence_of(MAC_A)).wait(120).status(PREPARING)
    late = Drive().token("VID:1", evidence_of(MAC_A)).wait(121).status(PREPARING)

    assert _values(early.at(1)) == [MAC_A]
    assert early.state.pending == ()
    assert _values(late.at(1)) == []


def test_a_token_is_used_for_one_vehicle_only():
    drive = Drive().token("VID:1", evidence_of(MAC_A)).status(PREPARING)
    drive.status(AVAILABLE).status(PREPARING)

    assert _values(drive.at(1)) == []


def test_two_tokens_before_one_plug_are_nobodys():
    drive = Drive().token("VID:1", evidence_of(MAC_A)).token("VID:2", evidence_of(MAC_B))
    drive.status(PREPARING)

    assert _values(drive.at(1)) == []


def test_a_token_while_two_vehicles_wait_is_nobodys():
    drive = Drive().status(PREPARING).status(PREPARING, evse=2)
    drive.token("VID:1", evidence_of(MAC_A))

    assert _values(drive.at(1)) == _values(drive.at(2)) == []


def test_a_token_is_for_the_vehicle_that_waits_not_for_the_one_that_charges():
    drive = Drive().status(PREPARING)
    drive.start("41")
    drive.status(PREPARING, evse=2).token("VID:1", evidence_of(MAC_A))

    assert _values(drive.at(1)) == []
    assert _values(drive.at(2)) == [MAC_A]


def test_a_token_that_names_its_outlet_waits_for_the_plug_there():
    """Not for the vehicle that happens to wait at the other outlet."""
    drive = Drive().status(PREPARING).token("VID:1", evidence_of(MAC_A), evse=2)
    assert _values(drive.at(1)) == []

    drive.status(PREPARING, evse=2)

    assert _values(drive.at(2)) == [MAC_A]


def test_a_token_for_one_outlet_is_not_given_to_a_plug_at_another():
    drive = Drive().token("VID:1", evidence_of(MAC_A), evse=2).status(PREPARING)

    assert _values(drive.at(1)) == []
    assert len(drive.state.pending) == 1


def test_waiting_tokens_are_bounded():
    drive = Drive()
    for n in range(1000):
        drive.token(f"CARD-{n}")

    assert len(drive.state.pending) <= 8


def test_a_hint_that_names_its_outlet_waits_for_the_plug_there():
    drive = Drive().status(PREPARING)
    drive.start("41", mac=MAC_A)
    drive.hint(MAC_B, evse=2).status(PREPARING, evse=2)

    assert _values(drive.at(1)) == [MAC_A]
    assert _values(drive.at(2)) == [MAC_B]


def test_a_hint_without_an_outlet_belongs_to_the_only_vehicle():
    """EV-11: also long after the start, and with its state of charge."""
    drive = Drive().status(PREPARING)
    drive.start("41")
    drive.wait(600).hint(MAC_A, soc=37.0)

    assert _values(drive.at(1)) == [MAC_A]
    assert drive.at(1).meter.soc_first == 37.0


def test_a_hint_for_connector_zero_names_no_outlet():
    drive = Drive().status(PREPARING).hint(MAC_A, evse=0)

    assert _values(drive.at(1)) == [MAC_A]


def test_a_hint_while_two_vehicles_are_in_is_nobodys():
    drive = Drive().status(PREPARING).status(PREPARING, evse=2).hint(MAC_A)

    assert _values(drive.at(1)) == _values(drive.at(2)) == []


def test_the_same_hint_again_asks_for_no_new_matching():
    drive = Drive().status(PREPARING)
    for _ in range(5):
        drive.hint(MAC_A, evse=1)

    assert len(drive.match_wanted) == 1


# --- findings -----------------------------------------------------------------------------


def test_a_finding_is_kept_with_its_reason_and_told_once():
    drive = Drive().status(PREPARING).match("bus-1").match("bus-1")

    assert (drive.at(1).vehicle_id, drive.at(1).match) == ("bus-1", MatchOutcome.UNIQUE)
    assert drive.at(1).matched_at == drive.now
    assert drive.told.count("vehicle_matched") == 1


def test_an_unknown_address_becomes_a_candidate_for_enrolment():
    drive = Drive().status(PREPARING)
    match = Match(outcome=MatchOutcome.NONE, mac=MAC_A, reason="unknown")
    event = VehicleMatched(session_id=drive.at(1).session_id, match=match)
    drive.send(event)
    drive.send(event)

    found = [item for item in drive.records if isinstance(item, CandidateSeen)]
    assert [(item.mac, item.station_id) for item in found] == [(MAC_A, "CP-01")]


def test_another_vehicle_does_not_inherit_the_slot():
    drive = Drive().status(PREPARING).match("bus-1").bind("slot-1").match("bus-2")

    assert (drive.at(1).vehicle_id, drive.at(1).schedule_id) == ("bus-2", None)


def test_a_vehicle_in_doubt_has_no_slot():
    drive = Drive().status(PREPARING).match("bus-1").bind("slot-1").match(None)

    assert (drive.at(1).vehicle_id, drive.at(1).schedule_id) == (None, None)


def test_the_same_vehicle_by_another_address_keeps_its_slot():
    drive = Drive().status(PREPARING).match("bus-1").bind("slot-1")
    match = Match(outcome=MatchOutcome.UNIQUE, vehicle_id=drive.at(1).vehicle_id, mac=MAC_B)
    drive.send(VehicleMatched(session_id=drive.at(1).session_id, match=match))

    assert drive.at(1).schedule_id == "slot-1"


def test_a_finding_after_the_end_changes_nothing():
    drive = Drive().status(PREPARING).status(AVAILABLE)
    before = drive.state
    drive.match("bus-1", drive.only).bind("slot-1", drive.only)

    assert drive.state is before


def test_a_token_that_says_nothing_new_changes_nothing():
    drive = Drive().status(PREPARING).token("CARD")
    token = evidence_of("CARD", EvidenceKind.ID_TOKEN)
    drive.token("CARD", token)
    before = drive.state
    drive.token("CARD", token)

    assert drive.state is before


# --- reports --------------------------------------------------------------------------------


def _matched(schedule: str | None = "slot-1", *, soc: float | None = 55.0) -> Drive:
    drive = Drive().status(PREPARING).match("bus-1")
    return drive.bind(schedule, soc=soc) if schedule else drive


def _end(drive: Drive) -> Drive:
    drive.wait(600).stop("41", 105_000.0, "EVDisconnected").status(AVAILABLE).tick(60)
    drive.check()
    return drive


def test_a_matched_session_reports_its_arrival_once_and_its_end_once():
    drive = _matched()
    drive.start("41")
    for n in range(5):
        drive.wait(60).meter(100_000.0 + 500 * n, soc=40.0 + n)
    _end(drive)

    (arrival,) = drive.start_socs
    (end,) = drive.ends
    assert (arrival.vehicle_id, arrival.schedule_id) == ("bus-1", "slot-1")
    assert arrival.soc_percent == 40.0
    assert (end.vehicle_id, end.schedule_id) == ("bus-1", "slot-1")
    assert sum(slot[1] for slot in end.slots) == pytest.approx(5000)
    assert (end.first_at, end.charging_ended_at) == (
        drive.only.transactions[0].started_at,
        drive.only.transactions[0].ended_at,
    )


def test_the_schedules_own_estimate_is_confirmed_after_two_minutes_of_silence():
    drive = _matched()
    drive.start("41")
    drive.tick(119)
    assert drive.start_socs == []

    drive.tick(1)
    drive.tick(60)

    assert [r.soc_percent for r in drive.start_socs] == [55.0]
    drive.wait(60).meter(100_500.0, soc=41.0)
    assert len(_end(drive).start_socs) == 1


def test_a_state_of_charge_that_was_said_before_the_match_is_reported_with_it():
    drive = Drive().status(PREPARING)
    drive.start("41")
    drive.wait(30).meter(100_100.0, soc=40.0).wait(60)
    drive.match("bus-1").bind("slot-1", soc=55.0)

    assert [r.soc_percent for r in drive.start_socs] == [40.0]


def test_a_short_visit_reports_the_estimate_at_its_end():
    drive = _matched()
    drive.start("41")
    drive.wait(30).stop("41", 100_100.0, "EVDisconnected")

    assert [r.soc_percent for r in drive.start_socs] == [55.0]
    assert len(drive.ends) == 1


def test_a_state_of_charge_before_the_start_is_reported_when_it_is_known():
    drive = _matched().wait(5).meter(soc=33.0)

    assert [r.soc_percent for r in drive.start_socs] == [33.0]


def test_without_any_state_of_charge_only_the_end_is_reported():
    drive = _matched(soc=None)
    drive.start("41")

    assert _end(drive).start_socs == []
    assert len(drive.ends) == 1


@pytest.mark.parametrize("vehicle", [None, "bus-1"])
def test_without_a_match_or_without_a_slot_nothing_is_owed(vehicle):
    drive = Drive().status(PREPARING)
    drive.start("41")
    drive.match(vehicle).wait(60).meter(100_500.0, soc=40.0)
    if vehicle is None:
        drive.bind("slot-1", soc=55.0)

    owed = [row.destination for row in _end(drive).owed]
    assert owed == ["billing"]


def test_a_visit_without_charging_owes_no_end():
    drive = _matched().wait(60).status(AVAILABLE)

    assert drive.ends == []


def test_a_session_that_is_matched_late_still_reports_both():
    """Late binding: the plan and the vehicle become known in the middle."""
    drive = Drive().status(PREPARING)
    drive.start("41")
    drive.wait(600).meter(102_000.0, soc=45.0).hint(MAC_A)
    drive.match("bus-1").wait(10).bind("slot-1")
    _end(drive)

    assert [r.soc_percent for r in drive.start_socs] == [45.0]
    assert len(drive.ends) == 1
    assert sum(slot[1] for slot in drive.ends[0].slots) == pytest.approx(5000)


def test_a_session_that_moves_to_another_slot_reports_its_arrival_there_too():
    drive = _matched()
    drive.start("41")
    drive.wait(10).meter(100_100.0, soc=40.0).bind("slot-2")
    _end(drive)

    assert [r.schedule_id for r in drive.start_socs] == ["slot-1", "slot-2"]
    assert [r.schedule_id for r in drive.ends] == ["slot-2"]


def test_a_finding_that_is_revised_reports_the_arrival_of_the_right_vehicle():
    drive = _matched()
    drive.start("41")
    drive.wait(10).meter(100_100.0, soc=40.0)
    drive.match("bus-2").bind("slot-2")
    _end(drive)

    assert [(r.vehicle_id, r.schedule_id) for r in drive.start_socs] == [
        ("bus-1", "slot-1"),
        ("bus-2", "slot-2"),
    ]
    assert [r.vehicle_id for r in drive.ends] == ["bus-2"]


def test_a_doubt_that_passes_does_not_report_the_arrival_twice():
    """The key is the same; the outbox takes it once."""
    drive = _matched()
    drive.start("41")
    drive.wait(10).meter(100_100.0, soc=40.0)
    drive.match(None).match("bus-1").bind("slot-1")
    _end(drive)

    assert len(drive.start_socs) == 1


def test_two_charges_of_one_plug_are_one_report():
    drive = _matched()
    drive.start("41")
    drive.wait(600).stop("41", 105_000.0)
    drive.status(PREPARING).wait(60).start("42", 105_000.0)
    drive.wait(600).stop("42", 109_000.0, "EVDisconnected")
    drive.check()

    (end,) = drive.ends
    assert sum(slot[1] for slot in end.slots) == pytest.approx(9000)
    assert end.first_at == drive.only.transactions[0].started_at
    assert end.last_at == drive.only.transactions[1].ended_at
