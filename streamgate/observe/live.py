"""What the live streams are up to right now: gauges that come from the set of streams, so that none can leak."""

from __future__ import annotations

from streamgate.observe.tally import began
from streamgate.record import Phase, StreamRecord


class Pressure:
    """Sums over live streams; `add` each once. `stall` is the seconds of silence after which one is stalled."""

    __slots__ = ("_now", "_stall", "buffered", "oldest_wait", "slow", "stalled")

    def __init__(self, now: float = 0.0, stall: float = 0.0) -> None:
        self._now = now
        self._stall = stall
        self.stalled = 0
        self.slow = 0
        self.buffered = 0
        self.oldest_wait = 0.0

    def add(self, record: StreamRecord) -> None:
        outlet = record.outlet
        blocked = outlet is not None and outlet.blocked_at > 0.0
        if outlet is not None:
            self.buffered += outlet.buffered
            self.slow += blocked
        if not record.stream or record.phase is Phase.ENDED:
            return
        if record.t_read and not record.t_first:
            self.oldest_wait = max(self.oldest_wait, self._now - began(record))
        if self._stall and record.t_leased and not blocked:
            self.stalled += self._now - (record.t_last or record.t_leased) > self._stall
