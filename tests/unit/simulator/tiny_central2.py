"""A central system of a few lines for 2.x stations, which checks every frame's schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent.simulator.schemas2 import breaches
from tests.unit.simulator.tiny_central import TinyCentral, served


class TinyCentral2(TinyCentral):
    """Answers everything with consent; remembers events, and what broke a schema."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.unsound: list[Any] = []
        self.streamed: list[Any] = []
        self._asked: dict[str, str] = {}

    @property
    def events(self) -> list[Any]:
        """All TransactionEvents so far."""
        return self.of("TransactionEvent")

    def told(self) -> list[tuple[str, str]]:
        """Type and trigger of each event but the periodic readings."""
        return [
            (each["eventType"], each["triggerReason"])
            for each in self.events
            if each["triggerReason"] != "MeterValuePeriodic"
        ]

    def has(self, kind: str) -> bool:
        """Whether an event of this type came."""
        return any(each["eventType"] == kind for each in self.events)

    def states(self) -> list[str]:
        """The charging states, each once in a row."""
        found: list[str] = []
        for each in self.events:
            state = each["transactionInfo"]["chargingState"]
            if found[-1:] != [state]:
                found.append(state)
        return found

    def statuses(self, connector: int = 1) -> list[str]:
        return [
            each["connectorStatus"]
            for each in self.of("StatusNotification")
            if each["evseId"] == connector
        ]

    async def call(self, action: str, payload: Any) -> list[Any]:
        self._asked[f"c{self._count + 1}"] = action
        return await super().call(action, payload)

    async def ask(self, action: str, payload: Any) -> Any:
        """Return the payload of a CALLRESULT, or code and text of a CALLERROR."""
        frame = await self.call(action, payload)
        return frame[2] if frame[0] == 3 else (frame[2], frame[3])

    def look(self, frame: list[Any]) -> None:
        if frame[0] == 6:
            self.streamed.append(frame[3])
            self._check(frame[2], frame[3])
        elif frame[0] == 2:
            self._check(f"{frame[2]}Request", frame[3])
        elif frame[0] == 3:
            self._check(f"{self._asked[frame[1]]}Response", frame[2])

    def _check(self, name: str, payload: Any) -> None:
        found = list(breaches(self.version, name, payload))
        if found:
            self.unsound.append((name, found, payload))

    def _reply(self, action: str, payload: Any) -> Any:
        if action in self.replies:
            return self.replies[action](payload)
        match action:
            case "BootNotification":
                return {
                    "status": "Accepted",
                    "interval": 300,
                    "currentTime": "2026-11-21T00:00:00Z",
                }
            case "TransactionEvent" if "idToken" in payload:
                return {"idTokenInfo": {"status": "Accepted"}}
            case "Authorize":
                return {"idTokenInfo": {"status": "Accepted"}}
            case "Heartbeat":
                return {"currentTime": "2026-11-21T00:00:00Z"}
            case "NotifyEVChargingNeeds" | "NotifyEVChargingSchedule" | "DataTransfer":
                return {"status": "Accepted"}
            case _:
                return {}


@asynccontextmanager
async def a_central2(version: str = "2.0.1") -> AsyncIterator[TinyCentral2]:
    """Run one on a free port; at the end all frames must have been sound."""
    central = TinyCentral2(version)
    async with served(central, f"ocpp{version}", compression="deflate"):
        yield central
    assert central.unsound == []
