"""Runs one night of charging at one site level, quarter hour by quarter hour.

Pure. First the minimum of those that cannot pause, then what each needs for its
departure, least slack first; an eager run also hands out what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.standin.night import HOUR_MS

if TYPE_CHECKING:
    from agent.standin.night import Night, Slot, Stay

DONE_SOC = 0.005
"""Percent; a target missed by less is reached."""
HEADROOM = 1.03
"""On the flat rate, because within a step the end of the taper decides."""


@dataclass(slots=True)
class Outcome:
    """How one stay goes in one run."""

    start_ms: int
    soc: float
    pieces: list[dict[str, Any]] = field(default_factory=list)
    first_charge_ms: int | None = None
    rate_kw: float = 0.0
    is_running: bool = False
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One night at one level."""

    night: Night
    level_kw: float
    eager: bool
    outcomes: dict[str, Outcome]
    peak_kw: float

    def shortfall(self) -> float:
        """Percent missing at departure, summed over the vehicles."""
        return sum(
            max(0.0, stay.slot.target_soc - self.outcomes[stay.slot.schedule_id].soc)
            for stay in self.night.stays
        )

    def is_as_ready_as(self, other: Run, tolerance: float) -> bool:
        """Nobody leaves with less; nobody that cannot pause begins later."""
        return all(
            _is_as_ready(
                stay.slot,
                self.outcomes[stay.slot.schedule_id],
                other.outcomes[stay.slot.schedule_id],
                tolerance,
            )
            for stay in self.night.stays
        )


def fill(night: Night, level_kw: float, *, eager: bool, avoiding: frozenset[str]) -> Run:
    """Charge through the night with at most `level_kw` for the whole site."""
    filler = _Filler(night, level_kw, eager=eager, avoiding=avoiding)
    for cell in range(len(night.cells)):
        filler.step(cell)
    return Run(night, level_kw, eager, filler.outcomes, filler.peak_kw)


@dataclass(slots=True)
class _Turn:
    """One vehicle within one cell."""

    stay: Stay
    outcome: Outcome
    from_ms: int
    to_ms: int
    steady_kw: float
    slack_ms: float
    avoids: bool
    power_kw: float = 0.0

    @property
    def hours(self) -> float:
        return (self.to_ms - self.from_ms) / HOUR_MS

    @property
    def floor_kw(self) -> float:
        return min(self.stay.floor_kw, self.steady_kw)


