"""Stand-in Smartcar: what a car reports and when, and the signals made of it."""

from __future__ import annotations

import pytest

from agent.standin.smartcar_car import PERMISSIONS, REPORT_MINUTES
from agent.standin.smartcar_limits import LimitSet
from agent.standin.smartcar_signals import SIGNALS as KINDS
from agent.standin.smartcar_signals import spoil

from .smartcar_support import SIGNALS, SOC, START, a_car, a_cloud, code_of, driver, plain

FREE = LimitSet(app_tokens=None, vehicle_tokens=None, month_calls=None)
LIMITS = "charge-chargelimits"


async def bodies(http, **headers):
    rows = (await http.get(f"{SIGNALS}?page[size]=100", headers=headers)).json()["data"]
    return {row["id"]: row["attributes"].get("body") for row in rows}


async def one(http, code=SOC, **headers):
    return (await http.get(f"{SIGNALS}/{code}", headers=headers)).json()["data"]


async def test_a_charging_car_shows_what_the_agent_needs():
    cloud, _ = a_cloud(a_car(capacity_kwh=75.0, body={"limit_percent": 90}))
    async with driver(cloud) as http:
        shown = await bodies(http)
    assert shown[SOC] == {"value": 54.0, "unit": "percent"}
    assert shown["tractionbattery-nominalcapacity"]["capacity"] == 75.0
    assert shown["charge-ischargingcableconnected"] == {"value": True}
    assert shown["charge-ischarging"] == {"value": True}
    assert shown["charge-detailedchargingstatus"] == {"value": "CHARGING"}
    assert shown[LIMITS]["activeLimit"] == 90
    assert shown["charge-wattage"] == {"value": 11_000, "unit": "watts"}
    assert shown["vehicleidentification-vin"] == {"value": "VSTANDN0000000001"}
    assert shown["charge-timetocomplete"]["value"] == round(0.36 * 75 / 11 * 60)


async def test_an_idle_car_has_errors_on_power_and_full_means_at_its_limit():
    cloud, _ = a_cloud(a_car(body={"soc_percent": 80.0, "limit_percent": 80.0}))
    async with driver(cloud) as http:
        status = await one(http, "charge-detailedchargingstatus")
        assert status["attributes"]["body"] == {"value": "FULLY_CHARGED"}
        power = (await one(http, "charge-wattage"))["attributes"]
    assert power["status"]["value"] == "ERROR"
    assert power["status"]["error"]["code"] == "NOT_CHARGING"
    assert power["body"] == {"value": None, "unit": "watts"}


async def test_the_list_comes_in_pages_and_each_page_is_a_call():
    cloud, clock = a_cloud(a_car(), limits=FREE)
    cloud.signal_rows = 7
    seen: list[str] = []
    url, page = SIGNALS, {}
    async with driver(cloud) as http:
        while url:
            page = (await http.get(url)).json()
            assert page["included"]["vehicle"]["id"] == "v-1"
            seen += [row["id"] for row in page["data"]]
            url = page["links"]["next"]
    assert len(seen) == len(set(seen)) == page["meta"]["totalCount"]
    assert set(seen) < {kind.code for kind in KINDS}
    assert cloud.calls.reads("v-1") == 3 == cloud.limits.used("v-1", clock.now())


async def test_links_may_lead_to_another_host():
    cloud, _ = a_cloud(a_car())
    cloud.signal_rows, cloud.links_origin = 5, "https://elsewhere.invalid"
    async with driver(cloud) as http:
        links = (await http.get(SIGNALS)).json()["links"]
    assert links["next"].startswith("https://elsewhere.invalid/v3/vehicles/v-1/signals?")


async def test_a_list_or_signal_without_user_is_400_and_of_another_user_404():
    cloud, clock = a_cloud(a_car())
    async with driver(cloud) as http:
        for path in (SIGNALS, f"{SIGNALS}/{SOC}"):
            wrong = await http.get(path, headers={"sc-user-id": "u-2"})
            assert (wrong.status_code, code_of(wrong)) == (
                404,
                "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND",
            )
        del http.headers["sc-user-id"]
        for path in (SIGNALS, f"{SIGNALS}/{SOC}"):
            answer = await http.get(path)
            assert (answer.status_code, code_of(answer)) == (
                400,
                "VALIDATION:MISSING_PARAMETER",
            )
    assert cloud.limits.used("v-1", clock.now()) == 0


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [
        ("iso", "2026-01-15T18:00:00.000Z"),
        ("ms", 1_768_500_000_000),
        ("s", 1_768_500_000),
        ("null", None),
    ],
)
async def test_timestamps_come_in_each_encoding(encoding, wanted):
    cloud, clock = a_cloud(a_car(), encoding=encoding)
    clock.advance(90)
    async with driver(cloud) as http:
        meta = (await one(http))["meta"]
        assert meta["oemUpdatedAt"] == wanted
        if encoding != "null":
            assert meta["retrievedAt"] != wanted


