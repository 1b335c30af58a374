"""sd_notify over a real datagram socket, and metrics as Prometheus reads them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.host.clock import RandomIds, ScaledClock, SystemClock
from agent.host.metrics import Sample, text_of
from agent.host.systemd import Notifier


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "notify"))
        inbox.settimeout(5)
        yield inbox


def test_each_state_is_one_datagram(inbox: socket.socket) -> None:
    """What the unit of Type=notify waits for."""
    notifier = Notifier(inbox.getsockname())
    notifier.ready("3 stations")
    notifier.watchdog("all well")
    notifier.reloading()
    notifier.stopping()

    received = [inbox.recv(4096).decode() for _ in range(4)]
    assert received[0] == "READY=1\nSTATUS=3 stations"
    assert received[1] == "WATCHDOG=1\nSTATUS=all well"
    assert received[2].startswith("RELOADING=1")
    assert received[3] == "STOPPING=1"


def test_an_abstract_address_is_understood() -> None:
    """Systemd may give @name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(f"\0depot-agent-test-{time.monotonic_ns()}")
        inbox.settimeout(5)
        Notifier("@" + inbox.getsockname()[1:].decode()).ready("x")

        assert inbox.recv(100).startswith(b"READY=1")


def test_without_systemd_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a laptop, and when systemd is gone."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for notifier in (Notifier(), Notifier(str(tmp_path / "nobody"))):
        notifier.ready("x")
        notifier.stopping()


def test_the_address_comes_from_the_environment(
    inbox: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd sets it."""
    monkeypatch.setenv("NOTIFY_SOCKET", inbox.getsockname())
    Notifier().stopping()

    assert inbox.recv(100) == b"STOPPING=1"


def test_h1_a_systemd_that_does_not_read_never_blocks_the_daemon(
    inbox: socket.socket,
) -> None:
    """H1: a full socket must not hang the loop that feeds the watchdog."""
    inbox.setblocking(False)  # noqa: FBT003 - the socket's own signature
    notifier = Notifier(inbox.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)  # noqa: FBT003
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"x", inbox.getsockname())
    notifier.watchdog("still here")
    inbox.recv(10)
    notifier.watchdog("again")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20000000", 20.0),
        ("", None),
        ("0", None),
        ("-5", None),
        ("soon", None),
        (None, None),
    ],
)
def test_the_watchdog_interval_is_read(
    monkeypatch: pytest.MonkeyPatch, text: str | None, seconds: float | None
) -> None:
    """Microseconds; without it there is no watchdog."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if text is not None:
        monkeypatch.setenv("WATCHDOG_USEC", text)

    assert Notifier("").watchdog_s == seconds


def test_metrics_can_be_parsed_and_carry_their_labels() -> None:
    """Gauges, counters, and text that needs escaping."""
    nasty = 'CP"\n\\01'
    samples = [
        Sample(name="connected", help="Links", value=1, labels=(("station", nasty),)),
        Sample(name="connected", help="Links", value=0, labels=(("station", "CP-02"),)),
        Sample(name="frames", help="Frames", value=7, is_counter=True),
        Sample(name="cap_watts", help="Cap", value=400_000.5),
    ]
    families = {
        family.name: family
        for family in text_string_to_metric_families(text_of(lambda: samples).decode())
    }

    assert set(families) == {
        "depot_agent_connected",
        "depot_agent_frames",
        "depot_agent_cap_watts",
    }
    connected = families["depot_agent_connected"]
    assert (connected.type, connected.documentation) == ("gauge", "Links")
    assert {s.labels["station"]: s.value for s in connected.samples} == {
        nasty: 1.0,
        "CP-02": 0.0,
    }
    frames = families["depot_agent_frames"]
    assert frames.type == "counter"
    assert [(s.name, s.value) for s in frames.samples] == [
        ("depot_agent_frames_total", 7.0)
    ]
    assert families["depot_agent_cap_watts"].samples[0].value == 400_000.5


def test_no_samples_are_no_text() -> None:
    """An empty depot still answers."""
    assert text_of(list) == b""


def test_clocks_tell_aware_utc_and_a_scaled_one_runs_faster() -> None:
    """Only this module reads the clock."""
    start = datetime(2026, 1, 15, 18, tzinfo=UTC)
    scaled = ScaledClock(start, 1_000_000.0)
    deadline = time.monotonic() + 5
    while scaled.now() < start + timedelta(minutes=1):
        assert time.monotonic() < deadline

    assert SystemClock().now().utcoffset() == timedelta(0)


async def test_a_scaled_clock_wakes_in_order_and_waits_for_a_loop_that_is_late() -> None:
    """A machine that is busy makes a demo last longer; it does not make a depot slow."""
    start = datetime(2026, 1, 15, 18, tzinfo=UTC)
    scaled = ScaledClock(start, 100.0)
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await scaled.sleep(seconds)
        woken.append(seconds)
        assert scaled.now() >= start + timedelta(seconds=seconds)

    async with asyncio.TaskGroup() as tasks:
        for seconds in (3, 1, 2, 0, -1):
            tasks.create_task(sleeper(seconds))
    before = scaled.now()
    time.sleep(0.3)  # the loop is held up
    held_up_s = (scaled.now() - before).total_seconds()
    lost = asyncio.create_task(scaled.sleep(1))
    await asyncio.sleep(0)
    lost.cancel()
    await scaled.sleep(2)

    assert woken == [0, -1, 1, 2, 3]
    assert held_up_s < 3
    assert lost.cancelled()


def test_session_ids_sort_by_time_and_a_seed_replays_them() -> None:
    """Chance in one place."""
    start = datetime(2026, 1, 15, tzinfo=UTC)
    times = [start + timedelta(milliseconds=7 * n) for n in range(200)]
    ids, again = RandomIds(5), RandomIds(5)
    made = [ids.session_id(at) for at in times]

    assert made == sorted(set(made))
    assert made == [again.session_id(at) for at in times]
    assert {len(item) for item in made} == {15}
    assert 0 <= ids.chance() < 1
    assert 0 < ids.first_transaction_id() < 2**31
