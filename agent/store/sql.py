"""Named statements from ``queries.sql``, and forward migrations by number."""

from __future__ import annotations

import re
import sqlite3
from importlib.resources import files

from agent.domain.errors import StoreFault, StoreForeign

APPLICATION_ID = 0x0C99A9E7
"""Marks our files, so that a foreign database is never written to."""

_NAME = re.compile(r"^-- name: (\w+)$")
_MIGRATION = re.compile(r"^(\d{4})_\w+\.sql$")


def load_queries() -> dict[str, str]:
    """Read the statements of ``queries.sql`` by name."""
    text = files("agent.store").joinpath("queries.sql").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        named = _NAME.match(line)
        if named:
            lines = found.setdefault(named.group(1), [])
        elif not line.startswith("--"):
            lines.append(line)
    return {name: "\n".join(body).strip().rstrip(";") for name, body in found.items()}


def load_migrations() -> list[tuple[int, str]]:
    """Read the migrations, lowest number first."""
    folder = files("agent.store").joinpath("migrations")
    found = [
        (int(named.group(1)), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (named := _MIGRATION.match(entry.name))
    ]
    return sorted(found)


def check_owner(db: sqlite3.Connection) -> int:
    """Read the schema's number; reads only.

    Raises StoreFault for a database that is newer than this program or not ours.
    """
    newest = load_migrations()[-1][0]
    have = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = int(db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if owner != APPLICATION_ID and (owner or tables):
        raise StoreForeign(
            "the database is not one of depot-agent's: set store.path to another file"
        )
    if have > newest:
        raise StoreFault(
            f"the database has schema {have}, this program knows {newest}: "
            "install the newer program again, or restore an older backup"
        )
    return have


def migrate(db: sqlite3.Connection) -> int:
    """Bring a database to the newest schema; each step is one transaction.

    Returns the schema's number. Raises StoreFault as ``check_owner`` does.
    """
    steps = load_migrations()
    have = check_owner(db)
    for number, script in steps:
        if number > have:
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in _statements(script):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number:d}")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
    return steps[-1][0]


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip()]
