"""Spoils what a virtual station sends, as its faults order: payloads, then frames.

A payload is changed before it goes into a call, a frame just before it goes out.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import orjson

from agent.simulator.spoil_base import Memory
from agent.simulator.spoil_calls import CALL_CHANGES
from agent.simulator.spoil_meters import METER_CHANGES

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    Message = str | bytes | list[str]

CALL, CALLRESULT = 2, 3
FRAGMENT_CHARACTERS = 40
NTH_WRONG_ID, NTH_ODD, NTH_BROKEN = 3, 5, 7  # which frames suffer, each fault by its own
ODD_FRAMES = ("{}", "[]", '"text"', "null", "[2]", "[2,null,null,null]", "[[2]]")
UNKNOWN_FRAMES = (
    '[5,"no-id","FormatViolation","",{}]',
    '[6,"no-id","NotifyPeriodicEventStream",{}]',
    '[99,"no-id",{}]',
)


class Spoiler:
    """The faults of one station in what it sends; it lives as long as the station."""

    def __init__(self, faults: frozenset[str], chance: random.Random) -> None:
        """Spoil as `faults` order; `chance` makes it the same each time."""
        self.faults = faults
        self.memory = Memory(chance)
        changes = {**METER_CHANGES, **CALL_CHANGES}
        self._changes = [each for name, each in changes.items() if name in faults]

    def payload(self, action: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Give what goes out instead of a payload; None if nothing does."""
        if not self._changes:
            return payload
        changed = copy.deepcopy(payload)
        for change in self._changes:
            if change(action, changed, self.memory) is False:
                return None
        return changed

    def unique_id(self, unique_id: str) -> str:
        """Give the message id that a call goes out with."""
        if "number-ids" in self.faults:
            self.memory.counts["number-ids"] += 1
            return str(self.memory.counts["number-ids"])
        return "1" if "constant-ids" in self.faults else unique_id

    def messages(self, frame: list[Any]) -> list[Message]:
        """Give what goes out instead of a frame, in order."""
        faults = self.faults
        if not faults:
            return [orjson.dumps(frame).decode()]
        if frame[0] == CALLRESULT:
            frame = self._answer(frame)
        elif frame[0] == CALL:
            frame = self._call(frame)
        messages: list[Message] = [self._text(orjson.dumps(frame).decode(), frame)]
        if "answer-twice" in faults and frame[0] == CALLRESULT:
            messages *= 2
        if "stray-answers" in faults and frame[0] == CALL:
            stray = f'[3,"nobody-{self.memory.chance.randrange(1_000)}",{{}}]'
            messages.append(stray)
        messages += self._odd("odd-frames", ODD_FRAMES)
        messages += self._odd("unknown-frame-types", UNKNOWN_FRAMES)
        return messages

    def _odd(self, name: str, frames: Iterable[str]) -> list[Message]:
        is_due = name in self.faults and self.memory.is_nth(name, NTH_ODD)
        return [*frames] if is_due else []

    def _answer(self, frame: list[Any]) -> list[Any]:
        kind, unique_id, payload = frame
        if "wrong-ids" in self.faults and self.memory.is_nth("wrong-ids", NTH_WRONG_ID):
            unique_id = f"not-{unique_id}"
        if "extra-fields" in self.faults:
            payload = {**payload, "vendorNote": {"depth": [1, None]}}
        if "null-answers" in self.faults:
            payload = None
        if "empty-answers" in self.faults:
            payload = {}
        return [kind, unique_id, payload]

    def _call(self, frame: list[Any]) -> list[Any]:
        kind, unique_id, action, payload = frame
        if "number-ids" in self.faults:
            unique_id = int(unique_id)
        is_due = "wrong-shapes" in self.faults and self.memory.is_nth("shapes", NTH_ODD)
        return [kind, unique_id, action, [payload] if is_due else payload]

    def _text(self, text: str, frame: list[Any]) -> Message:
        faults, memory = self.faults, self.memory
        body = frame[-1] if isinstance(frame[-1], dict) else {}
        is_settings = frame[0] == CALLRESULT and (
            "configurationKey" in body or "getVariableResult" in body
        )
        if "truncated-configuration" in faults and is_settings:
            return text[: len(text) // 2]
        if "truncated-json" in faults and memory.is_nth("truncated", NTH_BROKEN):
            return text[: len(text) // 2]
        if "doubly-closed-json" in faults and memory.is_nth("doubly", NTH_BROKEN):
            return f"{text}]}}]"
        if "nul-bytes" in faults and memory.is_nth("nul", NTH_BROKEN):
            return f"{text}\0\0"
        if "binary-frames" in faults and memory.is_nth("binary", NTH_BROKEN):
            return text.encode()
        if "fragmented-frames" in faults:
            starts = range(0, len(text), FRAGMENT_CHARACTERS)
            return [text[start : start + FRAGMENT_CHARACTERS] for start in starts]
        return text
