"""The command line as its users call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import DaemonProcess, free_port

LONELY = """
[site]
name = "Lonely depot"
cap_kw = 100.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
[[stations]]
id = "CP-01"
outlets = 2
[[stations]]
id = "CP-02"
"""


def run(*command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )


@pytest.mark.slow
def test_demo_keeps_every_plan_and_writes_its_report(tmp_path: Path) -> None:
    done = run(
        *("demo", "--stations", "3", "--minutes", "0.4", "--speed", "60"),
        *("--report", str(tmp_path)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every plan was kept." in done.stdout
    assert "never passed" in done.stdout
    assert "Bus 1" in (tmp_path / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "agent.log").read_text(encoding="utf-8").splitlines()
    assert all("timestamp" in json.loads(line) for line in lines)


@pytest.mark.slow
def test_demo_names_the_vehicle_at_a_station_that_ignores_its_profile(
    tmp_path: Path,
) -> None:
    done = run(
        *("demo", "--stations", "3", "--minutes", "0.35", "--speed", "60"),
        *("--fault", "CP-03=ignore-profiles", "--report", str(tmp_path)),
    )

    assert done.returncode == 1
    assert "not kept:" in done.stdout
    named = [line for line in done.stdout.splitlines() if line.startswith("not kept:")]
    assert any("at CP-03/" in line and "more than planned" in line for line in named)


@pytest.mark.slow
def test_daemon_serves_commands_pages_and_a_backup(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, LONELY)
    daemon.start()
    web = f"http://127.0.0.1:{daemon.web_port}"
    try:
        stations = daemon.ask("stations")
        status = daemon.ask("status")
        others = [daemon.ask(name) for name in ("sessions", "vehicles", "plans", "outbox")]
        table = daemon.run("stations")
        copy = daemon.run("backup", str(tmp_path / "copy.db"))
        call = daemon.run("call", "CP-01", "Reset", '{"type": "Soft"}')
        page = httpx.get(f"{web}/")
        codes = {
            path: httpx.get(f"{web}{path}").status_code
            for path in ("/healthz", "/readyz", "/metrics", "/api/v1/sessions/none")
        }
        refused = httpx.post(f"{web}/api/v1/stations/CP-01/call", json={"action": "Reset"})
        metrics = httpx.get(f"{web}/metrics").text
        code = daemon.stop()
    finally:
        daemon.stop()

    assert [row["station_id"] for row in stations] == ["CP-01", "CP-02"]
    assert [evse["evse_id"] for evse in stations[0]["evses"]] == [1, 2]
    assert stations[0]["connected"] is False
    assert set(stations[0]["evses"][0]["limit_w"]) == {
        *("planned", "allocated", "sent", "confirmed", "verified", "state", "proof")
    }
    assert status["cap_w"] == 100_000
    assert others == [[], [], [], []]
    assert "CP-01/2" in table.stdout
    assert copy.returncode == 0
    assert (tmp_path / "copy.db").read_bytes()[:6] == b"SQLite"
    assert call.returncode == 1
    assert "not connected" in call.stdout
    assert "<html" in page.text.lower()
    assert codes == {
        "/healthz": 200,
        "/readyz": 200,
        "/metrics": 200,
        "/api/v1/sessions/none": 404,
    }
    assert refused.status_code == 403
    assert "depot_agent_cap_w 100000.0" in metrics
    assert code == 0


def test_reload_applies_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, LONELY)
    daemon.start()
    try:
        assert daemon.process is not None
        text = daemon.config_path.read_text(encoding="utf-8")
        daemon.config_path.write_text(text.replace("cap_kw = 100.0", "cap_kw = 80.0"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: daemon.events("config_reloaded"))
        daemon.config_path.write_text(text.replace("cap_kw = 100.0", "cap_kw = 0"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: daemon.events("config_refused"))
        status = daemon.ask_web("/api/v1/status")
    finally:
        daemon.stop()

    assert status["cap_w"] == 80_000
    assert "site.cap_kw" in daemon.events("config_refused")[0]["reason"]


def test_d12_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, LONELY)
    daemon.start()
    try:
        second = daemon.run("run")
    finally:
        daemon.stop()

    assert second.returncode == 78
    assert "another depot-agent uses" in second.stderr


def test_taken_port_ends_the_daemon_with_one_clear_line(tmp_path: Path) -> None:
    first = DaemonProcess(tmp_path, LONELY)
    first.start()
    other = tmp_path / "other"
    other.mkdir()
    text = first.config_path.read_text(encoding="utf-8")
    text = text.replace(f"{tmp_path}/agent.db", f"{other}/agent.db")
    text = text.replace(f"port = {first.web_port}", f"port = {free_port()}")
    (other / "agent.toml").write_text(text, encoding="utf-8")
    try:
        done = run("run", "--config", str(other / "agent.toml"))
    finally:
        first.stop()

    assert done.returncode == 1
    assert "a port cannot be opened" in done.stderr


@pytest.mark.slow
def test_simulated_stations_charge_at_the_real_daemon(tmp_path: Path) -> None:
    config = LONELY + "\n[policy]\nunmatched_kw = 30.0\n"
    daemon = DaemonProcess(tmp_path, config)
    daemon.start()
    try:
        done = run(
            *("simulate", f"ws://127.0.0.1:{daemon.ocpp_port}/"),
            *("--stations", "2", "--vehicles", "2", "--speed", "60", "--minutes", "6"),
        )
        sessions = daemon.ask("sessions")
    finally:
        daemon.stop()

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(sessions) == 2
    assert all(row["match"] == "none" and row["energy_wh"] > 0 for row in sessions)


def test_standin_serves_chargeye_alone() -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "standin", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}/api/auth/refreshAccessToken"
    headers = {"Authorization": "Bearer standin-refresh-token"}
    try:
        answer = wait_for(lambda: get_or_none(url, headers))
    finally:
        process.terminate()
        process.communicate(timeout=10)

    assert answer.status_code == 200
    assert set(answer.json()) >= {"token", "validUntil"}


def get_or_none(url: str, headers: dict[str, str]) -> httpx.Response | None:
    try:
        return httpx.get(url, headers=headers)
    except httpx.TransportError:
        return None


def wait_for(look, timeout_s: float = 15):
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    ("command", "code"),
    [(["no-such-command"], 2), (["status", "--config", "/no/such/file"], 78)],
)
def test_h7_wrong_usage_and_missing_configuration_have_their_exit_codes(
    command: list[str], code: int
) -> None:
    assert run(*command).returncode == code
