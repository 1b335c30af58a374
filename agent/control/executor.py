"""The power loop: what each outlet should have, what it may be drawing, what to send.

Every pass starts from facts (sessions, plans, installed limits) and closes the gap; no
order is queued. Lower limits go out first; a raise leaves only when it fits beside what
every other outlet could be drawing until then (architecture.md sections 7 and 8).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from agent.control.depot import Depot, OutletView
from agent.domain import plan, reconcile
from agent.domain.allocator import Demand, Node, Reserve, allocate, worst_excess_w
from agent.domain.capability import Capabilities, ProfileForm, profile_form
from agent.domain.curve import Curve, constant, higher_of, is_within, value_at
from agent.domain.errors import StoreFault
from agent.domain.identity import MatchOutcome
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.plan import PowerWindow
from agent.domain.profile import Compiled, compile_default, compile_tx
from agent.domain.reconcile import OutletPower, Sent
from agent.domain.session import Session, Transaction
from agent.ports import Answer, Clock, LimitSaved, OrderAnswer, Priority, Stations, Store

log = structlog.get_logger()

TICK_S = 10.0
"""A pass at least this often, in seconds of the depot's clock (architecture 6)."""
COALESCE_S = 0.05
"""Real seconds that news may gather before a pass: a plug makes several events."""
CAPABILITY_WAIT_S = 1.6
"""Real seconds after connecting in which the station's own limits are waited for; what
it says decides unit and number of periods. With a settle time of 1 s it suffices."""
ROOM_W = 1.0
"""Watts by which sums of tenths may be off."""
STATION = EvseId(0)
"""Where the default of a whole station is kept."""


@dataclass(slots=True)
class _Pass:
    """One look at the whole depot; lives for one step."""

    now: datetime
    now_s: int
    nodes: list[Node]
    draws: dict[Outlet, Reserve] = field(default_factory=dict)
    demands: dict[Outlet, Demand] = field(default_factory=dict)
    sessions: dict[Outlet, tuple[Session, Transaction]] = field(default_factory=dict)

    def has_room(self, outlet: Outlet, line: Curve) -> bool:
        """Whether a new curve fits beside all other possible draws."""
        held = self.draws[outlet]
        tried = Reserve(holds=line, grid_factor=held.grid_factor)
        concerned = [node for node in self.nodes if outlet in node.members]
        draws = {**self.draws, outlet: tried}
        return worst_excess_w(draws, concerned, from_s=self.now_s) <= ROOM_W


