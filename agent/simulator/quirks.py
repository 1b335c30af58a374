"""Habits of stations with charging profiles, as faults of a virtual one (1.6 and 2.x).

Each is a station of the field that takes a limit in one form only, or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.simulator.profile_rules import Installed

QUIRKS: dict[str, str] = {
    "only-default-profiles": "does not support any profile but a TxDefaultProfile",
    "only-station-maximum": "does not support any profile but the station's maximum",
    "refuse-connector-zero": "rejects profiles for connector (2.x: EVSE) 0",
    "refuse-absolute": "rejects schedules that are not Relative",
    "silent-absolute": "never answers to a schedule that is not Relative",
    "single-period-only": "rejects schedules of more than one period",
    "refuse-decimals": "answers FormationViolation to a limit that is not whole",
    "refuse-amperes": "rejects limits in A",
    "ignore-watts": "accepts limits in W and does not heed them",
    "refuse-without-phases": "rejects periods without numberPhases",
    "refuse-replacement": "rejects a profile whose id is installed",
    "limit-by-key": "1.6: obeys only the key StationMaxCurrent, in tenths of an ampere",
}
LIMIT_KEY = "StationMaxCurrent"


def refusal(
    faults: Iterable[str],
    place: int,
    body: Mapping[str, Any],
    installed: Iterable[Installed],
) -> tuple[str, str, str] | None:
    """Tell status, reason code and words of a refusal by a habit, or None.

    ``body`` is a profile of either version. Raises CallError where the station does.
    """
    own = QUIRKS.keys() & set(faults)
    if not own:
        return None
    purpose = body["chargingProfilePurpose"]
    is_maximum = purpose in ("ChargePointMaxProfile", "ChargingStationMaxProfile")
    schedules = body["chargingSchedule"]
    schedule = schedules[0] if isinstance(schedules, list) else schedules
    periods = schedule["chargingSchedulePeriod"]
    number = body.get("id", body.get("chargingProfileId"))
    if "refuse-decimals" in own and any(item["limit"] % 1 for item in periods):
        raise CallError("FormationViolation", "limit is not a whole number")
    is_other = (
        ("only-default-profiles" in own and purpose != "TxDefaultProfile")
        or ("only-station-maximum" in own and not is_maximum)
        or "limit-by-key" in own
    )
    if is_other:
        return "NotSupported", "UnsupportedPurpose", f"{purpose} is not supported"
    if "refuse-replacement" in own and any(
        item.profile.profile_id == number for item in installed
    ):
        return "Rejected", "DuplicateProfile", "the id is taken"
    is_refused = (
        ("refuse-connector-zero" in own and place == 0)
        or ("refuse-absolute" in own and body["chargingProfileKind"] != "Relative")
        or ("single-period-only" in own and len(periods) > 1)
        or ("refuse-amperes" in own and schedule["chargingRateUnit"] == "A")
        or (
            "refuse-without-phases" in own
            and any("numberPhases" not in item for item in periods)
        )
    )
    return ("Rejected", "Unspecified", "") if is_refused else None
