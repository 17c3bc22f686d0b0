"""One HTTP/1.1 response: bytes in, body out, one verdict at the end.

Each read of the socket is one synchronous chain: `received` -> parser -> `Receiver.feed`. What is wrong with an answer
is a `Fault`; what is wrong with a receiver is `Internal` and never taken for the upstream's. Knows no socket.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Protocol

from httptools import HttpParserError, HttpResponseParser

from streamgate.errors import ClosedEarly, Encoded, Fault, Garbled, Internal, Reset, Stale, Truncated

Headers = list[tuple[bytes, bytes]]  # names in lower case

# Head of a response, all of its 1xx included: Envoy allows 60 KiB and 100 fields. It is also what may come without one
# byte of body: endless trailers and chunk extensions end here.
MAX_HEAD = 64 * 1024
MAX_FIELDS = 200
IDENTITY = (b"", b"identity")


class Receiver(Protocol):
    """Who gets the answer. Plain calls from socket callbacks: they may write, pause, set a future; never await."""

    def head(self, status: int, headers: Headers) -> None:
        """The final response's head, once; 1xx are skipped."""
        ...

    def feed(self, chunk: bytes) -> None:
        """The body bytes of one read, the pieces of a chunked body joined."""
        ...

    def end(self, fault: Fault | None) -> None:
        """Exactly once, the last call; None: the HTTP body was whole."""
        ...


class Line(Protocol):
    """What the response came through, told just before the receiver is."""

    def answered(self, *, whole: bool, keep: bool) -> None:
        """Nothing more is expected; `keep`: the upstream will take another request."""
        ...


def ends_at_close(headers: Headers) -> bool:
    """Whether the body's only end is the connection's; raises for codings that were not asked for, or are not known."""
    framed = False
    for name, value in headers:
        if name == b"content-length":
            framed = True
        elif name == b"transfer-encoding":
            framed = True
            if value.lower() != b"chunked":
                raise Encoded(f"transfer-encoding {value[:40]!r}")
        elif name == b"content-encoding" and value.lower() not in IDENTITY:
            raise Encoded(f"content-encoding {value[:40]!r}")
    return not framed


