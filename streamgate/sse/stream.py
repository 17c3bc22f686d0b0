"""A response made of an iterable: the request's own task asks for an item, sends it, and asks for the next.

Beside that task one child listens for the disconnect, one runs `data_sender_callable`, and one lives for as long as a
ping is being sent. No queue, no lock, no task group, no deadline per send. Read `run` first.
"""

from __future__ import annotations

from inspect import isasyncgen
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import Message, Receive, Scope, Send

from streamgate.sse import connection
from streamgate.sse.account import Account, Drain, Ending, tell
from streamgate.sse.disconnect import disconnect, told_by_send
from streamgate.sse.event import ensure_bytes
from streamgate.sse.life import Life, logger

if TYPE_CHECKING:
    from streamgate.sse.response import EventSourceResponse

# Content that never waits, sent by a `send` that never waits, would keep the loop for itself: disconnect, pings and
# shutdown would go unseen. Every 16 items the clock is asked, and after 10 ms the others get a turn.
FAIR_ITEMS: Final = 15  # a mask
FAIR_SLICE: Final = 0.010
# s for a farewell, or an error told as an event, where no send_timeout says otherwise
LAST_WORDS: Final = 5.0
# s; a disconnect while the final message is being sent may be its answer: hypercorn's `send` on trio returns later.
GOODBYE: Final = 0.25
EMPTY: Final = b""


