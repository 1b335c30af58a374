"""`depot-agent station`: which operation each command asks for, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app, station

LISTED = {
    "problem": "not connected: installed as last read",
    "link_certificate_ends": "2027-01-02T00:00:00+00:00",
    "issued": [
        {"signed_at": "2026-01-02T0", "serial": "ab", "not_after": "2027-01-02T0", "state": "accepted"}
    ],
    "installed": [{"kind": "[red]csms", "serial": "cd", "not_after": None}],
}  # fmt: skip
EVENT = {"at": "2026-01-02T03:04:05", "grade": "alarm", "kind": "Tamper", "detail": "x"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []

    def operate(_: Path | None, name: str, arguments: dict[str, Any]) -> Any:
        calls.append((name, arguments))
        known = {"stations.certificates": LISTED, "stations.security-events": [EVENT]}
        return known.get(name, {"station": "CP-01", "answer": "Accepted"})

    monkeypatch.setattr(station, "operate", operate)
    return calls


def test_each_command_asks_for_its_operation(
    asked: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("PEM")
    lines = [
        ["password", "CP-01", "--reconnect"],
        ["renew-certificate", "CP-01"],
        ["install-certificate", "CP-01", str(pem), "--kind", "v2g"],
        ["delete-certificate", "CP-01", "ab", "--force"],
        ["get-log", "CP-01", "--url", "sftp://x/", "--kind", "security"],
        ["update-firmware", "CP-01", "--url", "https://x/", "--signature", "s", "--certificate", str(pem)],
    ]  # fmt: skip
    for line in lines:
        done = CliRunner().invoke(app, ["station", *line])
        assert (done.exit_code, "answer: Accepted" in done.stdout) == (0, True)

    assert asked == [
        ("stations.password", {"station": "CP-01", "reconnect": True}),
        ("stations.renew-certificate", {"station": "CP-01"}),
        ("stations.install-certificate", {"station": "CP-01", "kind": "v2g", "pem": "PEM"}),
        (
            "stations.delete-certificate",
            {"station": "CP-01", "serial": "ab", "force": True},
        ),
        ("stations.get-log", {"station": "CP-01", "url": "sftp://x/", "kind": "security"}),
        (
            "stations.update-firmware",
            {
                "station": "CP-01",
                "url": "https://x/",
                "signature": "s",
                "certificate": "PEM",
            },
        ),
    ]


@pytest.mark.usefixtures("asked")
def test_lists_are_tables_and_a_peers_text_is_no_markup() -> None:
    certificates = CliRunner().invoke(app, ["station", "certificates", "CP-01"]).stdout
    events = CliRunner().invoke(app, ["station", "security-events", "CP-01"]).stdout
    as_json = CliRunner().invoke(app, ["station", "certificates", "CP-01", "--json"])

    assert "not connected" in certificates
    assert "ends 2027-01-02" in certificates
    assert "accepted" in certificates
    assert "[red]csms" in certificates
    assert "Tamper" in events
    assert '"serial": "ab"' in as_json.stdout


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "der.cer"
    file.write_bytes(b"\x30\x82\xff")
    done = CliRunner().invoke(app, ["station", "install-certificate", "CP-01", str(file)])

    assert done.exit_code == 1
    assert "cannot be read" in done.stderr
