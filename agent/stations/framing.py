"""Raw text -> checked frame, or a refusal with what can be answered. Pure.

The checks come before anything else sees the text: size, JSON, depth, shape, id, action.
OCPP-J 1.6 section 4; charger-quirks.md RPC; faults.md I1 to I6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

DEPTH_MAX = 32
"""The deepest OCPP payload (a 2.x profile with certificates) has 9 levels."""
MESSAGE_ID_MAX = 64
"""The standard says 36; some stations send longer ones; more is refused (I4)."""
ACTION_MAX = 64

CALL, CALL_RESULT, CALL_ERROR = 2, 3, 4
CALL_PARTS = 4
"""Type, id, action and payload: the usual CALL, which needs no closer look."""
CALL_RESULT_ERROR, SEND = 5, 6
"""Message types of 2.1 only (OCPP-J 2.1 section 4.2)."""
NO_ID = "-1"
"""Answers a frame whose id cannot be read, in 2.x (OCPP-J 2.0.1 section 4.2.3)."""
SPELLED_16 = "ocpp1.6"
_SPELLED_2 = {
    "FormationViolation": "FormatViolation",
    "OccurenceConstraintViolation": "OccurrenceConstraintViolation",
}

Payload = dict[str, Any]


@dataclass(slots=True)
class Call:
    """A request of the peer. Not frozen: made for every frame, and never shared."""

    message_id: str
    action: str
    payload: Payload
    size_bytes: int


@dataclass(slots=True)
class CallResult:
    """An answer to a call of ours."""

    message_id: str
    payload: Payload


@dataclass(slots=True)
class CallError:
    """A refusal of a call of ours."""

    message_id: str
    code: str
    description: str


@dataclass(slots=True)
class CallResultError:
    """The peer could not use an answer of ours (2.1)."""

    message_id: str
    code: str
    description: str


@dataclass(slots=True)
class Send:
    """A message that wants no answer (2.1)."""

    message_id: str
    action: str
    payload: Payload
    size_bytes: int


@dataclass(slots=True)
class BadFrame:
    """A frame that cannot be used; ``message_id`` when it can be answered."""

    reason: str
    code: str = "FormationViolation"
    message_id: str | None = None
    is_call: bool = False


Frame = Call | CallResult | CallError | CallResultError | Send | BadFrame


def parse(text: str | bytes) -> Frame:  # noqa: C901 - the usual CALL needs no helper
    """Check a text frame; never raises."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return BadFrame(reason=f"not JSON: {error}"[:160])
    if type(found) is not list or not found:
        return BadFrame(reason="not a JSON array")
    if _may_be_deep(text) and _is_deeper_than(found, DEPTH_MAX):
        return BadFrame(
            reason=f"nested deeper than {DEPTH_MAX} levels",
            message_id=_message_id(found),
            is_call=found[0] == CALL,
        )
    if len(found) == CALL_PARTS and found[0] == CALL:
        _, message_id, action, payload = found
        if (
            type(message_id) is str
            and type(action) is str
            and type(payload) is dict
            and 0 < len(message_id) <= MESSAGE_ID_MAX
            and 0 < len(action) <= ACTION_MAX
        ):
            return Call(message_id, action, payload, len(text))
    kind = found[0]
    message_id = _message_id(found)
    if message_id is None:
        return BadFrame(reason="no usable message id", is_call=kind == CALL)
    if kind == CALL:
        return _call(found, message_id, len(text))
    if kind == CALL_RESULT:
        payload = found[2] if len(found) > 2 else {}  # noqa: PLR2004 - OCPP-J 4.2.2
        return CallResult(message_id, payload if type(payload) is dict else {})
    if kind == CALL_ERROR:
        return _call_error(found, message_id)
    if kind == CALL_RESULT_ERROR:
        said = _call_error(found, message_id)
        return CallResultError(message_id, said.code, said.description)
    if kind == SEND:
        return _send(found, message_id, len(text))
    return BadFrame(reason=f"message type {str(kind)[:16]} is not known")


def result_frame(message_id: str, payload: Payload) -> str:
    """Write a CALLRESULT."""
    return orjson.dumps([CALL_RESULT, message_id, payload]).decode()


def error_frame(message_id: str, code: str, description: str) -> str:
    """Write a CALLERROR; the description is cut to what the standard allows."""
    frame = [CALL_ERROR, message_id, code, description[:255], {}]
    return orjson.dumps(frame).decode()


def spelled(code: str, version: str) -> str:
    """An error code in the spelling of a version (ocpp-depot.md C4)."""
    return code if version == SPELLED_16 else _SPELLED_2.get(code, code)


def call_frame(message_id: str, action: str, payload: Payload) -> str:
    """Write a CALL."""
    return orjson.dumps([CALL, message_id, action, payload]).decode()


def _call(found: list[Any], message_id: str, size_bytes: int) -> Call | BadFrame:
    if len(found) < 3:  # noqa: PLR2004 - OCPP-J 4.2.1
        return _bad_call(message_id, "a CALL without an action")
    action = found[2]
    if type(action) is not str or not action or len(action) > ACTION_MAX:
        return _bad_call(message_id, "the action is not a name", "NotImplemented")
    payload = found[3] if len(found) > 3 else {}  # noqa: PLR2004
    if payload is None or payload == []:
        payload = {}  # tolerated: RPC-05
    if type(payload) is not dict:
        return _bad_call(message_id, "the payload is not an object")
    return Call(message_id, action, payload, size_bytes)


def _send(found: list[Any], message_id: str, size_bytes: int) -> Send | BadFrame:
    call = _call(found, message_id, size_bytes)
    if isinstance(call, BadFrame):
        return BadFrame(reason=f"a SEND: {call.reason}")  # never answered
    return Send(message_id, call.action, call.payload, size_bytes)


def _bad_call(message_id: str, reason: str, code: str = "FormationViolation") -> BadFrame:
    return BadFrame(reason=reason, code=code, message_id=message_id, is_call=True)


def _call_error(found: list[Any], message_id: str) -> CallError:
    code = found[2] if len(found) > 2 else ""  # noqa: PLR2004
    description = found[3] if len(found) > 3 else ""  # noqa: PLR2004
    return CallError(message_id, str(code)[:64], str(description)[:255])


def _message_id(found: list[Any]) -> str | None:
    if len(found) < 2:  # noqa: PLR2004
        return None
    value = found[1]
    if type(value) is int:
        value = str(value)  # seen in the field; answered as text
    if type(value) is not str or not value or len(value) > MESSAGE_ID_MAX:
        return None
    return value


def _may_be_deep(text: str | bytes) -> bool:
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > DEPTH_MAX
    return text.count("[") + text.count("{") > DEPTH_MAX


def _is_deeper_than(root: Any, depth_max: int) -> bool:
    level: list[Any] = [root]
    for _ in range(depth_max):
        below: list[Any] = []
        for item in level:
            if type(item) is list:
                below.extend(part for part in item if type(part) in (list, dict))
            else:
                below.extend(p for p in item.values() if type(p) in (list, dict))
        if not below:
            return False
        level = below
    return True
