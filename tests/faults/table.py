"""The table of faults with their tests: python -m tests.faults.table writes README.md."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
README = FOLDER / "README.md"
SECTIONS = {
    "D": "Durability",
    "H": "Process and host",
    "N": "Network and clouds",
    "T": "Time",
    "C": "Stations that misbehave",
    "A": "Identity and access",
    "I": "Hostile input",
    "R": "Exhaustion",
    "L": "Logs and secrets",
    "U": "Change",
    "W": "Power",
}
HEAD = """# Faults and attacks, each with its test

Written from `rows.toml` by `python -m tests.faults.table`; a test holds it up to date.

Rows of tier P run with `make test`. Where a row has a long form (tier N) it runs with
`make faults`, which takes about half an hour on two cores; seeds are printed,
and `SEED=n make faults ARGS="-k d1"` replays one. Rows of tier H need hardware.
A test that serves a row begins with the row's id. Figures were measured on 2 cores,
Debian 12, Python 3.11, unless the row says otherwise.
"""


def rows() -> list[dict[str, Any]]:
    """All rows as they stand in the file."""
    found: list[dict[str, Any]] = tomllib.loads(
        (FOLDER / "rows.toml").read_text(encoding="utf-8")
    )["row"]
    return found


def functions(path: Path) -> set[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        item.name
        for item in ast.walk(tree)
        if isinstance(item, kinds) and item.name.startswith("test_")
    }


def every_test() -> dict[str, list[str]]:
    """Node ids by the row's id that their function's name begins with."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in sorted(functions(path)):
            row_id = name.split("_")[1].upper()
            where = path.relative_to(ROOT).as_posix()
            found.setdefault(row_id, []).append(f"{where}::{name}")
    return found


def text() -> str:
    """The README."""
    parts = [HEAD]
    all_rows = rows()
    for letter, title in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        parts.append("\n| id | tier | fault | tests | last figure |\n| --- | --- | --- ")
        parts.append("| --- | --- |\n")
        parts += [_line(row) for row in all_rows if row["id"][0] == letter]
    return "".join(parts)


def _line(row: dict[str, Any]) -> str:
    tests = "<br>".join(_shown(item) for item in row["tests"]) or "none"
    figure = row.get("figure", "")
    reason = row.get("reason", "")
    said = "; ".join(item for item in (figure, reason) if item)
    return f"| {row['id']} | {row['tier']} | {row['fault']} | {tests} | {said} |\n"


def _shown(node: str) -> str:
    path, _, name = node.partition("::")
    return f"[{name}]({'../' + path.removeprefix('tests/')})"


def fill() -> None:
    """Add the tests that bear a row's name and are not in it yet, in the file itself."""
    lines: list[str] = []
    row_id = ""
    named, shown = every_test(), {row["id"]: row["tests"] for row in rows()}
    for line in (FOLDER / "rows.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith("id = "):
            row_id = line.split('"')[1]
        more = [item for item in named.get(row_id, []) if item not in shown.get(row_id, [])]
        if line.startswith("tests = ["):
            lines.append("tests = [")
            lines += [f'    "{item}",' for item in more]
            if line != "tests = [":
                lines.append("]")
        else:
            lines.append(line)
    (FOLDER / "rows.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write the README; with --fill find new tests first."""
    if "--fill" in sys.argv:
        fill()
    README.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
