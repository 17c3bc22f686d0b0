"""The same step for hooks that wait: a bounded mailbox, and one task of the stream's that empties it, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup

from streamgate.clock import monotonic
from streamgate.dialects.dialect import Dialect
from streamgate.errors import PluginFailed
from streamgate.hooks.chain import StreamHooks
from streamgate.hooks.values import Abort
from streamgate.record import Ending, StreamRecord
from streamgate.relay.attempt import Attempt
from streamgate.relay.hooked import Hooked, Opener
from streamgate.relay.valve import MAILBOX
from streamgate.sse.outlet import Outlet, Source

FULL: Final = 32 * 1024  # bytes at which the source is paused; one more read may come
ROOM: Final = FULL // 2  # at which it goes on
LATEST: Final = 10.0  # s for what is in the mailbox when the stream is over


class WaitingHooked(Hooked):
    """See the module."""

    __slots__ = ("_arrived", "_idle", "_mail", "_size", "_tasks")

    def __init__(
        self, hooks: StreamHooks, outlet: Outlet, head: Opener, dialect: Dialect, record: StreamRecord
    ) -> None:
        super().__init__(hooks, outlet, head, dialect, record)
        self._mail: deque[Attempt | bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()  # nothing is in the mailbox, and nothing under way
        self._idle.set()
        self._tasks: TaskGroup = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(kind, exc, trace)
        await super().__aexit__(kind, exc, trace)

    def open(self, attempt: Attempt, source: Source) -> None:
        self._put(attempt)

    def write(self, frame: bytes, now: float) -> None:
        if self.ending is None:
            self._size += len(frame)
            if self._size >= FULL:
                self.valve.shut(MAILBOX)
            self._put(frame)

    async def finish(self, ending: Ending) -> Ending:
        if self._heard(ending):  # else a hook's wait is given up with the task
            try:
                async with asyncio.timeout(LATEST):
                    await self._idle.wait()
            except TimeoutError:
                self._fail(PluginFailed(f"hooks were {LATEST} s behind when the stream ended"))
        return await super().finish(ending)

    def _put(self, mail: Attempt | bytes) -> None:
        self._mail.append(mail)
        self._idle.clear()
        self._arrived.set()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._mail:
                await self._delivered(self._mail.popleft())
            self._idle.set()

    async def _delivered(self, mail: Attempt | bytes) -> None:
        if isinstance(mail, bytes):
            self._size -= len(mail)
        if self._size <= ROOM:
            self.valve.open(MAILBOX)
        if self.ending is not None or self._outlet.lost is not None:
            return  # there is nobody to tell
        try:
            if isinstance(mail, Attempt):
                await self._opened(mail)
                return
            out = await self._carried(mail)
            if out:
                self._outlet.write(out, monotonic())
        except (Abort, PluginFailed) as fault:
            self._fail(fault)
        except Exception as bug:  # noqa: BLE001 - a bug of ours, which must not pass for a plugin's or an upstream's
            if self._ends is not None:
                self._ends.crash(bug)


def hooked(
    hooks: StreamHooks | None, outlet: Outlet, head: Opener, dialect: Dialect, record: StreamRecord
) -> Hooked | None:
    """The step that this stream's plugins need; None when none of them listens."""
    if hooks is None or not (hooks.chunked or hooks.opening):
        return None
    waits = any(member.plugin.waits for member in hooks.chunked)
    waits = waits or any("on_open" in member.asynchronous or member.plugin.threaded for member in hooks.opening)
    return (WaitingHooked if waits else Hooked)(hooks, outlet, head, dialect, record)
