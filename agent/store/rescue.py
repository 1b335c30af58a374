"""A damaged database is set aside and the newest good backup takes its place.

Only where backups of ours lie beside it: a path that was set wrongly names a file of
somebody else, and that is never moved (faults.md D6, U3).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent import ports
from agent.domain.errors import StoreDamaged, StoreFault, StoreForeign
from agent.domain.ids import StationId
from agent.store import rows
from agent.store.sql import check_owner
from agent.store.sqlite import SqliteStore

BACKUPS_KEPT = 3
"""Newest first; damage that nobody noticed may be in the newest."""
SIDE_FILES = ("-wal", "-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What happened to a damaged database; all later than ``lost_since`` is lost.

    ``lost_since`` is the time of the newest event in the backup, None for an empty one.
    """

    reason: str
    set_aside: Path
    backup: Path
    lost_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The store, what it held, and what had to be restored for it."""

    store: SqliteStore
    loaded: ports.Loaded
    restored: Restored | None


def backup_path(path: Path, number: int = 0) -> Path:
    """Where the n-th newest backup of a database lies: beside it."""
    return path.with_name(f"{path.name}.backup{f'-{number}' if number else ''}")


async def keep_backup(store: SqliteStore, path: Path) -> Path:
    """Write the newest backup and let the others move up. Raises StoreFault."""
    fresh = path.with_name(f"{path.name}.backup-new")
    await store.backup(fresh)
    try:
        for number in range(BACKUPS_KEPT - 1, 0, -1):
            older = backup_path(path, number - 1)
            if older.exists():
                older.replace(backup_path(path, number))
        return fresh.replace(backup_path(path))
    except OSError as error:
        raise StoreFault(f"the backup beside {path} cannot be kept: {error}") from error


def open_or_restore(path: Path, rated_w: Mapping[StationId, int], now: datetime) -> Opened:
    """Open a database and load it; a damaged one is replaced by its newest good backup.

    Raises StoreFault when it cannot be used, StoreDamaged when no backup is good.
    """
    try:
        return _opened(path, rated_w, None)
    except (StoreDamaged, StoreForeign) as damage:  # damage may hit the mark itself
        for number in range(BACKUPS_KEPT):
            candidate = backup_path(path, number)
            found = _restore(path, candidate, now, str(damage))
            if found is not None:
                return _opened(path, rated_w, found)
        raise


def _opened(
    path: Path, rated_w: Mapping[StationId, int], restored: Restored | None
) -> Opened:
    store = SqliteStore(path)
    try:
        loaded = store.load(rated_w)
    except BaseException:
        store.close()
        raise
    return Opened(store=store, loaded=loaded, restored=restored)


def _restore(path: Path, backup: Path, now: datetime, reason: str) -> Restored | None:
    """Put a backup in the place of a damaged file, if the backup is whole."""
    if not backup.exists():
        return None
    part = path.with_name(f"{path.name}.restore")
    try:
        shutil.copyfile(backup, part)
        with closing(sqlite3.connect(part)) as db:
            check_owner(db)
            if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return None
            (newest_ms,) = db.execute("SELECT max(at_ms) FROM journal").fetchone()
        _sync(part)
        aside = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S}")
        for end in ("", *SIDE_FILES):
            old = path.with_name(path.name + end)
            if old.exists():
                old.replace(path.with_name(aside.name + end))
        part.replace(path)
        _sync(path.parent)
    except (OSError, sqlite3.Error, StoreFault):
        return None
    finally:
        part.unlink(missing_ok=True)
    return Restored(
        reason=reason,
        set_aside=aside,
        backup=backup,
        lost_since=None if newest_ms is None else rows.at_ms(newest_ms),
    )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
