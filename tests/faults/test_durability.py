"""faults.md section 2: what was acknowledged is on disk, whatever happens then."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.faults.ledger import Audited
from tests.faults.means import chance_of, rounds
from tests.support.daemon_process import DaemonProcess

STATIONS = 20
READY_S = 5.0

CONFIG = """
[site]
cap_kw = 4000.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
""" + "".join(
    f'\n[[stations]]\nid = "ST-{n:02}"\nmax_kw = 150.0\nfallback_kw = 5.0\n'
    for n in range(STATIONS)
)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are killed could not write their coverage anyway: start quicker."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


async def test_d1_kills_lose_nothing_that_was_acknowledged(
    tmp_path: Path, unmeasured: None
) -> None:
    """20 stations in session; kill -9 at a random instant, again and again."""
    del unmeasured
    chance = chance_of("D1")
    daemon = DaemonProcess(tmp_path, CONFIG)
    stations = [Audited(f"ST-{n:02}") for n in range(STATIONS)]
    url = f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp"
    slowest_s = 0.0
    for _ in range(rounds(12, 1000)):
        began = time.monotonic()
        await asyncio.to_thread(daemon.start)
        slowest_s = max(slowest_s, time.monotonic() - began)
        async with asyncio.TaskGroup() as tasks:
            for station in stations:
                tasks.create_task(station.serve(url))
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            daemon.kill()
    await asyncio.to_thread(daemon.start)
    for station in stations:
        if not station.transaction_ids:
            continue
        await station.repeat_start(url)
    found = {row["station_id"]: row for row in daemon.ask("sessions")}
    assert daemon.stop() == 0

    started = [station for station in stations if station.transaction_ids]
    print(  # noqa: T201 - the figure of the table
        f"D1: {sum(s.acknowledged for s in stations)} acknowledged, "
        f"slowest ready {slowest_s:.1f} s"
    )
    assert len(started) == STATIONS
    assert slowest_s < READY_S
    held = _registers(tmp_path / "agent.db")
    for station in started:
        row = found[station.name]
        assert len(station.transaction_ids) == 1
        assert row["transaction_ids"] == list(station.transaction_ids)
        assert row["energy_wh"] >= station.acknowledged_wh - 1000
        missing = set(range(1001, station.acknowledged_wh + 1)) - held[station.name]
        assert not missing


def _registers(path: Path) -> dict[str, set[int]]:
    """Every register value in the journal, per station; the file must be whole."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found: dict[str, set[int]] = {}
    for name, body in db.execute(
        "SELECT station_id, body FROM journal WHERE kind = 'MeterSampled'"
    ):
        for reading in json.loads(body)["readings"]:
            if reading["register_wh"] is not None:
                found.setdefault(name, set()).add(round(reading["register_wh"]))
    db.close()
    return found
