"""One JSON object a line: clean, bounded, without secrets, and quiet in a storm."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from agent.host import logs
from agent.host.events import EVENTS
from tests.support.properties import examples

Read = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.level, list(root.handlers), structlog.get_config())
    logs.set_up(level="debug", style="json", stream=stream)
    yield stream
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    structlog.configure(**before[2])


@pytest.fixture
def read(stream: io.StringIO) -> Read:
    def lines() -> list[dict[str, Any]]:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [orjson.loads(line) for line in text.splitlines()]

    return lines


def log(event: str, **fields: Any) -> None:
    structlog.get_logger().info(event, **fields)


def test_a_line_begins_with_time_level_and_event(stream: io.StringIO) -> None:
    """Contract section 5."""
    log("station_connected", station_id="CP-01", at=1)
    line = orjson.loads(stream.getvalue())

    assert list(line) == ["timestamp", "level", "event", "station_id", "at"]
    assert (line["level"], line["event"]) == ("info", "station_connected")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "\x1b[31mred", "\u202eevil", "\x00", "\u2028", "\ud800"]
)
def test_l1_peer_text_is_printable_and_stays_on_one_line(
    stream: io.StringIO, text: str
) -> None:
    """L1: newline, ANSI, direction marks; also inside lists."""
    log("frame_refused", reason=text, many=[text, "ok"])
    written = stream.getvalue()

    assert written.count("\n") == 1
    line = orjson.loads(written)
    assert line["reason"].isprintable()
    assert all(item.isprintable() for item in line["many"])
    assert line["many"][1] == "ok"


def test_l1_a_text_of_a_megabyte_is_cut(read: Read) -> None:
    """L1: bounded, and seen to be cut."""
    log("frame_refused", reason="x" * 1_000_000)
    (line,) = read()

    assert len(line["reason"]) == logs.TEXT_MAX
    assert line["reason"].endswith("…")


@given(text=st.text(st.characters()))
def test_cleaning_is_total_and_done_once(text: str) -> None:
    """Printable, bounded, and nothing left to clean."""
    cleaned = logs.clean(text)

    assert cleaned.isprintable()
    assert len(cleaned) <= logs.TEXT_MAX
    assert logs.clean(cleaned) == cleaned


@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=5)
        | st.text(st.characters(), max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    )
)  # fmt: skip
@example(value=2**70)
@example(value={"deep": ["\ud800"]})
def test_no_value_makes_logging_raise(read: Read, value: Any) -> None:
    """A log line must never cost a link."""
    log("agent_started", value=value)

    assert len(read()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "refresh_token",
        "client_secret",
        "Authorization",
        "api_key",
        "new_password_2",
    ],
)
def test_l2_a_secret_by_name_is_never_written(stream: io.StringIO, name: str) -> None:
    """L2: defence in depth."""
    log("agent_started", **{name: "hunter2", "id_token": "VID:1"})

    assert "hunter2" not in stream.getvalue()
    assert orjson.loads(stream.getvalue())["id_token"] == "VID:1"


def test_an_exception_is_one_line_too(stream: io.StringIO) -> None:
    """A traceback is a field."""
    try:
        {"other": 1}["what\nnow"]
    except KeyError:
        structlog.get_logger().exception("link_failed", station_id="CP-01")

    assert stream.getvalue().count("\n") == 1
    assert "KeyError" in orjson.loads(stream.getvalue())["exception"]


def test_l3_a_storm_is_damped_and_counted(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: the first lines, then one a minute with the count."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(500):
        log("frame_refused", station_id="CP-01")
    assert len(read()) == logs.STORM_FREE
    log("frame_refused", station_id="CP-02")
    assert len(read()) == 1
    now += logs.STORM_S + 1
    log("frame_refused", station_id="CP-01")
    (line,) = read()

    assert line["left_out"] == 500 - logs.STORM_FREE


def test_what_no_peer_can_cause_is_never_damped(read: Read) -> None:
    """A session's start must not be left out."""
    for _ in range(100):
        log("session_started", station_id="CP-01")

    assert len(read()) == 100


def test_a1_a_flood_of_invented_ids_from_one_address_is_one_storm(read: Read) -> None:
    """A1: 10,000 unknown stations must not write 10,000 lines."""
    for number in range(1000):
        log("station_refused", station_id=f"X{number}", status=404, address="10.0.0.66")
    log("station_refused", station_id="CP-02", status=401, address="10.0.0.7")

    assert len(read()) == logs.STORM_FREE + 1


def test_the_memory_of_storms_is_bounded(read: Read) -> None:
    """Many addresses, many stations."""
    for number in range(3000):
        log("frame_refused", station_id=f"X{number}")
    read()
    dampers = [
        p for p in structlog.get_config()["processors"] if isinstance(p, logs._Damper)
    ]

    assert len(dampers[0]._seen) <= 1001


def test_damped_events_exist() -> None:
    """A renamed event would be undamped."""
    assert set(EVENTS) >= logs.DAMPED


def test_the_level_is_kept(stream: io.StringIO) -> None:
    """Quiet when asked to be quiet."""
    logs.set_up(level="warning", style="json", stream=stream)
    log("agent_started")
    structlog.get_logger().warning("cap_at_risk")

    assert [orjson.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "cap_at_risk"
    ]


def test_console_style_is_for_people(stream: io.StringIO) -> None:
    """Not JSON, same words."""
    logs.set_up(level="info", style="console", stream=stream)
    log("agent_started", station_id="CP-01")

    assert "agent_started" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_libraries_that_log_whole_frames_are_silent(stream: io.StringIO) -> None:
    """style.md section 8: frames and headers hold secrets."""
    del stream
    for name in ("websockets", "websockets.server", "ocpp"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
