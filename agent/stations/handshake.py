"""Pure: path to identity, subprotocol choice, credentials; accept or refuse.

OCPP-J 3.1 to 3.3, security whitepaper profiles 1 to 3; charger-quirks.md CON and SEC.
``Admission.status`` is the truth, for the log: unknown identity 404, wrong credentials
401, a lower profile 403. What the peer is told (``answer``) tells them apart only where
the standard asks for it and nothing was guessed: see ``answer``.
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
    """How one configured station may connect.

    ``versions``: subprotocols that it may speak, all of ours when empty.
    """

    station_id: StationId
    security_profile: int = 0
    password_hash: str = ""
    certificate_name: str = ""
    serial_number: str = ""
    allow_lower_profile: bool = False
    versions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """What its certificate may call it (A00.FR.405: the serial number)."""
        names = (self.certificate_name or self.station_id, self.serial_number)
        return tuple(name for name in names if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a connection shows of itself besides its path and its Authorization header.

    ``names``, ``serial`` and ``device_serial`` are those of the client certificate that
    TLS verified; ``device_serial`` is the serial number in its subject.
    """

    is_tls: bool
    names: frozenset[str] = frozenset()
    serial: int | None = None
    device_serial: str = ""
    origin: str = ""


@dataclass(slots=True, kw_only=True)
class Known:
    """What the agent itself learned of stations' access; it outlives a reload.

    ``lowest``: the highest profile that a station proved, below which it is refused.
    ``passwords``: hashes that take the place of the configured one, newest last.
    """

    lowest: dict[StationId, int] = field(default_factory=dict)
    passwords: dict[StationId, tuple[str, ...]] = field(default_factory=dict)
    revoked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the handshake decided; ``status`` is 101, 401, 403 or 404.

    ``profile`` is what was proved: 1 password, 2 password within TLS, 3 certificate.
    ``expected_serials``: what the station must call itself when it boots.
    """

    status: int
    station_id: StationId | None = None
    identity: str = ""
    reason: str = ""
    profile: int = 0
    password_hash: str = field(default="", repr=False)
    versions: tuple[str, ...] = ()
    expected_serials: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether the station showed credentials that were right."""
        return self.profile > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """All configured stations, found by identity without case (CON-06).

    ``assumed_version``: what a station speaks that names no subprotocol (CON-01); None:
    it is refused.
    """

    stations: Mapping[StationId, StationAccess]
    accepts_unknown: bool = False
    assumed_version: str | None = None
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


def choose_subprotocol(offered: Sequence[str], allowed: tuple[str, ...] = ()) -> str | None:
    """Choose the first of the client's list that we speak: its order is its preference.

    ``allowed`` narrows what we speak, for a station that is pinned to versions (A6).
    """
    spoken = allowed or SUBPROTOCOLS
    return next((name for name in offered if name in spoken), None)


def assumed_version(assumed: str | None, allowed: tuple[str, ...] = ()) -> str | None:
    """Tell what a station speaks that offers no subprotocol at all (CON-01), or None.

    A station that is pinned to one version speaks that; ``assumed`` is for all others.
    """
    if len(allowed) == 1:
        return allowed[0]
    return assumed if not allowed or assumed in allowed else None


def admit(
    path: str,
    authorization: bytes | None,
    doors: Doors,
    *,
    is_tls: bool = False,
    certificate_names: frozenset[str] = frozenset(),
    presented: Presented | None = None,
    known: Known | None = None,
) -> Admission:
    """Decide about a connection from its path, its Authorization header and its TLS.

    ``presented`` says all that TLS and the headers told; ``is_tls`` and
    ``certificate_names`` are its short form. Does the same work for a station that is
    not configured as for one with a wrong password (A8).
    """
    shown = presented or Presented(is_tls=is_tls, names=certificate_names)
    learned = known or Known()
    identity = identity_of(path)
    if identity is None:
        return Admission(status=404, reason="the path names no station")
    access = doors.find(identity)
    hashes = (NOBODY.password_hash,) if access is None else _hashes(access, learned)
    right = _right_hash(identity, authorization, access or NOBODY, hashes)
    if access is None:
        return _stranger(identity, doors, shown)
    is_named = _is_named(access, shown.names) and shown.serial not in learned.revoked
    is_proven = bool(hashes) and right is not None
    # Profile 3 has no password; the certificate says more (security whitepaper 2.5).
    # An empty hash among them: no password yet, a first one is on its way.
    has_choice = "" in hashes or (is_named and authorization is None)
    needs_password = bool(hashes) and not has_choice
    lowest = 0 if access.allow_lower_profile else learned.lowest.get(access.station_id, 0)
    wanted = max(access.security_profile, lowest)
    status, reason = 101, ""
    if wanted >= 2 and not shown.is_tls:  # noqa: PLR2004 - profiles 2, 3
        status, reason = 403, f"security profile {wanted} needs TLS"
    elif shown.names and shown.serial in learned.revoked:
        status, reason = 403, "its client certificate was revoked"
    elif wanted == 3 and not is_named:  # noqa: PLR2004
        status = 403
        reason = "security profile 3 needs a client certificate in the station's name"
    elif shown.names and not is_named:
        status, reason = 403, "its client certificate is that of another station"
    elif needs_password and not is_proven:
        status, reason = 401, "wrong or missing Basic credentials"
    elif _is_page(shown.origin) and not is_proven and not is_named:
        status, reason = 403, "a web page, and the station has no credentials"
    if status == 403 and wanted > access.security_profile and wanted == lowest:  # noqa: PLR2004
        reason += "; it proved this profile before: allow_lower_profile lets it go back"
    serials = (access.serial_number, shown.device_serial if is_named else "")
    return Admission(
        status=status,
        identity=identity,
        station_id=access.station_id,
        reason=reason,
        profile=_profile(shown, is_named=is_named, is_proven=is_proven),
        password_hash=right or "",
        versions=access.versions,
        expected_serials=tuple(item for item in serials if item),
    )


