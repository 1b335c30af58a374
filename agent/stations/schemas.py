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

from agent.domain.errors import StationFault

FOLDERS = {"ocpp1.6": "v16"}
ACTIONS = {"ocpp1.6": frozenset(str(item.value) for item in Action16)}
"""Names of all actions per subprotocol."""

_cache: dict[tuple[str, str], jsonschema_rs.Draft4Validator] = {}


@dataclass(frozen=True, slots=True)
class Breach:
    """A place where a payload breaks its schema, short enough for a log line."""

    text: str


def breach(version: str, name: str, payload: dict[str, Any]) -> Breach | None:
    """The first breach of a schema, or None. ``name`` as ``MeterValues``."""
    validator = _validator(version, name)
    if validator.is_valid(payload):
        return None
    for error in validator.iter_errors(payload):
        path = "/".join(str(part) for part in error.instance_path)
        return Breach(f"{path or '(top)'}: {error.message}"[:200])
    return None


def check_sent(version: str, name: str, payload: dict[str, Any]) -> None:
    """Refuse to send what breaks its schema. Raises StationFault."""
    found = breach(version, name, payload)
    if found is not None:
        raise StationFault(f"{name} would break its schema at {found.text}")


def is_action(version: str, action: str) -> bool:
    """Whether the version has an action of this name."""
    return action in ACTIONS[version]


def _validator(version: str, name: str) -> jsonschema_rs.Draft4Validator:
    key = (version, name)
    found = _cache.get(key)
    if found is None:
        folder = files("ocpp").joinpath(FOLDERS[version], "schemas")
        text = folder.joinpath(f"{name}.json").read_text(encoding="utf-8-sig")
        found = jsonschema_rs.Draft4Validator(orjson.loads(text))
        _cache[key] = found
    return found
