"""The door of the station ports: who waits in it, who is let in, who is made to wait.

Bounds a flood of connections, brakes guessing, says the same to everybody who guessed.
The decision itself is ``handshake.admit``; this is what surrounds it.
"""

from __future__ import annotations

import asyncio
import http
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from agent.domain.ids import StationId
from agent.stations import schemas
from agent.stations.brake import Brake
from agent.stations.handshake import (
    Admission,
    Doors,
    Known,
    Presented,
    admit,
    answer,
    choose_subprotocol,
)
from agent.stations.wire import StationSocket

log = structlog.get_logger()

WAITING_SPARE = 256
"""Connections in mid-handshake beyond two per station (faults.md R1)."""
TAKEOVERS_MAX, TAKEOVERS_S = 3, 600.0
"""More take-overs of one identity than this are two stations with one id (A3)."""
SPENT_MAX = 1000
"""Identities whose take-overs are counted; beyond, all are forgotten."""
BLOCKED = 429
"""Status in the log of a source that must wait; the peer hears 401 like any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """What TLS verified of a station's certificate."""

    names: frozenset[str]
    serial: int | None
    device_serial: str
    not_after: datetime | None


NO_CERTIFICATE = ClientCertificate(
    names=frozenset(), serial=None, device_serial="", not_after=None
)


class DoorSocket(StationSocket):
    """A station's socket that the entrance knows of until its handshake is over."""

    def __init__(
        self,
        entrance: Entrance,
        protocol: ServerProtocol,
        server: Server,
        **options: Any,
    ) -> None:
        """Take what the library gives."""
        super().__init__(protocol, server, **options)
        self._entrance = entrance

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stand in the door."""
        super().connection_made(transport)
        self._entrance.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the door, if it was still there."""
        self._entrance.left(self)
        super().connection_lost(exc)


class Entrance:
    """Everything that happens before a link lives."""

    def __init__(self, doors: Doors, is_crowded: Callable[[], bool]) -> None:
        """Start with nothing learned; ``is_crowded``: whether too many links live."""
        self.doors = doors
        self._is_crowded = is_crowded
        self.known = Known()
        self.hides = False
        self.brake = Brake()
        self.refused = 0
        self.dropped = 0
        self.is_closed = False
        self._waiting: OrderedDict[DoorSocket, None] = OrderedDict()
        self._takeovers: dict[StationId, deque[float]] = {}

    # --- who stands in the door ---------------------------------------------------

    @property
    def waiting(self) -> int:
        """Connections whose handshake is not over."""
        return len(self._waiting)

    def arrived(self, socket: DoorSocket) -> None:
        """Note a connection. When too many wait, the one that waited longest goes.

        Stations finish within milliseconds, so those are the ones that never will.
        """
        self._waiting[socket] = None
        if len(self._waiting) > 2 * len(self.doors.stations) + WAITING_SPARE:
            oldest, _ = self._waiting.popitem(last=False)
            self.dropped += 1
            oldest.transport.abort()

    def left(self, socket: DoorSocket) -> None:
        """Forget a connection: let in, refused or gone."""
        self._waiting.pop(socket, None)

    # --- the decision --------------------------------------------------------------

    def process(self, socket: ServerConnection, request: Request) -> Response | None:
        """Let a connection in (None), or say why not."""
        door = cast("DoorSocket", socket)
        self.left(door)
        if self.is_closed or self._is_crowded():
            return _refusal(http.HTTPStatus.SERVICE_UNAVAILABLE)
        admission = self.judge(door, request)
        address = address_of(socket)
        now_s = asyncio.get_running_loop().time()
        is_in = admission.status == http.HTTPStatus.SWITCHING_PROTOCOLS
        # Where no credentials are asked for there is nothing to guess, and a station
        # must not suffer from a neighbour behind the same router.
        is_guess = admission.is_proven or not is_in
        if is_guess and self.brake.is_blocked(address, admission.identity, now_s):
            return self._refuse(address, admission, status=BLOCKED)
        if not is_in:
            if self.brake.failed(address, admission.identity, now_s):
                log.error("source_blocked", address=address, station_id=admission.identity)
            has_guessed = self.hides or bool(request.headers.get_all("Authorization"))
            told = answer(admission, hides=has_guessed)
            return self._refuse(address, admission, status=admission.status, told=told)
        if admission.is_proven:
            self.brake.proved(address, admission.identity)
        door.admission = admission
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        names = [name.strip() for name in offered.split(",")]
        if choose_subprotocol(names, admission.versions) in (None, schemas.V16):
            # Compression belongs to 2.x; 1.6 stations are known to trip over it (CON-09).
            socket.protocol.available_extensions = None
        return None

    def judge(self, socket: ServerConnection, request: Request) -> Admission:
        """Decide by what a connection shows, when it comes or again after a reload."""
        headers = request.headers.get_all("Authorization")
        certificate = certificate_of(socket)
        return admit(
            request.path,
            # Two headers are one lie: they count as a wrong one.
            ",".join(headers).encode("latin-1", "replace") if headers else None,
            self.doors,
            presented=Presented(
                is_tls=socket.transport.get_extra_info("sslcontext") is not None,
                names=certificate.names,
                serial=certificate.serial,
                device_serial=certificate.device_serial,
                origin=" ".join(request.headers.get_all("Origin")),
            ),
            known=self.known,
        )

    def _refuse(
        self, address: str, admission: Admission, *, status: int, told: int = 401
    ) -> Response:
        self.refused += 1
        log.warning(
            "station_refused",
            station_id=admission.station_id or admission.identity,
            status=status,
            reason=admission.reason
            if status != BLOCKED
            else "too many refused attempts from there; it may try again in minutes",
            address=address,
        )
        return _refusal(http.HTTPStatus(told))

    # --- take-overs ----------------------------------------------------------------

    def taken_over(self, station_id: StationId) -> None:
        """Count a take-over; alarm when two stations seem to share an id (A3)."""
        now_s = asyncio.get_running_loop().time()
        if len(self._takeovers) > SPENT_MAX:
            self._takeovers.clear()
        times = self._takeovers.setdefault(station_id, deque(maxlen=TAKEOVERS_MAX + 1))
        times.append(now_s)
        if len(times) > TAKEOVERS_MAX and now_s - times[0] <= TAKEOVERS_S:
            times.clear()
            log.error("link_contested", station_id=station_id, count=TAKEOVERS_MAX + 1)


def address_of(socket: ServerConnection) -> str:
    """The peer's address."""
    peer = socket.remote_address
    return str(peer[0]) if isinstance(peer, tuple) else "unknown"


def certificate_of(socket: ServerConnection) -> ClientCertificate:
    """Read the client certificate that TLS verified, if there was one."""
    found = socket.transport.get_extra_info("peercert")
    if not found:
        return NO_CERTIFICATE
    names = {value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
    device_serial = ""
    for part in found.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                names.add(value)
            elif key == "serialNumber":
                device_serial = value
    ends = found.get("notAfter")
    return ClientCertificate(
        names=frozenset(names),
        serial=int(found["serialNumber"], 16) if "serialNumber" in found else None,
        device_serial=device_serial,
        not_after=datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
        if ends
        else None,
    )


def _refusal(status: http.HTTPStatus) -> Response:
    body = f"{status.phrase}\n".encode()
    headers = Headers([("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    if status is http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="depot"'
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
