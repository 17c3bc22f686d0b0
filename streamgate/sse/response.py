"""EventSourceResponse: open an outlet, listen for the disconnect, await the content into it, finish.

Content is a `Feed`, which pushes itself and starts the head when it likes, or anything iterable, which is wrapped into
one: the head goes out at once, and the next item is asked for when the client has taken the last.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamgate.sse.asgi import AsgiOutlet
from streamgate.sse.event import ensure_bytes
from streamgate.sse.interrupt import Interrupted, interrupted_by
from streamgate.sse.outlet import Farewell, Feed, Headers, Lost, Outlet, OutletSettings

# The server's own outlet, offered in scope["extensions"]: an object with `outlet(settings)`.
EDGE = "streamgate.edge"
CLEANUP = 30.0  # s that an iterator's `finally` may take; sse-starlette's default


class OpenOutlet(Outlet, AbstractAsyncContextManager["OpenOutlet"], Protocol):
    """An outlet whose life is an `async with`."""


def open_outlet(scope: Scope, receive: Receive, send: Send, settings: OutletSettings) -> OpenOutlet:
    """The server's own outlet where it offers one, else one over plain ASGI."""
    edge = scope.get("extensions", {}).get(EDGE)
    outlet: OpenOutlet
    if edge is not None:
        outlet = edge.outlet(settings)
    else:
        outlet = AsgiOutlet(settings, receive, send, head_only=scope["method"] == "HEAD")
    return outlet


class EventSourceResponse(Response):
    """A `text/event-stream` response with heartbeats, a send deadline and prompt cancellation.

    `ping` (None: 15) and `send_timeout` (None: off) are seconds, 0 turns them off; `settings` stands in place of both.
    HEAD gets the headers and never touches the content.
    """

    media_type = "text/event-stream"

    def __init__(  # noqa: PLR0917 - sse-starlette's order, which callers rely on
        self,
        content: Feed | AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        ping: float | None = None,
        sep: str | None = None,
        send_timeout: float | None = None,
        *,
        settings: OutletSettings | None = None,
    ) -> None:
        self.content = content
        self.status_code = status_code
        self.media_type = media_type or self.media_type
        self.background = background
        self.sep = sep or "\r\n"
        self.settings = settings or OutletSettings(heartbeat=15.0 if ping is None else ping, send=send_timeout or 0.0)
        if settings is not None and hasattr(content, "into"):
            self.raw_headers = list(settings.early_headers)  # such a Feed composes its own head; these are for HEAD
        else:
            given = {name.lower(): value for name, value in (headers or {}).items()}
            self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"} | given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with open_outlet(scope, receive, send, self.settings) as outlet:
            if scope["method"] == "HEAD":
                outlet.start(self.status_code, self.raw_headers)
                await outlet.finish(None, whole=True)
            else:
                farewell = await self._feed().into(outlet)
                await outlet.finish(farewell.words, whole=farewell.whole)
        if self.background is not None:
            await self.background()

    def _feed(self) -> Feed:
        if hasattr(self.content, "into"):
            return cast(Feed, self.content)
        return Iterated(cast(Iterable[Any], self.content), self.status_code, self.raw_headers, self.sep)


class Iterated:
    """An iterable as a Feed: start, write each item, wait while the outlet is full; close the iterator in any case."""

    def __init__(self, content: AsyncIterable[Any] | Iterable[Any], status: int, headers: Headers, sep: str) -> None:
        self._items = _asynchronous(content)
        self._status = status
        self._headers = headers
        self._sep = sep
        self._open = asyncio.Event()
        self._open.set()

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def into(self, outlet: Outlet) -> Farewell:
        lost: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
        outlet.start(self._status, self._headers)
        outlet.attach(self)
        outlet.on_lost(lost.set_result)
        try:
            with interrupted_by(lost):
                async for item in self._items:
                    outlet.write(ensure_bytes(item, self._sep), time.monotonic())
                    await self._open.wait()
        except Interrupted:
            return Farewell(whole=False)
        finally:
            outlet.on_lost(None)
            await self._close()
        return Farewell()

    async def _close(self) -> None:
        aclose = getattr(self._items, "aclose", None)
        if aclose is not None:
            with anyio.move_on_after(CLEANUP, shield=True):
                await aclose()


def _asynchronous(content: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(content, AsyncIterable):
        return aiter(content)
    return _threaded(iter(content))


async def _threaded(items: Any) -> AsyncIterator[Any]:
    """Iterate in a worker thread: a synchronous generator may block.

    A thread cannot be interrupted: when the wait for `next` is, `close` waits in another thread for it to come back.
    """
    done = object()
    turn = threading.Lock()

    def one_at_a_time(call: Callable[..., Any], *arguments: Any) -> Any:
        with turn:
            return call(*arguments)

    try:
        while (item := await anyio.to_thread.run_sync(one_at_a_time, next, items, done)) is not done:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await anyio.to_thread.run_sync(one_at_a_time, close, abandon_on_cancel=True)
