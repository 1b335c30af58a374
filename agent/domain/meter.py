"""Meter readings of one session: what is believed, what is counted, what is history.

Registers may dip, reset, jump, be missing, or count from zero (charger-quirks.md MTR,
faults.md C6 to C8). Energy never falls; a doubtful reading is named, not counted.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from agent.domain.values import value

HISTORY_SLOT_S = 900
"""Measured energy is kept in quarter hours: the grid of ChargEye's own plans."""
HISTORY_MAX = 400
"""Slots kept per session: four days; older ones are merged into the first."""
RATE_MARGIN = 1.2
"""A register may not rise faster than 1.2 times the outlet's rated power (C6)."""
RATE_MARGIN_WH = 500.0
"""Slack for registers that count in steps of 100 Wh and for late samples."""
SOC_FULL = 100.0
SOC_DROP_MAX = 5.0
"""Percentage points that SoC may fall between two samples of a charging session."""
SOC_ZERO_BELOW = 5.0
"""A SoC of 0 is believed only after a value below this (handshake zeros, A5)."""


@value()
class MeterReading:
    """What one sampled moment said; None where the station did not say.

    ``register_wh`` is the lifetime register in Wh, powers are W at the outlet,
    ``at`` is our best time for the sample (aware UTC).
    """

    at: datetime
    register_wh: float | None = None
    power_w: float | None = None
    soc_percent: float | None = None
    offered_w: float | None = None
    inlet_w: float | None = None


HistorySlot = tuple[int, float, float | None, float | None]
"""Start in whole seconds since the epoch, Wh, SoC at first and at last sample."""


@value()
class MeterState:
    """The running account of a session; all fields are believed values."""

    energy_wh: float = 0.0
    register_wh: float | None = None
    register_at: datetime | None = None
    doubtful_wh: float | None = None
    power_w: float | None = None
    power_at: datetime | None = None
    offered_w: float | None = None
    soc_percent: float | None = None
    soc_at: datetime | None = None
    soc_first: float | None = None
    doubtful_soc: float | None = None
    history: tuple[HistorySlot, ...] = ()
    inlet_w: float | None = None


def baseline(state: MeterState, register_wh: float | None, at: datetime) -> MeterState:
    """Start counting from a register value (meterStart); None waits for a sample."""
    return replace(state, register_wh=register_wh, register_at=at, doubtful_wh=None)


def add_reading(
    state: MeterState, reading: MeterReading, *, rated_w: int
) -> tuple[MeterState, str | None]:
    """Take one reading into the account; the new state and an anomaly, if any."""
    at = reading.at
    energy_wh = state.energy_wh
    register_wh = state.register_wh
    register_at = state.register_at
    doubtful_wh = state.doubtful_wh
    history = state.history
    anomaly: str | None = None
    gained = span_s = 0.0
    soc, soc_at, soc_first, doubtful_soc = _soc(state, reading)
    if reading.register_wh is not None:
        if register_at is not None:
            span_s = (at - register_at).total_seconds()
        gained, doubtful_wh, anomaly = _gain(state, reading.register_wh, span_s, rated_w)
        if doubtful_wh is None:
            energy_wh += gained
            said = soc if soc == reading.soc_percent else None
            history = _spread(history, register_at or at, at, gained, said)
            register_wh = reading.register_wh
            register_at = at
    power_w, power_at = state.power_w, state.power_at
    if reading.power_w is not None:
        if 0 <= reading.power_w <= rated_w * 1.5 + 1000:
            power_w, power_at = reading.power_w, at
        else:
            anomaly = anomaly or f"power {reading.power_w:.0f} W is not plausible"
    elif gained > 0 and doubtful_wh is None and span_s >= 1:
        power_w, power_at = gained * 3600 / span_s, at
    new = MeterState(
        energy_wh,
        register_wh,
        register_at,
        doubtful_wh,
        power_w,
        power_at,
        reading.offered_w if reading.offered_w is not None else state.offered_w,
        soc,
        soc_at,
        soc_first,
        doubtful_soc,
        history,
        reading.inlet_w if reading.power_w is not None else None,
    )
    return new, anomaly


def most_wh(rated_w: int, span_s: float) -> float:
    """Tell the most that an outlet can have given in a time, with slack (C6)."""
    return rated_w * RATE_MARGIN * span_s / 3600 + RATE_MARGIN_WH


def settle(
    state: MeterState, owed_wh: float, register_wh: float, at: datetime
) -> MeterState:
    """Correct the account at the end of a transaction by what is still owed, Wh."""
    since = state.register_at or at
    if owed_wh >= 0:
        history = _spread(state.history, since, at, owed_wh, None)
    else:
        history = _take_back(state.history, min(-owed_wh, state.energy_wh))
    return replace(
        state,
        energy_wh=max(state.energy_wh + owed_wh, 0.0),
        register_wh=register_wh,
        register_at=at,
        doubtful_wh=None,
        history=history,
    )


def add_before(
    state: MeterState, energy_wh: float, from_at: datetime, to_at: datetime
) -> MeterState:
    """Add energy that passed before counting began: a start that was reported late."""
    older = _spread((), from_at, to_at, energy_wh, None)
    slots = list(older)
    for slot in state.history:
        _add_slot(slots, slot)
    return replace(state, energy_wh=state.energy_wh + energy_wh, history=_bounded(slots))


