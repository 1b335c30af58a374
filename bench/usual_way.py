"""A central system as the ``ocpp`` package's documentation teaches it; stores nothing.

Its ``ocpp`` logger stays at WARNING, so that the comparison is fair to it: at INFO, the
package's usual level, it writes every frame and is a fifth slower.
"""

# ruff: noqa: ARG002 - the package passes every field by name

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import UTC, datetime
from typing import Any

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint as BaseChargePoint
from ocpp.v16 import call_result
from ocpp.v16.datatypes import IdTagInfo
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus

HEARTBEAT_S = 300
_transaction_ids = itertools.count(1)


class ChargePoint(BaseChargePoint):  # type: ignore[misc]
    """One station, as in the package's example ``examples/v16/central_system.py``."""

    @on(Action.boot_notification)  # type: ignore[untyped-decorator]
    def on_boot(self, charge_point_vendor: str, charge_point_model: str, **_: Any) -> Any:
        return call_result.BootNotification(
            current_time=_now(), interval=HEARTBEAT_S, status=RegistrationStatus.accepted
        )

    @on(Action.heartbeat)  # type: ignore[untyped-decorator]
    def on_heartbeat(self) -> Any:
        return call_result.Heartbeat(current_time=_now())

    @on(Action.status_notification)  # type: ignore[untyped-decorator]
    def on_status(self, connector_id: int, error_code: str, status: str, **_: Any) -> Any:
        return call_result.StatusNotification()

    @on(Action.authorize)  # type: ignore[untyped-decorator]
    def on_authorize(self, id_tag: str) -> Any:
        return call_result.Authorize(id_tag_info=_accepted())

    @on(Action.start_transaction)  # type: ignore[untyped-decorator]
    def on_start(self, connector_id: int, id_tag: str, **_: Any) -> Any:
        return call_result.StartTransaction(
            transaction_id=next(_transaction_ids), id_tag_info=_accepted()
        )

    @on(Action.meter_values)  # type: ignore[untyped-decorator]
    def on_meter_values(
        self, connector_id: int, meter_value: list[dict[str, Any]], **_: Any
    ) -> Any:
        return call_result.MeterValues()

    @on(Action.stop_transaction)  # type: ignore[untyped-decorator]
    def on_stop(self, transaction_id: int, meter_stop: int, **_: Any) -> Any:
        return call_result.StopTransaction(id_tag_info=_accepted())


def _accepted() -> Any:
    return IdTagInfo(status=AuthorizationStatus.accepted)


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
        _on_connect, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("ocpp1.6")]
    )
    print(next(iter(server.sockets)).getsockname()[1], flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
