"""Orders about a station's security: domain words -> payloads of its version, and back.

Security whitepaper A01 to M05 for 1.6, blocks A, L, M and N of 2.x; ocpp-depot.md C6.
No payload is ever logged here: one of them carries a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agent.domain.errors import StationFault
from agent.domain.ids import StationId
from agent.ports import Answer, InstalledCertificate, OrderAnswer
from agent.stations import schemas
from agent.stations.adapter import OWN_CERTIFICATE
from agent.stations.framing import Payload
from agent.stations.link import CallOutcome
from agent.stations.server import StationServer
from agent.stations.times import utc_text

KINDS = {
    "csms": "CSMSRootCertificate",
    "manufacturer": "ManufacturerRootCertificate",
    "v2g": "V2GRootCertificate",
    "mo": "MORootCertificate",
}
"""Roots by the names of our command line, in the words of 2.x."""
KINDS_16 = {
    "csms": "CentralSystemRootCertificate",
    "manufacturer": "ManufacturerRootCertificate",
}
LOGS = {"diagnostics": "DiagnosticsLog", "security": "SecurityLog"}
UNKNOWN = frozenset({"NotSupported", "NotImplemented"})
INSTALLED_MAX = 64
"""Roots of one station that are read."""
GOOD = frozenset({"accepted", "rebootrequired", "acceptedcanceled"})


class SecurityCalls:
    """The StationSecurity port over the station server."""

    def __init__(self, server: StationServer) -> None:
        """Send over the server's links."""
        self._server = server

    def version_of(self, station_id: StationId) -> str | None:
        """Tell the version of the live link, None without one."""
        return self._server.version_of(station_id)

    def certificate_ends(self, station_id: StationId) -> datetime | None:
        """Tell when the certificate ends that the live link was opened with."""
        return self._server.certificate_ends(station_id)

    async def hang_up(self, station_id: StationId) -> bool:
        """Close the link, so that the station connects anew."""
        return await self._server.hang_up(station_id)

    async def set_password(self, station_id: StationId, password: str) -> OrderAnswer:
        """Give the station another password; ``detail`` may be RebootRequired."""
        if self._is_16(station_id):
            payload: Payload = {"key": "AuthorizationKey", "value": password}
            return await self._order(station_id, "ChangeConfiguration", payload)
        item: Payload = {
            "component": {"name": "SecurityCtrlr"},
            "variable": {"name": "BasicAuthPassword"},
            "attributeValue": password,
        }
        outcome = await self._call(station_id, "SetVariables", {"setVariableData": [item]})
        results = (outcome.payload or {}).get("setVariableResult")
        first = results[0] if isinstance(results, list) and results else None
        if outcome.payload is None or not isinstance(first, dict):
            return _read(outcome)
        status = str(first.get("attributeStatus", ""))[:64]
        return _graded(status)

    async def send_certificate(
        self, station_id: StationId, chain: str, request_id: int | None
    ) -> OrderAnswer:
        """Send the station its own new certificate."""
        payload: Payload = {"certificateChain": chain}
        version = self._server.version_of(station_id)
        if version != schemas.V16:
            payload["certificateType"] = OWN_CERTIFICATE
        if version == schemas.V21 and request_id is not None:
            payload["requestId"] = request_id
        return await self._order(station_id, "CertificateSigned", payload)

    async def ask_for_request(self, station_id: StationId) -> OrderAnswer:
        """Ask the station to renew its certificate."""
        if self._is_16(station_id):
            payload: Payload = {"requestedMessage": "SignChargePointCertificate"}
            return await self._order(station_id, "ExtendedTriggerMessage", payload)
        payload = {"requestedMessage": "SignChargingStationCertificate"}
        return await self._order(station_id, "TriggerMessage", payload)

    async def installed(self, station_id: StationId) -> list[InstalledCertificate]:
        """Read which roots it holds. Raises StationFault when it does not say."""
        if not self._is_16(station_id):
            return _rows(await self._ids(station_id, {}), "", KINDS)
        found: list[InstalledCertificate] = []
        for kind, name in KINDS_16.items():
            answer = await self._ids(station_id, {"certificateType": name})
            found += _rows(answer, kind, KINDS_16)
        return found

    async def _ids(self, station_id: StationId, payload: Payload) -> Payload:
        outcome = await self._call(station_id, "GetInstalledCertificateIds", payload)
        if outcome.payload is None:
            raise StationFault(
                f"{station_id} did not tell its certificates: {outcome.code} "
                f"{outcome.description}"[:200].strip()
            )
        return outcome.payload

    async def install(self, station_id: StationId, kind: str, pem: str) -> OrderAnswer:
        """Install a root: ``csms``, ``manufacturer``, ``v2g`` or ``mo``."""
        kinds = KINDS_16 if self._is_16(station_id) else KINDS
        if kind not in kinds:
            raise StationFault(f"{kind} is none of {', '.join(kinds)} for this station")
        payload: Payload = {"certificateType": kinds[kind], "certificate": pem}
        return await self._order(station_id, "InstallCertificate", payload)

    async def delete(
        self, station_id: StationId, hash_data: Mapping[str, object]
    ) -> OrderAnswer:
        """Delete a root."""
        payload: Payload = {"certificateHashData": dict(hash_data)}
        return await self._order(station_id, "DeleteCertificate", payload)

    async def get_log(
        self, station_id: StationId, url: str, *, kind: str, request_id: int
    ) -> OrderAnswer:
        """Have a log uploaded: ``diagnostics`` or ``security``."""
        if kind not in LOGS:
            raise StationFault(f"{kind} is none of {', '.join(LOGS)}")
        payload: Payload = {
            "logType": LOGS[kind],
            "requestId": request_id,
            "log": {"remoteLocation": url},
        }
        outcome = await self._call(station_id, "GetLog", payload)
        is_old = self._is_16(station_id) and outcome.code in UNKNOWN
        if is_old and kind == "diagnostics":  # 1.6 without the whitepaper
            outcome = await self._call(station_id, "GetDiagnostics", {"location": url})
            if outcome.payload is not None:
                return OrderAnswer(answer=Answer.ACCEPTED, detail="by GetDiagnostics")
        return _read(outcome)

    async def update_firmware(
        self,
        station_id: StationId,
        url: str,
        *,
        at: datetime,
        request_id: int,
        signature: str = "",
        certificate: str = "",
    ) -> OrderAnswer:
        """Have firmware fetched and installed."""
        is_16 = self._is_16(station_id)
        if is_16 and not signature:
            payload: Payload = {"location": url, "retrieveDate": utc_text(at)}
            outcome = await self._call(station_id, "UpdateFirmware", payload)
            if outcome.payload is not None:
                return OrderAnswer(answer=Answer.ACCEPTED)
            return _read(outcome)
        firmware: Payload = {"location": url, "retrieveDateTime": utc_text(at)}
        if signature:
            firmware |= {"signature": signature, "signingCertificate": certificate}
        payload = {"requestId": request_id, "firmware": firmware}
        action = "SignedUpdateFirmware" if is_16 else "UpdateFirmware"
        return await self._order(station_id, action, payload)

    def _is_16(self, station_id: StationId) -> bool:
        return self._server.version_of(station_id) == schemas.V16

    async def _order(
        self, station_id: StationId, action: str, payload: Payload
    ) -> OrderAnswer:
        return _read(await self._call(station_id, action, payload))

    async def _call(
        self, station_id: StationId, action: str, payload: Payload
    ) -> CallOutcome:
        return await self._server.call(station_id, action, payload)


