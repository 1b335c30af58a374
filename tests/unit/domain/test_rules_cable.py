"""The session machine: plug, charge, unplug, in the orders that stations choose."""

from __future__ import annotations

import itertools

import pytest

from agent.domain import events
from agent.domain.curve import floor_tenth
from agent.domain.effects import PowerChanged
from agent.domain.events import ConnectorStatus
from agent.domain.ids import ConnectorId, EvseId
from agent.domain.session import ANOMALIES_MAX, SessionPhase
from agent.domain.station import EVSES_MAX, RECENT_SESSIONS_MAX
from tests.unit.domain.build import MAC_A, MAC_B
from tests.unit.domain.drive import AVAILABLE, CHARGING, FINISHING, PREPARING, Drive

PLUGGED = [status for status in ConnectorStatus if status.opens_session]


def _a_charging_station() -> Drive:
    drive = Drive()
    drive.status(PREPARING).wait(20)
    drive.start("41")
    drive.status(CHARGING)
    return drive


# --- plug and unplug ----------------------------------------------------------------


def test_a_whole_visit_is_one_session_with_its_energy():
    drive = _a_charging_station()
    drive.wait(60).meter(101_000.0).wait(60).meter(102_000.0)
    drive.wait(60).status(FINISHING).stop("41", 102_500.0)
    drive.wait(60).status(AVAILABLE)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.meter.energy_wh == 2500
    assert drive.only.anomalies == ()
    assert drive.told == [
        "vehicle_plugged",
        "session_started",
        "transaction_ended",
        "session_ended",
    ]
    drive.check()


@pytest.mark.parametrize("status", PLUGGED)
def test_every_status_of_a_plugged_vehicle_opens_one_session(status):
    drive = Drive().status(status).status(status)

    assert drive.at(1).phase is SessionPhase.PLUGGED


@pytest.mark.parametrize("status", [s for s in ConnectorStatus if not s.opens_session])
def test_no_other_status_opens_a_session(status):
    assert Drive().status(status).is_free()


def test_the_whole_station_has_a_status_but_no_session():
    drive = Drive().status(CHARGING, evse=0)

    assert drive.sessions == []
    assert drive.state.station_status is CHARGING


def test_a_vehicle_that_leaves_without_charging_ends_its_session():
    drive = Drive().status(PREPARING).wait(60).status(AVAILABLE)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.is_free()


def test_a_fault_or_a_reservation_does_not_end_a_session():
    drive = _a_charging_station()
    for status in (ConnectorStatus.FAULTED, ConnectorStatus.UNAVAILABLE):
        drive.wait(100).status(status).tick()

    assert drive.at(1).open_transaction is not None


def test_c14_unplug_and_plug_within_a_second_are_two_sessions():
    """C14."""
    drive = Drive().status(PREPARING).wait(0.5).status(AVAILABLE).wait(0.5)
    drive.status(PREPARING)

    assert [s.phase for s in drive.sessions] == [SessionPhase.ENDED, SessionPhase.PLUGGED]


def test_c14_flapping_while_charging_is_one_session_and_flapping_twice_writes_nothing():
    """C14: 10 Hz for ten minutes; a status that repeats is no news."""
    drive = _a_charging_station()
    for _ in range(6000):
        drive.wait(0.05).status(ConnectorStatus.SUSPENDED_EV)
        drive.wait(0.05).status(CHARGING)
    drive.status(FINISHING)
    before = drive.changes
    for _ in range(100):
        drive.wait(0.1).status(FINISHING)

    assert drive.only.open_transaction is not None
    assert drive.changes == before


def test_c14_flapping_between_plugged_and_free_keeps_bounded_memory():
    drive = Drive()
    for _ in range(200):
        drive.wait(0.1).status(PREPARING).wait(0.1).status(AVAILABLE)

    assert len(drive.sessions) <= RECENT_SESSIONS_MAX + 1
    assert drive.is_free()
    drive.check()


