"""Registry and schedules from files: read as the cloud's, strict about what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from typer.testing import CliRunner

from agent.cli import app
from agent.cloud.localfleet import KEPT, LocalFleet, UnionFleet, check_files, is_local
from agent.domain.effects import StartSocReport
from agent.domain.errors import CloudFault, ConfigFault
from agent.domain.ids import ScheduleId, VehicleId
from agent.ports import Fleet, RegistryRead, SchedulesRead

EXAMPLES = Path(__file__).parents[3] / "config" / "local"
BUS: dict[str, Any] = {
    "id": "bus-1",
    "chargingPorts": [{"macAddress": "04:E7:7E:00:F0:01"}],
    "fullChargeEnergykWh": 300,
}
SLOT: dict[str, Any] = {
    "id": "slot-1",
    "evId": "bus-1",
    "plannedArrivalTime": "2026-01-15T18:00:00Z",
    "plannedDepartureTime": "2026-01-16T05:00:00+01:00",
    "targetSoC": 90,
}
REPORT = StartSocReport(
    vehicle_id=VehicleId("bus-1"), schedule_id=ScheduleId("slot-1"), soc_percent=40
)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    structlog.reset_defaults()


def write(path: Path, what: str, rows: list[Any]) -> str:
    path.write_text(json.dumps({what: rows}), encoding="utf-8")
    return str(path)


def faults(vehicles: str, schedules: str = "", *, alone: bool = True) -> list[str]:
    try:
        check_files(vehicles, schedules, alone=alone)
    except ConfigFault as fault:
        return [str(item) for item in fault.faults]
    return []


async def test_the_commented_examples_are_good_and_mean_what_they_say() -> None:
    vehicles, schedules = EXAMPLES / "vehicles.json", EXAMPLES / "schedules.json"
    check_files(str(vehicles), str(schedules), alone=True)
    fleet = LocalFleet(str(vehicles), str(schedules))
    registry = await fleet.vehicles()
    slots = await fleet.schedules()

    assert [item.vehicle_id for item, _ in registry.vehicles] == ["bus-1", "bus-2"]
    assert registry.vehicles[0][0].macs == {"04E77E00F001"}
    assert registry.vehicles[0][0].can_pause
    assert [item.plan is None for item, _ in slots.schedules] == [True, False]
    assert all(is_local(text) for _, text in slots.schedules)


@pytest.mark.parametrize(
    ("change", "place", "remedy"),
    [
        ({"targetSOC": 90}, "schedules[0].targetSOC", "write targetSoC"),
        ({"startSoCs": 20}, "schedules[0].startSoCs", "write startSoC"),
        ({"targetSoC": 900}, "schedules[0].targetSoC", "percent"),
        ({"targetSoC": "90"}, "schedules[0].targetSoC", "percent"),
        ({"plannedArrivalTime": "2026-01-15T18:00:00"}, "no time zone", "+01:00"),
        ({"plannedArrivalTime": 1768496400000}, "plannedArrivalTime", "+01:00"),
        ({"plannedDepartureTime": SLOT["plannedArrivalTime"]}, "slot-1", "after"),
        ({"id": ""}, "schedules[0].id", "add it"),
        ({"evId": "bus-9"}, "schedules[0].evId", "add the vehicle"),
        (
            {"plan": {"segments": [{"from": 1768496400, "to": 1768514400, "powerkW": 9}]}},
            "epoch milliseconds",
            "leave plan out",
        ),
        ({"plan": {"segments": [{"powerKw": 9}]}}, "segments[0].powerKw", "write powerkW"),
    ],
)
def test_a_wrong_schedule_is_named_with_place_and_remedy(
    tmp_path: Path, change: dict[str, Any], place: str, remedy: str
) -> None:
    vehicles = write(tmp_path / "v.json", "vehicles", [BUS])
    row = {key: value for key, value in SLOT.items() if key != "targetSoC"} | change
    if "targetSOC" not in change:
        row = SLOT | change
    lines = faults(vehicles, write(tmp_path / "s.json", "schedules", [row]))

    assert any(place in line for line in lines), lines
    assert any(remedy in line for line in lines), lines
    assert all(str(tmp_path) in line for line in lines)


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([BUS | {"maxChargePowerkW": 120_000}], "maxChargePowerkW"),
        ([BUS | {"chargingPorts": [{"macAddress": "04:E7"}]}], "no usable MAC"),
        ([BUS | {"supportsPauseResume": "true"}], "supportsPauseResume"),
        ([BUS | {"supportspauseresume": True}], "write supportsPauseResume"),
        ([BUS | {"minChargePowerkW": 50, "maxChargePowerkW": 20}], "exchange the two"),
        ([BUS, BUS], "vehicles[1].id"),
        ([BUS, BUS | {"id": "bus-2"}], "vehicles[1].chargingPorts[0].macAddress"),
        (["bus-1"], "is not an object"),
    ],
)
def test_a_wrong_vehicle_is_named_with_its_place(
    tmp_path: Path, rows: list[Any], place: str
) -> None:
    lines = faults(write(tmp_path / "v.json", "vehicles", rows))

    assert any(place in line for line in lines), lines


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vehicle": []}', '{"vehicles": {}}'])
def test_a_file_of_another_shape_is_refused_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(text, encoding="utf-8")

    assert len(faults(str(path))) == 1
    assert "cannot be read" in faults(str(tmp_path / "none.json"))[0]


def test_with_a_cloud_a_schedule_may_name_a_vehicle_of_the_cloud(tmp_path: Path) -> None:
    slots = write(tmp_path / "s.json", "schedules", [SLOT])

    assert faults("", slots, alone=False) == []
    assert "bus-1" in faults("", slots)[0]


async def test_a_bad_file_keeps_the_last_good_content_and_is_told_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "v.json"
    fleet = LocalFleet(write(path, "vehicles", [BUS]), "")
    good = await fleet.vehicles()
    with capture_logs() as lines:
        write(path, "vehicles", [BUS, BUS])
        kept = [await fleet.vehicles() for _ in range(4)]
    told = [line for line in lines if line["event"] == "local_file_refused"]
    in_between = fleet.goodness
    write(path, "vehicles", [BUS | {"name": "mended"}])
    mended = await fleet.vehicles()

    assert all(item is good for item in kept)
    assert len(told) == 1
    assert "vehicles[1].id" in told[0]["reason"][0]
    assert in_between == {str(path): False}
    assert fleet.goodness == {str(path): True}
    assert mended.vehicles[0][0].name == "mended"


async def test_a_half_written_file_makes_no_noise(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    fleet = LocalFleet(write(path, "vehicles", [BUS]), "")
    await fleet.vehicles()
    with capture_logs() as lines:
        path.write_text('{"vehicles": [{"id"', encoding="utf-8")
        await fleet.vehicles()
        write(path, "vehicles", [BUS | {"name": "whole"}])
        read = await fleet.vehicles()

    assert [line["event"] for line in lines] == ["local_file_read"]
    assert read.vehicles[0][0].name == "whole"


async def test_a_file_that_never_was_good_is_a_fault_that_names_it(tmp_path: Path) -> None:
    fleet = LocalFleet(str(tmp_path / "none.json"), "")

    with pytest.raises(CloudFault, match=r"none\.json") as caught:
        await fleet.vehicles()
    assert caught.value.retryable
    assert (await fleet.schedules()).schedules == []


class Cloud:
    """The cloud's side of a union."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._rows = fleet
        self.delivered: list[Any] = []
        self.asked: list[str] = []

    async def vehicles(self) -> RegistryRead:
        read = await self._rows.vehicles()
        rows = [(item, text.replace("local", "cloud")) for item, text in read.vehicles]
        return RegistryRead(vehicles=rows)

    async def schedules(self) -> SchedulesRead:
        read = await self._rows.schedules()
        rows = [(item, text.replace("local", "cloud")) for item, text in read.schedules]
        return SchedulesRead(schedules=rows)

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        self.asked.append(vehicle_id)
        return SchedulesRead(schedules=[])

    async def deliver(self, report: Any, schedule_text: str | None) -> str:
        del schedule_text
        self.delivered.append(report)
        return "taken"


