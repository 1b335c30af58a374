"""Sends limits: what may hold is in the books and on disk before an order leaves.

One order per outlet is on its way. The ladder (``ladders``) says in which form; what the
answer teaches goes back there. Orders that outlive their transaction are taken back
after it (ocpp-depot.md B13.7).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from agent.control.depot import WRITES_MAX, Depot, Writes
from agent.control.explain import Diary
from agent.control.ladders import Ladders, base_form
from agent.control.wishes import STATION
from agent.domain import reconcile
from agent.domain.curve import value_at
from agent.domain.errors import StoreFault
from agent.domain.ids import Outlet, StationId, TransactionId
from agent.domain.ladder import Move, Rung, Way, as_sent, vendor_value
from agent.domain.power import LimitOrder
from agent.domain.profile import TX_PROFILE_ID, Purpose, compile_default
from agent.domain.reconcile import Left, OutletPower, Sent
from agent.domain.session import Session
from agent.ports import Answer, Clock, LimitSaved, OrderAnswer, Priority, Stations, Store

log = structlog.get_logger()


class Sender:
    """Owns the orders that are on their way; see the module."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        stations: Stations,
        clock: Clock,
        *,
        ladders: Ladders,
        diary: Diary,
    ) -> None:
        """Prepare; ``send`` works in the power loop's tasks."""
        self._depot = depot
        self._store = store
        self._stations = stations
        self._clock = clock
        self._ladders = ladders
        self._diary = diary
        self._cleared: dict[Outlet, TransactionId] = {}
        self.in_flight: set[Outlet] = set()
        self.orders = 0

    def send(
        self,
        order: LimitOrder,
        session: Session,
        way: Way,
        rules: tuple[str, ...],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Let an order leave: it is in the books before anything else happens."""
        outlet = order.outlet
        before = self._depot.power_of(outlet)
        self.in_flight.add(outlet)
        booked = replace(order.power, default_w=before.default_w, default_tried_w=None)
        if way.purpose is not Purpose.TX:
            booked = self._beside(outlet, session, before, booked)
        self._depot.power[outlet] = reconcile.leaving(booked, way, order.sent)
        tasks.create_task(
            self._order(order, session, rules, way, before.left),
            name=f"order-{outlet[0]}-{outlet[1]}",
        )

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
            await self.save(outlet)
            log.info(
                "limit_sent",
                **fields,
                reason=order.reason,
                source=depot.views[outlet].source if outlet in depot.views else "",
                rules=list(rules),
            )
            self.orders += 1
            self.count_write(outlet[0], sent.sent_at)
            self._diary.happened(outlet, sent.sent_at, f"sent: {order.reason}", limit_w)
            answer = await self._limit(order, way, limit_w, priority)
            depot.power[outlet] = self._after(outlet, sent, answer, way)
            if answer.answer in (Answer.REFUSED, Answer.ERROR):
                # It never held: what an earlier order left is as it was.
                depot.power[outlet] = replace(depot.power[outlet], left=left)
            said = f"{answer.answer} {answer.detail}".strip()
            self._diary.happened(outlet, self._clock.now(), f"answer: {said}")
            if answer.answer is Answer.ACCEPTED:
                log.info("limit_confirmed", **fields)
            else:
                log.warning(
                    "limit_refused", **fields, answer=answer.answer, reason=answer.detail
                )
            await self._teach(outlet, session, way, order, answer)
            await self.save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))
        finally:
            self.in_flight.discard(outlet)
            depot.changed.set()

    def count_write(self, station_id: StationId, now: datetime) -> None:
        """Count profiles per station and day: most stations store each one in flash."""
        writes = self._depot.writes.setdefault(station_id, Writes(now.date()))
        if writes.count(now.date()):
            log.warning(
                "limit_writes_many",
                station_id=station_id,
                writes=writes.today,
                reason=f"more than {WRITES_MAX} profiles today; for the rest of the day "
                "raised limits wait longer",
            )

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

    async def save(self, outlet: Outlet) -> None:
        """Write an outlet's book, and what was learned of models."""
        record = LimitSaved(outlet=outlet, power=self._depot.power_of(outlet))
        learned = self._ladders.take_unsaved()
        await self._store.commit([record, *learned], self._clock.now())

    def hurry(self, outlet: Outlet) -> None:
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
        taken = self._ladders.accepted_way(outlet, session)
        is_new_purpose = taken is not None and taken.purpose is not Purpose.TX
        if is_new_purpose or self._cleared.get(outlet) == sent.transaction_id:
            return booked
        form = base_form(self._depot, *outlet)
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
        move = self._ladders.answered(
            outlet,
            session,
            base_form(self._depot, *outlet),
            way,
            answer,
            now=self._clock.now(),
            answered_else=answered_else,
            has_zero=any(limit <= 0 for _, limit in order.compiled.profile.periods),
        )
        if move is Move.CLEAR_FIRST:
            number = as_sent(order.compiled.profile, way, outlet[1]).profile_id
            await self._stations.clear_limit(outlet[0], number)
        if move in (Move.CHANGE, Move.CLEAR_FIRST):
            self.hurry(outlet)

    async def save_ladders(self) -> None:
        """Write what was learned, apart from any order."""
        try:
            learned = self._ladders.take_unsaved()
            await self._store.commit(learned, self._clock.now())
        except StoreFault as fault:
            log.error("record_not_stored", reason=str(fault))

    def clean(
        self, outlet: Outlet, now: datetime, tasks: asyncio.TaskGroup, *, is_ready: bool
    ) -> None:
        """After a transaction: put the safe default where an order outlives it (B13.7)."""
        power = self._depot.power_of(outlet)
        if not power.left:
            return
        left = tuple(item for item in power.left if item.way.purpose is not Purpose.TX)
        if left != power.left:  # TxProfiles ended with their transaction
            self._depot.power[outlet] = power = replace(power, left=left)
        is_free = outlet not in self.in_flight and is_ready
        if not left or not is_free or not may_retry(power, now):
            return
        self.in_flight.add(outlet)
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
                self._diary.happened(
                    outlet,
                    self._clock.now(),
                    "the safe default is back in place of the last limit",
                )
            else:
                power = replace(power, failures=power.failures + 1)
                self._diary.happened(
                    outlet,
                    self._clock.now(),
                    f"the safe default was not taken: {answer.detail}",
                )
            depot.power[outlet] = power
            await self.save(outlet)
        except StoreFault as fault:
            log.error("record_not_stored", station_id=outlet[0], reason=str(fault))
        finally:
            self.in_flight.discard(outlet)
            depot.changed.set()

    async def _put_back(
        self, outlet: Outlet, item: Left, limit_w: float, now: datetime
    ) -> OrderAnswer:
        station_id, evse_id = outlet
        way = item.way
        self.count_write(station_id, now)
        if way.vendor_key is not None:
            phases = self._depot.traits_of(station_id).phases
            value = vendor_value(limit_w, way.vendor_key, phases)
            return await self._stations.write_key(station_id, way.vendor_key.name, value)
        form = way.form or base_form(self._depot, *outlet)
        made = compile_default(limit_w, evse_id=evse_id, form=form, now=now).profile
        made = replace(made, stack_level=form.stack_level)
        target = evse_id
        if way.purpose is Purpose.STATION_MAX:
            number = TX_PROFILE_ID + form.id_offset
            made = replace(made, purpose=way.purpose, profile_id=number)
            target = STATION
        return await self._stations.set_limit(station_id, target, made, Priority.LIMIT)


def may_retry(power: OutletPower, now: datetime) -> bool:
    """Whether the wait after the last refusals or silences is over."""
    if not power.failures or power.last_order_at is None:
        return True
    wait_s = reconcile.RETRY_S[min(power.failures, len(reconcile.RETRY_S)) - 1]
    return (now - power.last_order_at).total_seconds() >= wait_s
