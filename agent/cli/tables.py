"""Tables and files of the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from agent.cli.base import out

WRONG_USAGE = 2
FILE_BYTES_MAX = 8 * 1024 * 1024
"""More is no list of schedules."""


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table, and ``(none)`` when it is empty."""
    made = Table(box=None, header_style="bold")
    for name in head:
        made.add_column(name)
    for row in rows:
        made.add_row(*row)
    out.print(made)
    if not rows:
        out.print("(none)")


def cell(value: Any) -> str:
    """What a cloud or an operator wrote, as text that no terminal takes for markup."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return escape("".join(sign if sign.isprintable() else " " for sign in text))


def kw(watts: float | None) -> str:
    """Kilowatts with one decimal."""
    return "" if watts is None else f"{watts / 1000:.1f} kW"


def percent(value: Any) -> str:
    """A percentage without decimals."""
    return f"{value:.0f} %" if isinstance(value, (int, float)) else ""


def read_json(name: str) -> Any:
    """Read a JSON file, or standard input for ``-``; exit code 2 when it is none."""
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _wrong(f"{name} cannot be read: {error.strerror}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise _wrong(f"{name} is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _wrong(f"{name} is not JSON: {error}") from error


def read_fields(given: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs, or one file; values are JSON where they can be."""
    if len(given) == 1 and "=" not in given[0]:
        body = read_json(given[0])
        if not isinstance(body, dict):
            raise _wrong(f"{given[0]} must hold a JSON object")
        return body
    fields: dict[str, Any] = {}
    for pair in given:
        name, sign, text = pair.partition("=")
        if not name or not sign:
            raise _wrong(f"{pair!r} is not KEY=VALUE")
        fields[name] = _value(text)
    return fields


def _value(text: str) -> Any:
    """``150`` is a number, ``true`` a flag, ``{...}`` an object, all else a text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _wrong(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(WRONG_USAGE)
