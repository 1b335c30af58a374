"""What a virtual station writes into OCPP 1.6 meter values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from agent.simulator.hardware import Outlet

AC_VOLTS = 230.0
DC_VOLTS = 650.0  # a bus battery in the middle of its range
SOC_UNKNOWN_READINGS = 2  # readings of 0 % with the fault soc-zero-first
WH_PER_KWH = 1000.0


def register_wh(outlet: Outlet, faults: frozenset[str]) -> int:
    """Read the energy register in whole Wh, as the station shows it."""
    total_wh = int(outlet.energy_wh)
    if "register-restarts" in faults and outlet.transaction is not None:
        return total_wh - outlet.transaction.meter_offset_wh
    return total_wh


def reading(
    outlet: Outlet,
    measurands: Iterable[str],
    context: str,
    now: datetime,
    faults: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Make one MeterValue object of an outlet; measurands it lacks are left out."""
    samples: list[dict[str, Any]] = []
    for measurand in measurands:
        samples.extend(_samples(outlet, measurand, faults))
    for sample in samples:
        sample["context"] = context
        if "numbers-as-numbers" in faults:
            sample["value"] = float(sample["value"])
    return {"timestamp": stamp(now), "sampledValue": samples}


def _samples(
    outlet: Outlet, measurand: str, faults: frozenset[str]
) -> list[dict[str, Any]]:
    volts = DC_VOLTS if outlet.dc else AC_VOLTS * outlet.phases
    match measurand:
        case "Energy.Active.Import.Register":
            return [_energy(register_wh(outlet, faults), faults)]
        case "Power.Active.Import":
            return [_sample(measurand, f"{outlet.power_w:.0f}", "W")]
        case "Power.Offered":
            return [_sample(measurand, f"{outlet.offered_w:.0f}", "W")]
        case "Current.Offered":
            return [_sample(measurand, f"{outlet.offered_w / volts:.1f}", "A")]
        case "Current.Import":
            return _per_phase(outlet, measurand, f"{outlet.power_w / volts:.1f}", "A")
        case "Voltage":
            text = f"{DC_VOLTS if outlet.dc else AC_VOLTS:.1f}"
            return _per_phase(outlet, measurand, text, "V")
        case "SoC" if outlet.dc and outlet.soc_percent is not None:
            return [_soc(outlet, outlet.soc_percent, faults)]
        case _:
            return []


def _energy(wh: int, faults: frozenset[str]) -> dict[str, Any]:
    measurand = "Energy.Active.Import.Register"
    if "energy-in-kwh" in faults:
        return _sample(measurand, f"{wh / WH_PER_KWH + 1e-13!r}", "kWh")
    return _sample(measurand, str(wh), "Wh")


def _soc(outlet: Outlet, soc: float, faults: frozenset[str]) -> dict[str, Any]:
    transaction = outlet.transaction
    is_early = transaction is None or transaction.readings < SOC_UNKNOWN_READINGS
    shown = 0.0 if is_early and "soc-zero-first" in faults else soc
    return {**_sample("SoC", f"{shown:.1f}", "Percent"), "location": "EV"}


def _per_phase(
    outlet: Outlet, measurand: str, text: str, unit: str
) -> list[dict[str, Any]]:
    if outlet.dc:
        return [_sample(measurand, text, unit)]
    neutral = "-N" if unit == "V" else ""
    return [
        {**_sample(measurand, text, unit), "phase": f"L{phase}{neutral}"}
        for phase in range(1, outlet.phases + 1)
    ]


def _sample(measurand: str, text: str, unit: str) -> dict[str, Any]:
    return {
        "value": text,
        "measurand": measurand,
        "unit": unit,
        "location": "Outlet",
    }
