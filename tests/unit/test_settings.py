"""Settings from one file: overrides, secrets, and faults that name key, value and remedy."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent import settings as module
from agent.domain.errors import ConfigFault
from agent.domain.plan import AfterPlan
from agent.settings import Settings, load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "agent.toml"
HASH = f"sha256${'0' * 32}${'1' * 64}"
MINIMAL = """
[site]
cap_kw = 400.0
location_uid = "loc-1"
"""
WHOLE = (
    MINIMAL
    + """
[policy]
after_plan = "pause"
[ocpp]
port = 9001
[[ocpp.extractors]]
vendor_id = "V"
pattern = "([0-9A-F]{12})"
[[stations]]
id = "CP-01"
security_profile = 1
password = "hunter2hunter2-A"
quirks = ["stack-level-0"]
aliases = ["old-1"]
[[stations]]
id = "CP-02"
[[circuits]]
id = "feeder-a"
cap_kw = 250.0
stations = ["CP-01", "CP-02"]
[chargeye]
refresh_token = "hunter2hunter2-B"
[smartcar]
client_id = "id"
client_secret = "hunter2hunter2-C"
[store]
path = "/tmp/agent.db"
"""
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigFault) as caught:
        loaded(folder, text)
    assert caught.value.faults
    assert "hunter2" not in str(caught.value)
    return [str(fault) for fault in caught.value.faults]


def test_a_minimal_file_is_enough(tmp_path: Path) -> None:
    """Everything else has a default."""
    found = loaded(tmp_path, MINIMAL)

    assert (found.site.cap_kw, found.ocpp.port, found.web.port) == (400.0, 9000, 9100)
    assert (found.chargeye, found.stations) == (None, ())
    assert found.policy.after_plan is AfterPlan.HOLD_MINIMUM


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Every section of the contract."""
    found = loaded(tmp_path, WHOLE)

    assert found.policy.after_plan is AfterPlan.PAUSE
    assert [station.id for station in found.stations] == ["CP-01", "CP-02"]
    assert found.stations[0].password.get_secret_value() == "hunter2hunter2-A"
    assert found.circuits[0].stations == ("CP-01", "CP-02")
    assert found.chargeye is not None
    assert found.chargeye.refresh_token.get_secret_value() == "hunter2hunter2-B"
    assert found.store.path == Path("/tmp/agent.db")


def test_l2_no_secret_is_shown_when_settings_are_printed(tmp_path: Path) -> None:
    """L2."""
    found = loaded(tmp_path, WHOLE)

    for shown in (
        repr(found),
        str(found),
        str(found.model_dump()),
        found.model_dump_json(),
    ):
        assert "hunter2" not in shown


def test_the_commented_example_loads() -> None:
    """What `make run` starts from."""
    assert load(EXAMPLE).site.cap_kw > 0


