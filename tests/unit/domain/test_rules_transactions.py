"""Transactions that are repeated, lost, late, queued, foreign or absurd (faults.md C, A4)."""

from __future__ import annotations

import pytest

from agent.domain import events
from agent.domain.events import ConnectorStatus
from agent.domain.ids import EvseId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.session import SessionPhase
from tests.unit.domain.build import MAC_A, MAC_B, after
from tests.unit.domain.drive import AVAILABLE, CHARGING, FINISHING, PREPARING, Drive


def _charging(*, mac=None) -> Drive:
    drive = Drive().status(PREPARING).wait(20)
    drive.start("41", mac=mac)
    return drive.status(CHARGING)


# --- C1, C2 ---------------------------------------------------------------------------


def test_c1_the_same_start_ten_times_is_one_transaction_with_one_id():
    """C1: also across a reconnect, a boot, and after its stop."""
    drive = _charging()
    for n in range(10):
        drive.wait(30).send(events.LinkOpened(ocpp_version="1.6"))
        drive.send(events.StationBooted(vendor="V", model="M"))
        assert drive.start(f"9{n}", key="key-41") == "41"
    drive.stop("41", 101_000.0, "EVDisconnected").status(AVAILABLE)

    assert drive.start("99", key="key-41") == "41"
    assert len(drive.only.transactions) == 1
    assert drive.is_free()
    drive.check()


def test_a_repeated_start_is_nothing_that_must_be_stored():
    drive = _charging()
    before = drive.changes
    drive.start("42", key="key-41")

    assert drive.changes == before


def test_a_station_whose_clock_stands_still_begins_anew_under_an_old_key():
    """Its time is ours then: another time, after the stop, is another start."""
    drive = _charging()
    drive.wait(600).stop("41", 105_000.0, "EVDisconnected").status(AVAILABLE)
    drive.wait(600).start_times.clear()

    assert drive.start("42", 105_000.0, key="key-41") == "42"
    assert drive.of("42").session_id != drive.of("41").session_id
    assert drive.at(1) == drive.of("42")


def test_c2_a_start_while_one_is_open_closes_the_older_one_as_superseded():
    """C2: with the new meter start as its end; nothing is overwritten."""
    drive = _charging()
    drive.wait(600).meter(104_000.0).wait(60).start("42", 105_000.0)
    old, new = drive.only.transactions

    assert (old.estimated, old.meter_stop_wh, old.ended_at) == (True, 105_000.0, drive.now)
    assert new.is_open
    assert "superseded by 42" in drive.only.anomalies[0]
    assert drive.only.meter.energy_wh == 5000
    assert "transaction_superseded" in drive.told
    drive.check()


def test_the_late_stop_of_a_superseded_transaction_leaves_the_new_one_alone():
    """Its own end is corrected; the vehicle that charges now goes on."""
    drive = _charging()
    drive.wait(600).start("42", 105_000.0)
    drive.wait(600).meter(107_000.0, tx="42", power_w=20_000.0)

    drive.stop("41", 104_000.0, "EVDisconnected", ago_s=700)

    session = drive.at(1)
    assert session.open_transaction is not None
    assert session.open_transaction.transaction_id == "42"
    assert session.meter.power_w == 20_000.0
    assert session.stop_reason == ""
    assert session.meter.energy_wh == 4000 + 2000
    drive.wait(60).stop("42", 108_000.0, "EVDisconnected")
    assert drive.only.meter.energy_wh == 4000 + 3000
    drive.check()


def test_a_late_stop_after_the_next_one_has_ended_takes_nothing_from_it():
    drive = _charging()
    drive.wait(600).start("42", 105_000.0)
    drive.wait(600).stop("42", 108_000.0).status(FINISHING)

    drive.wait(1).stop("41", 105_000.0, ago_s=700)

    assert drive.only.meter.energy_wh == 8000
    assert drive.at(1).phase is SessionPhase.FINISHED
    drive.check()