def _read(outcome: CallOutcome) -> OrderAnswer:
    """Read an answer that is a status, perhaps with a reason."""
    if outcome.payload is None:
        silent = {"Timeout": Answer.SILENT, "Offline": Answer.OFFLINE}
        detail = f"{outcome.code} {outcome.description}".strip()[:120]
        return OrderAnswer(answer=silent.get(outcome.code, Answer.ERROR), detail=detail)
    info = outcome.payload.get("statusInfo")
    reason = str(info.get("reasonCode", "")) if isinstance(info, dict) else ""
    return _graded(str(outcome.payload.get("status", ""))[:64], reason[:40])


def _graded(status: str, reason: str = "") -> OrderAnswer:
    is_good = status.lower() in GOOD
    answer = Answer.ACCEPTED if is_good else Answer.REFUSED
    return OrderAnswer(answer=answer, detail=status, reason=reason)


def _rows(
    payload: Payload, kind: str, kinds: Mapping[str, str]
) -> list[InstalledCertificate]:
    """Read GetInstalledCertificateIds of either shape, softly."""
    words = {word: name for name, word in kinds.items()}
    found: list[InstalledCertificate] = []
    chains = payload.get("certificateHashDataChain")
    for item in (chains if isinstance(chains, list) else [])[:INSTALLED_MAX]:
        if isinstance(item, dict):
            word = str(item.get("certificateType", ""))[:40]
            found += _row(item.get("certificateHashData"), words.get(word, word))
    plain = payload.get("certificateHashData")
    for item in (plain if isinstance(plain, list) else [])[:INSTALLED_MAX]:
        found += _row(item, kind)
    return found


def _row(data: object, kind: str) -> list[InstalledCertificate]:
    if not isinstance(data, dict):
        return []
    wanted = ("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber")
    texts = {name: data.get(name) for name in wanted}
    if not all(isinstance(text, str) and len(text) <= 128 for text in texts.values()):  # noqa: PLR2004 - the schema's
        return []
    serial = str(texts["serialNumber"])[:40].lower()
    return [InstalledCertificate(kind=kind, serial=serial, hash_data=texts)]
