"""[billing]: what is refused before anything starts, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.domain.errors import ConfigFault
from agent.settings import Settings, load
from agent.wiring import needs_restart

HOOK = 'webhook_url = "https://billing.example/hook?key=1"\n'
TOKEN = "hook-secret-7QX"


def read(folder: Path, billing: str) -> Settings:
    file = folder / "agent.toml"
    file.write_text(f"[site]\ncap_kw = 10.0\n[billing]\n{billing}", encoding="utf-8")
    return load(file)


@pytest.mark.parametrize(
    ("billing", "said"),
    [
        ("required = true\n", "required = true needs an accounts_file"),
        ('webhook_url = "billing.example"\n', "webhook_url must look like https://"),
        ('webhook_url = "ftp://billing.example/"\n', "webhook_url must look like"),
        ('webhook_url = "https://x:99999/"\n', "webhook_url is no address"),
        (f'webhook_url = "https://me:{TOKEN}@x/"\n', "set webhook_token instead"),
        (f'webhook_token = "{TOKEN}"\n', "there is no webhook_url"),
        ('without_account = "free"\n', "billing.without_account"),
        ('account_file = "x"\n', "did you mean billing.accounts_file"),
    ],
)
def test_a_mistake_is_named_and_no_secret_with_it(
    tmp_path: Path, billing: str, said: str
) -> None:
    with pytest.raises(ConfigFault) as caught:
        read(tmp_path, billing)

    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_token_shows_nowhere_and_may_not_change_while_running(tmp_path: Path) -> None:
    old = read(tmp_path, HOOK)
    new = read(tmp_path, f'{HOOK}webhook_token = "{TOKEN}"\n')
    same = read(tmp_path, f'{HOOK}accounts_file = "x"\nrequired = true\n')

    assert TOKEN not in repr(new)
    assert "[billing] webhook_url or webhook_token" in str(needs_restart(old, new))
    assert needs_restart(old, same) is None


def test_check_config_reads_the_accounts_too(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.toml"
    read(tmp_path, f'accounts_file = "{accounts}"\n')
    arguments = ["check-config", "--config", str(tmp_path / "agent.toml")]
    runner = CliRunner()
    missing = runner.invoke(app, arguments)
    accounts.write_text('[[accounts]]\nid = "a"\nvin = "x"\n', encoding="utf-8")
    wrong = runner.invoke(app, arguments)
    accounts.write_text('[[accounts]]\nid = "a"\nvins = ["ABC123"]\n', encoding="utf-8")
    good = runner.invoke(app, arguments)

    assert (missing.exit_code, wrong.exit_code, good.exit_code) == (78, 78, 0)
    assert "cannot be read" in missing.output
    assert "accounts[0].vin = ...: is not a known key; did you mean 'vins'?" in wrong.output
    assert good.output.strip() == "ok"
