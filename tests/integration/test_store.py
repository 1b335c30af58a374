"""The store on real files: what returned from commit is on disk, whatever happens next."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import ports
from agent.domain import events
from agent.domain.capability import Capabilities, RateUnit
from agent.domain.curve import curve
from agent.domain.effects import (
    BilledTransaction,
    BillingReport,
    CandidateSeen,
    OrphanKept,
    OutboxAdded,
    SessionReport,
    SessionSaved,
    StartSocReport,
)
from agent.domain.errors import StoreFault
from agent.domain.events import ConnectorStatus
from agent.domain.goal import ChargeGoal
from agent.domain.identity import (
    Evidence,
    EvidenceKind,
    Match,
    MatchOutcome,
    Vehicle,
    read_token,
)
from agent.domain.ids import (
    AccountId,
    ConnectorId,
    EvseId,
    MacAddress,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.meter import MeterReading, MeterState
from agent.domain.plan import Plan, Schedule, Segment
from agent.domain.reconcile import OrderState, OutletPower, Sent
from agent.domain.rules import advance
from agent.domain.session import Session, SessionPhase, Transaction
from agent.domain.soc import BatteryOrigin, SocBattery, SocSource
from agent.domain.station import EvseState, PendingToken, StationState
from agent.store import sqlite
from agent.store.sqlite import GROUP_MAX, SqliteStore

NOW = datetime(2026, 1, 15, 18, 0, 0, 123_000, tzinfo=UTC)
CP1, CP2 = StationId("CP-01"), StationId("CP-02")
RATED = {CP1: 150_000, CP2: 150_000}
MAC = MacAddress("04E77E00F0FA")
KILLS = 20
CUTS = 100

EVIDENCE = Evidence(
    kind=EvidenceKind.MAC, value=str(MAC), raw="VID:04e7'; DROP", source="Authorize", at=NOW
)
TRANSACTION = Transaction(
    transaction_id=TransactionId("1001"),
    key="1|VID|x|1000.0",
    started_at=NOW - timedelta(hours=1),
    meter_start_wh=1000.0,
    ended_at=NOW,
    meter_stop_wh=2000.5,
    reason="EVDisconnected",
)
SESSION = Session(
    session_id=SessionId("S1"),
    station_id=CP1,
    evse_id=EvseId(1),
    connector_id=ConnectorId(1),
    ocpp_version="ocpp1.6",
    plugged_at=NOW - timedelta(hours=1),
    phase=SessionPhase.ENDED,
    started_at=NOW - timedelta(hours=1),
    finished_at=NOW,
    ended_at=NOW,
    id_token="VID:\u202e\x00\x1b[31m",
    evidence=(EVIDENCE,),
    match=MatchOutcome.UNIQUE,
    match_reason="mac",
    matched_at=NOW,
    vehicle_id=VehicleId("bus-1"),
    mac=MAC,
    vin="VIN1",
    schedule_id=ScheduleId("sch-1"),
    schedule_soc_percent=30.5,
    transactions=(TRANSACTION,),
    meter=MeterState(
        energy_wh=1000.5,
        register_wh=2000.5,
        register_at=NOW,
        power_w=0.0,
        soc_percent=42.0,
        soc_first=30.0,
        history=((1768500000, 1000.5, None, 42.0),),
    ),
    stop_reason="EVDisconnected",
    start_soc_reported=True,
    anomalies=("odd", "odder"),
)
STATE = StationState(
    station_id=CP1,
    rated_w=150_000,
    ocpp_version="ocpp1.6",
    is_connected=True,
    connected_at=NOW,
    booted_at=NOW,
    vendor="Kempower",
    model="S",
    serial="1",
    firmware="2",
    station_status=ConnectorStatus.AVAILABLE,
    evses={
        EvseId(1): EvseState(
            evse_id=EvseId(1),
            connector_id=ConnectorId(1),
            status=ConnectorStatus.FAULTED,
            status_at=NOW,
            error="GroundFailure",
            register_wh=7.5,
        )
    },
    pending=(PendingToken(id_token="x", evidence=(EVIDENCE,), at=NOW),),
)
VEHICLE = Vehicle(
    vehicle_id=VehicleId("bus-1"),
    name="Bus 1",
    macs=frozenset({MAC, MacAddress("04E77E00F0FB")}),
    fallback_mac=MAC,
    vin="VIN1",
    locations=frozenset({"loc-1", "loc-2"}),
    capacity_wh=300_000,
    max_w=150_000,
    min_w=10_000,
    can_pause=True,
    follows_schedule=False,
)
SCHEDULE = Schedule(
    schedule_id=ScheduleId("sch-1"),
    vehicle_id=VehicleId("bus-1"),
    location_uid="loc-1",
    arrives_at=NOW,
    departs_at=NOW + timedelta(hours=8),
    start_soc_percent=30.0,
    target_soc_percent=80.0,
    plan=Plan(
        segments=(
            Segment(starts_at=NOW, ends_at=NOW + timedelta(hours=1), power_w=50_000.125),
            Segment(
                starts_at=NOW + timedelta(hours=1),
                ends_at=NOW + timedelta(hours=2),
                power_w=0.0,
                paused=True,
            ),
        ),
        planned_at=NOW,
        can_pause=True,
        max_w=100_000.0,
    ),
    fingerprint="abc",
)
POWER = OutletPower(
    confirmed=Sent(
        transaction_id=TransactionId("1001"),
        allows=curve([(0, 1000.0), (900, 50_000.5)]),
        exact_until_s=900,
        sent_at=NOW,
    ),
    default_w=5000.0,
    order=OrderState.CONFIRMED,
    failures=2,
    last_order_at=NOW,
    verified=False,
    detail="x",
)
CAPABILITIES = Capabilities(
    units=frozenset({RateUnit.WATT, RateUnit.AMPERE}),
    periods_max=24,
    connectors=2,
    has_smart_charging=True,
    is_known=True,
)
REPORTS = (
    StartSocReport(
        vehicle_id=VehicleId("bus-1"), schedule_id=ScheduleId("sch-1"), soc_percent=30.5
    ),
    SessionReport(
        vehicle_id=VehicleId("bus-1"),
        schedule_id=ScheduleId("sch-1"),
        slots=((1768500000, 1000.5, None, 42.0), (1768500900, 0.0, 42.0, 42.0)),
        first_at=NOW,
        last_at=NOW,
        charging_started_at=NOW,
        charging_ended_at=None,
    ),
    BillingReport(
        session_id=SessionId("S1"),
        corrects=SessionId("S1"),
        station_id=CP1,
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        ocpp_version="ocpp1.6",
        vehicle_id=None,
        vin=None,
        mac=MAC,
        id_token="VID:04E77E00F0AA",
        account_id=AccountId("acme-7"),
        account_at=NOW,
        energy_wh=12_345.6,
        meter_begin_wh=0.0,
        meter_end_wh=None,
        is_estimated=True,
        soc_start=20.0,
        soc_end=None,
        soc_source="station",
        plugged_at=NOW,
        started_at=NOW,
        charging_ended_at=None,
        ended_at=NOW,
        stop_reason="",
        transactions=(
            BilledTransaction(
                transaction_id=TransactionId("7"),
                started_at=NOW,
                ended_at=None,
                meter_begin_wh=0.0,
                meter_end_wh=None,
                reason="",
                is_estimated=True,
            ),
        ),
    ),
)
READING = MeterReading(at=NOW, register_wh=1.5, power_w=2.5, soc_percent=3.5, offered_w=4.5)
ALL_EVENTS: list[events.Event] = [
    events.LinkOpened(ocpp_version="ocpp1.6"),
    events.LinkClosed(reason="x"),
    events.StationBooted(vendor="v", model="m", serial="s", firmware="f"),
    events.ConnectorChanged(
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        status=ConnectorStatus.SUSPENDED_EV,
        at=NOW,
        error="e",
        note="n",
    ),
    events.IdTokenPresented(id_token="t", evse_id=EvseId(1), evidence=(EVIDENCE,)),
    events.EvidenceReported(evidence=(EVIDENCE,), evse_id=None, soc_percent=5.0),
    events.TransactionStarted(
        evse_id=EvseId(1),
        connector_id=ConnectorId(1),
        new_transaction_id=TransactionId("7"),
        key="k",
        at=NOW,
        id_token="t",
        meter_start_wh=None,
        evidence=(EVIDENCE,),
    ),
    events.MeterSampled(
        readings=(READING,), evse_id=EvseId(1), transaction_id=TransactionId("7")
    ),
    events.TransactionEnded(
        transaction_id=TransactionId("7"), at=NOW, meter_stop_wh=5.0, readings=(READING,)
    ),
    events.TransactionReported(
        transaction_id=TransactionId("tx-1"),
        step=events.TransactionStep.UPDATED,
        at=NOW,
        seq_no=3,
        evse_id=EvseId(1),
    ),
    events.TransactionChecked(transaction_id=TransactionId("tx-1"), is_ongoing=None),
    events.ChargingNeedsReported(
        evse_id=EvseId(1), needs=events.EvNeeds(at=NOW, tuples_max=12)
    ),
    events.ExternalLimitChanged(evse_id=EvseId(0), source="EMS", limit_w=11_000.0),
    events.LimitDoubted(evse_id=EvseId(1), reason="r"),
    events.VehicleMatched(
        session_id=SessionId("S1"),
        match=Match(outcome=MatchOutcome.AMBIGUOUS, mac=MAC, reason="two"),
        vin="V",
    ),
    events.ScheduleBound(
        session_id=SessionId("S1"), schedule_id=ScheduleId("sch-1"), start_soc_percent=30.0
    ),
    events.AccountChecked(
        session_id=SessionId("S1"), account_id=None, is_good=False, reason="r", vin="V"
    ),
    events.SocReported(
        session_id=SessionId("S1"),
        percent=41.0,
        source=SocSource.CLOUD,
        at=NOW,
        sigma=0.8,
    ),
    events.BatteryKnown(
        session_id=SessionId("S1"),
        battery=SocBattery(
            points_per_wh=0.0003, spread=0.07, origin=BatteryOrigin.GROSS, may_ask_car=True
        ),
    ),
    events.CarLimitSeen(session_id=SessionId("S1"), percent=80.0),
    events.GoalSet(
        session_id=SessionId("S1"),
        goal=ChargeGoal(set_at=NOW, source="operator", energy_wh=20_000.0),
    ),
    events.GoalReached(session_id=SessionId("S1"), how="20.0 kWh are charged"),
    events.Ticked(),
    events.AnomalyNoted(text="'; DROP TABLE journal; --", evse_id=EvseId(1)),
]


def a_row(seq: int, event: events.Event | None = None, station: StationId = CP1) -> Any:
    return ports.JournalRow(
        seq=seq,
        at=NOW,
        station_id=station,
        new_session_id=SessionId(f"S{seq}"),
        event=event or events.Ticked(),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    store.start()
    yield store
    await store.stop()


async def write(path: Path, records: Sequence[ports.Record], now: datetime = NOW) -> None:
    store = SqliteStore(path)
    store.start()
    await store.commit(records, now)
    await store.stop()


def load(path: Path, rated: dict[StationId, int] | None = None) -> ports.Loaded:
    store = SqliteStore(path)
    try:
        return store.load(RATED if rated is None else rated)
    finally:
        store.close()


# --- round trips ------------------------------------------------------------------------


def test_the_sample_knows_every_kind_of_event() -> None:
    """A new event that cannot be stored must not go unnoticed."""
    assert [type(event) for event in ALL_EVENTS] == list(events.Event.__args__)


async def test_every_event_comes_back_from_the_journal_as_it_was(path: Path) -> None:
    """Replay needs the very same values."""
    rows = [a_row(number + 1, event) for number, event in enumerate(ALL_EVENTS)]
    state = replace(STATE, sessions={})
    await write(path, [ports.StationSaved(state=state, seq=0), *rows])

    assert list(load(path).tail) == rows


async def test_what_survives_a_restart_is_loaded_as_it_was_committed(path: Path) -> None:
    """Every kind of record that load reads."""
    records: list[ports.Record] = [
        ports.StationSaved(state=STATE, seq=3),
        SessionSaved(session=SESSION),
        *(a_row(number) for number in (1, 2, 3, 4)),
        ports.TransactionIdTaken(transaction_id=77),
        ports.LimitSaved(outlet=(CP1, EvseId(1)), power=POWER),
        ports.VehiclesSaved(vehicles=[(VEHICLE, '{"raw": 1}')], at=NOW),
        ports.SchedulesSaved(schedules=[(SCHEDULE, '{"raw": 2}')], gone=[], at=NOW),
        ports.CapabilitiesSaved(station_id=CP1, capabilities=CAPABILITIES),
    ]
    await write(path, records)
    loaded = load(path)

    sessions = {SESSION.session_id: SESSION}
    assert loaded == ports.Loaded(
        stations={CP1: replace(STATE, is_connected=False, sessions=sessions)},
        tail=(a_row(4),),
        capabilities={CP1: CAPABILITIES},
        limits={(CP1, EvseId(1)): POWER},
        vehicles={VEHICLE.vehicle_id: VEHICLE},
        vehicles_at=NOW,
        schedules={SCHEDULE.schedule_id: SCHEDULE},
        schedules_at=NOW,
        last_seq=4,
        last_transaction_id=77,
    )


async def test_configuration_wins_over_what_was_stored(path: Path) -> None:
    """A new rating counts; a station that is no longer configured is left out."""
    other = replace(STATE, station_id=CP2)
    await write(
        path,
        [ports.StationSaved(state=state, seq=0) for state in (STATE, other)] + [a_row(1)],
    )
    loaded = load(path, {CP1: 50_000})

    assert list(loaded.stations) == [CP1]
    assert loaded.stations[CP1].rated_w == 50_000
    assert load(path, {}).tail == ()


async def test_an_empty_database_loads_as_nothing(path: Path) -> None:
    """The first start."""
    loaded = load(path)

    assert (loaded.stations, loaded.tail, loaded.last_seq, loaded.vehicles_at) == (
        {},
        (),
        0,
        None,
    )


async def test_numbers_go_on_after_the_journal_was_pruned_empty(path: Path) -> None:
    """Else new rows would sort before what a station already holds, and be skipped."""
    store = SqliteStore(path)
    store.start()
    await store.commit([ports.StationSaved(state=STATE, seq=500), a_row(500)], NOW)
    await store.prune(NOW + timedelta(days=60))
    await store.stop()
    loaded = load(path)

    assert loaded.tail == ()
    assert loaded.last_seq == 500


async def test_sequences_never_go_back(path: Path) -> None:
    """A transaction id is unique for ever."""
    await write(path, [ports.TransactionIdTaken(transaction_id=9)])
    await write(path, [ports.TransactionIdTaken(transaction_id=5)])

    assert load(path).last_transaction_id == 9


async def test_sessions_are_read_newest_first_and_one_by_its_id(store: SqliteStore) -> None:
    """What people look at."""
    made = [
        replace(
            SESSION, session_id=SessionId(f"S{n}"), plugged_at=NOW + timedelta(minutes=n)
        )
        for n in range(5)
    ]
    await store.commit([SessionSaved(session=session) for session in made], NOW)

    assert await store.sessions(limit=2) == [made[4], made[3]]
    assert await store.sessions(limit=9, session_id=SessionId("S1")) == [made[1]]
    assert await store.sessions(limit=9, session_id=SessionId("none")) == []


async def test_open_sessions_are_loaded_however_old_and_ended_ones_within_a_bound(
    path: Path,
) -> None:
    """A bus that has been plugged in for weeks is still plugged in."""
    opened = replace(
        SESSION,
        session_id=SessionId("old"),
        phase=SessionPhase.CHARGING,
        ended_at=None,
        plugged_at=NOW - timedelta(days=90),
    )
    ended = [
        replace(
            SESSION, session_id=SessionId(f"S{n}"), plugged_at=NOW + timedelta(minutes=n)
        )
        for n in range(60)
    ]
    await write(
        path,
        [
            ports.StationSaved(state=STATE, seq=0),
            *(SessionSaved(session=item) for item in (opened, *ended)),
        ],
    )
    loaded = load(path).stations[CP1].sessions

    assert next(iter(loaded)) == "old"
    assert list(loaded)[1:] == [f"S{n}" for n in range(20, 60)]


async def test_a_candidate_counts_its_sessions_once_each(store: SqliteStore) -> None:
    """For enrolment: last seen first."""

    def seen(session: str, minutes: int, mac: MacAddress = MAC) -> CandidateSeen:
        at = NOW + timedelta(minutes=minutes)
        return CandidateSeen(mac=mac, station_id=CP1, session_id=SessionId(session), at=at)

    other = MacAddress("04E77E00F0FB")
    await store.commit([seen("a", 0), seen("a", 1), seen("b", 2), seen("c", 1, other)], NOW)

    first, second = await store.candidates()
    assert (first.mac, first.sessions, first.first_at) == (MAC, 2, NOW)
    assert first.last_at == NOW + timedelta(minutes=2)
    assert second.mac == other


async def test_vehicles_are_replaced_whole_and_schedules_one_by_one(
    store: SqliteStore,
) -> None:
    """A schedule that vanished keeps its text for the reports that are still owed."""
    other = replace(VEHICLE, vehicle_id=VehicleId("bus-2"))
    await store.commit([ports.VehiclesSaved(vehicles=[(VEHICLE, "1")], at=NOW)], NOW)
    await store.commit([ports.VehiclesSaved(vehicles=[(other, "2")], at=NOW)], NOW)
    saved = ports.SchedulesSaved(schedules=[(SCHEDULE, "text")], gone=[], at=NOW)
    gone = ports.SchedulesSaved(schedules=[], gone=[SCHEDULE.schedule_id], at=NOW)
    await store.commit([saved, gone], NOW)

    assert await store.vehicle_texts() == {"bus-2": "2"}
    assert await store.schedule_text(SCHEDULE.schedule_id) == "text"
    assert await store.schedule_text(ScheduleId("none")) is None
    assert store.load(RATED).schedules == {}
    await store.commit([saved], NOW)
    assert store.load(RATED).schedules == {SCHEDULE.schedule_id: SCHEDULE}


# --- commits ----------------------------------------------------------------------------


async def test_units_that_wait_share_a_commit(store: SqliteStore) -> None:
    """A reconnect storm costs a handful of syncs."""
    count = 500
    async with asyncio.TaskGroup() as tasks:
        for seq in range(1, count + 1):
            tasks.create_task(store.commit([a_row(seq)], NOW))

    assert store.units == count
    assert store.commits < count / 4
    assert store.commits >= count / GROUP_MAX
    assert len(await store.journal()) == count


@pytest.mark.parametrize(
    "bad",
    [
        [a_row(1)],  # the key is taken
        [replace(SESSION, ended_at=None)],  # the schema's CHECK
        [a_row(2**70)],  # no SQLite integer
        [a_row(50, events.AnomalyNoted(text="\ud800"))],  # no UTF-8
        ["rubbish"],  # no record at all
    ],
    ids=["duplicate", "check", "huge", "surrogate", "rubbish"],
)
async def test_a_failing_unit_takes_no_other_with_it(
    store: SqliteStore, bad: list[Any]
) -> None:
    """Neither those of its group, nor the thread, nor anything of its own."""
    bad = [
        SessionSaved(session=item) if isinstance(item, Session) else item for item in bad
    ]
    await store.commit([a_row(1)], NOW)
    outcomes: dict[int, BaseException | None] = {}

    async def commit(seq: int, records: Sequence[Any]) -> None:
        try:
            async with asyncio.timeout(5):
                await store.commit(records, NOW)
            outcomes[seq] = None
        except Exception as error:  # noqa: BLE001 - looked at below
            outcomes[seq] = error

    async with asyncio.TaskGroup() as tasks:
        for seq in range(2, 12):
            tasks.create_task(commit(seq, [a_row(seq)]))
        tasks.create_task(commit(99, [a_row(100), *bad]))

    assert outcomes[99] is not None
    assert not isinstance(outcomes[99], TimeoutError)
    assert [seq for seq, error in outcomes.items() if error] == [99]
    assert [row.seq for row in await store.journal()] == list(range(1, 12))


async def test_a_refused_unit_raises_store_fault(store: SqliteStore) -> None:
    """The word that the intake understands: not acknowledged."""
    await store.commit([a_row(1)], NOW)

    with pytest.raises(StoreFault):
        await store.commit([a_row(2), a_row(1)], NOW)


async def test_d4_a_full_disk_is_a_store_fault_and_passes(path: Path) -> None:
    """D4: nothing half-written, and normal again with space."""
    store = SqliteStore(path)
    store.start()
    await store.commit([a_row(1)], NOW)
    pages = (await store.ask(lambda db: db.execute("PRAGMA page_count").fetchone()))[0]
    await store.ask(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())
    big = events.AnomalyNoted(text="x" * 100_000)
    with pytest.raises(StoreFault, match="full"):
        await store.commit([a_row(2), a_row(3, big)], NOW)
    await store.ask(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    await store.commit([a_row(2), a_row(3, big)], NOW)

    assert [row.seq for row in await store.journal()] == [1, 2, 3]
    await store.stop()


async def test_stopping_finishes_what_waits(path: Path) -> None:
    """A clean stop loses nothing that was handed over."""
    store = SqliteStore(path)
    store.start()
    async with asyncio.TaskGroup() as tasks:
        for seq in range(1, 201):
            tasks.create_task(store.commit([a_row(seq)], NOW))
        await asyncio.sleep(0)
        await store.stop()

    assert load(path).last_seq == 200


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_units_beyond_the_bound_wait_their_turn_and_are_all_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    """Memory stays bounded; one that stops waiting holds nobody up."""
    monkeypatch.setattr(sqlite, "WAITING_MAX", 8)
    store = SqliteStore(path)
    held: list[int] = []
    submit = store._submit

    def watched(*unit: Any) -> asyncio.Future[Any]:
        future = submit(*unit)
        held.append(store._held)
        return future

    monkeypatch.setattr(store, "_submit", watched)
    store.start()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(store.commit([a_row(seq)], NOW)) for seq in range(1, 101)
        ]
        await asyncio.sleep(0)
        if is_cancelled:
            for task in waiting[50:60]:
                task.cancel()
    assert await store.ask(lambda _: "answered") == "answered"
    seqs = [row.seq for row in await store.journal()]
    await store.stop()

    gone = set(range(51, 61)) if is_cancelled else set()
    assert seqs == [seq for seq in range(1, 101) if seq not in gone]
    assert max(held) == 8


async def test_what_waits_for_room_is_refused_when_the_store_stops(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never handed over, so the station is not answered and repeats it."""
    monkeypatch.setattr(sqlite, "WAITING_MAX", 8)
    store = SqliteStore(path)
    store.start()
    outcomes: list[str] = []

    async def commit(seq: int) -> None:
        try:
            await store.commit([a_row(seq)], NOW)
            outcomes.append("stored")
        except StoreFault:
            outcomes.append("refused")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for seq in range(1, 21):
            tasks.create_task(commit(seq))
        await asyncio.sleep(0)
        await store.stop()

    assert sorted(outcomes) == ["refused"] * 12 + ["stored"] * 8
    assert load(path).last_seq == 8


