"""The live page's files: what is served, under which policy, and that nothing else is."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from streamgate.control import pages

FOLDER = Path(pages.__file__).parent / "console"
# Of the package uplot 1.6.32, as the registry has it.
VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Starlette(routes=pages.pages())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


@pytest.mark.anyio
async def test_every_file_is_served_under_a_policy_that_lets_nothing_in_from_elsewhere(client):
    """Own files only, nothing inline, in nobody's frame, and each of the type it is."""
    for path in ("/", *(f"/console/{name}" for name in pages.FILES)):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff"), path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert (
            answer.headers["content-type"] == pages.CONTENT_TYPES[(path.rpartition(".")[2] if path != "/" else "html")]
        )


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/console/", "/console/index.py", "/console/../admin.py", "/console/uplot/LICENSE"])
async def test_what_is_not_listed_is_not_served(client, path):
    """No path reaches another file."""
    assert (await client.get(path)).status_code == 404


def test_the_list_is_the_folder():
    """A file that was forgotten in the list, or in the folder, is found here and not in a browser."""
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert there == {pages.INDEX, *pages.FILES, "uplot/LICENSE"}


class Referred(HTMLParser):
    """What a page asks for, and what the policy would not let it do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        self.asked += [names[name] for name in ("src", "href") if name in names]
        self.inline += [name for name in names if name.startswith("on") or name == "style"]
        if (tag == "script" and "src" not in names) or tag == "style":
            self.inline.append(tag)


def test_the_page_asks_only_for_what_is_here_and_writes_nothing_as_html():
    """No other host; names of models, which strangers choose, are only ever set as text."""
    page = Referred()
    page.feed((FOLDER / pages.INDEX).read_text())
    assert page.inline == []
    assert set(page.asked) <= {"/streams", *(f"/console/{name}" for name in pages.FILES)}
    for script in FOLDER.glob("*.js"):
        source = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?://", source), (
            script
        )
        assert {f"{name}" for name in re.findall(r'from "\./(.+?)"', source)} <= set(pages.FILES)
        assert source.count("\n") <= 200


def test_the_vendored_charts_are_the_published_ones_and_bring_their_licence():
    """Byte for byte: by their hashes."""
    for name, digest in VENDORED.items():
        assert hashlib.sha256((FOLDER / "uplot" / name).read_bytes()).hexdigest() == digest, name
    assert "Permission is hereby granted" in (FOLDER / "uplot" / "LICENSE").read_text()
