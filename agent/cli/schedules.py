"""`depot-agent schedules`: ChargEye's schedules, shown and written."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.base import ConfigOption, JsonOption, app, err, operate, out, print_json
from agent.cli.tables import cell, percent, print_table, read_json

schedules_app = typer.Typer(
    help="Show ChargEye's schedules, and write them.\n\n"
    "Example: `depot-agent schedules list --vehicle bus-17`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(schedules_app, name="schedules")

VehicleArgument = Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id.")]
FileArgument = Annotated[
    str, typer.Argument(help="JSON list of schedules, or - for standard input.")
]
PlansOption = Annotated[
    bool, typer.Option("--with-plans", help="Send plans too, not only slots.")
]
Row = dict[str, Any]


@schedules_app.command("list")
def list_schedules(
    vehicle: Annotated[str, typer.Option(help="Only this vehicle's.")] = "",
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="ISO 8601.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="ISO 8601.")] = "",
    recurring: Annotated[
        bool, typer.Option("--recurring", help="Also recurring ones; none is executed.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the schedules of the depot or of a vehicle, as ChargEye has them now.

    Example: `depot-agent schedules list --vehicle bus-17 --from 2026-01-15T00:00:00Z`
    """
    asked = {"vehicle": vehicle, "from": since, "to": until, "recurring": recurring}
    found = operate(config, "schedules.list", asked)
    if as_json:
        print_json(found)
        return
    _show(found["schedules"])
    if recurring:
        out.print("recurring (shown, never executed):")
        _show(found["recurring"])
    _problems(found["problems"])


@schedules_app.command()
def active(
    vehicle: VehicleArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show the running or next schedule of a vehicle, and the last that ended.

    Example: `depot-agent schedules active bus-17`
    """
    found = operate(config, "schedules.active", {"vehicle": vehicle})
    if as_json:
        print_json(found)
        return
    current = found["current_or_next"]
    out.print("running:" if found["running"] else "next:")
    _show([current] if current else [])
    out.print("ended last:")
    _show([found["previous"]] if found["previous"] else [])


@schedules_app.command()
def add(
    vehicle: VehicleArgument,
    file: FileArgument,
    with_plans: PlansOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add schedules to a vehicle; one whose slot is there already is left alone.

    Example: `depot-agent schedules add bus-17 tomorrow.json`
    """
    asked = {
        "vehicle": vehicle,
        "schedules": read_json(file),
        "with_plans": with_plans,
    }
    found = operate(config, "schedules.add", asked)
    if as_json:
        print_json(found)
        return
    out.print(f"added: {cell(', '.join(found['ids']) or 'none')}")
    if found["already_there"]:
        out.print(f"already there: {cell(', '.join(found['already_there']))}")
    if found["answer_lost"]:
        out.print("the answer was lost; what became of it was looked up")
    _problems(found["notes"])


@schedules_app.command()
def sync(
    vehicle: VehicleArgument,
    file: FileArgument,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without it, only show it.")
    ] = False,
    view: Annotated[
        str, typer.Option(help="Only if the dry run of this mark still holds.")
    ] = "",
    with_plans: PlansOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a list all that is upcoming for a vehicle: what it lacks is DELETED.

    Without --apply it only shows what would be created, updated and deleted, and the
    mark of that view.

    Example: `depot-agent schedules sync bus-17 week.json --apply`
    """
    asked = {
        "vehicle": vehicle,
        "schedules": read_json(file),
        "with_plans": with_plans,
    }
    shown = found = None
    if not (apply and view):
        shown = operate(config, "schedules.sync", asked)
        found = shown
        if not as_json:
            _show_changes(shown)
    if apply:
        mark = view or (shown or {}).get("view", "")
        found = operate(config, "schedules.sync", asked | {"apply": True, "view": mark})
    if as_json:
        print_json(found)
    elif found and found["applied"]:
        removed = found.get("removed_schedule_ids", [])
        out.print(f"done; removedScheduleIds: {cell(', '.join(removed) or 'none')}")
        if found.get("answer_lost"):
            out.print("the answer was lost; what became of it was looked up")
        if found.get("unexpected"):
            names = cell(", ".join(found["unexpected"]))
            err.print(f"[red]not announced, but removed: {names}[/red]")
            raise typer.Exit(1)
    else:
        out.print("nothing was done: add --apply to do it")


@schedules_app.command()
def patch(
    vehicle: VehicleArgument,
    file: FileArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change schedules by id; those that ChargEye skips are named, with exit code 1.

    Example: `echo '[{"id": "s-1", "startSoC": 42}]' | depot-agent schedules patch bus-17 -`
    """
    asked = {"vehicle": vehicle, "schedules": read_json(file)}
    found = operate(config, "schedules.patch", asked)
    if as_json:
        print_json(found)
    else:
        out.print(f"changed: {cell(', '.join(found['ids']) or 'none')}")
        if found["message"]:
            out.print(f"ChargEye: {cell(found['message'])}")
    if found["skipped_schedule_ids"] or not found["success"]:
        names = cell(", ".join(found["skipped_schedule_ids"]) or "all")
        err.print(f"[red]skipped: {names}[/red]")
        raise typer.Exit(1)


def _show(rows: list[Row]) -> None:
    print_table(
        ("schedule", "vehicle", "arrives", "departs", "start", "target", "recurs", "plan"),
        [_cells(row) for row in rows],
    )


def _cells(row: Row) -> tuple[str, ...]:
    plan = row.get("plan") if isinstance(row.get("plan"), dict) else None
    segments = plan.get("segments") if plan else None
    count = len(segments) if isinstance(segments, list) else 0
    return (
        cell(row.get("id")),
        cell(row.get("evId")),
        cell(row.get("plannedArrivalTime")),
        cell(row.get("plannedDepartureTime")),
        percent(row.get("startSoC")),
        percent(row.get("targetSoC")),
        cell(row.get("recurrenceRule")),
        f"{count} segments" if plan else "",
    )


def _show_changes(found: Row) -> None:
    for name, rows in (
        ("would be created", found["created"]),
        ("would be updated", [item["schedule"] for item in found["updated"]]),
        ("would be DELETED", found["deleted"]),
    ):
        if rows:
            out.print(f"{name}:")
            _show(rows)
    for item in found["updated"]:
        for name, (old, new) in item["changes"].items():
            shown = f"{cell(item['schedule'].get('id'))}: {cell(name)}"
            out.print(f"  {shown} {cell(old) or 'nothing'} -> {cell(new)}")
    out.print(f"unchanged: {len(found['unchanged'])}; view {found['view']}")
    _problems(found["notes"])


def _problems(texts: list[str]) -> None:
    for text in texts:
        out.print(f"note: {cell(text)}")
