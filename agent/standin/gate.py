"""The outermost layer: records every request and plays the ordered faults.

Cutting a connection needs the transport, which `cutting_protocol` puts into the
ASGI scope; without a transport (tests in process) a cut raises `CutError`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.standin.faults import RequestRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent.standin.faults import Fault
    from agent.standin.state import ChargEyeStandin

ABORT = "standin.abort"
CONTROL_PREFIX = "/_control/"
BODY_BYTES_MAX = 8_000_000
"""A plan of a year of quarter hours is 8 MB; no client sends more."""


class CutError(ConnectionResetError):
    """The connection was cut on purpose."""


class CuttingProtocol(H11Protocol):
    """uvicorn's protocol, which lets the app abort its connection."""

    def connection_made(self, transport: Any) -> None:
        """Hand the transport's abort to the app by way of the scope."""
        super().connection_made(transport)
        inner: Any = self.app
        abort: Callable[[], None] = transport.abort

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[ABORT] = {"abort": abort}
            await inner(scope, receive, send)

        self.app = app

    def shutdown(self) -> None:
        """Cut what is still being answered (a slow answer), so that a stop is quick."""
        cycle: Any = self.cycle  # uvicorn hides that it is None before a request
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()


@dataclass(slots=True)
class Answer:
    """A whole answer, caught before it is sent."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def send(self, message: Message) -> None:
        """Take a message in place of the server."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


class FaultGate:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, cloud: ChargEyeStandin) -> None:
        """Wrap `app` with the switches of `cloud`."""
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or spoil it as ordered."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        request = await read_body(receive)
        if self._cloud.unreachable or request is None:
            self._record(scope, request or b"", 0)
            await cut(scope, receive)
            return
        fault = self._cloud.faults.take(scope["method"], unquote(scope["path"]))
        if fault is None:
            answer = await self._answer(scope, request)
            self._record(scope, request, answer.status)
            await send_answer(send, answer, bytes(answer.body))
            return
        await self._spoil(fault, scope, receive, send, request)

    async def _spoil(
        self, fault: Fault, scope: Scope, receive: Receive, send: Send, request: bytes
    ) -> None:
        made = _made_answer(fault)
        if made is not None:
            self._record(scope, request, made.status_code)
            await made(scope, receive, send)
            return
        if fault.kind == "slow":
            await linger(receive, fault.delay_s)
        if fault.kind == "cut":
            self._record(scope, request, 0)
            await cut(scope, receive)
            return
        answer = await self._answer(scope, request)
        is_cut = fault.kind in ("lost-answer", "truncated")
        self._record(scope, request, 0 if is_cut else answer.status)
        if fault.kind == "truncated":
            half = bytes(answer.body[: len(answer.body) // 2])
            await send_answer(send, answer, half, is_last=False)
        if is_cut:
            await cut(scope, receive)
        else:
            await send_answer(send, answer, bytes(answer.body))

    async def _answer(self, scope: Scope, request: bytes) -> Answer:
        answer = Answer()
        messages = iter([{"type": "http.request", "body": request, "more_body": False}])

        async def replay() -> Message:
            return next(messages, {"type": "http.disconnect"})

        await self._app(scope, replay, answer.send)
        return answer

    def _record(self, scope: Scope, request: bytes, status: int) -> None:
        try:
            body = orjson.loads(request) if request else None
        except orjson.JSONDecodeError:
            body = request.decode(errors="replace")
        record = RequestRecord(
            time=self._cloud.clock.now(),
            method=scope["method"],
            path=scope["path"],
            query=scope.get("query_string", b"").decode(errors="replace"),
            status=status,
            body=body,
        )
        self._cloud.requests.append(record)


def _made_answer(fault: Fault) -> Response | None:
    """Return the answer of a fault that does not reach the app."""
    retry = fault.retry_after_s
    headers = {} if retry is None else {"retry-after": str(retry)}
    match fault.kind:
        case "503" | "429" | "401":
            body = orjson.dumps({"message": f"fault {fault.kind}"})
            return Response(body, int(fault.kind), headers, "application/json")
        case "html":
            return Response("<html><body>Bad gateway</body></html>", 200, headers)
        case "bad-json":
            return Response('{"vehicles": [', 200, headers, "application/json")
        case "redirect":
            return Response(b"", 302, {"location": fault.location})
        case "slow" | "cut" | "lost-answer" | "truncated":
            return None


async def read_body(receive: Receive) -> bytes | None:
    """Read the whole body; None when the client left or sent too much."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def send_answer(
    send: Send, answer: Answer, body: bytes, *, is_last: bool = True
) -> None:
    """Send a caught answer with this body; one that is not last promises more."""
    start = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": answer.headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def cut(scope: Scope, receive: Receive) -> None:
    """Abort the connection and wait until the server has noticed.

    Raises CutError where there is no connection, in process.
    """
    extension = scope.get("extensions", {}).get(ABORT)
    if extension is None:
        raise CutError("connection cut on purpose")
    extension["abort"]()
    await _disconnected(receive)


async def linger(receive: Receive, delay_s: float) -> None:
    """Wait, but not for a client that has left."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
