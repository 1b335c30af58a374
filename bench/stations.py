"""Raw stations for load: no library in the way, one outstanding call each.

Each sends its next message from the very callback that brought the last answer. Calls of
the server are answered at once with what lets it go on.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

DRAWN_W = 18_000.0
"""Below the 20 kW that an unmatched vehicle gets, so that the limit is kept."""
SETUP_S = 60.0
OP_TEXT, OP_CLOSE, OP_PING, OP_PONG = 1, 8, 9, 10
MASK = bytes(4)
"""A mask of zeros is legal; the server's work of unmasking is the same."""


def _sample_16(value: bytes, measurand: bytes, place: bytes, unit: bytes) -> bytes:
    return (
        b'{"value":"%s","context":"Sample.Periodic","format":"Raw","measurand":"%s",%s,'
        b'"unit":"%s"}' % (value, measurand, place, unit)
    )


def _phase(phase: bytes) -> bytes:
    return b'"phase":"%s","location":"Inlet"' % phase


def _sample_201(value: bytes, measurand: bytes, place: bytes, unit: bytes) -> bytes:
    return (
        b'{"value":%s,"context":"Sample.Periodic","measurand":"%s",%s,'
        b'"unitOfMeasure":{"unit":"%s"}}' % (value, measurand, place, unit)
    )


OUTLET, EV = b'"location":"Outlet"', b'"location":"EV"'
MEASURED = (
    (b"%.1f", b"Energy.Active.Import.Register", OUTLET, b"Wh"),
    (b"%.1f", b"Power.Active.Import", OUTLET, b"W"),
    (b"%.1f", b"SoC", EV, b"Percent"),
    (b"20000", b"Power.Offered", OUTLET, b"W"),
    (b"230.1", b"Voltage", _phase(b"L1-N"), b"V"),
    (b"230.4", b"Voltage", _phase(b"L2-N"), b"V"),
    (b"229.8", b"Voltage", _phase(b"L3-N"), b"V"),
    (b"26.1", b"Current.Import", _phase(b"L1"), b"A"),
    (b"26.0", b"Current.Import", _phase(b"L2"), b"A"),
    (b"26.2", b"Current.Import", _phase(b"L3"), b"A"),
)
"""Ten sampled values; the first three are filled in for each message."""
METER_VALUES = (
    b'[2,"%d","MeterValues",{"connectorId":1,"transactionId":%d,"meterValue":'
    b'[{"timestamp":"%s.%03dZ","sampledValue":['
    + b",".join(_sample_16(*item) for item in MEASURED)
    + b"]}]}]"
)
TRANSACTION_EVENT = (
    b'[2,"%d","TransactionEvent",{"eventType":"Updated","timestamp":"%s.%03dZ",'
    b'"triggerReason":"MeterValuePeriodic","seqNo":%d,"transactionInfo":'
    b'{"transactionId":"%s","chargingState":"Charging"},"meterValue":'
    b'[{"timestamp":"%s.%03dZ","sampledValue":['
    + b",".join(_sample_201(*item) for item in MEASURED)
    + b"]}]}]"
)

ANSWERS: dict[str, dict[str, Any]] = {
    "GetConfiguration": {
        "configurationKey": [
            {"key": "NumberOfConnectors", "readonly": True, "value": "1"},
            {"key": "ChargeProfileMaxStackLevel", "readonly": True, "value": "10"},
            {
                "key": "ChargingScheduleAllowedChargingRateUnit",
                "readonly": True,
                "value": "Power",
            },
        ]
    },
    "ChangeConfiguration": {"status": "Accepted"},
    "SetChargingProfile": {"status": "Accepted"},
    "ClearChargingProfile": {"status": "Accepted"},
    "TriggerMessage": {"status": "Accepted"},
    "GetBaseReport": {"status": "EmptyResultSet"},
    "GetReport": {"status": "EmptyResultSet"},
    "GetChargingProfiles": {"status": "NoProfiles"},
    "GetTransactionStatus": {"messagesInQueue": False, "ongoingIndicator": True},
}
"""What a station answers to calls of the server; anything else gets an empty object."""


def _answer(action: str, payload: dict[str, Any]) -> dict[str, Any]:
    if action == "GetVariables":
        asked, told = "getVariableData", {"attributeStatus": "UnknownVariable"}
    elif action == "SetVariables":
        asked, told = "setVariableData", {"attributeStatus": "Accepted"}
    else:
        return ANSWERS.get(action, {})
    found = [
        told | {"component": item["component"], "variable": item["variable"]}
        for item in payload[asked]
    ]
    return {asked.replace("Data", "Result"): found}


