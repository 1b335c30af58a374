"""Sampled values of any version -> readings; lenient, bounded, and quick.

charger-quirks.md MTR and seen-clients.md: numbers as text, kWh, values per phase without
a total, no units, 1970. What cannot be read is left out and counted, never guessed.
The hot path of the agent: one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ocpp.v16.enums import Location, Measurand, Phase

from agent.domain.meter import MeterReading
from agent.stations import quick16
from agent.stations.times import believable, parse_number

SAMPLES_MAX = 1000
"""Sampled values read from one message; the rest is counted (I12)."""
TOO_MANY = f"more than {SAMPLES_MAX} sampled values: the rest was left out"

NUMBER_MAX = 1e12
"""No meter shows more; products and sums of what is below stay finite."""

POWER_MAX = 12
"""Powers of ten that a unit may carry; more is no meter."""

_ENERGY = Measurand.energy_active_import_register
_POWER = Measurand.power_active_import
_SOC, _OFFERED = Measurand.soc, Measurand.power_offered
_VOLTAGE, _CURRENT = Measurand.voltage, Measurand.current_import
_READ = (_ENERGY, _POWER, _SOC, _OFFERED)
_LOOKED_AT = frozenset(str(item) for item in (*_READ, _VOLTAGE, _CURRENT))
_INLET, _NEUTRAL = Location.inlet, Phase.n
_KILO = frozenset({"kWh", "kW", "kwh", "kw", "KWH", "KW"})

Readings = tuple[MeterReading, ...]


@dataclass(slots=True)
class _Sample:
    """What is looked at of a sampled value; phase and location are false if absent."""

    value: Any
    measurand: str
    phase: Any
    location: Any
    unit: Any


@dataclass(slots=True)
class _Moment:
    timestamp: Any
    sampled_value: list[_Sample]


NumberOf = Callable[[Any], float | None]


def read_meter_values(values: Any, now: datetime) -> tuple[Readings, str | None]:
    """Read a list of MeterValue objects; readings oldest first, and the first oddity."""
    moments, problem = _moments(values, "unit")
    readings, oddity = _read_all(moments, now, _number)
    return readings, problem or oddity


def read_meter_values_2x(values: Any, now: datetime) -> tuple[Readings, str | None]:
    """As ``read_meter_values``; the unit of 2.x is an object with a power of ten."""
    moments, problem = _moments(values, "unitOfMeasure")
    readings, oddity = _read_all(moments, now, _number_2x)
    return readings, problem or oddity


def read_typed(
    values: Sequence[quick16.MeterValue], now: datetime
) -> tuple[Readings, str | None]:
    """As ``read_meter_values``, of values that keep the schema."""
    return _read_all(values, now, _number)


def _moments(values: Any, unit: str) -> tuple[list[_Moment], str | None]:
    """What can be used of a list of MeterValue objects, and the first oddity."""
    if type(values) is not list:
        return [], "meterValue is not a list"
    moments: list[_Moment] = []
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
            problem = TOO_MANY
            samples = samples[:budget]
        if not samples:
            continue  # MTR-06, or past the budget: no reading
        budget -= len(samples)
        moments.append(_Moment(value.get("timestamp"), _samples(samples, unit)))
    return moments, problem


def _samples(items: list[Any], unit: str) -> list[_Sample]:
    found: list[_Sample] = []
    for item in items:
        if type(item) is not dict:
            continue
        get = item.get
        measurand = get("measurand")
        if measurand is None:
            measurand = _ENERGY  # absent, or null (RPC-05)
        elif type(measurand) is not str or measurand not in _LOOKED_AT:
            continue
        found.append(
            _Sample(get("value"), measurand, get("phase"), get("location"), get(unit))
        )
    return found


def _read_all(
    moments: Sequence[Any], now: datetime, number_of: NumberOf
) -> tuple[Readings, str | None]:
    readings: list[MeterReading] = []
    problem: str | None = None
    budget = SAMPLES_MAX
    for moment in moments:
        samples = moment.sampled_value
        if len(samples) > budget:
            problem = TOO_MANY
            samples = samples[:budget]
            if not samples:
                break
        budget -= len(samples)
        at, oddity = believable(moment.timestamp, now)
        problem = problem or oddity
        readings.append(_read(samples, at, number_of))
    if len(readings) > 1:
        readings.sort(key=_time_of)
    return tuple(readings), problem


def _time_of(reading: MeterReading) -> datetime:
    return reading.at


def _read(  # noqa: C901, PLR0912 - one pass over the hot path
    samples: Sequence[Any], at: datetime, number_of: NumberOf
) -> MeterReading:
    register = power = soc = offered = inlet = None
    register_phases: float | None = None
    power_phases: float | None = None
    for sample in samples:
        measurand = sample.measurand
        if measurand not in _READ:
            continue
        number = number_of(sample)
        if number is None:
            continue
        if measurand == _ENERGY:
            if sample.location == _INLET:
                continue
            if not sample.phase:
                register = number
            else:
                register_phases = (register_phases or 0.0) + number
        elif measurand == _POWER:
            if sample.location == _INLET:
                inlet = number
            elif not sample.phase:
                power = number
            else:
                power_phases = (power_phases or 0.0) + number
        elif measurand == _SOC:
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


def _from_current(samples: Sequence[Any], number_of: NumberOf) -> float | None:
    """Power of a station that reports only voltage and currents, W."""
    voltage: float | None = None
    total: float | None = None
    phases: float | None = None
    for sample in samples:
        measurand = sample.measurand
        if measurand not in (_VOLTAGE, _CURRENT):
            continue
        number = number_of(sample)
        if number is None:
            continue
        if measurand == _VOLTAGE:
            voltage = voltage or (number if number > 0 else None)
        elif not sample.phase:
            total = number
        elif sample.phase != _NEUTRAL:
            phases = (phases or 0.0) + number
    current = phases if phases is not None else total
    return None if voltage is None or current is None else voltage * current


def _number(sample: Any) -> float | None:
    """Value and unit of 1.6: two texts, mostly."""
    value = sample.value
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
    unit = sample.unit
    return number * 1000.0 if isinstance(unit, str) and unit in _KILO else number


def _number_2x(sample: Any) -> float | None:
    """Value and unit of 2.x: a number, and an object with a power of ten."""
    value = sample.value
    number = value if type(value) is float else parse_number(value)
    if number is None:
        return None
    unit = sample.unit
    if type(unit) is dict:
        power = unit.get("multiplier")
        if type(power) is int and -POWER_MAX <= power <= POWER_MAX:
            number *= 10.0**power
        name = unit.get("unit")
        if type(name) is str and name in _KILO:
            number *= 1000.0
    return number if -NUMBER_MAX < number < NUMBER_MAX else None
