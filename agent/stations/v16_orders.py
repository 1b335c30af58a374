"""Orders to a 1.6 station: domain values -> payloads, and answers -> outcomes.

Sent payloads are checked strictly against the package's schemas before they leave.
"""

from __future__ import annotations

from ocpp.v16.enums import (
    Action,
    ChargingProfileKindType,
    ChargingProfilePurposeType,
    ChargingProfileStatus,
)

from agent.domain.ids import EvseId
from agent.domain.profile import ChargingProfile, Purpose
from agent.ports import Answer, OrderAnswer
from agent.stations import schemas
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome
from agent.stations.times import utc_text

VERSION = "ocpp1.6"
SET_CHARGING_PROFILE = str(Action.set_charging_profile.value)

_PURPOSE = {
    Purpose.STATION_MAX: ChargingProfilePurposeType.charge_point_max_profile,
    Purpose.TX_DEFAULT: ChargingProfilePurposeType.tx_default_profile,
    Purpose.TX: ChargingProfilePurposeType.tx_profile,
}


def set_charging_profile(evse_id: EvseId, profile: ChargingProfile) -> Payload:
    """Write SetChargingProfile.req. Raises StationFault if it breaks the schema."""
    periods: list[Payload] = []
    for start_s, limit in profile.periods:
        period: Payload = {"startPeriod": start_s, "limit": limit}
        if profile.phases is not None:
            period["numberPhases"] = profile.phases
        periods.append(period)
    schedule: Payload = {
        "chargingRateUnit": str(profile.unit),
        "chargingSchedulePeriod": periods,
    }
    kind = ChargingProfileKindType.relative
    if profile.starts_at is not None:
        kind = ChargingProfileKindType.absolute
        schedule["startSchedule"] = utc_text(profile.starts_at)
    body: Payload = {
        "chargingProfileId": profile.profile_id,
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": str(_PURPOSE[profile.purpose].value),
        "chargingProfileKind": str(kind.value),
        "chargingSchedule": schedule,
    }
    if profile.transaction_id is not None:
        body["transactionId"] = int(profile.transaction_id)
    payload: Payload = {"connectorId": evse_id, "csChargingProfiles": body}
    schemas.check_sent(VERSION, SET_CHARGING_PROFILE, payload)
    return payload


def read_answer(outcome: CallOutcome) -> OrderAnswer:
    """Read SetChargingProfile.conf; an empty answer counts as silence (RPC-05)."""
    if outcome.payload is None:
        silent = {"Timeout": Answer.SILENT, "Offline": Answer.OFFLINE}
        answer = silent.get(outcome.code, Answer.ERROR)
        return OrderAnswer(
            answer=answer, detail=f"{outcome.code} {outcome.description}".strip()[:120]
        )
    said = outcome.payload.get("status")
    status = said if isinstance(said, str) else ""
    if status.lower() == ChargingProfileStatus.accepted.value.lower():
        return OrderAnswer(answer=Answer.ACCEPTED)
    if not status:
        return OrderAnswer(answer=Answer.SILENT, detail="answered without a status")
    return OrderAnswer(answer=Answer.REFUSED, detail=status[:64])