def test_a_stop_that_comes_after_the_session_ended_without_it_corrects_the_total_only():
    """The record stays closed, at the time when the cable was out."""
    drive = _charging()
    drive.wait(600).meter(104_000.0).status(AVAILABLE).tick(60)
    before = drive.only
    assert before.transactions[0].estimated

    drive.wait(600).stop("41", 105_000.0, "PowerLoss", ago_s=665)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.ended_at == before.ended_at
    assert drive.only.meter.energy_wh == 5000
    assert drive.only.transactions[0].estimated is False
    assert any("arrived late" in text for text in drive.only.anomalies)
    assert drive.told.count("session_ended") == 1
    drive.check()


# --- C3 -------------------------------------------------------------------------------


@pytest.mark.parametrize("tx", ["7", "9223372036854775807", "someone-elses"])
def test_c3_a_stop_for_an_unknown_transaction_is_an_orphan_and_ends_nothing(tx):
    drive = _charging()
    before = drive.at(1)

    drive.stop(tx, 101_000.0)

    assert [o.station_id for o in drive.orphans] == ["CP-01"]
    assert tx in drive.orphans[0].text
    assert drive.at(1) is before


def test_c3_a_stop_that_is_repeated_changes_nothing():
    drive = _charging()
    drive.wait(60).stop("41", 101_000.0).status(FINISHING)
    before = drive.state

    drive.wait(60).stop("41", 109_000.0, "EVDisconnected")

    assert drive.state is before
    assert drive.orphans == []


@pytest.mark.parametrize("tx", ["0", "-1", "-123", ""])
def test_a_stop_without_a_name_belongs_to_the_only_open_transaction(tx):
    """TX-01: the station never got our answer."""
    drive = _charging()
    drive.wait(60).stop(tx, 101_000.0)

    assert drive.only.phase is SessionPhase.FINISHED
    assert drive.only.meter.energy_wh == 1000
    assert f"the id {tx}" in drive.only.anomalies[0]


def test_a_stop_without_a_name_is_an_orphan_when_two_could_be_meant():
    drive = _charging()
    drive.start("42", evse=2)

    drive.stop("-1", 101_000.0)

    assert len(drive.orphans) == 1
    assert drive.at(1).open_transaction is not None
    assert drive.at(2).open_transaction is not None


def test_a_stop_without_a_name_from_before_the_start_is_an_orphan():
    drive = _charging()

    drive.stop("-1", 99_000.0, "EVDisconnected", ago_s=7200)

    assert len(drive.orphans) == 1
    assert drive.at(1).open_transaction is not None


# --- C4 -------------------------------------------------------------------------------


def test_c4_a_queue_of_a_month_is_placed_in_as_many_sessions_as_there_were_visits():
    """C4: starts, readings and stops of 100 visits at once, while a vehicle is in."""
    drive = Drive().status(CHARGING)
    wh = 100_000.0
    for n in range(100):
        ago_s = (101 - n) * 7200
        drive.start(str(n), wh, ago_s=ago_s)
        drive.meter(wh + 5000, tx=str(n), ago_s=ago_s - 1800)
        drive.stop(str(n), wh + 10_000, "EVDisconnected", ago_s=ago_s - 3600)
        wh += 10_000
        assert drive.of(str(n)).meter.energy_wh == 10_000
        assert drive.of(str(n)).ended_at == after(3600 - ago_s)
        drive.check()
    drive.start("now", wh)

    assert drive.at(1) == drive.of("now")
    assert drive.at(1).meter.energy_wh == 0


def test_a_queued_start_older_than_what_runs_is_filed_beside_it():
    drive = _charging(mac=MAC_A)
    running = drive.at(1)

    drive.start("old", 50_000.0, ago_s=7200, mac=MAC_B)
    drive.meter(51_000.0, tx="old", ago_s=7000)
    drive.stop("old", 52_000.0, ago_s=6000)

    assert drive.at(1) is running
    assert drive.of("old").phase is SessionPhase.ENDED
    assert drive.of("old").meter.energy_wh == 2000
    assert drive.of("old").session_id in drive.match_wanted
    drive.check()


