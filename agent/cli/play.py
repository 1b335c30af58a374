"""Commands that need no depot: demo, simulate, standin."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.cli.base import FAILED, app, err, out
from agent.demo import EVENING, DemoOptions, DemoResult, Stage, run_demo
from agent.host import logs
from agent.host.clock import SystemClock
from agent.simulator.command import (
    TABLE_HEAD,
    VERSIONS,
    SimulateOptions,
    faults_of,
    scenario_of,
    table,
    tls_contexts,
)
from agent.simulator.command import simulate as simulate_night
from agent.simulator.depot import make_night
from agent.simulator.faults import LIST_HEAD, fault_rows
from agent.standin.command import PORT, SMARTCAR_PORT
from agent.standin.command import standin as serve_standin
from agent.web.report import Report, VehicleLine, render_report

LOOK_EVERY_S = 0.5
LINE_EVERY_S = 10.0
SPEED_MAX = 1000.0


@app.command()
def demo(
    stations: Annotated[int, typer.Option(min=1, max=60, help="Virtual stations.")] = 8,
    minutes: Annotated[
        float, typer.Option(min=0.2, max=600, help="Real minutes that the night lasts.")
    ] = 2.0,
    speed: Annotated[
        float, typer.Option(min=1, max=SPEED_MAX, help="Simulated per real second.")
    ] = 300.0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="OCPP port on loopback; 0: any.")
    ] = 0,
    web_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Status page on loopback; 0: any.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Another seed, another night.")] = 1,
    version: Annotated[
        str, typer.Option(help="OCPP of the stations: 1.6, 2.0.1, 2.1, or mix.")
    ] = "mix",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="Fault by name or id, of all or of one: CP-03=PRF-14; repeatable. "
            "`simulate --list-faults` tells them."
        ),
    ] = None,
    report: Annotated[Path, typer.Option(help="Folder of the report and the log.")] = Path(
        "demo-report"
    ),
) -> None:
    """A whole depot on loopback: real daemon, stand-in clouds, virtual stations.

    One night, compressed; exit 0 only if every plan was kept and the cap never passed.

    Example: `depot-agent demo --stations 8 --minutes 2 --speed 300`
    """
    if version not in VERSIONS:
        raise typer.BadParameter(f"--version is one of {', '.join(VERSIONS)}")
    options = DemoOptions(
        stations=stations,
        minutes=minutes,
        speed=speed,
        port=port,
        web_port=web_port,
        seed=seed,
        versions=VERSIONS[version],
        faults=_demo_faults(fault or [], stations, seed),
    )
    report.mkdir(parents=True, exist_ok=True)
    log_path = report / "agent.log"
    with log_path.open("w", encoding="utf-8") as stream:
        logs.set_up(level="info", style="json", stream=stream)
        out.print(
            f"A night of {minutes * speed / 60:.1f} h at {speed:.0f} times its speed: "
            f"{stations} stations, {minutes:.1f} minutes. The agent's log: {log_path}"
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_demo(options, log_path))
    _print_result(result)
    page = report / "report.html"
    page.write_text(render_report(_report(result)), encoding="utf-8")
    out.print(f"Report: {page.absolute()}")
    raise typer.Exit(0 if result.is_good else FAILED)


async def _demo(options: DemoOptions, log_path: Path) -> DemoResult:
    if not out.is_terminal:
        return await run_demo(options, _Lines(out), log_path)
    with Live(console=out, refresh_per_second=4, transient=True) as live:
        return await run_demo(options, _LiveView(live), log_path)


class _Lines:
    """Progress for a log file: a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, stage: Stage) -> None:
        now = time.monotonic()
        if not self._next:
            self._console.print(f"Status page: {_page(stage)}")
        if now >= self._next:
            self._next = now + LINE_EVERY_S
            charging = sum(
                outlet.power_w > 0
                for station in stage.night.stations.values()
                for outlet in station.outlets.values()
            )
            self._console.print(
                f"{stage.clock.now():%H:%M} {stage.grid_w() / 1000:6.0f} of "
                f"{stage.cap_w / 1000:.0f} kW, {charging} vehicles charging"
            )


def _page(stage: Stage) -> str:
    return f"http://127.0.0.1:{stage.daemon.web_port}/"


