"""The ladder for profiles that are refused, unanswered or ignored (ocpp-depot.md B13).

A rung is a purpose and some fixes of the form that a station seems to want. What works
is learned per vendor, model and firmware. The station's own words come first: a plain
cause is mended on the same rung; only then the next rung is tried. Silence proves
nothing: a probe that timed out withdraws nothing (charger-quirks.md CFG-05). Quirks that
a person switched on are part of the form and are never changed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from agent.domain.capability import NOMINAL_VOLTAGE_V, ProfileForm, RateUnit
from agent.domain.ids import EvseId
from agent.domain.profile import (
    DEFAULT_PROFILE_ID,
    TX_PROFILE_ID,
    ChargingProfile,
    Purpose,
)

FEW_PERIODS = 6
"""Periods for a station that took fewer than it said; the low ceiling of PRF-10."""
PHASES = 3
"""``numberPhases`` where it was left out and the station may want it: the default."""
SILENCES = 3
"""Silences in a row before a way is doubted, and then only if other calls were answered."""
CLEARS_MAX = 3
"""Refusals in a row for a duplicate: after two clearings it is another matter."""
PROVEN_REFUSALS, PROVEN_IGNORED = 3, 2
"""A way that once worked is not left for one refusal: vehicles and settings come and go."""
TRIALS_MAX = 40
"""Outcomes kept per model: two per rung and some repeats."""
BOOK_MAX = 300
"""Models and firmwares kept; a depot has a handful."""
REASON_MAX = 120
"""Characters of a station's words that are kept and read."""
FENCED_MANY = 3
"""So many stations that take nothing are a trait of their model."""
FENCE_RETRY = timedelta(days=1)
"""A station that took nothing is tried again after a day: someone may have switched
its own load management off (PRF-14)."""


class Fix(StrEnum):
    """One change to the form of profiles."""

    KIND = "other-kind"
    UNIT = "other-unit"
    PHASES = "other-phases"
    STACK_ZERO = "stack-level-0"
    FEW_PERIODS = "few-periods"
    ONE_PERIOD = "single-period"
    WHOLE_AMPS = "whole-amps"
    NO_ZERO = "no-zero"


class Rung(StrEnum):
    """The ways to limit a station, in the order in which they are tried."""

    PLAIN = "plain"
    KIND = "relative"
    UNIT = "unit"
    PHASES = "phases"
    STACK_ZERO = "stack-level"
    ONE_PERIOD = "one-period"
    KIND_STACK_ZERO = "relative-stack-level"
    SIMPLEST = "simplest"
    SIMPLEST_UNIT = "simplest-unit"
    TX_DEFAULT = "tx-default"
    TX_DEFAULT_SIMPLEST = "tx-default-simplest"
    STATION_MAX = "station-max"
    VENDOR_KEY = "vendor-key"
    FENCE = "fence"


_TABLE: dict[Rung, tuple[Purpose, frozenset[Fix]]] = {
    Rung.PLAIN: (Purpose.TX, frozenset()),
    Rung.KIND: (Purpose.TX, frozenset({Fix.KIND})),
    Rung.UNIT: (Purpose.TX, frozenset({Fix.UNIT})),
    Rung.PHASES: (Purpose.TX, frozenset({Fix.PHASES})),
    Rung.STACK_ZERO: (Purpose.TX, frozenset({Fix.STACK_ZERO})),
    Rung.ONE_PERIOD: (Purpose.TX, frozenset({Fix.STACK_ZERO, Fix.ONE_PERIOD})),
    # Some want two things at once (Wallbox: Relative and level 0; B9).
    Rung.KIND_STACK_ZERO: (Purpose.TX, frozenset({Fix.KIND, Fix.STACK_ZERO})),
    Rung.SIMPLEST: (Purpose.TX, frozenset({Fix.KIND, Fix.STACK_ZERO, Fix.ONE_PERIOD})),
    Rung.SIMPLEST_UNIT: (
        Purpose.TX,
        frozenset({Fix.UNIT, Fix.STACK_ZERO, Fix.ONE_PERIOD}),
    ),
    # Not at level 0: in 2.x the station's own safe default is there (K01.FR.53).
    Rung.TX_DEFAULT: (Purpose.TX_DEFAULT, frozenset()),
    Rung.TX_DEFAULT_SIMPLEST: (
        Purpose.TX_DEFAULT,
        frozenset({Fix.KIND, Fix.STACK_ZERO, Fix.ONE_PERIOD}),
    ),
    Rung.STATION_MAX: (
        Purpose.STATION_MAX,
        frozenset({Fix.STACK_ZERO, Fix.ONE_PERIOD}),
    ),
    Rung.VENDOR_KEY: (
        Purpose.STATION_MAX,
        frozenset({Fix.WHOLE_AMPS, Fix.ONE_PERIOD}),
    ),
}
_ORDER = list(Rung)

