"""Upstreams, and an exchange with one: `async with upstreams.open(origin, call, receiver) as exchange`.

Carries out what pool.py decides. Whatever happens inside the `async with`, leaving it is synchronous and settles the
connection's fate: complete and clean, it is kept; at its logical end, it may settle; else it is aborted at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from streamgate.errors import Deadline, Fault, Garbled, Stale, Unreachable
from streamgate.sse.clocks import Watch, clocks_of
from streamgate.upstream.connection import Connection, ReadBuffer
from streamgate.upstream.dial import TlsContexts, dial
from streamgate.upstream.exchange import Headers, Receiver
from streamgate.upstream.pool import Pool, PoolStatistics
from streamgate.upstream.settings import Call, Origin, PoolSettings, origin_of, target

__all__ = [
    "Answer", "Call", "Exchange", "Origin", "PoolSettings", "PoolStatistics", "Upstreams", "origin_of", "target",
]  # fmt: skip

# What a settling connection may still send: its last events and the terminating chunk, not another answer.
SETTLE_BYTES = 64 * 1024
# What only the client of a connection may say (RFC 9112 sections 6 and 9), and what it decides itself.
OWN_HEADERS = frozenset(
    (
        b"accept-encoding", b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read whole."""

    status: int
    headers: Headers
    body: bytes


class Exchange:
    """One request and its answer, as a context; inside it, the `Source` that pauses the answer.

    Entering raises `Unreachable`, `ConnectTimeout`, `NameNotResolved` or `TlsRefused`; all later faults go to the
    receiver's `end`. After leaving, the receiver is never called again, and `pause` and `resume` do nothing.
    """

    __slots__ = (
        "_call", "_connect", "_connection", "_fresh", "_origin", "_receiver", "_settle", "_upstreams", "dialled",
    )  # fmt: skip

    def __init__(
        self,
        upstreams: Upstreams,
        origin: Origin,
        call: Call,
        receiver: Receiver | None,
        *,
        fresh: bool,
        connect: float,
    ) -> None:
        self._upstreams = upstreams
        self._origin = origin
        self._call: Call | None = call
        self._receiver = receiver
        self._fresh = fresh
        self._connect = connect
        self._connection: Connection | None = None
        self._settle = False
        self.dialled = 0.0  # seconds that a new connection took; 0.0: a pooled one was there

    async def __aenter__(self) -> Self:
        call, receiver = self._call, self._receiver
        self._call = self._receiver = None
        if call is None or receiver is None:
            raise RuntimeError("an exchange is entered once")
        head = request_head(self._origin, call)
        upstreams = self._upstreams
        connection = None if self._fresh else upstreams.take(self._origin)
        reused = connection is not None
        if connection is None:
            since = time.monotonic()
            connection = await upstreams.dial(self._origin, self._connect)
            self.dialled = time.monotonic() - since
            upstreams.dialled(self._origin.name, self.dialled)
        self._connection = connection
        connection.begin(head, call.body, receiver, reused=reused)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing is awaited here, so that no cancellation can come between.
        connection, self._connection = self._connection, None
        if connection is not None:
            self._upstreams.leave(connection, settle=self._settle)

    def settle(self) -> None:
        """The stream's logical end was seen: leaving before the HTTP body's end is no reason to drop the connection."""
        self._settle = True

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()


