"""A foreign server that speaks ChargEye's JSON: plain http.server, own code, a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ForeignFleet:
    """What the server knows, what it was told, and whether it answers at all."""

    def __init__(self) -> None:
        self.vehicles: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.is_away = False
        self.page: tuple[int, str, bytes] | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def patches(self, key: str) -> list[dict[str, Any]]:
        """Schedule rows of PATCHes that carry a key, in the row or in its plan."""
        rows = [
            row
            for method, _, body in list(self.requests)
            if method == "PATCH"
            for row in body["schedules"]
        ]
        return [row for row in rows if key in row or key in row.get("plan", {})]


@contextmanager
def foreign_fleet() -> Iterator[ForeignFleet]:
    """Serve a fleet on loopback."""
    fleet = ForeignFleet()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve("GET")

        def do_PATCH(self) -> None:
            self._serve("PATCH")

        def _serve(self, method: str) -> None:
            if fleet.is_away:
                self.close_connection = True
                self.connection.close()
                return
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fleet.requests.append((method, self.path, body))
            bearer = self.headers.get("Authorization", "")
            if self.path == "/api/auth/refreshAccessToken":
                until = datetime.now(UTC) + timedelta(hours=8)
                is_good = bearer == "Bearer refresh-me"
                self._answer(
                    200 if is_good else 401,
                    {"token": "jwt-1", "validUntil": until.isoformat()} if is_good else {},
                )
            elif bearer != "Bearer jwt-1":
                self._answer(401, {"message": "no"})
            elif fleet.page is not None:
                self._raw(*fleet.page)
            elif self.path.startswith("/api/vehicles/") and method == "PATCH":
                self._answer(
                    200, {"success": True, "message": "", "skippedScheduleIds": []}
                )
            elif self.path.startswith("/api/vehicles"):
                self._answer(
                    200, {"vehicles": [{"vehicle": row} for row in fleet.vehicles]}
                )
            else:
                self._answer(200, {"recurringSchedules": [], "schedules": fleet.schedules})

        def _answer(self, status: int, body: Any) -> None:
            self._raw(status, "application/json", json.dumps(body).encode())

        def _raw(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fleet.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield fleet
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def plan_json(
    pieces: list[tuple[datetime, datetime, float]], **extra: Any
) -> dict[str, Any]:
    """A ChargEye plan of (from, to, kW); a power of 0 is a pause."""
    return {
        "segments": [
            {
                "from": ms(start),
                "to": ms(end),
                "durationMs": ms(end) - ms(start),
                "powerkW": power,
                "energykWh": power * (end - start).total_seconds() / 3600,
                "paused": power == 0,
                "powerUnlimited": False,
                "tag": ["bulk"],
            }
            for start, end, power in pieces
        ],
        "pastSegments": [],
        "schedule": {"id": "slot-1", "ev": {"supportsPausing": True}},
    } | extra
