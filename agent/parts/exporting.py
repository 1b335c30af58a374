"""Exports of what the database holds."""

from __future__ import annotations

from agent.control.export import SessionExport
from agent.parts.base import Ground, Part


def build(ground: Ground) -> Part | None:
    """Add the operation; nothing runs, so there is no part."""
    export = SessionExport(ground.depot, ground.store)
    ground.operations.add("sessions.export", export.page)
    return None
