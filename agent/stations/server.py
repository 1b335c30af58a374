"""Listens for stations, admits them, keeps one link per station, sends orders.

Any path; the identity is its last segment. No common subprotocol: the handshake is
finished without one and the connection closed (OCPP-J 3.3). A second connection of a
live identity replaces the first unless the first still answers and the newcomer comes
from another address (NET-01, CON-07).
"""

from __future__ import annotations

import asyncio
import http
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import cast

import structlog
import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from agent.domain import events
from agent.domain.errors import StationFault, StoreFault
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.profile import ChargingProfile
from agent.ports import Answer, Clock, EventSink, OrderAnswer, Priority
from agent.stations import framing, schemas
from agent.stations.dialects import (
    Dialect,
    StationOptions,
    StationView,
    Surroundings,
    dialect_of,
    restart_calls,
)
from agent.stations.handshake import Doors, admit, choose_subprotocol
from agent.stations.link import CallOutcome, Link, WireClosed
from agent.stations.wire import SocketWire, StationSocket

log = structlog.get_logger()

FRAME_BYTES_MAX = 1024 * 1024
"""A frame of one station; StopTransaction with all samples is the largest (C2)."""
HANDSHAKE_S = 10.0
SETUPS_AT_ONCE = 8
"""After a gateway restart all stations return within seconds: accept quickly,
configure slowly (ocpp-depot.md C5)."""
OLD_LINK_PATIENCE_S = 5.0
RESTART_PAUSE_S = 10.0
COMPOSITE_S = 60
"""A short composite schedule, asked for only to hear whether a station answers."""
"""Between a remote stop and the start that follows: stations need to settle (REM-06)."""
BAD_FRAMES_LOGGED_MAX = 20
"""Bad frames logged one by one per link; the rest is counted."""


@dataclass(slots=True)
class LiveLink:
    """The link that speaks for a station now."""

    link: Link
    wire: SocketWire
    address: str
    version: str
    dialect: Dialect


