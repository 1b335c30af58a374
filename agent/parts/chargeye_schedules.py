"""Operations on ChargEye's schedules: list, active, add, synchronise, patch.

A synchronisation deletes what it does not name (chargeye.md 6.6). So it is shown first,
from a complete and fresh view, and done only for that very view; ``replaceFutureSchedules``
leaves the daemon in no other way. A POST whose answer was lost is never sent again
before a look at what became of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from agent.cloud.chargeye_parse import read_time
from agent.cloud.chargeye_rows import Posted, SlotRow, SlotsRead
from agent.cloud.chargeye_sync import (
    SyncPlan,
    differences,
    missing,
    plan_sync,
    same_slot,
    why_partial,
)
from agent.cloud.chargeye_writes import patched_schedules, posted_schedules
from agent.cloud.http import Json
from agent.control.operations import (
    Arguments,
    OperationRefused,
    Operations,
    flag_of,
    text_of,
)
from agent.domain.errors import CloudFault
from agent.parts.chargeye_desk import Desk, time_of

log = structlog.get_logger()

VIEW_AGE_MAX = timedelta(minutes=5)
"""A dry run counts this long: somebody may have changed schedules since."""
VIEWS_MAX = 32
"""Dry runs remembered."""
CONFLICT = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A POST that ended: its answer, or what was found after it was lost."""

    posted: Posted
    was_lost: bool = False


