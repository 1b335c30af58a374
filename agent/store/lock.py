"""One daemon per state folder, and a folder that can be used; light to import.

Looked at before the daemon's parts are loaded, so that a wrong path is told at once
(faults.md D7, D12).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.domain.errors import StoreFault


def take_lock(path: Path) -> int:
    """Make sure that no second daemon works on the same state (faults.md D12).

    Returns the descriptor that holds the lock until it is closed. Raises StoreFault.
    """
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreFault(
            f"another depot-agent uses {path}: stop it, or set another store.path"
        ) from error
    return fd


def check_folder(path: Path) -> None:
    """Raise StoreFault when the database's folder is missing or cannot be written."""
    os.close(_open(path))


def _open(path: Path) -> int:
    try:
        return os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreFault(
            f"the state folder {path.parent} cannot be used ({error.strerror}): "
            "create it, or correct store.path and its owner"
        ) from error
