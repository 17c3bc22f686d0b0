"""What a response may be made of, as one thing to iterate: asynchronous iterables as they are, all else in threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import anyio.to_thread

from streamgate.sse.event import ServerSentEvent

Content = str | bytes | dict[str, Any] | ServerSentEvent | Any
SyncContentStream = Iterator[Content]
AsyncContentStream = AsyncIterable[Content]
ContentStream = AsyncContentStream | SyncContentStream

_OVER = object()


def asynchronous(content: Any) -> AsyncIterable[Any]:
    """The content as an asynchronous iterable. Nothing is asked of it yet: what cannot be iterated shows later."""
    if isinstance(content, AsyncIterable):
        return content
    if type(content) is list or type(content) is tuple:
        return Inline(content)
    return Threaded(content)


class Inline:
    """A list or tuple: taking its next item cannot block, so it needs no thread."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = next(self._items, _OVER)
        if item is _OVER:
            raise StopAsyncIteration
        return item


class Threaded:
    """A synchronous iterable, whose next item may take its time: each is waited for in a worker thread.

    A thread cannot be interrupted. When the wait for it is, the thread is left behind and whoever is last closes the
    iterator: `aclose` when no thread is inside it, else the thread on its way out. A generator's `finally` runs then,
    and never while the generator is running.
    """

    __slots__ = ("_closing", "_content", "_inside", "_items", "_lock")

    def __init__(self, content: Any) -> None:
        self._content = content
        self._items: Iterator[Any] | None = None
        self._lock = threading.Lock()
        self._inside = False
        self._closing = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True)
        if item is _OVER:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        with self._lock:
            self._closing = True
            inside = self._inside
        if not inside and self._items is not None:
            await anyio.to_thread.run_sync(self._close, abandon_on_cancel=True)

    def _next(self) -> Any:
        with self._lock:
            if self._closing:
                return _OVER
            self._inside = True
        try:
            if self._items is None:
                self._items = iter(self._content)
            return next(self._items, _OVER)
        finally:
            if self._left():
                self._close()

    def _left(self) -> bool:
        """The thread is out of the iterator; whether it is to close it, because `aclose` could not."""
        with self._lock:
            self._inside = False
            return self._closing

    def _close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
