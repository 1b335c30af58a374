"""MeterValues in one pass: never another result than the general way, only sooner."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from agent.stations import framing, quick16, schemas
from agent.stations.quick16 import MeterValuesCall
from agent.stations.samples import SAMPLES_MAX, read_meter_values, read_typed
from agent.stations.times import parse_int

NOW = datetime(2026, 1, 15, 18, 0, 30, tzinfo=UTC)
SAMPLE = {
    "value": "1234.5",
    "context": "Sample.Periodic",
    "format": "Raw",
    "measurand": "Power.Active.Import",
    "phase": "L1-N",
    "location": "Outlet",
    "unit": "kW",
}
MOMENT = {"timestamp": "2026-01-15T18:00:00Z", "sampledValue": [SAMPLE, {"value": "5"}]}
PAYLOAD = {"connectorId": 1, "transactionId": 7, "meterValue": [MOMENT]}
FRAME = [2, "id-1", "MeterValues", PAYLOAD]

Path = tuple[int | str, ...]


def _paths(root: Any, at: Path = ()) -> list[Path]:
    """Where something stands in a message, the message itself left out."""
    inner = enumerate(root) if isinstance(root, list) else root.items()
    found: list[Path] = []
    for key, value in inner:
        found.append((*at, key))
        if isinstance(value, (list, dict)):
            found += _paths(value, (*at, key))
    return found


def _parent(root: Any, path: Path) -> Any:
    for key in path[:-1]:
        root = root[key]
    return root


def _with(path: Path, value: Any) -> list[Any]:
    frame = copy.deepcopy(FRAME)
    _parent(frame, path)[path[-1]] = value
    return frame


def _without(path: Path) -> list[Any]:
    frame = copy.deepcopy(FRAME)
    del _parent(frame, path)[path[-1]]
    return frame


def _more(path: Path, value: Any) -> list[Any]:
    """The frame with a field or an item too many beside a place."""
    frame = copy.deepcopy(FRAME)
    parent = _parent(frame, path)
    if isinstance(parent, list):
        parent.append(value)
    else:
        parent["vendorField"] = value
    return frame


def _agree(text: bytes) -> bool:
    """Hold what is typed against the general way; whether it was typed."""
    quick, slow = quick16.parse(text), framing.parse(text)
    if not isinstance(quick, MeterValuesCall):
        assert quick == slow
        return False
    assert isinstance(slow, framing.Call)
    assert (quick.message_id, quick.action) == (slow.message_id, slow.action)
    assert quick.size_bytes == slow.size_bytes == len(text)
    typed, payload = quick.typed, slow.payload
    assert typed.connector_id == parse_int(payload["connectorId"])
    assert typed.transaction_id == payload.get("transactionId", UNSET)
    readings, oddity = read_typed(typed.meter_value, NOW)
    slow_readings, slow_oddity = read_meter_values(payload["meterValue"], NOW)
    assert readings == slow_readings
    assert oddity == slow_oddity
    breach = schemas.breach(schemas.V16, "MeterValues", slow.payload)
    assert breach is None or ("is not a" in breach.text and oddity is not None)
    return True


def _enum(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([str(item.value) for item in getattr(quick16, name)])


SAMPLES = st.fixed_dictionaries(
    {"value": st.sampled_from(["0", "17.25", "-3", "1e4", "nan", "", "12,5", "x", " 7 "])},
    optional={
        "measurand": _enum("Measurand"),
        "phase": _enum("Phase"),
        "location": _enum("Location"),
        "unit": _enum("UnitOfMeasure"),
        "context": _enum("ReadingContext"),
        "format": _enum("ValueFormat"),
    },
)
TIMES = st.sampled_from(
    [
        "2026-01-15T18:00:00Z",
        "2026-01-15T18:00:00.123456Z",
        "2026-01-15T18:00:00.1234567899Z",
        "2026-01-15T19:00:00+01:00",
        "2026-01-15T18:00:00-00:00",
        "2026-01-15t18:00:00z",
        "2026-01-15 18:00:00Z",
        "2026-01-15T18:00:00+0100",
        "2026-02-29T18:00:00Z",
        "2026-01-15T18:00:00",
        "2026-01-15T24:00:00Z",
        "2026-01-15T18:00:60Z",
        "2026-12-31T23:59:60Z",
        "2026-01-15T18:60:00Z",
        "2026-01-15T18:00:00+24:00",
        "2026-01-15T18:00:00-23:60",
        "2026-01-15T18:00:00+23:59",
        "2026-13-15T18:00:00Z",
        "2026-00-15T18:00:00Z",
        "2026-01-32T18:00:00Z",
        "0000-01-15T18:00:00Z",
        "2026-01-15",
        "1970-01-01T00:00:00Z",
        "2099-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "yesterday",
    ]
) | st.from_regex(
    r"20[0-9]{2}-[0-3][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{0,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})",
    fullmatch=True,
    alphabet=st.characters(codec="ascii"),
)
MOMENTS = st.fixed_dictionaries(
    {"timestamp": TIMES, "sampledValue": st.lists(SAMPLES, min_size=1, max_size=12)}
)
PAYLOADS = st.fixed_dictionaries(
    {
        "connectorId": st.integers(-1, 40),
        "meterValue": st.lists(MOMENTS, min_size=1, max_size=4),
    },
    optional={"transactionId": st.integers(-(2**53) - 2, 2**53 + 2)},
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=70),
    st.just([]),
    st.just({}),
    st.sampled_from(["Wh", "N", "EV", "Raw", "SoC", "MeterValues", "Trigger"]),
)
PLACES = st.sampled_from(_paths(FRAME))


@given(PAYLOADS)
@example(
    {
        "connectorId": 0,
        "meterValue": [
            {"timestamp": "2026-01-15T18:00:60Z", "sampledValue": [{"value": "0"}]}
        ],
    }
)
def test_what_keeps_the_schema_is_read_as_the_general_way_reads_it(
    payload: dict[str, Any],
) -> None:
    _agree(orjson.dumps([2, "17", "MeterValues", payload]))


@given(PLACES, VALUES)
@example((0,), 2.0)
@example((3, "connectorId"), 1.0)
@example((3, "connectorId"), 1.5)
@example((3, "transactionId"), 2**53 + 2)
def test_another_value_anywhere_gives_what_the_general_way_gives(
    place: Path, value: Any
) -> None:
    for frame in (_with(place, value), _more(place, value)):
        _agree(orjson.dumps(frame))


@given(st.binary(max_size=6), st.integers(0, 400), st.integers(0, 6))
def test_damaged_bytes_give_what_the_general_way_gives(
    put: bytes, at: int, taken: int
) -> None:
    text = orjson.dumps(FRAME)
    _agree(text[:at] + put + text[at + taken :])


def test_the_usual_message_is_typed() -> None:
    assert _agree(orjson.dumps(FRAME))
    for place in (
        (3, "transactionId"),
        *((3, "meterValue", 0, "sampledValue", 0, name) for name in SAMPLE),
    ):
        is_needed = place[-1] == "value"
        assert _agree(orjson.dumps(_without(place))) is not is_needed


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(_with((1,), ""), id="no message id"),
        pytest.param(_with((1,), 17), id="a number as message id"),
        pytest.param(_with((1,), "x" * 65), id="a long message id"),
        pytest.param(_with((0,), 6), id="another message type"),
        pytest.param(_with((3, "connectorId"), "1"), id="a number as text"),
        pytest.param(_with((3, "meterValue"), []), id="nothing measured"),
        pytest.param(_more((3, "connectorId"), 1), id="a field that is not known"),
        pytest.param(_more((3,), 1), id="a fifth part"),
        pytest.param(
            _with((3, "meterValue", 0, "sampledValue", 0, "phase"), None), id="null"
        ),
        pytest.param(
            _with((3, "meterValue", 0, "sampledValue", 0, "unit"), "kwh"), id="another unit"
        ),
        pytest.param(
            _with((3, "meterValue", 0, "sampledValue", 0, "value"), 5), id="a bare number"
        ),
        pytest.param(
            _with((3, "meterValue", 0, "timestamp"), "2026-01-15T18:00:00"), id="no zone"
        ),
    ],
)
def test_what_breaks_the_schema_or_wants_good_will_goes_the_general_way(
    frame: list[Any],
) -> None:
    assert not _agree(orjson.dumps(frame))


def test_other_messages_and_text_go_the_general_way() -> None:
    heartbeat = b'[2,"1","Heartbeat",{}]'
    assert quick16.parse(heartbeat) == framing.parse(heartbeat)
    text = orjson.dumps(FRAME).decode()
    assert quick16.parse(text) == framing.parse(text)
    deep = b'[2,"1","MeterValues",' + b"[" * 100_000
    assert isinstance(quick16.parse(deep), framing.BadFrame)


def test_more_samples_than_are_read_are_told() -> None:
    frame = _with((3, "meterValue"), [{**MOMENT, "sampledValue": [SAMPLE] * 600}] * 2)
    found = quick16.parse(orjson.dumps(frame))
    assert isinstance(found, MeterValuesCall)
    readings, problem = read_typed(found.typed.meter_value, NOW)
    assert len(readings) == 2
    assert problem is not None
    assert str(SAMPLES_MAX) in problem
    assert _agree(orjson.dumps(frame))
