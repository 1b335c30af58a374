"""X.509 as the depot needs it: read, check, request, sign; no files, no clock.

Security whitepaper A02 to A03 and section 3, ocpp-depot.md C6. Everything here takes and
gives PEM text; what is wrong with a peer's text is said in words, never raised as a bug.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.domain.errors import AgentFault

CSR_MAX, CHAIN_MAX = 5500, 10_000
"""Characters that OCPP carries at most (SignCertificate, CertificateSigned)."""
RSA_BITS_MIN, EC_BITS_MIN = 2048, 224
"""Keys below are refused (A00.FR.505: 112 bits of strength)."""
CLOCK_SLACK = timedelta(hours=24)
"""A station whose clock is late must still find its new certificate valid."""
DNS_NAME = re.compile(r"^(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*$")
SIGNED_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

BROKEN = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that only look like a certificate; it reads late."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class CertificateFault(AgentFault):
    """A certificate, key or request that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What is worth knowing of one certificate. ``serial`` in hex, as OCPP writes it."""

    serial: str
    common_name: str
    organization: str
    not_before: datetime
    not_after: datetime
    is_rsa: bool
    sha256: str

    def days_left(self, now: datetime) -> float:
        """Days until it expires; below 0 when it has."""
        return (self.not_after - now).total_seconds() / 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class HashData:
    """How OCPP names an installed certificate (CertificateHashDataType)."""

    serial_number: str
    issuer_name_hash: str
    issuer_key_hash: str
    algorithm: str = "SHA256"

    def as_json(self) -> dict[str, object]:
        """Write it as OCPP does."""
        return {
            "hashAlgorithm": self.algorithm,
            "issuerNameHash": self.issuer_name_hash,
            "issuerKeyHash": self.issuer_key_hash,
            "serialNumber": self.serial_number,
        }


# --- reading ----------------------------------------------------------------------


def read_chain(pem: str | bytes) -> list[x509.Certificate]:
    """Read one or more certificates. Raises CertificateFault."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        return x509.load_pem_x509_certificates(data)
    except BROKEN as error:
        # The library's own words point at its website.
        raise CertificateFault("there is no certificate in PEM") from error


def read_key(pem: bytes) -> PrivateKey:
    """Read an unencrypted private key, RSA or EC. Raises CertificateFault."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The reason is the library's and holds nothing of the key.
        raise CertificateFault("not an unencrypted PEM private key") from error
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise CertificateFault("the private key is neither RSA nor EC")
    return key


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """What is worth knowing of a certificate."""
    return CertificateFacts(
        serial=f"{certificate.serial_number:x}",
        common_name=_named(certificate.subject, NameOID.COMMON_NAME),
        organization=_named(certificate.subject, NameOID.ORGANIZATION_NAME),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_rsa=isinstance(certificate.public_key(), rsa.RSAPublicKey),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Common name and DNS names."""
    names = {_named(certificate.subject, NameOID.COMMON_NAME)}
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names.update(found.value.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, *BROKEN):
        pass
    return frozenset(names - {""})


def hash_data(certificate: x509.Certificate, issuer: x509.Certificate) -> HashData:
    """Name a certificate as GetInstalledCertificateIds does (RFC 6960 CertID, SHA-256).

    A root is its own issuer.
    """
    named = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(certificate, issuer, hashes.SHA256())
        .build()
    )
    return HashData(
        serial_number=f"{certificate.serial_number:x}",
        issuer_name_hash=named.issuer_name_hash.hex(),
        issuer_key_hash=named.issuer_key_hash.hex(),
    )


def revoked_serials(pem: bytes) -> frozenset[int]:
    """Serial numbers in a revocation list. Raises CertificateFault."""
    try:
        return frozenset(item.serial_number for item in x509.load_pem_x509_crl(pem))
    except BROKEN as error:
        raise CertificateFault("there is no revocation list in PEM") from error


# --- requests ---------------------------------------------------------------------


def request_problem(csr_pem: str, names: Sequence[str]) -> str | None:
    """Why a station's request must not be signed, or None.

    ``names`` are what the station may call itself: its id, its certificate name, its
    serial number; compared without case, ASCII only.
    """
    if len(csr_pem) > CSR_MAX:
        return f"the request has over {CSR_MAX} characters"
    try:
        return _csr_problem(x509.load_pem_x509_csr(csr_pem.encode()), names)
    except BROKEN:
        return "the request cannot be read as PKCS #10"


def _csr_problem(csr: x509.CertificateSigningRequest, names: Sequence[str]) -> str | None:
    key = csr.public_key()
    if not csr.is_signature_valid:
        return "the request's signature is not valid"
    weak = _weakness(key)
    if weak is not None:
        return weak
    if not isinstance(csr.signature_hash_algorithm, SIGNED_HASHES):
        return "the request is signed with a weak hash"
    found = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1:
        return "the request has no common name, or more than one"
    common = str(found[0].value)
    allowed = {name.lower() for name in names if name and name.isascii()}
    if not common.isascii() or common.lower() not in allowed:
        return f"the common name {common[:64]!r} is not this station's"
    return None


