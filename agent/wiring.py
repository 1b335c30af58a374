"""Settings -> the values that the parts are built from; nothing here acts."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

from agent.cloud.sitemeter import FileMeter, HttpMeter, SiteMeter
from agent.control.depot import Circuit, LadderRule, Policy
from agent.domain.capability import StationTraits
from agent.domain.ids import StationId
from agent.domain.site import SiteRules
from agent.settings import Settings, Station
from agent.stations.adapter import AdapterOptions
from agent.stations.dialects import StationOptions
from agent.stations.extractors import ExtractorRule
from agent.stations.handshake import SALT_BYTES, Doors, StationAccess, hash_password
from agent.stations.v2_setup import Wishes2, default_settings_2x
from agent.stations.v16_setup import (
    MEASURANDS_AC,
    MEASURANDS_DC,
    Wishes,
    default_settings,
)

SOCKET_PATH_MAX = 100
"""The kernel takes 107 bytes."""


def socket_path(settings: Settings) -> Path:
    """The command line's socket, beside the database; shorter where that is too long."""
    path = settings.store.path.with_suffix(".sock")
    if len(str(path.absolute()).encode()) <= SOCKET_PATH_MAX:
        return path.absolute()
    mark = f"{hash(str(path.absolute())) & 0xFFFFFFFF:08x}"
    return Path("/tmp") / f"depot-agent-{os.getuid()}-{mark}.sock"  # noqa: S108


class AnyStation(dict[StationId, int]):
    """Ratings for commissioning: every stored station is loaded."""

    def __init__(self, known: dict[StationId, int], guess_w: int) -> None:
        """Start from the configured stations; others get the guess."""
        super().__init__(known)
        self._guess_w = guess_w

    def __contains__(self, _: object) -> bool:
        """Every station counts as known."""
        return True

    def __missing__(self, _: StationId) -> int:
        """The rating of a station that is not configured, W."""
        return self._guess_w


def station_options(settings: Settings, station_id: StationId) -> StationOptions:
    """What the links of a station need to know of the configuration."""
    ocpp = settings.ocpp
    station = next((item for item in settings.stations if item.id == station_id), None)
    wanted = default_settings(
        meter_interval_s=ocpp.meter_interval_s, heartbeat_s=ocpp.heartbeat_s
    )
    quirks = frozenset(station.quirks if station is not None else ())
    wanted_2x = default_settings_2x(
        meter_interval_s=ocpp.meter_interval_s, heartbeat_s=ocpp.heartbeat_s
    )
    if station is not None:
        # Keys of 1.6 have no dot, variables of 2.x name their component before one.
        own = station.settings
        wanted |= {key: text for key, text in own.items() if "." not in key}
        wanted_2x |= {key: text for key, text in own.items() if "." in key}
    is_ac = station is not None and station.current == "ac"
    return StationOptions(
        adapter=AdapterOptions(
            heartbeat_s=ocpp.heartbeat_s,
            boot=station.boot if station is not None else "accept",
            contracts=ocpp.contract_certificates == "accept",
            bare_mac=ocpp.bare_mac_tags,
            base32_tags="base32-tags" in quirks,
            accepted_vendors=frozenset(ocpp.accepted_vendors),
            extractors=tuple(
                ExtractorRule(
                    vendor_id=rule.vendor_id,
                    message_id=rule.message_id,
                    field=rule.field,
                    path=rule.path,
                    pattern=rule.pattern,
                )
                for rule in ocpp.extractors
            ),
        ),
        wishes=Wishes(
            settings=wanted,
            measurands=MEASURANDS_AC if is_ac else MEASURANDS_DC,
            reads_configuration="no-configuration" not in quirks,
        ),
        wishes_2x=Wishes2(
            settings=wanted_2x,
            measurands=MEASURANDS_AC if is_ac else MEASURANDS_DC,
            reads_configuration="no-configuration" not in quirks,
        ),
        pings="no-ping" not in quirks,
    )


