"""The systemd unit: understood by systemd, and no weaker than promised."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd" / "depot-agent.service"
EXPOSURE_MAX = 1.5


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_h8_unit_exposure_stays_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for depot-agent.service: ([0-9.]+)", done.stdout)

    assert found is not None, done.stderr
    assert float(found.group(1)) <= EXPOSURE_MAX


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_h8_unit_verifies_without_a_word(tmp_path: Path) -> None:
    program = tmp_path / "depot-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8")
    text = text.replace("/opt/depot-agent/.venv/bin/depot-agent", str(program))
    copy = tmp_path / "depot-agent.service"
    copy.write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )

    lines = [
        line for line in (done.stdout + done.stderr).splitlines() if "depot-agent" in line
    ]
    assert lines == []


def test_h7_unit_does_not_restart_on_refused_configuration() -> None:
    text = UNIT.read_text(encoding="utf-8")

    assert "Type=notify\n" in text
    assert "RestartPreventExitStatus=78" in text
    assert "WatchdogSec=30" in text
