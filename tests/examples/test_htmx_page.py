"""The example htmx_page: its fragments on the wire, and the page in a browser with the real htmx."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse
from playwright.sync_api import Page, sync_playwright

# The wheel of django-htmx brings htmx 2 and its SSE extension; Django itself is not imported.
SCRIPTS = {"**/htmx.min.js": "htmx-2.min.js", "**/sse.min.js": "ext/hx-sse-2.min.js"}
WRITTEN = {"name": "Ann <b>", "text": "one & two\n</pre><script>alert(1)</script>\nthree"}
FRAGMENT = """<li>
  <b>Ann &lt;b&gt;</b>
  <pre>one &amp; two
&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;
three</pre>
</li>"""


def answer_with(page: Page, pattern: str, file: Path) -> None:
    page.route(pattern, lambda route: route.fulfill(path=file))


@pytest.fixture
def page(need) -> Iterator[Page]:
    """A page of headless Chromium that gets htmx from the wheel and nothing else from elsewhere."""
    chromium = need("chromium")
    found = importlib.util.find_spec("django_htmx")
    assert found is not None and found.origin is not None, "django-htmx is not installed"
    scripts = Path(found.origin).parent / "static" / "django_htmx"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            page = browser.new_page()
            for pattern, script in SCRIPTS.items():
                answer_with(page, pattern, scripts / script)
            yield page
        finally:
            browser.close()


def test_a_fragment_keeps_its_lines_and_is_escaped_once(running):
    """A line of the fragment is a `data:` line; what somebody wrote cannot become HTML, nor an event of its own."""
    with running("htmx_page") as url, httpx.Client(base_url=url) as client:
        assert client.post("/messages", data=WRITTEN).status_code == 204
        with connect_sse(client, "GET", "/events") as source:
            events = source.iter_sse()
            message, count = next(events), next(events)
        assert (message.event, message.id, message.data) == ("message", "1", FRAGMENT)
        assert (count.event, count.data) == ("count", "1")


def test_who_comes_back_gets_what_was_missed(running):
    """With Last-Event-ID the events after that one come, for a newcomer those that are kept."""
    with running("htmx_page") as url, httpx.Client(base_url=url) as client:
        for number in (1, 2):
            client.post("/messages", data={"name": "Bob", "text": f"no. {number}"})
        with connect_sse(client, "GET", "/events", headers={"last-event-id": "1-count"}) as source:
            events = source.iter_sse()
            assert [next(events).id for _ in range(2)] == ["2", "2-count"]


def test_a_form_that_is_too_long_or_not_filled_in_is_refused(running):
    """413 and 422, and nobody is told."""
    with running("htmx_page") as url, httpx.Client(base_url=url) as client:
        assert client.post("/messages", data={"name": "Bob", "text": "x" * 10_000}).status_code == 413
        assert client.post("/messages", data={"name": "Bob"}).status_code == 422
        client.post("/messages", data=WRITTEN)
        with connect_sse(client, "GET", "/events") as source:
            assert next(source.iter_sse()).id == "1"


def test_the_page_shows_what_is_written(running, page):
    """htmx appends each message once and as it was written, replaces the count, and empties the form."""
    with running("htmx_page") as url:
        page.goto(url)
        httpx.post(f"{url}/messages", data=WRITTEN)
        page.wait_for_selector("#messages li")
        page.fill("input[name=name]", "Bob")
        page.fill("textarea", "first\nsecond")
        page.click("button")
        page.wait_for_function("document.querySelector('#count').textContent === '2'")
        assert page.locator("#messages b").all_text_contents() == ["Ann <b>", "Bob"]
        assert page.locator("#messages pre").all_text_contents() == [WRITTEN["text"], "first\nsecond"]
        assert page.locator("#messages script").count() == 0
        page.wait_for_function("document.querySelector('textarea').value === ''")
