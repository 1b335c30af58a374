"""OCPP 2.0.1 and 2.1 on real input: real process, real sockets, foreign peers.

Where a scenario is the same in both versions, two stations play it side by side at one
daemon: it is quicker, and a depot looks like that.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
import zlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.daemon_process import DaemonProcess
from tests.support.fleet_server import ForeignFleet, foreign_fleet, plan_json
from tests.support.foreign_station import ForeignStation
from tests.support.foreign_station2 import CODES, ForeignStation2, Json, limit_at, stamp

BAYS = 8
PROMPT_S = 2.0
"""A limit must be at the EVSE this long after the match."""
MAX_W = 120_000.0
"""What the registry says that a vehicle takes."""
BOMB_BYTES = 100 * 1024 * 1024
CARD = {"idToken": "04A2B3C4D5E6F7", "type": "ISO14443"}

CONFIG = """
[site]
name = "Test depot"
location_uid = "loc-1"
cap_kw = 2000.0
efficiency = 0.94

[policy]
unmatched_kw = 20.0
unplanned_kw = 40.0
after_plan = "hold-minimum"

[ocpp]
host = "127.0.0.1"
port = OCPP_PORT

[chargeye]
base_url = "BASE_URL"
refresh_token = "refresh-me"
vehicles_poll_s = 1
schedules_poll_s = 1
"""
STATION = """
[[stations]]
id = "{name}"
max_kw = 150.0
fallback_kw = 10.0
"""

Pieces = list[tuple[datetime, datetime, float]]
Start = Callable[..., DaemonProcess]


@dataclass(frozen=True)
class Bay:
    """A station and the vehicle that comes to it."""

    number: int

    @property
    def station_id(self) -> str:
        return f"CP-{self.number:02}"

    @property
    def vehicle_id(self) -> str:
        return f"bus-{self.number}"

    @property
    def mac(self) -> str:
        return f"04E77E00F0A{self.number}"

    @property
    def vin(self) -> str:
        return f"WDB9066571S12345{self.number}"

    @property
    def vid(self) -> Json:
        return {"idToken": f"VID:{self.mac}", "type": "Central"}

    @property
    def tx(self) -> str:
        return f"3f1c7c1a-0e5b-4f7e-9d6a-1b2c3d4e5f0{self.number}"


BOTH = ((Bay(1), "2.0.1"), (Bay(2), "2.1"))


@pytest.fixture(params=["2.0.1", "2.1"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fleet() -> Iterator[ForeignFleet]:
    with foreign_fleet() as found:
        found.vehicles = [
            {
                "id": bay.vehicle_id,
                "name": f"Bus {bay.number}",
                "vin": bay.vin,
                "locationUid": ["loc-1"],
                "chargingPorts": [
                    {"macAddress": bay.mac, "type": "CCS2", "inactive": False}
                ],
                "fullChargeEnergykWh": 300,
                "maxChargePowerkW": MAX_W / 1000,
                "minChargePowerkW": 5,
                "supportsPauseResume": True,
                "enableChargeScheduling": True,
            }
            for bay in map(Bay, range(1, BAYS + 1))
        ]
        yield found


@pytest.fixture
def start(tmp_path: Path, fleet: ForeignFleet) -> Iterator[Start]:
    """Start the daemon with the same plan for every vehicle."""
    made: list[DaemonProcess] = []

    def run(pieces: Pieces | None = None, *, station: str = "") -> DaemonProcess:
        fleet.schedules = slots(pieces) if pieces is not None else []
        text = CONFIG.replace("BASE_URL", fleet.base_url)
        for bay in map(Bay, range(1, BAYS + 1)):
            text += STATION.format(name=bay.station_id) + station
        daemon = DaemonProcess(tmp_path, text)
        made.append(daemon)
        daemon.start()
        name, count = ("plan_received", BAYS) if pieces else ("registry_received", 1)
        deadline = time.monotonic() + 10
        while len(daemon.events(name)) < count:
            assert time.monotonic() < deadline, f"no {name} in time"
            time.sleep(0.02)
        return daemon

    yield run
    for daemon in made:
        daemon.stop()


# --- plans ---------------------------------------------------------------------------


def this_second() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def slots(pieces: Pieces) -> list[Json]:
    """A slot with the plan for every vehicle."""
    now = this_second()
    return [
        {
            "id": f"slot-{number}",
            "evId": Bay(number).vehicle_id,
            "locationUid": "loc-1",
            "plannedArrivalTime": stamp(now - timedelta(minutes=30)),
            "plannedDepartureTime": stamp(now + timedelta(hours=8)),
            "startSoC": 40,
            "targetSoC": 90,
            "plan": plan_json(
                pieces,
                schedule={"id": f"slot-{number}", "ev": {"supportsPausing": True}},
            ),
            "planMeta": {"timestamp": stamp(now), "strategy": "peak-supression"},
        }
        for number in range(1, BAYS + 1)
    ]


def steady(kw: float) -> Pieces:
    now = this_second()
    return [(now - timedelta(minutes=10), now + timedelta(hours=4), kw)]


def steps(*pieces: tuple[int, float]) -> Pieces:
    """Pieces of (minutes from now at which they end, kW), one after the other."""
    now = this_second()
    edges = [now - timedelta(minutes=10)]
    edges += [now + timedelta(minutes=minutes) for minutes, _ in pieces]
    powers = [kw for _, kw in pieces]
    return list(zip(edges[:-1], edges[1:], powers, strict=True))


def odd_plan() -> Pieces:
    """A pause, odd decimals, and more than a vehicle takes."""
    return steps((20, 43.2157), (50, 0.0), (95, 119.99), (120, 500.0))


def planned_w(pieces: Pieces, at: datetime) -> float:
    """The plan's power at a time, as it may be at the outlet: tenths, rounded down."""
    (kw,) = (kw for begins, ends, kw in pieces if begins <= at < ends)
    return min(int(kw * 10_000) / 10, MAX_W)