def take_soc(state: MeterState, reading: MeterReading) -> MeterState:
    """Take only the SoC of a reading that came late, if it is the newest one."""
    if state.soc_at is not None and reading.at < state.soc_at:
        return state
    soc, soc_at, soc_first, doubtful = _soc(state, reading)
    return replace(
        state, soc_percent=soc, soc_at=soc_at, soc_first=soc_first, doubtful_soc=doubtful
    )


def idle(state: MeterState, at: datetime) -> MeterState:
    """After a transaction the outlet draws nothing, whatever it last said (MTR-12)."""
    return replace(state, power_w=0.0, power_at=at, offered_w=None)


def _gain(
    state: MeterState, value: float, span_s: float, rated_w: int
) -> tuple[float, float | None, str | None]:
    """Energy to count, the doubtful register to remember, and the anomaly."""
    if state.register_wh is None or state.register_at is None:
        return 0.0, None, None
    step = value - state.register_wh
    limit = most_wh(rated_w, max(span_s, 0.0))
    if 0 <= step <= limit:
        return step, None, None
    if state.doubtful_wh is not None:
        follow = value - state.doubtful_wh
        if value > 0 and 0 <= follow <= limit:
            shown = f"register moved from {state.register_wh:.0f} to {value:.0f} Wh"
            return follow, None, f"{shown}; counting goes on from there"
    kind = "fell" if step < 0 else "rose too fast"
    shown = f"register {kind} from {state.register_wh:.0f} to {value:.0f} Wh"
    return 0.0, value, None if state.doubtful_wh is not None else shown


def _soc(
    state: MeterState, reading: MeterReading
) -> tuple[float | None, datetime | None, float | None, float | None]:
    value = reading.soc_percent
    known = (state.soc_percent, state.soc_at, state.soc_first)
    if value is None or not 0 <= value <= SOC_FULL:
        return *known, state.doubtful_soc
    if state.soc_percent is None:
        if value == 0 and state.doubtful_soc is None:
            return *known, value
        if value == 0:
            return *known, state.doubtful_soc
        return value, reading.at, value, None
    if value == 0 and state.soc_percent >= SOC_ZERO_BELOW:
        return *known, state.doubtful_soc
    if value < state.soc_percent - SOC_DROP_MAX and (
        state.doubtful_soc is None or abs(value - state.doubtful_soc) > SOC_DROP_MAX
    ):
        return *known, value
    return value, reading.at, state.soc_first, None


def _spread(
    history: tuple[HistorySlot, ...],
    from_at: datetime,
    to_at: datetime,
    energy_wh: float,
    soc: float | None,
) -> tuple[HistorySlot, ...]:
    """Put energy into its quarter hours, in proportion to time."""
    to_s = to_at.timestamp()
    from_s = min(from_at.timestamp(), to_s)
    slot_s = int(to_s // HISTORY_SLOT_S) * HISTORY_SLOT_S
    soc = soc or None
    if from_s >= slot_s and history and history[-1][0] == slot_s:
        last = history[-1]
        new = (slot_s, last[1] + energy_wh, last[2] or soc, soc or last[3])
        return (*history[:-1], new)
    slots = list(history)
    begin_s = int(from_s // HISTORY_SLOT_S) * HISTORY_SLOT_S
    begin_s = max(begin_s, slot_s - (HISTORY_MAX - 1) * HISTORY_SLOT_S)
    span_s = to_s - from_s
    while begin_s <= slot_s:
        end_s = min(begin_s + HISTORY_SLOT_S, to_s)
        share = energy_wh * (end_s - from_s) / span_s if span_s > 0 else energy_wh
        _add_slot(slots, (begin_s, share, soc, soc))
        begin_s, from_s = begin_s + HISTORY_SLOT_S, end_s
    return _bounded(slots)


def _take_back(
    history: tuple[HistorySlot, ...], energy_wh: float
) -> tuple[HistorySlot, ...]:
    """Remove energy that was counted too much, newest first."""
    slots = list(history)
    for index in range(len(slots) - 1, -1, -1):
        start_s, held_wh, soc_first, soc_last = slots[index]
        taken_wh = min(held_wh, energy_wh)
        slots[index] = (start_s, held_wh - taken_wh, soc_first, soc_last)
        energy_wh -= taken_wh
    return tuple(slots)


def _bounded(slots: list[HistorySlot]) -> tuple[HistorySlot, ...]:
    extra = len(slots) - HISTORY_MAX
    if extra > 0:
        older_wh = sum(slot[1] for slot in slots[:extra])
        start_s, held_wh, soc_first, soc_last = slots[extra]
        first = (start_s, held_wh + older_wh, slots[0][2] or soc_first, soc_last)
        slots[: extra + 1] = [first]
    return tuple(slots)


def _add_slot(slots: list[HistorySlot], new: HistorySlot) -> None:
    for index in range(len(slots) - 1, -1, -1):
        if slots[index][0] == new[0]:
            old = slots[index]
            slots[index] = (old[0], old[1] + new[1], old[2] or new[2], new[3] or old[3])
            return
        if slots[index][0] < new[0]:
            slots.insert(index + 1, new)
            return
    slots.insert(0, new)
