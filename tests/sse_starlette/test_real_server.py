"""The same applications on real uvicorn: the bytes on the socket and what the application saw, beside sse-starlette's.

| rule | test |
| --- | --- |
| the whole answer, byte for byte, keep-alive included | test_whole_answer |
| HEAD on a connection that goes on | test_head_and_then_get |
| HTTP/1.0 | test_http_1_0 |
| client disconnect, orderly and by reset | test_client_leaves |
| client disconnect while it reads nothing: the content is ended | test_client_that_reads_nothing_leaves |
| the content's error: the answer is cut | test_content_raises |
| server shutdown: the answer is cut, the background runs | test_shutdown |
| server shutdown with event and grace: the answer is whole | test_shutdown_within_grace |
| a second server of the process is not affected by the first one's shutdown | test_second_server |
| shutdown with the automatic drain disabled | test_shutdown_without_drain |
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct

import anyio
import pytest
import uvicorn
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream

PATIENCE = 10.0
X = b"b\r\ndata: x\r\n\r\n\r\n"
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """uvicorn has no trio."""
    return "asyncio", {"use_uvloop": request.param}


class Served:
    """uvicorn on this loop, a raw client, and what the application notes."""

    whole = False  # answers of this scene are to be complete

    def __init__(self, library, make):
        self.library = library
        self.noted = []
        self._news = asyncio.Event()
        app = Starlette(routes=[Route("/", self._endpoint)])
        self._make = make
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5, date_header=False)
        )
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()  # who connects before the server accepts, waits
        self.address = self.socket.getsockname()
        self.writers = []

    async def _endpoint(self, request):
        return self._make(self, request)

    def note(self, what):
        self.noted.append(what)
        self._news.set()

    async def seen(self, what):
        while what not in self.noted:
            self._news.clear()
            await self._news.wait()

    def response(self, content, **options):
        async def closed(message):
            # uvicorn says `http.disconnect` also of an answer that is complete, and sse-starlette then tells it on.
            if not self.whole:
                self.note(f"close handler {message['type']}")

        async def background():
            self.note("background")

        response = self.library.EventSourceResponse(
            content, **{"ping": 0, "client_close_handler_callable": closed} | options
        )
        response.background = BackgroundTask(background)
        return response

    async def content(self):
        try:
            yield "x"
            self.note("waiting")
            await anyio.sleep_forever()
        except BaseException as error:
            self.note(type(error).__name__)
            raise

    async def ask(self, request=b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"):
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        writer.write(request)
        return reader, writer

    @contextlib.asynccontextmanager
    async def running(self):
        async with anyio.create_task_group() as group:
            group.start_soon(self._serve)
            try:
                yield self
            finally:
                self.server.should_exit = True
                for writer in self.writers:
                    writer.transport.abort()

    async def _serve(self):
        await self.server.serve(sockets=[self.socket])
        self.note("server ended")


async def answer(reader):
    """Everything until the server closes."""
    return await reader.read()


@pytest.fixture
def each(ours, theirs, caplog):
    """`await each(make, scene)`: the scene's result and the application's notes, the same from both libraries."""

    async def compared(make, scene):
        found = []
        for library in (ours, theirs):
            with anyio.fail_after(PATIENCE):
                async with Served(library, make).running() as served:
                    result = await scene(served)
                found.append((result, served.noted))
        assert found[0] == found[1]
        return found[0]

    return compared


HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncache-control: no-store\r\nconnection: keep-alive\r\n"
    b"x-accel-buffering: no\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


async def test_whole_answer(each):
    """Every byte of two answers on one connection."""

    def make(served, request):
        return served.response(["x", {"data": 1, "event": "e"}, b": raw\n\n"])

    async def scene(served):
        served.whole = True
        reader, writer = await served.ask(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        first = await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return first, await answer(reader)

    (first, second), noted = await each(make, scene)
    body = X + b"15\r\nevent: e\r\ndata: 1\r\n\r\n\r\n7\r\n: raw\n\n\r\n0\r\n\r\n"
    assert first == HEAD + body
    assert second.endswith(body)
    assert noted == ["background", "background", "server ended"]


async def test_head_and_then_get(each):
    """A HEAD has no body, and the connection serves the next request."""

    def make(served, request):
        return served.response(["x"])

    async def scene(served):
        served.whole = True
        reader, writer = await served.ask(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        return head, await reader.readuntil(b"0\r\n\r\n")

    (head, whole), noted = await each(make, scene)
    assert head == HEAD.replace(b"transfer-encoding: chunked\r\n", b"")
    assert whole == HEAD + X + b"0\r\n\r\n"
    assert noted == ["background", "background", "server ended"]


async def test_http_1_0(each):
    """An answer to HTTP/1.0 ends with the connection."""

    def make(served, request):
        return served.response(["x", "y"])

    async def scene(served):
        served.whole = True
        reader, _ = await served.ask(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        return await answer(reader)

    whole, _ = await each(make, scene)
    assert re.sub(rb"\r\n[0-9a-f]*\r\n", b"\r\n", whole).endswith((b"data: x\r\n\r\ndata: y\r\n\r\n", b"\r\n"))


@pytest.mark.parametrize("reset", [False, True])
async def test_client_leaves(each, reset):
    """The close handler is told, the content cancelled, the background task run; by FIN or by RST."""

    def make(served, request):
        return served.response(served.content())

    async def scene(served):
        reader, writer = await served.ask()
        found = await reader.readuntil(X)
        await served.seen("waiting")
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
        await served.seen("background")
        return found

    found, noted = await each(make, scene)
    assert found == HEAD + X
    assert noted == ["waiting", "close handler http.disconnect", "CancelledError", "background", "server ended"]


async def test_client_that_reads_nothing_leaves(each, until):
    """Content that is held at its `yield` by a full connection is ended when the client goes."""

    def make(served, request):
        async def content():
            try:
                while True:
                    yield b"x" * 65536
                    await checkpoint()  # else sse-starlette would keep the loop for itself
            except BaseException:  # GeneratorExit, or CancelledError: uvicorn lets go of a `send` whose client is gone
                served.note("content ended")
                raise

        return served.response(content())

    async def scene(served):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, served.address)
        await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        connections = served.server.server_state.connections
        await until(lambda: any(connection.flow.write_paused for connection in connections))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
        await served.seen("background")

    _, noted = await each(make, scene)
    assert noted == ["close handler http.disconnect", "content ended", "background", "server ended"]


async def test_content_raises(each):
    """The answer is cut: no client takes it for whole."""

    def make(served, request):
        async def content():
            yield "x"
            raise LookupError("boom")

        return served.response(content())

    async def scene(served):
        reader, _ = await served.ask()
        return await answer(reader)

    assert await each(make, scene) == (HEAD + X, ["server ended"])


async def test_shutdown(each):
    """`should_exit` of the server ends its streams: the answer is cut, content cancelled, background run."""

    def make(served, request):
        return served.response(served.content())

    async def scene(served):
        reader, _ = await served.ask()
        await served.seen("waiting")
        served.server.should_exit = True
        found = await answer(reader)
        await served.seen("server ended")
        return found

    assert await each(make, scene) == (HEAD + X, ["waiting", "CancelledError", "background", "server ended"])


async def test_shutdown_within_grace(each):
    """Content that ends within the grace period has a whole answer."""

    def make(served, request):
        event = anyio.Event()

        async def content():
            yield "x"
            served.note("waiting")
            await event.wait()
            yield "x"

        return served.response(content(), shutdown_event=event, shutdown_grace_period=4)

    async def scene(served):
        served.whole = True
        reader, _ = await served.ask()
        await served.seen("waiting")
        served.server.should_exit = True
        found = await answer(reader)
        await served.seen("server ended")
        return found

    assert await each(make, scene) == (HEAD + X + X + b"0\r\n\r\n", ["waiting", "background", "server ended"])


async def test_second_server(each, ours, theirs):
    """The next server of the process streams."""

    def make(served, request):
        return served.response(served.content() if request.query_params else ["x"])

    async def scene(served):
        served.whole = True
        async with Served(served.library, make).running() as first:
            _, _ = await first.ask(b"GET /?wait HTTP/1.1\r\nhost: a\r\n\r\n")
            await first.seen("waiting")
            first.server.should_exit = True
            await first.seen("server ended")
        reader, _ = await served.ask()
        return await reader.readuntil(b"0\r\n\r\n")

    found, noted = await each(make, scene)
    assert found == HEAD + X + b"0\r\n\r\n"
    assert noted == ["background", "server ended"]


async def test_shutdown_without_drain(each):
    """With the automatic drain disabled a stream goes on until the switch is set."""

    def make(served, request):
        return served.response(served.content())

    async def scene(served):
        served.library.AppStatus.disable_automatic_graceful_drain()
        reader, _ = await served.ask()
        await served.seen("waiting")
        served.server.should_exit = True
        with pytest.raises(OSError):  # from here on it is shutting down
            while True:
                _, writer = await asyncio.open_connection(*served.address)
                writer.transport.abort()
        for _ in range(10):
            await checkpoint()
        noted = list(served.noted)
        served.library.AppStatus.should_exit = True
        found = await answer(reader)
        await served.seen("server ended")
        served.library.AppStatus.should_exit = False
        return noted, found

    (before, found), noted = await each(make, scene)
    assert before == ["waiting"]
    assert found == HEAD + X
    assert noted == ["waiting", "CancelledError", "background", "server ended"]
