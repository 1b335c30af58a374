"""Every shape of a Smartcar error reduced to one, and what to do about each.

The shapes are those of smartcar.md section 7: v3 ``errors[]``, the flat object of v2.0,
OAuth's, and whatever a proxy answers. ``RULES`` is the catalogue of section 8 as data:
first match by type and code, then by type, then by HTTP status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

TEXT_MAX = 160
"""Characters of a cloud's words that are kept."""
CODE_MAX = 60
WAIT_MAX_S = 86_400.0
"""A Retry-After above a day is taken for a day."""
DAY_S = 86_400.0
HOUR_S = 3600.0
FIRST_SERVER_FAULT = 500
CAR_THROTTLE_S = 120.0
"""Assumed for RATE_LIMIT:VEHICLE without Retry-After; the wait seen in the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """One error, whatever shape it had; texts are bounded and may be empty."""

    http_status: int
    type: str = ""
    code: str = ""
    resolution: str = ""
    retry_after_s: float | None = None
    request_id: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """``TYPE:CODE``, or the status where the cloud said nothing of use."""
        if self.type and self.code:
            return f"{self.type}:{self.code}"
        return self.type or self.code or f"HTTP:{self.http_status}"

    def __str__(self) -> str:
        """Say it in one line for a log or a technician."""
        text = f"{self.http_status} {self.name}"
        if self.message:
            text += f" ({self.message})"
        return f"{text}, request {self.request_id}" if self.request_id else text


class Action(StrEnum):
    """What an error means for the agent."""

    BUG = "bug"
    """Our request is wrong: tell loudly."""
    DRIVER = "driver"
    """The driver must do something; one request a day until then."""
    NO_COMMANDS = "no-commands"
    """Commands never work for this car; reads may."""
    NO_PERMISSION = "no-permission"
    """The capability was not granted; until the driver consents anew."""
    NOT_CAPABLE = "not-capable"
    """Never works for this car; looked at again after a month."""
    RENEW = "renew"
    """The token: renew it and repeat once."""
    NO_DATA = "no-data"
    STATE = "state"
    """The car's state forbids it just now."""
    DONE_ON_START = "done-on-start"
    DONE_ON_STOP = "done-on-stop"
    PAUSE_ALL = "pause-all"
    PAUSE_CAR = "pause-car"
    MONTH_SPENT = "month-spent"
    PLAN = "plan"
    """The contract with Smartcar: an operator must act."""
    PASSING = "passing"
    """A fault of the cloud or of the maker's cloud, which may pass."""


