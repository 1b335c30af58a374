"""Registry and schedules from local files, for depots without a cloud or beside one.

Without ``[chargeye]`` the files take its place: the ordinary planner reads them every
few seconds. With it they add what ChargEye does not know: its part joins the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.cloud.localfleet import LocalFleet, UnionFleet, is_local
from agent.control.health import CloudHealth
from agent.control.localreports import LocalReports
from agent.control.planner import Planner, PollEvery
from agent.domain.rules.owed import CHARGEYE
from agent.host.metrics import Sample
from agent.parts.base import Ground, Part, Task
from agent.ports import Clock, Fleet

NAME = "local"
LOOK_S = 3.0
"""The files are looked at this often, seconds of the depot's clock: one stat each."""
LOOK_FLOOR_S = 0.2
"""Real seconds between two looks, however fast the clock runs."""
SETTLE_S = 5.0
"""Real seconds between two looks for reports that nobody is owed."""


class LocalPart(Part):
    """The files in the place of a cloud."""

    def __init__(self, ground: Ground, fleet: LocalFleet) -> None:
        """Build; nothing is read before the tasks run."""
        health = CloudHealth(NAME, ground.clock)
        ground.clouds.append(health)
        self.fleet = fleet
        self.planner = Planner(
            ground.depot,
            ground.store,
            fleet,
            ground.intake,
            ground.clock,
            ground.ids,
            health,
            PollEvery(vehicles_s=LOOK_S, schedules_s=LOOK_S),
        )
        self.reports = LocalReports(
            CHARGEYE,
            ground.store,
            ground.clock,
            is_local,
            texts=lambda: ground.depot.schedule_texts,
            every_s=SETTLE_S * max(ground.pace, 0.1),
        )

    def tasks(self) -> Sequence[Task]:
        """Looks at the files, and reports that need no sending."""
        return (("local-files", self.planner.run), ("local-reports", self.reports.run))

    def samples(self) -> Sequence[Sample]:
        """Whether each file is in force as it stands."""
        return samples_of(self.fleet)


class BesideCloud:
    """The files beside a cloud: what they add, and a watch that makes them count soon."""

    def __init__(self, files: LocalFleet, cloud: Fleet, clock: Clock) -> None:
        """Join the two."""
        self.files = files
        self.fleet = UnionFleet(cloud, files)
        self._clock = clock

    def task(self, planner: Planner) -> Task:
        """The watch; it lets ``planner`` poll when a file changed."""

        async def watch() -> None:
            while True:
                await self._clock.sleep(LOOK_S)
                await asyncio.sleep(LOOK_FLOOR_S)
                if await self.files.refresh():
                    planner.look_now()

        return "local-files", watch


def files_of(ground: Ground) -> LocalFleet | None:
    """The files as configured; None where there are none."""
    section = ground.settings.local
    if not section.vehicles_file and not section.schedules_file:
        return None
    return LocalFleet(
        section.vehicles_file,
        section.schedules_file,
        location_uid=ground.settings.site.location_uid,
    )


def samples_of(files: LocalFleet) -> list[Sample]:
    """One number per file."""
    return [
        Sample(
            name="local_file_good",
            help="1 while a file of [local] is in force as it stands, 0 while refused",
            value=float(is_good),
            labels=(("file", path),),
        )
        for path, is_good in files.goodness.items()
    ]


def build(ground: Ground) -> LocalPart | None:
    """Build the part where files are configured and no cloud is."""
    files = files_of(ground)
    if files is None or ground.settings.chargeye is not None:
        return None
    return LocalPart(ground, files)
