"""A route's clocks, and when they are due. Pure: times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.record import Outcome
from streamgate.sse.clocks import NEVER
from streamgate.sse.outlet import Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """A route's clocks in seconds; 0 turns one off, but `early_commit` 0 commits at once.

    `answer` is for requests without `stream: true`, which have no token clocks, no heartbeat and no early commit.
    """

    first_token: float = 120.0
    idle: float = 60.0
    total: float = 0.0
    answer: float = 600.0
    stall: float = 10.0
    send: float = 30.0
    heartbeat: float = 15.0
    early_commit: float = 10.0
    connect: float | None = None  # None: as the upstream has it

    def answer_due(self, leased: float, *, stream: bool) -> float:
        """When the whole answer must be there; `leased` 0: not started."""
        limit = self.total if stream else self.answer
        return leased + limit if limit and leased else NEVER

    def first_token_due(self, tried: float) -> float:
        return tried + self.first_token if self.first_token else NEVER

    def idle_due(self, last: float) -> float:
        return last + self.idle if self.idle else NEVER

    def departure(self, lost: Lost, last: float, now: float) -> Outcome:
        """What to call it when the client is lost; `last` is the last semantic event, 0 when there was none."""
        if lost is Lost.SLOW:
            return Outcome.SLOW_CLIENT
        gave_up = last == 0.0 or now - last > self.stall
        return Outcome.CLIENT_GAVE_UP if gave_up else Outcome.CLIENT_CLOSED
