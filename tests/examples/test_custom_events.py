"""examples/custom_events.py"""

from __future__ import annotations

import subprocess

import httpx
import pytest
from httpx_sse import connect_sse

FAST = {"INTERVAL": "0.01"}


def events_after(url, last=None):
    headers = {} if last is None else {"last-event-id": last}
    with httpx.Client() as client, connect_sse(client, "GET", f"{url}/events", headers=headers) as source:
        return list(source.iter_sse())


def test_events_have_names_ids_and_a_retry_time(running):
    """What the generator put into the fields is what the client reads out of them."""
    with running("custom_events", **FAST) as url:
        first, *events = events_after(url)
    assert (first.retry, first.data, first.id) == (500, "", "")
    assert [(event.event, event.id, event.data) for event in events] == [
        ("odd", "1", "number 1"),
        ("even", "2", "number 2"),
        ("odd", "3", "number 3"),
        ("even", "4", "number 4"),
        ("odd", "5", "number 5"),
    ]


def test_a_client_that_comes_back_is_sent_what_follows(running):
    """The stream goes on after Last-Event-ID: nothing twice, nothing missing."""
    with running("custom_events", **FAST) as url:
        *_, last = events_after(url)
        ids = [event.id for event in events_after(url, last.id) if event.data]
    assert ids == ["6", "7", "8", "9", "10"]


@pytest.mark.parametrize("foreign", ["", "abc", "-3", "²", "1e3"])
def test_an_id_of_somebody_else_begins_at_the_beginning(running, foreign):
    """Last-Event-ID is the client's word: what is no id of ours is no error either."""
    with running("custom_events", **FAST) as url:
        ids = [event.id for event in events_after(url, foreign.encode()) if event.data]
    assert ids == ["1", "2", "3", "4", "5"]


def test_the_page_lists_them_across_connections(running, need, tmp_path):
    """A browser connects again by itself, with the last id it saw, and the page misses no event."""
    chromium = need("chromium")
    with running("custom_events", **FAST) as url:
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=3000", "--dump-dom", f"{url}/",
        ]  # fmt: skip
        page = subprocess.run(command, capture_output=True, text=True, timeout=45, check=True).stdout
    seen = page.partition('<ol id="seen">')[2].partition("</ol>")[0]
    listed = [line for line in seen.replace("</li>", "").split("<li>") if line]
    assert len(listed) > 5, page
    assert listed == [f"{'odd' if n % 2 else 'even'} number {n} (id {n})" for n in range(1, len(listed) + 1)]
