"""Payment accounts: which one a vehicle charges on, whether it may, and how far.

The way is MAC -> vehicle -> VIN -> account -> charge -> goal -> bill (smartcar.md 11).
Recognition never refuses charging by itself; an account that is missing lowers the
limit through the ordinary power path, as one more rule with words, and the limit rises
as soon as the account is there. Billable energy is the station's meter, never SoC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agent.domain.identity import EvidenceKind, MatchOutcome, Vehicle
from agent.domain.ids import AccountId, VehicleId
from agent.domain.session import Session

AHEAD_S = 120.0
"""Between two samples of the register, power counts for this long at most."""
SOC_BACK = 3.0
"""Points that SoC must fall below a goal before charging goes on: heating takes some."""
JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where charging ends: Wh in one session by the meter, percent SoC; None is no end."""

    energy_wh: float | None = None
    soc_percent: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is any end."""
        return self.energy_wh is not None or self.soc_percent is not None


NO_GOAL = Goal()


@dataclass(frozen=True, slots=True, kw_only=True)
class PayAccount:
    """One account of the accounts file; ``valid_until`` is the first moment without."""

    account_id: AccountId
    name: str = ""
    vins: frozenset[str] = frozenset()
    vehicle_ids: frozenset[VehicleId] = frozenset()
    is_active: bool = True
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    goal: Goal = NO_GOAL


@dataclass(frozen=True, slots=True)
class AccountBook:
    """All accounts, found by VIN and by vehicle; each belongs to one account only."""

    accounts: Mapping[AccountId, PayAccount] = field(default_factory=dict)
    by_vin: Mapping[str, AccountId] = field(default_factory=dict)
    by_vehicle: Mapping[VehicleId, AccountId] = field(default_factory=dict)

    @classmethod
    def of(cls, accounts: list[PayAccount]) -> AccountBook:
        """Index accounts; the caller has made sure that nothing stands twice."""
        return cls(
            {item.account_id: item for item in accounts},
            {vin: item.account_id for item in accounts for vin in item.vins},
            {name: item.account_id for item in accounts for name in item.vehicle_ids},
        )

    def find(self, vin: str | None, vehicle_id: VehicleId | None) -> PayAccount | None:
        """Find the account of a vehicle: by VIN first, then by the registry's id."""
        found = self.by_vin.get(plain_vin(vin)) if vin else None
        if found is None and vehicle_id is not None:
            found = self.by_vehicle.get(vehicle_id)
        return self.accounts.get(found) if found is not None else None


class WithoutAccount(StrEnum):
    """What a vehicle may draw that no good account pays for."""

    REFUSE = "refuse"
    MINIMUM = "minimum"
    CHARGE = "charge"


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingRules:
    """The site's rules of billing with the accounts as last read."""

    book: AccountBook
    is_required: bool = False
    without: WithoutAccount = WithoutAccount.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a vehicle stands with its account now, with the reason in words."""

    account: PayAccount | None
    is_good: bool
    reason: str
    vin: str | None = None


class Ceiling(StrEnum):
    """How much billing leaves of what plan and policy want."""

    NOTHING = "nothing"
    MINIMUM = "minimum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What billing takes from a session's limit; ``is_goal`` when it has had its fill."""

    ceiling: Ceiling
    words: str
    is_goal: bool = False


def plain_vin(text: str) -> str:
    """A VIN as it is compared: upper case, without blanks and hyphens."""
    return text.replace(" ", "").replace("-", "").upper()


def vin_of(session: Session, vehicle: Vehicle | None) -> str | None:
    """Tell the VIN to bill by: the registry's, else the one that the station reported.

    None when two vehicles fit, or when two different numbers were reported.
    """
    if session.match is MatchOutcome.AMBIGUOUS:
        return None
    if session.match is MatchOutcome.UNIQUE:
        known = vehicle.vin if vehicle is not None else session.vin
        if known:
            return known
    kind = EvidenceKind.VIN
    reported = {plain_vin(item.value) for item in session.evidence if item.kind is kind}
    return reported.pop() if len(reported) == 1 else None


