"""What ChargEye's operations for operators share: the client, the place, the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agent.cloud.chargeye_ops import ChargEyeOps
from agent.cloud.chargeye_parse import read_time
from agent.control.operations import Arguments, OperationRefused
from agent.parts.base import Ground


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """``look_again`` lets the daemon read at once what an operator has changed."""

    ops: ChargEyeOps
    ground: Ground
    look_again: Callable[[], None]

    @property
    def location_uid(self) -> str:
        """The depot's own location."""
        return self.ground.settings.site.location_uid

    def now(self) -> datetime:
        """The daemon's time."""
        return self.ground.clock.now()


def time_of(arguments: Arguments, name: str) -> datetime | None:
    """A time argument, None when it is absent. Raises OperationRefused."""
    given = arguments.get(name)
    if given is None or given == "":
        return None
    found = read_time(given)
    if found is None:
        raise OperationRefused(
            f"the argument {name} must be an ISO 8601 time, such as 2026-01-15T18:00:00Z"
        )
    return found


def texts_of(arguments: Arguments, name: str) -> list[str]:
    """A list of texts, empty when it is absent. Raises OperationRefused."""
    given = arguments.get(name, [])
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise OperationRefused(f"the argument {name} must be a list of texts")
    return given
