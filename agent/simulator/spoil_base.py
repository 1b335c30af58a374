"""What the faults of one station remember, and the form of a change of a payload."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Payload = dict[str, Any]


@dataclass(slots=True)
class Memory:
    """Counts by name, values by name, and the chance of one station."""

    chance: random.Random = field(default_factory=random.Random)
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Any] = field(default_factory=dict)

    def is_nth(self, name: str, nth: int) -> bool:
        """Count; say whether this is every nth time."""
        self.counts[name] += 1
        return self.counts[name] % nth == 0


Change = Callable[[str, Payload, Memory], bool | None]
"""Gets action, payload and memory, and works in place; False means: do not send."""
