"""Means of the fault tests: how long they run, and a seed that replays them."""

from __future__ import annotations

import os
import random

import pytest

IS_LONG = bool(os.environ.get("FAULTS_LONG"))
"""`make faults` sets it: the long form of tier N."""
DEFAULT_SEED = 20260301


def rounds(short: int, long: int) -> int:
    """How often to repeat: short in `make test`, long in `make faults`."""
    return long if IS_LONG else short


def chance_of(name: str) -> random.Random:
    """Chance that SEED replays; the seed is printed, pytest shows it on a failure."""
    seed = int(os.environ.get("SEED", str(DEFAULT_SEED)))
    print(f"{name}: SEED={seed}")  # noqa: T201 - a failure can be replayed
    return random.Random(f"{name}-{seed}")


long_only = pytest.mark.skipif(not IS_LONG, reason="long form only: make faults")
