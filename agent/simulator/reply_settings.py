"""Faults in how a station tells its settings, as changes of its replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Reply = dict[str, Any]
    ReplyChange = Callable[[str, Reply], Reply]

LONG_CHARACTERS = 2_000
CONNECTORS_MORE = 3
RATE_UNIT = "ChargingScheduleAllowedChargingRateUnit"


def _on_keys(write: Callable[[Reply], bool | None]) -> ReplyChange:
    """Make a change of each row of a GetConfiguration; False leaves the row out."""

    def change(action: str, reply: Reply) -> Reply:
        if action != "GetConfiguration":
            return reply
        rows = [dict(each) for each in reply.get("configurationKey", [])]
        kept = [each for each in rows if write(each) is not False]
        return {**reply, "configurationKey": kept}

    return change


def _odd_key(row: Reply) -> None:
    value = str(row["value"])
    if "," in value:
        row["value"] = f"[{value.replace(',', ', ')}]"
    row["key"] = str(row["key"]).lower()


def _hide(row: Reply) -> None:
    if row["key"] == "SupportedFeatureProfiles":
        row["value"] = str(row["value"]).replace("SmartCharging,", "")


def _miscount(row: Reply) -> None:
    if row["key"] == "NumberOfConnectors":
        row["value"] = str(int(str(row["value"])) + CONNECTORS_MORE)


def _one(row: Reply) -> None:
    if row["key"] == "MeterValuesSampledDataMaxLength":
        row["value"] = "1"


def _long(action: str, reply: Reply) -> Reply:
    if action != "GetConfiguration":
        return reply
    long = {"key": "VendorNote", "readonly": True, "value": "x" * LONG_CHARACTERS}
    return {**reply, "configurationKey": [*reply.get("configurationKey", []), long]}


def _empty(action: str, reply: Reply) -> Reply:
    return {} if action == "GetConfiguration" else reply


def _reboot_required(action: str, reply: Reply) -> Reply:
    if action == "ChangeConfiguration" and reply.get("status") == "Accepted":
        return {"status": "RebootRequired"}
    if action == "SetVariables":
        rows = [
            {**each, "attributeStatus": "RebootRequired"}
            if each["attributeStatus"] == "Accepted"
            else each
            for each in reply["setVariableResult"]
        ]
        return {"setVariableResult": rows}
    return reply


def _amperes(action: str, reply: Reply) -> Reply:
    if action != "GetVariables":
        return reply
    rows = [
        {**each, "attributeValue": "A"} if each["variable"]["name"] == "RateUnit" else each
        for each in reply["getVariableResult"]
    ]
    return {"getVariableResult": rows}


SETTING_CHANGES: dict[str, ReplyChange] = {
    "over-long-values": _long,
    "hides-smart-charging": _on_keys(_hide),
    "no-rate-unit": _on_keys(lambda row: row["key"] != RATE_UNIT),
    "wrong-connector-count": _on_keys(_miscount),
    "one-measurand": _on_keys(_one),
    "odd-keys": _on_keys(_odd_key),
    "empty-configuration": _empty,
    "reboot-required": _reboot_required,
    "declares-amperes": _amperes,
}
"""By fault: how it changes a reply."""
