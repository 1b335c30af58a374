"""faults.md section 8: hostile frames against the real daemon, over real sockets."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from agent.stations.schemas import ACTIONS, V16, V21, V201
from tests.faults.means import chance_of, rounds
from tests.support.daemon_process import DaemonProcess
from tests.unit.stations.bench2 import message

VERSIONS = {V16: "ST-16", V201: "ST-201", V21: "ST-21"}
CONFIG = """
[site]
cap_kw = 900.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
station_messages_per_s = 0
""" + "".join(
    f'\n[[stations]]\nid = "{name}"\nmax_kw = 50.0\n' for name in VERSIONS.values()
)
NASTY: list[Any] = [
    None,
    [],
    {},
    True,
    -1,
    2**63,
    1e308,
    "",
    "x" * 2000,
    "'; DROP TABLE sessions; --",
    "\u202e\x00\x1b[31m",
    {"a": {"b": [None]}},
]
BEAT_EVERY = 400
GROWTH_MIB_MAX = 24.0
"""The journal's pages and caches fill once; what grows with each frame would show."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, CONFIG)
    process.start()
    yield process
    assert process.stop() == 0


@asynccontextmanager
async def opened(daemon: DaemonProcess, version: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp/{VERSIONS[version]}",
        subprotocols=[websockets.Subprotocol(version)],
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=2,
    ) as link:
        yield link


async def _beat(link: ClientConnection, message_id: str) -> None:
    """The link lives: a Heartbeat is answered; all that came before is read."""
    await link.send(json.dumps([2, message_id, "Heartbeat", {}]))
    async with asyncio.timeout(60):
        while json.loads(await link.recv())[:2] != [3, message_id]:
            pass


async def _throw(daemon: DaemonProcess, version: str, frames: Iterator[str]) -> int:
    """Send frames, looking whether the link lives; returns their number."""
    thrown = 0
    async with opened(daemon, version) as link:
        for frame in frames:
            await link.send(frame)
            thrown += 1
            if thrown % BEAT_EVERY == 0:
                await _beat(link, f"beat-{thrown}")
        await _beat(link, "beat-last")
    return thrown


def _places(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    """Every place in a payload, the payload itself first."""
    yield path
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _replaced(payload: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    found = copy.deepcopy(payload)
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


def _field_by_field(version: str, chance: random.Random, share: float) -> Iterator[str]:
    """Each field of each message replaced by each nasty value, or a share of them."""
    for action in sorted(ACTIONS[version]):
        payload = message(version, action, is_full=True)
        for path in _places(payload):
            for value in NASTY:
                if chance.random() < share:
                    name = f"n{chance.getrandbits(48)}"
                    yield json.dumps([2, name, action, _replaced(payload, path, value)])


def _mutated(version: str, chance: random.Random, count: int) -> Iterator[str]:
    """Recorded frames with bytes turned, cut, doubled, or spliced with another's."""
    corpus = [
        json.dumps([2, f"m{n}", action, message(version, action, is_full=bool(n % 2))])
        for n, action in enumerate(sorted(ACTIONS[version]) * 2)
    ]
    corpus += ['[3,"m1",{"status":"Accepted"}]', '[4,"m1","InternalError","",{}]', "[]"]
    for _ in range(count):
        text = chance.choice(corpus)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text) + 1)
            kind = chance.randrange(6)
            if kind == 0:
                text = text[:at] + chr(chance.randrange(1, 0x2FF)) + text[at + 1 :]
            elif kind == 1:
                text = text[:at] + text[at + chance.randrange(1, 12) :]
            elif kind == 2:
                text = text[:at] + text[at : at + 20] * 3 + text[at:]
            elif kind == 3:
                other = chance.choice(corpus)
                text = text[:at] + other[chance.randrange(len(other)) :]
            elif kind == 4:
                token = chance.choice(["1e999", "-0", "null", "[", "}", '"', "9" * 40])
                text = text[:at] + token + text[at:]
            else:
                text = text[:at]
        yield text


def _memory_mib(daemon: DaemonProcess) -> float:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="utf-8")
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _bugs(daemon: DaemonProcess) -> list[str]:
    """What the log would show of an unhandled error."""
    lines = daemon.log_path.read_text(encoding="utf-8").splitlines()
    return [line[:500] for line in lines if "link_failed" in line or "Traceback" in line]


async def test_i8_no_field_of_any_message_breaks_a_link(daemon: DaemonProcess) -> None:
    """All three versions; a sample of the fields in the short form."""
    chance = chance_of("I8")
    share = rounds(2, 100) / 100
    thrown = 0
    for version in VERSIONS:
        thrown += await _throw(daemon, version, _field_by_field(version, chance, share))
    print(f"I8: {thrown} messages")  # noqa: T201 - the figure of the table

    assert thrown > 500
    assert _bugs(daemon) == []


async def test_i9_mutated_frames_break_no_link_and_leave_memory_flat(
    daemon: DaemonProcess,
) -> None:
    chance = chance_of("I9")
    count = rounds(1500, 40_000)
    for version in VERSIONS:  # what fills once is full before it is measured
        await _throw(daemon, version, _mutated(version, chance, count // 4))
    before = _memory_mib(daemon)
    began = time.monotonic()
    thrown = 0
    for version in VERSIONS:
        thrown += await _throw(daemon, version, _mutated(version, chance, count))
    grown = _memory_mib(daemon) - before
    took_s = time.monotonic() - began
    print(f"I9: {thrown} frames in {took_s:.0f} s, memory {grown:+.1f} MiB")  # noqa: T201

    assert _bugs(daemon) == []
    assert grown < GROWTH_MIB_MAX
