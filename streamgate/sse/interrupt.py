"""Ending a wait from outside: the body of a task stops as soon as a future is done.

It works as `asyncio.timeout` does, by cancelling the task and taking that one cancellation back, so a cancellation from
anyone else still goes through. A body that finished before the cancellation could reach it stays finished.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """The future was done before the body was."""


class interrupted_by:  # noqa: N801 - reads as a statement: `with interrupted_by(until):`
    """Run the body until `until` is done; raises `Interrupted` when that came first."""

    __slots__ = ("_active", "_before", "_fired", "_task", "_until")

    def __init__(self, until: asyncio.Future[Any]) -> None:
        self._until = until
        self._active = self._fired = False
        self._before = 0
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        if self._until.done():
            raise Interrupted
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("interrupted_by needs a task to interrupt")
        self._task, self._before, self._active = task, task.cancelling(), True
        self._until.add_done_callback(self._fire)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        self._until.remove_done_callback(self._fire)
        task, self._task = self._task, None
        if self._fired and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise Interrupted from None

    def _fire(self, _: asyncio.Future[Any]) -> None:
        if self._active and self._task is not None:
            self._fired = True
            self._task.cancel()


class unless(Generic[T]):  # noqa: N801 - reads as a statement: `async with unless(until, opening) as thing:`
    """Enter `context` unless `until` is done first (`Interrupted`); once entered it is left in the ordinary way."""

    __slots__ = ("_context", "_until")

    def __init__(self, until: asyncio.Future[Any], context: AbstractAsyncContextManager[T]) -> None:
        self._until = until
        self._context = context

    async def __aenter__(self) -> T:
        with interrupted_by(self._until):
            return await self._context.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._context.__aexit__(kind, exc, trace)
