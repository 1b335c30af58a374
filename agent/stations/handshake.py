"""Pure: path to identity, subprotocol choice, credentials; accept or refuse.

OCPP-J 3.1 to 3.3, security whitepaper profiles 1 and 2; charger-quirks.md CON and SEC.
Unknown identity: 404. Wrong credentials: 401. The two are told apart because the
standard says so; A8 of faults.md (equal answers) is not met by 1.6's own rule.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from agent.domain.ids import StationId

IDENTITY_MAX = 48
SALT_BYTES = 16
HEX_KEY_MIN = 32
"""Hex digits of the shortest AuthorizationKey (16 bytes)."""
SUBPROTOCOLS = ("ocpp2.1", "ocpp2.0.1", "ocpp1.6")
"""Versions that the agent speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationAccess:
    """How one configured station may connect."""

    station_id: StationId
    security_profile: int = 0
    password_hash: str = ""
    certificate_name: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the handshake decided; ``status`` is 101, 401, 403 or 404."""

    status: int
    station_id: StationId | None = None
    identity: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """All configured stations, found by identity without case (CON-06)."""

    stations: Mapping[StationId, StationAccess]
    accepts_unknown: bool = False
    _by_name: dict[tuple[str, bool], StationAccess] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index identities and aliases."""
        for access in self.stations.values():
            for name in (access.station_id, *access.aliases):
                self._by_name[_folded(name)] = access

    def find(self, identity: str) -> StationAccess | None:
        """Find a station by the identity in its path."""
        return self._by_name.get(_folded(identity))


def _folded(name: str) -> tuple[str, bool]:
    """A name without case; the Kelvin sign folds to k, but is no k (faults.md A5)."""
    return name.casefold(), name.isascii()


def identity_of(path: str) -> str | None:
    """Read the identity: last non-empty segment, percent-decoded once; None if unusable.

    A slash that was encoded stays part of the identity; control characters, dots-only
    names and over-long ones are refused.
    """
    plain = path.split("?", 1)[0].split("#", 1)[0]
    segments = [part for part in plain.split("/") if part]
    if not segments:
        return None
    try:
        identity = unquote(segments[-1], errors="strict")
    except UnicodeDecodeError:
        return None
    is_plain = identity.isprintable() and identity.strip() == identity
    if not identity or len(identity) > IDENTITY_MAX or not is_plain:
        return None
    return None if set(identity) <= {"."} else identity


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """Choose the first of the client's list that we speak: its order is its preference."""
    return next((name for name in offered if name in SUBPROTOCOLS), None)


def admit(
    path: str,
    authorization: bytes | None,
    doors: Doors,
    *,
    is_tls: bool,
    certificate_names: frozenset[str] = frozenset(),
) -> Admission:
    """Decide about a connection from its path, its Authorization header and its TLS.

    ``certificate_names`` are the names in the client certificate that TLS verified.
    """
    identity = identity_of(path)
    if identity is None:
        return Admission(status=404, reason="the path names no station")
    access = doors.find(identity)
    if access is None:
        if not doors.accepts_unknown:
            return Admission(
                status=404, identity=identity, reason="the station is not configured"
            )
        return Admission(status=101, identity=identity, station_id=StationId(identity))
    station_id = access.station_id
    if access.security_profile >= 2 and not is_tls:  # noqa: PLR2004 - profiles 2, 3
        return Admission(
            status=403,
            identity=identity,
            station_id=station_id,
            reason=f"security profile {access.security_profile} needs TLS",
        )
    if access.security_profile == 3 and not _is_named(access, certificate_names):  # noqa: PLR2004
        return Admission(
            status=403,
            identity=identity,
            station_id=station_id,
            reason="security profile 3 needs a client certificate in the station's name",
        )
    if access.password_hash and not _is_right(identity, authorization, access):
        return Admission(
            status=401,
            identity=identity,
            station_id=station_id,
            reason="wrong or missing Basic credentials",
        )
    return Admission(status=101, identity=identity, station_id=station_id)


def _is_named(access: StationAccess, names: frozenset[str]) -> bool:
    """Whether a verified certificate names this station (A00.FR.405)."""
    wanted = access.certificate_name or access.station_id
    return _folded(wanted) in {_folded(name) for name in names}


def hash_password(password: str, salt: bytes) -> str:
    """Hash a station key for storage: salted SHA-256, ``sha256$salt$digest`` in hex.

    A fast hash is right for machine-made keys of 128 bits; a slow one would turn a
    power cut into an outage (speed.md). A key in hex is the same key in any letter case.
    """
    is_hex = len(password) >= HEX_KEY_MIN and all(c in string.hexdigits for c in password)
    password = password.lower() if is_hex else password
    digest = hashlib.sha256(salt + password.encode()).hexdigest()
    return f"sha256${salt.hex()}${digest}"


def _is_right(identity: str, header: bytes | None, access: StationAccess) -> bool:
    sent = _basic(header)
    if sent is None:
        return False
    user, password = sent
    names = (access.station_id, *access.aliases, identity)
    is_user = any(
        hmac.compare_digest(user.lower(), name.encode().lower()) for name in names
    )
    is_password = any(_is_hash_of(access.password_hash, form) for form in _forms(password))
    return is_user and is_password


def _forms(password: bytes) -> list[bytes]:
    """All texts that the sent bytes may stand for: as sent, and hex of raw bytes.

    A 1.6 key is 40 hex digits for 20 bytes; some stations send the text, some the
    bytes (SEC-02). Letter case of hex text does not matter.
    """
    forms = [password, password.hex().encode(), password.hex().upper().encode()]
    if len(password) >= HEX_KEY_MIN:
        try:
            forms.append(bytes.fromhex(password.decode("ascii")))
        except ValueError:
            return forms
        forms += [password.lower(), password.upper()]
    return list(dict.fromkeys(forms))


def _is_hash_of(stored: str, password: bytes) -> bool:
    try:
        kind, salt_hex, digest = stored.split("$")
        salt = bytes.fromhex(salt_hex)
    except ValueError:
        return False
    made = hashlib.sha256(salt + password).hexdigest()
    return kind == "sha256" and hmac.compare_digest(made, digest)


def _basic(header: bytes | None) -> tuple[bytes, bytes] | None:
    """Split a Basic header on bytes: the password need not be UTF-8."""
    if header is None or header[:6].lower() != b"basic ":
        return None
    try:
        decoded = base64.b64decode(header[6:].strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None
