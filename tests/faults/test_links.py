"""faults.md sections 4 and 9: links that flood, stall, or come back all at once."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.support.daemon_process import DaemonProcess

LINKS = 100
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


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("links"), CONFIG)
    process.start()
    yield process
    assert process.stop() == 0


@asynccontextmanager
async def opened(daemon: DaemonProcess, number: int) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"ws://127.0.0.1:{daemon.ocpp_port}/ocpp/ST-{number:03}",
        subprotocols=[websockets.Subprotocol("ocpp1.6")],
        compression=None,
        proxy=None,
        open_timeout=10,
        close_timeout=1,
        ping_interval=None,
    ) as link:
        yield link


async def ask(link: ClientConnection, message_id: str, action: str, body: object) -> float:
    """Send a CALL, wait for its answer; seconds that it took."""
    began = time.monotonic()
    await link.send(json.dumps([2, message_id, action, body]))
    async with asyncio.timeout(20):
        while True:
            frame = json.loads(await link.recv())
            if frame[:2] == [3, message_id]:
                return time.monotonic() - began
            if frame[0] == 2:
                await link.send(json.dumps([4, frame[1], "NotSupported", "", {}]))


def memory_mib(daemon: DaemonProcess) -> float:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="utf-8")
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}


async def test_n9_100_stations_that_return_at_once_are_answered_within_10_seconds(
    daemon: DaemonProcess,
) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        numbers = range(LINKS)
        links = await asyncio.gather(
            *(stack.enter_async_context(opened(daemon, n)) for n in numbers)
        )
        took = await asyncio.gather(
            *(ask(link, "b", "BootNotification", BOOT) for link in links)
        )
        booted_s = time.monotonic() - began
        beats = await asyncio.gather(*(ask(link, "h", "Heartbeat", {}) for link in links))

    assert booted_s < 10
    assert sorted([*took, *beats])[int(2 * LINKS * 0.99)] < 2


async def test_r2_a_station_that_floods_is_slowed_and_the_others_see_nothing(
    daemon: DaemonProcess,
) -> None:
    """After its burst it is read at 50 a second; another station is answered in time."""
    answered = 0
    async with opened(daemon, 0) as flooding, opened(daemon, 1) as other:

        async def flood() -> None:
            number = 0
            while True:
                await flooding.send(json.dumps([2, f"f{number}", "Heartbeat", {}]))
                number += 1

        async def drain() -> None:
            nonlocal answered
            async for _ in flooding:
                answered += 1

        async with asyncio.TaskGroup() as tasks:
            jobs = [tasks.create_task(flood()), tasks.create_task(drain())]
            await asyncio.sleep(2.0)  # the burst is used up
            before = answered
            began = time.monotonic()
            took = [await ask(other, f"o{n}", "Heartbeat", {}) for n in range(50)]
            await asyncio.sleep(max(0.0, 2.0 - (time.monotonic() - began)))
            rate = (answered - before) / (time.monotonic() - began)
            for job in jobs:
                job.cancel()
        flooding.transport.abort()  # a close would wait behind all that is queued

    assert rate < 80
    assert max(took) < 2
    assert daemon.events("station_slowed_down")


async def test_n12_a_station_that_stops_reading_costs_no_memory(
    daemon: DaemonProcess,
) -> None:
    """It sends and never reads its answers: what is buffered for it is bounded."""
    async with opened(daemon, 1) as other:
        await ask(other, "b", "BootNotification", BOOT)
        raw = socket.create_connection(("127.0.0.1", daemon.ocpp_port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(5)
        await asyncio.to_thread(_shake_hands, raw, "ST-002")
        before = memory_mib(daemon)
        raw.settimeout(0)
        sent = 0
        frame = _masked(json.dumps([2, "x" * 30, "DataTransfer", {"vendorId": "v"}]))
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                sent += raw.send(frame * 50)
            await asyncio.sleep(0.005)
        took = await ask(other, "h", "Heartbeat", {})
        grown = memory_mib(daemon) - before
        raw.close()

    assert sent > 0
    assert grown < 5
    assert took < 2


def _shake_hands(raw: socket.socket, name: str) -> None:
    raw.sendall(
        f"GET /ocpp/{name} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n".encode()
    )
    assert raw.recv(4096).startswith(b"HTTP/1.1 101")


def _masked(text: str) -> bytes:
    body = text.encode()
    assert len(body) < 126
    return bytes((0x81, 0x80 | len(body))) + bytes(4) + body  # a mask of zeros is legal


async def test_r1_handshakes_that_never_end_are_dropped_and_stations_get_in(
    daemon: DaemonProcess,
) -> None:
    """Slow loris: silent connections and one byte a second, while a station connects."""
    loop = asyncio.get_running_loop()
    held: list[socket.socket] = []
    for number in range(300):
        raw = socket.create_connection(("127.0.0.1", daemon.ocpp_port))
        raw.settimeout(0)
        if number % 2:
            await loop.sock_sendall(raw, b"GET /ocpp/ST-003 HTTP/1.1\r\n")
        held.append(raw)
    began = time.monotonic()
    async with opened(daemon, 3) as link:
        took = await ask(link, "h", "Heartbeat", {})
        for _ in range(11):
            await asyncio.sleep(1)
            for raw in held[1:40:2]:
                with suppress(OSError):
                    raw.send(b"x")
        for raw in held:
            raw.settimeout(2)
        gone = [await asyncio.to_thread(_is_closed, raw) for raw in held]
    for raw in held:
        raw.close()

    assert time.monotonic() - began < 30
    assert took < 2
    assert all(gone)


def _is_closed(raw: socket.socket) -> bool:
    try:
        while True:
            if raw.recv(4096) == b"":
                return True
    except TimeoutError:
        return False
    except OSError:
        return True


async def test_a1_a_flood_of_unknown_stations_leaves_nothing_behind(
    daemon: DaemonProcess,
) -> None:
    """1,000 unknown ids: refused in the handshake, nothing stored, live links answered."""
    async with opened(daemon, 4) as link:
        await ask(link, "b", "BootNotification", BOOT)
        stations = len(daemon.ask("stations"))
        limit = asyncio.Semaphore(20)

        async def try_one(number: int) -> int:
            async with limit:
                return await asyncio.to_thread(_status_of, daemon.ocpp_port, number)

        await asyncio.gather(*(try_one(-n) for n in range(1, 800)))  # tables fill once
        before = memory_mib(daemon)
        seen = await asyncio.gather(*(try_one(n) for n in range(1000)))
        took = [await ask(link, f"h{n}", "Heartbeat", {}) for n in range(20)]
        grown = memory_mib(daemon) - before

    assert set(seen) <= {404, 401, 429, 503}
    assert grown < 5
    assert max(took) < 2
    assert len(daemon.ask("stations")) == stations
    lines = daemon.events("station_refused")
    assert len([row for row in lines if "NOBODY" in json.dumps(row)]) <= 40


def _status_of(port: int, number: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(
            f"GET /ocpp/NOBODY-{number} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n".encode()
        )
        return int(raw.recv(64).split()[1])
