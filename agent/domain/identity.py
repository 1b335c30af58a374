"""Which vehicle is it: reading MACs out of what stations send, and matching them.

Shapes of ocpp-depot.md A2, policy of A10. Recognition never refuses charging: it only
decides whether a plan applies. The Kempower prefix is documented in chargeye.md 3.3.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agent.domain.ids import MacAddress, SessionId, VehicleId

STATION_PREFIXES = ("60FAB1",)
"""Charger makers' own prefixes: such an address is a station, not a vehicle."""
MAC_DIGITS = 12
EUI_DIGITS = 16
BASE32_CHARACTERS = (10, 13)
CUT_DIGITS_MIN = 6
"""A cut address must at least name its maker to be a suggestion."""
EVIDENCE_MAX = 16
"""Pieces of evidence kept per session; a station that sends more repeats itself."""
V2ICP = "v2icp"
"""Source of evidence that a bus gave to its backend, not to the station (D1)."""

_SEPARATORS = re.compile(r"[\s:.\-_]")
_VID = re.compile(r"^\s*VID\s*:", re.IGNORECASE)
_HEX = re.compile(r"^[0-9A-F]+$")


class EvidenceKind(StrEnum):
    """What a piece of evidence is about; strong kinds may decide a match."""

    MAC = "mac"
    MAC_PREFIX = "mac-prefix"
    MAC_EUI64 = "mac-eui64"
    VIN = "vin"
    EMAID = "emaid"
    ID_TOKEN = "id-token"  # noqa: S105 - not a password

    @property
    def is_strong(self) -> bool:
        """Whether this kind alone may let a plan be applied (A10.4)."""
        return self in (EvidenceKind.MAC, EvidenceKind.VIN)


class MatchOutcome(StrEnum):
    """The finding for the evidence of one plug-in."""

    UNIQUE = "unique"
    NONE = "none"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One hint to the vehicle: normalised value, raw text, source and time."""

    kind: EvidenceKind
    value: str
    raw: str
    source: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Outcome for a session, with the reason in words.

    ``evidence`` is what the match added to what the station said (V2ICP).
    """

    outcome: MatchOutcome
    vehicle_id: VehicleId | None = None
    mac: MacAddress | None = None
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class V2icpWord:
    """What a bus last told its backend by VDV 261: this VIN speaks from this MAC.

    ``at`` and ``odometer_km`` change with every exchange and are no news.
    """

    vin: str | None = None
    mac: MacAddress | None = None
    at: datetime | None = field(default=None, compare=False)
    odometer_km: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatingWish:
    """What the depot asks a bus for (``v2icpParameters``); None where it is not said."""

    is_wanted: bool | None = None
    interior: str = ""
    ambient_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """One row of the registry, with what planning and limits need (watts, Wh).

    ``idle_macs`` belong to ports that are out of use: they match nothing.
    """

    vehicle_id: VehicleId
    name: str = ""
    macs: frozenset[MacAddress] = frozenset()
    idle_macs: frozenset[MacAddress] = frozenset()
    fallback_mac: MacAddress | None = None
    vin: str | None = None
    locations: frozenset[str] = frozenset()
    capacity_wh: int | None = None
    max_w: int | None = None
    min_w: int | None = None
    min_preconditioning_w: int | None = None
    can_pause: bool = False
    follows_schedule: bool = True
    model: str = ""
    plate: str = ""
    v2icp: V2icpWord | None = None
    heating: HeatingWish | None = None


Registry = Mapping[VehicleId, Vehicle]


def normalise_mac(raw: str) -> MacAddress | None:
    """Read a 6-byte MAC in any notation; 12 upper-case hex digits, or None.

    Twelve digits only: padded and cut forms are the business of ``read_token``.
    Refused: all zero, all F, multicast, a charger maker's own prefix.
    """
    digits = _SEPARATORS.sub("", _VID.sub("", raw)).upper()
    return _accept(digits) if len(digits) == MAC_DIGITS else None


def any_mac(raw: str) -> MacAddress | None:
    """Read a MAC as registries write it: also 8 bytes that end in two zero ones (3.3)."""
    found = normalise_mac(raw)
    if found is None:
        digits = _SEPARATORS.sub("", _VID.sub("", raw))
        if len(digits) == EUI_DIGITS and digits.endswith("0000"):
            found = normalise_mac(digits[:MAC_DIGITS])
    return found


def mac_text(mac: MacAddress) -> str:
    """The documented notation: ``04:E7:7E:00:F0:FA``."""
    return ":".join(mac[index : index + 2] for index in range(0, MAC_DIGITS, 2))


