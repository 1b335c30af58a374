"""Every outcome of a request is classified, bounded in time and size, and tells no secret."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from agent.cloud import http as cloud_http
from agent.cloud.http import BODY_BYTES_MAX, CloudHttp
from agent.domain.errors import CloudFault

BEARER = "secret-bearer-KJH7"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client(answer: Any, base_url: str = "http://cloud.test/api") -> CloudHttp:
    return CloudHttp("chargeye", base_url, transport=httpx.MockTransport(answer))


async def send(answer: Any, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    http = client(answer)
    try:
        return await http.send(method, "/vehicles", bearer=BEARER, body=body)
    finally:
        await http.close()


async def fault_of(answer: Any) -> CloudFault:
    with pytest.raises(CloudFault) as caught:
        await send(answer)
    assert BEARER not in str(caught.value)
    assert BEARER not in repr(caught.value.__cause__)
    return caught.value


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[CloudHttp]:
    """A client of a real socket that answers by hand."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = CloudHttp("chargeye", f"http://127.0.0.1:{port}")
    try:
        yield http
    finally:
        await http.close()
        server.close()


async def test_a_request_carries_the_token_and_the_body_as_json() -> None:
    """Paths are put behind the base URL, whatever slash it ends with."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, json={"ok": True})

    http = client(answer, "http://cloud.test/api///")
    assert await http.send("PATCH", "/x?a=1", bearer=BEARER, body={"a": 1}) == (
        201,
        {"ok": True},
    )
    await http.close()

    request = seen[0]
    assert str(request.url) == "http://cloud.test/api/x?a=1"
    assert request.headers["Authorization"] == f"Bearer {BEARER}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.content == b'{"a":1}'


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_an_empty_success_is_a_success_without_a_body(status: int) -> None:
    """Any 2xx; the documentation of some is lost."""
    assert await send(lambda _: httpx.Response(status, content=b" \n")) == (status, None)


async def test_401_is_left_to_the_caller_who_knows_about_tokens() -> None:
    """With or without JSON in it."""
    assert await send(lambda _: httpx.Response(401, content=b"<html>")) == (401, None)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False), (403, False), (404, False), (409, False), (410, False), (422, False),
        (408, True), (425, True), (429, True), (500, True), (502, True), (503, True), (599, True),
    ],
)  # fmt: skip
async def test_a_status_tells_whether_a_repeat_can_help(
    status: int, *, retryable: bool
) -> None:
    """4xx will not get better by itself."""
    fault = await fault_of(lambda _: httpx.Response(status, json={"message": "no"}))

    assert (fault.retryable, fault.retry_after_s) == (retryable, None)
    assert str(status) in str(fault)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17", 17.0), (" 17 ", 17.0), ("0", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-5", None), ("1e3", None), ("", None), ("9" * 400, 999_999_999.0), ("²", None),
        ("١٢", None),
    ],
)  # fmt: skip
async def test_n2_retry_after_is_read_in_seconds(text: str, seconds: float | None) -> None:
    """N2: 429 and 503; what is no plain number is left to the back-off."""
    for status in (429, 503):
        headers = {"Retry-After": text.encode()}
        fault = await fault_of(lambda _, s=status, h=headers: httpx.Response(s, headers=h))
        assert fault.retry_after_s == seconds


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Bad gateway</html>",
        b'{"vehicles": [',
        b"\xff\xfe",
        b"NaN",
        b"[" * 100_000,
        b"{}x",
    ],
)
async def test_n2_200_without_json_is_a_fault_that_passes(content: bytes) -> None:
    """HTML with 200, truncated JSON, nonsense."""
    fault = await fault_of(lambda _: httpx.Response(200, content=content))

    assert fault.retryable
    assert len(str(fault)) < 200


async def test_n2_a_redirect_is_not_followed() -> None:
    """N2: no token ever goes to another host."""
    hosts: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(302, headers={"Location": "https://evil.test/"})

    fault = await fault_of(answer)
    assert fault.retryable
    assert hosts == ["cloud.test"]


async def test_n2_a_body_of_100_mib_is_stopped_at_4_mib() -> None:
    """N2: the rest is never read."""
    given = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(1600):
                given += 65_536
                yield b"x" * 65_536

    fault = await fault_of(lambda _: httpx.Response(200, stream=Endless()))

    assert "4 MiB" in str(fault)
    assert fault.retryable
    assert given <= BODY_BYTES_MAX + 2 * 65_536


async def test_n2_a_slow_body_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """N2: one byte a second never reaches the end."""
    monkeypatch.setattr(cloud_http, "TOTAL_S", 0.2)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    begun = time.monotonic()
    async with served(drip) as http:
        with pytest.raises(CloudFault) as caught:
            await http.send("GET", "/vehicles", bearer=BEARER)

    assert caught.value.retryable
    assert time.monotonic() - begun < 2.0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=["cut", "mid-body", "bad-gzip", "other-protocol", "bad-status", "huge-header"],
)
async def test_n2_a_broken_connection_is_a_fault_that_passes(raw: bytes) -> None:
    """N2: reset, cut, and other protocols on that port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    async with served(answer) as http:
        with pytest.raises(CloudFault) as caught:
            await http.send("GET", "/vehicles", bearer=BEARER)

    assert caught.value.retryable
    assert BEARER not in str(caught.value)


async def test_n5_a_cloud_that_is_not_there_is_a_fault_that_passes() -> None:
    """N5: refused connections and unknown names."""
    for url in ("http://127.0.0.1:1", "http://no-such-host.invalid"):
        http = CloudHttp("chargeye", url)
        with pytest.raises(CloudFault) as caught:
            await http.send("GET", "/vehicles", bearer=BEARER)
        await http.close()
        assert caught.value.retryable


@pytest.mark.parametrize(
    "bearer", ["tok\nen-QWE5", "tok en-QWE5\r\nX: y", "tökén-QWE5", "\x00-QWE5"]
)
async def test_a_token_that_no_header_can_carry_is_named_without_being_shown(
    bearer: str,
) -> None:
    """A newline from a file is common; the library would print the whole header."""

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with served(never) as http:
        with pytest.raises(CloudFault) as caught:
            await http.send("GET", "/vehicles", bearer=bearer)

    shown = f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "QWE5" not in shown
    assert "token" in str(caught.value)


async def test_one_request_is_in_flight_at_a_time() -> None:
    """A cloud without known rate limits is asked gently."""
    inside = most = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return httpx.Response(200, json={})

    http = client(answer)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(http.send("GET", "/x", bearer=BEARER))
    await http.close()

    assert (most, http.requests) == (1, 5)


async def test_n5_certificates_are_checked() -> None:
    """N5: verification is never switched off."""
    http = CloudHttp("chargeye", "https://cloud.test")
    context = http._client._transport._pool._ssl_context  # type: ignore[attr-defined]
    await http.close()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_a_cloud_that_does_not_speak_tls_is_a_fault_that_passes() -> None:
    """A proxy's plain page on the TLS port."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    http = CloudHttp("chargeye", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(CloudFault) as caught:
        await http.send("GET", "/x", bearer=BEARER)
    await http.close()
    server.close()

    assert caught.value.retryable
