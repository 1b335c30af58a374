"""Access and certificates of stations: what is learned, changed, signed, watched."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from agent import wiring
from agent.control.certificates import CertificateKeeper, OwnCertificate
from agent.control.security import AccessKeeper, EventBook
from agent.control.upkeep import Upkeep
from agent.domain.errors import StoreFault
from agent.domain.ids import StationId
from agent.host.metrics import Sample
from agent.parts.base import Ground, Part, Task
from agent.ports import SignedCertificate
from agent.settings import Settings
from agent.stations.certificates import facts_of, read_chain
from agent.stations.handshake import SALT_BYTES, hash_password, is_password
from agent.stations.security import SecurityCalls

log = structlog.get_logger()


def build(ground: Ground) -> Part | None:
    """Build the part; every depot has one."""
    return SecurityPart(ground)


class SecurityPart(Part):
    """The desk that stations' adapters report to, and its tasks."""

    def __init__(self, ground: Ground) -> None:
        """Take the desk of the station server and add the operations."""
        self._ground = ground
        self._settings = ground.settings
        self._server = ground.server
        self._changed = asyncio.Event()
        store, clock = ground.store, ground.clock
        calls = SecurityCalls(ground.server)
        pki = ground.settings.ocpp.pki
        self._access = AccessKeeper(
            ground.server.entrance.known,
            store,
            clock,
            calls,
            self,
            lambda password: hash_password(password, secrets.token_bytes(SALT_BYTES)),
        )
        self._events = EventBook(store, clock)
        self._upkeep = Upkeep(calls, clock)
        self._certificates = CertificateKeeper(
            store,
            clock,
            calls,
            signer=wiring.signer(ground.settings),
            source=self,
            renew_days=float(pki.renew_days) if pki is not None else 0.0,
        )
        ground.server.use_desk(self)
        for name, operation in (
            ("stations.password", self._access.change_password),
            ("stations.security-events", self._events.listed),
            ("stations.certificates", self._certificates.listed),
            ("stations.install-certificate", self._certificates.install),
            ("stations.delete-certificate", self._certificates.delete),
            ("stations.renew-certificate", self._certificates.renew),
            ("stations.get-log", self._upkeep.get_log),
            ("stations.update-firmware", self._upkeep.update_firmware),
        ):
            ground.operations.add(name, operation)

    async def prepare(self) -> None:
        """Know who may come in, and how, before anybody comes."""
        await self._access.load()
        await self._events.load()
        await self._certificates.load()

    def tasks(self) -> Sequence[Task]:
        """Signing, looking at dates, judging links again after a reload."""
        return (
            ("certificates", self._certificates.run),
            ("certificate-dates", self._certificates.watch),
            ("access", self._recheck),
        )

    def reload(self, new: Settings) -> None:
        """Judge every live link by the new settings, soon."""
        self._settings = new
        self._changed.set()

    async def _recheck(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._access.reconfigured()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
            await self._server.recheck()
            await self._certificates.check()

    def samples(self) -> Sequence[Sample]:
        """Days that certificates have left, and what was kept out."""
        now = self._ground.clock.now()
        entrance = self._server.entrance
        found = [
            Sample(name=name, help=text, value=count, is_counter=True)
            for name, text, count in (
                (
                    "sources_blocked",
                    "sources that guessed too often",
                    entrance.brake.blocks,
                ),
                (
                    "handshakes_dropped",
                    "connections that never finished their handshake",
                    entrance.dropped,
                ),
                ("security_alarms", "grave security events", self._events.alarms),
            )
        ]
        found += [
            Sample(
                name="certificate_days_left",
                help="days until a certificate of the gateway ends",
                value=(item.not_after - now).total_seconds() / 86400,
                labels=(("certificate", item.name),),
            )
            for item in self.own()
        ]
        configured = set(self.known())
        found += [
            Sample(
                name="station_certificate_days_left",
                help="days until a station's own certificate ends",
                value=(ends - now).total_seconds() / 86400,
                labels=(("station_id", station_id),),
            )
            for station_id, ends in self._certificates.station_ends().items()
            if station_id in configured
        ]
        return found

    # --- the desk of the stations' adapters ---------------------------------------------

    async def admitted(
        self, station_id: StationId, profile: int, password_hash: str
    ) -> None:
        """Take note of what a new connection proved. Raises StoreFault."""
        await self._access.admitted(station_id, profile, password_hash)
        self._certificates.connected(station_id)

    async def event_reported(
        self, station_id: StationId, kind: str, station_time: str, detail: str
    ) -> None:
        """Keep and grade a security event. Raises StoreFault."""
        await self._events.reported(station_id, kind, station_time, detail)

    async def certificate_wanted(
        self, station_id: StationId, csr: str, request_id: int | None
    ) -> bool:
        """Take a request for the station's own certificate. Raises StoreFault."""
        return await self._certificates.wanted(station_id, csr, request_id)

    def progressed(
        self, station_id: StationId, what: str, status: str, request_id: int | None
    ) -> None:
        """Hear how a log upload or a firmware update goes on."""
        self._upkeep.progressed(station_id, what, status, request_id)

    # --- what the configuration says ------------------------------------------------------

    def password_hash(self, station_id: StationId) -> str:
        """Tell the hash of the configured password, empty without one."""
        access = self._server.doors.stations.get(station_id)
        return "" if access is None else access.password_hash

    def is_same(self, station_id: StationId, stored: str) -> bool:
        """Whether a hash from an earlier time is that of the configured password."""
        for item in self._settings.stations:
            if item.id == station_id:
                password = item.password.get_secret_value()
                if password:
                    return is_password(password, stored)
                return item.password_hash == stored
        return True

    def may_fall(self, station_id: StationId) -> bool:
        """Whether the station may go back to a lower profile."""
        access = self._server.doors.stations.get(station_id)
        return access is not None and access.allow_lower_profile

    def known(self) -> list[StationId]:
        """List the configured stations."""
        return list(self._server.doors.stations)

    def names_of(self, station_id: StationId) -> Sequence[str]:
        """Tell what a station's certificate may call it; nothing for a stranger."""
        access = self._server.doors.stations.get(station_id)
        return () if access is None else access.certificate_names

    def own(self) -> list[OwnCertificate]:
        """List the gateway's own certificates."""
        tls = self._server.tls
        return [
            OwnCertificate(
                name="server-rsa" if item.is_rsa else "server-ecdsa",
                not_after=item.not_after,
            )
            for item in (tls.facts if tls is not None else ())
        ]

    def describe(self, pem: str) -> SignedCertificate:
        """Read a PEM certificate. Raises CertificateFault."""
        facts = facts_of(read_chain(pem)[0])
        return SignedCertificate(
            station_id=StationId(""),
            serial=facts.serial,
            common_name=facts.common_name,
            not_after=facts.not_after,
        )
