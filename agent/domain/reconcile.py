"""Wanted against installed limits: what to send now, what to hold back, what is proved.

Power is a level: the executor compares and closes the gap, again and again. Until an
answer is read, an outlet is budgeted at the higher of its old and new limit, so lower
limits go out first and a raise waits until there is room for it (ocpp-depot.md B13).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from agent.domain.curve import (
    EVER_S,
    TOLERANCE_W,
    Curve,
    constant,
    edges,
    higher_of,
    is_same,
    is_within,
    lower_of,
    value_at,
)
from agent.domain.ids import TransactionId
from agent.domain.ladder import Way
from agent.domain.profile import Purpose

SPACING_S = 5.0
"""Between two orders to one outlet; a reduction does not wait (architecture 6)."""
WORN_SPACING_S = 600.0
"""Between raises to a station that took very many profiles today: its flash wears."""
RETRY_S = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Waits after the first, second, ... refusal or silence in a row."""
TRIFLE_W, TRIFLE_SHARE, TRIFLE_S = 1000.0, 0.03, 60.0
"""A raise below 1 kW and 3 % waits up to a minute: stations store every profile."""
SETTLE_S = 90.0
"""DC stations need up to 60 s to follow, plus a sample (B12 level 3)."""
OVER_FACTOR = 1.05
OVER_MARGIN_W = 500.0
"""Measured power may pass a limit by 5 % and 0.5 kW: meters and ramps (B12)."""
DEAF_FACTOR = 1.5
"""A meter that shows more than this times the rating is the meter's fault."""
STRIKES_MAX = 3
"""Samples over the limit before an outlet counts as not following (B12)."""


class OrderState(StrEnum):
    """How far the newest order has come."""

    NONE = "none"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A TxProfile that was sent for a transaction: what it allows and until when."""

    transaction_id: TransactionId
    allows: Curve
    exact_until_s: int
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A limit that no transaction's end takes away, or that a newer way did not replace.

    A TxDefaultProfile or a station's limit that an order of the ladder wrote (B13.7, 8):
    ``allows`` is the most that it may be, until the safe default is there again.
    """

    way: Way
    allows: Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletPower:
    """The installed and the possibly installed limit of one outlet.

    ``confirmed`` was accepted. ``doubtful`` was sent and not answered: it may hold.
    ``default_w`` is the accepted safe default, None until the station took one.
    ``quiet_until``: the station wants no order before (RateLimitExceeded of 2.1).
    ``earlier``: what was doubtful before the newest order. ``unproved``: what the outlet
    was allowed before an accepted reduction that no measurement has shown yet.
    ``default_tried_w``: a default that was sent and not answered. ``left``: what may hold
    beside these, for this transaction and for the next. ``is_doubted_since``: a doubt came
    after the newest order left, so that its answer does not settle it.
    """

    confirmed: Sent | None = None
    doubtful: Sent | None = None
    default_w: float | None = None
    order: OrderState = OrderState.NONE
    failures: int = 0
    last_order_at: datetime | None = None
    needs_confirmation: bool = False
    verified: bool | None = None
    strikes: int = 0
    changed_at: datetime | None = None
    detail: str = ""
    quiet_until: datetime | None = None
    earlier: Sent | None = None
    unproved: Curve | None = None
    default_tried_w: float | None = None
    left: tuple[Left, ...] = ()
    is_doubted_since: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """What to send now, and why; ``is_reduction`` orders jump every queue."""

    line: Curve
    is_reduction: bool
    reason: str


def may_draw(
    power: OutletPower,
    *,
    transaction_id: TransactionId | None,
    rated_w: float,
    fallback_w: float,
    measured_w: float,
    now_s: int,
    is_connected: bool = False,
) -> Curve:
    """Tell what an outlet could be drawing, given everything known (W at the outlet).

    Without a transaction: the default that a newcomer would get. With one: the
    installed profile, any that may be installed, and the default, for the next vehicle
    may start on it before we hear of it. A reduction counts when a measurement has shown
    it. An outlet that does not follow may draw all that it can. A connected station that
    has not taken the default yet is free to give its rated power; of one that is away
    the operator's word (``fallback_w``) is taken.
    """
    default_w = default_of(
        power, rated_w=rated_w, fallback_w=fallback_w, is_connected=is_connected
    )
    left = [item.allows for item in power.left]
    if transaction_id is None:
        return (
            higher_of([constant(default_w), *left], now_s) if left else constant(default_w)
        )
    lines = [constant(default_w), *left]
    own = power.confirmed
    if own is not None and own.transaction_id == transaction_id:
        lines.append(own.allows)
    elif power.default_w is None:
        lines.append(constant(rated_w))
    lines += [
        item.allows
        for item in (power.doubtful, power.earlier)
        if item is not None and item.transaction_id == transaction_id
    ]
    if power.unproved is not None and own is not None:
        lines.append(lower_of([power.unproved, constant(measured_w)], now_s))
    if power.verified is False:
        lines.append(constant(max(rated_w, min(measured_w, rated_w * DEAF_FACTOR))))
    return higher_of(lines, now_s)


