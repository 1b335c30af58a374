"""Access of stations over time: profiles that never fall, passwords that change, events.

What is learned here survives a restart: the highest profile a station proved (scope
``security-profile``), salted hashes of passwords that the agent gave out (scope
``station-passwords``), the last security events (scope ``security-events``).
"""

from __future__ import annotations

import secrets
import string
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from agent.control.operations import Arguments, OperationRefused, flag_of, text_of
from agent.domain.ids import StationId
from agent.domain.security import Grade, grade_of
from agent.ports import Answer, Clock, FactSaved, StationSecurity, Store

log = structlog.get_logger()

PROFILE_SCOPE = "security-profile"
PASSWORD_SCOPE = "station-passwords"  # noqa: S105 - the name of a scope
EVENT_SCOPE = "security-events"
PROFILE_KEPT_MIN = 2
"""Below TLS there is nothing that an eavesdropper could not repeat."""
HASHES_MAX = 4
"""The password in force and changes that no connection has proved yet."""
EVENTS_KEPT = 50
EVENTS_STORED_MAX, EVENTS_STORED_S = 30, 60.0
"""A station that reports more events a minute gets them counted, not stored."""
KEY_BYTES = 20
"""A 1.6 AuthorizationKey: 40 hex digits (security whitepaper 7.2)."""
PASSWORD_CHARACTERS = 32
"""A 2.x BasicAuthPassword has 16 to 40."""
ALPHABET = string.ascii_letters + string.digits
V16 = "ocpp1.6"


class AccessBook(Protocol):
    """What the handshake looks up; see ``stations.handshake.Known``."""

    lowest: dict[StationId, int]
    passwords: dict[StationId, tuple[str, ...]]


class Configured(Protocol):
    """What the configuration says of one station's access."""

    def password_hash(self, station_id: StationId) -> str:
        """Tell the hash of the configured password, empty without one."""
        ...

    def is_same(self, station_id: StationId, stored: str) -> bool:
        """Whether a hash from an earlier time is that of the configured password."""
        ...

    def may_fall(self, station_id: StationId) -> bool:
        """Whether the station may go back to a lower profile."""
        ...


class AccessKeeper:
    """Keeps profiles and passwords; the only writer of the access book."""

    def __init__(
        self,
        book: AccessBook,
        store: Store,
        clock: Clock,
        stations: StationSecurity,
        configured: Configured,
        hash_password: Callable[[str], str],
    ) -> None:
        """Keep ``book`` true to the store."""
        self._book = book
        self._store = store
        self._clock = clock
        self._stations = stations
        self._configured = configured
        self._hash = hash_password

    async def load(self) -> None:
        """Read what survived a restart. Raises StoreFault."""
        for name, body in (await self._store.facts(PROFILE_SCOPE)).items():
            profile = body.get("profile")
            if isinstance(profile, int):
                self._book.lowest[StationId(name)] = profile
        for name, body in (await self._store.facts(PASSWORD_SCOPE)).items():
            hashes = body.get("hashes")
            if isinstance(hashes, list):
                self._book.passwords[StationId(name)] = tuple(map(str, hashes))
        await self.reconfigured()

    async def reconfigured(self) -> None:
        """Let a password that a person wrote since then count again. Raises StoreFault."""
        for name, body in (await self._store.facts(PASSWORD_SCOPE)).items():
            station_id = StationId(name)
            if self._configured.is_same(station_id, str(body.get("configured", ""))):
                continue
            gone = FactSaved(scope=PASSWORD_SCOPE, name=name, body=None)
            await self._store.commit([gone], self._clock.now())
            self._book.passwords.pop(station_id, None)
            log.info("password_replaced", station_id=station_id, by="configuration")

    async def admitted(
        self, station_id: StationId, profile: int, password_hash: str
    ) -> None:
        """Take note of what a new connection proved. Raises StoreFault."""
        if not profile:
            return
        await self._keep_profile(station_id, profile)
        hashes = self._book.passwords.get(station_id, ())
        if len(hashes) > 1 and password_hash == hashes[-1]:
            await self._save(station_id, hashes[-1:])
            log.info("password_replaced", station_id=station_id, by="station")

    async def _keep_profile(self, station_id: StationId, profile: int) -> None:
        lowest = self._book.lowest.get(station_id, 0)
        is_fall = profile < lowest and self._configured.may_fall(station_id)
        is_rise = profile > lowest and profile >= PROFILE_KEPT_MIN
        if not is_fall and not is_rise:
            return
        now = self._clock.now()
        body: dict[str, object] = {"profile": profile, "at": now.isoformat()}
        fact = FactSaved(scope=PROFILE_SCOPE, name=station_id, body=body)
        await self._store.commit([fact], now)
        self._book.lowest[station_id] = profile
        if is_fall:
            log.warning("security_profile_lowered", station_id=station_id, profile=profile)
        else:
            log.info("security_profile_raised", station_id=station_id, profile=profile)

    async def _save(self, station_id: StationId, hashes: tuple[str, ...]) -> None:
        """Store hashes, then let them count. Raises StoreFault."""
        now = self._clock.now()
        kept = (await self._store.facts(PASSWORD_SCOPE)).get(station_id)
        configured = self._configured.password_hash(station_id)
        if kept is not None:
            configured = str(kept.get("configured", ""))
        body: dict[str, object] = {
            "hashes": list(hashes),
            "configured": configured,
            "at": now.isoformat(),
        }
        fact = FactSaved(scope=PASSWORD_SCOPE, name=station_id, body=body)
        await self._store.commit([fact], now)
        self._book.passwords[station_id] = hashes

    async def change_password(self, arguments: Arguments) -> object:
        """Operation: give a station a new password; nobody ever sees it.

        The old one opens until a connection has proved the new one, because some
        stations say Accepted and go on with the old, or lose the new at a reboot.
        """
        station_id = StationId(text_of(arguments, "station"))
        reconnects = flag_of(arguments, "reconnect")
        version = self._stations.version_of(station_id)
        if version is None:
            raise OperationRefused(f"{station_id} is not connected", status=409)
        password = _password(version)
        before = self._book.passwords.get(station_id) or (
            self._configured.password_hash(station_id),
        )
        hashes = (*before[-(HASHES_MAX - 1) :], self._hash(password))
        await self._save(station_id, hashes)  # first: it may take it and we may die
        answer = await self._stations.set_password(station_id, password)
        del password
        if answer.answer in (Answer.REFUSED, Answer.ERROR):
            await self._take_back(station_id, hashes)
            raise OperationRefused(
                f"{station_id} did not take a new password ({answer.detail}); the old one "
                "stays. Set it by the maker's means, and write it into the configuration",
                status=409,
            )
        is_sure = answer.answer is Answer.ACCEPTED
        log.info("password_sent", station_id=station_id, answer=answer.detail[:64])
        if reconnects and is_sure:
            await self._stations.hang_up(station_id)
        return {
            "station": station_id,
            "answer": answer.detail if is_sure else f"none yet ({answer.answer})",
            "note": "old and new password open until the station has connected with the "
            "new one",
        }

    async def _take_back(self, station_id: StationId, hashes: tuple[str, ...]) -> None:
        kept = tuple(item for item in hashes[:-1])
        if kept == (self._configured.password_hash(station_id),):
            gone = FactSaved(scope=PASSWORD_SCOPE, name=station_id, body=None)
            await self._store.commit([gone], self._clock.now())
            self._book.passwords.pop(station_id, None)
            return
        await self._save(station_id, kept)


