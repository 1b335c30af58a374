"""Configured readers of vendor messages: MAC, SoC and connector out of DataTransfer.

No public message that carries a MAC is documented (ocpp-depot.md A4), so nothing is
built in: each site names vendor, message, and a JSON path or a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from agent.stations.times import parse_int, parse_number


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractorRule:
    """Reads ``field`` (mac, soc, connector) by a dotted path or by a pattern.

    With a pattern its first group counts. An empty ``message_id`` fits all messages.
    """

    vendor_id: str
    message_id: str = ""
    field: str = "mac"
    path: str = ""
    pattern: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What the rules found."""

    macs: tuple[str, ...] = ()
    soc_percent: float | None = None
    connector_id: int | None = None


def extract(rules: Sequence[ExtractorRule], data: Any) -> Extracted:
    """Apply the rules to the data of one message; never raises."""
    macs: list[str] = []
    soc: float | None = None
    connector: int | None = None
    for rule in rules:
        value = _value(rule, data)
        if value is None:
            continue
        if rule.field == "mac":
            macs.append(str(value)[:64])
        elif rule.field == "soc":
            number = parse_number(value)
            soc = number if number is not None and 0 <= number <= 100 else soc  # noqa: PLR2004 - percent
        elif rule.field == "connector":
            connector = parse_int(value)
    return Extracted(macs=tuple(macs), soc_percent=soc, connector_id=connector)


def _value(rule: ExtractorRule, data: Any) -> Any:
    if rule.pattern:
        text = data if isinstance(data, str) else orjson.dumps(data).decode()
        found = re.search(rule.pattern, text)
        if found is None:
            return None
        return found.group(1) if found.re.groups else found.group(0)
    if isinstance(data, str):
        try:
            data = orjson.loads(data)
        except orjson.JSONDecodeError:
            return data if not rule.path else None
    for part in [part for part in rule.path.split(".") if part]:
        if isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        elif isinstance(data, dict):
            data = data.get(part)
        else:
            return None
    return None if isinstance(data, (dict, list)) else data
