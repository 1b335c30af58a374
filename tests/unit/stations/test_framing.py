"""Every text is a frame or a refusal; nothing raises, nothing deep or huge gets through."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.stations import framing
from agent.stations.framing import (
    BadFrame,
    Call,
    CallError,
    CallResult,
    CallResultError,
    Send,
)

from .conftest import JSON_VALUES


def text_of_depth(levels: int) -> str:
    """A CALL whose array is level 1 and whose objects go down to ``levels``."""
    objects = levels - 1
    return (
        '[2,"7","Heartbeat",' + '{"a":' * (objects - 1) + "{}" + "}" * (objects - 1) + "]"
    )


@given(st.text() | st.binary())
def test_no_text_and_no_bytes_make_the_parser_raise(text: str | bytes) -> None:
    """The parser is total."""
    assert isinstance(
        framing.parse(text), (Call, CallResult, CallError, CallResultError, Send, BadFrame)
    )


@given(
    st.lists(JSON_VALUES | st.sampled_from([2, 3, 4, 5, 6, "id", "Heartbeat"]), max_size=6)
)
def test_any_json_array_becomes_a_checked_frame(array: list[Any]) -> None:
    """Whatever stands in the array, a frame's parts have their types."""
    frame = framing.parse(orjson.dumps(array))

    match frame:
        case Call():
            assert type(frame.message_id) is str
            assert type(frame.action) is str
            assert type(frame.payload) is dict
        case CallResult():
            assert type(frame.payload) is dict
        case Send():
            assert type(frame.action) is str
            assert type(frame.payload) is dict
        case CallError() | CallResultError():
            assert type(frame.code) is str
            assert type(frame.description) is str
        case BadFrame():
            assert frame.reason
            assert len(frame.reason) <= 200


def test_nesting_of_32_levels_is_read_and_of_33_is_refused() -> None:
    """The limit lies exactly where it is written."""
    fits, too_deep = text_of_depth(32), text_of_depth(33)
    assert _depth(orjson.loads(fits)) == 32
    assert _depth(orjson.loads(too_deep)) == 33

    assert isinstance(framing.parse(fits), Call)
    refused = framing.parse(too_deep)
    assert isinstance(refused, BadFrame)
    assert (refused.message_id, refused.is_call) == ("7", True)


