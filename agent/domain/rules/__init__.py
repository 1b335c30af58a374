"""The session machine: (state of a station, event) -> decision. Pure.

Theory of operation. An outlet is empty or has one open session. A session opens when
a status or a transaction shows a vehicle, and ends when the cable is seen to be out:
by ``Available``, by a stop for ``EVDisconnected``, or by another vehicle. Stations send
these in any order, twice, late, or not at all, so every event is legal in every phase;
what does not fit becomes an anomaly, never an error. Nothing is re-opened by late data.

The table ``STEPS`` maps each event type to its step; a type that is missing is a bug
that the type checker and a test find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from agent.domain import events
from agent.domain.effects import Decision
from agent.domain.ids import SessionId, TransactionId
from agent.domain.rules.cable import connector_changed, ticked
from agent.domain.rules.chain import (
    RESUMED,
    checked,
    external_limit_changed,
    needs_reported,
    reported,
    reported_quietly,
    ticked_holds,
)
from agent.domain.rules.charge import (
    battery_known,
    car_limit_seen,
    goal_reached,
    goal_set,
    soc_reported,
)
from agent.domain.rules.metering import meter_sampled
from agent.domain.rules.naming import (
    evidence_reported,
    schedule_bound,
    token_presented,
    vehicle_matched,
)
from agent.domain.rules.owed import correct_bills
from agent.domain.rules.paying import account_checked
from agent.domain.rules.transactions import ended, started
from agent.domain.rules.work import Work
from agent.domain.station import StationState

__all__ = ["RESUMED", "STEPS", "advance", "meter_sampled", "reported_quietly"]


def advance(
    state: StationState,
    event: events.Event,
    *,
    now: datetime,
    new_session_id: SessionId,
) -> Decision:
    """Decide what an event means; see the module for the theory.

    ``now`` is when the agent received it. ``new_session_id`` is used only if the event
    opens a session. Never raises for anything that a station may send.
    """
    if type(event) is events.MeterSampled:
        return meter_sampled(state, event, now)
    if type(event) is events.TransactionReported:
        quiet = reported_quietly(state, event)
        if quiet is not None:
            return quiet
    work = Work(state, now, new_session_id)
    transaction_id = STEPS[type(event)](work, event)
    if work.touched:
        correct_bills(work, state)
    return work.done(state, transaction_id)


# --- link and identity of the station -------------------------------------------


def _link_opened(work: Work, event: events.LinkOpened) -> None:
    work.state = replace(
        work.state,
        is_connected=True,
        connected_at=work.now,
        ocpp_version=event.ocpp_version,
    )
    work.power()


def _link_closed(work: Work, _: events.LinkClosed) -> None:
    work.state = replace(work.state, is_connected=False)
    work.power()


def _booted(work: Work, event: events.StationBooted) -> None:
    work.state = replace(
        work.state,
        vendor=event.vendor,
        model=event.model,
        serial=event.serial,
        firmware=event.firmware,
        booted_at=work.now,
    )
    work.power()


def _anomaly(work: Work, event: events.AnomalyNoted) -> None:
    session = work.state.session_at(event.evse_id) if event.evse_id is not None else None
    if session is not None:
        work.save(session.with_anomaly(event.text))


def _limit_doubted(work: Work, _: events.LimitDoubted) -> None:
    work.power()


def _ticked(work: Work, event: events.Ticked) -> None:
    ticked_holds(work)
    ticked(work, event)


Step = Callable[[Work, Any], TransactionId | None]  # type: ignore[explicit-any]

STEPS: dict[type, Step] = cast(
    "dict[type, Step]",
    {
        events.LinkOpened: _link_opened,
        events.LinkClosed: _link_closed,
        events.StationBooted: _booted,
        events.ConnectorChanged: connector_changed,
        events.IdTokenPresented: token_presented,
        events.EvidenceReported: evidence_reported,
        events.TransactionStarted: started,
        events.TransactionEnded: ended,
        events.TransactionReported: reported,
        events.TransactionChecked: checked,
        events.ChargingNeedsReported: needs_reported,
        events.ExternalLimitChanged: external_limit_changed,
        events.LimitDoubted: _limit_doubted,
        events.VehicleMatched: vehicle_matched,
        events.ScheduleBound: schedule_bound,
        events.AccountChecked: account_checked,
        events.SocReported: soc_reported,
        events.BatteryKnown: battery_known,
        events.CarLimitSeen: car_limit_seen,
        events.GoalSet: goal_set,
        events.GoalReached: goal_reached,
        events.Ticked: _ticked,
        events.AnomalyNoted: _anomaly,
    },
)
