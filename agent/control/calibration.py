"""Learns stations' efficiency from the power that they report on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import structlog

from agent.control.depot import Depot
from agent.domain import efficiency
from agent.domain.efficiency import SAVE_STEP, Efficiency
from agent.domain.errors import StoreFault
from agent.domain.ids import Outlet, StationId
from agent.domain.session import Session
from agent.ports import Clock, FactSaved, Store

log = structlog.get_logger()

SCOPE = "efficiency"
"""Facts: by station, {"mean", "samples", "at"}."""


class Calibration:
    """Keeps ``depot.efficiencies``; ``look`` is called in each pass of the power loop."""

    def __init__(self, depot: Depot, store: Store, clock: Clock) -> None:
        """Prepare; ``load`` reads what was learned before."""
        self._depot = depot
        self._store = store
        self._clock = clock
        self._seen_at: dict[Outlet, datetime] = {}
        self._saved: dict[StationId, float] = {}
        self._unsaved: dict[StationId, Efficiency] = {}

    @property
    def has_unsaved(self) -> bool:
        """Whether a mean moved enough to be written."""
        return bool(self._unsaved)

    async def load(self) -> None:
        """Read what was learned before the restart."""
        for name, body in (await self._store.facts(SCOPE)).items():
            known = _read(body)
            if known is not None:
                station_id = StationId(name)
                self._depot.efficiencies[station_id] = known
                self._saved[station_id] = known.mean

    def look(self, outlet: Outlet, session: Session) -> None:
        """Learn from the newest sample of an outlet, if it has both sides."""
        meter, station_id = session.meter, outlet[0]
        at = meter.power_at
        if meter.inlet_w is None or meter.power_w is None or at is None:
            return
        if self._seen_at.get(outlet) == at or not self._is_alone(outlet):
            return
        self._seen_at[outlet] = at
        traits = self._depot.traits_of(station_id)
        before = self._depot.efficiencies.get(station_id)
        after = efficiency.learn(
            before,
            outlet_w=meter.power_w,
            inlet_w=meter.inlet_w,
            rated_w=traits.rated_w,
            at=at,
        )
        if not traits.is_dc or after is None or after is before:
            return
        self._depot.efficiencies[station_id] = after
        saved = self._saved.get(station_id)
        if after.learned is not None and (
            saved is None or abs(after.mean - saved) >= SAVE_STEP
        ):
            self._saved[station_id] = after.mean
            self._unsaved[station_id] = after

    async def save(self) -> None:
        """Write what moved."""
        rows, self._unsaved = self._unsaved, {}
        for station_id, item in rows.items():
            log.info(
                "efficiency_learned",
                station_id=station_id,
                efficiency=round(item.learned or 0.0, 3),
                samples=item.samples,
            )
        facts = [
            FactSaved(scope=SCOPE, name=n, body=_body(item)) for n, item in rows.items()
        ]
        try:
            await self._store.commit(facts, self._clock.now())
        except StoreFault as fault:
            log.error("record_not_stored", reason=str(fault))

    def _is_alone(self, outlet: Outlet) -> bool:
        """Whether no other outlet charges: the inlet may be the whole station's."""
        state = self._depot.state(outlet[0])
        return not any(
            item.evse_id != outlet[1] and item.open_transaction is not None
            for item in state.open_sessions()
        )


def _body(item: Efficiency) -> dict[str, object]:
    return {"mean": item.mean, "samples": item.samples, "at": item.at.isoformat()}


def _read(body: Mapping[str, object]) -> Efficiency | None:
    mean, samples, at = body.get("mean"), body.get("samples"), body.get("at")
    if not isinstance(mean, float) or not isinstance(samples, int):
        return None
    try:
        return Efficiency(mean=mean, samples=samples, at=datetime.fromisoformat(str(at)))
    except ValueError:
        return None
