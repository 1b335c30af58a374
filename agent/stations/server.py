"""Listens for stations, admits them, keeps one link per station, sends orders.

Any path; the identity is its last segment. No common subprotocol: the handshake is
finished without one and the connection closed (OCPP-J 3.3). A second connection of a
live identity replaces the first when it proved itself and comes from the same address,
or when the first does not answer a ping; else it is refused (faults.md A3, NET-01,
CON-07).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import cast

import structlog
import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from agent.domain import events
from agent.domain.capability import RateUnit
from agent.domain.errors import StationFault, StoreFault
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.profile import ChargingProfile
from agent.ports import Answer, Clock, CompositeAnswer, EventSink, OrderAnswer, Priority
from agent.stations import framing, schemas
from agent.stations.adapter import SecurityDesk
from agent.stations.composite import composite_call, read_composite
from agent.stations.dialects import (
    Dialect,
    StationOptions,
    StationView,
    Surroundings,
    dialect_of,
    restart_calls,
)
from agent.stations.entrance import DoorSocket, Entrance, address_of, certificate_of
from agent.stations.handshake import Admission, Doors, assumed_version, choose_subprotocol
from agent.stations.link import CallOutcome, Link, WireClosed
from agent.stations.tls import HANDSHAKE_S as TLS_HANDSHAKE_S
from agent.stations.tls import TlsDoor
from agent.stations.wire import SocketWire, StationSocket

log = structlog.get_logger()

FRAME_BYTES_MAX = 1024 * 1024
"""A frame of one station; StopTransaction with all samples is the largest (C2)."""
HANDSHAKE_S = 10.0
SWITCHED = 101
"""Status of an admission."""
SETUPS_AT_ONCE = 8
"""After a gateway restart all stations return within seconds: accept quickly,
configure slowly (ocpp-depot.md C5)."""
OLD_LINK_PATIENCE_S = 5.0
NEWCOMERS_MAX = 4
"""Connections of one identity that wait while the old link is asked for a sign of life."""
RESTART_PAUSE_S = 10.0
COMPOSITE_S = 60
"""A short composite schedule, asked for only to hear whether a station answers."""
"""Between a remote stop and the start that follows: stations need to settle (REM-06)."""
ASSUMED_LOGGED_MAX = 1000
"""Stations without a subprotocol that are remembered, so that each is logged once."""
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
    socket: ServerConnection
    certificate_ends: datetime | None = None


@dataclass(slots=True)
class _Gate:
    """Where newcomers of one identity wait for their turn."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


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
        self.entrance = Entrance(doors, self._is_crowded)
        self.options = options
        self.links: dict[StationId, LiveLink] = {}
        self.seen_at: dict[StationId, datetime] = {}
        self.takeovers = 0
        self.closed_links = 0
        self.tls: TlsDoor | None = None
        self._assumed: set[StationId] = set()
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
        self._gates: dict[StationId, _Gate] = {}

    @property
    def doors(self) -> Doors:
        """Who may connect."""
        return self.entrance.doors

    @doors.setter
    def doors(self, new: Doors) -> None:
        self.admit_by(new, hides=self.entrance.hides)

    def admit_by(self, doors: Doors, *, hides: bool = False) -> None:
        """Judge newcomers by these rules from now on; braked sources may try again."""
        self.entrance.doors = doors
        self.entrance.hides = hides
        if self.tls is not None:
            self.entrance.known.revoked = self.tls.revoked
        self.entrance.brake.release()

    @property
    def refused(self) -> int:
        """Connections that were refused."""
        return self.entrance.refused

    def use_desk(self, desk: SecurityDesk) -> None:
        """Say who takes what stations ask and report about their own security."""
        self._around = replace(self._around, desk=desk)

    # --- listening ----------------------------------------------------------------

    async def listen(self, host: str, port: int, tls: TlsDoor | None = None) -> int:
        """Open one port; returns its number. Raises OSError when it is taken."""
        server = await serve(
            self._connected,
            host,
            port,
            ssl=None if tls is None else tls.context,
            ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_S,
            process_request=self.entrance.process,
            select_subprotocol=_select,  # type: ignore[arg-type]
            compression="deflate",
            max_size=FRAME_BYTES_MAX,
            create_connection=partial(DoorSocket, self.entrance),  # type: ignore[arg-type]
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
        self.entrance.is_closed = True
        for server in self._servers:
            server.close(code=1001, reason="the agent stops")
        for server in self._servers:
            await server.wait_closed()

    def _is_crowded(self) -> bool:
        return len(self.links) >= 2 * max(len(self.entrance.doors.stations), 16) + 8

    async def recheck(self) -> None:
        """Judge every live link again: what a reload took back ends now (A10)."""
        async with asyncio.TaskGroup() as tasks:
            for station_id, live in list(self.links.items()):
                request = live.socket.request
                if request is None:
                    continue
                found = self.entrance.judge(live.socket, request)
                if found.status == SWITCHED and found.station_id == station_id:
                    continue
                log.warning(
                    "link_closed_by_agent",
                    station_id=station_id,
                    reason=f"it would not be let in any more: {found.reason}",
                )
                tasks.create_task(live.link.close(1008, "credentials changed"))

    async def hang_up(self, station_id: StationId) -> bool:
        """Close a station's link, so that it connects anew; whether there was one."""
        live = self.links.get(station_id)
        if live is None:
            return False
        await live.link.close(1012, "connect again")
        return True

    def version_of(self, station_id: StationId) -> str | None:
        """The OCPP version of a station's link, None when there is none."""
        live = self.links.get(station_id)
        return None if live is None else live.version

    def certificate_ends(self, station_id: StationId) -> datetime | None:
        """When the certificate expires that a station's live link was opened with."""
        live = self.links.get(station_id)
        return None if live is None else live.certificate_ends

    async def _connected(self, socket: ServerConnection) -> None:
        admission = cast("StationSocket", socket).admission
        station_id = admission.station_id
        assert station_id is not None  # noqa: S101 - admitted
        version = socket.subprotocol or self._assumed_version(socket, admission)
        if version is None:
            log.warning(
                "station_refused",
                station_id=station_id,
                status=101,
                reason="it offers no OCPP version that the agent speaks with it",
                address=address_of(socket),
            )
            await socket.close(1002, "no common subprotocol")
            return
        async with self._gate(station_id) as is_next:
            # One at a time: two newcomers must not both find the place empty.
            if not is_next or not await self._make_way(station_id, socket, admission):
                await socket.close(1008, "this station id is in use")
                return
            live = self._begin(station_id, socket, str(version), admission)
        await self._serve(station_id, live, admission)

    def _assumed_version(
        self, socket: ServerConnection, admission: Admission
    ) -> str | None:
        """Take the version that is configured for stations that name none (CON-01)."""
        request, assumed = socket.request, self.entrance.doors.assumed_version
        if request is None or request.headers.get_all("Sec-WebSocket-Protocol"):
            return None  # it named some, and none that it may speak
        found = assumed_version(assumed, admission.versions)
        station_id = admission.station_id
        if found is not None and station_id not in self._assumed:
            if len(self._assumed) < ASSUMED_LOGGED_MAX and station_id is not None:
                self._assumed.add(station_id)
            log.warning("version_assumed", station_id=station_id, version=found[4:])
        return found

    @asynccontextmanager
    async def _gate(self, station_id: StationId) -> AsyncIterator[bool]:
        """Let newcomers of one identity through one by one; False when too many wait."""
        gate = self._gates.setdefault(station_id, _Gate())
        if gate.users >= NEWCOMERS_MAX:
            yield False
            return
        gate.users += 1
        try:
            async with gate.lock:
                yield True
        finally:
            gate.users -= 1
            if gate.users == 0:
                del self._gates[station_id]

    async def _make_way(
        self, station_id: StationId, socket: ServerConnection, admission: Admission
    ) -> bool:
        """Decide between a live link and a newcomer of the same identity (A3)."""
        old = self.links.get(station_id)
        if old is None:
            return True
        is_same = old.address == address_of(socket)
        if not (is_same and admission.is_proven) and await _is_alive(old):
            log.error(
                "station_refused",
                station_id=station_id,
                status=409,
                reason="a second station uses this id while the first one is alive",
                address=address_of(socket),
            )
            return False
        self.takeovers += 1
        self.entrance.taken_over(station_id)
        log.info("link_replaced", station_id=station_id, address=address_of(socket))
        if self.links.get(station_id) is old:
            del self.links[station_id]
        await old.link.close(1001, "replaced by a newer connection")
        return True

    def _begin(
        self,
        station_id: StationId,
        socket: ServerConnection,
        version: str,
        admission: Admission,
    ) -> LiveLink:
        """Make the link that speaks for the station from now on."""
        options = self.options(station_id)
        if admission.expected_serials:
            adapter = replace(options.adapter, serials=admission.expected_serials)
            options = replace(options, adapter=adapter)
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
            parse=dialect.parse,
            version=version,
            pings=options.pings,
            messages_per_s=options.messages_per_s,
        )
        dialect.attach(link)
        live = LiveLink(
            link,
            wire,
            address_of(socket),
            version,
            dialect,
            socket,
            certificate_of(socket).not_after,
        )
        self.links[station_id] = live
        return live

    async def _serve(
        self, station_id: StationId, live: LiveLink, admission: Admission
    ) -> None:
        log.info(
            "station_connected",
            station_id=station_id,
            ocpp_version=live.version,
            address=live.address,
            security_profile=admission.profile,
        )
        try:
            await self._around.desk.admitted(
                station_id, admission.profile, admission.password_hash
            )
            await self._sink.handle(
                station_id, events.LinkOpened(ocpp_version=live.version)
            )
            await live.link.run(live.dialect.run)
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
            self.closed_links += 1
            if self.links.get(station_id) is live:
                del self.links[station_id]
                await self._closed(station_id, live.socket)

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

    async def composite(
        self,
        station_id: StationId,
        evse_id: EvseId,
        *,
        duration_s: int,
        unit: RateUnit,
        phases: int,
    ) -> CompositeAnswer:
        """Ask what an outlet will allow from now on."""
        live = self.links.get(station_id)
        if live is None:
            return CompositeAnswer(answer=Answer.OFFLINE, detail="not connected")
        payload = composite_call(live.version, evse_id, duration_s, unit)
        outcome = await live.link.call("GetCompositeSchedule", payload, Priority.READ)
        return read_composite(outcome, phases=phases, now=self._clock.now())

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


def _select(socket: StationSocket, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    found = choose_subprotocol(offered, socket.admission.versions)
    return None if found is None else Subprotocol(found)