_PINNED = {
    Fix.KIND: {"relative-only"},
    Fix.UNIT: {"watts-only", "amps-only"},
    Fix.STACK_ZERO: {"stack-level-0"},
    Fix.FEW_PERIODS: {"single-period"},
    Fix.ONE_PERIOD: {"single-period"},
    Fix.WHOLE_AMPS: {"whole-amps"},
}
"""Quirks set by hand that settle a question: learning does not touch it any more."""


class Outcome(StrEnum):
    """How an order ended; ``FOLLOWED`` and ``IGNORED`` are what power showed later."""

    ACCEPTED = "accepted"
    FOLLOWED = "accepted-and-followed"
    IGNORED = "accepted-ignored"
    REFUSED = "refused"
    REFUSED_ZERO = "refused-with-zero"
    SILENT = "silent"
    OFFLINE = "offline"


class Move(StrEnum):
    """What the caller does now."""

    KEEP = "keep"
    WAIT = "repeat-later"
    CLEAR_FIRST = "clear-by-id-and-repeat"
    CHANGE = "try-the-new-form"
    FENCE = "budget-at-rated-power"


class _Cause(StrEnum):
    RATE = "it wants fewer orders"
    DUPLICATE = "another profile is in the way"
    NO_TRANSACTION = "it does not know the transaction"
    PERIODS = "too many periods"
    UNIT = "the unit"
    STACK = "the stack level"
    PHASES = "the number of phases"
    KIND = "the kind or the start of the schedule"
    DECIMALS = "decimals"
    PURPOSE = "the purpose"
    NONE = "no reason"


_WORDS: tuple[tuple[_Cause, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(pattern))
    for cause, pattern in (
        (_Cause.RATE, r"rate ?limit"),
        (_Cause.DUPLICATE, r"duplicate"),
        (
            _Cause.NO_TRANSACTION,
            (
                r"txnotfound|transaction ?(id|not)|(no|unknown|invalid) transaction"
                r"|invalid ?message ?seq"
            ),  # it waits for the vehicle's needs (K15.FR.17)
        ),
        (_Cause.UNIT, r"rate ?unit"),
        (_Cause.PERIODS, r"too ?many|max ?periods|occu?rrence|number of periods"),
        (_Cause.STACK, r"stack ?level"),
        (_Cause.PHASES, r"phase"),
        (_Cause.KIND, r"start ?schedule|kind|relative|absolute|invalid ?schedule"),
        (_Cause.DECIMALS, r"decimal|multiple ?of|precision|0\.1|format|typeconstraint"),
        (_Cause.PURPOSE, r"purpose|not ?supported|not ?implemented"),
    )
)
"""From the sharpest word to the bluntest; free text that is never depended on (B8)."""

