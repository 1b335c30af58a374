"""The brake against guessing: who failed often waits, in bounded memory (faults.md A2).

Counted per address, per identity, and per pair of both. A pair that proved itself is
judged by its own failures alone: neither a neighbour behind the same router nor a
stranger who guesses at its identity can lock a good station out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass, field

FAILURES_MAX = 5
WINDOW_S = 60.0
BLOCK_S = 300.0
"""Five failures within a minute cost five minutes (faults.md A2)."""
KEYS_MAX = 4096
"""Sources remembered per kind; the one that failed longest ago is forgotten."""
IPV6_PREFIX = 64
"""Bits that one subscriber has; within them an address costs nothing."""


@dataclass(slots=True)
class _Counter:
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_MAX))
    blocked_until: float = 0.0


class _Table:
    """Failures by key, oldest first, never more than ``KEYS_MAX``."""

    def __init__(self) -> None:
        self._counters: OrderedDict[object, _Counter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def is_blocked(self, key: object, now_s: float) -> bool:
        found = self._counters.get(key)
        return found is not None and now_s < found.blocked_until

    def fail(self, key: object, now_s: float) -> bool:
        """Count a failure; whether it is the one that blocks."""
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter()
            if len(self._counters) > KEYS_MAX:
                self._counters.popitem(last=False)
        self._counters.move_to_end(key)
        counter.failures.append(now_s)
        is_full = len(counter.failures) == FAILURES_MAX
        if is_full and now_s - counter.failures[0] <= WINDOW_S:
            was_free = now_s >= counter.blocked_until
            counter.blocked_until = now_s + BLOCK_S
            return was_free
        return False

    def forget(self, key: object) -> None:
        self._counters.pop(key, None)

    def clear(self) -> None:
        self._counters.clear()


class Brake:
    """All counters; times are those of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        """Start with nobody blocked."""
        self.blocks = 0
        self._addresses = _Table()
        self._identities = _Table()
        self._pairs = _Table()
        self._proven: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        """How much is remembered."""
        tables = (self._addresses, self._identities, self._pairs)
        return sum(len(table) for table in tables) + len(self._proven)

    def is_blocked(self, address: str, identity: str, now_s: float) -> bool:
        """Whether a source may not even try."""
        pair = (_source(address), identity.casefold())
        if pair in self._proven:
            return self._pairs.is_blocked(pair, now_s)
        return self._addresses.is_blocked(pair[0], now_s) or self._identities.is_blocked(
            pair[1], now_s
        )

    def failed(self, address: str, identity: str, now_s: float) -> bool:
        """Count a refused attempt; whether this one set the brake."""
        pair = (_source(address), identity.casefold())
        if pair in self._proven:
            is_new = self._pairs.fail(pair, now_s)
        else:
            by_address = self._addresses.fail(pair[0], now_s)
            is_new = self._identities.fail(pair[1], now_s) or by_address
        self.blocks += is_new
        return is_new

    def proved(self, address: str, identity: str) -> None:
        """Remember who showed the right credentials from where."""
        pair = (_source(address), identity.casefold())
        self._proven[pair] = None
        self._proven.move_to_end(pair)
        if len(self._proven) > KEYS_MAX:
            self._proven.popitem(last=False)
        self._pairs.forget(pair)

    def release(self) -> None:
        """Let everybody try again: the configuration changed."""
        self._addresses.clear()
        self._identities.clear()
        self._pairs.clear()


def _source(address: str) -> str:
    """An address, or the network of one subscriber."""
    try:
        found = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)
