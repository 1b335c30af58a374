"""Orders to a 1.6 station: every payload keeps to the schema, every answer is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import curve
from agent.domain.errors import StationFault
from agent.domain.ids import EvseId, TransactionId
from agent.domain.profile import ChargingProfile, Purpose, compile_default, compile_tx
from agent.ports import Answer
from agent.stations import schemas
from agent.stations.link import CallOutcome
from agent.stations.v16_orders import (
    SET_CHARGING_PROFILE,
    VERSION,
    read_answer,
    set_charging_profile,
)

from .conftest import HOSTILE, NOW


def a_profile(**changes: Any) -> ChargingProfile:
    fields: dict[str, Any] = {
        "profile_id": 101,
        "purpose": Purpose.TX,
        "stack_level": 8,
        "unit": RateUnit.WATT,
        "phases": None,
        "periods": ((0, 50_000.0), (900, 0.0)),
        "starts_at": datetime(2026, 1, 15, 17, 59, tzinfo=UTC),
        "transaction_id": TransactionId("1001"),
    }
    return ChargingProfile(**(fields | changes))


def test_a_limit_of_a_running_transaction_is_written_out_in_full() -> None:
    """Absolute, in UTC with Z, tied to the transaction."""
    assert set_charging_profile(EvseId(2), a_profile()) == {
        "connectorId": 2,
        "csChargingProfiles": {
            "chargingProfileId": 101,
            "transactionId": 1001,
            "stackLevel": 8,
            "chargingProfilePurpose": "TxProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": {
                "startSchedule": "2026-01-15T17:59:00Z",
                "chargingRateUnit": "W",
                "chargingSchedulePeriod": [
                    {"startPeriod": 0, "limit": 50_000.0},
                    {"startPeriod": 900, "limit": 0.0},
                ],
            },
        },
    }


@pytest.mark.parametrize(
    ("purpose", "word"),
    [
        (Purpose.STATION_MAX, "ChargePointMaxProfile"),
        (Purpose.TX_DEFAULT, "TxDefaultProfile"),
        (Purpose.TX, "TxProfile"),
    ],
)
def test_purposes_are_spelled_as_1_6_spells_them(purpose: Purpose, word: str) -> None:
    """The first one has another name in 2.x."""
    payload = set_charging_profile(EvseId(1), a_profile(purpose=purpose))

    assert payload["csChargingProfiles"]["chargingProfilePurpose"] == word


def test_a_relative_profile_has_no_start_and_phases_are_written_per_period() -> None:
    """PRF-08, and AC stations."""
    payload = set_charging_profile(
        EvseId(1),
        a_profile(starts_at=None, phases=3, unit=RateUnit.AMPERE, transaction_id=None),
    )
    profile = payload["csChargingProfiles"]

    assert profile["chargingProfileKind"] == "Relative"
    assert "startSchedule" not in profile["chargingSchedule"]
    assert "transactionId" not in profile
    assert all(
        p["numberPhases"] == 3
        for p in profile["chargingSchedule"]["chargingSchedulePeriod"]
    )


@pytest.mark.parametrize(
    "changes", [{"periods": ((0, 10.25),)}, {"periods": ((0, float("nan")),)}]
)
def test_w4_what_would_break_the_schema_is_never_sent(changes: dict[str, Any]) -> None:
    """Strict on sending: two decimals and NaN stay here (W4)."""
    with pytest.raises(StationFault, match="SetChargingProfile"):
        set_charging_profile(EvseId(1), a_profile(**changes))


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
    )
    compiled = compile_tx(
        curve((now_s + 60 * at, round(watts, 1)) for at, watts in steps.items()),
        evse_id=EvseId(1),
        transaction_id=TransactionId("7"),
        form=form,
        now=NOW,
        transaction_started_at=NOW - timedelta(minutes=5),
    )
    default = compile_default(steps[min(steps)], evse_id=EvseId(1), form=form, now=NOW)

    for profile in (compiled.profile, default.profile):
        payload = set_charging_profile(EvseId(1), profile)
        assert schemas.breach(VERSION, SET_CHARGING_PROFILE, payload) is None


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (CallOutcome({"status": "Accepted"}), Answer.ACCEPTED),
        (CallOutcome({"status": "accepted"}), Answer.ACCEPTED),
        (CallOutcome({"status": "Rejected"}), Answer.REFUSED),
        (CallOutcome({"status": "NotSupported"}), Answer.REFUSED),
        (CallOutcome({"status": "Maybe"}), Answer.REFUSED),
        (CallOutcome({}), Answer.SILENT),
        (CallOutcome({"status": ""}), Answer.SILENT),
        (CallOutcome({"status": None}), Answer.SILENT),
        (CallOutcome({"status": {}}), Answer.SILENT),
        (CallOutcome(None, "Timeout", "no answer in time"), Answer.SILENT),
        (CallOutcome(None, "Offline"), Answer.OFFLINE),
        (CallOutcome(None, "NotImplemented", "x" * 500), Answer.ERROR),
        (CallOutcome(None, "", ""), Answer.ERROR),
    ],
)
def test_every_outcome_has_a_meaning(outcome: CallOutcome, answer: Answer) -> None:
    """RPC-05: an empty answer is silence; only Accepted is acceptance."""
    found = read_answer(outcome)

    assert found.answer is answer
    assert len(found.detail) <= 120


@pytest.mark.parametrize("status", HOSTILE, ids=lambda value: repr(value)[:12])
def test_a_hostile_status_is_never_taken_for_acceptance(status: Any) -> None:
    """Any JSON may stand there."""
    assert read_answer(CallOutcome({"status": status})).answer is not Answer.ACCEPTED
