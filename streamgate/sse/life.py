"""The state of one running response: how it ends, and what its clocks do.

Who ends a stream says why (`settle`, the first word stands) and cancels `cancel_scope`; what is then done is written
once, in `stream.py`. Deadlines are plain timestamps that `look` compares when the loop's one timer comes round.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING

import anyio
from starlette.types import Receive, Scope, Send

from streamgate.sse import connection
from streamgate.sse.account import Account, Ending
from streamgate.sse.clocks import NEVER
from streamgate.sse.event import SSEError, ensure_bytes

if TYPE_CHECKING:
    from streamgate.sse.response import EventSourceResponse

logger = logging.getLogger("streamgate.sse")


class SendTimeoutError(SSEError, TimeoutError):
    """One `send` took longer than `send_timeout`: the peer is dead, or far too slow."""


def late(limit: float | None) -> SendTimeoutError:
    return SendTimeoutError(f"a send took longer than {limit} s")


def shared(due: float, interval: float) -> float:
    """When a ping that is due goes out: with its neighbours, up to a tenth of its interval and 0.25 s late.

    A thousand streams that each wake the loop for their ping cost twice what they do together. What is due next is
    reckoned from when it was due, not from when it went, so that pings do not drift.
    """
    tick = min(interval / 10, 0.25)
    return max(due, -(-due // tick) * tick)


class Life:
    """What a running response knows, its endings and its clocks."""

    __slots__ = (
        "_drained",
        "_finishing",
        "_grace_at",
        "_held",
        "_ping_at",
        "_ping_over",
        "_pinging",
        "_receive",
        "_scope",
        "_send",
        "_sending",
        "_sent_at",
        "_started",
        "account",
        "cancel_scope",
        "context",
        "response",
    )

    def __init__(
        self, response: EventSourceResponse, account: Account, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.response = response
        self.account = account
        self.cancel_scope = anyio.CancelScope()
        # Of the request. A timer's callback, and a task made there, would have that of whichever stream armed it.
        self.context = copy_context()
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False  # the head is out
        self._held = response.wait_for_first  # the next item must wait: for the head, or for a ping in flight
        self._finishing = False  # no more pings
        self._sending = False  # a send is in flight since `_sent_at`; `http.response.start` does not count
        self._sent_at = account.opened_at
        self._pinging = False  # a ping is in flight
        self._ping_over: anyio.Event | None = None  # made by whoever waits for it to be out
        self._ping_at = account.opened_at + response.ping_interval if response.ping_interval else NEVER
        self._drained = False
        self._grace_at = NEVER

    # ---- what the kind of loop decides, see tasks.py
    def spawn(self, work: Callable[[], Awaitable[None]], *, scoped: bool = False) -> None:
        """Run a child; it is cancelled at the end of the stream, unless `scoped`: then it has a scope of its own."""
        raise NotImplementedError

    def hasten(self) -> None:
        """Have `look` called no later than `due()`."""
        raise NotImplementedError

    async def send_failed(self, error: Exception) -> bool:
        """A `send` raised: False, and the stream is settled."""
        raise NotImplementedError

    # ---- the end
    def settle(self, ending: Ending, error: BaseException | None = None) -> bool:
        """How the stream ended; the first word stands. Returns False, for `return self.settle(...)`."""
        account = self.account
        if account.ending is None:
            account.ending, account.error = ending, error
            self.response.active = False
        elif error is not None and error is not account.error:
            logger.error("a stream that had ended (%s) failed again", account.ending.value, exc_info=error)
        return False

    def end(self, ending: Ending, error: BaseException | None = None) -> None:
        """Settle from outside the stream's own task: it stops where it waits."""
        self.settle(ending, error)
        self.cancel_scope.cancel()

    def leave(self) -> None:
        """The drain's word: tell the content, give it its time, then end it."""
        if self._drained or self.account.ending is not None:
            return
        self._drained = True
        if self.response.shutdown_event is not None:
            self.response.shutdown_event.set()
        if self.response.shutdown_grace_period:
            self._grace_at = monotonic() + self.response.shutdown_grace_period
            self.hasten()
        else:
            self.end(Ending.SHUTDOWN)

    # ---- deadlines
    def look(self, now: float) -> float:
        """See `clocks.Watched`: send clock, grace, ping."""
        response = self.response
        if self.account.ending is not None:
            return NEVER
        if self._sending and response.send_timeout is not None and now - self._sent_at >= response.send_timeout:
            self.end(Ending.SEND_TIMEOUT, late(response.send_timeout))
            connection.abort(self._scope, self._receive, self._send)
            return NEVER
        if now >= self._grace_at:
            self.end(Ending.SHUTDOWN)
            return NEVER
        if now >= self._ping_at:
            self._ping(now)
        return self.due()

    def due(self) -> float:
        """When to look again.

        A send may begin without telling. One look per `send_timeout` is enough all the same: a send that began just
        after a look is still in flight, and not late yet, at the next.
        """
        due = self._grace_at
        if self._ping_at < due:
            due = min(due, shared(self._ping_at, self.response.ping_interval))
        timeout = self.response.send_timeout
        if timeout is None:
            return due
        return min(due, (self._sent_at if self._sending else monotonic()) + timeout)

    def _ping(self, now: float) -> None:
        response = self.response
        if response.ping_mode == "idle" and now < self._sent_at + response.ping_interval:
            self._ping_at = self._sent_at + response.ping_interval
            return
        self._ping_at = max(self._ping_at, now - response.ping_interval) + response.ping_interval
        # While a send is in flight there is traffic, and a ping would land in the middle of it.
        if not self._started or self._finishing or self._sending:
            return
        try:
            chunk = ensure_bytes(self.context.run(response.ping_content, now), response.sep)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self.end(Ending.CALLBACK_ERROR, error)
            return
        self._pinging = self._held = self._sending = True
        self._sent_at = now
        self.spawn(lambda: self._send_ping(chunk))

    async def _send_ping(self, chunk: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.account.pings += 1
        except Exception as error:  # noqa: BLE001 - `run` raises it
            await self.send_failed(error)
            self.cancel_scope.cancel()
        finally:
            self._sending = self._pinging = False
            if self._ping_over is not None:
                self._ping_over.set()
                self._ping_over = None
