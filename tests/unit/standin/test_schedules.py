"""Schedules over HTTP: synchronise, patch, active, split, re-plan."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.standin.fixtures import schedule_json

from .conftest import START

HOUR = timedelta(hours=1)
BUS = "/vehicles/bus-1/schedules"


def a_post(arrival, departure, **extra):
    row = schedule_json("bus-1", START + arrival * HOUR, START + departure * HOUR)
    del row["evId"]
    return row | extra


async def post(client, *rows, replace=False, path=BUS):
    body: dict[str, Any] = {"schedules": list(rows)}
    if replace:
        body["replaceFutureSchedules"] = True
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def patch(client, *rows, path=BUS):
    answer = await client.patch(path, json={"schedules": list(rows)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ids(client):
    rows = (await client.get(BUS)).json()["schedules"]
    return {row["id"] for row in rows}


async def one(client, key):
    rows = (await client.get(BUS)).json()["schedules"]
    return next(row for row in rows if row["id"] == key)


async def test_posted_schedule_is_planned_with_the_exact_spellings(client):
    (key,) = (await post(client, a_post(0, 8)))["ids"]

    row = await one(client, key)

    assert row["evId"] == "bus-1"
    assert {"startSoC", "targetSoC"} <= set(row)
    assert {"startSoc", "targetSoc"} <= set(row["plan"]["schedule"])
    assert {"startSoc", "endSoc"} <= set(row["plan"]["segments"][0])
    assert row["plan"]["reachedTargetSocInSchedule"] is True
    assert row["planMeta"]["strategy"] == "peak-supression"


async def test_post_without_the_flag_adds_even_a_duplicate(client):
    await post(client, a_post(1, 8))

    answer = await post(client, a_post(1, 8))

    assert answer["removedScheduleIds"] == []
    assert len(await ids(client)) == 2


async def test_replace_keeps_matches_by_departure_and_deletes_the_rest(client):
    first = (await post(client, a_post(1, 8), a_post(25, 32)))["ids"]

    answer = await post(client, a_post(2, 8), a_post(49, 56), replace=True)

    assert answer["ids"][0] == first[0]
    assert answer["removedScheduleIds"] == [first[1]]
    assert (await one(client, first[0]))["plannedArrivalTime"].startswith("2026-01-15T20")
    assert await ids(client) == set(answer["ids"])


async def test_replace_deletes_the_running_schedule_when_left_out(client):
    (running,) = (await post(client, a_post(-1, 8)))["ids"]

    answer = await post(client, a_post(25, 32), replace=True)

    assert answer["removedScheduleIds"] == [running]


async def test_replace_updates_the_running_schedule_with_another_departure(client):
    (running,) = (await post(client, a_post(-1, 8)))["ids"]

    answer = await post(client, a_post(-1, 9), replace=True)

    assert answer == {"ids": [running], "removedScheduleIds": []}


async def test_replace_updates_one_that_ended_very_recently(client, clock):
    (ended,) = (await post(client, a_post(-1, 1)))["ids"]
    clock.advance(3600 + 300)

    answer = await post(client, a_post(-1, 3), replace=True)

    assert answer["ids"] == [ended]


async def test_replace_leaves_departed_schedules_alone(client, clock):
    (ended,) = (await post(client, a_post(-1, 1)))["ids"]
    clock.advance(3 * 3600)

    answer = await post(client, a_post(2, 9), replace=True)

    assert answer["removedScheduleIds"] == []
    assert answer["ids"] != [ended]
    assert ended in await ids(client)


async def test_replace_touches_neither_other_vehicles_nor_templates(client, cloud):
    await post(client, a_post(1, 8), path="/vehicles/bus-2/schedules")
    await post(client, a_post(1, 8, recurrenceRule="FREQ=DAILY"))

    await post(client, a_post(1, 9), replace=True)

    assert len(cloud.book.entries) == 3


async def test_equal_repeat_changes_nothing_not_even_the_plan(client):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    before = await one(client, key)

    await post(client, a_post(0, 8), replace=True)

    assert await one(client, key) == before


async def test_patch_lists_unknown_foreign_departed_and_bad_items_as_skipped(
    client, cloud, clock
):
    (mine, bad) = (await post(client, a_post(-1, 1), a_post(0, 9)))["ids"]
    (other,) = (await post(client, a_post(0, 8), path="/vehicles/bus-2/schedules"))["ids"]
    clock.advance(2 * 3600)

    answer = await patch(
        client,
        {"id": "nobody", "startSoC": 10},
        {"id": other, "startSoC": 10},
        {"id": mine, "startSoC": 10},
        {"id": bad, "startSoC": 101},
    )

    assert answer["skippedScheduleIds"] == ["nobody", other, mine, bad]
    assert answer["success"] is True
    assert cloud.book.entries[other].row["startSoC"] == 30.0


async def test_patch_soon_after_departure_is_taken_within_the_grace(client, cloud, clock):
    (mine,) = (await post(client, a_post(-1, 1)))["ids"]
    clock.advance(3700)
    cloud.patch_grace_s = 600

    assert (await patch(client, {"id": mine, "startSoC": 10}))["skippedScheduleIds"] == []


async def test_patch_without_id_or_without_list_is_a_bad_request(client):
    bodies: list[Any] = [{"schedules": [{}]}, {}, {"schedules": 3}, []]
    for body in bodies:
        assert (await client.patch(BUS, json=body)).status_code == 400
    assert (await client.patch(BUS, content=b"{")).status_code == 400


async def test_start_soc_replans_from_the_measured_value_and_says_ev_connected(
    client, clock
):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    before = await one(client, key)
    clock.advance(1000)

    await patch(client, {"id": key, "startSoC": 55})

    after = await one(client, key)
    assert after["planMeta"]["trigger"] == "ev-connected"
    assert after["planMeta"]["timestamp"] > before["planMeta"]["timestamp"]
    assert after["plan"]["segments"][0]["startSoc"] == 55
    assert after["plan"]["schedule"]["startSoc"] == after["startSoC"] == 55
    assert after["plan"]["pastSegments"][-1]["to"] == after["plan"]["segments"][0]["from"]


async def test_timestamp_grows_on_every_replan_even_when_the_clock_stands(client, cloud):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    stamps = []
    for _ in range(3):
        cloud.replan("bus-1", "test")
        stamps.append((await one(client, key))["planMeta"]["timestamp"])

    assert stamps == sorted(set(stamps))


async def test_frozen_plan_is_not_replanned(client, cloud):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    await patch(client, {"id": key, "planMeta": {"frozen": True}})
    before = await one(client, key)

    await patch(client, {"id": key, "startSoC": 60})

    assert cloud.replan() == []
    after = await one(client, key)
    assert after["plan"] == before["plan"]
    assert after["startSoC"] == 60
    cloud.freeze(key, frozen=False)
    assert cloud.replan() == [key]


async def test_plan_written_by_a_client_is_returned_as_it_came(client, cloud, clock):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    plan = (await one(client, key))["plan"]
    plan["pastSegments"] = [plan["segments"][0] | {"powerkW": 7.25, "measured": True}]
    plan["schedule"]["tx"] = {"chargingStartTime": "2026-01-15T18:02:00.000Z"}
    clock.advance(4000)

    answer = await patch(client, {"id": key, "plan": plan})

    assert answer["skippedScheduleIds"] == []
    assert cloud.replan() == []
    clock.advance(4000)
    assert (await one(client, key))["plan"] == plan


async def test_past_and_future_segments_move_with_the_clock(client, clock):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    fresh = (await one(client, key))["plan"]
    count = len(fresh["segments"])
    assert fresh["pastSegments"] == []
    clock.advance(3600 + 60)

    plan = (await one(client, key))["plan"]

    now_ms = clock.now().timestamp() * 1000
    assert len(plan["pastSegments"]) == 4
    assert len(plan["segments"]) == count - 4
    assert all(segment["to"] <= now_ms for segment in plan["pastSegments"])
    assert plan["segments"][0]["from"] <= now_ms < plan["segments"][0]["to"]
    assert plan["pastSegments"] + plan["segments"] == fresh["segments"]


async def test_replan_without_measurement_goes_on_from_the_planned_soc(
    client, cloud, clock
):
    (key,) = (await post(client, a_post(0, 8)))["ids"]
    clock.advance(2 * 3600 + 100)

    cloud.replan(None, "demo")

    plan = (await one(client, key))["plan"]
    past, ahead = plan["pastSegments"][-1], plan["segments"][0]
    assert ahead["startSoc"] == pytest.approx(past["endSoc"], abs=0.02)
    assert ahead["startSoc"] > 35
    assert plan["schedule"]["startSoc"] == 30.0


async def test_plans_of_all_vehicles_stay_under_the_site_cap(client, cloud):
    cloud.site_cap_kw = 60.0
    for number in (1, 2, 3):
        path = f"/vehicles/bus-{number}/schedules"
        await post(client, a_post(0, 9, targetSoC=80), path=path)

    rows = [entry.row["plan"] for entry in cloud.book.entries.values()]
    moments = {s["from"] for plan in rows for s in plan["segments"]}
    for moment in moments:
        segments = [s for p in rows for s in p["segments"] if s["from"] <= moment < s["to"]]
        assert sum(s["powerkW"] for s in segments) <= 60.0001
    assert all(plan["reachedTargetSocInSchedule"] for plan in rows)


async def test_active_schedule_omits_what_there_is_none_of(client, clock):
    path = f"{BUS}/active"
    assert (await client.get(path)).json() == {}

    (key,) = (await post(client, a_post(1, 3)))["ids"]
    assert set((await client.get(path)).json()) == {"currentOrNext"}

    clock.advance(4 * 3600)
    body = (await client.get(path)).json()
    assert set(body) == {"previous"}
    assert body["previous"]["id"] == key


async def test_active_schedule_prefers_the_running_to_the_next(client):
    await post(client, a_post(10, 12), a_post(-1, 5), a_post(-30, -20))

    body = (await client.get(f"{BUS}/active")).json()

    assert body["currentOrNext"]["plannedDepartureTime"].startswith("2026-01-15T23")
    assert body["previous"]["plannedDepartureTime"] < "2026-01-15"


async def test_location_lists_recurring_apart_and_ignores_the_time_range(client):
    await post(client, a_post(1, 8), a_post(1, 8, recurrenceRule="FREQ=DAILY"))

    query = {"startDate": "2030-01-01", "endDate": "2030-01-02"}
    body = (await client.get("/locations/depot-1/schedules", params=query)).json()

    assert set(body) == {"recurringSchedules", "schedules"}
    assert len(body["recurringSchedules"]) == len(body["schedules"]) == 1
    assert "plan" not in body["recurringSchedules"][0]


async def test_location_without_schedules_gives_both_lists_empty(client):
    body = (await client.get("/locations/nowhere/schedules")).json()

    assert body == {"recurringSchedules": [], "schedules": []}


async def test_vehicle_without_charge_scheduling_gets_no_plan(client, cloud):
    cloud.vehicles["bus-1"]["enableChargeScheduling"] = False

    (key,) = (await post(client, a_post(0, 8)))["ids"]

    assert "plan" not in await one(client, key)


@pytest.mark.parametrize(
    "change",
    [
        {"plannedArrivalTime": "tomorrow"},
        {"plannedArrivalTime": "2026-01-15T18:00:00"},
        {"plannedDepartureTime": "2020-01-01T00:00:00Z"},
        {"targetSoC": 101},
        {"startSoC": "40"},
        {"plan": 3},
    ],
)
async def test_bad_posted_schedule_is_refused_whole(client, cloud, change):
    answer = await client.post(BUS, json={"schedules": [a_post(0, 8, **change)]})

    assert answer.status_code == 400
    assert not cloud.book.entries


async def test_new_id_never_takes_that_of_a_loaded_schedule(client, cloud):
    row = schedule_json("bus-1", START, START + HOUR, {"id": "schedule-000001"})
    cloud.load(schedules=[row])

    answer = await post(client, a_post(1, 8))

    assert answer["ids"] != ["schedule-000001"]
