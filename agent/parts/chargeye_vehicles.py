"""Operations on ChargEye's vehicle registry: show, put, patch, enrol, V2ICP wishes.

Nothing is written to the registry without an operator (ocpp-depot.md A10.7), and an
address that two vehicles would share is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from agent.cloud.chargeye_parse import read_text, read_vehicle, read_vehicles
from agent.cloud.chargeye_writes import (
    HVAC_MODES,
    editable_vehicle,
    v2icp_parameters,
    vehicle_fields,
)
from agent.cloud.http import Json
from agent.control import views
from agent.control.operations import (
    Arguments,
    OperationRefused,
    Operations,
    flag_of,
    number_of,
    text_of,
)
from agent.domain.identity import Vehicle, any_mac, mac_text
from agent.domain.ids import MacAddress, VehicleId
from agent.parts.chargeye_desk import Desk

log = structlog.get_logger()

PORT_TYPE = "CCS2"
"""The only plug type that is known for ``chargingPorts`` (5.1)."""
AMBIENT_C_MAX = 60.0


class VehicleOperations:
    """The operations ``vehicles.*``."""

    def __init__(self, desk: Desk) -> None:
        """Prepare."""
        self._desk = desk

    def add_to(self, operations: Operations) -> None:
        """Offer all of them."""
        operations.add("vehicles.show", self.show)
        operations.add("vehicles.put", self.put)
        operations.add("vehicles.patch", self.patch)
        operations.add("vehicles.enrol", self.enrol)
        operations.add("vehicles.v2icp", self.v2icp)

    async def show(self, arguments: Arguments) -> Json:
        """One vehicle: ChargEye's own row, and where the daemon sees it."""
        vehicle_id = text_of(arguments, "id")
        row = await self._desk.ops.vehicle(vehicle_id)
        known = next(
            (
                item
                for item in views.vehicles(self._desk.ground.depot)
                if item["vehicle_id"] == vehicle_id
            ),
            None,
        )
        return {"vehicle": row, "here": known}

    async def put(self, arguments: Arguments) -> Json:
        """Create a vehicle or replace all its fields; both are shown first."""
        vehicle_id = text_of(arguments, "id")
        fields = _checked(arguments, "vehicle")
        known = await self._known(vehicle_id)
        if not flag_of(arguments, "apply"):
            before = editable_vehicle(known) if known is not None else {}
            cleared = sorted(set(before) - set(fields))
            return {"id": vehicle_id, "exists": known is not None, "cleared": cleared}
        await self._refuse_taken(fields, vehicle_id)
        written = await self._desk.ops.put_vehicle(vehicle_id, fields)
        self._wrote(vehicle_id, fields)
        return {"id": written, "exists": known is not None, "cleared": []}

    async def patch(self, arguments: Arguments) -> Json:
        """Change some fields; what they were and what they are now."""
        vehicle_id = text_of(arguments, "id")
        fields = _checked(arguments, "fields")
        if not fields:
            raise OperationRefused("nothing shall change: name a field and its value")
        before = await self._desk.ops.vehicle(vehicle_id)
        await self._refuse_taken(fields, vehicle_id)
        await self._desk.ops.patch_vehicle(vehicle_id, fields)
        self._wrote(vehicle_id, fields)
        changes = {name: [before.get(name), value] for name, value in fields.items()}
        return {"id": vehicle_id, "changes": changes}

    async def v2icp(self, arguments: Arguments) -> Json:
        """Set what the depot asks a bus for; both interiorHvac and preconditioning go."""
        vehicle_id = text_of(arguments, "id")
        hvac = text_of(arguments, "hvac")
        if hvac not in HVAC_MODES:
            raise OperationRefused(f"hvac must be one of {', '.join(HVAC_MODES)}")
        ambient_c = None
        if arguments.get("ambient") is not None:
            ambient_c = number_of(
                arguments, "ambient", low=-AMBIENT_C_MAX, high=AMBIENT_C_MAX
            )
        before = await self._desk.ops.vehicle(vehicle_id)
        fields = v2icp_parameters(
            preconditioning=flag_of(arguments, "preconditioning"),
            hvac=hvac,
            ambient_c=ambient_c,
            known=before.get("v2icpParameters"),
        )
        await self._desk.ops.patch_vehicle(vehicle_id, fields)
        self._wrote(vehicle_id, fields)
        return {"id": vehicle_id, **fields}

    # --- enrolment ------------------------------------------------------------------------

    async def enrol(self, arguments: Arguments) -> Json:
        """Give a vehicle a charging port; without ``apply`` only what would be done."""
        vehicle_id = text_of(arguments, "vehicle")
        mac = any_mac(text_of(arguments, "mac"))
        if mac is None:
            raise OperationRefused(
                f"{text_of(arguments, 'mac')!r} is no vehicle's MAC: 12 hex digits, not a "
                "charger's own, such as 04:E7:7E:00:F0:FA"
            )
        seen = await self._seen(mac)
        if not seen and not flag_of(arguments, "force"):
            raise OperationRefused(
                f"no station has reported {mac_text(mac)} as unknown: see "
                "`depot-agent vehicles --candidates`, or use --force"
            )
        row = await self._desk.ops.vehicle(vehicle_id)
        others = await self._registry()
        self._refuse_holders(mac, vehicle_id, others)
        ports, change = _ports_with(row, mac)
        warnings = [
            f"vehicle {item.vehicle_id} spoke V2ICP from this address under the VIN "
            f"{item.v2icp.vin or 'not told'}: then neither will match"
            for item in others
            if item.vehicle_id != vehicle_id
            and item.v2icp is not None
            and item.v2icp.mac == mac
        ]
        found: Json = {
            "mac": mac_text(mac),
            "vehicle_id": vehicle_id,
            "name": read_text(row.get("name")) or None,
            "plate": read_text(row.get("licensePlate")) or None,
            "seen": seen,
            "change": change,
            "charging_ports": ports,
            "warnings": warnings,
            "applied": False,
        }
        if flag_of(arguments, "apply"):
            await self._desk.ops.patch_vehicle(vehicle_id, {"chargingPorts": ports})
            log.info("vehicle_enrolled", vehicle_id=vehicle_id, mac=mac_text(mac))
            self._desk.look_again()
            found["applied"] = True
        return found

    async def _seen(self, mac: MacAddress) -> list[Json]:
        """Where and when stations reported the address."""
        rows = await self._desk.ground.store.candidates()
        return [dict(row) for row in views.candidates([c for c in rows if c.mac == mac])]

    def _refuse_holders(
        self, mac: MacAddress, vehicle_id: str, others: Sequence[Vehicle]
    ) -> None:
        for item in others:
            has = mac in item.macs | item.idle_macs or item.fallback_mac == mac
            if has and item.vehicle_id != vehicle_id:
                raise OperationRefused(
                    f"vehicle {item.vehicle_id} ({item.name or 'no name'}) has "
                    f"{mac_text(mac)} already: take it off there first",
                    status=409,
                )

    async def _refuse_taken(self, fields: Json, vehicle_id: str) -> None:
        """An address in a body must not be another vehicle's."""
        if not {"chargingPorts", "evMacAddress"} & set(fields):
            return
        wished, _ = read_vehicle({"id": vehicle_id, **fields}, None)
        fallback = {wished.fallback_mac} if wished.fallback_mac is not None else set()
        macs = wished.macs | wished.idle_macs | fallback
        others = await self._registry() if macs else []
        for mac in sorted(macs):
            self._refuse_holders(mac, vehicle_id, others)

    async def _registry(self) -> list[Vehicle]:
        """The registry as it is now: the daemon's copy may be minutes old."""
        try:
            read = read_vehicles(await self._desk.ops.vehicles())
        except ValueError as error:
            raise OperationRefused(
                f"ChargEye's vehicle list: {error}", status=502
            ) from error
        return [vehicle for vehicle, _ in read.vehicles]

    async def _known(self, vehicle_id: str) -> Json | None:
        rows = {vehicle.vehicle_id for vehicle in await self._registry()}
        if VehicleId(vehicle_id) not in rows:
            return None
        return await self._desk.ops.vehicle(vehicle_id)

    def _wrote(self, vehicle_id: str, fields: Json) -> None:
        log.info("vehicle_written", vehicle_id=vehicle_id, fields=sorted(fields))
        self._desk.look_again()


