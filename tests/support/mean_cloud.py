"""All clouds in one server that behaves badly: it repeats what it was sent, secrets too."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODES = (
    "ok", "echo-500", "html", "echo-200", "bad-json", "redirect", "cut", "echo-404",
    "echo-429", "echo-401",
)  # fmt: skip
"""What a request is answered with, one after another, per path and method."""
MODES_OF_WRITES = (
    "echo-500", "redirect", "cut", "echo-429", "bad-json", "echo-401", "echo-200",
    "echo-404",
)  # fmt: skip


class MeanCloud:
    """Tokens it hands out, what it knows, and whether it is mean already."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.vehicles: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.is_mean = False
        self.seen: Counter[tuple[str, str]] = Counter()
        self.carried: set[str] = set()
        self.url = ""

    def mode(self, method: str, path: str) -> str:
        """The next mode for a kind of request."""
        count = self.seen[method, path]
        self.seen[method, path] += 1
        if not self.is_mean:
            return "ok"
        modes = MODES_OF_WRITES if method in ("PATCH", "POST") else MODES
        return modes[count % len(modes)]

    def good(self, path: str) -> Any:
        """The right answer."""
        until = (datetime.now(UTC) + timedelta(days=2000)).isoformat()
        if path.endswith("refreshAccessToken"):
            return {"token": self.tokens["chargeye"], "validUntil": until}
        if "/oauth" in path:
            return {
                "access_token": self.tokens["smartcar"],
                "token_type": "Bearer",
                "expires_in": 3600,
                "refresh_token": self.tokens["rotated"],
            }
        if path.endswith("/vehicles"):
            return {"vehicles": [{"vehicle": row} for row in self.vehicles]}
        if path.endswith("/connections"):
            return {"data": [], "connections": []}
        if path.endswith("/schedules"):
            return {"recurringSchedules": [], "schedules": self.schedules, "success": True}
        return {"success": True}


@contextmanager
def mean_cloud(tokens: dict[str, str]) -> Iterator[MeanCloud]:
    """Serve on loopback."""
    cloud = MeanCloud(tokens)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            sent = f"{self.path} {self.headers} {raw.decode(errors='replace')}"
            cloud.carried.add(sent)
            mode = cloud.mode(self.command, path)
            if mode == "cut":
                self.close_connection = True
                self.connection.close()
                return
            echo = {
                "message": f"refused: {sent}",
                "success": False,
                "error": sent,
                "error_description": sent,
                "errors": [{"type": sent, "code": sent, "title": sent, "detail": sent}],
            }
            if mode == "html":
                self._answer(200, "text/html", f"<html>{sent}</html>".encode())
            elif mode == "bad-json":
                self._answer(200, "application/json", b'{"' + sent.encode()[:200])
            elif mode == "redirect":
                where = f"http://127.0.0.1:9/x?{sent.rsplit(maxsplit=1)[-1][:80]}"
                self._answer(302, "text/plain", b"", {"Location": where})
            elif mode.startswith("echo-"):
                self._answer(int(mode[5:]), "application/json", json.dumps(echo).encode())
            else:
                body = json.dumps(cloud.good(path)).encode()
                self._answer(200, "application/json", body)

        do_GET = do_POST = do_PATCH = do_PUT = _any  # noqa: N815

        def _answer(
            self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (more or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(5)
