"""The talk of ISO 15118 before power flows: needs told, a profile awaited, a curve told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import stamp
from agent.simulator.metering import AC_VOLTS, DC_VOLTS
from agent.simulator.rpc import CallError, LinkDown, NoAnswer

if TYPE_CHECKING:
    from agent.simulator.core2 import Core2, Visit
    from agent.simulator.hardware import Outlet
    from agent.simulator.vehicle import VirtualVehicle

PROFILE_WAIT_S = 60.0  # simulated; the vehicle waits no longer for its schedule
LOOK_S = 1.0
TUPLES_MAX = 12  # what many vehicles of ISO 15118-2 can hold
EV_VOLTS_MAX = 920.0
AC_EV_MIN_A = 6.0
BULK_SOC = 80
CURVE_S = 24 * 3600


class Needs2:
    """What an ISO 15118 vehicle at one of the outlets says through the station."""

    def __init__(self, core: Core2) -> None:
        """Speak for a station."""
        self._core = core

    async def settle(self, outlet: Outlet, visit: Visit) -> None:
        """Tell the needs, wait for a profile, tell the curve; then power may flow."""
        core, vehicle = self._core, outlet.vehicle
        if vehicle is None:
            return
        visit.needs = "told"
        try:
            answer = await core.call("NotifyEVChargingNeeds", self._needs(outlet, vehicle))
        except (CallError, NoAnswer, LinkDown) as problem:
            core.note("out", "UNHEARD", "NotifyEVChargingNeeds", str(problem))
            return
        if answer.get("status") in ("Accepted", "Processing"):
            await self._await_profile(outlet, visit)
        if not visit.is_over:
            await self.tell_curve(outlet)

    async def tell_curve(self, outlet: Outlet) -> None:
        """Send the curve that the vehicle means to follow: all that it may."""
        core = self._core
        start = core.now().replace(microsecond=0)
        vehicle = outlet.vehicle
        periods = core.store.composite_periods(
            outlet.connector,
            CURVE_S,
            "W",
            start,
            core.running(outlet),
            rated_w=min(
                outlet.rated_w, outlet.rated_w if vehicle is None else vehicle.max_w
            ),
            phases=outlet.phases,
        )
        ends = [each["startPeriod"] for each in periods[TUPLES_MAX:]]
        payload = {
            "timeBase": stamp(start),
            "evseId": outlet.connector,
            "chargingSchedule": {
                "id": 1,
                "startSchedule": stamp(start),
                "duration": min([CURVE_S, *ends]),
                "chargingRateUnit": "W",
                "chargingSchedulePeriod": periods[:TUPLES_MAX],
            },
        }
        await core.say("NotifyEVChargingSchedule", payload)

    async def _await_profile(self, outlet: Outlet, visit: Visit) -> None:
        core = self._core
        loop = asyncio.get_running_loop()
        until = core.now() + timedelta(seconds=PROFILE_WAIT_S)
        until_real_s = loop.time() + core.config.needs_wait_real_s
        while not visit.is_over and not self._has_profile(outlet, visit):
            if core.now() >= until and loop.time() >= until_real_s:
                core.note("own", "NO PROFILE", "NotifyEVChargingNeeds", outlet.connector)
                return
            await core.clock.sleep(LOOK_S)

    def _has_profile(self, outlet: Outlet, visit: Visit) -> bool:
        return any(
            each.connector == outlet.connector
            and each.profile.purpose == "TxProfile"
            and each.profile.transaction_id == visit.transaction_id
            for each in self._core.store.installed
        )

    def _needs(self, outlet: Outlet, vehicle: VirtualVehicle) -> dict[str, Any]:
        needs: dict[str, Any] = {
            "requestedEnergyTransfer": "DC" if outlet.dc else _ac(outlet)
        }
        if vehicle.departure is not None:
            needs["departureTime"] = stamp(vehicle.departure)
        energy_wh = max(0, round(vehicle.needed_wh))
        if outlet.dc:
            needs["dcChargingParameters"] = {
                "evMaxCurrent": round(vehicle.max_w / DC_VOLTS),
                "evMaxVoltage": round(EV_VOLTS_MAX),
                "evMaxPower": round(vehicle.max_w),
                "energyAmount": energy_wh,
                "evEnergyCapacity": round(vehicle.capacity_wh),
                "fullSoC": 100,
                "bulkSoC": BULK_SOC,
            }
            if vehicle.tells_soc and "no-soc" not in self._core.faults:
                soc = int(vehicle.soc_percent)
                needs["dcChargingParameters"]["stateOfCharge"] = soc
        else:
            needs["acChargingParameters"] = {
                "energyAmount": energy_wh,
                "evMinCurrent": round(AC_EV_MIN_A),
                "evMaxCurrent": round(vehicle.max_w / AC_VOLTS / outlet.phases),
                "evMaxVoltage": round(AC_VOLTS),
            }
        payload: dict[str, Any] = {
            "evseId": outlet.connector,
            "maxScheduleTuples": TUPLES_MAX,
            "chargingNeeds": needs,
        }
        if self._core.version == "2.1":
            payload["timestamp"] = stamp(self._core.now())
        return payload


def _ac(outlet: Outlet) -> str:
    names = {1: "AC_single_phase", 2: "AC_two_phase"}
    return names.get(outlet.phases, "AC_three_phase")
