"""Reading and writing the variables of one 2.x station (B6, C7; CFG-09, CFG-11).

GetVariables and SetVariables are split into messages that the station takes. What could
not be read is not written, and only differences are written: fewer flash writes, fewer
reboots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import orjson
import structlog
from ocpp.v201 import enums
from ocpp.v201.enums import Action, ControllerComponentName

from agent.domain.capability import Capabilities, read_variables
from agent.ports import Priority
from agent.stations import schemas
from agent.stations.framing import Payload
from agent.stations.times import parse_int, parse_number
from agent.stations.v2_calls import Caller
from agent.stations.v2_inventory import (
    NAME_MAX,
    Inventory,
    Variable,
    VariableKey,
    read_results,
    read_statuses,
)

log = structlog.get_logger()

ITEMS_AT_ONCE = 30
"""Variables per message, even where the station would take more."""
FRAME_BYTES = 200
"""What a message needs besides its items."""
FAILURES_MAX = 3
"""Messages with one item that end in an error, in a row; then the rest is given up."""

GET_VARIABLES = str(Action.get_variables.value)
SET_VARIABLES = str(Action.set_variables.value)
SET_DONE = str(enums.SetVariableStatusEnumType.accepted.value)
SET_REBOOT = str(enums.SetVariableStatusEnumType.reboot_required.value)

_DEVICE = str(ControllerComponentName.device_data_ctrlr.value)
_SMART = str(ControllerComponentName.smart_charging_ctrlr.value)
_SAMPLED = str(ControllerComponentName.sampled_data_ctrlr.value)
_ALIGNED = str(ControllerComponentName.aligned_data_ctrlr.value)

READ_ITEMS = VariableKey(_DEVICE, "ItemsPerMessage", "GetVariables")
READ_BYTES = VariableKey(_DEVICE, "BytesPerMessage", "GetVariables")
WRITE_ITEMS = VariableKey(_DEVICE, "ItemsPerMessage", "SetVariables")
WRITE_BYTES = VariableKey(_DEVICE, "BytesPerMessage", "SetVariables")
ROOM_KEYS = (READ_ITEMS, READ_BYTES, WRITE_ITEMS, WRITE_BYTES)

PROFILE_ENTRIES = VariableKey(_SMART, "Entries", "ChargingProfiles")
CAPABILITY_KEYS = tuple(
    VariableKey(_SMART, name)
    for name in (
        "Available",
        "Enabled",
        "ProfileStackLevel",
        "RateUnit",
        "PeriodsPerSchedule",
    )
)
CAPABILITY_KEYS_21 = (
    *CAPABILITY_KEYS,
    VariableKey(_SMART, "MaxExternalConstraintsId"),
    VariableKey(_SMART, "ChargingProfilePersistence", "TxProfile"),
    *(
        VariableKey(_SMART, "SupportsFeature", name)
        for name in (
            "DynamicProfiles",
            "MaxOfflineDuration",
            "UseLocalTime",
            "RandomizedDelay",
            "LimitAtSoC",
            "EvseSleep",
        )
    ),
)
"""ocpp-depot.md B3 and B6."""

ENERGY, SOC = "Energy.Active.Import.Register", "SoC"
TX_STARTED = VariableKey(_SAMPLED, "TxStartedMeasurands")
TX_UPDATED = VariableKey(_SAMPLED, "TxUpdatedMeasurands")
TX_ENDED = VariableKey(_SAMPLED, "TxEndedMeasurands")
ALIGNED = VariableKey(_ALIGNED, "Measurands")
MEASURAND_KEYS = (TX_UPDATED, TX_STARTED, TX_ENDED, ALIGNED)

_SETTING = re.compile(r"([^.\[\]]+)\.([^\[\]]+)(?:\[([^\[\]]+)\])?")

IsCurrent = Callable[[], bool]
"""Whether the work is still wanted; False after a new boot."""


def read_setting(name: str) -> VariableKey | None:
    """Read ``Component.Variable`` or ``Component.Variable[Instance]``, or None."""
    match = _SETTING.fullmatch(name.strip())
    if match is None:
        return None
    component, variable, instance = ((part or "").strip() for part in match.groups())
    longest = max(len(component), len(variable), len(instance))
    if not component or not variable or longest > NAME_MAX:
        return None
    return VariableKey(component, variable, instance)


@dataclass(frozen=True, slots=True)
class _Item:
    """A variable in a message, as OCPP writes it."""

    key: VariableKey
    payload: Payload
    value: str = ""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """How one of the two messages with many variables is split."""

    action: str
    name: str
    priority: Priority
    items_max: int
    bytes_max: int | None = None

    def allow(self, items: int | None, room: int | None) -> None:
        """Take over what the station says it takes, within reason."""
        if items is not None and items > 0:
            self.items_max = min(items, ITEMS_AT_ONCE)
        self.bytes_max = room

    def first(self, todo: list[_Item]) -> list[_Item]:
        """The items that fit into the next message, at least one."""
        chunk, size = todo[:1], FRAME_BYTES + _size(todo[0])
        for item in todo[1 : self.items_max]:
            size += _size(item)
            if self.bytes_max is not None and size > self.bytes_max:
                break
            chunk.append(item)
        return chunk


def _reads() -> _Batch:
    return _Batch(
        action=GET_VARIABLES,
        name="getVariableData",
        priority=Priority.READ,
        items_max=ITEMS_AT_ONCE,
    )


def _writes() -> _Batch:
    """Until it says more, a station gets one setting at a time (C7)."""
    return _Batch(
        action=SET_VARIABLES,
        name="setVariableData",
        priority=Priority.SETUP,
        items_max=1,
    )


@dataclass(slots=True)
class Variables:
    """The variables of one station, read and written over one link."""

    caller: Caller
    inventory: Inventory = field(default_factory=Inventory)
    _reading: _Batch = field(default_factory=_reads)
    _writing: _Batch = field(default_factory=_writes)

    # --- reading ----------------------------------------------------------------------

    async def read_capabilities(self, is_current: IsCurrent) -> None:
        """Read how much the station takes at once, then what it can do (B6)."""
        if not await self._read(ROOM_KEYS, is_current):
            return
        self._reading.allow(self._number(READ_ITEMS), self._number(READ_BYTES))
        self._writing.allow(self._number(WRITE_ITEMS), self._number(WRITE_BYTES))
        is_21 = self.caller.version == schemas.V21
        await self._read(CAPABILITY_KEYS_21 if is_21 else CAPABILITY_KEYS, is_current)

    async def read_settings(self, settings: Iterable[str], is_current: IsCurrent) -> None:
        """Read the present values of settings and of the lists of measurands."""
        wished = (read_setting(name) for name in settings)
        keys = [*MEASURAND_KEYS, *(key for key in wished if key is not None)]
        await self._read(dict.fromkeys(keys), is_current)

    def said(self, outlets: Iterable[tuple[int, int]]) -> Capabilities:
        """What the station said that it can do, so far.

        ``outlets`` have reported a status, so they exist: inventories can lack them
        (CFG-14).
        """
        inventory = self.inventory
        told = any(inventory.get(key) is not None for key in CAPABILITY_KEYS_21)
        if not told and not inventory.is_complete:
            # Only an answer about smart charging may replace earlier knowledge (V2-05).
            return Capabilities()
        entries = inventory.get(PROFILE_ENTRIES)
        evses = {evse for evse, _ in [*inventory.outlets(), *outlets] if evse > 0}
        return read_variables(
            inventory.texts(),
            evses=len(evses) or None,
            profiles_max=None if entries is None else parse_int(entries.max_limit),
        )

    async def _read(self, keys: Iterable[VariableKey], is_current: IsCurrent) -> bool:
        """Read variables; False when the station does not answer such calls."""

        def learn(payload: Payload) -> set[VariableKey]:
            found = list(read_results(payload))
            self.inventory.add(found)
            return {item.key for item in found}

        items = [_Item(key, key.payload) for key in keys]
        _, answers = await self._in_chunks(self._reading, items, is_current, learn)
        return answers

    def _number(self, key: VariableKey) -> int | None:
        return parse_int(self.inventory.value(key))

    # --- writing ----------------------------------------------------------------------

    async def write_differences(
        self, settings: Mapping[str, str], is_current: IsCurrent
    ) -> None:
        """Write the settings that differ from what was read."""
        items: list[_Item] = []
        for name, wanted in settings.items():
            key = read_setting(name)
            if key is None:
                self._refused(name, "not a name of a variable")
                continue
            known = self.inventory.get(key)
            # What could not be read is not written either: it may well be so already.
            if known is None or not known.is_writable or _is_same(known.value, wanted):
                continue
            item = _setting(key, wanted)
            found = schemas.breach(self.caller.version, SET_VARIABLES, _alone(item))
            if found is None:
                items.append(item)
            else:
                self._refused(name, found.text)
        await self._write(items, is_current)

    async def extend_measurands(
        self, measurands: tuple[str, ...], is_current: IsCurrent
    ) -> None:
        """Extend the lists of measurands, one at a time, never narrowing (CFG-11, C7)."""
        few = tuple(item for item in (ENERGY, SOC) if item in measurands)
        lists = {
            TX_UPDATED: measurands,
            TX_STARTED: few,
            TX_ENDED: few,
            ALIGNED: (ENERGY,),
        }
        for key, wanted in lists.items():
            known = self.inventory.get(key)
            # A list that could not be read is left alone: a new one might be shorter.
            if known is None or not known.is_writable or known.value is None:
                continue
            if not await self._extend(known, known.value, wanted, is_current):
                return

    async def _extend(
        self, known: Variable, value: str, wanted: Iterable[str], is_current: IsCurrent
    ) -> bool:
        kept = _list(value)
        offered = {item.lower() for item in _list(known.values_list)}
        for measurand in wanted:
            is_offered = not offered or measurand.lower() in offered
            if not is_offered or measurand.lower() in {item.lower() for item in kept}:
                continue
            item = _setting(known.key, ",".join([*kept, measurand]))
            if not self._fits(item, known):
                self._refused(f"{known.key.text} {measurand}", "the list is full")
                continue
            answers, done = await self._write([item], is_current, note=measurand)
            if not answers:
                return False
            kept = [*kept, measurand] if done else kept
        return True

    def _fits(self, item: _Item, known: Variable) -> bool:
        """Whether a list is short enough; maxLimit is the greatest length of a text."""
        if known.max_limit is not None and len(item.value) > known.max_limit:
            return False
        return schemas.breach(self.caller.version, SET_VARIABLES, _alone(item)) is None

    async def _write(
        self, items: list[_Item], is_current: IsCurrent, note: str = ""
    ) -> tuple[bool, bool]:
        """Write variables; whether the station answers, and whether it took any."""
        wanted = {item.key: item for item in items}
        done: set[VariableKey] = set()

        def learn(payload: Payload) -> set[VariableKey]:
            statuses = read_statuses(payload)
            for key, status in statuses.items():
                if key not in wanted:
                    continue
                name = wanted[key].key.text
                if status == SET_REBOOT:
                    log.info("reboot_required", station_id=self._station_id, key=name)
                if status in (SET_DONE, SET_REBOOT):
                    done.add(key)
                    self.inventory.add([Variable(key=key, value=wanted[key].value)])
                else:
                    self._refused(f"{name} {note}".strip(), status)
            return set(statuses)

        lost, answers = await self._in_chunks(self._writing, items, is_current, learn)
        for item, reason in lost:
            self._refused(f"{item.key.text} {note}".strip(), reason)
        return answers, bool(done)

    @property
    def _station_id(self) -> str:
        return self.caller.station_id

    def _refused(self, key: str, reason: str) -> None:
        log.info("setting_refused", station_id=self._station_id, key=key, reason=reason)

    # --- both -------------------------------------------------------------------------

    async def _in_chunks(
        self,
        batch: _Batch,
        items: list[_Item],
        is_current: IsCurrent,
        learn: Callable[[Payload], set[VariableKey]],
    ) -> tuple[list[tuple[_Item, str]], bool]:
        """Send items in messages that the station takes, smaller ones after an error.

        Returns the items that it said nothing of, with the reason, and whether it still
        answers such messages. ``learn`` returns the names that an answer is about.
        """
        todo, lost, failures = items, list[tuple[_Item, str]](), 0
        while todo and is_current():
            chunk = batch.first(todo)
            payload = {batch.name: [item.payload for item in chunk]}
            outcome = await self.caller.call(batch.action, payload, batch.priority)
            if outcome.payload is not None:
                failures = 0
                told = learn(outcome.payload)
                rest = [item for item in chunk if item.key not in told]
                todo = todo[len(chunk) :]
                if len(rest) < len(chunk):
                    todo = [*rest, *todo]  # it answered as many as it could
                else:
                    lost += [(item, "no result") for item in rest]
            elif not self.caller.answers(batch.action, outcome):
                return lost, False
            elif len(chunk) > 1:
                batch.items_max = len(chunk) // 2
            else:
                failures += 1
                lost.append((todo[0], outcome.code))
                todo = todo[1:] if failures < FAILURES_MAX else []
        return lost, is_current()


def _size(item: _Item) -> int:
    return len(orjson.dumps(item.payload)) + 1


def _setting(key: VariableKey, value: str) -> _Item:
    return _Item(key, {**key.payload, "attributeValue": value}, value)


def _alone(item: _Item) -> Payload:
    return {"setVariableData": [item.payload]}


def _list(text: str) -> list[str]:
    """The items of a list, without the brackets and quotes of CFG-04."""
    items = (item.strip(" \"'[]") for item in text.split(","))
    return [item for item in items if item]


def _is_same(have: str | None, wanted: str) -> bool:
    if have is None:
        return False
    one, other = have.strip().lower(), wanted.strip().lower()
    number = parse_number(one)
    return one == other or (number is not None and number == parse_number(other))
