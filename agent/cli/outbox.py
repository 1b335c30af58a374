"""The outbox: what is owed to clouds, what they refused, and what to do about it."""

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
from agent.cli.tables import print_table

commands = typer.Typer(name="outbox")
app.add_typer(commands)

Key = Annotated[str, typer.Argument(help="Key of the message, as `outbox` shows it.")]
Destination = Annotated[
    str, typer.Option(help="chargeye or billing, where a key is owed to both.")
]


@commands.callback(invoke_without_command=True)
def outbox(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what is owed to the clouds, and what they refused.

    Example: `depot-agent outbox`
    """
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    found = ask_daemon(config, "GET", "/api/v1/outbox")[1]
    if as_json:
        print_json(found)
        return
    print_table(
        ("destination", "pending", "oldest", "dead", "last error"),
        [
            (
                row["destination"],
                str(row["pending"]),
                f"{row['oldest_age_s']} s",
                str(row["dead"]),
                row["last_error"] or "",
            )
            for row in found
        ],
    )
    letters = [letter for row in found for letter in row["dead_letters"]]
    if letters:
        out.print("\n[bold]dead letters[/bold] (see `depot-agent outbox show KEY`)")
        print_table(
            ("key", "vehicle", "created", "error"),
            [
                (
                    letter["key"],
                    letter["vehicle_id"] or "",
                    letter["created_at"],
                    letter["error"],
                )
                for letter in letters
            ],
        )


@commands.command()
def show(
    context: typer.Context,
    key: Key,
    destination: Destination = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one message whole: what it says, how often it was tried, what came back.

    Example: `depot-agent outbox show 01JH8Z4T6WQX`
    """
    arguments = {"key": key, "destination": destination}
    found: dict[str, Any] = operate(config or context.obj, "outbox.show", arguments)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if name != "body" and value is not None:
            out.print(f"{name}: {value}", markup=False)
    print_json(found["body"])


@commands.command()
def resend(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Key of the message.")] = "",
    destination: Destination = "",
    all_dead: Annotated[
        bool, typer.Option("--all-dead", help="All dead letters instead of one message.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message again now, or all dead letters.

    Example: `depot-agent outbox resend --all-dead`
    """
    if bool(key) == all_dead:
        raise typer.BadParameter("name one KEY, or say --all-dead")
    arguments = {"key": key, "destination": destination, "all_dead": all_dead}
    found = operate(config or context.obj, "outbox.resend", arguments)
    if as_json:
        print_json(found)
        return
    count = len(found["resent"])
    out.print(f"{count} message{'s' if count != 1 else ''} will be sent again now")


@commands.command()
def drop(
    context: typer.Context,
    key: Key,
    destination: Destination = "",
    yes: Annotated[bool, typer.Option("--yes", help="Yes, it shall never arrive.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a message up: it is never sent again.

    Example: `depot-agent outbox drop 01JH8Z4T6WQX --yes`
    """
    arguments = {"key": key, "destination": destination, "yes": yes}
    found = operate(config or context.obj, "outbox.drop", arguments)
    if as_json:
        print_json(found)
        return
    out.print(f"{found['dropped']} was given up", markup=False)
