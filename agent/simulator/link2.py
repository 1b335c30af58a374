"""The connection of a virtual 2.x station."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.link import Link

if TYPE_CHECKING:
    from datetime import datetime

    from agent.simulator.calls2 import Calls2
    from agent.simulator.core2 import Core2
    from agent.simulator.outbox2 import Statuses2

INTERVAL = "OCPPCommCtrlr.HeartbeatInterval"
ID_CHARACTERS = 24  # of a message id, before the number


class Link2(Link):
    """Keeps one 2.x station connected."""

    def __init__(self, core: Core2, calls: Calls2, statuses: Statuses2) -> None:
        """Connect `core`; `calls` answers, `statuses` are reported when accepted."""
        super().__init__(core, calls)
        self._core = core
        self._statuses = statuses
        self._offline_since: datetime | None = None
        self.boot_reason = "PowerUp"
        calls.triggers.boot = self.boot_once

    def boot_payload(self, reason: str) -> dict[str, Any]:
        """Write the station's BootNotification."""
        config = self._core.config
        return {
            "reason": self.boot_reason if reason == "PowerUp" else reason,
            "chargingStation": {
                "vendorName": config.vendor,
                "model": config.model,
                "serialNumber": (config.serial or config.station_id)[:25],
                "firmwareVersion": config.firmware,
            },
        }

    def keep_interval(self, interval_s: int) -> None:
        """Keep the heartbeat interval that the central system gave."""
        self._core.device.put(INTERVAL, str(interval_s))

    def interval_s(self) -> int:
        """Tell the heartbeat interval that holds."""
        return self._core.whole(INTERVAL)

    def report_all(self) -> None:
        """Report every status, as after a boot."""
        self._statuses.report_all()

    def report_back(self) -> None:
        """Report what changed without a link, or all after a long spell."""
        self._statuses.report_back(self._offline_since)
        self._offline_since = None

    def on_registration(self, status: str) -> None:
        """Take note of the answer to a boot."""
        self._core.registration = status
        if status == "Accepted":
            self.boot_reason = "PowerUp"

    def on_up(self) -> None:
        """Let what was invalid offline hold again."""
        self._core.advance()
        self._core.store.regain_link(self._core.now())
        self._core.pulse()

    def on_down(self) -> None:
        """Begin to count the time without a link."""
        self._offline_since = self._core.clock.now()
        self._core.store.lose_link(self._core.now())

    def message_ids(self) -> str:
        """Give the start of the ids of this link's messages."""
        return self._core.new_id()[:ID_CHARACTERS]

    def _password(self) -> str | None:
        changed = self._core.setting("SecurityCtrlr.BasicAuthPassword")
        return changed or self._core.config.password
