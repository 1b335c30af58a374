"""Operations that need no cloud: dead letters, exports, stations."""

from __future__ import annotations

from agent.parts.base import Ground, Part


def build(ground: Ground) -> Part | None:
    """Build the part where it is configured."""
    del ground
    return None
