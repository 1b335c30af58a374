"""One exchange with Smartcar: bounded in time and size, never redirected, tells no secret.

Unlike CloudHttp it gives every status back (430 among them, which is in no registry),
waits minutes for a command, and lets several cars be asked at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from agent.cloud.http import read_body
from agent.cloud.smartcar_errors import ApiError, read_error

CONNECT_S = 10.0
READ_S = 30.0
"""v3 reads come from Smartcar's store (*inferred*, smartcar.md section 4)."""
LONG_S = 330.0
"""Commands, and reads of v2.0, are answered within 300 s; the official clients wait 310."""
SLACK_S = 15.0
"""Beyond the longest silence: a body that drips never ends otherwise."""
USER_AGENT = "depot-agent (EV depot gateway)"
"""Must be there and not empty for the v2.0 token host (section 3.3)."""
RAW_MAX = 200_000
"""Bytes of an error body that are looked at."""


class UnheardError(Exception):
    """No whole answer came; what the request did is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status <= 299  # noqa: PLR2004

    @property
    def request_id(self) -> str:
        """The id to quote to support, or nothing."""
        return self.headers.get("sc-request-id", "")[:60]

    def json(self) -> Any:
        """Read the body. Raises ValueError when it is no JSON."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as error:
            shown = "HTML" if self.content.lstrip()[:1] == b"<" else "something else"
            raise ValueError(f"it is {shown} where JSON belongs") from error

    def error(self) -> ApiError:
        """Reduce an answer that is no success."""
        return read_error(self.status, self.headers, self.content[:RAW_MAX])


class SmartcarHttp:
    """An HTTP client without redirects, proxies of the environment, or a cookie jar."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Prepare; ``transport`` is for tests."""
        self._client = httpx.AsyncClient(
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            headers={"Accept": "application/json", "User-Agent": USER_AGENT},
        )

    async def close(self) -> None:
        """Close kept connections."""
        await self._client.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        silence_s: float = READ_S,
    ) -> Answer:
        """Send once and read to the end. Raises UnheardError; never sends twice.

        ``silence_s`` is how long the cloud may say nothing.
        """
        sent = dict(headers or {})
        for name, text in sent.items():
            if not text.isascii() or not text.isprintable():
                # Here, because the library would print the whole header.
                raise UnheardError(f"the header {name} holds what no header can carry")
        self._client.cookies.clear()
        request = self._client.build_request(
            method,
            url,
            headers=sent,
            content=None if body is None else orjson.dumps(body),
            data=None if form is None else dict(form),
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S, pool=CONNECT_S),
        )
        if body is not None:
            request.headers["Content-Type"] = "application/json"
        auth = None if basic is None else httpx.BasicAuth(*basic)
        try:
            async with asyncio.timeout(CONNECT_S + silence_s + SLACK_S):
                return await self._exchange(request, auth)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UnheardError(f"no whole answer in {silence_s:.0f} s") from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise UnheardError(f"no connection: {error}"[:120]) from error
        except httpx.HTTPError as error:
            raise UnheardError(f"{type(error).__name__}: {error}"[:120]) from error

    async def _exchange(
        self, request: httpx.Request, auth: httpx.BasicAuth | None
    ) -> Answer:
        found = await self._client.send(request, auth=auth, stream=True)
        try:
            content = await read_body(found)
        except ValueError as error:
            raise UnheardError(str(error)) from error
        finally:
            await found.aclose()
        return Answer(
            status=found.status_code,
            headers={name.lower(): text for name, text in found.headers.items()},
            content=content,
        )
