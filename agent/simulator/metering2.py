"""What a virtual station writes into OCPP 2.x meter values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.metering import samples

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from agent.simulator.hardware import Outlet
    from agent.simulator.metering import Sample


def reading2(
    outlet: Outlet,
    measurands: Iterable[str],
    context: str,
    now: datetime,
    faults: frozenset[str] = frozenset(),
) -> dict[str, Any] | None:
    """Make one MeterValueType of an outlet; None if it has none of the measurands."""
    found = [each for name in measurands for each in samples(outlet, name, faults)]
    if not found:
        return None
    return {
        "timestamp": stamp(now),
        "sampledValue": [_form(each, context) for each in found],
    }


def _form(sample: Sample, context: str) -> dict[str, Any]:
    form: dict[str, Any] = {
        "value": float(sample.text),
        "measurand": sample.measurand,
        "unitOfMeasure": {"unit": sample.unit},
        "location": sample.location,
        "context": context,
    }
    if sample.phase is not None:
        form["phase"] = sample.phase
    return form
