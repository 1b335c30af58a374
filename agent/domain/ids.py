"""Identifiers: one type each, so that mixing two of them is a type error."""

from __future__ import annotations

from typing import NewType

StationId = NewType("StationId", str)
EvseId = NewType("EvseId", int)
ConnectorId = NewType("ConnectorId", int)
TransactionId = NewType("TransactionId", str)
SessionId = NewType("SessionId", str)
VehicleId = NewType("VehicleId", str)
ScheduleId = NewType("ScheduleId", str)
MacAddress = NewType("MacAddress", str)
AccountId = NewType("AccountId", str)

Outlet = tuple[StationId, EvseId]
"""One controllable outlet of the depot."""
