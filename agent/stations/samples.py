"""Sampled values of any version -> readings; lenient, bounded, and quick.

charger-quirks.md MTR and seen-clients.md: numbers as text, kWh, values per phase without
a total, no units, 1970. What cannot be read is left out and counted, never guessed.
This is the hot path of the agent: one pass, no objects per sampled value.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.domain.meter import MeterReading
from agent.stations.times import believable, parse_number

SAMPLES_MAX = 1000
"""Sampled values read from one message; the rest is counted (I12)."""

NUMBER_MAX = 1e12
"""No meter shows more; products and sums of what is below stay finite."""

_ENERGY = "Energy.Active.Import.Register"
_KILO = ("kWh", "kW", "kwh", "kw", "KWH", "KW")

Readings = tuple[MeterReading, ...]


def read_meter_values(values: Any, now: datetime) -> tuple[Readings, str | None]:
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
        readings.append(_read(samples, at))
    if len(readings) > 1:
        readings.sort(key=_time_of)
    return tuple(readings), problem


def _time_of(reading: MeterReading) -> datetime:
    return reading.at


def _read(  # noqa: C901, PLR0912, PLR0915 - one pass over the hot path
    samples: list[Any], at: datetime
) -> MeterReading:
    register = power = soc = offered = inlet = None
    register_phases = power_phases = current_phases = 0.0
    has_register_phase = has_power_phase = has_current = False
    voltage = current = None
    for sample in samples:
        if type(sample) is not dict:
            continue
        get = sample.get
        measurand = get("measurand")
        if measurand is None:
            measurand = _ENERGY
        if measurand == "Voltage" and voltage is not None:
            continue
        number = parse_number(get("value"))
        if number is None or not -NUMBER_MAX < number < NUMBER_MAX:
            continue
        if measurand == "Voltage":
            voltage = number if number > 0 else None
            continue
        unit = get("unit")
        if unit in _KILO:
            number *= 1000.0
        phase = get("phase")
        if measurand == _ENERGY:
            if get("location", "Outlet") == "Inlet":
                continue
            if phase is None:
                register = number
            else:
                register_phases += number
                has_register_phase = True
        elif measurand == "Power.Active.Import":
            if get("location") == "Inlet":
                inlet = number
            elif phase is None:
                power = number
            else:
                power_phases += number
                has_power_phase = True
        elif measurand == "SoC":
            soc = number
        elif measurand == "Power.Offered":
            offered = number
        elif measurand == "Current.Import":
            if phase is None:
                current = number
            elif phase != "N":
                current_phases += number
                has_current = True
    if register is None and has_register_phase:
        register = register_phases
    if power is None:
        if has_power_phase:
            power = power_phases
        elif voltage is not None and (has_current or current is not None):
            power = voltage * (current_phases if has_current else current or 0.0)
    return MeterReading(at, register, power, soc, offered, inlet)
