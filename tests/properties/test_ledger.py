"""Whatever the order of arrivals, grants, departures and returns, the books balance."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from streamgate.admission.ledger import Denied, Granted, Ledger, Limits, Queued
from streamgate.errors import Reason


class Books(RuleBasedStateMachine):
    """Streams come, wait, start, leave the queue and end in any order; a model counts with its fingers."""

    inside = Bundle("inside")

    @initialize(concurrent=st.integers(0, 3), queue=st.integers(0, 3))
    def open(self, concurrent: int, queue: int) -> None:
        self.limits = Limits(concurrent=concurrent, queue=queue, max_wait=5.0)
        self.ledger = Ledger(self.limits)
        self.now = 0.0
        self.streams: set[int] = set()
        self.line: list[int] = []
        self.count = 0

    def tick(self) -> float:
        self.now += 0.25
        return self.now

    @rule(target=inside)
    def arrive(self) -> int:
        """One comes; who it is depends on the decision."""
        self.count += 1
        limit = self.limits.concurrent
        decision = self.ledger.decide(self.tick())
        match decision:
            case Granted():
                assert not limit or (len(self.streams) < limit and not self.line), "nobody is overtaken"
                self.streams.add(self.count)
            case Queued(deadline):
                assert deadline == self.now + 5.0
                assert len(self.streams) >= limit or self.line, "nobody waits for a slot that is free"
                self.line.append(self.count)
            case Denied(reason, retry_after):
                full = len(self.line) >= self.limits.queue
                assert full and reason is (Reason.QUEUE_FULL if self.limits.queue else Reason.CONCURRENCY)
                assert 1.0 <= retry_after <= 60.0
        return self.count

    @rule(who=consumes(inside))
    def leave(self, who: int) -> None:
        """The stream ends, or gives up waiting; the slot goes to the first in the line."""
        if who in self.line:
            self.line.remove(who)
            self.ledger.left_queue()
        elif who in self.streams:
            self.streams.remove(who)
            offered = self.ledger.give_back(self.tick())
            assert offered is (bool(self.line) and len(self.streams) < self.limits.concurrent)
            if offered:
                self.ledger.granted_late(self.tick())
                self.streams.add(self.line.pop(0))

    @invariant()
    def balanced(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.taken == len(self.streams)
        assert self.ledger.waiting == len(self.line)
        assert self.ledger.waiting <= self.limits.queue
        if self.limits.concurrent:
            assert self.ledger.taken <= self.limits.concurrent
            assert not self.line or self.ledger.taken == self.limits.concurrent, "nobody waits beside a free slot"

    def teardown(self) -> None:
        """Everybody goes home, and nothing is left."""
        for who in [*getattr(self, "line", ()), *getattr(self, "streams", ())]:
            self.leave_for_good(who)
        if hasattr(self, "ledger"):
            assert (self.ledger.taken, self.ledger.waiting) == (0, 0)

    def leave_for_good(self, who: int) -> None:
        if who in self.line:
            self.line.remove(who)
            self.ledger.left_queue()
        else:
            self.streams.remove(who)
            assert not self.ledger.give_back(self.tick())


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
