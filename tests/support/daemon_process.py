"""The real daemon as a child process, with a configuration of the test's own."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE_S = 20.0


PORTS_FIRST, PORTS_EACH = 21_000, 900
"""Below the ports that the machine hands out itself, and a range for each test worker:
a port that was free a moment ago must not be somebody's when the daemon takes it."""

_next = itertools.count(random.SystemRandom().randrange(PORTS_EACH))


def free_port() -> int:
    worker = int("0" + os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"))
    for _ in range(PORTS_EACH):
        port = PORTS_FIRST + (worker % 10) * PORTS_EACH + next(_next) % PORTS_EACH
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")


class DaemonProcess:
    """`depot-agent run` on a folder; can be killed and started again."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.ocpp_port = free_port()
        self.web_port = free_port()
        self.config_path = folder / "agent.toml"
        self.log_path = folder / "agent.log"
        text = config + (
            f'\n[store]\npath = "{folder}/agent.db"\n'
            f'[web]\nhost = "127.0.0.1"\nport = {self.web_port}\n'
        )
        text = text.replace("OCPP_PORT", str(self.ocpp_port))
        self.config_path.write_text(text, encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until stations may connect."""
        with self.log_path.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", str(self.config_path)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
            )
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            text = self.log_path.read_bytes()[offset:]
            if b'"agent_ready"' in text:
                return
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended: {text.decode()}")
            time.sleep(0.02)
        raise AssertionError("the daemon is not ready in time")

    def cpu_s(self) -> float:
        """Processor time that it took so far: whatever else the machine does."""
        assert self.process is not None
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """kill -9, as the power would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def ask(self, *command: str) -> Any:
        """Run a command of the command line with --json."""
        done = self.run(*command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "agent", *command, "--config", str(self.config_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of an event."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return [row for row in rows if row["event"] == name]

    def ask_web(self, path: str) -> Any:
        """GET a JSON path of the web port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}") as answer:
            return json.loads(answer.read())
