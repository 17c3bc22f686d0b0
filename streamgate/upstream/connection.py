"""One socket to one upstream: reads, writes, pauses, and closes exactly once. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import Protocol, cast

from streamgate.upstream.exchange import Receiver, Response
from streamgate.upstream.settings import Origin

# One read. uvloop alone would take 256 KiB at a time, and several times per turn of the loop.
READ_SIZE = 32 * 1024
# TLS must hand over at once all that it decrypted, because it drops what is left when the peer closes; uvloop reads at
# most 256 KiB, SO_RCVBUF holds much less.
MAX_TLS_READ = 512 * 1024


class Owner(Protocol):
    """Who keeps the books of connections; each is called once per connection, at once."""

    def opened(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class ReadBuffer:
    """Memory to read into, shared by all connections of a loop: filling and emptying it is one synchronous step."""

    __slots__ = ("large", "view")

    def __init__(self) -> None:
        self.view = self.large = memoryview(bytearray(READ_SIZE))

    def at_least(self, size: int) -> memoryview:
        size = min(size, MAX_TLS_READ)
        if size > len(self.large):
            self.large = memoryview(bytearray(size))
        return self.large


def closed_properly(tls: ssl.SSLObject) -> bool:
    """Whether the peer said it was done (close_notify); without it anyone on the way may have cut the body short."""
    try:
        return not tls.read(1)
    except ssl.SSLError:
        return False


class Connection(asyncio.BufferedProtocol):
    """A connection serves one exchange after the other; it is also the `Source` that pauses the running one."""

    __slots__ = (
        "_buffer",
        "_fd",
        "_keep",
        "_owner",
        "_paused",
        "_poll",
        "_raw",
        "_response",
        "_transport",
        "_view",
        "gone",
        "origin",
        "whole",
    )

    def __init__(self, owner: Owner, origin: Origin, buffer: ReadBuffer) -> None:
        self._owner = owner
        self.origin = origin
        self._buffer = buffer
        self._view = buffer.view
        self._transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = None  # the one below TLS
        self._fd = -1
        self._poll: select.poll | None = None
        self._response: Response | None = None
        self._paused = False
        self._keep = False
        self.whole = False  # the last exchange's response is complete
        self.gone = False  # closed, or about to be; the owner knows

    # What the client does with it.
    def begin(self, head: bytes, body: bytes | None, receiver: Receiver, *, reused: bool) -> None:
        """Send a request; what comes back goes to the receiver, until its end or `abort`."""
        self.whole = self._keep = False
        self._response = Response(receiver, self, reused=reused)
        transport = cast(asyncio.Transport, self._transport)
        if body is None or len(body) < READ_SIZE:
            transport.write(head + body if body else head)
        else:  # one write as well where the loop can (uvloop), without a copy of megabytes
            transport.writelines((head, body))

    def hand_to(self, receiver: Receiver) -> None:
        """The rest of the answer goes to another receiver, at full speed; nothing is kept of the first."""
        if self._response is not None:
            self._response.hand_to(receiver)
        self.resume()

    def reusable(self) -> bool:
        """Whether the next exchange may have it, as far as this one can tell."""
        transport = cast(asyncio.Transport, self._transport)
        return self._keep and not self.gone and not transport.get_write_buffer_size()

    def silent(self) -> bool:
        """Whether nothing came while it was idle, not even what the event loop has not read yet."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN | select.POLLRDHUP)
        return not (self.gone or cast(asyncio.Transport, self._transport).is_closing() or self._poll.poll(0))

    def abort(self) -> None:
        """Close the socket now; nobody is told anything more. Abort, not close: over TLS that may wait for the peer."""
        if self._response is not None:
            self._response.abandon()
            self._response = None
        if not self.gone:
            self.gone = True
            if self._transport is not None:
                self._transport.abort()
                self._owner.gone(self)

    def pause(self) -> None:
        """Stop reading; below TLS too, for its layer would see the peer's end first and drop what is not yet read."""
        if not self._paused and not self.gone and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            if self._raw is not None:
                self._raw.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self.gone and self._transport is not None:
            self._paused = False
            if self._raw is not None:
                self._raw.resume_reading()
            self._transport.resume_reading()

    # What the response tells.
    def answered(self, *, whole: bool, keep: bool) -> None:
        self._response = None
        self.whole, self._keep = whole, keep
        if not keep:
            self.abort()

    # What the socket does.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.gone:  # given up while dialling
            self._transport.abort()
            return
        self._fd = transport.get_extra_info("socket").fileno()
        self._owner.opened(self)

    def encrypted(self, transport: asyncio.Transport) -> None:
        """The handshake is done: what is above TLS from here on."""
        self._raw, self._transport = self._transport, transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if sizehint > READ_SIZE and self._raw is not None:
            self._view = self._buffer.at_least(sizehint)
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        response = self._response
        if response is None:  # bytes that belong to no exchange: a second response, or worse
            self.abort()
        else:
            response.received(self._view[:nbytes])

    def eof_received(self) -> None:
        response = self._response
        if response is None:
            self.abort()
        else:
            tls = None if self._raw is None else cast(asyncio.Transport, self._transport).get_extra_info("ssl_object")
            response.eof(proper=tls is None or closed_properly(tls))

    def connection_lost(self, exc: Exception | None) -> None:
        response = self._response
        if response is None:
            self.abort()
        elif exc is None:  # over TLS: the peer's end came without a close_notify
            response.eof(proper=False)
        else:
            response.reset(str(exc))
