"""How many requests the vehicles' own cloud may get (smartcar.md section 9).

One bucket for the whole account, and for each car a calendar month, a floor between two
requests, and what one plug-in session may use. Every function takes the state before a
request and gives the state to put on disk *before* it is sent, so that a restart at any
moment counts a request too many rather than one too few.

The clock may step. The bucket gains only what the clock moves forward, and a month keeps
its own counter, so that stepping back and forth gives nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

from agent.domain.errors import CloudFault

MONTHS_KEPT = 24
"""A wrong clock visits months; their counters are kept in case it returns."""
SESSIONS_KEPT = 16
"""Sessions of one car whose counters are kept; a car has one at a time."""
WAIT_MAX_S = 86_400.0
"""The longest wait that a cloud may ask for; more than a day is a mistake."""
FLOOR_MAX_S = 3600.0
"""The highest floor that Retry-After may set."""
PAUSE_FIRST_S = 30.0
PAUSE_MAX_S = 900.0
"""Pause of all cars after RATE_LIMIT:SMARTCAR_API: 30 s, doubling, to 15 min."""
STEP_S = 3600.0
"""A clock this far before the last request was wrong then: waits count from now."""

Reason = Literal["floor", "session", "month", "account", "waiting"]


class BudgetSpent(CloudFault):
    """No request was made, because the budget has none left; nobody's fault."""

    def __init__(self, reason: Reason, retry_after_s: float) -> None:
        """Say which limit it was and when it ends, seconds."""
        super().__init__(
            f"no request to the vehicles' cloud now: {_MEANING[reason]}; "
            f"possible in {retry_after_s:.0f} s",
            retryable=True,
            retry_after_s=retry_after_s,
        )
        self.reason: Reason = reason


_MEANING: dict[Reason, str] = {
    "floor": "the last request to this car is too recent",
    "session": "this plug-in session used up its requests",
    "month": "this car's allowance of the month is used up",
    "account": "the allowance of all cars together is used up for the moment",
    "waiting": "the cloud asked to wait",
}


class Kind(StrEnum):
    """What a request costs."""

    LIST = "list"
    """Of no car: only the account's bucket pays."""
    READ = "read"
    PAGE = "page"
    """Another request of the same read: no floor before it."""
    COMMAND = "command"
    REPEAT = "repeat"
    """A command again after its 401: no floor, for it did not reach the car."""


