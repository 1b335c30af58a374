"""The official 2.x schemas, by which a virtual station judges the calls that it gets."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = {"2.0.1": "v201", "2.1": "v21"}
REQUEST = "Request"
CODES = {  # by the keyword of the schema that is broken
    "required": "OccurrenceConstraintViolation",
    "minItems": "OccurrenceConstraintViolation",
    "maxItems": "OccurrenceConstraintViolation",
    "type": "TypeConstraintViolation",
    "enum": "PropertyConstraintViolation",
    "format": "PropertyConstraintViolation",
    "maxLength": "PropertyConstraintViolation",
    "maximum": "PropertyConstraintViolation",
    "minimum": "PropertyConstraintViolation",
}
TEXT_MAX = 200


@cache
def actions(version: str) -> frozenset[str]:
    """Name all actions of a version."""
    names = (each.name for each in _folder(version).iterdir())
    end = f"{REQUEST}.json"
    return frozenset(each.removesuffix(end) for each in names if each.endswith(end))


def breaches(version: str, name: str, payload: Any) -> Iterator[tuple[str, str]]:
    """List what in a payload breaks the schema `name`: keyword and text."""
    for error in _validator(version, name).iter_errors(payload):
        path = "/".join(str(part) for part in error.instance_path)
        yield error.kind.name, f"{path or '(top)'}: {error.message}"[:TEXT_MAX]


def check_call(version: str, action: str, payload: Any) -> None:
    """Raise the CallError that a broken call deserves."""
    if action not in actions(version):
        raise CallError("NotImplemented", f"no action is called {action[:40]}")
    for keyword, text in breaches(version, f"{action}{REQUEST}", payload):
        raise CallError(CODES.get(keyword, "FormatViolation"), text)


@cache
def _validator(version: str, name: str) -> jsonschema_rs.Validator:
    text = _folder(version).joinpath(f"{name}.json").read_bytes()
    schema = orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def _folder(version: str) -> Any:
    return files(f"ocpp.{FOLDERS[version]}").joinpath("schemas")
