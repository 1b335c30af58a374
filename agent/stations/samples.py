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
_READ = (_ENERGY, "Power.Active.Import", "SoC", "Power.Offered")
_KILO = ("kWh", "kW", "kwh", "kw", "KWH", "KW")

Readings = tuple[MeterReading, ...]
NumberOf = Callable[[dict[str, Any]], float | None]


def read_meter_values(
    values: Any, now: datetime, number_of: NumberOf | None = None
) -> tuple[Readings, str | None]:
    """Read a list of MeterValue objects; readings oldest first, and the first oddity."""
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
        readings.append(_read(samples, at, number_of or _number))
    if len(readings) > 1:
        readings.sort(key=_time_of)
    return tuple(readings), problem


def read_meter_values_2x(values: Any, now: datetime) -> tuple[Readings, str | None]:
    """As ``read_meter_values``; the unit of 2.x is an object with a power of ten."""
    return read_meter_values(values, now, _number_2x)


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
        get = sample.get
        measurand = get("measurand")
        if measurand is None:
            measurand = _ENERGY
        if measurand not in _READ:
            continue
        number = number_of(sample)
        if number is None:
            continue
        if measurand == _ENERGY:
            if get("location") == "Inlet":
                continue
            if get("phase") is None:
                register = number
            else:
                register_phases = (register_phases or 0.0) + number
        elif measurand == "Power.Active.Import":
            if get("location") == "Inlet":
                inlet = number
            elif get("phase") is None:
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
        power = (
            power_phases if power_phases is not None else _from_current(samples, number_of)
        )
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
    number = parse_number(sample.get("value"))
    if number is None or not -NUMBER_MAX < number < NUMBER_MAX:
        return None
    return number * 1000.0 if sample.get("unit") in _KILO else number


def _number_2x(sample: dict[str, Any]) -> float | None:
    number = parse_number(sample.get("value"))
    if number is None:
        return None
    unit = sample.get("unitOfMeasure")
    if type(unit) is dict:
        power = unit.get("multiplier")
        if type(power) is int and -POWER_MAX <= power <= POWER_MAX and power:
            number *= 10.0**power
        if unit.get("unit") in _KILO:
            number *= 1000.0
    return number if -NUMBER_MAX < number < NUMBER_MAX else None
