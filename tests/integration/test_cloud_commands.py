"""The commands that look into ChargEye and write there, against a running daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.demo import EVENING
from agent.domain.identity import MatchOutcome
from agent.standin.faults import Fault
from agent.standin.fixtures import (
    LOCATION_UID,
    mac_of,
    power_group_json,
    schedule_json,
    v2icp_json,
    vehicle_json,
)
from tests.support.yard import SPEED, Yard, yard

HOUR = timedelta(hours=1)
STATION = {"id": "CP-01", "chargeye_station_id": "CS-7", "chargeye_connectors": {"1": "A"}}
MAC = "04:E7:7E:00:F0:01"


@dataclass
class Desk:
    """A technician at the depot's terminal."""

    depot: Yard
    config: Path
    log: list[Any]

    async def run(self, *command: str, text: str | None = None) -> Result:
        arguments = [*command, "--config", str(self.config)]
        return await asyncio.to_thread(
            lambda: CliRunner().invoke(app, arguments, text, env={"COLUMNS": "200"})
        )

    async def ask(self, *command: str, text: str | None = None) -> Any:
        done = await self.run(*command, "--json", text=text)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def posts(self) -> int:
        return len(self.depot.cloud.requests.matching("POST"))


@asynccontextmanager
async def desk(folder: Path, speed: float = SPEED) -> AsyncIterator[Desk]:
    # The daemon's log would stand between the lines that a command prints.
    with capture_logs() as log:
        async with yard(folder, stations=[STATION], speed=speed) as depot:
            yield Desk(depot, _config(folder), log)


def _config(folder: Path) -> Path:
    config = folder / "agent.toml"
    config.write_text(
        f'[site]\ncap_kw = 400.0\n[store]\npath = "{folder}/agent.db"\n[web]\nport = 0\n',
        encoding="utf-8",
    )
    return config


def slots(*hours: tuple[float, float], **extra: Any) -> str:
    rows = [
        schedule_json("bus-1", EVENING + a * HOUR, EVENING + b * HOUR, extra)
        for a, b in hours
    ]
    return json.dumps(rows)


# --- vehicles -----------------------------------------------------------------------------


