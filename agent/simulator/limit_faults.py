"""Faults in how a station obeys the limits that its charging profiles mean."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from agent.simulator.profile_rules import VOLTS

if TYPE_CHECKING:
    from datetime import datetime

    from agent.simulator.hardware import Outlet

SPIKE = timedelta(seconds=10)  # of full power at each new profile
FLOOR_W = 1_000.0
FLOOR_A = 6.0
STEPS_A = (0.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 25.0, 32.0)
STEP_ABOVE_A = 10.0  # between the steps above the last one


class LimitFaults:
    """What one station makes of its limits, and what it remembers for that."""

    def __init__(self, faults: frozenset[str]) -> None:
        """Obey as `faults` order."""
        self._faults = faults
        self._spike_until: datetime | None = None
        self._was_zero: set[int] = set()

    def spike(self, now: datetime) -> None:
        """Take note of a new profile at a (true) time."""
        if "spike-on-replace" in self._faults:
            self._spike_until = now + SPIKE

    def edges(self) -> set[datetime]:
        """List the (true) times at which a fault changes a limit by itself."""
        return set() if self._spike_until is None else {self._spike_until}

    def obeyed_w(
        self, outlet: Outlet, limit_w: float | None, now: datetime, *, is_online: bool
    ) -> float | None:
        """Tell what limit the outlet obeys where `limit_w` is meant; None is none."""
        faults = self._faults
        if "full-power-offline" in faults and not is_online:
            return None
        if self._spike_until is not None and now < self._spike_until:
            return None
        if limit_w is not None:
            limit_w = self._rounded_w(outlet, limit_w)
        if faults & {"forget-limit-after-zero", "stays-suspended"}:
            return self._after_zero(outlet, limit_w)
        return limit_w

    def _rounded_w(self, outlet: Outlet, limit_w: float) -> float:
        ampere_w = VOLTS * outlet.phases
        if "floor-1-kw" in self._faults and limit_w < FLOOR_W:
            return 0.0
        if "floor-6-a" in self._faults and 0 < limit_w < FLOOR_A * ampere_w:
            return FLOOR_A * ampere_w
        if "coarse-steps" in self._faults:
            return _step_a(limit_w / ampere_w) * ampere_w
        return limit_w

    def _after_zero(self, outlet: Outlet, limit_w: float | None) -> float | None:
        if outlet.transaction is None:
            self._was_zero.discard(outlet.connector)
            return limit_w
        if limit_w == 0:
            self._was_zero.add(outlet.connector)
        if limit_w == 0 or outlet.connector not in self._was_zero:
            return limit_w
        return 0.0 if "stays-suspended" in self._faults else None


def _step_a(amperes: float) -> float:
    """Find the highest step in A that is not above."""
    last = STEPS_A[-1]
    if amperes >= last:
        return last + math.floor((amperes - last) / STEP_ABOVE_A) * STEP_ABOVE_A
    return max(each for each in STEPS_A if each <= amperes)