def policy(settings: Settings) -> Policy:
    """The site's rules in watts."""
    return Policy(
        cap_w=settings.site.cap_kw * 1000,
        efficiency=settings.site.efficiency,
        unmatched_w=settings.policy.unmatched_kw * 1000,
        unplanned_w=settings.policy.unplanned_kw * 1000,
        after_plan=settings.policy.after_plan,
        plan_max_age=timedelta(seconds=settings.policy.plan_max_age_s),
        location_uid=settings.site.location_uid,
        offline_max_s=settings.policy.max_offline_s,
        wake_restart=settings.policy.wake_restart,
    )


def traits(settings: Settings) -> dict[StationId, StationTraits]:
    """Stations as configured; defaults that together pass the cap are lowered.

    Stations on their own live beside the worst of the site's other load.
    """
    wanted_kw = sum(item.fallback_kw * item.outlets for item in settings.stations)
    meter = settings.site.meter
    other_kw = meter.unmanaged_max_kw if meter is not None else 0.0
    room_kw = (settings.site.cap_kw - other_kw) * settings.site.efficiency
    share = min(room_kw / wanted_kw, 1.0) if wanted_kw > 0 else 1.0
    return {StationId(item.id): _trait(item, share) for item in settings.stations}


def _trait(item: Station, share: float) -> StationTraits:
    return StationTraits(
        rated_w=item.max_kw * 1000,
        fallback_w=min(item.fallback_kw * share, item.max_kw) * 1000,
        is_dc=item.current == "dc",
        phases=item.phases,
        outlets=item.outlets,
        quirks=frozenset(item.quirks),
    )


def site_meter(settings: Settings) -> tuple[SiteMeter, SiteRules] | None:
    """The meter at the grid connection and what holds for it, where there is one."""
    section = settings.site.meter
    if section is None:
        return None
    factor = 1000.0 if section.unit == "kW" else 1.0
    meter: SiteMeter
    if section.file:
        meter = FileMeter(Path(section.file), path=section.path, factor=factor)
    else:
        meter = HttpMeter(section.url, path=section.path, factor=factor)
    rules = SiteRules(
        unmanaged_max_w=section.unmanaged_max_kw * 1000,
        stale_s=section.stale_s,
        includes_charging=section.includes_charging,
        pv_max_w=section.pv_max_kw * 1000,
        # Twice, because a station's clock and ours begin the interval at other times.
        confirm_s=2.0 * settings.ocpp.meter_interval_s,
    )
    return meter, rules


def circuits(settings: Settings) -> tuple[Circuit, ...]:
    """The feeders."""
    return tuple(
        Circuit(
            name=item.id,
            cap_w=item.cap_kw * 1000,
            stations=frozenset(StationId(name) for name in item.stations),
        )
        for item in settings.circuits
    )


def ladder_rules(settings: Settings) -> tuple[LadderRule, ...]:
    """What a person said about models' limits."""
    return tuple(
        LadderRule(
            vendor=item.vendor,
            model=item.model,
            firmware=item.firmware,
            rung=item.rung,
            limit_key=item.limit_key,
        )
        for item in settings.ladders
    )


def doors(settings: Settings) -> Doors:
    """Who may connect, with hashed passwords."""
    access: dict[StationId, StationAccess] = {}
    for item in settings.stations:
        password = item.password.get_secret_value()
        hashed = item.password_hash
        if password:
            hashed = hash_password(password, secrets.token_bytes(SALT_BYTES))
        access[StationId(item.id)] = StationAccess(
            station_id=StationId(item.id),
            security_profile=item.security_profile,
            password_hash=hashed,
            aliases=item.aliases,
            certificate_name=item.certificate_name,
        )
    return Doors(
        stations=access, accepts_unknown=settings.ocpp.unknown_stations == "accept"
    )


def needs_restart(old: Settings, new: Settings) -> str | None:
    """Why a changed configuration cannot be applied while running, or None."""
    for name in ("store", "web", "chargeye", "smartcar", "local"):
        if getattr(old, name) != getattr(new, name):
            return f"[{name}] changed: restart the service to apply it"
    if old.site.meter != new.site.meter:
        return "[site.meter] changed: restart the service to apply it"
    if (old.ocpp.host, old.ocpp.port, old.ocpp.tls) != (
        new.ocpp.host,
        new.ocpp.port,
        new.ocpp.tls,
    ):
        return "[ocpp] host, port or tls changed: restart the service to apply it"
    return None


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Sections that differ; names only, no values."""
    return [
        name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)
    ]
