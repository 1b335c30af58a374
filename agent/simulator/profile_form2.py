"""A 2.x charging profile read from JSON that the schema has already passed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.simulator.profile_form import (
    Profile,
    ProfileRefused,
    Schedule,
    has_one_decimal,
    read_moment,
    read_recurrence,
    read_schedule,
)
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PURPOSES = ("ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile")
MODES = ("ChargingOnly",)  # what may be asked for in 2.1
UNSUPPORTED_21 = ("useLocalTime", "randomizedDelay")


def check_decimals(body: Mapping[str, Any]) -> None:
    """Raise the CALLERROR that a limit with more than one decimal deserves."""
    for schedule in body["chargingSchedule"]:
        for period in schedule["chargingSchedulePeriod"]:
            if not has_one_decimal(period.get("limit", 0)):
                raise CallError(
                    "PropertyConstraintViolation",
                    f"limit {period['limit']} has more than one decimal",
                )


def read_profile2(
    body: Mapping[str, Any], now: datetime, features: frozenset[str]
) -> Profile:
    """Read a ChargingProfileType; raise ProfileRefused with the broken rule.

    The first schedule counts: a vehicle that may choose takes that one.
    """
    kind, purpose = body["chargingProfileKind"], body["chargingProfilePurpose"]
    if purpose not in PURPOSES:
        raise ProfileRefused(f"{purpose} is not for us", "UnsupportedPurpose")
    if kind == "Dynamic" and "DynamicProfiles" not in features:
        raise ProfileRefused("Dynamic is not supported", "UnsupportedKind")
    if "maxOfflineDuration" in body and "MaxOfflineDuration" not in features:
        raise ProfileRefused("maxOfflineDuration is not supported", "InvalidProfile")
    profile = Profile(
        profile_id=body["id"],
        stack_level=body["stackLevel"],
        purpose=purpose,
        kind=kind,
        schedule=_schedule(body["chargingSchedule"][0], kind, now),
        transaction_id=body.get("transactionId"),
        recurrence_s=read_recurrence(body, kind),
        valid_from=read_moment(body, "validFrom"),
        valid_to=read_moment(body, "validTo"),
        max_offline_s=body.get("maxOfflineDuration"),
        ends_offline=bool(body.get("invalidAfterOfflineDuration", False)),
    )
    _check_kind(profile, body)
    return profile


def updated(profile: Profile, limit: float, now: datetime) -> Profile:
    """Give a Dynamic profile its new limit; its watchdog begins anew."""
    schedule = profile.schedule
    period = replace(schedule.periods[0], limit=limit)
    return replace(profile, schedule=replace(schedule, periods=(period,), start=now))


def _schedule(body: Mapping[str, Any], kind: str, now: datetime) -> Schedule:
    if any(name in body for name in UNSUPPORTED_21):
        raise ProfileRefused("local time and random delay are lacking", "InvalidSchedule")
    for period in body["chargingSchedulePeriod"]:
        if period.get("operationMode", "ChargingOnly") not in MODES:
            raise ProfileRefused(period["operationMode"], "InvalidOperationMode")
    try:
        schedule = read_schedule(body)
    except ProfileRefused as refusal:
        raise ProfileRefused(str(refusal), "InvalidSchedule") from refusal
    if "limitAtSoC" in body:
        cap = body["limitAtSoC"]
        schedule = replace(schedule, soc_cap=(float(cap["soc"]), float(cap["limit"])))
    if kind != "Dynamic":
        return schedule
    if len(schedule.periods) != 1:
        raise ProfileRefused("Dynamic with several periods", "InvalidSchedule")
    return replace(schedule, start=now)


def _check_kind(profile: Profile, body: Mapping[str, Any]) -> None:
    if profile.stack_level < 0:
        raise ProfileRefused("a negative stackLevel", "InvalidStackLevel")
    has_start = "startSchedule" in body["chargingSchedule"][0]
    if profile.kind in ("Absolute", "Recurring") and not has_start:
        raise ProfileRefused(f"{profile.kind} without startSchedule", "InvalidSchedule")
    if profile.kind == "Relative" and has_start:
        raise ProfileRefused("Relative with a startSchedule", "InvalidSchedule")
    if profile.kind == "Relative" and profile.purpose == "ChargingStationMaxProfile":
        raise ProfileRefused("a station has no start to be Relative to", "InvalidProfile")
    if profile.purpose != "TxProfile" and profile.transaction_id is not None:
        raise ProfileRefused(f"{profile.purpose} with a transactionId", "InvalidProfile")
