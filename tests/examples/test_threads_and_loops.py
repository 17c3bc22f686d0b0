"""examples/threads_and_loops.py"""

from __future__ import annotations

import contextlib
import itertools

import httpx
import pytest
from httpx_sse import connect_sse


def test_one_thread_feeds_the_streams_of_both_loops(running):
    """What a plain thread publishes reaches streams on two event loops, in order and without a gap."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running("threads_and_loops", INTERVAL="0.01"))
        client = stack.enter_context(httpx.Client(timeout=10))
        neighbour = client.get(f"{url}/neighbour").text
        assert neighbour != url
        assert client.get(f"{neighbour}/neighbour").text == url
        for server in (url, neighbour):
            source = stack.enter_context(connect_sse(client, "GET", f"{server}/readings"))
            ids = [int(event.id) for event in itertools.islice(source.iter_sse(), 20)]
            assert ids == list(range(ids[0], ids[0] + 20))


def test_a_worker_thread_feeds_one_stream(running):
    """Steps of blocking work arrive in order; the client leaves, and the next one begins at the first step."""
    with running("threads_and_loops", INTERVAL="0.01") as url, httpx.Client(base_url=url, timeout=10) as client:
        for _ in range(2):
            with connect_sse(client, "GET", "/steps") as source:
                steps = [event.data for event in itertools.islice(source.iter_sse(), 5)]
            assert steps == [f"step {number}" for number in range(1, 6)]


@pytest.mark.parametrize("path", ["/readings", "/steps"])
def test_both_servers_drain(running, path):
    """At the shutdown the streams of both loops are sent the farewell, and end whole."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=10))
        with running("threads_and_loops", INTERVAL="0.05") as url:
            neighbour = client.get(f"{url}/neighbour").text
            sources = [
                stack.enter_context(connect_sse(client, "GET", server + path)).iter_sse() for server in (url, neighbour)
            ]
            for source in sources:
                assert next(source).data
        # The process is gone; what it had sent is still to be read. A body cut short would raise.
        for source in sources:
            *_, last = source
            assert (last.event, last.data) == ("bye", "the server is closing")
