"""Rows in ChargEye's shapes, from plain values, and a small depot ready to use.

`vehicle_json(id, {"vin": ...})` and the like: whatever is given beside the named
values goes into the row as it is, so any odd property or enum member can be made.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from agent.standin.tokens import iso_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from agent.standin.schedules import JsonObject
    from agent.standin.state import ChargEyeStandin

LOCATION_UID = "depot-1"
MacShape = Literal["ports", "deprecated", "both", "none"]


def vehicle_json(
    vehicle_id: str,
    extra: Mapping[str, Any] | None = None,
    *,
    macs: Sequence[str] = (),
    mac_shape: MacShape = "ports",
    location_uid: str | list[str] | None = LOCATION_UID,
    battery_kwh: float = 300.0,
    power_kw: tuple[float, float] = (10.0, 150.0),
    can_pause: bool = True,
) -> JsonObject:
    """Return a vehicle. `macs`: one per inlet. `power_kw`: least and most.

    `mac_shape` says where the MAC stands: `chargingPorts`, `evMacAddress`, both.
    """
    row: JsonObject = {
        "id": vehicle_id,
        "name": vehicle_id,
        "evModel": "Stand-in city bus",
        "licensePlate": f"X-{vehicle_id}",
        "locationUid": location_uid,
        "fullChargeEnergykWh": battery_kwh,
        "maxChargePowerkW": power_kw[1],
        "minChargePowerkW": power_kw[0],
        "minPreconditioningPowerkW": power_kw[0],
        "supportsPauseResume": can_pause,
        "enableChargeScheduling": True,
        "consumption": 1100,
    }
    if macs and mac_shape in ("ports", "both"):
        row["chargingPorts"] = [
            {"macAddress": mac, "type": "CCS2", "inactive": False} for mac in macs
        ]
    if macs and mac_shape in ("deprecated", "both"):
        row["evMacAddress"] = macs[0]
    return row | dict(extra or {})


def schedule_json(
    vehicle_id: str,
    arrival: datetime,
    departure: datetime,
    extra: Mapping[str, Any] | None = None,
    *,
    socs: tuple[float | None, float] = (30.0, 80.0),
    location_uid: str = LOCATION_UID,
) -> JsonObject:
    """Return a schedule; `socs`: at arrival (None: not given) and wanted, percent.

    Without `id` in `extra` the cloud gives one when it loads the row.
    """
    row: JsonObject = {
        "evId": vehicle_id,
        "locationUid": location_uid,
        "plannedArrivalTime": iso_ms(arrival),
        "plannedDepartureTime": iso_ms(departure),
        "targetSoC": socs[1],
    }
    if socs[0] is not None:
        row["startSoC"] = socs[0]
    return row | dict(extra or {})


def power_group_json(group_id: str, extra: Mapping[str, Any] | None = None) -> JsonObject:
    """Return a group of stations behind one fuse (chargeye.md 10)."""
    row: JsonObject = {
        "groupId": group_id,
        "limitationType": "InputCurrent",
        "maxCurrentA": 400,
        "actualSiteFuseSize": 630,
        "defaultOfflinePowerKw": 10,
    }
    return row | dict(extra or {})


def v2icp_json(vehicle_id: str, mac: str, moment: datetime) -> JsonObject:
    """Return the last V2ICP exchange of a bus (chargeye.md 13.3)."""
    return {
        "evMacAddress": mac,
        "vin": f"VIN{vehicle_id.upper():0>14.14}",
        "locationUid": LOCATION_UID,
        "odometer": 123456,
        "passwordId": "pw-1",
        "timestamp": iso_ms(moment),
        "v2icp": {"seq": 0, "evccid": mac.replace(":", "")},
        "response": {"seq": 0},
    }


def mac_of(number: int) -> str:
    """Return the documented notation of the MAC of the stand-in's bus `number`."""
    return f"04:E7:7E:00:{number // 256:02X}:{number % 256:02X}"


