"""Which form of limit each outlet gets, and what answers and meters teach about it.

The rules are pure (``domain/ladder``); here is their memory: one ladder per vendor, model
and firmware, kept on disk and shared by all stations of the model, what the newest order
of each outlet used, and the outlets that took nothing in their present session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from agent.control.depot import Depot
from agent.control.wishes import STATION
from agent.domain import ladder
from agent.domain.capability import Capabilities, ProfileForm, profile_form
from agent.domain.curve import value_at
from agent.domain.ids import EvseId, Outlet, SessionId, StationId
from agent.domain.ladder import (
    Facts,
    Fix,
    LadderKey,
    Learned,
    Move,
    Outcome,
    Ruling,
    Rung,
    VendorKey,
    Way,
)
from agent.domain.proof import TELLING_DRAW, TELLING_LIMIT
from agent.domain.reconcile import OVER_FACTOR, OVER_MARGIN_W, SETTLE_S, OutletPower
from agent.domain.session import Session
from agent.ports import Answer, LadderSaved, OrderAnswer

log = structlog.get_logger()

OUTCOME_OF = {
    Answer.ACCEPTED: Outcome.ACCEPTED,
    Answer.REFUSED: Outcome.REFUSED,
    Answer.ERROR: Outcome.REFUSED,
    Answer.SILENT: Outcome.SILENT,
    Answer.OFFLINE: Outcome.OFFLINE,
}

Tell = Callable[[Outlet, str], None]
Json = dict[str, object]


@dataclass(slots=True)
class _Held:
    """The way of the accepted order, and what power has shown of it."""

    way: Way
    session_id: SessionId
    since: datetime
    seen_at: datetime
    is_proved: bool = False


class Ladders:
    """See the module. ``tell`` keeps words for ``explain``."""

    def __init__(self, depot: Depot, tell: Tell) -> None:
        """Start with what the depot remembers."""
        self._depot = depot
        self._tell = tell
        self._held: dict[Outlet, _Held] = {}
        self._fenced: dict[Outlet, SessionId] = {}
        self._sessions: dict[Outlet, SessionId] = {}
        self._unsaved: dict[LadderKey, Learned] = {}

    @property
    def has_unsaved(self) -> bool:
        """Whether something was learned that is not on disk."""
        return bool(self._unsaved)

    def take_unsaved(self) -> list[LadderSaved]:
        """Hand over what must be written; once."""
        found = [LadderSaved(learned=item) for item in self._unsaved.values()]
        self._unsaved.clear()
        return found

    def fenced(self) -> list[Outlet]:
        """The outlets that no limit reaches in their present session."""
        found = []
        for outlet, session_id in self._fenced.items():
            session = self._depot.state(outlet[0]).session_at(outlet[1])
            if session is not None and session.session_id == session_id:
                found.append(outlet)
        return found

    def accepted_way(self, outlet: Outlet, session: Session) -> Way | None:
        """The way of the session's accepted limit; None when that is not remembered."""
        held = self._held.get(outlet)
        is_mine = held is not None and held.session_id == session.session_id
        return held.way if held is not None and is_mine else None

    def way(
        self, outlet: Outlet, base: ProfileForm, session: Session, now: datetime
    ) -> Way:
        """Tell how to limit an outlet's transaction now."""
        station_id = outlet[0]
        learned = learned_of(self._depot, station_id)
        if self._sessions.get(outlet) != session.session_id:
            self._sessions[outlet] = session.session_id
            again = ladder.reopened(learned, now)
            if again != learned:
                self._keep(again, station_id)
                learned = again
        if self._fenced.get(outlet) == session.session_id:
            return Way(rung=Rung.FENCE)
        way = ladder.way_of(base, learned, facts_of(self._depot, station_id))
        if way.form is None:
            words = f"it took nothing before ({ladder.describe(learned)[:300]})"
            self._fence(outlet, session, words)
        return way

    def default_form(self, station_id: StationId, base: ProfileForm) -> ProfileForm:
        """The safe default's form: kind, unit and phases as the model's limits have."""
        learned = learned_of(self._depot, station_id)
        form = ladder.way_of(base, learned, facts_of(self._depot, station_id)).form
        if form is None:
            return base
        return replace(
            base,
            unit=form.unit,
            phases=form.phases,
            is_relative=form.is_relative,
            whole_amps=form.whole_amps,
        )

    def answered(
        self,
        outlet: Outlet,
        session: Session,
        base: ProfileForm,
        sent: Way,
        answer: OrderAnswer,
        *,
        now: datetime,
        answered_else: bool,
        has_zero: bool = False,
    ) -> Move:
        """Learn from the answer to an order; ``sent`` is the way that it used."""
        outcome = OUTCOME_OF[answer.answer]
        if outcome is Outcome.REFUSED and has_zero:
            outcome = Outcome.REFUSED_ZERO
        if outcome is Outcome.ACCEPTED:
            self._accepted(outlet, session, sent, now)
        reason = " ".join(part for part in (answer.reason, answer.detail) if part)
        return self._judge(
            outlet, session, base, sent, outcome, reason, now, answered_else=answered_else
        )

    def measured(
        self,
        outlet: Outlet,
        session: Session,
        base: ProfileForm,
        power: OutletPower,
        now: datetime,
    ) -> Move | None:
        """Learn from the newest power sample, if it tells anything new (B12 level 3)."""
        held, own = self._held.get(outlet), power.confirmed
        at, measured_w = session.meter.power_at, session.meter.power_w
        if held is None or own is None or at is None or measured_w is None:
            return None
        if held.session_id != session.session_id or at <= held.seen_at:
            return None
        held.seen_at = at
        if (at - held.since).total_seconds() < SETTLE_S:
            return None
        at_s = at.timestamp()
        limit_w = max(value_at(own.allows, at_s), value_at(own.allows, at_s - SETTLE_S))
        if measured_w > limit_w * OVER_FACTOR + OVER_MARGIN_W:
            if power.verified is not False:
                return None  # its three strikes are counted elsewhere
            held.since = now  # the next word after the next settle time
            reason = f"{measured_w / 1000:.1f} kW at a limit of {limit_w / 1000:.1f} kW"
            return self._judge(
                outlet, session, base, held.way, Outcome.IGNORED, reason, now
            )
        rated_w = self._depot.traits_of(outlet[0]).rated_w
        is_telling = 0 < limit_w < rated_w * TELLING_LIMIT
        is_telling = is_telling and measured_w >= limit_w * TELLING_DRAW
        if held.is_proved or power.verified is not True or not is_telling:
            return None
        held.is_proved = True
        return self._judge(outlet, session, base, held.way, Outcome.FOLLOWED, "", now)

    def is_proved(self, outlet: Outlet, session: Session) -> bool:
        """Whether power has shown in this session that the form in use is heeded."""
        held = self._held.get(outlet)
        is_mine = held is not None and held.session_id == session.session_id
        return held is not None and is_mine and held.is_proved

    def contradicted(
        self,
        outlet: Outlet,
        session: Session,
        base: ProfileForm,
        sent: Way,
        words: str,
        now: datetime,
    ) -> Move:
        """Learn from a composite schedule that allows more than an accepted limit.

        As for a limit that is ignored; the caller asks before whether it ``is_proved``.
        """
        held = self._held.get(outlet)
        if held is not None:
            held.since = now
        reason = f"its composite schedule allows {words}"
        return self._judge(outlet, session, base, sent, Outcome.IGNORED, reason, now)

    def restore(self, item: Learned) -> None:
        """Go back to what was known of a model before a false witness spoke."""
        self._keep(item, None)

    def _accepted(self, outlet: Outlet, session: Session, way: Way, now: datetime) -> None:
        held = self._held.get(outlet)
        is_mine = held is not None and held.session_id == session.session_id
        if is_mine and held is not None and _is_same(held.way, way):
            return
        self._held[outlet] = _Held(
            way=way, session_id=session.session_id, since=now, seen_at=now
        )

    def _judge(
        self,
        outlet: Outlet,
        session: Session,
        base: ProfileForm,
        sent: Way,
        outcome: Outcome,
        reason: str,
        now: datetime,
        *,
        answered_else: bool = False,
    ) -> Move:
        station_id = outlet[0]
        learned = learned_of(self._depot, station_id)
        ruling = ladder.next_form(
            base,
            learned,
            outcome,
            reason,
            facts=facts_of(self._depot, station_id),
            now=now,
            sent=sent,
            answered_else=answered_else,
        )
        self._learn(learned, ruling, outcome, station_id)
        if outcome not in (Outcome.ACCEPTED, Outcome.FOLLOWED) or ruling.words:
            words = f"form {sent.rung}: {outcome}"
            shown = f" ({reason})" if reason else ""
            then = f"; {ruling.words}" if ruling.words else ""
            self._tell(outlet, f"{words}{shown}: {ruling.move}{then}")
        if ruling.move is Move.CHANGE and ruling.learned != learned:
            log.info(
                "ladder_moved",
                station_id=station_id,
                evse_id=outlet[1],
                session_id=session.session_id,
                rung=str(ruling.learned.rung),
                reason=f"{sent.rung} {outcome} {reason}: {ruling.words}",
            )
        if ruling.move is Move.FENCE and self._fenced.get(outlet) != session.session_id:
            self._fence(outlet, session, ruling.words)
        return ruling.move

    def _learn(
        self, before: Learned, ruling: Ruling, outcome: Outcome, station_id: StationId
    ) -> None:
        """Remember; what only renews the time of an acceptance is not worth a write."""
        after = ruling.learned
        if after is before or after.is_manual:
            return
        timeless = replace(after, trials=before.trials)
        is_news = outcome is not Outcome.ACCEPTED or not before.trials
        if outcome is Outcome.FOLLOWED:
            is_news = timeless != before
        self._keep(after, station_id, is_saved=is_news)

    def _keep(
        self, item: Learned, station_id: StationId | None, *, is_saved: bool = True
    ) -> None:
        model = ladder.recall(self._depot.learned, item.key)
        is_fence = item.rung is Rung.FENCE and station_id is not None
        if is_fence and station_id not in model.fenced_at:
            item = replace(item, fenced_at=(*model.fenced_at, str(station_id)))
            is_saved = True
        if station_id is not None and model.rung is Rung.FENCE:
            self._depot.own_ladders.pop(station_id, None)
            is_alone = not ladder.is_fenced_for(model, station_id)
            if is_alone and not is_fence and item.proven is None:
                self._depot.own_ladders[station_id] = item  # its sisters stay fenced
                return
        self._depot.learned = ladder.remember(self._depot.learned, item)
        if is_saved:
            self._unsaved[item.key] = item

    def _fence(self, outlet: Outlet, session: Session, words: str) -> None:
        """Budget an outlet at its rating for this session, and say so (B13.10)."""
        self._fenced[outlet] = session.session_id
        self._held.pop(outlet, None)
        self._tell(outlet, f"fenced off: {words}")
        log.warning(
            "outlet_fenced",
            station_id=outlet[0],
            evse_id=outlet[1],
            session_id=session.session_id,
            vehicle_id=session.vehicle_id,
            reason=words,
        )


