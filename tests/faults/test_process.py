"""faults.md section 3: the process and its host."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.faults.means import rounds
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation
from tests.support.yard import yard

LINKS = 100
HANGS_S = 8.0
"""Longer than the 5 s that the health check gives the writer."""
CONFIG = """
[site]
cap_kw = 9000.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
""" + "".join(
    f'\n[[stations]]\nid = "ST-{n:03}"\nmax_kw = 50.0\nfallback_kw = 5.0\n'
    for n in range(LINKS)
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, CONFIG)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.stop()


def _url(daemon: DaemonProcess, number: int = 0) -> str:
    return f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp/ST-{number:03}"


def _open(url: str) -> connect:
    return connect(
        url,
        subprotocols=[websockets.Subprotocol("ocpp1.6")],
        compression=None,
        proxy=None,
        open_timeout=5,
        close_timeout=2,
    )


async def _heartbeat(link: ClientConnection, message_id: str) -> None:
    await link.send(json.dumps([2, message_id, "Heartbeat", {}]))
    async with asyncio.timeout(10):
        while True:
            frame = json.loads(await link.recv())
            if frame[:2] == [3, message_id]:
                return
            if frame[0] == 2:
                await link.send(json.dumps([4, frame[1], "NotSupported", "", {}]))


class _Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.1)

    def words(self, wait_s: float) -> list[str]:
        """Datagrams that come within a time."""
        found: list[str] = []
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            with suppress(TimeoutError):
                found.append(self._socket.recv(4096).decode())
        return found

    def wait_for(self, word: str, wait_s: float) -> bool:
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            if any(word in text for text in self.words(0.1)):
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Systemd]:
    found = _Systemd(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(found.path))
    yield found
    found.close()


async def test_h1_a_hanging_writer_stops_the_watchdogs_food_until_it_answers(
    tmp_path: Path, systemd: _Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hangs: no datagram comes, so that systemd would restart the service."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    station = {"id": "CP-01", "max_kw": 150.0}
    with structlog.testing.capture_logs() as logs:
        async with yard(tmp_path, stations=[station]) as place:
            fed = await asyncio.to_thread(systemd.wait_for, "WATCHDOG=1", 5)
            hung = asyncio.ensure_future(place.daemon.store.ask(_hang))
            await asyncio.to_thread(systemd.words, 1.5)
            silent = await asyncio.to_thread(systemd.words, HANGS_S - 2.0)
            await hung
            fed_again = await asyncio.to_thread(systemd.wait_for, "WATCHDOG=1", 10)

    assert fed
    assert not [text for text in silent if "WATCHDOG=1" in text]
    assert [item for item in logs if item["event"] == "watchdog_withheld"]
    assert fed_again


def _hang(_: sqlite3.Connection) -> None:
    time.sleep(HANGS_S)


def test_h2_the_first_connection_after_ready_succeeds(
    daemon: DaemonProcess, systemd: _Systemd
) -> None:
    async def connects() -> None:
        async with _open(_url(daemon)) as link:
            await _heartbeat(link, "h")

    for _ in range(rounds(2, 100)):
        with ThreadPoolExecutor(1) as starter:
            started = starter.submit(daemon.start)
            assert systemd.wait_for("READY=1", 15)
            asyncio.run(connects())
            started.result()
        daemon.kill()


async def test_h3_a_stop_with_100_links_is_clean_within_20_seconds(
    daemon: DaemonProcess,
) -> None:
    await asyncio.to_thread(daemon.start)
    assert daemon.process is not None
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(_open(_url(daemon, n))) for n in range(LINKS)
        ]
        for number in range(10):  # 1,000 units that are queued while the stop comes
            for n, link in enumerate(links):
                body = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
                body["info"] = f"{number}"
                frame = [2, f"{n}-{number}", "StatusNotification", body]
                await link.send(json.dumps(frame))
        began = time.monotonic()
        daemon.process.terminate()
        late = [await _refusal(daemon) for _ in range(3)]
        code = await asyncio.to_thread(daemon.process.wait, 30)
        took_s = time.monotonic() - began
        codes = set()
        for link in links:
            await asyncio.wait_for(link.wait_closed(), 5)
            codes.add(link.close_code)

    assert code == 0
    assert took_s < 20
    assert codes == {1001}
    assert set(late) <= {503, None}
    db = sqlite3.connect(daemon.folder / "agent.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def _refusal(daemon: DaemonProcess) -> int | None:
    """The status that a newcomer gets; None when nobody listens any more."""
    try:
        async with _open(_url(daemon, 1)):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, websockets.WebSocketException, EOFError):
        return None


async def test_h6_without_descriptors_live_links_go_on_and_newcomers_get_in_after(
    daemon: DaemonProcess,
) -> None:
    await asyncio.to_thread(daemon.start)
    assert daemon.process is not None
    pid = daemon.process.pid
    async with _open(_url(daemon, 0)) as live:
        await _heartbeat(live, "before")
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, hard))
        address = ("127.0.0.1", daemon.ocpp_port)
        held = [socket.create_connection(address) for _ in range(20)]
        await asyncio.sleep(0.5)
        for number in range(20):
            await _heartbeat(live, f"during-{number}")
        for item in held:
            item.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        began = time.monotonic()
        async with asyncio.timeout(5):
            while await _refusal(daemon) != 101:
                await asyncio.sleep(0.2)
        await _heartbeat(live, "after")

    assert time.monotonic() - began < 5


DIES = """
import sys
from agent.control.executor import Executor
from agent.cli import main
async def broken(self):
    while not self._depot.linked_at_s:
        await self._clock.sleep(0.01)
    raise RuntimeError("a bug in the power loop")
