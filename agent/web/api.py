"""HTTP on loopback and on the local socket: JSON, health, metrics, the status page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

BODY_BYTES_MAX = 256 * 1024
"""The largest command is a local authorisation list."""

Json = dict[str, object]


class Source(Protocol):
    """What the pages show; ``agent.app`` provides it."""

    def status(self) -> Json:
        """The depot at a glance."""
        ...

    def stations(self) -> list[Json]:
        """All stations."""
        ...

    async def sessions(self, limit: int) -> list[Json]:
        """Sessions, newest first."""
        ...

    async def session(self, session_id: str) -> Json | None:
        """One session."""
        ...

    def vehicles(self) -> list[Json]:
        """The registry."""
        ...

    def explain(self, station_id: str, evse_id: int) -> Json | None:
        """Why an outlet has its limit; None for an outlet that nobody knows."""
        ...

    def plans(self) -> list[Json]:
        """Schedules with plans."""
        ...

    async def outbox(self) -> list[Json]:
        """Owed messages."""
        ...

    async def candidates(self) -> list[Json]:
        """Addresses for enrolment."""
        ...

    async def health(self) -> list[str]:
        """What hangs; empty when all answers."""
        ...

    def missing(self) -> list[str]:
        """What stations still have to wait for; empty when ready."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text."""
        ...

    async def call(
        self, station_id: str, action: str, payload: Json, *, force: bool
    ) -> Answer:
        """Send an operator's call."""
        ...

    async def operate(self, name: str, arguments: Json) -> Answer:
        """Run an operation of a part by its name."""
        ...

    async def backup(self, path: str) -> str | None:
        """Write a copy of the database; the reason when it failed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and body of a command."""

    status: int
    body: Json


def make_app(source: Source, *, commands: bool) -> Starlette:  # noqa: C901, PLR0915 - a route table
    """The web application; with ``commands`` it may also act."""

    def listing(read: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            found = read()
            if asyncio.iscoroutine(found):
                found = await found
            return _json(found)

        return answer

    async def sessions(request: Request) -> Response:
        text = request.query_params.get("limit", "200")
        limit = int(text) if text.isdigit() else 200
        return _json(await source.sessions(min(max(limit, 1), 5000)))

    async def session(request: Request) -> Response:
        found = await source.session(request.path_params["session_id"])
        if found is None:
            return _json({"error": "there is no session of this id"}, 404)
        return _json(found)

    async def explain(request: Request) -> Response:
        evse_id = request.path_params["evse_id"]
        found = source.explain(request.path_params["station_id"], evse_id)
        if found is None:
            return _json({"error": "there is no outlet of this name"}, 404)
        return _json(found)

    async def healthz(_: Request) -> Response:
        hanging = await source.health()
        body = {"ok": not hanging, "hanging": hanging}
        return _json(body, 200 if not hanging else 503)

    async def readyz(_: Request) -> Response:
        missing = source.missing()
        body = {"ready": not missing, "missing": missing}
        return _json(body, 200 if not missing else 503)

    async def metrics(_: Request) -> Response:
        return Response(source.metrics(), media_type="text/plain; version=0.0.4")

    async def call(request: Request) -> Response:
        if not commands:
            return _json({"error": "commands are off here: set web.commands = true"}, 403)
        try:
            body = orjson.loads(await _body(request))
            action, payload = body["action"], body.get("payload") or {}
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
            return _json(
                {"error": 'the body must be {"action": ..., "payload": {...}}'}, 400
            )
        if not isinstance(action, str) or not isinstance(payload, dict):
            return _json({"error": "action must be text and payload an object"}, 400)
        answer = await source.call(
            request.path_params["station_id"],
            action,
            payload,
            force=bool(body.get("force")),
        )
        return _json(answer.body, answer.status)

    async def operate(request: Request) -> Response:
        if not commands:
            return _json({"error": "commands are off here: set web.commands = true"}, 403)
        try:
            arguments = orjson.loads(await _body(request) or b"{}")
        except ValueError:
            return _json({"error": "the body must be a JSON object"}, 400)
        if not isinstance(arguments, dict):
            return _json({"error": "the body must be a JSON object"}, 400)
        answer = await source.operate(request.path_params["name"], arguments)
        return _json(answer.body, answer.status)

    async def backup(request: Request) -> Response:
        if not commands:
            return _json({"error": "commands are off here"}, 403)
        body = orjson.loads(await _body(request))
        problem = await source.backup(str(body["path"]))
        return _json(
            {"error": problem} if problem else {"ok": True}, 500 if problem else 200
        )

    async def page(_: Request) -> Response:
        text, headers = status_page()
        return HTMLResponse(text, headers=headers)

    api = "/api/v1"
    return Starlette(
        routes=[
            Route("/", page),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route(f"{api}/status", listing(source.status)),
            Route(f"{api}/stations", listing(source.stations)),
            Route(f"{api}/sessions", sessions),
            Route(f"{api}/sessions/{{session_id}}", session),
            Route(f"{api}/vehicles", listing(source.vehicles)),
            Route(f"{api}/plans", listing(source.plans)),
            Route(f"{api}/explain/{{station_id}}/{{evse_id:int}}", explain),
            Route(f"{api}/outbox", listing(source.outbox)),
            Route(f"{api}/candidates", listing(source.candidates)),
            Route(f"{api}/stations/{{station_id}}/call", call, methods=["POST"]),
            Route(f"{api}/operations/{{name}}", operate, methods=["POST"]),
            Route(f"{api}/backup", backup, methods=["POST"]),
        ]
    )


@cache
def status_page() -> tuple[str, dict[str, str]]:
    """Read the status page, and the headers that let it do only what it must.

    Its one script and one style sheet are allowed by their hash: a text of a peer that
    came into the page as markup could run nothing and fetch nothing.
    """
    text = files("agent.web").joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'",
        f"script-src {_hashes(text, 'script')}",
        f"style-src {_hashes(text, 'style')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return text, {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _hashes(text: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (hashlib.sha256(item.encode()).digest() for item in found)
    return " ".join(f"'sha256-{base64.b64encode(item).decode()}'" for item in digests)


class QuietServer(uvicorn.Server):
    """uvicorn inside our own event loop: our signals, no access log."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


class WebServer:
    """Serves an application on one bound socket."""

    def __init__(self, app: Starlette, bound: socket.socket) -> None:
        """Prepare; ``run`` serves until ``stop``."""
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=64,
            ws="none",
        )
        self._server = QuietServer(config)
        self._bound = bound

    async def run(self) -> None:
        """Serve until ``stop``."""
        await self._server.serve(sockets=[self._bound])

    def stop(self) -> None:
        """Ask the server to end."""
        self._server.should_exit = True


def _json(body: object, status: int = 200) -> Response:
    return Response(
        orjson.dumps(body, default=str), status_code=status, media_type="application/json"
    )


async def _body(request: Request) -> bytes:
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > BODY_BYTES_MAX:
            raise ValueError("the body is too large")
    return bytes(parts)
