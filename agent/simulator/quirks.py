"""Habits of stations with charging profiles, as faults of a virtual one (1.6 and 2.x).

Each is a station of the field that takes a limit in one form only, or none.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import parse_stamp
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from agent.simulator.profile_rules import Installed

QUIRKS = frozenset(
    {
        "only-default-profiles",
        "only-station-maximum",
        "refuse-connector-zero",
        "refuse-absolute",
        "refuse-relative",
        "refuse-future-start",
        "refuse-transaction-id",
        "single-period-only",
        "refuse-decimals",
        "refuse-amperes",
        "declares-amperes",
        "refuse-watts",
        "refuse-without-phases",
        "refuse-replacement",
        "limit-by-key",
    }
)
PAST = timedelta(minutes=1)  # how old a start must be with refuse-future-start
STALE_ID = 99_999  # of the profile that stale-profile finds installed
STALE_W = 20_000.0
LIMIT_KEY = "StationMaxCurrent"


def refusal(
    faults: Iterable[str],
    place: int,
    body: Mapping[str, Any],
    installed: Iterable[Installed],
    now: datetime,
) -> tuple[str, str, str] | None:
    """Tell status, reason code and words of a refusal by a habit, or None.

    ``body`` is a profile of either version. Raises CallError where the station does.
    """
    own = QUIRKS & set(faults)
    if not own:
        return None
    purpose = body["chargingProfilePurpose"]
    is_maximum = purpose in ("ChargePointMaxProfile", "ChargingStationMaxProfile")
    schedules = body["chargingSchedule"]
    schedule = schedules[0] if isinstance(schedules, list) else schedules
    periods = schedule["chargingSchedulePeriod"]
    unit = schedule["chargingRateUnit"]
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
        or ("refuse-relative" in own and body["chargingProfileKind"] == "Relative")
        or ("refuse-transaction-id" in own and "transactionId" in body)
        or ("refuse-future-start" in own and _is_young(schedule, now))
        or (own & {"refuse-amperes", "declares-amperes"} and unit == "A")
        or ("refuse-watts" in own and unit == "W")
        or (
            "refuse-without-phases" in own
            and any("numberPhases" not in item for item in periods)
        )
    )
    return ("Rejected", "Unspecified", "") if is_refused else None


def _is_young(schedule: Mapping[str, Any], now: datetime) -> bool:
    start = schedule.get("startSchedule")
    return start is not None and parse_stamp(start) > now - PAST


def stale_profile(start: str) -> dict[str, Any]:
    """Write what both versions share of the profile that somebody left behind."""
    period = {"startPeriod": 0, "limit": STALE_W}
    return {
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "chargingRateUnit": "W",
            "startSchedule": start,
            "chargingSchedulePeriod": [period],
        },
    }
