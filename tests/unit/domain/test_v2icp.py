"""What a bus says by V2ICP: who it is, and what it needs before it leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.domain.events import VehicleMatched
from agent.domain.identity import (
    V2ICP,
    EvidenceKind,
    MatchOutcome,
    V2icpWord,
    Vehicle,
    any_mac,
    mac_text,
    match_vehicle,
    registry_conflicts,
)
from agent.domain.ids import MacAddress, ScheduleId, VehicleId
from agent.domain.plan import Plan, Preconditioning, Schedule
from agent.domain.wake import PRECONDITIONING_MAX, preconditioning
from tests.unit.domain.build import MAC_A, MAC_B, NOW, a_plan, a_vehicle, after, evidence_of
from tests.unit.domain.drive import PREPARING, Drive

VIN = "WMA12345678901234"


def registry_of(*rows: Vehicle) -> dict[VehicleId, Vehicle]:
    return {row.vehicle_id: row for row in rows}


def spoke(vin: str | None, mac: MacAddress | None, **more) -> V2icpWord:
    return V2icpWord(vin=vin, mac=mac, **more)


# --- who it is --------------------------------------------------------------------------


def test_a_mac_that_only_v2icp_knows_matches_the_vehicle_whose_vin_it_is() -> None:
    registry = registry_of(a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_A)))

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert (found.outcome, found.vehicle_id) == (MatchOutcome.UNIQUE, "bus-1")
    assert found.reason == f"vin {VIN} from v2icp"
    (learned,) = found.evidence
    assert (learned.kind, learned.value, learned.raw) == (EvidenceKind.VIN, VIN, MAC_A)
    assert learned.source == V2ICP
    assert learned.at == NOW


def test_the_pair_of_one_row_matches_the_row_that_has_the_vin() -> None:
    """The VIN decides, not the row beside which the exchange was listed."""
    registry = registry_of(
        a_vehicle("bus-1", vin="OTHER", v2icp=spoke(VIN.lower(), MAC_A)),
        a_vehicle("bus-2", vin=VIN),
    )

    assert match_vehicle([evidence_of(MAC_A)], registry).vehicle_id == "bus-2"


def test_registry_and_v2icp_that_disagree_match_nobody() -> None:
    """Never resolved silently: it is told, and the safe default stays."""
    registry = registry_of(
        a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_A)), a_vehicle("bus-2", MAC_A)
    )

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert found.outcome is MatchOutcome.AMBIGUOUS
    assert "bus-1" in found.reason
    assert "bus-2" in found.reason
    (told,) = registry_conflicts(registry)
    assert "bus-1" in told
    assert "bus-2" in told
    assert "chargingPorts" in told


def test_two_buses_that_speak_from_one_mac_match_nobody() -> None:
    registry = registry_of(
        a_vehicle("bus-1", vin="V1", v2icp=spoke("V1", MAC_A)),
        a_vehicle("bus-2", vin="V2", v2icp=spoke("V2", MAC_A)),
    )

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert found.outcome is MatchOutcome.AMBIGUOUS


def test_agreeing_sources_stay_unique() -> None:
    registry = registry_of(a_vehicle("bus-1", MAC_A, vin=VIN, v2icp=spoke(VIN, MAC_A)))

    found = match_vehicle([evidence_of(MAC_A)], registry)

    assert (found.outcome, found.reason) == (MatchOutcome.UNIQUE, f"mac {MAC_A} from test")
    assert registry_conflicts(registry) == []


@pytest.mark.parametrize(
    "row",
    [
        a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_A), idle_macs=frozenset({MAC_A})),
        a_vehicle("bus-1", vin=VIN, v2icp=spoke(None, MAC_A)),
        a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_B)),
        a_vehicle("bus-1", vin="OTHER", v2icp=spoke(VIN, MAC_A)),
    ],
)
def test_half_a_pair_an_idle_port_and_a_vin_that_nobody_has_match_nothing(
    row: Vehicle,
) -> None:
    found = match_vehicle([evidence_of(MAC_A)], registry_of(row))

    assert found.outcome is MatchOutcome.NONE


def test_what_was_learned_before_is_no_evidence_of_today() -> None:
    """The controller moved to another bus: the registry of today decides."""
    before = registry_of(a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_A)))
    told = match_vehicle([evidence_of(MAC_A)], before).evidence
    now = registry_of(a_vehicle("bus-1", vin=VIN), a_vehicle("bus-2", MAC_A))

    assert match_vehicle([evidence_of(MAC_A), *told], now).vehicle_id == "bus-2"


def test_the_session_keeps_what_v2icp_said_and_is_not_matched_again_for_it() -> None:
    registry = registry_of(a_vehicle("bus-1", vin=VIN, v2icp=spoke(VIN, MAC_A)))
    drive = Drive().status(PREPARING).token("VID:1", evidence_of(MAC_A))
    session = drive.at(1)
    asked = len(drive.match_wanted)

    match = match_vehicle(session.evidence, registry)
    drive.send(VehicleMatched(session_id=session.session_id, match=match, vin=VIN))

    assert [(e.value, e.source) for e in drive.at(1).evidence] == [
        (MAC_A, "test"),
        (VIN, V2ICP),
    ]
    assert len(drive.match_wanted) == asked


def test_an_exchange_of_the_same_bus_is_no_news() -> None:
    """It comes every 10 s while a bus is plugged in."""
    word = spoke(VIN, MAC_A, at=NOW, odometer_km=5.0)

    assert word == replace(word, at=after(10), odometer_km=6.0)
    assert word != replace(word, mac=MAC_B)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((a_vehicle("b1", MAC_A), a_vehicle("b2", fallback_mac=MAC_A)), "b1 and b2"),
        ((a_vehicle("b1", vin="X", v2icp=spoke("Y", MAC_A)),), "under the VIN Y"),
        (
            (a_vehicle("b1", v2icp=spoke("Y", MAC_A), idle_macs=frozenset({MAC_A})),),
            "inactive",
        ),
    ],
)
def test_a_registry_that_contradicts_itself_is_told(rows, words: str) -> None:
    (told,) = registry_conflicts(registry_of(*rows))

    assert words in told


@pytest.mark.parametrize(
    "raw",
    [
        "04:E7:7E:00:F0:FA",
        "04e77e00f0fa",
        "04-e7-7e-00-f0-fa",
        "04E7.7E00.F0FA",
        "VID:04E77E00F0FA",
        "04:E7:7E:00:F0:FA:00:00",
    ],
)
def test_every_notation_of_a_mac_is_written_in_the_documented_one(raw: str) -> None:
    found = any_mac(raw)

    assert found is not None
    assert mac_text(found) == "04:E7:7E:00:F0:FA"


@pytest.mark.parametrize(
    "raw", ["", "04E77E00F0", "60FAB1000001", "000000000000", "01E77E00F0FA", "bus-1"]
)
def test_what_is_no_vehicles_mac_is_refused(raw: str) -> None:
    assert any_mac(raw) is None


# --- what it needs before it leaves -------------------------------------------------------


def a_slot(asked: Preconditioning | None, **more) -> Schedule:
    made: Plan = replace(a_plan(), preconditioning=asked)
    return Schedule(
        **{
            "schedule_id": ScheduleId("slot"),
            "vehicle_id": VehicleId("bus"),
            "location_uid": "depot",
            "arrives_at": NOW,
            "departs_at": after(36_000),
            "plan": made,
            **more,
        }
    )


def test_the_time_and_energy_that_the_bus_asked_for_are_held_open() -> None:
    """12 kWh in 45 min are 16 kW; the battery needs longer than the cabin."""
    asked = Preconditioning(battery_s=3600, vehicle_s=2700, vehicle_wh=12_000)

    window = preconditioning(a_slot(asked), 8000.0, max_w=60_000.0)

    assert window is not None
    assert window.opens_at == after(36_000 - 3600)
    assert window.floor_w == pytest.approx(16_000)


def test_the_vehicles_own_minimum_stays_the_least() -> None:
    asked = Preconditioning(vehicle_s=3600, vehicle_wh=1000)

    window = preconditioning(a_slot(asked), 8000.0, max_w=60_000.0)

    assert window is not None
    assert window.floor_w == 8000


def test_energy_alone_opens_a_window_for_a_vehicle_without_a_minimum() -> None:
    asked = Preconditioning(vehicle_s=1200, vehicle_wh=4000)

    window = preconditioning(a_slot(asked), None, max_w=10_000.0)

    assert window is not None
    assert (window.opens_at, window.floor_w) == (after(36_000 - 1200), 10_000)


def test_zeros_are_no_wish_and_leave_the_usual_half_hour() -> None:
    window = preconditioning(a_slot(Preconditioning()), 8000.0, max_w=60_000.0)

    assert window is not None
    assert window.opens_at == after(36_000 - 1800)


def test_a_depot_that_asks_for_none_holds_nothing_open() -> None:
    asked = Preconditioning(vehicle_s=1200, vehicle_wh=4000)

    assert preconditioning(a_slot(asked), 8.0, max_w=60.0, is_wanted=False) is None


def test_a_mistaken_time_does_not_hold_the_whole_night() -> None:
    asked = Preconditioning(battery_s=timedelta(days=1).total_seconds())

    window = preconditioning(a_slot(asked), 8000.0, max_w=60_000.0)

    assert window is not None
    assert window.closes_at - window.opens_at == PRECONDITIONING_MAX
