"""A station as its owner's auditor: it repeats until it is answered, and keeps a ledger.

Raw OCPP 1.6 over websockets, no code of the agent. What was acknowledged is written
down; what was sent and not answered is sent again after a reconnect, as stations do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Audited:
    """One vehicle plugged in at one station, charging all the time."""

    name: str
    register_wh: int = 1000
    transaction_ids: set[int] = field(default_factory=set)
    acknowledged_wh: int = 1000
    acknowledged: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _start_at: str = ""

    async def serve(self, url: str) -> None:
        """Connect, plug in or go on, and send meter values until the link breaks."""
        try:
            async with connect(
                f"{url}/{self.name}",
                subprotocols=[websockets.Subprotocol("ocpp1.6")],
                compression=None,
                proxy=None,
                open_timeout=10,
            ) as link:
                await self._live(link)
        except (OSError, websockets.WebSocketException, EOFError):
            return

    async def _live(self, link: ClientConnection) -> None:
        if not self._start_at:
            boot = {"chargePointVendor": "Ledger", "chargePointModel": "L-1"}
            await self._call(link, "BootNotification", boot)
            await self._status(link, "Preparing")
            self._start_at = _stamp()
        if not self.transaction_ids:
            await self._start(link)
        while True:
            wanted_wh = self.register_wh + 1  # repeated as it is until it is answered
            sample = {"value": str(wanted_wh), "measurand": "Energy.Active.Import.Register"}
            await self._call(
                link,
                "MeterValues",
                {
                    "connectorId": 1,
                    "transactionId": min(self.transaction_ids),
                    "meterValue": [{"timestamp": _stamp(), "sampledValue": [sample]}],
                },
            )
            self.register_wh = wanted_wh
            self.acknowledged_wh = wanted_wh
            self.acknowledged += 1

    async def repeat_start(self, url: str) -> None:
        """Send the same StartTransaction again, as after a lost answer."""
        async with connect(
            f"{url}/{self.name}",
            subprotocols=[websockets.Subprotocol("ocpp1.6")],
            compression=None,
            proxy=None,
        ) as link:
            await self._start(link)

    async def _start(self, link: ClientConnection) -> None:
        body = {
            "connectorId": 1,
            "idTag": f"TAG-{self.name}",
            "meterStart": 1000,
            "timestamp": self._start_at,
        }
        answer = await self._call(link, "StartTransaction", body)
        self.transaction_ids.add(int(answer["transactionId"]))

    async def _status(self, link: ClientConnection, status: str) -> None:
        body = {"connectorId": 1, "errorCode": "NoError", "status": status}
        await self._call(link, "StatusNotification", body)

    async def _call(self, link: ClientConnection, action: str, body: Json) -> Json:
        """Send a CALL and wait for its answer, obeying what comes meanwhile."""
        message_id = f"{self.name}-{next(self._ids)}"
        await link.send(json.dumps([2, message_id, action, body]))
        async with asyncio.timeout(20):
            while True:
                frame = json.loads(await link.recv())
                if frame[0] == 2:
                    await link.send(json.dumps([3, frame[1], _obey(frame[2])]))
                elif frame[1] == message_id:
                    assert frame[0] == 3, f"{action} was answered with {frame}"
                    answer: Json = frame[2]
                    return answer


def _obey(action: str) -> Json:
    if action == "GetConfiguration":
        return {"configurationKey": [], "unknownKey": []}
    return {"status": "Accepted"}
