"""One heap and one timer per event loop for the deadlines and heartbeats of all streams.

A thing with deadlines is `Watched`: the hot path only stores plain timestamps, and `look` compares them when the timer
comes round. A stream that is over is forgotten at once: its entry stays in the heap as an empty shell.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from contextvars import Context
from itertools import count
from typing import Protocol

NEVER = float("inf")


class Watched(Protocol):
    """Something with deadlines."""

    def look(self, now: float) -> float:
        """Act on what is overdue; return the monotonic time to look again, or `NEVER`. Must not raise or block."""
        ...


class Watch:
    """One thing being watched; `forget` drops the reference at once, whenever the deadline was."""

    __slots__ = ("_clocks", "_seq", "due", "watched")

    def __init__(self, clocks: Clocks, watched: Watched, due: float, seq: int) -> None:
        self._clocks = clocks
        self._seq = seq
        self.watched: Watched | None = watched
        self.due = due

    def hasten(self, due: float) -> None:
        """Look no later than `due`; a later time than the one set is ignored."""
        if due < self.due and self.watched is not None:
            self._clocks.put(self, due)

    def forget(self) -> None:
        if self.watched is not None:
            self.watched = None
            self._clocks.forgotten()


class Clocks:
    """The deadlines of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Watch]] = []
        self._seq = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        # Else the timer would hold the context, and what is in it, of whichever request armed it.
        self._context = Context()
        self._living = 0  # watches that were not forgotten

    def __len__(self) -> int:
        """How many entries the heap holds, shells of forgotten ones included."""
        return len(self._heap)

    def watch(self, watched: Watched, due: float) -> Watch:
        """Call `watched.look` at `due` (monotonic seconds) and then whenever it asks for, until forgotten."""
        watch = Watch(self, watched, NEVER, 0)
        self._living += 1
        self.put(watch, due)
        return watch

    def put(self, watch: Watch, due: float) -> None:
        watch.due = due
        watch._seq = seq = next(self._seq)  # what the heap holds for it already is void, also when nothing follows
        if due == NEVER:
            return
        heapq.heappush(self._heap, (due, seq, watch))
        if due < self._timer_due:
            self._arm(due)

    def forgotten(self) -> None:
        """Sweep the shells out once they are the larger half: 2,000 requests a second would leave 100 MB of them."""
        self._living -= 1
        if len(self._heap) > 64 + 2 * self._living:  # a watch that was hastened left more than one
            self._heap = [entry for entry in self._heap if entry[2].watched is not None and entry[1] == entry[2]._seq]
            heapq.heapify(self._heap)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        # 1 ms late on purpose: uvloop counts whole milliseconds, and an early look would only be repeated.
        delay = max(0.0, due - time.monotonic()) + 0.001
        self._timer = self._loop.call_later(delay, self._ring, context=self._context)

    def _ring(self) -> None:
        self._timer, self._timer_due = None, NEVER
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, seq, watch = heapq.heappop(self._heap)
            if watch.watched is not None and seq == watch._seq:
                # A look that is due again at once would spin here; a millisecond lets the loop turn.
                self.put(watch, max(watch.watched.look(now), now + 0.001))
        if self._heap and self._heap[0][0] < self._timer_due:
            self._arm(self._heap[0][0])


def clocks_of(loop: asyncio.AbstractEventLoop) -> Clocks:
    """The clocks of this loop, made on first use; they live and die with the loop, which holds them."""
    found: Clocks | None = getattr(loop, "_streamgate_clocks", None)
    if found is None:
        found = loop._streamgate_clocks = Clocks(loop)  # type: ignore[attr-defined]
    return found
