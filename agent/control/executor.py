"""The power loop: what each outlet should have, what it may be drawing, what to send.

Every pass starts from facts (sessions, plans, installed limits) and closes the gap; no
order is queued. Lower limits go out first; a raise leaves only when it fits beside what
every other outlet could be drawing until then (architecture.md sections 7 and 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import structlog

from agent.control import feeders
from agent.control.billing import granted
from agent.control.calibration import Calibration
from agent.control.defaults import Defaults
from agent.control.depot import WRITES_MAX, Depot, OutletView
from agent.control.explain import Diary
from agent.control.goals import with_goal
from agent.control.ladders import Ladders, base_form
from agent.control.minder import Minder, urgency
from agent.control.proofs import Proofs
from agent.control.sender import Sender
from agent.control.wishes import STATION, Wish, wish
from agent.domain import reconcile
from agent.domain.capability import ProfileForm
from agent.domain.curve import value_at
from agent.domain.errors import StoreFault
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.ladder import Move, Way
from agent.domain.power import ROOM_W, LimitOrder, OutletFacts, Verdict, decide
from agent.domain.reconcile import OutletPower
from agent.domain.session import Session, Transaction
from agent.domain.wake import WakeAction
from agent.ports import Clock, Stations, Store

log = structlog.get_logger()

TICK_S = 10.0
"""A pass at least this often, in seconds of the depot's clock (architecture 6)."""
COALESCE_S = 0.05
"""Real seconds that news may gather before a pass: a plug makes several events."""

Note = Callable[[StationId, EvseId, str], Awaitable[None]]