class _LiveView:
    """The depot as a table that moves."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._next = 0.0

    def __call__(self, stage: Stage) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_EVERY_S
        grid_w = stage.grid_w()
        passed = (stage.clock.now() - EVENING) / (stage.scenario.end - EVENING)
        cap, peak = stage.cap_w / 1000, stage.peak[1] / 1000
        head = Text(
            f"{stage.clock.now():%H:%M}   {grid_w / 1000:.0f} of {cap:.0f} kW "
            f"(largest {peak:.0f} kW)   status page: {_page(stage)}"
        )
        rows = Table(box=None, header_style="bold")
        for name in ("vehicle", "outlet", "SoC", "drawn", "planned"):
            rows.add_column(name)
        for visit in stage.visits.values():
            if visit.drawn and visit.drawn[-1][0] == stage.total[-1][0]:
                vehicle = visit.vehicle
                rows.add_row(
                    vehicle.name,
                    f"{vehicle.station_id}/{vehicle.connector}",
                    f"{visit.soc_end:.0f} %" if visit.soc_end is not None else "",
                    f"{visit.drawn[-1][1] / 1000:.1f} kW",
                    f"{visit.planned[-1][1] / 1000:.1f} kW",
                )
        bar = ProgressBar(total=1.0, completed=min(max(passed, 0.0), 1.0), width=60)
        self._live.update(Group(head, bar, rows))


def _demo_faults(asked: list[str], count: int, seed: int) -> tuple[tuple[str, str], ...]:
    """Share faults out among the demo's stations, as `simulate` does."""
    planned = make_night(seed, EVENING, stations=count)
    options = SimulateOptions(url="", faults=tuple(asked))
    try:
        found = faults_of(options, [each.station_id for each in planned.stations])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return tuple(
        (station, name) for station, names in found.items() for name in sorted(names)
    )


def _list_faults(is_wanted: bool) -> None:  # noqa: FBT001 (an option's callback)
    if not is_wanted:
        return
    rows = [LIST_HEAD, *fault_rows()]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for row in rows:
        number, name, what, version = row
        typer.echo(
            f"{number:{widths[0]}}  {name:{widths[1]}}  {version:4}  {what}".rstrip()
        )
    raise typer.Exit