class Response:
    """One response being read and told to its receiver. `on_...` are the parser's callbacks."""

    __slots__ = (
        "_barren",
        "_head_size",
        "_headed",
        "_headers",
        "_keep",
        "_line",
        "_news",
        "_parser",
        "_pieces",
        "_receiver",
        "_reused",
        "_status",
        "_until_close",
        "_whole",
        "on_body",
    )

    def __init__(self, receiver: Receiver, line: Line, *, reused: bool) -> None:
        self._receiver: Receiver | None = receiver
        self._line: Line | None = line
        self._reused = reused  # the connection had served others
        self._headers: Headers = []
        self._status = 0  # until it is told
        self._head_size = 0
        self._barren = 0  # bytes since the last byte of body
        self._headed = False  # the final head is complete
        self._until_close = False
        self._whole = False
        self._keep = False
        self._news = False  # the last read held more than pieces of body
        self._pieces: list[bytes] = []
        # Called by the parser for each piece of body: a list's own method costs no Python frame.
        self.on_body: Callable[[bytes], None] = self._pieces.append
        # It and the parser refer to each other until the end. 0.3 us each, so a new one, in a known state.
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    # What the connection tells.
    def received(self, chunk: memoryview) -> None:
        """One read."""
        parser, receiver = self._parser, self._receiver
        if parser is None or receiver is None:
            return
        try:
            parser.feed_data(chunk)
        except HttpParserError as error:
            self._report(receiver, self._why(error))
            return
        if self._news:
            self._report(receiver, None)
        elif pieces := self._pieces:
            self._barren = 0
            joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)  # _take_pieces, without its call
            pieces.clear()
            try:
                receiver.feed(joined)
            except Exception as bug:  # noqa: BLE001 - whatever it is, it is not the upstream's fault
                self._end(_internal(bug))
        else:
            self._barren += len(chunk)
            if self._barren > MAX_HEAD:
                self._end(Garbled(f"more than {MAX_HEAD} bytes without one of a body"))

    def eof(self, *, proper: bool) -> None:
        """The upstream ended the connection; `proper`: and it was the upstream, not someone on the way."""
        if not self._headed:
            self._end(self._unless_stale(ClosedEarly()))
            return
        self._whole = proper and self._until_close
        self._end(None if self._whole else Truncated())

    def reset(self, reason: str) -> None:
        """The connection broke."""
        self._end(self._unless_stale(Reset(reason)))

    def hand_to(self, receiver: Receiver) -> None:
        """The rest goes to another receiver."""
        self._receiver = receiver

    def abandon(self) -> None:
        """Nobody is told anything more, and nobody is kept alive."""
        self._receiver = self._line = self._parser = None
        self._headers = []
        self._pieces.clear()

    # What the parser finds.
    def on_message_begin(self) -> None:
        if self._whole:
            raise Garbled("bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            return  # a trailer
        self._head_size += len(name) + len(value)
        if self._head_size > MAX_HEAD or len(self._headers) >= MAX_FIELDS:
            raise Garbled(f"a head of more than {MAX_HEAD} bytes or {MAX_FIELDS} fields")
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None:  # the parser calls back only while it is fed
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._headers = []
            return
        version = parser.get_http_version()
        if not 200 <= status < 600 or not version.startswith("1."):
            raise Garbled(f"status {status} in HTTP/{version}")
        # Only now: asked once the message is complete, the parser answers for the next one.
        self._keep = parser.should_keep_alive()
        self._until_close = ends_at_close(self._headers)
        self._status = status
        self._headed = self._news = True

    def on_message_complete(self) -> None:
        if self._headed:  # else it was a 1xx
            self._whole = self._news = True

    # What becomes of it.
    def _report(self, receiver: Receiver, fault: Fault | None) -> None:
        """A read with a head, an end or a fault in it: tell it in order, and no more once the receiver has left."""
        self._news, self._barren = False, 0
        try:
            if self._status:
                status, self._status = self._status, 0
                headers, self._headers = self._headers, []
                receiver.head(status, headers)
            if self._pieces and self._receiver is receiver:
                receiver.feed(self._take_pieces())
        except Exception as bug:  # noqa: BLE001 - as in `received`
            self._end(_internal(bug))
            return
        if self._receiver is receiver and (self._whole or fault is not None):
            self._end(None if self._whole else fault)

    def _take_pieces(self) -> bytes:
        pieces = self._pieces
        chunk = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return chunk

    def _end(self, fault: Fault | None) -> None:
        receiver, line = self._receiver, self._line
        self.abandon()
        if receiver is None or line is None:
            return
        line.answered(whole=fault is None, keep=fault is None and self._keep)
        try:
            receiver.end(fault)
        except Exception as bug:  # noqa: BLE001 - nobody is left to be told but the loop
            asyncio.get_running_loop().call_exception_handler({"message": "Receiver.end failed", "exception": bug})

    def _why(self, error: HttpParserError) -> Fault | None:
        if self._whole:  # what is wrong came after the answer: not its fault, but nothing is to follow
            self._keep = False
            return None
        cause = error.__context__  # what a callback raised
        return cause.with_traceback(None) if isinstance(cause, Fault) else Garbled(str(error))

    def _unless_stale(self, fault: Fault) -> Fault:
        """The upstream had closed a pooled connection before it saw this request: that is nobody's fault."""
        unanswered = not self._barren and not self._headed
        return Stale(fault.detail) if self._reused and unanswered else fault


def _internal(bug: Exception) -> Internal:
    *_, (frame, line) = traceback.walk_tb(bug.__traceback__)
    fault = Internal(f"{type(bug).__name__}: {bug} at {frame.f_code.co_filename}:{line}")
    fault.__cause__ = bug
    return fault
