"""Faults in what happens at the plug: vehicles that differ, outlets that lock."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from agent.simulator.core import Core
    from agent.simulator.hardware import Outlet
    from agent.simulator.vehicle import VirtualVehicle

DRAWN_SHARE = 0.4  # of its power, with draws-less
ONE_MAC = "0001C0ABCDEF"
MAKER_DIGITS = 6  # of a MAC; the rest changes with mac-rotates
PATIENCE_S = 60.0  # simulated, with draws-first-or-never
TOGGLE_MIN = timedelta(minutes=1)  # with toggling-faults
PREPARING_S = 60.0  # simulated, with preparing-times-out


class VehicleFaults:
    """The faults of one station at its plugs."""

    def __init__(self, core: Core) -> None:
        """Act on a station."""
        self._core = core
        self._weakened: set[int] = set()
        self._locked: set[int] = set()
        self._off_since: dict[int, datetime] = {}

    def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Change a vehicle that is about to be plugged in."""
        faults = self._core.faults
        if "vehicle-sleeps" in faults:
            vehicle.can_resume = False
        if "draws-less" in faults and id(vehicle) not in self._weakened:
            self._weakened.add(id(vehicle))
            vehicle.max_w *= DRAWN_SHARE
        if "mac-rotates" in faults:
            digits = self._core.spoiler.memory.chance.randrange(1 << 24)
            vehicle.mac = f"{vehicle.mac[:MAKER_DIGITS]}{digits:06X}"
        if "one-mac" in faults:
            vehicle.mac = ONE_MAC
        if "draws-first-or-never" in faults:
            self._core.spawn(lambda: self._give_up(connector, vehicle))
        if "preparing-times-out" in faults:
            self._core.spawn(lambda: self._time_out(connector, vehicle))

    def unplug(self, connector: int) -> None:
        """Lock an outlet whose plug is about to be pulled, if that is its fault."""
        self._core.spent.pop(connector, None)
        outlet = self._core.outlets[connector]
        if "zero-then-unplug-locks" in self._core.faults and outlet.limit_w == 0:
            self._locked.add(connector)
            outlet.is_operative = False

    def tick(self) -> None:
        """Look at every vehicle; one whose power returns too soon fails."""
        if "toggling-faults" not in self._core.faults:
            return
        now = self._core.clock.now()
        for connector, outlet in self._core.outlets.items():
            off_since = self._off_since.get(connector)
            if outlet.vehicle is None or outlet.power_w <= 0:
                self._off_since.setdefault(connector, now)
            elif off_since is not None:
                del self._off_since[connector]
                is_first = outlet.energy_wh <= 0
                if not is_first and now - off_since < TOGGLE_MIN:
                    outlet.vehicle.stop()

    def unlocked(self) -> list[Outlet]:
        """Unlock the outlets whose limit is no longer 0, and list them."""
        core = self._core
        found = []
        for connector in sorted(self._locked):
            outlet = core.outlets[connector]
            if core.outlet_limit_w(outlet, core.clock.now()) != 0:
                self._locked.discard(connector)
                outlet.is_operative = True
                found.append(outlet)
        return found

    async def _give_up(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle to sleep that was not given power soon."""
        before_wh = self._core.outlets[connector].energy_wh
        await self._core.clock.sleep(PATIENCE_S)
        outlet = self._core.outlets[connector]
        self._core.advance()
        if outlet.vehicle is vehicle and outlet.energy_wh <= before_wh:
            vehicle.is_asleep = True

    async def _time_out(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Forget a plug from which no session has come."""
        await self._core.clock.sleep(PREPARING_S)
        outlet = self._core.outlets[connector]
        if outlet.vehicle is vehicle and not outlet.is_live:
            self._core.extras.say_status(connector, "Available")
