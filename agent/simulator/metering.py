"""What the meters of a virtual station show, whatever the version. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.simulator.hardware import Outlet

AC_VOLTS = 230.0
DC_VOLTS = 650.0  # a bus battery in the middle of its range
SOC_UNKNOWN_READINGS = 2  # readings of 0 % with the fault soc-zero-first
WH_PER_KWH = 1000.0
ENERGY = "Energy.Active.Import.Register"
MEASURANDS = (
    ENERGY,
    "Power.Active.Import",
    "Power.Offered",
    "Current.Import",
    "Current.Offered",
    "Voltage",
    "SoC",
)


class Sample(NamedTuple):
    """One value as text with the unit that it is in."""

    measurand: str
    text: str
    unit: str
    phase: str | None = None
    location: str = "Outlet"


def register_wh(outlet: Outlet, faults: frozenset[str]) -> int:
    """Read the energy register in whole Wh, as the station shows it."""
    total_wh = int(outlet.energy_wh)
    if "register-restarts" in faults and outlet.transaction is not None:
        return total_wh - outlet.transaction.meter_offset_wh
    return total_wh


def samples(outlet: Outlet, measurand: str, faults: frozenset[str]) -> list[Sample]:
    """Read one measurand, once per phase where it has phases; none if it is lacking."""
    volts = DC_VOLTS if outlet.dc else AC_VOLTS * outlet.phases
    match measurand:
        case "Energy.Active.Import.Register":
            return [_energy(register_wh(outlet, faults), faults)]
        case "Power.Active.Import":
            return [Sample(measurand, f"{outlet.power_w:.0f}", "W")]
        case "Power.Offered":
            return [Sample(measurand, f"{outlet.offered_w:.0f}", "W")]
        case "Current.Offered":
            return [Sample(measurand, f"{outlet.offered_w / volts:.1f}", "A")]
        case "Current.Import":
            return _per_phase(outlet, measurand, f"{outlet.power_w / volts:.1f}", "A")
        case "Voltage":
            text = f"{DC_VOLTS if outlet.dc else AC_VOLTS:.1f}"
            return _per_phase(outlet, measurand, text, "V")
        case "SoC" if outlet.dc and outlet.told_soc is not None and "no-soc" not in faults:
            return [_soc(outlet, outlet.told_soc, faults)]
        case _:
            return []


def _energy(wh: int, faults: frozenset[str]) -> Sample:
    if "energy-in-kwh" in faults:
        return Sample(ENERGY, f"{wh / WH_PER_KWH + 1e-13!r}", "kWh")
    return Sample(ENERGY, str(wh), "Wh")


def _soc(outlet: Outlet, soc: float, faults: frozenset[str]) -> Sample:
    transaction = outlet.transaction
    is_early = transaction is None or transaction.readings < SOC_UNKNOWN_READINGS
    shown = 0.0 if is_early and "soc-zero-first" in faults else soc
    return Sample("SoC", f"{shown:.1f}", "Percent", location="EV")


def _per_phase(outlet: Outlet, measurand: str, text: str, unit: str) -> list[Sample]:
    if outlet.dc:
        return [Sample(measurand, text, unit)]
    neutral = "-N" if unit == "V" else ""
    return [
        Sample(measurand, text, unit, f"L{phase}{neutral}")
        for phase in range(1, outlet.phases + 1)
    ]
