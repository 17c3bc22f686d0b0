"""Both outlets keep one contract: the server's own on our guard, and plain ASGI on uvicorn's own protocols."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.background import BackgroundTask
from uvicorn import Config, Server

from streamgate.edge.census import Census
from streamgate.edge.guard import GuardSettings
from streamgate.edge.sockets import listen
from streamgate.sse import (
    EventSourceResponse,
    Farewell,
    Lost,
    Outlet,
    OutletSettings,
    SendTimeoutError,
    ServerSentEvent,
)
from streamgate.sse.outlet import HIGH_WATER
from tests.ports import sockets_at
from tests.wire.edge_server import GET, Client, Edge, serve
from tests.wire.raw_requests import Answer, read_answer

pytestmark = pytest.mark.anyio

Until = Callable[..., Awaitable[None]]
Say = Callable[[Outlet], Awaitable[Farewell]]
HEAD = GET.replace(b"GET", b"HEAD")
OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0")
SSE = ((b"content-type", b"text/event-stream"),)
QUIET = OutletSettings(heartbeat=0, send=0)
PATIENCE = 5.0
ITEM = b"data: " + b"x" * 4000 + b"\n\n"


@asynccontextmanager
async def plain(app: Any, http: str, *, send_buffer: int, user_timeout: float) -> AsyncIterator[Edge]:
    """uvicorn as it comes, with one of its own HTTP protocols."""
    config = Config(app, http=http, ws="none", lifespan="off", log_config=None, access_log=False)  # type: ignore[arg-type]
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    sockets = listen("127.0.0.1:0", user_timeout=user_timeout, send_buffer=send_buffer)
    await server.startup(sockets=sockets)
    site = Edge(server, sockets[0].getsockname(), Census())
    try:
        yield site
    finally:
        for client in site.clients:
            await client.close()
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            _, left = await asyncio.wait(server.server_state.tasks, timeout=5.0)
            assert not left, left


class Site:
    """An application that answers each request with what `make` gives, and notes how that ended."""

    def __init__(self, make: Callable[[], EventSourceResponse]) -> None:
        self.make = make
        self.tasks: list[asyncio.Task[Any]] = []
        self.endings: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self.make()(scope, receive, send)
        except BaseException as error:
            self.endings.put_nowait(error)
            raise
        self.endings.put_nowait(None)

    async def ended(self) -> BaseException | None:
        return await asyncio.wait_for(self.endings.get(), PATIENCE)


class Told:
    """A Feed that does what the test says."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.outlets: list[Outlet] = []

    async def into(self, outlet: Outlet) -> Farewell:
        self.outlets.append(outlet)
        return await self.say(outlet)


Serving = Callable[..., AbstractAsyncContextManager[Edge]]


