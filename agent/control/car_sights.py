"""What is known of a plugged vehicle for its care, and the memory of that on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.control.depot import Depot
from agent.domain import session_soc
from agent.domain.car_care import Care, CarSight
from agent.domain.events import ConnectorStatus
from agent.domain.ids import SessionId
from agent.domain.session import Session, SessionPhase
from agent.domain.wake import DRAWS_W

SOC_MAY_COME = timedelta(seconds=120)
"""After its start a station that gave SoC before has this long to give it again."""
FRESH_POWER = timedelta(minutes=5)


@dataclass(slots=True)
class CarSights:
    """Looks at sessions; remembers since when each has stopped charging."""

    depot: Depot
    asks_why_stopped: bool = False
    _stopped: dict[SessionId, datetime] = field(default_factory=dict)

    def look(self, session: Session, now: datetime) -> CarSight:
        """Tell what the schedule of reads needs to know of a session."""
        running = session.open_transaction
        meter = session.meter
        power_w = meter.power_w or 0.0
        is_fresh = meter.power_at is not None and now - meter.power_at <= FRESH_POWER
        is_charging = running is not None and is_fresh and power_w >= DRAWS_W
        return CarSight(
            plugged_at=session.plugged_at,
            matched_at=session.matched_at or session.plugged_at,
            station_soc=session_soc.gives_soc(session) or self._soc_may_come(session, now),
            asks_why_stopped=self.asks_why_stopped,
            has_samples=running is not None and meter.power_at is not None,
            is_charging=is_charging,
            stopped_at=self._stopped_at(session, now, is_charging=is_charging),
            soc=session_soc.soc_now(session, now),
            target_percent=self.target(session),
        )

    def _soc_may_come(self, session: Session, now: datetime) -> bool:
        """Whether a station that gave SoC in earlier sessions is still to begin."""
        if session.started_at is not None and now - session.started_at > SOC_MAY_COME:
            return False
        others = self.depot.state(session.station_id).sessions.values()
        return any(
            item.meter.soc_first is not None
            for item in others
            if item.session_id != session.session_id
        )

    def target(self, session: Session) -> float | None:
        """What the plan or a goal wants, percent."""
        if session.goal is not None and session.goal.soc_percent is not None:
            return session.goal.soc_percent
        schedule = (
            self.depot.schedules.get(session.schedule_id) if session.schedule_id else None
        )
        return schedule.target_soc_percent if schedule is not None else None

    def _stopped_at(
        self, session: Session, now: datetime, *, is_charging: bool
    ) -> datetime | None:
        """Since when the vehicle or the station has ended charging, power being offered."""
        session_id = session.session_id
        if is_charging or session.meter.energy_wh <= 0:
            self._stopped.pop(session_id, None)
            return None
        if session.phase is SessionPhase.FINISHED:
            return self._stopped.setdefault(session_id, session.finished_at or now)
        evse = self.depot.state(session.station_id).evses.get(session.evse_id)
        view = self.depot.views.get((session.station_id, session.evse_id))
        is_offered = view is not None and (view.allocated_w or 0.0) >= DRAWS_W
        is_by_car = evse is not None and evse.status in (
            ConnectorStatus.SUSPENDED_EV,
            ConnectorStatus.FINISHING,
        )
        if is_by_car and is_offered:
            return self._stopped.setdefault(session_id, now)
        self._stopped.pop(session_id, None)
        return None

    def forget(self, opened: set[SessionId]) -> None:
        """Let go of sessions that are over."""
        for session_id in [item for item in self._stopped if item not in opened]:
            del self._stopped[session_id]


def care_of(body: Mapping[str, object]) -> Care | None:
    """Read a stored memory; None for one that cannot be read."""
    try:

        def at(name: str) -> datetime | None:
            found = body.get(name)
            return datetime.fromisoformat(str(found)) if found else None

        base = body.get("base_soc")
        return Care(
            session_id=SessionId(str(body["session_id"])),
            reads=int(str(body.get("reads", 0))),
            first_read_at=at("first_read_at"),
            repeats=int(str(body.get("repeats", 0))),
            is_fresh=body.get("is_fresh") is True,
            base_soc=float(str(base)) if base is not None else None,
            is_middle_read=body.get("is_middle_read") is True,
            is_end_read=body.get("is_end_read") is True,
            confirm_at=at("confirm_at"),
            not_before=at("not_before"),
            faults=int(str(body.get("faults", 0))),
            is_given_up=body.get("is_given_up") is True,
        )
    except (KeyError, ValueError):
        return None


def time_of(text: object) -> datetime | None:
    """Read a stored time; None for what is none."""
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