class Settling:
    """The receiver of what follows the logical end: reads on, up to a bound, for the connection's sake only."""

    __slots__ = ("_connection", "_left", "_upstreams")

    def __init__(self, upstreams: Upstreams, connection: Connection) -> None:
        self._upstreams = upstreams
        self._connection = connection
        self._left = SETTLE_BYTES

    def head(self, status: int, headers: Headers) -> None:
        pass

    def feed(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            self._connection.abort()

    def end(self, fault: Fault | None) -> None:
        if fault is None:
            self._upstreams.leave(self._connection, settle=False)


class Whole:
    """The receiver of a small answer; `done` gets it, or the fault."""

    __slots__ = ("_body", "_headers", "_limit", "_status", "done")

    def __init__(self, limit: int) -> None:
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._limit = limit
        self._status = 0
        self._headers: Headers = []
        self._body = bytearray()

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def feed(self, chunk: bytes) -> None:
        if len(self._body) + len(chunk) <= self._limit:
            self._body += chunk
        elif not self.done.done():
            self.done.set_exception(Garbled(f"an answer of more than {self._limit} bytes"))

    def end(self, fault: Fault | None) -> None:
        if self.done.done():
            return
        if fault is None:
            self.done.set_result(Answer(self._status, self._headers, bytes(self._body)))
        else:
            self.done.set_exception(fault)


def request_head(origin: Origin, call: Call) -> bytes:
    """Request line and header fields, with the client's own; `ValueError` if a value would begin another line."""
    where = target(origin, call.path)
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity" % (call.method, where, origin.authority)]
    lines += [name + b": " + value for name, value in call.headers if name not in OWN_HEADERS]
    if call.body is not None:
        lines.append(b"content-length: %d" % len(call.body))
    elif call.method not in {b"GET", b"DELETE"}:
        lines.append(b"content-length: 0")
    ends = len(lines) + 3  # the first holds three lines, and an empty one ends the head
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    if b" " in where or b"\0" in head or head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise ValueError("a request target or header field with a line break, a NUL or a space in it")
    return head


class Upstreams:
    """All connections to upstreams; for one event loop. `dialled` is told of each new one: upstream, seconds."""

    def __init__(
        self, settings: PoolSettings | None = None, *, dialled: Callable[[str, float], None] = lambda *_: None
    ) -> None:
        self.dialled = dialled
        self._settings = settings or PoolSettings()
        self._pool: Pool[Connection] = Pool(self._settings)
        self._contexts = TlsContexts()
        self._buffer = ReadBuffer()
        self._watch: Watch | None = None

    def open(
        self, origin: Origin, call: Call, receiver: Receiver, *, fresh: bool = False, connect: float | None = None
    ) -> Exchange:
        """An exchange to be entered; `fresh`: on a new connection; `connect`: seconds, else the settings'."""
        return Exchange(
            self, origin, call, receiver, fresh=fresh, connect=self._settings.connect if connect is None else connect
        )

    async def fetch(self, origin: Origin, call: Call, *, limit: int, deadline: float) -> Answer:
        """A whole answer of at most `limit` bytes within `deadline` seconds; raises the `Fault` that prevented it."""
        try:
            async with asyncio.timeout(deadline):
                try:
                    return await self._fetched(origin, call, limit, fresh=False)
                except Stale:
                    return await self._fetched(origin, call, limit, fresh=True)
        except TimeoutError as error:
            raise Deadline(f"{origin.name}: no whole answer within {deadline} s") from error

    async def _fetched(self, origin: Origin, call: Call, limit: int, *, fresh: bool) -> Answer:
        whole = Whole(limit)
        async with self.open(origin, call, whole, fresh=fresh):
            return await whole.done

    def statistics(self) -> dict[str, PoolStatistics]:
        """By the upstream's name; at all times opened == closed + pooled + active + settling."""
        return self._pool.statistics()

    def close(self) -> None:
        """Close what no exchange uses, and keep nothing from now on; running exchanges go on."""
        for connection in self._pool.close():
            connection.abort()
        if self._watch is not None:
            self._watch.forget()
            self._watch = None

    # For exchanges.
    def take(self, origin: Origin) -> Connection | None:
        """The pooled connection that was used last and is still good, if there is one."""
        while True:
            connection, old = self._pool.take(origin, time.monotonic())
            for expired in old:
                expired.abort()
            if connection is None or connection.silent():
                return connection
            connection.abort()

    async def dial(self, origin: Origin, seconds: float) -> Connection:
        connection = Connection(self, origin, self._buffer)
        await dial(connection, self._contexts, seconds=seconds, receive_buffer=self._settings.receive_buffer)
        if connection.gone:
            raise Unreachable(f"{origin.host}:{origin.port} closed the connection at once")
        return connection

    def leave(self, connection: Connection, *, settle: bool) -> None:
        """Its exchange is over for the stream: keep it, let it settle, or abort it."""
        if connection.gone:
            return
        now = time.monotonic()
        if connection.whole:
            connection.resume()
            kept = self._pool.give_back(connection, now) if connection.reusable() else 0.0
            if kept:
                self._look_by(now + kept)
                return
        elif settle:
            self._pool.settle(connection, now)
            self._look_by(now + self._settings.settle)
            connection.hand_to(Settling(self, connection))
            return
        connection.abort()

    # For connections.
    def opened(self, connection: Connection) -> None:
        self._pool.opened(connection.origin, connection, time.monotonic())

    def gone(self, connection: Connection) -> None:
        self._pool.lost(connection)

    # For the clocks.
    def look(self, now: float) -> float:
        for connection in self._pool.overdue(now):
            connection.abort()
        return self._pool.next_due()

    def _look_by(self, due: float) -> None:
        if self._watch is None:
            self._watch = clocks_of(asyncio.get_running_loop()).watch(self, due)
        else:
            self._watch.hasten(due)
