"""One HTTP client per cloud: time-outs, sizes, and what each outcome means.

faults.md N2 to N5: everything is classified within 20 s, no foreign redirect is
followed, no body over 4 MiB is read, certificates are always checked.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx
import orjson

from agent.domain.errors import CloudFault

TOTAL_S = 20.0
"""A request that takes longer is given up, whatever it is waiting for (N2)."""
BODY_BYTES_MAX = 4 * 1024 * 1024
"""A registry of thousands of vehicles fits; a hundred times that is an attack."""
LARGE_BYTES = 64 * 1024
"""A body from here on is decoded in a thread: links and power control go on (N2)."""
GZIP_BITS = 47
"""zlib's word for: gzip or deflate, whichever it is."""
RETRY_AFTER_AUTH_S = 60.0
"""401 after a renewal is a matter of permissions: at most 2 calls a minute (N4)."""

Json = dict[str, Any]


class CloudHttp:
    """JSON over HTTP with one request in flight."""

    def __init__(
        self, name: str, base_url: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare; ``transport`` is for tests."""
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(TOTAL_S, connect=10.0),
            follow_redirects=False,
            trust_env=False,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": "depot-agent",
            },
        )
        self._one = asyncio.Lock()
        self.requests = 0

    async def close(self) -> None:
        """Close kept connections."""
        await self._client.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        bearer: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        reads_answer: bool = True,
    ) -> tuple[int, Any]:
        """Send a request; the status and the JSON body (None for an empty one).

        Only 200 to 299 and 401 come back as a status; all else raises CloudFault.
        An empty ``bearer`` sends no token. Without ``reads_answer`` the status is all
        that counts, whatever the body holds.
        """
        if not bearer.isascii() or not bearer.isprintable() or " " in bearer:
            # Here, because the library would print the whole header in its refusal.
            raise self._fault(
                "the token holds a character that no header can carry: enter it again",
                retryable=True,
                retry_after_s=RETRY_AFTER_AUTH_S,
            )
        content = None if body is None else orjson.dumps(body)
        sent = dict(headers or {})
        if bearer:
            sent["Authorization"] = f"Bearer {bearer}"
        if content is not None:
            sent["Content-Type"] = "application/json"
        async with self._one:
            self.requests += 1
            try:
                async with asyncio.timeout(TOTAL_S):
                    return await self._exchange(
                        method, path, sent, content, reads_answer=reads_answer
                    )
            except TimeoutError as error:
                raise self._fault("no answer in 20 s", retryable=True) from error
            except httpx.HTTPError as error:
                what = f"{type(error).__name__}: {error}"[:160]
                raise self._fault(what, retryable=True) from error
            except httpx.InvalidURL as error:
                raise self._fault(
                    f"the address is wrong: {error}", retryable=False
                ) from error

    async def _exchange(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        content: bytes | None,
        *,
        reads_answer: bool,
    ) -> tuple[int, Any]:
        url = self._base_url + path
        async with self._client.stream(
            method, url, headers=headers, content=content
        ) as answer:
            status = answer.status_code
            if status != httpx.codes.UNAUTHORIZED and not answer.is_success:
                raise self._refused(answer, method, path)
            text = await self._read(answer) if reads_answer else b""
        if status == httpx.codes.UNAUTHORIZED:
            return status, None
        if not text.strip():
            return status, None
        try:
            if len(text) < LARGE_BYTES:
                return status, orjson.loads(text)
            return status, await asyncio.to_thread(orjson.loads, text)
        except orjson.JSONDecodeError as error:
            shown = "HTML" if text.lstrip()[:1] == b"<" else "something else"
            what = f"{method} {path} answered {shown} where JSON belongs"
            raise self._fault(what, retryable=True) from error

    async def _read(self, answer: httpx.Response) -> bytes:
        try:
            return await read_body(answer)
        except ValueError as error:
            raise self._fault(str(error), retryable=True) from error

    def _refused(self, answer: httpx.Response, method: str, path: str) -> CloudFault:
        status = answer.status_code
        is_passing = status in (408, 425, 429) or status >= 500 or answer.is_redirect  # noqa: PLR2004
        return self._fault(
            f"{method} {path.partition('?')[0]} answered {status}",
            retryable=is_passing,
            retry_after_s=_retry_after(answer.headers),
        )

    def _fault(
        self, text: str, *, retryable: bool, retry_after_s: float | None = None
    ) -> CloudFault:
        return CloudFault(
            f"{self.name}: {text}", retryable=retryable, retry_after_s=retry_after_s
        )


async def read_body(answer: httpx.Response) -> bytes:
    """Read a body of at most 4 MiB; ValueError says why it cannot be read.

    It is unpacked here: the library unpacks a bomb before anybody can look.
    """
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise ValueError("the answer is packed as was not asked for")
    unpack = zlib.decompressobj(GZIP_BITS) if encoding not in ("", "identity") else None
    parts: list[bytes] = []
    size = 0
    async for raw in cast("httpx.AsyncByteStream", answer.stream):
        part = raw
        if unpack is not None:
            try:
                part = unpack.decompress(raw, BODY_BYTES_MAX + 1 - size)
            except zlib.error as error:
                raise ValueError(f"the answer cannot be unpacked: {error}") from error
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise ValueError("the answer is larger than 4 MiB")
        parts.append(part)
    return b"".join(parts)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds of a Retry-After header: a number, or a date by the cloud's own clock."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers.get("Date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None  # neither, or it cannot be compared: the back-off decides
