"""Cars from plain JSON, and a few of them ready to use.

A row has the fields of `StandinCar` by name, lists in place of sets, and under `body`
those of `PlainBody`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from agent.standin.schedules import BadRequestError
from agent.standin.smartcar_car import PlainBody, StandinCar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.standin.smartcar_state import SmartcarStandin

BODY_FIELDS = frozenset(each.name for each in fields(PlainBody))
CAR_FIELDS = frozenset(each.name for each in fields(StandinCar) if each.init) - {"body"}
SETS = frozenset({"permissions", "incapable", "signals"})
VIN_DIGITS = 10
MAKES = ("VOLVO", "FORD", "VOLKSWAGEN")
"""Makes with different paces of reporting, for visitors in turn."""


def vin_of(number: int) -> str:
    """Return a VIN that no real car has, with 17 characters."""
    return f"VSTANDN{number:0{VIN_DIGITS}}"


def visitor(
    number: int, vehicle_id: str, *, model: str, soc_percent: float, capacity_wh: float
) -> StandinCar:
    """Make a car that is away, without a limit of its own; its id is `car-VEHICLE`."""
    return StandinCar(
        vehicle_id=f"car-{vehicle_id}",
        user_id=f"user-{vehicle_id}",
        vin=vin_of(number),
        make=MAKES[number % len(MAKES)],
        model=model,
        capacity_kwh=capacity_wh / 1000,
        body=PlainBody(soc_percent=soc_percent, limit_percent=100.0),
    )


def car_from(row: Mapping[str, Any]) -> StandinCar:
    """Make a car of a row; BadRequestError for one that cannot be."""
    car_part, body_part = parts_of(row)
    try:
        return StandinCar(**car_part, body=PlainBody(**body_part))
    except (TypeError, ValueError) as error:
        raise BadRequestError(str(error)) from error


def parts_of(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a row into the fields of a car and of its body; BadRequestError if unknown."""
    body = row.get("body", {})
    if not isinstance(body, dict):
        raise BadRequestError("body of a car must be an object")
    car = {key: value for key, value in row.items() if key != "body"}
    unknown = (set(car) - CAR_FIELDS) | (set(body) - BODY_FIELDS)
    if unknown:
        raise BadRequestError(f"a car has no {', '.join(sorted(unknown))}")
    for name in SETS & set(car):
        car[name] = None if car[name] is None else frozenset(car[name])
    return car, dict(body)


def load_cars(cloud: SmartcarStandin, content: Any) -> None:
    """Take `cars` of a fixtures file; BadRequestError when they are no rows."""
    rows = content.get("cars", []) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadRequestError("cars must be a list of objects")
    cloud.add(*(car_from(row) for row in rows))


def load_sample_cars(cloud: SmartcarStandin) -> None:
    """Connect three cars: one charging, one plugged in and full, one away."""
    charging = PlainBody(soc_percent=54.0, is_plugged=True, offered_w=11_000.0)
    full = PlainBody(soc_percent=80.0, is_plugged=True, offered_w=11_000.0)
    away = PlainBody(soc_percent=37.0)
    for number, (make, body) in enumerate(
        (("VOLVO", charging), ("FORD", full), ("RENAULT", away)), start=1
    ):
        cloud.add(
            StandinCar(
                vehicle_id=f"car-{number}",
                user_id=f"user-{number}",
                vin=vin_of(number),
                make=make,
                body=body,
            )
        )