async def test_the_writer_does_not_interrupt_the_loop(path: Path) -> None:
    """Its wake-up after a sync takes no processor from a loop that works."""
    own = os.sched_getscheduler(0)
    store = SqliteStore(path)
    store.start()
    await store.commit([a_row(1)], NOW)
    assert store._thread is not None
    assert store._thread.native_id is not None
    policy = os.sched_getscheduler(store._thread.native_id)
    await store.stop()

    assert policy == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == own


async def test_a_sandbox_that_forbids_scheduling_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The systemd unit filters such calls."""

    def forbidden(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    await write(path, [a_row(1)])

    assert load(path).last_seq == 1


# --- opening ----------------------------------------------------------------------------


def test_d12_a_second_opener_is_refused_without_writing(path: Path) -> None:
    """D12: two daemons on one state."""
    first = SqliteStore(path)
    try:
        with pytest.raises(StoreFault, match="another depot-agent"):
            SqliteStore(path)
    finally:
        first.close()
    SqliteStore(path).close()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        item.name: item.read_bytes() for item in folder.iterdir() if item.suffix != ".lock"
    }


def make_foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (a)")
    db.commit()
    db.close()


def make_owned_by_another(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id = 12345")
    db.commit()
    db.close()


def make_newer(path: Path) -> None:
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9999")
    db.commit()
    db.close()


def make_newer_killed(path: Path) -> None:
    """As a newer program leaves it that was killed: pages still in the WAL."""
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9999")
    db.commit()
    kept = path.with_name("kept")
    kept.mkdir()
    for item in (path, path.with_name(path.name + "-wal")):
        shutil.copy(item, kept)
    db.close()
    for item in kept.iterdir():
        shutil.copy(item, path.parent)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    shutil.rmtree(kept)


def make_text(path: Path) -> None:
    path.write_text("this is no database, " * 100)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_foreign, "not one of depot-agent's"),
        (make_owned_by_another, "not one of depot-agent's"),
        (make_newer, "install the newer program"),
        (make_newer_killed, "install the newer program"),
        (make_text, "cannot be used"),
    ],
)
def test_u3_a_database_that_is_not_ours_is_refused_and_not_touched(
    path: Path, make: Any, words: str
) -> None:
    """U3: not one byte, and the remedy is named."""
    make(path)
    before = snapshot(path.parent)
    with pytest.raises(StoreFault, match=words):
        SqliteStore(path)
    after = snapshot(path.parent)

    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) <= {"agent.db-shm", "agent.db-wal"}


def test_a_refused_file_is_not_kept_locked(path: Path) -> None:
    """After the remedy the same process may open it."""
    make_foreign(path)
    with pytest.raises(StoreFault):
        SqliteStore(path)
    path.unlink()

    SqliteStore(path).close()


def test_d7_a_missing_folder_is_named_with_its_remedy(tmp_path: Path) -> None:
    """D7: one clear line."""
    with pytest.raises(StoreFault, match=r"create it, or correct store\.path"):
        SqliteStore(tmp_path / "missing" / "agent.db")


def test_d7_a_read_only_folder_is_named_with_its_remedy(tmp_path: Path) -> None:
    """D7: also for root, who may write where the mode says no."""
    folder = tmp_path / "state"
    folder.mkdir()
    target = folder / "agent.db"
    if os.geteuid() == 0:
        target = Path("/sys/kernel/agent.db")  # a folder that takes no files from anyone
    else:
        folder.chmod(0o500)

    with pytest.raises(StoreFault, match=r"correct store\.path"):
        SqliteStore(target)


def test_d6_a_damaged_database_is_noticed_at_the_start(path: Path) -> None:
    """D6: never silent."""
    store = SqliteStore(path)
    store._db.execute("BEGIN")
    for seq in range(2000):
        store._db.execute(
            "INSERT INTO journal VALUES (?, 1, 'CP-01', 'S', 'Ticked', ?)",
            (seq + 1, b"{}" * 50),
        )
    store._db.execute("COMMIT")
    store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(content)

    with pytest.raises(StoreFault, match=r"backup|cannot be used"):
        SqliteStore(path)


# --- outbox ------------------------------------------------------------------------------


def owed(key: str, destination: str = "chargeye", report: Any = REPORTS[0]) -> OutboxAdded:
    return OutboxAdded(
        destination=destination, key=key, session_id=SessionId("S1"), report=report
    )


async def test_outbox_rows_come_back_in_order_and_whole(store: SqliteStore) -> None:
    """Oldest first, one destination."""
    await store.commit(
        [owed("a"), owed("b", report=REPORTS[1]), owed("c", "billing"), owed("d")], NOW
    )
    due = await store.due_outbox("chargeye", 2)

    assert [(row.key, row.report) for row in due] == [("a", REPORTS[0]), ("b", REPORTS[1])]
    assert (due[0].created_at, due[0].attempts, due[0].error, due[0].is_dead) == (
        NOW,
        0,
        "",
        False,
    )
    assert [row.key for row in await store.outbox_rows()] == ["a", "b", "c", "d"]


async def test_the_same_fact_is_never_owed_twice_even_after_it_was_sent(
    store: SqliteStore,
) -> None:
    """The key makes a repeat harmless, also after a restart and a replay."""
    await store.commit([owed("a"), owed("a", report=REPORTS[1]), owed("a", "billing")], NOW)
    (row,) = await store.due_outbox("chargeye", 10)
    assert row.report == REPORTS[0]
    await store.commit([ports.OutboxSent(row_id=row.row_id)], NOW)
    await store.commit([owed("a")], NOW)

    assert await store.due_outbox("chargeye", 10) == []
    assert [item.destination for item in await store.outbox_rows()] == ["billing"]


async def test_a_failed_row_waits_and_a_dead_one_is_shown_but_not_due(
    store: SqliteStore,
) -> None:
    """A dead letter blocks nobody and is not forgotten."""
    await store.commit([owed("a"), owed("b")], NOW)
    first, second = await store.due_outbox("chargeye", 10)
    later = NOW + timedelta(minutes=5)
    failed = ports.OutboxFailed(row_id=first.row_id, error="x" * 2000, next_at=later)
    dead = ports.OutboxFailed(row_id=second.row_id, error="no", next_at=later, is_dead=True)
    await store.commit([failed, failed, dead], NOW)

    (due,) = await store.due_outbox("chargeye", 10)
    assert (due.key, due.attempts, due.next_at, len(due.error)) == ("a", 2, later, 500)
    rows = {row.key: row for row in await store.outbox_rows()}
    assert (rows["b"].is_dead, rows["b"].error) == (True, "no")


async def test_every_kind_of_report_comes_back_as_it_was(store: SqliteStore) -> None:
    rows = [owed(str(n), "x", report) for n, report in enumerate(REPORTS)]
    await store.commit(rows, NOW)

    assert [row.report for row in await store.due_outbox("x", 10)] == list(REPORTS)


async def test_a_dead_letter_is_tried_again_and_a_dropped_one_never(
    store: SqliteStore,
) -> None:
    """Dropping keeps the key, so that the same fact is not owed again."""
    await store.commit([owed("a"), owed("b"), owed("a", "billing")], NOW)
    first, second = await store.due_outbox("chargeye", 10)
    dead = [
        ports.OutboxFailed(row_id=row.row_id, error="no", next_at=NOW, is_dead=True)
        for row in (first, second)
    ]
    await store.commit(dead, NOW)
    await store.commit([ports.OutboxRevived(row_id=first.row_id)], NOW)
    await store.commit([ports.OutboxDropped(row_id=second.row_id)], NOW)
    await store.commit([owed("b"), ports.OutboxRevived(row_id=second.row_id)], NOW)

    (due,) = await store.due_outbox("chargeye", 10)
    assert (due.key, due.attempts, due.is_dead, due.error) == ("a", 0, False, "no")
    (dropped,) = await store.outbox_of("b")
    assert (dropped.sent_at, dropped.is_dead) == (NOW, True)
    found = await store.outbox_of("a")
    assert [(row.destination, row.sent_at) for row in found] == [
        ("chargeye", None),
        ("billing", None),
    ]


async def test_pruning_lets_go_of_the_old_and_never_of_the_owed(store: SqliteStore) -> None:
    """Sessions and what is owed stay."""
    old = NOW - timedelta(days=40)
    await store.commit(
        [
            replace(a_row(1), at=old),
            a_row(2),
            owed("sent"),
            owed("owed"),
            SessionSaved(session=replace(SESSION, plugged_at=old, ended_at=old)),
            OrphanKept(station_id=CP1, text="x", at=old),
        ],
        old,
    )
    sent = (await store.due_outbox("chargeye", 1))[0]
    await store.commit([ports.OutboxSent(row_id=sent.row_id)], old)
    await store.prune(NOW)

    def counts(db: sqlite3.Connection) -> list[int]:
        return [
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours
            for table in ("journal", "outbox", "sessions", "orphans")
        ]

    assert await store.ask(counts) == [1, 1, 1, 0]


async def test_pruning_keeps_what_a_restart_still_has_to_replay(path: Path) -> None:
    """Rare readings of a long session may be old before the session is saved again."""
    old = NOW - timedelta(days=40)
    saved = [ports.StationSaved(state=STATE, seq=2)]
    later = [replace(a_row(seq), at=old) for seq in (1, 2, 3, 4)]
    unknown = replace(a_row(5, station=StationId("CP-GONE")), at=old)
    store = SqliteStore(path)
    store.start()
    await store.commit([*later, unknown, *saved], old)
    await store.prune(NOW)
    left = [row.seq for row in await store.journal()]
    await store.stop()

    assert left == [3, 4]
    assert [row.seq for row in load(path).tail] == [3, 4]


# --- backup -------------------------------------------------------------------------------


async def test_a_backup_can_be_opened_and_holds_what_was_committed(
    store: SqliteStore, tmp_path: Path
) -> None:
    """Also while commits go on."""
    await store.commit([a_row(seq) for seq in range(1, 101)], NOW)
    target = tmp_path / "copy.db"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.backup(target))
        for seq in range(101, 151):
            tasks.create_task(store.commit([a_row(seq)], NOW))

    assert 100 <= load(target).last_seq <= 150
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("where", ["missing/copy.db", "file/copy.db", "folder", "agent.db"])
async def test_a_backup_that_cannot_be_written_is_a_fault_and_harms_nothing(
    store: SqliteStore, tmp_path: Path, where: str
) -> None:
    """A wrong path on the command line must not stop the writer or replace the state."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    await store.commit([a_row(1)], NOW)
    async with asyncio.timeout(5):
        with pytest.raises(StoreFault):
            await store.backup(tmp_path / where)
        await store.commit([a_row(2)], NOW)

    assert [row.seq for row in await store.journal()] == [1, 2]
    other = sqlite3.connect(tmp_path / "agent.db")
    assert other.execute("SELECT count(*) FROM journal").fetchone() == (2,)
    other.close()


