"""Every action of every version: a station's own ones are answered, ours are refused."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import orjson
import pytest
from ocpp.v16.enums import Action as Action16
from ocpp.v21.enums import Action as Action21
from ocpp.v201.enums import Action as Action201

from agent.stations import framing, schemas
from agent.stations.link import Reply
from agent.stations.schemas import FOLDERS, SEND_ONLY, V16, V21, V201
from agent.stations.v2 import HANDLERS as HANDLERS_2
from agent.stations.v16 import HANDLERS as HANDLERS_16
from agent.stations.v16 import Adapter16

from .bench2 import Bench2, breach_of_answer, message
from .conftest import STATION, RecordingSink, StillClock

VERSIONS = (V16, V201, V21)
OURS_16 = {
    "CancelReservation", "CertificateSigned", "ChangeAvailability", "ChangeConfiguration",
    "ClearCache", "ClearChargingProfile", "DeleteCertificate", "ExtendedTriggerMessage",
    "GetCompositeSchedule", "GetConfiguration", "GetDiagnostics",
    "GetInstalledCertificateIds", "GetLocalListVersion", "GetLog", "InstallCertificate",
    "RemoteStartTransaction", "RemoteStopTransaction", "ReserveNow", "Reset",
    "SendLocalList", "SetChargingProfile", "SignedUpdateFirmware", "TriggerMessage",
    "UnlockConnector", "UpdateFirmware",
}  # fmt: skip
OURS_201 = {
    "CancelReservation", "CertificateSigned", "ChangeAvailability", "ClearCache",
    "ClearChargingProfile", "ClearDisplayMessage", "ClearVariableMonitoring", "CostUpdated",
    "CustomerInformation", "DeleteCertificate", "GetBaseReport", "GetChargingProfiles",
    "GetCompositeSchedule", "GetDisplayMessages", "GetInstalledCertificateIds",
    "GetLocalListVersion", "GetLog", "GetMonitoringReport", "GetReport",
    "GetTransactionStatus", "GetVariables", "InstallCertificate", "PublishFirmware",
    "RequestStartTransaction", "RequestStopTransaction", "ReserveNow", "Reset",
    "SendLocalList", "SetChargingProfile", "SetDisplayMessage", "SetMonitoringBase",
    "SetMonitoringLevel", "SetNetworkProfile", "SetVariableMonitoring", "SetVariables",
    "TriggerMessage", "UnlockConnector", "UnpublishFirmware", "UpdateFirmware",
}  # fmt: skip
OURS_21 = OURS_201 | {
    "AFRRSignal", "AdjustPeriodicEventStream", "ChangeTransactionTariff", "ClearDERControl",
    "ClearTariffs", "GetDERControl", "GetPeriodicEventStream", "GetTariffs",
    "NotifyAllowedEnergyTransfer", "RequestBatterySwap", "SetDERControl",
    "SetDefaultTariff", "UpdateDynamicSchedule", "UsePriorityCharging",
}  # fmt: skip
OURS = {V16: OURS_16, V201: OURS_201, V21: OURS_21}
"""What only a central system sends. The standard has NotifyWebPaymentStarted among them;
several stations send it all the same, so it is answered."""
THEIRS = {V16: set(HANDLERS_16), V201: set(HANDLERS_2[V201]), V21: set(HANDLERS_2[V21])}
LISTED = {
    V16: {str(item.value) for item in Action16},
    V201: {str(item.value) for item in Action201},
    V21: {str(item.value) for item in Action21} | {SEND_ONLY},
}
"""The package's own list; it lacks the one message that is never answered."""
EARLY: dict[str, Any] = {"transactionId": 7}


def _with_schema(version: str) -> set[str]:
    """All actions that the package has a schema for."""
    names = {
        item.name.removesuffix(".json")
        for item in files("ocpp").joinpath(FOLDERS[version], "schemas").iterdir()
        if item.name.endswith(".json")
    }
    return {name.removesuffix("Request") for name in names if not name.endswith("Response")}


async def _reply(version: str, action: str, payload: Any) -> Reply:
    if version != V16:
        return await Bench2(version).send(action, payload)
    adapter = Adapter16(
        station_id=STATION,
        sink=RecordingSink(),
        clock=StillClock(),
        options=Bench2().adapter.options,
        on_boot=lambda: None,
    )
    text = orjson.dumps([2, "1", action, payload])
    frame = framing.parse(text)
    assert isinstance(frame, framing.Call)
    return await adapter.handle(frame, text)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_action_of_the_package_is_either_answered_or_ours_to_send(
    version: str,
) -> None:
    """No third kind, and no action in both; DataTransfer goes both ways."""
    assert LISTED[version] == _with_schema(version)
    assert not OURS[version] & THEIRS[version]
    assert OURS[version] | THEIRS[version] == LISTED[version]
    assert schemas.ACTIONS[version] == LISTED[version]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_action_that_a_station_starts_gets_a_valid_answer(version: str) -> None:
    """The coverage table of a version; ``-s`` shows it."""
    rows: list[tuple[str, str]] = []
    lacking: list[str] = []
    for action in sorted(LISTED[version]):
        if action in OURS[version]:
            rows.append((action, "central system only"))
            continue
        said = "never answered (SEND)" if action == SEND_ONLY else "answered"
        for is_full in (False, True):
            payload = message(version, action, is_full=is_full)
            assert schemas.breach(version, action, payload) is None, action
            reply = await _reply(version, action, payload)
            broken = (
                f"{reply.code} {reply.description}"
                if reply.payload is None
                else breach_of_answer(version, action, reply.payload)
            )
            if broken is not None:
                lacking.append(f"{action}: {broken}")
                said = f"WRONG: {broken}"
        rows.append((action, said))
    _print_table(version, rows)
    assert lacking == []


def _print_table(version: str, rows: list[tuple[str, str]]) -> None:
    started = sum(said != "central system only" for _, said in rows)
    lines = [f"\n{version}: {len(rows)} actions, {started} that a station starts"]
    lines += [f"  {action:<36}{said}" for action, said in rows]
    print("\n".join(lines))  # noqa: T201 - the table is for people


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_action_that_is_ours_to_send_is_refused_in_words(version: str) -> None:
    """SEC-05, LIB-10: known but not for us."""
    for action in sorted(OURS[version]):
        reply = await _reply(version, action, message(version, action))
        assert (reply.payload, reply.code) == (None, "NotSupported"), action
        assert action in reply.description


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "action", ["Nonsense", "../../x", "heartbeat", "\x00", "HeartbeatRequest"]
)
async def test_an_action_of_no_version_is_not_implemented(
    version: str, action: str
) -> None:
    """I3: and no file is opened for it."""
    reply = await _reply(version, action, {})

    assert (reply.payload, reply.code) == (None, "NotImplemented")
    assert len(reply.description) <= 255


@pytest.mark.parametrize(
    ("version", "action"),
    [(V16, "TransactionEvent"), (V201, "StartTransaction"), (V21, "StopTransaction"),
     (V201, "PullDynamicScheduleUpdate"), (V201, SEND_ONLY), (V201, "BatterySwap")],
)  # fmt: skip
async def test_an_action_of_another_version_is_not_implemented(
    version: str, action: str
) -> None:
    """A link speaks one version."""
    reply = await _reply(version, action, EARLY)

    assert (reply.payload, reply.code) == (None, "NotImplemented")
