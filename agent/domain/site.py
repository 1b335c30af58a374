"""The load of the site that nobody steers, from a meter at the grid connection.

**Counted** is what everything but charging takes: the meter minus the stations' own sum.
The two are never read at one instant (stations report every 30 to 60 s), so a single
difference proves little. Therefore (ocpp-depot.md D3.2, D3.8):

* what the meter shows beyond all that outlets *could* be drawing is certain: it counts
  at once, for ``WINDOW_S``;
* what it shows beyond what outlets *said* counts when it lasts ``confirm_s``: a bus that
  starts is not a cold store until its station had time to report;
* when the meter is over the cap, the certain part takes the excess from what outlets may
  draw; if it still is after ``OVER_CAP_S`` (some draw less than they may), all that
  stations do not account for counts;
* the worst of ``WINDOW_S`` counts, so that a fridge that switches on is no surprise.

A meter that is silent, stuck or tells nonsense is no meter: ``unmanaged_max_w`` counts,
or what was last counted where that is more. All powers are W, grid side; times are
seconds since the epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

WINDOW_S = 900.0
"""The worst load of a quarter of an hour counts (D3.2: 15-min maximum)."""
OVER_CAP_S = 15.0
"""What a first cut needs to be polled, sent, taken and followed; D3.8 allows 10 s before
anything is done, and fuses allow minutes."""
OVER_CAP_CONFIRMS = 3.0
"""What was counted in haste while over the cap is held for as many ``confirm_s``: until
stations have reported the cut and the slow reckoning has seen it."""
MARGIN_SHARE = 0.05
MARGIN_LEAST_W = 500.0
"""Over the counted load: noise between two polls, and meters of class 1 (IEC 62053-21)."""
IMPLAUSIBLE_CAPS = 10.0
"""A meter that shows ten times the cap shows another unit: its fuse would be gone."""
FALL_SHARE = 0.02
FALL_AFTER_S = 60.0
"""Room that grows is given out when it is worth 2 % of the cap, or once a minute (D3.5):
every raise is a profile in some station's flash."""
DISAGREE_SHARE = 0.10
DISAGREE_S = 300.0
"""Telemetry falsification (faults.md W6): 10 % for 5 min."""
DISAGREE_LEAST_W = 2000.0
"""Below this a difference is losses, auxiliaries and rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRules:
    """The configuration. ``unmanaged_max_w``: the worst load of all that is no charging.

    ``pv_max_w`` is the most that generation behind the meter can feed; ``confirm_s`` the
    time in which every station has reported anew.
    """

    unmanaged_max_w: float
    stale_s: float = 60.0
    includes_charging: bool = True
    pv_max_w: float = 0.0
    confirm_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSeen:
    """One reading and what was known of charging at that moment.

    ``total_w`` is the meter's value, negative when feeding in. Of charging: ``reported_w``
    is the sum that stations reported, ``least_w`` that sum as far as accepted limits
    allow it, ``possible_w`` all that outlets could be drawing.
    """

    at_s: float
    total_w: float
    cap_w: float
    reported_w: float = 0.0
    least_w: float = 0.0
    possible_w: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLoad:
    """The load that is counted now, and why. ``since_s`` is when it last moved."""

    unmanaged_w: float
    is_measured: bool
    since_s: float
    words: str
    total_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """What is remembered of the meter; replaced with every reading.

    ``rests`` are the newest differences (at, W); ``peaks`` are loads that count until a
    moment (until, W), each higher than all that last longer, so both stay small.
    """

    at_s: float | None = None
    total_w: float | None = None
    rests: tuple[tuple[float, float], ...] = ()
    peaks: tuple[tuple[float, float], ...] = ()
    disagrees_since_s: float | None = None
    over_since_s: float | None = None


def problem_of(seen_w: float, rules: SiteRules, cap_w: float) -> str | None:
    """Why a meter value cannot be true, or None."""
    if not math.isfinite(seen_w):
        return "the value is no number"
    if rules.includes_charging or rules.pv_max_w > 0:
        lowest_w = -rules.pv_max_w - max(MARGIN_LEAST_W, cap_w * FALL_SHARE)
        if seen_w < lowest_w:
            return (
                f"{seen_w / 1000:.1f} kW is more feed-in than site.meter.pv_max_kw: "
                "check the meter's sign"
            )
    elif seen_w < -MARGIN_LEAST_W:
        return f"a load of {seen_w / 1000:.1f} kW is negative: check the meter's sign"
    if seen_w > cap_w * IMPLAUSIBLE_CAPS:
        return f"{seen_w / 1000:.0f} kW is over ten times the cap: check unit and path"
    return None


def take(state: SiteState, seen: SiteSeen, rules: SiteRules) -> SiteState:
    """Take a plausible reading into account."""
    if state.at_s is not None and seen.at_s < state.at_s:
        # Our clock was set back: what counts goes on from the new time, none of it early.
        state = _moved(state, seen.at_s - state.at_s)
    if not rules.includes_charging:
        seen = replace(seen, reported_w=0.0, least_w=0.0, possible_w=0.0)
    # Feeding in means a negative rest; it is clamped: a cloud before the sun takes that
    # room away in seconds, so it is never given to charging.
    rest_w = max(seen.total_w - seen.least_w, 0.0)
    certain_w = max(seen.total_w - seen.possible_w, 0.0)
    from_s = seen.at_s - rules.confirm_s
    rests = (*(item for item in state.rests if item[0] > from_s), (seen.at_s, rest_w))
    lasting_w = min(item[1] for item in rests)
    peaks = [*state.peaks, (seen.at_s + WINDOW_S, max(lasting_w, certain_w))]
    over_since_s = _since(state.over_since_s, seen.at_s, holds=seen.total_w > seen.cap_w)
    if over_since_s is not None and seen.at_s - over_since_s >= OVER_CAP_S:
        peaks.append((seen.at_s + OVER_CAP_CONFIRMS * rules.confirm_s, rest_w))
    is_odd = rules.includes_charging and disagreement(seen, rules) is not None
    return SiteState(
        at_s=seen.at_s,
        total_w=seen.total_w,
        rests=rests,
        peaks=_worth_keeping(peaks, seen.at_s),
        disagrees_since_s=_since(state.disagrees_since_s, seen.at_s, holds=is_odd),
        over_since_s=over_since_s,
    )


def unmanaged_w(state: SiteState, rules: SiteRules, now_s: float) -> tuple[float, bool]:
    """Tell the load to count on now, W, never negative, and whether it is measured."""
    worst_w = max((load_w for _, load_w in state.peaks), default=0.0)
    counted_w = worst_w
    if worst_w > 0:
        counted_w += max(MARGIN_LEAST_W, worst_w * MARGIN_SHARE)
    if is_stale(state, rules, now_s):
        return max(rules.unmanaged_max_w, counted_w), False
    return counted_w, True


def is_stale(state: SiteState, rules: SiteRules, now_s: float) -> bool:
    """Whether the newest reading is too old, missing, or of a time yet to come."""
    return state.at_s is None or not -1.0 <= now_s - state.at_s <= rules.stale_s


def decide(
    old: SiteLoad | None,
    state: SiteState,
    rules: SiteRules,
    *,
    now_s: float,
    cap_w: float,
    trouble: str = "",
) -> SiteLoad:
    """Tell what counts from now on: more at once, less with hysteresis."""
    load_w, is_measured = unmanaged_w(state, rules, now_s)
    since_s = now_s
    if old is not None and old.is_measured == is_measured and load_w <= old.unmanaged_w:
        waited_s = now_s - old.since_s
        is_worth_it = old.unmanaged_w - load_w > cap_w * FALL_SHARE
        if not is_worth_it and 0 <= waited_s < FALL_AFTER_S:
            load_w, since_s = old.unmanaged_w, old.since_s
    counts = f"everything but charging counts with {load_w / 1000:.1f} kW"
    if is_measured and state.total_w is not None:
        words = (
            f"the site meter shows {state.total_w / 1000:.1f} kW: {counts} "
            "(its worst of 15 minutes and a margin)"
        )
    else:
        why = f" ({trouble})" if trouble else ""
        words = f"the site meter gives no fresh value{why}: {counts}, the safe assumption"
    return SiteLoad(
        unmanaged_w=load_w,
        is_measured=is_measured,
        since_s=since_s,
        words=words,
        total_w=state.total_w if is_measured else None,
    )


def disagreement(seen: SiteSeen, rules: SiteRules) -> str | None:
    """Why meter and stations cannot both be right, or None (faults.md W6).

    What the meter shows beyond the worst load that is no charging must be charging; what
    stations report must pass the meter, but for what generation feeds behind it.
    """
    slack_w = max(seen.reported_w * DISAGREE_SHARE, DISAGREE_LEAST_W)
    least_w = seen.total_w - rules.unmanaged_max_w
    most_w = max(seen.total_w + rules.pv_max_w, 0.0)
    if least_w > seen.reported_w + slack_w:
        return (
            f"the meter shows at least {least_w / 1000:.1f} kW of charging, stations "
            f"report {seen.reported_w / 1000:.1f} kW: a station reports too little, or "
            "site.meter.unmanaged_max_kw is too low"
        )
    if most_w < seen.reported_w - slack_w:
        return (
            f"stations report {seen.reported_w / 1000:.1f} kW, the meter shows "
            f"{seen.total_w / 1000:.1f} kW: it does not measure them all, or generation "
            "behind it is missing in site.meter.pv_max_kw"
        )
    return None


def has_disagreed_long(state: SiteState, now_s: float) -> bool:
    """Whether meter and stations have differed for 5 min without a break."""
    since_s = state.disagrees_since_s
    return since_s is not None and now_s - since_s >= DISAGREE_S


def _worth_keeping(
    peaks: list[tuple[float, float]], now_s: float
) -> tuple[tuple[float, float], ...]:
    kept: list[tuple[float, float]] = []
    for until_s, load_w in sorted(peaks, reverse=True):
        if until_s > now_s and (not kept or load_w > kept[-1][1]):
            kept.append((until_s, load_w))
    return tuple(reversed(kept))


def _since(before_s: float | None, now_s: float, *, holds: bool) -> float | None:
    """Since when something has held without a break."""
    if not holds:
        return None
    return now_s if before_s is None else before_s


def _moved(state: SiteState, by_s: float) -> SiteState:
    since_s, over_s = state.disagrees_since_s, state.over_since_s
    return replace(
        state,
        rests=tuple((at_s + by_s, load_w) for at_s, load_w in state.rests),
        peaks=tuple((until_s + by_s, load_w) for until_s, load_w in state.peaks),
        disagrees_since_s=None if since_s is None else since_s + by_s,
        over_since_s=None if over_s is None else over_s + by_s,
    )
