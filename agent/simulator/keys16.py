"""The configuration keys of a virtual OCPP 1.6 station."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEASURAND_KEYS = (
    "MeterValuesSampledData",
    "MeterValuesAlignedData",
    "StopTxnSampledData",
    "StopTxnAlignedData",
)
SECRET_KEY = "AuthorizationKey"  # noqa: S105 (the name of a key)
SECRET_CHARACTERS_MAX = 40  # CiString40 in the security whitepaper
DEFAULTS: dict[str, str] = {
    "AllowOfflineTxForUnknownId": "true",
    "AuthorizeRemoteTxRequests": "false",
    "ClockAlignedDataInterval": "0",
    "ConnectionTimeOut": "120",
    "HeartbeatInterval": "300",
    "LocalAuthorizeOffline": "true",
    "LocalPreAuthorize": "false",
    "MeterValueSampleInterval": "60",
    "MeterValuesAlignedData": "",
    "MeterValuesSampledData": "Energy.Active.Import.Register,Power.Active.Import",
    "ResetRetries": "1",
    "StopTransactionOnInvalidId": "true",
    "StopTxnAlignedData": "",
    "StopTxnSampledData": "Energy.Active.Import.Register",
    "TransactionMessageAttempts": "3",
    "TransactionMessageRetryInterval": "20",
    "WebSocketPingInterval": "20",
    "LocalAuthListEnabled": "true",
    "AutoChargeEnabled": "true",
}
FIXED: dict[str, str] = {
    "ChargeProfileMaxStackLevel": "10",
    "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
    "ChargingScheduleMaxPeriods": "48",
    "ConnectorPhaseRotation": "NotApplicable",
    "GetConfigurationMaxKeys": "100",
    "LocalAuthListMaxLength": "100",
    "MaxChargingProfilesInstalled": "50",
    "MeterValuesSampledDataMaxLength": "10",
    "NumberOfConnectors": "1",
    "SendLocalListMaxLength": "100",
    "StopTransactionOnEVSideDisconnect": "true",
    "SupportedFeatureProfiles": "Core,FirmwareManagement,LocalAuthListManagement,"
    "Reservation,SmartCharging,RemoteTrigger",
    "UnlockConnectorOnEVSideDisconnect": "true",
}


class Keys16:
    """The values of the keys; names are compared without case."""

    def __init__(self, overrides: Mapping[str, str], measurands: Iterable[str]) -> None:
        """Begin with the defaults, then `overrides`, which may add keys."""
        self._values = {**DEFAULTS, **FIXED, **overrides}
        self._measurands = frozenset(measurands)
        self._names = {name.lower(): name for name in self._values}
        self.secret: str | None = None

    def text(self, name: str) -> str:
        """Tell the value of a key that is known to exist."""
        return self._values[name]

    def read(self, names: Iterable[str]) -> dict[str, list[object]]:
        """Answer GetConfiguration; no names asks for all keys."""
        asked = list(names)
        known = [self._names[each.lower()] for each in asked if self._has(each)]
        unknown = [each for each in asked if not self._has(each)]
        shown: list[object] = [
            {"key": name, "readonly": name in FIXED, "value": self._values[name]}
            for name in (known if asked else sorted(self._values))
        ]
        answer: dict[str, list[object]] = {"configurationKey": shown}
        if unknown:
            answer["unknownKey"] = list(unknown)
        return answer

    def change(self, name: str, value: str) -> str:
        """Answer ChangeConfiguration: Accepted, Rejected or NotSupported."""
        if name.lower() == SECRET_KEY.lower():
            return self._change_secret(value)
        if not self._has(name):
            return "NotSupported"
        key = self._names[name.lower()]
        if key in FIXED or not self._is_sound(key, value):
            return "Rejected"
        self._values[key] = value
        return "Accepted"

    def _has(self, name: str) -> bool:
        return name.lower() in self._names

    def _change_secret(self, value: str) -> str:
        if not 1 <= len(value) <= SECRET_CHARACTERS_MAX:
            return "Rejected"
        self.secret = value
        return "Accepted"

    def _is_sound(self, key: str, value: str) -> bool:
        if key in MEASURAND_KEYS:
            wanted = {each.strip() for each in value.split(",") if each.strip()}
            return wanted <= self._measurands
        default = DEFAULTS.get(key, "")
        if default in ("true", "false"):
            return value.strip().lower() in ("true", "false")
        if default.isdigit():
            return value.strip().isdigit()
        return True
