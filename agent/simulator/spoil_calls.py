"""Faults of all other messages, as changes of their payloads; see spoil_meters.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulator.spoil_base import Change, Memory, Payload

CONSTANT_TAG, FOREIGN_TAG = "FREEMODE", "04FFEEDDCCBBAA"
NTH_MISSING, NTH_TYPES, NTH_LONG = 3, 4, 7
LONG_CHARACTERS = 5_000
SEQ_STEP = 3
SUSPENDED = {"SuspendedEV": "SuspendedEVSE", "SuspendedEVSE": "SuspendedEV"}
STATUS = "StatusNotification"


def _in(action: str, write: Callable[[Payload], None]) -> Change:
    """Make a change of one action's payloads."""

    def change(asked: str, payload: Payload, _memory: Memory) -> None:
        if asked == action:
            write(payload)

    return change


def _tagged(write: Callable[[str], str], *actions: str) -> Change:
    """Make a change of the tags in some actions' payloads, or in all."""

    def change(action: str, payload: Payload, _memory: Memory) -> None:
        kind = f"{action}.{payload.get('eventType', '')}"
        if actions and kind not in actions:
            return
        if "idTag" in payload:
            payload["idTag"] = write(payload["idTag"])
        token = payload.get("idToken")
        if isinstance(token, dict):
            token["idToken"] = write(str(token["idToken"]))

    return change


def _status(write: Callable[[str], str]) -> Change:
    """Make a change of the word of each StatusNotification."""

    def change(action: str, payload: Payload, _memory: Memory) -> None:
        if action == STATUS:
            name = "status" if "status" in payload else "connectorStatus"
            payload[name] = write(payload[name])

    return change


def _empty_vendor(payload: Payload) -> None:
    if "chargePointVendor" in payload:
        payload["chargePointVendor"] = ""
        payload["chargePointSerialNumber"] = "9" * 80
    else:
        payload["chargingStation"]["vendorName"] = ""
        payload["chargingStation"]["serialNumber"] = "9" * 80


def _zero_id(_action: str, payload: Payload, _memory: Memory) -> None:
    if "transactionId" in payload:
        payload["transactionId"] = 0


def _wrong_meter(_action: str, payload: Payload, _memory: Memory) -> None:
    if "meterStart" in payload:
        payload["meterStart"] = 0
    if "meterStop" in payload:
        payload["meterStop"] = -1


def _reservation(action: str, payload: Payload, _memory: Memory) -> None:
    if action == "StartTransaction" or payload.get("eventType") == "Started":
        payload["reservationId"] = 0


def _foreign_tag(action: str, payload: Payload, _memory: Memory) -> None:
    if action == "StopTransaction":
        payload["idTag"] = FOREIGN_TAG
    elif payload.get("eventType") == "Ended":
        payload["idToken"] = {"idToken": FOREIGN_TAG, "type": "ISO14443"}


def _seq_gaps(payload: Payload) -> None:
    payload["seqNo"] *= SEQ_STEP


def _without(*names: str) -> Callable[[Payload], None]:
    def write(payload: Payload) -> None:
        for name in names:
            payload.pop(name, None)

    return write


def _swap_suspended(_action: str, payload: Payload, _memory: Memory) -> None:
    for node, name in ((payload, "status"), (payload.get("transactionInfo"), "")):
        if isinstance(node, dict):
            field = name or "chargingState"
            node[field] = SUSPENDED.get(node.get(field, ""), node.get(field))
            if node[field] is None:
                del node[field]


def _zero_only(payload: Payload) -> None:
    payload["connectorId"] = 0
    if "evseId" in payload:
        payload["evseId"] = 0


def _one_higher(payload: Payload) -> None:
    name = "evseId" if "evseId" in payload else "connectorId"
    payload[name] += 1


def _station_faulted(payload: Payload) -> None:
    if payload["connectorId"] == 0 and "status" in payload:
        payload |= {"status": "Faulted", "errorCode": "GroundFailure"}


def _finishing_error(payload: Payload) -> None:
    if payload.get("status") == "Finishing":
        payload["errorCode"] = "EVCommunicationError"


def _declare_amperes(action: str, payload: Payload, _memory: Memory) -> None:
    if action == "NotifyReport":
        for row in payload.get("reportData", []):
            if row["variable"]["name"] == "RateUnit":
                row["variableAttribute"] = [{"value": "A", "mutability": "ReadOnly"}]


def _extra(_action: str, payload: Payload, _memory: Memory) -> None:
    for node in [payload, *(each for each in payload.values() if isinstance(each, dict))]:
        node["vendorNote"] = {"depth": [1, None], "NaN": "é\u0000"}


def _missing(_action: str, payload: Payload, memory: Memory) -> None:
    if payload and memory.is_nth("missing", NTH_MISSING):
        del payload[memory.chance.choice(sorted(payload))]


def _wrong_types(_action: str, payload: Payload, memory: Memory) -> None:
    if memory.is_nth("types", NTH_TYPES):
        for name, value in payload.items():
            payload[name] = _other_type(value)


def _other_type(value: Any) -> Any:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return [_other_type(each) for each in value]
    if isinstance(value, dict):
        return {name: _other_type(each) for name, each in value.items()}
    return str(value)


def _long_texts(_action: str, payload: Payload, memory: Memory) -> None:
    if memory.is_nth("long", NTH_LONG):
        for name, value in payload.items():
            payload[name] = _longer(value)


def _longer(value: Any) -> Any:
    if isinstance(value, str):
        return value + "x" * LONG_CHARACTERS
    if isinstance(value, list):
        return [_longer(each) for each in value]
    if isinstance(value, dict):
        return {name: _longer(each) for name, each in value.items()}
    return value


CALL_CHANGES: dict[str, Change] = {
    "empty-vendor": _in("BootNotification", _empty_vendor),
    "constant-tag": _tagged(lambda _: CONSTANT_TAG),
    "echo-longer-tag": _tagged(
        lambda tag: f"{tag}00", "StartTransaction.", "TransactionEvent.Started"
    ),
    "tx-id-zero": _zero_id,
    "readings-without-id": _in("MeterValues", _without("transactionId")),
    "wrong-meter-start": _wrong_meter,
    "foreign-tag-in-stop": _foreign_tag,
    "reservation-zero": _reservation,
    "event-without-evse": _in("TransactionEvent", _without("evse")),
    "no-trigger-reason": _in("TransactionEvent", _without("triggerReason", "seqNo")),
    "seq-no-gaps": _in("TransactionEvent", _seq_gaps),
    "endless-report": _in("NotifyReport", lambda payload: payload.update(tbc=True)),
    "declares-amperes": _declare_amperes,
    "suspended-swapped": _swap_suspended,
    "only-connector-zero": _in(STATUS, _zero_only),
    "other-connector": _in(STATUS, _one_higher),
    "station-faulted": _in(STATUS, _station_faulted),
    "error-with-finishing": _in(STATUS, _finishing_error),
    "reserved-for-ever": _status(lambda word: "Reserved" if word == "Available" else word),
    "odd-case": _status(lambda word: word.lower()),
    "new-words": _status(lambda word: "Brewing" if word != "Available" else word),
    "extra-fields": _extra,
    "missing-fields": _missing,
    "wrong-types": _wrong_types,
    "long-texts": _long_texts,
}
"""By fault: how it changes a payload."""
