"""A virtual OCPP 1.6J charging station.

Only this module and those ending in 16 know that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulator.calls16 import Calls16
from agent.simulator.core16 import Core16
from agent.simulator.link16 import Link16
from agent.simulator.outbox16 import Outbox16, Statuses16
from agent.simulator.sessions16 import Sessions16
from agent.simulator.station import VirtualStation

if TYPE_CHECKING:
    from agent.simulator.clock import SimClock
    from agent.simulator.profiles import ProfileStore
    from agent.simulator.station_config import StationConfig


class VirtualStation16(VirtualStation):
    """One 1.6 station. `run` it in a task; the rest may be called meanwhile or before."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station; nothing happens until `run`."""
        self._core = Core16(config, clock)
        outbox = Outbox16(self._core)
        self._statuses = Statuses16(self._core)
        self._sessions = Sessions16(self._core, outbox, self._statuses)
        calls = Calls16(self._core, self._sessions, self._statuses, self._on_reset)
        link = Link16(self._core, calls, self._statuses)
        super().__init__(self._core, link, self._sessions, outbox, self._statuses)

    @property
    def profiles(self) -> ProfileStore:
        """The charging profiles that are installed."""
        return self._core.profiles

    def _before_restart(self, reason: str) -> None:
        is_kept = "resume-after-reboot" in self._core.faults
        for outlet in self.outlets.values():
            if is_kept and outlet.transaction_id is not None:
                self._sessions.pause(outlet)
            else:
                self._sessions.stop(outlet, reason)

    def _after_restart(self) -> None:
        for outlet in self.outlets.values():
            if outlet.vehicle is None:
                self._sessions.release(outlet)
            elif outlet.transaction is not None:
                self._sessions.resume(outlet)
            else:
                self._statuses.set(outlet, "Preparing")
                self._sessions.identify(outlet)

    def _meter_interval_s(self) -> int:
        return self._core.whole("MeterValueSampleInterval")

    def _on_reset(self, kind: str) -> None:
        self._core.spawn(lambda: self._reset(kind))

    async def _reset(self, kind: str) -> None:
        if kind == "Hard":
            await self.reboot("HardReset")
            return
        self._before_restart("SoftReset")
        await self._flush()
        await self.reboot("SoftReset")
