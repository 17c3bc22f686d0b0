"""So many a minute: a bucket that holds a minute's worth and fills evenly, kept as the one time at which it is full.

So nothing has to be done while time passes, a refund of what has long been filled up is nothing, and when the limit
changes, the share of it that was used stays what it is.
"""

from __future__ import annotations

import math

WINDOW = 60.0  # s
SLACK = 1e-6  # s: of sums of floats


class Rate:
    """A limit per minute of requests or of tokens; 0: none."""

    __slots__ = ("_full_at", "_gap", "limit")

    def __init__(self, limit: int = 0) -> None:
        self._full_at = -math.inf
        self.resize(limit)

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._gap = WINDOW / limit if limit else 0.0

    def wait(self, amount: int, now: float) -> float:
        """Seconds until there is room for so many; 0.0: there is. More than the bucket holds wait until it is full."""
        cost = amount * self._gap
        if self._full_at + cost - now <= WINDOW:
            return 0.0
        late = self.reset(now) + min(cost, WINDOW) - WINDOW
        return late if late > SLACK else 0.0

    def take(self, amount: int, now: float) -> None:
        """So many are used, whether there is room or not: a debt is paid by waiting. A negative amount comes back."""
        self._full_at = max(self._full_at, now) + amount * self._gap

    def remaining(self, now: float) -> int:
        used = self.reset(now)
        return max(0, math.floor((WINDOW - used + SLACK) / self._gap)) if self._gap else 0

    def reset(self, now: float) -> float:
        """Seconds until all of the limit is there again."""
        return max(0.0, self._full_at - now)
