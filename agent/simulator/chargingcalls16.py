"""The answers of a virtual 1.6 station that concern power: profiles, start and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.answers import REJECTED
from agent.simulator.profile_rules import STATION
from agent.simulator.quirks import refusal
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from agent.simulator.answers import Handler
    from agent.simulator.core16 import Core16
    from agent.simulator.hardware import Outlet
    from agent.simulator.sessions16 import Sessions16

DURATION_MAX_S = 14 * 86_400  # a composite of more than two weeks is cut
NOISE = 1.0000428  # as single-precision sums look in the field
STARTABLE = ("Available", "Preparing", "Finishing", "Reserved")


class ChargingCalls16:
    """Answers about charging profiles and remote start and stop."""

    def __init__(self, core: Core16, sessions: Sessions16) -> None:
        """Answer for `core`, acting through `sessions`."""
        self._core = core
        self._sessions = sessions

    def handlers(self) -> dict[str, Handler]:
        """List the actions that are answered here."""
        return {
            "SetChargingProfile": self._set_profile,
            "ClearChargingProfile": self._clear_profile,
            "GetCompositeSchedule": self._composite,
            "RemoteStartTransaction": self._remote_start,
            "RemoteStopTransaction": self._remote_stop,
        }

    def _set_profile(self, payload: dict[str, Any]) -> dict[str, Any]:
        core = self._core
        connector = int(payload["connectorId"])
        body = dict(payload["csChargingProfiles"])
        if connector != STATION and connector not in core.outlets:
            raise CallError("PropertyConstraintViolation", f"no connector {connector}")
        if "refuse-profiles" in core.faults or (
            "refuse-zero" in core.faults and _has_zero(body)
        ):
            core.profiles.last_refusal = "refused by a fault of the simulation"
            return REJECTED
        refused = refusal(core.faults, connector, body, core.profiles.installed, core.now())
        if refused is not None:
            core.note("own", "REFUSED", "SetChargingProfile", refused[2])
            return {"status": refused[0]}
        core.advance()
        outlet = core.outlets.get(connector)
        running = None if outlet is None else outlet.transaction_id
        status = core.profiles.set_profile(connector, body, core.now(), running)
        if status != "Accepted":
            core.note("own", "REFUSED", "SetChargingProfile", core.profiles.last_refusal)
        self._sessions.tick()
        return {"status": status}

    def _clear_profile(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._core.advance()
        status = self._core.profiles.clear(
            profile_id=payload.get("id"),
            connector=payload.get("connectorId"),
            purpose=payload.get("chargingProfilePurpose"),
            stack_level=payload.get("stackLevel"),
        )
        self._sessions.tick()
        return {"status": status}

    def _composite(self, payload: dict[str, Any]) -> dict[str, Any]:
        core = self._core
        connector = int(payload["connectorId"])
        outlet = core.outlets.get(connector)
        units = core.profiles.options.allowed_units
        unit = payload.get("chargingRateUnit") or ("W" if "Power" in units else "A")
        is_known = connector == STATION or outlet is not None
        if "composite-refused" in core.faults or not is_known:
            return REJECTED
        if {"W": "Power", "A": "Current"}.get(unit) not in units:
            return REJECTED
        schedule = core.profiles.composite(
            connector,
            min(int(payload["duration"]), DURATION_MAX_S),
            unit,
            core.now(),
            None if outlet is None else core.running(outlet),
            rated_w=core.config.supply_w if outlet is None else outlet.rated_w,
            phases=core.config.phases,
        )
        if "composite-noise" in core.faults:
            for period in schedule["chargingSchedulePeriod"]:
                period["limit"] *= NOISE
        return {
            "status": "Accepted",
            "connectorId": connector,
            "scheduleStart": schedule["startSchedule"],
            "chargingSchedule": schedule,
        }

    def _remote_start(self, payload: dict[str, Any]) -> dict[str, Any]:
        token = str(payload["idTag"])
        profile = payload.get("chargingProfile")
        outlet = self._startable(payload.get("connectorId"))
        if outlet is None:
            return REJECTED
        if profile is not None and (
            profile.get("chargingProfilePurpose") != "TxProfile"
            or "transactionId" in profile
        ):
            return REJECTED
        self._core.spawn(lambda: self._sessions.remote_start(outlet, token, profile))
        return {"status": "Accepted"}

    def _startable(self, connector: int | None) -> Outlet | None:
        free = [
            outlet
            for outlet in self._core.outlets.values()
            if outlet.transaction is None
            and outlet.is_operative
            and outlet.status in STARTABLE
            and connector in (None, outlet.connector)
        ]
        free.sort(key=lambda outlet: outlet.vehicle is None)  # a plugged one first
        return free[0] if free else None

    def _remote_stop(self, payload: dict[str, Any]) -> dict[str, Any]:
        transaction_id = int(payload["transactionId"])
        found = [
            outlet
            for outlet in self._core.outlets.values()
            if outlet.transaction_id == transaction_id
        ]
        if not found:
            return REJECTED
        self._core.spawn(lambda: self._stop_soon(found[0], transaction_id))
        return {"status": "Accepted"}

    async def _stop_soon(self, outlet: Outlet, transaction_id: int) -> None:
        if outlet.transaction_id == transaction_id:
            self._sessions.stop(outlet, "Remote")


def _has_zero(body: dict[str, Any]) -> bool:
    periods = body["chargingSchedule"]["chargingSchedulePeriod"]
    return any(period["limit"] == 0 for period in periods)
