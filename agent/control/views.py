"""What people and scripts see: plain JSON values (contract section 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agent.control.depot import Depot
from agent.control.explain import level, proof_of
from agent.control.health import CloudHealth
from agent.control.ladders import shown
from agent.domain import session_soc
from agent.domain.curve import value_at
from agent.domain.efficiency import used
from agent.domain.identity import MatchOutcome, V2icpWord, Vehicle
from agent.domain.ids import EvseId, StationId, TransactionId
from agent.domain.plan import Preconditioning, Schedule
from agent.domain.session import Session, SessionPhase
from agent.ports import Candidate, OutboxRow

Json = dict[str, object]
LastSeen = Callable[[StationId], datetime | None]
ProfileOf = Callable[[StationId], int | None]
"""The least security profile with which a station may connect; None if not told."""

MEASURED_SHOWN_S = 900.0
"""Measured power is shown as power now while it is younger than this."""


def iso(at: datetime | None) -> str | None:
    """ISO 8601 UTC with ``Z``."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def stations(
    depot: Depot,
    now: datetime,
    last_seen: LastSeen,
    profile_of: ProfileOf = lambda _: None,
) -> list[Json]:
    """All stations, configured or seen, with their outlets."""
    names = sorted({**depot.traits, **depot.states})
    return [
        _station(depot, station_id, now, last_seen)
        | {"security_profile": profile_of(station_id)}
        for station_id in names
    ]


def _station(
    depot: Depot, station_id: StationId, now: datetime, last_seen: LastSeen
) -> Json:
    state = depot.state(station_id)
    return {
        "station_id": station_id,
        "connected": state.is_connected,
        "ocpp_version": state.ocpp_version.removeprefix("ocpp") or None,
        "vendor": state.vendor or None,
        "model": state.model or None,
        "firmware": state.firmware or None,
        "serial": state.serial or None,
        "status": state.station_status,
        "last_seen": iso(last_seen(station_id)),
        "max_w": depot.traits_of(station_id).rated_w,
        "default_w": depot.power_of((station_id, EvseId(0))).default_w,
        "ladder": shown(depot, station_id),
        "efficiency": _efficiency(depot, station_id),
        "limit_writes_today": depot.writes_today(station_id, now),
        "evses": [
            _evse(depot, station_id, evse, now) for evse in depot.outlets(station_id)
        ],
    }


def _efficiency(depot: Depot, station_id: StationId) -> Json | None:
    """Of DC: what counts, what was configured, what was measured so far."""
    if not depot.traits_of(station_id).is_dc:
        return None
    known, configured = depot.efficiencies.get(station_id), depot.policy.efficiency
    learned = known.learned if known is not None else None
    return {
        "used": round(used(configured, known), 3),
        "configured": configured,
        "learned": None if learned is None else round(learned, 3),
    }


def _evse(depot: Depot, station_id: StationId, evse_id: EvseId, now: datetime) -> Json:
    state = depot.state(station_id)
    evse = state.evses.get(evse_id)
    session = state.session_at(evse_id)
    running = session.open_transaction if session is not None else None
    power = depot.power_of((station_id, evse_id))
    view = depot.views.get((station_id, evse_id))
    at_s = now.timestamp()
    newest = power.doubtful or power.confirmed
    is_live = running is not None

    def is_own(sent_for: TransactionId | None) -> bool:
        return running is not None and sent_for == running.transaction_id

    confirmed = power.confirmed if power.confirmed is not None else None
    return {
        "evse_id": evse_id,
        "connector_id": evse.connector_id if evse is not None else evse_id,
        "status": evse.status if evse is not None else "Unknown",
        "error": evse.error if evse is not None else "",
        "session_id": session.session_id if session is not None else None,
        "vehicle_id": session.vehicle_id if session is not None else None,
        "power_w": measured_w(session, now),
        "limit_w": {
            "planned": view.planned_w if view is not None and is_live else None,
            "allocated": view.allocated_w if view is not None and is_live else None,
            "sent": value_at(newest.allows, at_s)
            if newest is not None and is_own(newest.transaction_id)
            else None,
            "confirmed": value_at(confirmed.allows, at_s)
            if confirmed is not None and is_own(confirmed.transaction_id)
            else None,
            "verified": power.verified if is_live else None,
            "state": proof_of(power) if is_live else None,
            "proof": level(depot, session, (station_id, evse_id)),
        },
        "source": view.source if view is not None and is_live else None,
        "outlook": _outlook(depot, session),
        "order": power.order,
        "order_detail": power.detail,
    }


def _outlook(depot: Depot, session: Session | None) -> Json | None:
    """What a session comes to at departure; None while no departure is known."""
    found = depot.accounts.get(session.session_id) if session is not None else None
    if found is None or found.departs_at is None:
        return None
    expected = found.expected_soc
    return {
        "departs_at": iso(found.departs_at),
        "target_soc": found.target_soc,
        "expected_soc": None if expected is None else round(expected, 1),
        "behind_wh": round(found.behind_wh),
        "at_risk": found.at_risk,
        "reason": found.reason or None,
    }


