"""The site meter's value from a file or over HTTP: JSON with a number in it.

Whatever writes it (a Modbus gateway, Home Assistant, a shell script) is not trusted to be
there, to be quick, or to write whole files: every read ends within 3 s and 64 KiB, and
every outcome but a finite number is a CloudFault that says what was found.
"""

from __future__ import annotations

import asyncio
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from agent.domain.errors import CloudFault

TOTAL_S = 3.0
"""Real seconds: half the usual poll interval, so that reads never pile up."""
BODY_BYTES_MAX = 64 * 1024
TEXT_MAX = 40
"""Characters of a number as text; Python would read thousands of digits."""

Value = tuple[float, str]
"""W, and a stamp that differs when the source wrote anew ("" when every read is new)."""


def number_at(content: bytes, path: str, factor: float) -> float:
    """Find the number at a dotted path, W. Raises CloudFault."""
    text = content.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise _fault("it is empty")
    if text[:1] == b"<":
        raise _fault("it is HTML or XML where JSON belongs")
    try:
        found: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _fault("it is no JSON") from error
    for part in path.split(".") if path else ():
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part[:9]) < len(found):
            found = found[int(part[:9])]
        else:
            raise _fault(f"it has no {part[:TEXT_MAX]!r} of the path {path[:80]!r}")
    return _number(found) * factor


def _number(found: Any) -> float:
    if isinstance(found, str) and len(found) <= TEXT_MAX:
        with suppress(ValueError):
            found = float(found)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise _fault(f"a {type(found).__name__} stands where the number belongs")
    if not math.isfinite(found):
        raise _fault("the number is not finite")
    return float(found)


class FileMeter:
    """Reads a file that something else writes."""

    def __init__(self, file: Path, *, path: str = "", factor: float = 1.0) -> None:
        """``factor`` makes watts of the file's unit."""
        self._file = file
        self._path = path
        self._factor = factor
        self._reading: asyncio.Future[tuple[bytes, str]] | None = None

    async def read(self) -> Value:
        """Read the newest value; the stamp tells whether the file was written anew."""
        if self._reading is None:
            # A thread, because a file may live on a network drive that hangs; one at a
            # time, because a thread that hangs cannot be ended.
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(None, _content, self._file)
        done, _ = await asyncio.wait({self._reading}, timeout=TOTAL_S)
        if not done:
            raise _fault("the file cannot be read within 3 s")
        reading, self._reading = self._reading, None
        try:
            content, stamp = reading.result()
        except OSError as error:
            what = error.strerror or type(error).__name__
            raise _fault(f"the file cannot be read: {what}") from error
        return number_at(content, self._path, self._factor), stamp

    async def close(self) -> None:
        """Nothing is kept open."""


def _content(file: Path) -> tuple[bytes, str]:
    # Not blocking: opening a pipe that nobody writes would wait for ever.
    opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as stream:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode):
            raise _fault("it is no regular file")
        content = stream.read(BODY_BYTES_MAX + 1)
    if len(content) > BODY_BYTES_MAX:
        raise _fault("it is larger than 64 KiB")
    return content, f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_size}"


class HttpMeter:
    """Asks an address in the depot's network."""

    def __init__(
        self,
        url: str,
        *,
        path: str = "",
        factor: float = 1.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``factor`` makes watts of the answer's unit; ``transport`` is for tests."""
        self._url = url
        self._path = path
        self._factor = factor
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=TOTAL_S,
            follow_redirects=False,
            trust_env=False,
            headers={"Accept": "application/json", "User-Agent": "depot-agent"},
        )

    async def read(self) -> Value:
        """Ask once. No text of the address is told: it may carry a password."""
        try:
            async with asyncio.timeout(TOTAL_S):
                content = await self._ask()
        except TimeoutError as error:
            raise _fault("no answer in 3 s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _fault(f"it cannot be asked: {type(error).__name__}") from error
        return number_at(content, self._path, self._factor), ""

    async def _ask(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        async with self._client.stream("GET", self._url) as answer:
            if not answer.is_success:
                raise _fault(f"it answered {answer.status_code}")
            async for part in answer.aiter_bytes():
                size += len(part)
                if size > BODY_BYTES_MAX:
                    raise _fault("it is larger than 64 KiB")
                parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        """Close kept connections."""
        await self._client.aclose()


SiteMeter = FileMeter | HttpMeter


def _fault(text: str) -> CloudFault:
    return CloudFault(f"site meter: {text}", retryable=True)
