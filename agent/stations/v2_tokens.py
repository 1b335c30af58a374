"""Id tokens of 2.0.1 and 2.1 -> evidence about the vehicle (ocpp-depot.md A6).

The type says what the text is; where it says nothing special the text is read as in 1.6.
``additionalInfo`` often carries what the token does not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.domain.identity import Evidence, EvidenceKind, mac_evidence, read_token
from agent.stations.adapter import AdapterOptions, as_text

ADDITIONAL_MAX = 8
"""Entries of additionalInfo that are read."""
TOKEN_MAX = 255
CARDS = frozenset({"iso14443", "iso15693"})
"""Card numbers: hex digits in them are no address."""
VIN_LENGTH = 17


def token_text(token: Any) -> str:
    """The text of an IdTokenType; empty for NoAuthorization and for what is none."""
    return as_text(token.get("idToken"))[:TOKEN_MAX] if isinstance(token, dict) else ""


def token_type(token: Any) -> str:
    """The type of an IdTokenType, as written."""
    return as_text(token.get("type"))[:50] if isinstance(token, dict) else ""


def token_evidence(
    token: Any, *, source: str, at: datetime, options: AdapterOptions
) -> tuple[Evidence, ...]:
    """What an IdTokenType says about the vehicle, best first; never raises."""
    if not isinstance(token, dict):
        return ()
    found = list(_typed(token_text(token), token_type(token), source, at, options))
    more = token.get("additionalInfo")
    for item in (more if isinstance(more, list) else [])[:ADDITIONAL_MAX]:
        if isinstance(item, dict):
            text = as_text(item.get("additionalIdToken"))[:TOKEN_MAX]
            kind = as_text(item.get("type"))[:50]
            found += _additional(text, kind, f"{source} additionalInfo", at)
    return tuple(found)


def vehicle_id_evidence(text: str, *, source: str, at: datetime) -> tuple[Evidence, ...]:
    """What ``ConnectedEV.VehicleId`` says: an EVCCID of any protocol (2.1 section 2.17)."""
    text = text.strip()
    if not text:
        return ()
    found = mac_evidence(text, source=source, at=at)
    return found or (_of(EvidenceKind.ID_TOKEN, text, source, at),)


def _typed(
    text: str, kind: str, source: str, at: datetime, options: AdapterOptions
) -> tuple[Evidence, ...]:
    word = kind.lower()
    if not text or word == "noauthorization":
        return ()
    if word in ("macaddress", "evccid"):
        found = mac_evidence(text, source=source, at=at)
        return found or (_of(EvidenceKind.ID_TOKEN, text, source, at),)
    if word == "vin":
        return (_of(EvidenceKind.VIN, text, source, at),)
    if word == "emaid":
        return (_of(EvidenceKind.EMAID, text, source, at),)
    return read_token(
        text,
        source=source,
        at=at,
        bare_mac=options.bare_mac and word not in CARDS,
        is_base32=options.base32_tags,
    )


def _additional(text: str, kind: str, source: str, at: datetime) -> tuple[Evidence, ...]:
    """Types of additionalInfo are free text: what they contain decides."""
    word = kind.lower()
    if not text:
        return ()
    if "mac" in word or "evcc" in word:
        return mac_evidence(text, source=source, at=at)
    if word == "vin" or (word.startswith("vin") and len(text) == VIN_LENGTH):
        return (_of(EvidenceKind.VIN, text, source, at),)
    if "emaid" in word:
        return (_of(EvidenceKind.EMAID, text, source, at),)
    return tuple(
        item
        for item in read_token(text, source=source, at=at, bare_mac=False)
        if item.kind is not EvidenceKind.ID_TOKEN
    )


def _of(kind: EvidenceKind, text: str, source: str, at: datetime) -> Evidence:
    value = text.upper() if kind is EvidenceKind.VIN else text
    return Evidence(kind=kind, value=value, raw=text[:64], source=source, at=at)
