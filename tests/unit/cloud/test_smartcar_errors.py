"""Every shape of an error, and every row of the catalogue with its decision."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloud.smartcar_errors import (
    RULES,
    Action,
    ApiError,
    Holds,
    error_in,
    read_error,
    rule_of,
    seconds_of,
)

MIN, HOUR, DAY = 60.0, 3600.0, 86_400.0
ACCOUNT = "CONNECTED_SERVICES_ACCOUNT"
NONE: tuple[float, ...] = ()

# status, type:code, action, waits, what is held, whether a command is unsure
CATALOGUE: list[tuple[int, str, Action, tuple[float, ...], Holds, bool]] = [
    *[
        (400, name, Action.BUG, NONE, Holds.NOTHING, False)
        for name in (
            "VALIDATION", "VALIDATION:PARAMETER", "VALIDATION:MISSING_PARAMETER",
            "VALIDATION:INVALID_INPUT_FORMAT",
        )
    ],
    *[
        (400, f"{ACCOUNT}:{code}", Action.DRIVER, (DAY,), Holds.CAR, False)
        for code in (
            "ACCOUNT_ISSUE", "AUTHENTICATION_FAILED", "NO_VEHICLES", "VEHICLE_MISSING",
            "PERMISSION", "SUBSCRIPTION",
        )
    ],
    (400, f"{ACCOUNT}:VIRTUAL_KEY_REQUIRED", Action.NO_COMMANDS, NONE, Holds.NOTHING, False),
    (401, "AUTHENTICATION", Action.RENEW, (HOUR,), Holds.CAR, False),
    (401, "AUTHENTICATION:UNAUTHORIZED", Action.RENEW, (HOUR,), Holds.CAR, False),
    (403, "PERMISSION", Action.NO_PERMISSION, NONE, Holds.NOTHING, False),
    (403, "AUTHENTICATION:ACCESS_DENIED", Action.NO_PERMISSION, NONE, Holds.NOTHING, False),
    *[
        (404, f"RESOURCE_NOT_FOUND:{code}", Action.BUG, NONE, Holds.NOTHING, False)
        for code in ("PATH", "VERSION", "INVALID_PATH")
    ],
    (
        404, "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND", Action.NO_DATA, (HOUR, HOUR, HOUR),
        Holds.CAR, False,
    ),
    (404, "RESOURCE_NOT_FOUND", Action.NO_DATA, NONE, Holds.NOTHING, False),
    (409, "VEHICLE_STATE:ASLEEP", Action.STATE, (30 * MIN,), Holds.NOTHING, False),
    (
        409, "VEHICLE_STATE:UNREACHABLE", Action.STATE, (15 * MIN, 15 * MIN),
        Holds.COMMANDS, False,
    ),
    (409, "VEHICLE_STATE:UNKNOWN", Action.STATE, (5 * MIN, 10 * MIN), Holds.COMMANDS, False),
    (409, "VEHICLE_STATE:CHARGING_IN_PROGRESS", Action.DONE_ON_START, NONE, Holds.NOTHING, False),
    (409, "VEHICLE_STATE:NOT_CHARGING", Action.DONE_ON_STOP, NONE, Holds.NOTHING, False),
    *[
        (409, f"VEHICLE_STATE:{code}", Action.STATE, NONE, Holds.NOTHING, False)
        for code in (
            "CHARGING_PLUG_NOT_CONNECTED", "CHARGING_PLUG_CONNECTED", "FULLY_CHARGED",
            "CHARGE_FAULT", "DOOR_OPEN", "HOOD_OPEN", "TRUNK_OPEN", "SOMETHING_NEW",
        )
    ],
    (409, "VEHICLE_STATE:LOW_BATTERY", Action.STATE, (30 * MIN,), Holds.COMMANDS, False),
    (409, "VEHICLE_STATE:IGNITION_ON", Action.STATE, (10 * MIN,), Holds.COMMANDS, False),
    (409, "VEHICLE_STATE:IN_MOTION", Action.STATE, (10 * MIN,), Holds.COMMANDS, False),
    (409, "VEHICLE_STATE:REMOTE_ACCESS_DISABLED", Action.STATE, (DAY,), Holds.COMMANDS, False),
    (
        409, "VEHICLE_STATE:VEHICLE_OFFLINE_FOR_SERVICE", Action.STATE, (HOUR,),
        Holds.COMMANDS, False,
    ),
    (409, "VEHICLE_STATE:DEVICE_PAIRING_REQUIRED", Action.NO_COMMANDS, NONE, Holds.NOTHING, False),
    (409, "WHATEVER:DEVICE_PAIRING_REQUIRED", Action.NO_COMMANDS, NONE, Holds.NOTHING, False),
    (429, "RATE_LIMIT:SMARTCAR_API", Action.PAUSE_ALL, (30.0,), Holds.NOTHING, False),
    (429, "RATE_LIMIT:VEHICLE", Action.PAUSE_CAR, (120.0,), Holds.NOTHING, False),
    (430, "BILLING:VEHICLE_REQUEST_LIMIT", Action.MONTH_SPENT, NONE, Holds.NOTHING, False),
    *[
        (430, f"BILLING:{code}", Action.PLAN, (DAY,), Holds.CAR, False)
        for code in ("VEHICLE_LIMIT", "INVALID_PLAN", "ACCOUNT_SUSPENDED")
    ],
    (500, "SERVER:INTERNAL", Action.PASSING, (MIN, 5 * MIN, 15 * MIN), Holds.CAR, True),
    (500, "SERVER:RECORD_NOT_FOUND", Action.NO_DATA, NONE, Holds.NOTHING, False),
    (500, "SERVER:MULTIPLE_RECORDS_FOUND", Action.NO_DATA, NONE, Holds.NOTHING, False),
    *[
        (501, f"COMPATIBILITY:{code}", Action.NOT_CAPABLE, NONE, Holds.NOTHING, False)
        for code in ("VEHICLE_NOT_CAPABLE", "SMARTCAR_NOT_CAPABLE", "MAKE_NOT_COMPATIBLE")
    ],
    (501, "COMPATIBILITY:PLATFORM_NOT_CAPABLE", Action.DRIVER, (DAY,), Holds.CAR, False),
    *[
        (502, f"UPSTREAM:{code}", Action.PASSING, (5 * MIN, 20 * MIN), Holds.CAR, True)
        for code in ("NO_RESPONSE", "KNOWN_ISSUE", "UNKNOWN_ISSUE", "INVALID_DATA")
    ],
    (502, "UPSTREAM:RATE_LIMIT", Action.PASSING, (HOUR,), Holds.CAR, True),
    (504, "", Action.PASSING, (MIN,), Holds.NOTHING, True),
    (0, "NETWORK:NO_ANSWER", Action.PASSING, (MIN,), Holds.NOTHING, True),
    # Statuses that stand alone, as proxies answer them, and what nobody has seen yet.
    (401, "", Action.RENEW, (HOUR,), Holds.CAR, False),
    (403, "", Action.NO_PERMISSION, NONE, Holds.NOTHING, False),
    (404, "", Action.NO_DATA, NONE, Holds.NOTHING, False),
    (409, "", Action.STATE, NONE, Holds.NOTHING, False),
    (429, "", Action.PAUSE_ALL, (30.0,), Holds.NOTHING, False),
    (430, "", Action.MONTH_SPENT, NONE, Holds.NOTHING, False),
    (302, "", Action.PASSING, (5 * MIN,), Holds.NOTHING, False),
    (418, "NEW:THING", Action.BUG, NONE, Holds.NOTHING, False),
    (502, "", Action.PASSING, (5 * MIN, 20 * MIN), Holds.CAR, True),
    (503, "", Action.PASSING, (MIN, 5 * MIN, 15 * MIN), Holds.CAR, True),
]  # fmt: skip


def error(status: int, name: str) -> ApiError:
    kind, _, code = name.partition(":")
    return ApiError(http_status=status, type=kind, code=code)


@pytest.mark.parametrize(
    ("status", "name", "action", "waits", "holds", "is_unsure"),
    CATALOGUE,
    ids=[f"{row[0]} {row[1]}" for row in CATALOGUE],
)
def test_each_row_of_the_catalogue(
    status: int,
    name: str,
    action: Action,
    waits: tuple[float, ...],
    holds: Holds,
    is_unsure: bool,  # noqa: FBT001
) -> None:
    """smartcar.md section 8."""
    rule = rule_of(error(status, name))

    assert (rule.action, rule.waits_s, rule.holds) == (action, waits, holds)
    assert rule.is_unsure is is_unsure
    for number, wait_s in enumerate(waits, start=1):
        assert rule.wait_s(number) == wait_s
    assert rule.wait_s(len(waits) + 1) is None
    assert rule.wait_s(0) is None
    if holds is not Holds.NOTHING:
        assert rule.hold_s(len(waits) + 5) == waits[-1]


def test_no_row_is_out_of_reach() -> None:
    """Each is found by its own type and code."""
    for rule in RULES:
        kind = "X" if rule.type == "*" else rule.type
        code = rule.codes[0] if rule.codes else ""
        assert rule_of(ApiError(http_status=rule.status, type=kind, code=code)) is rule


def test_a_gateway_timeout_is_unsure_whatever_its_body_says() -> None:
    """The command may have gone through."""
    assert rule_of(error(504, "VEHICLE_STATE:ASLEEP")).is_unsure


def test_the_shape_of_v3() -> None:
    """The status inside counts: it may differ from the HTTP status (5.5)."""
    content = orjson.dumps(
        {
            "errors": [
                {
                    "status": "409", "type": "VEHICLE_STATE", "code": "ASLEEP",
                    "title": "Conflict", "detail": "It sleeps.\nDeeply",
                    "resolution": {"type": "RETRY_LATER"},
                    "meta": {"debug": {"requestId": "r-1"}},
                }
            ]
        }
    )  # fmt: skip
    found = read_error(202, {"sc-request-id": "r-0", "retry-after": "120"}, content)

    assert (found.http_status, found.name) == (409, "VEHICLE_STATE:ASLEEP")
    assert found.resolution == "RETRY_LATER"
    assert (found.request_id, found.retry_after_s) == ("r-1", 120)
    assert found.message == "It sleeps.·Deeply"
    assert str(found) == "409 VEHICLE_STATE:ASLEEP (It sleeps.·Deeply), request r-1"


@pytest.mark.parametrize(
    ("resolution", "shown"),
    [
        ({"type": "REAUTHENTICATE", "url": None}, "REAUTHENTICATE"),
        ("RETRY_LATER", "RETRY_LATER"),
        (None, ""),
        ({"type": None}, ""),
    ],
)
def test_the_flat_shape_of_v2(resolution: Any, shown: str) -> None:
    """Resolutions are an object, a text or nothing."""
    content = orjson.dumps(
        {
            "type": "RATE_LIMIT", "code": "VEHICLE", "description": "Too soon",
            "docURL": None, "statusCode": 429, "requestId": "r-2",
            "resolution": resolution,
        }
    )  # fmt: skip
    found = read_error(429, {}, content)

    assert (found.http_status, found.name) == (429, "RATE_LIMIT:VEHICLE")
    assert (found.resolution, found.request_id, found.message) == (shown, "r-2", "Too soon")


def test_the_shape_of_oauth() -> None:
    """Of both token hosts."""
    found = read_error(401, {}, b'{"error":"invalid_client","error_description":"No."}')

    assert (found.name, found.message) == ("OAUTH:invalid_client", "No.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html><h1>Bad Gateway</h1>", "HTML: <html>"),
        (b"upstream went away", "no JSON: upstream"),
        (b"", "an empty answer"),
        (b'{"message": "?"}', "no error object"),
        (b"[1, 2]", "no error object"),
        (b'{"errors": []}', "no error object"),
        (b'{"errors": ["text"]}', "no error object"),
        (b"\xff\xfe\x00", "no JSON"),
    ],
)
def test_what_proxies_answer(content: bytes, words: str) -> None:
    """Never assume JSON; the status decides."""
    found = read_error(502, {"sc-request-id": "r-3"}, content)

    assert words in found.message
    assert (found.http_status, found.name, found.request_id) == (502, "HTTP:502", "r-3")
    assert rule_of(found).is_unsure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120), ("0", 0), ("1.5", 1.5), ("999999999", DAY), ("-3", None),
        ("nan", None), ("inf", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, None),
        ("9" * 500, None),
    ],
)  # fmt: skip
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """Seconds, up to a day."""
    assert seconds_of(text) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "errors",
                    "error",
                    "type",
                    "code",
                    "status",
                    "statusCode",
                    "detail",
                    "meta",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 599))
def test_no_body_breaks_the_reader(body: Any, status: int) -> None:
    """Any JSON gives an error with bounded texts and a rule."""
    found = error_in(body, ApiError(http_status=status)) or ApiError(http_status=status)

    assert len(str(found)) < 500
    assert rule_of(found).action in Action
