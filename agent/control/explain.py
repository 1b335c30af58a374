"""Why an outlet has the limit it has: what was decided, newest first, in words.

The power loop writes an entry when an outlet's share or its rules change and when an
order leaves or is answered; ``explain`` reads them back beside the state of now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from agent.control.depot import Depot
from agent.control.ladders import shown
from agent.domain import efficiency
from agent.domain.curve import value_at
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.proof import level_of
from agent.domain.reconcile import OrderState, OutletPower
from agent.domain.session import Session

ENTRIES_MAX = 60
"""Entries kept per outlet: a night of changes; the log has all of them."""
SHARE_STEP_W = 100.0
"""A share that moved less is the same share."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decision about an outlet; W at the outlet."""

    at: datetime
    what: str
    limit_w: float | None
    rules: tuple[str, ...]


class Diary:
    """The last decisions of every outlet; bounded."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: dict[Outlet, deque[Entry]] = {}
        self._last: dict[Outlet, tuple[float, tuple[str, ...]]] = {}

    def decided(
        self, outlet: Outlet, now: datetime, share_w: float, rules: tuple[str, ...]
    ) -> bool:
        """Write down a share and its rules if either is new; whether it was."""
        before = self._last.get(outlet)
        if before is not None:
            is_same_share = abs(before[0] - share_w) < SHARE_STEP_W
            if is_same_share and before[1] == rules:
                return False
        self._last[outlet] = (share_w, rules)
        self._add(outlet, Entry(at=now, what="share", limit_w=share_w, rules=rules))
        return True

    def happened(
        self, outlet: Outlet, now: datetime, what: str, limit_w: float | None = None
    ) -> None:
        """Write down an order, an answer, an alarm."""
        self._add(outlet, Entry(at=now, what=what, limit_w=limit_w, rules=()))

    def forget(self, outlet: Outlet, now: datetime) -> None:
        """The vehicle is gone: the next share is new whatever it is."""
        if self._last.pop(outlet, None) is not None:
            self.happened(outlet, now, "the transaction is over; the default holds")

    def entries(self, outlet: Outlet) -> list[Entry]:
        """All entries, newest first."""
        return list(reversed(self._entries.get(outlet, ())))

    def _add(self, outlet: Outlet, entry: Entry) -> None:
        kept = self._entries.get(outlet)
        if kept is None:
            kept = self._entries.setdefault(outlet, deque(maxlen=ENTRIES_MAX))
        kept.append(entry)


def explain(
    depot: Depot, diary: Diary, station_id: StationId, evse_id: EvseId, now: datetime
) -> Json | None:
    """Tell why an outlet has its limit; None for an outlet that nobody knows."""
    outlet = (station_id, evse_id)
    is_known = station_id in depot.traits or station_id in depot.states
    if not is_known or evse_id not in depot.outlets(station_id):
        return None
    state = depot.state(station_id)
    session = state.session_at(evse_id)
    running = session.open_transaction if session is not None else None
    power = depot.power_of(outlet)
    default_w = depot.power_of((station_id, EvseId(0))).default_w
    view = depot.views.get(outlet)
    entries = diary.entries(outlet)
    rules = view.rules if view is not None and running is not None else ()
    is_running = running is not None
    reasons = _now(power, default_w, is_connected=state.is_connected, is_running=is_running)
    witness = depot.witnesses.get(outlet)
    if is_running and witness is not None and witness.agrees is False:
        reasons.append(f"its composite schedule allows {witness.words}")
    reasons += list(reversed(rules))
    measured = depot.efficiencies.get(station_id)
    if depot.traits_of(station_id).is_dc and measured is not None:
        said = efficiency.words(depot.policy.efficiency, measured)
        reasons += [said] if said else []
    if depot.site_load is not None:
        reasons.append(depot.site_load.words)
    return {
        "station_id": station_id,
        "evse_id": evse_id,
        "session_id": session.session_id if session is not None else None,
        "vehicle_id": session.vehicle_id if session is not None else None,
        "limit_w": _limit_w(power, default_w, now, is_running=is_running),
        "measured_w": session.meter.power_w if session is not None else None,
        "proof": proof_of(power),
        "proof_level": level(depot, session, outlet),
        "ladder": shown(depot, station_id),
        "because": reasons,
        "history": [
            {
                "at": item.at.isoformat().replace("+00:00", "Z"),
                "what": item.what,
                "limit_w": item.limit_w,
                "rules": list(item.rules),
            }
            for item in entries
        ],
    }


def proof_of(power: OutletPower) -> str:
    """How far a limit is proved: commanded, accepted, verified or violated (B12)."""
    if power.verified is False:
        return "violated"
    if power.doubtful is not None:
        return "commanded"
    if power.confirmed is None:
        return "none"
    if power.unproved is not None or power.verified is None:
        return "accepted"
    return "verified"


def level(depot: Depot, session: Session | None, outlet: Outlet) -> str | None:
    """The strongest proof of the limit of a running transaction; None without one."""
    running = session.open_transaction if session is not None else None
    if session is None or running is None:
        return None
    power, witness = depot.power_of(outlet), depot.witnesses.get(outlet)
    return str(level_of(power, session.meter, witness, running.transaction_id))


def _limit_w(
    power: OutletPower, default_w: float | None, now: datetime, *, is_running: bool
) -> float | None:
    if not is_running or power.confirmed is None:
        return default_w
    return value_at(power.confirmed.allows, now.timestamp())


def _now(
    power: OutletPower, default_w: float | None, *, is_connected: bool, is_running: bool
) -> list[str]:
    """The state of the limit itself, most pressing first."""
    words: list[str] = []
    if not is_connected:
        words.append("the station is not connected: what is installed there goes on")
    if not is_running:
        shown = "unknown" if default_w is None else f"{default_w / 1000:.1f} kW"
        words.append(f"no transaction runs; the next vehicle begins with {shown}")
        return words
    if power.verified is False:
        words.append("it draws more than its limit: it counts with its full rating")
    if power.order is OrderState.REFUSED:
        words.append(
            f"the station refused the newest limit ({power.detail or 'no reason'})"
        )
    elif power.order is OrderState.UNANSWERED:
        words.append("the newest limit was not answered: old and new both count")
    elif power.unproved is not None:
        words.append("the lower limit was accepted, but no meter value has shown it yet")
    if power.quiet_until is not None:
        words.append(f"the station wants no new limit before {power.quiet_until:%H:%M:%S}")
    return words