def read_token(
    raw: str,
    *,
    source: str,
    at: datetime,
    bare_mac: bool = True,
    is_base32: bool = False,
) -> tuple[Evidence, ...]:
    """Read what an id token may say about the vehicle (ocpp-depot.md A2).

    ``bare_mac``: whether 12 hex digits without ``VID:`` count as a MAC at this
    station. ``is_base32``: whether this station writes the EVCCID in Base32. Returns no
    evidence for an empty token, and plain ID_TOKEN evidence for a token that is no
    address.
    """
    text = raw.strip()
    if not text:
        return ()
    has_prefix = _VID.match(text) is not None
    digits = _SEPARATORS.sub("", _VID.sub("", text)).upper()
    found: list[Evidence] = []

    def add(kind: EvidenceKind, value: str) -> None:
        found.append(Evidence(kind=kind, value=value, raw=raw[:64], source=source, at=at))

    if is_base32:
        digits = _from_base32(_VID.sub("", text)) or digits
        has_prefix = has_prefix or len(digits) in (MAC_DIGITS, EUI_DIGITS)
    if _HEX.match(digits) and (has_prefix or bare_mac):
        for kind, value in _addresses(digits, has_prefix=has_prefix):
            add(kind, value)
    if not has_prefix:
        add(EvidenceKind.ID_TOKEN, text)
    return tuple(found)


def mac_evidence(raw: str, *, source: str, at: datetime) -> tuple[Evidence, ...]:
    """Read a field that is known to hold an EVCCID or MAC (DataTransfer, 2.x)."""
    text = raw if _VID.match(raw) else f"VID:{raw}"
    return tuple(
        Evidence(kind=item.kind, value=item.value, raw=raw[:64], source=source, at=at)
        for item in read_token(text, source=source, at=at)
    )


def add_evidence(
    known: tuple[Evidence, ...], new: Iterable[Evidence]
) -> tuple[Evidence, ...]:
    """Add what is not known yet; the first time a value was seen is kept."""
    seen = {(item.kind, item.value) for item in known}
    added = list(known)
    for item in new:
        if (item.kind, item.value) not in seen and len(added) < EVIDENCE_MAX:
            seen.add((item.kind, item.value))
            added.append(item)
    return tuple(added)


def match_vehicle(
    evidence: Collection[Evidence],
    registry: Registry,
    *,
    site: str = "",
    elsewhere: Mapping[VehicleId, SessionId] | None = None,
) -> Match:
    """Find the one vehicle that the strong evidence names (A10.2 to A10.4, A10.8).

    A MAC that a bus told its backend together with a VIN counts as that VIN too; where
    the registry gives the MAC to another vehicle, the two disagree and nobody matches.

    ``site`` is the depot's location: a vehicle that belongs only elsewhere still
    matches, and the reason says so. ``elsewhere`` names vehicles that another live
    session holds at this moment.
    """
    said = [item for item in evidence if item.kind.is_strong and item.source != V2ICP]
    learned = learned_vins(said, registry)
    strong = [*said, *learned]
    named = {item: _holders(item, registry) for item in strong}
    named = {item: holders for item, holders in named.items() if holders}
    mac = next(
        (
            MacAddress(item.value)
            for item in (*named, *strong)
            if item.kind is EvidenceKind.MAC
        ),
        None,
    )
    if not named:
        reason = _why_none(evidence, registry)
        return Match(outcome=MatchOutcome.NONE, mac=mac, reason=reason)
    candidates = set.intersection(*(set(holders) for holders in named.values()))
    if len(candidates) != 1:
        return Match(
            outcome=MatchOutcome.AMBIGUOUS,
            mac=mac,
            reason=_why_many(named),
            evidence=learned,
        )
    vehicle = registry[candidates.pop()]
    if elsewhere and vehicle.vehicle_id in elsewhere:
        other = elsewhere[vehicle.vehicle_id]
        reason = f"vehicle {vehicle.vehicle_id} is also plugged in session {other}"
        return Match(outcome=MatchOutcome.AMBIGUOUS, mac=mac, reason=reason)
    item = next(iter(named))
    reason = f"{item.kind} {item.value} from {item.source}"
    if vehicle.locations and site and site not in vehicle.locations:
        reason += "; its registry entry names another location"
    return Match(
        outcome=MatchOutcome.UNIQUE,
        vehicle_id=vehicle.vehicle_id,
        mac=mac,
        reason=reason,
        evidence=learned,
    )


def learned_vins(evidence: Iterable[Evidence], registry: Registry) -> tuple[Evidence, ...]:
    """The VINs that buses spoke under, by V2ICP, from the MACs that stations report.

    A MAC whose port the registry has put out of use teaches nothing.
    """
    found: list[Evidence] = []
    for item in evidence:
        if item.kind is not EvidenceKind.MAC:
            continue
        vins = {
            row.v2icp.vin
            for row in registry.values()
            if row.v2icp is not None
            and row.v2icp.vin
            and row.v2icp.mac == item.value
            and item.value not in row.idle_macs
        }
        found += [
            Evidence(
                kind=EvidenceKind.VIN, value=vin, raw=item.value, source=V2ICP, at=item.at
            )
            for vin in sorted(vins)
        ]
    return tuple(found)


