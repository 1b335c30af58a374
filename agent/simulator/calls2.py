"""What a virtual 2.x station answers to the central system, by action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.answers import ACCEPTED, REJECTED, Answers
from agent.simulator.certificates import Certificates
from agent.simulator.chargingcalls2 import ChargingCalls2
from agent.simulator.devicecalls2 import DeviceCalls2
from agent.simulator.rpc import CallError
from agent.simulator.schemas2 import check_call
from agent.simulator.triggers2 import Triggers2

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulator.answers import Handler
    from agent.simulator.core2 import Core2
    from agent.simulator.hardware import Outlet
    from agent.simulator.outbox2 import Outbox2, Statuses2
    from agent.simulator.sessions2 import Sessions2

    Restart2 = Callable[[str, int | None], None]

FILE_NAME = "diagnostics.zip"
NOT_BOOTED = ("RequestStartTransaction", "RequestStopTransaction")


class Calls2(Answers):
    """The answering side of one station."""

    def __init__(
        self,
        core: Core2,
        sessions: Sessions2,
        statuses: Statuses2,
        outbox: Outbox2,
        restart: Restart2,
    ) -> None:
        """Answer for `core`; `restart` is told the type of a reset and its EVSE."""
        super().__init__(core)
        self._core = core
        self._sessions = sessions
        self._statuses = statuses
        self._outbox = outbox
        self._restart = restart
        self._list_version = 0
        self.certificates = Certificates(core, 1 if core.version == "2.1" else None)
        self.triggers = Triggers2(core, sessions, statuses, self.certificates)
        self._handlers: dict[str, Handler] = {
            **ChargingCalls2(core, sessions).handlers(),
            **DeviceCalls2(core).handlers(),
            **self.certificates.handlers(),
            "CancelReservation": self._cancel_reservation,
            "ChangeAvailability": self._change_availability,
            "ClearCache": lambda _: ACCEPTED,
            "CostUpdated": lambda _: {},
            "CustomerInformation": lambda _: REJECTED,
            "DataTransfer": lambda _: {"status": "UnknownVendorId"},
            "GetLocalListVersion": lambda _: {"versionNumber": self._list_version},
            "GetLog": self._get_log,
            "GetTransactionStatus": self._transaction_status,
            "ReserveNow": self._reserve_now,
            "Reset": self._reset,
            "SendLocalList": self._send_local_list,
            "SetNetworkProfile": self._set_network_profile,
            "TriggerMessage": self.triggers.answer,
            "UnlockConnector": self._unlock,
            "UpdateFirmware": self._update_firmware,
        }

    def reply(self, action: str, payload: Any) -> dict[str, Any]:
        """Give the reply to a call; raise CallError for a CALLERROR."""
        if self._core.registration == "Rejected":
            raise CallError("SecurityError", "this station was rejected")
        check_call(self._core.version, action, payload)
        handler = self._handlers.get(action)
        if handler is None:
            raise CallError("NotSupported", f"{action} is not supported")
        if not self._core.is_accepted and action in NOT_BOOTED:
            return REJECTED
        return handler(payload)

    def _outlets(self, evse: dict[str, Any] | None) -> list[Outlet]:
        """List the outlets that an optional EVSEType names."""
        if evse is None or evse["id"] == 0:
            return list(self._core.outlets.values())
        found = self._core.outlets.get(evse["id"])
        is_known = found is not None and evse.get("connectorId", 1) == 1
        return [found] if found is not None and is_known else []

    def _change_availability(self, payload: dict[str, Any]) -> dict[str, Any]:
        is_operative = payload["operationalStatus"] == "Operative"
        chosen = self._outlets(payload.get("evse"))
        if not chosen:
            return REJECTED
        for outlet in chosen:
            outlet.is_operative = is_operative
            self._sessions.release(outlet)
        is_busy = any(outlet.transaction_id is not None for outlet in chosen)
        return {"status": "Scheduled"} if is_busy and not is_operative else ACCEPTED

    def _reset(self, payload: dict[str, Any]) -> dict[str, Any]:
        kind, evse = payload["type"], payload.get("evseId")
        if evse is not None and evse not in self._core.outlets:
            return REJECTED
        can_resume = (
            kind != "ImmediateAndResume"
            or self._core.whole("TxCtrlr.ResumptionTimeout") > 0
        )
        if not can_resume:
            return REJECTED
        is_busy = any(each.transaction_id for each in self._core.outlets.values())
        self._restart(kind, evse)
        return {"status": "Scheduled"} if kind == "OnIdle" and is_busy else ACCEPTED

    def _unlock(self, payload: dict[str, Any]) -> dict[str, Any]:
        outlet = self._core.outlets.get(payload["evseId"])
        if outlet is None or payload["connectorId"] != 1:
            return {"status": "UnknownConnector"}
        visit = self._core.visit(outlet)
        if visit is not None and visit.is_begun and visit.is_authorized:
            return {"status": "OngoingAuthorizedTransaction"}
        return {"status": "Unlocked"}

    def _transaction_status(self, payload: dict[str, Any]) -> dict[str, Any]:
        asked = payload.get("transactionId")
        answer: dict[str, Any] = {"messagesInQueue": self._outbox.owes(asked)}
        if asked is not None:
            running = [each.transaction_id for each in self._core.outlets.values()]
            answer["ongoingIndicator"] = asked in running
        return answer

    def _reserve_now(self, payload: dict[str, Any]) -> dict[str, Any]:
        evse = payload.get("evseId")
        outlets = self._core.outlets
        if evse is not None and evse not in outlets:
            return REJECTED
        chosen = list(outlets.values()) if evse is None else [outlets[evse]]
        free = [each for each in chosen if each.status in ("Available", "Reserved")]
        if not free:
            is_out = all(each.status == "Unavailable" for each in chosen)
            return {"status": "Unavailable" if is_out else "Occupied"}
        free[0].reservation_id = payload["id"]
        self._sessions.release(free[0])
        return ACCEPTED

    def _cancel_reservation(self, payload: dict[str, Any]) -> dict[str, Any]:
        for outlet in self._core.outlets.values():
            if outlet.reservation_id == payload["reservationId"]:
                outlet.reservation_id = None
                self._sessions.release(outlet)
                return ACCEPTED
        return REJECTED

    def _send_local_list(self, payload: dict[str, Any]) -> dict[str, Any]:
        version = payload["versionNumber"]
        if payload["updateType"] == "Differential" and version <= self._list_version:
            return {"status": "VersionMismatch"}
        self._list_version = version
        return ACCEPTED

    def _set_network_profile(self, payload: dict[str, Any]) -> dict[str, Any]:
        listed = self._core.listed("OCPPCommCtrlr.NetworkConfigurationPriority")
        is_in_use = str(payload["configurationSlot"]) in listed
        return REJECTED if is_in_use else ACCEPTED

    def _get_log(self, payload: dict[str, Any]) -> dict[str, Any]:
        extra = {"requestId": payload["requestId"]}
        self.tell_steps("LogStatusNotification", "Uploading", "Uploaded", **extra)
        return {"status": "Accepted", "filename": FILE_NAME}

    def _update_firmware(self, payload: dict[str, Any]) -> dict[str, Any]:
        steps = ("Downloading", "Downloaded", "Installing", "Installed")
        extra = {"requestId": payload["requestId"]}
        self.tell_steps("FirmwareStatusNotification", *steps, **extra)
        return ACCEPTED
