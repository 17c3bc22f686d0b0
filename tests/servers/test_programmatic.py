"""uvicorn as a library: without signals, in threads, several in one process, one after the other."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import EventSourceResponse

if TYPE_CHECKING:
    from servers.conftest import Listen, Listener, Serve

PROMPTLY = 1.0
LATER = 5.0


async def endless() -> AsyncIterator[str]:
    yield "one"
    await anyio.sleep_forever()


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(endless(), ping=0.1)


APP = Starlette(routes=[Route("/stream", stream)])


class Background(uvicorn.Server):
    """uvicorn in a thread, on a loop of its own."""

    def __init__(self, loop: str) -> None:
        super().__init__(uvicorn.Config(APP, port=0, log_level="error", loop=loop))
        self.up = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    async def startup(self, sockets: list[object] | None = None) -> None:
        await super().startup()
        self.up.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/stream"

    def leave(self) -> None:
        self.should_exit = True
        self.thread.join(timeout=LATER)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def background(loop: str) -> Iterator[Background]:
    server = Background(loop)
    server.thread.start()
    try:
        assert server.up.wait(timeout=LATER)
        yield server
    finally:
        server.force_exit = True
        server.leave()


def lives(stream: Listener) -> bool:
    return all(stream.ping().startswith(": ping") for _ in range(3))


def test_main_thread(serve: Serve, listen: Listen, clock: Callable[[], float]) -> None:
    """`server.should_exit = True` ends the streams of a server in the main thread."""
    with serve("own_server", "until-told", "PORT") as server, listen(f"{server.url}/stream") as one:
        assert one.event()
        clock()
        assert httpx.get(f"{server.url}/leave").text == "leaving"
        assert one.rest() == ([], False)
        assert clock() < PROMPTLY
        assert server.ended(within=PROMPTLY) == 0
        assert "done" in server.output and "Traceback" not in server.output


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_other_thread(listen: Listen, clock: Callable[[], float], loop: str) -> None:
    """`server.should_exit = True` ends the streams of a server in another thread, though it can have no signal."""
    with background(loop) as server, listen(server.url) as one:
        assert one.event() == "one"
        clock()
        server.should_exit = True
        assert one.rest() == ([], False)
        server.thread.join(timeout=LATER)
        assert clock() < PROMPTLY and not server.thread.is_alive()


def test_neighbours(listen: Listen) -> None:
    """Two servers in two threads: one that ends leaves the other's streams alone."""
    with (
        background("asyncio") as leaving,
        background("uvloop") as staying,
        listen(leaving.url) as ends,
        listen(staying.url) as lasts,
    ):
        assert ends.event() == lasts.event() == "one"
        leaving.should_exit = True
        assert ends.rest() == ([], False)
        leaving.leave()
        assert lives(lasts)
        with listen(staying.url) as newcomer:
            assert newcomer.event() == "one" and lives(newcomer)


def test_successor(listen: Listen) -> None:
    """Two servers in one process, one after the other: the end of the first says nothing about the second."""
    for _ in range(2):
        with background("asyncio") as server, listen(server.url) as one:
            assert one.event() == "one" and lives(one)
            server.should_exit = True
            assert one.rest() == ([], False)


def test_successor_of_a_server_that_got_sigterm(serve: Serve, listen: Listen, free_port: Callable[[], int]) -> None:
    """A real SIGTERM ends the streams of the server that got it, and none of the server that comes after it."""
    second = free_port()
    with serve("own_server", "one-after-the-other", "PORT", str(second)) as server:
        with listen(f"{server.url}/stream") as one:
            assert one.event()
            server.signal(signal.SIGTERM)
            assert one.rest() == ([], False)
        server.wait_for_port(second)
        with listen(f"http://127.0.0.1:{second}/stream", ping=0.1) as one:
            assert one.event() and lives(one)
            server.signal(signal.SIGTERM)
            assert one.rest() == ([], False)
        assert server.ended(within=2 * PROMPTLY) == 0
        assert "done" in server.output and "Traceback" not in server.output
