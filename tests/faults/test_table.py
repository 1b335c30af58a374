"""The table of faults: every row of tier P has a test, every test exists, nothing is old."""

from __future__ import annotations

import re

from tests.faults import table

ROWS = table.rows()
WANTED = {
    "D": 13, "H": 9, "N": 12, "T": 6, "C": 16, "A": 12, "I": 13, "R": 3, "L": 4, "U": 5,
    "W": 7,
}  # fmt: skip
"""How many rows each section has."""


def test_the_table_has_every_row_once() -> None:
    wanted = [
        f"{letter}{n}" for letter, count in WANTED.items() for n in range(1, count + 1)
    ]

    assert [row["id"] for row in ROWS] == wanted
    assert all(set(row["tier"].split()) <= {"P", "N", "H"} for row in ROWS)


def test_every_row_of_tier_p_and_n_has_a_test_that_bears_its_name() -> None:
    for row in ROWS:
        own = f"test_{row['id'].lower()}_"
        named = [node for node in row["tests"] if node.split("::")[1].startswith(own)]
        assert named or row.get("reason"), row["id"]
        if "P" in row["tier"].split():
            assert named, f"{row['id']} is to be tested on every change"


def test_every_test_of_the_table_exists() -> None:
    known = {path: table.functions(table.ROOT / path) for path in _paths()}

    for row in ROWS:
        for node in row["tests"]:
            path, _, name = node.partition("::")
            assert name in known[path], f"{row['id']}: {node}"


def test_every_row_says_what_was_measured_or_why_not() -> None:
    for row in ROWS:
        assert row["fault"]
        assert row.get("figure") or row.get("reason"), row["id"]
        said = row["fault"] + row.get("figure", "") + row.get("reason", "")
        assert re.fullmatch(r"[^|\n]+", said), row["id"]


def test_the_readme_is_what_the_table_says() -> None:
    found = table.README.read_text(encoding="utf-8")

    assert found == table.text(), "python -m tests.faults.table writes it anew"


def _paths() -> set[str]:
    return {node.partition("::")[0] for row in ROWS for node in row["tests"]}
