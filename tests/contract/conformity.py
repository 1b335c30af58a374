"""Holds peers against an OpenAPI description, in both directions.

``Description`` reads one, ``Maker`` makes values that it allows, ``Audit`` says what in an
answer it does not allow. Chance comes from a seed, so that a finding can be replayed; the
generator is our own and small: it knows the words that these two descriptions use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jsonschema_rs

Json = dict[str, Any]
Hint = Callable[[Random], Any]

HERE = Path(__file__).parent
METHODS = ("get", "put", "post", "patch", "delete")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
DEEP = 6
"""From this depth on objects have what they need and nothing else."""
TEXTS = (
    "", " ", "x", "0", "-1", "1e999", "null", "NaN", "bus-1", "Ünïcödé 🚌", "a" * 400,
    "2026-01-15T18:00:00.000Z", "2026-01-15", "9999-12-31T23:59:59+14:00",
    "0001-01-01T00:00:00+14:00", "2026-02-30T00:00:00Z", "04:E7:7E:00:F0:FA",
    "04E77E00F0FA0000", "00:00:00:00:00:00", "\u0000\u001b[31m", "{}", "../../x", "١٢٣",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 0.5, 80, 99.999, 100, 150.0, 1e-9, -273.15, 65535, 1_768_496_400_000, 1e15,
    2**53, 2**70, 1e308, -1e308,
)  # fmt: skip
INTEGERS = (0, 1, 2, -1, 80, 100, 2025, 65535, 2**31, 2**53, -(2**63))
PATTERNS = {
    r"^(0\.[5-9][0-9]*|1(\.0+)?)$": ["0.5", "0.8", "1", "1.0", "0.625"],
    "^[0-9a-f]{64}$": ["0123456789abcdef" * 4],
    "^[a-z0-9]+-[a-z0-9]+$": ["tractionbattery-stateofcharge", "charge-ischarging", "x-y"],
}
"""Texts for the patterns of the descriptions."""
ANYTHING: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1.5,
    "x",
    [],
    [None, {}],
    {},
    {"a": {"b": [1, "x"]}},
)


@dataclass(frozen=True)
class Operation:
    """One method at one path, with references resolved one step deep."""

    name: str
    method: str
    path: str
    parameters: list[Json]
    body: Json | None
    body_type: str
    responses: dict[str, Json]

    def matches(self, method: str, path: str) -> bool:
        pattern = re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(self.path))
        return method.lower() == self.method and bool(re.fullmatch(pattern, path))


class Description:
    """An OpenAPI 3.1 file of this folder."""

    def __init__(self, file: str) -> None:
        self.document: Json = json.loads((HERE / file).read_text(encoding="utf-8"))
        self.operations = {item.name: item for item in self._operations()}
        self._validators: dict[str, Any] = {}

    def _operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            common = item.get("parameters", [])
            for method in METHODS:
                if method not in item:
                    continue
                found = item[method]
                content = self.resolve(found.get("requestBody", {})).get("content", {})
                kind = next(iter(content), "")
                yield Operation(
                    name=found["operationId"],
                    method=method,
                    path=path,
                    parameters=[
                        self.resolve(one) for one in [*common, *found.get("parameters", [])]
                    ],
                    body=content[kind]["schema"] if kind else None,
                    body_type=kind,
                    responses={
                        str(status): self.resolve(answer)
                        for status, answer in found["responses"].items()
                    },
                )

    def resolve(self, node: Json) -> Json:
        """Follow a reference inside the file; its siblings stay in force."""
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = {**found, **{key: node[key] for key in node if key != "$ref"}}
        return node

    def operation_of(self, method: str, path: str) -> Operation | None:
        """The operation of a request; fixed paths win over placeholders."""
        found = [item for item in self.operations.values() if item.matches(method, path)]
        return min(found, key=lambda item: item.path.count("{"), default=None)

    def problems(self, schema: Json, value: Any) -> list[str]:
        """What the schema does not allow in a value."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {
                "$schema": DRAFT,
                **schema,
                "components": self.document["components"],
            }
            self._validators[key] = jsonschema_rs.validator_for(
                whole, validate_formats=True
            )
        return [
            f"{'/'.join(str(part) for part in error.instance_path)}: {error.message}"[:300]
            for error in self._validators[key].iter_errors(value)
        ]

    def unknown(self, schema: Json, value: Any, where: str = "") -> list[str]:
        """Properties that the schema does not name, where it names any."""
        if isinstance(value, list):
            inner = [s["items"] for s in self._parts(schema) if "items" in s]
            return [
                text
                for index, item in enumerate(value)
                for text in self._best(inner, item, f"{where}[{index}]")
            ]
        if not isinstance(value, dict):
            return []
        known: dict[str, list[Json]] = {}
        for part in self._parts(schema):
            if "additionalProperties" in part:
                return []
            for name, item in part.get("properties", {}).items():
                known.setdefault(name, []).append(item)
        if not known:
            return []
        found = [f"{where}.{name} is not described" for name in value if name not in known]
        for name in value.keys() & known.keys():
            found += self._best(known[name], value[name], f"{where}.{name}")
        return found

    def _best(self, schemas: list[Json], value: Any, where: str) -> list[str]:
        tries = [self.unknown(schema, value, where) for schema in schemas]
        return min(tries, key=len, default=[])

    def _parts(self, schema: Json) -> list[Json]:
        """A schema with all that it is made of."""
        schema = self.resolve(schema)
        found = [schema]
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, []):
                found += self._parts(part)
        return found


