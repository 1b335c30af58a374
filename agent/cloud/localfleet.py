"""Registry and schedules from files, as ChargEye would answer them: no cloud needed.

The files are JSON in ChargEye's own shapes and are read by the reader of its answers, so
that a copy of an answer is a good file. Comments are keys that begin with an underscore:
unknown keys are ignored, and the file stays plain JSON for every other tool. A file is
read again when it changes; one that is wrong is refused whole and the last good content
stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
import structlog

from agent.cloud import localcheck
from agent.cloud.chargeye_parse import read_schedules, read_vehicles
from agent.domain.effects import FleetReport
from agent.domain.errors import CloudFault, ConfigFault, ConfigProblem
from agent.domain.ids import VehicleId
from agent.ports import Fleet, RegistryRead, SchedulesRead

log = structlog.get_logger()

SOURCE, LOCAL = "_source", "local"
"""Key and value that mark a row's stored text as one of a file: its reports stay here."""
KEPT = "kept in the session's record: its schedule is from a local file"
TOLD_MAX = 5
"""Problems in one line of the log; check-config names all."""

T = TypeVar("T")
Stamp = tuple[int, int, int] | None


def is_local(schedule_text: str | None) -> bool:
    """Whether a schedule's stored text came from a file."""
    if not schedule_text or SOURCE not in schedule_text:
        return False
    row = orjson.loads(schedule_text)
    return isinstance(row, dict) and row.get(SOURCE) == LOCAL


class _Watched(Generic[T]):
    """One file: what was last good in it, and whether it changed since."""

    def __init__(self, path: str, read: Callable[[bytes], T], empty: T) -> None:
        self.path = path
        self._read = read
        self._stamp: Stamp = None
        self._good: T | None = None if path else empty
        self._doubt: ConfigFault | None = None
        self._is_told = True

    @property
    def is_good(self) -> bool:
        """Whether the file as it stands is in force."""
        return self._doubt is None and self._good is not None

    def refresh(self) -> bool:
        """Look at the file; whether other content is in force than before."""
        before = self._good
        if self.path:
            self._look()
        return self._good is not before

    def look(self) -> T:
        """The newest good content. Raises ConfigFault when there never was one."""
        if self.path:
            self._look()
        if self._good is None:
            raise self._doubt or ConfigFault([])
        return self._good

    def _look(self) -> None:
        stamp = _stamp(self.path)
        if stamp == self._stamp and self._doubt is None and self._good is not None:
            return
        if stamp == self._stamp and self._doubt is not None:
            # A file that is only half written is whole at the next look: told then.
            if not self._is_told:
                self._is_told = True
                log.error(
                    "local_file_refused",
                    file=self.path,
                    reason=[str(item) for item in self._doubt.faults[:TOLD_MAX]],
                    kept="the last good content" if self._good is not None else "nothing",
                )
            return
        self._stamp = stamp
        try:
            self._good = self._read(_content(self.path))
        except ConfigFault as fault:
            self._doubt, self._is_told = fault, False
            return
        self._doubt = None
        log.info("local_file_read", file=self.path)


class LocalFleet:
    """The Fleet port on two files; an empty name stands for an empty list."""

    def __init__(
        self, vehicles_file: str, schedules_file: str, *, location_uid: str = ""
    ) -> None:
        """Prepare; the files are read when they are asked for."""
        self._vehicles = _Watched(
            vehicles_file,
            lambda raw: _vehicles(raw, vehicles_file),
            RegistryRead(vehicles=[]),
        )
        self._schedules = _Watched(
            schedules_file,
            lambda raw: _schedules(raw, schedules_file, location_uid),
            SchedulesRead(schedules=[]),
        )

    @property
    def goodness(self) -> dict[str, bool]:
        """Per configured file, whether it is in force as it stands."""
        return {item.path: item.is_good for item in self._files if item.path}

    @property
    def _files(self) -> tuple[_Watched[RegistryRead], _Watched[SchedulesRead]]:
        return self._vehicles, self._schedules

    async def refresh(self) -> bool:
        """Look at both files; whether other content is in force than before."""

        def look() -> list[bool]:
            return [file.refresh() for file in self._files]

        return any(await asyncio.to_thread(look))

    async def vehicles(self) -> RegistryRead:
        """Read the registry; CloudFault when the file never was good."""
        return await _ask(self._vehicles)

    async def schedules(self) -> SchedulesRead:
        """Read the schedules; CloudFault when the file never was good."""
        return await _ask(self._schedules)

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        """Nothing: all there is stands in the list."""
        del vehicle_id
        return SchedulesRead(schedules=[])

    async def deliver(self, report: FleetReport, schedule_text: str | None) -> str:
        """Keep a report where it is: there is nobody to send it to."""
        del report, schedule_text
        return KEPT


