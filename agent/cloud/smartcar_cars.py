"""What was learned of each car, on disk: capabilities, consent, last good values.

Facts of the scope ``smartcar-cars``, one per car, by Smartcar's id of it, which stays
when a driver consents anew (smartcar.md section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from agent.domain.errors import CloudFault, StoreFault
from agent.ports import CarState, Clock, FactSaved, Sourced, Store

log = structlog.get_logger()

SCOPE = "smartcar-cars"
RECHECK = timedelta(days=30)
"""What a car cannot do is looked at again after a month (section 8)."""
READ = "read"
NUMBERS = (
    "soc_percent", "range_km", "capacity_wh", "limit_percent", "is_plugged", "is_charging",
    "has_timers",
)  # fmt: skip
TEXTS = ("charging", "vin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Something that does not work for a car, with the cloud's code."""

    code: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CarFacts:
    """What is known of one car between requests."""

    make: str = ""
    vin: str = ""
    state: CarState = field(default_factory=CarState)
    at: datetime | None = None
    """When ``state`` was read; each value has its own time as well."""
    session_id: str = ""
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    """By ``read``, ``start``, ``stop``, ``set-limit``."""
    driver: str = ""
    """The code of what only the driver can put right, or nothing."""
    driver_detail: str = ""
    driver_since: datetime | None = None
    is_store_empty: bool = False

    def lack(self, capability: str, now: datetime) -> Lack | None:
        """Whether a request is of no use, as far as was learned in the last month."""
        found = self.lacks.get(capability)
        if found is None or now >= found.until or found.until - now > RECHECK:
            return None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CarKnown:
    """What is known of a car without asking."""

    state: CarState
    at: datetime | None
    make: str
    vin: str
    driver: str
    driver_detail: str
    lacks: frozenset[str]
    is_store_empty: bool


class CarBook:
    """Reads the facts once and writes what changes."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Prepare; the disk is read at the first use."""
        self._store = store
        self._clock = clock
        self._cars: dict[str, CarFacts] | None = None
        self._from_disk: set[str] = set()

    async def of(self, vehicle_id: str) -> CarFacts:
        """What is known of a car. Raises CloudFault when the disk cannot be read."""
        if self._cars is None:
            try:
                facts = await self._store.facts(SCOPE)
            except StoreFault as error:
                raise CloudFault(
                    "smartcar: what is known of the cars cannot be read from disk",
                    retryable=True,
                    retry_after_s=60.0,
                ) from error
            if self._cars is None:
                self._cars = {name: facts_of(body) for name, body in facts.items()}
                self._from_disk = set(self._cars)
        return self._cars.get(vehicle_id, CarFacts())

    def is_from_disk(self, vehicle_id: str) -> bool:
        """Whether the last values were read before the restart."""
        return vehicle_id in self._from_disk

    async def change(self, vehicle_id: str, **fields: Any) -> CarFacts:
        """Change fields of a car's facts and write them."""
        old = await self.of(vehicle_id)
        new = replace(old, **fields)
        if "state" in fields:
            self._from_disk.discard(vehicle_id)
        if new == old or self._cars is None:
            return new
        self._cars[vehicle_id] = new
        row = FactSaved(scope=SCOPE, name=vehicle_id, body=body_of(new))
        try:
            await self._store.commit([row], self._clock.now())
        except StoreFault as error:
            log.error("record_not_stored", reason=str(error), what=SCOPE)
        return new

    async def known(self, vehicle_id: str) -> CarKnown | None:
        """Show what is known of a car; None when it is nothing."""
        facts = await self.of(vehicle_id)
        if facts == CarFacts():
            return None
        now = self._clock.now()
        return CarKnown(
            state=facts.state,
            at=facts.at,
            make=facts.make,
            vin=facts.vin,
            driver=facts.driver,
            driver_detail=facts.driver_detail,
            lacks=frozenset(name for name in facts.lacks if facts.lack(name, now)),
            is_store_empty=facts.is_store_empty,
        )


# --- facts ----------------------------------------------------------------------------


def body_of(facts: CarFacts) -> dict[str, object]:
    """Facts as JSON."""
    return {
        "make": facts.make,
        "vin": facts.vin,
        "state": _state_body(facts.state),
        "at": _text_of(facts.at),
        "session_id": facts.session_id,
        "lacks": {
            name: [lack.code, lack.until.isoformat()] for name, lack in facts.lacks.items()
        },
        "driver": facts.driver,
        "driver_detail": facts.driver_detail,
        "driver_since": _text_of(facts.driver_since),
        "is_store_empty": facts.is_store_empty,
    }


def facts_of(body: Mapping[str, Any]) -> CarFacts:
    """Facts from JSON; what cannot be read is learned again."""
    try:
        return CarFacts(
            make=str(body["make"]),
            vin=str(body["vin"]),
            state=_state_of(body["state"]),
            at=_time_of(body["at"]),
            session_id=str(body["session_id"]),
            lacks={
                str(name): Lack(code=str(raw[0]), until=datetime.fromisoformat(raw[1]))
                for name, raw in body["lacks"].items()
            },
            driver=str(body["driver"]),
            driver_detail=str(body["driver_detail"]),
            driver_since=_time_of(body["driver_since"]),
            is_store_empty=bool(body["is_store_empty"]),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return CarFacts()


def _state_body(state: CarState) -> dict[str, object]:
    body: dict[str, object] = {}
    for name in NUMBERS:
        found = getattr(state, name)
        if found is not None:
            body[name] = [found.value, _text_of(found.recorded_at)]
    return body | {name: getattr(state, name) for name in TEXTS}


def _state_of(body: Mapping[str, Any]) -> CarState:
    fields: dict[str, Any] = {name: str(body.get(name, "")) for name in TEXTS}
    for name in NUMBERS:
        if name in body:
            value, at = body[name]
            fields[name] = Sourced(value=float(value), recorded_at=_time_of(at))
    return CarState(**fields)


def _text_of(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time_of(raw: Any) -> datetime | None:
    return None if raw is None else datetime.fromisoformat(raw).astimezone(UTC)