def registry_conflicts(registry: Registry) -> list[str]:
    """Name what the registry says twice and differently about who has which MAC."""
    rows = sorted(registry.values(), key=lambda row: row.vehicle_id)
    holders: dict[MacAddress, list[VehicleId]] = {}
    for row in rows:
        own = {*row.macs, *([row.fallback_mac] if row.fallback_mac else [])}
        for mac in own:
            holders.setdefault(mac, []).append(row.vehicle_id)
    found = [
        f"the MAC {mac_text(mac)} belongs to {' and '.join(names)}: neither will match; "
        "correct chargingPorts in ChargEye"
        for mac, names in sorted(holders.items())
        if len(names) > 1
    ]
    for row in rows:
        word = row.v2icp
        if word is None or word.mac is None:
            continue
        shown = f"vehicle {row.vehicle_id} spoke V2ICP from {mac_text(word.mac)}"
        others = [name for name in holders.get(word.mac, []) if name != row.vehicle_id]
        if others:
            found.append(
                f"{shown}, which chargingPorts give to {', '.join(others)}: neither will "
                "match by it; correct chargingPorts in ChargEye"
            )
        elif word.mac in row.idle_macs:
            found.append(f"{shown}, whose port is inactive: it will not match by it")
        if word.vin and row.vin and word.vin.upper() != row.vin.upper():
            found.append(f"{shown} under the VIN {word.vin}, but its VIN is {row.vin}")
    return found


def is_random_looking(mac: MacAddress) -> bool:
    """Whether the locally administered bit hints at a rotating address (A2)."""
    return bool(int(mac[:2], 16) & 0x02)


def _addresses(digits: str, *, has_prefix: bool) -> list[tuple[EvidenceKind, str]]:
    if len(digits) == MAC_DIGITS:
        return [(EvidenceKind.MAC, mac) for mac in [_accept(digits)] if mac]
    if len(digits) == EUI_DIGITS:
        return _from_eight_bytes(digits)
    if has_prefix and CUT_DIGITS_MIN <= len(digits) < MAC_DIGITS:
        return [(EvidenceKind.MAC_PREFIX, digits)]
    return []


def _from_eight_bytes(digits: str) -> list[tuple[EvidenceKind, str]]:
    forms: list[str] = []
    if digits.startswith("0000"):
        forms.append(digits[4:])
    if digits.endswith("0000"):
        forms.append(digits[:12])
    found = [mac for mac in (_accept(form) for form in dict.fromkeys(forms)) if mac]
    if found:
        return [(EvidenceKind.MAC, mac) for mac in found]
    if digits[6:10] == "FFFE":
        mac = _accept(digits[:6] + digits[10:])
        return [(EvidenceKind.MAC_EUI64, mac)] if mac else []
    return []


def _from_base32(text: str) -> str | None:
    """Hex digits of a Base32 text of 6 or 8 bytes (10 or 13 characters), else None."""
    plain = text.strip().upper().rstrip("=")
    if len(plain) not in BASE32_CHARACTERS:
        return None
    try:
        return base64.b32decode(plain + "=" * (-len(plain) % 8)).hex().upper()
    except binascii.Error:
        return None


def _accept(digits: str) -> MacAddress | None:
    if len(digits) != MAC_DIGITS or not _HEX.match(digits):
        return None
    if digits in ("0" * 12, "F" * 12) or digits.startswith(STATION_PREFIXES):
        return None
    if int(digits[:2], 16) & 0x01:
        return None
    return MacAddress(digits)


def _holders(item: Evidence, registry: Registry) -> list[VehicleId]:
    if item.kind is EvidenceKind.VIN:
        wanted = item.value.upper()
        rows = registry.values()
        return [row.vehicle_id for row in rows if row.vin and row.vin.upper() == wanted]
    mac = MacAddress(item.value)
    by_port = [row.vehicle_id for row in registry.values() if mac in row.macs]
    if by_port:
        return by_port
    return [row.vehicle_id for row in registry.values() if row.fallback_mac == mac]


def _why_none(evidence: Collection[Evidence], registry: Registry) -> str:
    if not evidence:
        return "the station reported nothing about the vehicle"
    shown = ", ".join(f"{item.kind} {item.value}" for item in list(evidence)[:3])
    reason = f"no vehicle in the registry has {shown}"
    hints = _suggestions(evidence, registry)
    if len(hints) == 1:
        reason += f"; it may be {hints.pop()}, which weak evidence suggests"
    return reason


def _suggestions(evidence: Collection[Evidence], registry: Registry) -> set[VehicleId]:
    """Vehicles that a cut or converted address would fit: for people, never for plans."""
    weak = [item for item in evidence if not item.kind.is_strong]
    return {
        row.vehicle_id
        for row in registry.values()
        for mac in (*row.macs, *([row.fallback_mac] if row.fallback_mac else []))
        for item in weak
        if (item.kind is EvidenceKind.MAC_PREFIX and mac.startswith(item.value))
        or (item.kind is EvidenceKind.MAC_EUI64 and mac == item.value)
    }


def _why_many(named: Mapping[Evidence, list[VehicleId]]) -> str:
    shown = "; ".join(
        f"{item.kind} {item.value} names {', '.join(sorted(holders))}"
        for item, holders in named.items()
    )
    return f"the evidence does not name one vehicle: {shown}"
