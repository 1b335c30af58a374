"""Vehicles with a cloud of their own, and goals of sessions: the daemon asks and tells."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.base import ConfigOption, JsonOption, app, operate, print_json
from agent.cli.tables import cell, percent, print_table

cars = typer.Typer(
    name="cars",
    invoke_without_command=True,
    help="Show and tell the vehicles of [[smartcar.vehicles]].",
)
app.add_typer(cars)
VinArgument = Annotated[str, typer.Argument(help="VIN of the vehicle.")]
HOUR_S, MINUTE_S = 3600, 60


@cars.callback()
def _list(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show the vehicles of [[smartcar.vehicles]]; nobody is asked for it.

    Example: `depot-agent cars`
    """
    if context.invoked_subcommand is not None:
        return
    found = operate(config, "cars.list", {})
    if as_json:
        print_json(found)
        return
    head = ("VIN", "vehicle", "make", "station", "SoC", "from", "age", "limit", "left")
    print_table((*head, "needs driver"), [_line(row) for row in found])


@cars.command()
def read(
    vin: VinArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it is not plugged in here.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a plugged vehicle for its SoC and limit now; it costs one of its requests.

    Example: `depot-agent cars read WVWZZZE1ZMP012345`
    """
    found = operate(config, "cars.read", {"vin": vin, "force": force})
    _print_one(found, as_json=as_json)


@cars.command()
def limit(
    vin: VinArgument,
    percent: Annotated[
        float | None, typer.Argument(min=50, max=100, help="The new limit, percent.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a vehicle's own charge limit, or set it for this plug-in and after.

    Example: `depot-agent cars limit WVWZZZE1ZMP012345 80`
    """
    arguments: dict[str, Any] = {"vin": vin}
    if percent is not None:
        arguments["percent"] = percent
    found = operate(config, "cars.limit", arguments)
    if percent is None:
        _print_one(found, as_json=as_json)
        return
    _print_told(found, as_json=as_json)


@cars.command()
def start(
    vin: VinArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Tell a plugged vehicle to charge; the station's meter confirms it in the log.

    Example: `depot-agent cars start WVWZZZE1ZMP012345`
    """
    _print_told(operate(config, "cars.start", {"vin": vin}), as_json=as_json)


@cars.command()
def stop(
    vin: VinArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Tell a plugged vehicle to stop charging; better is a `goal`, or the plan.

    Example: `depot-agent cars stop WVWZZZE1ZMP012345`
    """
    _print_told(operate(config, "cars.stop", {"vin": vin}), as_json=as_json)


@cars.command()
def connections(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the vehicles whose drivers gave their consent; costs no vehicle's allowance.

    Example: `depot-agent cars connections`
    """
    found = operate(config, "cars.connections", {})
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "user", "make", "VIN", "configured", "permissions"),
        [
            (
                cell(row["vehicle_id"]),
                cell(row["user_id"]),
                cell(row["make"]),
                cell(row["vin"]),
                "yes" if row["configured"] else "no",
                cell(", ".join(row["permissions"])),
            )
            for row in found
        ],
    )


@app.command()
def goal(
    session: Annotated[str, typer.Argument(help="Id of an open session.")],
    energy_kwh: Annotated[
        float | None, typer.Option(min=0.1, help="Charge so much in this session.")
    ] = None,
    soc: Annotated[
        float | None, typer.Option(min=1, max=100, help="Charge up to this SoC, percent.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the goal away.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set how far a session is to charge; then it draws as little as its station can.

    Example: `depot-agent goal S-20261121-0042 --energy-kwh 20`
    """
    arguments: dict[str, Any] = {"session": session, "clear": clear}
    if energy_kwh is not None:
        arguments["energy_kwh"] = energy_kwh
    if soc is not None:
        arguments["soc_percent"] = soc
    found = operate(config, "goal.set", arguments)
    if as_json:
        print_json(found)
    elif found["goal"] is None:
        typer.echo(f"{found['session_id']}: no goal any more")
    else:
        typer.echo(f"{found['session_id']}: charging ends at {found['goal']}")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    budget = row["budget"]
    return (
        cell(row["vin"]),
        cell(row["vehicle_id"]),
        cell(row["make"]),
        cell(row["station_id"]),
        _soc(row),
        cell(row["soc_source"]),
        _age(row["soc_age_s"]),
        percent(row["limit_percent"]),
        f"{budget['reads_left']} + {budget['commands_left']}" if budget else "",
        cell(row["needs_driver"]),
    )


def _soc(row: dict[str, Any]) -> str:
    if row["soc"] is None:
        return ""
    return f"{row['soc']:.0f} ± {row['soc_confidence']:.0f} %"


def _age(age_s: int | None) -> str:
    if age_s is None:
        return ""
    if age_s < HOUR_S:
        return f"{age_s // MINUTE_S} min"
    return f"{age_s / HOUR_S:.1f} h"


def _print_one(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    shown = f"limit {percent(row['limit_percent']) or 'not known'}"
    if row["limit_of_driver"] is not None:
        shown += f" (the driver's own: {percent(row['limit_of_driver'])})"
    typer.echo(f"{row['vin']}: SoC {_soc(row) or 'not known'}, {shown}")


def _print_told(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        typer.echo(found["text"])