def verify(
    book: AccountBook, session: Session, vehicle: Vehicle | None, now: datetime
) -> Standing:
    """Look up the account that a session charges on, and whether it is good now."""
    if session.match is MatchOutcome.AMBIGUOUS:
        words = "no account: the vehicle is not certain"
        return Standing(account=None, is_good=False, reason=words)
    vin = vin_of(session, vehicle)
    vehicle_id = session.vehicle_id if session.match is MatchOutcome.UNIQUE else None
    account = book.find(vin, vehicle_id)
    if account is not None:
        problem = _problem(account, now)
        name = f"account {account.account_id}"
        words = f"{name} {problem}" if problem is not None else f"{name} is good"
        return Standing(
            account=account, is_good=problem is None, reason=words, vin=vin or None
        )
    if vin:
        words = f"no account for VIN {vin}"
    elif vehicle_id is not None:
        words = f"no account for vehicle {vehicle_id}, whose VIN is not known"
    else:
        words = "no account: nobody knows which vehicle it is"
    return Standing(account=None, is_good=False, reason=words, vin=vin or None)


def _problem(account: PayAccount, now: datetime) -> str | None:
    if not account.is_active:
        return "is not active"
    if account.valid_from is not None and now < account.valid_from:
        return f"is not valid before {account.valid_from:%Y-%m-%d %H:%M} UTC"
    if account.valid_until is not None and now >= account.valid_until:
        return f"ended at {account.valid_until:%Y-%m-%d %H:%M} UTC"
    return None


def grant(
    rules: BillingRules,
    session: Session,
    standing: Standing,
    now: datetime,
    *,
    soc_percent: float | None = None,
    was_reached: bool = False,
) -> Grant | None:
    """Decide what billing leaves of a session's limit; None when it takes nothing.

    ``was_reached`` is whether its goal was reached a moment ago, ``soc_percent`` the
    best that is known of the battery.
    """
    if rules.is_required and not standing.is_good:
        if rules.without is WithoutAccount.CHARGE:
            return None
        ceiling = (
            Ceiling.NOTHING if rules.without is WithoutAccount.REFUSE else Ceiling.MINIMUM
        )
        return Grant(ceiling=ceiling, words=standing.reason)
    if standing.account is None or not standing.is_good:
        return None
    done = reached(
        standing.account.goal,
        charged_wh=charged_wh(session, now),
        soc_percent=soc_percent,
        was_reached=was_reached,
    )
    if done is None:
        return None
    words = f"the goal of account {standing.account.account_id} is reached: {done}"
    return Grant(ceiling=Ceiling.NOTHING, words=words, is_goal=True)


def charged_wh(session: Session, now: datetime) -> float:
    """Energy of a session by the meter, carried on from its last sample by power, Wh."""
    meter = session.meter
    if session.open_transaction is None or meter.register_at is None:
        return meter.energy_wh
    since_s = min(max((now - meter.register_at).total_seconds(), 0.0), AHEAD_S)
    return meter.energy_wh + (meter.power_w or 0.0) * since_s / JOULES_PER_WH


def reached(
    goal: Goal, *, charged_wh: float, soc_percent: float | None, was_reached: bool
) -> str | None:
    """Tell in words which end is reached, or None.

    An end by SoC that was reached holds until the battery is ``SOC_BACK`` below it.
    """
    if goal.energy_wh is not None and charged_wh >= goal.energy_wh:
        return f"{goal.energy_wh / 1000:.1f} kWh are charged"
    if goal.soc_percent is None or soc_percent is None:
        return None
    slack = SOC_BACK if was_reached else 0.0
    if soc_percent >= goal.soc_percent - slack:
        return f"the battery is at {goal.soc_percent:.0f} %"
    return None
