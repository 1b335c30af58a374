"""ChargEye: registry, schedules and plans come in, reports go out."""

from __future__ import annotations

from collections.abc import Sequence

from agent.cloud.chargeye import ChargEye
from agent.cloud.chargeye_ops import ChargEyeOps
from agent.cloud.http import CloudHttp
from agent.control.health import CloudHealth
from agent.control.outbox import IDLE_S, Drainer, ToFleet
from agent.control.planner import Planner, PollEvery
from agent.host.metrics import Sample
from agent.parts.base import Ground, Part, Task
from agent.parts.chargeye_checks import CheckOperations
from agent.parts.chargeye_desk import Desk
from agent.parts.chargeye_schedules import ScheduleOperations
from agent.parts.chargeye_vehicles import VehicleOperations
from agent.parts.local import BesideCloud, files_of, samples_of
from agent.settings import ChargEyeSection, Settings

NAME = "chargeye"


class ChargEyePart(Part):
    """Polls ChargEye and delivers what is owed to it."""

    def __init__(self, ground: Ground, section: ChargEyeSection) -> None:
        """Build; nothing is asked before the tasks run."""
        self._ground = ground
        health = CloudHealth(NAME, ground.clock)
        ground.clouds.append(health)
        ground.destinations.append(NAME)
        self._http = CloudHttp(NAME, section.base_url)
        self.fleet = ChargEye(
            self._http,
            section.refresh_token.get_secret_value(),
            location_uid=ground.settings.site.location_uid,
            clock=ground.clock,
            paths=section.paths,
        )
        files = files_of(ground)
        self._beside = (
            BesideCloud(files, self.fleet, ground.clock) if files is not None else None
        )
        fleet = self.fleet if self._beside is None else self._beside.fleet
        self.planner = Planner(
            ground.depot,
            ground.store,
            fleet,
            ground.intake,
            ground.clock,
            ground.ids,
            health,
            PollEvery(
                vehicles_s=section.vehicles_poll_s, schedules_s=section.schedules_poll_s
            ),
        )
        self.drainer = Drainer(
            NAME,
            ground.store,
            ToFleet(fleet, ground.store, lambda: ground.depot.schedule_texts),
            ground.clock,
            ground.ids,
            health,
            idle_s=IDLE_S * max(ground.pace, 0.1),
        )
        ground.drainers.append(self.drainer)
        desk = Desk(
            ops=ChargEyeOps(self.fleet.api),
            ground=ground,
            look_again=self.planner.look_now,
        )
        for part in (VehicleOperations, ScheduleOperations, CheckOperations):
            part(desk).add_to(ground.operations)

    def tasks(self) -> Sequence[Task]:
        """Polls, and the outbox."""
        tasks: list[Task] = [
            ("planner", self.planner.run),
            ("outbox", self.drainer.run),
        ]
        if self._beside is not None:
            tasks.append(self._beside.task(self.planner))
        return tasks

    def reload(self, new: Settings) -> None:
        """Take over how stations and connectors are called in ChargEye."""
        self._ground.settings = new

    def samples(self) -> Sequence[Sample]:
        """Whether local files beside the cloud are in force."""
        return samples_of(self._beside.files) if self._beside is not None else ()

    async def close(self) -> None:
        """Close kept connections."""
        await self._http.close()


def build(ground: Ground) -> ChargEyePart | None:
    """Build the part where ``[chargeye]`` is configured."""
    section = ground.settings.chargeye
    return ChargEyePart(ground, section) if section is not None else None
