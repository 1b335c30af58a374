"""The power of a whole depot, decided in one pure step: who gets what, what to send.

**The invariant.** At every instant from now on, and over the whole tree (outlet,
station, circuit, site), the sum of what every outlet *could* be drawing stays within
the cap. What an outlet could be drawing is ``reconcile.may_draw``: the profile that is
installed, any that may be, the default of the next vehicle, what was possible before a
reduction that no measurement has shown, and the full rating of one that does not follow.
So a raise leaves only into room that nobody could be using (``_Look.has_room``), lower
limits leave first, and the installed curves stay safe together when the gateway dies.

``decide`` takes facts and books and returns orders; it neither sends nor waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.domain import reconcile
from agent.domain.allocator import Demand, Node, Reserve, allocate, worst_excess_w
from agent.domain.capability import ProfileForm
from agent.domain.curve import (
    EVER_S,
    Curve,
    constant,
    higher_of,
    is_within,
    lower_of,
    value_at,
)
from agent.domain.ids import Outlet, TransactionId
from agent.domain.profile import Compiled, compile_tx
from agent.domain.reconcile import OutletPower, Sent
from agent.domain.values import value

ROOM_W = 1.0
"""Watts by which sums of tenths may be off."""
HELD_BACK = "a raise waits until nobody else could be drawing that power"
SHORT_W = 100.0
"""A share this much below what was wanted is worth a word."""


@dataclass(slots=True, kw_only=True)
class OutletFacts:
    """One outlet as the world shows it now; W at the outlet, ``now`` is the decision's.

    ``has_own_default``: the operator vouches for ``fallback_w`` by the maker's means.
    ``transaction_id`` is None without a running transaction; then only what a newcomer
    could draw counts. ``wants`` and ``rules`` (why) belong to a transaction. ``is_ready``
    when the station's own limits are known; ``is_busy`` while an order is on its way.
    ``is_fenced``: no limit reaches it in this session; it counts with its rated power.
    ``is_worn``: its station took so many profiles today that raises are spared.
    """

    rated_w: float
    fallback_w: float
    grid_factor: float = 1.0
    is_connected: bool = False
    has_own_default: bool = False
    is_ready: bool = True
    is_busy: bool = False
    transaction_id: TransactionId | None = None
    started_at: datetime | None = None
    is_doubted: bool = False
    is_fenced: bool = False
    measured_w: float = 0.0
    wants: Curve | None = None
    form: ProfileForm | None = None
    floor_w: float = 0.0
    need_w: float = 0.0
    laxity_s: float = EVER_S
    rank: int = 0
    rules: tuple[str, ...] = ()
    is_worn: bool = False


@value(kw_only=True)
class LimitOrder:
    """A limit that leaves now; ``power`` is the outlet's book from this moment."""

    outlet: Outlet
    compiled: Compiled
    sent: Sent
    power: OutletPower
    is_reduction: bool
    reason: str


@value(kw_only=True)
class Verdict:
    """What was decided: orders, lower ones first, shares, and why.

    ``holds`` is what each outlet could be drawing before the orders; ``excess_w`` by how
    much that passes the tightest cap now (negative: room). ``rules`` are the reasons of
    each outlet's share, newest last. ``wake_s`` is when to decide again, seconds.
    """

    orders: list[LimitOrder]
    shares: dict[Outlet, Curve]
    holds: dict[Outlet, Reserve]
    excess_w: float
    rules: dict[Outlet, tuple[str, ...]]
    wake_s: float | None = None


@dataclass(slots=True)
class _Look:
    """The books as they change while orders are made; lives for one decision."""

    now: datetime
    now_s: int
    from_s: int
    nodes: Sequence[Node]
    holds: dict[Outlet, Reserve] = field(default_factory=dict)

    def has_room(self, outlet: Outlet, line: Curve) -> bool:
        """Whether a new curve fits beside all that the others could be drawing."""
        tried = replace(self.holds[outlet], holds=line)
        concerned = [node for node in self.nodes if outlet in node.members]
        holds = {**self.holds, outlet: tried}
        return worst_excess_w(holds, concerned, from_s=self.from_s) <= ROOM_W