class Holds(StrEnum):
    """What stays silent while a rule's wait lasts."""

    NOTHING = "nothing"
    COMMANDS = "commands"
    CAR = "car"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A row of the catalogue; no codes means every code of the type.

    ``waits_s`` has the wait before each further try; when they are used up (or there
    are none) a repeat cannot help. ``is_unsure``: a command may have had its effect.
    """

    status: int
    type: str
    codes: tuple[str, ...]
    action: Action
    waits_s: tuple[float, ...] = ()
    holds: Holds = Holds.NOTHING
    is_unsure: bool = False

    def wait_s(self, failures: int) -> float | None:
        """Seconds to wait after the n-th failure in a row; None: a repeat cannot help."""
        return self.waits_s[failures - 1] if 0 < failures <= len(self.waits_s) else None

    def hold_s(self, failures: int) -> float:
        """Seconds that what ``holds`` names stays silent after the n-th failure."""
        if not self.waits_s or self.holds is Holds.NOTHING:
            return 0.0
        return self.waits_s[min(max(failures, 1), len(self.waits_s)) - 1]


def _row(
    status: int,
    name: str,
    action: Action,
    *waits_s: float,
    holds: Holds = Holds.NOTHING,
    is_unsure: bool = False,
) -> Rule:
    kind, _, codes = name.partition(":")
    return Rule(
        status=status,
        type=kind,
        codes=tuple(codes.split()),
        action=action,
        waits_s=waits_s,
        holds=holds,
        is_unsure=is_unsure,
    )


_CAR, _COMMANDS = Holds.CAR, Holds.COMMANDS
_ACCOUNT = "CONNECTED_SERVICES_ACCOUNT"

# Waits that no source gives are *inferred* in smartcar.md section 8; they stand only here.
RULES: tuple[Rule, ...] = (
    _row(400, "VALIDATION", Action.BUG),
    _row(400, f"{_ACCOUNT}:VIRTUAL_KEY_REQUIRED", Action.NO_COMMANDS),
    _row(400, _ACCOUNT, Action.DRIVER, DAY_S, holds=_CAR),
    _row(403, "AUTHENTICATION:ACCESS_DENIED", Action.NO_PERMISSION),
    _row(401, "AUTHENTICATION", Action.RENEW, HOUR_S, holds=_CAR),
    _row(403, "PERMISSION", Action.NO_PERMISSION),
    _row(404, "RESOURCE_NOT_FOUND:PATH VERSION INVALID_PATH", Action.BUG),
    _row(
        404,
        "RESOURCE_NOT_FOUND:VEHICLE_NOT_FOUND",
        Action.NO_DATA,
        HOUR_S,
        HOUR_S,
        HOUR_S,
        holds=_CAR,
    ),
    _row(404, "RESOURCE_NOT_FOUND", Action.NO_DATA),
    _row(409, "*:DEVICE_PAIRING_REQUIRED", Action.NO_COMMANDS),
    _row(409, "VEHICLE_STATE:ASLEEP", Action.STATE, 1800),
    _row(409, "VEHICLE_STATE:UNREACHABLE", Action.STATE, 900, 900, holds=_COMMANDS),
    _row(409, "VEHICLE_STATE:UNKNOWN", Action.STATE, 300, 600, holds=_COMMANDS),
    _row(409, "VEHICLE_STATE:CHARGING_IN_PROGRESS", Action.DONE_ON_START),
    _row(409, "VEHICLE_STATE:NOT_CHARGING", Action.DONE_ON_STOP),
    _row(
        409,
        "VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED CHARGING_PLUG_CONNECTED "
        "FULLY_CHARGED CHARGE_FAULT DOOR_OPEN HOOD_OPEN TRUNK_OPEN",
        Action.STATE,
    ),
    _row(
        409,
        "VEHICLE_STATE:LOW_BATTERY BATTERY_LOW",
        Action.STATE,
        1800,
        holds=_COMMANDS,
    ),
    _row(409, "VEHICLE_STATE:IGNITION_ON IN_MOTION", Action.STATE, 600, holds=_COMMANDS),
    _row(409, "VEHICLE_STATE:REMOTE_ACCESS_DISABLED", Action.STATE, DAY_S, holds=_COMMANDS),
    _row(
        409,
        "VEHICLE_STATE:VEHICLE_OFFLINE_FOR_SERVICE",
        Action.STATE,
        HOUR_S,
        holds=_COMMANDS,
    ),
    _row(409, "VEHICLE_STATE", Action.STATE),
    _row(429, "RATE_LIMIT:SMARTCAR_API", Action.PAUSE_ALL, 30),
    _row(429, "RATE_LIMIT:VEHICLE", Action.PAUSE_CAR, CAR_THROTTLE_S),
    _row(430, "BILLING:VEHICLE_REQUEST_LIMIT", Action.MONTH_SPENT),
    _row(430, "BILLING", Action.PLAN, DAY_S, holds=_CAR),
    _row(500, "SERVER:RECORD_NOT_FOUND MULTIPLE_RECORDS_FOUND", Action.NO_DATA),
    _row(500, "SERVER", Action.PASSING, 60, 300, 900, holds=_CAR, is_unsure=True),
    _row(501, "COMPATIBILITY:PLATFORM_NOT_CAPABLE", Action.DRIVER, DAY_S, holds=_CAR),
    _row(501, "COMPATIBILITY", Action.NOT_CAPABLE),
    _row(502, "UPSTREAM:RATE_LIMIT", Action.PASSING, HOUR_S, holds=_CAR, is_unsure=True),
    _row(502, "UPSTREAM", Action.PASSING, 300, 1200, holds=_CAR, is_unsure=True),
)
"""Section 8, one row after another; ``*`` stands for every type."""

BY_STATUS: Mapping[int, Rule] = {
    401: _row(401, "", Action.RENEW, HOUR_S, holds=_CAR),
    403: _row(403, "", Action.NO_PERMISSION),
    404: _row(404, "", Action.NO_DATA),
    408: _row(408, "", Action.PASSING, 60, is_unsure=True),
    409: _row(409, "", Action.STATE),
    # Which limit a bare 429 means is not said: the shared one is the safe reading.
    429: _row(429, "", Action.PAUSE_ALL, 30),
    430: _row(430, "", Action.MONTH_SPENT),
    501: _row(501, "", Action.NOT_CAPABLE),
    502: _row(502, "", Action.PASSING, 300, 1200, holds=_CAR, is_unsure=True),
    504: _row(504, "", Action.PASSING, 60, is_unsure=True),
}
"""Where neither type nor code is known; proxies answer so."""

UNHEARD = _row(0, "", Action.PASSING, 60, is_unsure=True)
"""A network error or our own time-out: reads once more after 60 s."""
_OTHER_SERVER = _row(500, "", Action.PASSING, 60, 300, 900, holds=_CAR, is_unsure=True)
_REDIRECT = _row(300, "", Action.PASSING, 300)
"""Nobody follows it: a captive portal, or an address that has moved."""
_OTHER = _row(400, "", Action.BUG)


def rule_of(error: ApiError) -> Rule:
    """Find the row of the catalogue for an error; unknown ones are not repeated."""
    if error.http_status == 0:
        return UNHEARD
    if error.http_status == 504:  # noqa: PLR2004 - whatever the body says, it is unsure
        return BY_STATUS[504]
    by_type: Rule | None = None
    for rule in RULES:
        if rule.codes and error.code in rule.codes and rule.type in ("*", error.type):
            return rule
        if not rule.codes and rule.type == error.type and by_type is None:
            by_type = rule
    if by_type is not None:
        return by_type
    if error.http_status in BY_STATUS:
        return BY_STATUS[error.http_status]
    if 300 <= error.http_status <= 399:  # noqa: PLR2004
        return _REDIRECT
    return _OTHER_SERVER if error.http_status >= FIRST_SERVER_FAULT else _OTHER


# --- shapes ---------------------------------------------------------------------------


def read_error(status: int, headers: Mapping[str, str], content: bytes) -> ApiError:
    """Reduce an answer that is no success; ``headers`` have lower-case names."""
    base = ApiError(
        http_status=status,
        retry_after_s=seconds_of(headers.get("retry-after")),
        request_id=_text(headers.get("sc-request-id"), CODE_MAX),
    )
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return replace(base, message=_unreadable(content))
    found = error_in(body, base)
    return found if found is not None else replace(base, message="no error object in it")


def error_in(body: Any, base: ApiError) -> ApiError | None:
    """The error object of a JSON body, in any of the shapes, or None."""
    if not isinstance(body, dict):
        return None
    errors = body.get("errors")
    if isinstance(errors, list):
        first = next((item for item in errors if isinstance(item, dict)), None)
        return None if first is None else item_error(first, base)
    if isinstance(body.get("error"), str):
        return replace(
            base,
            type="OAUTH",
            code=_text(body["error"], CODE_MAX),
            message=_text(body.get("error_description"), TEXT_MAX),
        )
    if isinstance(body.get("type"), str) and ("statusCode" in body or "code" in body):
        return item_error(body, base)
    return None


def item_error(item: Mapping[str, Any], base: ApiError) -> ApiError:
    """Reduce one error object: of v3, of v2.0, or of a signal."""
    inner = status_of(item.get("status", item.get("statusCode")))
    words = item.get("detail")
    if not isinstance(words, str) or not words:
        words = item.get("description") or item.get("title")
    debug = item.get("meta")
    debug = debug.get("debug") if isinstance(debug, dict) else None
    request_id = item.get("requestId") or (
        debug.get("requestId") if isinstance(debug, dict) else None
    )
    resolution = item.get("resolution")
    if isinstance(resolution, dict):
        resolution = resolution.get("type")
    return replace(
        base,
        http_status=inner or base.http_status,
        type=_text(item.get("type"), CODE_MAX),
        code=_text(item.get("code"), CODE_MAX),
        resolution=_text(resolution, CODE_MAX),
        request_id=_text(request_id, CODE_MAX) or base.request_id,
        message=_text(words, TEXT_MAX),
    )


def status_of(raw: Any) -> int | None:
    """An HTTP status as v3 writes it, a text, or as v2.0 does, a number."""
    if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) == 3:  # noqa: PLR2004
        raw = int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool) and 100 <= raw <= 599:  # noqa: PLR2004
        return raw
    return None


def seconds_of(text: str | None) -> float | None:
    """Seconds of a Retry-After header, up to a day; the date form says nothing here."""
    try:
        found = float(text) if text is not None and len(text) <= CODE_MAX else math.nan
    except ValueError:
        return None
    return min(found, WAIT_MAX_S) if math.isfinite(found) and found >= 0 else None


def _text(raw: Any, length: int) -> str:
    if not isinstance(raw, str):
        return ""
    shown = raw[:length]
    return "".join(char if char.isprintable() else "·" for char in shown)


def _unreadable(content: bytes) -> str:
    text = _text(content[:60].decode("utf-8", "replace").strip(), 60)
    if not text:
        return "an empty answer"
    return f"{'HTML' if text.startswith('<') else 'no JSON'}: {text}"
