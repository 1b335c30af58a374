"""Watches the site meter: how much of the connection is left for charging.

A fault of one read changes nothing: the newest good reading counts until it is
``stale_s`` old. Then the static assumption holds until the meter is back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from agent.control.depot import Depot
from agent.domain import power, site
from agent.domain.curve import value_at
from agent.domain.errors import CloudFault
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.power import OutletFacts
from agent.domain.site import SiteLoad, SiteRules, SiteSeen, SiteState
from agent.ports import Clock

log = structlog.get_logger()

SAMPLE_AGE_MAX_S = 900.0
"""A station's power that is older explains nothing."""
NEWS_W = 100.0
"""A load that moved less does not wake the power loop; its own pass takes it along."""


class SiteMeter(Protocol):
    """Where readings come from: W, and a stamp that differs when it was written anew."""

    async def read(self) -> tuple[float, str]:
        """Read the newest value. Raises CloudFault."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charging:
    """What is known of charging now, W grid side; see ``SiteSeen``."""

    reported_w: float
    least_w: float
    possible_w: float


class SiteWatch:
    """Keeps ``depot.site_load``; see the module."""

    def __init__(
        self, depot: Depot, meter: SiteMeter, clock: Clock, rules: SiteRules, poll_s: float
    ) -> None:
        """Begin with the static assumption; ``run`` polls."""
        self._depot = depot
        self._meter = meter
        self._clock = clock
        self._rules = rules
        self._poll_s = poll_s
        self._state = SiteState()
        self._stamp: str | None = None
        self._trouble = "not read yet"
        self._began_s = clock.now().timestamp()
        self._was_lost = False
        self._told_disagreement = False
        self._decide()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.step()
            await self._clock.sleep(self._poll_s)

    async def step(self) -> None:
        """Read once and draw the conclusions."""
        try:
            total_w, stamp = await self._meter.read()
        except CloudFault as fault:
            self._trouble = str(fault)
        else:
            self._take(total_w, stamp)
        self._decide()

    def _take(self, total_w: float, stamp: str) -> None:
        before, self._stamp = self._stamp, stamp
        if stamp and before in (None, stamp):
            # Of the first look nobody knows how old the file is: its writer may have
            # died last week. The second time that it was written is believed.
            self._trouble = "the file is not written anew"
            return
        cap_w = self._depot.policy.cap_w
        problem = site.problem_of(total_w, self._rules, cap_w)
        if problem is not None:
            self._trouble = f"site meter: {problem}"
            return
        charging = self._charging()
        seen = SiteSeen(
            at_s=self._clock.now().timestamp(),
            total_w=total_w,
            cap_w=cap_w,
            reported_w=charging.reported_w,
            least_w=charging.least_w,
            possible_w=charging.possible_w,
        )
        self._state = site.take(self._state, seen, self._rules)
        self._trouble = ""
        self._watch_disagreement(seen)

    def _decide(self) -> None:
        """Let the load that counts follow, and tell the power loop of it."""
        now_s = self._clock.now().timestamp()
        old = self._depot.site_load
        new = site.decide(
            old,
            self._state,
            self._rules,
            now_s=now_s,
            cap_w=self._depot.policy.cap_w,
            trouble=self._trouble,
        )
        self._depot.site_load = new
        self._tell(old, new)
        if old is None or abs(new.unmanaged_w - old.unmanaged_w) >= NEWS_W:
            self._depot.changed.set()

    def _tell(self, old: SiteLoad | None, new: SiteLoad) -> None:
        if old is None:
            return
        if new.is_measured and self._was_lost:
            log.info("site_meter_back", unmanaged_w=round(new.unmanaged_w))
            self._was_lost = False
            return
        # At the start a meter has as long to be heard as it has later.
        is_due = self._clock.now().timestamp() - self._began_s > self._rules.stale_s
        is_lost = old.is_measured or (self._state.at_s is None and is_due)
        if not new.is_measured and is_lost and not self._was_lost:
            self._was_lost = True
            log.warning(
                "site_meter_lost",
                reason=self._trouble,
                unmanaged_w=round(new.unmanaged_w),
            )

    def _watch_disagreement(self, seen: SiteSeen) -> None:
        if self._state.disagrees_since_s is None:
            self._told_disagreement = False
            return
        if self._told_disagreement or not site.has_disagreed_long(self._state, seen.at_s):
            return
        self._told_disagreement = True
        log.warning(
            "meter_disagrees",
            reason=site.disagreement(seen, self._rules),
            meter_w=round(seen.total_w),
            stations_w=round(seen.reported_w),
        )

    # --- what charging takes ------------------------------------------------------------

    def _charging(self) -> _Charging:
        """Sum up what stations report and what their outlets could be drawing."""
        depot = self._depot
        reported_w = least_w = 0.0
        possible_w: dict[StationId, float] = {}
        for outlet in depot.all_outlets():
            factor = depot.grid_factor(outlet[0])
            said_w, sure_w, may_w = self._outlet(outlet)
            reported_w += said_w * factor
            least_w += sure_w * factor
            possible_w[outlet[0]] = possible_w.get(outlet[0], 0.0) + may_w * factor
        for station_id, sum_w in possible_w.items():
            rated_w = depot.traits_of(station_id).rated_w * depot.grid_factor(station_id)
            possible_w[station_id] = min(sum_w, rated_w)
        return _Charging(
            reported_w=reported_w,
            least_w=min(least_w, reported_w),
            possible_w=max(sum(possible_w.values()), reported_w),
        )

    def _outlet(self, outlet: Outlet) -> tuple[float, float, float]:
        """What an outlet said it draws, what it surely draws, what it may draw; W."""
        depot = self._depot
        now = self._clock.now()
        now_s = int(now.timestamp())
        state = depot.state(outlet[0])
        traits = depot.traits_of(outlet[0])
        session = state.session_at(outlet[1])
        running = session.open_transaction if session is not None else None
        said_w = 0.0
        if session is not None and running is not None:
            at, power_w = session.meter.power_at, session.meter.power_w
            if at is not None and (now - at).total_seconds() <= SAMPLE_AGE_MAX_S:
                said_w = max(power_w or 0.0, 0.0)
        common = depot.power_of((outlet[0], EvseId(0)))
        book = replace(
            depot.power_of(outlet),
            default_w=common.default_w,
            default_tried_w=common.default_tried_w,
        )
        fact = OutletFacts(
            rated_w=traits.rated_w,
            fallback_w=traits.fallback_w,
            is_connected=state.is_connected,
            has_own_default="no-default-profile" in traits.quirks,
            transaction_id=running.transaction_id if running is not None else None,
            measured_w=said_w,
        )
        may_w = value_at(power.possible_draw(fact, book, now_s), now_s)
        sure_w = said_w
        if book.confirmed is not None and book.verified is not False:
            # What was accepted holds before the station reports the lower power.
            sure_w = min(sure_w, value_at(book.confirmed.allows, now_s))
        return said_w, sure_w, max(may_w, said_w)