# --- crashes ------------------------------------------------------------------------------

CHILD = """
    import asyncio, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from agent.domain import events
    from agent.domain.ids import SessionId, StationId
    from agent.ports import JournalRow
    from agent.store.sqlite import SqliteStore

    async def main():
        store = SqliteStore(Path(sys.argv[1]))
        seq = store.load({}).last_seq
        store.start()
        print("ready", flush=True)
        while True:
            rows = []
            for _ in range(3):
                seq += 1
                rows.append(JournalRow(
                    seq=seq, at=datetime(2026, 1, 15, tzinfo=UTC),
                    station_id=StationId("CP-01"), new_session_id=SessionId("S"),
                    event=events.AnomalyNoted(text="x" * (seq % 3000))))
            await store.commit(rows, datetime(2026, 1, 15, tzinfo=UTC))
            print(seq, flush=True)

    asyncio.run(main())
"""


@pytest.mark.slow
def test_d1_after_a_kill_everything_that_was_acknowledged_is_there(path: Path) -> None:
    """D1: kill -9 at a random instant, over and over, on one file."""
    seed = int(os.environ.get("SEED", "7"))
    print(f"SEED={seed}")  # noqa: T201 - a failure can be replayed
    chance = random.Random(seed)
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            acknowledged = 0
            for _ in range(chance.randrange(1, 40)):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines():
                acknowledged = int(line) if line.isdigit() else acknowledged
        db = sqlite3.connect(path)
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM journal ORDER BY seq")]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()

        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) % 3 == 0
        assert acknowledged <= len(seqs)