# --- C6, TX-10: registers that cannot be ----------------------------------------------


def test_the_difference_of_the_stations_registers_is_the_energy():
    drive = _charging()
    drive.wait(60).meter(100_300.0).wait(60).stop("41", 101_000.0)

    assert drive.only.meter.energy_wh == 1000


def test_without_any_reading_the_stop_alone_tells_the_energy():
    drive = _charging()
    drive.wait(3600).stop("41", 150_000.0)

    assert drive.only.meter.energy_wh == 50_000


def test_a_lifetime_register_after_a_start_of_zero_is_not_the_energy():
    """TX-10: never absurd; what the samples said counts, and the record is flagged."""
    drive = Drive().status(PREPARING)
    drive.start("41", 0.0)
    for n in range(5):
        drive.wait(60).meter(5_000_000.0 + n * 500)
    drive.wait(60).stop("41", 5_002_000.0)

    assert drive.only.meter.energy_wh < 3000
    assert any("plausible" in text for text in drive.only.anomalies)
    drive.check()


def test_a_register_that_went_back_is_not_subtracted():
    drive = _charging()
    drive.wait(600).meter(103_000.0).wait(60).stop("41", 2000.0)

    assert drive.only.meter.energy_wh == 3000
    drive.check()


def test_a_register_that_was_doubted_does_not_decide_at_the_end():
    drive = _charging()
    drive.wait(600).meter(105_000.0)
    drive.wait(60).meter(100.0).wait(60).meter(600.0).wait(60).meter(1100.0)
    drive.wait(60).stop("41", 100_200.0)

    assert drive.only.meter.energy_wh == 6000
    assert any("fell" in text for text in drive.only.anomalies)


def test_a_stop_dated_before_its_start_still_ends_it():
    """CLK-04: the station's clock was set in between."""
    drive = _charging()
    drive.wait(3600).meter(120_000.0).stop("41", 121_000.0, ago_s=86_400)

    (done,) = drive.only.transactions
    assert done.ended_at == done.started_at
    assert drive.only.meter.energy_wh == 21_000
    drive.check()


# --- C7: readings out of time -----------------------------------------------------------


def test_c7_readings_after_the_stop_change_no_total_and_revive_nothing():
    """TX-07."""
    drive = _charging()
    drive.wait(600).stop("41", 105_000.0).status(FINISHING)
    for _ in range(3):
        drive.wait(10).meter(109_000.0, tx="41", power_w=50_000.0, soc=12.0)

    assert drive.only.phase is SessionPhase.FINISHED
    assert (drive.only.meter.energy_wh, drive.only.meter.power_w) == (5000, 0.0)
    assert drive.only.anomalies == ()


def test_c7_readings_long_after_the_stop_are_suspect():
    drive = _charging()
    drive.wait(600).stop("41", 105_000.0, "EVDisconnected").status(AVAILABLE)
    drive.wait(61).meter(109_000.0, tx="41")

    assert drive.only.anomalies == ("meter values long after the stop",)
    assert drive.only.meter.energy_wh == 5000
    assert drive.only.phase is SessionPhase.ENDED


def test_c7_readings_from_long_before_the_start_are_suspect_and_not_counted():
    drive = _charging()
    drive.wait(10).meter(100_400.0, tx="41", power_w=9000.0, ago_s=120)

    assert drive.at(1).meter.energy_wh == 0
    assert drive.at(1).anomalies == ("meter values from before the start",)


def test_a_reading_a_moment_before_the_start_is_normal():
    """CLK-06."""
    drive = _charging()
    drive.meter(100_000.0, tx="41", soc=40.0, ago_s=20)

    assert drive.at(1).anomalies == ()
    assert drive.at(1).meter.soc_first == 40.0


def test_readings_before_a_transaction_tell_the_state_of_charge_only():
    drive = Drive().status(PREPARING)
    drive.meter(100_000.0, soc=33.0).wait(60).meter(100_900.0, soc=33.0)

    assert (drive.at(1).meter.soc_first, drive.at(1).meter.energy_wh) == (33.0, 0)
    assert drive.at(1).meter.register_wh is None


