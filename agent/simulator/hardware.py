"""The power side of a station: outlets, energy registers, and one shared supply.

Free of protocol version and of I/O; the station calls `advance` as time passes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulator.vehicle import VirtualVehicle

TRACE_POINTS_MAX = 20_000  # three days of steps of 15 s
STEP_MAX_S = 15.0  # the vehicle's power is taken as constant for so long at most
S_PER_HOUR = 3600.0
UNANSWERED = -1  # the id of a 1.6 transaction until one was given (1.6 errata)


class TracePoint(NamedTuple):
    """One step of one outlet: its end, mean W drawn, W allowed (None: any), SoC %."""

    time: datetime
    drawn_w: float
    limit_w: float | None
    soc_percent: float | None


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One transaction. 1.6: `transaction_id` is -1 until the central system gave one."""

    id_token: str
    start: datetime
    meter_offset_wh: int
    transaction_id: int | str = UNANSWERED
    is_answered: bool = False
    is_energised: bool = False
    began_offline: bool = False
    begin_reading: dict[str, Any] | None = None
    next_meter: datetime | None = None
    readings: int = 0


@dataclass(slots=True, kw_only=True)
class Outlet:
    """One plug of a station. Power in W, energy register in Wh, never decreasing."""

    connector: int
    rated_w: float
    dc: bool = True
    phases: int = 3
    min_w: float = 0.0
    energy_wh: float = 0.0
    power_w: float = 0.0
    offered_w: float = 0.0
    limit_w: float | None = None
    peak_w: float = 0.0
    status: str = "Available"
    vehicle: VirtualVehicle | None = None
    transaction: Transaction | None = None
    is_operative: bool = True
    reservation_id: int | None = None
    trace: deque[TracePoint] = field(default_factory=lambda: deque(maxlen=TRACE_POINTS_MAX))

    @property
    def transaction_id(self) -> int | str | None:
        """The id of the running transaction, if it runs and has one."""
        if self.transaction is None or not self.transaction.is_answered:
            return None
        return self.transaction.transaction_id

    @property
    def is_live(self) -> bool:
        """Whether the contactor is closed: a vehicle, and a transaction that began."""
        if self.vehicle is None or self.transaction is None:
            return False
        return self.transaction.is_energised

    @property
    def soc_percent(self) -> float | None:
        """The vehicle's state of charge, if one is plugged in."""
        return None if self.vehicle is None else self.vehicle.soc_percent

    @property
    def told_soc(self) -> float | None:
        """What the vehicle tells the station of its state of charge, if it does."""
        if self.vehicle is None or not self.vehicle.tells_soc:
            return None
        return self.vehicle.soc_percent

    def step(self, end: datetime, dt_s: float) -> None:
        """Let the vehicle draw for `dt_s` seconds of what is offered."""
        drawn_w = 0.0
        if self.vehicle is not None and self.is_live:
            drawn_w = self.vehicle.step(dt_s, self.offered_w)
        self.power_w = drawn_w
        self.peak_w = max(self.peak_w, drawn_w)
        self.energy_wh += drawn_w * dt_s / S_PER_HOUR
        if self.vehicle is not None:
            self.trace.append(TracePoint(end, drawn_w, self.limit_w, self.soc_percent))

    def switch_off(self) -> None:
        """Open the contactor."""
        self.power_w = 0.0
        self.offered_w = 0.0
        if self.vehicle is not None:
            self.vehicle.pause()


class Limits(Protocol):
    """Where the hardware learns what it may give."""

    def outlet_limit_w(self, outlet: Outlet, now: datetime) -> float | None:
        """Tell the limit of one outlet in W; None is none."""
        ...

    def station_limit_w(self, now: datetime) -> float | None:
        """Tell the limit of all outlets together in W; None is none."""
        ...

    def changes(self, after: datetime, to: datetime) -> list[datetime]:
        """List the instants in (after, to] at which any limit may change."""
        ...


class Hardware:
    """All outlets of one station and the supply that they share."""

    def __init__(
        self, outlets: Mapping[int, Outlet], max_w: float, limits: Limits, now: datetime
    ) -> None:
        """Wire the outlets to a supply of `max_w` W."""
        self.outlets = dict(outlets)
        self.max_w = max_w
        self._limits = limits
        self._last = now

    def advance(self, now: datetime) -> None:
        """Live up to `now`, exact at each change of a limit; then offer anew."""
        edges = self._limits.changes(self._last, now) if now > self._last else []
        for edge in (*edges, now):
            while self._last < edge:
                end = min(edge, self._last + timedelta(seconds=STEP_MAX_S))
                self._offer(self._last)
                dt_s = (end - self._last).total_seconds()
                for outlet in self.outlets.values():
                    outlet.step(end, dt_s)
                self._last = end
        self._offer(now)

    def _offer(self, now: datetime) -> None:
        wishes = {each.connector: self._wish(each) for each in self._busy(now)}
        station_w = self._limits.station_limit_w(now)
        supply_w = self.max_w if station_w is None else min(self.max_w, station_w)
        for connector, share_w in share(wishes, supply_w).items():
            outlet = self.outlets[connector]
            is_enough = share_w > 0 and share_w >= outlet.min_w
            outlet.offered_w = share_w if is_enough else 0.0

    def _busy(self, now: datetime) -> list[Outlet]:
        busy = []
        for outlet in self.outlets.values():
            outlet.limit_w = self._limits.outlet_limit_w(outlet, now)
            if outlet.is_live:
                busy.append(outlet)
            else:
                outlet.offered_w = 0.0
        return busy

    @staticmethod
    def _wish(outlet: Outlet) -> tuple[float, float]:
        """Tell what an outlet could give, and what its vehicle would take, in W."""
        cap_w = outlet.rated_w
        if outlet.limit_w is not None:
            cap_w = min(cap_w, outlet.limit_w)
        wanted_w = 0.0 if outlet.vehicle is None else outlet.vehicle.wanted_w
        return cap_w, min(cap_w, wanted_w)


def share(wishes: Mapping[int, tuple[float, float]], supply_w: float) -> dict[int, float]:
    """Divide `supply_w` among (could give, would take) pairs in W, evenly, by need.

    First everyone's need is filled evenly; what is left goes to what they could give.
    """
    shares = _fill({key: wish[1] for key, wish in wishes.items()}, supply_w)
    left_w = supply_w - sum(shares.values())
    more = _fill({key: wish[0] - shares[key] for key, wish in wishes.items()}, left_w)
    return {key: shares[key] + more[key] for key in wishes}


def _fill(needs: Mapping[int, float], supply_w: float) -> dict[int, float]:
    filled: dict[int, float] = {}
    left_w = max(0.0, supply_w)
    for count, key in enumerate(sorted(needs, key=lambda each: needs[each])):
        filled[key] = min(max(0.0, needs[key]), left_w / (len(needs) - count))
        left_w -= filled[key]
    return filled
