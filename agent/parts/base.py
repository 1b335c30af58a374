"""What a part is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.control.depot import Depot
from agent.control.executor import Executor
from agent.control.health import CloudHealth
from agent.control.intake import Intake
from agent.control.operations import Operations
from agent.control.outbox import Drainer
from agent.host.clock import RandomIds
from agent.host.metrics import Sample
from agent.ports import Clock
from agent.settings import Settings
from agent.stations.server import StationServer
from agent.store.sqlite import SqliteStore

Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]
"""Name and body of a task; when the body ends with an error, so does the daemon."""


@dataclass(slots=True, kw_only=True)
class Ground:
    """What all parts stand on. ``pace`` below 1: the clock runs faster than the network."""

    settings: Settings
    depot: Depot
    store: SqliteStore
    intake: Intake
    executor: Executor
    server: StationServer
    clock: Clock
    ids: RandomIds
    pace: float
    operations: Operations
    clouds: list[CloudHealth] = field(default_factory=list)
    destinations: list[str] = field(default_factory=list)
    """Names of outbox destinations that are drained."""
    drainers: list[Drainer] = field(default_factory=list)
    """Those that drain them."""

    def hurry(self) -> None:
        """Let everything that is owed be tried at once: a technician asks."""
        for drainer in self.drainers:
            drainer.hurry()


class Part:
    """One part; everything but the constructor may stay as it is here."""

    def tasks(self) -> Sequence[Task]:
        """Tasks that run from the start to the stop of the daemon."""
        return ()

    async def prepare(self) -> None:
        """Load what must be known before the first station connects; the store is open."""

    def reload(self, new: Settings) -> None:
        """Take over changed settings; only those that need no restart arrive here."""

    def samples(self) -> Sequence[Sample]:
        """Numbers for the metrics."""
        return ()

    async def close(self) -> None:
        """Close connections; the tasks have ended."""
