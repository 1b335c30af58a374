"""A foreign OCPP 2.0.1 or 2.1 station for tests, written from the standard alone.

Own JSON, own device model, own rules for charging profiles (use case K01), own limit
maths. Whatever the central system sends is held against the published schemas and the
rules of the call framework; breaches gather in ``faults`` and fail the test at its end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Self

import jsonschema_rs
import websockets
from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]
Variable = tuple[str, str, str, int]
"""Component, variable, instance of the variable, EVSE (0: the station)."""

NOMINAL_V = 230.0
FOLDERS = {"2.0.1": "v201", "2.1": "v21"}
CODES = frozenset(
    {
        *("FormatViolation", "GenericError", "InternalError", "MessageTypeNotSupported"),
        *("NotImplemented", "NotSupported", "OccurrenceConstraintViolation"),
        *("PropertyConstraintViolation", "ProtocolError", "RpcFrameworkError"),
        *("SecurityError", "TypeConstraintViolation"),
    }
)
"""Error codes as 2.x spells them."""
MEASURANDS = frozenset(
    {
        *("Energy.Active.Import.Register", "Power.Active.Import", "SoC", "Voltage"),
        *("Current.Import", "Power.Offered", "Current.Offered"),
    }
)
READ_ONLY = frozenset({"SmartChargingCtrlr", "DeviceDataCtrlr", "EVSE", "ConnectedEV"})


def stamp(at: datetime | None = None) -> str:
    """A time as stations write it."""
    at = at or datetime.now(UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """A time as it was written; it must say its zone."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert found.tzinfo is not None, f"{text} has no zone"
    return found


@cache
def validator(version: str, name: str) -> jsonschema_rs.Draft6Validator:
    """The schema of a message, as the standard publishes it."""
    source = files("ocpp") / FOLDERS[version] / "schemas" / f"{name}.json"
    schema = json.loads(source.read_text("utf-8-sig"))
    return jsonschema_rs.Draft6Validator(schema, validate_formats=True)


def device_model(*, evses: int = 1, is_21: bool = False) -> dict[Variable, str]:
    """The variables of a plain DC station."""
    model: dict[Variable, str] = {
        ("ChargingStation", "Available", "", 0): "true",
        ("SmartChargingCtrlr", "Available", "", 0): "true",
        ("SmartChargingCtrlr", "Enabled", "", 0): "true",
        ("SmartChargingCtrlr", "ProfileStackLevel", "", 0): "5",
        ("SmartChargingCtrlr", "RateUnit", "", 0): "W,A",
        ("SmartChargingCtrlr", "PeriodsPerSchedule", "", 0): "100",
        ("SmartChargingCtrlr", "Entries", "ChargingProfiles", 0): "0",
        ("SmartChargingCtrlr", "LimitChangeSignificance", "", 0): "10",
        ("SampledDataCtrlr", "TxStartedMeasurands", "", 0): "",
        ("SampledDataCtrlr", "TxUpdatedMeasurands", "", 0): "Energy.Active.Import.Register",
        ("SampledDataCtrlr", "TxUpdatedInterval", "", 0): "60",
        ("SampledDataCtrlr", "TxEndedMeasurands", "", 0): "",
        ("SampledDataCtrlr", "TxEndedInterval", "", 0): "60",
        ("AlignedDataCtrlr", "Interval", "", 0): "0",
        ("AlignedDataCtrlr", "Measurands", "", 0): "",
        ("OCPPCommCtrlr", "HeartbeatInterval", "", 0): "3600",
        ("OCPPCommCtrlr", "WebSocketPingInterval", "", 0): "300",
        ("OCPPCommCtrlr", "MessageAttempts", "TransactionEvent", 0): "3",
        ("OCPPCommCtrlr", "MessageAttemptInterval", "TransactionEvent", 0): "60",
        ("DeviceDataCtrlr", "ItemsPerMessage", "GetVariables", 0): "12",
        ("DeviceDataCtrlr", "ItemsPerMessage", "SetVariables", 0): "12",
        ("DeviceDataCtrlr", "ItemsPerMessage", "GetReport", 0): "12",
        ("DeviceDataCtrlr", "BytesPerMessage", "GetVariables", 0): "8192",
        ("DeviceDataCtrlr", "BytesPerMessage", "SetVariables", 0): "8192",
        ("AuthCtrlr", "AuthorizeRemoteStart", "", 0): "true",
        ("AuthCtrlr", "LocalPreAuthorize", "", 0): "false",
        ("AuthCtrlr", "OfflineTxForUnknownIdEnabled", "", 0): "false",
        ("TxCtrlr", "StopTxOnInvalidId", "", 0): "true",
        ("TxCtrlr", "StopTxOnEVSideDisconnect", "", 0): "true",
        ("TxCtrlr", "EVConnectionTimeOut", "", 0): "60",
        ("TxCtrlr", "TxStartPoint", "", 0): "EVConnected",
        ("TxCtrlr", "TxStopPoint", "", 0): "EVConnected",
        ("ClockCtrlr", "TimeSource", "", 0): "Heartbeat",
    }
    for evse in range(1, evses + 1):
        model["EVSE", "Available", "", evse] = "true"
        model["EVSE", "AvailabilityState", "", evse] = "Available"
        model["EVSE", "SupplyPhases", "", evse] = "3"
        model["EVSE", "Power", "", evse] = "0"
        model["Connector", "Available", "", evse] = "true"
        model["Connector", "ConnectorType", "", evse] = "cCCS2"
    if is_21:
        model["SmartChargingCtrlr", "SupportsFeature", "LimitAtSoC", 0] = "false"
        model["SmartChargingCtrlr", "ChargingProfilePersistence", "TxProfile", 0] = "false"
        model["SmartChargingCtrlr", "MaxExternalConstraintsId", "", 0] = "0"
    return model