def follows(profile: Json, pieces: Pieces) -> bool:
    """Whether a profile is the plan at every instant from now to its end."""
    at, end = datetime.now(UTC), pieces[-1][1]
    while at < end:
        if limit_at(profile, at) != planned_w(pieces, at):
            return False
        at += timedelta(seconds=30)
    return True


# --- what tests do and look at ---------------------------------------------------------


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], Any], timeout_s: float = 10) -> Any:
    """Wait for a condition, looked at often."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)
    return found


async def side_by_side(scenarios: dict[str, Coroutine[Any, Any, Any]]) -> None:
    """Play scenarios at the same time; every failure is told with its name."""
    found = await asyncio.gather(*scenarios.values(), return_exceptions=True)
    failed = {
        name: error
        for name, error in zip(scenarios, found, strict=True)
        if isinstance(error, BaseException)
    }
    if failed:
        told = "\n".join(f"{name}: {error!r}" for name, error in failed.items())
        raise AssertionError(told) from next(iter(failed.values()))


def at_bay(
    daemon: DaemonProcess, bay: Bay, version: str, **variables: Any
) -> ForeignStation2:
    return ForeignStation2(url(daemon, bay), version, **variables)


def url(daemon: DaemonProcess, bay: Bay) -> str:
    return f"ws://127.0.0.1:{daemon.ocpp_port}/any/{bay.station_id}"


def sessions_of(daemon: DaemonProcess, bay: Bay) -> list[Json]:
    rows = daemon.ask_web("/api/v1/sessions")
    return [row for row in rows if row["station_id"] == bay.station_id]


def session_of(daemon: DaemonProcess, bay: Bay) -> Json:
    (found,) = sessions_of(daemon, bay)
    return found


def row_of(daemon: DaemonProcess, bay: Bay) -> Json:
    rows = daemon.ask_web("/api/v1/stations")
    (found,) = (row for row in rows if row["station_id"] == bay.station_id)
    assert isinstance(found, dict)
    return found


async def plugged(station: ForeignStation2, token: Json | None) -> None:
    """Boot, plug in and present the token, as drivers do."""
    answer = await station.boot()
    assert answer["status"] == "Accepted"
    await station.status("Available")
    await station.status("Occupied")
    if token is not None and token["type"] != "NoAuthorization":
        answer = await station.authorize(token)
        assert answer["idTokenInfo"]["status"] == "Accepted"


async def charging(station: ForeignStation2, bay: Bay, pieces: Pieces) -> Json:
    """Plug in, start, and wait until the plan is at the EVSE."""
    await plugged(station, bay.vid)
    await station.started(bay.tx, token=bay.vid)
    await station.updated(bay.tx, "ChargingStateChanged", state="Charging")
    return await at_plan(station, pieces, 5.0)


async def at_plan(
    station: ForeignStation2, pieces: Pieces, timeout_s: float = PROMPT_S
) -> Json:
    """Wait until the station holds the plan; the profile that says so."""

    def found() -> Json | None:
        for item in station.kept:
            profile: Json = item["chargingProfile"] | {"evseId": item["evseId"]}
            if profile["chargingProfilePurpose"] == "TxProfile" and follows(
                profile, pieces
            ):
                return profile
        return None

    began = now_s()
    try:
        profile = await station.wait_for(found, timeout_s)
    except TimeoutError:
        raise AssertionError(
            f"no plan at the EVSE within {timeout_s} s: {station.set_answers[-4:]}; "
            f"faults: {station.faults}"
        ) from None
    assert now_s() - began < timeout_s
    assert isinstance(profile, dict)
    return profile


# --- the vehicle is recognised ------------------------------------------------------------


def tokens(version: str, bay: Bay) -> dict[str, Json]:
    """Tokens that name the vehicle of a bay, and those that leave it to ConnectedEV."""
    mac = bay.mac.lower()
    found: dict[str, Json] = {
        "mac": {"idToken": bay.mac, "type": "MacAddress"},
        "mac with colons": {
            "idToken": ":".join(mac[at : at + 2] for at in range(0, 12, 2)),
            "type": "MacAddress",
        },
        "additionalInfo": {
            **CARD,
            "additionalInfo": [{"additionalIdToken": bay.mac, "type": "EVCCID"}],
        },
        "VID": bay.vid,
        "ConnectedEV, card": CARD,
        "ConnectedEV, no token": {"idToken": "", "type": "NoAuthorization"},
    }
    if version == "2.1":
        found["EVCCID"] = {"idToken": bay.mac, "type": "EVCCID"}
        found["VIN"] = {"idToken": bay.vin, "type": "VIN"}
    return found


def connected_ev(vehicle_id: str) -> dict[tuple[str, str, str, int], str]:
    return {
        ("ConnectedEV", "Available", "", 1): "true",
        ("ConnectedEV", "VehicleId", "", 1): vehicle_id,
    }


async def test_vehicle_is_matched_and_its_plan_is_at_the_evse_within_two_seconds(
    start: Start, version: str
) -> None:
    pieces = odd_plan()
    daemon = start(pieces)

    async def play(bay: Bay, name: str) -> None:
        token = tokens(version, bay)[name]
        variables = connected_ev(bay.mac) if name.startswith("ConnectedEV") else {}
        async with at_bay(daemon, bay, version, variables=variables) as station:
            await plugged(station, token)
            answer = await station.started(bay.tx, token=token)
            profile = await at_plan(station, pieces)
            session = session_of(daemon, bay)
            sent = [item["transactionId"] for item in station.profiles("TxProfile")]

        assert answer["idTokenInfo"]["status"] == "Accepted"
        assert profile["transactionId"] == bay.tx
        assert profile["evseId"] == 1
        assert profile["chargingProfileKind"] == "Absolute"
        assert set(sent) == {bay.tx}
        (schedule,) = profile["chargingSchedule"]
        assert schedule["chargingRateUnit"] == "W"
        assert "duration" not in schedule
        assert limit_at(profile, this_second() + timedelta(hours=9)) == 5000.0
        assert session["match"] == "unique"
        assert session["vehicle_id"] == bay.vehicle_id
        assert session["transaction_ids"] == [bay.tx]
        assert session["ocpp_version"] == version

    names = tokens(version, Bay(1))
    await side_by_side(
        {name: play(Bay(number), name) for number, name in enumerate(names, 1)}
    )


async def test_token_that_comes_after_the_start_brings_the_plan_within_two_seconds(
    start: Start,
) -> None:
    pieces = odd_plan()
    daemon = start(pieces)

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await plugged(station, None)
            await station.started(bay.tx, trigger="CablePluggedIn")
            await station.wait_for(lambda: station.profiles("TxProfile"), 5)
            unmatched_w = station.limit()
            await station.authorize(bay.vid)
            answer = await station.updated(bay.tx, "Authorized", token=bay.vid, wh=1000)
            profile = await at_plan(station, pieces)
            session = session_of(daemon, bay)

        assert unmatched_w == 20_000.0
        assert answer["idTokenInfo"]["status"] == "Accepted"
        assert profile["transactionId"] == bay.tx
        assert session["match"] == "unique"

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_vehicle_id_that_comes_with_the_power_is_read_then(start: Start) -> None:
    pieces = odd_plan()
    daemon = start(pieces)

    async def play(bay: Bay, version: str) -> None:
        variables = connected_ev("")
        async with at_bay(daemon, bay, version, variables=variables) as station:
            await plugged(station, CARD)
            await station.started(bay.tx, token=CARD)
            await station.wait_for(lambda: station.asked_for("ConnectedEV"), 5)
            await station.wait_for(lambda: station.profiles("TxProfile"), 5)
            before = session_of(daemon, bay)
            station.variables |= connected_ev(bay.mac)
            await station.updated(bay.tx, "ChargingStateChanged", state="Charging", wh=1010)
            profile = await at_plan(station, pieces)
            after = session_of(daemon, bay)
            asked = [
                item
                for payload in station.asked_for("ConnectedEV")
                for item in payload["getVariableData"]
                if item["component"]["name"] == "ConnectedEV"
            ]

        assert before["match"] == "none"
        assert after["match"] == "unique"
        assert profile["transactionId"] == bay.tx
        assert all(item["component"]["evse"]["id"] == 1 for item in asked)

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_station_without_connected_ev_is_asked_once_on_a_link(start: Start) -> None:
    daemon = start(steady(60))

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await plugged(station, CARD)
            for transaction in ("tx-1", "tx-2"):
                await station.status("Occupied")
                await station.started(transaction, token=CARD)
                await station.updated(transaction, "ChargingStateChanged", state="Charging")
                await asyncio.sleep(0.5)
                await station.ended(transaction, wh=1100)
                await station.status("Available")
            asked = station.asked_for("ConnectedEV")

        assert len(asked) == 1

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


# --- transactions ----------------------------------------------------------------------

ORDERS = {
    "repeats": [0, 0, 1, 1, 2, 3, 3, 4, 4],
    "shuffled": [0, 3, 1, 2, 1, 4],
    "ended-early": [0, 1, 4, 2, 3, 3],
    "started-late": [1, 2, 0, 3, 4, 0],
}


def steps_of(station: ForeignStation2, bay: Bay) -> list[Json]:
    """The events of a short transaction of 450 Wh, as a station numbers them."""
    begins = datetime.now(UTC) - timedelta(seconds=40)

    def step(kind: str, trigger: str, seq: int, **more: Any) -> Json:
        at = begins + timedelta(seconds=10 * seq)
        return station.event(kind, bay.tx, trigger, seq=seq, at=at, **more)

    first: Json = {"state": "EVConnected", "evse": 1, "token": bay.vid}
    return [
        step("Started", "Authorized", 0, **first, wh=1000),
        step("Updated", "ChargingStateChanged", 1, state="Charging"),
        step("Updated", "MeterValuePeriodic", 2, wh=1150, soc=41),
        step("Updated", "MeterValuePeriodic", 3, wh=1300, soc=42),
        step("Ended", "EVDeparted", 4, reason="Local", wh=1450),
    ]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_events_in_any_order_make_one_session_with_the_right_energy(
    start: Start, order: list[int]
) -> None:
    daemon = start(steady(60))

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await plugged(station, bay.vid)
            events = steps_of(station, bay)
            for seq in order:
                await station.tell(events[seq])
            await station.status("Available")
            await until(
                lambda: {row["state"] for row in sessions_of(daemon, bay)} == {"ended"}
            )
            session = session_of(daemon, bay)

        assert session["transaction_ids"] == [bay.tx]
        assert session["vehicle_id"] == bay.vehicle_id
        assert session["energy_wh"] == 450

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


@pytest.mark.parametrize("order", [[0, 3, 2, 4], [0, 4, 2, 3]], ids=["older", "late"])
async def test_soc_of_a_session_is_the_last_one_measured_not_the_last_one_told(
    start: Start, order: list[int]
) -> None:
    daemon = start(steady(60))

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await plugged(station, bay.vid)
            events = steps_of(station, bay)
            for seq in order:
                await station.tell(events[seq])
            await station.status("Available")
            session = session_of(daemon, bay)

        assert session["soc_start"] is not None
        assert session["soc_end"] == 42

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_session_survives_kill_nine_and_events_that_waited_offline(
    start: Start, fleet: ForeignFleet
) -> None:
    pieces = steady(60)
    daemon = start(pieces)
    stations = {bay: at_bay(daemon, bay, version) for bay, version in BOTH}

    async def before(bay: Bay) -> None:
        station = stations[bay]
        await station.open()
        await charging(station, bay, pieces)
        await station.updated(bay.tx, "MeterValuePeriodic", wh=1100, soc=41)

    async def after(bay: Bay) -> None:
        async with stations[bay] as station:
            events = [
                station.event(
                    *("Updated", bay.tx, "MeterValuePeriodic"),
                    at=killed_at + timedelta(milliseconds=200 * number),
                    offline=True,
                    wh=wh,
                    soc=41,
                )
                for number, wh in enumerate((1200, 1300))
            ]
            for event in [*events, events[0]]:
                await station.tell(event)
            await station.updated(bay.tx, "MeterValuePeriodic", wh=1350, soc=43)
            profile = await at_plan(station, pieces, 8.0)
            await station.ended(bay.tx, wh=1450, soc=43)
            await station.status("Available")
        assert profile["transactionId"] == bay.tx

    await side_by_side({version: before(bay) for bay, version in BOTH})
    daemon.kill()
    killed_at = datetime.now(UTC)
    for station in stations.values():
        await station.close()
    daemon.start()
    await side_by_side({version: after(bay) for bay, version in BOTH})
    await until(lambda: len(fleet.patches("pastSegments")) == 2, 15)
    sessions = daemon.ask("sessions")

    assert sorted(row["station_id"] for row in sessions) == ["CP-01", "CP-02"]
    for bay, _ in BOTH:
        (session,) = (row for row in sessions if row["station_id"] == bay.station_id)
        assert session["transaction_ids"] == [bay.tx]
        assert session["state"] == "ended"
        assert session["match"] == "unique"
        assert session["energy_wh"] == 450
        assert session["soc_end"] == 43
    assert [row["startSoC"] for row in fleet.patches("startSoC")] == [41, 41]
    for end in fleet.patches("pastSegments"):
        past = end["plan"]["pastSegments"]
        assert sum(item["energykWh"] for item in past) == pytest.approx(0.45)


# --- ISO 15118 -------------------------------------------------------------------------


def needs(tuples: int) -> Json:
    return {
        "evseId": 1,
        "maxScheduleTuples": tuples,
        "chargingNeeds": {
            "requestedEnergyTransfer": "DC",
            "departureTime": stamp(datetime.now(UTC) + timedelta(hours=8)),
            "dcChargingParameters": {
                "evMaxCurrent": 300,
                "evMaxVoltage": 800,
                "energyAmount": 150_000,
                "evMaxPower": 120_000,
                "stateOfCharge": 41,
                "evEnergyCapacity": 300_000,
            },
        },
    }


def announced(watts: float) -> Json:
    return {
        "timeBase": stamp(),
        "evseId": 1,
        "chargingSchedule": {
            "id": 1,
            "duration": 600,
            "chargingRateUnit": "W",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": watts}],
        },
    }


def tx_profiles(station: ForeignStation2) -> list[Json]:
    """TxProfiles that the station holds."""
    kept = [item["chargingProfile"] for item in station.kept]
    return [item for item in kept if item["chargingProfilePurpose"] == "TxProfile"]


async def waiting_for_needs(station: ForeignStation2, bay: Bay) -> None:
    """A vehicle of ISO 15118: no profile is taken before it said what it needs."""
    station.refuse = lambda payload: (
        ("InvalidMessageSeq", "") if payload["evseId"] == 1 else None
    )
    await plugged(station, bay.vid)
    await station.started(bay.tx, token=bay.vid)
    # Answered, not only received: else the answer may be the one of afterwards.
    await station.wait_for(
        lambda: any(status == "Rejected" for _, _, status, _ in station.set_answers), 3
    )
    station.refuse = lambda _: None


async def test_needs_of_a_vehicle_bring_a_profile_that_it_can_hold(start: Start) -> None:
    pieces = steps((20, 60.0), (40, 30.0), (60, 90.0), (80, 20.0), (100, 70.0), (120, 40.0))
    daemon = start(pieces)

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await waiting_for_needs(station, bay)
            asked = now_s()
            answer = await station.send("NotifyEVChargingNeeds", needs(3))
            answered_s = now_s() - asked
            await station.wait_for(lambda: tx_profiles(station), PROMPT_S)
            (profile,) = tx_profiles(station)
            session = session_of(daemon, bay)

        assert answer["status"] in ("Accepted", "Processing")
        assert answered_s < 1.0
        assert profile["transactionId"] == bay.tx
        assert len(profile["chargingSchedule"][0]["chargingSchedulePeriod"]) <= 3
        assert limit_at(profile, datetime.now(UTC)) == 60_000.0
        at = datetime.now(UTC)
        while at < pieces[-1][1]:
            limit = limit_at(profile, at)
            assert limit is not None
            assert limit <= planned_w(pieces, at), at
            at += timedelta(seconds=30)
        assert session["transaction_ids"] == [bay.tx]

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_curve_above_what_was_allowed_is_refused_and_the_profile_sent_again(
    start: Start,
) -> None:
    daemon = start(steady(60))

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await waiting_for_needs(station, bay)
            await station.send("NotifyEVChargingNeeds", needs(3))
            await station.wait_for(lambda: tx_profiles(station), PROMPT_S)
            within = await station.send("NotifyEVChargingSchedule", announced(55_000))
            count = len(station.profiles("TxProfile"))
            above = await station.send("NotifyEVChargingSchedule", announced(90_000))
            await station.wait_for(lambda: len(station.profiles("TxProfile")) > count, 12.0)
            limit_w = station.limit()

        assert within["status"] == "Accepted"
        assert above["status"] == "Rejected"
        assert limit_w == 60_000.0

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


# --- profiles that are refused -------------------------------------------------------------


def foreign_profile(profile_id: int, purpose: str, watts: float, **more: Any) -> Json:
    """A profile that someone else left on the station."""
    return {
        "evseId": 1 if purpose == "TxProfile" else 0,
        "chargingProfile": {
            "id": profile_id,
            "stackLevel": 0,
            "chargingProfilePurpose": purpose,
            "chargingProfileKind": "Absolute",
            "chargingSchedule": [
                {
                    "id": profile_id,
                    "startSchedule": "2026-01-01T00:00:00Z",
                    "chargingRateUnit": "W",
                    "chargingSchedulePeriod": [{"startPeriod": 0, "limit": watts}],
                }
            ],
            **more,
        },
    }


async def test_profile_of_another_master_is_cleared_when_it_stands_in_the_way(
    start: Start,
) -> None:
    pieces = steady(60)
    daemon = start(pieces)

    async def play(bay: Bay, version: str) -> None:
        variables = {("SmartChargingCtrlr", "ProfileStackLevel", "", 0): "0"}
        async with at_bay(daemon, bay, version, variables=variables) as station:
            station.hold(foreign_profile(777, "TxDefaultProfile", 50_000.0))
            await plugged(station, bay.vid)
            alien = foreign_profile(778, "TxProfile", 149_000.0, transactionId=bay.tx)
            station.hold(alien)
            await station.started(bay.tx, token=bay.vid)
            await at_plan(station, pieces, 5.0)
            await until(lambda: {777, 778}.isdisjoint(station.ids()))
            answered = [(item[2], item[3]) for item in station.set_answers]
            cleared = station.heard("ClearChargingProfile")
            await station.wait_for(lambda: station.limit(evse=1) == 60_000.0)
            await station.ended(bay.tx, wh=1100)
            default_w = station.limit()

        assert ("Rejected", "DuplicateProfile") in answered
        assert cleared
        assert default_w == 10_000.0

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_station_that_limits_the_rate_is_left_alone_as_long_as_it_says(
    start: Start, fleet: ForeignFleet
) -> None:
    daemon = start(steady(40))
    newest = steady(90)
    bay = Bay(1)
    async with at_bay(daemon, bay, "2.1") as station:
        station.refuse = lambda payload: (
            ("RateLimitExceeded", "7 seconds before retry") if payload["evseId"] else None
        )
        await plugged(station, bay.vid)
        await station.started(bay.tx, token=bay.vid)

        def of_evse() -> list[tuple[float, Json, str, str]]:
            return [item for item in station.set_answers if item[1]["evseId"] == 1]

        await station.wait_for(of_evse, 5)
        station.refuse = lambda _: None
        fleet.schedules = slots(newest)
        await station.wait_for(lambda: len(of_evse()) > 1, 20)
        waited_s = of_evse()[1][0] - of_evse()[0][0]
        profile = await at_plan(station, newest, 1.0)

    assert 7.0 <= waited_s < 12.0
    assert profile["transactionId"] == bay.tx


async def test_transaction_that_was_resumed_gets_its_profile_again(start: Start) -> None:
    pieces = odd_plan()
    daemon = start(pieces)
    bay = Bay(1)
    async with at_bay(daemon, bay, "2.1") as station:
        await charging(station, bay, pieces)
        station.kept = [item for item in station.kept if item["evseId"] == 0]
        await station.updated(bay.tx, "TxResumed", state="Charging", wh=1100)
        profile = await at_plan(station, pieces)

    assert profile["transactionId"] == bay.tx


# --- another master's limits ---------------------------------------------------------------


async def test_limit_of_another_master_is_kept_until_it_lets_go(start: Start) -> None:
    pieces = steady(60)
    daemon = start(pieces)

    async def play(bay: Bay, version: str, where: Json) -> None:
        async with at_bay(daemon, bay, version) as station:
            await charging(station, bay, pieces)
            answer = await station.send(
                "NotifyChargingLimit",
                {
                    "chargingLimit": {"chargingLimitSource": "EMS"},
                    "chargingSchedule": [
                        {
                            "id": 9,
                            "startSchedule": stamp(),
                            "chargingRateUnit": "W",
                            "chargingSchedulePeriod": [
                                {"startPeriod": 0, "limit": 11_000.0}
                            ],
                        }
                    ],
                    **where,
                },
            )
            await station.wait_for(lambda: station.limit() == 11_000.0, PROMPT_S)
            limited = row_of(daemon, bay)["evses"][0]["limit_w"]
            lifted = await station.send(
                "ClearedChargingLimit", {"chargingLimitSource": "EMS", **where}
            )
            await at_plan(station, pieces, 12.0)
            free = row_of(daemon, bay)["evses"][0]["limit_w"]

        assert answer == {}
        assert lifted == {}
        assert limited["allocated"] == 11_000.0
        assert free["allocated"] == 60_000.0

    await side_by_side(
        {
            "2.0.1, EVSE": play(Bay(1), "2.0.1", {"evseId": 1}),
            "2.0.1, station": play(Bay(2), "2.0.1", {}),
            "2.1, EVSE": play(Bay(3), "2.1", {"evseId": 1}),
            "2.1, station": play(Bay(4), "2.1", {}),
        }
    )


# --- frames ------------------------------------------------------------------------------


async def test_frames_of_the_version_and_broken_ones_leave_the_link_alive(
    start: Start, version: str
) -> None:
    daemon = start()
    bay = Bay(1)
    async with at_bay(daemon, bay, version) as station:
        await station.boot()
        stream = {"id": 5, "pending": 0, "basetime": stamp(), "data": [{"t": 0, "v": "7"}]}
        await station.raw(json.dumps([6, "send-1", "NotifyPeriodicEventStream", stream]))
        await station.raw('[9,"odd-1",{"a":1}]')
        await station.raw('[3,"nobody",{}]')
        await station.raw('[4,"nobody-2","GenericError","",{}]')
        heartbeat = await station.send("Heartbeat", {})
        early = [frame for frame in station.strays if frame[1] in ("send-1", "nobody")]
        await station.raw('[5,"s2","FormatViolation","not as agreed",{}]')
        deep = "[" * 5000 + "]" * 5000
        for text in ("not json", "{}", "[]", "[2]", deep, b"\xff\xfe\x00"):
            await station.raw(text)
        alive = await station.send("Heartbeat", {})
        unread = [frame for frame in station.strays if frame[1] == "-1"]
        connections = len(daemon.events("station_connected"))

    assert heartbeat["currentTime"].endswith("Z")
    assert alive["currentTime"].endswith("Z")
    assert early == []
    assert unread
    assert all(frame[0] == 4 and frame[2] in CODES for frame in unread)
    assert connections == 1
    assert not daemon.events("link_failed")
    if version == "2.1":
        assert "not as agreed" in daemon.log_path.read_text(encoding="utf-8")


async def test_actions_are_refused_with_the_codes_of_the_version(
    start: Start, version: str
) -> None:
    daemon = start()
    async with at_bay(daemon, Bay(1), version) as station:
        await station.boot()
        unknown = await station.send("MakeCoffee", {}, broken=True)
        of_16 = await station.send(
            "StartTransaction",
            {"connectorId": 1, "idTag": "A", "meterStart": 0, "timestamp": stamp()},
            broken=True,
        )
        no_object = await station.ask([2, "list-1", "Heartbeat", ["a"]])
        no_action = await station.ask([2, "short-1"])
        event = await station.send("TransactionEvent", {}, broken=True)
        meter = await station.send(
            "MeterValues", {"evseId": 1, "meterValue": "NaN"}, broken=True
        )
        heartbeat = await station.send("Heartbeat", {})
    async with ForeignStation(url(daemon, Bay(2))) as older:
        await older.boot()
        future = asyncio.get_running_loop().create_future()
        older._waiting["list-1"] = future
        await older.raw('[2,"list-1","Heartbeat",["a"]]')
        old_words = await asyncio.wait_for(future, 5)

    assert unknown[:2] == ["error", "NotImplemented"]
    assert of_16[:2] == ["error", "NotImplemented"]
    assert no_object[:2] == ["error", "FormatViolation"]
    assert no_action[0] == "error"
    assert isinstance(event, dict), "a transaction message is never answered by an error"
    assert isinstance(meter, dict)
    assert "currentTime" in heartbeat
    assert old_words[:2] == ["error", "FormationViolation"]
    assert not daemon.events("link_failed")


def memory_kib(daemon: DaemonProcess, field: str) -> int:
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def bomb() -> bytes:
    """One small compressed text frame that is large once it is inflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = b" " * (1024 * 1024)
    packed = b"".join(packer.compress(block) for _ in range(BOMB_BYTES // len(block)))
    packed += packer.flush(zlib.Z_SYNC_FLUSH)
    packed = packed.removesuffix(b"\x00\x00\xff\xff")
    head = bytes([0xC1, 0xFF]) + len(packed).to_bytes(8, "big")
    return head + b"\x00\x00\x00\x00" + packed


async def test_compression_is_spoken_and_a_deflate_bomb_costs_one_link(
    start: Start, version: str
) -> None:
    pieces = steady(60)
    daemon = start(pieces)
    packed = at_bay(daemon, Bay(1), version)
    socket = await packed.open(compression="deflate")
    assert socket.response is not None
    extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "")
    async with at_bay(daemon, Bay(2), version) as other:
        await other.boot()
        await charging(packed, Bay(1), pieces)
        before_kib = memory_kib(daemon, "VmRSS")
        socket.transport.write(bomb())
        await asyncio.wait_for(socket.wait_closed(), 10)
        alive = await other.send("Heartbeat", {})
        peak_kib = memory_kib(daemon, "VmHWM")
        web = f"http://127.0.0.1:{daemon.web_port}/healthz"
        with urllib.request.urlopen(web, timeout=5) as answer:
            health = answer.status
        await packed.close()
        await packed.open(compression="deflate")
        back = await packed.send("Heartbeat", {})
        await packed.close()

    assert "permessage-deflate" in extensions
    assert socket.close_code == 1009
    assert "currentTime" in alive
    assert "currentTime" in back
    assert health == 200
    assert peak_kib - before_kib < 50 * 1024
    assert not packed.faults
    assert not daemon.events("link_failed")


# --- the handshake -----------------------------------------------------------------------


async def test_first_version_that_the_station_offers_is_spoken(start: Start) -> None:
    daemon = start()
    bay = Bay(1)
    offers = {
        ("ocpp2.1", "ocpp2.0.1", "ocpp1.6"): "2.1",
        ("ocpp2.0.1", "ocpp2.1"): "2.0.1",
        ("ocpp1.6", "ocpp2.1"): "1.6",
        ("ocpp2.0", "ocpp2.0.1"): "2.0.1",
    }
    chosen, packed = {}, {}
    for offered in offers:
        async with connect(
            url(daemon, bay),
            subprotocols=[websockets.Subprotocol(name) for name in offered],
            compression="deflate",
            proxy=None,
        ) as socket:
            assert socket.response is not None
            name = str(socket.subprotocol).removeprefix("ocpp")
            chosen[offered] = name
            packed[name] = "Sec-WebSocket-Extensions" in socket.response.headers
            await until(lambda shown=name: row_of(daemon, bay)["ocpp_version"] == shown)  # type: ignore[misc]
    async with connect(
        url(daemon, bay), subprotocols=[websockets.Subprotocol("ocpp2.0")], proxy=None
    ) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        assert socket.subprotocol is None
        assert socket.close_code == 1002

    assert chosen == offers
    assert packed == {"2.1": True, "2.0.1": True, "1.6": False}


async def test_stations_are_listed_with_their_version_and_make(start: Start) -> None:
    daemon = start()
    stations = {bay: at_bay(daemon, bay, version) for bay, version in BOTH}
    for station in stations.values():
        await station.open()
        await station.boot()
        await station.status("Occupied")
    rows = await asyncio.to_thread(daemon.ask, "stations")
    for station in stations.values():
        await station.close()

    for bay, version in BOTH:
        (row,) = (row for row in rows if row["station_id"] == bay.station_id)
        assert row["connected"] is True
        assert row["ocpp_version"] == version
        assert row["vendor"] == "Foreign"
        assert row["model"] == "F-2"
        assert row["firmware"] == "9.8.7"
        assert row["evses"][0]["evse_id"] == 1
        assert row["evses"][0]["status"] == "Occupied"
        assert stations[bay].faults == []


async def test_safe_default_sits_on_the_station_before_its_first_session(
    start: Start,
) -> None:
    daemon = start()

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await station.boot()
            await station.status("Available")
            await station.wait_for(lambda: station.kept, 5)
            (item,) = station.kept
            limit_w = station.limit(datetime.now(UTC) + timedelta(days=2))

        profile = item["chargingProfile"]
        assert item["evseId"] == 0
        assert profile["chargingProfilePurpose"] == "TxDefaultProfile"
        (schedule,) = profile["chargingSchedule"]
        assert "duration" not in schedule
        assert "validTo" not in profile
        assert limit_w == 10_000.0

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


# --- boot states -------------------------------------------------------------------------

SECURITY = ["error", "SecurityError"]


async def early_answers(station: ForeignStation2, bay: Bay) -> list[Any]:
    """What a station is told that speaks before it was accepted."""
    event = station.event("Started", "early", "CablePluggedIn", evse=1, wh=0)
    answers = [
        await station.send("Heartbeat", {}),
        await station.status("Available"),
        await station.send("TransactionEvent", event),
        await station.send("Authorize", {"idToken": bay.vid}),
    ]
    return [answer[:2] if isinstance(answer, list) else answer for answer in answers]


async def test_pending_station_is_configured_and_then_asked_to_boot(start: Start) -> None:
    pieces = steady(60)
    daemon = start(pieces, station='boot = "pending"\n')

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            station.may_answer.clear()
            first = await station.boot()
            early = await early_answers(station, bay)
            report = await station.send(
                "NotifyReport",
                {"requestId": 1, "generatedAt": stamp(), "seqNo": 0, "tbc": False},
            )
            station.may_answer.set()
            await station.wait_for(lambda: station.is_accepted, 15)
            heard = [(name, payload) for _, name, payload in station.received]
            last = heard.index(("TriggerMessage", {"requestedMessage": "BootNotification"}))
            before = {name for name, _ in heard[:last]}
            await station.status("Occupied")
            await station.started(bay.tx, token=bay.vid)
            await at_plan(station, pieces, 5.0)
            (session,) = sessions_of(daemon, bay)

        assert first["status"] == "Pending"
        assert first["interval"] > 0
        assert early == [SECURITY] * 4
        assert report == {}
        assert before & {"GetVariables", "GetBaseReport", "GetReport"}
        assert before <= {
            *("GetVariables", "SetVariables", "GetBaseReport", "GetReport"),
            "TriggerMessage",
        }
        assert session["transaction_ids"] == [bay.tx]

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


async def test_rejected_station_hears_nothing_and_may_say_nothing(start: Start) -> None:
    daemon = start(station='boot = "reject"\n')

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            answer = await station.boot()
            early = await early_answers(station, bay)
            await asyncio.sleep(2.0)
            received = list(station.received)
            again = await station.boot()

        assert answer["status"] == "Rejected"
        assert answer["interval"] > 0
        assert early == [SECURITY] * 4
        assert received == []
        assert again["status"] == "Rejected"
        assert sessions_of(daemon, bay) == []

    await side_by_side({version: play(bay, version) for bay, version in BOTH})


# --- plug and charge ---------------------------------------------------------------------

EMAID = {"idToken": "DE8AAC12345678", "type": "eMAID"}
HASH = {
    "hashAlgorithm": "SHA256",
    "issuerNameHash": "ab" * 32,
    "issuerKeyHash": "cd" * 32,
    "serialNumber": "0a1b2c",
    "responderURL": "http://ocsp.example/",
}
EXI = {
    "iso15118SchemaVersion": "urn:iso:15118:2:2013:MsgDef",
    "action": "Install",
    "exiRequest": "gJgCOTgAAAA=",
}


async def test_contract_that_nobody_can_verify_is_not_called_valid(start: Start) -> None:
    pieces = steady(60)
    daemon = start(pieces)

    async def play(bay: Bay, version: str) -> None:
        async with at_bay(daemon, bay, version) as station:
            await station.boot()
            await station.status("Occupied")
            unverified = await station.authorize(EMAID, iso15118CertificateHashData=[HASH])
            plain = await station.authorize(EMAID)
            certificate = await station.send("Get15118EVCertificate", EXI)
            ocsp = await station.send("GetCertificateStatus", {"ocspRequestData": HASH})
            answer = await station.started(bay.tx, token=bay.vid)
            profile = await at_plan(station, pieces)

        assert unverified["certificateStatus"] == "CertChainError"
        assert unverified["idTokenInfo"]["status"] == "Invalid"
        assert plain["idTokenInfo"]["status"] == "Accepted"
        assert "certificateStatus" not in plain
        assert certificate["status"] == "Failed"
        assert ocsp["status"] == "Failed"
        assert answer["idTokenInfo"]["status"] == "Accepted"
        assert profile["transactionId"] == bay.tx

    await side_by_side({version: play(bay, version) for bay, version in BOTH})
