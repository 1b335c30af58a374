"""Efficiency of a DC station, learned from what it reports on both of its sides.

The cap is on the grid side, limits and meter values on the vehicle's: until calibrated a
configured share counts (ocpp-depot.md B5). Slow and bounded, because two meters of one
station are never read at one instant, and used only where it is the safer word.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

LEAST, MOST = 0.80, 0.99
"""DC stations of the field lie between; below the lower one something else is wrong."""
BELIEVABLE_LEAST, BELIEVABLE_MOST = 0.70, 1.0
"""Outside of these the two values are not of one moment, or of different outlets."""
LOAD_SHARE = 0.20
"""Below this share of the rating fans and controls rule the ratio, not the conversion."""
WEIGHT = 0.05
"""Of a new sample: one that is 10 % off moves the mean by half a percent."""
SAMPLES_MIN = 20
"""Samples before the mean counts: a third of an hour at one a minute."""
SAVE_STEP = 0.005
"""A mean that moved less is not worth a write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """The running mean of one station: W out per W in."""

    mean: float
    samples: int
    at: datetime

    @property
    def learned(self) -> float | None:
        """The share to reckon with; None while too little was seen."""
        return min(max(self.mean, LEAST), MOST) if self.samples >= SAMPLES_MIN else None


def learn(
    known: Efficiency | None,
    *,
    outlet_w: float,
    inlet_w: float,
    rated_w: float,
    at: datetime,
) -> Efficiency | None:
    """Take a sample of both sides into the mean; ``known`` as it was if it is no use."""
    if outlet_w < rated_w * LOAD_SHARE or inlet_w <= 0:
        return known
    ratio = outlet_w / inlet_w
    if not BELIEVABLE_LEAST <= ratio <= BELIEVABLE_MOST:
        return known
    if known is None:
        return Efficiency(mean=ratio, samples=1, at=at)
    # The first ones weigh alike; later each weighs little.
    weight = max(WEIGHT, 1 / (known.samples + 1))
    mean = known.mean + weight * (ratio - known.mean)
    return Efficiency(mean=mean, samples=known.samples + 1, at=at)


def used(configured: float, known: Efficiency | None) -> float:
    """The lower of configured and learned: more grid power per watt is the safe side."""
    learned = known.learned if known is not None else None
    return configured if learned is None else min(configured, learned)


def words(configured: float, known: Efficiency | None) -> str:
    """Say what counts and why; "" while nothing was learned."""
    learned = known.learned if known is not None else None
    if known is None or learned is None:
        return ""
    share = used(configured, known)
    seen = f"{learned:.3f} was measured ({configured:.3f} configured)"
    return f"its grid side counts with an efficiency of {share:.3f}: {seen}"
