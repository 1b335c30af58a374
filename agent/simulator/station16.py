"""A virtual OCPP 1.6J charging station: a real WebSocket client with outlets.

Only this module and those ending in 16 know the protocol version.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from agent.simulator.calls16 import Calls16
from agent.simulator.core16 import Core16
from agent.simulator.hardware import STEP_MAX_S
from agent.simulator.link16 import Link16
from agent.simulator.outbox16 import Outbox16, Statuses16
from agent.simulator.sessions16 import Sessions16

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from agent.simulator.clock import SimClock
    from agent.simulator.core16 import Job, LedgerEntry, Listener
    from agent.simulator.hardware import Outlet
    from agent.simulator.profiles import ProfileStore
    from agent.simulator.station_config import StationConfig
    from agent.simulator.vehicle import VirtualVehicle

FLUSH_TIMEOUT_S = 10.0  # real; how long a soft restart waits for its queue


class VirtualStation16:
    """One station. `run` it in a task; the rest may be called meanwhile or before."""

    def __init__(self, config: StationConfig, clock: SimClock) -> None:
        """Build the station; nothing happens until `run`."""
        self.config = config
        self._core = Core16(config, clock)
        self._outbox = Outbox16(self._core)
        self._statuses = Statuses16(self._core)
        self._sessions = Sessions16(self._core, self._outbox, self._statuses)
        calls = Calls16(self._core, self._sessions, self._statuses, self._on_reset)
        self._link = Link16(self._core, calls, self._statuses)
        self._stopped = asyncio.Event()

    @property
    def outlets(self) -> dict[int, Outlet]:
        """The outlets by connector, from 1."""
        return self._core.outlets

    @property
    def ledger(self) -> deque[LedgerEntry]:
        """The last frames and events, oldest first."""
        return self._core.ledger

    @property
    def profiles(self) -> ProfileStore:
        """The charging profiles that are installed."""
        return self._core.profiles

    @property
    def is_online(self) -> bool:
        """Whether it is connected and was accepted."""
        return self._core.is_online

    @property
    def owed(self) -> int:
        """How many transaction messages are not answered yet."""
        return len(self._outbox)

    @property
    def has_news(self) -> bool:
        """Whether statuses wait to be sent."""
        return len(self._statuses) > 0

    def listen(self, listener: Listener | None) -> None:
        """Have each ledger entry told to `listener`."""
        self._core.listener = listener

    def configuration(self, key: str) -> str:
        """Tell the present value of a configuration key."""
        return self._core.keys.text(key)

    async def run(self) -> None:
        """Be a station until `stop`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._link.run())
                tasks.create_task(self._tick_for_ever())
                tasks.create_task(self._outbox.run())
                tasks.create_task(self._statuses.run())
                tasks.create_task(self._work(tasks))
                await self._stopped.wait()
                if self._core.rpc is not None:
                    await self._core.rpc.close()
                raise _Stopped  # noqa: TRY301 (how a task group is ended)
        except* _Stopped:
            self._core.rpc = None

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    async def plug(self, connector: int, vehicle: VirtualVehicle) -> None:
        """Put a vehicle's plug in; identification and charging follow by themselves."""
        self._sessions.plug(connector, vehicle)

    async def unplug(self, connector: int) -> VirtualVehicle | None:
        """Pull the plug and return the vehicle."""
        return self._sessions.unplug(connector)

    def cut(self) -> None:
        """Drop the TCP connection without a close frame; it comes back by itself."""
        if self._core.rpc is not None:
            self._core.rpc.cut()

    async def reboot(self, reason: str = "Reboot") -> None:
        """Restart: transactions end, the link goes, plugged vehicles start anew."""
        core = self._core
        for outlet in core.outlets.values():
            self._sessions.stop(outlet, reason)
        self._link.is_powered = False
        core.is_accepted = False
        self.cut()
        if "lose-profiles-on-reboot" in core.faults:
            core.profiles.forget()
        core.note("own", "REBOOT", reason, None)
        await core.clock.sleep(self.config.restart_s)
        self._link.is_powered = True
        core.pulse()
        for outlet in core.outlets.values():
            if outlet.vehicle is None:
                self._sessions.release(outlet)
            else:
                self._statuses.set(outlet, "Preparing")
                self._sessions.identify(outlet)

    async def wait_until(self, predicate: Callable[[Self], bool], timeout_s: float) -> None:
        """Wait until the predicate of the station holds; TimeoutError in real s."""
        async with asyncio.timeout(timeout_s):
            await self._core.wait_for(lambda: predicate(self))

    def _on_reset(self, kind: str) -> None:
        self._core.spawn(lambda: self._reset(kind))

    async def _reset(self, kind: str) -> None:
        if kind == "Hard":
            await self.reboot("HardReset")
            return
        for outlet in self._core.outlets.values():
            self._sessions.stop(outlet, "SoftReset")
        try:
            await self.wait_until(lambda station: station.owed == 0, FLUSH_TIMEOUT_S)
        except TimeoutError:
            self._core.note("own", "UNFLUSHED", "Reset", self.owed)
        await self.reboot("SoftReset")

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            job = await self._core.jobs.get()
            tasks.create_task(_run(job))

    async def _tick_for_ever(self) -> None:
        while True:
            interval_s = self._core.keys.whole("MeterValueSampleInterval")
            step_s = min(STEP_MAX_S, interval_s / 4) if interval_s > 0 else STEP_MAX_S
            await self._core.clock.sleep(step_s)
            self._sessions.tick()


async def _run(job: Job) -> None:
    await job()


class _Stopped(Exception):  # noqa: N818 (not an error)
    """Ends the task group of a station."""
