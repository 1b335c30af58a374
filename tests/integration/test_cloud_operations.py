"""What the daemon refuses, and what becomes of writes whose answers are lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.demo import EVENING
from agent.standin.faults import Fault
from agent.standin.fixtures import mac_of, schedule_json, vehicle_json
from tests.support.yard import Yard, yard

HOUR = timedelta(hours=1)
NEW = "04:E7:7E:00:F0:01"


@asynccontextmanager
async def depot(folder: Path, *vehicles: Any) -> AsyncIterator[Yard]:
    async with yard(folder, stations=[{"id": "CP-01"}]) as found:
        found.cloud.load(vehicles=vehicles or [vehicle_json("bus-1")])
        yield found


async def ask(here: Yard, name: str, **arguments: Any) -> Any:
    status, body = await here.daemon.operations.run(name, arguments)
    assert status == 200, body
    return body["result"]


async def refusal(here: Yard, name: str, **arguments: Any) -> str:
    status, body = await here.daemon.operations.run(name, arguments)
    assert status != 200, body
    error = body["error"]
    assert isinstance(error, dict)
    return f"{status} {error['description']}"


def a_slot(start_h: float, end_h: float, **more: Any) -> dict[str, Any]:
    return schedule_json("bus-1", EVENING + start_h * HOUR, EVENING + end_h * HOUR, more)


async def apply(here: Yard, rows: list[Any]) -> Any:
    asked = {"vehicle": "bus-1", "schedules": rows}
    shown = await ask(here, "schedules.sync", **asked)
    return await ask(here, "schedules.sync", apply=True, view=shown["view"], **asked)


# --- registry -----------------------------------------------------------------------------


async def test_an_older_single_address_becomes_a_port_beside_the_new_one(
    tmp_path: Path,
) -> None:
    bus = vehicle_json("bus-1", macs=[mac_of(1)], mac_shape="deprecated")
    async with depot(tmp_path, bus) as here:
        shown = await ask(
            here, "vehicles.enrol", vehicle="bus-1", mac="04e77e00f001", force=True
        )
        before = here.cloud.vehicles["bus-1"].get("chargingPorts")
        await ask(
            here,
            "vehicles.enrol",
            vehicle="bus-1",
            mac="04e77e00f0010000",
            force=True,
            apply=True,
        )

    assert "older address" in shown["change"]
    assert shown["applied"] is False
    assert before is None
    ports = here.cloud.vehicles["bus-1"]["chargingPorts"]
    assert [port["macAddress"] for port in ports] == [mac_of(1), NEW]
    assert here.cloud.vehicles["bus-1"]["evMacAddress"] == mac_of(1)


async def test_a_port_out_of_use_is_put_in_use_again_with_all_that_it_had(
    tmp_path: Path,
) -> None:
    port = {"macAddress": NEW.lower(), "type": "MCS", "inactive": True, "future": 1}
    async with depot(tmp_path, vehicle_json("bus-1", {"chargingPorts": [port]})) as here:
        found = await ask(
            here, "vehicles.enrol", vehicle="bus-1", mac=NEW, force=True, apply=True
        )

    assert "in use again" in found["change"]
    assert here.cloud.vehicles["bus-1"]["chargingPorts"] == [port | {"inactive": False}]


async def test_no_write_gives_a_vehicle_anothers_address(tmp_path: Path) -> None:
    wishes: list[dict[str, Any]] = [
        {"chargingPorts": [{"macAddress": mac_of(2)}]},
        {"chargingPorts": [{"macAddress": mac_of(3), "inactive": True}]},
        {"evMacAddress": mac_of(3)},
    ]
    idle = {"chargingPorts": [{"macAddress": mac_of(3), "inactive": True}]}
    vehicles = [
        vehicle_json("bus-1"),
        vehicle_json("bus-2", macs=[mac_of(2)]),
        vehicle_json("bus-3", idle),
    ]
    async with depot(tmp_path, *vehicles) as here:
        texts = []
        for wish in wishes:
            texts += [
                await refusal(here, "vehicles.patch", id="bus-1", fields=wish),
                await refusal(here, "vehicles.put", id="bus-9", vehicle=wish, apply=True),
            ]
        empty = await refusal(here, "vehicles.patch", id="bus-1", fields={})

    assert all(text.startswith("409") and "already" in text for text in texts)
    assert "nothing shall change" in empty
    assert "bus-9" not in here.cloud.vehicles
    assert not here.cloud.requests.matching("PATCH")


async def test_a_lost_answer_to_a_patch_is_a_fault_and_no_repeat(tmp_path: Path) -> None:
    async with depot(tmp_path) as here:
        here.cloud.faults.add(Fault(kind="lost-answer", method="PATCH"))
        text = await refusal(here, "vehicles.patch", id="bus-1", fields={"notes": "x"})

    assert text.startswith("502")
    assert len(here.cloud.requests.matching("PATCH")) == 1
    assert here.cloud.vehicles["bus-1"]["notes"] == "x"


# --- schedules ------------------------------------------------------------------------------


async def test_a_synchronisation_that_never_arrived_is_sent_again_once(
    tmp_path: Path,
) -> None:
    async with depot(tmp_path) as here:
        here.cloud.load(schedules=[a_slot(1, 5, id="goes")])
        here.cloud.faults.add(Fault(kind="cut", method="POST"))
        done = await apply(here, [a_slot(10, 15)])

    assert done["answer_lost"] is True
    assert done["removed_schedule_ids"] == ["goes"]
    assert done["unexpected"] == []
    posts = here.cloud.requests.matching("POST")
    assert [record.status for record in posts] == [0, 200]


async def test_a_synchronisation_into_which_somebody_wrote_is_not_repeated(
    tmp_path: Path,
) -> None:
    async with depot(tmp_path) as here:
        here.cloud.load(schedules=[a_slot(1, 5, id="goes")])
        faults = here.cloud.faults
        taken = faults.take

        def meddle(method: str, path: str) -> Fault | None:
            if method != "POST":
                return taken(method, path)
            here.cloud.load(schedules=[a_slot(40, 45, id="strangers")])
            return Fault(kind="cut")

        faults.take = meddle  # type: ignore[method-assign]
        rows = [a_slot(10, 15)]
        shown = await ask(here, "schedules.sync", vehicle="bus-1", schedules=rows)
        text = await refusal(
            here,
            "schedules.sync",
            vehicle="bus-1",
            schedules=rows,
            apply=True,
            view=shown["view"],
        )

    assert text.startswith("502")
    assert "somebody else wrote" in text
    assert len(here.cloud.requests.matching("POST")) == 1
    assert set(here.cloud.book.entries) == {"goes", "strangers"}


async def test_nothing_to_do_sends_nothing(tmp_path: Path) -> None:
    async with depot(tmp_path) as here:
        here.cloud.load(schedules=[a_slot(1, 5, id="same")])
        done = await apply(here, [a_slot(1, 5)])

    assert done["applied"] is True
    assert done["unchanged"] == ["same"]
    assert not here.cloud.requests.matching("POST")


async def test_templates_are_seen_but_none_is_foretold_gone(tmp_path: Path) -> None:
    rule = {"recurrenceRule": "FREQ=DAILY"}
    async with depot(tmp_path) as here:
        here.cloud.load(
            schedules=[a_slot(1, 5, id="kept", **rule), a_slot(2, 6, id="other", **rule)]
        )
        rows = [a_slot(1, 5, **rule), a_slot(3, 7, **rule)]
        shown = await ask(here, "schedules.sync", vehicle="bus-1", schedules=rows)
        done = await apply(here, rows)
        here.cloud.faults.add(Fault(kind="lost-answer", method="POST"))
        added = await ask(
            here, "schedules.add", vehicle="bus-1", schedules=[a_slot(4, 8, **rule)]
        )
        here.cloud.faults.add(Fault(kind="lost-answer", method="POST"))
        far = a_slot(5, 9, locationUid="depot-2", **rule)
        unseen = await refusal(here, "schedules.add", vehicle="bus-1", schedules=[far])

    assert shown["unchanged"] == ["kept"]
    assert len(shown["created"]) == 1
    assert shown["deleted"] == []
    assert "other" in shown["notes"][0]
    assert done["removed_schedule_ids"] == []
    assert added["answer_lost"] is True
    assert len(added["ids"]) == 1
    assert "not known" in unseen
    assert len(here.cloud.book.entries) == 5
    assert len(here.cloud.requests.matching("POST")) == 3


async def test_a_wish_that_is_not_clear_is_refused(tmp_path: Path) -> None:
    wishes: list[tuple[Any, str]] = [
        ([a_slot(1, 5), a_slot(2, 5)], "two schedules depart"),
        ([a_slot(1, 5) | {"targetSoc": 5}], "did you mean targetSoC"),
        ({"schedule": []}, "give a list"),
        ([a_slot(1, 5) | {"evId": "bus-2"}], "belongs to bus-2"),
        ([a_slot(-5, 3)], "which of one, two"),
    ]
    async with depot(tmp_path) as here:
        here.cloud.load(schedules=[a_slot(-2, 5, id="one"), a_slot(-2, 6, id="two")])
        texts = [
            await refusal(here, "schedules.sync", vehicle="bus-1", schedules=rows)
            for rows, _ in wishes
        ]

    assert [words in text for text, (_, words) in zip(texts, wishes, strict=True)] == [
        True
    ] * len(wishes), texts
    assert not here.cloud.requests.matching("POST")


async def test_what_has_departed_is_left_out_of_a_synchronisation(tmp_path: Path) -> None:
    """A list that was read and edited may hold it."""
    async with depot(tmp_path) as here:
        here.cloud.load(schedules=[a_slot(-9, -5, id="old"), a_slot(1, 5, id="next")])
        done = await apply(here, [a_slot(-9, -5), a_slot(1, 5, startSoC=44)])

    assert "left out" in done["notes"][0]
    assert done["ids"] == ["next"]
    (post,) = here.cloud.requests.matching("POST")
    assert len(post.body["schedules"]) == 1
    assert set(here.cloud.book.entries) == {"old", "next"}


async def test_the_daemon_itself_never_posts(tmp_path: Path) -> None:
    """A session from plug to unplug: GET and PATCH, nothing else (contract 6)."""
    async with depot(tmp_path) as here:
        station = here.station("CP-01")
        await here.installed()
        await station.plug(1, here.add_bus(1, [(-1, 11, 60.0)]))
        await here.until(lambda: here.cloud.requests.matching("PATCH", key="startSoC"))
        await station.unplug(1)
        await here.until(lambda: here.cloud.requests.matching("PATCH", key="pastSegments"))

    assert {record.method for record in here.cloud.requests} == {"GET", "PATCH"}