async def test_beside_a_cloud_files_add_what_it_does_not_know_and_the_cloud_wins(
    tmp_path: Path,
) -> None:
    theirs = LocalFleet(
        write(tmp_path / "cv.json", "vehicles", [BUS | {"name": "cloud"}]),
        write(tmp_path / "cs.json", "schedules", [SLOT | {"targetSoC": 50}]),
    )
    own = [
        BUS | {"name": "local"},
        {"id": "bus-2", "chargingPorts": [{"macAddress": "04E77E00F002"}]},
    ]
    ours = LocalFleet(
        write(tmp_path / "v.json", "vehicles", own),
        write(
            tmp_path / "s.json", "schedules", [SLOT, SLOT | {"id": "s-2", "evId": "bus-2"}]
        ),
    )
    cloud = Cloud(theirs)
    side: Fleet = cloud
    union = UnionFleet(side, ours)
    registry = await union.vehicles()
    slots = await union.schedules()
    texts = {item.schedule_id: text for item, text in slots.schedules}
    await union.active_schedule(VehicleId("bus-1"))
    await union.active_schedule(VehicleId("bus-2"))
    remarks = [
        await union.deliver(REPORT, texts[ScheduleId(name)]) for name in ("slot-1", "s-2")
    ]

    assert [item.name for item, _ in registry.vehicles] == ["cloud", ""]
    assert [item.target_soc_percent for item, _ in slots.schedules] == [50, 90]
    assert cloud.asked == ["bus-1"]
    assert remarks == ["taken", KEPT]
    assert cloud.delivered == [REPORT]