def default_of(
    power: OutletPower, *, rated_w: float, fallback_w: float, is_connected: bool
) -> float:
    """Tell what an outlet gives a vehicle that nobody planned for, W."""
    known_w = power.default_w
    if known_w is None:
        known_w = rated_w if is_connected else fallback_w
    if power.default_tried_w is not None:
        known_w = max(known_w, power.default_tried_w)
    return min(known_w, rated_w)


def least_installed(
    power: OutletPower,
    transaction_id: TransactionId | None,
    *,
    default_w: float,
    now_s: int,
) -> Curve:
    """What a transaction has whatever became of unanswered orders: the lowest of all.

    An order that is nowhere above it cannot raise anything. Without an accepted profile
    that is the default, W.
    """
    lines = [
        item.allows
        for item in (power.confirmed, power.doubtful, power.earlier)
        if item is not None and item.transaction_id == transaction_id
    ]
    own = power.confirmed
    if own is None or own.transaction_id != transaction_id:
        lines.append(constant(default_w))
    return lower_of(lines, now_s)


def next_order(
    power: OutletPower,
    want: Curve,
    *,
    transaction_id: TransactionId,
    held: Curve,
    least: Curve,
    room: bool,
    now: datetime,
    exact_until_s: int = EVER_S,
) -> Ordered | None:
    """Decide what to send to an outlet with a running transaction, if anything.

    ``want`` is the curve as the station would store it, exact until ``exact_until_s``;
    ``held`` what it may be drawing (``may_draw``), ``least`` what it has in any case
    (``least_installed``), ``room`` whether the whole of ``want`` fits beside all other
    outlets' possible draws. Without room only what cannot raise anything is sent.
    """
    now_s = int(now.timestamp())
    own = power.confirmed
    is_mine = own is not None and own.transaction_id == transaction_id
    installed = _installed(power, transaction_id, held, now_s)
    is_lower = not is_within(installed, want, now_s)
    line = want if room else lower_of([want, least], now_s)
    if is_mine and own is not None and power.doubtful is None:
        due_s = own.sent_at.timestamp() + _half_life_s(own)
        until_s = max(own.exact_until_s, now_s + 1)
        is_longer = exact_until_s > own.exact_until_s
        is_kept = is_same(line, own.allows, now_s, until_s) and (
            now_s < due_s or not is_longer
        )
        is_settled = not power.needs_confirmation and power.verified is not False
        if is_settled and (is_kept or _is_trifle(power, own, line, now, is_lower=is_lower)):
            return None
        reason = _reason(power, is_due=now_s >= due_s)
    else:
        reason = "first limit of the transaction" if own is None else "new limit"
    if not _is_time(power, now, is_reduction=is_lower):
        return None
    return Ordered(line=line, is_reduction=is_lower, reason=reason)


def is_spared(power: OutletPower, order: Ordered, now: datetime) -> bool:
    """Whether a raise waits at a station whose flash had very many writes today.

    Not what makes up for a refusal, a reboot, a lost horizon or a first limit.
    """
    own, last_at = power.confirmed, power.last_order_at
    if order.is_reduction or own is None or last_at is None:
        return False
    is_due = power.needs_confirmation or power.verified is False or power.failures > 0
    is_due = is_due or now.timestamp() >= own.exact_until_s
    return not is_due and 0 <= (now - last_at).total_seconds() < WORN_SPACING_S


def _installed(
    power: OutletPower, transaction_id: TransactionId, held: Curve, now_s: int
) -> Curve:
    """The profiles that are or may be installed for a transaction, highest of them."""
    lines = [
        item.allows
        for item in (power.confirmed, power.doubtful, power.earlier)
        if item is not None and item.transaction_id == transaction_id
    ]
    own = power.confirmed
    if own is None or own.transaction_id != transaction_id:
        lines.append(held)
    return higher_of(lines, now_s)


