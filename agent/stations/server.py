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
from agent.domain.ids import EvseId, StationId
from agent.domain.profile import ChargingProfile
from agent.ports import Answer, Clock, EventSink, OrderAnswer, Priority
from agent.stations import framing, schemas, v16_orders
from agent.stations.adapter import AdapterOptions
from agent.stations.handshake import Doors, admit, choose_subprotocol
from agent.stations.link import CallOutcome, Link, WireClosed
from agent.stations.v16 import Adapter16
from agent.stations.v16_setup import Setup16, Wishes
from agent.stations.wire import SocketWire, StationSocket

log = structlog.get_logger()

FRAME_BYTES_MAX = 1024 * 1024
"""A frame of one station; StopTransaction with all samples is the largest (C2)."""
HANDSHAKE_S = 10.0
SETUPS_AT_ONCE = 8
"""After a gateway restart all stations return within seconds: accept quickly,
configure slowly (ocpp-depot.md C5)."""
OLD_LINK_PATIENCE_S = 5.0
BAD_FRAMES_LOGGED_MAX = 20
"""Bad frames logged one by one per link; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationOptions:
    """Per-station settings that the links need."""

    adapter: AdapterOptions
    wishes: Wishes
    pings: bool = True


@dataclass(slots=True)
class LiveLink:
    """The link that speaks for a station now."""

    link: Link
    wire: SocketWire
    address: str
    version: str


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
        self._view = view
        self._pace = pace
        self._slots = asyncio.Semaphore(SETUPS_AT_ONCE)
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
            compression=None,
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

        adapter = Adapter16(
            station_id=station_id,
            sink=self._sink,
            clock=self._clock,
            options=options.adapter,
            on_boot=lambda: setup.booted(),  # noqa: PLW0108 - made below
        )
        link = Link(
            wire,
            station_id,
            handler=adapter.handle,
            on_bad_frame=on_bad_frame,
            pings=options.pings,
        )
        setup = Setup16(
            station_id=station_id,
            link=link,
            sink=self._sink,
            wishes=options.wishes,
            known_connectors=lambda: self._view.known_connectors(station_id),
            open_transactions=lambda: self._view.open_outlets(station_id),
            slots=self._slots,
            pace=self._pace,
        )
        live = LiveLink(link, wire, _address(socket), version)
        self.links[station_id] = live
        log.info(
            "station_connected",
            station_id=station_id,
            ocpp_version=version,
            address=live.address,
        )
        try:
            await self._sink.handle(station_id, events.LinkOpened(ocpp_version=version))
            await link.run(setup.run)
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
        try:
            payload = v16_orders.set_charging_profile(evse_id, profile)
        except StationFault as fault:
            return OrderAnswer(answer=Answer.ERROR, detail=str(fault))

        def late(outcome: CallOutcome) -> None:
            if on_late is not None:
                on_late(v16_orders.read_answer(outcome))

        outcome = await live.link.call(
            v16_orders.SET_CHARGING_PROFILE, payload, priority, late
        )
        return v16_orders.read_answer(outcome)

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


class StationView:
    """What set-up needs to know of a station's state; filled in by ``app``."""

    def __init__(
        self,
        known_connectors: Callable[[StationId], list[int]],
        open_outlets: Callable[[StationId], list[int]],
    ) -> None:
        """Bind to the depot's state."""
        self.known_connectors = known_connectors
        self.open_outlets = open_outlets


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