# --- wrong files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[site]\ncap_kw = 1\ncap_kv = 2", ["site.cap_kv = 2", "unknown key", "site.cap_kw?"]),
        ("[sitte]\ncap_kw = 1", ["sitte", "did you mean site?"]),
        ("[site]\ncap_kw = 1\n[zzz]", ["zzz", "unknown key", "remove it"]),
        ("[[stations]]\nid = 'a'\n[[stations]]\nid = 'b'\nmax_kww = 5",
         ["stations[1].max_kww = 5", "stations[1].max_kw?"]),
        ("[ocpp.tls]\ncertificat = 'x'", ["ocpp.tls.certificat", "ocpp.tls.certificate?"]),
        ("[[ocpp.extractors]]\nvendor = 'x'", ["ocpp.extractors[0].vendor", "vendor_id?"]),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_nearest_name(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    """Contract section 3."""
    (line,) = faults(tmp_path, text)

    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("[site]\ncap_kw = 0", "site.cap_kw"),
        ("[site]\ncap_kw = 'much'", "site.cap_kw"),
        ("[site]\nname = 'x'", "site.cap_kw"),
        ("", "site"),
        (MINIMAL + "[ocpp]\nport = 70000", "ocpp.port"),
        (MINIMAL + "[ocpp]\nunknown_stations = 'maybe'", "ocpp.unknown_stations"),
        (MINIMAL + "[policy]\nafter_plan = 'sleep'", "policy.after_plan"),
        (MINIMAL + "[policy]\nunmatched_kw = -1", "policy.unmatched_kw"),
        (MINIMAL + "[log]\nlevel = 'loud'", "log.level"),
        (MINIMAL + "[[stations]]\nid = ''", "stations[0].id"),
        (MINIMAL + f"[[stations]]\nid = '{'x' * 49}'", "stations[0].id"),
        (MINIMAL + "[[stations]]\nid = 'a'\nsecurity_profile = 4", "stations[0].security_profile"),
        (MINIMAL + "[[stations]]\nid = 'a'\npassword_hash = 'md5$1$2'", "stations[0].password_hash"),
        (MINIMAL + "[[stations]]\nid = 'a'\noutlets = 65", "stations[0].outlets"),
        (MINIMAL + "[[ocpp.extractors]]\nvendor_id = 'V'\nfield = 'vin'", "ocpp.extractors[0].field"),
        (MINIMAL + "[chargeye]\nbase_url = 'https://x'", "chargeye.refresh_token"),
        ("stations = 5\n" + MINIMAL, "stations"),
        (MINIMAL + "[site.x]", "site.x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key_and_a_remedy(
    tmp_path: Path, change: str, key: str
) -> None:
    """One line per fault, for a technician."""
    lines = faults(tmp_path, change)

    assert any(line.startswith(key) for line in lines), lines
    assert all("; " in line and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("[[stations]]\nid = 'a'\nsecurity_profile = 1", "needs a password"),
        ("[[stations]]\nid = 'a'\nsecurity_profile = 2", "needs a password"),
        ("[[stations]]\nid = 'a'\nquirks = ['stack-level-1']", "did you mean 'stack-level-0'?"),
        ("[[stations]]\nid = 'a'\n[[stations]]\nid = 'A'", "used twice"),
        ("[[stations]]\nid = 'a'\n[[stations]]\nid = 'b'\naliases = ['A']", "used twice"),
        ("[[stations]]\nid = 'a'\naliases = ['x']\n[[stations]]\nid = 'b'\naliases = ['X']",
         "used twice"),
        ("[[stations]]\nid = 'CP-01'\n[[circuits]]\nid = 'f'\ncap_kw = 1\nstations = ['CP-02']",
         "did you mean 'CP-01'?"),
        ("[chargeye]\nrefresh_token = 'x'\nbase_url = 'ftp://x'", "https://"),
        ("[chargeye]\nrefresh_token = 'x'\n[chargeye.paths]\nvehicels = '/x'",
         "did you mean 'vehicles'?"),
        ("[[ocpp.extractors]]\nvendor_id = 'V'\npattern = '(['", "pattern"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, change: str, words: str
) -> None:
    """Duplicate ids and aliases, unknown quirks and stations, bad patterns."""
    assert any(words in line for line in faults(tmp_path, MINIMAL + change))


def test_a_location_is_needed_to_read_schedules(tmp_path: Path) -> None:
    """Else every depot's schedules would be ours."""
    text = "[site]\ncap_kw = 1\n[chargeye]\nrefresh_token = 'x'"

    assert any("site.location_uid" in line for line in faults(tmp_path, text))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """A technician drives to the depot once."""
    text = "[site]\ncap_kw = 0\n[ocpp]\nport = -1\n[log]\nlevel = 'x'"

    assert len(faults(tmp_path, text)) == 3


@pytest.mark.parametrize(
    "content", [b"[site", b"\xff\xfe", b"a = 1\na = 2", b"[[site]]\n[site]\n"]
)
def test_a_file_that_is_no_toml_is_one_fault(tmp_path: Path, content: bytes) -> None:
    """With the place in it."""
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigFault):
        load(path)


def test_a_missing_file_and_a_folder_are_one_fault(tmp_path: Path) -> None:
    """Never a traceback."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigFault, match="cannot be read"):
            load(path)


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "[[stations]]\nid = 'a'\npasword = 'hunter2'",
        MINIMAL + "[[stations]]\nid = 'a'\npw = 'hunter2'",
        MINIMAL + "[[stations]]\nid = 'a'\npassword = ['hunter2']",
        MINIMAL + "[[stations]]\nid = 'a'\nauthorization_key = 'hunter2'",
        MINIMAL + "[[stations]]\nid = 'a'\npassword_hash = 'hunter2'",
        MINIMAL + "[chargeye]\nrefresh_tokn = 'hunter2'",
        MINIMAL + "[chargeye]\nrefresh_token = {a = 'hunter2'}",
        MINIMAL + "[chargeye]\nrefresh_token = 'hunter2'\nbase_url = 'x'",
        "[site]\ncap_kw = 1\n[chargeye]\nrefresh_token = 'hunter2'",
        MINIMAL + "[smartcar]\nclient_id = 5\nclient_secret = 'hunter2'",
        MINIMAL + "[smartcar]\nclient_id = 'x'\nclientsecret = 'hunter2'",
    ],
)
def test_no_fault_shows_a_secret(tmp_path: Path, text: str) -> None:
    """Not even under a misspelled key; `faults` looks at every line."""
    assert faults(tmp_path, text)


# --- overrides and secrets -----------------------------------------------------------------


def test_the_environment_is_stronger_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEPOT_AGENT__SECTION__KEY, in any letter case."""
    monkeypatch.setenv("DEPOT_AGENT__SITE__CAP_KW", "123.5")
    monkeypatch.setenv("depot_agent__log__level", "debug")
    monkeypatch.setenv("DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN", "from-env")
    monkeypatch.setenv("DEPOT_AGENT__OCPP__ACCEPTED_VENDORS", '["A", "B"]')
    found = loaded(tmp_path, WHOLE)

    assert (found.site.cap_kw, found.log.level) == (123.5, "debug")
    assert found.site.location_uid == "loc-1"
    assert found.chargeye is not None
    assert found.chargeye.refresh_token.get_secret_value() == "from-env"
    assert found.ocpp.accepted_vendors == ("A", "B")


def test_a_key_that_is_only_in_the_environment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key can be overridden, also a missing one."""
    monkeypatch.setenv("DEPOT_AGENT__SITE__CAP_KW", "5")

    assert loaded(tmp_path, "").site.cap_kw == 5.0


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("DEPOT_AGENT__SITE__CAP_KW", "much", "site.cap_kw"),
        ("DEPOT_AGENT__SITE__CAP_KV", "5", "did you mean site.cap_kw?"),
        ("DEPOT_AGENT__SITTE__CAP_KW", "5", "did you mean site?"),
        (
            "DEPOT_AGENT__CHARGEYE__REFRESH_TOKN",
            "hunter2",
            "did you mean chargeye.refresh_token?",
        ),
        ("DEPOT_AGENT__ZZZ", "hunter2", "DEPOT_AGENT__ZZZ"),
        ("DEPOT_AGENT__STATIONS", "no json", "stations"),
        ("DEPOT_AGENT__STATIONS", '[{"id": ""}]', "stations[0].id"),
        ("DEPOT_AGENT__SITE", "5", "site"),
        ("DEPOT_AGENT__OCPP__ACCEPTED_VENDORS", "no json", "ocpp"),
    ],
)
def test_a_wrong_variable_is_a_named_fault_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    """The environment is configuration too."""
    monkeypatch.setenv(name, value)

    assert any(key in line for line in faults(tmp_path, MINIMAL))


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def test_secrets_come_from_files_named_as_their_variables(
    tmp_path: Path, credentials: Path
) -> None:
    """Systemd LoadCredential; a newline at the end is not part of a token."""
    (credentials / "DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN").write_text("from-file\n")
    (credentials / "something-else").write_text("x")
    found = loaded(tmp_path, WHOLE)

    assert found.chargeye is not None
    assert found.chargeye.refresh_token.get_secret_value() == "from-file"


def test_the_environment_is_stronger_than_a_credential(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order of strength: environment, credentials, file."""
    (credentials / "DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN").write_text("from-file")
    monkeypatch.setenv("DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN", "from-env")
    found = loaded(tmp_path, WHOLE)

    assert found.chargeye is not None
    assert found.chargeye.refresh_token.get_secret_value() == "from-env"


def test_a_credential_that_cannot_be_read_is_a_named_fault(
    tmp_path: Path, credentials: Path
) -> None:
    """Bytes that are no text, and a folder in a file's place."""
    file = credentials / "DEPOT_AGENT__CHARGEYE__REFRESH_TOKEN"
    file.write_bytes(b"\xff\xfe")
    assert any("CREDENTIALS_DIRECTORY" in line for line in faults(tmp_path, WHOLE))
    file.unlink()
    file.mkdir()
    assert any("CREDENTIALS_DIRECTORY" in line for line in faults(tmp_path, WHOLE))


def test_a_credentials_folder_that_is_not_there_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by hand."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "none"))

    assert loaded(tmp_path, MINIMAL).site.cap_kw == 400.0


def test_every_section_of_the_settings_refuses_unknown_keys() -> None:
    """A new section must not be lenient by accident."""
    models: list[Any] = [Settings]
    for model in models:
        assert model.model_config["extra"] == "forbid"
        for field in model.model_fields.values():
            inner = module._model_of(field.annotation)
            if inner is not None:
                models.append(inner)

    assert len(models) >= 14
    assert tomllib.loads(WHOLE)