@dataclass(slots=True)
class Tally:
    """What one fleet counted; ``latencies_s`` since the last reset.

    ``stored`` counts answers to messages that the server has to keep.
    """

    answered: int = 0
    stored: int = 0
    errors: int = 0
    called_at: float = 0.0
    latencies_s: list[float] = field(default_factory=list)


class Station(asyncio.Protocol):
    """One station on one TCP connection; a subclass speaks a version."""

    subprotocol: ClassVar[str]
    measured: ClassVar[str]
    """The action that carries meter values; a server has to keep it."""

    def __init__(self, name: str, tally: Tally) -> None:
        """Prepare; ``plug_in`` talks."""
        self._name = name
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[Any] | None = None
        self._next: Callable[[], bytes] | None = None
        self._is_waiting = False
        self._is_closing = False
        self._is_measured = False
        self._sent_at = 0.0
        self._count = 0
        self._second = 0
        self._second_text = b""
        self._since = time.time()

    # --- set-up -------------------------------------------------------------------

    async def plug_in(self, port: int) -> None:
        """Connect, then have a transaction running."""
        assert self._transport is not None
        key = base64.b64encode(self._name.encode().ljust(16)[:16]).decode()
        self._transport.write(
            f"GET /ocpp/{self._name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n\r\n".encode()
        )
        await self._opened
        await self._start()
        self._since = time.time()

    async def _start(self) -> None:
        """Boot, plug, authorise, start a transaction."""
        raise NotImplementedError

    def _update(self) -> bytes:
        """Write the next message with meter values."""
        raise NotImplementedError

    async def _call(self, action: str, payload: dict[str, Any]) -> Any:
        self._answer = asyncio.get_running_loop().create_future()
        self._count += 1
        self._send(json.dumps([2, str(self._count), action, payload]).encode())
        async with asyncio.timeout(SETUP_S):
            return await self._answer

    # --- load ---------------------------------------------------------------------

    def pump(self, action: str | None) -> None:
        """Send one action as fast as answers come; None stops after the next answer."""
        makers = {self.measured: self._update, "Heartbeat": self._heartbeat}
        self._next = makers[action] if action is not None else None
        if self._next is not None and not self._is_waiting:
            self._is_measured = action == self.measured
            self._send_next(self._next)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is still outstanding."""
        return self._is_waiting

    def _send_next(self, make: Callable[[], bytes]) -> None:
        self._count += 1
        self._is_waiting = True
        text = make()
        self._sent_at = time.perf_counter()
        self._send(text)

    def _measure(self) -> tuple[int, tuple[float, float, float]]:
        """Milliseconds of now, with the second's text renewed; Wh, W and percent."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime(
                "%Y-%m-%dT%H:%M:%S", time.gmtime(now)
            ).encode()
        passed_s = now - self._since
        return int((now - second) * 1000), (
            passed_s * DRAWN_W / 3600,
            DRAWN_W + self._count % 100,
            min(20.0 + passed_s / 60, 90.0),
        )

    def _heartbeat(self) -> bytes:
        return b'[2,"%d","Heartbeat",{}]' % self._count

    # --- wire ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that hangs up is an error while something is awaited."""
        error = exc or ConnectionError(f"the server closed the link of {self._name}")
        self._is_waiting = False
        self._tally.errors += not self._is_closing
        for future in (self._opened, self._answer):
            if future is not None and not future.done():
                future.set_exception(error)

    def close(self) -> None:
        """Close the connection."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Cut the stream into frames."""
        buffer = self._buffer
        buffer += data
        if not self._opened.done() and not self._shake_hands():
            return
        while len(buffer) >= 2:
            size, start = buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(buffer[2:10], "big"), 10
            if len(buffer) < start + size:
                return
            opcode, body = buffer[0] & 15, bytes(buffer[start : start + size])
            del buffer[: start + size]
            self._frame(opcode, body)

    def _shake_hands(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        if head.startswith(b"HTTP/1.1 101"):
            self._opened.set_result(None)
            return True
        self._opened.set_exception(ConnectionError(head.decode("latin-1")))
        return False

    def _frame(self, opcode: int, body: bytes) -> None:
        if opcode == OP_TEXT:
            if body.startswith(b"[2"):
                self._answer_call(body)
            elif self._is_waiting:
                self._answered(body)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(json.loads(body)[2])
        elif opcode == OP_PING:
            self._send(body, OP_PONG)
        elif opcode == OP_CLOSE and self._transport is not None:
            self._transport.close()

    def _answered(self, body: bytes) -> None:
        tally = self._tally
        tally.latencies_s.append(time.perf_counter() - self._sent_at)
        tally.answered += 1
        if self._is_measured:
            tally.stored += 1
        if not body.startswith(b'[3,"%d"' % self._count):
            tally.errors += 1
        self._is_waiting = False
        if self._next is not None:
            self._send_next(self._next)

    def _answer_call(self, body: bytes) -> None:
        self._tally.called_at = time.perf_counter()
        _, message_id, action, payload = json.loads(body)
        self._send(json.dumps([3, message_id, _answer(action, payload)]).encode())

    def _send(self, body: bytes, opcode: int = OP_TEXT) -> None:
        assert self._transport is not None
        size = len(body)
        short = min(size, 126)
        head = bytes((0x80 | opcode, 0x80 | short))
        if short == 126:
            head += size.to_bytes(2, "big")
        self._transport.write(head + MASK + body)


class Station16(Station):
    """A station of OCPP 1.6J that sends MeterValues."""

    subprotocol = "ocpp1.6"
    measured = "MeterValues"
    _transaction_id = 0

    async def _start(self) -> None:
        boot = {
            "chargePointVendor": "Bench",
            "chargePointModel": "Raw",
            "firmwareVersion": "1",
        }
        await self._call("BootNotification", boot)
        await self._status("Preparing")
        await self._call("Authorize", {"idTag": "BENCH"})
        started = await self._call(
            "StartTransaction",
            {"connectorId": 1, "idTag": "BENCH", "meterStart": 0, "timestamp": _text_now()},
        )
        self._transaction_id = int(started["transactionId"])
        await self._status("Charging")

    async def _status(self, status: str) -> None:
        payload = {"connectorId": 1, "errorCode": "NoError", "status": status}
        await self._call("StatusNotification", payload)

    def _update(self) -> bytes:
        millis, measured = self._measure()
        second = self._second_text
        return METER_VALUES % (
            self._count,
            self._transaction_id,
            second,
            millis,
            *measured,
        )


class Station201(Station):
    """A station of OCPP 2.0.1 that sends TransactionEvent with a MeterValue."""

    subprotocol = "ocpp2.0.1"
    measured = "TransactionEvent"
    _transaction_id = b""
    _seq_no = 0

    async def _start(self) -> None:
        boot = {
            "reason": "PowerUp",
            "chargingStation": {"vendorName": "Bench", "model": "Raw"},
        }
        await self._call("BootNotification", boot)
        status = {
            "timestamp": _text_now(),
            "connectorStatus": "Occupied",
            "evseId": 1,
            "connectorId": 1,
        }
        await self._call("StatusNotification", status)
        transaction_id = f"{self._name}-{time.time_ns()}"
        self._transaction_id = transaction_id.encode()
        started = {
            "eventType": "Started",
            "timestamp": _text_now(),
            "triggerReason": "Authorized",
            "seqNo": 0,
            "transactionInfo": {
                "transactionId": transaction_id,
                "chargingState": "Charging",
            },
            "evse": {"id": 1, "connectorId": 1},
            "idToken": {"idToken": "BENCH", "type": "Central"},
            "meterValue": [{"timestamp": _text_now(), "sampledValue": [{"value": 0}]}],
        }
        await self._call("TransactionEvent", started)

    def _update(self) -> bytes:
        millis, measured = self._measure()
        second = self._second_text
        self._seq_no += 1
        return TRANSACTION_EVENT % (
            self._count,
            second,
            millis,
            self._seq_no,
            self._transaction_id,
            second,
            millis,
            *measured,
        )


class Fleet:
    """All stations of one server."""

    def __init__(self, kind: type[Station]) -> None:
        """Start empty."""
        self.tally = Tally()
        self._kind = kind
        self._stations: list[Station] = []

    async def plug_in(self, port: int, count: int) -> None:
        """Connect stations ``CP-001`` and on, each with a running transaction."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                station = self._kind(station_id(number), self.tally)
                self._stations.append(station)
                await loop.create_connection(lambda one=station: one, "127.0.0.1", port)  # type: ignore[misc]
                tasks.create_task(station.plug_in(port))

    def pump(self, action: str | None) -> None:
        """Let all stations send one action; None lets them stop."""
        for station in self._stations:
            station.pump(action)

    async def wait_idle(self, within_s: float) -> None:
        """Wait until every station has its last answer."""
        await until(lambda: not any(item.is_waiting for item in self._stations), within_s)

    async def wait_quiet(self, quiet_s: float, within_s: float) -> None:
        """Wait until the server has sent no call for a while."""
        began = time.perf_counter()

        def is_quiet() -> bool:
            return time.perf_counter() - max(self.tally.called_at, began) >= quiet_s

        await until(is_quiet, within_s)

    def close(self) -> None:
        """Hang up."""
        for station in self._stations:
            station.close()


async def until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - another process decides, so poll
            await asyncio.sleep(0.02)


def station_id(number: int) -> str:
    """Name a station."""
    return f"CP-{number + 1:03d}"


def _text_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
