"""Orders to 2.0.1 and 2.1 stations: domain values -> payloads, answers -> outcomes.

Exactly one schedule per profile, with an id (K01.FR.34); no ``numberPhases`` on DC
(NoPhaseForDC, 2.1 K01.FR.44). Sent payloads are checked strictly before they leave.
"""

from __future__ import annotations

import re
from typing import Any

from agent.domain.errors import StationFault
from agent.domain.ids import EvseId
from agent.domain.profile import ChargingProfile
from agent.ports import Answer, OrderAnswer
from agent.stations import schemas
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome
from agent.stations.times import utc_text

SET_CHARGING_PROFILE = "SetChargingProfile"
CLEAR_CHARGING_PROFILE = "ClearChargingProfile"
UPDATE_DYNAMIC_SCHEDULE = "UpdateDynamicSchedule"

DUPLICATE = "DuplicateProfile"
RATE_LIMITED = "RateLimitExceeded"
TOO_EARLY = "invalidmessageseq"
NEEDS_WAIT_S = 60.0
"""A station that waits for its vehicle's needs; their message ends the wait (K15)."""
WAIT_DEFAULT_S = 60.0
"""Wait after RateLimitExceeded without a number (21E K01.FR.56)."""
WAIT_MAX_S = 900.0
"""No station may silence us for longer."""
_SECONDS = re.compile(r"(\d{1,6})")


def set_charging_profile(
    version: str, evse_id: EvseId, profile: ChargingProfile
) -> Payload:
    """Write SetChargingProfileRequest. Raises StationFault if it breaks the schema."""
    periods: list[Payload] = []
    for start_s, limit in profile.periods:
        period: Payload = {"startPeriod": start_s, "limit": limit}
        if profile.phases is not None:
            period["numberPhases"] = profile.phases
        periods.append(period)
    schedule: Payload = {
        "id": profile.profile_id,
        "chargingRateUnit": str(profile.unit),
        "chargingSchedulePeriod": periods,
    }
    kind = "Relative"
    if profile.is_dynamic:
        kind = "Dynamic"
        schedule["duration"] = profile.duration_s
    elif profile.starts_at is not None:
        kind = "Absolute"
        schedule["startSchedule"] = utc_text(profile.starts_at)
    body: Payload = {
        "id": profile.profile_id,
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": str(profile.purpose),
        "chargingProfileKind": kind,
        "chargingSchedule": [schedule],
    }
    if profile.transaction_id is not None:
        body["transactionId"] = str(profile.transaction_id)
    if profile.offline_max_s is not None and version == schemas.V21:
        body["maxOfflineDuration"] = profile.offline_max_s
    if profile.update_every_s is not None and version == schemas.V21:
        body["dynUpdateInterval"] = profile.update_every_s
    payload: Payload = {"evseId": evse_id, "chargingProfile": body}
    schemas.check_sent(version, SET_CHARGING_PROFILE, payload)
    return payload


def clear_rival(version: str, evse_id: EvseId, profile: ChargingProfile) -> Payload:
    """Clear what holds this profile's place: purpose, level, EVSE (K01.FR.06, K10)."""
    criteria: Payload = {
        "evseId": evse_id,
        "chargingProfilePurpose": str(profile.purpose),
        "stackLevel": profile.stack_level,
    }
    payload = {"chargingProfileCriteria": criteria}
    schemas.check_sent(version, CLEAR_CHARGING_PROFILE, payload)
    return payload


def clear_by_id(version: str, profile_id: int) -> Payload:
    """Clear one profile."""
    payload = {"chargingProfileId": profile_id}
    schemas.check_sent(version, CLEAR_CHARGING_PROFILE, payload)
    return payload


def update_dynamic(profile_id: int, limit: float) -> Payload:
    """Write UpdateDynamicScheduleRequest (2.1 K28)."""
    payload: Payload = {
        "chargingProfileId": profile_id,
        "scheduleUpdate": {"limit": limit},
    }
    schemas.check_sent(schemas.V21, UPDATE_DYNAMIC_SCHEDULE, payload)
    return payload


def read_answer(outcome: CallOutcome) -> OrderAnswer:
    """Read SetChargingProfileResponse; an answer without a status counts as silence."""
    if outcome.payload is None:
        silent = {"Timeout": Answer.SILENT, "Offline": Answer.OFFLINE}
        answer = silent.get(outcome.code, Answer.ERROR)
        shown = f"{outcome.code} {' '.join(outcome.description.split())}".strip()
        return OrderAnswer(answer=answer, detail=shown[:120])
    said = outcome.payload.get("status")
    status = said if isinstance(said, str) else ""
    if status.lower() == "accepted":
        return OrderAnswer(answer=Answer.ACCEPTED)
    reason, more = reason_of(outcome.payload)
    detail = " ".join(part for part in (status, reason, more) if part)[:120]
    if not status:
        return OrderAnswer(answer=Answer.SILENT, detail="answered without a status")
    return OrderAnswer(
        answer=Answer.REFUSED,
        detail=detail,
        reason=reason,
        wait_s=_wait_s(reason.lower(), more),
    )


def _wait_s(reason: str, more: str) -> float | None:
    """How long the station wants no other order, seconds; None when it did not say."""
    if reason == RATE_LIMITED.lower():
        return wait_of(more)
    return NEEDS_WAIT_S if reason.startswith(TOO_EARLY) else None


def reason_of(payload: Payload) -> tuple[str, str]:
    """Reason code and words of a ``statusInfo``: free text, never depended on (B8)."""
    info: Any = payload.get("statusInfo")
    if not isinstance(info, dict):
        return "", ""
    code, more = info.get("reasonCode"), info.get("additionalInfo")
    return (
        code[:40] if isinstance(code, str) else "",
        " ".join(more.split())[:80] if isinstance(more, str) else "",
    )


def wait_of(words: str) -> float:
    """Seconds named in ``additionalInfo`` of RateLimitExceeded, bounded."""
    found = _SECONDS.search(words)
    return min(float(found.group(1)), WAIT_MAX_S) if found else WAIT_DEFAULT_S


def is_duplicate(answer: OrderAnswer) -> bool:
    """Whether another profile holds this one's place."""
    return answer.answer is Answer.REFUSED and answer.reason.lower() == DUPLICATE.lower()


def not_sent(fault: StationFault) -> OrderAnswer:
    """The outcome of an order that could not be written."""
    return OrderAnswer(answer=Answer.ERROR, detail=str(fault)[:120])
