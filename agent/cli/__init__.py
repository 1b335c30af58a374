"""The command line: thin commands, exit codes of the contract, tables and JSON.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 daemon not reachable, 78 configuration
refused. Commands that only ask the daemon load no OCPP and no simulator: they answer in a
third of the time, on a gateway where every second counts.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

LIGHT = (
    "ask", "outbox", "service", "export", "vehicles", "schedules", "chargeye", "station",
    "cars",
)  # fmt: skip
HEAVY = ("play", "pki")
HEAVY_COMMANDS = frozenset({"demo", "simulate", "standin", "pki"})


def load(*, light_only: bool) -> Any:
    """Register the commands; the application with them."""
    for name in LIGHT if light_only else (*LIGHT, *HEAVY):
        import_module(f"agent.cli.{name}")
    return import_module("agent.cli.base").app


def __getattr__(name: str) -> Any:
    if name == "app":
        return load(light_only=False)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line."""
    # Read when `ssl` is first imported, so it must be said before that.
    curves = Path(__file__).resolve().parents[1] / "host" / "openssl.cnf"
    os.environ.setdefault("OPENSSL_CONF", str(curves))
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    is_light = bool(words) and words[0] not in HEAVY_COMMANDS
    sys.exit(load(light_only=is_light)())