class ScheduleOperations:
    """The operations ``schedules.*``."""

    def __init__(self, desk: Desk) -> None:
        """Prepare."""
        self._desk = desk
        self._shown: OrderedDict[str, datetime] = OrderedDict()
        self._one_writer = asyncio.Lock()

    def add_to(self, operations: Operations) -> None:
        """Offer all of them."""
        operations.add("schedules.list", self.list)
        operations.add("schedules.active", self.active)
        operations.add("schedules.add", self.add)
        operations.add("schedules.sync", self.sync)
        operations.add("schedules.patch", self.patch)

    # --- reads ----------------------------------------------------------------------------

    async def list(self, arguments: Arguments) -> Json:
        """Schedules of the depot or of a vehicle, in ChargEye's own shape.

        Recurring ones are listed by the location only (6.1); none of them is executed.
        """
        vehicle_id = text_of(arguments, "vehicle", "")
        since, until = time_of(arguments, "from"), time_of(arguments, "to")
        wants_recurring = flag_of(arguments, "recurring")
        ops, place = self._desk.ops, text_of(arguments, "location", self._desk.location_uid)
        if not vehicle_id:
            read = await ops.location_schedules(place, since, until)
            recurring = read.recurring
        else:
            read = await ops.vehicle_schedules(vehicle_id, since, until)
            of_place = await ops.location_schedules(place) if wants_recurring else None
            recurring = of_place.recurring if of_place is not None else ()
        return {
            "schedules": [slot.row for slot in _by_arrival(read.slots)],
            "recurring": [
                slot.row
                for slot in recurring
                if wants_recurring and vehicle_id in ("", slot.vehicle_id)
            ],
            "problems": [*read.oddities],
        }

    async def active(self, arguments: Arguments) -> Json:
        """The running or next schedule of a vehicle, and the last that ended."""
        vehicle_id = text_of(arguments, "vehicle")
        found = await self._desk.ops.active_schedule(vehicle_id)
        now, current = self._desk.now(), found.current_or_next
        is_running = (
            current is not None
            and current.arrives_at is not None
            and current.departs_at is not None
            and current.arrives_at <= now < current.departs_at
        )
        return {
            "current_or_next": current.row if current is not None else None,
            "running": is_running,
            "previous": found.previous.row if found.previous is not None else None,
        }

    # --- writes ---------------------------------------------------------------------------

    async def add(self, arguments: Arguments) -> Json:
        """Add schedules; those whose slot is there already are not sent again."""
        vehicle_id = text_of(arguments, "vehicle")
        rows, notes = self._rows(arguments, vehicle_id)
        async with self._one_writer:
            known = await self._known(vehicle_id)
            fresh = [row for row in rows if not any(same_slot(slot, row) for slot in known)]
            present = [
                slot.schedule_id for slot in known if any(same_slot(slot, r) for r in rows)
            ]
            sent = _Sent(posted=Posted(ids=(), removed=()))
            if fresh:
                sent = await self._post_added(vehicle_id, known, fresh)
                log.info(
                    "schedules_written", vehicle_id=vehicle_id, ids=list(sent.posted.ids)
                )
                self._desk.look_again()
        return {
            "ids": [*sent.posted.ids],
            "already_there": present,
            "answer_lost": sent.was_lost,
            "notes": notes,
        }

    async def _post_added(
        self, vehicle_id: str, before: Sequence[SlotRow], rows: Sequence[Json]
    ) -> _Sent:
        """Post, and after a lost answer read before anything is sent again (6.6)."""
        ops = self._desk.ops
        try:
            return _Sent(posted=await ops.post_schedules(vehicle_id, rows, replace=False))
        except CloudFault as fault:
            if not fault.retryable:
                raise
            lost = fault
        known = {slot.schedule_id for slot in before}
        after = await self._known(vehicle_id)
        new = [slot for slot in after if slot.schedule_id not in known]
        lacking = missing(new, rows)
        ids = [
            slot.schedule_id
            for slot in new
            if any(not differences(slot.row, row) for row in rows)
        ]
        if any(self._is_out_of_sight(row) for row in lacking):
            raise OperationRefused(
                f"{lost}; whether the recurring schedules were taken is not known: look "
                "in ChargEye before you repeat it",
                status=502,
            )
        if lacking:
            more = await ops.post_schedules(vehicle_id, lacking, replace=False)
            ids += [*more.ids]
        return _Sent(posted=Posted(ids=tuple(ids), removed=()), was_lost=True)

    async def _known(self, vehicle_id: str) -> Sequence[SlotRow]:
        """A vehicle's slots, with its templates, which only its location lists (6.1)."""
        own = await self._desk.ops.vehicle_schedules(vehicle_id)
        place = await self._desk.ops.location_schedules(self._desk.location_uid)
        return _with_templates(own, place, vehicle_id)

    def _is_out_of_sight(self, row: Json) -> bool:
        """A template of another location: no list that is read here would show it."""
        is_here = row.get("locationUid") == self._desk.location_uid
        return bool(row.get("recurrenceRule")) and not is_here

    async def sync(self, arguments: Arguments) -> Json:
        """Make a list all that is upcoming; without ``apply`` only what would be done.

        ``view`` is the mark of the dry run that an operator saw: another view, or one
        that is too old, is refused.
        """
        vehicle_id = text_of(arguments, "vehicle")
        given, notes = self._rows(arguments, vehicle_id)
        rows = [row for row in given if not _has_departed(row, self._desk.now())]
        if len(rows) < len(given):
            notes = [*notes, "departed schedules were left out: they stay as they are"]
        _refuse_equal_departures(rows)
        async with self._one_writer:
            plan = await self._planned(vehicle_id, rows)
            if not flag_of(arguments, "apply"):
                self._remember(plan.mark)
                return _told(plan, vehicle_id, notes)
            self._demand_seen(plan, text_of(arguments, "view", ""))
            if plan.is_done:
                return _told(plan, vehicle_id, notes) | {"applied": True}
            sent = await self._post_all(vehicle_id, rows, plan)
            announced = {slot.schedule_id for slot in plan.deleted}
            unexpected = sorted(set(sent.posted.removed) - announced)
            log.warning(
                "schedules_synchronised",
                vehicle_id=vehicle_id,
                ids=list(sent.posted.ids),
                removed=list(sent.posted.removed),
                unexpected=unexpected,
            )
            self._desk.look_again()
        return _told(plan, vehicle_id, notes) | {
            "applied": True,
            "ids": [*sent.posted.ids],
            "removed_schedule_ids": [*sent.posted.removed],
            "unexpected": unexpected,
            "answer_lost": sent.was_lost,
        }

    async def _planned(self, vehicle_id: str, rows: Sequence[Json]) -> SyncPlan:
        """Read everything anew and work out what would be done.

        Raises OperationRefused when the view may be partial.
        """
        ops = self._desk.ops
        own = await ops.vehicle_schedules(vehicle_id)
        of_location = await ops.location_schedules(self._desk.location_uid)
        try:
            active = await ops.active_schedule(vehicle_id)
        except CloudFault as fault:
            if fault.retryable:
                raise
            active = None  # its path is the least certain one: a 404 is no news
        problem = why_partial(vehicle_id, own, of_location, active)
        if problem is not None:
            raise OperationRefused(
                f"the view of {vehicle_id}'s schedules may be partial: {problem}; a "
                "synchronisation would delete what is not seen. Add or patch instead",
                status=CONFLICT,
            )
        known = _with_templates(own, of_location, vehicle_id)
        try:
            return plan_sync(known, rows, self._desk.now(), vehicle_id=vehicle_id)
        except ValueError as error:
            raise OperationRefused(
                f"{error}: give it the departure of one of them, or use `schedules patch`",
                status=CONFLICT,
            ) from error

    def _remember(self, mark: str) -> None:
        self._shown[mark] = self._desk.now()
        self._shown.move_to_end(mark)
        while len(self._shown) > VIEWS_MAX:
            self._shown.popitem(last=False)

    def _demand_seen(self, plan: SyncPlan, view: str) -> None:
        """Refuse what was not shown before, or so long ago that it is another world."""
        shown_at = self._shown.get(view)
        if shown_at is None or self._desk.now() - shown_at > VIEW_AGE_MAX:
            raise OperationRefused(
                "there is no dry run of the last 5 minutes for this: look at what would "
                "be done first",
                status=CONFLICT,
            )
        if view != plan.mark:
            raise OperationRefused(
                "schedules changed since the dry run: look at what would be done again",
                status=CONFLICT,
            )

    async def _post_all(
        self, vehicle_id: str, rows: Sequence[Json], plan: SyncPlan
    ) -> _Sent:
        """Post with the flag; after a lost answer look what became of it."""
        ops = self._desk.ops
        try:
            return _Sent(posted=await ops.post_schedules(vehicle_id, rows, replace=True))
        except CloudFault as fault:
            if not fault.retryable:
                raise
            lost = fault
        again = await self._planned(vehicle_id, rows)
        is_rest_done = not again.updated and not again.deleted
        if is_rest_done and all(self._is_out_of_sight(row) for row in again.created):
            removed = tuple(slot.schedule_id for slot in plan.deleted)
            ids = tuple(slot.schedule_id for slot in again.unchanged)
            return _Sent(posted=Posted(ids=ids, removed=removed), was_lost=True)
        if again.mark != plan.mark:
            raise OperationRefused(
                f"{lost}; it was taken in part, or somebody else wrote: look at a new dry "
                "run",
                status=502,
            )
        return _Sent(
            posted=await ops.post_schedules(vehicle_id, rows, replace=True), was_lost=True
        )

    async def patch(self, arguments: Arguments) -> Json:
        """Change schedules by id; skipped ones are named."""
        vehicle_id = text_of(arguments, "vehicle")
        try:
            rows = patched_schedules(arguments.get("schedules"), vehicle_id)
        except ValueError as error:
            raise OperationRefused(str(error)) from error
        if not rows:
            raise OperationRefused("the list of schedules is empty: nothing shall change")
        answer = await self._desk.ops.patch_schedules(vehicle_id, rows)
        asked = [str(row["id"]) for row in rows]
        log.info("schedules_written", vehicle_id=vehicle_id, ids=asked)
        self._desk.look_again()
        return {
            "success": answer.success,
            "message": answer.message,
            "skipped_schedule_ids": [*answer.skipped],
            "ids": [item for item in asked if item not in answer.skipped],
        }

    def _rows(
        self, arguments: Arguments, vehicle_id: str
    ) -> tuple[Sequence[Json], Sequence[str]]:
        try:
            return posted_schedules(
                arguments.get("schedules"),
                vehicle_id,
                self._desk.location_uid,
                with_plans=flag_of(arguments, "with_plans"),
            )
        except ValueError as error:
            raise OperationRefused(str(error)) from error


