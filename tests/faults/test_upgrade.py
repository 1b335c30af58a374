"""faults.md U4: databases that earlier programs left in mid-session go on with this one.

`releases/NNNN.sql` are dumps of what the program of that schema had on disk when it was
killed: one visit that had ended, one vehicle that was charging.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.app import Daemon
from agent.host.clock import ScaledClock
from agent.settings import Settings
from agent.store.sql import load_migrations
from tests.faults.means import rounds
from tests.support.foreign_station import ForeignStation

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.sql"))
STARTED_AT = "2026-03-01T11:00:00.000Z"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
"""After the dumps were made, and always: a station's queue may be a year old."""
LAST_WH = 7500


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Daemon]:
    """The daemon of today on a folder."""
    content: dict[str, Any] = {
        "site": {"cap_kw": 100.0},
        "ocpp": {"host": "127.0.0.1", "port": 0},
        "stations": [{"id": "A"}],
        "store": {"path": folder / "agent.db"},
        "web": {"port": 0},
    }
    daemon = Daemon(Settings(**content), clock=ScaledClock(NOW, 1.0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(daemon.run())
        await daemon.is_ready.wait()
        yield daemon
        daemon.stop_wanted.set()


def _as_after_a_kill(folder: Path, to: Path) -> Path:
    """What a kill at this moment would leave on disk."""
    to.mkdir()
    for end in ("", "-wal"):
        if (folder / f"agent.db{end}").exists():
            shutil.copy(folder / f"agent.db{end}", to / f"agent.db{end}")
    return to


def test_u4_there_is_a_database_of_every_released_schema() -> None:
    found = [int(path.stem) for path in RELEASES]

    assert found == [number for number, _ in load_migrations()]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
async def test_u4_a_session_goes_on_after_an_upgrade_and_kills(
    tmp_path: Path, release: Path
) -> None:
    """The running transaction keeps its id and energy; the ended one stays as it was."""
    folder = tmp_path / "0"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "agent.db")) as db:
        db.executescript(release.read_text(encoding="utf-8"))
    for number in range(1, rounds(2, 50)):
        async with running(folder):
            after = _as_after_a_kill(folder, tmp_path / f"{number}")
        folder = after
    async with running(folder) as daemon:
        before = {row["id_token"]: row for row in await daemon.sessions(10)}
        async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/A") as station:
            repeated = await station.start("RUNNING", 5000, STARTED_AT)
            await station.meter(repeated, LAST_WH + 500)
            await station.stop(repeated, LAST_WH + 1000, "EVDisconnected")
            await station.status("Available")
        later = {row["id_token"]: row for row in await daemon.sessions(10)}
    with closing(sqlite3.connect(folder / "agent.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    assert set(before) == set(later) == {"ENDED", "RUNNING"}
    assert before["RUNNING"]["transaction_ids"] == [repeated]
    assert before["RUNNING"]["energy_wh"] == 2500
    assert before["RUNNING"]["soc_now"] == 35
    assert later["RUNNING"]["energy_wh"] == 3500
    assert later["RUNNING"]["state"] == "ended"
    assert later["ENDED"] == before["ENDED"]
    assert later["ENDED"]["energy_wh"] == 4000
