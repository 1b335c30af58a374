"""Starts the real daemon for the benchmark: ``our_way.py CONFIG``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.app import run_daemon
from agent.host import logs
from agent.settings import load


def main() -> None:
    """Run until SIGTERM."""
    config = Path(sys.argv[1])
    settings = load(config)
    logs.set_up(level=settings.log.level, style=settings.log.format)
    asyncio.run(run_daemon(settings, config))


if __name__ == "__main__":
    main()
