"""A blocking call in a thread, one at a time: whoever needs its effect meanwhile waits for the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Errand:
    """`call` leaves its result where its owner finds it, and raises nothing. Belongs to one event loop."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._running: asyncio.Future[None] | None = None

    @property
    def running(self) -> bool:
        return self._running is not None and not self._running.done()

    async def run(self, patience: float) -> bool:
        """Start it, or join the one that runs; whether it ended within `patience` seconds.

        It is not cancelled with one that waits: the others wait on, and the call sets its own end.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().run_in_executor(None, self._call)
        done, _ = await asyncio.wait((self._running,), timeout=patience)
        return bool(done)
