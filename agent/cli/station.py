"""`depot-agent station`: a station's password, certificates, logs and firmware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.base import FAILED, ConfigOption, JsonOption, app, operate, out, print_json
from agent.cli.tables import cell, print_table

station_app = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Change a station's password, its certificates; get its log, update it.",
)
app.add_typer(station_app, name="station")

StationArgument = Annotated[str, typer.Argument(metavar="STATION", help="Its id.")]
UrlOption = Annotated[
    str, typer.Option(help="ftp, ftps, sftp, http or https address that IT can reach.")
]


@station_app.command()
def password(
    station: StationArgument,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Close its link, so that it proves it now.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Give a station a new random password over OCPP; nobody ever sees it.

    Old and new open until the station has connected with the new one. The hash is in the
    database; a password that you write into the configuration later takes its place.

    Example: `depot-agent station password CP-01`
    """
    body = {"station": station, "reconnect": reconnect}
    _print(operate(config, "stations.password", body))


@station_app.command("security-events")
def security_events(
    station: StationArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show the security events that a station reported, newest first.

    Example: `depot-agent station security-events CP-01`
    """
    found = operate(config, "stations.security-events", {"station": station})
    if as_json:
        print_json(found)
        return
    print_table(
        ("received", "grade", "event", "detail"),
        [
            (str(row["at"])[:19], row["grade"], cell(row["kind"]), cell(row["detail"][:60]))
            for row in found
        ],
    )


@station_app.command()
def certificates(
    station: StationArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what was issued to a station, and which roots it says it holds.

    Example: `depot-agent station certificates CP-01`
    """
    found = operate(config, "stations.certificates", {"station": station})
    if as_json:
        print_json(found)
        return
    if found["problem"]:
        out.print(found["problem"], markup=False, soft_wrap=True)
    if found["link_certificate_ends"]:
        out.print(f"connected with one that ends {found['link_certificate_ends'][:10]}")
    print_table(
        ("issued", "serial", "ends", "state"),
        [
            (row["signed_at"][:10], row["serial"], row["not_after"][:10], row["state"])
            for row in found["issued"]
        ],
    )
    print_table(
        ("root", "serial", "ends"),
        [
            (cell(row["kind"]), cell(row["serial"]), (row["not_after"] or "")[:10])
            for row in found["installed"]
        ],
    )


@station_app.command("install-certificate")
def install_certificate(
    station: StationArgument,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PEM file.")],
    kind: Annotated[
        str, typer.Option(help="csms, manufacturer, v2g or mo (1.6: the first two).")
    ] = "csms",
    config: ConfigOption = None,
) -> None:
    """Install a root certificate at a station.

    Example: `depot-agent station install-certificate CP-01 ca.pem`
    """
    body = {"station": station, "kind": kind, "pem": _text(file)}
    _print(operate(config, "stations.install-certificate", body))


@station_app.command("delete-certificate")
def delete_certificate(
    station: StationArgument,
    serial: Annotated[str, typer.Argument(help="As `station certificates` shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Even the last root of this gateway.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Delete a root certificate at a station.

    Example: `depot-agent station delete-certificate CP-01 5a4698fba660`
    """
    body = {"station": station, "serial": serial, "force": force}
    _print(operate(config, "stations.delete-certificate", body))


@station_app.command("renew-certificate")
def renew_certificate(station: StationArgument, config: ConfigOption = None) -> None:
    """Ask a station to make a new key and have it signed.

    Example: `depot-agent station renew-certificate CP-01`
    """
    _print(operate(config, "stations.renew-certificate", {"station": station}))


@station_app.command("get-log")
def get_log(
    station: StationArgument,
    url: UrlOption,
    kind: Annotated[str, typer.Option(help="diagnostics or security.")] = "diagnostics",
    config: ConfigOption = None,
) -> None:
    """Have a station upload a log; its progress is in the agent's log.

    Example: `depot-agent station get-log CP-01 --url sftp://user@files.example/logs/`
    """
    body = {"station": station, "url": url, "kind": kind}
    _print(operate(config, "stations.get-log", body))


@station_app.command("update-firmware")
def update_firmware(
    station: StationArgument,
    url: UrlOption,
    signature: Annotated[
        str, typer.Option(help="Signature of the file in Base64, from the maker.")
    ] = "",
    certificate: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The maker's signing certificate."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Have a station fetch and install firmware; its progress is in the agent's log.

    Example: `depot-agent station update-firmware CP-01 --url https://files.example/fw.bin`
    """
    body = {
        "station": station,
        "url": url,
        "signature": signature,
        "certificate": _text(certificate) if certificate is not None else "",
    }
    _print(operate(config, "stations.update-firmware", body))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{file} cannot be read: {error}", err=True)
        raise typer.Exit(FAILED) from error


def _print(found: Any) -> None:
    for name, value in found.items():
        out.print(f"{name}: {value}", markup=False, soft_wrap=True)