def test_c12_more_outlets_than_any_station_has_are_not_remembered():
    """C12."""
    drive = Drive()
    for number in range(1, 300):
        drive.status(PREPARING, evse=number)

    assert len(drive.state.evses) == EVSES_MAX
    assert len(drive.sessions) == EVSES_MAX
    drive.check()


# --- Available against Stop ------------------------------------------------------------


def test_available_before_the_stop_gives_the_stop_a_minute():
    """TX-06: the stop's own register counts."""
    drive = _a_charging_station()
    drive.wait(600).status(AVAILABLE).tick(59)
    assert drive.at(1).open_transaction is not None

    drive.stop("41", 110_000.0)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.meter.energy_wh == 10_000
    assert drive.only.transactions[0].estimated is False
    drive.check()


def test_after_a_minute_of_available_the_session_ends_without_its_stop():
    """TX-04: at the time when the cable was seen to be out."""
    drive = _a_charging_station()
    drive.wait(600).meter(105_000.0).status(AVAILABLE)
    seen_at = drive.now
    drive.tick(60)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.ended_at == seen_at
    assert drive.only.transactions[0].estimated
    assert "never stopped" in drive.only.anomalies[0]
    assert drive.only.meter.energy_wh == 5000


def test_a_status_that_shows_the_vehicle_again_stops_the_minute():
    drive = _a_charging_station()
    drive.status(AVAILABLE).wait(30).status(CHARGING).tick(300)

    assert drive.at(1).open_transaction is not None


def test_available_that_was_said_before_the_start_does_not_end_the_session():
    drive = Drive().status(AVAILABLE)
    drive.start("41")
    drive.tick(3600)

    assert drive.at(1).open_transaction is not None


def test_available_said_again_after_a_start_without_any_status_ends_the_ghost():
    """The station lost power in between and never told of its vehicle."""
    drive = Drive().status(AVAILABLE)
    drive.start("41")
    drive.wait(600).status(AVAILABLE).tick(60)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.is_free()


def test_available_repeated_does_not_begin_the_minute_again():
    drive = _a_charging_station()
    for _ in range(6):
        drive.status(AVAILABLE).tick(10)

    assert drive.only.phase is SessionPhase.ENDED


def test_a_stop_for_a_pulled_cable_ends_the_session_at_once():
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0, "EVDisconnected")

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.stop_reason == "EVDisconnected"


def test_a_stop_that_no_status_follows_counts_as_unplugged_after_15_seconds():
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0).tick(14)
    assert not drive.is_free()

    drive.tick(1)

    assert drive.only.phase is SessionPhase.ENDED
    assert drive.only.ended_at == drive.only.finished_at


@pytest.mark.parametrize("status", [FINISHING, PREPARING, ConnectorStatus.SUSPENDED_EVSE])
def test_a_stop_with_the_cable_still_in_keeps_the_session(status):
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0).wait(1).status(status).tick(3600)

    assert drive.at(1).phase is SessionPhase.FINISHED


def test_while_the_link_is_down_silence_says_nothing():
    """The queue may hold the status; after the reconnect the clock starts anew."""
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0)
    drive.send(events.LinkClosed())
    drive.tick(3600)
    assert not drive.is_free()

    drive.send(events.LinkOpened(ocpp_version="1.6"))
    drive.tick(14)
    assert not drive.is_free()
    drive.tick(1)

    assert drive.is_free()


def test_a_second_charge_of_the_same_plug_stays_in_the_session():
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0).status(FINISHING)
    drive.wait(600).start("42", 101_000.0)
    drive.wait(60).stop("42", 103_000.0)

    assert [t.transaction_id for t in drive.only.transactions] == ["41", "42"]
    assert drive.only.meter.energy_wh == 3000
    drive.check()


def test_energy_between_two_transactions_is_named_and_not_counted():
    drive = _a_charging_station()
    drive.wait(60).stop("41", 101_000.0).status(FINISHING)
    drive.wait(600).start("42", 101_700.0)
    drive.wait(60).stop("42", 102_700.0)

    assert drive.only.meter.energy_wh == 2000
    assert "101000 Wh and starts at 101700 Wh" in drive.only.anomalies[0]