async def test_a_local_vehicle_with_an_address_of_the_cloud_is_left_out_and_told_once(
    tmp_path: Path,
) -> None:
    theirs = LocalFleet(write(tmp_path / "cv.json", "vehicles", [BUS]), "")
    ours = LocalFleet(write(tmp_path / "v.json", "vehicles", [BUS | {"id": "mine"}]), "")
    union = UnionFleet(Cloud(theirs), ours)
    first, second = await union.vehicles(), await union.vehicles()

    assert [item.vehicle_id for item, _ in first.vehicles] == ["bus-1"]
    assert len(first.problems) == 1
    assert "bus-1" in first.problems[0]
    assert second.problems == []


async def test_a_bad_file_beside_a_cloud_takes_nothing_from_the_cloud(
    tmp_path: Path,
) -> None:
    theirs = LocalFleet(write(tmp_path / "cv.json", "vehicles", [BUS]), "")
    bad = tmp_path / "v.json"
    bad.write_text("{", encoding="utf-8")
    union = UnionFleet(Cloud(theirs), LocalFleet(str(bad), ""))

    assert len((await union.vehicles()).vehicles) == 1


def test_check_config_names_what_is_wrong_in_the_files(tmp_path: Path) -> None:
    good = write(tmp_path / "v.json", "vehicles", [BUS])
    bad = write(tmp_path / "s.json", "schedules", [SLOT | {"targetSoC": 900}])
    config = tmp_path / "agent.toml"
    config.write_text(
        "[site]\ncap_kw = 100\n"
        f'[local]\nvehicles_file = "{good}"\nschedules_file = "{bad}"\n',
        encoding="utf-8",
    )
    runner = CliRunner()
    refused = runner.invoke(app, ["check-config", "--config", str(config)])
    write(tmp_path / "s.json", "schedules", [SLOT])
    taken = runner.invoke(app, ["check-config", "--config", str(config)])

    assert refused.exit_code == 78
    assert f"{bad}: schedules[0].targetSoC = 900" in refused.output
    assert (taken.exit_code, taken.output) == (0, "ok\n")
