"""`depot-agent pki`, `simulate` with TLS, and what `check-config` says of TLS files."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.simulator.command import SimulateOptions, tls_contexts
from agent.stations.certificates import facts_of, names_of, read_chain
from tests.support.daemon_process import DaemonProcess, free_port

ROOT_KEYS = ("ca.key", "stations-ca.key")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pki") / "ca"
    assert run("pki", "init", str(made), "--organization", "Depot").exit_code == 0
    hosts = ("--host", "gw.depot.example", "--host", "127.0.0.1")
    assert run("pki", "server", str(made), *hosts).exit_code == 0
    assert run("pki", "station", str(made), "CP-01").exit_code == 0
    return made


def test_a_depot_ca_has_two_roots_and_keys_for_their_owner_alone(folder: Path) -> None:
    """Whoever steals the stations' key from the gateway cannot be a gateway."""
    modes = {
        item.name: item.stat().st_mode & 0o777
        for item in folder.iterdir()
        if item.is_file()
    }
    ca, stations = (
        read_chain((folder / f"{name}.pem").read_bytes())[0]
        for name in ("ca", "stations-ca")
    )
    server = read_chain((folder / "server-ecdsa.pem").read_bytes())[0]
    station = read_chain((folder / "stations" / "CP-01.pem").read_bytes())[0]

    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert (folder.stat().st_mode & 0o777, modes["ca.pem"]) == (0o700, 0o644)
    server.verify_directly_issued_by(ca)
    station.verify_directly_issued_by(stations)
    assert names_of(server) == {"gw.depot.example"}
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days < 366
    assert facts_of(read_chain((folder / "server-rsa.pem").read_bytes())[0]).is_rsa


def test_nothing_that_is_there_is_overwritten_unasked(folder: Path) -> None:
    """A second root would make every station's certificate void."""
    before = {name: (folder / name).read_bytes() for name in ROOT_KEYS}
    again = run("pki", "init", str(folder))
    station = run("pki", "station", str(folder), "CP-01")
    forced = run("pki", "station", str(folder), "CP-01", "--force", "--rsa")

    assert (again.exit_code, station.exit_code, forced.exit_code) == (1, 1, 0)
    assert "--force" in station.stderr
    assert before == {name: (folder / name).read_bytes() for name in ROOT_KEYS}
    assert not [item for item in folder.rglob(".*") if item.is_file()]


def test_what_cannot_be_made_is_said(folder: Path, tmp_path: Path) -> None:
    """Wrong hosts, no CA, an id that is a path."""
    wrong = run("pki", "server", str(folder), "--host", "not a host", "--force")
    none = run("pki", "server", str(tmp_path), "--host", "gw")
    odd = run("pki", "station", str(folder), "../../CP")

    assert (wrong.exit_code, none.exit_code, odd.exit_code) == (1, 1, 0)
    assert "not a host" in wrong.stderr
    assert "pki init" in none.stderr
    assert (folder / "stations" / "%2E%2E%2F%2E%2E%2FCP.pem").is_file()


def test_check_config_reads_the_files_of_tls_and_of_the_signer(
    folder: Path, tmp_path: Path
) -> None:
    """Before the daemon does; paths may name the credentials' folder."""
    config = tmp_path / "agent.toml"

    def check(key: str, ca_key: str) -> Result:
        config.write_text(
            f"""
            [site]
            cap_kw = 100
            [ocpp.tls]
            certificate = "{folder}/server-rsa.pem"
            private_key = "{key}"
            [ocpp.pki]
            ca_certificate = "{folder}/stations-ca.pem"
            ca_key = "{ca_key}"
            """
        )
        return CliRunner().invoke(
            app, ["check-config", "--config", str(config)], env={"PLACE": str(folder)}
        )

    good = check("$PLACE/server-rsa.key", f"{folder}/stations-ca.key")
    no_key = check(f"{folder}/server-ecdsa.key", f"{folder}/stations-ca.key")
    no_ca = check("$PLACE/server-rsa.key", f"{folder}/ca.key")

    assert (good.exit_code, good.stdout) == (0, "ok\n")
    assert (no_key.exit_code, no_ca.exit_code) == (78, 78)
    assert "ocpp.tls.private_key" in no_key.stderr
    assert "ocpp.pki.ca_key" in no_ca.stderr


def test_virtual_stations_take_a_ca_and_a_certificate_each(folder: Path) -> None:
    """`--cert` and `--key` with the station's id in their paths."""
    place = str(folder / "stations" / "{id}")
    options = SimulateOptions(
        url="wss://localhost:1/",
        ca=folder / "ca.pem",
        cert=f"{place}.pem",
        key=f"{place}.key",
    )
    contexts = tls_contexts(options, ["CP-01"])

    assert contexts["CP-01"].verify_mode is ssl.CERT_REQUIRED
    assert len(contexts["CP-01"].get_ca_certs()) == 1
    with pytest.raises(ValueError, match="CP-77"):
        tls_contexts(options, ["CP-77"])
    with pytest.raises(ValueError, match="wss"):
        tls_contexts(SimulateOptions(url="ws://x/", ca=folder / "ca.pem"), [])
    with pytest.raises(ValueError, match="together"):
        tls_contexts(SimulateOptions(url="wss://x/", cert="x"), [])


def test_the_listener_offers_the_curves_of_the_public_list_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What scanners hold it against; an OPENSSL_CONF of the operator's own wins."""
    # Measuring coverage loads OpenSSL before the daemon's first line could set it up.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    port = free_port()
    config = f"""
[site]
cap_kw = 100.0
[ocpp]
host = "127.0.0.1"
port = OCPP_PORT
[ocpp.tls]
port = {port}
certificate = "{folder}/server-ecdsa.pem"
private_key = "{folder}/server-ecdsa.key"
certificate_2 = "{folder}/server-rsa.pem"
private_key_2 = "{folder}/server-rsa.key"
"""

    def taken(curve: str, version: ssl.TLSVersion) -> bool:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.minimum_version = context.maximum_version = version
        context.set_ecdh_curve(curve)
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1"),
            ):
                return True
        except ssl.SSLError:
            return False

    curves = ("prime256v1", "secp384r1", "secp521r1")
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    daemon = DaemonProcess(tmp_path, config)
    daemon.start()
    try:
        found = {curve: {taken(curve, version) for version in versions} for curve in curves}
    finally:
        daemon.stop()

    assert found == {"prime256v1": {True}, "secp384r1": {True}, "secp521r1": {False}}
