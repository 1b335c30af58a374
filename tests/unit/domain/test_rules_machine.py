"""The session machine under random stations: no event is illegal, no state either."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.domain import events
from agent.domain.events import ConnectorStatus, Event
from agent.domain.goal import ChargeGoal
from agent.domain.ids import AccountId, EvseId, SessionId, TransactionId
from agent.domain.meter import MeterReading
from agent.domain.rules import STEPS
from agent.domain.session import SessionPhase
from agent.domain.soc import BatteryOrigin, SocBattery, SocSource
from tests.support.properties import examples
from tests.unit.domain.build import MAC_A, MAC_B, NOW
from tests.unit.domain.drive import AVAILABLE, CHARGING, FINISHING, PREPARING, Drive

# --- the product of phases and events -----------------------------------------------------


def _empty() -> Drive:
    return Drive()


def _plugged() -> Drive:
    return Drive().status(PREPARING)


def _charging() -> Drive:
    drive = _plugged()
    drive.start("41", mac=MAC_A)
    return drive.status(CHARGING).match("bus-1").bind("slot-1", soc=50.0)


def _finished() -> Drive:
    return _charging().wait(60).stop("41", 101_000.0).wait(1).status(FINISHING)


def _ended() -> Drive:
    return _finished().status(AVAILABLE)


def _available_while_charging() -> Drive:
    return _charging().status(AVAILABLE)


PHASES = [_empty, _plugged, _charging, _finished, _ended, _available_while_charging]

BATTERY = SocBattery(points_per_wh=0.0003, spread=0.07, origin=BatteryOrigin.REGISTRY)
GOAL = ChargeGoal(set_at=NOW, source="test", energy_wh=1000.0)
SAID = {
    events.LinkOpened: lambda d: d.send(events.LinkOpened(ocpp_version="1.6")),
    events.LinkClosed: lambda d: d.send(events.LinkClosed()),
    events.StationBooted: lambda d: d.send(events.StationBooted(vendor="", model="")),
    events.ConnectorChanged: lambda d: [d.wait(1).status(s) for s in ConnectorStatus],
    events.IdTokenPresented: lambda d: (
        d.token("CARD").token("CARD", evse=1).token("", evse=9)
    ),
    events.EvidenceReported: lambda d: d.hint(MAC_B, soc=300.0).hint(MAC_A, evse=9),
    events.TransactionStarted: lambda d: [d.start("41", key="key-41"), d.start("42")],
    events.MeterSampled: lambda d: d.meter(1.0, tx="41").meter(-5.0, evse=None, soc=-1.0),
    events.TransactionEnded: lambda d: d.stop("41", -1.0).stop("0").stop("42", 1e12, ""),
    events.TransactionReported: lambda d: [
        d.step(kind, tx, n, evse=evse, state=state)
        for n, (kind, tx, evse, state) in enumerate(
            itertools.product(
                events.TransactionStep,
                ("two-1", "two-2"),
                (None, 1),
                (None, "Charging", "Idle"),
            )
        )
    ],
    events.TransactionChecked: lambda d: [
        d.send(events.TransactionChecked(transaction_id=TransactionId(tx), is_ongoing=x))
        for x in (None, True, False)
        for tx in ("41", "two-1")
    ],
    events.ChargingNeedsReported: lambda d: d.send(
        events.ChargingNeedsReported(
            evse_id=EvseId(1), needs=events.EvNeeds(at=d.now, soc_percent=400.0)
        )
    ),
    events.ExternalLimitChanged: lambda d: [
        d.send(events.ExternalLimitChanged(evse_id=EvseId(n), source="EMS", limit_w=limit))
        for n in (0, 1)
        for limit in (5000.0, None)
    ],
    events.LimitDoubted: lambda d: d.send(
        events.LimitDoubted(evse_id=EvseId(1), reason="test")
    ),
    events.VehicleMatched: lambda d: [
        d.match("bus-2", s).match(None, s) for s in d.sessions
    ],
    events.ScheduleBound: lambda d: [d.bind("slot-2", s).bind(None, s) for s in d.sessions],
    events.AccountChecked: lambda d: [
        d.send(
            events.AccountChecked(session_id=s, account_id=x, is_good=good, reason="test")
        )
        for s in (*d.state.sessions, SessionId("?"))
        for x in (AccountId("A"), None)
        for good in (True, False)
    ],
    events.SocReported: lambda d: [
        d.wait(60).send(
            events.SocReported(
                session_id=s, percent=x, source=SocSource.CLOUD, at=d.now, sigma=1.0
            )
        )
        for s in (*d.state.sessions, SessionId("?"))
        for x in (0.0, 55.0, 20.0, 21.0, 300.0)
    ],
    events.BatteryKnown: lambda d: [
        d.send(events.BatteryKnown(session_id=s, battery=BATTERY))
        for s in (*d.state.sessions, SessionId("?"))
    ],
    events.CarLimitSeen: lambda d: [
        d.send(events.CarLimitSeen(session_id=s, percent=80.0)) for s in d.state.sessions
    ],
    events.GoalSet: lambda d: [
        d.send(events.GoalSet(session_id=s, goal=goal))
        for s in (*d.state.sessions, SessionId("?"))
        for goal in (GOAL, None, GOAL)
    ],
    events.GoalReached: lambda d: [
        d.send(events.GoalReached(session_id=s, how="test"))
        for s in (*d.state.sessions, SessionId("?"))
    ],
    events.Ticked: lambda d: d.tick().tick(3600),
    events.AnomalyNoted: lambda d: d.send(events.AnomalyNoted(text="x", evse_id=EvseId(1))),
}


def test_every_event_type_has_a_step_and_a_test():
    """MeterSampled has a path of its own: it is the hot one."""
    assert set(STEPS) == set(get_args(Event)) - {events.MeterSampled}
    assert set(SAID) == set(get_args(Event))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
def test_every_event_is_legal_in_every_phase(phase, kind):
    """And nothing that follows it fails either."""
    for follow in SAID.values():
        drive = phase()
        drive.check()
        SAID[kind](drive)
        drive.check()
        follow(drive)
        drive.check()


@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
def test_nothing_opens_an_ended_session_again(kind):
    drive = _ended()
    before = drive.only
    SAID[kind](drive)

    after = drive.state.sessions.get(before.session_id, before)
    assert after.phase is SessionPhase.ENDED
    assert after.ended_at == before.ended_at
    assert after.meter.energy_wh == before.meter.energy_wh


# --- the stateful test ----------------------------------------------------------------------

evses = st.integers(1, 2)
ago = st.sampled_from([0, 0, 0, 5, 90, 4000])
registers = st.one_of(
    st.none(),
    st.just(0.0),
    st.floats(-10, 1e7),
    st.integers(0, 99).map(lambda n: 1e5 + n * 300),
)


class Station(RuleBasedStateMachine):
    """A station of two outlets that says anything, in any order, early, late or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Drive()
        self.ids = itertools.count(1)
        self.answered: dict[str, str] = {}
        self.over: dict[SessionId, object] = {}
        self.least_wh: dict[SessionId, float] = {}

    def _known(self, n: int) -> str:
        known = list(self.answered.values())
        return known[n % len(known)] if known else "999"

    @rule(seconds=st.sampled_from([0.5, 5, 16, 61, 125, 4000]))
    def wait(self, seconds):
        self.drive.wait(seconds)

    @rule(seconds=st.sampled_from([0, 16, 61]))
    def tick(self, seconds):
        self.drive.tick(seconds)

    @rule(status=st.sampled_from(ConnectorStatus), evse=st.integers(0, 2))
    def status(self, status, evse):
        self.drive.status(status, evse)

    @rule(evse=evses, charging=st.booleans())
    def plug(self, evse, charging):
        self.drive.status(CHARGING if charging else PREPARING, evse)

    @rule(evse=evses)
    def unplug(self, evse):
        self.drive.status(AVAILABLE, evse)

    @rule(
        evse=evses,
        wh=registers,
        ago_s=ago,
        mac=st.sampled_from([None, MAC_A, MAC_B]),
    )
    def start(self, evse, wh, ago_s, mac):
        name = str(next(self.ids))
        self.answered[f"key-{name}"] = self.drive.start(
            name, wh, evse=evse, ago_s=ago_s, mac=mac
        )
        assert self.answered[f"key-{name}"] == name

    @precondition(lambda self: self.answered)
    @rule(n=st.integers(0, 5), evse=evses)
    def start_again(self, n, evse):
        key = list(self.answered)[-1 - n % len(self.answered)]
        if self.drive.state.find_key(key) is None:
            return
        before = self.drive.state
        assert self.drive.start("new", evse=evse, key=key) == self.answered[key]
        assert self.drive.state is before

    @rule(
        n=st.integers(0, 3),
        wh=registers,
        ago_s=ago,
        reason=st.sampled_from(["Local", "EVDisconnected", "PowerLoss"]),
        nameless=st.booleans(),
    )
    def stop(self, n, wh, ago_s, reason, nameless):
        tx = "-1" if nameless and n == 0 else self._known(-1 - n)
        self.drive.stop(tx, wh, reason, ago_s=ago_s)

    @rule(
        n=st.integers(0, 3),
        evse=st.none() | st.integers(0, 3),
        wh=registers,
        soc=st.none() | st.floats(-5, 260),
        power_w=st.none() | st.floats(-100, 1e6),
        ago_s=ago,
    )
    def meter(self, n, evse, wh, soc, power_w, ago_s):
        tx = self._known(-1 - n) if n else None
        self.drive.meter(wh, tx=tx, evse=evse, soc=soc, power_w=power_w, ago_s=ago_s)

    @rule(
        kind=st.sampled_from(events.TransactionStep),
        n=st.integers(0, 3),
        seq_no=st.none() | st.integers(0, 6),
        evse=st.none() | st.integers(0, 2),
        wh=registers,
        state=st.sampled_from([None, *events.ChargingState]),
        flags=st.tuples(
            st.sampled_from(["", "TxResumed", "EVDeparted"]), st.booleans(), ago
        ),
        mac=st.sampled_from([None, MAC_A, MAC_B]),
    )
    def step(self, kind, n, seq_no, evse, wh, state, flags, mac):
        trigger, offline, ago_s = flags
        self.drive.step(
            kind,
            f"two-{n}",
            seq_no,
            evse=evse,
            wh=wh,
            state=state,
            trigger=trigger,
            offline=offline,
            mac=mac,
            ago_s=ago_s,
        )

    @rule(n=st.integers(0, 3), ongoing=st.sampled_from([None, True, False]))
    def checked(self, n, ongoing):
        self.drive.send(
            events.TransactionChecked(
                transaction_id=TransactionId(f"two-{n}"), is_ongoing=ongoing
            )
        )

    @rule(mac=st.sampled_from([MAC_A, MAC_B]), evse=st.none() | st.integers(0, 3))
    def hint(self, mac, evse):
        self.drive.hint(mac, evse=evse)

    @rule(evse=st.none() | st.integers(0, 3))
    def token(self, evse):
        self.drive.token("CARD", evse=evse)

    @precondition(lambda self: self.drive.sessions)
    @rule(n=st.integers(0, 3), vehicle=st.sampled_from([None, "bus-1", "bus-2"]))
    def match(self, n, vehicle):
        self.drive.match(vehicle, self.drive.sessions[-1 - n % len(self.drive.sessions)])

    @precondition(lambda self: self.drive.sessions)
    @rule(
        n=st.integers(0, 3),
        slot=st.sampled_from([None, "slot-1", "slot-2"]),
        soc=st.sampled_from([None, 50.0]),
    )
    def bind(self, n, slot, soc):
        session = self.drive.sessions[-1 - n % len(self.drive.sessions)]
        self.drive.bind(slot, session, soc=soc)

    @rule(reopened=st.booleans())
    def link(self, reopened):
        self.drive.send(events.LinkClosed(reason="test"))
        if reopened:
            self.drive.send(events.LinkOpened(ocpp_version="1.6"))

    @rule()
    def readings_in_a_stop(self):
        readings = tuple(
            MeterReading(self.drive.now, register_wh=1e5 + n) for n in range(3)
        )
        self.drive.send(
            events.TransactionEnded(
                transaction_id=TransactionId(self._known(-1)),
                at=self.drive.now,
                readings=readings,
            )
        )

    @invariant()
    def the_state_is_legal(self):
        self.drive.check()

    @invariant()
    def an_ended_session_stays_ended(self):
        for session in self.drive.sessions:
            if session.session_id in self.over:
                assert session.phase is SessionPhase.ENDED
                assert session.ended_at == self.over[session.session_id]
            if session.phase is SessionPhase.ENDED:
                self.over[session.session_id] = session.ended_at

    @invariant()
    def what_is_owed_is_owed_once_and_only_for_matched_sessions(self):
        ends = [row.session_id for row in self.drive.owed if row.key.endswith(":end")]
        assert len(ends) == len(set(ends))
        assert set(ends) <= set(self.over)
        for session in self.drive.sessions:
            is_due = (
                session.phase is SessionPhase.ENDED
                and session.vehicle_id is not None
                and session.schedule_id is not None
                and session.started_at is not None
            )
            assert (session.session_id in ends) is is_due

    @invariant()
    def memory_is_bounded(self):
        assert len(self.drive.state.pending) <= 8
        assert len(self.drive.state.held) <= 64
        assert set(self.drive.state.evses) <= {EvseId(1), EvseId(2), EvseId(3)}


@pytest.mark.hypothesis
def test_a_station_that_says_anything_in_any_order_keeps_a_legal_state():
    run_state_machine_as_test(Station, settings=examples(120, stateful_step_count=40))
