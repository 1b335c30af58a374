"""faults.md N11: links that stall and come back in any order lose and double nothing."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.faults.ledger import Audited
from tests.faults.means import chance_of, rounds
from tests.faults.proxy import Pipe, pipes
from tests.support.daemon_process import DaemonProcess

STATIONS = 10
DEAD_S = 60.0
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


async def _for_ever(station: Audited, pipe: Pipe) -> None:
    """A station that dials again whenever its link breaks."""
    while True:
        await station.serve(f"ws://127.0.0.1:{pipe.port}/ocpp")
        await asyncio.sleep(0.05)


async def _clog(made: list[Pipe], chance: random.Random) -> None:
    """Stop some pipes one after another, free them in another order; cut a few."""
    chosen = chance.sample(made, chance.randrange(1, len(made) + 1))
    for pipe in chosen:
        pipe.clog()
        await asyncio.sleep(chance.uniform(0, 0.05))
    await asyncio.sleep(chance.uniform(0, 0.5))
    for pipe in chance.sample(chosen, len(chosen)):
        if chance.random() < 0.2:
            pipe.cut()
        pipe.free()
        await asyncio.sleep(chance.uniform(0, 0.05))


async def test_n11_links_that_clog_in_any_order_lose_nothing_and_come_back(
    tmp_path: Path,
) -> None:
    """After each round all are free, and each station is answered again soon."""
    chance = chance_of("N11")
    daemon = DaemonProcess(tmp_path, CONFIG)
    await asyncio.to_thread(daemon.start)
    stations = [Audited(f"ST-{n:02}") for n in range(STATIONS)]
    slowest_s = 0.0
    async with pipes(daemon.ocpp_port, STATIONS) as made, asyncio.TaskGroup() as tasks:
        lives = [
            tasks.create_task(_for_ever(station, pipe))
            for station, pipe in zip(stations, made, strict=True)
        ]
        for _ in range(rounds(3, 200)):
            await _clog(made, chance)
            before = [station.acknowledged for station in stations]
            began = time.monotonic()
            async with asyncio.timeout(DEAD_S):
                while any(
                    station.acknowledged <= count
                    for station, count in zip(stations, before, strict=True)
                ):
                    await asyncio.sleep(0.01)
            slowest_s = max(slowest_s, time.monotonic() - began)
        for life in lives:
            life.cancel()
    rows = {row["station_id"]: row for row in daemon.ask("sessions")}
    assert daemon.stop() == 0
    total = sum(station.acknowledged for station in stations)
    print(f"N11: {total} acknowledged, slowest back after {slowest_s:.1f} s")  # noqa: T201

    assert not daemon.events("link_failed")
    for station in stations:
        assert rows[station.name]["transaction_ids"] == list(station.transaction_ids)
        assert len(station.transaction_ids) == 1
        assert rows[station.name]["energy_wh"] >= station.acknowledged_wh - 1000
    assert _held(tmp_path / "agent.db") >= {
        (station.name, register_wh)
        for station in stations
        for register_wh in range(1001, station.acknowledged_wh + 1)
    }


def _held(path: Path) -> set[tuple[str, int]]:
    """Every station and register in the journal of a whole file."""
    found = set()
    sql = "SELECT station_id, body FROM journal WHERE kind = 'MeterSampled'"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for name, body in db.execute(sql):
            for reading in json.loads(body)["readings"]:
                if reading["register_wh"] is not None:
                    found.add((str(name), round(reading["register_wh"])))
    return found
