"""examples/basic_numbers.py"""

from __future__ import annotations

import httpx
from httpx_sse import connect_sse


def streamed(client, url):
    with connect_sse(client, "GET", url) as source:
        return source.response.headers, list(source.iter_sse())


def test_an_async_generator_becomes_one_event_per_item(running):
    """Each number is the data of one event, and the stream ends with the generator."""
    with running("basic_numbers", INTERVAL="0.01") as url, httpx.Client() as client:
        headers, events = streamed(client, f"{url}/numbers/5")
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event.data for event in events] == ["1", "2", "3", "4", "5"]


def test_a_plain_generator_does_as_well(running):
    """Dicts from a synchronous generator become events with their fields."""
    with running("basic_numbers") as url, httpx.Client() as client:
        _, events = streamed(client, f"{url}/primes/5")
    assert [(event.id, event.data) for event in events] == [("1", "2"), ("2", "3"), ("3", "5"), ("4", "7"), ("5", "11")]


def test_head_has_the_headers_and_starts_nothing(running):
    """HEAD ends at once, though the generator would take an hour, and says what GET says."""
    with running("basic_numbers", INTERVAL="3600") as url:
        for path in ("/numbers/5", "/primes/5"):
            head = httpx.head(url + path, timeout=5)
            assert (head.status_code, head.content) == (200, b"")
            with httpx.stream("GET", url + path) as get:
                differ = {name for name, _ in set(head.headers.items()) ^ set(get.headers.items())}
            assert differ <= {"date", "transfer-encoding", "content-length"}


def test_the_server_ends_with_a_stream_still_open(running):
    """A stream that has an hour to go does not hold up the server's shutdown."""
    with httpx.Client() as client, running("basic_numbers", INTERVAL="3600") as url:
        response = client.send(client.build_request("GET", f"{url}/numbers/5"), stream=True)
        chunks = response.iter_raw()  # held: httpx closes the connection when nobody holds it
        assert next(chunks) == b"data: 1\r\n\r\n"
