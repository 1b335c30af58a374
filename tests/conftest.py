"""Which examples properties are shown, and which tests are started first."""

from __future__ import annotations

import os

import pytest

from tests.support.properties import load_profile

load_profile()  # before any module with properties is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal out what takes longest, before the rest: else all wait for the last of them.

    Each worker gets an even share of the list; the order of the rest stays, so that tests
    that share a daemon stay together.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = [item for item in items if _is_long(item)]
    rest = [item for item in items if not _is_long(item)]
    share = -(-len(items) // workers)
    dealt: list[pytest.Item] = []
    for number in range(workers):
        own = first[number::workers]
        taken = max(share - len(own), 0)
        dealt += own + rest[:taken]
        rest = rest[taken:]
    items[:] = dealt + rest


def _is_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("slow", "many"))
