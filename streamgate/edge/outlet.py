"""The outlet that writes to our own server's transport, and the extension by which an ASGI application gets it.

`scope["extensions"]["streamgate.edge"]` is an `EdgeRequest`. The response that goes through its outlet passes no ASGI
message; uvicorn's cycle is told what was done, so that it neither answers too nor forgets to take the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from streamgate.edge.answer import Framing, compose
from streamgate.errors import Refusal
from streamgate.sse.clocks import Clocks, clocks_of
from streamgate.sse.outlet import Headers, Lost, OutletSettings, TimedOutlet

EXTENSION = "streamgate.edge"


class Wire(Protocol):
    """The connection, as an outlet sees it."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    cycle: RequestResponseCycle
    edge: EdgeRequest | None  # the running request
    outlet: EdgeOutlet | None  # who is told that the transport is full, drained or lost

    def leave(self, send: float) -> None:
        """Close once what was written is out; `send` seconds may pass for that."""
        ...

    def reset(self) -> None:
        """Drop the socket and all buffers now, the kernel's included; the peer sees an RST."""
        ...

    def give_up_after(self, send: float) -> None:
        """Let the kernel drop a peer that acknowledged nothing for `send` seconds."""
        ...


class EdgeRequest:
    """One request, as the edge sees it.

    `late` is the refusal with which the edge itself answered after the application had begun: the application sees
    http.disconnect and must not answer. `lost` says how the client went away, while it has not got its answer.
    """

    __slots__ = ("_connection", "late", "lost")

    def __init__(self, connection: Wire) -> None:
        self._connection = connection  # and not the cycle: its scope refers to this
        self.late: Refusal | None = None
        self.lost: Lost | None = None

    @property
    def gone(self) -> bool:
        """Whether the client went away before it got its answer."""
        return self.lost is not None

    def outlet(self, settings: OutletSettings) -> EdgeOutlet:
        """Open the request's outlet, for `async with`. Once; before any ASGI response message."""
        connection = self._connection
        outlet = EdgeOutlet(settings, clocks_of(connection.loop))
        if connection.edge is self and self.late is None and self.lost is None:
            outlet.open(connection)
        else:
            outlet.gone(self.lost or Lost.CLOSED)
        return outlet


def _nowhere(content: object) -> None:
    """Where bytes go whose reader is lost: further writes to a closed transport are logged by the event loop."""