def test_d2_a_torn_wal_opens_and_holds_a_prefix_with_all_commits_before_the_cut(
    tmp_path: Path,
) -> None:
    """D2: cut at a random byte, half of the time followed by garbage."""
    seed = int(os.environ.get("SEED", "7"))
    print(f"SEED={seed}")  # noqa: T201 - a failure can be replayed
    chance = random.Random(seed)
    whole = tmp_path / "whole.db"
    store = SqliteStore(whole, threaded=False)
    store._db.execute("PRAGMA wal_autocheckpoint = 0")
    wal = tmp_path / "whole.db-wal"
    sizes: list[int] = []
    for seq in range(1, 101):
        text = "x" * chance.randrange(3000)
        asyncio.run(store.commit([a_row(seq, events.AnomalyNoted(text=text))], NOW))
        sizes.append(wal.stat().st_size)
    database, log = whole.read_bytes(), wal.read_bytes()
    store.close()

    for number in range(CUTS):
        cut = chance.randrange(len(log) + 1)
        folder = tmp_path / f"cut{number}"
        folder.mkdir()
        torn = folder / "agent.db"
        torn.write_bytes(database)
        garbage = chance.randbytes(chance.randrange(9000)) if number % 2 else b""
        (folder / "agent.db-wal").write_bytes(log[:cut] + garbage)
        opened = SqliteStore(torn)
        seqs = [
            seq for (seq,) in opened._db.execute("SELECT seq FROM journal ORDER BY seq")
        ]
        assert opened._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        opened.close()
        shutil.rmtree(folder)

        survived = sum(1 for size in sizes if size <= cut)
        assert seqs == list(range(1, survived + 1))