class Executor:
    """Owns the orders to stations; see the module."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        stations: Stations,
        clock: Clock,
        *,
        note: Note,
        min_pass_s: float = COALESCE_S,
    ) -> None:
        """Prepare; ``run`` works. ``note`` writes an anomaly into a session's record."""
        self._depot = depot
        self._store = store
        self._stations = stations
        self._clock = clock
        self._min_pass_s = min_pass_s
        self._asked: dict[Outlet, tuple[Session, Wish]] = {}
        self._ways: dict[Outlet, Way] = {}
        self._warned_cap = False
        self._note = note
        self.diary = Diary()
        self.ladders = Ladders(depot, self._tell)
        self.minder = Minder(depot)
        self.sender = Sender(
            depot, store, stations, clock, ladders=self.ladders, diary=self.diary
        )
        self.defaults = Defaults(
            depot, stations, clock, ladders=self.ladders, sender=self.sender
        )
        self.proofs = Proofs(
            depot, store, stations, clock, ladders=self.ladders, sender=self.sender
        )
        self.calibration = Calibration(depot, store, clock)
        self.passes = 0
        self.last_pass_at: datetime | None = None

    @property
    def orders(self) -> int:
        """Limits sent since the start."""
        return self.sender.orders

    async def run(self) -> None:
        """Work until cancelled."""
        await self.proofs.load()
        await self.calibration.load()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="executor-tick")
            while True:
                await self._depot.changed.wait()
                await asyncio.sleep(self._min_pass_s)
                self._depot.changed.clear()
                wait_s = self._step(tasks)
                if wait_s is not None:
                    tasks.create_task(self._wake_after(wait_s), name="executor-wake")

    async def _tick(self) -> None:
        while True:
            self._depot.changed.set()
            await self._clock.sleep(TICK_S)

    async def _wake_after(self, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        self._depot.changed.set()

    # --- one pass -----------------------------------------------------------------

    def _step(self, tasks: asyncio.TaskGroup) -> float | None:
        """Order what is due; returns when the next refresh is, in clock seconds."""
        depot = self._depot
        now = self._clock.now()
        self.passes += 1
        self.last_pass_at = now
        for station_id in {outlet[0] for outlet in depot.all_outlets()}:
            self.defaults.keep(station_id, now, tasks)
        self.minder.begin()
        facts = {outlet: self._facts(outlet, now, tasks) for outlet in depot.all_outlets()}
        books = {outlet: self._book(outlet) for outlet in facts}
        tree = feeders.nodes(depot)
        verdict = decide(facts, books, tree, now=now)
        self._watch_cap(verdict.excess_w)
        self._show(facts, verdict, now)
        if self.minder.wants_replan(now):
            # The nodes and possible draws of this moment; the division holds the caps.
            tasks.create_task(
                self.minder.replan(verdict.holds, feeders.whole(tree), now),
                name="local-plan",
            )
        for order in verdict.orders:
            self._send(order, verdict.rules.get(order.outlet, ()), tasks)
        self._follow_up(tasks)
        wake_s = verdict.wake_s
        return wake_s if wake_s is not None and wake_s < TICK_S else None

    def _book(self, outlet: Outlet) -> OutletPower:
        """The outlet's book with the default of its station."""
        common = self._depot.power_of((outlet[0], STATION))
        return replace(
            self._depot.power_of(outlet),
            default_w=common.default_w,
            default_tried_w=common.default_tried_w,
        )

    def _facts(
        self, outlet: Outlet, now: datetime, tasks: asyncio.TaskGroup
    ) -> OutletFacts:
        """Collect what the world shows of one outlet."""
        depot = self._depot
        station_id, evse_id = outlet
        state = depot.state(station_id)
        traits = depot.traits_of(station_id)
        session = state.session_at(evse_id)
        running = session.open_transaction if session is not None else None
        fact = OutletFacts(
            rated_w=traits.rated_w,
            fallback_w=traits.fallback_w,
            grid_factor=depot.grid_factor(station_id),
            is_connected=state.is_connected,
            has_own_default="no-default-profile" in traits.quirks,
            measured_w=(session.meter.power_w or 0.0) if session is not None else 0.0,
        )
        if session is None:
            self.minder.gone(outlet)
        if session is None or running is None:
            self._asked.pop(outlet, None)
            self._ways.pop(outlet, None)
            depot.witnesses.pop(outlet, None)
            if depot.power_of(outlet).left:
                is_free = self.defaults.is_ready(station_id)
                self.sender.clean(outlet, now, tasks, is_ready=is_free)
            return fact
        self._add_running(fact, outlet, session, running, now, tasks)
        return fact

    def _add_running(
        self,
        fact: OutletFacts,
        outlet: Outlet,
        session: Session,
        running: Transaction,
        now: datetime,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Add what a running transaction wants, and by which rules."""
        depot, station_id = self._depot, outlet[0]
        self.calibration.look(outlet, session)
        form = base_form(depot, *outlet)
        asked = wish(
            depot, session, outlet, form, now, may_pause=self.minder.may_pause(outlet)
        )
        asked = self.minder.adjust(outlet, session, asked, now)
        asked = granted(depot, session, asked, form, now)
        asked = with_goal(session, asked, form, now)
        known = self.minder.bring_up(outlet, session, asked, now)
        self._asked[outlet] = (session, asked)
        is_ready = self.defaults.is_ready(station_id)
        if not is_ready:
            self.defaults.wait_for(station_id, tasks)
        view = depot.views.setdefault(outlet, OutletView())
        view.wants, view.source = asked.line, asked.source
        way = self._way(outlet, form, session, now, tasks)
        fact.is_ready = is_ready
        fact.is_busy = outlet in self.sender.in_flight
        fact.transaction_id = running.transaction_id
        fact.started_at = running.started_at
        fact.is_doubted = running.is_doubted
        fact.wants = asked.line
        fact.form = way.form
        fact.is_fenced = way.form is None
        fact.floor_w = asked.window.floor_w
        fact.rules = asked.rules
        fact.is_worn = depot.writes_today(station_id, now) > WRITES_MAX
        fact.need_w, fact.laxity_s = urgency(known, now)

    def _show(
        self, facts: dict[Outlet, OutletFacts], verdict: Verdict, now: datetime
    ) -> None:
        """Keep what people are shown of each outlet."""
        now_s = int(now.timestamp())
        for outlet, fact in facts.items():
            if fact.transaction_id is None or fact.wants is None:
                self._depot.views[outlet] = OutletView()
                self.diary.forget(outlet, now)
                continue
            view = self._depot.views[outlet]
            share = verdict.shares.get(outlet)
            line = share if share is not None else verdict.holds[outlet].holds
            view.planned_w = value_at(fact.wants, now_s)
            view.allocated_w = value_at(line, now_s)
            view.rules = verdict.rules.get(outlet, fact.rules)
            view.share = share
            self.diary.decided(outlet, now, view.allocated_w, view.rules)
            self._mind(outlet, view.allocated_w, now)

    def _follow_up(self, tasks: asyncio.TaskGroup) -> None:
        """Write what belongs into sessions' records, restart what must be restarted."""
        for outlet, text in self.minder.notes:
            tasks.create_task(self._write(outlet, text), name="note")
        self.minder.notes.clear()
        if self.ladders.has_unsaved:
            tasks.create_task(self.sender.save_ladders(), name="ladders")
        if self.calibration.has_unsaved:
            tasks.create_task(self.calibration.save(), name="efficiency")
        for outlet in self.minder.resumed:
            # Some forget the limit just then (LIM-11): it is sent again, and measured.
            depot = self._depot
            depot.power[outlet] = reconcile.doubted(depot.power_of(outlet))
            depot.changed.set()
        self.minder.resumed.clear()
        for outlet in self.minder.restarts:
            tasks.create_task(self._restart(outlet), name="restart")
        self.minder.restarts.clear()

    async def _write(self, outlet: Outlet, text: str) -> None:
        try:
            await self._note(*outlet, text)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))

    async def _restart(self, outlet: Outlet) -> None:
        """Stop and start a vehicle's transaction: the strongest rung at the station."""
        session = self._depot.state(outlet[0]).session_at(outlet[1])
        running = session.open_transaction if session is not None else None
        if session is None or running is None:
            return
        answer = await self._stations.restart(
            outlet[0], outlet[1], running.transaction_id, session.id_token
        )
        self.diary.happened(
            outlet, self._clock.now(), f"restart: {answer.answer} {answer.detail}".strip()
        )

    def car_answered(self, outlet: Outlet, words: str) -> None:
        """Keep what a vehicle's own cloud said to a start, for ``explain``."""
        self._tell(outlet, f"the vehicle's cloud: {words}")
        self._depot.changed.set()

    def _mind(self, outlet: Outlet, share_w: float, now: datetime) -> None:
        """Let a vehicle that does not wake up be woken."""
        held = self._asked.get(outlet)
        if held is None:
            return
        session, asked = held
        step = self.minder.observe(outlet, session, asked, share_w, now)
        if step is None:
            return
        self.diary.happened(outlet, now, f"to wake the vehicle: {step}")
        if step is WakeAction.RESEND:
            self._depot.power[outlet] = reconcile.doubted(self._depot.power_of(outlet))
        self._depot.changed.set()

    def _send(
        self, order: LimitOrder, rules: tuple[str, ...], tasks: asyncio.TaskGroup
    ) -> None:
        outlet = order.outlet
        session = self._depot.state(outlet[0]).session_at(outlet[1])
        way = self._ways.get(outlet)
        if session is not None and way is not None:
            self.sender.send(order, session, way, rules, tasks)

    def _tell(self, outlet: Outlet, words: str) -> None:
        self.diary.happened(outlet, self._clock.now(), words)

    def _way(
        self,
        outlet: Outlet,
        form: ProfileForm,
        session: Session,
        now: datetime,
        tasks: asyncio.TaskGroup,
    ) -> Way:
        """The form for an outlet now, after what the newest sample taught.

        Where nothing measured tells, the station is asked what it allows.
        """
        power = self._depot.power_of(outlet)
        move = self.ladders.measured(outlet, session, form, power, now)
        if move is Move.CHANGE:
            self.sender.hurry(outlet)
            # The default was in the form that is not heeded: it goes out anew.
            common = (outlet[0], STATION)
            again = reconcile.doubted(self._depot.power_of(common))
            self._depot.power[common] = again
        way = self.ladders.way(outlet, form, session, now)
        self._ways[outlet] = way
        if self.proofs.look(outlet, session, way):
            tasks.create_task(self.proofs.distrust(outlet[0]), name="composite")
        elif self.proofs.wants(outlet, session, way, now):
            tasks.create_task(self.proofs.ask(outlet, session, way), name="composite")
        return way

    # --- alarms ---------------------------------------------------------------------

    def _watch_cap(self, excess_w: float) -> None:
        """Say so when what could be drawn now does not fit, once per spell."""
        is_over = excess_w > ROOM_W
        if is_over and not self._warned_cap:
            log.warning(
                "cap_at_risk",
                excess_w=round(excess_w),
                reason="outlets could draw more than a cap until lower limits are "
                "confirmed; unanswered and unproved outlets count in full",
            )
        self._warned_cap = is_over