def decide(
    facts: Mapping[Outlet, OutletFacts],
    books: Mapping[Outlet, OutletPower],
    nodes: Sequence[Node],
    *,
    now: datetime,
    safe_from: datetime | None = None,
) -> Verdict:
    """Divide the power and make the orders that are due; see the module.

    ``safe_from``: from when on the caps are held, where that may be before ``now``: after
    a step of our clock the stations live at another time than we believe.
    """
    from_s = int(min(now, safe_from or now).timestamp())
    look = _Look(now, int(now.timestamp()), from_s, nodes)
    demands: dict[Outlet, Demand] = {}
    for outlet, fact in facts.items():
        power = books[outlet]
        look.holds[outlet] = Reserve(
            holds=possible_draw(fact, power, look.from_s), grid_factor=fact.grid_factor
        )
        if is_steerable(fact, power) and fact.wants is not None:
            demands[outlet] = _demand(fact, power, fact.wants)
    before = dict(look.holds)
    fixed = {outlet: item for outlet, item in before.items() if outlet not in demands}
    shares = allocate(demands, fixed, nodes, from_s=look.from_s)
    wanted = dict(shares)
    for outlet, fact in facts.items():
        # An outlet that does not follow is told again what it was told, or less: more
        # would be too much as soon as it follows.
        if outlet not in wanted and fact.is_connected and fact.wants is not None:
            least = _least(fact, books[outlet], look.from_s)
            wanted[outlet] = lower_of([fact.wants, least], look.from_s)
    orders: list[LimitOrder] = []
    wakes: list[float] = []
    rules = {
        outlet: _why(facts[outlet], line, demands.get(outlet), look.now_s)
        for outlet, line in wanted.items()
    }
    for outlet in _lower_first(wanted, before, look.now_s):
        fact, power = facts[outlet], books[outlet]
        order = _order(outlet, fact, power, wanted[outlet], look)
        if order is not None:
            orders.append(order)
            power = order.power
        due_s = reconcile.wake_at(power, now)
        if due_s is not None:
            wakes.append(due_s)
        spaced_s = reconcile.spacing_left_s(power, now)
        if spaced_s is not None:
            wakes.append(spaced_s)
    return Verdict(
        orders=orders,
        shares=shares,
        holds=before,
        excess_w=excess_now_w(before, nodes, look.now_s),
        rules=rules,
        wake_s=min(wakes, default=None),
    )


def possible_draw(fact: OutletFacts, power: OutletPower, now_s: int) -> Curve:
    """What an outlet could be drawing from now on, W at the outlet."""
    line = reconcile.may_draw(
        power,
        transaction_id=fact.transaction_id,
        rated_w=fact.rated_w,
        fallback_w=fact.fallback_w,
        measured_w=fact.measured_w,
        now_s=now_s,
        is_connected=fact.is_connected and not fact.has_own_default,
    )
    return higher_of([line, constant(fact.rated_w)], now_s) if fact.is_fenced else line


def is_steerable(fact: OutletFacts, power: OutletPower) -> bool:
    """Whether a limit that is sent can be counted on to come into force."""
    is_running = fact.transaction_id is not None and not fact.is_doubted
    is_obedient = power.verified is not False and not fact.is_fenced
    return is_running and fact.is_connected and is_obedient


def excess_now_w(
    holds: Mapping[Outlet, Reserve], nodes: Sequence[Node], now_s: int
) -> float:
    """By how much what could be drawn this very second passes the tightest cap, W."""
    soon = {
        outlet: replace(item, holds=constant(value_at(item.holds, now_s)))
        for outlet, item in holds.items()
    }
    return worst_excess_w(soon, nodes, from_s=now_s)


def _demand(fact: OutletFacts, power: OutletPower, wants: Curve) -> Demand:
    return Demand(
        wants=wants,
        floor_w=fact.floor_w,
        grid_factor=fact.grid_factor,
        reserve_w=reconcile.default_of(
            power,
            rated_w=fact.rated_w,
            fallback_w=fact.fallback_w,
            is_connected=fact.is_connected and not fact.has_own_default,
        ),
        need_w=fact.need_w,
        laxity_s=fact.laxity_s,
        rank=fact.rank,
    )


