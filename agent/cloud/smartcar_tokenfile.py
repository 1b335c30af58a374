"""The drivers' tokens of v2.0 on disk, in two generations (smartcar.md section 3.3).

A file of its own beside the database, mode 0600: a copy of the database that someone
sends for help has no token in it. Every write is whole or not at all, and on disk (file
and folder) when it returns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import structlog

from agent.domain.errors import CloudFault

log = structlog.get_logger()

TOKENS_FILE = "smartcar-tokens.json"
PRIVATE = 0o600
FILE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Generations:
    """The refresh tokens of one driver; empty texts are not there."""

    current: str = field(default="", repr=False)
    """The one to use next."""
    beside: str = field(default="", repr=False)
    """Came in an answer and is not yet the current one."""
    previous: str = field(default="", repr=False)
    """Gave the current one; kept until that has worked once."""
    started_at: datetime | None = None
    """A renewal began and its answer was not seen."""
    renewed_at: datetime | None = None
    refused_at: datetime | None = None
    """All tokens were refused: the driver must connect the car again."""
    access: str = field(default="", repr=False)
    access_until: datetime | None = None
    seed: str = ""
    """Digest of the configured token that this row of tokens began with."""


_TIMES = ("started_at", "renewed_at", "refused_at", "access_until")


class TokenFile:
    """Reads the file once and writes it whole."""

    def __init__(self, path: Path) -> None:
        """Keep the path; the file is read at the first use."""
        self._path = path
        self._users: dict[str, Generations] | None = None
        self._lock = asyncio.Lock()

    async def users(self) -> Mapping[str, Generations]:
        """All drivers' tokens. Raises CloudFault when the file cannot be read."""
        async with self._lock:
            return dict(await self._loaded())

    async def save(self, user_id: str, tokens: Generations) -> None:
        """Put a driver's tokens on disk. Raises CloudFault; then memory has them still."""
        async with self._lock:
            users = await self._loaded()
            users[user_id] = tokens
            content = orjson.dumps(
                {"users": {name: _body_of(item) for name, item in users.items()}},
                option=orjson.OPT_INDENT_2,
            )
            try:
                await asyncio.to_thread(write_private, self._path, content)
            except OSError as error:
                raise _fault("cannot be written", error) from error

    async def _loaded(self) -> dict[str, Generations]:
        if self._users is None:
            try:
                self._users = await asyncio.to_thread(_read, self._path)
            except OSError as error:
                raise _fault("cannot be read", error) from error
        return self._users


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read, durably. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> dict[str, Generations]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
            os.fchmod(file.fileno(), PRIVATE)
    except FileNotFoundError:
        return {}
    try:
        users = orjson.loads(content)["users"]
        return {str(name): _tokens_of(body) for name, body in users.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        log.error("smartcar_tokens_unreadable", file=aside.name)
        return {}


def _body_of(tokens: Generations) -> dict[str, Any]:
    body = {item.name: getattr(tokens, item.name) for item in fields(tokens)}
    for name in _TIMES:
        body[name] = None if body[name] is None else body[name].isoformat()
    return body


def _tokens_of(body: Mapping[str, Any]) -> Generations:
    known: dict[str, Any] = {}
    for item in fields(Generations):
        raw = body.get(item.name)
        if item.name in _TIMES:
            known[item.name] = (
                None if raw is None else datetime.fromisoformat(raw).astimezone(UTC)
            )
        else:
            known[item.name] = str(raw or "")
    return Generations(**known)


def _fault(what: str, error: OSError) -> CloudFault:
    return CloudFault(
        f"smartcar: {TOKENS_FILE} {what} ({error.strerror}): check the folder of the "
        "database",
        retryable=True,
        retry_after_s=60.0,
    )