class Stream(Life):
    """One running response; `tasks.py` says how its children are run on asyncio and on trio."""

    __slots__ = ("_ended", "_handling", "_iterator", "_observer", "_sender", "forgiven")

    def __init__(
        self, response: EventSourceResponse, account: Account, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(response, account, scope, receive, send)
        self.forgiven = False  # the content's error was told to the client, and is not raised
        self._observer = response.observer
        self._iterator: Any = None
        self._sender: anyio.CancelScope | None = None
        self._ended = False  # the final message was given to `send`
        self._handling: anyio.Event | None = None  # set when the close handler, once begun, is through

    async def __aenter__(self) -> None:
        """Start the timer."""
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End timer and children; nothing a child did is raised here."""
        raise NotImplementedError

    async def run(self, drain: Drain) -> None:
        """From the head to the end. Raises what the content, a send or a callback raised, as it was raised."""
        exhausted = False
        async with self:
            try:
                with drain.inside(self.leave), self.cancel_scope:
                    self._begin()
                    exhausted = await self._deliver()
            finally:
                self._finishing = True
                await self._gone_is_told()
                # Before the content is closed: a producer at a memory channel's other end is to see a cancellation, and
                # not a broken channel.
                if self._sender is not None:
                    self._sender.cancel()
                if not exhausted or not isasyncgen(self._iterator):  # an exhausted generator has nothing left to close
                    await self._close_content()
            await self._last_words()
        if self.account.error is not None and not self.forgiven:
            raise self.account.error

    def _begin(self) -> None:
        self.spawn(self._listen)
        if self.response.data_sender_callable is not None:
            self._sender = anyio.CancelScope()
            self.spawn(self._push, scoped=True)

    # ---- the content
    async def _deliver(self) -> bool:
        """Head, items, final message. Whether the content was exhausted: if not, somebody must close it."""
        if not self._held:
            await self._head()
        try:
            self._iterator = aiter(self.response.body_iterator)
        except Exception as error:  # noqa: BLE001 - whatever it is, `run` raises it
            self.settle(Ending.CONTENT_ERROR, error)
        if self.account.ending is not None or not await self._items():
            return False
        if self.account.ending is None and await self._end(EMPTY):
            self.settle(Ending.COMPLETE)
        return True

    async def _items(self) -> bool:
        """Send what the content yields, one body message each, the next not asked for before the last is taken."""
        account, send, sep, observed = self.account, self._send, self.response.sep, self._observer is not None
        turn = account.opened_at
        take = self._iterator.__anext__
        while True:
            try:
                item = await take()
            except StopAsyncIteration:
                return True
            except Exception as error:  # noqa: BLE001
                return self.settle(Ending.CONTENT_ERROR, error)
            if account.ending is not None:
                return False  # the content swallowed its cancellation
            try:
                chunk = item if type(item) is bytes else ensure_bytes(item, sep)
            except Exception as error:  # noqa: BLE001
                return self.settle(Ending.ENCODE_ERROR, error)
            if self._held and not await self._clear():
                return False
            self._sent_at = now = monotonic()
            self._sending = True
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Exception as error:  # noqa: BLE001
                return await self.send_failed(error)
            self._sending = False
            account.events += 1
            account.bytes += len(chunk)
            if observed:
                self._observe(now)
            if not account.events & FAIR_ITEMS and now - turn > FAIR_SLICE:
                await checkpoint()
                turn = monotonic()

    def _observe(self, now: float) -> None:
        account = self.account
        took = monotonic() - now
        if took > account.slowest_send:  # noqa: PLR1730 - max() costs a call per event
            account.slowest_send = took
        if account.last_event_at and now - account.last_event_at > account.longest_gap:
            account.longest_gap = now - account.last_event_at
        account.last_event_at = now
        if not account.first_event_at:
            account.first_event_at = now
            tell(self._observer, "first_event", account)

    async def _close_content(self) -> None:
        """Run the content's own cleanup, also when it was never begun; bounded by `cleanup_timeout`."""
        content = self.response.body_iterator
        for part in (self._iterator, content if content is not self._iterator else None):
            aclose = getattr(part, "aclose", None)
            if aclose is None:
                continue
            with anyio.move_on_after(self.response.cleanup_timeout, shield=True) as scope:
                try:
                    await aclose()
                except Exception:  # noqa: BLE001 - the ending that is under way goes on
                    logger.exception("the content's cleanup failed")
            if scope.cancel_called:  # not `cancelled_caught`: content may swallow it, and was cut short all the same
                logger.warning("the content's cleanup was cancelled after %s s", self.response.cleanup_timeout)

    # ---- the messages that are not items
    async def _head(self) -> None:
        """`http.response.start`. The send clock does not run for it: that is sse-starlette's contract."""
        response = self.response
        try:
            headers = response.headers_for(self._scope)
            nudge = response.needs_nudge(self._scope)
            await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            self._started = True
            if nudge:
                await self._send({"type": "http.response.body", "body": EMPTY, "more_body": True})
        except Exception as error:  # noqa: BLE001
            await self.send_failed(error)

    async def _clear(self) -> bool:
        """Wait for what must go first: the head, a ping in flight. Whether the stream is still to go on."""
        if not self._started:
            await self._head()
        while self._pinging:
            if self._ping_over is None:
                self._ping_over = anyio.Event()
            await self._ping_over.wait()
        self._held = False
        return self.account.ending is None

    async def _end(self, words: bytes) -> bool:
        """The last words, if any, and the final message; nothing is sent after it. Whether both were taken."""
        self._finishing = True
        if self._held:
            await self._clear()
        self._sent_at, self._sending = monotonic(), True
        try:
            if words:
                await self._send({"type": "http.response.body", "body": words, "more_body": True})
            self._ended = True
            await self._send({"type": "http.response.body", "body": EMPTY, "more_body": False})
        except Exception as error:  # noqa: BLE001
            return await self.send_failed(error)
        self._sending = False
        return True

    async def _last_words(self) -> None:
        """A farewell at a shutdown, an error told as an event: then the body ends cleanly."""
        account, response = self.account, self.response
        if self._ended or account.ending not in {Ending.SHUTDOWN, Ending.CONTENT_ERROR, Ending.ENCODE_ERROR}:
            return
        if not self._started:
            await self._turn_away()
            return
        try:
            item = response.last_item(account)
            words = None if item is None else ensure_bytes(item, response.sep)
        except Exception:  # noqa: BLE001 - the ending that is under way goes on
            logger.exception("the last words of a stream could not be made")
            return
        if words is not None:
            with anyio.move_on_after(response.send_timeout or LAST_WORDS):
                self.forgiven = await self._end(words)

    async def _turn_away(self) -> None:
        """`wait_for_first`, and the shutdown came first: a status, where the server would say 500."""
        if self.account.ending is Ending.SHUTDOWN:
            headers = [(b"content-length", b"0"), (b"retry-after", b"1")]
            with anyio.move_on_after(self.response.send_timeout or LAST_WORDS):
                await self._send({"type": "http.response.start", "status": 503, "headers": headers})
                await self._send({"type": "http.response.body", "body": EMPTY, "more_body": False})

    async def send_failed(self, error: Exception) -> bool:
        self._sending = False
        if told_by_send(error, self._scope):
            await self._gone({"type": "http.disconnect"})
            return False
        return self.settle(Ending.SEND_ERROR, error)

    # ---- the children
    async def _listen(self) -> None:
        try:
            message = await disconnect(self._receive)
            while self._drained and connection.connected(self._scope, self._receive, self._send):  # noqa: ASYNC110
                # It is the server's shutdown and no disconnect: the grace period still holds.
                await anyio.sleep(0.1)
            if self._ended:
                await anyio.sleep(GOODBYE)  # when the send is through meanwhile, this child is cancelled
            await self._gone(message)
        except Exception as error:  # noqa: BLE001
            self.end(Ending.SEND_ERROR, error)

    async def _gone(self, message: Message) -> None:
        """The client is gone: first the close handler is told, then the content is ended."""
        if self.account.ending is not None or self._handling is not None:
            return
        self._finishing = True
        self.response.active = False
        self._handling = anyio.Event()
        try:
            if self.response.client_close_handler_callable is not None:
                await self.response.client_close_handler_callable(message)
        except Exception as error:  # noqa: BLE001
            self.end(Ending.CALLBACK_ERROR, error)
        finally:
            self._handling.set()
        if self.account.ending is None:
            self.end(Ending.CLIENT_DISCONNECT)

    async def _gone_is_told(self) -> None:
        """A close handler that has begun is not cut short by content that ends meanwhile."""
        if self._handling is not None and not self._handling.is_set():
            with anyio.move_on_after(self.response.cleanup_timeout, shield=True):
                await self._handling.wait()
            self.settle(Ending.CLIENT_DISCONNECT)

    async def _push(self) -> None:
        if self._sender is None or self.response.data_sender_callable is None:
            return
        try:
            with self._sender:
                await self.response.data_sender_callable()
        except Exception as error:  # noqa: BLE001
            if self.account.ending is None:
                self.end(Ending.CALLBACK_ERROR, error)
            else:  # what a producer in a thread meets when its stream is gone is no news
                logger.debug("a data sender failed after the end of its stream", exc_info=error)