async def test_static_signals_carry_no_time_and_headers_carry_the_report():
    cloud, clock = a_cloud(a_car())
    clock.advance(90)
    async with driver(cloud) as http:
        assert (await one(http, "vehicleidentification-vin"))["meta"]["oemUpdatedAt"] == 0
        headers = (await http.get(SIGNALS)).headers
    assert headers["sc-data-age"] == "2026-01-15T18:00:00.000Z"
    assert headers["sc-fetched-at"] == "2026-01-15T18:01:30.000Z"
    assert headers["sc-unit-system"] == "metric"


@pytest.mark.parametrize(
    ("mode", "status", "has_body"),
    [
        ("error", "ERROR", False),
        ("cached-error", "ERROR", True),
        ("no-body", "SUCCESS", False),
        ("unavailable", "UNAVAILABLE", False),
    ],
)
async def test_a_signal_can_fail_alone(mode, status, has_body):
    cloud, _ = a_cloud(a_car())
    spoil(cloud.cars["v-1"], SOC, mode)
    async with driver(cloud) as http:
        answer = await http.get(f"{SIGNALS}?page[size]=100")
    assert answer.status_code == 200
    rows = {row["id"]: row["attributes"] for row in answer.json()["data"]}
    assert rows[SOC]["status"]["value"] == status
    assert ("body" in rows[SOC]) is has_body
    assert rows[LIMITS]["status"]["value"] == "SUCCESS"


async def test_a_cached_body_keeps_its_old_value_and_time_until_it_is_healed():
    cloud, clock = a_cloud(a_car(), limits=FREE)
    car = cloud.cars["v-1"]
    spoil(car, SOC, "cached-error:UPSTREAM:RATE_LIMIT")
    clock.advance(1800)
    async with driver(cloud) as http:
        old = await one(http)
        assert old["attributes"]["body"]["value"] == 54.0
        assert old["attributes"]["status"]["error"]["code"] == "RATE_LIMIT"
        assert old["meta"]["oemUpdatedAt"] == "2026-01-15T18:00:00.000Z"
        spoil(car, SOC, "")
        new = await one(http)
    assert new["attributes"]["body"]["value"] == 61.0
    assert new["meta"]["oemUpdatedAt"] == "2026-01-15T18:30:00.000Z"


async def test_missing_and_unknown_signals_are_404_and_not_in_the_list():
    cloud, _ = a_cloud(a_car(), limits=FREE)
    spoil(cloud.cars["v-1"], SOC, "missing")
    async with driver(cloud) as http:
        assert SOC not in await bodies(http)
        for code in (SOC, "tractionbattery-colour", "location-preciselocation"):
            answer = await http.get(f"{SIGNALS}/{code}")
            assert answer.status_code == 404
        cloud.cars["v-1"].signals = frozenset({LIMITS})
        assert set(await bodies(http)) == {LIMITS}


async def test_a_store_that_nobody_feeds_is_empty_without_an_error():
    cloud, clock = a_cloud(a_car(feed="never"))
    clock.advance(3600)
    async with driver(cloud) as http:
        page = await http.get(SIGNALS)
        assert (page.status_code, page.json()["data"]) == (200, [])
        assert (await http.get(f"{SIGNALS}/{SOC}")).status_code == 404


async def test_a_car_without_subscription_is_a_day_old():
    cloud, clock = a_cloud(a_car(feed="daily"))
    for hours, age_h in ((23, 23), (2, 1)):
        clock.advance(hours * 3600)
        cloud.settle()
        report = cloud.cars["v-1"].report
        assert report is not None
        assert (clock.now() - report.at).total_seconds() / 3600 == age_h


async def test_a_missing_permission_is_an_error_in_the_list_and_403_alone():
    cloud, _ = a_cloud(a_car(permissions=PERMISSIONS - {"read_charge"}))
    async with driver(cloud) as http:
        rows = (await http.get(f"{SIGNALS}?page[size]=100")).json()["data"]
        limits = next(row["attributes"] for row in rows if row["id"] == LIMITS)
        assert limits["status"]["error"]["type"] == "PERMISSION"
        assert "body" not in limits
        assert (await http.get(f"{SIGNALS}/{LIMITS}")).status_code == 403


