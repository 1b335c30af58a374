"""What a vehicle can draw at a given SoC, and how long charging takes.

Above 80 % the power falls in a straight line to 10 % of its maximum at 100 %.
Powers in kW at the plug (DC), SoC in percent, times in hours. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KNEE_SOC = 80.0
"""Where the taper begins; ChargEye's usual `bulkSoC` (chargeye.md 6.3)."""
SLOPE = 0.045
"""Share of the maximum lost per percent above the knee: 0.9 over 20 points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """The charging curve of one vehicle."""

    capacity_kwh: float
    max_kw: float
    efficiency: float = 1.0

    def percent_per_kwh(self) -> float:
        """SoC gained by one kWh at the plug."""
        return 100.0 * self.efficiency / self.capacity_kwh

    def limit_kw(self, soc: float) -> float:
        """Most the vehicle draws at this very SoC."""
        return self.max_kw * (1.0 - SLOPE * max(0.0, min(soc, 100.0) - KNEE_SOC))

    def steady_kw(self, soc: float, hours: float) -> float:
        """Most that can be drawn without change for `hours` from `soc` on.

        The SoC rises meanwhile, so the limit at the end decides.
        """
        gain = self.percent_per_kwh() * hours
        slope = SLOPE * self.max_kw
        steady = (self.max_kw + slope * (KNEE_SOC - soc)) / (1.0 + slope * gain)
        return min(self.max_kw, max(steady, 0.0))

    def hours_to(self, soc: float, target: float, power_kw: float) -> float:
        """Hours from `soc` to `target` when offered `power_kw` all the time."""
        if target <= soc:
            return 0.0
        if power_kw <= 0:
            return math.inf
        power = min(power_kw, self.max_kw)
        bend = KNEE_SOC + (1.0 - power / self.max_kw) / SLOPE
        per_kwh = self.percent_per_kwh()
        flat = max(0.0, min(target, bend) - soc) / (per_kwh * power)
        start = max(soc, bend)
        if target <= start:
            return flat
        fall = math.log(self.limit_kw(start) / self.limit_kw(target))
        return flat + fall / (per_kwh * SLOPE * self.max_kw)

    def flat_kw(self, soc: float, target: float, hours: float) -> float:
        """Smallest constant offer that reaches `target` within `hours`."""
        if self.hours_to(soc, target, self.max_kw) >= hours:
            return self.max_kw
        low, high = 0.0, self.max_kw
        for _ in range(18):  # 18 halvings: finer than 1 W on any vehicle
            middle = (low + high) / 2
            if self.hours_to(soc, target, middle) <= hours:
                high = middle
            else:
                low = middle
        return high
