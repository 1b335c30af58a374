"""The SoC of a session: measurements, outliers, the order of trust, what is learned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import events, session_soc, soc
from agent.domain.effects import Told
from agent.domain.goal import ChargeGoal
from agent.domain.identity import MatchOutcome
from agent.domain.meter import MeterReading, MeterState, add_reading
from agent.domain.soc import (
    BatteryOrigin,
    Learned,
    SocAnchor,
    SocBattery,
    SocBook,
    SocSource,
)
from tests.unit.domain.build import MAC_A, NOW, after
from tests.unit.domain.drive import CHARGING, Drive

BATTERY = SocBattery(points_per_wh=0.0015, spread=0.07, origin=BatteryOrigin.REGISTRY)
"""60 kWh at 90 %: 1 kWh is 1.5 points."""


def anchor(percent: float, kwh: float = 0.0, at_s: float = 0.0) -> SocAnchor:
    return SocAnchor(
        percent=percent,
        energy_wh=kwh * 1000,
        at=after(at_s or kwh * 60),
        source=SocSource.CLOUD,
        sigma=soc.SIGMA_CLOUD,
    )


def book(*anchors: SocAnchor, known: SocBattery | None = BATTERY) -> SocBook:
    made = SocBook()
    for item in anchors:
        made = soc.take(made, item, known)
    return made


def percent_at(made: SocBook, kwh: float, known: SocBattery | None = BATTERY) -> float:
    found = soc.estimate(made, kwh * 1000, known)
    assert found is not None
    return found.percent


# --- properties --------------------------------------------------------------------------

percents = st.floats(0, 100)
kwhs = st.floats(0, 400)
anchors = st.builds(anchor, percents, kwhs, st.floats(1, 90_000))
batteries = st.none() | st.builds(
    SocBattery,
    points_per_wh=st.floats(1e-5, 1e-2),
    spread=st.floats(0.001, 0.3),
    origin=st.sampled_from(BatteryOrigin),
)


@given(st.lists(anchors, max_size=25), batteries, kwhs)
def test_whatever_is_measured_the_soc_is_a_percentage_with_a_doubt(
    said: list[SocAnchor], known: SocBattery | None, kwh: float
) -> None:
    """Never below 0, above 100, or surer than a measurement can be."""
    made = book(*said, known=known)

    found = soc.estimate(made, kwh * 1000, known)

    assert len(made.anchors) <= soc.ANCHORS_MAX
    if found is not None:
        assert 0 <= found.percent <= 100
        assert found.confidence >= 0
        assert any(found.measured_at == item.at for item in said)


@given(st.lists(anchors, min_size=1, max_size=8), kwhs, st.floats(0, 50))
def test_energy_never_lowers_the_soc_and_always_adds_doubt(
    said: list[SocAnchor], kwh: float, more_kwh: float
) -> None:
    """Between two measurements SoC only rises."""
    made = book(*said)
    if not made.anchors:
        return
    start = max(kwh, made.anchors[-1].energy_wh / 1000)
    first = soc.estimate(made, start * 1000, BATTERY)
    second = soc.estimate(made, (start + more_kwh) * 1000, BATTERY)

    assert first is not None
    assert second is not None
    assert second.percent >= first.percent - 1e-6
    assert second.confidence >= first.confidence - 1e-6


@given(st.floats(5, 60), st.floats(1, 30), percents)
def test_one_measurement_far_from_the_expected_changes_nothing(
    first: float, kwh: float, odd: float
) -> None:
    """A jump or a zero needs a second witness."""
    made = book(anchor(first, 0, 1))
    expected = percent_at(made, kwh)

    jumped = soc.take(made, anchor(odd, kwh), BATTERY)

    moved = abs(percent_at(jumped, kwh) - expected)
    assert moved <= abs(odd - expected) + 1e-9
    if abs(odd - expected) > 25:
        assert moved == 0
        assert jumped.doubtful is not None


@given(st.floats(0.85, 1.15), st.floats(5, 30))
def test_measurements_bring_the_estimate_to_the_truth(ratio: float, soc0: float) -> None:
    """Three exact measurements of a battery up to 15 % off are enough for 1.5 points."""

    def truth(kwh: float) -> float:
        return soc0 + kwh * 1.5 * ratio

    made = book(*(anchor(truth(kwh), kwh, 1 + kwh * 60) for kwh in (0.0, 12.0, 24.0)))

    assert abs(percent_at(made, 36) - truth(36)) < 1.5


@given(st.lists(st.floats(0.3, 3.0), min_size=1, max_size=30))
def test_what_is_learned_is_bounded_and_slow(ratios: list[float]) -> None:
    """No session moves it by more than 6 %, nothing moves it out of its bounds."""
    known: Learned | None = None
    for ratio in ratios:
        before = known or Learned()
        battery = soc.battery(
            registry_wh=60_000,
            gross_wh=None,
            needs_wh=None,
            is_dc=False,
            learned=known,
        )
        assert battery is not None
        ends = (anchor(10, 0, 1), anchor(10 + 40 * ratio, 40 / 1.5, 9000))
        known = soc.learn(known, ends, battery) or known
        now = known or Learned()
        assert soc.RATIO_MIN <= now.ratio <= soc.RATIO_MAX
        assert abs(now.ratio / before.ratio - 1) <= soc.RATIO_STEP_MAX + 1e-9
        assert now.spread >= soc.SPREAD_LEARNED_MIN


# --- single rules ------------------------------------------------------------------------


def test_two_witnesses_that_agree_replace_what_was_believed() -> None:
    """The first value was of another moment, or of another vehicle."""
    made = book(anchor(80, 0, 1), anchor(40, 2), anchor(43.5, 4))

    assert percent_at(made, 4) == pytest.approx(43, abs=1)
    assert len(made.anchors) == 2


def test_a_jump_that_was_a_slip_is_forgotten() -> None:
    """The next value agrees with the older ones."""
    made = book(anchor(50, 0, 1), anchor(90, 2), anchor(56, 4))

    assert percent_at(made, 4) == pytest.approx(56, abs=0.7)
    assert made.doubtful is None


def test_a_first_zero_waits_for_a_second() -> None:
    """Handshake zeros (A5); an empty battery says so twice."""
    once = book(anchor(0, 0, 1))
    twice = book(anchor(0, 0, 1), anchor(0, 0, 60))
    then = book(anchor(0, 0, 1), anchor(45, 0, 60))

    assert once.anchors == ()
    assert percent_at(then, 0) == 45
    assert twice.anchors != () or twice.doubtful is not None


def test_the_cars_own_limit_is_the_ceiling_of_the_estimate() -> None:
    """Heating at the limit raises no SoC; a measurement above it still counts."""
    made = SocBook(anchors=(anchor(78, 0, 1),), ceiling=80.0)
    above = SocBook(anchors=(anchor(83, 0, 1),), ceiling=80.0)

    assert percent_at(made, 20) == 80
    assert percent_at(above, 20) == 83


def test_the_size_of_the_battery_is_the_registrys_then_the_cars_then_its_needs() -> None:
    """The car's is gross, and flagged as such."""

    def of(registry: float | None, gross: float | None, needs: float | None) -> str | None:
        made = soc.battery(registry_wh=registry, gross_wh=gross, needs_wh=needs, is_dc=True)
        return None if made is None else str(made.origin)

    assert of(60e3, 64e3, 61e3) == "registry"
    assert of(None, 64e3, 61e3) == "smartcar-gross"
    assert of(None, None, 61e3) == "charging-needs"
    assert of(None, None, None) is None


