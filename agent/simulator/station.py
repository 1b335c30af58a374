"""What every virtual station is to its user: a real WebSocket client with outlets."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Self

from agent.simulator.hardware import STEP_MAX_S
from agent.simulator.vehicle_faults import VehicleFaults

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from agent.simulator.core import Core, Job, LedgerEntry, Listener
    from agent.simulator.hardware import Outlet
    from agent.simulator.link import Link
    from agent.simulator.profile_rules import ProfileBook
    from agent.simulator.vehicle import VirtualVehicle

FLUSH_TIMEOUT_S = 10.0  # real; how long a soft restart waits for its queue


class Queue(Protocol):
    """Messages that wait to be sent."""

    def __len__(self) -> int:
        """Count them."""
        ...

    async def run(self) -> None:
        """Send them, for ever."""
        ...


class Sessions(Protocol):
    """What happens at the outlets."""

    def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle's plug in."""
        ...

    def unplug(self, connector: int) -> VirtualVehicle | None:
        """Pull the plug."""
        ...

    def tick(self) -> None:
        """Look at every outlet after time passed or a limit changed."""
        ...

    def release(self, outlet: Outlet) -> None:
        """Show what an outlet is now."""
        ...


class VirtualStation(ABC):
    """One station. `run` it in a task; the rest may be called meanwhile or before."""

    def __init__(
        self, core: Core, link: Link, sessions: Sessions, outbox: Queue, statuses: Queue
    ) -> None:
        """Put the parts together; nothing happens until `run`."""
        self.config = core.config
        self._station = core
        self._connecting = link
        self._outlet_side = sessions
        self._queues = (outbox, statuses)
        self._vehicles = VehicleFaults(core)
        core.restart = self.reboot
        self._stopped = asyncio.Event()

    @property
    def outlets(self) -> dict[int, Outlet]:
        """The outlets by connector (1.6) or EVSE, from 1."""
        return self._station.outlets

    @property
    def ledger(self) -> deque[LedgerEntry]:
        """The last frames and events, oldest first."""
        return self._station.ledger

    @property
    def profiles(self) -> ProfileBook:
        """The charging profiles that are installed."""
        return self._station.book

    @property
    def is_online(self) -> bool:
        """Whether it is connected and was accepted."""
        return self._station.is_online

    @property
    def owed(self) -> int:
        """How many transaction messages are not answered yet."""
        return len(self._queues[0])

    @property
    def has_news(self) -> bool:
        """Whether statuses wait to be sent."""
        return len(self._queues[1]) > 0

    def listen(self, listener: Listener | None) -> None:
        """Have each ledger entry told to `listener`."""
        self._station.listener = listener

    def configuration(self, name: str) -> str:
        """Tell the present value of a 1.6 key, or of a 2.x Component.Variable."""
        return self._station.setting(name)

    async def run(self) -> None:
        """Be a station until `stop`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._connecting.run())
                tasks.create_task(self._tick_for_ever())
                for queue in self._queues:
                    tasks.create_task(queue.run())
                tasks.create_task(self._work(tasks))
                await self._stopped.wait()
                if self._station.rpc is not None:
                    await self._station.rpc.close()
                raise _Stopped  # noqa: TRY301 (how a task group is ended)
        except* _Stopped:
            self._station.rpc = None

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    async def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle's plug in; identification and charging follow by themselves."""
        self._vehicles.plug(connector, vehicle)
        self._outlet_side.plug(connector, vehicle)

    async def unplug(self, connector: int) -> VirtualVehicle | None:
        """Pull the plug and return the vehicle."""
        self._vehicles.unplug(connector)
        return self._outlet_side.unplug(connector)

    def cut(self) -> None:
        """Drop the TCP connection without a close frame; it comes back by itself."""
        if self._station.rpc is not None:
            self._station.rpc.cut()

    async def cut_for(self, seconds_simulated: float) -> None:
        """Drop the connection and let none come up for so many simulated seconds."""
        self._connecting.is_powered = False
        self.cut()
        self._station.note("own", "CUT", "", seconds_simulated)
        await self._station.clock.sleep(seconds_simulated)
        self._connecting.is_powered = True
        self._station.pulse()

    async def reboot(self, reason: str = "Reboot") -> None:
        """Restart: transactions end, the link goes, plugged vehicles start anew."""
        core = self._station
        self._before_restart(reason)
        self._connecting.is_powered = False
        core.is_accepted = False
        self.cut()
        if "lose-profiles-on-reboot" in core.faults:
            core.book.forget()
        core.note("own", "REBOOT", reason, None)
        await core.clock.sleep(self.config.restart_s)
        self._connecting.is_powered = True
        core.pulse()
        self._after_restart()

    async def wait_until(self, predicate: Callable[[Self], bool], timeout_s: float) -> None:
        """Wait until the predicate of the station holds; TimeoutError in real s."""
        async with asyncio.timeout(timeout_s):
            await self._station.wait_for(lambda: predicate(self))

    @abstractmethod
    def _before_restart(self, reason: str) -> None:
        """End what does not survive a restart."""

    @abstractmethod
    def _after_restart(self) -> None:
        """Begin anew with what is plugged in."""

    @abstractmethod
    def _meter_interval_s(self) -> int:
        """Tell how often the meter is read in a transaction; 0 is never."""

    async def _flush(self) -> None:
        """Wait a while for the answers to what is owed."""
        try:
            await self.wait_until(lambda station: station.owed == 0, FLUSH_TIMEOUT_S)
        except TimeoutError:
            self._station.note("own", "UNFLUSHED", "Reset", self.owed)

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            job = await self._station.jobs.get()
            tasks.create_task(_run(job))

    async def _tick_for_ever(self) -> None:
        while True:
            interval_s = self._meter_interval_s()
            step_s = min(STEP_MAX_S, interval_s / 4) if interval_s > 0 else STEP_MAX_S
            await self._station.clock.sleep(step_s)
            self._vehicles.tick()
            for outlet in self._vehicles.unlocked():
                self._outlet_side.release(outlet)
            self._outlet_side.tick()


async def _run(job: Job) -> None:
    await job()


class _Stopped(Exception):  # noqa: N818 (not an error)
    """Ends the task group of a station."""
