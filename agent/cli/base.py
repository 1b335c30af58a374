"""What all commands share: options, exit codes, the way to the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import orjson
import typer
from rich.console import Console

from agent import __version__
from agent.domain.errors import ConfigFault
from agent.settings import DEFAULT_PATH, Settings, load, socket_path

FAILED, UNREACHABLE, CONFIG_REFUSED = 1, 69, 78
PIPE_COLUMNS = 240
"""Into a pipe or a file no cell is cut: somebody searches there."""
ANSWER_S = 40.0
"""A call to a station may take its full patience of 30 s."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
err = Console(stderr=True, highlight=False)

app = typer.Typer(
    name="depot-agent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="OCPP central system of an EV depot: it executes ChargEye's plans per vehicle.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's way
    if wanted:
        typer.echo(f"depot-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    del version


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; default $DEPOT_AGENT_CONFIG, "
        "then /etc/depot-agent/agent.toml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]


def config_path(given: Path | None) -> Path:
    """Choose the configuration file."""
    if given is not None:
        return given
    named = os.environ.get("DEPOT_AGENT_CONFIG")
    return Path(named) if named else DEFAULT_PATH


def settings_or_exit(given: Path | None) -> Settings:
    """Read the configuration, or print every problem and exit with 78."""
    try:
        return load(config_path(given))
    except ConfigFault as fault:
        for problem in fault.faults:
            typer.echo(str(problem), err=True)
        raise typer.Exit(CONFIG_REFUSED) from fault


def ask_daemon(
    given: Path | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    patience_s: float = ANSWER_S,
) -> tuple[int, Any]:
    """Ask the running daemon over its local socket, else over its HTTP port.

    What acts is asked once: after a silence nobody knows whether it was done.
    """
    settings = settings_or_exit(given)
    local = socket_path(settings)
    ways: list[tuple[httpx.BaseTransport, str]] = []
    if local.exists():
        ways.append((httpx.HTTPTransport(uds=str(local)), "http://depot-agent"))
    if settings.web.port:
        host = "127.0.0.1" if settings.web.host in ("0.0.0.0", "::") else settings.web.host  # noqa: S104
        ways.append((httpx.HTTPTransport(), f"http://{host}:{settings.web.port}"))
    for transport, base in ways:
        content = None if body is None else orjson.dumps(body)
        try:
            with httpx.Client(
                transport=transport, base_url=base, timeout=patience_s
            ) as client:
                answer = client.request(method, path, content=content)
                return answer.status_code, orjson.loads(answer.content)
        except httpx.ReadTimeout as error:
            if method != "GET":
                typer.echo(
                    f"the daemon did not answer in {patience_s:.0f} s; whether it was done "
                    "is not known: look before you repeat it",
                    err=True,
                )
                raise typer.Exit(FAILED) from error
        except (httpx.HTTPError, orjson.JSONDecodeError, PermissionError):
            continue
    return unreachable(local)


def operate(
    given: Path | None,
    name: str,
    arguments: dict[str, Any],
    *,
    patience_s: float = ANSWER_S,
) -> Any:
    """Let the daemon run an operation; its result, or the reason and exit code 1."""
    path = f"/api/v1/operations/{name}"
    _, body = ask_daemon(given, "POST", path, arguments, patience_s=patience_s)
    if "result" in body:
        return body["result"]
    error = body.get("error")
    typer.echo(error["description"] if isinstance(error, dict) else str(error), err=True)
    raise typer.Exit(FAILED)


def unreachable(local: Path) -> NoReturn:
    """Say that the daemon does not answer and exit with 69."""
    typer.echo(
        f"the daemon does not answer at {local}: start it with `systemctl start "
        "depot-agent` (or `depot-agent run`), or name its configuration with --config",
        err=True,
    )
    raise typer.Exit(UNREACHABLE)


def print_json(value: Any) -> None:
    """Print indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
