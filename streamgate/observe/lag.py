"""How late the event loop is: a timer that rings four times a second and notes by how much it was missed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from streamgate.clock import monotonic

PERIOD = 0.25  # seconds: often enough to catch a stall of that length for certain, cheap enough to forget


PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say. 10 us."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE
    except OSError:
        return 0


class LagTicker:
    """Tells `heard` the lag in seconds at each tick, from `start` until `stop`. No task: a chain of timers."""

    def __init__(self, heard: Callable[[float], None], *, period: float = PERIOD) -> None:
        self._heard = heard
        self._period = period
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, on the running loop. Idempotent."""
        if self._timer is None:
            self._next()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        # From now on and not from the last tick: after a stall of ten seconds one tick says so, not forty.
        self._due = monotonic() + self._period
        self._timer = asyncio.get_running_loop().call_later(self._period, self._ring)

    def _ring(self) -> None:
        self._heard(max(0.0, monotonic() - self._due))
        self._next()
