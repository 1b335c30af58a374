"""The power loop: what each outlet should have, what it may be drawing, what to send.

Every pass starts from facts (sessions, plans, installed limits) and closes the gap; no
order is queued. Lower limits go out first; a raise leaves only when it fits beside what
every other outlet could be drawing until then (architecture.md sections 7 and 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from agent.control.depot import Depot, OutletView
from agent.control.explain import Diary
from agent.control.ladders import Ladders
from agent.control.minder import Minder, urgency
from agent.control.wishes import STATION, Wish, wish
from agent.domain import reconcile
from agent.domain.capability import Capabilities, ProfileForm, profile_form
from agent.domain.curve import value_at
from agent.domain.errors import StoreFault
from agent.domain.ids import EvseId, Outlet, StationId, TransactionId
from agent.domain.ladder import Move, Rung, Way, as_sent, vendor_value
from agent.domain.power import ROOM_W, LimitOrder, OutletFacts, Verdict, decide
from agent.domain.profile import TX_PROFILE_ID, Purpose, compile_default
from agent.domain.reconcile import Left, OutletPower, Sent
from agent.domain.session import Session
from agent.domain.wake import WakeAction
from agent.ports import Answer, Clock, LimitSaved, OrderAnswer, Priority, Stations, Store

log = structlog.get_logger()

TICK_S = 10.0
"""A pass at least this often, in seconds of the depot's clock (architecture 6)."""
COALESCE_S = 0.05
"""Real seconds that news may gather before a pass: a plug makes several events."""
CAPABILITY_WAIT_S = 1.6
"""Real seconds after connecting in which the station's own limits are waited for; what
it says decides unit and number of periods. With a settle time of 1 s it suffices."""


