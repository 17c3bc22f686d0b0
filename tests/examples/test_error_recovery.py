"""The example error_recovery: on the wire, and in a browser that does what browsers do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from streamgate.sse import iter_events

NUMBERS = [str(number) for number in range(1, 13)]


@pytest.fixture
def page(need) -> Iterator[Page]:
    """A page of headless Chromium."""
    chromium = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            yield browser.new_page()
        finally:
            browser.close()


def test_the_browser_loses_nothing_and_shows_nothing_twice(running, page):
    """Three failures in the middle: the page shows each number once, in order, and knows that it has all."""
    with running("error_recovery", INTERVAL="0.01", RETRY="10") as url:
        asked = []
        page.on("request", lambda request: asked.append(request) if request.url.endswith("/events") else None)
        page.goto(url)
        page.wait_for_function("document.getElementById('state').textContent === 'complete'")
        assert page.locator("#numbers li").all_text_contents() == NUMBERS
        assert page.locator("#troubles").text_content() == "3"
        assert [request.all_headers().get("last-event-id") for request in asked] == [None, "3", "6", "9"]
        assert page.evaluate("source.readyState === EventSource.CLOSED")


def read(url, seen=None):
    headers = {} if seen is None else {"last-event-id": seen}
    response = httpx.get(f"{url}/events", headers=headers)
    return [(event.event, event.id, event.data) for event in iter_events([response.content])]


def test_a_failure_is_told_as_an_event_and_keeps_the_place(running):
    """`trouble` comes after the last number and has no id of its own: the place stays that number's."""
    with running("error_recovery", INTERVAL="0") as url:
        assert read(url) == [("number", n, n) for n in "123"] + [("trouble", None, "source_lost")]
        assert read(url, "9") == [("number", n, n) for n in ("10", "11", "12")] + [("end", None, "")]
        assert "retry: 1000\r\n" in httpx.get(f"{url}/events").text


def test_who_has_everything_is_told_to_stay_away(running):
    """204 after the last number, the status that ends an EventSource; 400 for an id that was never given."""
    with running("error_recovery", INTERVAL="0") as url:
        statuses = {
            seen: httpx.get(f"{url}/events", headers={"last-event-id": seen}).status_code
            for seen in ("12", "13", "eleven", "-1", "9" * 5000)
        }
        assert statuses == {"12": 204, "13": 204, "eleven": 400, "-1": 400, "9" * 5000: 400}
