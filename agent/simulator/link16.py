"""The connection of a virtual 1.6 station."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.calls16 import boot_payload
from agent.simulator.link import Link

if TYPE_CHECKING:
    from agent.simulator.calls16 import Calls16
    from agent.simulator.core16 import Core16
    from agent.simulator.outbox16 import Statuses16


class Link16(Link):
    """Keeps one 1.6 station connected."""

    def __init__(self, core: Core16, calls: Calls16, statuses: Statuses16) -> None:
        """Connect `core`; `calls` answers, `statuses` are reported when accepted."""
        super().__init__(core, calls)
        self._core = core
        self._statuses = statuses

    def boot_payload(self, reason: str) -> dict[str, Any]:  # noqa: ARG002 (1.6 has none)
        """Write the station's BootNotification."""
        return boot_payload(self._core)

    def keep_interval(self, interval_s: int) -> None:
        """Keep the heartbeat interval that the central system gave."""
        self._core.keys.change("HeartbeatInterval", str(interval_s))

    def interval_s(self) -> int:
        """Tell the heartbeat interval that holds."""
        return self._core.whole("HeartbeatInterval")

    def report_all(self) -> None:
        """Report every status, as after a boot."""
        self._statuses.report_all()

    def report_back(self) -> None:
        """Report what changed while there was no link."""
        self._statuses.report_changed()

    def _password(self) -> str | None:
        return self._core.keys.secret or self._core.config.password
