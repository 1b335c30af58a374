"""Asks stations what they will allow, where no meter value tells (ocpp-depot.md B12).

Sparsely: once per changed limit, when the vehicle draws less than the limit and nothing
is offered. A schedule that allows more than was sent makes the outlet count with its
rating and goes to the ladder like a limit that is ignored; but a model that says so in
one form after the other, or while its power shows the limit, is not believed any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from agent.control.depot import Depot
from agent.control.ladders import Ladders, base_form, key_of, learned_of
from agent.control.sender import Sender
from agent.domain import proof, reconcile
from agent.domain.errors import StoreFault
from agent.domain.ids import Outlet, StationId
from agent.domain.ladder import LadderKey, Learned, Move, Way
from agent.domain.proof import Witness
from agent.domain.session import Session
from agent.ports import Answer, Clock, CompositeAnswer, FactSaved, Stations, Store

log = structlog.get_logger()

SCOPE = "composite"
"""Facts: models whose composite schedules are not believed, by vendor|model|firmware."""
ASK_EVERY = timedelta(minutes=5)
"""Between two questions to one outlet: limits may change each minute."""
MUTE_FOR = timedelta(days=1)
"""A station that refused or left the question unanswered is not asked for a day: while
an answer is waited for, no limit can leave."""
FALSE_MAX = 3
"""Forms of limit that a composite schedule may contradict before it is the liar: a
station that ignored three forms has shown it by its power long before."""


class Proofs:
    """See the module."""

    def __init__(
        self,
        depot: Depot,
        store: Store,
        stations: Stations,
        clock: Clock,
        *,
        ladders: Ladders,
        sender: Sender,
    ) -> None:
        """Prepare; ``load`` reads who is not believed."""
        self._depot = depot
        self._store = store
        self._stations = stations
        self._clock = clock
        self._ladders = ladders
        self._sender = sender
        self._asked_at: dict[Outlet, datetime] = {}
        self._muted: dict[StationId, datetime] = {}
        self._false: set[str] = set()
        self._accused: dict[LadderKey, tuple[Learned, int]] = {}

    async def load(self) -> None:
        """Read which models were found to be no witnesses."""
        self._false |= set(await self._store.facts(SCOPE))

    def wants(self, outlet: Outlet, session: Session, way: Way, now: datetime) -> bool:
        """Whether an outlet's station should be asked now."""
        station_id = outlet[0]
        power = self._depot.power_of(outlet)
        known = self._depot.witnesses.get(outlet)
        is_known = known is not None and known.is_of(power.changed_at, way)
        is_violated = power.verified is False and (known is None or known.agrees)
        if is_known or is_violated or way.form is None or way.vendor_key is not None:
            return False
        rated_w = self._depot.traits_of(station_id).rated_w
        if not proof.is_worth_asking(power, session.meter, rated_w=rated_w, now=now):
            return False
        if self._name(station_id) in self._false or outlet in self._sender.in_flight:
            return False
        asked_at, muted_at = self._asked_at.get(outlet), self._muted.get(station_id)
        is_soon = asked_at is not None and timedelta() <= now - asked_at < ASK_EVERY
        is_mute = muted_at is not None and timedelta() <= now - muted_at < MUTE_FOR
        if is_soon or is_mute:
            return False
        self._asked_at[outlet] = now
        return True

    def look(self, outlet: Outlet, session: Session, way: Way) -> bool:
        """Whether a witness spoke against a limit that power now shows: a liar."""
        known = self._depot.witnesses.get(outlet)
        power = self._depot.power_of(outlet)
        if known is None or known.agrees is not False:
            return False
        name = self._name(outlet[0])
        is_same = known.is_of(power.changed_at, way) and name not in self._false
        if not is_same or not proof.is_telling(power, session.meter):
            return False
        self._false.add(name)  # at once: the next pass shall not find it again
        return True

    async def ask(self, outlet: Outlet, session: Session, way: Way) -> None:
        """Ask, and draw the conclusions."""
        depot, station_id = self._depot, outlet[0]
        before = depot.power_of(outlet)
        traits = depot.traits_of(station_id)
        if way.form is None or before.changed_at is None:
            return
        answer = await self._stations.composite(
            station_id,
            outlet[1],
            duration_s=proof.HORIZON_S,
            unit=way.form.unit,
            phases=traits.phases,
        )
        power = depot.power_of(outlet)
        if power.confirmed != before.confirmed or power.doubtful is not None:
            return  # it may speak of another limit
        now = self._clock.now()
        if answer.answer is not Answer.ACCEPTED:
            self._mute(station_id, answer, now)
        words = ""
        if answer.allows is not None:
            words = proof.beyond(
                answer.allows,
                power,
                factor=depot.grid_factor(station_id),
                phases=None if traits.is_dc else traits.phases,
                now_s=int(now.timestamp()),
            )
        agrees = None if answer.allows is None else not words
        depot.witnesses[outlet] = Witness(
            since=before.changed_at, way=way, agrees=agrees, words=words
        )
        if agrees is False:
            await self._accuse(outlet, session, way, words, now)
        elif agrees and power.verified is False:
            depot.power[outlet] = reconcile.cleared(power)
        depot.changed.set()

    async def distrust(self, station_id: StationId) -> None:
        """Believe a model's composite schedules no more, and go back to its old form."""
        name = self._name(station_id)
        self._false.add(name)
        before = self._accused.pop(key_of(self._depot, station_id), None)
        if before is not None:
            self._ladders.restore(before[0])
        log.info("composite_distrusted", station_id=station_id, model=name)
        for outlet, known in list(self._depot.witnesses.items()):
            if self._name(outlet[0]) != name:
                continue
            power = self._depot.power_of(outlet)
            if known.agrees is False and power.verified is False:
                self._depot.power[outlet] = reconcile.cleared(power)
            del self._depot.witnesses[outlet]
        try:
            fact = FactSaved(scope=SCOPE, name=name, body={"believed": False})
            await self._store.commit([fact], self._clock.now())
        except StoreFault as fault:
            log.error("record_not_stored", station_id=station_id, reason=str(fault))
        self._depot.changed.set()

    async def _accuse(
        self, outlet: Outlet, session: Session, way: Way, words: str, now: datetime
    ) -> None:
        """Count the outlet with its rating, and let the ladder find another form."""
        depot, key = self._depot, key_of(self._depot, outlet[0])
        first, count = self._accused.get(key, (learned_of(depot, outlet[0]), 0))
        self._accused[key] = (first, count + 1)
        is_shown = self._ladders.is_proved(outlet, session)
        if count + 1 > FALSE_MAX or is_shown:
            await self.distrust(outlet[0])
            return
        log.warning(
            "limit_contradicted",
            station_id=outlet[0],
            evse_id=outlet[1],
            session_id=session.session_id,
            vehicle_id=session.vehicle_id,
            reason=f"its composite schedule allows {words}",
        )
        depot.power[outlet] = reconcile.contradicted(depot.power_of(outlet))
        form = base_form(depot, *outlet)
        move = self._ladders.contradicted(outlet, session, form, way, words, now)
        if move is Move.CHANGE:
            self._sender.hurry(outlet)

    def _mute(self, station_id: StationId, answer: CompositeAnswer, now: datetime) -> None:
        if answer.answer is not Answer.OFFLINE:
            self._muted[station_id] = now

    def _name(self, station_id: StationId) -> str:
        key = key_of(self._depot, station_id)
        return f"{key.vendor}|{key.model}|{key.firmware}"
