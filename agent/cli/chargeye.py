"""`depot-agent chargeye`: places, stations, sessions and power groups in the cloud."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.base import ConfigOption, JsonOption, app, operate, out, print_json
from agent.cli.tables import cell, kw, percent, print_table, read_fields

chargeye_app = typer.Typer(
    help="Look at ChargEye: locations, stations, transactions, cross-checks.\n\n"
    "Example: `depot-agent chargeye cross-check --hours 24`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(chargeye_app, name="chargeye")

CROSS_CHECK_S = 300.0
"""Some requests per station, one after the other, at the cloud's own pace."""

SinceOption = Annotated[str, typer.Option("--from", metavar="TIME", help="ISO 8601.")]
UntilOption = Annotated[str, typer.Option("--to", metavar="TIME", help="ISO 8601.")]


@chargeye_app.command()
def locations(
    location: Annotated[str, typer.Argument(help="Only this uid.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the locations of the account; site.location_uid must be one of them.

    Example: `depot-agent chargeye locations`
    """
    found = operate(config, "chargeye.locations", {"location": location})
    if as_json:
        print_json(found)
        return
    print_table(
        ("location uid", "name", "city", "own reference", "this depot"),
        [
            (
                cell(row["location_uid"]),
                cell(row["name"]),
                cell(row["city"]),
                cell(row["reference"]),
                "yes" if row["is_this_depot"] else "",
            )
            for row in found
        ],
    )


@chargeye_app.command("add-location")
def add_location(
    fields: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...|FILE")],
    station: Annotated[str, typer.Option(help="A station to put there.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a location; the cloud gives its uid.

    Example: `depot-agent chargeye add-location name="North depot" countryCode=FI`
    """
    asked = {"location": read_fields(fields), "station": station}
    found = operate(config, "chargeye.add-location", asked)
    if as_json:
        print_json(found)
    else:
        out.print(f"created: {cell(found['id'])}")


@chargeye_app.command()
def stations(
    ids: Annotated[list[str] | None, typer.Argument(help="Only these ids.")] = None,
    location: Annotated[str, typer.Option(help="Another location than ours.")] = "",
    administrative: Annotated[
        bool, typer.Option("--administrative", help="The location's own rows.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show stations and connectors as ChargEye sees them, with their latest session.

    Example: `depot-agent chargeye stations`
    """
    asked: dict[str, Any] = {"ids": ids or [], "administrative": administrative}
    if location:
        asked["location"] = location
    found = operate(config, "chargeye.stations", asked)
    if as_json:
        print_json(found)
        return
    rows = [(s, c) for s in found for c in s["connectors"] or [{}]]
    print_table(
        ("in ChargEye", "here", "state", "link", "connector", "state", "latest session"),
        [
            (
                cell(station["chargeye_station_id"]),
                cell(station["station_id"]) or "[red]not configured[/red]",
                cell(station["status"]),
                cell(station["online"]),
                cell(connector.get("connector_id")),
                cell(connector.get("status")),
                cell((connector.get("last") or {}).get("tx_id")),
            )
            for station, connector in rows
        ],
    )


@chargeye_app.command()
def transactions(
    transaction: Annotated[str, typer.Argument(help="Only this txId.")] = "",
    station: Annotated[str, typer.Option(help="Only this station's.")] = "",
    since: SinceOption = "",
    until: UntilOption = "",
    limit: Annotated[int, typer.Option(min=1, max=5000, help="At most this many.")] = 200,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show charging sessions as ChargEye has them, newest first.

    Example: `depot-agent chargeye transactions --station CP-01 --from 2026-01-14`
    """
    asked = {
        "id": transaction,
        "station": station,
        "from": since,
        "to": until,
        "limit": limit,
    }
    found = operate(config, "chargeye.transactions", asked)
    if as_json:
        print_json(found)
        return
    print_table(
        ("transaction", "station", "connector", "state", "begin", "end", "energy", "SoC"),
        [
            (
                cell(row["tx_id"]),
                cell(row["chargeye_station_id"]),
                cell(", ".join(row["connector_ids"])),
                cell(row["status"]),
                cell(row["started_at"]),
                cell(row["ended_at"]),
                kw(row["energy_wh"]).replace("kW", "kWh"),
                f"{percent(row['soc_start'])} to {percent(row['soc_end'])}",
            )
            for row in found["transactions"]
        ],
    )
    if not found["complete"]:
        out.print("there are more: narrow the time or raise --limit")


@chargeye_app.command("cross-check")
def cross_check(
    hours: Annotated[float, typer.Option(min=0.1, max=744, help="How far back.")] = 48.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare our sessions with ChargEye's transactions; exit code 1 on differences.

    Example: `depot-agent chargeye cross-check --hours 24`
    """
    found = operate(
        config, "chargeye.cross-check", {"hours": hours}, patience_s=CROSS_CHECK_S
    )
    if as_json:
        print_json(found)
    else:
        print_table(
            ("difference", "station", "session", "transaction", "ours", "ChargEye's"),
            [
                tuple(
                    cell(row[name])
                    for name in (
                        *("what", "station_id", "session_id"),
                        *("tx_id", "ours", "theirs"),
                    )
                )
                for row in found["differences"]
            ],
        )
        out.print(f"{len(found['compared'])} sessions on both sides")
        if found["not_all_pages"]:
            names = cell(", ".join(found["not_all_pages"]))
            out.print(f"not all transactions were read of {names}: ask for fewer hours")
    if found["differences"]:
        raise typer.Exit(1)


@chargeye_app.command("power-group")
def power_group(
    group: Annotated[str, typer.Argument(help="The group's id.")],
    fields: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...|FILE")],
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change fields of a power group: what ChargEye itself lets its stations draw.

    Example: `depot-agent chargeye power-group group-1 maxCurrentA=400`
    """
    wished = read_fields(fields)
    if not yes:
        shown = ", ".join(f"{name} = {value}" for name, value in wished.items())
        typer.echo(f"power group {group}: {shown}", err=True)
        typer.confirm("Change ChargEye's own limits?", abort=True, err=True)
    found = operate(config, "chargeye.power-group", {"id": group, "group": wished})
    if as_json:
        print_json(found)
    else:
        out.print(f"{cell(group)}: {cell(found['group'])}")
