"""Keeps what SoC and goals need beside meter values: batteries, lessons, ends.

Every few seconds, and never for a meter value: writes into each session how the SoC of
its vehicle follows energy, lets finished sessions teach that, and sees to it that a
session that came to its goal really ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from agent.control import goals
from agent.control.depot import Depot
from agent.control.intake import Intake
from agent.domain import events, session_soc, soc
from agent.domain.errors import StoreFault
from agent.domain.goal import ChargeGoal
from agent.domain.identity import MatchOutcome
from agent.domain.ids import SessionId, VehicleId
from agent.domain.session import Session, SessionPhase
from agent.domain.soc import Learned, SocBattery
from agent.domain.wake import DRAWS_W
from agent.ports import Clock, FactSaved, OrderAnswer, Store

log = structlog.get_logger()

LOOK_S = 5.0
"""Between two looks, seconds of the depot's clock."""
LOOK_FLOOR_S = 0.05
SCOPE = "soc-learned"
"""Facts: one per vehicle and kind of current, ``bus-1:dc``."""
CHANGE_SHARE = 0.005
"""A battery that differs by less is the same."""
STOP_AFTER = timedelta(minutes=3)
"""A vehicle that still draws this long after its goal is stopped by other means."""
STOP_AGAIN = timedelta(minutes=10)
STOPS_MAX = 3

Stop = Callable[[Session], Awaitable[OrderAnswer]]


@dataclass(slots=True)
class _Ending:
    """A session whose goal is reached: since when, and what was tried."""

    since: datetime
    tries: int = 0
    last_at: datetime | None = None


