"""Orders to 2.0.1 and 2.1 stations: what is written, what is read, what is repeated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.capability import Capabilities, ProfileForm, RateUnit
from agent.domain.curve import curve
from agent.domain.errors import StationFault
from agent.domain.ids import EvseId, TransactionId
from agent.domain.profile import ChargingProfile, Purpose, compile_default, compile_tx
from agent.ports import Answer, OrderAnswer, Priority
from agent.stations import schemas, v2_orders
from agent.stations.adapter import AdapterOptions
from agent.stations.dialects import Dialect2, StationOptions, StationView, Surroundings
from agent.stations.framing import Call, Payload
from agent.stations.link import CallOutcome
from agent.stations.schemas import V21, V201
from agent.stations.v2_orders import (
    CLEAR_CHARGING_PROFILE,
    SET_CHARGING_PROFILE,
    WAIT_DEFAULT_S,
    WAIT_MAX_S,
    read_answer,
    set_charging_profile,
)
from agent.stations.v2_setup import Wishes2
from agent.stations.v16_setup import Wishes

from .bench2 import BOTH, ScriptedLink, said
from .conftest import HOSTILE, NOW, STATION, RecordingSink, StillClock

EVSE = EvseId(2)
both = pytest.mark.parametrize("version", BOTH)


def a_profile(**changes: Any) -> ChargingProfile:
    fields: dict[str, Any] = {
        "profile_id": 102,
        "purpose": Purpose.TX,
        "stack_level": 3,
        "unit": RateUnit.WATT,
        "phases": None,
        "periods": ((0, 50_000.0), (900, 0.0)),
        "starts_at": datetime(2026, 1, 15, 17, 59, tzinfo=UTC),
        "transaction_id": TransactionId("T-1"),
    }
    return ChargingProfile(**(fields | changes))


def body_of(version: str, **changes: Any) -> dict[str, Any]:
    payload = set_charging_profile(version, EVSE, a_profile(**changes))
    body: dict[str, Any] = payload["chargingProfile"]
    return body


def refusal(code: str = "", words: str = "", status: str = "Rejected") -> Payload:
    return {
        "status": status,
        "statusInfo": {"reasonCode": code, "additionalInfo": words},
    }


# --- writing ------------------------------------------------------------------------


@both
def test_a_limit_of_a_running_transaction_is_written_out_in_full(version: str) -> None:
    """Exactly one schedule, with an id; DC has no phases (K01.FR.34, NoPhaseForDC)."""
    assert set_charging_profile(version, EVSE, a_profile()) == {
        "evseId": 2,
        "chargingProfile": {
            "id": 102,
            "stackLevel": 3,
            "chargingProfilePurpose": "TxProfile",
            "chargingProfileKind": "Absolute",
            "transactionId": "T-1",
            "chargingSchedule": [
                {
                    "id": 102,
                    "startSchedule": "2026-01-15T17:59:00Z",
                    "chargingRateUnit": "W",
                    "chargingSchedulePeriod": [
                        {"startPeriod": 0, "limit": 50_000.0},
                        {"startPeriod": 900, "limit": 0.0},
                    ],
                }
            ],
        },
    }


@both
def test_ac_writes_its_phases_and_relative_no_start(version: str) -> None:
    """PRF-08; and no duration, which would let a lower profile in (rule 3)."""
    body = body_of(version, phases=3, unit=RateUnit.AMPERE, starts_at=None)
    (schedule,) = body["chargingSchedule"]

    assert body["chargingProfileKind"] == "Relative"
    assert not {"startSchedule", "duration"} & set(schedule)
    assert schedule["chargingRateUnit"] == "A"
    assert all(item["numberPhases"] == 3 for item in schedule["chargingSchedulePeriod"])


@both
def test_a_default_belongs_to_no_transaction(version: str) -> None:
    """And may be for the whole station."""
    profile = a_profile(purpose=Purpose.TX_DEFAULT, transaction_id=None)
    payload = set_charging_profile(version, EvseId(0), profile)

    assert payload["evseId"] == 0
    assert payload["chargingProfile"]["chargingProfilePurpose"] == "TxDefaultProfile"
    assert "transactionId" not in payload["chargingProfile"]


def test_fields_of_2_1_are_not_sent_to_2_0_1() -> None:
    """Its schema forbids what it does not know."""
    more: dict[str, Any] = {"offline_max_s": 3600, "update_every_s": 10}
    new = {"maxOfflineDuration": 3600, "dynUpdateInterval": 10}

    assert body_of(V21, **more) == body_of(V21) | new
    assert body_of(V201, **more) == body_of(V201)


def test_a_dynamic_profile_has_a_watchdog_and_no_start() -> None:
    """2.1 K28; 2.0.1 knows no such kind, so it is never sent there."""
    more: dict[str, Any] = {
        "is_dynamic": True,
        "duration_s": 30,
        "starts_at": None,
        "periods": ((0, 7000.0),),
    }
    body = body_of(V21, **more)
    (schedule,) = body["chargingSchedule"]

    assert (body["chargingProfileKind"], schedule["duration"]) == ("Dynamic", 30)
    assert "startSchedule" not in schedule
    with pytest.raises(StationFault):
        body_of(V201, **more)


@both
@pytest.mark.parametrize(
    "changes",
    [{"periods": ((0, float("nan")),)}, {"periods": ()}, {"transaction_id": "T" * 37}],
)  # fmt: skip
def test_w4_what_would_break_the_schema_is_never_sent(
    version: str, changes: dict[str, Any]
) -> None:
    """Strict on sending (W4)."""
    with pytest.raises(StationFault, match="SetChargingProfile"):
        body_of(version, **changes)


@both
@given(
    steps=st.dictionaries(
        st.integers(0, 200), st.floats(0, 400_000, allow_nan=False), min_size=1, max_size=40
    ),
    unit=st.sampled_from(list(RateUnit)),
    phases=st.sampled_from([None, 1, 3]),
    periods_max=st.integers(1, 24),
    is_relative=st.booleans(),
)
def test_every_profile_that_the_domain_compiles_may_be_sent(
    version: str,
    steps: dict[int, float],
    unit: RateUnit,
    phases: int | None,
    periods_max: int,
    is_relative: bool,  # noqa: FBT001 - drawn
) -> None:
    """Domain and schema agree for all curves, units, and forms."""
    now_s = int(NOW.timestamp())
    form = ProfileForm(
        unit=unit,
        phases=phases,
        periods_max=periods_max,
        stack_level=1,
        is_relative=is_relative,
        offline_max_s=3600,
    )
    compiled = compile_tx(
        curve((now_s + 60 * at, round(watts, 1)) for at, watts in steps.items()),
        evse_id=EVSE,
        transaction_id=TransactionId("T-1"),
        form=form,
        now=NOW,
        transaction_started_at=NOW - timedelta(minutes=5),
    )
    default = compile_default(steps[min(steps)], evse_id=EVSE, form=form, now=NOW)

    for profile in (compiled.profile, default.profile):
        payload = set_charging_profile(version, EVSE, profile)
        assert schemas.breach(version, SET_CHARGING_PROFILE, payload) is None
        assert len(payload["chargingProfile"]["chargingSchedule"]) == 1


@both
def test_a_profile_is_cleared_by_its_place_or_by_its_id(version: str) -> None:
    """K10: what holds the place has another id, which is not known."""
    assert v2_orders.clear_rival(version, EVSE, a_profile()) == {
        "chargingProfileCriteria": {
            "evseId": 2,
            "chargingProfilePurpose": "TxProfile",
            "stackLevel": 3,
        }
    }
    assert v2_orders.clear_by_id(version, 4711) == {"chargingProfileId": 4711}


# --- reading ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (CallOutcome({"status": "Accepted"}), Answer.ACCEPTED),
        (CallOutcome({"status": "accepted"} | refusal(status="ACCEPTED")), Answer.ACCEPTED),
        (CallOutcome({"status": "Rejected"}), Answer.REFUSED),
        (CallOutcome(refusal("TxNotFound")), Answer.REFUSED),
        (CallOutcome({"status": "Maybe"}), Answer.REFUSED),
        (CallOutcome({}), Answer.SILENT),
        (CallOutcome({"status": None}), Answer.SILENT),
        (CallOutcome({"status": {}}), Answer.SILENT),
        (CallOutcome(None, "Timeout", "no answer in time"), Answer.SILENT),
        (CallOutcome(None, "Offline"), Answer.OFFLINE),
        (CallOutcome(None, "NotSupported", "no smart charging"), Answer.ERROR),
        (CallOutcome(None, "NotImplemented", "x" * 500), Answer.ERROR),
        (CallOutcome(None, "", ""), Answer.ERROR),
    ],
)
def test_every_outcome_has_a_meaning(outcome: CallOutcome, answer: Answer) -> None:
    """RPC-05: an empty answer is silence; only Accepted is acceptance."""
    found = read_answer(outcome)

    assert found.answer is answer
    assert len(found.detail) <= 120
    assert found.wait_s is None


def test_a_refusal_is_told_in_the_stations_words() -> None:
    """B8: for people."""
    found = read_answer(CallOutcome(refusal("TxNotFound", "no  such\ntransaction")))

    assert found.detail == "Rejected TxNotFound no such transaction"
    assert found.reason == "TxNotFound"
    error = read_answer(CallOutcome(None, "NotSupported", "no\nsmart charging"))
    assert error.detail == "NotSupported no smart charging"


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ("45 seconds before retry", 45.0),
        ("retry in 7s", 7.0),
        ("", WAIT_DEFAULT_S),
        ("soon", WAIT_DEFAULT_S),
        ("86400 seconds before retry", WAIT_MAX_S),
        ("9" * 60, WAIT_MAX_S),
        ("0", 0.0),
        (None, WAIT_DEFAULT_S),
        (17, WAIT_DEFAULT_S),
    ],
)
@pytest.mark.parametrize("code", ["RateLimitExceeded", "rateLimitExceeded"])
def test_a_station_may_ask_to_wait_but_not_for_ever(
    code: str, words: Any, wait_s: float
) -> None:
    """2.1 K01.FR.56 to 59."""
    found = read_answer(CallOutcome(refusal(code, words)))

    assert (found.answer, found.wait_s) == (Answer.REFUSED, wait_s)


def test_only_a_rate_limit_asks_to_wait() -> None:
    """Numbers stand in other refusals too."""
    found = read_answer(CallOutcome(refusal("InvalidSchedule", "45 seconds before retry")))

    assert found.wait_s is None


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_a_hostile_answer_is_never_taken_for_acceptance(value: Any) -> None:
    """Any JSON may stand there."""
    for payload in (
        {"status": value},
        {"status": "Rejected", "statusInfo": value},
        refusal(value, value),
    ):
        found = read_answer(CallOutcome(payload))
        assert found.answer is not Answer.ACCEPTED
        assert len(found.detail) <= 120
        assert len(found.reason) <= 40


# --- the whole way: Dialect2.set_limit ----------------------------------------------


class Station:
    """A dialect bound to a scripted link."""

    def __init__(
        self,
        version: str = V21,
        *,
        capabilities: Capabilities | None = None,
        boot: str = "accept",
        foreign: list[int] | None = None,
        **answers: list[Payload | CallOutcome],
    ) -> None:
        self.link = ScriptedLink(version, **answers)
        self.clock = StillClock()
        self.read: list[Any] = []

        async def profiles_read(_: Any, installed: Any) -> list[int]:
            self.read.append(installed)
            return foreign or []

        view = StationView(
            outlets=lambda _: [(2, 1)],
            running=lambda _: [("T-1", 2)],
            allowed=lambda *_: None,
            capabilities=lambda _: capabilities or Capabilities(),
            profiles_read=profiles_read,
        )
        self.dialect = Dialect2(
            version,
            STATION,
            StationOptions(
                adapter=AdapterOptions(boot=boot),
                wishes=Wishes(settings={}),
                wishes_2x=Wishes2(settings={}),
            ),
            Surroundings(
                sink=RecordingSink(),
                clock=self.clock,
                view=view,
                slots=asyncio.Semaphore(1),
                pace=0.001,
            ),
        )

    def attached(self) -> Station:
        self.dialect.attach(self.link.as_link)
        return self

    async def order(
        self,
        profile: ChargingProfile | None = None,
        priority: Priority = Priority.LIMIT,
    ) -> OrderAnswer:
        return await self.dialect.set_limit(EVSE, profile or a_profile(), priority, None)

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.link.calls]


@both
async def test_a_limit_is_sent_once_with_its_priority(version: str) -> None:
    """And the answer is read."""
    station = Station(version).attached()
    answer = await station.order(priority=Priority.REDUCTION)

    assert answer.answer is Answer.ACCEPTED
    assert station.link.calls == [
        (SET_CHARGING_PROFILE, set_charging_profile(version, EVSE, a_profile()))
    ]
    assert station.link.priorities == [Priority.REDUCTION]


@both
async def test_a_rival_profile_is_cleared_and_the_order_repeated(version: str) -> None:
    """K01.FR.06: another id holds the place; its purpose, level and EVSE are known."""
    station = Station(
        version, SetChargingProfile=[refusal("duplicateProfile"), {"status": "Accepted"}]
    ).attached()
    answer = await station.order()

    assert answer.answer is Answer.ACCEPTED
    assert station.actions == [
        SET_CHARGING_PROFILE,
        CLEAR_CHARGING_PROFILE,
        SET_CHARGING_PROFILE,
    ]
    rival = v2_orders.clear_rival(version, EVSE, a_profile())
    assert station.link.of(CLEAR_CHARGING_PROFILE) == [rival]
    first, second = station.link.of(SET_CHARGING_PROFILE)
    assert first == second


@both
async def test_a_rival_that_stays_is_a_refusal_and_no_loop(version: str) -> None:
    """Whatever the clearing was answered."""
    station = Station(
        version,
        SetChargingProfile=[refusal("DuplicateProfile")] * 9,
        ClearChargingProfile=[{"status": "Unknown"}, CallOutcome(None, "Timeout")],
    ).attached()

    for _ in range(2):
        station.link.calls.clear()
        answer = await station.order()
        assert (answer.answer, answer.reason) == (Answer.REFUSED, "DuplicateProfile")
        assert len(station.link.calls) == 3


@both
@pytest.mark.parametrize(
    "said_no",
    [refusal("TxNotFound"), refusal("RateLimitExceeded", "45"), {"status": "Rejected"},
     CallOutcome(None, "NotSupported"), CallOutcome(None, "Timeout")],
)  # fmt: skip
async def test_another_no_is_not_repeated_here(version: str, said_no: Any) -> None:
    """When to try again is the power loop's business."""
    station = Station(version, SetChargingProfile=[said_no]).attached()
    answer = await station.order()

    assert answer.answer is not Answer.ACCEPTED
    assert station.actions == [SET_CHARGING_PROFILE]