DEFAULT_WAIT_S = 0.7
"""Real seconds in which a first limit waits for the answer to the default."""


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
        self._in_flight: set[Outlet] = set()
        self._asked: dict[Outlet, tuple[Session, Wish]] = {}
        self._defaults_at: dict[StationId, float] = {}
        self._awaited: set[StationId] = set()
        self._warned_cap = False
        self.diary = Diary()
        self.ladders = Ladders(depot, self._tell)
        self._ways: dict[Outlet, Way] = {}
        self._cleared: dict[Outlet, TransactionId] = {}
        self.minder = Minder(depot)
        self._note = note
        self.writes: dict[StationId, tuple[str, int]] = {}
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
        depot = self._depot
        now = self._clock.now()
        self.passes += 1
        self.last_pass_at = now
        for station_id in {outlet[0] for outlet in depot.all_outlets()}:
            self._default(station_id, now, tasks)
        self.minder.begin()
        facts = {outlet: self._facts(outlet, now, tasks) for outlet in depot.all_outlets()}
        books = {outlet: self._book(outlet) for outlet in facts}
        verdict = decide(facts, books, depot.nodes(), now=now)
        self._watch_cap(verdict.excess_w)
        self._show(facts, verdict, now)
        if self.minder.wants_replan(now):
            # The nodes and possible draws of this moment; the division holds the caps.
            tasks.create_task(
                self.minder.replan(verdict.holds, depot.nodes(), now), name="local-plan"
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
            self._clean(outlet, now, tasks)
            return fact
        form = self._form(*outlet)
        asked = wish(
            depot, session, outlet, form, now, may_pause=self.minder.may_pause(outlet)
        )
        asked = self.minder.adjust(outlet, session, asked, now)
        known = self.minder.bring_up(outlet, session, asked, now)
        self._asked[outlet] = (session, asked)
        is_ready = self._is_ready(station_id)
        if not is_ready:
            self._wait_for(station_id, tasks)
        view = depot.views.setdefault(outlet, OutletView())
        view.wants, view.source = asked.line, asked.source
        way = self._way(outlet, form, session, now)
        fact.is_ready = is_ready
        fact.is_busy = outlet in self._in_flight
        fact.transaction_id = running.transaction_id
        fact.started_at = running.started_at
        fact.is_doubted = running.is_doubted
        fact.wants = asked.line
        fact.form = way.form
        fact.is_fenced = way.form is None
        fact.floor_w = asked.window.floor_w
        fact.rules = asked.rules
        fact.need_w, fact.laxity_s = urgency(known, now)
        return fact

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

    def _follow_up(self, tasks: asyncio.TaskGroup) -> None:
        """Write what belongs into sessions' records, restart what must be restarted."""
        for outlet, text in self.minder.notes:
            tasks.create_task(self._write(outlet, text), name="note")
        self.minder.notes.clear()
        if self.ladders.has_unsaved:
            tasks.create_task(self._save_ladders(), name="ladders")
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
        """Let an order leave: it is in the books before anything else happens."""
        outlet = order.outlet
        session = self._depot.state(outlet[0]).session_at(outlet[1])
        way = self._ways.get(outlet)
        if session is None or way is None:
            return
        before = self._depot.power_of(outlet)
        self._in_flight.add(outlet)
        booked = replace(order.power, default_w=before.default_w, default_tried_w=None)
        if way.purpose is not Purpose.TX:
            booked = self._beside(outlet, session, before, booked)
        self._depot.power[outlet] = reconcile.leaving(booked, way, order.sent)
        tasks.create_task(
            self._order(order, session, rules, way, before.left),
            name=f"order-{outlet[0]}-{outlet[1]}",
        )

    def _is_ready(self, station_id: StationId) -> bool:
        """Whether the station's own limits are known, or were waited for."""
        depot = self._depot
        if not depot.state(station_id).is_connected:
            return False
        asked_s = self._defaults_at.get(station_id)
        now_s = asyncio.get_running_loop().time()
        if asked_s is not None and now_s - asked_s < DEFAULT_WAIT_S:
            return False  # its answer makes room for the first limit, a moment from now
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
        order: LimitOrder,
        session: Session,
        rules: tuple[str, ...],
        way: Way,
        left: tuple[Left, ...],
    ) -> None:
        """Send one limit: what may hold is on disk before it leaves."""
        depot = self._depot
        outlet, sent = order.outlet, order.sent
        priority = Priority.REDUCTION if order.is_reduction else Priority.LIMIT
        limit_w = value_at(order.compiled.allows, sent.sent_at.timestamp())
        fields = {
            "station_id": outlet[0],
            "evse_id": outlet[1],
            "session_id": session.session_id,
            "vehicle_id": session.vehicle_id,
            "limit_w": limit_w,
        }
        try:
            await self._save(outlet)
            log.info(
                "limit_sent",
                **fields,
                reason=order.reason,
                source=depot.views[outlet].source if outlet in depot.views else "",
                rules=list(rules),
            )
            self.orders += 1
            self._count_write(outlet[0], sent.sent_at)
            self.diary.happened(outlet, sent.sent_at, f"sent: {order.reason}", limit_w)
            answer = await self._limit(order, way, limit_w, priority)
            depot.power[outlet] = self._after(outlet, sent, answer, way)
            if answer.answer in (Answer.REFUSED, Answer.ERROR):
                # It never held: what an earlier order left is as it was.
                depot.power[outlet] = replace(depot.power[outlet], left=left)
            said = f"{answer.answer} {answer.detail}".strip()
            self.diary.happened(outlet, self._clock.now(), f"answer: {said}")
            if answer.answer is Answer.ACCEPTED:
                log.info("limit_confirmed", **fields)
            else:
                log.warning(
                    "limit_refused", **fields, answer=answer.answer, reason=answer.detail
                )
            await self._teach(outlet, session, way, order, answer)
            await self._save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))
        finally:
            self._in_flight.discard(outlet)
            depot.changed.set()

    def _count_write(self, station_id: StationId, now: datetime) -> None:
        """Count profiles per station and day: most stations store each one in flash."""
        day = now.date().isoformat()
        before = self.writes.get(station_id, (day, 0))
        self.writes[station_id] = (day, before[1] + 1 if before[0] == day else 1)

    def _after(
        self, outlet: Outlet, sent: Sent, answer: OrderAnswer, way: Way
    ) -> OutletPower:
        power = self._depot.power_of(outlet)
        if answer.answer is Answer.ACCEPTED:
            power = reconcile.accepted(power, sent, self._clock.now())
            return reconcile.replaced(power, way, sent)
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
        learned = self.ladders.take_unsaved()
        await self._store.commit([record, *learned], self._clock.now())

    # --- the ladder of forms (domain/ladder.py) ---------------------------------------

    def _tell(self, outlet: Outlet, words: str) -> None:
        self.diary.happened(outlet, self._clock.now(), words)

    def _way(
        self, outlet: Outlet, form: ProfileForm, session: Session, now: datetime
    ) -> Way:
        """The form for an outlet now, after what the newest sample taught."""
        power = self._depot.power_of(outlet)
        move = self.ladders.measured(outlet, session, form, power, now)
        if move is Move.CHANGE:
            self._hurry(outlet)
            # The default was in the form that is not heeded: it goes out anew.
            common = (outlet[0], STATION)
            again = reconcile.doubted(self._depot.power_of(common))
            self._depot.power[common] = again
        way = self.ladders.way(outlet, form, session, now)
        self._ways[outlet] = way
        return way

    def _hurry(self, outlet: Outlet) -> None:
        """Let the next order leave at once: it is another one than what failed."""
        power = self._depot.power_of(outlet)
        self._depot.power[outlet] = replace(power, failures=0, last_order_at=None)

    async def _limit(
        self, order: LimitOrder, way: Way, limit_w: float, priority: Priority
    ) -> OrderAnswer:
        """Send a limit in the ladder's way: a profile of its purpose, or a key."""
        outlet, sent = order.outlet, order.sent
        station_id, evse_id = outlet
        if way.purpose is not Purpose.TX:
            await self._clear_rival(order, way)
        if way.vendor_key is not None:
            phases = self._depot.traits_of(station_id).phases
            value = vendor_value(limit_w, way.vendor_key, phases)
            return await self._stations.write_key(station_id, way.vendor_key.name, value)
        target = STATION if way.purpose is Purpose.STATION_MAX else evse_id
        return await self._stations.set_limit(
            station_id,
            target,
            as_sent(order.compiled.profile, way, evse_id),
            priority,
            lambda late: self._late(outlet, sent, late),
        )

    def _beside(
        self, outlet: Outlet, session: Session, before: OutletPower, booked: OutletPower
    ) -> OutletPower:
        """Book a TxProfile that an order of another purpose does not replace.

        It may go on to rule the transaction until it is known to be taken off.
        """
        own, sent = before.confirmed, booked.doubtful
        if own is None or sent is None or own.transaction_id != sent.transaction_id:
            return booked
        taken = self.ladders.accepted_way(outlet, session)
        is_new_purpose = taken is not None and taken.purpose is not Purpose.TX
        if is_new_purpose or self._cleared.get(outlet) == sent.transaction_id:
            return booked
        form = self._form(*outlet)
        old = Left(way=Way(rung=Rung.PLAIN, form=form), allows=own.allows)
        return replace(booked, left=(*booked.left, old))

    async def _clear_rival(self, order: LimitOrder, way: Way) -> None:
        """Take the transaction's TxProfile off, once; until then it stays in the budget."""
        outlet, transaction_id = order.outlet, order.sent.transaction_id
        power = self._depot.power_of(outlet)
        is_there = any(item.way.purpose is Purpose.TX for item in power.left)
        if not is_there or way.form is None:
            return
        number = TX_PROFILE_ID + outlet[1] + way.form.id_offset
        answer = await self._stations.clear_limit(outlet[0], number)
        if answer.answer is not Answer.ACCEPTED:
            return
        self._cleared[outlet] = transaction_id
        power = self._depot.power_of(outlet)
        kept = tuple(item for item in power.left if item.way.purpose is not Purpose.TX)
        self._depot.power[outlet] = replace(power, left=kept)

    async def _teach(
        self,
        outlet: Outlet,
        session: Session,
        way: Way,
        order: LimitOrder,
        answer: OrderAnswer,
    ) -> None:
        """Let the ladder learn from an answer, and do what it says."""
        answered_else = False
        if answer.answer is Answer.SILENT:
            answered_else = await self._stations.is_answering(*outlet)
        move = self.ladders.answered(
            outlet,
            session,
            self._form(*outlet),
            way,
            answer,
            now=self._clock.now(),
            answered_else=answered_else,
        )
        if move is Move.CLEAR_FIRST:
            number = as_sent(order.compiled.profile, way, outlet[1]).profile_id
            await self._stations.clear_limit(outlet[0], number)
        if move in (Move.CHANGE, Move.CLEAR_FIRST):
            self._hurry(outlet)

    async def _save_ladders(self) -> None:
        try:
            learned = self.ladders.take_unsaved()
            await self._store.commit(learned, self._clock.now())
        except StoreFault as fault:
            log.error("record_not_stored", reason=str(fault))

    def _clean(self, outlet: Outlet, now: datetime, tasks: asyncio.TaskGroup) -> None:
        """After a transaction: put the safe default where an order outlives it (B13.7)."""
        power = self._depot.power_of(outlet)
        if not power.left:
            return
        left = tuple(item for item in power.left if item.way.purpose is not Purpose.TX)
        if left != power.left:  # TxProfiles ended with their transaction
            self._depot.power[outlet] = power = replace(power, left=left)
        is_free = outlet not in self._in_flight and self._is_ready(outlet[0])
        if not left or not is_free or not _may_retry(power, now):
            return
        self._in_flight.add(outlet)
        self._depot.power[outlet] = replace(power, last_order_at=now)
        tasks.create_task(
            self._restore(outlet, left[0], now), name=f"restore-{outlet[0]}-{outlet[1]}"
        )

    async def _restore(self, outlet: Outlet, item: Left, now: datetime) -> None:
        """Write the default over what an order left, in the same form and place.

        Not above the default that counts in the budget, so nothing is left to count.
        """
        depot = self._depot
        common_w = depot.power_of((outlet[0], STATION)).default_w
        limit_w = depot.traits_of(outlet[0]).fallback_w
        limit_w = limit_w if common_w is None else min(limit_w, common_w)
        try:
            answer = await self._put_back(outlet, item, limit_w, now)
            power = depot.power_of(outlet)
            if answer.answer is Answer.ACCEPTED:
                kept = tuple(other for other in power.left if other != item)
                power = replace(power, left=kept, failures=0, last_order_at=None)
                self._tell(outlet, "the safe default is back in place of the last limit")
            else:
                power = replace(power, failures=power.failures + 1)
                self._tell(outlet, f"the safe default was not taken: {answer.detail}")
            depot.power[outlet] = power
            await self._save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))
        finally:
            self._in_flight.discard(outlet)
            depot.changed.set()

    async def _put_back(
        self, outlet: Outlet, item: Left, limit_w: float, now: datetime
    ) -> OrderAnswer:
        station_id, evse_id = outlet
        way = item.way
        if way.vendor_key is not None:
            phases = self._depot.traits_of(station_id).phases
            value = vendor_value(limit_w, way.vendor_key, phases)
            return await self._stations.write_key(station_id, way.vendor_key.name, value)
        form = way.form or self._form(*outlet)
        made = compile_default(limit_w, evse_id=evse_id, form=form, now=now).profile
        made = replace(made, stack_level=form.stack_level)
        target = evse_id
        if way.purpose is Purpose.STATION_MAX:
            number = TX_PROFILE_ID + form.id_offset
            made = replace(made, purpose=way.purpose, profile_id=number)
            target = STATION
        return await self._stations.set_limit(station_id, target, made, Priority.LIMIT)

    # --- the safe default -----------------------------------------------------------

    def _default(
        self, station_id: StationId, now: datetime, tasks: asyncio.TaskGroup
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
        if not is_wanted or not _may_retry(power, now):
            return
        self._in_flight.add(outlet)
        self._defaults_at[station_id] = asyncio.get_running_loop().time()
        depot.power[outlet] = replace(
            power,
            last_order_at=now,
            default_tried_w=max(traits.fallback_w, power.default_tried_w or 0.0),
        )
        tasks.create_task(
            self._order_default(station_id, traits.fallback_w, now),
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
            answer, allows_w = OrderAnswer(answer=Answer.OFFLINE), 0.0
            for form in self._default_forms(station_id):
                answer, allows_w = await self._send_default(
                    station_id, targets, fallback_w, form, now
                )
                if answer.answer is Answer.REFUSED and targets == [STATION]:
                    answer, allows_w = await self._send_default(
                        station_id, depot.outlets(station_id), fallback_w, form, now
                    )
                if answer.answer not in (Answer.REFUSED, Answer.ERROR):
                    break
            if answer.answer is Answer.SILENT:
                # Only this call may be what it does not answer: the link is kept then.
                await self._stations.is_answering(station_id, depot.outlets(station_id)[0])
            power = depot.power_of(outlet)
            if answer.answer is Answer.ACCEPTED:
                log.info("default_confirmed", station_id=station_id, limit_w=allows_w)
                power = replace(
                    power,
                    default_w=allows_w,
                    default_tried_w=None,
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
                is_known = answer.answer in (Answer.REFUSED, Answer.ERROR)
                power = replace(
                    power,
                    failures=power.failures + 1,
                    default_tried_w=None if is_known else power.default_tried_w,
                )
            depot.power[outlet] = power
            await self._save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=station_id, reason=str(fault))
        finally:
            self._in_flight.discard(outlet)
            self._defaults_at.pop(station_id, None)
            depot.changed.set()

    def _default_forms(self, station_id: StationId) -> list[ProfileForm]:
        """The form that the model's limits have now, then the one it should take."""
        base = self._form(station_id)
        form = self.ladders.default_form(station_id, base)
        return [form] if form == base else [form, base]

    async def _send_default(
        self,
        station_id: StationId,
        targets: list[EvseId],
        limit_w: float,
        form: ProfileForm,
        now: datetime,
    ) -> tuple[OrderAnswer, float]:
        answer = OrderAnswer(answer=Answer.OFFLINE)
        allows_w = 0.0
        for evse_id in targets:
            compiled = compile_default(limit_w, evse_id=evse_id, form=form, now=now)
            allows_w = compiled.allows[-1][1]
            answer = await self._stations.set_limit(
                station_id, evse_id, compiled.profile, Priority.LIMIT
            )
            if answer.answer is not Answer.ACCEPTED:
                break
        return answer, allows_w

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


def _default_mark(fallback_w: float) -> str:
    return f"default {fallback_w:.0f} W"


def _may_retry(power: OutletPower, now: datetime) -> bool:
    if not power.failures or power.last_order_at is None:
        return True
    wait_s = reconcile.RETRY_S[min(power.failures, len(reconcile.RETRY_S)) - 1]
    return (now - power.last_order_at).total_seconds() >= wait_s