class _Filler:
    """State of one run; `step` must be called once per cell, in order."""

    def __init__(
        self, night: Night, level_kw: float, *, eager: bool, avoiding: frozenset[str]
    ) -> None:
        self._night = night
        self._level_kw = level_kw
        self._eager = eager
        self._avoiding = avoiding
        self._promised_kw = [0.0] * len(night.cells)
        self._waiting = sorted(night.stays, key=lambda stay: stay.start_ms)
        self._next = 0
        self._present: list[Stay] = []
        self.peak_kw = 0.0
        self.outcomes = {
            stay.slot.schedule_id: Outcome(stay.start_ms, stay.slot.start_soc)
            for stay in night.stays
        }

    def step(self, cell: int) -> None:
        at_ms, to_ms = self._night.cells[cell]
        self._refresh_present(at_ms, to_ms)
        turns = [self._turn(stay, cell) for stay in self._present]
        turns.sort(key=lambda turn: turn.slack_ms)
        room_kw = max(0.0, self._level_kw - self._night.taken_kw[cell])
        room_kw = self._give_floors(turns, cell, room_kw)
        room_kw = self._give_wishes(turns, cell, room_kw)
        if self._eager:
            _share_rest(turns, room_kw)
        for turn in turns:
            _advance(turn)
        drawn_kw = self._night.taken_kw[cell] + sum(turn.power_kw for turn in turns)
        self.peak_kw = max(self.peak_kw, drawn_kw)

    def _refresh_present(self, at_ms: int, to_ms: int) -> None:
        self._present = [
            stay
            for stay in self._present
            if stay.end_ms > at_ms and not self.outcomes[stay.slot.schedule_id].is_done
        ]
        while self._next < len(self._waiting):
            stay = self._waiting[self._next]
            if stay.start_ms >= to_ms:
                return
            self._next += 1
            outcome = self.outcomes[stay.slot.schedule_id]
            begin_ms = max(at_ms, stay.start_ms)
            if stay.slot.target_soc - outcome.soc > DONE_SOC and stay.end_ms > begin_ms:
                self._present.append(stay)

    def _turn(self, stay: Stay, cell: int) -> _Turn:
        at_ms, to_ms = self._night.cells[cell]
        outcome = self.outcomes[stay.slot.schedule_id]
        start, end = max(at_ms, stay.start_ms), min(to_ms, stay.end_ms)
        slot = stay.slot
        full_h = stay.battery.hours_to(outcome.soc, slot.target_soc, slot.max_power_kw)
        avoids = slot.schedule_id in self._avoiding
        left_ms = self._night.charging_ms(stay, cell, start, avoids=avoids)
        slack_ms = left_ms - full_h * HOUR_MS
        if not outcome.rate_kw:
            outcome.rate_kw = HEADROOM * stay.battery.flat_kw(
                outcome.soc, slot.target_soc, left_ms / HOUR_MS
            )
        steady_kw = _down(stay.battery.steady_kw(outcome.soc, (end - start) / HOUR_MS))
        return _Turn(
            stay=stay,
            outcome=outcome,
            from_ms=start,
            to_ms=end,
            steady_kw=steady_kw,
            slack_ms=slack_ms,
            avoids=avoids,
        )

    def _give_floors(self, turns: list[_Turn], cell: int, room_kw: float) -> float:
        """Those that cannot pause: first the running, then as many new as fit."""
        steadfast = [turn for turn in turns if not turn.stay.slot.can_pause]
        running = [turn for turn in steadfast if turn.outcome.is_running]
        fresh = [turn for turn in steadfast if not turn.outcome.is_running]
        fresh.sort(key=lambda turn: not turn.stay.slot.is_charging)
        for turn in running:
            turn.power_kw = min(turn.floor_kw, room_kw)
            room_kw -= turn.power_kw
        for turn in fresh:
            if turn.floor_kw > 0 and self._admits(turn, cell):
                turn.outcome.is_running = True
                turn.power_kw = min(turn.floor_kw, room_kw)
                room_kw -= turn.power_kw
        return room_kw

    def _admits(self, turn: _Turn, cell: int) -> bool:
        """Promise the floor until it must be full, if it fits all the while."""
        stay = turn.stay
        last = self._floor_end(turn, cell)
        taken_kw, floor_kw = self._night.taken_kw, stay.floor_kw
        span = range(cell, last + 1)
        if any(
            self._promised_kw[i] + taken_kw[i] + floor_kw > self._level_kw + 1e-9
            for i in span
        ):
            return False
        for i in span:
            self._promised_kw[i] += floor_kw
        return True

    def _floor_end(self, turn: _Turn, cell: int) -> int:
        """Last cell in which it charges when it never gets more than its floor."""
        stay, soc, last = turn.stay, turn.outcome.soc, cell
        for last in range(cell, len(self._night.cells)):
            at_ms, to_ms = self._night.cells[last]
            hours = (min(to_ms, stay.end_ms) - max(at_ms, stay.start_ms)) / HOUR_MS
            if hours <= 0:
                break
            power_kw = min(stay.floor_kw, _down(stay.battery.steady_kw(soc, hours)))
            soc += power_kw * hours * stay.battery.percent_per_kwh()
            if soc >= stay.slot.target_soc:
                break
        return last

    def _give_wishes(self, turns: list[_Turn], cell: int, room_kw: float) -> float:
        """Give each what it needs to be ready, least slack first."""
        for turn in turns:
            wish_kw = self._wish_kw(turn, cell)
            given_kw = _down(min(wish_kw, turn.power_kw + room_kw))
            is_refused = given_kw < wish_kw - 1e-9
            if given_kw <= turn.power_kw or given_kw < turn.floor_kw - 1e-9:
                given_kw = turn.power_kw
            if not (turn.stay.slot.can_pause or turn.outcome.is_running):
                given_kw = 0.0
            if is_refused:
                turn.outcome.rate_kw = 0.0  # it lost time: reckon its rate anew
            room_kw -= given_kw - turn.power_kw
            turn.power_kw = given_kw
        return room_kw

    def _wish_kw(self, turn: _Turn, cell: int) -> float:
        is_urgent = turn.slack_ms <= turn.to_ms - turn.from_ms
        if is_urgent:
            wish_kw = turn.steady_kw
        elif turn.avoids and self._night.is_dear[cell]:
            return 0.0
        else:
            wish_kw = min(max(turn.outcome.rate_kw, turn.floor_kw), turn.steady_kw)
        return min(wish_kw, max(_fitting_kw(turn), turn.floor_kw))


