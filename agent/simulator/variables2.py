"""The variables that a virtual 2.x station has, with their first values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulator.device2 import READ_ONLY, READ_WRITE, WRITE_ONLY, Variable
from agent.simulator.metering import MEASURANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.simulator.station_config import StationConfig

TX_POINTS = (
    "ParkingBayOccupancy,EVConnected,Authorized,DataSigned,PowerPathClosed,EnergyTransfer"
)
ITEMS_PER_MESSAGE = 50
BYTES_PER_MESSAGE = 8_192
PROFILES_MAX = 50
PERIODS_MAX = 48
STACK_LEVEL_MAX = 10
EXTERNAL_IDS_MAX = 0  # MaxExternalConstraintsId: any id is free for the central system
FEATURES_21 = ("DynamicProfiles", "MaxOfflineDuration", "LimitAtSoC")
LACKING_21 = ("UseLocalTime", "RandomizedDelay", "EvseSleep")

Row = tuple[str, str, str]  # label, first value, data type

WRITABLE: tuple[Row, ...] = (
    ("AlignedDataCtrlr.Interval", "0", "integer"),
    ("AuthCtrlr.AuthorizeRemoteStart", "false", "boolean"),
    ("AuthCtrlr.LocalAuthorizeOffline", "true", "boolean"),
    ("AuthCtrlr.LocalPreAuthorize", "false", "boolean"),
    ("AuthCtrlr.OfflineTxForUnknownIdEnabled", "true", "boolean"),
    ("AuthCacheCtrlr.Enabled", "true", "boolean"),
    ("LocalAuthListCtrlr.Enabled", "true", "boolean"),
    ("OCPPCommCtrlr.HeartbeatInterval", "300", "integer"),
    ("OCPPCommCtrlr.WebSocketPingInterval", "20", "integer"),
    ("OCPPCommCtrlr.MessageAttempts[TransactionEvent]", "3", "integer"),
    ("OCPPCommCtrlr.MessageAttemptInterval[TransactionEvent]", "20", "integer"),
    ("OCPPCommCtrlr.OfflineThreshold", "600", "integer"),
    ("OCPPCommCtrlr.RetryBackOffWaitMinimum", "3", "integer"),
    ("OCPPCommCtrlr.UnlockOnEVSideDisconnect", "true", "boolean"),
    ("SampledDataCtrlr.TxUpdatedInterval", "60", "integer"),
    ("SampledDataCtrlr.TxEndedInterval", "0", "integer"),
    ("SecurityCtrlr.OrganizationName", "", "string"),
    ("SmartChargingCtrlr.LimitChangeSignificance", "1", "decimal"),
    ("TxCtrlr.EVConnectionTimeOut", "120", "integer"),
    ("TxCtrlr.StopTxOnInvalidId", "true", "boolean"),
    ("TxCtrlr.StopTxOnEVSideDisconnect", "true", "boolean"),
)
FIXED: tuple[Row, ...] = (
    ("AuthCtrlr.Enabled", "true", "boolean"),
    ("ClockCtrlr.TimeSource", "NTP,Heartbeat", "SequenceList"),
    ("DeviceDataCtrlr.ItemsPerMessage[GetReport]", str(ITEMS_PER_MESSAGE), "integer"),
    ("DeviceDataCtrlr.ItemsPerMessage[GetVariables]", str(ITEMS_PER_MESSAGE), "integer"),
    ("DeviceDataCtrlr.ItemsPerMessage[SetVariables]", str(ITEMS_PER_MESSAGE), "integer"),
    ("DeviceDataCtrlr.BytesPerMessage[GetReport]", str(BYTES_PER_MESSAGE), "integer"),
    ("DeviceDataCtrlr.BytesPerMessage[GetVariables]", str(BYTES_PER_MESSAGE), "integer"),
    ("DeviceDataCtrlr.BytesPerMessage[SetVariables]", str(BYTES_PER_MESSAGE), "integer"),
    ("OCPPCommCtrlr.FileTransferProtocols", "HTTPS", "MemberList"),
    ("ReservationCtrlr.Available", "true", "boolean"),
    ("SmartChargingCtrlr.Available", "true", "boolean"),
    ("SmartChargingCtrlr.Enabled", "true", "boolean"),
    ("SmartChargingCtrlr.ACPhaseSwitchingSupported", "false", "boolean"),
    ("SmartChargingCtrlr.ExternalControlSignalsEnabled", "false", "boolean"),
    ("SmartChargingCtrlr.PeriodsPerSchedule", str(PERIODS_MAX), "integer"),
    ("SmartChargingCtrlr.Phases3to1", "false", "boolean"),
    ("SmartChargingCtrlr.ProfileStackLevel", str(STACK_LEVEL_MAX), "integer"),
    ("SmartChargingCtrlr.RateUnit", "A,W", "MemberList"),
)
FIXED_21: tuple[Row, ...] = (
    ("SmartChargingCtrlr.ChargingProfilePersistence[TxProfile]", "false", "boolean"),
    ("SmartChargingCtrlr.MaxExternalConstraintsId", str(EXTERNAL_IDS_MAX), "integer"),
    ("TxCtrlr.ResumptionTimeout", "0", "integer"),
)
MEASURAND_LABELS = {  # first value
    "SampledDataCtrlr.TxStartedMeasurands": "Energy.Active.Import.Register",
    "SampledDataCtrlr.TxUpdatedMeasurands": (
        "Energy.Active.Import.Register,Power.Active.Import"
    ),
    "SampledDataCtrlr.TxEndedMeasurands": "Energy.Active.Import.Register",
    "AlignedDataCtrlr.Measurands": "Energy.Active.Import.Register",
    "AlignedDataCtrlr.TxEndedMeasurands": "Energy.Active.Import.Register",
}
UNITS = {"Interval": "s", "TimeOut": "s", "Threshold": "s", "Significance": "Percent"}


def variables_of(config: StationConfig) -> list[Variable]:
    """List the variables that stand still; those that live are the core's."""
    found = [_variable(row, READ_WRITE) for row in WRITABLE]
    found += [_variable(row, READ_ONLY) for row in FIXED]
    if config.ocpp_version == "2.1":
        found += [_variable(row, READ_ONLY) for row in FIXED_21]
        for names, value in ((FEATURES_21, "true"), (LACKING_21, "false")):
            found += [
                _variable(
                    (f"SmartChargingCtrlr.SupportsFeature[{name}]", value, "boolean"),
                    READ_ONLY,
                )
                for name in names
            ]
    found += _measurands(config)
    found += _tx_points(config)
    found.append(_network_priority())
    found += _secrets()
    found += _wiring(config)
    return found


