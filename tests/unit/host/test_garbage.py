"""Cycles of closed links are collected when there are enough of them (faults.md H5)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent.host import garbage


class Link:
    """Holds itself, as a closed connection does."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def nobody_else_collects(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(garbage, "LOOK_EVERY_S", 0.001)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _is_gone(closed: int, rounds: int) -> bool:
    """Whether a cycle is gone after some rounds in which so many links were closed."""
    count = [0]
    link = weakref.ref(Link())
    sweeping = asyncio.create_task(garbage.sweep(lambda: count[0]))
    await asyncio.sleep(0)
    count[0] = closed
    for _ in range(rounds):
        await asyncio.sleep(0.002)
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping
    return link() is None


async def test_enough_closed_links_are_collected_at_once() -> None:
    assert await _is_gone(garbage.LINKS, rounds=20)


async def test_a_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "ROUNDS", 10**9)

    assert not await _is_gone(garbage.LINKS - 1, rounds=20)


async def test_a_few_wait_for_an_hour_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "ROUNDS", 3)

    assert await _is_gone(0, rounds=20)
