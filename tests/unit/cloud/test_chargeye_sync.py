"""A synchronisation foretold: what 6.6 would do, from a view that is the whole truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from agent.cloud.chargeye_rows import ActiveRead, SlotsRead, read_slot, read_slots
from agent.cloud.chargeye_sync import (
    differences,
    missing,
    plan_sync,
    same_slot,
    why_partial,
)
from agent.standin.schedules import ScheduleBook
from tests.support.properties import examples

from .conftest import NOW

BUS = "bus-1"
quick = examples(150)


def at(hours: float) -> str:
    moment = NOW + timedelta(hours=hours)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def a_row(start_h: float, end_h: float, **more: Any) -> dict[str, Any]:
    return {
        "locationUid": "loc-1",
        "plannedArrivalTime": at(start_h),
        "plannedDepartureTime": at(end_h),
        "targetSoC": 80,
        **more,
    }


def view(*rows: dict[str, Any]) -> SlotsRead:
    return read_slots({"schedules": [{"evId": BUS, **row} for row in rows]})


NOBODY = ActiveRead(current_or_next=None, previous=None)
EMPTY = SlotsRead(slots=())


# --- foretold and done ----------------------------------------------------------------------


def test_the_four_cases_of_the_reference() -> None:
    """6.6: unknown, known and equal, known and different, known and left out."""
    known = view(
        a_row(1, 5, id="same"),
        a_row(10, 15, id="other", targetSoC=60),
        a_row(20, 25, id="gone"),
        a_row(-9, -2, id="departed"),
    ).slots
    posted = [a_row(1, 5), a_row(11, 15), a_row(30, 35)]

    plan = plan_sync(known, posted, NOW, vehicle_id=BUS)

    assert [slot.schedule_id for slot in plan.unchanged] == ["same"]
    assert [(u.slot.schedule_id, set(u.fields)) for u in plan.updated] == [
        ("other", {"plannedArrivalTime", "targetSoC"})
    ]
    assert plan.created == (posted[2],)
    assert [slot.schedule_id for slot in plan.deleted] == ["gone"]
    assert not plan.is_done


@pytest.mark.parametrize("hours", [(-2, 3), (-3, -0.1)])
def test_a_running_slot_and_one_that_just_ended_are_taken_for_a_posted_running_one(
    hours: tuple[float, float],
) -> None:
    known = view(a_row(*hours, id="it")).slots

    plan = plan_sync(known, [a_row(-1, 4)], NOW, vehicle_id=BUS)

    assert [item.slot.schedule_id for item in plan.updated] == ["it"]
    assert not plan.created
    assert not plan.deleted


def test_the_running_slot_is_deleted_when_it_is_left_out() -> None:
    known = view(a_row(-1, 4, id="runs")).slots

    plan = plan_sync(known, [], NOW, vehicle_id=BUS)

    assert [slot.schedule_id for slot in plan.deleted] == ["runs"]


def test_two_running_slots_are_told_apart_by_their_departure_only() -> None:
    known = view(a_row(-2, 3, id="one"), a_row(-1, 5, id="two")).slots

    plan = plan_sync(known, [a_row(-2, 5)], NOW, vehicle_id=BUS)
    with pytest.raises(ValueError, match="one, two"):
        plan_sync(known, [a_row(-2, 4)], NOW, vehicle_id=BUS)

    assert [item.slot.schedule_id for item in plan.updated] == ["two"]


slot_hours = st.tuples(st.integers(-30, 30), st.integers(1, 12)).map(
    lambda pair: (pair[0] / 2, pair[0] / 2 + pair[1] / 2)
)
rows = st.lists(
    st.builds(
        lambda hours, target: a_row(*hours, targetSoC=target),
        slot_hours,
        st.sampled_from([60, 80]),
    ),
    max_size=6,
    unique_by=lambda row: row["plannedDepartureTime"],
)


@quick
@given(known=rows, posted=rows)
def test_what_is_foretold_is_what_the_stand_in_does(
    known: list[dict[str, Any]], posted: list[dict[str, Any]]
) -> None:
    """Two readings of 6.6, written apart: nothing is deleted that was not announced."""
    book = ScheduleBook()
    for number, row in enumerate(known):
        book.load({"id": f"s-{number}", "evId": BUS, **row})
    before = set(book.entries)
    seen = view(*(entry.row for entry in book.of_vehicle(BUS))).slots
    try:
        plan = plan_sync(seen, posted, NOW, vehicle_id=BUS)
    except ValueError:
        reject()

    written = book.post(BUS, posted, NOW, replaces=True)

    assert set(written.removed) == {slot.schedule_id for slot in plan.deleted}
    assert set(written.ids) & before == {
        *(item.slot.schedule_id for item in plan.updated),
        *(slot.schedule_id for slot in plan.unchanged),
    }
    assert len(set(written.ids) - before) == len(plan.created)
    after = view(*(entry.row for entry in book.of_vehicle(BUS))).slots
    assert plan_sync(after, posted, NOW, vehicle_id=BUS).is_done


@quick
@given(known=rows, posted=rows)
def test_the_mark_is_of_this_view_and_this_wish(
    known: list[dict[str, Any]], posted: list[dict[str, Any]]
) -> None:
    slots = view(*({"id": f"s-{n}", **row} for n, row in enumerate(known))).slots

    def mark(seen: Any, wish: Any, name: str = BUS) -> str:
        return plan_sync(seen, wish, NOW, vehicle_id=name).mark

    try:
        own = mark(slots, posted)
    except ValueError:
        reject()
    assert own == mark(tuple(reversed(slots)), posted)
    assert own != mark(slots, [*posted, a_row(100, 101)])
    assert own != mark(slots, posted, "bus-2")
    if slots:
        moved = [read_slot({**slots[0].row, "targetSoC": 1}), *slots[1:]]
        assert own != mark(moved, posted)
        assert own != mark([*slots, read_slot(a_row(-50, -40, id="more"))], posted)


def test_a_plan_that_ages_leaves_the_mark() -> None:
    """Segments move to pastSegments by themselves."""
    row = a_row(1, 5, id="s")
    fresh = view(row | {"plan": {"segments": [1, 2]}}).slots
    later = view(row | {"plan": {"pastSegments": [1], "segments": [2]}}).slots

    marks = [plan_sync(seen, [], NOW, vehicle_id=BUS).mark for seen in (fresh, later)]

    assert marks[0] == marks[1]


# --- the whole truth ------------------------------------------------------------------------


def why(own: SlotsRead, place: SlotsRead = EMPTY, active: ActiveRead = NOBODY) -> str:
    return why_partial(BUS, own, place, active) or ""


def test_a_view_that_all_lists_agree_with_is_whole() -> None:
    own = view(a_row(1, 5, id="a"), a_row(-9, -2, id="b"))
    active = ActiveRead(current_or_next=read_slot({"id": "a", "evId": BUS}), previous=None)

    assert why(own, view(a_row(1, 5, id="a")), active) == ""
    assert why(own, view(a_row(1, 5, id="x") | {"evId": "bus-2"})) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"schedules": [{"evId": BUS}]}, "without an id"),
        ({"schedules": [{"id": "a", "evId": BUS}]}, "times of schedule a"),
        ({"schedules": [a_row(1, 2, id="a"), "x"]}, "without an id"),
        ({"schedules": [a_row(1, 2, id="a"), a_row(3, 4, id="a")]}, "twice"),
        ({"schedules": [a_row(1, 2, id="a", evId="bus-2")]}, "bus-2"),
        ({"schedules": [], "lastEvaluatedKey": {"id": 1}}, "another page"),
    ],
)
def test_a_list_with_a_hole_is_partial(body: Any, words: str) -> None:
    assert words in why(read_slots(body))


def test_a_schedule_that_another_list_shows_makes_the_view_partial() -> None:
    """A hidden default range of time would look like this."""
    own, more = view(a_row(1, 5, id="a")), view(a_row(50, 55, id="far"))
    active = ActiveRead(current_or_next=read_slot({"id": "now"}), previous=None)

    assert "far" in why(own, more)
    assert "now" in why(own, EMPTY, active)


# --- what is lacking after a lost answer ----------------------------------------------------


@quick
@given(posted=rows, taken=st.sets(st.integers(0, 5)))
def test_only_what_did_not_arrive_is_missing(
    posted: list[dict[str, Any]], taken: set[int]
) -> None:
    came = [row for number, row in enumerate(posted) if number in taken]
    known = view(*({"id": f"s-{n}", **row} for n, row in enumerate(came))).slots

    lacking = missing(known, posted)

    assert lacking == [row for row in posted if row not in came]


def test_two_equal_wishes_need_two_schedules() -> None:
    known = view(a_row(1, 2, id="one")).slots

    assert missing(known, [a_row(1, 2), a_row(1, 2)]) == [a_row(1, 2)]


def test_an_instant_is_the_same_however_it_is_written() -> None:
    moment = datetime(2026, 1, 16, 2, 0, tzinfo=UTC)
    row = {"plannedArrivalTime": "2026-01-16T02:00:00.000Z", "targetSoC": 80.0}
    wish = {"plannedArrivalTime": moment.isoformat(), "targetSoC": 80}

    assert differences(row, wish) == {}
    assert differences(row, {"startSoC": 0}) == {"startSoC": (None, 0)}


def test_a_template_is_no_slot_of_the_same_times() -> None:
    (slot,) = view(a_row(1, 2, id="dated")).slots

    assert same_slot(slot, a_row(1, 2))
    assert not same_slot(slot, a_row(1, 2, recurrenceRule="FREQ=DAILY"))