def _is_same(one: Way, other: Way) -> bool:
    return (one.rung, one.fixes) == (other.rung, other.fixes)


def key_of(depot: Depot, station_id: StationId) -> LadderKey:
    """What shares a station's experience; one that told nothing shares with nobody."""
    state = depot.state(station_id)
    if not state.vendor and not state.model:
        return LadderKey(vendor="", model=f"({station_id})", firmware="")
    return LadderKey(vendor=state.vendor, model=state.model, firmware=state.firmware)


def learned_of(depot: Depot, station_id: StationId) -> Learned:
    """What is known of a station's model; a rung in the configuration wins."""
    key = key_of(depot, station_id)
    for rule in depot.ladder_rules:
        if rule.rung and rule.fits(key.vendor, key.model, key.firmware):
            return ladder.by_hand(key, Rung(rule.rung))
    model = ladder.recall(depot.learned, key)
    if model.rung is not Rung.FENCE or ladder.is_fenced_for(model, station_id):
        return model
    own = depot.own_ladders.get(station_id)
    return own if own is not None and own.key == key else Learned(key=key)


def base_form(
    depot: Depot, station_id: StationId, evse_id: EvseId = STATION
) -> ProfileForm:
    """The form of limits by what station, vehicle and configuration say (B5, B6)."""
    session = depot.state(station_id).session_at(evse_id)
    needs = session.needs if session is not None else None
    form = profile_form(
        depot.capabilities.get(station_id, Capabilities()),
        depot.traits_of(station_id),
        tuples_max=needs.tuples_max if needs is not None else None,
        offline_max_s=depot.policy.offline_max_s,
    )
    # What is wanted must know it, too: the minimum stands where a pause would (LIM-08).
    has_no_zero = Fix.NO_ZERO in learned_of(depot, station_id).fixes
    return replace(form, zero_allowed=False) if has_no_zero else form


def facts_of(depot: Depot, station_id: StationId) -> Facts:
    """What the ladder must know of a station besides its form."""
    traits = depot.traits_of(station_id)
    outlets = len(depot.outlets(station_id))
    return Facts(
        is_dc=traits.is_dc,
        outlets=outlets,
        units=depot.capabilities.get(station_id, Capabilities()).units,
        quirks=traits.quirks,
        # A key limits the whole station: of two outlets each would undo the other's.
        vendor_key=_vendor_key(depot, station_id) if outlets == 1 else None,
    )


def _vendor_key(depot: Depot, station_id: StationId) -> VendorKey | None:
    key = key_of(depot, station_id)
    for rule in depot.ladder_rules:
        if rule.limit_key and rule.fits(key.vendor, key.model, key.firmware):
            return ladder.vendor_key(key.vendor, rule.limit_key)
    return None


def shown(depot: Depot, station_id: StationId) -> Json:
    """What people see: the rung and its history in words."""
    learned = learned_of(depot, station_id)
    return {"rung": str(learned.rung), "words": ladder.describe(learned)}
