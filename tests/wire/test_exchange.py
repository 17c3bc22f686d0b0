"""Exchanges with upstreams on real sockets: reuse, endings, back-pressure, and books that balance after any abuse."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from streamgate import errors
from streamgate.upstream.client import Call, Exchange, Origin, PoolSettings, Upstreams, origin_of
from streamgate.upstream.connection import READ_SIZE
from streamgate.upstream.exchange import Headers

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
GET = Call(b"GET", b"/v1/models")
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
MARK: ContextVar[str] = ContextVar("MARK", default="none")


def sized(body: bytes, *more: bytes) -> bytes:
    return b"".join((OK, b"content-length: %d\r\n" % len(body), *(field + b"\r\n" for field in more), b"\r\n", body))


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return head, await self.reader.readexactly(int(fields.get(b"content-length", b"0")))

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Until the client's end is closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """Plays the script on each connection, and closes it afterwards."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self._running: set[asyncio.Task[Any]] = set()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.script(Peer(reader, writer))
        finally:
            self._running.discard(task)
            writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Origin]:
        server = await asyncio.start_server(self.accepted, "127.0.0.1", 0)
        try:
            yield origin_of("up", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        finally:
            server.close()
            if self._running:
                await asyncio.wait(self._running, timeout=PATIENCE)


class Heard:
    """A receiver that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.chunks: list[bytes] = []
        self.marks: set[str] = set()
        self.begun = asyncio.Event()
        self.fed = asyncio.Event()
        self.ended: asyncio.Future[errors.Fault | None] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.marks.add(MARK.get())
        self.begun.set()

    def feed(self, chunk: bytes) -> None:
        assert not self.ended.done()
        self.chunks.append(chunk)
        self.marks.add(MARK.get())
        self.fed.set()

    def end(self, fault: errors.Fault | None) -> None:
        self.ended.set_result(fault)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    async def end_of_it(self) -> errors.Fault | None:
        return await asyncio.wait_for(asyncio.shield(self.ended), PATIENCE)


@pytest.fixture
async def upstreams(anyio_backend: Any) -> AsyncIterator[Upstreams]:
    client = Upstreams(PoolSettings())
    yield client
    client.close()


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[Upstream, Origin]]:
    upstream = Upstream(script)
    async with upstream.listening() as origin:
        yield upstream, origin


async def ask(upstreams: Upstreams, origin: Origin, call: Call = GET, **how: Any) -> Heard:
    """One exchange, to its end."""
    heard = Heard()
    async with upstreams.open(origin, call, heard, **how):
        await heard.end_of_it()
    return heard


def books(upstreams: Upstreams) -> tuple[int, int, int, int, int]:
    """opened, closed, pooled, active, settling: checked to balance."""
    found = upstreams.statistics()["up"]
    assert found.opened == found.closed + found.pooled + found.active + found.settling
    return found.opened, found.closed, found.pooled, found.active, found.settling


async def answering(peer: Peer) -> None:
    """Every request gets its own path back."""
    while True:
        head, _ = await peer.request()
        peer.send(sized(head.split(b" ")[1]))


async def test_a_connection_serves_one_exchange_after_the_other(upstreams: Upstreams) -> None:
    """Whole answers leave the connection to the next exchange."""
    async with serving(answering) as (upstream, origin):
        for path in (b"/1", b"/2", b"/3"):
            heard = await ask(upstreams, origin, Call(b"GET", path))
            assert (heard.status, heard.body, await heard.ended) == (200, path, None)
        assert upstream.connections == 1
        assert books(upstreams) == (1, 0, 1, 0, 0)
        upstreams.close()
        assert books(upstreams) == (1, 1, 0, 0, 0)


async def test_the_request_is_what_the_call_says(upstreams: Upstreams) -> None:
    """Own fields are added, fields that are the client's business are dropped, head and body arrive together."""
    seen: list[tuple[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        for _ in range(3):
            seen.append(await peer.request())
            peer.send(sized(b""))

    async with serving(script) as (_, origin):
        fields = ((b"x-a", b"1"), (b"host", b"evil"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked"))
        large = bytes(100_000)
        for body in (b"{}", large, None):
            await ask(upstreams, origin, Call(b"POST", b"/v1/x?q=1", fields, body))
        upstreams.close()
    common = b"POST /v1/x?q=1 HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\nx-a: 1\r\n" % origin.authority
    assert [head for head, _ in seen] == [common + b"content-length: %d\r\n\r\n" % size for size in (2, 100_000, 0)]
    assert [body for _, body in seen] == [b"{}", large, b""]


@pytest.mark.parametrize(
    "call",
    [Call(b"GET", b"/a b"), Call(b"GET", b"/", ((b"x", b"1\r\ny: 2"),)), Call(b"GET", b"/", ((b"x", b"\0"),))],
)
async def test_a_call_cannot_hold_more_than_one_request(upstreams: Upstreams, call: Call) -> None:
    """A line break, NUL or space where it would mean something else is refused before anything is sent."""
    with pytest.raises(ValueError, match="line break"):
        async with upstreams.open(origin_of("up", "http://127.0.0.1:1"), call, Heard()):
            pass
    assert upstreams.statistics() == {}


async def test_an_exchange_is_entered_once(upstreams: Upstreams) -> None:
    """Its receiver and call are gone afterwards."""
    async with serving(answering) as (_, origin):
        heard = Heard()
        async with upstreams.open(origin, GET, heard) as exchange:
            await heard.end_of_it()
        with pytest.raises(RuntimeError):
            await exchange.__aenter__()
        exchange.pause()
        exchange.resume()
        upstreams.close()


@pytest.mark.parametrize("limit", ["idle", "life"])
async def test_connections_are_not_kept_beyond_their_time(limit: str, until: Any) -> None:
    """After the idle time the timer closes it; after its life it is not returned to the pool."""
    upstreams = Upstreams(PoolSettings(idle=0.05) if limit == "idle" else PoolSettings(life=0.0))
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sized(b"ok"))
        await peer.gone()
        gone.set()

    async with serving(script) as (upstream, origin):
        assert (await ask(upstreams, origin)).body == b"ok"
        assert books(upstreams) == ((1, 0, 1, 0, 0) if limit == "idle" else (1, 1, 0, 0, 0))
        await asyncio.wait_for(gone.wait(), PATIENCE)
        assert books(upstreams) == (1, 1, 0, 0, 0)
        assert (await ask(upstreams, origin)).body == b"ok"
        assert upstream.connections == 2
        upstreams.close()


async def test_a_pooled_connection_that_the_upstream_closed_is_not_used(upstreams: Upstreams, until: Any) -> None:
    """Its end is noticed while it is idle, and the next exchange gets a new one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sized(b"ok"))

    async with serving(script) as (upstream, origin):
        await ask(upstreams, origin)
        await until(lambda: books(upstreams) == (1, 1, 0, 0, 0))
        assert await (await ask(upstreams, origin)).ended is None
        assert upstream.connections == 2


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_reused_connection_that_dies_unanswered_is_stale(upstreams: Upstreams, ending: str) -> None:
    """The fault says that trying again on a fresh connection is free; `fresh` does so."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sized(b"ok"))
        await peer.request()
        if ending == "reset":
            peer.reset()

    async with serving(script) as (upstream, origin):
        await ask(upstreams, origin)
        assert isinstance(await (await ask(upstreams, origin)).ended, errors.Stale)
        assert (await ask(upstreams, origin, fresh=True)).body == b"ok"
        assert upstream.connections == 2
        upstreams.close()


@pytest.mark.parametrize(
    "sent, ending, expected",
    [
        (b"", "close", errors.ClosedEarly),
        (b"", "reset", errors.Reset),
        (b"HTTP/1.1 200", "close", errors.ClosedEarly),
        (sized(b"ok")[:-1], "close", errors.Truncated),
        (CHUNKED + b"2\r\nok\r\n", "close", errors.Truncated),
        (CHUNKED + b"2\r\nok\r\n", "reset", errors.Reset),
        (OK + b"\r\nok", "close", None),
        (OK + b"\r\nok", "reset", errors.Reset),
        (CHUNKED + b"2\r\nok\r\nxx\r\n", "wait", errors.Garbled),
        (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", "wait", errors.Garbled),
        (OK + b"x: %b" % (b"y" * 2_000_000), "wait", errors.Garbled),
        (OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok", "wait", errors.Encoded),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + sized(b"ok", b"connection: close"), "wait", None),
    ],
)
async def test_how_an_answer_can_end(upstreams: Upstreams, sent: bytes, ending: str, expected: type | None) -> None:
    """Each ending has its fault; the connection is closed at once and not used again."""
    ready = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sent)
        if ending == "wait":
            await peer.gone()
        elif ending == "reset":
            if sent:
                await ready.wait()
            peer.reset()

    async with serving(script) as (_, origin):
        heard = Heard()
        async with upstreams.open(origin, GET, heard):
            if ending == "reset" and sent:
                await asyncio.wait_for(heard.fed.wait(), PATIENCE)
                ready.set()
            fault = await heard.end_of_it()
        assert (type(fault) if fault else None) is expected
        assert heard.body in {b"", b"o", b"ok"}
        assert books(upstreams) == (1, 1, 0, 0, 0)


async def test_one_byte_per_write(upstreams: Upstreams) -> None:
    """An answer that dribbles is the same answer."""
    raw = b"HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n" + CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(len(raw)):
            peer.send(raw[at : at + 1])
            await peer.writer.drain()
        await peer.gone()

    async with serving(script) as (_, origin):
        heard = await ask(upstreams, origin)
        assert (heard.status, heard.body, await heard.ended) == (200, b"hello!", None)
        assert books(upstreams) == (1, 0, 1, 0, 0)
        upstreams.close()


@pytest.mark.parametrize("when", ["at once", "before the exchange is left", "while idle", "just before the next"])
async def test_a_stray_second_response_is_nobodys(upstreams: Upstreams, until: Any, when: str) -> None:
    """Bytes after the answer close the connection, however late they come; nobody else ever reads them."""
    secret = sized(b"secret")
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        head, _ = await peer.request()
        own = sized(head.split(b" ")[1])
        peer.send(own + secret if when == "at once" and len(peers) == 1 else own)
        await peer.gone()

    async with serving(script) as (upstream, origin):
        heard = Heard()
        async with upstreams.open(origin, Call(b"GET", b"/1"), heard):
            assert await heard.end_of_it() is None
            if when == "before the exchange is left":
                peers[0].send(secret)
                await until(lambda: books(upstreams)[1] == 1)
        if when == "while idle":
            assert books(upstreams) == (1, 0, 1, 0, 0)
            peers[0].send(secret)
            await until(lambda: books(upstreams)[1] == 1)
        elif when == "just before the next":
            peers[0].send(secret)  # in the socket, but the event loop has not looked yet
        other = await ask(upstreams, origin, Call(b"GET", b"/2"))
        assert (heard.body, other.body) == (b"/1", b"/2")
        assert upstream.connections == 2
        upstreams.close()


async def test_leaving_early_closes_at_once(upstreams: Upstreams) -> None:
    """An exchange left in mid-answer is aborted: the upstream sees it, the receiver hears nothing more and is free."""
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED + b"2\r\nok\r\n")
        await peer.gone()
        seen.set()

    async with serving(script) as (_, origin):
        heard = Heard()
        async with upstreams.open(origin, GET, heard):
            await asyncio.wait_for(heard.fed.wait(), PATIENCE)
        assert books(upstreams) == (1, 1, 0, 0, 0)
        await asyncio.wait_for(seen.wait(), PATIENCE)
        assert not heard.ended.done()
        reference = weakref.ref(heard)
        del heard
        assert reference() is None


async def test_a_cancelled_exchange_closes_at_once(upstreams: Upstreams) -> None:
    """A native cancellation in mid-answer has closed the connection when the task ends."""
    seen, begun = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        begun.set()
        await peer.gone()
        seen.set()

    async with serving(script) as (_, origin):
        task = asyncio.get_running_loop().create_task(ask(upstreams, origin))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert books(upstreams) == (1, 1, 0, 0, 0)
        await asyncio.wait_for(seen.wait(), PATIENCE)


@pytest.mark.parametrize("rest", ["ends", "never ends", "is too long", "is garbled"])
async def test_a_stream_may_end_before_its_body(rest: str, until: Any) -> None:
    """After `settle` the connection has a bounded time and size to reach its end, and is then used again."""
    upstreams = Upstreams(PoolSettings(settle=0.1))
    left, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED + b"6\r\n[DONE]\r\n")
        await left.wait()
        if rest == "is too long":
            peer.send(b"11000\r\n" + bytes(0x11000) + b"\r\n")
        elif rest != "never ends":
            peer.send(LAST if rest == "ends" else b"zz\r\n")
        await peer.gone()
        closed.set()

    async with serving(script) as (_, origin):
        heard = Heard()
        async with upstreams.open(origin, GET, heard) as exchange:
            await asyncio.wait_for(heard.fed.wait(), PATIENCE)
            exchange.pause()
            exchange.settle()
        assert books(upstreams) == (1, 0, 0, 0, 1)
        reference = weakref.ref(heard)
        assert heard.chunks == [b"[DONE]"]
        del heard
        assert reference() is None
        left.set()
        if rest == "ends":
            await until(lambda: books(upstreams) == (1, 0, 1, 0, 0))
        else:
            await until(lambda: books(upstreams) == (1, 1, 0, 0, 0))
            await asyncio.wait_for(closed.wait(), PATIENCE)
        upstreams.close()
        await asyncio.wait_for(closed.wait(), PATIENCE)


async def test_an_answer_before_the_whole_request_spoils_the_connection(upstreams: Upstreams) -> None:
    """With request bytes unsent, the next request would end up inside this one's body."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(sized(b"no, thanks"))
        await asyncio.wait_for(left.wait(), PATIENCE)
        peer.writer.transport.abort()

    left = asyncio.Event()
    async with serving(script) as (_, origin):
        heard = await ask(upstreams, origin, Call(b"POST", b"/", (), bytes(30_000_000)))
        assert heard.body == b"no, thanks"
        assert books(upstreams) == (1, 1, 0, 0, 0)
        left.set()


class Choosy(Heard):
    """Pauses after every chunk, and notices when it is fed nevertheless."""

    exchange: Exchange
    paused = False

    def feed(self, chunk: bytes) -> None:
        assert not self.paused
        assert len(chunk) <= READ_SIZE
        super().feed(chunk)
        self.paused = True
        self.exchange.pause()
        self.exchange.pause()


async def test_a_paused_answer_waits_in_the_upstream(upstreams: Upstreams) -> None:
    """While paused nothing is read, and 10 MB stay with the upstream except for the kernel's bounded buffers."""
    body = random.Random(1).randbytes(10_000_000)
    sent, stuck = 0, asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        # A bounded send buffer, or the kernel would hide megabytes.
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        peer.writer.transport.set_write_buffer_limits(0)
        await peer.request()
        peer.send(OK + b"content-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 65536):
            peer.send(body[at : at + 65536])
            sent = at
            if peer.writer.transport.get_write_buffer_size():
                stuck.set()
            await peer.writer.drain()
        await peer.gone()

    async with serving(script) as (_, origin):
        heard = Choosy()
        async with upstreams.open(origin, GET, heard) as exchange:
            heard.exchange = exchange
            await asyncio.wait_for(stuck.wait(), PATIENCE)
            assert sent < 1_000_000
            assert len(heard.chunks) == 1
            while not heard.ended.done():
                heard.fed.clear()
                heard.paused = False
                exchange.resume()
                exchange.resume()
                waiting = [asyncio.ensure_future(heard.fed.wait()), heard.ended]  # noqa: TID251 - ended below
                await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                waiting[0].cancel()
            assert await heard.ended is None
        assert heard.body == body
        assert books(upstreams) == (1, 0, 1, 0, 0)
        upstreams.close()


async def test_callbacks_run_in_no_requests_context(upstreams: Upstreams) -> None:
    """A connection dialled in one request's context serves the next without it."""
    async with serving(answering) as (upstream, origin):
        for mark in ("first", "second"):
            MARK.set(mark)
            heard = await ask(upstreams, origin)
            assert heard.marks == {"none"}
        assert upstream.connections == 1
        upstreams.close()


async def test_a_bug_in_a_receiver_is_the_gateways_own(upstreams: Upstreams) -> None:
    """It ends the exchange as internal, and the connection is closed."""

    class Buggy(Heard):
        def feed(self, chunk: bytes) -> None:
            raise KeyError("oops")

    async with serving(answering) as (_, origin):
        heard = Buggy()
        async with upstreams.open(origin, GET, heard):
            fault = await heard.end_of_it()
        assert isinstance(fault, errors.Internal)
        assert books(upstreams) == (1, 1, 0, 0, 0)


async def test_a_small_answer_is_fetched_whole(upstreams: Upstreams) -> None:
    """`fetch` gives status, headers and body, and repeats a stale connection's call on a fresh one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sized(b"models", b"x: y"))
        await peer.request()

    async with serving(script) as (upstream, origin):
        for _ in range(3):
            answer = await upstreams.fetch(origin, GET, limit=6, deadline=PATIENCE)
            assert (answer.status, answer.body) == (200, b"models")
            assert (b"x", b"y") in answer.headers
        assert upstream.connections == 3
        upstreams.close()


@pytest.mark.parametrize(
    "sent, limit, deadline, expected",
    [
        (sized(b"models"), 5, PATIENCE, errors.Garbled),
        (CHUNKED + b"6\r\nmodels\r\n6\r\nmodels\r\n" + LAST, 5, PATIENCE, errors.Garbled),
        (sized(b"models")[:-1], 6, 0.05, errors.Deadline),
        (b"SSH-2.0\r\n", 6, PATIENCE, errors.Garbled),
    ],
)
async def test_what_cannot_be_fetched(
    upstreams: Upstreams, sent: bytes, limit: int, deadline: float, expected: type[errors.Fault]
) -> None:
    """Too much, too late, or not HTTP: a fault, and the connection is gone."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(sent)
        await peer.gone()

    async with serving(script) as (_, origin):
        with pytest.raises(expected):
            await upstreams.fetch(origin, GET, limit=limit, deadline=deadline)
        assert books(upstreams)[2:] in {(0, 0, 0), (1, 0, 0)}
        upstreams.close()


async def test_after_close_running_exchanges_go_on(upstreams: Upstreams) -> None:
    """Closing lets an exchange finish, and its connection is closed when it comes back."""
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED + b"2\r\nok\r\n")
        await finish.wait()
        peer.send(LAST)
        await peer.gone()

    async with serving(script) as (_, origin):
        heard = Heard()
        async with upstreams.open(origin, GET, heard):
            await heard.begun.wait()
            upstreams.close()
            assert books(upstreams) == (1, 0, 0, 1, 0)
            finish.set()
            assert await heard.end_of_it() is None
        assert books(upstreams) == (1, 1, 0, 0, 0)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def moody(peer: Peer) -> None:
    """An upstream that does anything, chosen by the request."""
    while True:
        head, _ = await peer.request()
        mood = head.split(b" ")[1]
        if mood == b"/reset":
            return peer.reset()
        if mood == b"/close":
            return None
        if mood == b"/garbage":
            peer.send(b"\x00\x01\x02")
        elif mood == b"/stray":
            peer.send(sized(b"ok") + b"HTTP/1.1 200")
        elif mood == b"/half":
            peer.send(CHUNKED + b"2\r\nok\r\n")
            return None
        elif mood == b"/done":
            peer.send(CHUNKED + b"2\r\nok\r\n")
            peer.send(LAST)
        elif mood == b"/hang":
            peer.send(CHUNKED + b"2\r\nok\r\n")
        else:
            peer.send(sized(b"ok"))


MOODS = (b"/reset", b"/close", b"/garbage", b"/stray", b"/half", b"/done", b"/hang", b"/ok", b"/ok", b"/ok")


async def abuse(upstreams: Upstreams, origin: Origin, dice: random.Random) -> None:
    """One exchange with a bad upstream and an unreliable owner."""
    heard = Heard()
    manner = dice.choice(["wait", "leave", "settle", "pause"])
    with contextlib.suppress(errors.Fault, TimeoutError):
        async with (
            asyncio.timeout(dice.choice([0.0, 0.002, 0.02, 0.05])),
            upstreams.open(origin, Call(b"GET", dice.choice(MOODS)), heard) as exchange,
        ):
            if manner == "leave":
                return
            await (heard.begun.wait() if manner == "settle" else asyncio.shield(heard.ended))
            if manner == "settle":
                exchange.settle()
            elif manner == "pause":
                exchange.pause()


async def test_the_books_balance_after_any_abuse(until: Any) -> None:
    """1,000 exchanges with resets, garbage, cancels and early leaves leave no connection and no descriptor behind."""
    upstreams = Upstreams(PoolSettings(settle=0.05, idle=0.2))
    dice = random.Random(7)
    async with serving(moody) as (_, origin):
        await until(lambda: True)
        before = descriptors()
        for _ in range(40):
            async with asyncio.TaskGroup() as group:
                for _ in range(25):
                    group.create_task(abuse(upstreams, origin, dice))
            assert books(upstreams)[3] == 0
        await until(lambda: books(upstreams)[2:] == (0, 0, 0))
        assert books(upstreams)[0] > 100
        await until(lambda: descriptors() <= before)
        upstreams.close()