def _lower_first(
    wanted: Mapping[Outlet, Curve], holds: Mapping[Outlet, Reserve], now_s: int
) -> list[Outlet]:
    def is_raise(outlet: Outlet) -> bool:
        return is_within(holds[outlet].holds, wanted[outlet], now_s)

    return sorted(wanted, key=lambda outlet: (is_raise(outlet), outlet))


def _order(
    outlet: Outlet, fact: OutletFacts, power: OutletPower, share: Curve, look: _Look
) -> LimitOrder | None:
    """Order one outlet's limit if it is due and fits; what may hold then is booked."""
    if fact.transaction_id is None or fact.form is None or fact.started_at is None:
        return None
    if not fact.is_connected or not fact.is_ready or fact.is_busy or fact.is_doubted:
        return None
    want = _compile(outlet, share, fact, fact.transaction_id, fact.form, look)
    held = look.holds[outlet].holds
    room = look.has_room(outlet, higher_of([want.allows, held], look.from_s))
    order = reconcile.next_order(
        power,
        want.allows,
        transaction_id=fact.transaction_id,
        held=held,
        least=_least(fact, power, look.from_s),
        room=room,
        now=look.now,
        exact_until_s=want.exact_until_s,
    )
    own = power.confirmed
    is_first = own is None or own.transaction_id != fact.transaction_id
    if order is None or (
        fact.is_worn and not is_first and reconcile.is_spared(power, order, look.now)
    ):
        return None
    compiled = want
    if not room:
        compiled = _compile(outlet, order.line, fact, fact.transaction_id, fact.form, look)
    highest = higher_of([held, compiled.allows], look.from_s)
    look.holds[outlet] = replace(look.holds[outlet], holds=highest)
    sent = Sent(
        transaction_id=fact.transaction_id,
        allows=compiled.allows,
        exact_until_s=compiled.exact_until_s,
        sent_at=look.now,
    )
    return LimitOrder(
        outlet=outlet,
        compiled=compiled,
        sent=sent,
        power=reconcile.ordered(power, sent),
        is_reduction=order.is_reduction,
        reason=order.reason if room else f"{order.reason}; {HELD_BACK}",
    )


def _least(fact: OutletFacts, power: OutletPower, from_s: int) -> Curve:
    default_w = power.default_w if power.default_w is not None else fact.fallback_w
    return reconcile.least_installed(
        power, fact.transaction_id, default_w=default_w, now_s=from_s
    )


def _compile(
    outlet: Outlet,
    line: Curve,
    fact: OutletFacts,
    transaction_id: TransactionId,
    form: ProfileForm,
    look: _Look,
) -> Compiled:
    return compile_tx(
        line,
        evse_id=outlet[1],
        transaction_id=transaction_id,
        form=form,
        now=look.now,
        transaction_started_at=fact.started_at or look.now,
    )


def _why(
    fact: OutletFacts, share: Curve, demand: Demand | None, now_s: int
) -> tuple[str, ...]:
    """The rules of a share in words, newest last."""
    rules = list(fact.rules)
    if demand is None:
        rules.append(
            "it does not follow its limit: its full rating is held in the budget"
            if fact.is_connected
            else "its station is away: what is installed there goes on"
        )
        return tuple(rules)
    wants_w, share_w = value_at(demand.wants, now_s), value_at(share, now_s)
    if share_w < wants_w - SHORT_W:
        rules.append(
            f"the caps leave {share_w / 1000:.1f} of {wants_w / 1000:.1f} kW, beside what "
            "every other outlet could be drawing"
        )
        if share_w < min(demand.floor_w, wants_w) - SHORT_W:
            rules.append(
                "even the minimum does not fit: vehicles that leave earlier or have a "
                "higher priority keep theirs, this one may fall asleep"
            )
    return tuple(rules)
