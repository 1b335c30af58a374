"""Round trips per CPU second of a central system: the usual way against depot-agent.

Both servers run at once, pinned to one core; the load is this process on another core.
Phases alternate between the servers, so that both see the same noise. What counts is the
CPU time of the server's process, all threads, user and system. Ours commits every
message with meter values to disk before it answers, and the rows are counted at the end;
the usual way stores nothing. ``meter_values`` and ``transaction_event`` are the commands.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import uvloop

from bench.stations import Fleet, Station, station_id, until

ROOT = Path(__file__).resolve().parent.parent
USUAL, OURS = "usual way", "depot-agent"
WARM_UP_S = 1.0
START_WITHIN_S = 30.0
READY_WITHIN_S = 90.0
"""The daemon configures eight stations at a time, each with pauses for real firmware."""
QUIET_S = 1.0
STOP_WITHIN_S = 40.0
TICKS = os.sysconf("SC_CLK_TCK")
DISTURBED_CPUS = 0.1
"""Above, a run tells more about its neighbours than about the servers."""

CONFIG = """
[site]
name = "bench"
cap_kw = 100000.0
[ocpp]
host = "127.0.0.1"
port = 0
station_messages_per_s = 0
[store]
path = "{folder}/agent.db"
[web]
port = 0
"""
STATION = """
[[stations]]
id = "{name}"
security_profile = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is compared: one version's stations, and how the usual way serves them.

    ``rows_sql`` counts the messages with meter values that the daemon has stored.
    """

    stations: type[Station]
    usual_way: str
    rows_sql: str

    @property
    def actions(self) -> tuple[str, str]:
        """What is measured: the message with meter values first."""
        return self.stations.measured, "Heartbeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one phase measured; ``others`` are CPUs that the rest of the machine took."""

    round_trips: int
    cpu_s: float
    wall_s: float
    p50_ms: float
    p99_ms: float
    others: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server per round trip."""
        return self.cpu_s * 1e6 / self.round_trips


@dataclass(slots=True)
class Server:
    """A running server with its stations."""

    process: subprocess.Popen[bytes]
    port: int
    fleet: Fleet


class BenchError(Exception):
    """The run is worth nothing; the message says why."""


# --- servers ------------------------------------------------------------------------


@contextmanager
def usual_way(contest: Contest, folder: Path, core: int) -> Iterator[Server]:
    """Run the usual central system."""
    output = folder / "usual.log"
    with _child([str(ROOT / "bench" / contest.usual_way)], output, core) as process:
        port = int(_first_line(output, process, ""))
        yield Server(process, port, Fleet(contest.stations))


@contextmanager
def depot_agent(
    contest: Contest, folder: Path, core: int, stations: int
) -> Iterator[Server]:
    """Run the daemon with a new database."""
    config = folder / "agent.toml"
    blocks = (STATION.format(name=station_id(number)) for number in range(stations))
    config.write_text(CONFIG.format(folder=folder) + "".join(blocks))
    output = folder / "agent.log"
    command = ["-m", "agent", "run", "--config", str(config)]
    with _child(command, output, core) as process:
        ready = json.loads(_first_line(output, process, '"agent_ready"'))
        yield Server(process, int(ready["ocpp_port"]), Fleet(contest.stations))


@contextmanager
def _child(
    arguments: list[str], output: Path, core: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Python program pinned to a core; end it when done."""
    command = [sys.executable, *arguments]
    mine = os.sched_getaffinity(0)
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("DEPOT_AGENT")
    }
    environment["PYTHONPATH"] = str(ROOT)
    os.sched_setaffinity(0, {core})  # inherited by all threads of the child
    try:
        with output.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment
            )
    finally:
        os.sched_setaffinity(0, mine)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _first_line(output: Path, process: subprocess.Popen[bytes], word: str) -> str:
    """Wait for the first whole line that holds a word."""
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        for line in output.read_text().splitlines(keepends=True):
            if word in line and line.endswith("\n"):
                return line
        time.sleep(0.05)
    raise BenchError(f"the server did not start:\n{output.read_text()[-2000:]}")


