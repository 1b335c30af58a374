"""Settings -> the values that the parts are built from; nothing here acts."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

import httpx

from agent.cloud.sitemeter import FileMeter, HttpMeter, SiteMeter
from agent.cloud.smartcar import Smartcar
from agent.cloud.smartcar_base import SmartcarClient
from agent.cloud.smartcar_options import SmartcarOptions, SmartcarVehicle
from agent.cloud.smartcar_tokenfile import TOKENS_FILE
from agent.cloud.smartcar_v2 import SmartcarV2
from agent.control.depot import Circuit, LadderRule, Policy
from agent.domain.allocator import Node
from agent.domain.budget import BudgetRules
from agent.domain.capability import StationTraits
from agent.domain.ids import EvseId, Outlet, StationId
from agent.domain.phases import Wiring, phase_nodes
from agent.domain.site import SiteRules
from agent.ports import Clock, Ids, Signer, Store
from agent.settings import Settings, SmartcarSection, Station, Tls
from agent.stations.adapter import AdapterOptions
from agent.stations.dialects import StationOptions
from agent.stations.extractors import ExtractorRule
from agent.stations.handshake import SALT_BYTES, Doors, StationAccess, hash_password
from agent.stations.signer import FolderSigner, LocalSigner
from agent.stations.tls import TlsDoor, TlsFiles
from agent.stations.v2_setup import Wishes2, default_settings_2x
from agent.stations.v16_setup import (
    MEASURANDS_AC,
    MEASURANDS_DC,
    Wishes,
    default_settings,
)


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
        messages_per_s=ocpp.station_messages_per_s,
    )


def policy(settings: Settings) -> Policy:
    """The site's rules in watts."""
    return Policy(
        cap_w=settings.site.cap_kw * 1000,
        cap_a=settings.site.cap_a,
        voltage_v=settings.site.voltage,
        efficiency=settings.site.efficiency,
        unmatched_w=settings.policy.unmatched_kw * 1000,
        unplanned_w=settings.policy.unplanned_kw * 1000,
        after_plan=settings.policy.after_plan,
        plan_max_age=timedelta(seconds=settings.policy.plan_max_age_s),
        location_uid=settings.site.location_uid,
        offline_max_s=settings.policy.max_offline_s,
        wake_restart=settings.policy.wake_restart,
        catch_up=settings.policy.catch_up,
        goal_remote_stop=settings.policy.goal_remote_stop,
    )


def traits(settings: Settings) -> dict[StationId, StationTraits]:
    """Stations as configured; defaults that together pass the cap are lowered.

    Stations on their own live beside the worst of the site's other load, and under the
    caps and fuses of their feeders.
    """
    rows = {StationId(item.id): item for item in settings.stations}
    shares = dict.fromkeys(rows, 1.0)
    outlets = {
        (name, EvseId(n)) for name, item in rows.items() for n in range(item.outlets)
    }
    draws_w = {
        (name, evse): rows[name].fallback_kw * 1000 * _grid_factor(settings, rows[name])
        for name, evse in outlets
    }
    for node in _feeders(settings, rows, outlets):
        wanted_w = sum(draws_w[item] * node.weight(item) for item in node.members)
        if wanted_w > 0:
            fits = max(min(node.cap_w / wanted_w, 1.0), 0.0)
            for name, _ in node.members:
                shares[name] = min(shares[name], fits)
    return {name: _trait(item, shares[name]) for name, item in rows.items()}


def _feeders(
    settings: Settings, rows: dict[StationId, Station], outlets: set[Outlet]
) -> list[Node]:
    """The site and its circuits, with their phases, as they are configured."""
    site, meter = settings.site, settings.site.meter
    other_w = meter.unmanaged_max_kw * 1000 if meter is not None else 0.0
    every = frozenset(outlets)
    found = [Node(name="site", cap_w=site.cap_kw * 1000 - other_w, members=every)]
    wirings = {item: _wiring(settings, rows[item[0]]) for item in outlets}
    if site.cap_a is not None:
        room_a = max(site.cap_a - other_w / site.voltage, 0.0)
        found += phase_nodes("site", room_a, wirings, voltage_v=site.voltage)
    for circuit in settings.circuits:
        mine = {item: wirings[item] for item in outlets if item[0] in circuit.stations}
        if circuit.cap_kw is not None:
            cap_w = circuit.cap_kw * 1000
            found.append(Node(name=circuit.id, cap_w=cap_w, members=frozenset(mine)))
        if circuit.cap_a is not None:
            found += phase_nodes(circuit.id, circuit.cap_a, mine, voltage_v=circuit.voltage)
    return found


def _grid_factor(settings: Settings, item: Station) -> float:
    return 1.0 / settings.site.efficiency if item.current == "dc" else 1.0


def _wiring(settings: Settings, item: Station) -> Wiring:
    return Wiring(
        rated_w=item.max_kw * 1000 * _grid_factor(settings, item),
        is_dc=item.current == "dc",
        phases=item.phases,
        phase=int(item.phase[1:] or 0),
        is_in_watts="watts-only" in item.quirks,
    )


