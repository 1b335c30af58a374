"""Exports to files: sessions as CSV for spreadsheets, as JSON lines for scripts."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import orjson
import typer

from agent.cli.base import FAILED, ConfigOption, app, operate
from agent.control.export import COLUMNS

FORMULA_STARTS = tuple("=+-@|%\t\r\n\uff1d\uff0b\uff0d\uff20")
"""With these, wide ones too, a spreadsheet takes a cell for a formula; texts come from
stations."""
OWNER_ONLY = 0o600

export = typer.Typer(
    name="export", no_args_is_help=True, help="Write what the database holds to a file."
)
app.add_typer(export)


@export.callback()
def _root() -> None:
    """Write what the database holds to a file."""


@export.command()
def sessions(
    since: Annotated[
        str,
        typer.Option("--from", help="Plugged in from here: a date or time, UTC if bare."),
    ] = "",
    until: Annotated[str, typer.Option("--to", help="... to before here.")] = "",
    form: Annotated[
        Literal["csv", "jsonl"],
        typer.Option("--format", help="CSV, or a JSON object a line (whole records)."),
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option(help="File to write; default standard output.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Export sessions, oldest first, by the time of plug-in.

    Example: `depot-agent export sessions --from 2026-01-01 --output jan.csv`
    """
    rows = _pages(config, {"from": since, "to": until})
    if output is None:
        _write(rows, form, sys.stdout)
        return
    part = output.with_name(output.name + ".part")
    try:
        part.touch(OWNER_ONLY)
        part.chmod(OWNER_ONLY)  # VINs and accounts are nobody else's business
        with part.open("w", encoding="utf-8", newline="") as file:
            count = _write(rows, form, file)
        part.replace(output)
    except OSError as error:
        typer.echo(f"{output} cannot be written: {error.strerror}", err=True)
        raise typer.Exit(FAILED) from error
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"{count} sessions written: {output}", err=True)


def _pages(config: Path | None, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        page = operate(config, "sessions.export", {**asked, "after": after})
        yield from page["rows"]
        after = page["next"]


def _write(rows: Iterator[dict[str, Any]], form: str, file: TextIO) -> int:
    count = 0
    if form == "csv":
        _line(file, list(COLUMNS))
    for row in rows:
        if form == "csv":
            _line(file, [cell(value) for value in row["columns"].values()])
        else:
            whole = {**row["session"], "account": row["columns"]["account"]}
            file.write(orjson.dumps(whole).decode() + "\n")
        count += 1
    return count


def _line(file: TextIO, values: list[object]) -> None:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerow(values)
    file.write(made.getvalue())


def cell(value: object) -> object:
    """A value as a spreadsheet may hold it: numbers as they are, texts made harmless."""
    if value is None:
        return ""
    if isinstance(value, str):
        shown = "".join(char if char.isprintable() else " " for char in value)
        return f"'{shown}" if value.startswith(FORMULA_STARTS) else shown
    return value
