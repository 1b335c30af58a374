"""Sessions leave the daemon as CSV and JSON lines, whole, once, and harmless."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.cli.export import cell
from agent.control.depot import Depot, Policy
from agent.control.export import COLUMNS, SessionExport
from agent.control.operations import OperationRefused
from agent.domain.effects import SessionSaved
from agent.domain.ids import ConnectorId, EvseId, SessionId, StationId
from agent.domain.meter import MeterState
from agent.domain.plan import AfterPlan
from agent.domain.session import Session, SessionPhase
from agent.domain.station import StationState
from agent.store.sqlite import SqliteStore
from tests.support.daemon_process import DaemonProcess

START = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
LONELY = '[site]\ncap_kw = 100.0\n[ocpp]\nhost = "127.0.0.1"\nport = OCPP_PORT\n'


def session(number: int, **more: object) -> Session:
    values: dict[str, object] = {
        "session_id": SessionId(f"S{number:04d}"),
        "station_id": StationId("CP-01"),
        "evse_id": EvseId(1),
        "connector_id": ConnectorId(1),
        "ocpp_version": "ocpp1.6",
        "plugged_at": START + timedelta(minutes=number // 2),
        "ended_at": START + timedelta(minutes=number, hours=1),
        "phase": SessionPhase.ENDED,
        "vin": "YK900000000000101",
        "id_token": '=HYPERLINK("http://x","y")',
        "anomalies": ("one", "two"),
        "meter": MeterState(
            energy_wh=1234.5, soc_first=20.0, soc_percent=80.5, soc_at=START
        ),
    }
    return Session(**(values | more))  # type: ignore[arg-type]


async def filled(path: Path, items: list[Session]) -> None:
    store = SqliteStore(path)
    store.start()
    records = [SessionSaved(session=item) for item in items]
    await store.commit(records, START)
    await store.stop()


def export(daemon: DaemonProcess, *more: str) -> Result:
    command = ["export", "sessions", *more, "--config", str(daemon.config_path)]
    return CliRunner().invoke(app, command)


async def test_the_command_writes_both_formats_within_the_range(tmp_path: Path) -> None:
    await filled(tmp_path / "agent.db", [session(number) for number in range(700)])
    daemon = DaemonProcess(tmp_path, LONELY)
    daemon.start()
    out = tmp_path / "out.csv"
    try:
        done = export(daemon, "--output", str(out))
        lines = export(
            daemon,
            *("--format", "jsonl"),
            *("--from", "2026-01-15T19:00:00+01:00", "--to", "2026-01-15T18:01:00Z"),
        )
        nowhere = export(daemon, "--output", str(tmp_path / "no" / "x.csv"))
    finally:
        daemon.stop()
    table = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))

    assert done.exit_code == 0, done.stderr
    assert nowhere.exit_code == 1
    assert "cannot be written" in nowhere.stderr
    assert "700 sessions written" in done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    assert [row["session_id"] for row in table] == [f"S{n:04d}" for n in range(700)]
    assert list(table[0]) == list(COLUMNS)
    assert table[0]["energy_wh"] == "1234.5"
    assert (table[0]["soc_start"], table[0]["soc_end"]) == ("20.0", "80.5")
    assert (table[0]["anomalies"], table[0]["vin"]) == ("2", "YK900000000000101")
    assert table[0]["id_token"].startswith("'=")
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [row["session_id"] for row in rows] == ["S0000", "S0001"]
    assert rows[0]["anomalies"] == ["one", "two"]
    assert rows[0]["id_token"].startswith("=")


async def test_an_open_session_is_exported_as_it_is_in_memory(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    store.start()
    stored = session(1, phase=SessionPhase.CHARGING, ended_at=None)
    await store.commit([SessionSaved(session=stored)], START)
    policy = Policy(
        cap_w=1,
        efficiency=1,
        unmatched_w=1,
        unplanned_w=1,
        after_plan=AfterPlan.PAUSE,
        plan_max_age=timedelta(days=1),
    )
    newer = session(
        1, phase=SessionPhase.CHARGING, ended_at=None, meter=MeterState(energy_wh=9000.0)
    )
    state = StationState(
        station_id=newer.station_id, rated_w=1, sessions={newer.session_id: newer}
    )
    depot = Depot(policy=policy, traits={}, states={newer.station_id: state})
    page = await SessionExport(depot, store).page({})
    with pytest.raises(OperationRefused, match="after"):
        await SessionExport(depot, store).page({"after": "x"})
    with pytest.raises(OperationRefused, match="2026-01-15"):
        await SessionExport(depot, store).page({"from": "yesterday"})
    await store.stop()

    assert isinstance(page, dict)
    assert page["rows"][0]["columns"]["energy_wh"] == 9000.0
    assert page["next"] is None


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r\n=1", "\uff1d1"])
def test_no_text_is_taken_for_a_formula(text: str) -> None:
    assert str(cell(text)).startswith("'")


def test_numbers_stay_numbers_and_plain_texts_stay_as_they_are() -> None:
    assert [cell(item) for item in (-5.5, 0, None, "CP-01")] == [-5.5, 0, "", "CP-01"]


def test_the_readme_names_the_columns_in_their_order() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = text[text.index("Columns of the CSV") :]
    places = [told.index(f"`{name}`") for name in COLUMNS]

    assert places == sorted(places)
