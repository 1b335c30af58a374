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

CA, STATIONS_CA = "ca", "stations-ca"
FOLDER_MODE, KEY_MODE, CERTIFICATE_MODE = 0o700, 0o600, 0o644
"""Keys are for their owner alone; certificates are public."""
YEAR = 364
"""Days; a certificate also counts for the day before it was made."""

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the CA.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@pki_app.command()
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Name of the CA.")] = "Depot CA",
    organization: Annotated[str, typer.Option(help="Operator of the depot.")] = "",
    days: Annotated[int, typer.Option(min=1, max=14_600, help="Days it lives.")] = 7300,
) -> None:
    """Make the depot's two roots: one for the gateway, one for the stations.

    Apart, because the stations' key may lie on the gateway to sign what they ask for;
    whoever takes it from there can be a station, but not a gateway.

    Example: `depot-agent pki init /srv/depot-ca --organization "Bus Company"`
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    there = [item for item in (CA, STATIONS_CA) if (folder / f"{item}.key").exists()]
    if there:
        _fail(f"{folder / there[0]}.key is there: a second CA would make the first void")
    for base, title in ((CA, name), (STATIONS_CA, f"{name} (stations)")):
        try:
            authority = Authority.make(title, organization, _now(), days)
        except CertificateFault as fault:
            _fail(str(fault))
        key, pem = key_pem(authority.key), pem_of(authority.certificate)
        _write(folder / f"{base}.key", key, KEY_MODE, force=False)
        _write(folder / f"{base}.pem", pem, CERTIFICATE_MODE, force=False)
    _say(f"{folder / CA}.pem: install it at the stations (CentralSystemRootCertificate)")
    _say(f"{folder / CA}.key: whoever has it can be any gateway; keep it off the gateway")
    _say(f"{folder / STATIONS_CA}.pem and .key: client_ca, and [ocpp.pki] if the gateway")
    _say("is to sign what stations ask for; whoever has the key can be any station")


@pki_app.command()
def server(
    folder: FolderArgument,
    host: Annotated[
        list[str],
        typer.Option(help="Name or address by which stations call; repeatable."),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days they live.")] = YEAR,
    force: ForceOption = False,
) -> None:
    """Make the gateway's two certificates: RSA for old stations, ECDSA for the rest.

    Example: `depot-agent pki server /srv/depot-ca --host gateway.depot.example`
    """
    authority = _authority(folder, CA)
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
    _say("[ocpp.tls]")
    _say(f'certificate = "{place}/server-rsa.pem"')
    _say(f'private_key = "{place}/server-rsa.key"')
    _say(f'certificate_2 = "{place}/server-ecdsa.pem"')
    _say(f'private_key_2 = "{place}/server-ecdsa.key"')
    _say(f'client_ca = "{place}/{STATIONS_CA}.pem"')


@pki_app.command()
def station(
    folder: FolderArgument,
    station_id: Annotated[
        str, typer.Argument(metavar="STATION", help="Its id, or its serial number.")
    ],
    rsa: Annotated[bool, typer.Option("--rsa", help="RSA in place of ECDSA.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days it lives.")] = YEAR,
    force: ForceOption = False,
) -> None:
    """Make a key and a certificate for a station that cannot ask for one itself.

    Example: `depot-agent pki station /srv/depot-ca CP-01`
    """
    authority = _authority(folder, STATIONS_CA)
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
    _say(f"{file} and {key_file}: until {ends:%Y-%m-%d}")


def _authority(folder: Path, base: str) -> Authority:
    try:
        certificate = (folder / f"{base}.pem").read_bytes()
        return Authority.read(certificate, (folder / f"{base}.key").read_bytes())
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


def _say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def _now() -> datetime:
    return SystemClock().now().astimezone(UTC)


def _fail(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(FAILED)
