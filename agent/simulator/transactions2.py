"""When a 2.x transaction begins, what it reports, and when it ends.

A visit is followed from the plug or the authorisation on; TxStartPoint says at which of
its facts it becomes a transaction, TxStopPoint the loss of which fact ends it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.core2 import Visit, evse_of
from agent.simulator.metering import ENERGY
from agent.simulator.metering2 import reading2
from agent.simulator.outbox2 import Owed2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from agent.simulator.core2 import Core2
    from agent.simulator.hardware import Outlet
    from agent.simulator.outbox2 import Outbox2, Statuses2

    OnInvalid = Callable[[Outlet, Visit], None]

PARKED, PLUGGED, AUTHORIZED = "ParkingBayOccupancy", "EVConnected", "Authorized"
CLOSED, FLOWING = "PowerPathClosed", "EnergyTransfer"
LATE_END_S = 5.0  # simulated, with the fault available-before-stop
SUSPENDED = ("SuspendedEV", "SuspendedEVSE")


class Transactions2:
    """The transactions of one station and the events that tell of them."""

    def __init__(self, core: Core2, outbox: Outbox2, statuses: Statuses2) -> None:
        """Owe events to `outbox`."""
        self._core = core
        self._outbox = outbox
        self._statuses = statuses
        self.on_invalid: OnInvalid | None = None

    def open(self, outlet: Outlet) -> Visit:
        """Find the visit at an outlet, or begin to follow one."""
        visit = self._core.visit(outlet)
        if visit is None:
            visit = Visit(
                id_token="",
                start=self._core.now(),
                meter_offset_wh=int(outlet.energy_wh),
                is_plugged=outlet.vehicle is not None,
                is_parked=outlet.vehicle is not None,
            )
            outlet.transaction = visit
        return visit

    def tell(self, outlet: Outlet, trigger: str) -> None:
        """Take note that a fact has come true: begin if it is time, else report it."""
        visit = self._core.visit(outlet)
        if visit is None:
            return
        if visit.is_begun:
            self.update(outlet, visit, trigger)
        elif self._facts(outlet, visit) & self._points("TxStartPoint"):
            self._begin(outlet, visit, trigger)
        self._statuses.refresh(outlet)

    def lose(self, outlet: Outlet, lost: set[str], trigger: str, reason: str) -> bool:
        """Take note that facts are no longer true; say whether that ended the visit."""
        visit = self._core.visit(outlet)
        if visit is None:
            return True
        visit.stop_reason = visit.stop_reason or reason
        if not visit.is_begun:
            is_over = not visit.is_plugged and not visit.is_authorized
            if is_over:
                self._close(outlet, visit)
            return is_over
        if lost & self._points("TxStopPoint"):
            self.end(outlet, trigger, reason)
            return True
        self.update(outlet, visit, trigger)
        return False

    def end(self, outlet: Outlet, trigger: str, reason: str) -> None:
        """End the outlet's transaction, if it has one; without one, forget the visit."""
        core = self._core
        core.advance()
        visit = core.visit(outlet)
        if visit is None:
            return
        if not visit.is_begun:
            self._close(outlet, visit)
            return
        visit.stop_reason = visit.stop_reason or reason
        visit.is_token_due = visit.is_authorized and visit.token is not None
        closing = self._reading(outlet, "Transaction.End", "TxEndedMeasurands")
        readings = [each for each in (visit.begin_reading, closing) if each is not None]
        outlet.switch_off()
        visit.is_energised = False
        info = {"stoppedReason": visit.stop_reason}
        payload = self._event(outlet, visit, "Ended", trigger, readings, **info)
        self._close(outlet, visit)
        core.advance()
        owed = Owed2(payload=payload)
        if "available-before-stop" in core.faults and outlet.status == "Available":
            core.spawn(lambda: self._owe_late(owed))
        else:
            self._outbox.add(owed)
        if visit.is_plugged or outlet.vehicle is None:  # else the plug is on its way out
            self._statuses.refresh(outlet)

    def update(
        self,
        outlet: Outlet,
        visit: Visit,
        trigger: str,
        reading: dict[str, Any] | None = None,
    ) -> None:
        """Owe an Updated event; an answer that refuses the token is acted upon."""
        has_token = visit.is_token_due
        readings = [] if reading is None else [reading]
        payload = self._event(outlet, visit, "Updated", trigger, readings)
        self._outbox.add(Owed2(payload=payload, on_answer=self._judge(outlet, visit)))
        if has_token and visit.profile_due is not None:
            self._install_due(outlet, visit)

    def follow(self, outlet: Outlet) -> None:
        """Look at an outlet after time passed: its state, its meter, its end."""
        visit = self._core.visit(outlet)
        if visit is None:
            return
        if not visit.is_begun:
            if FLOWING in self._facts(outlet, visit):
                self.tell(outlet, "ChargingStateChanged")
            return
        before, now = visit.state, charging_state(outlet, visit)
        if now != before:
            if before == "Charging" and now in SUSPENDED:
                reason = "StoppedByEV" if now == "SuspendedEV" else "Other"
                if FLOWING in self._points("TxStopPoint"):
                    self.end(outlet, "ChargingStateChanged", reason)
                    return
            self.update(outlet, visit, "ChargingStateChanged")
        self._send_due_reading(outlet, visit)

    def send_reading(self, outlet: Outlet, context: str, trigger: str) -> None:
        """Owe an Updated event with the sampled values, if a transaction runs."""
        visit = self._core.visit(outlet)
        if visit is None or not visit.is_begun:
            return
        reading = self._reading(outlet, context, "TxUpdatedMeasurands")
        visit.readings += 1
        self.update(outlet, visit, trigger, reading)

    def send_aligned(self, outlet: Outlet, context: str) -> None:
        """Send a MeterValues with the aligned measurands."""
        names = self._core.listed("AlignedDataCtrlr.Measurands")
        value = reading2(outlet, names, context, self._core.now(), self._core.faults)
        if value is None:
            return
        payload = {"evseId": outlet.connector, "meterValue": [value]}
        self._core.spawn(lambda: self._core.say("MeterValues", payload))
        if "connector-zero-meter-values" in self._core.faults:
            other = {**payload, "evseId": 0}
            self._core.spawn(lambda: self._core.say("MeterValues", other))

    def _begin(self, outlet: Outlet, visit: Visit, trigger: str) -> None:
        core = self._core
        core.advance()
        visit.transaction_id = core.new_id()
        visit.is_answered = True
        visit.start = core.now()
        visit.meter_offset_wh = int(outlet.energy_wh)
        visit.began_offline = not core.is_online
        visit.next_meter = self._next_meter(visit.start)
        visit.begin_reading = self._reading(
            outlet, "Transaction.Begin", "TxStartedMeasurands"
        )
        readings = [] if visit.begin_reading is None else [visit.begin_reading]
        payload = self._event(outlet, visit, "Started", trigger, readings)
        self._outbox.add(Owed2(payload=payload, on_answer=self._judge(outlet, visit)))
        self._install_due(outlet, visit)
        core.pulse()

    def _close(self, outlet: Outlet, visit: Visit) -> None:
        visit.is_over = True
        visit.is_energised = False
        outlet.switch_off()
        outlet.transaction = None
        if visit.is_begun:
            self._core.store.end_transaction(outlet.connector)
        self._core.pulse()

    def _install_due(self, outlet: Outlet, visit: Visit) -> None:
        """Install the profile that came with the request to start."""
        core, body = self._core, visit.profile_due
        visit.profile_due = None
        if body is None:
            return
        named = {**body, "transactionId": visit.transaction_id}
        verdict = core.store.set_profile(core.outside(outlet.connector), named, core.now())
        core.note("own", "START PROFILE", verdict.status, verdict.text)

    def _event(
        self,
        outlet: Outlet,
        visit: Visit,
        kind: str,
        trigger: str,
        readings: list[dict[str, Any]],
        **info: str,
    ) -> dict[str, Any]:
        core = self._core
        visit.state = charging_state(outlet, visit)
        transaction: dict[str, Any] = {
            "transactionId": visit.transaction_id,
            "chargingState": visit.state,
            **info,
        }
        if visit.is_remote_due and visit.remote_start_id is not None:
            transaction["remoteStartId"] = visit.remote_start_id
            visit.is_remote_due = False
        event: dict[str, Any] = {
            "eventType": kind,
            "timestamp": stamp(core.now()),
            "triggerReason": trigger,
            "seqNo": 0 if "repeat-seq-no" in core.faults else visit.seq_no,
            "transactionInfo": transaction,
        }
        visit.seq_no += 1
        if not core.is_online:
            event["offline"] = True
        if visit.is_plugged and not visit.is_evse_told:
            event["evse"] = evse_of(outlet)
            visit.is_evse_told = True
        if visit.is_token_due and visit.token is not None:
            event["idToken"] = visit.token
            visit.is_token_due = False
        if readings:
            event["meterValue"] = readings
        return event

    def _judge(self, outlet: Outlet, visit: Visit) -> Callable[[dict[str, Any]], None]:
        def look(answer: dict[str, Any]) -> None:
            found = answer.get("idTokenInfo")
            is_good = not isinstance(found, dict) or found.get("status") == "Accepted"
            if not is_good and outlet.transaction is visit and self.on_invalid is not None:
                self.on_invalid(outlet, visit)

        return look

    def _facts(self, outlet: Outlet, visit: Visit) -> set[str]:
        facts = {
            PARKED: visit.is_parked,
            PLUGGED: visit.is_plugged,
            AUTHORIZED: visit.is_authorized,
            CLOSED: visit.is_energised,
            FLOWING: charging_state(outlet, visit) == "Charging",
        }
        return {name for name, is_true in facts.items() if is_true}

    def _points(self, name: str) -> set[str]:
        return set(self._core.listed(f"TxCtrlr.{name}"))

    def _reading(self, outlet: Outlet, context: str, which: str) -> dict[str, Any] | None:
        core = self._core
        names = core.listed(f"SampledDataCtrlr.{which}")
        if which != "TxUpdatedMeasurands" and ENERGY not in names:
            names = [ENERGY, *names]
        return reading2(outlet, names, context, core.now(), core.faults)

    def _send_due_reading(self, outlet: Outlet, visit: Visit) -> None:
        now = self._core.now()
        if visit.next_meter is None:
            visit.next_meter = self._next_meter(now)
        elif now >= visit.next_meter:
            visit.next_meter = self._next_meter(visit.next_meter)
            self.send_reading(outlet, "Sample.Periodic", "MeterValuePeriodic")

    def _next_meter(self, after: datetime) -> datetime | None:
        """Find the first sampling time that lies ahead, counted from `after`."""
        interval_s = self._core.whole("SampledDataCtrlr.TxUpdatedInterval")
        if interval_s <= 0:
            return None
        behind_s = max(0.0, (self._core.now() - after).total_seconds())
        return after + timedelta(seconds=interval_s * (behind_s // interval_s + 1))

    async def _owe_late(self, owed: Owed2) -> None:
        await self._core.clock.sleep(LATE_END_S)
        self._outbox.add(owed)


def charging_state(outlet: Outlet, visit: Visit) -> str:
    """Name the chargingState of a visit."""
    vehicle = outlet.vehicle
    if vehicle is None or not visit.is_plugged:
        return "Idle"
    if not visit.is_energised:
        return "EVConnected"
    if outlet.offered_w <= 0:
        return "SuspendedEVSE"
    return "Charging" if vehicle.accepts(outlet.offered_w) else "SuspendedEV"
