"""The certificates of a virtual station: roots it holds, its own key, what it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from agent.simulator.answers import ACCEPTED, REJECTED

if TYPE_CHECKING:
    from agent.simulator.answers import Handler
    from agent.simulator.core import Core

OWN_KIND = "ChargingStationCertificate"
NOT_FOUND: dict[str, Any] = {"status": "NotFound"}


class Certificates:
    """Answers about certificates, and asks for one; keys stay in memory."""

    def __init__(self, core: Core, request_id: int | None = None) -> None:
        """Begin with none; `request_id` goes into requests (2.1)."""
        self._core = core
        self._request_id = request_id
        self._key: ec.EllipticCurvePrivateKey | None = None
        self.roots: dict[str, list[dict[str, Any]]] = {}
        self.chain = ""

    def handlers(self) -> dict[str, Handler]:
        """List the actions that are answered here."""
        return {
            "CertificateSigned": self._signed,
            "DeleteCertificate": self._delete,
            "GetInstalledCertificateIds": self._ids,
            "InstallCertificate": self._install,
        }

    def ask(self) -> None:
        """Make a key and ask the central system to sign it."""
        core = self._core
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, core.config.station_id)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        signed = request.sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM).decode()
        payload: dict[str, Any] = {"csr": pem}
        if core.config.is_2x:
            payload["certificateType"] = OWN_KIND
        if self._request_id is not None:
            payload["requestId"] = self._request_id
        core.spawn(lambda: core.say("SignCertificate", payload))

    def _signed(self, payload: dict[str, Any]) -> dict[str, Any]:
        chain = str(payload["certificateChain"])
        try:
            leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        except ValueError:
            return REJECTED
        if self._key is None or leaf.public_key() != self._key.public_key():
            return REJECTED
        if self._request_id is not None and payload.get("requestId") != self._request_id:
            return REJECTED
        self.chain = chain
        self._core.pulse()
        return ACCEPTED

    def _install(self, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            root = x509.load_pem_x509_certificate(str(payload["certificate"]).encode())
        except ValueError:
            return REJECTED
        rows = self.roots.setdefault(str(payload["certificateType"]), [])
        data = _hash_data(root)
        if data not in rows:
            rows.append(data)
        return ACCEPTED

    def _delete(self, payload: dict[str, Any]) -> dict[str, Any]:
        for rows in self.roots.values():
            if payload["certificateHashData"] in rows:
                rows.remove(payload["certificateHashData"])
                return ACCEPTED
        return NOT_FOUND

    def _ids(self, payload: dict[str, Any]) -> dict[str, Any]:
        wanted = payload.get("certificateType")
        if not self._core.config.is_2x:
            rows = self.roots.get(str(wanted), [])
            return {**ACCEPTED, "certificateHashData": rows} if rows else NOT_FOUND
        chains = [
            {"certificateType": kind, "certificateHashData": row}
            for kind, rows in self.roots.items()
            if wanted is None or kind in wanted
            for row in rows
        ]
        return {**ACCEPTED, "certificateHashDataChain": chains} if chains else NOT_FOUND


def _hash_data(root: x509.Certificate) -> dict[str, Any]:
    builder = ocsp.OCSPRequestBuilder().add_certificate(root, root, hashes.SHA256())
    named = builder.build()
    return {
        "hashAlgorithm": "SHA256",
        "issuerNameHash": named.issuer_name_hash.hex(),
        "issuerKeyHash": named.issuer_key_hash.hex(),
        "serialNumber": f"{root.serial_number:x}",
    }
