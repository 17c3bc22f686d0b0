"""The outlet that writes to the server's own transport, on real sockets and both event loops."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamgate.edge.guard import GuardSettings
from streamgate.edge.outlet import EdgeOutlet
from streamgate.sse.outlet import HIGH_WATER, Lost, OutletSettings
from tests.ports import sockets_at
from tests.wire.edge_server import GET, Client, Edge, answer, serve
from tests.wire.raw_requests import read_answer

pytestmark = pytest.mark.anyio
Until = Callable[..., Awaitable[None]]
Say = Callable[[EdgeOutlet], Awaitable[None]]

SSE = ((b"content-type", b"text/event-stream"),)
QUIET = OutletSettings(heartbeat=0)
OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0")


class Told:
    """An application that opens the outlet and does with it what the test says."""

    def __init__(self, say: Say, settings: OutletSettings = QUIET) -> None:
        self.say = say
        self.settings = settings
        self.outlets: list[EdgeOutlet] = []
        self.edges: list[Any] = []
        self.errors: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        edge = scope["extensions"]["streamgate.edge"]
        self.edges.append(edge)
        try:
            async with edge.outlet(self.settings) as outlet:
                self.outlets.append(outlet)
                await self.say(outlet)
        except (RuntimeError, asyncio.CancelledError) as error:
            self.errors.append(error)


class Valve:
    """A source that counts how often it was told to pause and to resume."""

    def __init__(self) -> None:
        self.pauses = self.resumes = 0
        self.open = asyncio.Event()
        self.open.set()
        self.shut = asyncio.Event()

    def pause(self) -> None:
        self.pauses += 1
        self.shut.set()
        self.open.clear()

    def resume(self) -> None:
        self.resumes += 1
        self.open.set()


def now() -> float:
    return time.monotonic()


async def a_turn_of_the_loop() -> None:
    """Let the transport try to write."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def three(outlet: EdgeOutlet) -> None:
    outlet.start(200, SSE)
    for frame in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"):
        outlet.write(frame, now())
    await outlet.finish(b"data: bye\n\n", whole=True)