def _password(version: str) -> str:
    if version == V16:
        return secrets.token_hex(KEY_BYTES)
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_CHARACTERS))


class EventBook:
    """The last security events of every station, graded and kept."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Keep them in ``store``."""
        self._store = store
        self._clock = clock
        self._events: dict[StationId, deque[dict[str, object]]] = {}
        self._stored: dict[StationId, deque[datetime]] = {}
        self.alarms = 0

    async def load(self) -> None:
        """Read what survived a restart. Raises StoreFault."""
        for name, body in (await self._store.facts(EVENT_SCOPE)).items():
            self._events[StationId(name)] = deque(texts(body, "events"), EVENTS_KEPT)

    async def reported(
        self, station_id: StationId, kind: str, station_time: str, detail: str
    ) -> None:
        """Grade an event, keep it, then return. Raises StoreFault."""
        now = self._clock.now()
        grade = grade_of(kind)
        if grade is Grade.ALARM:
            self.alarms += 1
            log.error(
                "security_alarm_raised",
                station_id=station_id,
                kind=kind,
                reason=detail[:100],
            )
        else:
            log.warning(
                "security_event_reported",
                station_id=station_id,
                kind=kind,
                grade=str(grade),
                reason=detail[:100],
            )
        kept = self._events.setdefault(station_id, deque(maxlen=EVENTS_KEPT))
        kept.append(
            {
                "at": now.isoformat(),
                "station_time": station_time,
                "kind": kind,
                "grade": str(grade),
                "detail": detail,
            }
        )
        if not self._may_store(station_id, now):
            return
        body: dict[str, object] = {"events": list(kept)}
        await self._store.commit(
            [FactSaved(scope=EVENT_SCOPE, name=station_id, body=body)], now
        )

    def _may_store(self, station_id: StationId, now: datetime) -> bool:
        times = self._stored.setdefault(station_id, deque(maxlen=EVENTS_STORED_MAX))
        since = now - timedelta(seconds=EVENTS_STORED_S)
        if len(times) == EVENTS_STORED_MAX and times[0] > since:
            return False
        times.append(now)
        return True

    async def listed(self, arguments: Arguments) -> object:
        """Operation: the events of one station, newest first."""
        station_id = StationId(text_of(arguments, "station"))
        return list(reversed(self._events.get(station_id, ())))


def texts(body: Mapping[str, object], name: str) -> list[dict[str, object]]:
    """Rows of a fact's body, as far as they are rows."""
    rows = body.get(name)
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict)]
