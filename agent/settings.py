"""Typed settings from one TOML file, with overrides and secrets; every fault named.

Order of strength: environment ``DEPOT_AGENT__SECTION__KEY``, then files named so in
``$CREDENTIALS_DIRECTORY``, then the file. Unknown keys are refused with the nearest
known name (contract section 3).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from agent.domain.billing import WithoutAccount
from agent.domain.capability import QUIRKS
from agent.domain.errors import ConfigFault, ConfigProblem
from agent.domain.ladder import Rung
from agent.domain.plan import AfterPlan

PREFIX = "DEPOT_AGENT__"
DEFAULT_PATH = Path("/etc/depot-agent/agent.toml")
PATHS_KNOWN = (
    "token", "locations", "location", "location_stations", "location_schedules",
    "vehicles", "vehicle", "vehicle_schedules", "active_schedule", "stations",
    "station_transactions", "transactions", "transaction", "power_group",
)  # fmt: skip
PasswordHash = Field(default="", pattern=r"^(sha256\$[0-9a-f]{32}\$[0-9a-f]{64})?$")


class _Section(BaseModel):
    """A table of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteMeterSection(_Section):
    """``[site.meter]``: a meter at the grid connection; leave it out to run without."""

    file: str = ""
    url: str = ""
    path: str = ""
    unit: Literal["W", "kW"] = "W"
    poll_s: float = Field(default=5.0, ge=1, le=60)
    stale_s: float = Field(default=60.0, ge=5, le=3600)
    unmanaged_max_kw: float = Field(ge=0, le=100_000)
    pv_max_kw: float = Field(default=0.0, ge=0, le=100_000)
    includes_charging: bool = True

    @model_validator(mode="after")
    def _check(self) -> SiteMeterSection:
        if bool(self.file) == bool(self.url):
            raise ValueError("give the meter a file or a url, exactly one of them")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.stale_s < 2 * self.poll_s:
            raise ValueError("stale_s must be at least twice poll_s, or one miss is a loss")
        return self


class Site(_Section):
    """``[site]``: the depot."""

    name: str = "depot"
    location_uid: str = ""
    cap_kw: float = Field(gt=0, le=100_000)
    cap_a: float | None = Field(default=None, gt=0, le=100_000)
    voltage: float = Field(default=230.0, ge=100, le=300)
    efficiency: float = Field(default=0.94, gt=0.5, le=1.0)
    meter: SiteMeterSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Site:
        if self.meter is not None and self.meter.unmanaged_max_kw >= self.cap_kw:
            raise ValueError("meter.unmanaged_max_kw leaves nothing of cap_kw for charging")
        return self


class PolicySection(_Section):
    """``[policy]``: what holds where no plan does."""

    unmatched_kw: float = Field(default=20.0, ge=0, le=4000)
    unplanned_kw: float = Field(default=40.0, ge=0, le=4000)
    after_plan: AfterPlan = AfterPlan.HOLD_MINIMUM
    plan_max_age_s: float = Field(default=86400, gt=0)
    max_offline_s: int = Field(default=43_200, ge=60, le=604_800)
    wake_restart: bool = False
    catch_up: bool = False
    goal_remote_stop: bool = False


class Tls(_Section):
    """``[ocpp.tls]``: the second listener. ``$VARIABLES`` in paths are filled in."""

    port: int = Field(default=9443, ge=0, le=65535)
    certificate: str
    private_key: str
    certificate_2: str = ""
    private_key_2: str = ""
    client_ca: str = ""
    client_crl: str = ""
    static_rsa: bool = False

    @model_validator(mode="after")
    def _check(self) -> Tls:
        if bool(self.certificate_2) != bool(self.private_key_2):
            raise ValueError("certificate_2 and private_key_2 come together or not at all")
        return self


