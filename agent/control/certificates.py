"""Certificates of stations over time: asked for, signed, sent, listed, about to end.

What was issued and what stations hold is kept in scope ``station-certificates``, one
fact per station; certificates are public, their keys never leave the stations.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from agent.control.operations import Arguments, OperationRefused, flag_of, text_of
from agent.control.security import texts
from agent.domain.errors import AgentFault, StationFault
from agent.domain.ids import StationId
from agent.ports import (
    Answer,
    Clock,
    FactSaved,
    InstalledCertificate,
    OrderAnswer,
    SignedCertificate,
    Signer,
    StationSecurity,
    Store,
)

log = structlog.get_logger()

SCOPE = "station-certificates"
ISSUED_KEPT = 10
REQUESTS_MAX, REQUESTS_S = 10, 3600.0
"""Requests of one station an hour; a station in a loop gets a no."""
COLLECT_S = 5.0
"""How often the signer is asked, seconds of the depot's clock."""
CHECK_S = 6 * 3600.0
"""How often dates are looked at."""
WARN_DAYS, ALARM_DAYS = 30.0, 7.0
RENEW_ASK_S = 86_400.0
"""A station is asked to renew at most once a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """A certificate of the gateway: ``name`` is ``server-rsa`` or ``server-ecdsa``."""

    name: str
    not_after: datetime


class Source(Protocol):
    """What the keeper needs to know of the depot."""

    def known(self) -> Sequence[StationId]:
        """List the configured stations."""
        ...

    def names_of(self, station_id: StationId) -> Sequence[str]:
        """Tell what a station's certificate may call it; nothing for a stranger."""
        ...

    def own(self) -> Sequence[OwnCertificate]:
        """List the gateway's own certificates."""
        ...

    def describe(self, pem: str) -> SignedCertificate:
        """Read a PEM certificate. Raises AgentFault."""
        ...


