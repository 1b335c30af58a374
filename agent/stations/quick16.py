"""MeterValues of 1.6 in one pass: parsed, held against the schema, typed.

Nine of ten messages of a depot are MeterValues, and nearly all of those are just what the
standard says. They are read here at a third of the cost: parsing, looking for depth and
checking the schema are one step. Whatever breaks the schema, or could be taken only with
good will, goes the general way, which knows what to call it (``framing``, ``schemas``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType
from msgspec.json import Decoder
from ocpp.v16.enums import (
    Location,
    Measurand,
    Phase,
    ReadingContext,
    UnitOfMeasure,
    ValueFormat,
)

from agent.stations import framing
from agent.stations.times import WHOLE_MAX

METER_VALUES: Final = "MeterValues"
_MARK = b'"MeterValues"'
_MARK_WITHIN = framing.MESSAGE_ID_MAX + 32
"""The name of the action stands behind type and id; further back it is something else."""
_DATE_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\Z"
)
"""As RFC 3339 wants it. A leap second goes the general way, which knows when one can be; a
day that is in no calendar is found by who reads it."""

Whole = Annotated[int, Meta(ge=-WHOLE_MAX, le=WHOLE_MAX)]


class SampledValue(Struct, forbid_unknown_fields=True, gc=False):
    """One value with its description; what is absent is false."""

    value: str
    measurand: Measurand = Measurand.energy_active_import_register
    phase: Phase | UnsetType = UNSET
    location: Location | UnsetType = UNSET
    unit: UnitOfMeasure | UnsetType = UNSET
    context: ReadingContext | UnsetType = UNSET
    format: ValueFormat | UnsetType = UNSET


class MeterValue(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    """The values of one moment."""

    timestamp: Annotated[str, Meta(pattern=_DATE_TIME)]
    sampled_value: Annotated[list[SampledValue], Meta(min_length=1)]


class MeterValues(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    """The payload (OCPP 1.6 section 6.31)."""

    connector_id: Whole
    meter_value: Annotated[list[MeterValue], Meta(min_length=1)]
    transaction_id: Whole | UnsetType = UNSET


class _Frame(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    message_type: Literal[2]
    message_id: Annotated[str, Meta(min_length=1, max_length=framing.MESSAGE_ID_MAX)]
    action: Literal["MeterValues"]
    payload: MeterValues


@dataclass(slots=True)
class MeterValuesCall(framing.Call):
    """MeterValues that keep the schema: in ``typed``; ``payload`` is empty."""

    typed: MeterValues


_decode = Decoder(_Frame).decode


def parse(text: str | bytes) -> framing.Frame:
    """As ``framing.parse``, with the usual MeterValues typed; never raises."""
    if type(text) is bytes and text.find(_MARK, 0, _MARK_WITHIN) > 0:
        try:
            found = _decode(text)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return framing.parse(text)
        return MeterValuesCall(found.message_id, METER_VALUES, {}, len(text), found.payload)
    return framing.parse(text)