@pytest.mark.parametrize(
    ("form", "values", "active"),
    [
        ("both", [("GLOBAL", 80)], 80),
        ("active-only", [], 80),
        ("values-only", [("GLOBAL", 80)], None),
        ("lower-case", [("global", 80)], 80),
    ],
)
async def test_charge_limit_comes_in_every_form_seen(form, values, active):
    cloud, _ = a_cloud(a_car(limit_form=form))
    async with driver(cloud) as http:
        body = (await one(http, LIMITS))["attributes"]["body"]
    assert [(row["type"], row["limit"]) for row in body["values"]] == values
    assert body["activeLimit"] == active


async def test_units_follow_the_header_and_may_be_spelt_otherwise():
    cloud, _ = a_cloud(a_car(range_full_km=450.0), limits=FREE)
    code = "tractionbattery-range"
    async with driver(cloud) as http:
        assert (await one(http, code))["attributes"]["body"] == {
            "value": 243.0,
            "unit": "km",
        }
        miles = (await one(http, code, **{"sc-unit-system": "imperial"}))["attributes"][
            "body"
        ]
        assert miles == {"value": 151.0, "unit": "miles"}
        cloud.units[code] = "kilometers"
        assert (await one(http, code))["attributes"]["body"]["unit"] == "kilometers"
        wrong = await http.get(SIGNALS, headers={"sc-unit-system": "nautical"})
        assert wrong.status_code == 400


async def test_a_single_signal_may_come_unwrapped():
    cloud, _ = a_cloud(a_car())
    cloud.wraps_signal = False
    async with driver(cloud) as http:
        assert (await http.get(f"{SIGNALS}/{SOC}")).json()["id"] == SOC


def test_what_is_stored_lags_behind_by_the_pace_of_the_make():
    cloud, clock = a_cloud(a_car(make="Renault", report_s=None))
    car = cloud.cars["v-1"]
    ages = []
    for _ in range(90):
        clock.advance(60)
        cloud.settle()
        assert car.report is not None
        ages.append((clock.now() - car.report.at).total_seconds() / 60)
    assert max(ages) == REPORT_MINUTES["RENAULT"] - 1
    assert ages.count(0) == 2


def test_a_plug_is_told_within_a_minute_and_an_idle_car_falls_silent():
    cloud, clock = a_cloud(a_car(body={"is_plugged": False}))
    car = cloud.cars["v-1"]
    clock.advance(1900)
    cloud.settle()
    fell_asleep = car.is_asleep
    assert car.report is not None
    last = car.report.at
    clock.advance(86_400)
    cloud.settle()
    assert car.report.at == last
    plain(car).is_plugged = True
    cloud.settle()
    assert (fell_asleep, car.is_asleep) == (True, False)
    told = [car.report.is_plugged]
    clock.advance(60)
    cloud.settle()
    told.append(car.report.is_plugged)
    assert told == [False, True]
    assert car.report.at == clock.now()


def test_a_charge_that_begins_again_is_added_up_from_zero():
    cloud, clock = a_cloud(a_car())
    car = cloud.cars["v-1"]
    clock.advance(3600)
    cloud.settle()
    assert car.energy_added_wh == pytest.approx(11_000)
    plain(car).is_plugged = False
    cloud.settle()
    plain(car).is_plugged = True
    cloud.settle()
    assert car.energy_added_wh == 0


def test_coarse_reports_of_the_state_of_charge_are_rounded_down():
    cloud, clock = a_cloud(a_car(soc_step=10.0))
    car = cloud.cars["v-1"]
    assert car.report is not None
    assert car.report.soc_percent == 50.0
    clock.advance(3600)
    cloud.settle()
    assert car.body.soc_percent == pytest.approx(68.7, abs=0.1)
    assert car.report.soc_percent == 60.0


def test_the_charge_limit_stops_the_car_and_it_reports_full():
    cloud, clock = a_cloud(a_car(body={"limit_percent": 60.0}))
    clock.advance(4 * 3600)
    cloud.settle()
    car = cloud.cars["v-1"]
    assert car.body.soc_percent == 60.0
    assert not car.is_charging
    assert car.report is not None
    assert car.report.state == "FULLY_CHARGED"
    assert car.report.at > START
