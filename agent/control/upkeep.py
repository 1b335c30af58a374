"""Logs out of stations and firmware into them, on a person's order only."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

import structlog

from agent.control.operations import Arguments, OperationRefused, text_of
from agent.domain.ids import StationId
from agent.domain.security import FAILED
from agent.ports import Answer, Clock, OrderAnswer, StationSecurity

log = structlog.get_logger()

SCHEMES = frozenset({"ftp", "ftps", "sftp", "http", "https"})
URL_MAX = 512
"""Characters that OCPP carries (remoteLocation, location)."""
SIGNATURE_MAX, CERTIFICATE_MAX = 800, 5500
REQUEST_ID_MAX = 2**31 - 1


class Upkeep:
    """Orders of an operator, and what the stations tell of their progress."""

    def __init__(self, stations: StationSecurity, clock: Clock) -> None:
        """Send over ``stations``."""
        self._stations = stations
        self._clock = clock

    async def get_log(self, arguments: Arguments) -> object:
        """Operation: have a station upload its diagnostics or security log."""
        station_id = self._connected(arguments)
        url = _url(arguments)
        kind = text_of(arguments, "kind", "diagnostics")
        request_id = secrets.randbelow(REQUEST_ID_MAX)
        answer = await self._stations.get_log(
            station_id, url, kind=kind, request_id=request_id
        )
        return _told(station_id, "log", url, request_id, answer)

    async def update_firmware(self, arguments: Arguments) -> object:
        """Operation: have a station fetch and install firmware, signed where given."""
        station_id = self._connected(arguments)
        url = _url(arguments)
        signature = text_of(arguments, "signature", "")
        certificate = text_of(arguments, "certificate", "")
        if bool(signature) != bool(certificate):
            raise OperationRefused("signature and certificate come together")
        if len(signature) > SIGNATURE_MAX or len(certificate) > CERTIFICATE_MAX:
            raise OperationRefused("the signature or the certificate is too long for OCPP")
        request_id = secrets.randbelow(REQUEST_ID_MAX)
        answer = await self._stations.update_firmware(
            station_id,
            url,
            at=self._clock.now(),
            request_id=request_id,
            signature=signature,
            certificate=certificate,
        )
        return _told(station_id, "firmware", url, request_id, answer)

    def progressed(
        self, station_id: StationId, what: str, status: str, request_id: int | None
    ) -> None:
        """Hear how a log upload or a firmware update goes on."""
        if status in FAILED:
            log.warning(
                "station_upkeep_failed",
                station_id=station_id,
                what=what,
                status=status,
                request_id=request_id,
            )
            return
        log.info(
            "station_notified",
            station_id=station_id,
            what=what,
            status=status,
            request_id=request_id,
        )

    def _connected(self, arguments: Arguments) -> StationId:
        station_id = StationId(text_of(arguments, "station"))
        if self._stations.version_of(station_id) is None:
            raise OperationRefused(f"{station_id} is not connected", status=409)
        return station_id


def _url(arguments: Arguments) -> str:
    url = text_of(arguments, "url")
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in SCHEMES and bool(parts.hostname)
    except ValueError:
        is_good = False
    if not is_good or len(url) > URL_MAX or not url.isprintable() or " " in url:
        raise OperationRefused(
            f"the url must be one of {', '.join(sorted(SCHEMES))}, "
            f"{URL_MAX} characters at most"
        )
    return url


def _told(
    station_id: StationId, what: str, url: str, request_id: int, answer: OrderAnswer
) -> object:
    if answer.answer is not Answer.ACCEPTED:
        raise OperationRefused(
            f"{station_id} did not take it: {answer.answer} {answer.detail}".strip(),
            status=409,
        )
    # Of the address only the host: what stands before it may be a password.
    host = urlsplit(url).hostname
    log.info("upkeep_ordered", station_id=station_id, what=what, host=host)
    return {
        "station": station_id,
        "request_id": request_id,
        "answer": answer.detail or "Accepted",
        "note": "its progress is in the log: station_notified, station_upkeep_failed",
    }
