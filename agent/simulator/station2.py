"""A virtual OCPP 2.0.1 or 2.1 charging station.

Only this module and those ending in 2 know these versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulator.calls2 import Calls2
from agent.simulator.core2 import Core2
from agent.simulator.link2 import Link2
from agent.simulator.outbox2 import Outbox2, Statuses2
from agent.simulator.sessions2 import Sessions2
from agent.simulator.station import VirtualStation

if TYPE_CHECKING:
    from agent.simulator.clock import SimClock
    from agent.simulator.profiles2 import ProfileStore2
    from agent.simulator.station_config import StationConfig

STOP_REASONS = ("ImmediateReset", "PowerLoss", "Reboot")
PERSISTENCE = "SmartChargingCtrlr.ChargingProfilePersistence[TxProfile]"


class VirtualStation2(VirtualStation):
    """One 2.x station. `run` it in a task; the rest may be called meanwhile or before."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station; nothing happens until `run`."""
        self._core = Core2(config, clock)
        self._outbox = Outbox2(self._core)
        self._statuses = Statuses2(self._core)
        self._sessions = Sessions2(self._core, self._outbox, self._statuses)
        calls = Calls2(
            self._core, self._sessions, self._statuses, self._outbox, self._on_reset
        )
        self._link = Link2(self._core, calls, self._statuses)
        super().__init__(
            self._core, self._link, self._sessions, self._outbox, self._statuses
        )

    @property
    def profiles(self) -> ProfileStore2:
        """The charging profiles that are installed."""
        return self._core.store

    async def stream(self) -> None:
        """Send the station's power as a periodic event stream (2.1)."""
        await self._sessions.send_stream()

    def _before_restart(self, reason: str) -> None:
        core = self._core
        is_asked = reason == "ImmediateReset"
        for outlet in self.outlets.values():
            if self._resumes() and outlet.transaction_id is not None:
                self._pause(outlet.connector)
                continue
            self._sessions.transactions.end(
                outlet,
                "ResetCommand" if is_asked else "AbnormalCondition",
                reason if reason in STOP_REASONS else "Reboot",
            )
        core.vehicle_ids.clear()
        core.registration = ""
        core.device.take_staged()

    def _after_restart(self) -> None:
        for outlet in self.outlets.values():
            if self._core.visit(outlet) is not None and outlet.vehicle is not None:
                self._core.vehicle_ids[outlet.connector] = outlet.vehicle.mac
                self._sessions.resume(outlet)
            elif outlet.vehicle is not None:
                visit = self._sessions.transactions.open(outlet)
                visit.is_parked = visit.is_plugged = True
                self._sessions.transactions.tell(outlet, "CablePluggedIn")
                self._sessions.identify(outlet)
            self._sessions.release(outlet)

    def _pause(self, evse: int) -> None:
        """Open the power path of a transaction that will be resumed."""
        core, outlet = self._core, self.outlets[evse]
        core.advance()
        visit = core.visit(outlet)
        if visit is not None:
            visit.is_energised = False
        outlet.switch_off()
        if not core.is_on(PERSISTENCE):
            core.store.end_transaction(evse)

    def _resumes(self) -> bool:
        core = self._core
        return core.version == "2.1" and (
            core.whole("TxCtrlr.ResumptionTimeout") > core.config.restart_s
        )

    def _meter_interval_s(self) -> int:
        return self._core.whole("SampledDataCtrlr.TxUpdatedInterval")

    def _on_reset(self, kind: str, evse: int | None) -> None:
        self._core.spawn(lambda: self._reset(kind, evse))

    async def _reset(self, kind: str, evse: int | None) -> None:
        core = self._core
        chosen = [each for number, each in self.outlets.items() if evse in (None, number)]
        if kind == "OnIdle":
            await core.wait_for(lambda: not any(each.transaction_id for each in chosen))
        if evse is not None:
            self._sessions.transactions.end(chosen[0], "ResetCommand", "ImmediateReset")
            return
        self._link.boot_reason = "ScheduledReset" if kind == "OnIdle" else "RemoteReset"
        if kind == "Immediate" and not self._resumes():
            self._before_restart("ImmediateReset")
        await self._flush()
        await self.reboot("ImmediateReset")
