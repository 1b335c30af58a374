"""How a virtual station answers calls, whatever the version: faults, then a handler."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from agent.simulator.reply_faults import ReplyFaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulator.core import Core

    Handler = Callable[[dict[str, Any]], dict[str, Any]]
    Restart = Callable[[str], None]

SWALLOWED_EACH = 5  # with the fault swallow-nth-call
ACCEPTED: dict[str, Any] = {"status": "Accepted"}
REJECTED: dict[str, Any] = {"status": "Rejected"}


class Answers(ABC):
    """The answering side of one station."""

    def __init__(self, core: Core) -> None:
        """Answer for a station."""
        self._station = core
        self._faults = ReplyFaults(core)
        self._count = 0

    async def answer(self, action: str, payload: Any) -> dict[str, Any] | None:
        """Answer a call; None is silence, CallError is a CALLERROR."""
        faults = self._station.faults
        self._count += 1
        if "swallow-nth-call" in faults and self._count % SWALLOWED_EACH == 0:
            return None
        if "silent-configuration" in faults and action in (
            "GetConfiguration",
            "GetVariables",
        ):
            return None
        if "silent-absolute" in faults and _is_absolute(payload):
            return None
        if faults & {"slow-answers", "busy-ignores"}:
            await asyncio.sleep(self._station.config.slow_answer_real_s)
        return await self._faults.reply(action, payload, self.reply)

    @abstractmethod
    def reply(self, action: str, payload: Any) -> dict[str, Any]:
        """Give the reply to a call; raise CallError for a CALLERROR."""

    def tell_steps(self, action: str, *steps: str, **extra: int) -> None:
        """Report the steps of a longer work, one after the other."""

        async def tell() -> None:
            for step in steps:
                await self._station.say(action, {"status": step, **extra})

        self._station.spawn(tell)


def _is_absolute(payload: Any) -> bool:
    """Whether a call sets a profile whose schedule is bound to the clock."""
    body = payload.get("csChargingProfiles") or payload.get("chargingProfile") or {}
    return isinstance(body, dict) and body.get("chargingProfileKind") == "Absolute"
