"""faults.md D3: what the kernel saw, that each answer left after the sync of its commit."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.means import rounds
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation, stamp

CONFIG = """
[site]
cap_kw = 100.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
[[stations]]
id = "A"
"""
CALLS = "pwrite64,write,writev,sendto,sendmsg,fdatasync,fsync"
FIRST_WH = 7_000_001
"""Registers of seven digits are found again in the pages that were written."""


class _Traced(DaemonProcess):
    """The daemon under strace."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CONFIG)
        self.trace = folder / "trace"

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("strace", "-f", "-y", "-ttt", "-s", "6000"),
                    *("-e", f"trace={CALLS}", "-o", str(self.trace)),
                    *(sys.executable, "-m", "agent", "run"),
                    *("--config", str(self.config_path)),
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while b'"agent_ready"' not in self.log_path.read_bytes():
            assert self.process.poll() is None, self.log_path.read_text(encoding="utf-8")
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text(encoding="utf-8").split():
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", child], check=False)
        return self.process.wait(60)


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[_Traced]:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    probe = [*("strace", "-o", str(tmp_path / "probe")), "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody trace system calls")
    process = _Traced(tmp_path)
    process.start()
    yield process
    if process.process is not None and process.process.poll() is None:
        process.stop()


async def test_d3_each_answer_leaves_after_the_sync_of_its_commit(traced: _Traced) -> None:
    """Meter values one after another; the trace tells write, sync and answer apart."""
    count = rounds(40, 200)
    async with ForeignStation(f"ws://127.0.0.1:{traced.ocpp_port}/A") as station:
        await station.boot()
        await station.status("Preparing")
        running = await station.start("TAG", FIRST_WH - 1)
        for number in range(count):
            sample = {"timestamp": stamp(), "sampledValue": [{"value": _marker(number)}]}
            values = {"connectorId": 1, "transactionId": running, "meterValue": [sample]}
            frame = json.dumps([2, f"ack-{number}", "MeterValues", values])
            await station.raw(frame)
            await station.send("Heartbeat", {})
    assert traced.stop() == 0
    lines = traced.trace.read_text(encoding="utf-8", errors="replace").splitlines()
    wal = [line for line in lines if "agent.db-wal>" in line]
    early = []
    for number in range(count):
        answered = _first(lines, f'[3,\\"ack-{number}\\"')
        written = _first(lines, _marker(number), within="agent.db-wal>")
        synced = _synced_after(lines, written)
        if not written < synced < answered:
            early.append((number, written, synced, answered))
    print(f"D3: {count} answers, {len(wal)} lines about the log")  # noqa: T201

    assert early == []


def _marker(number: int) -> str:
    return str(FIRST_WH + number)


def _first(lines: list[str], text: str, within: str = "") -> int:
    return next(n for n, line in enumerate(lines) if text in line and within in line)


def _synced_after(lines: list[str], written: int) -> int:
    """The line on which a sync of the log that began after a write has ended."""
    for number in range(written + 1, len(lines)):
        line = lines[number]
        if not re.search(r"\b(fdatasync|fsync)\([^)]*agent\.db-wal>", line):
            continue
        if "<unfinished" not in line:
            return number
        thread = line.split()[0]
        return next(
            n
            for n in range(number, len(lines))
            if lines[n].split()[0] == thread and "sync resumed>" in lines[n]
        )
    return len(lines)
