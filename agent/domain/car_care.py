"""When a vehicle's own cloud is asked or told something: reads, charge limit, commands.

The schedule of smartcar.md section 9: a vehicle is asked when it was plugged in, half
way, and when it stopped, never in between, and never one that is not plugged in. Its
charge limit is changed only where it would spoil the plan or the battery, and never
fought over (section 12). Pure: the caller asks, tells and remembers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from agent.domain.ids import SessionId
from agent.domain.soc import Soc, stale_after
from agent.domain.values import changed, value
from agent.domain.wake import DRAWS_W

READ_AFTER_S = 75.0
"""After plug-in or end of charging: 60 to 120 s, the vehicle needs time to report."""
READ_UNSEEN_S = 115.0
"""The same while no meter value was heard, which may yet bring a SoC of the station."""
REPEAT_S = (600.0, 1800.0)
"""After the first read, while its data is older than the plug-in; then it is given up."""
CONFIRM_S = 330.0
"""After a new limit: at least 5 min later one read shows whether it was taken."""
READS_MAX = 5
"""Per session, failed ones included: whether those are billed is not known."""
FAILED_AGAIN_S = 60.0
"""A read that got no answer is tried once more after this at the earliest."""
FAULTS_MAX = 2
MIDDLE_MIN_POINTS = 10.0
"""A remaining need smaller than this is not read half way."""
DRIFT_POINTS = 3.8
"""An estimate that is less certain than ± this many points is read before the middle;
simulated nights were best between 3.5 and 4."""
END_SHORT_POINTS = 3.0
"""A vehicle that stopped this far below its target may follow a limit of its own."""
LIMIT_MIN, LIMIT_MAX = 50.0, 100.0
"""What a limit can be (smartcar.md 5.4)."""
RESETS_MAX = 1
"""A limit that somebody else changed is set again this often per session."""
RESTORE_TRIES_S = (0.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
"""Between two tries to put an old limit back; after these a person has to do it."""
CONFIRM_WITHIN_S = 180.0
"""A start or stop is seen on the meter within 2 to 3 minutes, or did not work."""


class ReadReason(StrEnum):
    """Why a vehicle is asked, in words."""

    PLUGGED = "it was plugged in"
    REPEAT = "its data was older than the plug-in"
    LIMIT = "a new limit is to be confirmed"
    MIDDLE = "half of the need is charged, or the estimate is uncertain"
    END = "charging ended"


@value(kw_only=True)
class Care:
    """What was asked of a vehicle in one session; plain, so that it can be stored."""

    session_id: SessionId
    reads: int = 0
    first_read_at: datetime | None = None
    repeats: int = 0
    is_fresh: bool = False
    base_soc: float | None = None
    is_middle_read: bool = False
    is_end_read: bool = False
    confirm_at: datetime | None = None
    not_before: datetime | None = None
    faults: int = 0
    is_given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CarSight:
    """What is known of a plugged vehicle's session now; percent and W.

    ``stopped_at``: the vehicle or the station ended charging while power was offered.
    ``station_soc``: whether the station itself gives SoC; then the vehicle is not asked,
    unless it stopped below its target and the operator allows ``asks_why_stopped``.
    ``has_samples``: whether the station was heard at all.
    """

    plugged_at: datetime
    matched_at: datetime
    station_soc: bool
    asks_why_stopped: bool = False
    has_samples: bool = True
    is_charging: bool = False
    stopped_at: datetime | None = None
    soc: Soc | None = None
    target_percent: float | None = None


def next_read(care: Care, sight: CarSight, now: datetime) -> ReadReason | None:
    """Tell whether the vehicle is asked now, and why."""
    if care.is_given_up or care.reads >= READS_MAX:
        return None
    if care.not_before is not None and now < care.not_before:
        return None
    if care.confirm_at is not None and now >= care.confirm_at:
        return ReadReason.LIMIT
    if sight.station_soc:
        return ReadReason.END if _is_short(care, sight, now) else None
    if care.first_read_at is None:
        since = max(sight.plugged_at, sight.matched_at)
        wait_s = READ_AFTER_S if sight.has_samples else READ_UNSEEN_S
        return ReadReason.PLUGGED if _waited(since, now) >= wait_s else None
    if not care.is_fresh:
        if care.repeats >= len(REPEAT_S):
            return None
        is_due = _waited(care.first_read_at, now) >= REPEAT_S[care.repeats]
        return ReadReason.REPEAT if is_due else None
    if _is_ended(care, sight, now):
        return ReadReason.END
    return ReadReason.MIDDLE if _is_middle(care, sight) else None


def after_read(
    care: Care,
    reason: ReadReason,
    *,
    recorded_at: datetime | None,
    soc_percent: float | None,
    plugged_at: datetime,
    now: datetime,
) -> Care:
    """Remember a read that was answered; ``recorded_at`` is of its SoC."""
    is_new = recorded_at is not None and recorded_at >= stale_after(plugged_at)
    after = changed(
        care, reads=care.reads + 1, not_before=None, first_read_at=care.first_read_at or now
    )
    if is_new and soc_percent is not None:
        base = care.base_soc if care.base_soc is not None else soc_percent
        after = changed(after, is_fresh=True, base_soc=base)
    return _done(after, reason)


def after_fault(
    care: Care,
    reason: ReadReason,
    *,
    retryable: bool,
    retry_after_s: float | None,
    now: datetime,
    was_sent: bool = True,
) -> Care:
    """Remember a read without an answer; tried again once, then its moment is over."""
    reads = care.reads + 1 if was_sent else care.reads
    faults = care.faults + 1
    if not retryable:
        return changed(care, reads=reads, faults=faults, is_given_up=True)
    wait_s = max(retry_after_s or 0.0, FAILED_AGAIN_S)
    after = changed(care, reads=reads, not_before=now + timedelta(seconds=wait_s))
    if not was_sent:  # the budget refused it: no fault of the vehicle
        return after
    if faults < FAULTS_MAX:
        return changed(after, faults=faults)
    after = changed(after, faults=0, first_read_at=care.first_read_at or now)
    return _done(after, reason)


def given_up(care: Care) -> Care:
    """Ask no more in this session."""
    return changed(care, reads=care.reads + 1, is_given_up=True)


def to_confirm(care: Care, at: datetime) -> Care:
    """A limit was set: it is read again at ``at``."""
    return changed(care, confirm_at=at)


def _done(care: Care, reason: ReadReason) -> Care:
    match reason:
        case ReadReason.PLUGGED:
            return care
        case ReadReason.REPEAT:
            return changed(care, repeats=care.repeats + 1)
        case ReadReason.LIMIT:
            return changed(care, confirm_at=None)
        case ReadReason.MIDDLE:
            return changed(care, is_middle_read=True)
        case ReadReason.END:
            return changed(care, is_end_read=True)


def _waited(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()


def _is_ended(care: Care, sight: CarSight, now: datetime) -> bool:
    stopped_at = sight.stopped_at
    if care.is_end_read or stopped_at is None or _waited(stopped_at, now) < READ_AFTER_S:
        return False
    measured_at = sight.soc.measured_at if sight.soc is not None else None
    return measured_at is None or measured_at < stopped_at


def _is_short(care: Care, sight: CarSight, now: datetime) -> bool:
    """Whether a vehicle whose SoC is known stopped before its target, by its own limit."""
    stopped_at, soc, target = sight.stopped_at, sight.soc, sight.target_percent
    if care.is_end_read or stopped_at is None or soc is None or target is None:
        return False
    if not sight.asks_why_stopped:
        return False
    is_short = soc.percent < target - END_SHORT_POINTS
    return is_short and _waited(stopped_at, now) >= READ_AFTER_S


def _is_middle(care: Care, sight: CarSight) -> bool:
    if care.is_middle_read or not sight.is_charging or sight.soc is None:
        return False
    if care.base_soc is None:
        return False
    target = sight.target_percent if sight.target_percent is not None else LIMIT_MAX
    need = target - care.base_soc
    if need < MIDDLE_MIN_POINTS:
        return False
    if sight.soc.percent >= care.base_soc + need / 2:
        return True
    return sight.soc.confidence > DRIFT_POINTS


# --- the vehicle's own charge limit ---------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRules:
    """The operator's bounds of a vehicle's own limit, percent.

    ``care_percent`` is the ceiling that keeps a battery well, unless the plan wants
    more; None where nobody asks for it.
    """

    min_percent: float = LIMIT_MIN
    max_percent: float = LIMIT_MAX
    care_percent: float | None = None


@value(kw_only=True)
class LimitHold:
    """A vehicle's limit that the agent changed, until it is put back.

    ``seen`` is what the newest read after the change showed; ``is_left`` once it is
    not ours any more.
    """

    session_id: SessionId
    vehicle_id: str
    original: float
    set_to: float
    set_at: datetime
    resets: int = 0
    is_confirmed: bool = False
    is_left: bool = False
    restore_tries: int = 0
    restore_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStep:
    """Set the limit to ``percent`` (None: leave it), with the memory and the words."""

    percent: float | None
    hold: LimitHold | None
    words: str = ""
    is_given_up: bool = False


def limit_wanted(
    current: float, target_percent: float | None, rules: LimitRules
) -> float | None:
    """Tell what a vehicle's limit should be instead, or None when it is good."""
    highest = min(max(rules.max_percent, LIMIT_MIN), LIMIT_MAX)
    need = target_percent or 0.0
    low = min(max(need, rules.min_percent, LIMIT_MIN), highest)
    care = rules.care_percent if rules.care_percent is not None else LIMIT_MAX
    high = min(highest, max(care, low))
    if current < low:
        return float(ceil(low))
    if current > high:
        return float(ceil(high))
    return None