async def test_vehicles_are_listed_shown_put_and_patched(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        cloud = here.depot.cloud
        cloud.load(vehicles=[vehicle_json("bus-1", {"vin": "V1"}, macs=[mac_of(1)])])
        await here.depot.until(lambda: here.depot.daemon.depot.registry)

        listed = await here.ask("vehicles")
        shown = await here.ask("vehicles", "show", "bus-1")
        table = await here.run("vehicles", "show", "bus-1")
        new = json.dumps({"name": "Bus two", "maxChargePowerkW": 120})
        put = await here.ask("vehicles", "put", "bus-2", "-", text=new)
        asked = await here.run("vehicles", "put", "bus-1", "-", text=new)
        patched = await here.ask(
            *("vehicles", "patch", "bus-1"), "maxChargePowerkW=90", "name=Line 5"
        )
        wrong = [
            await here.run("vehicles", "patch", "bus-1", change)
            for change in (
                *("maxChargePowerKw=90", "maxChargePowerkW=0", "vin=X"),
                'chargingPorts=[{"macAddress": "04e77e0001"}]',
                'v2icpParameters={"preconditioning": true}',
            )
        ]
        unknown = await here.run("vehicles", "show", "bus-9")
        await here.depot.until(
            lambda: {"bus-1", "bus-2"} == set(here.depot.daemon.depot.registry)
        )

    assert [row["vehicle_id"] for row in listed] == ["bus-1"]
    assert shown["vehicle"]["vin"] == "V1"
    assert shown["here"]["macs"] == ["04E77E000001"]
    assert "fullChargeEnergykWh" in table.stdout
    assert put == {"id": "bus-2", "exists": False, "cleared": []}
    assert asked.exit_code == 1  # nobody confirmed that fields are cleared
    assert "chargingPorts" in asked.output
    assert patched["changes"] == {
        "maxChargePowerkW": [150.0, 90],
        "name": ["bus-1", "Line 5"],
    }
    assert cloud.vehicles["bus-1"]["chargingPorts"][0]["macAddress"] == mac_of(1)
    assert [item.exit_code for item in wrong] == [1] * 5
    assert "did you mean maxChargePowerkW?" in wrong[0].output
    assert "read-only" in wrong[2].output
    assert "both of them" in wrong[4].output
    assert unknown.exit_code == 1
    assert "404" in unknown.output


async def test_an_address_that_a_station_reported_is_enrolled_and_matched_at_once(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        depot = here.depot
        station = depot.station("CP-01")
        await depot.installed()
        bus = depot.add_bus(1, [(-1, 11, 60.0)], known=False)
        depot.cloud.load(
            vehicles=[
                vehicle_json("bus-1", {"name": "Line 5"}, power_kw=(5, 140)),
                vehicle_json("bus-2", macs=[mac_of(2)]),
            ],
            schedules=[depot.slot(1, [(-1, 11, 60.0)])],
        )
        await station.plug(1, bus)
        await depot.until(lambda: any(s.mac for s in depot.sessions()))
        await depot.until(lambda: len(depot.daemon.depot.registry) == 2)

        refused = [
            await here.run("vehicles", "enrol", mac, "--vehicle", "bus-1", "--yes")
            for mac in (mac_of(9), "nonsense", "60:FA:B1:00:00:01")
        ]
        taken = await here.run(
            *("vehicles", "enrol", mac_of(2), "--vehicle", "bus-1", "--yes", "--force")
        )
        declined = await here.run(
            *("vehicles", "enrol", "04e77e00f001", "--vehicle", "bus-1"), text="n\n"
        )
        before = dict(depot.cloud.vehicles["bus-1"])
        done = await here.run(
            *("vehicles", "enrol", "VID:04e77e00f001", "--vehicle", "bus-1"), text="y\n"
        )
        again = await here.run("vehicles", "enrol", MAC, "--vehicle", "bus-1", "--yes")
        await depot.until(
            lambda: depot.sessions()[0].match is MatchOutcome.UNIQUE, timeout_s=10
        )

    assert [item.exit_code for item in refused] == [1, 1, 1]
    assert "no station has reported 04:E7:7E:00:00:09" in refused[0].output
    assert taken.exit_code == 1
    assert "bus-2" in taken.output
    assert declined.exit_code == 1
    assert "Line 5" in declined.output
    assert "seen at CP-01 in 1 sessions" in declined.output
    assert "chargingPorts" not in before
    assert done.exit_code == 0, done.output
    assert depot.cloud.vehicles["bus-1"] == before | {
        "chargingPorts": [{"macAddress": MAC, "type": "CCS2", "inactive": False}]
    }
    assert again.exit_code == 1
    assert "already" in again.output


async def test_wishes_to_a_bus_go_out_whole_and_its_needs_come_back_in_its_plan(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        depot = here.depot
        depot.cloud.load(
            vehicles=[vehicle_json("bus-1", {"v2icp": v2icp_json("bus-1", MAC, EVENING)})],
            schedules=[schedule_json("bus-1", EVENING - HOUR, EVENING + 9 * HOUR)],
        )
        told = await here.ask(
            *("vehicles", "v2icp", "bus-1", "--preconditioning", "on"),
            *("--hvac", "HotWaterAndHeating"),
        )
        wrong = await here.run(
            *("vehicles", "v2icp", "bus-1", "--preconditioning", "on", "--hvac", "Warm")
        )
        depot.cloud.v2icp_said(
            "bus-1",
            {"bat_reqtime": 20, "prec_reqtime": 45, "prec_eamount": 12.0},
            mac=MAC,
            vin="VIN-OF-BUS-1",
        )

        def asked() -> bool:
            plans = [item.plan for item in depot.daemon.depot.schedules.values()]
            return any(p and p.preconditioning and p.preconditioning.lasts_s for p in plans)

        await depot.until(asked)
        (plan,) = await here.ask("plans")
        (row,) = await here.ask("vehicles")

    wishes = {"interiorHvac": "HotWaterAndHeating", "preconditioning": True}
    assert told["v2icpParameters"] == wishes
    (sent,) = depot.cloud.requests.matching("PATCH", "/vehicles/bus-1", "v2icpParameters")
    assert sent.body == {"v2icpParameters": wishes}
    assert wrong.exit_code == 1
    assert "OnlyHotWaterAndVentilation" in wrong.output
    assert plan["preconditioning"] == {
        "battery_s": 1200.0,
        "vehicle_s": 2700.0,
        "vehicle_wh": 12_000.0,
    }
    assert row["v2icp"]["mac"] == "04E77E00F001"
    assert row["preconditioning"]["wanted"] is True
    assert row["preconditioning"]["interior_hvac"] == "HotWaterAndHeating"


# --- schedules ------------------------------------------------------------------------------


async def test_schedules_are_listed_filtered_and_recurring_ones_only_shown(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        every_night = {"id": "every", "recurrenceRule": "FREQ=DAILY"}
        here.depot.cloud.load(
            vehicles=[vehicle_json("bus-1"), vehicle_json("bus-2")],
            schedules=[
                schedule_json("bus-1", EVENING - HOUR, EVENING + 8 * HOUR, {"id": "now"}),
                schedule_json(
                    "bus-1", EVENING + 24 * HOUR, EVENING + 32 * HOUR, {"id": "tomorrow"}
                ),
                schedule_json("bus-2", EVENING, EVENING + 9 * HOUR, {"id": "other"}),
                schedule_json("bus-2", EVENING, EVENING + 8 * HOUR, every_night),
            ],
        )

        async def ids(*options: str) -> list[str]:
            found = await here.ask("schedules", "list", *options)
            return [row["id"] for row in (*found["schedules"], *found["recurring"])]

        everything = await ids()
        later = (EVENING + 20 * HOUR).isoformat()
        own = await ids("--vehicle", "bus-1", "--from", later)
        early = await ids("--to", later)
        templates = await ids("--recurring", "--vehicle", "bus-2")
        table = await here.run("schedules", "list", "--recurring")
        active = await here.ask("schedules", "active", "bus-1")
        nonsense = await here.run("schedules", "list", "--from", "yesterday")
        await here.depot.until(lambda: len(here.depot.daemon.depot.schedules) == 3)
        executed = set(here.depot.daemon.depot.schedules)

    assert everything == ["now", "other", "tomorrow"]
    assert own == ["tomorrow"]
    assert early == ["now", "other"]
    assert templates == ["other", "every"]
    assert "shown, never executed" in table.stdout
    assert "FREQ=DAILY" in table.stdout
    assert active["current_or_next"]["id"] == "now"
    assert active["running"] is True
    assert active["previous"] is None
    assert nonsense.exit_code == 1
    assert "ISO 8601" in nonsense.output
    assert executed == {"now", "other", "tomorrow"}


async def test_added_schedules_are_added_once_even_when_the_answer_was_lost(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        cloud = here.depot.cloud
        cloud.load(vehicles=[vehicle_json("bus-1")])
        lost = Fault(kind="lost-answer", path_contains="/schedules", method="POST")

        first = await here.ask("schedules", "add", "bus-1", "-", text=slots((2, 9)))
        again = await here.ask("schedules", "add", "bus-1", "-", text=slots((2, 9)))
        once = here.posts()
        cloud.faults.add(lost)
        two = slots((26, 33), (50, 57))
        found = await here.ask("schedules", "add", "bus-1", "-", text=two)
        cloud.faults.add(Fault(kind="cut", path_contains="/schedules", method="POST"))
        cut = await here.ask("schedules", "add", "bus-1", "-", text=slots((74, 81)))
        wrong = await here.run("schedules", "add", "bus-1", "-", text=slots((9, 2)))

    assert len(first["ids"]) == 1
    assert again["ids"] == []
    assert again["already_there"] == first["ids"]
    assert once == 1
    assert found["answer_lost"] is True
    assert len(found["ids"]) == 2
    assert cut["answer_lost"] is True
    assert len(cut["ids"]) == 1
    assert here.posts() == 1 + 1 + 2  # only what was not applied was sent again
    assert len(cloud.book.entries) == 4
    assert wrong.exit_code == 1
    assert "not after the arrival" in wrong.output


async def test_a_synchronisation_is_shown_first_and_then_done_as_shown(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        cloud = here.depot.cloud
        cloud.load(
            vehicles=[vehicle_json("bus-1"), vehicle_json("bus-2")],
            schedules=[
                schedule_json("bus-1", EVENING - HOUR, EVENING + 8 * HOUR, {"id": "runs"}),
                schedule_json(
                    "bus-1", EVENING + 24 * HOUR, EVENING + 32 * HOUR, {"id": "goes"}
                ),
                schedule_json("bus-2", EVENING, EVENING + 8 * HOUR, {"id": "other"}),
            ],
        )
        wish = slots((-1, 8), (48, 56), startSoC=35.0)

        shown = await here.ask("schedules", "sync", "bus-1", "-", text=wish)
        table = await here.run("schedules", "sync", "bus-1", "-", text=wish)
        untouched = set(cloud.book.entries)
        no_view = await here.run(
            *("schedules", "sync", "bus-1", "-", "--apply", "--view", "0"), text=wish
        )
        posts = here.posts()
        cloud.faults.add(Fault(kind="lost-answer", path_contains="/sched", method="POST"))
        file = tmp_path / "week.json"
        file.write_text(wish, encoding="utf-8")
        done = await here.run("schedules", "sync", "bus-1", str(file), "--apply")

    assert [row["id"] for row in shown["deleted"]] == ["goes"]
    assert len(shown["created"]) == 1
    (changed,) = shown["updated"]
    assert changed["schedule"]["id"] == "runs"
    assert changed["changes"] == {"startSoC": [30.0, 35.0]}
    assert shown["applied"] is False
    assert "would be DELETED" in table.stdout
    assert "nothing was done" in table.stdout
    assert untouched == {"runs", "goes", "other"}
    assert no_view.exit_code == 1
    assert "no dry run" in no_view.output
    assert posts == 0
    assert done.exit_code == 0, done.output
    assert "removedScheduleIds: goes" in done.stdout
    assert "the answer was lost" in done.stdout
    assert here.posts() == 1
    assert "goes" not in cloud.book.entries
    assert {"runs", "other"} < set(cloud.book.entries)
    assert len(cloud.book.entries) == 3


async def test_a_synchronisation_is_refused_from_a_partial_or_an_old_view(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, speed=600) as here:
        cloud = here.depot.cloud
        cloud.load(
            vehicles=[vehicle_json("bus-1")],
            schedules=[
                schedule_json("bus-1", EVENING - HOUR, EVENING + 8 * HOUR, {"id": "s1"})
            ],
        )
        wish = slots((24, 32))
        shown = await here.ask("schedules", "sync", "bus-1", "-", text=wish)
        cloud.book.entries["s1"].row["targetSoC"] = 95.0
        apply = ("schedules", "sync", "bus-1", "-", "--apply", "--view")
        changed = await here.run(*apply, shown["view"], text=wish)
        fresh = await here.ask("schedules", "sync", "bus-1", "-", text=wish)
        await here.depot.passes(0.1)
        old = await here.run(*apply, fresh["view"], text=wish)
        with lacking(cloud):
            partial = await here.run("schedules", "sync", "bus-1", "-", text=wish)

    assert "changed since the dry run" in changed.output
    assert "no dry run of the last 5 minutes" in old.output
    assert "may be partial" in partial.output
    assert "s1" in partial.output
    assert [r.exit_code for r in (changed, old, partial)] == [1, 1, 1]
    assert here.posts() == 0
    assert set(cloud.book.entries) == {"s1"}


@contextlib.contextmanager
def lacking(cloud: Any) -> Any:
    """The vehicle's own list is empty, as of a hidden default time range."""
    whole = cloud.vehicle_schedules
    cloud.vehicle_schedules = lambda _: []
    try:
        yield
    finally:
        cloud.vehicle_schedules = whole


async def test_patched_schedules_are_named_and_so_are_the_skipped_ones(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        here.depot.cloud.load(
            vehicles=[vehicle_json("bus-1")],
            schedules=[
                schedule_json("bus-1", EVENING - HOUR, EVENING + 8 * HOUR, {"id": "s1"})
            ],
        )
        text = json.dumps([{"id": "s1", "startSoC": 42}, {"id": "gone", "targetSoC": 80}])
        done = await here.run("schedules", "patch", "bus-1", "-", text=text)
        wrong = await here.run(
            *("schedules", "patch", "bus-1", "-"), text='[{"id": "s1", "startSoc": 42}]'
        )

    assert done.exit_code == 1
    assert "changed: s1" in done.output
    assert "skipped: gone" in done.output
    assert here.depot.cloud.book.entries["s1"].row["startSoC"] == 42
    assert wrong.exit_code == 1
    assert "did you mean startSoC?" in wrong.output


# --- chargeye -------------------------------------------------------------------------------


async def test_sessions_are_held_against_the_clouds_transactions(tmp_path: Path) -> None:
    async with desk(tmp_path, speed=480) as here:
        depot = here.depot
        station = depot.station("CP-01")
        await depot.installed()
        bus = depot.add_bus(1, [(-1, 11, 60.0)])
        await station.plug(1, bus)
        await depot.until(lambda: any(s.match == "unique" for s in depot.sessions()))
        await depot.passes(0.1)
        await station.unplug(1)
        await depot.until(lambda: any(s.ended_at for s in depot.sessions()))
        (session,) = depot.sessions()
        assert session.ended_at is not None

        def told(at: Any) -> str:
            return str(at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))

        same = {
            "txId": "tx-1",
            "stationId": "CS-7",
            "evseId": "A",
            "status": "Ended",
            "startTime": told(session.plugged_at),
            "endTime": told(session.ended_at),
            "chargedEnergyKwh": session.meter.energy_wh / 1000 + 5,
            "socStart": session.meter.soc_first,
            "evMacAddress": MAC,
            "sequenceNumber": 2,
        }
        stranger = same | {"txId": "tx-2", "evseId": "B"}
        depot.cloud.load(
            locations=[{"id": LOCATION_UID, "name": "North"}],
            stations=[
                {
                    "stationId": "CS-7",
                    "locationUid": LOCATION_UID,
                    "onlineStatus": "Offline",
                    "connectors": [{"connectorId": "A", "latestTransaction": same}],
                },
                {"stationId": "CS-8", "locationUid": LOCATION_UID, "connectors": []},
            ],
            transactions=[same, stranger],
            power_groups=[power_group_json("group-1")],
        )

        checked = await here.run("chargeye", "cross-check", "--hours", "24", "--json")
        table = await here.run("chargeye", "cross-check")
        stations = await here.ask("chargeye", "stations")
        places = await here.ask("chargeye", "locations")
        rows = await here.ask("chargeye", "transactions", "--station", "CP-01")
        one = await here.ask("chargeye", "transactions", "tx-2")
        declined = await here.run(
            *("chargeye", "power-group", "group-1", "maxCurrentA=300"), text="n\n"
        )
        still = depot.cloud.power_groups["group-1"]["maxCurrentA"]
        changed = await here.ask(
            *("chargeye", "power-group", "group-1", "maxCurrentA=300", "--yes")
        )
        made = await here.ask("chargeye", "add-location", "name=South depot")

    found = json.loads(checked.stdout)
    assert checked.exit_code == 1
    assert found["compared"] == [{"session_id": session.session_id, "tx_id": "tx-1"}]
    assert {(d["what"], d["tx_id"]) for d in found["differences"]} == {
        ("station offline in ChargEye", None),
        ("station not configured here", None),
        ("energy", "tx-1"),
        ("transaction unknown here", "tx-2"),
    }
    assert "transaction unknown here" in table.stdout
    assert [s["station_id"] for s in stations] == ["CP-01", None]
    assert stations[0]["connectors"][0]["last"]["tx_id"] == "tx-1"
    assert places[0]["is_this_depot"] is True
    assert {row["tx_id"] for row in rows["transactions"]} == {"tx-1", "tx-2"}
    assert rows["complete"] is True
    assert one["transactions"][0]["tx_id"] == "tx-2"
    assert declined.exit_code == 1
    assert still == 400
    assert changed == {"id": "group-1", "group": {"maxCurrentA": 300}}
    assert depot.cloud.power_groups["group-1"]["maxCurrentA"] == 300
    assert depot.cloud.locations[made["id"]]["name"] == "South depot"


async def test_a_bus_that_only_v2icp_knows_is_matched_by_its_vin(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        depot = here.depot
        station = depot.station("CP-01")
        await depot.installed()
        bus = depot.add_bus(1, [(-1, 11, 60.0)], known=False)
        depot.cloud.load(
            vehicles=[vehicle_json("bus-1", power_kw=(5, 140))],
            schedules=[depot.slot(1, [(-1, 11, 60.0)])],
        )
        depot.cloud.v2icp_said("bus-1", {"seq": 0}, mac=MAC, vin="VIN-OF-BUS-1")
        await station.plug(1, bus)
        await depot.until(lambda: any(s.match == "unique" for s in depot.sessions()))
        (session,) = await here.ask("sessions")

    assert session["vehicle_id"] == "bus-1"
    assert session["vin"] == "VIN-OF-BUS-1"
    assert ("vin", "VIN-OF-BUS-1", "v2icp") in {
        (e["kind"], e["value"], e["source"]) for e in session["match_evidence"]
    }


async def test_registry_and_v2icp_that_disagree_are_told_once_and_match_nobody(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, speed=600) as here:
        depot = here.depot
        station = depot.station("CP-01")
        await depot.installed()
        bus = depot.add_bus(1, [(-1, 11, 60.0)])
        depot.cloud.load(vehicles=[vehicle_json("bus-2")])
        depot.cloud.v2icp_said("bus-2", {"seq": 0}, mac=MAC, vin="VIN-OF-BUS-2")
        await station.plug(1, bus)
        await depot.until(lambda: any(s.match == "ambiguous" for s in depot.sessions()))
        polls = len(depot.cloud.requests.matching("GET", "/vehicles"))
        await depot.until(
            lambda: len(depot.cloud.requests.matching("GET", "/vehicles")) > polls + 3
        )
        (session,) = await here.ask("sessions")
        warnings = [row for row in here.log if row["event"] == "registry_row_odd"]
        refused = await here.run(
            *("vehicles", "enrol", MAC, "--vehicle", "bus-2", "--yes", "--force")
        )

    assert session["vehicle_id"] is None
    assert "bus-1" in session["match_reason"]
    assert "bus-2" in session["match_reason"]
    assert len(warnings) == 1
    assert "correct chargingPorts" in warnings[0]["reason"]
    assert refused.exit_code == 1
    assert "bus-1" in refused.output


def test_every_command_shows_an_example() -> None:
    groups = {
        "vehicles": ["show", "put", "patch", "enrol", "v2icp"],
        "schedules": ["list", "active", "add", "sync", "patch"],
        "chargeye": [
            *("locations", "add-location", "stations", "transactions"),
            *("cross-check", "power-group"),
        ],
    }
    for group, names in groups.items():
        for command in ([group], *([group, name] for name in names)):
            done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
            assert done.exit_code == 0
            assert "Example:" in done.stdout, command
