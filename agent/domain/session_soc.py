"""The SoC of a session by the order of trust: station, needs, vehicle's cloud, schedule.

Reads a session and changes nothing (ocpp-depot.md A5). A station that gives SoC is
believed as it is; where it stopped, or never began, metered energy carries on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from agent.domain import soc
from agent.domain.session import Session
from agent.domain.soc import Soc, SocAnchor, SocBook, SocSource

SILENT_S = 1800.0
"""A station that said no SoC for so long, while the meter went on, gives none."""
DOUBT_POINTS = 15.0
"""A SoC of the station that is lower by more than this than what metered energy makes of
an earlier one gains its vehicle no priority (faults.md W7)."""


def soc_now(session: Session, now: datetime) -> Soc | None:
    """What is believed now, or at the end of a session that is over; None if nothing."""
    at = now if session.ended_at is None else session.ended_at
    energy_wh = soc.energy_at(session.meter, at)
    book = _book(session)
    found = soc.estimate(book, energy_wh, session.battery, at=at)
    if found is None:
        return None
    newest = book.anchors[-1]
    if newest.source is SocSource.SCHEDULE:
        return replace(found, source=SocSource.ESTIMATE, measured_at=None)
    if found.source in (SocSource.STATION, SocSource.NEEDS):
        return replace(found, percent=newest.percent)  # as the station shows it
    return found


def soc_by_energy(session: Session, now: datetime) -> float | None:
    """What metered energy has made of the first SoC, or of the vehicle's own cloud's.

    None without a measurement or where the battery's size is not known.
    """
    own = [item for item in session.soc_book.anchors if item.source is SocSource.CLOUD]
    first = own[-1] if own else _first_at_station(session)
    if first is None or session.battery is None:
        return None
    at = now if session.ended_at is None else session.ended_at
    energy_wh = soc.energy_at(session.meter, at)
    found = soc.estimate(SocBook(anchors=(first,)), energy_wh, session.battery)
    return None if found is None else found.percent


def soc_for_priority(session: Session, now: datetime) -> tuple[float | None, bool]:
    """The SoC that decides who is served first, and whether the station's is doubted."""
    said = soc_now(session, now) if session.battery is not None else None
    if said is None:
        return None, False
    if said.source in (SocSource.STATION, SocSource.NEEDS):
        reckoned = soc_by_energy(session, now)
        if reckoned is not None and reckoned - said.percent > DOUBT_POINTS:
            return reckoned, True
    return said.percent, False


def soc_start(session: Session) -> float | None:
    """The SoC at arrival: of the station, else reckoned back; None if nobody measured."""
    if session.meter.soc_first is not None:
        return session.meter.soc_first
    found = soc.at_start(session.soc_book, session.battery)
    return None if found is None else round(found, 1)


def gives_soc(session: Session) -> bool:
    """Whether the station reports SoC in this session, and still does."""
    meter = session.meter
    if meter.soc_at is None or _is_of_needs(session):
        return False
    newest = max(meter.register_at or meter.soc_at, meter.power_at or meter.soc_at)
    return (newest - meter.soc_at).total_seconds() < SILENT_S


def measured(session: Session) -> tuple[SocAnchor, ...]:
    """All measurements that can teach how SoC follows energy, oldest first."""
    at_station = _of_history(session)
    return at_station if len(at_station) > 1 else session.soc_book.anchors


def _book(session: Session) -> SocBook:
    """The measurements that count, the station's newest before all older ones."""
    book, meter = session.soc_book, session.meter
    if meter.soc_percent is not None and meter.soc_at is not None:
        is_needs = _is_of_needs(session)
        own = SocAnchor(
            percent=meter.soc_percent,
            energy_wh=soc.energy_at(meter, meter.soc_at),
            at=meter.soc_at,
            source=SocSource.NEEDS if is_needs else SocSource.STATION,
            sigma=soc.SIGMA_STATION,
        )
        later = tuple(item for item in book.anchors if item.at > own.at)
        return SocBook(anchors=(own, *later), ceiling=book.ceiling if later else None)
    if not book.anchors and session.schedule_soc_percent is not None:
        expected = SocAnchor(
            percent=session.schedule_soc_percent,
            energy_wh=0.0,
            at=session.plugged_at,
            source=SocSource.SCHEDULE,
            sigma=soc.SIGMA_SCHEDULE,
        )
        return SocBook(anchors=(expected,), ceiling=book.ceiling)
    return book


def _is_of_needs(session: Session) -> bool:
    needs = session.needs
    return (
        needs is not None
        and needs.soc_percent is not None
        and session.meter.soc_at == needs.at
    )


def _first_at_station(session: Session) -> SocAnchor | None:
    """The first SoC that came with meter values, at the energy before its slot."""
    energy_wh = 0.0
    for start_s, held_wh, first, _ in session.meter.history:
        if first is not None:
            return SocAnchor(
                percent=first,
                energy_wh=energy_wh,
                at=datetime.fromtimestamp(start_s, session.plugged_at.tzinfo),
                source=SocSource.STATION,
                sigma=soc.SIGMA_STATION,
            )
        energy_wh += held_wh
    return None


def _of_history(session: Session) -> tuple[SocAnchor, ...]:
    """First and last SoC of the station with the energy at them, as far as known."""
    found: list[SocAnchor] = []
    energy_wh = 0.0
    for start_s, held_wh, _, last in session.meter.history:
        energy_wh += held_wh
        if last is not None and held_wh > 0:
            at = datetime.fromtimestamp(start_s, session.plugged_at.tzinfo)
            found.append(
                SocAnchor(
                    percent=last,
                    energy_wh=energy_wh,
                    at=at,
                    source=SocSource.STATION,
                    sigma=2 * soc.SIGMA_STATION,
                )
            )
    return (found[0], found[-1]) if len(found) > 1 else tuple(found)
