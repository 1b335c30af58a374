"""What the report at the end of a demo promises its reader."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from agent.web.report import POINTS_DRAWN_MAX, Report, VehicleLine, render_report

START = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
VOID = {"meta", "link", "br"}
HOSTILE = "<script>alert('x')</script>\"&"


class Reader(HTMLParser):
    """Keeps the text, the tags, and whatever is not closed as it was opened."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.faults: list[str] = []
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        del attrs
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words += data


def read(report: Report) -> Reader:
    reader = Reader()
    reader.feed(render_report(report))
    reader.close()
    return reader


def points(*watts: float) -> tuple[tuple[datetime, float], ...]:
    return tuple((START + timedelta(minutes=5 * i), w) for i, w in enumerate(watts))


def a_line(**changes) -> VehicleLine:
    values: dict[str, Any] = {
        "vehicle_id": "bus-1",
        "name": "Bus 101",
        "outlet": "CP-01/1",
        "ocpp_version": "1.6",
        "plugged_at": START,
        "unplugged_at": START + timedelta(hours=1),
        "planned_wh": 40_000.0,
        "drawn_wh": 39_100.0,
        "planned_peak_w": 60_000.0,
        "drawn_peak_w": 59_200.0,
        "soc_start": 31.0,
        "soc_end": 79.6,
        "soc_target": 80.0,
        "worst_over_w": 0.0,
        "kept": True,
        "note": "",
        "planned": points(60_000.0, 0.0, 40_000.0),
        "drawn": points(59_200.0, 59_000.0, 0.0, 39_000.0),
    }
    return VehicleLine(**(values | changes))


def a_report(**changes) -> Report:
    values: dict[str, Any] = {
        "title": "North depot",
        "started_at": START,
        "ended_at": START + timedelta(hours=2),
        "cap_w": 200_000.0,
        "stations": 4,
        "vehicles": (a_line(),),
        "peak_w": 171_400.0,
        "peak_at": START + timedelta(minutes=10),
        "total": points(0.0, 120_000.0, 171_400.0, 90_000.0),
        "verdicts": (("every plan was kept", True), ("the cap held", True)),
    }
    return Report(**(values | changes))


def test_a_run_that_kept_everything_says_so_first():
    words = read(a_report()).words

    assert "✓ Kept: 1 plan, and the cap never passed" in words
    assert "Not kept" not in words


def test_a_failed_verdict_makes_the_whole_run_not_kept():
    words = read(a_report(verdicts=(("the clouds got all records", False),))).words

    assert "✗ Not kept" in words
    assert "the clouds got all records: no" in words


def test_the_vehicle_that_was_not_kept_is_named_with_its_outlet_and_reason():
    late = a_line(
        name="Truck 7", outlet="CP-03/1", kept=False, note="drew 4 kW above its limit"
    )

    words = read(a_report(vehicles=(a_line(), late))).words

    sentence = "Truck 7 at CP-03/1 did not keep its plan: drew 4 kW above its limit"
    assert "✗ Not kept: 1 of 2 plans" in words
    assert sentence in words
    assert "Bus 101 at CP-01/1 did not keep" not in words


def test_a_peak_above_the_cap_is_not_kept_when_nobody_judged_it():
    words = read(a_report(peak_w=203_500.0, verdicts=())).words

    assert "✗ Not kept: the cap was passed" in words
    assert "The peak, at 18:10 UTC, was 3.5 kW above the cap" in words


def test_a_peak_above_the_cap_is_told_even_when_the_verdict_allows_it():
    words = read(a_report(peak_w=200_600.0)).words

    assert "✓ Kept: 1 plan" in words
    assert "never passed" not in words
    assert "was 0.6 kW above the cap" in words


def test_a_peak_exactly_at_the_cap_is_kept():
    assert "✓ Kept" in read(a_report(peak_w=200_000.0)).words


def test_a_vehicle_without_a_name_is_called_by_its_id():
    assert "bus-1 CP-01/1" in read(a_report(vehicles=(a_line(name=""),))).words


def test_numbers_carry_their_units():
    words = read(a_report()).words

    for shown in ("171.4 kW", "39.1 kWh", "40.0 kWh", "31 % → 80 %", "target 80 %"):
        assert shown in words


def test_hostile_text_stays_text():
    line = a_line(
        vehicle_id=HOSTILE,
        name=HOSTILE,
        outlet=HOSTILE,
        ocpp_version=HOSTILE,
        note=HOSTILE,
        kept=False,
    )
    reader = read(a_report(title=HOSTILE, vehicles=(line,), verdicts=((HOSTILE, False),)))

    assert "script" not in reader.tags
    assert HOSTILE in reader.words
    assert reader.faults == []


def test_every_tag_is_closed_in_order():
    reader = read(a_report(vehicles=(a_line(), a_line(kept=False, note="late"))))

    assert reader.faults == []
    assert reader.open == []


def test_the_page_needs_nothing_from_outside():
    assert read(a_report()).links == ["data:,"]


def test_each_vehicle_has_a_chart_beside_that_of_the_whole_site():
    reader = read(a_report(vehicles=(a_line(), a_line(), a_line())))

    assert reader.tags.count("svg") == 4


def test_empty_series_and_unknown_values_are_shown_as_such():
    line = a_line(
        planned=(),
        drawn=(),
        unplugged_at=None,
        soc_start=None,
        soc_end=None,
        soc_target=None,
    )
    reader = read(a_report(vehicles=(line,), total=(), peak_w=0.0, peak_at=None))

    assert "No values were recorded." in reader.words
    assert "not known → not known" in reader.words
    assert reader.faults == []


def test_a_run_without_vehicles_proves_nothing():
    report = a_report(
        vehicles=(), total=(), verdicts=(), cap_w=0.0, peak_w=0.0, ended_at=START
    )
    words = read(report).words

    assert "Nothing to judge: no vehicle took part" in words
    assert "Kept:" not in words


def test_one_single_point_is_enough_for_a_chart():
    line = a_line(planned=points(10_000.0), drawn=points(9_900.0), unplugged_at=START)
    reader = read(a_report(vehicles=(line,), total=points(9_900.0), ended_at=START))

    assert reader.tags.count("svg") == 2
    assert reader.faults == []


def test_a_long_night_gives_a_small_page_that_still_shows_its_highest_moment():
    second = timedelta(seconds=1)
    watts = [50_000.0] * 36_000
    watts[20_001] = 180_000.0
    total = tuple((START + i * second, w) for i, w in enumerate(watts))
    night = a_report(total=total, ended_at=total[-1][0], peak_w=180_000.0)
    calm = replace(night, total=points(50_000.0))

    page = render_report(night)

    lowest_drawn_y = min(float(y) for y in _ys(page, "drawn line"))
    assert len(page) < len(render_report(calm)) + POINTS_DRAWN_MAX * 30
    assert lowest_drawn_y < min(float(y) for y in _ys(render_report(calm), "drawn line"))


def _ys(page: str, kind: str) -> list[str]:
    path = page.split(f'class="{kind}" d="M', 1)[1].split('"', 1)[0]
    return [point.split(" ")[1] for point in path.split("L")]
