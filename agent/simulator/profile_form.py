"""A charging profile as a value, read from JSON as strictly as a strict station does.

Knows OCPP 1.6's field names; those of 2.x that differ are in profile_form2.py. What a
profile means over time is in profile_rules.py.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import parse_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PURPOSES = ("ChargePointMaxProfile", "TxDefaultProfile", "TxProfile")
KINDS = ("Absolute", "Recurring", "Relative")
RECURRENCE_S = {"Daily": 86_400, "Weekly": 604_800}
UNITS = ("A", "W")
PHASES_DEFAULT = 3  # OCPP 1.6 section 7.14
PHASES_MAX = 3
WHOLE_MAX = 2**31 - 1  # what the integers of most stations hold
DECIMAL_DUST = 1e-6  # how far ten times a limit may be from a whole number


class ProfileRefused(Exception):  # noqa: N818 (an answer, not an error)
    """The profile breaks a rule; the text says which, and 2.x has a code for it."""

    def __init__(self, text: str, reason: str = "InvalidProfile") -> None:
        """Carry the text and the reason code of 2.x."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start_s` seconds after the schedule's start, at most `limit` (A or W)."""

    start_s: int
    limit: float
    phases: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The periods of one profile, in its unit, "A" per phase or "W" in total.

    `soc_cap` is (from this SoC in percent on, this limit), of 2.1.
    """

    unit: str
    periods: tuple[Period, ...]
    duration_s: int | None = None
    start: datetime | None = None
    soc_cap: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A charging profile.

    `max_offline_s` and `ends_offline` are of 2.1: how long it holds without a link, and
    whether it is lost for good then.
    """

    profile_id: int
    stack_level: int
    purpose: str
    kind: str
    schedule: Schedule
    transaction_id: int | str | None = None
    recurrence_s: int | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    max_offline_s: int | None = None
    ends_offline: bool = False

    def is_valid_at(self, moment: datetime) -> bool:
        """Whether `moment` lies in [validFrom, validTo)."""
        if self.valid_from is not None and moment < self.valid_from:
            return False
        return self.valid_to is None or moment < self.valid_to


def read_profile(body: Mapping[str, Any]) -> Profile:
    """Read a csChargingProfiles object; raise ProfileRefused with the broken rule."""
    purpose = read_choice(body, "chargingProfilePurpose", PURPOSES)
    kind = read_choice(body, "chargingProfileKind", KINDS)
    schedule_body = body.get("chargingSchedule")
    if not isinstance(schedule_body, dict):
        raise ProfileRefused("chargingSchedule is not one object")
    profile = Profile(
        profile_id=read_whole(body, "chargingProfileId"),
        stack_level=read_whole(body, "stackLevel"),
        purpose=purpose,
        kind=kind,
        schedule=read_schedule(schedule_body),
        transaction_id=read_whole(body, "transactionId")
        if "transactionId" in body
        else None,
        recurrence_s=read_recurrence(body, kind),
        valid_from=read_moment(body, "validFrom"),
        valid_to=read_moment(body, "validTo"),
    )
    _check_kind(profile)
    return profile


def _check_kind(profile: Profile) -> None:
    if profile.stack_level < 0:
        raise ProfileRefused(f"stackLevel {profile.stack_level} is negative")
    if profile.kind != "Relative" and profile.schedule.start is None:
        raise ProfileRefused(f"{profile.kind} without startSchedule")
    if profile.kind == "Relative" and profile.purpose == "ChargePointMaxProfile":
        raise ProfileRefused("a ChargePointMaxProfile has no start to be Relative to")
    if profile.kind == "Relative" and profile.schedule.start is not None:
        raise ProfileRefused("Relative with a startSchedule")
    if profile.purpose != "TxProfile" and profile.transaction_id is not None:
        raise ProfileRefused(f"{profile.purpose} with a transactionId")


def read_recurrence(body: Mapping[str, Any], kind: str) -> int | None:
    """Read after how many seconds a Recurring profile begins anew."""
    if kind != "Recurring":
        return None
    return RECURRENCE_S[read_choice(body, "recurrencyKind", tuple(RECURRENCE_S))]


def read_schedule(body: Mapping[str, Any]) -> Schedule:
    """Read a chargingSchedule."""
    listed = body.get("chargingSchedulePeriod")
    if not isinstance(listed, list) or not listed:
        raise ProfileRefused("chargingSchedulePeriod is not a list with periods")
    periods = tuple(_period(each) for each in listed)
    if periods[0].start_s != 0:
        raise ProfileRefused(f"the first startPeriod is {periods[0].start_s}, not 0")
    for before, after in itertools.pairwise(periods):
        if after.start_s <= before.start_s:
            raise ProfileRefused(f"startPeriod {after.start_s} does not ascend")
    duration_s = read_whole(body, "duration") if "duration" in body else None
    if duration_s is not None and duration_s < 0:
        raise ProfileRefused(f"duration {duration_s} is negative")
    return Schedule(
        unit=read_choice(body, "chargingRateUnit", UNITS),
        periods=periods,
        duration_s=duration_s,
        start=read_moment(body, "startSchedule"),
    )


def _period(body: object) -> Period:
    if not isinstance(body, dict):
        raise ProfileRefused("a period is not an object")
    limit = body.get("limit")
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ProfileRefused(f"limit {limit!r} is not a number")
    if not math.isfinite(limit) or limit < 0:
        raise ProfileRefused(f"limit {limit} is not 0 or more")
    if not has_one_decimal(limit):
        raise ProfileRefused(f"limit {limit} has more than one decimal")
    phases = read_whole(body, "numberPhases") if "numberPhases" in body else None
    if phases is not None and not 1 <= phases <= PHASES_MAX:
        raise ProfileRefused(f"numberPhases {phases} is not 1 to 3")
    return Period(
        start_s=read_whole(body, "startPeriod"), limit=float(limit), phases=phases
    )


def has_one_decimal(limit: float) -> bool:
    """Whether a limit is as coarse as the schemas demand."""
    return abs(limit * 10 - round(limit * 10)) <= DECIMAL_DUST


def read_choice(body: Mapping[str, Any], field: str, allowed: tuple[str, ...]) -> str:
    """Read one of the allowed words."""
    value = body.get(field)
    if not isinstance(value, str) or value not in allowed:
        raise ProfileRefused(f"{field} {value!r} is not one of {', '.join(allowed)}")
    return value


def read_whole(body: Mapping[str, Any], field: str) -> int:
    """Read a whole number of at most 32 bits."""
    value = body.get(field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProfileRefused(f"{field} {value!r} is not a whole number")
    if abs(value) > WHOLE_MAX:
        raise ProfileRefused(f"{field} {value} is beyond 32 bits")
    return value


def read_moment(body: Mapping[str, Any], field: str) -> datetime | None:
    """Read a time; None if there is none."""
    if field not in body:
        return None
    try:
        return parse_stamp(body[field])
    except ValueError as error:
        raise ProfileRefused(f"{field}: {error}") from error