class CertificateKeeper:
    """The certificate desk of the depot."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        stations: StationSecurity,
        *,
        signer: Signer | None,
        source: Source,
        renew_days: float,
    ) -> None:
        """Nobody signs when ``signer`` is None; everything else works all the same."""
        self._store = store
        self._clock = clock
        self._stations = stations
        self._signer = signer
        self._source = source
        self._renew_days = renew_days
        self._facts: dict[StationId, dict[str, object]] = {}
        self._asked: dict[StationId, deque[datetime]] = {}
        self._renewed_at: dict[StationId, datetime] = {}
        self._wake = asyncio.Event()
        self._due: set[StationId] = set()

    async def load(self) -> None:
        """Read what survived a restart. Raises StoreFault."""
        for name, body in (await self._store.facts(SCOPE)).items():
            self._facts[StationId(name)] = dict(body)

    # --- a station asks ---------------------------------------------------------------

    async def wanted(self, station_id: StationId, csr: str, request_id: int | None) -> bool:
        """Take a request; whether it will be signed. Raises StoreFault."""
        problem = self._problem(station_id, csr)
        if problem is None and self._signer is not None:
            try:
                await self._signer.submit(station_id, csr)
            except OSError as error:
                problem = f"the signer's folder does not take it: {error.strerror}"
        if problem is not None:
            log.warning(
                "certificate_request_refused", station_id=station_id, reason=problem
            )
            return False
        now = self._clock.now()
        wanted: dict[str, object] = {"request_id": request_id, "at": now.isoformat()}
        await self._save(station_id, {"wanted": wanted})
        log.info("certificate_requested", station_id=station_id)
        self._wake.set()
        return True

    def _problem(self, station_id: StationId, csr: str) -> str | None:
        if self._signer is None:
            return "nobody here signs: see [ocpp.pki]"
        names = self._source.names_of(station_id)
        if not names:
            return "the station is not configured"
        now = self._clock.now()
        times = self._asked.setdefault(station_id, deque(maxlen=REQUESTS_MAX))
        since = now - timedelta(seconds=REQUESTS_S)
        if len(times) == REQUESTS_MAX and times[0] > since:
            return f"over {REQUESTS_MAX} requests an hour"
        times.append(now)
        return self._signer.problem(csr, names)

    # --- it is signed and sent --------------------------------------------------------

    async def run(self) -> None:
        """Fetch what was signed and send it, for ever."""
        while True:
            self._wake.clear()
            try:
                await self._collect()
            except AgentFault as fault:
                log.error("record_not_stored", reason=str(fault))
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(self._clock.sleep(COLLECT_S))
                woken = tasks.create_task(self._wake.wait())
                await asyncio.wait({waiting, woken}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                woken.cancel()

    async def _collect(self) -> None:
        signer = self._signer
        if signer is not None:
            now = self._clock.now()
            for signed in await signer.collect(self._source.names_of, now):
                await self._take(signed)
        due, self._due = self._due, set()
        for station_id in due:
            await self._send(station_id)

    async def _take(self, signed: SignedCertificate) -> None:
        station_id = signed.station_id
        if signed.problem:
            log.warning(
                "certificate_not_signed", station_id=station_id, reason=signed.problem
            )
            return
        body = self._facts.get(station_id, {})
        wanted = body.get("wanted")
        row: dict[str, object] = {
            "serial": signed.serial,
            "common_name": signed.common_name,
            "not_after": signed.not_after.isoformat() if signed.not_after else "",
            "signed_at": self._clock.now().isoformat(),
            "state": "signed",
            "answer": "",
        }
        issued = [*texts(body, "issued"), row][-ISSUED_KEPT:]
        request_id = wanted.get("request_id") if isinstance(wanted, Mapping) else None
        to_send: dict[str, object] = {"chain": signed.chain, "request_id": request_id}
        await self._save(station_id, {"issued": issued, "to_send": to_send, "wanted": None})
        self._due.add(station_id)

    def connected(self, station_id: StationId) -> None:
        """Send what a station did not get while it was away."""
        if self._facts.get(station_id, {}).get("to_send"):
            self._due.add(station_id)
            self._wake.set()

    async def _send(self, station_id: StationId) -> None:
        to_send = self._facts.get(station_id, {}).get("to_send")
        if not isinstance(to_send, Mapping):
            return
        request_id = to_send.get("request_id")
        try:
            answer = await self._stations.send_certificate(
                station_id,
                str(to_send.get("chain", "")),
                request_id if isinstance(request_id, int) else None,
            )
        except StationFault as fault:
            await self._settle(station_id, "refused", str(fault))
            return
        if answer.answer in (Answer.SILENT, Answer.OFFLINE):
            # It goes out again when the station connects anew.
            log.info("certificate_waits", station_id=station_id, reason=answer.detail)
            return
        state = "accepted" if answer.answer is Answer.ACCEPTED else "refused"
        await self._settle(station_id, state, answer.detail)

    async def _settle(self, station_id: StationId, state: str, detail: str) -> None:
        rows = texts(self._facts.get(station_id, {}), "issued")
        if rows:
            rows[-1] = {**rows[-1], "state": state, "answer": detail[:100]}
        await self._save(station_id, {"issued": rows, "to_send": None})
        if state == "accepted":
            log.info("certificate_accepted", station_id=station_id)
        else:
            log.warning("certificate_rejected", station_id=station_id, reason=detail[:100])

    async def _save(self, station_id: StationId, changes: Mapping[str, object]) -> None:
        body = {**self._facts.get(station_id, {}), **changes}
        kept = {name: value for name, value in body.items() if value is not None}
        fact = FactSaved(scope=SCOPE, name=station_id, body=kept)
        await self._store.commit([fact], self._clock.now())
        self._facts[station_id] = kept

    # --- what an operator asks --------------------------------------------------------

    async def listed(self, arguments: Arguments) -> object:
        """Operation: what was issued to a station, and which roots it holds."""
        station_id = StationId(text_of(arguments, "station"))
        problem = ""
        if self._stations.version_of(station_id) is not None:
            try:
                await self._read_installed(station_id)
            except StationFault as fault:
                problem = str(fault)
        else:
            problem = "not connected: installed as last read"
        body = self._facts.get(station_id, {})
        ends = self._stations.certificate_ends(station_id)
        return {
            "station": station_id,
            "issued": texts(body, "issued"),
            "installed": texts(body, "installed"),
            "installed_at": body.get("installed_at"),
            "link_certificate_ends": ends.isoformat() if ends else None,
            "problem": problem,
        }

    async def _read_installed(self, station_id: StationId) -> list[InstalledCertificate]:
        found = await self._stations.installed(station_id)
        known = {
            str(row.get("serial", "")).lstrip("0"): row
            for row in texts(self._facts.get(station_id, {}), "roots")
        }
        rows: list[dict[str, object]] = [
            {
                "kind": item.kind,
                "serial": item.serial,
                "not_after": known.get(item.serial.lstrip("0"), {}).get("not_after"),
                "hash_data": dict(item.hash_data),
            }
            for item in found
        ]
        now = self._clock.now().isoformat()
        await self._save(station_id, {"installed": rows, "installed_at": now})
        return found

    async def install(self, arguments: Arguments) -> object:
        """Operation: install a root at a station."""
        station_id = self._connected(arguments)
        kind = text_of(arguments, "kind", "csms")
        pem = text_of(arguments, "pem")
        try:
            described = self._source.describe(pem)
        except AgentFault as fault:
            raise OperationRefused(f"that is no certificate: {fault}") from fault
        now = self._clock.now()
        if described.not_after is not None and described.not_after <= now:
            raise OperationRefused("that certificate has expired")
        answer = await self._stations.install(station_id, kind, pem)
        if answer.answer is not Answer.ACCEPTED:
            raise OperationRefused(
                f"{station_id} did not take it: {answer.answer} {answer.detail}", status=409
            )
        row: dict[str, object] = {
            "kind": kind,
            "serial": described.serial,
            "common_name": described.common_name,
            "not_after": described.not_after.isoformat() if described.not_after else "",
        }
        roots = [
            item
            for item in texts(self._facts.get(station_id, {}), "roots")
            if item.get("serial") != described.serial
        ]
        await self._save(station_id, {"roots": [*roots, row][-ISSUED_KEPT:]})
        log.info(
            "certificate_installed",
            station_id=station_id,
            kind=kind,
            serial=described.serial,
        )
        return {"station": station_id, "installed": row}

    async def delete(self, arguments: Arguments) -> object:
        """Operation: delete a root by its serial number; the last way home is kept."""
        station_id = self._connected(arguments)
        serial = text_of(arguments, "serial").lower().replace(":", "").lstrip("0")
        found = await self._read_installed(station_id)
        chosen = [item for item in found if item.serial.lstrip("0") == serial]
        if len(chosen) != 1:
            held = ", ".join(item.serial for item in found) or "none"
            raise OperationRefused(
                f"{station_id} does not hold exactly one certificate {serial[:64]}; "
                f"it holds: {held}"
            )
        is_last = (
            chosen[0].kind == "csms" and sum(item.kind == "csms" for item in found) == 1
        )
        if is_last and not flag_of(arguments, "force"):
            raise OperationRefused(
                "it is the last root by which the station knows this gateway: install "
                "another one first, or use --force"
            )
        answer = await self._stations.delete(station_id, chosen[0].hash_data)
        if answer.answer is not Answer.ACCEPTED:
            raise OperationRefused(
                f"{station_id} did not delete it: {answer.answer} {answer.detail}",
                status=409,
            )
        log.info("certificate_deleted", station_id=station_id, serial=serial)
        return {"station": station_id, "deleted": chosen[0].serial}

    async def renew(self, arguments: Arguments) -> object:
        """Operation: ask a station to renew its own certificate now."""
        station_id = self._connected(arguments)
        if self._signer is None:
            raise OperationRefused("nobody here signs: see [ocpp.pki]", status=409)
        answer = await self._stations.ask_for_request(station_id)
        if answer.answer is not Answer.ACCEPTED:
            raise OperationRefused(
                f"{station_id} will not: {answer.answer} {answer.detail}", status=409
            )
        return {"station": station_id, "answer": answer.detail}

    def _connected(self, arguments: Arguments) -> StationId:
        station_id = StationId(text_of(arguments, "station"))
        if self._stations.version_of(station_id) is None:
            raise OperationRefused(f"{station_id} is not connected", status=409)
        return station_id

    # --- dates --------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look at all dates, now and every few hours, for ever."""
        while True:
            await self.check()
            await self._clock.sleep(CHECK_S)

    async def check(self) -> None:
        """Warn of what ends soon, and let stations renew in time."""
        now = self._clock.now()
        for item in self._source.own():
            _warn(now, item.not_after, certificate=item.name)
        for station_id, ends in self.station_ends().items():
            _warn(now, ends, station_id=station_id, certificate="station")
            await self._renew_soon(station_id, ends, now)
        for station_id, body in self._facts.items():
            for row in texts(body, "roots"):
                if root_ends := _moment(row.get("not_after")):
                    name = f"root {row.get('serial')}"
                    _warn(now, root_ends, station_id=station_id, certificate=name)

    async def _renew_soon(
        self, station_id: StationId, ends: datetime, now: datetime
    ) -> None:
        if self._signer is None or ends - now > timedelta(days=self._renew_days):
            return
        last = self._renewed_at.get(station_id)
        if last is not None and now - last < timedelta(seconds=RENEW_ASK_S):
            return
        if self._stations.version_of(station_id) is None:
            return
        self._renewed_at[station_id] = now
        try:
            answer = await self._stations.ask_for_request(station_id)
        except StationFault as fault:
            answer = OrderAnswer(answer=Answer.ERROR, detail=str(fault))
        log.info(
            "certificate_renewal_asked", station_id=station_id, answer=answer.detail[:64]
        )

    def station_ends(self) -> dict[StationId, datetime]:
        """When each station's own certificate ends: as seen in TLS, else as issued."""
        found: dict[StationId, datetime] = {}
        for station_id, body in self._facts.items():
            good = [row for row in texts(body, "issued") if row.get("state") == "accepted"]
            if good and (ends := _moment(good[-1].get("not_after"))):
                found[station_id] = ends
        for station_id in self._source.known():
            if seen := self._stations.certificate_ends(station_id):
                found[station_id] = seen
        return found


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) and text else None
    except ValueError:
        return None


def _warn(now: datetime, ends: datetime, **fields: str) -> None:
    days = (ends - now).total_seconds() / 86400
    if days <= 0:
        log.error("certificate_expired", days_left=round(days, 1), **fields)
    elif days <= ALARM_DAYS:
        log.error("certificate_expiring_soon", days_left=round(days, 1), **fields)
    elif days <= WARN_DAYS:
        log.warning("certificate_expiring", days_left=round(days, 1), **fields)
