"""Tasks that go on after the call that began them, with an owner that ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """`await start()` first; `await close()` cancels what still runs and waits for it."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def start(self) -> None:
        ready = asyncio.Event()
        self._owner = asyncio.get_running_loop().create_task(self._run(ready), name="guard")
        await ready.wait()

    async def close(self) -> None:
        self._over.set()
        await self._owner

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`work` must not raise: the others would end with it."""
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _run(self, ready: asyncio.Event) -> None:
        async with self._group:
            ready.set()
            await self._over.wait()
            for task in list(self._running):
                task.cancel()
