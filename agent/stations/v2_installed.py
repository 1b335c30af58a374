"""ReportChargingProfiles -> the profiles that a station holds, in W over time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.domain.ids import EvseId, TransactionId
from agent.domain.profile import InstalledProfile
from agent.stations.adapter import as_text
from agent.stations.framing import Payload
from agent.stations.times import parse_int
from agent.stations.v2_needs import read_schedule

PROFILES_MAX = 500
"""Profiles read of one station; a depot's station holds a handful."""


def read_installed(
    items: tuple[Payload, ...], now: datetime
) -> tuple[InstalledProfile, ...]:
    """Read reported profiles; what cannot be read is left out. Never raises.

    Each item has ``evseId``, ``chargingLimitSource`` and ``chargingProfile``.
    """
    found = (_read(item, now) for item in items[:PROFILES_MAX])
    return tuple(item for item in found if item is not None)


def _read(item: Any, now: datetime) -> InstalledProfile | None:
    body = item.get("chargingProfile") if isinstance(item, dict) else None
    if not isinstance(body, dict):
        return None
    profile_id, evse = parse_int(body.get("id")), parse_int(item.get("evseId"))
    schedules = body.get("chargingSchedule")
    first = schedules[0] if isinstance(schedules, list) and schedules else schedules
    allows = read_schedule(first, now)
    if profile_id is None or evse is None or allows is None:
        return None
    transaction = as_text(body.get("transactionId"))[:40]
    return InstalledProfile(
        evse_id=EvseId(evse),
        profile_id=profile_id,
        purpose=as_text(body.get("chargingProfilePurpose")),
        source=as_text(item.get("chargingLimitSource")),
        allows=allows,
        transaction_id=TransactionId(transaction) if transaction else None,
    )