class UnionFleet:
    """A cloud's fleet and, beside it, what only the files know.

    The cloud wins: on the same id of a vehicle or schedule, and on the same MAC. While
    the cloud is away, changes of the files wait with everything else.
    """

    def __init__(self, cloud: Fleet, local: LocalFleet) -> None:
        """Join the two."""
        self._cloud = cloud
        self._local = local
        self._only_local: frozenset[VehicleId] = frozenset()
        self._told: frozenset[str] = frozenset()

    async def vehicles(self) -> RegistryRead:
        """Read both registries. Raises CloudFault for the cloud's."""
        theirs = await self._cloud.vehicles()
        ours = await _or_nothing(self._local.vehicles(), RegistryRead(vehicles=[]))
        ids = {vehicle.vehicle_id for vehicle, _ in theirs.vehicles}
        macs = {mac: item.vehicle_id for item, _ in theirs.vehicles for mac in item.macs}
        more, problems = [], []
        for vehicle, text in ours.vehicles:
            if vehicle.vehicle_id in ids:
                continue
            held = next((macs[mac] for mac in vehicle.macs if mac in macs), None)
            if held is None:
                more.append((vehicle, text))
            else:
                problems.append(
                    f"{vehicle.vehicle_id} of the local file has the MAC address of "
                    f"{held} in the cloud: the local one is left out"
                )
        self._only_local = frozenset(vehicle.vehicle_id for vehicle, _ in more)
        news = [text for text in problems if text not in self._told]
        self._told = frozenset(problems)
        return RegistryRead(
            vehicles=[*theirs.vehicles, *more], problems=[*theirs.problems, *news]
        )

    async def schedules(self) -> SchedulesRead:
        """Read both lists of schedules. Raises CloudFault for the cloud's."""
        theirs = await self._cloud.schedules()
        ours = await _or_nothing(self._local.schedules(), SchedulesRead(schedules=[]))
        ids = {schedule.schedule_id for schedule, _ in theirs.schedules}
        more = [item for item in ours.schedules if item[0].schedule_id not in ids]
        return replace(theirs, schedules=[*theirs.schedules, *more])

    async def active_schedule(self, vehicle_id: VehicleId) -> SchedulesRead:
        """Ask the cloud, unless only a file knows the vehicle."""
        if vehicle_id in self._only_local:
            return SchedulesRead(schedules=[])
        return await self._cloud.active_schedule(vehicle_id)

    async def deliver(self, report: FleetReport, schedule_text: str | None) -> str:
        """Deliver to the cloud what is about its schedules, and only that."""
        whose = self._local if is_local(schedule_text) else self._cloud
        return await whose.deliver(report, schedule_text)


def check_files(vehicles_file: str, schedules_file: str, *, alone: bool) -> None:
    """Check both files, for ``check-config``. Raises ConfigFault with every problem.

    ``alone``: no cloud knows further vehicles, so each schedule must name one of these.
    """
    problems: list[ConfigProblem] = []
    rows: dict[str, list[Any]] = {"vehicles": [], "schedules": []}
    files = (("vehicles", vehicles_file), ("schedules", schedules_file))
    for what, path in files:
        try:
            rows[what] = _rows(_content(path), path, what) if path else []
        except ConfigFault as fault:
            problems += fault.faults
    if alone and not problems:
        ids = {(row.get("vehicle") or row)["id"] for row in rows["vehicles"]}
        for text in localcheck.unknown_vehicles(rows["schedules"], ids, schedules_file):
            key, _, problem = text.rpartition(": ")
            name, _, value = key.partition(" = ")
            problems.append(
                ConfigProblem(
                    key=name,
                    value=value,
                    problem=problem,
                    remedy=f"correct it, or add the vehicle to {vehicles_file or 'a file'}",
                )
            )
    if problems:
        raise ConfigFault(problems)


def _vehicles(raw: bytes, path: str) -> RegistryRead:
    rows = [
        {**row, SOURCE: LOCAL} if isinstance(row, dict) else row
        for row in _rows(raw, path, "vehicles")
    ]
    return _whole(read_vehicles({"vehicles": rows}), path)


def _schedules(raw: bytes, path: str, location_uid: str) -> SchedulesRead:
    rows = [{**row, SOURCE: LOCAL} for row in _rows(raw, path, "schedules")]
    return _whole(read_schedules(rows, location_uid), path)


Read = TypeVar("Read", RegistryRead, SchedulesRead)


def _whole(read: Read, path: str) -> Read:
    """Refuse what the reader still found odd: a person can correct it."""
    if read.problems:
        raise ConfigFault([_problem(path, text) for text in read.problems])
    return read


def _rows(raw: bytes, path: str, what: str) -> list[Any]:
    try:
        rows = localcheck.parse(raw, what)
    except ValueError as error:
        raise ConfigFault([_problem(path, str(error))]) from error
    check = {
        "vehicles": localcheck.check_vehicles,
        "schedules": localcheck.check_schedules,
    }[what]
    problems = check(rows, path)
    if problems:
        raise ConfigFault(problems)
    return rows


def _problem(path: str, text: str) -> ConfigProblem:
    remedy = "correct it; `depot-agent check-config` checks it"
    return ConfigProblem(key="[local] file", value=path, problem=text, remedy=remedy)


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(localcheck.FILE_BYTES_MAX + 1)
    except OSError as error:
        text = f"it cannot be read: {error.strerror}"
        raise ConfigFault([_problem(path, text)]) from error


def _stamp(path: str) -> Stamp:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _ask(watched: _Watched[T]) -> T:
    try:
        return await asyncio.to_thread(watched.look)
    except ConfigFault as fault:
        shown = "; ".join(str(item) for item in fault.faults[:TOLD_MAX])
        raise CloudFault(f"local: {shown}", retryable=True) from fault


async def _or_nothing(reading: Any, nothing: Read) -> Read:
    try:
        found: Read = await reading
    except CloudFault:
        return nothing  # the refusal of the file was told where it was read
    return found