_FIXES = {
    _Cause.PERIODS: (Fix.FEW_PERIODS, Fix.ONE_PERIOD),
    _Cause.UNIT: (Fix.UNIT,),
    _Cause.STACK: (Fix.STACK_ZERO,),
    _Cause.PHASES: (Fix.PHASES,),
    _Cause.KIND: (Fix.KIND,),
    _Cause.DECIMALS: (Fix.WHOLE_AMPS,),
}

UNITS_PER_AMPERE = {"evbox": 10, "keba": 1000}
"""Vendors whose station limit is a configuration key, and its steps per ampere
(CFG-12). The keys' names differ by model: they come from the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorKey:
    """A configuration key that limits the whole station."""

    name: str
    per_ampere: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the ladder must know of a station besides its form.

    ``units`` are what it says it takes; ``vendor_key`` as ``vendor_key`` found it.
    """

    is_dc: bool = True
    outlets: int = 1
    units: frozenset[RateUnit] = frozenset()
    quirks: frozenset[str] = frozenset()
    vendor_key: VendorKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderKey:
    """What shares one experience: the words of BootNotification."""

    vendor: str
    model: str
    firmware: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One outcome of one rung, with the station's words."""

    rung: Rung
    outcome: Outcome
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was learned of one firmware; kept on disk and shown.

    ``fixes`` hold on every rung: the station asked for them. ``proven`` is the rung
    that measured power has followed, with its fixes. ``is_manual``: set by a person.
    ``fenced_at``: the stations at which nothing helped.
    """

    key: LadderKey
    rung: Rung = Rung.PLAIN
    fixes: tuple[Fix, ...] = ()
    proven: Rung | None = None
    proven_fixes: tuple[Fix, ...] = ()
    last: Outcome | None = None
    in_row: int = 0
    trials: tuple[Trial, ...] = ()
    is_manual: bool = False
    changed_at: datetime | None = None
    fenced_at: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether the way in use is the one that worked."""
        return (self.proven, self.proven_fixes) == (self.rung, self.fixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to limit a station now; ``form`` is None behind the fence.

    With a ``vendor_key`` no profile is sent: the key is written, and seldom, because
    each write wears the station's memory (VER-12).
    """

    rung: Rung
    fixes: tuple[Fix, ...] = ()
    form: ProfileForm | None = None
    purpose: Purpose = Purpose.TX
    vendor_key: VendorKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an outcome teaches, what to do now, and the words for it."""

    learned: Learned
    move: Move
    way: Way
    words: str = ""


def recall(book: Sequence[Learned], key: LadderKey) -> Learned:
    """Find what is known of a firmware; a new firmware starts from the top."""
    for item in book:
        if item.key == key:
            return item
    return Learned(key=key)


def is_fenced_for(model: Learned, station_id: str) -> bool:
    """Whether a model's fence stands before this station too.

    One broken station says little about its sisters: they climb for themselves until
    several of them found nothing either.
    """
    if model.rung is not Rung.FENCE:
        return False
    is_known = station_id in model.fenced_at or len(model.fenced_at) >= FENCED_MANY
    return model.is_manual or is_known


def remember(book: Sequence[Learned], item: Learned) -> tuple[Learned, ...]:
    """Keep what was learned, newest first; entries of older firmware stay."""
    return (item, *(old for old in book if old.key != item.key))[:BOOK_MAX]


def by_hand(key: LadderKey, rung: Rung, fixes: Sequence[Fix] = ()) -> Learned:
    """Take a rung from the configuration: no outcome moves it."""
    return Learned(key=key, rung=rung, fixes=tuple(fixes), is_manual=True)


def reopened(learned: Learned, now: datetime) -> Learned:
    """At the start of a session: give a fenced model another chance after a day."""
    at = learned.changed_at
    is_due = at is not None and now - at >= FENCE_RETRY
    if learned.rung is not Rung.FENCE or learned.is_manual or not is_due:
        return learned
    return replace(learned, rung=Rung.PLAIN, fixes=(), in_row=0, changed_at=now)


def vendor_key(vendor: str, name: str | None) -> VendorKey | None:
    """Look the steps of a vendor's key up; its name is the configuration's word."""
    steps = [n for known, n in UNITS_PER_AMPERE.items() if known in vendor.lower()]
    return VendorKey(name=name, per_ampere=steps[0]) if name and steps else None


def vendor_value(limit_w: float, key: VendorKey, phases: int) -> str:
    """Write a limit in the key's steps, rounded down to whole amperes."""
    amperes = int(limit_w / (NOMINAL_VOLTAGE_V * max(phases, 1)) + 1e-9)
    return str(max(amperes, 0) * key.per_ampere)


def way_of(form: ProfileForm, learned: Learned, facts: Facts) -> Way:
    """Tell how to send limits now; ``form`` is what ``profile_form`` chose."""
    return _way(learned.rung, learned.fixes, form, facts)


def as_sent(profile: ChargingProfile, way: Way, evse_id: EvseId) -> ChargingProfile:
    """Turn a compiled TxProfile into one of the way's purpose.

    A TxDefaultProfile belongs to the outlet: the safe default must be restored when the
    transaction ends. The station's maximum is for EVSE 0.
    """
    if way.purpose is Purpose.TX:
        return profile
    offset = profile.profile_id - TX_PROFILE_ID - evse_id
    number = TX_PROFILE_ID
    if way.purpose is Purpose.TX_DEFAULT:
        number = DEFAULT_PROFILE_ID + evse_id
    return replace(
        profile, profile_id=number + offset, purpose=way.purpose, transaction_id=None
    )


def next_form(
    form: ProfileForm,
    learned: Learned,
    outcome: Outcome,
    reason: str = "",
    *,
    facts: Facts,
    now: datetime,
    sent: Way | None = None,
    answered_else: bool = False,
) -> Ruling:
    """Learn from an outcome and tell the way on.

    ``sent`` is the way that the order used: an answer to an older way teaches nothing,
    as many stations of a model share one ladder. ``answered_else``: the station
    answered another call since the first of these silences. Some refuse a form that they
    took before when a limit of 0 is in it (LIM-08).
    """
    has_zero = outcome is Outcome.REFUSED_ZERO
    outcome = Outcome.REFUSED if has_zero else outcome
    way = way_of(form, learned, facts)
    if sent is not None and (sent.rung, sent.fixes) != (way.rung, way.fixes):
        return Ruling(learned=learned, move=Move.CHANGE, way=way)
    words = " ".join(reason.split())[:REASON_MAX]
    item = _noted(learned, Trial(rung=way.rung, outcome=outcome, at=now, reason=words))
    if outcome is Outcome.FOLLOWED:
        item = replace(item, proven=item.rung, proven_fixes=item.fixes)
    if outcome in {Outcome.FOLLOWED, Outcome.ACCEPTED} or item.rung is Rung.FENCE:
        move = Move.FENCE if item.rung is Rung.FENCE else Move.KEEP
        return Ruling(learned=item, move=move, way=way)
    cause = _cause(outcome, words)
    if cause in {_Cause.RATE, _Cause.NO_TRANSACTION}:
        item = replace(item, in_row=max(item.in_row - 1, 0))
        return Ruling(learned=item, move=Move.WAIT, way=way, words=str(cause))
    is_zero = has_zero and cause is _Cause.NONE
    if is_zero and not item.is_manual and _may_be_the_zero(learned, way):
        new = replace(item, fixes=(*item.fixes, Fix.NO_ZERO), in_row=0, changed_at=now)
        words = "the minimum instead of 0, because it took this form without a 0"
        return Ruling(
            learned=new, move=Move.CHANGE, way=way_of(form, new, facts), words=words
        )
    if cause is _Cause.DUPLICATE and item.in_row < CLEARS_MAX:
        return Ruling(learned=item, move=Move.CLEAR_FIRST, way=way, words=str(cause))
    if item.is_manual or not _is_enough(item, outcome, cause, answered_else=answered_else):
        return Ruling(learned=item, move=Move.WAIT, way=way, words=words)
    return _moved(item, cause, form, facts, now)


def describe(learned: Learned) -> str:
    """Show a person what was learned."""
    way = ", ".join([learned.rung, *learned.fixes])
    if learned.is_manual:
        return f"{way} (set by hand)"
    failed = [
        f"{trial.rung} {trial.outcome}{f' ({trial.reason})' if trial.reason else ''}"
        for trial in learned.trials
        if trial.outcome in {Outcome.REFUSED, Outcome.IGNORED, Outcome.SILENT}
    ]
    state = "proven by measured power" if learned.is_proven else "not yet proven"
    return f"{way} ({state})" + (f"; before: {'; '.join(failed)}" if failed else "")


def _way(rung: Rung, fixes: Sequence[Fix], form: ProfileForm, facts: Facts) -> Way:
    if rung is Rung.FENCE:
        return Way(rung=rung, fixes=tuple(fixes))
    purpose, more = _TABLE[rung]
    new = form
    for fix in Fix:
        if fix in more or fix in fixes:
            new = _fixed(new, fix, facts)
    if purpose is Purpose.STATION_MAX:
        new = replace(new, is_relative=False)  # 2.x forbids it (K01.FR.38)
    key = facts.vendor_key if rung is Rung.VENDOR_KEY else None
    return Way(rung=rung, fixes=tuple(fixes), form=new, purpose=purpose, vendor_key=key)


def _fixed(form: ProfileForm, fix: Fix, facts: Facts) -> ProfileForm:
    if _PINNED.get(fix, set()) & facts.quirks:
        return form
    match fix:
        case Fix.KIND:
            return replace(form, is_relative=not form.is_relative)
        case Fix.UNIT:
            return replace(form, unit=_other_unit(form.unit, facts))
        case Fix.PHASES:
            return replace(form, phases=PHASES if form.phases is None else None)
        case Fix.STACK_ZERO:
            return replace(form, stack_level=0)
        case Fix.FEW_PERIODS:
            return replace(form, periods_max=min(form.periods_max, FEW_PERIODS))
        case Fix.ONE_PERIOD:
            return replace(form, periods_max=1)
        case Fix.WHOLE_AMPS:
            return replace(form, whole_amps=form.unit is RateUnit.AMPERE or form.whole_amps)
        case Fix.NO_ZERO:
            return replace(form, zero_allowed=False)


def _other_unit(unit: RateUnit, facts: Facts) -> RateUnit:
    """Amperes of a DC station have no fixed meaning: only where it names them (B5)."""
    if unit is RateUnit.AMPERE:
        return RateUnit.WATT
    is_known = not facts.is_dc or RateUnit.AMPERE in facts.units
    return RateUnit.AMPERE if is_known else unit


def _noted(learned: Learned, trial: Trial) -> Learned:
    """Add an outcome; repeats of the newest one only renew its time.

    An order that is accepted once more does not make up for one that was ignored.
    """
    last, in_row = trial.outcome, 1
    if last is Outcome.ACCEPTED and learned.last is Outcome.IGNORED:
        last, in_row = Outcome.IGNORED, learned.in_row
    elif _same(learned.last, last):
        in_row = learned.in_row + 1
    trials = learned.trials
    if trials and replace(trials[-1], at=trial.at) == trial:
        trials = trials[:-1]
    kept = (*trials, trial)[-TRIALS_MAX:]
    return replace(learned, last=last, in_row=in_row, trials=kept)


def _same(last: Outcome | None, new: Outcome) -> bool:
    silent = {Outcome.SILENT, Outcome.OFFLINE}
    return last is new or (last in silent and new in silent)


def _may_be_the_zero(learned: Learned, way: Way) -> bool:
    """Whether a refused order with a 0 in it may have been refused for that."""
    good = {Outcome.ACCEPTED, Outcome.FOLLOWED}
    was_taken = any(t.rung is way.rung and t.outcome in good for t in learned.trials)
    return was_taken and Fix.NO_ZERO not in learned.fixes


def _cause(outcome: Outcome, words: str) -> _Cause:
    if outcome is Outcome.OFFLINE:
        return _Cause.PERIODS  # when it repeats: a long schedule makes it reboot (PRF-10)
    if outcome is not Outcome.REFUSED:
        return _Cause.NONE
    text = words.lower()
    found = (cause for cause, pattern in _WORDS if pattern.search(text))
    return next(found, _Cause.NONE)


def _is_enough(
    item: Learned, outcome: Outcome, cause: _Cause, *, answered_else: bool
) -> bool:
    """Whether it happened often enough in a row to leave the way."""
    if outcome in {Outcome.SILENT, Outcome.OFFLINE}:
        return item.in_row >= SILENCES and answered_else and not item.is_proven
    if not item.is_proven or cause is _Cause.PERIODS:
        return True  # a plan may be longer than all before
    is_ignored = outcome is Outcome.IGNORED
    return item.in_row >= (PROVEN_IGNORED if is_ignored else PROVEN_REFUSALS)


def _moved(
    item: Learned, cause: _Cause, form: ProfileForm, facts: Facts, now: datetime
) -> Ruling:
    """Mend the plain cause on the same rung; else take the next rung; else the fence."""
    old = way_of(form, item, facts)
    base = replace(item, in_row=0, last=None, changed_at=now)
    for fix in _FIXES.get(cause, ()):
        mended = _way(item.rung, (*item.fixes, fix), form, facts)
        if fix not in item.fixes and mended.form != old.form:
            new = replace(base, fixes=mended.fixes)
            words = f"{fix} because of {cause}"
            return Ruling(learned=new, move=Move.CHANGE, way=mended, words=words)
    for rung in _left(item, form, facts):
        way = _way(rung, item.fixes, form, facts)
        is_other = way.purpose is not old.purpose or way.vendor_key is not None
        if cause is _Cause.PURPOSE and not is_other:
            continue
        new = replace(base, rung=rung)
        return Ruling(learned=new, move=Move.CHANGE, way=way, words=f"next way: {rung}")
    # A model that worked before is not written off for one station's trouble: the
    # outlet is fenced for this session, and the next one tries what worked.
    rung, fixes = item.proven or Rung.FENCE, item.proven_fixes
    new = replace(base, rung=rung, fixes=fixes if item.proven else item.fixes)
    words = "no way is left; look at the station's own load management and licence"
    return Ruling(learned=new, move=Move.FENCE, way=Way(rung=Rung.FENCE), words=words)


def _left(item: Learned, form: ProfileForm, facts: Facts) -> Iterator[Rung]:
    """Rungs below the present one that are possible and not the same as one above."""
    seen: list[tuple[Purpose, ProfileForm | None, VendorKey | None]] = []
    for rung in _ORDER[: _ORDER.index(Rung.FENCE)]:
        way = _way(rung, item.fixes, form, facts)
        look = (way.purpose, way.form, way.vendor_key)
        is_below = _ORDER.index(rung) > _ORDER.index(item.rung)
        if is_below and look not in seen and _is_possible(rung, facts):
            yield rung
        seen.append(look)


def _is_possible(rung: Rung, facts: Facts) -> bool:
    match rung:
        case Rung.TX_DEFAULT | Rung.TX_DEFAULT_SIMPLEST:
            return "no-default-profile" not in facts.quirks
        case Rung.STATION_MAX:
            return facts.outlets == 1  # its limit is for the sum of all outlets (B1)
        case Rung.VENDOR_KEY:
            return facts.vendor_key is not None and not facts.is_dc
        case _:
            return True
