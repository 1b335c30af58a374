"""The status page: what it may do in a browser, and what it may be made of."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import cast
from unittest.mock import Mock

import httpx
import pytest

from agent.web.api import Source, make_app

LINES_MAX = 500
"""One file that a person can read in one sitting."""
MARKUP_SINKS = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "createContextualFragment",
    "DOMParser",
    "setHTMLUnsafe",
    "srcdoc",
    "eval(",
    "new Function",
)


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
async def answer() -> httpx.Response:
    app = make_app(cast("Source", Mock()), commands=False)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://depot") as web:
        return await web.get("/")


def policy_of(answer: httpx.Response) -> dict[str, list[str]]:
    parts = answer.headers["content-security-policy"].split(";")
    words = [part.split() for part in parts]
    return {name: allowed for name, *allowed in words}


async def test_page_may_reach_nothing_but_its_own_daemon(answer: httpx.Response) -> None:
    policy = policy_of(answer)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert policy["default-src"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    for closed in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[closed] == ["'none'"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("tag", ["script", "style"])
async def test_policy_allows_the_pages_own_block_and_no_other(
    answer: httpx.Response, tag: str
) -> None:
    (block,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()

    assert policy_of(answer)[f"{tag}-src"] == [f"'sha256-{digest}'"]


async def test_no_element_needs_what_the_policy_forbids(answer: httpx.Response) -> None:
    for tag, attributes in Elements(answer.text).found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "style" not in attributes, tag
        for name in ("src", "href", "action"):
            target = attributes.get(name) or ""
            assert target == "" or target.startswith(("#", "data:,")), (tag, target)


async def test_texts_of_peers_can_only_become_text(answer: httpx.Response) -> None:
    for sink in MARKUP_SINKS:
        assert sink not in answer.text, sink
    assert not re.search(r"""["']on\w+["']|\.on[a-z]+ *=""", answer.text)
    assert 'setAttribute("style"' not in answer.text


async def test_page_is_one_file_that_needs_no_network(answer: httpx.Response) -> None:
    outside = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+[^\s\"']*", answer.text))

    assert outside <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in answer.text
    assert len(answer.text.splitlines()) < LINES_MAX


async def test_every_part_that_the_script_fills_is_on_the_page(
    answer: httpx.Response,
) -> None:
    filled = set(re.findall(r'(?:byId|fill|table)\("([\w-]+)"', answer.text))
    placed = [attributes.get("id") for _, attributes in Elements(answer.text).found]

    assert len(filled) > 12
    assert filled <= set(placed)
    ids = [name for name in placed if name]
    assert len(ids) == len(set(ids))


async def test_page_asks_only_for_addresses_that_exist(answer: httpx.Response) -> None:
    block = re.search(r"const PATHS = \{(.*?)\}", answer.text)
    assert block is not None
    asked = re.findall(r'"([a-z]+)', block[1])
    app = make_app(cast("Source", Mock()), commands=False)
    known = {getattr(route, "path", "") for route in app.routes}

    assert {f"/api/v1/{name}" for name in asked} <= known
    assert {"status", "stations", "sessions", "plans", "outbox"} <= set(asked)
