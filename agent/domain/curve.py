"""Piecewise-constant power over time: the one shape of plans, limits and shares.

A curve is a tuple of steps ``(from_s, limit_w)``: whole seconds since the epoch, and
watts in tenths (the finest limit that OCPP 1.6 can carry). The last step holds for ever;
before the first step the first value holds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NewType

Step = tuple[int, float]
Curve = NewType("Curve", tuple[Step, ...])

EVER_S = 2**40
"""A time after every plan."""
TOLERANCE_W = 0.05
"""Half of the smallest step: sums of tenths are not exact in binary."""


def floor_tenth(value: float) -> float:
    """Round down to 0.1; what is 0.1 but for binary noise stays as it is."""
    return math.floor(value * 10 + 1e-6) / 10


def curve(steps: Iterable[Step]) -> Curve:
    """Make a curve of steps in any order; equal neighbours are merged.

    Of two steps at the same second the later one in the input wins. Raises
    ValueError when there is no step.
    """
    merged: list[Step] = []
    by_time = dict(steps)
    for at_s in sorted(by_time):
        if not merged or merged[-1][1] != by_time[at_s]:
            merged.append((at_s, by_time[at_s]))
    if not merged:
        raise ValueError("a curve needs at least one step")
    return Curve(tuple(merged))


def constant(limit_w: float) -> Curve:
    """Make the same limit at all times."""
    return Curve(((0, limit_w),))


def value_at(line: Curve, at_s: float) -> float:
    """Tell the limit in force at a time, watts."""
    if len(line) == 1:
        return line[0][1]
    index = bisect_right(line, (at_s, math.inf))  # behind any step of this second
    return line[max(index - 1, 0)][1]


def edges(lines: Iterable[Curve], from_s: int) -> list[int]:
    """Times after ``from_s`` at which any curve steps, with ``from_s`` first."""
    times = {step[0] for line in lines for step in line if step[0] > from_s}
    return [from_s, *sorted(times)]


def combine(
    lines: Sequence[Curve], rule: Callable[[list[float]], float], from_s: int
) -> Curve:
    """Combine curves pointwise by a rule, from a time on."""
    return curve(
        (at_s, rule([value_at(line, at_s) for line in lines]))
        for at_s in edges(lines, from_s)
    )


def lower_of(lines: Sequence[Curve], from_s: int) -> Curve:
    """Pointwise minimum."""
    return combine(lines, min, from_s)


def higher_of(lines: Sequence[Curve], from_s: int) -> Curve:
    """Pointwise maximum."""
    return combine(lines, max, from_s)


def total(lines: Sequence[Curve], from_s: int) -> Curve:
    """Pointwise sum; the sum of no curves is zero."""
    return combine(lines, sum, from_s) if lines else constant(0)


def is_within(low: Curve, high: Curve, from_s: int, to_s: int = EVER_S) -> bool:
    """Whether ``low`` is nowhere above ``high`` in [from_s, to_s)."""
    return all(
        value_at(low, at_s) <= value_at(high, at_s) + TOLERANCE_W
        for at_s in edges((low, high), from_s)
        if at_s < to_s
    )


def is_same(one: Curve, other: Curve, from_s: int, to_s: int = EVER_S) -> bool:
    """Whether two curves agree in [from_s, to_s)."""
    return all(
        abs(value_at(one, at_s) - value_at(other, at_s)) <= TOLERANCE_W
        for at_s in edges((one, other), from_s)
        if at_s < to_s
    )


def since(line: Curve, from_s: int) -> Curve:
    """Cut the same curve without its past: its first step is at ``from_s``."""
    return curve(
        [(from_s, value_at(line, from_s)), *(step for step in line if step[0] > from_s)]
    )


def energy_wh(line: Curve, from_s: int, to_s: int) -> float:
    """Integrate the curve over [from_s, to_s): watt-hours."""
    times = [at_s for at_s in edges((line,), from_s) if at_s < to_s]
    ends = [*times[1:], to_s] if times else []
    return sum(
        value_at(line, at_s) * (end_s - at_s) / 3600
        for at_s, end_s in zip(times, ends, strict=True)
    )
