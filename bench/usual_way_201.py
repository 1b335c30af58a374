"""A central system for OCPP 2.0.1 as the ``ocpp`` package's documentation teaches it.

It stores nothing. Validation is the package's default: by ``jsonschema``, in a pool of
threads. Its ``ocpp`` logger stays at WARNING, which is fair to it: see ``usual_way``.
"""

# ruff: noqa: ARG002 - the package passes every field by name

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import websockets
from ocpp.routing import on
from ocpp.v201 import ChargePoint as BaseChargePoint
from ocpp.v201 import call_result
from ocpp.v201.datatypes import IdTokenInfoType
from ocpp.v201.enums import (
    Action,
    AuthorizationStatusEnumType,
    RegistrationStatusEnumType,
)

HEARTBEAT_S = 300


class ChargePoint(BaseChargePoint):  # type: ignore[misc]
    """One station, as in the package's example ``examples/v201/central_system.py``."""

    @on(Action.boot_notification)  # type: ignore[untyped-decorator]
    def on_boot(self, charging_station: dict[str, Any], reason: str, **_: Any) -> Any:
        return call_result.BootNotification(
            current_time=_now(),
            interval=HEARTBEAT_S,
            status=RegistrationStatusEnumType.accepted,
        )

    @on(Action.heartbeat)  # type: ignore[untyped-decorator]
    def on_heartbeat(self) -> Any:
        return call_result.Heartbeat(current_time=_now())

    @on(Action.status_notification)  # type: ignore[untyped-decorator]
    def on_status(self, connector_status: str, evse_id: int, **_: Any) -> Any:
        return call_result.StatusNotification()

    @on(Action.authorize)  # type: ignore[untyped-decorator]
    def on_authorize(self, id_token: dict[str, Any], **_: Any) -> Any:
        return call_result.Authorize(id_token_info=_accepted())

    @on(Action.transaction_event)  # type: ignore[untyped-decorator]
    def on_transaction_event(
        self, event_type: str, seq_no: int, id_token: Any = None, **_: Any
    ) -> Any:
        if id_token is None:
            return call_result.TransactionEvent()
        return call_result.TransactionEvent(id_token_info=_accepted())


def _accepted() -> Any:
    return IdTokenInfoType(status=AuthorizationStatusEnumType.accepted)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _on_connect(socket: websockets.ServerConnection) -> None:
    assert socket.request is not None
    station = ChargePoint(socket.request.path.strip("/"), socket)
    try:
        await station.start()
    except websockets.ConnectionClosed:
        return


async def main() -> None:
    """Serve on a free port of loopback and print the port."""
    logging.getLogger("ocpp").setLevel(logging.WARNING)
    server = await websockets.serve(
        _on_connect, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("ocpp2.0.1")]
    )
    print(next(iter(server.sockets)).getsockname()[1], flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
