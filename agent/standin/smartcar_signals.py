"""The signals that Smartcar holds of a car, made from its last report.

A signal can be spoilt by `car.signal_modes[code]`: `error`, `cached-error` (an old body
stays), `no-body`, `unavailable`, `missing`; the first two may name a row of the error
table, as in `error:UPSTREAM:NO_RESPONSE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.standin.smartcar_errors import SmartcarError, signal_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_car import Report, StandinCar
    from agent.standin.smartcar_state import SmartcarStandin

MILES_PER_KM = 0.621371
VOLTS = 400.0
"""Of a battery in the middle of its range; only for the current that goes with a power."""
SIGNAL_MODES = ("error", "cached-error", "no-body", "unavailable", "missing")
DEFAULT_ERROR = "UPSTREAM:NO_RESPONSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a signal is made from."""

    car: StandinCar
    report: Report
    is_imperial: bool


@dataclass(frozen=True, slots=True)
class SignalKind:
    """A code with its names, permission and body; a static one carries no time."""

    code: str
    group: str
    name: str
    permission: str
    body: Callable[[View], JsonObject]
    is_static: bool = False
    needs_charging: bool = False


def _scalar(value: object, unit: str = "") -> JsonObject:
    return {"value": value, "unit": unit} if unit else {"value": value}


def _range(view: View) -> JsonObject:
    km = view.report.soc_percent / 100 * view.car.range_full_km
    if view.is_imperial:
        return _scalar(round(km * MILES_PER_KM, 1), "miles")
    return _scalar(round(km, 1), "km")


def _capacity(view: View) -> JsonObject:
    capacity = view.car.capacity_kwh
    row: JsonObject = {
        "capacity": capacity,
        "source": None if capacity is None else "SMARTCAR",
        "availableCapacities": [
            {"capacity": capacity or 60.0, "description": "BEV:Standard Range"},
            {"capacity": (capacity or 60.0) + 15, "description": "BEV:Extended Range"},
        ],
        "unit": "kWh",
    }
    return row


def _limits(view: View) -> JsonObject:
    limit = round(view.report.limit_percent)
    form = view.car.limit_form
    kind = "global" if form == "lower-case" else "GLOBAL"
    values = [{"type": kind, "limit": limit, "condition": None}]
    return {
        "values": [] if form == "active-only" else values,
        "activeLimit": None if form == "values-only" else limit,
        "unit": "percent",
    }


def _minutes_left(view: View) -> JsonObject:
    report, capacity = view.report, view.car.capacity_kwh or 60.0
    missing = max(0.0, report.limit_percent - report.soc_percent)
    left_wh = missing / 100 * capacity * 1000
    return _scalar(round(left_wh / max(report.power_w, 1.0) * 60), "minute")


_BATTERY, _CHARGE = "read_battery", "read_charge"
SIGNALS: tuple[SignalKind, ...] = (
    SignalKind(
        "tractionbattery-stateofcharge", "TractionBattery", "StateOfCharge", _BATTERY,
        lambda v: _scalar(v.report.soc_percent, "percent"),
    ),
    SignalKind("tractionbattery-range", "TractionBattery", "Range", _BATTERY, _range),
    SignalKind(
        "tractionbattery-nominalcapacity", "TractionBattery", "NominalCapacity", _BATTERY,
        _capacity, is_static=True,
    ),
    SignalKind(
        "charge-ischargingcableconnected", "Charge", "IsChargingCableConnected", _CHARGE,
        lambda v: _scalar(v.report.is_plugged),
    ),
    SignalKind(
        "charge-ischarging", "Charge", "IsCharging", _CHARGE,
        lambda v: _scalar(v.report.is_charging),
    ),
    SignalKind(
        "charge-detailedchargingstatus", "Charge", "DetailedChargingStatus", _CHARGE,
        lambda v: _scalar(v.report.state),
    ),
    SignalKind("charge-chargelimits", "Charge", "ChargeLimits", _CHARGE, _limits),
    SignalKind(
        "charge-chargetimers", "Charge", "ChargeTimers", _CHARGE, lambda _v: {"values": []}
    ),
    SignalKind(
        "charge-wattage", "Charge", "Wattage", _CHARGE,
        lambda v: _scalar(round(v.report.power_w), "watts"), needs_charging=True,
    ),
    SignalKind(
        "charge-amperage", "Charge", "Amperage", _CHARGE,
        lambda v: _scalar(round(v.report.power_w / VOLTS, 1), "ampere"),
        needs_charging=True,
    ),
    SignalKind(
        "charge-voltage", "Charge", "Voltage", _CHARGE,
        lambda _v: _scalar(VOLTS, "volts"), needs_charging=True,
    ),
    SignalKind(
        "charge-energyadded", "Charge", "EnergyAdded", _CHARGE,
        lambda v: _scalar(round(v.report.energy_added_wh / 1000, 2), "kWh"),
    ),
    SignalKind(
        "charge-timetocomplete", "Charge", "TimeToComplete", _CHARGE, _minutes_left,
        needs_charging=True,
    ),
    SignalKind(
        "charge-isfastchargerpresent", "Charge", "IsFastChargerPresent", _CHARGE,
        lambda v: _scalar(v.report.is_plugged),
    ),
    SignalKind(
        "vehicleidentification-vin", "VehicleIdentification", "VIN", "read_vin",
        lambda v: _scalar(v.car.vin), is_static=True,
    ),
    SignalKind(
        "connectivitystatus-isasleep", "ConnectivityStatus", "IsAsleep",
        "read_vehicle_info", lambda v: _scalar(v.car.is_asleep),
    ),
    SignalKind(
        "connectivitystatus-isonline", "ConnectivityStatus", "IsOnline",
        "read_vehicle_info", lambda v: _scalar(not v.car.is_asleep),
    ),
    SignalKind(
        "lowvoltagebattery-stateofcharge", "LowVoltageBattery", "StateOfCharge", _BATTERY,
        lambda _v: _scalar(91, "percent"),
    ),
    SignalKind(
        "location-preciselocation", "Location", "PreciseLocation", "read_location",
        lambda _v: {"latitude": 60.98, "longitude": 25.66, "locationType": "LAST_PARKED"},
    ),
)  # fmt: skip
BY_CODE = {kind.code: kind for kind in SIGNALS}