async def test_what_cannot_be_written_is_an_error_and_not_sent() -> None:
    """The power loop counts it as a failure and goes on."""
    station = Station().attached()
    answer = await station.order(a_profile(periods=()))

    assert answer.answer is Answer.ERROR
    assert "SetChargingProfile" in answer.detail
    assert station.link.calls == []


async def test_without_a_link_or_before_it_is_accepted_a_station_gets_no_order() -> None:
    """B02: SetChargingProfile would be refused or forgotten."""
    assert (await Station().order()).answer is Answer.OFFLINE
    rejected = Station(boot="reject").attached()
    assert (await rejected.order()).answer is Answer.OFFLINE

    pending = Station(boot="pending").attached()
    await pending.dialect.handle(Call("1", "BootNotification", {}, 2), "")
    assert (await pending.order()).answer is Answer.OFFLINE
    assert pending.link.calls == rejected.link.calls == []


async def test_a_late_answer_is_read_like_one_in_time() -> None:
    """RPC-03."""
    heard: list[OrderAnswer] = []

    class Slow(ScriptedLink):
        async def call(self, *args: Any) -> CallOutcome:
            await super().call(*args[:3])
            args[3](CallOutcome(refusal("TxNotFound")))
            return CallOutcome(None, "Timeout")

    station = Station()
    station.dialect.attach(Slow().as_link)
    answer = await station.dialect.set_limit(
        EVSE, a_profile(), Priority.LIMIT, heard.append
    )

    assert answer.answer is Answer.SILENT
    assert [(item.answer, item.reason) for item in heard] == [
        (Answer.REFUSED, "TxNotFound")
    ]


