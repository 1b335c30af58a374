"""The composition root: builds all parts, one TaskGroup, order of start and stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent import wiring
from agent.control import views
from agent.control.depot import Depot
from agent.control.executor import COALESCE_S, Executor
from agent.control.explain import explain
from agent.control.intake import Intake
from agent.control.operations import Operations
from agent.control.recovery import recover
from agent.control.site import SiteWatch
from agent.domain import events
from agent.domain.capability import Capabilities
from agent.domain.curve import Curve
from agent.domain.errors import ConfigFault, StationFault, StoreDamaged, StoreFault
from agent.domain.ids import EvseId, SessionId, StationId
from agent.domain.session import Session
from agent.host import garbage, logs
from agent.host.clock import RandomIds, SystemClock
from agent.host.metrics import Sample, text_of
from agent.host.systemd import Notifier
from agent.parts import billing, cars, chargeye, exporting, local, operating, security
from agent.parts.base import Ground
from agent.ports import Clock
from agent.settings import Settings, socket_path
from agent.settings import load as load_settings
from agent.stations.dialects import StationOptions, StationView
from agent.stations.server import StationServer
from agent.stations.tls import TlsDoor
from agent.store.rescue import Restored, keep_backup, open_or_restore
from agent.web.api import Answer, Json, WebServer, make_app

log = structlog.get_logger()

TICK_S = 5.0
"""Grace periods are looked at this often, seconds of the depot's clock."""
TICK_FLOOR_S = 0.2
STOP_WITHIN_S = 20.0
"""systemd kills after 90 s; stations should hear a close before (H3)."""
CLOSE_WITHIN_S = 3.0
"""After a task died the process has 5 s to end (H4)."""
LAG_MAX_S = 1.0
WRITER_MAX_S = 5.0
PASS_MAX_S = 30.0
"""What the watchdog wants: loop lag, writer's answer, executor's last pass (section 6)."""
CLOCK_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""No gateway runs this program earlier: its clock is not set (faults.md T3)."""
HOUSE_EVERY_S = 600.0
PRUNE_ROUNDS = 144
CHECK_ROUNDS = 1008
BACKUP_ROUNDS = 36
"""Of ten minutes: pruned daily, checked weekly, backed up soon and four times a day."""
POWER_ACTIONS = frozenset({"SetChargingProfile", "ClearChargingProfile"})
"""Calls that would break the power rules; only ``--force`` sends them."""

PARTS = (
    chargeye.build,
    local.build,
    cars.build,
    billing.build,
    operating.build,
    security.build,
    exporting.build,
)
"""In this order: what comes first may be found by what comes later."""


class Daemon:
    """The whole agent in one object; also the Source of the web pages."""

    def __init__(
        self,
        settings: Settings,
        *,
        config_path: Path | None = None,
        clock: Clock | None = None,
        ids: RandomIds | None = None,
        pace: float = 1.0,
        notifier: Notifier | None = None,
    ) -> None:
        """Build everything. Raises StoreFault for the database, ConfigFault for files.

        ``pace`` below 1 shortens the waits that are made for real firmware, for a
        clock that runs faster than the network.
        """
        tls = wiring.tls_door(settings)  # what it refuses leaves no database behind
        self.settings = settings
        self._config_path = config_path
        self.clock: Clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._notifier = notifier or Notifier()
        self._pace = pace
        self.depot = Depot(policy=wiring.policy(settings), traits=wiring.traits(settings))
        self.depot.circuits = wiring.circuits(settings)
        self.depot.ladder_rules = wiring.ladder_rules(settings)
        rated_w = {name: int(item.rated_w) for name, item in self.depot.traits.items()}
        if settings.ocpp.unknown_stations == "accept":
            rated_w = wiring.AnyStation(rated_w, int(settings.policy.unmatched_kw * 1000))
        opened = open_or_restore(settings.store.path, rated_w, self.clock.now())
        self.store, loaded = opened.store, opened.loaded
        if opened.restored is not None:
            _tell_restored(opened.restored, self.clock.now())
        self.store.keep_ballast()
        recover(self.depot, loaded)
        self.intake = Intake(
            self.depot,
            self.store,
            self.clock,
            self._ids,
            last_seq=loaded.last_seq,
            last_transaction_id=loaded.last_transaction_id
            or self._ids.first_transaction_id(),
        )
        self.server = self._build_server(tls)
        self.executor = Executor(
            self.depot,
            self.store,
            self.server,
            self.clock,
            note=self._note,
            min_pass_s=COALESCE_S,
        )
        self.operations = Operations()
        ground = Ground(
            settings=settings,
            depot=self.depot,
            store=self.store,
            intake=self.intake,
            executor=self.executor,
            server=self.server,
            clock=self.clock,
            ids=self._ids,
            pace=pace,
            operations=self.operations,
        )
        self.clouds = ground.clouds
        self._destinations = ground.destinations
        self.parts = [part for build in PARTS if (part := build(ground)) is not None]
        self._site_meter = wiring.site_meter(settings)
        self.ocpp_port = 0
        self.tls_port = 0
        self.web_port = 0
        self.socket_path = socket_path(settings)
        self.is_ready = asyncio.Event()
        self.stop_wanted = asyncio.Event()
        self._bound: list[socket.socket] = []
        self._lag_s = 0.0
        self._clock_is_set = True

    def _build_server(self, tls: TlsDoor | None) -> StationServer:
        """Build the entrance of the stations over what is known of them."""
        doors = wiring.doors(self.settings)
        server = StationServer(
            doors=doors,
            options=self._options,
            sink=self.intake,
            clock=self.clock,
            view=StationView(
                outlets=self._known_outlets,
                running=self._running,
                allowed=self._allowed,
                capabilities=lambda station_id: self.depot.capabilities.get(
                    station_id, Capabilities()
                ),
                profiles_read=self.intake.profiles_read,
            ),
            pace=self._pace,
        )
        server.tls = tls
        server.admit_by(doors, hides=self.settings.ocpp.hide_station_ids)
        return server

    def _watch_site(self) -> SiteWatch | None:
        """Count the site's other load from the start, where there is a meter."""
        if self._site_meter is None or self.settings.site.meter is None:
            return None
        meter, rules = self._site_meter
        poll_s = self.settings.site.meter.poll_s
        return SiteWatch(self.depot, meter, self.clock, rules, poll_s)

    # --- life -------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until ``stop_wanted``; every essential task that fails ends the process."""
        self.store.start()
        webs = self._bind_web()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self.executor.run(), name="executor"),
                    tasks.create_task(self._tick(), name="tick"),
                    tasks.create_task(self._watchdog(), name="watchdog"),
                    tasks.create_task(self._keep_house(), name="house"),
                    tasks.create_task(self._sweep(), name="garbage"),
                ]
                site = self._watch_site()
                if site is not None:
                    running.append(tasks.create_task(site.run(), name="site-meter"))
                for part in self.parts:
                    running += [
                        tasks.create_task(body(), name=name) for name, body in part.tasks()
                    ]
                for web in webs:
                    tasks.create_task(web.run(), name="web")
                for part in self.parts:
                    await part.prepare()
                await self._listen()
                log.info(
                    "agent_ready",
                    ocpp_port=self.ocpp_port,
                    tls_port=self.tls_port or None,
                    web_port=self.web_port,
                )
                self._notifier.ready(f"stations may connect on port {self.ocpp_port}")
                self.is_ready.set()
                await self.stop_wanted.wait()
                await self._stop(running, webs)
        finally:
            await self._close()
        log.info("agent_stopped")

    async def _stop(self, running: list[asyncio.Task[None]], webs: list[WebServer]) -> None:
        log.info("agent_stopping")
        self._notifier.stopping()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await self.server.stop()
        for task in running:
            task.cancel()
        for web in webs:
            web.stop()

    async def _close(self) -> None:
        with suppress(TimeoutError):  # again after a clean stop; first when a task died
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self.server.stop()
        await self.store.stop()
        for bound in self._bound:
            bound.close()
        for part in self.parts:
            await part.close()
        if self._site_meter is not None:
            await self._site_meter[0].close()
        with suppress(OSError):
            self.socket_path.unlink(missing_ok=True)

    async def _listen(self) -> None:
        ocpp = self.settings.ocpp
        self.ocpp_port = await self.server.listen(ocpp.host, ocpp.port)
        if ocpp.tls is not None:
            self.tls_port = await self.server.listen(
                ocpp.host, ocpp.tls.port, self.server.tls
            )

    def _bind_web(self) -> list[WebServer]:
        web = self.settings.web
        tcp = socket.create_server((web.host, web.port))
        self.web_port = int(tcp.getsockname()[1])
        self.socket_path.unlink(missing_ok=True)
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            local.bind(str(self.socket_path))
        finally:
            os.umask(mask)
        self._bound = [tcp, local]
        return [
            WebServer(make_app(self, commands=web.commands), tcp),
            WebServer(make_app(self, commands=True), local),
        ]

    async def _tick(self) -> None:
        while True:
            await self.clock.sleep(TICK_S)
            await asyncio.sleep(TICK_FLOOR_S)
            try:
                await self.intake.tick()
                await self._look_at_clock()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))

    async def _look_at_clock(self) -> None:
        """Say it while the gateway does not know the time, and mark what it records."""
        is_set = self.clock.now() >= CLOCK_EARLIEST
        if is_set != self._clock_is_set:
            self._clock_is_set = is_set
            if is_set:
                log.info("clock_set")
            else:
                log.error(
                    "clock_not_set",
                    reason=f"the gateway's clock says {self.clock.now():%Y-%m-%d}: no plan "
                    "is executed and no certificate can be trusted until it is set",
                )
        if not is_set:
            for session in self.depot.open_sessions():
                outlet = (session.station_id, session.evse_id)
                await self._note(*outlet, "the gateway's clock was not set meanwhile")

    async def _keep_house(self) -> None:
        """Prune, check and back up the database, and hold space back for a full disk."""
        path, rounds = self.settings.store.path, 0
        while True:
            await asyncio.sleep(HOUSE_EVERY_S)
            rounds += 1
            self.store.keep_ballast()
            try:
                if rounds % PRUNE_ROUNDS == 0:
                    await self.store.prune(self.clock.now())
                if rounds % CHECK_ROUNDS == 1:
                    await self.store.check()
                if rounds % BACKUP_ROUNDS == 1:
                    kept = await keep_backup(self.store, path)
                    log.info("backup_kept", path=str(kept))
            except StoreDamaged:
                raise  # the next start puts a backup in its place
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))

    async def _sweep(self) -> None:
        await garbage.sweep(lambda: self.server.closed_links)

    async def _watchdog(self) -> None:
        loop = asyncio.get_running_loop()
        every_s = min((self._notifier.watchdog_s or 30.0) / 3, 10.0)
        while True:
            before = loop.time()
            await asyncio.sleep(every_s)
            self._lag_s = loop.time() - before - every_s
            hanging = await self.health()
            if hanging:
                log.error("watchdog_withheld", reason=", ".join(hanging))
            else:
                now = views.status(self.depot, self.clock.now(), self.clouds, "")
                self._notifier.watchdog(
                    f"{now['stations_connected']} stations, "
                    f"{now['sessions_charging']} charging, {now['drawn_w']} W"
                )

    def reload(self) -> None:
        """Read the configuration again and apply it whole, or leave the old one (HUP)."""
        self._notifier.reloading()
        try:
            if self._config_path is None:
                return
            new = load_settings(self._config_path)
            problem = wiring.needs_restart(self.settings, new)
            if problem is not None:
                log.error("config_refused", reason=problem)
                return
            if self.server.tls is not None and new.ocpp.tls is not None:
                self.server.tls.load(wiring.tls_files(new.ocpp.tls))
        except ConfigFault as fault:
            log.error("config_refused", reason=str(fault))
            return
        finally:
            self._notifier.ready("running")
        changed = wiring.changed_keys(self.settings, new)
        self.settings = new
        self.depot.policy = wiring.policy(new)
        self.depot.traits = wiring.traits(new)
        self.depot.circuits = wiring.circuits(new)
        self.depot.ladder_rules = wiring.ladder_rules(new)
        self.server.admit_by(wiring.doors(new), hides=new.ocpp.hide_station_ids)
        for part in self.parts:
            part.reload(new)
        logs.set_up(level=new.log.level, style=new.log.format)
        self.depot.changed.set()
        log.info("config_reloaded", changed=changed)

    # --- what stations' links ask -----------------------------------------------------

    def _options(self, station_id: StationId) -> StationOptions:
        return wiring.station_options(self.settings, station_id)

    def _known_outlets(self, station_id: StationId) -> list[tuple[int, int]]:
        evses = self.depot.state(station_id).evses.values()
        return [
            (item.evse_id, item.connector_id)
            for item in evses
            if item.status_at is not None
        ]

    def _running(self, station_id: StationId) -> list[tuple[str, int]]:
        return [
            (item.open_transaction.transaction_id, item.evse_id)
            for item in self.depot.state(station_id).open_sessions()
            if item.open_transaction is not None
        ]

    async def _note(self, station_id: StationId, evse_id: EvseId, text: str) -> None:
        event = events.AnomalyNoted(text=text, evse_id=evse_id)
        await self.intake.handle(station_id, event)

    def _allowed(self, station_id: StationId, evse_id: EvseId) -> Curve | None:
        """What the profile at an outlet allows: the confirmed one, or the newest sent."""
        power = self.depot.power_of((station_id, evse_id))
        newest = power.doubtful or power.confirmed
        return newest.allows if newest is not None else None

    def _profile_of(self, station_id: StationId) -> int:
        doors, known = self.server.doors, self.server.entrance.known
        configured = doors.stations.get(station_id)
        proved = known.lowest.get(station_id, 0)
        if configured is None or configured.allow_lower_profile:
            proved = 0
        return max(proved, configured.security_profile if configured else 0)

    # --- Source of the web pages ------------------------------------------------------

    def status(self) -> Json:
        """The depot at a glance."""
        name = self.settings.site.name
        return views.status(self.depot, self.clock.now(), self.clouds, name)

    def stations(self) -> list[Json]:
        """All stations."""
        return views.stations(
            self.depot, self.clock.now(), self.server.last_seen, self._profile_of
        )

    async def sessions(self, limit: int) -> list[Json]:
        """Sessions, newest first; open ones as they are in memory."""
        stored = await self.store.sessions(limit=limit)
        now = self.clock.now()
        return [views.session(self._newest(item.session_id, item), now) for item in stored]

    async def session(self, session_id: str) -> Json | None:
        """One session."""
        wanted = SessionId(session_id)
        stored = await self.store.sessions(limit=1, session_id=wanted)
        now = self.clock.now()
        return views.session(self._newest(wanted, stored[0]), now) if stored else None

    def _newest(self, session_id: SessionId, stored: Session) -> Session:
        state = self.depot.states.get(stored.station_id)
        return state.sessions.get(session_id, stored) if state is not None else stored

    def vehicles(self) -> list[Json]:
        """The registry."""
        return views.vehicles(self.depot, self.clock.now())

    def explain(self, station_id: str, evse_id: int) -> Json | None:
        """Why an outlet has its limit."""
        return explain(
            self.depot,
            self.executor.diary,
            StationId(station_id),
            EvseId(evse_id),
            self.clock.now(),
        )

    def plans(self) -> list[Json]:
        """Schedules with plans."""
        return views.plans(self.depot, self.clock.now())

    async def outbox(self) -> list[Json]:
        """Owed messages."""
        rows = await self.store.outbox_rows()
        return views.outbox(rows, self._destinations, self.clock.now())

    async def candidates(self) -> list[Json]:
        """Addresses for enrolment."""
        return views.candidates(await self.store.candidates())

    async def health(self) -> list[str]:
        """What hangs."""
        hanging: list[str] = []
        if self._lag_s > LAG_MAX_S:
            hanging.append(f"the event loop lags by {self._lag_s:.1f} s")
        try:
            async with asyncio.timeout(WRITER_MAX_S):
                await self.store.ask(lambda db: db.execute("SELECT 1").fetchone())
        except (TimeoutError, StoreFault):
            hanging.append("the database writer does not answer")
        last = self.executor.last_pass_at
        if last is not None:
            age_s = (self.clock.now() - last).total_seconds() * self._pace
            if age_s > PASS_MAX_S:
                hanging.append(f"the power loop has not run for {age_s:.0f} s")
        return hanging

    def missing(self) -> list[str]:
        """What stations still have to wait for."""
        return [] if self.is_ready.is_set() else ["the station port is not open yet"]

    def metrics(self) -> bytes:
        """Prometheus text."""
        return text_of(self._samples)

    def _samples(self) -> Iterator[Sample]:
        now = self.clock.now()
        state = views.status(self.depot, now, self.clouds, "")
        for name, text in (
            ("cap_w", "hard limit of the site, grid side, watts"),
            ("unmanaged_w", "site load beside charging as it is counted, watts"),
            ("drawn_grid_w", "measured power of all outlets, grid side, watts"),
            ("stations_connected", "stations with a live link"),
            ("sessions_open", "vehicles plugged in"),
            ("sessions_charging", "transactions running"),
            ("vehicles", "vehicles in the registry"),
            ("plans", "schedules with a plan"),
        ):
            value = state[name]
            if isinstance(value, (int, float)):
                yield Sample(name=name, help=text, value=float(value))
        for cloud in self.clouds:
            label = (("cloud", cloud.name),)
            reach = float(cloud.is_reachable)
            yield Sample(
                name="cloud_reachable", help="1 if it answers", value=reach, labels=label
            )
        for part in self.parts:
            yield from part.samples()
        for kind, count in self.intake.counts.items():
            label = (("event", kind),)
            yield Sample(
                name="events",
                help="facts taken in",
                value=count,
                labels=label,
                is_counter=True,
            )
        for name, text, count in (
            ("orders", "charging profiles sent", self.executor.orders),
            ("power_passes", "looks of the power loop at the depot", self.executor.passes),
            ("commits", "transactions on disk", self.store.commits),
            ("handshakes_refused", "connections refused", self.server.refused),
            ("takeovers", "links replaced by newer ones", self.server.takeovers),
        ):
            yield Sample(name=name, help=text, value=count, is_counter=True)
        for row in self.stations():
            name = str(row["station_id"])
            if StationId(name) in self.depot.traits:
                label = (("station_id", name),)
                up = float(bool(row["connected"]))
                yield Sample(
                    name="station_up", help="1 if connected", value=up, labels=label
                )
                writes = self.depot.writes.get(StationId(name))
                yield Sample(
                    name="limit_writes",
                    help="charging profiles written to the station",
                    value=writes.total if writes is not None else 0,
                    labels=label,
                    is_counter=True,
                )

    async def call(
        self, station_id: str, action: str, payload: Json, *, force: bool
    ) -> Answer:
        """Send an operator's call through the station's queue."""
        if action in POWER_ACTIONS and not force:
            error = f"{action} would break the power rules; --force sends it all the same"
            return _error("Refused", error, 409)
        try:
            outcome = await self.server.call(StationId(station_id), action, payload)
        except StationFault as fault:
            return _error("FormationViolation", str(fault), 400)
        if outcome.payload is not None:
            return Answer(status=200, body={"result": outcome.payload})
        if outcome.code == "Timeout":
            return _error("Timeout", f"{station_id} did not answer in time", 504)
        if outcome.code == "Offline":
            return _error("Offline", outcome.description, 404)
        return _error(outcome.code, outcome.description, 200)

    async def operate(self, name: str, arguments: Json) -> Answer:
        """Run an operation of a part."""
        status, body = await self.operations.run(name, arguments)
        return Answer(status=status, body=body)

    async def backup(self, path: str) -> str | None:
        """Write a copy of the database."""
        try:
            await self.store.backup(Path(path))
        except StoreFault as fault:
            return str(fault)
        return None


async def run_daemon(settings: Settings, config_path: Path) -> None:
    """Run as a service: SIGTERM and SIGINT stop, SIGHUP reloads."""
    daemon = Daemon(settings, config_path=config_path)
    garbage.settle()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop_wanted.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    log.info("agent_started", site=settings.site.name, stations=len(settings.stations))
    await daemon.run()


def _tell_restored(restored: Restored, now: datetime) -> None:
    since = restored.lost_since
    lost_s = None if since is None else round((now - since).total_seconds())
    log.error(
        "database_restored",
        reason=restored.reason,
        set_aside=str(restored.set_aside),
        backup=str(restored.backup),
        lost_since=None if since is None else since.isoformat(),
        lost_s=lost_s,
    )


def _error(code: str, description: str, status: int) -> Answer:
    error = {"code": code, "description": description, "details": {}}
    return Answer(status=status, body={"error": error})
