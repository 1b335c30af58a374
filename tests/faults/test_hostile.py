"""faults.md sections 8 and 9: frames, fragments, pings and texts that mean harm."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import websockets
from websockets.asyncio.client import ClientConnection, connect

from agent.app import Daemon
from agent.settings import Settings
from agent.stations import wire
from tests.support.daemon_process import DaemonProcess
from tests.support.foreign_station import ForeignStation

NAMES = ("A", "B", "C", "TWO")
CONFIG = """
[site]
cap_kw = 900.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
station_messages_per_s = 0
""" + "".join(f'\n[[stations]]\nid = "{name}"\nmax_kw = 50.0\n' for name in NAMES)
UNSOLICITED = 20_000
TEXT, CONTINUED, PING = 0x1, 0x0, 0x9


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("hostile"), CONFIG)
    process.start()
    yield process
    assert process.stop() == 0
    text = process.log_path.read_text(encoding="utf-8")
    assert "link_failed" not in text
    assert "Traceback" not in text


@asynccontextmanager
async def opened(
    daemon: DaemonProcess, name: str, version: str = "ocpp1.6", **options: Any
) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"ws://127.0.0.1:{daemon.ocpp_port}/{name}",
        subprotocols=[websockets.Subprotocol(version)],
        proxy=None,
        ping_interval=None,
        close_timeout=1,
        **({"compression": None} | options),
    ) as link:
        yield link


async def beats(link: ClientConnection) -> None:
    """The link lives: all that came before was read, and a Heartbeat is answered."""
    await link.send(json.dumps([2, "beat", "Heartbeat", {}]))
    async with asyncio.timeout(30):
        while json.loads(await link.recv())[:2] != [3, "beat"]:
            pass


def frame(opcode: int, body: bytes, *, fin: bool = True, flags: int = 0) -> bytes:
    """A client's frame with a mask of zeros, which is legal."""
    head = bytes(((0x80 if fin else 0) | flags | opcode,))
    if len(body) < 126:
        size = bytes((0x80 | len(body),))
    elif len(body) < 1 << 16:
        size = bytes((0x80 | 126,)) + struct.pack("!H", len(body))
    else:
        size = bytes((0x80 | 127,)) + struct.pack("!Q", len(body))
    return head + size + bytes(4) + body


