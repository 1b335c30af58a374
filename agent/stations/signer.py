"""Who signs what stations ask for: the depot's own CA, or somebody else by file drop.

The folder of an external signer holds ``<station>.csr`` when one is wanted and takes
``<station>.pem`` when it is there (leaf first, then what stands between it and the
root). Names are percent-encoded, so that no station can choose a path.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote

from agent.domain.errors import ConfigFault, ConfigProblem
from agent.domain.ids import StationId
from agent.ports import SignedCertificate
from agent.stations.certificates import (
    CHAIN_MAX,
    Authority,
    CertificateFault,
    answer_problem,
    facts_of,
    pem_of,
    read_chain,
    request_problem,
)

NamesOf = Callable[[StationId], Sequence[str]]
FILE_MAX = 64 * 1024
SETTLED_S = 5.0
"""A file that changed within it may still be written: nothing is refused yet."""


class LocalSigner:
    """The depot's own CA."""

    def __init__(self, authority: Authority, *, days: int) -> None:
        """Sign for ``days`` with a CA that was read."""
        self._authority = authority
        self._days = days
        self._wanted: dict[StationId, str] = {}

    @classmethod
    def open(cls, certificate: str, key: str, *, days: int) -> LocalSigner:
        """Read the CA from its files. Raises ConfigFault."""
        try:
            found = Authority.read(Path(certificate).read_bytes(), Path(key).read_bytes())
        except (OSError, CertificateFault) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            problem = ConfigProblem(
                key="ocpp.pki.ca_key",
                value=key,
                problem=f"the CA cannot be used: {text}",
                remedy="name a CA and its key; `depot-agent pki init` makes one",
            )
            raise ConfigFault([problem]) from error
        return cls(found, days=days)

    def problem(self, csr: str, names: Sequence[str]) -> str | None:
        """Why a request will not be signed, or None."""
        return request_problem(csr, names)

    async def submit(self, station_id: StationId, csr: str) -> None:
        """Take a request that was found good."""
        self._wanted[station_id] = csr

    async def collect(self, names_of: NamesOf, now: datetime) -> list[SignedCertificate]:
        """Sign what was taken."""
        wanted, self._wanted = self._wanted, {}
        return [
            await asyncio.to_thread(self._sign, station_id, csr, names_of(station_id), now)
            for station_id, csr in wanted.items()
        ]

    def _sign(
        self, station_id: StationId, csr: str, names: Sequence[str], now: datetime
    ) -> SignedCertificate:
        try:
            leaf = self._authority.issue_station(csr, names, now, self._days)
        except CertificateFault as fault:
            return SignedCertificate(station_id=station_id, problem=str(fault))
        return _signed(station_id, pem_of(leaf).decode())


class FolderSigner:
    """An external signer who reads and writes files in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists, and that both may write."""
        self._folder = folder

    def problem(self, csr: str, names: Sequence[str]) -> str | None:
        """Why a request will not be handed over, or None."""
        if not self._folder.is_dir():
            return f"the folder {self._folder} of ocpp.pki.exchange_folder is missing"
        return request_problem(csr, names)

    async def submit(self, station_id: StationId, csr: str) -> None:
        """Write the request. Raises OSError when the folder does not take it."""
        await asyncio.to_thread(self._write, station_id, csr)

    def _write(self, station_id: StationId, csr: str) -> None:
        file = self._file(station_id, "csr")
        part = file.with_name(file.name + ".part")
        part.write_text(csr, encoding="ascii", errors="replace")
        part.replace(file)

    async def collect(self, names_of: NamesOf, now: datetime) -> list[SignedCertificate]:
        """Take the certificates that arrived for requests that are open."""
        return await asyncio.to_thread(self._collect, names_of, now)

    def _collect(self, names_of: NamesOf, now: datetime) -> list[SignedCertificate]:
        found: list[SignedCertificate] = []
        try:
            requests = sorted(self._folder.glob("*.csr"))
        except OSError:
            return found
        for request in requests:
            pem = request.with_suffix(".pem")
            station_id = StationId(unquote(request.name.removesuffix(".csr")))
            names = names_of(station_id)
            if not names or not pem.is_file():
                continue
            try:
                taken = self._take(station_id, request, pem, names, now)
                found += [taken] if taken is not None else []
            except OSError as error:
                problem = f"{pem.name} cannot be taken: {error.strerror}"
                found.append(SignedCertificate(station_id=station_id, problem=problem))
        return found

    def _take(
        self,
        station_id: StationId,
        request: Path,
        pem: Path,
        names: Sequence[str],
        now: datetime,
    ) -> SignedCertificate | None:
        with pem.open("rb") as stream:
            chain = stream.read(FILE_MAX).decode("ascii", "replace")
            age_s = now.timestamp() - os.fstat(stream.fileno()).st_mtime
        csr = request.read_text(encoding="ascii", errors="replace")
        problem = answer_problem(chain, csr, names, now)
        if problem is not None and abs(age_s) < SETTLED_S:
            return None  # a copy under way is no answer yet
        pem.replace(pem.with_suffix(".pem.refused" if problem else ".pem.taken"))
        if problem is not None:
            return SignedCertificate(station_id=station_id, problem=problem)
        request.unlink()
        return _signed(station_id, chain)

    def _file(self, station_id: StationId, kind: str) -> Path:
        # A leading dot would hide the file, and two of them would leave the folder.
        name = quote(station_id, safe="")
        return self._folder / f"{name.replace('.', '%2E')}.{kind}"


def _signed(station_id: StationId, chain: str) -> SignedCertificate:
    facts = facts_of(read_chain(chain)[0])
    if len(chain) > CHAIN_MAX:
        return SignedCertificate(station_id=station_id, problem="the chain is too long")
    return SignedCertificate(
        station_id=station_id,
        chain=chain,
        serial=facts.serial,
        common_name=facts.common_name,
        not_after=facts.not_after,
    )
