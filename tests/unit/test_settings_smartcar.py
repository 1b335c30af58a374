"""``[smartcar]``: origins apart, budgets sane, no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cloud.smartcar import Smartcar
from agent.cloud.smartcar_v2 import SmartcarV2
from agent.domain.errors import ConfigFault
from agent.settings import Settings, load
from agent.store.sqlite import SqliteStore
from agent.wiring import smartcar_options, vehicle_cloud
from tests.support.smartcar_cloud import Dice, HandClock, as_ids

BASE = (
    '[site]\ncap_kw = 100\n[smartcar]\nclient_id = "client_x"\nclient_secret = "hunter2"\n'
)
CAR = '[[smartcar.vehicles]]\nvin = "V"\nvehicle_id = "v-1"\n'


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_two_keys_are_enough(tmp_path: Path) -> None:
    """The rest is as documented: v3, 500 a month, 120 s, 5 reads and 2 commands."""
    section = loaded(tmp_path, BASE + CAR).smartcar
    assert section is not None
    options = smartcar_options(section)

    assert options.token_url == "https://iam.smartcar.com/oauth2/token"
    assert options.api_url == "https://vehicle.api.smartcar.com/v3"
    rules = options.rules
    assert (rules.bucket, rules.refill_per_min, rules.monthly) == (120, 2.0, 500)
    assert (rules.reserve, rules.floor_s) == (50, 120)
    assert (rules.session_reads, rules.session_commands) == (5, 2)
    assert options.client_secret == "hunter2"
    assert "hunter2" not in f"{section!r} {section.model_dump_json()} {options!r}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'api_url = "http://vehicle.api.smartcar.com/v3"\n',
            "api_url must begin with https",
        ),
        ('token_url = "ftp://127.0.0.1/"\n', "token_url must begin with https"),
        ('auth_url = "https://"\n', "auth_url must begin with https"),
        ("monthly_requests = 50\n", "command_reserve must be smaller"),
        ('api = "v1"\n', "api"),
        (CAR + CAR, "'v-1' stands twice"),
        ('api = "v2"\n' + CAR, "needs a user_id"),
        ('v3_url = ""\n', "did you mean smartcar.v2_url"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """With the key and a remedy; secrets are not shown."""
    with pytest.raises(ConfigFault) as caught:
        loaded(tmp_path, BASE + text)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_the_generation_is_a_switch(tmp_path: Path) -> None:
    """Off without the section; http is taken on loopback, for stand-ins."""
    where = f'[store]\npath = "{tmp_path}/agent.db"\n'
    store = SqliteStore(tmp_path / "other.db", threaded=False)
    texts = {
        None: "[site]\ncap_kw = 100\n",
        Smartcar: BASE + 'api_url = "http://127.0.0.1:8099/v3"\n',
        SmartcarV2: BASE + 'api = "v2"\n',
    }
    for kind, text in texts.items():
        settings = loaded(tmp_path, text + where)
        cloud = vehicle_cloud(settings, store, HandClock(), as_ids(Dice()))
        assert (cloud is None) if kind is None else isinstance(cloud, kind)
        if cloud is not None:
            await cloud.close()
    store.close()
