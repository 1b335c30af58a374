"""What a virtual OCPP 1.6 station answers to the central system, by action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.answers import ACCEPTED, REJECTED, Answers
from agent.simulator.certificates import Certificates
from agent.simulator.chargingcalls16 import ChargingCalls16
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from agent.simulator.answers import Handler, Restart
    from agent.simulator.core16 import Core16
    from agent.simulator.outbox16 import Statuses16
    from agent.simulator.sessions16 import Sessions16

FILE_NAME = "diagnostics.zip"


class Calls16(Answers):
    """The answering side of one station."""

    def __init__(
        self,
        core: Core16,
        sessions: Sessions16,
        statuses: Statuses16,
        restart: Restart,
    ) -> None:
        """Answer for `core`; `restart` is told "Soft" or "Hard"."""
        super().__init__(core)
        self._core = core
        self._sessions = sessions
        self._statuses = statuses
        self._restart = restart
        self._list_version = 0
        self._charging = ChargingCalls16(core, sessions)
        self.certificates = Certificates(core)
        self._handlers: dict[str, Handler] = {
            **self._charging.handlers(),
            **self.certificates.handlers(),
            "CancelReservation": self._cancel_reservation,
            "ChangeAvailability": self._change_availability,
            "ChangeConfiguration": self._change_configuration,
            "ClearCache": lambda _: ACCEPTED,
            "DataTransfer": lambda _: {"status": "UnknownVendorId"},
            "ExtendedTriggerMessage": self._trigger,
            "GetConfiguration": self._get_configuration,
            "GetDiagnostics": self._get_diagnostics,
            "GetLocalListVersion": lambda _: {"listVersion": self._list_version},
            "GetLog": self._get_log,
            "ReserveNow": self._reserve_now,
            "Reset": self._reset,
            "SendLocalList": self._send_local_list,
            "TriggerMessage": self._trigger,
            "UnlockConnector": self._unlock,
            "SignedUpdateFirmware": self._signed_update_firmware,
            "UpdateFirmware": self._update_firmware,
        }

    def reply(self, action: str, payload: Any) -> dict[str, Any]:
        """Give the reply to a call; raise CallError for a CALLERROR."""
        handler = self._handlers.get(action)
        if handler is None:
            raise CallError("NotImplemented", f"no action is called {action[:40]}")
        if not isinstance(payload, dict):
            raise CallError("FormationViolation", "the payload is not an object")
        try:
            return handler(payload)
        except KeyError as error:
            raise CallError("OccurenceConstraintViolation", f"{error} missing") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise CallError("TypeConstraintViolation", str(error)) from None

    def _get_configuration(self, payload: dict[str, Any]) -> dict[str, Any]:
        return dict(self._core.keys.read(payload.get("key", [])))

    def _change_configuration(self, payload: dict[str, Any]) -> dict[str, Any]:
        status = self._core.keys.change(str(payload["key"]), str(payload["value"]))
        self._core.pulse()
        return {"status": status}

    def _change_availability(self, payload: dict[str, Any]) -> dict[str, Any]:
        connector = int(payload["connectorId"])
        is_operative = payload["type"] == "Operative"
        chosen = [
            outlet
            for outlet in self._core.outlets.values()
            if connector in (0, outlet.connector)
        ]
        if not chosen:
            return REJECTED
        for outlet in chosen:
            outlet.is_operative = is_operative
            self._sessions.release(outlet)
        is_busy = any(outlet.transaction is not None for outlet in chosen)
        return {"status": "Scheduled"} if is_busy and not is_operative else ACCEPTED

    def _reset(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._restart(str(payload["type"]))
        return ACCEPTED

    def _unlock(self, payload: dict[str, Any]) -> dict[str, Any]:
        outlet = self._core.outlets.get(int(payload["connectorId"]))
        if outlet is None:
            return {"status": "NotSupported"}
        self._sessions.stop(outlet, "UnlockCommand")
        return {"status": "Unlocked"}

    def _reserve_now(self, payload: dict[str, Any]) -> dict[str, Any]:
        outlet = self._core.outlets.get(int(payload["connectorId"]))
        if outlet is None:
            return REJECTED
        if outlet.status not in ("Available", "Reserved"):
            is_out = outlet.status == "Unavailable"
            return {"status": "Unavailable" if is_out else "Occupied"}
        outlet.reservation_id = int(payload["reservationId"])
        self._statuses.set(outlet, "Reserved")
        return ACCEPTED

    def _cancel_reservation(self, payload: dict[str, Any]) -> dict[str, Any]:
        for outlet in self._core.outlets.values():
            if outlet.reservation_id == payload["reservationId"]:
                outlet.reservation_id = None
                self._sessions.release(outlet)
                return ACCEPTED
        return REJECTED

    def _send_local_list(self, payload: dict[str, Any]) -> dict[str, Any]:
        version = int(payload["listVersion"])
        if payload["updateType"] == "Differential" and version <= self._list_version:
            return {"status": "VersionMismatch"}
        self._list_version = version
        return ACCEPTED

    def _get_diagnostics(self, _: dict[str, Any]) -> dict[str, Any]:
        self.tell_steps("DiagnosticsStatusNotification", "Uploading", "Uploaded")
        return {"fileName": FILE_NAME}

    def _get_log(self, payload: dict[str, Any]) -> dict[str, Any]:
        extra = {"requestId": int(payload["requestId"])}
        self.tell_steps("LogStatusNotification", "Uploading", "Uploaded", **extra)
        return {"status": "Accepted", "filename": FILE_NAME}

    def _update_firmware(self, _: dict[str, Any]) -> dict[str, Any]:
        steps = ("Downloading", "Downloaded", "Installing", "Installed")
        self.tell_steps("FirmwareStatusNotification", *steps)
        return {}

    def _signed_update_firmware(self, payload: dict[str, Any]) -> dict[str, Any]:
        steps = (
            "Downloading",
            "Downloaded",
            "SignatureVerified",
            "Installing",
            "Installed",
        )
        extra = {"requestId": int(payload["requestId"])}
        self.tell_steps("SignedFirmwareStatusNotification", *steps, **extra)
        return ACCEPTED

    def _trigger(self, payload: dict[str, Any]) -> dict[str, Any]:
        wanted = str(payload["requestedMessage"])
        connector = payload.get("connectorId")
        outlets = self._core.outlets
        if connector not in (None, 0) and connector not in outlets:
            return REJECTED
        chosen = [outlets[connector]] if connector else list(outlets.values())
        match wanted:
            case "StatusNotification":
                for each in [connector] if connector is not None else [0, *outlets]:
                    self._statuses.report(each)
            case "SignChargePointCertificate":
                self.certificates.ask()
            case "MeterValues":
                self._core.advance()
                for outlet in chosen:
                    self._sessions.send_reading(outlet, "Trigger")
            case _:
                return self._trigger_simple(wanted)
        return ACCEPTED

    def _trigger_simple(self, wanted: str) -> dict[str, Any]:
        payloads: dict[str, dict[str, Any]] = {
            "Heartbeat": {},
            "BootNotification": boot_payload(self._core),
            "DiagnosticsStatusNotification": {"status": "Idle"},
            "FirmwareStatusNotification": {"status": "Idle"},
            "LogStatusNotification": {"status": "Idle"},
        }
        if wanted not in payloads:
            return {"status": "NotImplemented"}
        self._core.spawn(lambda: self._core.say(wanted, payloads[wanted]))
        return ACCEPTED


def boot_payload(core: Core16) -> dict[str, Any]:
    """Write the station's BootNotification."""
    config = core.config
    return {
        "chargePointVendor": config.vendor,
        "chargePointModel": config.model,
        "chargePointSerialNumber": config.serial or config.station_id,
        "firmwareVersion": config.firmware,
    }
