"""How to test an SSE endpoint: a real server in a thread, and httpx with httpx-sse as its client.

    pytest examples/testing_endpoints.py
    python examples/testing_endpoints.py        # the application under test, to try it by hand:
    curl -N http://127.0.0.1:8000/numbers

Why a server: `httpx.ASGITransport` runs the application to its end and only then hands out the response. An endless
stream never gives it a first event, and it cannot leave in the middle, so the cleanup that matters most goes untested.
Starlette's TestClient does the same before Starlette 1.9; since then it streams, but leaving cancels the application,
where a server tells it of a disconnect. For a stream that ends by itself both will do. A server costs 0.2 s per test.

No test here sleeps: each waits for an event, with a deadline. The deadline of a read is httpx's, 5 s without a byte;
keep it below `ping` (15 s), or the pings of a stream that hangs would keep the test alive.
"""

# ruff: noqa: S101 - tests assert

from __future__ import annotations

import itertools
import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

import anyio
import httpx
import pytest
import uvicorn
from httpx_sse import aconnect_sse, connect_sse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import Ending, EventSourceResponse, ServerSentEvent, last_event_id

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two numbers


def application(interval: float, tell: Callable[[str], None]) -> Starlette:
    """What is tested. Made by a function, so that every test has its own, with what it needs handed in."""

    async def numbers_after(seen: int) -> AsyncIterator[ServerSentEvent]:
        try:
            for number in itertools.count(seen + 1):
                yield ServerSentEvent(number, event="number", id=number)
                await anyio.sleep(interval)
        finally:
            tell("released")  # stands for: what the generator held is given back

    async def numbers(request: Request) -> EventSourceResponse:
        seen = last_event_id(request) or "0"
        if not seen.isdecimal() or len(seen) > 9:
            raise HTTPException(400, "no such event")
        return EventSourceResponse(numbers_after(int(seen)), on_close=lambda account: tell(str(account.ending)))

    return Starlette(routes=[Route("/numbers", numbers)])


app = application(INTERVAL, logging.getLogger("uvicorn.error").info)


@pytest.fixture
def told() -> queue.SimpleQueue[str]:
    """What the application told. A queue, so that a test can wait for what another thread does: `get(timeout=5)`."""
    return queue.SimpleQueue()


@pytest.fixture
def url(told: queue.SimpleQueue[str]) -> Iterator[str]:
    """A server of its own for each test, on a port that is free; its shutdown is tested along the way."""
    server = uvicorn.Server(uvicorn.Config(application(0.01, told.put), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # listens from here on: nobody has to wait for the server
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive(), "the shutdown hangs"


def test_numbers_come_in_order_and_with_ids(url: str) -> None:
    """The stream is endless: read what is needed, then leave it by leaving the `with`."""
    with httpx.Client() as client, connect_sse(client, "GET", f"{url}/numbers") as source:
        assert source.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        first = list(itertools.islice(source.iter_sse(), 3))
    assert [(event.event, event.id, event.data) for event in first] == [("number", n, n) for n in "123"]


def test_a_client_that_leaves_is_cleaned_up_after(url: str, told: queue.SimpleQueue[str]) -> None:
    """The server needs a moment to notice: wait for what it does, do not look whether it has done it."""
    with httpx.Client() as client, connect_sse(client, "GET", f"{url}/numbers") as source:
        events = source.iter_sse()  # held: an iterator that nobody holds is closed, and its connection with it
        assert next(events).id == "1"
        assert told.empty()
    assert told.get(timeout=5) == "released"
    assert told.get(timeout=5) == str(Ending.CLIENT_DISCONNECT)


@pytest.mark.parametrize(("seen", "expected"), [(None, "1"), ("", "1"), ("41", "42")])
def test_a_client_that_comes_back_goes_on_where_it_was(url: str, seen: str | None, expected: str) -> None:
    """`Last-Event-ID` is what an EventSource sends when it connects again."""
    headers = {} if seen is None else {"Last-Event-ID": seen}
    with httpx.Client(headers=headers) as client, connect_sse(client, "GET", f"{url}/numbers") as source:
        assert next(source.iter_sse()).id == expected


def test_an_id_that_was_never_given_is_refused(url: str) -> None:
    assert httpx.get(f"{url}/numbers", headers={"Last-Event-ID": "forty"}).status_code == 400


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_same_with_an_async_client(url: str) -> None:
    """`aclosing`: an async generator that is left early is closed by whoever began it, or by the garbage collector."""
    async with (
        httpx.AsyncClient() as client,
        aconnect_sse(client, "GET", f"{url}/numbers") as source,
        aclosing(source.aiter_sse()) as events,
    ):
        assert [(await anext(events)).id for _ in range(3)] == ["1", "2", "3"]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
