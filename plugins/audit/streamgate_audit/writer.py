"""The one thread that writes: a bounded queue on this side, the file on the other. Nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

from streamgate_audit.lines import dropped, line
from streamgate_audit.settings import Sync
from streamgate_audit.trail import Trail

BATCH = 1000  # lines of one write
RETRY = 1.0  # s after a failure; lines wait in the queue meanwhile
SECOND = 1.0  # s between two fsyncs


class Entry(Protocol):
    """What becomes a line, in the thread; `size` in bytes, of what it holds until then."""

    @property
    def size(self) -> int: ...
    def facts(self) -> dict[str, object]: ...


class Bounds(NamedTuple):
    """Of the queue."""

    lines: int
    size: int  # bytes


class Writer:
    """`told` is called in the event loop with what failed, with "" when it is well again; `wall` gives seconds since
    the epoch, `now` monotonic ones."""

    def __init__(
        self,
        trail: Trail,
        bounds: Bounds,
        sync: Sync,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
        told: Callable[[str], None],
    ) -> None:
        self._trail = trail
        self._bounds = bounds
        self._sync = sync
        self._now = now
        self._wall = wall
        self._told = told
        self._wake = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._held = 0  # bytes
        self._dropped = 0  # since the last line about it
        self._closing = False
        self._unsynced: float | None = None  # the thread's: since when something is written and not on the disk
        self._away_until = 0.0  # the thread's
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """In the event loop. Raises OSError when the file cannot be written."""
        self._trail.open()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="streamgate-audit", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> bool:
        """False: there is no room, and the file will say so. Never waits."""
        with self._wake:
            if len(self._queue) >= self._bounds.lines or self._held + entry.size > self._bounds.size:
                self._dropped += 1
                self._wake.notify()
                return False
            self._queue.append(entry)
            self._held += entry.size
            self._wake.notify()
            return True

    async def close(self) -> int:
        """Write what waits. How many lines could not be written."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with self._wake:
                self._closing = True
                self._wake.notify()
            await asyncio.to_thread(thread.join)
        return len(self._queue) + self._dropped

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._wait()
            while self._waiting() and self._tried(self._write):
                pass
            self._keep_promise(last=closing)
        self._trail.close()

    def _wait(self) -> bool:
        """Until there is something to do. True: for the last time."""
        with self._wake:
            now = self._now()
            if now < self._away_until:
                self._wake.wait_for(lambda: self._closing, self._away_until - now)
            else:
                rest = None if self._unsynced is None else max(0.0, self._unsynced + SECOND - now)
                self._wake.wait_for(lambda: self._waiting() or self._closing, rest)
            return self._closing

    def _waiting(self) -> bool:
        return bool(self._queue or self._dropped)

    def _write(self) -> None:
        """The next lines; they leave the queue when they are in the file."""
        with self._wake:
            entries = list(islice(self._queue, BATCH))
            missing = self._dropped if len(entries) == len(self._queue) else 0  # where they would have been: at the end
        at = self._wall()
        lines = [line(entry.facts()) for entry in entries] + ([line(dropped(missing, at))] if missing else [])
        self._trail.append(b"".join(lines), at)
        with self._wake:
            for _ in entries:
                self._held -= self._queue.popleft().size
            self._dropped -= missing
        if self._unsynced is None:
            self._unsynced = self._now()

    def _keep_promise(self, *, last: bool) -> None:
        """Force to the disk what the setting says, when it says so."""
        if self._unsynced is None:
            return
        due = last or self._sync == "batch" or self._now() - self._unsynced >= SECOND
        if self._sync == "never" or (due and self._tried(self._trail.sync)):
            self._unsynced = None

    def _tried(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except OSError as error:
            self._away_until = self._now() + RETRY
            self._tell(f"{type(error).__name__}: {error.strerror}")
            return False
        if self._away_until:
            self._away_until = 0.0
            self._tell("")
        return True

    def _tell(self, why: str) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            assert self._loop is not None  # noqa: S101 - `start` has set it
            self._loop.call_soon_threadsafe(self._told, why)