def _configured(log: Path) -> int:
    """Count the stations that the daemon has set up."""
    return log.read_text().count('"station_configured"')


# --- phases -------------------------------------------------------------------------


async def measure(server: Server, action: str, seconds: float) -> Phase:
    """Run one phase: warm up, count, let the last answers come."""
    tally = server.fleet.tally
    server.fleet.pump(action)
    await asyncio.sleep(WARM_UP_S)
    tally.latencies_s = []
    began, cpu, count = time.perf_counter(), _cpu_s(server.process.pid), tally.answered
    load_s, busy_s = time.process_time(), _busy_s()
    await asyncio.sleep(seconds)
    cpu, count = _cpu_s(server.process.pid) - cpu, tally.answered - count
    load_s, busy_s = time.process_time() - load_s, _busy_s() - busy_s
    wall_s = time.perf_counter() - began
    latencies = sorted(tally.latencies_s)
    server.fleet.pump(None)
    await server.fleet.wait_idle(10.0)
    if not count or tally.errors:
        raise BenchError(f"{action}: {count} answers, {tally.errors} errors")
    return Phase(
        round_trips=count,
        cpu_s=cpu,
        wall_s=wall_s,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        others=max((busy_s - load_s - cpu) / wall_s, 0.0),
    )


def _cpu_s(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _busy_s() -> float:
    """CPU time of the whole machine; what a host above it took counts as well."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


async def run_phases(
    contest: Contest, servers: dict[str, Server], options: argparse.Namespace, log: Path
) -> dict[str, dict[str, list[Phase]]]:
    """Set all up, wait until it is quiet, then measure in turns."""
    say(f"{options.stations} stations boot and start charging ...")
    for server in servers.values():
        await server.fleet.plug_in(server.port, options.stations)
    if OURS in servers:
        await until(lambda: _configured(log) >= options.stations, READY_WITHIN_S)
    for server in servers.values():
        await server.fleet.wait_quiet(QUIET_S, READY_WITHIN_S)
    found: dict[str, dict[str, list[Phase]]] = {
        action: {name: [] for name in servers} for action in contest.actions
    }
    for number in range(options.rounds):
        for action in contest.actions:
            for name, server in servers.items():
                phase = await measure(server, action, options.seconds)
                found[action][name].append(phase)
                say(
                    f"round {number + 1}: {action} {name}: {phase.cpu_us:.1f} us CPU, "
                    f"{phase.round_trips / phase.wall_s:.0f}/s, "
                    f"others {phase.others:.2f} CPUs"
                )
    for server in servers.values():
        server.fleet.close()
    return found


def verify_stored(contest: Contest, folder: Path, acknowledged: int) -> int:
    """Count the rows in a copy of the stopped daemon's database."""
    copy = folder / "copy"
    copy.mkdir()
    for file in folder.glob("agent.db*"):
        if file.is_file():
            shutil.copy(file, copy)
    db = sqlite3.connect(copy / "agent.db")
    try:
        rows = int(db.execute(contest.rows_sql).fetchone()[0])
    finally:
        db.close()
    if rows != acknowledged:
        action = contest.stations.measured
        raise BenchError(f"{acknowledged} {action} acknowledged, {rows} stored")
    return rows


# --- report -------------------------------------------------------------------------

Summary = dict[str, dict[str, dict[str, float]]]


def summarise(found: dict[str, dict[str, list[Phase]]]) -> Summary:
    """Take the medians; where both servers ran, that of the rounds' ratios as well.

    What a neighbour takes from the caches for some seconds falls on one round, not on
    one of the two servers.
    """
    summary: Summary = {}
    for action, servers in found.items():
        rows = summary.setdefault(action, {})
        for name, phases in servers.items():
            cpu_us = statistics.median(phase.cpu_us for phase in phases)
            rates = [phase.round_trips / phase.wall_s for phase in phases]
            rows[name] = {
                "round_trips_per_cpu_s": 1e6 / cpu_us,
                "cpu_us_per_round_trip": cpu_us,
                "p50_ms": statistics.median(phase.p50_ms for phase in phases),
                "p99_ms": statistics.median(phase.p99_ms for phase in phases),
                "round_trips_per_s": statistics.median(rates),
                "others_cpus": statistics.median(phase.others for phase in phases),
            }
        if len(rows) > 1:
            pairs = zip(servers[USUAL], servers[OURS], strict=True)
            ratio = statistics.median(usual.cpu_us / ours.cpu_us for usual, ours in pairs)
            rows["ratio"] = {"round_trips_per_cpu_s": ratio}
    return summary


def print_table(summary: Summary) -> None:
    """Print the medians for people."""
    print(f"{'':30}{'per CPU s':>12}{'CPU us':>10}{'p50 ms':>9}{'p99 ms':>9}")
    for action, rows in summary.items():
        for name, row in rows.items():
            if name == "ratio":
                print(f"{action + ' ratio':30}{row['round_trips_per_cpu_s']:12.1f}")
                continue
            print(
                f"{action + ' ' + name:30}{row['round_trips_per_cpu_s']:12.0f}"
                f"{row['cpu_us_per_round_trip']:10.1f}{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}"
            )


def warn_if_disturbed(summary: Summary) -> None:
    """Say when the figures are worth little: caches and cores were shared."""
    shares = [
        row["others_cpus"]
        for rows in summary.values()
        for name, row in rows.items()
        if name != "ratio"
    ]
    most = max(shares, default=0.0)
    if most > DISTURBED_CPUS:
        say(f"disturbed: others took up to {most:.2f} CPUs; repeat when it is quiet")


def say(text: str, stream: TextIO = sys.stderr) -> None:
    """Tell the progress, apart from the result."""
    print(text, file=stream, flush=True)


# --- command ------------------------------------------------------------------------


def _options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--stations", type=int, default=50, help="stations per server")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a phase")
    parser.add_argument("--rounds", type=int, default=7, help="repeats of each phase")
    parser.add_argument("--only", choices=("usual", "ours"), help="run one server alone")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a real disk")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--check", type=float, metavar="RATIO", help="exit 1 below this")
    return parser.parse_args()


