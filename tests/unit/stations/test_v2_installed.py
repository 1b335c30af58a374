"""ReportChargingProfiles: what a station says that it holds."""

from __future__ import annotations

from typing import Any

import pytest

from agent.domain.ids import EvseId, TransactionId
from agent.domain.profile import InstalledProfile
from agent.stations.v2_installed import PROFILES_MAX, read_installed

from .conftest import HOSTILE, NOW
from .test_v2_needs import schedule
from .test_v16 import check_bounded

NOW_S = int(NOW.timestamp())
TX = TransactionId("T-1")


def item(**changes: Any) -> dict[str, Any]:
    """One profile of a report."""
    body: dict[str, Any] = {
        "id": 102,
        "stackLevel": 3,
        "chargingProfilePurpose": "TxProfile",
        "chargingProfileKind": "Absolute",
        "transactionId": "T-1",
        "chargingSchedule": [schedule((0, 16), (900, 10), unit="A")],
    }
    outer = {"evseId": 2, "chargingLimitSource": "CSO"}
    for name in ("evseId", "chargingLimitSource"):
        if name in changes:
            outer[name] = changes.pop(name)
    return outer | {"chargingProfile": body | changes}


def only(**changes: Any) -> InstalledProfile:
    (found,) = read_installed((item(**changes),), NOW)
    return found


def test_a_profile_is_read_whole_and_in_watts() -> None:
    """Three phases where the station does not say."""
    assert only() == InstalledProfile(
        evse_id=EvseId(2),
        profile_id=102,
        purpose="TxProfile",
        source="CSO",
        allows=((NOW_S, 11_040.0), (NOW_S + 900, 6900.0)),  # type: ignore[arg-type]
        transaction_id=TX,
    )


def test_a_schedule_that_is_no_list_is_read_too() -> None:
    """As 1.6 writes it."""
    assert only(chargingSchedule=schedule((0, 5000))).allows == ((NOW_S, 5000.0),)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None}, {"id": "x"}, {"evseId": None}, {"evseId": []},
        {"chargingSchedule": []}, {"chargingSchedule": None},
        {"chargingSchedule": [schedule()]}, {"chargingSchedule": [schedule((0, -1))]},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(changes: dict[str, Any]) -> None:
    """And takes nothing else with it."""
    found = read_installed((item(**changes), item(id=7)), NOW)

    assert [one.profile_id for one in found] == [7]


@pytest.mark.parametrize(
    ("changes", "is_own"),
    [
        ({}, True),
        ({"transactionId": None}, True),
        ({"transactionId": "T-2"}, False),
        ({"evseId": 1}, False),
        ({"evseId": 0}, False),
        ({"chargingProfilePurpose": "TxDefaultProfile"}, False),
    ],
)
def test_a_profile_is_for_one_transaction_at_one_outlet(
    changes: dict[str, Any], *, is_own: bool
) -> None:
    """Some firmware leaves the transaction out of its report."""
    assert only(**changes).is_for(EvseId(2), TX) is is_own


@pytest.mark.parametrize(
    ("changes", "offset", "is_foreign"),
    [
        ({"id": 1}, 0, False),
        ({"id": 65}, 0, False),
        ({"id": 102}, 0, False),
        ({"id": 302}, 0, False),
        ({"id": 99}, 0, True),
        ({"id": 4711}, 0, True),
        ({"id": -1}, 0, True),
        ({"id": 1102}, 1000, False),
        ({"id": 102}, 1000, True),
        ({"id": 4711, "chargingLimitSource": None}, 0, True),
        ({"id": 4711, "chargingLimitSource": "EMS"}, 0, False),
        ({"id": 4711, "chargingLimitSource": "SO"}, 0, False),
    ],
)
def test_what_a_central_system_before_us_left_is_foreign(
    changes: dict[str, Any], offset: int, *, is_foreign: bool
) -> None:
    """VER-02: profiles of other masters are theirs."""
    assert only(**changes).is_foreign(offset) is is_foreign


def test_a_report_is_bounded() -> None:
    """I12."""
    assert len(read_installed((item(),) * 5000, NOW)) == PROFILES_MAX


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_no_hostile_value_raises(value: Any) -> None:
    """Any JSON in any place."""
    names = ("evseId", "chargingLimitSource", *item()["chargingProfile"])
    odd = [item(**{name: value}) for name in names]
    for found in read_installed((value, {"chargingProfile": value}, *odd), NOW):
        check_bounded(found)
