"""A billing server of somebody else: plain http.server in a thread, told how to behave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK, LOSE, DROP = "ok", "lose", "drop"
"""Take it and answer; take it and answer nothing; hang up before reading."""


class BillingServer:
    """What it was sent, what it booked (once per key), and what it will do next."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.booked: dict[str, Any] = {}
        self.next: list[str | int | tuple[int, dict[str, str]]] = []
        self.always: str | int | tuple[int, dict[str, str]] = OK

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/sessions?tenant=7"

    def keys(self) -> list[str]:
        """Idempotency keys in the order in which they came, repeats included."""
        return [headers["idempotency-key"] for _, headers, _ in list(self.requests)]


@contextmanager
def billing_server() -> Iterator[BillingServer]:
    """Serve on loopback."""
    server = BillingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            act = server.next.pop(0) if server.next else server.always
            if act == DROP:
                self._hang_up()
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): text for name, text in self.headers.items()}
            server.requests.append((self.path, headers, body))
            if act in (OK, LOSE):
                server.booked.setdefault(headers["idempotency-key"], body)
            if act == LOSE:
                self._hang_up()
                return
            status, more = act if isinstance(act, tuple) else (act, {})
            self._answer(200 if status == OK else int(status), more)

        def _answer(self, status: int, more: dict[str, str]) -> None:
            text = b"<html>thank you</html>"
            self.send_response_only(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.close()

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(5)