def run(contest: Contest, options: argparse.Namespace, folder: Path) -> Summary:
    """Run both servers and all phases; returns the medians."""
    server_core, load_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {load_core})
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        if options.only != "ours":
            servers[USUAL] = stack.enter_context(usual_way(contest, folder, server_core))
        if options.only != "usual":
            ours = depot_agent(contest, folder, server_core, options.stations)
            servers[OURS] = stack.enter_context(ours)
        log = folder / "agent.log"
        try:
            found = runner.run(run_phases(contest, servers, options, log))
        except ExceptionGroup as group:
            tail = log.read_text()[-2000:] if OURS in servers else ""
            raise BenchError(f"{group.exceptions[0]}\n{tail}") from group
    if OURS in servers:
        rows = verify_stored(contest, folder, servers[OURS].fleet.tally.stored)
        say(f"{rows} {contest.stations.measured} acknowledged, all of them stored")
    return summarise(found)


def main(contest: Contest) -> int:
    """Run a benchmark; returns the exit code."""
    action = contest.stations.measured
    options = _options(f"{action} and Heartbeat: {__doc__}".split("\n", maxsplit=1)[0])
    if len(os.sched_getaffinity(0)) < 2:
        say("two cores are needed: one for the servers, one for the load")
        return 1
    with tempfile.TemporaryDirectory(prefix="depot-bench-", dir=options.folder) as name:
        try:
            summary = run(contest, options, Path(name))
        except (BenchError, TimeoutError) as error:
            say(f"failed: {type(error).__name__} {error}")
            return 1
    warn_if_disturbed(summary)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print_table(summary)
    if options.check is None:
        return 0
    ratio = summary[action].get("ratio", {}).get("round_trips_per_cpu_s", 0.0)
    say(f"{action} ratio {ratio:.1f}, wanted {options.check:.1f}")
    return 0 if ratio >= options.check else 1
