"""Lets a vehicle that is behind its plan catch up, within the plan's rules and the cap.

The plan's own charging segments are lifted, never a pause or a gap, and only where
``policy.catch_up`` allows more than the plan's power (ocpp-depot.md D3: the agent does
not exceed the plan by itself). What comes out is a wish: the division of power puts it
under the cap, so that in fact later headroom is used. Where it is not allowed the
account only says how far the vehicle is behind, and the cloud plans anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from agent.control.depot import Depot
from agent.control.wishes import Wish
from agent.domain import account as accounts
from agent.domain.curve import Curve, is_same, value_at
from agent.domain.ids import Outlet, SessionId
from agent.domain.plan import Schedule
from agent.domain.session import Session

log = structlog.get_logger()

RENEW_EVERY = timedelta(minutes=10)
"""How far it is behind moves with each meter value; each new curve is a profile in some
station's flash."""
KWH = 1000.0


@dataclass(frozen=True, slots=True)
class _Lifted:
    """A lifted plan: of which session and line, made when, and how much was missing."""

    session_id: SessionId
    base: Curve
    line: Curve
    made_at: datetime
    words: str
    is_lifted: bool


@dataclass(slots=True)
class CatchUp:
    """The memory of lifted plans."""

    depot: Depot
    _lifted: dict[Outlet, _Lifted] = field(default_factory=dict)

    def adjust(
        self,
        outlet: Outlet,
        session: Session,
        schedule: Schedule | None,
        asked: Wish,
        now: datetime,
    ) -> Wish:
        """Lift a session's plan where it is behind; ``plan_line`` stays the plan's own."""
        known = self.depot.accounts.get(session.session_id)
        plan = schedule.plan if schedule is not None else None
        is_planned = asked.source == "plan" and known is not None and plan is not None
        if not is_planned or known is None or plan is None:
            self.forget(outlet)
            return asked
        missing_wh = min(known.behind_wh, known.needed_wh)
        if missing_wh < accounts.CATCH_UP_MIN_WH:
            self._end(outlet, session)
            return asked
        if not self.depot.policy.catch_up:
            words = (
                f"it is about {_coarse(missing_wh):.0f} kWh behind the plan; the plan's "
                "power is not exceeded to catch up (policy.catch_up)"
            )
            return replace(asked, rules=(*asked.rules, words))
        held = self._held(outlet, session, asked.line, now)
        if held is None:
            line = accounts.catch_up(
                asked.line, known, plan, max_w=asked.window.max_w, now=now, allowed=True
            )
            held = self._keep(outlet, session, asked, line, missing_wh, now)
        return replace(
            asked,
            line=held.line,
            plan_line=asked.line,
            rules=(*asked.rules, held.words),
        )

    def forget(self, outlet: Outlet) -> None:
        """The plan or the vehicle is gone."""
        self._lifted.pop(outlet, None)

    def _held(
        self, outlet: Outlet, session: Session, base: Curve, now: datetime
    ) -> _Lifted | None:
        """What was lifted before, while it is of this plan and young."""
        held = self._lifted.get(outlet)
        if held is None or held.session_id != session.session_id:
            return None
        is_young = timedelta() <= now - held.made_at < RENEW_EVERY
        is_mine = is_same(held.base, base, int(now.timestamp()))
        return held if is_young and is_mine else None

    def _keep(
        self,
        outlet: Outlet,
        session: Session,
        asked: Wish,
        line: Curve,
        missing_wh: float,
        now: datetime,
    ) -> _Lifted:
        before = self._lifted.get(outlet)
        is_lifted = not is_same(line, asked.line, int(now.timestamp()))
        words = _words(asked, line, missing_wh, now, is_lifted=is_lifted)
        held = _Lifted(session.session_id, asked.line, line, now, words, is_lifted)
        self._lifted[outlet] = held
        is_mine = before is not None and before.session_id == session.session_id
        was_lifted = before is not None and is_mine and before.is_lifted
        if is_lifted and not was_lifted:
            log.info("catch_up_began", **_names(outlet, session), reason=words)
        elif was_lifted and not is_lifted:
            log.info("catch_up_ended", **_names(outlet, session))
        return held

    def _end(self, outlet: Outlet, session: Session) -> None:
        held = self._lifted.pop(outlet, None)
        if held is not None and held.is_lifted:
            log.info("catch_up_ended", **_names(outlet, session))


def _words(
    asked: Wish, line: Curve, missing_wh: float, now: datetime, *, is_lifted: bool
) -> str:
    behind = f"it is about {_coarse(missing_wh):.0f} kWh behind the plan"
    if not is_lifted:
        return f"{behind}; no segment of the plan is left in which it could catch up"
    now_s = int(now.timestamp())
    times = sorted({at_s for at_s, _ in line if at_s > now_s} | {now_s})
    lifted = [s for s in times if value_at(line, s) > value_at(asked.line, s) + 1]
    first_s = lifted[0]
    ends = [s for s in times if s > lifted[-1]]
    until = f"{datetime.fromtimestamp(ends[0], now.tzinfo):%H:%M}" if ends else "its end"
    power_kw = value_at(line, first_s) / KWH
    begin = (
        "now"
        if first_s == now_s
        else f"{datetime.fromtimestamp(first_s, now.tzinfo):%H:%M}"
    )
    return (
        f"{behind}: it may take up to {power_kw:.1f} kW in the plan's own segments from "
        f"{begin} until {until}, as far as the caps leave room"
    )


def _coarse(missing_wh: float) -> float:
    """Whole kWh: words that change with each meter value would fill the history."""
    return max(round(missing_wh / KWH), 1)


def _names(outlet: Outlet, session: Session) -> dict[str, object]:
    return {
        "station_id": outlet[0],
        "evse_id": outlet[1],
        "session_id": session.session_id,
        "vehicle_id": session.vehicle_id,
    }
