"""Our sessions against ChargEye's transactions: the same stay, told twice. Pure.

Joined by the station mapping, the connector and the time; each side is used once. That
``stationId`` is the OCPP identity and how connectors are named are *inferred*
(chargeye.md 15, Q10): ``[[stations]] chargeye_station_id`` and ``chargeye_connectors``
say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.cloud.chargeye_rows import CloudSession, CloudStation
from agent.domain.identity import mac_text
from agent.domain.session import Session

START_TOLERANCE = timedelta(minutes=10)
"""Two stays that begin this near to each other at one connector are one."""
TIME_TOLERANCE_S = 300.0
"""Plug-in, authorisation and the first meter value lie this far apart."""
ENERGY_TOLERANCE_WH = 500.0
ENERGY_TOLERANCE_SHARE = 0.02
"""Station and vehicle meters differ by cable losses and by when they were read."""
SOC_TOLERANCE = 2.0
"""Points; both round to whole percents at different moments."""
Told = tuple[str, str, str]
"""What differs, with our value and theirs."""
_LAST_NUMBER = re.compile(r"(?:connector|[-_:]|^)0*(\d+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StationLink:
    """How one of our stations is called in ChargEye; connectors by our number."""

    station_id: str
    cloud_id: str
    connectors: Mapping[str, str] = field(default_factory=dict)

    def is_same(self, session: Session, other: CloudSession) -> bool:
        """Whether a transaction was at the session's connector."""
        for number in (session.evse_id, session.connector_id):
            given = self.connectors.get(str(number))
            if given is not None:
                return given in other.connector_ids
        if not other.connector_ids:
            return True  # nothing says otherwise: the times decide
        numbers = {_number_of(name) for name in other.connector_ids}
        return bool(numbers & {int(session.evse_id), int(session.connector_id)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that the two sides tell differently; "" for what one does not have."""

    what: str
    station_id: str
    session_id: str = ""
    tx_id: str = ""
    ours: str = ""
    theirs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """The outcome: pairs that were found, and all differences."""

    pairs: tuple[tuple[str, str], ...]
    differences: tuple[Difference, ...]


def cross_check(
    sessions: Sequence[Session],
    theirs: Sequence[CloudSession],
    links: Sequence[StationLink],
    stations: Sequence[CloudStation],
    *,
    since: datetime,
) -> CrossCheck:
    """Join and compare everything that began after ``since``."""
    found = list(_stations(links, stations))
    pairs: list[tuple[str, str]] = []
    for link in links:
        own = [
            item
            for item in sessions
            if item.station_id == link.station_id and _begin(item) >= since
        ]
        rows = [
            item
            for item in theirs
            if item.station_id == link.cloud_id
            and item.started_at is not None
            and item.started_at >= since - START_TOLERANCE
        ]
        joined = _joined(link, own, rows)
        pairs += [(one.session_id, other.tx_id) for one, other in joined]
        for one, other in joined:
            found += _compared(link, one, other)
        used = {other.tx_id for _, other in joined}
        told = {one.session_id for one, _ in joined}
        found += [_only_ours(item) for item in own if item.session_id not in told]
        found += [
            _only_theirs(link, item)
            for item in rows
            if item.tx_id not in used and item.started_at and item.started_at >= since
        ]
    return CrossCheck(pairs=tuple(pairs), differences=tuple(found))


def _stations(
    links: Sequence[StationLink], stations: Sequence[CloudStation]
) -> Iterable[Difference]:
    known = {item.station_id: item for item in stations}
    for link in links:
        item = known.get(link.cloud_id)
        if item is None:
            yield Difference(
                what="station unknown to ChargEye: see chargeye_station_id",
                station_id=link.station_id,
                ours=link.cloud_id,
            )
        elif item.online == "Offline":
            yield Difference(
                what="station offline in ChargEye",
                station_id=link.station_id,
                theirs=item.online,
            )
    ours = {link.cloud_id for link in links}
    for name in sorted(set(known) - ours):
        yield Difference(what="station not configured here", station_id=name, theirs=name)


def _joined(
    link: StationLink, own: Sequence[Session], rows: Sequence[CloudSession]
) -> list[tuple[Session, CloudSession]]:
    """Pair by how near the stays begin, nearest first, each side once."""
    near = sorted(
        (
            (_distance_s(one, other), one.session_id, other.tx_id, one, other)
            for one in own
            for other in rows
            if link.is_same(one, other) and _is_one_stay(one, other)
        ),
        key=lambda item: item[:3],
    )
    found: list[tuple[Session, CloudSession]] = []
    used: set[str] = set()
    for _, session_id, tx_id, one, other in near:
        if session_id in used or tx_id in used:
            continue
        used |= {session_id, tx_id}
        found.append((one, other))
    return found


def _begin(session: Session) -> datetime:
    return min(session.plugged_at, session.started_at or session.plugged_at)


def _distance_s(one: Session, other: CloudSession) -> float:
    starts = other.started_at or other.charging_started_at or _begin(one)
    return abs((starts - _begin(one)).total_seconds())


def _is_one_stay(one: Session, other: CloudSession) -> bool:
    """Whether they begin near each other, or lie in each other's time."""
    if _distance_s(one, other) <= START_TOLERANCE.total_seconds():
        return True
    begin, starts = _begin(one), other.started_at
    if starts is None:
        return False
    ends, theirs = one.ended_at, other.ended_at
    return (ends is None or starts < ends) and (theirs is None or begin < theirs)


def _compared(link: StationLink, one: Session, other: CloudSession) -> list[Difference]:
    told = [
        *_energy(one, other),
        *_socs(one, other),
        *_times(one, other),
        *_names(one, other),
    ]
    return [
        Difference(
            what=what,
            station_id=link.station_id,
            session_id=one.session_id,
            tx_id=other.tx_id,
            ours=ours,
            theirs=theirs,
        )
        for what, ours, theirs in told
    ]


def _is_over(one: Session, other: CloudSession) -> bool:
    return one.ended_at is not None and other.ended_at is not None


def _energy(one: Session, other: CloudSession) -> Iterable[Told]:
    if not _is_over(one, other) or other.energy_wh is None:
        return
    ours_wh = one.meter.energy_wh
    if abs(ours_wh - other.energy_wh) > max(
        ENERGY_TOLERANCE_WH, ENERGY_TOLERANCE_SHARE * ours_wh
    ):
        yield "energy", _kwh(ours_wh), _kwh(other.energy_wh)


def _socs(one: Session, other: CloudSession) -> Iterable[Told]:
    socs = [("SoC at start", one.meter.soc_first, other.soc_start)]
    if _is_over(one, other):
        socs.append(("SoC at end", one.meter.soc_percent, other.soc_end))
    for what, ours, theirs in socs:
        if ours is not None and theirs is not None and abs(ours - theirs) > SOC_TOLERANCE:
            yield what, f"{ours:g} %", f"{theirs:g} %"


def _times(one: Session, other: CloudSession) -> Iterable[Told]:
    if other.started_at is not None and _distance_s(one, other) > TIME_TOLERANCE_S:
        yield "begin", _iso(_begin(one)), _iso(other.started_at)
    if one.ended_at is not None and other.ended_at is not None:
        if abs((one.ended_at - other.ended_at).total_seconds()) > TIME_TOLERANCE_S:
            yield "end", _iso(one.ended_at), _iso(other.ended_at)
    elif one.ended_at is not None or other.ended_at is not None:
        yield "end: over on one side only", _iso(one.ended_at), _iso(other.ended_at)


def _names(one: Session, other: CloudSession) -> Iterable[Told]:
    if one.mac is not None and other.mac is not None and one.mac != other.mac:
        yield "MAC", mac_text(one.mac), mac_text(other.mac)
    if one.vehicle_id and other.vehicle_id and one.vehicle_id != other.vehicle_id:
        yield "vehicle", one.vehicle_id, other.vehicle_id


def _only_ours(item: Session) -> Difference:
    return Difference(
        what="session unknown to ChargEye",
        station_id=item.station_id,
        session_id=item.session_id,
        ours=f"{_iso(_begin(item))}, {_kwh(item.meter.energy_wh)}",
    )


def _only_theirs(link: StationLink, item: CloudSession) -> Difference:
    energy = _kwh(item.energy_wh) if item.energy_wh is not None else "energy not told"
    return Difference(
        what="transaction unknown here",
        station_id=link.station_id,
        tx_id=item.tx_id,
        theirs=f"{_iso(item.started_at)}, {energy}",
    )


def _number_of(name: str) -> int | None:
    """The number at the end of ``1``, ``CP-1_connector3`` or ``CP-1-3``."""
    found = _LAST_NUMBER.search(name)
    return int(found[1]) if found is not None else None


def _kwh(energy_wh: float) -> str:
    return f"{energy_wh / 1000:.1f} kWh"


def _iso(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else ""
