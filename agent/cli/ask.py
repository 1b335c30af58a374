"""Questions to the running daemon: tables on a terminal, --json for scripts."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.base import ConfigOption, JsonOption, app, ask_daemon, out, print_json
from agent.cli.tables import cell, percent, print_table
from agent.cli.tables import kw as _kw

Row = dict[str, Any]

SESSIONS_READ = 500
"""More than any depot has outlets: every open session is among the newest."""
SOC_MARKS = {
    "station": "",
    "charging-needs": " at plug-in",
    "smartcar": " car",
    "schedule": " schedule",
    "estimate": " est.",
}
"""Where a SoC is from, as a short mark behind it; nothing for the station's own."""
PROOF_MARKS = {
    "verified": "[green]verified[/green]",
    "accepted": "accepted",
    "commanded": "[yellow]commanded[/yellow]",
    "violated": "[red]violated[/red]",
    "none": "[yellow]none[/yellow]",
}


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
    _print_clouds(found["clouds"], ask_daemon(config, "GET", "/api/v1/outbox")[1])
    if found["not_following"]:
        names = cell(", ".join(found["not_following"]))
        out.print(f"[red]not following their limit: {names}[/red]")
    rows = _outlets(config)
    away = {station["station_id"] for station, *_ in rows if not station["connected"]}
    if away:
        out.print(f"[red]stations away: {cell(', '.join(sorted(away)))}[/red]")
    proofs = Counter(
        evse["limit_w"]["state"] for _, evse, _ in rows if evse["limit_w"]["state"]
    )
    if proofs:
        words = (f"{number} {PROOF_MARKS[name]}" for name, number in proofs.items())
        out.print(f"limits: {', '.join(words)}")
    used = [row for row in rows if row[2] is not None]
    if used:
        _print_vehicles(used)


def _print_clouds(clouds: list[Row], outbox: list[Row]) -> None:
    for cloud in clouds:
        state = "reachable"
        if not cloud["reachable"]:
            state = f"[red]away[/red]: {cell(cloud['error'])}"
        out.print(f"cloud {cloud['cloud']}: {state}")
    for box in outbox:
        if box["pending"] or box["dead"]:
            dead = f", [red]{box['dead']} dead[/red]" if box["dead"] else ""
            out.print(f"outbox {box['destination']}: {box['pending']} pending{dead}")


def _print_vehicles(rows: list[tuple[Row, Row, Row | None]]) -> None:
    """Every plugged vehicle: how full, how much power, how sure, when it leaves."""
    print_table(
        ("outlet", "vehicle", "SoC", "power", "proof", "departs", "expected"),
        [
            (
                cell(f"{station['station_id']}/{evse['evse_id']}"),
                _vehicle(evse, session),
                _soc_now(session),
                _kw(evse["power_w"]),
                _proof(evse),
                _departs(evse),
                _expected(evse),
            )
            for station, evse, session in rows
        ],
    )


@app.command()
def stations(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show stations and outlets: SoC, planned, confirmed and measured power, proof.

    Example: `depot-agent stations --json`
    """
    found = ask_daemon(config, "GET", "/api/v1/stations")[1]
    if as_json:
        print_json(found)
        return
    print_table(
        (
            "outlet",
            "state",
            "OCPP",
            "model",
            "vehicle",
            "SoC",
            "power",
            "limit",
            "planned",
            "proof",
        ),
        [
            (
                cell(f"{station['station_id']}/{evse['evse_id']}"),
                cell(evse["status"]) if station["connected"] else "[red]offline[/red]",
                station["ocpp_version"] or "",
                cell(station["model"]),
                _vehicle(evse, session),
                _soc_now(session),
                _kw(evse["power_w"]),
                _kw(evse["limit_w"]["confirmed"]),
                _kw(evse["limit_w"]["planned"]),
                _proof(evse),
            )
            for station, evse, session in _joined(config, found)
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


def _outlets(config: Path | None) -> list[tuple[Row, Row, Row | None]]:
    return _joined(config, ask_daemon(config, "GET", "/api/v1/stations")[1])


def _joined(config: Path | None, found: list[Row]) -> list[tuple[Row, Row, Row | None]]:
    """Every outlet with its station and its open session."""
    path = f"/api/v1/sessions?limit={SESSIONS_READ}"
    opened = {row["session_id"]: row for row in ask_daemon(config, "GET", path)[1]}
    return [
        (station, evse, opened.get(evse["session_id"]))
        for station in found
        for evse in station["evses"]
    ]


def _vehicle(evse: Row, session: Row | None) -> str:
    """The vehicle's id, else the address that it showed."""
    return cell(evse["vehicle_id"] or (session["mac"] if session is not None else None))


def _soc_now(session: Row | None) -> str:
    """``64 % est.``: the best that is known, and where it is from."""
    if session is None or session["soc_now"] is None:
        return ""
    source = session["soc_source"]
    return percent(session["soc_now"]) + SOC_MARKS.get(source, f" {source}")


def _proof(evse: Row) -> str:
    """How far the limit is proved; nothing without a transaction."""
    state = evse["limit_w"]["state"]
    return PROOF_MARKS.get(state, cell(state)) if state else ""


def _departs(evse: Row) -> str:
    outlook = evse["outlook"]
    return outlook["departs_at"] if outlook is not None else ""


def _expected(evse: Row) -> str:
    """SoC at departure against the target, red where that is at risk."""
    outlook = evse["outlook"]
    if outlook is None:
        return ""
    words = percent(outlook["expected_soc"])
    if words and outlook["target_soc"] is not None:
        words += f" of {percent(outlook['target_soc'])}"
    return f"[red]{words or 'at risk'}[/red]" if outlook["at_risk"] else words


def _soc(row: Row) -> str:
    if row["soc_start"] is None:
        return ""
    now = row["soc_end"] if row["soc_end"] is not None else row["soc_now"]
    return f"{row['soc_start']:.0f} to {now:.0f} %"
