"""What the planner is given: slots, fixed loads, and the grid laid over them.

Pure. Powers in kW on the DC side, energies kWh, SoC percent, times in epoch
milliseconds. A vehicle counts for the whole of each cell that it touches.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.standin.physics import Battery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

SMALLEST_KW = 1.0
"""Chargers take less than 1000 W as a stop (chargeye.md 12.4)."""
HOUR_MS = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One vehicle's stay: kW, kWh, percent; `efficiency` plug to battery."""

    vehicle_id: str
    schedule_id: str
    arrival: datetime
    departure: datetime
    start_soc: float
    target_soc: float
    battery_kwh: float
    max_power_kw: float
    min_power_kw: float = 0.0
    can_pause: bool = False
    efficiency: float = 1.0
    margin_s: float = 0.0
    is_charging: bool = False

    def battery(self) -> Battery:
        """Return its charging curve."""
        return Battery(
            capacity_kwh=self.battery_kwh,
            max_kw=self.max_power_kw,
            efficiency=self.efficiency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A power already promised to somebody, epoch ms and kW."""

    from_ms: int
    to_ms: int
    power_kw: float


@dataclass(frozen=True, slots=True)
class Stay:
    """A slot cut at now, in milliseconds."""

    slot: Slot
    battery: Battery
    start_ms: int
    deadline_ms: int
    end_ms: int

    @property
    def floor_kw(self) -> float:
        """Lowest power at which this vehicle keeps charging."""
        lowest = max(self.slot.min_power_kw, SMALLEST_KW)
        return min(lowest, self.slot.max_power_kw)


@dataclass(frozen=True, slots=True)
class Night:
    """Everything the planner was given, on one grid."""

    stays: tuple[Stay, ...]
    cells: tuple[tuple[int, int], ...]
    taken_kw: tuple[float, ...]
    cheap_ms: tuple[int, ...]
    """Cheap time from the start of each cell to the end of the grid."""
    is_dear: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        slots: Sequence[Slot],
        *,
        now_ms: int,
        grid_ms: int,
        taken: Sequence[Load],
        expensive: Sequence[tuple[int, int]],
    ) -> Night:
        """Cut the slots at now and lay the grid over them."""
        stays = tuple(_stay(slot, now_ms) for slot in slots)
        cells = _cells(stays, grid_ms)
        dear = tuple(any(a < to and b > at for a, b in expensive) for at, to in cells)
        cheap_ms = [0] * (len(cells) + 1)
        for i in range(len(cells) - 1, -1, -1):
            at, to = cells[i]
            cheap_ms[i] = cheap_ms[i + 1] + (0 if dear[i] else to - at)
        return cls(
            stays=stays,
            cells=cells,
            taken_kw=_taken(cells, taken),
            cheap_ms=tuple(cheap_ms),
            is_dear=dear,
        )

    def most_patient_first(self) -> list[str]:
        """Ids of the schedules that may pause, with most slack first."""
        able = [stay for stay in self.stays if stay.slot.can_pause]
        able.sort(key=_spare_ms, reverse=True)
        return [stay.slot.schedule_id for stay in able]

    def charging_ms(self, stay: Stay, cell: int, at_ms: int, *, avoids: bool) -> float:
        """Time left until its deadline, less the dear hours when it avoids them."""
        if not avoids:
            return stay.deadline_ms - at_ms
        last = bisect_left(self.cells, (stay.deadline_ms, 0))
        cheap_ms = self.cheap_ms[cell] - self.cheap_ms[last]
        return min(cheap_ms, stay.deadline_ms - at_ms)


def _spare_ms(stay: Stay) -> float:
    slot = stay.slot
    hours = stay.battery.hours_to(slot.start_soc, slot.target_soc, slot.max_power_kw)
    return stay.deadline_ms - stay.start_ms - hours * HOUR_MS


def _stay(slot: Slot, now_ms: int) -> Stay:
    start_ms = max(round(slot.arrival.timestamp() * 1000), now_ms)
    end_ms = max(round(slot.departure.timestamp() * 1000), start_ms)
    deadline_ms = max(start_ms, end_ms - round(slot.margin_s * 1000))
    return Stay(slot, slot.battery(), start_ms, deadline_ms, end_ms)


def _cells(stays: tuple[Stay, ...], grid_ms: int) -> tuple[tuple[int, int], ...]:
    """Cells of the grid in which somebody is present."""
    starts: set[int] = set()
    for stay in stays:
        if stay.end_ms > stay.start_ms:
            first = stay.start_ms // grid_ms
            starts.update(range(first, -(-stay.end_ms // grid_ms)))
    return tuple((i * grid_ms, (i + 1) * grid_ms) for i in sorted(starts))


def _taken(cells: tuple[tuple[int, int], ...], loads: Sequence[Load]) -> tuple[float, ...]:
    """Highest sum of the fixed loads within each cell."""
    peaks = []
    for at_ms, to_ms in cells:
        inside = [x for x in loads if x.from_ms < to_ms and x.to_ms > at_ms]
        moments = {max(at_ms, load.from_ms) for load in inside}
        sums = (
            sum(x.power_kw for x in inside if x.from_ms <= moment < x.to_ms)
            for moment in moments
        )
        peaks.append(max(sums, default=0.0))
    return tuple(peaks)
