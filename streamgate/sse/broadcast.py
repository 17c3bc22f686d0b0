"""One producer, many subscribers: each event is encoded once and waits, bounded, for each of them.

news = Broadcast(history=100)
news.publish(ServerSentEvent("hello", id=1))
return EventSourceResponse(news.subscribe(last_event_id(request)))
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable
from enum import Enum
from itertools import islice
from types import TracebackType
from typing import Self

from streamgate.sse.event import checked, ensure_bytes
from streamgate.sse.mailbox import Mailbox
from streamgate.sse.parser import EventStreamParser


class Slow(Enum):
    """What happens when an event comes for a subscriber whose queue is full."""

    DROP_OLDEST = "drop_oldest"  # it loses the event that has waited longest, and gets the new one
    DROP_NEWEST = "drop_newest"  # it loses the new one
    DISCONNECT = "disconnect"  # its stream ends after what it holds; a browser comes back, with its last event id


class Broadcast:
    """Sends each published item to all its subscribers.

    `queue` is how many events may wait for one subscriber, `slow` what happens to one that is fuller. `history` is how
    many of the last events are kept for those who come back; only events with an id are, since nobody can say where
    among the others he was. `sep` is the line end of items that have none of their own.

    Any thread may call anything here (a plain `def` endpoint is run in one), and subscribers may live on several event
    loops. `dropped` counts events that a subscriber did not get, `disconnected` subscribers that were ended; for the
    policies that do so.
    """

    def __init__(self, *, queue: int = 64, slow: Slow = Slow.DISCONNECT, history: int = 0, sep: str = "\r\n") -> None:
        if queue < 1:
            raise ValueError(f"queue must be at least 1, got: {queue}")
        if history < 0:
            raise ValueError(f"history must not be negative, got: {history}")
        self.queue = queue
        self.slow = slow
        self.sep = checked(sep)
        self.dropped = 0
        self.disconnected = 0
        self._history: deque[tuple[str, bytes]] = deque(maxlen=history)
        # Mailboxes, not subscriptions: a subscription that nobody holds any more is garbage, and takes its leave.
        self._members: dict[Mailbox, None] = {}
        self._closed = False
        # Reentrant, for a signal may interrupt `publish` in this very thread, and whoever it calls may publish.
        self._lock = threading.RLock()

    def publish(self, item: object) -> int:
        """Give the item to every subscriber; how many took it. 0 after `close`.

        The item is anything that a stream's content may yield, encoded here, once. Raises what `ensure_bytes` does,
        before anybody got it; never because of a subscriber.
        """
        frame = ensure_bytes(item, self.sep)
        taken = 0
        with self._lock:
            if self._closed:
                return 0
            if self._history.maxlen:
                self._remember(frame)
            for mailbox in list(self._members):  # a copy: garbage may leave at any time
                taken += mailbox.put(frame) or self._overflow(mailbox, frame)
        return taken

    def subscribe(self, last_event_id: str | None = None) -> Subscription:
        """A subscription to what is published from this call on; it need not be iterated yet.

        With the id of an event that is kept, the events after it come first, none missing and none twice. With any
        other (too old, or of another server), and with "", all that is kept comes first. With None nothing does.
        """
        with self._lock:
            mailbox = Mailbox(self.queue, self._after(last_event_id))
            if self._closed:
                mailbox.end()
            else:
                self._members[mailbox] = None
        return Subscription(self, mailbox)

    def close(self) -> None:
        """Every subscription ends after what it holds; nothing can be published any more. Kept events stay."""
        with self._lock:
            self._closed = True
            for mailbox in list(self._members):
                mailbox.end()
                self._leave(mailbox)

    def __len__(self) -> int:
        """How many subscribers there are."""
        return len(self._members)

    def _leave(self, mailbox: Mailbox) -> None:
        """For subscriptions. Takes no lock and wakes nobody: the garbage collector calls it, anywhere."""
        self._members.pop(mailbox, None)

    def _overflow(self, mailbox: Mailbox, frame: bytes) -> bool:
        match self.slow:
            case Slow.DROP_OLDEST:
                self.dropped += mailbox.push(frame)
                return True
            case Slow.DROP_NEWEST:
                self.dropped += 1
                return False
            case Slow.DISCONNECT:
                mailbox.end()
                self._leave(mailbox)
                self.disconnected += 1
                return False

    def _remember(self, frame: bytes) -> None:
        """Keep it under the id that a client has after these bytes; read from them, for then all items are alike."""
        parser = EventStreamParser(max_event=len(frame))
        parser.feed(frame)
        if parser.last_event_id:
            self._history.append((parser.last_event_id, frame))

    def _after(self, last_event_id: str | None) -> list[bytes]:
        if last_event_id is None:
            return []
        ids = [each for each, _ in self._history]
        begin = len(ids) - ids[::-1].index(last_event_id) if last_event_id in ids else 0
        return [frame for _, frame in islice(self._history, begin, None)]


class Subscription:
    """One subscriber's frames, in order: an async iterator, and an async context manager that leaves at its end.

    It takes part from `Broadcast.subscribe` on, so that nothing is missed while a response is on its way to its first
    item; and it leaves when it is closed (a response does that), at the end of the `async with`, or when nobody refers
    to it any more: a response that is never iterated, such as the one to HEAD, leaves nothing behind. A deadline around
    one `anext` is safe: the wait is given up, not the subscription.
    """

    __slots__ = ("_broadcast", "_mailbox")

    def __init__(self, broadcast: Broadcast, mailbox: Mailbox) -> None:
        self._broadcast = broadcast
        self._mailbox = mailbox

    def __aiter__(self) -> Self:
        return self

    # Not `async def`: the frames of a wait that was cancelled live as long as the exception's traceback, which may be
    # until the next garbage collection, and must not hold the subscription.
    def __anext__(self) -> Awaitable[bytes]:
        """The next event's bytes."""
        return self._mailbox.next()

    async def aclose(self) -> None:
        """Leave, and let go of what is held; whoever waits in the iteration is let out. May be called again."""
        self._broadcast._leave(self._mailbox)
        self._mailbox.end()
        self._mailbox.frames.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._broadcast._leave(self._mailbox)
