"""examples/broadcast.py"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time

import httpx
from httpx_sse import connect_sse


def test_every_subscriber_gets_every_event(running):
    """Three subscribers read the same events, each in order and without a gap."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running("broadcast", INTERVAL="0.01"))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=10))
        sources = [stack.enter_context(connect_sse(client, "GET", "/prices")).iter_sse() for _ in range(3)]
        read = [list(itertools.islice(source, 30)) for source in sources]
        assert client.get("/subscribers").json() == {"subscribers": 3, "disconnected": 0}
    prices: dict[str, str] = {}
    for events in read:
        first = int(events[0].id)
        assert [int(event.id) for event in events] == list(range(first, first + 30))
        assert {event.event for event in events} == {"price"}
        assert all(prices.setdefault(event.id, event.data) == event.data for event in events)


def test_who_comes_back_gets_what_was_missed(running):
    """Last-Event-ID brings the kept events after it first, then the new ones."""
    with running("broadcast", INTERVAL="0.01") as url, httpx.Client(base_url=url, timeout=10) as client:
        with connect_sse(client, "GET", "/prices") as source:
            last = int(list(itertools.islice(source.iter_sse(), 5))[-1].id)
        with connect_sse(client, "GET", "/prices") as source:  # meanwhile others go on
            assert int(list(itertools.islice(source.iter_sse(), 10))[-1].id) >= last + 10
        with connect_sse(client, "GET", "/prices", headers={"last-event-id": str(last)}) as source:
            ids = [int(event.id) for event in itertools.islice(source.iter_sse(), 30)]
    assert ids == list(range(last + 1, last + 31))


def test_a_subscriber_that_does_not_read_is_disconnected(running):
    """Its queue fills up behind the socket's buffers; it loses its place, and the producer goes on."""
    with running("broadcast", INTERVAL="0") as url, httpx.Client(base_url=url, timeout=10) as client:
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as sluggard:
            sluggard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sluggard.connect((host, int(port)))
            sluggard.sendall(b"GET /prices HTTP/1.1\r\nHost: example\r\n\r\n")
            deadline = time.monotonic() + 30
            while client.get("/subscribers").json() != {"subscribers": 0, "disconnected": 1}:
                assert time.monotonic() < deadline


def test_the_shutdown_ends_all_streams(running):
    """Streams that are open when the server is told to end do not hold it up."""
    with httpx.Client(timeout=10) as client, running("broadcast", INTERVAL="0.01") as url:
        requests = [client.build_request("GET", f"{url}/prices") for _ in range(3)]
        streams = [client.send(request, stream=True).iter_raw() for request in requests]
        assert all(next(chunks).startswith(b"id: ") for chunks in streams)