def spoil(car: StandinCar, code: str, mode: str) -> None:
    """Set a signal's mode; an empty one heals it. ValueError for a wrong name."""
    word, _, name = mode.partition(":")
    if code not in BY_CODE:
        raise ValueError(f"signal {code} is not known")
    if mode and word not in SIGNAL_MODES:
        raise ValueError(f"signal mode {word} is not one of {SIGNAL_MODES}")
    signal_error(name or DEFAULT_ERROR)  # refuses a name that is not in the table
    car.signal_modes.pop(code, None)
    car.cached.pop(code, None)
    if mode:
        car.signal_modes[code] = mode
        car.cached[code] = car.report


def signal_list(
    cloud: SmartcarStandin, car: StandinCar, *, is_imperial: bool = False
) -> list[JsonObject]:
    """Return what the store holds of a car; empty when nothing feeds it."""
    if car.report is None:
        return []
    return [
        _row(cloud, car, kind, is_imperial=is_imperial)
        for kind in SIGNALS
        if _is_stored(car, kind)
    ]


def one_signal(
    cloud: SmartcarStandin, car: StandinCar, code: str, *, is_imperial: bool = False
) -> JsonObject:
    """Return one signal; SmartcarError 404 when not stored, 403 when not granted."""
    kind = BY_CODE.get(code)
    if kind is None or car.report is None or not _is_stored(car, kind):
        raise SmartcarError("RESOURCE_NOT_FOUND", f"signal {code} is not stored")
    if kind.permission not in car.permissions:
        raise SmartcarError("PERMISSION", f"{kind.permission} was not granted")
    return _row(cloud, car, kind, is_imperial=is_imperial)


def webhook_signal(cloud: SmartcarStandin, car: StandinCar, code: str) -> JsonObject:
    """Return a signal as a webhook carries it; times in milliseconds."""
    row = one_signal(cloud, car, code)
    attributes = row["attributes"]
    report = car.report
    at_ms = round(report.at.timestamp() * 1000) if report is not None else 0
    now_ms = round(cloud.clock.now().timestamp() * 1000)
    return {**attributes, "meta": {"oemUpdatedAt": at_ms, "retrievedAt": now_ms}}


def _is_stored(car: StandinCar, kind: SignalKind) -> bool:
    if kind.permission == "read_location" and kind.permission not in car.permissions:
        return False
    if car.signals is not None and kind.code not in car.signals:
        return False
    return car.signal_modes.get(kind.code) != "missing"


def _row(
    cloud: SmartcarStandin, car: StandinCar, kind: SignalKind, *, is_imperial: bool
) -> JsonObject:
    word, _, name = car.signal_modes.get(kind.code, "").partition(":")
    report = car.report
    if word == "cached-error":
        report = car.cached.get(kind.code) or report
    if report is None:
        raise SmartcarError("RESOURCE_NOT_FOUND", f"signal {kind.code} is not stored")
    attributes: JsonObject = {"code": kind.code, "name": kind.name, "group": kind.group}
    body = kind.body(View(car=car, report=report, is_imperial=is_imperial))
    if kind.code in cloud.units:
        body["unit"] = cloud.units[kind.code]
    if kind.permission not in car.permissions:
        attributes["status"] = {"value": "ERROR", "error": signal_error("PERMISSION")}
    elif word in ("error", "cached-error"):
        error = signal_error(name or DEFAULT_ERROR)
        attributes["status"] = {"value": "ERROR", "error": error}
        if word == "cached-error":
            attributes["body"] = body
    elif word == "unavailable":
        attributes["status"] = {"value": "UNAVAILABLE"}
    elif kind.needs_charging and not report.is_charging:
        error = signal_error("VEHICLE_STATE:NOT_CHARGING")
        attributes["status"] = {"value": "ERROR", "error": error}
        attributes["body"] = {**body, "value": None}
    else:
        attributes["status"] = {"value": "SUCCESS"}
        if word != "no-body":
            attributes["body"] = body
    at = None if kind.is_static else report.at
    base = f"/v3/vehicles/{car.vehicle_id}"
    return {
        "id": kind.code,
        "type": "signal",
        "attributes": attributes,
        "meta": {
            "oemUpdatedAt": cloud.stamp(at),
            "retrievedAt": cloud.stamp(cloud.clock.now()),
            "ingestedAt": cloud.stamp(report.at),
        },
        "links": {"self": f"{base}/signals/{kind.code}", "vehicle": base},
    }