class ForeignStation2:
    """Sends what a test says; answers what the central system sends by its own rules."""

    def __init__(
        self,
        url: str,
        version: str,
        *,
        evses: int = 1,
        variables: dict[Variable, str] | None = None,
    ) -> None:
        self.url = url
        self.version = version
        self.evses = evses
        self.variables = device_model(evses=evses, is_21=version == "2.1")
        self.variables |= variables or {}
        self.received: list[tuple[float, str, Json]] = []
        self.set_answers: list[tuple[float, Json, str, str]] = []
        self.strays: list[list[Any]] = []
        self.faults: list[str] = []
        self.kept: list[Json] = []
        self.running: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.statuses: dict[int, str] = {}
        self.is_accepted = False
        self.answers: dict[str, Callable[[Json], Any]] = {}
        self.refuse: Callable[[Json], tuple[str, str] | None] = lambda _: None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.socket: ClientConnection | None = None
        self._ids = itertools.count(1)
        self._seq: dict[str, int] = {}
        self._waiting: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._seen_ids: set[str] = set()
        self._open_call: str | None = None
        self._turn = asyncio.Lock()
        self._calls: asyncio.Queue[tuple[str, str, Json]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close()
        if kind is None:
            assert not self.faults, self.faults

    # --- the connection -----------------------------------------------------------------

    async def open(
        self,
        *,
        offers: Iterable[str] | None = None,
        compression: str | None = None,
        **options: Any,
    ) -> ClientConnection:
        offered = offers or [f"ocpp{self.version}"]
        self.socket = await connect(
            self.url,
            subprotocols=[websockets.Subprotocol(name) for name in offered],
            compression=compression,
            proxy=None,
            **options,
        )
        self._open_call = None
        self._calls = asyncio.Queue()
        self._workers = [
            asyncio.create_task(self._read(self.socket)),
            asyncio.create_task(self._serve(self.socket)),
        ]
        return self.socket

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        for task in [*self._workers, *self._tasks]:
            task.cancel()
        await asyncio.gather(*self._workers, *self._tasks, return_exceptions=True)

    async def raw(self, text: str | bytes) -> None:
        """Send a frame as it is."""
        assert self.socket is not None
        await self.socket.send(text)

    async def send(
        self, action: str, payload: Json, *, broken: bool = False, timeout_s: float = 10
    ) -> Any:
        """Send a CALL; the payload of the answer, or ["error", code, description].

        ``broken`` when the test means to break the schema.
        """
        if not broken:
            validator(self.version, f"{action}Request").validate(payload)
        return await self.ask([2, f"s{next(self._ids)}", action, payload], timeout_s)

    async def ask(self, frame: list[Any], timeout_s: float = 10) -> Any:
        """Send any frame that begins as a CALL and wait for what answers its id."""
        async with self._turn, asyncio.timeout(timeout_s):
            future = asyncio.get_running_loop().create_future()
            action = frame[2] if len(frame) > 2 else ""
            self._waiting[frame[1]] = (action, future)
            await self.raw(json.dumps(frame))
            return await future

    # --- what a station says -----------------------------------------------------------

    async def boot(self, reason: str = "PowerUp") -> Json:
        answer = await self.send(
            "BootNotification",
            {
                "reason": reason,
                "chargingStation": {
                    "vendorName": "Foreign",
                    "model": "F-2",
                    "serialNumber": "SN-77",
                    "firmwareVersion": "9.8.7",
                },
            },
        )
        assert isinstance(answer, dict), answer
        self.is_accepted = answer["status"] == "Accepted"
        return answer

    async def status(self, status: str, evse: int = 1) -> Any:
        self.statuses[evse] = status
        return await self.send(
            "StatusNotification",
            {
                "timestamp": stamp(),
                "connectorStatus": status,
                "evseId": evse,
                "connectorId": 1,
            },
        )

    async def authorize(self, token: Json, **more: Any) -> Json:
        answer = await self.send("Authorize", {"idToken": token, **more})
        assert isinstance(answer, dict), answer
        return answer

    def event(
        self,
        kind: str,
        transaction: str,
        trigger: str,
        *,
        seq: int | None = None,
        at: datetime | None = None,
        state: str | None = None,
        evse: int | None = None,
        token: Json | None = None,
        offline: bool = False,
        reason: str | None = None,
        **samples: float,
    ) -> Json:
        """Make a TransactionEvent; ``samples`` are wh, power_w and soc."""
        seq = self._seq.get(transaction, 0) if seq is None else seq
        self._seq[transaction] = max(self._seq.get(transaction, 0), seq + 1)
        info: Json = {"transactionId": transaction}
        if state is not None:
            info["chargingState"] = state
        if reason is not None:
            info["stoppedReason"] = reason
        payload: Json = {
            "eventType": kind,
            "timestamp": stamp(at),
            "triggerReason": trigger,
            "seqNo": seq,
            "transactionInfo": info,
        }
        if offline:
            payload["offline"] = True
        if evse is not None:
            payload["evse"] = {"id": evse, "connectorId": 1}
        if token is not None:
            payload["idToken"] = token
        if samples:
            payload["meterValue"] = [meter_value(kind, at, samples)]
        return payload

    async def tell(self, payload: Json) -> Json:
        """Send a TransactionEvent; the station's own book is kept by it."""
        transaction = payload["transactionInfo"]["transactionId"]
        if "chargingState" in payload["transactionInfo"]:
            self.states[transaction] = payload["transactionInfo"]["chargingState"]
        if payload["eventType"] == "Started":
            self.running[transaction] = payload.get("evse", {}).get("id", 1)
        elif payload["eventType"] == "Ended":
            self.running.pop(transaction, None)
            self.kept = [
                item
                for item in self.kept
                if item["chargingProfile"].get("transactionId") != transaction
            ]
        answer = await self.send("TransactionEvent", payload)
        assert isinstance(answer, dict), answer
        return answer

    async def started(self, transaction: str, **more: Any) -> Json:
        """Started, with the EVSE; a trigger of its own kind unless one is given."""
        trigger = more.pop("trigger", "Authorized")
        usual: Json = {"evse": 1, "state": "EVConnected", "wh": 1000}
        return await self.tell(self.event("Started", transaction, trigger, **usual | more))

    async def updated(self, transaction: str, trigger: str, **more: Any) -> Json:
        return await self.tell(self.event("Updated", transaction, trigger, **more))

    async def ended(self, transaction: str, **more: Any) -> Json:
        usual: Json = {"reason": "EVDisconnected"}
        payload = self.event("Ended", transaction, "EVDeparted", **usual | more)
        return await self.tell(payload)

    # --- what a station heard -----------------------------------------------------------

    def profiles(self, purpose: str) -> list[Json]:
        """Profiles of a purpose, in order of arrival, with their EVSE."""
        return [
            payload["chargingProfile"] | {"evseId": payload["evseId"]}
            for payload in self.heard("SetChargingProfile")
            if payload["chargingProfile"]["chargingProfilePurpose"] == purpose
        ]

    def heard(self, action: str) -> list[Json]:
        """Payloads of an action, in order of arrival."""
        return [payload for _, name, payload in self.received if name == action]

    def asked_for(self, component: str) -> list[Json]:
        """GetVariables that name a component."""
        return [
            payload
            for payload in self.heard("GetVariables")
            if any(
                item["component"]["name"] == component
                for item in payload["getVariableData"]
            )
        ]

    def ids(self) -> set[int]:
        """Ids of the profiles that it holds."""
        return {item["chargingProfile"]["id"] for item in self.kept}

    def limit(self, at: datetime | None = None, evse: int = 1) -> float | None:
        """What the profiles that it holds allow at an EVSE, W; None: no limit."""
        at = at or datetime.now(UTC)
        own = self._leading("TxProfile", evse, at)
        if own is None:
            own = self._leading("TxDefaultProfile", evse, at)
        top = self._leading("ChargingStationMaxProfile", 0, at)
        found = [value for value in (own, top) if value is not None]
        return min(found, default=None)

    async def wait_for(self, what: Callable[[], Any], timeout_s: float = 10) -> Any:
        """Wait until a condition holds, looked at often."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (found := what()):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"not in {timeout_s} s; faults: {self.faults}")
            await asyncio.sleep(0.02)
        return found

    # --- frames ----------------------------------------------------------------------------

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                self._take(json.loads(text))
        except websockets.ConnectionClosed:
            pass

    def _take(self, frame: list[Any]) -> None:
        now = asyncio.get_running_loop().time()
        if frame[0] == 2:
            message_id, action, payload = frame[1:]
            self._check_call(message_id, action, payload)
            self.received.append((now, action, payload))
            self._calls.put_nowait((message_id, action, payload))
            return
        action, future = self._waiting.pop(frame[1], ("", None))
        if future is None or future.done():
            self.strays.append(frame)
        elif frame[0] == 3:
            self._check(f"{action}Response", frame[2])
            future.set_result(frame[2])
        elif frame[0] == 4:
            if frame[2] not in CODES:
                self._fault(f"{frame[2]} is no error code of {self.version}")
            future.set_result(["error", *frame[2:4]])
        else:
            self._fault(f"a frame of type {frame[0]}")

    def _check_call(self, message_id: Any, action: str, payload: Json) -> None:
        if not isinstance(message_id, str) or not 1 <= len(message_id) <= 36:
            self._fault(f"{action}: the message id {message_id!r}")
        if message_id in self._seen_ids:
            self._fault(f"{action}: the message id {message_id} was used before")
        self._seen_ids.add(message_id)
        if self._open_call is not None:
            self._fault(f"{action} came while {self._open_call} was not answered")
        self._open_call = action
        self._check(f"{action}Request", payload)

    def _check(self, name: str, payload: Json) -> None:
        try:
            validator(self.version, name).validate(payload)
        except jsonschema_rs.ValidationError as error:
            self._fault(f"{name} breaks its schema: {str(error)[:300]}")
        except FileNotFoundError:
            if not name.endswith("Response"):
                self._fault(f"{name} is not of {self.version}")

    def _fits(self, name: str, payload: Json) -> bool:
        try:
            return validator(self.version, name).is_valid(payload)
        except FileNotFoundError:
            return True

    def _fault(self, text: str) -> None:
        self.faults.append(text)

    async def _serve(self, socket: ClientConnection) -> None:
        """Answer calls one after the other; what follows an answer has its own task."""
        try:
            while True:
                message_id, action, payload = await self._calls.get()
                await self.may_answer.wait()
                answer = self._answer(action, payload)
                self._open_call = None
                if answer is None:
                    continue
                if isinstance(answer, tuple):
                    frame: list[Any] = [4, message_id, answer[0], answer[1], {}]
                else:
                    validator(self.version, f"{action}Response").validate(answer)
                    frame = [3, message_id, answer]
                await socket.send(json.dumps(frame))
                self._follow(action, payload, answer)
        except websockets.ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001 - told by the test that owns us
            self._fault(f"the foreign station failed: {error!r}")

    def _answer(self, action: str, payload: Json) -> Any:
        """A payload, (code, description), or None for silence."""
        if not self._fits(f"{action}Request", payload):
            return ("FormatViolation", "the payload breaks its schema")
        if action in self.answers:
            return self.answers[action](payload)
        handler = getattr(self, f"_on_{action}", None)
        if handler is None:
            return ("NotSupported", f"{action} is not supported")
        return handler(payload)

    def _follow(self, action: str, payload: Json, answer: Any) -> None:
        """Do what an accepted answer promised."""
        if not isinstance(answer, dict) or answer.get("status") != "Accepted":
            return
        follow = {
            "GetBaseReport": self._report,
            "TriggerMessage": self._triggered,
            "GetChargingProfiles": self._report_profiles,
        }.get(action)
        if follow is not None:
            task = asyncio.create_task(self._guarded(follow, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _guarded(self, follow: Callable[[Json], Any], payload: Json) -> None:
        try:
            await follow(payload)
        except websockets.ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001 - told by the test that owns us
            self._fault(f"the foreign station failed: {error!r}")

    # --- the device model --------------------------------------------------------------

    def _on_GetVariables(self, payload: Json) -> Any:  # noqa: N802 - as the action
        rows = payload["getVariableData"]
        if len(rows) > self._items("GetVariables"):
            return ("OccurrenceConstraintViolation", "more than ItemsPerMessage")
        return {"getVariableResult": [self._read_variable(row) for row in rows]}

    def _on_SetVariables(self, payload: Json) -> Any:  # noqa: N802 - as the action
        rows = payload["setVariableData"]
        if len(rows) > self._items("SetVariables"):
            return ("OccurrenceConstraintViolation", "more than ItemsPerMessage")
        return {"setVariableResult": [self._write_variable(row) for row in rows]}

    def _items(self, action: str) -> int:
        return int(self.variables["DeviceDataCtrlr", "ItemsPerMessage", action, 0])

    def _find(self, row: Json) -> tuple[Variable, str]:
        """The key of a variable, and Accepted or why it is not there."""
        component, variable = row["component"], row["variable"]
        evse = component.get("evse", {}).get("id", 0)
        key = (component["name"], variable["name"], variable.get("instance", ""), evse)
        if key in self.variables:
            return key, "Accepted"
        is_known = any((name[0], name[3]) == (key[0], evse) for name in self.variables)
        return key, "UnknownVariable" if is_known else "UnknownComponent"

    def _read_variable(self, row: Json) -> Json:
        key, status = self._find(row)
        if row.get("attributeType", "Actual") != "Actual" and status == "Accepted":
            status = "NotSupportedAttributeType"
        found = {**row, "attributeStatus": status}
        if status == "Accepted":
            found["attributeValue"] = self.variables[key]
        return found

    def _write_variable(self, row: Json) -> Json:
        key, status = self._find(row)
        value = row["attributeValue"]
        if status == "Accepted":
            words = {word.strip() for word in value.split(",") if word.strip()}
            is_fixed = key[0] in READ_ONLY and key[1] != "LimitChangeSignificance"
            if is_fixed or ("Measurands" in key[1] and words - MEASURANDS):
                status = "Rejected"
            else:
                self.variables[key] = value
        found = {name: row[name] for name in ("component", "variable")}
        if "attributeType" in row:
            found["attributeType"] = row["attributeType"]
        return {**found, "attributeStatus": status}

    def _on_GetBaseReport(self, _: Json) -> Json:  # noqa: N802 - as the action
        return {"status": "Accepted"}

    async def _report(self, payload: Json) -> None:
        rows = [self._report_row(key, value) for key, value in self.variables.items()]
        parts = [rows[at : at + 15] for at in range(0, len(rows), 15)]
        for number, part in enumerate(parts):
            answer = await self.send(
                "NotifyReport",
                {
                    "requestId": payload["requestId"],
                    "generatedAt": stamp(),
                    "seqNo": number,
                    "tbc": number + 1 < len(parts),
                    "reportData": part,
                },
            )
            if answer != {}:
                self._fault(f"NotifyReport was answered {answer}")

    def _report_row(self, key: Variable, value: str) -> Json:
        component: Json = {"name": key[0]}
        if key[3]:
            component["evse"] = {"id": key[3]}
            if key[0] == "Connector":
                component["evse"]["connectorId"] = 1
        variable = {"name": key[1]} | ({"instance": key[2]} if key[2] else {})
        return {
            "component": component,
            "variable": variable,
            "variableAttribute": [{"value": value, "mutability": "ReadWrite"}],
            "variableCharacteristics": {"dataType": "string", "supportsMonitoring": False},
        }

    # --- triggers and transactions -----------------------------------------------------

    def _on_TriggerMessage(self, payload: Json) -> Json:  # noqa: N802 - as the action
        wanted = payload["requestedMessage"]
        if wanted == "BootNotification":
            return {"status": "Rejected" if self.is_accepted else "Accepted"}
        if wanted == "StatusNotification":
            is_whole = "connectorId" in payload.get("evse", {})
            return {"status": "Accepted" if is_whole else "Rejected"}
        if wanted in ("Heartbeat", "TransactionEvent"):
            return {"status": "Accepted"}
        return {"status": "NotImplemented"}

    async def _triggered(self, payload: Json) -> None:
        wanted, evse = payload["requestedMessage"], payload.get("evse", {}).get("id")
        if wanted == "BootNotification":
            await self.boot("Triggered")
        elif wanted == "StatusNotification":
            await self.status(self.statuses.get(evse, "Available"), evse)
        elif wanted == "Heartbeat":
            await self.send("Heartbeat", {})
        elif wanted == "TransactionEvent":
            for transaction, where in list(self.running.items()):
                if evse in (None, where):
                    state = self.states.get(transaction, "EVConnected")
                    await self.updated(transaction, "Trigger", state=state)

    def _on_GetTransactionStatus(self, payload: Json) -> Json:  # noqa: N802
        if "transactionId" not in payload:
            return {"messagesInQueue": False}
        is_ongoing = payload["transactionId"] in self.running
        return {"ongoingIndicator": is_ongoing, "messagesInQueue": False}

    # --- charging profiles -------------------------------------------------------------

    def _on_SetChargingProfile(self, payload: Json) -> Json:  # noqa: N802
        refusal = self.refuse(payload) or self._refusal(payload)
        status = "Rejected" if refusal is not None else "Accepted"
        now = asyncio.get_running_loop().time()
        self.set_answers.append(
            (now, payload, status, "" if refusal is None else refusal[0])
        )
        if refusal is not None:
            info = {"reasonCode": refusal[0]}
            if refusal[1]:
                info["additionalInfo"] = refusal[1]
            return {"status": "Rejected", "statusInfo": info}
        self.hold(payload)
        return {"status": "Accepted"}

    def hold(self, payload: Json) -> None:
        """Install a profile; the same id is replaced (K01.FR.05)."""
        profile_id = payload["chargingProfile"]["id"]
        self.kept = [
            item for item in self.kept if item["chargingProfile"]["id"] != profile_id
        ]
        self.kept.append(payload)

    def _refusal(self, payload: Json) -> tuple[str, str] | None:
        """Reason code and words when a profile breaks the rules of K01."""
        evse, profile = payload["evseId"], payload["chargingProfile"]
        if not 0 <= evse <= self.evses:
            return "UnknownEvse", ""
        for check in (self._bad_head, self._bad_schedule, self._bad_periods):
            found = check(evse, profile)
            if found is not None:
                self._fault(f"SetChargingProfile: {found}")
                return found[:2]
        return self._stale(evse, profile) or self._duplicate(evse, profile)

    def _bad_head(self, evse: int, profile: Json) -> tuple[str, str] | None:
        purpose, top = profile["chargingProfilePurpose"], "ChargingStationMaxProfile"
        ceiling = self.variables["SmartChargingCtrlr", "ProfileStackLevel", "", 0]
        external = self.variables.get(
            ("SmartChargingCtrlr", "MaxExternalConstraintsId", "", 0), "0"
        )
        if not 0 <= profile["stackLevel"] <= int(ceiling):
            return "InvalidStackLevel", str(profile["stackLevel"])
        if purpose not in ("TxProfile", "TxDefaultProfile", top):
            return "UnsupportedPurpose", purpose
        if profile["id"] <= int(external):
            return "InvalidProfileId", str(profile["id"])
        if purpose == top and evse != 0:
            return "InvalidProfile", "a station's maximum on an EVSE"
        is_tx = purpose == "TxProfile"
        if is_tx and (evse == 0 or "transactionId" not in profile):
            return "InvalidProfile", "a TxProfile needs an EVSE and a transaction"
        if not is_tx and "transactionId" in profile:
            return "InvalidProfile", "only a TxProfile may name a transaction"
        if purpose == top and profile["chargingProfileKind"] == "Relative":
            return "InvalidProfile", "a Relative station maximum"
        return None

    def _bad_schedule(self, _: int, profile: Json) -> tuple[str, str] | None:
        kind, schedules = profile["chargingProfileKind"], profile["chargingSchedule"]
        if len(schedules) != 1:
            return "InvalidSchedule", f"{len(schedules)} schedules"
        schedule = schedules[0]
        if "id" not in schedule:
            return "InvalidSchedule", "no id"
        if kind in ("Absolute", "Recurring") and "startSchedule" not in schedule:
            return "InvalidSchedule", f"{kind} without startSchedule"
        if kind == "Relative" and "startSchedule" in schedule:
            return "InvalidSchedule", "Relative with startSchedule"
        units = self.variables["SmartChargingCtrlr", "RateUnit", "", 0].split(",")
        if schedule["chargingRateUnit"] not in units:
            return "UnsupportedRateUnit", schedule["chargingRateUnit"]
        return None

    def _bad_periods(self, _: int, profile: Json) -> tuple[str, str] | None:
        schedule = profile["chargingSchedule"][0]
        periods = schedule["chargingSchedulePeriod"]
        starts = [item["startPeriod"] for item in periods]
        room = int(self.variables["SmartChargingCtrlr", "PeriodsPerSchedule", "", 0])
        if len(periods) > room:
            return "TooManyElements", f"{len(periods)} periods"
        if starts[0] != 0 or starts != sorted(set(starts)):
            return "InvalidSchedule", f"starts {starts}"
        for item in periods:
            if "limit" not in item or round(item["limit"], 1) != item["limit"]:
                return "InvalidSchedule", f"the limit of {item}"
            if item["limit"] < 0:
                return "InvalidSchedule", f"the limit of {item}"
            if schedule["chargingRateUnit"] == "W" and "numberPhases" in item:
                return "NoPhaseForDC", ""
        return None

    def _stale(self, evse: int, profile: Json) -> tuple[str, str] | None:
        """A TxProfile for a transaction that does not run here (K01.FR.09)."""
        if profile["chargingProfilePurpose"] != "TxProfile":
            return None
        if self.running.get(profile["transactionId"]) != evse:
            return "TxNotFound", ""
        return None

    def _duplicate(self, evse: int, profile: Json) -> tuple[str, str] | None:
        """Another id on the same level, purpose and place (K01.FR.06, 39, 52, 53)."""
        for item in self.kept:
            other, place = item["chargingProfile"], item["evseId"]
            is_alike = all(
                other.get(name) == profile.get(name)
                for name in ("stackLevel", "chargingProfilePurpose", "transactionId")
            )
            is_there = place == evse or (
                profile["chargingProfilePurpose"] == "TxDefaultProfile"
                and 0 in (place, evse)
            )
            if is_alike and is_there and other["id"] != profile["id"]:
                return "DuplicateProfile", f"profile {other['id']}"
        return None

    def _on_ClearChargingProfile(self, payload: Json) -> Json:  # noqa: N802
        wanted = payload.get("chargingProfileId")
        criteria = payload.get("chargingProfileCriteria", {})

        def fits(item: Json) -> bool:
            profile = item["chargingProfile"]
            if wanted is not None:
                return bool(profile["id"] == wanted)
            return criteria.get("evseId", item["evseId"]) == item["evseId"] and all(
                criteria.get(name, profile[name]) == profile[name]
                for name in ("stackLevel", "chargingProfilePurpose")
            )

        left = [item for item in self.kept if not fits(item)]
        status = "Accepted" if len(left) < len(self.kept) else "Unknown"
        self.kept = left
        return {"status": status}

    def _wanted(self, payload: Json) -> list[Json]:
        criterion = payload["chargingProfile"]
        ids, level = criterion.get("chargingProfileId"), criterion.get("stackLevel")
        purpose = criterion.get("chargingProfilePurpose")
        return [
            item
            for item in self.kept
            if payload.get("evseId", item["evseId"]) == item["evseId"]
            and (ids is None or item["chargingProfile"]["id"] in ids)
            and (level is None or item["chargingProfile"]["stackLevel"] == level)
            and purpose in (None, item["chargingProfile"]["chargingProfilePurpose"])
        ]

    def _on_GetChargingProfiles(self, payload: Json) -> Json:  # noqa: N802
        return {"status": "Accepted" if self._wanted(payload) else "NoProfiles"}

    async def _report_profiles(self, payload: Json) -> None:
        found = self._wanted(payload)
        for number, item in enumerate(found):
            await self.send(
                "ReportChargingProfiles",
                {
                    "requestId": payload["requestId"],
                    "chargingLimitSource": "CSO",
                    "evseId": item["evseId"],
                    "chargingProfile": [item["chargingProfile"]],
                    "tbc": number + 1 < len(found),
                },
            )

    def _on_GetCompositeSchedule(self, payload: Json) -> Json:  # noqa: N802
        if not 0 <= payload["evseId"] <= self.evses:
            return {"status": "Rejected", "statusInfo": {"reasonCode": "UnknownEvse"}}
        now = datetime.now(UTC).replace(microsecond=0)
        periods: list[Json] = []
        for second in range(0, max(payload["duration"], 1), 5):
            limit = self.limit(now + timedelta(seconds=second), payload["evseId"] or 1)
            limit = 150_000.0 if limit is None else limit
            if not periods or periods[-1]["limit"] != limit:
                periods.append({"startPeriod": second, "limit": limit})
        return {
            "status": "Accepted",
            "schedule": {
                "evseId": payload["evseId"],
                "duration": payload["duration"],
                "scheduleStart": stamp(now),
                "chargingRateUnit": "W",
                "chargingSchedulePeriod": periods,
            },
        }

    def _leading(self, purpose: str, evse: int, at: datetime) -> float | None:
        """The limit of the highest level that is in force (2.0.1 part 2, K3.5)."""
        found = [
            (item["chargingProfile"]["stackLevel"], limit)
            for item in self.kept
            if item["chargingProfile"]["chargingProfilePurpose"] == purpose
            and item["evseId"] in (0, evse)
            and (limit := limit_at(item["chargingProfile"], at)) is not None
        ]
        return max(found)[1] if found else None


def meter_value(kind: str, at: datetime | None, samples: dict[str, float]) -> Json:
    """One MeterValueType of wh, power_w and soc."""
    context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}
    names = {
        "wh": ("Energy.Active.Import.Register", "Wh"),
        "power_w": ("Power.Active.Import", "W"),
        "soc": ("SoC", "Percent"),
    }
    return {
        "timestamp": stamp(at),
        "sampledValue": [
            {
                "value": value,
                "measurand": names[name][0],
                "unitOfMeasure": {"unit": names[name][1]},
                "context": context.get(kind, "Sample.Periodic"),
            }
            for name, value in samples.items()
        ],
    }


def limit_at(profile: Json, at: datetime) -> float | None:
    """The limit of an Absolute profile at a time, W; None when it has none then."""
    (schedule,) = profile["chargingSchedule"]
    assert profile["chargingProfileKind"] == "Absolute", "own maths knows Absolute only"
    if "validTo" in profile and at >= moment(profile["validTo"]):
        return None
    passed_s = (at - moment(schedule["startSchedule"])).total_seconds()
    if passed_s < 0 or passed_s >= schedule.get("duration", passed_s + 1):
        return None
    (*_, period) = (
        item
        for item in schedule["chargingSchedulePeriod"]
        if item["startPeriod"] <= passed_s
    )
    factor = 1.0
    if schedule["chargingRateUnit"] == "A":
        factor = NOMINAL_V * period.get("numberPhases", 3)
    return float(period["limit"]) * factor
