"""Bytes to events, as the WHATWG HTML standard says (section 9.2.6): fed, bounded, the same answer for every split."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final

from streamgate.sse.event import ServerSentEvent, SSEError

# 1 MiB, as the gateway's own `limits.max_event`: no token needs it, and it bounds what a hostile server can pile up.
MAX_EVENT: Final = 1024 * 1024
BOM: Final = b"\xef\xbb\xbf"
# More digits than any wait has; and int() of thousands of them raises.
_RETRY_DIGITS: Final = 18


class EventTooLong(SSEError):
    """An event is larger than the limit; `events` are those that were complete before it in the same chunk."""

    def __init__(self, limit: int, events: list[ServerSentEvent]) -> None:
        super().__init__(f"an event is larger than {limit} bytes")
        self.limit = limit
        self.events = events


class EventStreamParser:
    """Turns the chunks of one stream into its events.

    Invalid UTF-8 becomes U+FFFD; comments and unknown fields are dropped; an event without data is none. An event has
    the fields that its own lines gave it, so that encoding it again gives the same event: `event` is None without an
    event line (a browser would say "message"), `id` is None without an id line. What outlives an event is here:
    `last_event_id` and `retry` (milliseconds), for whoever reconnects.

    `max_event` bounds the bytes of one event's lines, line ends not counted.
    """

    __slots__ = (
        "_after_cr",
        "_begun",
        "_event",
        "_id",
        "_lines",
        "_partial",
        "_retry",
        "_size",
        "last_event_id",
        "max_event",
        "retry",
    )

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self.max_event = max_event
        self.last_event_id = ""
        self.retry: int | None = None
        self._begun = False  # the first line is over: no BOM any more
        self._after_cr = False  # a LF now belongs to the CR before it
        self._partial = bytearray()  # the unfinished line
        self._lines: list[str] = []  # of data; from here on: the unfinished event
        self._event: str | None = None
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that this chunk completes. Raises `EventTooLong`, after which the parser is of no more use."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        events: list[ServerSentEvent] = []
        lines = chunk.splitlines()  # of bytes: at CRLF, CR and LF only, just as the standard has it
        unfinished = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._partial:
            self._size -= len(self._partial)
            lines[0] = bytes(self._partial + lines[0])
            self._partial.clear()
        for line in lines:
            self._line(line, events)
        self._partial += unfinished
        self._count(len(unfinished), events)
        return events

    def finish(self, *, flush: bool = False) -> list[ServerSentEvent]:
        """The stream is over. An unfinished event is dropped, as the standard says; `flush` gives it out instead."""
        events: list[ServerSentEvent] = []
        if flush:
            self._size -= len(self._partial)
            if self._partial:
                self._line(bytes(self._partial), events)
            self._line(b"", events)
        self._partial.clear()
        self._forget_event()
        return events

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        self._count(len(line), events)
        if not self._begun:
            self._begun = True
            line = line.removeprefix(BOM)
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if name:  # else a comment
            self._field(name, value.removeprefix(b" ").decode("utf-8", "replace"))

    def _field(self, name: bytes, value: str) -> None:
        if name == b"data":
            self._lines.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and "\0" not in value:
            self._id = value
        elif name == b"retry" and value.isascii() and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self._retry = self.retry = int(value)

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._id is not None:
            self.last_event_id = self._id
        if self._lines:
            event = ServerSentEvent("\n".join(self._lines), event=self._event, id=self._id, retry=self._retry)
            event.sep = "\n"  # what every model server seen ends its lines with
            events.append(event)
        self._forget_event()

    def _forget_event(self) -> None:
        self._lines = []
        self._event = self._id = self._retry = None
        self._size = 0

    def _count(self, size: int, events: list[ServerSentEvent]) -> None:
        self._size += size
        if self._size > self.max_event:
            raise EventTooLong(self.max_event, events)


def iter_events(chunks: Iterable[bytes], *, max_event: int = MAX_EVENT) -> Iterator[ServerSentEvent]:
    """The events of a whole stream. Raises `EventTooLong` after the events before it."""
    parser = EventStreamParser(max_event)
    for chunk in chunks:
        try:
            events = parser.feed(chunk)
        except EventTooLong as fault:
            yield from fault.events
            raise
        yield from events


async def aiter_events(chunks: AsyncIterable[bytes], *, max_event: int = MAX_EVENT) -> AsyncIterator[ServerSentEvent]:
    """As `iter_events`, for chunks that are awaited."""
    parser = EventStreamParser(max_event)
    async for chunk in chunks:
        try:
            events = parser.feed(chunk)
        except EventTooLong as fault:
            for event in fault.events:
                yield event
            raise
        for event in events:
            yield event


def block_fields(block: bytes) -> tuple[bytes, bytes | None]:
    """Event name and data of one event's own bytes, without decoding them; data None when it has no data line."""
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2 and block.find(b"\r") < 0:
        return b"", block[6:-2]  # one line of data: nearly every event there is
    name, lines = b"", []
    for line in block.removeprefix(BOM).splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(lines) if lines else None