def measured_w(session: Session | None, now: datetime) -> float | None:
    """Power at the outlet now: 0 without a transaction, None when not known."""
    if session is None or session.open_transaction is None:
        return 0.0
    at = session.meter.power_at
    if at is None or (now - at).total_seconds() > MEASURED_SHOWN_S:
        return None
    return round(session.meter.power_w or 0.0, 1)


def session(item: Session, now: datetime | None = None) -> Json:
    """One session; its SoC as of ``now``, without it as of the last meter value."""
    meter = item.meter
    is_over = item.phase is SessionPhase.ENDED
    soc = session_soc.soc_now(item, now or meter.register_at or item.plugged_at)
    soc_percent = None if soc is None else round(soc.percent, 1)
    return {
        "session_id": item.session_id,
        "station_id": item.station_id,
        "evse_id": item.evse_id,
        "connector_id": item.connector_id,
        "ocpp_version": item.ocpp_version.removeprefix("ocpp"),
        "vehicle_id": item.vehicle_id,
        "mac": item.mac,
        "id_token": item.id_token or None,
        "vin": item.vin,
        "account": item.account_id,
        "account_verified": item.account_ok,
        "account_reason": item.account_reason or None,
        "match": item.match,
        "match_evidence": [
            {
                "kind": hint.kind,
                "value": hint.value,
                "raw": hint.raw,
                "source": hint.source,
                "at": iso(hint.at),
            }
            for hint in item.evidence
        ],
        "match_reason": item.match_reason,
        "schedule_id": item.schedule_id,
        "transaction_ids": [
            _transaction_id(part.transaction_id, item.ocpp_version)
            for part in item.transactions
        ],
        "state": item.phase,
        "plugged_at": iso(item.plugged_at),
        "started_at": iso(item.started_at),
        "ended_at": iso(item.ended_at),
        "energy_wh": round(meter.energy_wh, 1),
        "power_w": None if is_over else meter.power_w,
        "soc_start": session_soc.soc_start(item),
        "soc_now": soc_percent,
        "soc_end": soc_percent if is_over else None,
        "soc_source": None if soc is None else soc.source,
        "soc_confidence": None if soc is None else round(soc.confidence, 1),
        "soc_at": None if soc is None else iso(soc.measured_at),
        "car_limit": item.soc_book.ceiling,
        "goal": _goal(item),
        "stop_reason": item.stop_reason or None,
        "anomalies": list(item.anomalies),
    }


def _goal(item: Session) -> Json | None:
    """How far it is to charge because somebody said so."""
    if item.goal is None:
        return None
    return {
        "energy_wh": item.goal.energy_wh,
        "soc_percent": item.goal.soc_percent,
        "source": item.goal.source,
        "reached_at": iso(item.goal_reached_at),
    }


def _transaction_id(transaction_id: TransactionId, version: str) -> int | str:
    """1.6 ids are numbers on the wire, 2.x ids are text."""
    if version == "ocpp1.6" and transaction_id.isdigit():
        return int(transaction_id)
    return transaction_id


def _soc_now(item: Session, now: datetime | None) -> float | None:
    soc = session_soc.soc_now(item, now or item.meter.register_at or item.plugged_at)
    return None if soc is None else round(soc.percent, 1)


def vehicles(depot: Depot, now: datetime | None = None) -> list[Json]:
    """The registry, with where each vehicle is plugged in."""
    held = {
        item.vehicle_id: item
        for item in depot.open_sessions()
        if item.vehicle_id is not None and item.match is MatchOutcome.UNIQUE
    }
    found: list[Json] = []
    for vehicle in sorted(depot.registry.values(), key=lambda row: row.vehicle_id):
        here = held.get(vehicle.vehicle_id)
        found.append(
            {
                "vehicle_id": vehicle.vehicle_id,
                "name": vehicle.name or None,
                "plate": vehicle.plate or None,
                "model": vehicle.model or None,
                "macs": sorted(vehicle.macs)
                or ([vehicle.fallback_mac] if vehicle.fallback_mac else []),
                "vin": vehicle.vin,
                "capacity_wh": vehicle.capacity_wh,
                "max_w": vehicle.max_w,
                "min_w": vehicle.min_w,
                "can_pause": vehicle.can_pause,
                "follows_schedule": vehicle.follows_schedule,
                "v2icp": _v2icp(vehicle.v2icp),
                "preconditioning": _heating(vehicle),
                "session_id": here.session_id if here is not None else None,
                "station_id": here.station_id if here is not None else None,
                "soc_now": _soc_now(here, now) if here is not None else None,
            }
        )
    return found


def _v2icp(word: V2icpWord | None) -> Json | None:
    """The last V2ICP exchange of a bus."""
    if word is None:
        return None
    return {
        "vin": word.vin,
        "mac": word.mac,
        "at": iso(word.at),
        "odometer_km": word.odometer_km,
    }


def _heating(vehicle: Vehicle) -> Json | None:
    """What the depot asks the bus for, and the least power that it needs."""
    wish = vehicle.heating
    if wish is None and vehicle.min_preconditioning_w is None:
        return None
    return {
        "wanted": wish.is_wanted if wish is not None else None,
        "interior_hvac": (wish.interior or None) if wish is not None else None,
        "ambient_c": wish.ambient_c if wish is not None else None,
        "min_w": vehicle.min_preconditioning_w,
    }