class Executor:
    """Owns the orders to stations; see the module."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        stations: Stations,
        clock: Clock,
        *,
        min_pass_s: float = COALESCE_S,
    ) -> None:
        """Prepare; ``run`` works."""
        self._depot = depot
        self._store = store
        self._stations = stations
        self._clock = clock
        self._min_pass_s = min_pass_s
        self._in_flight: set[Outlet] = set()
        self._awaited: set[StationId] = set()
        self._warned_cap = False
        self.passes = 0
        self.orders = 0
        self.last_pass_at: datetime | None = None

    async def run(self) -> None:
        """Work until cancelled."""
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
        look = self._look()
        self.passes += 1
        self.last_pass_at = look.now
        for station_id in {outlet[0] for outlet in look.draws}:
            self._default(station_id, look, tasks)
        fixed = {o: r for o, r in look.draws.items() if o not in look.demands}
        shares = allocate(look.demands, fixed, look.nodes, from_s=look.now_s)
        self._watch_cap(look)
        wakes: list[float] = []
        for outlet in self._reductions_first(look, shares):
            self._serve(outlet, shares[outlet], look, tasks)
            due_s = reconcile.wake_at(self._depot.power_of(outlet), look.now)
            if due_s is not None and due_s < TICK_S:
                wakes.append(due_s)
        return min(wakes, default=None)

    def _look(self) -> _Pass:
        """Collect what every outlet wants and what it could be drawing."""
        depot = self._depot
        now = self._clock.now()
        look = _Pass(now=now, now_s=int(now.timestamp()), nodes=depot.nodes())
        for outlet in depot.all_outlets():
            station_id, evse_id = outlet
            state = depot.state(station_id)
            traits = depot.traits_of(station_id)
            session = state.session_at(evse_id)
            running = session.open_transaction if session is not None else None
            power = replace(
                depot.power_of(outlet),
                default_w=depot.power_of((station_id, STATION)).default_w,
            )
            factor = depot.grid_factor(station_id)
            holds = reconcile.may_draw(
                power,
                transaction_id=running.transaction_id if running is not None else None,
                rated_w=traits.rated_w,
                fallback_w=traits.fallback_w,
                measured_w=(session.meter.power_w or 0.0) if session is not None else 0.0,
                now_s=look.now_s,
            )
            look.draws[outlet] = Reserve(holds=holds, grid_factor=factor)
            view = depot.views.setdefault(outlet, OutletView())
            if session is None or running is None:
                depot.views[outlet] = OutletView()
                continue
            wants, window, source = self._wanted(session, outlet, now)
            view.wants, view.source = wants, source
            view.planned_w = value_at(wants, look.now_s)
            look.sessions[outlet] = (session, running)
            is_steerable = state.is_connected and power.verified is not False
            if is_steerable:
                look.demands[outlet] = Demand(
                    wants=wants, floor_w=window.floor_w, grid_factor=factor
                )
            else:
                view.allocated_w = value_at(holds, look.now_s)
        return look

    def _wanted(
        self, session: Session, outlet: Outlet, now: datetime
    ) -> tuple[Curve, PowerWindow, str]:
        """Tell what this session should draw, by plan or by policy."""
        depot, policy = self._depot, self._depot.policy
        traits = depot.traits_of(outlet[0])
        form = self._form(*outlet)
        vehicle = (
            depot.registry.get(session.vehicle_id)
            if session.vehicle_id is not None
            else None
        )
        schedule = depot.schedules.get(session.schedule_id) if session.schedule_id else None
        plan_now = schedule.plan if schedule is not None else None
        limits = [traits.rated_w]
        external_w = depot.state(outlet[0]).external_w
        limits += [external_w[key] for key in (STATION, outlet[1]) if key in external_w]
        minimums = [form.minimum_w]
        can_pause = form.zero_allowed
        if vehicle is not None:
            limits += [vehicle.max_w] if vehicle.max_w else []
            minimums += [vehicle.min_w] if vehicle.min_w else []
            can_pause = can_pause and vehicle.can_pause
        if plan_now is not None:
            limits += [plan_now.max_w] if plan_now.max_w else []
            minimums += [plan_now.min_w] if plan_now.min_w else []
            can_pause = can_pause and plan_now.can_pause is not False
        max_w = min(limits)
        window = PowerWindow(
            min_w=min(max(minimums), max_w),
            max_w=max_w,
            can_pause=can_pause and vehicle is not None,
            after_plan=policy.after_plan,
        )
        if session.match is not MatchOutcome.UNIQUE or vehicle is None:
            return constant(min(policy.unmatched_w, max_w)), window, "unmatched"
        is_usable = plan_now is not None and depot.is_plan_trusted(now)
        if not is_usable or plan_now is None or not vehicle.follows_schedule:
            return constant(min(policy.unplanned_w, max_w)), window, "unplanned"
        return plan.wanted(plan_now, window), window, "plan"

    def _form(self, station_id: StationId, evse_id: EvseId = STATION) -> ProfileForm:
        depot = self._depot
        session = depot.state(station_id).session_at(evse_id)
        needs = session.needs if session is not None else None
        return profile_form(
            depot.capabilities.get(station_id, Capabilities()),
            depot.traits_of(station_id),
            tuples_max=needs.tuples_max if needs is not None else None,
            offline_max_s=depot.policy.offline_max_s,
        )

    def _reductions_first(self, look: _Pass, shares: dict[Outlet, Curve]) -> list[Outlet]:
        def is_raise(outlet: Outlet) -> bool:
            installed = look.draws[outlet].holds
            return is_within(installed, shares[outlet], look.now_s)

        # Outlets that do not follow are told again what they should do.
        for outlet in look.sessions:
            if outlet not in shares and self._depot.state(outlet[0]).is_connected:
                wants = self._depot.views[outlet].wants
                if wants is not None:
                    shares[outlet] = wants
        return sorted(shares, key=lambda outlet: (is_raise(outlet), outlet))

    def _serve(
        self, outlet: Outlet, share: Curve, look: _Pass, tasks: asyncio.TaskGroup
    ) -> None:
        """Order one outlet's limit if it is due and fits."""
        depot = self._depot
        depot.views[outlet].allocated_w = value_at(share, look.now_s)
        if outlet in self._in_flight:
            return
        if not self._is_ready(outlet[0]):
            self._wait_for(outlet[0], tasks)
            return
        session, running = look.sessions[outlet]
        if running.is_doubted:
            return  # it may be over: the station's queue or its answer will tell (C3)
        want = self._compile(outlet, share, running, look.now)
        installed = look.draws[outlet].holds
        power = depot.power_of(outlet)
        is_lower = is_within(want.allows, installed, look.now_s)
        room = is_lower or look.has_room(outlet, want.allows)
        order = reconcile.next_order(
            power,
            want.allows,
            transaction_id=running.transaction_id,
            installed=installed,
            room=room,
            now=look.now,
            exact_until_s=want.exact_until_s,
        )
        if order is None:
            return
        compiled = want if room else self._compile(outlet, order.line, running, look.now)
        highest = higher_of([installed, compiled.allows], look.now_s)
        look.draws[outlet] = replace(look.draws[outlet], holds=highest)
        sent = Sent(
            transaction_id=running.transaction_id,
            allows=compiled.allows,
            exact_until_s=compiled.exact_until_s,
            sent_at=look.now,
        )
        self._in_flight.add(outlet)
        depot.power[outlet] = reconcile.ordered(power, sent)
        priority = Priority.REDUCTION if order.is_reduction else Priority.LIMIT
        tasks.create_task(
            self._order(outlet, compiled, sent, session, order.reason, priority),
            name=f"order-{outlet[0]}-{outlet[1]}",
        )

    def _compile(
        self, outlet: Outlet, line: Curve, running: Transaction, now: datetime
    ) -> Compiled:
        return compile_tx(
            line,
            evse_id=outlet[1],
            transaction_id=running.transaction_id,
            form=self._form(*outlet),
            now=now,
            transaction_started_at=running.started_at,
        )

    def _is_ready(self, station_id: StationId) -> bool:
        """Whether the station's own limits are known, or were waited for."""
        depot = self._depot
        if not depot.state(station_id).is_connected:
            return False
        if depot.capabilities.get(station_id, Capabilities()).is_known:
            return True
        waited_s = asyncio.get_running_loop().time() - depot.linked_at_s.get(
            station_id, 0.0
        )
        return waited_s >= CAPABILITY_WAIT_S

    def _wait_for(self, station_id: StationId, tasks: asyncio.TaskGroup) -> None:
        """Look again when a silent station has had its time to tell its limits."""
        if station_id in self._awaited or not self._depot.state(station_id).is_connected:
            return
        self._awaited.add(station_id)
        tasks.create_task(self._look_later(station_id), name=f"capability-{station_id}")

    async def _look_later(self, station_id: StationId) -> None:
        await asyncio.sleep(CAPABILITY_WAIT_S)
        self._awaited.discard(station_id)
        self._depot.changed.set()

    # --- orders -----------------------------------------------------------------------

    async def _order(
        self,
        outlet: Outlet,
        compiled: Compiled,
        sent: Sent,
        session: Session,
        reason: str,
        priority: Priority,
    ) -> None:
        """Send one limit: what may hold is on disk before it leaves."""
        depot = self._depot
        fields = {
            "station_id": outlet[0],
            "evse_id": outlet[1],
            "session_id": session.session_id,
            "vehicle_id": session.vehicle_id,
            "limit_w": value_at(compiled.allows, sent.sent_at.timestamp()),
        }
        try:
            await self._save(outlet)
            log.info(
                "limit_sent", **fields, reason=reason, source=depot.views[outlet].source
            )
            self.orders += 1
            answer = await self._stations.set_limit(
                outlet[0],
                outlet[1],
                compiled.profile,
                priority,
                lambda late: self._late(outlet, sent, late),
            )
            depot.power[outlet] = self._after(outlet, sent, answer)
            if answer.answer is Answer.ACCEPTED:
                log.info("limit_confirmed", **fields)
            else:
                log.warning(
                    "limit_refused", **fields, answer=answer.answer, reason=answer.detail
                )
            await self._save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))
        finally:
            self._in_flight.discard(outlet)
            depot.changed.set()

    def _after(self, outlet: Outlet, sent: Sent, answer: OrderAnswer) -> OutletPower:
        power = self._depot.power_of(outlet)
        if answer.answer is Answer.ACCEPTED:
            return reconcile.accepted(power, sent, self._clock.now())
        if answer.answer in (Answer.REFUSED, Answer.ERROR):
            until = None
            if answer.wait_s is not None:
                until = self._clock.now() + timedelta(seconds=answer.wait_s)
            return reconcile.refused(power, answer.detail, quiet_until=until)
        return reconcile.unanswered(power, answer.detail)

    def _late(self, outlet: Outlet, sent: Sent, answer: OrderAnswer) -> None:
        """Take an answer that came after we gave up: what may hold now does (RPC-03)."""
        power = self._depot.power_of(outlet)
        newest = power.doubtful
        if newest is None or newest.sent_at != sent.sent_at:
            return  # another order left since: its own answer decides
        if answer.answer is Answer.ACCEPTED:
            self._depot.power[outlet] = reconcile.accepted(power, newest, self._clock.now())
            log.info("limit_confirmed", station_id=outlet[0], evse_id=outlet[1], late=True)
        elif answer.answer is Answer.REFUSED:
            self._depot.power[outlet] = reconcile.refused(power, answer.detail)
        self._depot.changed.set()

    async def _save(self, outlet: Outlet) -> None:
        record = LimitSaved(outlet=outlet, power=self._depot.power_of(outlet))
        await self._store.commit([record], self._clock.now())

    # --- the safe default -----------------------------------------------------------

    def _default(
        self, station_id: StationId, look: _Pass, tasks: asyncio.TaskGroup
    ) -> None:
        """Keep a safe TxDefaultProfile on every station (rule 4 of ocpp-depot.md)."""
        depot = self._depot
        outlet = (station_id, STATION)
        traits = depot.traits_of(station_id)
        if outlet in self._in_flight or not self._is_ready(station_id):
            return
        if "no-default-profile" in traits.quirks:
            return
        power = depot.power_of(outlet)
        is_wanted = power.needs_confirmation or power.detail != _default_mark(
            traits.fallback_w
        )
        if not is_wanted or not _may_retry(power, look.now):
            return
        self._in_flight.add(outlet)
        depot.power[outlet] = replace(power, last_order_at=look.now)
        tasks.create_task(
            self._order_default(station_id, traits.fallback_w, look.now),
            name=f"default-{station_id}",
        )

    async def _order_default(
        self, station_id: StationId, fallback_w: float, now: datetime
    ) -> None:
        depot = self._depot
        outlet = (station_id, STATION)
        try:
            targets: list[EvseId] = [STATION]
            if "no-connector-0" in depot.traits_of(station_id).quirks:
                targets = depot.outlets(station_id)
            answer, allows_w = await self._send_default(
                station_id, targets, fallback_w, now
            )
            if answer.answer is Answer.REFUSED and targets == [STATION]:
                answer, allows_w = await self._send_default(
                    station_id, depot.outlets(station_id), fallback_w, now
                )
            power = depot.power_of(outlet)
            if answer.answer is Answer.ACCEPTED:
                log.info("default_confirmed", station_id=station_id, limit_w=allows_w)
                power = replace(
                    power,
                    default_w=allows_w,
                    needs_confirmation=False,
                    failures=0,
                    detail=_default_mark(fallback_w),
                )
            else:
                log.warning(
                    "default_refused",
                    station_id=station_id,
                    answer=answer.answer,
                    reason=answer.detail,
                )
                power = replace(power, failures=power.failures + 1)
            depot.power[outlet] = power
            await self._save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=station_id, reason=str(fault))
        finally:
            self._in_flight.discard(outlet)
            depot.changed.set()

    async def _send_default(
        self, station_id: StationId, targets: list[EvseId], limit_w: float, now: datetime
    ) -> tuple[OrderAnswer, float]:
        answer = OrderAnswer(answer=Answer.OFFLINE)
        allows_w = 0.0
        for evse_id in targets:
            compiled = compile_default(
                limit_w, evse_id=evse_id, form=self._form(station_id), now=now
            )
            allows_w = compiled.allows[-1][1]
            answer = await self._stations.set_limit(
                station_id, evse_id, compiled.profile, Priority.LIMIT
            )
            if answer.answer is not Answer.ACCEPTED:
                break
        return answer, allows_w

    # --- alarms ---------------------------------------------------------------------

    def _watch_cap(self, look: _Pass) -> None:
        """Say so when what could be drawn does not fit, once per spell."""
        soon = {
            outlet: Reserve(
                holds=constant(value_at(item.holds, look.now_s)),
                grid_factor=item.grid_factor,
            )
            for outlet, item in look.draws.items()
        }
        excess_w = worst_excess_w(soon, look.nodes, from_s=look.now_s)
        is_over = excess_w > ROOM_W
        if is_over and not self._warned_cap:
            log.warning(
                "cap_at_risk",
                excess_w=round(excess_w),
                reason="outlets could draw more than a cap until lower limits are "
                "confirmed; unanswered and unproved outlets count in full",
            )
        self._warned_cap = is_over


def _default_mark(fallback_w: float) -> str:
    return f"default {fallback_w:.0f} W"


def _may_retry(power: OutletPower, now: datetime) -> bool:
    if not power.failures or power.last_order_at is None:
        return True
    wait_s = reconcile.RETRY_S[min(power.failures, len(reconcile.RETRY_S)) - 1]
    return (now - power.last_order_at).total_seconds() >= wait_s