# --- replay -------------------------------------------------------------------------------


def a_day(chance: random.Random) -> list[events.Event]:
    """Random events of one station: sessions, repeats, nonsense, in any order."""
    token = f"VID:04E77E0000{chance.randrange(16):02X}"
    evse = EvseId(chance.randrange(1, 3))
    connector = ConnectorId(evse)
    at = NOW + timedelta(seconds=chance.randrange(-3600, 0))
    transaction = TransactionId(str(chance.randrange(100, 110)))
    return [
        events.LinkOpened(ocpp_version="ocpp1.6"),
        events.ConnectorChanged(
            evse_id=evse,
            connector_id=connector,
            status=chance.choice(list(ConnectorStatus)),
            at=at,
        ),
        events.IdTokenPresented(
            id_token=token, evse_id=evse, evidence=read_token(token, source="t", at=at)
        ),
        events.TransactionStarted(
            evse_id=evse,
            connector_id=connector,
            new_transaction_id=transaction,
            key=f"{evse}{token}{at}",
            at=at,
            id_token=token,
            meter_start_wh=chance.choice([None, 1000.0]),
            evidence=read_token(token, source="t", at=at),
        ),
        events.MeterSampled(
            readings=tuple(
                MeterReading(
                    at=at + timedelta(seconds=30 * n),
                    register_wh=1000.0 + 100 * n,
                    power_w=chance.choice([None, 50_000.0]),
                    soc_percent=chance.choice([None, 30.0 + n]),
                )
                for n in range(3)
            ),
            evse_id=evse,
            transaction_id=transaction,
        ),
        events.TransactionEnded(
            transaction_id=transaction,
            at=at + timedelta(minutes=5),
            meter_stop_wh=chance.choice([None, 1500.0]),
            reason=chance.choice(["Local", "EVDisconnected"]),
        ),
        events.Ticked(),
        events.LinkClosed(),
        events.AnomalyNoted(text="odd", evse_id=evse),
    ]


