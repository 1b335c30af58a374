"""Plugging, identifying, charging and stopping on a virtual OCPP 1.6 station."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson

from agent.simulator.clock import stamp
from agent.simulator.hardware import UNANSWERED, Transaction
from agent.simulator.metering import ENERGY, register_wh
from agent.simulator.metering16 import reading
from agent.simulator.outbox16 import Owed
from agent.simulator.rpc import CallError, LinkDown, NoAnswer
from agent.simulator.station_config import FAULTY_CARD, RFID_PREFIX, id_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.simulator.core16 import Core16
    from agent.simulator.hardware import Outlet
    from agent.simulator.outbox16 import Outbox16, Statuses16
    from agent.simulator.vehicle import VirtualVehicle

CARD_AFTER_S = 30.0  # simulated, with the fault card-after-mac
LATE_STOP_S = 5.0  # simulated, with the fault available-before-stop


class Sessions16:
    """What happens at the outlets of one station."""

    def __init__(self, core: Core16, outbox: Outbox16, statuses: Statuses16) -> None:
        """Act on `core`, owing messages to `outbox` and news to `statuses`."""
        self._core = core
        self._outbox = outbox
        self._statuses = statuses
        self._remote: dict[int, tuple[str, Mapping[str, Any] | None]] = {}

    def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle's plug in; identification follows."""
        outlet = self._core.outlets[connector]
        if outlet.vehicle is not None:
            raise ValueError(f"connector {connector} holds {outlet.vehicle.name}")
        self._core.advance()
        vehicle.replug()
        outlet.vehicle = vehicle
        self._core.note("own", "PLUG", vehicle.name, connector)
        self._statuses.set(outlet, "Preparing")
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
        """Pull the plug; a running transaction ends with EVDisconnected."""
        outlet = self._core.outlets[connector]
        self._core.advance()
        vehicle = outlet.vehicle
        if vehicle is None:
            return None
        self._core.note("own", "UNPLUG", vehicle.name, connector)
        self._remote.pop(connector, None)
        if "available-before-stop" in self._core.faults:
            self._statuses.set(outlet, "Available")
        self.stop(outlet, "EVDisconnected")
        outlet.vehicle = None
        if outlet.status in ("Available", "Preparing"):
            self.release(outlet)
        else:
            self._core.spawn(lambda: self._finish(outlet))
        return vehicle

    def release(self, outlet: Outlet) -> None:
        """Show what an outlet without a vehicle is: Available, or out of service."""
        if outlet.vehicle is None:
            free = "Available" if outlet.reservation_id is None else "Reserved"
            self._statuses.set(outlet, free if outlet.is_operative else "Unavailable")

    async def remote_start(
        self, outlet: Outlet, token: str, profile: Mapping[str, Any] | None
    ) -> None:
        """Start as asked; without a plug, wait for one until ConnectionTimeOut."""
        self._remote[outlet.connector] = (token, profile)
        if outlet.vehicle is None:
            await self._core.clock.sleep(self._core.whole("ConnectionTimeOut"))
            self._remote.pop(outlet.connector, None)
            return
        self._remote.pop(outlet.connector, None)
        is_checked = (
            self._core.is_on("AuthorizeRemoteTxRequests")
            or "authorize-remote" in self._core.faults
        )
        if not is_checked or await self._is_authorized(token):
            await self.start(outlet, token, profile)

    async def start(
        self, outlet: Outlet, token: str, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Begin a transaction, offline too; energy flows once the answer is there."""
        core = self._core
        if outlet.transaction is not None or outlet.vehicle is None:
            return
        core.advance()
        transaction = Transaction(
            id_token=token,
            start=core.now(),
            meter_offset_wh=int(outlet.energy_wh),
            began_offline=not core.is_online,
        )
        outlet.transaction = transaction
        transaction.begin_reading = self._reading(outlet, "Transaction.Begin")
        payload = {
            "connectorId": outlet.connector,
            "idTag": token,
            "meterStart": register_wh(outlet, core.faults),
            "timestamp": stamp(transaction.start),
        }
        self._outbox.add(
            Owed(
                action="StartTransaction",
                payload=payload,
                transaction=transaction,
                on_answer=lambda answer: self._started(
                    outlet, transaction, answer, profile
                ),
            )
        )
        await core.wait_for(lambda: transaction.is_answered or not core.is_online)
        self._energise(outlet, transaction)

    def stop(self, outlet: Outlet, reason: str) -> None:
        """End the outlet's transaction, if it has one."""
        core = self._core
        core.advance()
        transaction = outlet.transaction
        if transaction is None:
            return
        end = self._reading(outlet, "Transaction.End")
        payload = {
            "meterStop": register_wh(outlet, core.faults),
            "timestamp": stamp(core.now()),
            "reason": reason,
            "idTag": transaction.id_token,
            "transactionData": [transaction.begin_reading, end],
        }
        outlet.switch_off()
        outlet.transaction = None
        core.profiles.end_transaction(outlet.connector)
        core.advance()
        owed = Owed(action="StopTransaction", payload=payload, transaction=transaction)
        if "available-before-stop" in core.faults and outlet.status == "Available":
            core.spawn(lambda: self._owe_late(owed))
            return
        self._outbox.add(owed)
        self._statuses.set(outlet, "Finishing")

    def pause(self, outlet: Outlet) -> None:
        """Open the contactor of a transaction that will be resumed."""
        self._core.advance()
        if outlet.transaction is not None:
            outlet.transaction.is_energised = False
        outlet.switch_off()

    def resume(self, outlet: Outlet) -> None:
        """Go on with a transaction after a restart."""
        if outlet.transaction is not None:
            self._energise(outlet, outlet.transaction)

    def tick(self) -> None:
        """Look at every outlet after time passed or a limit changed."""
        self._core.advance()
        for outlet in self._core.outlets.values():
            if outlet.transaction is None or not outlet.is_live:
                continue
            if "zero-ends-transaction" in self._core.faults and outlet.limit_w == 0:
                self.stop(outlet, "Other")
                continue
            self._statuses.set(outlet, _charging_status(outlet))
            self._send_due_reading(outlet, outlet.transaction)

    def send_reading(self, outlet: Outlet, context: str) -> None:
        """Owe a MeterValues, of the transaction if one runs."""
        core = self._core
        value = self._reading(outlet, context, "MeterValuesSampledData")
        payload = {"connectorId": outlet.connector, "meterValue": [value]}
        if not value["sampledValue"]:
            return
        if outlet.transaction is None:
            core.spawn(lambda: core.say("MeterValues", payload))
            return
        outlet.transaction.readings += 1
        self._outbox.add(
            Owed(action="MeterValues", payload=payload, transaction=outlet.transaction)
        )
        if "connector-zero-meter-values" in core.faults:
            core.spawn(lambda: core.say("MeterValues", {**payload, "connectorId": 0}))

    async def _identify(self, outlet: Outlet, vehicle: VirtualVehicle) -> None:
        config = self._core.config
        await self._core.clock.sleep(config.identification_s)
        remote, profile = self._remote.pop(outlet.connector, (None, None))
        token = remote or id_token(config.id_form, vehicle.mac)
        if token is None or outlet.vehicle is not vehicle or not outlet.is_operative:
            return
        is_welcome = remote is not None or await self._is_authorized(token)
        if not is_welcome and "card-after-mac" in self._core.faults:
            await self._core.clock.sleep(CARD_AFTER_S)
            token = FAULTY_CARD.removeprefix(RFID_PREFIX)
            is_welcome = await self._is_authorized(token)
        if is_welcome and outlet.vehicle is vehicle:
            await self.start(outlet, token, profile)

    async def _is_authorized(self, token: str) -> bool:
        core = self._core
        if "free-mode" in core.faults:
            return True
        if not core.is_online:
            is_refused = "refuse-offline" in core.faults
            return core.is_on("AllowOfflineTxForUnknownId") and not is_refused
        try:
            answer = await core.call("Authorize", {"idTag": token})
        except (CallError, NoAnswer, LinkDown):
            return core.is_on("AllowOfflineTxForUnknownId")
        return _is_welcome(answer)

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

    def _started(
        self,
        outlet: Outlet,
        transaction: Transaction,
        answer: dict[str, Any],
        profile: Mapping[str, Any] | None,
    ) -> None:
        core = self._core
        given = answer.get("transactionId")
        transaction.transaction_id = given if isinstance(given, int) else UNANSWERED
        transaction.is_answered = True
        if outlet.transaction is not transaction:
            return
        if profile is not None:
            body = {**profile, "transactionId": transaction.transaction_id}
            core.profiles.set_profile(
                outlet.connector, body, core.now(), transaction.transaction_id
            )
        if not _is_welcome(answer) and core.is_on("StopTransactionOnInvalidId"):
            self.stop(outlet, "DeAuthorized")

    def _energise(self, outlet: Outlet, transaction: Transaction) -> None:
        if outlet.transaction is not transaction:
            return
        self._core.advance()
        transaction.is_energised = True
        transaction.next_meter = self._next_meter(transaction.start)
        self.tick()

    def _send_due_reading(self, outlet: Outlet, transaction: Transaction) -> None:
        now = self._core.now()
        if transaction.next_meter is None:
            transaction.next_meter = self._next_meter(now)
        elif now >= transaction.next_meter:
            transaction.next_meter = self._next_meter(transaction.next_meter)
            self.send_reading(outlet, "Sample.Periodic")

    def _next_meter(self, after: datetime) -> datetime | None:
        """Find the first sampling time that lies ahead, counted from `after`."""
        interval_s = self._core.whole("MeterValueSampleInterval")
        if interval_s <= 0:
            return None
        behind_s = max(0.0, (self._core.now() - after).total_seconds())
        return after + timedelta(seconds=interval_s * (behind_s // interval_s + 1))

    def _reading(
        self, outlet: Outlet, context: str, key: str = "StopTxnSampledData"
    ) -> dict[str, Any]:
        core = self._core
        names = core.listed(key)
        if key == "StopTxnSampledData" and ENERGY not in names:
            names = [ENERGY, *names]
        return reading(outlet, names, context, core.now(), core.faults)

    async def _finish(self, outlet: Outlet) -> None:
        await self._core.clock.sleep(self._core.config.finishing_s)
        self.release(outlet)

    async def _owe_late(self, owed: Owed) -> None:
        await self._core.clock.sleep(LATE_STOP_S)
        self._outbox.add(owed)


def _is_welcome(answer: dict[str, Any]) -> bool:
    tag = answer.get("idTagInfo")
    return isinstance(tag, dict) and tag.get("status") == "Accepted"


def _charging_status(outlet: Outlet) -> str:
    if outlet.offered_w <= 0:
        return "SuspendedEVSE"
    vehicle = outlet.vehicle
    if vehicle is None or not vehicle.accepts(outlet.offered_w):
        return "SuspendedEV"
    return "Charging"