def _weakness(key: object) -> str | None:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            return f"an RSA key of {key.key_size} bits is weaker than {RSA_BITS_MIN}"
        return None
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.key_size < EC_BITS_MIN:
            return f"an EC key of {key.key_size} bits is weaker than {EC_BITS_MIN}"
        return None
    return "the key is neither RSA nor EC"


def answer_problem(
    chain_pem: str, csr_pem: str, names: Sequence[str], now: datetime
) -> str | None:
    """Why what a signer returned must not go to the station, or None."""
    if len(chain_pem) > CHAIN_MAX:
        return f"the chain has over {CHAIN_MAX} characters"
    try:
        leaf = read_chain(chain_pem)[0]
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        is_same = _spki(leaf.public_key()) == _spki(csr.public_key())
        found = {name.lower() for name in names_of(leaf)}
    except CertificateFault as fault:
        return str(fault)
    except BROKEN:
        return "the certificate or its request cannot be read"
    if not is_same:
        return "the certificate is not for the key of the request"
    if leaf.not_valid_after_utc <= now:
        return "the certificate has expired"
    if not found & {name.lower() for name in names if name}:
        return "the certificate does not name this station"
    return None


def _spki(key: object) -> bytes:
    made: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


def make_request(
    key: PrivateKey, common_name: str, organization: str = ""
) -> x509.CertificateSigningRequest:
    """Make a request, as a station does."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name(common_name, organization))
        .sign(key, hashes.SHA256())
    )


# --- making -----------------------------------------------------------------------


def make_key(*, is_rsa: bool, bits: int = 3072) -> PrivateKey:
    """Make a key: RSA, or EC on P-256."""
    if is_rsa:
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """Write a key as unencrypted PKCS #8; keep it from others by file mode."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def pem_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """Write a certificate or a request."""
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def read(cls, certificate_pem: bytes, key: bytes) -> Authority:
        """Read one and check that it can sign. Raises CertificateFault."""
        certificate, private = read_chain(certificate_pem)[0], read_key(key)
        if _spki(certificate.public_key()) != _spki(private.public_key()):
            raise CertificateFault("the CA's key does not belong to its certificate")
        try:
            found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:
            raise CertificateFault("the CA's certificate is not that of a CA") from None
        if not found.value.ca:
            raise CertificateFault("the CA's certificate is not that of a CA")
        return cls(certificate, private)

    @classmethod
    def make(
        cls, name: str, organization: str, now: datetime, days: int, *, bits: int = 3072
    ) -> Authority:
        """Make a root. RSA, because every station can check that."""
        key = make_key(is_rsa=True, bits=bits)
        subject = _name(name, organization)
        builder = (
            _builder(key.public_key(), subject, subject, now, now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(is_ca=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue_server(
        self, key: PrivateKey, hosts: Sequence[str], now: datetime, days: int
    ) -> x509.Certificate:
        """Issue the gateway's certificate; the first host is its common name (A00.FR.308).

        Raises CertificateFault for a host that is neither a DNS name nor an address.
        """
        names = [_general_name(host) for host in hosts]
        return self._issue(
            key.public_key(),
            _name(hosts[0], self._organization),
            names,
            ExtendedKeyUsageOID.SERVER_AUTH,
            now,
            days,
        )

    def issue_station(
        self, csr_pem: str, names: Sequence[str], now: datetime, days: int
    ) -> x509.Certificate:
        """Issue what a station asked for. Raises CertificateFault when it may not have it.

        Of the request only key, common name and organization are taken.
        """
        problem = request_problem(csr_pem, names)
        if problem is not None:
            raise CertificateFault(problem)
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        common = _named(csr.subject, NameOID.COMMON_NAME)
        wanted = _named(csr.subject, NameOID.ORGANIZATION_NAME)
        key = csr.public_key()
        assert isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey))  # noqa: S101 - checked
        return self._issue(
            key,
            _name(common, wanted or self._organization),
            [x509.DNSName(common)] if DNS_NAME.match(common) else [],
            ExtendedKeyUsageOID.CLIENT_AUTH,
            now,
            days,
        )

    @property
    def _organization(self) -> str:
        return _named(self.certificate.subject, NameOID.ORGANIZATION_NAME)

    def _issue(
        self,
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        use: x509.ObjectIdentifier,
        now: datetime,
        days: int,
    ) -> x509.Certificate:
        own = self.certificate
        until = min(now + timedelta(days=days), own.not_valid_after_utc)
        builder = (
            _builder(key, subject, own.subject, now, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)  # noqa: FBT003
            .add_extension(_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)  # noqa: FBT003
        return builder.sign(self.key, hashes.SHA256())


def _builder(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if DNS_NAME.match(host) is None:
            raise CertificateFault(f"{host!r} is no host name and no address") from None
        return x509.DNSName(host)


def _name(common_name: str, organization: str) -> x509.Name:
    try:
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        return x509.Name(parts)
    except ValueError as error:
        raise CertificateFault(f"{common_name[:80]!r} is no name: {error}") from error


def _named(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""
