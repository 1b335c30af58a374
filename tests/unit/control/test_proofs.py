"""Composite schedules as witnesses: asked sparsely, believed less than the meter."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from agent.control import views
from agent.domain import events
from agent.domain.curve import constant
from agent.domain.meter import MeterReading
from agent.ports import Answer, CompositeAnswer
from tests.unit.control.test_installed_limits import CP, ONE, TX, Site

OWN_W = 20_000.0
"""What policy gives a vehicle that nobody recognised."""


def says(watts: float | None) -> CompositeAnswer:
    allows = None if watts is None else constant(watts)
    return CompositeAnswer(answer=Answer.ACCEPTED, allows=allows)


async def draws(site: Site, power_w: float, offered_w: float | None = None) -> None:
    reading = MeterReading(at=site.clock.at, power_w=power_w, offered_w=offered_w)
    await site.say(events.MeterSampled(evse_id=ONE, transaction_id=TX, readings=(reading,)))


async def after(site: Site, minutes: int, power_w: float, **more: Any) -> None:
    """Let minutes pass, with a meter value in each."""
    for _ in range(minutes):
        site.clock.at += timedelta(seconds=60)
        await draws(site, power_w, **more)
        await site.passes()


def limit(site: Site) -> dict[str, Any]:
    (row,) = views.stations(site.depot, site.clock.at, lambda _: None)
    evses: Any = row["evses"]
    return dict(evses[0]["limit_w"])


async def test_a_station_is_asked_once_where_the_vehicle_draws_less() -> None:
    site = Site()
    site.orders.says = says(OWN_W)
    async with site.working():
        await site.plug()
        await site.passes()
        early = limit(site)
        await after(site, 1, 0.0)
        too_soon = list(site.orders.asked)
        await after(site, 12, 3000.0)
        witness = site.depot.witnesses[CP, ONE]

    assert (early["state"], early["proof"]) == ("accepted", "answer")
    assert too_soon == []
    assert site.orders.asked == [ONE]
    assert witness.agrees is True


async def test_the_levels_climb_from_an_answer_to_a_measurement() -> None:
    site = Site()
    site.orders.says = says(OWN_W)
    async with site.working():
        await site.plug()
        await site.passes()
        answered = limit(site)["proof"]
        await site.passes(100)
        told = limit(site)["proof"]
        await draws(site, 19_000.0)
        measured = limit(site)

    assert (answered, told) == ("answer", "composite")
    assert (measured["state"], measured["proof"]) == ("verified", "measured")
    assert measured["verified"] is True


async def test_an_offer_within_the_limit_needs_no_question() -> None:
    site = Site()
    site.orders.says = says(OWN_W)
    async with site.working():
        await site.plug()
        await site.passes()
        site.clock.at += timedelta(seconds=30)
        await draws(site, 3000.0, offered_w=OWN_W)
        offered = limit(site)["proof"]
        await after(site, 5, 3000.0, offered_w=OWN_W)

    assert offered == "offered"
    assert site.orders.asked == []


async def test_power_at_the_limit_needs_no_question_either() -> None:
    site = Site()
    site.orders.says = says(150_000.0)
    async with site.working():
        await site.plug()
        await after(site, 10, 19_500.0)

    assert site.orders.asked == []


async def test_a_schedule_that_allows_more_is_a_violation_and_moves_the_ladder() -> None:
    site = Site()
    site.orders.says = says(150_000.0)
    with structlog.testing.capture_logs() as logs:
        async with site.working():
            await site.plug()
            await site.passes()
            await site.passes(100)
            seen = limit(site)
            site.orders.says = says(OWN_W)
            await after(site, 7, 3000.0)
            healed = limit(site)

    (told,) = [row for row in logs if row["event"] == "limit_contradicted"]
    assert "150.0 kW at a limit of 20.0 kW" in told["reason"]
    assert (seen["state"], seen["verified"]) == ("violated", False)
    assert [row["rung"] for row in logs if row["event"] == "ladder_moved"] == ["relative"]
    assert len({profile.starts_at is None for _, profile, _ in site.orders.sent}) == 2
    assert healed["state"] == "verified"
    assert not [row for row in logs if row["event"] == "outlet_fenced"]


async def test_a_model_that_says_so_in_every_form_is_no_witness() -> None:
    """VER-05: after three forms the old one is back, and it is never asked again."""
    site = Site()
    site.orders.says = says(150_000.0)
    with structlog.testing.capture_logs() as logs:
        async with site.working():
            await site.plug()
            await after(site, 60, 3000.0)
            asked = len(site.orders.asked)
            end = limit(site)
            await after(site, 20, 3000.0)
        site.orders.asked.clear()
        async with site.working():
            site.depot.witnesses.clear()
            await after(site, 10, 3000.0)

    names = [row["event"] for row in logs]
    assert names.count("composite_distrusted") == 1
    assert "outlet_fenced" not in names
    assert asked == 4
    assert end["state"] == "verified"
    assert site.orders.asked == []
    assert site.depot.learned[0].rung == "plain"


async def test_power_that_shows_the_limit_ends_the_words_of_a_liar() -> None:
    """VER-06 the other way round: what is measured outranks what is said."""
    site = Site()
    site.orders.says = says(150_000.0)
    with structlog.testing.capture_logs() as logs:
        async with site.working():
            await site.plug()
            await site.passes()
            await site.passes(100)
            before = limit(site)["state"]
            await after(site, 3, 19_800.0)
            state = limit(site)["state"]

    assert before == "violated"
    assert state == "verified"
    assert "outlet_fenced" not in [row["event"] for row in logs]


async def test_a_form_that_power_has_proved_is_not_given_up_for_words() -> None:
    site = Site()
    site.orders.says = says(150_000.0)
    with structlog.testing.capture_logs() as logs:
        async with site.working():
            await site.plug()
            await after(site, 4, 19_800.0)
            await after(site, 10, 3000.0)
            state = limit(site)["state"]

    names = [row["event"] for row in logs]
    assert site.orders.asked == [ONE]
    assert state == "verified"
    assert "limit_contradicted" not in names
    assert "composite_distrusted" in names


async def test_a_station_without_composite_schedules_is_asked_once_a_day() -> None:
    site = Site()
    async with site.working():
        await site.plug()
        await after(site, 10, 3000.0)
        site.depot.witnesses.clear()
        await after(site, 10, 3000.0)
        first = limit(site)

    assert site.orders.asked == [ONE]
    assert first["proof"] == "measured"


async def test_a_schedule_that_names_no_limit_says_nothing() -> None:
    site = Site()
    site.orders.says = says(None)
    async with site.working():
        await site.plug()
        await site.passes()
        await site.passes(100)
        seen = limit(site)

    assert site.orders.asked == [ONE]
    assert (seen["state"], seen["proof"]) == ("accepted", "answer")


async def test_each_profile_that_is_written_is_counted_and_shown() -> None:
    """The safe default and the first limit; the next day begins at none."""
    site = Site()
    async with site.working():
        await site.plug()
        await site.passes()
        (row,) = views.stations(site.depot, site.clock.at, lambda _: None)
        tomorrow = site.clock.at + timedelta(days=1)
        (later,) = views.stations(site.depot, tomorrow, lambda _: None)

    assert row["limit_writes_today"] == 2
    assert later["limit_writes_today"] == 0
