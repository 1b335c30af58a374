"""The stand-in ChargEye itself: registry, schedules, plans, tokens, switches.

Holds everything in memory and does no I/O; `server` puts it on HTTP. Powers are
kW on the DC side, SoC percent; time comes from the clock it is given.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.standin.faults import Faults, Ledger
from agent.standin.planner import GRID_S, make_plans
from agent.standin.planning import (
    loads_of,
    plan_of,
    preconditioning_of,
    row_at,
    slot_of,
)
from agent.standin.schedules import (
    SLOT_FIELDS,
    BadRequestError,
    Change,
    Entry,
    JsonObject,
    ScheduleBook,
    parse_time,
)
from agent.standin.tokens import TOKEN_LIFE_S, Tokens, iso_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from agent.standin.clock import StandinClock
    from agent.standin.planner import Slot

PLAN_HORIZON = timedelta(hours=48)
"""Slots that begin later have no plan yet; two nights are enough for an agent."""
PAGE_ROWS = 5
"""Transactions on a page; few, so that paging is exercised."""
GAIN_WORTH_SOC = 0.1
"""Percent that a vehicle must gain before all the others are planned anew."""
VEHICLE_MINIMA = {
    "fullChargeEnergykWh": 1, "maxChargePowerkW": 1, "minChargePowerkW": 0,
}  # fmt: skip
LISTS_KEYED = {
    "vehicles": "id", "schedules": "evId", "locations": "id", "power_groups": "groupId",
}  # fmt: skip
"""Lists of a fixture whose rows need a key, with its name."""
READ_ONLY = frozenset({"id", "vin", "v2icp"})
PLANNING_FIELDS = frozenset(VEHICLE_MINIMA) | {
    "supportsPauseResume", "enableChargeScheduling", "v2icpParameters",
}  # fmt: skip


class ChargEyeStandin:
    """One ChargEye organisation with its vehicles, schedules and stations."""

    def __init__(
        self,
        clock: StandinClock,
        *,
        site_cap_kw: float = 300.0,
        refresh_token: str = "standin-refresh-token",  # noqa: S107 a stand-in's
        token_life_s: float = TOKEN_LIFE_S,
        grid_s: float = GRID_S,
        efficiency: float = 1.0,
        margin_s: float = 0.0,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        """Begin empty.

        `grid_s`: length of a plan segment. `efficiency`: plug to battery.
        `margin_s`: be ready this long before departure. `paths`: changes to the
        path table of `server`, by name.
        """
        self.clock = clock
        self.site_cap_kw = site_cap_kw
        self.grid_s = grid_s
        self.efficiency = efficiency
        self.margin_s = margin_s
        self.paths = dict(paths or {})
        self.tokens = Tokens(clock, refresh_token, life_s=token_life_s)
        self.faults = Faults()
        self.requests = Ledger()
        self.unreachable = False
        self.patch_grace_s = 0.0
        self.page_rows = PAGE_ROWS
        self.expensive: list[tuple[datetime, datetime]] = []
        self.vehicles: dict[str, JsonObject] = {}
        self.locations: dict[str, JsonObject] = {}
        self.stations: list[JsonObject] = []
        self.transactions: list[JsonObject] = []
        self.power_groups: dict[str, JsonObject] = {}
        self.book = ScheduleBook()
        self._planned_at: datetime | None = None

    def load(
        self,
        *,
        vehicles: Iterable[Mapping[str, Any]] = (),
        schedules: Iterable[Mapping[str, Any]] = (),
        locations: Iterable[Mapping[str, Any]] = (),
        stations: Iterable[Mapping[str, Any]] = (),
        transactions: Iterable[Mapping[str, Any]] = (),
        power_groups: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Add rows as they are, and plan the schedules that bring no plan."""
        for vehicle in vehicles:
            self.vehicles[str(vehicle["id"])] = dict(vehicle)
        for location in locations:
            self.locations[str(location["id"])] = dict(location)
        self.stations.extend(dict(station) for station in stations)
        self.transactions.extend(dict(transaction) for transaction in transactions)
        for group in power_groups:
            self.power_groups[str(group["groupId"])] = dict(group)
        entries = [self.book.load(row) for row in schedules]
        fresh = [entry for entry in entries if "plan" not in entry.row]
        self._plan(fresh, "schedule-changed", "fixture loaded")

    def clear(self) -> None:
        """Forget all rows: vehicles, schedules, stations, transactions and the rest."""
        for rows in (self.vehicles, self.locations, self.stations, self.transactions):
            rows.clear()
        self.power_groups.clear()
        self.book.clear()

    def vehicle_schedules(self, vehicle_id: str) -> list[JsonObject]:
        """Return the dated schedules of a vehicle as shown now."""
        now = self.clock.now()
        return [row_at(entry, now) for entry in self.book.of_vehicle(vehicle_id)]

    def location_schedules(self, location_uid: str) -> dict[str, list[JsonObject]]:
        """Return both lists of a location as shown now."""
        now = self.clock.now()
        entries = self.book.of_location(location_uid)
        return {
            "recurringSchedules": [e.row for e in entries if e.is_recurring],
            "schedules": [row_at(e, now) for e in entries if not e.is_recurring],
        }

    def active_schedule(self, vehicle_id: str) -> dict[str, JsonObject]:
        """Return `currentOrNext` and `previous`, each only when there is one."""
        now = self.clock.now()
        current, previous = self.book.active(vehicle_id, now)
        shown = {"currentOrNext": current, "previous": previous}
        return {key: row_at(e, now) for key, e in shown.items() if e is not None}

    def put_vehicle(self, vehicle_id: str, body: Any) -> JsonObject:
        """Create or replace; what is read-only stays."""
        fields = _vehicle_fields(body)
        old = self.vehicles.get(vehicle_id, {})
        kept = {key: old[key] for key in READ_ONLY if key in old}
        self.vehicles[vehicle_id] = {"id": vehicle_id, **fields, **kept}
        if old:
            self.replan(vehicle_id, "vehicle replaced", trigger="vehicle-changed")
        return {"id": vehicle_id}

    def patch_vehicle(self, vehicle_id: str, body: Any) -> JsonObject:
        """Change some fields; KeyError for an unknown vehicle."""
        vehicle = self.vehicles[vehicle_id]
        fields = _vehicle_fields(body)
        vehicle.update(fields)
        if PLANNING_FIELDS & set(fields):
            self.replan(vehicle_id, "vehicle changed", trigger="vehicle-changed")
        return {"success": True}

    def v2icp_said(
        self, vehicle_id: str, message: Mapping[str, Any], *, mac: str, vin: str
    ) -> None:
        """A bus spoke V2ICP: the registry learns its VIN, plans learn its needs (13.3).

        `message` is the bus's own, with `bat_reqtime`, `prec_reqtime` and `prec_eamount`.
        """
        vehicle = self.vehicles[vehicle_id]
        vehicle["vin"] = vin
        vehicle["v2icp"] = {
            "evMacAddress": mac,
            "vin": vin,
            "timestamp": iso_ms(self.clock.now()),
            "v2icp": dict(message),
            "response": {"seq": message.get("seq", 0), "vin": vin},
        }
        self.replan(vehicle_id, "V2ICP message", trigger="vehicle-changed")

    def post_location(self, body: Any) -> JsonObject:
        """Create a location; its `id` is the cloud's own choice."""
        row = body.get("location") if isinstance(body, dict) else None
        if not isinstance(row, dict):
            raise BadRequestError("location is required and must be an object")
        uid = f"location-{len(self.locations) + 1:06d}"
        self.locations[uid] = {**row, "id": uid}
        for station in self.stations:
            if station.get("stationId") == body.get("stationId"):
                station["locationUid"] = uid
        return {"id": uid, "success": True}

    def patch_power_group(self, group_id: str, body: Any) -> JsonObject:
        """Change some fields of a group; KeyError for an unknown one."""
        group = body.get("group") if isinstance(body, dict) else None
        if not isinstance(group, dict):
            raise BadRequestError("group is required and must be an object")
        self.power_groups[group_id].update(group)
        return {"success": True}

    def post_schedules(
        self, vehicle_id: str, posted: list[Any], *, replaces: bool
    ) -> JsonObject:
        """Add or synchronise the schedules of a vehicle (6.6)."""
        now = self.clock.now()
        written = self.book.post(vehicle_id, posted, now, replaces=replaces)
        self._plan_moved(written.changes)
        return {"ids": written.ids, "removedScheduleIds": written.removed}

    def patch_schedules(self, vehicle_id: str, patches: list[Any]) -> JsonObject:
        """Change schedules by id (6.7); `success` is true even with skips."""
        grace = timedelta(seconds=self.patch_grace_s)
        now = self.clock.now()
        written = self.book.patch(vehicle_id, patches, now, grace)
        self._plan_patched(written.changes)
        reasons = [f"{key}: {reason}" for key, reason in written.skipped.items()]
        message = "; ".join(reasons) or f"{len(written.ids)} schedules updated"
        return {
            "success": True,
            "message": message,
            "skippedScheduleIds": list(written.skipped),
        }

    def replan(
        self,
        vehicle_id: str | None = None,
        reason: str = "requested",
        *,
        trigger: str = "replan-requested",
    ) -> list[str]:
        """Plan one vehicle (or all) anew; return the ids of the new plans.

        Frozen schedules and plans written by clients stay as they are.
        """
        entries = [
            entry
            for entry in self.book.entries.values()
            if vehicle_id is None or entry.row["evId"] == vehicle_id
        ]
        return self._plan(entries, trigger, reason)

    def freeze(self, schedule_id: str, *, frozen: bool = True) -> None:
        """Set `planMeta.frozen` of a schedule; KeyError for an unknown one."""
        row = self.book.entries[schedule_id].row
        row["planMeta"] = {**(row.get("planMeta") or {}), "frozen": frozen}

    def load_fixture(self, body: Any) -> None:
        """Take `/_control/fixture` or a fixtures file: lists by name."""
        if not isinstance(body, dict):
            raise BadRequestError("a fixture must be an object")
        names = (*LISTS_KEYED, "stations", "transactions")
        lists = {name: body.get(name) or [] for name in names}
        for name, rows in lists.items():
            if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
                raise BadRequestError(f"{name} must be a list of objects")
        for name, key in LISTS_KEYED.items():
            if not all(row.get(key) for row in lists[name]):
                raise BadRequestError(f"each of {name} needs {key}")
        for row in lists["schedules"]:
            parse_time(row.get("plannedArrivalTime"))
            parse_time(row.get("plannedDepartureTime"))
        self.load(**lists)

    def _plan_patched(self, changes: Sequence[Change]) -> None:
        """A PATCH with `startSoC` means that the vehicle is there, even if equal."""
        self._plan_moved([c for c in changes if "startSoC" not in c.sent])
        connected = [c.entry for c in changes if "startSoC" in c.sent]
        socs = self._measured(connected)
        self._plan(connected, "ev-connected", "startSoC updated", socs)

    def _plan_moved(self, changes: Sequence[Change]) -> None:
        moved = [c.entry for c in changes if c.different & set(SLOT_FIELDS)]
        told = [c.entry for c in changes if "startSoC" in c.different]
        socs = self._measured(told)
        self._plan(moved, "schedule-changed", "slot changed", socs)

    def _measured(self, entries: Iterable[Entry]) -> dict[str, float]:
        now = self.clock.now()
        return {e.id: float(e.row["startSoC"]) for e in entries if e.arrival <= now}

    def _plan(
        self,
        entries: Sequence[Entry],
        trigger: str,
        reason: str,
        socs: Mapping[str, float] | None = None,
    ) -> list[str]:
        now = self.clock.now()
        asked = self._slots(entries, now, socs or {})
        if not asked:
            return []
        made = self._made(asked, now)
        movable = list(self.book.entries.values())
        if not all(plan.reached for plan in made.values()) and len(movable) > len(made):
            everyone = self._slots(movable, now, socs or {})
            wider = self._made(everyone, now)
            if any(wider[k].end_soc > made[k].end_soc + GAIN_WORTH_SOC for k in made):
                asked, made = everyone, wider
        meta = self._meta(now, trigger, reason)
        for key, slot in asked.items():
            entry = self.book.entries[key]
            needs = preconditioning_of(self.vehicles[slot.vehicle_id])
            entry.row["plan"] = plan_of(entry, slot, made[key], now, needs)
            entry.row["planMeta"] = {**(entry.row.get("planMeta") or {}), **meta}
        return list(asked)

    def _slots(
        self, entries: Iterable[Entry], now: datetime, socs: Mapping[str, float]
    ) -> dict[str, Slot]:
        slots = {}
        for entry in entries:
            vehicle = self.vehicles.get(str(entry.row["evId"]))
            if vehicle is None or entry.is_recurring or entry.is_frozen:
                continue
            if entry.departure <= now or entry.arrival > now + PLAN_HORIZON:
                continue
            slot = slot_of(
                entry,
                vehicle,
                now,
                soc=socs.get(entry.id),
                efficiency=self.efficiency,
                margin_s=self.margin_s,
            )
            if slot is not None:
                slots[entry.id] = slot
        return slots

    def _made(self, slots: Mapping[str, Slot], now: datetime) -> dict[str, Any]:
        others = [e for key, e in self.book.entries.items() if key not in slots]
        return make_plans(
            list(slots.values()),
            cap_kw=self.site_cap_kw,
            now=now,
            grid_s=self.grid_s,
            taken=loads_of(others, now),
            expensive=self.expensive,
        )

    def _meta(self, now: datetime, trigger: str, reason: str) -> JsonObject:
        """Return `planMeta`; its timestamp grows even when the clock stands."""
        if self._planned_at is not None:
            now = max(now, self._planned_at + timedelta(milliseconds=1))
        self._planned_at = now
        return {
            "strategy": "peak-supression",
            "strategyVersion": "1",
            "timestamp": iso_ms(now),
            "trigger": trigger,
            "triggerDescription": reason,
            "frozen": False,
        }


def _vehicle_fields(body: Any) -> JsonObject:
    if not isinstance(body, dict):
        raise BadRequestError("a vehicle must be an object")
    for key, lowest in VEHICLE_MINIMA.items():
        value = body.get(key, lowest)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequestError(f"{key} must be a number")
        if value < lowest:
            raise BadRequestError(f"{key} must be {lowest} or more")
    return {key: value for key, value in body.items() if key not in READ_ONLY}
