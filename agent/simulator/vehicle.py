"""A virtual electric vehicle: what it draws of what it is offered, and its battery.

Free of protocol, clock and chance: the same steps give the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

S_PER_HOUR = 3600.0
SOC_FULL_PERCENT = 100.0
TAPER_FROM_PERCENT = 80.0  # where most batteries leave constant power
TAPER_END_SHARE = 0.1  # of the maximum power, just before the battery is full
SLEEP_AFTER_S = 300.0  # buses were seen to give up after about five minutes
SOC_DUST_PERCENT = 1e-9  # closer than this to full is full


@dataclass(slots=True, kw_only=True)
class VirtualVehicle:
    """One vehicle with its battery. Power in W at the outlet, energy in Wh.

    Offered less than `min_w` it draws nothing; if it cannot resume and that lasts
    longer than `sleep_after_s` it sleeps until it is plugged in again, or started by its
    maker's cloud. `soc_target` and `departure` are what it would tell a station by ISO
    15118; with `tells_soc` false no station learns its SoC. At `limit_percent`, which its
    driver or its maker's cloud sets, it stops by itself.
    """

    name: str
    mac: str
    capacity_wh: float
    soc_percent: float
    max_w: float
    min_w: float = 0.0
    can_resume: bool = True
    sleep_after_s: float = SLEEP_AFTER_S
    dc: bool = True
    phases: int = 3
    efficiency: float = 0.96
    ramp_w_per_s: float = 10_000.0
    soc_target: float = SOC_FULL_PERCENT
    departure: datetime | None = None
    limit_percent: float = SOC_FULL_PERCENT
    tells_soc: bool = True
    is_asleep: bool = field(default=False, init=False)
    is_stopped: bool = field(default=False, init=False)
    starved_s: float = field(default=0.0, init=False)
    _power_w: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Refuse a vehicle that could not exist."""
        if self.capacity_wh <= 0 or self.max_w <= 0 or self.ramp_w_per_s <= 0:
            raise ValueError(f"{self.name}: capacity, power and ramp must be positive")
        if not 0 <= self.soc_percent <= SOC_FULL_PERCENT:
            raise ValueError(f"{self.name}: SoC {self.soc_percent} % is not 0 to 100")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"{self.name}: efficiency {self.efficiency} not in (0, 1]")

    @property
    def is_full(self) -> bool:
        """Whether the battery takes no more: it is full, or at the car's limit."""
        return self.soc_percent >= min(self.limit_percent, SOC_FULL_PERCENT)

    @property
    def needed_wh(self) -> float:
        """The energy in Wh at the outlet that brings it to its target."""
        missing = max(0.0, self.soc_target - self.soc_percent)
        return missing / SOC_FULL_PERCENT * self.capacity_wh / self.efficiency

    @property
    def wanted_w(self) -> float:
        """The power in W that it would take now if it were offered without limit."""
        if self.is_asleep or self.is_stopped or self.is_full:
            return 0.0
        beyond = max(0.0, self.soc_percent - TAPER_FROM_PERCENT)
        share = 1.0 - (1.0 - TAPER_END_SHARE) * beyond / (
            SOC_FULL_PERCENT - TAPER_FROM_PERCENT
        )
        return self.max_w * share

    def accepts(self, offered_w: float) -> bool:
        """Whether it would charge when offered so many W."""
        if offered_w <= 0 or offered_w < self.min_w:
            return False
        return not (self.is_asleep or self.is_stopped or self.is_full)

    def replug(self) -> None:
        """Wake it up, as pulling and putting the plug does."""
        self.is_asleep = self.is_stopped = False
        self.starved_s = 0.0
        self._power_w = 0.0

    def start(self) -> None:
        """Wake up and charge again, told by the maker's cloud."""
        self.is_asleep = self.is_stopped = False
        self.starved_s = 0.0

    def stop(self) -> None:
        """Charge no more until it is started or plugged in again."""
        self.is_stopped = True

    def set_limit(self, percent: float) -> None:
        """Stop at this SoC from now on; ValueError when it is not 0 to 100."""
        if not 0 <= percent <= SOC_FULL_PERCENT:
            raise ValueError(f"{self.name}: limit {percent} % is not 0 to 100")
        self.limit_percent = percent

    def pause(self) -> None:
        """Forget the present power: its contactor opened."""
        self._power_w = 0.0

    def step(self, dt_s: float, offered_w: float) -> float:
        """Live through `dt_s` seconds; return the mean power in W drawn in them."""
        if dt_s <= 0:
            return 0.0
        target_w = self._target_w(dt_s, offered_w)
        drawn_w = min(self._ramp(dt_s, target_w), self._room_w(dt_s))
        stored_wh = drawn_w * dt_s / S_PER_HOUR * self.efficiency
        soc = self.soc_percent + stored_wh / self.capacity_wh * SOC_FULL_PERCENT
        top = max(self.soc_percent, min(self.limit_percent, SOC_FULL_PERCENT))
        self.soc_percent = top if soc > top - SOC_DUST_PERCENT else soc
        return drawn_w

    def _target_w(self, dt_s: float, offered_w: float) -> float:
        if offered_w > 0 and offered_w >= self.min_w:
            self.starved_s = 0.0
            return min(offered_w, self.wanted_w)
        self.starved_s += dt_s
        if not self.can_resume and self.starved_s > self.sleep_after_s:
            self.is_asleep = True
        return 0.0

    def _ramp(self, dt_s: float, target_w: float) -> float:
        """Rise at the ramp rate, fall at once; return the mean power in W."""
        from_w = min(self._power_w, target_w)
        rise_s = min(dt_s, (target_w - from_w) / self.ramp_w_per_s)
        reached_w = min(target_w, from_w + self.ramp_w_per_s * rise_s)
        self._power_w = reached_w
        area = (from_w + reached_w) / 2 * rise_s + reached_w * (dt_s - rise_s)
        return min(target_w, area / dt_s)

    def _room_w(self, dt_s: float) -> float:
        """Find the mean power in W that would just reach the limit in `dt_s`."""
        top = min(self.limit_percent, SOC_FULL_PERCENT)
        room_wh = max(0.0, top - self.soc_percent) / 100 * self.capacity_wh
        return room_wh / self.efficiency * S_PER_HOUR / dt_s
