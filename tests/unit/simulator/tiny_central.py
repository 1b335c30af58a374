"""A central system of a few lines, to see what a virtual station says and does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


class TinyCentral:
    """Answers everything with consent; remembers every call."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, Any]] = []
        self.answers: list[tuple[str, Any]] = []
        self.replies: dict[str, Callable[[Any], Any]] = {}
        self.garbage: list[str] = []
        self.links = 0
        self.headers: list[str | None] = []
        self._socket: ServerConnection | None = None
        self._transactions = 0
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._count = 0
        self._pulse = asyncio.Event()

    def of(self, action: str) -> list[Any]:
        return [payload for name, payload in self.calls if name == action]

    def statuses(self, connector: int = 1) -> list[str]:
        return [
            each["status"]
            for each in self.of("StatusNotification")
            if each["connectorId"] == connector
        ]

    async def until(self, predicate: Callable[[], bool], timeout_s: float = 5) -> None:
        async with asyncio.timeout(timeout_s):
            while not predicate():
                await self._pulse.wait()

    async def call(self, action: str, payload: Any) -> list[Any]:
        """Return the whole answering frame."""
        self._count += 1
        unique_id = f"c{self._count}"
        future = asyncio.get_running_loop().create_future()
        self._pending[unique_id] = future
        assert self._socket is not None
        await self._socket.send(orjson.dumps([2, unique_id, action, payload]).decode())
        async with asyncio.timeout(5):
            frame: list[Any] = await future
        return frame

    async def serve(self, socket: ServerConnection) -> None:
        self.links += 1
        self._socket = socket
        assert socket.request is not None
        self.headers.append(socket.request.headers.get("Authorization"))
        try:
            async for text in socket:
                await self._take(socket, str(text))
        except ConnectionClosed:
            return
        finally:
            self._tell()

    async def _take(self, socket: ServerConnection, text: str) -> None:
        try:
            frame = orjson.loads(text)
        except ValueError:
            self.garbage.append(text)
            return
        self.look(frame)
        if frame[0] == 2:
            self.calls.append((frame[2], frame[3]))
            reply = self._reply(frame[2], frame[3])
            if isinstance(reply, list):
                await socket.send(orjson.dumps([4, frame[1], *reply]).decode())
            elif reply is not None:
                await socket.send(orjson.dumps([3, frame[1], reply]).decode())
        elif frame[1] in self._pending:
            self._pending.pop(frame[1]).set_result(frame)
        self._tell()

    def look(self, frame: list[Any]) -> None:
        """Look at each frame that comes in."""

    async def send(self, frame: list[Any]) -> None:
        """Send a frame as it is."""
        assert self._socket is not None
        await self._socket.send(orjson.dumps(frame).decode())

    def _tell(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

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
            case "StartTransaction":
                self._transactions += 1
                return {
                    "transactionId": self._transactions,
                    "idTagInfo": {"status": "Accepted"},
                }
            case "Authorize":
                return {"idTagInfo": {"status": "Accepted"}}
            case "Heartbeat":
                return {"currentTime": "2026-11-21T00:00:00Z"}
            case "DataTransfer":
                return {"status": "Accepted"}
            case _:
                return {}


@asynccontextmanager
async def a_central() -> AsyncIterator[TinyCentral]:
    """Run a tiny central system on a free port."""
    central = TinyCentral()
    async with served(central, "ocpp1.6"):
        yield central


@asynccontextmanager
async def served(
    central: TinyCentral, *subprotocols: str, compression: str | None = None
) -> AsyncIterator[None]:
    """Let a central system listen on a free port."""
    async with serve(
        central.serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(each) for each in subprotocols],
        compression=compression,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        central.url = f"ws://127.0.0.1:{port}/ocpp"
        yield
