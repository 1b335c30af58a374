"""The billing webhook: one POST of JSON per finished session, repeated until it is taken.

Every repeat carries the same ``Idempotency-Key`` (the session's id), so that an answer
that was lost does no harm. A correction has a key of its own and names what it corrects.
What the server writes into its answer does not matter; the status alone counts.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

import httpx

from agent.cloud.http import CloudHttp, Json
from agent.domain.effects import BilledTransaction, BillingReport
from agent.domain.errors import CloudFault
from agent.domain.ids import TransactionId
from agent.ports import OutboxRow

NAME = "billing"
UNAUTHORIZED = 401


class Webhook:
    """Delivers bills; the Deliverer of the outbox's ``billing`` rows."""

    def __init__(
        self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare; ``token`` goes as Bearer, none where it is empty."""
        parts = urlsplit(url)
        origin = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self._path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._token = token
        self._http = CloudHttp(NAME, origin, transport=transport)

    async def deliver(self, row: OutboxRow) -> str:
        """Post one bill. Raises CloudFault; one that is not retryable will stay so."""
        if not isinstance(row.report, BillingReport):
            raise CloudFault("billing: this is no bill", retryable=False)
        status, _ = await self._http.send(
            "POST",
            self._path,
            bearer=self._token,
            body=bill_json(row.report),
            headers={"Idempotency-Key": row.key},
            reads_answer=False,
        )
        if status == UNAUTHORIZED:
            raise CloudFault(
                "billing: the webhook refused the token (401): set billing.webhook_token, "
                "restart, and send the dead letters again",
                retryable=False,
            )
        return f"taken with {status}"

    async def close(self) -> None:
        """Close kept connections."""
        await self._http.close()


def bill_json(report: BillingReport) -> Json:
    """A bill as the webhook gets it; times ISO 8601 UTC, energy Wh, SoC percent."""
    version = report.ocpp_version.removeprefix("ocpp")
    return {
        "type": "session_finished" if report.corrects is None else "session_corrected",
        "session_id": report.session_id,
        "corrects": report.corrects,
        "station_id": report.station_id,
        "evse_id": report.evse_id,
        "connector_id": report.connector_id,
        "ocpp_version": version,
        "vehicle_id": report.vehicle_id,
        "vin": report.vin,
        "mac": report.mac,
        "id_token": report.id_token or None,
        "account_id": report.account_id,
        "account_verified_at": _iso(report.account_at),
        "energy_wh": report.energy_wh,
        "meter_begin_wh": report.meter_begin_wh,
        "meter_end_wh": report.meter_end_wh,
        "estimated": report.is_estimated,
        "soc_start": report.soc_start,
        "soc_end": report.soc_end,
        "soc_source": report.soc_source,
        "plugged_at": _iso(report.plugged_at),
        "started_at": _iso(report.started_at),
        "charging_ended_at": _iso(report.charging_ended_at),
        "ended_at": _iso(report.ended_at),
        "stop_reason": report.stop_reason or None,
        "transactions": [_transaction(item, version) for item in report.transactions],
    }


def _transaction(item: BilledTransaction, version: str) -> Json:
    return {
        "transaction_id": _transaction_id(item.transaction_id, version),
        "started_at": _iso(item.started_at),
        "ended_at": _iso(item.ended_at),
        "meter_begin_wh": item.meter_begin_wh,
        "meter_end_wh": item.meter_end_wh,
        "stop_reason": item.reason or None,
        "estimated": item.is_estimated,
    }


def _transaction_id(transaction_id: TransactionId, version: str) -> int | str:
    """1.6 ids are numbers on the wire, 2.x ids are text."""
    if version == "1.6" and transaction_id.isdigit():
        return int(transaction_id)
    return transaction_id


def _iso(at: datetime | None) -> str | None:
    """As in the JSON of sessions: whole seconds."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%S}Z"