def _trait(item: Station, share: float) -> StationTraits:
    return StationTraits(
        rated_w=item.max_kw * 1000,
        fallback_w=min(item.fallback_kw * share, item.max_kw) * 1000,
        is_dc=item.current == "dc",
        phases=item.phases,
        phase=int(item.phase[1:] or 0),
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


def smartcar_options(section: SmartcarSection) -> SmartcarOptions:
    """Where Smartcar is and how much it may be asked."""
    return SmartcarOptions(
        client_id=section.client_id,
        client_secret=section.client_secret.get_secret_value(),
        token_url=section.token_url,
        api_url=section.api_url,
        mode=section.mode,
        auth_url=section.auth_url,
        v2_url=section.v2_url,
        management_url=section.management_url,
        management_token=section.management_token.get_secret_value(),
        rules=BudgetRules(
            bucket=section.bucket_requests,
            refill_per_min=section.bucket_refill_per_min,
            monthly=section.monthly_requests,
            reserve=section.command_reserve,
            floor_s=section.request_floor_s,
            session_reads=section.session_reads,
            session_commands=section.session_commands,
        ),
        vehicles=tuple(
            SmartcarVehicle(
                vin=item.vin,
                vehicle_id=item.vehicle_id,
                user_id=item.user_id,
                refresh_token=item.refresh_token.get_secret_value(),
            )
            for item in section.vehicles
        ),
    )


def vehicle_cloud(
    settings: Settings,
    store: Store,
    clock: Clock,
    ids: Ids,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> SmartcarClient | None:
    """The vehicles' own cloud, of the configured generation; None without one."""
    section = settings.smartcar
    if section is None:
        return None
    options = smartcar_options(section)
    if section.api == "v3":
        return Smartcar(options, store, clock, ids, transport=transport)
    tokens = settings.store.path.with_name(TOKENS_FILE)
    return SmartcarV2(options, store, clock, ids, tokens=tokens, transport=transport)


def circuits(settings: Settings) -> tuple[Circuit, ...]:
    """The feeders."""
    return tuple(
        Circuit(
            name=item.id,
            cap_w=None if item.cap_kw is None else item.cap_kw * 1000,
            cap_a=item.cap_a,
            voltage_v=item.voltage,
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
            serial_number=item.serial_number,
            allow_lower_profile=item.allow_lower_profile,
            versions=tuple(f"ocpp{version}" for version in item.versions),
        )
    assumed = settings.ocpp.assume_version
    return Doors(
        stations=access,
        accepts_unknown=settings.ocpp.unknown_stations == "accept",
        assumed_version=None if assumed == "none" else f"ocpp{assumed}",
    )


def tls_files(tls: Tls) -> TlsFiles:
    """What the second listener reads; ``$VARIABLES`` in paths are filled in."""
    pairs = [(tls.certificate, tls.private_key)]
    if tls.certificate_2:
        pairs.append((tls.certificate_2, tls.private_key_2))
    return TlsFiles(
        pairs=tuple(
            (os.path.expandvars(one), os.path.expandvars(two)) for one, two in pairs
        ),
        client_ca=os.path.expandvars(tls.client_ca),
        client_crl=os.path.expandvars(tls.client_crl),
        static_rsa=tls.static_rsa,
    )


def tls_door(settings: Settings) -> TlsDoor | None:
    """The second listener's TLS, where it is configured. Raises ConfigFault."""
    tls = settings.ocpp.tls
    return None if tls is None else TlsDoor.open(tls_files(tls))


def signer(settings: Settings) -> Signer | None:
    """Who signs stations' certificates, where anybody does. Raises ConfigFault."""
    pki = settings.ocpp.pki
    if pki is None:
        return None
    if pki.exchange_folder:
        return FolderSigner(Path(os.path.expandvars(pki.exchange_folder)))
    return LocalSigner.open(
        os.path.expandvars(pki.ca_certificate),
        os.path.expandvars(pki.ca_key),
        days=pki.station_days,
    )


def needs_restart(old: Settings, new: Settings) -> str | None:
    """Why a changed configuration cannot be applied while running, or None."""
    for name in ("store", "web", "chargeye", "smartcar", "local"):
        if getattr(old, name) != getattr(new, name):
            return f"[{name}] changed: restart the service to apply it"
    old_hook, new_hook = old.billing, new.billing
    if (old_hook.webhook_url, old_hook.webhook_token) != (
        new_hook.webhook_url,
        new_hook.webhook_token,
    ):
        return "[billing] webhook_url or webhook_token changed: restart the service"
    if old.site.meter != new.site.meter:
        return "[site.meter] changed: restart the service to apply it"
    if (old.ocpp.host, old.ocpp.port) != (new.ocpp.host, new.ocpp.port):
        return "[ocpp] host or port changed: restart the service to apply it"
    if _listener(old) != _listener(new) or old.ocpp.pki != new.ocpp.pki:
        return (
            "[ocpp.tls] or [ocpp.pki] changed in more than files: restart the service to "
            "apply it"
        )
    return None


def _listener(settings: Settings) -> object:
    """What of the second listener cannot change while it listens."""
    tls = settings.ocpp.tls
    return tls and (tls.port, tls.static_rsa, bool(tls.client_ca))


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Sections that differ; names only, no values."""
    return [
        name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)
    ]