def _is_trifle(
    power: OutletPower, own: Sent, line: Curve, now: datetime, *, is_lower: bool
) -> bool:
    """Whether a raise is too small to be worth a write to flash just now (D3.5)."""
    now_s = int(now.timestamp())
    if is_lower or power.last_order_at is None or now_s >= own.exact_until_s:
        return False
    if (now - power.last_order_at).total_seconds() >= TRIFLE_S:
        return False
    return all(
        value_at(line, at_s) - value_at(own.allows, at_s)
        <= max(TRIFLE_W, TRIFLE_SHARE * value_at(own.allows, at_s))
        for at_s in edges((line, own.allows), now_s)
        if at_s < own.exact_until_s
    )


def wake_at(power: OutletPower, now: datetime) -> float | None:
    """Tell in how many seconds an installed profile must be refreshed, or None."""
    own = power.confirmed
    if own is None or own.exact_until_s >= EVER_S:
        return None
    half_s = own.sent_at.timestamp() + _half_life_s(own) - now.timestamp()
    left_s = own.exact_until_s - now.timestamp()
    return max(half_s if half_s > 0 else left_s, 0.5)


def spacing_left_s(power: OutletPower, now: datetime) -> float | None:
    """Tell in how many seconds another order may leave that waits for its spacing."""
    if power.last_order_at is None:
        return None
    left_s = SPACING_S - (now - power.last_order_at).total_seconds()
    return left_s + 0.1 if 0 < left_s <= SPACING_S else None


def ordered(power: OutletPower, sent: Sent) -> OutletPower:
    """Account for an order that leaves now: it may hold from this moment on.

    What was doubtful before stays so until an order is accepted: a refusal of the new
    one says nothing about the old one.
    """
    earlier = power.doubtful
    if earlier is not None and power.earlier is not None:
        from_s = int(sent.sent_at.timestamp())
        allows = higher_of([earlier.allows, power.earlier.allows], from_s)
        earlier = replace(earlier, allows=allows)
    return replace(
        power,
        doubtful=sent,
        earlier=earlier or power.earlier,
        last_order_at=sent.sent_at,
        is_doubted_since=False,
    )


def accepted(power: OutletPower, sent: Sent, now: datetime) -> OutletPower:
    """Account for an accepted order: wanted becomes installed.

    Until a measurement shows a reduction, what was possible before stays possible.
    """
    is_change = _is_change(power.confirmed, sent, now)
    return replace(
        power,
        confirmed=sent,
        doubtful=None,
        earlier=None,
        unproved=_unproved(power, sent, int(now.timestamp())),
        order=OrderState.CONFIRMED,
        failures=0,
        needs_confirmation=power.is_doubted_since,
        changed_at=now if is_change else power.changed_at,
        quiet_until=None,
        verified=None if is_change and power.verified is not False else power.verified,
        # An outlet that does not follow has to show it three times, whatever it is told.
        strikes=0 if is_change and power.verified is not False else power.strikes,
        detail="",
    )


def leaving(power: OutletPower, way: Way, sent: Sent) -> OutletPower:
    """Account for an order that will outlive its transaction: it may hold for the next."""
    if way.purpose is Purpose.TX:
        return power
    now_s = int(sent.sent_at.timestamp())
    lines = [item.allows for item in power.left if _is_place(item, way)]
    new = Left(way=way, allows=higher_of([*lines, sent.allows], now_s))
    others = tuple(item for item in power.left if not _is_place(item, way))
    return replace(power, left=(*others, new))


def replaced(power: OutletPower, way: Way, sent: Sent) -> OutletPower:
    """After such an order was accepted: it took the place of the ones before it."""
    if way.purpose is Purpose.TX:
        return power
    others = tuple(item for item in power.left if not _is_place(item, way))
    return replace(power, left=(*others, Left(way=way, allows=sent.allows)))


def _is_place(item: Left, way: Way) -> bool:
    """Whether two ways write to the same place of a station."""
    return (item.way.purpose, item.way.vendor_key) == (way.purpose, way.vendor_key)


def refused(
    power: OutletPower, detail: str, quiet_until: datetime | None = None
) -> OutletPower:
    """Account for a refused order: the old limit still rules (PRF-12)."""
    return replace(
        power,
        doubtful=power.earlier,
        earlier=None,
        order=OrderState.REFUSED,
        failures=power.failures + (quiet_until is None),
        detail=detail,
        quiet_until=quiet_until,
    )


def unanswered(power: OutletPower, detail: str) -> OutletPower:
    """Account for silence: either limit may rule, so both stay in the budget."""
    return replace(
        power,
        order=OrderState.UNANSWERED,
        failures=power.failures + 1,
        detail=detail,
    )


