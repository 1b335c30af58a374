"""faults.md N2 and I11: whatever a cloud answers, links and power control go on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from agent.cloud.chargeye import ChargEye
from agent.cloud.http import BODY_BYTES_MAX, CloudHttp
from agent.domain.errors import CloudFault
from agent.host import garbage

LAG_MAX_S = 0.1
TICK_S = 0.002
TRIES_MAX = 8
TOKEN = {"token": "t", "validUntil": "2099-01-01T00:00:00Z"}
SEGMENT = {"from": 1768500000000, "to": 1768503600000, "powerkW": 50.0, "paused": False}


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _fitting(head: bytes, piece: bytes, tail: bytes) -> bytes:
    """As many pieces as fit into what is read of a body at most."""
    count = (BODY_BYTES_MAX - len(head) - len(tail)) // (len(piece) + 1)
    return head + b",".join([piece] * count) + tail


def _schedule(**plan: Any) -> dict[str, Any]:
    return {
        "id": "s",
        "evId": "bus",
        "locationUid": "loc-1",
        "plannedArrivalTime": "2026-01-15T18:00:00Z",
        "plannedDepartureTime": "2026-01-16T05:00:00Z",
        "plan": plan,
    }


def _segments() -> bytes:
    """One plan of as many segments as fit: about 50,000."""
    text = orjson.dumps({"schedules": [_schedule(segments=["SEGMENTS"])]})
    head, tail = text.split(b'"SEGMENTS"')
    return _fitting(head, orjson.dumps(SEGMENT), tail)


def _slots() -> bytes:
    row = orjson.dumps(_schedule(segments=[SEGMENT]))
    return _fitting(b'{"schedules":[', row, b"]}")


def _vehicles() -> bytes:
    row = orjson.dumps({"vehicle": {"id": "v", "name": "n" * 40}})
    return _fitting(b'{"vehicles":[', row, b"]}")


def _numbers() -> bytes:
    return _fitting(b'{"vehicles":[', b"1e9", b'],"schedules":[1]}')


def _nested() -> bytes:
    half = BODY_BYTES_MAX // 2 - 10
    return b"[" * half + b"]" * half


def _unpacking() -> bytes:
    return gzip.compress(b" " * 100_000_000)


BODIES: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "a plan of 50,000 segments": ("schedules", _segments, {}),
    "endless slots": ("schedules", _slots, {}),
    "endless vehicles": ("vehicles", _vehicles, {}),
    "numbers for rows": ("vehicles", _numbers, {}),
    "nesting of two millions": ("vehicles", _nested, {}),
    "gzip of 100 MB": ("vehicles", _unpacking, {"Content-Encoding": "gzip"}),
}


async def _worst_lag_s(job: asyncio.Task[Any]) -> float:
    """The longest time for which the loop did not come round while a job ran.

    In the processor time of this process, where other processes count for nothing.
    """
    worst_s, last = 0.0, time.process_time()
    while not job.done():
        await asyncio.sleep(TICK_S)
        now = time.process_time()
        worst_s, last = max(worst_s, now - last), now
    return worst_s


@pytest.fixture
def as_a_service() -> Iterator[None]:
    """Collect garbage as seldom as the daemon does: it holds up more than the parsing."""
    usual = gc.get_threshold()
    gc.set_threshold(*garbage.THRESHOLDS)
    yield
    gc.set_threshold(*usual)


@pytest.mark.usefixtures("as_a_service")
@pytest.mark.parametrize("name", BODIES)
async def test_n2_no_answer_of_a_cloud_holds_the_loop_up(name: str) -> None:
    """The largest bodies that are read at all, of the shapes that cost most."""
    what, make, extra = BODIES[name]
    body = make()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        is_token = b"refreshAccessToken" in request
        found = orjson.dumps(TOKEN) if is_token else body
        more = "" if is_token else "".join(f"{k}: {v}\r\n" for k, v in extra.items())
        head = f"HTTP/1.1 200 OK\r\n{more}Connection: close\r\n"
        writer.write(f"{head}Content-Length: {len(found)}\r\n\r\n".encode() + found)
        try:
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    http = CloudHttp("chargeye", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    chargeye = ChargEye(http, "r", location_uid="loc-1", clock=_Clock())

    async def ask() -> None:
        try:
            await (chargeye.vehicles() if what == "vehicles" else chargeye.schedules())
        except CloudFault:
            return

    lags: list[float] = []
    while len(lags) < TRIES_MAX and min(lags, default=1.0) >= LAG_MAX_S:
        # The least counts: a machine that is busy otherwise has colder caches.
        job = asyncio.get_running_loop().create_task(ask())
        lags.append(await _worst_lag_s(job))
        await job
    await http.close()
    server.close()
    for writer in writers:
        writer.transport.abort()  # what nobody read any more
    await asyncio.sleep(0)
    print(f"N2: {name}: {min(lags) * 1000:.0f} ms")  # noqa: T201 - the figure of the table

    assert min(lags) < LAG_MAX_S
