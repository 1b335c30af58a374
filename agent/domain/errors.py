"""Whose fault it was.

AgentFault
  StationFault   the station broke the protocol, or did not answer
  CloudFault     a cloud did not answer, or answered with nonsense
  StoreFault     the disk did not take it: stop acknowledging
  ConfigFault    the configuration is wrong: do not start

A bug is none of these: let it rise.
"""

from __future__ import annotations

from dataclasses import dataclass


class AgentFault(Exception):  # noqa: N818 - the field says fault, not error
    """A fault that the agent expects and can name."""


class StationFault(AgentFault):
    """The station broke the protocol, or did not answer."""


class CloudFault(AgentFault):
    """A cloud did not answer, or its answer was of no use.

    ``retryable`` is decided where the status is read (agent/cloud/http.py);
    ``retry_after_s`` is what the cloud asked for, in seconds, or None.
    """

    def __init__(
        self, message: str, *, retryable: bool, retry_after_s: float | None = None
    ) -> None:
        """Remember whether a repeat can help."""
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class StoreFault(AgentFault):
    """The disk did not take a record: nothing may be acknowledged."""


class StoreDamaged(StoreFault):
    """The database is ours and broken: a backup has to take its place."""


class StoreForeign(StoreFault):
    """The file is not marked as one of ours: it is never written to."""


class ConfigFault(AgentFault):
    """The configuration is wrong; ``faults`` has one entry per key."""

    def __init__(self, faults: list[ConfigProblem]) -> None:
        """Keep every problem, so that a technician sees all of them at once."""
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem:
    """One wrong key: what is written, and what to do about it."""

    key: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line for a terminal and for the journal."""
        return f"{self.key} = {self.value}: {self.problem}; {self.remedy}"
