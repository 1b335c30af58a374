"""The outermost layer of the stand-in Smartcar: logs each call, plays transport faults.

Unlike ChargEye's gate it does not hold answers back, for a late command's answer must
begin before its outcome is known.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from starlette.responses import Response

from agent.standin.gate import (
    CONTROL_PREFIX,
    Answer,
    cut,
    linger,
    read_body,
    send_answer,
)
from agent.standin.smartcar_api import CALL, FAULT, json_answer
from agent.standin.smartcar_errors import SmartcarError
from agent.standin.smartcar_faults import TOKEN_PATHS, CallRecord

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent.standin.smartcar_faults import CarFault
    from agent.standin.smartcar_state import SmartcarStandin


class SmartcarGate:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, cloud: SmartcarStandin) -> None:
        """Wrap `app` with the switches of `cloud`."""
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or spoil it as ordered."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        request = await read_body(receive)
        call = self._record(scope, request or b"")
        if self._cloud.unreachable or request is None:
            call.fault = "unreachable"
            await cut(scope, receive)
            return
        fault = self._cloud.faults.take(call.method, unquote(scope["path"]))
        call.fault = fault.kind if fault is not None else ""
        scope[CALL], scope[FAULT] = call, fault
        if fault is not None and await self._made(fault, call, scope, receive, send):
            return
        if fault is not None and fault.kind in ("lost-answer", "truncated", "504"):
            await self._spoilt(fault, call, scope, receive, send, request)
            return
        try:
            await self._app(scope, _replay(request, receive), _Watch(call, send))
        except ConnectionAbortedError:
            call.status = 0
            await cut(scope, receive)

    async def _made(
        self, fault: CarFault, call: CallRecord, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Play the part of a fault that comes before the app; tell whether that is all."""
        if fault.kind == "slow":
            await linger(receive, fault.delay_real_s) if fault.delay_real_s else None
            await self._cloud.pause(fault.delay_s)
            return False
        if fault.kind == "cut":
            await cut(scope, receive)
            return True
        made = _made_answer(fault)
        if made is None:
            return False
        call.status = made.status_code
        await made(scope, receive, send)
        return True

    async def _spoilt(
        self,
        fault: CarFault,
        call: CallRecord,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: bytes,
    ) -> None:
        """Let the app do its work, and spoil the answer."""
        answer = Answer()
        await self._app(scope, _replay(request, receive), answer.send)
        if fault.kind == "504":
            await self._cloud.pause(fault.delay_s)
            call.status = 504
            body = SmartcarError("UPSTREAM:GATEWAY_TIMEOUT").v3(self._cloud.request_id())
            await json_answer(body, 504)(scope, receive, send)
            return
        if fault.kind == "truncated":
            half = bytes(answer.body[: len(answer.body) // 2])
            await send_answer(send, answer, half, is_last=False)
            await asyncio.sleep(0)
        await cut(scope, receive)

    def _record(self, scope: Scope, request: bytes) -> CallRecord:
        headers: dict[bytes, bytes] = dict(scope.get("headers", []))
        is_secret = scope["path"] in TOKEN_PATHS
        call = CallRecord(
            time=self._cloud.clock.now(),
            method=scope["method"],
            path=scope["path"],
            query=scope.get("query_string", b"").decode(errors="replace"),
            user_agent=headers.get(b"user-agent", b"").decode(errors="replace"),
            body=None if is_secret else _readable(request),
        )
        self._cloud.calls.append(call)
        return call


class _Watch:
    """Passes an answer on, and notes its status."""

    def __init__(self, call: CallRecord, send: Send) -> None:
        self._call = call
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._call.status = message["status"]
        await self._send(message)


def _replay(request: bytes, receive: Receive) -> Receive:
    """Give the body that was read once more; then what the connection says."""
    messages = iter([{"type": "http.request", "body": request, "more_body": False}])

    async def replay() -> Message:
        message: Message | None = next(messages, None)
        return await receive() if message is None else message

    return replay


def _made_answer(fault: CarFault) -> Response | None:
    """Return the answer of a fault that does not reach the app."""
    match fault.kind:
        case "html":
            return Response("<html><body>Bad gateway</body></html>", 502)
        case "bad-json":
            return Response('{"data": [', 200, media_type="application/json")
        case "redirect":
            return Response(b"", 302, {"location": fault.location})
        case _:
            return None


def _readable(request: bytes) -> Any:
    try:
        return orjson.loads(request) if request else None
    except orjson.JSONDecodeError:
        return request.decode(errors="replace")
