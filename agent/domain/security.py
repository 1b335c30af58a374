"""How grave a station's security events are, and how its progress reports read.

Names of the security whitepaper section 8 and of the 2.x appendix; which of them are
critical is the standard's word, which ones wake a person is ours (ocpp-depot.md C6).
"""

from __future__ import annotations

from enum import StrEnum


class Grade(StrEnum):
    """How a security event is shown."""

    NOTE = "note"
    CRITICAL = "critical"
    ALARM = "alarm"


CRITICAL = frozenset(
    {
        "FirmwareUpdated",
        "SettingSystemTime",
        "StartupOfTheDevice",
        "ResetOrReboot",
        "SecurityLogWasCleared",
        "MemoryExhaustion",
        "TamperDetectionActivated",
    }
)
"""What the standard calls critical: must be pushed, and kept."""
ALARMS = frozenset(
    {
        "SecurityLogWasCleared",
        "MemoryExhaustion",
        "TamperDetectionActivated",
        "AttemptedReplayAttacks",
        "InvalidFirmwareSignature",
        "InvalidFirmwareSigningCertificate",
    }
)
"""What no station does in its ordinary life."""
FAILED = frozenset(
    {
        "BadMessage",
        "NotSupportedOperation",
        "PermissionDenied",
        "UploadFailure",
        "UploadFailed",
        "AcceptedCanceled",
        "DownloadFailed",
        "InstallationFailed",
        "InstallVerificationFailed",
        "InvalidSignature",
    }
)
"""Ends of a log upload or a firmware update that did not succeed."""


def grade_of(kind: str) -> Grade:
    """Grade a security event by its name."""
    if kind in ALARMS:
        return Grade.ALARM
    return Grade.CRITICAL if kind in CRITICAL else Grade.NOTE