def _with_templates(own: SlotsRead, place: SlotsRead, vehicle_id: str) -> list[SlotRow]:
    """A vehicle's slots and its templates, wherever those were listed, each once."""
    templates = [slot for slot in place.recurring if slot.vehicle_id == vehicle_id]
    rows = [*own.slots, *own.recurring, *templates]
    return list({slot.schedule_id: slot for slot in rows}.values())


def _told(plan: SyncPlan, vehicle_id: str, notes: Sequence[str]) -> Json:
    if plan.templates:
        names = ", ".join(slot.schedule_id for slot in plan.templates)
        text = f"the recurring schedules {names} are not in the list: whether they stay "
        notes = [*notes, text + "is not documented"]
    return {
        "vehicle_id": vehicle_id,
        "view": plan.mark,
        "created": [*plan.created],
        "updated": [
            {"schedule": item.slot.row, "changes": _pairs(item.fields)}
            for item in plan.updated
        ],
        "unchanged": [slot.schedule_id for slot in plan.unchanged],
        "deleted": [slot.row for slot in plan.deleted],
        "notes": [*notes],
        "applied": False,
    }


def _pairs(fields: dict[str, tuple[object, object]]) -> Json:
    return {name: [old, new] for name, (old, new) in fields.items()}


def _has_departed(row: Json, now: datetime) -> bool:
    """Whether a dated slot is over: what a synchronisation does to it is not told."""
    at = read_time(row["plannedDepartureTime"])
    return at is not None and at <= now and not row.get("recurrenceRule")


def _refuse_equal_departures(rows: Sequence[Json]) -> None:
    """Two with one departure: which of them a known one is, is anybody's guess."""
    seen: set[datetime] = set()
    for row in rows:
        at = read_time(row["plannedDepartureTime"])
        if at is None or row.get("recurrenceRule"):
            continue
        if at in seen:
            raise OperationRefused(f"two schedules depart at {at.isoformat()}")
        seen.add(at)


def _by_arrival(slots: Sequence[SlotRow]) -> Sequence[SlotRow]:
    return sorted(
        slots, key=lambda slot: slot.arrives_at.isoformat() if slot.arrives_at else ""
    )
