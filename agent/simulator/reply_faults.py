"""Faults in how a virtual station answers calls, whatever the version.

First what keeps a call from its handler, then what is done to the handler's reply.
"""

from __future__ import annotations

import asyncio
import string
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.simulator.clock import parse_stamp, stamp
from agent.simulator.keys16 import MEASURAND_KEYS
from agent.simulator.profile_rules import VOLTS
from agent.simulator.reply_settings import SETTING_CHANGES
from agent.simulator.rpc import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from agent.simulator.core import Core

    Reply = dict[str, Any]
    Handle = Callable[[str, Any], Reply]

ACCEPTED: dict[str, Any] = {"status": "Accepted"}
REJECTED: dict[str, Any] = {"status": "Rejected"}
LATE_FACTOR = 15  # late answers are so many times as late as slow ones: 45 s
SETTLING_S = 1.0  # real
EFFECT_S = 30.0  # simulated, with slow-profiles
CLOBBER_S = 300.0  # simulated
CLOBBERED_INTERVAL = "900"
PERIODS_MAX = 6  # more restart the station with restart-on-long-schedule
MEASURANDS_MAX = 3  # more restart it with dies-of-measurands
RESTART_PAUSE = timedelta(minutes=2)  # after a stop, with restart-breaks
DEATH_S = 5.0  # simulated, between the fatal call and the restart
LOCAL_AHEAD = timedelta(hours=2)
SET, CLEAR, COMPOSITE = "SetChargingProfile", "ClearChargingProfile", "GetCompositeSchedule"
STARTS = ("RemoteStartTransaction", "RequestStartTransaction")
STOPS = ("RemoteStopTransaction", "RequestStopTransaction")
WRITES = ("ChangeConfiguration", "SetVariables")


class Silent(Exception):  # noqa: N818 (an outcome, not an error)
    """The call is not answered."""


