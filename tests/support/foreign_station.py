"""A foreign OCPP 1.6J station for tests: raw JSON over websockets, its own limit maths."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

import websockets
from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]


def stamp(at: datetime | None = None) -> str:
    return (
        (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


class ForeignStation:
    """Sends what a test says; records and answers what the central system sends."""

    def __init__(self, url: str, *, keys: dict[str, str] | None = None) -> None:
        self.url = url
        self.keys = {
            "NumberOfConnectors": "1",
            "ChargeProfileMaxStackLevel": "5",
            "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargingScheduleMaxPeriods": "100",
            "MeterValuesSampledData": "Energy.Active.Import.Register",
        } | (keys or {})
        self.received: list[tuple[float, str, Json]] = []
        self.answers: dict[str, Callable[[Json], Json | None]] = {}
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self, **options: Any) -> None:
        self._socket = await connect(
            self.url,
            subprotocols=[websockets.Subprotocol("ocpp1.6")],
            compression=None,
            proxy=None,
            **options,
        )
        self._reader = asyncio.create_task(self._read(self._socket))

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=5)

    async def send(self, action: str, payload: Json, timeout_s: float = 10) -> Any:
        """Send a CALL; the payload of the answer, or ["error", code, description]."""
        message_id = f"m{next(self._ids)}"
        future = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = future
        await self.raw(json.dumps([2, message_id, action, payload]))
        async with asyncio.timeout(timeout_s):
            return await future

    async def raw(self, text: str | bytes) -> None:
        assert self._socket is not None
        await self._socket.send(text)

    async def boot(self, **extra: Any) -> Json:
        payload = {"chargePointVendor": "Foreign", "chargePointModel": "F-1"} | extra
        answer = await self.send("BootNotification", payload)
        assert isinstance(answer, dict)
        return answer

    async def status(self, status: str, connector: int = 1) -> None:
        await self.send(
            "StatusNotification",
            {
                "connectorId": connector,
                "errorCode": "NoError",
                "status": status,
                "timestamp": stamp(),
            },
        )

    async def start(self, tag: str, meter_wh: int = 1000, at: str | None = None) -> int:
        answer = await self.send(
            "StartTransaction",
            {
                "connectorId": 1,
                "idTag": tag,
                "meterStart": meter_wh,
                "timestamp": at or stamp(),
            },
        )
        return int(answer["transactionId"])

    async def meter(self, transaction_id: int, register_wh: float, **more: float) -> None:
        names = {"power_w": "Power.Active.Import", "soc": "SoC"}
        samples: list[Json] = [{"value": f"{register_wh:.0f}"}]
        samples += [
            {"value": f"{value}", "measurand": names[name]} for name, value in more.items()
        ]
        await self.send(
            "MeterValues",
            {
                "connectorId": 1,
                "transactionId": transaction_id,
                "meterValue": [{"timestamp": stamp(), "sampledValue": samples}],
            },
        )

    async def stop(
        self, transaction_id: int, register_wh: int, reason: str | None = None
    ) -> Json:
        payload: Json = {
            "transactionId": transaction_id,
            "meterStop": register_wh,
            "timestamp": stamp(),
        }
        if reason is not None:
            payload["reason"] = reason
        answer = await self.send("StopTransaction", payload)
        assert isinstance(answer, dict)
        return answer

    def profiles(self, purpose: str) -> list[Json]:
        """Profiles of a purpose, in order of arrival, with their connector."""
        return [
            payload["csChargingProfiles"] | {"connectorId": payload["connectorId"]}
            for _, action, payload in self.received
            if action == "SetChargingProfile"
            and payload["csChargingProfiles"]["chargingProfilePurpose"] == purpose
        ]

    async def wait_for(self, what: Callable[[], Any], timeout_s: float = 10) -> Any:
        """Wait until a condition holds for what was received."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(what)
        return what()

    async def _read(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for text in socket:
                frame = json.loads(text)
                if frame[0] == 2:
                    self.received.append((loop.time(), frame[2], frame[3]))
                    answer = self._answer(frame[2], frame[3])
                    if answer is not None:
                        await socket.send(json.dumps([3, frame[1], answer]))
                else:
                    future = self._waiting.pop(frame[1], None)
                    if future is not None and not future.done():
                        future.set_result(
                            frame[2] if frame[0] == 3 else ["error", *frame[2:4]]
                        )
                async with self._news:
                    self._news.notify_all()
        except websockets.ConnectionClosed:
            pass

    def _answer(self, action: str, payload: Json) -> Json | None:
        if action in self.answers:
            return self.answers[action](payload)
        if action == "GetConfiguration":
            wanted = payload.get("key") or list(self.keys)
            return {
                "configurationKey": [
                    {"key": key, "readonly": False, "value": self.keys[key]}
                    for key in wanted
                    if key in self.keys
                ],
                "unknownKey": [key for key in wanted if key not in self.keys],
            }
        if action == "ChangeConfiguration":
            self.keys[payload["key"]] = payload["value"]
        return {"status": "Accepted"}


def limit_at(profile: Json, at: datetime) -> float:
    """The limit of an Absolute profile at a time, in its own unit."""
    schedule = profile["chargingSchedule"]
    start = datetime.fromisoformat(schedule["startSchedule"].replace("Z", "+00:00"))
    passed_s = (at - start).total_seconds()
    assert passed_s >= 0, "the profile is not in force yet"
    assert "duration" not in schedule
    limits = [
        item["limit"]
        for item in schedule["chargingSchedulePeriod"]
        if item["startPeriod"] <= passed_s
    ]
    return float(limits[-1])
