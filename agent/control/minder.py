"""Minds the sessions: is the vehicle on its plan, does it wake up, does it need a plan.

Between what a session should draw (``wishes``) and the division of power stand four
things: a plan made here where the cloud gave none, the window before departure that is
held open, a wake step for a vehicle that does not resume, and the account that says how
urgent it is. The decisions are pure (``domain/account``, ``wake``, ``localplan``); this
module keeps their memory and tells people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from agent.control.catchup import CatchUp
from agent.control.depot import Depot
from agent.control.wishes import Wish
from agent.domain import account as accounts
from agent.domain import localplan, session_soc, wake
from agent.domain.account import Account, Battery, Goal
from agent.domain.allocator import Node, Reserve
from agent.domain.curve import EVER_S, constant
from agent.domain.events import ConnectorStatus
from agent.domain.identity import MatchOutcome, Vehicle
from agent.domain.ids import Outlet, SessionId, VehicleId
from agent.domain.localplan import LocalPlan, Need, Taper
from agent.domain.plan import Schedule
from agent.domain.session import Session
from agent.domain.wake import (
    HeldWindow,
    WakeAction,
    WakeNews,
    WakePhase,
    WakePolicy,
    WakeState,
    Watched,
)

log = structlog.get_logger()

ACCOUNT_EVERY = timedelta(seconds=30)
"""An account moves with meter values, which come once or twice a minute."""
REPLAN_EVERY = timedelta(minutes=15)
"""A local plan is made anew this often, and at once when a vehicle comes or goes."""
RISK_LASTS = timedelta(minutes=3)
"""A risk that lasts is told: a share may be small for a moment while others prove."""
REMEMBERED_MAX = 2000
"""Vehicles whose wake rung is remembered, and accounts kept."""


def no_car_cloud(_: SessionId) -> bool:
    """Without a cloud of the vehicles nobody but the station can wake one."""
    return False


@dataclass(slots=True)
class _Override:
    """A wake step in force: this power until then."""

    power_w: float
    until: datetime
    why: str


@dataclass(slots=True)
class Minder:
    """The memory of all sessions' accounts, wake-ups and local plans."""

    depot: Depot
    notes: list[tuple[Outlet, str]] = field(default_factory=list)
    """Lines for sessions' records; the power loop writes and empties them."""
    catching: CatchUp = field(init=False)
    waking: dict[Outlet, WakeState] = field(default_factory=dict)
    plans: dict[Outlet, LocalPlan] = field(default_factory=dict)
    restarts: list[Outlet] = field(default_factory=list)
    resumed: list[Outlet] = field(default_factory=list)
    """Outlets where power flows after a pause: their limit is confirmed again."""
    car_starts: list[Outlet] = field(default_factory=list)
    """Outlets whose vehicle its own cloud should start; see ``take_car_starts``."""
    car_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when ``car_starts`` got an entry."""
    wake_by_car: Callable[[SessionId], bool] = no_car_cloud
    """Whether the cloud of a session's vehicle could start it; asked at every pass, so
    it answers from memory and never raises."""
    _overrides: dict[Outlet, _Override] = field(default_factory=dict)
    _learned: dict[VehicleId, WakeAction] = field(default_factory=dict)
    _needs: dict[Outlet, Need] = field(default_factory=dict)
    _planned_for: frozenset[tuple[Outlet, SessionId, datetime]] = frozenset()
    _planned_at: datetime | None = None
    _is_planning: bool = False
    _risky_since: dict[SessionId, datetime] = field(default_factory=dict)
    _told_risk: set[SessionId] = field(default_factory=set)
    _told_doubt: set[SessionId] = field(default_factory=set)
    _wanting: dict[Outlet, tuple[Outlet, SessionId, datetime]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with empty memories."""
        self.catching = CatchUp(self.depot)

    # --- before the power is divided ----------------------------------------------------

    def begin(self) -> None:
        """Begin a pass: who wants a local plan is found out anew."""
        self._needs.clear()
        self._wanting.clear()

    def may_pause(self, outlet: Outlet) -> bool:
        """Whether nothing in this session spoke against another pause."""
        state = self.waking.get(outlet)
        return state is None or not state.has_failed

    def adjust(self, outlet: Outlet, session: Session, asked: Wish, now: datetime) -> Wish:
        """Put a local plan, the window before departure and a wake step into a wish."""
        vehicle, schedule = self._slot(session)
        if asked.source == "unplanned" and vehicle is not None:
            asked = self._with_local_plan(outlet, session, vehicle, schedule, asked, now)
        asked = self.catching.adjust(outlet, session, schedule, asked, now)
        window = self._window(vehicle, schedule, asked)
        if window is not None and now < window.closes_at:
            words = (
                f"{window.floor_w / 1000:.1f} kW are held open from "
                f"{window.opens_at:%H:%M} to departure for preconditioning"
            )
            line = wake.held_open(asked.line, window)
            asked = replace(asked, line=line, rules=(*asked.rules, words))
        override = self._overrides.get(outlet)
        if override is None:
            return asked
        if now >= override.until:
            del self._overrides[outlet]
            return asked
        power_w = min(override.power_w, asked.window.max_w)
        return replace(asked, line=constant(power_w), rules=(*asked.rules, override.why))

    def bring_up(
        self, outlet: Outlet, session: Session, asked: Wish, now: datetime
    ) -> Account | None:
        """Bring a session's account up to now; None where there is no departure."""
        vehicle, schedule = self._slot(session)
        if vehicle is None or session.started_at is None:
            return None
        before = self.depot.accounts.get(session.session_id)
        if before is not None and timedelta() <= now - before.at < ACCOUNT_EVERY:
            return before
        if before is not None and now < before.at:
            before = accounts.after_clock_step(before, now)
        view = self.depot.views.get(outlet)
        given = None
        if view is not None and view.share is not None and asked.source != "unmatched":
            given = view.share
        soc_percent, is_doubted = session_soc.soc_for_priority(session, now)
        planned = asked.line if asked.plan_line is None else asked.plan_line
        goal = Goal(
            started_at=session.started_at,
            line=planned if asked.source in ("plan", "local") else None,
            given=given,
            departs_at=schedule.departs_at if schedule is not None else None,
            target_soc=schedule.target_soc_percent if schedule is not None else None,
            start_soc=schedule.start_soc_percent if schedule is not None else None,
            soc=soc_percent,
            window=self._window(vehicle, schedule, asked),
            is_full=asked.source == "goal",
        )
        battery = _battery(session, vehicle, asked.window.max_w)
        found = accounts.account(before, session.meter, goal, battery, now=now)
        self._remember(session.session_id, found)
        self._tell_risk(session, found, now)
        if is_doubted and session.session_id not in self._told_doubt:
            self._told_doubt.add(session.session_id)
            said = session.meter.soc_percent or 0.0
            text = f"the station says {said:.0f} % where metered energy makes "
            self.notes.append((outlet, f"SoC doubted: {text}{soc_percent:.0f} %"))
        return found

    # --- after the power was divided ----------------------------------------------------

    def observe(
        self, outlet: Outlet, session: Session, asked: Wish, share_w: float, now: datetime
    ) -> WakeAction | None:
        """Look whether the vehicle wakes up; returns a step that an order must follow."""
        state = self.waking.get(outlet, WakeState())
        schedule = self._slot(session)[1]
        evse = self.depot.state(outlet[0]).evses.get(outlet[1])
        meter = session.meter
        sight = wake.Sight(
            session_id=session.session_id,
            limit_w=share_w,
            min_w=asked.window.min_w,
            max_w=asked.window.max_w,
            has_transaction=session.open_transaction is not None,
            started_at=session.started_at,
            measured_w=meter.power_w,
            measured_at=meter.power_at,
            status=evse.status if evse is not None else ConnectorStatus.UNKNOWN,
            soc_percent=meter.soc_percent,
            target_soc_percent=schedule.target_soc_percent if schedule else None,
        )
        policy = WakePolicy(
            zero_allowed=asked.window.can_pause,
            may_restart=self.depot.policy.wake_restart,
            may_use_cloud=self.wake_by_car(session.session_id),
        )
        if outlet in self._overrides:
            return None  # a step is being tried: its own limit is no pause
        learned = self._learned.get(session.vehicle_id) if session.vehicle_id else None
        seen = wake.watch(state, sight, policy, now=now, learned=learned)
        self.waking[outlet] = seen.state
        self._tell_wake(outlet, session, seen)
        if seen.worked is not None and session.vehicle_id is not None:
            self._learned[session.vehicle_id] = seen.worked
        if seen.resumed and state.has_drawn:  # a pause was over, not the first start
            self.resumed.append(outlet)
        if seen.step is None:
            return None
        step = seen.step
        log.info("wake_step_taken", **_names(outlet, session), step=str(step.action))
        if step.hold_s > 0:
            self._overrides[outlet] = _Override(
                power_w=step.power_w,
                until=now + timedelta(seconds=step.hold_s),
                why=f"to wake the vehicle: {step.action}",
            )
        if step.action is WakeAction.RESTART:
            self.restarts.append(outlet)
        if step.action is WakeAction.CLOUD and outlet not in self.car_starts:
            self.car_starts.append(outlet)
            self.car_asked.set()
        return step.action

    def _tell_wake(self, outlet: Outlet, session: Session, seen: Watched) -> None:
        """Tell people of a resume that is overdue, or no longer is."""
        for item in seen.news:
            name = {
                WakeNews.NOT_RESUMED: "vehicle_not_resumed",
                WakeNews.RESUMED: "vehicle_resumed",
                WakeNews.NO_LONGER_DUE: "resume_no_longer_due",
            }[item.news]
            fields = _names(outlet, session) | {"reason": item.text}
            if item.news is WakeNews.NOT_RESUMED:
                log.warning(name, **fields)
            else:
                log.info(name, **fields)
            if item.news is WakeNews.NOT_RESUMED:
                self.notes.append((outlet, f"did not resume: {item.text}"))

    def take_car_starts(self) -> list[Outlet]:
        """Hand over the outlets whose vehicle should be started by its own cloud; once.

        Those that resumed, left or are full by now are dropped.
        """
        wanted, self.car_starts = self.car_starts, []
        self.car_asked.clear()
        states = {outlet: self.waking.get(outlet) for outlet in wanted}
        return [
            outlet
            for outlet, state in states.items()
            if state is not None and state.phase is WakePhase.DUE
        ]

    def gone(self, outlet: Outlet) -> None:
        """Forget an outlet without a session."""
        self.waking.pop(outlet, None)
        self._overrides.pop(outlet, None)
        self.plans.pop(outlet, None)
        self.catching.forget(outlet)
        if outlet in self.car_starts:
            self.car_starts.remove(outlet)

    # --- local plans ----------------------------------------------------------------------

    def wants_replan(self, now: datetime) -> bool:
        """Whether the set of vehicles without a cloud plan changed, or time passed."""
        wanted = frozenset(self._wanting.values())
        if self._is_planning:
            return False
        if not wanted:
            if self._planned_for:
                self._planned_for, self._planned_at = frozenset(), None
                self.plans.clear()
                log.info("local_plan_dropped", reason="every vehicle has the cloud's plan")
            return False
        if wanted != self._planned_for or self._planned_at is None:
            return True
        return not timedelta() <= now - self._planned_at < REPLAN_EVERY

    async def replan(
        self, holds: Mapping[Outlet, Reserve], nodes: Sequence[Node], now: datetime
    ) -> None:
        """Make the local plans anew, off the event loop: 100 vehicles take a while."""
        self._is_planning = True
        needs = list(self._needs.values())
        wanted = frozenset(self._wanting.values())
        fixed = {
            outlet: item for outlet, item in holds.items() if outlet not in self._needs
        }
        try:
            made = await asyncio.to_thread(
                localplan.make_plans, needs, fixed, nodes, now=now
            )
        finally:
            self._is_planning = False
        self._planned_for, self._planned_at = wanted, now
        self.plans = dict(made)
        missing_wh = sum(item.missing_wh for item in made.values())
        log.info(
            "local_plan_made",
            vehicles=len(made),
            missing_wh=round(missing_wh),
            reason="there is no usable plan of the cloud for them",
        )
        self.depot.changed.set()

    def _with_local_plan(
        self,
        outlet: Outlet,
        session: Session,
        vehicle: Vehicle,
        schedule: Schedule | None,
        asked: Wish,
        now: datetime,
    ) -> Wish:
        need = self._need(outlet, session, vehicle, schedule, asked, now)
        if need is None or schedule is None:
            return asked
        self._needs[outlet] = need
        self._wanting[outlet] = (outlet, session.session_id, schedule.departs_at)
        made = self.plans.get(outlet)
        if made is None:
            return asked
        words = f"a plan made here, because there is none of the cloud: {made.words}"
        return replace(asked, line=made.line, source="local", rules=(*asked.rules, words))

    def _need(
        self,
        outlet: Outlet,
        session: Session,
        vehicle: Vehicle,
        schedule: Schedule | None,
        asked: Wish,
        now: datetime,
    ) -> Need | None:
        """What the vehicle still needs; None where departure, target or size is unknown."""
        if schedule is None or schedule.target_soc_percent is None:
            return None
        if schedule.departs_at <= now or not vehicle.capacity_wh:
            return None
        if not vehicle.follows_schedule or session.match is not MatchOutcome.UNIQUE:
            return None
        known = self.depot.accounts.get(session.session_id)
        soc = known.soc if known is not None else session.meter.soc_percent
        soc = schedule.start_soc_percent if soc is None else soc
        if soc is None:
            return None
        capacity_wh = float(vehicle.capacity_wh)
        efficiency = accounts.BATTERY_EFFICIENCY
        return Need(
            outlet=outlet,
            departs_at=schedule.departs_at,
            energy_wh=localplan.energy_needed(
                soc_percent=soc,
                target_percent=schedule.target_soc_percent,
                capacity_wh=capacity_wh,
                efficiency=efficiency,
            ),
            max_w=asked.window.max_w,
            min_w=asked.window.hold_w,
            can_pause=asked.window.can_pause,
            grid_factor=self.depot.grid_factor(outlet[0]),
            taper=Taper(soc_percent=soc, capacity_wh=capacity_wh, efficiency=efficiency),
        )

    # --- helpers --------------------------------------------------------------------------

    def _slot(self, session: Session) -> tuple[Vehicle | None, Schedule | None]:
        depot = self.depot
        if session.match is not MatchOutcome.UNIQUE or session.vehicle_id is None:
            return None, None
        schedule = depot.schedules.get(session.schedule_id) if session.schedule_id else None
        return depot.registry.get(session.vehicle_id), schedule

    def _window(
        self, vehicle: Vehicle | None, schedule: Schedule | None, asked: Wish
    ) -> HeldWindow | None:
        if vehicle is None:
            return None
        return wake.preconditioning(
            schedule,
            vehicle.min_preconditioning_w,
            max_w=asked.window.max_w,
            is_wanted=vehicle.heating.is_wanted if vehicle.heating is not None else None,
        )

    def _remember(self, session_id: SessionId, found: Account) -> None:
        kept = self.depot.accounts
        if session_id not in kept and len(kept) >= REMEMBERED_MAX:
            oldest = next(iter(kept))
            kept.pop(oldest)
            self._risky_since.pop(oldest, None)
            self._told_risk.discard(oldest)
            self._told_doubt.discard(oldest)
        kept[session_id] = found

    def _tell_risk(self, session: Session, found: Account, now: datetime) -> None:
        """Say it when the risk has lasted: shares move while stations come and go."""
        outlet = (session.station_id, session.evse_id)
        session_id = session.session_id
        if not found.at_risk:
            self._risky_since.pop(session_id, None)
            if session_id in self._told_risk:
                self._told_risk.discard(session_id)
                log.info(
                    "departure_safe_again",
                    **_names(outlet, session),
                    reason=accounts.sentence(found),
                )
            return
        since = self._risky_since.setdefault(session_id, now)
        if session_id in self._told_risk or timedelta() <= now - since < RISK_LASTS:
            return
        self._told_risk.add(session_id)
        log.warning(
            "departure_at_risk",
            **_names(outlet, session),
            reason=f"{found.reason}; {accounts.sentence(found)}",
        )
        self.notes.append((outlet, f"departure at risk: {found.reason}"))


def urgency(found: Account | None, now: datetime) -> tuple[float, float]:
    """Mean power needed until departure (W) and laxity (s) of a session."""
    if found is None or found.departs_at is None:
        return 0.0, float(EVER_S)
    return found.need_w(now), found.laxity_s(now)


def _battery(session: Session, vehicle: Vehicle, max_w: float) -> Battery:
    """The vehicle's battery with what was learned of it."""
    capacity_wh = float(vehicle.capacity_wh) if vehicle.capacity_wh else None
    known = session.battery
    if known is None:
        return Battery(max_w=max_w, capacity_wh=capacity_wh)
    if capacity_wh is None:
        capacity_wh = 100 * accounts.BATTERY_EFFICIENCY / known.points_per_wh
    efficiency = known.points_per_wh * capacity_wh / 100
    return Battery(max_w=max_w, capacity_wh=capacity_wh, efficiency=efficiency)


def _names(outlet: Outlet, session: Session) -> dict[str, object]:
    return {
        "station_id": outlet[0],
        "evse_id": outlet[1],
        "session_id": session.session_id,
        "vehicle_id": session.vehicle_id,
    }