def _needs(asked: Preconditioning | None) -> Json | None:
    """What the bus needs before it leaves, as the plan carries it."""
    if asked is None:
        return None
    return {
        "battery_s": asked.battery_s,
        "vehicle_s": asked.vehicle_s,
        "vehicle_wh": asked.vehicle_wh,
    }


def plans(depot: Depot, now: datetime) -> list[Json]:
    """All schedules with their plans, next departure first."""
    rows = sorted(depot.schedules.values(), key=lambda row: row.departs_at)
    return [_plan(depot, row, now) for row in rows]


def _plan(depot: Depot, row: Schedule, now: datetime) -> Json:
    holder = next(
        (item for item in depot.open_sessions() if item.schedule_id == row.schedule_id),
        None,
    )
    segments = row.plan.segments if row.plan is not None else ()
    return {
        "schedule_id": row.schedule_id,
        "vehicle_id": row.vehicle_id,
        "arrives_at": iso(row.arrives_at),
        "departs_at": iso(row.departs_at),
        "start_soc": row.start_soc_percent,
        "target_soc": row.target_soc_percent,
        "planned_at": iso(row.plan.planned_at) if row.plan is not None else None,
        "running": row.arrives_at <= now < row.departs_at,
        "session_id": holder.session_id if holder is not None else None,
        "preconditioning": _needs(row.plan.preconditioning) if row.plan else None,
        "segments": [
            {
                "from": iso(item.starts_at),
                "to": iso(item.ends_at),
                "power_w": item.power_w,
                "paused": item.paused,
                "unlimited": item.unlimited,
            }
            for item in segments
        ],
    }


def outbox(
    rows: Sequence[OutboxRow], destinations: Sequence[str], now: datetime
) -> list[Json]:
    """Owed and dead messages per destination."""
    by_name: dict[str, list[OutboxRow]] = defaultdict(list)
    for row in rows:
        by_name[row.destination].append(row)
    found: list[Json] = []
    for name in sorted({*destinations, *by_name}):
        owed = [row for row in by_name[name] if not row.is_dead]
        dead = [row for row in by_name[name] if row.is_dead]
        oldest = min((row.created_at for row in owed), default=None)
        found.append(
            {
                "destination": name,
                "pending": len(owed),
                "oldest_age_s": round((now - oldest).total_seconds())
                if oldest is not None
                else 0,
                "dead": len(dead),
                "last_error": next(
                    (row.error for row in reversed(owed) if row.error), None
                ),
                "dead_letters": [
                    {
                        "key": row.key,
                        "session_id": row.session_id,
                        "vehicle_id": row.report.vehicle_id,
                        "created_at": iso(row.created_at),
                        "attempts": row.attempts,
                        "error": row.error,
                    }
                    for row in dead[:50]
                ],
            }
        )
    return found


def candidates(rows: Sequence[Candidate]) -> list[Json]:
    """Addresses that no vehicle has, for enrolment."""
    return [
        {
            "mac": row.mac,
            "station_id": row.station_id,
            "first_at": iso(row.first_at),
            "last_at": iso(row.last_at),
            "sessions": row.sessions,
        }
        for row in rows
    ]


def status(depot: Depot, now: datetime, clouds: Sequence[CloudHealth], name: str) -> Json:
    """The depot at a glance."""
    opened = depot.open_sessions()
    load = depot.site_load
    drawn_w = sum(measured_w(item, now) or 0.0 for item in opened)
    grid_w = sum(
        (measured_w(item, now) or 0.0) * depot.grid_factor(item.station_id)
        for item in opened
    )
    return {
        "site": name,
        "time": iso(now),
        "cap_w": depot.policy.cap_w,
        "unmanaged_w": None if load is None else round(load.unmanaged_w),
        "site_meter": None
        if load is None
        else {"fresh": load.is_measured, "total_w": load.total_w, "because": load.words},
        "drawn_w": round(drawn_w),
        "drawn_grid_w": round(grid_w),
        "stations": len({**depot.traits, **depot.states}),
        "stations_connected": sum(item.is_connected for item in depot.states.values()),
        "sessions_open": len(opened),
        "sessions_charging": sum(item.open_transaction is not None for item in opened),
        "vehicles": len(depot.registry),
        "plans": sum(item.plan is not None for item in depot.schedules.values()),
        "not_following": sorted(
            f"{outlet[0]}/{outlet[1]}"
            for outlet, power in depot.power.items()
            if power.verified is False
        ),
        "billing": None
        if depot.billing is None
        else {
            "required": depot.billing.is_required,
            "accounts": len(depot.billing.book.accounts),
            "without_account": depot.billing.without,
        },
        "registry_at": iso(depot.registry_at),
        "plans_at": iso(depot.schedules_at),
        "clouds": [
            {
                "cloud": item.name,
                "reachable": item.is_reachable,
                "since": iso(item.since),
                "error": item.last_error or None,
            }
            for item in clouds
        ],
    }