Executor.run = broken
sys.argv = ["depot-agent", "run", "--config", sys.argv[1]]
main()
"""


async def test_h4_an_essential_task_that_dies_ends_the_process_within_5_seconds(
    daemon: DaemonProcess,
) -> None:
    """The power loop must not be dead while all else looks alive; with a live link."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES, str(daemon.config_path), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        while await _refusal(daemon) != 101:
            await asyncio.sleep(0.05)
    began = time.monotonic()
    async with asyncio.timeout(20):
        told, _ = await process.communicate()

    assert time.monotonic() - began < 5
    assert process.returncode == 1
    assert b"a bug in the power loop" in told


async def test_a12_the_command_socket_is_for_the_services_user_only(
    daemon: DaemonProcess,
) -> None:
    await asyncio.to_thread(daemon.start)
    mode = (daemon.folder / "agent.sock").stat().st_mode & 0o777

    assert mode == 0o600


async def test_u1_a_refused_reload_changes_nothing_and_drops_no_link(
    daemon: DaemonProcess,
) -> None:
    """100 links; an unknown key, a bad value, half a file: the old settings stay whole."""
    await asyncio.to_thread(daemon.start)
    assert daemon.process is not None
    good = daemon.config_path.read_text(encoding="utf-8")
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(_open(_url(daemon, n))) for n in range(LINKS)
        ]
        bad = (
            good.replace("cap_kw = 9000.0", "cap_kw = 9000.0\ncap_kv = 1"),
            good.replace("cap_kw = 9000.0", "cap_kw = -1"),
            good[: len(good) // 2],
        )
        for number, text in enumerate(bad, start=1):
            daemon.config_path.write_text(text, encoding="utf-8")
            daemon.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while len(daemon.events("config_refused")) < number:
                    await asyncio.sleep(0.05)
        status = daemon.ask_web("/api/v1/status")
        for link in links:
            await _heartbeat(link, "still")
    reasons = [str(row["reason"]) for row in daemon.events("config_refused")]

    assert status["cap_w"] == 9_000_000
    assert status["stations_connected"] == LINKS
    assert "cap_kv" in reasons[0]
    assert "cap_kw" in reasons[0]
    assert "cap_kw" in reasons[1]


@pytest.mark.parametrize("folder", ["missing", "/proc/self"])
def test_d7_a_state_folder_that_cannot_be_used_ends_the_daemon_at_once(
    tmp_path: Path, folder: str
) -> None:
    """Missing, or writable for nobody: within 2 s, an exit code of its own, one line."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[site]\ncap_kw = 10.0\n[store]\npath = "{tmp_path / folder}/agent.db"\n'
        '[ocpp]\nhost = "127.0.0.1"\nport = 0\n[web]\nport = 0\n',
        encoding="utf-8",
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]

    assert done.returncode == 78
    assert len(said) == 1, done.stderr
    assert f"{tmp_path / folder}" in said[0]
    assert "store.path" in said[0]
    # In processor time: other work on this machine is none of the daemon's.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


async def test_t1_a_station_clock_that_is_off_is_flagged_and_no_plan_depends_on_it(
    daemon: DaemonProcess,
) -> None:
    """Ten years back, ten years ahead, and local time without a zone."""
    await asyncio.to_thread(daemon.start)
    now = datetime.now(UTC)
    wrong = (
        (now - timedelta(days=3650)).isoformat(),
        (now + timedelta(days=3650)).isoformat(),
        (now + timedelta(hours=2)).replace(tzinfo=None).isoformat(timespec="seconds"),
    )
    for number, at in enumerate(wrong):
        async with ForeignStation(_url(daemon, number)) as station:
            await station.boot()
            await station.status("Preparing")
            running = await station.start("TAG", 1000, at)
            limit = await station.wait_for(lambda: station.profiles("TxProfile"), 20)
            sampled = [{"value": "2000"}]
            values = [{"timestamp": at, "sampledValue": sampled}]
            body = {"connectorId": 1, "transactionId": running, "meterValue": values}
            await station.send("MeterValues", body)
            stop = {"transactionId": running, "meterStop": 3000, "timestamp": at}
            await station.send("StopTransaction", stop)
            start_at = limit[-1]["chargingSchedule"].get("startSchedule")
            if start_at is not None:
                assert abs(datetime.fromisoformat(start_at) - now) < timedelta(days=2)
    rows = daemon.ask_web("/api/v1/sessions?limit=100")

    assert len(rows) == len(wrong)
    for row in rows:
        started = datetime.fromisoformat(row["started_at"])
        assert abs(started - now) < timedelta(minutes=5)
        assert row["energy_wh"] == 2000
        assert row["anomalies"]