class StationServer:
    """The Stations port over WebSocket."""

    def __init__(
        self,
        *,
        doors: Doors,
        options: Callable[[StationId], StationOptions],
        sink: EventSink,
        clock: Clock,
        view: StationView,
        pace: float = 1.0,
    ) -> None:
        """Prepare; ``serve`` opens the port. ``pace`` below 1 shortens set-up waits."""
        self.doors = doors
        self.options = options
        self.links: dict[StationId, LiveLink] = {}
        self.seen_at: dict[StationId, datetime] = {}
        self.refused = 0
        self.takeovers = 0
        self._sink = sink
        self._clock = clock
        self._around = Surroundings(
            sink=sink,
            clock=clock,
            view=view,
            slots=asyncio.Semaphore(SETUPS_AT_ONCE),
            pace=pace,
        )
        self._servers: list[Server] = []
        self._stopping = False

    # --- listening ----------------------------------------------------------------

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Open one port; returns its number. Raises OSError when it is taken."""
        server = await serve(
            self._connected,
            host,
            port,
            ssl=tls,
            process_request=partial(self._process_request, is_tls=tls is not None),
            select_subprotocol=lambda _, offered: choose_subprotocol(offered),  # type: ignore[arg-type,return-value]
            compression="deflate",
            max_size=FRAME_BYTES_MAX,
            create_connection=StationSocket,
            open_timeout=HANDSHAKE_S,
            ping_interval=None,
            close_timeout=3.0,
            server_header=None,
            backlog=1024,
        )
        self._servers.append(server)
        sockets = list(server.sockets)
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Refuse new handshakes, close all links with 1001, wait for the last commits."""
        self._stopping = True
        for server in self._servers:
            server.close(code=1001, reason="the agent stops")
        for server in self._servers:
            await server.wait_closed()

    def _process_request(
        self, socket: ServerConnection, request: Request, *, is_tls: bool
    ) -> Response | None:
        if self._stopping or self._is_crowded():
            return _refusal(http.HTTPStatus.SERVICE_UNAVAILABLE)
        header = request.headers.get("Authorization")
        authorization = header.encode("latin-1") if header is not None else None
        admission = admit(
            request.path,
            authorization,
            self.doors,
            is_tls=is_tls,
            certificate_names=_certificate_names(socket) if is_tls else frozenset(),
        )
        if admission.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.refused += 1
            log.warning(
                "station_refused",
                station_id=admission.station_id or admission.identity,
                status=admission.status,
                reason=admission.reason,
                address=_address(socket),
            )
            return _refusal(http.HTTPStatus(admission.status))
        cast("StationSocket", socket).admission = admission
        offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        if choose_subprotocol([name.strip() for name in offered]) in (None, schemas.V16):
            # Compression belongs to 2.x; 1.6 stations are known to trip over it (CON-09).
            socket.protocol.available_extensions = None
        return None

    def _is_crowded(self) -> bool:
        return len(self.links) >= 2 * max(len(self.doors.stations), 16) + 8

    async def _connected(self, socket: ServerConnection) -> None:
        station_id = cast("StationSocket", socket).admission.station_id
        assert station_id is not None  # noqa: S101 - admitted
        version = socket.subprotocol
        if version is None:
            log.warning(
                "station_refused",
                station_id=station_id,
                status=101,
                reason="it offers no OCPP version that the agent speaks",
                address=_address(socket),
            )
            await socket.close(1002, "no common subprotocol")
            return
        if not await self._make_way(station_id, socket):
            return
        await self._serve(station_id, socket, str(version))

    async def _make_way(self, station_id: StationId, socket: ServerConnection) -> bool:
        """Decide between a live link and a newcomer of the same identity."""
        old = self.links.get(station_id)
        if old is None:
            return True
        if old.address != _address(socket) and await _is_alive(old):
            log.error(
                "station_refused",
                station_id=station_id,
                status=409,
                reason="a second station uses this id while the first one is alive",
                address=_address(socket),
            )
            await socket.close(1008, "this station id is in use")
            return False
        self.takeovers += 1
        log.info("link_replaced", station_id=station_id, address=_address(socket))
        if self.links.get(station_id) is old:
            del self.links[station_id]
        await old.link.close(1001, "replaced by a newer connection")
        return True

    async def _serve(
        self, station_id: StationId, socket: ServerConnection, version: str
    ) -> None:
        options = self.options(station_id)
        wire = SocketWire(cast("StationSocket", socket))
        bad = 0

        async def on_bad_frame(frame: framing.BadFrame) -> None:
            nonlocal bad
            bad += 1
            if bad <= BAD_FRAMES_LOGGED_MAX:
                log.warning("frame_refused", station_id=station_id, reason=frame.reason)

        dialect = dialect_of(version, station_id, options, self._around)
        link = Link(
            wire,
            station_id,
            handler=dialect.handle,
            on_bad_frame=on_bad_frame,
            version=version,
            pings=options.pings,
        )
        dialect.attach(link)
        live = LiveLink(link, wire, _address(socket), version, dialect)
        self.links[station_id] = live
        log.info(
            "station_connected",
            station_id=station_id,
            ocpp_version=version,
            address=live.address,
        )
        try:
            await self._sink.handle(station_id, events.LinkOpened(ocpp_version=version))
            await link.run(dialect.run)
        except* StoreFault as faults:
            log.error(
                "record_not_stored",
                station_id=station_id,
                reason=str(faults.exceptions),
            )
        except* Exception:
            # The edge of a station's link: a bug here may cost this link, no other.
            log.exception("link_failed", station_id=station_id)
        finally:
            if self.links.get(station_id) is live:
                del self.links[station_id]
                await self._closed(station_id, socket)

    def last_seen(self, station_id: StationId) -> datetime | None:
        """When a station was last heard, by the depot's clock."""
        live = self.links.get(station_id)
        if live is None:
            return self.seen_at.get(station_id)
        ago_s = asyncio.get_running_loop().time() - live.link.last_seen_s
        return self._clock.now() - timedelta(seconds=max(ago_s, 0.0))

    async def _closed(self, station_id: StationId, socket: ServerConnection) -> None:
        self.seen_at[station_id] = self._clock.now()
        log.info("station_disconnected", station_id=station_id, code=socket.close_code)
        try:
            await self._sink.handle(station_id, events.LinkClosed())
        except StoreFault as fault:
            log.error("record_not_stored", station_id=station_id, reason=str(fault))

    # --- orders ---------------------------------------------------------------------

    async def set_limit(
        self,
        station_id: StationId,
        evse_id: EvseId,
        profile: ChargingProfile,
        priority: Priority,
        on_late: Callable[[OrderAnswer], None] | None = None,
    ) -> OrderAnswer:
        """Send a charging profile and read the answer."""
        live = self.links.get(station_id)
        if live is None:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not connected")
        return await live.dialect.set_limit(evse_id, profile, priority, on_late)

    async def restart(
        self,
        station_id: StationId,
        evse_id: EvseId,
        transaction_id: TransactionId,
        id_token: str,
    ) -> OrderAnswer:
        """Stop a transaction and ask for a new one, to wake its vehicle."""
        live = self.links.get(station_id)
        if live is None:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not connected")
        stop, start = restart_calls(live.version, evse_id, transaction_id, id_token)
        for action, payload in (stop, start):
            outcome = await live.link.call(action, payload, Priority.OPERATOR)
            status = str((outcome.payload or {}).get("status", outcome.code))
            if status.lower() != "accepted":
                return OrderAnswer(
                    answer=Answer.REFUSED, detail=f"{action}: {status}"[:120]
                )
            await self._clock.sleep(RESTART_PAUSE_S)
        return OrderAnswer(answer=Answer.ACCEPTED)

    async def clear_limit(self, station_id: StationId, profile_id: int) -> OrderAnswer:
        """Take a profile off by its id; one that is not there counts as taken off."""
        live = self.links.get(station_id)
        if live is None:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not connected")
        field = "id" if live.version == schemas.V16 else "chargingProfileId"
        outcome = await live.link.call(
            "ClearChargingProfile", {field: profile_id}, Priority.LIMIT
        )
        return _plain_answer(outcome, ("accepted", "unknown"))

    async def write_key(self, station_id: StationId, name: str, value: str) -> OrderAnswer:
        """Write a configuration key of 1.6."""
        live = self.links.get(station_id)
        if live is None:
            return OrderAnswer(answer=Answer.OFFLINE, detail="not connected")
        if live.version != schemas.V16:
            return OrderAnswer(answer=Answer.REFUSED, detail="NotSupported")
        payload: framing.Payload = {"key": name, "value": value}
        outcome = await live.link.call("ChangeConfiguration", payload, Priority.LIMIT)
        return _plain_answer(outcome, ("accepted",))

    async def is_answering(self, station_id: StationId, evse_id: EvseId) -> bool:
        """Ask for a composite schedule; whether any answer came at all."""
        live = self.links.get(station_id)
        if live is None:
            return False
        field = "connectorId" if live.version == schemas.V16 else "evseId"
        payload: framing.Payload = {field: evse_id, "duration": COMPOSITE_S}
        outcome = await live.link.call("GetCompositeSchedule", payload, Priority.READ)
        return outcome.payload is not None or outcome.code not in ("Timeout", "Offline")

    async def call(
        self, station_id: StationId, action: str, payload: framing.Payload
    ) -> CallOutcome:
        """Send an operator's call. Raises StationFault for a call that cannot be sent."""
        live = self.links.get(station_id)
        if live is None:
            return CallOutcome(None, "Offline", f"{station_id} is not connected")
        if not schemas.is_action(live.version, action):
            raise StationFault(f"{action[:64]} is not an action of {live.version}")
        schemas.check_sent(live.version, action, payload)
        return await live.link.call(action, payload, Priority.OPERATOR)


