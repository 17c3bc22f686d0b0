"""What is counted for one level's limits: the slots in use, the rates, how long slots are kept, and who waits here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from streamgate.admission.claim import Level, Limits
from streamgate.admission.rates import Rate
from streamgate.admission.ticket import Unit

if TYPE_CHECKING:
    from streamgate.admission.queue import Line, Rank


class Count:
    """The count of one (level, name). It outlives claims: a reload brings other limits for the same count.

    `parked` are the lines whose first request waits for a slot here. `shut`: the shared store said that it is full,
    whatever these books say.
    """

    # Of the last endings, in effect: enough to be steady, few enough to follow a change.
    REMEMBERED = 32

    __slots__ = ("_endings", "kept", "level", "limit", "limits", "name", "parked", "requests", "shut", "terms",
                 "tokens", "used")  # fmt: skip

    def __init__(self, level: Level, name: str) -> None:
        self.level = level
        self.name = name
        self.used = 0
        self.terms = 0  # that refer to it
        self.parked: dict[Rank, dict[Line, None]] = {}
        self.shut = False
        self.kept = 0.0  # seconds that a slot is kept, in the mean
        self._endings = 0
        self.requests = Rate()
        self.tokens = Rate()
        self.limits = Limits()
        self.limit: float = math.inf

    def allow(self, limits: Limits) -> None:
        self.limits = limits
        self.limit = limits.concurrent or math.inf
        self.requests.resize(limits.requests_per_minute)
        self.tokens.resize(limits.tokens_per_minute)

    @property
    def full(self) -> bool:
        return self.used >= self.limit or self.shut

    def late(self, tokens: int, now: float) -> tuple[float, Unit]:
        """Seconds until both rates have room for one more request, and which of them is the later one."""
        requests, used = self.requests.wait(1, now), self.tokens.wait(tokens, now)
        return (requests, Unit.REQUESTS) if requests >= used else (used, Unit.TOKENS)

    def charge(self, tokens: int, now: float, requests: int = 1) -> None:
        if self.requests.limit:
            self.requests.take(requests, now)
        if self.tokens.limit:
            self.tokens.take(tokens, now)

    def ended(self, seconds: float) -> None:
        """A slot that was kept so long came free."""
        if self._endings < self.REMEMBERED:
            self._endings += 1
        self.kept += (seconds - self.kept) / self._endings

    def pace(self) -> float:
        """Slots that come free in a second while all are in use; 0.0: nothing is known yet.

        From how long they are kept, not from how many came free lately: that would call a quiet hour slowness.
        """
        busy = max(1.0, min(self.limit, self.used))
        return busy / self.kept if self._endings and self.kept > 0 else 0.0

    def idle(self, now: float) -> bool:
        """Forgetting it would change no decision."""
        return not (self.used or self.terms or self.requests.reset(now) or self.tokens.reset(now))