def _unproved(power: OutletPower, sent: Sent, now_s: int) -> Curve | None:
    """What may still be drawn now beyond a newly accepted limit, until it is shown."""
    before = [
        item.allows
        for item in (power.confirmed, power.earlier)
        if item is not None and item.transaction_id == sent.transaction_id
    ]
    if power.unproved is not None:
        before.append(power.unproved)
    if not before:
        return None
    held_w = max(value_at(line, now_s) for line in before)
    if held_w <= value_at(sent.allows, now_s) + TOLERANCE_W:
        return None
    return constant(held_w)


def doubted(power: OutletPower) -> OutletPower:
    """After a reboot or a reconnect a limit must be confirmed again (B14)."""
    return replace(
        power,
        needs_confirmation=True,
        failures=0,
        last_order_at=None,
        is_doubted_since=True,
    )


def checked(  # noqa: C901 - the usual sample first
    power: OutletPower,
    *,
    measured_w: float,
    measured_at: datetime,
    transaction_id: TransactionId,
) -> OutletPower:
    """Hold a measurement against the limit in force (B12 level 3).

    Below is normal (taper). Samples taken before the limit could act prove nothing.
    Three samples in a row above make an outlet deaf, three in a row below it heal it: a
    single one may be a vehicle that happens to want little.
    """
    own = power.confirmed
    if own is None or own.transaction_id != transaction_id or power.changed_at is None:
        return power
    is_settled = power.verified is True and not power.strikes and power.unproved is None
    if is_settled:
        limit_w = value_at(own.allows, measured_at.timestamp())
        if measured_w <= limit_w * OVER_FACTOR + OVER_MARGIN_W:
            return power  # the usual sample; nothing to learn
    since_s = (measured_at - power.changed_at).total_seconds()
    if power.unproved is not None and since_s > 0:
        limit_w = value_at(own.allows, measured_at.timestamp())
        if measured_w <= limit_w * OVER_FACTOR + OVER_MARGIN_W:
            power = replace(power, unproved=None)
    at_s = measured_at.timestamp()
    allowed_w = max(value_at(own.allows, at_s), value_at(own.allows, at_s - SETTLE_S))
    if measured_w <= allowed_w * OVER_FACTOR + OVER_MARGIN_W:
        if since_s < SETTLE_S or (power.verified is True and power.strikes == 0):
            return power
        if power.verified is False and power.strikes > 1:
            return replace(power, strikes=power.strikes - 1)
        return replace(power, verified=True, strikes=0)
    if since_s < SETTLE_S:
        return power
    if power.verified is False:
        return replace(power, strikes=STRIKES_MAX)
    strikes = power.strikes + 1
    if strikes >= STRIKES_MAX:
        return replace(power, verified=False, strikes=strikes)
    return replace(power, strikes=strikes)


def contradicted(power: OutletPower) -> OutletPower:
    """After a composite schedule that allows more than the limit: it may not hold.

    Samples below the limit heal it again: what is measured outranks what is said (B12).
    """
    return replace(power, verified=False, strikes=STRIKES_MAX)


def cleared(power: OutletPower) -> OutletPower:
    """After the witness took its word back: the limit counts as accepted again."""
    return replace(power, verified=None, strikes=0)


def _is_change(before: Sent | None, sent: Sent, now: datetime) -> bool:
    """Whether a station has to move: now, or because the last step was just now."""
    if before is None or before.transaction_id != sent.transaction_id:
        return True
    now_s = int(now.timestamp())
    limit_w = value_at(sent.allows, now_s)
    return any(
        value_at(before.allows, at_s) != limit_w for at_s in (now_s, now_s - SETTLE_S)
    )


def _half_life_s(own: Sent) -> float:
    if own.exact_until_s >= EVER_S:
        return float(EVER_S)
    return max((own.exact_until_s - own.sent_at.timestamp()) / 2, 0.0)


def _reason(power: OutletPower, *, is_due: bool) -> str:
    if power.needs_confirmation:
        return "confirmed again: the station came back, or the vehicle resumed"
    if power.verified is False:
        return "the station does not follow; sent again"
    return "the sent horizon is half over" if is_due else "the wanted limit changed"


def _is_time(power: OutletPower, now: datetime, *, is_reduction: bool) -> bool:
    if power.last_order_at is None:
        return power.quiet_until is None or now >= power.quiet_until
    waited_s = (now - power.last_order_at).total_seconds()
    if power.quiet_until is not None and now < power.quiet_until:
        return is_reduction and waited_s >= RETRY_S[1]  # safety before politeness
    if power.failures:
        return waited_s >= RETRY_S[min(power.failures, len(RETRY_S)) - 1]
    if power.verified is False:
        return waited_s >= RETRY_S[-2]
    return is_reduction or waited_s >= SPACING_S