@pytest.fixture(params=["edge", "httptools", "h11"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serving(kind: str) -> Serving:
    """`async with serving(app) as site`: the server of this kind."""

    def started(app: Any, *, send_buffer: int = 131072, user_timeout: float = 5.0) -> AbstractAsyncContextManager[Edge]:
        if kind == "edge":
            return serve(app, GuardSettings(send=user_timeout), send_buffer=send_buffer)
        return plain(app, kind, send_buffer=send_buffer, user_timeout=user_timeout)

    return started


def fed(say: Say, settings: OutletSettings = QUIET) -> tuple[Site, Told]:
    told = Told(say)
    return Site(lambda: EventSourceResponse(told, settings=settings)), told


def now() -> float:
    return time.monotonic()


def never() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def silence(seconds: float) -> None:
    """Nothing happens for a while, so that what must not happen could."""
    await asyncio.wait([never()], timeout=seconds)


async def asked(site: Edge, request: bytes = GET, *, reads: bool = True) -> Client:
    client = await site.connect(reads=reads)
    await client.send(request)
    return client


async def answer(client: Client, *, head_only: bool = False) -> Answer:
    async with asyncio.timeout(PATIENCE):
        return await read_answer(client.reader, head_only=head_only)


async def broken_answer(client: Client) -> bytes:
    """All bytes of an answer that must not end as if it were whole."""
    raw = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while piece := await client.reader.read(65536):
                raw += piece
    assert b"\r\n0\r\n\r\n" not in raw, "the body ended as if it were whole"
    return raw


def header(response: Answer, name: bytes) -> list[bytes]:
    lines = [line.partition(b": ") for line in response.head.split(b"\r\n")]
    return [value for each, _, value in lines if each.lower() == name]


# ------------------------------------------------------------------------------------------------ content


async def agen() -> AsyncIterator[str]:
    for word in ("one", "two", "three"):
        yield word
        await checkpoint()


def sync_gen() -> Iterator[str]:
    yield from ("one", "two", "three")


THREE = b"data: one\r\n\r\ndata: two\r\n\r\ndata: three\r\n\r\n"


@pytest.mark.parametrize("content", [agen, sync_gen, lambda: ["one", "two", "three"]], ids=["agen", "gen", "list"])
async def test_whatever_can_be_iterated_is_streamed_whole(serving: Serving, content: Callable[[], Any]) -> None:
    """Head, every item, proper end; and the connection takes the next request."""
    site = Site(lambda: EventSourceResponse(content(), headers={"X-Name": "value"}))
    async with serving(site) as server:
        client = await asked(server)
        for _ in range(3):
            response = await answer(client)
            assert (response.status, response.body) == (200, THREE)
            assert header(response, b"content-type") == [b"text/event-stream; charset=utf-8"]
            assert header(response, b"cache-control") == [b"no-store"]
            assert header(response, b"x-accel-buffering") == [b"no"]
            assert header(response, b"x-name") == [b"value"]
            assert header(response, b"transfer-encoding") == [b"chunked"]
            assert await site.ended() is None
            await client.send(GET)
        await answer(client)
        assert len(server.connections) == 1


async def test_items_may_be_events_dicts_and_bytes(serving: Serving) -> None:
    """Each in its own way, with the separator that was asked for."""

    async def mixed() -> AsyncIterator[Any]:
        yield ServerSentEvent("a", event="x", sep="\n")
        yield {"data": "b", "id": "1"}
        yield b": raw\n\n"
        yield 5

    site = Site(lambda: EventSourceResponse(mixed(), 201, sep="\n"))
    async with serving(site) as server:
        response = await answer(await asked(server))
        assert response.status == 201
        assert response.body == b"event: x\ndata: a\n\nid: 1\ndata: b\n\n: raw\n\ndata: 5\n\n"


async def test_an_iterable_starts_its_head_at_once(serving: Serving) -> None:
    """The client knows that it was heard before the first item is there."""
    go = asyncio.Event()

    async def late() -> AsyncIterator[str]:
        await go.wait()
        yield "late"

    site = Site(lambda: EventSourceResponse(late()))
    async with serving(site) as server:
        client = await asked(server)
        head = await client.until(b"\r\n\r\n")
        assert b" 200 " in head and b"text/event-stream" in head
        go.set()
        assert b"data: late\r\n\r\n" in await client.until(b"0\r\n\r\n")


async def test_a_feed_starts_its_head_when_it_likes(serving: Serving) -> None:
    """Until then nothing is sent, and the status is still open."""
    go = asyncio.Event()

    async def say(outlet: Outlet) -> Farewell:
        assert not outlet.started
        await go.wait()
        assert not outlet.started
        outlet.start(418, [*SSE, (b"x-late", b"yes")])
        assert outlet.started
        outlet.write(b"data: tea\n\n", now())
        return Farewell()

    app, told = fed(say)
    async with serving(app) as server:
        client = await asked(server)
        while not told.outlets:
            await checkpoint()
        await silence(0.02)
        assert not client.reader._buffer  # type: ignore[attr-defined]
        go.set()
        response = await answer(client)
        assert (response.status, response.body) == (418, b"data: tea\n\n")
        assert header(response, b"x-late") == [b"yes"]


async def test_a_feed_that_never_starts_is_the_servers_to_answer(serving: Serving) -> None:
    """An outlet that was not started has no claim on the response: the server says 500."""

    async def say(outlet: Outlet) -> Farewell:
        return Farewell(b"nobody reads this")

    app, _ = fed(say)
    async with serving(app) as server:
        response = await answer(await asked(server))
        assert response.status == 500
        assert b"nobody" not in response.body


async def test_the_head_is_written_once(serving: Serving) -> None:
    """A second start, as after an early commit, changes nothing."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.start(500, ())
        outlet.write(b"data: x\n\n", now())
        return Farewell()

    app, _ = fed(say)
    async with serving(app) as server:
        response = await answer(await asked(server))
        assert (response.status, response.body) == (200, b"data: x\n\n")


async def test_nothing_is_written_after_the_end(serving: Serving) -> None:
    """Neither a frame nor a second end: the next response on the connection is what comes next."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        await outlet.finish(b"data: last\n\n", whole=True)
        outlet.write(b"data: too late\n\n", now())
        return Farewell(b"data: later still\n\n")

    app, _ = fed(say)
    async with serving(app) as server:
        client = await asked(server)
        for _ in range(2):
            assert (await answer(client)).body == b"data: last\n\n"
            assert await app.ended() is None
            await client.send(GET)
        assert (await answer(client)).status == 200


async def test_a_background_task_runs_after_the_last_byte(serving: Serving) -> None:
    """As with every response of Starlette's."""
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    site = Site(lambda: EventSourceResponse(agen(), background=BackgroundTask(work)))
    async with serving(site) as server:
        assert (await answer(await asked(server))).body == THREE
        await asyncio.wait_for(done.wait(), PATIENCE)


# ------------------------------------------------------------------------------------------------ the head and pings


@pytest.mark.parametrize("seconds", [0.0, 0.05])
async def test_an_early_commit_sends_the_head_without_the_content(serving: Serving, seconds: float) -> None:
    """At once or later; the content finds `started` true and writes on behind the head that was promised."""
    go = asyncio.Event()

    async def say(outlet: Outlet) -> Farewell:
        await go.wait()
        assert outlet.started
        outlet.write(b"data: at last\n\n", now())
        return Farewell()

    settings = OutletSettings(heartbeat=0, early_commit=seconds, early_headers=(*SSE, (b"x-early", b"1")))
    app, _ = fed(say, settings)
    async with serving(app) as server:
        began = now()
        client = await asked(server)
        head = await client.until(b"\r\n\r\n")
        assert seconds <= now() - began + 0.001 < seconds + 1
        assert b" 200 " in head and b"x-early: 1" in head
        go.set()
        assert b"data: at last\n\n" in await client.until(b"0\r\n\r\n")


async def test_content_that_starts_in_time_is_not_committed_early(serving: Serving) -> None:
    """Its own status and headers stand, however long it is silent afterwards."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(202, SSE)
        await silence(0.1)
        return Farewell(b"data: end\n\n")

    app, _ = fed(say, OutletSettings(heartbeat=0, early_commit=0.03, early_headers=((b"x-early", b"1"),)))
    async with serving(app) as server:
        response = await answer(await asked(server))
        assert (response.status, response.body) == (202, b"data: end\n\n")
        assert header(response, b"x-early") == []


async def test_silence_is_filled_between_frames(serving: Serving, until: Until) -> None:
    """Pings stand between whole frames, are counted, and stop with the end of the response."""
    frames = [b"data: 1\n\n", b"data: 2\n\n"]

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        for count, frame in enumerate(frames, 1):
            outlet.write(frame, now())
            await until(lambda count=count: outlet.pings >= 2 * count)
        return Farewell(b"data: bye\n\n")

    app, told = fed(say, OutletSettings(heartbeat=0.03, ping=b": ping\n"))
    async with serving(app) as server:
        client = await asked(server)
        body = (await answer(client)).body
        pings = told.outlets[0].pings
        assert await app.ended() is None
        await silence(0.12)
        assert told.outlets[0].pings == pings, "pinged after the end"
        assert not client.reader._buffer  # type: ignore[attr-defined]
        assert body.count(b": ping\n") == pings >= 4
        first, second = (part.count(b": ping\n") for part in body.partition(frames[1])[::2])
        assert first >= 2 and second >= 2
        assert body.replace(b": ping\n", b"") == frames[0] + frames[1] + b"data: bye\n\n"
        await client.send(GET)
        assert (await answer(client)).status == 200


async def test_frames_in_time_leave_no_room_for_pings(serving: Serving) -> None:
    """The heartbeat is measured from the last byte written, and there is none before the head."""

    async def say(outlet: Outlet) -> Farewell:
        await silence(0.3)
        assert outlet.pings == 0
        outlet.start(200, SSE)
        for _ in range(10):
            outlet.write(b"data: x\n\n", now())
            await silence(0.03)
        return Farewell()

    app, told = fed(say, OutletSettings(heartbeat=0.2))
    async with serving(app) as server:
        assert (await answer(await asked(server))).body == b"data: x\n\n" * 10
        assert told.outlets[0].pings == 0


@pytest.mark.parametrize("how", ["beats", "heartbeat", "ping"])
async def test_a_body_that_is_not_events_gets_no_pings(serving: Serving, how: str) -> None:
    """They would be part of it: turned off by the content, by the settings, or by a family without a ping."""

    async def say(outlet: Outlet) -> Farewell:
        if how == "beats":
            outlet.beats = False
        outlet.start(200, ((b"content-type", b"application/x-ndjson"),))
        outlet.write(b"{}\n", now())
        await silence(0.15)
        outlet.write(b"{}\n", now())
        return Farewell()

    settings = OutletSettings(heartbeat=0.0 if how == "heartbeat" else 0.02, ping=b"" if how == "ping" else b": ping\n")
    app, told = fed(say, settings)
    async with serving(app) as server:
        assert (await answer(await asked(server))).body == b"{}\n{}\n"
        assert told.outlets[0].pings == 0


async def test_an_iterables_silence_is_filled_too(serving: Serving) -> None:
    """`ping` is the heartbeat in seconds."""

    async def slow() -> AsyncIterator[str]:
        yield "a"
        await silence(0.2)
        yield "b"

    site = Site(lambda: EventSourceResponse(slow(), ping=0.05))
    async with serving(site) as server:
        body = (await answer(await asked(server))).body
        pings = re.findall(rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00\r\n\r\n", body)
        assert 1 <= len(pings) <= 4
        assert body == b"data: a\r\n\r\n" + b"".join(pings) + b"data: b\r\n\r\n"


# ------------------------------------------------------------------------------------------------ framing


async def test_an_end_that_is_not_whole_has_no_last_chunk(serving: Serving) -> None:
    """The last words arrive, and then the connection ends without the terminating chunk."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        return Farewell(b"event: error\n\n", whole=False)

    app, _ = fed(say)
    async with serving(app) as server:
        raw = await broken_answer(await asked(server))
        assert b"data: 1\n\n" in raw and b"event: error\n\n" in raw


@pytest.mark.parametrize("words", [None, b"", b"data: bye\n\n"])
async def test_the_farewell_is_the_last_that_is_written(serving: Serving, words: bytes | None) -> None:
    """After every frame and before the proper end; nothing is also something to say."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        return Farewell(words)

    app, _ = fed(say)
    async with serving(app) as server:
        client = await asked(server)
        assert (await answer(client)).body == b"data: 1\n\n" + (words or b"")
        await client.send(GET)
        assert (await answer(client)).status == 200


async def test_head_gets_headers_and_never_touches_the_content(serving: Serving) -> None:
    """No item is asked for; the connection stays."""
    touched: list[str] = []

    class Items:
        def __iter__(self) -> Iterator[str]:
            touched.append("iterated")
            return iter("abc")

    site = Site(lambda: EventSourceResponse(Items(), headers={"x-name": "value"}))
    async with serving(site) as server:
        client = await asked(server, HEAD)
        for _ in range(2):
            response = await answer(client, head_only=True)
            assert response.status == 200
            assert header(response, b"content-type") == [b"text/event-stream; charset=utf-8"]
            assert header(response, b"x-name") == [b"value"]
            assert await site.ended() is None
            await client.send(HEAD)
        assert (await answer(client, head_only=True)).status == 200
    assert touched == []


async def test_head_of_a_feed(serving: Serving) -> None:
    """The headers that an early commit would send, and `into` is not called."""

    async def say(outlet: Outlet) -> Farewell:
        raise AssertionError

    app, told = fed(say, OutletSettings(early_headers=(*SSE, (b"x-early", b"1"))))
    async with serving(app) as server:
        client = await asked(server, HEAD)
        response = await answer(client, head_only=True)
        assert (response.status, header(response, b"x-early")) == (200, [b"1"])
        await client.send(HEAD)
        assert (await answer(client, head_only=True)).status == 200
    assert told.outlets == []


async def test_http_1_0_gets_everything_and_then_the_connection_ends(serving: Serving, kind: str) -> None:
    """Without chunks, except from uvicorn's httptools protocol (ours is one), which sends them to anybody."""
    site = Site(lambda: EventSourceResponse(agen()))
    async with serving(site) as server:
        client = await asked(server, OLD)
        response = await answer(client)
        assert response.body == THREE
        assert await client.ended()
        assert header(response, b"transfer-encoding") == ([] if kind == "h11" else [b"chunked"])
        assert header(response, b"connection")[-1] == b"close"


async def test_a_body_with_a_length_is_not_chunked(serving: Serving) -> None:
    """An answer that is known whole goes out as it is, in as many pieces as it likes, and the connection stays."""

    async def say(outlet: Outlet) -> Farewell:
        outlet.beats = False
        outlet.start(404, ((b"content-type", b"application/json"), (b"content-length", b"12")))
        outlet.write(b'{"error"', now())
        return Farewell(b": 1}")

    app, _ = fed(say)
    async with serving(app) as server:
        client = await asked(server)
        for _ in range(3):
            response = await answer(client)
            assert (response.status, response.body) == (404, b'{"error": 1}')
            assert header(response, b"transfer-encoding") == []
            await client.send(GET)
        await answer(client)
        assert len(server.connections) == 1


# ------------------------------------------------------------------------------------------------ slow clients


async def test_a_slow_reader_gets_everything(serving: Serving) -> None:
    """Pausing and resuming the content as often as it takes, no byte is lost or doubled."""
    count = 300

    async def flood() -> AsyncIterator[bytes]:
        for number in range(count):
            yield b"data: %06d" % number + b"x" * 4000 + b"\n\n"

    site = Site(lambda: EventSourceResponse(flood(), send_timeout=PATIENCE))
    async with serving(site, send_buffer=16384) as server:
        client = await asked(server, reads=False)
        for _ in range(20):
            await checkpoint()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        body = (await answer(client)).body
        numbers = [int(event[6:12]) for event in body.split(b"\n\n") if event]
        assert numbers == list(range(count))
        assert await site.ended() is None


class Tap:
    """A source that writes until it is paused, and notes how much that was."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.open = asyncio.Event()
        self.open.set()
        self.paused = asyncio.Event()
        self.written = 0

    def pause(self) -> None:
        self.open.clear()
        self.paused.set()

    def resume(self) -> None:
        self.open.set()

    async def run(self) -> None:
        while True:
            await self.open.wait()
            self.outlet.write(ITEM, now())
            self.written += len(ITEM)
            await checkpoint()


# What may be under way to a client that does not read: the outlet's high water and one item, uvicorn's own buffer of
# 64 KiB, and what the kernel takes with the small buffers of these tests.
UNDERWAY = HIGH_WATER + len(ITEM) + 65536 + 131072


async def test_a_feed_is_paused_and_its_client_lost_to_the_send_clock(serving: Serving, until: Until) -> None:
    """The source is paused, what is kept is bounded, the loss is told once as slow, and the socket is gone."""
    taps: list[Tap] = []
    lost: list[tuple[Lost, float]] = []

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        taps.append(tap := Tap(outlet))
        outlet.attach(tap)
        gone = never()
        outlet.on_lost(lambda why: (lost.append((why, now())), gone.set_result(None)))  # type: ignore[func-returns-value]
        running = asyncio.get_running_loop().create_task(tap.run())
        try:
            await asyncio.wait_for(gone, PATIENCE)
        finally:
            running.cancel()
        return Farewell(b"data: bye\n\n")

    app, told = fed(say, OutletSettings(heartbeat=0.05, send=0.4))
    async with serving(app, send_buffer=16384, user_timeout=0.4) as server:
        await asked(server, reads=False)
        await until(lambda: taps and taps[0].paused.is_set())
        paused_at, written = now(), taps[0].written
        assert await app.ended() is None
        ((why, when),) = lost
        assert why is Lost.SLOW and told.outlets[0].lost is Lost.SLOW
        assert 0.3 < when - paused_at < 1.5
        assert taps[0].written == written, "it was asked for more while nothing drained"
        assert written <= UNDERWAY
        assert told.outlets[0].pings == 0, "a client that does not read is not kept warm"
        await until(lambda: not server.connections and sockets_at(server.address[1]) == 0, 2.0)


async def test_an_iterable_is_not_asked_for_what_nobody_takes(serving: Serving, until: Until) -> None:
    """It stops being asked, ends when the client is lost, in its own task, and the socket is gone at once."""
    asked_for = 0
    ended: list[bool] = []

    async def flood() -> AsyncIterator[bytes]:
        nonlocal asked_for
        started_in = asyncio.current_task()
        try:
            while True:
                asked_for += 1
                yield ITEM
        finally:
            ended.append(asyncio.current_task() is started_in)

    site = Site(lambda: EventSourceResponse(flood(), send_timeout=0.4))
    async with serving(site, send_buffer=16384, user_timeout=0.4) as server:
        began = now()
        await asked(server, reads=False)
        assert isinstance(await site.ended(), SendTimeoutError | None)  # None: the kernel gave the peer up first
        assert 0.3 < now() - began < 2.0
        assert asked_for * len(ITEM) <= UNDERWAY
        assert ended == [True]
        await until(lambda: not server.connections and sockets_at(server.address[1]) == 0, 2.0)


async def test_the_last_words_have_the_send_clock_too(serving: Serving) -> None:
    """Finishing towards a client that does not read ends in time, and the loss is told."""
    lost: list[Lost] = []

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.on_lost(lost.append)
        outlet.write(b"x" * 500_000, now())
        for _ in range(3):  # an ASGI server takes whatever one message holds
            await checkpoint()
        return Farewell(b"data: bye\n\n")

    app, told = fed(say, OutletSettings(heartbeat=0.05, send=0.4))
    async with serving(app, send_buffer=16384, user_timeout=0.4) as server:
        began = now()
        await asked(server, reads=False)
        assert await app.ended() is None
        assert 0.3 < now() - began < 2.0
        assert lost == [Lost.SLOW] and told.outlets[0].pings == 0


# ------------------------------------------------------------------------------------------------ leaving clients


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("started", [False, True])
async def test_a_client_that_leaves_is_noticed(serving: Serving, how: str, started: bool) -> None:
    """Before the head or in the middle of the stream, with a FIN or an RST: at once, and once, as closed."""
    lost: list[Lost] = []
    entered = asyncio.Event()

    async def say(outlet: Outlet) -> Farewell:
        gone = never()
        outlet.on_lost(lambda why: (lost.append(why), gone.set_result(None)))  # type: ignore[func-returns-value]
        if started:
            outlet.start(200, SSE)
            outlet.write(b"data: 1\n\n", now())
        entered.set()
        await gone
        outlet.write(b"data: nobody reads this\n\n", now())
        return Farewell(b"data: nor this\n\n")

    app, told = fed(say)
    async with serving(app) as server:
        client = await asked(server)
        await entered.wait()
        if started:
            await client.until(b"data: 1\n\n")
        began = now()
        client.reset() if how == "rst" else client.writer.close()
        assert await app.ended() is None
        assert now() - began < 1
    assert lost == [Lost.CLOSED]
    assert told.outlets[0].lost is Lost.CLOSED


async def test_a_client_that_stays_is_not_lost(serving: Serving) -> None:
    """After a whole response nothing is lost, although the server will say `http.disconnect` from then on."""
    lost: list[Lost] = []

    async def say(outlet: Outlet) -> Farewell:
        outlet.on_lost(lost.append)
        outlet.start(200, SSE)
        return Farewell(b"data: bye\n\n")

    app, told = fed(say)
    async with serving(app) as server:
        await answer(await asked(server))
        assert await app.ended() is None
        assert lost == [] and told.outlets[0].lost is None


async def test_a_loss_is_told_to_who_asks_later(serving: Serving) -> None:
    """`on_lost` calls at once when the client is lost already; None takes it back."""
    told_late: list[Lost] = []
    silent: list[Lost] = []

    async def say(outlet: Outlet) -> Farewell:
        outlet.on_lost(silent.append)
        outlet.on_lost(None)
        client.reset()
        while outlet.lost is None:
            await checkpoint()
        outlet.on_lost(told_late.append)
        return Farewell()

    app, _ = fed(say)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        assert await app.ended() is None
    assert (told_late, silent) == ([Lost.CLOSED], [])


# ------------------------------------------------------------------------------------------------ endings of iterators


class Marked:
    """A generator that waits after its first item, and knows in which task it began and was ended."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    async def items(self, *, fails: bool = False, floods: bool = False) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        try:
            yield b"data: 1\n\n"
            while floods:
                yield ITEM
            self.waiting.set()
            await self.go.wait()
            if fails:
                raise ZeroDivisionError("mine")
            yield b"data: 2\n\n"
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()  # a clean-up may wait
            self.events.append("same task" if asyncio.current_task() is task else "another task")


@pytest.mark.parametrize(
    ("ending", "seen"),
    [
        ("exhausted", []),
        ("left", ["CancelledError"]),
        ("slow", ["GeneratorExit"]),
        ("failed", ["ZeroDivisionError"]),
        ("cancelled", ["CancelledError"]),
    ],
)
async def test_an_iterators_finally_runs_in_its_own_task(serving: Serving, ending: str, seen: list[str]) -> None:
    """Whatever ends the stream: a context in the generator is left where it was entered, before the response ends."""
    marked = Marked()
    site = Site(
        lambda: EventSourceResponse(marked.items(fails=ending == "failed", floods=ending == "slow"), send_timeout=0.3)
    )
    async with serving(site, send_buffer=16384, user_timeout=1.0) as server:
        client = await asked(server, reads=ending != "slow")
        if ending != "slow":
            await asyncio.wait_for(marked.waiting.wait(), PATIENCE)
        if ending == "left":
            client.reset()
        elif ending == "cancelled":
            site.tasks[0].cancel()
        else:
            marked.go.set()
        error = await site.ended()
    assert marked.events == [*seen, "same task"]
    expected = {"failed": ZeroDivisionError, "cancelled": asyncio.CancelledError, "slow": SendTimeoutError | None}
    assert isinstance(error, expected.get(ending, type(None)))


@pytest.mark.parametrize("feed", [False, True])
async def test_an_error_in_the_content_comes_out_bare(serving: Serving, feed: bool) -> None:
    """The very exception, in no group; the client gets what was written and no proper end."""
    mine = KeyError("mine")

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        await checkpoint()
        raise mine

    async def items() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await checkpoint()
        raise mine

    site = fed(say)[0] if feed else Site(lambda: EventSourceResponse(items()))
    async with serving(site) as server:
        client = await asked(server)
        assert await site.ended() is mine
        await broken_answer(client)


async def test_an_error_before_the_head_is_a_status(serving: Serving) -> None:
    """Nothing was written yet, so the server can still say 500."""

    async def say(outlet: Outlet) -> Farewell:
        await checkpoint()
        raise KeyError("mine")

    app, _ = fed(say)
    async with serving(app) as server:
        assert (await answer(await asked(server))).status == 500
        assert isinstance(await app.ended(), KeyError)


@pytest.mark.parametrize("feed", [False, True])
async def test_a_cancellation_from_outside_goes_through(serving: Serving, feed: bool) -> None:
    """The task ends as cancelled, leaves no task of its own behind, and the client gets no proper end."""
    marked = Marked()

    async def say(outlet: Outlet) -> Farewell:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        marked.waiting.set()
        await never()
        return Farewell()

    site = fed(say)[0] if feed else Site(lambda: EventSourceResponse(marked.items()))
    async with serving(site) as server:
        client = await asked(server)
        await client.until(b"data: 1\n\n")
        await marked.waiting.wait()
        site.tasks[0].cancel()
        assert isinstance(await site.ended(), asyncio.CancelledError)
        await broken_answer(client)


async def test_a_blocking_generator_is_ended_when_it_comes_back(serving: Serving) -> None:
    """A synchronous generator that is in its thread when the client leaves holds nobody up, and is closed after."""
    inside, release, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        try:
            yield "one"
            inside.set()
            release.wait(PATIENCE)
            yield "two"
        finally:
            closed.set()

    site = Site(lambda: EventSourceResponse(items()))
    async with serving(site) as server:
        client = await asked(server)
        await client.until(b"data: one\r\n\r\n")
        while not inside.is_set():
            await checkpoint()
        client.reset()
        assert await site.ended() is None
        assert not closed.is_set()
        release.set()
        assert await asyncio.to_thread(closed.wait, PATIENCE)


async def test_a_blocking_generator_blocks_nobody_else(serving: Serving) -> None:
    """The loop turns while a synchronous generator waits in its thread."""
    release = threading.Event()

    def items() -> Iterator[str]:
        assert release.wait(PATIENCE)
        yield "late"

    blocked = Site(lambda: EventSourceResponse(items()))
    async with serving(blocked) as server:
        client = await asked(server)
        await client.until(b"\r\n\r\n")
        blocked.make = lambda: EventSourceResponse(agen())
        assert (await answer(await asked(server))).body == THREE
        release.set()
        assert b"data: late" in await client.until(b"0\r\n\r\n")
