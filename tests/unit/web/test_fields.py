"""The fields that the status page reads beside those of the contract."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from agent.control import views
from agent.control.health import CloudHealth
from agent.domain.account import Account
from agent.domain.billing import AccountBook, BillingRules, PayAccount, WithoutAccount
from agent.domain.ids import AccountId
from tests.unit.control.test_installed_limits import CP, ONE, TWO, Site


def outlooks(site: Site) -> list[Any]:
    (row,) = views.stations(site.depot, site.clock.at, lambda _: None, lambda _: 2)
    evses: Any = row["evses"]
    assert row["security_profile"] == 2
    return [item["outlook"] for item in evses]


async def test_outlet_tells_what_its_vehicle_comes_to_at_departure() -> None:
    site = Site()
    await site.plug(ONE)
    session = site.depot.state(CP).session_at(ONE)
    assert session is not None
    site.depot.accounts[session.session_id] = Account(
        at=site.clock.at,
        departs_at=site.clock.at + timedelta(hours=2),
        target_soc=90.0,
        expected_soc=61.24,
        behind_wh=23_400.4,
        at_risk=True,
        reason="61 % expected at departure instead of 90 %",
    )

    first, second = outlooks(site)

    assert first == {
        "departs_at": views.iso(site.clock.at + timedelta(hours=2)),
        "target_soc": 90.0,
        "expected_soc": 61.2,
        "behind_wh": 23_400,
        "at_risk": True,
        "reason": "61 % expected at departure instead of 90 %",
    }
    assert second is None
    assert site.depot.state(CP).session_at(TWO) is None


async def test_outlet_without_a_departure_promises_nothing() -> None:
    site = Site()
    await site.plug(ONE)
    session = site.depot.state(CP).session_at(ONE)
    assert session is not None
    site.depot.accounts[session.session_id] = Account(at=site.clock.at)

    assert outlooks(site) == [None, None]


def test_status_tells_whether_accounts_are_kept_and_what_they_decide() -> None:
    site, clouds = Site(), list[CloudHealth]()
    without = views.status(site.depot, site.clock.at, clouds, "")["billing"]
    site.depot.billing = BillingRules(
        book=AccountBook.of([PayAccount(account_id=AccountId("A-1"))]),
        is_required=True,
        without=WithoutAccount.MINIMUM,
    )

    assert without is None
    assert views.status(site.depot, site.clock.at, clouds, "")["billing"] == {
        "required": True,
        "accounts": 1,
        "without_account": "minimum",
    }
