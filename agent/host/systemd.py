"""READY, WATCHDOG, STATUS, RELOADING and STOPPING datagrams to systemd; no library."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Speaks sd_notify when ``NOTIFY_SOCKET`` is set; else every call does nothing."""

    def __init__(self, address: str | None = None) -> None:
        """Take the address from the environment unless one is given."""
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET")

    @property
    def watchdog_s(self) -> float | None:
        """How often systemd wants to hear from us, seconds, or None."""
        text = os.environ.get("WATCHDOG_USEC", "")
        return int(text) / 1_000_000 if text.isdigit() and int(text) > 0 else None

    def ready(self, status: str) -> None:
        """Stations may connect."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Configuration is being read again."""
        self._send("RELOADING=1")

    def stopping(self) -> None:
        """The last work is being done."""
        self._send("STOPPING=1")

    def watchdog(self, status: str) -> None:
        """All is alive."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # noqa: FBT003 - a full socket must not hang us
            try:
                sender.sendto(text.encode(), address)
            except OSError:
                return  # systemd is gone or busy: the watchdog will tell
