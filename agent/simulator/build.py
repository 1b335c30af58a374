"""Builds a virtual station of whatever version its configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulator.station2 import VirtualStation2
from agent.simulator.station16 import VirtualStation16

if TYPE_CHECKING:
    from agent.simulator.clock import SimClock
    from agent.simulator.station import VirtualStation
    from agent.simulator.station_config import StationConfig


def build_station(config: StationConfig, clock: SimClock) -> VirtualStation:
    """Build a station; nothing happens until it is run."""
    made = VirtualStation2 if config.is_2x else VirtualStation16
    return made(config, clock)