def test_many_brackets_that_are_not_deep_are_read() -> None:
    """Only depth counts, not the number of brackets."""
    frame = framing.parse(
        orjson.dumps([2, "1", "MeterValues", {"a": [[] for _ in range(99)]}])
    )

    assert isinstance(frame, Call)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[2,"1","A",{"a":'])
def test_i1_nesting_of_200000_is_refused_quickly(opening: str) -> None:
    """I1: a bomb costs milliseconds, not the loop."""
    begun = time.perf_counter()
    frame = framing.parse(opening * 200_000)

    assert isinstance(frame, BadFrame)
    assert time.perf_counter() - begun < 0.2


@pytest.mark.parametrize(
    "value", ["9" * 5000, "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "0x10", "01"]
)
def test_i2_numbers_that_json_or_arithmetic_lacks_are_refused(value: str) -> None:
    """I2: no infinity and no endless integer enters."""
    frame = framing.parse(f'[2,"1","MeterValues",{{"a":{value}}}]')

    assert isinstance(frame, BadFrame)


@pytest.mark.parametrize(
    "message_id", [None, True, 1.5, [], {}, "", "x" * 65, ["x"], {"a": 1}]
)
def test_i4_a_call_whose_id_cannot_be_used_is_refused_and_not_answerable(
    message_id: Any,
) -> None:
    """Without an id there is nothing to answer (1.6: drop it)."""
    frame = framing.parse(orjson.dumps([2, message_id, "Heartbeat", {}]))

    assert isinstance(frame, BadFrame)
    assert frame.message_id is None


@pytest.mark.parametrize(
    ("message_id", "read_as"), [(17, "17"), (-1, "-1"), ("y" * 64, "y" * 64)]
)
def test_a_numeric_or_long_id_is_tolerated_as_text(message_id: Any, read_as: str) -> None:
    """Seen in the field; answered as text."""
    frame = framing.parse(orjson.dumps([2, message_id, "Heartbeat", {}]))

    assert isinstance(frame, Call)
    assert frame.message_id == read_as


@pytest.mark.parametrize("action", [["Heartbeat"], {}, None, 7, "", "A" * 65, True])
def test_i3_an_action_that_is_no_name_is_refused_but_answerable(action: Any) -> None:
    """I3: a list as the action kills the usual library; here it gets a CALLERROR."""
    frame = framing.parse(orjson.dumps([2, "9", action, {}]))

    assert isinstance(frame, BadFrame)
    assert (frame.message_id, frame.is_call, frame.code) == ("9", True, "NotImplemented")


@pytest.mark.parametrize("tail", ["", ",null", ",[]", ",{}"])
def test_a_missing_null_or_empty_payload_counts_as_an_empty_object(tail: str) -> None:
    """RPC-05: null or an array where an object is due."""
    frame = framing.parse(f'[2,"1","Heartbeat"{tail}]')

    assert isinstance(frame, Call)
    assert frame.payload == {}


@pytest.mark.parametrize("payload", ["text", 5, True, [1], [{}]])
def test_a_payload_that_is_no_object_is_refused_but_answerable(payload: Any) -> None:
    """The station learns that its call was malformed."""
    frame = framing.parse(orjson.dumps([2, "1", "Heartbeat", payload]))

    assert isinstance(frame, BadFrame)
    assert (frame.message_id, frame.is_call, frame.code) == (
        "1",
        True,
        "FormationViolation",
    )


@pytest.mark.parametrize("tail", ["", ",null", ",[]", ",5"])
def test_an_answer_without_an_object_counts_as_an_empty_answer(tail: str) -> None:
    """An answer always settles its call."""
    assert framing.parse(f'[3,"1"{tail}]') == CallResult("1", {})


def test_an_error_answer_of_wrong_types_is_still_an_answer() -> None:
    """Code and words become bounded text."""
    frame = framing.parse(orjson.dumps([4, "1", {"a": 1}, ["x" * 1000], 5]))

    assert isinstance(frame, CallError)
    assert len(frame.code) <= 64
    assert len(frame.description) <= 255


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "2", '"x"', "[2", "\ufeff[]", "\x00"]
)
def test_text_that_is_no_frame_is_refused(text: str) -> None:
    """RPC-01: truncated, empty, or something else."""
    frame = framing.parse(text)

    assert isinstance(frame, BadFrame)
    assert not frame.is_call


def test_an_unknown_message_type_is_refused_without_an_answer() -> None:
    """1.6: ignore it."""
    frame = framing.parse('[7,"1","InternalError","",{}]')

    assert isinstance(frame, BadFrame)
    assert not frame.is_call


def test_frames_of_2_1_are_read() -> None:
    """CALLRESULTERROR and SEND, OCPP-J 2.1 sections 4.2.3 and 4.2.4."""
    error = framing.parse('[5,"7","FormatViolation","no",{}]')
    send = framing.parse('[6,"8","NotifyPeriodicEventStream",{"id":1}]')

    assert error == CallResultError("7", "FormatViolation", "no")
    assert isinstance(send, Send)
    assert (send.action, send.payload) == ("NotifyPeriodicEventStream", {"id": 1})


@pytest.mark.parametrize("text", ['[6,"8"]', '[6,"8",5,{}]', '[6,"8","X",7]'])
def test_a_broken_send_is_never_answered(text: str) -> None:
    """Nobody waits for the answer."""
    frame = framing.parse(text)

    assert isinstance(frame, BadFrame)
    assert not frame.is_call


@pytest.mark.parametrize(
    ("code", "version", "shown"),
    [
        ("FormationViolation", "ocpp1.6", "FormationViolation"),
        ("FormationViolation", "ocpp2.0.1", "FormatViolation"),
        ("OccurenceConstraintViolation", "ocpp2.1", "OccurrenceConstraintViolation"),
        ("NotSupported", "ocpp2.1", "NotSupported"),
    ],
)
def test_error_codes_are_spelled_as_the_version_spells_them(code, version, shown) -> None:
    """OCPP-J 1.6 section 4.2.3 against 2.1 section 4.3."""
    assert framing.spelled(code, version) == shown


@given(st.text(max_size=400), st.text(min_size=1, max_size=20))
def test_what_is_written_can_be_read_back(words: str, message_id: str) -> None:
    """Our own frames keep their content, errors within the standard's length."""
    error = framing.parse(framing.error_frame(message_id, "GenericError", words))
    result = framing.parse(framing.result_frame(message_id, {"words": words}))
    call = framing.parse(framing.call_frame(message_id, "Reset", {"words": words}))

    assert error == CallError(message_id, "GenericError", words[:255])
    assert result == CallResult(message_id, {"words": words})
    assert isinstance(call, Call)
    assert (call.action, call.payload) == ("Reset", {"words": words})


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0
