"""How a stream's children and its timer are had: plain tasks and the loop's one timer on asyncio, a task group on trio.

asyncio is where the cost counts: a task group and a timer task per stream would be two thirds of a short response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from streamgate.sse.clocks import NEVER, Watch, clocks_of
from streamgate.sse.stream import Stream


class LoopStream(Stream):
    """On asyncio, uvloop included."""

    __slots__ = ("_loop", "_scoped", "_tasks", "_watch")

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[Any]] = []
        self._scoped: list[asyncio.Task[Any]] = []
        self._watch: Watch | None = None
        self.hasten()

    def hasten(self) -> None:
        due = self.due()
        if self._watch is not None:
            self._watch.hasten(due)
        elif due != NEVER:
            self._watch = clocks_of(self._loop).watch(self, due)

    def spawn(self, work: Callable[[], Awaitable[None]], *, scoped: bool = False) -> None:
        task = self._loop.create_task(cast(Any, work()), context=self.context)
        if scoped:
            self._scoped.append(task)
        else:
            self._tasks = [other for other in self._tasks if not other.done()]  # the pings before
            self._tasks.append(task)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.forget()
        for task in self._tasks:
            task.cancel()
        children = self._tasks + self._scoped
        self._tasks, self._scoped = [], []
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)  # noqa: TID251 - one turn: nearly always that is all a cancelled child needs
            late = [task for task in children if not task.done()]
            if late:
                await asyncio.wait(late)


class GroupStream(Stream):
    """On trio, where a task must have a group."""

    __slots__ = ("_group", "_nap")

    async def __aenter__(self) -> None:
        self._nap: anyio.CancelScope | None = None
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._tick)

    def hasten(self) -> None:
        if self._nap is not None:
            self._nap.cancel()

    def spawn(self, work: Callable[[], Awaitable[None]], *, scoped: bool = False) -> None:
        self._group.start_soon(cast(Any, work))

    async def _tick(self) -> None:
        due = self.due()
        while True:
            with anyio.CancelScope(deadline=anyio.current_time() + due - monotonic()) as self._nap:
                await anyio.sleep_forever()
            now = monotonic()
            due = max(self.look(now), now + 0.001) if now >= due else self.due()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(kind, exc, trace)


def kind_of_stream() -> type[Stream]:
    """Which of the two the running event loop needs."""
    try:
        # Not `get_running_loop`: in trio's guest mode there is one, and the task is trio's all the same.
        inside_asyncio = asyncio.current_task() is not None
    except RuntimeError:
        inside_asyncio = False
    return LoopStream if inside_asyncio else GroupStream
