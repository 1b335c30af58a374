"""Charging profiles of OCPP 2.x: what is refused and why, who rules, and what is told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from agent.simulator.clock import stamp
from agent.simulator.profile_rules import Running
from agent.simulator.profiles2 import Outside, ProfileOptions2, ProfileStore2
from agent.simulator.variables2 import FEATURES_21
from tests.unit.simulator.station2_support import (
    START,
    a_bus,
    a_pair,
    a_profile2,
    charging,
    set_profile,
)

RUNS = Outside(evse=1, transaction_id="tx-1")
RUNNING = Running(start=START, transaction_id="tx-1")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_store(**options: Any) -> ProfileStore2:
    facts: dict[str, Any] = {"features": frozenset(FEATURES_21), "version": "2.1"}
    return ProfileStore2(ProfileOptions2(**{**facts, **options}))


def put(
    store: ProfileStore2,
    body: dict[str, Any],
    evse: int = 1,
    now: datetime = START,
    **outside: Any,
) -> str:
    """Install a profile; return the reason of a refusal, else Accepted."""
    if body["chargingProfilePurpose"] == "TxProfile":
        body = {"transactionId": "tx-1", **body}
    facts = {"transaction_id": "tx-1", **outside}
    verdict = store.set_profile(Outside(evse=evse, **facts), body, now)
    return verdict.reason or verdict.status


def default(*limits: float, **changes: Any) -> dict[str, Any]:
    return a_profile2(*limits, purpose="TxDefaultProfile", **changes)


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("TxNotFound", a_profile2(9_000, transactionId="tx-9"), 1),
    ("InvalidProfile", a_profile2(9_000), 0),
    ("InvalidProfile", default(9_000, transactionId="tx-1"), 1),
    ("InvalidProfile", a_profile2(9_000, purpose="ChargingStationMaxProfile"), 1),
    ("UnsupportedPurpose", a_profile2(9_000, purpose="LocalGeneration"), 0),
    ("UnsupportedPurpose", a_profile2(9, purpose="ChargingStationExternalConstraints"), 0),
    ("InvalidStackLevel", a_profile2(9_000, stackLevel=11), 1),
    ("InvalidSchedule", a_profile2(9_000, kind="Relative", schedule={"startSchedule": stamp(START)}), 1),
    ("InvalidSchedule", a_profile2(9_000, chargingProfileKind="Absolute", kind="Relative"), 1),
    ("InvalidSchedule", a_profile2(9_000, schedule={"randomizedDelay": 60}), 1),
    ("TooManyElements", a_profile2(*range(49)), 1),
    ("UnsupportedRateUnit", a_profile2(16, schedule={"chargingRateUnit": "A"}), 1),
    (
        "InvalidOperationMode",
        a_profile2(schedule={"chargingSchedulePeriod": [{"startPeriod": 0, "operationMode": "CentralSetpoint"}]}),
        1,
    ),
    (
        "NoPhaseForDC",
        a_profile2(schedule={"chargingSchedulePeriod": [{"startPeriod": 0, "limit": 9.0, "numberPhases": 3}]}),
        1,
    ),
    (
        "InvalidSchedule",
        a_profile2(schedule={"chargingSchedulePeriod": [{"startPeriod": 5, "limit": 9.0}]}),
        1,
    ),
    ("InvalidSchedule", a_profile2(1, 2, kind="Dynamic"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "body", "evse"), REFUSED)
def test_what_breaks_a_rule_is_rejected_with_its_reason(
    reason: str, body: dict[str, Any], evse: int
):
    """And nothing is installed."""
    store = a_store(units=frozenset({"W"}))

    assert put(store, body, evse) == reason
    assert store.installed == []


def test_several_schedules_are_for_vehicles_that_told_their_needs():
    """Exactly one otherwise."""
    body = a_profile2(9_000)
    body["chargingSchedule"] = body["chargingSchedule"] * 2

    assert put(a_store(), body) == "InvalidSchedule"
    assert put(a_store(), body, knows_needs=True) == "Accepted"


@pytest.mark.parametrize("version", ["2.0.1", "2.1"])
def test_a_transaction_profile_before_the_needs_comes_too_early(version: str):
    """2.1 writes the reason longer, as far as the schema lets it."""
    reason = put(a_store(version=version), a_profile2(9_000), awaits_needs=True)

    assert reason == {"2.0.1": "InvalidMessageSeq", "2.1": "InvalidMessageSequen"}[version]


def test_features_of_21_are_refused_where_they_are_lacking():
    """A station of 2.1 that supports none of them."""
    store = a_store(features=frozenset())

    assert put(store, a_profile2(9_000, kind="Dynamic")) == "UnsupportedKind"
    assert put(store, a_profile2(9_000, maxOfflineDuration=60)) == "InvalidProfile"


def test_the_same_id_replaces_and_another_on_the_same_level_is_a_duplicate():
    """For a transaction by its id; for defaults also across EVSE 0 and an EVSE."""
    store = a_store()

    assert put(store, a_profile2(9_000)) == "Accepted"
    assert put(store, a_profile2(8_000)) == "Accepted"
    assert put(store, a_profile2(7_000, id=2)) == "DuplicateProfile"
    assert put(store, a_profile2(7_000, id=2, stackLevel=1)) == "Accepted"
    assert put(store, default(6_000, id=3), 0) == "Accepted"
    assert put(store, default(6_000, id=4), 1) == "DuplicateProfile"
    assert put(store, default(6_000, id=4, stackLevel=1), 1) == "Accepted"
    assert store.limit_w(1, START, RUNNING) == 7_000


def test_two_profiles_of_one_level_may_follow_each_other():
    """Only where their validity overlaps they are duplicates."""
    store = a_store()
    turn = stamp(after(600))

    assert put(store, default(9_000, validTo=turn)) == "Accepted"
    assert put(store, default(5_000, id=2, validFrom=turn)) == "Accepted"
    assert [store.limit_w(1, after(at), RUNNING) for at in (599, 600)] == [9_000, 5_000]


def test_defaults_rule_by_stack_level_alone():
    """That of EVSE 0 beats that of the EVSE when it is higher."""
    store = a_store()
    put(store, default(9_000, stackLevel=2), 0)
    put(store, default(5_000, id=2, stackLevel=1), 1)

    assert store.limit_w(1, START, RUNNING) == 9_000


def test_a_dynamic_profile_is_a_watchdog_that_an_update_revives():
    """After its duration without an update the profile beneath rules."""
    store = a_store()
    put(store, default(5_000), 1)
    dynamic = a_profile2(40_000, kind="Dynamic", id=2, schedule={"duration": 60})
    put(store, dynamic)
    limits = [store.limit_w(1, after(at), RUNNING) for at in (0, 59, 60)]

    assert limits == [40_000, 40_000, 5_000]
    assert store.changes(1, START, after(100), RUNNING) == [after(60)]
    assert store.update(2, 30_000, after(90)).status == "Accepted"
    assert [store.limit_w(1, after(at), RUNNING) for at in (90, 149, 150)] == [
        30_000,
        30_000,
        5_000,
    ]
    assert store.update(1, 1, START).reason == "UnsupportedKind"
    assert store.update(9, 1, START).reason == "InvalidProfileId"
    assert store.report(1, {"chargingProfileId": [2]})[1][0]["chargingSchedule"][0][
        "chargingSchedulePeriod"
    ] == [{"startPeriod": 0, "limit": 30_000}]


@pytest.mark.parametrize("ends", [True, False])
def test_a_profile_may_hold_for_a_time_without_a_link_only(*, ends: bool):
    """Back on line it holds again, unless it is invalid for good."""
    store = a_store()
    put(store, default(5_000), 1)
    limited = a_profile2(
        40_000, id=2, maxOfflineDuration=300, invalidAfterOfflineDuration=ends
    )
    put(store, limited)
    store.lose_link(after(100))
    offline = [store.limit_w(1, after(at), RUNNING) for at in (399, 400)]
    edges = store.changes(1, after(100), after(500), RUNNING)
    store.regain_link(after(500))

    assert offline == [40_000, 5_000]
    assert edges == [after(400)]
    assert store.limit_w(1, after(500), RUNNING) == (5_000 if ends else 40_000)


def test_a_cap_from_a_state_of_charge_on():
    """limitAtSoC lowers; without a known SoC it does nothing."""
    store = a_store()
    put(store, a_profile2(40_000, schedule={"limitAtSoC": {"soc": 80, "limit": 9_000}}))
    limits = [store.limit_w(1, START, RUNNING, 3, soc) for soc in (None, 79.0, 80.0)]

    assert limits == [40_000, 40_000, 9_000]


def test_relative_counts_from_the_closing_of_the_power_path():
    """Also when the profile comes later."""
    store = a_store()
    put(store, a_profile2(40_000, 9_000, kind="Relative"), now=after(1800))

    assert [store.limit_w(1, after(at), RUNNING) for at in (3599, 3600)] == [40_000, 9_000]


def test_clearing_and_reporting_go_by_id_or_by_all_criteria():
    """Unknown and nothing when nothing matches."""
    store = a_store()
    put(store, default(9_000), 0)
    put(store, default(8_000, id=2, stackLevel=1), 1)
    put(store, a_profile2(7_000, id=3), 1)

    def reported(evse: int | None, **criteria: Any) -> list[int]:
        found = store.report(evse, criteria)
        return sorted(body["id"] for bodies in found.values() for body in bodies)

    assert reported(None) == [1, 2, 3]
    assert reported(1, chargingProfilePurpose="TxDefaultProfile") == [2]
    assert reported(None, chargingLimitSource=["EMS"]) == []
    assert store.clear(None, {"evseId": 1, "stackLevel": 5}) == "Unknown"
    assert store.clear(None, {"evseId": 1, "stackLevel": 1}) == "Accepted"
    assert store.clear(3, {"evseId": 7}) == "Accepted"
    assert reported(None) == [1]


async def test_finer_limits_than_one_decimal_are_a_callerror():
    """Not a Rejected."""
    async with a_pair() as (central, _):
        body = default(9_000.55)

        assert (await set_profile(central, body, 1))[0] == "PropertyConstraintViolation"


async def test_profiles_are_reported_in_parts_and_persist_over_a_restart():
    """Grouped by EVSE, tbc until the last; a TxProfile goes with its transaction."""
    async with a_pair(connectors=2) as (central, station):
        outlet = await charging(station)
        await set_profile(central, default(9_000, stackLevel=3), 0)
        for level in range(3):
            await set_profile(central, default(9_000, id=10 + level, stackLevel=level), 1)
        await set_profile(central, a_profile2(8_000, id=20), outlet)
        question: dict[str, Any] = {"requestId": 7, "chargingProfile": {}}
        answer = await central.ask("GetChargingProfiles", question)
        reports = central.of("ReportChargingProfiles")
        await central.until(
            lambda: (
                central.of("ReportChargingProfiles")[-1:] != []
                and not central.of("ReportChargingProfiles")[-1]["tbc"]
            )
        )
        reports = central.of("ReportChargingProfiles")
        await station.reboot()
        kept = {each.profile.profile_id for each in station.profiles.installed}
        await station.wait_until(lambda each: each.is_online, 5)
        none = await central.ask("GetChargingProfiles", {**question, "evseId": 2})

        assert answer == {"status": "Accepted"}
        assert [each["tbc"] for each in reports] == [True, True, False]
        assert [each["evseId"] for each in reports] == [0, 1, 1]
        assert sum(len(each["chargingProfile"]) for each in reports) == 5
        assert kept == {1, 10, 11, 12}
        assert none == {"status": "NoProfiles"}


async def test_a_dynamic_profile_is_pushed_and_pulled():
    """UpdateDynamicSchedule, and PullDynamicScheduleUpdate every so often."""
    async with a_pair(version="2.1") as (central, station):
        outlet = await charging(station)
        central.replies["PullDynamicScheduleUpdate"] = lambda _: {
            "status": "Accepted",
            "scheduleUpdate": {"limit": 20_000},
        }
        body = a_profile2(50_000, kind="Dynamic", dynUpdateInterval=120)
        assert await set_profile(central, body, outlet) == ("Accepted", "")
        await station.wait_until(lambda _: outlet.limit_w == 50_000, 5)
        update = {"chargingProfileId": 1, "scheduleUpdate": {"limit": 30_000}}
        assert await central.ask("UpdateDynamicSchedule", update) == {"status": "Accepted"}
        await station.wait_until(lambda _: outlet.limit_w == 30_000, 5)
        await station.wait_until(lambda _: outlet.limit_w == 20_000, 5)
        await central.ask("ClearChargingProfile", {"chargingProfileId": 1})
        await station.wait_until(lambda _: outlet.limit_w is None, 5)


async def test_the_fault_of_a_rate_limit_tells_how_long_to_wait():
    """In statusInfo."""
    async with a_pair("profile-rate-limit", version="2.1", speed=60) as (central, _):
        assert await set_profile(central, default(9_000), 1) == ("Accepted", "")
        assert await set_profile(central, default(8_000), 1) == (
            "Rejected",
            "RateLimitExceeded",
        )


@pytest.mark.parametrize(
    ("fault", "limit", "status"),
    [
        ("refuse-profiles", 9_000, "Rejected"),
        ("refuse-zero", 0, "Rejected"),
        ("refuse-zero", 9_000, "Accepted"),
        ("ignore-profiles", 9_000, "Accepted"),
    ],
)
async def test_faults_that_refuse_or_ignore_profiles(fault: str, limit: float, status: str):
    """All, or only those with a zero; or accepted and not obeyed."""
    async with a_pair(fault) as (central, station):
        assert (await set_profile(central, default(limit), 1))[0] == status

        if fault == "ignore-profiles":
            outlet = await charging(station)
            await station.wait_until(lambda _: outlet.power_w > 100_000, 5)


async def test_fault_lose_profiles_on_reboot_and_amperes_read_as_watts():
    """After a restart there is nothing; before it 16 A are 16 W."""
    faults = ("lose-profiles-on-reboot", "amperes-read-as-watts")
    async with a_pair(*faults) as (central, station):
        amperes = default(16, schedule={"chargingRateUnit": "A"})
        await set_profile(central, amperes, 1)
        limit_w = station.profiles.limit_w(1, after(3600))
        await station.reboot()

        assert limit_w == 16
        assert station.profiles.installed == []


async def test_composite_tells_the_limits_or_is_refused():
    """In the unit asked for; the station's is that of EVSE 0."""
    question = {"evseId": 1, "duration": 600, "chargingRateUnit": "W"}
    async with a_pair(variables={"SmartChargingCtrlr.RateUnit": "W"}) as (central, _):
        await set_profile(central, default(9_000), 1)
        good = await central.ask("GetCompositeSchedule", question)
        station = await central.ask("GetCompositeSchedule", {**question, "evseId": 0})
        bad_unit = await central.ask(
            "GetCompositeSchedule", {**question, "chargingRateUnit": "A"}
        )
        bad_evse = await central.ask("GetCompositeSchedule", {**question, "evseId": 5})
    async with a_pair("composite-refused") as (central, _):
        refused = await central.ask("GetCompositeSchedule", question)

    assert good["schedule"]["chargingSchedulePeriod"] == [
        {"startPeriod": 0, "limit": 9_000.0}
    ]
    assert station["schedule"]["chargingSchedulePeriod"][0]["limit"] == 150_000
    assert bad_unit["statusInfo"]["reasonCode"] == "UnsupportedRateUnit"
    assert bad_evse["statusInfo"]["reasonCode"] == "UnknownEvse"
    assert refused == {"status": "Rejected"}


