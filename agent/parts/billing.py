"""Billing: accounts, verification, and the webhook of finished sessions."""

from __future__ import annotations

from agent.parts.base import Ground, Part


def build(ground: Ground) -> Part | None:
    """Build the part where it is configured."""
    del ground
    return None