class Maker:
    """Makes values that a schema allows.

    ``rude``: with properties that nobody knows, new members of open sets, nulls wherever
    they are allowed and numbers at the edges. ``hints`` give well-formed values by the
    name of a property.
    """

    def __init__(
        self,
        description: Description,
        random: Random,
        *,
        rude: bool,
        hints: dict[str, Hint] | None = None,
    ) -> None:
        self._description = description
        self.random = random
        self._rude = rude
        self._hints = hints or {}
        self.is_full = False

    def value(self, schema: Json, name: str = "", depth: int = 0) -> Any:
        """One value."""
        random = self.random
        schema = self._description.resolve(schema)
        if name in self._hints and random.random() < 0.8:
            hinted = self._hints[name](random)
            if not self._description.problems(schema, hinted):
                return hinted
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return random.choice(schema["enum"])
        if "allOf" in schema:
            merged: Json = {}
            for part in schema["allOf"]:
                merged |= self.value(part, name, depth)
            return merged
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self.value(random.choice(schema[word]), name, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = random.choice(kind)
        if kind is None and "properties" in schema:
            kind = "object"
        made = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
        }.get(kind or "")
        if made is not None:
            return made(schema, depth)
        return {"null": None, "boolean": random.random() < 0.5}.get(
            kind or "", random.choice(ANYTHING)
        )

    def parameter(self, described: Json) -> Any:
        """A value for a query parameter: the hint where there is one, None for nothing."""
        hint = self._hints.get(described["name"])
        if hint is not None:
            return hint(self.random)
        return self.value(described.get("schema", {}), described["name"])

    def _object(self, schema: Json, depth: int) -> Json:
        random = self.random
        needed = schema.get("required", [])
        share = 0.0 if depth >= DEEP else random.choice((0.0, 0.3, 0.7, 1.0))
        share = 1.0 if self.is_full and depth < DEEP else share
        found = {
            name: self.value(item, name, depth + 1)
            for name, item in schema.get("properties", {}).items()
            if name in needed or random.random() < share
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for number in range(random.randrange(3)):
                found[f"key-{number}"] = self.value(more, "", depth + 1)
        elif self._rude and more is not False and random.random() < 0.3:
            found[random.choice(("xNew", "futureField", "", "id2", "Ünknown"))] = (
                random.choice(ANYTHING)
            )
        return found

    def _array(self, schema: Json, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 0 if depth >= DEEP else 3))
        count = self.random.randint(least, most)
        return [self.value(schema.get("items", {}), "", depth + 1) for _ in range(count)]

    def _string(self, schema: Json, _: int) -> str:
        random = self.random
        known = schema.get("x-known-values")
        if known and not (self._rude and random.random() < 0.3):
            return str(random.choice(known))
        examples = [text for text in schema.get("examples", []) if isinstance(text, str)]
        if "pattern" in schema:
            return random.choice(PATTERNS.get(schema["pattern"]) or examples)
        if examples and random.random() < 0.7:
            return str(random.choice(examples))
        if schema.get("format") == "date-time":
            at = datetime(2026, 1, 15, tzinfo=UTC) + timedelta(
                seconds=random.randint(-(10**7), 10**7)
            )
            return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if schema.get("format") in ("uri", "url"):
            return "https://example.test/x"
        least, most = schema.get("minLength", 0), schema.get("maxLength", 10**6)
        text = random.choice(TEXTS if self._rude else ("x", "bus-1", "Ünïcödé"))
        return str((text + "X" * max(least - len(text), 0))[:most])

    def _number(self, schema: Json, _: int) -> float:
        return self._within(schema, NUMBERS if self._rude else (1, 20, 47.5, 80))

    def _integer(self, schema: Json, _: int) -> int:
        return int(self._within(schema, INTEGERS if self._rude else (1, 20, 80)))

    def _within(self, schema: Json, pool: tuple[float, ...]) -> float:
        low, high = schema.get("minimum", -1e309), schema.get("maximum", 1e309)
        fits = [item for item in pool if low <= item <= high]
        fits += [item for item in (low, high) if abs(item) < 1e308]
        return self.random.choice(fits)


