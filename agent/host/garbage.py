"""What closed links leave behind is collected soon, in one short pause.

A closed connection is a cycle of some hundred objects, 25 KiB (``websockets`` ties
protocol, transport and logger together). A service collects so seldom that those of weeks
would pile up; faults.md H5 wants memory flat.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""Messages make tens of thousands of short-lived objects a second, none in cycles."""
LOOK_EVERY_S: Final = 10.0
LINKS: Final = 50
"""Closed links that are worth a pause of some 50 ms with 100 stations: 1 MiB or more."""
ROUNDS: Final = 360
"""At the latest once an hour: exceptions and closed cloud connections leave cycles, too."""


def settle() -> None:
    """Leave out for ever what a start has made, and collect seldom from now on."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def sweep(closed_links: Callable[[], int]) -> None:
    """Collect garbage for ever; ``closed_links`` tells how many links ended so far."""
    swept = closed_links()
    for number in itertools.count(1):
        await asyncio.sleep(LOOK_EVERY_S)
        count = closed_links()
        if count - swept >= LINKS or number % ROUNDS == 0:
            swept = count
            gc.collect()