def _checked(arguments: Arguments, name: str) -> Json:
    try:
        return vehicle_fields(arguments.get(name), force=flag_of(arguments, "force"))
    except ValueError as error:
        raise OperationRefused(str(error)) from error


def _ports_with(row: Json, mac: MacAddress) -> tuple[list[Any], str]:
    """The vehicle's ports with this one, and what is done in words.

    Ports as they are, with all that is not known of them. A vehicle that has only the
    deprecated single address gets it as a port too, for ports supersede it (5.1).
    """
    given = row.get("chargingPorts")
    ports: list[Any] = [
        dict(port) if isinstance(port, dict) else port
        for port in (given if isinstance(given, list) else [])
    ]
    for port in ports:
        if isinstance(port, dict) and any_mac(read_text(port.get("macAddress"))) == mac:
            if port.get("inactive") is not True:
                raise OperationRefused(
                    f"vehicle {row.get('id')} has {mac_text(mac)} already", status=409
                )
            port["inactive"] = False
            return ports, "its inactive port is put in use again"
    words = "a charging port is added"
    old = any_mac(read_text(row.get("evMacAddress")))
    if not ports and old is not None and old != mac:
        ports.append(_port(old))
        words += f", and its older address {mac_text(old)} becomes a port as well"
    ports.append(_port(mac))
    return ports, words


def _port(mac: MacAddress) -> Json:
    return {"macAddress": mac_text(mac), "type": PORT_TYPE, "inactive": False}
