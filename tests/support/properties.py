"""How property tests are run: the same examples in each `make test`, new ones in `make hunt`.

What lands is judged by examples that everybody gets, so that a verdict never depends on the
day. Looking for new ones is a run of its own; what it finds becomes an ``@example``.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

HUNT_TIMES = int(os.environ.get("HUNT_TIMES", "0"))
"""Zero: the same examples again. Else: new ones, so many times as many."""
_EXAMPLES = 100
_FACTOR = max(1, HUNT_TIMES)


def load_profile() -> None:
    """Set how examples are chosen; before the modules with properties are imported."""
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.register_profile(
        "hunt", max_examples=_EXAMPLES * _FACTOR, deadline=None, print_blob=True
    )
    settings.load_profile("hunt" if HUNT_TIMES else "same")


def examples(count: int, **more: Any) -> settings:
    """Settings with a number of examples of one's own, multiplied when hunting."""
    return settings(max_examples=count * _FACTOR, **more)
