"""ChargEye's operations over real HTTP: paths, envelopes, paging, spellings, one POST."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from agent.cloud.chargeye_api import ChargEyeApi
from agent.cloud.chargeye_ops import PAGES_MAX, ChargEyeOps
from agent.cloud.http import CloudHttp
from agent.domain.errors import CloudFault
from agent.standin.clock import ManualClock
from agent.standin.faults import Fault
from agent.standin.fixtures import LOCATION_UID, load_sample, mac_of, schedule_json
from agent.standin.server import StandinServer
from agent.standin.state import ChargEyeStandin

from .conftest import NOW, REFRESH, Cloud, HandClock

HOUR = timedelta(hours=1)


@pytest.fixture
def cloud() -> ChargEyeStandin:
    made = ChargEyeStandin(ManualClock(NOW), site_cap_kw=300.0, refresh_token=REFRESH)
    load_sample(made)
    return made


@pytest.fixture
async def ops(cloud: ChargEyeStandin) -> AsyncIterator[ChargEyeOps]:
    async with StandinServer(cloud) as server:
        http = CloudHttp("chargeye", server.base_url)
        yield ChargEyeOps(ChargEyeApi(http, REFRESH, clock=HandClock(NOW)))
        await http.close()


def scripted(body: Any, **options: Any) -> tuple[ChargEyeOps, Cloud]:
    answer = body if callable(body) else lambda _: httpx.Response(200, json=body)
    cloud = Cloud(answer)
    http = CloudHttp(
        "chargeye", "http://cloud.test/api", transport=httpx.MockTransport(cloud)
    )
    return ChargEyeOps(ChargEyeApi(http, REFRESH, clock=HandClock(), **options)), cloud


# --- registry -----------------------------------------------------------------------------


async def test_a_vehicle_is_shown_put_and_patched(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    assert (await ops.vehicle("bus-1"))["name"] == "bus-1"
    assert await ops.put_vehicle("bus 9", {"name": "Nine"}) == "bus 9"
    await ops.patch_vehicle("bus 9", {"maxChargePowerkW": 100})

    assert cloud.vehicles["bus 9"] == {
        "id": "bus 9",
        "name": "Nine",
        "maxChargePowerkW": 100,
    }
    only_here = await ops.vehicles(LOCATION_UID)
    assert len(only_here["vehicles"]) == 4


async def test_a_put_clears_what_it_does_not_name_and_a_patch_does_not(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    await ops.patch_vehicle("bus-5", {"notes": "x"})
    assert cloud.vehicles["bus-5"]["chargingPorts"]
    await ops.put_vehicle("bus-5", {"notes": "y"})

    assert cloud.vehicles["bus-5"] == {
        "id": "bus-5",
        "notes": "y",
        "vin": "VIN-OF-BUS-5",  # read-only: no body can clear it
    }


async def test_a_single_vehicle_is_taken_wrapped_and_bare() -> None:
    """1.1 says bare; the list says otherwise."""
    for body in ({"id": "b"}, {"vehicle": {"id": "b"}}):
        ops, _ = scripted(body)
        assert (await ops.vehicle("b"))["id"] == "b"
    ops, _ = scripted({"vehicles": []})
    with pytest.raises(CloudFault, match="no vehicle"):
        await ops.vehicle("b")


# --- schedules ------------------------------------------------------------------------------


async def test_time_ranges_are_asked_for_and_kept_locally(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    """The names of the query are inferred: the stand-in ignores them."""
    everything = await ops.vehicle_schedules("bus-1")
    coming = await ops.vehicle_schedules("bus-1", since=NOW + 8 * HOUR)
    until = await ops.location_schedules(LOCATION_UID, until=NOW)
    query = next(r.query for r in cloud.requests.matching("GET", "/bus-1/") if r.query)

    assert len(everything.slots) == 3
    assert [slot.arrives_at for slot in coming.slots] == [NOW + 24 * HOUR]
    assert query == "startDate=2026-01-16T02%3A00%3A00.000Z"
    assert len(until.slots) == 6
    assert [slot.vehicle_id for slot in until.recurring] == ["bus-2"]


async def test_a_template_among_dated_ones_is_set_apart() -> None:
    row = {"id": "r", "recurrenceRule": "FREQ=DAILY"}
    ops, _ = scripted({"schedules": [row]})

    read = await ops.vehicle_schedules("bus-1")

    assert not read.slots
    assert [slot.schedule_id for slot in read.recurring] == ["r"]


async def test_active_schedule_tells_what_there_is(ops: ChargEyeOps) -> None:
    both = await ops.active_schedule("bus-1")
    coming = await ops.active_schedule("bus-6")

    assert both.current_or_next is not None
    assert both.current_or_next.arrives_at == NOW - HOUR / 4
    assert both.previous is not None
    assert both.previous.departs_at == NOW - 14 * HOUR
    assert coming.current_or_next is not None
    assert coming.previous is None


async def test_schedules_are_posted_replaced_and_patched(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    row = schedule_json("bus-6", NOW + 30 * HOUR, NOW + 40 * HOUR)
    del row["evId"]
    old = (await ops.vehicle_schedules("bus-6")).slots[0].schedule_id

    added = await ops.post_schedules("bus-6", [row], replace=False)
    replaced = await ops.post_schedules("bus-6", [row], replace=True)
    patched = await ops.patch_schedules("bus-6", [{"id": old, "startSoC": 5}])

    assert added.removed == ()
    assert replaced.ids == added.ids
    assert replaced.removed == (old,)
    assert (patched.success, patched.skipped) == (True, (old,))
    assert "unknown id" in patched.message
    bodies = [r.body for r in cloud.requests.matching("POST")]
    assert ["replaceFutureSchedules" in body for body in bodies] == [False, True]


@pytest.mark.parametrize("kind", ["lost-answer", "cut", "503", "html"])
async def test_a_post_is_sent_once_whatever_becomes_of_its_answer(
    ops: ChargEyeOps, cloud: ChargEyeStandin, kind: Any
) -> None:
    """6.6: a blind repeat may duplicate."""
    cloud.faults.add(Fault(kind=kind, method="POST"))
    row = schedule_json("bus-6", NOW + 30 * HOUR, NOW + 40 * HOUR)
    del row["evId"]

    with pytest.raises(CloudFault) as caught:
        await ops.post_schedules("bus-6", [row], replace=False)

    assert caught.value.retryable
    assert len(cloud.requests.matching("POST")) == 1


async def test_a_refused_token_did_not_apply_and_is_repeated_once(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    await ops.locations()
    cloud.tokens.revoke_all()

    await ops.patch_vehicle("bus-1", {"notes": "x"})

    assert [r.status for r in cloud.requests.matching("PATCH")] == [401, 200]
    assert len(cloud.requests.matching("GET", "/auth/")) == 2


# --- places, stations, sessions -------------------------------------------------------------


async def test_places_and_stations_are_read(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    (place,) = await ops.locations()
    (station,) = await ops.stations(LOCATION_UID)
    (row,) = await ops.location_stations(LOCATION_UID)
    uid = await ops.create_location({"name": "South"}, "CP-1")

    assert (place.uid, place.reference) == (LOCATION_UID, "customer reference")
    assert (await ops.location(uid)).name == "South"
    assert cloud.stations[0]["locationUid"] == uid
    assert row.status == "IN_OPERATION"
    assert (station.max_w, station.online) == (None, "Online")  # 0 kW means unknown
    first, second, third = station.connectors
    assert first.last is not None  # lastTransaction
    assert second.last is not None  # latestTransaction
    assert first.last.tx_id == second.last.tx_id
    assert third.last is None
    assert await ops.stations(LOCATION_UID, ["elsewhere"]) == []


async def test_of_two_spellings_the_newer_transaction_counts() -> None:
    old = {"txId": "old", "sequenceNumber": 1}
    new = {"txId": "new", "sequenceNumber": 2}
    connector = {"connectorId": "1", "lastTransaction": new, "latestTransaction": old}
    ops, _ = scripted({"stations": [{"stationId": "S", "connectors": [connector]}]})

    (station,) = await ops.stations()

    last = station.connectors[0].last
    assert last is not None
    assert (last.tx_id, last.station_id, last.connector_ids) == ("new", "S", ("1",))


async def test_all_pages_are_read_with_the_key_as_json_text(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    rows, is_complete = await ops.sessions("CP-1")
    few, whole = await ops.sessions("CP-1", rows_max=7)
    recent, _ = await ops.sessions(since=NOW - 30 * HOUR, until=NOW)

    assert is_complete
    assert len({row.tx_id for row in rows}) == 12
    asked = [r.query for r in cloud.requests.matching("GET", "/transactions")]
    assert "exclusiveStartKey" not in asked[0]
    assert "exclusiveStartKey=%7B%22txId%22" in asked[1]
    assert (len(few), whole) == (7, False)
    assert len(recent) == 3
    newest = rows[0]
    assert newest.started_at == NOW - HOUR / 4
    assert newest.mac == mac_of(1).replace(":", "")
    assert newest.energy_wh is None
    assert rows[1].energy_wh == 12_500
    assert (await ops.session(rows[3].tx_id)).tx_id == rows[3].tx_id


async def test_a_list_that_never_ends_is_left() -> None:
    body = {"transactions": [{"txId": "a"}], "lastEvaluatedKey": {"x": 1}}
    ops, cloud = scripted(body)

    rows, is_complete = await ops.sessions()

    assert not is_complete
    assert len(rows) == 1
    assert len(cloud.requests) == 1 + 2


async def test_pages_are_bounded() -> None:
    count = iter(range(10_000))

    def answer(_: httpx.Request) -> httpx.Response:
        number = next(count)
        body = {"transactions": [], "lastEvaluatedKey": {"page": number}}
        return httpx.Response(200, content=orjson.dumps(body))

    ops, cloud = scripted(answer)
    _, is_complete = await ops.sessions()

    assert not is_complete
    assert len(cloud.requests) == 1 + PAGES_MAX


async def test_a_power_group_is_changed_in_part(
    ops: ChargEyeOps, cloud: ChargEyeStandin
) -> None:
    await ops.patch_power_group("group-1", {"maxCurrentA": 300})

    assert cloud.power_groups["group-1"]["maxCurrentA"] == 300
    assert cloud.power_groups["group-1"]["actualSiteFuseSize"] == 630
    with pytest.raises(CloudFault, match="404"):
        await ops.patch_power_group("group-9", {})


# --- the path table and odd answers ---------------------------------------------------------


async def test_operations_use_the_same_overridable_paths() -> None:
    paths = {"power_group": "/v2/groups/{powerGroupId}?x=1", "stations": "v2/points?y=2"}
    ops, cloud = scripted({"stations": []}, paths=paths)

    await ops.patch_power_group("a/b", {})
    await ops.stations("loc", ["S1", "S2"])

    assert cloud.asked()[1:] == [
        "PATCH /api/v2/groups/a%2Fb?x=1",
        "GET /api/v2/points?y=2&locationUid=loc&stationIds=S1&stationIds=S2",
    ]


@pytest.mark.parametrize("body", [[], None, 5, {"x": []}, {"schedules": {}}])
async def test_an_answer_of_another_shape_is_a_fault(body: Any) -> None:
    """Never an empty list: what follows from it might delete."""
    at = datetime(2026, 1, 1, tzinfo=NOW.tzinfo)
    ops, _ = scripted(lambda _: httpx.Response(200, content=orjson.dumps(body)))
    reads = [
        lambda: ops.vehicle("b"),
        lambda: ops.vehicle_schedules("b", at),
        lambda: ops.location_schedules("l"),
        ops.stations,
        lambda: ops.location_stations("l"),
        ops.sessions,
        lambda: ops.session("t"),
        lambda: ops.location("l"),
    ]
    for read in reads:
        with pytest.raises(CloudFault) as caught:
            await read()
        assert caught.value.retryable


async def test_a_404_of_a_path_that_is_not_public_names_the_setting(
    ops: ChargEyeOps,
) -> None:
    with pytest.raises(CloudFault, match=r"chargeye\.paths\.active_schedule") as inferred:
        await ops.active_schedule("nobody")
    with pytest.raises(CloudFault, match="404") as documented:
        await ops.vehicle("nobody")

    assert not inferred.value.retryable
    assert "paths" not in str(documented.value)


@pytest.mark.parametrize("call", ["vehicle", "group", "place"])
async def test_success_false_is_a_refusal(call: str) -> None:
    ops, _ = scripted({"success": False, "message": "not you" + "!" * 500})
    calls = {
        "vehicle": lambda: ops.patch_vehicle("b", {}),
        "group": lambda: ops.patch_power_group("g", {}),
        "place": lambda: ops.create_location({}),
    }
    with pytest.raises(CloudFault, match="not you") as caught:
        await calls[call]()

    assert not caught.value.retryable
    assert len(str(caught.value)) < 250
