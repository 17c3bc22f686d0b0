"""examples/memory_channel.py"""

from __future__ import annotations

import json
import time

import httpx
from httpx_sse import connect_sse

HOURS = {"INTERVAL": "3600"}


def runners_are(client, expected):
    """Ask until they are, ten seconds at the most; each answer is waited for."""
    deadline = time.monotonic() + 10
    while (seen := {k: v for k, v in client.get("/runners").json().items() if v}) != expected:
        assert time.monotonic() < deadline, seen


def test_two_producers_feed_one_stream(running):
    """All laps of both arrive, each runner's in order, and the stream ends when both have finished."""
    with running("memory_channel", INTERVAL="0.01") as url, httpx.Client(base_url=url, timeout=10) as client:
        with connect_sse(client, "GET", "/laps/5") as source:
            laps = [json.loads(event.data) for event in source.iter_sse()]
        runners_are(client, {"finished": 2})
    for runner in ("hare", "tortoise"):
        assert [each["lap"] for each in laps if each["runner"] == runner] == [1, 2, 3, 4, 5]
    assert len(laps) == 10


def test_producers_are_cancelled_when_the_client_leaves(running):
    """They wait an hour for the next lap; the client leaves, and they stop, by cancellation."""
    with running("memory_channel", **HOURS) as url, httpx.Client(base_url=url, timeout=10) as client:
        with connect_sse(client, "GET", "/laps/1000") as source:
            assert source.response.status_code == 200
            runners_are(client, {"running": 2})
        runners_are(client, {"stopped": 2})


def test_producers_that_wait_for_a_slow_client_are_cancelled_too(running):
    """A producer that waits for room in the channel sees a cancellation, and not a broken channel."""
    with running("memory_channel", INTERVAL="0") as url, httpx.Client(base_url=url, timeout=10) as client:
        with connect_sse(client, "GET", "/laps/100000000") as source:
            events = source.iter_sse()
            assert json.loads(next(events).data)["lap"] == 1
            runners_are(client, {"running": 2})
        runners_are(client, {"stopped": 2})


def test_head_starts_no_race(running):
    """HEAD answers at once, nobody runs, and no half of the channel is left open for the collector to complain of."""
    with running("memory_channel", **HOURS, PYTHONWARNINGS="error", PYTHONDEVMODE="1") as url:
        assert httpx.head(f"{url}/laps/5").status_code == 200
        assert httpx.get(f"{url}/runners").json() == {}


def test_the_shutdown_stops_the_runners(running):
    """A race that has hours to go does not hold up the server's shutdown."""
    with httpx.Client(timeout=10) as client, running("memory_channel", **HOURS) as url:
        response = client.send(client.build_request("GET", f"{url}/laps/5"), stream=True)
        assert response.status_code == 200
