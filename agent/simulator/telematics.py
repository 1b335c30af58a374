"""A virtual vehicle as its maker's cloud reaches it: what it is, and what it can be told.

Has the shape that a stand-in for a vehicle cloud asks for, without knowing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.simulator.hardware import Outlet
    from agent.simulator.vehicle import VirtualVehicle


@dataclass(frozen=True, slots=True)
class Telematics:
    """The link to one vehicle that comes to one outlet. Percent and W."""

    vehicle: VirtualVehicle
    outlet: Outlet

    @property
    def soc_percent(self) -> float:
        """What is in its battery, whether or not a station is told."""
        return self.vehicle.soc_percent

    @property
    def is_plugged(self) -> bool:
        """Whether the cable of its outlet is in."""
        return self.outlet.vehicle is self.vehicle

    @property
    def power_w(self) -> float:
        """What it draws now."""
        return self.outlet.power_w if self.is_plugged else 0.0

    @property
    def offered_w(self) -> float:
        """What its outlet offers now."""
        return self.outlet.offered_w if self.is_plugged else 0.0

    @property
    def limit_percent(self) -> float:
        """Where it stops by itself."""
        return self.vehicle.limit_percent

    def advance(self, seconds: float) -> None:
        """Do nothing: it lives by its station's clock."""

    def start(self) -> None:
        """Wake it up and let it charge."""
        self.vehicle.start()

    def stop(self) -> None:
        """Let it charge no more until it is started or plugged in again."""
        self.vehicle.stop()

    def set_limit(self, percent: float) -> None:
        """Let it stop at this SoC from now on."""
        self.vehicle.set_limit(percent)
