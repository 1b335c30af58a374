"""One HTTP client per cloud: time-outs, sizes, and what each outcome means.

faults.md N2 to N5: everything is classified within 20 s, no foreign redirect is
followed, no body over 4 MiB is read, certificates are always checked.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson

from agent.domain.errors import CloudFault

TOTAL_S = 20.0
"""A request that takes longer is given up, whatever it is waiting for (N2)."""
BODY_BYTES_MAX = 4 * 1024 * 1024
"""A registry of thousands of vehicles fits; a hundred times that is an attack."""
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
            headers={"Accept": "application/json", "User-Agent": "depot-agent"},
        )
        self._one = asyncio.Lock()
        self.requests = 0

    async def close(self) -> None:
        """Close kept connections."""
        await self._client.aclose()

    async def send(
        self, method: str, path: str, *, bearer: str, body: Json | None = None
    ) -> tuple[int, Any]:
        """Send a request; the status and the JSON body (None for an empty one).

        Only 200 to 299 and 401 come back as a status; all else raises CloudFault.
        """
        if not bearer.isascii() or not bearer.isprintable() or " " in bearer:
            # Here, because the library would print the whole header in its refusal.
            raise self._fault(
                "the token holds a character that no header can carry: enter it again",
                retryable=True,
                retry_after_s=RETRY_AFTER_AUTH_S,
            )
        content = None if body is None else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {bearer}"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        async with self._one:
            self.requests += 1
            try:
                async with asyncio.timeout(TOTAL_S):
                    return await self._exchange(method, path, headers, content)
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
        self, method: str, path: str, headers: dict[str, str], content: bytes | None
    ) -> tuple[int, Any]:
        url = self._base_url + path
        async with self._client.stream(
            method, url, headers=headers, content=content
        ) as answer:
            status = answer.status_code
            if status != httpx.codes.UNAUTHORIZED and not answer.is_success:
                raise self._refused(answer, method, path)
            text = await self._read(answer)
        if status == httpx.codes.UNAUTHORIZED:
            return status, None
        if not text.strip():
            return status, None
        try:
            return status, orjson.loads(text)
        except orjson.JSONDecodeError as error:
            shown = "HTML" if text.lstrip()[:1] == b"<" else "something else"
            what = f"{method} {path} answered {shown} where JSON belongs"
            raise self._fault(what, retryable=True) from error

    async def _read(self, answer: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise self._fault("the answer is larger than 4 MiB", retryable=True)
            parts.append(part)
        return b"".join(parts)

    def _refused(self, answer: httpx.Response, method: str, path: str) -> CloudFault:
        status = answer.status_code
        is_passing = status in (408, 425, 429) or status >= 500 or answer.is_redirect  # noqa: PLR2004
        return self._fault(
            f"{method} {path} answered {status}",
            retryable=is_passing,
            retry_after_s=_retry_after(answer.headers.get("Retry-After")),
        )

    def _fault(
        self, text: str, *, retryable: bool, retry_after_s: float | None = None
    ) -> CloudFault:
        return CloudFault(
            f"{self.name}: {text}", retryable=retryable, retry_after_s=retry_after_s
        )


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header; the date form is left to the back-off."""
    digits = "" if text is None else text.strip()
    return float(digits[:9]) if digits.isascii() and digits.isdigit() else None