def limit_step(
    hold: LimitHold | None,
    *,
    seen: float,
    recorded_at: datetime | None,
    target_percent: float | None,
    rules: LimitRules,
) -> LimitStep:
    """Decide on a limit that was just read; ``hold`` is this session's own change."""
    wanted = limit_wanted(seen, target_percent, rules)
    if hold is None:
        words = _why(seen, wanted, target_percent, rules)
        return LimitStep(percent=wanted, hold=None, words=words)
    if hold.is_left:
        return LimitStep(percent=None, hold=hold)
    if abs(seen - hold.set_to) < 1:
        hold = changed(hold, is_confirmed=True)
        words = _why(seen, wanted, target_percent, rules)
        return LimitStep(percent=wanted, hold=hold, words=words)
    is_old = recorded_at is None or recorded_at <= hold.set_at
    if abs(seen - hold.original) < 1 and is_old and not hold.is_confirmed:
        return LimitStep(percent=None, hold=hold)  # the news lag behind
    if wanted is None:
        left = changed(hold, is_left=True)
        words = f"somebody else set it to {seen:.0f} %, which suits the plan"
        return LimitStep(percent=None, hold=left, words=words, is_given_up=True)
    if hold.resets >= RESETS_MAX:
        left = changed(hold, is_left=True)
        words = f"somebody else set it to {seen:.0f} % again; it is left like that"
        return LimitStep(percent=None, hold=left, words=words, is_given_up=True)
    again = changed(hold, resets=hold.resets + 1, is_confirmed=False)
    words = f"somebody else set it to {seen:.0f} %; set again, once"
    return LimitStep(percent=wanted, hold=again, words=words)


