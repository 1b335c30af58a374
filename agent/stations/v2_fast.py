"""The fast limit of 2.1: a Dynamic profile above the plan, for reductions (K28).

The plan's TxProfile stays the limit that counts; replacing it may take long where a
station writes it to flash or asks to wait (RateLimitExceeded). So before a reduction
goes out, a Dynamic profile one level above is set to the lowest limit of the next
seconds, of the new plan and of the one that the station holds: if it then refuses the
new one, the old one still rules, and the budget counts no more than that. ``duration``
is a watchdog: without another update the fast limit ends by itself and the plan below
holds again, so it can never keep an outlet above its plan.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from agent.domain.capability import Capabilities
from agent.domain.errors import StationFault
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.profile import (
    FAST_PROFILE_ID,
    TX_PROFILE_ID,
    ChargingProfile,
    Purpose,
)
from agent.ports import Answer, Clock, OrderAnswer, Priority
from agent.stations import v2_orders
from agent.stations.framing import Payload
from agent.stations.link import Link
from agent.stations.schemas import V21

log = structlog.get_logger()

FEATURE = "DynamicProfiles"
WATCHDOG_S = 30
"""Without an update for this long the plan holds again."""
REFRESH_S = 10.0
"""Three refreshes fit into the watchdog (B10: duration = 3 x update interval)."""


@dataclass(slots=True, kw_only=True)
class FastLimit:
    """One 2.1 link's Dynamic profiles; see the module."""

    station_id: StationId
    clock: Clock
    link: Link | None = None
    pace: float = 1.0
    _newest: dict[EvseId, ChargingProfile] = field(default_factory=dict)
    _accepted: dict[EvseId, ChargingProfile] = field(default_factory=dict)
    _installed: dict[EvseId, TransactionId | None] = field(default_factory=dict)
    _ids: dict[int, EvseId] = field(default_factory=dict)
    _held: set[EvseId] = field(default_factory=set)
    _is_refused: bool = False

    async def lower(
        self, evse_id: EvseId, plan: ChargingProfile, said: Capabilities
    ) -> None:
        """Limit an outlet at once, ahead of the plan that says the same for long."""
        if plan.purpose is not Purpose.TX or plan.starts_at is None:
            return
        self._newest[evse_id] = plan
        limit = self._limit(evse_id)
        if self._is_refused or limit is None or not _is_able(plan, said):
            return
        if self._installed.get(evse_id) == plan.transaction_id:
            is_taken = await self._update(evse_id, plan, limit)
        else:
            is_taken = await self._install(evse_id, plan, limit)
        if is_taken:
            log.info(
                "fast_limit_sent",
                station_id=self.station_id,
                evse_id=evse_id,
                limit=limit,
                unit=str(plan.unit),
            )

    def settled(self, evse_id: EvseId, plan: ChargingProfile, answer: OrderAnswer) -> None:
        """Hold the fast limit while the station wants no new plan; let go when it has.

        A raise that it did not take is nothing to hold: the old plan rules.
        """
        if plan.purpose is not Purpose.TX:
            return
        if answer.answer is Answer.ACCEPTED:
            self._newest[evse_id] = self._accepted[evse_id] = plan
            self._held.discard(evse_id)
        elif answer.wait_s is None:
            self._held.discard(evse_id)
        elif self._newest.get(evse_id) == plan:
            self._held.add(evse_id)

    def pulled(self, profile_id: int) -> Payload | None:
        """Answer PullDynamicScheduleUpdate; None for a profile that is not ours."""
        evse_id = self._ids.get(profile_id)
        if evse_id is None or evse_id not in self._installed:
            return None
        limit = self._limit(evse_id)
        return None if limit is None else {"limit": limit}

    async def run(self) -> None:
        """Refresh what is held, until the link ends."""
        while True:
            await asyncio.sleep(REFRESH_S * self.pace)
            for evse_id in sorted(self._held):
                limit = self._limit(evse_id)
                if limit is not None and evse_id in self._installed:
                    await self._update(evse_id, self._newest[evse_id], limit)

    def _limit(self, evse_id: EvseId) -> float | None:
        """What an outlet may have whichever plan rules; None when that is not known."""
        plan, held = self._newest.get(evse_id), self._accepted.get(evse_id)
        if plan is None or held is None:
            return None
        if (plan.transaction_id, plan.unit) != (held.transaction_id, held.unit):
            return None
        now = self.clock.now()
        return min(lowest_limit(line, now, WATCHDOG_S) for line in (plan, held))

    async def _install(self, evse_id: EvseId, plan: ChargingProfile, limit: float) -> bool:
        profile = replace(
            plan,
            profile_id=_fast_id(plan),
            stack_level=plan.stack_level + 1,
            periods=((0, limit),),
            starts_at=None,
            is_dynamic=True,
            duration_s=WATCHDOG_S,
            offline_max_s=None,
        )
        try:
            payload = v2_orders.set_charging_profile(V21, evse_id, profile)
        except StationFault:
            return False
        is_taken = await self._say(v2_orders.SET_CHARGING_PROFILE, payload)
        if is_taken:
            self._installed[evse_id] = plan.transaction_id
            self._ids[profile.profile_id] = evse_id
        else:
            self._is_refused = True  # plans alone do; not asked again on this link
        return is_taken

    async def _update(self, evse_id: EvseId, plan: ChargingProfile, limit: float) -> bool:
        payload = v2_orders.update_dynamic(_fast_id(plan), limit)
        is_taken = await self._say(v2_orders.UPDATE_DYNAMIC_SCHEDULE, payload)
        if not is_taken:
            self._installed.pop(evse_id, None)
        return is_taken

    async def _say(self, action: str, payload: Payload) -> bool:
        if self.link is None:
            return False
        outcome = await self.link.call(action, payload, Priority.REDUCTION)
        return v2_orders.read_answer(outcome).answer is Answer.ACCEPTED


def lowest_limit(plan: ChargingProfile, now: datetime, seconds: int) -> float:
    """The lowest limit of a plan from now on for some seconds, in its own unit."""
    if plan.starts_at is None:
        return min(limit for _, limit in plan.periods)
    from_s = (now - plan.starts_at).total_seconds()
    inside = [
        limit for start_s, limit in plan.periods if from_s < start_s <= from_s + seconds
    ]
    before = [limit for start_s, limit in plan.periods if start_s <= from_s]
    return min([*before[-1:], *inside] or [plan.periods[0][1]])


def _fast_id(plan: ChargingProfile) -> int:
    return plan.profile_id - TX_PROFILE_ID + FAST_PROFILE_ID


def _is_able(plan: ChargingProfile, said: Capabilities) -> bool:
    names = {name.lower() for name in said.features}
    top = said.stack_level_max
    return FEATURE.lower() in names and top is not None and plan.stack_level < top
