"""Messages that a faulty station sends besides: foreign stops, late readings, statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from agent.simulator.clock import stamp
from agent.simulator.rpc import CallError, LinkDown, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from agent.simulator.clock import SimClock
    from agent.simulator.rpc import Rpc
    from agent.simulator.station_config import StationConfig

POWER = "Power.Active.Import"
NTH_READING = 3  # after which false-unplug says Available
STICKY_READINGS = 5
STICKY_EACH_S = 60.0  # simulated
FOREIGN_ID = "not-of-this-station"
PLACES_MAX = 1_000  # transactions whose outlet is remembered


class Speaker(Protocol):
    """What is needed of the middle of a station."""

    config: StationConfig
    faults: frozenset[str]
    clock: SimClock
    rpc: Rpc | None

    def now(self) -> datetime:
        """Tell the station's own idea of the time."""
        ...

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        """Have a job run by the station's task group."""
        ...

    def note(self, direction: str, kind: str, action: str, payload: Any) -> None:
        """Write a line into the ledger."""
        ...


class Extras:
    """Looks at each call that was answered, and adds to it."""

    def __init__(self, core: Speaker) -> None:
        """Speak for a station."""
        self._core = core
        self._places: dict[Any, int] = {}
        self._power_w = 0.0
        self._readings = 0

    def after(self, action: str, payload: dict[str, Any], answer: dict[str, Any]) -> None:
        """Add what the faults want to a call that was answered."""
        if not self._core.faults:
            return
        event = payload.get("eventType")
        info = payload.get("transactionInfo", {})
        self._keep_power(payload)
        if action == "StartTransaction":
            self._started(answer.get("transactionId"), payload["connectorId"])
        elif event == "Started":
            self._started(info["transactionId"], payload.get("evse", {}).get("id", 1))
        elif action == "StopTransaction":
            self._ended(payload["transactionId"], payload)
        elif event == "Ended":
            self._ended(info["transactionId"], payload)
        elif payload.get("meterValue"):
            place = payload.get("connectorId", payload.get("evseId"))
            self._read(place or self._places.get(info.get("transactionId"), 1))

    def say_status(self, connector: int, status: str) -> None:
        """Report a status of an outlet, whatever it is."""
        payload: dict[str, Any] = {"timestamp": stamp(self._core.now())}
        if self._core.config.is_2x:
            payload |= {"evseId": connector, "connectorId": 1, "connectorStatus": status}
        else:
            payload |= {"connectorId": connector, "status": status, "errorCode": "NoError"}
        self._say("StatusNotification", payload)

    def _started(self, transaction_id: Any, connector: int) -> None:
        if len(self._places) >= PLACES_MAX:
            self._places.clear()
        self._places[transaction_id] = connector
        if "foreign-stop" not in self._core.faults:
            return
        if self._core.config.is_2x:
            self._say("TransactionEvent", self._event("Ended", FOREIGN_ID, 7))
            return
        number = transaction_id if isinstance(transaction_id, int) else 1
        stop = {"transactionId": max(1, number - 1), "meterStop": 1, "reason": "Local"}
        self._say("StopTransaction", stop | {"timestamp": stamp(self._core.now())})

    def _ended(self, transaction_id: Any, payload: dict[str, Any]) -> None:
        core = self._core
        connector = self._places.pop(transaction_id, 1)
        if "reading-after-stop" in core.faults:
            self._say_closing(transaction_id, connector, payload)
        if "available-after-stop" in core.faults:
            self.say_status(connector, "Available")
        if "power-sticks" in core.faults:
            power_w = self._power_w
            core.spawn(lambda: self._stick(connector, power_w))

    def _read(self, connector: int) -> None:
        if "false-unplug" in self._core.faults:
            self._readings += 1
            if self._readings % NTH_READING == 0:
                self.say_status(connector, "Available")

    def _say_closing(
        self, transaction_id: Any, connector: int, payload: dict[str, Any]
    ) -> None:
        if self._core.config.is_2x:
            event = self._event("Updated", transaction_id, payload["seqNo"] + 1)
            self._say("TransactionEvent", event | {"meterValue": [self._reading(0.0)]})
            return
        sample = {"value": str(payload["meterStop"]), "unit": "Wh"}
        reading = {"timestamp": stamp(self._core.now()), "sampledValue": [sample]}
        about = {"connectorId": connector, "transactionId": transaction_id}
        self._say("MeterValues", about | {"meterValue": [reading]})

    async def _stick(self, connector: int, power_w: float) -> None:
        name = "evseId" if self._core.config.is_2x else "connectorId"
        for _ in range(STICKY_READINGS):
            await self._core.clock.sleep(STICKY_EACH_S)
            values = {name: connector, "meterValue": [self._reading(power_w)]}
            self._say("MeterValues", values)

    def _reading(self, power_w: float) -> dict[str, Any]:
        sample: dict[str, Any] = {"measurand": POWER, "context": "Sample.Periodic"}
        if self._core.config.is_2x:
            sample |= {"value": power_w, "unitOfMeasure": {"unit": "W"}}
        else:
            sample |= {"value": f"{power_w:.0f}", "unit": "W"}
        return {"timestamp": stamp(self._core.now()), "sampledValue": [sample]}

    def _event(self, kind: str, transaction_id: Any, seq_no: int) -> dict[str, Any]:
        info = {"transactionId": transaction_id, "chargingState": "Idle"}
        if kind == "Ended":
            info["stoppedReason"] = "Local"
        return {
            "eventType": kind,
            "timestamp": stamp(self._core.now()),
            "triggerReason": "StopAuthorized" if kind == "Ended" else "MeterValuePeriodic",
            "seqNo": seq_no,
            "transactionInfo": info,
        }

    def _keep_power(self, payload: dict[str, Any]) -> None:
        for reading in payload.get("meterValue", []):
            for sample in reading["sampledValue"]:
                if sample.get("measurand") == POWER and float(sample["value"]) > 0:
                    self._power_w = float(sample["value"])

    def _say(self, action: str, payload: dict[str, Any]) -> None:
        self._core.spawn(lambda: self._tell(action, payload))

    async def _tell(self, action: str, payload: dict[str, Any]) -> None:
        """Call past the core, so that what is added adds nothing more."""
        rpc = self._core.rpc
        if rpc is None:
            return
        try:
            await rpc.call(action, payload)
        except (CallError, NoAnswer, LinkDown) as problem:
            self._core.note("out", "UNHEARD", action, str(problem))