class ReplyFaults:
    """The faults of one station's answers."""

    def __init__(self, core: Core) -> None:
        """Spoil the answers of `core` as its faults order."""
        self._core = core
        self._stopped: dict[int, datetime] = {}
        self._changes = [
            each for name, each in SETTING_CHANGES.items() if name in core.faults
        ]

    async def reply(self, action: str, payload: Any, handle: Handle) -> Reply | None:
        """Answer a call by its handler and the faults; None is silence."""
        faults = self._core.faults
        if not faults or not isinstance(payload, dict):
            return handle(action, payload)
        try:
            self._link_faults(action, payload)
            early = self._early(action, payload)
        except Silent:
            return None
        if early is not None:
            return early
        if "slow-profiles" in faults and action in (SET, CLEAR):
            self._core.spawn(lambda: self._later(action, payload, handle))
            return ACCEPTED
        if action in STOPS:
            self._note_stop(payload)
        reply = self._changed(action, handle(action, payload))
        if "late-answers" in faults:
            await asyncio.sleep(LATE_FACTOR * self._core.config.slow_answer_real_s)
        return reply

    def _link_faults(self, action: str, payload: dict[str, Any]) -> None:
        """Keep silent, or drop the link, where a fault wants it."""
        core, faults = self._core, self._core.faults
        since_s = time.monotonic() - core.up_s
        is_polled = payload.get("requestedMessage") == "MeterValues"
        drops = ("crash-on-early-call" in faults and not core.is_accepted) or (
            "drop-when-polled" in faults and is_polled
        )
        if drops and core.rpc is not None:
            core.rpc.cut()
        is_silent = (
            drops
            or "deaf" in faults
            or ("slow-settling" in faults and since_s < SETTLING_S)
            or (
                "availability-zero-hangs" in faults
                and action == "ChangeAvailability"
                and not (payload.get("connectorId") or payload.get("evse"))
            )
        )
        if is_silent:
            raise Silent

    def _early(self, action: str, payload: dict[str, Any]) -> Reply | None:
        if action == SET:
            return self._early_profile(payload)
        if action in STARTS:
            return self._early_start(payload)
        if action in WRITES:
            return self._early_write(action, payload)
        faults = self._core.faults
        if action == CLEAR and "clear-keeps" in faults:
            return ACCEPTED
        if action == CLEAR and "refuse-clear-zero" in faults:
            found = {**payload, **payload.get("chargingProfileCriteria", {})}
            has_one = found.get("connectorId") or found.get("evseId") or found.get("id")
            has_one = has_one or found.get("chargingProfileId")
            return None if has_one else {"status": "Unknown"}
        if action in STOPS and "refuse-remote-stop" in faults:
            return REJECTED
        return None

    def _early_profile(self, payload: dict[str, Any]) -> Reply | None:
        core, faults = self._core, self._core.faults
        if "schema-of-1.6" in faults and core.config.is_2x:
            raise CallError("FormatViolation", "csChargingProfiles is missing")
        place = payload.get("connectorId", payload.get("evseId"))
        outlet = core.outlets.get(place or 0)
        if "refuse-unplugged" in faults and outlet is not None and outlet.vehicle is None:
            return REJECTED
        schedules = list(_schedules(payload))
        most = max((len(each["chargingSchedulePeriod"]) for each in schedules), default=0)
        if "restart-on-long-schedule" in faults and most > PERIODS_MAX:
            core.spawn(self._die)
            raise Silent
        if "start-as-local-time" in faults:
            for each in schedules:
                if "startSchedule" in each:
                    moment = parse_stamp(each["startSchedule"]) - LOCAL_AHEAD
                    each["startSchedule"] = stamp(moment)
        return None

    def _early_start(self, payload: dict[str, Any]) -> Reply | None:
        core, faults = self._core, self._core.faults
        token = payload.get("idTag") or payload.get("idToken", {}).get("idToken", "")
        connector = payload.get("connectorId", payload.get("evseId")) or 1
        outlet = core.outlets.get(connector)
        vehicle = None if outlet is None else outlet.vehicle
        if "no-connector-in-start" in faults and "connectorId" in payload:
            return REJECTED
        if "hex-tags-only" in faults and not set(token) <= set(string.hexdigits):
            return REJECTED
        is_spent = vehicle is not None and core.spent.get(connector) is vehicle
        if "needs-unplug" in faults and is_spent:
            return REJECTED
        stopped = self._stopped.get(connector)
        is_soon = stopped is not None and core.clock.now() - stopped < RESTART_PAUSE
        if "restart-breaks" in faults and is_soon:
            core.spawn(self._drop)
            return ACCEPTED
        return None

    def _early_write(self, action: str, payload: dict[str, Any]) -> Reply | None:
        faults = self._core.faults
        for name, row, field in _written(action, payload):
            is_list = name in MEASURAND_KEYS or name.endswith("Measurands")
            count = str(row[field]).count(",") + 1
            if "refuse-ping-interval" in faults and name == "WebSocketPingInterval":
                return _refused(action, payload)
            if "one-measurand" in faults and is_list and count > 1:
                return _refused(action, payload)
            if "narrows-measurands" in faults and is_list:
                row[field] = str(row[field]).split(",")[0]
            if "dies-of-measurands" in faults and is_list and count > MEASURANDS_MAX:
                self._core.spawn(self._die)
            is_interval = name in ("MeterValueSampleInterval", "TxUpdatedInterval")
            if "interval-clobbered" in faults and is_interval:
                self._core.spawn(self._clobber)
        return None

    def _changed(self, action: str, reply: Reply) -> Reply:
        core, faults = self._core, self._core.faults
        if action == SET and reply.get("status") == "Accepted":
            core.limit_faults.spike(core.clock.now())
            if "keeps-last-profile" in faults:
                core.book.installed = core.book.installed[-1:]
        if action == COMPOSITE:
            self._change_composite(reply)
        for change in self._changes:
            reply = change(action, reply)
        return reply

    def _change_composite(self, reply: Reply) -> None:
        faults = self._core.faults
        schedule = reply.get("chargingSchedule") or reply.get("schedule")
        if schedule is None:
            return
        for period in schedule["chargingSchedulePeriod"]:
            if "composite-wrong" in faults:
                period["limit"] *= 0.5
            if "offered-in-watts" in faults and schedule["chargingRateUnit"] == "A":
                period["limit"] *= VOLTS * self._core.config.phases
        if "composite-empty" in faults:
            schedule["chargingSchedulePeriod"] = []

    def _note_stop(self, payload: dict[str, Any]) -> None:
        for connector, outlet in self._core.outlets.items():
            if outlet.transaction_id == payload.get("transactionId") and outlet.vehicle:
                self._core.spent[connector] = outlet.vehicle
                self._stopped[connector] = self._core.clock.now()

    async def _later(self, action: str, payload: dict[str, Any], handle: Handle) -> None:
        await self._core.clock.sleep(EFFECT_S)
        try:
            reply = handle(action, payload)
        except CallError as error:
            reply = {"status": str(error)}
        self._core.note("own", "TOOK EFFECT", action, reply)

    async def _die(self) -> None:
        await self._core.clock.sleep(DEATH_S)
        await self._core.restart("Reboot")

    async def _drop(self) -> None:
        if self._core.rpc is not None:
            self._core.rpc.cut()

    async def _clobber(self) -> None:
        await self._core.clock.sleep(CLOBBER_S)
        is_2x = self._core.config.is_2x
        name = "SampledDataCtrlr.TxUpdatedInterval" if is_2x else "MeterValueSampleInterval"
        self._core.put(name, CLOBBERED_INTERVAL)


def _schedules(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    body = payload.get("csChargingProfiles") or payload.get("chargingProfile") or {}
    found = body.get("chargingSchedule", [])
    yield from found if isinstance(found, list) else [found]


def _written(
    action: str, payload: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Give each setting that a call writes: its name, and where its value is."""
    if action == "ChangeConfiguration":
        yield str(payload.get("key")), payload, "value"
    for row in payload.get("setVariableData", []):
        yield str(row["variable"]["name"]), row, "attributeValue"


def _refused(action: str, payload: dict[str, Any]) -> Reply:
    if action == "ChangeConfiguration":
        return {"status": "NotSupported"}
    rows = [
        {
            "attributeStatus": "Rejected",
            "component": row["component"],
            "variable": row["variable"],
        }
        for row in payload["setVariableData"]
    ]
    return {"setVariableResult": rows}
