"""Directed push: each recipient has a broadcast of its own, made when it is listened to and gone when nobody does.

inbox = Channel()
inbox.send("bob", "hello")                                  # how many of bob's windows took it
return EventSourceResponse(inbox.subscribe("bob"))
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Final

from streamgate.sse.broadcast import Broadcast, Slow, Subscription
from streamgate.sse.mailbox import Mailbox

# Recipients whose history waits for them: with a history of 100 events of 1 KiB, 100 MiB at most.
MAX_IDLE: Final = 1024


class Channel:
    """Sends items to recipients by name; several subscribers may listen to one recipient.

    `queue`, `slow`, `history` and `sep` are each recipient's, as `Broadcast` has them. Without `history` a recipient is
    forgotten when its last subscriber leaves, and what is sent to one that nobody listens to is lost. With it, the last
    events that have an id are kept for whoever subscribes with a last event id, and this for the `max_idle` recipients
    without a subscriber that were listened to, or sent something, most recently; the others are forgotten.

    `len` is how many recipients are listened to, `in` whether one is. Any thread may call anything here.
    """

    def __init__(
        self,
        *,
        queue: int = 64,
        slow: Slow = Slow.DISCONNECT,
        history: int = 0,
        sep: str = "\r\n",
        max_idle: int = MAX_IDLE,
    ) -> None:
        if max_idle < 0:
            raise ValueError(f"max_idle must not be negative, got: {max_idle}")
        self._template = Broadcast(queue=queue, slow=slow, history=history, sep=sep)
        self._history = history
        self._max_idle = max_idle
        self._active: dict[str, Recipient] = {}
        self._idle: OrderedDict[str, Recipient] = OrderedDict()  # nobody listens; the longest so first
        # Recipients whose last subscriber left, told by the garbage collector too, which must find no lock: each call
        # here looks at it first.
        self._left: deque[str] = deque()
        self._closed = False
        self._dropped = self._disconnected = 0  # of recipients that are forgotten
        self._lock = threading.RLock()

    def send(self, recipient: str, item: object) -> int:
        """Give the item to the recipient's subscribers; how many took it. 0: nobody listens, or the channel is closed.

        Raises what `ensure_bytes` does. An item that nobody gets and nobody keeps is not even encoded.
        """
        with self._lock:
            self._settle()
            broadcast = self._active.get(recipient)
            if broadcast is not None:
                return broadcast.publish(item)
            if self._history and not self._closed:
                broadcast = self._idle.get(recipient) or self._new(recipient)
                broadcast.publish(item)
                self._rest(recipient, broadcast)
            return 0

    def subscribe(self, recipient: str, last_event_id: str | None = None) -> Subscription:
        """A subscription to what is sent to the recipient from this call on; see `Broadcast.subscribe`."""
        with self._lock:
            self._settle()
            broadcast = self._active.get(recipient) or self._idle.pop(recipient, None) or self._new(recipient)
            self._active[recipient] = broadcast
            subscription = broadcast.subscribe(last_event_id)
            if self._closed:
                self._left.append(recipient)
            return subscription

    def close(self) -> None:
        """Every subscription ends after what it holds; nothing can be sent any more. Kept events stay."""
        with self._lock:
            self._closed = True
            for broadcast in [*self._active.values(), *self._idle.values()]:
                broadcast.close()

    @property
    def dropped(self) -> int:
        """Events that a subscriber did not get, for it was too slow."""
        with self._lock:
            return self._dropped + sum(each.dropped for each in [*self._active.values(), *self._idle.values()])

    @property
    def disconnected(self) -> int:
        """Subscribers that were ended, for they were too slow."""
        with self._lock:
            return self._disconnected + sum(
                each.disconnected for each in [*self._active.values(), *self._idle.values()]
            )

    def __len__(self) -> int:
        with self._lock:
            self._settle()
            return len(self._active)

    def __contains__(self, recipient: object) -> bool:
        with self._lock:
            self._settle()
            return recipient in self._active

    def _new(self, recipient: str) -> Recipient:
        like = self._template
        broadcast = Recipient(recipient, self._left, like, self._history)
        if self._closed:
            broadcast.close()
        return broadcast

    def _settle(self) -> None:
        while self._left:
            recipient = self._left.popleft()
            broadcast = self._active.get(recipient)
            if broadcast is not None and len(broadcast) == 0:
                del self._active[recipient]
                self._rest(recipient, broadcast)

    def _rest(self, recipient: str, broadcast: Recipient) -> None:
        """Nobody listens: keep it, as the last to be forgotten, if there is anything to keep."""
        if broadcast.keeps_something():
            self._idle[recipient] = broadcast
            self._idle.move_to_end(recipient)
        else:
            self._forget(broadcast)
        while len(self._idle) > self._max_idle:
            self._forget(self._idle.popitem(last=False)[1])

    def _forget(self, broadcast: Recipient) -> None:
        self._dropped += broadcast.dropped
        self._disconnected += broadcast.disconnected


class Recipient(Broadcast):
    """One recipient's broadcast: says so when its last subscriber left, and is true even then."""

    def __init__(self, name: str, left: deque[str], like: Broadcast, history: int) -> None:
        super().__init__(queue=like.queue, slow=like.slow, history=history, sep=like.sep)
        self._name = name
        self._left = left

    def __bool__(self) -> bool:
        return True

    def keeps_something(self) -> bool:
        return bool(self._history)

    def _leave(self, mailbox: Mailbox) -> None:
        super()._leave(mailbox)
        if not self._members:
            self._left.append(self._name)
