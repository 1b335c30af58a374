"""One station driven by events, with everything that was decided kept for asserts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from agent.domain import events
from agent.domain.effects import (
    BillingReport,
    DecisionRecord,
    Effect,
    MatchWanted,
    OrphanKept,
    OutboxAdded,
    SessionReport,
    StartSocReport,
    Told,
)
from agent.domain.events import ConnectorStatus, Event
from agent.domain.identity import Evidence, Match, MatchOutcome
from agent.domain.ids import (
    ConnectorId,
    EvseId,
    MacAddress,
    ScheduleId,
    SessionId,
    StationId,
    TransactionId,
    VehicleId,
)
from agent.domain.meter import MeterReading
from agent.domain.rules import advance
from agent.domain.rules.owed import bill_of
from agent.domain.session import Session, SessionPhase
from agent.domain.station import StationState
from tests.unit.domain.build import NOW, evidence_of

RATED_W = 150_000
AVAILABLE = ConnectorStatus.AVAILABLE
PREPARING = ConnectorStatus.PREPARING
CHARGING = ConnectorStatus.CHARGING
FINISHING = ConnectorStatus.FINISHING


class Drive:
    """See the module. Every call is one event; ``wait`` moves the clock."""

    def __init__(self, station_id: str = "CP-01") -> None:
        self.state = StationState(station_id=StationId(station_id), rated_w=RATED_W)
        self.now = NOW
        self.records: list[DecisionRecord] = []
        self.effects: list[Effect] = []
        self.events = 0
        self.changes = 0
        self.start_times: dict[str, datetime] = {}
        self.send(events.LinkOpened(ocpp_version="1.6"))

    def send(self, event: Event) -> str | None:
        """Let the station say something; the transaction id that it is answered."""
        self.events += 1
        new = SessionId(f"S{self.events}")
        decision = advance(self.state, event, now=self.now, new_session_id=new)
        self.changes += decision.is_new
        self.state = decision.state
        self.records += decision.records
        self.effects += decision.effects
        return decision.transaction_id

    def wait(self, seconds: float) -> Drive:
        """Let time pass, and nothing else."""
        self.now += timedelta(seconds=seconds)
        return self

    def tick(self, after_s: float = 0) -> Drive:
        """Let time pass, and say so."""
        self.wait(after_s).send(events.Ticked())
        return self

    def status(self, status: ConnectorStatus, evse: int = 1) -> Drive:
        """StatusNotification."""
        self.send(
            events.ConnectorChanged(
                evse_id=EvseId(evse), connector_id=ConnectorId(evse), status=status
            )
        )
        return self

    def start(
        self,
        new_id: str,
        wh: float | None = 100_000.0,
        *,
        evse: int = 1,
        key: str = "",
        ago_s: float = 0,
        mac: MacAddress | None = None,
    ) -> str:
        """StartTransaction; the id that the station is told. A repeat has its old time."""
        key = key or f"key-{new_id}"
        at = self.start_times.setdefault(key, self.now - timedelta(seconds=ago_s))
        answer = self.send(
            events.TransactionStarted(
                evse_id=EvseId(evse),
                connector_id=ConnectorId(evse),
                new_transaction_id=TransactionId(new_id),
                key=key,
                at=at,
                meter_start_wh=wh,
                evidence=(evidence_of(mac),) if mac else (),
            )
        )
        assert answer is not None
        return answer

    def stop(
        self, tx: str, wh: float | None = None, reason: str = "Local", *, ago_s: float = 0
    ) -> Drive:
        """StopTransaction."""
        at = self.now - timedelta(seconds=ago_s)
        self.send(
            events.TransactionEnded(
                transaction_id=TransactionId(tx), at=at, meter_stop_wh=wh, reason=reason
            )
        )
        return self

    def meter(
        self,
        wh: float | None = None,
        *,
        tx: str | None = None,
        evse: int | None = 1,
        soc: float | None = None,
        power_w: float | None = None,
        ago_s: float = 0,
    ) -> Drive:
        """MeterValues of one moment."""
        at = self.now - timedelta(seconds=ago_s)
        reading = MeterReading(at, register_wh=wh, soc_percent=soc, power_w=power_w)
        self.send(
            events.MeterSampled(
                readings=(reading,),
                evse_id=EvseId(evse) if evse is not None else None,
                transaction_id=TransactionId(tx) if tx else None,
            )
        )
        return self

    def hint(self, mac: str, *, evse: int | None = None, soc: float | None = None) -> Drive:
        """DataTransfer with an address."""
        self.send(
            events.EvidenceReported(
                evidence=(evidence_of(mac),),
                evse_id=EvseId(evse) if evse is not None else None,
                soc_percent=soc,
            )
        )
        return self

    def token(self, id_token: str, *evidence: Evidence, evse: int | None = None) -> Drive:
        """Authorize."""
        self.send(
            events.IdTokenPresented(
                id_token=id_token,
                evse_id=EvseId(evse) if evse is not None else None,
                evidence=evidence,
            )
        )
        return self

    def match(self, vehicle: str | None, session: Session | None = None) -> Drive:
        """Tell the finding about a session's vehicle."""
        session = session or self.at(1)
        unique = MatchOutcome.UNIQUE if vehicle else MatchOutcome.AMBIGUOUS
        match = Match(
            outcome=unique,
            vehicle_id=VehicleId(vehicle) if vehicle else None,
            reason=f"test says {vehicle}",
        )
        self.send(events.VehicleMatched(session_id=session.session_id, match=match))
        return self

    def bind(
        self, schedule: str | None, session: Session | None = None, *, soc=None
    ) -> Drive:
        """Tell the slot of a session."""
        session = session or self.at(1)
        self.send(
            events.ScheduleBound(
                session_id=session.session_id,
                schedule_id=ScheduleId(schedule) if schedule else None,
                start_soc_percent=soc,
            )
        )
        return self

    # --- what came of it ------------------------------------------------------------

    def at(self, evse: int = 1) -> Session:
        """Find the session that is open at an outlet; there must be one."""
        session = self.state.session_at(EvseId(evse))
        assert session is not None, f"no session is open at outlet {evse}"
        return session

    def is_free(self, evse: int = 1) -> bool:
        """Whether no session is open at an outlet."""
        return self.state.session_at(EvseId(evse)) is None

    @property
    def sessions(self) -> list[Session]:
        """All sessions, oldest first."""
        return list(self.state.sessions.values())

    @property
    def only(self) -> Session:
        """The only session there ever was."""
        (session,) = self.sessions
        return session

    def of(self, tx: str) -> Session:
        """Find the session of a transaction."""
        (session,) = [s for s in self.sessions if s.find(TransactionId(tx)) is not None]
        return session

    @property
    def owed(self) -> list[OutboxAdded]:
        """What is owed to clouds; the outbox takes each key once."""
        rows = [item for item in self.records if isinstance(item, OutboxAdded)]
        return list({row.key: row for row in rows}.values())

    @property
    def start_socs(self) -> list[StartSocReport]:
        """Arrival reports, in order."""
        return [r.report for r in self.owed if isinstance(r.report, StartSocReport)]

    @property
    def ends(self) -> list[SessionReport]:
        """Reports of what was charged, in order."""
        return [r.report for r in self.owed if isinstance(r.report, SessionReport)]

    @property
    def orphans(self) -> list[OrphanKept]:
        """Messages about transactions that nobody knows."""
        return [item for item in self.records if isinstance(item, OrphanKept)]

    @property
    def told(self) -> list[str]:
        """Names of log lines, in order."""
        return [item.event for item in self.effects if isinstance(item, Told)]

    @property
    def match_wanted(self) -> list[SessionId]:
        """Sessions whose evidence changed, in order."""
        return [i.session_id for i in self.effects if isinstance(i, MatchWanted)]

    def step(
        self,
        kind: events.TransactionStep,
        tx: str,
        seq_no: int | None = None,
        *,
        evse: int | None = None,
        wh: float | None = None,
        state: str | None = None,
        trigger: str = "",
        offline: bool = False,
        mac: MacAddress | None = None,
        ago_s: float = 0,
    ) -> Drive:
        """Let the station report a step of a 2.x transaction."""
        at = self.now - timedelta(seconds=ago_s)
        self.send(
            events.TransactionReported(
                transaction_id=TransactionId(tx),
                step=kind,
                at=at,
                seq_no=seq_no,
                trigger=trigger,
                offline=offline,
                evse_id=EvseId(evse) if evse else None,
                charging_state=events.ChargingState(state) if state else None,
                evidence=(evidence_of(mac),) if mac else (),
                readings=(MeterReading(at, register_wh=wh),) if wh is not None else (),
            )
        )
        return self

    def check(self) -> None:
        """Assert that the state is one that may be."""
        seen: set[TransactionId] = set()
        keys: set[str] = set()
        for session in self.sessions:
            assert session.meter.energy_wh >= 0
            assert all(slot[1] >= -1e-6 for slot in session.meter.history)
            history_wh = sum(slot[1] for slot in session.meter.history)
            assert abs(history_wh - session.meter.energy_wh) < 0.01
            is_over = session.phase is SessionPhase.ENDED
            assert (session.ended_at is not None) is is_over
            if session.ended_at is not None:
                assert session.ended_at >= session.plugged_at
                assert session.open_transaction is None
                assert session.meter.power_w in (0.0, None)
            assert all(not item.is_open for item in session.transactions[:-1])
            is_running = session.open_transaction is not None
            assert is_running is (session.phase is SessionPhase.CHARGING)
            for item in session.transactions:
                assert item.transaction_id not in seen
                assert item.key not in keys
                assert item.ended_at is None or item.ended_at >= item.started_at
                seen.add(item.transaction_id)
                keys.add(item.key)
        for evse_id, evse in self.state.evses.items():
            if evse.session_id is not None:
                session = self.state.sessions[evse.session_id]
                assert session.phase is not SessionPhase.ENDED
                assert session.evse_id == evse_id
        held = [e.session_id for e in self.state.evses.values() if e.session_id]
        assert len(held) == len(set(held))
        for session in self.sessions:
            if session.phase is not SessionPhase.ENDED:
                is_filed_late = any("later transaction" in t for t in session.anomalies)
                assert session.session_id in held or is_filed_late
        assert len(self.owed) == len({row.key for row in self.owed})
        self._check_bills()

    def _check_bills(self) -> None:
        """The newest bill of every session that ended is true."""
        newest = {
            row.report.session_id: row.report
            for row in self.records
            if isinstance(row, OutboxAdded) and isinstance(row.report, BillingReport)
        }
        for session in self.sessions:
            is_over = session.phase is SessionPhase.ENDED
            assert (session.session_id in newest) is is_over
            if is_over:
                told = replace(newest[session.session_id], corrects=None)
                assert told == bill_of(session, corrects=None)
