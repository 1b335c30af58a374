"""The command line: thin commands, exit codes of the contract, tables and JSON.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 daemon not reachable, 78 configuration
refused.
"""

from __future__ import annotations

import sys

from agent.cli import (
    ask,
    cars,
    chargeye,
    export,
    outbox,
    pki,
    play,
    schedules,
    service,
    station,
    vehicles,
)
from agent.cli.base import app

__all__ = ["app", "main"]

_COMMANDS = (
    ask,
    outbox,
    play,
    service,
    export,
    vehicles,
    schedules,
    chargeye,
    station,
    pki,
    cars,
)


def main() -> None:
    """Run the command line."""
    sys.exit(app())