@dataclass(frozen=True)
class Request:
    """A request that the description allows."""

    operation: Operation
    path: str
    query: str
    headers: dict[str, str]
    body: Any

    @property
    def target(self) -> str:
        return self.path + (f"?{self.query}" if self.query else "")


class Requests:
    """Makes requests from a description; ``ids`` are values for the placeholders."""

    def __init__(self, maker: Maker, ids: dict[str, list[str]]) -> None:
        self._maker = maker
        self._ids = ids

    def of(self, operation: Operation) -> Request:
        """One request."""
        random = self._maker.random
        path = operation.path
        for name in re.findall(r"\{([^/]+?)\}", path):
            known = self._ids.get(name, [])
            is_known = known and random.random() < 0.7
            value = (
                random.choice(known) if is_known else f"nobody-{random.randrange(10**9)}"
            )
            path = path.replace("{" + name + "}", quote(value, safe=""))
        query: list[tuple[str, str]] = []
        headers: dict[str, str] = {}
        for one in operation.parameters:
            wanted = one.get("required") or random.random() < 0.4
            if one["in"] not in ("query", "header") or not wanted:
                continue
            value = self._maker.parameter(one)
            values = value if isinstance(value, list) else [value]
            pairs = [(one["name"], str(item)) for item in values if item is not None]
            if one["in"] == "query":
                query += pairs
            else:
                headers |= {name: text for name, text in pairs if text.isascii()}
        self._maker.is_full = random.random() < 0.5  # else most would be refused
        body = None if operation.body is None else self._maker.value(operation.body)
        self._maker.is_full = False
        return Request(operation, path, urlencode(query), headers, body)


class Audit:
    """Says what in an answer the description does not allow."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self.seen: dict[str, set[int]] = {}

    def problems(
        self, operation: Operation, status: int, kind: str, text: bytes
    ) -> list[str]:
        """Check status, content type, body, and properties that nobody described."""
        self.seen.setdefault(operation.name, set()).add(status)
        name = f"{operation.method.upper()} {operation.path} -> {status}"
        described = operation.responses.get(str(status)) or operation.responses.get(
            "default"
        )
        if described is None:
            return [f"{name}: this status is not described: {text[:200]!r}"]
        content = self._description.resolve(described).get("content")
        if not content:
            return [f"{name}: a body where none is described"] if text.strip() else []
        base = kind.partition(";")[0].strip()
        schema = content.get(base)
        if schema is None:
            return [f"{name}: the content type {kind!r} is not described"]
        try:
            body = json.loads(text)
        except ValueError:
            return [f"{name}: the body is not JSON: {text[:100]!r}"]
        found = self._description.problems(schema["schema"], body)
        found += self._description.unknown(schema["schema"], body)
        return [f"{name}: {problem}" for problem in found]


class Answers:
    """Answers of a peer that does whatever the description allows."""

    def __init__(
        self,
        description: Description,
        maker: Maker,
        *,
        base: str = "",
        success: float = 0.75,
    ) -> None:
        self._description = description
        self._maker = maker
        self._base = base
        self._success = success
        self.answered: dict[str, set[str]] = {}

    def to(self, method: str, url: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a request."""
        path = urlsplit(url).path.removeprefix(self._base)
        operation = self._description.operation_of(method, path)
        assert operation is not None, f"{method} {path} is not described"
        random = self._maker.random
        good = [status for status in operation.responses if status.startswith("2")]
        bad = [status for status in operation.responses if not status.startswith("2")]
        status = random.choice(good if random.random() < self._success or not bad else bad)
        self.answered.setdefault(operation.name, set()).add(status)
        described = operation.responses[status]
        headers = {
            name: str(self._maker.value(self._description.resolve(item).get("schema", {})))
            for name, item in described.get("headers", {}).items()
        }
        headers = {
            name: text
            for name, text in headers.items()
            if text.isascii() and text.isprintable()
        }
        code = 418 if status == "default" else int(status)
        content = described.get("content")
        if not content:
            return code, headers, b""
        schema = next(iter(content.values()))["schema"]
        body = self._maker.value(schema)
        wrong = self._description.problems(schema, body)
        assert not wrong, f"the generator made what is not allowed: {wrong}"
        headers["content-type"] = next(iter(content))
        return code, headers, json.dumps(body).encode()
