"""What a virtual station writes into OCPP 1.6 meter values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.metering import samples

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from agent.simulator.hardware import Outlet
    from agent.simulator.metering import Sample


def reading(
    outlet: Outlet,
    measurands: Iterable[str],
    context: str,
    now: datetime,
    faults: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Make one MeterValue object of an outlet; measurands it lacks are left out."""
    found = [each for name in measurands for each in samples(outlet, name, faults)]
    shown = [_form(each, context) for each in found]
    if "numbers-as-numbers" in faults:
        for each in shown:
            each["value"] = float(each["value"])
    return {"timestamp": stamp(now), "sampledValue": shown}


def _form(sample: Sample, context: str) -> dict[str, Any]:
    form: dict[str, Any] = {
        "value": sample.text,
        "measurand": sample.measurand,
        "unit": sample.unit,
        "location": sample.location,
        "context": context,
    }
    if sample.phase is not None:
        form["phase"] = sample.phase
    return form
