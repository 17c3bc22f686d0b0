"""The example connection_limit: who is refused, and when there is room again."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"  # the event loop that matters is the example's


@pytest.fixture
def limited(running):
    """Three streams in all, two per client; none gets further than its first number while a test runs."""
    with running("connection_limit", LIMIT="3", LIMIT_PER_CLIENT="2", INTERVAL="20") as url:
        yield url


class Client:
    """Opens streams and keeps them, from an address of its own: all of 127.0.0.0/8 is this machine."""

    def __init__(self, url, address, stack):
        transport = httpx.HTTPTransport(local_address=address)
        self.http = stack.enter_context(httpx.Client(transport=transport, base_url=url))
        self.streams = []

    def knock(self, path="/numbers"):
        response = self.http.send(self.http.build_request("GET", path), stream=True)
        if response.status_code == 200:
            self.streams.append(response)
        else:
            response.close()
        return response

    def gets_in(self):
        return self.knock().status_code == 200

    def leave(self):
        self.streams.pop().close()


@pytest.fixture
def clients(limited):
    with ExitStack() as stack:
        yield [Client(limited, f"127.0.0.{number}", stack) for number in (2, 3, 4)]


def test_a_client_gets_no_more_than_its_share(clients):
    """The third stream of one address is refused with 429 and Retry-After; another address still gets in."""
    ann, bob, _ = clients
    assert ann.gets_in() and ann.gets_in()
    refused = ann.knock()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert bob.gets_in()


def test_the_process_takes_no_more_than_its_limit(clients):
    """The fourth stream is refused with 503 and Retry-After, whoever asks."""
    ann, bob, eve = clients
    assert ann.gets_in() and ann.gets_in() and bob.gets_in()
    refused = eve.knock()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


@pytest.mark.anyio
async def test_a_hang_up_makes_room_for_the_next(clients, until):
    """Who leaves gives his place back, each time, and to the client's account as well as to the process's."""
    ann, bob, eve = clients
    assert ann.gets_in() and ann.gets_in() and bob.gets_in()
    for _ in range(3):
        assert eve.knock().status_code == 503
        ann.leave()
        await until(eve.gets_in)
        assert ann.knock().status_code == 503
        eve.leave()
        await until(ann.gets_in)
    assert ann.knock().status_code == 429


def test_a_stream_that_ended_is_not_counted(running):
    """The place of a stream that ended by itself is free when the client has read the end."""
    with running("connection_limit", LIMIT="1", INTERVAL="0") as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.get("/numbers/2").text.count("data:") == 2


@pytest.mark.anyio
async def test_a_head_request_takes_no_place(clients, until):
    """HEAD gets the head of a stream and is no stream: its place is given back."""
    ann, *_ = clients
    for _ in range(5):
        assert ann.http.head("/numbers").status_code == 200
    await until(ann.gets_in)
    await until(ann.gets_in)