# --- the fast limit on the way --------------------------------------------------------


async def test_a_reduction_goes_out_fast_before_the_plan() -> None:
    """2.1 K28: the Dynamic profile first, then the plan that says the same for long."""
    station = Station(capabilities=said()).attached()
    await station.order(a_profile(periods=((0, 50_000.0),)))
    station.link.calls.clear()
    answer = await station.order(a_profile(periods=((0, 9000.0),)), Priority.REDUCTION)

    assert answer.answer is Answer.ACCEPTED
    fast, plan = (item["chargingProfile"] for item in station.link.of(SET_CHARGING_PROFILE))
    assert (fast["chargingProfileKind"], fast["id"], fast["stackLevel"]) == (
        "Dynamic",
        302,
        4,
    )
    assert (plan["chargingProfileKind"], plan["id"], plan["stackLevel"]) == (
        "Absolute",
        102,
        3,
    )


@pytest.mark.parametrize(
    ("version", "capabilities", "priority"),
    [
        (V201, said(), Priority.REDUCTION),
        (V21, said(), Priority.LIMIT),
        (V21, said(features=frozenset()), Priority.REDUCTION),
        (V21, said(stack_level_max=3), Priority.REDUCTION),
        (V21, said(stack_level_max=None), Priority.REDUCTION),
    ],
)
async def test_only_a_reduction_at_a_station_that_can_goes_out_fast(
    version: str, capabilities: Capabilities, priority: Priority
) -> None:
    """2.1, the feature, and a level free above the plan."""
    station = Station(version, capabilities=capabilities).attached()
    await station.order()
    await station.order(a_profile(periods=((0, 9000.0),)), priority)

    kinds = [
        item["chargingProfile"]["chargingProfileKind"]
        for item in station.link.of(SET_CHARGING_PROFILE)
    ]
    assert kinds == ["Absolute", "Absolute"]


