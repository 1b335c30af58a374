"""The TLS of the station port: versions, suites, two certificates, change while running.

Security whitepaper A00, ocpp-depot.md C6. One context listens for ever; at each handshake
it hands over to the newest one that was read whole, so that certificates change without
closing the port or a link.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509

from agent.domain.errors import ConfigFault, ConfigProblem
from agent.stations.certificates import (
    CertificateFacts,
    CertificateFault,
    facts_of,
    read_chain,
    revoked_serials,
)

log = structlog.get_logger()

HANDSHAKE_S = 10.0
"""As for the rest of a handshake (faults.md R1)."""
SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; what A00.FR.317 wants with forward secrecy. TLS 1.3 has its own."""
STATIC_RSA_SUITES = ":AES128-GCM-SHA256:AES256-GCM-SHA384"
"""Without forward secrecy: only for stations that know nothing better."""
FOR_OTHERS = 0o007
"""Mode bits of a private key that is nobody's secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What the listener needs: pairs of certificate chain and key, who signs stations."""

    pairs: tuple[tuple[str, str], ...]
    client_ca: str = ""
    client_crl: str = ""
    static_rsa: bool = False


class _Watched(ssl.SSLObject):
    """Tells why a handshake failed; the event loop keeps that to itself (SEC-01)."""

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises what the library raises."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            told = getattr(error, "verify_message", "") or error.reason or str(error)
            log.warning("tls_handshake_failed", reason=str(told)[:120].lower())
            raise


@dataclass(frozen=True, slots=True)
class _Current:
    context: ssl.SSLContext
    facts: tuple[CertificateFacts, ...]
    revoked: frozenset[int]


@dataclass(slots=True)
class TlsDoor:
    """The listener's TLS; ``load`` reads the files, again whenever they change."""

    _current: _Current = field(init=False)
    context: ssl.SSLContext = field(init=False)

    @classmethod
    def open(cls, files: TlsFiles) -> TlsDoor:
        """Read the files. Raises ConfigFault."""
        door = cls()
        door.load(files)
        front = _context(files)
        front.sslobject_class = _Watched
        front.sni_callback = door._hand_over
        door.context = front
        return door

    @property
    def facts(self) -> tuple[CertificateFacts, ...]:
        """The gateway's own certificates, as last read."""
        return self._current.facts

    @property
    def revoked(self) -> frozenset[int]:
        """Serial numbers of stations' certificates that were taken back."""
        return self._current.revoked

    def load(self, files: TlsFiles) -> None:
        """Read everything anew, whole or not at all. Raises ConfigFault."""
        facts = tuple(_checked(index, *pair) for index, pair in enumerate(files.pairs))
        kinds = [item.is_rsa for item in facts]
        if len(set(kinds)) < len(kinds):
            raise _fault(
                "ocpp.tls.certificate_2",
                files.pairs[1][0],
                "has the same kind of key as the first certificate",
                "give one RSA and one ECDSA certificate",
            )
        revoked: frozenset[int] = frozenset()
        if files.client_crl:
            try:
                revoked = revoked_serials(_read("ocpp.tls.client_crl", files.client_crl))
            except CertificateFault as fault:
                raise _fault(
                    "ocpp.tls.client_crl", files.client_crl, str(fault), "write it anew"
                ) from fault
        self._current = _Current(_context(files), facts, revoked)

    def _hand_over(
        self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext
    ) -> None:
        """Called in every handshake, whether or not the station names a server."""
        connection.context = self._current.context


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES + (STATIC_RSA_SUITES if files.static_rsa else ""))
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    # Every connection proves itself anew: a session kept for later would outlive a
    # certificate that was taken back.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    for index, (certificate, key) in enumerate(files.pairs):
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise _fault(
                f"ocpp.tls.private_key{_mark(index)}",
                key,
                f"does not fit its certificate: {error}",
                "name the key that the certificate was made for, without a pass phrase",
            ) from error
    if files.client_ca:
        try:
            context.load_verify_locations(files.client_ca)
        except OSError as error:
            raise _fault(
                "ocpp.tls.client_ca", files.client_ca, f"cannot be used: {error}", "name it"
            ) from error
        # Optional: stations of profile 2 have none, those of profile 3 are held to
        # theirs at the door. One that is sent must be good.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    """Else OpenSSL asks at the terminal."""
    raise ValueError("the key has a pass phrase")


def _checked(index: int, certificate: str, key: str) -> CertificateFacts:
    name = f"ocpp.tls.certificate{_mark(index)}"
    try:
        chain: list[x509.Certificate] = read_chain(_read(name, certificate))
    except CertificateFault as fault:
        raise _fault(name, certificate, str(fault), "name a PEM chain, leaf first") from (
            fault
        )
    key_name = f"ocpp.tls.private_key{_mark(index)}"
    try:
        mode = Path(key).stat().st_mode
    except OSError as error:
        raise _fault(key_name, key, f"cannot be read: {error.strerror}", "name it") from (
            error
        )
    if mode & FOR_OTHERS:
        raise _fault(
            key_name,
            key,
            "can be read by every user of this machine",
            f"chmod 0640 {key} (or 0600), and make a new key if others may have read it",
        )
    return facts_of(chain[0])


def _read(name: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise _fault(name, file, f"cannot be read: {error.strerror}", "name it") from error


def _mark(index: int) -> str:
    return "" if index == 0 else "_2"


def _fault(key: str, value: str, problem: str, remedy: str) -> ConfigFault:
    return ConfigFault(
        [ConfigProblem(key=key, value=value, problem=problem, remedy=remedy)]
    )