def _print_result(result: DemoResult) -> None:
    rows = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("vehicle", "outlet", "OCPP"):
        rows.add_column(name, no_wrap=True)
    for name in ("kWh plan", "drawn", "kW plan", "peak", "SoC %", "target"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("plan")
    for visit in result.visits:
        vehicle = visit.vehicle
        rows.add_row(
            vehicle.name,
            f"{vehicle.station_id}/{vehicle.connector}",
            result.scenario.station(vehicle.station_id).ocpp_version,
            f"{visit.planned_wh / 1000:.1f}",
            f"{visit.drawn_wh / 1000:.1f}",
            f"{visit.planned_peak_w / 1000:.1f}",
            f"{visit.peak_w / 1000:.1f}",
            f"{vehicle.soc_start:.0f} to {visit.soc_end or 0:.0f}",
            f"{vehicle.soc_target:.0f}",
            f"[red]{visit.note}[/red]" if visit.note else "[green]kept[/green]",
        )
    out.print(rows)
    word = "[green]never passed[/green]" if result.cap_kept else "[red]passed[/red]"
    out.print(
        f"Largest sum of power, grid side: {result.peak_w / 1000:.1f} kW at "
        f"{result.peak_at:%H:%M}; cap {result.cap_w / 1000:.1f} kW: {word}"
    )
    out.print(
        f"Sessions reported to ChargEye: {result.reports_taken}; "
        f"still owed: {result.outbox_left}"
    )
    out.print(
        f"Cars known to Smartcar: {result.cars}; read {result.car_reads} times, "
        f"told {result.car_commands} times"
    )
    for visit in result.not_kept:
        vehicle = visit.vehicle
        out.print(
            f"[red]not kept:[/red] {vehicle.name} at {vehicle.station_id}/"
            f"{vehicle.connector}: {visit.note}"
        )
    out.print(
        "[green]Every plan was kept.[/green]" if result.is_good else "[red]Failed.[/red]"
    )


def _report(result: DemoResult) -> Report:
    return Report(
        title="depot-agent demo",
        started_at=result.started_at,
        ended_at=result.ended_at,
        cap_w=result.cap_w,
        stations=len(result.scenario.stations),
        peak_w=result.peak_w,
        peak_at=result.peak_at,
        total=result.total,
        verdicts=(
            ("every plan was kept", not result.not_kept),
            ("the cap was never passed", result.cap_kept),
            ("every session was reported", result.outbox_left == 0),
        ),
        vehicles=tuple(
            VehicleLine(
                vehicle_id=visit.vehicle.vehicle_id,
                name=visit.vehicle.name,
                outlet=f"{visit.vehicle.station_id}/{visit.vehicle.connector}",
                ocpp_version=result.scenario.station(visit.vehicle.station_id).ocpp_version,
                plugged_at=visit.plugged_at or visit.vehicle.arrival,
                unplugged_at=visit.unplugged_at,
                planned_wh=visit.planned_wh,
                drawn_wh=visit.drawn_wh,
                planned_peak_w=visit.planned_peak_w,
                drawn_peak_w=visit.peak_w,
                soc_start=visit.vehicle.soc_start,
                soc_end=visit.soc_end,
                soc_target=visit.vehicle.soc_target,
                worst_over_w=visit.worst_over_w,
                kept=not visit.note,
                note=visit.note,
                planned=tuple(visit.planned),
                drawn=tuple(visit.drawn),
            )
            for visit in result.visits
        ),
    )


@app.command()
def simulate(
    url: Annotated[
        str, typer.Argument(help="ws:// or wss:// address; the id is appended.")
    ],
    stations: Annotated[int, typer.Option(min=1, max=500)] = 1,
    vehicles: Annotated[int, typer.Option(min=1, max=1000)] = 2,
    speed: Annotated[float, typer.Option(min=1, max=SPEED_MAX)] = 60.0,
    minutes: Annotated[float, typer.Option(min=1, help="Simulated minutes.")] = 600.0,
    password: Annotated[str | None, typer.Option(help="Basic password of all.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Whom they trust, with wss://."),
    ] = None,
    cert: Annotated[
        str | None,
        typer.Option(help="Their client certificate; {id} stands for a station's id."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Its key; {id} as above.")] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="Fault by name or id, of all or of one: CP-03=PRF-14; repeatable."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Station ids are PREFIX-01, ...")] = "CP",
    id_form: Annotated[
        str | None, typer.Option(help="How the MAC is told: vid, bare, emaid, no-auth, ...")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="1.6, 2.0.1, 2.1 or mix; default 1.6, or what the file says."),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Scenario file (TOML) to play."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Another seed: another night, other chances in faults.")
    ] = 1,
    list_faults: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option(
            "--list-faults",
            is_eager=True,
            callback=_list_faults,
            help="Print every fault with its id, name, versions and effect, and end.",
        ),
    ] = False,
) -> None:
    """Run virtual stations of any OCPP version, and vehicles, against a central system.

    With --scenario the file says which stations and vehicles there are and what goes
    wrong when: tables `stations`, `vehicles`, `cuts` and `restarts`, times in minutes.

    Faults of the network take a value and a time: `latency:0.3`, or
    `black-hole@600+120/1800`, from second 600 on for 120 s, every 1800 s (simulated).

    Example: `depot-agent simulate ws://127.0.0.1:9000/ocpp --fault CP-02=PRF-14`
    """
    try:
        options = SimulateOptions(
            url=url,
            stations=stations,
            vehicles=vehicles,
            speed=speed,
            minutes=minutes,
            password=password,
            ca=ca,
            cert=cert,
            key=key,
            faults=tuple(fault or ()),
            seed=seed,
            station_prefix=prefix,
            id_form=id_form,
            version=version,
            scenario=scenario,
        )
        planned = scenario_of(options, SystemClock().now())
        ids = [each.station_id for each in planned.stations]
        tls_contexts(options, ids)
        faults_of(options, ids)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    result = asyncio.run(simulate_night(options, typer.echo))
    rows = Table(box=None, header_style="bold")
    for name in TABLE_HEAD:
        rows.add_column(name)
    for row in table(result):
        rows.add_row(*row)
    out.print(rows)
    for station in result.stations_never_online:
        err.print(f"{station} never got an answer from {url}")
    raise typer.Exit(FAILED if result.exit_code else 0)


@app.command()
def standin(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of ChargEye; 0: any.")
    ] = PORT,
    smartcar_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Smartcar; 0: any.")
    ] = SMARTCAR_PORT,
    cap_kw: Annotated[float, typer.Option(min=1, help="Site cap of its planner.")] = 300.0,
    refresh_token: Annotated[str, typer.Option()] = "standin-refresh-token",
    fixtures: Annotated[
        Path | None,
        typer.Option(help="JSON with `vehicles`, `schedules` and Smartcar's `cars`."),
    ] = None,
    speed: Annotated[float, typer.Option(min=1, max=SPEED_MAX)] = 1.0,
) -> None:
    """Serve the stand-in ChargEye and Smartcar alone, on loopback, until interrupted.

    Prints the base address of each, and what a client needs to be let in.

    Example: `depot-agent standin --port 8099 --smartcar-port 8098`
    """
    logs.set_up(level="warning", style="console", stream=sys.stderr)
    now = SystemClock().now().astimezone(UTC)
    serve = serve_standin(
        now=datetime.fromtimestamp(now.timestamp(), UTC),
        announce=typer.echo,
        port=port,
        smartcar_port=smartcar_port,
        site_cap_kw=cap_kw,
        refresh_token=refresh_token,
        fixtures=fixtures,
        speed=speed,
    )
    try:
        asyncio.run(serve)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