def may_restore(hold: LimitHold) -> bool:
    """Whether a limit is still ours to put back."""
    return not hold.is_left and hold.set_to != hold.original


def restore_failed(hold: LimitHold, now: datetime, wait_s: float | None) -> LimitHold:
    """Remember a try that did not succeed; ``is_left`` after the last one."""
    tries = hold.restore_tries + 1
    if tries >= len(RESTORE_TRIES_S):
        return changed(hold, restore_tries=tries, is_left=True)
    pause_s = max(RESTORE_TRIES_S[tries], wait_s or 0.0)
    return changed(hold, restore_tries=tries, restore_at=now + timedelta(seconds=pause_s))


def _why(seen: float, wanted: float | None, target: float | None, rules: LimitRules) -> str:
    if wanted is None:
        return ""
    if wanted > seen and target is not None and target > seen:
        return f"the plan wants {target:.0f} %, the vehicle would stop at {seen:.0f} %"
    if wanted > seen:
        return f"the operator's minimum is {rules.min_percent:.0f} %"
    if wanted >= rules.max_percent:
        return f"the operator's maximum is {rules.max_percent:.0f} %"
    return f"battery care: {wanted:.0f} % is enough"


# --- start and stop -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRule:
    """What vehicles of some makes cannot be told; names in upper case.

    ``start`` is no, yes, or only while the vehicle has no timers of its own.
    """

    makes: frozenset[str]
    start: str = "yes"
    stop: bool = True
    start_min_soc: float = 0.0
    stop_min_soc: float = 0.0


MAKE_RULES = (
    MakeRule(makes=frozenset({"FORD", "LINCOLN"}), start="without-timers"),
    MakeRule(makes=frozenset({"POLESTAR"}), stop_min_soc=40.0),
    MakeRule(
        makes=frozenset({"CHEVROLET", "CADILLAC", "GMC", "BUICK"}),
        start_min_soc=50.0,
        stop_min_soc=50.0,
    ),
    MakeRule(makes=frozenset({"NISSAN"}), stop=False),
)
"""From Smartcar's documentation (smartcar.md section 12); the configuration adds more."""


def why_not(
    rules: tuple[MakeRule, ...],
    make: str,
    *,
    is_start: bool,
    soc_percent: float | None,
    has_timers: bool | None = None,
) -> str | None:
    """Say why a vehicle must not be started or stopped, or None when it may be.

    The first rule that names the make counts, so the configuration's come first. An
    unknown SoC or unknown timers speak against it.
    """
    name = make.strip().upper()
    rule = next((item for item in rules if name in item.makes), None)
    if rule is None:
        return None
    if is_start and rule.start == "no":
        return f"vehicles of {name} must not be started"
    if is_start and rule.start == "without-timers" and has_timers is not False:
        return f"{name} with timers of its own would ignore its charge limit"
    if not is_start and not rule.stop:
        return f"vehicles of {name} cannot be stopped"
    least = rule.start_min_soc if is_start else rule.stop_min_soc
    if least > 0 and (soc_percent is None or soc_percent < least):
        shown = "unknown" if soc_percent is None else f"{soc_percent:.0f} %"
        return f"{name} obeys from {least:.0f} % on; the SoC is {shown}"
    return None


def is_confirmed(
    *,
    is_start: bool,
    sent_at: datetime,
    power_w: float | None,
    power_at: datetime | None,
    now: datetime,
) -> bool | None:
    """Whether the station's meter shows what a command wanted; None: wait."""
    if power_at is not None and power_at > sent_at and power_w is not None:
        is_drawing = power_w >= DRAWS_W
        if is_drawing == is_start:
            return True
    return False if _waited(sent_at, now) >= CONFIRM_WITHIN_S else None
