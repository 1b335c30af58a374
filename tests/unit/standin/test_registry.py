"""What a bus tells by V2ICP, power groups, and new locations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.standin.fixtures import mac_of, power_group_json, schedule_json
from agent.standin.schedules import BadRequestError

from .conftest import START

WISH = {"v2icpParameters": {"interiorHvac": "HotWaterAndHeating", "preconditioning": True}}
NEEDS = {"seq": 0, "bat_reqtime": 20, "prec_reqtime": 45, "prec_eamount": 12.5}
BAD_GROUPS: list[Any] = [{}, {"group": 5}, []]


def needs_of(cloud):
    (entry,) = cloud.book.entries.values()
    vehicle = entry.row["plan"]["schedule"]["ev"]
    return list(vehicle["preconditioning"].values()), vehicle["energyNeedkWh"]


@pytest.fixture
def planned(cloud):
    cloud.load(schedules=[schedule_json("bus-1", START, START + timedelta(hours=9))])
    return cloud


async def test_a_bus_that_speaks_is_known_by_its_vin_in_both_reads(client, cloud):
    cloud.v2icp_said("bus-1", NEEDS, mac=mac_of(1), vin="VIN-1")

    row = (await client.get("/vehicles")).json()["vehicles"][0]
    single = (await client.get("/vehicles/bus-1")).json()

    assert row["vehicle"]["vin"] == single["vin"] == "VIN-1"
    assert row["v2icp"]["evMacAddress"] == mac_of(1)
    assert row["v2icp"]["v2icp"] == NEEDS
    assert row["v2icp"]["timestamp"] == "2026-01-15T18:00:00.000Z"


async def test_needs_reach_the_plan_once_the_depot_asks_for_preconditioning(
    client, planned
):
    planned.v2icp_said("bus-1", NEEDS, mac=mac_of(1), vin="VIN-1")
    unasked = needs_of(planned)

    await client.patch("/vehicles/bus-1", json=WISH)

    assert unasked == ([0, 0, 0], 150.0)
    assert needs_of(planned) == ([20 * 60_000, 45 * 60_000, 12.5], 162.5)


@pytest.mark.parametrize("said", [{}, {"bat_reqtime": "SNA", "prec_eamount": None}])
async def test_values_that_are_not_available_are_zero(client, planned, said):
    await client.patch("/vehicles/bus-1", json=WISH)
    planned.v2icp_said("bus-1", said, mac=mac_of(1), vin="VIN-1")

    assert needs_of(planned)[0] == [0, 0, 0]


async def test_a_bus_speaks_through_the_control_surface(client, cloud):
    url = "http://t/_control/v2icp"
    body: dict[str, Any] = {
        "vehicleId": "bus-2",
        "vin": "V2",
        "mac": mac_of(2),
        "message": {"seq": 3},
    }

    done = await client.post(url, json=body)
    wrong = [
        await client.post(url, json={**body, "vehicleId": "bus-9"}),
        await client.post(url, json={**body, "message": 5}),
    ]

    assert done.json() == {"success": True}
    assert cloud.vehicles["bus-2"]["v2icp"]["response"] == {"seq": 3, "vin": "V2"}
    assert [answer.status_code for answer in wrong] == [400, 400]


async def test_a_power_group_is_changed_in_part(client, cloud):
    cloud.load(power_groups=[power_group_json("g1", {"futureField": 1})])
    path = "/loadBalancing/powerGroup/g1"

    done = await client.patch(path, json={"group": {"maxCurrentA": 200}})
    bad = [await client.patch(path, json=body) for body in BAD_GROUPS]
    unknown = await client.patch("/loadBalancing/powerGroup/g9", json={"group": {}})

    assert done.json() == {"success": True}
    group = cloud.power_groups["g1"]
    assert (group["maxCurrentA"], group["futureField"]) == (200, 1)
    assert [answer.status_code for answer in bad] == [400, 400, 400]
    assert unknown.status_code == 404


async def test_a_new_location_gets_its_id_and_its_station(client, cloud):
    cloud.load(stations=[{"stationId": "CS-1", "locationUid": "old"}])
    body: dict[str, Any] = {
        "location": {"name": "South", "id": "mine"},
        "stationId": "CS-1",
    }

    made = (await client.post("/locations", json=body)).json()
    bad = await client.post("/locations", json={"stationId": "CS-1"})

    assert made["success"] is True
    assert made["id"] != "mine"
    read = (await client.get(f"/locations/{made['id']}")).json()
    assert read["location"]["name"] == "South"
    assert cloud.stations[0]["locationUid"] == made["id"]
    assert bad.status_code == 400


def test_a_fixture_may_hold_power_groups_and_each_needs_its_key(cloud):
    cloud.load_fixture({"power_groups": [{"groupId": "g"}]})

    assert set(cloud.power_groups) == {"g"}
    with pytest.raises(BadRequestError):
        cloud.load_fixture({"power_groups": [{}]})
    cloud.clear()
    assert not cloud.power_groups
