"""faults.md section 9, the U rows: settings, secrets and versions that change."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.domain.errors import ConfigFault
from agent.settings import load

ROOT = Path(__file__).parents[2]
CONFIG = """
[site]
cap_kw = 100.0
[ocpp.tls]
certificate = "{folder}/server.pem"
private_key = "{folder}/server.key"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        found = Path(name)
        found.chmod(0o755)
        yield found


def test_u2_a_private_key_that_everybody_can_read_is_refused(folder: Path) -> None:
    config = folder / "agent.toml"
    config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    key = folder / "server.key"
    key.write_text("secret", encoding="utf-8")
    key.chmod(0o644)
    with pytest.raises(ConfigFault) as caught:
        load(config)
    key.chmod(0o600)

    assert "ocpp.tls.private_key" in str(caught.value)
    assert "chmod 600" in str(caught.value)
    assert load(config).ocpp.tls is not None


def test_u2_a_credential_that_everybody_can_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder / "agent.toml"
    config.write_text("[site]\ncap_kw = 1.0\nlocation_uid = 'l'\n", encoding="utf-8")
    secrets = folder / "credentials"
    secrets.mkdir()
    credential = secrets / "DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN"
    credential.write_text("planted", encoding="utf-8")
    credential.chmod(0o644)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    with pytest.raises(ConfigFault) as caught:
        load(config)
    credential.chmod(0o400)
    found = load(config)

    assert "planted" not in str(caught.value)
    assert found.chargeye is not None
    assert found.chargeye.refresh_token.get_secret_value() == "planted"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_u5_every_locked_package_has_hashes_and_the_makefile_wants_them(name: str) -> None:
    """A swapped file does not install: pip refuses what has another hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if re.match(r"^[A-Za-z0-9]", line)]
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert len(pins) > 10
    assert all("==" in line for line in pins)
    assert all("--hash=sha256:" in block for block in blocks)
    assert f"--require-hashes -r {name}" in makefile