async def test_a_stream_is_chunked_and_the_connection_is_kept() -> None:
    """Head, frames, farewell and last chunk arrive whole, and the next requests on the connection are served."""
    app = Told(three)
    async with serve(app) as edge:
        client = await edge.connect()
        for _ in range(3):
            await client.send(GET)
            response = await read_answer(client.reader)
            assert response.body == b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: bye\n\n"
            assert response.head == (
                b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 10:00:00 GMT\r\n"
                b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
        assert edge.server.server_state.total_requests == 3
        assert len(edge.connections) == 1
    assert [outlet.lost for outlet in app.outlets] == [None] * 3


async def test_the_head_leaves_in_one_segment_with_the_first_frame(until: Until) -> None:
    """The head is held for the frame written in the same turn, and no longer than that turn."""
    go = asyncio.Event()

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        await go.wait()
        outlet.write(b"data: 1\n\n", now())
        await outlet.finish(None, whole=True)

    writes: list[bytes] = []
    async with serve(Told(say)) as edge:
        client = await edge.connect()
        await client.send(GET)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        go.set()
        assert await client.until(b"0\r\n\r\n") == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"

    async def at_once(outlet: EdgeOutlet) -> None:
        outlet._send = writes.append
        outlet._send_all = lambda pieces: writes.append(b"".join(pieces))
        await three(outlet)

    async with serve(Told(at_once)) as edge:
        client = await edge.connect()
        await client.send(GET)
        await until(lambda: len(writes) == 4)
    assert writes[0].endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n")
    assert writes[1:] == [b"9\r\ndata: 2\n\n\r\n", b"9\r\ndata: 3\n\n\r\n", b"b\r\ndata: bye\n\n\r\n0\r\n\r\n"]


async def test_an_empty_frame_does_not_end_the_body() -> None:
    """An empty chunk would be the last one."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"", now())
        outlet.write(b"data: 1\n\n", now())
        outlet.write(b"", now())
        await outlet.finish(b"", whole=True)
        outlet.write(b"late", now())
        await outlet.finish(b"later", whole=True)

    async with serve(Told(say)) as edge:
        client = await edge.connect()
        await client.send(GET)
        assert (await read_answer(client.reader)).body == b"data: 1\n\n"


async def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    """No chunks for those who cannot read them; the head says close."""
    async with serve(Told(three)) as edge:
        client = await edge.connect()
        await client.send(OLD)
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close" in head
        assert body == b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: bye\n\n"


async def test_http_1_0_never_gets_a_clean_end_of_half_a_body() -> None:
    """Where the end of the connection is the end of the body, an unwhole one ends with a reset."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        await outlet.finish(None, whole=False)

    async with serve(Told(say)) as edge:
        client = await edge.connect()
        await client.send(OLD)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_head_requests_get_no_body() -> None:
    """HEAD and 204 have a head, whatever is written, and the connection stays."""
    async with serve(Told(three)) as edge:
        client = await edge.connect()
        for _ in range(2):
            await client.send(GET.replace(b"GET", b"HEAD"))
            assert (await read_answer(client.reader, head_only=True)).status == 200
        await client.send(GET)
        assert (await read_answer(client.reader)).body.endswith(b"bye\n\n")


@pytest.mark.parametrize(
    ("pieces", "whole", "body", "stays"),
    [
        ((b"hello",), True, b"hello", True),
        ((b"he", b"llo", b"more"), True, b"hello", True),
        ((b"he",), True, b"he", False),
        ((b"he",), False, b"he", False),
    ],
)
async def test_a_counted_body(pieces: tuple[bytes, ...], whole: bool, body: bytes, stays: bool) -> None:
    """Exactly as many bytes as were announced: never more, and fewer end the connection."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, ((b"content-length", b"5"),))
        for piece in pieces:
            outlet.write(piece, now())
        await outlet.finish(None, whole=whole)

    async with serve(Told(say)) as edge:
        client = await edge.connect()
        await client.send(GET)
        head = await client.until(b"\r\n\r\n")
        assert b"content-length: 5" in head
        if stays:
            assert await client.reader.readexactly(5) == body
            await client.send(GET)
            assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        else:
            assert await client.rest() == body


@pytest.mark.parametrize("farewell", [None, b'data: {"error": {}}\n\n'])
async def test_an_unwhole_stream_has_no_last_chunk(farewell: bytes | None) -> None:
    """The connection closes without it, so that any client notices."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        await outlet.finish(farewell, whole=False)

    async with serve(Told(say)) as edge:
        client = await edge.connect()
        await client.send(GET)
        response = await client.rest()
        assert response.endswith((farewell or b"data: 1\n\n") + b"\r\n")


async def test_connection_close_is_honoured() -> None:
    """Asked for by the client, or said by the content: the stream is whole and then the connection closes."""

    async def last(outlet: EdgeOutlet) -> None:
        outlet.start(200, (*SSE, (b"connection", b"close")))
        await outlet.finish(b"data: 1\n\n", whole=True)

    for say, request in ((last, GET), (three, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))):
        async with serve(Told(say)) as edge:
            client = await edge.connect()
            await client.send(request)
            response = await client.rest()
            assert b"connection: close" in response
            assert response.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("how", ["error", "cancel", "nothing"])
async def test_an_outlet_that_is_left_unfinished_resets(how: str) -> None:
    """An error, a cancellation and forgetting to finish all end the connection at once, never cleanly."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        if how == "error":
            raise RuntimeError("on purpose")
        if how == "cancel":
            raise asyncio.CancelledError

    app = Told(say)
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert len(app.errors) == (how != "nothing")


async def test_an_outlet_that_never_started_leaves_the_answer_to_asgi() -> None:
    """Before its head is composed the outlet has no claim on the response."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with scope["extensions"]["streamgate.edge"].outlet(QUIET) as outlet:
            outlet.write(b"nowhere", now())
            await outlet.finish(b"nowhere", whole=True)
        await answer(send, 503, b"busy")

    async with serve(app) as edge:
        client = await edge.connect()
        for _ in range(2):
            await client.send(GET)
            response = await read_answer(client.reader)
            assert (response.status, response.body) == (503, b"busy")


