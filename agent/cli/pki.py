"""`depot-agent pki`: a small CA for depots that have none: root, gateway, stations."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote

import typer

from agent.cli.base import FAILED, app, out
from agent.host.clock import SystemClock
from agent.stations.certificates import (
    Authority,
    CertificateFault,
    facts_of,
    key_pem,
    make_key,
    make_request,
    pem_of,
)

pki_app = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Make a depot CA, and certificates for the gateway and for stations.",
)
app.add_typer(pki_app, name="pki")

CA, CA_KEY = "ca.pem", "ca.key"
FOLDER_MODE, KEY_MODE, CERTIFICATE_MODE = 0o700, 0o600, 0o644
"""Keys are for their owner alone; certificates are public."""

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the CA.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@pki_app.command()
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Name of the CA.")] = "Depot CA",
    organization: Annotated[str, typer.Option(help="Operator of the depot.")] = "",
    days: Annotated[int, typer.Option(min=1, max=14_600, help="Days it lives.")] = 7300,
) -> None:
    """Make the root of the depot. Keep `ca.key` off the gateway if you can.

    Example: `depot-agent pki init /root/depot-ca --organization "Bus Company"`
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if (folder / CA_KEY).exists():
        _fail(f"{folder / CA_KEY} is there: a second CA would make the first one's void")
    try:
        authority = Authority.make(name, organization, _now(), days)
    except CertificateFault as fault:
        _fail(str(fault))
    _write(folder / CA_KEY, key_pem(authority.key), KEY_MODE, force=False)
    _write(folder / CA, pem_of(authority.certificate), CERTIFICATE_MODE, force=False)
    out.print(
        f"{folder / CA}: install it at the stations as CentralSystemRootCertificate",
        soft_wrap=True,
    )
    out.print(
        f"{folder / CA_KEY}: whoever has it can be any station and any gateway",
        soft_wrap=True,
    )


@pki_app.command()
def server(
    folder: FolderArgument,
    host: Annotated[
        list[str],
        typer.Option(help="Name or address by which stations call; repeatable."),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days they live.")] = 825,
    force: ForceOption = False,
) -> None:
    """Make the gateway's two certificates: RSA for old stations, ECDSA for the rest.

    Example: `depot-agent pki server /root/depot-ca --host gateway.depot.example`
    """
    authority = _authority(folder)
    for kind, is_rsa in (("rsa", True), ("ecdsa", False)):
        key = make_key(is_rsa=is_rsa)
        try:
            certificate = authority.issue_server(key, host, _now(), days)
        except CertificateFault as fault:
            _fail(str(fault))
        base = folder / f"server-{kind}"
        _write(base.with_suffix(".key"), key_pem(key), KEY_MODE, force=force)
        pem = pem_of(certificate)
        _write(base.with_suffix(".pem"), pem, CERTIFICATE_MODE, force=force)
    place = folder.absolute()
    out.print("[ocpp.tls]", markup=False, soft_wrap=True)
    out.print(f'certificate = "{place}/server-rsa.pem"', markup=False, soft_wrap=True)
    out.print(f'private_key = "{place}/server-rsa.key"', markup=False, soft_wrap=True)
    out.print(f'certificate_2 = "{place}/server-ecdsa.pem"', markup=False, soft_wrap=True)
    out.print(f'private_key_2 = "{place}/server-ecdsa.key"', markup=False, soft_wrap=True)
    out.print(f'client_ca = "{place}/{CA}"', markup=False, soft_wrap=True)


@pki_app.command()
def station(
    folder: FolderArgument,
    station_id: Annotated[
        str, typer.Argument(metavar="STATION", help="Its id, or its serial number.")
    ],
    rsa: Annotated[bool, typer.Option("--rsa", help="RSA in place of ECDSA.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days it lives.")] = 365,
    force: ForceOption = False,
) -> None:
    """Make a key and a certificate for a station that cannot ask for one itself.

    Example: `depot-agent pki station /root/depot-ca CP-01`
    """
    authority = _authority(folder)
    key = make_key(is_rsa=rsa)
    try:
        request = pem_of(make_request(key, station_id)).decode()
        certificate = authority.issue_station(request, [station_id], _now(), days)
    except CertificateFault as fault:
        _fail(str(fault))
    place = folder / "stations"
    place.mkdir(mode=FOLDER_MODE, exist_ok=True)
    name = quote(station_id, safe="").replace(".", "%2E")
    key_file, file = place / f"{name}.key", place / f"{name}.pem"
    _write(key_file, key_pem(key), KEY_MODE, force=force)
    _write(file, pem_of(certificate), CERTIFICATE_MODE, force=force)
    ends = facts_of(certificate).not_after
    out.print(f"{file} and {key_file}: until {ends:%Y-%m-%d}", markup=False, soft_wrap=True)


def _authority(folder: Path) -> Authority:
    try:
        certificate = (folder / CA).read_bytes()
        return Authority.read(certificate, (folder / CA_KEY).read_bytes())
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}; `depot-agent pki init` makes a CA")
    except CertificateFault as fault:
        _fail(str(fault))


def _write(file: Path, content: bytes, mode: int, *, force: bool) -> None:
    """Write whole or not at all, never readable by more than ``mode`` for a moment."""
    if file.exists() and not force:
        _fail(f"{file} is there: --force replaces it")
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(number, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _now() -> datetime:
    return SystemClock().now().astimezone(UTC)


def _fail(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(FAILED)
