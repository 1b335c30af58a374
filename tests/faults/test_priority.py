"""faults.md W7: a state of charge that is told too low gains no priority."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agent.control.minder import Minder, urgency
from agent.domain import session_soc
from agent.domain.account import Account
from agent.domain.identity import Vehicle
from agent.domain.ids import ScheduleId, VehicleId
from agent.domain.meter import MeterReading, MeterState, add_reading
from agent.domain.plan import Schedule
from agent.domain.session import Session
from agent.domain.soc import BatteryOrigin, SocBattery
from tests.unit.control.test_minder import ASKED, OUTLET, a_minder, a_session
from tests.unit.domain.build import NOW, after

BUS = VehicleId("BUS-1")
BATTERY = SocBattery(points_per_wh=0.00048, spread=0.07, origin=BatteryOrigin.REGISTRY)
"""200 kWh at a DC outlet: 10 kWh are 4.8 points."""
QUARTER_S, STEP_WH, STEP_POINTS = 900, 10_000.0, 4.8
BEGIN = 40.0
SLOT = Schedule(
    schedule_id=ScheduleId("SLOT-1"),
    vehicle_id=BUS,
    location_uid="depot-1",
    arrives_at=after(-600),
    departs_at=after(8 * 3600),
    plan=None,
    target_soc_percent=90.0,
)


def _charged(quarters: int, *, told: list[float] | None = None) -> Session:
    """A session of so many quarters of an hour; ``told`` replaces the last SoCs."""
    meter = MeterState()
    socs = [BEGIN + STEP_POINTS * number for number in range(quarters + 1)]
    if told:
        socs[-len(told) :] = told
    for number, soc in enumerate(socs):
        at = after(QUARTER_S * number)
        reading = MeterReading(at, register_wh=STEP_WH * number, soc_percent=soc)
        meter, _ = add_reading(meter, reading, rated_w=150_000)
    return replace(
        a_session(0),
        meter=meter,
        battery=BATTERY,
        vehicle_id=BUS,
        schedule_id=SLOT.schedule_id,
    )


def _account(minder: Minder, session: Session) -> Account:
    minder.depot.registry[BUS] = Vehicle(vehicle_id=BUS, capacity_wh=200_000)
    minder.depot.schedules[SLOT.schedule_id] = SLOT
    found = minder.bring_up(OUTLET, session, ASKED, NOW + timedelta(hours=2))
    assert found is not None
    return found


def test_w7_a_soc_that_falls_while_energy_flows_gains_no_priority_and_is_flagged() -> None:
    """After 80 kWh the station says 15 % where energy makes 78 %."""
    honest, liar = a_minder(), a_minder()
    now = NOW + timedelta(hours=2)
    true = _account(honest, _charged(8))
    false = _account(liar, _charged(8, told=[15.0, 15.0]))

    need_w, laxity_s = urgency(true, now)
    claimed_w, claimed_s = urgency(false, now)
    assert claimed_w <= need_w * 1.2
    assert claimed_s >= laxity_s * 0.9
    assert [text for _, text in liar.notes if text.startswith("SoC doubted")]
    assert not honest.notes


def test_w7_a_difference_of_up_to_15_points_is_the_batterys_own_business() -> None:
    now = NOW + timedelta(hours=2)
    expected = BEGIN + 8 * STEP_POINTS
    worn = _charged(8, told=[expected - 12.0, expected - 12.0])
    spoofed = _charged(8, told=[expected - 18.0, expected - 18.0])

    assert session_soc.soc_for_priority(worn, now) == (expected - 12.0, False)
    used, is_doubted = session_soc.soc_for_priority(spoofed, now)
    assert is_doubted
    assert used is not None
    assert abs(used - expected) < 1


def test_w7_the_doubt_is_written_down_once() -> None:
    minder = a_minder()
    for _ in range(3):
        _account(minder, _charged(8, told=[15.0, 15.0]))
        minder.depot.accounts.clear()

    assert len([text for _, text in minder.notes if "SoC doubted" in text]) == 1


def test_w7_without_a_batterys_size_nothing_is_reckoned() -> None:
    session = replace(_charged(8, told=[15.0, 15.0]), battery=None)

    assert session_soc.soc_for_priority(session, NOW) == (None, False)
    assert session_soc.soc_by_energy(session, NOW) is None