async def test_heartbeats_and_early_commit_are_the_outlets() -> None:
    """Silence before the head is ended by the early commit, silence after it by pings."""
    go = asyncio.Event()

    async def say(outlet: EdgeOutlet) -> None:
        await go.wait()
        outlet.start(200, SSE)  # already started: changes nothing
        await outlet.finish(None, whole=True)

    app = Told(say, OutletSettings(heartbeat=0.05, early_commit=0.05, early_headers=SSE))
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET)
        assert b"text/event-stream" in await client.until(b"\r\n\r\n")
        assert await client.until(b": ping\n\r\n") == b"7\r\n: ping\n\r\n"
        go.set()
        assert (await client.until(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
    assert app.outlets[0].pings >= 1


# Back-pressure.
async def flood(outlet: EdgeOutlet, total: int, valve: Valve) -> None:
    outlet.attach(valve)
    outlet.start(200, SSE)
    frame = b"data: " + b"x" * 4000 + b"\n\n"
    for _ in range(total // len(frame)):
        outlet.write(frame, now())
        if outlet.lost is None:
            await valve.open.wait()


async def unread(edge: Edge, request: bytes = GET) -> Client:
    client = await edge.connect(reads=False)
    await client.send(request)
    return client


async def test_a_client_that_does_not_read_pauses_the_source_and_is_then_lost() -> None:
    """The buffer stays bounded, the send clock ends it as slow, and socket and buffers are gone at once after it."""
    valve, lost = Valve(), asyncio.Event()
    reasons: list[Lost] = []

    async def say(outlet: EdgeOutlet) -> None:
        def note(reason: Lost) -> None:
            reasons.append(reason)
            lost.set()
            valve.open.set()

        outlet.on_lost(note)
        await flood(outlet, 50_000_000, valve)
        await outlet.finish(b"bye", whole=True)

    app = Told(say, OutletSettings(heartbeat=0, send=0.5))
    async with serve(app, send_buffer=16384) as edge:
        client = await unread(edge)
        await asyncio.wait_for(valve.shut.wait(), 5)
        began = time.monotonic()
        transport = edge.connections[0].transport
        assert transport.get_write_buffer_size() < HIGH_WATER + 8192
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 500
        async with asyncio.timeout(5):
            await lost.wait()
        assert 0.3 < time.monotonic() - began < 1.5
        assert reasons == [Lost.SLOW]
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionResetError):  # behind what the kernel had delivered
            await client.rest()
        assert sockets_at(edge.address[1]) == 0
    assert app.outlets[0].blocked_for == 0.0
    assert valve.resumes == 0


async def test_a_slow_reader_gets_everything_and_leaves_no_mark_on_the_next_request() -> None:
    """Pausing and resuming as often as it takes, the bytes are whole; the next request starts unpaused."""
    valve = Valve()

    async def say(outlet: EdgeOutlet) -> None:
        assert outlet.blocked_at == 0.0
        await flood(outlet, 2_000_000, valve)
        await outlet.finish(b"bye", whole=True)

    app = Told(say)
    async with serve(app, send_buffer=16384) as edge:
        client = await unread(edge)
        await asyncio.wait_for(valve.shut.wait(), 5)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        first = await read_answer(client.reader)
        assert first.body.endswith(b"bye")
        assert len(first.body) == 2_000_000 // 4008 * 4008 + 3
        assert valve.pauses == valve.resumes > 0
        await client.send(GET)
        assert (await read_answer(client.reader)).body == first.body
        assert edge.connections[0].flow.write_paused is False
    assert [outlet.blocked_at for outlet in app.outlets] == [0.0, 0.0]
    assert app.outlets[0].blocked_for > 0.0


@pytest.mark.parametrize("reads", [True, False])
async def test_finish_waits_for_a_client_that_is_behind(reads: bool) -> None:
    """It returns when the client took it, or was lost to the send clock; the answer is complete only then."""
    valve, ending, ended = Valve(), asyncio.Event(), asyncio.Event()

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"x" * 3_000_000, now())
        outlet.attach(valve)
        assert valve.pauses == 1
        ending.set()
        await outlet.finish(b"bye", whole=True)
        ended.set()

    app = Told(say, OutletSettings(heartbeat=0.05, send=1.0))
    async with serve(app, send_buffer=16384) as edge:
        client = await unread(edge)
        await ending.wait()
        assert not ended.is_set()
        assert edge.connections[0].cycle.response_complete is False
        if reads:
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await read_answer(client.reader)).body.endswith(b"xbye")
        async with asyncio.timeout(5):
            await ended.wait()
        assert app.outlets[0].lost is (None if reads else Lost.SLOW)
        assert app.outlets[0].pings == 0


async def test_the_last_bytes_of_a_closing_connection_have_the_send_clock_too(until: Until) -> None:
    """A client that takes nothing of an answer that ended below the high-water mark is dropped in time as well."""

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, (*SSE, (b"connection", b"close")))
        for _ in range(200):
            if outlet._connection is not None and outlet._connection.transport.get_write_buffer_size() > 4096:
                break
            outlet.write(b"x" * 4096, now())
            await a_turn_of_the_loop()
        await outlet.finish(None, whole=True)

    async with serve(Told(say, OutletSettings(heartbeat=0, send=0.5)), send_buffer=4096) as edge:
        client = await unread(edge)
        await until(lambda: edge.server.server_state.total_requests == 1)
        assert edge.connections
        await until(lambda: not edge.connections, 2.0)
        await client.close()