@pytest.mark.parametrize("seed", range(5))
async def test_the_journal_replayed_gives_the_stored_sessions(
    path: Path, seed: int
) -> None:
    """The tables are a projection of the journal, after any history."""
    chance = random.Random(seed)
    store = SqliteStore(path)
    store.start()
    state = StationState(station_id=CP1, rated_w=150_000)
    await store.commit([ports.StationSaved(state=state, seq=0)], NOW)
    for seq in range(1, 301):
        at = NOW + timedelta(seconds=20 * seq)
        row = replace(a_row(seq, chance.choice(a_day(chance))), at=at)
        decision = advance(state, row.event, now=at, new_session_id=row.new_session_id)
        state = decision.state
        # As the intake does: meter values alone save no session until later.
        saved = [SessionSaved(session=s) for s in state.sessions.values()]
        records: list[ports.Record] = [*decision.records, *saved] if seq % 10 == 0 else []
        owed_now = [r for r in decision.records if not isinstance(r, SessionSaved)]
        await store.commit([row, *(records or owed_now)], at)
    await store.commit([SessionSaved(session=s) for s in state.sessions.values()], NOW)

    replayed = StationState(station_id=CP1, rated_w=150_000)
    last: dict[SessionId, Session] = {}
    for row in await store.journal():
        replayed = advance(
            replayed, row.event, now=row.at, new_session_id=row.new_session_id
        ).state
        last.update(replayed.sessions)
    stored = {item.session_id: item for item in await store.sessions(limit=1000)}
    await store.stop()

    assert len(stored) > 5
    assert replayed == state
    assert {key: last[key] for key in replayed.sessions} == {
        key: stored[key] for key in replayed.sessions
    }


async def test_a_restart_replays_the_tail_onto_what_was_saved(path: Path) -> None:
    """Start-up and recovery are the same."""
    chance = random.Random(3)
    state = StationState(station_id=CP1, rated_w=150_000)
    store = SqliteStore(path)
    store.start()
    for seq in range(1, 101):
        row = a_row(seq, chance.choice(a_day(chance)))
        decision = advance(state, row.event, now=row.at, new_session_id=row.new_session_id)
        state = decision.state
        saved: list[ports.Record] = []
        if seq == 60:
            saved = [ports.StationSaved(state=state, seq=seq)]
            saved += [SessionSaved(session=s) for s in state.sessions.values()]
        await store.commit([row, *saved], NOW)
    await store.stop()
    loaded = load(path)
    replayed = loaded.stations[CP1]
    is_connected = None
    for row in loaded.tail:
        replayed = advance(
            replayed, row.event, now=row.at, new_session_id=row.new_session_id
        ).state
        is_connected = replayed.is_connected

    assert len(loaded.tail) == 40
    assert dict(replayed.sessions) == dict(state.sessions)
    assert replayed.evses == state.evses
    assert is_connected == state.is_connected