def shaken(port: int, name: str) -> socket.socket:
    """A raw connection whose handshake is done."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(
        f"GET /{name} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n".encode()
    )
    assert raw.recv(4096).startswith(b"HTTP/1.1 101")
    return raw


class Flood:
    """Sends the same bytes for ever, never reads, and never tears a frame."""

    def __init__(self, raw: socket.socket, piece: bytes) -> None:
        raw.settimeout(0)
        self._raw, self._piece, self._left = raw, piece, b""
        self.sent = 0

    def pour(self) -> None:
        """Send what the network takes now."""
        with suppress(BlockingIOError):
            while True:
                self._left = self._left or self._piece
                taken = self._raw.send(self._left)
                self._left = self._left[taken:]
                self.sent += taken


def memory_mib(daemon: DaemonProcess) -> float:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="utf-8")
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def test_i4_a_message_of_fragments_that_never_ends_is_refused_at_1_mib(
    daemon: DaemonProcess,
) -> None:
    raw = await asyncio.to_thread(shaken, daemon.ocpp_port, "A")
    before = memory_mib(daemon)

    def pour() -> bytes:
        raw.sendall(frame(TEXT, b"[" + b" " * 60_000, fin=False))
        with suppress(OSError):
            for _ in range(100):  # 6 MB, were they all taken
                raw.sendall(frame(CONTINUED, b" " * 60_000, fin=False))
        said = b""
        with suppress(OSError):
            while part := raw.recv(4096):
                said += part
        return said

    said = await asyncio.to_thread(pour)
    raw.close()

    assert struct.pack("!H", 1009) in said or said == b""
    assert memory_mib(daemon) - before < 5
    async with opened(daemon, "A") as link:
        await beats(link)


async def test_i4_honest_fragments_pass(daemon: DaemonProcess) -> None:
    """CON-10: some stations send long messages in pieces."""
    async with opened(daemon, "A") as link:
        body = json.dumps([2, "pieces", "Heartbeat", {"pad": "x" * 50_000}])
        await link.send(body[at : at + 997] for at in range(0, len(body), 997))
        answer = json.loads(await link.recv())

    assert answer[:2] == [3, "pieces"]


async def test_i4_ids_that_are_none_are_refused_and_the_link_lives(
    daemon: DaemonProcess,
) -> None:
    async with opened(daemon, "A") as link:
        odd: list[Any] = ["x" * 65, "", None, [], {"a": 1}, True, 1.5]
        for message_id in odd:
            await link.send(json.dumps([2, message_id, "Heartbeat", {}]))
        await beats(link)


async def test_i4_a_flood_of_pings_costs_no_memory_and_hinders_nobody(
    daemon: DaemonProcess,
) -> None:
    """Pongs are read by nobody: what cannot be written is not asked for either."""
    raw = await asyncio.to_thread(shaken, daemon.ocpp_port, "B")
    async with opened(daemon, "A") as other:
        before = memory_mib(daemon)
        flood = Flood(raw, frame(PING, b"p" * 125) * 100)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            flood.pour()
            await asyncio.sleep(0.001)
        began = time.monotonic()
        await beats(other)
        took_s = time.monotonic() - began
        grown = memory_mib(daemon) - before
    raw.close()

    assert flood.sent > 1000 * 125
    print(f"I4: {flood.sent / 131:.0f} pings, memory {grown:+.1f} MiB")  # noqa: T201
    assert took_s < 2
    assert grown < 6  # 85 MiB, were each pong written whether it is read or not


async def test_i5_compression_is_not_offered_to_1_6_and_a_bomb_of_2x_is_stopped(
    daemon: DaemonProcess,
) -> None:
    """2.x demands compression; what unpacks to more than 1 MiB ends the link."""
    async with opened(daemon, "A", compression="deflate") as plain:
        headers = plain.response.headers if plain.response is not None else {}
        offered = "Sec-WebSocket-Extensions" in headers
    before = memory_mib(daemon)
    async with opened(daemon, "TWO", "ocpp2.0.1", compression="deflate") as link:
        packer = zlib.compressobj(wbits=-12)
        bomb = packer.compress(b" " * 200_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
        link.transport.write(frame(TEXT, bomb[:-4], flags=0x40))
        async with asyncio.timeout(10):
            await link.wait_closed()
        code = link.close_code
    async with opened(daemon, "TWO", "ocpp2.0.1", compression="deflate") as link:
        await beats(link)

    assert not offered
    assert code == 1009
    assert memory_mib(daemon) - before < 10


async def test_i6_odd_texts_are_refused_or_kept_as_inert_text(
    daemon: DaemonProcess,
) -> None:
    """Duplicate keys, lone surrogates, NUL, direction marks, a BOM, bytes that are no text."""
    odd = [
        '[2,"k","Heartbeat",{"a":1,"a":2}]',
        '[2,"s","DataTransfer",{"vendorId":"\\ud800"}]',
        '[2,"n","DataTransfer",{"vendorId":"a\\u0000b"}]',
        '[2,"d","DataTransfer",{"vendorId":"\\u202eabc\\u2066"}]',
        '\ufeff[2,"b","Heartbeat",{}]',
    ]
    async with opened(daemon, "A") as link:
        for text in odd:
            await link.send(text)
        await link.send(b'[2,"y","DataTransfer",{"vendorId":"\xff\xfe"}]')
        await link.send(b'[2,"z","Heartbeat",{}]')
        await beats(link)
    raw = await asyncio.to_thread(shaken, daemon.ocpp_port, "A")
    raw.sendall(frame(TEXT, b'[2,"\xff\xfe","Heartbeat",{}]'))
    raw.close()
    async with opened(daemon, "A") as link:
        await beats(link)
    lines = daemon.log_path.read_text(encoding="utf-8").splitlines()

    assert all(json.loads(line) for line in lines)
    assert not [line for line in lines if not line.isprintable()]
    assert "\\u202e" not in "".join(lines)


async def test_i10_unsolicited_answers_leave_memory_flat_and_the_next_call_works(
    daemon: DaemonProcess,
) -> None:
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/C") as station:
        await station.boot()
        for number in range(5000):
            await station.raw(f'[3,"first-{number}",{{}}]')
        await station.send("Heartbeat", {})
        before = memory_mib(daemon)
        for number in range(UNSOLICITED):
            await station.raw(f'[3,"nobody-{number}",{{"status":"Accepted"}}]')
        await station.send("Heartbeat", {}, 30)
        grown = memory_mib(daemon) - before
        done = await asyncio.to_thread(
            daemon.run, "call", "C", "TriggerMessage", '{"requestedMessage":"Heartbeat"}'
        )

    assert grown < 2  # of 20,000; were they kept, 10 MiB
    assert done.returncode == 0, done.stderr
    assert "Accepted" in done.stdout


async def test_i12_a_report_of_10000_samples_and_data_of_200_kib_are_answered(
    daemon: DaemonProcess,
) -> None:
    moment = {"timestamp": "2026-01-15T18:00:00Z", "sampledValue": [{"value": "1"}]}
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/C") as station:
        await station.boot()
        many = {"connectorId": 1, "meterValue": [moment] * 10_000}
        first = await station.send("MeterValues", many, 30)
        data = {"vendorId": "v", "data": "x" * 200 * 1024}
        second = await station.send("DataTransfer", data, 30)
        third = await station.send("Heartbeat", {})

    assert first == {}
    assert isinstance(second, dict)
    assert "currentTime" in third


async def test_i13_what_breaks_the_schema_is_read_softly_and_kept(
    daemon: DaemonProcess,
) -> None:
    """Missing, extra, over-long, wrong case: answered as if it were right."""
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/B") as station:
        await station.boot(
            chargePointVendor="V" * 300, firmwareVersion=None, extra={"a": 1}
        )
        await station.send(
            "StatusNotification",
            {"connectorId": "1", "errorCode": "noerror", "status": "preparing"},
        )
        body = {"connectorId": 1, "idTag": "T" * 40, "meterStart": "1000", "more": []}
        answer = await station.send("StartTransaction", body)
        number = answer["transactionId"]
        samples = [{"value": 1500, "measurand": "energy.active.import.register"}]
        values = [{"sampledValue": samples}]
        await station.send("MeterValues", {"transactionId": number, "meterValue": values})
        await station.send(
            "StopTransaction", {"transactionId": number, "meterStop": 2000.4}
        )
    rows = daemon.ask_web("/api/v1/sessions?limit=1000")
    row = next(row for row in rows if row["station_id"] == "B")

    assert row["transaction_ids"] == [number]
    assert row["energy_wh"] == pytest.approx(1000, abs=1)


async def test_l4_no_peer_makes_a_label_of_a_metric(daemon: DaemonProcess) -> None:
    """Stations, events and clouds are named by the program and its configuration."""
    evil = 'X"} 1\nplanted{a="'
    async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/A") as station:
        await station.boot(
            chargePointVendor=evil, chargePointModel=evil, firmwareVersion=evil
        )
        await station.send("DataTransfer", {"vendorId": evil, "messageId": evil})
        await station.send("Authorize", {"idTag": evil})
        await station.raw(json.dumps([2, "p", f"Planted{evil}"[:60], {}]))
        with suppress(websockets.WebSocketException, OSError):
            async with connect(
                f"ws://127.0.0.1:{daemon.ocpp_port}/planted-station", proxy=None
            ):
                pass
        text = await asyncio.to_thread(_metrics, daemon)
    labels = dict.fromkeys(re.findall(r'(\w+)="([^"]*)"', text))

    assert "planted" not in text.lower()
    assert {name for name, _ in labels} <= {"station_id", "cloud", "event", "vehicle_id"}
    assert {value for name, value in labels if name == "station_id"} <= set(NAMES)


def _metrics(daemon: DaemonProcess) -> str:
    with socket.create_connection(("127.0.0.1", daemon.web_port), timeout=5) as raw:
        raw.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        found = b""
        while part := raw.recv(65_536):
            found += part
    assert b"200 OK" in found.splitlines()[0]
    return found.decode()


async def test_n12_a_station_that_takes_nothing_any_more_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends calls and never reads an answer; its link ends and a new one opens."""
    monkeypatch.setattr(wire, "STALLED_S", 0.5)
    content: dict[str, Any] = {
        "site": {"cap_kw": 10.0},
        "ocpp": {"host": "127.0.0.1", "port": 0, "station_messages_per_s": 0},
        "stations": [{"id": "CP-01"}],
        "store": {"path": tmp_path / "agent.db"},
        "web": {"port": 0},
    }
    daemon = Daemon(Settings(**content))
    call = json.dumps([2, "x" * 60, "Planted", {}]).encode()
    with structlog.testing.capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(daemon.run())
            await daemon.is_ready.wait()
            raw = await asyncio.to_thread(shaken, daemon.ocpp_port, "CP-01")
            flood = Flood(raw, frame(TEXT, call) * 20)
            async with asyncio.timeout(30):
                while not [row for row in logs if row["event"] == "link_closed_by_agent"]:
                    with suppress(ConnectionError):
                        flood.pour()
                    await asyncio.sleep(0.001)
                while daemon.server.links:
                    await asyncio.sleep(0.01)
            raw.close()
            async with ForeignStation(f"ws://127.0.0.1:{daemon.ocpp_port}/CP-01") as again:
                await again.boot()
            daemon.stop_wanted.set()
            await running

    assert not [row for row in logs if row["event"] == "link_failed"]