async def test_a_pull_is_answered_from_the_newest_plan() -> None:
    """PullDynamicScheduleUpdate of our own profile, and of no other."""
    station = Station(capabilities=said()).attached()
    await station.order(a_profile(periods=((0, 50_000.0),)))
    await station.order(a_profile(periods=((0, 9000.0),)), Priority.REDUCTION)

    async def pull(profile_id: int) -> Payload | None:
        payload = {"chargingProfileId": profile_id}
        call = Call("1", "PullDynamicScheduleUpdate", payload, 2)
        return (await station.dialect.handle(call, "")).payload

    assert await pull(302) == {"status": "Accepted", "scheduleUpdate": {"limit": 9000.0}}
    assert await pull(102) == await pull(301) == {"status": "Rejected"}


# --- the set-up's news ------------------------------------------------------------------


class Wired:
    """Stands for the set-up and keeps what the dialect gave it."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.boots = 0
        given["link"].setup = self

    def booted(self) -> None:
        self.boots += 1


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.stations.dialects.Setup2", Wired)


def setup_of(station: Station) -> Wired:
    setup: Wired = station.link.setup  # type: ignore[attr-defined]
    return setup


@both
@pytest.mark.usefixtures("wired")
async def test_what_others_left_behind_is_cleared(version: str) -> None:
    """VER-02: the books say which; what is ours or another master's stays."""
    station = Station(version, foreign=[4711, 12]).attached()
    reported = {
        "evseId": 2,
        "chargingLimitSource": "CSO",
        "chargingProfile": {
            "id": 4711,
            "chargingSchedule": [
                {"chargingSchedulePeriod": [{"startPeriod": 0, "limit": 1}]}
            ],
        },
    }
    await setup_of(station).given["on_profiles"]((reported,))

    assert [item.profile_id for item in station.read[0]] == [4711]
    assert station.link.calls == [
        (CLEAR_CHARGING_PROFILE, {"chargingProfileId": 4711}),
        (CLEAR_CHARGING_PROFILE, {"chargingProfileId": 12}),
    ]
    assert set(station.link.priorities) == {Priority.SETUP}