READS = (Kind.READ, Kind.PAGE)
COMMANDS = (Kind.COMMAND, Kind.REPEAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRules:
    """Limits; the defaults are those of smartcar.md section 9."""

    bucket: int = 120
    refill_per_min: float = 2.0
    monthly: int = 500
    reserve: int = 50
    floor_s: float = 120.0
    session_reads: int = 5
    session_commands: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The bucket of all cars; ``at`` is when ``tokens`` was right."""

    tokens: float
    at: datetime
    paused_until: datetime | None = None
    throttles: int = 0
    """Refusals of the account in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarBudget:
    """What one car has used; empty for a car that was never asked about."""

    used: Mapping[str, int] = field(default_factory=dict)
    """Requests by month, ``2026-11``."""
    sessions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Reads and commands by plug-in session, oldest first."""
    last_at: datetime | None = None
    wait_until: datetime | None = None
    command_wait_until: datetime | None = None
    floor_s: float = 0.0
    """A higher floor than the rules', learned from Retry-After."""
    failures: int = 0
    failure: str = ""
    """The last failure's code, and how often it came in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The state to put on disk; then the request may go."""

    account: Account
    car: CarBudget


def month_of(now: datetime) -> str:
    """Calendar month, UTC."""
    return now.astimezone(UTC).strftime("%Y-%m")


def full_account(rules: BudgetRules, now: datetime) -> Account:
    """An account that nobody has used."""
    return Account(tokens=float(rules.bucket), at=now)


def settled(car: CarBudget, now: datetime) -> CarBudget:
    """Shorten waits of a clock that was ahead; the floor counts from now.

    Call it before ``take`` and keep what it gives, or the floor would never pass.
    """
    if car.last_at is None or (car.last_at - now).total_seconds() <= STEP_S:
        return car
    return replace(
        car,
        last_at=now,
        wait_until=_no_later(car.wait_until, now),
        command_wait_until=_no_later(car.command_wait_until, now),
    )


def take(
    rules: BudgetRules,
    account: Account,
    car: CarBudget,
    kind: Kind,
    *,
    now: datetime,
    session_id: str = "",
    cost: int = 1,
) -> Granted:
    """Pay for one request. Raises BudgetSpent; then nothing is paid.

    ``cost`` is above 1 for a batch: each of its paths counts (section 6).
    """
    filled = _refilled(rules, account, now)
    if kind is Kind.LIST:
        return Granted(account=_paid(rules, filled, cost, now), car=car)
    _check_waits(rules, car, kind, now)
    _check_session(rules, car, kind, session_id)
    _check_month(rules, car, kind, now, cost)
    paid = _paid(rules, filled, cost, now)
    month = month_of(now)
    used = {**car.used, month: car.used.get(month, 0) + cost}
    while len(used) > MONTHS_KEPT:
        del used[min(used)]
    return Granted(
        account=paid,
        car=replace(
            car,
            used=used,
            sessions=_counted(car.sessions, session_id, kind),
            last_at=now,
        ),
    )


def _no_later(until: datetime | None, now: datetime) -> datetime | None:
    latest = now + timedelta(seconds=FLOOR_MAX_S)
    return None if until is None else min(until, latest)


def _refilled(rules: BudgetRules, account: Account, now: datetime) -> Account:
    forward_s = max((now - account.at).total_seconds(), 0.0)
    tokens = min(account.tokens + forward_s * rules.refill_per_min / 60.0, rules.bucket)
    paused = account.paused_until
    if paused is not None and (paused - now).total_seconds() > WAIT_MAX_S:
        paused = now + timedelta(seconds=PAUSE_MAX_S)  # set while the clock was ahead
    return replace(account, tokens=tokens, at=now, paused_until=paused)


def _paid(rules: BudgetRules, account: Account, cost: int, now: datetime) -> Account:
    if account.paused_until is not None and now < account.paused_until:
        raise BudgetSpent("account", (account.paused_until - now).total_seconds())
    if account.tokens < cost:
        missing = cost - account.tokens
        raise BudgetSpent("account", missing * 60.0 / rules.refill_per_min)
    return replace(account, tokens=account.tokens - cost)


def _check_waits(rules: BudgetRules, car: CarBudget, kind: Kind, now: datetime) -> None:
    if kind in (Kind.PAGE, Kind.REPEAT):
        return
    waits = [car.wait_until]
    if kind is Kind.COMMAND:
        waits.append(car.command_wait_until)
    for until in waits:
        if until is not None and now < until:
            raise BudgetSpent("waiting", (until - now).total_seconds())
    if car.last_at is not None:
        left_s = (floor_end(rules, car, car.last_at) - now).total_seconds()
        if left_s > 0:
            raise BudgetSpent("floor", left_s)


def floor_end(rules: BudgetRules, car: CarBudget, last_at: datetime) -> datetime:
    """When the floor after a request ends."""
    return last_at + timedelta(seconds=max(rules.floor_s, car.floor_s))


def filled(rules: BudgetRules, account: Account, now: datetime) -> float:
    """Requests in the bucket now."""
    return _refilled(rules, account, now).tokens


def _check_session(rules: BudgetRules, car: CarBudget, kind: Kind, session_id: str) -> None:
    if not session_id:
        return
    reads, commands = car.sessions.get(session_id, (0, 0))
    is_spent = (
        reads >= rules.session_reads
        if kind in READS
        else commands >= rules.session_commands
    )
    if is_spent:
        raise BudgetSpent("session", WAIT_MAX_S)


def _check_month(
    rules: BudgetRules, car: CarBudget, kind: Kind, now: datetime, cost: int
) -> None:
    ceiling = rules.monthly - (rules.reserve if kind in READS else 0)
    if car.used.get(month_of(now), 0) + cost > ceiling:
        raise BudgetSpent("month", month_left_s(now))


def month_left_s(now: datetime) -> float:
    """Seconds until the next calendar month, UTC."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds()


def _counted(
    sessions: Mapping[str, tuple[int, int]], session_id: str, kind: Kind
) -> Mapping[str, tuple[int, int]]:
    if not session_id:
        return sessions
    reads, commands = sessions.get(session_id, (0, 0))
    now_used = (reads + 1, commands) if kind in READS else (reads, commands + 1)
    kept = {name: used for name, used in sessions.items() if name != session_id}
    kept[session_id] = now_used
    for name in list(kept)[: len(kept) - SESSIONS_KEPT]:
        del kept[name]
    return kept


# --- what answers teach ---------------------------------------------------------------


def spent(rules: BudgetRules, car: CarBudget, now: datetime) -> CarBudget:
    """Take a 430 as the truth: the month's allowance is used up, whatever we counted."""
    month = month_of(now)
    used = max(car.used.get(month, 0), rules.monthly)
    return replace(car, used={**car.used, month: used})


def paused(account: Account, *, now: datetime, chance: float, asked_s: float) -> Account:
    """Pause all cars after RATE_LIMIT:SMARTCAR_API; longer with each in a row.

    ``chance`` in [0, 1) spreads the return; ``asked_s`` is the cloud's Retry-After.
    """
    doubled = PAUSE_FIRST_S * 2.0 ** min(account.throttles, 10)
    wait_s = min(doubled * (1.0 + chance / 2), PAUSE_MAX_S)
    wait_s = max(wait_s, min(asked_s, WAIT_MAX_S))
    return replace(
        account,
        tokens=0.0,
        paused_until=now + timedelta(seconds=wait_s),
        throttles=account.throttles + 1,
    )


def answered(account: Account) -> Account:
    """Any answer but a refusal of the account ends its row of refusals."""
    return account if account.throttles == 0 else replace(account, throttles=0)


def slowed(car: CarBudget, *, now: datetime, asked_s: float) -> CarBudget:
    """Take over Retry-After of RATE_LIMIT:VEHICLE: never earlier, and a higher floor."""
    wait_s = min(max(asked_s, 0.0), WAIT_MAX_S)
    return replace(
        held(car, now=now, wait_s=wait_s),
        floor_s=max(car.floor_s, min(wait_s, FLOOR_MAX_S)),
    )


def held(
    car: CarBudget, *, now: datetime, wait_s: float, only_commands: bool = False
) -> CarBudget:
    """Ask for nothing (or command nothing) for so long; never shortens a wait."""
    until = now + timedelta(seconds=wait_s)
    if only_commands:
        old = car.command_wait_until
        return replace(car, command_wait_until=until if old is None else max(old, until))
    old = car.wait_until
    return replace(car, wait_until=until if old is None else max(old, until))


def failed(car: CarBudget, code: str) -> CarBudget:
    """Count a failure; another code begins a new row."""
    is_same = car.failure == code
    return replace(car, failure=code, failures=car.failures + 1 if is_same else 1)


def succeeded(car: CarBudget) -> CarBudget:
    """End the row of failures."""
    return car if not car.failure else replace(car, failure="", failures=0)


def released(car: CarBudget) -> CarBudget:
    """Forget waits (the driver consented anew); counters and the floor stay."""
    return replace(car, wait_until=None, command_wait_until=None, failure="", failures=0)


# --- makes ----------------------------------------------------------------------------

SLOWEST_S = 3600.0
"""The slowest rate anywhere is an hour."""
POLL_S = 1800.0
"""Smartcar advises at most one poll per half hour for brands in general."""
_MINUTES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (3, ("byd", "polestar", "volvo")),
    (5, ("audi", "rivian", "tesla", "hyundai", "kia", "skoda")),
    (
        10,
        (
            "bmw", "ford", "lincoln", "mercedesbenz", "mercedes", "volkswagen", "vw",
            "cupra", "mazda", "nissan", "subaru",
            "alfaromeo", "chrysler", "citroen", "dodge", "ds", "fiat", "jeep",
            "maserati", "opel", "peugeot", "ram", "vauxhall",
        ),
    ),
    (30, ("jaguar", "landrover", "honda")),
    (45, ("buick", "cadillac", "chevrolet", "gmc")),
    (60, ("renault", "dacia", "mg", "mini", "porsche", "toyota", "acura")),
)  # fmt: skip
"""Upper ends of the table of section 9; VW as in the EU, Stellantis and GM by brand."""
_FRESHNESS_S = {make: minutes * 60.0 for minutes, makes in _MINUTES for make in makes}


def freshness_s(make: str) -> float:
    """How old a value of a car of this make may well be while the car is awake, s."""
    return _FRESHNESS_S.get(_folded(make), SLOWEST_S)


def poll_s(make: str) -> float:
    """How far apart two reads of a car of this make make sense at all, s."""
    return max(freshness_s(make), POLL_S)


def _folded(make: str) -> str:
    plain = make.casefold().replace("š", "s").replace("ë", "e")
    return "".join(char for char in plain if char.isalnum())
