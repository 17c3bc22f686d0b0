"""When a plugin is no longer called, and when it is asked again. Plain values and a clock that is handed in."""

from __future__ import annotations

from enum import IntEnum

FAILURES = 5  # in a row
OPEN_FOR = 30.0  # s
STALLS = 3  # calls that stopped the event loop, within STALLS_WITHIN seconds
STALLS_WITHIN = 600.0


class State(IntEnum):
    """Values of `streamgate_plugin_breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """CLOSED -> OPEN after failures or stalls -> HALF_OPEN for one call -> CLOSED, or OPEN again."""

    __slots__ = ("failures", "stalls", "state", "until")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.failures = 0  # in a row
        self.stalls: list[float] = []  # when
        self.until = 0.0  # OPEN: when one call may be tried; HALF_OPEN: when that one is given up

    def bars(self, now: float) -> bool:
        """A call now would not be made."""
        return self.state is not State.CLOSED and now < self.until

    def allows(self, now: float) -> bool:
        """Whether to make a call now; a yes while it is not closed is for this one call."""
        if self.state is State.CLOSED:
            return True
        if now < self.until:
            return False
        self.state = State.HALF_OPEN
        self.until = now + OPEN_FOR
        return True

    def succeeded(self) -> bool:
        """True when this closed it."""
        closed = self.state is not State.CLOSED
        self.state = State.CLOSED
        self.failures = 0
        if closed:
            self.stalls.clear()
        return closed

    def failed(self, now: float) -> bool:
        """True when this opened it."""
        self.failures += 1
        return self._open(now, self.failures >= FAILURES)

    def stalled(self, now: float) -> bool:
        """A call came back, but stopped every stream of the process meanwhile. True when this opened it."""
        self.stalls = [at for at in self.stalls if now - at < STALLS_WITHIN]
        self.stalls.append(now)
        return self._open(now, len(self.stalls) >= STALLS)

    def _open(self, now: float, enough: bool) -> bool:
        if self.state is State.OPEN or not (enough or self.state is State.HALF_OPEN):
            return False
        self.state = State.OPEN
        self.until = now + OPEN_FOR
        return True
