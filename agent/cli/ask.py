"""Questions to the running daemon: tables on a terminal, --json for scripts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.base import ConfigOption, JsonOption, app, ask_daemon, out, print_json
from agent.cli.tables import kw as _kw
from agent.cli.tables import print_table

Row = dict[str, Any]


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the depot at a glance.

    Example: `depot-agent status`
    """
    found = ask_daemon(config, "GET", "/api/v1/status")[1]
    if as_json:
        print_json(found)
        return
    out.print(
        f"[bold]{found['site']}[/bold]  "
        f"{_kw(found['drawn_grid_w'])} of {_kw(found['cap_w'])}, "
        f"{found['stations_connected']} of {found['stations']} stations connected, "
        f"{found['sessions_charging']} charging, {found['sessions_open']} plugged in"
    )
    for cloud in found["clouds"]:
        state = "reachable" if cloud["reachable"] else f"[red]away[/red]: {cloud['error']}"
        out.print(f"cloud {cloud['cloud']}: {state}")
    if found["not_following"]:
        out.print(
            f"[red]not following their limit: {', '.join(found['not_following'])}[/red]"
        )


@app.command()
def stations(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show stations and outlets, with planned, confirmed and measured power.

    Example: `depot-agent stations --json`
    """
    found = ask_daemon(config, "GET", "/api/v1/stations")[1]
    if as_json:
        print_json(found)
        return
    rows = [(station, evse) for station in found for evse in station["evses"]]
    print_table(
        (
            "outlet",
            "state",
            "OCPP",
            "model",
            "vehicle",
            "power",
            "limit",
            "planned",
            "proved",
        ),
        [
            (
                f"{station['station_id']}/{evse['evse_id']}",
                evse["status"] if station["connected"] else "[red]offline[/red]",
                station["ocpp_version"] or "",
                station["model"] or "",
                evse["vehicle_id"] or "",
                _kw(evse["power_w"]),
                _kw(evse["limit_w"]["confirmed"]),
                _kw(evse["limit_w"]["planned"]),
                {True: "yes", False: "[red]no[/red]", None: ""}[
                    evse["limit_w"]["verified"]
                ],
            )
            for station, evse in rows
        ],
    )


@app.command()
def sessions(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="At most this many.")] = 50,
) -> None:
    """Show sessions, newest first.

    Example: `depot-agent sessions --limit 20`
    """
    found = ask_daemon(config, "GET", f"/api/v1/sessions?limit={limit}")[1]
    if as_json:
        print_json(found)
        return
    print_table(
        (
            "session",
            "outlet",
            "vehicle",
            "match",
            "state",
            "plugged",
            "ended",
            "energy",
            "SoC",
        ),
        [
            (
                row["session_id"],
                f"{row['station_id']}/{row['evse_id']}",
                row["vehicle_id"] or row["mac"] or "",
                row["match"],
                row["state"],
                row["plugged_at"],
                row["ended_at"] or "",
                f"{row['energy_wh'] / 1000:.1f} kWh",
                _soc(row),
            )
            for row in found
        ],
    )


@app.command()
def explain(
    outlet: Annotated[str, typer.Argument(help="STATION or STATION/EVSE.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why an outlet has the limit it has, newest reason first.

    Example: `depot-agent explain CP-01/1`
    """
    name, _, number = outlet.rpartition("/")
    station, evse = (name, number) if name and number.isdigit() else (outlet, "1")
    path = f"/api/v1/explain/{quote(station, safe='')}/{evse}"
    code, found = ask_daemon(config, "GET", path)
    if code == HTTPStatus.NOT_FOUND:
        out.print(f"[red]there is no outlet {outlet}[/red]: see `depot-agent stations`")
        raise typer.Exit(1)
    if as_json:
        print_json(found)
        return
    out.print(
        f"[bold]{found['station_id']}/{found['evse_id']}[/bold]  "
        f"limit {_kw(found['limit_w'])}, measured {_kw(found['measured_w'])}, "
        f"{found['proof']}"
    )
    for reason in found["because"]:
        out.print(f"  - {reason}", highlight=False)
    print_table(
        ("time", "what", "limit", "rules"),
        [
            (row["at"][11:19], row["what"], _kw(row["limit_w"]), "; ".join(row["rules"]))
            for row in found["history"][:20]
        ],
    )


@app.command()
def plans(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show schedules with their plans, next departure first.

    Example: `depot-agent plans`
    """
    found = ask_daemon(config, "GET", "/api/v1/plans")[1]
    if as_json:
        print_json(found)
        return
    print_table(
        (
            "schedule",
            "vehicle",
            "arrives",
            "departs",
            "target",
            "segments",
            "planned at",
            "session",
        ),
        [
            (
                row["schedule_id"],
                row["vehicle_id"],
                row["arrives_at"],
                row["departs_at"],
                "" if row["target_soc"] is None else f"{row['target_soc']:.0f} %",
                str(len(row["segments"])),
                row["planned_at"] or "",
                row["session_id"] or "",
            )
            for row in found
        ],
    )


def _soc(row: Row) -> str:
    if row["soc_start"] is None:
        return ""
    now = row["soc_end"] if row["soc_end"] is not None else row["soc_now"]
    return f"{row['soc_start']:.0f} to {now:.0f} %"