def test_energy_at_a_moment_of_the_past_and_ahead_of_the_meter() -> None:
    """By quarter hours back, by the last power ahead, for 15 min at most."""
    meter = MeterState(register_wh=0.0, register_at=NOW)
    for minute in range(1, 61):
        reading = MeterReading(after(minute * 60), register_wh=minute * 100.0)
        meter, _ = add_reading(meter, reading, rated_w=22_000)

    assert soc.energy_at(meter, after(3600)) == pytest.approx(6000)
    assert soc.energy_at(meter, after(1800)) == pytest.approx(3000, abs=60)
    assert soc.energy_at(meter, after(3660)) == pytest.approx(6100)
    assert soc.energy_at(meter, after(36_000)) == pytest.approx(6000 + 1500)


# --- in a session ------------------------------------------------------------------------


def charging(expected: float | None = 40.0) -> Drive:
    """A matched vehicle that charges, its battery known."""
    drive = Drive().status(CHARGING)
    drive.start("41", 0.0, mac=MAC_A)
    drive.match("bus-1").bind("slot-1", soc=expected)
    known = events.BatteryKnown(session_id=drive.at(1).session_id, battery=BATTERY)
    drive.send(known)
    return drive


def say(drive: Drive, percent: float, *, ago_s: float = 0) -> Drive:
    """The vehicle's cloud said a SoC."""
    drive.send(
        events.SocReported(
            session_id=drive.at(1).session_id,
            percent=percent,
            source=SocSource.CLOUD,
            at=drive.now if not ago_s else after((drive.now - NOW).total_seconds() - ago_s),
            sigma=soc.SIGMA_CLOUD,
        )
    )
    return drive


def told(drive: Drive, name: str) -> list[Told]:
    return [i for i in drive.effects if isinstance(i, Told) and i.event == name]


