"""Answers to GetCompositeSchedule as stations give them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.domain.capability import RateUnit
from agent.domain.ids import EvseId
from agent.ports import Answer
from agent.stations.composite import composite_call, read_composite
from agent.stations.link import CallOutcome
from tests.unit.domain.build import NOW, NOW_S

ONE = EvseId(1)


def read(payload: Any, code: str = "") -> Any:
    return read_composite(CallOutcome(payload, code, ""), phases=3, now=NOW)


def of16(unit: str, *periods: dict[str, Any], start: str = "") -> dict[str, Any]:
    schedule = {"chargingRateUnit": unit, "chargingSchedulePeriod": list(periods)}
    return {
        "status": "Accepted",
        "scheduleStart": start,
        "connectorId": 1,
        "chargingSchedule": schedule,
    }


def test_both_dialects_are_asked_in_their_words() -> None:
    assert composite_call("ocpp1.6", ONE, 3600, RateUnit.WATT) == {
        "connectorId": 1,
        "duration": 3600,
        "chargingRateUnit": "W",
    }
    assert composite_call("ocpp2.0.1", ONE, 3600, RateUnit.AMPERE)["evseId"] == 1


def test_periods_count_from_now_whatever_the_stations_clock_says() -> None:
    rows = ({"startPeriod": 0, "limit": 4666.7001953125}, {"startPeriod": 60, "limit": 0})
    found = read(of16("W", *rows, start="1970-01-01T00:00:00Z"))

    assert found.allows == ((NOW_S, 4666.7001953125), (NOW_S + 60, 0.0))


@pytest.mark.parametrize(("phases", "watts"), [({"numberPhases": 1}, 2300.0), ({}, 6900.0)])
def test_amperes_count_on_their_phases(phases: dict[str, int], watts: float) -> None:
    found = read(of16("A", {"startPeriod": 0, "limit": 10.0} | phases))

    assert found.allows == ((NOW_S, watts),)


def test_2x_has_its_schedule_under_another_name() -> None:
    period = {"startPeriod": 0, "limit": 9000.0}
    schedule = {"chargingRateUnit": "W", "chargingSchedulePeriod": [period]}
    found = read({"status": "Accepted", "schedule": schedule})

    assert found.allows == ((NOW_S, 9000.0),)


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "Accepted"},
        of16("W"),
        of16("W", {"startPeriod": 0, "limit": -1, "numberPhases": -1}),
        of16("W", {"startPeriod": 0}),
        of16("kW", {"startPeriod": 0, "limit": 11}),
        of16("W", {"startPeriod": 0, "limit": "11"}),
        {"status": "Accepted", "chargingSchedule": ["?"]},
    ],
)
def test_five_spellings_of_no_limit_say_nothing(payload: dict[str, Any]) -> None:
    found = read(payload)

    assert (found.answer, found.allows) == (Answer.ACCEPTED, None)


@pytest.mark.parametrize(
    ("payload", "code", "answer"),
    [
        ({"status": "Rejected"}, "", Answer.REFUSED),
        ({}, "", Answer.REFUSED),
        (None, "Timeout", Answer.SILENT),
        (None, "Offline", Answer.OFFLINE),
        (None, "NotSupported", Answer.ERROR),
    ],
)
def test_no_schedule_is_no_word_against_the_limit(
    payload: Any, code: str, answer: Answer
) -> None:
    found = read(payload, code)

    assert (found.answer, found.allows) == (answer, None)
