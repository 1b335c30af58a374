"""Commands of the service: run, check-config, hash-password, backup, call."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Annotated

import orjson
import structlog
import typer
import uvloop

from agent.cli.base import (
    CONFIG_REFUSED,
    FAILED,
    ConfigOption,
    app,
    ask_daemon,
    config_path,
    print_json,
    settings_or_exit,
)
from agent.domain.errors import ConfigFault, StoreFault
from agent.host import logs
from agent.store.lock import check_folder

HTTP_OK = 200


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the daemon in the foreground. SIGTERM stops it, SIGHUP reloads.

    Example: `depot-agent run --config config/agent.toml`
    """
    path = config_path(config)
    settings = settings_or_exit(config)
    logs.set_up(level=settings.log.level, style=settings.log.format)
    log = structlog.get_logger()
    try:
        check_folder(settings.store.path)
        from agent.app import run_daemon  # heavy: what can be told sooner is told before

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_daemon(settings, path))
    except (StoreFault, ConfigFault) as fault:
        log.error("agent_failed", reason=str(fault))
        typer.echo(str(fault), err=True)
        raise typer.Exit(CONFIG_REFUSED) from fault
    except OSError as error:
        log.error("agent_failed", reason=str(error))
        typer.echo(f"a port cannot be opened: {error}", err=True)
        raise typer.Exit(FAILED) from error
    except BaseExceptionGroup as group:
        faults = group.subgroup((OSError,))
        if faults is not None and not group.split((OSError,))[1]:
            log.error("agent_failed", reason=str(faults.exceptions[0]))
            typer.echo(f"a port cannot be opened: {faults.exceptions[0]}", err=True)
        else:
            log.exception("agent_failed", reason="an essential task failed")
        raise typer.Exit(FAILED) from group


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Check the configuration with the files that it names: `ok`, or a line per fault.

    Example: `depot-agent check-config --config /etc/depot-agent/agent.toml`
    """
    from agent.cloud.localfleet import check_files
    from agent.parts import billing
    from agent.wiring import signer, tls_door

    settings = settings_or_exit(config)
    try:
        check_files(
            settings.local.vehicles_file,
            settings.local.schedules_file,
            alone=settings.chargeye is None,
        )
        billing.check(settings)
        tls_door(settings)
        signer(settings)
    except ConfigFault as fault:
        for problem in fault.faults:
            typer.echo(str(problem), err=True)
        raise typer.Exit(CONFIG_REFUSED) from fault
    typer.echo("ok")


@app.command("hash-password")
def hash_station_password() -> None:
    """Read a station's password from standard input and print its `password_hash`.

    Example: `echo -n "$KEY" | depot-agent hash-password`
    """
    from agent.stations.handshake import SALT_BYTES, hash_password

    password = sys.stdin.read().strip("\n")
    if not password:
        typer.echo("no password on standard input", err=True)
        raise typer.Exit(2)
    typer.echo(hash_password(password, secrets.token_bytes(SALT_BYTES)))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy is written.")],
    config: ConfigOption = None,
) -> None:
    """Make a consistent copy of the database through the running daemon.

    Example: `depot-agent backup /var/backups/depot-agent.db`
    """
    body = {"path": str(file.absolute())}
    status, answer = ask_daemon(config, "POST", "/api/v1/backup", body)
    if status != HTTP_OK:
        typer.echo(answer.get("error", "the backup failed"), err=True)
        raise typer.Exit(FAILED)
    typer.echo(f"written: {file}")


@app.command()
def call(
    station: Annotated[str, typer.Argument(help="Station id.")],
    action: Annotated[str, typer.Argument(help="OCPP action.")],
    payload: Annotated[str, typer.Argument(help="Its payload as JSON.")] = "{}",
    force: Annotated[
        bool, typer.Option(help="Send it though it breaks power rules.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Send one OCPP call through the daemon's queue and print the answer.

    Example: `depot-agent call CP-01 TriggerMessage '{"requestedMessage": "Heartbeat"}'`
    """
    try:
        content = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        typer.echo(f"the payload is not JSON: {error}", err=True)
        raise typer.Exit(2) from error
    body = {"action": action, "payload": content, "force": force}
    status, answer = ask_daemon(config, "POST", f"/api/v1/stations/{station}/call", body)
    print_json(answer)
    if status != HTTP_OK or "error" in answer:
        raise typer.Exit(FAILED)
