"""The answers of a virtual 2.x station that concern power: profiles, start and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.simulator.answers import ACCEPTED, REJECTED
from agent.simulator.clock import stamp
from agent.simulator.profile_form import ProfileRefused
from agent.simulator.profile_form2 import check_decimals
from agent.simulator.profile_rules import STATION
from agent.simulator.profiles2 import SOURCE, Outside, Verdict
from agent.simulator.quirks import refusal
from agent.simulator.rpc import CallError, LinkDown, NoAnswer

if TYPE_CHECKING:
    from agent.simulator.answers import Handler
    from agent.simulator.core2 import Core2
    from agent.simulator.hardware import Outlet
    from agent.simulator.sessions2 import Sessions2

DURATION_MAX_S = 14 * 86_400  # a composite of more than two weeks is cut
NOISE = 1.0000428  # as single-precision sums look in the field
REPORTED_PROFILES = 2  # in one ReportChargingProfiles
NOT_YET = "to be made"  # the id of a transaction that a request to start will make


class ChargingCalls2:
    """Answers about charging profiles and remote start and stop."""

    def __init__(self, core: Core2, sessions: Sessions2) -> None:
        """Answer for `core`, acting through `sessions`."""
        self._core = core
        self._sessions = sessions

    def handlers(self) -> dict[str, Handler]:
        """List the actions that are answered here."""
        return {
            "SetChargingProfile": self._set_profile,
            "ClearChargingProfile": self._clear_profile,
            "GetChargingProfiles": self._get_profiles,
            "GetCompositeSchedule": self._composite,
            "UpdateDynamicSchedule": self._update,
            "RequestStartTransaction": self._start,
            "RequestStopTransaction": self._stop,
        }

    def _set_profile(self, payload: dict[str, Any]) -> dict[str, Any]:
        core, evse, body = self._core, payload["evseId"], payload["chargingProfile"]
        check_decimals(body)
        verdict = self._fault_verdict(body)
        refused = refusal(core.faults, evse, body, core.store.installed, core.now())
        if refused is not None:
            verdict = Verdict("Rejected", *refused[1:])
        if verdict is None and evse != STATION and evse not in core.outlets:
            verdict = Verdict("Rejected", "UnknownEvse", f"no EVSE {evse}")
        if verdict is None:
            core.advance()
            verdict = core.store.set_profile(core.outside(evse), body, core.now())
        if verdict.status != "Accepted":
            core.note("own", "REFUSED", "SetChargingProfile", verdict.text)
            return verdict.body()
        self._sessions.tick()
        if body["chargingProfileKind"] == "Dynamic" and body.get("dynUpdateInterval"):
            core.spawn(lambda: self._pull(body["id"], body["dynUpdateInterval"]))
        if body["chargingProfilePurpose"] == "TxProfile":
            self._sessions.has_new_profile(core.outlets[evse])
        return ACCEPTED

    def _fault_verdict(self, body: dict[str, Any]) -> Verdict | None:
        faults = self._core.faults
        if "refuse-profiles" in faults or ("refuse-zero" in faults and _has_zero(body)):
            return Verdict("Rejected", "InvalidProfile", "a fault of the simulation")
        return None

    def _clear_profile(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._core.advance()
        status = self._core.store.clear(
            payload.get("chargingProfileId"), payload.get("chargingProfileCriteria", {})
        )
        self._sessions.tick()
        return {"status": status}

    def _get_profiles(self, payload: dict[str, Any]) -> dict[str, Any]:
        core = self._core
        found = core.store.report(payload.get("evseId"), payload["chargingProfile"])
        parts = [
            (evse, bodies[start : start + REPORTED_PROFILES])
            for evse, bodies in sorted(found.items())
            for start in range(0, len(bodies), REPORTED_PROFILES)
        ]
        if not parts:
            return {"status": "NoProfiles"}

        async def tell() -> None:
            for number, (evse, bodies) in enumerate(parts, start=1):
                report = {
                    "requestId": payload["requestId"],
                    "chargingLimitSource": SOURCE,
                    "evseId": evse,
                    "chargingProfile": bodies,
                    "tbc": number < len(parts),
                }
                await core.say("ReportChargingProfiles", report)

        core.spawn(tell)
        return ACCEPTED

    def _composite(self, payload: dict[str, Any]) -> dict[str, Any]:
        core, evse = self._core, payload["evseId"]
        outlet = core.outlets.get(evse)
        units = core.store.options.units
        unit = payload.get("chargingRateUnit") or ("W" if "W" in units else "A")
        if evse != STATION and outlet is None:
            return Verdict("Rejected", "UnknownEvse", f"no EVSE {evse}").body()
        if "composite-refused" in core.faults:
            return REJECTED
        if unit not in units:
            return Verdict("Rejected", "UnsupportedRateUnit", unit).body()
        start = core.now().replace(microsecond=0)
        duration_s = min(payload["duration"], DURATION_MAX_S)
        periods = core.store.composite_periods(
            evse,
            duration_s,
            unit,
            start,
            None if outlet is None else core.running(outlet),
            rated_w=core.config.supply_w if outlet is None else outlet.rated_w,
            phases=core.config.phases,
        )
        if "composite-noise" in core.faults:
            for period in periods:
                period["limit"] *= NOISE
        schedule = {
            "evseId": evse,
            "duration": duration_s,
            "scheduleStart": stamp(start),
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        }
        return {"status": "Accepted", "schedule": schedule}

    def _update(self, payload: dict[str, Any]) -> dict[str, Any]:
        core = self._core
        core.advance()
        limit = payload["scheduleUpdate"].get("limit")
        verdict = core.store.update(payload["chargingProfileId"], limit, core.now())
        self._sessions.tick()
        return verdict.body()

    async def _pull(self, profile_id: int, interval_s: float) -> None:
        """Ask for the limit of a Dynamic profile again and again while it is there."""
        core = self._core
        while True:
            await core.clock.sleep(interval_s)
            kinds = {
                each.profile.profile_id: each.profile.kind for each in core.store.installed
            }
            if kinds.get(profile_id) != "Dynamic":
                return
            try:
                question = {"chargingProfileId": profile_id}
                answer = await core.call("PullDynamicScheduleUpdate", question)
            except (CallError, NoAnswer, LinkDown):
                continue
            update = answer.get("scheduleUpdate")
            if answer.get("status") == "Accepted" and isinstance(update, dict):
                core.advance()
                core.store.update(profile_id, update.get("limit"), core.now())
                self._sessions.tick()

    def _start(self, payload: dict[str, Any]) -> dict[str, Any]:
        core, profile = self._core, payload.get("chargingProfile")
        outlet = self._startable(payload.get("evseId"))
        if outlet is None:
            return REJECTED
        if profile is not None:
            refusal = self._refusal(outlet, profile)
            if refusal is not None:
                return refusal.body()
        token, remote_id = payload["idToken"], payload["remoteStartId"]
        core.spawn(lambda: self._sessions.remote_start(outlet, token, remote_id, profile))
        visit = core.visit(outlet)
        if visit is not None and visit.is_begun:
            return {**ACCEPTED, "transactionId": visit.transaction_id}
        return ACCEPTED

    def _refusal(self, outlet: Outlet, body: dict[str, Any]) -> Verdict | None:
        """Tell why a profile that comes with a request to start is not good."""
        core = self._core
        check_decimals(body)
        if "transactionId" in body or body["chargingProfilePurpose"] != "TxProfile":
            text = "no TxProfile without transactionId"
            return Verdict("Rejected", "InvalidProfile", text)
        outside = Outside(evse=outlet.connector, transaction_id=NOT_YET)
        try:
            core.store.judge(outside, {**body, "transactionId": NOT_YET}, core.now())
        except ProfileRefused as refusal:
            return Verdict("Rejected", refusal.reason, str(refusal))
        return self._fault_verdict(body)

    def _startable(self, evse: int | None) -> Outlet | None:
        free = []
        for outlet in self._core.outlets.values():
            visit = self._core.visit(outlet)
            is_taken = visit is not None and visit.is_authorized
            if outlet.is_operative and not is_taken and evse in (None, outlet.connector):
                free.append(outlet)
        free.sort(key=lambda outlet: outlet.vehicle is None)  # a plugged one first
        return free[0] if free else None

    def _stop(self, payload: dict[str, Any]) -> dict[str, Any]:
        transaction_id = payload["transactionId"]
        outlets = self._core.outlets.values()
        found = [each for each in outlets if each.transaction_id == transaction_id]
        if not found:
            return Verdict("Rejected", "TxNotFound", "no such transaction").body()
        self._core.spawn(lambda: self._stop_soon(found[0], transaction_id))
        return ACCEPTED

    async def _stop_soon(self, outlet: Outlet, transaction_id: str) -> None:
        if outlet.transaction_id == transaction_id:
            self._sessions.deauthorize(outlet, "RemoteStop", "Remote")


def _has_zero(body: dict[str, Any]) -> bool:
    return any(
        period.get("limit") == 0
        for schedule in body["chargingSchedule"]
        for period in schedule["chargingSchedulePeriod"]
    )
