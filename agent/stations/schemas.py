"""Schemas of the ``ocpp`` package, compiled once; soft on receipt, strict on sending.

Only actions in the package's own list are looked up, so that no peer can choose a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jsonschema_rs
import orjson
from ocpp.v16.enums import Action as Action16
from ocpp.v21.enums import Action as Action21
from ocpp.v201.enums import Action as Action201

from agent.domain.errors import StationFault

V16, V201, V21 = "ocpp1.6", "ocpp2.0.1", "ocpp2.1"
"""Names of the subprotocols, which name the versions everywhere."""
SEND_ONLY = "NotifyPeriodicEventStream"
"""The one message of 2.1 that has no answer; the package's list of actions lacks it."""

FOLDERS = {V16: "v16", V201: "v201", V21: "v21"}
ACTIONS = {
    V16: frozenset(str(item.value) for item in Action16),
    V201: frozenset(str(item.value) for item in Action201),
    V21: frozenset({*(str(item.value) for item in Action21), SEND_ONLY}),
}
"""Names of all actions per subprotocol."""

Validator = jsonschema_rs.Draft4Validator | jsonschema_rs.Draft6Validator

_cache: dict[tuple[str, str], Validator] = {}


@dataclass(frozen=True, slots=True)
class Breach:
    """A place where a payload breaks its schema, short enough for a log line."""

    text: str


def breach(version: str, name: str, payload: dict[str, Any]) -> Breach | None:
    """The first breach of a request's schema, or None. ``name`` as ``MeterValues``."""
    validator = _cache.get((version, name)) or _validator(version, name)
    return None if validator.is_valid(payload) else _first(validator, payload)


def _first(validator: Validator, payload: dict[str, Any]) -> Breach | None:
    for error in validator.iter_errors(payload):
        path = "/".join(str(part) for part in error.instance_path)
        return Breach(f"{path or '(top)'}: {error.message}"[:200])
    return None


def check_sent(version: str, name: str, payload: dict[str, Any]) -> None:
    """Refuse to send what breaks its schema. Raises StationFault.

    The value is not shown: what an operator sends may be a password.
    """
    if breach(version, name, payload) is None:
        return
    found = _first(_validator(version, name, mask="the value"), payload)
    if found is not None:
        raise StationFault(f"{name} would break its schema at {found.text}")


def is_action(version: str, action: str) -> bool:
    """Whether the version has an action of this name."""
    return action in ACTIONS[version]


def _validator(version: str, name: str, mask: str | None = None) -> Validator:
    key = (version, name)
    found = _cache.get(key)
    if found is None or mask is not None:
        folder = files("ocpp").joinpath(FOLDERS[version], "schemas")
        file = name if version == V16 or name == SEND_ONLY else f"{name}Request"
        schema = orjson.loads(folder.joinpath(f"{file}.json").read_bytes().lstrip(BOM))
        kind = (
            jsonschema_rs.Draft4Validator
            if version == V16
            else jsonschema_rs.Draft6Validator
        )
        if mask is not None:
            return kind(schema, mask=mask)
        found = _cache.setdefault(key, kind(schema))
    return found


BOM = b"\xef\xbb\xbf"
"""Some of the package's files begin with it."""
