"""Faults of meter values and of times, as changes of the payloads that carry them.

Their order matters where several are chosen: what breaks numbers comes last.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import parse_stamp, stamp
from agent.simulator.metering import DC_VOLTS, ENERGY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.simulator.spoil_base import Change, Memory, Payload

POWER, OFFERED_W, OFFERED_A = "Power.Active.Import", "Power.Offered", "Current.Offered"
TIME_FIELDS = ("timestamp", "generatedAt", "basetime")
NTH_DIP, NTH_EMPTY, NTH_TIME = 5, 3, 5
LOST_WH = 1_000_000.0
BOGUS_W, BOGUS_A = 350_000.0, 500.0
STALE = timedelta(hours=3)
PERIODIC = ("Sample.Periodic", "Sample.Clock")


def readings(payload: Payload) -> Iterator[Payload]:
    """Give the MeterValues of a message, whatever the version."""
    for name in ("meterValue", "transactionData"):
        yield from (each for each in payload.get(name, []) if isinstance(each, dict))


def samples(payload: Payload, *measurands: str) -> Iterator[Payload]:
    """Give the sampled values of these measurands, or all."""
    for reading in readings(payload):
        for sample in reading["sampledValue"]:
            if not measurands or sample.get("measurand") in measurands:
                yield sample


def _put(sample: Payload, number: float) -> None:
    sample["value"] = f"{number:.1f}" if isinstance(sample["value"], str) else number


def _scaled(measurand: str, factor: float, shift: float = 0.0) -> Change:
    def change(_action: str, payload: Payload, _memory: Memory) -> None:
        for sample in samples(payload, measurand):
            _put(sample, float(sample["value"]) * factor + shift)

    return change


def _in_text(write: Callable[[str], str]) -> Change:
    def change(_action: str, payload: Payload, _memory: Memory) -> None:
        for sample in samples(payload):
            if isinstance(sample["value"], str):
                sample["value"] = write(sample["value"])

    return change


def _in_times(write: Callable[[str], str]) -> Change:
    def change(_action: str, payload: Payload, _memory: Memory) -> None:
        _walk(payload, write)

    return change


def _walk(node: Any, write: Callable[[str], str]) -> None:
    if isinstance(node, list):
        for each in node:
            _walk(each, write)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in TIME_FIELDS and isinstance(value, str):
                node[name] = write(value)
            else:
                _walk(value, write)


def _bad_times(_action: str, payload: Payload, memory: Memory) -> None:
    _walk(
        payload,
        lambda text: "yesterday, 7pm" if memory.is_nth("times", NTH_TIME) else text,
    )


def _nine_fractions(text: str) -> str:
    return f"{parse_stamp(text).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}123Z"


def _empty_values(_action: str, payload: Payload, memory: Memory) -> None:
    for sample in samples(payload):
        if memory.is_nth("empty-values", NTH_EMPTY):
            sample["value"] = ""


def _bare_values(_action: str, payload: Payload, _memory: Memory) -> None:
    for reading in readings(payload):
        found = [each for each in reading["sampledValue"] if each["measurand"] == ENERGY]
        reading["sampledValue"] = [{"value": each["value"]} for each in found]


def _odd_units(_action: str, payload: Payload, _memory: Memory) -> None:
    for reading in readings(payload):
        is_text = any(isinstance(each["value"], str) for each in reading["sampledValue"])
        odd: Payload = {"value": 21.5, "measurand": "Temperature"}
        odd |= {"unit": "Celcius"} if is_text else {"unitOfMeasure": {"unit": "Celcius"}}
        if is_text:
            odd["value"] = "21.5"
        reading["sampledValue"].append(odd)


def _empty_samples(action: str, payload: Payload, memory: Memory) -> None:
    is_reading = action in ("MeterValues", "TransactionEvent")
    if is_reading and payload.get("meterValue") and memory.is_nth("none", NTH_EMPTY):
        for reading in readings(payload):
            reading["sampledValue"] = []


def _register_dips(_action: str, payload: Payload, memory: Memory) -> None:
    for sample in samples(payload, ENERGY):
        if memory.is_nth("dips", NTH_DIP):
            _put(sample, 0.0)


def _energy_frozen(_action: str, payload: Payload, memory: Memory) -> None:
    for sample in samples(payload, ENERGY):
        sample["value"] = memory.kept.setdefault("frozen", sample["value"])


def _phases_only(_action: str, payload: Payload, _memory: Memory) -> None:
    for reading in readings(payload):
        whole = [each for each in reading["sampledValue"] if each["measurand"] == POWER]
        kept = [each for each in reading["sampledValue"] if each["measurand"] != POWER]
        for sample in whole:
            for phase in ("L1", "L2", "L3"):
                third = {**sample, "phase": phase}
                _put(third, float(sample["value"]) / 3)
                kept.append(third)
        reading["sampledValue"] = kept


def _on_trigger_only(action: str, payload: Payload, _memory: Memory) -> bool | None:
    if action == "MeterValues":
        contexts = {each.get("context") for each in samples(payload)}
        return None if contexts - set(PERIODIC) else False
    trigger = payload.get("triggerReason")
    return False if trigger in ("MeterValuePeriodic", "MeterValueClock") else None


def _same_times(_action: str, payload: Payload, memory: Memory) -> None:
    for reading in readings(payload):
        reading["timestamp"] = memory.kept.setdefault("same", reading["timestamp"])


def _offered_bogus(_action: str, payload: Payload, _memory: Memory) -> None:
    for sample in samples(payload, OFFERED_W, OFFERED_A):
        _put(sample, BOGUS_W if sample["measurand"] == OFFERED_W else BOGUS_A)


def _mixed_contexts(_action: str, payload: Payload, _memory: Memory) -> None:
    for reading in list(readings(payload)):
        zeros = []
        for sample in reading["sampledValue"]:
            zeros.append({**sample, "context": "Sample.Clock"})
            _put(zeros[-1], 0.0)
        if "meterValue" in payload:
            payload["meterValue"].append({**reading, "sampledValue": zeros})


def _stale_status(action: str, payload: Payload, _memory: Memory) -> None:
    if action == "StatusNotification":
        payload["timestamp"] = stamp(parse_stamp(payload["timestamp"]) - STALE)


def _end_before_reading(action: str, payload: Payload, _memory: Memory) -> None:
    if action == "StopTransaction" or payload.get("eventType") == "Ended":
        moment = parse_stamp(payload["timestamp"]) - timedelta(seconds=2)
        payload["timestamp"] = stamp(moment)


METER_CHANGES: dict[str, Change] = {
    "kwh-as-wh": _scaled(ENERGY, 0.001),
    "power-in-kw": _scaled(POWER, 0.001),
    "odd-units": _odd_units,
    "empty-samples": _empty_samples,
    "register-dips": _register_dips,
    "register-negative": _scaled(ENERGY, 1.0, -LOST_WH),
    "energy-frozen": _energy_frozen,
    "phases-only": _phases_only,
    "on-trigger-only": _on_trigger_only,
    "same-times": _same_times,
    "offered-in-watts": _scaled(OFFERED_A, DC_VOLTS),
    "offered-bogus": _offered_bogus,
    "mixed-contexts": _mixed_contexts,
    "bare-values": _bare_values,
    "comma-values": _in_text(lambda text: f"{float(text):.2f}".replace(".", ",")),
    "padded-values": _in_text(lambda text: f"  {text} "),
    "empty-values": _empty_values,
    "stale-status-time": _stale_status,
    "end-before-reading": _end_before_reading,
    "no-zone": _in_times(lambda text: text.removesuffix("Z")),
    "short-zone": _in_times(lambda text: f"{text.removesuffix('Z')}+00"),
    "nine-fractions": _in_times(_nine_fractions),
    "bad-times": _bad_times,
}
"""By fault: how it changes a payload."""
