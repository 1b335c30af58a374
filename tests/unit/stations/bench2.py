"""What the tests of 2.0.1 and 2.1 share: an adapter, messages made from schemas, a link."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any, cast

import jsonschema_rs
import orjson

from agent.domain.capability import Capabilities
from agent.domain.curve import Curve
from agent.domain.ids import EvseId
from agent.ports import Priority
from agent.stations import framing, schemas
from agent.stations.adapter import AdapterOptions
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome, LateSink, Link, Reply
from agent.stations.schemas import FOLDERS, SEND_ONLY, V16, V21, V201
from agent.stations.v2 import HANDLERS, Adapter2, Hooks2

from .conftest import STATION, RecordingSink, StillClock

TIME = "2026-01-15T17:30:00Z"
BOTH = (V201, V21)
WALKED = [(version, action) for version in BOTH for action in sorted(HANDLERS[version])]
"""Every message that the 2.x adapters take."""
Place = tuple[str | int, ...]

_loaded: dict[tuple[str, str], dict[str, Any]] = {}


def schema_of(version: str, file: str) -> dict[str, Any]:
    """A schema file of the package."""
    found = _loaded.get((version, file))
    if found is None:
        folder = files("ocpp").joinpath(FOLDERS[version], "schemas")
        raw = folder.joinpath(f"{file}.json").read_bytes().lstrip(schemas.BOM)
        found = _loaded.setdefault((version, file), orjson.loads(raw))
    return found


def request_file(version: str, action: str) -> str:
    return action if version == V16 or action == SEND_ONLY else f"{action}Request"


def breach_of_answer(version: str, action: str, payload: Payload) -> str | None:
    """The first breach of the schema of an answer; a message without one has none."""
    if action == SEND_ONLY:
        return None
    schema = schema_of(version, f"{action}Response")
    kind = (
        jsonschema_rs.Draft4Validator if version == V16 else jsonschema_rs.Draft6Validator
    )
    for error in kind(schema).iter_errors(payload):
        return f"{error.instance_path}: {error.message}"
    return None


def message(version: str, action: str, *, is_full: bool = False) -> dict[str, Any]:
    """A valid request made from its schema: what it must have, or all that it may have."""
    schema = schema_of(version, request_file(version, action))
    made: dict[str, Any] = _made(schema, schema.get("definitions", {}), is_full=is_full)
    return made


def _made(
    schema: dict[str, Any], known: dict[str, Any], *, is_full: bool, depth: int = 0
) -> Any:
    if "$ref" in schema:
        schema = known[schema["$ref"].rsplit("/", 1)[1]]
    kind = schema.get("type")
    if kind == "object":
        names = schema.get("required", [])
        if is_full and depth < 8:
            names = [name for name in schema["properties"] if name != "customData"]
        return {
            name: _made(schema["properties"][name], known, is_full=is_full, depth=depth + 1)
            for name in names
        }
    if kind == "array":
        one = _made(schema["items"], known, is_full=is_full, depth=depth + 1)
        return [copy.deepcopy(one) for _ in range(max(schema.get("minItems", 1), 1))]
    if "enum" in schema:
        return schema["enum"][0]
    if kind in ("string", None):  # data of no type: anything
        return TIME if schema.get("format") == "date-time" else "x"
    if kind == "boolean":
        return False
    assert kind in ("integer", "number"), schema
    return int(max(min(1, schema.get("maximum", 1)), schema.get("minimum", -1)))


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """The paths of all fields of a payload."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def holder_of(payload: Any, path: Place) -> Any:
    for key in path[:-1]:
        payload = payload[key]
    return payload


class Bench2:
    """A 2.x adapter with its sink, and what it rang at the rest of its link."""

    def __init__(
        self,
        version: str = V201,
        *,
        allowed: Curve | None = None,
        running: tuple[int, ...] = (),
        fast: dict[int, Payload] | None = None,
        **options: Any,
    ) -> None:
        self.version = version
        self.sink = RecordingSink()
        self.boots = 0
        self.rung: list[tuple[str, int]] = []
        self.reports: list[Payload] = []
        self.profiles: list[Payload] = []
        self.adapter = Adapter2(
            station_id=STATION,
            version=version,
            sink=self.sink,
            clock=StillClock(),
            options=AdapterOptions(**options),
            on_boot=self._booted,
            hooks=Hooks2(
                report=self.reports.append,
                profiles=self.profiles.append,
                plugged=self._ring("plugged"),
                charging=self._ring("charging"),
                unplugged=self._ring("unplugged"),
                allowed=lambda _: allowed,
                has_transaction=lambda evse_id: evse_id in running,
                fast_limit=(fast or {}).get,
            ),
        )

    def _booted(self) -> None:
        self.boots += 1

    def _ring(self, name: str) -> Callable[[EvseId], None]:
        return lambda evse_id: self.rung.append((name, evse_id))

    async def send(self, action: str, payload: Any) -> Reply:
        text = orjson.dumps([2, "1", action, payload])
        frame = framing.parse(text)
        assert isinstance(frame, framing.Call)
        return await self.adapter.handle(frame, text)

    async def answer(self, action: str, payload: Any) -> dict[str, Any]:
        """The payload of a CALLRESULT that keeps to its schema."""
        reply = await self.send(action, payload)
        assert reply.payload is not None, (action, reply)
        broken = breach_of_answer(self.version, action, reply.payload)
        assert broken is None, (action, broken)
        return reply.payload


class ScriptedLink:
    """The station's side of orders: answers by action, one after the other."""

    def __init__(self, version: str = V21, **answers: list[Payload | CallOutcome]) -> None:
        self.version = version
        self.answers = {action: list(said) for action, said in answers.items()}
        self.calls: list[tuple[str, Payload]] = []
        self.priorities: list[Priority] = []

    async def call(
        self,
        action: str,
        payload: Payload,
        priority: Priority,
        _on_late: LateSink | None = None,
    ) -> CallOutcome:
        """Answer the next of the script; Accepted when it is at its end."""
        broken = schemas.breach(self.version, action, payload)
        assert broken is None, (action, broken)
        self.calls.append((action, payload))
        self.priorities.append(priority)
        waiting = self.answers.get(action)
        said = waiting.pop(0) if waiting else {"status": "Accepted"}
        return said if isinstance(said, CallOutcome) else CallOutcome(said)

    def of(self, action: str) -> list[Payload]:
        return [payload for name, payload in self.calls if name == action]

    @property
    def as_link(self) -> Link:
        return cast("Link", self)


def said(**more: Any) -> Capabilities:
    """What a 2.1 station says of itself, with a fast limit to offer."""
    fields: dict[str, Any] = {
        "is_known": True,
        "stack_level_max": 4,
        "features": frozenset({"DynamicProfiles"}),
    }
    return Capabilities(**(fields | more))