@pytest.mark.usefixtures("wired")
async def test_a_pending_station_boots_again_when_it_is_configured() -> None:
    """B02: then it is accepted, and gets its orders."""
    station = Station(boot="pending").attached()
    setup = setup_of(station)

    async def boot() -> Any:
        reply = await station.dialect.handle(Call("1", "BootNotification", {}, 2), "")
        return (reply.payload or {})["status"]

    assert await boot() == "Pending"
    assert (setup.boots, setup.given["is_accepted"]()) == (1, False)
    await setup.given["on_configured"]()
    assert station.link.calls == [
        ("TriggerMessage", {"requestedMessage": "BootNotification"})
    ]
    assert await boot() == "Accepted"
    assert setup.given["is_accepted"]()
    assert (await station.order()).answer is Answer.ACCEPTED


@pytest.mark.usefixtures("wired")
async def test_an_accepted_station_is_not_made_to_boot_again() -> None:
    """Its configuration is no news to it."""
    station = Station().attached()
    await setup_of(station).given["on_configured"]()

    assert station.link.calls == []


@pytest.mark.usefixtures("wired")
async def test_a_rejected_station_is_left_alone() -> None:
    """Nothing is read or asked for."""
    station = Station(boot="reject").attached()
    async with asyncio.timeout(1):
        await station.dialect.run()

    assert station.link.calls == []