def now_of(drive: Drive) -> soc.Soc:
    found = session_soc.soc_now(drive.at(1), drive.now)
    assert found is not None
    return found


def test_without_any_measurement_the_schedules_guess_is_weak() -> None:
    """It goes on with energy, and says how little it is worth."""
    drive = charging()
    drive.wait(600).meter(2000.0, tx="41", power_w=12_000.0)

    assert now_of(drive).percent == pytest.approx(43)
    assert now_of(drive).source is SocSource.ESTIMATE
    assert now_of(drive).measured_at is None
    assert now_of(drive).confidence >= 8


def test_the_station_is_believed_before_the_cloud_and_the_plan() -> None:
    """As it says it, as long as it says it."""
    drive = say(charging(), 55.0)
    drive.wait(60).meter(200.0, tx="41", soc=51.0, power_w=12_000.0)

    assert now_of(drive).percent == 51
    assert now_of(drive).source is SocSource.STATION


def test_where_the_station_falls_silent_energy_carries_on() -> None:
    """Its last value is the anchor."""
    drive = charging()
    drive.wait(60).meter(200.0, tx="41", soc=51.0, power_w=12_000.0)
    for minute in range(2, 62):
        drive.wait(60).meter(minute * 200.0, tx="41", power_w=12_000.0)

    assert now_of(drive).source is SocSource.ESTIMATE
    assert now_of(drive).percent == pytest.approx(51 + 60 * 0.2 * 1.5, abs=0.5)
    assert not session_soc.gives_soc(drive.at(1))


def test_charging_needs_are_named_as_their_own_source() -> None:
    """A vehicle of ISO 15118 says its SoC once."""
    drive = charging()
    needs = events.EvNeeds(at=drive.now, soc_percent=47.0)
    drive.send(events.ChargingNeedsReported(evse_id=drive.at(1).evse_id, needs=needs))

    assert now_of(drive).source is SocSource.NEEDS
    assert now_of(drive).percent == 47
    assert not session_soc.gives_soc(drive.at(1))


def test_the_first_measurement_is_told_where_it_moves_the_guess() -> None:
    """And reckoned back, it is the SoC at arrival that ChargEye hears."""
    drive = charging()
    for step in range(1, 11):
        drive.wait(10).meter(step * 200.0, tx="41", power_w=12_000.0)
    say(drive, 60.0)

    assert told(drive, "soc_corrected")[0].fields["moved"] == pytest.approx(17, abs=0.5)
    assert session_soc.soc_start(drive.at(1)) == pytest.approx(57, abs=0.2)
    assert [item.soc_percent for item in drive.start_socs] == [pytest.approx(57, abs=0.2)]


def test_another_vehicle_takes_nothing_over() -> None:
    """Measurements and battery belong to the one that was recognised before."""
    drive = say(charging(), 60.0)
    drive.match("bus-2")

    assert drive.at(1).soc_book == SocBook()
    assert drive.at(1).battery is None
    assert drive.at(1).match is MatchOutcome.UNIQUE


def test_after_the_end_nothing_changes_any_more() -> None:
    """The record of a session that is over stays as it is."""
    drive = say(charging(), 60.0)
    drive.wait(600).meter(2000.0, tx="41", power_w=12_000.0)
    drive.stop("41", 2000.0).wait(5).status(events.ConnectorStatus.AVAILABLE)
    (ended,) = drive.sessions
    before = session_soc.soc_now(ended, drive.now)
    later = session_soc.soc_now(ended, after(90_000))
    event = events.SocReported(
        session_id=ended.session_id,
        percent=10.0,
        source=SocSource.CLOUD,
        at=drive.now,
        sigma=1.0,
    )
    drive.send(event)

    assert before == later
    assert before is not None
    assert before.percent == pytest.approx(63, abs=0.1)
    assert drive.sessions == [ended]


def test_a_goal_that_was_reached_stays_reached_until_another_is_set() -> None:
    """Nothing that is measured later opens it again."""
    drive = charging()
    session_id = drive.at(1).session_id
    goal = ChargeGoal(set_at=NOW, source="operator", energy_wh=1000.0)
    drive.send(events.GoalReached(session_id=session_id, how="too early"))
    too_early = drive.at(1).goal_reached_at
    drive.send(events.GoalSet(session_id=session_id, goal=goal))
    drive.send(events.GoalReached(session_id=session_id, how="1.0 kWh are charged"))
    reached = drive.at(1).goal_reached_at
    drive.send(events.GoalSet(session_id=session_id, goal=None))

    assert too_early is None
    assert reached == drive.now
    assert drive.at(1).goal_reached_at is None
    assert len(told(drive, "charge_goal_reached")) == 1