def answer(admission: Admission, *, hides: bool) -> int:
    """The status that the peer is told.

    Unknown is 404 by OCPP-J 3.2, but a peer that sent credentials (or ``hides``) hears
    401 whatever was wrong, so that it cannot tell an unknown id from a wrong password.
    """
    is_refused = admission.status != 101  # noqa: PLR2004
    return 401 if is_refused and hides else admission.status


def _stranger(identity: str, doors: Doors, shown: Presented) -> Admission:
    """Decide about a station that is not configured."""
    if not doors.accepts_unknown:
        return Admission(
            status=404, identity=identity, reason="the station is not configured"
        )
    if _is_page(shown.origin):
        reason = "a web page, and the station has no credentials"
        return Admission(status=403, identity=identity, reason=reason)
    return Admission(status=101, identity=identity, station_id=StationId(identity))


def _profile(shown: Presented, *, is_named: bool, is_proven: bool) -> int:
    if shown.is_tls and is_named:
        return 3
    return 0 if not is_proven else 2 if shown.is_tls else 1


def _is_page(origin: str) -> bool:
    """Whether a browser speaks; firmware sends ``file://`` and the like (CON-04)."""
    return origin.strip().lower().startswith(("http://", "https://"))


def _is_named(access: StationAccess, names: frozenset[str]) -> bool:
    """Whether a verified certificate names this station (A00.FR.405)."""
    found = {_folded(name) for name in names}
    return any(_folded(name) in found for name in access.certificate_names)


def _hashes(access: StationAccess, known: Known) -> tuple[str, ...]:
    learned = known.passwords.get(access.station_id)
    if learned:
        return learned
    return (access.password_hash,) if access.password_hash else ()


def hash_password(password: str, salt: bytes) -> str:
    """Hash a station key for storage: salted SHA-256, ``sha256$salt$digest`` in hex.

    A fast hash is right for machine-made keys of 128 bits; a slow one would turn a
    power cut into an outage (speed.md). A key in hex is the same key in any letter case.
    """
    is_hex = len(password) >= HEX_KEY_MIN and all(c in string.hexdigits for c in password)
    password = password.lower() if is_hex else password
    digest = hashlib.sha256(salt + password.encode()).hexdigest()
    return f"sha256${salt.hex()}${digest}"


def is_password(password: str, stored: str) -> bool:
    """Whether a text is the password behind a stored hash."""
    return any(_is_hash_of(stored, form) for form in _forms(password.encode()))


def _right_hash(
    identity: str, header: bytes | None, access: StationAccess, hashes: tuple[str, ...]
) -> str | None:
    """The stored hash that the header fits, or None."""
    sent = _basic(header)
    if sent is None:
        return None
    user, password = sent
    names = (access.station_id, *access.aliases, identity)
    is_user = any(
        hmac.compare_digest(user.lower(), name.encode().lower()) for name in names
    )
    right: str | None = None
    for form in _forms(password):
        for stored in hashes:
            if _is_hash_of(stored, form):
                right = stored
    return right if is_user else None


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


NOBODY = StationAccess(
    station_id=StationId("\x00"), password_hash=f"sha256${'00' * SALT_BYTES}${'0' * 64}"
)
"""Stands in for a station that is not configured, so that it costs the same time."""