async def test_a_peer_that_the_kernel_gave_up_is_slow() -> None:
    """ETIMEDOUT from TCP_USER_TIMEOUT is a slow client, not one that closed."""
    reasons: list[Lost] = []
    lost = asyncio.Event()
    valve = Valve()

    async def say(outlet: EdgeOutlet) -> None:
        connection: Any = outlet._connection
        connection.give_up_after(0.5)  # the kernel's clock runs out long before ours

        def note(reason: Lost) -> None:
            reasons.append(reason)
            lost.set()
            valve.open.set()

        outlet.on_lost(note)
        await flood(outlet, 5_000_000, valve)
        await outlet.finish(None, whole=True)

    app = Told(say, OutletSettings(heartbeat=0, send=30))
    async with serve(app, send_buffer=16384) as edge:
        await unread(edge)
        async with asyncio.timeout(10):
            await lost.wait()
        assert reasons == [Lost.SLOW]
        assert app.edges[0].lost is Lost.SLOW


# The client's leaving.
@pytest.mark.parametrize("how", ["fin", "half", "rst"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("pipelined", [b"", GET])
async def test_a_client_that_leaves_is_told_to_the_stream_at_once(how: str, started: bool, pipelined: bytes) -> None:
    """Before the head and in the middle of a stream, behind pipelined bytes or not."""
    begun, lost = asyncio.Event(), asyncio.Event()
    reasons: list[Lost] = []

    async def say(outlet: EdgeOutlet) -> None:
        def note(reason: Lost) -> None:
            reasons.append(reason)
            lost.set()

        outlet.on_lost(note)
        if started:
            outlet.start(200, SSE)
            outlet.write(b"data: 1\n\n", now())
        begun.set()
        await lost.wait()
        outlet.write(b"data: 2\n\n", now())
        outlet.start(200, SSE)
        await outlet.finish(b"data: 3\n\n", whole=True)

    app = Told(say)
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET + pipelined)
        await begun.wait()
        if started:
            await client.until(b"data: 1\n\n")
        began = time.monotonic()
        if how == "rst":
            client.reset()
        elif how == "fin":
            await client.close()
        else:
            client.writer.write_eof()
        async with asyncio.timeout(2):
            await lost.wait()
        assert time.monotonic() - began < 0.2
        assert reasons == [Lost.CLOSED]
        assert app.edges[0].gone


async def test_a_pipelined_request_is_dropped_and_the_stream_stays_whole(until: Until) -> None:
    """The first answer is whole and then the connection closes, whether its head was out or not."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def say(outlet: EdgeOutlet) -> None:
        outlet.start(200, SSE)
        outlet.write(b"data: 1\n\n", now())
        begun.set()
        await go.wait()
        await outlet.finish(None, whole=True)

    app = Told(say)
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET)
        await begun.wait()
        await client.send(GET * 3)
        await until(lambda: edge.connections[0].surplus)
        go.set()
        assert (await client.rest()).endswith(b"data: 1\n\n\r\n0\r\n\r\n")
    assert len(app.outlets) == 1


async def test_an_outlet_opened_after_the_client_left_is_lost_from_the_start(until: Until) -> None:
    """Whatever is done with it, nothing is written, and the content is told at once."""
    opened: list[EdgeOutlet] = []
    reasons: list[Lost] = []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        edge = scope["extensions"]["streamgate.edge"]
        begun.set()
        await until(lambda: edge.gone)
        async with edge.outlet(QUIET) as outlet:
            opened.append(outlet)
            outlet.on_lost(reasons.append)
            await three(outlet)
        ended.set()

    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET)
        await begun.wait()
        client.reset()
        await ended.wait()
    assert reasons == [Lost.CLOSED]
    assert opened[0].lost is Lost.CLOSED


async def test_an_outlet_whose_request_was_refused_late_is_lost() -> None:
    """The edge's 408 is the only answer, also when the content starts one in the same moment."""
    lost, ended = asyncio.Event(), asyncio.Event()

    async def say(outlet: EdgeOutlet) -> None:
        outlet.on_lost(lambda _: lost.set())
        await lost.wait()
        await three(outlet)
        ended.set()

    app = Told(say)
    async with serve(app, GuardSettings(body_timeout=0.1)) as edge:
        client = await edge.connect()
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"))
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        await ended.wait()
        assert app.edges[0].late.status == 408


async def test_nothing_refers_to_an_outlet_that_was_closed() -> None:
    """Neither connection nor clocks: it dies with its last reference, without the garbage collector."""

    def alive() -> int:
        return sum(type(each) is EdgeOutlet for each in gc.get_objects())

    app = Told(three, OutletSettings(heartbeat=15, early_commit=10))
    async with serve(app) as edge:
        client = await edge.connect()
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await client.send(GET)
                await read_answer(client.reader)
            app.outlets.clear()
            await client.send(GET)
            await read_answer(client.reader)
            app.outlets.clear()
            assert alive() <= 1
            assert edge.connections[0].outlet is None
        finally:
            gc.enable()
