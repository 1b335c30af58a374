"""TriggerMessage on a virtual 2.x station, and the BootNotification that it may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.answers import ACCEPTED, REJECTED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.simulator.certificates import Certificates
    from agent.simulator.core2 import Core2
    from agent.simulator.hardware import Outlet
    from agent.simulator.outbox2 import Statuses2
    from agent.simulator.sessions2 import Sessions2

NOT_IMPLEMENTED: dict[str, Any] = {"status": "NotImplemented"}


class Triggers2:
    """Sends what the central system asks for."""

    def __init__(
        self,
        core: Core2,
        sessions: Sessions2,
        statuses: Statuses2,
        certificates: Certificates,
    ) -> None:
        """Send for `core`; the link sets `boot` when it is there."""
        self._certificates = certificates
        self._core = core
        self._sessions = sessions
        self._statuses = statuses
        self.boot: Callable[[str], Awaitable[float]] | None = None

    def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Answer a TriggerMessage."""
        chosen = self._chosen(payload.get("evse"))
        if not chosen:
            return REJECTED
        match payload["requestedMessage"]:
            case "BootNotification":
                return self._boot()
            case "Heartbeat":
                self._core.spawn(lambda: self._core.say("Heartbeat", {}))
            case "StatusNotification":
                return self._tell_status(payload.get("evse"))
            case "SignChargingStationCertificate":
                self._certificates.ask()
            case "MeterValues":
                self._core.advance()
                for outlet in chosen:
                    self._sessions.transactions.send_aligned(outlet, "Trigger")
            case "TransactionEvent":
                return self._tell_transactions(chosen)
            case "LogStatusNotification" | "FirmwareStatusNotification" as wanted:
                idle = {"status": "Idle"}
                self._core.spawn(lambda: self._core.say(wanted, idle))
            case _:
                return NOT_IMPLEMENTED
        return ACCEPTED

    def _chosen(self, evse: dict[str, Any] | None) -> list[Outlet]:
        outlets = self._core.outlets
        if evse is None or evse["id"] == 0:
            return list(outlets.values())
        return [outlets[evse["id"]]] if evse["id"] in outlets else []

    def _boot(self) -> dict[str, Any]:
        boot = self.boot
        if boot is None or self._core.is_accepted:
            return REJECTED

        async def again() -> None:
            await boot("Triggered")

        self._core.spawn(again)
        return ACCEPTED

    def _tell_status(self, evse: dict[str, Any] | None) -> dict[str, Any]:
        if evse is None or evse.get("connectorId") != 1:
            return REJECTED
        self._statuses.report(evse["id"])
        return ACCEPTED

    def _tell_transactions(self, chosen: list[Outlet]) -> dict[str, Any]:
        self._core.advance()
        running = [each for each in chosen if each.transaction_id is not None]
        for outlet in running:
            self._sessions.transactions.send_reading(outlet, "Trigger", "Trigger")
        return ACCEPTED if running else REJECTED