def _share_rest(turns: list[_Turn], room_kw: float) -> None:
    """Raise all that charge by equal steps up to what they can take."""
    open_turns = [turn for turn in turns if turn.power_kw > 0]
    open_turns.sort(key=lambda turn: _most_kw(turn) - turn.power_kw)
    for i, turn in enumerate(open_turns):
        share_kw = room_kw / (len(open_turns) - i)
        most_kw = max(_most_kw(turn), turn.power_kw)
        given_kw = max(_down(min(most_kw, turn.power_kw + share_kw)), turn.power_kw)
        room_kw -= given_kw - turn.power_kw
        turn.power_kw = given_kw


def _most_kw(turn: _Turn) -> float:
    return min(turn.steady_kw, max(_fitting_kw(turn), turn.floor_kw))


def _fitting_kw(turn: _Turn) -> float:
    """Power that reaches the target exactly at the end of this cell, rounded up."""
    missing = turn.stay.slot.target_soc - turn.outcome.soc
    exact_kw = missing / turn.stay.battery.percent_per_kwh() / turn.hours
    return math.ceil(exact_kw * 100 - 1e-9) / 100


def _advance(turn: _Turn) -> None:
    outcome, stay = turn.outcome, turn.stay
    to_ms = turn.to_ms
    power_kw = round(turn.power_kw, 2)
    start_soc = outcome.soc
    gain_per_h = power_kw * stay.battery.percent_per_kwh()
    missing = stay.slot.target_soc - start_soc
    if gain_per_h > 0 and missing <= gain_per_h * turn.hours:
        # Whole seconds, as a charger would be told.
        needed_ms = math.ceil(missing / gain_per_h * 3600 - 1e-9) * 1000
        to_ms = min(to_ms, turn.from_ms + max(1000, needed_ms))
    gained = gain_per_h * (to_ms - turn.from_ms) / HOUR_MS
    outcome.soc = min(100.0, start_soc + gained)
    outcome.is_done = stay.slot.target_soc - outcome.soc <= DONE_SOC
    if power_kw > 0 and outcome.first_charge_ms is None:
        outcome.first_charge_ms = turn.from_ms
    outcome.pieces.append(
        {
            "from_ms": turn.from_ms,
            "to_ms": to_ms,
            "power_kw": power_kw,
            "start_soc": start_soc,
            "end_soc": outcome.soc,
            "paused": power_kw == 0,
            "limited": power_kw < turn.steady_kw - 0.02,
        }
    )


def _is_as_ready(slot: Slot, mine: Outcome, other: Outcome, tolerance: float) -> bool:
    if mine.soc < min(slot.target_soc, other.soc) - tolerance:
        return False
    if slot.can_pause or other.first_charge_ms is None:
        return True
    return (
        mine.first_charge_ms is not None and mine.first_charge_ms <= other.first_charge_ms
    )


def _down(power_kw: float) -> float:
    """Round down to 10 W, so that a sum never creeps over the cap."""
    return math.floor(power_kw * 100 + 1e-6) / 100
