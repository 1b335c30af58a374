"""What a station reports on both sides moves what it takes from the cap, for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from agent.control import views
from agent.control.depot import Depot
from agent.control.explain import Diary, explain
from agent.domain import events
from agent.domain.meter import MeterReading
from tests.unit.control.test_installed_limits import CP, ONE, TWO, TX, Site


async def night(site: Site, minutes: int, ratio: float, power_w: float = 50_000.0) -> None:
    """Both sides of outlet 1, once a minute."""
    for _ in range(minutes):
        site.clock.at += timedelta(seconds=60)
        reading = MeterReading(at=site.clock.at, power_w=power_w, inlet_w=power_w / ratio)
        await site.say(
            events.MeterSampled(evse_id=ONE, transaction_id=TX, readings=(reading,))
        )
        await site.passes()


def a_site() -> Site:
    """Its vehicles may draw 60 kW each without being known."""
    site = Site()
    site.depot.policy = replace(site.depot.policy, unmatched_w=60_000.0)
    return site


def shown(depot: Depot, site: Site) -> Any:
    (row,) = views.stations(depot, site.clock.at, lambda _: None)
    return row["efficiency"]


async def test_a_measured_loss_counts_for_the_cap_and_survives_a_restart() -> None:
    site = a_site()
    with structlog.testing.capture_logs() as logs:
        async with site.working():
            await site.plug()
            before = site.depot.grid_factor(CP)
            await night(site, 25, 0.90)
            told = explain(site.depot, Diary(), CP, ONE, site.clock.at)
    after = site.depot.grid_factor(CP)
    site.depot.efficiencies.clear()
    async with site.working():
        again = site.depot.grid_factor(CP)

    assert before == 1.0
    assert round(after, 3) == round(1 / 0.9, 3)
    assert round(again, 3) == round(1 / 0.9, 3)
    assert shown(site.depot, site) == {"used": 0.9, "configured": 1.0, "learned": 0.9}
    assert told is not None
    assert "efficiency of 0.900" in str(told["because"])
    assert [row["event"] for row in logs].count("efficiency_learned") == 1


async def test_while_another_outlet_charges_the_inlet_may_be_of_both() -> None:
    site = a_site()
    async with site.working():
        await site.plug()
        await site.plug(TWO, type(TX)("T-2"))
        await night(site, 30, 0.85)

    assert site.depot.efficiencies == {}


async def test_a_station_with_one_side_only_stays_as_configured() -> None:
    site = a_site()
    async with site.working():
        await site.plug()
        for _ in range(30):
            site.clock.at += timedelta(seconds=60)
            reading = MeterReading(at=site.clock.at, power_w=50_000.0)
            await site.say(
                events.MeterSampled(evse_id=ONE, transaction_id=TX, readings=(reading,))
            )
            await site.passes()

    assert shown(site.depot, site) == {"used": 1.0, "configured": 1.0, "learned": None}