def _plain_answer(outcome: CallOutcome, good: tuple[str, ...]) -> OrderAnswer:
    """Read an answer that is a status and nothing else."""
    if outcome.payload is None:
        silent = {"Timeout": Answer.SILENT, "Offline": Answer.OFFLINE}
        answer = silent.get(outcome.code, Answer.ERROR)
        detail = f"{outcome.code} {outcome.description}".strip()[:120]
        return OrderAnswer(answer=answer, detail=detail)
    status = str(outcome.payload.get("status", ""))[:64]
    is_good = status.lower() in good
    return OrderAnswer(answer=Answer.ACCEPTED if is_good else Answer.REFUSED, detail=status)


async def _is_alive(old: LiveLink) -> bool:
    try:
        async with asyncio.timeout(OLD_LINK_PATIENCE_S):
            await (await old.wire.ping())
    except (TimeoutError, WireClosed, websockets.ConnectionClosed):
        return False
    return True


def _refusal(status: http.HTTPStatus) -> Response:
    body = f"{status.phrase}\n".encode()
    headers = Headers([("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    if status is http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="depot"'
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)


def _address(socket: ServerConnection) -> str:
    peer = socket.remote_address
    return str(peer[0]) if isinstance(peer, tuple) else "unknown"


def _certificate_names(socket: ServerConnection) -> frozenset[str]:
    """Common name and DNS names of the client certificate that TLS verified."""
    found = socket.transport.get_extra_info("peercert") or {}
    names = {value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
    for part in found.get("subject", ()):
        names.update(value for key, value in part if key == "commonName")
    return frozenset(names)


def tls_context(
    certificate: str, private_key: str, client_ca: str | None
) -> ssl.SSLContext:
    """TLS 1.2 or later for the second listener (security whitepaper A00.FR.312)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, private_key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
