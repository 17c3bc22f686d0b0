"""What is known of one stream: how it went, how it ended, and who is told.

The numbers are plain fields that the stream's own loop adds to; observers read them when they like (a gauge at scrape
time) and are called three times a stream, never per event.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

logger = logging.getLogger("streamgate.sse")


class Ending(Enum):
    """How a stream ended; exactly one for each stream."""

    COMPLETE = "complete"  # the content was exhausted and the final message sent
    CLIENT_DISCONNECT = "client_disconnect"
    SHUTDOWN = "shutdown"  # by the server's drain, after the grace period; with or without a farewell
    SEND_TIMEOUT = "send_timeout"  # one send (data, ping or the end) took longer than `send_timeout`
    CONTENT_ERROR = "content_error"  # the content raised
    ENCODE_ERROR = "encode_error"  # an item could not be made into bytes
    SEND_ERROR = "send_error"  # the server's `send` or `receive` raised
    CALLBACK_ERROR = "callback_error"  # data sender, close handler or ping factory raised, or gave what is no ping
    CANCELLED = "cancelled"  # the request's task was cancelled from outside


class Account:
    """The facts of one stream. Times are monotonic seconds, 0.0 where it has not happened; sizes are bytes."""

    __slots__ = (
        "bytes",
        "ended_at",
        "ending",
        "error",
        "events",
        "first_event_at",
        "last_event_at",
        "longest_gap",
        "opened_at",
        "pings",
        "scope",
        "slowest_send",
    )

    def __init__(self, scope: object) -> None:
        self.scope = scope  # the ASGI scope, for labels such as the route
        self.opened_at = time.monotonic()
        self.ended_at = 0.0
        self.events = 0  # items sent; a `bytes` item counts as one
        self.bytes = 0  # of the items, pings not included
        self.pings = 0
        self.ending: Ending | None = None  # None while it runs
        self.error: BaseException | None = None  # what the response raises, if anything; gone when all were told
        # Kept only while somebody observes the stream: each costs a look at the clock per event.
        self.first_event_at = 0.0
        self.last_event_at = 0.0
        self.longest_gap = 0.0  # between two items
        self.slowest_send = 0.0


class StreamObserver(Protocol):
    """Told of a stream's life, on the stream's own thread; each call once, whatever the ending. Must not block.

    What an observer raises is logged and otherwise ignored.
    """

    def opened(self, account: Account) -> None: ...
    def first_event(self, account: Account) -> None: ...
    def closed(self, account: Account) -> None: ...


class Drain(Protocol):
    """Whoever ends streams at a shutdown; `streamgate.sse.StreamGroup` is one."""

    def inside(self, leave: Callable[[], None]) -> AbstractContextManager[object]:
        """Be counted while inside; `leave` is called when the stream is to end. At once if that is already so."""
        ...


def tell(observer: StreamObserver | None, what: str, account: Account) -> None:
    """Tell the observer, whose failures are its own."""
    if observer is not None:
        try:
            getattr(observer, what)(account)
        except Exception:
            logger.exception("a stream's observer failed in %s", what)