def _variable(row: Row, mutability: str) -> Variable:
    label, value, kind = row
    component, _, rest = label.partition(".")
    name, _, instance = rest.rstrip("]").partition("[")
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return Variable(
        component=component,
        name=name,
        instance=instance,
        value=value,
        data_type=kind,
        unit=unit,
        mutability=mutability,
    )


def _measurands(config: StationConfig) -> Iterator[Variable]:
    offered = ",".join(each for each in MEASURANDS if config.dc or each != "SoC")
    for label, value in MEASURAND_LABELS.items():
        variable = _variable((label, value, "MemberList"), READ_WRITE)
        variable.values = offered
        yield variable


def _tx_points(config: StationConfig) -> Iterator[Variable]:
    starts = "EVConnected" if config.iso15118 else "Authorized"
    for name, value in (
        ("TxStartPoint", starts),
        ("TxStopPoint", "EVConnected,Authorized"),
    ):
        variable = _variable((f"TxCtrlr.{name}", value, "MemberList"), READ_WRITE)
        variable.values = TX_POINTS
        yield variable


def _network_priority() -> Variable:
    row = ("OCPPCommCtrlr.NetworkConfigurationPriority", "0", "SequenceList")
    variable = _variable(row, READ_WRITE)
    variable.needs_reboot = True
    return variable


def _secrets() -> Iterator[Variable]:
    yield _variable(("SecurityCtrlr.BasicAuthPassword", "", "string"), WRITE_ONLY)
    yield _variable(("SecurityCtrlr.SecurityProfile", "1", "integer"), READ_ONLY)


def _wiring(config: StationConfig) -> Iterator[Variable]:
    """List the station, its EVSEs and their connectors."""
    station = (("Available", "true", "boolean"), ("SupplyPhases", "3", "integer"))
    for name, value, kind in station:
        yield Variable(component="ChargingStation", name=name, value=value, data_type=kind)
    for evse in range(1, config.connectors + 1):
        phases = "0" if config.dc else str(config.phases)
        rows = (("Available", "true", "boolean"), ("SupplyPhases", phases, "integer"))
        for name, value, kind in rows:
            yield Variable(
                component="EVSE", name=name, value=value, data_type=kind, evse=evse
            )
            yield Variable(
                component="Connector",
                name=name,
                value=value,
                data_type=kind,
                evse=evse,
                connector=1,
            )
        yield Variable(
            component="Connector",
            name="ConnectorType",
            value="cCCS2" if config.dc else "cType2",
            evse=evse,
            connector=1,
        )
