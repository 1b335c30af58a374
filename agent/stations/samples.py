"""Sampled values of any version -> readings; lenient, bounded, and quick.

charger-quirks.md MTR and seen-clients.md: numbers as text, kWh, values per phase without
a total, no units, 1970. What cannot be read is left out and counted, never guessed.
This is the hot path of the agent: one pass, no objects per sampled value.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent.domain.meter import MeterReading
from agent.stations.times import believable, parse_number

SAMPLES_MAX = 1000
"""Sampled values read from one message; the rest is counted (I12)."""

NUMBER_MAX = 1e12
"""No meter shows more; products and sums of what is below stay finite."""

POWER_MAX = 12
"""Powers of ten that a unit may carry; more is no meter."""

_ENERGY = "Energy.Active.Import.Register"
_POWER = "Power.Active.Import"
_READ = (_ENERGY, _POWER, "SoC", "Power.Offered")
_KILO = frozenset({"kWh", "kW", "kwh", "kw", "KWH", "KW"})

Readings = tuple[MeterReading, ...]
NumberOf = Callable[[dict[str, Any]], float | None]


def read_meter_values(values: Any, now: datetime) -> tuple[Readings, str | None]:
    """Read a list of MeterValue objects; readings oldest first, and the first oddity."""
    return _read_all(values, now, _number)


def read_meter_values_2x(values: Any, now: datetime) -> tuple[Readings, str | None]:
    """As ``read_meter_values``; the unit of 2.x is an object with a power of ten."""
    return _read_all(values, now, _number_2x)


def _read_all(
    values: Any, now: datetime, number_of: NumberOf
) -> tuple[Readings, str | None]:
    if type(values) is not list:
        return (), "meterValue is not a list"
    readings: list[MeterReading] = []
    problem: str | None = None
    budget = SAMPLES_MAX
    for value in values:
        if type(value) is not dict:
            problem = problem or "a meter value is not an object"
            continue
        samples = value.get("sampledValue")
        if type(samples) is not list:
            problem = problem or "sampledValue is missing"
            continue
        if len(samples) > budget:
            problem = f"more than {SAMPLES_MAX} sampled values: the rest was left out"
            samples = samples[:budget]
        if not samples:
            continue  # MTR-06, or past the budget: no reading
        budget -= len(samples)
        at, oddity = believable(value.get("timestamp"), now)
        problem = problem or oddity
        readings.append(_read(samples, at, number_of))
    if len(readings) > 1:
        readings.sort(key=_time_of)
    return tuple(readings), problem


def _time_of(reading: MeterReading) -> datetime:
    return reading.at


def _read(  # noqa: C901, PLR0912 - one pass over the hot path
    samples: list[Any], at: datetime, number_of: NumberOf
) -> MeterReading:
    register = power = soc = offered = inlet = None
    register_phases: float | None = None
    power_phases: float | None = None
    for sample in samples:
        if type(sample) is not dict:
            continue
        measurand = sample.get("measurand", _ENERGY)
        if measurand not in _READ:
            if measurand is not None:
                continue
            measurand = _ENERGY  # null for an absent field (RPC-05)
        number = number_of(sample)
        if number is None:
            continue
        if measurand == _ENERGY:
            if sample.get("location") == "Inlet":
                continue
            if sample.get("phase") is None:
                register = number
            else:
                register_phases = (register_phases or 0.0) + number
        elif measurand == _POWER:
            if sample.get("location") == "Inlet":
                inlet = number
            elif sample.get("phase") is None:
                power = number
            else:
                power_phases = (power_phases or 0.0) + number
        elif measurand == "SoC":
            soc = number
        else:
            offered = number
    if register is None:
        register = register_phases
    if power is None:
        power = power_phases
        if power is None:
            power = _from_current(samples, number_of)
    return MeterReading(at, register, power, soc, offered, inlet)


def _from_current(samples: list[Any], number_of: NumberOf) -> float | None:
    """Power of a station that reports only voltage and currents, W."""
    voltage: float | None = None
    total: float | None = None
    phases: float | None = None
    for sample in samples:
        measurand = sample.get("measurand") if type(sample) is dict else None
        if measurand not in ("Voltage", "Current.Import"):
            continue
        number = number_of(sample)
        if number is None:
            continue
        if measurand == "Voltage":
            voltage = voltage or (number if number > 0 else None)
        elif sample.get("phase") is None:
            total = number
        elif sample.get("phase") != "N":
            phases = (phases or 0.0) + number
    current = phases if phases is not None else total
    return None if voltage is None or current is None else voltage * current


def _number(sample: dict[str, Any]) -> float | None:
    """Value and unit of 1.6: two texts, mostly."""
    value = sample.get("value")
    number: float | None
    if type(value) is str:
        try:
            number = float(value)
        except ValueError:
            number = parse_number(value)
    else:
        number = parse_number(value)
    if number is None or not -NUMBER_MAX < number < NUMBER_MAX:
        return None
    unit = sample.get("unit")
    return number * 1000.0 if type(unit) is str and unit in _KILO else number


def _number_2x(sample: dict[str, Any]) -> float | None:
    """Value and unit of 2.x: a number, and an object with a power of ten."""
    value = sample.get("value")
    number = value if type(value) is float else parse_number(value)
    if number is None:
        return None
    unit = sample.get("unitOfMeasure")
    if type(unit) is dict:
        power = unit.get("multiplier")
        if type(power) is int and -POWER_MAX <= power <= POWER_MAX:
            number *= 10.0**power
        name = unit.get("unit")
        if type(name) is str and name in _KILO:
            number *= 1000.0
    return number if -NUMBER_MAX < number < NUMBER_MAX else None
