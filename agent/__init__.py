"""depot-agent: the OCPP central system of an EV depot that executes ChargEye plans."""

from __future__ import annotations

__version__ = "0.1.0"
