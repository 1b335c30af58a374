"""Pauses: may a vehicle pause, did it resume, what wakes it, and when none is due.

A resume is due when the limit rises from below the vehicle's minimum to at least that,
and the vehicle is not full. Until measured power proves it, the wake ladder is climbed
(charger-quirks.md EV-01, LIM-13) and after 5 minutes it is an alarm (ocpp-depot.md B12,
faults.md C15). Pure: ``watch`` says what to do, its caller does it under the cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.domain.curve import Curve, curve, edges, since, value_at
from agent.domain.events import ConnectorStatus
from agent.domain.ids import SessionId
from agent.domain.plan import Schedule
from agent.domain.values import changed, value

DRAWS_W = 500.0
"""A vehicle that draws at least this much charges; a pause is below it (B12)."""
STEP_S = 60.0
"""Between a due resume and the first rung, and between rungs: DC stations need up to a
minute to follow, and a second start within a minute puts vehicles in fault (EV-03)."""
BEGIN_S = 120.0
"""A new session has this long to begin: ISO 15118, isolation test, first limit."""
ALARM_S = 280.0
"""A resume that was not seen within 5 min is an alarm (B12, C15): two passes of the
power loop before that, so that no late one passes it."""
ROUND_S = 900.0
"""From the last rung to the first one of another round: something may have changed."""
ROUNDS_MAX = 4
"""After an hour of rounds only a person helps; stations store every profile (VER-12)."""
TAKES_MAX = 2
"""Restarts and cloud starts per session: both are felt by others than the vehicle."""
TOGGLE_S = 10.0
"""How long 0 is offered in a toggle: long enough for the station to act on it."""
BOOST_W = 10_000.0
"""Offered on the boost rung: vehicles were seen to ignore their own stated minimum."""
BOOST_S = 120.0
"""How long a boost is held: a station's settle time and a sample."""
RESTART_GRACE_S = 120.0
"""A remote restart ends one transaction; the next one begins within this time."""
FULL_SOC = 100.0
FULL_MARGIN = 1.0
"""Points below the target that count as full: stations report whole percents."""
OWN_LIMIT_MARGIN = 5.0
"""A vehicle that stopped by itself this near to its target follows a limit of its own."""
PRECONDITIONING = timedelta(minutes=30)
"""How long before departure a bus is heated or cooled (EV-15, ocpp-depot.md D1)."""
PRECONDITIONING_MAX = timedelta(hours=6)
"""No bus is heated for longer; the time that a plan names may be a mistake."""


class WakeAction(StrEnum):
    """The rungs of the wake ladder, weakest first."""

    RESEND = "re-send"
    BOOST = "minimum-power"
    TOGGLE = "limit-toggle"
    RESTART = "remote-restart"
    CLOUD = "cloud-start"


class WakePhase(StrEnum):
    """Where a session is between pause and resume."""

    NEW = "new"
    OPEN = "open"
    PAUSED = "paused"
    DUE = "due"


class WakeNews(StrEnum):
    """What a person should hear of; the last two end the first."""

    NOT_RESUMED = "vehicle_not_resumed"
    RESUMED = "vehicle_resumed"
    NO_LONGER_DUE = "resume_no_longer_due"


@dataclass(frozen=True, slots=True, kw_only=True)
class WakePolicy:
    """What may be done at this outlet, to this vehicle; powers in W at the outlet.

    ``zero_allowed``: the station survives a limit of 0 (LIM-08, LIM-09).
    ``may_restart``: it starts again after a remote stop without a new plug (REM-05).
    ``may_use_cloud``: the vehicle's cloud can be asked to start charging.
    """

    zero_allowed: bool = True
    may_restart: bool = False
    may_use_cloud: bool = False
    boost_w: float = BOOST_W