class Pki(_Section):
    """``[ocpp.pki]``: who signs the certificates that stations ask for."""

    ca_certificate: str = ""
    ca_key: str = ""
    exchange_folder: str = ""
    station_days: int = Field(default=365, ge=1, le=3650)
    renew_days: int = Field(default=30, ge=0, le=365)

    @model_validator(mode="after")
    def _check(self) -> Pki:
        if bool(self.ca_certificate) != bool(self.ca_key):
            raise ValueError("ca_certificate and ca_key come together or not at all")
        if bool(self.ca_key) == bool(self.exchange_folder):
            raise ValueError(
                "give a CA (ca_certificate and ca_key) or an exchange_folder, one of them"
            )
        return self


class Extractor(_Section):
    """``[[ocpp.extractors]]``: reads a vendor's DataTransfer."""

    vendor_id: str
    message_id: str = ""
    field: Literal["mac", "soc", "connector"] = "mac"
    path: str = ""
    pattern: str = ""

    @model_validator(mode="after")
    def _check(self) -> Extractor:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"the pattern {self.pattern[:40]!r} is no regular expression: {error}"
            ) from error
        return self


class Ocpp(_Section):
    """``[ocpp]``: where stations connect."""

    host: str = "0.0.0.0"  # noqa: S104 - stations are in the depot's LAN
    port: int = Field(default=9000, ge=0, le=65535)
    unknown_stations: Literal["refuse", "accept"] = "refuse"
    hide_station_ids: bool = False
    tls: Tls | None = None
    pki: Pki | None = None
    heartbeat_s: int = Field(default=300, ge=10, le=86400)
    meter_interval_s: int = Field(default=30, ge=1, le=3600)
    assume_version: Literal["1.6", "2.0.1", "2.1", "none"] = "1.6"
    station_messages_per_s: float = Field(default=50.0, ge=0, le=100_000)
    bare_mac_tags: bool = True
    contract_certificates: Literal["refuse", "accept"] = "refuse"
    accepted_vendors: tuple[str, ...] = ()
    extractors: tuple[Extractor, ...] = ()


