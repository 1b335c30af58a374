"""What a car does with a command, and how its outcome is told.

A success is an acknowledgement: the effect comes `car.effect_s` after the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import orjson
from starlette.responses import StreamingResponse

from agent.standin.smartcar_car import LIMIT_HIGHEST, LIMIT_LOWEST
from agent.standin.smartcar_errors import SmartcarError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from starlette.responses import Response

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import StandinCar
    from agent.standin.smartcar_faults import CarFault
    from agent.standin.smartcar_state import SmartcarStandin

CommandName = Literal["charge-start", "charge-stop", "charge-set-limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command to a car; `percent` is for the limit."""

    name: CommandName
    percent: int | None = None

    @property
    def parameters(self) -> JsonObject:
        """The echo in the answer."""
        return {} if self.percent is None else {"percent": self.percent}


def limit_of(body: object) -> int:
    """Read the body of set-limit; SmartcarError 400 below 50, above 100, or not whole."""
    try:
        percent = body["data"]["attributes"]["percent"]  # type: ignore[index]
    except (KeyError, TypeError, IndexError) as error:
        name = "VALIDATION:MISSING_PARAMETER"
        raise SmartcarError(name, "data.attributes.percent is missing") from error
    is_whole = isinstance(percent, int) or (
        isinstance(percent, float) and percent.is_integer()
    )
    if isinstance(percent, bool) or not is_whole:
        raise SmartcarError("VALIDATION:PARAMETER", "percent must be a whole number")
    if not LIMIT_LOWEST <= percent <= LIMIT_HIGHEST:
        words = f"percent must be {LIMIT_LOWEST} to {LIMIT_HIGHEST}"
        raise SmartcarError("VALIDATION:PARAMETER", words)
    return int(percent)


def judge(car: StandinCar, command: Command) -> None:
    """Let the car take or refuse a command; SmartcarError 409 or 501."""
    if command.name in car.incapable:
        raise SmartcarError("COMPATIBILITY:VEHICLE_NOT_CAPABLE")
    if car.is_asleep and not car.wakes_by_command:
        raise SmartcarError("VEHICLE_STATE:ASLEEP")
    if command.name == "charge-set-limit":
        if car.limit_needs_plug and not car.body.is_plugged:
            raise SmartcarError("VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED")
        return
    if car.body.soc_percent < car.needs_soc:
        raise SmartcarError("VEHICLE_STATE:LOW_BATTERY")
    if command.name == "charge-stop":
        if not car.is_charging:
            raise SmartcarError("VEHICLE_STATE:NOT_CHARGING")
        return
    _judge_start(car)


def order(cloud: SmartcarStandin, car: StandinCar, command: Command) -> None:
    """Have the car do it after its delay; a command wakes a car that lets itself."""

    def do() -> None:
        car.wake()
        match command.name:
            case "charge-start":
                car.body.start()
            case "charge-stop":
                car.body.stop()
            case "charge-set-limit":
                car.body.set_limit(command.percent or LIMIT_HIGHEST)

    cloud.later(car.effect_s, car, do)


def execution(
    cloud: SmartcarStandin,
    command: Command,
    began: datetime,
    *,
    value: str = "SUCCESS",
    error: str = "",
) -> JsonObject:
    """Write the resource that tells how a command ended."""
    now = cloud.clock.now()
    status: JsonObject = {"value": value}
    if error:
        status["error"] = SmartcarError(error).item()
    return {
        "data": {
            "id": cloud.request_id(),
            "type": "command-execution",
            "attributes": {
                "commandType": command.name,
                "status": status,
                "executionMode": "sync",
                "parameters": command.parameters,
            },
            "meta": {
                "executedAt": cloud.stamp(began),
                "completedAt": cloud.stamp(now),
                "durationInSeconds": (now - began).total_seconds(),
            },
        }
    }


async def run_command(
    cloud: SmartcarStandin, car: StandinCar, command: Command, fault: CarFault | None
) -> Response | JsonObject:
    """Carry a command out and answer it; SmartcarError when the car refuses at once.

    A JsonObject is a plain 200. `fault` is one of the kinds for commands, or None.
    """
    cloud.settle()
    began = cloud.clock.now()
    if fault is not None and fault.kind == "failure":
        return execution(cloud, command, began, value="FAILURE", error=fault.name)
    if fault is not None and fault.kind.startswith("late"):
        return _streamed(cloud, car, command, fault.delay_s, fault)
    judge(car, command)
    if car.command_s > cloud.late_after_s:
        await cloud.pause(cloud.late_after_s)
        rest_s = car.command_s - cloud.late_after_s
        return _streamed(cloud, car, command, rest_s, None)
    await cloud.pause(car.command_s)
    order(cloud, car, command)
    return execution(cloud, command, began)


def _judge_start(car: StandinCar) -> None:
    body = car.body
    if car.is_charging:
        raise SmartcarError("VEHICLE_STATE:CHARGING_IN_PROGRESS")
    if not body.is_plugged:
        raise SmartcarError("VEHICLE_STATE:CHARGING_PLUG_NOT_CONNECTED")
    if body.soc_percent >= body.limit_percent:
        raise SmartcarError("VEHICLE_STATE:FULLY_CHARGED")
    if body.offered_w <= 0:
        raise SmartcarError("VEHICLE_STATE:CHARGE_FAULT")


def _streamed(
    cloud: SmartcarStandin,
    car: StandinCar,
    command: Command,
    rest_s: float,
    fault: CarFault | None,
) -> Response:
    """Answer 202 at once, without a length; the body comes when the outcome is known."""
    began = cloud.clock.now()
    kind = "late" if fault is None else fault.kind
    refusals: list[SmartcarError] = []

    def do() -> None:
        """Happens even if the client has left."""
        try:
            judge(car, command)
        except SmartcarError as error:
            refusals.append(error)
        else:
            order(cloud, car, command)

    if kind != "late-failure":
        cloud.later(rest_s, car, do)

    async def body() -> AsyncIterator[bytes]:
        await cloud.pause(rest_s)
        cloud.settle()
        if kind == "late-cut":
            raise ConnectionAbortedError("command stream cut on purpose")
        if kind == "late-failure" and fault is not None:
            refusals.append(SmartcarError(fault.name))
        if refusals:
            told = refusals[0].v3(cloud.request_id())
        else:
            value = "PENDING" if kind == "late-pending" else "SUCCESS"
            told = execution(cloud, command, began, value=value)
        yield orjson.dumps(told)

    return StreamingResponse(body(), 202, media_type="application/json")
