"""PLACEHOLDER: overwrite this file with the real Setup2."""

from __future__ import annotations

import asyncio
from typing import Any


class Wishes2:
    def __init__(self, **more: Any) -> None:
        pass


def default_settings_2x(*, meter_interval_s: int, heartbeat_s: int) -> dict[str, str]:
    return {}


class Setup2:
    def __init__(self, **more: Any) -> None:
        pass

    def booted(self) -> None: ...

    def report_received(self, payload: Any) -> None: ...

    def profiles_received(self, payload: Any) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()
