"""The accounting of slots: plain functions of (state, now), no waiting, no tasks.

One level is counted here, the whole gateway; a further level is a further key of the same books, taken or refused in
the same step. Invariants: 0 <= taken <= limit, 0 <= waiting <= queue, and every take is given back exactly once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from streamgate.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`concurrent` streams at once (0: no limit); `queue` waiting (0: none); `max_wait` seconds each may wait."""

    concurrent: int = 0
    queue: int = 0
    max_wait: float = 10.0


@dataclass(frozen=True, slots=True)
class Granted:
    """Start now."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Wait for a slot until `deadline`."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Denied:
    """Come back in about `retry_after` seconds."""

    reason: Reason
    retry_after: float


Decision = Granted | Queued | Denied
GRANTED = Granted()


class Books(Protocol):
    """A ledger as the gate uses it. Awaitable, so that one shared by many replicas fits the same place."""

    taken: int

    async def arrive(self, now: float) -> Decision: ...
    def granted_late(self, now: float) -> None: ...
    def left_queue(self) -> None: ...
    def give_back(self, now: float) -> bool: ...


class Ledger:
    """The books of one process."""

    # Endings remembered for the estimate of the next free slot: enough to be steady, few enough to follow a change.
    REMEMBERED = 32

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.taken = 0
        self.waiting = 0
        self._endings: deque[float] = deque(maxlen=self.REMEMBERED)

    async def arrive(self, now: float) -> Decision:
        return self.decide(now)

    def decide(self, now: float) -> Decision:
        """Grant, queue or deny one arrival, and book it."""
        limit = self.limits.concurrent
        if not limit or (self.taken < limit and not self.waiting):
            self.taken += 1
            return GRANTED
        if not self.limits.queue:
            return Denied(Reason.CONCURRENCY, self.estimate(now, 0))
        if self.waiting >= self.limits.queue:
            return Denied(Reason.QUEUE_FULL, self.estimate(now, self.waiting))
        self.waiting += 1
        return Queued(now + self.limits.max_wait)

    def granted_late(self, now: float) -> None:
        """One that waited takes the slot that `give_back` offered."""
        self.waiting -= 1
        self.taken += 1

    def left_queue(self) -> None:
        self.waiting -= 1

    def give_back(self, now: float) -> bool:
        """Return a slot; True when somebody who waits should have it."""
        self.taken -= 1
        self._endings.append(now)
        return self.waiting > 0 and self.taken < self.limits.concurrent

    def estimate(self, now: float, ahead: int) -> float:
        """Seconds (1 to 60) until one with `ahead` others before it has a slot, by the recent rate of endings."""
        if len(self._endings) < 2:
            return 1.0
        span = max(now - self._endings[0], 0.001)
        return min(60.0, max(1.0, (ahead + 1) * span / len(self._endings)))