class Station(_Section):
    """``[[stations]]``: one charging station."""

    id: str = Field(min_length=1, max_length=48)
    security_profile: int = Field(default=0, ge=0, le=3)
    password: SecretStr = SecretStr("")
    password_hash: str = PasswordHash
    max_kw: float = Field(default=150.0, gt=0, le=10_000)
    fallback_kw: float = Field(default=5.0, ge=0, le=4000)
    current: Literal["dc", "ac"] = "dc"
    boot: Literal["accept", "pending", "reject"] = "accept"
    phases: Literal[1, 3] = 3
    phase: Literal["", "L1", "L2", "L3"] = ""
    outlets: int = Field(default=1, ge=1, le=64)
    chargeye_station_id: str = ""
    chargeye_connectors: dict[str, str] = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    certificate_name: str = ""
    serial_number: str = ""
    allow_lower_profile: bool = False
    versions: tuple[Literal["1.6", "2.0.1", "2.1"], ...] = ()
    quirks: tuple[str, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Station:
        if self.phase and (self.current != "ac" or self.phases != 1):
            raise ValueError('phase is for stations with current = "ac" and phases = 1')
        if self.security_profile in (1, 2) and not self.has_password:
            raise ValueError(f"security_profile {self.security_profile} needs a password")
        for quirk in self.quirks:
            if quirk not in QUIRKS:
                raise ValueError(f"the quirk {quirk!r} is not known{_near(quirk, QUIRKS)}")
        return self

    @property
    def has_password(self) -> bool:
        """Whether the station must send Basic credentials."""
        return bool(self.password.get_secret_value() or self.password_hash)


class LadderSection(_Section):
    """``[[ladders]]``: how to limit a model, where a person knows better."""

    vendor: str
    model: str
    firmware: str = ""
    rung: str = ""
    limit_key: str = ""

    @model_validator(mode="after")
    def _check(self) -> LadderSection:
        rungs = [str(item) for item in Rung]
        if self.rung and self.rung not in rungs:
            raise ValueError(
                f"the rung {self.rung!r} is not known{_near(self.rung, rungs)}"
            )
        if not self.rung and not self.limit_key:
            raise ValueError("it names neither a rung nor a limit_key")
        return self


class CircuitSection(_Section):
    """``[[circuits]]``: a feeder."""

    id: str
    cap_kw: float | None = Field(default=None, gt=0)
    cap_a: float | None = Field(default=None, gt=0, le=100_000)
    voltage: float = Field(default=230.0, ge=100, le=300)
    stations: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> CircuitSection:
        if self.cap_kw is None and self.cap_a is None:
            raise ValueError(f"circuit {self.id!r} needs cap_kw, cap_a (per phase) or both")
        return self


class ChargEyeSection(_Section):
    """``[chargeye]``: leave it out to run without."""

    base_url: str = "https://kempower.io/api"
    refresh_token: SecretStr
    vehicles_poll_s: float = Field(default=300, ge=1)
    schedules_poll_s: float = Field(default=60, ge=1)
    paths: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> ChargEyeSection:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with https:// (or http:// on loopback)")
        for name in self.paths:
            if name not in PATHS_KNOWN:
                raise ValueError(
                    f"the path {name!r} is not known{_near(name, PATHS_KNOWN)}"
                )
        return self


class SmartcarVehicle(_Section):
    """``[[smartcar.vehicles]]``: a car that its driver connected.

    ``refresh_token`` (v2 only) is the one that the driver's consent gave; what renewals
    give after it lives in ``smartcar-tokens.json`` beside the database.
    """

    vin: str = Field(max_length=17)
    vehicle_id: str = Field(min_length=1, max_length=100)
    user_id: str = Field(default="", max_length=100)
    refresh_token: SecretStr = SecretStr("")
    make: str = Field(default="", max_length=40)
    limit_min_percent: float | None = Field(default=None, ge=50, le=100)
    limit_max_percent: float | None = Field(default=None, ge=50, le=100)
    care_percent: float | None = Field(default=None, ge=50, le=100)


class SmartcarMake(_Section):
    """``[[smartcar.makes]]``: what vehicles of some makes cannot be told."""

    names: tuple[str, ...] = Field(min_length=1)
    start: Literal["yes", "no", "without-timers"] = "yes"
    stop: bool = True
    start_min_soc: float = Field(default=0, ge=0, le=100)
    stop_min_soc: float = Field(default=0, ge=0, le=100)


SMARTCAR_ADDRESSES = ("token_url", "api_url", "auth_url", "v2_url", "management_url")


class SmartcarSection(_Section):
    """``[smartcar]``: leave it out to run without.

    The generations live on different hosts, so every origin is a setting of its own
    (smartcar.md section 1).
    """

    client_id: str = Field(min_length=1)
    client_secret: SecretStr
    api: Literal["v3", "v2"] = "v3"
    mode: Literal["live", "simulated"] = "live"
    token_url: str = "https://iam.smartcar.com/oauth2/token"  # noqa: S105 - an address
    api_url: str = "https://vehicle.api.smartcar.com/v3"
    connect_url: str = "https://connect.smartcar.com/oauth/authorize"
    auth_url: str = "https://auth.smartcar.com/oauth/token"
    v2_url: str = "https://api.smartcar.com/v2.0"
    management_url: str = "https://management.smartcar.com/v2.0"
    management_token: SecretStr = SecretStr("")
    monthly_requests: int = Field(default=500, ge=1, le=100_000)
    command_reserve: int = Field(default=50, ge=0, le=100_000)
    request_floor_s: float = Field(default=120, ge=1, le=3600)
    session_reads: int = Field(default=5, ge=0, le=100)
    session_commands: int = Field(default=2, ge=0, le=20)
    bucket_requests: int = Field(default=120, ge=1, le=10_000)
    bucket_refill_per_min: float = Field(default=2.0, gt=0, le=1000)
    limit_min_percent: float = Field(default=50, ge=50, le=100)
    limit_max_percent: float = Field(default=100, ge=50, le=100)
    care_percent: float | None = Field(default=None, ge=50, le=100)
    goal_car_stop: bool = False
    asks_why_stopped: bool = False
    makes: tuple[SmartcarMake, ...] = ()
    vehicles: tuple[SmartcarVehicle, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> SmartcarSection:
        for name in (*SMARTCAR_ADDRESSES, "connect_url"):
            if not _is_safe_address(getattr(self, name)):
                raise ValueError(
                    f"{name} must begin with https:// (or http:// on loopback)"
                )
        if self.command_reserve >= self.monthly_requests:
            raise ValueError("command_reserve must be smaller than monthly_requests")
        ids = [item.vehicle_id for item in self.vehicles]
        for vehicle_id in ids:
            if ids.count(vehicle_id) > 1:
                raise ValueError(f"vehicles: the vehicle_id {vehicle_id!r} stands twice")
        if self.api == "v2":
            for item in self.vehicles:
                if not item.user_id:
                    raise ValueError(
                        f"vehicles: {item.vehicle_id!r} needs a user_id: with api = "
                        '"v2" the tokens belong to users'
                    )
        return self


def _is_safe_address(text: str) -> bool:
    """Https, or http to this very machine: a secret goes with every request."""
    try:
        found = urlsplit(text)
        host = found.hostname or ""
    except ValueError:
        return False
    is_loopback = host in ("localhost", "::1") or host.startswith("127.")
    return bool(host) and (
        found.scheme == "https" or (found.scheme == "http" and is_loopback)
    )


class Billing(_Section):
    """``[billing]``: which accounts pay, and where finished sessions are posted."""

    accounts_file: str = ""
    required: bool = False
    without_account: WithoutAccount = WithoutAccount.REFUSE
    webhook_url: str = ""
    webhook_token: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _check(self) -> Billing:
        if self.webhook_url:
            _check_webhook(self.webhook_url)
        elif self.webhook_token.get_secret_value():
            raise ValueError("webhook_token is set, but there is no webhook_url")
        if self.required and not self.accounts_file:
            raise ValueError("required = true needs an accounts_file")
        return self


def _check_webhook(text: str) -> None:
    """Refuse what no POST can go to. Raises ValueError."""
    try:
        found = urlsplit(text)
        host, port = found.hostname, found.port
    except ValueError as error:
        raise ValueError(f"webhook_url is no address: {error}") from error
    if found.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("webhook_url must look like https://billing.example/sessions")
    if "@" in found.netloc:
        raise ValueError(
            "webhook_url holds a password: take it out and set webhook_token instead"
        )


class Local(_Section):
    """``[local]``: registry and schedules from files, in ChargEye's JSON shapes.

    Without ``[chargeye]`` they take its place; with it they add what it does not know.
    """

    vehicles_file: str = ""
    schedules_file: str = ""


class StoreSection(_Section):
    """``[store]``: the database."""

    path: Path = Path("/var/lib/depot-agent/agent.db")


class Web(_Section):
    """``[web]``: status page, JSON, metrics."""

    host: str = "127.0.0.1"
    port: int = Field(default=9100, ge=0, le=65535)
    commands: bool = False


class Log(_Section):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    site: Site
    policy: PolicySection = PolicySection()
    ocpp: Ocpp = Ocpp()
    stations: tuple[Station, ...] = ()
    circuits: tuple[CircuitSection, ...] = ()
    ladders: tuple[LadderSection, ...] = ()
    chargeye: ChargEyeSection | None = None
    smartcar: SmartcarSection | None = None
    billing: Billing = Billing()
    local: Local = Local()
    store: StoreSection = StoreSection()
    web: Web = Web()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then credentials, then the file."""
        del dotenv_settings, file_secret_settings
        return env_settings, _Credentials(settings_cls), init_settings

    @model_validator(mode="after")
    def _check(self) -> Settings:
        known = [station.id for station in self.stations]
        names = [
            name for station in self.stations for name in (station.id, *station.aliases)
        ]
        folded = [name.casefold() for name in names]
        for name in names:
            if folded.count(name.casefold()) > 1:
                raise ValueError(f"stations: the id or alias {name!r} is used twice")
        for circuit in self.circuits:
            for name in circuit.stations:
                if name not in known:
                    raise ValueError(
                        f"circuits: {circuit.id!r} names the station {name!r}, "
                        f"which is not configured{_near(name, known)}"
                    )
        tls = self.ocpp.tls
        for station in self.stations:
            if station.security_profile >= 2 and tls is None:  # noqa: PLR2004
                raise ValueError(
                    f"stations: {station.id!r} has security_profile "
                    f"{station.security_profile}, which needs the listener of [ocpp.tls]"
                )
            if station.security_profile == 3 and (tls is None or not tls.client_ca):  # noqa: PLR2004
                raise ValueError(
                    f"stations: {station.id!r} has security_profile 3, which needs "
                    "ocpp.tls.client_ca"
                )
        if self.chargeye is not None and not self.site.location_uid:
            raise ValueError("site.location_uid is needed to read ChargEye's schedules")
        return self


class _Credentials(EnvSettingsSource):
    """Secrets from files in ``$CREDENTIALS_DIRECTORY`` (systemd LoadCredential)."""

    def _load_env_vars(self) -> dict[str, str | None]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        found: dict[str, str | None] = {}
        if folder and Path(folder).is_dir():
            for file in Path(folder).iterdir():
                if file.name.upper().startswith(PREFIX):
                    found[file.name.lower()] = _read_credential(file)
        return found


def is_open_to_all(file: Path) -> bool:
    """Whether every user of this machine can read a file: its mode and all folders' modes.

    A file that is not there, or cannot be looked at, is open to nobody.
    """
    try:
        found = file.resolve(strict=True)
        if not found.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
    except OSError:
        return False


def _open_keys(settings: Settings) -> list[ConfigProblem]:
    """Find private keys that everybody can read (faults.md U2)."""
    tls, pki = settings.ocpp.tls, settings.ocpp.pki
    named = {
        "ocpp.tls.private_key": tls.private_key if tls is not None else "",
        "ocpp.tls.private_key_2": tls.private_key_2 if tls is not None else "",
        "ocpp.pki.ca_key": pki.ca_key if pki is not None else "",
    }
    return [
        ConfigProblem(
            key=key,
            value=text,
            problem="every user of this machine can read this secret",
            remedy="give it to the service's user and take the others' right: chmod 600",
        )
        for key, text in named.items()
        if text and is_open_to_all(Path(os.path.expandvars(text)))
    ]


def _read_credential(file: Path) -> str:
    if is_open_to_all(file):
        raise _fault(
            f"$CREDENTIALS_DIRECTORY/{file.name}",
            "(secret)",
            "every user of this machine can read this secret",
            "let systemd make it (LoadCredential), or take the others' right: chmod 600",
        )
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(
            f"$CREDENTIALS_DIRECTORY/{file.name}",
            "(secret)",
            f"cannot be read: {error}",
            "correct the LoadCredential of the unit",
        ) from error


def load(path: Path) -> Settings:
    """Read and check the configuration. Raises ConfigFault with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(
            "--config", str(path), f"cannot be read: {error}", "name a file"
        ) from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(str(path), "", f"is not TOML: {error}", "correct that line") from error
    problems = [*_unknown(content, Settings, ""), *_unknown_variables()]
    if problems:
        raise ConfigFault(problems)
    try:
        settings = Settings(**content)
    except SettingsError as error:
        raise _fault(
            f"{PREFIX}...",
            "(not shown)",
            f"a variable or credential cannot be read: {error}",
            "write lists and tables as JSON",
        ) from error
    except ValidationError as error:
        raise ConfigFault([_problem(item) for item in error.errors()]) from error
    open_keys = _open_keys(settings)
    if open_keys:
        raise ConfigFault(open_keys)
    return settings


def _fault(key: str, value: str, problem: str, remedy: str) -> ConfigFault:
    return ConfigFault(
        [ConfigProblem(key=key, value=value, problem=problem, remedy=remedy)]
    )


def _unknown(content: Any, model: type[BaseModel], where: str) -> list[ConfigProblem]:
    """Find keys that no section has, each with the nearest known name."""
    problems: list[ConfigProblem] = []
    if not isinstance(content, dict):
        return problems
    for key, value in content.items():
        name = f"{where}{key}"
        if key not in model.model_fields:
            problems.append(_unknown_key(where, key, value, model))
            continue
        inner = _model_of(model.model_fields[key].annotation)
        if inner is None:
            continue
        items = value if isinstance(value, list) else [value]
        for index, item in enumerate(items):
            mark = f"{name}[{index}]." if isinstance(value, list) else f"{name}."
            problems.extend(_unknown(item, inner, mark))
    return problems


def _unknown_key(where: str, key: str, value: Any, model: type[BaseModel]) -> ConfigProblem:
    near = difflib.get_close_matches(key, list(model.model_fields), n=1, cutoff=0.5)
    return ConfigProblem(
        key=f"{where}{key}",
        # A text under a name that nobody knows may be a secret under a misspelled one.
        value="(text)" if isinstance(value, str) else _shown(key, value),
        problem="unknown key",
        remedy=f"did you mean {where}{near[0]}?" if near else "remove it",
    )


def _unknown_variables() -> list[ConfigProblem]:
    """Find variables of sections that do not exist: pydantic passes them over."""
    names = [name for name in os.environ if name.upper().startswith(PREFIX)]
    sections = {name: name[len(PREFIX) :].split("__")[0].lower() for name in names}
    return [
        replace(_unknown_key("", section, "", Settings), key=name)
        for name, section in sections.items()
        if section not in Settings.model_fields
    ]


def _model_at(where: Sequence[Any]) -> type[BaseModel]:
    """The model that holds the last key of a place, as far as it is known."""
    model: type[BaseModel] = Settings
    for part in where[:-1]:
        field = model.model_fields.get(str(part))
        inner = None if field is None else _model_of(field.annotation)
        model = model if inner is None else inner
    return model


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_of(part)
        if found is not None:
            return found
    return None


def _problem(item: Any) -> ConfigProblem:
    where = ""
    for part in item["loc"]:
        where += (
            f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        )
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return ConfigProblem(
            key=where,
            value="(missing)",
            problem="this key is needed",
            remedy=f"add {where}",
        )
    if item["type"] == "extra_forbidden":
        last = str(item["loc"][-1])
        above = where.removesuffix(last)
        return _unknown_key(above, last, item.get("input"), _model_at(item["loc"]))
    value = _shown(where, item.get("input"))
    remedy = "see config/agent.toml for an example"
    if item["type"] == "value_error":
        return ConfigProblem(
            key=where or "(file)", value=value, problem=message, remedy=remedy
        )
    return ConfigProblem(key=where, value=value, problem=message, remedy=f"change {where}")


def _shown(key: str, value: Any) -> str:
    if any(word in key.lower() for word in ("password", "secret", "token")):
        return "(secret)"
    if isinstance(value, (dict, list, tuple, BaseModel)):
        return "(table)"
    return repr(value)[:60]


def _near(name: str, known: Any) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {found[0]!r}?" if found else f"; known: {', '.join(known)}"


SOCKET_PATH_MAX = 100
"""The kernel takes 107 bytes."""


def socket_path(settings: Settings) -> Path:
    """The command line's socket, beside the database; shorter where that is too long."""
    path = settings.store.path.with_suffix(".sock").absolute()
    if len(str(path).encode()) <= SOCKET_PATH_MAX:
        return path
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return Path("/tmp") / f"depot-agent-{os.getuid()}-{mark}.sock"  # noqa: S108
