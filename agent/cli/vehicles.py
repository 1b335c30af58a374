"""`depot-agent vehicles`: the registry, and what an operator may write into it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.base import (
    ConfigOption,
    JsonOption,
    app,
    ask_daemon,
    operate,
    out,
    print_json,
)
from agent.cli.tables import cell, kw, print_table, read_fields, read_json

vehicles_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(vehicles_app, name="vehicles")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The vehicle's id.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it all the same.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]


@vehicles_app.callback(invoke_without_command=True)
def vehicles(
    context: typer.Context,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    candidates: Annotated[
        bool, typer.Option(help="Show addresses that no vehicle has, for enrolment.")
    ] = False,
) -> None:
    """Show the vehicle registry and where each vehicle is plugged in, and write to it.

    Example: `depot-agent vehicles --candidates`
    """
    if context.invoked_subcommand is not None:
        return
    path = "/api/v1/candidates" if candidates else "/api/v1/vehicles"
    found = ask_daemon(config, "GET", path)[1]
    if as_json:
        print_json(found)
    elif candidates:
        _show_candidates(found)
    else:
        print_table(
            ("vehicle", "name", "MAC", "max", "min", "pauses", "at"),
            [
                (
                    cell(row["vehicle_id"]),
                    cell(row["name"]),
                    ", ".join(row["macs"]),
                    kw(row["max_w"]),
                    kw(row["min_w"]),
                    "yes" if row["can_pause"] else "no",
                    cell(row["station_id"]),
                )
                for row in found
            ],
        )


def _show_candidates(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("MAC", "station", "sessions", "first seen", "last seen"),
        [
            (
                row["mac"],
                cell(row["station_id"]),
                str(row["sessions"]),
                row["first_at"],
                row["last_at"],
            )
            for row in rows
        ],
    )


@vehicles_app.command()
def show(
    vehicle_id: IdArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show one vehicle as ChargEye has it now, with every field.

    Example: `depot-agent vehicles show bus-17`
    """
    found = operate(config, "vehicles.show", {"id": vehicle_id})
    if as_json:
        print_json(found)
        return
    print_table(
        ("field", "value"), [(cell(k), cell(v)) for k, v in found["vehicle"].items()]
    )
    here = found["here"]
    if here is None:
        out.print("the daemon has not read this vehicle yet")
    elif here["station_id"]:
        out.print(f"plugged in at {cell(here['station_id'])}")


@vehicles_app.command()
def put(
    vehicle_id: IdArgument,
    file: Annotated[str, typer.Argument(help="JSON object, or - for standard input.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    yes: YesOption = False,
    force: ForceOption = False,
) -> None:
    """Create a vehicle, or replace all its fields with those of a file.

    A field that an existing vehicle has and the file has not is cleared: you are asked
    before that. To change single fields use `patch`.

    Example: `depot-agent vehicles put bus-17 bus-17.json`
    """
    asked = {"id": vehicle_id, "vehicle": read_json(file), "force": force}
    before = operate(config, "vehicles.put", asked)
    if before["cleared"] and not yes:
        typer.echo(
            f"{vehicle_id} exists; cleared: {', '.join(before['cleared'])}", err=True
        )
        typer.confirm("Replace it?", abort=True, err=True)
    found = operate(config, "vehicles.put", asked | {"apply": True})
    if as_json:
        print_json(found)
    else:
        out.print(f"{cell(found['id'])} {'replaced' if found['exists'] else 'created'}")


@vehicles_app.command()
def patch(
    vehicle_id: IdArgument,
    fields: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...|FILE", help="What shall change.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Change fields of a vehicle; their names have ChargEye's own letter case.

    Example: `depot-agent vehicles patch bus-17 maxChargePowerkW=120`
    """
    asked = {"id": vehicle_id, "fields": read_fields(fields), "force": force}
    found = operate(config, "vehicles.patch", asked)
    if as_json:
        print_json(found)
        return
    print_table(
        ("field", "was", "is now"),
        [(cell(k), cell(old), cell(new)) for k, (old, new) in found["changes"].items()],
    )


@vehicles_app.command()
def enrol(
    mac: Annotated[str, typer.Argument(metavar="MAC", help="In any notation.")],
    vehicle: Annotated[str, typer.Option(help="The vehicle that gets it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    yes: YesOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also an address that no station reported.")
    ] = False,
) -> None:
    """Give a vehicle the address of its charging port, so that it is recognised.

    The address must have been reported by a station (`vehicles --candidates`), and no
    other vehicle may have it.

    Example: `depot-agent vehicles enrol 04:E7:7E:00:F0:FA --vehicle bus-17`
    """
    asked = {"mac": mac, "vehicle": vehicle, "force": force}
    before = operate(config, "vehicles.enrol", asked)
    if not yes:
        name = before["name"] or before["plate"] or "no name"
        typer.echo(f"{before['mac']} -> {vehicle} ({name}): {before['change']}", err=True)
        for row in before["seen"]:
            typer.echo(
                f"  seen at {row['station_id']} in {row['sessions']} sessions, "
                f"{row['first_at']} to {row['last_at']}",
                err=True,
            )
        if not before["seen"]:
            typer.echo("  no station has reported it", err=True)
        for text in before["warnings"]:
            typer.echo(f"  warning: {text}", err=True)
        typer.confirm("Enrol it?", abort=True, err=True)
    found = operate(config, "vehicles.enrol", asked | {"apply": True})
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['mac']} is a charging port of {cell(vehicle)} now")


@vehicles_app.command()
def v2icp(
    vehicle_id: IdArgument,
    preconditioning: Annotated[str, typer.Option(metavar="on|off", help="Ask for it.")],
    hvac: Annotated[str, typer.Option(metavar="MODE", help="ChargEye's interiorHvac.")],
    ambient: Annotated[
        float | None, typer.Option(help="Ambient temperature told to the bus, for tests.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what the depot asks a bus for by V2ICP (VDV 261).

    Modes: OnlyHotWaterAndVentilation, HotWaterAndHeating, NoHotWaterCoolingOrVentilation,
    NoPreconditioning.

    Example: `depot-agent vehicles v2icp b1 --preconditioning on --hvac HotWaterAndHeating`
    """
    if preconditioning not in ("on", "off"):
        raise typer.BadParameter("--preconditioning must be on or off")
    asked = {
        "id": vehicle_id,
        "preconditioning": preconditioning == "on",
        "hvac": hvac,
        "ambient": ambient,
    }
    found = operate(config, "vehicles.v2icp", asked)
    if as_json:
        print_json(found)
    else:
        out.print(f"{cell(vehicle_id)}: {cell(found['v2icpParameters'])}")
