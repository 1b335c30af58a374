"""What answers teach about a car, and what it means for the next request.

The catalogue of smartcar_errors says what each error is; here it is put on disk: waits
and counters in the budget, capabilities and consent in the book of cars.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from agent.cloud.smartcar_budget import CallBudget
from agent.cloud.smartcar_cars import NUMBERS, READ, RECHECK, CarBook, Lack
from agent.cloud.smartcar_errors import Action, ApiError, Holds, Rule, rule_of
from agent.cloud.smartcar_options import SmartcarOptions
from agent.cloud.smartcar_parse import SignalsRead
from agent.domain import budget
from agent.domain.budget import BudgetSpent
from agent.domain.errors import CloudFault
from agent.ports import Car, CarCommand, CarState, Clock, CommandOutcome, Outcome

log = structlog.get_logger()

COMMANDS: tuple[str, ...] = tuple(str(item) for item in CarCommand)
REAUTHENTICATE = "REAUTHENTICATE"
LIST_RETRY_S = 300.0


class Lessons:
    """Takes over what the answers about cars say."""

    def __init__(
        self, options: SmartcarOptions, budget_: CallBudget, cars: CarBook, clock: Clock
    ) -> None:
        """Keep where it is put."""
        self._rules = options.rules
        self._vins = {item.vehicle_id: item.vin for item in options.vehicles}
        self._budget = budget_
        self._cars = cars
        self._clock = clock
        self._told_month: set[tuple[str, str]] = set()

    async def note_read(self, car: Car, session_id: str, found: SignalsRead) -> None:
        """Keep what a read gave, and tell what is odd about it."""
        vehicle_id = car.vehicle_id
        facts = await self._cars.of(vehicle_id)
        for problem in found.problems:
            log.warning("smartcar_value_refused", car=vehicle_id, reason=problem)
        is_empty = found.count == 0
        if is_empty and not facts.is_store_empty:
            log.warning("smartcar_store_found_empty", car=vehicle_id, vin=self.vin(car))
        driver = next((item for item in found.errors if _is_drivers(item)), None)
        if driver is not None:
            await self._need_driver(car, driver)
        elif facts.driver and not is_empty:
            log.info("smartcar_driver_satisfied", car=vehicle_id, reason=facts.driver)
            await self._cars.change(
                vehicle_id, driver="", driver_detail="", driver_since=None
            )
        await self._cars.change(
            vehicle_id,
            make=found.make or facts.make,
            vin=found.state.vin or facts.vin,
            state=merged(facts.state, found.state),
            at=self._clock.now(),
            session_id=session_id,
            is_store_empty=is_empty,
        )
        await self._budget.learn(vehicle_id, budget.succeeded)

    async def read_fault(self, car: Car, error: ApiError) -> CloudFault:
        """What an error of a read means for the caller."""
        rule, wait_s = await self.learn(car, error, READ)
        if rule.action is Action.MONTH_SPENT:
            return BudgetSpent("month", wait_s or budget.WAIT_MAX_S)
        return CloudFault(
            f"smartcar: reading a car: {error}",
            retryable=wait_s is not None,
            retry_after_s=wait_s,
        )

    async def command_end(
        self, car: Car, command: CarCommand, error: ApiError
    ) -> CommandOutcome:
        """What an error says about a command (sections 5.5 and 8)."""
        action = rule_of(error).action
        if (action is Action.DONE_ON_START and command is CarCommand.START) or (
            action is Action.DONE_ON_STOP and command is CarCommand.STOP
        ):
            return CommandOutcome(
                outcome=Outcome.DONE, code=error.name, detail="it was so already"
            )
        rule, wait_s = await self.learn(car, error, command)
        return CommandOutcome(
            outcome=Outcome.UNKNOWN if rule.is_unsure else Outcome.REFUSED,
            code=error.name,
            detail=error.message,
            retry_after_s=wait_s,
        )

    async def list_fault(self, error: ApiError) -> CloudFault:
        """What an error of a request about no car means."""
        rule = rule_of(error)
        wait_s = error.retry_after_s or rule.wait_s(1) or LIST_RETRY_S
        if rule.action is Action.PAUSE_ALL:
            wait_s = await self._budget.pause(error.retry_after_s or 0.0)
            log.warning("smartcar_throttled", scope="account", wait_s=round(wait_s))
        elif rule.action in (Action.BUG, Action.RENEW, Action.NO_PERMISSION):
            log.error("smartcar_request_refused", reason=str(error))
        return CloudFault(
            f"smartcar: reading the connections: {error}",
            retryable=True,
            retry_after_s=wait_s,
        )

    async def learn(
        self, car: Car, error: ApiError, capability: str
    ) -> tuple[Rule, float | None]:
        """Take over what an error says of the car; the rule, and the wait if one helps."""
        rule = rule_of(error)
        now = self._clock.now()
        vehicle_id = car.vehicle_id
        if rule.action is Action.PAUSE_ALL:
            pause_s = await self._budget.pause(error.retry_after_s or 0.0)
            log.warning("smartcar_throttled", scope="account", wait_s=round(pause_s))
            return rule, pause_s
        if rule.action is Action.PAUSE_CAR:
            asked_s = error.retry_after_s or rule.waits_s[0]
            await self._budget.learn(
                vehicle_id, lambda car: budget.slowed(car, now=now, asked_s=asked_s)
            )
            log.warning("smartcar_throttled", car=vehicle_id, wait_s=round(asked_s))
            return rule, asked_s
        if rule.action is Action.MONTH_SPENT:
            await self._budget.learn(
                vehicle_id, lambda car: budget.spent(self._rules, car, now)
            )
            log.warning("smartcar_month_spent", car=vehicle_id, told_by="smartcar")
            return rule, budget.month_left_s(now)
        state = await self._budget.learn(
            vehicle_id, lambda car: _held(budget.failed(car, error.name), rule, now)
        )
        await self._teach(car, error, rule, capability)
        wait_s = rule.wait_s(state.failures)
        if wait_s is not None and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        return rule, wait_s

    async def _teach(self, car: Car, error: ApiError, rule: Rule, capability: str) -> None:
        if rule.action is Action.DRIVER:
            await self._need_driver(car, error)
        elif rule.action is Action.NO_COMMANDS:
            await self.drop(car, error, COMMANDS)
        elif rule.action is Action.NO_PERMISSION:
            await self.drop(car, error, (READ,) if capability == READ else COMMANDS)
        elif rule.action is Action.NOT_CAPABLE:
            await self.drop(car, error, (capability,))
        elif rule.action is Action.PLAN:
            log.error("smartcar_plan_refused", car=car.vehicle_id, reason=str(error))
        elif rule.action in (Action.BUG, Action.RENEW):
            log.error("smartcar_request_refused", car=car.vehicle_id, reason=str(error))

    async def _need_driver(self, car: Car, error: ApiError) -> None:
        facts = await self._cars.of(car.vehicle_id)
        if facts.driver == error.name:
            return
        log.warning(
            "smartcar_driver_needed",
            car=car.vehicle_id,
            vin=self.vin(car),
            reason=str(error),
        )
        await self._cars.change(
            car.vehicle_id,
            driver=error.name,
            driver_detail=error.message,
            driver_since=self._clock.now(),
        )

    async def drop(self, car: Car, error: ApiError, names: tuple[str, ...]) -> None:
        """Remember that something does not work for a car, for a month."""
        facts = await self._cars.of(car.vehicle_id)
        lack = Lack(code=error.name, until=self._clock.now() + RECHECK)
        log.info(
            "smartcar_capability_dropped",
            car=car.vehicle_id,
            what=" ".join(names),
            reason=str(error),
        )
        lacks = {**facts.lacks, **dict.fromkeys(names, lack)}
        await self._cars.change(car.vehicle_id, lacks=lacks)

    async def consented(self, vehicle_id: str, changed_at: datetime | None) -> None:
        """Forget refusals that are older than the driver's last consent."""
        facts = await self._cars.of(vehicle_id)
        if changed_at is None:
            return
        old = {
            name
            for name, lack in facts.lacks.items()
            if lack.until - RECHECK < changed_at and _is_of_consent(lack.code)
        }
        is_answered = facts.driver_since is not None and facts.driver_since < changed_at
        if not old and not is_answered:
            return
        log.info("smartcar_driver_satisfied", car=vehicle_id, reason=facts.driver)
        lacks = {name: lack for name, lack in facts.lacks.items() if name not in old}
        await self._cars.change(
            vehicle_id, lacks=lacks, driver="", driver_detail="", driver_since=None
        )
        await self._budget.learn(vehicle_id, budget.released)

    def tell_spent(self, car: Car, error: BudgetSpent) -> None:
        """Tell once a month that a car has used up its allowance."""
        mark = (car.vehicle_id, budget.month_of(self._clock.now()))
        if error.reason == "month" and mark not in self._told_month:
            self._told_month.add(mark)
            log.warning("smartcar_month_spent", car=car.vehicle_id, told_by="counter")

    def vin(self, car: Car) -> str:
        """The VIN as far as it is known, for a technician."""
        return car.vin or self._vins.get(car.vehicle_id, "")


def merged(old: CarState, new: CarState) -> CarState:
    """The last good numbers, each with its own time; the rest as newly read."""
    numbers = {name: getattr(new, name) or getattr(old, name) for name in NUMBERS}
    return CarState(charging=new.charging, vin=new.vin or old.vin, **numbers)


def _held(car: budget.CarBudget, rule: Rule, now: datetime) -> budget.CarBudget:
    wait_s = rule.hold_s(car.failures)
    if rule.holds is Holds.NOTHING or wait_s <= 0:
        return car
    return budget.held(
        car, now=now, wait_s=wait_s, only_commands=rule.holds is Holds.COMMANDS
    )


def _is_drivers(error: ApiError) -> bool:
    return rule_of(error).action is Action.DRIVER or error.resolution == REAUTHENTICATE


def _is_of_consent(code: str) -> bool:
    """Whether a new consent can bring it back; a car's nature stays as it is."""
    return not code.startswith("COMPATIBILITY")
