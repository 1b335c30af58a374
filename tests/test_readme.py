"""The README says what is true: generated tables, commands, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from agent.cli import app
from agent.cli.docs import filled

ROOT = Path(__file__).parents[1]


def test_generated_tables_of_the_readme_are_up_to_date() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert filled(text) == text, "run: python -m agent.cli.docs README.md"


def test_every_command_shows_an_example_in_its_help() -> None:
    runner = CliRunner()
    names = [
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    ]

    for name in names:
        shown = runner.invoke(app, [name, "--help"])

        assert shown.exit_code == 0
        assert "Example:" in shown.stdout, name
        assert name in (ROOT / "README.md").read_text(encoding="utf-8")


def test_picture_of_the_status_page_exists() -> None:
    picture = ROOT / "agent" / "web" / "status-page.png"

    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_no_committed_file_names_a_package_registry() -> None:
    for name in (
        "requirements.lock",
        "requirements-dev.lock",
        "Makefile",
        "pyproject.toml",
    ):
        text = (ROOT / name).read_text(encoding="utf-8")

        assert "--index-url" not in text
        assert "https://" not in text.replace("https://www.apache.org", "")


def test_every_test_that_the_readme_names_exists() -> None:
    """The table of capabilities: a name that is gone would be a promise without proof."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)

    assert len(named) > 20
    for file, function in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file}::{function}"


def test_every_command_of_the_capabilities_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("## What it can do")[2].partition("\n## ")[0]
    known: Any = typer.main.get_command(app)
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    spans = re.findall(r"`([^`]+)`", " ".join(rows))
    for span in spans:
        if "_" in span or "=" in span or span.startswith(("[", "config")):
            continue  # a setting or a file
        first, *rest = [word for word in span.split() if word.islower()]
        assert first in known.commands, span
        group = known.commands[first]
        if rest and hasattr(group, "commands"):
            assert rest[0] in group.commands, span