class EdgeOutlet(TimedOutlet):
    """Writes a response straight to the server's transport, one call a frame."""

    __slots__ = (
        "_connection",
        "_cycle",
        "_drained",
        "_flusher",
        "_framing",
        "_head",
        "_hot",
        "_left",
        "_over",
        "_send",
        "_send_all",
        "_whole",
    )

    def __init__(self, settings: OutletSettings, clocks: Clocks) -> None:
        super().__init__(settings, clocks)
        self._connection: Wire | None = None
        self._cycle: RequestResponseCycle | None = None
        self._send: Callable[[bytes], None] = _nowhere
        self._send_all: Callable[[Iterable[bytes]], None] = _nowhere
        self._framing = Framing.CHUNKED
        self._head = b""  # composed but not written: it shall leave in one segment with the first frame
        self._flusher: asyncio.Handle | None = None
        self._hot = False  # write() is nothing but a chunk: the head is out and nobody is lost
        self._left = -1  # bytes that a counted body still needs
        self._drained: asyncio.Future[None] | None = None  # what finish() waits for
        self._over = False  # the response is complete, or was cut on purpose
        self._whole = False

    def open(self, connection: Wire) -> None:
        """Take over the response of the connection's running request."""
        self._connection = connection
        self._cycle = connection.cycle
        self._send = connection.transport.write
        self._send_all = connection.transport.writelines
        connection.outlet = self
        connection.give_up_after(self.settings.send)
        if connection.flow.write_paused:
            self.full()

    @property
    def buffered(self) -> int:
        return 0 if self._connection is None else self._connection.transport.get_write_buffer_size()

    def start(self, status: int, headers: Headers) -> None:
        connection, cycle = self._connection, self._cycle
        if self.started:
            return
        if self.lost is None and connection is not None and cycle is not None:
            composed = compose(
                status,
                headers,
                connection.server_state.default_headers,
                method=cycle.scope["method"],
                version=cycle.scope["http_version"],
                keep_alive=cycle.keep_alive,
            )
            self._head, self._framing, self._left, cycle.keep_alive = composed
            cycle.response_started = True
            cycle.waiting_for_100_continue = False
            self._flusher = connection.loop.call_soon(self._flush)
        self.began()

    def write(self, frame: bytes, now: float) -> None:
        self.wrote_at = now
        if self._hot and frame:  # an empty chunk would be the last one
            # Not one bytes object: uvloop hands the three to writev, 0.3 us cheaper than copying them together.
            self._send_all((b"%x\r\n" % len(frame), frame, b"\r\n"))
        elif self.started and not self.ending:
            self._emit(self._framed(frame))

    async def finish(self, farewell: bytes | None, *, whole: bool) -> None:
        if self.ending:
            return
        self.ending = True
        self._hot = False
        if not self.started or self.lost is not None or self._connection is None:
            return
        last = self._framed(farewell) if farewell else b""
        self._whole = whole and (self._framing is not Framing.COUNTED or self._left == 0)
        if self._whole and self._framing is Framing.CHUNKED:
            last += b"0\r\n\r\n"
        self._emit(last)
        if self.blocked_at:
            self._drained = self._connection.loop.create_future()
            await self._drained
        if self.lost is None:
            self._complete()

    def abort(self) -> None:
        self._over = True
        self._hot = False
        if self._connection is not None and self._cycle is not None:
            self._cycle.disconnected = True  # or uvicorn calls the application's silence an error
            self._cycle.message_event.set()
            self._connection.reset()

    def drained(self) -> None:
        super().drained()
        if self._drained is not None and not self._drained.done():
            # Not completed here: asyncio loses a connection twice that is closed inside resume_writing.
            self._drained.set_result(None)

    def gone(self, lost: Lost) -> None:
        self._hot = False
        self._send = self._send_all = _nowhere
        super().gone(lost)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def close(self) -> None:
        super().close()
        self._stop_flusher()
        self._detach()
        self._connection = self._cycle = None
        self._hot = False
        self._send = self._send_all = _nowhere

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.started and not self._over and self.lost is None:
            self.abort()  # never a clean end for an answer that was not finished
        self.close()

    def _framed(self, frame: bytes) -> bytes:
        if self._framing is Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(frame), frame) if frame else b""
        if self._framing is Framing.COUNTED:
            frame = frame[: self._left]  # a byte too many would be read as the next response
            self._left -= len(frame)
            return frame
        return frame if self._framing is Framing.CLOSED else b""

    def _emit(self, content: bytes) -> None:
        """Write, behind the head if that is still held."""
        if self._head:
            self._stop_flusher()
            content, self._head = self._head + content, b""
            # Before the write: pause_writing and with it whatever the source does may fire inside it.
            self._hot = self._framing is Framing.CHUNKED and not self.ending and self.lost is None
        if content:
            self._send(content)

    def _flush(self) -> None:
        self._flusher = None
        self._emit(b"")

    def _stop_flusher(self) -> None:
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None

    def _complete(self) -> None:
        """Tell uvicorn that the response is over, as its own send does; then keep or close the connection."""
        connection, cycle = self._connection, self._cycle
        self._over = True
        self._detach()
        if connection is None or cycle is None:
            return
        cycle.response_complete = True
        cycle.message_event.set()
        if not self._whole and self._framing is Framing.CLOSED:
            connection.reset()  # the end of the connection would be a clean end
        elif not self._whole or not cycle.keep_alive:
            connection.leave(self.settings.send)
        cycle.on_response()

    def _detach(self) -> None:
        if self._connection is not None and self._connection.outlet is self:
            self._connection.outlet = None