def test_readings_inside_a_stop_count_when_they_lie_inside_its_transaction():
    drive = _charging()
    drive.wait(600)
    inside = [MeterReading(after(20 + s), soc_percent=s / 10) for s in (100, 590)]
    outside = [MeterReading(after(s), soc_percent=99.0) for s in (-5, 700)]
    drive.send(
        events.TransactionEnded(
            transaction_id=TransactionId("41"),
            at=drive.now,
            meter_stop_wh=101_000.0,
            readings=(outside[0], *inside, outside[1]),
        )
    )

    assert (drive.only.meter.soc_first, drive.only.meter.soc_percent) == (10.0, 59.0)


def test_readings_without_an_outlet_belong_to_the_only_vehicle_or_to_none():
    """MTR-11."""
    drive = _charging()
    drive.wait(60).meter(100_500.0, evse=0).wait(60).meter(101_000.0, evse=None)
    assert drive.at(1).meter.energy_wh == 1000

    drive.start("42", evse=2)
    drive.wait(60).meter(102_000.0, evse=0)

    assert drive.at(1).meter.energy_wh == 1000
    assert drive.at(2).meter.energy_wh == 0


def test_readings_follow_their_transaction_whatever_outlet_they_name():
    drive = _charging()
    drive.start("42", 500_000.0, evse=2)
    drive.wait(60).meter(101_000.0, tx="41", evse=2)

    assert drive.at(1).meter.energy_wh == 1000
    assert drive.at(2).meter.energy_wh == 0


def test_readings_of_nobody_change_nothing():
    drive = Drive()
    before = drive.state
    drive.meter(1.0).meter(1.0, tx="41").meter(1.0, tx="-1", evse=9)

    assert drive.state is before


# --- A4: another station's transaction --------------------------------------------------


def test_a4_no_message_of_one_station_touches_the_transaction_of_another():
    """CVE-2026-28230: same ids, every message that carries one."""
    alice, mallory = _charging(), Drive("CP-02")
    before = alice.state
    mallory.stop("41", 999_000.0, "EVDisconnected")
    mallory.meter(999_000.0, tx="41").meter(999_000.0, tx="41", evse=None)
    mallory.match("bus-9", alice.at(1)).bind("slot-9", alice.at(1))

    assert alice.state is before
    assert mallory.sessions == []
    assert len(mallory.orphans) == 1


def test_a_foreign_stop_does_not_end_the_intruders_own_transaction():
    mallory = Drive("CP-02").status(PREPARING)
    mallory.start("77")
    before = mallory.at(1)

    mallory.stop("41", 999_000.0)

    assert mallory.at(1) is before
    assert len(mallory.orphans) == 1


def test_findings_about_unknown_sessions_are_ignored():
    drive, other = Drive(), _charging()
    drive.match("bus-1", other.at(1)).bind("slot-1", other.at(1))
    before = drive.state
    drive.send(events.AnomalyNoted(text="odd", evse_id=EvseId(5)))

    assert drive.state is before


def test_an_oddity_of_an_outlet_is_kept_with_its_session_once():
    drive = _charging()
    for _ in range(3):
        drive.send(events.AnomalyNoted(text="odd", evse_id=EvseId(1)))
    drive.send(events.AnomalyNoted(text="of the station"))

    assert drive.at(1).anomalies == ("odd",)


def test_c11_a_reboot_in_the_middle_ends_nothing():
    """C11, TX-05."""
    drive = _charging()
    drive.wait(60).meter(101_000.0)
    drive.send(events.LinkClosed())
    drive.send(events.LinkOpened(ocpp_version="1.6"))
    drive.send(events.StationBooted(vendor="V", model="M"))
    drive.status(ConnectorStatus.CHARGING).wait(60).meter(102_000.0, tx="41").tick(60)

    assert drive.at(1).meter.energy_wh == 2000
    assert drive.at(1).open_transaction is not None