@dataclass(slots=True)
class SocKeeper:
    """See the module. ``remote_stop`` ends a transaction through its station.

    ``car_stop`` asks the vehicle's own cloud to stop; it answers whether it could try.
    """

    depot: Depot
    intake: Intake
    store: Store
    clock: Clock
    remote_stop: Stop
    car_stop: Callable[[SessionId], bool] | None = None
    sizes: Mapping[VehicleId, float] = field(default_factory=dict)
    """Nominal (gross) capacities of vehicles, Wh, from their own cloud."""
    may_ask: Callable[[VehicleId], bool] = field(default=lambda _: False)
    learned: dict[str, Learned] = field(default_factory=dict)
    _open: dict[SessionId, str] = field(default_factory=dict)
    _endings: dict[SessionId, _Ending] = field(default_factory=dict)

    async def run(self) -> None:
        """Look at all sessions again and again."""
        await self.load()
        while True:
            try:
                await self.look()
            except StoreFault as fault:
                log.error("record_not_stored", reason=str(fault))
            await self.clock.sleep(LOOK_S)
            await asyncio.sleep(LOOK_FLOOR_S)

    async def load(self) -> None:
        """Take over what was learned before; what cannot be read is left out."""
        for name, body in (await self.store.facts(SCOPE)).items():
            ratio, spread = body.get("ratio"), body.get("spread")
            count = body.get("sessions")
            if isinstance(ratio, (int, float)) and isinstance(spread, (int, float)):
                self.learned[name] = Learned(
                    ratio=min(max(float(ratio), soc.RATIO_MIN), soc.RATIO_MAX),
                    spread=max(float(spread), soc.SPREAD_LEARNED_MIN),
                    sessions=count if isinstance(count, int) else 0,
                )

    async def set_goal(self, session_id: SessionId, goal: ChargeGoal | None) -> bool:
        """Set how far a session is to charge; False when it is not open."""
        for session in self.depot.open_sessions():
            if session.session_id == session_id:
                event = events.GoalSet(session_id=session_id, goal=goal)
                await self.intake.handle(session.station_id, event)
                self._endings.pop(session_id, None)
                return True
        return False

    async def look(self) -> None:
        """Bring every open session up to date, and learn from those that ended."""
        now = self.clock.now()
        opened = self.depot.open_sessions()
        for session in opened:
            self._open[session.session_id] = session.station_id
            event = self._battery(session)
            if event is not None:
                await self.intake.handle(session.station_id, event)
            how = goals.reached(session, now)
            if how is not None and session.goal_reached_at is None:
                done = events.GoalReached(session_id=session.session_id, how=how)
                await self.intake.handle(session.station_id, done)
            await self._see_it_end(session, now)
        await self._learn({item.session_id for item in opened})

    # --- batteries ----------------------------------------------------------------------

    def battery_of(self, session: Session) -> SocBattery | None:
        """How the SoC of a session's vehicle follows energy, as far as it is known."""
        if session.match is not MatchOutcome.UNIQUE or session.vehicle_id is None:
            return None
        vehicle = self.depot.registry.get(session.vehicle_id)
        needs = session.needs
        return soc.battery(
            registry_wh=vehicle.capacity_wh if vehicle is not None else None,
            gross_wh=self.sizes.get(session.vehicle_id),
            needs_wh=needs.capacity_wh if needs is not None else None,
            is_dc=self.depot.traits_of(session.station_id).is_dc,
            learned=self.learned.get(self._name(session)),
            may_ask_car=self.may_ask(session.vehicle_id),
        )

    def _battery(self, session: Session) -> events.BatteryKnown | None:
        found, known = self.battery_of(session), session.battery
        if found is None or session.battery == found:
            return None
        if known is not None:
            ratio = found.points_per_wh / known.points_per_wh
            is_same = abs(ratio - 1) < CHANGE_SHARE and found.origin is known.origin
            if is_same and found.may_ask_car == known.may_ask_car:
                return None
        return events.BatteryKnown(session_id=session.session_id, battery=found)

    def _name(self, session: Session) -> str:
        kind = "dc" if self.depot.traits_of(session.station_id).is_dc else "ac"
        return f"{session.vehicle_id}:{kind}"

    async def _learn(self, still_open: set[SessionId]) -> None:
        for session_id in [item for item in self._open if item not in still_open]:
            station_id = self._open.pop(session_id)
            self._endings.pop(session_id, None)
            states = {str(name): state for name, state in self.depot.states.items()}
            state = states.get(station_id)
            session = state.sessions.get(session_id) if state is not None else None
            if session is None or session.phase is not SessionPhase.ENDED:
                continue
            if session.battery is None or session.vehicle_id is None:
                continue
            name = self._name(session)
            before = self.learned.get(name)
            after = soc.learn(before, session_soc.measured(session), session.battery)
            if after is None:
                continue
            self.learned[name] = after
            body = {
                "ratio": round(after.ratio, 4),
                "spread": round(after.spread, 4),
                "sessions": after.sessions,
            }
            fact = FactSaved(scope=SCOPE, name=name, body=body)
            await self.store.commit([fact], self.clock.now())
            log.info(
                "battery_learned",
                station_id=session.station_id,
                session_id=session_id,
                vehicle_id=session.vehicle_id,
                **body,
            )

    # --- goals --------------------------------------------------------------------------

    async def _see_it_end(self, session: Session, now: datetime) -> None:
        """Stop by other means what the limit did not stop: station first, vehicle last."""
        grant = self.depot.grants.get(session.session_id)
        is_done = session.goal_reached_at is not None
        is_done = is_done or (grant is not None and grant.is_goal)
        running = session.open_transaction
        if not is_done or running is None:
            self._endings.pop(session.session_id, None)
            return
        ending = self._endings.setdefault(session.session_id, _Ending(since=now))
        power_w, power_at = session.meter.power_w or 0.0, session.meter.power_at
        is_drawing = power_w >= DRAWS_W and power_at is not None and power_at > ending.since
        is_due = ending.last_at is None or now - ending.last_at >= STOP_AGAIN
        if not is_drawing or not is_due or now - ending.since < STOP_AFTER:
            return
        if ending.tries >= STOPS_MAX:
            return
        ending.tries, ending.last_at = ending.tries + 1, now
        fields = {
            "station_id": session.station_id,
            "evse_id": session.evse_id,
            "session_id": session.session_id,
            "vehicle_id": session.vehicle_id,
        }
        if self.depot.policy.goal_remote_stop:
            answer = await self.remote_stop(session)
            log.info("goal_stop_sent", **fields, by="station", answer=str(answer.answer))
            if answer.answer == "accepted":
                return
        if self.car_stop is not None and self.car_stop(session.session_id):
            log.info("goal_stop_sent", **fields, by="vehicle", answer="asked")
            return
        if ending.tries == 1:
            log.warning(
                "goal_not_held",
                **fields,
                power_w=round(power_w),
                reason="the goal is reached, and the vehicle goes on with the least that "
                "its station can give",
            )
