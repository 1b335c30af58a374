"""The answers of a virtual 2.x station about its device model: variables and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from agent.simulator.answers import ACCEPTED
from agent.simulator.clock import stamp
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from agent.simulator.answers import Handler
    from agent.simulator.core2 import Core2

REPORT_ROWS = 15  # in one NotifyReport
EMPTY: dict[str, Any] = {"status": "EmptyResultSet"}


class DeviceCalls2:
    """Answers about variables."""

    def __init__(self, core: Core2) -> None:
        """Answer for `core`."""
        self._core = core

    def handlers(self) -> dict[str, Handler]:
        """List the actions that are answered here."""
        return {
            "GetVariables": self._get,
            "SetVariables": self._set,
            "GetBaseReport": self._base_report,
            "GetReport": self._report,
        }

    def _get(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._check_size("GetVariables", payload, payload["getVariableData"])
        self._core.advance()
        rows = [self._core.device.read(each) for each in payload["getVariableData"]]
        return {"getVariableResult": rows}

    def _set(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._check_size("SetVariables", payload, payload["setVariableData"])
        rows = [self._core.device.write(each) for each in payload["setVariableData"]]
        self._core.pulse()
        return {"setVariableResult": rows}

    def _base_report(self, payload: dict[str, Any]) -> dict[str, Any]:
        rows = self._core.device.base_report(payload["reportBase"])
        return self._tell(payload["requestId"], rows)

    def _report(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._check_size("GetReport", payload, payload.get("componentVariable", []))
        rows = self._core.device.report(payload)
        return self._tell(payload["requestId"], rows)

    def _check_size(self, action: str, payload: dict[str, Any], items: list[Any]) -> None:
        most = self._core.whole(f"DeviceDataCtrlr.ItemsPerMessage[{action}]")
        if len(items) > most:
            text = f"TooManyElements: {len(items)}, at most {most}"
            raise CallError("OccurrenceConstraintViolation", text)
        most = self._core.whole(f"DeviceDataCtrlr.BytesPerMessage[{action}]")
        count = len(orjson.dumps(payload))
        if count > most:
            raise CallError("FormatViolation", f"{count} bytes, at most {most}")

    def _tell(self, request_id: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Send the rows in parts, after the answer."""
        core = self._core
        if "empty-report" in core.faults:
            rows = []
        elif not rows:
            return EMPTY

        async def tell() -> None:
            starts = range(0, max(1, len(rows)), REPORT_ROWS)
            for seq_no, start in enumerate(starts):
                part: dict[str, Any] = {
                    "requestId": request_id,
                    "generatedAt": stamp(core.now()),
                    "seqNo": seq_no,
                    "tbc": start + REPORT_ROWS < len(rows),
                }
                if rows:
                    part["reportData"] = rows[start : start + REPORT_ROWS]
                await core.say("NotifyReport", part)

        core.spawn(tell)
        return ACCEPTED
