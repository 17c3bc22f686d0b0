"""Is the gateway itself overloaded? By how late its event loop is, and by its memory; with hysteresis. Pure.

A newcomer costs a loop that is late already more lateness for everybody; one refused at once costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.errors import Reason, Refusal

IN_A_ROW = 2  # late ticks: one is a scrape or a large body, two are a trend
CALM = 8  # ticks (2 s at four a second) below half of the limit before newcomers are let in again
RELIEF = 0.9  # of the memory limit: an allocator gives back in steps, so just below the limit is still over it
RETRY_AFTER = 2.0  # s: the calm that it takes at least


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedSettings:
    """`lag`: seconds the event loop may be late; `memory`: resident bytes; 0: that one is not looked at."""

    lag: float = 0.0
    memory: int = 0


class Pressure:
    """Told of each tick of the loop; knows whether newcomers are refused."""

    def __init__(self, settings: ShedSettings = ShedSettings()) -> None:
        self.settings = settings
        self.late = self.full = False  # which of the two it is
        self._late_ticks = 0
        self._calm_ticks = 0

    @property
    def overloaded(self) -> bool:
        return self.late or self.full

    def tick(self, lag: float, memory: int) -> None:
        """The loop was `lag` seconds late, and `memory` bytes are resident (0: not known)."""
        if self.settings.lag:
            self._judge_lag(lag)
        if self.settings.memory and memory:
            limit = self.settings.memory
            self.full = memory >= (limit * RELIEF if self.full else limit)

    def _judge_lag(self, lag: float) -> None:
        limit = self.settings.lag
        self._late_ticks = self._late_ticks + 1 if lag >= limit else 0
        self._calm_ticks = self._calm_ticks + 1 if lag < limit / 2 else 0
        if self._late_ticks >= IN_A_ROW:
            self.late = True
        elif self._calm_ticks >= CALM:
            self.late = False

    def check(self) -> None:
        """Raises Refusal 503 (overload) while the gateway is overloaded."""
        if self.late or self.full:
            what = "is short of memory" if self.full else "is overloaded"
            raise Refusal(Reason.OVERLOAD, 503, f"The gateway {what}.", retry_after=RETRY_AFTER)