def test_the_other_outlet_is_never_touched():
    drive = _a_charging_station()
    drive.status(PREPARING, evse=2)
    other = drive.at(2)
    drive.wait(60).meter(101_000.0).stop("41", 102_000.0, "EVDisconnected").tick(60)

    assert drive.at(2) is other


def test_news_of_power_wakes_the_executor():
    """Whether or not the vehicle is known and reports its state of charge."""
    drive = _a_charging_station()
    drive.wait(10).meter(100_100.0, power_w=40_000.0, soc=30.0)
    drive.effects.clear()

    drive.wait(10).meter(100_200.0, power_w=41_000.0, soc=30.0)
    assert PowerChanged() not in drive.effects

    drive.wait(10).meter(100_300.0, power_w=90_000.0, soc=30.0)
    assert PowerChanged() in drive.effects


def test_a_station_that_makes_endless_trouble_has_bounded_trouble():
    drive = _a_charging_station()
    for n in range(200):
        drive.wait(1).meter(float(n % 2) * 50 + n)

    assert len(drive.at(1).anomalies) <= ANOMALIES_MAX
    assert floor_tenth(drive.at(1).meter.energy_wh) >= 0


# --- C16: every order ----------------------------------------------------------------

VISIT = {
    "plug": lambda d: d.status(PREPARING),
    "token": lambda d: d.token("CARD"),
    "start": lambda d: d.start("41"),
    "meter": lambda d: d.meter(101_000.0, tx="41", soc=30.0),
    "stop": lambda d: d.stop("41", 102_000.0, "EVDisconnected"),
    "unplug": lambda d: d.status(AVAILABLE),
}


@pytest.mark.parametrize("gap_s", [0, 1, 30])
def test_c16_all_orders_of_the_six_events_of_a_visit_end_in_a_legal_state(gap_s):
    """One session holds the transaction; at most one more, empty, if a plug came late."""
    for order in itertools.permutations(VISIT):
        drive = Drive()
        for name in order:
            drive.wait(gap_s)
            VISIT[name](drive)
            drive.check()
        drive.tick(61)
        drive.tick(61)
        drive.check()

        charged = [s for s in drive.sessions if s.transactions]
        empty = [s for s in drive.sessions if not s.transactions]
        assert len(charged) == 1, order
        assert len(empty) <= 1, order
        if order.index("plug") < order.index("start") < order.index("unplug"):
            assert empty == [], order
        if order.index("start") < min(order.index("stop"), order.index("unplug")):
            assert charged[0].phase is SessionPhase.ENDED, order
        if order.index("start") < order.index("stop"):
            assert charged[0].meter.energy_wh == 2000, order


def test_two_visits_of_two_vehicles_with_every_loss_of_one_message_are_two_sessions():
    """Whatever single message of the first visit is lost, the second stays whole."""
    for lost in VISIT:
        drive = Drive()
        for name, say in VISIT.items():
            drive.wait(30)
            if name != lost:
                say(drive)
        drive.tick(61)
        drive.status(PREPARING).wait(10).start("42", 102_000.0, mac=MAC_B)
        drive.wait(60).stop("42", 103_000.0, "EVDisconnected").status(AVAILABLE)
        drive.check()

        assert drive.of("42").meter.energy_wh == 1000, lost
        assert drive.of("42").phase is SessionPhase.ENDED, lost
        assert len(drive.of("42").transactions) == 1, lost


def test_another_vehicle_in_a_session_that_never_ended_gets_its_own():
    """A lost stop and a lost unplug, told apart by the address."""
    drive = Drive().status(PREPARING)
    drive.start("41", mac=MAC_A)
    drive.wait(3600).start("42", 150_000.0, mac=MAC_B)

    assert drive.of("41").phase is SessionPhase.ENDED
    assert drive.at(1) == drive.of("42")
    assert drive.of("42").evse_id == EvseId(1)
    assert drive.of("42").connector_id == ConnectorId(1)
    drive.check()