@value(kw_only=True)
class Sight:
    """What is known of one outlet with a session now; W at the outlet.

    ``limit_w`` is what was decided for it (allocated), not what the station confirmed:
    a raise that the station never took is a failed resume too. ``max_w`` bounds a
    boost. A missing ``target_soc_percent`` means full.
    """

    session_id: SessionId
    limit_w: float
    min_w: float
    max_w: float
    has_transaction: bool = True
    started_at: datetime | None = None
    measured_w: float | None = None
    measured_at: datetime | None = None
    status: ConnectorStatus = ConnectorStatus.UNKNOWN
    soc_percent: float | None = None
    target_soc_percent: float | None = None

    @property
    def is_pause(self) -> bool:
        """Whether so little is allowed that the vehicle cannot charge."""
        return self.limit_w < max(self.min_w, DRAWS_W)


@value(kw_only=True)
class WakeState:
    """The memory of one session; plain, so that it can be stored.

    ``has_drawn`` once power flowed; ``is_satisfied`` when the vehicle stopped drawing
    by itself. ``taken`` are the rungs since the resume was due, ``spent`` the restarts
    and cloud starts of the whole session, ``first`` the rung that helped last time.
    ``has_failed`` stays once a resume came too late: no further pause (may not get 0).
    """

    session_id: SessionId | None = None
    phase: WakePhase = WakePhase.NEW
    has_drawn: bool = False
    is_satisfied: bool = False
    due_at: datetime | None = None
    last_at: datetime | None = None
    taken: tuple[WakeAction, ...] = ()
    spent: tuple[WakeAction, ...] = ()
    round_from: int = 0
    rounds: int = 0
    is_alarmed: bool = False
    has_failed: bool = False
    first: WakeAction | None = None


@value(kw_only=True)
class WakeStep:
    """Do this now: offer ``power_w`` for ``hold_s`` seconds, then the limit again.

    Both are 0 for actions that are no limit; a boost is a wish that the caller puts
    under the cap. Never an order by itself.
    """

    action: WakeAction
    power_w: float = 0.0
    hold_s: float = 0.0


@value(kw_only=True)
class WakeNotice:
    """News with its words for a technician."""

    news: WakeNews
    text: str


