"""The meter's reader: every source that is broken is named, in bounded time and size."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest

from agent import wiring
from agent.cloud import sitemeter
from agent.cloud.sitemeter import BODY_BYTES_MAX, FileMeter, HttpMeter, number_at
from agent.domain.errors import CloudFault, ConfigFault
from agent.domain.ids import StationId
from agent.settings import load


@pytest.mark.parametrize(
    ("content", "path", "watts"),
    [
        (b"12.5", "", 12.5),
        (b"  -3\n", "", -3.0),
        (b'\xef\xbb\xbf{"grid": {"power_w": 5}}', "grid.power_w", 5.0),
        (b'{"state": "1234.5"}', "state", 1234.5),
        (b'{"phases": [{"w": 1}, {"w": 2}]}', "phases.1.w", 2.0),
    ],
)
def test_numbers_are_found(content: bytes, path: str, watts: float) -> None:
    assert number_at(content, path, 1.0) == watts
    assert number_at(content, path, 1000.0) == watts * 1000


@pytest.mark.parametrize(
    ("content", "path", "word"),
    [
        (b"", "", "empty"),
        (b" \n", "", "empty"),
        (b"<!doctype html><p>502", "", "HTML"),
        (b'{"grid": ', "grid", "no JSON"),
        (b"\xff\xfe", "", "no JSON"),
        (b"NaN", "", "no JSON"),
        (b'"NaN"', "", "not finite"),
        (b'"inf"', "", "not finite"),
        (b'{"a": 1}', "b", "no 'b'"),
        (b'{"a": 1}', "a.b", "no 'b'"),
        (b"[1]", "1", "no '1'"),
        (b"[1]", "-1", "no '-1'"),
        (b"5", "a", "no 'a'"),
        (b'{"a": true}', "a", "bool"),
        (b'{"a": null}', "a", "NoneType"),
        (b'{"a": "unavailable"}', "a", "str"),
        (b'{"a": {}}', "a", "dict"),
        (b'"' + b"9" * 5000 + b'"', "", "str"),
        (b"[" * 60_000, "", "no JSON"),
    ],
)
def test_anything_else_is_a_fault_that_says_what_was_found(
    content: bytes, path: str, word: str
) -> None:
    with pytest.raises(CloudFault, match="site meter: ") as caught:
        number_at(content, path, 1.0)
    assert word in str(caught.value)


async def test_a_file_is_read_and_its_stamp_tells_that_it_was_written_anew(
    tmp_path: Path,
) -> None:
    file = tmp_path / "meter.json"
    file.write_text('{"w": 7}')
    meter = FileMeter(file, path="w", factor=1000.0)

    first, again = await meter.read(), await meter.read()
    os.utime(file, ns=(1, 1))
    touched = await meter.read()

    assert first == again
    assert (first[0], touched[0]) == (7000.0, 7000.0)
    assert first[1] != touched[1]


async def test_files_that_are_none_are_faults(tmp_path: Path) -> None:
    """Missing, too large, a folder, and a pipe that nobody writes: none of them hangs."""
    huge, pipe = tmp_path / "huge", tmp_path / "pipe"
    huge.write_bytes(b"1" * (BODY_BYTES_MAX + 1))
    os.mkfifo(pipe)
    words = {
        tmp_path / "gone": "cannot be read",
        huge: "64 KiB",
        tmp_path: "cannot be read|no regular file",
        pipe: "no regular file",
    }

    for file, word in words.items():
        with pytest.raises(CloudFault, match=word):
            await FileMeter(file).read()


async def test_a_drive_that_hangs_holds_one_thread_and_is_read_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def slow(file: Path) -> tuple[bytes, str]:
        calls.append(file)
        time.sleep(0.2)
        return b"5", "stamp"

    monkeypatch.setattr(sitemeter, "_content", slow)
    monkeypatch.setattr(sitemeter, "TOTAL_S", 0.02)
    meter = FileMeter(tmp_path)
    for _ in range(3):
        with pytest.raises(CloudFault, match="within 3 s"):
            await meter.read()
    assert len(calls) == 1
    await asyncio.sleep(0.25)
    assert await meter.read() == (5.0, "stamp")


def http(answer: httpx.Response | Exception) -> HttpMeter:
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HttpMeter(
        "http://user:geheim@meter.test/x", path="w", transport=httpx.MockTransport(handle)
    )


async def test_an_address_is_asked() -> None:
    meter = http(httpx.Response(200, json={"w": 8}))
    assert await meter.read() == (8.0, "")
    await meter.close()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (httpx.Response(500), "answered 500"),
        (httpx.Response(302, headers={"Location": "http://other.test"}), "answered 302"),
        (httpx.Response(200, text="<html>"), "HTML"),
        (httpx.Response(200, content=b" " * (BODY_BYTES_MAX + 1)), "64 KiB"),
        (httpx.ConnectError("geheim"), "ConnectError"),
    ],
)
async def test_answers_without_a_value_are_faults_that_tell_no_password(
    answer: httpx.Response | Exception, word: str
) -> None:
    meter = http(answer)
    with pytest.raises(CloudFault, match=word) as caught:
        await meter.read()
    assert "geheim" not in str(caught.value)
    await meter.close()


async def test_a_meter_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemeter, "TOTAL_S", 0.1)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    meter = HttpMeter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    began = time.monotonic()
    with pytest.raises(CloudFault, match=r"no answer in 3 s|ReadTimeout"):
        await meter.read()
    assert time.monotonic() - began < 1
    await meter.close()
    server.close()


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("unmanaged_max_kw = 50", "exactly one"),
        ('file = "/a"\nurl = "http://a"\nunmanaged_max_kw = 50', "exactly one"),
        ('url = "ftp://a"\nunmanaged_max_kw = 50', "http://"),
        ('file = "/a"', "unmanaged_max_kw = (missing)"),
        ('file = "/a"\nunmanaged_max_kw = 100', "leaves nothing"),
        ('file = "/a"\nunmanaged_max_kw = 50\nstale_s = 9', "twice poll_s"),
        ('file = "/a"\nunmanaged_max_kw = 50\nstale = 9', "did you mean"),
    ],
)
def test_a_wrong_section_is_refused_with_what_is_wrong(
    tmp_path: Path, lines: str, word: str
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f"[site]\ncap_kw = 100\n[site.meter]\n{lines}\n")
    with pytest.raises(ConfigFault) as caught:
        load(file)
    assert word in str(caught.value)


def test_the_section_becomes_a_meter_and_its_rules(tmp_path: Path) -> None:
    """Stations on their own live beside the worst other load."""
    file = tmp_path / "agent.toml"
    file.write_text(
        '[site]\ncap_kw = 100\nefficiency = 1.0\n[site.meter]\nurl = "http://m"\n'
        'unit = "kW"\nunmanaged_max_kw = 90\n[[stations]]\nid = "CP-01"\nfallback_kw = 20\n'
    )
    settings = load(file)
    made = wiring.site_meter(settings)
    plain = settings.model_copy(
        update={"site": settings.site.model_copy(update={"meter": None})}
    )

    assert made is not None
    assert isinstance(made[0], HttpMeter)
    assert (made[1].unmanaged_max_w, made[1].confirm_s) == (90_000, 60)
    assert wiring.traits(settings)[StationId("CP-01")].fallback_w == 10_000
    assert wiring.traits(plain)[StationId("CP-01")].fallback_w == 20_000
    assert wiring.site_meter(plain) is None
    assert "restart" in (wiring.needs_restart(plain, settings) or "")
