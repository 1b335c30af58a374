"""Writes the dump of a new schema for test_upgrade: python -m tests.faults.release.

Run it once when a migration is added, before the release: it lets today's program live
through a visit and half of another one, kills it, and keeps what is on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from agent.store.sql import load_migrations
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation

CONFIG = """
[site]
cap_kw = 100.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
[[stations]]
id = "A"
"""


def _values(number: int, minute: int, wh: int, soc: int) -> dict[str, object]:
    sampled = [{"value": f"{wh}"}, {"value": f"{soc}", "measurand": "SoC"}]
    at = f"2026-03-01T11:{minute:02}:00.000Z"
    moment = {"timestamp": at, "sampledValue": sampled}
    return {"connectorId": 1, "transactionId": number, "meterValue": [moment]}


async def _live(daemon: DaemonProcess) -> None:
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/A") as station:
        await station.boot()
        await station.status("Preparing")
        ended = await station.start("ENDED", 1000, "2026-03-01T10:00:00.000Z")
        stop = {"transactionId": ended, "meterStop": 5000, "reason": "EVDisconnected"}
        at = {"timestamp": "2026-03-01T10:20:00.000Z"}
        await station.send("StopTransaction", stop | at)
        await station.status("Available")
        await station.status("Preparing")
        running = await station.start("RUNNING", 5000, "2026-03-01T11:00:00.000Z")
        for minute in range(1, 6):
            values = _values(running, minute, 5000 + 500 * minute, 30 + minute)
            await station.send("MeterValues", values)
        daemon.kill()


def main() -> None:
    """Live, kill, dump."""
    version = load_migrations()[-1][0]
    with tempfile.TemporaryDirectory() as name:
        daemon = DaemonProcess(Path(name), CONFIG)
        daemon.start()
        asyncio.run(_live(daemon))
        with closing(sqlite3.connect(Path(name) / "agent.db")) as db:
            (mark,) = db.execute("PRAGMA application_id").fetchone()
            lines = [*db.iterdump(), f"PRAGMA user_version = {version};"]
    lines.append(f"PRAGMA application_id = {mark};\n")
    target = Path(__file__).parent / "releases" / f"{version:04}.sql"
    target.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
