"""The `simulate` command: virtual stations and vehicles against any central system.

Prints nothing; lines go to a callback and the table to the caller.
"""

from __future__ import annotations

import difflib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.simulator.clock import ScaledClock, utc_start
from agent.simulator.depot import MIX, make_night
from agent.simulator.faults import check_faults
from agent.simulator.night import Night, NightOptions
from agent.simulator.scenario_file import forced_to, load_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from agent.simulator.core import LedgerEntry
    from agent.simulator.depot import DepotScenario
    from agent.simulator.night import VisitOutcome

VERSIONS = {"1.6": ("1.6",), "2.0.1": ("2.0.1",), "2.1": ("2.1",), "mix": MIX}
"""What a version asked for by name means: the versions of the stations in turn."""
EXIT_OK = 0
EXIT_NO_LINK = 1
EXIT_UNSERVED = 2
EVENTS = (  # what deserves a line; meter values and heartbeats do not
    "BootNotification",
    "Authorize",
    "StartTransaction",
    "StopTransaction",
    "TransactionEvent",
    "NotifyEVChargingNeeds",
    "NotifyEVChargingSchedule",
    "StatusNotification",
    "SetChargingProfile",
    "ClearChargingProfile",
    "RemoteStartTransaction",
    "RemoteStopTransaction",
    "RequestStartTransaction",
    "RequestStopTransaction",
    "Reset",
    "ChangeConfiguration",
    "SetVariables",
    "DataTransfer",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """What `depot-agent simulate` was asked for; `minutes` are simulated.

    `faults` are names or ids, of all stations or, as STATION=NAME, of one.
    `ca` is whom the stations trust (wss only); `cert` and `key` are their own certificate,
    with `{id}` in the paths where each has its own.

    With a `scenario` file its stations, vehicles and minutes count; `version` (a name of
    VERSIONS) and `id_form` then take the place of what it says if they are given.
    """

    url: str
    stations: int = 8
    vehicles: int = 14
    speed: float = 60.0
    minutes: float = 600.0
    password: str | None = None
    ca: Path | None = None
    cert: str | None = None
    key: str | None = None
    faults: tuple[str, ...] = ()
    seed: int = 1
    station_prefix: str = "CP"
    id_form: str | None = None
    version: str | None = None
    scenario: Path | None = None
    flush_timeout_real_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateResult:
    """The end of a simulation: exit code, visits, and stations that never got in."""

    exit_code: int
    visits: tuple[VisitOutcome, ...]
    stations_never_online: tuple[str, ...]
    messages_unanswered: int


TABLE_HEAD = (
    "vehicle",
    "MAC",
    "outlet",
    "SoC from %",
    "SoC to %",
    "target %",
    "kWh",
    "peak kW",
    "on time",
)


async def simulate(
    options: SimulateOptions, on_line: Callable[[str], None] = lambda _: None
) -> SimulateResult:
    """Live a night of `minutes` at `speed`; each event of note is told to `on_line`."""
    start = utc_start()
    scenario = scenario_of(options, start)
    ids = [each.station_id for each in scenario.stations]
    met: set[str] = set()

    def listen(station_id: str, entry: LedgerEntry) -> None:
        if entry.kind == "CALLRESULT" and entry.direction == "in":
            met.add(station_id)
        line = describe(station_id, entry)
        if line is not None:
            on_line(line)

    night = Night(
        scenario,
        ScaledClock(start, options.speed),
        options.url,
        NightOptions(
            password=options.password,
            ssl_contexts=tls_contexts(options, ids),
            faults=faults_of(options, ids),
            seed=options.seed,
            id_forms=dict.fromkeys(ids, options.id_form) if options.id_form else {},
            flush_timeout_real_s=options.flush_timeout_real_s,
            listener=listen,
        ),
    )
    await night.run()
    return _result(night, [each for each in ids if each not in met])


def faults_of(
    options: SimulateOptions, station_ids: Iterable[str]
) -> dict[str, frozenset[str]]:
    """Share the faults out among the stations; raise ValueError for what is unknown."""
    ids = list(station_ids)
    found: dict[str, set[str]] = {each: set() for each in ids}
    for text in options.faults:
        station_id, is_one, name = text.rpartition("=")
        checked = check_faults((name,))
        if is_one and station_id not in found:
            near = difflib.get_close_matches(station_id, ids, n=1, cutoff=0.0)
            raise ValueError(f"no station is called {station_id!r}; is it {near[0]!r}?")
        for each in [station_id] if is_one else ids:
            found[each] |= checked
    return {each: frozenset(names) for each, names in found.items()}


def scenario_of(options: SimulateOptions, start: datetime) -> DepotScenario:
    """Read the scenario that was asked for, or invent one; raise ValueError, OSError."""
    if options.version is not None and options.version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise ValueError(f"version {options.version!r} is not one of {known}")
    if options.scenario is None:
        return make_night(
            options.seed,
            start,
            hours=options.minutes / 60,
            stations=options.stations,
            vehicles=options.vehicles,
            station_prefix=options.station_prefix,
            versions=VERSIONS[options.version or "1.6"],
        )
    scenario = load_scenario(options.scenario, start)
    if options.version is None:
        return scenario
    return forced_to(scenario, *VERSIONS[options.version])


def tls_contexts(
    options: SimulateOptions, station_ids: Iterable[str]
) -> dict[str, ssl.SSLContext]:
    """Make each station's TLS; raise ValueError for files that cannot be used."""
    is_tls = options.url.startswith("wss://")
    if not is_tls and (options.ca or options.cert or options.key):
        raise ValueError("--ca, --cert and --key are for wss:// addresses")
    if bool(options.cert) != bool(options.key):
        raise ValueError("--cert and --key come together or not at all")
    found: dict[str, ssl.SSLContext] = {}
    for station_id in station_ids if is_tls else ():
        context = ssl.create_default_context(cafile=_text(options.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.cert and options.key:
            pair = [
                each.replace("{id}", station_id) for each in (options.cert, options.key)
            ]
            try:
                context.load_cert_chain(*pair)
            except OSError as error:
                raise ValueError(f"{pair[0]}, {pair[1]}: {error}") from error
        found[station_id] = context
    return found


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def describe(station_id: str, entry: LedgerEntry) -> str | None:
    """Put an event into a line; None if it is not worth one."""
    is_frame = entry.kind in ("CALL", "CALLRESULT")
    if is_frame and (entry.action not in EVENTS or entry.kind == "CALLRESULT"):
        return None
    arrow = {"in": "<-", "out": "->"}.get(entry.direction, "  ")
    text = "" if entry.payload is None else f" {entry.payload}"
    kind = "" if is_frame else f"{entry.kind} "
    line = f"{entry.time:%H:%M:%S} {station_id} {arrow} {kind}{entry.action}{text}"
    return "".join(each if each.isprintable() else " " for each in line)


def table(result: SimulateResult) -> list[tuple[str, ...]]:
    """Give the rows under TABLE_HEAD, one per visit."""
    return [
        (
            each.vehicle.name,
            each.vehicle.mac,
            f"{each.station_id}/{each.connector}",
            f"{each.soc_start:.1f}",
            f"{each.soc_end:.1f}",
            f"{each.vehicle.soc_target:.0f}",
            f"{each.energy_wh / 1000:.1f}",
            f"{each.peak_w / 1000:.1f}",
            "yes" if each.met_target else "no",
        )
        for each in result.visits
    ]


def _result(night: Night, never_online: list[str]) -> SimulateResult:
    owed = sum(station.owed for station in night.stations.values())
    has_energy = any(each.energy_wh > 0 for each in night.outcomes)
    exit_code = EXIT_OK
    if never_online:
        exit_code = EXIT_NO_LINK
    elif owed or not has_energy:
        exit_code = EXIT_UNSERVED
    return SimulateResult(
        exit_code=exit_code,
        visits=tuple(night.outcomes),
        stations_never_online=tuple(never_online),
        messages_unanswered=owed,
    )
