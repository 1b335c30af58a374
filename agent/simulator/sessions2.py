"""Plugging, identifying, charging and stopping on a virtual 2.x station."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson

from agent.simulator.clock import stamp
from agent.simulator.needs2 import Needs2
from agent.simulator.rpc import CallError, LinkDown, NoAnswer
from agent.simulator.station_config import FAULTY_CARD
from agent.simulator.tokens2 import id_token2, needs_authorization
from agent.simulator.transactions2 import (
    AUTHORIZED,
    CLOSED,
    FLOWING,
    PARKED,
    PLUGGED,
    Transactions2,
)

if TYPE_CHECKING:
    from datetime import datetime

    from agent.simulator.core2 import Core2, Visit
    from agent.simulator.hardware import Outlet
    from agent.simulator.outbox2 import Outbox2, Statuses2
    from agent.simulator.vehicle import VirtualVehicle

STREAM_ID = 1
CARD_AFTER_S = 30.0  # simulated, with the fault card-after-mac


class Sessions2:
    """What happens at the outlets of one station."""

    def __init__(self, core: Core2, outbox: Outbox2, statuses: Statuses2) -> None:
        """Act on `core`, owing events to `outbox` and news to `statuses`."""
        self._core = core
        self._statuses = statuses
        self.transactions = Transactions2(core, outbox, statuses)
        self.transactions.on_invalid = self._on_invalid
        self._needs = Needs2(core)
        self._next_aligned: datetime | None = None

    def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle's plug in; identification follows."""
        outlet = self._core.outlets[connector]
        if outlet.vehicle is not None:
            raise ValueError(f"connector {connector} holds {outlet.vehicle.name}")
        self._core.advance()
        vehicle.replug()
        visit = self.transactions.open(outlet)
        outlet.vehicle = vehicle
        self._core.note("own", "PLUG", vehicle.name, connector)
        self._statuses.refresh(outlet)
        visit.stop_reason = ""
        visit.is_parked = True
        if self._has_bay_sensor():
            self.transactions.tell(outlet, "EVDetected")
        visit.is_plugged = True
        self.transactions.tell(outlet, "CablePluggedIn")
        self.identify(outlet)

    def identify(self, outlet: Outlet) -> None:
        """Begin the talk between station and vehicle that ends in a start."""
        vehicle = outlet.vehicle
        if vehicle is None:
            return
        self._core.spawn(lambda: self._identify(outlet, vehicle))
        if self._core.config.late_mac is not None:
            self._core.spawn(lambda: self._send_late_mac(outlet, vehicle))

    def unplug(self, connector: int) -> VirtualVehicle | None:
        """Pull the plug; what ends by that, ends with EVDisconnected."""
        outlet = self._core.outlets[connector]
        self._core.advance()
        vehicle = outlet.vehicle
        if vehicle is None:
            return None
        self._core.note("own", "UNPLUG", vehicle.name, connector)
        self._core.vehicle_ids.pop(connector, None)
        if "available-before-stop" in self._core.faults:
            outlet.status = "Available"
            self._statuses.report(connector)
        visit = self._core.visit(outlet)
        if visit is not None:
            self._leave(outlet, visit)
        outlet.vehicle = None
        self._statuses.refresh(outlet)
        return vehicle

    async def remote_start(
        self,
        outlet: Outlet,
        token: dict[str, Any],
        remote_id: int,
        profile: dict[str, Any] | None,
    ) -> None:
        """Start as asked; without a plug, wait for one until EVConnectionTimeOut."""
        core = self._core
        is_checked = core.is_on("AuthCtrlr.AuthorizeRemoteStart") or (
            "authorize-remote" in core.faults
        )
        if is_checked and not await self._is_authorized(token):
            return
        visit = self.transactions.open(outlet)
        visit.remote_start_id, visit.is_remote_due = remote_id, True
        visit.profile_due = profile
        self._authorize(outlet, visit, token)
        if visit.is_plugged:
            return
        await core.clock.sleep(core.whole("TxCtrlr.EVConnectionTimeOut"))
        if outlet.transaction is visit and not visit.is_plugged:
            visit.is_authorized = False
            lost = {AUTHORIZED, PARKED, PLUGGED, CLOSED}
            self.transactions.lose(outlet, lost, "EVConnectTimeout", "Timeout")

    def deauthorize(self, outlet: Outlet, trigger: str, reason: str) -> None:
        """Take the authorisation back: power ends, and with it perhaps all."""
        self._core.advance()
        visit = self._core.visit(outlet)
        if visit is None:
            return
        visit.is_energised = False
        outlet.switch_off()
        self._core.advance()
        lost = {AUTHORIZED, CLOSED, FLOWING}
        is_over = self.transactions.lose(outlet, lost, trigger, reason)
        if not is_over:
            visit.is_authorized = False
        self._statuses.refresh(outlet)

    def release(self, outlet: Outlet) -> None:
        """Show what an outlet is now."""
        self._statuses.refresh(outlet)

    def tick(self) -> None:
        """Look at every outlet after time passed or a limit changed."""
        core = self._core
        core.advance()
        for outlet in core.outlets.values():
            visit = core.visit(outlet)
            if visit is None:
                continue
            is_paused = outlet.is_live and outlet.limit_w == 0
            if "zero-ends-transaction" in core.faults and is_paused and visit.is_begun:
                self.transactions.end(outlet, "AbnormalCondition", "Other")
                continue
            self.transactions.follow(outlet)
        self._send_aligned_if_due()

    def has_new_profile(self, outlet: Outlet) -> None:
        """Have a vehicle that was told of a new profile tell its new curve."""
        visit = self._core.visit(outlet)
        if visit is not None and visit.needs == "settled":
            self._core.spawn(lambda: self._needs.tell_curve(outlet))

    def resume(self, outlet: Outlet) -> None:
        """Go on with a transaction after a restart (2.1)."""
        visit = self._core.visit(outlet)
        if visit is None:
            return
        self.transactions.update(outlet, visit, "TxResumed")
        self._close_path(outlet, visit)

    def _leave(self, outlet: Outlet, visit: Visit) -> None:
        """Let a vehicle go from its visit."""
        stops = self._core.is_on("TxCtrlr.StopTxOnEVSideDisconnect")
        visit.is_parked = visit.is_plugged = False
        visit.is_energised = False
        outlet.switch_off()
        lost = {PARKED, PLUGGED, CLOSED, FLOWING}
        if stops or not visit.is_begun:
            lost.add(AUTHORIZED)
            visit.is_authorized = visit.is_authorized and visit.is_begun
        points = set(self._core.listed("TxCtrlr.TxStopPoint"))
        only_bay = points & lost == {PARKED}
        trigger = "EVDeparted" if only_bay else "EVCommunicationLost"
        if not self.transactions.lose(outlet, lost, trigger, "EVDisconnected"):
            self._core.spawn(lambda: self._give_up(outlet, visit))

    async def _give_up(self, outlet: Outlet, visit: Visit) -> None:
        """End a transaction whose vehicle does not come back."""
        await self._core.clock.sleep(self._core.whole("TxCtrlr.EVConnectionTimeOut"))
        if outlet.transaction is visit and not visit.is_plugged:
            self.transactions.end(outlet, "EVConnectTimeout", "Timeout")

    async def _identify(self, outlet: Outlet, vehicle: VirtualVehicle) -> None:
        core = self._core
        await core.clock.sleep(core.config.identification_s)
        if outlet.vehicle is not vehicle:
            return
        core.vehicle_ids[outlet.connector] = vehicle.mac
        visit = self.transactions.open(outlet)
        if not visit.is_authorized:
            token = id_token2(core.config.id_form, vehicle.mac, core.version)
            if token is None or not outlet.is_operative:
                return
            is_welcome = await self._is_authorized(token)
            if not is_welcome and "card-after-mac" in core.faults:
                await core.clock.sleep(CARD_AFTER_S)
                token = id_token2(FAULTY_CARD, vehicle.mac, core.version) or token
                is_welcome = await self._is_authorized(token)
            if not is_welcome or outlet.vehicle is not vehicle:
                return
            visit = self.transactions.open(outlet)
            if not visit.is_authorized:
                self._authorize(outlet, visit, token)
        else:
            self._proceed(outlet, visit)

    async def _is_authorized(self, token: dict[str, Any]) -> bool:
        core = self._core
        if not needs_authorization(token) or "free-mode" in core.faults:
            return True
        if not core.is_online:
            is_refused = "refuse-offline" in core.faults
            return core.is_on("AuthCtrlr.OfflineTxForUnknownIdEnabled") and not is_refused
        try:
            answer = await core.call("Authorize", {"idToken": token})
        except (CallError, NoAnswer, LinkDown):
            return core.is_on("AuthCtrlr.OfflineTxForUnknownIdEnabled")
        found = answer.get("idTokenInfo")
        return isinstance(found, dict) and found.get("status") == "Accepted"

    def _authorize(self, outlet: Outlet, visit: Visit, token: dict[str, Any]) -> None:
        visit.is_authorized = True
        visit.stop_reason = ""
        visit.token, visit.is_token_due = token, True
        visit.id_token = str(token["idToken"])
        outlet.reservation_id = None
        trigger = "RemoteStart" if visit.is_remote_due else "Authorized"
        self.transactions.tell(outlet, trigger)
        self._proceed(outlet, visit)

    def _proceed(self, outlet: Outlet, visit: Visit) -> None:
        """Close the power path once the vehicle is there, known and welcome."""
        is_known = outlet.connector in self._core.vehicle_ids
        if not (visit.is_plugged and visit.is_authorized and is_known):
            return
        if visit.is_energised or visit.is_over:
            return
        if self._core.config.iso15118 and not visit.needs and visit.is_begun:
            self._core.spawn(lambda: self._settle(outlet, visit))
        else:
            self._close_path(outlet, visit)

    async def _settle(self, outlet: Outlet, visit: Visit) -> None:
        if visit.needs:
            return
        await self._needs.settle(outlet, visit)
        visit.needs = "settled"
        if visit.is_authorized and outlet.transaction is visit:
            self._close_path(outlet, visit)

    def _close_path(self, outlet: Outlet, visit: Visit) -> None:
        self._core.advance()
        visit.is_energised = True
        visit.closed_at = self._core.now()
        self._core.advance()
        if not visit.is_begun:
            trigger = "RemoteStart" if visit.is_remote_due else "Authorized"
            self.transactions.tell(outlet, trigger)
        self.tick()

    def _on_invalid(self, outlet: Outlet, visit: Visit) -> None:
        """Act on a token that the central system refused when it was told of it."""
        if self._core.is_on("TxCtrlr.StopTxOnInvalidId"):
            self.deauthorize(outlet, "Deauthorized", "DeAuthorized")
            return
        visit.is_energised = False
        outlet.switch_off()
        self.tick()

    async def _send_late_mac(self, outlet: Outlet, vehicle: VirtualVehicle) -> None:
        late = self._core.config.late_mac
        if late is None:
            return
        await self._core.clock.sleep(late.after_s)
        if outlet.vehicle is not vehicle:
            return
        text = {"mac": vehicle.mac, "connectorId": outlet.connector}
        payload = {
            "vendorId": late.vendor_id,
            "messageId": late.message_id,
            "data": orjson.dumps(text).decode(),
        }
        await self._core.say("DataTransfer", payload)

    def _has_bay_sensor(self) -> bool:
        core = self._core
        names = ("TxStartPoint", "TxStopPoint")
        return any(PARKED in core.listed(f"TxCtrlr.{each}") for each in names)

    def _send_aligned_if_due(self) -> None:
        """Send what is due at whole multiples of the interval since midnight."""
        core = self._core
        interval_s = core.whole("AlignedDataCtrlr.Interval")
        now = core.now()
        if interval_s <= 0:
            self._next_aligned = None
            return
        due = self._next_aligned
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        count = int((now - midnight).total_seconds() // interval_s) + 1
        self._next_aligned = midnight + timedelta(seconds=count * interval_s)
        if due is None or now < due:
            return
        for outlet in core.outlets.values():
            if outlet.transaction_id is None:
                self.transactions.send_aligned(outlet, "Sample.Clock")
            else:
                self.transactions.send_reading(outlet, "Sample.Clock", "MeterValueClock")
        if core.config.streams and core.version == "2.1":
            core.spawn(self.send_stream)

    async def send_stream(self) -> None:
        """Send the power of all outlets as a periodic event stream: a SEND (2.1)."""
        core = self._core
        rpc = core.rpc
        if rpc is None:
            return
        power_w = sum(each.power_w for each in core.outlets.values())
        payload = {
            "id": STREAM_ID,
            "pending": 0,
            "basetime": stamp(core.now()),
            "data": [{"t": 0, "v": f"{power_w:.0f}"}],
        }
        try:
            await rpc.send("NotifyPeriodicEventStream", payload)
        except LinkDown:
            core.note("out", "LOST", "NotifyPeriodicEventStream", None)