@pytest.mark.parametrize("version", ["2.0.1", "2.1"])
async def test_a_vehicle_of_iso_15118_tells_its_needs_and_waits_for_a_profile(version: str):
    """Too early a profile is refused; after the needs one lets the power flow."""
    async with a_pair(version=version, iso15118=True, identification_s=60) as (
        central,
        station,
    ):
        await station.plug(1, a_bus(soc_target=80.0, departure=after(36_000)))
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.transaction_id is not None, 5)
        early = await set_profile(central, a_profile2(40_000), outlet)
        await central.until(lambda: len(central.of("NotifyEVChargingNeeds")) == 1)
        waiting_w = outlet.power_w
        await set_profile(central, a_profile2(40_000), outlet)
        await central.until(lambda: len(central.of("NotifyEVChargingSchedule")) == 1)
        await station.wait_until(lambda _: outlet.power_w > 30_000, 5)
        await set_profile(central, a_profile2(20_000), outlet)
        await central.until(lambda: len(central.of("NotifyEVChargingSchedule")) == 2)

        needs = central.of("NotifyEVChargingNeeds")[0]
        assert early[0] == "Rejected"
        assert early[1].startswith("InvalidMessageSeq")
        assert central.told()[:2] == [
            ("Started", "CablePluggedIn"),
            ("Updated", "Authorized"),
        ]
        assert waiting_w == 0
        assert needs["maxScheduleTuples"] == 12
        wanted = needs["chargingNeeds"]
        assert wanted["departureTime"] == stamp(after(36_000))
        assert wanted["dcChargingParameters"]["energyAmount"] == 208_333
        assert wanted["dcChargingParameters"]["stateOfCharge"] == 30
        curves = central.of("NotifyEVChargingSchedule")
        assert [
            each["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"]
            for each in curves
        ] == [40_000, 20_000]


async def test_without_a_profile_the_vehicle_begins_after_a_minute():
    """Under the default; an AC vehicle tells AC needs."""
    async with a_pair(iso15118=True, dc=False, needs_wait_real_s=0.0) as (central, station):
        await station.plug(1, a_bus(max_w=22_000, dc=False))
        outlet = station.outlets[1]
        await station.wait_until(lambda _: outlet.power_w > 0, 5)

        needs = central.of("NotifyEVChargingNeeds")[0]["chargingNeeds"]
        assert needs["requestedEnergyTransfer"] == "AC_three_phase"
        assert needs["acChargingParameters"]["evMaxCurrent"] == 32
        assert any(each.kind == "NO PROFILE" for each in station.ledger)
