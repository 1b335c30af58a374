"""A central system for many stations of any version that takes whatever they send."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.typing import Subprotocol

ACCEPTED = {"status": "Accepted"}
TIME = "2026-11-21T00:00:00Z"


class PatientCentral:
    """Answers every call it can read with consent; remembers all, by station."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self.texts: dict[str, list[str | bytes]] = defaultdict(list)
        self.sockets: dict[str, ServerConnection] = {}
        self.time = TIME
        self._transactions = 0
        self._pulse = asyncio.Event()

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        name = unquote([each for each in socket.request.path.split("/") if each][-1])
        self.requests[name].append(socket.request)
        self.sockets[name] = socket
        self._tell()
        with suppress(ConnectionClosed):
            async for text in socket:
                self.texts[name].append(text)
                with suppress(ValueError, LookupError, TypeError):
                    await self._take(socket, orjson.loads(text))
                self._tell()
        self._tell()

    def frames(self, name: str, kind: int = 2) -> list[list[Any]]:
        """Give the frames of one kind that could be read."""
        found = []
        for text in self.texts[name]:
            with suppress(ValueError, LookupError, TypeError):
                frame = orjson.loads(text)
                if isinstance(frame, list) and frame[0] == kind:
                    found.append(frame)
        return found

    def of(self, name: str, action: str) -> list[Any]:
        """Give the payloads of one action."""
        return [each[3] for each in self.frames(name) if each[2] == action]

    async def until(self, predicate: Callable[[], object], timeout_s: float = 5) -> None:
        """Wait; real seconds."""
        async with asyncio.timeout(timeout_s):
            while not predicate():
                await self._pulse.wait()

    async def tell(self, name: str, action: str, payload: Any) -> str:
        """Send a call without waiting for its answer; return its message id."""
        unique_id = f"c{len(self.texts[name])}{action}"
        with suppress(ConnectionClosed, KeyError):
            frame = orjson.dumps([2, unique_id, action, payload]).decode()
            await self.sockets[name].send(frame)
        return unique_id

    async def ask(self, name: str, action: str, payload: Any) -> Any:
        """Send a call and return the payload of its answer, or the code of its error."""
        unique_id = await self.tell(name, action, payload)

        def answers() -> list[Any]:
            found = [*self.frames(name, 3), *self.frames(name, 4)]
            return [each[2] for each in found if each[1] == unique_id]

        await self.until(answers)
        return answers()[0]

    async def _take(self, socket: ServerConnection, frame: Any) -> None:
        if frame[0] != 2:
            return
        answer = orjson.dumps([3, frame[1], self._reply(frame[2])])
        with suppress(ConnectionClosed):
            await socket.send(answer.decode())

    def _reply(self, action: str) -> dict[str, Any]:
        match action:
            case "BootNotification":
                return {**ACCEPTED, "interval": 300, "currentTime": self.time}
            case "StartTransaction":
                self._transactions += 1
                return {"transactionId": self._transactions, "idTagInfo": ACCEPTED}
            case "Authorize" | "TransactionEvent":
                return {"idTagInfo": ACCEPTED, "idTokenInfo": ACCEPTED}
            case "Heartbeat":
                return {"currentTime": self.time}
            case "NotifyEVChargingNeeds" | "DataTransfer":
                return ACCEPTED
            case _:
                return {}

    def _tell(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()


@asynccontextmanager
async def a_patient_central() -> AsyncIterator[PatientCentral]:
    """Run one on a free port."""
    central = PatientCentral()
    async with serve(
        central.serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(f"ocpp{each}") for each in ("1.6", "2.0.1", "2.1")],
        select_subprotocol=_first,
        compression=None,
        close_timeout=0.2,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        central.url = f"ws://127.0.0.1:{port}/ocpp"
        yield central


def _first(_socket: ServerConnection, offered: Any) -> Subprotocol | None:
    return offered[0] if offered else None
