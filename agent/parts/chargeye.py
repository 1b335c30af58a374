"""ChargEye: registry, schedules and plans come in, reports go out."""

from __future__ import annotations

from collections.abc import Sequence

from agent.cloud.chargeye import ChargEye
from agent.cloud.http import CloudHttp
from agent.control.health import CloudHealth
from agent.control.outbox import IDLE_S, Drainer
from agent.control.planner import Planner, PollEvery
from agent.parts.base import Ground, Part, Task
from agent.settings import ChargEyeSection

NAME = "chargeye"


class ChargEyePart(Part):
    """Polls ChargEye and delivers what is owed to it."""

    def __init__(self, ground: Ground, section: ChargEyeSection) -> None:
        """Build; nothing is asked before the tasks run."""
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
        self.planner = Planner(
            ground.depot,
            ground.store,
            self.fleet,
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
            self.fleet,
            ground.clock,
            ground.ids,
            health,
            texts=lambda: ground.depot.schedule_texts,
            idle_s=IDLE_S * max(ground.pace, 0.1),
        )

    def tasks(self) -> Sequence[Task]:
        """Polls, and the outbox."""
        return (("planner", self.planner.run), ("outbox", self.drainer.run))

    async def close(self) -> None:
        """Close kept connections."""
        await self._http.close()


def build(ground: Ground) -> ChargEyePart | None:
    """Build the part where ``[chargeye]`` is configured."""
    section = ground.settings.chargeye
    return ChargEyePart(ground, section) if section is not None else None
