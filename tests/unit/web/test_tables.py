"""``status`` and ``stations`` on a terminal: SoC, its source, and proof of each limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app, ask
from agent.cli.base import out

Json = dict[str, Any]


def evse(evse_id: int, session_id: str | None, state: str | None, **more: Any) -> Json:
    watts = 22_000.0 if session_id else None
    return {
        "evse_id": evse_id,
        "status": "Charging" if session_id else "Available",
        "session_id": session_id,
        "vehicle_id": f"bus-{evse_id}" if session_id else None,
        "power_w": watts or 0.0,
        "limit_w": {"planned": watts, "confirmed": watts, "state": state},
        "outlook": None,
    } | more


def outlook(expected: float, *, at_risk: bool) -> Json:
    return {
        "departs_at": "2026-03-03T05:10:00Z",
        "target_soc": 90.0,
        "expected_soc": expected,
        "at_risk": at_risk,
    }


def answers() -> dict[str, Any]:
    evses = [
        evse(1, "S1", "verified", outlook=outlook(91.0, at_risk=False)),
        evse(2, "S2", "violated", outlook=outlook(61.0, at_risk=True)),
        evse(3, None, None),
    ]
    station = {"station_id": "CP-01", "connected": True, "ocpp_version": "2.0.1"}
    sessions = [
        {"session_id": "S1", "mac": None, "soc_now": 64.4, "soc_source": "smartcar"},
        {"session_id": "S2", "mac": None, "soc_now": 30.0, "soc_source": "station"},
    ]
    return {
        "/api/v1/status": {
            "site": "North depot",
            "drawn_grid_w": 44_000,
            "cap_w": 360_000.0,
            "stations": 2,
            "stations_connected": 1,
            "sessions_charging": 2,
            "sessions_open": 2,
            "clouds": [{"cloud": "chargeye", "reachable": False, "error": "HTTP [503]"}],
            "not_following": ["CP-01/2"],
        },
        "/api/v1/stations": [
            station | {"model": "Fast [red] One", "evses": evses},
            station
            | {"station_id": "CP-02", "connected": False, "model": None}
            | {"evses": [evse(1, None, None)]},
        ],
        "/api/v1/sessions": sessions,
        "/api/v1/outbox": [{"destination": "chargeye", "pending": 3, "dead": 2}],
    }


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command against a daemon that gives these answers."""
    found = answers()

    def asked(config: Path | None, method: str, path: str) -> tuple[int, Any]:
        return 200, found[path.partition("?")[0]]

    monkeypatch.setattr(ask, "ask_daemon", asked)
    monkeypatch.setattr(out, "width", 160)

    def run(*words: str) -> list[str]:
        answer = CliRunner().invoke(app, list(words))
        assert answer.exit_code == 0, answer.output
        return answer.stdout.splitlines()

    return run


def line_of(lines: list[str], begin: str) -> str:
    return next(line.strip() for line in lines if line.strip().startswith(begin))


def test_stations_show_soc_with_its_source_and_proof(shown: Any) -> None:
    lines = shown("stations")

    assert "64 % car" in line_of(lines, "CP-01/1")
    assert line_of(lines, "CP-01/1").endswith("verified")
    assert "30 % " in line_of(lines, "CP-01/2")
    assert line_of(lines, "CP-01/2").endswith("violated")
    assert "%" not in line_of(lines, "CP-01/3")
    assert "offline" in line_of(lines, "CP-02/1")


def test_what_a_station_calls_itself_is_shown_as_it_is(shown: Any) -> None:
    assert "Fast [red] One" in line_of(shown("stations"), "CP-01/1")


def test_status_tells_what_is_wrong_and_every_vehicle_in_one_line(shown: Any) -> None:
    lines = shown("status")

    assert "away: HTTP [503]" in line_of(lines, "cloud chargeye")
    assert "3 pending, 2 dead" in line_of(lines, "outbox chargeye")
    assert "CP-02" in line_of(lines, "stations away")
    assert line_of(lines, "limits:") == "limits: 1 verified, 1 violated"
    assert "64 % car" in line_of(lines, "CP-01/1")
    assert line_of(lines, "CP-01/1").endswith("91 % of 90 %")
    assert line_of(lines, "CP-01/2").endswith("61 % of 90 %")
    assert not [line for line in lines if line.strip().startswith("CP-01/3")]