@value(kw_only=True)
class Watched:
    """The new memory, at most one step, news, and the rung that worked, if one did.

    ``resumed`` is true when power flows after a pause: some stations forget the limit
    just then, so that it should be confirmed again (LIM-11).
    """

    state: WakeState
    step: WakeStep | None = None
    news: tuple[WakeNotice, ...] = ()
    worked: WakeAction | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWindow:
    """A time in which a vehicle keeps at least ``floor_w`` (W at the outlet)."""

    opens_at: datetime
    closes_at: datetime
    floor_w: float

    def is_open(self, at: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.opens_at <= at < self.closes_at


def may_pause(
    *,
    vehicle_can_pause: bool,
    station_zero_allowed: bool,
    plan_can_pause: bool | None = None,
    has_failed: bool = False,
) -> bool:
    """Whether a vehicle may get 0 W: never one that cannot resume (EV-01).

    ``has_failed``: it resumed too late earlier in this session (``WakeState``).
    """
    is_able = vehicle_can_pause and plan_can_pause is not False and not has_failed
    return is_able and station_zero_allowed


def preconditioning(
    schedule: Schedule | None,
    min_preconditioning_w: float | None,
    *,
    max_w: float,
    span: timedelta = PRECONDITIONING,
    is_wanted: bool | None = None,
) -> HeldWindow | None:
    """Tell when power is held open before departure, and how much; None if not.

    The plan's own time and energy, which the bus asked for by V2ICP, count where they
    are given; else ``span`` and the vehicle's least power. ``is_wanted``: what the depot
    asks the bus for, None when that is not said.
    """
    if schedule is None or is_wanted is False:
        return None
    asked = schedule.plan.preconditioning if schedule.plan is not None else None
    floor_w = max(
        float(min_preconditioning_w or 0), asked.mean_w if asked is not None else 0.0
    )
    if floor_w <= 0:
        return None
    if asked is not None and asked.lasts_s > 0:
        span = min(timedelta(seconds=asked.lasts_s), PRECONDITIONING_MAX)
    opens_at = max(schedule.departs_at - span, schedule.arrives_at)
    if opens_at >= schedule.departs_at:
        return None
    return HeldWindow(
        opens_at=opens_at,
        closes_at=schedule.departs_at,
        floor_w=min(floor_w, max_w),
    )


def held_open(line: Curve, window: HeldWindow | None) -> Curve:
    """Lift a curve to the window's floor while the window is open; nowhere else."""
    if window is None:
        return line
    opens_s = -int(-window.opens_at.timestamp() // 1)
    closes_s = int(window.closes_at.timestamp())
    if closes_s <= opens_s:
        return line
    before = [step for step in line if step[0] < opens_s] or [(0, line[0][1])]
    inner = [at_s for at_s in edges([line], opens_s) if at_s < closes_s]
    lifted = [(at_s, max(value_at(line, at_s), window.floor_w)) for at_s in inner]
    return curve([*before, *lifted, *since(line, closes_s)])


def watch(
    state: WakeState,
    sight: Sight,
    policy: WakePolicy,
    *,
    now: datetime,
    learned: WakeAction | None = None,
) -> Watched:
    """Look at an outlet once; call it at least every 30 s while a session is open.

    ``learned`` is the rung that this vehicle needed at another time.
    """
    if state.session_id != sight.session_id:
        state = WakeState(session_id=sight.session_id, first=learned)
    state = _with_clock(state, now)
    if _is_own_restart(state, sight, now):
        return _while_due(state, sight, policy, now)
    if not sight.has_transaction:
        return _cancelled(state, WakePhase.NEW, "the transaction ended")
    if sight.is_pause:
        return _cancelled(_noticed(state, sight), WakePhase.PAUSED, "the limit fell again")
    match state.phase:
        case WakePhase.DUE:
            return _while_due(state, sight, policy, now)
        case WakePhase.OPEN:
            return Watched(state=_noticed(state, sight))
        case WakePhase.NEW | WakePhase.PAUSED:
            return _raised(state, sight, now)


def _with_clock(state: WakeState, now: datetime) -> WakeState:
    """After the clock stepped back waits begin anew instead of lasting for hours."""
    latest = now + timedelta(seconds=BEGIN_S)
    if state.due_at is not None and state.due_at > latest:
        return changed(state, due_at=now, last_at=None)
    if state.last_at is not None and state.last_at > now:
        return changed(state, last_at=now)
    return state


def _raised(state: WakeState, sight: Sight, now: datetime) -> Watched:
    """The limit is at the minimum or above, after a pause or at first sight."""
    is_pause_over = state.phase is WakePhase.PAUSED
    # At first sight (a restart of the agent) a vehicle that holds itself back with an
    # unknown SoC may be full; waking it would be a guess.
    is_guess = not is_pause_over and sight.soc_percent is None and _holds_itself(sight)
    if _is_full(state, sight) or is_guess:
        return Watched(state=changed(state, phase=WakePhase.OPEN))
    if not is_pause_over and (sight.measured_w or 0.0) >= DRAWS_W:
        return Watched(state=changed(state, phase=WakePhase.OPEN, has_drawn=True))
    due_at = now
    if not is_pause_over and sight.started_at is not None:
        begun_at = sight.started_at + timedelta(seconds=BEGIN_S)
        due_at = min(max(now, begun_at), now + timedelta(seconds=BEGIN_S))
    due = changed(_calm(state, WakePhase.DUE), due_at=due_at, is_satisfied=False)
    return Watched(state=due)


def _while_due(
    state: WakeState, sight: Sight, policy: WakePolicy, now: datetime
) -> Watched:
    due_at = state.due_at or now
    is_fresh = sight.measured_at is not None and sight.measured_at > due_at
    if is_fresh and (sight.measured_w or 0.0) >= DRAWS_W:
        return _resumed(state, sight)
    if _is_full(state, sight):
        return _cancelled(state, WakePhase.OPEN, "the vehicle is full")
    news: tuple[WakeNotice, ...] = ()
    if not state.is_alarmed and (now - due_at).total_seconds() >= ALARM_S:
        state = changed(state, is_alarmed=True, has_failed=True)
        text = _why(sight, is_fresh=is_fresh)
        news = (WakeNotice(news=WakeNews.NOT_RESUMED, text=text),)
    state, action = _climb(state, _rungs(state, sight, policy, is_fresh=is_fresh), now)
    step = None if action is None else _step(action, sight, policy)
    return Watched(state=state, step=step, news=news)


def _resumed(state: WakeState, sight: Sight) -> Watched:
    worked = state.taken[-1] if state.taken else None
    news: tuple[WakeNotice, ...] = ()
    if worked is not None or state.is_alarmed:
        how = "by itself" if worked is None else f"after {worked}"
        kilowatts = (sight.measured_w or 0.0) / 1000
        text = f"the vehicle resumed {how} and draws {kilowatts:.1f} kW"
        news = (WakeNotice(news=WakeNews.RESUMED, text=text),)
    new = _calm(state, WakePhase.OPEN)
    new = changed(new, has_drawn=True, is_satisfied=False, first=worked or state.first)
    return Watched(state=new, news=news, worked=worked, resumed=True)


def _cancelled(state: WakeState, phase: WakePhase, why: str) -> Watched:
    """A resume is no longer due; an alarm that was raised is taken back."""
    news: tuple[WakeNotice, ...] = ()
    if state.is_alarmed:
        news = (WakeNotice(news=WakeNews.NO_LONGER_DUE, text=why),)
    return Watched(state=_calm(state, phase), news=news)


def _calm(state: WakeState, phase: WakePhase) -> WakeState:
    """Forget the resume that was due, and nothing of the session."""
    return WakeState(
        session_id=state.session_id,
        phase=phase,
        has_drawn=state.has_drawn,
        is_satisfied=state.is_satisfied,
        spent=state.spent,
        has_failed=state.has_failed,
        first=state.first,
    )


def _is_own_restart(state: WakeState, sight: Sight, now: datetime) -> bool:
    """Whether a missing transaction or limit is our own doing: no end, and no pause."""
    if state.taken[-1:] != (WakeAction.RESTART,) or state.last_at is None:
        return False
    # An alarm that the restart did not end stays until a transaction or an unplug.
    is_stuck = state.is_alarmed and not sight.has_transaction
    return is_stuck or (now - state.last_at).total_seconds() < RESTART_GRACE_S


def _noticed(state: WakeState, sight: Sight) -> WakeState:
    """Remember whether it draws, so that later its silence can be understood."""
    if sight.measured_w is None or state.phase is not WakePhase.OPEN:
        return state
    is_drawing = sight.measured_w >= DRAWS_W
    if is_drawing:
        return changed(state, has_drawn=True, is_satisfied=False)
    # A sample taken when the limit had just fallen says nothing of the vehicle's will.
    if not sight.is_pause and (state.has_drawn or _holds_itself(sight)):
        return changed(state, is_satisfied=True)
    return state


def _holds_itself(sight: Sight) -> bool:
    return sight.status in {ConnectorStatus.SUSPENDED_EV, ConnectorStatus.FINISHING}


def _is_full(state: WakeState, sight: Sight) -> bool:
    """Whether it is right not to draw; the reported state is a hint only (STS-03)."""
    if sight.soc_percent is None:
        return state.is_satisfied
    target = min(sight.target_soc_percent or FULL_SOC, FULL_SOC)
    margin = OWN_LIMIT_MARGIN if state.is_satisfied else FULL_MARGIN
    return sight.soc_percent >= target - margin


def _rungs(
    state: WakeState, sight: Sight, policy: WakePolicy, *, is_fresh: bool
) -> tuple[WakeAction, ...]:
    """The rungs that may be taken now, in order; the one once learned comes first."""
    if not sight.has_transaction or sight.status in {
        ConnectorStatus.FINISHING,  # it wants the cable pulled (REM-05)
        ConnectorStatus.FAULTED,
        ConnectorStatus.UNAVAILABLE,
    }:
        return ()
    if not is_fresh:
        return (WakeAction.RESEND,)  # it may well charge: only its meter is silent
    allowed = {
        WakeAction.RESEND: True,
        WakeAction.BOOST: True,
        WakeAction.TOGGLE: policy.zero_allowed,
        WakeAction.RESTART: policy.may_restart,
        # When the station holds it back, waking the vehicle does not help.
        WakeAction.CLOUD: policy.may_use_cloud
        and sight.status is not ConnectorStatus.SUSPENDED_EVSE,
    }
    for action in (WakeAction.RESTART, WakeAction.CLOUD):
        if state.spent.count(action) >= TAKES_MAX:
            allowed[action] = False
    order = list(WakeAction)
    if state.first is not None and allowed[state.first] and state.rounds == 0:
        order = order[order.index(state.first) :]
    return tuple(action for action in order if allowed[action])


def _climb(
    state: WakeState, rungs: tuple[WakeAction, ...], now: datetime
) -> tuple[WakeState, WakeAction | None]:
    """Take the next rung when its time has come."""
    since = state.last_at or state.due_at or now
    waited_s = (now - since).total_seconds()
    done = state.taken[state.round_from :]
    left = [action for action in rungs if action not in done]
    if not left and rungs and done and waited_s >= ROUND_S:
        if state.rounds + 1 >= ROUNDS_MAX:
            return state, None
        state = changed(state, rounds=state.rounds + 1, round_from=len(state.taken))
        left = list(rungs)
    if not left or waited_s < STEP_S:
        return state, None
    action = left[0]
    spent = state.spent
    if action in {WakeAction.RESTART, WakeAction.CLOUD}:
        spent = (*spent, action)
    new = changed(state, taken=(*state.taken, action), spent=spent, last_at=now)
    return new, action


def _step(action: WakeAction, sight: Sight, policy: WakePolicy) -> WakeStep:
    match action:
        case WakeAction.BOOST:
            boost_w = min(max(sight.min_w, policy.boost_w), sight.max_w)
            power_w = max(boost_w, sight.limit_w)
            return WakeStep(action=action, power_w=power_w, hold_s=BOOST_S)
        case WakeAction.TOGGLE:
            return WakeStep(action=action, hold_s=TOGGLE_S)
        case WakeAction.RESEND | WakeAction.RESTART | WakeAction.CLOUD:
            return WakeStep(action=action)


def _why(sight: Sight, *, is_fresh: bool) -> str:
    """What a technician should know, and where to look."""
    allowed = f"{sight.limit_w / 1000:.1f} kW are allowed to it"
    hint = _HINTS.get(sight.status, "unplug and plug in, or start the vehicle by hand")
    if not is_fresh:
        hint = "the station sent no meter value since"
    return f"the vehicle did not resume within 5 min; {allowed}; {hint}"


_HINTS = {
    ConnectorStatus.SUSPENDED_EV: "it does not take them: wake it, or unplug and plug in",
    ConnectorStatus.SUSPENDED_EVSE: "the station holds back: look at its own limits",
    ConnectorStatus.FINISHING: "the station wants the cable pulled and plugged in again",
    ConnectorStatus.FAULTED: "the station reports a fault: look at its display",
    ConnectorStatus.UNAVAILABLE: "the station is out of service: look at its display",
}
