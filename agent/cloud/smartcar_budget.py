"""The budget of requests on disk: counted before each request, whatever comes after.

Facts of the scope ``smartcar-budget``: ``account``, and one per car.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from agent.domain import budget
from agent.domain.budget import Account, BudgetRules, CarBudget, Kind
from agent.domain.errors import CloudFault, StoreFault
from agent.ports import Clock, FactSaved, Ids, Store

log = structlog.get_logger()

SCOPE = "smartcar-budget"
ACCOUNT = "account"
CAR = "car:"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """What is left, for commands and metrics."""

    used: int
    ceiling: int
    reads_left: int
    commands_left: int
    next_at: datetime | None
    """When the next read is possible as far as this car goes; None: now."""
    bucket: float


class CallBudget:
    """The one place that a request to Smartcar has to pass."""

    def __init__(self, rules: BudgetRules, store: Store, clock: Clock, ids: Ids) -> None:
        """Prepare; the disk is read at the first use."""
        self._rules = rules
        self._store = store
        self._clock = clock
        self._ids = ids
        self._account: Account | None = None
        self._cars: dict[str, CarBudget] = {}
        self._lock = asyncio.Lock()

    async def check(
        self, kind: Kind, vehicle_id: str = "", *, session_id: str = "", cost: int = 1
    ) -> None:
        """Say beforehand whether ``take`` would refuse. Raises BudgetSpent."""
        async with self._lock:
            account = await self._loaded()
            budget.take(
                self._rules,
                account,
                self._car(vehicle_id),
                kind,
                now=self._clock.now(),
                session_id=session_id,
                cost=cost,
            )

    async def take(
        self, kind: Kind, vehicle_id: str = "", *, session_id: str = "", cost: int = 1
    ) -> None:
        """Count a request on disk; when this returns it may be sent.

        Raises BudgetSpent, and CloudFault when the disk did not take the count.
        """
        async with self._lock:
            account = await self._loaded()
            now = self._clock.now()
            granted = budget.take(
                self._rules,
                account,
                self._car(vehicle_id),
                kind,
                now=now,
                session_id=session_id,
                cost=cost,
            )
            rows = [_account_row(granted.account)]
            if vehicle_id:
                rows.append(_car_row(vehicle_id, granted.car))
            try:
                await self._store.commit(rows, now)
            except StoreFault as error:
                raise _unstored() from error
            self._account = granted.account
            if vehicle_id:
                self._cars[vehicle_id] = granted.car

    async def learn(
        self, vehicle_id: str, change: Callable[[CarBudget], CarBudget]
    ) -> CarBudget:
        """Change what is known of a car after an answer; the change holds from now on."""
        async with self._lock:
            await self._loaded()
            old = self._car(vehicle_id)
            new = change(old)
            if new != old:
                self._cars[vehicle_id] = new
                await self._save(_car_row(vehicle_id, new))
            return new

    async def pause(self, asked_s: float) -> float:
        """Pause all cars; how long, seconds."""
        async with self._lock:
            account = await self._loaded()
            now = self._clock.now()
            chance = self._ids.chance()
            self._account = budget.paused(account, now=now, chance=chance, asked_s=asked_s)
            await self._save(_account_row(self._account))
            until = self._account.paused_until
            return 0.0 if until is None else (until - now).total_seconds()

    async def answered(self) -> None:
        """Note that the account is not refused any more."""
        async with self._lock:
            account = await self._loaded()
            calm = budget.answered(account)
            if calm is not account:
                self._account = calm
                await self._save(_account_row(calm))

    async def view(self, vehicle_id: str) -> BudgetView:
        """Show what is left for a car; makes no request."""
        async with self._lock:
            account = await self._loaded()
            car = self._car(vehicle_id)
            now = self._clock.now()
        used = car.used.get(budget.month_of(now), 0)
        waits = [car.wait_until] if car.wait_until is not None else []
        if car.last_at is not None:
            waits.append(budget.floor_end(self._rules, car, car.last_at))
        next_at = max(waits, default=None)
        return BudgetView(
            used=used,
            ceiling=self._rules.monthly,
            reads_left=max(self._rules.monthly - self._rules.reserve - used, 0),
            commands_left=max(self._rules.monthly - used, 0),
            next_at=next_at if next_at is not None and next_at > now else None,
            bucket=budget.filled(self._rules, account, now),
        )

    def _car(self, vehicle_id: str) -> CarBudget:
        known = self._cars.get(vehicle_id, CarBudget())
        car = budget.settled(known, self._clock.now())
        if car is not known:
            self._cars[vehicle_id] = car
        return car

    async def _save(self, row: FactSaved) -> None:
        try:
            await self._store.commit([row], self._clock.now())
        except StoreFault as error:
            # Memory holds it; only a restart right now would forget a wait.
            log.error("record_not_stored", reason=str(error), what=row.scope)

    async def _loaded(self) -> Account:
        if self._account is not None:
            return self._account
        now = self._clock.now()
        try:
            facts = await self._store.facts(SCOPE)
        except StoreFault as error:
            raise _unstored() from error
        for name, body in facts.items():
            if name.startswith(CAR):
                self._cars[name.removeprefix(CAR)] = _car_of(body, self._rules, now)
        stored = facts.get(ACCOUNT)
        account = budget.full_account(self._rules, now)
        self._account = account if stored is None else _account_of(stored, now)
        return self._account


def _unstored() -> CloudFault:
    return CloudFault(
        "smartcar: no request was made, for its count could not be put on disk: free "
        "space or check the disk",
        retryable=True,
        retry_after_s=60.0,
    )


# --- facts ----------------------------------------------------------------------------


def _account_row(account: Account) -> FactSaved:
    body: dict[str, object] = {
        "tokens": account.tokens,
        "at": account.at.isoformat(),
        "paused_until": _text_of(account.paused_until),
        "throttles": account.throttles,
    }
    return FactSaved(scope=SCOPE, name=ACCOUNT, body=body)


def _account_of(body: Mapping[str, Any], now: datetime) -> Account:
    try:
        return Account(
            tokens=float(body["tokens"]),
            at=datetime.fromisoformat(body["at"]).astimezone(UTC),
            paused_until=_time_of(body["paused_until"]),
            throttles=int(body["throttles"]),
        )
    except (KeyError, TypeError, ValueError):
        # Not readable: nothing is in the bucket until it refills.
        return Account(tokens=0.0, at=now)


def _car_row(vehicle_id: str, car: CarBudget) -> FactSaved:
    body: dict[str, object] = {
        "used": dict(car.used),
        "sessions": {name: list(used) for name, used in car.sessions.items()},
        "last_at": _text_of(car.last_at),
        "wait_until": _text_of(car.wait_until),
        "command_wait_until": _text_of(car.command_wait_until),
        "floor_s": car.floor_s,
        "failures": car.failures,
        "failure": car.failure,
    }
    return FactSaved(scope=SCOPE, name=CAR + vehicle_id, body=body)


def _car_of(body: Mapping[str, Any], rules: BudgetRules, now: datetime) -> CarBudget:
    try:
        return CarBudget(
            used={str(month): int(count) for month, count in body["used"].items()},
            sessions={
                str(name): (int(used[0]), int(used[1]))
                for name, used in body["sessions"].items()
            },
            last_at=_time_of(body["last_at"]),
            wait_until=_time_of(body["wait_until"]),
            command_wait_until=_time_of(body["command_wait_until"]),
            floor_s=float(body["floor_s"]),
            failures=int(body["failures"]),
            failure=str(body["failure"]),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # Not readable: the month counts as used up but for the commands' reserve.
        month = budget.month_of(now)
        return CarBudget(used={month: rules.monthly - rules.reserve}, last_at=now)


def _text_of(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time_of(raw: Any) -> datetime | None:
    return None if raw is None else datetime.fromisoformat(raw).astimezone(UTC)