def sample_depot(now: datetime) -> dict[str, list[JsonObject]]:
    """Return lists for `ChargEyeStandin.load`: each doubtful shape once.

    bus-1 to bus-6 differ in MAC and `locationUid` shape, unknown properties, null
    numbers and missing fields; each has a slot, bus-1 a past and a next one too.
    """
    return {
        "locations": [_location()],
        "vehicles": _vehicles(now),
        "schedules": _schedules(now),
        "stations": _stations(now),
        "transactions": _transactions(now),
        "power_groups": [power_group_json("group-1")],
    }


def load_sample(cloud: ChargEyeStandin) -> None:
    """Load the sample depot at the present moment of the cloud's clock."""
    cloud.load(**sample_depot(cloud.clock.now()))


def _location() -> JsonObject:
    return {
        "id": LOCATION_UID,
        "locationId": "customer reference",
        "name": "Stand-in depot",
        "city": None,
        "countryCode": "FI",
        "lat": 60.98,
        "lng": 25.66,
    }


def _vehicles(now: datetime) -> list[JsonObject]:
    spare_port = {"macAddress": mac_of(41), "type": "MCS", "inactive": True}
    ports = [{"macAddress": mac_of(4), "type": "CCS2"}, spare_port]
    odd = {"futureField": {"x": [1, None]}, "consumption": None, "vin": "VIN-OF-BUS-5"}
    bare: JsonObject = {"id": "bus-6", "locationUid": None, "chargingPorts": []}
    v2icp = {"v2icp": v2icp_json("bus-2", mac_of(2), now)}
    two_homes = [LOCATION_UID, "depot-2"]
    return [
        vehicle_json("bus-1", macs=[mac_of(1)]),
        vehicle_json("bus-2", v2icp, macs=[mac_of(2)], mac_shape="both"),
        vehicle_json(
            "bus-3",
            macs=[mac_of(3)],
            mac_shape="deprecated",
            location_uid=two_homes,
            can_pause=False,
        ),
        vehicle_json("bus-4", {"chargingPorts": ports}, location_uid=[LOCATION_UID]),
        vehicle_json("bus-5", odd, macs=[mac_of(5)], location_uid=None),
        bare,
    ]


def _schedules(now: datetime) -> list[JsonObject]:
    hour = timedelta(hours=1)
    day = 24 * hour
    rows = [
        schedule_json(f"bus-{n}", now - hour / 4, now + (6 + n) * hour) for n in range(1, 6)
    ]
    rows.append(schedule_json("bus-1", now - day, now - 14 * hour))
    rows.append(schedule_json("bus-1", now + day, now + day + 8 * hour))
    rows.append(schedule_json("bus-6", now + hour, now + 9 * hour, socs=(None, 90.0)))
    every_night = {"recurrenceRule": "FREQ=DAILY"}
    rows.append(schedule_json("bus-2", now, now + 8 * hour, every_night))
    return rows


def _stations(now: datetime) -> list[JsonObject]:
    running = _transactions(now)[0]
    connectors: list[JsonObject] = [
        {"connectorId": "1", "status": "Charging", "lastTransaction": running},
        {"connectorId": "2", "status": "Available", "latestTransaction": running},
        {"connectorId": "CP-1_connector3", "type": "CCS", "lastTransaction": None},
    ]
    return [
        {
            "stationId": "CP-1",
            "name": "Stand-in station",
            "status": "Operative",
            "onlineStatus": "Online",
            "locationUid": LOCATION_UID,
            "maxPowerKw": 0,
            "acDcPowerRatio": 0.87,
            "labels": None,
            "connectors": connectors,
        }
    ]


def _transactions(now: datetime) -> list[JsonObject]:
    return [
        {
            "txId": f"00000000-0000-4000-8000-{number:012d}",
            "stationId": "CP-1",
            "locationUid": LOCATION_UID,
            "evseId": "1",
            "status": "Charging" if number == 0 else "Ended",
            "startTime": iso_ms(now - timedelta(hours=12 * number, minutes=15)),
            "evMacAddress": mac_of(1),
            "chargedEnergyKwh": 12.5 * number or None,
            "power": None,
            "sequenceNumber": 3,
        }
        for number in range(12)
    ]
