"""structlog as one JSON object a line: peer text cleaned, secrets out, storms damped."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog

TEXT_MAX = 300
"""Longest text of a field; peer text is cut shorter where it is read."""
DEPTH_MAX = 4
ITEMS_MAX = 100
"""No line of ours is deeper or longer; a peer's payload could be."""
STORM_S = 60.0
STORM_FREE = 20
"""Lines of one event and station a minute; the rest is counted (faults.md L3)."""
DAMPED = frozenset(
    {
        "frame_refused", "station_refused", "answer_unmatched", "anomaly_recorded",
        "action_unknown", "data_transfer_received", "record_not_stored",
        "call_timed_out", "link_replaced", "security_event_reported", "station_notified",
        "tls_handshake_failed", "source_blocked", "security_alarm_raised",
    }
)  # fmt: skip
"""Events that a peer can cause at will."""
SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key")

EventDict = MutableMapping[str, Any]


def clean(text: str, length: int = TEXT_MAX) -> str:
    """Make text safe for a log line: printable, one line, bounded (faults.md L1)."""
    shown = text if len(text) <= length else text[: length - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else "·" for char in shown)


def _safe(_: object, __: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if _is_secret(name):
            fields[name] = "(secret)"
        elif name != "exception":
            fields[name] = _shown(value, DEPTH_MAX)
    return fields


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return name != "id_token" and any(word in lowered for word in SECRET_WORDS)


def _shown(value: Any, depth: int) -> Any:
    """A field's value with every text in it cleaned, names of inner fields too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict) and depth > 0:
        return {
            clean(str(name)): "(secret)"
            if _is_secret(str(name))
            else _shown(item, depth - 1)
            for name, item in list(value.items())[:ITEMS_MAX]
        }
    if isinstance(value, (list, tuple, set, frozenset)) and depth > 0:
        return [_shown(item, depth - 1) for item in list(value)[:ITEMS_MAX]]
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return clean(str(value))
    return value


class _Damper:
    """Lets the first lines of a storm through and counts the rest."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, object], tuple[float, int]] = {}

    def __call__(self, _: object, __: str, fields: EventDict) -> EventDict:
        name = fields.get("event", "")
        if name not in DAMPED:
            return fields
        # An address where there is one: a peer can invent a new id for every line.
        key = (name, fields.get("address", fields.get("station_id")))
        now = time.monotonic()
        since, count = self._seen.get(key, (now, 0))
        if now - since > STORM_S:
            if count > STORM_FREE:
                fields["left_out"] = count - STORM_FREE
            since, count = now, 0
        if len(self._seen) > 1000:  # noqa: PLR2004 - forget all rather than grow
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        if count >= STORM_FREE:
            raise structlog.DropEvent
        return fields


def _order(_: object, __: str, fields: EventDict) -> EventDict:
    first = {
        name: fields.pop(name) for name in ("timestamp", "level", "event") if name in fields
    }
    return {**first, **fields}


def _json(_: object, __: str, fields: EventDict) -> str:
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a huge integer or half a character, deep inside: still a line
        return orjson.dumps(
            {name: clean(str(value)) for name, value in fields.items()}
        ).decode()


def set_up(*, level: str, style: str, stream: TextIO | None = None) -> None:
    """Configure logging for the process; ``style`` is ``json`` or ``console``."""
    renderer: Any = _json if style == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _Damper(),
            structlog.processors.format_exc_info,
            _safe,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stdout),
        cache_logger_on_first_use=False,
    )
    # Libraries log whole frames and addresses: only their warnings, and to stderr.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("ocpp").setLevel(logging.CRITICAL)
